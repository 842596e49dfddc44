//! Commands that the pages for people name, held against what there is. Sessions with a container are run by the system tests
//! (tests/tests/system/docs.rs).

use anyhow::Result;
use muster_cli::CommandLine;
use muster_cli::clap::CommandFactory;
use muster_tests::paths;
use std::fs;
use std::path::PathBuf;

/// All pages.
fn pages() -> Result<Vec<PathBuf>> {
    let root = paths::workspace();
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(|name| root.join(name)).into();
    for entry in fs::read_dir(root.join("docs"))? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|end| end == "md"));
    Ok(pages)
}

/// The word after each mention of a program that is followed by one; options are none.
fn words<'a>(text: &'a str, program: &str) -> Vec<&'a str> {
    let rests = text.split(program).skip(1).filter_map(|rest| rest.strip_prefix(' '));
    let word = |rest: &'a str| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len());
        &rest[..end]
    };
    rests.map(word).filter(|word| !word.is_empty() && !word.starts_with('-')).collect()
}

fn check(program: &str, known: &[&str]) -> Result<()> {
    let mut count = 0;
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        for word in words(&text, program) {
            assert!(known.contains(&word), "{}: {program} {word}", page.display());
            count += 1;
        }
    }
    assert!(count > 10, "the pages name {program} only {count} times");
    Ok(())
}

#[test]
fn chores_that_pages_name_are_there() -> Result<()> {
    let known: Vec<&str> =
        crate::USAGE.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    check("cargo xtask", &known)
}

#[test]
fn commands_of_musterctl_that_pages_name_are_there() -> Result<()> {
    let command = CommandLine::command();
    let known: Vec<&str> = command.get_subcommands().map(|command| command.get_name()).collect();
    check("musterctl", &known)
}

#[test]
fn pages_that_are_linked_are_there() -> Result<()> {
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            let local = !target.is_empty() && !target.contains(':');
            let there = page.parent().is_some_and(|dir| dir.join(target).exists());
            assert!(!local || there, "{}: a link to {target}", page.display());
        }
    }
    Ok(())
}
