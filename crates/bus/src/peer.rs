//! One connection: handshake, then messages, in both directions.
//!
//! What must stay true: the first [`BusError`] is final, and what was decoded before it is still handed out; a
//! descriptor belongs to the message within whose bytes it came, and one that no message claims ends the connection.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::header::{FIXED, Fixed};
use crate::incoming::Passed;
use crate::output::Output;
use crate::sasl::{ClientSasl, ServerSasl, Step};
use crate::{BusError, Credentials, Incoming, KeptPeer, Limits, Outgoing};

enum Phase {
    /// A server before the NUL byte that opens the stream.
    Nul(ServerSasl),
    Server(ServerSasl),
    Client(ClientSasl),
    Messages,
}

/// A D-Bus connection without its socket.
pub struct Peer {
    phase: Phase,
    credentials: Option<Credentials>,
    limits: Limits,
    /// Received bytes that no message was made of yet.
    input: Vec<u8>,
    /// Bytes consumed since the connection began: where `input` starts in the stream.
    consumed: u64,
    /// Descriptors that no message took yet, with the end of the bytes that they came with.
    fds: VecDeque<(u64, OwnedFd)>,
    incoming: VecDeque<Incoming>,
    output: Output,
    negotiated: bool,
    serial: u32,
    sender: Option<String>,
    failed: Option<BusError>,
}

impl Peer {
    /// The side that accepted. `guid` names the server, `peer` is what SO_PEERCRED says; only if `allowed` can the peer
    /// authenticate.
    pub fn server(guid: [u8; 16], peer: Credentials, allowed: bool) -> Self {
        let sasl = ServerSasl::new(guid, peer, allowed);
        let credentials = sasl.peer();
        let mut peer = Self::new(Phase::Nul(sasl));
        peer.credentials = Some(credentials);
        peer
    }

    /// The side that connected, as effective user `uid`. Messages without descriptors may be queued at once; `Hello`
    /// is the caller's.
    pub fn client(uid: u32) -> Self {
        let mut peer = Self::new(Phase::Client(ClientSasl::new()));
        peer.output.push(&[ClientSasl::hello(uid).as_bytes()], &[]);
        peer
    }

    /// The connection as a value, for another program to go on with; nothing where it is not ready, a message waits to be
    /// taken, or descriptors wait to be sent.
    pub fn keep(&self) -> Option<KeptPeer> {
        if !self.is_ready() || self.has_message() {
            return None;
        }
        let place = |(end, fd): &(u64, OwnedFd)| (end.saturating_sub(self.consumed), fd.as_raw_fd());
        Some(KeptPeer {
            serial: self.serial,
            negotiated: self.negotiated,
            sender: self.sender.clone(),
            input: self.input.clone(),
            fds: self.fds.iter().map(place).collect(),
            output: self.output.plain_bytes()?,
        })
    }

    /// Goes on with a connection.
    pub fn resume(kept: KeptPeer, mut adopt: impl FnMut(RawFd) -> OwnedFd) -> Self {
        let mut peer = Self::new(Phase::Messages);
        (peer.serial, peer.negotiated, peer.sender) = (kept.serial, kept.negotiated, kept.sender);
        peer.input = kept.input;
        peer.fds = kept.fds.into_iter().map(|(end, fd)| (end, adopt(fd))).collect();
        if !kept.output.is_empty() {
            peer.output.push(&[&kept.output], &[]);
        }
        peer
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    fn new(phase: Phase) -> Self {
        Self {
            phase,
            credentials: None,
            limits: Limits::default(),
            input: Vec::new(),
            consumed: 0,
            fds: VecDeque::new(),
            incoming: VecDeque::new(),
            output: Output::default(),
            negotiated: false,
            serial: 0,
            sender: None,
            failed: None,
        }
    }

    /// The sender that all messages carry from now on (for connections without a bus, which would set it).
    pub fn set_sender(&mut self, name: &str) {
        self.sender = Some(name.to_owned());
    }

    /// Who the peer is; `None` on the client's side.
    pub fn credentials(&self) -> Option<Credentials> {
        self.credentials
    }

    /// Whether the handshake is done.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Messages) && self.failed.is_none()
    }

    /// Whether descriptors may be passed.
    pub fn can_pass_fds(&self) -> bool {
        self.negotiated
    }

    /// Takes what one recvmsg(2) gave. Drain [`next_message`](Self::next_message) after each call.
    pub fn receive(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<(), BusError> {
        let mut fds = Passed(fds);
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.input.extend_from_slice(bytes);
        let end = self.consumed.saturating_add(as_u64(self.input.len()));
        self.fds.extend(std::mem::take(&mut fds.0).into_iter().map(|fd| (end, fd)));
        let done = self.parse();
        if self.input.is_empty() && self.input.capacity() > 64 << 10 {
            self.input = Vec::new();
        }
        done.map_err(|error| self.fail(error))
    }

    /// Whether a message waits to be taken.
    pub fn has_message(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// The next message, in the order of their arrival.
    pub fn next_message(&mut self) -> Option<Incoming> {
        self.incoming.pop_front()
    }

    /// Queues a message and returns its serial. A peer with too much waiting has failed: close it.
    pub fn send(&mut self, message: &Outgoing) -> Result<u32, BusError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let client = matches!(self.phase, Phase::Client(_));
        if !client && !self.is_ready() {
            return Err(BusError::NotReady);
        }
        let fds = message.fds();
        if fds.len() > self.limits.fds || (!fds.is_empty() && !self.negotiated) {
            return Err(BusError::Descriptors("the peer takes no descriptors, or fewer"));
        }
        let serial = self.serial.checked_add(1).unwrap_or(1);
        let header = message.header(serial, self.sender.as_deref());
        let body = message.body_bytes();
        let waiting = self.output.waiting().saturating_add(header.len()).saturating_add(body.len());
        if waiting > self.limits.queue {
            return Err(self.fail(BusError::SlowReader));
        }
        self.serial = serial;
        self.output.push(&[&header, body], fds);
        Ok(serial)
    }

    /// What to send next: bytes (none: nothing waits) and the descriptors that go with the first of them, by one
    /// sendmsg(2). Then [`sent`](Self::sent).
    pub fn output(&self) -> (&[u8], Vec<BorrowedFd<'_>>) {
        let (bytes, fds) = self.output.front();
        (bytes, fds.iter().map(AsFd::as_fd).collect())
    }

    /// Notes that `count` bytes were sent.
    pub fn sent(&mut self, count: usize) {
        self.output.advance(count);
    }

    /// Whether something waits to be sent.
    pub fn wants_write(&self) -> bool {
        self.output.waiting() > 0
    }

    /// Bytes that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.output.waiting()
    }

    #[cfg(test)]
    pub(crate) fn input_capacity(&self) -> usize {
        self.input.capacity()
    }

    fn give_descriptors_up(&mut self) {
        drop(Passed(self.fds.drain(..).map(|(_, fd)| fd).collect()));
    }

    fn fail(&mut self, error: BusError) -> BusError {
        self.failed = Some(error);
        self.input = Vec::new();
        self.give_descriptors_up();
        if error == BusError::SlowReader {
            self.output.clear();
        }
        error
    }

    /// Makes lines and messages of the input, as far as it goes.
    fn parse(&mut self) -> Result<(), BusError> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some(used) = self.unit(rest)? {
            rest = rest.get(used..).unwrap_or_default();
            self.consumed = self.consumed.saturating_add(as_u64(used));
            self.refuse_stray_fds()?;
        }
        let used = input.len().saturating_sub(rest.len());
        self.input = input;
        self.input.drain(..used);
        // One message's worth may wait for its end, and one recvmsg(2) may bring the next one's.
        if self.fds.len() > self.limits.fds.saturating_mul(2) {
            return Err(BusError::Descriptors("too many"));
        }
        Ok(())
    }

    /// Handles one byte, line or message at the start of `rest`; how many bytes it took, `None` if more are needed.
    fn unit(&mut self, rest: &[u8]) -> Result<Option<usize>, BusError> {
        match self.phase {
            Phase::Messages => self.message(rest),
            Phase::Nul(_) => match (rest.first(), std::mem::replace(&mut self.phase, Phase::Messages)) {
                (Some(0), Phase::Nul(sasl)) => {
                    self.phase = Phase::Server(sasl);
                    Ok(Some(1))
                }
                (None, phase) => {
                    self.phase = phase;
                    Ok(None)
                }
                (Some(_), _) => Err(BusError::Handshake("no NUL byte first")),
            },
            Phase::Server(_) | Phase::Client(_) => self.line(rest),
        }
    }

    fn line(&mut self, rest: &[u8]) -> Result<Option<usize>, BusError> {
        let head = rest.get(..self.limits.handshake_line).unwrap_or(rest);
        let Some(newline) = head.iter().position(|byte| *byte == b'\n') else {
            return if head.len() < self.limits.handshake_line {
                Ok(None)
            } else {
                Err(BusError::Handshake("line too long"))
            };
        };
        let used = newline.saturating_add(1);
        if self.consumed.saturating_add(as_u64(used)) > as_u64(self.limits.handshake) {
            return Err(BusError::Handshake("too long"));
        }
        let line = head
            .get(..newline)
            .and_then(|line| line.strip_suffix(b"\r"))
            .ok_or(BusError::Handshake("line feed without carriage return"))?;
        let line = std::str::from_utf8(line).map_err(|_| BusError::Handshake("line is not ASCII"))?;
        if !line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(BusError::Handshake("line is not ASCII"));
        }
        let mut answer = String::new();
        let step = match &mut self.phase {
            Phase::Server(sasl) => sasl.line(line, &mut answer)?,
            Phase::Client(sasl) => sasl.line(line)?,
            Phase::Nul(_) | Phase::Messages => return Ok(None),
        };
        if !answer.is_empty() {
            self.output.push(&[answer.as_bytes()], &[]);
        }
        if let Step::Done { fds } = step {
            self.negotiated = fds;
            self.phase = Phase::Messages;
        }
        Ok(Some(used))
    }

    fn message(&mut self, rest: &[u8]) -> Result<Option<usize>, BusError> {
        let Some(fixed) = rest.first_chunk::<FIXED>() else { return Ok(None) };
        let fixed = Fixed::parse(fixed, &self.limits)?;
        let Some(bytes) = rest.get(..fixed.total) else { return Ok(None) };
        let (message, claimed) = fixed.message(bytes)?;
        if claimed > self.limits.fds || (claimed > 0 && !self.negotiated) {
            return Err(BusError::Descriptors("more than allowed"));
        }
        if claimed > self.fds.len() {
            return Err(BusError::Descriptors("fewer came than the message claims"));
        }
        let fds = Passed(self.fds.drain(..claimed).map(|(_, fd)| fd).collect());
        if let Some(message) = message {
            self.incoming.push_back(Incoming { fds, ..message });
        }
        Ok(Some(fixed.total))
    }

    /// A descriptor whose bytes are all consumed belonged to none of their messages.
    fn refuse_stray_fds(&self) -> Result<(), BusError> {
        match self.fds.front() {
            Some((end, _)) if *end <= self.consumed => Err(BusError::Descriptors("no message claims them")),
            Some(_) | None => Ok(()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.give_descriptors_up();
    }
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
