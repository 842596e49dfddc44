//! The unit types, each a file and a row here.
//!
//! A type is its state ([`TypeState`]: what the state alone can say) and its verbs ([`Verbs`]: what it does as part of the
//! manager). Nothing else lists the types: code that is for one type asks for its state by `T::of`, and gets nothing from a
//! unit of another.

use crate::event::{Clock, Exit};
use crate::jobs::Started;
use crate::lazy::Lazy;
use crate::manager::Manager;
use crate::state::{ActiveState, CommandList, ExecStatus, Process, Service, Socket, Unit, UnitResult};
use crate::{automount, device, mount, path, scope, service, slice, socket, swap, target, timer};
use muster_graph::{Dependency, JobResult, UnitId};
use muster_unit::{OomPolicy, UnitKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use automount::Automount;
pub use device::Device;
pub use mount::Mount;
pub use path::Path;
pub use scope::Scope;
pub use slice::Slice;
pub use swap::Swap;
pub use target::Target;
pub use timer::Timer;

/// Facts of each command that ran, by list and index.
pub type CommandStatus = BTreeMap<CommandList, BTreeMap<u32, ExecStatus>>;

/// What the state of a type says of itself.
pub trait TypeState {
    /// The state all types share.
    fn active_state(&self, unit: &Unit) -> ActiveState;
    /// `SubState` on D-Bus.
    fn sub_state(&self, unit: &Unit) -> &'static str;
    /// `Result` on D-Bus.
    fn result(&self) -> UnitResult {
        UnitResult::Success
    }
    /// Forgets a failure; `failed` says whether the unit is failed now.
    fn reset_failed(&mut self, failed: bool) {
        let _ = failed;
    }
    /// What it owns could not be cleaned: the unit, which was down, is failed.
    fn set_failed(&mut self, result: UnitResult) {
        let _ = result;
    }
    /// The unit is there for good and counts as up.
    fn set_perpetual(&mut self) {}
    /// Its main process.
    fn main(&self) -> Option<&Process> {
        None
    }
    /// The place of its main process, where the type has one.
    fn main_mut(&mut self) -> Option<&mut Option<Process>> {
        None
    }
    /// Its control process.
    fn control(&self) -> Option<&Process> {
        None
    }
    /// The place of its control process, where the type has one.
    fn control_mut(&mut self) -> Option<&mut Option<Process>> {
        None
    }
    /// How its commands went, where the type keeps that.
    fn command_status_mut(&mut self) -> Option<&mut CommandStatus> {
        self.runs_mut().map(|runs| &mut runs.status)
    }
    /// The programs of the system that do its work, where the type has such.
    fn runs_mut(&mut self) -> Option<&mut crate::tool::Runs> {
        None
    }
}

/// What a unit of a type does. Each takes the number of a unit of its type.
pub(crate) struct Verbs {
    /// Carries a start job out, once conditions are met.
    pub start: fn(&mut Manager, UnitId) -> Started,
    /// Carries a stop job out on a unit that is not down.
    pub stop: fn(&mut Manager, UnitId) -> Started,
    /// Carries a reload job out on an active unit.
    pub reload: fn(&mut Manager, UnitId) -> Started,
    /// Whether a reload means something to the unit.
    pub can_reload: fn(&Manager, &Unit) -> bool,
    /// When `due` is to be called at the latest, on the monotonic clock in microseconds.
    pub deadline: fn(&Manager, &Unit) -> Option<u64>,
    /// The same on another clock.
    pub deadline_on: fn(&Manager, &Unit, Clock) -> Option<u64>,
    /// One of its deadlines is there.
    pub due: fn(&mut Manager, UnitId),
    /// PID 1 is a new program: what was being watched is asked for again.
    pub resumed: fn(&mut Manager, UnitId),
    /// A unit that it triggers changed its state, or a job of that unit ended.
    pub triggered_changed: fn(&mut Manager, UnitId, UnitId),
    /// Its file was read again.
    pub reloaded: fn(&mut Manager, UnitId),
    /// Its cgroup holds no process any more.
    pub cgroup_emptied: fn(&mut Manager, UnitId),
    /// What it left on the disk, and waited for, is gone, or is no longer waited for (`timeout`).
    pub removed: fn(&mut Manager, UnitId, UnitResult),
    /// The kernel killed one of its processes for want of memory.
    pub oom_killed: fn(&mut Manager, UnitId, OomPolicy),
    /// Its control process ended.
    pub control_exited: fn(&mut Manager, UnitId, Process, Exit),
    /// Whether its units have a cgroup.
    pub has_cgroup: bool,
    /// Whether isolating another unit leaves its units, where their files do not say.
    pub ignores_isolate: bool,
}

impl Verbs {
    /// A type that does nothing of its own; the rows begin with it.
    pub const NOTHING: Verbs = Verbs {
        start: |_, _| Started::Ended(JobResult::Unsupported),
        stop: |_, _| Started::Ended(JobResult::Done),
        reload: |_, _| Started::Ended(JobResult::Done),
        // Such a reload does nothing but go on to others.
        can_reload: |manager, unit| {
            manager.state.graph.of(unit.id, Dependency::PropagatesReloadTo).next().is_some()
        },
        deadline: |_, _| None,
        deadline_on: |_, _, _| None,
        due: |_, _| {},
        resumed: |_, _| {},
        triggered_changed: |_, _, _| {},
        reloaded: |_, _| {},
        cgroup_emptied: |_, _| {},
        removed: |_, _, _| {},
        oom_killed: |_, _, _| {},
        control_exited: |_, _, _, _| {},
        has_cgroup: false,
        ignores_isolate: false,
    };
}

macro_rules! kinds {
    ($($name:ident($held:ty) = $module:ident;)*) => {
        /// State of one unit by type.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[allow(missing_docs)] // each variant is its type
        pub enum Kind { $($name($held),)* }

        impl Kind {
            /// A unit of this type before its first start.
            pub fn new(kind: UnitKind) -> Kind {
                match kind { $(UnitKind::$name => Kind::$name(Default::default()),)* }
            }

            /// What its state says of itself.
            pub fn state(&self) -> &dyn TypeState {
                match self { $(Kind::$name(state) => { let state: &$name = state; state })* }
            }

            /// The same, to change.
            pub fn state_mut(&mut self) -> &mut dyn TypeState {
                match self { $(Kind::$name(state) => { let state: &mut $name = state; state })* }
            }
        }

        $(impl $name {
            /// The state of a unit, where it is of this type.
            pub fn of(kind: &Kind) -> Option<&Self> {
                match kind { Kind::$name(state) => Some(state), _ => None }
            }

            /// The same, to change.
            pub fn of_mut(kind: &mut Kind) -> Option<&mut Self> {
                match kind { Kind::$name(state) => Some(state), _ => None }
            }
        })*

        /// The verbs of a type.
        pub(crate) fn verbs(kind: UnitKind) -> &'static Verbs {
            match kind { $(UnitKind::$name => &$module::VERBS,)* }
        }
    };
}
kinds! {
    Service(Lazy<Service>) = service;
    Socket(Lazy<Socket>) = socket;
    Target(Target) = target;
    Slice(Slice) = slice;
    Scope(Box<Scope>) = scope;
    Mount(Box<Mount>) = mount;
    Automount(Box<Automount>) = automount;
    Swap(Box<Swap>) = swap;
    Timer(Box<Timer>) = timer;
    Path(Box<Path>) = path;
    Device(Device) = device;
}

/// Whether units of a type have a cgroup.
pub fn has_cgroup(kind: UnitKind) -> bool {
    verbs(kind).has_cgroup
}

/// Whether isolating another unit leaves units of a type, where their files do not say.
pub fn ignores_isolate(kind: UnitKind) -> bool {
    verbs(kind).ignores_isolate
}

impl Manager {
    /// Whether units of a type can be started here: swaps and devices are a machine's, and automounts need autofs.
    pub fn supports(&self, kind: UnitKind) -> bool {
        match kind {
            UnitKind::Swap | UnitKind::Device => self.state.facts.follows_interfaces,
            UnitKind::Automount => self.state.facts.has_autofs,
            _ => true,
        }
    }

    /// The verbs of a unit; those of nothing when it is not loaded.
    pub(crate) fn verbs(&self, id: UnitId) -> &'static Verbs {
        const NOTHING: &Verbs = &Verbs::NOTHING;
        self.state.units.get(&id).map_or(NOTHING, |unit| verbs(unit.name.kind()))
    }

    /// Changes a unit's state as `change` says, and tells what follows from it.
    pub(crate) fn change_state(&mut self, id: UnitId, change: impl FnOnce(&mut Kind)) {
        let old = self.active_state(id);
        if let Some(unit) = self.state.units.edit(&id) {
            change(&mut unit.kind);
        }
        self.state_changed(id, old);
    }
}
