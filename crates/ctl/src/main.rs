//! `musterctl`: what muster can tell beyond what `systemctl` asks. It talks to PID 1's private socket, and reads.
//!
//! Reading order: `main`, `client` (the connection), one function a command; `verify` needs no connection.
#![forbid(unsafe_code)]

mod client;
mod plan;
mod verify;

use client::{Client, Failure};
use muster_unit::table::{Effect, rows};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "musterctl COMMAND
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

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut out = io::stdout().lock();
    let done = match words.as_slice() {
        ["why", unit] => why(unit, &mut out),
        ["why-not", unit] => plan::why_not(unit, &mut out),
        ["plan", verb @ ("start" | "stop" | "restart" | "isolate"), unit] => plan::plan(verb, unit, &mut out),
        ["sockets"] => sockets(&mut out),
        ["ping"] => ping(100, &mut out),
        ["ping", count] => match count.parse() {
            Ok(count) => ping(count, &mut out),
            Err(_) => Err(Failure(format!("'{count}' is no number"))),
        },
        ["verify", files @ ..] if !files.is_empty() => match verify::verify(files, &mut out) {
            Ok(false) => return ExitCode::FAILURE,
            done => done.map(drop).map_err(Failure::from),
        },
        ["coverage"] => coverage(&mut out).map_err(Failure::from),
        ["--version"] => writeln!(out, "musterctl {}", env!("CARGO_PKG_VERSION")).map_err(Failure::from),
        ["--help" | "-h" | "help"] => writeln!(out, "{USAGE}").map_err(Failure::from),
        _ => Err(Failure(format!("not understood\n{USAGE}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(text)) => {
            eprintln!("musterctl: {text}");
            ExitCode::FAILURE
        }
    }
}

const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SOCKET: &str = "org.freedesktop.systemd1.Socket";
const OUR_UNIT: &str = "org.muster1.Unit";
const OUR_SOCKET: &str = "org.muster1.Socket";

fn why(unit: &str, out: &mut impl Write) -> Result<(), Failure> {
    let mut client = Client::connect()?;
    let path = client.load_unit(unit)?;
    let text = |client: &mut Client, name: &str| client.get::<String>(&path, UNIT, name);
    let (load, active, sub) =
        (text(&mut client, "LoadState")?, text(&mut client, "ActiveState")?, text(&mut client, "SubState")?);
    writeln!(out, "{unit}: {load}, {active} ({sub})")?;
    let causes: Vec<(u64, String)> = client.get(&path, OUR_UNIT, "Causes")?;
    if !causes.is_empty() {
        writeln!(out, "\nWhat happened to it, in seconds since the kernel started:")?;
    }
    for (usec, cause) in causes {
        writeln!(out, "  {:>12.6}  {cause}", usec as f64 / 1e6)?;
    }
    for (title, name) in [
        ("Not understood in its files:", "Diagnostics"),
        ("Set in its files, and without effect in this version:", "NotApplied"),
    ] {
        let lines: Vec<String> = client.get(&path, OUR_UNIT, name)?;
        if !lines.is_empty() {
            writeln!(out, "\n{title}")?;
        }
        for line in lines {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

fn sockets(out: &mut impl Write) -> Result<(), Failure> {
    let mut client = Client::connect()?;
    writeln!(
        out,
        "{:<40} {:>8} {:>9} {:>8} {:>7} {:>7} {:>7}  {:<30} STARTS",
        "ADDRESS", "WAITING", "ACCEPTED", "REFUSED", "FAILED", "OPEN", "PAUSES", "UNIT"
    )?;
    for unit in client.units_of("*.socket")? {
        let path = client.load_unit(&unit)?;
        let queues: Vec<(String, u64)> = client.get(&path, OUR_SOCKET, "Queues")?;
        let options: Vec<(String, Vec<(String, String)>)> = client.get(&path, OUR_SOCKET, "Options")?;
        let mut count = |name: &str| client.get::<u32>(&path, SOCKET, name);
        let (accepted, refused, open) = (count("NAccepted")?, count("NRefused")?, count("NConnections")?);
        let mut count = |name: &str| client.get::<u64>(&path, OUR_SOCKET, name);
        let (failed, pauses) = (count("Failures")?, count("Pauses")?);
        let accept: bool = client.get(&path, SOCKET, "Accept")?;
        let starts: Vec<String> = client.get(&path, UNIT, "Triggers")?;
        let starts = if accept { "an instance each".to_owned() } else { starts.join(" ") };
        for ((address, waiting), (_, options)) in queues.into_iter().zip(options) {
            let waiting = if waiting == u64::MAX { "-".to_owned() } else { waiting.to_string() };
            writeln!(
                out,
                "{address:<40} {waiting:>8} {accepted:>9} {refused:>8} {failed:>7} {open:>7} {pauses:>7}  {unit:<30} {starts}"
            )?;
            let options: Vec<String> =
                options.iter().map(|(name, value)| format!("{name}={value}")).collect();
            if !options.is_empty() {
                writeln!(out, "    {}", options.join(" "))?;
            }
        }
    }
    Ok(())
}

fn ping(count: usize, out: &mut impl Write) -> Result<(), Failure> {
    let mut client = Client::connect()?;
    let mut times = Vec::new();
    for _ in 0..count {
        let asked = Instant::now();
        client.load_unit("init.scope")?;
        times.push(asked.elapsed().as_micros());
        std::thread::sleep(Duration::from_millis(10));
    }
    times.sort_unstable();
    let at = |hundredths: usize| {
        let index = times.len().saturating_mul(hundredths) / 100;
        times.get(index).copied().unwrap_or_default()
    };
    Ok(writeln!(out, "{} {} {}", at(50), at(99), times.last().copied().unwrap_or_default())?)
}

fn coverage(out: &mut impl Write) -> io::Result<()> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows() {
        let word = match row.effect {
            Effect::Applied => "applied",
            Effect::Stored => "stored",
            Effect::Ignored => "ignored",
        };
        let count = counts.entry(word).or_default();
        *count = count.saturating_add(1);
        writeln!(out, "{:<12} {:<40} {word}", row.section, row.name)?;
    }
    for (word, count) in counts {
        writeln!(out, "{count} {word}")?;
    }
    Ok(())
}
