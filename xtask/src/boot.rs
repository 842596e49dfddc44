//! `cargo xtask boot`: an image as a container, its console on ours.

use crate::prompt;
use anyhow::{Result, bail};
use muster_tests::{Container, Exit, cgroup, image};
use std::path::Path;
use std::time::{Duration, Instant};

const BOOT_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(30);

/// The small image: boots, asks the demo, then a prompt or the end.
pub fn small(with_prompt: bool) -> Result<i32> {
    eprintln!("building");
    image::build_programs()?;
    let mut container = ready(&image::small()?)?.init("/sbin/init").echo(true).spawn()?;
    let answer = ask_demo(&container)?;
    println!("\nthe demo, started by a connection to 127.0.0.1:7007, says:\n{answer}");
    if with_prompt {
        prompt::small(&container)?;
    }
    end(&mut container, None)
}

/// The Debian image: boots to its default target, then a shell or the end.
pub fn debian(with_prompt: bool) -> Result<i32> {
    eprintln!("building");
    image::build_programs()?;
    let mut builder = ready(&image::debian()?)?.init(image::MUSTER).echo(true);
    for (from, to) in image::installed_files() {
        builder = builder.copy(&from, &to);
    }
    let mut container = builder.spawn()?;
    container.until(BOOT_LIMIT, "systemctl is-system-running | grep -qxE 'running|degraded'")?;
    let seconds = container.started().elapsed().as_secs_f64();
    let state = container
        .sh("systemctl is-system-running; systemctl --failed --no-legend; curl -sI localhost | head -1")?;
    println!("\nbooted in {seconds:.1} s; system state, failed units, and nginx's answer:\n{}", state.stdout);
    if with_prompt {
        println!("a shell in the container; leave it to end the container");
        container.interact(&["/bin/bash", "-l"])?;
    }
    end(&mut container, Some(&["systemctl", "exit", "0"]))
}

/// A description of a container over this root, once it is clear that containers work.
fn ready(root: &Path) -> Result<muster_tests::Builder> {
    if let Some(reason) = Container::unsupported() {
        bail!("cannot boot a container: {reason}");
    }
    cgroup::sweep();
    Ok(Container::builder(root))
}

fn ask_demo(container: &Container) -> Result<String> {
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        let output = container.exec(&[image::DEMO, "ask", "127.0.0.1:7007"])?;
        if output.code == 0 && !output.stdout.is_empty() {
            return Ok(output.stdout);
        }
        if Instant::now() > deadline {
            bail!("the demo does not answer: {}", output.stderr);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends the container by a command of its own, or by the signal that every init after systemd(1) takes as poweroff.target;
/// shows how it ended.
fn end(container: &mut Container, command: Option<&[&str]>) -> Result<i32> {
    let told = command.is_some_and(|command| container.exec(command).is_ok_and(|output| output.code == 0));
    if !told {
        container.signal_realtime(4)?;
    }
    let exit = container.wait_exit(END_LIMIT)?;
    match exit {
        Exit::Code(code) => println!("\nthe container ended with exit status {code}"),
        Exit::Signal(2) => println!("\nthe container powered off"),
        Exit::Signal(1) => println!("\nthe container asked for a reboot"),
        Exit::Signal(signal) => println!("\nthe container was killed by signal {signal}"),
    }
    Ok(match exit {
        Exit::Code(code) => code,
        Exit::Signal(1 | 2) => 0,
        Exit::Signal(signal) => 128 + signal,
    })
}
