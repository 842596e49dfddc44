//! What packages and images have in common: where they are put, the version they carry, progress on standard error, sizes and
//! checksums.
//!
//! What must stay true: the same commit gives the same bytes. Whatever has a time gets [`Release::epoch`]; archives are sorted,
//! and owned by root.

use anyhow::{Context, Result, bail};
use muster_tests::{image, paths};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where packages and images lie.
pub fn dir() -> PathBuf {
    paths::target().join("dist")
}

/// A directory for what is put together, empty.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let dir = paths::target().join("dist-parts").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// What is released: its version, and the second that everything in it is said to be from.
pub struct Release {
    /// As dpkg compares it: that of Cargo.toml, and unless the commit has the tag of it, the time and the commit.
    pub version: String,
    /// That of `SOURCE_DATE_EPOCH`, or of the commit.
    pub epoch: String,
}

impl Release {
    /// Of the checked-out commit.
    pub fn read() -> Result<Self> {
        let plain = env!("CARGO_PKG_VERSION");
        let commit = git(&[
            "show",
            "-s",
            "--abbrev=8",
            "--format=%ct %cd %h",
            "--date=format-local:%Y%m%d%H%M%S",
            "HEAD",
        ]);
        let (time, suffix) =
            match commit.as_deref().map(|line| line.split(' ').collect::<Vec<_>>()).as_deref() {
                Some([time, date, hash]) => (time.to_string(), format!("+{date}.{hash}")),
                _ => ("0".to_owned(), String::new()),
            };
        let tagged = git(&["tag", "--points-at", "HEAD"])
            .is_some_and(|tags| tags.lines().any(|tag| tag == format!("v{plain}")));
        let version = if tagged { plain.to_owned() } else { format!("{plain}{suffix}") };
        Ok(Self { version, epoch: std::env::var("SOURCE_DATE_EPOCH").unwrap_or(time) })
    }
}

/// What git says of the workspace; nothing where it is no checkout.
fn git(args: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(args).env("TZ", "UTC").current_dir(paths::workspace()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Says what is being done, where somebody waits for it.
pub struct Steps {
    done: usize,
    all: usize,
}

impl Steps {
    /// Of so many.
    pub fn of(all: usize) -> Self {
        Self { done: 0, all }
    }

    /// Of a test: nobody counts them.
    pub fn uncounted() -> Self {
        Self::of(0)
    }

    /// The next one begins.
    pub fn next(&mut self, what: &str) {
        self.done += 1;
        match self.all {
            0 => eprintln!("       {what}"),
            all => eprintln!("[{}/{all}] {what}", self.done),
        }
    }
}

/// The standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Debian's name, and the OCI's, of what is built for.
pub fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no name for the architecture {other}"),
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg(path))?;
    Ok(line.split(' ').next().unwrap_or_default().trim_start_matches('\\').to_owned())
}

/// Archives `names` of a directory, sorted, all from one second.
pub fn tar(dir: &Path, names: &[&str], options: &[&str], epoch: &str, to: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--format=gnu", "--numeric-owner"]).args(options);
    command.arg(format!("--mtime=@{epoch}")).arg("-C").arg(dir).arg("-cf").arg(to).args(names);
    image::run(&mut command)
}

/// Compresses a file in its place, without name and time; the new path.
pub fn gzip(path: &Path) -> Result<PathBuf> {
    image::run(Command::new("gzip").args(["-9", "-n", "-f"]).arg(path))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    Ok(name.into())
}

/// Prints a file or directory with its size, and what it takes on the disk where that is less.
pub fn show(path: &Path) -> Result<()> {
    let size = |args: &[&str]| -> Result<u64> {
        let line = output(Command::new("du").args(args).arg(path))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    };
    let (apparent, used) = (size(&["-s", "-B1", "--apparent-size"])?, size(&["-s", "-B1"])?);
    let sparse = if used < apparent / 2 { format!(" ({} on disk)", human(used)) } else { String::new() };
    println!("{:>10}{sparse}  {}", human(apparent), path.display());
    Ok(())
}

/// A size for people.
pub fn human(bytes: u64) -> String {
    match bytes {
        0..=999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
