//! Loop devices (loop(4)): a part of a file as a block device.

use crate::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    real_device: u64,
    offset: u64,
    size: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const GET_FREE: libc::c_ulong = 0x4c82;
const CONFIGURE: libc::c_ulong = 0x4c0a;
const READ_ONLY: u32 = 1;
/// It goes with its last user.
const AUTOCLEAR: u32 = 4;

/// The number of a loop device that nobody used a moment ago, made if there is none; `control` is /dev/loop-control.
pub fn free_loop(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: the request takes no argument.
    let number = check(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) }.into())?;
    u32::try_from(number).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Takes the file from a loop device.
pub fn detach_loop(device: BorrowedFd<'_>) -> io::Result<()> {
    const DETACH: libc::c_ulong = 0x4c01;
    // SAFETY: the request takes no argument.
    check(unsafe { libc::ioctl(device.as_raw_fd(), DETACH as _, 0) }.into()).map(drop)
}

/// Makes a loop device show `size` bytes of a file from `offset` on, all of it with 0. When nobody has it open or mounted
/// any more, the file is let go. `EBUSY` says that somebody else was faster.
pub fn configure_loop(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    size: u64,
    read_only: bool,
) -> io::Result<()> {
    let flags = AUTOCLEAR | if read_only { READ_ONLY } else { 0 };
    let info = Info {
        device: 0,
        inode: 0,
        real_device: 0,
        offset,
        size,
        number: 0,
        encryption: [0; 2],
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        key: [0; 32],
        init: [0; 2],
    };
    let fd = u32::try_from(file.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let config = Config { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: the kernel reads one structure of this layout during the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) }.into()).map(drop)
}
