//! What PID 1 may touch itself: paths whose walk asks no other file system than those in memory that it mounted.
//!
//! What must stay true: nobody but root can put a mount, or a link, in the way of a path that [`is_ours`] says yes to, and
//! what [`unlink`] removes is found by descriptor, without leaving /run. All else is walked by a helper, since what lies
//! there may take for ever over an answer (NFS, FUSE).

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::libc::{S_IFDIR, S_IFMT, S_IFREG};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::os::fd::OwnedFd;
use std::path::Path;

/// File systems of the kernel's own, which answer at once.
const KERNELS: [&str; 2] = ["proc", "sys"];
/// File systems in memory, where packages and services have directories.
const IN_MEMORY: [&str; 2] = ["run", "dev"];

/// Whether a path may be walked, and a name at its end be made or removed, without a file system being asked that could
/// hang. Directories that are missing are not in the way.
pub fn is_ours(path: &str) -> bool {
    let mut names = path.split('/').filter(|name| !name.is_empty() && *name != ".");
    let Some(top) = names.next().filter(|_| path.starts_with('/')) else { return false };
    let names: Vec<&str> = names.collect();
    if names.contains(&"..") {
        return false;
    }
    if KERNELS.contains(&top) {
        return true;
    }
    IN_MEMORY.contains(&top) && names_are_ours(top, &names).unwrap_or(false)
}

fn names_are_ours(top: &str, names: &[&str]) -> Result<bool, Errno> {
    let (last, above) = names.split_last().ok_or(Errno::EINVAL)?;
    let mut directory = open_top(top)?;
    let mut stat = fstat(&directory)?;
    for name in above {
        if !is_roots_alone(&stat) {
            return Ok(false);
        }
        directory = match inside(&directory, Path::new(name), OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => return Ok(true),
            found => found?,
        };
        stat = fstat(&directory)?;
    }
    if !is_roots_alone(&stat) {
        return Ok(false);
    }
    match inside(&directory, Path::new(last), OFlag::O_PATH | OFlag::O_NOFOLLOW) {
        // Whoever owns a directory or a plain file may mount something on it (fusermount3(1)).
        Ok(found) => {
            let found = fstat(&found)?;
            Ok(found.st_uid == 0 || !matches!(found.st_mode & S_IFMT, S_IFDIR | S_IFREG))
        }
        // A link that stands at the end is not followed.
        Err(Errno::ENOENT | Errno::ELOOP) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Nobody else can put a name into the directory, or a mount on it.
fn is_roots_alone(directory: &FileStat) -> bool {
    directory.st_uid == 0 && directory.st_mode & 0o022 == 0
}

fn open_top(name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
    open(format!("/{name}").as_str(), flags, Mode::empty())
}

/// Opens what is below a directory, on its file system, without following a link.
fn inside(directory: &OwnedFd, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let way = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
    openat2(directory, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(way))
}

/// The part of a path below /run, whose file system is memory. (/var/run is an old name for it.)
pub fn below_run(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/var").filter(|rest| rest.starts_with("/run/")).unwrap_or(path);
    path.strip_prefix("/run/")
}

/// A file below /run, and the directory that it lies in. EXDEV or ELOOP where the way leads elsewhere.
pub fn open_below_run(path: &str) -> Result<(OwnedFd, OwnedFd), Errno> {
    let file =
        inside(&open_top("run")?, Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    Ok((file, parent_below_run(path)?))
}

/// A directory below /run, to be named by its descriptor. EXDEV or ELOOP where the way leads elsewhere.
pub fn open_directory_below_run(path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    inside(&open_top("run")?, Path::new(path), OFlag::O_PATH | OFlag::O_DIRECTORY)
}

fn parent_below_run(path: &str) -> Result<OwnedFd, Errno> {
    let parent = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
    inside(&open_top("run")?, parent.unwrap_or(Path::new(".")), OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// Removes a file, where that asks no other file system than that of /run; `None` where it would.
pub fn unlink(path: &str) -> Option<Result<(), Errno>> {
    let path = below_run(path)?;
    let name = Path::new(path).file_name()?;
    let removed =
        parent_below_run(path).and_then(|parent| unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir));
    match removed {
        Err(Errno::EXDEV | Errno::ELOOP) => None,
        Err(Errno::ENOENT | Errno::ENOTDIR) => Some(Ok(())),
        done => Some(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_elsewhere_is_not_ours() {
        for (path, ours) in [
            ("/proc/net/x", true),
            ("/sys/x", true),
            ("/proc/../mnt/x", false),
            ("/mnt/x", false),
            ("run/x", false),
            ("/run", false),
            ("/", false),
            ("", false),
            // Everybody's directories.
            ("/dev/shm/x", false),
        ] {
            assert_eq!(is_ours(path), ours, "{path}");
        }
        assert_eq!(below_run("/var/run/x"), Some("x"));
        assert_eq!(below_run("/var/runner/x"), None);
        assert!(unlink("/mnt/x").is_none());
    }
}
