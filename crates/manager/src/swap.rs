//! Units of type swap (systemd.swap(5)): loaded and shown, not run by this version; a start job ends as `unsupported`.

use crate::kind::{TypeState, Verbs};
use crate::state::{ActiveState, Unit};
use serde::{Deserialize, Serialize};

/// Its state: always dead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Swap {}

impl TypeState for Swap {
    fn active_state(&self, _: &Unit) -> ActiveState {
        ActiveState::Inactive
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        "dead"
    }
}

pub(crate) const VERBS: Verbs = Verbs { has_cgroup: true, ignores_isolate: true, ..Verbs::NOTHING };
