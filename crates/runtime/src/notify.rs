//! The notify socket (sd_notify(3)): datagrams with credentials and descriptors.
//!
//! Bounded in every direction: 4 KiB of text, 253 descriptors, a bounded number of datagrams a turn. A datagram that is not
//! understood is dropped with its descriptors.

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind,
    recvmsg, setsockopt, socket, sockopt,
};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where services find it.
pub const PATH: &str = "/run/systemd/notify";
/// The longest datagram that is read, in bytes (systemd's own limit).
const DATAGRAM_MAX: usize = 4096;
/// The most descriptors of one datagram.
const FDS_MAX: usize = 253;
/// At most this many assignments of one datagram are read.
const FIELDS_MAX: usize = 64;

/// One message.
#[derive(Debug)]
pub struct Notification {
    /// The sender, by the kernel's word.
    pub pid: u32,
    /// The user ID of the sender.
    pub uid: u32,
    /// `KEY=value` lines.
    pub fields: Vec<(String, String)>,
    /// Descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

/// What one read gave.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(Notification),
    /// A datagram that is not one.
    Dropped(&'static str, Vec<OwnedFd>),
    /// The socket is empty.
    Empty,
}

/// Binds the socket.
pub fn open(path: &str) -> nix::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    setsockopt(&fd, sockopt::PassCred, &true)?;
    // A burst of READY from a boot must fit; the kernel caps what it does not allow.
    let _ = setsockopt(&fd, sockopt::RcvBufForce, &(8 << 20));
    let _ = std::fs::remove_file(path);
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    nix::sys::stat::fchmodat(
        nix::fcntl::AT_FDCWD,
        path,
        nix::sys::stat::Mode::from_bits_truncate(0o777),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )?;
    Ok(fd)
}

/// The next datagram.
#[derive(Debug)]
pub enum Next {
    /// There is one, of this process and user.
    Of(Option<(u32, u32)>),
    /// There is none.
    Nothing,
}

/// Who sent the next datagram, by the kernel's word: process and user. The datagram stays, and no descriptor is installed.
pub fn next_sender(fd: &OwnedFd) -> Next {
    match muster_sys::next_sender(fd.as_fd()) {
        Ok(sender) => Next::Of(sender),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Next::Nothing,
        Err(_) => Next::Of(None),
    }
}

/// Drops one datagram. Its descriptors never become ours, so that there is nothing to close.
pub fn discard(fd: &OwnedFd) {
    let _ = nix::sys::socket::recv(fd.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
}

/// Reads one datagram.
pub fn receive(fd: &OwnedFd, buffer: &mut Vec<u8>) -> Received {
    buffer.resize(DATAGRAM_MAX.saturating_add(1), 0);
    let bytes = buffer;
    let mut control = nix::cmsg_space!(UnixCredentials, [std::os::fd::RawFd; FDS_MAX]);
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<UnixAddr>(fd.as_raw_fd(), &mut parts, Some(&mut control), flags) {
        Ok(message) => message,
        Err(nix::errno::Errno::EAGAIN) => return Received::Empty,
        Err(_) => return Received::Dropped("the notify socket could not be read", Vec::new()),
    };
    let mut credentials = None;
    let mut fds = Vec::new();
    let Ok(control) = message.cmsgs() else {
        return Received::Dropped("its ancillary data was cut off", Vec::new());
    };
    for item in control {
        match item {
            ControlMessageOwned::ScmCredentials(found) => credentials = Some(found),
            ControlMessageOwned::ScmRights(found) => fds.extend(found.into_iter().map(muster_sys::adopt_fd)),
            _ => {}
        }
    }
    let length = message.bytes;
    let truncated = message.flags.contains(MsgFlags::MSG_TRUNC) || length > DATAGRAM_MAX;
    let Some(credentials) = credentials.filter(|credentials| credentials.pid() > 0) else {
        return Received::Dropped("it carried no credentials", fds);
    };
    if truncated {
        return Received::Dropped("it was longer than 4096 bytes", fds);
    }
    let text = bytes.get(..length).unwrap_or(&[]);
    let Some(fields) = parse(text) else {
        return Received::Dropped("it was not KEY=value lines", fds);
    };
    Received::Message(Notification {
        pid: u32::try_from(credentials.pid()).unwrap_or(0),
        uid: credentials.uid(),
        fields,
        fds,
    })
}

/// The assignments of a datagram; `None` when it holds none or is not text.
pub fn parse(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    if text.contains('\0') {
        return None;
    }
    let fields: Vec<(String, String)> = text
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| !key.is_empty())
        .take(FIELDS_MAX)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    (!fields.is_empty()).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_assignments_count() {
        assert_eq!(
            parse(b"READY=1\nSTATUS=a=b\nnoise\n"),
            Some(vec![("READY".into(), "1".into()), ("STATUS".into(), "a=b".into())])
        );
        for bad in [&b""[..], b"\n\n", b"=x", b"READY=1\0X=2", &[0xff, b'=', 0xfe]] {
            assert_eq!(parse(bad), None);
        }
    }
}
