//! What becomes of a unit in which the kernel killed a process for want of memory (systemd.service(5), `OOMPolicy=`).
//!
//! | policy | starting, stop | running, exited | reloading | signalled |
//! |---|---|---|---|---|
//! | continue | – | – | – | – |
//! | stop | stop-sigterm `oom-kill` | stop `oom-kill` | – | `oom-kill` |
//! | kill | – | – | – | – |
//!
//! With `kill` the kernel takes the other processes too, and what follows is their end. A reload in which it killed fails, and no
//! more, as under systemd 257.
//!
//! The runtime tells of the kill before it tells of the end of the process. A process that ends by SIGKILL in a run in which
//! the kernel killed ended by that: its result is `oom-kill`, but with `continue`.

use crate::effect::Level;
use crate::event::Exit;
use crate::manager::Manager;
use crate::service_ends::result_of;
use crate::state::{ServiceSub, UnitResult};
use muster_graph::UnitId;
use muster_unit::{Body, OomPolicy, Signal};

impl Manager {
    /// `OOMPolicy=` as it is in effect; nothing for types that have none.
    pub fn oom_policy(&self, id: UnitId) -> Option<OomPolicy> {
        let unit = self.state.units.get(&id)?;
        let said = match &unit.file.body {
            Body::Service(section) => section.oom_policy(),
            Body::Scope(section) => section.oom_policy(),
            _ => return None,
        };
        let delegates = unit.file.cgroup.as_ref().is_some_and(|cgroup| cgroup.delegate().is_some());
        let default = self.state.facts.config.default_oom_policy;
        Some(said.unwrap_or(if delegates { OomPolicy::Continue } else { default }))
    }

    /// The kernel killed a process in a cgroup.
    pub(crate) fn oom_killed(&mut self, path: &str) {
        let Some(id) = self.state.cgroups.get(path).copied() else { return };
        let Some(unit) = self.state.units.edit(&id) else { return };
        unit.oom_killed = true;
        let text = format!("{}: A process of this unit has been killed by the OOM killer.", unit.name);
        self.log(Level::Warning, Some(id), text);
        if let Some(policy) = self.oom_policy(id) {
            (self.verbs(id).oom_killed)(self, id, policy);
        }
    }

    pub(crate) fn service_oom_killed(&mut self, id: UnitId, policy: OomPolicy) {
        if policy != OomPolicy::Stop {
            return;
        }
        match self.sub(id) {
            ServiceSub::Condition
            | ServiceSub::StartPre
            | ServiceSub::Start
            | ServiceSub::StartPost
            | ServiceSub::Stop => self.enter_signal(id, ServiceSub::StopSigterm, UnitResult::OomKill),
            ServiceSub::Running | ServiceSub::Exited => self.enter_stop(id, UnitResult::OomKill),
            ServiceSub::StopWatchdog
            | ServiceSub::StopSigterm
            | ServiceSub::StopSigkill
            | ServiceSub::StopPost
            | ServiceSub::FinalWatchdog
            | ServiceSub::FinalSigterm
            | ServiceSub::FinalSigkill => self.note_result(id, UnitResult::OomKill),
            ServiceSub::Dead
            | ServiceSub::Reload
            | ServiceSub::ReloadSignal
            | ServiceSub::ReloadNotify
            | ServiceSub::ReloadPost
            | ServiceSub::Failed
            | ServiceSub::DeadBeforeAutoRestart
            | ServiceSub::FailedBeforeAutoRestart
            | ServiceSub::AutoRestart
            | ServiceSub::AutoRestartQueued => {}
        }
    }

    /// The result that an unclean end of one of a unit's processes gives.
    pub(crate) fn result_of_end(&self, id: UnitId, exit: Exit) -> UnitResult {
        let killed = self.state.units.get(&id).is_some_and(|unit| unit.oom_killed)
            && self.oom_policy(id) != Some(OomPolicy::Continue);
        match exit {
            Exit::Killed(signal) if killed && Signal(signal) == Signal::KILL => UnitResult::OomKill,
            exit => result_of(exit),
        }
    }
}
