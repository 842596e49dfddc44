//! The simulator at length: `muster-sim --seeds N [--first N] [--hours H] [--threads N] [--twice N]`, by `cargo xtask sim`.
//! With `--show FILE` the scenario of a file is run with the seed `--first`, and every effect of it printed.
//!
//! Seeds are taken in order until they are used up or the time is; each is run with every strategy. What breaks is printed
//! with its seed and a shrunk scenario, and the run goes on; the exit status says whether anything did.
#![allow(clippy::arithmetic_side_effects, clippy::disallowed_methods)]

use muster_sim::scenario::{Scenario, Strategy, TWICE, hold};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// More would keep others on the machine waiting.
const THREADS_MAX: u64 = 2;
const BAR: u64 = 30;

struct Options {
    seeds: u64,
    first: u64,
    hours: f64,
    threads: u64,
    /// Of how many seeds one is run again, and once more with hand-overs.
    twice: u64,
    show: Option<String>,
}

impl Options {
    fn from_args() -> Result<Options, String> {
        let (hours, threads) = (f64::INFINITY, THREADS_MAX);
        let (seeds, first, twice) = (u64::MAX, 1, TWICE);
        let mut options = Options { seeds, first, hours, threads, twice, show: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let value = args.next().unwrap_or_default();
            let number = || value.parse::<u64>().map_err(|_| format!("{arg} needs a number"));
            match arg.as_str() {
                "--seeds" => options.seeds = number()?,
                "--first" => options.first = number()?,
                "--show" => options.show = Some(value.clone()),
                "--twice" => options.twice = number()?.max(1),
                "--threads" => options.threads = number()?.clamp(1, THREADS_MAX),
                "--hours" => {
                    options.hours = value.parse().map_err(|_| "--hours needs a number".to_owned())?
                }
                _ => return Err(format!("not understood: {arg}")),
            }
        }
        if options.seeds == u64::MAX && options.hours.is_infinite() {
            options.seeds = 1000;
        }
        Ok(options)
    }
}

#[derive(Default)]
struct Progress {
    next: AtomicU64,
    done: AtomicU64,
    events: AtomicU64,
    ended: AtomicBool,
    faults: AtomicU64,
    /// Who prints.
    out: Mutex<()>,
}

fn main() {
    let options = Options::from_args().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        std::process::exit(2)
    });
    if let Some(file) = &options.show {
        show_file(file, options.first);
    }
    // A fault of the manager may be a panic: it is caught, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let (progress, begun) = (Progress::default(), Instant::now());
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..options.threads).map(|_| scope.spawn(|| work(&options, &progress, begun))).collect();
        let shower = scope.spawn(|| show(&options, &progress, begun));
        workers.into_iter().for_each(|worker| drop(worker.join()));
        progress.ended.store(true, Relaxed);
        drop(shower.join());
    });
    println!("{}", line(&options, &progress, begun));
    std::process::exit(i32::from(progress.faults.load(Relaxed) > 0))
}

fn show_file(file: &str, seed: u64) -> ! {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let scenario = text.and_then(|text| Scenario::parse(&text, seed));
    let (trace, broken) = scenario.map_or_else(|error| (Vec::new(), Some(error)), |read| read.shown());
    trace.iter().for_each(|line| println!("{line}"));
    broken.iter().for_each(|fault| println!("broken: {fault}"));
    std::process::exit(i32::from(broken.is_some()))
}

fn work(options: &Options, progress: &Progress, begun: Instant) {
    loop {
        let number = progress.next.fetch_add(1, Relaxed);
        if number >= options.seeds || begun.elapsed().as_secs_f64() > options.hours * 3600.0 {
            return;
        }
        for strategy in Strategy::ALL {
            let seed = options.first + number;
            let ran = std::panic::catch_unwind(|| hold(seed, strategy, options.twice))
                .unwrap_or_else(|_| Err(format!("seed {seed} {strategy:?}: panic")));
            match ran {
                Ok(events) => drop(progress.events.fetch_add(events, Relaxed)),
                Err(fault) => {
                    progress.faults.fetch_add(1, Relaxed);
                    let _out = progress.out.lock();
                    println!("\n{fault}");
                }
            }
        }
        progress.done.fetch_add(1, Relaxed);
    }
}

fn line(options: &Options, progress: &Progress, begun: Instant) -> String {
    let (done, events) = (progress.done.load(Relaxed), progress.events.load(Relaxed));
    let seconds = begun.elapsed().as_secs_f64();
    let by_seeds = done as f64 / options.seeds as f64;
    let share = by_seeds.max(seconds / 3600.0 / options.hours).min(1.0);
    let filled = (share * BAR as f64) as usize;
    let faults = progress.faults.load(Relaxed);
    format!(
        "[{:<30}] {done} seeds in {} strategies, {:.1} M events, {seconds:.0} s, {:.0} seeds/s, {faults} faults",
        "#".repeat(filled),
        Strategy::ALL.len(),
        events as f64 / 1e6,
        done as f64 / seconds.max(0.001),
    )
}

/// On a terminal the line is drawn again and again; elsewhere it comes once a minute.
fn show(options: &Options, progress: &Progress, begun: Instant) {
    let terminal = std::io::stdout().is_terminal();
    let mut last = Instant::now();
    while !progress.ended.load(Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
        if terminal {
            print!("\r{}", line(options, progress, begun));
            let _ = std::io::stdout().flush();
        } else if last.elapsed() > Duration::from_secs(60) {
            last = Instant::now();
            println!("{}", line(options, progress, begun));
        }
    }
    if terminal {
        println!();
    }
}
