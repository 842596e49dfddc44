//! Sockets' nodes in the file system: made with exactly the mode and owner that the unit says.
//!
//! What must stay true: a node that belongs to an attempt that failed goes again; nothing but a stale socket is ever
//! removed to make room. The file mode creation mask is changed for the length of one call; whoever opens has one thread.

use muster_unit::SocketSection;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, umask};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, unlinkat};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, symlink};
use std::path::Path;

/// Who owns nodes: `SocketUser=` and `SocketGroup=` as numbers; nothing leaves them to root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl Owner {
    fn ids(self) -> Option<(Option<Uid>, Option<Gid>)> {
        (self != Owner::default()).then(|| (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw)))
    }

    /// Gives a node over that was opened by [`found`].
    fn give_node(self, node: &OwnedFd) -> Result<(), Errno> {
        self.ids().map_or(Ok(()), |(uid, gid)| fchownat(node, "", uid, gid, AtFlags::AT_EMPTY_PATH))
    }

    /// Gives an open file over.
    pub(crate) fn give_fd(self, fd: &OwnedFd) -> Result<(), Errno> {
        self.ids().map_or(Ok(()), |(uid, gid)| fchown(fd, uid, gid))
    }
}

/// What an attempt made so far; dropped, it is taken away again.
#[derive(Debug, Default)]
pub(crate) struct Made {
    paths: Vec<String>,
    queues: Vec<CString>,
}

impl Made {
    /// A node in the file system.
    pub fn path(&mut self, path: &str) {
        self.paths.push(path.to_owned());
    }

    /// A message queue.
    pub fn queue(&mut self, name: &CString) {
        self.queues.push(name.clone());
    }

    /// The attempt went well.
    pub fn keep(mut self) {
        self.paths.clear();
        self.queues.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
        self.queues.iter().for_each(|name| drop(muster_sys::message_queue_unlink(name)));
    }
}

/// Calls `make` with a mask that leaves exactly these permissions.
pub(crate) fn with_mode<T>(mode: u32, make: impl FnOnce() -> T) -> T {
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let made = make();
    umask(before);
    made
}

/// Gives the node of a fresh socket its owner, and the permissions that no mask gives (set-user-id and its kin).
pub(crate) fn finish(path: &str, mode: u32, owner: Owner) -> std::io::Result<()> {
    if owner == Owner::default() && mode & !0o777 == 0 {
        return Ok(());
    }
    let node = found(path)?;
    owner.give_node(&node)?;
    if mode & !0o777 != 0 {
        std::fs::set_permissions(
            format!("/proc/self/fd/{}", node.as_raw_fd()),
            PermissionsExt::from_mode(mode),
        )?;
    }
    Ok(())
}

/// The node at a path, to be worked on by descriptor: whoever may write above it could put another file in its place, which
/// must not change hands.
fn found(path: &str) -> std::io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let node = open(path, flags, Mode::empty())?;
    if !is_socket(&fstat(&node)?) {
        return Err(std::io::Error::other("something else took its place"));
    }
    Ok(node)
}

fn is_socket(stat: &FileStat) -> bool {
    stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFSOCK
}

/// Takes a stale socket away. The directory is looked up once, so that what goes is a name in the directory that was looked
/// into.
pub(crate) fn remove_stale(path: &str) -> std::io::Result<()> {
    let path = Path::new(path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    if !is_socket(&fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?) {
        return Err(std::io::Error::other("something that is no socket is in the way"));
    }
    Ok(unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?)
}

/// Makes the directories above a path.
pub(crate) fn make_parents(path: &str, mode: u32) {
    if let Some(parent) = Path::new(path).parent() {
        let make = || std::fs::DirBuilder::new().recursive(true).mode(mode).create(parent);
        // What stands in the way is told by the call that needs the directory.
        let _ = with_mode(mode, make);
    }
}

/// Whether something is there that is no socket, and so not ours to replace.
pub(crate) fn is_foreign(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket())
}

/// `Symlinks=`. A link that is there is replaced; anything else stays, which is told and no failure.
pub(crate) fn make_symlinks(section: &SocketSection, warnings: &mut Vec<String>) {
    let Some(target) = section.listen().iter().find_map(|listen| listen.node()) else { return };
    for link in section.symlinks().iter().map(|link| link.0.as_str()) {
        make_parents(link, section.directory_mode().0);
        if Path::new(link).is_symlink() {
            let _ = std::fs::remove_file(link);
        }
        if let Err(error) = symlink(target, link) {
            warnings.push(format!("Symlinks={link}: no link to {target} could be made: {error}"));
        }
    }
}
