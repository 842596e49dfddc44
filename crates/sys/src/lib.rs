//! The crate that may say `unsafe`: what the safe libraries of the workspace do not offer. It decides nothing.
//!
//! Every function is a thin, total wrapper: it checks what the kernel cannot, and gives the kernel's error back.
#![allow(unsafe_code)] // the one crate of the workspace that may; each block says why it is sound

mod ask;
mod attempt;
mod autofs;
pub mod bpf;
mod dm;
mod kernel;
#[cfg(not(target_feature = "crt-static"))]
mod library;
mod loops;
mod pam;
pub mod quota;
mod signature;
mod spawn;
mod watchdog;

pub use ask::{Answers, ask_elsewhere};
pub use attempt::{Attempted, Entry, attempt};
pub use autofs::{autofs_answer, autofs_expire, autofs_open, autofs_set_timeout};
pub use dm::{add_thread_key, map_device, unmap_device};
pub use kernel::{
    Instruction, affinity, install_filter, io_priority, keep_invocation, memory_policy, own_keyring,
    personality, scheduler, security_modules, set_affinity, set_memory_policy,
};
pub use loops::{configure_loop, detach_loop, free_loop};
pub use pam::{PamSession, begin_processes, in_child};
pub use signature::is_signed;
pub use spawn::{Failure, Program, Shared, Spawned, Step, Variable, spawn};
pub use watchdog::{
    swap_off, watchdog_enable, watchdog_keep_alive, watchdog_set_pretimeout, watchdog_set_timeout,
    watchdog_timeout,
};

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes a descriptor that a system call just gave.
///
/// Panics never; a negative number (which no system call gives for success) becomes a closed placeholder.
pub fn adopt_fd(raw: RawFd) -> OwnedFd {
    debug_assert!(raw >= 0);
    // SAFETY: callers pass descriptors that the kernel installed for them in the same turn (accept4, SCM_RIGHTS), so
    // nobody else owns them.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// pidfd_open(2).
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the kernel checks the number.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, libc::PIDFD_NONBLOCK) })?;
    Ok(adopt_fd(fd as RawFd))
}

/// Who sent the next datagram of a socket with `SO_PASSCRED` (unix(7)), by the kernel's word: process and user. The datagram
/// stays, and none of its descriptors is installed: there is no room for them, which nix takes for an error.
pub fn next_sender(socket: BorrowedFd<'_>) -> io::Result<Option<(u32, u32)>> {
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        credentials: libc::ucred,
    }
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: numbers and a null pointer, for all of which zero is a value.
    let (mut control, mut message): (Control, libc::msghdr) = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_PEEK;
    // SAFETY: all pointers are to locals that live through the call, with their sizes.
    check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) } as libc::c_long)?;
    let is_whole = message.msg_controllen >= size_of::<libc::cmsghdr>();
    let kind = (control.header.cmsg_level, control.header.cmsg_type);
    let known = is_whole && kind == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);
    let sender = || Some((u32::try_from(control.credentials.pid).ok()?, control.credentials.uid));
    Ok(known.then(sender).flatten())
}

/// The mode of an open file as the kernel has it in memory (statx(2), `AT_STATX_DONT_SYNC`): no server of a file system is
/// asked, none can keep the caller waiting.
pub fn known_mode(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: a statx of zeros is a valid one; the kernel fills it in.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is an empty C string, and `found` outlives the call.
    check(unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_TYPE, &raw mut found) }
        as libc::c_long)?;
    Ok(found.stx_mode.into())
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the null pointer asks for the siginfo of kill(2).
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// sigqueue(3) by pidfd: a signal with a value.
pub fn pidfd_queue_signal(pidfd: BorrowedFd<'_>, signal: i32, value: i32) -> io::Result<()> {
    /// The part of `siginfo_t` that a queued signal has, in the kernel's layout for 64 bits.
    #[repr(C)]
    struct Queued {
        signo: i32,
        errno: i32,
        code: i32,
        padding: i32,
        pid: i32,
        uid: u32,
        value: u64,
        rest: [u64; 12],
    }
    let info = Queued {
        signo: signal,
        errno: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        // SAFETY: takes no pointer, and cannot fail.
        pid: unsafe { libc::getpid() },
        // SAFETY: the same.
        uid: unsafe { libc::getuid() },
        value: u64::from(value as u32),
        rest: [0; 12],
    };
    const { assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>()) };
    // SAFETY: the kernel reads one `siginfo_t`, and `info` is as long.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::from_ref(&info), 0)
    })
    .map(drop)
}

/// The next child that ended, still a zombie (waitid(2), `WNOWAIT`): its number, `si_code` and `si_status`. Signals are
/// numbers here, since those of real time have no name in the safe libraries.
pub fn next_zombie() -> io::Result<Option<(u32, i32, i32)>> {
    // SAFETY: a siginfo_t of zeros is a valid one; the kernel fills it in.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is written to, and outlives the call.
    check(libc::c_long::from(unsafe { libc::waitid(libc::P_ALL, 0, &mut info, flags) }))?;
    // SAFETY: after waitid the fields of SIGCHLD are the ones that are set, or all is zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0).map(|pid| (pid, info.si_code, status)))
}

/// While it is there, no signal tells of children that end. Dropped, it lets the action of before hold again.
#[derive(Debug)]
pub struct Quiet(libc::sigaction);

impl Quiet {
    /// SIGCHLD has its default action, by which the kernel does not even send it; children that end stay zombies all the
    /// same (sigaction(2)). Programs that are executed meanwhile inherit nothing of it.
    pub fn begin() -> Option<Quiet> {
        // SAFETY: zeros are the default action, no flags, and an empty mask; the kernel fills the other one in.
        unsafe {
            let (default, mut before) = (std::mem::zeroed::<libc::sigaction>(), std::mem::zeroed());
            let done = libc::sigaction(libc::SIGCHLD, &raw const default, &raw mut before);
            (done == 0).then_some(Quiet(before))
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: the action is the one that the kernel gave out.
        unsafe { libc::sigaction(libc::SIGCHLD, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Closes descriptors of this process by a child that shares its table of descriptors: what close(2) may wait for (the
/// flush of a file on a file system that hangs) the child waits for. Gives the child's number. When no child can be made,
/// the descriptors come back, still open.
pub fn close_elsewhere(fds: Vec<OwnedFd>) -> Result<u32, (io::Error, Vec<OwnedFd>)> {
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack given the child goes on on a copy of this one, as after fork(2). There
    // it makes system calls only, and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, 0, 0, 0) };
    match pid {
        0 => {
            for fd in &fds {
                // SAFETY: the number is that of an open descriptor, which the parent gives up.
                unsafe { libc::syscall(libc::SYS_close, fd.as_raw_fd()) };
            }
            // SAFETY: ends the child at once, and runs nothing of the parent's.
            unsafe { libc::_exit(0) }
        }
        pid if pid > 0 => {
            // They are the child's to close.
            fds.into_iter().for_each(std::mem::forget);
            Ok(pid as u32)
        }
        _ => Err((io::Error::last_os_error(), fds)),
    }
}

/// setsockopt(2) with an integer.
pub fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_option_bytes(fd, level, name, &value.to_ne_bytes())
}

/// setsockopt(2) with bytes.
pub fn set_option_bytes(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length =
        libc::socklen_t::try_from(value.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: pointer and length are those of one slice, which outlives the call.
    check(libc::c_long::from(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length)
    }))
    .map(drop)
}

/// getsockopt(2) of an integer.
pub fn get_option(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value: i32 = 0;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `value`.
    check(libc::c_long::from(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    }))?;
    Ok(value)
}

/// getsockopt(2) of bytes; at most `max` of them.
pub fn get_option_bytes(fd: BorrowedFd<'_>, level: i32, name: i32, max: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0_u8; max];
    let mut length =
        libc::socklen_t::try_from(max).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the kernel writes at most `length` bytes into the buffer of that size.
    check(libc::c_long::from(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    }))?;
    value.truncate(length as usize);
    Ok(value)
}

/// ioctl(2) FIONREAD: bytes that wait.
pub fn bytes_waiting(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut value) }))?;
    Ok(value)
}

/// ioctl(2) TIOCSCTTY: takes a terminal as the controlling one, by force where asked.
pub fn take_terminal(fd: BorrowedFd<'_>, force: bool) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a plain number.
    check(libc::c_long::from(unsafe {
        libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, libc::c_int::from(force))
    }))
    .map(drop)
}

/// ioctl(2) TIOCVHANGUP: whoever has the terminal open loses it.
pub fn hang_up_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    const TIOCVHANGUP: libc::c_ulong = 0x5437;
    // SAFETY: it takes no argument.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), TIOCVHANGUP) })).map(drop)
}

/// The size of a terminal; what is `None` stays.
pub fn set_terminal_size(fd: BorrowedFd<'_>, rows: Option<u16>, columns: Option<u16>) -> io::Result<()> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure is a live local.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &mut size) }))?;
    size.ws_row = rows.unwrap_or(size.ws_row);
    size.ws_col = columns.unwrap_or(size.ws_col);
    // SAFETY: as above.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &size) })).map(drop)
}

/// A terminal as a person expects it (termios(3)): lines, echo, the usual keys. Its speed stays.
pub fn reset_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    const KDSKBMODE: libc::c_ulong = 0x4b45;
    const UNICODE: libc::c_int = 3;
    // SAFETY: both take plain numbers; they fail on what is no terminal, or no virtual one, which is as well.
    let _ = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCNXCL) };
    // SAFETY: as above.
    let _ = unsafe { libc::ioctl(fd.as_raw_fd(), KDSKBMODE, UNICODE) };
    // SAFETY: the structure is plain numbers, and filled by the kernel.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is a live local.
    check(libc::c_long::from(unsafe { libc::tcgetattr(fd.as_raw_fd(), &mut modes) }))?;
    modes.c_iflag &= !(libc::IGNBRK | libc::BRKINT | libc::ISTRIP | libc::INLCR | libc::IGNCR | libc::IUCLC);
    modes.c_iflag |= libc::ICRNL | libc::IMAXBEL | libc::IUTF8;
    modes.c_oflag |= libc::ONLCR | libc::OPOST;
    modes.c_cflag |= libc::CREAD;
    modes.c_lflag = libc::ISIG
        | libc::ICANON
        | libc::IEXTEN
        | libc::ECHO
        | libc::ECHOE
        | libc::ECHOK
        | libc::ECHOCTL
        | libc::ECHOKE;
    let keys = [
        (libc::VINTR, 3),
        (libc::VQUIT, 28),
        (libc::VERASE, 127),
        (libc::VKILL, 21),
        (libc::VEOF, 4),
        (libc::VSTART, 17),
        (libc::VSTOP, 19),
        (libc::VSUSP, 26),
        (libc::VLNEXT, 22),
        (libc::VWERASE, 23),
        (libc::VREPRINT, 18),
        (libc::VEOL, 0),
        (libc::VEOL2, 0),
        (libc::VTIME, 0),
        (libc::VMIN, 1),
    ];
    for (place, key) in keys {
        if let Some(known) = modes.c_cc.get_mut(place) {
            *known = key;
        }
    }
    // SAFETY: as above.
    check(libc::c_long::from(unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &modes) }))?;
    // SAFETY: numbers only.
    check(libc::c_long::from(unsafe { libc::tcflush(fd.as_raw_fd(), libc::TCIOFLUSH) })).map(drop)
}

/// ioctl(2) KDSIGACCEPT: the key for requests (alt and arrow up) sends SIGWINCH to this process.
pub fn accept_keyboard_request(fd: BorrowedFd<'_>) -> io::Result<()> {
    const KDSIGACCEPT: libc::c_ulong = 0x4b4e;
    // SAFETY: it takes a plain number, that of a signal.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), KDSIGACCEPT as _, libc::SIGWINCH) }))
        .map(drop)
}

/// ioctl(2) VT_DISALLOCATE: gives the memory of a virtual terminal back, if nobody has it open.
pub fn free_virtual_terminal(fd: BorrowedFd<'_>, number: u32) -> io::Result<()> {
    const VT_DISALLOCATE: libc::c_ulong = 0x5608;
    // SAFETY: it takes a plain number.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), VT_DISALLOCATE, number) })).map(drop)
}

/// Attributes of a POSIX message queue (mq_getattr(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSize {
    /// The most messages in the queue.
    pub messages: i64,
    /// Bytes of the largest message.
    pub message_size: i64,
}

/// mq_open(3) for reading, made when it is missing; whether it was. `size` is for a new queue only.
pub fn message_queue(
    name: &std::ffi::CStr,
    mode: u32,
    size: Option<QueueSize>,
) -> io::Result<(OwnedFd, bool)> {
    // SAFETY: mq_attr is plain numbers, for which zero is valid.
    let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
    let pointer = match size {
        Some(size) => {
            attributes.mq_maxmsg = size.messages;
            attributes.mq_msgsize = size.message_size;
            &raw mut attributes
        }
        None => std::ptr::null_mut(),
    };
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let open = |flags| {
        // SAFETY: the name is a C string, the attributes are read only during the call.
        check(libc::c_long::from(unsafe { libc::mq_open(name.as_ptr(), flags, mode, pointer) }))
    };
    let (fd, is_new) = match open(flags | libc::O_CREAT | libc::O_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => (open(flags)?, false),
        made => (made?, true),
    };
    Ok((adopt_fd(fd as RawFd), is_new))
}

/// A kind of objects of System V IPC (sysvipc(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the kinds
pub enum SysvKind {
    Memory,
    Semaphores,
    Queue,
}

/// Removes an object of System V IPC by its id.
pub fn remove_sysv(kind: SysvKind, id: i32) -> io::Result<()> {
    // SAFETY: with IPC_RMID the calls take no argument beyond the numbers.
    let done = unsafe {
        match kind {
            SysvKind::Memory => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            SysvKind::Semaphores => libc::semctl(id, 0, libc::IPC_RMID),
            SysvKind::Queue => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
        }
    };
    check(libc::c_long::from(done)).map(drop)
}

/// listen(2).
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    check(libc::c_long::from(unsafe { libc::listen(fd.as_raw_fd(), backlog) })).map(drop)
}

/// Marks every descriptor from `first` on as close-on-exec (close_range(2)).
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_long = 4;
    // SAFETY: numbers only; no descriptor is closed.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            libc::c_long::from(first),
            libc::c_long::from(RawFd::MAX),
            CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

/// socket(2) with a protocol by number.
pub fn open_socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    let fd = check(libc::c_long::from(unsafe { libc::socket(family, kind, protocol) }))?;
    Ok(adopt_fd(fd as RawFd))
}

/// Gives memory that is free back to the kernel (malloc_trim(3)), where the C library can.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches glibc's own lists only, and there is one thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives the pages of our own code and constants back to the page cache: those that are still needed come back by themselves,
/// those that only the last big piece of work needed do not (madvise(2), MADV_DONTNEED of a file that is mapped and never
/// written).
pub fn release_code() {
    unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the C library gives a valid description; the first is that of the program itself.
        let (base, headers) = unsafe {
            let info = &*info;
            (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
        };
        for header in headers {
            if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
                continue;
            }
            let begin = base.wrapping_add(header.p_vaddr) & !4095;
            let length =
                base.wrapping_add(header.p_vaddr).wrapping_add(header.p_filesz).wrapping_sub(begin) as usize;
            // SAFETY: the range is mapped from the program's file and never written, so dropping loses nothing.
            unsafe { libc::madvise(begin as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        }
        1
    }
    // SAFETY: the callback keeps nothing.
    unsafe { libc::dl_iterate_phdr(Some(first), std::ptr::null_mut()) };
}

/// mq_unlink(3).
pub fn message_queue_unlink(name: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: the name is a C string.
    check(libc::c_long::from(unsafe { libc::mq_unlink(name.as_ptr()) })).map(drop)
}

/// mq_getattr(3): its size and how many messages wait.
pub fn message_queue_size(fd: BorrowedFd<'_>) -> io::Result<(QueueSize, i64)> {
    // SAFETY: mq_attr is plain numbers, written by the kernel.
    let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to that value.
    check(libc::c_long::from(unsafe { libc::mq_getattr(fd.as_raw_fd(), &raw mut attributes) }))?;
    Ok((
        QueueSize { messages: attributes.mq_maxmsg, message_size: attributes.mq_msgsize },
        attributes.mq_curmsgs,
    ))
}

/// mq_receive(3) into the void. False when nothing waits.
pub fn message_queue_drop_one(fd: BorrowedFd<'_>, message_size: usize) -> bool {
    let mut buffer = vec![0_u8; message_size.max(1)];
    // SAFETY: the buffer has the length that is given; no priority is asked for.
    (unsafe {
        libc::mq_receive(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), std::ptr::null_mut())
    }) >= 0
}

/// setxattr(2) on an open descriptor.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length are those of one slice; the name is a C string.
    check(libc::c_long::from(unsafe {
        libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    }))
    .map(drop)
}

/// getxattr(2) on an open descriptor; at most `max` bytes.
pub fn get_xattr(fd: BorrowedFd<'_>, name: &std::ffi::CStr, max: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0_u8; max];
    // SAFETY: the name is a C string; the kernel writes at most `max` bytes into the buffer of that size.
    let length =
        check(unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), max) }
            as libc::c_long)?;
    value.truncate(usize::try_from(length).unwrap_or(0));
    Ok(value)
}

/// fremovexattr(2).
pub fn remove_xattr(fd: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: the name is a C string.
    check(libc::c_long::from(unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) })).map(drop)
}

/// setxattr(2) on a path.
pub fn set_xattr_path(path: &std::ffi::CStr, name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: as above; both names are C strings.
    check(libc::c_long::from(unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    }))
    .map(drop)
}

/// getxattr(2) of a path; at most `max` bytes.
pub fn get_xattr_path(path: &std::ffi::CStr, name: &std::ffi::CStr, max: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0_u8; max];
    // SAFETY: both names are C strings; the kernel writes at most `max` bytes into the buffer of that size.
    let length =
        check(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), max) }
            as libc::c_long)?;
    value.truncate(usize::try_from(length).unwrap_or(0));
    Ok(value)
}

/// mq_send(3), for clients of queues.
pub fn message_queue_send(name: &std::ffi::CStr, message: &[u8]) -> io::Result<()> {
    // SAFETY: the name is a C string.
    let fd =
        check(libc::c_long::from(unsafe { libc::mq_open(name.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) }))?;
    let fd = adopt_fd(fd as RawFd);
    // SAFETY: pointer and length are those of one slice.
    check(libc::c_long::from(unsafe {
        libc::mq_send(fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0)
    }))
    .map(drop)
}

/// Brings the loopback interface of this network namespace up (netdevice(7)).
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: no pointers.
    let fd = check(libc::c_long::from(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    }))?;
    let fd = adopt_fd(fd as RawFd);
    // SAFETY: ifreq is plain numbers and arrays, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    // SAFETY: SIOCGIFFLAGS fills the flags of this ifreq.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) }))?;
    let up = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel has just set this arm of the union.
    let flags = unsafe { &mut request.ifr_ifru.ifru_flags };
    if *flags & up == up {
        return Ok(());
    }
    *flags |= up;
    // SAFETY: SIOCSIFFLAGS reads this ifreq.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) }))
        .map(drop)
}

/// A SIGTERM came from outside of our PID namespace since it was last asked for.
static ASKED_TO_STOP: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Follows SIGTERM that comes from outside of our PID namespace: how a container's manager asks for the end. To be called
/// before anybody else handles the signal, so that the answer is there when that one hears of it.
pub fn follow_stop_requests() -> io::Result<()> {
    let note = |info: &libc::siginfo_t| {
        // The sender's number is 0 where it has none among us (pid_namespaces(7)).
        // SAFETY: the kernel fills it in for what kill(2) sent.
        if info.si_code == libc::SI_USER && unsafe { info.si_pid() } == 0 {
            ASKED_TO_STOP.store(true, std::sync::atomic::Ordering::Release);
        }
    };
    // SAFETY: the action does nothing but store a value.
    unsafe { signal_hook_registry::register_sigaction(libc::SIGTERM, note) }.map(drop)
}

/// Whether that happened since the last call.
pub fn take_stop_request() -> bool {
    ASKED_TO_STOP.swap(false, std::sync::atomic::Ordering::AcqRel)
}

/// Restores the default action of every signal but those in `ignored`, and blocks none (sigaction(2), sigprocmask(2)).
pub fn reset_signals(ignored: &[i32]) {
    for signal in 1..=64 {
        let action = if ignored.contains(&signal) { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: only the two predefined actions are installed; the kernel refuses SIGKILL and SIGSTOP.
        unsafe { libc::signal(signal, action) };
    }
    // SAFETY: the set is emptied before it is read.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Reboots with an argument for the firmware or the boot loader: reboot(2), `LINUX_REBOOT_CMD_RESTART2`.
///
/// # Errors
/// Of the system call; it does not return otherwise. A NUL in the argument is `EINVAL`.
pub fn reboot_with(argument: &[u8]) -> io::Error {
    let Ok(argument) = std::ffi::CString::new(argument) else {
        return io::Error::from_raw_os_error(libc::EINVAL);
    };
    // SAFETY: the kernel reads a string that ends with a NUL and lives through the call.
    unsafe {
        libc::syscall(
            libc::SYS_reboot,
            libc::LINUX_REBOOT_MAGIC1,
            libc::LINUX_REBOOT_MAGIC2,
            libc::LINUX_REBOOT_CMD_RESTART2,
            argument.as_ptr(),
        );
    }
    io::Error::last_os_error()
}

/// setrlimit(2) of this process, by the kernel's number of the resource.
pub fn set_limit(resource: i32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limit is read during the call; the old one is not asked for.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null::<libc::rlimit64>())
    })
    .map(drop)
}

/// setpriority(2) of this process.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(libc::c_long::from(unsafe { libc::setpriority(libc::PRIO_PROCESS as _, 0, nice) })).map(drop)
}

/// ioprio_set(2) of this process: class and level.
pub fn set_io_priority(class: i32, level: i32) -> io::Result<()> {
    // SAFETY: no pointers; 1 is IOPRIO_WHO_PROCESS.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, (class << 13) | level) }).map(drop)
}

/// sched_setscheduler(2) of this process.
pub fn set_scheduler(policy: i32, priority: i32) -> io::Result<()> {
    // SAFETY: sched_param is plain numbers.
    let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    parameter.sched_priority = priority;
    // SAFETY: the parameter is read during the call. By system call, since the C library of static builds refuses it.
    check(unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameter) }).map(drop)
}

/// prctl(2) with plain numbers.
pub fn process_control(option: i32, second: u64, third: u64) -> io::Result<i32> {
    // SAFETY: callers use only options whose arguments are numbers.
    let result = check(libc::c_long::from(unsafe { libc::prctl(option, second, third, 0_u64, 0_u64) }))?;
    Ok(result as i32)
}

/// Names a descriptor that this program was started with.
pub fn borrow_fd(raw: RawFd) -> BorrowedFd<'static> {
    // SAFETY: for descriptors that are inherited and stay open for the life of the program; a number that is not open
    // gives EBADF at its first use.
    unsafe { BorrowedFd::borrow_raw(raw) }
}

/// dup2(2): puts a copy of a descriptor at a number, not close-on-exec. Whatever was there is closed, so callers use
/// numbers that no owned descriptor has.
pub fn place_fd(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: no pointers; ownership of `target` is the caller's promise above.
    check(libc::c_long::from(unsafe { libc::dup2(fd.as_raw_fd(), target) })).map(drop)
}

/// mount_setattr(2) of the mount that a descriptor is on: attributes (`MOUNT_ATTR_*`) to set and to clear, and a propagation
/// type (`MS_SHARED` and kin; 0 leaves it). `recursive` takes all mounts below it too.
pub fn set_mount_attributes(
    fd: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes { set, clear, propagation, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and the size is that of the structure, which is read during the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}
