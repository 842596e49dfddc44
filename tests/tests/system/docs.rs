//! The examples of docs/sockets.md, run as they stand there: one container for the page, from top to bottom.
//!
//! A block of `ini` whose first line is a comment with a path is that file. In a block of `console`, a line with `$ ` is
//! a command, and each line after it must be part of what the command says.

use crate::ground::{Ground, Init, basic, booted};
use crate::{Case, Outcome};
use anyhow::{Context, Result, ensure};
use muster_tests::{Container, paths};
use std::fs;

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![Case::new("docs/sockets", sockets)]
}

fn sockets(ground: &Ground) -> Result<Outcome> {
    if ground.init == Init::Systemd {
        return Ok(Outcome::Skipped("the page shows what muster does beyond systemd".to_string()));
    }
    let page = fs::read_to_string(paths::workspace().join("docs/sockets.md"))?;
    let blocks = blocks(&page);
    ensure!(blocks.len() > 10, "the page has lost its examples");
    let mut builder = basic(ground.debian());
    for (_, text) in blocks.iter().filter(|(kind, _)| *kind == "ini") {
        let (first, file) = text.split_once('\n').context("an empty example")?;
        builder = builder.file(first.trim_start_matches("# "), file);
    }
    let container = booted(builder)?;
    for (_, text) in blocks.iter().filter(|(kind, _)| *kind == "console") {
        run(&container, text)?;
    }
    Ok(Outcome::Passed)
}

/// Kind and text of each fenced block.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    page.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n')).collect()
}

fn run(container: &Container, text: &str) -> Result<()> {
    let mut said = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let output = container.sh(command)?;
            said = format!("$ {command}\n{}{}", output.stdout, output.stderr);
        } else {
            ensure!(said.contains(line), "not said: {line}\n{said}");
        }
    }
    Ok(())
}
