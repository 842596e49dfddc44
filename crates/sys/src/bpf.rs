//! bpf(2), as far as programs that decide or count for a cgroup need it.

use crate::{adopt_fd, check};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

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

const NEW_MAP: i64 = 0;
const LOOK_UP: i64 = 1;
const LOAD: i64 = 5;
const OPEN_PINNED: i64 = 7;
const ATTACH: i64 = 8;
const DETACH: i64 = 9;
const BY_ID: i64 = 13;
const MAP_BY_ID: i64 = 14;
const INFO: i64 = 15;
const QUERY: i64 = 16;
const ALLOW_MULTI: u32 = 2;
/// BPF_MAP_TYPE_ARRAY.
const ARRAY: u32 = 2;
/// At most this many programs of one cgroup are looked at; the kernel takes no more.
const ATTACHED_MAX: usize = 64;

macro_rules! hooks {
    ($($(#[$meta:meta])* $hook:ident $word:literal $kind:literal $attach:literal;)*) => {
        /// What a program of a cgroup is asked about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Hook {
            $($(#[$meta])* $hook,)*
        }
        impl Hook {
            /// `enum bpf_prog_type` and `enum bpf_attach_type`.
            fn numbers(self) -> (u32, u32) {
                match self {
                    $(Hook::$hook => ($kind, $attach),)*
                }
            }
            /// As bpftool(8) and `BPFProgram=` name it.
            pub fn word(self) -> &'static str {
                match self {
                    $(Hook::$hook => $word,)*
                }
            }
            /// The one of this name.
            pub fn named(word: &str) -> Option<Hook> {
                match word {
                    $($word => Some(Hook::$hook),)*
                    _ => None,
                }
            }
        }
    };
}
hooks! {
    /// Whether a device is opened, or a node made for it.
    Device "device" 15 6;
    /// Whether a packet comes in.
    Ingress "ingress" 8 0;
    /// Whether a packet goes out.
    Egress "egress" 8 1;
    /// Whether a socket is made.
    SockCreate "sock_create" 9 2;
    /// What happens to connections of TCP.
    SockOps "sock_ops" 13 3;
    /// Whether a socket is bound to an address of IPv4.
    Bind4 "bind4" 18 8;
    /// The same for IPv6.
    Bind6 "bind6" 18 9;
    /// Whether a socket is connected to an address of IPv4.
    Connect4 "connect4" 18 10;
    /// The same for IPv6.
    Connect6 "connect6" 18 11;
    /// What a socket was bound to in IPv4.
    PostBind4 "post_bind4" 9 12;
    /// The same for IPv6.
    PostBind6 "post_bind6" 9 13;
    /// Whether a datagram is sent to an address of IPv4.
    Sendmsg4 "sendmsg4" 18 14;
    /// The same for IPv6.
    Sendmsg6 "sendmsg6" 18 15;
    /// Whether a file of /proc/sys is read or written.
    Sysctl "sysctl" 23 18;
    /// From which address of IPv4 a datagram came.
    Recvmsg4 "recvmsg4" 18 19;
    /// The same for IPv6.
    Recvmsg6 "recvmsg6" 18 20;
    /// Which option of a socket is read.
    Getsockopt "getsockopt" 25 21;
    /// Which is set.
    Setsockopt "setsockopt" 25 22;
    /// Whether a file is opened (BPF_LSM_CGROUP).
    FileOpen "file_open" 29 43;
}

fn call<T>(command: i64, attributes: &mut T) -> io::Result<i64> {
    let pointer: *mut T = attributes;
    // SAFETY: the attributes are live for the call and as large as said; what they point to is live in the callers.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) })
}

/// Loads a program. `name` is how it is known again, at most 15 bytes.
pub fn load(program: &[Operation], hook: Hook, name: &str) -> io::Result<OwnedFd> {
    load_at(program, hook, name, 0)
}

/// Loads a program that stands before a function of the kernel, by its number among the kernel's types.
pub fn load_at(program: &[Operation], hook: Hook, name: &str, function: u32) -> io::Result<OwnedFd> {
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
        types: [u64; 4],
        line_count: u32,
        function: u32,
    }
    // The kernel lets only those read its structures who say this.
    let license = if function == 0 { c"MIT" } else { c"Dual MIT/GPL" };
    let count = u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut attributes = Attributes {
        kind: hook.numbers().0,
        count,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: program_name(name),
        interface: 0,
        attach_type: hook.numbers().1,
        types: [0; 4],
        line_count: 0,
        function,
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
        each_flags: u64,
    }
    let mut each_flags = [0_u32; ATTACHED_MAX];
    let mut ids = [0_u32; ATTACHED_MAX];
    let mut query = Query {
        cgroup: cgroup.as_raw_fd() as u32,
        kind: hook.numbers().1,
        flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ATTACHED_MAX as u32,
        pad: 0,
        // Kernels that know these programs want a place for them.
        each_flags: if hook == Hook::FileOpen { each_flags.as_mut_ptr() as u64 } else { 0 },
    };
    call(QUERY, &mut query)?;
    let mut found = Vec::new();
    for id in ids.iter().take(query.count as usize) {
        let fd = by_id(*id)?;
        if name_of(&fd)? == program_name(name) {
            found.push(fd);
        }
    }
    Ok(found)
}

#[repr(C)]
struct Id {
    id: u32,
    next: u32,
    flags: u32,
}

/// The program of this id.
pub fn by_id(id: u32) -> io::Result<OwnedFd> {
    call(BY_ID, &mut Id { id, next: 0, flags: 0 }).map(|fd| adopt_fd(fd as i32))
}

/// A program that is pinned. The way there must not be one that can hang.
pub fn pinned(path: &str) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Question {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = std::ffi::CString::new(path)?;
    call(OPEN_PINNED, &mut Question { path: path.as_ptr() as u64, fd: 0, flags: 0 })
        .map(|fd| adopt_fd(fd as i32))
}

/// As much of `struct bpf_prog_info` as is read here, in words of 64 bits.
type Info = [u64; 10];

/// What the kernel says of a program. It is asked for one of its maps, whose id is written to `map`.
fn info(program: BorrowedFd<'_>, map: &mut u32) -> io::Result<Info> {
    #[repr(C)]
    struct Question {
        program: u32,
        length: u32,
        answer: u64,
    }
    let pointer: *mut u32 = map;
    // 52 bytes in: room for how many maps; behind it, where their ids go.
    let mut answer: Info = [0, 0, 0, 0, 0, 0, 1 << 32, pointer as u64, 0, 0];
    let length = size_of_val(&answer) as u32;
    let program = program.as_raw_fd() as u32;
    call(INFO, &mut Question { program, length, answer: answer.as_mut_ptr() as u64 })?;
    Ok(answer)
}

/// The number by which the kernel knows a program: 4 bytes in.
pub fn id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let [first, ..] = info(program, &mut 0)?;
    Ok((first >> 32) as u32)
}

/// The name of a program: 16 bytes, 64 in.
fn name_of(program: &OwnedFd) -> io::Result<[u8; 16]> {
    let answer = info(program.as_fd(), &mut 0)?;
    let mut name = [0_u8; 16];
    let bytes = answer.iter().skip(8).flat_map(|word| word.to_ne_bytes());
    name.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(name)
}

/// A map of one value: two numbers, from zero on.
pub fn new_counters(name: &str) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        key_size: u32,
        value_size: u32,
        count: u32,
        flags: u32,
        inner: u32,
        node: u32,
        name: [u8; 16],
    }
    let name = program_name(name);
    let numbers = size_of::<[u64; 2]>() as u32;
    let mut attributes = Attributes {
        kind: ARRAY,
        key_size: 4,
        value_size: numbers,
        count: 1,
        flags: 0,
        inner: 0,
        node: 0,
        name,
    };
    call(NEW_MAP, &mut attributes).map(|fd| adopt_fd(fd as i32))
}

/// The numbers in the map of a program.
pub fn counters(program: BorrowedFd<'_>) -> io::Result<[u64; 2]> {
    #[repr(C)]
    struct Question {
        map: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut id = 0;
    info(program, &mut id)?;
    let held = call(MAP_BY_ID, &mut Id { id, next: 0, flags: 0 }).map(|fd| adopt_fd(fd as i32))?;
    let (key, mut value) = (0_u32, [0_u64; 2]);
    let at: *const u32 = &key;
    let map = held.as_raw_fd() as u32;
    call(LOOK_UP, &mut Question { map, pad: 0, key: at as u64, value: value.as_mut_ptr() as u64, flags: 0 })?;
    Ok(value)
}

/// Takes a program away from a cgroup.
pub fn detach(cgroup: BorrowedFd<'_>, hook: Hook, program: BorrowedFd<'_>) -> io::Result<()> {
    call(DETACH, &mut attached(cgroup, hook, program, 0)).map(drop)
}
