//! The one reaper: look at a zombie, let it be handled, then take it away.

use muster_manager::event::Exit;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// The next child that ended, still a zombie: its number is nobody else's until [`reap`].
pub fn next() -> Option<(u32, Exit)> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        return match waitid(Id::All, flags) {
            Ok(WaitStatus::Exited(pid, code)) => Some((number(pid), Exit::Exited(code))),
            Ok(WaitStatus::Signaled(pid, signal, false)) => Some((number(pid), Exit::Killed(signal as i32))),
            Ok(WaitStatus::Signaled(pid, signal, true)) => Some((number(pid), Exit::Dumped(signal as i32))),
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) | Err(_) => None,
        };
    }
}

/// Takes a zombie away.
pub fn reap(pid: u32) {
    if let Ok(raw) = i32::try_from(pid) {
        let _ = waitid(Id::Pid(Pid::from_raw(raw)), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }
}

fn number(pid: Pid) -> u32 {
    u32::try_from(pid.as_raw()).unwrap_or(0)
}
