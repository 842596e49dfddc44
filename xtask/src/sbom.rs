//! What is in the programs: a bill of materials in CycloneDX's JSON, and the licences of what is linked in.
//!
//! What must stay true: the list is what cargo links, by `cargo tree` of the packages that are released, not the whole lock
//! file; and the same commit gives the same bytes (no time, no random serial number).

use crate::dist::{self, Release};
use anyhow::{Context, Result};
use muster_tests::{image, paths};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate of somebody else.
pub struct Linked {
    /// Its name and version.
    pub name: (String, String),
    licence: String,
    repository: String,
    /// Of the file in the registry, from Cargo.lock.
    sha256: String,
    dir: PathBuf,
}

/// What `cargo metadata` says of the workspace, all of it.
pub fn metadata() -> Result<Value> {
    let mut command = cargo(&["metadata", "--locked", "--format-version", "1", "--filter-platform"]);
    let text = dist::output(command.arg(image::triple()?))?;
    Ok(serde_json::from_str(&text)?)
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string()));
    command.args(args).current_dir(paths::workspace());
    command
}

/// The crates of others in the released programs, by name.
pub fn linked() -> Result<Vec<Linked>> {
    let metadata = metadata()?;
    let (names, sums) = (names()?, sums()?);
    let packages = metadata["packages"].as_array().context("no packages")?.iter();
    let mut linked: Vec<Linked> = packages
        .filter(|package| !package["source"].is_null())
        .filter_map(|package| one(package, &names, &sums))
        .collect();
    linked.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(linked)
}

type Name = (String, String);

fn one(package: &Value, names: &BTreeSet<Name>, sums: &BTreeMap<Name, String>) -> Option<Linked> {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let name = (text("name"), text("version"));
    let sha256 = sums.get(&name).cloned().unwrap_or_default();
    let dir = Path::new(package["manifest_path"].as_str()?).parent()?.to_path_buf();
    names.contains(&name).then(|| Linked {
        licence: text("license"),
        repository: text("repository"),
        sha256,
        dir,
        name,
    })
}

/// Names and versions of what is linked into the packages that are released.
fn names() -> Result<BTreeSet<Name>> {
    let mut command =
        cargo(&["tree", "--locked", "-e", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    for (package, ..) in image::PROGRAMS {
        command.args(["-p", package]);
    }
    let text = dist::output(&mut command)?;
    let words = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    Ok(text.lines().filter_map(words).collect())
}

/// The checksums in Cargo.lock.
fn sums() -> Result<BTreeMap<Name, String>> {
    let lock = fs::read_to_string(paths::workspace().join("Cargo.lock"))?;
    let package = |text: &str| {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            line.map(|value| value.trim_end_matches('"').to_owned())
        };
        Some(((value("name")?, value("version")?), value("checksum")?))
    };
    Ok(lock.split("[[package]]").filter_map(package).collect())
}

/// CycloneDX 1.5.
pub fn cyclonedx(linked: &[Linked], release: &Release) -> Result<String> {
    let mut components: Vec<Value> = linked.iter().map(component).collect();
    components.extend(toolchain()?);
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": "muster", "name": "muster", "version": release.version,
            "licenses": [{ "license": { "id": "MIT" } }],
        } },
        "components": components,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&document)?))
}

fn component(linked: &Linked) -> Value {
    let (name, version) = &linked.name;
    let purl = format!("pkg:cargo/{name}@{version}");
    json!({
        "type": "library", "bom-ref": purl, "purl": purl, "name": name, "version": version, "scope": "required",
        "hashes": [{ "alg": "SHA-256", "content": linked.sha256 }],
        "licenses": [{ "expression": linked.licence.replace('/', " OR ") }],
        "externalReferences": [{ "type": "vcs", "url": linked.repository }],
    })
}

/// What no Cargo.toml names and is linked in all the same: Rust's library, and the C library, which the static programs hold.
fn toolchain() -> Result<Vec<Value>> {
    let rustc = dist::output(Command::new("rustc").arg("--version"))?;
    let rust = rustc.split(' ').nth(1).unwrap_or_default().to_owned();
    let libc = dist::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    let libc = libc.trim().trim_start_matches("glibc ").to_owned();
    let of = |name: &str, version: &str, licence: &str| {
        json!({ "type": "library", "bom-ref": name, "name": name, "version": version, "scope": "required",
            "licenses": [{ "expression": licence }] })
    };
    Ok(vec![of("rust-std", &rust, "MIT OR Apache-2.0"), of("glibc", &libc, "LGPL-2.1-or-later")])
}

/// The licence texts that the linked crates come with.
pub fn notices(linked: &[Linked]) -> Result<String> {
    let mut text =
        String::from("Linked into muster's programs. Each licence stands as its crate brings it.\n");
    for crate_ in linked {
        let (name, version) = &crate_.name;
        writeln!(text, "\n==== {name} {version}: {}\n", crate_.licence)?;
        let mut files: Vec<PathBuf> =
            fs::read_dir(&crate_.dir)?.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| is_licence(file));
        files.sort();
        for file in files {
            text += &String::from_utf8_lossy(&fs::read(file)?);
            text += "\n";
        }
    }
    Ok(text)
}

fn is_licence(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    file.is_file() && ["LICEN", "COPY", "NOTICE", "UNLICENSE"].iter().any(|word| name.starts_with(word))
}
