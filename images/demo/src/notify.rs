//! The service's side of sd_notify(3), without libsystemd.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use std::io::IoSlice;
use std::os::fd::AsRawFd;
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

/// Names the main process of a service by a pidfd (`MAINPIDFD=1`).
pub fn send_main(pid: u32) -> Result<()> {
    let address = std::env::var("NOTIFY_SOCKET").context("no NOTIFY_SOCKET")?;
    let pidfd = muster_sys::pidfd_open(pid)?;
    let (fds, socket) = ([pidfd.as_raw_fd()], UnixDatagram::unbound()?);
    socket.connect_addr(&resolve(&address)?)?;
    let text = [IoSlice::new(b"MAINPIDFD=1")];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &text, &rights, MsgFlags::empty(), None)?;
    // Whose process it was is asked for while it is there.
    std::thread::sleep(std::time::Duration::from_millis(200));
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
