//! How much the processes of a cgroup send and receive (`IPAccounting=`, systemd.resource-control(5)): a program for each
//! direction, which counts in a map of its own.
//!
//! The map lives with the program, and is found by it: nothing is remembered here, and counting goes on through a reload
//! and a re-execution.

use crate::program::{COPY, EXIT, LOAD_WORD, SET, replace, step};
use muster_sys::bpf::{self, Hook, Operation};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// How our programs are known among others'.
const NAME: &str = "muster_traffic";
/// Loads an address or a number of 64 bits; of two steps.
const LOAD_WIDE: u8 = 0x18;
/// Adds to memory, whatever others do meanwhile.
const ADD_TO_MEMORY: u8 = 0xdb;

/// What went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Bytes, headers of IP included.
    pub bytes: u64,
}

/// Begins to count, goes on, or stops. `is_new`: nothing was counted before.
pub fn apply(cgroup: BorrowedFd<'_>, counts: bool, is_new: bool) -> Result<(), String> {
    let each = |hook| match (counts, is_new) {
        (false, true) => Ok(()),
        (false, false) => replace(cgroup, hook, NAME, None),
        (true, false) if !bpf::programs(cgroup, hook, NAME)?.is_empty() => Ok(()),
        (true, _) => begin(cgroup, hook),
    };
    let both = each(Hook::Ingress).and_then(|()| each(Hook::Egress));
    both.map_err(|error| format!("IPAccounting= does not hold: {error}"))
}

fn begin(cgroup: BorrowedFd<'_>, hook: Hook) -> io::Result<()> {
    let map = bpf::new_counters(NAME)?;
    let program = bpf::load(&counting(map.as_raw_fd().cast_unsigned()), hook, NAME)?;
    bpf::attach(cgroup, hook, program.as_fd())
}

/// What was counted; nothing where nobody counts.
pub fn counted(cgroup: BorrowedFd<'_>, hook: Hook) -> Option<Counted> {
    let program = bpf::programs(cgroup, hook, NAME).ok()?.into_iter().next()?;
    let [packets, bytes] = bpf::counters(program.as_fd()).ok()?;
    Some(Counted { packets, bytes })
}

/// The context (`struct __sk_buff`) has the length of the packet at 0.
fn counting(map: u32) -> [Operation; 9] {
    [
        step(COPY, 0x16, 0, 0),
        // The address of the map's one value (BPF_PSEUDO_MAP_VALUE).
        step(LOAD_WIDE, 0x21, 0, map),
        step(0, 0, 0, 0),
        step(LOAD_WORD, 0x62, 0, 0),
        step(ADD_TO_MEMORY, 0x21, 8, 0),
        step(SET, 0x02, 0, 1),
        step(ADD_TO_MEMORY, 0x21, 0, 0),
        step(SET, 0x00, 0, 1),
        step(EXIT, 0x00, 0, 0),
    ]
}
