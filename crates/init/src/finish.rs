//! The end: end what is left, write out, unmount, and go (systemd-shutdown(8)).

use muster_manager::Manager;
use muster_manager::event::ShutdownVerb;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long processes have between SIGTERM and SIGKILL.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The same where nobody is waited for.
pub const SHORT: Duration = Duration::ZERO;
/// How long the kernel may take for a process that was killed.
const LAST: Duration = Duration::from_secs(2);
/// systemd's own program for the end of a machine (systemd-shutdown(8)).
const STOCK: &CStr = c"/usr/lib/systemd/systemd-shutdown";
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

/// Leaves, by the stock program where it is there. On a machine this does not come back.
pub fn leave(verb: ShutdownVerb, exit_code: u8, manager: Option<&Manager>) -> ExitCode {
    // Only a container has somebody to leave for (systemctl(1), `exit`).
    let verb = match verb {
        ShutdownVerb::Exit if manager.is_some() && !crate::stage::in_container() => ShutdownVerb::Poweroff,
        verb => verb,
    };
    if let Some(manager) = manager {
        execute_stock(verb, exit_code, manager);
    }
    end_processes();
    nix::unistd::sync();
    if verb == ShutdownVerb::Exit {
        return ExitCode::from(exit_code);
    }
    if !crate::stage::in_container() {
        switch_swaps_off();
        // What lies on a loop device can hold a file system that holds the next one.
        for _ in 0..8 {
            unmount_all();
            if !detach_loops() {
                break;
            }
        }
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

/// Becomes the stock program; comes back where that is not there.
fn execute_stock(verb: ShutdownVerb, exit_code: u8, manager: &Manager) {
    let state = manager.state();
    let word = match verb {
        ShutdownVerb::Poweroff => "poweroff",
        ShutdownVerb::Reboot | ShutdownVerb::SoftReboot => "reboot",
        ShutdownVerb::Halt => "halt",
        ShutdownVerb::Kexec => "kexec",
        ShutdownVerb::Exit => "exit",
    };
    const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
    let target = match state.log_target.as_str() {
        "console" | "console-prefixed" | "kmsg" | "null" => state.log_target.as_str(),
        _ if crate::stage::in_container() => "console",
        _ => "kmsg",
    };
    let arguments = [
        word.to_owned(),
        format!("--timeout={}us", state.facts.default_timeout_stop_usec),
        "--log-level".to_owned(),
        LEVELS.get(usize::from(state.log_level)).copied().unwrap_or("info").to_owned(),
        format!("--log-target={target}"),
        format!("--exit-code={exit_code}"),
    ];
    // A hardware watchdog stays armed, and is watched over by that program from now on.
    let device = Some(state.hardware.device.clone()).filter(|device| !device.is_empty());
    let variables = [
        Some(("WATCHDOG_PID", "1".to_owned())),
        Some(("WATCHDOG_USEC", manager.hardware_usec_of_end(verb).to_string())),
        device.map(|device| ("WATCHDOG_DEVICE", device)),
    ];
    let variables =
        variables.into_iter().flatten().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let arguments: Vec<CString> =
        std::iter::once(STOCK.to_owned()).chain(arguments.into_iter().filter_map(c_string)).collect();
    let environment: Vec<CString> = variables
        .chain(std::env::vars_os())
        .filter_map(|(name, value)| c_string([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect();
    muster_sys::reset_signals(&[]);
    let _ = SigSet::empty().thread_set_mask();
    let _ = nix::unistd::execve(STOCK, &arguments, &environment);
}

fn c_string(text: impl Into<Vec<u8>>) -> Option<CString> {
    CString::new(text).ok()
}

/// SIGTERM, after `patience` SIGKILL, for all but those that are spared. Nobody is reaped.
pub fn end_all_but(patience: Duration, spared: impl Fn(u32) -> bool) {
    let running = || -> Vec<u32> { processes().filter(|pid| !spared(*pid)).collect() };
    for (signal, patience) in [(Signal::SIGTERM, patience), (Signal::SIGKILL, LAST)] {
        let begin = Instant::now();
        let mut told = BTreeSet::new();
        loop {
            let now = running();
            // Who came meanwhile is told as well.
            for pid in now.iter().filter(|pid| told.insert(**pid)) {
                if let Ok(pid) = i32::try_from(*pid).map(Pid::from_raw) {
                    let _ = kill(pid, signal);
                    let _ = kill(pid, Signal::SIGCONT);
                }
            }
            if now.is_empty() || begin.elapsed() >= patience {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// SIGTERM for all, SIGKILL for who stays.
fn end_processes() {
    for (signal, patience) in [(Signal::SIGTERM, PATIENCE), (Signal::SIGKILL, LAST)] {
        if processes().next().is_none() {
            return;
        }
        let _ = kill(Pid::from_raw(-1), signal);
        let _ = kill(Pid::from_raw(-1), Signal::SIGCONT);
        let begin = Instant::now();
        while processes().next().is_some() && begin.elapsed() < patience {
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

/// All that run but us and the kernel's.
fn processes() -> impl Iterator<Item = u32> {
    let listing = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        *pid > 1 && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    })
}

/// Takes back what is in swaps.
fn switch_swaps_off() {
    let table = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    for path in table.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        if let Some(path) = c_string(path.replace("\\040", " ")) {
            let _ = muster_sys::swap_off(&path);
        }
    }
}

/// Takes the files from loop devices that nobody uses any more; whether there was one.
fn detach_loops() -> bool {
    let mut any = false;
    for entry in std::fs::read_dir("/sys/block").into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("loop") || !entry.path().join("loop/backing_file").exists() {
            continue;
        }
        let device = std::fs::File::open(format!("/dev/{name}"));
        any |= device.is_ok_and(|device| muster_sys::detach_loop(std::os::fd::AsFd::as_fd(&device)).is_ok());
    }
    any
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
