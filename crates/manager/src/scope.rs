//! Scopes (systemd.scope(5)): processes that somebody else started.
//!
//! | state | made | stop | cgroup empty | time is up |
//! |---|---|---|---|---|
//! | dead | running | – | – | – |
//! | running | – | stop-sigterm | dead | – |
//! | stop-sigterm | – | – | dead | `timeout` |

use crate::effect::{BusSignal, Effect, Level};
use crate::jobs::Started;
use crate::kind::{Kind, TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, Unit, UnitResult};
use muster_graph::UnitId;
use muster_unit::{Body, OomPolicy, ScopeSection};
use serde::{Deserialize, Serialize};

/// A scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    /// Whether it runs.
    pub active: bool,
    /// Whether it failed.
    pub failed: bool,
    /// Why, where it is known.
    pub reason: UnitResult,
    /// A stop was requested and waits for emptiness; until then, monotonic microseconds.
    pub stopping_deadline_usec: Option<u64>,
    /// It is stopped then (`RuntimeMaxSec=`), monotonic microseconds.
    pub run_ends_usec: Option<u64>,
    /// Who made it: the name of a client on the bus.
    pub controller: String,
}

impl TypeState for Scope {
    fn active_state(&self, _: &Unit) -> ActiveState {
        if self.stopping_deadline_usec.is_some() {
            ActiveState::Deactivating
        } else if self.active {
            ActiveState::Active
        } else if self.failed {
            ActiveState::Failed
        } else {
            ActiveState::Inactive
        }
    }

    fn sub_state(&self, unit: &Unit) -> &'static str {
        match self.active_state(unit) {
            ActiveState::Deactivating => "stop-sigterm",
            _ if self.active => "running",
            ActiveState::Failed => "failed",
            _ => "dead",
        }
    }

    fn result(&self) -> UnitResult {
        match self.reason {
            UnitResult::Success if self.failed => UnitResult::Resources,
            reason => reason,
        }
    }

    fn reset_failed(&mut self, _: bool) {
        (self.failed, self.reason) = (false, UnitResult::Success);
    }

    fn set_perpetual(&mut self) {
        self.active = true;
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: Manager::scope_start,
    stop: Manager::scope_stop,
    deadline: |_, unit| {
        let scope = Scope::of(&unit.kind)?;
        scope.stopping_deadline_usec.or(scope.run_ends_usec)
    },
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
        self.prepare_run(id);
        if let Some(pids) = self.state.scope_pids.remove(&id) {
            self.state.populated.insert(id);
            if let Some(path) = self.state.units.get(&id).and_then(|unit| unit.cgroup.clone()) {
                self.effects.push_back(Effect::AttachProcesses { path: path.clone(), pids });
                self.effects.push_back(Effect::WatchCgroup { path });
            }
        }
        self.set_scope(id, true);
        self.limit_run(id);
        Started::Working
    }

    /// `RuntimeMaxSec=` and `RuntimeRandomizedExtraSec=`.
    fn limit_run(&mut self, id: UnitId) {
        let Some(section) = self.scope_section(id) else { return };
        let (span, extra) = (section.runtime_max_sec(), section.runtime_randomized_extra_sec());
        let Some(at) = self.after(span.map_or(u64::MAX, |span| span.0)) else { return };
        let at = at.saturating_add(self.random_within(extra));
        if let Some(scope) = self.scope_mut(id) {
            scope.run_ends_usec = Some(at);
        }
        self.touch(id);
    }

    fn scope_section(&self, id: UnitId) -> Option<&ScopeSection> {
        match &self.state.units.get(&id)?.file.body {
            Body::Scope(section) => Some(section),
            _ => None,
        }
    }

    /// `TimeoutStopSec=` from now on.
    fn scope_stop_deadline(&self, id: UnitId) -> u64 {
        let said = self.scope_section(id).and_then(|section| section.timeout_stop_sec()).map(|span| span.0);
        self.after(said.unwrap_or(self.state.facts.default_timeout_stop_usec)).unwrap_or(u64::MAX)
    }

    fn scope_stop(&mut self, id: UnitId) -> Started {
        if self.state.populated.contains(&id)
            && (self.ask_controller(id) || self.kill_wave(id, crate::kill::Wave::Polite))
        {
            let old = self.active_state(id);
            let deadline = self.scope_stop_deadline(id);
            if let Some(scope) = self.scope_mut(id) {
                scope.stopping_deadline_usec = Some(deadline);
            }
            self.state_changed(id, old);
            return Started::Working;
        }
        self.set_scope(id, false);
        self.run_is_over(id);
        Started::Working
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

    /// Its time is up, or it would not go: SIGKILL, and if even that does not help, again.
    fn scope_deadline(&mut self, id: UnitId) {
        if self.active_state(id) == ActiveState::Active {
            let text = format!("{}: Scope reached runtime time limit. Stopping.", self.unit_name(id));
            self.log(Level::Warning, Some(id), text);
            if let Some(scope) = self.scope_mut(id) {
                (scope.reason, scope.run_ends_usec) = (UnitResult::Timeout, None);
            }
            self.scope_stop(id);
            return;
        }
        let again = self.scope_stop_deadline(id);
        self.kill_wave(id, crate::kill::Wave::Final);
        if let Some(scope) = self.scope_mut(id) {
            scope.stopping_deadline_usec = Some(again);
            if scope.reason == UnitResult::Success {
                scope.reason = UnitResult::Timeout;
            }
        }
        self.touch(id);
    }

    fn scope_oom_killed(&mut self, id: UnitId, policy: OomPolicy) {
        if policy == OomPolicy::Continue || self.active_state(id) != ActiveState::Active {
            return;
        }
        if let Some(scope) = self.scope_mut(id) {
            scope.reason = UnitResult::OomKill;
        }
        if policy == OomPolicy::Stop {
            self.scope_stop(id);
        }
    }

    fn scope_emptied(&mut self, id: UnitId) {
        if self.active_state(id) != ActiveState::Inactive {
            self.set_scope(id, false);
            self.run_is_over(id);
        }
    }

    fn set_scope(&mut self, id: UnitId, active: bool) {
        self.change_state(id, |kind: &mut Kind| {
            if let Some(scope) = Scope::of_mut(kind) {
                let controller = std::mem::take(&mut scope.controller);
                let reason = if active { UnitResult::Success } else { scope.reason };
                let failed = reason != UnitResult::Success;
                *scope = Scope { active, failed, reason, controller, ..Scope::default() };
            }
        });
    }
}
