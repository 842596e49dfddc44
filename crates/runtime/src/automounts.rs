//! autofs for automounts (systemd.automount(5)): its pipe, from which PID 1 reads what the kernel asks, and helpers that
//! mount, answer, expire and unmount, `muster --automount`, since a path may lead to a file system that does not answer.
//!
//! The helpers stay in the process group of PID 1, whose members autofs lets through; so does mount(8) of a mount unit. What
//! must stay true: PID 1 never walks the path of an automount, and never waits for a helper.

use crate::processes::Helper;
use crate::turn::{Runtime, Source};
use mio::Token;
use muster_manager::effect::FdId;
use muster_manager::event::{AutomountAsk, Event, Exit};
use muster_unit::UnitName;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::process::{Command, ExitCode, Stdio};

/// The argument that makes this program the helper.
pub const ARGUMENT: &str = "--automount";
/// The longest request of the kernel (`struct autofs_v5_packet`), in bytes.
const PACKET_MAX: usize = 512;
/// Kinds of requests (Linux, include/uapi/linux/auto_fs.h).
const MISSING_DIRECT: u32 = 5;
const EXPIRE_DIRECT: u32 = 6;
/// At most this many mounts on a place are taken away.
const LAYERS_MAX: usize = 64;

/// The pipes of automounts that are up.
#[derive(Debug, Default)]
pub struct Automounts {
    pipes: BTreeMap<FdId, (UnitName, Token)>,
}

/// What a helper does for an automount; what its end means.
#[derive(Debug)]
#[allow(missing_docs)] // the variants say what their fields are
pub enum AutomountHelp {
    /// It mounts autofs, which asks through this pipe.
    Open { unit: UnitName, pipe: OwnedFd, answer: io::PipeReader },
    /// It unmounts it.
    Close { unit: UnitName },
    /// It asks whether the mount is idle.
    Expire { unit: UnitName },
    /// It answers the kernel.
    Answer,
}

impl Runtime {
    /// Mounts autofs on a place. Answer: `AutomountOpened`.
    pub(crate) fn open_automount(&mut self, unit: UnitName, arguments: &[&str]) {
        if let Err(error) = self.start_opening(unit.clone(), arguments) {
            let result = Err(format!("autofs could not be mounted: {error}"));
            self.follow_up.push_back(Event::AutomountOpened { unit, result });
        }
    }

    fn start_opening(&mut self, unit: UnitName, arguments: &[&str]) -> io::Result<()> {
        let (pipe, kernels) = io::pipe()?;
        let pipe = OwnedFd::from(pipe);
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(io::Error::from)?;
        let (answer, output) = io::pipe()?;
        let mut command = Command::new(&self.program);
        command.args([ARGUMENT, "open"]).args(arguments).stdin(kernels).stdout(output).current_dir("/");
        let child = command.stderr(Stdio::null()).spawn()?;
        let help = AutomountHelp::Open { unit, pipe, answer };
        self.processes.add_helper(child.id(), Helper::Automount(help));
        Ok(())
    }

    /// Unmounts it, and what is mounted on it. Answer: `AutomountClosed`.
    pub(crate) fn close_automount(&mut self, unit: UnitName, place: &str) {
        let help = Helper::Automount(AutomountHelp::Close { unit: unit.clone() });
        if !self.run_helper(&[ARGUMENT, "close", place], help) {
            self.follow_up.push_back(Event::AutomountClosed { unit });
        }
    }

    /// Has it unmount what is idle. Answer: `AutomountLooked`.
    pub(crate) fn expire_automount(&mut self, unit: UnitName, place: &str, device: u32) {
        let help = Helper::Automount(AutomountHelp::Expire { unit: unit.clone() });
        if !self.run_helper(&[ARGUMENT, "expire", place, &device.to_string()], help) {
            self.follow_up.push_back(Event::AutomountLooked { unit });
        }
    }

    /// Tells the kernel what became of its requests.
    pub(crate) fn answer_automount(&mut self, place: &str, device: u32, tokens: &[u32], errno: i32) {
        let numbers: Vec<String> = [device.to_string(), errno.to_string()]
            .into_iter()
            .chain(tokens.iter().map(ToString::to_string))
            .collect();
        let mut arguments = vec![ARGUMENT, "answer", place];
        arguments.extend(numbers.iter().map(String::as_str));
        self.run_helper(&arguments, Helper::Automount(AutomountHelp::Answer));
    }

    /// A helper ended.
    pub(crate) fn automount_helper_ended(&mut self, help: AutomountHelp, exit: Exit) {
        match help {
            AutomountHelp::Open { unit, pipe, answer } => {
                let said = crate::processes::answer_in(answer);
                let said = said.trim();
                let result = match said.parse::<u32>() {
                    Ok(device) if exit == Exit::Exited(0) => Ok((self.fds.insert(pipe), device)),
                    _ if said.is_empty() => Err("The helper that mounts autofs failed.".to_owned()),
                    _ => Err(said.to_owned()),
                };
                self.deliver(Event::AutomountOpened { unit, result });
            }
            AutomountHelp::Close { unit } => self.deliver(Event::AutomountClosed { unit }),
            AutomountHelp::Expire { unit } => self.deliver(Event::AutomountLooked { unit }),
            AutomountHelp::Answer => {}
        }
    }

    /// Hears what the kernel asks.
    pub(crate) fn watch_automount(&mut self, unit: UnitName, pipe: FdId) {
        let Some(raw) = self.fds.get(pipe).map(|fd| fd.as_raw_fd()) else {
            return self.follow_up.push_back(Event::AutomountHungUp { unit });
        };
        if let Ok(token) = self.register_raw(raw, Source::Automount(pipe)) {
            self.automounts.pipes.insert(pipe, (unit, token));
            self.still_ready(token);
        }
    }

    /// Hears it no longer: the kernel then lets everybody through to the empty place.
    pub(crate) fn unwatch_automount(&mut self, pipe: FdId) {
        let watched = self.automounts.pipes.remove(&pipe);
        let Some(fd) = self.fds.remove(pipe) else { return };
        if let Some((_, token)) = watched {
            self.deregister(token, fd.as_fd());
        }
    }

    /// The kernel asks, or the pipe hung up.
    pub(crate) fn automount_ready(&mut self, pipe: FdId) {
        loop {
            let Some((unit, _)) = self.automounts.pipes.get(&pipe) else { return };
            let unit = unit.clone();
            let Some(fd) = self.fds.get(pipe) else { return };
            let mut bytes = [0_u8; PACKET_MAX];
            match nix::unistd::read(fd, &mut bytes) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) | Ok(0) => {
                    return self.deliver(Event::AutomountHungUp { unit });
                }
                Ok(length) => {
                    if let Some(ask) = bytes.get(..length).and_then(request) {
                        self.deliver(Event::AutomountAsked { unit, ask });
                    }
                }
            }
        }
    }
}

/// A request as the manager wants it. The layout is the kernel's: version, kind, token, device, inode, uid, gid, pid.
fn request(bytes: &[u8]) -> Option<AutomountAsk> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let (kind, token, pid) = (word(4)?, word(8)?, word(32)?);
    match kind {
        MISSING_DIRECT => {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Some(AutomountAsk::Mount { token, pid, comm: comm.trim().to_owned() })
        }
        EXPIRE_DIRECT => Some(AutomountAsk::Expire { token }),
        _ => None,
    }
}

/// The helper itself.
pub fn run(arguments: &[&str]) -> ExitCode {
    let done = match arguments {
        ["open", place, mode, options, idle_sec, again] => {
            open(place, mode, options, idle_sec, *again == "again").map(|device| println!("{device}"))
        }
        ["close", place] => {
            close(place);
            Ok(())
        }
        ["expire", place, device] => with_mount(place, device)
            .and_then(|(control, mount)| muster_sys::autofs_expire(control.as_fd(), mount.as_fd())),
        ["answer", place, device, errno, tokens @ ..] => answer(place, device, errno, tokens),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Of the others nobody reads it, and that nothing is idle is no error.
            if arguments.first() == Some(&"open") {
                println!("autofs could not be mounted: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The control device, and the autofs on a place.
fn with_mount(place: &str, device: &str) -> io::Result<(File, OwnedFd)> {
    let control = File::open("/dev/autofs")?;
    let place = CString::new(place)?;
    let device = device.parse().map_err(io::Error::other)?;
    let mount = muster_sys::autofs_open(control.as_fd(), &place, device)?;
    Ok((control, mount))
}

/// Mounts autofs, whose requests go to standard input; gives its device number.
fn open(place: &str, mode: &str, options: &str, idle_sec: &str, again: bool) -> io::Result<u32> {
    let control = File::open("/dev/autofs")?;
    let mode = mode.parse().map_err(io::Error::other)?;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(place)?;
    if again {
        close(place);
    }
    let (flags, extra) = split(options);
    // The pipe is this descriptor, and who is let through is our process group.
    let mut data = "fd=0,minproto=5,maxproto=5,direct".to_owned();
    for option in extra {
        data.push(',');
        data.push_str(option);
    }
    mount(Some("systemd-1"), place, Some("autofs"), flags, Some(data.as_str()))?;
    let ready = || {
        let device = u32::try_from(std::fs::metadata(place)?.dev()).map_err(io::Error::other)?;
        let mount = muster_sys::autofs_open(control.as_fd(), &CString::new(place)?, device)?;
        let seconds = idle_sec.parse().map_err(io::Error::other)?;
        muster_sys::autofs_set_timeout(control.as_fd(), mount.as_fd(), seconds)?;
        Ok(device)
    };
    ready().inspect_err(|_| {
        let _ = umount2(place, MntFlags::MNT_DETACH);
    })
}

/// The options that mount(2) has flags for, and the others.
fn split(options: &str) -> (MsFlags, Vec<&str>) {
    let mut flags = MsFlags::empty();
    let mut others = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" | "defaults" => {}
            "ro" => flags |= MsFlags::MS_RDONLY,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            other => others.push(other),
        }
    }
    (flags, others)
}

/// Takes away all that is mounted on a place.
fn close(place: &str) {
    for _ in 0..LAYERS_MAX {
        if umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_err() {
            return;
        }
    }
}

/// Answers every request, whatever became of those before it.
fn answer(place: &str, device: &str, errno: &str, tokens: &[&str]) -> io::Result<()> {
    let (control, mount) = with_mount(place, device)?;
    let errno = errno.parse().map_err(io::Error::other)?;
    let mut done = Ok(());
    for token in tokens.iter().filter_map(|token| token.parse().ok()) {
        let answered = muster_sys::autofs_answer(control.as_fd(), mount.as_fd(), token, errno);
        done = done.and(answered);
    }
    done
}
