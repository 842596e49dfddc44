//! Mounts (systemd.mount(5)), followed from the kernel's table.
//!
//! | state | start | command ends | command fails | in the table | not in the table | time is up | stop | reload |
//! |---|---|---|---|---|---|---|---|---|
//! | dead | mounting | – | – | mounted | – | – | – | – |
//! | mounting | – | – | failed `exit-code` | mounted | – | unmounting-sigterm `timeout` | unmounting-sigterm | – |
//! | mounted | – | – | – | – | dead | – | unmounting | remounting |
//! | remounting | – | – | mounted | – | dead | remounting-sigterm | remounting-sigterm | – |
//! | remounting-sigterm | – | mounted | mounted | – | dead | remounting-sigkill | – | – |
//! | remounting-sigkill | – | mounted | mounted | – | dead | mounted | – | – |
//! | unmounting | – | – | mounted `exit-code` | – | dead | unmounting-sigterm `timeout` | – | – |
//! | unmounting-sigterm | – | failed | failed | mounted | – | unmounting-sigkill | – | – |
//! | unmounting-sigkill | – | failed | failed | mounted | – | failed | – | – |
//! | failed | mounting | – | – | mounted | – | – | – | – |
//!
//! A command that takes longer than TimeoutSec= gets SIGTERM, then SIGKILL, with what it started; after that the table counts.
//! A reload mounts anew with the options that the unit has now; how it went is the job's result, not the unit's.

use crate::effect::{Effect, Level};
use crate::event::{Exit, MountPoint};
use crate::jobs::Started;
use crate::kill::Wave;
use crate::kind::{TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, CommandList, Process, Unit, UnitResult, words};
use crate::tool::Runs;
use muster_graph::{JobResult, UnitId};
use muster_unit::{LoadState, MountSection, UnitFile, UnitKind, UnitName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A mount unit as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// The kernel's entry, when mounted.
    pub mounted: Option<MountPoint>,
    /// mount(8) or umount(8) at work.
    pub control: Option<Process>,
    /// What is under way, until the kernel's table was read after it.
    pub phase: MountPhase,
    /// The last attempt to mount failed.
    pub failed: bool,
    /// How the last command ended.
    pub result: UnitResult,
    /// How the last reload ended.
    pub reload_result: UnitResult,
    /// When the command at work is to be ended, on the monotonic clock in microseconds.
    pub deadline_usec: Option<u64>,
    /// Its commands.
    pub runs: Runs,
}
words! {
    /// What a mount unit is doing; the words are its `SubState` meanwhile.
    MountPhase {
        Settled = "", Mounting = "mounting", Unmounting = "unmounting", Sigterm = "unmounting-sigterm",
        Sigkill = "unmounting-sigkill", Remounting = "remounting", RemountSigterm = "remounting-sigterm",
        RemountSigkill = "remounting-sigkill",
    }
}

impl MountPhase {
    fn is_remounting(self) -> bool {
        matches!(self, MountPhase::Remounting | MountPhase::RemountSigterm | MountPhase::RemountSigkill)
    }
}

impl TypeState for Mount {
    fn runs_mut(&mut self) -> Option<&mut Runs> {
        Some(&mut self.runs)
    }

    fn active_state(&self, _: &Unit) -> ActiveState {
        match self.phase {
            MountPhase::Mounting => ActiveState::Activating,
            MountPhase::Unmounting | MountPhase::Sigterm | MountPhase::Sigkill => ActiveState::Deactivating,
            MountPhase::Remounting | MountPhase::RemountSigterm | MountPhase::RemountSigkill => {
                ActiveState::Reloading
            }
            MountPhase::Settled if self.mounted.is_some() => ActiveState::Active,
            MountPhase::Settled if self.failed => ActiveState::Failed,
            MountPhase::Settled => ActiveState::Inactive,
        }
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        match self.phase {
            MountPhase::Settled if self.mounted.is_some() => "mounted",
            MountPhase::Settled if self.failed => "failed",
            MountPhase::Settled => "dead",
            phase => phase.as_str(),
        }
    }

    fn result(&self) -> UnitResult {
        self.result
    }

    fn reset_failed(&mut self, failed: bool) {
        if failed {
            (self.failed, self.result) = (false, UnitResult::Success);
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
    start: Manager::mount_start,
    stop: Manager::mount_stop,
    reload: Manager::mount_reload,
    can_reload: |_, _| true,
    deadline: |_, unit| Mount::of(&unit.kind)?.deadline_usec,
    due: Manager::mount_due,
    control_exited: |manager, id, _, exit| manager.mount_control_exited(id, exit),
    cgroup_emptied: Manager::mount_is_over,
    has_cgroup: true,
    ignores_isolate: true,
    ..Verbs::NOTHING
};

impl Manager {
    /// What changed in the kernel's mount table: what appeared is active, what vanished is not. With `whole` nothing else is
    /// mounted.
    pub(crate) fn mount_table(
        &mut self,
        source: &dyn muster_unit::Source,
        mounts: Vec<MountPoint>,
        gone: Vec<UnitName>,
        whole: bool,
    ) {
        let mut news: BTreeMap<UnitName, Option<MountPoint>> =
            gone.into_iter().map(|name| (name, None)).collect();
        for mount in mounts.into_iter().filter(|mount| !is_of_the_system(&mount.place)) {
            news.insert(mount.unit.clone(), Some(mount));
        }
        for mount in news.values().flatten() {
            self.load_mount(mount, source);
        }
        if whole {
            let units = self.state.units.values().filter(|unit| unit.name.kind() == UnitKind::Mount);
            for name in units.map(|unit| unit.name.clone()) {
                news.entry(name).or_insert(None);
            }
        }
        // Whoever waits for the table is told that it is as it was.
        for id in std::mem::take(&mut self.state.mounts_waiting) {
            let name = self.name_of(id);
            news.entry(name).or_insert_with(|| {
                let mount = self.state.units.get(&id).and_then(|unit| Mount::of(&unit.kind));
                mount.and_then(|mount| mount.mounted.clone())
            });
        }
        for (name, mounted) in news {
            if let Some(id) = self.state.names.get(&name).copied() {
                self.mount_follows(source, id, &name, mounted);
            }
        }
    }

    /// Brings a unit to what the table says of it, and the device that it is on.
    fn mount_follows(
        &mut self,
        source: &dyn muster_unit::Source,
        id: UnitId,
        name: &UnitName,
        mounted: Option<MountPoint>,
    ) {
        let mount = self.state.units.get(&id).and_then(|unit| Mount::of(&unit.kind));
        let before = mount.and_then(|mount| mount.mounted.as_ref()).map(|mounted| mounted.what.clone());
        let now = mounted.as_ref().map(|mounted| mounted.what.clone());
        if let Some(what) = &now {
            self.use_device(source, what, name);
        }
        self.set_mounted(id, mounted);
        if let Some(what) = before.filter(|what| now.as_ref() != Some(what)) {
            self.leave_device(&what, name);
        }
    }

    /// The unit of a mount. Without a file of its own it is what the kernel says of it.
    fn load_mount(&mut self, mount: &MountPoint, source: &dyn muster_unit::Source) {
        let id = self.load(&mount.unit, source);
        if self.state.units.get(&id).is_none_or(|unit| unit.file.load_state != LoadState::NotFound) {
            return;
        }
        let file = Rc::new(self.file_of_mount(mount, source));
        if let Some(unit) = self.state.units.edit(&id) {
            unit.file = file;
        }
        self.relink(id, source);
    }

    /// The unit of a mount that somebody else made, with its drop-ins. A mount point may have any name: it becomes typed
    /// values, never lines of a unit file.
    fn file_of_mount(&self, mount: &MountPoint, source: &dyn muster_unit::Source) -> UnitFile {
        let make = |file: &mut UnitFile| {
            let section = Rc::make_mut(&mut file.unit);
            *section.edit().description() = Some(mount.place.clone());
            *section.edit().source_path() =
                Some(muster_unit::AbsolutePath("/proc/self/mountinfo".to_owned()));
            *section.edit().default_dependencies() = !is_extrinsic(&mount.place);
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
        let mount = Mount::of(&self.state.units.get(id)?.kind)?;
        Some(self.file_of_mount(mount.mounted.as_ref()?, source))
    }

    fn set_mounted(&mut self, id: UnitId, mounted: Option<MountPoint>) {
        let old = self.active_state(id);
        let Some(mount) = self.mount_mut(id) else { return };
        if mount.mounted == mounted && (mount.phase == MountPhase::Settled || mount.control.is_some()) {
            return;
        }
        if mount.phase.is_remounting() && mount.control.is_some() && mounted.is_some() {
            mount.mounted = mounted;
            return self.touch(id);
        }
        let appears = mount.mounted.is_none() && mounted.is_some();
        let by_itself = appears && mount.phase == MountPhase::Settled && mount.control.is_none();
        mount.mounted = mounted;
        mount.phase = MountPhase::Settled;
        mount.deadline_usec = None;
        mount.failed &= mount.mounted.is_none();
        if by_itself && self.unit_name(id) != "-.mount" {
            self.new_invocation(id);
        }
        self.state_changed(id, old);
        self.mount_is_over(id);
    }

    /// What is down has no cgroup.
    fn mount_is_over(&mut self, id: UnitId) {
        let unit = self.state.units.get(&id);
        let Some(mount) = unit.and_then(|unit| Mount::of(&unit.kind)) else { return };
        let down = mount.phase == MountPhase::Settled && mount.mounted.is_none() && mount.control.is_none();
        if !down || unit.is_none_or(|unit| unit.cgroup.is_none()) {
            return;
        }
        if self.state.populated.contains(&id) {
            self.watch_cgroup_again(id);
        } else {
            self.run_is_over(id);
        }
    }

    fn mount_mut(&mut self, id: UnitId) -> Option<&mut Mount> {
        Mount::of_mut(&mut self.state.units.edit(&id)?.kind)
    }

    fn mount_start(&mut self, id: UnitId) -> Started {
        let Some(unit) = self.state.units.get(&id) else { return Started::Ended(JobResult::Invalid) };
        let muster_unit::Body::Mount(section) = &unit.file.body else {
            return Started::Ended(JobResult::Invalid);
        };
        let argv = mount_command(section);
        let (path, mode) =
            (section.where_().as_deref().unwrap_or_default().to_owned(), section.directory_mode().0);
        if !self.start_is_allowed(id) {
            return self.refuse_tool(id, |kind| {
                if let Some(mount) = Mount::of_mut(kind) {
                    (mount.failed, mount.result) = (true, UnitResult::StartLimitHit);
                }
            });
        }
        self.prepare_run(id);
        self.run_mount_command(id, MountPhase::Mounting, argv, Some((path, mode)))
    }

    /// Mounts anew with the options of the file; what somebody else mounted has none.
    fn mount_reload(&mut self, id: UnitId) -> Started {
        let has_file = self.state.units.get(&id).is_some_and(|unit| unit.file.fragment_path.is_some());
        let Some(argv) = self.mount_section(id).filter(|_| has_file).map(remount_command) else {
            return Started::Ended(JobResult::Failed);
        };
        self.report_reloading(id);
        self.run_mount_command(id, MountPhase::Remounting, argv, None)
    }

    fn mount_stop(&mut self, id: UnitId) -> Started {
        let mount = self.state.units.get(&id).and_then(|unit| Mount::of(&unit.kind));
        let place = mount.and_then(|mount| mount.mounted.as_ref()).map(|mounted| mounted.place.clone());
        if mount.is_some_and(|mount| mount.phase == MountPhase::Mounting && mount.control.is_some()) {
            self.end_mount_command(id, MountPhase::Sigterm, None);
            return Started::Working;
        }
        if mount.is_some_and(|mount| mount.phase.is_remounting() && mount.control.is_some()) {
            if mount.is_some_and(|mount| mount.phase == MountPhase::Remounting) {
                // It is still up: what its state says must not end the job.
                self.signal_mount_command(id, MountPhase::RemountSigterm, None);
                self.touch(id);
            }
            return Started::Later;
        }
        let Some(place) = place else { return Started::Ended(JobResult::Done) };
        let Some(argv) = self.mount_section(id).map(|section| umount_command(section, place)) else {
            return Started::Ended(JobResult::Invalid);
        };
        self.run_mount_command(id, MountPhase::Unmounting, argv, None)
    }

    fn mount_section(&self, id: UnitId) -> Option<&MountSection> {
        match &self.state.units.get(&id)?.file.body {
            muster_unit::Body::Mount(section) => Some(section),
            _ => None,
        }
    }

    /// How long a command may take, from now on; `None` for ever.
    fn mount_deadline(&self, id: UnitId) -> Option<u64> {
        self.tool_deadline(self.mount_section(id)?.timeout_sec())
    }

    /// mount(8) or umount(8), and whatever they started, must go.
    fn end_mount_command(&mut self, id: UnitId, phase: MountPhase, why: Option<UnitResult>) {
        let old = self.active_state(id);
        self.signal_mount_command(id, phase, why);
        self.state_changed(id, old);
    }

    fn signal_mount_command(&mut self, id: UnitId, phase: MountPhase, why: Option<UnitResult>) {
        let last = matches!(phase, MountPhase::Sigkill | MountPhase::RemountSigkill);
        let wave = if last { Wave::Final } else { Wave::Polite };
        self.kill_wave(id, wave);
        let deadline = self.mount_deadline(id);
        if let Some(mount) = self.mount_mut(id) {
            mount.phase = phase;
            mount.deadline_usec = deadline;
            let result = if phase.is_remounting() { &mut mount.reload_result } else { &mut mount.result };
            *result = why.unwrap_or(*result);
        }
    }

    fn mount_due(&mut self, id: UnitId) {
        let unit = self.state.units.get(&id);
        let Some(mount) = unit.and_then(|unit| Mount::of(&unit.kind)) else { return };
        if mount.deadline_usec.is_none_or(|at| at > self.now.monotonic_usec) {
            return;
        }
        match mount.phase {
            MountPhase::Mounting | MountPhase::Unmounting => {
                self.end_mount_command(id, MountPhase::Sigterm, Some(UnitResult::Timeout));
            }
            MountPhase::Sigterm => {
                self.end_mount_command(id, MountPhase::Sigkill, Some(UnitResult::Timeout));
            }
            MountPhase::Remounting => {
                self.end_mount_command(id, MountPhase::RemountSigterm, Some(UnitResult::Timeout));
            }
            MountPhase::RemountSigterm => {
                self.end_mount_command(id, MountPhase::RemountSigkill, Some(UnitResult::Timeout));
            }
            // It hangs in the kernel: nothing is left to do but to say how things are.
            MountPhase::Sigkill | MountPhase::RemountSigkill => {
                self.mount_control_exited(id, Exit::Killed(muster_unit::Signal::KILL.0))
            }
            MountPhase::Settled => {
                if let Some(mount) = self.mount_mut(id) {
                    mount.deadline_usec = None;
                }
                self.touch(id);
            }
        }
    }

    /// Runs mount(8), on a place that is made with that mode where it is missing, or umount(8).
    fn run_mount_command(
        &mut self,
        id: UnitId,
        phase: MountPhase,
        argv: Vec<String>,
        place: Option<(String, u32)>,
    ) -> Started {
        let list = match phase {
            MountPhase::Mounting => CommandList::ExecMount,
            MountPhase::Remounting => CommandList::ExecRemount,
            _ => CommandList::ExecUnmount,
        };
        let Some(process) = self.run_tool(id, list, argv, place) else {
            return Started::Ended(JobResult::Invalid);
        };
        let deadline = self.mount_deadline(id);
        let old = self.active_state(id);
        if let Some(mount) = self.mount_mut(id) {
            mount.control = Some(process);
            (mount.phase, mount.deadline_usec) = (phase, deadline);
            if phase.is_remounting() {
                mount.reload_result = UnitResult::Success;
            } else {
                (mount.failed, mount.result) = (false, UnitResult::Success);
            }
        }
        self.state_changed(id, old);
        Started::Working
    }

    /// mount(8) or umount(8) ended; the kernel's table may still be on its way, so read the answer from there.
    fn mount_control_exited(&mut self, id: UnitId, exit: Exit) {
        let good = exit == Exit::Exited(0);
        let name = self.unit_name(id);
        let old = self.active_state(id);
        let Some(mount) = self.mount_mut(id) else { return };
        let was = mount.phase;
        let signalled =
            !matches!(was, MountPhase::Mounting | MountPhase::Unmounting | MountPhase::Remounting);
        let (what, result) = match was {
            MountPhase::Mounting => ("mounting", &mut mount.result),
            was if was.is_remounting() => ("remounting", &mut mount.reload_result),
            _ => ("unmounting", &mut mount.result),
        };
        mount.deadline_usec = None;
        if !good && *result == UnitResult::Success {
            *result = crate::tool::result_of(exit);
        }
        if !good || signalled {
            mount.failed = mount.result != UnitResult::Success;
            mount.phase = MountPhase::Settled;
            self.log(Level::Error, Some(id), format!("{name}: {what} failed."));
        }
        self.state.mounts_waiting.insert(id);
        self.effects.push_back(Effect::ReadMountTable);
        self.state_changed(id, old);
        self.mount_is_over(id);
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
    let kept = ["/proc", "/sys", "/dev", "/run/initramfs", "/run/nextroot"];
    place == "/" || place == "/usr" || kept.into_iter().any(below)
}

/// What the kernel says of a mount, as its section.
fn take_from_kernel(section: &mut MountSection, mount: &MountPoint) {
    *section.edit().what() = Some(mount.what.clone());
    *section.edit().where_() = Some(muster_unit::AbsolutePath(mount.place.clone()));
    *section.edit().type_() = Some(mount.fs_type.clone());
    *section.edit().options() = Some(mount.options.clone());
}

fn mount_command(section: &MountSection) -> Vec<String> {
    let mut argv = mount_words(section);
    argv.extend(mount_switches(section));
    if let Some(options) = section.options().as_ref().filter(|options| !options.is_empty()) {
        argv.extend(["-o".to_owned(), options.clone()]);
    }
    argv
}

fn remount_command(section: &MountSection) -> Vec<String> {
    let mut argv = mount_words(section);
    let options = section.options().as_ref().filter(|options| !options.is_empty());
    let options = options.map_or_else(|| "remount".to_owned(), |options| format!("remount,{options}"));
    argv.extend(["-o".to_owned(), options]);
    argv.extend(mount_switches(section));
    argv
}

/// The program, what is mounted, and where.
fn mount_words(section: &MountSection) -> Vec<String> {
    let (what, place) = (section.what().clone(), section.where_().as_deref());
    vec!["/usr/bin/mount".to_owned(), what.unwrap_or_default(), place.unwrap_or_default().to_owned()]
}

/// How it is mounted, but for the options.
fn mount_switches(section: &MountSection) -> Vec<String> {
    let mut argv = Vec::new();
    argv.extend(section.sloppy_options().then(|| "-s".to_owned()));
    argv.extend(section.read_write_only().then(|| "-w".to_owned()));
    if let Some(fs_type) = &section.type_() {
        argv.extend(["-t".to_owned(), fs_type.clone()]);
    }
    argv
}

fn umount_command(section: &MountSection, place: String) -> Vec<String> {
    let mut argv = vec!["/usr/bin/umount".to_owned(), place, "-c".to_owned()];
    argv.extend(section.lazy_unmount().then(|| "-l".to_owned()));
    argv.extend(section.force_unmount().then(|| "-f".to_owned()));
    argv
}
