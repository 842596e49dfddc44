//! Devices (systemd.device(5)): network interfaces, as the kernel lists them.
//!
//! | state | there | gone |
//! |---|---|---|
//! | dead | plugged; a start job is done | – |
//! | plugged | – | dead; what is bound to it stops |
//!
//! Other devices are known by name alone, as systemd knows them where no udevd runs. A start job on an interface waits until
//! it is there, for as long as a start may take by default; `DefaultDeviceTimeoutSec=` is not read in this version.

use crate::jobs::Started;
use crate::kind::{TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, Unit};
use muster_graph::{Dependency, JobResult, UnitId};
use muster_unit::{Body, UnitFile, UnitKind, UnitName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What the names of their units begin with.
const PREFIX: &str = "sys-subsystem-net-devices-";

/// A device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Whether it is there.
    pub plugged: bool,
}

impl TypeState for Device {
    fn active_state(&self, _: &Unit) -> ActiveState {
        if self.plugged { ActiveState::Active } else { ActiveState::Inactive }
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        if self.plugged { "plugged" } else { "dead" }
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: |manager, id| manager.device_start(id),
    stop: |manager, id| {
        manager.set_plugged(id, false);
        Started::Working
    },
    ignores_isolate: true,
    ..Verbs::NOTHING
};

impl Manager {
    fn set_plugged(&mut self, id: UnitId, plugged: bool) {
        let unit = self.state.units.get(&id);
        if unit.and_then(|unit| Device::of(&unit.kind)).is_some_and(|device| device.plugged != plugged) {
            self.change_state(id, |kind| {
                if let Some(device) = Device::of_mut(kind) {
                    device.plugged = plugged;
                }
            });
        }
    }

    /// The kernel's list, whole: what appeared is plugged, what vanished is dead.
    pub(crate) fn interfaces(&mut self, source: &dyn muster_unit::Source, names: &[String]) {
        let there: BTreeSet<UnitName> = names.iter().filter_map(|name| unit_of(name)).collect();
        for name in &there {
            self.load(name, source);
        }
        let is_interface =
            |name: &UnitName| name.kind() == UnitKind::Device && name.as_str().starts_with(PREFIX);
        let known: Vec<(UnitId, bool)> = self
            .state
            .units
            .values()
            .filter(|unit| is_interface(&unit.name))
            .map(|unit| (unit.id, there.contains(&unit.name)))
            .collect();
        for (id, plugged) in known {
            self.set_plugged(id, plugged);
        }
    }

    /// Nobody makes a device; it is waited for.
    fn device_start(&self, id: UnitId) -> Started {
        let followed = self.state.facts.follows_interfaces;
        let waits =
            followed && self.state.units.get(&id).is_some_and(|unit| unit.name.as_str().starts_with(PREFIX));
        if waits { Started::Working } else { Started::Ended(JobResult::Unsupported) }
    }

    /// `BindToDevice=` ties a socket to its interface (systemd.socket(5)). The loopback is always there.
    pub(crate) fn device_pairs(&self, file: &UnitFile, pairs: &mut Vec<(Dependency, UnitName)>) {
        let Body::Socket(section) = &file.body else { return };
        let name = section.bind_to_device.as_ref().map(|name| name.0.as_str());
        let followed =
            name.filter(|name| self.state.facts.follows_interfaces && !matches!(*name, "*" | "lo"));
        if let Some(device) = followed.and_then(unit_of) {
            pairs.extend([Dependency::BindsTo, Dependency::After].map(|kind| (kind, device.clone())));
        }
    }
}

fn unit_of(interface: &str) -> Option<UnitName> {
    let path = format!("/sys/subsystem/net/devices/{interface}");
    format!("{}.device", muster_unit::path_escape(&path)).parse().ok()
}
