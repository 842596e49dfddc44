//! The plan: all that the executor needs, as one serializable value (CBOR in a memfd).

use crate::Request;
use muster_unit::{ExecCommand, ExecSection, OpenFile, Refresh};
use serde::{Deserialize, Serialize};

/// Everything for one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The unit's name.
    pub unit: String,
    /// The command.
    pub command: ExecCommand,
    /// The context.
    pub exec: ExecSection,
    /// The manager's environment.
    pub base_environment: Vec<String>,
    /// Variables that override all others.
    pub own_environment: Vec<String>,
    /// Names of the passed descriptors, in order.
    pub fd_names: Vec<String>,
    /// A connection follows the passed descriptors.
    pub has_socket: bool,
    /// Which of standard input, output and error follow after that.
    pub stdio: Vec<i32>,
    /// Set `WATCHDOG_PID`.
    pub set_watchdog_pid: bool,
    /// Make directories.
    pub make_directories: bool,
    /// The context follows the peer of the one socket.
    pub context_from_peer: bool,
    /// A directory that is made first, and its mode.
    pub place: Option<(String, u32)>,
    /// `TERM` of the console, as PID 1 was told.
    pub console_term: Option<String>,
    /// Passed descriptors become non-blocking.
    pub non_blocking: bool,
    /// The executor enters the unit's cgroup by itself, by the `cgroup.procs` that comes as the last descriptor.
    pub enters_cgroup: bool,
    /// Read credentials anew.
    pub fresh_credentials: bool,
    /// Files to open.
    pub open_files: Vec<OpenFile>,
    /// What the directories of `PrivateTmp=` are called.
    pub private_tmp: Option<String>,
    /// The pairs that hold the network and the IPC namespace and copies of roots come after all descriptors but the last.
    pub has_pairs: [bool; 3],
    /// Nothing is executed: this is made anew for the main process, whose mount namespace is the last of the named descriptors,
    /// if it has one.
    pub refresh: Option<Refresh>,
}

impl Plan {
    /// The plan of a request.
    pub fn of(request: &Request<'_>) -> Plan {
        Plan {
            unit: request.unit.to_owned(),
            command: request.command.clone(),
            exec: request.exec.clone(),
            base_environment: crate::environment::base(request.base_environment, request.exec),
            own_environment: request.own_environment.to_vec(),
            fd_names: request.fds.iter().map(|(_, name)| name.clone()).collect(),
            has_socket: request.stdio_socket.is_some(),
            stdio: request.stdio.iter().filter_map(|(number, _)| i32::try_from(*number).ok()).collect(),
            set_watchdog_pid: request.set_watchdog_pid,
            make_directories: request.make_directories,
            context_from_peer: request.context_from_peer,
            place: request.place.map(|(path, mode)| (path.to_owned(), mode)),
            console_term: std::env::var("TERM").ok(),
            non_blocking: request.non_blocking,
            enters_cgroup: request.cgroup_dir.is_some()
                && (request.limited_memory || crate::steps::cgroup::is_late(request.exec)),
            fresh_credentials: request.fresh_credentials,
            open_files: request.open_files.to_vec(),
            private_tmp: request.private_tmp.map(str::to_owned),
            has_pairs: request.has_pairs(),
            refresh: request.refresh,
        }
    }
}
