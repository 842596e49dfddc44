//! The queue of jobs: at most one a unit, how a new request meets the one that is there, who waits for whom, and what falls
//! with a job that was not fulfilled.
//!
//! | job | is left by |
//! |---|---|
//! | ready: to be looked at | [`Queue::pop`], then [`Queue::may_run`] |
//! | waiting for the job of another unit | that job's end, or its change to another type: ready |
//! | resting: its unit could not take it yet | [`Queue::wake`], when the unit changed: ready |
//! | running: handed to its unit | [`Queue::end`], or [`Queue::turn`] and [`Queue::rest`] |
//!
//! A job waits at one other at a time, and looks for the next one when that is gone: so a job that is ordered after
//! thousands costs a look a time, not a look for each of them. Nothing here knows what a unit is.
//!
//! A request that would make jobs wait in a circle is refused before it comes here. A circle can still come about where a
//! job turns into another, as a restart into a start, or where a reload changes the order. The job that would close such a
//! circle goes on as if it had no order.

use crate::edge::{Dependency, Graph, UnitId};
use crate::job::{Job, JobId, JobResult, JobType};
use crate::transaction::waits_for;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// All jobs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Queue {
    jobs: BTreeMap<JobId, Job>,
    /// The job of each unit.
    of: BTreeMap<UnitId, JobId>,
    /// The last number given.
    last: u32,
    /// Jobs that may be able to run.
    ready: BTreeSet<JobId>,
    /// Jobs that wait, by the unit whose job they wait for.
    waiters: BTreeMap<UnitId, BTreeSet<JobId>>,
    /// Jobs may wait in a circle: one turned into another, or the order changed, since there were no jobs.
    tangled: bool,
}

/// The longest circle that is looked for: a walk of this many steps is made each time a job waits.
const CIRCLE_MAX: usize = 1000;

/// A job to be queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The unit it works on.
    pub unit: UnitId,
    /// What it does; collapsed.
    pub kind: JobType,
    /// Refuses to be replaced by a conflicting job.
    pub irreversible: bool,
    /// Starts though ordering would make it wait.
    pub ignore_order: bool,
    /// It was asked for itself, and not by a dependency.
    pub asked: bool,
    /// `CLOCK_MONOTONIC`, microseconds.
    pub now_usec: u64,
    /// When it times out if it is new; `u64::MAX` for never.
    pub deadline_usec: u64,
    /// Why, as text for people.
    pub cause: String,
}

/// How an order met what was queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// It is a job of its own.
    New(JobId),
    /// The job that was there does it, too.
    Merged(JobId),
    /// The job that is there contradicts it and must be ended first.
    Against(JobId),
}

impl Queue {
    /// A job by number.
    pub fn get(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id)
    }

    /// The job of a unit.
    pub fn of(&self, unit: UnitId) -> Option<&Job> {
        self.jobs.get(self.of.get(&unit)?)
    }

    /// All jobs, oldest first.
    pub fn values(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether a job is to be looked at.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Queues a job, or merges it into the one that is there. `active` says whether the unit is up or coming up, for what
    /// a merged job collapses to.
    pub fn install(&mut self, order: Order, active: bool) -> Installed {
        if let Some(old) = self.of.get(&order.unit).and_then(|id| self.jobs.get_mut(id)) {
            let Some(both) = old.kind.merge(order.kind).map(|kind| kind.collapse(active)) else {
                return Installed::Against(old.id);
            };
            let (id, freed) = (old.id, order.ignore_order && !old.ignore_order);
            old.irreversible |= order.irreversible;
            old.ignore_order |= order.ignore_order;
            old.asked |= order.asked;
            let (was, running) = (old.kind, old.running);
            if freed {
                self.wake_waiters(order.unit);
            }
            if both != was || (both == JobType::Reload && running) {
                // One that runs and grew begins anew as the merged one; and so does a reload, since what it is asked for
                // may have changed after it began.
                self.turn(id, both);
            } else if !running {
                self.ready.insert(id);
            }
            return Installed::Merged(id);
        }
        self.last = self.last.wrapping_add(1).max(1);
        while self.jobs.contains_key(&JobId(self.last)) {
            self.last = self.last.wrapping_add(1).max(1);
        }
        let id = JobId(self.last);
        self.of.insert(order.unit, id);
        self.ready.insert(id);
        let job = Job {
            id,
            unit: order.unit,
            kind: order.kind,
            running: false,
            irreversible: order.irreversible,
            ignore_order: order.ignore_order,
            asked: order.asked,
            untied: false,
            queued_usec: order.now_usec,
            begun_usec: 0,
            deadline_usec: order.deadline_usec,
            cause: order.cause,
            waits_at: None,
        };
        self.jobs.insert(id, job);
        Installed::New(id)
    }

    /// The next job to look at, in order of their numbers.
    pub fn pop(&mut self) -> Option<JobId> {
        self.ready.pop_first()
    }

    /// Whether a job that is not running may run now; one that may not waits.
    pub fn may_run(&mut self, graph: &Graph, id: JobId) -> bool {
        let Some(job) = self.jobs.get(&id).filter(|job| !job.running) else { return false };
        // The last: jobs mostly end in the order in which they were queued.
        let mut other = match job.ignore_order || job.untied {
            true => None,
            false => self.waits_for(graph, job).pop(),
        };
        if self.tangled && other.is_some_and(|other| self.leads_to(other, id)) {
            other = None;
            if let Some(job) = self.jobs.get_mut(&id) {
                job.untied = true;
            }
        }
        self.set_wait(id, other);
        other.is_none()
    }

    /// Whether the job of a unit waits at this job, or at one that does, and so on.
    fn leads_to(&self, unit: UnitId, id: JobId) -> bool {
        let next = |job: &&Job| self.of(job.waits_at?);
        std::iter::successors(self.of(unit), next).take(CIRCLE_MAX).any(|job| job.id == id)
    }

    fn set_wait(&mut self, id: JobId, other: Option<UnitId>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(old) = std::mem::replace(&mut job.waits_at, other) {
            if let Some(waiters) = self.waiters.get_mut(&old) {
                waiters.remove(&id);
                if waiters.is_empty() {
                    self.waiters.remove(&old);
                }
            }
        }
        if let Some(other) = other {
            self.waiters.entry(other).or_default().insert(id);
        }
    }

    /// The units whose jobs a job waits for; none of those that ignore order.
    pub fn waits_for(&self, graph: &Graph, job: &Job) -> Vec<UnitId> {
        let ordered = |unit: UnitId| self.of(unit).filter(|job| !job.ignore_order).map(|job| job.kind);
        waits_for(graph, job.unit, job.kind, ordered)
    }

    /// The jobs that wait for a job.
    pub fn waiting_for<'a>(&'a self, graph: &'a Graph, job: &'a Job) -> impl Iterator<Item = &'a Job> {
        let others = [Dependency::Before, Dependency::After].into_iter();
        let others: BTreeSet<UnitId> = others.flat_map(|kind| graph.of(job.unit, kind)).collect();
        let waits = |other: &&Job| self.waits_for(graph, other).contains(&job.unit);
        others.into_iter().filter_map(|unit| self.of(unit)).filter(waits)
    }

    /// A job is handed to its unit.
    pub fn begin(&mut self, id: JobId, now_usec: u64) {
        self.set_wait(id, None);
        self.ready.remove(&id);
        if let Some(job) = self.jobs.get_mut(&id) {
            (job.running, job.begun_usec) = (true, now_usec);
        }
    }

    /// Its unit could not take it yet.
    pub fn rest(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.running = false;
        }
    }

    /// Makes a job end earlier.
    pub fn limit(&mut self, id: JobId, deadline_usec: u64) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.deadline_usec = job.deadline_usec.min(deadline_usec);
        }
    }

    /// A job goes on as one of another type, or of its own, from the beginning.
    pub fn turn(&mut self, id: JobId, kind: JobType) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        (job.kind, job.running) = (kind, false);
        self.tangled = true;
        let unit = job.unit;
        self.wake_waiters(unit);
        self.ready.insert(id);
    }

    /// A unit changed: its job is looked at again.
    pub fn wake(&mut self, unit: UnitId) {
        self.ready.extend(self.of.get(&unit));
    }

    /// The order between units changed: all jobs are looked at again.
    pub fn wake_all(&mut self) {
        self.tangled = !self.jobs.is_empty();
        self.ready.extend(self.jobs.values().filter(|job| !job.running).map(|job| job.id));
    }

    fn wake_waiters(&mut self, unit: UnitId) {
        for id in self.waiters.remove(&unit).unwrap_or_default() {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.waits_at = None;
                self.ready.insert(id);
            }
        }
    }

    fn remove(&mut self, id: JobId) -> Option<Job> {
        self.set_wait(id, None);
        let job = self.jobs.remove(&id)?;
        self.ready.remove(&id);
        self.of.remove(&job.unit);
        self.tangled &= !self.jobs.is_empty();
        self.wake_waiters(job.unit);
        Some(job)
    }

    /// Ends a job; with `propagate`, also those that cannot succeed any more. All that ended, in the order of their ends.
    /// `is_down` says of a unit that it is neither up nor on its way.
    pub fn end(
        &mut self,
        graph: &Graph,
        id: JobId,
        result: JobResult,
        propagate: bool,
        is_down: impl Fn(UnitId) -> bool,
    ) -> Vec<(Job, JobResult)> {
        let (mut ends, mut ended) = (vec![(id, result)], Vec::new());
        while let Some((id, result)) = ends.pop() {
            let Some(job) = self.remove(id) else { continue };
            if propagate {
                let kinds = kinds_that_fall(&job, result, &is_down);
                let fall = self.that_fall_with(graph, job.unit, kinds);
                ends.extend(fall.map(|id| (id, JobResult::Dependency)));
            }
            ended.push((job, result));
        }
        ended
    }

    /// The starts that cannot succeed any more, since they depend on a unit in one of these ways.
    fn that_fall_with<'a>(
        &'a self,
        graph: &'a Graph,
        unit: UnitId,
        kinds: &'static [Dependency],
    ) -> impl Iterator<Item = JobId> + 'a {
        let others = kinds.iter().flat_map(move |kind| graph.of(unit, *kind));
        let starts = |job: &&Job| matches!(job.kind, JobType::Start | JobType::VerifyActive);
        others.filter_map(|other| self.of(other)).filter(starts).map(|job| job.id)
    }

    /// What must hold between two calls, as the faults found: each unit has at most one job, and the index knows it; a job
    /// that waits does so at a unit that has a job; a running job waits for nothing.
    pub fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.of.len() != self.jobs.len() {
            faults.push(format!("{} jobs of {} units", self.jobs.len(), self.of.len()));
        }
        for (id, job) in &self.jobs {
            let number = id.0;
            if self.of.get(&job.unit) != Some(id) || job.id != *id {
                faults.push(format!("job {number} is not that of its unit"));
            }
            if let Some(other) = job.waits_at {
                if job.running || self.of(other).is_none() {
                    faults.push(format!("job {number} waits at a unit without a job, or runs"));
                }
                if !self.waiters.get(&other).is_some_and(|waiters| waiters.contains(id)) {
                    faults.push(format!("job {number} waits, and nobody knows"));
                }
            }
        }
        let waiters: usize = self.waiters.values().map(BTreeSet::len).sum();
        if waiters != self.jobs.values().filter(|job| job.waits_at.is_some()).count() {
            faults.push("somebody is woken who does not wait".to_owned());
        }
        faults
    }

    /// Whether a job is neither running nor ready nor waiting: its unit could not take it yet, and must wake it.
    pub fn is_resting(&self, job: &Job) -> bool {
        !job.running && job.waits_at.is_none() && !self.ready.contains(&job.id)
    }
}

/// Whose starts fall with a job that ended: what requires a unit that does not come up, what conflicts with one that does not
/// go down, and what must find it up (`Requisite=`) where its start was done and it is not.
fn kinds_that_fall(job: &Job, result: JobResult, is_down: impl Fn(UnitId) -> bool) -> &'static [Dependency] {
    match job.kind {
        JobType::Start | JobType::VerifyActive if !result.is_fulfilled() => {
            &[Dependency::RequiredBy, Dependency::RequisiteOf, Dependency::BoundBy]
        }
        JobType::VerifyActive if result == JobResult::Skipped => &[Dependency::RequisiteOf],
        JobType::Start | JobType::VerifyActive if is_down(job.unit) => &[Dependency::RequisiteOf],
        JobType::Stop if !result.is_fulfilled() => &[Dependency::ConflictedBy],
        JobType::Start
        | JobType::VerifyActive
        | JobType::Stop
        | JobType::Reload
        | JobType::Restart
        | JobType::Nop
        | JobType::TryRestart
        | JobType::TryReload
        | JobType::ReloadOrStart => &[],
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
