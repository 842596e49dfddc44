//! What the boot alone costs PID 1: the rows of `cargo xtask bench --rows boot`, a quarter of a minute for ten rounds.
//!
//! What must stay true: only counts and CPU time decide; the time to the default target is for orientation, other work on
//! the machine is in it.

use super::{Process, Row, Samples, describe, wait_for};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The rows.
pub const ROWS: [Row; 7] = [
    ("boot", "time to the default target", "ms"),
    ("boot-cpu", "PID 1's CPU time until then", "ms"),
    ("boot-system", "of that in the kernel", "%"),
    ("boot-faults", "page faults of PID 1 until then", ""),
    ("boot-rss", "PID 1's memory when the boot is finished, RSS", "MiB"),
    ("boot-private", "the same, private", "MiB"),
    ("idle-rss", "PID 1's memory after two idle seconds, RSS", "MiB"),
];

/// One boot.
pub fn measure(root: &Path, init: &str, samples: &mut Samples) -> Result<()> {
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut container = describe(root, init)?.spawn()?;
    let done = wait_for(&container.root().join("run/bench-end"))
        .with_context(|| format!("no default target; console:\n{}", container.console()))?;
    let process = Process(container.pid());
    let mut add = |key: &'static str, value: f64| samples.entry(key).or_default().push(value);
    let (cpu, [faults, user, system]) = (process.cpu_ms()?, process.counts()?);
    add("boot", (done - before.as_secs_f64()) * 1e3);
    add("boot-cpu", cpu);
    add("boot-system", 100.0 * system / (user + system).max(1.0));
    add("boot-faults", faults);
    container.until(
        Duration::from_secs(60),
        "systemctl is-system-running --wait | grep -qxE 'running|degraded'",
    )?;
    let (rss, private) = process.memory_mib()?;
    add("boot-rss", rss);
    add("boot-private", private);
    std::thread::sleep(Duration::from_millis(2_500));
    add("idle-rss", process.memory_mib()?.0);
    container.kill()?;
    Ok(())
}
