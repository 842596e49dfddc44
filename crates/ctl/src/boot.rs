//! `musterctl boot`: what took how long, from the stamps that PID 1 keeps of itself and of each unit.
//!
//! A run of a unit goes from when it left `inactive` to when it was ready: active, or over, for what only does its work.
//! PID 1 keeps the stamps of a unit's last run, so that what began after the boot is left out, and counted.

use crate::client::{Client, Failure, Question};
use crate::page::{Page, Style};
use crate::{Answer, UNIT, chart};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

/// How many of the slowest units are shown.
const SLOWEST: usize = 15;

/// A boot. Times are in microseconds since the start of user space.
#[derive(Serialize)]
pub struct Boot {
    /// What was booted to.
    pub target: String,
    /// What the kernel and the initrd took before; not known in a container.
    pub kernel_usec: Option<u64>,
    /// What user space took; nothing while the boot goes on.
    pub userspace_usec: Option<u64>,
    /// What PID 1 did before the first job.
    pub phases: Vec<Phase>,
    /// In the order in which they began.
    pub units: Vec<Run>,
    /// From the target back: what each waited for.
    pub chain: Vec<String>,
    /// Units that began after the boot, or once more.
    later: Vec<String>,
    #[serde(skip)]
    all: bool,
}

/// Something that PID 1 did.
#[derive(Serialize)]
pub struct Phase {
    /// What.
    pub name: &'static str,
    /// When it began.
    pub from_usec: u64,
    /// When it was done.
    pub to_usec: u64,
}

/// A unit's run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Run {
    /// Whose.
    pub unit: String,
    /// When it left `inactive`.
    pub from_usec: u64,
    /// When it was ready; nothing while it is on its way.
    pub ready_usec: Option<u64>,
    /// How long that took.
    pub took_usec: Option<u64>,
    /// When it was over.
    pub ended_usec: Option<u64>,
    /// Its state now.
    pub active_state: String,
    /// Of the units that it is ordered after, the one that was ready last.
    pub waited_for: Option<String>,
}

impl Run {
    /// The run that stamps tell of: when the unit left `inactive`, became active, left that, and was inactive again.
    fn of(unit: &str, active_state: &str, [left, active, ending, over]: [u64; 4], start: u64) -> Run {
        let since = |usec: u64| Some(usec.saturating_sub(start)).filter(|_| usec >= left);
        Run {
            unit: unit.to_owned(),
            from_usec: left.saturating_sub(start),
            ready_usec: since(active).or(since(over)),
            took_usec: since(active)
                .or(since(over))
                .map(|usec| usec.saturating_sub(left.saturating_sub(start))),
            ended_usec: since(ending).or(since(over)),
            active_state: active_state.to_owned(),
            waited_for: None,
        }
    }
}

/// In the order of [`Run::of`].
const STAMPS: [&str; 4] = [
    "InactiveExitTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "ActiveExitTimestampMonotonic",
    "InactiveEnterTimestampMonotonic",
];

/// What is known of the boot; with a path, the chart is written there.
pub fn boot(all: bool, svg: Option<&Path>) -> Result<Boot, Failure> {
    let mut client = Client::connect()?;
    let start: u64 = client.manager("UserspaceTimestampMonotonic")?;
    let finish: u64 = client.manager("FinishTimestampMonotonic")?;
    // A container's kernel has been up since long before.
    let contained = Path::new("/run/systemd/container").exists();
    let (mut units, orders, later) = runs(&mut client, start, finish)?;
    wait(&mut units, &orders);
    let target = client.default_target()?;
    let boot = Boot {
        kernel_usec: Some(start).filter(|_| !contained),
        userspace_usec: Some(finish.saturating_sub(start)).filter(|_| finish > 0),
        phases: phases(&mut client, start)?,
        chain: chain(&units, &target),
        target,
        units,
        later,
        all,
    };
    if let Some(path) = svg {
        std::fs::write(path, chart::draw(&boot))
            .map_err(|error| Failure::refused(format!("{}: {error}", path.display())))?;
    }
    Ok(boot)
}

fn phases(client: &mut Client, start: u64) -> Result<Vec<Phase>, Failure> {
    let mut phases = Vec::new();
    for (name, property) in [("generators", "Generators"), ("reading units", "UnitsLoad")] {
        let from: u64 = client.manager(&format!("{property}StartTimestampMonotonic"))?;
        let to: u64 = client.manager(&format!("{property}FinishTimestampMonotonic"))?;
        // A reload reads them anew; what the boot took is then not known any more.
        if from >= start && to >= from {
            phases.push(Phase {
                name,
                from_usec: from.saturating_sub(start),
                to_usec: to.saturating_sub(start),
            });
        }
    }
    Ok(phases)
}

/// What each unit is ordered after.
type Orders = BTreeMap<String, Vec<String>>;

/// The runs of the boot in their order, and the units that began later.
fn runs(client: &mut Client, start: u64, finish: u64) -> Result<(Vec<Run>, Orders, Vec<String>), Failure> {
    let listed = client.list("*")?;
    let properties = || STAMPS.into_iter().chain(["After"]);
    let questions: Vec<Question<'_>> = listed
        .iter()
        .flat_map(|unit| properties().map(|property| Question(&unit.path, UNIT, property)))
        .collect();
    let mut answers = client.ask(&questions)?;
    let (mut runs, mut orders, mut later) = (Vec::new(), Orders::new(), Vec::new());
    for unit in &listed {
        let stamps = STAMPS.map(|_| answers.take::<u64>().unwrap_or(0));
        let after = answers.take::<Vec<String>>().unwrap_or_default();
        match stamps {
            [left, ..] if left < start || left == 0 => {}
            [left, ..] if finish > 0 && left > finish => later.push(unit.name.clone()),
            _ => {
                runs.push(Run::of(&unit.name, &unit.active, stamps, start));
                orders.insert(unit.name.clone(), after);
            }
        }
    }
    runs.sort_by(|a, b| (a.from_usec, a.ready_usec, &a.unit).cmp(&(b.from_usec, b.ready_usec, &b.unit)));
    later.sort();
    Ok((runs, orders, later))
}

/// Finds for each run what it waited for.
fn wait(runs: &mut [Run], orders: &Orders) {
    let ready: BTreeMap<String, u64> =
        runs.iter().filter_map(|run| Some((run.unit.clone(), run.ready_usec?))).collect();
    for run in runs {
        let before = orders.get(&run.unit).into_iter().flatten();
        let before = before.filter_map(|name| Some((*ready.get(name)?, name)));
        let last = before.filter(|(usec, name)| *usec <= run.from_usec && **name != run.unit).max();
        run.waited_for = last.map(|(_, name)| name.clone());
    }
}

/// What the target waited for, what that waited for, and so on; without a run of the target, from what was ready last.
fn chain(runs: &[Run], target: &str) -> Vec<String> {
    let by_name: BTreeMap<&str, &Run> = runs.iter().map(|run| (run.unit.as_str(), run)).collect();
    let last = || runs.iter().max_by_key(|run| run.ready_usec).map(|run| run.unit.as_str());
    let mut next = by_name.get(target).map(|run| run.unit.as_str()).or_else(last);
    let mut seen = BTreeSet::new();
    let mut chain = Vec::new();
    while let Some(unit) = next.filter(|unit| seen.insert(*unit)) {
        chain.push(unit.to_owned());
        next = by_name.get(unit).and_then(|run| run.waited_for.as_deref());
    }
    chain
}

fn seconds(usec: u64) -> String {
    format!("{:.3}", usec as f64 / 1e6)
}

impl Answer for Boot {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        self.print_summary(page)?;
        self.print_chain(page)?;
        self.print_slowest(page)?;
        match self.later.len() {
            0 => Ok(()),
            1 => writeln!(page, "\nOne unit began after the boot, or again, and is not shown."),
            count => writeln!(page, "\n{count} units began after the boot, or again, and are not shown."),
        }
    }
}

impl Boot {
    fn print_summary(&self, page: &mut Page<'_>) -> io::Result<()> {
        let done =
            self.userspace_usec.map_or("not done yet".to_owned(), |usec| format!("{} s", seconds(usec)));
        writeln!(page, "{}: {done}", page.paint(Style::Bold, &format!("Boot to {}", self.target)))?;
        if let Some(usec) = self.kernel_usec {
            writeln!(
                page,
                "  {:>8}  the kernel, and the initrd if there is one, before that",
                seconds(usec)
            )?;
        }
        for Phase { name, from_usec, to_usec } in &self.phases {
            writeln!(page, "  {:>8}  {name}", seconds(to_usec.saturating_sub(*from_usec)))?;
        }
        Ok(())
    }

    fn print_chain(&self, page: &mut Page<'_>) -> io::Result<()> {
        writeln!(page, "\n{}", page.paint(Style::Bold, "What it waited for, from the end:"))?;
        writeln!(page, "  {:>8} {:>8}  UNIT", "READY", "TOOK")?;
        let by_name: BTreeMap<&str, &Run> = self.units.iter().map(|run| (run.unit.as_str(), run)).collect();
        for run in self.chain.iter().filter_map(|unit| by_name.get(unit.as_str())) {
            print_run(run, run.ready_usec, page)?;
        }
        Ok(())
    }

    fn print_slowest(&self, page: &mut Page<'_>) -> io::Result<()> {
        let mut runs: Vec<&Run> = self.units.iter().filter(|run| self.all || run.is_work()).collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.took_usec.unwrap_or(u64::MAX)));
        let shown = if self.all { runs.len() } else { SLOWEST };
        let title = match runs.len() > shown {
            true => format!("The slowest of {} units (--all shows all):", runs.len()),
            false => "Units, the slowest first:".to_owned(),
        };
        writeln!(page, "\n{}", page.paint(Style::Bold, &title))?;
        writeln!(page, "  {:>8} {:>8}  UNIT", "BEGAN", "TOOK")?;
        for run in runs.iter().take(shown) {
            print_run(run, Some(run.from_usec), page)?;
        }
        Ok(())
    }
}

impl Run {
    /// Whether something is done at its start.
    pub fn is_work(&self) -> bool {
        let idle = [".slice", ".scope", ".device", ".target"];
        !idle.iter().any(|suffix| self.unit.ends_with(suffix))
    }
}

fn print_run(run: &Run, at: Option<u64>, page: &mut Page<'_>) -> io::Result<()> {
    let shown = |usec: Option<u64>| usec.map_or("-".to_owned(), seconds);
    let unit = match run.active_state.as_str() {
        "failed" | "activating" => page.state(&run.active_state).to_string(),
        _ => String::new(),
    };
    let gap = if unit.is_empty() { "" } else { " " };
    writeln!(page, "  {:>8} {:>8}  {}{gap}{unit}", shown(at), shown(run.took_usec), run.unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_ready_when_it_is_active_or_over() {
        let run = |stamps| {
            let run = Run::of("a.service", "active", stamps, 100);
            (run.from_usec, run.ready_usec, run.ended_usec)
        };
        assert_eq!(run([150, 170, 0, 0]), (50, Some(70), None));
        assert_eq!(run([150, 170, 180, 190]), (50, Some(70), Some(80)));
        // A oneshot is never active; stamps of a run before count for nothing.
        assert_eq!(run([150, 0, 0, 160]), (50, Some(60), Some(60)));
        assert_eq!(run([150, 120, 130, 140]), (50, None, None));
    }

    #[test]
    fn what_waits_for_what() {
        let run = |unit: &str, from, ready| Run {
            unit: unit.to_owned(),
            from_usec: from,
            ready_usec: Some(ready),
            ..Run::default()
        };
        let mut runs = [
            run("a.service", 1, 5),
            run("b.service", 1, 9),
            run("c.service", 9, 10),
            run("d.target", 10, 10),
        ];
        let order =
            |unit: &str, after: &[&str]| (unit.to_owned(), after.iter().map(|a| (*a).to_owned()).collect());
        let orders = Orders::from([
            order("c.service", &["a.service", "b.service", "x.service"]),
            order("d.target", &["c.service", "a.service"]),
        ]);
        wait(&mut runs, &orders);
        assert_eq!(chain(&runs, "d.target"), ["d.target", "c.service", "b.service"]);
        assert_eq!(chain(&runs, "other.target"), ["d.target", "c.service", "b.service"]);
    }
}
