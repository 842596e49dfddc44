//! Why a peer is given up, and why a body could not be decoded.
//!
//! A [`BusError`] is final: the connection is closed. A [`BodyError`] is answered with an error message.

use std::fmt;

/// Why a connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusError {
    /// The handshake broke the D-Bus specification or its limits.
    Handshake(&'static str),
    /// The server refused our identity (clients only).
    Rejected,
    /// A message header broke the specification.
    Message(&'static str),
    /// A message is, or says it is, larger than allowed.
    TooLarge,
    /// Descriptors came that no message claims, or a message claims more than came.
    Descriptors(&'static str),
    /// A message was queued before the handshake ended.
    NotReady,
    /// The peer does not read what waits for it.
    SlowReader,
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(why) => write!(f, "D-Bus handshake: {why}"),
            Self::Rejected => f.write_str("D-Bus server rejected our credentials"),
            Self::Message(why) => write!(f, "D-Bus message: {why}"),
            Self::TooLarge => f.write_str("D-Bus message too large"),
            Self::Descriptors(why) => write!(f, "D-Bus descriptors: {why}"),
            Self::NotReady => f.write_str("D-Bus connection not authenticated yet"),
            Self::SlowReader => f.write_str("D-Bus peer does not read its messages"),
        }
    }
}

impl std::error::Error for BusError {}

/// Why a body is not what the caller asked for. Answer with `org.freedesktop.DBus.Error.InvalidArgs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The message has another signature than the wanted one.
    Signature {
        /// What the caller wanted.
        wanted: String,
        /// What the message says.
        found: String,
    },
    /// The bytes are not a value of the signature.
    Invalid(String),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature { wanted, found } => {
                write!(f, "Invalid arguments '{found}', expecting '{wanted}'.")
            }
            Self::Invalid(why) => write!(f, "Invalid message body: {why}"),
        }
    }
}

impl std::error::Error for BodyError {}
