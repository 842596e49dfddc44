//! System calls of process 1 of a container, looked at from outside: for what no kernel here shows otherwise.

use anyhow::{Context, Result, bail};
use muster_tests::{Container, Output, image};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// What is done with system calls.
#[derive(Debug, Clone)]
pub enum Trace {
    /// These (comma separated), of process 1 and of all that it starts, are shown.
    Shown(String),
    /// These, of process 1 alone, fail: what strace(1) takes for `inject=`.
    Failing(String),
}

/// Runs something while system calls of process 1 are traced; what is seen is added to the output.
pub fn during(container: &Container, trace: &Trace, run: impl FnOnce() -> Result<Output>) -> Result<Output> {
    image::need_program("strace", "strace")?;
    let how = match trace {
        Trace::Shown(calls) => vec!["-f".to_string(), "-e".to_string(), format!("trace={calls}")],
        Trace::Failing(calls) => {
            let names = calls.split(':').next().unwrap_or_default();
            let only = format!("trace={names}");
            vec!["-e".to_string(), only, "-e".to_string(), format!("inject={calls}")]
        }
    };
    let mut tracer = Command::new("strace")
        .args(["-s", "256"])
        .args(how)
        .args(["-p", &container.pid().to_string()])
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
