//! Services, continued: what the end of a process means in each sub-state, and the emptiness of the cgroup.
//!
//! The table at the head of `service.rs` is the rule; here are its columns "control ends" and "main ends".

use crate::effect::SpawnRole;
use crate::event::Exit;
use crate::manager::Manager;
use crate::service::list_of;
use crate::state::{CommandList, Process, Service, ServiceSub, UnitResult};
use muster_graph::UnitId;
use muster_unit::{KillMode, ServiceType, Signal};

impl Service {
    /// Whether its result is that of a failure.
    pub(crate) fn has_failed(&self) -> bool {
        !matches!(self.result, UnitResult::Success | UnitResult::ExecCondition)
    }
}

impl Manager {
    /// The control process ended.
    pub(crate) fn service_control_exited(&mut self, id: UnitId, process: Process, exit: Exit) {
        let (list, index) = process.place.unwrap_or((CommandList::ExecStart, 0));
        let ignore = forgives(&process, exit);
        let clean = is_clean(exit, self.clean_statuses(id), true);
        self.report_control_exit(id, list, exit, clean || ignore);
        let result = match list {
            _ if clean || ignore => UnitResult::Success,
            // A reload that fails is no end of the run.
            CommandList::Refresh | CommandList::ExecReload | CommandList::ExecReloadPost => result_of(exit),
            _ => self.result_of_end(id, exit),
        };
        if list == CommandList::ExecCondition && result != UnitResult::Success {
            return self.condition_command_failed(id, exit, result);
        }
        let sub = self.sub(id);
        if list == CommandList::ExecStart {
            return self.forking_parent_exited(id, result);
        }
        if result == UnitResult::Success {
            let next = index.saturating_add(1);
            let more = usize::try_from(next).is_ok_and(|next| next < self.commands(id, list).len());
            let refreshed = list == CommandList::Refresh && sub == ServiceSub::Reload;
            let still_here = refreshed || list_of(sub) == Some(list);
            if more && still_here {
                return self.run_command(id, list, next, SpawnRole::Control);
            }
            if still_here {
                return self.list_done(id, list);
            }
        }
        self.control_failed_in(id, sub, result);
    }

    fn condition_command_failed(&mut self, id: UnitId, exit: Exit, result: UnitResult) {
        // systemd.service(5): 1 to 254 skips the unit, anything else fails it.
        let skip = matches!(exit, Exit::Exited(1..=254));
        self.enter_signal(id, ServiceSub::StopSigterm, if skip { UnitResult::ExecCondition } else { result });
    }

    pub(crate) fn control_failed_in(&mut self, id: UnitId, sub: ServiceSub, result: UnitResult) {
        match sub {
            ServiceSub::Condition | ServiceSub::StartPre => {
                self.enter_signal(id, ServiceSub::StopSigterm, result)
            }
            ServiceSub::StartPost => self.enter_signal(id, ServiceSub::StopSigterm, result),
            ServiceSub::Reload
            | ServiceSub::ReloadSignal
            | ServiceSub::ReloadNotify
            | ServiceSub::ReloadPost => {
                if let Some(service) = self.service_mut(id) {
                    service.reload_result = result;
                }
                self.enter_running(id);
            }
            ServiceSub::Stop => self.enter_signal(id, ServiceSub::StopSigterm, result),
            ServiceSub::StopPost => self.enter_signal(id, ServiceSub::FinalSigterm, result),
            ServiceSub::StopSigterm
            | ServiceSub::StopWatchdog
            | ServiceSub::StopSigkill
            | ServiceSub::FinalWatchdog
            | ServiceSub::FinalSigterm
            | ServiceSub::FinalSigkill => {
                self.note_result(id, result);
                self.process_gone_while_stopping(id)
            }
            ServiceSub::Start => self.enter_signal(id, ServiceSub::StopSigterm, result),
            ServiceSub::Running
            | ServiceSub::Exited
            | ServiceSub::Dead
            | ServiceSub::Failed
            | ServiceSub::AutoRestart
            | ServiceSub::AutoRestartQueued
            | ServiceSub::DeadBeforeAutoRestart
            | ServiceSub::FailedBeforeAutoRestart => {}
        }
    }

    /// The main process ended. Where there is a PID file it may name an heir, so it is read first.
    pub(crate) fn service_main_exited(&mut self, id: UnitId, process: Process, exit: Exit) {
        if !self.heir_is_looked_for(id, &process, exit) {
            self.service_main_gone(id, process, exit);
        }
    }

    /// The main process ended, and nothing takes its place.
    pub(crate) fn service_main_gone(&mut self, id: UnitId, process: Process, exit: Exit) {
        let ignore = forgives(&process, exit);
        let kind = self.service_type(id);
        let clean = is_clean(exit, self.clean_statuses(id), kind == ServiceType::Oneshot);
        let result = if clean || ignore { UnitResult::Success } else { self.result_of_end(id, exit) };
        let stamp = self.stamp();
        if exit != Exit::NotMade {
            if let Some(service) = self.service_mut(id) {
                service.main_status.exit = stamp;
                service.main_status.how = Some(exit);
            }
            self.report_main_exit(id, exit, result == UnitResult::Success);
        }
        let heard = self.service(id).is_some_and(|service| service.ready);
        match self.sub(id) {
            sub if (sub.has_run_of_main() && sub != ServiceSub::StartPost)
                && self.lives_by_its_cgroup(id) =>
            {
                self.note_result(id, result);
                self.watch_cgroup_again(id);
                self.touch(id);
            }
            ServiceSub::Start if kind == ServiceType::Oneshot && result == UnitResult::Success => {
                let next = process.place.map_or(0, |(_, index)| index.saturating_add(1));
                let more = usize::try_from(next)
                    .is_ok_and(|next| next < self.commands(id, CommandList::ExecStart).len());
                if more {
                    self.run_command(id, CommandList::ExecStart, next, SpawnRole::Main)
                } else {
                    self.enter_start_post(id)
                }
            }
            ServiceSub::Start
                if matches!(kind, ServiceType::Notify | ServiceType::NotifyReload | ServiceType::Dbus)
                    && !heard =>
            {
                let result = if result == UnitResult::Success { UnitResult::Protocol } else { result };
                self.enter_signal(id, ServiceSub::StopSigterm, result);
            }
            ServiceSub::Start if kind == ServiceType::Exec && result == UnitResult::Success => {
                self.enter_start_post(id)
            }
            ServiceSub::Start => self.enter_signal(id, ServiceSub::StopSigterm, result),
            ServiceSub::StartPost => self.note_result(id, result),
            ServiceSub::Running
            | ServiceSub::Reload
            | ServiceSub::ReloadSignal
            | ServiceSub::ReloadNotify
            | ServiceSub::ReloadPost => {
                self.kill_control_now(id);
                self.note_result(id, result);
                self.enter_running(id)
            }
            ServiceSub::Stop => self.note_result(id, result),
            ServiceSub::StopWatchdog
            | ServiceSub::StopSigterm
            | ServiceSub::StopSigkill
            | ServiceSub::FinalWatchdog
            | ServiceSub::FinalSigterm
            | ServiceSub::FinalSigkill => {
                self.note_result(id, result);
                self.process_gone_while_stopping(id);
            }
            ServiceSub::Dead
            | ServiceSub::Condition
            | ServiceSub::StartPre
            | ServiceSub::Exited
            | ServiceSub::StopPost
            | ServiceSub::Failed
            | ServiceSub::DeadBeforeAutoRestart
            | ServiceSub::FailedBeforeAutoRestart
            | ServiceSub::AutoRestart
            | ServiceSub::AutoRestartQueued => {}
        }
    }

    /// In a phase that waits for the end of processes one ended, or the cgroup became empty.
    pub(crate) fn process_gone_while_stopping(&mut self, id: UnitId) {
        let Some(service) = self.service(id) else { return };
        let known_left = service.main.is_some() || service.control.is_some();
        let populated = self.state.populated.contains(&id);
        match service.sub {
            // With a known main process its end is the end of this phase; the rest is for the final wave.
            ServiceSub::StopSigterm | ServiceSub::StopSigkill | ServiceSub::StopWatchdog
                if !known_left && (service.main_status.pid != 0 || !populated) =>
            {
                self.enter_stop_post(id);
            }
            ServiceSub::FinalSigterm | ServiceSub::FinalSigkill | ServiceSub::FinalWatchdog
                if !known_left
                    && (!populated || matches!(self.kill_mode(id), KillMode::Process | KillMode::None)) =>
            {
                self.enter_dead(id);
            }
            _ => {}
        }
    }

    /// No process is left in the cgroup.
    pub(crate) fn service_cgroup_emptied(&mut self, id: UnitId) {
        match self.sub(id) {
            ServiceSub::StopSigterm
            | ServiceSub::StopSigkill
            | ServiceSub::StopWatchdog
            | ServiceSub::FinalSigterm
            | ServiceSub::FinalSigkill
            | ServiceSub::FinalWatchdog => self.process_gone_while_stopping(id),
            ServiceSub::Exited => self.release_cgroup(id),
            // With `ExitType=cgroup` the end of the main process was no end.
            ServiceSub::Start
                if self.service(id).is_some_and(|service| service.main_status.exit.monotonic_usec != 0) =>
            {
                self.enter_signal(id, ServiceSub::StopSigterm, UnitResult::Protocol)
            }
            ServiceSub::Running if self.service(id).is_some_and(|service| service.main.is_none()) => {
                self.enter_running(id)
            }
            _ => {}
        }
    }

    fn clean_statuses(&self, id: UnitId) -> Option<&muster_unit::ExitStatusSet> {
        let unit = self.state.units.get(&id)?;
        match &unit.file.body {
            muster_unit::Body::Service(section) => Some(section.success_exit_status()),
            _ => None,
        }
    }
}

/// Whether a command may fail (`-`). What was not made is no failure of a command.
fn forgives(process: &Process, exit: Exit) -> bool {
    exit != Exit::NotMade && process.command.as_ref().is_some_and(|command| command.ignore_failure)
}

/// Whether an end counts as success: exit 0, what `SuccessExitStatus=` adds, and for daemons the signals of a clean stop.
pub(crate) fn is_clean(exit: Exit, extra: Option<&muster_unit::ExitStatusSet>, command: bool) -> bool {
    let listed_code =
        |code: i32| extra.is_some_and(|set| u8::try_from(code).is_ok_and(|code| set.codes.contains(&code)));
    let listed_signal = |signal: i32| extra.is_some_and(|set| set.signals.contains(&Signal(signal)));
    match exit {
        Exit::Exited(code) => code == 0 || listed_code(code),
        Exit::Killed(signal) => {
            let stop = [Signal::HUP, Signal::INT, Signal::TERM, Signal::PIPE].contains(&Signal(signal));
            (stop && !command) || listed_signal(signal)
        }
        Exit::Dumped(signal) => listed_signal(signal),
        Exit::NotMade => false,
    }
}

/// The result that an unclean end gives.
pub(crate) fn result_of(exit: Exit) -> UnitResult {
    match exit {
        Exit::Exited(_) => UnitResult::ExitCode,
        Exit::Killed(_) => UnitResult::Signal,
        Exit::Dumped(_) => UnitResult::CoreDump,
        Exit::NotMade => UnitResult::Resources,
    }
}
