//! The tree of cgroups below our root: directories, attributes, kill, emptiness (Linux, Documentation/admin-guide/cgroup-v2).
//!
//! Paths are as the manager says them: below our root, with a leading slash, "" for the root itself. What must stay
//! true: nothing above our root is touched; no recursion (outside processes decide how deep a delegated tree is);
//! emptiness is looked at when it is asked, never remembered.
#![forbid(unsafe_code)]

mod attributes;
mod block;
mod controllers;
mod devices;
mod filesystems;
mod foreign;
mod kin;
mod network;
mod oom;
mod program;
mod reading;
mod sets;
mod traffic;

pub use attributes::IoTotals;
pub use controllers::Controllers;
pub use kin::Known;
pub use traffic::Counted;

use muster_sys::bpf::Hook;
use muster_unit::{CGroupSection, DevicePolicy, FileSystemList, NftSet, OomPolicy};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// At most this many cgroups below one are looked at.
const WALK_MAX: usize = 65_536;
/// While processes fork, a signal is sent at most this many times over to those that came meanwhile.
const ROUNDS_MAX: usize = 16;

/// Whether a cgroup holds processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Population {
    /// It holds none, or is gone.
    Empty,
    /// It holds some, itself or below.
    Populated,
    /// The kernel did not say. It is asked again; until then nobody may take it for empty.
    Unknown,
}

/// What limits are fractions of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
}

impl Machine {
    /// Looks at the machine.
    pub fn look() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let number = |path: &str| read(path).trim().parse::<u64>().unwrap_or(u64::MAX);
        let meminfo = read("/proc/meminfo");
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        let tasks = number("/proc/sys/kernel/threads-max").min(number("/proc/sys/kernel/pid_max"));
        Machine { memory_bytes: kib.saturating_mul(1024), tasks }
    }
}

/// What holds for units that say nothing of it (systemd-system.conf(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// `DefaultTasksMax=`; slices have none.
    pub tasks_max: Option<u64>,
    /// `DefaultMemoryAccounting=`.
    pub memory: bool,
    /// `DefaultTasksAccounting=`.
    pub tasks: bool,
    /// `DefaultIOAccounting=`.
    pub io: bool,
    /// `DefaultIPAccounting=`.
    pub ip: bool,
}

/// What a cgroup is held to.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What its unit says.
    pub config: &'a CGroupSection,
    /// To whom it belongs, where it is delegated.
    pub owner: Option<(u32, u32)>,
    /// What slices above it disable (`DisableControllers=`).
    pub disabled: Controllers,
    /// For what its unit does not say.
    pub defaults: Defaults,
    /// Where it is said, the kernel's kills for want of memory are told (`OOMPolicy=`).
    pub oom: Option<OomPolicy>,
    /// Of which file systems files may be opened; of all, where nothing is said.
    pub files: Option<&'a FileSystemList>,
}

/// The tree.
#[derive(Debug)]
pub struct Tree {
    /// Where cgroup2 is mounted.
    mount: String,
    /// Our root below the mount, "" when we are at the top.
    root: String,
    events: Inotify,
    watched: BTreeMap<WatchDescriptor, String>,
    by_path: BTreeMap<String, WatchDescriptor>,
    /// What the machine has.
    machine: Machine,
    /// Controllers that our root was given.
    controllers: Controllers,
    /// Of controllers that our root was not given, those that were asked for.
    said: Controllers,
    /// What cgroups give on of their controllers.
    giving: BTreeMap<String, Controllers>,
    /// Which controllers the unit of a cgroup needs.
    needs: BTreeMap<String, Controllers>,
    /// Whether that is so of all cgroups.
    knows_all: bool,
    /// Whose programs could not be attached, and why: nothing may run there.
    refused: BTreeMap<String, String>,
    /// What cgroups put in sets of nftables.
    sets: BTreeMap<String, Vec<sets::Element>>,
    /// To be removed as soon as they are empty.
    condemned: BTreeSet<String>,
    /// Whose emptiness is not told by the kernel, and is asked for from time to time: no watch could be set, or the answer
    /// could not be read.
    uncertain: BTreeSet<String>,
    /// Where the kernel's kills for want of memory are followed.
    oom: oom::Followed,
    /// Who belongs where, instead of cgroups.
    kin: Option<kin::Kin>,
    /// What is known of programs that look at files.
    files: filesystems::Files,
    /// A cgroup that was marked, open, for the process that is started in it next.
    marked: Option<(String, OwnedFd)>,
    /// The last cgroup that was removed for being empty.
    removed: Option<String>,
}

impl Tree {
    /// Finds the cgroup2 mount and our place in it.
    pub fn discover() -> io::Result<Tree> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = table
            .lines()
            .filter(|line| line.split(" - ").nth(1).is_some_and(|tail| tail.starts_with("cgroup2 ")))
            .filter_map(|line| line.split(' ').nth(4))
            .next_back()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "cgroup2 is not mounted"))?
            .to_owned();
        let own = own_cgroup(&fs::read_to_string("/proc/self/cgroup")?).unwrap_or_default();
        let root = own.strip_suffix("/init.scope").unwrap_or(&own).trim_end_matches('/').to_owned();
        let events = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let given = fs::read_to_string(format!("{mount}{root}/cgroup.controllers")).unwrap_or_default();
        let controllers = Controllers::named(given.split_whitespace());
        Ok(Tree::new(mount, root, controllers, events))
    }

    fn new(mount: String, root: String, controllers: Controllers, events: Inotify) -> Tree {
        Tree {
            mount,
            root,
            events,
            watched: BTreeMap::new(),
            by_path: BTreeMap::new(),
            machine: Machine::look(),
            controllers,
            said: Controllers::default(),
            needs: BTreeMap::new(),
            knows_all: true,
            refused: BTreeMap::new(),
            sets: BTreeMap::new(),
            giving: BTreeMap::new(),
            condemned: BTreeSet::new(),
            uncertain: BTreeSet::new(),
            oom: oom::Followed::default(),
            kin: None,
            files: filesystems::Files::default(),
            marked: None,
            removed: None,
        }
    }

    /// Without cgroups: who belongs to a unit is known by descent.
    pub fn of_kin(known: Known) -> io::Result<Tree> {
        let events = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // Nothing can lie below it: what is asked of a cgroup has no answer.
        let mut tree = Tree::new("/dev/null".to_owned(), String::new(), Controllers::default(), events);
        tree.kin = Some(kin::Kin::new(known)?);
        Ok(tree)
    }

    /// What the next program is to know, where there are no cgroups.
    pub fn kin(&self) -> Option<Known> {
        self.kin.as_ref().map(kin::Kin::known)
    }

    /// A process was started, or goes on, in a cgroup, for a run of its unit. Where there are cgroups they say so.
    pub fn note_start(&mut self, path: &str, pid: u32, invocation: &str) {
        if let Some(kin) = &mut self.kin {
            kin.add(path, pid, Some(invocation));
        }
    }

    /// Another process goes on as one that was started.
    pub fn note_move(&mut self, path: &str, pid: u32) {
        if let Some(kin) = &mut self.kin {
            kin.add(path, pid, None);
        }
    }

    /// A child is about to be reaped: its number is free from then on.
    pub fn note_end(&mut self, pid: u32) {
        if let Some(kin) = &mut self.kin {
            kin.forget(pid);
        }
    }

    /// Our root, as the kernel names it; "" for the top.
    pub fn root_path(&self) -> &str {
        &self.root
    }

    /// What tells of changes.
    pub fn events_fd(&self) -> i32 {
        if let Some(kin) = &self.kin {
            return kin.events_fd();
        }
        self.events.as_fd().as_raw_fd()
    }

    fn directory(&self, path: &str) -> String {
        format!("{}{}{path}", self.mount, self.root)
    }

    /// Moves this process out of the root, which must stay empty for controllers to be given on.
    pub fn enter_init_scope(&self) -> Result<(), String> {
        let directory = self.directory("/init.scope");
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        fs::write(format!("{directory}/cgroup.procs"), "0").map_err(|error| error.to_string())
    }

    /// Makes a cgroup with all above it, gives controllers on, and sets its attributes.
    pub fn realize(&mut self, path: &str, wanted: &Wanted<'_>) -> Result<(), String> {
        let config = wanted.config;
        let mut values = attributes::wanted(config, self.machine);
        let mut failed = self.lacking(config, &values);
        if self.kin.is_some() {
            return failed.map_or_else(|| self.refuse_programs(path, config), Err);
        }
        let is_new = self.make(path)?;
        let directory = self.directory(path);
        if let Some(tasks) = wanted.defaults.tasks_max.filter(|_| config.tasks_max().is_none()) {
            values.push(("pids.max", tasks.to_string()));
        }
        let needed = controllers::needed(config, &wanted.defaults, &values).without(wanted.disabled);
        self.enable_controllers(path, needed);
        self.take_back(path, needed);
        if !config.is_delegated() {
            let own = Controllers::named(config.disable_controllers().names());
            self.disable_controllers(path, wanted.disabled.and(own));
        }
        failed = self.write(&directory, values, is_new).or(failed);
        if self.is_given("io.max") {
            failed = block::apply(&directory, config, is_new).or(failed);
        }
        failed = self.delegate(&directory, wanted).or(failed);
        self.mark(path, config, is_new);
        if let Some(policy) = wanted.oom {
            self.follow_oom(path, policy, is_new);
        }
        let counts = config.ip_accounting().unwrap_or(wanted.defaults.ip);
        let programs = self.set_programs(path, config, wanted.files, counts, is_new);
        failed.map_or(programs, Err)
    }

    /// Makes a cgroup; whether it is new.
    fn make(&mut self, path: &str) -> Result<bool, String> {
        let directory = self.directory(path);
        self.let_go();
        if self.condemned.remove(path) {
            self.unwatch(path);
        }
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&directory).map(|()| true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            done => done.map(|()| true),
        }
        .map_err(|error| format!("{directory}: {error}"))
    }

    /// What a unit asks for by name and our root was not given: said once for each controller.
    fn lacking(&mut self, config: &CGroupSection, values: &[(&'static str, String)]) -> Option<String> {
        let devices = Controllers::named((!block::is_silent(config)).then_some("io"));
        let asked = values.iter().map(|(file, _)| Controllers::of_file(file)).fold(devices, Controllers::and);
        let lacking = asked.without(self.controllers).without(self.said);
        self.said = self.said.and(lacking);
        let names: Vec<&str> = lacking.names().collect();
        (!names.is_empty()).then(|| {
            format!("no controller {} is here, so what is said of it holds for no unit", names.join(", "))
        })
    }

    /// Whether our root has the controller of a file.
    fn is_given(&self, file: &str) -> bool {
        Controllers::of_file(file).without(self.controllers).is_empty()
    }

    /// Sets attributes, and what was set before and is not any more back to what it is by itself.
    fn write(&self, directory: &str, values: Vec<(&'static str, String)>, is_new: bool) -> Option<String> {
        let now = |file: &str| fs::read_to_string(format!("{directory}/{file}")).ok();
        let is_set = |file: &str, default: &str| {
            !is_new && self.is_given(file) && now(file).is_some_and(|text| text.trim_end() != default)
        };
        let unset =
            attributes::DEFAULTS.iter().filter(|(file, _)| !values.iter().any(|(set, _)| set == file));
        let unset = unset.filter(|(file, default)| is_set(file, default));
        let unset: Vec<(&str, String)> =
            unset.map(|(file, default)| (*file, format!("{default}\n"))).collect();
        let values = values.into_iter().filter(|(file, _)| self.is_given(file));
        let mut failed = None;
        for (file, value) in unset.into_iter().chain(values) {
            let target = format!("{directory}/{file}");
            if let Err(error) = fs::write(&target, &value) {
                // A controller that the kernel did not give us is not this unit's fault.
                if error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::PermissionDenied
                {
                    failed = Some(format!("{file} does not take {value}: {error}"));
                }
            }
        }
        failed
    }

    /// Makes the subgroup, and gives both to whom the cgroup is delegated to.
    fn delegate(&self, directory: &str, wanted: &Wanted<'_>) -> Option<String> {
        let subgroup = wanted.config.subgroup().map(|name| format!("{directory}/{name}"));
        let made = subgroup.as_ref().map(fs::create_dir);
        if let (Some((uid, gid)), true) = (wanted.owner, wanted.config.delegate().is_some()) {
            for directory in [Some(directory), subgroup.as_deref()].into_iter().flatten() {
                for file in ["", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"] {
                    let _ = std::os::unix::fs::chown(format!("{directory}{file}"), Some(uid), Some(gid));
                }
            }
        }
        match made {
            Some(Err(error)) if error.kind() != io::ErrorKind::AlreadyExists => {
                Some(format!("DelegateSubgroup=: {error}"))
            }
            _ => None,
        }
    }

    /// What others read of a cgroup.
    fn mark(&self, path: &str, config: &CGroupSection, is_new: bool) {
        let marks = attributes::marks(config);
        if is_new && !marks.iter().any(|(_, set)| *set) {
            return;
        }
        let Ok(directory) = self.open_dir(path) else { return };
        for (name, set) in marks {
            // Where the file system holds no attributes there are none, as the manual says.
            let _ = match set {
                true => muster_sys::set_xattr(directory.as_fd(), name, b"1"),
                false => muster_sys::remove_xattr(directory.as_fd(), name),
            };
        }
    }

    fn set_programs(
        &mut self,
        path: &str,
        config: &CGroupSection,
        files: Option<&FileSystemList>,
        counts: bool,
        is_new: bool,
    ) -> Result<(), String> {
        let files_free = files.is_none_or(|files| files.0.is_free());
        let silent = config.device_policy() == DevicePolicy::Auto
            && config.device_allow().is_empty()
            && network::is_silent(config)
            && foreign::is_silent(config)
            && files_free
            && !counts;
        // The root is not ours alone.
        if path.is_empty() || (silent && is_new) {
            return Ok(());
        }
        let directory = self.open_dir(path).map_err(|error| format!("{path}: {error}"))?;
        devices::apply(directory.as_fd(), config, is_new)?;
        network::apply(directory.as_fd(), config, is_new)?;
        let counted = traffic::apply(directory.as_fd(), counts, is_new);
        self.refused.remove(path);
        let bound = network::bind(directory.as_fd(), config, is_new);
        let (done, refusal) = foreign::apply(directory.as_fd(), config, is_new);
        self.refused.extend(bound.err().or(refusal).map(|refusal| (path.to_owned(), refusal)));
        let asked = files.filter(|_| !(files_free && is_new));
        let restricted = asked.map_or(Ok(()), |files| self.restrict_files(directory.as_fd(), files, is_new));
        done.and(counted).and(restricted)
    }

    /// Without cgroups no program can be attached: where filters of somebody else have to be, nothing may run.
    fn refuse_programs(&mut self, path: &str, config: &CGroupSection) -> Result<(), String> {
        if !foreign::is_silent(config) {
            self.refused.insert(path.to_owned(), "there are no cgroups to attach filters to".to_owned());
        }
        let devices = config.device_policy() != DevicePolicy::Auto || !config.device_allow().is_empty();
        match devices || !network::is_silent(config) {
            true => Err("there are none, so what is said of devices and addresses does not hold".to_owned()),
            false => Ok(()),
        }
    }

    /// Why nothing may run in a cgroup: a filter that its unit names is not there (`IPIngressFilterPath=`).
    pub fn refusal<'a>(&'a self, path: &'a str) -> Option<&'a str> {
        let parent = |path: &&'a str| path.rsplit_once('/').map(|(parent, _)| parent);
        std::iter::successors(Some(path), parent).find_map(|path| self.refused.get(path)).map(String::as_str)
    }

    /// Gives controllers on, from our root down to the parent of `path`, once each.
    fn enable_controllers(&mut self, path: &str, needed: Controllers) {
        let needed = needed.within(self.controllers);
        let parents = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        for parent in parents {
            let given = self.giving.get(parent).copied().unwrap_or_default();
            let missing = needed.without(given);
            if missing.is_empty() {
                continue;
            }
            let file = format!("{}/cgroup.subtree_control", self.directory(parent));
            for controller in missing.names() {
                let _ = fs::write(&file, format!("+{controller}"));
            }
            self.giving.insert(parent.to_owned(), given.and(missing));
        }
    }

    /// A unit may need less than before: what nothing below a slice needs any more is not given on.
    fn take_back(&mut self, path: &str, needed: Controllers) {
        let old = self.needs.insert(path.to_owned(), needed).unwrap_or_default();
        let dropped = old.without(needed);
        if dropped.is_empty() || !self.knows_all {
            return;
        }
        let parents: Vec<&str> = path.match_indices('/').filter_map(|(at, _)| path.get(..at)).collect();
        for parent in parents.into_iter().rev() {
            let below = |other: &str| other.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'));
            let others = self.needs.iter().filter(|(other, _)| below(other));
            let needed = others.fold(Controllers::default(), |all, (_, more)| all.and(*more));
            let dropped = dropped.without(needed);
            if let Some(given) = self.giving.get_mut(parent) {
                *given = given.without(dropped);
            }
            let file = format!("{}/cgroup.subtree_control", self.directory(parent));
            for controller in dropped.names() {
                let _ = fs::write(&file, format!("-{controller}"));
            }
        }
    }

    /// Which controllers the units of cgroups need, for the program that goes on; nothing where not all of it is known.
    pub fn needs(&self) -> Option<Vec<(String, Vec<String>)>> {
        let names = |needed: &Controllers| needed.names().map(str::to_owned).collect();
        self.knows_all
            .then(|| self.needs.iter().map(|(path, needed)| (path.clone(), names(needed))).collect())
    }

    /// Goes on with cgroups that are there. Where it is not known what their units need, nothing is taken back from now on.
    pub fn go_on(&mut self, needs: Option<Vec<(String, Vec<String>)>>) {
        self.knows_all = needs.is_some();
        let needed = |names: Vec<String>| Controllers::named(names.iter().map(String::as_str));
        self.needs = needs.into_iter().flatten().map(|(path, names)| (path, needed(names))).collect();
    }

    /// Gives controllers on no more, from the lowest slices up to `path`: who has children that use one cannot let go of it.
    fn disable_controllers(&mut self, path: &str, disabled: Controllers) {
        if disabled.is_empty() {
            return;
        }
        for at in self.slices(path).into_iter().rev() {
            if let Some(given) = self.giving.get_mut(&at) {
                *given = given.without(disabled);
            }
            let file = format!("{}/cgroup.subtree_control", self.directory(&at));
            let now = reading::whole(&file).unwrap_or_default();
            let now = Controllers::named(now.split_whitespace());
            for controller in now.within(disabled).names() {
                let _ = fs::write(&file, format!("-{controller}"));
            }
        }
    }

    /// An extended attribute of a cgroup, for others to read. The cgroup stays open until [`Tree::let_go`]: the kernel finds
    /// its way there once for all attributes, and for the process that is started there.
    pub fn set_attribute(&mut self, path: &str, name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
        let directory = match self.marked.take().filter(|(marked, _)| marked == path) {
            Some((_, directory)) => directory,
            None => self.open_dir(path)?,
        };
        let (_, directory) = self.marked.insert((path.to_owned(), directory));
        muster_sys::set_xattr(directory.as_fd(), name, value)
    }

    /// Holds no cgroup open any more, and takes none for removed.
    pub fn let_go(&mut self) {
        self.marked = None;
        self.removed = None;
    }

    /// Puts a cgroup, and whom its processes run as, in these sets of nftables and in no others (`NFTSet=`). What is there
    /// already is put there anew: the sets may have been made anew.
    pub fn fill_sets(
        &mut self,
        path: &str,
        sets: &[NftSet],
        runs_as: Option<(u32, u32)>,
    ) -> Result<(), String> {
        let cgroup = self.id(path).unwrap_or(0);
        let wanted = sets.iter().filter_map(|set| sets::Element::of(set, cgroup, runs_as));
        let wanted: Vec<sets::Element> = wanted.collect();
        let old = self.sets.remove(path).unwrap_or_default();
        old.iter().filter(|element| !wanted.contains(element)).for_each(sets::Element::delete);
        let mut failed = Ok(());
        for element in &wanted {
            failed = element.add().map_err(|error| format!("NFTSet=: {error}")).and(failed);
        }
        if !wanted.is_empty() {
            self.sets.insert(path.to_owned(), wanted);
        }
        failed
    }

    /// A descriptor of the directory, for starting a process in it.
    pub fn open_dir(&self, path: &str) -> io::Result<OwnedFd> {
        fs::File::open(self.directory(path)).map(OwnedFd::from)
    }

    /// The same, made if it is not there: the part of a delegated cgroup that holds what runs beside the main process.
    pub fn open_or_make(&mut self, path: &str) -> io::Result<OwnedFd> {
        if let Some((_, directory)) = self.marked.take().filter(|(marked, _)| marked == path) {
            return Ok(directory);
        }
        match self.open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.removed = None;
                fs::create_dir(self.directory(path))?;
                self.open_dir(path)
            }
            done => done,
        }
    }

    /// Moves a process.
    pub fn attach(&mut self, path: &str, pid: u32) -> Result<(), String> {
        if let Some(kin) = &mut self.kin {
            kin.add(path, pid, None);
            return Ok(());
        }
        fs::write(format!("{}/cgroup.procs", self.directory(path)), pid.to_string())
            .map_err(|error| error.to_string())
    }

    /// Signals every process at and below a cgroup but those in `except`, and never this one. False when it holds none.
    pub fn kill(&mut self, path: &str, signal: i32, except: &[u32], send_cont: bool, send_hup: bool) -> bool {
        if self.population(path) == Population::Empty {
            return false;
        }
        let holds_us = path.is_empty() || path == "/init.scope";
        // What stands still cannot fork while it is killed. `cgroup.kill` would also kill what is cloned into the cgroup later
        // (Linux 6.18): ExecStopPost= after a SIGKILL.
        let frozen = signal == Signal::SIGKILL as i32 && !holds_us && self.freeze(path, true).is_ok();
        let signals = [
            Some(signal),
            send_cont.then_some(Signal::SIGCONT as i32),
            send_hup.then_some(Signal::SIGHUP as i32),
        ];
        let signals: Vec<i32> = signals.into_iter().flatten().collect();
        let mut told: BTreeSet<u32> = except.iter().copied().chain([std::process::id()]).collect();
        for _ in 0..ROUNDS_MAX {
            let new: Vec<(String, u32)> =
                self.processes(path).into_iter().filter(|(_, pid)| told.insert(*pid)).collect();
            if new.is_empty() {
                break;
            }
            if let Some(kin) = &mut self.kin {
                kin.remember(&new);
            }
            for (_, pid) in new {
                self.signal(path, pid, &signals);
            }
        }
        if frozen {
            let _ = self.freeze(path, false);
        }
        self.population(path) != Population::Empty
    }

    /// Signals one process by pidfd, if it is still in the cgroup once it is held: its number may be another's by then.
    fn signal(&self, path: &str, pid: u32, signals: &[i32]) {
        let Ok(pidfd) = muster_sys::pidfd_open(pid) else { return };
        let inside = |cgroup: String| {
            cgroup.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let of = self.kin.as_ref().map_or_else(|| self.of_process(pid), |kin| kin.claimed_by(pid));
        if of.is_some_and(inside) {
            for signal in signals {
                let _ = muster_sys::pidfd_send_signal(pidfd.as_fd(), *signal);
            }
        }
    }

    /// Whether any process is at or below a cgroup.
    pub fn population(&mut self, path: &str) -> Population {
        if let Some(kin) = &self.kin {
            return kin.population(path);
        }
        // Two short lines; one read gives them whole.
        let mut text = [0_u8; 256];
        let read = fs::File::open(format!("{}/cgroup.events", self.directory(path)))
            .and_then(|mut file| file.read(&mut text));
        let says = |text: &[u8], word: &[u8]| text.split(|byte| *byte == b'\n').any(|line| line == word);
        let found = match read {
            Ok(length) => match text.get(..length) {
                Some(text) if says(text, b"populated 1") => Population::Populated,
                Some(text) if says(text, b"populated 0") => Population::Empty,
                _ => Population::Unknown,
            },
            // The directory is gone, before or after the file was opened.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Population::Empty,
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Population::Empty,
            Err(_) => Population::Unknown,
        };
        if found == Population::Unknown {
            self.uncertain.insert(path.to_owned());
        }
        found
    }

    /// Whether some cgroup is to be asked for from time to time.
    pub fn is_uncertain(&self) -> bool {
        !self.uncertain.is_empty()
    }

    /// Those, to be looked at now. They are watched again where that works.
    pub fn take_uncertain(&mut self) -> Vec<String> {
        let all: Vec<String> = std::mem::take(&mut self.uncertain).into_iter().collect();
        all.iter().for_each(|path| self.watch(path));
        self.bury(all)
    }

    /// (cgroup below our root, process) for all at and below a cgroup.
    pub fn processes(&self, path: &str) -> Vec<(String, u32)> {
        if let Some(kin) = &self.kin {
            return kin.processes(path);
        }
        let mut found = Vec::new();
        for cgroup in self.walk(path) {
            let text =
                fs::read_to_string(format!("{}/cgroup.procs", self.directory(&cgroup))).unwrap_or_default();
            // 0 is a process of another pid namespace: nothing that could be named here.
            found.extend(
                text.lines()
                    .filter_map(|line| line.parse().ok())
                    .filter(|pid| *pid != 0)
                    .map(|pid| (cgroup.clone(), pid)),
            );
        }
        found
    }

    /// A cgroup and all below it, parents first.
    fn walk(&self, path: &str) -> Vec<String> {
        self.walk_into(path, |_| true)
    }

    /// A cgroup and the slices below it, parents first. What is delegated is not looked into.
    fn slices(&self, path: &str) -> Vec<String> {
        self.walk_into(path, |name| name.ends_with(".slice"))
    }

    fn walk_into(&self, path: &str, enters: impl Fn(&str) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        let mut stack = vec![path.to_owned()];
        while let Some(at) = stack.pop() {
            if found.len() >= WALK_MAX {
                break;
            }
            for entry in fs::read_dir(self.directory(&at)).into_iter().flatten().filter_map(Result::ok) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if let Some(name) = entry.file_name().into_string().ok().filter(|name| enters(name)) {
                        stack.push(format!("{at}/{name}"));
                    }
                }
            }
            found.push(at);
        }
        found
    }

    /// Removes a cgroup and all below it: at once, or when the last process in it ends.
    pub fn remove(&mut self, path: &str) {
        self.needs.remove(path);
        self.refused.remove(path);
        self.sets.remove(path).iter().flatten().for_each(sets::Element::delete);
        if let Some(kin) = &mut self.kin {
            return kin.remove(path);
        }
        let removed = self.removed.take().is_some_and(|removed| removed == path);
        if removed || path.is_empty() || self.try_to_remove(path) {
            return self.unwatch(path);
        }
        self.condemned.insert(path.to_owned());
        self.watch(path);
        // It may have become empty before it was watched.
        if self.population(path) == Population::Empty && self.try_to_remove(path) {
            self.condemned.remove(path);
            self.unwatch(path);
        }
    }

    /// What waits to be removed.
    pub fn condemned(&self) -> Vec<String> {
        self.condemned.iter().cloned().collect()
    }

    /// Removes a cgroup that holds nothing, by one call that also tells whether it does.
    pub fn remove_if_empty(&mut self, path: &str) -> bool {
        if let Some(kin) = &mut self.kin {
            return kin.remove_if_empty(path);
        }
        self.giving.remove(path);
        self.let_go();
        let gone = !path.is_empty() && fs::remove_dir(self.directory(path)).is_ok();
        if gone {
            self.forget_oom(path);
            self.unwatch(path);
            self.removed = Some(path.to_owned());
        }
        gone
    }

    /// Removes a cgroup and the empty ones below it. What holds processes stays, and is false.
    fn try_to_remove(&mut self, path: &str) -> bool {
        self.giving.remove(path);
        self.forget_oom(path);
        self.marked = None;
        let gone = |done: io::Result<()>| {
            done.map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true)
        };
        if gone(fs::remove_dir(self.directory(path))) {
            return true;
        }
        let mut last = false;
        for at in self.walk(path).into_iter().rev() {
            last = gone(fs::remove_dir(self.directory(&at)));
        }
        last
    }

    /// Freezes or thaws.
    pub fn freeze(&self, path: &str, freeze: bool) -> Result<(), String> {
        fs::write(format!("{}/cgroup.freeze", self.directory(path)), if freeze { "1" } else { "0" })
            .map_err(|error| error.to_string())
    }

    /// The cgroup of a process, below our root.
    pub fn of_process(&self, pid: u32) -> Option<String> {
        if let Some(kin) = &self.kin {
            return kin.of(pid);
        }
        let own = own_cgroup(&reading::whole(&format!("/proc/{pid}/cgroup"))?)?;
        own.strip_prefix(self.root.as_str()).map(str::to_owned)
    }

    /// What was received (`Hook::Ingress`) or sent (`Hook::Egress`); nothing where nobody counts.
    fn traffic(&self, path: &str, hook: Hook) -> Option<Counted> {
        traffic::counted(self.open_dir(path).ok()?.as_fd(), hook)
    }

    /// What was received; nothing where nobody counts.
    pub fn received(&self, path: &str) -> Option<Counted> {
        self.traffic(path, Hook::Ingress)
    }

    /// What was sent; nothing where nobody counts.
    pub fn sent(&self, path: &str) -> Option<Counted> {
        self.traffic(path, Hook::Egress)
    }

    /// The kernel's number of a cgroup.
    pub fn id(&self, path: &str) -> Option<u64> {
        fs::metadata(self.directory(path)).ok().map(|metadata| std::os::unix::fs::MetadataExt::ino(&metadata))
    }

    /// Tells of emptiness from now on.
    pub fn watch(&mut self, path: &str) {
        if let Some(kin) = &mut self.kin {
            return kin.watch(path);
        }
        if self.by_path.contains_key(path) {
            return;
        }
        let file = format!("{}/cgroup.events", self.directory(path));
        match self.events.add_watch(file.as_str(), AddWatchFlags::IN_MODIFY) {
            Ok(descriptor) => {
                self.watched.insert(descriptor, path.to_owned());
                self.by_path.insert(path.to_owned(), descriptor);
            }
            // What is gone is empty; whoever watches looks after this.
            Err(nix::errno::Errno::ENOENT) => {}
            Err(_) => {
                self.uncertain.insert(path.to_owned());
            }
        }
    }

    /// Stops telling.
    pub fn unwatch(&mut self, path: &str) {
        if let Some(kin) = &mut self.kin {
            kin.unwatch(path);
        }
        self.uncertain.remove(path);
        if let Some(descriptor) = self.by_path.remove(path) {
            self.watched.remove(&descriptor);
            let _ = self.events.rm_watch(descriptor);
        }
    }

    /// Cgroups whose events changed since the last call; whether they are empty is to be looked at then. When the kernel
    /// dropped events, these are all that are watched.
    pub fn drain(&mut self) -> Vec<String> {
        if let Some(kin) = &mut self.kin {
            return kin.drain();
        }
        let mut changed = BTreeSet::new();
        while let Ok(events) = self.events.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    changed.extend(self.by_path.keys().cloned());
                    self.oom.note_all();
                } else if !self.oom.note(event.wd) {
                    changed.extend(self.watched.get(&event.wd).cloned());
                }
            }
        }
        self.bury(changed.into_iter().collect())
    }

    /// Removes those of the changed cgroups that only waited for that; one that still holds processes is not told of.
    fn bury(&mut self, changed: Vec<String>) -> Vec<String> {
        let (condemned, mut told): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|path| self.condemned.contains(path));
        for path in condemned {
            if self.population(&path) == Population::Empty && self.try_to_remove(&path) {
                self.condemned.remove(&path);
                self.unwatch(&path);
                told.push(path);
            }
        }
        told
    }
}

/// The cgroup2 line of a /proc/PID/cgroup.
fn own_cgroup(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    Some(if path == "/" { String::new() } else { path.to_owned() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
