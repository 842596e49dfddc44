//! io.systemd.ManagedOOM: which cgroups systemd-oomd.service(8) is to look after, over varlink (`ManagedOOMSwap=`,
//! `ManagedOOMMemoryPressure=` and kin, systemd.resource-control(5)).

use crate::varlink::{Asker, Message, Refusal, Replies, unknown};
use muster_manager::Manager;
use muster_unit::{CGroupSection, ManagedOomMode, PressureLimit};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) const DESCRIPTION: &str = "interface io.systemd.ManagedOOM

type ControlGroup(mode: string, path: string, property: string, limit: ?int, duration: ?int)

method SubscribeManagedOOMCGroups() -> (cgroups: []ControlGroup)

error SubscriptionTaken()
";

/// What is said of a cgroup. The default is what is said of one that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    swap: ManagedOomMode,
    pressure: ManagedOomMode,
    /// Of `u32::MAX`; 0 for what oomd.conf(5) says.
    limit: u32,
    duration_usec: Option<u64>,
}

impl Wish {
    /// What a unit says.
    pub fn of(config: &CGroupSection) -> Wish {
        Wish {
            swap: config.managed_oom_swap(),
            pressure: config.managed_oom_memory_pressure(),
            limit: config.managed_oom_memory_pressure_limit().map_or(0, PressureLimit::scaled),
            duration_usec: config.managed_oom_memory_pressure_duration_sec().map(|span| span.0.0),
        }
    }

    /// Whether it is to be looked after.
    pub fn is_any(&self) -> bool {
        [self.swap, self.pressure].contains(&ManagedOomMode::Kill)
    }

    fn items(&self, path: &str) -> [(ManagedOomMode, Value); 2] {
        let item = |mode: ManagedOomMode, property: &str| json!({ "mode": mode.as_str(), "path": path, "property": property });
        let mut pressure = item(self.pressure, "ManagedOOMMemoryPressure");
        if let Some(fields) = pressure.as_object_mut() {
            fields.extend((self.limit > 0).then(|| ("limit".to_owned(), self.limit.into())));
            fields.extend(self.duration_usec.map(|usec| ("duration".to_owned(), usec.into())));
        }
        [(self.swap, item(self.swap, "ManagedOOMSwap")), (self.pressure, pressure)]
    }
}

/// What changes for a cgroup; `path` as the kernel names it.
pub fn changed(path: &str, wish: &Wish) -> Value {
    json!({ "cgroups": wish.items(path).map(|(_, item)| item) })
}

/// The unit that alone may ask.
const ASKER: &str = "/systemd-oomd.service";

/// Answers a call.
pub(crate) fn dispatch(manager: &Manager, call: &Message, asker: &Asker) -> Result<Replies, Refusal> {
    if call.method != "io.systemd.ManagedOOM.SubscribeManagedOOMCGroups" {
        return Err(unknown(call));
    }
    if !asker.cgroup.ends_with(ASKER) {
        return Err(Refusal::Plain("org.varlink.service.PermissionDenied"));
    }
    if asker.taken && call.more {
        return Err(Refusal::Plain("io.systemd.ManagedOOM.SubscriptionTaken"));
    }
    let all = json!({ "cgroups": cgroups(manager) });
    Ok(if call.more { Replies::First(all) } else { Replies::All(vec![all]) })
}

/// All that is to be looked after.
fn cgroups(manager: &Manager) -> Vec<Value> {
    let items = wishes(manager).into_iter().flat_map(|(path, wish)| wish.items(&absolute(manager, &path)));
    items.filter(|(mode, _)| *mode == ManagedOomMode::Kill).map(|(_, item)| item).collect()
}

/// The same by cgroup, below our root.
pub fn wishes(manager: &Manager) -> BTreeMap<String, Wish> {
    let state = manager.state();
    let units = state.cgroups.iter().filter_map(|(path, id)| Some((path, state.units.get(id)?)));
    let wishes =
        units.filter_map(|(path, unit)| Some((path.clone(), Wish::of(unit.file.cgroup.as_deref()?))));
    wishes.filter(|(_, wish)| wish.is_any()).collect()
}

/// A cgroup as the kernel names it; the topmost is empty.
pub fn absolute(manager: &Manager, path: &str) -> String {
    format!("{}{path}", manager.state().facts.cgroup_root)
}
