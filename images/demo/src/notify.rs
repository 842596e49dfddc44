//! The service's side of sd_notify(3), without libsystemd.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends the lines as one datagram to `NOTIFY_SOCKET`. `@PID` in a line stands for our own pid.
pub fn send(lines: &[&str]) -> Result<()> {
    let address = std::env::var("NOTIFY_SOCKET").context("no NOTIFY_SOCKET")?;
    let text = lines.join("\n").replace("@PID", &std::process::id().to_string());
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&resolve(&address)?)?;
    socket.send(text.as_bytes())?;
    Ok(())
}

/// A path or an abstract name.
pub fn resolve(address: &str) -> Result<SocketAddr> {
    Ok(match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    })
}

/// Stays until SIGTERM; SIGHUP is a reload, announced as Type=notify-reload wants it.
pub fn wait() -> Result<()> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    while signals.wait()? == Signal::SIGHUP {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        let usec = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000;
        send(&["RELOADING=1", &format!("MONOTONIC_USEC={usec}")])?;
        send(&["READY=1", "STATUS=reloaded"])?;
    }
    send(&["STOPPING=1", "STATUS=bye"])
}
