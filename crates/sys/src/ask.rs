//! Questions that may hang, asked by a copy of this process: it answers them one by one on a page that both see, and is
//! gone.
//!
//! What must stay true: the copy never returns into the loop of the process it was made of; it has none of the descriptors
//! of that process, and closes none of them (close(2) may wait as well).

use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes that both processes see; the last owner unmaps them.
#[derive(Debug)]
pub struct Answers {
    page: *mut libc::c_void,
    count: usize,
}

impl Answers {
    fn map(count: usize) -> io::Result<Answers> {
        let length = NonZeroUsize::new(count).map_or(1, NonZeroUsize::get);
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping at an address that the kernel chooses.
        let page = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Answers { page, count }) }
    }

    fn cells(&self) -> &[AtomicU8] {
        // SAFETY: the mapping is at least `count` bytes long, lives as long as `self`, and is touched by atomics only.
        unsafe { std::slice::from_raw_parts(self.page.cast::<AtomicU8>(), self.count) }
    }

    /// What was answered until now, in order; nothing for a question that is still open.
    pub fn read(&self) -> Vec<Option<bool>> {
        let of = |cell: &AtomicU8| match cell.load(Ordering::Acquire) {
            0 => None,
            other => Some(other == 2),
        };
        self.cells().iter().map(of).collect()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`, with this length, and unmapped nowhere else. The other process has a mapping of its own.
        unsafe { libc::munmap(self.page, self.count.max(1)) };
    }
}

/// Has a child answer `count` questions, in order. Gives its number and where the answers will be. The child ends when it
/// has answered all; whoever gives up on it kills it.
pub fn ask_elsewhere(count: usize, answer: impl Fn(usize) -> bool) -> io::Result<(u32, Answers)> {
    let answers = Answers::map(count)?;
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack given the child goes on on a copy of this one, as after fork(2). This
    // process has one thread, so that no lock is held in the copy. It leaves by _exit below.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, 0, 0, 0) };
    match pid {
        0 => {
            // SAFETY: no pointers. The table of descriptors is shared until this call, which gives the child a table of
            // its own without those from 3 on: they are not copied, so none is closed.
            unsafe {
                let flags = libc::CLOSE_RANGE_UNSHARE;
                if libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) < 0 {
                    libc::_exit(1);
                }
                for signal in 1..libc::SIGRTMAX() {
                    libc::signal(signal, libc::SIG_DFL);
                }
            }
            let _ = catch_unwind(AssertUnwindSafe(|| {
                for (at, cell) in answers.cells().iter().enumerate() {
                    cell.store(if answer(at) { 2 } else { 1 }, Ordering::Release);
                }
            }));
            // SAFETY: ends the child at once, and runs nothing of the parent's.
            unsafe { libc::_exit(0) }
        }
        pid if pid > 0 => Ok((pid as u32, answers)),
        _ => Err(io::Error::last_os_error()),
    }
}
