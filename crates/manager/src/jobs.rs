//! Jobs: from a resolved transaction to work handed to units, and back to a result.
//!
//! Jobs are the only owners of completion. A job runs when nothing it is ordered after waits or runs; it ends by a state
//! of its unit, by its timeout, or by the failure of what it requires. Ends are worked off a list, never by recursion.

use crate::concurrency::Room;
use crate::cycles::Found;
use crate::effect::{BusSignal, Effect, Level};
use crate::manager::Manager;
use crate::refused::{Refused, Word};
use crate::state::ActiveState;
use muster_graph::job::Job;
use muster_graph::queue::{Installed, Order};
use muster_graph::transaction::{self, Facts, Note, Refusal, Transaction, TransactionError};
use muster_graph::{JobId, JobMode, JobResult, JobType, UnitId};
use muster_unit::{LoadState, UnitKind};

/// What a unit said when it was handed a job.
pub(crate) enum Started {
    /// Under way, or already there: its state tells the end.
    Working,
    /// Not now; try again when something changed.
    Later,
    /// The job ended at once.
    Ended(JobResult),
}

/// At most this many jobs are looked at between two `Tick`s, which come once a turn of the loop: what a job brings about
/// at once (the start of a process is an event, too) draws on the same budget, so that a large transaction keeps nobody
/// waiting.
pub(crate) const JOBS_A_TURN: usize = 64;
/// `OnFailure=` follows at most [`UNRUN_FAILURES_MAX`] failures of a unit that did not run within this time.
const UNRUN_INTERVAL_USEC: u64 = 10_000_000;
const UNRUN_FAILURES_MAX: u32 = 16;
/// The most jobs that wait at a time.
const JOBS_MAX: usize = 100_000;

impl Facts for Manager {
    fn is_active(&self, unit: UnitId) -> bool {
        matches!(
            self.active_state(unit),
            ActiveState::Active | ActiveState::Activating | ActiveState::Reloading
        )
    }

    fn is_redundant(&self, unit: UnitId, kind: JobType) -> bool {
        let active = matches!(self.active_state(unit), ActiveState::Active | ActiveState::Reloading);
        match kind {
            JobType::Start | JobType::VerifyActive => active,
            JobType::Stop => matches!(self.active_state(unit), ActiveState::Inactive | ActiveState::Failed),
            JobType::Reload => self.active_state(unit) == ActiveState::Reloading,
            JobType::Nop => true,
            JobType::Restart | JobType::TryRestart | JobType::TryReload | JobType::ReloadOrStart => false,
        }
    }

    fn refusal(&self, unit: UnitId, kind: JobType) -> Option<Refusal> {
        let unit = self.state.units.get(&unit)?;
        if matches!(kind, JobType::Stop | JobType::Nop) {
            return (kind == JobType::Stop && unit.perpetual).then_some(Refusal::NotApplicable);
        }
        if kind == JobType::VerifyActive {
            return None;
        }
        match unit.file.load_state {
            LoadState::NotFound => Some(Refusal::NotFound),
            LoadState::Masked => Some(Refusal::Masked),
            LoadState::BadSetting | LoadState::Error => {
                Some(Refusal::LoadFailed(unit.file.load_error.clone().unwrap_or_default()))
            }
            _ if matches!(kind, JobType::Reload | JobType::TryReload) && !self.can_reload(unit.id) => {
                Some(Refusal::NotApplicable)
            }
            // What somebody else made is not made again.
            _ if matches!(kind, JobType::Restart | JobType::TryRestart)
                && matches!(unit.name.kind(), UnitKind::Scope | UnitKind::Device) =>
            {
                Some(Refusal::NotApplicable)
            }
            _ => None,
        }
    }

    fn installed(&self, unit: UnitId) -> Option<(JobType, bool)> {
        self.state.jobs.of(unit).map(|job| (job.kind, job.irreversible))
    }

    fn ignores_isolate(&self, unit: UnitId) -> bool {
        self.state.units.get(&unit).is_none_or(|unit| {
            let kind_default = crate::kind::ignores_isolate(unit.name.kind());
            unit.perpetual || unit.file.unit.ignore_on_isolate().unwrap_or(kind_default)
        })
    }

    fn all(&self) -> Vec<UnitId> {
        self.state.units.keys().copied().collect()
    }

    fn name(&self, unit: UnitId) -> String {
        self.unit_name(unit)
    }

    /// What a boot can do without gives way in a cycle: services before mounts and devices, these before sockets, targets
    /// last, and whatever does without default dependencies, since it belongs to the early boot, after all else.
    fn rank(&self, unit: UnitId) -> u8 {
        let Some(unit) = self.state.units.get(&unit) else { return 0 };
        let kind = match unit.name.kind() {
            UnitKind::Service | UnitKind::Scope => 0,
            UnitKind::Timer | UnitKind::Path => 1,
            UnitKind::Swap | UnitKind::Automount | UnitKind::Mount | UnitKind::Device => 2,
            UnitKind::Socket => 3,
            UnitKind::Target => 4,
            UnitKind::Slice => 5,
        };
        if unit.file.unit.default_dependencies() { kind } else { kind | 8 }
    }
}

impl Manager {
    /// Resolves a request and installs its jobs; gives the job of the unit asked for.
    pub(crate) fn enqueue(
        &mut self,
        unit: UnitId,
        kind: JobType,
        mode: JobMode,
        cause: &str,
    ) -> Result<JobId, Refused> {
        if self.state.jobs.len() >= JOBS_MAX {
            return Err(Refused::TooManyJobs);
        }
        self.check_mode(unit, kind, mode)?;
        self.check_concurrency(unit, kind)?;
        let made = match transaction::build(&self.state.graph, self, unit, kind, mode) {
            Ok(made) => made,
            Err(error) => {
                if let TransactionError::Cyclic(cycle) = &error {
                    self.cycles.push(Found { anchor: unit, cycle: cycle.clone(), victim: None });
                }
                return Err(self.refused_transaction(unit, kind, error));
            }
        };
        for note in &made.notes {
            match note {
                Note::Cycle(cycle, victim) => {
                    let (cycle, victim) = (cycle.clone(), Some(*victim));
                    self.cycles.push(Found { anchor: unit, cycle, victim });
                }
                Note::Refused(..) | Note::More(_) => {
                    self.log(Level::Warning, Some(unit), self.note_text(note));
                }
            }
        }
        if mode == JobMode::Flush {
            self.clear_jobs_except(&made);
        }
        self.install(made, mode, cause)
    }

    /// Why jobs were left out of a transaction, for people.
    pub fn note_text(&self, note: &Note) -> String {
        match note {
            Note::Refused(unit, refusal) => {
                let why = match refusal {
                    Refusal::NotFound => "it is not found",
                    Refusal::Masked => "it is masked",
                    Refusal::LoadFailed(why) => {
                        let unit = self.unit_name(*unit);
                        return format!("Leaving out what needs {unit}: it could not be loaded: {why}");
                    }
                    Refusal::NotApplicable => "it cannot take such a job",
                };
                format!("Leaving out what needs {}: {why}", self.unit_name(*unit))
            }
            Note::Cycle(cycle, victim) => format!(
                "Found ordering cycle {}: job of {} left out to break it",
                self.cycle_text(cycle),
                self.unit_name(*victim)
            ),
            Note::More(count) => format!("{count} more jobs were left out."),
        }
    }

    pub(crate) fn check_mode(&self, unit: UnitId, kind: JobType, mode: JobMode) -> Result<(), Refused> {
        match mode {
            JobMode::Triggering if kind != JobType::Stop => return Err(Refused::TriggeringStops),
            JobMode::RestartDependencies if kind != JobType::Start => {
                return Err(Refused::RestartDependenciesStarts);
            }
            JobMode::Isolate => {}
            _ => return Ok(()),
        }
        if kind != JobType::Start {
            return Err(Refused::IsolateStarts);
        }
        match self.state.units.get(&unit) {
            Some(unit) if !unit.file.unit.allow_isolate() => Err(Refused::NoIsolation),
            _ => Ok(()),
        }
    }

    pub(crate) fn refused_transaction(
        &self,
        anchor: UnitId,
        kind: JobType,
        error: TransactionError,
    ) -> Refused {
        let name = |unit: UnitId| self.name_of(unit);
        match error {
            TransactionError::Refused(unit, Refusal::NotFound) => Refused::NotFound { unit: name(unit) },
            TransactionError::Refused(unit, Refusal::Masked) => Refused::Masked { unit: name(unit) },
            TransactionError::Refused(id, Refusal::LoadFailed(_)) => {
                let unit = name(id);
                match self.state.units.get(&id).map(|unit| unit.file.load_state) {
                    Some(LoadState::BadSetting) => Refused::BadSetting { unit },
                    _ if self.state.bus_names_refused.contains(&id) => Refused::NameTaken { unit },
                    _ => Refused::DependencyNotLoaded { unit },
                }
            }
            TransactionError::Refused(unit, Refusal::NotApplicable) => {
                Refused::NotApplicable { unit: name(unit), kind: Word(kind) }
            }
            TransactionError::Conflicting(unit) => Refused::Conflicting { unit: name(unit) },
            TransactionError::Cyclic(_) => Refused::Cyclic,
            TransactionError::Destructive(id) => {
                let (anchor, kind, unit) = (name(anchor), Word(kind), name(id));
                match self.installed(id) {
                    Some((queued, _)) => {
                        let planned = if queued == JobType::Stop { JobType::Start } else { JobType::Stop };
                        let (queued, planned) = (Word(queued), Word(planned));
                        Refused::Destructive { anchor, kind, unit, queued, planned }
                    }
                    None => Refused::Disturbing { anchor, kind, unit },
                }
            }
        }
    }

    fn clear_jobs_except(&mut self, made: &Transaction) {
        let doomed: Vec<JobId> = self
            .state
            .jobs
            .values()
            .filter(|job| !job.irreversible && !made.jobs.contains_key(&job.unit))
            .map(|job| job.id)
            .collect();
        for job in doomed {
            let unit = self.state.jobs.get(&job).map(|job| job.unit);
            self.finish_job(job, JobResult::Canceled, false);
            unit.into_iter().for_each(|unit| self.tell_triggers(unit));
        }
    }

    fn install(&mut self, made: Transaction, mode: JobMode, cause: &str) -> Result<JobId, Refused> {
        let mut anchor_job = None;
        // Who only looks whether a unit is up does so before anything is started, where nothing is ordered otherwise.
        let looks = |(_, kind): &(&UnitId, &JobType)| **kind == JobType::VerifyActive;
        let (first, then) = (made.jobs.iter().filter(looks), made.jobs.iter().filter(|job| !looks(job)));
        for (&unit, &kind) in first.chain(then) {
            let pulled =
                made.pulled_by.get(&unit).map(|(by, via)| format!("{} {}=", self.unit_name(*by), via.name()));
            let why = match pulled {
                Some(by) if Some(unit) != made.anchor => format!("{by} (of {cause})"),
                _ => cause.to_owned(),
            };
            let asked = Some(unit) == made.anchor;
            let job = self.install_one(unit, kind.collapse(self.is_active(unit)), mode, asked, why);
            if asked {
                anchor_job = Some(job);
            }
        }
        anchor_job.ok_or(Refused::Nothing)
    }

    fn install_one(
        &mut self,
        unit: UnitId,
        kind: JobType,
        mode: JobMode,
        asked: bool,
        cause: String,
    ) -> JobId {
        let timeout = self.state.units.get(&unit).and_then(|unit| unit.file.unit.job_timeout_sec());
        let order = Order {
            unit,
            kind,
            irreversible: mode == JobMode::ReplaceIrreversibly,
            ignore_order: mode == JobMode::IgnoreDependencies,
            asked,
            now_usec: self.now.monotonic_usec,
            deadline_usec: self.now.monotonic_usec.saturating_add(timeout.map_or(u64::MAX, |span| span.0)),
            cause: cause.clone(),
        };
        let active = self.is_active(unit);
        let id = match self.state.jobs.install(order.clone(), active) {
            Installed::New(id) => id,
            Installed::Merged(id) => {
                let name = self.name_of(unit);
                self.effects.push_back(Effect::Signal(BusSignal::JobChanged { job: id, unit: name }));
                return id;
            }
            Installed::Against(old) => {
                self.finish_job(old, JobResult::Canceled, false);
                match self.state.jobs.install(order, active) {
                    Installed::New(id) | Installed::Merged(id) | Installed::Against(id) => id,
                }
            }
        };
        self.follow_job_deadline(id);
        self.state.n_installed_jobs = self.state.n_installed_jobs.saturating_add(1);
        self.note_cause(unit, format!("{} queued: {cause}", kind.as_str()));
        let name = self.name_of(unit);
        if self.state.announced.insert(unit) {
            self.effects.push_back(Effect::Signal(BusSignal::UnitNew { unit: name.clone() }));
        }
        self.effects.push_back(Effect::Signal(BusSignal::JobNew { job: id, unit: name }));
        self.follow_shutdown(unit);
        self.touch(unit);
        id
    }

    /// Works the run queue off, as far as one turn may go; what cannot run yet is put back by the event that frees it.
    pub(crate) fn run_jobs(&mut self) {
        while self.state.jobs_left > 0 {
            let Some(id) = self.state.jobs.pop() else { return };
            self.state.jobs_left = self.state.jobs_left.saturating_sub(1);
            self.run_job(id);
        }
    }

    fn run_job(&mut self, id: JobId) {
        if !self.state.jobs.may_run(&self.state.graph, id) {
            return;
        }
        let Some(job) = self.state.jobs.get(&id).cloned() else { return };
        match if job.kind == JobType::Start { self.room_for(job.unit) } else { Room::Free } {
            Room::Free => self.rests_no_more(job.unit),
            Room::Later(slice) => return self.rest_below(job.unit, slice),
            Room::Never(slice) => {
                let (name, slice) = (self.unit_name(job.unit), self.unit_name(slice));
                let text = format!("{name}: {slice} has as many units as ConcurrencyHardMax= allows.");
                self.log(Level::Warning, Some(job.unit), text);
                return self.finish_job(id, JobResult::Concurrency, true);
            }
        }
        let now = self.now.monotonic_usec;
        self.state.jobs.begin(id, now);
        let unit = self.state.units.get(&job.unit);
        let said = unit.and_then(|unit| unit.file.unit.job_running_timeout_sec()).map(|span| span.0);
        let device = unit.is_some_and(|unit| unit.name.kind() == UnitKind::Device);
        let usual = device.then_some(self.state.facts.config.default_device_timeout_usec);
        if let Some(span) = said.or(usual) {
            self.state.jobs.limit(id, now.saturating_add(span));
        }
        self.follow_job_deadline(id);
        let outcome = match job.kind {
            JobType::Start => self.start_unit(job.unit),
            JobType::Stop => self.stop_unit(job.unit),
            JobType::Restart => self.restart_unit(job.unit),
            JobType::Reload => self.reload_unit(job.unit),
            JobType::VerifyActive => self.verify_active(job.unit),
            JobType::Nop | JobType::TryRestart | JobType::TryReload | JobType::ReloadOrStart => {
                Started::Ended(JobResult::Done)
            }
        };
        match outcome {
            Started::Working => self.check_job_after_start(id),
            Started::Later => self.state.jobs.rest(id),
            // There was nothing to do, so there is nothing to say; but for a reload that goes on to others.
            Started::Ended(JobResult::Done) => {
                self.end_job(id, JobResult::Done, true, job.kind == JobType::Reload);
            }
            Started::Ended(result) => self.finish_job(id, result, true),
        }
    }

    /// A unit that was there already, or got there within the call, does not send another change.
    fn check_job_after_start(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get(&id).filter(|job| job.running) else { return };
        let (unit, state) = (job.unit, self.active_state(job.unit));
        let there = match job.kind {
            JobType::Start => state == ActiveState::Active,
            JobType::Stop | JobType::Restart => matches!(state, ActiveState::Inactive | ActiveState::Failed),
            _ => false,
        };
        if there && job.kind == JobType::Restart {
            // It was down: there was nothing to stop, and there is nothing to say.
            self.turn_into_start(id);
        } else if there {
            self.job_by_state(unit);
        } else if job.kind == JobType::Restart && self.is_restarting(unit) {
            self.turn_into_start(id);
        }
    }

    fn verify_active(&self, unit: UnitId) -> Started {
        match self.active_state(unit) {
            ActiveState::Active | ActiveState::Reloading => Started::Ended(JobResult::Done),
            ActiveState::Activating => Started::Later,
            _ => Started::Ended(JobResult::Skipped),
        }
    }

    fn restart_unit(&mut self, unit: UnitId) -> Started {
        match self.active_state(unit) {
            ActiveState::Inactive | ActiveState::Failed => Started::Working,
            // An automatic restart: its run is over, only the start is left.
            ActiveState::Activating if self.is_restarting(unit) => Started::Working,
            _ => self.stop_unit(unit),
        }
    }

    /// Looks whether the unit's state ends its job.
    pub(crate) fn job_by_state(&mut self, unit: UnitId) {
        let Some(job) = self.state.jobs.of(unit).cloned() else { return };
        let id = job.id;
        let state = self.active_state(unit);
        let up = matches!(state, ActiveState::Active | ActiveState::Reloading);
        let asking = self.state.units.get(&unit).is_some_and(|unit| unit.pending_conditions.is_some());
        let down = matches!(state, ActiveState::Inactive | ActiveState::Failed) && !asking;
        match job.kind {
            JobType::Start | JobType::VerifyActive if up => self.finish_job(id, JobResult::Done, true),
            JobType::Start if job.running && down => {
                let result = if state == ActiveState::Failed { JobResult::Failed } else { JobResult::Done };
                self.finish_job(id, result, true);
            }
            JobType::Reload if job.running && state == ActiveState::Active => {
                let result = if self.reload_failed(unit) { JobResult::Failed } else { JobResult::Done };
                self.finish_job(id, result, true);
            }
            JobType::Reload if job.running && (down || state == ActiveState::Deactivating) => {
                self.finish_job(id, JobResult::Failed, true);
            }
            JobType::Stop if down => self.finish_job(id, JobResult::Done, true),
            JobType::Restart if down && job.running => {
                self.report_job_end(&job, JobResult::Done);
                self.turn_into_start(id)
            }
            JobType::Stop | JobType::Restart if job.running && up => {
                self.finish_job(id, JobResult::Failed, true)
            }
            // A unit that stops while its start job is queued, or the reverse, keeps the job waiting.
            _ => self.state.jobs.wake(unit),
        }
    }

    fn reload_failed(&self, unit: UnitId) -> bool {
        let mount = self.state.units.get(&unit).and_then(|unit| crate::kind::Mount::of(&unit.kind));
        let result = self.service(unit).map(|service| service.reload_result);
        let result = result.or(mount.map(|mount| mount.reload_result));
        result.is_some_and(|result| result != crate::state::UnitResult::Success)
    }

    fn turn_into_start(&mut self, id: JobId) {
        self.state.jobs.turn(id, JobType::Start);
    }

    /// Ends a job and what falls with it. Without `propagate` nothing falls (it is being replaced).
    pub(crate) fn finish_job(&mut self, id: JobId, result: JobResult, propagate: bool) {
        self.end_job(id, result, propagate, true);
    }

    fn end_job(&mut self, id: JobId, result: JobResult, propagate: bool, report: bool) {
        let units = &self.state.units;
        let is_down = |unit: UnitId| {
            let state = units.get(&unit).map(|unit| unit.active_state());
            matches!(state, Some(ActiveState::Inactive | ActiveState::Failed) | None)
        };
        for (job, result) in self.state.jobs.end(&self.state.graph, id, result, propagate, is_down) {
            self.job_ended(&job, result, propagate, report);
        }
        self.check_startup_finished();
    }

    /// What follows from the end of a job.
    fn job_ended(&mut self, job: &Job, result: JobResult, propagate: bool, report: bool) {
        self.follow_job_deadline(job.id);
        self.something_moved();
        self.follow_shutdown(job.unit);
        if result == JobResult::Failed {
            self.state.n_failed_jobs = self.state.n_failed_jobs.saturating_add(1);
        }
        if report {
            self.report_job_end(job, result);
        }
        let unit = self.name_of(job.unit);
        self.touch(job.unit);
        self.flush_changes();
        self.effects.push_back(Effect::Signal(BusSignal::JobRemoved { job: job.id, unit, result }));
        // The unit itself did not fail, so that nothing else says so.
        let handled = match result {
            JobResult::Dependency => Some("a dependency failed"),
            JobResult::Timeout => Some("its job timed out"),
            _ => None,
        };
        if let (true, JobType::Start, Some(why)) = (propagate, job.kind, handled) {
            if report {
                self.report_job_failure(job, result);
            }
            if self.end_may_trigger(job.unit, why) {
                self.trigger_on_failure(job.unit, why);
            }
        }
        self.rests_no_more(job.unit);
        self.slices_have_room(job.unit);
        self.forget_kept_ports(job.unit);
        self.state.gc_queue.insert(job.unit);
        self.queue_wishes_around(job.unit);
        self.waits_no_more(job.unit);
        if propagate {
            // A job may end without a change of state; what triggers the unit must not wait for one.
            self.tell_triggers(job.unit);
        }
    }

    /// Whether `OnFailure=` follows a job that ended without a run of its unit. Such an end takes no time, and what it starts
    /// may bring about the next one at once; the end of a run costs a process, and has the start limit.
    fn end_may_trigger(&mut self, id: UnitId, why: &str) -> bool {
        let now = self.now.monotonic_usec;
        let Some(unit) = self.state.units.edit(&id) else { return false };
        let admitted =
            crate::limit::admit(&mut unit.unrun_failures, now, UNRUN_INTERVAL_USEC, UNRUN_FAILURES_MAX);
        if !admitted {
            let name = self.unit_name(id);
            let text = format!("{name}: OnFailure= is not followed, it was too often ({why}).");
            self.log(Level::Warning, Some(id), text);
        }
        admitted
    }

    /// Ends a job whose time is up.
    pub(crate) fn expire_job(&mut self, id: JobId) {
        let unit = self.state.jobs.get(&id).and_then(|job| self.state.units.get(&job.unit));
        let action = unit.map(|unit| {
            let (action, argument) =
                (unit.file.unit.job_timeout_action(), unit.file.unit.job_timeout_reboot_argument());
            (action, argument.clone(), unit.name.to_string())
        });
        self.finish_job(id, JobResult::Timeout, true);
        if let Some((action, argument, name)) = action {
            self.emergency_action(action, None, argument, &format!("the job of unit {name} timed out"));
        }
    }
}
