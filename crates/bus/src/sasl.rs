//! The line protocol before the messages, both sides of it ("Authentication Protocol" in the D-Bus specification).
//!
//! What must stay true: only EXTERNAL, and only as the user whom the kernel names; every answer is exactly the line
//! that sd-bus compares with; a line is bounded before it is looked at.

use crate::path::{hex_digit, push_hex};
use crate::{BusError, Credentials};

/// What one line led to.
pub(crate) enum Step {
    /// Go on with the next line.
    Continue,
    /// The rest of the stream is messages; whether descriptors may be passed.
    Done { fds: bool },
}

/// The server's half.
pub(crate) struct ServerSasl {
    guid: [u8; 16],
    peer: Credentials,
    allowed: bool,
    state: State,
    fds: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Auth,
    Data,
    Begin,
}

impl ServerSasl {
    pub(crate) fn new(guid: [u8; 16], peer: Credentials, allowed: bool) -> Self {
        Self { guid, peer, allowed, state: State::Auth, fds: false }
    }

    pub(crate) fn peer(&self) -> Credentials {
        self.peer
    }

    /// Handles one line (without CR LF) and appends the answer to `out`.
    pub(crate) fn line(&mut self, line: &str, out: &mut String) -> Result<Step, BusError> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (self.state, word) {
            (State::Auth, "AUTH") => match rest.split_once(' ').unwrap_or((rest, "")) {
                ("EXTERNAL", "") => {
                    self.state = State::Data;
                    out.push_str("DATA\r\n");
                }
                ("EXTERNAL", token) => self.identify(token, out),
                _ => self.reject(out),
            },
            (State::Auth, "ERROR") => self.reject(out),
            (State::Data, "DATA") => self.identify(rest, out),
            (State::Data | State::Begin, "CANCEL" | "ERROR") => self.reject(out),
            (State::Begin, "NEGOTIATE_UNIX_FD") => {
                self.fds = true;
                out.push_str("AGREE_UNIX_FD\r\n");
            }
            (State::Begin, "BEGIN") => return Ok(Step::Done { fds: self.fds }),
            (State::Auth | State::Data, "BEGIN") => {
                return Err(BusError::Handshake("BEGIN before authentication"));
            }
            // An AUTH in the wrong state included: the specification wants ERROR for all that does not fit.
            (State::Auth | State::Data | State::Begin, _) => out.push_str("ERROR\r\n"),
        }
        Ok(Step::Continue)
    }

    /// An empty token means "whom the kernel says I am".
    fn identify(&mut self, token: &str, out: &mut String) {
        let claimed = if token.is_empty() { Some(self.peer.uid) } else { hex_uid(token) };
        if !self.allowed || claimed != Some(self.peer.uid) {
            return self.reject(out);
        }
        self.state = State::Begin;
        out.push_str("OK ");
        for byte in self.guid {
            push_hex(out, byte);
        }
        out.push_str("\r\n");
    }

    fn reject(&mut self, out: &mut String) {
        self.state = State::Auth;
        self.fds = false;
        out.push_str("REJECTED EXTERNAL\r\n");
    }
}

/// The decimal user id that `token` spells in hexadecimal ("3130" is 10).
fn hex_uid(token: &str) -> Option<u32> {
    let (pairs, rest) = token.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > 10 {
        return None;
    }
    let mut uid = 0_u32;
    for pair in pairs {
        let [Some(high), Some(low)] = pair.map(hex_digit) else { return None };
        let digit = ((high << 4) | low).checked_sub(b'0').filter(|digit| *digit < 10)?;
        uid = uid.checked_mul(10)?.checked_add(u32::from(digit))?;
    }
    Some(uid)
}

/// The client's half: everything is sent at once, then two answers are read.
pub(crate) struct ClientSasl {
    authenticated: bool,
}

impl ClientSasl {
    pub(crate) fn new() -> Self {
        Self { authenticated: false }
    }

    /// What a client that is user `uid` sends first.
    pub(crate) fn hello(uid: u32) -> String {
        let mut out = "\0AUTH EXTERNAL ".to_owned();
        for byte in uid.to_string().bytes() {
            push_hex(&mut out, byte);
        }
        out.push_str("\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n");
        out
    }

    /// Handles one line of the server (without CR LF).
    pub(crate) fn line(&mut self, line: &str) -> Result<Step, BusError> {
        let word = line.split(' ').next().unwrap_or_default();
        match (self.authenticated, word) {
            (false, "OK") => {
                self.authenticated = true;
                Ok(Step::Continue)
            }
            (false, "REJECTED") => Err(BusError::Rejected),
            (true, "AGREE_UNIX_FD") => Ok(Step::Done { fds: true }),
            (true, "ERROR") => Ok(Step::Done { fds: false }),
            (false | true, _) => Err(BusError::Handshake("unexpected answer")),
        }
    }
}
