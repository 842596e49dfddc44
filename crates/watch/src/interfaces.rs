//! Network interfaces as the kernel has them (rtnetlink(7), if_nameindex(3)).
//!
//! A message on the socket only says that something changed; then the list is read anew, so a lost message loses nothing.
//! The list is the kernel's own: in sysfs an interface that goes is still there when the message comes.

use nix::net::if_::if_nameindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The multicast group of links (rtnetlink(7), `RTMGRP_LINK`).
const LINKS: u32 = 1;
/// At most this many messages are drained at once.
const MESSAGES_MAX: usize = 1024;
/// More interfaces than this are not looked at.
const INTERFACES_MAX: usize = 65_536;

/// The list, watched.
#[derive(Debug)]
pub struct Interfaces {
    socket: OwnedFd,
}

impl Interfaces {
    /// Begins to watch.
    pub fn open() -> io::Result<Interfaces> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
        Ok(Interfaces { socket })
    }

    /// The names and numbers of all there are.
    pub fn read(&self) -> io::Result<Vec<(String, u32)>> {
        let mut bytes = [0_u8; 8192];
        for _ in 0..MESSAGES_MAX {
            // Another error says that messages were lost: look all the same.
            let taken = recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty());
            if taken == Err(nix::errno::Errno::EAGAIN) {
                break;
            }
        }
        let all = if_nameindex()?;
        let named = all.iter().take(INTERFACES_MAX);
        Ok(named.filter_map(|one| Some((one.name().to_str().ok()?.to_owned(), one.index()))).collect())
    }
}

impl AsRawFd for Interfaces {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
