//! What D-Bus properties read from the kernel and the disk at the time of the call.

use crate::table::FdTable;
use muster_cgroup::Tree;
use muster_control::descriptors::FdFacts;
use muster_control::{Live, LiveValue};
use muster_manager::effect::FdId;
use muster_manager::state::Usage;
use muster_unit::Index;
use std::os::fd::OwnedFd;

/// The world, borrowed for one call.
pub struct LiveView<'a> {
    /// The cgroup tree.
    pub cgroups: &'a Tree,
    /// Unit files.
    pub index: &'a Index,
    /// Descriptors.
    pub fds: &'a FdTable,
}

impl LiveView<'_> {
    /// What was used in a cgroup until now; `counts` says whether its packets are counted.
    pub fn usage(&self, path: &str, counts: bool) -> Usage {
        let number = |what| self.cgroup_number(path, what);
        let received = counts.then(|| self.cgroups.received(path)).flatten();
        let sent = counts.then(|| self.cgroups.sent(path)).flatten();
        // One look for four numbers: this is done at the end of each run.
        let io = self.cgroups.io_totals(path);
        let memory_peak = number(LiveValue::MemoryPeak);
        Usage {
            cpu_nsec: number(LiveValue::CPUUsageNSec).filter(|spent| *spent > 0),
            memory_peak,
            // A kernel that has no peak of memory, or no controller of it here, has none of swap.
            memory_swap_peak: memory_peak.and_then(|_| number(LiveValue::MemorySwapPeak)),
            io_read_bytes: io.map(|io| io.read_bytes),
            io_read_operations: io.map(|io| io.read_operations),
            io_write_bytes: io.map(|io| io.write_bytes),
            io_write_operations: io.map(|io| io.write_operations),
            ip_ingress_bytes: received.map(|counted| counted.bytes),
            ip_ingress_packets: received.map(|counted| counted.packets),
            ip_egress_bytes: sent.map(|counted| counted.bytes),
            ip_egress_packets: sent.map(|counted| counted.packets),
        }
    }
}

impl Live for LiveView<'_> {
    fn cgroup_number(&self, path: &str, what: LiveValue) -> Option<u64> {
        let file = match what {
            LiveValue::MemoryCurrent => "memory.current",
            LiveValue::MemoryPeak => "memory.peak",
            LiveValue::MemorySwapCurrent => "memory.swap.current",
            LiveValue::MemorySwapPeak => "memory.swap.peak",
            LiveValue::MemoryZSwapCurrent => "memory.zswap.current",
            LiveValue::TasksCurrent => "pids.current",
            LiveValue::CPUUsageNSec => {
                return self
                    .cgroups
                    .keyed(path, "cpu.stat", "usage_usec")
                    .map(|usec| usec.saturating_mul(1000));
            }
            LiveValue::ControlGroupId => return self.cgroups.id(path),
            LiveValue::MemoryAvailable => return self.cgroups.memory_available(path),
            LiveValue::IOReadBytes => return self.cgroups.io_totals(path).map(|io| io.read_bytes),
            LiveValue::IOReadOperations => return self.cgroups.io_totals(path).map(|io| io.read_operations),
            LiveValue::IOWriteBytes => return self.cgroups.io_totals(path).map(|io| io.write_bytes),
            LiveValue::IOWriteOperations => {
                return self.cgroups.io_totals(path).map(|io| io.write_operations);
            }
            LiveValue::IPIngressBytes => return self.cgroups.received(path).map(|counted| counted.bytes),
            LiveValue::IPIngressPackets => return self.cgroups.received(path).map(|counted| counted.packets),
            LiveValue::IPEgressBytes => return self.cgroups.sent(path).map(|counted| counted.bytes),
            LiveValue::IPEgressPackets => return self.cgroups.sent(path).map(|counted| counted.packets),
        };
        self.cgroups.number(path, file)
    }

    fn cgroup_set(&self, path: &str, file: &str) -> Option<muster_unit::NumberSet> {
        self.cgroups.numbers(path, file)
    }

    fn processes(&self, path: &str) -> Vec<(String, u32, String)> {
        let command = |pid: u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
            if !text.is_empty() {
                return text;
            }
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("[{}]", comm.trim_end())
        };
        self.cgroups.processes(path).into_iter().map(|(cgroup, pid)| (cgroup, pid, command(pid))).collect()
    }

    fn pid_cgroup(&self, pid: u32) -> Option<String> {
        self.cgroups.of_process(pid)
    }

    fn unit_file_state(&self, name: &str) -> String {
        self.index.file_state(name).unwrap_or("").to_owned()
    }

    fn pid_of_pidfd(&self, fd: std::os::fd::BorrowedFd<'_>) -> Option<u32> {
        use std::os::fd::AsRawFd;
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
        text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
    }

    fn file_of(&self, text: &str) -> Option<OwnedFd> {
        use std::io::{Seek, Write};
        let mut file = muster_exec::pass::memory(c"dump").ok()?;
        file.write_all(text.as_bytes()).and_then(|()| file.rewind()).ok()?;
        Some(file.into())
    }

    fn describe(&self, fd: FdId) -> Option<FdFacts> {
        use nix::fcntl::{FcntlArg, fcntl};
        use std::os::fd::AsRawFd;
        let fd = self.fds.get(fd)?;
        let stat = nix::sys::stat::fstat(fd).ok()?;
        let numbers = |device: u64| {
            let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            (number(nix::sys::stat::major(device)), number(nix::sys::stat::minor(device)))
        };
        let is_node = matches!(stat.st_mode & nix::libc::S_IFMT, nix::libc::S_IFCHR | nix::libc::S_IFBLK);
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
        Some(FdFacts {
            mode: stat.st_mode,
            device: numbers(stat.st_dev),
            inode: stat.st_ino,
            node: if is_node { numbers(stat.st_rdev) } else { (0, 0) },
            path: path.to_string_lossy().into_owned(),
            flags: fcntl(fd, FcntlArg::F_GETFL).map_or(0, |flags| {
                // O_LARGEFILE, which the kernel sets for everybody.
                u32::try_from(flags & !0o100_000).unwrap_or(0)
            }),
        })
    }

    fn is_system(&self, root: &str) -> bool {
        ["/etc/os-release", "/usr/lib/os-release"].iter().any(|path| self.is_there(&format!("{root}{path}")))
    }

    fn is_there(&self, path: &str) -> bool {
        // A link is taken by its name: where it leads from a root of its own is not seen from here.
        std::fs::symlink_metadata(path).is_ok()
    }

    fn unit_file_preset(&self, name: &str) -> String {
        match muster_unit::install::preset(self.index, name) {
            Some(true) => "enabled".to_owned(),
            Some(false) => "disabled".to_owned(),
            None => String::new(),
        }
    }

    fn nodes(&self) -> muster_unit::NumberSet {
        numbers("/sys/devices/system/node/possible").unwrap_or_default()
    }

    fn node_processors(&self, node: usize) -> Option<muster_unit::NumberSet> {
        numbers(&format!("/sys/devices/system/node/node{node}/cpulist"))
    }

    fn resource_limit(&self, name: &str, soft: bool) -> Option<u64> {
        use nix::sys::resource::{Resource, getrlimit};
        const TABLE: [(&str, Resource); 16] = [
            ("LimitCPU", Resource::RLIMIT_CPU),
            ("LimitFSIZE", Resource::RLIMIT_FSIZE),
            ("LimitDATA", Resource::RLIMIT_DATA),
            ("LimitSTACK", Resource::RLIMIT_STACK),
            ("LimitCORE", Resource::RLIMIT_CORE),
            ("LimitRSS", Resource::RLIMIT_RSS),
            ("LimitNOFILE", Resource::RLIMIT_NOFILE),
            ("LimitAS", Resource::RLIMIT_AS),
            ("LimitNPROC", Resource::RLIMIT_NPROC),
            ("LimitMEMLOCK", Resource::RLIMIT_MEMLOCK),
            ("LimitLOCKS", Resource::RLIMIT_LOCKS),
            ("LimitSIGPENDING", Resource::RLIMIT_SIGPENDING),
            ("LimitMSGQUEUE", Resource::RLIMIT_MSGQUEUE),
            ("LimitNICE", Resource::RLIMIT_NICE),
            ("LimitRTPRIO", Resource::RLIMIT_RTPRIO),
            ("LimitRTTIME", Resource::RLIMIT_RTTIME),
        ];
        let (_, resource) = *TABLE.iter().find(|(known, _)| *known == name)?;
        let (low, high) = match resource {
            Resource::RLIMIT_NOFILE => muster_exec::limits::DEFAULT_NOFILE,
            _ => getrlimit(resource).ok()?,
        };
        Some(if soft { low } else { high })
    }

    fn has_changed(&self, file: &muster_unit::UnitFile) -> bool {
        self.index.has_changed(file)
    }

    fn unit_path(&self) -> Vec<String> {
        self.index.path().to_vec()
    }

    fn machine_id(&self) -> Option<String> {
        std::fs::read_to_string("/etc/machine-id").ok().map(|text| text.trim().to_owned())
    }

    fn socket_options(&self, fd: FdId) -> Vec<(String, String)> {
        let options = self.fds.get(fd).map(muster_socket::options_of).unwrap_or_default();
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn queue_length(&self, fd: FdId) -> Option<u64> {
        muster_socket::waiting(self.fds.get(fd)?).map(muster_socket::Waiting::number)
    }
}

/// The numbers that a file of sysfs lists.
fn numbers(path: &str) -> Option<muster_unit::NumberSet> {
    muster_unit::NumberSet::parse(std::fs::read_to_string(path).ok()?.trim()).ok()
}
