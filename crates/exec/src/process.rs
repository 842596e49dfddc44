//! What the steps of one start share: the environment as it grows, who the process becomes, which descriptors it has.

use crate::environment::Environment;
use crate::steps::identity::User;
use crate::steps::program::Program;
use crate::{Context, FIRST_FD};
use nix::fcntl::{FcntlArg, fcntl};
use std::os::fd::OwnedFd;

/// The process that is being prepared, in the executor.
#[derive(Debug)]
pub struct Process {
    /// The environment of the program.
    pub environment: Environment,
    /// `User=`, looked up.
    pub user: Option<User>,
    /// `Group=`, looked up, or the user's own.
    pub gid: Option<u32>,
    /// Numbers of the passed descriptors as they are now: those with a name, the connection, what a client gave.
    pub fds: Vec<i32>,
    /// The connection.
    pub socket: Option<i32>,
    /// Files of `OpenFile=`, with their names.
    pub opened: Vec<(OwnedFd, String)>,
    /// The pairs that hold the network and the IPC namespace of the unit, and locks of copies of its root.
    pub pairs: [Option<[OwnedFd; 2]>; 3],
    /// The user namespace that it is to enter.
    pub users: Option<OwnedFd>,
    /// The `cgroup.procs` that it is to write itself into, later.
    pub cgroup: Option<OwnedFd>,
    /// A PAM session that nobody is to close yet.
    pub session: Option<crate::steps::pam::Session>,
    /// The program, made ready for execve(2).
    pub program: Option<Program>,
    report: OwnedFd,
}

impl Process {
    /// At its beginning. PID 1 hears of it over `report`.
    pub fn new(context: &Context<'_>, report: OwnedFd) -> Process {
        let names = context.fd_names.len();
        let before =
            names.saturating_add(usize::from(context.has_socket)).saturating_add(context.stdio.len());
        let before = FIRST_FD.saturating_add(i32::try_from(before).unwrap_or(0));
        let mut end = before;
        let pairs = context.has_pairs.map(|is_there| {
            let first = end;
            end = end.saturating_add(if is_there { 2 } else { 0 });
            is_there.then(|| pair(first)).flatten()
        });
        let fds: Vec<i32> = (FIRST_FD..end).collect();
        let socket = if context.has_socket { fds.get(names).copied() } else { None };
        Process {
            environment: Environment::new(),
            user: None,
            gid: None,
            fds,
            socket,
            opened: Vec::new(),
            pairs,
            users: None,
            cgroup: None,
            session: None,
            program: None,
            report,
        }
    }

    /// User and group that files of this process get; root's where none is said.
    pub fn owner(&self) -> (u32, u32) {
        (self.user.as_ref().map_or(0, |user| user.uid), self.gid.unwrap_or(0))
    }

    /// Sends a line to PID 1.
    pub fn tell(&self, text: &str) {
        crate::tell(&self.report, text);
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// A copy of a descriptor that this process was started with.
    pub fn copy(number: i32) -> nix::Result<OwnedFd> {
        fcntl(muster_sys::borrow_fd(number), FcntlArg::F_DUPFD_CLOEXEC(FIRST_FD)).map(muster_sys::adopt_fd)
    }
}

/// A pair that begins at a number, out of the way of what the service gets.
fn pair(first: i32) -> Option<[OwnedFd; 2]> {
    let copy = |number| {
        let number = muster_sys::borrow_fd(number);
        fcntl(number, FcntlArg::F_DUPFD_CLOEXEC(512)).map(muster_sys::adopt_fd).ok()
    };
    Some([copy(first)?, copy(first.saturating_add(1))?])
}
