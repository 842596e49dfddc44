//! A client of the manager's private D-Bus socket: no library, so that what is measured is PID 1.
//!
//! The wire format is that of the D-Bus specification, "Message Protocol"; little endian.

use crate::serve::print;
use anyhow::{Context, Result, bail};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
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
    let mut manager = Manager::connect()?;
    let mut times = Vec::new();
    for _ in 0..count {
        let asked = Instant::now();
        manager.call_texts(method, arguments)?;
        times.push(asked.elapsed().as_micros());
    }
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or(0);
    print(&format!("{} {}\n", at(times.len() / 2), at(times.len().saturating_sub(1))))
}

/// A connection to the manager.
pub struct Manager {
    stream: UnixStream,
    serial: u32,
}

impl Manager {
    /// Connects as root.
    pub fn connect() -> Result<Manager> {
        let mut stream = UnixStream::connect(ADDRESS).with_context(|| format!("connecting to {ADDRESS}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        authenticate(&mut stream)?;
        Ok(Manager { stream, serial: 0 })
    }

    /// Calls a method with strings; gives the body of the answer.
    pub fn call_texts(&mut self, method: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut body = Body::default();
        arguments.iter().for_each(|text| body.string(text));
        self.call(method, &"s".repeat(arguments.len()), body)
    }

    /// Calls a method; gives the body of the answer. A refusal is an error.
    pub fn call(&mut self, method: &str, signature: &str, body: Body) -> Result<Vec<u8>> {
        self.call_with(method, signature, body, &[])
    }

    /// The same with descriptors, which the body names by their places.
    pub fn call_with(
        &mut self,
        method: &str,
        signature: &str,
        body: Body,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>> {
        self.serial += 1;
        let bytes = message(self.serial, method, signature, &body.0, fds.len() as u32);
        let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let parts = [ControlMessage::ScmRights(&raw)];
        let parts: &[_] = if raw.is_empty() { &[] } else { &parts };
        let slices = [IoSlice::new(&bytes)];
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &slices, parts, MsgFlags::empty(), None)?;
        self.stream.write_all(&bytes[sent..])?;
        await_answer(&mut self.stream, self.serial)
    }
}

/// Values in the wire format.
#[derive(Default)]
pub struct Body(Vec<u8>);

impl Body {
    /// The alignment of what follows; of a struct it is 8.
    pub fn pad(&mut self, to: usize) {
        pad(&mut self.0, to);
    }

    /// `s`.
    pub fn string(&mut self, text: &str) {
        string(&mut self.0, text);
    }

    /// `u` or `b`.
    pub fn number(&mut self, number: u32) {
        self.pad(4);
        self.0.extend(number.to_le_bytes());
    }

    /// `t`.
    pub fn long(&mut self, number: u64) {
        self.pad(8);
        self.0.extend(number.to_le_bytes());
    }

    /// An array whose elements have this alignment.
    pub fn array(&mut self, align: usize, fill: impl FnOnce(&mut Body)) {
        self.number(0);
        let at = self.0.len() - 4;
        self.pad(align);
        let begin = self.0.len();
        fill(self);
        let length = (self.0.len() - begin) as u32;
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// `(sv)`, an element of the list of properties.
    pub fn property(&mut self, name: &str, signature: &str, fill: impl FnOnce(&mut Body)) {
        self.pad(8);
        self.string(name);
        self.0.push(signature.len() as u8);
        self.0.extend(signature.bytes().chain([0]));
        fill(self);
    }
}

fn authenticate(stream: &mut UnixStream) -> Result<()> {
    stream.write_all(b"\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")?;
    for wanted in ["OK ", "AGREE_UNIX_FD"] {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.extend(byte);
        }
        if !line.starts_with(wanted.as_bytes()) {
            bail!("not let in: {}", String::from_utf8_lossy(&line).trim());
        }
    }
    Ok(())
}

fn message(serial: u32, method: &str, signature: &str, body: &[u8], fds: u32) -> Vec<u8> {
    let mut fields = Vec::new();
    for (code, kind, text) in [(1, "o", PATH), (2, "s", INTERFACE), (3, "s", method), (6, "s", NAME)] {
        pad(&mut fields, 8);
        fields.extend([code, 1, kind.as_bytes()[0], 0]);
        string(&mut fields, text);
    }
    if !signature.is_empty() {
        pad(&mut fields, 8);
        fields.extend([8, 1, b'g', 0, signature.len() as u8]);
        fields.extend(signature.bytes().chain([0]));
    }
    if fds > 0 {
        pad(&mut fields, 8);
        fields.extend([9, 1, b'u', 0]);
        fields.extend(fds.to_le_bytes());
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
fn await_answer(stream: &mut UnixStream, serial: u32) -> Result<Vec<u8>> {
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
        return Ok(rest.split_off(fields.next_multiple_of(8)));
    }
}

/// `REPLY_SERIAL`, a field of code 5 and signature `u`.
fn reply_serial(fields: &[u8]) -> Option<u32> {
    let at = fields.chunks(8).position(|field| field.starts_with(&[5, 1, b'u', 0]))?.checked_mul(8)?;
    Some(u32::from_le_bytes(fields.get(at + 4..at + 8)?.try_into().ok()?))
}
