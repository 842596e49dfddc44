//! Targets (systemd.target(5)).
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

/// A target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// Whether it was reached.
    pub active: bool,
}

impl TypeState for Target {
    fn active_state(&self, _: &Unit) -> ActiveState {
        if self.active { ActiveState::Active } else { ActiveState::Inactive }
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        if self.active { "active" } else { "dead" }
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: |manager, id| {
        manager.new_invocation(id);
        manager.set_target(id, true)
    },
    stop: |manager, id| manager.set_target(id, false),
    ..Verbs::NOTHING
};

impl Manager {
    fn set_target(&mut self, id: UnitId, active: bool) -> Started {
        self.change_state(id, |kind| {
            if let Some(target) = Target::of_mut(kind) {
                target.active = active;
            }
        });
        Started::Working
    }
}
