//! What this process was given: the text of every answer, one `NAME=value` a line.

use std::fs;

const VARIABLES: [&str; 9] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "INVOCATION_ID",
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
    "DEMO_GREETING",
];

/// The facts, each line ended.
pub fn gather() -> String {
    let mut text = format!("PID={}\nPPID={}\n", std::process::id(), std::os::unix::process::parent_id());
    for name in VARIABLES {
        if let Ok(value) = std::env::var(name) {
            text += &format!("{name}={value}\n");
        }
    }
    text += &format!("CGROUP={}\n", cgroup());
    for key in ["Uid", "Gid", "CapEff", "NoNewPrivs", "SigBlk", "SigIgn"] {
        text += &format!("{key}={}\n", status(key));
    }
    text += &format!("DESCRIPTORS={}\n", descriptors());
    text
}

/// The place in the unified tree, whose number is 0 (cgroups(7)).
fn cgroup() -> String {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    table.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_string()
}

fn status(key: &str) -> String {
    let table = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = table.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':').map(str::trim));
    value.unwrap_or_default().replace('\t', " ")
}

/// The numbers of the open descriptors, that of the listing itself left out.
fn descriptors() -> String {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let mut numbers: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.pop();
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}
