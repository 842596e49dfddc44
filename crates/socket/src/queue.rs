//! How much waits on a descriptor, as far as the kernel says.

use nix::libc;
use std::os::fd::BorrowedFd;

/// What waits.
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
    /// The bare number.
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

/// The length of the accept queue of TCP sockets, by TCP_INFO (tcp(7)); nothing for others, which the kernel tells only by netlink.
fn connections(fd: BorrowedFd<'_>, domain: i32) -> Option<u64> {
    /// Where `tcpi_unacked` lies in `struct tcp_info`; of a listening socket it is the length of the queue.
    const UNACKED: std::ops::Range<usize> = 24..28;
    match domain {
        libc::AF_INET | libc::AF_INET6 => {
            let info = muster_sys::get_option_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, 104).ok()?;
            let unacked = info.get(UNACKED)?.try_into().ok()?;
            Some(u64::from(u32::from_ne_bytes(unacked)))
        }
        _ => None,
    }
}
