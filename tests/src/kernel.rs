//! Debian's kernel, downloaded once, and its modules with what they need; and other packages that are unpacked, not installed.

use crate::{image, paths};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that depends on the newest kernel. The one for cloud machines has no USB.
const PACKAGE: &str = "linux-image-amd64";

/// An unpacked kernel package.
pub struct Kernel {
    dir: PathBuf,
    /// The kernel itself.
    pub image: PathBuf,
}

impl Kernel {
    /// Downloads and unpacks it where it is missing.
    pub fn get() -> Result<Self> {
        let dir = match cached(PACKAGE) {
            Some(dir) => dir,
            None => unpacked(&newest()?, PACKAGE)?,
        };
        let image =
            find(&dir.join("boot"), "vmlinuz-").context("the kernel package holds no boot/vmlinuz-*")?;
        Ok(Self { dir, image })
    }

    /// The files of these modules and of all that they depend on, each after what it depends on.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        collect(&self.dir.join("lib/modules"), &mut files)?;
        let file = |name: &str| {
            let found = files.iter().find(|path| module_name(path) == name);
            found.cloned().with_context(|| format!("this kernel has no module {name}"))
        };
        let mut waiting: Vec<String> = names.iter().rev().map(|name| name.to_string()).collect();
        let mut ordered: Vec<PathBuf> = Vec::new();
        while let Some(name) = waiting.last().cloned() {
            let path = file(&name)?;
            let needs = dependencies(&path)?.into_iter();
            let missing: Vec<_> =
                needs.filter(|need| !ordered.iter().any(|path| module_name(path) == *need)).collect();
            if missing.is_empty() {
                if !ordered.contains(&path) {
                    ordered.push(path);
                }
                waiting.pop();
            } else if waiting.len() > 100 {
                bail!("{name} depends on itself");
            } else {
                waiting.extend(missing);
            }
        }
        Ok(ordered)
    }
}

fn cached(name: &str) -> Option<PathBuf> {
    let dir = paths::images().join(name);
    dir.is_dir().then_some(dir)
}

/// A package of Debian, downloaded and unpacked where it is missing, in a directory of this name among the images.
pub fn unpacked(package: &str, name: &str) -> Result<PathBuf> {
    if let Some(dir) = cached(name) {
        return Ok(dir);
    }
    if !image::has_program("apt-get") || !image::has_program("dpkg") {
        bail!("{package} is missing: on Debian, `apt-get download {package}` gets it");
    }
    eprintln!("downloading {package}");
    // Aside first, so that what is cut short is not taken for whole.
    let (dir, aside) = (paths::images().join(name), paths::images().join(format!("{name}.part")));
    let _ = fs::remove_dir_all(&aside);
    fs::create_dir_all(&aside)?;
    with_lists(|| {
        image::run(Command::new("apt-get").args(["download", "-qq", package]).current_dir(&aside))
    })?;
    let archive = find(&aside, ".deb").context("apt-get downloaded nothing")?;
    image::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&aside))?;
    fs::remove_file(archive)?;
    fs::rename(&aside, &dir)?;
    Ok(dir)
}

/// The newest kernel's own package.
fn newest() -> Result<String> {
    if !image::has_program("apt-cache") {
        bail!("no kernel: on Debian, `apt-get download {PACKAGE}` gets one");
    }
    with_lists(|| {
        let output = Command::new("apt-cache").args(["depends", PACKAGE]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        lines.next().map(str::to_string).with_context(|| format!("apt knows no {PACKAGE}"))
    })
}

/// What failed for want of package lists succeeds with them.
fn with_lists<T>(ask: impl Fn() -> Result<T>) -> Result<T> {
    ask().or_else(|_| {
        image::run(Command::new("apt-get").args(["update", "-qq"]))?;
        ask()
    })
}

fn find(dir: &Path, part: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    entries.into_iter().find(|path| path.to_string_lossy().contains(part))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|name| name == "ko") {
            files.push(path);
        }
    }
    Ok(())
}

/// The kernel does not tell `-` from `_` in a module's name.
fn module_name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_")
}

/// What the module says of itself in its `.modinfo`.
fn dependencies(path: &Path) -> Result<Vec<String>> {
    const MARK: &[u8] = b"\0depends=";
    let bytes = fs::read(path)?;
    let at = bytes.windows(MARK.len()).position(|window| window == MARK);
    let rest = at.and_then(|at| bytes.get(at + MARK.len()..)).unwrap_or_default();
    let names =
        String::from_utf8_lossy(rest.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    Ok(names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}
