//! Project quotas (quotactl(2), FS_IOC_FSSETXATTR): what a tree of directories takes, and may take, of its file system.

use crate::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent: u32,
    extents: u32,
    project: u32,
    copy_extent: u32,
    pad: [u8; 8],
}

const GET_ATTRIBUTES: libc::c_ulong = 0x801c_581f;
const SET_ATTRIBUTES: libc::c_ulong = 0x401c_5820;
/// What is made in a directory belongs to its project.
const INHERIT: u32 = 0x200;

/// The project of an open file; 0 for none.
pub fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    attributes(file).map(|attributes| attributes.project)
}

/// Gives an open file, or a directory with what is made in it from now on, to a project.
pub fn set_project(file: BorrowedFd<'_>, project: u32, is_directory: bool) -> io::Result<()> {
    let mut attributes = attributes(file)?;
    attributes.project = project;
    attributes.flags |= if is_directory { INHERIT } else { 0 };
    // SAFETY: the structure is the request's, and live for the call.
    check(libc::c_long::from(unsafe { libc::ioctl(file.as_raw_fd(), SET_ATTRIBUTES as _, &attributes) }))
        .map(drop)
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the structure is the request's, and live for the call.
    check(libc::c_long::from(unsafe {
        libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES as _, &mut attributes)
    }))?;
    Ok(attributes)
}

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Block {
    hard: u64,
    soft: u64,
    used: u64,
    inodes: [u64; 3],
    times: [u64; 2],
    valid: u32,
}

const GET: u32 = 0x80_0007;
const SET: u32 = 0x80_0008;
const PROJECTS: u32 = 2;
/// The limits of space are set.
const LIMITS: u32 = 1;
/// Limits are in blocks of this size.
const BLOCK: u64 = 1024;

fn call(file: BorrowedFd<'_>, command: u32, project: u32, block: &mut Block) -> io::Result<()> {
    let pointer: *mut Block = block;
    // SAFETY: the structure is the command's, and live for the call.
    check(unsafe {
        libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command << 8 | PROJECTS, project, pointer)
    })
    .map(drop)
}

/// What a project may take and takes, in bytes; 0 for no limit.
pub fn quota(file: BorrowedFd<'_>, project: u32) -> io::Result<(u64, u64)> {
    let mut block = Block::default();
    call(file, GET, project, &mut block)?;
    Ok((block.hard.saturating_mul(BLOCK), block.used))
}

/// Sets what a project may take, in bytes; 0 for no limit.
pub fn set_quota(file: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut block = Block { hard: blocks, soft: blocks, valid: LIMITS, ..Block::default() };
    call(file, SET, project, &mut block)
}
