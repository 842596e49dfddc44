//! Carries a plan out in a mount namespace of this process's own, by descriptors.
//!
//! Every path is looked up once, before anything changes, and is canonical from then on; it is never followed through a
//! symbolic link a second time, so that nobody can swap one under it. Trees that get new attributes are taken before
//! anything changes as well: so they have the attributes of the host below them, and nothing that was read-only before
//! becomes writable.

use super::plan::{Access, Entry, Facts, Mount, Place, arrange, entries, is_below};
use crate::image;
use crate::steps::{About, Done, Failed, failed};
use muster_unit::{ExecSection, ImagePolicy, MountFlags};
use nix::errno::Errno;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::collections::BTreeMap;

const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// Makes the mount namespace that the settings ask for.
pub fn carry_out(exec: &ExecSection, facts: &Facts) -> Done {
    own_namespace()?;
    let rooted = image::root(exec)?;
    let exec = rooted.as_ref().unwrap_or(exec);
    let root = own_root(exec)?;
    let mut overlays = Vec::new();
    let mut entries = entries(exec, facts);
    for (path, tree, directive) in image::extension::overlays(exec, root.as_deref())? {
        let mount = Some(Mount::Overlay(overlays.len()));
        overlays.push(tree);
        let access = Some(Access::ReadOnly);
        entries.push(Entry { path, optional: false, directive, mount, access, execute: None });
    }
    let entries = with_children(entries, root.as_deref())?;
    let mut fds = BTreeMap::new();
    let places = arrange(resolve(entries, &mut fds)?);
    let mut trees = Vec::with_capacity(places.len());
    for place in &places {
        trees.push(take(exec, place, &fds, &overlays)?);
    }
    drop((fds, overlays));
    if places.iter().any(|place| place.covered && place.access == Access::Inaccessible) {
        // They cannot be made any more when all is read-only.
        for kind in [FileType::Directory, FileType::RegularFile, FileType::CharacterDevice] {
            nothing_like(kind).about("/run/systemd/inaccessible")?;
        }
    }
    let mut late = Vec::new();
    for (place, (tree, parts)) in places.iter().zip(trees) {
        late.extend(put(place, tree, root.as_deref(), attributes(place, exec))?);
        for (below, part) in parts {
            let set = u64::from(attributes(place, exec).bits());
            step(
                place.directive,
                &place.path,
                muster_sys::set_mount_attributes(part.as_fd(), false, set, 0, 0),
            )?;
            step(place.directive, &place.path, image::put(&place.path, below, &part))?;
        }
    }
    // What is mounted inside of them had to be put there first.
    for (tree, set, path) in late {
        muster_sys::set_mount_attributes(tree.as_fd(), false, set, 0, 0).about(&path)?;
    }
    if let Some(root) = &root {
        change_root(root)?;
    }
    let propagation = match exec.mount_flags() {
        None | Some(MountFlags::Shared) => MS_SHARED,
        Some(MountFlags::Slave) => MS_SLAVE,
        Some(MountFlags::Private) => MS_PRIVATE,
    };
    let top = open(CWD, "/", ResolveFlags::empty()).about("/")?;
    muster_sys::set_mount_attributes(top.as_fd(), true, 0, 0, propagation).about("MountFlags=")
}

/// A mount namespace of this process's own, which hears what the host mounts and tells nothing.
fn own_namespace() -> Done {
    let about = "a mount namespace";
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).about(about)?;
    let top = open(CWD, "/", ResolveFlags::empty()).about("/")?;
    muster_sys::set_mount_attributes(top.as_fd(), true, 0, 0, MS_SLAVE).about(about)
}

/// The overlay of /etc that the settings ask for, made in a mount namespace of this process's own; it stands nowhere.
pub fn overlay_of_settings(exec: &ExecSection) -> Done<Option<OwnedFd>> {
    own_namespace()?;
    let rooted = image::root(exec)?;
    let exec = rooted.as_ref().unwrap_or(exec);
    let root = own_root(exec)?;
    let place = format!("{}/etc", root.as_deref().unwrap_or(""));
    let overlays = image::extension::overlays(exec, root.as_deref())?;
    let found = overlays.into_iter().find(|(path, ..)| *path == place).map(|(_, tree, _)| tree);
    if let Some(tree) = &found {
        let mut set = MountAttrFlags::MOUNT_ATTR_RDONLY;
        set.set(MountAttrFlags::MOUNT_ATTR_NOSUID, exec.no_new_privileges());
        let set = u64::from(set.bits());
        muster_sys::set_mount_attributes(tree.as_fd(), false, set, 0, 0).about("RefreshOnReload=")?;
    }
    Ok(found)
}

fn open(at: impl AsFd, path: &str, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(at, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The path of what a descriptor names.
pub fn path_of(fd: &OwnedFd) -> std::io::Result<String> {
    let number = std::os::fd::AsRawFd::as_raw_fd(fd);
    let path = std::fs::read_link(format!("/proc/self/fd/{number}"))?;
    path.into_os_string().into_string().map_err(|_| std::io::ErrorKind::InvalidData.into())
}

fn step<T, E: std::fmt::Display>(directive: &str, path: &str, done: Result<T, E>) -> Done<T> {
    done.map_err(|error| Failed { exit: None, message: format!("{directive}{path}: {error}") })
}

/// `RootDirectory=`, canonical and a mount of its own.
fn own_root(exec: &ExecSection) -> Done<Option<String>> {
    let Some(root) = exec.root_directory().as_deref().filter(|root| *root != "/") else { return Ok(None) };
    if root == image::ROOT {
        return Ok(Some(root.to_owned()));
    }
    let name = "RootDirectory=";
    let fd = step(name, root, open(CWD, root, ResolveFlags::empty()))?;
    let path = step(name, root, path_of(&fd))?;
    let tree = step(name, root, clone(&fd, true))?;
    step(name, root, attach(&tree, &fd))?;
    Ok(Some(path))
}

/// A copy of the mount that a descriptor is on, from there on, that stands nowhere yet.
pub fn clone(fd: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(fd, c"", flags)
}

/// Puts a tree where another descriptor leads.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", target, c"", flags)
}

/// What is mounted directly below places that are mounted anew stays where it was.
fn with_children(mut entries: Vec<Entry>, root: Option<&str>) -> Done<Vec<Entry>> {
    let anew = |entry: &&Entry| {
        matches!(
            entry.mount,
            Some(Mount::System | Mount::Devices | Mount::Processes { only_processes: false, .. })
        )
    };
    let tops: Vec<(String, &'static str)> =
        entries.iter().filter(anew).map(|entry| (entry.path.clone(), entry.directive)).collect();
    if tops.is_empty() {
        return Ok(entries);
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").about("/proc/self/mountinfo")?;
    let mut mounted: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    mounted.sort_unstable();
    mounted.dedup();
    for (top, directive) in tops {
        if root.is_none() && !std::path::Path::new(&top).exists() {
            continue;
        }
        // The API file systems of the host are what a root directory of its own gets.
        let host = root.and_then(|root| top.strip_prefix(root)).unwrap_or(&top).to_owned();
        let mut last: Option<&str> = None;
        for path in mounted.iter().filter(|path| **path != host && is_below(path, &host)) {
            if last.is_some_and(|last| is_below(path, last)) || path.contains('\\') || *path == "/dev/console"
            {
                continue;
            }
            last = Some(path);
            let below = path.strip_prefix(host.as_str()).unwrap_or("");
            entries.push(Entry {
                path: format!("{top}{below}"),
                optional: true,
                directive,
                mount: Some(if root.is_some() {
                    Mount::Bind { source: (*path).to_owned(), recursive: true, optional: true }
                } else {
                    Mount::Kept
                }),
                access: None,
                execute: None,
            });
        }
    }
    Ok(entries)
}

/// Looks every path up. What is missing and may be is left out.
fn resolve(mut entries: Vec<Entry>, fds: &mut BTreeMap<String, OwnedFd>) -> Done<Vec<Entry>> {
    entries.retain(|entry| match &entry.mount {
        Some(Mount::Bind { source, optional: true, .. } | Mount::Image { source, optional: true, .. }) => {
            open(CWD, source, ResolveFlags::empty()).err() != Some(rustix::io::Errno::NOENT)
        }
        _ => true,
    });
    let tops: Vec<String> = entries
        .iter()
        .filter(|entry| entry.mount.as_ref().is_some_and(|mount| *mount != Mount::Kept))
        .map(|entry| entry.path.clone())
        .collect();
    let mut kept = Vec::with_capacity(entries.len());
    for mut entry in entries {
        let hidden = |top: &String| *top != entry.path && is_below(&entry.path, top);
        if entry.mount != Some(Mount::Kept) && tops.iter().any(hidden) {
            kept.push(entry);
            continue;
        }
        match open(CWD, &entry.path, ResolveFlags::NO_SYMLINKS) {
            Ok(fd) => {
                fds.entry(entry.path.clone()).or_insert(fd);
            }
            Err(rustix::io::Errno::LOOP) => {
                let Some(fd) = look_up(&entry)? else { continue };
                entry.path = step(entry.directive, &entry.path, path_of(&fd))?;
                fds.entry(entry.path.clone()).or_insert(fd);
            }
            Err(rustix::io::Errno::NOENT) if entry.optional => continue,
            Err(rustix::io::Errno::NOENT) if entry.mount.is_some() => {
                // Nothing is made for what is not there; source and place may be the same path.
                if let Some(Mount::Bind { source, .. }) = &entry.mount {
                    step(entry.directive, source, open(CWD, source, ResolveFlags::empty()))?;
                }
                entry.path = make(&entry)?;
            }
            Err(error) => return step(entry.directive, &entry.path, Err(error)),
        }
        kept.push(entry);
    }
    Ok(kept)
}

fn look_up(entry: &Entry) -> Done<Option<OwnedFd>> {
    match open(CWD, &entry.path, ResolveFlags::empty()) {
        Err(rustix::io::Errno::NOENT) if entry.optional => Ok(None),
        done => step(entry.directive, &entry.path, done).map(Some),
    }
}

/// Makes the place for a mount, below the longest part of its path that exists; gives its canonical path.
fn make(entry: &Entry) -> Done<String> {
    let (mut existing, mut rest) = (entry.path.as_str(), Vec::new());
    let fd = loop {
        let Some((parent, name)) = existing.trim_end_matches('/').rsplit_once('/') else {
            return failed(format!("{}{}: expected an absolute path", entry.directive, entry.path));
        };
        rest.push(name);
        existing = if parent.is_empty() { "/" } else { parent };
        match open(CWD, existing, ResolveFlags::empty()) {
            Err(rustix::io::Errno::NOENT) if existing != "/" => {}
            done => break step(entry.directive, existing, done)?,
        }
    };
    let above = step(entry.directive, existing, path_of(&fd))?;
    rest.reverse();
    let path = format!("{}/{}", above.trim_end_matches('/'), rest.join("/"));
    let directory = is_directory(entry.mount.as_ref());
    step(entry.directive, &entry.path, make_below(fd, &rest, directory))?;
    Ok(path)
}

/// Whether a mount goes on a directory.
fn is_directory(mount: Option<&Mount>) -> bool {
    let Some(Mount::Bind { source, .. }) = mount else { return true };
    rustix::fs::stat(source).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Makes directories, and at the end a directory or a file, following no link; gives the last.
pub fn make_below(mut at: OwnedFd, names: &[&str], directory: bool) -> rustix::io::Result<OwnedFd> {
    for (index, name) in names.iter().enumerate() {
        let is_last = index.saturating_add(1) == names.len();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = if directory || !is_last {
            rustix::fs::mkdirat(&at, *name, Mode::from_raw_mode(0o755))
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY;
            rustix::fs::openat(&at, *name, flags, Mode::from_raw_mode(0o644)).map(drop)
        };
        match made {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        at = rustix::fs::openat(&at, *name, flags, Mode::empty())?;
    }
    Ok(at)
}

/// The tree that is put at a place, if it is one of the host, and what of an image belongs below it: taken before anything
/// changes.
fn take(
    exec: &ExecSection,
    place: &Place,
    fds: &BTreeMap<String, OwnedFd>,
    overlays: &[OwnedFd],
) -> Done<(Option<OwnedFd>, image::Parts)> {
    match &place.mount {
        Some(Mount::Image { source, options, .. }) => {
            let policy = image::policy(exec.mount_image_policy(), ImagePolicy::of_images);
            let directive = place.directive;
            let mut parts =
                image::Wish { directive, source, options, policy: &policy, read_only: false, root: None }
                    .open()?;
            let (_, top) = parts.remove(0);
            Ok((Some(top), parts))
        }
        Some(Mount::Overlay(number)) => match overlays.get(*number) {
            Some(tree) => {
                step(place.directive, &place.path, tree.try_clone()).map(|tree| (Some(tree), Vec::new()))
            }
            None => failed(format!("{}{}: no overlay", place.directive, place.path)),
        },
        _ => of_host(place, fds).map(|tree| (tree, Vec::new())),
    }
}

fn of_host(place: &Place, fds: &BTreeMap<String, OwnedFd>) -> Done<Option<OwnedFd>> {
    let own = |recursive| match fds.get(&place.path) {
        Some(fd) => step(place.directive, &place.path, clone(fd, recursive)).map(Some),
        None => Ok(None),
    };
    match &place.mount {
        Some(Mount::Bind { source, recursive, .. }) => {
            let fd = step(place.directive, source, open(CWD, source, ResolveFlags::empty()))?;
            step(place.directive, source, clone(fd, *recursive)).map(Some)
        }
        Some(Mount::Kept) => own(true),
        None if place.access == Access::Inaccessible && !place.covered => match fds.get(&place.path) {
            Some(fd) => step(place.directive, &place.path, nothing(fd)).map(Some),
            None => Ok(None),
        },
        None if place.access != Access::Inaccessible && !place.covered && place.path != "/" => own(true),
        _ => Ok(None),
    }
}

/// MOUNT_ATTR_* that a place gets. Who gains no privileges by execve(2) needs no file that gives any.
fn attributes(place: &Place, exec: &ExecSection) -> MountAttrFlags {
    let mut set = MountAttrFlags::empty();
    set.set(MountAttrFlags::MOUNT_ATTR_NOSUID, exec.no_new_privileges());
    set.set(MountAttrFlags::MOUNT_ATTR_RDONLY, place.access != Access::ReadWrite);
    set.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !place.execute);
    set
}

/// What has to wait: a mount, the attributes that it gets, what it is for.
type Late = (OwnedFd, u64, String);

/// Puts one place where it belongs.
fn put(place: &Place, tree: Option<OwnedFd>, root: Option<&str>, set: MountAttrFlags) -> Done<Option<Late>> {
    let fail = |error: rustix::io::Errno| Failed {
        exit: None,
        message: format!("{}{}: {error}", place.directive, place.path),
    };
    let target = match open(CWD, &place.path, ResolveFlags::NO_SYMLINKS) {
        Err(rustix::io::Errno::NOENT) if place.covered && place.mount.is_some() => {
            let top = open(CWD, "/", ResolveFlags::empty()).map_err(fail)?;
            let names: Vec<&str> = place.path.split('/').filter(|name| !name.is_empty()).collect();
            // Where the source is, something else may be by now.
            let is_directory = tree.as_ref().is_none_or(|tree| {
                rustix::fs::fstat(tree)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            });
            make_below(top, &names, is_directory).map_err(fail)?
        }
        // What a file system that was mounted anew does not have need not be protected.
        Err(rustix::io::Errno::NOENT) if place.optional && place.covered => {
            return Ok(None);
        }
        done => done.map_err(fail)?,
    };
    let set_now = |tree: BorrowedFd<'_>, recursive: bool, set: MountAttrFlags| {
        let done = muster_sys::set_mount_attributes(tree, recursive, u64::from(set.bits()), 0, 0);
        step(place.directive, &place.path, done)
    };
    if place.access == Access::Inaccessible {
        let tree = tree.map_or_else(|| nothing(&target), Ok).map_err(fail)?;
        let set = set
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        set_now(tree.as_fd(), false, set)?;
        return attach(tree, target).map_err(fail).map(|()| None);
    }
    // The root itself is changed where it is.
    if place.mount.is_none() && (place.path == "/" || Some(place.path.as_str()) == root) {
        return set_now(target.as_fd(), true, set).map(|()| None);
    }
    let (tree, is_late) = match (&place.mount, tree) {
        (_, Some(tree)) => (tree, false),
        (None | Some(Mount::Kept | Mount::Bind { .. }), None) => (clone(&target, true).map_err(fail)?, false),
        (Some(mount), None) => fresh(mount).map_err(fail)?,
    };
    if is_late {
        attach(&tree, &target).map_err(fail)?;
        if *place.mount.as_ref().unwrap_or(&Mount::Kept) == Mount::Devices {
            devices(&tree, &target).map_err(fail)?;
            let set = set | MountAttrFlags::MOUNT_ATTR_RDONLY;
            return Ok(Some((tree, u64::from(set.bits()), place.path.clone())));
        }
        return Ok((!set.is_empty()).then(|| (tree, u64::from(set.bits()), place.path.clone())));
    }
    if !set.is_empty() {
        set_now(tree.as_fd(), true, set)?;
    }
    attach(tree, target).map_err(fail).map(|()| None)
}

/// A file of the same kind as `target` that nobody can use (file-hierarchy(7)).
fn nothing(target: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    nothing_like(FileType::from_raw_mode(rustix::fs::fstat(target)?.st_mode))
}

fn nothing_like(kind: FileType) -> rustix::io::Result<OwnedFd> {
    const BASE: &str = "/run/systemd/inaccessible";
    let name = match kind {
        FileType::Directory => "dir",
        FileType::CharacterDevice => "chr",
        FileType::BlockDevice => "blk",
        FileType::Fifo => "fifo",
        FileType::Socket => "sock",
        _ => "reg",
    };
    let mut made = open(CWD, &format!("{BASE}/{name}"), ResolveFlags::NO_SYMLINKS);
    if made.is_err() {
        for path in ["/run/systemd", BASE] {
            match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        let base = open(CWD, BASE, ResolveFlags::NO_SYMLINKS)?;
        let none = Mode::empty();
        let done = match kind {
            FileType::Directory => rustix::fs::mkdirat(&base, name, none),
            _ => rustix::fs::mknodat(&base, name, kind, none, 0),
        };
        made = match done {
            Ok(()) | Err(rustix::io::Errno::EXIST) => open(&base, name, ResolveFlags::NO_SYMLINKS),
            // Without the right to make a device, another kind of file serves.
            Err(rustix::io::Errno::PERM) => {
                let _ = rustix::fs::mknodat(&base, "reg", FileType::RegularFile, none, 0);
                open(&base, "reg", ResolveFlags::NO_SYMLINKS)
            }
            Err(error) => return Err(error),
        };
    }
    clone(made?, false)
}

/// A file system of its own; whether its attributes have to wait until what belongs into it is there.
fn fresh(mount: &Mount) -> rustix::io::Result<(OwnedFd, bool)> {
    use MountAttrFlags as Attr;
    let (nosuid, nodev, noexec) = (Attr::MOUNT_ATTR_NOSUID, Attr::MOUNT_ATTR_NODEV, Attr::MOUNT_ATTR_NOEXEC);
    let all = nosuid | nodev | noexec;
    let made = match mount {
        Mount::Processes { hide, only_processes } => {
            let mut options = Vec::new();
            options.extend(hide.map(|hide| ("hidepid", hide)));
            options.extend(only_processes.then_some(("subset", "pid")));
            file_system("proc", &options, all)?
        }
        Mount::System => file_system("sysfs", &[], all)?,
        Mount::Queues => file_system("mqueue", &[], all)?,
        Mount::Pinned(delegated) => {
            let options = delegated.iter().map(|(name, value)| (*name, value.as_str()));
            file_system("bpf", &options.chain([("mode", "0700")]).collect::<Vec<_>>(), all)?
        }
        Mount::ControlGroups => file_system("cgroup2", &[], all)?,
        Mount::Devices => {
            let options = [("mode", "0755"), ("size", "4m"), ("nr_inodes", "64k")];
            file_system("tmpfs", &options, nosuid | noexec)?
        }
        Mount::Memory(text) => {
            let (mut options, mut flags) = (Vec::new(), nodev);
            for option in text.split(',').filter(|option| !option.is_empty()) {
                match option {
                    "ro" | "rw" | "suid" | "exec" | "defaults" => {}
                    "nosuid" => flags |= nosuid,
                    "noexec" => flags |= noexec,
                    "nodev" => flags |= nodev,
                    "dev" => flags.remove(nodev),
                    other => options.push(other.split_once('=').unwrap_or((other, ""))),
                }
            }
            file_system("tmpfs", &options, flags)?
        }
        Mount::Bind { .. } | Mount::Image { .. } | Mount::Overlay(_) | Mount::Kept => {
            return Err(rustix::io::Errno::INVAL);
        }
    };
    Ok((made, true))
}

/// A file system that stands nowhere yet; an option without a value is a flag.
pub fn file_system(
    kind: &str,
    options: &[(&str, &str)],
    flags: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", kind)?;
    for (name, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, *name)?;
        } else {
            rustix::mount::fsconfig_set_string(&context, *name, *value)?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// The devices of `PrivateDevices=`, and the links that go with them.
fn devices(root: &OwnedFd, host: &OwnedFd) -> rustix::io::Result<()> {
    const NODES: [(&str, u32, u32); 6] =
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    const LINKS: [(&str, &str); 5] = [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ];
    let exists = |done: rustix::io::Result<()>| match done {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        done => done,
    };
    let old = rustix::process::umask(Mode::empty());
    let made = (|| {
        exists(rustix::fs::mkdirat(root, "char", Mode::from_raw_mode(0o755)))?;
        for (name, major, minor) in NODES {
            let device = rustix::fs::makedev(major, minor);
            let mode = Mode::from_raw_mode(0o666);
            match rustix::fs::mknodat(root, name, FileType::CharacterDevice, mode, device) {
                // The list of devices of the cgroup may allow none to be made.
                Err(rustix::io::Errno::PERM) => borrow_device(root, host, name)?,
                done => done?,
            }
            rustix::fs::symlinkat(format!("../{name}"), root, format!("char/{major}:{minor}"))?;
        }
        for (target, name) in LINKS {
            rustix::fs::symlinkat(target, root, name)?;
        }
        rustix::fs::symlinkat("/run/systemd/journal/dev-log", root, "log")
    })();
    rustix::process::umask(old);
    made
}

/// Shows a device of the host's /dev, which `host` still names below the new one.
fn borrow_device(root: &OwnedFd, host: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let place = make_below(root.try_clone().map_err(|_| rustix::io::Errno::MFILE)?, &[name], false)?;
    attach(clone(open(host, name, ResolveFlags::NO_SYMLINKS)?, false)?, place)
}

/// Makes a directory the root of this process and of its mount namespace.
fn change_root(root: &str) -> Done {
    let name = "RootDirectory=";
    let fd = step(name, root, open(CWD, root, ResolveFlags::NO_SYMLINKS))?;
    step(name, root, rustix::process::fchdir(&fd))?;
    match rustix::process::pivot_root(".", ".") {
        // The first root that a kernel has stays where it is: the new one is put above it.
        Err(rustix::io::Errno::INVAL) => {
            let top = step(name, root, open(CWD, "/", ResolveFlags::empty()))?;
            step(name, root, attach(&fd, top))?;
            step(name, root, rustix::process::chroot("."))?;
        }
        done => {
            step(name, root, done)?;
            step(name, root, rustix::mount::unmount(".", UnmountFlags::DETACH))?;
        }
    }
    step(name, root, rustix::process::chdir("/"))
}

/// The host's directories for `PrivateTmp=`, made for the first process of a run and shared by all.
pub fn private_tmp(name: &str) -> Done<(String, String)> {
    let one = |base: &str| -> rustix::io::Result<String> {
        let (outer, inner) = (format!("{base}/{name}"), format!("{base}/{name}/tmp"));
        match rustix::fs::mkdir(&outer, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(outer.as_str(), flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        // Only root can have made one of that kind.
        if stat.st_uid != 0 || stat.st_mode & 0o077 != 0 {
            return Err(rustix::io::Errno::EXIST);
        }
        match rustix::fs::mkdirat(&fd, "tmp", Mode::from_raw_mode(0o700)) {
            Ok(()) => rustix::fs::chmodat(&fd, "tmp", Mode::from_raw_mode(0o1777), AtFlags::empty())?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        Ok(inner)
    };
    let made = one("/tmp").and_then(|tmp| Ok((tmp, one("/var/tmp")?)));
    made.map_err(|error| Failed { exit: None, message: format!("PrivateTmp={name}: {error}") })
}

/// Whether the kernel has no such namespace at all, for settings that the manual says are ignored then.
pub fn is_unsupported(error: Errno) -> bool {
    matches!(error, Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP)
}
