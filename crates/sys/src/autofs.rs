//! The control device of autofs (Linux, Documentation/filesystems/autofs-mount-control.rst): answers to its requests.

use crate::check;
use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct autofs_dev_ioctl`; a path follows where one is meant.
#[repr(C)]
#[derive(Clone, Copy)]
struct Order {
    major: u32,
    minor: u32,
    size: u32,
    mount: i32,
    arguments: [u32; 2],
}

const MAJOR: u32 = 1;
const OPEN_MOUNT: u32 = 0x74;
const READY: u32 = 0x76;
const FAIL: u32 = 0x77;
const TIMEOUT: u32 = 0x7a;
const EXPIRE: u32 = 0x7c;
/// The longest order, in words of eight bytes.
const WORDS_MAX: usize = 1024;

/// The number of an order: `_IOWR(0x93, order, struct autofs_dev_ioctl)`.
fn request(order: u32) -> libc::c_ulong {
    let size = size_of::<Order>() as libc::c_ulong;
    (3 << 30) | (size << 16) | (0x93 << 8) | libc::c_ulong::from(order)
}

/// Sends an order; gives the descriptor that the kernel wrote in its place, where it did.
fn send(
    control: BorrowedFd<'_>,
    order: u32,
    mount: i32,
    arguments: [u32; 2],
    path: &[u8],
) -> io::Result<i32> {
    let size = size_of::<Order>().saturating_add(path.len());
    let mut words = vec![0_u64; size.div_ceil(8)];
    if words.len() > WORDS_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    let header = Order { major: MAJOR, minor: 0, size: size as u32, mount, arguments };
    let start = words.as_mut_ptr();
    // SAFETY: the buffer is aligned for the header and holds `size` bytes or more, so that header and path fit into it.
    unsafe {
        start.cast::<Order>().write(header);
        let rest = start.cast::<u8>().add(size_of::<Order>());
        std::ptr::copy_nonoverlapping(path.as_ptr(), rest, path.len());
    }
    // SAFETY: the kernel reads and writes no more than the size that the header says, which is live for the call.
    check(unsafe { libc::ioctl(control.as_raw_fd(), request(order) as _, start) }.into())?;
    // SAFETY: the header is still there, as the kernel left it.
    Ok(unsafe { start.cast::<Order>().read() }.mount)
}

/// Opens the autofs mount of a device number at a path, whatever is mounted above it.
pub fn autofs_open(control: BorrowedFd<'_>, place: &CStr, device: u32) -> io::Result<OwnedFd> {
    let fd = send(control, OPEN_MOUNT, -1, [device, 0], place.to_bytes_with_nul())?;
    // SAFETY: the kernel made this descriptor for us in this call.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets after how many seconds without use a mount may go; 0 for never.
pub fn autofs_set_timeout(control: BorrowedFd<'_>, mount: BorrowedFd<'_>, seconds: u32) -> io::Result<()> {
    send(control, TIMEOUT, mount.as_raw_fd(), [seconds, 0], &[]).map(drop)
}

/// Answers a request: what was asked for is there, or `errno` says why it is not.
pub fn autofs_answer(
    control: BorrowedFd<'_>,
    mount: BorrowedFd<'_>,
    token: u32,
    errno: i32,
) -> io::Result<()> {
    let (order, arguments) =
        if errno == 0 { (READY, [token, 0]) } else { (FAIL, [token, errno.saturating_neg() as u32]) };
    send(control, order, mount.as_raw_fd(), arguments, &[]).map(drop)
}

/// Has what is mounted there go, if it was not used for the time that was set. Blocks until that request was answered.
pub fn autofs_expire(control: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> io::Result<()> {
    send(control, EXPIRE, mount.as_raw_fd(), [0, 0], &[]).map(drop)
}
