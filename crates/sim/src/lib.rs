//! The real manager on a fake kernel, seeded.
//!
//! A [`World`] is a manager, unit files held in memory, and a kernel that answers each effect by the events that a real
//! one would send, at a time and in an order that a seed decides. What must stay true: the same seed gives the same
//! effects, and nothing in here decides what the manager decides.
//!
//! Programs are known by their last path component: `true` and `false` end at once, `ready` sends `READY=1` and stays,
//! all others stay until a signal ends them, `stubborn` until SIGKILL. `nospawn` cannot be made, and of `noexec` the
//! executor fails.
//!
//! After every event the world looks, besides [`Manager::check_invariants`], whether a copy of all units that follows
//! nothing but [`Manager::take_changes`] is the same as the units, and whether what was closed had been open; what it finds
//! are lines of the trace that begin with FAULT.
#![forbid(unsafe_code)]
// Runs in tests, with numbers of its own making.
#![allow(clippy::arithmetic_side_effects)]

use muster_graph::UnitId;
use muster_manager::Manager;
use muster_manager::effect::{Effect, FdId, RequestId, Spawn};
use muster_manager::event::{Event, Exit, Now, OpenedSocket, Origin, Peer, Request};
use muster_manager::state::{Facts, State, Unit};
use muster_unit::load::Lookup;
use muster_unit::{Source, UnitName};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// After this many events or effects a world is taken to loop for ever.
const EVENTS_MAX: usize = 20_000;
const EFFECTS_MAX: usize = 200_000;

/// Unit files by name, and links such as `multi-user.target.wants`.
#[derive(Clone, Debug, Default)]
pub struct Files {
    units: BTreeMap<String, String>,
    links: BTreeMap<String, Vec<UnitName>>,
}

impl Files {
    /// These unit files.
    pub fn new(units: &[(&str, &str)]) -> Files {
        let units = units.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Files { units, links: BTreeMap::new() }
    }

    /// Adds a link in a directory like `multi-user.target.wants`.
    #[must_use]
    pub fn link(mut self, directory: &str, name: &str) -> Files {
        self.links.entry(directory.to_owned()).or_default().extend(name.parse::<UnitName>());
        self
    }
}

impl Source for Files {
    fn lookup(&self, name: &UnitName) -> Lookup {
        let known = self.units.contains_key(name.as_str());
        if known { Lookup::File(format!("/etc/systemd/system/{name}")) } else { Lookup::NotFound }
    }

    fn aliases(&self, _: &UnitName) -> Vec<UnitName> {
        Vec::new()
    }

    fn read(&self, path: &str) -> Result<Rc<str>, String> {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.units.get(name).map(|text| text.as_str().into()).ok_or_else(|| format!("no {name}"))
    }

    fn drop_ins(&self, _: &str) -> Vec<(String, Option<String>)> {
        Vec::new()
    }

    fn linked(&self, directory: &str) -> Vec<UnitName> {
        self.links.get(directory).cloned().unwrap_or_default()
    }
}

/// A process of the fake kernel.
#[derive(Clone, Debug)]
struct Process {
    cgroup: String,
    /// Whether it minds SIGTERM.
    stays: bool,
}

/// A manager and the world around it.
pub struct World {
    manager: Manager,
    files: Files,
    now: Now,
    random: u64,
    next_number: u64,
    processes: BTreeMap<u32, Process>,
    waiting: Vec<Event>,
    /// Descriptors that are open.
    open: BTreeSet<FdId>,
    /// Listening descriptors that are watched, and whether connections are taken from them.
    watched: BTreeMap<FdId, bool>,
    /// All units, as the changes tell.
    copy: BTreeMap<UnitId, Box<Unit>>,
    /// Every effect so far, as text.
    pub trace: Vec<String>,
    /// Whether the manager's state is taken out and in again after every event.
    pub hand_over: bool,
}

impl World {
    /// A world before its boot.
    pub fn new(files: Files, seed: u64) -> World {
        let now = Now { monotonic_usec: 1, realtime_usec: 1_000_000, boottime_usec: 1 };
        let mut manager = Manager::new(Facts::default(), seed, now);
        manager.follow_changes();
        World {
            manager,
            files,
            now,
            random: seed.max(1),
            next_number: 100,
            processes: BTreeMap::new(),
            waiting: Vec::new(),
            open: BTreeSet::new(),
            watched: BTreeMap::new(),
            copy: BTreeMap::new(),
            trace: Vec::new(),
            hand_over: false,
        }
    }

    /// The monotonic clock, in microseconds.
    pub fn now_usec(&self) -> u64 {
        self.now.monotonic_usec
    }

    /// The manager, to look at.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Boots and runs until nothing is left to do.
    pub fn boot(&mut self) {
        self.manager.begin(self.now, &self.files);
        self.manager.start_default(self.now, &self.files);
        self.settle();
    }

    /// A client asks, and the world comes to rest.
    pub fn ask(&mut self, request: Request) {
        self.next_number += 1;
        let id = RequestId(self.next_number);
        let origin = Origin { uid: 0, pid: 7, comm: "sim".to_owned() };
        self.waiting.push(Event::Requested { id, origin, request });
        self.settle();
    }

    /// A process ends by itself, and the world comes to rest. True when there was one in that unit's cgroup.
    pub fn end_process_of(&mut self, unit: &str, exit: Exit) -> bool {
        let suffix = format!("/{unit}");
        let found =
            self.processes.iter().find(|(_, process)| process.cgroup.ends_with(&suffix)).map(|(pid, _)| *pid);
        if let Some(pid) = found {
            self.end(pid, exit);
            self.settle();
        }
        found.is_some()
    }

    /// A client connects to a socket unit, from one of three addresses, and the world comes to rest. True when the socket
    /// was being listened to.
    pub fn connect(&mut self, unit: &str) -> bool {
        let mine = self.manager.descriptors().filter(|(_, owner)| owner.name.as_str() == unit);
        let found = mine.map(|(fd, _)| fd).find_map(|fd| Some((fd, *self.watched.get(&fd)?)));
        let Some((listener, accept)) = found else { return false };
        let event = if accept {
            let number = self.next_number;
            let source = format!("192.0.2.{}", self.draw() % 3);
            let peer = Peer { instance_tail: format!("{number}-0"), source, ..Peer::default() };
            Event::Accepted { listener, fd: self.opened(), peer }
        } else {
            Event::SocketReadable { fd: listener }
        };
        self.waiting.push(event);
        self.settle();
        true
    }

    /// A process of a unit hands a descriptor to PID 1 to keep, and the world comes to rest.
    pub fn store(&mut self, unit: &str) {
        let suffix = format!("/{unit}");
        let found = self.processes.iter().find(|(_, process)| process.cgroup.ends_with(&suffix));
        let Some((pid, cgroup)) = found.map(|(pid, process)| (*pid, process.cgroup.clone())) else { return };
        let fields = vec![("FDSTORE".to_owned(), "1".to_owned())];
        let fds = vec![self.opened()];
        self.waiting.push(Event::Notified { pid, uid: 0, cgroup: Some(cgroup), fields, fds, named: None });
        self.settle();
    }

    fn opened(&mut self) -> FdId {
        self.next_number += 1;
        self.open.insert(FdId(self.next_number));
        FdId(self.next_number)
    }

    /// At rest: descriptors that are open and nobody's, or somebody's and not open.
    pub fn strays(&self) -> Vec<FdId> {
        let owned: BTreeSet<FdId> = self.manager.descriptors().map(|(fd, _)| fd).collect();
        self.open.symmetric_difference(&owned).copied().collect()
    }

    /// Time passes, and the world comes to rest.
    pub fn wait(&mut self, usec: u64) {
        self.now.monotonic_usec += usec;
        self.now.realtime_usec += usec;
        self.now.boottime_usec += usec;
        self.waiting.push(Event::Tick);
        self.settle();
    }

    /// Delivers events until nothing is left, in an order that the seed decides.
    fn settle(&mut self) {
        let most = self.trace.len() + EFFECTS_MAX;
        for _ in 0..EVENTS_MAX {
            self.perform_all();
            if self.trace.len() > most {
                break;
            }
            if self.waiting.is_empty() && self.manager.needs_tick(self.now) {
                self.waiting.push(Event::Tick);
            }
            if self.waiting.is_empty() {
                return;
            }
            let at = usize::try_from(self.draw() % self.waiting.len() as u64).unwrap_or(0);
            let event = self.waiting.remove(self.first_told(at));
            if matches!(&event, Event::CgroupEmptied { path } if self.of_cgroup(path).next().is_some()) {
                // Emptiness is read at the moment at which it is told.
                continue;
            }
            self.now.monotonic_usec += 1;
            self.now.realtime_usec += 1;
            self.manager.handle(self.now, &self.files, event);
            self.trace
                .extend(self.manager.check_invariants().into_iter().map(|fault| format!("FAULT {fault}")));
            self.follow();
            if self.hand_over {
                self.perform_all();
                self.take_out_and_in();
            }
        }
        self.trace.push("the world does not come to rest".to_owned());
    }

    /// Brings the copy up to what the changes tell, and compares it.
    fn follow(&mut self) {
        for id in self.manager.take_changes() {
            match self.manager.unit_by_id(id) {
                Some(unit) => self.copy.insert(id, Box::new(unit.clone())),
                None => self.copy.remove(&id),
            };
        }
        if self.copy != *self.manager.state().units {
            let units = self.manager.state().units.iter();
            let differ = units.filter(|(id, unit)| self.copy.get(id) != Some(*unit));
            let names: Vec<&str> = differ.map(|(_, unit)| unit.name.as_str()).collect();
            self.trace.push(format!("FAULT units changed by another door: {names:?}"));
        }
    }

    /// What a process said is told before its end, as the runtime sees to.
    fn first_told(&self, at: usize) -> usize {
        let Some(Event::ChildExited { pid, .. }) = self.waiting.get(at) else { return at };
        let said = |event: &Event| matches!(event, Event::Notified { pid: from, .. } if from == pid);
        self.waiting.iter().position(said).unwrap_or(at)
    }

    /// Whether a process is in the cgroup of a unit.
    pub fn runs_in(&self, unit: &str) -> bool {
        let (end, inside) = (format!("/{unit}"), format!("/{unit}/"));
        self.processes
            .values()
            .any(|process| process.cgroup.ends_with(&end) || process.cgroup.contains(&inside))
    }

    /// The manager that goes on is made from bytes, as after a re-execution.
    fn take_out_and_in(&mut self) {
        self.follow();
        let mut bytes = Vec::new();
        let taken = ciborium::into_writer(self.manager.state(), &mut bytes);
        match taken.map_err(|error| error.to_string()).and_then(|()| {
            ciborium::from_reader::<State, _>(bytes.as_slice()).map_err(|error| error.to_string())
        }) {
            Ok(state) => {
                self.manager = Manager::from_state(state);
                self.manager.follow_changes();
            }
            Err(error) => self.trace.push(format!("the state was lost: {error}")),
        }
    }

    fn perform_all(&mut self) {
        while let Some(effect) = self.manager.poll_effect() {
            self.trace.push(format!("{effect:?}"));
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn(spawn) => self.spawn(&spawn),
            Effect::KillProcess { pid, signal, .. } => self.signal(&[pid], signal),
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
                let results = conditions.iter().map(|_| true).collect();
                self.waiting.push(Event::ConditionsChecked { query, results });
            }
            Effect::OpenSockets { unit, config, keep, .. } => {
                let opened = (0_u32..).zip(config.listen()).map(|(listen_index, _)| {
                    let known = keep.iter().find(|(at, _)| *at == listen_index);
                    let fd = known.map_or_else(|| self.opened(), |(_, fd)| *fd);
                    let kept = known.is_some();
                    OpenedSocket { fd, listen_index, connection_based: true, companion: false, kept }
                });
                let result = Ok(opened.collect());
                self.waiting.push(Event::SocketsOpened { unit, result });
            }
            Effect::StopOpening { unit } => {
                for event in std::mem::take(&mut self.waiting) {
                    match event {
                        Event::SocketsOpened { unit: of, result } if of == unit => {
                            for port in result.into_iter().flatten().filter(|port| !port.kept) {
                                self.open.remove(&port.fd);
                            }
                        }
                        other => self.waiting.push(other),
                    }
                }
            }
            Effect::WatchSocket { fd, accept } => {
                self.watched.insert(fd, accept);
            }
            Effect::UnwatchSocket { fd } => {
                self.watched.remove(&fd);
            }
            Effect::CloseFds { fds } => {
                for fd in fds {
                    self.watched.remove(&fd);
                    if !self.open.remove(&fd) {
                        self.trace.push(format!("FAULT {fd:?} was closed and is not open"));
                    }
                }
            }
            Effect::ReadMountTable => {
                self.waiting.push(Event::MountTableRead {
                    mounts: Vec::new(),
                    gone: Vec::new(),
                    whole: true,
                });
            }
            Effect::OpenAutomount { unit, .. } => {
                let result = Err("there is no autofs".to_owned());
                self.waiting.push(Event::AutomountOpened { unit, result });
            }
            Effect::CloseAutomount { unit, .. } => self.waiting.push(Event::AutomountClosed { unit }),
            Effect::ExpireAutomount { unit, .. } => self.waiting.push(Event::AutomountLooked { unit }),
            Effect::ReadSwapTable => self.waiting.push(Event::SwapsRead { swaps: Vec::new() }),
            Effect::WriteFiles { query, .. } => {
                self.waiting.push(Event::FilesWritten { query, result: Ok(()) });
            }
            Effect::Remove { query: Some(query), .. } => {
                self.waiting.push(Event::Removed { query, result: Ok(()) });
            }
            Effect::ReloadSource => self.waiting.push(Event::SourceReloaded),
            _ => {}
        }
    }

    fn spawn(&mut self, spawn: &Spawn) {
        self.next_number += 1;
        let pid = u32::try_from(self.next_number).unwrap_or(u32::MAX);
        let id = spawn.id;
        let program = spawn.command.path.rsplit('/').next().unwrap_or("");
        let message = || "this program fails".to_owned();
        if program == "nospawn" {
            return self.waiting.push(Event::SpawnFailed { spawn: id, status: 219, message: message() });
        }
        self.processes.insert(pid, Process { cgroup: spawn.cgroup.clone(), stays: false });
        // The number of a process is known before anything else of it is.
        self.manager.handle(self.now, &self.files, Event::Spawned { spawn: id, pid });
        if program == "noexec" {
            self.waiting.push(Event::ExecFailed { spawn: id, status: 203, message: message() });
            return self.end(pid, Exit::Exited(203));
        }
        if spawn.report_exec {
            self.waiting.push(Event::ExecSucceeded { spawn: id });
        }
        match program {
            "true" => self.end(pid, Exit::Exited(0)),
            "false" => self.end(pid, Exit::Exited(1)),
            "ready" => {
                let fields = vec![("READY".to_owned(), "1".to_owned())];
                let cgroup = Some(spawn.cgroup.clone());
                self.waiting.push(Event::Notified {
                    pid,
                    uid: 0,
                    cgroup,
                    fields,
                    fds: Vec::new(),
                    named: None,
                });
            }
            "stubborn" => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.stays = true;
                }
            }
            _ => {}
        }
    }

    fn of_cgroup<'a>(&'a self, path: &'a str) -> impl Iterator<Item = u32> + 'a {
        let below = format!("{path}/");
        let inside = move |process: &Process| process.cgroup == path || process.cgroup.starts_with(&below);
        self.processes.iter().filter(move |(_, process)| inside(process)).map(|(pid, _)| *pid)
    }

    fn signal(&mut self, pids: &[u32], signal: i32) {
        const KILL: i32 = 9;
        for pid in pids {
            let obeys = self.processes.get(pid).is_some_and(|process| signal == KILL || !process.stays);
            if obeys && signal != 18 {
                self.end(*pid, Exit::Killed(signal));
            }
        }
    }

    /// A process ends; where it was the last of its cgroup, that is told too, in whatever order.
    fn end(&mut self, pid: u32, exit: Exit) {
        let Some(process) = self.processes.remove(&pid) else { return };
        self.waiting.push(Event::ChildExited { pid, exit });
        let left: BTreeSet<u32> = self.of_cgroup(&process.cgroup).collect();
        if left.is_empty() {
            self.waiting.push(Event::CgroupEmptied { path: process.cgroup });
        }
    }

    /// xorshift64*.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
