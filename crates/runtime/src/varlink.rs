//! Where nss-systemd(8) asks for dynamic users: a socket that speaks varlink, with `muster_control::users` behind it.
//!
//! Anybody may ask. What must stay true: clients, what they sent and what waits for them are bounded, and nobody is waited
//! for: who does not read is not read from.

use crate::clock::Budget;
use crate::turn::{Runtime, Source};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, listen, recv, send, socket,
};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where it is.
pub const PATH: &str = "/run/systemd/userdb/io.systemd.DynamicUser";
/// The most clients at a time.
const CLIENTS_MAX: usize = 256;
/// The longest message, in bytes.
const MESSAGE_MAX: usize = 64 * 1024;
/// Read at once, in bytes.
const READ_SIZE: usize = 4096;

#[derive(Debug)]
struct Client {
    fd: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The socket and who is connected to it.
#[derive(Debug, Default)]
pub struct Varlink {
    listener: Option<OwnedFd>,
    clients: BTreeMap<Token, Client>,
}

/// What became of a client's turn.
enum Turn {
    /// It waits for the kernel.
    Waits,
    /// Its time is up.
    Paused,
    /// It is gone, or broke the rules.
    Gone,
}

impl Varlink {
    /// Binds the socket. Without it names of dynamic users cannot be resolved, and all else goes on.
    pub fn open() -> Varlink {
        Varlink { listener: listener().ok(), clients: BTreeMap::new() }
    }

    /// Goes on with a socket from before.
    pub fn go_on(listener: OwnedFd) -> Varlink {
        Varlink { listener: Some(listener), clients: BTreeMap::new() }
    }

    pub(crate) fn listener_fd(&self) -> Option<i32> {
        self.listener.as_ref().map(AsRawFd::as_raw_fd)
    }
}

fn listener() -> std::io::Result<OwnedFd> {
    use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
    if let Some((directory, _)) = PATH.rsplit_once('/') {
        std::fs::create_dir_all(directory)?;
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let _ = std::fs::remove_file(PATH);
    bind(fd.as_raw_fd(), &UnixAddr::new(PATH)?)?;
    fchmodat(nix::fcntl::AT_FDCWD, PATH, Mode::from_bits_truncate(0o666), FchmodatFlags::FollowSymlink)?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd)
}

impl Runtime {
    pub(crate) fn accept_askers(&mut self, listening: Token) {
        for _ in 0..CLIENTS_MAX {
            let Some(listener) = self.varlink.listener_fd() else { return };
            let raw = match accept4(listener, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
                Ok(raw) => raw,
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                // Of a shortage the next one that connects reminds us.
                Err(_) => return,
            };
            let fd = muster_sys::adopt_fd(raw);
            if self.varlink.clients.len() >= CLIENTS_MAX {
                continue;
            }
            let Ok(token) = self.register_raw(raw, Source::Asker) else { continue };
            let both = Interest::READABLE | Interest::WRITABLE;
            let watched = self.poll.registry().reregister(&mut SourceFd(&raw), token, both);
            if watched.is_err() {
                self.deregister(token, fd.as_fd());
                continue;
            }
            self.varlink.clients.insert(token, Client { fd, input: Vec::new(), output: Vec::new() });
            self.still_ready(token);
        }
        self.still_ready(listening);
    }

    /// Answers what a client asks.
    pub(crate) fn asker_ready(&mut self, token: Token, budget: Budget) {
        let Some(mut client) = self.varlink.clients.remove(&token) else { return };
        match self.serve(&mut client, budget) {
            Turn::Gone => return self.deregister(token, client.fd.as_fd()),
            Turn::Paused => self.still_ready(token),
            Turn::Waits => {}
        }
        self.varlink.clients.insert(token, client);
    }

    fn serve(&self, client: &mut Client, budget: Budget) -> Turn {
        loop {
            if !client.output.is_empty() {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                match send(client.fd.as_raw_fd(), &client.output, flags) {
                    Ok(sent) => drop(client.output.drain(..sent.min(client.output.len()))),
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => return Turn::Waits,
                    Err(_) => return Turn::Gone,
                }
                continue;
            }
            if budget.is_spent() {
                return Turn::Paused;
            }
            if let Some(end) = client.input.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = client.input.drain(..=end).take(end).collect();
                match muster_control::users::answer(&self.manager, &message) {
                    Some(replies) => client.output = replies,
                    None => return Turn::Gone,
                }
                continue;
            }
            if client.input.len() >= MESSAGE_MAX {
                return Turn::Gone;
            }
            let mut bytes = [0_u8; READ_SIZE];
            match recv(client.fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Turn::Gone,
                Ok(length) => client.input.extend_from_slice(bytes.get(..length).unwrap_or(&[])),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Turn::Waits,
                Err(_) => return Turn::Gone,
            }
        }
    }
}
