//! `cargo xtask supply`: what is allowed to be linked, held against what is. The rules are those of deny.toml, which cargo-deny
//! reads; here they are checked without it, and without a network.
//!
//! What must stay true: an expression of licences that is not understood is a fault.

use crate::sbom;
use anyhow::{Context, Result};
use muster_tests::paths;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// Prints every fault; the exit status says whether there is one.
pub fn report() -> Result<i32> {
    let faults = faults()?;
    faults.iter().for_each(|fault| println!("{fault}"));
    if faults.is_empty() {
        println!("licences, versions, sources and the oldest compiler are as deny.toml and Cargo.toml say");
    }
    Ok(i32::from(!faults.is_empty()))
}

/// What of deny.toml and Cargo.toml does not hold.
fn faults() -> Result<Vec<String>> {
    let rules: toml::Table = fs::read_to_string(paths::workspace().join("deny.toml"))?.parse()?;
    let workspace: toml::Table = fs::read_to_string(paths::workspace().join("Cargo.toml"))?.parse()?;
    let oldest = workspace["workspace"]["package"]["rust-version"].as_str().context("no rust-version")?;
    let metadata = sbom::metadata()?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let others: Vec<&Value> = packages.iter().filter(|package| !package["source"].is_null()).collect();
    let allowed = words(&rules["licenses"]["allow"]);
    let mut faults: Vec<String> =
        others.iter().filter_map(|package| licence_fault(package, &allowed)).collect();
    faults.extend(others.iter().filter_map(|package| source_fault(package)));
    faults.extend(packages.iter().filter_map(|package| compiler_fault(package, oldest)));
    faults.extend(version_faults(&others, &words(&rules["bans"]["skip"])));
    Ok(faults)
}

/// The strings of a list, or the `crate` of each of its tables.
fn words(list: &toml::Value) -> Vec<&str> {
    let word = |value| toml::Value::as_str(value).or_else(|| value.get("crate")?.as_str());
    list.as_array().into_iter().flatten().filter_map(word).collect()
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or_default()
}

fn named(package: &Value) -> String {
    format!("{}@{}", text(package, "name"), text(package, "version"))
}

fn licence_fault(package: &Value, allowed: &[&str]) -> Option<String> {
    let expression = text(package, "license");
    (satisfied(expression, allowed) != Some(true))
        .then(|| format!("{}: licence {expression:?}", named(package)))
}

fn source_fault(package: &Value) -> Option<String> {
    let source = text(package, "source");
    (!source.starts_with("registry+")).then(|| format!("{}: from {source}", named(package)))
}

/// Whether a package says that it needs a newer compiler than we say.
fn compiler_fault(package: &Value, oldest: &str) -> Option<String> {
    let needs = package["rust_version"].as_str()?;
    (numbers(needs) > numbers(oldest))
        .then(|| format!("{}: wants Rust {needs}, not {oldest}", named(package)))
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').take(2).filter_map(|number| number.parse().ok()).collect()
}

/// Names of which there are two versions, but for those that deny.toml lets be.
fn version_faults(packages: &[&Value], skipped: &[&str]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for package in packages.iter().filter(|package| !skipped.contains(&named(package).as_str())) {
        versions.entry(text(package, "name")).or_default().push(named(package));
    }
    versions
        .values()
        .filter(|all| all.len() > 1)
        .map(|all| format!("more than one version: {}", all.join(", ")))
        .collect()
}

/// Whether a licence expression (SPDX, and `/` for OR as it once was) is satisfied by the allowed licences; nothing where it is
/// not understood.
fn satisfied(expression: &str, allowed: &[&str]) -> Option<bool> {
    let spaced =
        expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "-WITH-");
    let mut words = spaced.split_whitespace().peekable();
    let value = any(&mut words, allowed)?;
    words.next().is_none().then_some(value)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[&str]) -> Option<bool> {
    let mut value = all(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        value |= all(words, allowed)?;
    }
    Some(value)
}

fn all(words: &mut Words<'_>, allowed: &[&str]) -> Option<bool> {
    let mut value = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        value &= one(words, allowed)?;
    }
    Some(value)
}

fn one(words: &mut Words<'_>, allowed: &[&str]) -> Option<bool> {
    match words.next()? {
        "(" => any(words, allowed).filter(|_| words.next() == Some(")")),
        ")" | "AND" | "OR" => None,
        licence => Some(allowed.contains(&licence)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_allowed() {
        let faults = faults().unwrap();
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    }

    #[test]
    fn expressions_of_licences() {
        let of = |expression| satisfied(expression, &["MIT", "Unicode-3.0"]);
        assert_eq!(of("MIT"), Some(true));
        assert_eq!(of("GPL-3.0-only"), Some(false));
        assert_eq!(of("Apache-2.0/MIT"), Some(true));
        assert_eq!(of("(MIT OR Apache-2.0) AND Unicode-3.0"), Some(true));
        assert_eq!(of("MIT AND GPL-3.0-only"), Some(false));
        assert_eq!(of("Apache-2.0 WITH LLVM-exception OR MIT"), Some(true));
        assert_eq!(of("MIT OR"), None);
        assert_eq!(of("(MIT"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn two_versions_and_a_newer_compiler_are_faults() {
        let package =
            |version: &str| serde_json::json!({ "name": "a", "version": version, "rust_version": "1.91" });
        let (one, two) = (package("1.0.0"), package("2.0.0"));
        assert_eq!(version_faults(&[&one, &two], &[]), ["more than one version: a@1.0.0, a@2.0.0"]);
        assert!(version_faults(&[&one, &two], &["a@1.0.0"]).is_empty());
        assert!(compiler_fault(&one, "1.90").is_some() && compiler_fault(&one, "1.91.2").is_none());
    }
}
