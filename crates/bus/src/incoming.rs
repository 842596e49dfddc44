//! One received message.
//!
//! What must stay true: every field was checked against the specification; the descriptors are those that came with
//! this message, and are closed with it unless taken.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zbus::wire::Endian;
use zbus::wire::serialized::{Context, Data};
use zbus::{Signature, Type};

use crate::BodyError;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A call, with path and member.
    MethodCall,
    /// A reply, with a reply serial.
    MethodReturn,
    /// An error reply, with a reply serial and an error name.
    Error,
    /// A signal, with path, interface and member.
    Signal,
}

/// Where a reply goes, for replies that are sent later than at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Serial of the call.
    pub serial: u32,
    /// The caller's unique name; none on a private connection.
    pub destination: Option<String>,
}

thread_local! {
    static UNCLOSED: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// Descriptors that peers passed and that nobody took. They are not closed here, since close(2) may wait as long as the
/// file system of a stranger likes: the caller says who closes them.
pub fn take_unclosed() -> Vec<OwnedFd> {
    UNCLOSED.try_with(RefCell::take).unwrap_or_default()
}

/// Descriptors that a peer passed. Those that are dropped go to [`take_unclosed`].
#[derive(Debug, Default)]
pub(crate) struct Passed(pub(crate) Vec<OwnedFd>);

impl Drop for Passed {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let _ = UNCLOSED.try_with(|unclosed| unclosed.borrow_mut().append(&mut self.0));
        }
    }
}

/// A received message.
#[derive(Debug)]
pub struct Incoming {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) serial: u32,
    pub(crate) fields: Fields,
    pub(crate) endian: Endian,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Passed,
}

/// The header fields, each absent until seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fields {
    pub(crate) path: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) member: Option<String>,
    pub(crate) error_name: Option<String>,
    pub(crate) reply_serial: Option<u32>,
    pub(crate) destination: Option<String>,
    pub(crate) sender: Option<String>,
    pub(crate) signature: Option<String>,
    pub(crate) unix_fds: Option<u32>,
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> Option<&str> {
            self.fields.$name.as_deref()
        }
    )*};
}

impl Incoming {
    texts! {
        /// The object; always there in calls and signals.
        path;
        /// The interface; always there in signals, optional in calls.
        interface;
        /// The method or signal; always there in calls and signals.
        member;
        /// The error; always there in errors.
        error_name;
        /// Whom the sender means.
        destination;
        /// Who sent it, as the bus says. On a private connection whatever the peer wrote: not to be trusted.
        sender;
    }

    /// What the message is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sender's number for it, never 0.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The serial of the call that this answers; always there in returns and errors.
    pub fn reply_serial(&self) -> Option<u32> {
        self.fields.reply_serial
    }

    /// The signature of the body, without enclosing parentheses; empty without a body.
    pub fn signature(&self) -> &str {
        self.fields.signature.as_deref().unwrap_or_default()
    }

    /// Whether the sender does not want a reply.
    pub fn no_reply_expected(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Whether the sender can wait for a person to be asked (polkit).
    pub fn allow_interactive(&self) -> bool {
        self.flags & 4 != 0
    }

    /// Where the reply goes.
    pub fn reply_to(&self) -> ReplyTo {
        ReplyTo { serial: self.serial, destination: self.fields.sender.clone() }
    }

    /// The body's bytes.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Whether the body is big-endian.
    pub fn is_big_endian(&self) -> bool {
        matches!(self.endian, Endian::Big)
    }

    /// The descriptors.
    pub fn fds(&self) -> &[OwnedFd] {
        &self.fds.0
    }

    /// Takes the descriptors out; bodies with `h` cannot be decoded after this.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds.0)
    }

    /// Decodes the body: `T` is a tuple of the arguments, or one argument's type. Descriptors ([`crate::BodyFd`]) are
    /// duplicated, those of the message stay. A variant that holds a descriptor must not be cloned (its `Clone` panics
    /// when descriptors run out); use `try_clone`.
    pub fn body<T: DeserializeOwned + Type>(&self) -> Result<T, BodyError> {
        let wanted = T::SIGNATURE;
        let found = self.signature();
        if wanted.to_string_no_parens() != found && wanted.to_string() != found {
            return Err(BodyError::Signature {
                wanted: wanted.to_string_no_parens(),
                found: found.to_owned(),
            });
        }
        if matches!(wanted, Signature::Unit) && !self.body.is_empty() {
            return Err(BodyError::Invalid("bytes without a signature".to_owned()));
        }
        let fds = self.fds.0.iter().map(AsFd::as_fd);
        let data = Data::new_borrowed_fds(self.body.as_slice(), Context::new(self.endian, 0), fds);
        let (value, used) = data.deserialize::<T>().map_err(|error| BodyError::Invalid(error.to_string()))?;
        if used == self.body.len() {
            Ok(value)
        } else {
            Err(BodyError::Invalid("bytes after the last argument".to_owned()))
        }
    }
}
