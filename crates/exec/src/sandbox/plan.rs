//! The plan of a mount namespace: settings in, an ordered list of places out. Pure; paths are made canonical in between by
//! the caller, once.
//!
//! Rules: of two settings for one place the stricter wins (inaccessible, read-only, read-write); a longer path wins over a
//! shorter one; nothing below an inaccessible place is looked at; a place that changes nothing of what holds above it is
//! left out.

use crate::journal;
use crate::steps::bpf::delegation;
use muster_unit::{
    BindPath, ExecSection, ImageOption, MarkedPath, MountFlags, MountImage, PrivateTmp, ProcSubset,
    ProtectControlGroups, ProtectHome, ProtectProc, ProtectSystem, TemporaryMount,
};
use std::fmt;

/// What else is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Where the unit's private `/tmp` and `/var/tmp` are on the host.
    pub private_tmp: Option<(String, String)>,
    /// A network namespace of its own, for which `/sys` is mounted anew.
    pub own_network: bool,
    /// Where the unit's credentials are; those of others are hidden.
    pub credentials: Option<String>,
    /// The process tells the manager how it is.
    pub notifies: bool,
    /// An IPC namespace of its own, for which `/dev/mqueue` is mounted anew.
    pub own_ipc: bool,
    /// What `PrivateBPF=` mounts is replaced once the user namespace is there that it delegates to.
    pub delegates_later: bool,
}

/// Whether a place can be written, from lax to strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// As the file system is.
    ReadWrite,
    /// It cannot be written.
    ReadOnly,
    /// It cannot be seen.
    Inaccessible,
}

/// What is put at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// Another place of the host.
    Bind {
        /// The path of the source.
        source: String,
        /// With all that is mounted below it.
        recursive: bool,
        /// It may be missing.
        optional: bool,
    },
    /// An empty file system in memory, with options of tmpfs(5).
    Memory(String),
    /// The few devices that every program expects.
    Devices,
    /// procfs, with `hidepid=` and `subset=`.
    Processes {
        /// `hidepid=`.
        hide: Option<&'static str>,
        /// `subset=pid`.
        only_processes: bool,
    },
    /// sysfs of the process's network namespace.
    System,
    /// Message queues of the process's IPC namespace.
    Queues,
    /// A place of its own to pin BPF programs and maps at, with these options.
    Pinned(Vec<(&'static str, String)>),
    /// The cgroup tree of the process's cgroup namespace.
    ControlGroups,
    /// The file systems of an image.
    Image {
        /// The path of the image on the host.
        source: String,
        /// It may be missing.
        optional: bool,
        /// How its partitions are mounted.
        options: Vec<ImageOption>,
    },
    /// What extensions add to what is here, by its number among the overlays.
    Overlay(usize),
    /// What was mounted here before something above was mounted anew.
    Kept,
}

/// One wish for one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The absolute path.
    pub path: String,
    /// It is nothing when the path is missing.
    pub optional: bool,
    /// The directive it comes from, for messages.
    pub directive: &'static str,
    /// What is to be put there.
    pub mount: Option<Mount>,
    /// How it can be accessed.
    pub access: Option<Access>,
    /// Whether its programs can be executed.
    pub execute: Option<bool>,
}

/// One place of the final list: what it is made to be, all wishes and all that holds above it taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The canonical path.
    pub path: String,
    /// The directive, for messages.
    pub directive: &'static str,
    /// What is put there; else the place itself is given new attributes.
    pub mount: Option<Mount>,
    /// Access.
    pub access: Access,
    /// Whether its programs can be executed.
    pub execute: bool,
    /// Something is put above it, so that the host's path does not lead there.
    pub covered: bool,
    /// It is nothing when the path is missing.
    pub optional: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::ReadWrite => "rw",
            Access::ReadOnly => "ro",
            Access::Inaccessible => "none",
        };
        write!(out, "{} {access}", self.path)?;
        if !self.execute {
            write!(out, " noexec")?;
        }
        if let Some(mount) = &self.mount {
            write!(out, " {mount:?}")?;
        }
        if self.covered { write!(out, " covered") } else { Ok(()) }
    }
}

/// Whether the settings ask for a mount namespace.
pub fn is_needed(exec: &ExecSection) -> bool {
    exec.private_mounts() == Some(true)
        || exec.has_own_root()
        || !exec.extension_images().is_empty()
        || !exec.extension_directories().is_empty()
        || exec.mount_flags().is_some_and(|flags| flags != MountFlags::Shared)
        || exec.mount_api_vfs() == Some(true)
        || exec.bind_log_sockets() == Some(true)
        || exec.private_network()
        || exec.network_namespace_path().is_some()
        || exec.private_ipc()
        || exec.ipc_namespace_path().is_some()
        || !entries(exec, &Facts::default()).is_empty()
}

/// The settings as they hold for a command with `+`: what is mounted by name, and nothing that only confines.
pub fn without_confinement(exec: &ExecSection) -> ExecSection {
    let mut exec = exec.clone();
    let mut edit = exec.edit();
    edit.read_write_paths().clear();
    edit.read_only_paths().clear();
    edit.inaccessible_paths().clear();
    edit.exec_paths().clear();
    edit.no_exec_paths().clear();
    *edit.protect_system() = ProtectSystem::No;
    *edit.protect_home() = ProtectHome::No;
    *edit.protect_kernel_tunables() = false;
    *edit.protect_kernel_modules() = false;
    *edit.protect_kernel_logs() = false;
    *edit.protect_control_groups() = ProtectControlGroups::No;
    *edit.protect_proc() = ProtectProc::Default;
    *edit.proc_subset() = ProcSubset::All;
    *edit.private_pids() = false;
    *edit.private_tmp() = PrivateTmp::No;
    *edit.private_devices() = false;
    *edit.private_bpf() = false;
    *edit.log_namespace() = None;
    *edit.mount_api_vfs() = Some(false);
    *edit.bind_log_sockets() = Some(false);
    drop(edit);
    exec
}

/// Whether a service does the same without the namespace: it only confines, and shows no other files.
pub fn can_be_left_out(exec: &ExecSection) -> bool {
    !exec.dynamic_user()
        && !exec.has_own_root()
        && exec.extension_images().is_empty()
        && exec.extension_directories().is_empty()
        && exec.mount_images().is_empty()
        && exec.bind_paths().is_empty()
        && exec.bind_read_only_paths().is_empty()
        && exec.temporary_file_system().is_empty()
}

fn marks(
    list: &mut Vec<Entry>,
    directive: &'static str,
    paths: &[&str],
    access: Option<Access>,
    execute: Option<bool>,
) {
    list.extend(paths.iter().map(|path| Entry {
        path: (*path).to_owned(),
        optional: true,
        directive,
        mount: None,
        access,
        execute,
    }));
}

fn mounts(list: &mut Vec<Entry>, directive: &'static str, path: &str, access: Access, mount: Mount) {
    list.push(Entry {
        path: path.to_owned(),
        optional: true,
        directive,
        mount: Some(mount),
        access: (access != Access::ReadWrite).then_some(access),
        execute: None,
    });
}

/// `ReadOnlyPaths=` and kin: `-` for what may be missing, `+` for a path below the root directory.
fn listed(
    list: &mut Vec<Entry>,
    exec: &ExecSection,
    directive: &'static str,
    paths: &[MarkedPath],
    access: Option<Access>,
    execute: Option<bool>,
) {
    for path in paths {
        let MarkedPath { optional, in_root, path } = path;
        let (optional, path) = (*optional, if *in_root { below_root(exec, path) } else { path.0.clone() });
        list.push(Entry { path, optional, directive, mount: None, access, execute });
    }
}

/// A path of the unit's root directory as a path of the host.
fn below_root(exec: &ExecSection, path: &str) -> String {
    let root = exec.root_directory().as_deref().unwrap_or("").trim_end_matches('/');
    if path == "/" && !root.is_empty() { root.to_owned() } else { format!("{root}{path}") }
}

/// `BindPaths=source:destination:options`.
fn binds(list: &mut Vec<Entry>, exec: &ExecSection, read_only: bool) {
    let (directive, lines, access) = if read_only {
        ("BindReadOnlyPaths=", exec.bind_read_only_paths(), Some(Access::ReadOnly))
    } else {
        ("BindPaths=", exec.bind_paths(), None)
    };
    for BindPath { source, destination, optional, recursive } in lines {
        let mount = Mount::Bind { source: source.0.clone(), recursive: *recursive, optional: *optional };
        let path = below_root(exec, destination);
        list.push(Entry { path, optional: false, directive, mount: Some(mount), access, execute: None });
    }
}

const HOME: &[&str] = &["/home", "/root", "/run/user"];
/// All that is below the kernel's own file systems.
const TUNABLES: &[&str] = &[
    "/proc/acpi",
    "/proc/apm",
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/latency_stats",
    "/proc/mtrr",
    "/proc/scsi",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/timer_stats",
    "/sys",
];

/// All that the settings ask for, in no order.
pub fn entries(exec: &ExecSection, facts: &Facts) -> Vec<Entry> {
    use Access::{Inaccessible, ReadOnly, ReadWrite};
    let mut list = Vec::new();
    let all = &mut list;
    listed(all, exec, "ReadWritePaths=", exec.read_write_paths(), Some(ReadWrite), None);
    listed(all, exec, "ReadOnlyPaths=", exec.read_only_paths(), Some(ReadOnly), None);
    listed(all, exec, "InaccessiblePaths=", exec.inaccessible_paths(), Some(Inaccessible), None);
    listed(all, exec, "ExecPaths=", exec.exec_paths(), None, Some(true));
    listed(all, exec, "NoExecPaths=", exec.no_exec_paths(), None, Some(false));
    binds(all, exec, false);
    binds(all, exec, true);
    for TemporaryMount { path, options } in exec.temporary_file_system() {
        let options = format!("mode=0755,size=10%,nr_inodes=400k,{options}");
        let read_only = options.split(',').any(|option| option == "ro");
        let access = if read_only { ReadOnly } else { ReadWrite };
        let path = below_root(exec, path);
        mounts(all, "TemporaryFileSystem=", &path, access, Mount::Memory(options));
    }
    for MountImage { source, destination, optional, options } in exec.mount_images() {
        let (source, options) = (source.0.clone(), options.clone());
        let mount = Mount::Image { source, optional: *optional, options };
        let (path, directive) = (below_root(exec, destination), "MountImages=");
        all.push(Entry { path, optional: false, directive, mount: Some(mount), access: None, execute: None });
    }
    let mut own = Vec::new();
    protected(&mut own, exec);
    private(&mut own, exec, facts);
    api(&mut own, exec, facts);
    for mut entry in own {
        entry.path = below_root(exec, &entry.path);
        all.push(entry);
    }
    list
}

/// `Protect*=`.
fn protected(all: &mut Vec<Entry>, exec: &ExecSection) {
    use Access::{Inaccessible, ReadOnly, ReadWrite};
    let system = "ProtectSystem=";
    match exec.protect_system() {
        ProtectSystem::No => {}
        ProtectSystem::Yes => marks(all, system, &["/usr", "/boot", "/efi"], Some(ReadOnly), None),
        ProtectSystem::Full => marks(all, system, &["/usr", "/boot", "/efi", "/etc"], Some(ReadOnly), None),
        ProtectSystem::Strict => {
            marks(all, system, &["/"], Some(ReadOnly), None);
            marks(all, system, &["/proc", "/sys", "/dev"], Some(ReadWrite), None);
            marks(all, system, HOME, Some(ReadWrite), None);
        }
    }
    let home = "ProtectHome=";
    match exec.protect_home() {
        ProtectHome::No => {}
        ProtectHome::Yes => marks(all, home, HOME, Some(Inaccessible), None),
        ProtectHome::ReadOnly => marks(all, home, HOME, Some(ReadOnly), None),
        ProtectHome::Tmpfs => {
            for path in HOME {
                let mode = if *path == "/root" { "0700" } else { "0755" };
                let options = format!("mode={mode},size=4m,nr_inodes=1k");
                mounts(all, home, path, ReadOnly, Mount::Memory(options));
            }
        }
    }
    if exec.protect_kernel_tunables() {
        let name = "ProtectKernelTunables=";
        marks(all, name, TUNABLES, Some(ReadOnly), None);
        marks(all, name, &["/sys/fs/cgroup", "/sys/fs/fuse/connections"], Some(ReadWrite), None);
        marks(all, name, &["/proc/kallsyms", "/proc/kcore"], Some(Inaccessible), None);
    }
    if exec.protect_kernel_modules() {
        marks(all, "ProtectKernelModules=", &["/usr/lib/modules"], Some(Inaccessible), None);
    }
    if exec.protect_kernel_logs() {
        marks(all, "ProtectKernelLogs=", &["/proc/kmsg", "/dev/kmsg"], Some(Inaccessible), None);
    }
    let groups = "ProtectControlGroups=";
    match exec.protect_control_groups() {
        ProtectControlGroups::No => {}
        ProtectControlGroups::Yes => marks(all, groups, &["/sys/fs/cgroup"], Some(ReadOnly), None),
        ProtectControlGroups::Private => {
            mounts(all, groups, "/sys/fs/cgroup", ReadWrite, Mount::ControlGroups);
        }
        ProtectControlGroups::Strict => {
            mounts(all, groups, "/sys/fs/cgroup", ReadOnly, Mount::ControlGroups);
        }
    }
    let hide = match exec.protect_proc() {
        ProtectProc::Default => None,
        ProtectProc::NoAccess => Some("noaccess"),
        ProtectProc::Invisible => Some("invisible"),
        ProtectProc::Ptraceable => Some("ptraceable"),
    };
    let only_processes = exec.proc_subset() == ProcSubset::Pid;
    if hide.is_some() || only_processes || exec.private_pids() {
        let name = match (hide, only_processes) {
            (Some(_), _) => "ProtectProc=",
            (None, true) => "ProcSubset=",
            (None, false) => "PrivatePIDs=",
        };
        mounts(all, name, "/proc", ReadWrite, Mount::Processes { hide, only_processes });
    }
}

/// `Private*=`, and directories of the unit, which can be written whatever protects what is above them.
fn private(all: &mut Vec<Entry>, exec: &ExecSection, facts: &Facts) {
    use Access::ReadWrite;
    let bind = |source: &str| Mount::Bind { source: source.to_owned(), recursive: false, optional: false };
    match (exec.private_tmp(), &facts.private_tmp) {
        (PrivateTmp::No, _) => {}
        (PrivateTmp::Disconnected, _) | (PrivateTmp::Connected, None) => {
            for path in ["/tmp", "/var/tmp"] {
                let options = "mode=1777,size=10%,nr_inodes=400k".to_owned();
                mounts(all, "PrivateTmp=", path, ReadWrite, Mount::Memory(options));
            }
        }
        (PrivateTmp::Connected, Some((tmp, var_tmp))) => {
            mounts(all, "PrivateTmp=", "/tmp", ReadWrite, bind(tmp));
            mounts(all, "PrivateTmp=", "/var/tmp", ReadWrite, bind(var_tmp));
        }
    }
    if exec.log_namespace().is_some() {
        let mount = Mount::Bind { source: journal::directory(exec), recursive: true, optional: false };
        mounts(all, "LogNamespace=", journal::SYSTEM, Access::ReadOnly, mount);
    }
    if exec.private_devices() {
        mounts(all, "PrivateDevices=", "/dev", ReadWrite, Mount::Devices);
    }
    if let Some(credentials) = &facts.credentials {
        let name = "LoadCredential=";
        let options = "mode=0755,size=4m,nr_inodes=1024,nosuid,noexec".to_owned();
        mounts(all, name, "/run/credentials", Access::ReadOnly, Mount::Memory(options));
        mounts(all, name, credentials, Access::ReadOnly, bind(credentials));
    }
    if facts.own_network {
        mounts(all, "PrivateNetwork=", "/sys", ReadWrite, Mount::System);
    }
    if exec.private_bpf() {
        let options = if facts.delegates_later { Vec::new() } else { delegation(exec) };
        mounts(all, "PrivateBPF=", "/sys/fs/bpf", ReadWrite, Mount::Pinned(options));
    }
    if facts.own_ipc {
        mounts(all, "PrivateIPC=", "/dev/mqueue", ReadWrite, Mount::Queues);
    }
    let kept = [
        ("StateDirectory=", "/var/lib", exec.state_directory()),
        ("CacheDirectory=", "/var/cache", exec.cache_directory()),
        ("LogsDirectory=", "/var/log", exec.logs_directory()),
    ];
    // Of what no other user gets at, those of this unit are seen.
    for (directive, base, list) in
        kept.into_iter().filter(|(.., list)| exec.dynamic_user() && !list.is_empty())
    {
        let top = format!("{base}/{}", crate::steps::directories::PRIVATE);
        let options = "mode=0755,size=4m,nr_inodes=1024,nosuid,nodev,noexec".to_owned();
        mounts(all, directive, &top, Access::ReadOnly, Mount::Memory(options));
        for directory in list {
            let path = format!("{top}/{}", directory.path);
            mounts(all, directive, &path, ReadWrite, bind(&path));
        }
    }
    let strict = exec.protect_system() == ProtectSystem::Strict || !exec.read_only_paths().is_empty();
    let owned = [
        ("RuntimeDirectory=", "/run", exec.runtime_directory()),
        ("StateDirectory=", "/var/lib", exec.state_directory()),
        ("CacheDirectory=", "/var/cache", exec.cache_directory()),
        ("LogsDirectory=", "/var/log", exec.logs_directory()),
        ("ConfigurationDirectory=", "/etc", exec.configuration_directory()),
    ];
    let is_open = |base: &str| !exec.dynamic_user() || ["/run", "/etc"].contains(&base);
    for (directive, base, directories) in owned.iter().filter(|(_, base, _)| strict && is_open(base)) {
        for directory in directories.iter() {
            marks(all, directive, &[&format!("{base}/{}", directory.path)], Some(ReadWrite), None);
        }
    }
}

/// `MountAPIVFS=`, for a root directory of its own, and the sockets of the log there.
fn api(all: &mut Vec<Entry>, exec: &ExecSection, facts: &Facts) {
    use Access::{ReadOnly, ReadWrite};
    let host = |source: &str, optional| Mount::Bind { source: source.to_owned(), recursive: true, optional };
    let name = "MountAPIVFS=";
    let wanted = exec.mount_api_vfs().unwrap_or(exec.root_directory().is_some()) || exec.private_pids();
    let first = all.len();
    let rooted = exec.root_directory().as_deref().is_some_and(|root| root != "/");
    if wanted && rooted {
        if !all.iter().any(|entry| entry.path == "/proc" && entry.mount.is_some()) {
            mounts(all, name, "/proc", ReadWrite, Mount::Processes { hide: None, only_processes: false });
        }
        if !all.iter().any(|entry| entry.path == "/sys" && entry.mount.is_some()) {
            mounts(all, name, "/sys", ReadWrite, host("/sys", false));
        }
        if !exec.private_devices() {
            mounts(all, name, "/dev", ReadWrite, host("/dev", false));
        }
        mounts(
            all,
            name,
            "/run",
            ReadWrite,
            Mount::Memory("mode=0755,size=20%,nr_inodes=800k,nosuid".to_owned()),
        );
    }
    // The root may not have directories for them yet.
    all.iter_mut().skip(first).for_each(|entry| entry.optional = false);
    if rooted && wanted {
        mounts(all, "RootDirectory=", "/run/host/os-release", ReadOnly, host("/etc/os-release", true));
    }
    if rooted && facts.notifies {
        mounts(all, "NotifyAccess=", "/run/systemd/notify", ReadWrite, host("/run/systemd/notify", true));
    }
    if rooted && exec.bind_log_sockets().unwrap_or(wanted) {
        for socket in ["dev-log", "socket", "stdout"] {
            let path = format!("{}/{socket}", journal::SYSTEM);
            let source = format!("{}/{socket}", journal::directory(exec));
            mounts(all, "BindLogSockets=", &path, ReadOnly, host(&source, true));
        }
    }
}

/// Whether `path` is `above` or lies below it.
pub fn is_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The final list, parents first, of entries whose paths are canonical.
pub fn arrange(mut entries: Vec<Entry>) -> Vec<Place> {
    // By component, so that all below a place follow it at once.
    let key = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    entries.sort_by_cached_key(|entry| key(entry.path.trim_end_matches('/')));
    let mut merged: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        match merged.last_mut().filter(|last| last.path == entry.path) {
            None => merged.push(entry),
            Some(last) => {
                if entry.access > last.access {
                    last.directive = entry.directive;
                }
                last.optional &= entry.optional;
                last.access = last.access.max(entry.access);
                last.execute = match (last.execute, entry.execute) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (one, other) => one.or(other),
                };
                let kept = matches!(last.mount, None | Some(Mount::Kept));
                last.mount = if kept { entry.mount.or(last.mount.take()) } else { last.mount.take() };
            }
        }
    }
    let mut places: Vec<Place> = Vec::with_capacity(merged.len());
    let mut above: Vec<(String, Access, bool, bool)> = Vec::new();
    for entry in merged {
        while above.last().is_some_and(|(path, ..)| !is_below(&entry.path, path)) {
            above.pop();
        }
        let top = above.last();
        let (access, execute, covered) =
            top.map_or((Access::ReadWrite, true, false), |top| (top.1, top.2, top.3));
        if access == Access::Inaccessible {
            continue;
        }
        let fresh = entry.mount.as_ref().is_some_and(|mount| *mount != Mount::Kept);
        let base = if fresh { Access::ReadWrite } else { access };
        let place = Place {
            access: entry.access.unwrap_or(base),
            execute: entry.execute.unwrap_or(execute),
            covered,
            optional: entry.optional,
            path: entry.path,
            directive: entry.directive,
            mount: entry.mount.filter(|_| entry.access != Some(Access::Inaccessible)),
        };
        let covers = covered || fresh;
        // Where the host's path does not lead, the place has to be looked for to know whether it is missing.
        let may_be_missing = entry.optional || !covered;
        if place.mount.is_none() && place.access == access && place.execute == execute && may_be_missing {
            continue;
        }
        above.push((place.path.clone(), place.access, place.execute, covers));
        places.push(place);
    }
    places
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
