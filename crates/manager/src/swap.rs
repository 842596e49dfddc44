//! Swaps (systemd.swap(5)), followed from the kernel's list.
//!
//! | state | start | stop | swapon(8) or swapoff(8) ended | the kernel's list |
//! |---|---|---|---|---|
//! | dead, failed | swapon(8) runs, activating | – | – | active when it is there |
//! | activating | – | deactivating-sigterm | what the list says; failed with the command | activating-done when it is there |
//! | activating-done | – | deactivating-sigterm | what the list says | activating when it is gone |
//! | active | – | swapoff(8) runs, deactivating | – | dead when it is gone |
//! | deactivating | – | – | what the list says | – |
//! | deactivating-sigterm, -sigkill | – | – | what the list says, else failed | – |
//!
//! A command that takes longer than `TimeoutSec=` gets SIGTERM, then SIGKILL; after that the list counts. A container's swaps
//! are the machine's: there a start ends as unsupported.

use crate::effect::{Effect, Level};
use crate::event::{Exit, SwapFound};
use crate::jobs::Started;
use crate::kill::Wave;
use crate::kind::{TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, CommandList, Process, Unit, UnitResult, words};
use crate::tool::Runs;
use muster_graph::{Dependency, JobResult, UnitId};
use muster_unit::{Body, LoadState, Source, SwapSection, UnitFile, UnitKind, UnitName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;

words! {
    /// `SubState` of a swap.
    SwapSub {
        Dead = "dead", Activating = "activating", ActivatingDone = "activating-done", Active = "active",
        Deactivating = "deactivating", Sigterm = "deactivating-sigterm", Sigkill = "deactivating-sigkill",
        Failed = "failed",
    }
}

/// A swap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Swap {
    /// Where it is in its life.
    pub sub: SwapSub,
    /// The kernel's entry, when it is on.
    pub found: Option<SwapFound>,
    /// swapon(8) or swapoff(8) at work.
    pub control: Option<Process>,
    /// How the last command ended.
    pub result: UnitResult,
    /// When the command at work is to be ended, on the monotonic clock in microseconds.
    pub deadline_usec: Option<u64>,
    /// Its commands.
    pub runs: Runs,
}

impl TypeState for Swap {
    fn runs_mut(&mut self) -> Option<&mut Runs> {
        Some(&mut self.runs)
    }

    fn active_state(&self, _: &Unit) -> ActiveState {
        match self.sub {
            SwapSub::Dead => ActiveState::Inactive,
            SwapSub::Activating => ActiveState::Activating,
            SwapSub::ActivatingDone | SwapSub::Active => ActiveState::Active,
            SwapSub::Deactivating | SwapSub::Sigterm | SwapSub::Sigkill => ActiveState::Deactivating,
            SwapSub::Failed => ActiveState::Failed,
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
            (self.sub, self.result) = (SwapSub::Dead, UnitResult::Success);
        }
    }

    fn control(&self) -> Option<&Process> {
        self.control.as_ref()
    }

    fn control_mut(&mut self) -> Option<&mut Option<Process>> {
        Some(&mut self.control)
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: Manager::swap_start,
    stop: Manager::swap_stop,
    deadline: |_, unit| Swap::of(&unit.kind)?.deadline_usec,
    due: Manager::swap_due,
    control_exited: |manager, id, _, exit| manager.swap_control_exited(id, exit),
    has_cgroup: true,
    ignores_isolate: true,
    ..Verbs::NOTHING
};

impl Manager {
    fn swap_mut(&mut self, id: UnitId) -> Option<&mut Swap> {
        Swap::of_mut(&mut self.state.units.edit(&id)?.kind)
    }

    fn swap_section(&self, id: UnitId) -> Option<&SwapSection> {
        match &self.state.units.get(&id)?.file.body {
            Body::Swap(section) => Some(section),
            _ => None,
        }
    }

    /// The kernel's list of swaps, whole. A swap has a unit of its own name, and is that of every unit that is loaded for
    /// another name of its device.
    pub(crate) fn swap_table(&mut self, source: &dyn Source, swaps: Vec<SwapFound>) {
        let mut found: BTreeMap<UnitName, SwapFound> = BTreeMap::new();
        for swap in swaps {
            let aliases = self.state.devices.values().find(|device| device.paths.contains(&swap.path));
            let aliases = aliases.into_iter().flat_map(|device| &device.paths);
            let aliases: Vec<UnitName> = aliases.filter_map(|path| unit_of(path)).collect();
            let loaded = aliases.into_iter().filter(|name| self.state.names.contains_key(name));
            found.extend(loaded.map(|name| (name, swap.clone())).collect::<Vec<_>>());
            if let Some(name) = unit_of(&swap.path) {
                self.load_swap(&name, &swap, source);
                found.insert(name, swap);
            }
        }
        let units = self.state.units.values().filter(|unit| unit.name.kind() == UnitKind::Swap);
        let units: Vec<(UnitId, UnitName)> = units.map(|unit| (unit.id, unit.name.clone())).collect();
        for (id, name) in units {
            let now = found.remove(&name);
            let path = now.as_ref().map(|swap| swap.path.clone());
            if let Some(path) = &path {
                self.use_device(source, path, &name);
            }
            let swap = self.state.units.get(&id).and_then(|unit| Swap::of(&unit.kind));
            let before = swap.and_then(|swap| swap.found.as_ref()).map(|swap| swap.path.clone());
            self.set_swap_found(id, now);
            if let Some(gone) = before.filter(|before| path.as_ref() != Some(before)) {
                self.leave_device(&gone, &name);
            }
        }
    }

    /// The unit of a swap. Without a file of its own it is what the kernel says of it.
    fn load_swap(&mut self, name: &UnitName, swap: &SwapFound, source: &dyn Source) {
        let id = self.load(name, source);
        if self.state.units.get(&id).is_none_or(|unit| unit.file.load_state != LoadState::NotFound) {
            return;
        }
        let file = Rc::new(self.file_of_swap(name, swap, source));
        if let Some(unit) = self.state.units.edit(&id) {
            unit.file = file;
        }
        self.relink(id, source);
    }

    fn file_of_swap(&self, name: &UnitName, swap: &SwapFound, source: &dyn Source) -> UnitFile {
        let mut file = muster_unit::load_made(name, source, &self.state.facts.specifiers, |file| {
            let section = Rc::make_mut(&mut file.unit);
            *section.edit().description() = Some(swap.path.clone());
            *section.edit().source_path() = Some(muster_unit::AbsolutePath("/proc/swaps".to_owned()));
            if let Body::Swap(section) = &mut file.body {
                *section.edit().what() = Some(swap.path.clone());
            }
        });
        file.load_state = LoadState::Loaded;
        file.load_error = None;
        file
    }

    /// The same by name, for what is on now.
    pub(crate) fn file_of_swap_found(&self, name: &UnitName, source: &dyn Source) -> Option<UnitFile> {
        let swap = Swap::of(&self.state.units.get(self.state.names.get(name)?)?.kind)?;
        Some(self.file_of_swap(name, swap.found.as_ref()?, source))
    }

    fn set_swap_found(&mut self, id: UnitId, found: Option<SwapFound>) {
        let old = self.active_state(id);
        let Some(swap) = self.swap_mut(id) else { return };
        let on = found.is_some();
        let settled = match (on, swap.result) {
            (true, _) => SwapSub::Active,
            (false, UnitResult::Success) => SwapSub::Dead,
            (false, _) => SwapSub::Failed,
        };
        let sub = match swap.sub {
            SwapSub::Dead | SwapSub::Failed if on => SwapSub::Active,
            SwapSub::Dead | SwapSub::Failed => swap.sub,
            SwapSub::Active if on => SwapSub::Active,
            SwapSub::Active => SwapSub::Dead,
            // A command is at work, and its end decides.
            SwapSub::Activating | SwapSub::ActivatingDone if swap.control.is_some() => {
                if on {
                    SwapSub::ActivatingDone
                } else {
                    SwapSub::Activating
                }
            }
            SwapSub::Deactivating | SwapSub::Sigterm | SwapSub::Sigkill if swap.control.is_some() => swap.sub,
            SwapSub::Activating
            | SwapSub::ActivatingDone
            | SwapSub::Deactivating
            | SwapSub::Sigterm
            | SwapSub::Sigkill => settled,
        };
        if swap.found == found && swap.sub == sub {
            return;
        }
        (swap.found, swap.sub) = (found, sub);
        if sub == SwapSub::Active {
            swap.result = UnitResult::Success;
        }
        if sub == SwapSub::Failed && old != ActiveState::Failed {
            let text = format!("{}: Failed with result '{}'.", self.unit_name(id), self.swap_result(id));
            self.log(Level::Warning, Some(id), text);
        }
        self.state_changed(id, old);
    }

    fn swap_result(&self, id: UnitId) -> &'static str {
        let swap = self.state.units.get(&id).and_then(|unit| Swap::of(&unit.kind));
        swap.map_or("", |swap| swap.result.as_str())
    }

    fn swap_start(&mut self, id: UnitId) -> Started {
        let Some(argv) = self.swap_section(id).map(swapon) else {
            return Started::Ended(JobResult::Invalid);
        };
        if !self.start_is_allowed(id) {
            return self.refuse_tool(id, |kind| {
                if let Some(swap) = Swap::of_mut(kind) {
                    (swap.sub, swap.result) = (SwapSub::Failed, UnitResult::StartLimitHit);
                }
            });
        }
        self.prepare_run(id);
        self.run_swap_command(id, argv, SwapSub::Activating)
    }

    fn swap_stop(&mut self, id: UnitId) -> Started {
        let Some(swap) = self.state.units.get(&id).and_then(|unit| Swap::of(&unit.kind)) else {
            return Started::Ended(JobResult::Invalid);
        };
        match swap.sub {
            SwapSub::Activating | SwapSub::ActivatingDone => {
                self.end_swap_command(id, SwapSub::Sigterm, UnitResult::Success);
                Started::Working
            }
            SwapSub::Active => {
                let what = self.swap_section(id).and_then(|section| section.what().clone());
                let argv = vec!["/sbin/swapoff".to_owned(), what.unwrap_or_default()];
                self.run_swap_command(id, argv, SwapSub::Deactivating)
            }
            SwapSub::Dead | SwapSub::Failed | SwapSub::Deactivating | SwapSub::Sigterm | SwapSub::Sigkill => {
                Started::Working
            }
        }
    }

    fn swap_deadline(&self, id: UnitId) -> Option<u64> {
        self.tool_deadline(self.swap_section(id)?.timeout_sec())
    }

    fn run_swap_command(&mut self, id: UnitId, argv: Vec<String>, sub: SwapSub) -> Started {
        let list = match sub {
            SwapSub::Deactivating => CommandList::ExecDeactivate,
            _ => CommandList::ExecActivate,
        };
        let Some(process) = self.run_tool(id, list, argv, None) else {
            return Started::Ended(JobResult::Invalid);
        };
        let deadline = self.swap_deadline(id);
        self.change_state(id, |kind| {
            if let Some(swap) = Swap::of_mut(kind) {
                swap.control = Some(process);
                (swap.sub, swap.result, swap.deadline_usec) = (sub, UnitResult::Success, deadline);
            }
        });
        Started::Working
    }

    fn end_swap_command(&mut self, id: UnitId, sub: SwapSub, result: UnitResult) {
        let wave = if sub == SwapSub::Sigkill { Wave::Final } else { Wave::Polite };
        self.kill_wave(id, wave);
        let deadline = self.swap_deadline(id);
        self.change_state(id, |kind| {
            if let Some(swap) = Swap::of_mut(kind) {
                (swap.sub, swap.deadline_usec) = (sub, deadline);
                if swap.result == UnitResult::Success {
                    swap.result = result;
                }
            }
        });
    }

    fn swap_due(&mut self, id: UnitId) {
        let unit = self.state.units.get(&id);
        let Some(swap) = unit.and_then(|unit| Swap::of(&unit.kind)) else { return };
        if swap.deadline_usec.is_none_or(|at| at > self.now.monotonic_usec) {
            return;
        }
        match swap.sub {
            SwapSub::Activating | SwapSub::ActivatingDone | SwapSub::Deactivating => {
                self.end_swap_command(id, SwapSub::Sigterm, UnitResult::Timeout);
            }
            SwapSub::Sigterm => self.end_swap_command(id, SwapSub::Sigkill, UnitResult::Timeout),
            // It hangs in the kernel: nothing is left to do but to say how things are.
            SwapSub::Sigkill => self.swap_control_exited(id, Exit::Killed(muster_unit::Signal::KILL.0)),
            SwapSub::Dead | SwapSub::Active | SwapSub::Failed => {
                if let Some(swap) = self.swap_mut(id) {
                    swap.deadline_usec = None;
                }
                self.touch(id);
            }
        }
    }

    /// swapon(8) or swapoff(8) ended; what it brought about is read from the list.
    fn swap_control_exited(&mut self, id: UnitId, exit: Exit) {
        let Some(swap) = self.swap_mut(id) else { return };
        (swap.control, swap.deadline_usec) = (None, None);
        if swap.result == UnitResult::Success {
            swap.result = crate::tool::result_of(exit);
        }
        self.touch(id);
        self.effects.push_back(Effect::ReadSwapTable);
    }

    /// What ties a swap to its device (systemd.swap(5), "Implicit Dependencies").
    pub(crate) fn swap_pairs(&self, file: &UnitFile, pairs: &mut Vec<(Dependency, UnitName)>) {
        let Body::Swap(section) = &file.body else { return };
        let what = section.what().as_deref().unwrap_or_default();
        if !what.starts_with("/dev/") {
            let remounted = "systemd-remount-fs.service".parse::<UnitName>().ok();
            pairs.extend(remounted.map(|name| (Dependency::After, name)));
        } else if self.supports(UnitKind::Device) {
            let device: Option<UnitName> = format!("{}.device", muster_unit::path_escape(what)).parse().ok();
            let kinds = [Dependency::BindsTo, Dependency::After];
            pairs.extend(device.iter().flat_map(|device| kinds.map(|kind| (kind, device.clone()))));
        }
    }
}

fn unit_of(path: &str) -> Option<UnitName> {
    format!("{}.swap", muster_unit::path_escape(path)).parse().ok()
}

/// `Priority=` is an option like others, and counts where `Options=` says none.
fn swapon(section: &SwapSection) -> Vec<String> {
    let mut options: Vec<String> =
        section.options().iter().filter(|text| !text.is_empty()).cloned().collect();
    let says_priority = options.iter().flat_map(|text| text.split(',')).any(|word| word.starts_with("pri="));
    options.extend(section.priority().filter(|_| !says_priority).map(|priority| format!("pri={priority}")));
    let mut argv = vec!["/sbin/swapon".to_owned(), "--fixpgsz".to_owned()];
    if !options.is_empty() {
        argv.extend(["-o".to_owned(), options.join(",")]);
    }
    argv.push(section.what().clone().unwrap_or_default());
    argv
}
