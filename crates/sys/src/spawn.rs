//! clone3(2) and what runs between it and exec: enter the cgroup where the kernel did not, place descriptors, exec.
//!
//! The child shares our memory (CLONE_VM) and runs beside us on a stack of its own, so that starting a process costs no
//! copy of PID 1 and PID 1 waits for nothing. All that the child touches is therefore prepared before, stays until the
//! child is gone from our memory ([`Shared`]), and is reached by raw system calls only: no libc, whose errno would be
//! ours, no allocation, no lock, no panic. Where clone3 or CLONE_INTO_CGROUP is refused, a plain fork takes its place.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A process that was made.
#[derive(Debug)]
pub struct Spawned {
    /// Its number.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// What it may still use; to be released once it has executed or ended. Nothing when it has a copy of its own.
    pub shared: Option<Shared>,
}

/// Memory that a child may be running on. Dropped without [`Shared::release`] it is leaked, which is safe.
#[derive(Debug)]
pub struct Shared {
    orders: *mut Orders,
    stack: *mut libc::c_void,
}

impl Shared {
    /// Gives the memory back. To be called when the child is known to have executed a program, or to have ended.
    pub fn release(self) {
        // SAFETY: both came from `Box::into_raw` and mmap in `share`, are released nowhere else, and the child that used
        // them is gone from this memory by the caller's word.
        unsafe {
            drop(Box::from_raw(self.orders));
            libc::munmap(self.stack, STACK_SIZE);
        }
    }
}

/// The child's stack, in bytes; its lowest page is never mapped.
const STACK_SIZE: usize = 32 * 1024;
const PAGE: usize = 4096;
/// What a child exits with when it could not become the program.
const EXEC_FAILED: usize = 203;
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// What the child is to do, in the form in which the kernel takes it.
struct Orders {
    program: CString,
    _words: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    environment: [*const libc::c_char; 1],
    fds: Vec<RawFd>,
    /// Where the descriptors are parked, so that none overwrites another.
    parked: Vec<RawFd>,
    /// The cgroup to enter, where the kernel could not be asked to do it.
    enter: RawFd,
}

/// Starts `program` with `argv` and no environment. `fds` become descriptors 3, 4, …; all others that are close-on-exec
/// go. With `cgroup` the process begins its life there. With `share` it runs on our memory until it executes; without,
/// on a copy: to be chosen where a low memory limit could kill it together with all that shares its memory.
pub fn spawn(
    program: &CStr,
    argv: &[&CStr],
    fds: &[BorrowedFd<'_>],
    cgroup: Option<BorrowedFd<'_>>,
    share: bool,
) -> io::Result<Spawned> {
    let words: Vec<CString> = argv.iter().map(|word| (*word).to_owned()).collect();
    let pointers = words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let orders = Orders {
        program: program.to_owned(),
        _words: words,
        argv: pointers,
        environment: [std::ptr::null()],
        parked: vec![-1; fds.len()],
        fds,
        enter: -1,
    };
    let refused = |error: &io::Error| {
        matches!(
            error.raw_os_error(),
            Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | libc::EBUSY)
        )
    };
    let orders = Box::new(orders);
    if share && arch::SUPPORTED {
        return match self::share(orders, cgroup) {
            Ok(spawned) => Ok(spawned),
            Err((error, orders)) if refused(&error) => fork(orders, cgroup),
            Err((error, _)) => Err(error),
        };
    }
    fork(orders, cgroup)
}

/// A child on our memory, which begins in the cgroup.
fn share(orders: Box<Orders>, cgroup: Option<BorrowedFd<'_>>) -> Result<Spawned, (io::Error, Box<Orders>)> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
    // SAFETY: a new anonymous mapping; the guard is its own lowest page.
    let stack = unsafe { libc::mmap(std::ptr::null_mut(), STACK_SIZE, protection, kind, -1, 0) };
    if stack == libc::MAP_FAILED {
        return Err((io::Error::last_os_error(), orders));
    }
    // SAFETY: the page lies within the mapping just made.
    unsafe { libc::mprotect(stack, PAGE, libc::PROT_NONE) };
    let orders = Box::into_raw(orders);
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain numbers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_VM as u64 | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack as u64;
    args.stack_size = STACK_SIZE as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments are valid; the child runs `carry_out` on the new stack and never comes back here.
    let result = unsafe { arch::clone3(&raw mut args, std::mem::size_of::<libc::clone_args>(), orders) };
    if result > 0 {
        // SAFETY: the kernel installed this descriptor for us by CLONE_PIDFD.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        return Ok(Spawned { pid: result as u32, pidfd, shared: Some(Shared { orders, stack }) });
    }
    // SAFETY: no child was made, so both are ours alone again.
    let orders = unsafe {
        libc::munmap(stack, STACK_SIZE);
        Box::from_raw(orders)
    };
    Err((io::Error::from_raw_os_error(result.unsigned_abs() as i32), orders))
}

/// A child with a copy of our memory, which enters the cgroup by itself.
#[allow(clippy::boxed_local)] // the box is what `share` gave back
fn fork(mut orders: Box<Orders>, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Spawned> {
    orders.enter = cgroup.map_or(-1, |cgroup| cgroup.as_raw_fd());
    // SAFETY: there is one thread; the child makes raw system calls only.
    match unsafe { libc::fork() } {
        // SAFETY: the child's own copy of the orders.
        0 => unsafe { carry_out(&raw mut *orders) },
        pid if pid > 0 => {
            Ok(Spawned { pid: pid as u32, pidfd: crate::pidfd_open(pid as u32)?, shared: None })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// The child, whole.
///
/// # Safety
/// `orders` must be valid and nobody else's until this process executes or ends.
unsafe extern "C" fn carry_out(orders: *mut Orders) -> ! {
    // SAFETY: by the caller's word; the vectors were sized before, and every index is below their common length.
    unsafe {
        let orders = &mut *orders;
        if orders.enter >= 0 {
            let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
            let file = arch::call(
                libc::SYS_openat,
                [orders.enter as usize, c"cgroup.procs".as_ptr() as usize, flags, 0],
            );
            arch::call(libc::SYS_write, [file as usize, c"0".as_ptr() as usize, 1, 0]);
        }
        let count = orders.fds.len();
        let (fds, parked) = (orders.fds.as_ptr(), orders.parked.as_mut_ptr());
        let mut failed = false;
        let mut at = 0;
        while at < count {
            let copy = arch::call(
                libc::SYS_fcntl,
                [*fds.add(at) as usize, libc::F_DUPFD_CLOEXEC as usize, count.wrapping_add(3), 0],
            );
            *parked.add(at) = copy as RawFd;
            failed |= copy < 0;
            at = at.wrapping_add(1);
        }
        at = 0;
        while at < count {
            failed |= arch::call(libc::SYS_dup3, [*parked.add(at) as usize, at.wrapping_add(3), 0, 0]) < 0;
            at = at.wrapping_add(1);
        }
        if !failed {
            let (program, argv) = (orders.program.as_ptr() as usize, orders.argv.as_ptr() as usize);
            arch::call(libc::SYS_execve, [program, argv, orders.environment.as_ptr() as usize, 0]);
        }
        loop {
            arch::call(libc::SYS_exit_group, [EXEC_FAILED, 0, 0, 0]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use super::{Orders, carry_out};
    use std::arch::asm;

    pub const SUPPORTED: bool = true;

    /// A system call without libc: what it returns, or the negative error.
    ///
    /// # Safety
    /// The arguments must be what the call takes.
    #[inline(always)]
    pub unsafe fn call(number: libc::c_long, args: [usize; 4]) -> isize {
        let result: isize;
        let [first, second, third, fourth] = args;
        // SAFETY: the kernel's convention; by the caller's word for the arguments.
        unsafe {
            asm!("syscall", inlateout("rax") number as isize => result, in("rdi") first, in("rsi") second, in("rdx") third,
                in("r10") fourth, out("rcx") _, out("r11") _, options(nostack));
        }
        result
    }

    /// clone3(2) whose child goes to [`carry_out`].
    ///
    /// # Safety
    /// `args` must describe a child with a stack of its own; `orders` as for [`carry_out`].
    pub unsafe fn clone3(args: *mut libc::clone_args, size: usize, orders: *mut Orders) -> isize {
        let result: isize;
        // SAFETY: the child has zero in rax, the top of its own stack in rsp, and every other register as here.
        unsafe {
            asm!("syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, {orders}", "call {entry}", "ud2", "2:",
                orders = in(reg) orders, entry = in(reg) carry_out as unsafe extern "C" fn(*mut Orders) -> !,
                inlateout("rax") libc::SYS_clone3 as isize => result, in("rdi") args, in("rsi") size, out("rcx") _, out("r11") _);
        }
        result
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use super::{Orders, carry_out};
    use std::arch::asm;

    pub const SUPPORTED: bool = true;

    /// A system call without libc: what it returns, or the negative error.
    ///
    /// # Safety
    /// The arguments must be what the call takes.
    #[inline(always)]
    pub unsafe fn call(number: libc::c_long, args: [usize; 4]) -> isize {
        let result: isize;
        let [first, second, third, fourth] = args;
        // SAFETY: the kernel's convention; by the caller's word for the arguments.
        unsafe {
            asm!("svc 0", in("x8") number, inlateout("x0") first => result, in("x1") second, in("x2") third, in("x3") fourth,
                options(nostack));
        }
        result
    }

    /// clone3(2) whose child goes to [`carry_out`].
    ///
    /// # Safety
    /// `args` must describe a child with a stack of its own; `orders` as for [`carry_out`].
    pub unsafe fn clone3(args: *mut libc::clone_args, size: usize, orders: *mut Orders) -> isize {
        let result: isize;
        // SAFETY: the child has zero in x0, the top of its own stack in sp, and every other register as here.
        unsafe {
            asm!("svc 0", "cbnz x0, 2f", "mov x29, xzr", "mov x0, {orders}", "blr {entry}", "brk 1", "2:",
                orders = in(reg) orders, entry = in(reg) carry_out as unsafe extern "C" fn(*mut Orders) -> !,
                in("x8") libc::SYS_clone3, inlateout("x0") args => result, in("x1") size);
        }
        result
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    use super::Orders;

    pub const SUPPORTED: bool = false;

    /// A system call: what it returns, or -1. After a fork, errno is the child's own.
    ///
    /// # Safety
    /// The arguments must be what the call takes.
    pub unsafe fn call(number: libc::c_long, args: [usize; 4]) -> isize {
        let [first, second, third, fourth] = args;
        // SAFETY: by the caller's word.
        unsafe { libc::syscall(number, first, second, third, fourth) as isize }
    }

    /// Never called: see `SUPPORTED`.
    ///
    /// # Safety
    /// None is needed.
    pub unsafe fn clone3(_: *mut libc::clone_args, _: usize, _: *mut Orders) -> isize {
        -(libc::ENOSYS as isize)
    }
}
