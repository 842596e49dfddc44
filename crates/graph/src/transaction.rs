//! From one request to a consistent set of jobs.
//!
//! In this order: pull in what the request needs, stop the rest if isolating, drop what cannot matter, settle
//! conflicting jobs of one unit, break ordering cycles, forget what changes nothing, and refuse what would destroy
//! queued jobs against the mode. Only jobs that do not matter to the request may be dropped; what was dropped is told.
//! Work lists, never recursion: unit files decide the depth of the graph.

use crate::edge::{Dependency, Graph, UnitId};
use crate::job::{JobMode, JobType};
use std::collections::{BTreeMap, BTreeSet};

/// What a transaction must know of units.
pub trait Facts {
    /// Active, activating or reloading: what collapses `try-restart` and kin.
    fn is_active(&self, unit: UnitId) -> bool;
    /// Whether the job would change nothing, the unit being there already.
    fn is_redundant(&self, unit: UnitId, kind: JobType) -> bool;
    /// Why this job cannot be made for this unit.
    fn refusal(&self, unit: UnitId, kind: JobType) -> Option<Refusal>;
    /// The job installed for it: type and whether it is irreversible.
    fn installed(&self, unit: UnitId) -> Option<(JobType, bool)>;
    /// Whether isolating leaves it alone (`IgnoreOnIsolate=`, or perpetual).
    fn ignores_isolate(&self, unit: UnitId) -> bool;
    /// Every loaded unit.
    fn all(&self) -> Vec<UnitId>;
    /// Its name, for messages.
    fn name(&self, unit: UnitId) -> String;
}

/// Why a unit cannot take a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such unit file.
    NotFound,
    /// The unit is masked.
    Masked,
    /// The file could not be loaded; the text says why.
    LoadFailed(String),
    /// The type of unit, or this unit, does not know this job.
    NotApplicable,
}

/// Why a transaction was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionError {
    /// A unit that matters refuses.
    Refused(UnitId, Refusal),
    /// Two jobs that matter contradict each other.
    Conflicting(UnitId),
    /// Jobs that matter wait for each other in a circle.
    Cyclic(Vec<UnitId>),
    /// It would destroy the job queued for this unit.
    Destructive(UnitId),
}

/// A request, resolved into jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The jobs to install, one a unit.
    pub jobs: BTreeMap<UnitId, JobType>,
    /// The unit that was asked for.
    pub anchor: Option<UnitId>,
    /// What was dropped and why, for the log.
    pub notes: Vec<String>,
    /// Which unit pulled each one in.
    pub pulled_by: BTreeMap<UnitId, (UnitId, Dependency)>,
}

type Key = (UnitId, JobType);

#[derive(Clone, Copy)]
struct Link {
    from: Option<Key>,
    to: Key,
    matters: bool,
    via: Option<Dependency>,
}

struct Builder<'a, F: Facts> {
    graph: &'a Graph,
    facts: &'a F,
    anchor: Key,
    jobs: BTreeMap<UnitId, BTreeSet<JobType>>,
    links: Vec<Link>,
    notes: Vec<String>,
}

/// Resolves a request.
pub fn build<F: Facts>(
    graph: &Graph,
    facts: &F,
    unit: UnitId,
    kind: JobType,
    mode: JobMode,
) -> Result<Transaction, TransactionError> {
    let kind = kind.collapse(facts.is_active(unit));
    let mut builder = Builder {
        graph,
        facts,
        anchor: (unit, kind),
        jobs: BTreeMap::new(),
        links: Vec::new(),
        notes: Vec::new(),
    };
    builder.pull(mode)?;
    match mode {
        JobMode::Isolate => builder.isolate(kind, mode)?,
        JobMode::Triggering => builder.stop_triggers(mode)?,
        _ => {}
    }
    builder.drop_irrelevant_redundant();
    builder.settle_conflicts()?;
    builder.break_cycles()?;
    builder.collect();
    builder.forget_redundant();
    builder.check_destruction(mode)?;
    Ok(builder.finish())
}

/// What a job of this type asks of the units it depends on: (dependency, job there, whether it matters).
fn wishes(kind: JobType) -> &'static [(Dependency, JobType, bool)] {
    use Dependency::*;
    const START: &[(Dependency, JobType, bool)] = &[
        (Requires, JobType::Start, true),
        (BindsTo, JobType::Start, true),
        (Wants, JobType::Start, false),
        (Upholds, JobType::Start, false),
        (Requisite, JobType::VerifyActive, true),
        (Conflicts, JobType::Stop, true),
        (ConflictedBy, JobType::Stop, false),
    ];
    const STOP: &[(Dependency, JobType, bool)] = &[
        (RequiredBy, JobType::Stop, true),
        (RequisiteOf, JobType::Stop, true),
        (BoundBy, JobType::Stop, true),
        (ConsistsOf, JobType::Stop, true),
        (PropagatesStopTo, JobType::Stop, true),
    ];
    const RESTART: &[(Dependency, JobType, bool)] = &[
        (Requires, JobType::Start, true),
        (BindsTo, JobType::Start, true),
        (Wants, JobType::Start, false),
        (Upholds, JobType::Start, false),
        (Requisite, JobType::VerifyActive, true),
        (Conflicts, JobType::Stop, true),
        (ConflictedBy, JobType::Stop, false),
        (RequiredBy, JobType::TryRestart, true),
        (RequisiteOf, JobType::TryRestart, true),
        (BoundBy, JobType::TryRestart, true),
        (ConsistsOf, JobType::TryRestart, true),
        (PropagatesStopTo, JobType::Stop, true),
    ];
    const RELOAD: &[(Dependency, JobType, bool)] = &[(PropagatesReloadTo, JobType::TryReload, false)];
    match kind {
        JobType::Start => START,
        JobType::Stop => STOP,
        JobType::Restart | JobType::TryRestart => RESTART,
        JobType::Reload | JobType::TryReload | JobType::ReloadOrStart => RELOAD,
        JobType::VerifyActive | JobType::Nop => &[],
    }
}

/// Whether a job of type `mine` on one unit waits for a job of type `theirs` on another that it is `After=`.
fn waits_after(mine: JobType, theirs: JobType) -> bool {
    !goes_down(mine) && mine != JobType::Nop && theirs != JobType::Nop
}

/// The same where the unit is `Before=` the other: only what goes down goes first.
fn waits_before(mine: JobType, theirs: JobType) -> bool {
    mine != JobType::Nop && goes_down(theirs)
}

fn goes_down(kind: JobType) -> bool {
    matches!(kind, JobType::Stop | JobType::Restart | JobType::TryRestart)
}

/// The units whose jobs `unit`, with a job of type `mine`, must wait for, as `job_of` names the jobs there.
pub fn waits_for(
    graph: &Graph,
    unit: UnitId,
    mine: JobType,
    job_of: impl Fn(UnitId) -> Option<JobType>,
) -> Vec<UnitId> {
    let after = graph
        .of(unit, Dependency::After)
        .filter(|other| job_of(*other).is_some_and(|job| waits_after(mine, job)));
    let before = graph
        .of(unit, Dependency::Before)
        .filter(|other| job_of(*other).is_some_and(|job| waits_before(mine, job)));
    after.chain(before).collect()
}

impl<F: Facts> Builder<'_, F> {
    fn pull(&mut self, mode: JobMode) -> Result<(), TransactionError> {
        self.pull_from(Link { from: None, to: self.anchor, matters: true, via: None }, mode)
    }

    /// Adds a job and all that it pulls in, breadth first.
    fn pull_from(&mut self, first: Link, mode: JobMode) -> Result<(), TransactionError> {
        let mut queue = std::collections::VecDeque::from([first]);
        while let Some(link) = queue.pop_front() {
            let (unit, kind) = link.to;
            if let Some(refusal) = self.facts.refusal(unit, kind) {
                let fatal = link.from.is_none() && link.to == self.anchor;
                if fatal || (link.matters && link.from.is_some_and(|from| self.matters_so_far(from))) {
                    return Err(TransactionError::Refused(unit, refusal));
                }
                if link.matters {
                    // Whoever needs it cannot run either, and does not matter to the request.
                    let needing = link.from;
                    self.note_refusal(unit, &refusal);
                    needing.iter().for_each(|from| self.drop_job(*from));
                }
                continue;
            }
            self.links.push(link);
            if !self.jobs.entry(unit).or_default().insert(kind) {
                continue;
            }
            if matches!(mode, JobMode::IgnoreDependencies | JobMode::IgnoreRequirements) {
                continue;
            }
            // What is up already keeps what it has: its own wishes were met, or not, when it started. Only isolating
            // needs to know them, to tell what stays.
            let settled = kind == JobType::Start
                && self.facts.installed(unit).is_none()
                && self.facts.is_redundant(unit, kind);
            if settled && link.from.is_some() && mode != JobMode::Isolate {
                continue;
            }
            for &(dependency, wanted, matters) in wishes(kind) {
                for other in self.graph.of(unit, dependency) {
                    let wanted = wanted.collapse(self.facts.is_active(other));
                    if wanted == JobType::Nop {
                        continue;
                    }
                    queue.push_back(Link {
                        from: Some((unit, kind)),
                        to: (other, wanted),
                        matters,
                        via: Some(dependency),
                    });
                }
            }
        }
        Ok(())
    }

    fn note_refusal(&mut self, unit: UnitId, refusal: &Refusal) {
        let why = match refusal {
            Refusal::NotFound => "it is not found".to_owned(),
            Refusal::Masked => "it is masked".to_owned(),
            Refusal::LoadFailed(why) => format!("it could not be loaded: {why}"),
            Refusal::NotApplicable => "it cannot take such a job".to_owned(),
        };
        let name = self.facts.name(unit);
        self.notes.push(format!("Leaving out what needs {name}: {why}"));
    }

    /// Whether the anchor needs this job, by links that matter.
    fn matters_so_far(&self, key: Key) -> bool {
        self.mattering().contains(&key)
    }

    fn mattering(&self) -> BTreeSet<Key> {
        let mut out: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        for link in self.links.iter().filter(|link| link.matters) {
            if let Some(from) = link.from {
                out.entry(from).or_default().push(link.to);
            }
        }
        let mut seen = BTreeSet::from([self.anchor]);
        let mut stack = vec![self.anchor];
        while let Some(key) = stack.pop() {
            for next in out.get(&key).into_iter().flatten() {
                if seen.insert(*next) {
                    stack.push(*next);
                }
            }
        }
        seen
    }

    fn isolate(&mut self, kind: JobType, mode: JobMode) -> Result<(), TransactionError> {
        if kind != JobType::Start {
            return Ok(());
        }
        for unit in self.facts.all() {
            let kept = self.jobs.contains_key(&unit)
                || self.facts.ignores_isolate(unit)
                || self.graph.of(unit, Dependency::TriggeredBy).any(|by| self.jobs.contains_key(&by));
            if kept || (!self.facts.is_active(unit) && self.facts.installed(unit).is_none()) {
                continue;
            }
            self.pull_from(Link { from: None, to: (unit, JobType::Stop), matters: false, via: None }, mode)?;
        }
        Ok(())
    }

    fn stop_triggers(&mut self, mode: JobMode) -> Result<(), TransactionError> {
        let triggers: Vec<_> = self.graph.of(self.anchor.0, Dependency::TriggeredBy).collect();
        for unit in triggers {
            self.pull_from(Link { from: None, to: (unit, JobType::Stop), matters: false, via: None }, mode)?;
        }
        Ok(())
    }

    /// Jobs that neither matter nor change anything go first: they must not take part in conflicts.
    fn drop_irrelevant_redundant(&mut self) {
        let mattering = self.mattering();
        let redundant: Vec<Key> = self
            .keys()
            .filter(|key| !mattering.contains(key))
            .filter(|(unit, kind)| {
                self.facts.installed(*unit).is_none() && self.facts.is_redundant(*unit, *kind)
            })
            .collect();
        for (unit, kind) in redundant {
            self.remove_key((unit, kind));
        }
    }

    fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.jobs.iter().flat_map(|(unit, kinds)| kinds.iter().map(|kind| (*unit, *kind)))
    }

    fn settle_conflicts(&mut self) -> Result<(), TransactionError> {
        loop {
            let torn = self.jobs.iter().find_map(|(unit, kinds)| merged(kinds).is_none().then_some(*unit));
            let Some(unit) = torn else { return Ok(()) };
            let mattering = self.mattering();
            let kinds = self.jobs.get(&unit).cloned().unwrap_or_default();
            let ups: Vec<Key> =
                kinds.iter().filter(|kind| **kind != JobType::Stop).map(|kind| (unit, *kind)).collect();
            let stop = (unit, JobType::Stop);
            let up_matters = ups.iter().any(|key| mattering.contains(key));
            match (mattering.contains(&stop), up_matters) {
                (true, true) => return Err(TransactionError::Conflicting(unit)),
                (true, false) => ups.into_iter().for_each(|key| self.drop_job(key)),
                (false, true) => self.drop_job(stop),
                // Neither matters: being stopped by a unit that conflicts wins over being wanted.
                (false, false) if self.is_conflict_stop(stop) => {
                    ups.into_iter().for_each(|key| self.drop_job(key))
                }
                (false, false) => self.drop_job(stop),
            }
        }
    }

    fn is_conflict_stop(&self, stop: Key) -> bool {
        self.links.iter().any(|link| {
            link.to == stop && matches!(link.via, Some(Dependency::Conflicts | Dependency::ConflictedBy))
        })
    }

    fn remove_key(&mut self, key: Key) {
        if let Some(kinds) = self.jobs.get_mut(&key.0) {
            kinds.remove(&key.1);
            if kinds.is_empty() {
                self.jobs.remove(&key.0);
            }
        }
        self.links.retain(|link| link.to != key && link.from != Some(key));
    }

    /// Drops a job and every job that needs it.
    fn drop_job(&mut self, key: Key) {
        let mut stack = vec![key];
        while let Some(key) = stack.pop() {
            let needing: Vec<Key> = self
                .links
                .iter()
                .filter(|link| link.to == key && link.matters)
                .filter_map(|link| link.from)
                .filter(|from| *from != self.anchor)
                .collect();
            self.remove_key(key);
            stack.extend(
                needing
                    .into_iter()
                    .filter(|key| self.jobs.get(&key.0).is_some_and(|kinds| kinds.contains(&key.1))),
            );
        }
    }

    fn break_cycles(&mut self) -> Result<(), TransactionError> {
        // Each round drops at least one unit, so the number of units bounds the loop.
        loop {
            let plan: BTreeMap<UnitId, JobType> =
                self.jobs.iter().filter_map(|(unit, kinds)| Some((*unit, merged(kinds)?))).collect();
            let Some(cycle) = find_cycle(self.graph, &plan) else { return Ok(()) };
            let mattering = self.mattering();
            let matters = |unit: &UnitId| {
                self.jobs.get(unit).into_iter().flatten().any(|kind| mattering.contains(&(*unit, *kind)))
            };
            let Some(victim) = cycle.iter().find(|unit| !matters(unit)).copied() else {
                return Err(TransactionError::Cyclic(cycle));
            };
            let names: Vec<String> = cycle.iter().map(|unit| self.facts.name(*unit)).collect();
            self.notes.push(format!(
                "Found ordering cycle {}: job of {} left out to break it",
                names.join(" -> "),
                self.facts.name(victim)
            ));
            for kind in self.jobs.get(&victim).cloned().unwrap_or_default() {
                self.drop_job((victim, kind));
            }
            self.jobs.remove(&victim);
        }
    }

    /// Drops what nothing pulls in any more.
    fn collect(&mut self) {
        loop {
            let roots: BTreeSet<Key> = self.links.iter().map(|link| link.to).collect();
            let Some(orphan) = self.keys().find(|key| *key != self.anchor && !roots.contains(key)) else {
                return;
            };
            self.remove_key(orphan);
        }
    }

    fn forget_redundant(&mut self) {
        let redundant: Vec<UnitId> = self
            .jobs
            .iter()
            .filter(|(unit, kinds)| {
                **unit != self.anchor.0
                    && self.facts.installed(**unit).is_none()
                    && merged(kinds).is_some_and(|kind| self.facts.is_redundant(**unit, kind))
            })
            .map(|(unit, _)| *unit)
            .collect();
        for unit in redundant {
            self.jobs.remove(&unit);
        }
    }

    fn check_destruction(&self, mode: JobMode) -> Result<(), TransactionError> {
        // A lenient transaction disturbs nobody: what is up stays up.
        let disturbs = |unit: UnitId, kinds: &BTreeSet<JobType>| {
            unit != self.anchor.0 && merged(kinds) == Some(JobType::Stop) && self.facts.is_active(unit)
        };
        if mode == JobMode::Lenient {
            if let Some((unit, _)) = self.jobs.iter().find(|(unit, kinds)| disturbs(**unit, kinds)) {
                return Err(TransactionError::Destructive(*unit));
            }
        }
        for (unit, kinds) in &self.jobs {
            let (Some(kind), Some((installed, irreversible))) = (merged(kinds), self.facts.installed(*unit))
            else {
                continue;
            };
            let gentle = matches!(mode, JobMode::Fail | JobMode::Lenient);
            if kind.merge(installed).is_none() && (gentle || irreversible) {
                return Err(TransactionError::Destructive(*unit));
            }
        }
        Ok(())
    }

    fn finish(self) -> Transaction {
        let jobs = self.jobs.iter().filter_map(|(unit, kinds)| Some((*unit, merged(kinds)?))).collect();
        let mut pulled_by = BTreeMap::new();
        for link in &self.links {
            if let (Some((from, _)), Some(via)) = (link.from, link.via) {
                pulled_by.entry(link.to.0).or_insert((from, via));
            }
        }
        Transaction { jobs, anchor: Some(self.anchor.0), notes: self.notes, pulled_by }
    }
}

fn merged(kinds: &BTreeSet<JobType>) -> Option<JobType> {
    kinds.iter().copied().try_fold(JobType::Nop, JobType::merge)
}

/// A circle of waiting among the planned jobs, if there is one.
fn find_cycle(graph: &Graph, plan: &BTreeMap<UnitId, JobType>) -> Option<Vec<UnitId>> {
    let mut done: BTreeSet<UnitId> = BTreeSet::new();
    for (&root, &kind) in plan {
        if done.contains(&root) {
            continue;
        }
        let waits =
            |unit: UnitId, kind: JobType| waits_for(graph, unit, kind, |other| plan.get(&other).copied());
        let mut path: Vec<(UnitId, Vec<UnitId>)> = vec![(root, waits(root, kind))];
        let mut on_path = BTreeSet::from([root]);
        while let Some((unit, next)) = path.last_mut() {
            let Some(other) = next.pop() else {
                done.insert(*unit);
                on_path.remove(unit);
                path.pop();
                continue;
            };
            if on_path.contains(&other) {
                let start = path.iter().position(|(unit, _)| *unit == other).unwrap_or(0);
                return Some(path.iter().skip(start).map(|(unit, _)| *unit).collect());
            }
            if let (false, Some(&kind)) = (done.contains(&other), plan.get(&other)) {
                on_path.insert(other);
                path.push((other, waits(other, kind)));
            }
        }
    }
    None
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
