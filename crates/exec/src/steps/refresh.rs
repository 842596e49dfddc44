//! `RefreshOnReload=` (systemd.service(5)): a process of the service that executes nothing, but makes credentials and the overlay
//! of /etc anew for the main process, in its mount namespace.
//!
//! What must stay true: all is made before anything changes, and what was mounted in /etc goes along, so that no confinement
//! is open for a moment.

use super::{About, Direct, Done, Step, failed, identity};
use crate::image::{extension, live, versions};
use crate::sandbox::mount::{attach, clone, overlay_of_settings, path_of};
use crate::{Context, Exit, Process};
use nix::sched::{CloneFlags, setns};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// The steps of such a process.
pub const ORDER: &[&Step] = &[&identity::USER_NAME, &identity::GROUP_NAME, &CREDENTIALS, &EXTENSIONS];

const DIRECTIVE: &str = "RefreshOnReload=";
/// Where extensions that are read by whoever reloads are.
const HIERARCHY: &str = "/etc";
/// Where the overlay gets what was mounted in the one before.
const PLACES: &str = "/run/systemd/unit-extensions";

/// The first that mounts in the main process's namespace; it comes back to its own.
const CREDENTIALS: Step = Step {
    directive: DIRECTIVE,
    exit: Exit::Credentials,
    needed: |context| context.refresh.is_some_and(|refresh| refresh.credentials),
    direct: Direct::No,
    run: |context, process| {
        let tree = super::credentials::refresh(context, process)?;
        let (Some(tree), Some(theirs)) = (tree, namespace(context, process)?) else { return Ok(()) };
        let path = super::credentials::directory(context.unit);
        let own = own_namespace()?;
        enter(theirs.as_fd())?;
        let done = put(&tree, &path);
        enter(own.as_fd())?;
        done
    },
};

/// The last step: it leaves the namespace of the host.
const EXTENSIONS: Step = Step {
    directive: DIRECTIVE,
    exit: Exit::Namespace,
    needed: |context| context.refresh.is_some_and(|refresh| refresh.extensions),
    direct: Direct::No,
    run: |context, process| {
        let Some(theirs) = namespace(context, process)? else { return Ok(()) };
        if context.exec.root_ephemeral() {
            return failed(format!("{DIRECTIVE}extensions: not over a copy of a root (RootEphemeral=)"));
        }
        let picked = versions::picked(context.exec)?;
        let Some(tree) = overlay_of_settings(picked.as_ref().unwrap_or(context.exec))? else { return Ok(()) };
        let own = own_namespace()?;
        let processes = open(CWD, "/proc/thread-self", OFlags::DIRECTORY).about("/proc")?;
        enter(theirs.as_fd())?;
        let below = mounted(processes.as_fd())?;
        enter(own.as_fd())?;
        let tree = with_mounts(tree, &below)?;
        enter(theirs.as_fd())?;
        put(&tree, HIERARCHY)
    },
};

/// The main process's mount namespace, unless it is the host's.
fn namespace(context: &Context<'_>, process: &Process) -> Done<Option<OwnedFd>> {
    let last = context.fd_names.len().checked_sub(1).and_then(|last| process.fds.get(last));
    let Some(number) = last else { return Ok(None) };
    let theirs = Process::copy(*number).about(DIRECTIVE)?;
    let inode = |fd: &OwnedFd| {
        let file = std::fs::File::from(fd.try_clone()?);
        file.metadata().map(|data| data.ino())
    };
    let is_own = inode(&theirs).about(DIRECTIVE)? == inode(&own_namespace()?).about(DIRECTIVE)?;
    Ok((!is_own).then_some(theirs))
}

fn own_namespace() -> Done<OwnedFd> {
    std::fs::File::open("/proc/thread-self/ns/mnt").map(Into::into).about("/proc/thread-self/ns/mnt")
}

fn enter(namespace: BorrowedFd<'_>) -> Done {
    setns(namespace, CloneFlags::CLONE_NEWNS).about("the mount namespace of the main process")
}

fn open(at: impl AsFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(at, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Mounts in the place of what is there.
fn put(tree: &OwnedFd, path: &str) -> Done {
    let target = open(CWD, path, OFlags::empty()).about(path)?;
    live::replace(tree, &target, path).about(path)
}

/// Copies of what is mounted directly in the hierarchy of this namespace, each with its place below.
fn mounted(processes: BorrowedFd<'_>) -> Done<Vec<(String, OwnedFd)>> {
    use std::io::Read;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let table = rustix::fs::openat(processes, "mountinfo", flags, Mode::empty()).about("mountinfo")?;
    let mut text = String::new();
    std::fs::File::from(table).read_to_string(&mut text).about("mountinfo")?;
    let below = |line: &str| {
        let path = line.split(' ').nth(4)?.strip_prefix(HIERARCHY)?.strip_prefix('/')?;
        (!path.contains('\\')).then(|| path.to_owned())
    };
    let mut paths: Vec<String> = text.lines().filter_map(below).collect();
    paths.sort_unstable();
    let mut all: Vec<(String, OwnedFd)> = Vec::new();
    for path in paths {
        let is_below = |(above, _): &(String, OwnedFd)| {
            path.strip_prefix(above.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // What is no place any more is not seen by anybody.
        let full = format!("{HIERARCHY}/{path}");
        if let (false, Ok(fd)) = (all.iter().any(is_below), open(CWD, &full, OFlags::NOFOLLOW)) {
            all.push((path, clone(fd, true).about(&full)?));
        }
    }
    Ok(all)
}

/// A tree with mounts below, as one. A mount whose place it does not have is not left out, since it may be a confinement.
fn with_mounts(tree: OwnedFd, below: &[(String, OwnedFd)]) -> Done<OwnedFd> {
    if below.is_empty() {
        return Ok(tree);
    }
    let top = extension::mount_at(PLACES, 0, &vec![("", tree)]).about(DIRECTIVE)?;
    let top = open(CWD, &top, OFlags::DIRECTORY).about(&top)?;
    for (path, tree) in below {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let target = rustix::fs::openat2(&top, path.as_str(), flags, Mode::empty(), resolve);
        target.and_then(|target| attach(tree, target)).about(&format!("{HIERARCHY}/{path}"))?;
    }
    let whole = path_of(&top).about(DIRECTIVE)?;
    let top = open(CWD, &whole, OFlags::DIRECTORY).about(&whole)?;
    clone(top, true).about(DIRECTIVE)
}
