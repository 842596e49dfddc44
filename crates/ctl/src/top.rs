//! `musterctl top`: which unit needs how much. What the kernel counts is read from the units' cgroups by this program, so that
//! watching costs PID 1 nothing; PID 1 is asked which units there are, and what waits at their sockets.
//!
//! A cgroup is a unit's where its name is one and it lies in the cgroup of a slice: what is below belongs to the unit.

use crate::client::{Client, Failure, Question};
use crate::page::{Page, Style};
use crate::terminal::Terminal;
use crate::{Answer, OUR_SOCKET, Show};
use muster_cli::Sort;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The slice of everything.
const ROOT: &str = "-.slice";

/// What one interval showed.
#[derive(Clone, Default, Serialize)]
pub struct Table {
    /// How long was measured; 0 before the first interval is over.
    interval_usec: u64,
    units: Vec<Usage>,
    #[serde(skip)]
    lines: Option<usize>,
    #[serde(skip)]
    columns: Option<usize>,
}

/// What a unit needs; what is not counted is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Usage {
    unit: String,
    active_state: String,
    /// All that it used since its start.
    cpu_usec: Option<u64>,
    /// Of one processor, in the interval.
    cpu_percent: Option<f64>,
    memory_bytes: Option<u64>,
    tasks: Option<u64>,
    /// Connections or bytes that wait at its sockets.
    waiting: Option<u64>,
}

/// Shows until it is over.
pub fn top(asked: &muster_cli::Top, show: &Show) -> Result<ExitCode, Failure> {
    let mut client = Client::connect()?;
    let cgroups = cgroups(&mut client)?;
    let mut watch = Watch { client, cgroups, last: None };
    let interval = Duration::from_secs_f64(asked.interval);
    let mut table = watch.look()?;
    let terminal = if asked.once || show.json { None } else { Terminal::open() };
    if let Some(terminal) = terminal {
        return live(&mut watch, table, asked, interval, &terminal);
    }
    loop {
        std::thread::sleep(interval);
        table = watch.look()?;
        table.sort(asked.sort);
        table.lines = asked.lines;
        let code = show.answer(&table)?;
        if asked.once {
            return Ok(code);
        }
    }
}

fn live(
    watch: &mut Watch,
    mut table: Table,
    asked: &muster_cli::Top,
    interval: Duration,
    terminal: &Terminal,
) -> Result<ExitCode, Failure> {
    let mut sort = asked.sort;
    let mut next = Instant::now();
    loop {
        if let Some(rest) = next.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            match terminal.key(rest).map_err(Failure::output)? {
                Some(b'q' | b'Q' | 3) => return Ok(ExitCode::SUCCESS),
                Some(key) => sort = key_sort(key).unwrap_or(sort),
                None => {}
            }
        } else {
            table = watch.look()?;
            next = Instant::now().checked_add(interval).unwrap_or(next);
        }
        table.sort(sort);
        draw(&mut table, sort, asked.lines, terminal).map_err(Failure::output)?;
    }
}

fn key_sort(key: u8) -> Option<Sort> {
    Some(match key {
        b'c' => Sort::Cpu,
        b'm' => Sort::Memory,
        b't' => Sort::Tasks,
        b'w' => Sort::Waiting,
        b'n' => Sort::Name,
        _ => return None,
    })
}

/// One screen, written at once so that it does not flicker.
fn draw(table: &mut Table, sort: Sort, lines: Option<usize>, terminal: &Terminal) -> io::Result<()> {
    let (rows, columns) = terminal.size();
    // Totals, headings, and the line of keys.
    let room = rows.saturating_sub(3);
    table.lines = Some(lines.unwrap_or(room).min(room));
    table.columns = Some(columns);
    let mut text = Vec::new();
    let mut page = Page::new(&mut text, true);
    table.print(&mut page)?;
    let sort = format!("{sort:?}").to_lowercase();
    let keys = format!("by {sort}; c CPU, m memory, t tasks, w waiting, n name, q quit");
    let keys: String = keys.chars().take(columns.saturating_sub(1)).collect();
    write!(page, "{}", page.paint(Style::Dim, &keys))?;
    let text = String::from_utf8_lossy(&text).replace('\n', "\x1b[K\r\n");
    let mut out = io::stdout().lock();
    write!(out, "\x1b[H{text}\x1b[K\x1b[J")?;
    out.flush()
}

/// What is looked at again and again.
struct Watch {
    client: Client,
    /// The directory of our cgroups; nothing where there are none.
    cgroups: Option<PathBuf>,
    /// When it was looked at last, and what each unit had used of CPU then.
    last: Option<(Instant, BTreeMap<String, u64>)>,
}

impl Watch {
    fn look(&mut self) -> Result<Table, Failure> {
        let listed = self.client.list("*")?;
        let now = Instant::now();
        let mut usages: BTreeMap<String, Usage> = BTreeMap::new();
        for unit in &listed {
            let usage =
                Usage { unit: unit.name.clone(), active_state: unit.active.clone(), ..Usage::default() };
            usages.insert(unit.name.clone(), usage);
        }
        if let Some(cgroups) = &self.cgroups {
            walk(cgroups, &mut usages);
        }
        let sockets =
            || listed.iter().filter(|unit| unit.name.ends_with(".socket") && unit.active == "active");
        let questions: Vec<Question<'_>> =
            sockets().map(|unit| Question(&unit.path, OUR_SOCKET, "Queues")).collect();
        let mut answers = self.client.ask(&questions)?;
        for unit in sockets() {
            let queues: Vec<(String, u64)> = answers.take().unwrap_or_default();
            let known = queues.into_iter().map(|(_, waiting)| waiting).filter(|waiting| *waiting != u64::MAX);
            if let Some(usage) = usages.get_mut(&unit.name) {
                usage.waiting = known.reduce(u64::saturating_add);
            }
        }
        let used = usages.iter().filter_map(|(unit, usage)| Some((unit.clone(), usage.cpu_usec?))).collect();
        let last = self.last.replace((now, used));
        let mut table =
            Table { units: usages.into_values().filter(Usage::is_known).collect(), ..Table::default() };
        if let Some((then, used)) = last {
            table.measure(now.saturating_duration_since(then), &used);
        }
        Ok(table)
    }
}

impl Usage {
    fn is_known(&self) -> bool {
        self.cpu_usec.is_some()
            || self.memory_bytes.is_some()
            || self.tasks.is_some()
            || self.waiting.is_some()
    }
}

impl Table {
    /// What was used of CPU since; a unit that began anew has used less than before.
    fn measure(&mut self, interval: Duration, before: &BTreeMap<String, u64>) {
        self.interval_usec = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        for usage in &mut self.units {
            let Some(cpu_usec) = usage.cpu_usec else { continue };
            let before = before.get(&usage.unit).copied().unwrap_or(0);
            let used = cpu_usec.checked_sub(before).unwrap_or(cpu_usec);
            let percent = used as f64 * 100.0 / self.interval_usec.max(1) as f64;
            usage.cpu_percent = Some((percent * 10.0).round() / 10.0);
        }
    }

    fn sort(&mut self, by: Sort) {
        let permille = |usage: &Usage| usage.cpu_percent.map(|percent| (percent * 10.0) as u64);
        self.units.sort_by_cached_key(|usage| {
            let key = match by {
                Sort::Cpu => permille(usage).map(|permille| (permille, usage.cpu_usec.unwrap_or(0))),
                Sort::Memory => usage.memory_bytes.map(|bytes| (bytes, 0)),
                Sort::Tasks => usage.tasks.map(|tasks| (tasks, 0)),
                Sort::Waiting => usage.waiting.map(|waiting| (waiting, 0)),
                Sort::Name => None,
            };
            (Reverse(key), usage.unit.clone())
        });
    }
}

impl Answer for Table {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        let columns = self.columns.unwrap_or(usize::MAX);
        if let Some(all) = self.units.iter().find(|usage| usage.unit == ROOT) {
            let totals = format!(
                "{} units; CPU {} %, memory {}, tasks {}",
                self.units.len(),
                percent(all.cpu_percent),
                size(all.memory_bytes),
                count(all.tasks)
            );
            writeln!(page, "{}", totals.chars().take(columns).collect::<String>())?;
        }
        let heads = format!(
            "{:>7} {:>9} {:>7} {:>8} {:>10}  UNIT",
            "CPU %", "MEMORY", "TASKS", "WAITING", "CPU TIME"
        );
        writeln!(page, "{}", page.paint(Style::Bold, &heads))?;
        let units = self.units.iter().filter(|usage| usage.unit != ROOT);
        for usage in units.take(self.lines.unwrap_or(usize::MAX)) {
            let numbers = format!(
                "{:>7} {:>9} {:>7} {:>8} {:>10}  ",
                percent(usage.cpu_percent),
                size(usage.memory_bytes),
                count(usage.tasks),
                count(usage.waiting),
                usage.cpu_usec.map_or("-".to_owned(), |usec| format!("{:.2}", usec as f64 / 1e6)),
            );
            let unit: String = usage.unit.chars().take(columns.saturating_sub(numbers.len())).collect();
            let style = if usage.active_state == "failed" { Style::Bad } else { Style::Plain };
            writeln!(page, "{numbers}{}", page.paint(style, &unit))?;
        }
        Ok(())
    }
}

fn count(number: Option<u64>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

fn percent(percent: Option<f64>) -> String {
    percent.map_or("-".to_owned(), |percent| format!("{percent:.1}"))
}

fn size(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return "-".to_owned() };
    let mut value = bytes as f64;
    let mut units = ["", "K", "M", "G"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1024.0
        && let Some(larger) = units.next()
    {
        value /= 1024.0;
        unit = larger;
    }
    if unit.is_empty() { bytes.to_string() } else { format!("{value:.1}{unit}") }
}

/// Where the cgroups of PID 1 begin.
fn cgroups(client: &mut Client) -> Result<Option<PathBuf>, Failure> {
    let root: String = client.manager("ControlGroup")?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = mounts.lines().map(|line| line.split(' ')).find_map(|mut words| {
        let place = words.nth(1)?;
        (words.next() == Some("cgroup2")).then(|| place.to_owned())
    });
    Ok(mount.map(|mount| Path::new(&mount).join(root.trim_start_matches('/'))))
}

/// Reads the cgroups of all units below a slice's.
fn walk(root: &Path, usages: &mut BTreeMap<String, Usage>) {
    let mut slices = vec![root.to_owned()];
    if let Some(usage) = usages.get_mut(ROOT) {
        read(root, usage);
    }
    while let Some(slice) = slices.pop() {
        // What cannot be read is gone meanwhile.
        for entry in std::fs::read_dir(&slice).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let plain = name.strip_prefix('_').unwrap_or(&name);
            let unit = if usages.contains_key(&name) { &name } else { plain };
            let Some(usage) = usages.get_mut(unit) else { continue };
            read(&entry.path(), usage);
            if unit.ends_with(".slice") {
                slices.push(entry.path());
            }
        }
    }
}

/// What the kernel counts in a cgroup (Documentation/admin-guide/cgroup-v2.rst).
fn read(cgroup: &Path, usage: &mut Usage) {
    let text = |file: &str| std::fs::read_to_string(cgroup.join(file)).ok();
    let number = |file: &str| text(file)?.trim().parse().ok();
    let line = |text: &str| text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
    usage.cpu_usec = text("cpu.stat").and_then(|text| line(&text));
    usage.memory_bytes = number("memory.current");
    usage.tasks = number("pids.current");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(unit: &str, cpu_usec: u64, memory: Option<u64>) -> Usage {
        Usage { unit: unit.to_owned(), cpu_usec: Some(cpu_usec), memory_bytes: memory, ..Usage::default() }
    }

    #[test]
    fn cpu_is_what_was_used_in_the_interval() {
        let units =
            vec![usage("a", 1_500_000, None), usage("again", 100_000, None), usage("new", 50_000, None)];
        let mut table = Table { units, ..Table::default() };
        let before = BTreeMap::from([("a".to_owned(), 1_000_000), ("again".to_owned(), 900_000)]);
        table.measure(Duration::from_secs(1), &before);
        let percent: Vec<_> = table.units.iter().map(|usage| usage.cpu_percent).collect();
        assert_eq!(percent, [Some(50.0), Some(10.0), Some(5.0)]);
    }

    #[test]
    fn most_comes_first_and_what_is_not_known_last() {
        let units =
            vec![usage("a", 0, None), usage("b", 0, Some(1)), usage("c", 0, Some(5)), usage("d", 0, Some(5))];
        let mut table = Table { units, ..Table::default() };
        table.sort(Sort::Memory);
        assert_eq!(table.units.iter().map(|usage| usage.unit.as_str()).collect::<String>(), "cdba");
        table.sort(Sort::Name);
        assert_eq!(table.units.iter().map(|usage| usage.unit.as_str()).collect::<String>(), "abcd");
    }

    #[test]
    fn sizes_are_short() {
        let shown = [None, Some(1023), Some(1536), Some(u64::MAX)].map(size);
        assert_eq!(shown, ["-", "1023", "1.5K", "17179869184.0G"]);
    }
}
