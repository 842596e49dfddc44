//! What must hold along the way, as opposed to between two events (`muster_manager::invariants`). The bounds:
//!
//! - Order: a job that begins in an event had nothing left to wait for. Of what
//!   [`muster_graph::Queue::waits_for`] names, a job that was there before the event and is there after it, of the same
//!   type, is a fault; not so for a job that ignores order, nor in an event in which unit files are read again.
//! - Conflicts: of two units of which one `Conflicts=` with the other, and which are ordered either way, never both are
//!   active, reloading, or activating by a job that runs. Left out: a run in which a cycle was broken, which may give up the
//!   stop; requests that ignore dependencies, or spare what is up (mode fail, those of `OnSuccess=` and `Upholds=` among them); and
//!   units of which the stop of one is to stop the other, so that neither can make room for the other; and a unit that another
//!   one names, which started later: the stop of who names it is only wished for, and is given up where it would take along
//!   what the same request starts (as under systemd 257).
//! - Requested stops: between the end of a stop job as done and the next job of that unit no process of it is made.
//! - Jobs: each is announced once and ends once, and at rest those that are announced are those that are queued.
//! - Requests: each is answered exactly once, at the latest at rest; not so when the client was cut off by a re-execution.
//! - Processes: a signal goes to a process that lives or whose end was not told yet, never to a number that may be another's.
//! - Descriptors: what a process is given is open.

use muster_graph::{Dependency, JobId, JobResult, JobType, UnitId};
use muster_manager::Manager;
use muster_manager::effect::{BusSignal, Effect, RequestId};
use muster_manager::state::{ActiveState, Unit};
use std::collections::{BTreeMap, BTreeSet};

/// What was said so far, by effects.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Jobs as they were before this event: unit, type, whether it ran.
    before: BTreeMap<JobId, (UnitId, JobType, bool)>,
    announced: BTreeMap<JobId, String>,
    /// Units whose stop was done, and that had no job since.
    stopped: BTreeSet<String>,
    unanswered: BTreeSet<RequestId>,
    /// Conflicts are not looked at any more.
    lax: bool,
    /// Conflicts that do not hold after this event: faults, unless its effects tell that a cycle was broken.
    suspects: Vec<String>,
}

impl Ledger {
    /// A client asks.
    pub fn asked(&mut self, id: RequestId) {
        self.unanswered.insert(id);
    }

    /// Nobody hears answers any more.
    pub fn cut_off(&mut self) {
        self.unanswered.clear();
    }

    /// Dependencies are ignored from here on.
    pub fn relax(&mut self) {
        self.lax = true;
    }

    /// Whether the last that a unit was asked for was to stop, and it did.
    pub fn is_stopped(&self, unit: &str) -> bool {
        self.stopped.contains(unit)
    }

    /// Takes an effect in.
    pub fn effect(&mut self, effect: &Effect, faults: &mut Vec<String>) {
        match effect {
            Effect::Signal(BusSignal::JobNew { job, unit }) => {
                self.stopped.remove(unit.as_str());
                if self.announced.insert(*job, unit.to_string()).is_some() {
                    faults.push(format!("job {} of {unit} is announced twice", job.0));
                }
            }
            Effect::Signal(BusSignal::JobRemoved { job, unit, result }) => {
                if self.announced.remove(job).is_none() {
                    faults.push(format!("job {} of {unit} ends, and never began", job.0));
                }
                let stop = self.before.get(job).is_some_and(|(_, kind, _)| *kind == JobType::Stop);
                if stop && *result == JobResult::Done {
                    self.stopped.insert(unit.to_string());
                }
            }
            Effect::Spawn(spawn) if self.stopped.contains(spawn.unit.as_str()) => {
                faults.push(format!("{} was stopped, and {} runs", spawn.unit, spawn.command.path));
            }
            Effect::Reply { id, .. } if !self.unanswered.remove(id) => {
                faults.push(format!("{id:?} is answered, and nobody asked, or twice"));
            }
            Effect::Log(record) if record.message.contains("ordering cycle") => self.lax = true,
            _ => {}
        }
    }

    /// Before an event.
    pub fn begin(&mut self, manager: &Manager, faults: &mut Vec<String>) {
        self.tell_suspects(faults);
        let jobs = manager.state().jobs.values();
        self.before = jobs.map(|job| (job.id, (job.unit, job.kind, job.running))).collect();
    }

    /// After an event; `reloaded` where unit files were read again in it.
    pub fn end(&mut self, manager: &Manager, reloaded: bool, faults: &mut Vec<String>) {
        if !reloaded {
            self.check_order(manager, faults);
        }
        self.heed_what_spares(manager);
        if !self.lax {
            Self::check_conflicts(manager, &mut self.suspects);
        }
    }

    fn tell_suspects(&mut self, faults: &mut Vec<String>) {
        let suspects = std::mem::take(&mut self.suspects);
        faults.extend(suspects.into_iter().filter(|_| !self.lax));
    }

    /// Whether a unit was asked for in mode fail: by the end of another, or because it is upheld.
    fn heed_what_spares(&mut self, manager: &Manager) {
        let state = manager.state();
        let fails = |unit: &Unit| unit.file.unit.failure_job_mode().as_str() == "fail";
        for unit in state.units.values() {
            let by = |kind: &str| unit.causes.iter().rev().take(16).any(|cause| cause.text.contains(kind));
            self.lax |= by("OnSuccess= of")
                || by("UpheldBy")
                || (by("OnFailure= of") && state.units.values().any(|unit| fails(unit.as_ref())));
        }
    }

    fn check_conflicts(manager: &Manager, faults: &mut Vec<String>) {
        let state = manager.state();
        let is_up = |id: UnitId| match manager.unit_by_id(id).map(|unit| unit.active_state()) {
            Some(ActiveState::Active | ActiveState::Reloading) => true,
            Some(ActiveState::Activating) => state.jobs.of(id).is_some_and(|job| job.running),
            _ => false,
        };
        for unit in state.units.values() {
            let ordered = |other: UnitId| {
                state.graph.has(unit.id, Dependency::After, other)
                    || state.graph.has(unit.id, Dependency::Before, other)
            };
            let others = state.graph.of(unit.id, Dependency::Conflicts).filter(|other| ordered(*other));
            let both_up = others.filter(|other| is_up(*other) && is_up(unit.id));
            for other in both_up {
                let (mine, theirs) = (stopped_with(manager, unit.id), stopped_with(manager, other));
                let wished = mine.len() > 1 && began(manager, other) >= began(manager, unit.id);
                if mine.contains(&other) || theirs.contains(&unit.id) || wished {
                    continue;
                }
                let other = manager.unit_by_id(other).map_or("?", |other| other.name.as_str());
                faults.push(format!("{} and {other} conflict, and both are up", unit.name));
            }
        }
    }

    fn check_order(&self, manager: &Manager, faults: &mut Vec<String>) {
        let state = manager.state();
        let as_before =
            |id: JobId, kind: JobType| self.before.get(&id).is_some_and(|(_, before, _)| *before == kind);
        for job in state.jobs.values().filter(|job| job.running && !job.ignore_order && !job.untied) {
            let ran = self.before.get(&job.id).is_some_and(|(_, kind, ran)| *ran && *kind == job.kind);
            if ran {
                continue;
            }
            for other in state.jobs.waits_for(&state.graph, job) {
                if let Some(other) = state.jobs.of(other).filter(|other| as_before(other.id, other.kind)) {
                    let name = |id| manager.unit_by_id(id).map_or("?", |unit| unit.name.as_str());
                    faults.push(format!(
                        "{} of {} begins before {} of {} ended",
                        job.kind.as_str(),
                        name(job.unit),
                        other.kind.as_str(),
                        name(other.unit)
                    ));
                }
            }
        }
    }

    /// At rest.
    pub fn rest(&mut self, manager: &Manager, faults: &mut Vec<String>) {
        self.tell_suspects(faults);
        let queued: BTreeSet<JobId> = manager.state().jobs.values().map(|job| job.id).collect();
        let announced: BTreeSet<JobId> = self.announced.keys().copied().collect();
        if queued != announced {
            faults.push(format!("jobs are queued: {queued:?}, and announced: {announced:?}"));
        }
        if !self.unanswered.is_empty() {
            faults.push(format!("nobody answered {:?}", self.unanswered));
        }
    }
}

/// When a unit was last down.
fn began(manager: &Manager, unit: UnitId) -> u64 {
    manager.unit_by_id(unit).map_or(0, |unit| unit.inactive_exit.monotonic_usec)
}

/// A unit and those that its stop stops.
fn stopped_with(manager: &Manager, unit: UnitId) -> BTreeSet<UnitId> {
    let kinds = [
        Dependency::RequiredBy,
        Dependency::RequisiteOf,
        Dependency::BoundBy,
        Dependency::ConsistsOf,
        Dependency::PropagatesStopTo,
    ];
    let (mut seen, mut stack) = (BTreeSet::from([unit]), vec![unit]);
    while let Some(unit) = stack.pop() {
        let next = kinds.iter().flat_map(|kind| manager.state().graph.of(unit, *kind));
        stack.extend(next.filter(|other| seen.insert(*other)));
    }
    seen
}
