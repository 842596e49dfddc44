//! What a cgroup may do with single block devices: `IODeviceWeight=`, `IOReadBandwidthMax=` and kin,
//! `IODeviceLatencyTargetSec=` (systemd.resource-control(5)).
//!
//! A path names a device, or a file on one. What must stay true: files are never looked at, since what holds them may not
//! answer. The table of mounts says which device it is; only /dev itself is looked into, and no other mount from there.

use muster_unit::{CGroupSection, PerDevice};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat, major, minor};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

/// A device may stand on another that stands on another; more steps are not followed.
const STEPS_MAX: usize = 8;

/// What each file takes for a device that nothing is said of.
const FILES: [(&str, &str); 3] = [
    ("io.weight", "default"),
    ("io.max", "rbps=max wbps=max riops=max wiops=max"),
    ("io.latency", "target=0"),
];

/// Whether anything is said of devices.
pub fn is_silent(config: &CGroupSection) -> bool {
    wishes(config).is_empty()
}

/// Sets what a cgroup may do with devices; gives what does not hold. `is_new`: nothing was set before.
pub fn apply(directory: &str, config: &CGroupSection, is_new: bool) -> Option<String> {
    let wishes = wishes(config);
    if is_new && wishes.is_empty() {
        return None;
    }
    let mut failed = None;
    let mut wanted: BTreeMap<(&str, String), BTreeMap<&str, String>> = BTreeMap::new();
    for (file, path, word, value) in wishes {
        match device(path) {
            Some(device) => drop(wanted.entry((file, device)).or_default().insert(word, value)),
            None => failed = Some(format!("{file}: {path} is on no block device")),
        }
    }
    for (file, usual) in FILES {
        let target = format!("{directory}/{file}");
        let now = if is_new { String::new() } else { fs::read_to_string(&target).unwrap_or_default() };
        let set = now.lines().filter_map(|line| line.split_whitespace().next());
        for device in set.filter(|device| device.contains(':')) {
            if !wanted.contains_key(&(file, device.to_owned())) {
                let _ = fs::write(&target, format!("{device} {usual}"));
            }
        }
    }
    for ((file, device), said) in wanted {
        let value = line(file, &said);
        match fs::write(format!("{directory}/{file}"), format!("{device} {value}")) {
            // What this kernel does not have.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
            Err(error) => failed = Some(format!("{file} does not take {device} {value}: {error}")),
            Ok(()) => {}
        }
    }
    failed
}

/// What is written to a file behind the device. What is not said of limits is without one.
fn line(file: &str, said: &BTreeMap<&str, String>) -> String {
    let words = if file == "io.max" { &LIMITS[..] } else { &[] };
    let rest = words.iter().filter(|word| !said.contains_key(**word)).map(|word| format!("{word}=max"));
    let said = said
        .iter()
        .map(|(word, value)| if word.is_empty() { value.clone() } else { format!("{word}={value}") });
    said.chain(rest).collect::<Vec<_>>().join(" ")
}

/// The words of `io.max`.
const LIMITS: [&str; 4] = ["rbps", "wbps", "riops", "wiops"];

/// (file, path, word, value) of all that is said.
fn wishes(config: &CGroupSection) -> Vec<(&'static str, &str, &'static str, String)> {
    let limits = [
        config.io_read_bandwidth_max(),
        config.io_write_bandwidth_max(),
        config.io_read_iops_max(),
        config.io_write_iops_max(),
    ];
    let limits = LIMITS.into_iter().zip(limits).flat_map(|(word, limits)| {
        limits
            .limits()
            .map(move |PerDevice { path, value }| ("io.max", path.as_str(), word, value.to_string()))
    });
    let weights = config.io_device_weight().0.iter();
    let weights =
        weights.map(|PerDevice { path, value }| ("io.weight", path.as_str(), "", value.to_string()));
    let targets = config.io_device_latency_target_sec().0.iter();
    let targets =
        targets.map(|PerDevice { path, value }| ("io.latency", path.as_str(), "target", value.to_string()));
    weights.chain(limits).chain(targets).collect()
}

/// The whole device that a path names, or that holds it.
fn device(path: &str) -> Option<String> {
    let table = || fs::read_to_string("/proc/self/mountinfo").ok();
    whole(node(path).or_else(|| mounted(&table()?, path))?)
}

/// The number of a device by a path in /dev.
fn node(path: &str) -> Option<String> {
    let below = path.strip_prefix("/dev/")?;
    let how = |flags| OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(flags);
    let dev = openat2(AT_FDCWD, "/dev", how(ResolveFlag::empty())).ok()?;
    let node = openat2(&dev, below, how(ResolveFlag::RESOLVE_NO_XDEV)).ok()?;
    let status = fstat(&node).ok()?;
    let is_block = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFBLK;
    is_block.then(|| format!("{}:{}", major(status.st_rdev), minor(status.st_rdev)))
}

/// The device of the mount that a path is below, from the table of mounts.
fn mounted(table: &str, path: &str) -> Option<String> {
    let below = |place: &str| {
        path.strip_prefix(place.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mounts = table.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(2);
        Some((words.next()?, words.nth(1)?, line))
    });
    // Of several in one place, the last covers the others.
    let (number, _, line) =
        mounts.filter(|(_, place, _)| below(place)).max_by_key(|(_, place, _)| place.len())?;
    if !number.starts_with("0:") {
        return Some(number.to_owned());
    }
    // A file system of several devices has no number of one; its source is one of them.
    node(line.split(" - ").nth(1)?.split(' ').nth(1)?)
}

/// What a partition is a part of, and what a device stands on alone.
fn whole(mut number: String) -> Option<String> {
    for _ in 0..STEPS_MAX {
        let at = format!("/sys/dev/block/{number}");
        let mut below = fs::read_dir(format!("{at}/slaves")).into_iter().flatten().filter_map(Result::ok);
        let next = match (fs::exists(format!("{at}/partition")).unwrap_or(false), below.next(), below.next())
        {
            (true, ..) => format!("{at}/../dev"),
            (false, Some(one), None) => one.path().join("dev").to_string_lossy().into_owned(),
            _ => return Some(number),
        };
        number = fs::read_to_string(next).ok()?.trim().to_owned();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_unit::{AbsolutePath, CGroupRow, IoLatencies, IoLimits, IoWeights};

    #[test]
    fn what_is_said_of_a_device() {
        let device = |value| vec![PerDevice { path: AbsolutePath("/dev/x".to_owned()), value }];
        let config = CGroupSection::of([
            CGroupRow::io_read_bandwidth_max(IoLimits(device(7))),
            CGroupRow::io_write_bandwidth_max(IoLimits(device(u64::MAX))),
            CGroupRow::io_write_iops_max(IoLimits(device(8))),
            CGroupRow::io_device_weight(IoWeights(device(300))),
            CGroupRow::io_device_latency_target_sec(IoLatencies(device(25_000))),
        ]);
        let mut lines: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
        for (file, _, word, value) in wishes(&config) {
            lines.entry(file).or_default().insert(word, value);
        }
        let lines: Vec<String> =
            lines.iter().map(|(file, said)| format!("{file} {}", line(file, said))).collect();
        let want = ["io.latency target=25000", "io.max rbps=7 wiops=8 wbps=max riops=max", "io.weight 300"];
        assert_eq!(lines, want);
        assert!(is_silent(&CGroupSection::default()));
    }

    #[test]
    fn a_file_is_on_the_device_of_its_mount() {
        let table =
            "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /home rw - ext4 b rw\n3 1 0:5 / /dev rw - devtmpfs c rw\n";
        assert_eq!(mounted(table, "/home/a").as_deref(), Some("8:2"));
        assert_eq!(mounted(table, "/homes").as_deref(), Some("8:1"));
        assert_eq!(mounted(table, "/dev/null"), None);
    }
}
