//! Clients on the private socket, and the system bus: bytes to messages to requests, and back.
//!
//! Only root gets in, by SO_PEERCRED. A client that breaks the protocol or does not read is closed; the rest goes on.

use crate::clock::{self, Budget};
use crate::live::LiveView;
use crate::turn::{Runtime, Source};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use muster_bus::{Credentials, Incoming, Outgoing, Peer};
use muster_control::Action;
use muster_control::authorize::Right;
use muster_manager::effect::{BusSignal, Level, Reply, RequestId};
use muster_manager::event::{Event, Origin, Request};
use muster_unit::UnitName;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind, getsockopt, listen, recvmsg, sendmsg, socket, sockopt,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where systemctl finds us.
pub const PRIVATE: &str = "/run/systemd/private";
/// The most clients at a time.
const CLIENTS_MAX: usize = 4096;
/// At most this many bytes are read at once.
const READ_SIZE: usize = 64 * 1024;
/// Time for what a client asked before it went.
const LAST_WORDS_USEC: u64 = 2000;
/// After a shortage of descriptors, the pause before clients are accepted again, in microseconds.
const REST_USEC: u64 = 100_000;

struct Client {
    fd: OwnedFd,
    peer: Peer,
    origin: Origin,
    /// It did not take all that it is owed, and we are told when it takes more.
    slow: bool,
    /// It closed its end: what is left is read, to the end.
    ends: bool,
}

#[derive(Debug)]
struct Pending {
    client: Token,
    origin: Origin,
    message: Incoming,
    /// What polkit granted for this call.
    granted: Option<Right>,
    /// Units are loaded for it, and then it is looked at again.
    retry: bool,
}

/// What was done for a call that is looked at once more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Again {
    /// Units were loaded for it; what is missing after that stays so, or a call could be looked at for ever.
    pub loaded: bool,
    /// What polkit granted.
    pub granted: Option<Right>,
}

/// All clients.
pub struct Clients {
    listener: OwnedFd,
    guid: [u8; 16],
    clients: BTreeMap<Token, Client>,
    pending: BTreeMap<RequestId, Pending>,
    pub(crate) bus: crate::system_bus::SystemBus,
    /// Who keeps which units loaded: a client of ours, or a name on the bus.
    pub(crate) references: Vec<(String, UnitName)>,
    /// What is read goes through here.
    buffer: Vec<u8>,
    /// After a shortage, when clients are accepted again.
    pub(crate) retry_usec: Option<u64>,
    /// Units that changed in this turn and were not told of yet.
    changed_units: BTreeSet<UnitName>,
    /// Units announced in this turn.
    new_units: BTreeSet<UnitName>,
    /// Units that were told of as they are after the event at hand: whatever else it says of them is known.
    told_units: BTreeSet<UnitName>,
}

impl Clients {
    /// Goes on listening on a socket from before a re-execution.
    pub fn go_on(listener: OwnedFd) -> Clients {
        let mut guid = [0_u8; 16];
        let _ = std::fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut guid));
        Clients {
            listener,
            guid,
            clients: BTreeMap::new(),
            pending: BTreeMap::new(),
            bus: Default::default(),
            references: Vec::new(),
            buffer: Vec::new(),
            retry_usec: None,
            changed_units: BTreeSet::new(),
            new_units: BTreeSet::new(),
            told_units: BTreeSet::new(),
        }
    }

    /// Binds the private socket and listens.
    pub fn listen(path: &str) -> std::io::Result<Clients> {
        let fd = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        let _ = std::fs::remove_file(path);
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        nix::sys::stat::fchmodat(
            nix::fcntl::AT_FDCWD,
            path,
            nix::sys::stat::Mode::from_bits_truncate(0o700),
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )?;
        listen(&fd, Backlog::MAXCONN)?;
        // Who waits for the socket with inotify waits for this.
        let _ = std::fs::File::open(path);
        Ok(Clients::go_on(fd))
    }

    /// The next event may change any unit.
    pub(crate) fn forget_told(&mut self) {
        self.told_units.clear();
    }

    pub(crate) fn add(&mut self, token: Token, fd: OwnedFd, peer: Peer, origin: Origin) {
        self.clients.insert(token, Client { fd, peer, origin, slow: false, ends: false });
    }

    /// A client's connection for the next program.
    pub(crate) fn kept(&self, token: Token) -> Option<(i32, muster_bus::KeptPeer)> {
        let client = self.clients.get(&token)?;
        Some((client.fd.as_raw_fd(), client.peer.keep()?))
    }

    /// Calls of a client that wait for the manager.
    pub(crate) fn pending_of(&self, token: Token) -> Vec<crate::bus_hand_over::HandedCall> {
        let theirs = self.pending.values().filter(|pending| pending.client == token);
        let call = |pending: &Pending| crate::bus_hand_over::HandedCall {
            origin: pending.origin.clone(),
            granted: pending.granted,
            message: pending.message.keep(),
        };
        theirs.map(call).collect()
    }

    pub(crate) fn listener_fd(&self) -> i32 {
        self.listener.as_raw_fd()
    }

    /// Writes what clients can take now; gives those that are gone.
    pub fn flush_all(&mut self, registry: &mio::Registry) -> Vec<Token> {
        let mut broken = Vec::new();
        for (token, client) in &mut self.clients {
            if write(client).and_then(|done| client.listen_for_room(!done, *token, registry)).is_err() {
                broken.push(*token);
            }
        }
        broken
    }
}

impl Client {
    /// Asks to be told when the socket takes more, or no longer.
    fn listen_for_room(&mut self, slow: bool, token: Token, registry: &mio::Registry) -> nix::Result<()> {
        if slow == self.slow {
            return Ok(());
        }
        self.slow = slow;
        let interest = if slow { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let done = registry.reregister(&mut SourceFd(&self.fd.as_raw_fd()), token, interest);
        done.map_err(|error| error.raw_os_error().map_or(nix::errno::Errno::EIO, nix::errno::Errno::from_raw))
    }
}

/// Writes until nothing waits (true) or the socket is full.
fn write(client: &mut Client) -> nix::Result<bool> {
    loop {
        let sent = {
            let (bytes, fds) = client.peer.output();
            if bytes.is_empty() {
                return Ok(true);
            }
            let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&raw)];
            let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
            match sendmsg::<()>(
                client.fd.as_raw_fd(),
                &[IoSlice::new(bytes)],
                control,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Ok(sent) => sent,
                Err(nix::errno::Errno::EAGAIN) => return Ok(false),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error),
            }
        };
        client.peer.sent(sent);
    }
}

impl Runtime {
    pub(crate) fn accept_clients(&mut self) {
        self.clients.retry_usec = None;
        for _ in 0..CLIENTS_MAX {
            let raw = match accept4(
                self.clients.listener.as_raw_fd(),
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            ) {
                Ok(raw) => raw,
                Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNABORTED) => continue,
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(error) => {
                    self.clients.retry_usec = Some(clock::monotonic_usec().saturating_add(REST_USEC));
                    return self
                        .note(Level::Warning, &format!("Accepting clients rests for a moment: {error}"));
                }
            };
            let fd = muster_sys::adopt_fd(raw);
            if self.clients.clients.len() >= CLIENTS_MAX {
                self.note(Level::Warning, "Too many clients; one was turned away.");
                continue;
            }
            self.add_client(fd);
        }
    }

    fn add_client(&mut self, fd: OwnedFd) {
        let Ok(found) = getsockopt(&fd, sockopt::PeerCredentials) else { return };
        let credentials = Credentials { uid: found.uid(), gid: found.gid(), pid: found.pid() };
        let pid = u32::try_from(found.pid()).unwrap_or(0);
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .map(|text| text.trim_end().to_owned())
            .unwrap_or_default();
        let mut peer = Peer::server(self.clients.guid, credentials, found.uid() == 0);
        peer.set_sender("org.freedesktop.systemd1");
        let Ok(token) = self.register_raw(fd.as_raw_fd(), Source::Client) else { return };
        let origin = Origin { uid: found.uid(), pid, comm };
        self.clients.clients.insert(token, Client { fd, peer, origin, slow: false, ends: false });
        self.still_ready(token);
    }

    /// Closing is told once, maybe together with what was sent before.
    pub(crate) fn client_ends(&mut self, token: Token) {
        if let Some(client) = self.clients.clients.get_mut(&token) {
            client.ends = true;
        }
    }

    /// Reads what a client sent, and answers.
    pub(crate) fn client_ready(&mut self, token: Token, budget: Budget) {
        let mut buffer = std::mem::take(&mut self.clients.buffer);
        buffer.resize(READ_SIZE, 0);
        let more = self.read_client(token, &mut buffer, budget);
        self.clients.buffer = buffer;
        if more {
            self.still_ready(token);
        }
    }

    /// Reads and answers until nothing is left, the client is gone, or the budget is spent, which is true.
    fn read_client(&mut self, token: Token, buffer: &mut [u8], budget: Budget) -> bool {
        loop {
            // What came before is answered before more is read.
            if !self.client_messages(token, budget) {
                return true;
            }
            let Some(client) = self.clients.clients.get_mut(&token) else { return false };
            let mut control = nix::cmsg_space!([std::os::fd::RawFd; 253]);
            let mut parts = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let (length, fds) =
                match recvmsg::<()>(client.fd.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                    Ok(message) => {
                        let mut fds = Vec::new();
                        for item in message.cmsgs().into_iter().flatten() {
                            if let ControlMessageOwned::ScmRights(found) = item {
                                fds.extend(found.into_iter().map(muster_sys::adopt_fd));
                            }
                        }
                        (message.bytes, fds)
                    }
                    Err(nix::errno::Errno::EAGAIN) => return false,
                    Err(nix::errno::Errno::EINTR) => continue,
                    Err(_) => {
                        self.close_client(token);
                        return false;
                    }
                };
            // Nothing more is there when less came than there was room for, and whatever comes now is an event of its own
            // (epoll(7)). What came with descriptors ends before the next message, though, and an end that was told is no
            // event again.
            let was_all = length < buffer.len() && fds.is_empty() && !client.ends;
            let bytes = buffer.get(..length).unwrap_or(&[]);
            let fed = client.peer.receive(bytes, fds);
            if length == 0 || fed.is_err() {
                // What it asked before it closed still counts.
                self.client_messages(token, Budget::new(LAST_WORDS_USEC));
                self.close_client(token);
                return false;
            }
            if was_all {
                return !self.client_messages(token, budget);
            }
        }
    }

    /// Answers what was read; false when the budget was spent before the end.
    pub(crate) fn client_messages(&mut self, token: Token, budget: Budget) -> bool {
        loop {
            let Some(client) = self.clients.clients.get_mut(&token) else { return true };
            if !client.peer.has_message() {
                return true;
            }
            if budget.is_spent() {
                return false;
            }
            let Some(message) = client.peer.next_message() else { return true };
            if self.clients.bus.token == Some(token) {
                self.bus_message(token, message);
            } else {
                let origin = client.origin.clone();
                self.handle_message(token, &origin, message);
            }
        }
    }

    pub(crate) fn handle_message(&mut self, token: Token, origin: &Origin, message: Incoming) {
        self.handle_again(token, origin, message, Again::default());
    }

    /// The world for one call.
    pub(crate) fn live(&self) -> LiveView<'_> {
        LiveView { cgroups: &self.cgroups, index: &self.index, fds: &self.fds }
    }

    /// Looks at a call, after what was done for it before.
    pub(crate) fn handle_again(&mut self, token: Token, origin: &Origin, message: Incoming, again: Again) {
        let live = self.live();
        let Again { loaded, granted } = again;
        match muster_control::dispatch(&self.manager, &live, origin, granted, &message) {
            Action::Ignore => {}
            Action::Ask(question) => self.ask_polkit(token, message, &question),
            Action::Reply(reply) => drop(self.send(token, &reply)),
            Action::UnitFiles(operation) => self.unit_files(token, message, operation),
            Action::Mount(mounting) => self.mount_into(token, message, mounting),
            Action::Request(request) => {
                self.request(token, origin, message, request, Again { loaded: false, granted });
            }
            Action::RequestThenRetry(request) if !loaded => {
                self.request(token, origin, message, request, Again { loaded: true, granted });
            }
            // It was loaded, and still is not there.
            Action::RequestThenRetry(_) => {
                let refusal = muster_control::error::Refusal::unknown_object(message.path().unwrap_or(""));
                let reply = muster_control::wire::error_to(&message, &refusal);
                self.send(token, &reply);
            }
        }
    }

    fn request(
        &mut self,
        client: Token,
        origin: &Origin,
        mut message: Incoming,
        mut request: Request,
        again: Again,
    ) {
        self.take_stdio(&mut message, &mut request);
        // A unit whose file came after the directories were read is found all the same.
        if names_unit(&request) && self.index.is_outdated() {
            self.index = muster_unit::Index::scan(self.index.path().to_vec());
        }
        let id = self.new_request();
        if let Request::Reference { unit, add } = &request {
            self.note_reference(client, message.sender(), unit, *add);
        }
        if let Request::StartTransient { units, .. } = &request {
            for unit in units.iter().filter(|unit| unit.reference) {
                self.note_reference(client, message.sender(), &unit.name, true);
            }
        }
        let Again { loaded: retry, granted } = again;
        self.clients.pending.insert(id, Pending { client, origin: origin.clone(), message, granted, retry });
        self.deliver(Event::Requested { id, origin: origin.clone(), request });
    }

    /// Descriptors of a message that a new unit shall have for standard input and output become ours, with numbers of ours.
    fn take_stdio(&mut self, message: &mut Incoming, request: &mut Request) {
        let Request::StartTransient { units, .. } = request else { return };
        let given = message.take_fds();
        for stdio in units.iter_mut().map(|unit| &mut unit.stdio) {
            // A number may be named twice, so each is a copy.
            let copy = |index: &muster_manager::effect::FdId| {
                given.get(usize::try_from(index.0).ok()?)?.try_clone().ok()
            };
            let taken = std::mem::take(stdio).into_iter();
            *stdio =
                taken.filter_map(|(number, index)| Some((number, self.fds.insert(copy(&index)?)))).collect();
        }
        given.into_iter().for_each(|fd| self.close_foreign(fd));
    }

    fn note_reference(&mut self, client: Token, sender: Option<&str>, unit: &UnitName, add: bool) {
        let holder = match sender {
            Some(name) if self.clients.bus.token == Some(client) => name.to_owned(),
            _ => client_name(client),
        };
        let held = (holder, unit.clone());
        if add {
            self.clients.references.push(held);
        } else if let Some(at) = self.clients.references.iter().position(|known| *known == held) {
            self.clients.references.swap_remove(at);
        }
    }

    /// Lets go of what a client that is gone kept loaded.
    pub(crate) fn release_references(&mut self, gone: impl Fn(&str) -> bool) {
        let (released, kept) =
            std::mem::take(&mut self.clients.references).into_iter().partition(|(holder, _)| gone(holder));
        self.clients.references = kept;
        let released: Vec<(String, UnitName)> = released;
        for (_, unit) in released {
            let id = self.new_request();
            self.deliver(Event::Requested {
                id,
                origin: Origin::default(),
                request: Request::Reference { unit, add: false },
            });
        }
    }

    /// The manager's answer to a request.
    pub(crate) fn reply(&mut self, id: RequestId, reply: &Reply) {
        if self.activation_answered(id, reply) {
            return;
        }
        let Some(pending) = self.clients.pending.remove(&id) else { return };
        if pending.retry && matches!(reply, Reply::Done | Reply::Unit(_)) {
            let again = Again { loaded: pending.retry, granted: pending.granted };
            return self.handle_again(pending.client, &pending.origin, pending.message, again);
        }
        if !pending.message.no_reply_expected() {
            let answer = muster_control::reply(&pending.message, reply);
            self.send(pending.client, &answer);
        }
    }

    /// Tells every client. Changes of one unit within a turn are told once, at its end; before that only where a client
    /// acts on the news of a job, or the unit goes.
    pub(crate) fn announce(&mut self, signal: &BusSignal) {
        self.follow_bus_service(signal);
        match signal {
            BusSignal::UnitChanged { unit } => {
                // Who hears of a new unit looks at it after this turn.
                if !self.clients.new_units.contains(unit) && !self.clients.told_units.contains(unit) {
                    self.clients.changed_units.insert(unit.clone());
                }
                return;
            }
            BusSignal::RequestStop { .. } => {
                if let Some(token) = self.clients.bus.token {
                    let messages = muster_control::signals(&self.manager, &self.live(), signal);
                    for message in &messages {
                        self.send(token, message);
                    }
                }
                return;
            }
            BusSignal::UnitNew { unit } => {
                self.clients.new_units.insert(unit.clone());
            }
            BusSignal::JobRemoved { unit, job, result } => {
                self.activation_ended(*job, *result);
                if let Some(unit) = self.clients.changed_units.take(unit) {
                    self.clients.told_units.insert(unit.clone());
                    self.tell(&BusSignal::UnitChanged { unit });
                }
            }
            _ => {}
        }
        self.tell(signal);
    }

    /// Tells what changed since the last time. Comes before units may be unloaded.
    pub(crate) fn announce_changes(&mut self) {
        for unit in std::mem::take(&mut self.clients.changed_units) {
            self.tell(&BusSignal::UnitChanged { unit });
        }
    }

    /// The end of a turn, for announcements.
    pub(crate) fn end_announcements(&mut self) {
        self.announce_changes();
        self.clients.new_units.clear();
    }

    fn tell(&mut self, signal: &BusSignal) {
        let silent = self.clients.bus.token.filter(|_| !self.clients.bus.wants_signals());
        let listens = |token: Token, client: &Client| client.peer.is_ready() && silent != Some(token);
        let clients = self.clients.clients.iter();
        let tokens: Vec<Token> =
            clients.filter(|(token, client)| listens(**token, client)).map(|(token, _)| *token).collect();
        if tokens.is_empty() {
            return;
        }
        let live = self.live();
        let messages = muster_control::signals(&self.manager, &live, signal);
        for token in tokens {
            for message in &messages {
                self.send(token, message);
            }
        }
    }

    /// Queues a message; its serial. A client that takes no more is closed.
    pub(crate) fn send(&mut self, token: Token, message: &Outgoing) -> Option<u32> {
        let client = self.clients.clients.get_mut(&token)?;
        let sent = client.peer.send(message).ok();
        if sent.is_none() {
            self.close_client(token);
        }
        sent
    }

    /// Writes to all who are owed something; closes who is gone.
    pub(crate) fn clients_write(&mut self) {
        for token in self.clients.flush_all(self.poll.registry()) {
            self.close_client(token);
        }
    }

    pub(crate) fn close_client(&mut self, token: Token) {
        if let Some(mut client) = self.clients.clients.remove(&token) {
            let _ = write(&mut client);
            self.deregister(token, client.fd.as_fd());
        }
        if self.clients.bus.token == Some(token) {
            self.clients.bus.forget();
            self.release_references(|holder| holder.starts_with(':'));
        } else {
            let name = client_name(token);
            self.release_references(|holder| holder == name);
        }
    }
}

/// Whether carrying the request out may load a unit.
fn names_unit(request: &Request) -> bool {
    matches!(
        request,
        Request::EnqueueJob { .. }
            | Request::LoadUnit { .. }
            | Request::LoadUnits { .. }
            | Request::StartTransient { .. }
            | Request::SetProperties { .. }
    )
}

/// How a client of the private socket is named among holders of references.
fn client_name(token: Token) -> String {
    format!("private {}", token.0)
}
