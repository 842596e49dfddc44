//! Opening the sockets of a unit: owners found, descriptors taken into the table, the answer to the manager.
//!
//! Users and groups of the local files are found at once. Those of a directory service may take long, so the executor looks
//! them up, and the opening goes on when it has answered.

use crate::processes::Helper;
use crate::turn::{Runtime, Source};
use muster_manager::effect::{FdId, Level, LogRecord};
use muster_manager::event::{Event, OpenError, OpenedSocket};
use muster_socket::{Function, Owner, Role, Surroundings};
use muster_unit::setting::Account;
use muster_unit::{SocketSection, UnitName};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

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

    fn open_sockets_for(&mut self, opening: Opening, owner: Owner) {
        let Opening { unit, config, mut keep, function } = opening;
        self.take_found(&config, &mut keep);
        let kept: Vec<(u32, BorrowedFd<'_>)> =
            keep.iter().filter_map(|(index, id)| Some((*index, self.fds.get(*id)?))).collect();
        let function = function.map(|(descriptors, strings)| Function { descriptors, strings });
        let opened = muster_socket::open(&config, &Surroundings { owner, function }, &kept);
        let result = opened.and_then(|opened| {
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
        for warning in opened.warnings {
            self.warn_of(&unit, &warning);
        }
        let of_kept = |index: u32| keep.iter().find(|(at, _)| *at == index).map(|(_, id)| *id);
        let sockets = opened.sockets.into_iter().filter_map(|socket| {
            let listen_index = socket.listen_index;
            let fd = match socket.fd {
                Some(fd) => self.fds.insert(fd),
                None => of_kept(listen_index)?,
            };
            let connection_based = socket.role == Role::Connections;
            let companion = socket.role == Role::Companion;
            Some(OpenedSocket { fd, listen_index, connection_based, companion })
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
