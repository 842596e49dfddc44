//! Bad input of every origin: process 1 stays, the culprit is named, the rest runs.

use crate::ground::{Ground, basic, booted};
use crate::{Case, Outcome};
use anyhow::{Result, ensure};
use muster_tests::{Container, image};
use nix::sys::stat::Mode;
use std::path::Path;
use std::time::Duration;

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("bad/unit-files", unit_files),
        Case::new("bad/bus-peers", bus_peers),
        Case::new("bad/idle-peers", idle_peers),
        Case::new("bad/notify", notify),
        Case::new("bad/killed-daemons", killed_daemons),
    ]
}

/// Process 1 lives and does its work: a unit can be started, and its end is seen.
fn well(container: &Container) -> Result<()> {
    container
        .sh("systemctl daemon-reload && systemctl start well.service && systemctl is-active well.service")?
        .ok()?;
    container.sh("systemctl stop well.service")?.ok()?;
    Ok(())
}

const WELL: (&str, &str) = (
    "etc/systemd/system/well.service",
    "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
);

/// A directory, a dangling link, a FIFO, 10 MB in one line, and noise, as unit files.
fn unit_files(ground: &Ground) -> Result<Outcome> {
    let at = |name: &str| format!("etc/systemd/system/{name}.service");
    let noise: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let long = format!("[Service]\nExecStart=/bin/true {}\n", "x".repeat(10_000_000));
    let fifo = |path: &Path| Ok(nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o644))?);
    let builder = basic(ground.debian())
        .file(WELL.0, WELL.1)
        .change(&at("directory"), |path| std::fs::create_dir(path))
        .link(&at("dangling"), "/nowhere.service")
        .change(&at("fifo"), fifo)
        .file(&at("long"), long)
        .file(&at("noise"), noise);
    let container = booted(builder)?;
    for name in ["directory", "dangling", "fifo", "long", "noise"] {
        let output = container.exec(&["systemctl", "start", &format!("{name}.service")])?;
        ensure!(output.code != 0, "{name}.service was started");
        ensure!(output.stderr.contains(&format!("{name}.service")), "{name} is not named: {}", output.stderr);
    }
    well(&container)?;
    Ok(Outcome::Passed)
}

/// Peers of the private bus socket that speak no D-Bus.
fn bus_peers(ground: &Ground) -> Result<Outcome> {
    const PRIVATE: &str = "/run/systemd/private";
    // NUL, "AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n": a peer that is let in, and then misbehaves.
    const HELLO: &str = "00415554482045585445524e414c0d0a444154410d0a424547494e0d0a";
    let huge = format!("{HELLO}6c01000100ffffff0100000000ffffff");
    let endless = format!("00{}", "41".repeat(60_000));
    let container = booted(basic(ground.debian()).file(WELL.0, WELL.1))?;
    for (what, hex, step) in [
        ("a lone newline", "0a", "1"),
        ("a newline after NUL", "000a", "1"),
        ("a huge announced length", huge.as_str(), "999"),
        ("one byte at a time", HELLO, "1"),
        ("an endless line", endless.as_str(), "4096"),
    ] {
        let output = container.exec(&[image::DEMO, "hex", PRIVATE, hex, step])?;
        ensure!(output.code == 0, "{what}: {}", output.stderr);
        well(&container)?;
    }
    container.exec(&[image::DEMO, "forge", PRIVATE, "200"])?;
    well(&container)?;
    Ok(Outcome::Passed)
}

/// 500 connections that say nothing, and one that works beside them.
fn idle_peers(ground: &Ground) -> Result<Outcome> {
    let container = booted(basic(ground.debian()).file(WELL.0, WELL.1))?;
    let peers = container.start(&[image::DEMO, "peers", "/run/systemd/private", "500", "5"])?;
    std::thread::sleep(Duration::from_secs(1));
    well(&container)?;
    let held = peers.wait(Duration::from_secs(60))?.ok()?;
    ensure!(held.trim() == "500", "only {held} could connect");
    well(&container)?;
    Ok(Outcome::Passed)
}

/// Empty, huge, forged and random datagrams to the notify socket.
fn notify(ground: &Ground) -> Result<Outcome> {
    const SOCKET: &str = "/run/systemd/notify";
    let container = booted(basic(ground.debian()).file(WELL.0, WELL.1))?;
    let huge = "X=".to_string() + &"y".repeat(100_000);
    for text in [
        "",
        "\n\n",
        "READY",
        "MAINPID=1",
        "READY=1\nMAINPID=99999999999",
        "WATCHDOG_USEC=-1",
        "FDSTORE=1",
        &huge,
    ] {
        let _ = container.exec(&[image::DEMO, "raw-notify", SOCKET, text])?;
        well(&container)?;
    }
    container.exec(&[image::DEMO, "forge", SOCKET, "500"])?;
    well(&container)?;
    let main = container.sh("systemctl show -p MainPID dbus.service; cat /proc/1/comm")?.ok()?;
    ensure!(!main.contains("MainPID=1\n"), "a forged MAINPID was believed: {main}");
    Ok(Outcome::Passed)
}

/// `kill -9` of every daemon there is.
fn killed_daemons(ground: &Ground) -> Result<Outcome> {
    let container = booted(ground.debian().file(WELL.0, WELL.1))?;
    for _ in 0..3 {
        container.sh("for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p != 1 ] && [ $p != $$ ] && kill -9 $p; done; true")?.ok()?;
        std::thread::sleep(Duration::from_millis(300));
    }
    let back = "systemctl is-active systemd-journald.service && systemctl start dbus.service nginx.service && curl -s localhost >/dev/null";
    container.until(Duration::from_secs(60), back)?;
    well(&container)?;
    Ok(Outcome::Passed)
}
