//! Scopes (systemd.scope(5)): processes that somebody else started.
//!
//! | state | made | stop | cgroup empty | time is up |
//! |---|---|---|---|---|
//! | dead | running | – | – | – |
//! | running | – | stop-sigterm | dead | – |
//! | stop-sigterm | – | – | dead | stop-sigkill `timeout` |
//! | stop-sigkill | – | – | failed | failed |
//! | failed | running | – | – | – |

use crate::effect::{BusSignal, Effect, Level, Reply};
use crate::jobs::Started;
use crate::kill::Wave;
use crate::kind::{Kind, TypeState, Verbs};
use crate::manager::Manager;
use crate::refused::Refused;
use crate::state::{ActiveState, Unit, UnitResult};
use muster_graph::{JobResult, UnitId};
use muster_unit::{OomPolicy, UnitName};
use serde::{Deserialize, Serialize};

/// Where a scope is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its word
pub enum ScopeSub {
    #[default]
    Dead,
    Running,
    /// Whoever made it does not want to hear of it any more.
    Abandoned,
    StopSigterm,
    StopSigkill,
    Failed,
}

/// A scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    /// Its state.
    pub sub: ScopeSub,
    /// Why it failed, or will have failed, where it is known.
    pub reason: UnitResult,
    /// The end of `RuntimeMaxSec=` or of the wait for processes that were told to go; monotonic microseconds.
    pub deadline_usec: Option<u64>,
    /// Who made it: the name of a client on the bus.
    pub controller: String,
    /// It was abandoned at some time.
    pub was_abandoned: bool,
}

impl TypeState for Scope {
    fn active_state(&self, _: &Unit) -> ActiveState {
        match self.sub {
            ScopeSub::Dead => ActiveState::Inactive,
            ScopeSub::Running | ScopeSub::Abandoned => ActiveState::Active,
            ScopeSub::StopSigterm | ScopeSub::StopSigkill => ActiveState::Deactivating,
            ScopeSub::Failed => ActiveState::Failed,
        }
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        match self.sub {
            ScopeSub::Dead => "dead",
            ScopeSub::Running => "running",
            ScopeSub::Abandoned => "abandoned",
            ScopeSub::StopSigterm => "stop-sigterm",
            ScopeSub::StopSigkill => "stop-sigkill",
            ScopeSub::Failed => "failed",
        }
    }

    fn result(&self) -> UnitResult {
        match self.reason {
            UnitResult::Success if self.sub == ScopeSub::Failed => UnitResult::Resources,
            reason => reason,
        }
    }

    fn reset_failed(&mut self, _: bool) {
        if self.sub == ScopeSub::Failed {
            self.sub = ScopeSub::Dead;
        }
        self.reason = UnitResult::Success;
    }

    fn set_perpetual(&mut self) {
        self.sub = ScopeSub::Running;
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: Manager::scope_start,
    stop: Manager::scope_stop,
    deadline: |_, unit| Scope::of(&unit.kind)?.deadline_usec,
    due: Manager::scope_deadline,
    resumed: Manager::watch_cgroup_again,
    cgroup_emptied: Manager::scope_emptied,
    oom_killed: Manager::scope_oom_killed,
    has_cgroup: true,
    ignores_isolate: true,
    ..Verbs::NOTHING
};

impl Manager {
    fn scope_mut(&mut self, id: UnitId) -> Option<&mut Scope> {
        Scope::of_mut(&mut self.state.units.edit(&id)?.kind)
    }

    fn scope_start(&mut self, id: UnitId) -> Started {
        // There are no processes for a second run.
        let ran = self.state.units.get(&id).is_some_and(|unit| unit.active_exit.monotonic_usec != 0);
        if ran && !self.state.scope_pids.contains_key(&id) {
            return Started::Ended(JobResult::Once);
        }
        self.prepare_run(id);
        if let Some(pids) = self.state.scope_pids.remove(&id) {
            self.state.populated.insert(id);
            if let Some(path) = self.state.units.get(&id).and_then(|unit| unit.cgroup.clone()) {
                self.effects.push_back(Effect::AttachProcesses { path: path.clone(), pids });
                self.effects.push_back(Effect::WatchCgroup { path });
            }
        }
        let max = self.scope_section(id, |section| section.runtime_max_sec().map_or(u64::MAX, |span| span.0));
        let extra = self.scope_section(id, muster_unit::ScopeSection::runtime_randomized_extra_sec);
        let end = self.after(max).map(|at| at.saturating_add(self.random_within(extra)));
        if let Some(scope) = self.scope_mut(id) {
            (scope.reason, scope.was_abandoned) = (UnitResult::Success, false);
        }
        self.set_scope(id, ScopeSub::Running, end);
        Started::Working
    }

    /// A setting of the scope, or what is usual.
    fn scope_section<T>(&self, id: UnitId, read: impl Fn(&muster_unit::ScopeSection) -> T) -> T {
        let body = self.state.units.get(&id).map(|unit| &unit.file.body);
        match body {
            Some(muster_unit::Body::Scope(section)) => read(section),
            _ => read(&muster_unit::ScopeSection::default()),
        }
    }

    fn scope_stop(&mut self, id: UnitId) -> Started {
        let stops = matches!(self.scope_sub(id), ScopeSub::StopSigterm | ScopeSub::StopSigkill);
        if !stops {
            self.scope_signal(id, ScopeSub::StopSigterm, UnitResult::Success);
        }
        Started::Working
    }

    fn scope_sub(&self, id: UnitId) -> ScopeSub {
        let scope = self.state.units.get(&id).and_then(|unit| Scope::of(&unit.kind));
        scope.map(|scope| scope.sub).unwrap_or_default()
    }

    /// Its processes are told to go, politely by who made it where somebody did; without any it is over.
    fn scope_signal(&mut self, id: UnitId, sub: ScopeSub, reason: UnitResult) {
        if let Some(scope) = self.scope_mut(id).filter(|scope| scope.reason == UnitResult::Success) {
            scope.reason = reason;
        }
        let polite = sub == ScopeSub::StopSigterm;
        let wave = if polite { Wave::Polite } else { Wave::Final };
        let told = self.state.populated.contains(&id)
            && ((polite && self.ask_controller(id)) || self.kill_wave(id, wave));
        if told {
            let patience = self.scope_section(id, |section| section.timeout_stop_sec().map(|span| span.0));
            let deadline = self.after(patience.unwrap_or(self.state.facts.default_timeout_stop_usec));
            self.set_scope(id, sub, deadline);
        } else {
            self.scope_ends(id);
        }
    }

    /// Nothing of it runs, or what does is not waited for any more.
    fn scope_ends(&mut self, id: UnitId) {
        let failed = self.scope_mut(id).is_some_and(|scope| scope.reason != UnitResult::Success);
        self.set_scope(id, if failed { ScopeSub::Failed } else { ScopeSub::Dead }, None);
        self.run_is_over(id);
    }

    /// Whoever made the scope lets go of it (org.freedesktop.systemd1(5), `AbandonScope`).
    pub(crate) fn abandon_scope(&mut self, name: &UnitName) -> Result<Reply, Refused> {
        let id = self.known(name)?;
        match self.scope_sub(id) {
            ScopeSub::Running | ScopeSub::Abandoned => {}
            _ => return Err(Refused::ScopeNotRunning { unit: name.clone() }),
        }
        let Some(scope) = self.scope_mut(id) else { return Ok(Reply::Done) };
        scope.was_abandoned = true;
        let (controller, deadline) = (std::mem::take(&mut scope.controller), scope.deadline_usec);
        if let Some(theirs) = self.state.controllers.get_mut(&controller) {
            theirs.remove(&id);
        }
        self.set_scope(id, ScopeSub::Abandoned, deadline);
        Ok(Reply::Done)
    }

    /// Asks who made the scope to end its processes (org.freedesktop.systemd1(5), `RequestStop`); false where nobody is there.
    fn ask_controller(&mut self, id: UnitId) -> bool {
        let Some(unit) = self.state.units.get(&id) else { return false };
        let controller = Scope::of(&unit.kind).map(|scope| scope.controller.clone()).unwrap_or_default();
        if controller.is_empty() {
            return false;
        }
        let unit = unit.name.clone();
        self.effects.push_back(Effect::Signal(BusSignal::RequestStop { unit, controller }));
        true
    }

    pub(crate) fn set_controller(&mut self, id: UnitId, name: String) {
        if let Some(scope) = self.scope_mut(id) {
            scope.controller.clone_from(&name);
            self.state.controllers.entry(name).or_default().insert(id);
        }
    }

    /// Nobody has this name on the bus any more.
    pub(crate) fn controller_left(&mut self, name: &str) {
        for id in self.state.controllers.remove(name).unwrap_or_default() {
            if let Some(scope) = self.scope_mut(id).filter(|scope| scope.controller == name) {
                scope.controller.clear();
                self.touch(id);
            }
        }
    }

    /// It ran for as long as it may, or would not go: SIGKILL, and if even that does not help, it is left alone.
    fn scope_deadline(&mut self, id: UnitId) {
        let kills = self.kill_section(id).is_none_or(muster_unit::KillSection::send_sigkill);
        match self.scope_sub(id) {
            ScopeSub::Running | ScopeSub::Abandoned => {
                let text = format!("{}: Scope reached runtime time limit. Stopping.", self.unit_name(id));
                self.log(Level::Warning, Some(id), text);
                self.scope_signal(id, ScopeSub::StopSigterm, UnitResult::Timeout);
            }
            ScopeSub::StopSigterm if kills => {
                self.scope_signal(id, ScopeSub::StopSigkill, UnitResult::Timeout);
            }
            ScopeSub::StopSigterm | ScopeSub::StopSigkill => {
                let text = format!("{}: processes of it are still there; left alone.", self.unit_name(id));
                self.log(Level::Warning, Some(id), text);
                if let Some(scope) = self.scope_mut(id) {
                    scope.reason = UnitResult::Timeout;
                }
                self.scope_ends(id);
            }
            ScopeSub::Dead | ScopeSub::Failed => {}
        }
    }

    fn scope_oom_killed(&mut self, id: UnitId, policy: OomPolicy) {
        if policy == OomPolicy::Continue || self.active_state(id) != ActiveState::Active {
            return;
        }
        if policy == OomPolicy::Stop {
            self.scope_signal(id, ScopeSub::StopSigterm, UnitResult::OomKill);
        } else if let Some(scope) = self.scope_mut(id) {
            scope.reason = UnitResult::OomKill;
        }
    }

    fn scope_emptied(&mut self, id: UnitId) {
        if !matches!(self.scope_sub(id), ScopeSub::Dead | ScopeSub::Failed) {
            self.scope_ends(id);
        }
    }

    fn set_scope(&mut self, id: UnitId, sub: ScopeSub, deadline_usec: Option<u64>) {
        self.change_state(id, |kind: &mut Kind| {
            if let Some(scope) = Scope::of_mut(kind) {
                (scope.sub, scope.deadline_usec) = (sub, deadline_usec);
            }
        });
    }
}
