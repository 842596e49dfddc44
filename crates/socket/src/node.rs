//! Sockets' nodes in the file system: made with exactly the mode and owner that the unit says, and removed with it.
//!
//! What must stay true: a node that belongs to an attempt that failed goes again; nothing but a stale socket is ever
//! removed to make room. The file mode creation mask is changed for the length of one call; PID 1 has one thread.

use muster_unit::{Listen, ListenKind, SocketAddress, SocketSection};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchown, fchownat};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, symlink};
use std::path::Path;

/// Who owns nodes: `SocketUser=` and `SocketGroup=` as numbers; nothing leaves them to root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    /// Gives a node over.
    pub(crate) fn give_path(self, path: &str) -> Result<(), Errno> {
        self.ids()
            .map_or(Ok(()), |(uid, gid)| fchownat(AT_FDCWD, path, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW))
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

/// Permissions that no mask gives: set-user-id and its kin.
pub(crate) fn finish_mode(path: &str, mode: u32) -> std::io::Result<()> {
    if mode & !0o777 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
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

/// The node of an address.
pub(crate) fn of(listen: &Listen) -> Option<&str> {
    match (&listen.address, listen.kind) {
        (SocketAddress::Path(path), _) | (SocketAddress::FilePath(path), ListenKind::Fifo) => Some(path),
        _ => None,
    }
}

/// `Symlinks=`. A link that is there is replaced; anything else stays, which is told and no failure.
pub(crate) fn make_symlinks(section: &SocketSection, warnings: &mut Vec<String>) {
    let Some(target) = section.listen().iter().find_map(of) else { return };
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

/// `RemoveOnStop=`: takes nodes, message queues and links of the addresses in `listen` away.
pub fn remove_nodes(section: &SocketSection, listen: &[Listen]) {
    if !section.remove_on_stop() {
        return;
    }
    for listen in listen {
        if let Some(path) = of(listen) {
            let _ = std::fs::remove_file(path);
        }
        if let (ListenKind::MessageQueue, SocketAddress::FilePath(name)) = (listen.kind, &listen.address) {
            let _ = CString::new(name.as_str()).map(|name| muster_sys::message_queue_unlink(&name));
        }
    }
    let is_gone = section.listen().iter().find_map(of).is_none_or(|target| !Path::new(target).exists());
    let links =
        section.symlinks().iter().map(|link| Path::new(&link.0)).filter(|link| is_gone && link.is_symlink());
    links.for_each(|link| drop(std::fs::remove_file(link)));
}
