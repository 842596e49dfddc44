//! Where nss-systemd(8) asks for dynamic users, and systemd-oomd.service(8) for the cgroups that it is to look after: sockets
//! that speak varlink, with `muster_control::varlink` behind them.
//!
//! What must stay true: clients, what they sent and what waits for them are bounded, and nobody is waited for: who does not
//! read is not read from.

use crate::clock::Budget;
use crate::turn::{Runtime, Source};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use muster_control::oomd::{self, Wish};
use muster_control::varlink::{Asker, Service, answer, further};
use muster_unit::CGroupSection;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt, listen, recv,
    send, socket, sockopt,
};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where they are.
const SOCKETS: [(Service, &str); 2] = [
    (Service::Users, "/run/systemd/userdb/io.systemd.DynamicUser"),
    (Service::Oomd, "/run/systemd/io.systemd.ManagedOOM"),
];
/// The most clients at a time.
const CLIENTS_MAX: usize = 256;
/// The longest message, in bytes.
const MESSAGE_MAX: usize = 64 * 1024;
/// What may wait for a client that is told of changes, in bytes. Who is let go for more can ask anew, and is told all.
const WAITING_MAX: usize = 4 * 1024 * 1024;
/// Read at once, in bytes.
const READ_SIZE: usize = 4096;

#[derive(Debug)]
struct Client {
    fd: OwnedFd,
    service: Service,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Whether it is told of changes.
    subscribed: bool,
}

/// The sockets and who is connected to them.
#[derive(Debug, Default)]
pub struct Varlink {
    listeners: Vec<(Service, OwnedFd)>,
    clients: BTreeMap<Token, Client>,
    /// What was last said of the cgroups that are looked after.
    wishes: BTreeMap<String, Wish>,
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
    /// Goes on with sockets from before, and binds the others. Without one its service is not there, and all else goes on.
    pub fn open(mut find: impl FnMut(&str) -> Option<OwnedFd>) -> Varlink {
        let open = |(service, path)| Some((service, find(path).or_else(|| listener(path).ok())?));
        Varlink { listeners: SOCKETS.into_iter().filter_map(open).collect(), ..Varlink::default() }
    }

    pub(crate) fn listeners(&self) -> impl Iterator<Item = (Service, i32)> {
        self.listeners.iter().map(|(service, fd)| (*service, fd.as_raw_fd()))
    }

    /// The same by their paths.
    pub(crate) fn handed(&self) -> Vec<(String, i32)> {
        let path =
            |service| SOCKETS.iter().find(|(known, _)| *known == service).map(|(_, path)| (*path).to_owned());
        self.listeners().filter_map(|(service, fd)| Some((path(service)?, fd))).collect()
    }
}

fn listener(path: &str) -> std::io::Result<OwnedFd> {
    use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
    if let Some((directory, _)) = path.rsplit_once('/') {
        std::fs::create_dir_all(directory)?;
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let _ = std::fs::remove_file(path);
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    fchmodat(nix::fcntl::AT_FDCWD, path, Mode::from_bits_truncate(0o666), FchmodatFlags::FollowSymlink)?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd)
}

impl Runtime {
    pub(crate) fn accept_askers(&mut self, listening: Token, service: Service) {
        for _ in 0..CLIENTS_MAX {
            let listener = self.varlink.listeners().find(|(known, _)| *known == service);
            let Some((_, listener)) = listener else { return };
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
            let (input, output) = (Vec::new(), Vec::new());
            self.varlink.clients.insert(token, Client { fd, service, input, output, subscribed: false });
            self.still_ready(token);
        }
        self.still_ready(listening);
    }

    /// Answers what a client asks.
    pub(crate) fn asker_ready(&mut self, token: Token, budget: Budget) {
        let Some(mut client) = self.varlink.clients.remove(&token) else { return };
        let knew = client.subscribed;
        let turn =
            if client.output.len() > WAITING_MAX { Turn::Gone } else { self.serve(&mut client, budget) };
        if client.subscribed && !knew {
            self.varlink.wishes = oomd::wishes(&self.manager);
        }
        match turn {
            Turn::Gone => return self.deregister(token, client.fd.as_fd()),
            Turn::Paused => self.still_ready(token),
            Turn::Waits => {}
        }
        self.varlink.clients.insert(token, client);
    }

    /// A cgroup is held to this, or gone: what systemd-oomd.service(8) is to know of it.
    pub(crate) fn tell_oomd(&mut self, path: &str, config: Option<&CGroupSection>) {
        let wish = config.map(Wish::of).unwrap_or_default();
        let old = self.varlink.wishes.get(path);
        if old.map_or(!wish.is_any(), |old| *old == wish) {
            return;
        }
        match wish.is_any() {
            true => drop(self.varlink.wishes.insert(path.to_owned(), wish.clone())),
            false => drop(self.varlink.wishes.remove(path)),
        }
        let told = further(&oomd::changed(&oomd::absolute(&self.manager, path), &wish));
        let subscribed = self.varlink.clients.iter_mut().filter(|(_, client)| client.subscribed);
        let tokens: Vec<Token> = subscribed
            .map(|(token, client)| {
                client.output.extend_from_slice(&told);
                *token
            })
            .collect();
        tokens.into_iter().for_each(|token| self.still_ready(token));
    }

    fn asker(&self, client: &Client) -> Asker {
        if client.service == Service::Users {
            return Asker::default();
        }
        let pid = getsockopt(&client.fd, sockopt::PeerCredentials).ok().map(|peer| peer.pid());
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        let cgroup = pid.and_then(|pid| self.cgroups.of_process(pid)).unwrap_or_default();
        let taken = self.varlink.clients.values().any(|other| other.subscribed) || client.subscribed;
        Asker { cgroup, taken }
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
                match answer(&self.manager, client.service, &self.asker(client), &message) {
                    Some(said) => {
                        client.output = said.bytes;
                        client.subscribed |= said.subscribes;
                    }
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
