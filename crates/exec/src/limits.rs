//! `Limit*=`: one row a directive, and what the kernel is told (getrlimit(2)).

use crate::steps::{About, Done};
use muster_unit::ExecSection;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::OnceLock;

const ROWS: [(Resource, &str); 16] = [
    (Resource::RLIMIT_CPU, "LimitCPU="),
    (Resource::RLIMIT_FSIZE, "LimitFSIZE="),
    (Resource::RLIMIT_DATA, "LimitDATA="),
    (Resource::RLIMIT_STACK, "LimitSTACK="),
    (Resource::RLIMIT_CORE, "LimitCORE="),
    (Resource::RLIMIT_RSS, "LimitRSS="),
    (Resource::RLIMIT_NOFILE, "LimitNOFILE="),
    (Resource::RLIMIT_AS, "LimitAS="),
    (Resource::RLIMIT_NPROC, "LimitNPROC="),
    (Resource::RLIMIT_MEMLOCK, "LimitMEMLOCK="),
    (Resource::RLIMIT_LOCKS, "LimitLOCKS="),
    (Resource::RLIMIT_SIGPENDING, "LimitSIGPENDING="),
    (Resource::RLIMIT_MSGQUEUE, "LimitMSGQUEUE="),
    (Resource::RLIMIT_NICE, "LimitNICE="),
    (Resource::RLIMIT_RTPRIO, "LimitRTPRIO="),
    (Resource::RLIMIT_RTTIME, "LimitRTTIME="),
];

/// The directive of a resource.
pub fn name(resource: i32) -> &'static str {
    ROWS.iter().find(|(row, _)| *row as i32 == resource).map_or("a limit", |(_, name)| name)
}

/// Resource, soft and hard limit of all that is to be set. What may not be raised here (containers without the right to)
/// is set as high as it may, as systemd does.
pub fn of(exec: &ExecSection) -> Vec<(i32, u64, u64)> {
    let said = |(resource, directive): &(Resource, &str)| {
        let limit = exec.limit(directive.trim_end_matches('='))?;
        let most = highest(*resource);
        Some((*resource as i32, limit.soft.min(most), limit.hard.min(most)))
    };
    let mut all: Vec<_> = ROWS.iter().filter_map(said).collect();
    if exec.limit_nofile().is_none() {
        let (soft, hard) = default_nofile();
        all.push((Resource::RLIMIT_NOFILE as i32, soft, hard));
    }
    all
}

/// How many files may be open while a view of the file system is made.
const MANY_FILES: u64 = 16_384;

/// Does what opens many files, however few the service may open: its own limit holds again afterwards, whatever came of it.
pub fn with_many_files(act: impl FnOnce() -> Done) -> Done {
    let files = Resource::RLIMIT_NOFILE;
    let Ok((soft, hard)) = getrlimit(files) else { return act() };
    if soft >= MANY_FILES {
        return act();
    }
    // Who may not raise it does with what there is.
    let _ = setrlimit(files, MANY_FILES, hard.max(MANY_FILES))
        .or_else(|_| setrlimit(files, MANY_FILES.min(hard), hard));
    let done = act();
    done.and(setrlimit(files, soft, hard).about("LimitNOFILE="))
}

/// `DefaultLimitNOFILE=` (systemd-system.conf(5)), soft and hard. PID 1 itself keeps more descriptors, but what is not
/// written for many expects the usual soft limit.
pub const DEFAULT_NOFILE: (u64, u64) = (1024, 524_288);

/// The same as far as it may be had here.
fn default_nofile() -> (u64, u64) {
    let highest = highest(Resource::RLIMIT_NOFILE);
    (DEFAULT_NOFILE.0.min(highest), DEFAULT_NOFILE.1.min(highest))
}

fn hard(resource: Resource) -> u64 {
    getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard)
}

/// How high this process may raise a limit. That does not change while it runs, and PID 1 asks it for each process.
fn highest(resource: Resource) -> u64 {
    static HIGHEST: [OnceLock<u64>; ROWS.len()] = [const { OnceLock::new() }; ROWS.len()];
    let known = HIGHEST.get(resource as usize);
    known.map_or_else(|| look_highest(resource), |known| *known.get_or_init(|| look_highest(resource)))
}

/// Without bound where there is the right (CAP_SYS_RESOURCE).
fn look_highest(resource: Resource) -> u64 {
    let free = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE);
    if free.unwrap_or(false) { u64::MAX } else { hard(resource) }
}
