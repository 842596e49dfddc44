//! What all unit types share: a change of state and everything that follows from it.
//!
//! Every change goes through [`Manager::state_changed`], which stamps it, ends jobs, tells dependents and clients, and
//! keeps the cause. Unit modules change their own sub-state and call it; they never touch another unit's state.

use crate::effect::{BusSignal, Effect, Level};
use crate::event::Exit;
use crate::jobs::Started;
use crate::manager::Manager;
use crate::marks::MarksChange;
use crate::state::{ActiveState, Cause, Service, Stamp, SystemState};
use muster_graph::job::Job;
use muster_graph::transaction::Facts;
use muster_graph::{Dependency, JobMode, JobResult, JobType, UnitId};
use muster_unit::{EmergencyAction, UnitName};

/// How many causes are kept for each unit.
const CAUSES_MAX: usize = 16;

/// After a start or a stop.
const NO_MARKS: MarksChange = MarksChange { restart: Some(false), reload: Some(false) };

/// What a container ends with, as a shell says it: 128 and the number of a signal; 1 where a start failed without a process.
fn exit_code(how: Option<Exit>, failed: bool) -> u8 {
    const BY_SIGNAL: i32 = 128;
    let code = match how {
        Some(Exit::Exited(code)) => code,
        Some(Exit::Killed(signal) | Exit::Dumped(signal)) => signal.saturating_add(BY_SIGNAL),
        Some(Exit::NotMade) | None => 0,
    };
    u8::try_from(if code == 0 { i32::from(failed) } else { code }).unwrap_or(u8::MAX)
}

impl Manager {
    /// The state of a unit; inactive when it is not loaded.
    pub(crate) fn active_state(&self, unit: UnitId) -> ActiveState {
        self.state.units.get(&unit).map_or(ActiveState::Inactive, |unit| unit.active_state())
    }

    pub(crate) fn unit_name(&self, unit: UnitId) -> String {
        self.state.units.get(&unit).map_or_else(String::new, |unit| unit.name.to_string())
    }

    /// The name as a value; units are never removed while an id is in use, so the fallback is never seen.
    pub(crate) fn name_of(&self, unit: UnitId) -> UnitName {
        self.state.units.get(&unit).map_or_else(UnitName::root_slice, |unit| unit.name.clone())
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { realtime_usec: self.now.realtime_usec, monotonic_usec: self.now.monotonic_usec }
    }

    /// Keeps why something happened to a unit (`musterctl why`).
    pub(crate) fn note_cause(&mut self, unit: UnitId, text: String) {
        let at_usec = self.now.monotonic_usec;
        if let Some(unit) = self.state.units.edit(&unit) {
            if unit.causes.len() >= CAUSES_MAX {
                unit.causes.pop_front();
            }
            unit.causes.push_back(Cause { at_usec, text });
        }
    }

    /// Marks a unit as one that clients hear of: what they see of it changed. (What changed inside is noted by
    /// [`crate::units::Units`], and says more than clients are told.)
    pub(crate) fn touch(&mut self, unit: UnitId) {
        self.state.changed.insert(unit);
    }

    /// Tells clients what changed since the last time, one signal a unit.
    pub(crate) fn flush_changes(&mut self) {
        let followed = self.note_changes();
        for id in std::mem::take(&mut self.state.changed) {
            // A wish that rests is no part of the unit.
            if !followed.contains(&id) {
                self.follow_deadline(id);
            }
            if !self.state.units.contains_key(&id) {
                continue;
            }
            let unit = self.name_of(id);
            let signal = if self.state.announced.insert(id) {
                BusSignal::UnitNew { unit }
            } else {
                BusSignal::UnitChanged { unit }
            };
            self.effects.push_back(Effect::Signal(signal));
        }
    }

    /// To be called after any change of sub-state, with the state before.
    pub(crate) fn state_changed(&mut self, id: UnitId, old: ActiveState) {
        let new = self.active_state(id);
        let stamp = self.stamp();
        self.touch(id);
        let Some(unit) = self.state.units.edit(&id) else { return };
        unit.state_change = stamp;
        let is_down = |state| matches!(state, ActiveState::Inactive | ActiveState::Failed);
        let is_up = |state| matches!(state, ActiveState::Active | ActiveState::Reloading);
        if is_down(old) && !is_down(new) {
            unit.inactive_exit = stamp;
        }
        if !is_down(old) && is_down(new) {
            unit.inactive_enter = stamp;
        }
        if !is_up(old) && is_up(new) {
            unit.active_enter = stamp;
        }
        if is_up(old) && !is_up(new) {
            unit.active_exit = stamp;
        }
        if old != new {
            self.note_cause(id, format!("{} -> {}", old.as_str(), new.as_str()));
        }
        let had_job = self.state.jobs.of(id).is_some();
        let stopping_job =
            self.job_kind(id).is_some_and(|kind| matches!(kind, JobType::Stop | JobType::Restart));
        self.job_by_state(id);
        if is_down(old) && !is_down(new) && !had_job {
            self.start_requirements_late(id);
        }
        if !is_up(old) && is_up(new) && self.unit_name(id) == "basic.target" {
            self.state.basic_reached = true;
        }
        let goes = |state| is_down(state) || state == ActiveState::Deactivating;
        // A unit that comes back by `RestartMode=direct` does not go down for others, until it does.
        let leaves =
            if self.returns_directly(id) { is_down(new) && !is_down(old) } else { !goes(old) && goes(new) };
        if leaves && !stopping_job {
            self.stop_what_follows(id);
        }
        if old != new {
            self.queue_wishes_around(id);
        }
        if is_down(new) && !is_down(old) {
            self.leave_share(id);
            self.leave_accounts(id);
            self.became_inactive(id, new);
            self.slices_have_room(id);
        }
        self.tell_triggers(id);
    }

    pub(crate) fn job_kind(&self, unit: UnitId) -> Option<JobType> {
        self.state.jobs.of(unit).map(|job| job.kind)
    }

    /// A unit left its rest without a job (a mount by hand, the wait for an automatic restart): what it would have asked for
    /// is asked for after the fact, but not what had to be there before it. One whose job ended on the way has done so.
    fn start_requirements_late(&mut self, id: UnitId) {
        const LATE: [(Dependency, JobType, JobMode); 5] = [
            (Dependency::Requires, JobType::Start, JobMode::Replace),
            (Dependency::BindsTo, JobType::Start, JobMode::Replace),
            (Dependency::Wants, JobType::Start, JobMode::Fail),
            (Dependency::Conflicts, JobType::Stop, JobMode::Replace),
            (Dependency::ConflictedBy, JobType::Stop, JobMode::Replace),
        ];
        let cause = format!("{} came up by itself", self.unit_name(id));
        for (via, kind, mode) in LATE {
            let others: Vec<UnitId> = self.state.graph.of(id, via).collect();
            for other in others {
                let late = kind == JobType::Stop || !self.state.graph.has(id, Dependency::After, other);
                let there = self.is_active(other) == (kind == JobType::Start);
                if late && !there {
                    self.request_quietly(other, kind, mode, &cause);
                }
            }
        }
    }

    /// `BindsTo=` and `PropagatesStopTo=`: the others go down with this unit, which goes down by itself.
    fn stop_what_follows(&mut self, id: UnitId) {
        for kind in [Dependency::BoundBy, Dependency::PropagatesStopTo] {
            let others: Vec<UnitId> = self.state.graph.of(id, kind).collect();
            let cause = format!("{} of {}, which went down", kind.name(), self.unit_name(id));
            for other in others {
                if !matches!(self.active_state(other), ActiveState::Inactive | ActiveState::Failed) {
                    self.request_quietly(other, JobType::Stop, JobMode::Replace, &cause);
                }
            }
        }
    }

    fn became_inactive(&mut self, id: UnitId, new: ActiveState) {
        match new {
            ActiveState::Failed => self.trigger_on_failure(id, "the unit failed"),
            _ => self.trigger_on_success(id),
        }
        self.unit_action(id, new);
        self.withdraw_invocation(id);
        self.state.gc_queue.insert(id);
    }

    /// What is down has no invocation to look up. (That of a service goes when no restart follows.)
    fn withdraw_invocation(&mut self, id: UnitId) {
        let Some(unit) = self.state.units.get(&id).filter(|unit| !unit.invocation_id.is_empty()) else {
            return;
        };
        if Service::of(&unit.kind).is_none() {
            let (unit, log) = (unit.name.clone(), unit.file.exec.clone());
            self.effects.push_back(Effect::PublishInvocation { unit, invocation_id: None, log });
        }
    }

    pub(crate) fn trigger_on_failure(&mut self, id: UnitId, why: &str) {
        self.trigger(id, Dependency::OnFailure, why);
    }

    fn trigger_on_success(&mut self, id: UnitId) {
        self.trigger(id, Dependency::OnSuccess, "the unit succeeded");
    }

    fn trigger(&mut self, id: UnitId, kind: Dependency, why: &str) {
        let handlers: Vec<UnitId> = self.state.graph.of(id, kind).collect();
        if handlers.is_empty() {
            return;
        }
        let mode = self.state.units.get(&id).map(|unit| match kind {
            Dependency::OnFailure => unit.file.unit.failure_job_mode(),
            _ => unit.file.unit.on_success_job_mode(),
        });
        let mode = mode.and_then(|mode| JobMode::parse(mode.as_str())).unwrap_or(JobMode::Replace);
        let details = self.monitor_details(id);
        let cause = format!("{}= of {}: {why}", kind.name(), self.unit_name(id));
        for handler in handlers {
            if let Some(unit) = self.state.units.edit(&handler) {
                unit.activation_details.clone_from(&details);
            }
            self.request_quietly(handler, JobType::Start, mode, &cause);
        }
    }

    /// `MONITOR_*` of systemd.exec(5) for the units that are told of this one's end.
    fn monitor_details(&self, id: UnitId) -> Vec<(String, String)> {
        let Some(unit) = self.state.units.get(&id) else { return Vec::new() };
        let mut details = vec![
            ("MONITOR_UNIT".to_owned(), unit.name.to_string()),
            ("MONITOR_INVOCATION_ID".to_owned(), unit.invocation_id.clone()),
        ];
        if let Some(service) = Service::of(&unit.kind) {
            details.push(("MONITOR_SERVICE_RESULT".to_owned(), service.result.as_str().to_owned()));
            if let Some(how) = service.main_status.how {
                let (code, status) = crate::spawn::exit_words(how);
                details.push(("MONITOR_EXIT_CODE".to_owned(), code.to_owned()));
                details.push(("MONITOR_EXIT_STATUS".to_owned(), status));
            }
        }
        details
    }

    /// `SuccessAction=` and `FailureAction=`.
    fn unit_action(&mut self, id: UnitId, new: ActiveState) {
        let Some(unit) = self.state.units.get(&id) else { return };
        let (action, code) = if new == ActiveState::Failed {
            (unit.file.unit.failure_action(), unit.file.unit.failure_action_exit_status())
        } else {
            (unit.file.unit.success_action(), unit.file.unit.success_action_exit_status())
        };
        if action == EmergencyAction::None {
            return self.essential_ended(id, new);
        }
        let status = match Service::of(&unit.kind).and_then(|service| service.main_status.how) {
            Some(Exit::Exited(code)) => u8::try_from(code).ok(),
            _ => None,
        };
        let (name, argument) = (unit.name.to_string(), unit.file.unit.reboot_argument().clone());
        self.emergency_action(
            action,
            code.or(status),
            argument,
            &format!("unit {name} became {}", new.as_str()),
        );
    }

    /// `Essential=` of `[X-Muster]`: the first such service that is down, and does not come up again, ends the container with
    /// its status.
    fn essential_ended(&mut self, id: UnitId, new: ActiveState) {
        let Some((unit, service)) =
            self.state.units.get(&id).and_then(|unit| Some((unit, Service::of(&unit.kind)?)))
        else {
            return;
        };
        let essential = matches!(&unit.file.body, muster_unit::Body::Service(section) if section.essential());
        let comes_back = matches!(self.job_kind(id), Some(JobType::Restart | JobType::Start));
        if !essential || comes_back || self.state.essential_ended {
            return;
        }
        let code = exit_code(service.main_status.how, new == ActiveState::Failed);
        let why = format!("the essential unit {} became {}", unit.name, new.as_str());
        self.state.essential_ended = true;
        if self.shutdown_is_queued() {
            // It ends already: with this status.
            self.state.exit_code = code;
            return;
        }
        self.emergency_action(EmergencyAction::Exit, Some(code), None, &why);
    }

    /// `StartLimitAction=`.
    pub(crate) fn start_limit_action(&mut self, id: UnitId) {
        let Some(unit) = self.state.units.get(&id) else { return };
        let (action, name) = (unit.file.unit.start_limit_action(), unit.name.to_string());
        let argument = unit.file.unit.reboot_argument().clone();
        self.emergency_action(action, None, argument, &format!("unit {name} was started too often"));
    }

    /// Sockets, timers and paths look at the unit that they start.
    pub(crate) fn tell_triggers(&mut self, id: UnitId) {
        let triggers: Vec<UnitId> = self.state.graph.of(id, Dependency::TriggeredBy).collect();
        for socket in triggers {
            (self.verbs(socket).triggered_changed)(self, socket, id);
        }
        self.accepted_instance_changed(id);
    }

    /// Queues a job for PID 1's own reasons; a refusal is logged, nobody waits.
    pub(crate) fn request_quietly(
        &mut self,
        unit: UnitId,
        kind: JobType,
        mode: JobMode,
        cause: &str,
    ) -> bool {
        match self.enqueue(unit, kind, mode, cause) {
            Ok(_) => true,
            Err(refused) => {
                let text = format!("Failed to enqueue {} job ({cause}): {refused}", kind.as_str());
                self.log(Level::Warning, Some(unit), text);
                false
            }
        }
    }

    /// Hands a start job to the unit. In this order, as systemd looks: conditions, asserts, whether there are units of the type
    /// here, whether what it is bound to is up, and then the type's own start, which has the start limit.
    pub(crate) fn start_unit(&mut self, id: UnitId) -> Started {
        match self.active_state(id) {
            ActiveState::Active | ActiveState::Reloading => return Started::Ended(JobResult::Done),
            ActiveState::Deactivating => return Started::Later,
            ActiveState::Activating if !self.waits_for_restart(id) => return Started::Working,
            ActiveState::Activating
            | ActiveState::Inactive
            | ActiveState::Failed
            | ActiveState::Maintenance => {}
        }
        let Some(unit) = self.state.units.get(&id) else { return Started::Ended(JobResult::Invalid) };
        if unit.pending_conditions.is_some() {
            return Started::Working;
        }
        // An automatic restart goes on with the answers that its first start had.
        if self.waits_for_restart(id) {
            return self.start_by_kind(id);
        }
        if unit.file.unit.conditions().is_empty() {
            let stamp = self.stamp();
            if let Some(unit) = self.state.units.edit(&id) {
                (unit.condition_result, unit.condition_stamp) = (true, stamp);
                (unit.assert_result, unit.assert_stamp) = (true, stamp);
            }
            return self.start_by_kind(id);
        }
        let conditions = unit.file.unit.conditions().clone();
        let query = crate::effect::QueryId(self.state.next_query);
        self.state.next_query = self.state.next_query.saturating_add(1);
        self.state.queries.insert(query, id);
        if let Some(unit) = self.state.units.edit(&id) {
            unit.pending_conditions = Some(query);
        }
        self.effects.push_back(Effect::CheckConditions { query, conditions });
        Started::Working
    }

    /// What was asked before a re-execution had no answer.
    pub(crate) fn ask_conditions_again(&mut self, id: UnitId) {
        let Some(unit) = self.state.units.get(&id) else { return };
        if let Some(query) = unit.pending_conditions {
            let conditions = unit.file.unit.conditions().clone();
            self.effects.push_back(Effect::CheckConditions { query, conditions });
        }
    }

    /// `BindsTo=` with `After=` demands the other unit active at this moment. (`Requisite=` does so when the other's job ends.)
    fn bound_unit_is_missing(&self, id: UnitId) -> bool {
        let graph = &self.state.graph;
        graph.of(id, Dependency::BindsTo).any(|other| {
            graph.has(id, Dependency::After, other)
                && !matches!(self.active_state(other), ActiveState::Active | ActiveState::Reloading)
        })
    }

    /// The answer to the conditions of a unit.
    pub(crate) fn conditions_checked(&mut self, query: crate::effect::QueryId, results: &[bool]) {
        let Some(id) = self.state.queries.remove(&query) else { return };
        let stamp = self.stamp();
        let Some(unit) = self.state.units.edit(&id).filter(|unit| unit.pending_conditions == Some(query))
        else {
            return;
        };
        unit.pending_conditions = None;
        let conditions = unit.file.unit.conditions().clone();
        unit.condition_each = results.iter().map(|result| if *result { 1 } else { -1 }).collect();
        let verdict = |asserts: bool| crate::conditions::verdict(&conditions, results, asserts);
        (unit.condition_result, unit.condition_stamp) = (verdict(false).is_none(), stamp);
        if unit.condition_result {
            (unit.assert_result, unit.assert_stamp) = (verdict(true).is_none(), stamp);
        }
        let starts = |job: &&Job| job.running && job.kind == JobType::Start;
        let Some(job) = self.state.jobs.of(id).filter(starts).map(|job| job.id) else { return };
        if let Some(failed) = verdict(false) {
            self.report_condition(job, failed);
            return self.finish_job(job, JobResult::Done, true);
        }
        if let Some(failed) = verdict(true) {
            let text = format!("{}: Starting requested but asserts failed ({failed}).", self.unit_name(id));
            self.log(Level::Notice, Some(id), text);
            return self.finish_job(job, JobResult::Assert, true);
        }
        match self.start_by_kind(id) {
            Started::Working => {
                if self.active_state(id) == ActiveState::Active {
                    self.job_by_state(id);
                }
            }
            Started::Later => self.state.jobs.rest(job),
            Started::Ended(result) => self.finish_job(job, result, true),
        }
    }

    fn start_by_kind(&mut self, id: UnitId) -> Started {
        let Some(unit) = self.state.units.get(&id) else { return Started::Ended(JobResult::Invalid) };
        let kind = unit.name.kind();
        if !self.supports(kind) {
            return Started::Ended(JobResult::Unsupported);
        }
        if self.bound_unit_is_missing(id) {
            return Started::Ended(JobResult::Dependency);
        }
        self.mark(id, NO_MARKS);
        (crate::kind::verbs(kind).start)(self, id)
    }

    pub(crate) fn stop_unit(&mut self, id: UnitId) -> Started {
        if matches!(self.active_state(id), ActiveState::Inactive | ActiveState::Failed) {
            return Started::Ended(JobResult::Done);
        }
        let Some(unit) = self.state.units.edit(&id) else { return Started::Ended(JobResult::Done) };
        if let Some(query) = unit.pending_conditions.take() {
            self.state.queries.remove(&query);
        }
        self.mark(id, NO_MARKS);
        (self.verbs(id).stop)(self, id)
    }

    pub(crate) fn reload_unit(&mut self, id: UnitId) -> Started {
        match self.active_state(id) {
            ActiveState::Active => {}
            ActiveState::Reloading | ActiveState::Activating => return Started::Later,
            _ => return Started::Ended(JobResult::Invalid),
        }
        self.mark(id, MarksChange { reload: Some(false), restart: None });
        (self.verbs(id).reload)(self, id)
    }

    /// Whether `systemctl reload` means something for the unit.
    pub fn can_reload(&self, id: UnitId) -> bool {
        let unit = self.state.units.get(&id);
        unit.is_some_and(|unit| (crate::kind::verbs(unit.name.kind()).can_reload)(self, unit))
    }

    /// Counts a start; false when `StartLimitBurst=` within `StartLimitIntervalSec=` is exceeded.
    pub(crate) fn start_is_allowed(&mut self, id: UnitId) -> bool {
        let now = self.now.monotonic_usec;
        let (default_interval, default_burst) =
            (self.state.facts.default_start_limit_interval_usec, self.state.facts.default_start_limit_burst);
        let Some(unit) = self.state.units.edit(&id) else { return false };
        let section = &unit.file.unit;
        let interval = section.start_limit_interval_sec().map_or(default_interval, |span| span.0);
        let burst = section.start_limit_burst().unwrap_or(default_burst);
        crate::limit::admit(&mut unit.start_limit, now, interval, burst)
    }

    /// Whether the first transaction is done.
    pub fn startup_is_finished(&self) -> bool {
        self.state.finished.monotonic_usec != 0
    }

    /// `SystemState` of the Manager interface.
    pub fn system_state(&self) -> SystemState {
        let is_active = |name: &str| {
            name.parse::<UnitName>().ok().and_then(|name| self.unit(&name)).is_some_and(|unit| {
                !matches!(unit.active_state(), ActiveState::Inactive | ActiveState::Failed)
                    || self.state.jobs.of(unit.id).is_some()
            })
        };
        // A boot that ended in a shell does not go on.
        let is_rescued = ["rescue.target", "emergency.target"].iter().any(|name| {
            let unit = name.parse::<UnitName>().ok().and_then(|name| self.unit(&name));
            unit.is_some_and(|unit| unit.active_state() == ActiveState::Active)
        });
        let shutting_down = self.shutdown_is_queued();
        if shutting_down || self.state.shutdown.is_some() {
            SystemState::Stopping
        } else if !self.state.basic_reached && !is_rescued {
            SystemState::Initializing
        } else if !self.startup_is_finished() && !is_rescued {
            SystemState::Starting
        } else if is_active("rescue.target") || is_active("emergency.target") {
            SystemState::Maintenance
        } else if self.failed_units() > 0 {
            SystemState::Degraded
        } else {
            SystemState::Running
        }
    }

    /// Whether a start job of shutdown.target is queued.
    pub(crate) fn shutdown_is_queued(&self) -> bool {
        "shutdown.target".parse::<UnitName>().ok().and_then(|name| self.state.names.get(&name)).is_some_and(
            |id| self.job_kind(*id) == Some(JobType::Start) || self.active_state(*id) == ActiveState::Active,
        )
    }

    /// How many units are failed.
    pub fn failed_units(&self) -> u32 {
        let failed =
            self.state.units.values().filter(|unit| unit.active_state() == ActiveState::Failed).count();
        u32::try_from(failed).unwrap_or(u32::MAX)
    }

    /// An automatic restart is due, and its job on the way.
    pub(crate) fn is_restarting(&self, id: UnitId) -> bool {
        self.service(id).is_some_and(|service| service.sub == crate::state::ServiceSub::AutoRestartQueued)
    }

    fn waits_for_restart(&self, id: UnitId) -> bool {
        use crate::state::ServiceSub::{AutoRestart, AutoRestartQueued};
        self.service(id).is_some_and(|service| matches!(service.sub, AutoRestart | AutoRestartQueued))
    }

    /// Forgets a failure.
    pub(crate) fn reset_failed(&mut self, id: UnitId) {
        let old = self.active_state(id);
        let Some(unit) = self.state.units.edit(&id) else { return };
        unit.start_limit = Default::default();
        unit.kind.state_mut().reset_failed(old == ActiveState::Failed);
        if old == ActiveState::Failed {
            self.state_changed(id, old);
        }
        self.state.gc_queue.insert(id);
    }
}
