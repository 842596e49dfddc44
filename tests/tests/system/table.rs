//! The table of directives against the cases: a directive that is said to have an effect is named in a case.
//!
//! What must stay true: the list of exceptions only gets shorter. A row that gets a case leaves it; a new row has one.

use crate::ground::{Ground, Init};
use crate::{Case, Outcome};
use anyhow::{Result, ensure};
use muster_tests::paths;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Applied, and named in no case yet.
const WITHOUT_A_CASE: &[&str] = &[];

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![Case::new("table/what-is-applied-has-a-case", applied_has_a_case)]
}

fn applied_has_a_case(ground: &Ground) -> Result<Outcome> {
    if ground.init == Init::Systemd {
        return Ok(Outcome::Skipped("the table is muster's own".to_string()));
    }
    let names = named()?;
    let coverage = Command::new(paths::release().join("musterctl")).arg("coverage").output()?;
    let coverage = String::from_utf8(coverage.stdout)?;
    let rows = coverage.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (_, directive) = (words.next()?, words.next()?);
        (words.next() == Some("applied")).then_some(directive)
    });
    let without: BTreeSet<&str> = rows.filter(|directive| !is_named(&names, directive)).collect();
    let listed: BTreeSet<&str> = WITHOUT_A_CASE.iter().copied().collect();
    let new: Vec<_> = without.difference(&listed).collect();
    let mended: Vec<_> = listed.difference(&without).collect();
    ensure!(coverage.lines().count() > 400, "musterctl coverage says too little:\n{coverage}");
    ensure!(new.is_empty(), "applied, and named in no case: {new:?}");
    ensure!(mended.is_empty(), "no longer without a case, to be taken off the list: {mended:?}");
    Ok(Outcome::Passed)
}

/// All words of the cases.
fn named() -> Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    let workspace = paths::workspace();
    let mut files = vec![workspace.join("docs/sockets.md"), workspace.join("docs/sandboxing.md")];
    for dir in ["tests/cases", "tests/tests/system"] {
        files.extend(fs::read_dir(workspace.join(dir))?.filter_map(Result::ok).map(|entry| entry.path()));
    }
    for file in files.iter().filter(|file| !file.ends_with("table.rs")) {
        let text = fs::read_to_string(file)?;
        words.extend(text.replace("\\n", " ").split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_owned));
    }
    Ok(words)
}

/// Conditions and limits are often given to a case without the first word of their names.
fn is_named(names: &BTreeSet<String>, directive: &str) -> bool {
    let tails = ["Condition", "Assert", "Limit"].into_iter().filter_map(|head| directive.strip_prefix(head));
    names.contains(directive) || tails.into_iter().any(|tail| names.contains(tail))
}
