//! The fake kernel: processes, cgroups and descriptors, and how each effect is answered.
//!
//! Programs are known by their last path component:
//!
//! | program | does |
//! |---|---|
//! | `true`, `false` | ends at once |
//! | `slow`, `slowfail` | the same after two seconds |
//! | `ready`, `late` | `READY=1` at once, or after two seconds; stays |
//! | `twice`, `liar` | `READY=1` twice; by a child |
//! | `dies`, `readyends`, `readyfails` | ends before `READY=1`; after it; after it, with a failure |
//! | `reloads` | `READY=1`, and a new one when it gets SIGHUP; says `STOPPING=1` before it obeys SIGTERM |
//! | `fork`, `forkloose` | makes a daemon and ends; the daemon minds SIGTERM in the second |
//! | `brood`, `orphan` | makes a child and stays; the child minds SIGTERM in the second |
//! | `stubborn` | stays until SIGKILL |
//! | `nospawn`, `noexec` | cannot be made; fails in a step of the executor |
//! | all others | stay until a signal ends them |

use crate::World;
use muster_manager::effect::{Effect, FdId, Spawn, SpawnRole};
use muster_manager::event::{Event, Exit, OpenError, OpenedSocket, PidFileFound};
use muster_unit::UnitName;
use std::collections::BTreeSet;

/// What happens at its time.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    /// The process of that birth ends.
    Ends(u32, u64, Exit),
    /// It says that it is ready.
    Ready(u32, u64),
}

/// A process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) cgroup: String,
    /// Who made it, while that lives; PID 1 hears of the ends of its own children alone.
    pub(crate) parent: Option<u32>,
    /// Numbers of processes come again, this does not.
    birth: u64,
    /// Whether it minds SIGTERM.
    stays: bool,
    /// Whether SIGHUP has it say something.
    hears: bool,
}

const SLOW_USEC: u64 = 2_000_000;
const READY: &[(&str, &str)] = &[("READY", "1")];
const HUP: i32 = 1;
const KILL: i32 = 9;
const TERM: i32 = 15;
const CONT: i32 = 18;

impl World {
    pub(crate) fn perform_all(&mut self) {
        while let Some(effect) = self.manager.poll_effect() {
            self.effects += 1;
            if self.tracing {
                self.trace.push(format!("{effect:?}"));
            }
            self.ledger.effect(&effect, &mut self.faults);
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn(spawn) => self.spawn(&spawn),
            Effect::KillProcess { pid, signal, .. } => {
                if !self.processes.contains_key(&pid) && !self.zombies.contains(&pid) {
                    self.faults.push(format!("signal {signal} for process {pid}, which is gone"));
                }
                self.signal(&[pid], signal);
            }
            Effect::WatchCgroup { path } if self.of_cgroup(&path).next().is_none() => {
                self.waiting.push(Event::CgroupEmptied { path });
            }
            Effect::KillCgroup { path, signal, except, .. } => {
                let doomed: Vec<u32> = self.of_cgroup(&path).filter(|pid| !except.contains(pid)).collect();
                if doomed.is_empty() && self.of_cgroup(&path).next().is_none() {
                    self.waiting.push(Event::CgroupEmptied { path });
                } else {
                    self.signal(&doomed, signal);
                }
            }
            Effect::CheckConditions { query, conditions } => {
                let results = conditions.iter().map(|_| !self.dice.once_in(3)).collect();
                self.waiting.push(Event::ConditionsChecked { query, results });
            }
            Effect::ReadPidFile { unit, .. } | Effect::GuessMainProcess { unit, .. } => {
                // The answer is made when it is told.
                self.waiting.push(Event::PidFileRead { unit, result: Err(String::new()) });
            }
            Effect::WriteFiles { query, .. } => {
                self.waiting.push(Event::FilesWritten { query, result: Ok(()) });
            }
            Effect::Remove { query: Some(query), .. } => {
                self.waiting.push(Event::Removed { query, result: Ok(()) });
            }
            Effect::ReloadSource => self.waiting.push(Event::SourceReloaded),
            other => self.perform_on_tables(other),
        }
    }

    fn perform_on_tables(&mut self, effect: Effect) {
        match effect {
            Effect::ReadMountTable => {
                let (mounts, gone) = (Vec::new(), Vec::new());
                self.waiting.push(Event::MountTableRead { mounts, gone, whole: true });
            }
            Effect::OpenAutomount { unit, .. } => {
                let result = Err("there is no autofs".to_owned());
                self.waiting.push(Event::AutomountOpened { unit, result });
            }
            Effect::CloseAutomount { unit, .. } => self.waiting.push(Event::AutomountClosed { unit }),
            Effect::ExpireAutomount { unit, .. } => self.waiting.push(Event::AutomountLooked { unit }),
            Effect::ReadSwapTable => self.waiting.push(Event::SwapsRead { swaps: Vec::new() }),
            Effect::ReadZone { name } => self.waiting.push(Event::ZoneRead { name, bytes: None }),
            Effect::Stamp { unit, set_usec: None, .. } => {
                self.waiting.push(Event::StampRead { unit, at_usec: None });
            }
            other => self.perform_on_sockets(other),
        }
    }

    fn perform_on_sockets(&mut self, effect: Effect) {
        match effect {
            Effect::OpenSockets { unit, config, keep, .. } => {
                let refused = config.listen().len() > 2 && self.dice.once_in(2);
                let opened = (0_u32..).zip(config.listen()).map(|(listen_index, _)| {
                    let known = keep.iter().find(|(at, _)| *at == listen_index);
                    let fd = known.map_or_else(|| self.opened(), |(_, fd)| *fd);
                    let kept = known.is_some();
                    OpenedSocket { fd, listen_index, connection_based: true, companion: false, kept }
                });
                let result = match refused && keep.is_empty() {
                    true => Err(OpenError { message: "address in use".to_owned(), no_owner: false }),
                    false => Ok(opened.collect()),
                };
                self.waiting.push(Event::SocketsOpened { unit, result });
            }
            Effect::StopOpening { unit } => self.stop_opening(&unit),
            Effect::WatchSocket { fd, accept } => {
                self.watched.insert(fd, accept);
                if self.traffic.contains(&fd) && !accept {
                    self.waiting.push(Event::SocketReadable { fd });
                }
            }
            Effect::UnwatchSocket { fd } => {
                self.watched.remove(&fd);
            }
            Effect::FlushSocket { fd } => {
                self.traffic.remove(&fd);
            }
            Effect::CloseFds { fds } => {
                for fd in fds {
                    self.watched.remove(&fd);
                    self.traffic.remove(&fd);
                    if !self.open.remove(&fd) {
                        self.faults.push(format!("{fd:?} was closed and is not open"));
                    }
                }
            }
            _ => {}
        }
    }

    /// The answer does not come; what was opened for it is closed.
    fn stop_opening(&mut self, unit: &UnitName) {
        for event in std::mem::take(&mut self.waiting) {
            match event {
                Event::SocketsOpened { unit: of, result } if of == *unit => {
                    for port in result.into_iter().flatten().filter(|port| !port.kept) {
                        self.open.remove(&port.fd);
                    }
                }
                other => self.waiting.push(other),
            }
        }
    }

    /// The only process of a cgroup, as a PID file or a guess would name it.
    pub(crate) fn daemon_of(&self, cgroup: &str) -> Option<PidFileFound> {
        let mut inside = self.processes.iter().filter(|(_, process)| process.cgroup.ends_with(cgroup));
        let (pid, process) = inside.next().filter(|_| inside.next().is_none())?;
        Some(PidFileFound { pid: *pid, cgroup: Some(process.cgroup.clone()), owner_uid: 0 })
    }

    fn spawn(&mut self, spawn: &Spawn) {
        self.check_descriptors(spawn);
        let id = spawn.id;
        let program = spawn.command.path.rsplit('/').next().unwrap_or("");
        let message = || "this program fails".to_owned();
        if program == "nospawn" {
            return self.waiting.push(Event::SpawnFailed { spawn: id, status: 219, message: message() });
        }
        let pid = self.born(&spawn.cgroup, None);
        // The number of a process is known before anything else of it is.
        self.manager.handle(self.now, &self.files, Event::Spawned { spawn: id, pid });
        self.events += 1;
        if program == "noexec" {
            let status = 200 + i32::try_from(self.dice.below(46)).unwrap_or(3);
            self.waiting.push(Event::ExecFailed { spawn: id, status, message: message() });
            return self.end(pid, Exit::Exited(status));
        }
        if spawn.report_exec {
            self.waiting.push(Event::ExecSucceeded { spawn: id });
        }
        if spawn.role == SpawnRole::Main {
            spawn.fds.iter().for_each(|(fd, _)| {
                self.traffic.remove(fd);
            });
        }
        self.act(pid, program, &spawn.cgroup);
    }

    fn check_descriptors(&mut self, spawn: &Spawn) {
        let given = spawn.fds.iter().map(|(fd, _)| *fd).chain(spawn.stdio_socket);
        let closed: Vec<FdId> = given.filter(|fd| !self.open.contains(fd)).collect();
        if !closed.is_empty() {
            self.faults.push(format!("{} gets {closed:?}, which are not open", spawn.unit));
        }
    }

    /// A number that was used before comes again in every second case.
    fn born(&mut self, cgroup: &str, parent: Option<u32>) -> u32 {
        let again = self.dice.once_in(2).then(|| self.free.pop()).flatten();
        self.next_number += 1;
        let birth = self.next_number;
        let pid = again.unwrap_or_else(|| u32::try_from(birth).unwrap_or(u32::MAX));
        let cgroup = cgroup.to_owned();
        self.processes.insert(pid, Process { cgroup, parent, birth, stays: false, hears: false });
        pid
    }

    fn act(&mut self, pid: u32, program: &str, cgroup: &str) {
        let birth = self.processes.get(&pid).map_or(0, |process| process.birth);
        match program {
            "true" | "dies" => self.end(pid, Exit::Exited(0)),
            "false" => self.end(pid, Exit::Exited(1)),
            "slow" => self.after(SLOW_USEC, Later::Ends(pid, birth, Exit::Exited(0))),
            "slowfail" => self.after(SLOW_USEC, Later::Ends(pid, birth, Exit::Exited(1))),
            "ready" => self.say(pid, READY, Vec::new()),
            "late" => self.after(SLOW_USEC, Later::Ready(pid, birth)),
            "twice" => {
                self.say(pid, READY, Vec::new());
                self.say(pid, READY, Vec::new());
            }
            "liar" => {
                let child = self.born(cgroup, Some(pid));
                self.say(child, READY, Vec::new());
            }
            "readyends" | "readyfails" => {
                self.say(pid, READY, Vec::new());
                self.end(pid, Exit::Exited(i32::from(program == "readyfails")));
            }
            "reloads" => {
                self.say(pid, READY, Vec::new());
                self.change(pid, |process| process.hears = true);
            }
            "fork" | "forkloose" | "brood" | "orphan" => {
                let child = self.born(cgroup, Some(pid));
                let stays = matches!(program, "forkloose" | "orphan");
                self.change(child, |process| process.stays = stays);
                if program.starts_with("fork") {
                    self.end(pid, Exit::Exited(0));
                }
            }
            "stubborn" => self.change(pid, |process| process.stays = true),
            _ => {}
        }
    }

    fn change(&mut self, pid: u32, change: impl FnOnce(&mut Process)) {
        self.processes.get_mut(&pid).map(change);
    }

    fn after(&mut self, usec: u64, later: Later) {
        self.next_number += 1;
        self.later.insert((self.now.monotonic_usec + usec, self.next_number), later);
    }

    pub(crate) fn due(&mut self, later: Later) {
        let lives = |world: &World, pid: u32, birth: u64| {
            world.processes.get(&pid).is_some_and(|process| process.birth == birth)
        };
        match later {
            Later::Ends(pid, birth, exit) if lives(self, pid, birth) => self.end(pid, exit),
            Later::Ready(pid, birth) if lives(self, pid, birth) => self.say(pid, READY, Vec::new()),
            Later::Ends(..) | Later::Ready(..) => {}
        }
    }

    pub(crate) fn say(&mut self, pid: u32, fields: &[(&str, &str)], fds: Vec<FdId>) {
        let cgroup = self.processes.get(&pid).map(|process| process.cgroup.clone());
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.waiting.push(Event::Notified { pid, uid: 0, cgroup, fields, fds, named: None });
    }

    pub(crate) fn of_cgroup<'a>(&'a self, path: &'a str) -> impl Iterator<Item = u32> + 'a {
        let below = format!("{path}/");
        let inside = move |process: &Process| process.cgroup == path || process.cgroup.starts_with(&below);
        self.processes.iter().filter(move |(_, process)| inside(process)).map(|(pid, _)| *pid)
    }

    fn signal(&mut self, pids: &[u32], signal: i32) {
        for pid in pids {
            let Some(process) = self.processes.get(pid).cloned() else { continue };
            if signal == HUP && process.hears {
                self.say(*pid, &[("RELOADING", "1")], Vec::new());
                self.say(*pid, READY, Vec::new());
            } else if signal != CONT && (signal == KILL || !process.stays) {
                if signal == TERM && process.hears {
                    self.say(*pid, &[("STOPPING", "1")], Vec::new());
                }
                self.end(*pid, Exit::Killed(signal));
            }
        }
    }

    /// A process ends; where it was the last of its cgroup, that is told too, in whatever order.
    pub(crate) fn end(&mut self, pid: u32, exit: Exit) {
        let Some(process) = self.processes.remove(&pid) else { return };
        for child in self.processes.values_mut().filter(|child| child.parent == Some(pid)) {
            child.parent = None;
        }
        if process.parent.is_none() {
            self.zombies.insert(pid);
            self.waiting.push(Event::ChildExited { pid, exit });
        } else {
            self.free.push(pid);
        }
        let left: BTreeSet<u32> = self.of_cgroup(&process.cgroup).collect();
        if left.is_empty() {
            self.waiting.push(Event::CgroupEmptied { path: process.cgroup });
        }
    }
}
