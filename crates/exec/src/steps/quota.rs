//! `StateDirectoryQuota=`, `StateDirectoryAccounting=` and kin (systemd.exec(5)): what a directory of a service may take of its file
//! system, by a project of its own.
//!
//! What must stay true: a directory that has a project keeps it, whoever gave it; a file system without such quotas is left
//! alone, as the manual says.

use crate::tree;
use muster_sys::quota;
use muster_unit::Quota;
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Projects of ours have numbers from here on.
const FIRST: u32 = 0x8000_0000;
/// So many numbers are tried.
const TRIES: u32 = 64;

/// Counts what is in a directory, and limits it. What is said no more holds no more.
pub fn apply(path: &str, accounting: bool, limit: Option<Quota>) -> io::Result<()> {
    let directory = tree::open(path)?;
    match set(&directory, path, accounting, limit) {
        Err(error) if is_lacking(&error) => Ok(()),
        done => done,
    }
}

fn set(directory: &OwnedFd, path: &str, accounting: bool, limit: Option<Quota>) -> io::Result<()> {
    let bytes = bytes(directory, limit)?;
    let known = quota::project(directory.as_fd())?;
    if !accounting && bytes.is_none() {
        // Projects that are not ours are somebody else's to limit.
        return if known >= FIRST { quota::set_quota(directory.as_fd(), known, 0) } else { Ok(()) };
    }
    let project = if known == 0 { free(directory, path)? } else { known };
    if known == 0 {
        tree::visit(directory, |file, is_directory| quota::set_project(file.as_fd(), project, is_directory))?;
    }
    quota::set_quota(directory.as_fd(), project, bytes.unwrap_or(0))
}

/// A number that no other tree of this file system has: it follows from the path, so that it is the same next time.
fn free(directory: &OwnedFd, path: &str) -> io::Result<u32> {
    let hash =
        path.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    for number in 0..TRIES {
        let project = FIRST | hash.wrapping_add(number);
        match quota::quota(directory.as_fd(), project) {
            Ok((0, 0)) => return Ok(project),
            Ok(_) => {}
            // It was never heard of.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(project),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no number is left for its project"))
}

fn bytes(directory: &OwnedFd, limit: Option<Quota>) -> io::Result<Option<u64>> {
    Ok(match limit {
        None | Some(Quota::Off) => None,
        Some(Quota::Bytes(bytes)) => Some(bytes),
        Some(Quota::Percent(percent)) => {
            let stat = nix::sys::statvfs::fstatvfs(directory)?;
            let size = stat.blocks().saturating_mul(stat.fragment_size());
            Some(size.saturating_mul(u64::from(percent)) / 100)
        }
    })
}

/// The file system, or the kernel, has no projects, or no quotas for them, or has them off.
fn is_lacking(error: &io::Error) -> bool {
    let lacking =
        [Errno::ENOTTY, Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::ESRCH, Errno::EINVAL, Errno::ENODEV];
    lacking.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}
