//! System calls of process 1 of a container, looked at from outside: for what no kernel here shows otherwise.

use anyhow::{Context, Result, bail};
use muster_tests::{Container, Output, image};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Runs something while these calls (comma separated) of process 1 and of all that it starts are traced; the trace is added
/// to the output.
pub fn during(container: &Container, calls: &str, run: impl FnOnce() -> Result<Output>) -> Result<Output> {
    image::need_program("strace", "strace")?;
    let mut tracer = Command::new("strace")
        .args(["-f", "-s", "256", "-e", &format!("trace={calls}"), "-p", &container.pid().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting strace")?;
    let lines = BufReader::new(tracer.stderr.take().context("strace's stderr")?).lines();
    let (attached, is_attached) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || collect(lines, attached));
    let output = is_attached.recv().context("strace did not attach").and_then(|()| run());
    stop(&mut tracer)?;
    let Ok(traced) = reader.join() else { bail!("the trace could not be read") };
    let output = output?;
    Ok(Output { stdout: format!("{}{traced}", output.stdout), ..output })
}

/// Reads the trace to its end, and tells when it begins.
fn collect(
    lines: impl Iterator<Item = std::io::Result<String>>,
    attached: std::sync::mpsc::Sender<()>,
) -> String {
    let mut traced = String::new();
    for line in lines.map_while(Result::ok) {
        if line.ends_with("attached") {
            // Nobody waits for later processes.
            let _ = attached.send(());
        }
        traced += &line;
        traced.push('\n');
    }
    traced
}

fn stop(tracer: &mut Child) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(tracer.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    tracer.wait()?;
    Ok(())
}
