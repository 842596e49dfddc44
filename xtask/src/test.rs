//! `cargo xtask test`: every test there is, and one count at the end.

use crate::vm;
use anyhow::{Context, Result};
use muster_tests::paths;
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

/// How many tests passed, failed, and were skipped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// One test that passed.
    pub fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    /// One that failed.
    pub fn failed() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    /// One that could not run here.
    pub fn skipped() -> Self {
        Self { skipped: 1, ..Self::default() }
    }

    /// The count in a line of a test program: cargo's `test result: …`, or ours.
    fn from_line(line: &str) -> Option<Self> {
        let cargo = line.strip_prefix("test result: ");
        let counts = cargo.map_or(line, |rest| rest.split_once(". ").map_or(rest, |(_, counts)| counts));
        let number = |word: &str| {
            let part = counts.split([',', ';']).find(|part| part.trim().ends_with(word))?;
            part.trim().split(' ').next()?.parse::<u64>().ok()
        };
        let skipped = number(if cargo.is_some() { "ignored" } else { "skipped" })?;
        Some(Self { passed: number("passed")?, failed: number("failed")?, skipped })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

/// Runs everything; the exit status says whether something failed.
pub fn all() -> Result<i32> {
    let mut tally = cargo(&["test", "--release", "--workspace", "--no-fail-fast"])?;
    println!("\ncontainer tests");
    tally += cargo(&["test", "--release", "--quiet", "-p", "muster-tests", "--test", "container"])?;
    println!("\nvirtual machine tests");
    tally += vm::test();
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(i32::from(tally.failed > 0))
}

/// Runs cargo, showing its output, and adds up the counts in it. A failure without a count (it did not compile) is one failure.
fn cargo(args: &[&str]) -> Result<Tally> {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let mut command = Command::new(program);
    command.args(args).current_dir(paths::workspace()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("cargo's stdout")?).lines() {
        let line = line?;
        match Tally::from_line(&line) {
            Some(more) => tally += more,
            None => println!("{line}"),
        }
    }
    if !child.wait()?.success() && tally.failed == 0 {
        println!("FAILED cargo {}", args.join(" "));
        tally += Tally::failed();
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_both_kinds_of_lines() {
        let of = |passed, failed, skipped| Some(Tally { passed, failed, skipped });
        let line = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(Tally::from_line(line), of(12, 1, 2));
        assert_eq!(Tally::from_line("3 passed, 0 failed, 4 skipped"), of(3, 0, 4));
        assert_eq!(Tally::from_line("ok     boot/debian (1.5 s)"), None);
    }
}
