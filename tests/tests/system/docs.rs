//! The pages of docs/, run as they stand there: one container for a page, from top to bottom.
//!
//! A block of `ini` whose first line is a comment with a path is that file. In a block of `console`, a line with `$ ` is
//! a command, and each line after it must be part of what the command says. Every page with such a block is a case.

use crate::ground::{Ground, Init, basic, booted};
use crate::{Case, Outcome};
use anyhow::{Context, Result, ensure};
use muster_tests::{Container, paths};
use std::fs;
use std::path::{Path, PathBuf};

/// Pages that a case of their own runs, over another image or in another way.
const ELSEWHERE: &[&str] = &["install", "containers"];

/// The cases of this file.
pub fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for page in pages()? {
        let stem = page.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let sessions = blocks(&fs::read_to_string(&page)?).iter().any(|(kind, _)| *kind == "console");
        if sessions && !ELSEWHERE.contains(&stem.as_str()) {
            cases.push(Case::new(&format!("docs/{stem}"), move |ground| run(ground, &page)));
        }
    }
    ensure!(cases.len() >= 3, "the pages have lost their examples");
    Ok(cases)
}

/// All pages.
fn pages() -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(paths::workspace().join("docs"))?.map(|entry| Ok(entry?.path()));
    let mut pages: Vec<PathBuf> = files.collect::<Result<_>>()?;
    pages.retain(|page| page.extension().is_some_and(|end| end == "md"));
    pages.sort();
    Ok(pages)
}

fn run(ground: &Ground, page: &Path) -> Result<Outcome> {
    if ground.init == Init::Systemd {
        return Ok(Outcome::Skipped("the pages show what muster does beyond systemd".to_string()));
    }
    let page = fs::read_to_string(page)?;
    let blocks = blocks(&page);
    let mut builder = basic(ground.debian());
    for (_, text) in blocks.iter().filter(|(kind, _)| *kind == "ini") {
        let (first, file) = text.split_once('\n').context("an empty example")?;
        builder = builder.file(first.trim_start_matches("# "), file);
    }
    let container = booted(builder)?;
    for (_, text) in blocks.iter().filter(|(kind, _)| *kind == "console") {
        session(&container, text)?;
    }
    Ok(Outcome::Passed)
}

/// Kind and text of each fenced block.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    page.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n')).collect()
}

fn session(container: &Container, text: &str) -> Result<()> {
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
