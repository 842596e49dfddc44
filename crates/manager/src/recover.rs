//! Starting afresh on a machine that runs: what PID 1 knew is lost, and what can be seen is taken over.
//!
//! What must stay true: nothing that runs is ended or started a second time. A cgroup with processes is its unit, running.
//! What a boot does once (targets, one-shot services that remain) is taken as done, since to do it again could harm: it
//! would clean up directories that are in use. Then the default target is started, which brings back what is missing.

use crate::effect::{Effect, Level};
use crate::event::Found;
use crate::manager::Manager;
use crate::state::{ActiveState, ServiceSub};
use crate::target::Target;
use muster_graph::{Dependency, JobMode, JobType, UnitId};
use muster_unit::{LoadState, ServiceType, Source, UnitKind, UnitName};
use std::collections::{BTreeMap, BTreeSet};

impl Manager {
    /// Takes over what was found, and brings up what is missing.
    pub(crate) fn recover(&mut self, source: &dyn Source, found: Vec<Found>) {
        for (cgroup, main) in cgroups_of_units(&found) {
            self.recover_unit(source, cgroup, main);
        }
        let target = self.state.facts.boot_target.clone();
        let names = [target.as_str(), "default.target", "multi-user.target"];
        let names = names.iter().filter_map(|name| name.parse::<UnitName>().ok());
        let ids: Vec<UnitId> = names.map(|name| self.load(&name, source)).collect();
        let loaded = |id: &&UnitId| {
            self.state.units.get(*id).is_some_and(|unit| unit.file.load_state == LoadState::Loaded)
        };
        let Some(id) = ids.iter().find(loaded).copied() else { return };
        let presumed = self.presume_done(id);
        self.bring_back(&presumed);
        // With the end of what is brought back, the start of the system is over, as after a boot.
        self.booting = true;
        if let Err(refused) = self.enqueue(id, JobType::Start, JobMode::Replace, "recovery") {
            self.log(Level::Error, Some(id), format!("Failed to start {target}: {refused}"));
        }
    }

    /// A cgroup with processes, and its only child of PID 1.
    fn recover_unit(&mut self, source: &dyn Source, cgroup: &str, main: Option<u32>) {
        let last = cgroup.rsplit('/').next().unwrap_or_default();
        let Ok(name) = last.strip_prefix('_').unwrap_or(last).parse::<UnitName>() else { return };
        if !matches!(name.kind(), UnitKind::Service | UnitKind::Scope) || name.as_str() == "init.scope" {
            return;
        }
        if name.kind() == UnitKind::Scope {
            // It has no file. What its maker said of it is lost, but for where it lives.
            let slice = cgroup.rsplit('/').nth(1).filter(|slice| slice.ends_with(".slice"));
            let settings = slice.map(|slice| ("Scope".to_owned(), "Slice".to_owned(), slice.to_owned()));
            self.state.transient_settings.entry(name.clone()).or_insert(settings.into_iter().collect());
        }
        let id = self.load(&name, source);
        if self.cgroup_path(id).as_deref() != Some(cgroup) {
            return;
        }
        let old = self.active_state(id);
        let Some(unit) = self.state.units.edit(&id).filter(|_| old == ActiveState::Inactive) else {
            return;
        };
        unit.cgroup = Some(cgroup.to_owned());
        unit.transient |= name.kind() == UnitKind::Scope;
        self.state.cgroups.insert(cgroup.to_owned(), id);
        self.state.populated.insert(id);
        match self.service_mut(id) {
            Some(service) => {
                service.sub = ServiceSub::Running;
                if let Some(pid) = main {
                    self.adopt_main(id, pid);
                }
            }
            None => {
                if let Some(unit) = self.state.units.edit(&id) {
                    unit.kind.state_mut().set_perpetual();
                }
            }
        }
        self.effects.push_back(Effect::WatchCgroup { path: cgroup.to_owned() });
        self.state_changed(id, old);
    }

    /// What is up keeps what it has, and so a transaction does not ask what it wants: what of that is missing is asked for here.
    fn bring_back(&mut self, presumed: &[UnitId]) {
        for id in presumed {
            let cause = format!("recovery of {}", self.unit_name(*id));
            for kind in [Dependency::Requires, Dependency::BindsTo, Dependency::Wants] {
                let others: Vec<UnitId> = self.state.graph.of(*id, kind).collect();
                for other in others {
                    if self.active_state(other) == ActiveState::Inactive {
                        self.request_quietly(other, JobType::Start, JobMode::Replace, &cause);
                    }
                }
            }
        }
    }

    /// Marks as done what leads to a target and would be done once, and gives that. The target itself is left to its job.
    fn presume_done(&mut self, target: UnitId) -> Vec<UnitId> {
        let mut presumed = Vec::new();
        let mut seen = BTreeSet::from([target]);
        let mut queue = vec![target];
        while let Some(id) = queue.pop() {
            for kind in [Dependency::Requires, Dependency::Wants, Dependency::BindsTo] {
                let new: Vec<UnitId> =
                    self.state.graph.of(id, kind).filter(|other| seen.insert(*other)).collect();
                queue.extend(new);
            }
            let remains = self.service_config(id).is_some_and(|(_, section)| {
                section.remain_after_exit() && section.effective_type() == ServiceType::Oneshot
            });
            let old = self.active_state(id);
            let Some(unit) = self.state.units.edit(&id) else { continue };
            let is_target = unit.name.kind() == UnitKind::Target && id != target;
            let may = unit.file.load_state == LoadState::Loaded && old == ActiveState::Inactive;
            if !may || !(is_target || remains) {
                continue;
            }
            if let Some(target) = Target::of_mut(&mut unit.kind) {
                target.active = true;
            }
            if let Some(service) = self.service_mut(id) {
                service.sub = ServiceSub::Exited;
            }
            presumed.push(id);
            self.state_changed(id, old);
        }
        presumed
    }
}

/// The cgroups of units in which something runs, each with the one child of PID 1 in it, where there is one alone. A service
/// may have cgroups of its own below: what counts is the uppermost that bears the name of a service or scope.
fn cgroups_of_units(found: &[Found]) -> BTreeMap<&str, Option<u32>> {
    let mut children: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for one in found {
        let above = std::iter::successors(Some(one.cgroup.as_str()), |path| {
            path.rsplit_once('/').map(|(parent, _)| parent)
        });
        let Some(unit) = above.filter(|path| path.ends_with(".service") || path.ends_with(".scope")).last()
        else {
            continue;
        };
        let own = children.entry(unit).or_default();
        if one.is_child && one.cgroup == unit {
            own.push(one.pid);
        }
    }
    let alone = |pids: Vec<u32>| if let [one] = pids.as_slice() { Some(*one) } else { None };
    children.into_iter().map(|(unit, pids)| (unit, alone(pids))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_below_a_unit_is_the_unit() {
        let process = |cgroup: &str, pid, is_child| Found { cgroup: cgroup.to_owned(), pid, is_child };
        let found = [
            process("/system.slice/a.service", 2, true),
            process("/system.slice/a.service", 3, false),
            process("/system.slice/b.service/inner.service", 4, true),
            process("/user.slice/c.scope", 5, true),
            process("/user.slice/c.scope", 6, true),
            process("/user.slice", 7, true),
        ];
        let units: Vec<_> = cgroups_of_units(&found).into_iter().collect();
        let expected = [
            ("/system.slice/a.service", Some(2)),
            ("/system.slice/b.service", None),
            ("/user.slice/c.scope", None),
        ];
        assert_eq!(units, expected);
    }
}
