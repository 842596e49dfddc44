//! What a process is given of the machine beyond limits: processors, memory policy, timer slack, what a core dump holds,
//! personality (systemd.exec(5)): what the steps of [`crate::steps::resources`] do.

use muster_unit::{CpuAffinity, ExecSection, NumaMask, NumaPolicy, NumberSet};
use std::io;

/// `CoredumpFilter=`. A kernel without core dumps has none.
pub fn coredump_filter(bits: u64) -> io::Result<()> {
    match std::fs::write("/proc/self/coredump_filter", format!("{bits:#x}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn numbers(text: &str) -> io::Result<NumberSet> {
    NumberSet::parse(text.trim()).map_err(io::Error::other)
}

/// The nodes of `NUMAMask=`.
fn nodes(exec: &ExecSection) -> io::Result<NumberSet> {
    match exec.numa_mask() {
        Some(NumaMask::Set(set)) => Ok(set.clone()),
        Some(NumaMask::All) => numbers(&std::fs::read_to_string("/sys/devices/system/node/online")?),
        None => Ok(NumberSet::default()),
    }
}

/// `CPUAffinity=`.
pub fn set_affinity(affinity: &CpuAffinity, exec: &ExecSection) -> io::Result<()> {
    match affinity {
        CpuAffinity::Set(set) => muster_sys::set_affinity(&set.0),
        CpuAffinity::Numa => {
            let (nodes, mut all) = (nodes(exec)?, String::new());
            for node in (0..muster_unit::PROCESSORS_MAX).filter(|node| nodes.contains(*node)) {
                let path = format!("/sys/devices/system/node/node{node}/cpulist");
                all.push_str(std::fs::read_to_string(path)?.trim());
                all.push(',');
            }
            muster_sys::set_affinity(&numbers(&all)?.0)
        }
    }
}

/// `NUMAPolicy=` with `NUMAMask=`.
pub fn memory_policy(policy: NumaPolicy, exec: &ExecSection) -> io::Result<()> {
    let nodes = match policy {
        NumaPolicy::Default | NumaPolicy::Local => NumberSet::default(),
        NumaPolicy::Preferred | NumaPolicy::Bind | NumaPolicy::Interleave => nodes(exec)?,
    };
    match muster_sys::set_memory_policy(policy as i32, &nodes.0) {
        // A kernel without such policies has nothing to choose from.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOSYS) => Ok(()),
        done => done,
    }
}
