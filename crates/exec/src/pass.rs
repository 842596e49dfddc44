//! What goes from process to process: a file in memory, and messages.
//!
//! PID 1 does without memfd_create(2) and socketpair(2) where it can: a service that needs neither starts though they fail.
#![forbid(unsafe_code)]

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, socketpair};
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// A file without a name, closed at exec: in memory, or on the tmpfs of `/run`.
pub fn memory(name: &CStr) -> std::io::Result<File> {
    let unnamed = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(OFlag::O_TMPFILE.bits()).open("/run")
    };
    memfd_create(name, MFdFlags::MFD_CLOEXEC).map_or_else(|_| unnamed(), |memfd| Ok(memfd.into()))
}

/// Two ends, closed at exec; what is sent into the second comes out of the first message by message. A pipe does that, too.
pub fn messages() -> nix::Result<(OwnedFd, OwnedFd)> {
    let packets = OFlag::O_CLOEXEC | OFlag::O_DIRECT | OFlag::O_NONBLOCK;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .or_else(|_| nix::unistd::pipe2(packets))
}

/// Sends a message into such a pair.
pub fn send(end: &OwnedFd, message: &[u8]) -> nix::Result<usize> {
    match socket::send(end.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL) {
        Err(Errno::ENOTSOCK) => nix::unistd::write(end, message),
        sent => sent,
    }
}

/// Takes a message out of it, without waiting.
pub fn receive(end: &OwnedFd, message: &mut [u8]) -> nix::Result<usize> {
    match socket::recv(end.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT) {
        Err(Errno::ENOTSOCK) => nix::unistd::read(end, message),
        received => received,
    }
}
