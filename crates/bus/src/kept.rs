//! A connection and its messages as values, for a program that goes on where another one stopped.
//!
//! Descriptors are numbers here; whoever takes a value in says how a number becomes a descriptor. What must stay true: a
//! connection is kept whole or not at all.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};
use zbus::wire::Endian;

use crate::incoming::{Fields, Incoming, Kind, Passed};

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMessage {
    kind: Kind,
    flags: u8,
    serial: u32,
    fields: Fields,
    big_endian: bool,
    body: Vec<u8>,
    fds: Vec<RawFd>,
}

impl KeptMessage {
    /// The numbers of its descriptors.
    pub fn fds(&self) -> &[RawFd] {
        &self.fds
    }

    /// The message again.
    pub fn restore(self, adopt: impl FnMut(RawFd) -> OwnedFd) -> Incoming {
        Incoming {
            kind: self.kind,
            flags: self.flags,
            serial: self.serial,
            fields: self.fields,
            endian: if self.big_endian { Endian::Big } else { Endian::Little },
            body: self.body,
            fds: Passed(self.fds.into_iter().map(adopt).collect()),
        }
    }
}

impl Incoming {
    /// The message as a value.
    pub fn keep(&self) -> KeptMessage {
        KeptMessage {
            kind: self.kind,
            flags: self.flags,
            serial: self.serial,
            fields: self.fields.clone(),
            big_endian: self.is_big_endian(),
            body: self.body.clone(),
            fds: self.fds().iter().map(AsRawFd::as_raw_fd).collect(),
        }
    }
}

/// A connection whose handshake is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPeer {
    pub(crate) serial: u32,
    pub(crate) negotiated: bool,
    pub(crate) sender: Option<String>,
    /// Received bytes that are no message yet, and descriptors with where in them they came.
    pub(crate) input: Vec<u8>,
    pub(crate) fds: Vec<(u64, RawFd)>,
    /// Bytes that wait to be sent.
    pub(crate) output: Vec<u8>,
}

impl KeptPeer {
    /// The numbers of descriptors that came and belong to no message yet.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.fds.iter().map(|(_, fd)| *fd)
    }
}
