//! What a unit's cgroup is held to just now: what its file says, with what slices above it say of addresses and of
//! controllers, and with what holds only while the system starts or shuts down (systemd.resource-control(5)).

use crate::effect::Effect;
use crate::manager::Manager;
use muster_graph::{Dependency, UnitId};
use muster_unit::setting::Amount;
use muster_unit::{AddressPrefix, CGroupSection, Controllers, UnitKind};
use std::rc::Rc;

/// More slices do not stand above each other: a name has 255 bytes.
const SLICES_MAX: usize = 128;

impl Manager {
    /// What the kernel is to hold a unit to.
    pub(crate) fn cgroup_in_effect(&self, id: UnitId) -> Rc<CGroupSection> {
        let Some(unit) = self.state.units.get(&id) else { return Rc::default() };
        let mut config = unit.file.cgroup.clone().unwrap_or_default();
        if config.has_startup_values() && self.is_starting_or_stopping() {
            config = Rc::new(config.at_startup());
        }
        if let Some(today) = config.in_terms_of_today() {
            config = Rc::new(today);
        }
        self.protect_memory(id, &mut config);
        let is_slice = unit.name.kind() == UnitKind::Slice;
        let above: Vec<Rc<CGroupSection>> =
            self.slices_above(id).filter(|slice| says_addresses(slice)).collect();
        // Lists are combined (IPAddressAllow=), which programs of several cgroups cannot do among themselves: those of
        // units have them all, those of slices none.
        if is_slice && says_addresses(&config) {
            let own = Rc::make_mut(&mut config);
            own.edit().ip_address_allow().clear();
            own.edit().ip_address_deny().clear();
        }
        if !is_slice && !above.is_empty() {
            let own = Rc::make_mut(&mut config);
            for slice in above {
                join(own.edit().ip_address_allow(), slice.ip_address_allow());
                join(own.edit().ip_address_deny(), slice.ip_address_deny());
            }
        }
        config
    }

    /// Memory that is kept for a unit by what the nearest slice above says for all below it, where the unit says nothing of its
    /// own (`DefaultMemoryMin=`, `DefaultMemoryLow=`, `DefaultStartupMemoryLow=`).
    fn protect_memory(&self, id: UnitId, config: &mut Rc<CGroupSection>) {
        let above: Vec<Rc<CGroupSection>> =
            self.slices_above(id).filter(|slice| slice.has_defaults()).collect();
        if above.is_empty() {
            return;
        }
        let nearest =
            |value: fn(&CGroupSection) -> Option<Amount>| above.iter().find_map(|slice| value(slice));
        let at_startup = match self.is_starting_or_stopping() {
            true => nearest(|slice| slice.default_startup_memory_low()),
            false => None,
        };
        let low = config.memory_low().or(at_startup).or_else(|| nearest(|slice| slice.default_memory_low()));
        let min = config.memory_min().or_else(|| nearest(|slice| slice.default_memory_min()));
        let mut own = Rc::make_mut(config).edit();
        *own.memory_low() = low;
        *own.memory_min() = min;
    }

    /// What `DisableControllers=` of the slices above a unit takes from it.
    pub(crate) fn controllers_disabled_above(&self, id: UnitId) -> Controllers {
        let mut all = Controllers::default();
        self.slices_above(id).for_each(|slice| all.join(slice.disable_controllers()));
        all
    }

    /// What the slices above a unit say, from the nearest on.
    fn slices_above(&self, id: UnitId) -> impl Iterator<Item = Rc<CGroupSection>> {
        self.slice_ids_above(id).filter_map(|slice| self.state.units.get(&slice)?.file.cgroup.clone())
    }

    /// The slices above a unit, from the nearest on.
    pub(crate) fn slice_ids_above(&self, id: UnitId) -> impl Iterator<Item = UnitId> {
        let slice = |id: &UnitId| self.state.graph.of(*id, Dependency::InSlice).next();
        std::iter::successors(slice(&id), slice).take(SLICES_MAX)
    }

    /// A unit's part of a file has changed: what that means for its cgroup, and for those below it.
    pub(crate) fn cgroup_changed(&mut self, id: UnitId, old: Option<&CGroupSection>) {
        self.realize_cgroup(id);
        let Some(unit) = self.state.units.get(&id) else { return };
        let sets = |config: Option<&CGroupSection>| config.is_some_and(|config| !config.nft_set().is_empty());
        if let (true, false, Some(path)) = (sets(old), sets(unit.file.cgroup.as_deref()), &unit.cgroup) {
            let (path, unit) = (path.clone(), unit.name.clone());
            self.effects.push_back(Effect::FillSets { path, unit, sets: Vec::new(), runs_as: None });
        }
        let Some(unit) = self.state.units.get(&id) else { return };
        let said = |config: Option<&CGroupSection>| {
            let config = config?;
            let addresses = (config.ip_address_allow(), config.ip_address_deny());
            let controllers = config.disable_controllers();
            let memory = [
                config.default_memory_min(),
                config.default_memory_low(),
                config.default_startup_memory_low(),
            ];
            let says = says_addresses(config) || !controllers.is_empty() || config.has_defaults();
            says.then(|| (addresses.0.clone(), addresses.1.clone(), controllers.clone(), memory))
        };
        if unit.name.kind() != UnitKind::Slice || said(old) == said(unit.file.cgroup.as_deref()) {
            return;
        }
        let above = unit.cgroup.clone().map(|path| format!("{path}/"));
        let Some(above) = above else { return };
        let below = self.state.cgroups.iter().filter(|(path, _)| path.starts_with(&above));
        let below: Vec<UnitId> = below.map(|(_, id)| *id).collect();
        below.into_iter().for_each(|id| self.realize_cgroup(id));
    }

    /// Has a unit in the sets of nftables that it names (`NFTSet=`).
    pub(crate) fn fill_sets(&mut self, id: UnitId) {
        let Some(unit) = self.state.units.get(&id) else { return };
        let (Some(path), Some(config)) = (&unit.cgroup, &unit.file.cgroup) else { return };
        if !config.nft_set().is_empty() {
            let (unit, sets, runs_as) = (unit.name.clone(), config.nft_set().clone(), unit.runs_as);
            self.effects.push_back(Effect::FillSets { path: path.clone(), unit, sets, runs_as });
        }
    }

    /// The same for all: sets may have been made anew, and whoever fills them may be a new program.
    pub(crate) fn fill_all_sets(&mut self) {
        let ids: Vec<UnitId> = self.state.cgroups.values().copied().collect();
        ids.into_iter().for_each(|id| self.fill_sets(id));
    }

    /// Whether what is said with `Startup` before it holds.
    fn is_starting_or_stopping(&self) -> bool {
        !self.startup_is_finished() || self.state.shutdown.is_some() || self.shutdown_is_queued()
    }

    /// A job begins or has ended: whether that is the end of the system.
    pub(crate) fn follow_shutdown(&mut self, unit: UnitId) {
        if self.state.units.get(&unit).is_some_and(|unit| unit.name.as_str() == "shutdown.target") {
            self.startup_values_changed();
        }
    }

    /// The system has started, begins to shut down, or does so no more: what is said for that time holds or holds no more.
    pub(crate) fn startup_values_changed(&mut self) {
        let has_values = |config: &Option<Rc<CGroupSection>>| {
            config.as_ref().is_some_and(|config| config.has_startup_values())
        };
        let units = self.state.units.iter().filter(|(id, unit)| {
            let defaults =
                || self.slices_above(**id).any(|slice| slice.default_startup_memory_low().is_some());
            unit.cgroup.is_some() && (has_values(&unit.file.cgroup) || defaults())
        });
        let ids: Vec<UnitId> = units.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.realize_cgroup(id));
    }
}

fn says_addresses(config: &CGroupSection) -> bool {
    !config.ip_address_allow().is_empty() || !config.ip_address_deny().is_empty()
}

fn join(own: &mut Vec<AddressPrefix>, more: &[AddressPrefix]) {
    for prefix in more {
        if !own.contains(prefix) {
            own.push(*prefix);
        }
    }
}
