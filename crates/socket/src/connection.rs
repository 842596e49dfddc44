//! Connections: accept(2), the name of the instance that serves one, who is at the far end, and the flushing of what waits.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{
    SockFlag, SockaddrStorage, UnixAddr, accept4, getpeername, getsockname, getsockopt, sockopt,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The peer of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// Tail of the instance name: what comes after the connection's number.
    pub instance_tail: String,
    /// How the far end is called where people read it: an address with its port, or a process with its user.
    pub description: String,
    /// `REMOTE_ADDR`.
    pub remote_addr: Option<String>,
    /// `REMOTE_PORT`.
    pub remote_port: Option<u32>,
    /// `SO_COOKIE`; zero where there is none.
    pub cookie: u64,
    /// What connections are counted by: an address, a context, a user. Empty when unknown.
    pub source: String,
}

/// What accept(2) gave.
#[derive(Debug)]
#[allow(missing_docs)] // the connection, and who it is with
pub enum Accept {
    /// A connection.
    Connection { fd: OwnedFd, peer: PeerInfo },
    /// No connection waits.
    WouldBlock,
    /// The client went away; try the next.
    Again,
    /// No descriptors or memory now.
    Exhausted(Errno),
    /// Accepting fails permanently.
    Failed(Errno),
}

/// Takes one connection.
pub fn accept(listener: BorrowedFd<'_>) -> Accept {
    match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
        Ok(raw) => {
            let fd = muster_sys::adopt_fd(raw);
            let peer = peer(fd.as_fd());
            Accept::Connection { fd, peer }
        }
        Err(Errno::EAGAIN) => Accept::WouldBlock,
        Err(error @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) => {
            Accept::Exhausted(error)
        }
        Err(error @ (Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP)) => {
            Accept::Failed(error)
        }
        Err(_) => Accept::Again,
    }
}

/// An address and a port, v4 in v6 shown as v4.
fn inet(address: &SockaddrStorage) -> Option<(String, u16)> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some((v4.ip().to_string(), v4.port()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some((v6.ip().to_ipv4_mapped().map_or_else(|| v6.ip().to_string(), |v4| v4.to_string()), v6.port()))
}

fn peer(fd: BorrowedFd<'_>) -> PeerInfo {
    let cookie = muster_sys::get_option_bytes(fd, libc::SOL_SOCKET, libc::SO_COOKIE, 8)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_ne_bytes);
    let here = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok();
    let there = getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok();
    let (here, there) = (here.as_ref(), there.as_ref());
    let known = by_inet(here, there).or_else(|| by_vsock(here, there)).or_else(|| by_unix(fd, there));
    let known =
        known.unwrap_or_else(|| PeerInfo { instance_tail: "unknown".to_owned(), ..PeerInfo::default() });
    PeerInfo { cookie, ..known }
}

fn by_inet(here: Option<&SockaddrStorage>, there: Option<&SockaddrStorage>) -> Option<PeerInfo> {
    let ((here, here_port), (there, port)) = (inet(here?)?, inet(there?)?);
    let instance_tail = format!("{here}:{here_port}-{there}:{port}");
    Some(PeerInfo {
        instance_tail,
        description: if there.contains(':') {
            format!("[{there}]:{port}")
        } else {
            format!("{there}:{port}")
        },
        remote_addr: Some(there.clone()),
        remote_port: Some(port.into()),
        cookie: 0,
        source: there,
    })
}

fn by_vsock(here: Option<&SockaddrStorage>, there: Option<&SockaddrStorage>) -> Option<PeerInfo> {
    let (here, there) = (here?.as_vsock_addr()?, there?.as_vsock_addr()?);
    Some(PeerInfo {
        instance_tail: format!("{}:{}-{}:{}", here.cid(), here.port(), there.cid(), there.port()),
        description: format!("vsock:{}:{}", there.cid(), there.port()),
        remote_addr: Some(format!("vsock:{}", there.cid())),
        remote_port: Some(there.port()),
        cookie: 0,
        source: format!("cid {}", there.cid()),
    })
}

fn by_unix(fd: BorrowedFd<'_>, there: Option<&SockaddrStorage>) -> Option<PeerInfo> {
    let found = getsockopt(&fd, sockopt::PeerCredentials).ok()?;
    Some(PeerInfo {
        instance_tail: format!("{}-{}", found.pid(), found.uid()),
        description: format!("PID {}/UID {}", found.pid(), found.uid()),
        remote_addr: there.and_then(|there| unix_name(there.as_unix_addr()?)),
        source: format!("uid {}", found.uid()),
        ..PeerInfo::default()
    })
}

/// The path of a unix address, or `@` and its abstract name; nothing for one without a name.
fn unix_name(address: &UnixAddr) -> Option<String> {
    let path = address.path().and_then(|path| path.to_str()).map(str::to_owned);
    let hidden = || address.as_abstract().map(|name| format!("@{}", String::from_utf8_lossy(name)));
    path.filter(|path| !path.is_empty()).or_else(hidden).filter(|name| !name.contains(['\0', '\n']))
}

/// At most this many connections or reads are flushed at once.
const FLUSH_MAX: usize = 4096;

/// Throws away what is queued: connections, or data.
pub fn flush(fd: BorrowedFd<'_>) {
    // The flag belongs to the open file, and a service that has it too may have cleared it; PID 1 must not wait here.
    let set = |flags| fcntl(fd, FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK));
    if fcntl(fd, FcntlArg::F_GETFL).and_then(set).is_err() {
        return;
    }
    for _ in 0..FLUSH_MAX {
        match accept4(fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(raw) => drop(muster_sys::adopt_fd(raw)),
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP) => break,
            Err(_) => return,
        }
    }
    let message_size = muster_sys::message_queue_size(fd).ok().map(|(size, _)| size.message_size);
    let message_size = message_size.and_then(|size| usize::try_from(size).ok());
    let mut buffer = [0_u8; 4096];
    for _ in 0..FLUSH_MAX {
        let more = match message_size {
            Some(size) => muster_sys::message_queue_drop_one(fd, size),
            // An empty datagram is one too.
            None => nix::unistd::read(fd, &mut buffer).is_ok_and(|length| length > 0 || is_datagram(fd)),
        };
        if !more {
            return;
        }
    }
}

fn is_datagram(fd: BorrowedFd<'_>) -> bool {
    muster_sys::get_option(fd, libc::SOL_SOCKET, libc::SO_TYPE).is_ok_and(|kind| kind == libc::SOCK_DGRAM)
}
