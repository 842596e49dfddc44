//! clone3(2) and what runs between it and exec: enter the cgroup where the kernel did not, the steps of a [`Program`],
//! descriptors in place, exec.
//!
//! The child shares our memory (CLONE_VM) and runs beside us on a stack of its own, so that starting a process costs no
//! copy of PID 1 and PID 1 waits for nothing. All that the child touches is therefore prepared before, stays until the
//! child is gone from our memory ([`Shared`]), and is reached by raw system calls only: no libc, whose errno would be
//! ours, no allocation, no lock, no panic. The kernel itself says when it is gone (CLONE_CHILD_CLEARTID). Where clone3 or
//! CLONE_INTO_CGROUP is refused, a plain fork takes its place.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// What a child does with itself before it executes its program: each one or a few raw system calls that change nothing
/// but the child. What would change the memory that it shares with us (a change of user, writes to procfs) has no step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// setsid(2).
    NewSession,
    /// umask(2).
    FileMode(u32),
    /// A session keyring of its own, with the id of the run in it (keyctl(2)); where the kernel does not, it goes without.
    Keyring {
        /// The id; without one, nothing is put into it.
        invocation: Option<[u8; 16]>,
    },
    /// Ignores a signal, or gives it its default action (sigaction(2)).
    Signal {
        /// The number of the signal.
        number: i32,
        /// Ignored rather than default.
        ignore: bool,
    },
    /// prlimit(2).
    Limit {
        /// `RLIMIT_…`.
        resource: i32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// chdir(2).
    Directory(CString),
    /// Opens a file in place of a descriptor.
    Open {
        /// The file.
        path: CString,
        /// `O_…`, without O_CLOEXEC.
        flags: i32,
        /// Mode of a new file.
        mode: u32,
        /// The descriptor.
        target: RawFd,
    },
    /// Puts one of the given descriptors, by index, in place of another, blocking.
    Given {
        /// The index of the descriptor.
        index: usize,
        /// The descriptor.
        target: RawFd,
    },
    /// Puts a copy of a descriptor in place of another.
    Copy {
        /// The descriptor to copy.
        from: RawFd,
        /// The descriptor.
        target: RawFd,
    },
    /// Connects a descriptor to a stream socket, with a first message; /dev/null where nobody listens.
    Stream {
        /// Path of the socket, at most 107 bytes.
        socket: CString,
        /// What is written first.
        header: Vec<u8>,
        /// The descriptor.
        target: RawFd,
    },
    /// prctl(2) with a number.
    Control {
        /// `PR_…`.
        option: i32,
        /// Its argument.
        value: u64,
    },
}

/// A variable of the program's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `NAME=value`.
    Fixed(CString),
    /// `NAME=` and the child's own process number.
    OwnNumber(CString),
    /// `NAME=` and device and inode of the last [`Step::Stream`], as `device:inode`; left out where there is none.
    StreamNumber(CString),
}

/// What a process is to become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Steps, in order, each with the exit status of a child that could not do it.
    pub steps: Vec<(Step, u8)>,
    /// How many of the given descriptors are passed, from number 3 upward. The others are for steps.
    pub passed: usize,
    /// Whether passed descriptors are non-blocking; `None` leaves them as they are.
    pub non_blocking: Option<bool>,
    /// Files to execute; the first that is there.
    pub paths: Vec<CString>,
    /// Arguments.
    pub argv: Vec<CString>,
    /// Environment.
    pub environment: Vec<Variable>,
    /// It is the first process of a PID namespace of its own (pid_namespaces(7)); where the kernel makes none, there is no
    /// process.
    pub own_processes: bool,
}

/// A process that was made.
#[derive(Debug)]
pub struct Spawned {
    /// The process ID, which is its own until it is reaped.
    pub pid: u32,
    /// What it may still use. Nothing when it has a copy of its own.
    pub shared: Option<Shared>,
}

/// Memory that a child may be running on. Dropped before the child is gone it is leaked, which is safe.
#[derive(Debug)]
pub struct Shared {
    orders: *mut Orders,
    stack: *mut libc::c_void,
}

/// Why a child did not become its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step, or nothing for the execution itself.
    pub step: Option<Step>,
    /// What the child exits with.
    pub status: u8,
    /// The kernel's error.
    pub errno: i32,
}

impl Shared {
    /// Whether the child is gone from this memory: it executed its program, or ended.
    pub fn is_free(&self) -> bool {
        // SAFETY: the orders stay until `Drop` sees this very condition.
        unsafe { (*self.orders).alive.load(Ordering::Acquire) == 0 }
    }

    /// What stopped the child, once it is gone.
    pub fn failure(&self) -> Option<Failure> {
        if !self.is_free() {
            return None;
        }
        // SAFETY: the child is gone, so the orders are ours alone.
        let orders = unsafe { &*self.orders };
        let errno = orders.errno.load(Ordering::Acquire);
        let step = usize::try_from(orders.failed_step.load(Ordering::Acquire)).ok();
        let step = step.and_then(|at| orders.program.steps.get(at));
        let status = step.map_or(orders.status.load(Ordering::Acquire) as u8, |(_, status)| *status);
        (errno != 0).then(|| Failure { step: step.map(|(step, _)| step.clone()), status, errno })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.is_free() {
            return;
        }
        // SAFETY: both came from `Box::into_raw` and mmap in `share`, are released nowhere else, and the kernel says that
        // the child is gone from this memory.
        unsafe {
            drop(Box::from_raw(self.orders));
            stacks::give_back(self.stack);
        }
    }
}

/// The child's stack, in bytes; its lowest page is never mapped.
const STACK_SIZE: usize = 32 * 1024;
const PAGE: usize = 4096;
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;
/// What a child exits with when its descriptors could not be put in place, and when nothing could be executed.
const FDS_FAILED: u8 = 202;
const EXEC_FAILED: u8 = 203;
/// Room for two numbers and a colon in a variable.
const DIGITS: usize = 42;

/// What the child is to do, in the form in which the kernel takes it.
struct Orders {
    program: Program,
    paths: Vec<*const libc::c_char>,
    argv: Vec<*const libc::c_char>,
    /// Text of each variable, with room for digits where the child writes some.
    variables: Vec<Vec<u8>>,
    environment: Vec<*const libc::c_char>,
    fds: Vec<RawFd>,
    /// Where the descriptors are parked, so that none overwrites another.
    parked: Vec<RawFd>,
    /// The cgroup to enter, where the kernel could not be asked to do it.
    enter: RawFd,
    /// Not zero while the child runs on this memory; cleared by the kernel.
    alive: AtomicU32,
    failed_step: AtomicI32,
    status: AtomicU32,
    errno: AtomicI32,
}

impl Orders {
    fn new(program: Program, fds: &[BorrowedFd<'_>]) -> Orders {
        let end = [std::ptr::null()];
        let pointers = |words: &[CString]| words.iter().map(|word| word.as_ptr()).chain(end).collect();
        let mut program = program;
        // A variable that may be left out comes last.
        program.environment.sort_by_key(|variable| matches!(variable, Variable::StreamNumber(_)));
        let room = |name: &CString| [name.as_bytes(), &[0; DIGITS]].concat();
        let variables: Vec<Vec<u8>> = program
            .environment
            .iter()
            .map(|variable| match variable {
                Variable::Fixed(text) => text.as_bytes_with_nul().to_vec(),
                Variable::OwnNumber(name) | Variable::StreamNumber(name) => room(name),
            })
            .collect();
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        Orders {
            paths: pointers(&program.paths),
            argv: pointers(&program.argv),
            environment: variables.iter().map(|text| text.as_ptr().cast()).chain(end).collect(),
            variables,
            parked: vec![-1; fds.len()],
            fds,
            enter: -1,
            alive: AtomicU32::new(1),
            failed_step: AtomicI32::new(-1),
            status: AtomicU32::new(0),
            errno: AtomicI32::new(0),
            program,
        }
    }
}

/// Starts a process. `fds` are the descriptors that its program and steps name; all others that are close-on-exec go. With
/// `cgroup` the process begins its life there, on our memory: not where a memory limit could kill it, together with all that
/// shares its memory.
pub fn spawn(
    program: Program,
    fds: &[BorrowedFd<'_>],
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Spawned> {
    let refused = |error: &io::Error| {
        matches!(
            error.raw_os_error(),
            Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | libc::EBUSY)
        )
    };
    let orders = Box::new(Orders::new(program, fds));
    let own_processes = orders.program.own_processes;
    if arch::SUPPORTED {
        return match self::share(orders, cgroup) {
            Ok(spawned) => Ok(spawned),
            Err((error, orders)) if refused(&error) && !own_processes => fork(orders, cgroup),
            Err((error, _)) => Err(error),
        };
    }
    if own_processes {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    fork(orders, cgroup)
}

/// Stacks that no child uses, kept for the next.
mod stacks {
    use super::{PAGE, STACK_SIZE};
    use std::cell::RefCell;
    use std::io;

    /// At most this many stacks are kept for reuse.
    const KEPT: usize = 16;

    thread_local! {
        static FREE: RefCell<Vec<*mut libc::c_void>> = const { RefCell::new(Vec::new()) };
    }

    /// A stack with an unmapped lowest page.
    pub fn take() -> io::Result<*mut libc::c_void> {
        if let Some(stack) = FREE.with_borrow_mut(Vec::pop) {
            return Ok(stack);
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new anonymous mapping.
        let stack = unsafe { libc::mmap(std::ptr::null_mut(), STACK_SIZE, protection, kind, -1, 0) };
        if stack == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the page lies within the mapping just made.
        unsafe { libc::mprotect(stack, PAGE, libc::PROT_NONE) };
        Ok(stack)
    }

    /// # Safety
    /// `stack` must come from [`take`], and nobody may use it any more.
    pub unsafe fn give_back(stack: *mut libc::c_void) {
        let kept = FREE.with_borrow_mut(|free| {
            let room = free.len() < KEPT;
            if room {
                free.push(stack);
            }
            room
        });
        if !kept {
            // SAFETY: by the caller's word.
            unsafe { libc::munmap(stack, STACK_SIZE) };
        }
    }
}

/// A child on our memory, which begins in the cgroup.
fn share(orders: Box<Orders>, cgroup: Option<BorrowedFd<'_>>) -> Result<Spawned, (io::Error, Box<Orders>)> {
    let stack = match stacks::take() {
        Ok(stack) => stack,
        Err(error) => return Err((error, orders)),
    };
    let orders = Box::into_raw(orders);
    // SAFETY: clone_args is plain numbers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_VM as u64 | libc::CLONE_CHILD_CLEARTID as u64 | CLONE_CLEAR_SIGHAND;
    // SAFETY: the orders are ours until the child is made.
    args.child_tid = unsafe { (&raw mut (*orders).alive) as u64 };
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack as u64;
    args.stack_size = STACK_SIZE as u64;
    // SAFETY: as above.
    if unsafe { (*orders).program.own_processes } {
        args.flags |= libc::CLONE_NEWPID as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments are valid; the child runs `carry_out` on the new stack and never comes back here.
    let result = unsafe { arch::clone3(&raw mut args, std::mem::size_of::<libc::clone_args>(), orders) };
    if result > 0 {
        return Ok(Spawned { pid: result as u32, shared: Some(Shared { orders, stack }) });
    }
    // SAFETY: no child was made, so both are ours alone again.
    let orders = unsafe {
        stacks::give_back(stack);
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
        pid if pid > 0 => Ok(Spawned { pid: pid as u32, shared: None }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The child, whole.
///
/// # Safety
/// `orders` must be valid and nobody else's until this process executes or ends.
unsafe extern "C" fn carry_out(orders: *mut Orders) -> ! {
    // SAFETY: by the caller's word; all that is pointed to was made before and outlives this process's stay here.
    unsafe {
        let orders = &mut *orders;
        enter_cgroup(orders);
        let failed = match become_program(orders) {
            Ok(never) => match never {},
            Err(failed) => failed,
        };
        let (step, status, errno) = failed;
        orders.failed_step.store(step, Ordering::Release);
        orders.status.store(u32::from(status), Ordering::Release);
        orders.errno.store(errno, Ordering::Release);
        loop {
            arch::call(libc::SYS_exit_group, [usize::from(status), 0, 0, 0, 0]);
        }
    }
}

/// The step that failed (-1 for none), the exit status, and the error.
type Failed = (i32, u8, i32);

/// # Safety
/// As for [`carry_out`].
unsafe fn enter_cgroup(orders: &Orders) {
    if orders.enter >= 0 {
        let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
        // SAFETY: constant strings.
        unsafe {
            let file = arch::call(
                libc::SYS_openat,
                [orders.enter as usize, c"cgroup.procs".as_ptr() as usize, flags, 0, 0],
            );
            arch::call(libc::SYS_write, [file as usize, c"0".as_ptr() as usize, 1, 0, 0]);
        }
    }
}

/// # Safety
/// As for [`carry_out`].
unsafe fn become_program(orders: &mut Orders) -> Result<std::convert::Infallible, Failed> {
    let fds_failed = |errno| (-1, FDS_FAILED, errno);
    // SAFETY: by the caller's word; indexes stay below the lengths that were fixed before.
    unsafe {
        let lowest = orders.fds.len().wrapping_add(3);
        for (fd, parked) in orders.fds.iter().zip(orders.parked.iter_mut()) {
            let copy = [*fd as usize, libc::F_DUPFD_CLOEXEC as usize, lowest, 0];
            *parked = attempt(libc::SYS_fcntl, copy).map_err(fds_failed)? as RawFd;
        }
        let mut stream = None;
        let mut at: i32 = 0;
        for (step, status) in &orders.program.steps {
            take(step, &orders.parked, &mut stream).map_err(|errno| (at, *status, errno))?;
            at = at.wrapping_add(1);
        }
        let mut target = 3;
        for parked in orders.parked.iter().take(orders.program.passed) {
            attempt(libc::SYS_dup3, [*parked as usize, target, 0, 0]).map_err(fds_failed)?;
            if let Some(non_blocking) = orders.program.non_blocking {
                set_blocking(target, !non_blocking);
            }
            target = target.wrapping_add(1);
        }
        fill_variables(orders, stream);
        let mut error = libc::ENOENT;
        for path in orders.paths.iter().take_while(|path| !path.is_null()) {
            let (argv, environment) = (orders.argv.as_ptr(), orders.environment.as_ptr());
            let call = [*path as usize, argv as usize, environment as usize, 0];
            if let Err(errno) = attempt(libc::SYS_execve, call) {
                error = if errno == libc::ENOENT { error } else { errno };
            }
        }
        Err((-1, EXEC_FAILED, error))
    }
}

/// A system call; its result or its error.
///
/// # Safety
/// The arguments must be what the call takes.
unsafe fn attempt(number: libc::c_long, args: [usize; 4]) -> Result<isize, i32> {
    let [first, second, third, fourth] = args;
    // SAFETY: by the caller's word.
    let result = unsafe { arch::call(number, [first, second, third, fourth, 0]) };
    if result < 0 { Err(result.wrapping_neg() as i32) } else { Ok(result) }
}

/// Clears or sets O_NONBLOCK of the open file.
///
/// # Safety
/// None is needed: numbers only.
unsafe fn set_blocking(fd: usize, blocking: bool) {
    // SAFETY: numbers only.
    unsafe {
        if let Ok(flags) = attempt(libc::SYS_fcntl, [fd, libc::F_GETFL as usize, 0, 0]) {
            let bit = libc::O_NONBLOCK as usize;
            let wanted = if blocking { flags as usize & !bit } else { flags as usize | bit };
            if wanted != flags as usize {
                let _ = attempt(libc::SYS_fcntl, [fd, libc::F_SETFL as usize, wanted, 0]);
            }
        }
    }
}

/// Moves a descriptor to its number, where it survives the execution; what it was before is close-on-exec.
///
/// # Safety
/// None is needed: numbers only.
unsafe fn place(fd: isize, target: RawFd) -> Result<(), i32> {
    // SAFETY: numbers only.
    unsafe {
        if fd == target as isize {
            return attempt(libc::SYS_fcntl, [fd as usize, libc::F_SETFD as usize, 0, 0]).map(drop);
        }
        attempt(libc::SYS_dup3, [fd as usize, target as usize, 0, 0]).map(drop)
    }
}

/// Does one step.
///
/// # Safety
/// As for [`carry_out`].
unsafe fn take(step: &Step, given: &[RawFd], stream: &mut Option<(u64, u64)>) -> Result<(), i32> {
    // SAFETY: every pointer is into the step itself or onto this stack, and outlives the call.
    unsafe {
        match step {
            Step::NewSession => attempt(libc::SYS_setsid, [0; 4]).map(drop),
            Step::FileMode(mode) => attempt(libc::SYS_umask, [*mode as usize, 0, 0, 0]).map(drop),
            Step::Keyring { invocation } => {
                const JOIN: usize = 1;
                const SET_RIGHTS: usize = 5;
                const SESSION: usize = -3_isize as usize;
                if let (Ok(_), Some(id)) = (attempt(libc::SYS_keyctl, [JOIN, 0, 0, 0]), invocation) {
                    let (kind, name) = (c"user".as_ptr() as usize, c"invocation_id".as_ptr() as usize);
                    let key = arch::call(libc::SYS_add_key, [kind, name, id.as_ptr() as usize, 16, SESSION]);
                    if key > 0 {
                        let rights = crate::kernel::INVOCATION_RIGHTS as usize;
                        let _ = attempt(libc::SYS_keyctl, [SET_RIGHTS, key as usize, rights, 0]);
                    }
                }
                Ok(())
            }
            Step::Signal { number, ignore } => {
                // struct sigaction of the kernel: handler, flags, restorer, mask. SIG_DFL is 0, SIG_IGN is 1.
                let action = [u64::from(*ignore), 0, 0, 0];
                attempt(libc::SYS_rt_sigaction, [*number as usize, action.as_ptr() as usize, 0, 8]).map(drop)
            }
            Step::Limit { resource, soft, hard } => {
                let limit = [*soft, *hard];
                attempt(libc::SYS_prlimit64, [0, *resource as usize, limit.as_ptr() as usize, 0]).map(drop)
            }
            Step::Directory(path) => attempt(libc::SYS_chdir, [path.as_ptr() as usize, 0, 0, 0]).map(drop),
            Step::Open { path, flags, mode, target } => place(open(path.as_ptr(), *flags, *mode)?, *target),
            Step::Given { index, target } => {
                let fd = given.get(*index).copied().ok_or(libc::EBADF)?;
                set_blocking(fd as usize, true);
                place(fd as isize, *target)
            }
            Step::Copy { from, target } => place(*from as isize, *target),
            Step::Stream { socket, header, target } => {
                let fd = match connect(socket, header) {
                    Ok(fd) => {
                        *stream = identity(fd);
                        fd
                    }
                    Err(_) => open(c"/dev/null".as_ptr(), libc::O_WRONLY, 0)?,
                };
                place(fd, *target)
            }
            Step::Control { option, value } => {
                attempt(libc::SYS_prctl, [*option as usize, *value as usize, 0, 0]).map(drop)
            }
        }
    }
}

/// # Safety
/// `path` must be a C string.
unsafe fn open(path: *const libc::c_char, flags: i32, mode: u32) -> Result<isize, i32> {
    let flags = (flags | libc::O_CLOEXEC | libc::O_NOCTTY) as usize;
    // SAFETY: by the caller's word.
    unsafe { attempt(libc::SYS_openat, [libc::AT_FDCWD as usize, path as usize, flags, mode as usize]) }
}

/// A connected stream, for writing only, with its first message in it.
///
/// # Safety
/// None is needed.
unsafe fn connect(path: &CString, header: &[u8]) -> Result<isize, i32> {
    const ADDRESS_MAX: usize = 110;
    let bytes = path.as_bytes_with_nul();
    let mut address = [0_u8; ADDRESS_MAX];
    let Some(place) = address.get_mut(2..bytes.len().wrapping_add(2)) else {
        return Err(libc::ENAMETOOLONG);
    };
    // Byte by byte: a call of memcpy would be libc's.
    for (to, from) in place.iter_mut().zip(bytes) {
        *to = *from;
    }
    let [low, high] = (libc::AF_UNIX as u16).to_ne_bytes();
    (address[0], address[1]) = (low, high);
    // SAFETY: the address is on this stack, the header the caller's.
    unsafe {
        let kind = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC) as usize;
        let fd = attempt(libc::SYS_socket, [libc::AF_UNIX as usize, kind, 0, 0])?;
        let length = bytes.len().wrapping_add(2);
        attempt(libc::SYS_connect, [fd as usize, address.as_ptr() as usize, length, 0])?;
        let _ = attempt(libc::SYS_shutdown, [fd as usize, libc::SHUT_RD as usize, 0, 0]);
        attempt(libc::SYS_write, [fd as usize, header.as_ptr() as usize, header.len(), 0])?;
        Ok(fd)
    }
}

/// Device and inode of a descriptor.
///
/// # Safety
/// None is needed.
unsafe fn identity(fd: isize) -> Option<(u64, u64)> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills the structure, or says that it did not.
    unsafe {
        attempt(libc::SYS_fstat, [fd as usize, stat.as_mut_ptr() as usize, 0, 0]).ok()?;
        let stat = stat.assume_init();
        Some((stat.st_dev, stat.st_ino))
    }
}

/// Writes the numbers that only the child knows into its environment.
///
/// # Safety
/// As for [`carry_out`].
unsafe fn fill_variables(orders: &mut Orders, stream: Option<(u64, u64)>) {
    // SAFETY: no arguments.
    let me = unsafe { arch::call(libc::SYS_getpid, [0; 5]) } as u64;
    let kinds = orders.program.environment.iter();
    for (variable, (text, pointer)) in
        kinds.zip(orders.variables.iter_mut().zip(orders.environment.iter_mut()))
    {
        match (variable, stream) {
            (Variable::Fixed(_), _) => {}
            (Variable::OwnNumber(_), _) => {
                digits(text, me);
            }
            (Variable::StreamNumber(_), Some((device, inode))) => {
                digits(text, device);
                append(text, b':');
                digits(text, inode);
            }
            (Variable::StreamNumber(_), None) => *pointer = std::ptr::null(),
        }
    }
}

/// Puts a byte in place of the first of the NULs at the end, the last of which stays.
fn append(text: &mut [u8], byte: u8) {
    let last = text.len().wrapping_sub(1);
    if let Some(free) = text.iter_mut().take(last).find(|byte| **byte == 0) {
        *free = byte;
    }
}

fn digits(text: &mut [u8], number: u64) {
    let mut scale = 10_u64.pow(number.checked_ilog10().unwrap_or(0));
    while let Some(leading) = number.checked_div(scale) {
        append(text, b'0'.wrapping_add((leading % 10) as u8));
        scale /= 10;
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
    pub unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
        let result: isize;
        let [first, second, third, fourth, fifth] = args;
        // SAFETY: the kernel's convention; by the caller's word for the arguments.
        unsafe {
            asm!("syscall", inlateout("rax") number as isize => result, in("rdi") first, in("rsi") second, in("rdx") third,
                in("r10") fourth, in("r8") fifth, out("rcx") _, out("r11") _, options(nostack));
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
    pub unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
        let result: isize;
        let [first, second, third, fourth, fifth] = args;
        // SAFETY: the kernel's convention; by the caller's word for the arguments.
        unsafe {
            asm!("svc 0", in("x8") number, inlateout("x0") first => result, in("x1") second, in("x2") third, in("x3") fourth,
                in("x4") fifth, options(nostack));
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
    pub unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
        let [first, second, third, fourth, fifth] = args;
        // SAFETY: by the caller's word.
        unsafe { libc::syscall(number, first, second, third, fourth, fifth) as isize }
    }

    /// Never called: see `SUPPORTED`.
    ///
    /// # Safety
    /// None is needed.
    pub unsafe fn clone3(_: *mut libc::clone_args, _: usize, _: *mut Orders) -> isize {
        -(libc::ENOSYS as isize)
    }
}
