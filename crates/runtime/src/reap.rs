//! The one reaper: look at a zombie, let it be handled, then take it away.

use muster_manager::event::Exit;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// The next child that ended, still a zombie: its number is nobody else's until [`reap`].
pub fn next() -> Option<(u32, Exit)> {
    loop {
        return match muster_sys::next_zombie() {
            Ok(Some((pid, nix::libc::CLD_KILLED, signal))) => Some((pid, Exit::Killed(signal))),
            Ok(Some((pid, nix::libc::CLD_DUMPED, signal))) => Some((pid, Exit::Dumped(signal))),
            Ok(Some((pid, _, code))) => Some((pid, Exit::Exited(code))),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(None) | Err(_) => None,
        };
    }
}

/// Whether a child has ended.
pub fn is_due() -> bool {
    next().is_some()
}

/// Takes a zombie away.
pub fn reap(pid: u32) {
    if let Ok(raw) = i32::try_from(pid) {
        let _ = waitid(Id::Pid(Pid::from_raw(raw)), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }
}
