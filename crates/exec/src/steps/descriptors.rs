//! The passed descriptors (sd_listen_fds(3)).

use super::{About, Direct, Step, always};
use crate::{Exit, FIRST_FD, Process};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use std::os::fd::AsFd;

/// Moves them down to 3, and names them.
pub const PASSED: Step = Step {
    directive: "descriptors",
    exit: Exit::Fds,
    needed: always,
    direct: Direct::By(|context, draft| {
        let count = context.fd_names.len();
        if count > 0 {
            draft.environment.insert("LISTEN_FDS".to_owned(), count.to_string());
            draft.environment.insert("LISTEN_FDNAMES".to_owned(), context.fd_names.join(":"));
            draft.own_numbers.push("LISTEN_PID");
        }
        Some(())
    }),
    run: |context, process| {
        let count = context.fd_names.len();
        for (target, fd) in (3_i32..).zip(process.fds.iter().take(count)) {
            let copy = Process::copy(*fd).about("descriptors")?;
            muster_sys::place_fd(copy.as_fd(), target).about("descriptors")?;
            set_blocking(target, !context.non_blocking);
        }
        let first_extra = i32::try_from(count).unwrap_or(0).saturating_add(3);
        for fd in first_extra..FIRST_FD.saturating_add(i32::try_from(process.fds.len()).unwrap_or(0)) {
            match fcntl(muster_sys::borrow_fd(fd), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
                // The plan and the report stood here, too.
                Err(Errno::EBADF) => {}
                done => drop(done.about("descriptors")?),
            }
        }
        if count > 0 {
            process.set("LISTEN_PID", std::process::id().to_string());
            process.set("LISTEN_FDS", count.to_string());
            process.set("LISTEN_FDNAMES", context.fd_names.join(":"));
        }
        Ok(())
    },
};

/// Sets or clears O_NONBLOCK of an open file.
pub(super) fn set_blocking(fd: i32, blocking: bool) {
    let fd = muster_sys::borrow_fd(fd);
    if let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) {
        let mut flags = OFlag::from_bits_retain(flags);
        flags.set(OFlag::O_NONBLOCK, !blocking);
        let _ = fcntl(fd, FcntlArg::F_SETFL(flags));
    }
}
