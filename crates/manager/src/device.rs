//! Devices (systemd.device(5)): what udevd tells of, and network interfaces as the kernel lists them, with or without udevd.
//!
//! | state | start | there | gone | mounted from | no more | stop |
//! |---|---|---|---|---|---|---|
//! | dead, dead (start job) | – | plugged | – | tentative | – | – |
//! | tentative | – | plugged | – | – | dead | – |
//! | plugged | – | – | dead | – | – | – |
//!
//! A device has several names, each a unit: its directory in sysfs, its node, the links to it and its aliases. A name may be
//! claimed by several devices; its unit is plugged while one of them is there and ready. A start job waits until then;
//! one that came by a dependency is `collected` when no job is left that waits for it. A stop job takes down what is bound to
//! the device and waits until it is gone. In a container devices are its maker's: they are known by name alone, and a start
//! job ends as unsupported. A device that nobody announced, and that something is mounted or swapped from, is tentative: on
//! its way, so that what needs it stays, and a start job goes on waiting.

use crate::event::{DeviceChange, DeviceFound};
use crate::jobs::Started;
use crate::kind::{TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, Unit};
use muster_graph::job::Job;
use muster_graph::{Dependency, JobMode, JobResult, JobType, UnitId};
use muster_unit::{Body, LoadState, Source, UnitFile, UnitKind, UnitName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// At most this many devices are known.
const DEVICES_MAX: usize = 65_536;

/// A device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Whether it is there.
    pub plugged: bool,
    /// Only what is mounted or swapped from it speaks for it.
    pub tentative: bool,
}

impl TypeState for Device {
    fn active_state(&self, _: &Unit) -> ActiveState {
        match (self.plugged, self.tentative) {
            (true, _) => ActiveState::Active,
            (false, true) => ActiveState::Activating,
            (false, false) => ActiveState::Inactive,
        }
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        match (self.plugged, self.tentative) {
            (true, _) => "plugged",
            (false, true) => "tentative",
            (false, false) => "dead",
        }
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    // Nobody makes a device; it is waited for.
    start: |manager, id| {
        manager.report_expecting(id);
        manager.state.device_jobs.insert(id);
        manager.unawaited.insert(id);
        Started::Working
    },
    // Nor does anybody take it away.
    stop: |manager, id| {
        manager.report_leaving(id);
        Started::Working
    },
    ignores_isolate: true,
    ..Verbs::NOTHING
};

impl Manager {
    fn change_device(&mut self, id: UnitId, change: impl FnOnce(&mut Device)) {
        let Some(old) = self.state.units.get(&id).and_then(|unit| Device::of(&unit.kind)).copied() else {
            return;
        };
        let mut new = old;
        change(&mut new);
        if new != old {
            self.change_state(id, |kind| {
                if let Some(device) = Device::of_mut(kind) {
                    *device = new;
                }
            });
        }
    }

    /// Notes the devices that the job of this unit, which ended, was ordered after.
    pub(crate) fn waits_no_more(&mut self, unit: UnitId) {
        self.state.device_jobs.remove(&unit);
        let waiting = &self.state.device_jobs;
        if !waiting.is_empty() {
            let after = self.state.graph.of(unit, Dependency::After);
            self.unawaited.extend(after.filter(|device| waiting.contains(device)));
        }
    }

    /// Ends the start jobs of devices that no other job waits for, unless the device itself was asked for.
    pub(crate) fn collect_device_jobs(&mut self) {
        while let Some(device) = self.unawaited.pop_first() {
            let job = self.state.jobs.of(device);
            let by_dependency = |job: &&Job| job.running && job.kind == JobType::Start && !job.asked;
            let Some(id) = job.filter(by_dependency).map(|job| job.id) else { continue };
            if !self.is_awaited(device) {
                self.finish_job(id, JobResult::Collected, false);
            }
        }
    }

    fn is_awaited(&self, device: UnitId) -> bool {
        let jobs = &self.state.jobs;
        let waits = |job: &Job| jobs.waits_for(&self.state.graph, job).contains(&device);
        self.state.graph.of(device, Dependency::Before).filter_map(|unit| jobs.of(unit)).any(waits)
    }

    /// What udevd or the kernel says counts: what it takes away is gone, whoever uses it.
    fn set_plugged(&mut self, id: UnitId, plugged: bool) {
        self.change_device(id, |device| {
            if device.plugged != plugged {
                *device = Device { plugged, tentative: false };
            }
        });
    }

    /// Something is mounted or swapped from a path. To be told before the user is up, which would not stay without its device.
    pub(crate) fn use_device(&mut self, source: &dyn Source, path: &str, user: &UnitName) {
        let Some(name) = unit_of_node(path).filter(|_| self.supports(UnitKind::Device)) else { return };
        if self.state.device_users.entry(name.clone()).or_default().insert(user.clone()) {
            let id = self.load(&name, source);
            self.change_device(id, |device| device.tentative = !device.plugged);
        }
    }

    /// It is no more. To be told when the user is down.
    pub(crate) fn leave_device(&mut self, path: &str, user: &UnitName) {
        let Some(name) = unit_of_node(path) else { return };
        let Some(users) = self.state.device_users.get_mut(&name) else { return };
        users.remove(user);
        if !users.is_empty() {
            return;
        }
        self.state.device_users.remove(&name);
        if let Some(id) = self.state.names.get(&name).copied() {
            self.change_device(id, |device| device.tentative = false);
        }
    }

    /// The kernel's list of interfaces, whole: what appeared is plugged, what vanished is dead. One that was made anew has
    /// another number.
    pub(crate) fn interfaces(&mut self, source: &dyn Source, interfaces: &[(String, u32)]) {
        let of_unit = |(name, number): &(String, u32)| Some((unit_of_interface(name)?, *number));
        let now: BTreeMap<UnitName, u32> = interfaces.iter().filter_map(of_unit).collect();
        let before = std::mem::replace(&mut self.state.interface_numbers, now);
        let now = &self.state.interface_numbers;
        let names = before.keys().chain(now.keys());
        let renumbered: BTreeSet<UnitName> =
            names.filter(|name| before.get(*name) != now.get(*name)).cloned().collect();
        let plugged = |name: &UnitName| before.contains_key(name) != now.contains_key(name);
        let changed = renumbered.iter().filter(|name| plugged(name)).cloned().collect();
        self.restrict_interfaces_again(&renumbered);
        self.follow_devices(source, changed);
    }

    /// `RestrictNetworkInterfaces=` names interfaces, and the kernel is told numbers.
    fn restrict_interfaces_again(&mut self, renumbered: &BTreeSet<UnitName>) {
        let names_one = |id: &UnitId| {
            let config = self.state.units.get(id).and_then(|unit| unit.file.cgroup.as_ref());
            config.is_some_and(|config| {
                let mut names = config.restrict_network_interfaces().0.names.iter();
                names.any(|name| unit_of_interface(name).is_some_and(|unit| renumbered.contains(&unit)))
            })
        };
        let restricted: Vec<UnitId> = self.state.cgroups.values().copied().filter(names_one).collect();
        restricted.into_iter().for_each(|id| self.realize_cgroup(id));
    }

    /// What udevd announced, in order. With `whole` what is not among it is gone.
    pub(crate) fn devices(&mut self, source: &dyn Source, changes: Vec<DeviceChange>, whole: bool) {
        let mut touched = BTreeSet::new();
        if whole {
            let listed: BTreeSet<&String> = changes.iter().map(DeviceChange::syspath).collect();
            let gone = self.state.devices.keys().filter(|path| !listed.contains(path)).cloned();
            for path in gone.collect::<Vec<_>>() {
                self.forget_device(&path, &mut touched);
            }
        }
        for change in changes {
            match change {
                DeviceChange::Gone(path) => self.forget_device(&path, &mut touched),
                DeviceChange::Present(device) => self.know_device(device, &mut touched),
            }
        }
        self.follow_devices(source, touched);
    }

    fn forget_device(&mut self, path: &str, touched: &mut BTreeSet<UnitName>) {
        let Some(device) = self.state.devices.remove(path) else { return };
        for name in names_of(&device) {
            if let Some(claims) = self.state.device_claims.get_mut(&name) {
                claims.remove(path);
                if claims.is_empty() {
                    self.state.device_claims.remove(&name);
                }
            }
            touched.insert(name);
        }
    }

    fn know_device(&mut self, device: DeviceFound, touched: &mut BTreeSet<UnitName>) {
        if self.state.devices.get(&device.syspath) == Some(&device) {
            return;
        }
        self.forget_device(&device.syspath, touched);
        if self.state.devices.len() >= DEVICES_MAX {
            return;
        }
        for name in names_of(&device) {
            self.state.device_claims.entry(name.clone()).or_default().insert(device.syspath.clone());
            touched.insert(name);
        }
        self.state.devices.insert(device.syspath.clone(), device);
    }

    /// Brings these units to what is known of their devices. A unit appears with its device.
    fn follow_devices(&mut self, source: &dyn Source, names: BTreeSet<UnitName>) {
        for name in names {
            let plugged = self.is_plugged(&name);
            let known = self.state.names.get(&name).copied();
            let Some(id) = known.or_else(|| plugged.then(|| self.load(&name, source))) else { continue };
            let wanted = self.wanted_by_device(id);
            if known.is_some() {
                self.state.graph.remove_from(id);
                self.reread(id, source);
            }
            self.set_plugged(id, plugged);
            self.touch(id);
            if plugged {
                self.start_what_device_wants(id, if known.is_some() { wanted } else { BTreeSet::new() });
            }
        }
    }

    fn is_plugged(&self, name: &UnitName) -> bool {
        self.state.interface_numbers.contains_key(name)
            || self.device_of(name).is_some_and(|device| device.ready)
    }

    /// The device of a unit: of several that claim its name, one that is ready.
    pub fn device_of(&self, name: &UnitName) -> Option<&DeviceFound> {
        let claims = self.state.device_claims.get(name)?;
        let mut devices = claims.iter().filter_map(|path| self.state.devices.get(path));
        devices.clone().find(|device| device.ready).or_else(|| devices.next())
    }

    /// The unit that this one is another name of, which is that of the directory in sysfs.
    pub fn device_followed_by(&self, name: &UnitName) -> Option<UnitName> {
        unit_of_path(&self.device_of(name)?.syspath).filter(|main| main != name)
    }

    fn wanted_by_device(&self, id: UnitId) -> BTreeSet<UnitId> {
        self.state.graph.of(id, Dependency::Wants).collect()
    }

    /// What a device wants is started when the device comes, and when it begins to want it.
    fn start_what_device_wants(&mut self, id: UnitId, before: BTreeSet<UnitId>) {
        let device = self.unit_name(id);
        let new: Vec<UnitId> = self.wanted_by_device(id).difference(&before).copied().collect();
        for wanted in new {
            // What cannot be started says so by itself; a wish binds nobody.
            let _ = self.enqueue(wanted, JobType::Start, JobMode::Fail, &format!("{device} Wants="));
        }
    }

    /// What is known of a device stands in for its unit file.
    pub(crate) fn describe_device(&self, file: &mut UnitFile) {
        let Some(device) = self.device_of(&file.id).filter(|_| file.load_state == LoadState::Loaded) else {
            return;
        };
        let described = device.model.as_ref().filter(|_| file.fragment_path.is_none());
        if let Some(model) = described {
            *Rc::make_mut(&mut file.unit).edit().description() = Some(model.clone());
        }
    }

    /// What ties a unit to devices: `BindToDevice=` a socket to its interface (systemd.socket(5)); what a device wants; a
    /// mount to what is mounted.
    pub(crate) fn device_pairs(&self, file: &UnitFile, pairs: &mut Vec<(Dependency, UnitName)>) {
        if file.id.kind() == UnitKind::Device {
            let device = self.device_of(&file.id).filter(|device| is_main(device, &file.id));
            let wants = device.map(|device| device.wants.as_slice()).unwrap_or_default();
            pairs.extend(wants.iter().filter_map(|word| Some((Dependency::Wants, wish(word, file)?))));
            return;
        }
        if !self.state.facts.follows_interfaces || file.load_state != LoadState::Loaded {
            return;
        }
        match &file.body {
            Body::Socket(section) => {
                let name = section.bind_to_device().as_ref().map(|name| name.0.as_str());
                // The loopback is always there.
                let device = name.filter(|name| !matches!(*name, "*" | "lo")).and_then(unit_of_interface);
                let kinds = [Dependency::BindsTo, Dependency::After];
                pairs.extend(device.iter().flat_map(|device| kinds.map(|kind| (kind, device.clone()))));
            }
            // The root file system is there before any device unit.
            Body::Mount(section) if file.id.as_str() != "-.mount" => {
                let device = section.what().as_deref().and_then(unit_of_node);
                let kinds = mount_ties(section.options().as_deref().unwrap_or_default());
                pairs.extend(
                    device.iter().flat_map(|device| kinds.iter().map(|kind| (*kind, device.clone()))),
                );
            }
            _ => {}
        }
    }
}

/// How a mount hangs on its device: it stops with it, and with `x-systemd.device-bound` is bound to it (systemd.mount(5)).
fn mount_ties(options: &str) -> &'static [Dependency] {
    let bound = |option: &str| matches!(option, "x-systemd.device-bound" | "x-systemd.device-bound=yes");
    if options.split(',').any(bound) {
        &[Dependency::BindsTo, Dependency::After]
    } else {
        &[Dependency::Requires, Dependency::After, Dependency::StopPropagatedFrom]
    }
}

/// The units of a device.
fn names_of(device: &DeviceFound) -> BTreeSet<UnitName> {
    std::iter::once(&device.syspath).chain(&device.paths).filter_map(|path| unit_of_path(path)).collect()
}

fn is_main(device: &DeviceFound, name: &UnitName) -> bool {
    unit_of_path(&device.syspath).as_ref() == Some(name)
}

/// A word of `SYSTEMD_WANTS=`: a template without an instance gets the device's path as one.
fn wish(word: &str, file: &UnitFile) -> Option<UnitName> {
    let name = word.parse::<UnitName>().ok()?;
    if name.is_template() { name.with_instance(file.id.stem()) } else { Some(name) }
}

fn unit_of_path(path: &str) -> Option<UnitName> {
    let real = path.starts_with("/dev/") || path.starts_with("/sys/");
    real.then(|| format!("{}.device", muster_unit::path_escape(path)).parse().ok()).flatten()
}

/// That of a node in /dev.
fn unit_of_node(path: &str) -> Option<UnitName> {
    unit_of_path(path).filter(|_| path.starts_with("/dev/"))
}

fn unit_of_interface(interface: &str) -> Option<UnitName> {
    unit_of_path(&format!("/sys/subsystem/net/devices/{interface}"))
}
