//! Messages to be sent, and their headers.
//!
//! What must stay true: a header that we write is valid D-Bus. Serial and sender belong to the connection, so one
//! message can be queued to many peers; descriptors are shared, and closed with the last copy.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::writer::BodyWriter;
use crate::{Incoming, Kind, ReplyTo};

/// Most headers have room in so many bytes.
const HEADER_ROOM: usize = 256;
/// A body begins with room for so many, which what changed of a service fits into.
const BODY_ROOM: usize = 1536;

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    kind: Kind,
    flags: u8,
    reply_serial: Option<u32>,
    path: Option<String>,
    interface: Option<String>,
    member: Option<String>,
    error_name: Option<String>,
    destination: Option<String>,
    signature: String,
    body: BodyWriter,
}

impl From<&Incoming> for ReplyTo {
    fn from(call: &Incoming) -> Self {
        call.reply_to()
    }
}

impl From<&ReplyTo> for ReplyTo {
    fn from(reply_to: &ReplyTo) -> Self {
        reply_to.clone()
    }
}

impl Outgoing {
    fn new(kind: Kind) -> Self {
        let flags = if kind == Kind::MethodCall { 0 } else { 1 };
        Self {
            kind,
            flags,
            reply_serial: None,
            path: None,
            interface: None,
            member: None,
            error_name: None,
            destination: None,
            signature: String::new(),
            body: BodyWriter::new(),
        }
    }

    fn reply(kind: Kind, to: ReplyTo) -> Self {
        Self { reply_serial: Some(to.serial), destination: to.destination, ..Self::new(kind) }
    }

    /// The answer to a call (an [`Incoming`] or a [`ReplyTo`] kept from it).
    pub fn method_return(to: impl Into<ReplyTo>) -> Self {
        Self::reply(Kind::MethodReturn, to.into())
    }

    /// The refusal of a call, with its text as only argument.
    pub fn error(to: impl Into<ReplyTo>, name: &str, text: &str) -> Self {
        let error = Self { error_name: Some(name.to_owned()), ..Self::reply(Kind::Error, to.into()) };
        error.body("s", |body| body.write_str(text))
    }

    /// A signal.
    pub fn signal(path: &str, interface: &str, member: &str) -> Self {
        Self { interface: Some(interface.to_owned()), ..Self::to_member(Kind::Signal, path, member) }
    }

    /// A call. Its serial is what [`crate::Peer::send`] returns.
    pub fn method_call(destination: &str, path: &str, interface: &str, member: &str) -> Self {
        Self {
            interface: Some(interface.to_owned()),
            destination: Some(destination.to_owned()),
            ..Self::to_member(Kind::MethodCall, path, member)
        }
    }

    fn to_member(kind: Kind, path: &str, member: &str) -> Self {
        Self { path: Some(path.to_owned()), member: Some(member.to_owned()), ..Self::new(kind) }
    }

    /// Sends it to one peer of the bus (directed signals).
    #[must_use]
    pub fn destination(mut self, name: &str) -> Self {
        self.destination = Some(name.to_owned());
        self
    }

    /// Asks for no reply to this call.
    #[must_use]
    pub fn no_reply(mut self) -> Self {
        self.flags |= 1;
        self
    }

    /// Asks that the destination is not started for this call.
    #[must_use]
    pub fn no_auto_start(mut self) -> Self {
        self.flags |= 2;
        self
    }

    /// Allows the destination to ask a person (polkit).
    #[must_use]
    pub fn allow_interactive(mut self) -> Self {
        self.flags |= 4;
        self
    }

    /// Writes the body, whose arguments have `signature` (no enclosing parentheses).
    #[must_use]
    pub fn body(self, signature: &str, write: impl FnOnce(&mut BodyWriter)) -> Self {
        let mut body = BodyWriter::with_capacity(BODY_ROOM);
        write(&mut body);
        self.with_body(signature, body)
    }

    /// As [`body`](Self::body), with what was written before.
    #[must_use]
    pub fn with_body(mut self, signature: &str, body: BodyWriter) -> Self {
        self.signature = signature.to_owned();
        self.body = body;
        self
    }

    /// What the message is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The member, in calls and signals.
    pub fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }

    /// The error name, in errors.
    pub fn error_name(&self) -> Option<&str> {
        self.error_name.as_deref()
    }

    /// The signature of the body.
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// The body's bytes, little-endian.
    pub fn body_bytes(&self) -> &[u8] {
        self.body.bytes()
    }

    pub(crate) fn fds(&self) -> &[Arc<OwnedFd>] {
        self.body.fds()
    }

    /// The header, padded to where the body starts.
    pub(crate) fn header(&self, serial: u32, sender: Option<&str>) -> Vec<u8> {
        let mut out = BodyWriter::with_capacity(HEADER_ROOM);
        let kind = match self.kind {
            Kind::MethodCall => 1,
            Kind::MethodReturn => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
        };
        for byte in [b'l', kind, self.flags, 1] {
            out.write_u8(byte);
        }
        out.write_u32(u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        out.write_u32(serial);
        out.begin_array(8);
        if let Some(path) = &self.path {
            field(&mut out, 1, "o");
            out.write_object_path(path);
        }
        let texts = [
            (2, self.interface.as_deref()),
            (3, self.member.as_deref()),
            (4, self.error_name.as_deref()),
            (6, self.destination.as_deref()),
            (7, sender),
        ];
        for (code, text) in texts {
            if let Some(text) = text {
                field(&mut out, code, "s");
                out.write_str(text);
            }
        }
        let count = u32::try_from(self.fds().len()).ok().filter(|count| *count > 0);
        for (code, number) in [(5, self.reply_serial), (9, count)] {
            if let Some(number) = number {
                field(&mut out, code, "u");
                out.write_u32(number);
            }
        }
        if !self.signature.is_empty() {
            field(&mut out, 8, "g");
            out.write_signature(&self.signature);
        }
        out.end_array();
        out.align(8);
        out.into_bytes()
    }
}

fn field(out: &mut BodyWriter, code: u8, signature: &str) {
    out.begin_struct();
    out.write_u8(code);
    out.begin_variant(signature);
}
