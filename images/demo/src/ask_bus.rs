//! A client of the manager's private D-Bus socket that times one call: no library, so that what is measured is PID 1.
//!
//! The wire format is that of the D-Bus specification, "Message Protocol"; little endian, and of bodies only strings.

use crate::serve::print;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const ADDRESS: &str = "/run/systemd/private";
const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(300);

/// Calls a method of the manager with arguments that are strings, `count` times in turn. Prints the median and the longest
/// time to its answer, in microseconds.
pub fn time(count: usize, method: &str, arguments: &[&str]) -> Result<()> {
    let mut stream = UnixStream::connect(ADDRESS).with_context(|| format!("connecting to {ADDRESS}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    authenticate(&mut stream)?;
    let mut times = Vec::new();
    for serial in (1_u32..).take(count) {
        let call = message(serial, method, arguments);
        let asked = Instant::now();
        stream.write_all(&call)?;
        await_answer(&mut stream, serial)?;
        times.push(asked.elapsed().as_micros());
    }
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or(0);
    print(&format!("{} {}\n", at(times.len() / 2), at(times.len().saturating_sub(1))))
}

fn authenticate(stream: &mut UnixStream) -> Result<()> {
    stream.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n")?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    if !line.starts_with(b"OK ") {
        bail!("not let in: {}", String::from_utf8_lossy(&line).trim());
    }
    Ok(())
}

fn message(serial: u32, method: &str, arguments: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|text| string(&mut body, text));
    let mut fields = Vec::new();
    let signature = "s".repeat(arguments.len());
    for (code, kind, text) in [(1, "o", PATH), (2, "s", INTERFACE), (3, "s", method), (6, "s", NAME)] {
        pad(&mut fields, 8);
        fields.extend([code, 1, kind.as_bytes()[0], 0]);
        string(&mut fields, text);
    }
    if !arguments.is_empty() {
        pad(&mut fields, 8);
        fields.extend([8, 1, b'g', 0, signature.len() as u8]);
        fields.extend(signature.bytes().chain([0]));
    }
    let mut out = vec![b'l', 1, 0, 1];
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(serial.to_le_bytes());
    out.extend((fields.len() as u32).to_le_bytes());
    out.extend(fields);
    pad(&mut out, 8);
    out.extend(body);
    out
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn string(out: &mut Vec<u8>, text: &str) {
    pad(out, 4);
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes().chain([0]));
}

/// Reads up to the answer to this call; signals in between are passed over.
fn await_answer(stream: &mut UnixStream, serial: u32) -> Result<()> {
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        let number = |at: usize| -> Result<usize> {
            let bytes: [u8; 4] = head[at..at + 4].try_into()?;
            Ok(u32::from_le_bytes(bytes) as usize)
        };
        let (body, fields) = (number(4)?, number(12)?);
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        stream.read_exact(&mut rest)?;
        if !matches!(head[1], METHOD_RETURN | ERROR) || reply_serial(&rest[..fields]) != Some(serial) {
            continue;
        }
        if head[1] == ERROR {
            bail!("refused: {}", String::from_utf8_lossy(&rest[fields..]));
        }
        return Ok(());
    }
}

/// `REPLY_SERIAL`, a field of code 5 and signature `u`.
fn reply_serial(fields: &[u8]) -> Option<u32> {
    let at = fields.chunks(8).position(|field| field.starts_with(&[5, 1, b'u', 0]))?.checked_mul(8)?;
    Some(u32::from_le_bytes(fields.get(at + 4..at + 8)?.try_into().ok()?))
}
