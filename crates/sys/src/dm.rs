//! Device mapper (Linux, include/uapi/linux/dm-ioctl.h): block devices made of others.

use crate::check;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct dm_ioctl`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    version: [u32; 3],
    size: u32,
    start: u32,
    targets: u32,
    open: i32,
    flags: u32,
    event: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `struct dm_target_spec`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Target {
    start: u64,
    length: u64,
    status: i32,
    next: u32,
    kind: [u8; 16],
}

/// An order with room for the words of a table.
#[repr(C)]
struct Order {
    head: Head,
    target: Target,
    words: [u8; WORDS_MAX],
}

const WORDS_MAX: usize = 2048;
const READ_ONLY: u32 = 1;
const DEFERRED: u32 = 1 << 17;
const CREATE: u32 = 3;
const REMOVE: u32 = 4;
const RESUME: u32 = 6;
const LOAD: u32 = 9;

fn order(name: &str) -> Order {
    let head = Head {
        version: [4, 0, 0],
        size: size_of::<Order>() as u32,
        start: size_of::<Head>() as u32,
        targets: 0,
        open: 0,
        flags: 0,
        event: 0,
        padding: 0,
        device: 0,
        name: [0; 128],
        uuid: [0; 129],
        data: [0; 7],
    };
    let target = Target { start: 0, length: 0, status: 0, next: 0, kind: [0; 16] };
    let mut order = Order { head, target, words: [0; WORDS_MAX] };
    copy(&mut order.head.name, name);
    order
}

/// Copies a text; the last byte stays 0.
fn copy(to: &mut [u8], text: &str) {
    let room = to.len().saturating_sub(1);
    to.iter_mut().take(room).zip(text.bytes()).for_each(|(to, from)| *to = from);
}

fn send(control: BorrowedFd<'_>, number: u32, order: &mut Order) -> io::Result<()> {
    let request = (3 << 30) | ((size_of::<Head>() as libc::c_ulong) << 16) | (0xfd << 8);
    let request = request | libc::c_ulong::from(number);
    // SAFETY: the kernel reads and writes no more than the size that the head says, which is that of the order.
    check(unsafe { libc::ioctl(control.as_raw_fd(), request as _, &raw mut *order) }.into()).map(drop)
}

/// Makes a device that is only read, of one target over `sectors` sectors of 512 bytes; gives its minor number. `control` is
/// /dev/mapper/control. A name that is taken is `EBUSY`.
pub fn map_device(
    control: BorrowedFd<'_>,
    name: &str,
    sectors: u64,
    kind: &str,
    words: &str,
) -> io::Result<u32> {
    if name.len() >= 128 || kind.len() >= 16 || words.len() >= WORDS_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    let mut created = order(name);
    send(control, CREATE, &mut created)?;
    let device = created.head.device;
    let rest = || {
        let mut table = order(name);
        table.head.flags = READ_ONLY;
        table.head.targets = 1;
        table.target.length = sectors;
        copy(&mut table.target.kind, kind);
        copy(&mut table.words, words);
        send(control, LOAD, &mut table)?;
        send(control, RESUME, &mut order(name))
    };
    match rest() {
        // `huge_encode_dev`: the low byte of the minor number, then the major number, then the rest.
        Ok(()) => Ok(((device & 0xff) | ((device >> 12) & 0xfff00)) as u32),
        Err(error) => {
            let _ = unmap_device(control, name);
            Err(error)
        }
    }
}

/// Removes a device as soon as nobody uses it.
pub fn unmap_device(control: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut gone = order(name);
    gone.head.flags = DEFERRED;
    send(control, REMOVE, &mut gone)
}

/// Puts a value where the kernel finds it for this thread by its name (add_key(2), "user").
pub fn add_thread_key(name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    const THREAD: libc::c_long = -1;
    let (kind, name) = (c"user".as_ptr(), name.as_ptr());
    // SAFETY: two C strings, and a slice with its length.
    let done = unsafe { libc::syscall(libc::SYS_add_key, kind, name, value.as_ptr(), value.len(), THREAD) };
    check(done).map(drop)
}
