//! bpf(2), as far as programs that decide for a cgroup need it.

use crate::{adopt_fd, check};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// One instruction (Linux, Documentation/bpf/standardization/instruction-set.rst).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What is done.
    pub code: u8,
    /// Destination in the lower half, source in the upper one.
    pub registers: u8,
    /// Of a jump, or an address.
    pub offset: i16,
    /// A number.
    pub immediate: i32,
}

const LOAD: i64 = 5;
const ATTACH: i64 = 8;
const DETACH: i64 = 9;
const BY_ID: i64 = 13;
const INFO: i64 = 15;
const QUERY: i64 = 16;
const ALLOW_MULTI: u32 = 2;
/// At most this many programs of one cgroup are looked at; the kernel takes no more.
const ATTACHED_MAX: usize = 64;

/// What a program of a cgroup is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Whether a device is opened, or a node made for it.
    Device,
    /// Whether a packet comes in.
    Ingress,
    /// Whether a packet goes out.
    Egress,
    /// Whether a socket is bound to an address of IPv4.
    Bind4,
    /// The same for IPv6.
    Bind6,
}

impl Hook {
    /// `enum bpf_prog_type` and `enum bpf_attach_type`.
    fn numbers(self) -> (u32, u32) {
        match self {
            Hook::Device => (15, 6),
            Hook::Ingress => (8, 0),
            Hook::Egress => (8, 1),
            Hook::Bind4 => (18, 8),
            Hook::Bind6 => (18, 9),
        }
    }
}

fn call<T>(command: i64, attributes: &mut T) -> io::Result<i64> {
    let pointer: *mut T = attributes;
    // SAFETY: the attributes are live for the call and as large as said; what they point to is live in the callers.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) })
}

/// Loads a program. `name` is how it is known again, at most 15 bytes.
pub fn load(program: &[Operation], hook: Hook, name: &str) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u32; 2],
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let count = u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut attributes = Attributes {
        kind: hook.numbers().0,
        count,
        instructions: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log: [0; 2],
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: program_name(name),
        interface: 0,
        attach_type: hook.numbers().1,
    };
    call(LOAD, &mut attributes).map(|fd| adopt_fd(fd as i32))
}

fn program_name(text: &str) -> [u8; 16] {
    let mut name = [0_u8; 16];
    name.iter_mut().zip(text.bytes().take(15)).for_each(|(to, from)| *to = from);
    name
}

#[repr(C)]
struct Attached {
    cgroup: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn attached(cgroup: BorrowedFd<'_>, hook: Hook, program: BorrowedFd<'_>, flags: u32) -> Attached {
    let number = |fd: BorrowedFd<'_>| fd.as_raw_fd() as u32;
    Attached { cgroup: number(cgroup), program: number(program), kind: hook.numbers().1, flags }
}

/// Lets a program decide for a cgroup, beside those that already do.
pub fn attach(cgroup: BorrowedFd<'_>, hook: Hook, program: BorrowedFd<'_>) -> io::Result<()> {
    call(ATTACH, &mut attached(cgroup, hook, program, ALLOW_MULTI)).map(drop)
}

/// The programs of a name that decide for a cgroup.
pub fn programs(cgroup: BorrowedFd<'_>, hook: Hook, name: &str) -> io::Result<Vec<OwnedFd>> {
    #[repr(C)]
    struct Query {
        cgroup: u32,
        kind: u32,
        flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        pad: u32,
    }
    let mut ids = [0_u32; ATTACHED_MAX];
    let mut query = Query {
        cgroup: cgroup.as_raw_fd() as u32,
        kind: hook.numbers().1,
        flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ATTACHED_MAX as u32,
        pad: 0,
    };
    call(QUERY, &mut query)?;
    let mut found = Vec::new();
    for id in ids.iter().take(query.count as usize) {
        #[repr(C)]
        struct Id {
            id: u32,
            next: u32,
            flags: u32,
        }
        let fd = call(BY_ID, &mut Id { id: *id, next: 0, flags: 0 }).map(|fd| adopt_fd(fd as i32))?;
        if name_of(&fd)? == program_name(name) {
            found.push(fd);
        }
    }
    Ok(found)
}

/// The name of a program: 16 bytes, 64 into `struct bpf_prog_info`.
fn name_of(program: &OwnedFd) -> io::Result<[u8; 16]> {
    #[repr(C)]
    struct Question {
        program: u32,
        length: u32,
        answer: u64,
    }
    let mut answer = [0_u64; 10];
    let length = size_of_val(&answer) as u32;
    let program = program.as_raw_fd() as u32;
    call(INFO, &mut Question { program, length, answer: answer.as_mut_ptr() as u64 })?;
    let mut name = [0_u8; 16];
    let bytes = answer.iter().skip(8).flat_map(|word| word.to_ne_bytes());
    name.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(name)
}

/// Takes a program away from a cgroup.
pub fn detach(cgroup: BorrowedFd<'_>, hook: Hook, program: BorrowedFd<'_>) -> io::Result<()> {
    call(DETACH, &mut attached(cgroup, hook, program, 0)).map(drop)
}
