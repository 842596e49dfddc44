//! The real manager on a fake kernel, seeded.
//!
//! A [`World`] is a manager, unit files held in memory, and a kernel ([`kernel`]) that answers each effect by the events
//! that a real one would send, at a time and in an order that a seed decides. What must stay true: the same seed gives the
//! same effects, and nothing in here decides what the manager decides.
//!
//! After every event the world asks [`Manager::check_invariants`] and the [`ledger`], and looks whether a copy of all units
//! that follows nothing but [`Manager::take_changes`] is the same as the units, and whether what was closed had been open.
//! What it finds is in [`World::faults`]. [`scenario`] draws units and what happens to them, and shrinks what fails.
#![forbid(unsafe_code)]
// Runs in tests, with numbers of its own making.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub mod dice;
pub mod files;
mod kernel;
pub mod ledger;
pub mod scenario;

pub use files::Files;

use dice::Dice;
use kernel::{Later, Process};
use ledger::Ledger;
use muster_graph::UnitId;
use muster_manager::Manager;
use muster_manager::effect::{FdId, RequestId};
use muster_manager::event::{Clock, Event, Exit, Found, Now, Origin, Peer, Request};
use muster_manager::state::{Facts, State, Unit};
use std::collections::{BTreeMap, BTreeSet};

/// After this many events or effects on the way to rest a world is taken to loop for ever.
const EVENTS_MAX: usize = 6_000;
const EFFECTS_MAX: u64 = 200_000;

/// What may come between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// PID 1 executes itself anew.
    Reexec,
    /// Unit files are read again.
    Reload,
    /// PID 1 loses all it knows, and begins anew with what it finds running.
    Crash,
}

/// A manager and the world around it.
pub struct World {
    manager: Manager,
    files: Files,
    seed: u64,
    now: Now,
    dice: Dice,
    next_number: u64,
    processes: BTreeMap<u32, Process>,
    /// Processes that ended, whose end was not told yet.
    zombies: BTreeSet<u32>,
    /// Numbers of processes that may be used again.
    free: Vec<u32>,
    waiting: Vec<Event>,
    /// What happens at a time on the monotonic clock, in microseconds.
    later: BTreeMap<(u64, u64), Later>,
    /// Descriptors that are open.
    open: BTreeSet<FdId>,
    /// Listening descriptors that are watched, and whether connections are taken from them.
    watched: BTreeMap<FdId, bool>,
    /// Listening descriptors with something to read.
    traffic: BTreeSet<FdId>,
    /// All units, as the changes tell.
    copy: BTreeMap<UnitId, Box<Unit>>,
    ledger: Ledger,
    interruption: Option<(u64, Interruption)>,
    effects: u64,
    /// How many events were delivered.
    pub events: u64,
    /// Every effect so far, as text, where `tracing`.
    pub trace: Vec<String>,
    /// Whether effects are kept as text.
    pub tracing: bool,
    /// What must hold and did not.
    pub faults: Vec<String>,
    /// Whether the manager's state is taken out and in again after every event.
    pub hand_over: bool,
}

impl World {
    /// A world before its boot.
    pub fn new(files: Files, seed: u64) -> World {
        let now = Now { monotonic_usec: 1, realtime_usec: 1_000_000, boottime_usec: 1 };
        World {
            manager: fresh(seed, now),
            files,
            seed,
            now,
            dice: Dice::new(seed, 1),
            next_number: 100,
            processes: BTreeMap::new(),
            zombies: BTreeSet::new(),
            free: Vec::new(),
            waiting: Vec::new(),
            later: BTreeMap::new(),
            open: BTreeSet::new(),
            watched: BTreeMap::new(),
            traffic: BTreeSet::new(),
            copy: BTreeMap::new(),
            ledger: Ledger::default(),
            interruption: None,
            effects: 0,
            events: 0,
            trace: Vec::new(),
            tracing: true,
            faults: Vec::new(),
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

    /// Whether the last that a unit was asked for was to stop, and it did.
    pub fn is_stopped(&self, unit: &str) -> bool {
        self.ledger.is_stopped(unit)
    }

    /// What was said along the way.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Boots and runs until nothing is left to do.
    pub fn boot(&mut self) {
        self.manager.begin(self.now, &self.files);
        self.manager.start_default(self.now, &self.files);
        self.settle();
    }

    /// A client asks, and the world comes to rest.
    pub fn ask(&mut self, request: Request) {
        self.send(request);
        self.settle();
    }

    /// A client asks.
    pub fn send(&mut self, request: Request) {
        self.next_number += 1;
        let id = RequestId(self.next_number);
        let origin = Origin { uid: 0, pid: 7, comm: "sim".to_owned() };
        self.ledger.asked(id);
        self.waiting.push(Event::Requested { id, origin, request });
    }

    /// Something happens.
    pub fn happen(&mut self, event: Event) {
        self.waiting.push(event);
    }

    /// A process ends by itself, and the world comes to rest. True when there was one in that unit's cgroup.
    pub fn end_process_of(&mut self, unit: &str, exit: Exit) -> bool {
        let ended = self.end_one_of(unit, exit);
        if ended {
            self.settle();
        }
        ended
    }

    /// A process ends by itself. True when there was one in that unit's cgroup.
    pub fn end_one_of(&mut self, unit: &str, exit: Exit) -> bool {
        let pid = self.process_of(unit);
        pid.into_iter().for_each(|pid| self.end(pid, exit));
        pid.is_some()
    }

    fn process_of(&self, unit: &str) -> Option<u32> {
        let suffix = format!("/{unit}");
        self.processes.iter().find(|(_, process)| process.cgroup.ends_with(&suffix)).map(|(pid, _)| *pid)
    }

    /// A client connects to a socket unit, from one of three addresses. True when the socket was being listened to.
    pub fn connect(&mut self, unit: &str) -> bool {
        let mine = self.manager.descriptors().filter(|(_, owner)| owner.name.as_str() == unit);
        let found = mine.map(|(fd, _)| fd).find_map(|fd| Some((fd, *self.watched.get(&fd)?)));
        let Some((listener, accept)) = found else { return false };
        let event = if accept {
            let source = format!("192.0.2.{}", self.dice.below(3));
            let fd = self.opened();
            let peer = Peer { instance_tail: format!("{}-0", fd.0), source, ..Peer::default() };
            Event::Accepted { listener, fd, peer }
        } else {
            self.traffic.insert(listener);
            Event::SocketReadable { fd: listener }
        };
        self.waiting.push(event);
        true
    }

    /// A process of a unit hands a descriptor to PID 1 to keep.
    pub fn store(&mut self, unit: &str) {
        if let Some(pid) = self.process_of(unit) {
            let fds = vec![self.opened()];
            self.say(pid, &[("FDSTORE", "1")], fds);
        }
    }

    /// A process of a unit says something.
    pub fn say_as(&mut self, unit: &str, fields: &[(&str, &str)]) {
        if let Some(pid) = self.process_of(unit) {
            self.say(pid, fields, Vec::new());
        }
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

    /// Time passes in one leap, as when nothing runs for a while, and the world comes to rest.
    pub fn leap(&mut self, usec: u64) {
        self.pass(usec);
        self.waiting.push(Event::Tick);
        self.settle();
    }

    /// Time passes, and whatever is due happens when it is due.
    pub fn wait(&mut self, usec: u64) {
        let end = self.now.monotonic_usec + usec;
        self.settle();
        for _ in 0..EVENTS_MAX {
            let on_monotonic = |(clock, at)| (clock == Clock::Monotonic).then_some(at);
            let deadline = self.manager.next_deadlines().filter_map(on_monotonic);
            let next = self.later.keys().map(|(at, _)| *at).chain(deadline).min();
            match next.filter(|at| *at <= end) {
                Some(at) => self.leap(at.saturating_sub(self.now.monotonic_usec)),
                None => break,
            }
        }
        self.leap(end.saturating_sub(self.now.monotonic_usec));
    }

    /// The realtime clock is set, forward or back.
    pub fn set_clock(&mut self, by_usec: i64) {
        self.now.realtime_usec = self.now.realtime_usec.saturating_add_signed(by_usec);
        self.waiting.push(Event::ClockSet);
    }

    fn pass(&mut self, usec: u64) {
        self.now.monotonic_usec += usec;
        self.now.realtime_usec += usec;
        self.now.boottime_usec += usec;
        while let Some(first) = self.later.first_entry() {
            if first.key().0 > self.now.monotonic_usec {
                return;
            }
            let later = first.remove();
            self.due(later);
        }
    }

    /// After `events` further events, this comes between.
    pub fn interrupt_after(&mut self, events: u64, what: Interruption) {
        self.interruption = Some((events, what));
    }

    /// Delivers events until nothing is left, in an order that the seed decides.
    pub fn settle(&mut self) {
        let most = self.effects + EFFECTS_MAX;
        for _ in 0..EVENTS_MAX {
            if !self.step() {
                let (mut faults, manager) = (Vec::new(), &self.manager);
                self.ledger.rest(manager, &mut faults);
                self.faults.extend(faults);
                return;
            }
            if self.effects > most || !self.faults.is_empty() {
                break;
            }
        }
        if self.faults.is_empty() {
            self.faults.push("the world does not come to rest".to_owned());
        }
    }

    /// Delivers at most `events` events.
    pub fn run(&mut self, events: usize) {
        for _ in 0..events {
            if !self.step() || !self.faults.is_empty() {
                return;
            }
        }
    }

    /// Delivers an event; false where there is none.
    fn step(&mut self) -> bool {
        self.perform_all();
        self.interrupt();
        if self.waiting.is_empty() && self.manager.needs_tick(self.now) {
            self.waiting.push(Event::Tick);
        }
        if self.waiting.is_empty() {
            return false;
        }
        let at = self.dice.below(self.waiting.len());
        let mut event = self.waiting.remove(self.first_told(at));
        if let Event::PidFileRead { unit, result } = &mut event {
            // Whom a PID file or a guess names is looked up at the moment at which it is told, before its end can be.
            *result = self.daemon_of(&format!("/{unit}")).ok_or_else(|| "no such process".to_owned());
        }
        if !matches!(&event, Event::CgroupEmptied { path } if self.of_cgroup(path).next().is_some()) {
            // Emptiness is read at the moment at which it is told.
            self.deliver(event);
        }
        true
    }

    fn deliver(&mut self, event: Event) {
        self.pass(1);
        if let Event::ChildExited { pid, .. } = &event {
            self.zombies.remove(pid);
            self.free.push(*pid);
        }
        let reloaded = matches!(event, Event::SourceReloaded | Event::Recovered { .. });
        self.events += 1;
        self.ledger.begin(&self.manager, &mut self.faults);
        self.manager.handle(self.now, &self.files, event);
        self.faults.extend(self.manager.check_invariants());
        self.ledger.end(&self.manager, reloaded, &mut self.faults);
        self.follow();
        self.perform_all();
        if self.hand_over {
            self.take_out_and_in();
        }
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
            self.faults.push(format!("units changed by another door: {names:?}"));
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

    // ---- hand-over ----------------------------------------------------------------------------------------------------

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
            Err(error) => self.faults.push(format!("the state was lost: {error}")),
        }
    }

    fn interrupt(&mut self) {
        match &mut self.interruption {
            None => return,
            Some((0, _)) => {}
            Some((left, _)) => return *left -= 1,
        }
        match self.interruption.take() {
            Some((_, Interruption::Reexec)) => self.reexecute(),
            Some((_, Interruption::Reload)) => self.send(Request::Reload),
            Some((_, Interruption::Crash)) => self.crash(),
            None => {}
        }
        self.perform_all();
    }

    /// What helpers were asked for, and what clients wait for, is lost with the program; the rest is in descriptors.
    fn reexecute(&mut self) {
        let is_lost = |event: &Event| {
            matches!(
                event,
                Event::ConditionsChecked { .. }
                    | Event::Removed { .. }
                    | Event::FilesWritten { .. }
                    | Event::Requested { .. }
                    | Event::SourceReloaded
                    | Event::SocketReadable { .. }
            )
        };
        self.waiting.retain(|event| !is_lost(event));
        self.watched.clear();
        self.ledger.cut_off();
        self.take_out_and_in();
        self.manager.resume(self.now);
        self.follow();
    }

    /// All that PID 1 knew is lost: it finds processes in cgroups, and its children's ends.
    fn crash(&mut self) {
        self.waiting.retain(|event| matches!(event, Event::ChildExited { .. }));
        let held: BTreeSet<FdId> = std::mem::take(&mut self.open);
        self.traffic.retain(|fd| !held.contains(fd));
        self.watched.clear();
        self.copy.clear();
        self.ledger = Ledger::default();
        self.ledger.relax();
        self.manager = fresh(self.seed, self.now);
        self.manager.begin(self.now, &self.files);
        self.follow();
        let found = self.processes.iter().map(|(pid, process)| Found {
            cgroup: process.cgroup.clone(),
            pid: *pid,
            is_child: process.parent.is_none(),
        });
        let found = found.collect();
        self.perform_all();
        self.deliver(Event::Recovered { found });
    }
}

fn fresh(seed: u64, now: Now) -> Manager {
    let mut manager = Manager::new(Facts::default(), seed, now);
    manager.follow_changes();
    manager
}
