//! Transient units without end: what they leave behind is looked at by whoever ran this.
//!
//! What must stay true: every request gets the answer that it is to get, and nothing of a round is left running or queued
//! when it is over.

use crate::ask_bus::{Body, Manager};
use crate::serve::print;
use anyhow::{Result, bail, ensure};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// After so many rounds the jobs are waited for.
const ROUNDS_AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// In each of `count` rounds: a service that succeeds, one that fails, one without its program, one that is refused, a
/// scope, a socket and a timer.
pub fn run(prefix: &str, count: usize) -> Result<()> {
    let mut manager = Manager::connect()?;
    for round in 0..count {
        let name = |kind: &str, suffix: &str| format!("{prefix}-{kind}-{round}.{suffix}");
        start(&mut manager, &name("ends", "service"), &["/usr/bin/true"], &[])?;
        start(&mut manager, &name("fails", "service"), &["/usr/bin/false"], &[COLLECT])?;
        start(&mut manager, &name("nothing", "service"), &["/no/program"], &[COLLECT])?;
        let refused =
            start(&mut manager, &name("refused", "service"), &["/usr/bin/true"], &[("Type", "oops")]);
        ensure!(refused.is_err(), "a service of no known type was taken");
        scope(&mut manager, &name("scope", "scope"))?;
        let listen = |body: &mut Body| {
            body.property("Listen", "a(ss)", |body| {
                body.array(8, |body| {
                    body.pad(8);
                    body.string("Stream");
                    body.string(&format!("/run/{prefix}-{round}.sock"));
                });
            });
        };
        let timers = |body: &mut Body| {
            body.property("TimersMonotonic", "a(st)", |body| {
                body.array(8, |body| {
                    body.pad(8);
                    body.string("OnActiveSec");
                    body.long(3_600_000_000);
                });
            });
        };
        triggered(&mut manager, &name("unit", "socket"), &name("unit", "service"), listen)?;
        triggered(&mut manager, &name("time", "timer"), &name("time", "service"), timers)?;
        if round % ROUNDS_AT_ONCE == 0 {
            settle(&mut manager)?;
        }
    }
    settle(&mut manager)?;
    print(&format!("started {}\n", count * 7))
}

const COLLECT: (&str, &str) = ("CollectMode", "inactive-or-failed");

pub(crate) fn exec(body: &mut Body, command: &[&str]) {
    body.property("ExecStart", "a(sasb)", |body| {
        body.array(8, |body| {
            body.pad(8);
            body.string(command[0]);
            body.array(4, |body| command.iter().for_each(|word| body.string(word)));
            body.number(0);
        });
    });
}

fn start(manager: &mut Manager, name: &str, command: &[&str], texts: &[(&str, &str)]) -> Result<()> {
    transient(manager, name, None, |body| {
        exec(body, command);
        for (key, value) in texts {
            body.property(key, "s", |body| body.string(value));
        }
    })
}

/// A scope around a process that then ends.
fn scope(manager: &mut Manager, name: &str) -> Result<()> {
    let mut child = Command::new("/usr/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let pid = child.id();
    let done = transient(manager, name, None, |body| {
        body.property("PIDs", "au", |body| body.array(4, |body| body.number(pid)));
    });
    drop(child.stdin.take());
    child.wait()?;
    done
}

/// A unit that would start a service, and is stopped before it does.
fn triggered(
    manager: &mut Manager,
    name: &str,
    service: &str,
    properties: impl FnOnce(&mut Body),
) -> Result<()> {
    transient(manager, name, Some(service), properties)?;
    manager.call_texts("StopUnit", &[name, "replace"]).map(drop)
}

fn transient(
    manager: &mut Manager,
    name: &str,
    service: Option<&str>,
    properties: impl FnOnce(&mut Body),
) -> Result<()> {
    let mut body = Body::default();
    body.string(name);
    body.string("fail");
    body.array(8, properties);
    body.array(8, |body| {
        if let Some(service) = service {
            body.pad(8);
            body.string(service);
            body.array(8, |body| exec(body, &["/usr/bin/true"]));
        }
    });
    manager.call("StartTransientUnit", "ssa(sv)a(sa(sv))", body).map(drop)
}

/// Waits until no job is left.
fn settle(manager: &mut Manager) -> Result<()> {
    let asked = Instant::now();
    while manager.call_texts("ListJobs", &[])?.iter().take(4).any(|byte| *byte != 0) {
        if asked.elapsed() > PATIENCE {
            bail!("jobs do not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
