//! `cargo xtask bench`: the same Debian container under systemd and under muster in turn, as a table of medians and ratios.
//!
//! What must stay true: both sides run the same measurements from outside, with the same programs; a measurement that did
//! not come off is shown as such, never left out.

mod container;
mod dinit;
mod exec;
mod first;
mod machine;
mod mounts;
mod page;
mod units;

use anyhow::{Context, Result, bail};
use muster_tests::{Builder, Container, cgroup, image, paths};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const INITS: [&str; 2] = ["systemd", "muster"];
const LIMIT: Duration = Duration::from_secs(60);
/// Connections one after the other.
const CONNECTIONS: usize = 100;
/// Oneshots in the one transaction.
const MANY: usize = 500;
/// Oneshots of which each waits for the one before it.
const CHAIN: usize = 1000;
const ONESHOT: &str = "[Service]\nType=oneshot\nExecStart=/usr/lib/muster-demo spin-exit 0\n";

/// The rows of the table: key, what it says, unit, and the row of the floor if it has one.
const ROWS: [Row; 23] = [
    ("boot", "time to the default target", "ms"),
    ("boot-cpu", "PID 1's CPU time until then", "ms"),
    ("rss", "PID 1's memory at rest after it, RSS", "MiB"),
    ("private", "PID 1's memory at rest after it, private", "MiB"),
    ("oneshot", "`systemctl start` of a oneshot", "ms"),
    ("oneshot-cpu", "PID 1's CPU time for it", "ms"),
    ("confined", "`systemctl start` of a oneshot confined as systemd-timesyncd is", "ms"),
    ("confined-cpu", "PID 1's CPU time for it", "ms"),
    ("confined-own", "CPU time of its own process, the executor's included", "ms"),
    ("many", "500 oneshots in one transaction", "ms"),
    ("many-cpu", "PID 1's CPU time for them", "ms"),
    ("chain", "a chain of 1,000 oneshots", "ms"),
    ("chain-cpu", "PID 1's CPU time for it", "ms"),
    ("accept", "Accept=yes: one connection to its answer", "ms"),
    ("accept-cpu", "PID 1's CPU time for it", "ms"),
    ("accept-rate", "Accept=yes: connections a second, 8-way", "1/s"),
    ("accept-rate-cpu", "PID 1's CPU time for one of them", "ms"),
    ("bus", "D-Bus meanwhile, the longest of 50 answers", "ms"),
    ("accept-exec", "Accept=yes with `Nice=`: one connection to its answer", "ms"),
    ("accept-exec-cpu", "PID 1's CPU time for it", "ms"),
    ("accept-exec-rate", "Accept=yes with `Nice=`: connections a second, 8-way", "1/s"),
    ("first", "Accept=no: first connection to its answer", "ms"),
    ("second", "Accept=no: a further connection", "ms"),
];

/// A row of a table: key, what it says, unit.
type Row = (&'static str, &'static str, &'static str);

/// Values by row key, one a round.
type Samples = BTreeMap<&'static str, Vec<f64>>;

/// Which rows are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every row there is.
    All,
    /// A stock Debian.
    Stock,
    /// What many units cost.
    Units,
    /// The boot alone.
    Boot,
    /// Mounts made by hand.
    Mounts,
    /// A container with one service, under other inits as well.
    Container,
    /// A machine, to its login prompt.
    Machine,
}

/// Runs the rounds and prints the tables; with `write`, docs/benchmarks.md as well.
pub fn run(rounds: usize, rows: Rows, write: bool) -> Result<i32> {
    if rows == Rows::Machine {
        return run_machines(rounds, write);
    }
    if let Some(reason) = Container::unsupported() {
        bail!("cannot boot a container: {reason}");
    }
    cgroup::sweep();
    eprintln!("building");
    if rows == Rows::Container {
        return run_containers(rounds, write);
    }
    image::build_programs()?;
    let root = image::debian()?;
    if rows == Rows::Boot {
        return run_boots(&root, rounds);
    }
    if rows == Rows::Mounts {
        return shown_and_written("mounts", mounts::run(&root, rounds), write);
    }
    let mut samples = [Samples::new(), Samples::new()];
    let mut sizes = [units::Sizes::new(), units::Sizes::new()];
    let (mut floor, mut beside) = (Samples::new(), Samples::new());
    let dinit = (rows != Rows::Units).then(dinit::fetch);
    for round in 1..=rounds {
        if let Some(Ok(dir)) = &dinit {
            eprintln!("round {round} of {rounds}: dinit");
            if let Err(error) = dinit::measure(&root, dir, &mut beside) {
                eprintln!("dinit: {error:#}");
            }
        }
        for (init, samples) in INITS.iter().zip(&mut samples).filter(|_| rows != Rows::Units) {
            eprintln!("round {round} of {rounds}: {init}");
            if let Err(error) = measure(&root, init, samples, &mut floor) {
                eprintln!("{init}: {error:#}");
            }
        }
        for (count, both) in units::SIZES.into_iter().filter(|_| rows != Rows::Stock) {
            let inits = INITS.iter().zip(&mut sizes).filter(|(init, _)| both || **init != "systemd");
            for (init, sizes) in inits {
                eprintln!("round {round} of {rounds}: {init}, {count} units");
                if let Err(error) = units::measure(&root, init, count, sizes.entry(count).or_default()) {
                    eprintln!("{init}: {error:#}");
                }
            }
        }
    }
    let stock = (rows != Rows::Units).then(|| ("stock", table(&ROWS, &samples, &floor, rounds)));
    let dinit = dinit.map(|fetched| ("dinit", dinit::table(&fetched, &beside, &samples[1])));
    let many = (rows != Rows::Stock).then(|| ("units", units::table(&sizes, rounds)));
    let tables: Vec<(&str, String)> = [stock, dinit, many].into_iter().flatten().collect();
    tables.iter().for_each(|(_, table)| println!("{table}"));
    if write {
        page::write(&tables)?;
    }
    let stock = rows == Rows::Units || samples.iter().all(|samples| samples.len() >= ROWS.len());
    let many = rows == Rows::Stock || (0..2).all(|init| units::complete(&sizes[init], init));
    let mounts = rows != Rows::All || shown_and_written("mounts", mounts::run(&root, rounds), write)? == 0;
    let containers = rows != Rows::All || run_containers(rounds, write)? == 0;
    let machines = rows != Rows::All || run_machines(rounds, write)? == 0;
    Ok(i32::from(!stock || !many || !mounts || !containers || !machines))
}

/// Machines, to their login prompt.
fn run_machines(rounds: usize, write: bool) -> Result<i32> {
    image::build_programs()?;
    shown_and_written("vm", machine::run(rounds)?, write)
}

/// Containers under several inits.
fn run_containers(rounds: usize, write: bool) -> Result<i32> {
    shown_and_written("container", container::run(rounds)?, write)
}

/// Prints a table and writes it into the page; the exit status says whether it is complete.
fn shown_and_written(rows: &str, (table, complete): (String, bool), write: bool) -> Result<i32> {
    println!("{table}");
    if write {
        page::write(&[(rows, table)])?;
    }
    Ok(i32::from(!complete))
}

/// The boot alone.
fn run_boots(root: &Path, rounds: usize) -> Result<i32> {
    let mut samples = [Samples::new(), Samples::new()];
    for _ in 0..rounds {
        for (init, samples) in INITS.iter().zip(&mut samples) {
            first::measure(root, init, samples).with_context(|| init.to_string())?;
        }
    }
    println!("{}", table(&first::ROWS, &samples, &Samples::new(), rounds));
    Ok(0)
}

/// One container's life: boot, then each measurement.
fn measure(root: &Path, init: &str, samples: &mut Samples, floor: &mut Samples) -> Result<()> {
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut container = describe(root, init)?.spawn()?;
    let done = wait_for(&container.root().join("run/bench-end"))
        .with_context(|| format!("no default target; console:\n{}", container.console()))?;
    let process = Process(container.pid());
    let mut add = |key: &'static str, value: f64| samples.entry(key).or_default().push(value);
    add("boot", (done - before.as_secs_f64()) * 1e3);
    add("boot-cpu", process.cpu_ms()?);
    container.until(LIMIT, "systemctl is-system-running | grep -qxE 'running|degraded'")?;
    std::thread::sleep(Duration::from_secs(4));
    let (rss, private) = process.memory_mib()?;
    add("rss", rss);
    add("private", private);
    let ask = |command: &[&str]| numbers(&container, command, LIMIT);
    let cpu = process.cpu_ms()?;
    add("oneshot", ask(&["repeat", "20", "systemctl", "start", "bench-one.service"])?[0] / 1e3);
    add("oneshot-cpu", (process.cpu_ms()? - cpu) / 20.0);
    let cpu = process.cpu_ms()?;
    add("confined", ask(&["repeat", "20", "systemctl", "start", "bench-confined.service"])?[0] / 1e3);
    add("confined-cpu", (process.cpu_ms()? - cpu) / 20.0);
    let show = ["systemctl", "show", "-P", "CPUUsageNSec", "bench-confined.service"];
    add("confined-own", exec::cpu_ms(&container.start(&show)?.wait(LIMIT)?.ok()?)?);
    let cpu = process.cpu_ms()?;
    add("many", ask(&["repeat", "1", "systemctl", "start", "bench-many.target"])?[0] / 1e3);
    add("many-cpu", process.cpu_ms()? - cpu);
    let last = make_chain(&container)?;
    let cpu = process.cpu_ms()?;
    add("chain", ask(&["repeat", "1", "systemctl", "start", &last])?[0] / 1e3);
    add("chain-cpu", process.cpu_ms()? - cpu);
    std::thread::sleep(Duration::from_millis(300));
    let cpu = process.cpu_ms()?;
    add("accept", latency(&ask(&["accept-bench", "127.0.0.1:7101", &CONNECTIONS.to_string(), "1"])?)?);
    std::thread::sleep(Duration::from_millis(300));
    add("accept-cpu", (process.cpu_ms()? - cpu) / CONNECTIONS as f64);
    let cpu = process.cpu_ms()?;
    let parallel = ask(&["accept-bench", "127.0.0.1:7101", "50", "8"])?;
    latency(&parallel)?;
    add("accept-rate", parallel[2]);
    std::thread::sleep(Duration::from_millis(300));
    add("accept-rate-cpu", (process.cpu_ms()? - cpu) / 400.0);
    add("bus", bus_answer(&container)?);
    let cpu = process.cpu_ms()?;
    add("accept-exec", latency(&ask(&["accept-bench", "127.0.0.1:7104", &CONNECTIONS.to_string(), "1"])?)?);
    std::thread::sleep(Duration::from_millis(300));
    add("accept-exec-cpu", (process.cpu_ms()? - cpu) / CONNECTIONS as f64);
    let parallel = ask(&["accept-bench", "127.0.0.1:7104", "50", "8"])?;
    latency(&parallel)?;
    add("accept-exec-rate", parallel[2]);
    add("first", latency(&ask(&["accept-bench", "127.0.0.1:7102", "1", "1"])?)?);
    add("second", latency(&ask(&["accept-bench", "127.0.0.1:7102", "20", "1"])?)?);
    measure_floor(&container, floor)?;
    container.kill()?;
    Ok(())
}

/// How long PID 1 takes to answer while connections come 8-way, at most. In milliseconds; infinite if it gives no answer at
/// all before the client's patience ends. The client runs in real time: it shall not measure how long itself waits for a CPU.
fn bus_answer(container: &Container) -> Result<f64> {
    let load = container.start(&[image::DEMO, "accept-bench", "127.0.0.1:7101", "200", "8"])?;
    let ping = container.start(&["chrt", "-f", "1", "/usr/bin/musterctl", "ping", "50"])?.wait(LIMIT)?;
    load.wait(LIMIT)?.ok()?;
    if ping.code != 0 && ping.stderr.contains("temporarily unavailable") {
        return Ok(f64::INFINITY);
    }
    let text = ping.ok()?;
    let longest = text.split_whitespace().nth(2).context("musterctl ping printed nothing")?;
    Ok(longest.parse::<f64>()? / 1e3)
}

/// Makes the chain while the system runs, so that the boot does not read it; its last.
fn make_chain(container: &Container) -> Result<String> {
    let dir = container.root().join("run/systemd/system");
    fs::create_dir_all(&dir)?;
    let name = |place: usize| format!("bench-chain-{place}.service");
    for place in 0..CHAIN {
        let before = place.checked_sub(1).map(name);
        let order = before.map_or(String::new(), |name| format!("[Unit]\nRequires={name}\nAfter={name}\n"));
        fs::write(dir.join(name(place)), order + ONESHOT)?;
    }
    container.sh("systemctl daemon-reload")?.ok()?;
    Ok(name(CHAIN - 1))
}

/// What no manager could do better: accept, fork, exec.
fn measure_floor(container: &Container, floor: &mut Samples) -> Result<()> {
    let server = container.start(&[image::DEMO, "fork-floor", "127.0.0.1:7103"])?;
    std::thread::sleep(Duration::from_millis(200));
    let sequential =
        numbers(container, &["accept-bench", "127.0.0.1:7103", &CONNECTIONS.to_string(), "1"], LIMIT)?;
    let parallel = numbers(container, &["accept-bench", "127.0.0.1:7103", "50", "8"], LIMIT)?;
    floor.entry("accept").or_default().push(latency(&sequential)?);
    latency(&parallel)?;
    floor.entry("accept-rate").or_default().push(parallel[2]);
    server.wait(Duration::ZERO)?;
    Ok(())
}

/// The Debian root under an init, with the units that are measured.
fn describe(root: &Path, init: &str) -> Result<Builder> {
    let mut builder = Container::builder(root).copy(&paths::release().join("muster-demo"), image::DEMO);
    let files = image::installed_files();
    builder = files.iter().fold(builder, |builder, (from, to)| builder.copy(from, to));
    builder = builder.init(if init == "systemd" { "/usr/lib/systemd/systemd" } else { image::MUSTER });
    for (name, text) in units() {
        builder = builder.file(&format!("etc/systemd/system/{name}"), text);
    }
    let wants = "etc/systemd/system/multi-user.target.wants";
    for name in ["bench-end.service", "bench-accept.socket", "bench-exec.socket", "bench-first.socket"] {
        builder = builder.link(&format!("{wants}/{name}"), &format!("/etc/systemd/system/{name}"));
    }
    Ok(builder)
}

fn units() -> Vec<(String, String)> {
    // The confined one is named by a unit that stays, so that what it took is known after it has ended.
    let end = "[Unit]\nDefaultDependencies=no\nAfter=default.target graphical.target multi-user.target\n\
        Before=bench-confined.service\n\
        [Service]\nType=oneshot\nExecStart=/bin/sh -c 'date +%%s.%%N >/run/bench-end.new; mv /run/bench-end.new /run/bench-end'\n";
    let names: Vec<String> = (0..MANY).map(|i| format!("bench-many@{i}.service")).collect();
    let many = format!("[Unit]\nWants={0}\nAfter={0}\n", names.join(" "));
    let socket = |port: u16, accept: &str| {
        format!(
            "[Socket]\nListenStream=127.0.0.1:{port}\nAccept={accept}\nTriggerLimitIntervalSec=0\nPollLimitIntervalSec=0\n"
        )
    };
    let connection = "[Service]\nStandardInput=socket\nExecStart=/usr/lib/muster-demo inetd\n";
    let serve = "[Service]\nExecStart=/usr/lib/muster-demo serve\n";
    [
        ("bench-end.service", end.to_string()),
        ("bench-one.service", ONESHOT.to_string() + "[Unit]\nStartLimitIntervalSec=0\n"),
        (
            "bench-confined.service",
            exec::CONFINED.to_string() + "ExecStart=/usr/lib/muster-demo spin-exit 0\n",
        ),
        ("bench-many@.service", ONESHOT.to_string()),
        ("bench-many.target", many),
        ("bench-accept.socket", socket(7101, "yes")),
        ("bench-accept@.service", connection.to_string()),
        ("bench-exec.socket", socket(7104, "yes")),
        ("bench-exec@.service", connection.to_string() + "Nice=1\n"),
        ("bench-first.socket", socket(7102, "no")),
        ("bench-first.service", serve.to_string()),
    ]
    .map(|(name, text)| (name.to_string(), text))
    .to_vec()
}

/// The time that a file in the container tells, once it is there.
fn wait_for(path: &Path) -> Result<f64> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Ok(text) = fs::read_to_string(path) {
            return Ok(text.trim().parse()?);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("{} did not come", path.display())
}

/// The numbers that a mode of the demo prints.
fn numbers(container: &Container, mode: &[&str], limit: Duration) -> Result<Vec<f64>> {
    let command: Vec<&str> = [image::DEMO].into_iter().chain(mode.iter().copied()).collect();
    let text = container.start(&command)?.wait(limit)?.ok().with_context(|| mode.join(" "))?;
    let numbers = text.split_whitespace().map(|word| Ok(word.parse()?)).collect::<Result<Vec<f64>>>()?;
    if numbers.is_empty() {
        bail!("{} printed nothing", mode.join(" "));
    }
    Ok(numbers)
}

/// The median in milliseconds of what accept-bench printed, if every connection was answered.
fn latency(printed: &[f64]) -> Result<f64> {
    match printed {
        [median, _, _, 0.0] => Ok(median / 1e3),
        [_, _, _, failed] => bail!("{failed} connections were not answered"),
        _ => bail!("accept-bench printed {printed:?}"),
    }
}

/// A process of the host, read from /proc.
struct Process(i32);

impl Process {
    /// CPU time so far, in the kernel's nanoseconds.
    fn cpu_ms(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.0))?;
        let first = text.split(' ').next().context("an empty schedstat")?;
        Ok(first.parse::<f64>()? / 1e6)
    }

    /// Page faults without a read, and user and system time in ticks (proc_pid_stat(5)).
    fn counts(&self) -> Result<[f64; 3]> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let fields: Vec<&str> = text.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
        let number = |at: usize| -> Result<f64> { Ok(fields.get(at).context("stat")?.parse()?) };
        Ok([number(7)?, number(11)?, number(12)?])
    }

    /// Resident, and the part of it that no other process shares.
    fn memory_mib(&self) -> Result<(f64, f64)> {
        Ok((self.mapped_mib(&["Rss:"])?, self.mapped_mib(&["Private_Clean:", "Private_Dirty:"])?))
    }

    /// Resident, with each page divided by the number of those who share it.
    fn proportional_mib(&self) -> Result<f64> {
        self.mapped_mib(&["Pss:"])
    }

    /// The sum of these lines of proc_pid_smaps(5).
    fn mapped_mib(&self, names: &[&str]) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let lines = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        let kilobytes = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        Ok(kilobytes.sum::<f64>() / 1024.0)
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn table(rows: &[Row], samples: &[Samples; 2], floor: &Samples, rounds: usize) -> String {
    let mut text = format!(
        "Medians of {rounds} rounds.\n\n| | unit | systemd | muster | ratio | floor |\n|---|---|---:|---:|---:|---:|\n"
    );
    for &(key, what, unit) in rows {
        let [there, here] = [of(&samples[0], key), of(&samples[1], key)];
        let ratio = ratio(there, here).map_or(String::new(), number);
        let floor = of(floor, key).map_or(String::new(), number);
        text += &format!("| {what} | {unit} | {} | {} | {ratio} | {floor} |\n", shown(there), shown(here));
    }
    text
}

/// The median of a row.
fn of(samples: &Samples, key: &str) -> Option<f64> {
    samples.get(key).and_then(|values| median(values))
}

/// What muster takes of what systemd takes, where both were measured.
fn ratio(there: Option<f64>, here: Option<f64>) -> Option<f64> {
    let finite = |values: &(f64, f64)| values.0.is_finite() && values.1.is_finite();
    there.zip(here).filter(finite).map(|(there, here)| here / there)
}

fn shown(value: Option<f64>) -> String {
    value.map_or("failed".to_string(), number)
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "no answer".to_string(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value < 0.1 => format!("{value:.3}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_measurement_is_shown() {
        let there = Samples::from([("boot", vec![300.0, 100.0, 200.0]), ("bus", vec![f64::INFINITY])]);
        let here = Samples::from([("boot", vec![100.0]), ("rss", vec![4.0]), ("bus", vec![5.0])]);
        let text = table(&ROWS, &[there, here], &Samples::new(), 3);
        assert!(text.contains("| time to the default target | ms | 200 | 100 | 0.50 |  |"), "{text}");
        assert!(
            text.contains("| PID 1's memory at rest after it, RSS | MiB | failed | 4.00 |  |  |"),
            "{text}"
        );
        assert!(text.contains("| ms | no answer | 5.00 |  |  |"), "{text}");
    }

    #[test]
    fn unanswered_connections_are_no_measurement() {
        assert_eq!(latency(&[1500.0, 2000.0, 60.0, 0.0]).unwrap(), 1.5);
        assert!(latency(&[1500.0, 2000.0, 60.0, 1.0]).is_err());
    }
}
