//! Directories of versions (systemd.v(7)): a path that ends in `.v`, or in `.v/NAME___.SUFFIX`, stands for the newest version
//! of what is in it.
//!
//! What must stay true: it is looked for at each start anew, so that a version that came later is the next start's.

use crate::steps::{Done, Failed};
use muster_unit::{AbsolutePath, ExecSection, compare_versions};
use std::cmp::Ordering;

/// The settings with versions in place of their directories. Nothing where they name none.
pub fn picked(exec: &ExecSection) -> Done<Option<ExecSection>> {
    let names = |path: &Option<AbsolutePath>| path.as_deref().is_some_and(is_versioned);
    let any = names(exec.root_directory())
        || names(exec.root_image())
        || exec.extension_directories().iter().any(|directory| is_versioned(&directory.path))
        || exec.extension_images().iter().any(|image| is_versioned(&image.source));
    if !any {
        return Ok(None);
    }
    let mut changed = exec.clone();
    let mut edit = changed.edit();
    let mut done = Ok(());
    if let Some(path) = edit.root_directory() {
        replace(&mut done, "RootDirectory=", "", &mut path.0, false);
    }
    if let Some(path) = edit.root_image() {
        replace(&mut done, "RootImage=", ".raw", &mut path.0, false);
    }
    edit.extension_directories().retain_mut(|directory| {
        replace(&mut done, "ExtensionDirectories=", "", &mut directory.path.0, directory.optional)
    });
    edit.extension_images().retain_mut(|image| {
        replace(&mut done, "ExtensionImages=", ".raw", &mut image.source.0, image.optional)
    });
    drop(edit);
    done.map(|()| Some(changed))
}

/// Puts the version in place of its directory; false if there is none and need not be.
fn replace(done: &mut Done, directive: &str, suffix: &str, path: &mut String, optional: bool) -> bool {
    match pick(path, suffix) {
        Ok(version) => *path = version,
        Err(_) if optional => return false,
        Err(why) => *done = Err(Failed { exit: None, message: format!("{directive}{path}: {why}") }),
    }
    true
}

/// Whether a path names a directory of versions.
pub fn is_versioned(path: &str) -> bool {
    split(path, "").is_some()
}

/// The newest version of a path that names a directory of versions; any other path as it is.
///
/// # Errors
/// What is wrong with the directory, in words.
pub fn pick(path: &str, suffix: &str) -> Result<String, String> {
    let Some((directory, name, suffix)) = split(path, suffix) else { return Ok(path.to_owned()) };
    let names = names(directory).map_err(|error| error.to_string())?;
    match newest(&names, name, suffix) {
        Some(version) => Ok(format!("{directory}/{version}")),
        None => Err(format!("there is no version {name}_*{suffix} in it")),
    }
}

/// All names in a directory that are text. What cannot be read to its end is an error: the rest could be another root.
pub fn names(directory: &str) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// The directory, and what names in it begin and end with.
fn split<'a>(path: &'a str, suffix: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let path = path.trim_end_matches('/');
    let (above, last) = path.rsplit_once('/')?;
    if let Some(name) = last.strip_suffix(".v").filter(|name| !name.is_empty()) {
        let (name, suffix) = match name.strip_suffix(".raw") {
            Some(stem) => (stem, ".raw"),
            None => (name, suffix),
        };
        return Some((path, name, suffix));
    }
    let (name, suffix) = last.split_once("___").filter(|(name, _)| !name.is_empty())?;
    above.ends_with(".v").then_some((above, name, suffix))
}

/// Words for machines (systemd.unit(5), `ConditionArchitecture=`).
const ARCHITECTURES: [&str; 30] = [
    "x86",
    "x86-64",
    "ppc",
    "ppc-le",
    "ppc64",
    "ppc64-le",
    "ia64",
    "parisc",
    "parisc64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "mips",
    "mips-le",
    "mips64",
    "mips64-le",
    "alpha",
    "arm",
    "arm-be",
    "arm64",
    "arm64-be",
    "sh",
    "sh64",
    "m68k",
    "tilegx",
    "cris",
    "arc",
    "arc-be",
    "riscv64",
];
/// What a machine runs beside its own.
const SECONDARY: [(&str, &str); 2] = [("x86-64", "x86"), ("arm64", "arm")];

/// A name, taken apart.
struct Version<'a> {
    name: &'a str,
    version: &'a str,
    /// It says that it is for this machine.
    is_native: bool,
    /// How often it may still be tried, and how often it was; nothing where it is known to work.
    tries: Option<(u64, u64)>,
}

impl<'a> Version<'a> {
    /// Nothing if the name is none of a version, or of one for another machine.
    fn of(whole: &'a str, name: &str, suffix: &str) -> Option<Self> {
        let rest = whole.strip_prefix(name)?.strip_prefix('_')?.strip_suffix(suffix)?;
        let (rest, tries) = match rest.rsplit_once('+').map(|(rest, counters)| (rest, tries_of(counters))) {
            Some((rest, Some(tries))) => (rest, Some(tries)),
            _ => (rest, None),
        };
        // A last word that names no machine is neither a part of the version nor asked about.
        let (version, machine) =
            rest.rsplit_once('_').map_or((rest, None), |(version, machine)| (version, Some(machine)));
        let own = super::architecture();
        let is_native = machine == Some(own.as_str());
        let is_foreign = machine.is_some_and(|machine| {
            let runs_here = is_native || SECONDARY.contains(&(own.as_str(), machine));
            !runs_here && ARCHITECTURES.contains(&machine)
        });
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-.,~_".contains(c);
        let fits = !is_foreign && !version.is_empty() && version.chars().all(is_plain);
        fits.then_some(Version { name: whole, version, is_native, tries })
    }

    /// What has no try left comes last; of the same version, what is made for this machine, and what needs no trial, is first.
    fn compare(&self, other: &Self) -> Ordering {
        let can_be_tried = |it: &Self| it.tries.is_none_or(|(left, _)| left > 0);
        let left = |it: &Self| it.tries.map_or(u64::MAX, |(left, _)| left);
        let done = |it: &Self| it.tries.map_or(0, |(_, done)| done);
        can_be_tried(self)
            .cmp(&can_be_tried(other))
            .then_with(|| compare_versions(self.version, other.version))
            .then_with(|| self.is_native.cmp(&other.is_native))
            .then_with(|| left(self).cmp(&left(other)))
            .then_with(|| done(other).cmp(&done(self)))
            .then_with(|| self.name.cmp(other.name))
    }
}

/// `LEFT` or `LEFT-DONE`.
fn tries_of(counters: &str) -> Option<(u64, u64)> {
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    match counters.split_once('-') {
        Some((left, done)) => Some((number(left)?, number(done)?)),
        None => Some((number(counters)?, 0)),
    }
}

/// The newest of these names that is a version.
fn newest<'a>(names: &'a [String], name: &str, suffix: &str) -> Option<&'a str> {
    let versions = names.iter().filter_map(|whole| Version::of(whole, name, suffix));
    versions.max_by(Version::compare).map(|version| version.name)
}

#[cfg(test)]
mod tests {
    use super::{newest, split};

    #[test]
    fn the_newest_that_fits_is_picked() {
        for (names, wanted) in [
            ("z_1 z_1-2 z_1-1", Some("z_1-2")),
            ("z_1-2 z_1.1 z_2^a z_2_ia64 z_2_x86-64_arm64 z_ y_9 z _2", Some("z_1.1")),
            ("z_2 z_3_bogus z_3", Some("z_3_bogus")),
            ("z_2_bogus z_2a", Some("z_2a")),
            ("z_2_bogus z_2+1", Some("z_2_bogus")),
            ("z_1 z_2_a_b", Some("z_2_a_b")),
            ("z_1 z_2_", Some("z_2_")),
            ("z_1 z__2", Some("z_1")),
            ("z_2 z_3+x z_1", Some("z_3+x")),
            ("z_4+1-x z_3", Some("z_4+1-x")),
            ("z_1 z_1+1 z_1+2-1 z_01", Some("z_1")),
            ("z_1~rc z_1", Some("z_1")),
            ("z_2+0-3 z_1+0-1", Some("z_2+0-3")),
            ("z_2+0-3 z_1+0-1 z_0.1+1", Some("z_0.1+1")),
            ("z_1 z_2,x z_9 z_8é", Some("z_9")),
            ("z_ z", None),
        ] {
            let all: Vec<String> = names.split(' ').map(str::to_owned).collect();
            assert_eq!(newest(&all, "z", ""), wanted, "{names}");
        }
        let images = ["m_7.5.13.raw", "m_7.5.14.raw", "m_8", "m_7.6.0.raw"].map(str::to_owned);
        assert_eq!(newest(&images, "m", ".raw"), Some("m_7.6.0.raw"));
    }

    #[test]
    fn a_directory_of_versions_is_known_by_its_path() {
        assert_eq!(split("/a/m.raw.v/", ""), Some(("/a/m.raw.v", "m", ".raw")));
        assert_eq!(split("/a/m.v", ".raw"), Some(("/a/m.v", "m", ".raw")));
        assert_eq!(split("/a/m.v/x___.raw", ""), Some(("/a/m.v", "x", ".raw")));
        assert_eq!(split("/a/m.v/x___", ""), Some(("/a/m.v", "x", "")));
        for path in ["/a/m", "/a/m/x___", "/a/.v", "/", "/a/m.v/x"] {
            assert_eq!(split(path, ""), None, "{path}");
        }
    }
}
