//! A sans-IO D-Bus peer, server and client: SASL, framing, descriptors, queues with bounds.
//!
//! Bytes and descriptors go in by [`Peer::receive`], messages come out of [`Peer::next_message`]; messages go in by
//! [`Peer::send`], bytes and descriptors come out of [`Peer::output`]. zbus is the codec of bodies and the judge of
//! names; its handshake, connection and message types are not linked.
//!
//! What must stay true:
//! - no sockets, no clock, no threads, no `unsafe`; no input can panic;
//! - memory grows only with bytes that were received, never with a length that a peer merely claims;
//! - a message has exactly the descriptors that were sent with it;
//! - a peer that breaks the protocol, or does not read, is given up ([`BusError`]), once and for good.
#![forbid(unsafe_code)]

mod error;
pub mod error_name;
mod header;
mod incoming;
mod kept;
mod outgoing;
mod output;
mod path;
mod peer;
mod sasl;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{BodyError, BusError};
pub use header::is_bus_name;
pub use incoming::{Incoming, Kind, ReplyTo, take_unclosed};
pub use kept::{KeptMessage, KeptPeer};
pub use outgoing::Outgoing;
pub use path::{bus_path_escape, bus_path_unescape};
pub use peer::Peer;
pub use writer::BodyWriter;

/// zbus's types that appear in the bodies that [`Incoming::body`] decodes.
pub use zbus::{OwnedFd as BodyFd, OwnedObjectPath, OwnedVariant, Type, Variant};

/// Who is at the other end of a socket, as the kernel says (SO_PEERCRED, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Effective user id at connect(2).
    pub uid: u32,
    /// Effective group id at connect(2).
    pub gid: u32,
    /// Process id in our namespace, 0 if it is not visible there.
    pub pid: i32,
}

/// How much one peer may make us hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one line of the handshake, its CR LF included.
    pub handshake_line: usize,
    /// Bytes of the whole handshake.
    pub handshake: usize,
    /// Bytes of one received message.
    pub message: usize,
    /// Descriptors of one message, in either direction. The kernel's own limit is 253.
    pub fds: usize,
    /// Bytes that may wait for the peer to read them.
    pub queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshake_line: 256, handshake: 4096, message: 4 << 20, fds: 64, queue: 16 << 20 }
    }
}
