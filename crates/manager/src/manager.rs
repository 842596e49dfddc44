//! The manager: its surface, and the read-only view that D-Bus gets.

use crate::effect::Effect;
use crate::state::{State, SystemState, Unit};
use muster_graph::UnitId;
use muster_unit::UnitName;
use std::collections::VecDeque;

/// PID 1's mind.
#[derive(Debug, Default)]
pub struct Manager {
    pub(crate) state: State,
    pub(crate) effects: VecDeque<Effect>,
}

impl Manager {
    /// Everything, to read.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// A loaded unit by any of its names.
    pub fn unit(&self, name: &UnitName) -> Option<&Unit> {
        self.state.units.get(self.state.names.get(name)?)
    }

    /// A loaded unit by number.
    pub fn unit_by_id(&self, id: UnitId) -> Option<&Unit> {
        self.state.units.get(&id)
    }

    /// The unit that a process belongs to, by its cgroup below our root (longest prefix), or by number.
    pub fn unit_of_process(&self, pid: u32, cgroup: Option<&str>) -> Option<UnitId> {
        let by_cgroup = cgroup.and_then(|path| {
            std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(parent, _)| parent))
                .find_map(|path| self.state.cgroups.get(path))
        });
        by_cgroup.or_else(|| self.state.processes.get(&pid)).copied()
    }

    /// `SystemState` of the Manager interface.
    pub fn system_state(&self) -> SystemState {
        SystemState::Starting
    }
}
