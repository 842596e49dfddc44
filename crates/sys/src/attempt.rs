//! A system call as an experiment: made in a forked copy of the process, which tells how it went and is gone.
//!
//! For probes and for tests of filters only. What must stay true: whatever the call does to memory or to the process
//! happens to the copy.

use std::io;

/// The entry by which a call enters the kernel of an x86-64 machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The one of this program.
    Native,
    /// That of 32-bit programs, `int 0x80`.
    I386,
    /// The native one with the bit of the x32 ABI in the number.
    X32,
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempted {
    /// The call gave this.
    Returned(i64),
    /// The call failed with this errno.
    Failed(i32),
    /// The copy was ended by this signal.
    Killed(i32),
}

/// Makes a call in a copy of this process, prepared by `before` (which must neither allocate nor lock).
pub fn attempt(
    entry: Entry,
    number: i64,
    arguments: [u64; 6],
    before: &dyn Fn() -> bool,
) -> io::Result<Attempted> {
    const SIZE: usize = 4096;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping at an address that the kernel chooses.
    let page =
        unsafe { libc::mmap(std::ptr::null_mut(), SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let cell = page.cast::<i64>();
    // SAFETY: the child makes raw calls only and leaves by _exit; the page is writable and large enough.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above; this is a copy of the process, and no other thread is in it.
        unsafe {
            let value = if before() { call(entry, number, arguments) } else { i64::MIN };
            cell.write_volatile(value);
            libc::syscall(libc::SYS_exit_group, 0);
        }
    }
    let mut status = 0;
    // SAFETY: `status` is a live local; the child is ours, and so is the page until it is unmapped.
    let value = unsafe {
        if child > 0 {
            while libc::waitpid(child, &mut status, 0) < 0 && *libc::__errno_location() == libc::EINTR {}
        }
        let value = cell.read_volatile();
        libc::munmap(page, SIZE);
        value
    };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(match (libc::WIFSIGNALED(status), value) {
        (true, _) => Attempted::Killed(libc::WTERMSIG(status)),
        (false, i64::MIN) => return Err(io::Error::other("the copy could not be prepared")),
        (false, -4095..=-1) => Attempted::Failed(i32::try_from(value.wrapping_neg()).unwrap_or(0)),
        (false, value) => Attempted::Returned(value),
    })
}

/// # Safety
/// For a process that may be harmed.
#[cfg(target_arch = "x86_64")]
unsafe fn call(entry: Entry, number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    let mut result = number;
    match entry {
        Entry::Native | Entry::X32 => {
            if entry == Entry::X32 {
                result |= 0x4000_0000;
            }
            // SAFETY: the registers are those of the kernel's convention; the caller answers for the effect.
            unsafe {
                std::arch::asm!(
                    "syscall", inlateout("rax") result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
                    in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _
                );
            }
        }
        Entry::I386 => {
            // SAFETY: as above; rbx is the compiler's and is put back. The sixth argument stays as it is.
            unsafe {
                std::arch::asm!(
                    "xchg rbx, {first}", "int 0x80", "xchg rbx, {first}", first = inout(reg) a => _,
                    inlateout("rax") result, in("rcx") b, in("rdx") c, in("rsi") d, in("rdi") e,
                    lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _
                );
            }
            result = i64::from(result as i32);
        }
    }
    result
}

/// # Safety
/// For a process that may be harmed.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn call(entry: Entry, number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    if entry != Entry::Native {
        return -i64::from(libc::ENOSYS);
    }
    // SAFETY: the caller answers for the effect.
    let result = unsafe { libc::syscall(number as libc::c_long, a, b, c, d, e, f) };
    // SAFETY: errno of this thread.
    if result < 0 { -i64::from(unsafe { *libc::__errno_location() }) } else { result as i64 }
}
