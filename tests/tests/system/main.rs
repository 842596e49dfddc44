//! The tests of whole systems: each case boots a container of its own (some share a machine) and looks at it, with Debian's
//! own tools.
//!
//!     cargo test -p muster-tests --test system -- [--init muster|systemd] [--jobs N] [--beside FILE] [--list] [--show FILE] [NAME...]
//!
//! A case runs when its name contains one of the given names. With `--init systemd` the same cases run under systemd, the
//! oracle: a case that fails there is wrong. Most cases are text, below `tests/cases`; see `fixture.rs` for their language.
//! With `--beside FILE` one of the jobs begins when nobody holds the lock of that file: something else runs until then.
//! With `--connections COUNT` the case of load makes as many.
//! With `--scenarios FIRST COUNT` generated scenarios are run under both instead (`scenarios.rs`).
//! With `--show` the cases of that file are run and what their commands say is printed: for looking at both, one after the
//! other, before a case is written.
//! A case that fails under the oracle is run once more; under muster never. What the oracle answered in the machine is kept
//! (`asked.rs`): such a case is asked again when its text or systemd's version is another, or when it is named.
//! A case that cannot run here is skipped, its reason printed; a skip is never a pass. The last line is the count.

mod asked;
mod bad_input;
mod boot;
mod docs;
mod fixture;
mod ground;
mod load;
mod oci;
mod properties;
mod scenarios;
mod strangers;
mod table;
mod trace;

use anyhow::{Context, Result};
use ground::{Ground, Init};
use muster_tests::{Container, cgroup};
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// What a case that did not fail has to say.
pub enum Outcome {
    /// All was as it should be.
    Passed,
    /// It could not run, for this reason.
    Skipped(String),
}

/// A named test of one or more containers.
pub struct Case {
    name: String,
    /// Whether it needs the machine, which is for one case at a time.
    machine: bool,
    run: Box<dyn Fn(&Ground) -> Result<Outcome> + Send>,
}

impl Case {
    /// A case that is code.
    pub fn new(name: &str, run: impl Fn(&Ground) -> Result<Outcome> + Send + 'static) -> Self {
        Self { name: name.to_string(), machine: false, run: Box::new(run) }
    }

    /// The same in the machine, if it is one of those.
    pub fn in_machine(self, machine: bool) -> Self {
        Self { machine, ..self }
    }
}

struct Options {
    init: Init,
    /// Cases at a time; in a whole run one more after those of the machine, which is translated and keeps a processor busy.
    jobs: usize,
    beside: Option<PathBuf>,
    list: bool,
    show: Option<PathBuf>,
    scenarios: Option<(u64, u64)>,
    connections: u32,
    names: Vec<String>,
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            init: Init::Muster,
            jobs: 2,
            beside: None,
            list: false,
            show: None,
            scenarios: None,
            connections: load::CONNECTIONS,
            names: Vec::new(),
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--init" => options.init = args.next().context("--init needs a name")?.parse()?,
                "--jobs" => options.jobs = args.next().context("--jobs needs a number")?.parse()?,
                "--beside" => options.beside = Some(args.next().context("--beside needs a file")?.into()),
                "--show" => options.show = Some(args.next().context("--show needs a file")?.into()),
                "--scenarios" => {
                    let mut number = || args.next().context("--scenarios needs two numbers");
                    options.scenarios = Some((number()?.parse()?, number()?.parse()?));
                }
                "--connections" => {
                    options.connections = args.next().context("--connections needs a number")?.parse()?;
                }
                "--list" => options.list = true,
                name => options.names.push(name.to_string()),
            }
        }
        Ok(options)
    }

    fn selects(&self, case: &Case) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| case.name.contains(name))
    }
}

#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

fn main() -> Result<()> {
    muster_tests::hook();
    let options = Options::from_args(std::env::args().skip(1))?;
    if let Some((first, count)) = options.scenarios {
        Ground::build(Init::Muster)?;
        std::process::exit(scenarios::at_length(first, count)?);
    }
    let mut cases = match &options.show {
        Some(file) => fixture::shown(file)?,
        None => all_cases(&options)?,
    };
    cases.retain(|case| options.selects(case));
    if options.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    // What does not compile is a failure, not a reason to skip.
    Ground::build(options.init)?;
    let count = run_all(cases, &options);
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    std::process::exit(i32::from(count.failed > 0))
}

fn all_cases(options: &Options) -> Result<Vec<Case>> {
    let mut cases = boot::cases();
    cases.extend(bad_input::cases());
    cases.extend(docs::cases()?);
    cases.extend(table::cases());
    cases.extend(load::cases(options.connections));
    cases.extend(oci::cases());
    cases.extend(properties::cases(options.init));
    cases.extend(scenarios::cases(options.init));
    cases.extend(strangers::cases());
    cases.push(fixture::every_row());
    cases.extend(fixture::cases()?);
    Ok(cases)
}

/// Runs the cases; one reason that holds for all (no root, no image) skips them all, each counted.
fn run_all(cases: Vec<Case>, options: &Options) -> Count {
    cgroup::sweep();
    let ground = match Container::unsupported() {
        Some(reason) => Err(reason),
        None => {
            Ground::prepare(options.init, !options.names.is_empty()).map_err(|error| format!("{error:#}"))
        }
    };
    let ground = match ground {
        Ok(ground) => ground,
        Err(reason) => {
            cases.iter().for_each(|case| println!("SKIP   {}: {reason}", case.name));
            return Count { skipped: cases.len(), ..Count::default() };
        }
    };
    let (machine, container): (VecDeque<Case>, VecDeque<Case>) =
        cases.into_iter().partition(|case| case.machine);
    let (machine, container) = (Mutex::new(machine), Mutex::new(container));
    let count = Mutex::new(Count::default());
    let job = || work(&container, &count, &ground);
    std::thread::scope(|scope| {
        for _ in 1..options.jobs {
            scope.spawn(job);
        }
        if let Some(error) = options.beside.as_deref().and_then(|lock| wait_for(lock).err()) {
            println!("{error:#}");
        }
        // One after the other: it keeps one processor busy. What comes after it waits now and then: in a whole run, one job more.
        work(&machine, &count, &ground);
        if options.names.is_empty() {
            scope.spawn(job);
        }
        job();
    });
    count.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Until nobody holds its lock.
fn wait_for(lock: &Path) -> Result<()> {
    File::open(lock)?.lock_shared().with_context(|| lock.display().to_string())
}

/// Runs cases until none is left.
fn work(queue: &Mutex<VecDeque<Case>>, count: &Mutex<Count>, ground: &Ground) {
    let next = || queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front();
    while let Some(case) = next() {
        let started = Instant::now();
        let result = (case.run)(ground).or_else(|error| once_more(&case, ground, error));
        let seconds = started.elapsed().as_secs_f64();
        let mut count = count.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match result {
            Ok(Outcome::Passed) => {
                count.passed += 1;
                println!("ok     {} ({seconds:.1} s)", case.name);
            }
            Ok(Outcome::Skipped(reason)) => {
                count.skipped += 1;
                println!("SKIP   {}: {reason}", case.name);
            }
            Err(error) => {
                count.failed += 1;
                println!("FAILED {} ({seconds:.1} s)\n{}", case.name, indent(&format!("{error:#}")));
            }
        }
    }
}

/// A case that failed under the oracle is run once more, and its first failure is printed: systemd has races of its own, and
/// what is tested there is the case. A failure under muster is final.
fn once_more(case: &Case, ground: &Ground, error: anyhow::Error) -> Result<Outcome> {
    if ground.init != Init::Systemd {
        return Err(error);
    }
    println!("again  {}, which failed\n{}", case.name, indent(&format!("{error:#}")));
    (case.run)(ground)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("       {line}\n")).collect()
}
