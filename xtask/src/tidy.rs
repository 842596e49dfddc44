//! The house rules that a program can check: which crate may use which, and how files look.
//!
//! What must stay true: an edge that is not in [`EDGES`] fails the test below. A new edge is a decision, written here first.

use anyhow::{Context, Result, bail};
use muster_tests::paths;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may use whom: crate names without `muster-`. Crates that are not named may use nothing of ours.
const EDGES: [(&str, &[&str]); 18] = [
    ("unit", &[]),
    ("graph", &["unit"]),
    ("manager", &["unit", "graph"]),
    ("sys", &[]),
    ("exec", &["unit", "sys"]),
    ("cgroup", &["unit", "sys"]),
    ("socket", &["unit", "sys"]),
    ("watch", &["unit", "sys"]),
    ("bus", &[]),
    ("control", &["unit", "graph", "manager", "bus"]),
    ("runtime", &["unit", "graph", "manager", "sys", "socket", "exec", "cgroup", "watch", "bus", "control"]),
    ("init", &["runtime", "manager", "unit", "sys", "exec", "cgroup", "watch", "control", "graph", "socket"]),
    ("cli", &["clap"]),
    ("ctl", &["unit", "bus", "cli"]),
    ("sim", &["manager", "unit", "graph"]),
    ("tests", &[]),
    ("demo", &["sys"]),
    ("xtask", &["tests", "cli", "clap"]),
];

/// The longest a source file may be, in lines.
const FILE_LINES_MAX: usize = 900;

/// Words that stand for work left undone.
const UNDONE: [&str; 5] =
    ["todo!(", "unimplemented!(", "unreachable!(", concat!("FIX", "ME"), concat!("#[ig", "nore")];

/// Prints what breaks the rules, and the longest files; the exit status says whether anything does.
pub fn report() -> Result<i32> {
    let faults = faults()?;
    faults.iter().for_each(|fault| println!("{fault}"));
    let mut files: Vec<(usize, PathBuf)> = Vec::new();
    for file in sources()? {
        files.push((fs::read_to_string(&file)?.lines().count(), file));
    }
    files.sort();
    println!(
        "{} files, {} lines; the longest:",
        files.len(),
        files.iter().map(|(lines, _)| lines).sum::<usize>()
    );
    for (lines, file) in files.iter().rev().take(10) {
        println!("{lines:6} {}", shown(file));
    }
    Ok(i32::from(!faults.is_empty()))
}

/// Every breach of a rule, one a line.
fn faults() -> Result<Vec<String>> {
    let mut faults = edge_faults(&crate_graph()?);
    for file in sources()? {
        let text = fs::read_to_string(&file)?;
        faults.extend(text_faults(&shown(&file), &text));
    }
    Ok(faults)
}

/// Our crates, each with those of ours that it uses (its tests' own helpers left out).
type Graph = BTreeMap<String, BTreeSet<String>>;

fn crate_graph() -> Result<Graph> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(paths::workspace());
    let output = command.output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    Ok(packages.iter().map(|package| (short(&package["name"]), ours(package))).collect())
}

fn short(name: &serde_json::Value) -> String {
    let name = name.as_str().unwrap_or_default();
    name.strip_prefix("muster-").unwrap_or(name).to_string()
}

/// What a package uses of ours: a dependency with a path is a crate of the workspace. And clap with its kin, which must not get
/// into PID 1.
fn ours(package: &serde_json::Value) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    let clap = |used: &serde_json::Value| used["name"].as_str().is_some_and(|name| name.starts_with("clap"));
    let ours = dependencies.filter(|used| (used["path"].is_string() || clap(used)) && used["kind"] != "dev");
    ours.map(|used| if clap(used) { "clap".to_string() } else { short(&used["name"]) }).collect()
}

fn edge_faults(graph: &Graph) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    let mut faults = Vec::new();
    for (user, used) in graph {
        let may = allowed.get(user.as_str());
        if may.is_none() {
            faults.push(format!("{user}: a crate that the list of edges does not name"));
        }
        for name in used.iter().filter(|name| !may.is_some_and(|may| may.contains(&name.as_str()))) {
            faults.push(format!("{user} uses {name}: not an allowed edge"));
        }
    }
    faults.extend(
        EDGES
            .iter()
            .filter(|(name, _)| !graph.contains_key(*name))
            .map(|(name, _)| format!("{name}: no such crate")),
    );
    faults
}

/// The Rust files of the workspace.
fn sources() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for dir in ["crates", "xtask", "tests", "images"] {
        collect(&paths::workspace().join(dir), &mut files)?;
    }
    Ok(files)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|name| name == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn shown(file: &Path) -> String {
    file.strip_prefix(paths::workspace()).unwrap_or(file).display().to_string()
}

fn text_faults(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!("{name}: does not begin with what it is for (//!)"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{name}: {lines} lines, more than {FILE_LINES_MAX}"));
    }
    let undone = UNDONE.iter().filter(|word| name != "xtask/src/tidy.rs" && text.contains(**word));
    faults.extend(undone.map(|word| format!("{name}: {word}")));
    if has_doc_test(text) {
        faults.push(format!(
            "{name}: a doc test, which nothing runs (`doctest = false`); say ```text, or write a test"
        ));
    }
    faults
}

/// Whether a comment holds what rustdoc(1) would compile: a block whose fence names no other language.
fn has_doc_test(text: &str) -> bool {
    let comments = text.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("//!").or_else(|| line.strip_prefix("///"))
    });
    let mut opens = false;
    comments.filter_map(|comment| comment.trim().strip_prefix("```")).any(|language| {
        opens = !opens;
        opens && language != "text"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doc_test_is_told_from_text() {
        assert!(!has_doc_test("//! ```text\n//! a\n//! ```\nfn main() {}\n"));
        assert!(has_doc_test(
            "//! ```text\n//! a\n//! ```\n    /// ```\n    /// assert!(false)\n    /// ```\n"
        ));
    }

    #[test]
    fn house_rules_are_kept() {
        let faults = faults().unwrap();
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    }

    #[test]
    fn a_forbidden_edge_is_found() {
        let mut graph: Graph = EDGES
            .iter()
            .map(|(user, used)| (user.to_string(), used.iter().map(|name| name.to_string()).collect()))
            .collect();
        assert!(edge_faults(&graph).is_empty());
        graph.get_mut("manager").unwrap().insert("sys".to_string());
        assert_eq!(edge_faults(&graph), ["manager uses sys: not an allowed edge"]);
    }
}
