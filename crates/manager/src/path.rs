//! Paths (systemd.path(5)).
//!
//! | state | start | a path holds | its unit ends | the watch failed | stop |
//! |---|---|---|---|---|---|
//! | dead | waiting | – | – | – | – |
//! | waiting | – | running | – | failed `resources` | dead |
//! | running | – | – | waiting | failed `resources` | dead |
//! | failed | waiting | – | – | – | – |
//!
//! Who looks at the paths is a helper (`runtime/paths.rs`), since a path may hang. More triggers than `TriggerLimitBurst=`
//! in `TriggerLimitIntervalSec=` fail the path, as does the start limit of its unit, so that none of them spins.

use crate::effect::{Effect, Level};
use crate::jobs::Started;
use crate::kind::{TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, RateWindow, Service, Unit, UnitResult, words};
use muster_graph::{JobMode, JobResult, JobType, UnitId};
use muster_unit::{Body, LoadState, PathSection, UnitName};
use serde::{Deserialize, Serialize};

words! {
    /// `SubState` of a path.
    PathSub { Dead = "dead", Waiting = "waiting", Running = "running", Failed = "failed", }
}

/// What of a path is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its directive
pub enum PathKind {
    PathExists,
    PathExistsGlob,
    PathChanged,
    PathModified,
    DirectoryNotEmpty,
}

/// What a path unit waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathWatch {
    /// Each path with what is waited for.
    pub paths: Vec<(PathKind, String)>,
    /// `MakeDirectory=`: paths are made as directories of this mode first.
    pub make: Option<u32>,
}

impl PathWatch {
    pub(crate) fn of(section: &PathSection) -> PathWatch {
        let kinds = [
            (PathKind::PathExists, section.path_exists()),
            (PathKind::PathExistsGlob, section.path_exists_glob()),
            (PathKind::PathChanged, section.path_changed()),
            (PathKind::PathModified, section.path_modified()),
            (PathKind::DirectoryNotEmpty, section.directory_not_empty()),
        ];
        let paths =
            kinds.into_iter().flat_map(|(kind, list)| list.0.iter().map(move |path| (kind, path.0.clone())));
        PathWatch {
            paths: paths.collect(),
            make: section.make_directory().then(|| section.directory_mode().0),
        }
    }
}

/// A path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Path {
    /// Where it is in its life.
    pub sub: PathSub,
    /// Result of the last run.
    pub result: UnitResult,
    /// Triggers for `TriggerLimitBurst=`.
    pub trigger_limit: RateWindow,
    /// What is watched; a reload that changes it makes the watch anew.
    pub watched: PathWatch,
}

impl TypeState for Path {
    fn active_state(&self, _: &Unit) -> ActiveState {
        match self.sub {
            PathSub::Dead => ActiveState::Inactive,
            PathSub::Failed => ActiveState::Failed,
            PathSub::Waiting | PathSub::Running => ActiveState::Active,
        }
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        self.sub.as_str()
    }

    fn result(&self) -> UnitResult {
        self.result
    }

    fn reset_failed(&mut self, failed: bool) {
        if failed {
            (self.sub, self.result) = (PathSub::Dead, UnitResult::Success);
        }
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: Manager::path_start,
    stop: Manager::path_stop,
    triggered_changed: Manager::path_triggered_changed,
    reloaded: Manager::path_reloaded,
    resumed: Manager::path_resumed,
    ..Verbs::NOTHING
};

impl Manager {
    fn path_mut(&mut self, id: UnitId) -> Option<&mut Path> {
        Path::of_mut(&mut self.state.units.edit(&id)?.kind)
    }

    fn path_sub(&self, id: UnitId) -> PathSub {
        let path = self.state.units.get(&id).and_then(|unit| Path::of(&unit.kind));
        path.map_or(PathSub::Dead, |path| path.sub)
    }

    fn path_section(&self, id: UnitId) -> Option<&PathSection> {
        match &self.state.units.get(&id)?.file.body {
            Body::Path(section) => Some(section),
            _ => None,
        }
    }

    fn set_path_sub(&mut self, id: UnitId, sub: PathSub) {
        if matches!(sub, PathSub::Dead | PathSub::Failed) {
            self.effects.push_back(Effect::UnwatchPaths { unit: self.name_of(id) });
        }
        self.change_state(id, |kind| {
            if let Some(path) = Path::of_mut(kind) {
                path.sub = sub;
            }
        });
    }

    fn path_start(&mut self, id: UnitId) -> Started {
        if self.triggered_unit(id).is_none_or(|unit| unit.file.load_state != LoadState::Loaded) {
            let text = format!("{}: Refusing to start, unit to trigger not loaded.", self.unit_name(id));
            self.log(Level::Error, Some(id), text);
            return Started::Ended(JobResult::Failed);
        }
        if !self.start_is_allowed(id) {
            self.path_fail(id, UnitResult::StartLimitHit);
            return Started::Ended(JobResult::Failed);
        }
        self.prepare_run(id);
        if let Some(path) = self.path_mut(id) {
            *path = Path::default();
        }
        let other = self.triggered_unit(id).map(|unit| unit.active_state());
        let is_up = other.is_some_and(|state| !matches!(state, ActiveState::Inactive | ActiveState::Failed));
        self.set_path_sub(id, if is_up { PathSub::Running } else { PathSub::Waiting });
        self.path_watch(id);
        Started::Working
    }

    fn path_watch(&mut self, id: UnitId) {
        let Some(watch) = self.path_section(id).map(PathWatch::of) else { return };
        if let Some(path) = self.path_mut(id) {
            path.watched = watch.clone();
        }
        self.effects.push_back(Effect::WatchPaths { unit: self.name_of(id), watch });
    }

    fn path_stop(&mut self, id: UnitId) -> Started {
        self.set_path_sub(id, PathSub::Dead);
        Started::Working
    }

    fn path_fail(&mut self, id: UnitId, result: UnitResult) {
        if let Some(path) = self.path_mut(id) {
            path.result = result;
        }
        let text = format!("{}: Failed with result '{}'.", self.unit_name(id), result.as_str());
        self.log(Level::Warning, Some(id), text);
        self.set_path_sub(id, PathSub::Failed);
    }

    /// A path holds, or changed.
    pub(crate) fn path_triggered(&mut self, unit: &UnitName, path: &str) {
        let Some(&id) = self.state.names.get(unit) else { return };
        if !matches!(self.path_sub(id), PathSub::Waiting | PathSub::Running)
            || self.job_kind(id) == Some(JobType::Stop)
        {
            return;
        }
        let Some(section) = self.path_section(id) else { return };
        let interval = section.trigger_limit_interval_sec().map_or(2_000_000, |span| span.0);
        let burst = section.trigger_limit_burst().unwrap_or(200);
        let now = self.now.monotonic_usec;
        let Some(state) = self.path_mut(id) else { return };
        if !crate::limit::admit(&mut state.trigger_limit, now, interval, burst) {
            let text = format!("{}: Trigger limit hit, refusing further activation.", self.unit_name(id));
            self.log(Level::Error, Some(id), text);
            return self.path_fail(id, UnitResult::TriggerLimitHit);
        }
        let Some(other) = self.triggered_unit(id).map(|unit| unit.id) else {
            return self.path_fail(id, UnitResult::Resources);
        };
        let name = self.unit_name(id);
        if let Some(unit) = self.state.units.edit(&other) {
            unit.activation_details =
                vec![("TRIGGER_UNIT".to_owned(), name.clone()), ("TRIGGER_PATH".to_owned(), path.to_owned())];
        }
        let started =
            self.request_quietly(other, JobType::Start, JobMode::Replace, &format!("{name}: {path}"));
        if !started {
            return self.path_fail(id, UnitResult::Resources);
        }
        self.set_path_sub(id, PathSub::Running);
    }

    /// The helper could not be started, or ended.
    pub(crate) fn path_watch_failed(&mut self, unit: &UnitName, message: &str) {
        let Some(&id) = self.state.names.get(unit) else { return };
        if matches!(self.path_sub(id), PathSub::Waiting | PathSub::Running) {
            let text = format!("{unit}: Its paths are no longer watched: {message}");
            self.log(Level::Error, Some(id), text);
            self.path_fail(id, UnitResult::Resources);
        }
    }

    /// The unit that it starts changed its state, or a job of it ended.
    fn path_triggered_changed(&mut self, id: UnitId, other: UnitId) {
        let sub = self.path_sub(id);
        if !matches!(sub, PathSub::Waiting | PathSub::Running) {
            return;
        }
        let state = self.active_state(other);
        let service = self.state.units.get(&other).and_then(|unit| Service::of(&unit.kind));
        if state == ActiveState::Failed
            && service.is_some_and(|service| service.result == UnitResult::StartLimitHit)
        {
            return self.path_fail(id, UnitResult::UnitStartLimitHit);
        }
        let down = matches!(state, ActiveState::Inactive | ActiveState::Failed);
        if sub == PathSub::Running && down && self.job_kind(other) != Some(JobType::Start) {
            self.set_path_sub(id, PathSub::Waiting);
            self.effects.push_back(Effect::CheckPaths { unit: self.name_of(id) });
        } else if sub == PathSub::Waiting && !down {
            self.set_path_sub(id, PathSub::Running);
        }
    }

    fn path_reloaded(&mut self, id: UnitId) {
        let now = self.path_section(id).map(PathWatch::of);
        let changed = self.path_mut(id).is_some_and(|path| Some(&path.watched) != now.as_ref());
        if changed && matches!(self.path_sub(id), PathSub::Waiting | PathSub::Running) {
            self.path_watch(id);
        }
    }

    fn path_resumed(&mut self, id: UnitId) {
        if matches!(self.path_sub(id), PathSub::Waiting | PathSub::Running) {
            self.path_watch(id);
        }
    }
}
