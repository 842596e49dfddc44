//! Opening the sockets of a unit: owners found, descriptors taken into the table, the answer to the manager.
//!
//! Users and groups of the local files are found at once. Those of a directory service may take long, so the executor looks
//! them up, and the opening goes on when it has answered.
//!
//! Addresses whose paths lead to a file system that could hang are opened by a helper: this program again, as
//! `muster --open-sockets`. The work comes on its standard input and the outcome goes to its standard output, each a value
//! in memory that is a file (memfd); the descriptors come through a socket, which takes the place of standard error. What
//! must stay true: PID 1 walks only paths that are its own (`local`), and who has given up on an opening hears no more of it.

use crate::local;
use crate::processes::{Helper, send_signal_to_child};
use crate::turn::{Runtime, Source};
use muster_exec::pass::memory;
use muster_manager::effect::{FdId, Level, LogRecord, Network};
use muster_manager::event::{Event, OpenError, OpenedSocket};
use muster_socket::{Function, Opened, OpenedSocket as Socket, Owner, Role, Surroundings};
use muster_unit::setting::Account;
use muster_unit::{SocketSection, UnitName};
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode};
use std::rc::Rc;

/// The argument that makes this program the helper.
pub const ARGUMENT: &str = "--open-sockets";
/// The kernel passes at most this many descriptors with one message (unix(7)).
const FDS_A_MESSAGE: usize = 253;

/// What a helper is to open.
#[derive(Debug, Serialize, Deserialize)]
struct Work<'a> {
    config: Cow<'a, SocketSection>,
    surroundings: Surroundings,
    keep: Vec<u32>,
    /// Whether a pair of sockets comes, which holds the network namespace to bind them in.
    joins: bool,
    /// The path of that namespace.
    enters: Option<String>,
}

/// What it opened: listen index and role of each descriptor, which is new or not, and warnings; or why it did not.
type Outcome = Result<(Vec<(u32, Role, bool)>, Vec<String>), String>;

/// What is asked for.
#[derive(Debug)]
pub struct Opening {
    /// The unit whose sockets are opened.
    pub unit: UnitName,
    /// The unit's section.
    pub config: Rc<SocketSection>,
    /// Descriptors that serve on, by listen index.
    pub keep: Vec<(u32, FdId)>,
    /// Files of the service's USB function.
    pub function: Option<(String, String)>,
    /// The network namespace to bind them in.
    pub network: Option<Network>,
}

impl Runtime {
    pub(crate) fn open_sockets(&mut self, opening: Opening) {
        match local_owner(&opening.config) {
            Some(owner) => self.open_sockets_for(opening, owner),
            None => self.look_owner_up(opening),
        }
    }

    /// The executor answers with two numbers.
    fn look_owner_up(&mut self, opening: Opening) {
        let name =
            |account: &Option<Account>| account.as_ref().map_or(String::new(), |account| account.0.clone());
        let (user, group) = (name(opening.config.socket_user()), name(opening.config.socket_group()));
        let executor = self.executor.clone();
        let unit = opening.unit.clone();
        let arguments = ["--lookup", user.as_str(), group.as_str()];
        if !self.run_asking_helper(&executor, &arguments, |answer| Helper::Owner { opening, answer }) {
            self.not_opened(unit, "the lookup of SocketUser= and SocketGroup= could not be started", true);
        }
    }

    /// The executor has answered.
    pub(crate) fn owner_found(&mut self, opening: Opening, answer: &str) {
        let number = |word: &str| word.parse::<u32>().ok();
        match answer.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["owner", uid, gid] => {
                self.open_sockets_for(opening, Owner { uid: number(uid), gid: number(gid) });
            }
            _ => {
                let why =
                    if answer.is_empty() { "the lookup of its owner gave no answer" } else { answer.trim() };
                self.not_opened(opening.unit, why, true);
            }
        }
        self.work_off();
    }

    fn open_sockets_for(&mut self, mut opening: Opening, owner: Owner) {
        self.take_found(&opening.config, &mut opening.keep);
        let function = opening.function.take();
        let function = function.map(|(descriptors, strings)| Function { descriptors, strings });
        let surroundings = Surroundings { owner, function };
        let keep: Vec<u32> = opening.keep.iter().map(|(index, _)| *index).collect();
        if opening.network.is_none() && is_near(&opening.config, &surroundings, &keep) {
            let opened = muster_socket::open(&opening.config, &surroundings, &keep);
            return self.opened(opening, opened);
        }
        let unit = opening.unit.clone();
        if let Err(error) = self.open_elsewhere(opening, surroundings, keep) {
            self.not_opened(
                unit,
                &format!("a helper that opens its sockets could not be started: {error}"),
                false,
            );
        }
    }

    fn open_elsewhere(
        &mut self,
        opening: Opening,
        surroundings: Surroundings,
        keep: Vec<u32>,
    ) -> std::io::Result<()> {
        let (mut input, answer) = (memory(c"muster-sockets")?, memory(c"muster-sockets")?);
        let (shared, enters) = match &opening.network {
            Some(Network::Shared(shared)) => (Some(shared), None),
            Some(Network::At(path)) => (None, Some(path.clone())),
            None => (None, None),
        };
        if let Some(shared) = shared {
            self.shares.prepare(shared)?;
        }
        let config = Cow::Borrowed(&*opening.config);
        let work = Work { config, surroundings, keep, joins: shared.is_some(), enters };
        let mut bytes = Vec::new();
        ciborium::into_writer(&work, &mut bytes).map_err(std::io::Error::other)?;
        input.write_all(&bytes)?;
        input.rewind()?;
        let (sockets, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        if let [Some(pair), ..] = self.shares.pairs(shared) {
            let pair = pair.map(|fd| fd.as_raw_fd());
            pass(sockets.as_raw_fd(), &pair)?;
        }
        let mut command = Command::new(&self.program);
        command.arg(ARGUMENT).stdin(input).stdout(answer.try_clone()?).stderr(theirs).current_dir("/");
        let pid = command.spawn()?.id();
        self.processes.add_helper(pid, Helper::Opener { opening, answer, sockets });
        Ok(())
    }

    /// The helper ended.
    pub(crate) fn opener_ended(&mut self, opening: Opening, mut answer: File, sockets: &OwnedFd) {
        let said: Option<Outcome> = answer.rewind().ok().and_then(|()| ciborium::from_reader(answer).ok());
        let opened = said
            .unwrap_or_else(|| Err("the helper that opens its sockets ended without an answer".to_owned()))
            .and_then(|(sockets_said, mut warnings)| {
                let mut fds = received(sockets.as_raw_fd()).into_iter();
                let sockets = sockets_said.into_iter().map(|(listen_index, role, is_new)| {
                    let fd = if is_new { Some(fds.next()?) } else { None };
                    if let (Some(fd), Role::Connections) = (&fd, role) {
                        // It listens already, and serves; who is seen at the far end is all that depends on this.
                        if let Err(error) = muster_socket::take_over(&opening.config, fd.as_fd()) {
                            warnings.push(format!("a helper that is gone is seen at the far end: {error}"));
                        }
                    }
                    Some(Socket { listen_index, fd, role })
                });
                let sockets: Option<Vec<Socket>> = sockets.collect();
                let sockets = sockets.ok_or("the helper that opens its sockets gave too few of them")?;
                Ok(Opened { sockets, warnings })
            });
        self.opened(opening, opened);
        self.work_off();
    }

    /// Nobody waits for it any more: a helper that works for the unit goes, and an answer on its way is dropped.
    pub(crate) fn stop_opening(&mut self, unit: &UnitName) {
        if let Some((pid, helper)) = self.processes.give_up_opener(unit) {
            send_signal_to_child(pid, nix::libc::SIGKILL);
            if let Helper::Opener { sockets, .. } = helper {
                // With it go descriptors that nobody took.
                self.closing.add(sockets);
            }
        }
        for event in std::mem::take(&mut self.follow_up) {
            match event {
                Event::SocketsOpened { unit: of, result } if of == *unit => {
                    let fresh = result.into_iter().flatten().filter(|socket| !socket.kept);
                    let fresh: Vec<FdId> = fresh.map(|socket| socket.fd).collect();
                    self.close_fds(&fresh);
                }
                other => self.follow_up.push_back(other),
            }
        }
    }

    fn opened(&mut self, opening: Opening, result: Result<Opened, String>) {
        let Opening { unit, config, keep, .. } = opening;
        let of_kept = |index: u32| keep.iter().find(|(at, _)| *at == index).map(|(_, id)| *id);
        let result = result.and_then(|opened| {
            let watched = opened.sockets.iter().filter(|socket| socket.role != Role::Companion);
            for fd in watched.filter_map(|socket| socket.fd.as_ref()) {
                self.can_be_watched(fd.as_raw_fd())?;
            }
            Ok(opened)
        });
        let opened = match result {
            Ok(opened) => opened,
            Err(why) => return self.not_opened(unit, &why, false),
        };
        let renewed =
            keep.iter().filter_map(|(_, id)| Some(muster_socket::renew(&config, self.fds.get(*id)?)));
        let warnings: Vec<String> = renewed.flatten().chain(opened.warnings).collect();
        for warning in warnings {
            self.warn_of(&unit, &warning);
        }
        let sockets = opened.sockets.into_iter().filter_map(|socket| {
            let listen_index = socket.listen_index;
            let kept = socket.fd.is_none();
            let fd = match socket.fd {
                Some(fd) => self.fds.insert(fd),
                None => of_kept(listen_index)?,
            };
            let connection_based = socket.role == Role::Connections;
            let companion = socket.role == Role::Companion;
            Some(OpenedSocket { fd, listen_index, connection_based, companion, kept })
        });
        let result = Ok(sockets.collect());
        self.follow_up.push_back(Event::SocketsOpened { unit, result });
    }

    /// Sockets that a program before this one listened on, found by their address.
    fn take_found(&mut self, config: &SocketSection, keep: &mut Vec<(u32, FdId)>) {
        for (index, listen) in (0_u32..).zip(config.listen()) {
            let serves = |fd: &std::os::fd::OwnedFd| muster_socket::serves(listen, fd);
            let at = self.found.iter().position(serves);
            if let (Some(at), false) = (at, keep.iter().any(|(known, _)| *known == index)) {
                let fd = self.found.swap_remove(at);
                keep.push((index, self.fds.insert(fd)));
            }
        }
    }

    fn not_opened(&mut self, unit: UnitName, why: &str, no_owner: bool) {
        let message = self.with_place(&unit, why);
        self.follow_up.push_back(Event::SocketsOpened { unit, result: Err(OpenError { message, no_owner }) });
    }

    /// A complaint that begins with a directive, with file and line before it. What the kernel refuses was understood long
    /// before, so the line is looked for again: the one whose value the complaint quotes, or the only one.
    fn with_place(&self, unit: &UnitName, complaint: &str) -> String {
        let found = || {
            let key = complaint.split_once('=')?.0;
            let files = self.manager.unit(unit)?.file.stamps.iter().map(|(path, _)| path);
            let lines: Vec<(&String, u32, String)> = files
                .filter_map(|path| Some((path, muster_unit::index::read_unit_file(path).ok()?)))
                .flat_map(|(path, text)| {
                    let lines = muster_unit::lexer::assignments(&text, "Socket", key).into_iter();
                    lines.map(move |(line, value)| (path, line, value))
                })
                .collect();
            let quoted =
                |(_, _, value): &&(&String, u32, String)| !value.is_empty() && complaint.contains(value);
            let only = if let [only] = lines.as_slice() { Some(only) } else { None };
            lines.iter().rfind(quoted).or(only).map(|(path, line, _)| format!("{path}:{line}: "))
        };
        found().unwrap_or_default() + complaint
    }

    /// Not every file can be: epoll_ctl(2) refuses plain ones.
    fn can_be_watched(&mut self, raw: i32) -> Result<(), String> {
        let token = self
            .register_raw(raw, Source::Nothing)
            .map_err(|error| format!("it cannot be watched: {error}"))?;
        let _ = self.poll.registry().deregister(&mut mio::unix::SourceFd(&raw));
        self.forget(token);
        Ok(())
    }

    /// A warning about a unit.
    pub(crate) fn warn_of(&mut self, unit: &UnitName, warning: &str) {
        let warning = self.with_place(unit, warning);
        self.write_log(&LogRecord {
            level: Level::Warning,
            unit: Some(unit.clone()),
            message: format!("{unit}: {warning}"),
            fields: Vec::new(),
        });
    }
}

/// Whether PID 1 may open the addresses itself.
fn is_near(config: &SocketSection, surroundings: &Surroundings, keep: &[u32]) -> bool {
    let new = (0_u32..).zip(config.listen()).filter(|(index, _)| !keep.contains(index));
    let mut paths = new.flat_map(|(_, listen)| muster_socket::paths_of(listen, surroundings));
    paths.all(local::is_ours) && config.symlinks().iter().all(|link| local::is_ours(&link.0))
}

/// Passes descriptors, at most [`FDS_A_MESSAGE`].
fn pass(socket: RawFd, fds: &[RawFd]) -> nix::Result<()> {
    let parts = [ControlMessage::ScmRights(fds)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket, &[IoSlice::new(b"s")], &parts, flags, None).map(drop)
}

/// Goes to the network namespace of the unit.
fn enter(joins: bool, path: Option<&str>) -> Result<(), String> {
    let pair: Option<[OwnedFd; 2]> = if joins { received(2).try_into().ok() } else { None };
    let entered = muster_exec::steps::namespaces::enter_network(path, pair.as_ref());
    let directive = if joins { "PrivateNetwork=" } else { "NetworkNamespacePath=" };
    entered.map_err(|error| format!("{directive} could not be had: {}", error.desc()))
}

/// The descriptors that came through a socket, in order.
fn received(socket: RawFd) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    loop {
        let mut control = cmsg_space!([RawFd; FDS_A_MESSAGE]);
        let mut byte = [0_u8; 1];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let Ok(message) = recvmsg::<()>(socket, &mut parts, Some(&mut control), flags) else {
            return all;
        };
        let before = all.len();
        for part in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(fds) = part {
                all.extend(fds.into_iter().map(muster_sys::adopt_fd));
            }
        }
        if all.len() == before {
            return all;
        }
    }
}

/// The helper itself.
pub fn run() -> ExitCode {
    let Ok(Work { config, surroundings, keep, joins, enters }) =
        ciborium::from_reader(std::io::stdin().lock())
    else {
        return ExitCode::FAILURE;
    };
    let entered = if joins || enters.is_some() { enter(joins, enters.as_deref()) } else { Ok(()) };
    let outcome: Outcome =
        entered.and_then(|()| muster_socket::open(&config, &surroundings, &keep)).and_then(|opened| {
            let said =
                opened.sockets.iter().map(|socket| (socket.listen_index, socket.role, socket.fd.is_some()));
            let said = said.collect();
            let fds: Vec<RawFd> =
                opened.sockets.iter().filter_map(|socket| Some(socket.fd.as_ref()?.as_raw_fd())).collect();
            for batch in fds.chunks(FDS_A_MESSAGE) {
                pass(2, batch)
                    .map_err(|error| format!("its descriptors could not be passed: {}", error.desc()))?;
            }
            Ok((said, opened.warnings))
        });
    match ciborium::into_writer(&outcome, std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The owner, if the local files know it: numbers as they are, names of /etc/passwd and /etc/group. A user alone brings the
/// group of its login.
fn local_owner(section: &SocketSection) -> Option<Owner> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut owner = Owner::default();
    if let Some(user) = &section.socket_user() {
        let entry = database_entry(&read("/etc/passwd"), user);
        let number = |at: usize| entry.as_ref().and_then(|fields| fields.get(at)?.parse::<u32>().ok());
        owner.uid = Some(number(2).or_else(|| user.parse().ok())?);
        owner.gid = number(3);
    }
    if let Some(group) = &section.socket_group() {
        let entry = database_entry(&read("/etc/group"), group);
        let number = entry.and_then(|fields| fields.get(2)?.parse::<u32>().ok());
        owner.gid = Some(number.or_else(|| group.parse().ok())?);
    }
    Some(owner)
}

/// The fields of a line whose name or number is the wanted one.
fn database_entry(text: &str, wanted: &str) -> Option<Vec<String>> {
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|fields| fields.first() == Some(&wanted) || fields.get(2) == Some(&wanted));
    found.map(|fields| fields.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:7::/:/bin/false\n";
        let of = |wanted| database_entry(passwd, wanted).map(|fields| fields.join(","));
        assert_eq!(of("daemon").as_deref(), Some("daemon,x,1,7,,/,/bin/false"));
        assert_eq!(of("0").as_deref(), Some("root,x,0,0,root,/root,/bin/sh"));
        assert_eq!(of("nobody"), None);
    }
}
