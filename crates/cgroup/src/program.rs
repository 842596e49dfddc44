//! Programs that the kernel runs for a cgroup: the words that they are made of, and how one takes the place of another.

use muster_sys::bpf::{self, Hook, Operation};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) const LOAD_WORD: u8 = 0x61;
pub(crate) const COPY: u8 = 0xbf;
pub(crate) const SET: u8 = 0xb7;
pub(crate) const AND: u8 = 0x57;
pub(crate) const SHIFT_RIGHT: u8 = 0x77;
pub(crate) const JUMP_IF_NOT: u8 = 0x55;
pub(crate) const JUMP_IF_NOT_EQUAL: u8 = 0x5d;
pub(crate) const EXIT: u8 = 0x95;

pub(crate) fn step(code: u8, registers: u8, offset: i16, immediate: u32) -> Operation {
    Operation { code, registers, offset, immediate: immediate.cast_signed() }
}

/// Ends the program with a verdict.
pub(crate) fn verdict(allowed: bool) -> [Operation; 2] {
    [step(SET, 0x00, 0, u32::from(allowed)), step(EXIT, 0x00, 0, 0)]
}

/// Puts a program in the place of that of this name, or takes it away. The old one holds until the new one does.
pub(crate) fn replace(
    cgroup: BorrowedFd<'_>,
    hook: Hook,
    name: &str,
    program: Option<&[Operation]>,
) -> io::Result<()> {
    replace_with(cgroup, hook, name, program, |program| bpf::load(program, hook, name))
}

/// The same, with a way of its own to load it.
pub(crate) fn replace_with(
    cgroup: BorrowedFd<'_>,
    hook: Hook,
    name: &str,
    program: Option<&[Operation]>,
    load: impl Fn(&[Operation]) -> io::Result<OwnedFd>,
) -> io::Result<()> {
    let old = match bpf::programs(cgroup, hook, name) {
        // Where nothing can be set, nothing can have been.
        Err(_) if program.is_none() => return Ok(()),
        found => found?,
    };
    if let Some(program) = program {
        let new = load(program)?;
        bpf::attach(cgroup, hook, new.as_fd())?;
    }
    old.iter().try_for_each(|old| bpf::detach(cgroup, hook, old.as_fd()))
}
