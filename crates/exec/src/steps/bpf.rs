//! What of bpf(2) a service may hand itself by a token (`BPFDelegateCommands=` and kin; Linux, Documentation/bpf and
//! `mount -t bpf` with `delegate_cmds=`): options of the file system of `PrivateBPF=`.
//!
//! A token is made for the user namespace that the file system belongs to, and only a process outside may say what it
//! delegates. So a process that is inside, with mounts of its own, begins the file system, and one that stayed outside makes
//! it and mounts it.
//! What must stay true: what cannot be delegated as it is asked for starts nothing.

use super::namespaces::leave;
use super::{About, Done, failed};
use crate::image::live::replace;
use muster_unit::ExecSection;
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};

/// What makes the file system: `muster-executor --delegate-bpf OPTION=VALUE ...`, with a socket as standard input.
pub const ARGUMENT: &str = "--delegate-bpf";
/// What begins it: the same, inside.
pub const BEGINNING: &str = "--begin-bpf";
const PLACE: &str = "/sys/fs/bpf";
const NAME: &str = "PrivateBPF=";

/// A process that stays outside of the user namespace that is about to be made.
pub struct Outside {
    child: Child,
    socket: OwnedFd,
}

/// The options that say what is delegated.
pub fn delegation(exec: &ExecSection) -> Vec<(&'static str, String)> {
    let options = [
        ("delegate_cmds", exec.bpf_delegate_commands()),
        ("delegate_maps", exec.bpf_delegate_maps()),
        ("delegate_progs", exec.bpf_delegate_programs()),
        ("delegate_attachs", exec.bpf_delegate_attachments()),
    ];
    options.into_iter().filter_map(|(name, what)| Some((name, what.option()?))).collect()
}

impl Outside {
    /// Starts it, where anything is delegated.
    pub fn begin(exec: &ExecSection) -> Done<Option<Outside>> {
        let options = delegation(exec);
        if !exec.private_bpf() || options.is_empty() {
            return Ok(None);
        }
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).about(NAME)?;
        let child = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .args(options.iter().map(|(name, value)| format!("{name}={value}")))
            .stdin(theirs)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_clear()
            .spawn()
            .about(NAME)?;
        Ok(Some(Outside { child, socket }))
    }

    /// Has the file system begun in the user namespace in which this process is now, and waits until it is mounted.
    pub fn finish(mut self) -> Done {
        let inside = Command::new("/proc/self/exe")
            .arg(BEGINNING)
            .stdin(self.socket)
            .stderr(Stdio::null())
            .env_clear()
            .status();
        if !inside.about(NAME)?.success() {
            return failed(format!("{NAME}: the kernel has no such file system in a user namespace"));
        }
        let mut said = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            output.read_to_string(&mut said).about(NAME)?;
        }
        match self.child.wait().about(NAME)?.success() {
            true => Ok(()),
            false => failed(format!("{NAME}{PLACE}: {}", said.trim())),
        }
    }
}

/// What the process inside does: the mounts that it may make are its own.
pub fn begin() -> bool {
    let begun = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(std::io::Error::from)
        .and_then(|()| Ok(rustix::mount::fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?));
    begun.is_ok_and(|begun| leave(&std::io::stdin(), &begun).is_ok())
}

/// What the process outside does. The error says why nothing is mounted.
pub fn mount(options: &[String]) -> Result<(), String> {
    let begun = taken().ok_or("nothing was passed")?;
    let about = |what: &str| {
        let what = what.to_owned();
        move |error: rustix::io::Errno| format!("{what}: {error}")
    };
    for (name, value) in options.iter().filter_map(|option| option.split_once('=')) {
        rustix::mount::fsconfig_set_string(&begun, name, value).map_err(about(name))?;
    }
    rustix::mount::fsconfig_create(&begun).map_err(about("bpf"))?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let tree = rustix::mount::fsmount(&begun, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(about("bpf"))?;
    let place = rustix::fs::open(PLACE, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
    replace(&tree, &place.map_err(about(PLACE))?, PLACE).map_err(about(PLACE))
}

/// The descriptor that comes through the socket on standard input.
fn taken() -> Option<OwnedFd> {
    let mut byte = [0_u8; 1];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(std::io::stdin().as_raw_fd(), &mut bytes, Some(&mut space), flags).ok()?;
    let mut fds = message.cmsgs().ok()?.filter_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    fds.next().map(muster_sys::adopt_fd)
}
