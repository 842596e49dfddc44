//! The host's cgroup2 tree, and a cgroup of our own in it for each container.
//!
//! Works on a host with cgroup v1 and a bare cgroup2 tree beside it as on a unified one. A cgroup's name holds the pid of
//! its maker, so that [`sweep`] finds what a killed test left.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PREFIX: &str = "muster-test-";
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The mount point of the host's cgroup2 tree.
pub fn root() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let cgroup2 = table.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        source.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
    });
    cgroup2.map(PathBuf::from).context("no cgroup2 tree is mounted")
}

/// A cgroup for one container, with what controllers the host lets us have; removed with all in it on drop.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a new one below the root.
    pub fn new() -> Result<Self> {
        let root = root()?;
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = root.join(name);
        fs::create_dir(&path).with_context(|| format!("making cgroup {}", path.display()))?;
        enable_controllers(&root);
        Ok(Self { path })
    }

    /// Its directory on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Kills every process in it and below.
    pub fn kill(&self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.kill();
        if let Err(error) = remove(&self.path) {
            eprintln!("cgroup {} stays: {error:#}", self.path.display());
        }
    }
}

/// Best effort: where the root holds processes, or has no controllers, limits do not work and the tests that need them skip.
fn enable_controllers(root: &Path) {
    for controller in ["cpu", "memory", "pids", "io"] {
        let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Removes a cgroup and those below it, waiting up to 5 s for killed processes to be gone.
fn remove(path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        remove_children(path);
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => bail!(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn remove_children(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_children(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Removes the cgroups of tests that died without cleaning up.
pub fn sweep() {
    let Ok(root) = root() else { return };
    for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(Cgroup { path: entry.path() });
        }
    }
}
