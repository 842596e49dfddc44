//! Files that root makes, changes and removes where somebody else may write.
//!
//! A path is walked once, name by name and by descriptor; what was found is then worked on by its descriptor and never
//! looked up again. A symbolic link in the way is followed only if it is root's and stands where only root can put one, so
//! that administrators' links work and those of a service do not (ELOOP). The last name is never followed.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, openat, readlinkat, renameat2};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Links followed on one path (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// How deep a tree is that is worked on: each level holds a descriptor.
const DEPTH_MAX: usize = 512;

/// What is missing on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is an error.
    Fails,
    /// Directories are made, root's and open to all.
    IsMade,
}

fn kind(stat: &FileStat) -> u32 {
    stat.st_mode & nix::libc::S_IFMT
}

/// Whether only root can put a name into a directory, or replace root's name there.
fn is_roots(directory: &FileStat) -> bool {
    let (sticky, others) = (nix::libc::S_ISVTX, 0o022);
    directory.st_uid == 0 && (directory.st_mode & others == 0 || directory.st_mode & sticky != 0)
}

fn open_root() -> nix::Result<OwnedFd> {
    openat(AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// The directory that an absolute path's last name stands in, and that name.
pub fn open_parent(path: &str, missing: Missing) -> nix::Result<(OwnedFd, OsString)> {
    let mut names: VecDeque<OsString> = split(OsStr::new(path));
    let last = names.pop_back().filter(|name| name != "..").ok_or(Errno::EINVAL)?;
    let mut directory = open_root()?;
    let mut links = 0_usize;
    while let Some(name) = names.pop_front() {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = match openat(&directory, name.as_os_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) if missing == Missing::IsMade => {
                make_here(directory.as_fd(), &name, 0o755)?;
                openat(&directory, name.as_os_str(), flags, Mode::empty())?
            }
            found => found?,
        };
        let stat = fstat(&next)?;
        if kind(&stat) != nix::libc::S_IFLNK {
            directory = next;
            continue;
        }
        links = links.saturating_add(1);
        if links > LINKS_MAX || stat.st_uid != 0 || !is_roots(&fstat(&directory)?) {
            return Err(Errno::ELOOP);
        }
        let target = readlinkat(&next, "")?;
        if target.as_bytes().starts_with(b"/") {
            directory = open_root()?;
        }
        for name in split(&target).into_iter().rev() {
            names.push_front(name);
        }
    }
    Ok((directory, last))
}

fn split(path: &OsStr) -> VecDeque<OsString> {
    let names = path.as_bytes().split(|byte| *byte == b'/');
    names
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect()
}

/// Makes a directory whatever the umask. Whether it is new.
fn make_here(parent: impl AsFd, name: &OsStr, mode: u32) -> nix::Result<bool> {
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
        Err(Errno::EEXIST) => Ok(false),
        Err(error) => Err(error),
        Ok(()) => {
            fchmod(open_directory(&parent, name)?, Mode::from_bits_truncate(mode))?;
            Ok(true)
        }
    }
}

/// A directory by its name; ELOOP if that is a link.
fn open_directory(parent: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(&parent, name, flags, Mode::empty()).map_err(|error| {
        let stat = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let is_link = stat.is_ok_and(|stat| kind(&stat) == nix::libc::S_IFLNK);
        if is_link { Errno::ELOOP } else { error }
    })
}

/// Makes a directory with all above it, and gives it, with what is in it if it had another owner, to somebody. One that
/// was there and is not `ours` stays as it is.
pub fn make(path: &str, mode: u32, owner: (u32, u32), ours: bool) -> nix::Result<()> {
    let (parent, name) = open_parent(path, Missing::IsMade)?;
    let is_new = make_here(&parent, &name, mode)?;
    let directory = open_directory(&parent, &name)?;
    if !is_new && !ours {
        return Ok(());
    }
    let stat = fstat(&directory)?;
    if (stat.st_uid, stat.st_gid) != owner {
        if !is_new {
            give_contents(&directory, &stat, owner)?;
        }
        fchown(&directory, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    }
    fchmod(&directory, Mode::from_bits_truncate(mode))
}

/// The names in a directory.
fn names(directory: impl AsFd) -> nix::Result<Vec<OsString>> {
    let copy =
        openat(&directory, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut dir = Dir::from_fd(copy)?;
    let mut all = Vec::new();
    for entry in dir.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            all.push(name);
        }
    }
    Ok(all)
}

/// Gives away all that is in a directory and on its file system.
fn give_contents(top: &OwnedFd, stat: &FileStat, (uid, gid): (u32, u32)) -> nix::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let mut levels = vec![(open_directory(top, OsStr::new("."))?, names(top)?)];
    while let Some((directory, left)) = levels.last_mut() {
        let Some(name) = left.pop() else {
            levels.pop();
            continue;
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let entry = openat(&*directory, name.as_os_str(), flags, Mode::empty())?;
        let found = fstat(&entry)?;
        let is_directory = kind(&found) == nix::libc::S_IFDIR;
        // A further name of a stranger's file was not put there to be given away.
        let is_strangers = !is_directory && found.st_nlink > 1 && found.st_uid != stat.st_uid;
        // Of an overlay, files have other device numbers than directories.
        let is_elsewhere = is_directory && found.st_dev != stat.st_dev;
        if is_elsewhere || is_strangers {
            continue;
        }
        fchownat(&entry, "", uid, gid, AtFlags::AT_EMPTY_PATH)?;
        if is_directory {
            if levels.len() >= DEPTH_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            let inside = open_directory(&entry, OsStr::new("."))?;
            let names = names(&inside)?;
            levels.push((inside, names));
        }
    }
    Ok(())
}

/// A directory by its absolute path.
pub fn open(path: &str) -> nix::Result<OwnedFd> {
    let (parent, name) = open_parent(path, Missing::Fails)?;
    open_directory(parent, &name)
}

/// Has `each` look at a directory, and at all directories and plain files in it and on its file system.
pub fn visit(
    top: &OwnedFd,
    mut each: impl FnMut(&OwnedFd, bool) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let device = fstat(top)?.st_dev;
    let mut levels = vec![(open_directory(top, OsStr::new("."))?, names(top)?)];
    each(top, true)?;
    while let Some((directory, left)) = levels.last_mut() {
        let Some(name) = left.pop() else {
            levels.pop();
            continue;
        };
        let flags =
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let stat = fstatat(&*directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let is_directory = kind(&stat) == nix::libc::S_IFDIR;
        if stat.st_dev != device || !(is_directory || kind(&stat) == nix::libc::S_IFREG) {
            continue;
        }
        let entry = match openat(&*directory, name.as_os_str(), flags, Mode::empty()) {
            // It went, or became a link.
            Err(Errno::ENOENT | Errno::ELOOP) => continue,
            opened => opened?,
        };
        each(&entry, is_directory)?;
        if is_directory {
            if levels.len() >= DEPTH_MAX {
                return Err(Errno::ENAMETOOLONG.into());
            }
            let names = names(&entry)?;
            levels.push((entry, names));
        }
    }
    Ok(())
}

/// Gives a file of an absolute path to somebody.
pub fn give(path: &str, (uid, gid): (u32, u32)) -> nix::Result<()> {
    let (parent, name) = open_parent(path, Missing::Fails)?;
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fchownat(&parent, name.as_os_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// A symbolic link at an absolute path. One that is there already must lead to the same target.
pub fn link(path: &str, target: &str) -> nix::Result<()> {
    let (parent, name) = open_parent(path, Missing::IsMade)?;
    match symlinkat(target, &parent, name.as_os_str()) {
        Err(Errno::EEXIST) => match readlinkat(&parent, name.as_os_str()) {
            Ok(known) if known == OsStr::new(target) => Ok(()),
            _ => Err(Errno::EEXIST),
        },
        done => done,
    }
}

/// Opens a file of an absolute path, whose last name may be root's link as those before it.
pub fn open_file(path: &str, flags: OFlag, mode: u32) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW;
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let (parent, name) = open_parent(&path, Missing::Fails)?;
        // Links of procfs lead to open files, not to names, and nobody else's.
        let is_proc = fstatfs(&parent)?.filesystem_type() == PROC_SUPER_MAGIC;
        let flags = if is_proc { flags & !OFlag::O_NOFOLLOW } else { flags };
        match openat(&parent, name.as_os_str(), flags, Mode::from_bits_truncate(mode)) {
            Err(Errno::ELOOP) => {}
            opened => return opened,
        }
        let stat = fstatat(&parent, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if stat.st_uid != 0 || !is_roots(&fstat(&parent)?) {
            return Err(Errno::ELOOP);
        }
        let target = readlinkat(&parent, name.as_os_str())?;
        let target = target.to_str().ok_or(Errno::EINVAL)?;
        path = match path.rsplit_once('/') {
            Some((directory, _)) if !target.starts_with('/') => format!("{directory}/{target}"),
            _ => target.to_owned(),
        };
    }
    Err(Errno::ELOOP)
}

/// Moves a directory from one absolute path to another on which nothing is. Where there is none, or something is at the
/// other path, nothing happens.
pub fn shift(from: &str, to: &str) -> nix::Result<()> {
    let (parent, name) = match open_parent(from, Missing::Fails) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        found => found?,
    };
    match fstatat(&parent, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if kind(&stat) == nix::libc::S_IFDIR => {}
        Ok(_) | Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    let (place, new) = open_parent(to, Missing::IsMade)?;
    let flags = RenameFlags::RENAME_NOREPLACE;
    match renameat2(&parent, name.as_os_str(), &place, new.as_os_str(), flags) {
        Err(Errno::EEXIST | Errno::ENOTEMPTY) => Ok(()),
        done => done,
    }
}

/// Removes whatever an absolute path names, with all that is in it; a link is removed, not followed. Nothing there is no
/// error.
pub fn remove(path: &str) -> nix::Result<()> {
    match open_parent(path, Missing::Fails).and_then(|(parent, name)| remove_here(parent, name)) {
        Err(Errno::ENOENT) => Ok(()),
        done => done,
    }
}

/// Removes one file, or whatever else an absolute path names that is no directory; a link is removed, not followed. Nothing
/// there is no error.
pub fn remove_file(path: &str) -> nix::Result<()> {
    let removed = open_parent(path, Missing::Fails)
        .and_then(|(parent, name)| unlinkat(&parent, name.as_os_str(), UnlinkatFlags::NoRemoveDir));
    match removed {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
        done => done,
    }
}

/// Removes a symbolic link at an absolute path, if that is what is there and it leads to this target.
pub fn remove_link(path: &str, target: &str) -> nix::Result<()> {
    let removed = open_parent(path, Missing::Fails).and_then(|(parent, name)| {
        match readlinkat(&parent, name.as_os_str()) {
            Ok(known) if known == OsStr::new(target) => {
                unlinkat(&parent, name.as_os_str(), UnlinkatFlags::NoRemoveDir)
            }
            Ok(_) | Err(Errno::EINVAL) => Ok(()),
            Err(error) => Err(error),
        }
    });
    match removed {
        Err(Errno::ENOENT) => Ok(()),
        done => done,
    }
}

fn remove_here(parent: OwnedFd, name: OsString) -> nix::Result<()> {
    // Each level: a directory, what is left in it, and its own name in the level before.
    let mut levels: Vec<(OwnedFd, Vec<OsString>, OsString)> = vec![(parent, vec![name], OsString::new())];
    loop {
        let depth = levels.len();
        let Some((directory, left, _)) = levels.last_mut() else { return Ok(()) };
        if let Some(name) = left.pop() {
            match unlinkat(&*directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR | Errno::EPERM) => {
                    if depth >= DEPTH_MAX {
                        return Err(Errno::ENAMETOOLONG);
                    }
                    let inside = open_directory(&*directory, &name)?;
                    let names = names(&inside)?;
                    levels.push((inside, names, name));
                }
                Err(Errno::ENOENT) | Ok(()) => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        let Some((.., own)) = levels.pop() else { return Ok(()) };
        if let Some((above, ..)) = levels.last() {
            match unlinkat(above, own.as_os_str(), UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOENT) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
