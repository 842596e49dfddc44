//! Load: thousands of connections to one socket with `Accept=yes`, 64 at a time, while all that can go wrong does.
//!
//! Nothing may be lost (every client is answered or refused) and nothing may be left: descriptors, processes, cgroups, units,
//! memory. How fast it went is printed, never asserted.

use crate::ground::{Ground, Init, basic, booted};
use crate::{Case, Outcome};
use anyhow::{Context, Result, ensure};
use muster_tests::Container;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many, where nothing else is asked for: a leak of one in a thousand shows. `--connections 100000` takes some minutes.
pub const CONNECTIONS: u32 = 20_000;
const PARALLEL: u32 = 64;
/// Connections made before the measurement, so that a process that has already worked is measured.
const WARM_UP: u32 = 3_000;
const LIMIT: Duration = Duration::from_secs(900);
/// Failed instances that stay on purpose.
const FAILED_KEPT: u64 = 16;
/// Kilobytes by which memory may be above what it was: what an allocator keeps by chance.
const MEMORY_SLACK: u64 = 512;

/// The cases of this file.
pub fn cases(count: u32) -> Vec<Case> {
    vec![Case::new("load/connections", move |ground| connections(ground, count))]
}

/// What must be the same before and after.
#[derive(Debug)]
struct Holdings {
    descriptors: u64,
    processes: u64,
    cgroups: u64,
    units: u64,
    memory: u64,
}

impl Holdings {
    fn is_as_much_as(&self, other: &Holdings) -> bool {
        let counts = |it: &Holdings| [it.descriptors, it.processes, it.cgroups, it.units];
        counts(self) == counts(other)
    }
}

/// What is held in the end. The last clients of the trouble take a moment to go; what leaked stays for good.
fn settled_as(container: &Container, before: &Holdings) -> Result<Holdings> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let after = settled(container)?;
        if after.is_as_much_as(before) || Instant::now() > deadline {
            return Ok(after);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn holdings(container: &Container) -> Result<Holdings> {
    let script = "ls /proc/1/fd | wc -l; ls -d /proc/[0-9]* | wc -l; find /sys/fs/cgroup -type d | wc -l; \
        systemctl list-units --all --no-legend | wc -l; awk '/^RssAnon/ {print $2}' /proc/1/status";
    let text = container.sh(script)?.ok()?;
    let numbers: Vec<u64> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
    let [descriptors, processes, cgroups, units, memory] = numbers[..] else {
        anyhow::bail!("not understood: {text}")
    };
    Ok(Holdings { descriptors, processes, cgroups, units, memory })
}

fn connections(ground: &Ground, count: u32) -> Result<Outcome> {
    if ground.init == Init::Systemd {
        return Ok(Outcome::Skipped("it takes ten minutes there, and what fails stays for good".to_string()));
    }
    let builder = basic(ground.debian())
        .file(
            "etc/systemd/system/load.socket",
            "[Socket]\nListenStream=/run/load.sock\nAccept=yes\nMaxConnections=16\nTriggerLimitIntervalSec=0\nPollLimitIntervalSec=0\n",
        )
        .file(
            "etc/systemd/system/load@.service",
            "[Service]\nExecStart=/usr/lib/muster-demo flaky\nStandardInput=socket\nStandardError=null\n",
        );
    let container = booted(builder)?;
    container.sh("systemctl start load.socket")?.ok()?;
    with_trouble(&container, 100, || load(&container, WARM_UP))?;
    let before = settled(&container)?;
    let started = Instant::now();
    let (answers, reloads) = with_trouble(&container, 1000, || load(&container, count))?;
    let seconds = started.elapsed().as_secs_f64();
    let after = settled_as(&container, &before)?;
    let ping = answers.ping;
    println!(
        "       {count} connections in {seconds:.0} s ({:.0} a second): {}; {reloads} reloads; D-Bus answers in µs (median, 99 %, longest): {ping}; memory {} -> {} kB",
        f64::from(count) / seconds,
        answers.load.trim(),
        before.memory,
        after.memory
    );
    ensure!(answers.load.contains(" forgotten 0"), "a client was left hanging: {}", answers.load);
    if !after.is_as_much_as(&before) {
        let left = container.sh("head -n 7 /proc/[0-9]*/status; cat /proc/[0-9]*/cgroup")?.stdout;
        anyhow::bail!("something was left: before {before:?}, after {after:?}\n{left}");
    }
    ensure!(after.memory <= before.memory + MEMORY_SLACK, "memory grew: before {before:?}, after {after:?}");
    let shown = container.sh("systemctl show load.socket -p NConnections,ActiveState")?.ok()?;
    ensure!(shown.contains("NConnections=0") && shown.contains("ActiveState=active"), "{shown}");
    Ok(Outcome::Passed)
}

fn load(container: &Container, count: u32) -> Result<String> {
    let (count, parallel) = (count.to_string(), PARALLEL.to_string());
    let command = ["/usr/lib/muster-demo", "load", "/run/load.sock", &count, &parallel];
    container.start(&command)?.wait(LIMIT)?.ok()
}

struct Answers {
    load: String,
    ping: String,
}

/// Does the work while daemon-reload, SIGKILL for instances, and questions over D-Bus go on beside it.
fn with_trouble(
    container: &Container,
    questions: u32,
    work: impl FnOnce() -> Result<String>,
) -> Result<(Answers, u32)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let trouble = scope.spawn(|| -> Result<u32> {
            let mut reloads = 0;
            while !over.load(Ordering::Relaxed) {
                container.sh("systemctl daemon-reload")?.ok()?;
                container.sh("pkill -9 -f 'muster-demo [f]laky'; true")?;
                reloads += 1;
                std::thread::sleep(Duration::from_secs(2));
            }
            Ok(reloads)
        });
        let ping = scope
            .spawn(|| container.start(&["musterctl", "ping", &questions.to_string()])?.wait(LIMIT)?.ok());
        let load = work();
        over.store(true, Ordering::Relaxed);
        let reloads = trouble.join().map_err(|_| anyhow::anyhow!("the trouble maker fell"))??;
        let ping = ping.join().map_err(|_| anyhow::anyhow!("the asker fell"))??;
        Ok((Answers { load: load?, ping: ping.trim().to_string() }, reloads))
    })
}

/// What is held once the last instance is gone.
fn settled(container: &Container) -> Result<Holdings> {
    let quiet = "[ $(systemctl show load.socket -P NConnections) = 0 ] && ! pgrep -f 'muster-demo [f]laky' >/dev/null";
    container.until(Duration::from_secs(60), quiet)?;
    let failed =
        format!("[ $(systemctl list-units --failed --no-legend 'load@*' | wc -l) -le {FAILED_KEPT} ]");
    container.until(Duration::from_secs(60), &failed).context("failed instances stay")?;
    holdings(container)
}
