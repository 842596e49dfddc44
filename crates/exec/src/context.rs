//! The typed context of one process, as the steps see it: borrowed from a request in PID 1, from a plan in the executor.

use crate::{Plan, Request};
use muster_unit::{ExecCommand, ExecSection, OpenFile, Privilege, Refresh};

/// Everything that is known of a process before it is started.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The unit's name.
    pub unit: &'a str,
    /// The command.
    pub command: &'a ExecCommand,
    /// The settings.
    pub exec: &'a ExecSection,
    /// The manager's environment.
    pub base_environment: &'a [String],
    /// Assignments for this process, which win.
    pub own_environment: &'a [String],
    /// Names of the passed descriptors, in order.
    pub fd_names: Vec<&'a str>,
    /// A connection follows the passed descriptors.
    pub has_socket: bool,
    /// Which of standard input, output and error follow after that.
    pub stdio: Vec<i32>,
    /// Set `WATCHDOG_PID`.
    pub set_watchdog_pid: bool,
    /// Make `RuntimeDirectory=` and kin.
    pub make_directories: bool,
    /// `SELinuxContextFromNet=`.
    pub context_from_peer: bool,
    /// A directory that is made first, and its mode.
    pub place: Option<(&'a str, u32)>,
    /// `TERM` of the console, in the executor.
    pub console_term: Option<&'a str>,
    /// `NonBlocking=`.
    pub non_blocking: bool,
    /// Read credentials anew, though there may be some.
    pub fresh_credentials: bool,
    /// `OpenFile=`.
    pub open_files: &'a [OpenFile],
    /// What the directories of `PrivateTmp=` are called on the host.
    pub private_tmp: Option<&'a str>,
    /// The pairs that hold the network and the IPC namespace and copies of roots follow after that.
    pub has_pairs: [bool; 3],
    /// Nothing is executed: this is made anew for the main process, whose mount namespace is the last of the named descriptors,
    /// if it has one.
    pub refresh: Option<Refresh>,
}

impl<'a> Context<'a> {
    /// The context of a request.
    pub fn of_request(request: &'a Request<'_>) -> Context<'a> {
        Context {
            unit: request.unit,
            command: request.command,
            exec: request.exec,
            base_environment: request.base_environment,
            own_environment: request.own_environment,
            fd_names: request.fds.iter().map(|(_, name)| name.as_str()).collect(),
            has_socket: request.stdio_socket.is_some(),
            stdio: request.stdio.iter().filter_map(|(number, _)| i32::try_from(*number).ok()).collect(),
            set_watchdog_pid: request.set_watchdog_pid,
            make_directories: request.make_directories,
            context_from_peer: request.context_from_peer,
            place: request.place,
            console_term: None,
            non_blocking: request.non_blocking,
            fresh_credentials: request.fresh_credentials,
            open_files: request.open_files,
            private_tmp: request.private_tmp,
            has_pairs: request.has_pairs(),
            refresh: request.refresh,
        }
    }

    /// The context of a plan.
    pub fn of_plan(plan: &'a Plan) -> Context<'a> {
        Context {
            unit: &plan.unit,
            command: &plan.command,
            exec: &plan.exec,
            base_environment: &plan.base_environment,
            own_environment: &plan.own_environment,
            fd_names: plan.fd_names.iter().map(String::as_str).collect(),
            has_socket: plan.has_socket,
            stdio: plan.stdio.clone(),
            set_watchdog_pid: plan.set_watchdog_pid,
            make_directories: plan.make_directories,
            context_from_peer: plan.context_from_peer,
            place: plan.place.as_ref().map(|(path, mode)| (path.as_str(), *mode)),
            console_term: plan.console_term.as_deref(),
            non_blocking: plan.non_blocking,
            fresh_credentials: plan.fresh_credentials,
            open_files: &plan.open_files,
            private_tmp: plan.private_tmp.as_deref(),
            has_pairs: plan.has_pairs,
            refresh: plan.refresh,
        }
    }

    /// Whether the unit's confinement holds for this command: not with the prefix `+` (systemd.service(5)).
    pub fn is_confined(&self) -> bool {
        self.command.privilege != Privilege::Full
    }

    /// Whether user, group and capabilities of the unit are given to this command: not with `+` and `!`.
    pub fn changes_identity(&self) -> bool {
        matches!(self.command.privilege, Privilege::Normal | Privilege::NoSetuidIfAmbient)
    }
}
