//! Services: systemd.service(5) as a state machine.
//!
//! | state | control ends | control fails | main ends | main fails | READY=1 | time is up | cgroup empty | stop |
//! |---|---|---|---|---|---|---|---|---|
//! | dead | – | – | – | – | – | – | – | – |
//! | condition | start-pre | stop-sigterm `exec-condition` | – | – | – | stop-sigterm `timeout` | – | stop-sigterm |
//! | start-pre | start-post | stop-sigterm `exit-code` | – | – | – | stop-sigterm `timeout` | – | stop-sigterm |
//! | start (forking) | – | stop-sigterm `exit-code` | – | – | – | stop-sigterm `timeout` | – | stop-sigterm |
//! | start (notify) | – | – | stop-sigterm `protocol` | stop-sigterm `exit-code` | start-post | stop-sigterm `timeout` | – | stop-sigterm |
//! | start (oneshot) | – | – | start-post | stop-sigterm `exit-code` | – | – | – | stop-sigterm |
//! | start (exec) | – | – | start-post | stop-sigterm `exit-code` | – | stop-sigterm `timeout` | – | stop-sigterm |
//! | start-post | running | stop-sigterm `exit-code` | – | `exit-code` | – | stop-sigterm `timeout` | – | stop-sigterm |
//! | running | – | – | stop | stop-sigterm `exit-code` | – | – | – | stop |
//! | exited | – | – | – | – | – | – | – | stop |
//! | reload | running | running | stop | stop-sigterm `exit-code` | – | running | – | stop |
//! | reload-signal | – | – | stop-sigterm | stop-sigterm `exit-code` | – | running | – | stop-sigterm |
//! | reload-notify | – | – | stop-sigterm | stop-sigterm `exit-code` | running | running | – | stop-sigterm |
//! | reload-post | running | running | stop | stop-sigterm `exit-code` | – | running | – | stop |
//! | stop | stop-sigterm | stop-sigterm `exit-code` | – | `exit-code` | – | stop-sigterm `timeout` | – | – |
//! | stop-watchdog | – | – | stop-post | stop-post | – | stop-sigkill | – | – |
//! | stop-sigterm | – | – | stop-post | stop-post `exit-code` | – | stop-sigkill `timeout` | – | – |
//! | stop-sigkill | – | – | stop-post | stop-post | – | stop-post | – | – |
//! | stop-post | final-sigterm | final-sigterm `exit-code` | – | – | – | final-sigterm `timeout` | – | – |
//! | final-sigterm, final-watchdog | – | – | – | – | – | final-sigkill | – | – |
//! | final-sigkill | – | – | – | – | – | failed | – | – |
//! | failed | – | – | – | – | – | – | – | – |
//! | auto-restart | – | – | – | – | – | running | – | dead |
//! | auto-restart-queued | – | – | – | – | – | – | – | dead |
//!
//! `TimeoutStartFailureMode=` and `TimeoutStopFailureMode=` put -watchdog or -sigkill in the place of -sigterm when time is up.
//! The first result that is not success stays. Illegal pairs are ignored, by name, in the matches below.

use crate::effect::{Effect, Level, SpawnRole};
use crate::jobs::Started;
use crate::kind::{CommandStatus, TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, CommandList, ExecStatus, Process, Service, ServiceSub, Unit, UnitResult};
use muster_graph::{JobMode, JobResult, JobType, UnitId};
use muster_unit::{ExecCommand, ExitType, KillMode, ServiceSection, ServiceType, Signal, TimeoutFailureMode};
use std::rc::Rc;

impl ServiceSub {
    /// The state of the unit in this sub-state. `Type=idle` is active while it waits to start, as `simple` is.
    pub fn active_state(self, idle: bool) -> ActiveState {
        use ServiceSub::*;
        match self {
            Dead | DeadBeforeAutoRestart => ActiveState::Inactive,
            Failed | FailedBeforeAutoRestart => ActiveState::Failed,
            Start if idle => ActiveState::Active,
            Condition | StartPre | Start | StartPost | AutoRestart | AutoRestartQueued => {
                ActiveState::Activating
            }
            Running | Exited => ActiveState::Active,
            Reload | ReloadSignal | ReloadNotify | ReloadPost => ActiveState::Reloading,
            Stop | StopWatchdog | StopSigterm | StopSigkill | StopPost | FinalWatchdog | FinalSigterm
            | FinalSigkill => ActiveState::Deactivating,
        }
    }

    /// Whether the main process of a run may be there, and the run is not on its way to its end.
    pub(crate) fn has_run_of_main(self) -> bool {
        use ServiceSub::*;
        matches!(self, Start | StartPost | Running | Reload | ReloadSignal | ReloadNotify | ReloadPost)
    }
}

impl TypeState for Service {
    fn active_state(&self, unit: &Unit) -> ActiveState {
        // Asked of every unit in every list: the settings are looked at only where they matter.
        let idle = self.sub == ServiceSub::Start
            && matches!(&unit.file.body, muster_unit::Body::Service(section)
                if section.effective_type() == ServiceType::Idle);
        self.sub.active_state(idle)
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        if self.sub == ServiceSub::Dead && !self.fd_store.is_empty() {
            "dead-resources-pinned"
        } else {
            self.sub.as_str()
        }
    }

    fn result(&self) -> UnitResult {
        self.result
    }

    fn reset_failed(&mut self, failed: bool) {
        self.restarts = 0;
        if failed {
            self.sub = ServiceSub::Dead;
            self.result = UnitResult::Success;
        }
    }

    fn set_failed(&mut self, result: UnitResult) {
        (self.sub, self.result) = (ServiceSub::Failed, result);
    }

    fn main(&self) -> Option<&Process> {
        self.main.as_ref()
    }

    fn main_mut(&mut self) -> Option<&mut Option<Process>> {
        Some(&mut self.main)
    }

    fn control(&self) -> Option<&Process> {
        self.control.as_ref()
    }

    fn control_mut(&mut self) -> Option<&mut Option<Process>> {
        Some(&mut self.control)
    }

    fn command_status_mut(&mut self) -> Option<&mut CommandStatus> {
        Some(&mut self.command_status)
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: Manager::service_start,
    stop: Manager::service_stop,
    reload: Manager::service_reload,
    can_reload: |manager, unit| match &unit.file.body {
        muster_unit::Body::Service(service) => {
            !service.exec_reload().is_empty() || manager.service_type(unit.id) == ServiceType::NotifyReload
        }
        _ => false,
    },
    deadline: |manager, unit| {
        let phase = Service::of(&unit.kind)?.deadline_usec;
        phase.into_iter().chain(manager.watchdog_deadline(unit.id)).min()
    },
    due: Manager::service_due,
    resumed: Manager::service_resumed,
    cgroup_emptied: Manager::service_cgroup_emptied,
    removed: Manager::service_removed,
    oom_killed: Manager::service_oom_killed,
    control_exited: Manager::service_control_exited,
    has_cgroup: true,
    ..Verbs::NOTHING
};

impl Manager {
    pub(crate) fn service(&self, id: UnitId) -> Option<&Service> {
        Service::of(&self.state.units.get(&id)?.kind)
    }

    pub(crate) fn service_mut(&mut self, id: UnitId) -> Option<&mut Service> {
        Service::of_mut(&mut self.state.units.edit(&id)?.kind)
    }

    pub(crate) fn service_config(&self, id: UnitId) -> Option<(Rc<muster_unit::UnitFile>, &ServiceSection)> {
        let unit = self.state.units.get(&id)?;
        match &unit.file.body {
            muster_unit::Body::Service(section) => Some((unit.file.clone(), section)),
            _ => None,
        }
    }

    /// `Type=` as it is in effect.
    pub fn service_type(&self, id: UnitId) -> ServiceType {
        self.service_config(id).map_or(ServiceType::Simple, |(_, section)| section.effective_type())
    }

    pub(crate) fn kill_mode(&self, id: UnitId) -> KillMode {
        self.kill_section(id).map_or(KillMode::ControlGroup, |kill| kill.kill_mode())
    }

    pub(crate) fn kill_section(&self, id: UnitId) -> Option<&muster_unit::KillSection> {
        self.state.units.get(&id)?.file.kill.as_deref()
    }

    /// The commands of one list.
    pub(crate) fn commands(&self, id: UnitId, list: CommandList) -> &[ExecCommand] {
        let Some(unit) = self.state.units.get(&id) else { return &[] };
        match (&unit.file.body, list) {
            (muster_unit::Body::Service(section), CommandList::ExecCondition) => section.exec_condition(),
            (muster_unit::Body::Service(section), CommandList::ExecStartPre) => section.exec_start_pre(),
            (muster_unit::Body::Service(section), CommandList::ExecStart) => section.exec_start(),
            (muster_unit::Body::Service(section), CommandList::ExecStartPost) => section.exec_start_post(),
            (muster_unit::Body::Service(section), CommandList::ExecReload) => section.exec_reload(),
            (muster_unit::Body::Service(section), CommandList::ExecReloadPost) => section.exec_reload_post(),
            (muster_unit::Body::Service(section), CommandList::ExecStop) => section.exec_stop(),
            (muster_unit::Body::Service(section), CommandList::ExecStopPost) => section.exec_stop_post(),
            (muster_unit::Body::Socket(section), CommandList::ExecStartPre) => section.exec_start_pre(),
            (muster_unit::Body::Socket(section), CommandList::ExecStartPost) => section.exec_start_post(),
            (muster_unit::Body::Socket(section), CommandList::ExecStopPre) => section.exec_stop_pre(),
            (muster_unit::Body::Socket(section), CommandList::ExecStopPost) => section.exec_stop_post(),
            _ => &[],
        }
    }

    /// Changes the sub-state, sets the phase's deadline, and tells everybody.
    pub(crate) fn set_sub(&mut self, id: UnitId, sub: ServiceSub, deadline_usec: Option<u64>) {
        let old = self.active_state(id);
        if sub != ServiceSub::Start {
            self.stop_awaiting_pid_file(id);
        }
        let Some(service) = self.service_mut(id) else { return };
        service.sub = sub;
        service.deadline_usec = deadline_usec;
        // The watchdog lets go of a run that ends, until the service speaks to it again.
        if matches!(
            sub.active_state(false),
            ActiveState::Deactivating | ActiveState::Inactive | ActiveState::Failed
        ) {
            service.watchdog = Default::default();
        }
        self.state_changed(id, old);
    }

    pub(crate) fn sub(&self, id: UnitId) -> ServiceSub {
        self.service(id).map_or(ServiceSub::Dead, |service| service.sub)
    }

    pub(crate) fn note_result(&mut self, id: UnitId, result: UnitResult) {
        if let Some(service) = self.service_mut(id).filter(|service| service.result == UnitResult::Success) {
            service.result = result;
        }
    }

    /// A random part of a span. Without one nothing is drawn, so that what is drawn elsewhere stays the same.
    pub(crate) fn random_within(&mut self, span: Option<muster_unit::Timespan>) -> u64 {
        span.filter(|span| span.0 > 0).map_or(0, |span| crate::timer::within(self.random(), span.0))
    }

    pub(crate) fn after(&self, span_usec: u64) -> Option<u64> {
        (span_usec != u64::MAX && span_usec != 0).then(|| self.now.monotonic_usec.saturating_add(span_usec))
    }

    pub(crate) fn start_deadline(&self, id: UnitId) -> Option<u64> {
        let default = if self.service_type(id) == ServiceType::Oneshot {
            u64::MAX
        } else {
            self.state.facts.default_timeout_start_usec
        };
        let span = self
            .service_config(id)
            .and_then(|(_, section)| section.timeout_start_sec())
            .map_or(default, |span| span.0);
        self.after(span)
    }

    pub(crate) fn stop_span(&self, id: UnitId) -> u64 {
        let default = self.state.facts.default_timeout_stop_usec;
        self.service_config(id)
            .and_then(|(_, section)| section.timeout_stop_sec())
            .map_or(default, |span| span.0)
    }

    pub(crate) fn stop_deadline(&self, id: UnitId) -> Option<u64> {
        self.after(self.stop_span(id))
    }

    pub(crate) fn abort_deadline(&self, id: UnitId) -> Option<u64> {
        let span = self.service_config(id).and_then(|(_, section)| section.timeout_abort_sec());
        self.after(span.map_or_else(|| self.stop_span(id), |span| span.0))
    }

    // ---- start --------------------------------------------------------------------------------------------------

    pub(crate) fn service_start(&mut self, id: UnitId) -> Started {
        match self.sub(id) {
            ServiceSub::Dead
            | ServiceSub::Failed
            | ServiceSub::AutoRestart
            | ServiceSub::AutoRestartQueued
            | ServiceSub::DeadBeforeAutoRestart
            | ServiceSub::FailedBeforeAutoRestart => {}
            _ => return Started::Later,
        }
        if self.is_removing(id) {
            return Started::Later;
        }
        if !self.start_is_allowed(id) {
            let text = format!("{}: Start request repeated too quickly.", self.unit_name(id));
            self.log(Level::Warning, Some(id), text);
            self.fail_with(id, UnitResult::StartLimitHit);
            self.sockets_of_start_limit(id);
            self.start_limit_action(id);
            let failed = self.active_state(id) == ActiveState::Failed;
            return Started::Ended(if failed { JobResult::Failed } else { JobResult::Done });
        }
        if self.leftovers_forbid_start(id) {
            return Started::Ended(JobResult::Failed);
        }
        // Whoever does not wait for an automatic restart has it at once: it counts as one.
        if self.sub(id) == ServiceSub::AutoRestart {
            self.count_restart(id);
        }
        let automatic = matches!(self.sub(id), ServiceSub::AutoRestart | ServiceSub::AutoRestartQueued);
        self.begin_run(id, automatic);
        self.report_starting(id);
        let deadline = self.start_deadline(id);
        self.enter_list(id, ServiceSub::Condition, CommandList::ExecCondition, deadline);
        Started::Working
    }

    /// A fresh run: everything of the last one is forgotten but what D-Bus shows of its end.
    pub(crate) fn begin_run(&mut self, id: UnitId, automatic: bool) {
        self.prepare_run(id);
        let Some(service) = self.service_mut(id) else { return };
        let kept = std::mem::take(service);
        *service = Service {
            sub: kept.sub,
            main_status: ExecStatus::default(),
            fd_store: kept.fd_store,
            stdio: kept.stdio,
            extra_fds: kept.extra_fds,
            connection: kept.connection,
            peer: kept.peer,
            accepted_from: kept.accepted_from,
            restarts: if automatic { kept.restarts } else { 0 },
            directories_made: kept.directories_made,
            ..Service::default()
        };
    }

    /// Enters a sub-state that works through a list; an empty list falls through at once.
    pub(crate) fn enter_list(
        &mut self,
        id: UnitId,
        sub: ServiceSub,
        list: CommandList,
        deadline: Option<u64>,
    ) {
        if self.commands(id, list).is_empty() {
            return self.list_done(id, list);
        }
        self.set_sub(id, sub, deadline);
        self.run_command(id, list, 0, SpawnRole::Control);
    }

    /// What follows a list that went well.
    pub(crate) fn list_done(&mut self, id: UnitId, list: CommandList) {
        match list {
            CommandList::ExecCondition => {
                let deadline = self.start_deadline(id);
                self.enter_list(id, ServiceSub::StartPre, CommandList::ExecStartPre, deadline);
            }
            CommandList::ExecStartPre => self.enter_start(id),
            CommandList::ExecStart | CommandList::ExecStartPost => self.enter_running(id),
            CommandList::Refresh => self.refreshed(id),
            CommandList::ExecReload => self.reload_commands_done(id),
            CommandList::ExecReloadPost => self.enter_running(id),
            CommandList::ExecStop => self.enter_signal(id, ServiceSub::StopSigterm, UnitResult::Success),
            CommandList::ExecStopPost => self.enter_signal(id, ServiceSub::FinalSigterm, UnitResult::Success),
            CommandList::ExecStopPre
            | CommandList::ExecMount
            | CommandList::ExecUnmount
            | CommandList::ExecRemount
            | CommandList::ExecActivate
            | CommandList::ExecDeactivate => {}
        }
    }

    pub(crate) fn run_command(&mut self, id: UnitId, list: CommandList, index: u32, role: SpawnRole) {
        let spawn = self.spawn_command(id, list, index, role);
        let Some(service) = self.service_mut(id) else { return };
        match role {
            SpawnRole::Main => service.main = spawn,
            SpawnRole::Control => service.control = spawn,
        }
    }

    pub(crate) fn enter_start(&mut self, id: UnitId) {
        let kind = self.service_type(id);
        if self.commands(id, CommandList::ExecStart).is_empty() {
            // Only oneshots may have nothing to run. They pass through this state all the same, so that what hangs on
            // their end (`SuccessAction=`, `OnSuccess=`) sees one.
            let deadline = self.start_deadline(id);
            self.set_sub(id, ServiceSub::Start, deadline);
            return self.enter_list(id, ServiceSub::StartPost, CommandList::ExecStartPost, deadline);
        }
        let deadline =
            if kind == ServiceType::Idle { self.after(IDLE_USEC) } else { self.start_deadline(id) };
        if let Some(service) = self.service_mut(id) {
            service.ready = false;
        }
        match kind {
            ServiceType::Idle if self.jobs_are_busy(id) => self.set_sub(id, ServiceSub::Start, deadline),
            ServiceType::Simple | ServiceType::Idle => self.start_simple(id),
            ServiceType::Forking => {
                self.set_sub(id, ServiceSub::Start, deadline);
                self.run_command(id, CommandList::ExecStart, 0, SpawnRole::Control);
            }
            ServiceType::Exec
            | ServiceType::Oneshot
            | ServiceType::Dbus
            | ServiceType::Notify
            | ServiceType::NotifyReload => {
                self.set_sub(id, ServiceSub::Start, deadline);
                self.run_command(id, CommandList::ExecStart, 0, SpawnRole::Main);
            }
        }
    }

    pub(crate) fn enter_start_post(&mut self, id: UnitId) {
        let (deadline, stamp) = (self.start_deadline(id), self.stamp());
        if let Some(service) = self.service_mut(id) {
            service.watchdog = stamp;
        }
        self.enter_list(id, ServiceSub::StartPost, CommandList::ExecStartPost, deadline);
    }

    /// Everything that start asks for is done: stay up, or go on to the end when nothing is left to stay for.
    pub(crate) fn enter_running(&mut self, id: UnitId) {
        let Some((file, section)) = self.service_config(id) else { return };
        let remain = section.remain_after_exit();
        let runtime_max = section.runtime_max_sec().map_or(u64::MAX, |span| span.0);
        let extra = section.runtime_randomized_extra_sec().map_or(0, |span| span.0);
        drop(file);
        let Some(service) = self.service(id) else { return };
        if service.result != UnitResult::Success {
            return self.enter_signal(id, ServiceSub::StopSigterm, UnitResult::Success);
        }
        if service.stopping_heard && service.main.is_some() {
            let deadline = self.stop_deadline(id);
            return self.set_sub(id, ServiceSub::StopSigterm, deadline);
        }
        let by_cgroup = service.main.is_none() && self.lives_by_its_cgroup(id);
        if service.main.is_some() || by_cgroup {
            if let (true, Some(path)) = (by_cgroup, self.state.units.get(&id).and_then(|u| u.cgroup.clone()))
            {
                self.effects.push_back(Effect::WatchCgroup { path });
            }
            let after = self.after(runtime_max);
            let fresh = after.map(|at| at.saturating_add(crate::timer::within(self.random(), extra)));
            let goes_on = self.active_state(id) == ActiveState::Reloading;
            let Some(service) = self.service_mut(id) else { return };
            if !goes_on {
                service.run_ends_usec = fresh;
            }
            let deadline = service.run_ends_usec;
            self.set_sub(id, ServiceSub::Running, deadline);
        } else if remain {
            self.set_sub(id, ServiceSub::Exited, None);
            // Its cgroup goes with the last process that it left.
            let path = self.state.units.get(&id).and_then(|unit| unit.cgroup.clone());
            self.effects.extend(path.map(|path| Effect::WatchCgroup { path }));
        } else {
            self.enter_stop(id, UnitResult::Success);
        }
    }

    /// A forking service whose main process is unknown is up as long as its cgroup is populated; with `ExitType=cgroup`
    /// every service is.
    pub(crate) fn lives_by_its_cgroup(&self, id: UnitId) -> bool {
        let Some((_, section)) = self.service_config(id) else { return false };
        let unknown = section.effective_type() == ServiceType::Forking
            && self.service(id).is_some_and(|service| service.main_status.pid == 0);
        (unknown || section.exit_type() == ExitType::Cgroup) && self.state.populated.contains(&id)
    }

    /// After a re-execution: what this service's next step waits for.
    pub(crate) fn service_resumed(&mut self, id: UnitId) {
        let Some(service) = self.service(id) else { return };
        let alien = service.main.as_ref().filter(|main| main.alien).and_then(|main| main.pid);
        let stored: Vec<_> =
            service.fd_store.iter().filter(|stored| stored.poll).map(|stored| stored.fd).collect();
        let waits_for_cgroup =
            service.main.is_none() || service.sub.active_state(false) == ActiveState::Deactivating;
        self.effects.extend(alien.map(|pid| Effect::WatchProcess { pid }));
        self.main_process_resumed(id);
        self.effects.extend(stored.into_iter().map(|fd| Effect::WatchStoredFd { fd }));
        if waits_for_cgroup {
            self.watch_cgroup_again(id);
        }
    }

    // ---- stop ---------------------------------------------------------------------------------------------------

    pub(crate) fn service_stop(&mut self, id: UnitId) -> Started {
        if let Some(service) = self.service_mut(id) {
            service.forbid_restart = true;
        }
        self.thaw_to_stop(id);
        match self.sub(id) {
            ServiceSub::AutoRestart
            | ServiceSub::AutoRestartQueued
            | ServiceSub::DeadBeforeAutoRestart
            | ServiceSub::FailedBeforeAutoRestart => {
                self.set_sub(id, ServiceSub::Dead, None);
                self.run_is_over(id);
            }
            ServiceSub::Dead | ServiceSub::Failed => {
                return Started::Ended(JobResult::Done);
            }
            // What has not started is not stopped by its commands (systemd.service(5), `ExecStop=`).
            ServiceSub::Condition | ServiceSub::StartPre | ServiceSub::Start | ServiceSub::StartPost => {
                self.report_stopping(id);
                self.enter_signal(id, ServiceSub::StopSigterm, UnitResult::Success);
            }
            ServiceSub::Running
            | ServiceSub::Exited
            | ServiceSub::Reload
            | ServiceSub::ReloadSignal
            | ServiceSub::ReloadNotify
            | ServiceSub::ReloadPost => {
                self.report_stopping(id);
                self.kill_control_now(id);
                self.enter_stop(id, UnitResult::Success);
            }
            ServiceSub::Stop
            | ServiceSub::StopWatchdog
            | ServiceSub::StopSigterm
            | ServiceSub::StopSigkill
            | ServiceSub::StopPost
            | ServiceSub::FinalWatchdog
            | ServiceSub::FinalSigterm
            | ServiceSub::FinalSigkill => {}
        }
        Started::Working
    }

    /// A control process of an earlier phase must not outlive it.
    pub(crate) fn kill_control_now(&mut self, id: UnitId) {
        let unit = self.state.units.edit(&id);
        let control = unit.and_then(|unit| unit.kind.state_mut().control_mut()?.take());
        if let Some(process) = control {
            if let Some(spawn) = process.spawn {
                self.state.spawns.remove(&spawn);
            }
            if let Some(pid) = process.pid {
                self.state.processes.remove(&pid);
                self.effects.push_back(Effect::KillProcess { pid, signal: Signal::KILL.0, value: None });
            }
        }
    }

    pub(crate) fn enter_stop(&mut self, id: UnitId, result: UnitResult) {
        self.note_result(id, result);
        let deadline = self.stop_deadline(id);
        self.enter_list(id, ServiceSub::Stop, CommandList::ExecStop, deadline);
    }

    pub(crate) fn enter_stop_post(&mut self, id: UnitId) {
        let deadline = self.stop_deadline(id);
        self.enter_list(id, ServiceSub::StopPost, CommandList::ExecStopPost, deadline);
    }

    /// Signals what is left and waits for it to end.
    pub(crate) fn enter_signal(&mut self, id: UnitId, sub: ServiceSub, result: UnitResult) {
        self.note_result(id, result);
        let deadline = match sub {
            ServiceSub::StopWatchdog | ServiceSub::FinalWatchdog => self.abort_deadline(id),
            _ => self.stop_deadline(id),
        };
        let kill = crate::kill::Wave::of(sub);
        let waits = self.kill_wave(id, kill);
        if waits {
            self.set_sub(id, sub, deadline);
        } else {
            // With `KillMode=mixed` the last wave meets more than the polite one.
            let more = self.kill_section(id).is_none_or(|kill| kill.send_sigkill())
                && self.state.populated.contains(&id)
                && !matches!(self.kill_mode(id), KillMode::None | KillMode::Process);
            match sub {
                ServiceSub::StopSigterm | ServiceSub::StopWatchdog if more => {
                    self.enter_signal(id, ServiceSub::StopSigkill, UnitResult::Success);
                }
                ServiceSub::StopSigterm | ServiceSub::StopWatchdog | ServiceSub::StopSigkill => {
                    self.enter_stop_post(id)
                }
                ServiceSub::FinalSigterm | ServiceSub::FinalWatchdog if more => {
                    self.enter_signal(id, ServiceSub::FinalSigkill, UnitResult::Success);
                }
                _ => self.enter_dead(id),
            }
        }
    }

    /// The run is over.
    pub(crate) fn enter_dead(&mut self, id: UnitId) {
        if !self.things_go_first(id) {
            self.run_ends(id);
        }
    }

    /// The run is over, and what it left on the disk is gone.
    pub(crate) fn run_ends(&mut self, id: UnitId) {
        let Some(service) = self.service(id) else { return };
        let failed = service.has_failed();
        let restart = self.should_restart(id);
        self.report_result(id);
        self.note_leftovers(id);
        self.forget_main(id);
        self.kill_control_now(id);
        if restart {
            // With `RestartMode=direct` nobody is told of an end that is none.
            if self.restart_mode(id) == muster_unit::RestartMode::Normal {
                self.set_sub(
                    id,
                    if failed {
                        ServiceSub::FailedBeforeAutoRestart
                    } else {
                        ServiceSub::DeadBeforeAutoRestart
                    },
                    None,
                );
            }
            let extra =
                self.service_config(id).and_then(|(_, section)| section.restart_randomized_delay_sec());
            let delay = self.restart_delay(id).saturating_add(self.random_within(extra));
            let deadline = Some(self.now.monotonic_usec.saturating_add(delay));
            self.set_sub(id, ServiceSub::AutoRestart, deadline);
        } else {
            self.set_sub(id, if failed { ServiceSub::Failed } else { ServiceSub::Dead }, None);
        }
        self.run_is_over(id);
    }

    /// Fails without a run (start limit, resources); one that was skipped last stays so.
    pub(crate) fn fail_with(&mut self, id: UnitId, result: UnitResult) {
        self.note_result(id, result);
        self.report_result(id);
        let failed = self.service(id).is_some_and(Service::has_failed);
        self.set_sub(id, if failed { ServiceSub::Failed } else { ServiceSub::Dead }, None);
        self.run_is_over(id);
    }

    /// Whether the end of this run would be followed by a start that nobody is told of.
    pub(crate) fn returns_directly(&self, id: UnitId) -> bool {
        self.service(id).is_some()
            && self.restart_mode(id) == muster_unit::RestartMode::Direct
            && self.should_restart(id)
    }

    fn restart_mode(&self, id: UnitId) -> muster_unit::RestartMode {
        self.service_config(id).map_or_else(Default::default, |(_, section)| section.restart_mode())
    }

    /// `RestartSec=` as it is in effect, in microseconds: not above `RestartMaxDelaySec=`.
    pub fn restart_usec(&self, section: &ServiceSection) -> u64 {
        let base = section.restart_sec().map_or(self.state.facts.default_restart_usec, |span| span.0);
        section.restart_max_delay_sec().map_or(base, |max| base.min(max.0))
    }

    /// What the next automatic restart waits, in microseconds (systemd.service(5), `RestartSec=` and `RestartSteps=`).
    pub fn restart_delay(&self, id: UnitId) -> u64 {
        let Some((_, section)) = self.service_config(id) else { return 0 };
        let (steps, max) =
            (section.restart_steps(), section.restart_max_delay_sec().map_or(u64::MAX, |span| span.0));
        let base = self.restart_usec(section);
        let done = self.service(id).map_or(0, |service| service.restarts);
        crate::restart::delay_usec(base, max, steps, done)
    }

    pub(crate) fn should_restart(&self, id: UnitId) -> bool {
        let (Some(service), Some((_, section))) = (self.service(id), self.service_config(id)) else {
            return false;
        };
        if service.forbid_restart || self.job_kind(id) == Some(JobType::Stop) || self.shutdown_is_queued() {
            return false;
        }
        crate::restart::wanted(section, service)
    }

    /// `READY=1` came.
    pub(crate) fn service_ready_heard(&mut self, id: UnitId) {
        let notify = matches!(self.service_type(id), ServiceType::Notify | ServiceType::NotifyReload);
        let Some(service) = self.service_mut(id) else { return };
        let sub = service.sub;
        service.ready = true;
        service.reloading_heard = false;
        // The last word counts.
        service.stopping_heard = false;
        match sub {
            ServiceSub::Start if notify => self.enter_start_post(id),
            ServiceSub::ReloadNotify => self.enter_reload_post(id),
            _ => {}
        }
    }

    /// `STOPPING=1` came.
    pub(crate) fn service_stopping_heard(&mut self, id: UnitId) {
        if let Some(service) = self.service_mut(id) {
            service.stopping_heard = true;
        }
        if self.sub(id) == ServiceSub::Running {
            let deadline = self.stop_deadline(id);
            self.set_sub(id, ServiceSub::StopSigterm, deadline);
        }
    }

    /// The bus name of a `Type=dbus` service has an owner.
    pub(crate) fn service_bus_name(&mut self, id: UnitId, owned: bool) {
        match (self.sub(id), owned, self.service_type(id)) {
            (ServiceSub::Start, true, ServiceType::Dbus) => self.enter_start_post(id),
            (ServiceSub::Running, false, ServiceType::Dbus) => self.enter_stop(id, UnitResult::Success),
            _ => {}
        }
    }

    // ---- time -----------------------------------------------------------------------------------------------------

    fn service_due(&mut self, id: UnitId) {
        let now = self.now.monotonic_usec;
        if self.watchdog_deadline(id).is_some_and(|at| at <= now) {
            self.service_watchdog(id);
        }
        if self.service(id).and_then(|service| service.deadline_usec).is_some_and(|at| at <= now) {
            self.service_deadline(id);
        }
    }

    /// The deadline of the current phase passed.
    pub(crate) fn service_deadline(&mut self, id: UnitId) {
        let send_sigkill = self.kill_section(id).is_none_or(|kill| kill.send_sigkill());
        let stop_mode = self
            .service_config(id)
            .map_or(TimeoutFailureMode::Terminate, |(_, section)| section.timeout_stop_failure_mode());
        match self.sub(id) {
            ServiceSub::AutoRestart => self.restart_now(id),
            ServiceSub::Start if self.service_type(id) == ServiceType::Idle => self.start_simple(id),
            phase @ (ServiceSub::Condition
            | ServiceSub::StartPre
            | ServiceSub::Start
            | ServiceSub::StartPost) => {
                let (sub, done) = stop_by(self.start_failure_mode(id));
                self.report_timeout(id, phase.as_str(), done);
                self.enter_signal(id, sub, UnitResult::Timeout);
            }
            ServiceSub::Running => {
                self.report_timeout(id, "runtime", "Stopping");
                self.enter_stop(id, UnitResult::Timeout);
            }
            ServiceSub::Reload
            | ServiceSub::ReloadSignal
            | ServiceSub::ReloadNotify
            | ServiceSub::ReloadPost => {
                self.report_timeout(id, "reload", "Killing");
                self.kill_control_now(id);
                if let Some(service) = self.service_mut(id) {
                    service.reload_result = UnitResult::Timeout;
                }
                self.enter_running(id);
            }
            ServiceSub::Stop => {
                let (sub, done) = stop_by(stop_mode);
                self.report_timeout(id, "stop", done);
                self.enter_signal(id, sub, UnitResult::Timeout);
            }
            ServiceSub::StopSigterm if stop_mode == TimeoutFailureMode::Abort => {
                self.report_timeout(id, "stop-sigterm", "Aborting");
                self.enter_signal(id, ServiceSub::StopWatchdog, UnitResult::Timeout);
            }
            sub @ (ServiceSub::StopSigterm | ServiceSub::StopWatchdog) if send_sigkill => {
                self.report_timeout(id, sub.as_str(), "Killing");
                self.enter_signal(id, ServiceSub::StopSigkill, UnitResult::Timeout);
            }
            ServiceSub::StopSigterm | ServiceSub::StopWatchdog | ServiceSub::StopSigkill => {
                self.report_timeout(id, "stop-sigkill", "");
                self.note_result(id, UnitResult::Timeout);
                self.enter_stop_post(id);
            }
            ServiceSub::StopPost => {
                let (sub, done) = match stop_mode {
                    TimeoutFailureMode::Terminate => (ServiceSub::FinalSigterm, "Terminating"),
                    TimeoutFailureMode::Abort => (ServiceSub::FinalWatchdog, "Aborting"),
                    TimeoutFailureMode::Kill => (ServiceSub::FinalSigkill, "Killing"),
                };
                self.report_timeout(id, "stop-post", done);
                self.enter_signal(id, sub, UnitResult::Timeout);
            }
            sub @ (ServiceSub::FinalSigterm | ServiceSub::FinalWatchdog) if send_sigkill => {
                self.report_timeout(id, sub.as_str(), "Killing");
                self.enter_signal(id, ServiceSub::FinalSigkill, UnitResult::Timeout);
            }
            ServiceSub::FinalSigterm | ServiceSub::FinalWatchdog | ServiceSub::FinalSigkill => {
                self.report_timeout(id, "final-sigkill", "");
                self.note_result(id, UnitResult::Timeout);
                self.enter_dead(id);
            }
            ServiceSub::Dead
            | ServiceSub::Failed
            | ServiceSub::Exited
            | ServiceSub::AutoRestartQueued
            | ServiceSub::DeadBeforeAutoRestart
            | ServiceSub::FailedBeforeAutoRestart => {}
        }
    }

    fn start_failure_mode(&self, id: UnitId) -> TimeoutFailureMode {
        self.service_config(id)
            .map_or(TimeoutFailureMode::Terminate, |(_, section)| section.timeout_start_failure_mode())
    }

    /// One more restart, and how many there were.
    fn count_restart(&mut self, id: UnitId) -> u32 {
        let Some(service) = self.service_mut(id) else { return 0 };
        service.restarts = service.restarts.saturating_add(1);
        service.restarts
    }

    pub(crate) fn restart_now(&mut self, id: UnitId) {
        let count = self.count_restart(id);
        let text = format!("{}: Scheduled restart job, restart counter is at {count}.", self.unit_name(id));
        self.log(Level::Info, Some(id), text);
        self.set_sub(id, ServiceSub::AutoRestartQueued, None);
        // What depends on the service goes through the restart with it, unless that is not to be seen.
        let direct = self.restart_mode(id) == muster_unit::RestartMode::Direct;
        let kind = if direct { JobType::Start } else { JobType::Restart };
        // The start that was asked for goes on over a restart that nobody is told of.
        let starting = self.state.jobs.of(id).filter(|job| direct && job.running && job.kind == kind);
        if let Some(job) = starting.map(|job| job.id) {
            return self.state.jobs.turn(job, kind);
        }
        let queued = self.request_quietly(id, kind, JobMode::Replace, "Restart=");
        if !queued {
            self.set_sub(id, ServiceSub::Failed, None);
        }
    }
}

/// `Type=idle` waits at most this long (systemd.service(5)).
const IDLE_USEC: u64 = 5_000_000;

/// Where a run whose time is up goes, and what the log says of it (`TimeoutStartFailureMode=`).
fn stop_by(mode: TimeoutFailureMode) -> (ServiceSub, &'static str) {
    match mode {
        TimeoutFailureMode::Terminate => (ServiceSub::StopSigterm, "Terminating"),
        TimeoutFailureMode::Abort => (ServiceSub::StopWatchdog, "Aborting"),
        TimeoutFailureMode::Kill => (ServiceSub::StopSigkill, "Killing"),
    }
}

/// The list that a sub-state works through.
pub(crate) fn list_of(sub: ServiceSub) -> Option<CommandList> {
    match sub {
        ServiceSub::Condition => Some(CommandList::ExecCondition),
        ServiceSub::StartPre => Some(CommandList::ExecStartPre),
        ServiceSub::StartPost => Some(CommandList::ExecStartPost),
        ServiceSub::Reload => Some(CommandList::ExecReload),
        ServiceSub::ReloadPost => Some(CommandList::ExecReloadPost),
        ServiceSub::Stop => Some(CommandList::ExecStop),
        ServiceSub::StopPost => Some(CommandList::ExecStopPost),
        _ => None,
    }
}
