//! From one request to a consistent set of jobs.
//!
//! In this order: pull in what the request needs, stop the rest if isolating, drop what cannot matter, settle
//! conflicting jobs of one unit, break ordering cycles, forget what changes nothing, and refuse what would destroy
//! queued jobs against the mode. Only jobs that do not matter to the request may be dropped; what was dropped is told.
//! Work lists, never recursion: unit files decide the depth of the graph.
//!
//! Each phase is one pass over the jobs and the links between them, which stand in dense tables; what is dropped is marked,
//! not moved. What matters is what the request needs: it is the same before and after any drop, since what needs a dropped
//! job does not matter either, so it is found once.

use crate::cycle;
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
    /// Its name: what does not depend on the order in which units were loaded goes by it.
    fn name(&self, unit: UnitId) -> String;
    /// Which of the jobs in an ordering cycle gives way: that of the unit with the lowest number here.
    fn rank(&self, unit: UnitId) -> u8;
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
    pub notes: Vec<Note>,
    /// Which unit pulled each one in.
    pub pulled_by: BTreeMap<UnitId, (UnitId, Dependency)>,
}

/// Why jobs were left out of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// This unit refuses its job, and what needs it is left out.
    Refused(UnitId, Refusal),
    /// The first waits for the second and so on, the last for the first; the job of one is left out.
    Cycle(Vec<UnitId>, UnitId),
    /// This many further notes were not kept.
    More(usize),
}

/// At most this many notes are kept, and in them this many units of cycles named.
const NOTES_MAX: usize = 1000;
const NAMED_MAX: usize = 100_000;

type Key = (UnitId, JobType);

/// The place of a node in its table.
type NodeId = usize;

/// One job asked for of one unit.
struct Node {
    key: Key,
    /// Taken out again.
    dropped: bool,
    /// The request needs it.
    matters: bool,
    /// What it asks for itself was left out, since it would change nothing.
    held: bool,
    /// It was left out, and whatever it would bring.
    spared: bool,
    /// Links from it and to it, by their place in the table.
    pulls: Vec<usize>,
    pulled: Vec<usize>,
}

/// Why a node is there. Dead when either end is dropped.
#[derive(Clone, Copy)]
struct Link {
    from: NodeId,
    to: NodeId,
    matters: bool,
    via: Dependency,
}

pub(crate) struct Builder<'a, F: Facts> {
    pub(crate) graph: &'a Graph,
    pub(crate) facts: &'a F,
    mode: JobMode,
    /// What is asked for itself: the anchor, then what isolating or triggering adds.
    roots: Vec<NodeId>,
    nodes: Vec<Node>,
    links: Vec<Link>,
    /// Every node that is not dropped.
    places: BTreeMap<Key, NodeId>,
    /// Nodes that their units refuse, until they are dropped.
    refused: Vec<(NodeId, Refusal)>,
    notes: Vec<Note>,
    /// How many units notes of cycles may still name.
    names_left: usize,
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
        mode,
        roots: Vec::new(),
        nodes: Vec::new(),
        links: Vec::new(),
        places: BTreeMap::new(),
        refused: Vec::new(),
        notes: Vec::new(),
        names_left: NAMED_MAX,
    };
    builder.pull((unit, kind));
    builder.find_what_matters();
    builder.drop_refused()?;
    match mode {
        JobMode::Isolate if kind == JobType::Start => builder.isolate(),
        JobMode::Triggering => builder.stop_triggers(unit),
        _ => {}
    }
    builder.drop_refused()?;
    builder.drop_redundant(unit);
    if mode == JobMode::Fail {
        builder.spare_others();
    }
    builder.collect();
    builder.renew();
    builder.spare_what_starts();
    builder.settle_conflicts()?;
    if mode != JobMode::IgnoreDependencies {
        cycle::break_all(&mut builder)?;
    }
    builder.collect();
    builder.drop_redundant(unit);
    builder.check_destruction(unit)?;
    Ok(builder.finish(unit))
}

/// What is restarted besides in mode restart-dependencies: whatever depends on the unit, where it is up.
const DEPENDENTS: &[(Dependency, JobType, bool)] = &[
    (Dependency::RequiredBy, JobType::TryRestart, true),
    (Dependency::RequisiteOf, JobType::TryRestart, true),
    (Dependency::BoundBy, JobType::TryRestart, true),
    (Dependency::ConsistsOf, JobType::TryRestart, true),
];

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

/// Whether a job of another unit, as `job_of` names them, waits for a job of type `kind` of `unit`.
pub(crate) fn is_waited_for(
    graph: &Graph,
    unit: UnitId,
    kind: JobType,
    job_of: impl Fn(UnitId) -> Option<JobType>,
) -> bool {
    let waits = |via: Dependency, waits: fn(JobType, JobType) -> bool| {
        graph.of(unit, via).any(|other| job_of(other).is_some_and(|job| waits(job, kind)))
    };
    waits(Dependency::Before, waits_after) || waits(Dependency::After, waits_before)
}

impl<F: Facts> Builder<'_, F> {
    /// Adds a job that is asked for itself, and all that it pulls in, breadth first.
    fn pull(&mut self, key: Key) {
        let (root, _) = self.node(key);
        self.roots.push(root);
        self.expand(root);
    }

    /// Adds all that a job pulls in, breadth first.
    fn expand(&mut self, root: NodeId) {
        let mut queue = std::collections::VecDeque::from([root]);
        while let Some(from) = queue.pop_front() {
            let Some((unit, kind)) = self.nodes.get(from).map(|node| node.key) else { continue };
            if let Some(refusal) = self.facts.refusal(unit, kind) {
                self.refused.push((from, refusal));
                continue;
            }
            if matches!(self.mode, JobMode::IgnoreDependencies | JobMode::IgnoreRequirements) {
                continue;
            }
            if from != root && self.is_settled(unit, kind) {
                self.nodes.get_mut(from).into_iter().for_each(|node| node.held = true);
                continue;
            }
            let restarts =
                from == root && kind == JobType::Start && self.mode == JobMode::RestartDependencies;
            let dependents = if restarts { DEPENDENTS } else { &[] };
            for &(via, wanted, matters) in wishes(kind).iter().chain(dependents) {
                for other in self.graph.of(unit, via) {
                    let wanted = wanted.collapse(self.facts.is_active(other));
                    if wanted == JobType::Nop {
                        continue;
                    }
                    let (to, new) = self.node((other, wanted));
                    self.link(Link { from, to, matters, via });
                    if new {
                        queue.push_back(to);
                        queue.extend(self.unsettled_by((other, wanted)));
                    }
                }
            }
        }
    }

    /// Whether the job is the start of a unit that is up already, and keeps what it has: its own wishes were met, or not, when
    /// it started. Only isolating needs to know them, to tell what stays; and who finds out what becomes of a unit that
    /// something else would take down.
    fn is_settled(&self, unit: UnitId, kind: JobType) -> bool {
        kind == JobType::Start
            && self.mode != JobMode::Isolate
            && self.facts.installed(unit).is_none()
            && self.of(unit).all(|(kind, _)| self.facts.is_redundant(unit, kind))
    }

    /// The start whose wishes count after all, since there is this job for the same unit.
    fn unsettled_by(&mut self, (unit, kind): Key) -> Option<NodeId> {
        let start = *self.places.get(&(unit, JobType::Start))?;
        let held = self.nodes.get_mut(start).filter(|node| node.held)?;
        held.held = self.facts.is_redundant(unit, kind);
        (!held.held).then_some(start)
    }

    /// The node of this job, and whether it was made now.
    fn node(&mut self, key: Key) -> (NodeId, bool) {
        if let Some(known) = self.places.get(&key) {
            return (*known, false);
        }
        let id = self.nodes.len();
        let (pulls, pulled) = (Vec::new(), Vec::new());
        self.nodes.push(Node {
            key,
            dropped: false,
            matters: false,
            held: false,
            spared: false,
            pulls,
            pulled,
        });
        self.places.insert(key, id);
        (id, true)
    }

    fn link(&mut self, link: Link) {
        let id = self.links.len();
        if let Some(node) = self.nodes.get_mut(link.from) {
            node.pulls.push(id);
        }
        if let Some(node) = self.nodes.get_mut(link.to) {
            node.pulled.push(id);
        }
        self.links.push(link);
    }

    /// The links to a node, or from it.
    fn links<'a>(&'a self, ids: &'a [usize]) -> impl Iterator<Item = &'a Link> + 'a {
        let lives = |id: NodeId| self.nodes.get(id).is_some_and(|node| !node.dropped);
        let links = ids.iter().filter_map(|id| self.links.get(*id));
        links.filter(move |link| lives(link.from) && lives(link.to))
    }

    /// Marks what the first root needs.
    fn find_what_matters(&mut self) {
        let mut stack: Vec<NodeId> = self.roots.first().copied().into_iter().collect();
        while let Some(id) = stack.pop() {
            let Some(node) = self.nodes.get_mut(id).filter(|node| !node.matters && !node.spared) else {
                continue;
            };
            node.matters = true;
            let links = node.pulls.iter().filter_map(|id| self.links.get(*id));
            stack.extend(links.filter(|link| link.matters).map(|link| link.to));
        }
    }

    fn matters(&self, key: Key) -> bool {
        self.places.get(&key).and_then(|id| self.nodes.get(*id)).is_some_and(|node| node.matters)
    }

    /// Whether the request needs a job of this unit.
    pub(crate) fn unit_matters(&self, unit: UnitId) -> bool {
        self.of(unit).any(|(kind, _)| self.matters((unit, kind)))
    }

    /// Whether another job needs one of this unit.
    pub(crate) fn is_needed(&self, unit: UnitId) -> bool {
        let nodes = self.of(unit).filter_map(|(_, id)| self.nodes.get(id));
        nodes.flat_map(|node| self.links(&node.pulled)).any(|link| link.matters)
    }

    /// Drops what units refuse, with all that needs it.
    fn drop_refused(&mut self) -> Result<(), TransactionError> {
        for (id, refusal) in std::mem::take(&mut self.refused) {
            let Some(node) = self.nodes.get(id) else { continue };
            let unit = node.key.0;
            if node.matters {
                return Err(TransactionError::Refused(unit, refusal));
            }
            let needed = self.links(&node.pulled).any(|link| link.matters);
            self.drop_with_needing(id);
            if needed {
                self.note(Note::Refused(unit, refusal));
            }
        }
        Ok(())
    }

    fn note(&mut self, note: Note) {
        if self.has_room() {
            self.notes.push(note);
        } else {
            self.count_unsaid();
        }
    }

    /// Notes a cycle whole, while there is room for it.
    pub(crate) fn note_cycle(&mut self, cycle: impl Iterator<Item = UnitId>, victim: UnitId) {
        if !self.has_room() {
            return self.count_unsaid();
        }
        let units: Vec<UnitId> = cycle.take(self.names_left.saturating_add(1)).collect();
        match self.names_left.checked_sub(units.len()) {
            Some(left) => {
                self.names_left = left;
                self.notes.push(Note::Cycle(units, victim));
            }
            None => self.count_unsaid(),
        }
    }

    fn has_room(&self) -> bool {
        self.notes.len() < NOTES_MAX && !matches!(self.notes.last(), Some(Note::More(_)))
    }

    fn count_unsaid(&mut self) {
        if let Some(Note::More(count)) = self.notes.last_mut() {
            *count = count.saturating_add(1);
        } else {
            self.notes.push(Note::More(1));
        }
    }

    fn isolate(&mut self) {
        for unit in self.facts.all() {
            let kept = self.has_job(unit)
                || self.facts.ignores_isolate(unit)
                || self.graph.of(unit, Dependency::TriggeredBy).any(|by| self.has_job(by));
            let down = self.facts.is_redundant(unit, JobType::Stop);
            if !kept && (!down || self.facts.installed(unit).is_some()) {
                self.pull((unit, JobType::Stop));
            }
        }
    }

    fn stop_triggers(&mut self, unit: UnitId) {
        let triggers: Vec<_> = self.graph.of(unit, Dependency::TriggeredBy).collect();
        triggers.into_iter().for_each(|unit| self.pull((unit, JobType::Stop)));
    }

    fn of(&self, unit: UnitId) -> impl DoubleEndedIterator<Item = (JobType, NodeId)> + '_ {
        self.places
            .range((unit, JobType::Start)..=(unit, JobType::ReloadOrStart))
            .map(|((_, kind), id)| (*kind, *id))
    }

    pub(crate) fn has_job(&self, unit: UnitId) -> bool {
        self.of(unit).next().is_some()
    }

    /// The one job that all those of a unit come to.
    pub(crate) fn merged(&self, unit: UnitId) -> Option<JobType> {
        self.of(unit).map(|(kind, _)| kind).try_fold(JobType::Nop, JobType::merge)
    }

    /// The job that is queued for a unit and stays queued.
    pub(crate) fn queued(&self, unit: UnitId) -> Option<JobType> {
        let queued = self.facts.installed(unit).filter(|_| self.mode != JobMode::Flush);
        queued.map(|(kind, _)| kind)
    }

    /// What the job of a unit is once it met the one that is queued.
    pub(crate) fn with_queued(&self, unit: UnitId) -> Option<JobType> {
        let mine = self.merged(unit)?;
        Some(self.queued(unit).and_then(|queued| queued.merge(mine)).unwrap_or(mine))
    }

    /// The units that have jobs, in order.
    pub(crate) fn units(&self) -> Vec<UnitId> {
        let mut units: Vec<UnitId> = self.places.keys().map(|(unit, _)| *unit).collect();
        units.dedup();
        units
    }

    /// Units whose jobs change nothing go first: they must take part neither in conflicts nor in cycles. One that is down is
    /// still to be kept down where another job of the transaction would bring it up.
    fn drop_redundant(&mut self, anchor: UnitId) {
        for unit in self.units() {
            let idle = |kind: JobType| self.facts.is_redundant(unit, kind);
            let redundant = unit != anchor
                && self.facts.installed(unit).is_none()
                && self.of(unit).all(|(kind, _)| idle(kind));
            if redundant {
                self.drop_jobs(unit);
            }
        }
    }

    /// Drops the jobs of a unit, and nothing that needs them.
    fn drop_jobs(&mut self, unit: UnitId) {
        let all: Vec<NodeId> = self.of(unit).map(|(_, id)| id).collect();
        all.into_iter().for_each(|id| self.drop_alone(id));
    }

    /// Mode fail leaves out what would stop a unit that is up or reverse a queued job, where the request does without.
    fn spare_others(&mut self) {
        let disturbs = |(key, id): (&Key, &NodeId)| {
            let matters = self.nodes.get(*id).is_some_and(|node| node.matters);
            let stops = key.1 == JobType::Stop && self.facts.is_active(key.0);
            let reverses = |(queued, _): (JobType, bool)| queued.merge(key.1).is_none();
            (!matters && (stops || self.facts.installed(key.0).is_some_and(reverses))).then_some(*id)
        };
        let disturbing: Vec<NodeId> = self.places.iter().filter_map(disturbs).collect();
        for id in disturbing {
            self.drop_with_needing(id);
        }
    }

    /// What a restart stops and starts again is restarted: a stop that it propagates (`PropagatesStopTo=`) meets the start of
    /// what the same restart requires. What such a stop takes along may be among that, too.
    fn renew(&mut self) {
        let mut stops = self.stops_of_restarts();
        loop {
            let (met, mut others): (BTreeSet<_>, BTreeSet<_>) =
                stops.into_iter().partition(|id| self.meets_a_start(*id));
            if met.is_empty() {
                return;
            }
            // What is restarted pulls in starts, which may meet others.
            for id in met {
                others.extend(self.stops_along(id));
                self.restart_instead(id);
            }
            stops = others;
        }
    }

    /// Makes the stop of a unit that is to start as well a restart.
    fn restart_instead(&mut self, stop: NodeId) {
        let Some((unit, _)) = self.nodes.get(stop).map(|node| node.key) else { return };
        if self.of(unit).any(|(kind, _)| matches!(kind, JobType::Restart | JobType::TryRestart)) {
            return self.drop_alone(stop);
        }
        self.places.remove(&(unit, JobType::Stop));
        self.places.insert((unit, JobType::Restart), stop);
        self.nodes.get_mut(stop).into_iter().for_each(|node| node.key.1 = JobType::Restart);
        self.expand(stop);
    }

    fn meets_a_start(&self, stop: NodeId) -> bool {
        let starts = [JobType::Start, JobType::Restart, JobType::TryRestart];
        let unit = self.nodes.get(stop).map(|node| node.key.0);
        unit.is_some_and(|unit| self.of(unit).any(|(kind, _)| starts.contains(&kind)))
    }

    /// The stops that restarts propagate.
    fn stops_of_restarts(&self) -> BTreeSet<NodeId> {
        let restarts = |id: NodeId| {
            let node = self.nodes.get(id).filter(|node| !node.dropped);
            node.is_some_and(|node| matches!(node.key.1, JobType::Restart | JobType::TryRestart))
        };
        let propagated = |link: &&Link| link.via == Dependency::PropagatesStopTo && restarts(link.from);
        let stops = self.links.iter().filter(propagated).map(|link| link.to);
        stops.filter(|id| self.is_stop(*id)).collect()
    }

    /// The stops that a stop takes along.
    fn stops_along(&self, id: NodeId) -> Vec<NodeId> {
        let pulls = self.nodes.get(id).map_or(&[][..], |node| &node.pulls);
        self.links(pulls).map(|link| link.to).filter(|to| self.is_stop(*to)).collect()
    }

    fn is_stop(&self, id: NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| !node.dropped && node.key.1 == JobType::Stop)
    }

    /// A stop that is only propagated does not come for a unit that the request starts: nor does anything that it would bring.
    fn spare_what_starts(&mut self) {
        let spared = |unit: &UnitId| {
            let starts = |(kind, _): (JobType, NodeId)| kind != JobType::Stop && self.matters((*unit, kind));
            self.matters((*unit, JobType::Stop))
                && self.of(*unit).any(starts)
                && self.is_only_propagated(*unit)
        };
        let stops: Vec<NodeId> = self
            .units()
            .into_iter()
            .filter(spared)
            .filter_map(|unit| self.places.get(&(unit, JobType::Stop)).copied())
            .collect();
        if !stops.is_empty() {
            for id in stops {
                self.drop_alone(id);
                self.nodes.get_mut(id).into_iter().for_each(|node| node.spared = true);
            }
            self.collect();
            // Who needs these is not dropped, so that less matters now.
            self.nodes.iter_mut().for_each(|node| node.matters = false);
            self.find_what_matters();
        }
    }

    /// First where the request needs one of the jobs, which leaves no choice. Dropping one job never tears another unit, so
    /// that one look at each is enough.
    fn settle_conflicts(&mut self) -> Result<(), TransactionError> {
        let torn = self.units().into_iter().filter(|unit| self.merged(*unit).is_none());
        let (first, then): (Vec<_>, Vec<_>) = torn.partition(|unit| self.unit_matters(*unit));
        for unit in first.into_iter().chain(then) {
            if self.merged(unit).is_some() {
                continue;
            }
            let matters = |kind: JobType| self.matters((unit, kind));
            let is_stop = |kind: &JobType| *kind == JobType::Stop;
            let kinds: Vec<JobType> = self.of(unit).map(|(kind, _)| kind).collect();
            let up_matters = kinds.iter().any(|kind| !is_stop(kind) && matters(*kind));
            let stop_goes = match (matters(JobType::Stop), up_matters) {
                (true, true) if !self.is_only_propagated(unit) => {
                    return Err(TransactionError::Conflicting(unit));
                }
                (true, true) => true,
                (true, false) => false,
                (false, true) => true,
                // Neither matters: the unit that conflicts is started, and that which it conflicts with stopped
                // (systemd.unit(5), `Conflicts=`).
                (false, false) => !self.is_conflict_stop(unit),
            };
            // Here a propagated stop gives way alone: what propagates it still goes down.
            let needs = |link: &Link| link.matters && link.via != Dependency::PropagatesStopTo;
            for kind in kinds.into_iter().filter(|kind| is_stop(kind) == stop_goes) {
                self.places.get(&(unit, kind)).copied().map(|id| self.drop_with(id, needs));
            }
        }
        Ok(())
    }

    /// Whether the request needs the stop of a unit by `PropagatesStopTo=` alone.
    fn is_only_propagated(&self, unit: UnitId) -> bool {
        let stop = self.places.get(&(unit, JobType::Stop)).filter(|id| !self.roots.contains(id));
        // What a stop that changes nothing needs is needed all the same.
        let needs = |link: &&Link| {
            link.matters && self.nodes.get(link.from).is_some_and(|from| from.matters && !from.spared)
        };
        stop.and_then(|id| self.nodes.get(*id)).is_some_and(|node| {
            let pulled = node.pulled.iter().filter_map(|id| self.links.get(*id));
            pulled.filter(needs).all(|link| link.via == Dependency::PropagatesStopTo)
        })
    }

    fn is_conflict_stop(&self, unit: UnitId) -> bool {
        let stop = self.places.get(&(unit, JobType::Stop)).and_then(|id| self.nodes.get(*id));
        stop.is_some_and(|node| self.links(&node.pulled).any(|link| link.via == Dependency::Conflicts))
    }

    fn drop_alone(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.dropped = true;
            self.places.remove(&node.key);
        }
    }

    /// Drops a job and every job that needs it; their units.
    fn drop_with_needing(&mut self, id: NodeId) -> Vec<UnitId> {
        self.drop_with(id, |link| link.matters)
    }

    /// Drops a job and, along these links, every job that pulled it in; their units.
    fn drop_with(&mut self, id: NodeId, needs: impl Fn(&Link) -> bool) -> Vec<UnitId> {
        let (mut stack, mut units) = (vec![id], Vec::new());
        while let Some(id) = stack.pop() {
            let Some(node) = self.nodes.get(id).filter(|node| !node.dropped) else { continue };
            stack.extend(self.links(&node.pulled).filter(|link| needs(link)).map(|link| link.from));
            units.push(node.key.0);
            self.drop_alone(id);
        }
        units
    }

    /// Drops all jobs of a unit, with all that needs them; the units that lost a job.
    pub(crate) fn drop_unit(&mut self, unit: UnitId) -> Vec<UnitId> {
        let all: Vec<NodeId> = self.of(unit).map(|(_, id)| id).collect();
        all.into_iter().flat_map(|id| self.drop_with_needing(id)).collect()
    }

    /// Drops what nothing pulls in any more.
    fn collect(&mut self) {
        let mut needed = vec![false; self.nodes.len()];
        let mut stack = self.roots.clone();
        while let Some(id) = stack.pop() {
            let (Some(seen), Some(node)) = (needed.get_mut(id), self.nodes.get(id)) else { continue };
            if !std::mem::replace(seen, true) && !node.dropped {
                stack.extend(self.links(&node.pulls).map(|link| link.to));
            }
        }
        let orphans: Vec<NodeId> =
            self.places.values().copied().filter(|id| needed.get(*id) != Some(&true)).collect();
        orphans.into_iter().for_each(|id| self.drop_alone(id));
    }

    fn check_destruction(&self, anchor: UnitId) -> Result<(), TransactionError> {
        let jobs: Vec<Key> =
            self.units().into_iter().filter_map(|unit| Some((unit, self.merged(unit)?))).collect();
        // A lenient transaction disturbs nobody: what is up stays up.
        let disturbs =
            |(unit, kind): &&Key| *unit != anchor && *kind == JobType::Stop && self.facts.is_active(*unit);
        if let (JobMode::Lenient, Some((unit, _))) = (self.mode, jobs.iter().find(disturbs)) {
            return Err(TransactionError::Destructive(*unit));
        }
        let gentle = matches!(self.mode, JobMode::Fail | JobMode::Lenient);
        for (unit, kind) in jobs {
            let destroys = |(installed, irreversible): (JobType, bool)| {
                kind.merge(installed).is_none() && (gentle || irreversible)
            };
            if self.facts.installed(unit).is_some_and(destroys) {
                return Err(TransactionError::Destructive(unit));
            }
        }
        Ok(())
    }

    fn finish(self, anchor: UnitId) -> Transaction {
        let units = self.units().into_iter();
        let jobs = units.filter_map(|unit| Some((unit, self.merged(unit)?))).collect();
        let mut pulled_by = BTreeMap::new();
        for link in &self.links {
            let ends = self.nodes.get(link.from).zip(self.nodes.get(link.to));
            if let Some((from, to)) = ends.filter(|(_, to)| !to.dropped) {
                pulled_by.entry(to.key.0).or_insert((from.key.0, link.via));
            }
        }
        Transaction { jobs, anchor: Some(anchor), notes: self.notes, pulled_by }
    }
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
