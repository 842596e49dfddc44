//! Processes: started by the executor, whose numbers are theirs until we reap them, and our own helpers, which do what may block.

use crate::turn::{Runtime, Source};
use mio::Token;
use muster_exec::Report;
use muster_manager::effect::{Level, QueryId, Spawn, SpawnId};
use muster_manager::event::{Event, Exit, PidFileFound};
use muster_unit::UnitName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};

#[derive(Debug)]
struct Started {
    report: Option<(Token, OwnedFd)>,
    /// Memory of ours that it runs on until it executes.
    shared: Option<muster_sys::Shared>,
    /// What it is to become, for the case that it cannot.
    program: String,
    wants_exec: bool,
}

/// What a helper of ours is for.
#[derive(Debug)]
pub enum Helper {
    /// Generators run; then unit files are read anew.
    Generators,
    /// Who is to own the nodes of a socket unit; it writes its answer to a pipe.
    Owner {
        /// What goes on with the answer.
        opening: crate::opening::Opening,
        /// The pipe with the answer.
        answer: std::io::PipeReader,
    },
    /// It opens the sockets of a unit: what was asked for, where its answer will be, and where the descriptors come.
    #[allow(missing_docs)]
    Opener { opening: crate::opening::Opening, answer: std::fs::File, sockets: OwnedFd },
    /// It works on files, for whoever asked.
    Clerk {
        /// The errand of the helper.
        errand: crate::errand::Errand,
        /// Where its answer will be.
        answer: std::fs::File,
    },
    /// It reads a PID file, and writes what it says to a pipe.
    #[allow(missing_docs)]
    PidFile { unit: UnitName, path: String, answer: std::io::PipeReader },
    /// It removes directories, and writes what it could not remove to a pipe.
    #[allow(missing_docs)]
    Remover { query: Option<QueryId>, answer: std::io::PipeReader },
    /// It mounts something for a client, and writes why it could not to a pipe.
    #[allow(missing_docs)]
    Mounter {
        asker: Box<(mio::Token, muster_bus::Incoming, muster_control::Mounting)>,
        answer: std::io::PipeReader,
    },
    /// It looks at conditions; its number.
    Questioner(u32),
    /// It watches the paths of a unit; its number.
    Paths(u32),
    /// It works on an automount.
    Automount(crate::automounts::AutomountHelp),
    /// It closes descriptors.
    Closer,
    /// It prints logs.
    Printer,
    /// It removes what a user left, and nobody waits for it.
    Cleaner,
}

/// After so many processes were started in one turn, the memory of those that went on is taken back.
const STACKS_AT_ONCE: usize = 8;
/// At most this many bytes of a helper's answer are read.
const ANSWER_MAX: u64 = 1024;

/// The running processes.
#[derive(Debug, Default)]
pub struct Processes {
    started: BTreeMap<SpawnId, Started>,
    by_pid: BTreeMap<u32, SpawnId>,
    watched: BTreeMap<u32, (Token, OwnedFd)>,
    helpers: BTreeMap<u32, Helper>,
    /// A process that the event at hand names.
    held: Option<(u32, OwnedFd)>,
    /// Spawns that may still run on our memory.
    sharing: Vec<SpawnId>,
    /// What confinement could not be made here: said once each.
    lacking: BTreeSet<String>,
}

impl Processes {
    /// Holds a process that the next event names, so that it is watched by this pidfd if it is to be watched.
    pub(crate) fn hold(&mut self, pid: u32, pidfd: OwnedFd) {
        self.held = Some((pid, pidfd));
    }

    /// That event is worked off.
    pub(crate) fn let_go(&mut self) {
        self.held = None;
    }

    /// The helper that removes directories for a question.
    pub(crate) fn remover(&self, of: QueryId) -> Option<u32> {
        let is_it = |helper: &Helper| matches!(helper, Helper::Remover { query, .. } if *query == Some(of));
        self.helpers.iter().find(|(_, helper)| is_it(helper)).map(|(pid, _)| *pid)
    }

    /// Takes a helper that works for a socket unit out of its work; its end is told to nobody.
    pub(crate) fn give_up_opener(&mut self, unit: &UnitName) -> Option<(u32, Helper)> {
        let is_it = |helper: &Helper| match helper {
            Helper::Owner { opening, .. } | Helper::Opener { opening, .. } => opening.unit == *unit,
            _ => false,
        };
        let (pid, helper) = self.helpers.iter_mut().find(|(_, helper)| is_it(helper))?;
        Some((*pid, std::mem::replace(helper, Helper::Cleaner)))
    }

    /// Helpers whose work the next program begins anew.
    pub(crate) fn handed_helpers(&self) -> Vec<u32> {
        let again = |helper: &Helper| {
            matches!(
                helper,
                Helper::Owner { .. } | Helper::Opener { .. } | Helper::Remover { query: Some(_), .. }
            )
        };
        self.helpers.iter().filter(|(_, helper)| again(helper)).map(|(pid, _)| *pid).collect()
    }

    /// Calls that helpers mount something for.
    pub(crate) fn mounting_calls(&self) -> impl Iterator<Item = (Token, &muster_bus::Incoming)> {
        self.helpers.values().filter_map(|helper| match helper {
            Helper::Mounter { asker, .. } => Some((asker.0, &asker.1)),
            _ => None,
        })
    }

    /// A helper that was started elsewhere.
    pub(crate) fn add_helper(&mut self, pid: u32, helper: Helper) {
        self.helpers.insert(pid, helper);
    }
}

/// A process that outlives a re-execution of PID 1.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedProcess {
    pub(crate) spawn: SpawnId,
    pid: u32,
    /// What a program of before held of it.
    pidfd: Option<RawFd>,
    /// Where the executor still reports.
    pub(crate) report: Option<RawFd>,
    program: String,
    wants_exec: bool,
}

impl HandedProcess {
    /// Its descriptors.
    pub fn fds(&self) -> Vec<RawFd> {
        self.pidfd.into_iter().chain(self.report).collect()
    }
}

impl Processes {
    /// All that runs, for the next program.
    pub(crate) fn handed(&self) -> Vec<HandedProcess> {
        let one = |(pid, spawn): (&u32, &SpawnId)| {
            let started = self.started.get(spawn)?;
            Some(HandedProcess {
                spawn: *spawn,
                pid: *pid,
                pidfd: None,
                report: started.report.as_ref().map(|(_, fd)| fd.as_raw_fd()),
                program: started.program.clone(),
                wants_exec: started.wants_exec,
            })
        };
        self.by_pid.iter().filter_map(one).collect()
    }

    /// Whether it was started for a unit and is not reaped: its number is its own.
    pub fn has_child(&self, pid: u32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// One of them, in the next program.
    pub(crate) fn take_in(&mut self, process: HandedProcess, report: Option<(Token, OwnedFd)>) {
        let HandedProcess { spawn, pid, pidfd, program, wants_exec, .. } = process;
        self.by_pid.insert(pid, spawn);
        drop(pidfd.map(crate::hand_over::adopt));
        self.started.insert(spawn, Started { report, shared: None, program, wants_exec });
    }

    /// Takes memory back that a child was started on and has left. A child that failed is asked why at its end.
    pub fn take_memory_back(&mut self) {
        let started = &mut self.started;
        self.sharing.retain(|spawn| {
            let Some(started) = started.get_mut(spawn) else { return false };
            let done =
                started.shared.as_ref().is_none_or(|shared| shared.is_free() && shared.failure().is_none());
            if done {
                started.shared = None;
            }
            !done
        });
    }
}

impl Runtime {
    pub(crate) fn spawn(&mut self, spawn: &Spawn) {
        let refusal = self.cgroups.refusal(&spawn.cgroup).map(str::to_owned);
        if let Some(message) = refusal.or_else(|| self.shares.refusal(spawn.shared.as_ref())) {
            return self.follow_up.push_back(Event::SpawnRefused { spawn: spawn.id, message });
        }
        // So that its stack is one that was used before.
        if self.processes.sharing.len().is_multiple_of(STACKS_AT_ONCE) {
            self.processes.take_memory_back();
        }
        let [network, ipc, copies] = self.shares.pairs(spawn.shared.as_ref());
        let directory = self.cgroups.open_or_make(&spawn.cgroup).ok();
        let mut fds: Vec<_> =
            spawn.fds.iter().filter_map(|(id, name)| Some((self.fds.get(*id)?, name.clone()))).collect();
        // By the number of a process that is not reaped yet.
        let main = spawn.refresh.and_then(|refresh| refresh.pid);
        let namespace = main.and_then(|pid| std::fs::File::open(format!("/proc/{pid}/ns/mnt")).ok());
        fds.extend(namespace.as_ref().map(|namespace| (namespace.as_fd(), "namespace".to_owned())));
        let request = muster_exec::Request {
            unit: spawn.unit.as_str(),
            command: &spawn.command,
            exec: &spawn.exec,
            base_environment: &spawn.base_environment,
            own_environment: &spawn.own_environment,
            fds,
            stdio_socket: spawn.stdio_socket.and_then(|id| self.fds.get(id)),
            stdio: spawn
                .stdio
                .iter()
                .filter_map(|(number, id)| Some((*number, self.fds.get(*id)?)))
                .collect(),
            cgroup_dir: directory.as_ref().map(AsFd::as_fd),
            invocation_id: &spawn.invocation_id,
            set_watchdog_pid: spawn.set_watchdog_pid,
            make_directories: spawn.make_directories,
            non_blocking: spawn.non_blocking,
            fresh_credentials: spawn.fresh_credentials,
            open_files: &spawn.open_files,
            context_from_peer: spawn.context_from_peer,
            place: spawn.place.as_ref().map(|(path, mode)| (path.as_str(), *mode)),
            private_tmp: spawn.shared.as_ref().and_then(|shared| shared.private_tmp.as_deref()),
            network,
            ipc,
            copies,
            report_exec: spawn.report_exec,
            limited_memory: self.has_memory_limit(&spawn.cgroup),
            refresh: spawn.refresh.map(|refresh| refresh.what),
        };
        let started = muster_exec::start(&request, &self.executor);
        self.be_quiet();
        match started {
            Ok(started) => {
                self.spawns = self.spawns.saturating_add(1);
                self.cgroups.note_start(&spawn.cgroup, started.pid, &spawn.invocation_id);
                let report = started.report.and_then(|report| {
                    let token = self.register_raw(report.as_raw_fd(), Source::Report(spawn.id)).ok()?;
                    Some((token, report))
                });
                self.processes.sharing.extend(started.shared.is_some().then_some(spawn.id));
                self.processes.by_pid.insert(started.pid, spawn.id);
                self.processes.started.insert(
                    spawn.id,
                    Started {
                        report,
                        shared: started.shared,
                        program: spawn.command.path.clone(),
                        wants_exec: spawn.report_exec,
                    },
                );
                self.follow_up.push_back(Event::Spawned { spawn: spawn.id, pid: started.pid });
            }
            Err(error) if error.status == i32::from(muster_exec::Exit::NotMade) => {
                self.follow_up.push_back(Event::SpawnRefused { spawn: spawn.id, message: error.message });
            }
            Err(error) => self.follow_up.push_back(Event::SpawnFailed {
                spawn: spawn.id,
                status: error.status,
                message: error.message,
            }),
        }
    }

    /// Whether a unit of this cgroup, or one above it, limits memory: what runs out of it there is killed together with
    /// all that shares its memory.
    fn has_memory_limit(&self, cgroup: &str) -> bool {
        let above =
            std::iter::successors(Some(cgroup), |path| path.rsplit_once('/').map(|(parent, _)| parent));
        let state = self.manager.state();
        above
            .filter_map(|path| state.units.get(state.cgroups.get(path)?)?.file.cgroup.as_ref())
            .any(|cgroup| cgroup.memory_max().is_some() || cgroup.startup_memory_max().is_some())
    }

    /// Reads what the executor has to say.
    pub(crate) fn read_report(&mut self, token: Token, spawn: SpawnId) {
        let Some(started) = self.processes.started.get(&spawn) else { return self.forget(token) };
        let Some((_, report)) = &started.report else { return };
        let event = match muster_exec::read_report(report) {
            Report::NotYet => return,
            Report::Executed => started.wants_exec.then_some(Event::ExecSucceeded { spawn }),
            Report::Failed { status, message } => Some(Event::ExecFailed { spawn, status, message }),
            Report::NotMade { message } => Some(Event::SpawnRefused { spawn, message }),
            Report::Account { name, number } => {
                self.deliver(Event::AccountFound { spawn, name, number });
                return self.read_report(token, spawn);
            }
            Report::Moved { pid } => {
                self.process_moved(spawn, pid);
                return self.read_report(token, spawn);
            }
            Report::Without { what } => {
                self.note_without(spawn, what);
                return self.read_report(token, spawn);
            }
            Report::RunsAs { uid, gid } => {
                self.deliver(Event::RunsAs { spawn, uid, gid });
                return self.read_report(token, spawn);
            }
        };
        self.close_report(spawn);
        if let Some(event) = event {
            self.deliver(event);
        }
    }

    /// A confinement could not be made, by a lack of rights that all units share.
    fn note_without(&mut self, spawn: SpawnId, what: String) {
        let unit = self.manager.state().spawns.get(&spawn).and_then(|id| self.manager.unit_by_id(*id));
        let unit = unit.map(|unit| unit.name.to_string()).unwrap_or_default();
        if self.processes.lacking.insert(what.clone()) {
            let text = format!(
                "{unit} runs without {what}, for which this container has no right; so do others, without a word."
            );
            self.note(Level::Warning, &text);
        }
    }

    /// Another child of ours goes on as the process; what stays of the old one is nobody's.
    fn process_moved(&mut self, spawn: SpawnId, pid: u32) {
        // It may have ended and been reaped before its word was read.
        let Ok(_held) = muster_sys::pidfd_open(pid) else { return };
        let old = self.processes.by_pid.iter().find(|(_, known)| **known == spawn).map(|(pid, _)| *pid);
        if let Some(path) = old.and_then(|old| self.cgroups.of_process(old)) {
            self.cgroups.note_move(&path, pid);
        }
        self.processes.by_pid.retain(|_, known| *known != spawn);
        self.processes.by_pid.insert(pid, spawn);
        self.deliver(Event::Moved { spawn, pid });
    }

    fn close_report(&mut self, spawn: SpawnId) {
        let Some(started) = self.processes.started.get_mut(&spawn) else { return };
        if let Some((token, fd)) = started.report.take() {
            self.deregister(token, fd.as_fd());
        }
    }

    /// A child became a zombie.
    pub(crate) fn child_ended(&mut self, pid: u32, exit: Exit) {
        if let Some(helper) = self.processes.helpers.remove(&pid) {
            return self.helper_ended(helper, exit);
        }
        if let Some(spawn) = self.processes.by_pid.remove(&pid) {
            // What it said before its end comes first.
            let token = self
                .processes
                .started
                .get(&spawn)
                .and_then(|started| started.report.as_ref().map(|(token, _)| *token));
            if let Some(token) = token {
                self.read_report(token, spawn);
            }
            self.close_report(spawn);
            let started = self.processes.started.remove(&spawn);
            let failure = started
                .and_then(|started| muster_exec::direct_failure(started.shared.as_ref()?, &started.program));
            if let Some((status, message)) = failure {
                self.deliver(Event::ExecFailed { spawn, status, message });
            }
        }
        if exit == Exit::Killed(nix::libc::SIGKILL) {
            self.look_for_oom_kill(pid);
        }
        self.deliver(Event::ChildExited { pid, exit });
    }

    /// Whoever killed a process, the kernel's own kills are known before its end is.
    fn look_for_oom_kill(&mut self, pid: u32) {
        let state = self.manager.state();
        let unit = state.processes.get(&pid).and_then(|id| state.units.get(id));
        let path = unit.and_then(|unit| unit.cgroup.clone());
        if let Some(path) = path.filter(|path| self.cgroups.was_oom_killed(path)) {
            self.deliver(Event::OomKilled { path });
        }
    }

    /// Signals one process: a child that is not reaped, so that its number is its own, or one by the pidfd that we hold of it.
    /// Any other number is nobody that we know.
    pub(crate) fn kill_process(&mut self, pid: u32, signal: i32, value: Option<i32>) {
        let is_child = self.processes.has_child(pid);
        let child = is_child.then(|| muster_sys::pidfd_open(pid).ok()).flatten();
        let watched = || self.processes.watched.get(&pid).map(|(_, fd)| fd);
        let Some(held) = child.as_ref().or_else(watched) else { return };
        // What has just ended cannot be signalled, and need not be.
        let _ = match value {
            Some(value) => muster_sys::pidfd_queue_signal(held.as_fd(), signal, value),
            None => muster_sys::pidfd_send_signal(held.as_fd(), signal),
        };
    }

    /// Watches a process that is not our child.
    pub(crate) fn watch_process(&mut self, pid: u32) {
        if self.processes.by_pid.contains_key(&pid) || self.processes.watched.contains_key(&pid) {
            return;
        }
        let held = self.processes.held.take().filter(|(of, _)| *of == pid).map(|(_, fd)| fd);
        let Ok(pidfd) = held.map_or_else(|| muster_sys::pidfd_open(pid), Ok) else {
            return self.follow_up.push_back(Event::WatchedProcessExited { pid });
        };
        match self.register_raw(pidfd.as_raw_fd(), Source::Process(pid)) {
            Ok(token) => {
                self.processes.watched.insert(pid, (token, pidfd));
            }
            Err(error) => self.note(Level::Warning, &format!("Process {pid} cannot be watched: {error}")),
        }
    }

    pub(crate) fn watched_process_ended(&mut self, token: Token, pid: u32) {
        if let Some((_, fd)) = self.processes.watched.remove(&pid) {
            self.deregister(token, fd.as_fd());
        }
        // A child of ours is reaped; its end is told there, with its status.
        if parent_of(pid) != Some(std::process::id()) {
            self.deliver(Event::WatchedProcessExited { pid });
        }
    }

    /// Runs this program for an errand that may block.
    pub(crate) fn run_helper(&mut self, arguments: &[&str], helper: Helper) -> bool {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).current_dir("/");
        match command.spawn() {
            Ok(child) => {
                self.processes.helpers.insert(child.id(), helper);
                true
            }
            Err(error) => {
                self.note(
                    Level::Error,
                    &format!("A helper ({}) could not be started: {error}", arguments.join(" ")),
                );
                false
            }
        }
    }

    /// Runs a program that writes a short answer to its standard output.
    pub(crate) fn run_asking_helper(
        &mut self,
        program: &str,
        arguments: &[&str],
        helper: impl FnOnce(std::io::PipeReader) -> Helper,
    ) -> bool {
        let Ok((answer, output)) = std::io::pipe() else { return false };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output).current_dir("/");
        let Ok(child) = command.spawn() else { return false };
        self.processes.helpers.insert(child.id(), helper(answer));
        true
    }

    fn helper_ended(&mut self, helper: Helper, exit: Exit) {
        match helper {
            Helper::Generators => self.rescan(),
            Helper::Owner { opening, answer } => self.owner_found(opening, &answer_in(answer)),
            Helper::Opener { opening, answer, sockets } => self.opener_ended(opening, answer, &sockets),
            Helper::PidFile { unit, path, answer } => {
                self.pid_file_answered(unit, &path, &answer_in(answer));
            }
            Helper::Remover { query, answer } => self.remover_ended(query, &answer_in(answer), exit),
            Helper::Mounter { asker, answer } => self.mounter_ended(*asker, &answer_in(answer), exit),
            Helper::Questioner(pid) => self.questioner_ended(pid),
            Helper::Paths(pid) => self.watcher_ended(pid),
            Helper::Automount(help) => self.automount_helper_ended(help, exit),
            Helper::Closer => self.closer_ended(),
            Helper::Printer => self.printer_ended(),
            Helper::Cleaner => {}
            Helper::Clerk { errand, answer } => self.clerk_ended(&errand, answer),
        }
    }

    /// Reads unit directories anew.
    pub(crate) fn rescan(&mut self) {
        self.index = muster_unit::Index::scan(self.index.path().to_vec());
        self.follow_up.push_back(Event::ConfigRead { files: crate::config::read() });
        self.follow_up.push_back(Event::SourceReloaded);
        self.work_off();
    }

    /// The one process of a cgroup that is our child.
    pub(crate) fn guess_main(&mut self, cgroup: &str) -> Result<PidFileFound, String> {
        let me = std::process::id();
        let mut ours = self
            .cgroups
            .processes(cgroup)
            .into_iter()
            .map(|(_, pid)| pid)
            .filter(|pid| parent_of(*pid) == Some(me));
        match (ours.next(), ours.next()) {
            (Some(pid), None) => Ok(PidFileFound { pid, cgroup: Some(cgroup.to_owned()), owner_uid: 0 }),
            (None, _) => Err("no process is left in the cgroup".to_owned()),
            (Some(_), Some(_)) => Err("more than one process could be the main one".to_owned()),
        }
    }
}

/// Signals a child of ours. It is not reaped yet, so that the number is its own.
pub(crate) fn send_signal_to_child(pid: u32, signal: i32) {
    let sent =
        muster_sys::pidfd_open(pid).and_then(|held| muster_sys::pidfd_send_signal(held.as_fd(), signal));
    // Its end is told when it is reaped.
    drop(sent);
}

/// What a helper that ended wrote to its pipe.
pub(crate) fn answer_in(answer: std::io::PipeReader) -> String {
    let mut text = String::new();
    // It is all there; what else may hold the pipe open is not waited for.
    let _ = nix::fcntl::fcntl(&answer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK));
    let _ = std::io::Read::read_to_string(&mut std::io::Read::take(answer, ANSWER_MAX), &mut text);
    text
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The parent of a process.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and parentheses: what follows the last one is fixed.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
