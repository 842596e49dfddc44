//! What the oracle answered before, so that it need not be asked again: a machine whose processor is translated takes its time, as
//! does a case that waits for time limits, and neither the case nor systemd has changed. `tests/asked.txt` holds systemd's version, a
//! digest of the case's text and its name; `UPDATE_EXPECT=1` adds the cases of the machine, and slow ones, that passed under
//! systemd. A case without a line, and one that is named, is asked.

use anyhow::{Context, Result};
use muster_tests::paths;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const HEAD: &str = "\
# Cases of the machine, and those that take long, that passed under systemd: its version, the digest of the case's text, the case.
# Written by `UPDATE_EXPECT=1 cargo test -p muster-tests --test system -- --init systemd NAME...`.
";

/// The kept answers.
#[derive(Debug)]
pub struct Asked {
    version: String,
    /// Name to digest, of this version alone.
    known: Mutex<BTreeMap<String, u64>>,
    /// Asks all the same.
    again: bool,
}

impl Asked {
    /// Reads them; with `again` none counts. `debian` is the root directory that systemd is of.
    pub fn read(debian: &Path, again: bool) -> Result<Self> {
        let version = version_of_systemd(debian)?;
        let known = fs::read_to_string(file()).unwrap_or_default();
        let known = Mutex::new(known.lines().filter_map(|line| of_version(line, &version)).collect());
        Ok(Self { version, known, again })
    }

    /// Who answered.
    pub fn version(&self) -> String {
        format!("systemd {}", self.version)
    }

    /// Whether this case with this text passed before.
    pub fn holds(&self, name: &str, text: &str) -> bool {
        !self.again && self.known().get(name) == Some(&digest(text))
    }

    /// It passed: kept, where `UPDATE_EXPECT=1` asks for it.
    pub fn passed(&self, name: &str, text: &str) -> Result<()> {
        if std::env::var_os("UPDATE_EXPECT").is_none() {
            return Ok(());
        }
        let mut known = self.known();
        known.insert(name.to_string(), digest(text));
        let line = |(name, digest): (&String, &u64)| format!("{} {digest:016x} {name}\n", self.version);
        let lines: String = known.iter().map(line).collect();
        fs::write(file(), format!("{HEAD}{lines}")).context("tests/asked.txt")
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn file() -> PathBuf {
    paths::workspace().join("tests/asked.txt")
}

fn of_version(line: &str, version: &str) -> Option<(String, u64)> {
    let (digest, name) = line.strip_prefix(version)?.trim_start().split_once(' ')?;
    Some((name.to_string(), u64::from_str_radix(digest, 16).ok()?))
}

/// What the package data base of the image says.
fn version_of_systemd(debian: &Path) -> Result<String> {
    let status = fs::read_to_string(debian.join("var/lib/dpkg/status"))?;
    let package = status.split("\n\n").find(|package| package.starts_with("Package: systemd\n"));
    let version = package.and_then(|package| package.lines().find_map(|line| line.strip_prefix("Version: ")));
    Ok(version.context("no systemd in the image")?.to_string())
}

/// FNV-1a of 64 bits: the same on every machine and with every compiler.
fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
