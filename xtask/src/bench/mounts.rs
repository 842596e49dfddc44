//! What mounts made by hand cost PID 1: the rows of `cargo xtask bench --rows mounts`.
//!
//! What must stay true: nobody asks PID 1 anything while its CPU time is measured; that it knows every mount, and no other, is
//! asked afterwards.

use super::{INITS, LIMIT, Process, Row, Samples, describe, table, wait_for};
use anyhow::{Context, Result, ensure};
use muster_tests::Container;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many there are.
const MOUNTS: usize = 1000;
/// By now PID 1 has read what it put off during a storm.
const REST: Duration = Duration::from_secs(3);

/// The rows.
const ROWS: [Row; 5] = [
    ("mount", "1,000 times mount(8)", "ms"),
    ("mount-cpu", "PID 1's CPU time for them", "ms"),
    ("umount", "1,000 times umount(8)", "ms"),
    ("umount-cpu", "PID 1's CPU time for them", "ms"),
    ("answer", "`systemctl is-active` during such a storm, the longest", "ms"),
];

/// Measures under each init in turn; the table, and whether it is complete.
pub fn run(root: &Path, rounds: usize) -> (String, bool) {
    let mut samples = [Samples::new(), Samples::new()];
    for round in 1..=rounds {
        for (init, samples) in INITS.iter().zip(&mut samples) {
            eprintln!("round {round} of {rounds}: {init}, mounts");
            if let Err(error) = measure(root, init, samples) {
                eprintln!("{init}: {error:#}");
            }
        }
    }
    let complete = samples.iter().all(|samples| samples.len() == ROWS.len());
    (table(&ROWS, &samples, &Samples::new(), rounds), complete)
}

/// One container's life.
fn measure(root: &Path, init: &str, samples: &mut Samples) -> Result<()> {
    let mut container = describe(root, init)?.spawn()?;
    wait_for(&container.root().join("run/bench-end"))
        .with_context(|| format!("no default target; console:\n{}", container.console()))?;
    container.until(LIMIT, "systemctl is-system-running --wait | grep -qxE 'running|degraded'")?;
    container.sh("mkdir /run/storm; cd /run/storm; seq 1000 | xargs mkdir")?.ok()?;
    let mut add = |key: &'static str, value: f64| samples.entry(key).or_default().push(value);
    let (wall, cpu) = storm(&container, &each("mount -t tmpfs storm"))?;
    add("mount", wall);
    add("mount-cpu", cpu);
    known(&container, MOUNTS)?;
    let (wall, cpu) = storm(&container, &each("umount"))?;
    add("umount", wall);
    add("umount-cpu", cpu);
    known(&container, 0)?;
    add("answer", answer(&container)?);
    container.kill()?;
    Ok(())
}

/// A command for each place of the storm.
fn each(command: &str) -> String {
    format!("i=0; while [ $i -lt {MOUNTS} ]; do i=$((i+1)); {command} /run/storm/$i; done")
}

/// How long the commands took, and PID 1's CPU time until it has worked them off; both in milliseconds.
fn storm(container: &Container, script: &str) -> Result<(f64, f64)> {
    std::thread::sleep(REST);
    let process = Process(container.pid());
    let (begun, cpu) = (Instant::now(), process.cpu_ms()?);
    container.start(&["/bin/sh", "-c", script])?.wait(LIMIT)?.ok()?;
    let wall = begun.elapsed().as_secs_f64() * 1e3;
    std::thread::sleep(REST);
    Ok((wall, process.cpu_ms()? - cpu))
}

/// PID 1 knows as many as there are.
fn known(container: &Container, count: usize) -> Result<()> {
    let list = "systemctl list-units --no-legend --plain --state=active 'run-storm-*.mount' | wc -l";
    let known = container.sh(list)?.ok()?;
    ensure!(known.trim() == count.to_string(), "{} of {count} mounts are known", known.trim());
    Ok(())
}

/// The longest that systemctl took for a question, from one end of a storm to the other, in milliseconds. It is asked in real
/// time: it shall not measure how long itself waits for a CPU.
fn answer(container: &Container) -> Result<f64> {
    let script = format!("{}; {}; touch /run/storm-end", each("mount -t tmpfs storm"), each("umount"));
    let load = container.start(&["/bin/sh", "-c", &script])?;
    let ask = "longest=0; while [ ! -e /run/storm-end ]; do begun=$(date +%s%N); systemctl is-active -q -- -.mount || exit; \
        took=$(($(date +%s%N) - begun)); [ $took -le $longest ] || longest=$took; sleep 0.1; done; echo $longest";
    let said = container.start(&["chrt", "-f", "1", "/bin/sh", "-c", ask])?.wait(LIMIT)?.ok()?;
    load.wait(LIMIT)?.ok()?;
    Ok(said.trim().parse::<f64>()? / 1e6)
}
