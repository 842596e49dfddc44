//! What many units cost: the rows of `cargo xtask bench` whose size is the number of unit files.
//!
//! What must stay true: each init runs the same steps over the same files, so that the last state of one step is the first
//! of the next in both.

use super::{Process, Samples, describe, number, numbers, ratio, shown, wait_for};
use anyhow::{Context, Result};
use muster_tests::image;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How many units there are, and whether systemd is measured too: with the most it takes minutes.
pub const SIZES: [(usize, bool); 3] = [(150, true), (5_000, true), (50_000, false)];
/// At most this many of them are started.
const STARTED: usize = 1_000;
/// By now what is given back when nothing happens has been.
const IDLE: Duration = Duration::from_millis(2_500);

/// The rows of the table: key, what it says, unit.
const ROWS: [(&str, &str, &str); 16] = [
    ("boot-rss", "PID 1's memory when the default target is reached, RSS", "MiB"),
    ("idle-rss", "the same after two idle seconds", "MiB"),
    ("load", "load them all", "ms"),
    ("load-cpu", "PID 1's CPU time for it", "ms"),
    ("loaded-rss", "PID 1's memory with them, RSS, after two idle seconds", "MiB"),
    ("unit", "memory per loaded unit", "kB"),
    ("list", "ListUnits", "ms"),
    ("get", "GetUnit", "ms"),
    ("reload", "daemon-reload", "ms"),
    ("reload-cpu", "PID 1's CPU time for it", "ms"),
    ("reload-rss", "PID 1's memory after it, RSS, after two idle seconds", "MiB"),
    ("start", "start 1,000 of them (all, where there are fewer)", "ms"),
    ("start-cpu", "PID 1's CPU time for it", "ms"),
    ("start-floor", "fork and exec alone, as often: CPU time", "ms"),
    ("many", "500 oneshots in one transaction, beside them", "ms"),
    ("many-cpu", "PID 1's CPU time for it", "ms"),
];

/// Samples by number of units, of one init.
pub type Sizes = BTreeMap<usize, Samples>;

/// Whether every row has a value, for every size that this init is measured with.
pub fn complete(sizes: &Sizes, init: usize) -> bool {
    let wanted = SIZES.iter().filter(|(_, both)| *both || init == 1);
    wanted.into_iter().all(|(size, _)| sizes.get(size).is_some_and(|samples| samples.len() == ROWS.len()))
}

/// One container's life with that many units.
pub fn measure(root: &Path, init: &str, count: usize, samples: &mut Samples) -> Result<()> {
    // Reloads of systemd with many units take longer than any other step.
    let patience = Duration::from_secs(180);
    let files = files(count);
    let builder = describe(root, init)?;
    let builder = files
        .iter()
        .fold(builder, |builder, (name, text)| builder.file(&format!("etc/systemd/system/{name}"), text));
    let mut container = builder.spawn()?;
    wait_for(&container.root().join("run/bench-end"))
        .with_context(|| format!("no default target; console:\n{}", container.console()))?;
    let process = Process(container.pid());
    let mut add = |key: &'static str, value: f64| samples.entry(key).or_default().push(value);
    add("boot-rss", process.memory_mib()?.0);
    container.until(patience, "systemctl is-system-running | grep -qxE 'running|degraded'")?;
    let idle = || -> Result<f64> {
        std::thread::sleep(IDLE);
        Ok(process.memory_mib()?.0)
    };
    // Thousands of files were just written: the disk is done with them before reading is measured.
    nix::unistd::sync();
    let before = idle()?;
    add("idle-rss", before);
    let ask = |command: &[&str]| -> Result<f64> { Ok(numbers(&container, command, patience)?[0] / 1e3) };
    let step = |command: &[&str]| -> Result<(f64, f64)> {
        let cpu = process.cpu_ms()?;
        let wall = ask(command)?;
        std::thread::sleep(Duration::from_millis(300));
        Ok((wall, process.cpu_ms()? - cpu))
    };
    let (wall, cpu) = step(&["bus-time", "1", "StartUnit", "cost-all.target", "replace"])?;
    add("load", wall);
    add("load-cpu", cpu);
    let loaded = idle()?;
    add("loaded-rss", loaded);
    add("unit", (loaded - before) * 1024.0 / count as f64);
    add("list", ask(&["bus-time", "20", "ListUnits"])?);
    add("get", ask(&["bus-time", "500", "GetUnit", "cost-00100.service"])?);
    let (wall, cpu) = step(&["bus-time", "1", "Reload"])?;
    add("reload", wall);
    add("reload-cpu", cpu);
    add("reload-rss", idle()?);
    let (wall, cpu) = step(&["repeat", "1", "systemctl", "start", "cost-some.target"])?;
    add("start", wall);
    add("start-cpu", cpu);
    let started = STARTED.min(count).to_string();
    add("start-floor", ask(&["spawn-floor", &started, image::DEMO, "spin-exit", "0"])?);
    let (wall, cpu) = step(&["repeat", "1", "systemctl", "start", "bench-many.target"])?;
    add("many", wall);
    add("many-cpu", cpu);
    container.kill()?;
    Ok(())
}

/// The services, a target that is ordered after them all and so loads them, and one that starts some.
fn files(count: usize) -> Vec<(String, String)> {
    let name = |number: usize| format!("cost-{number:05}.service");
    let service = |number: usize| {
        let text = format!(
            "[Unit]\nDescription=Application number {number}\nAfter=network.target\n[Service]\n\
             ExecStart=/usr/bin/sleep infinity\nEnvironment=NUMBER={number} KIND=cost\nMemoryMax=64M\n"
        );
        (name(number), text)
    };
    let list = |key: &str, count: usize| -> String {
        let names: Vec<String> = (0..count).map(name).collect();
        names.chunks(500).map(|names| format!("{key}={}\n", names.join(" "))).collect()
    };
    let all = format!("[Unit]\nDefaultDependencies=no\n{}", list("After", count));
    let some = format!("[Unit]\n{}", list("Wants", STARTED.min(count)));
    let targets = [("cost-all.target".to_owned(), all), ("cost-some.target".to_owned(), some)];
    (0..count).map(service).chain(targets).collect()
}

/// The table: for each size systemd, muster and their ratio.
pub fn table(samples: &[Sizes; 2], rounds: usize) -> String {
    let mut text = format!(
        "What many units cost: services with `Description=`, `After=`, `ExecStart=`, two variables and `MemoryMax=`.\n\
         Medians of {rounds} rounds; with 50,000 only muster.\n\n| | unit |"
    );
    for (size, both) in SIZES {
        text +=
            &if both { format!(" {size}: systemd | muster | ratio |") } else { format!(" {size}: muster |") };
    }
    text += "\n|---|---|";
    SIZES.iter().for_each(|(_, both)| text += if *both { "---:|---:|---:|" } else { "---:|" });
    text += "\n";
    for (key, what, unit) in ROWS {
        text += &format!("| {what} | {unit} |");
        for (size, both) in SIZES {
            let of = |init: usize| samples[init].get(&size).and_then(|samples| super::of(samples, key));
            let (there, here) = (of(0), of(1));
            text += &match both {
                true => format!(
                    " {} | {} | {} |",
                    shown(there),
                    shown(here),
                    ratio(there, here).map_or(String::new(), number)
                ),
                false => format!(" {} |", shown(here)),
            };
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stand_beside_each_other() {
        let there = Sizes::from([(150, Samples::from([("load", vec![40.0])]))]);
        let here = Sizes::from([(150, Samples::from([("load", vec![4.0])])), (50_000, Samples::new())]);
        let text = table(&[there, here], 1);
        assert!(
            text.contains("| load them all | ms | 40.0 | 4.00 | 0.10 | failed | failed |  | failed |\n"),
            "{text}"
        );
    }

    #[test]
    fn a_line_of_names_is_no_longer_than_systemd_takes() {
        let files = files(50_000);
        assert_eq!(files.len(), 50_002);
        assert!(files.iter().all(|(_, text)| text.lines().all(|line| line.len() < 1 << 20)));
    }
}
