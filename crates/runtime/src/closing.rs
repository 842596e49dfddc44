//! Closing of descriptors that others made.
//!
//! close(2) flushes, and a file system may take for ever over that (a FUSE server that does not answer, a dead NFS server);
//! a socket with `SO_LINGER` waits for its peer. What must stay true: PID 1 never closes such a descriptor itself. At the end
//! of a turn a child that shares the table of descriptors closes what has gathered (DESIGN rule 2).

use crate::processes::Helper;
use crate::turn::Runtime;
use muster_manager::effect::Level;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use std::os::fd::{AsFd, OwnedFd};

/// The most closing children at a time. When all of them hang, further descriptors wait.
const CLOSERS_MAX: usize = 64;
/// One child closes at most this many.
const BATCH_MAX: usize = 256;

/// What is to be closed.
#[derive(Debug, Default)]
pub struct Closing {
    doomed: Vec<OwnedFd>,
    closers: usize,
    said: bool,
}

impl Closing {
    /// Has a child close a descriptor, whatever it looks like.
    pub(crate) fn add(&mut self, fd: OwnedFd) {
        self.doomed.push(fd);
    }
}

impl Runtime {
    /// Closes a descriptor that somebody else made: at once where that cannot wait.
    pub(crate) fn close_foreign(&mut self, fd: OwnedFd) {
        if closes_at_once(&fd) { drop(fd) } else { self.closing.doomed.push(fd) }
    }

    /// At the end of a turn.
    pub(crate) fn close_what_may_hang(&mut self) {
        for fd in muster_bus::take_unclosed() {
            self.close_foreign(fd);
        }
        while !self.closing.doomed.is_empty() && self.closing.closers < CLOSERS_MAX {
            let kept = self.closing.doomed.len().saturating_sub(BATCH_MAX);
            let batch = self.closing.doomed.split_off(kept);
            match muster_sys::close_elsewhere(batch) {
                Ok(pid) => {
                    self.closing.closers = self.closing.closers.saturating_add(1);
                    self.processes.add_helper(pid, Helper::Closer);
                }
                Err((_, batch)) => {
                    // No process can be made now. They stay open until the next turn.
                    self.closing.doomed.extend(batch);
                    return;
                }
            }
        }
        if self.closing.closers >= CLOSERS_MAX && !self.closing.said {
            self.closing.said = true;
            self.note(
                Level::Warning,
                "Descriptors that others made stay open: too many hang while they are closed.",
            );
        }
    }

    /// A child that closed ended.
    pub(crate) fn closer_ended(&mut self) {
        self.closing.closers = self.closing.closers.saturating_sub(1);
        self.closing.said = false;
    }
}

/// Whether close(2) of a descriptor cannot wait: a socket that does not linger, a pipe (sd_notify_barrier(3) sends one), a
/// pidfd, memory. What is none of these refuses the call by its kind alone: no file system is asked.
fn closes_at_once(fd: &OwnedFd) -> bool {
    getsockopt(fd, sockopt::Linger).is_ok_and(|linger| linger.l_onoff == 0)
        || fcntl(fd, FcntlArg::F_GETPIPE_SZ).is_ok()
        || fcntl(fd, FcntlArg::F_GET_SEALS).is_ok()
        || muster_sys::pidfd_send_signal(fd.as_fd(), 0).is_ok()
}
