//! Bad guests: what a hostile or broken peer does to process 1's sockets.

use crate::notify::resolve;
use crate::serve::print;
use anyhow::{Result, bail};
use nix::sys::socket::{getsockopt, sockopt};
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

/// How long we wait for an answer.
const ANSWER: Duration = Duration::from_millis(500);

/// One datagram.
pub fn datagram(path: &str, bytes: &[u8]) -> Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(ANSWER))?;
    socket.send_to_addr(bytes, &resolve(path)?)?;
    Ok(())
}

/// Who is at the far end of a unix socket, as the kernel noted it when that began to listen.
pub fn far_end(path: &str) -> Result<()> {
    let found = getsockopt(&UnixStream::connect(path)?, sockopt::PeerCredentials)?;
    print(&format!("process {} user {}\n", found.pid(), found.uid()))
}

/// One message to a POSIX queue.
pub fn message(name: &str, bytes: &[u8]) -> Result<()> {
    Ok(muster_sys::message_queue_send(&std::ffi::CString::new(name)?, bytes)?)
}

/// Idle connections, held for some seconds; prints how many could be made.
pub fn peers(path: &str, count: usize, seconds: u64) -> Result<()> {
    let held: Vec<UnixStream> = (0..count).map_while(|_| UnixStream::connect(path).ok()).collect();
    print(&format!("{}\n", held.len()))?;
    std::thread::sleep(Duration::from_secs(seconds));
    Ok(())
}

/// Bytes given in hexadecimal, in pieces of `step`; prints `closed`, `silent` or `answered N`.
pub fn bytes(path: &str, hex: &str, step: usize) -> Result<()> {
    let bytes = decode(hex)?;
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER))?;
    for piece in bytes.chunks(step) {
        if stream.write_all(piece).is_err() {
            return print("closed\n");
        }
    }
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => print("closed\n"),
        Ok(size) => print(&format!("answered {size}\n")),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => print("silent\n"),
        Err(_) => print("closed\n"),
    }
}

fn decode(hex: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    match hex.as_bytes().chunks(2).map(pair).collect() {
        Some(bytes) => Ok(bytes),
        None => bail!("not hexadecimal: {hex}"),
    }
}

/// Random bytes of random lengths (the same each time): a datagram, or a connection, each.
pub fn forge(path: &str, count: usize) -> Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..count {
        let size = (next() % 2000) as usize;
        let bytes: Vec<u8> = (0..size).map(|_| next() as u8).collect();
        if datagram(path, &bytes).is_err() {
            let mut stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(ANSWER))?;
            let _ = stream.write_all(&bytes);
        }
    }
    Ok(())
}

/// Sends small datagrams as fast as they are taken, for so many seconds.
pub fn flood(path: &str, seconds: u64) -> Result<()> {
    let socket = UnixDatagram::unbound()?;
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    let mut sent = 0_u64;
    while std::time::Instant::now() < end {
        if socket.send_to(b"STATUS=flood\n", path).is_ok() {
            sent += 1;
        }
    }
    println!("sent {sent}");
    Ok(())
}
