//! Services, continued: a reload. What `RefreshOnReload=` names is made anew first, by a process of its own; then come the signal
//! and the commands, the word of the service, and `ExecReloadPost=`.

use crate::effect::{Effect, SpawnRole};
use crate::jobs::Started;
use crate::manager::Manager;
use crate::state::{CommandList, ServiceSub, UnitResult};
use muster_graph::{JobResult, UnitId};
use muster_unit::{ServiceType, Signal};

impl Manager {
    pub(crate) fn service_reload(&mut self, id: UnitId) -> Started {
        let now = self.now.monotonic_usec;
        let Some(service) = self.service_mut(id) else { return Started::Ended(JobResult::Invalid) };
        service.reload_result = UnitResult::Success;
        service.reload_begin_usec = now;
        service.reloading_heard = false;
        self.report_reloading(id);
        if self.refresh_of(id).is_none() {
            return self.reload_main(id);
        }
        let deadline = self.start_deadline(id);
        self.set_sub(id, ServiceSub::Reload, deadline);
        self.run_command(id, CommandList::Refresh, 0, SpawnRole::Control);
        Started::Working
    }

    /// What is refreshed by a reload is there; the rest of it.
    pub(crate) fn refreshed(&mut self, id: UnitId) {
        let now = self.now.monotonic_usec;
        if let Some(service) = self.service_mut(id) {
            service.reload_begin_usec = now;
            service.reloading_heard = false;
        }
        if let Started::Ended(_) = self.reload_main(id) {
            self.enter_running(id);
        }
    }

    /// The signal and the commands of a reload.
    fn reload_main(&mut self, id: UnitId) -> Started {
        let notify = self.service_type(id) == ServiceType::NotifyReload;
        let main = self.service(id).and_then(|service| service.main.as_ref()?.pid);
        let deadline = self.start_deadline(id);
        if let (true, Some(pid)) = (notify, main) {
            let signal = self
                .service_config(id)
                .and_then(|(_, section)| section.reload_signal())
                .unwrap_or(Signal::HUP)
                .0;
            self.effects.push_back(Effect::KillProcess { pid, signal, value: None });
            if self.commands(id, CommandList::ExecReload).is_empty() {
                self.set_sub(id, ServiceSub::ReloadSignal, deadline);
                return Started::Working;
            }
        }
        if self.commands(id, CommandList::ExecReload).is_empty() {
            return Started::Ended(JobResult::Done);
        }
        self.enter_list(id, ServiceSub::Reload, CommandList::ExecReload, deadline);
        Started::Working
    }

    pub(crate) fn reload_commands_done(&mut self, id: UnitId) {
        let waits = self.service_type(id) == ServiceType::NotifyReload
            && self.service(id).is_some_and(|s| s.reload_result == UnitResult::Success);
        if waits && self.service(id).is_some_and(|service| service.reloading_heard) {
            let deadline = self.start_deadline(id);
            return self.set_sub(id, ServiceSub::ReloadNotify, deadline);
        }
        self.enter_reload_post(id);
    }

    /// The service has reloaded: `ExecReloadPost=`, if there is any.
    pub(crate) fn enter_reload_post(&mut self, id: UnitId) {
        let deadline = self.start_deadline(id);
        self.enter_list(id, ServiceSub::ReloadPost, CommandList::ExecReloadPost, deadline);
    }

    /// `RELOADING=1` came.
    pub(crate) fn service_reloading_heard(&mut self, id: UnitId, at_usec: Option<u64>) {
        let Some(service) = self.service_mut(id) else { return };
        let fits = at_usec.is_none_or(|at| at >= service.reload_begin_usec);
        let sub = service.sub;
        service.reloading_heard = true;
        let deadline = self.start_deadline(id);
        match sub {
            ServiceSub::ReloadSignal if fits => self.set_sub(id, ServiceSub::ReloadNotify, deadline),
            ServiceSub::Running => self.set_sub(id, ServiceSub::ReloadNotify, deadline),
            _ => {}
        }
    }
}
