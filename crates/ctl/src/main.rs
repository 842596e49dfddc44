//! `musterctl`: what muster can tell beyond what `systemctl` asks. It talks to PID 1's private socket, and reads.
//!
//! Reading order: `main`, `client` (the connection), one function a command; `verify` needs no connection. What a command
//! found out is an [`Answer`]: printed for people, or with `--json` as one JSON value on a line, whose keys are the names of
//! the fields of its type.
#![forbid(unsafe_code)]

mod client;
mod plan;
mod verify;

use client::{Client, Failure};
use muster_unit::table::{Effect, Row, rows};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "musterctl [--json] COMMAND
  why UNIT     why a unit is in its state: the last causes, and what of its file is not applied or not understood
  why-not UNIT what keeps a unit from being up: its file, a job and what that waits for, conditions, limits, other units
  plan VERB UNIT
               the jobs that start, stop, restart or isolate would bring, in order, with what asks for each, and cycles
               with the lines that make them; nothing is run
  sockets      every listening address: what waits there, what was accepted and refused, what it starts, and below it its
               options as the kernel has them
  ping [COUNT] how long PID 1 takes to answer, asked a hundred times a second: median, 99 % and longest, in microseconds
  verify FILE… what PID 1 would say of these unit files: code, place, the line, what was expected; status 1 if anything
  coverage     every directive, and whether it has an effect in this version
  --version    the version";

/// What a command found out.
trait Answer: Serialize {
    /// For people.
    fn print(&self, out: &mut dyn Write) -> io::Result<()>;
    /// Whether the exit status is 0.
    fn is_good(&self) -> bool {
        true
    }
}

/// Where answers go, and how.
struct Show {
    json: bool,
}

impl Show {
    fn answer(&self, answer: &impl Answer) -> Result<ExitCode, Failure> {
        let mut out = io::stdout().lock();
        match self.json {
            true => writeln!(out, "{}", serde_json::to_string(answer).map_err(io::Error::from)?)?,
            false => answer.print(&mut out)?,
        }
        Ok(if answer.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|word| word == "--json");
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--json").collect();
    match command(&words, &Show { json }) {
        Ok(code) => code,
        Err(Failure(text)) => {
            eprintln!("musterctl: {text}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[&str], show: &Show) -> Result<ExitCode, Failure> {
    match words {
        ["why", unit] => show.answer(&why(unit)?),
        ["why-not", unit] => show.answer(&plan::why_not(unit)?),
        ["plan", verb @ ("start" | "stop" | "restart" | "isolate"), unit] => {
            let plan = plan::plan(verb, unit)?;
            let code = show.answer(&plan)?;
            match plan.refused {
                Some(why) => Err(Failure(format!("this would be refused: {why}"))),
                None => Ok(code),
            }
        }
        ["sockets"] => show.answer(&sockets()?),
        ["ping"] => show.answer(&ping(100)?),
        ["ping", count] => {
            let count = count.parse().map_err(|_| Failure(format!("'{count}' is no number")))?;
            show.answer(&ping(count)?)
        }
        ["verify", files @ ..] if !files.is_empty() => show.answer(&verify::verify(files)),
        ["coverage"] => show.answer(&Coverage(rows().into_iter().map(Covered::from).collect())),
        ["--version"] => show.answer(&Version { version: env!("CARGO_PKG_VERSION") }),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(Failure(format!("not understood\n{USAGE}"))),
    }
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

impl Answer for Version {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "musterctl {}", self.version)
    }
}

const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SOCKET: &str = "org.freedesktop.systemd1.Socket";
const OUR_UNIT: &str = "org.muster1.Unit";
const OUR_SOCKET: &str = "org.muster1.Socket";

/// Why a unit is in its state.
#[derive(Serialize)]
struct Why {
    unit: String,
    load_state: String,
    active_state: String,
    sub_state: String,
    causes: Vec<Cause>,
    /// What was not understood in its files.
    diagnostics: Vec<String>,
    /// What is set in its files, and without effect.
    not_applied: Vec<String>,
}

#[derive(Serialize)]
struct Cause {
    /// `CLOCK_MONOTONIC`, microseconds.
    monotonic_usec: u64,
    text: String,
}

fn why(unit: &str) -> Result<Why, Failure> {
    let mut client = Client::connect()?;
    let path = client.load_unit(unit)?;
    let causes: Vec<(u64, String)> = client.get(&path, OUR_UNIT, "Causes")?;
    let cause = |(monotonic_usec, text)| Cause { monotonic_usec, text };
    Ok(Why {
        unit: unit.to_owned(),
        load_state: client.get(&path, UNIT, "LoadState")?,
        active_state: client.get(&path, UNIT, "ActiveState")?,
        sub_state: client.get(&path, UNIT, "SubState")?,
        causes: causes.into_iter().map(cause).collect(),
        diagnostics: client.get(&path, OUR_UNIT, "Diagnostics")?,
        not_applied: client.get(&path, OUR_UNIT, "NotApplied")?,
    })
}

impl Answer for Why {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}: {}, {} ({})", self.unit, self.load_state, self.active_state, self.sub_state)?;
        if !self.causes.is_empty() {
            writeln!(out, "\nWhat happened to it, in seconds since the kernel started:")?;
        }
        for Cause { monotonic_usec, text } in &self.causes {
            writeln!(out, "  {:>12.6}  {text}", *monotonic_usec as f64 / 1e6)?;
        }
        for (title, lines) in [
            ("Not understood in its files:", &self.diagnostics),
            ("Set in its files, and without effect in this version:", &self.not_applied),
        ] {
            if !lines.is_empty() {
                writeln!(out, "\n{title}")?;
            }
            for line in lines {
                writeln!(out, "  {line}")?;
            }
        }
        Ok(())
    }
}

/// One listening address.
#[derive(Serialize)]
struct Listening {
    address: String,
    /// Connections or bytes that wait in the kernel; nothing where it does not say.
    waiting: Option<u64>,
    accepted: u32,
    refused: u32,
    failed: u64,
    open: u32,
    pauses: u64,
    unit: String,
    /// The units that it starts; none with `Accept=yes`, which starts an instance for each connection.
    starts: Vec<String>,
    accept: bool,
    /// Options of the descriptor, as the kernel has them.
    options: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Sockets(Vec<Listening>);

fn sockets() -> Result<Sockets, Failure> {
    let mut client = Client::connect()?;
    let mut all = Vec::new();
    for unit in client.units_of("*.socket")? {
        let path = client.load_unit(&unit)?;
        let queues: Vec<(String, u64)> = client.get(&path, OUR_SOCKET, "Queues")?;
        let options: Vec<(String, Vec<(String, String)>)> = client.get(&path, OUR_SOCKET, "Options")?;
        let mut count = |name: &str| client.get::<u32>(&path, SOCKET, name);
        let (accepted, refused, open) = (count("NAccepted")?, count("NRefused")?, count("NConnections")?);
        let mut count = |name: &str| client.get::<u64>(&path, OUR_SOCKET, name);
        let (failed, pauses) = (count("Failures")?, count("Pauses")?);
        let accept: bool = client.get(&path, SOCKET, "Accept")?;
        let starts: Vec<String> = if accept { Vec::new() } else { client.get(&path, UNIT, "Triggers")? };
        for ((address, waiting), (_, options)) in queues.into_iter().zip(options) {
            all.push(Listening {
                address,
                waiting: (waiting != u64::MAX).then_some(waiting),
                accepted,
                refused,
                failed,
                open,
                pauses,
                unit: unit.clone(),
                starts: starts.clone(),
                accept,
                options: options.into_iter().collect(),
            });
        }
    }
    Ok(Sockets(all))
}

impl Answer for Sockets {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<40} {:>8} {:>9} {:>8} {:>7} {:>7} {:>7}  {:<30} STARTS",
            "ADDRESS", "WAITING", "ACCEPTED", "REFUSED", "FAILED", "OPEN", "PAUSES", "UNIT"
        )?;
        for one in &self.0 {
            let waiting = one.waiting.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let starts = if one.accept { "an instance each".to_owned() } else { one.starts.join(" ") };
            let Listening { address, accepted, refused, failed, open, pauses, unit, .. } = one;
            writeln!(
                out,
                "{address:<40} {waiting:>8} {accepted:>9} {refused:>8} {failed:>7} {open:>7} {pauses:>7}  {unit:<30} {starts}"
            )?;
            let options: Vec<String> =
                one.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
            if !options.is_empty() {
                writeln!(out, "    {}", options.join(" "))?;
            }
        }
        Ok(())
    }
}

/// How long PID 1 takes to answer, in microseconds.
#[derive(Serialize)]
struct Ping {
    median_usec: u64,
    /// Of a hundred answers, all but the slowest one take no longer.
    p99_usec: u64,
    longest_usec: u64,
}

fn ping(count: usize) -> Result<Ping, Failure> {
    let mut client = Client::connect()?;
    let mut times = Vec::new();
    for _ in 0..count {
        let asked = Instant::now();
        client.load_unit("init.scope")?;
        times.push(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        std::thread::sleep(Duration::from_millis(10));
    }
    times.sort_unstable();
    let at = |hundredths: usize| {
        let index = times.len().saturating_mul(hundredths) / 100;
        times.get(index).copied().unwrap_or_default()
    };
    let longest_usec = times.last().copied().unwrap_or_default();
    Ok(Ping { median_usec: at(50), p99_usec: at(99), longest_usec })
}

impl Answer for Ping {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} {} {}", self.median_usec, self.p99_usec, self.longest_usec)
    }
}

/// A directive, and whether it has an effect.
#[derive(Serialize)]
struct Covered {
    section: &'static str,
    directive: &'static str,
    effect: &'static str,
}

impl From<Row> for Covered {
    fn from(row: Row) -> Covered {
        let effect = match row.effect {
            Effect::Applied => "applied",
            Effect::Stored => "stored",
            Effect::Ignored => "ignored",
        };
        Covered { section: row.section, directive: row.name, effect }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Coverage(Vec<Covered>);

impl Answer for Coverage {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for Covered { section, directive, effect } in &self.0 {
            let count = counts.entry(effect).or_default();
            *count = count.saturating_add(1);
            writeln!(out, "{section:<12} {directive:<40} {effect}")?;
        }
        for (word, count) in counts {
            writeln!(out, "{count} {word}")?;
        }
        Ok(())
    }
}
