//! PID files: read where that cannot wait, and watched until they say something of use (systemd.service(5), `PIDFile=`).
//!
//! What must stay true: a PID file below /run is opened without leaving that file system and without following a link;
//! any other is read by a helper (this program, as `muster --pid-file PATH`), since its file system may hang. A FIFO is
//! never waited for. A number counts by the owner of its file only where nobody else could have put the file there.

use crate::clock;
use crate::local;
use crate::processes::Helper;
use crate::turn::{Runtime, Source};
use muster_manager::event::{Event, PidFileFound};
use muster_unit::UnitName;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{Mode, fstat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

/// A PID file that is not below /run is read this often while it is awaited, in microseconds.
const RETRY_USEC: u64 = 250_000;
/// At most this many bytes of one are read.
const FILE_MAX: u64 = 64;

/// Who waits for what.
#[derive(Debug, Default)]
pub struct PidFiles {
    waiting: BTreeMap<UnitName, String>,
    /// Units whose file a helper is reading.
    asked: BTreeSet<UnitName>,
    changes: Option<Inotify>,
    retry_usec: Option<u64>,
}

impl PidFiles {
    /// When files that cannot be watched are read again.
    pub fn retry_usec(&self) -> Option<u64> {
        self.retry_usec
    }

    /// Whether that is now.
    pub fn are_due(&self, now_usec: u64) -> bool {
        self.retry_usec.is_some_and(|at| at <= now_usec)
    }

    /// Stops watching for the PID file of a unit.
    pub fn forget(&mut self, unit: &UnitName) {
        self.waiting.remove(unit);
        if self.waiting.is_empty() {
            self.retry_usec = None;
        }
    }
}

impl Runtime {
    /// Reads one, now or by a helper.
    pub(crate) fn ask_pid_file(&mut self, unit: UnitName, path: &str) {
        match local::below_run(path).map(look_below_run) {
            Some(Ok(said)) => {
                let result = self.pid_file_said(path, said);
                self.follow_up.push_back(Event::PidFileRead { unit, result });
            }
            Some(Err(Errno::EXDEV | Errno::ELOOP)) | None => {
                if !self.pid_files.asked.insert(unit.clone()) {
                    return;
                }
                let program = self.program.clone();
                let of = (unit.clone(), path.to_owned());
                let started = self.run_asking_helper(&program, &["--pid-file", path], |answer| {
                    Helper::PidFile { unit: of.0, path: of.1, answer }
                });
                if !started {
                    self.pid_files.asked.remove(&unit);
                    let result = Err(format!("{path}: no helper could be started to read it"));
                    self.follow_up.push_back(Event::PidFileRead { unit, result });
                }
            }
            Some(Err(error)) => {
                let result = Err(format!("{path}: {}", error.desc()));
                self.follow_up.push_back(Event::PidFileRead { unit, result });
            }
        }
    }

    /// The helper's answer.
    pub(crate) fn pid_file_answered(&mut self, unit: UnitName, path: &str, answer: &str) {
        self.pid_files.asked.remove(&unit);
        let mut words = answer.split_whitespace();
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok());
        let said = match (number(words.next()), number(words.next())) {
            (Some(pid), Some(owner)) => Ok((pid, owner)),
            _ => Err(answer.trim().to_owned()),
        };
        let result = said.and_then(|said| self.pid_file_said(path, said));
        self.deliver(Event::PidFileRead { unit, result });
    }

    fn pid_file_said(&self, path: &str, (pid, owner_uid): (u32, u32)) -> Result<PidFileFound, String> {
        if !crate::processes::is_alive(pid) {
            return Err(format!("{path} names process {pid}, which does not exist or is a zombie"));
        }
        Ok(PidFileFound { pid, cgroup: self.cgroups.of_process(pid), owner_uid })
    }

    /// Reads one again at each change, beginning now.
    pub(crate) fn watch_pid_file(&mut self, unit: UnitName, path: String) {
        if self.pid_files.waiting.insert(unit.clone(), path.clone()).as_deref() != Some(path.as_str()) {
            self.follow_pid_file(&path);
            self.ask_pid_file(unit, &path);
        }
    }

    /// The nearest directory on the way that exists tells of the next step.
    fn follow_pid_file(&mut self, path: &str) {
        if self.watch_way(path).is_none() {
            let at = clock::monotonic_usec().saturating_add(RETRY_USEC);
            self.pid_files.retry_usec = Some(at);
        }
    }

    /// Nothing where the way leads out of /run, or cannot be watched.
    fn watch_way(&mut self, path: &str) -> Option<()> {
        let path = local::below_run(path)?;
        if self.pid_files.changes.is_none() {
            let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
            let changes = Inotify::init(flags).ok()?;
            let token = self.register_raw(changes.as_fd().as_raw_fd(), Source::PidFiles).ok()?;
            self.still_ready(token);
            self.pid_files.changes = Some(changes);
        }
        let changes = self.pid_files.changes.as_ref()?;
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        for directory in Path::new(path).ancestors().skip(1) {
            match local::open_directory_below_run(&directory.to_string_lossy()) {
                // What was found is not looked up again: it could be a mount by now.
                Ok(found) => {
                    let place = format!("/proc/self/fd/{}", found.as_raw_fd());
                    return changes.add_watch(place.as_str(), flags).ok().map(drop);
                }
                Err(Errno::ENOENT) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Something changed on the way to one of them, or it is time to look again.
    pub(crate) fn pid_files_changed(&mut self) {
        if let Some(changes) = &self.pid_files.changes {
            while changes.read_events().is_ok() {}
        }
        self.pid_files.retry_usec = None;
        for (unit, path) in self.pid_files.waiting.clone() {
            self.follow_pid_file(&path);
            self.ask_pid_file(unit, &path);
        }
        self.work_off();
        if self.pid_files.waiting.is_empty() {
            // Its watches go with it.
            let token = self.token_of(Source::PidFiles);
            if let (Some(changes), Some(token)) = (self.pid_files.changes.take(), token) {
                self.deregister(token, changes.as_fd());
            }
        }
    }
}

fn look_below_run(path: &str) -> Result<(u32, u32), Errno> {
    let (file, parent) = local::open_below_run(path)?;
    read(file, fstat(&parent)?.st_uid)
}

/// The number in an open file, and who vouches for it.
fn read(file: OwnedFd, directory_uid: u32) -> Result<(u32, u32), Errno> {
    let stat = fstat(&file)?;
    if stat.st_mode & nix::libc::S_IFMT != nix::libc::S_IFREG {
        return Err(Errno::EINVAL);
    }
    let mut text = String::new();
    File::from(file).take(FILE_MAX).read_to_string(&mut text).map_err(|_| Errno::EINVAL)?;
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).ok_or(Errno::ENODATA)?;
    // Where the directory is another's, that one chose what lies in it.
    let alone = directory_uid == 0 || directory_uid == stat.st_uid;
    Ok((pid, if alone { stat.st_uid } else { u32::MAX }))
}

/// The helper: prints number and owner, or what is wrong.
pub fn run(path: &str) -> ExitCode {
    let said = look_anywhere(path);
    match said {
        Ok((pid, owner)) => println!("{pid} {owner}"),
        Err(error) => println!("{path}: {}", error.desc()),
    }
    ExitCode::SUCCESS
}

fn look_anywhere(path: &str) -> Result<(u32, u32), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let (file, direct) = match openat2(AT_FDCWD, path, how) {
        Err(Errno::ELOOP) => (open(path, flags, Mode::empty())?, false),
        opened => (opened?, true),
    };
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    let directory_uid = nix::sys::stat::stat(parent)?.st_uid;
    let (pid, owner) = read(file, directory_uid)?;
    // Whoever made a link chose what it leads to.
    Ok((pid, if direct { owner } else { u32::MAX }))
}
