//! `cargo xtask test`: every test there is, and one count at the end.

use crate::{artefacts, order, package, package_vm, vm};
use anyhow::{Context, Result, anyhow};
use muster_tests::{Container, image, paths};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::AddAssign;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

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

    /// The same after its program has ended. A failure without a count (it did not compile) is one failure.
    fn ended(mut self, well: bool, name: &str) -> Self {
        if !well && self.failed == 0 {
            println!("FAILED {name}");
            self += Self::failed();
        }
        self
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

/// What runs the tests of whole systems.
pub const SYSTEM: [&str; 7] = ["test", "--quiet", "-p", "muster-tests", "--test", "system", "--"];

/// Runs cargo on our own streams; its exit status.
pub fn run(args: &[&str], more: &[&str]) -> Result<i32> {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let status = Command::new(program).args(args).args(more).current_dir(paths::workspace()).status()?;
    Ok(status.code().unwrap_or(1))
}

/// Runs everything; the exit status says whether something failed.
pub fn all() -> Result<i32> {
    let mut part = Part::begin("house rules, and beside them what the tests of systems are made of");
    let makes = std::thread::spawn(make);
    let mut tally = lint("fmt", &["fmt", "--all", "--check"]);
    tally += lint("clippy", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    tally += cargo(&["test", "--workspace", "--no-fail-fast", "--", "--show-output"])?;
    makes.join().map_err(|_| anyhow!("what made programs and images panicked"))?;
    part = part.then("system tests");
    tally += cargo(&SYSTEM)?;
    part =
        part.then("the same cases under systemd, the oracle, and beside them a machine, packages and images");
    let beside = Beside::begin(&["test", APART])?;
    let lock = beside.lock.to_string_lossy();
    tally += cargo(&[&SYSTEM[..], &["--init", "systemd", "--beside", &lock]].concat())?;
    part = part.then("what was beside them");
    tally += beside.end()?;
    part.end();
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(i32::from(tally.failed > 0))
}

/// Makes programs and images at the same time: to link a program takes one processor for minutes, and packages are waited for. What
/// went wrong is said; whoever needs what is missing tries again, and is who fails. No test of systems runs meanwhile.
fn make() {
    let said = |made: Result<()>| made.unwrap_or_else(|error| eprintln!("{error:#}"));
    std::thread::scope(|scope| {
        scope.spawn(|| said(image::build_programs()));
        if Container::unsupported().is_none() {
            said(image::fetch_all());
        }
    });
}

/// The option for what runs beside the oracle.
pub const APART: &str = "--apart";

/// What boots machines of its own, and packages and images, one after the other.
pub fn apart() -> i32 {
    let mut tally = vm::test_debian(image::MUSTER);
    order::freshness().map_or_else(|error| println!("{error:#}"), |known| println!("{known}"));
    tally += artefacts::test(artefacts::programs());
    tally += vm::test();
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    i32::from(tally.failed > 0)
}

/// A part of the whole run: its heading before it, its time after it.
struct Part {
    name: &'static str,
    begun: Instant,
}

impl Part {
    fn begin(name: &'static str) -> Self {
        println!("{name}");
        Self { name, begun: Instant::now() }
    }

    fn end(self) {
        println!("{}: {} s", self.name, self.begun.elapsed().as_secs());
    }

    fn then(self, name: &'static str) -> Self {
        self.end();
        println!();
        Self::begin(name)
    }
}

/// A part that does not keep all processors busy (a machine that boots and waits) and so runs beside another: this program once
/// more, its output shown when it has ended. A lock is held until then.
struct Beside {
    child: JoinHandle<io::Result<ExitStatus>>,
    output: PathBuf,
    lock: PathBuf,
}

impl Beside {
    fn begin(args: &[&str]) -> Result<Self> {
        let (output, lock) = (paths::target().join("beside.txt"), paths::target().join("beside.lock"));
        let held = File::create(&lock)?;
        held.lock()?;
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(args).stdout(File::create(&output)?).spawn()?;
        let child = std::thread::spawn(move || {
            let status = child.wait();
            drop(held);
            status
        });
        Ok(Self { child, output, lock })
    }

    fn end(self) -> Result<Tally> {
        let status = self.child.join().map_err(|_| anyhow!("what waited for it panicked"))??;
        let tally = show(BufReader::new(File::open(&self.output)?))?;
        Ok(tally.ended(status.success(), "what ran beside the rest"))
    }
}

/// Packages and images alone, of the programs as they are released.
pub fn artefacts() -> i32 {
    eprintln!("building the programs as they are released (some minutes)");
    let tally = artefacts::test(package::build());
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    i32::from(tally.failed > 0)
}

/// What packages and images need a machine for.
pub fn packages() -> i32 {
    i32::from(package_vm::test().failed > 0)
}

/// Two builds of one commit.
pub fn reproducible() -> i32 {
    i32::from(package_vm::twice().failed > 0)
}

/// The machine that boots from a disk, alone.
pub fn machines(init: &str) -> i32 {
    let tally = vm::test_debian(init);
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    i32::from(tally.failed > 0)
}

/// One of cargo's own checks, as one test; skipped where the toolchain came without it.
fn lint(name: &str, args: &[&str]) -> Tally {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let cargo = |args: &[&str]| Command::new(&program).args(args).current_dir(paths::workspace()).output();
    if !cargo(&[name, "--version"]).is_ok_and(|output| output.status.success()) {
        println!("SKIP   rules/{name}: this toolchain has no cargo {name}");
        return Tally::skipped();
    }
    match cargo(args) {
        Ok(output) if output.status.success() => {
            println!("ok     rules/{name}");
            Tally::passed()
        }
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            println!("FAILED rules/{name}\n{}", String::from_utf8_lossy(&said));
            Tally::failed()
        }
        Err(error) => {
            println!("FAILED rules/{name}: {error}");
            Tally::failed()
        }
    }
}

/// Runs cargo, showing its output, and adds up the counts in it.
fn cargo(args: &[&str]) -> Result<Tally> {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let mut command = Command::new(program);
    command.args(args).current_dir(paths::workspace()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let tally = show(BufReader::new(child.stdout.take().context("cargo's stdout")?))?;
    Ok(tally.ended(child.wait()?.success(), &format!("cargo {}", args.join(" "))))
}

/// Shows what test programs print, as far as a person wants to see it, and adds up the counts in it.
fn show(output: impl BufRead) -> Result<Tally> {
    let mut reading = Reading::default();
    for line in output.lines() {
        let line = line?;
        if reading.shows(&line) {
            println!("{line}");
        }
    }
    Ok(reading.tally)
}

/// What was read of test programs so far. A test of cargo's harness cannot say that it was skipped: ours print `SKIP reason`
/// and return, so a passed test with such a line is moved from one count to the other.
#[derive(Debug, Default)]
struct Reading {
    tally: Tally,
    skips: u64,
    in_successes: bool,
}

impl Reading {
    /// Takes a line; whether a person wants to see it.
    fn shows(&mut self, line: &str) -> bool {
        if let Some(mut more) = Tally::from_line(line) {
            if line.starts_with("test result: ") {
                more.passed = more.passed.saturating_sub(self.skips);
                more.skipped += self.skips;
            }
            (self.skips, self.in_successes) = (0, false);
            self.tally += more;
            return false;
        }
        let skip = line.starts_with("SKIP ");
        self.skips += u64::from(skip);
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        skip || !(self.in_successes
            || line.is_empty()
            || line.ends_with("... ok")
            || line == "running 0 tests")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_while_something_runs_beside() {
        let beside = Beside::begin(&["--list"]).unwrap();
        File::open(&beside.lock).unwrap().lock_shared().unwrap();
        assert_eq!(beside.end().unwrap(), Tally::default());
    }

    #[test]
    fn counts_are_read_from_both_kinds_of_lines() {
        let of = |passed, failed, skipped| Some(Tally { passed, failed, skipped });
        let line = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(Tally::from_line(line), of(12, 1, 2));
        assert_eq!(Tally::from_line("3 passed, 0 failed, 4 skipped"), of(3, 0, 4));
        assert_eq!(Tally::from_line("ok     boot/debian (1.5 s)"), None);
    }

    #[test]
    fn a_skip_is_not_a_pass() {
        let mut reading = Reading::default();
        let lines = [
            "test a ... ok",
            "successes:",
            "---- a stdout ----",
            "SKIP needs root",
            "successes:",
            "    a",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "SKIP   boot/small: no systemd in it",
            "3 passed, 0 failed, 1 skipped",
        ];
        let shown: Vec<_> = lines.into_iter().filter(|line| reading.shows(line)).collect();
        assert_eq!(shown, ["SKIP needs root", "SKIP   boot/small: no systemd in it"]);
        assert_eq!(reading.tally, Tally { passed: 4, failed: 0, skipped: 2 });
    }
}
