//! The end: end what is left, write out, unmount, and go (systemd-shutdown(8)).

use muster_manager::event::ShutdownVerb;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long processes have between SIGTERM and SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);
/// File systems that hold nothing to lose.
const API: &[&str] = &[
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "pstore",
    "bpf",
    "mqueue",
    "hugetlbfs",
    "configfs",
    "fusectl",
    "efivarfs",
    "rootfs",
    "autofs",
    "binfmt_misc",
];

/// Leaves. On a machine this does not come back.
pub fn leave(verb: ShutdownVerb, exit_code: u8) -> ExitCode {
    end_processes();
    nix::unistd::sync();
    if verb == ShutdownVerb::Exit {
        return ExitCode::from(exit_code);
    }
    if !crate::stage::in_container() {
        unmount_all();
        nix::unistd::sync();
    }
    let mode = match verb {
        ShutdownVerb::Poweroff | ShutdownVerb::Exit => RebootMode::RB_POWER_OFF,
        ShutdownVerb::Reboot | ShutdownVerb::SoftReboot => RebootMode::RB_AUTOBOOT,
        ShutdownVerb::Halt => RebootMode::RB_HALT_SYSTEM,
        ShutdownVerb::Kexec => RebootMode::RB_KEXEC,
    };
    if let (RebootMode::RB_AUTOBOOT, Ok(argument)) = (mode, std::fs::read("/run/systemd/reboot-param")) {
        // It comes back only where the kernel refuses; a plain reboot follows.
        let _ = muster_sys::reboot_with(argument.trim_ascii());
    }
    // In a container this ends process 1 by a signal that tells the container manager which of the two it was
    // (pid_namespaces(7)); one without the right to do so just leaves.
    if reboot(mode).is_err() && !crate::stage::in_container() {
        // A kernel without a loaded image cannot kexec; a plain reboot is what is meant.
        let _ = reboot(RebootMode::RB_AUTOBOOT);
    }
    ExitCode::from(exit_code)
}

/// SIGTERM for all, SIGKILL for who stays.
fn end_processes() {
    for (signal, patience) in [(Signal::SIGTERM, PATIENCE), (Signal::SIGKILL, Duration::from_secs(2))] {
        if !others() {
            return;
        }
        let _ = kill(Pid::from_raw(-1), signal);
        let _ = kill(Pid::from_raw(-1), Signal::SIGCONT);
        let begin = Instant::now();
        while others() && begin.elapsed() < patience {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => pause(),
                Ok(_) => {}
            }
        }
    }
}

/// Waits for a child, or 10 ms: processes that are not our children end without telling us.
fn pause() {
    let mut mask = nix::sys::signal::SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let _ = mask.thread_block();
    if let Ok(fd) = nix::sys::signalfd::SignalFd::new(&mask) {
        let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&fd), nix::poll::PollFlags::POLLIN)];
        let _ = nix::poll::poll(&mut fds, 10_u16);
    }
}

/// Whether any process but us and the kernel's is there.
fn others() -> bool {
    let listing = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let mut pids = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.any(|pid| {
        pid > 1 && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    })
}

/// Unmounts from the last mount to the first, some rounds, and makes the root read-only.
fn unmount_all() {
    for _ in 0..8 {
        let Ok(table) = std::fs::read_to_string("/proc/self/mounts") else { break };
        let mounts: Vec<(&str, &str)> = table
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ');
                let (place, kind) = (fields.nth(1)?, fields.next()?);
                (place != "/" && !API.contains(&kind)).then_some((place, kind))
            })
            .collect();
        let mut progress = false;
        for (place, _) in mounts.iter().rev() {
            let place = place.replace("\\040", " ");
            progress |= umount2(place.as_str(), MntFlags::UMOUNT_NOFOLLOW).is_ok();
        }
        if !progress {
            break;
        }
    }
    let _ = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>);
}
