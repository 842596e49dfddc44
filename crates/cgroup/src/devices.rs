//! `DeviceAllow=` and `DevicePolicy=` (systemd.resource-control(5)) as a program that the kernel asks whenever a process of a
//! cgroup opens a device or makes a node for one.
//!
//! What must stay true: while a list is replaced, the old one holds until the new one does.

use crate::program::{AND, COPY, JUMP_IF_NOT, JUMP_IF_NOT_EQUAL, LOAD_WORD, SHIFT_RIGHT, step, verdict};
use muster_sys::bpf::{Hook, Operation};
use muster_unit::{CGroupSection, DevicePolicy, DeviceRule, glob};
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// How our programs are known among others'.
const NAME: &str = "muster_devices";
/// Kinds of devices, kinds of access (`enum` of linux/bpf.h).
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;
const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MAKE | READ | WRITE;
/// More than a list needs; the kernel takes 4096 instructions from those without all rights.
const RULES_MAX: usize = 500;

/// Devices that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowed {
    kind: u32,
    /// All, when none is said.
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

const fn node(kind: u32, major: u32, minor: u32) -> Allowed {
    Allowed { kind, major: Some(major), minor: Some(minor), access: ALL }
}

/// What every service may use that may use any: null, zero, full, random, urandom, tty, ptmx, the nodes that stand for
/// nothing, and terminals, for which no node may be made.
const STANDARD: [Allowed; 10] = [
    node(CHARACTER, 1, 3),
    node(CHARACTER, 1, 5),
    node(CHARACTER, 1, 7),
    node(CHARACTER, 1, 8),
    node(CHARACTER, 1, 9),
    node(CHARACTER, 5, 0),
    node(CHARACTER, 5, 2),
    node(CHARACTER, 0, 0),
    node(BLOCK, 0, 0),
    Allowed { kind: CHARACTER, major: Some(136), minor: None, access: READ | WRITE },
];

/// Sets what a cgroup may do with devices. `is_new`: nothing was set before.
pub fn apply(cgroup: BorrowedFd<'_>, config: &CGroupSection, is_new: bool) -> Result<(), String> {
    let rules = config.device_allow();
    let standard = match config.device_policy() {
        DevicePolicy::Auto if rules.is_empty() => {
            return if is_new { Ok(()) } else { replace(cgroup, None) };
        }
        DevicePolicy::Auto | DevicePolicy::Closed => &STANDARD[..],
        DevicePolicy::Strict => &[],
    };
    let mut all = standard.to_vec();
    for rule in rules {
        all.extend(devices(rule));
        if all.len() > RULES_MAX {
            return Err(format!("DeviceAllow=: more than {RULES_MAX} devices"));
        }
    }
    replace(cgroup, Some(&program(&all)))
}

fn replace(cgroup: BorrowedFd<'_>, program: Option<&[Operation]>) -> Result<(), String> {
    crate::program::replace(cgroup, Hook::Device, NAME, program)
        .map_err(|error| format!("DeviceAllow= and DevicePolicy= do not hold: {error}"))
}

/// The devices of one rule; none where the machine has none.
fn devices(rule: &DeviceRule) -> Vec<Allowed> {
    let bits = [(rule.read, READ), (rule.write, WRITE), (rule.make, MAKE)];
    let access = bits.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit);
    for (prefix, kind) in [("char-", CHARACTER), ("block-", BLOCK)] {
        if let Some(pattern) = rule.device.strip_prefix(prefix) {
            let majors = match (pattern, pattern.parse::<u32>()) {
                ("*", _) => vec![None],
                (_, Ok(number)) => vec![Some(number)],
                _ => majors(pattern, kind).into_iter().map(Some).collect(),
            };
            return majors.into_iter().map(|major| Allowed { kind, major, minor: None, access }).collect();
        }
    }
    let Ok(found) = fs::metadata(&rule.device) else { return Vec::new() };
    let kind = match found.file_type() {
        kind if kind.is_char_device() => CHARACTER,
        kind if kind.is_block_device() => BLOCK,
        _ => return Vec::new(),
    };
    let number = found.rdev();
    let narrow = |number: u64| u32::try_from(number).ok();
    vec![Allowed {
        kind,
        major: narrow(nix::sys::stat::major(number)),
        minor: narrow(nix::sys::stat::minor(number)),
        access,
    }]
}

/// Major numbers by the names of /proc/devices.
fn majors(pattern: &str, kind: u32) -> Vec<u32> {
    let text = fs::read_to_string("/proc/devices").unwrap_or_default();
    let (characters, blocks) = text.split_once("Block devices:").unwrap_or((&text, ""));
    let lines = if kind == CHARACTER { characters } else { blocks };
    let named = lines.lines().filter_map(|line| line.trim().split_once(' '));
    named
        .filter(|(_, name)| glob::matches(pattern, name.trim()))
        .filter_map(|(number, _)| number.parse().ok())
        .collect()
}

/// The kernel's context is in register 1: kind with access in its upper half, major, minor. Register 0 is the verdict.
fn program(allowed: &[Allowed]) -> Vec<Operation> {
    // 2: kind, 3: access, 4: major, 5: minor.
    let mut all = vec![
        step(LOAD_WORD, 0x12, 0, 0),
        step(COPY, 0x23, 0, 0),
        step(AND, 0x02, 0, 0xffff),
        step(SHIFT_RIGHT, 0x03, 0, 16),
        step(LOAD_WORD, 0x14, 4, 0),
        step(LOAD_WORD, 0x15, 8, 0),
    ];
    for rule in allowed {
        let mut tests = vec![(2_u8, rule.kind)];
        tests.extend(rule.major.map(|major| (4, major)));
        tests.extend(rule.minor.map(|minor| (5, minor)));
        // After the tests: the access, when not all of it is given, then the verdict.
        let partly = rule.access != ALL;
        let rest = if partly { 5_i16 } else { 2 };
        let count = i16::try_from(tests.len()).unwrap_or(i16::MAX);
        for (done, (register, value)) in (1_i16..).zip(tests) {
            let skipped = count.saturating_sub(done).saturating_add(rest);
            all.push(step(JUMP_IF_NOT, register, skipped, value));
        }
        if partly {
            all.push(step(COPY, 0x31, 0, 0));
            all.push(step(AND, 0x01, 0, rule.access));
            // Something is asked for that is not given.
            all.push(step(JUMP_IF_NOT_EQUAL, 0x31, 2, 0));
        }
        all.extend(verdict(true));
    }
    all.extend(verdict(false));
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
    use super::*;
    use crate::program::SET;

    /// What the program says, by the same steps as the kernel.
    fn says(program: &[Operation], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let mut registers = [0_u64; 8];
        let context = [kind | access << 16, major, minor];
        let mut at = 0_usize;
        while let Some(step) = program.get(at) {
            let (to, from) = (usize::from(step.registers & 15), usize::from(step.registers >> 4));
            let number = u64::from(step.immediate.cast_unsigned());
            at += 1;
            let mut jump = |taken| {
                if taken {
                    at += usize::try_from(step.offset).unwrap()
                }
            };
            match step.code {
                LOAD_WORD => registers[to] = context[usize::try_from(step.offset).unwrap() / 4].into(),
                COPY => registers[to] = registers[from],
                SET => registers[to] = number,
                AND => registers[to] &= number,
                SHIFT_RIGHT => registers[to] >>= number,
                JUMP_IF_NOT => jump(registers[to] != number),
                JUMP_IF_NOT_EQUAL => jump(registers[to] != registers[from]),
                _ => return registers[0],
            }
        }
        u64::MAX
    }

    #[test]
    fn a_list_decides() {
        let made = program(&STANDARD);
        assert_eq!(says(&made, CHARACTER, READ | WRITE, 1, 3), 1);
        assert_eq!(says(&made, CHARACTER, MAKE, 1, 11), 0);
        assert_eq!(says(&made, CHARACTER, READ | WRITE, 136, 9), 1);
        assert_eq!(says(&made, CHARACTER, MAKE, 136, 9), 0);
        assert_eq!(says(&made, BLOCK, READ, 1, 3), 0);
        assert_eq!(says(&program(&[]), CHARACTER, READ, 1, 3), 0);
        let any = program(&[Allowed { kind: BLOCK, major: None, minor: None, access: MAKE }]);
        assert_eq!((says(&any, BLOCK, MAKE, 7, 0), says(&any, BLOCK, READ, 7, 0)), (1, 0));
    }
}
