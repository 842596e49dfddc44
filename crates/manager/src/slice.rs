//! Slices (systemd.slice(5)).
//!
//! | state | start | stop |
//! |---|---|---|
//! | dead | active | – |
//! | active | – | dead |

use crate::jobs::Started;
use crate::kind::{TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, Unit};
use muster_graph::UnitId;
use serde::{Deserialize, Serialize};

/// A slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slice {
    /// Whether its cgroup is there.
    pub active: bool,
}

impl TypeState for Slice {
    fn active_state(&self, _: &Unit) -> ActiveState {
        if self.active { ActiveState::Active } else { ActiveState::Inactive }
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        if self.active { "active" } else { "dead" }
    }

    fn set_perpetual(&mut self) {
        self.active = true;
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: Manager::slice_start,
    stop: Manager::slice_stop,
    resumed: Manager::watch_cgroup_again,
    has_cgroup: true,
    ignores_isolate: true,
    ..Verbs::NOTHING
};

impl Manager {
    fn slice_start(&mut self, id: UnitId) -> Started {
        self.prepare_run(id);
        self.state.populated.remove(&id);
        self.set_slice(id, true);
        Started::Working
    }

    fn slice_stop(&mut self, id: UnitId) -> Started {
        self.set_slice(id, false);
        self.run_is_over(id);
        Started::Working
    }

    fn set_slice(&mut self, id: UnitId, active: bool) {
        self.change_state(id, |kind| {
            if let Some(slice) = Slice::of_mut(kind) {
                slice.active = active;
            }
        });
    }
}
