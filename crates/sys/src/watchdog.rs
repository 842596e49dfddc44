//! Hardware watchdogs (Linux, Documentation/watchdog/watchdog-api.rst), and swaps, which are let go of at the end.

use crate::check;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `_IOWR('W', number, int)`.
const SET: u64 = 0xc004_5700;
/// `_IOR('W', number, int)`.
const GET: u64 = 0x8004_5700;

fn control(fd: BorrowedFd<'_>, request: u64, mut value: i32) -> io::Result<i32> {
    // SAFETY: each of these orders reads or writes one int, which is a live local.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, &raw mut value) }))?;
    Ok(value)
}

/// Sets after how many seconds without a sign of life the machine is reset; gives what the device made of it.
pub fn watchdog_set_timeout(fd: BorrowedFd<'_>, seconds: i32) -> io::Result<i32> {
    control(fd, SET | 6, seconds)
}

/// After how many seconds that is.
pub fn watchdog_timeout(fd: BorrowedFd<'_>) -> io::Result<i32> {
    control(fd, GET | 7, 0)
}

/// How many seconds before the reset the kernel is told.
pub fn watchdog_set_pretimeout(fd: BorrowedFd<'_>, seconds: i32) -> io::Result<()> {
    control(fd, SET | 8, seconds).map(drop)
}

/// Arms the device.
pub fn watchdog_enable(fd: BorrowedFd<'_>) -> io::Result<()> {
    const WDIOS_ENABLECARD: i32 = 2;
    control(fd, GET | 4, WDIOS_ENABLECARD).map(drop)
}

/// A sign of life.
pub fn watchdog_keep_alive(fd: BorrowedFd<'_>) -> io::Result<()> {
    control(fd, GET | 5, 0).map(drop)
}

/// swapoff(2).
pub fn swap_off(path: &CStr) -> io::Result<()> {
    // SAFETY: the path is a live C string.
    check(libc::c_long::from(unsafe { libc::swapoff(path.as_ptr()) })).map(drop)
}
