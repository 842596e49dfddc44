//! Directives of systemd.resource-control(5) as files of a cgroup: one row each.

use crate::Machine;
use muster_unit::setting::{Amount, CpuQuota};
use muster_unit::{CGroupSection, ManagedOomPreference, NumberSet};
use std::ffi::CStr;

/// What the kernel has in each of these files where nobody wrote to it. Sets of CPUs and memory nodes are not among them:
/// the kernel does not take them back from a cgroup that holds processes.
pub const DEFAULTS: &[(&str, &str)] = &[
    ("cpu.idle", "0"),
    ("cpu.weight", "100"),
    ("cpu.max", "max 100000"),
    ("io.weight", "default 100"),
    ("memory.min", "0"),
    ("memory.low", "0"),
    ("memory.high", "max"),
    ("memory.max", "max"),
    ("memory.swap.max", "max"),
    ("memory.zswap.max", "max"),
    ("memory.zswap.writeback", "1"),
    ("pids.max", "max"),
    ("cpuset.cpus.partition", "member"),
];

/// What was read and written in a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoTotals {
    /// `rbytes`.
    pub read_bytes: u64,
    /// `rios`.
    pub read_operations: u64,
    /// `wbytes`.
    pub write_bytes: u64,
    /// `wios`.
    pub write_operations: u64,
}

impl IoTotals {
    /// The sums over all devices: a line of `io.stat` is one device.
    pub fn parse(text: &str) -> Self {
        let mut totals = Self::default();
        for (key, value) in text.split_whitespace().filter_map(|word| word.split_once('=')) {
            let total = match key {
                "rbytes" => &mut totals.read_bytes,
                "rios" => &mut totals.read_operations,
                "wbytes" => &mut totals.write_bytes,
                "wios" => &mut totals.write_operations,
                _ => continue,
            };
            *total = total.saturating_add(value.parse().unwrap_or(0));
        }
        totals
    }
}

/// What others read of a cgroup, and whether it is to be there: of whose the cgroups below it are (udevd and the journal),
/// systemd-oomd, and systemd-coredump.
pub fn marks(config: &CGroupSection) -> [(&'static CStr, bool); 5] {
    let preference = config.managed_oom_preference();
    [
        (c"trusted.delegate", config.is_delegated()),
        (c"user.delegate", config.is_delegated()),
        (c"user.oomd_avoid", preference == ManagedOomPreference::Avoid),
        (c"user.oomd_omit", preference == ManagedOomPreference::Omit),
        (c"user.coredump_receive", config.coredump_receive()),
    ]
}

/// (file, value) for every directive that is set.
pub fn wanted(config: &CGroupSection, machine: Machine) -> Vec<(&'static str, String)> {
    let (memory, tasks) = (machine.memory_bytes, machine.tasks);
    let rows = [
        // An idle cgroup has no weight, so that comes first.
        ("cpu.idle", config.cpu_weight().filter(|weight| weight.0 == 0).map(|_| "1".to_owned())),
        ("cpu.weight", config.cpu_weight().filter(|weight| weight.0 != 0).map(|weight| weight.0.to_string())),
        (
            "cpu.max",
            config
                .cpu_quota()
                .map(|quota| cpu_max(quota, config.cpu_quota_period_sec().map_or(100_000, |span| span.0))),
        ),
        ("io.weight", config.io_weight().map(|weight| format!("default {}", weight.0))),
        ("memory.min", config.memory_min().map(|value| amount(value, memory))),
        ("memory.low", config.memory_low().map(|value| amount(value, memory))),
        ("memory.high", config.memory_high().map(|value| amount(value, memory))),
        ("memory.max", config.memory_max().map(|value| amount(value, memory))),
        ("memory.swap.max", config.memory_swap_max().map(|value| amount(value, memory))),
        ("memory.zswap.max", config.memory_zswap_max().map(|value| amount(value, memory))),
        ("memory.zswap.writeback", config.memory_zswap_writeback().map(|on| u8::from(on).to_string())),
        ("pids.max", config.tasks_max().map(|value| amount(value, tasks))),
        ("cpuset.cpus", listed(config.allowed_cpus())),
        ("cpuset.mems", listed(config.allowed_memory_nodes())),
        ("cpuset.cpus.partition", config.cpuset_partition().map(|kind| kind.as_str().to_owned())),
    ];
    rows.into_iter().filter_map(|(file, value)| Some((file, value?))).collect()
}

fn listed(set: &NumberSet) -> Option<String> {
    (!set.0.is_empty()).then(|| set.to_string())
}

fn amount(amount: Amount, total: u64) -> String {
    match amount.of(total) {
        u64::MAX => "max".to_owned(),
        value => value.to_string(),
    }
}

/// `CPUQuota=` as quota and period in microseconds; the kernel takes a quota of 1 ms and more.
fn cpu_max(quota: CpuQuota, period: u64) -> String {
    let usec = u128::from(quota.0).saturating_mul(u128::from(period)) / 1_000_000;
    format!("{} {period}", usec.max(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_unit::CGroupRow;

    #[test]
    fn a_row_each() {
        let config = CGroupSection::of([
            CGroupRow::tasks_max(Some(Amount::Absolute(7))),
            CGroupRow::cpu_quota(Some(CpuQuota(1_500_000))),
            CGroupRow::memory_high(Some(Amount::Infinity)),
            CGroupRow::memory_zswap_writeback(Some(false)),
        ]);
        let want = [
            ("cpu.max", "150000 100000"),
            ("memory.high", "max"),
            ("memory.zswap.writeback", "0"),
            ("pids.max", "7"),
        ];
        let got = wanted(&config, Machine::default());
        assert_eq!(got.iter().map(|(file, value)| (*file, value.as_str())).collect::<Vec<_>>(), want);
    }
}
