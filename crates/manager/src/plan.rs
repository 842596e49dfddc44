//! What a request would do, and why a unit is not up: both only read.
//!
//! [`Manager::plan`] resolves a request as [`Manager::enqueue`](crate::Manager) does and runs nothing. [`Manager::why_not`]
//! says what keeps a unit down, the nearest reason first. What must stay true: asking changes no state.

use crate::manager::Manager;
use crate::refused::Refused;
use crate::state::{ActiveState, Service, Unit, UnitResult};
use muster_graph::transaction::{self, Note, Transaction, TransactionError};
use muster_graph::{Dependency, JobMode, JobType, UnitId};
use muster_unit::{LoadState, UnitName};
use std::collections::{BTreeMap, BTreeSet};

/// At most this many units are named for one reason.
const NAMED_MAX: usize = 20;

/// A request as it would be carried out.
#[derive(Debug, Default)]
pub struct Plan {
    /// The jobs: each comes after all that it waits for.
    pub jobs: Vec<Planned>,
    /// Jobs that are left out, with the reason.
    pub notes: Vec<String>,
    /// Ordering cycles: in each the first waits for the second and so on, the last for the first.
    pub cycles: Vec<Vec<UnitName>>,
    /// The request would be refused.
    pub refused: Option<Refused>,
}

/// A job of a plan.
#[derive(Debug)]
pub struct Planned {
    /// Its unit.
    pub unit: UnitName,
    /// What is done with it.
    pub kind: JobType,
    /// What asks for it.
    pub why: String,
    /// How many others, one after the other, come before it at least: jobs of the same number run at once.
    pub step: usize,
}

impl Manager {
    /// The transaction of a request on a loaded unit, in order, not run.
    pub fn plan(&self, unit: UnitId, kind: JobType, mode: JobMode) -> Plan {
        let refused = |refused| Plan { refused: Some(refused), ..Plan::default() };
        if let Err(why) = self.check_mode(unit, kind, mode) {
            return refused(why);
        }
        match transaction::build(&self.state.graph, self, unit, kind, mode) {
            Ok(made) => self.planned(&made),
            Err(error) => {
                let cycles = match &error {
                    TransactionError::Cyclic(cycle) => vec![self.names_of(cycle)],
                    _ => Vec::new(),
                };
                Plan { cycles, ..refused(self.refused_transaction(unit, kind, error)) }
            }
        }
    }

    fn names_of(&self, units: &[UnitId]) -> Vec<UnitName> {
        units.iter().map(|unit| self.name_of(*unit)).collect()
    }

    fn planned(&self, made: &Transaction) -> Plan {
        let jobs = self.in_order(made).into_iter().map(|(step, unit, kind)| {
            let why = match made.pulled_by.get(&unit) {
                Some((by, via)) if Some(unit) != made.anchor => {
                    format!("{} {}=", self.unit_name(*by), via.name())
                }
                _ => "asked for".to_owned(),
            };
            Planned { unit: self.name_of(unit), kind: kind.collapse(self.is_up(unit)), why, step }
        });
        let cycles = made.notes.iter().filter_map(|note| match note {
            Note::Cycle(cycle, _) => Some(self.names_of(cycle)),
            Note::Refused(..) | Note::More(_) => None,
        });
        Plan {
            jobs: jobs.collect(),
            notes: made.notes.iter().map(|note| self.note_text(note)).collect(),
            cycles: cycles.collect(),
            refused: None,
        }
    }

    fn is_up(&self, unit: UnitId) -> bool {
        transaction::Facts::is_active(self, unit)
    }

    /// Each job with the length of the longest chain of jobs before it; those of one length by name.
    fn in_order(&self, made: &Transaction) -> Vec<(usize, UnitId, JobType)> {
        let job_of = |unit: UnitId| made.jobs.get(&unit).copied();
        let mut before: BTreeMap<UnitId, usize> = BTreeMap::new();
        let mut after: BTreeMap<UnitId, Vec<UnitId>> = BTreeMap::new();
        for (&unit, &kind) in &made.jobs {
            let waits: BTreeSet<UnitId> =
                transaction::waits_for(&self.state.graph, unit, kind, job_of).into_iter().collect();
            before.insert(unit, waits.len());
            for other in waits {
                after.entry(other).or_default().push(unit);
            }
        }
        let mut ready: Vec<UnitId> =
            before.iter().filter(|(_, count)| **count == 0).map(|(unit, _)| *unit).collect();
        let mut done = Vec::new();
        let mut step = 0_usize;
        while !ready.is_empty() {
            ready.sort_by_cached_key(|unit| self.unit_name(*unit));
            let mut next = Vec::new();
            for unit in ready {
                done.extend(job_of(unit).map(|kind| (step, unit, kind)));
                for other in after.remove(&unit).unwrap_or_default() {
                    if let Some(count) = before.get_mut(&other) {
                        *count = count.saturating_sub(1);
                        if *count == 0 {
                            next.push(other);
                        }
                    }
                }
            }
            ready = next;
            step = step.saturating_add(1);
        }
        done
    }

    /// What keeps a loaded unit from being up, a sentence each, the nearest first; nothing where it is up.
    pub fn why_not(&self, id: UnitId) -> Vec<String> {
        let Some(unit) = self.state.units.get(&id) else { return Vec::new() };
        if matches!(unit.active_state(), ActiveState::Active | ActiveState::Reloading) {
            return Vec::new();
        }
        let mut why = Vec::new();
        why.extend(not_loaded(unit));
        self.job_waits(id, &mut why);
        self.conditions_failed(unit, &mut why);
        self.run_failed(unit, &mut why);
        self.limit_reached(unit, &mut why);
        self.around(id, &mut why);
        if why.is_empty() {
            self.nobody_asked(unit, &mut why);
        }
        why
    }

    /// Its job: what it waits for.
    fn job_waits(&self, id: UnitId, why: &mut Vec<String>) {
        let Some(job) = self.state.jobs.of(id) else { return };
        let kind = job.kind.as_str();
        let cause = &job.cause;
        if job.running {
            return why.push(format!("its {kind} job is running ({cause})"));
        }
        let waits = self.state.jobs.waits_for(&self.state.graph, job);
        if waits.is_empty() {
            why.push(format!("its {kind} job is queued ({cause})"));
        }
        for other in waits.iter().take(NAMED_MAX) {
            let theirs = self.state.jobs.of(*other).map_or("", |job| job.kind.as_str());
            let name = self.unit_name(*other);
            why.push(format!("its {kind} job ({cause}) waits for {name}, whose {theirs} job is not done"));
        }
        let more = waits.len().saturating_sub(NAMED_MAX);
        why.extend((more > 0).then(|| format!("and for {more} more")));
    }

    fn conditions_failed(&self, unit: &Unit, why: &mut Vec<String>) {
        if unit.pending_conditions.is_some() {
            return why.push("its conditions are being checked".to_owned());
        }
        let checked = unit.condition_stamp.monotonic_usec != 0 || unit.assert_stamp.monotonic_usec != 0;
        if !checked || (unit.condition_result && unit.assert_result) {
            return;
        }
        let each = unit.file.unit.conditions().iter().zip(&unit.condition_each);
        let unmet = each.filter(|(_, result)| **result < 0).map(|(condition, _)| condition);
        why.extend(unmet.map(|condition| format!("{condition} did not hold when it was last started")));
    }

    fn run_failed(&self, unit: &Unit, why: &mut Vec<String>) {
        let result = unit.kind.state().result();
        if unit.active_state() != ActiveState::Failed || result == UnitResult::StartLimitHit {
            return;
        }
        let how = Service::of(&unit.kind).and_then(|service| service.main_status.how);
        let how = how.map_or(String::new(), |how| {
            let (code, status) = crate::spawn::exit_words(how);
            format!(", its main process {code} with {status}")
        });
        why.push(format!("it failed with result '{}'{how}", result.as_str()));
    }

    fn limit_reached(&self, unit: &Unit, why: &mut Vec<String>) {
        let facts = &self.state.facts;
        let section = &unit.file.unit;
        let interval =
            section.start_limit_interval_sec().map_or(facts.default_start_limit_interval_usec, |span| span.0);
        let burst = section.start_limit_burst().unwrap_or(facts.default_start_limit_burst);
        let window = &unit.start_limit;
        let now = self.now.monotonic_usec;
        let open = window.begin_usec.saturating_add(interval);
        if interval != 0 && burst != 0 && window.count >= burst && window.begin_usec != 0 && open > now {
            let seconds = open.saturating_sub(now).div_ceil(1_000_000);
            why.push(format!(
                "it was started {} times, which is the limit (StartLimitBurst={burst}), for {seconds} more seconds or until systemctl reset-failed",
                window.count
            ));
        } else if unit.kind.state().result() == UnitResult::StartLimitHit {
            why.push(format!("it was started too often (StartLimitBurst={burst})"));
        }
    }

    /// What it needs and is not up, and what is up and shuts it out.
    fn around(&self, id: UnitId, why: &mut Vec<String>) {
        for kind in [Dependency::Requires, Dependency::BindsTo, Dependency::Requisite] {
            for other in self.state.graph.of(id, kind).take(NAMED_MAX) {
                let Some(unit) = self.state.units.get(&other) else { continue };
                let state = unit.active_state();
                let loads = unit.file.load_state == LoadState::Loaded || self.is_up(other);
                let (kind, name) = (kind.name(), &unit.name);
                if !loads {
                    why.push(format!("{kind}={name}: {}", not_loaded(unit).unwrap_or_default()));
                } else if matches!(state, ActiveState::Failed) || (kind == "Requisite" && !self.is_up(other))
                {
                    why.push(format!("{kind}={name}, which is {}", state.as_str()));
                }
            }
        }
        for kind in [Dependency::Conflicts, Dependency::ConflictedBy] {
            for other in self.state.graph.of(id, kind).filter(|other| self.is_up(*other)).take(NAMED_MAX) {
                let (state, name) = (self.active_state(other).as_str(), self.unit_name(other));
                why.push(format!("{}={name}, which is {state}", kind.name()));
            }
        }
    }

    /// It could be started, as far as is known: who would.
    fn nobody_asked(&self, unit: &Unit, why: &mut Vec<String>) {
        let started = unit.causes.iter().any(|cause| cause.text.starts_with("start queued"));
        why.push(match (started, unit.inactive_enter.monotonic_usec != 0) {
            (_, true) => "it was up, and went down without a failure".to_owned(),
            (true, false) => "its last start came to nothing".to_owned(),
            (false, false) => "nothing has asked for it since it was loaded".to_owned(),
        });
        let kinds = [
            Dependency::WantedBy,
            Dependency::RequiredBy,
            Dependency::BoundBy,
            Dependency::UpheldBy,
            Dependency::TriggeredBy,
        ];
        let by =
            kinds.into_iter().flat_map(|kind| self.state.graph.of(unit.id, kind).map(move |by| (kind, by)));
        for (kind, by) in by.take(NAMED_MAX) {
            let (name, state) = (self.unit_name(by), self.active_state(by).as_str());
            why.push(format!("{}={name}, which is {state}", kind.name()));
        }
        if unit.file.unit.refuse_manual_start() {
            why.push("RefuseManualStart=yes: it starts by dependency only".to_owned());
        }
    }
}

/// What is wrong with its file.
fn not_loaded(unit: &Unit) -> Option<String> {
    let at = unit.file.fragment_path.as_ref().map_or(String::new(), |path| format!(" ({path})"));
    let error = || unit.file.load_error.clone().unwrap_or_default();
    match unit.file.load_state {
        LoadState::NotFound => Some("there is no file of this name in the unit path".to_owned()),
        LoadState::Masked => Some(format!("it is masked{at}")),
        LoadState::BadSetting | LoadState::Error => {
            Some(format!("its file could not be used{at}: {}", error()))
        }
        _ => None,
    }
}
