//! clone3(2) and what runs between it and exec: place descriptors, exec, nothing else.
//!
//! The child makes system calls only: no allocation, no lock, no library state. Where the kernel or a container's
//! filter refuses clone3 or CLONE_INTO_CGROUP, a plain fork takes its place, and the child enters the cgroup by itself.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A process that was made.
#[derive(Debug)]
pub struct Spawned {
    /// Its number.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// What a child exits with when it could not become the program.
const EXEC_FAILED: i32 = 203;

/// Starts `program` with `argv` and no environment. `fds` become descriptors 3, 4, …; all others that are close-on-exec
/// go. With `cgroup` the process begins its life there.
pub fn spawn(program: &CStr, argv: &[&CStr], fds: &[BorrowedFd<'_>], cgroup: Option<BorrowedFd<'_>>) -> io::Result<Spawned> {
    let mut pointers: Vec<*const libc::c_char> = argv.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    // Where the descriptors are parked, so that none overwrites another: prepared before the clone.
    let mut parked: Vec<RawFd> = vec![-1; raw.len()];
    let procs = c"cgroup.procs";
    let refused = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | libc::EBUSY));
    let (made, enter) = match clone_process(cgroup) {
        Err(error) if refused(&error) => (clone_process(None).or_else(|error| if refused(&error) { fork() } else { Err(error) }), cgroup),
        made => (made, None),
    };
    let (pid, pidfd) = made?;
    if pid != 0 {
        let pidfd = match pidfd {
            // SAFETY: the kernel installed this descriptor for us by CLONE_PIDFD.
            Some(raw) => unsafe { OwnedFd::from_raw_fd(raw) },
            None => crate::pidfd_open(pid)?,
        };
        return Ok(Spawned { pid, pidfd });
    }
    // SAFETY: this is the child: a copy of the one thread, in which only system calls are made until exec or _exit.
    unsafe {
        if let Some(directory) = enter {
            let file = libc::openat(directory.as_raw_fd(), procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            libc::write(file, c"0".as_ptr().cast(), 1);
        }
        let first = (raw.len() as libc::c_int).saturating_add(3);
        for (slot, fd) in parked.iter_mut().zip(&raw) {
            *slot = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, first);
            if *slot < 0 {
                libc::_exit(EXEC_FAILED);
            }
        }
        for (target, fd) in (3..).zip(&parked) {
            if libc::dup2(*fd, target) < 0 {
                libc::_exit(EXEC_FAILED);
            }
        }
        libc::execve(program.as_ptr(), pointers.as_ptr(), environment.as_ptr());
        libc::_exit(EXEC_FAILED)
    }
}

type Made = io::Result<(u32, Option<RawFd>)>;

fn clone_process(cgroup: Option<BorrowedFd<'_>>) -> Made {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain numbers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has a copy of this stack, so that the call returns twice like fork(2). There is
    // one thread, so no lock can be held by another.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<libc::clone_args>()) };
    match result {
        0 => Ok((0, None)),
        pid if pid > 0 => Ok((pid as u32, Some(pidfd))),
        _ => Err(io::Error::last_os_error()),
    }
}

const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

fn fork() -> Made {
    // SAFETY: one thread; the child makes system calls only.
    match unsafe { libc::fork() } {
        0 => Ok((0, None)),
        pid if pid > 0 => Ok((pid as u32, None)),
        _ => Err(io::Error::last_os_error()),
    }
}
