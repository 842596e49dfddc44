//! The paths of path units (systemd.path(5)): watched by a helper for each unit, `muster --paths`, since a path may lead to a
//! file system that does not answer.
//!
//! The helper gets its order in a memfd on standard input, and speaks through a socket on standard output: it sends the path
//! that triggered; PID 1 sends `a` when it has taken that, and `c` to have all looked at again. What must stay true: no
//! more than one trigger is on its way, so that no amount of changes costs PID 1 more than it takes; the helper ends with
//! its socket.

use crate::conditions;
use crate::processes::Helper;
use crate::source::{KernelSource, SourceId, World};
use crate::turn::Runtime;
use muster_exec::pass::memory;
use muster_manager::event::Event;
use muster_manager::path::{PathKind, PathWatch};
use muster_unit::UnitName;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The longest path that is told, in bytes.
const PATH_MAX: usize = 4096;
/// At most this many links are followed on the way to a path.
const LINKS_MAX: usize = 40;
/// At most this many directories are watched for a pattern.
const DIRECTORIES_MAX: usize = 1024;

/// The helpers of path units that are up.
#[derive(Debug, Default)]
pub struct Watchers {
    by_unit: BTreeMap<UnitName, u32>,
}

/// Our end of the socket of a helper.
struct Watcher {
    unit: UnitName,
    socket: OwnedFd,
}

impl KernelSource for Watcher {
    fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn events(&mut self, _: u64, _: &mut World<'_>) -> io::Result<Vec<Event>> {
        let mut told = Vec::new();
        loop {
            let mut bytes = [0_u8; PATH_MAX];
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                // Its end is told when it is reaped.
                Err(_) | Ok(0) => return Ok(told),
                Ok(length) => {
                    say(&self.socket, b"a");
                    let path = String::from_utf8_lossy(bytes.get(..length).unwrap_or(&[])).into_owned();
                    told.push(Event::PathTriggered { unit: self.unit.clone(), path });
                }
            }
        }
    }

    fn order(&mut self, word: &[u8]) {
        say(&self.socket, word);
    }
}

/// A word for a helper; one that does not listen is at work.
fn say(socket: &OwnedFd, word: &[u8]) {
    let _ = send(socket.as_raw_fd(), word, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
}

impl Runtime {
    /// Starts a helper for a unit, in the place of an earlier one.
    pub(crate) fn watch_paths(&mut self, unit: UnitName, watch: &PathWatch) {
        self.unwatch_paths(&unit);
        match self.start_watcher(&unit, watch) {
            Ok(pid) => {
                self.processes.add_helper(pid, Helper::Paths(pid));
                self.watchers.by_unit.insert(unit, pid);
            }
            Err(error) => {
                let message = format!("a helper could not be started: {error}");
                self.follow_up.push_back(Event::PathWatchFailed { unit, message });
            }
        }
    }

    fn start_watcher(&mut self, unit: &UnitName, watch: &PathWatch) -> io::Result<u32> {
        let mut order = memory(c"muster-paths")?;
        let mut bytes = Vec::new();
        ciborium::into_writer(watch, &mut bytes).map_err(io::Error::other)?;
        order.write_all(&bytes)?;
        order.rewind()?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let mut command = Command::new(&self.program);
        command.arg("--paths").stdin(order).stdout(theirs).stderr(Stdio::null()).current_dir("/");
        let pid = command.spawn()?.id();
        self.add_source(SourceId::Paths(pid), Box::new(Watcher { unit: unit.clone(), socket }))?;
        Ok(pid)
    }

    /// Has the paths looked at again.
    pub(crate) fn check_paths(&mut self, unit: &UnitName) {
        if let Some(pid) = self.watchers.by_unit.get(unit).copied() {
            self.order_source(SourceId::Paths(pid), b"c");
        }
    }

    /// Ends the helper of a unit.
    pub(crate) fn unwatch_paths(&mut self, unit: &UnitName) {
        let Some(pid) = self.watchers.by_unit.remove(unit) else { return };
        self.remove_source(SourceId::Paths(pid));
        // One that hangs does not see the end of the socket. It is not reaped yet, so the number is its own.
        if let Ok(pid) = i32::try_from(pid) {
            let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// A helper ended.
    pub(crate) fn watcher_ended(&mut self, pid: u32) {
        let found = self.watchers.by_unit.iter().find(|(_, of)| **of == pid);
        if let Some(unit) = found.map(|(unit, _)| unit.clone()) {
            self.unwatch_paths(&unit);
            self.deliver(Event::PathWatchFailed { unit, message: "its helper ended".to_owned() });
        }
    }
}

/// One path in the helper.
struct Spec {
    kind: PathKind,
    path: String,
    changes: Inotify,
    /// The watch of the path itself, where it is there.
    last: Option<WatchDescriptor>,
    existed: bool,
}

/// What a spec is at a moment.
enum Look {
    Nothing,
    Triggers(String),
}

impl Spec {
    fn new(kind: PathKind, path: String, make: Option<u32>) -> Result<Spec, Errno> {
        let exists_only = matches!(kind, PathKind::PathExists | PathKind::PathExistsGlob);
        if let Some(mode) = make.filter(|_| !exists_only) {
            let _ = std::fs::DirBuilder::new().recursive(true).mode(mode).create(&path);
        }
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut spec = Spec { kind, path, changes, last: None, existed: false };
        spec.follow();
        spec.existed = Path::new(&spec.path).exists();
        Ok(spec)
    }

    /// What of the path itself counts.
    fn flags(&self) -> AddWatchFlags {
        let own = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ATTRIB;
        let within = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        let changed = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO;
        match self.kind {
            PathKind::PathExists | PathKind::PathExistsGlob => own,
            PathKind::DirectoryNotEmpty => own | within,
            PathKind::PathChanged => own | changed,
            PathKind::PathModified => own | changed | AddWatchFlags::IN_MODIFY,
        }
    }

    /// Watches the path and every directory on the way to it, those to which links lead included.
    fn follow(&mut self) {
        let (directories, last) = match self.kind {
            PathKind::PathExistsGlob => (directories_of_pattern(&self.path), None),
            _ => way_to(&self.path),
        };
        let on_the_way = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ATTRIB;
        for directory in &directories {
            let _ = self.changes.add_watch(directory, on_the_way);
        }
        self.last = last.and_then(|last| self.changes.add_watch(&last, self.flags()).ok());
    }

    /// Reads what happened: whether something did, and whether that triggers by itself.
    fn read(&mut self) -> (bool, bool) {
        let (mut happened, mut triggers) = (false, false);
        while let Ok(events) = self.changes.read_events() {
            for event in events {
                happened = true;
                let of_it = Some(event.wd) == self.last && !event.mask.contains(AddWatchFlags::IN_IGNORED);
                triggers |= of_it || event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
            }
        }
        let by_change = matches!(self.kind, PathKind::PathChanged | PathKind::PathModified);
        (happened, triggers && by_change)
    }

    /// Whether it triggers as it is.
    fn look(&mut self) -> Look {
        let path = || Look::Triggers(self.path.clone());
        match self.kind {
            PathKind::PathExists if Path::new(&self.path).exists() => path(),
            PathKind::DirectoryNotEmpty
                if std::fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_some()) =>
            {
                path()
            }
            PathKind::PathExistsGlob => {
                conditions::existing(&self.path).into_iter().next().map_or(Look::Nothing, Look::Triggers)
            }
            PathKind::PathChanged | PathKind::PathModified => {
                let exists = Path::new(&self.path).exists();
                let toggled = exists != std::mem::replace(&mut self.existed, exists);
                if toggled { Look::Triggers(self.path.clone()) } else { Look::Nothing }
            }
            PathKind::PathExists | PathKind::DirectoryNotEmpty => Look::Nothing,
        }
    }
}

/// The directories on the way to a path, by all links, and where it ends when it is there.
fn way_to(path: &str) -> (Vec<PathBuf>, Option<PathBuf>) {
    let parts = |path: &Path| -> VecDeque<PathBuf> {
        path.components()
            .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
            .map(|part| PathBuf::from(part.as_os_str()))
            .collect()
    };
    let mut left = parts(Path::new(path));
    let mut at = PathBuf::from("/");
    let mut directories = Vec::new();
    let mut links = 0_usize;
    while let Some(part) = left.pop_front() {
        if part.as_os_str() == ".." {
            at.pop();
            continue;
        }
        directories.push(at.clone());
        let next = at.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) => {
                links = links.saturating_add(1);
                if links > LINKS_MAX {
                    return (directories, None);
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                let mut all = parts(&target);
                all.append(&mut left);
                left = all;
            }
            // What is not there ends the way: its directory tells when it comes.
            Err(_) if next.symlink_metadata().is_err() => return (directories, None),
            Err(_) => at = next,
        }
    }
    (directories, Some(at))
}

/// The directories in which the parts of a pattern are looked for.
fn directories_of_pattern(pattern: &str) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    for (end, _) in pattern.match_indices('/') {
        let above = pattern.get(..end).unwrap_or_default();
        if above.contains(['*', '?', '[', '\\']) {
            found.extend(conditions::existing(above).into_iter().map(PathBuf::from));
        } else {
            let (directories, last) = way_to(if above.is_empty() { "/" } else { above });
            found.extend(directories.into_iter().chain(last));
        }
    }
    found.into_iter().take(DIRECTORIES_MAX).collect()
}

/// The helper's side of the socket.
struct Voice {
    socket: OwnedFd,
    /// Something was sent and not taken yet.
    unheard: bool,
    /// A path holds and was told: not again until all is to be looked at again.
    told: bool,
    /// To be said when there is room.
    next: Option<String>,
}

impl Voice {
    fn say(&mut self, path: String) {
        if self.unheard {
            self.next.get_or_insert(path);
            return;
        }
        let bytes = path.as_bytes();
        let bytes = bytes.get(..PATH_MAX).unwrap_or(bytes);
        self.unheard = send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).is_ok();
    }
}

/// The helper.
pub fn run() -> ExitCode {
    let order = ciborium::from_reader::<PathWatch, _>(std::io::stdin().lock());
    let socket = std::io::stdout().as_fd().try_clone_to_owned();
    let (Ok(order), Ok(socket), Ok(mounts)) = (order, socket, File::open("/proc/self/mountinfo")) else {
        return ExitCode::FAILURE;
    };
    let specs = order.paths.into_iter().map(|(kind, path)| Spec::new(kind, path, order.make));
    let Ok(mut specs) = specs.collect::<Result<Vec<Spec>, Errno>>() else { return ExitCode::FAILURE };
    let mut voice = Voice { socket, unheard: false, told: false, next: None };
    // What is there already triggers; a change of what was not watched does not.
    look(&mut specs, &mut voice);
    loop {
        let mut wanted = vec![
            PollFd::new(voice.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(mounts.as_fd(), PollFlags::POLLPRI),
        ];
        wanted.extend(specs.iter().map(|spec| PollFd::new(spec.changes.as_fd(), PollFlags::POLLIN)));
        if poll(&mut wanted, PollTimeout::NONE).is_err_and(|error| error != Errno::EINTR) {
            return ExitCode::FAILURE;
        }
        let ready: Vec<PollFlags> =
            wanted.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        drop(wanted);
        let mut again = false;
        if ready.first().is_some_and(|flags| !flags.is_empty()) {
            let mut word = [0_u8; 8];
            match recv(voice.socket.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return ExitCode::SUCCESS,
                Ok(_) if word.first() == Some(&b'a') => {
                    voice.unheard = false;
                    if let Some(path) = voice.next.take() {
                        voice.say(path);
                    }
                }
                Ok(_) => {
                    (voice.told, again) = (false, true);
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return ExitCode::SUCCESS,
            }
        }
        let moved =
            ready.get(1).is_some_and(|flags| flags.intersects(PollFlags::POLLPRI | PollFlags::POLLERR));
        for (spec, flags) in specs.iter_mut().zip(ready.iter().skip(2)) {
            let (happened, triggers) = if flags.is_empty() { (false, false) } else { spec.read() };
            if happened || moved {
                spec.follow();
                again = true;
            }
            if triggers {
                spec.existed = Path::new(&spec.path).exists();
                voice.say(spec.path.clone());
            }
        }
        if again {
            look(&mut specs, &mut voice);
        }
    }
}

/// Tells what holds, once, and what came or went.
fn look(specs: &mut [Spec], voice: &mut Voice) {
    for spec in specs {
        let by_change = matches!(spec.kind, PathKind::PathChanged | PathKind::PathModified);
        if voice.told && !by_change {
            continue;
        }
        if let Look::Triggers(path) = spec.look() {
            voice.told |= !by_change;
            voice.say(path);
        }
    }
}
