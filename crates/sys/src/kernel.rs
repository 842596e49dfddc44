//! What a process asks of the kernel for itself: filters of system calls, processors, memory policy, personality; and which
//! security modules it has.

use crate::check;
use std::io;

/// One instruction of a filter, as the kernel reads it (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub yes: u8,
    /// Instructions to skip when it does not.
    pub no: u8,
    /// Operand.
    pub operand: u32,
}

/// seccomp(2), SECCOMP_SET_MODE_FILTER, for this thread. Fails with EACCES without no-new-privileges or CAP_SYS_ADMIN.
pub fn install_filter(program: &[Instruction]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: the program is live for the call and as long as it says; the kernel checks what is in it and keeps a copy.
    check(unsafe { libc::syscall(libc::SYS_seccomp, 1_u64, 0_u64, &program as *const Program) }).map(drop)
}

/// lsm_list_modules(2), since Linux 6.8: the numbers of the security modules that run (linux/lsm.h).
pub fn security_modules() -> io::Result<Vec<u64>> {
    const LIST_MODULES: libc::c_long = 461;
    let mut ids = [0_u64; 32];
    let mut size = size_of_val(&ids) as u32;
    // SAFETY: both places are live for the call, and the size is that of the first.
    let found =
        check(unsafe { libc::syscall(LIST_MODULES, ids.as_mut_ptr(), &mut size as *mut u32, 0_u32) })?;
    Ok(ids.into_iter().take(found as usize).collect())
}

/// sched_setaffinity(2): the processors whose bits are set may be used.
pub fn set_affinity(words: &[u64]) -> io::Result<()> {
    // SAFETY: the words are live for the call, and the size is theirs.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(words), words.as_ptr()) })
        .map(drop)
}

/// sched_getaffinity(2).
pub fn affinity() -> io::Result<Vec<u64>> {
    let mut words = vec![0_u64; 128];
    let size = size_of_val(words.as_slice());
    // SAFETY: the buffer is live and as large as said.
    let got = check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size, words.as_mut_ptr()) })?;
    words.truncate((got as usize).div_ceil(8));
    Ok(words)
}

/// set_mempolicy(2).
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    let bits = nodes.len().saturating_mul(64);
    // The kernel looks at one bit less than it is told.
    let bits = if bits == 0 { 0 } else { bits.saturating_add(1) };
    let pointer = if bits == 0 { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask is live for the call and as long as said.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}

/// get_mempolicy(2): mode and first 64 nodes.
pub fn memory_policy() -> io::Result<(i32, u64)> {
    let (mut mode, mut nodes) = (0_i32, [0_u64; 16]);
    let bits = 1024_u64;
    // SAFETY: both are live locals, the mask of 1024 bits as said.
    check(unsafe {
        libc::syscall(libc::SYS_get_mempolicy, &mut mode as *mut i32, nodes.as_mut_ptr(), bits, 0_u64, 0_u64)
    })?;
    Ok((mode, nodes.first().copied().unwrap_or(0)))
}

/// personality(2); gives the former one. 0xffff_ffff only asks.
pub fn personality(value: u32) -> io::Result<u32> {
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_personality, u64::from(value)) }).map(|former| former as u32)
}

/// A new session keyring for this process (keyctl(2)), made as another user where root is not meant, and linked with that
/// user's own where it is `shared`. The process is root again afterwards.
pub fn own_keyring((uid, gid): (u32, u32), shared: bool) -> io::Result<()> {
    const JOIN: i64 = 1;
    const LINK: i64 = 8;
    const USER: i64 = -4;
    const SESSION: i64 = -3;
    let keep = libc::uid_t::MAX;
    let become_user = |uid: u32, gid: u32| -> io::Result<()> {
        // SAFETY: numbers only.
        check(i64::from(unsafe { libc::setregid(gid, keep) }))?;
        // SAFETY: as above.
        check(i64::from(unsafe { libc::setreuid(uid, keep) })).map(drop)
    };
    let make = || -> io::Result<()> {
        // SAFETY: a null name asks for a keyring without one.
        check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN, 0_i64) })?;
        if shared {
            // SAFETY: numbers only.
            check(unsafe { libc::syscall(libc::SYS_keyctl, LINK, USER, SESSION) })?;
        }
        Ok(())
    };
    if uid == 0 && gid == 0 {
        return make();
    }
    become_user(uid, gid)?;
    let made = make();
    // SAFETY: numbers only.
    check(i64::from(unsafe { libc::setreuid(0, keep) }))?;
    // SAFETY: as above.
    check(i64::from(unsafe { libc::setregid(0, keep) }))?;
    made
}

/// Rights of the key that says which run this is: the possessor and the user may view, read and search.
pub(crate) const INVOCATION_RIGHTS: u64 = 0x0b0b_0000;

/// Puts the id of a run into the session keyring, where nobody can change it.
pub fn keep_invocation(id: &[u8; 16]) -> io::Result<()> {
    const SET_RIGHTS: i64 = 5;
    // SAFETY: the texts and the bytes are live for the call, whose kernel copies them.
    let key = check(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            c"invocation_id".as_ptr(),
            id.as_ptr(),
            16_u64,
            -3_i64,
        )
    })?;
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SET_RIGHTS, key, INVOCATION_RIGHTS) }).map(drop)
}

/// ioprio_get(2) of this thread.
pub fn io_priority() -> io::Result<i32> {
    // SAFETY: numbers only; 1 is IOPRIO_WHO_PROCESS.
    check(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) }).map(|value| value as i32)
}

/// Policy and priority of sched(7), and nice value, of this thread.
pub fn scheduler() -> io::Result<(i32, i32, i32)> {
    let mut parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure is a live local; the rest are numbers.
    let policy = check(i64::from(unsafe { libc::sched_getscheduler(0) }))?;
    // SAFETY: as above.
    check(i64::from(unsafe { libc::sched_getparam(0, &mut parameters) }))?;
    // SAFETY: numbers only.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    Ok((policy as i32, parameters.sched_priority, nice))
}
