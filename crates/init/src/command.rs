//! A container that runs one command: `muster -- COMMAND`. It forwards signals, reaps whoever is left to it, and ends with the
//! status of the command: its own, or 128 and the signal that ended it.
//!
//! What must stay true: nothing is set up and nothing else runs; a signal that the terminal sent to all in front of it is not
//! sent a second time. When this process ends as PID 1, the kernel ends all that are left.

use muster_manager::event::Exit;
use muster_runtime::reap;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// What a fault of our own raises: never held back.
const FAULTS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];
/// What a terminal sends to all in front of it, the command included.
const OF_TERMINAL: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGWINCH];
/// Of shells: what could not be executed, and what is not there.
const NOT_EXECUTED: u8 = 126;
const NOT_FOUND: u8 = 127;
/// What a shell adds to the number of a signal.
const BY_SIGNAL: u8 = 128;

/// Runs the command to its end.
pub fn run(program: &str, arguments: &[&str]) -> ExitCode {
    match carry_out(program, arguments) {
        Ok(status) => ExitCode::from(status),
        Err((status, message)) => {
            eprintln!("muster: {program}: {message}");
            ExitCode::from(status)
        }
    }
}

/// The argument of the child that becomes the command.
pub const BECOME: &str = "--become";

/// What the child does.
pub fn become_it(program: &str, arguments: &[&str]) -> ExitCode {
    let _ = SigSet::empty().thread_set_mask();
    let error = Command::new(program).args(arguments).exec();
    eprintln!("muster: {program}: {error}");
    let found = error.kind() != std::io::ErrorKind::NotFound;
    ExitCode::from(if found { NOT_EXECUTED } else { NOT_FOUND })
}

type Failed = (u8, String);

fn carry_out(program: &str, arguments: &[&str]) -> Result<u8, Failed> {
    let failed = |error: Errno| (NOT_EXECUTED, error.to_string());
    let mut mask = SigSet::all();
    FAULTS.iter().for_each(|fault| mask.remove(*fault));
    mask.thread_block().map_err(failed)?;
    let signals = SignalFd::new(&mask).map_err(failed)?;
    if std::process::id() != 1 {
        // Orphans come to us all the same.
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }
    // A child begins with the signals held back that we hold back: it lets go of them, and becomes the command.
    let mut child = Command::new("/proc/self/exe");
    child.args([BECOME, program]).args(arguments);
    let child = child.spawn().map_err(|error| (NOT_EXECUTED, error.to_string()))?;
    let held = muster_sys::pidfd_open(child.id()).map_err(|error| (NOT_EXECUTED, error.to_string()))?;
    loop {
        let Ok(Some(heard)) = signals.read_signal() else { continue };
        let number = i32::try_from(heard.ssi_signo).unwrap_or(0);
        if number == libc::SIGCHLD {
            if let Some(status) = reap(child.id()) {
                return Ok(status);
            }
        } else if !(heard.ssi_code == libc::SI_KERNEL && OF_TERMINAL.contains(&number)) {
            forward(&held, number);
        }
    }
}

fn forward(held: &OwnedFd, number: i32) {
    // One that has just ended is reaped next.
    let _ = muster_sys::pidfd_send_signal(held.as_fd(), number);
}

/// Takes all zombies away; the status of the command, if it is among them.
fn reap(command: u32) -> Option<u8> {
    let mut found = None;
    while let Some((pid, exit)) = reap::next() {
        if pid == command {
            found = Some(status(exit));
        }
        reap::reap(pid);
    }
    found
}

fn status(exit: Exit) -> u8 {
    match exit {
        Exit::Exited(code) => u8::try_from(code).unwrap_or(u8::MAX),
        Exit::Killed(signal) | Exit::Dumped(signal) => {
            BY_SIGNAL.saturating_add(u8::try_from(signal).unwrap_or(0))
        }
        Exit::NotMade => NOT_EXECUTED,
    }
}
