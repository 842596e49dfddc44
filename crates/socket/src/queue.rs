//! How much waits on a descriptor, as far as the kernel says.

use nix::libc;
use std::os::fd::BorrowedFd;

/// What is queued on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Connections that nobody accepted yet.
    Connections(u64),
    /// Messages of a queue.
    Messages(u64),
    /// Bytes; of datagram sockets those of the first datagram.
    Bytes(u64),
}

impl Waiting {
    /// The number alone.
    pub fn number(self) -> u64 {
        match self {
            Waiting::Connections(number) | Waiting::Messages(number) | Waiting::Bytes(number) => number,
        }
    }
}

/// Looks at a descriptor.
pub fn waiting(fd: BorrowedFd<'_>) -> Option<Waiting> {
    let ask = |option| muster_sys::get_option(fd, libc::SOL_SOCKET, option).ok();
    if ask(libc::SO_ACCEPTCONN) == Some(1) {
        return connections(fd, ask(libc::SO_DOMAIN)?).map(Waiting::Connections);
    }
    if let Ok((_, messages)) = muster_sys::message_queue_size(fd) {
        return u64::try_from(messages).ok().map(Waiting::Messages);
    }
    muster_sys::bytes_waiting(fd).ok().and_then(|bytes| u64::try_from(bytes).ok()).map(Waiting::Bytes)
}

/// The length of the accept queue.
fn connections(fd: BorrowedFd<'_>, domain: i32) -> Option<u64> {
    match domain {
        libc::AF_INET | libc::AF_INET6 => tcp_connections(fd),
        libc::AF_UNIX => unix_connections(fd),
        _ => None,
    }
}

/// By TCP_INFO (tcp(7)).
fn tcp_connections(fd: BorrowedFd<'_>) -> Option<u64> {
    /// Where `tcpi_unacked` lies in `struct tcp_info`; of a listening socket it is the length of the queue.
    const UNACKED: std::ops::Range<usize> = 24..28;
    let info = muster_sys::get_option_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, 104).ok()?;
    number(info.get(UNACKED)?)
}

/// By sock_diag(7). The kernel answers while it is asked, so nothing waits.
fn unix_connections(fd: BorrowedFd<'_>) -> Option<u64> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST: u16 = 1;
    const SHOW_QUEUE: u32 = 0x10;
    const ANY_COOKIE: u32 = u32::MAX;
    let inode = u32::try_from(nix::sys::stat::fstat(fd).ok()?.st_ino).ok()?;
    let netlink = muster_sys::open_socket(
        libc::AF_NETLINK,
        libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        libc::NETLINK_SOCK_DIAG,
    )
    .ok()?;
    // struct nlmsghdr, struct unix_diag_req.
    let family = u32::from_ne_bytes([u8::try_from(libc::AF_UNIX).ok()?, 0, 0, 0]);
    let head = u32::from(SOCK_DIAG_BY_FAMILY) | u32::from(REQUEST) << 16;
    let head = if cfg!(target_endian = "big") { head.rotate_left(16) } else { head };
    let words = [40, head, 0, 0, family, u32::MAX, inode, SHOW_QUEUE, ANY_COOKIE, ANY_COOKIE];
    let request: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    nix::unistd::write(&netlink, &request).ok()?;
    let mut answer = [0; 512];
    let size = nix::unistd::read(&netlink, &mut answer).ok()?;
    attribute(answer.get(..size)?.get(32..)?, 4)
}

/// The first number of the netlink attribute of this kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<u64> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind == wanted {
            return number(attributes.get(4..8)?);
        }
        attributes = attributes.get(length.max(4).checked_next_multiple_of(4)?..)?;
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)))
}
