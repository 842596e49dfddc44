//! Targets, slices and scopes; and mounts, followed from the kernel's table.
//!
//! | type | start | stop | cgroup empty |
//! |---|---|---|---|
//! | target | active at once | inactive at once | – |
//! | slice | cgroup made, active | inactive, cgroup removed | – |
//! | scope | cgroup made, processes moved in | signalled, waits for emptiness | inactive |
//! | mount | mount(8) runs, the kernel's table decides | umount(8) runs, the same | – |

use crate::effect::{Effect, Level, Spawn, SpawnId, SpawnRole};
use crate::event::{Exit, MountPoint};
use crate::jobs::Started;
use crate::manager::Manager;
use crate::state::{ActiveState, Kind, MountPhase, MountState, Process, Simple};
use muster_graph::{JobResult, UnitId};
use muster_unit::{ExecCommand, LoadState, MountSection, UnitFile, UnitKind, UnitName};
use std::collections::BTreeMap;
use std::rc::Rc;

impl Manager {
    fn simple_mut(&mut self, id: UnitId) -> Option<&mut Simple> {
        match &mut self.state.units.get_mut(&id)?.kind {
            Kind::Simple(simple) => Some(simple),
            Kind::Service(_) | Kind::Socket(_) | Kind::Mount(_) => None,
        }
    }

    fn set_simple(&mut self, id: UnitId, active: bool) {
        let old = self.active_state(id);
        if let Some(simple) = self.simple_mut(id) {
            *simple =
                Simple { active, controller: std::mem::take(&mut simple.controller), ..Simple::default() };
        }
        self.state_changed(id, old);
    }

    /// A device came or went.
    pub(crate) fn set_plugged(&mut self, id: UnitId, plugged: bool) {
        if self.simple_mut(id).is_some_and(|simple| simple.active != plugged) {
            self.set_simple(id, plugged);
        }
    }

    pub(crate) fn simple_start(&mut self, id: UnitId) -> Started {
        let kind = self.name_of(id).kind();
        if matches!(kind, UnitKind::Slice | UnitKind::Scope) {
            self.prepare_run(id);
            if kind == UnitKind::Slice {
                self.state.populated.remove(&id);
            }
        }
        if let (UnitKind::Scope, Some(pids)) = (kind, self.state.scope_pids.remove(&id)) {
            self.state.populated.insert(id);
            if let Some(path) = self.state.units.get(&id).and_then(|unit| unit.cgroup.clone()) {
                self.effects.push_back(Effect::AttachProcesses { path: path.clone(), pids });
                self.effects.push_back(Effect::WatchCgroup { path });
            }
        }
        self.set_simple(id, true);
        Started::Working
    }

    pub(crate) fn simple_stop(&mut self, id: UnitId) -> Started {
        if self.name_of(id).kind() == UnitKind::Scope && self.state.populated.contains(&id) {
            if self.kill_wave(id, crate::kill::Wave::Polite) {
                let old = self.active_state(id);
                let deadline =
                    self.now.monotonic_usec.saturating_add(self.state.facts.default_timeout_stop_usec);
                if let Some(simple) = self.simple_mut(id) {
                    simple.stopping_deadline_usec = Some(deadline);
                }
                self.state_changed(id, old);
                return Started::Working;
            }
        }
        self.set_simple(id, false);
        self.run_is_over(id);
        Started::Working
    }

    /// A scope would not go: SIGKILL, and if even that does not help, give up on it.
    pub(crate) fn scope_deadline(&mut self, id: UnitId) {
        let again = self.now.monotonic_usec.saturating_add(self.state.facts.default_timeout_stop_usec);
        self.kill_wave(id, crate::kill::Wave::Final);
        if let Some(simple) = self.simple_mut(id) {
            simple.stopping_deadline_usec = Some(again);
        }
        self.touch(id);
    }

    pub(crate) fn simple_cgroup_emptied(&mut self, id: UnitId) {
        if self.name_of(id).kind() == UnitKind::Scope && self.active_state(id) != ActiveState::Inactive {
            self.set_simple(id, false);
            self.run_is_over(id);
        }
    }

    // ---- mounts ---------------------------------------------------------------------------------------------------

    /// The kernel's mount table, whole: what appeared is active, what vanished is not.
    pub(crate) fn mount_table(&mut self, source: &dyn muster_unit::Source, mounts: Vec<MountPoint>) {
        let mut seen: BTreeMap<UnitName, MountPoint> = BTreeMap::new();
        for mount in mounts.into_iter().filter(|mount| !is_of_the_system(&mount.place)) {
            seen.insert(mount.unit.clone(), mount);
        }
        for mount in seen.values() {
            self.load_mount(mount, source);
        }
        let units: Vec<(UnitId, UnitName)> = self
            .state
            .units
            .values()
            .filter(|unit| unit.name.kind() == UnitKind::Mount)
            .map(|unit| (unit.id, unit.name.clone()))
            .collect();
        for (id, name) in units {
            self.set_mounted(id, seen.remove(&name));
        }
    }

    /// The unit of a mount. Without a file of its own it is what the kernel says of it.
    fn load_mount(&mut self, mount: &MountPoint, source: &dyn muster_unit::Source) {
        let id = self.load(&mount.unit, source);
        if self.state.units.get(&id).is_none_or(|unit| unit.file.load_state != LoadState::NotFound) {
            return;
        }
        let file = Rc::new(self.file_of_mount(mount, source));
        if let Some(unit) = self.state.units.get_mut(&id) {
            unit.file = file;
        }
        self.relink(id, source);
    }

    /// The unit of a mount that somebody else made, with its drop-ins. A mount point may have any name: it becomes typed
    /// values, never lines of a unit file.
    fn file_of_mount(&self, mount: &MountPoint, source: &dyn muster_unit::Source) -> UnitFile {
        let make = |file: &mut UnitFile| {
            let section = Rc::make_mut(&mut file.unit);
            section.description = Some(mount.place.clone());
            section.source_path = Some("/proc/self/mountinfo".to_owned());
            section.default_dependencies = !is_extrinsic(&mount.place);
            if let muster_unit::Body::Mount(section) = &mut file.body {
                take_from_kernel(section, mount);
            }
        };
        let mut file = muster_unit::load_made(&mount.unit, source, &self.state.facts.specifiers, make);
        // It is there, whatever characters its name has, and whatever drop-ins say.
        file.load_state = LoadState::Loaded;
        file.load_error = None;
        if let muster_unit::Body::Mount(section) = &mut file.body {
            take_from_kernel(section, mount);
        }
        file
    }

    /// The same by name, for what is mounted now.
    pub(crate) fn file_of_mounted(
        &self,
        name: &UnitName,
        source: &dyn muster_unit::Source,
    ) -> Option<UnitFile> {
        let id = self.state.names.get(name)?;
        match &self.state.units.get(id)?.kind {
            Kind::Mount(mount) => Some(self.file_of_mount(mount.mounted.as_ref()?, source)),
            Kind::Service(_) | Kind::Socket(_) | Kind::Simple(_) => None,
        }
    }

    fn set_mounted(&mut self, id: UnitId, mounted: Option<MountPoint>) {
        let old = self.active_state(id);
        let Some(Kind::Mount(mount)) = self.state.units.get_mut(&id).map(|unit| &mut unit.kind) else {
            return;
        };
        if mount.mounted == mounted && (mount.phase == MountPhase::Settled || mount.control.is_some()) {
            return;
        }
        mount.mounted = mounted;
        mount.phase = MountPhase::Settled;
        mount.failed &= mount.mounted.is_none();
        self.state_changed(id, old);
    }

    fn mount_mut(&mut self, id: UnitId) -> Option<&mut MountState> {
        match &mut self.state.units.get_mut(&id)?.kind {
            Kind::Mount(mount) => Some(mount),
            Kind::Service(_) | Kind::Socket(_) | Kind::Simple(_) => None,
        }
    }

    pub(crate) fn mount_start(&mut self, id: UnitId) -> Started {
        let Some(unit) = self.state.units.get(&id) else { return Started::Ended(JobResult::Invalid) };
        let muster_unit::Body::Mount(section) = &unit.file.body else {
            return Started::Ended(JobResult::Invalid);
        };
        let argv = mount_command(section);
        let (path, mode) = (section.where_.clone().unwrap_or_default(), section.directory_mode.0);
        self.effects.push_back(Effect::MakeDirectory { path, mode });
        self.prepare_run(id);
        self.run_mount_command(id, argv, true)
    }

    pub(crate) fn mount_stop(&mut self, id: UnitId) -> Started {
        let place = self.state.units.get(&id).and_then(|unit| match &unit.kind {
            Kind::Mount(mount) => mount.mounted.as_ref().map(|mounted| mounted.place.clone()),
            Kind::Service(_) | Kind::Socket(_) | Kind::Simple(_) => None,
        });
        let Some(place) = place else { return Started::Ended(JobResult::Done) };
        self.run_mount_command(id, vec!["/bin/umount".to_owned(), place, "-c".to_owned()], false)
    }

    fn run_mount_command(&mut self, id: UnitId, argv: Vec<String>, up: bool) -> Started {
        let Some(path) = argv.first().cloned() else { return Started::Ended(JobResult::Invalid) };
        let command = ExecCommand { path, argv, ..ExecCommand::default() };
        let spawn = SpawnId(self.state.next_spawn);
        self.state.next_spawn = self.state.next_spawn.saturating_add(1);
        self.realize_cgroup(id);
        let base_environment = self.base_environment();
        let Some(unit) = self.state.units.get(&id) else { return Started::Ended(JobResult::Invalid) };
        let effect = Spawn {
            id: spawn,
            unit: unit.name.clone(),
            role: SpawnRole::Control,
            command: command.clone(),
            exec: unit.file.exec.clone().unwrap_or_default(),
            base_environment,
            own_environment: vec![format!("INVOCATION_ID={}", unit.invocation_id)],
            fds: Vec::new(),
            stdio_socket: None,
            stdio: Vec::new(),
            cgroup: unit.cgroup.clone().unwrap_or_default(),
            invocation_id: unit.invocation_id.clone(),
            report_exec: false,
            set_watchdog_pid: false,
            make_directories: false,
            non_blocking: false,
            context_from_peer: false,
        };
        self.effects.push_back(Effect::Spawn(Box::new(effect)));
        self.state.spawns.insert(spawn, id);
        let old = self.active_state(id);
        if let Some(mount) = self.mount_mut(id) {
            mount.control = Some(Process {
                spawn: Some(spawn),
                pid: None,
                command: Some(command),
                place: None,
                alien: false,
            });
            mount.phase = if up { MountPhase::Mounting } else { MountPhase::Unmounting };
            mount.failed = false;
        }
        self.state_changed(id, old);
        Started::Working
    }

    /// mount(8) or umount(8) ended; the kernel's table may still be on its way, so read the answer from there.
    pub(crate) fn mount_control_exited(&mut self, id: UnitId, exit: Exit) {
        let good = exit == Exit::Exited(0);
        let name = self.unit_name(id);
        let old = self.active_state(id);
        let Some(mount) = self.mount_mut(id) else { return };
        let up = mount.phase == MountPhase::Mounting;
        if !good {
            mount.failed = up;
            mount.phase = MountPhase::Settled;
            self.log(
                Level::Error,
                Some(id),
                format!("{name}: {} failed.", if up { "mounting" } else { "unmounting" }),
            );
        }
        self.effects.push_back(Effect::ReadMountTable);
        self.state_changed(id, old);
    }
}

/// Mounts that make the system what it is, and are no unit's: PID 1 or its container's manager made them.
fn is_of_the_system(place: &str) -> bool {
    const PLACES: [&str; 16] = [
        "/proc",
        "/sys",
        "/dev",
        "/dev/shm",
        "/dev/pts",
        "/dev/console",
        "/run",
        "/sys/fs/cgroup",
        "/sys/kernel/security",
        "/sys/fs/smackfs",
        "/sys/fs/selinux",
        "/sys/fs/pstore",
        "/sys/fs/bpf",
        "/sys/firmware/efi/efivars",
        "/proc/sys",
        "/proc/kmsg",
    ];
    PLACES.contains(&place)
        || place.starts_with("/sys/fs/cgroup/")
        || place.starts_with("/proc/sys/kernel/random/")
}

/// Mounts that are there before us and after us, or that belong to the kernel's own file systems.
pub(crate) fn is_extrinsic(place: &str) -> bool {
    let below =
        |top: &str| place.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    place == "/" || place == "/usr" || ["/proc", "/sys", "/dev", "/run/initramfs"].into_iter().any(below)
}

/// What the kernel says of a mount, as its section.
fn take_from_kernel(section: &mut MountSection, mount: &MountPoint) {
    section.what = Some(mount.what.clone());
    section.where_ = Some(mount.place.clone());
    section.type_ = Some(mount.fs_type.clone());
    section.options = Some(mount.options.clone());
}

fn mount_command(section: &MountSection) -> Vec<String> {
    let mut argv = vec![
        "/bin/mount".to_owned(),
        section.what.clone().unwrap_or_default(),
        section.where_.clone().unwrap_or_default(),
    ];
    if let Some(fs_type) = &section.type_ {
        argv.extend(["-t".to_owned(), fs_type.clone()]);
    }
    if let Some(options) = section.options.as_ref().filter(|options| !options.is_empty()) {
        argv.extend(["-o".to_owned(), options.clone()]);
    }
    argv
}
