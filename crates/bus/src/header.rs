//! Message headers: their fixed part, their fields, and the bounds of both.
//!
//! What must stay true: no length is believed before it is compared with what is there; unknown field codes and message
//! types are skipped, as the specification wants (zbus's own header parser refuses both, and a well-known name as sender).

use zbus::names::{BusName, ErrorName, InterfaceName, MemberName};
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{BE, Endian, LE};
use zbus::{ObjectPath, Signature, Variant};

use crate::incoming::{Fields, Incoming, Kind};
use crate::{BusError, Limits};

/// Bytes of the fixed part, the length of the fields included.
pub(crate) const FIXED: usize = 16;

/// The fixed part of a header.
#[derive(Clone, Copy)]
pub(crate) struct Fixed {
    endian: Endian,
    kind: u8,
    flags: u8,
    serial: u32,
    /// Where the fields end.
    fields_end: usize,
    /// Where the body starts.
    body: usize,
    /// Where the message ends.
    pub(crate) total: usize,
}

impl Fixed {
    /// Reads and judges the first 16 bytes of a message.
    pub(crate) fn parse(bytes: &[u8; FIXED], limits: &Limits) -> Result<Self, BusError> {
        let [order, kind, flags, version, b0, b1, b2, b3, s0, s1, s2, s3, f0, f1, f2, f3] = *bytes;
        let (endian, number): (Endian, fn([u8; 4]) -> u32) = match order {
            b'l' => (LE, u32::from_le_bytes),
            b'B' => (BE, u32::from_be_bytes),
            _ => return Err(BusError::Message("unknown byte order")),
        };
        if version != 1 {
            return Err(BusError::Message("unknown protocol version"));
        }
        let serial = number([s0, s1, s2, s3]);
        if kind == 0 || serial == 0 {
            return Err(BusError::Message("type or serial is zero"));
        }
        let size = |bytes| usize::try_from(number(bytes)).unwrap_or(usize::MAX);
        let fields_end = size([f0, f1, f2, f3]).saturating_add(FIXED);
        let body = fields_end.checked_next_multiple_of(8).unwrap_or(usize::MAX);
        let total = body.saturating_add(size([b0, b1, b2, b3]));
        if total > limits.message {
            return Err(BusError::TooLarge);
        }
        Ok(Self { endian, kind, flags, serial, fields_end, body, total })
    }

    /// Decodes the whole message that `bytes` is; `None` for a message type that we do not know. How many descriptors
    /// it claims is given too, for both.
    pub(crate) fn message(self, bytes: &[u8]) -> Result<(Option<Incoming>, usize), BusError> {
        let short = BusError::Message("truncated");
        let mut reader =
            Reader { bytes: bytes.get(..self.fields_end).ok_or(short)?, at: FIXED, endian: self.endian };
        let mut fields = Fields::default();
        while reader.at < self.fields_end {
            reader.field(&mut fields)?;
        }
        let padding = bytes.get(self.fields_end..self.body).ok_or(short)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(BusError::Message("padding is not zero"));
        }
        let body = bytes.get(self.body..self.total).ok_or(short)?;
        let claimed = usize::try_from(fields.unix_fds.unwrap_or(0)).unwrap_or(usize::MAX);
        let (kind, complete) = match self.kind {
            1 => (Kind::MethodCall, fields.path.is_some() && fields.member.is_some()),
            2 => (Kind::MethodReturn, fields.reply_serial.is_some()),
            3 => (Kind::Error, fields.reply_serial.is_some() && fields.error_name.is_some()),
            4 => {
                (Kind::Signal, fields.path.is_some() && fields.interface.is_some() && fields.member.is_some())
            }
            _ => return Ok((None, claimed)),
        };
        if !complete {
            return Err(BusError::Message("a required field is missing"));
        }
        if !body.is_empty() && fields.signature.as_deref().unwrap_or_default().is_empty() {
            return Err(BusError::Message("a body without a signature"));
        }
        let (flags, serial, endian) = (self.flags, self.serial, self.endian);
        let message = Incoming {
            kind,
            flags,
            serial,
            fields,
            endian,
            body: body.to_vec(),
            fds: crate::incoming::Passed::default(),
        };
        Ok((Some(message), claimed))
    }
}

/// A cursor over a header; `bytes` begins at the message's start, so that `at` is what alignment counts from.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    endian: Endian,
}

const BAD_FIELD: BusError = BusError::Message("a malformed header field");

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BusError> {
        let end = self.at.checked_add(len).ok_or(BAD_FIELD)?;
        let taken = self.bytes.get(self.at..end).ok_or(BAD_FIELD)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, BusError> {
        self.take(1)?.first().copied().ok_or(BAD_FIELD)
    }

    fn align(&mut self, to: usize) -> Result<(), BusError> {
        let next = self.at.checked_next_multiple_of(to).ok_or(BAD_FIELD)?;
        let padding = self.take(next.saturating_sub(self.at))?;
        if padding.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(BAD_FIELD) }
    }

    fn number(&mut self) -> Result<u32, BusError> {
        self.align(4)?;
        let bytes = self.take(4)?.first_chunk::<4>().ok_or(BAD_FIELD)?;
        Ok(match self.endian {
            Endian::Little => u32::from_le_bytes(*bytes),
            Endian::Big => u32::from_be_bytes(*bytes),
        })
    }

    /// `len` bytes of UTF-8 and a NUL.
    fn text(&mut self, len: usize) -> Result<&'a str, BusError> {
        let text = self.take(len)?;
        if self.byte()? != 0 || text.contains(&0) {
            return Err(BAD_FIELD);
        }
        std::str::from_utf8(text).map_err(|_| BAD_FIELD)
    }

    fn string(&mut self) -> Result<&'a str, BusError> {
        let len = self.number()?;
        self.text(usize::try_from(len).map_err(|_| BAD_FIELD)?)
    }

    fn signature(&mut self) -> Result<&'a str, BusError> {
        let len = self.byte()?;
        self.text(usize::from(len))
    }

    /// One (code, variant) pair.
    fn field(&mut self, fields: &mut Fields) -> Result<(), BusError> {
        self.align(8)?;
        let code = self.byte()?;
        let start = self.at;
        let of = self.signature()?;
        match (code, of) {
            (1, "o") => set(&mut fields.path, self.checked(|text| ObjectPath::try_from(text).is_ok())?),
            (2, "s") => {
                set(&mut fields.interface, self.checked(|text| InterfaceName::try_from(text).is_ok())?)
            }
            (3, "s") => set(&mut fields.member, self.checked(|text| MemberName::try_from(text).is_ok())?),
            (4, "s") => set(&mut fields.error_name, self.checked(|text| ErrorName::try_from(text).is_ok())?),
            (5, "u") => set(&mut fields.reply_serial, self.number()?),
            (6, "s") => set(&mut fields.destination, self.checked(|text| BusName::try_from(text).is_ok())?),
            (7, "s") => set(&mut fields.sender, self.checked(|text| BusName::try_from(text).is_ok())?),
            (8, "g") => {
                let text = self.signature()?;
                let valid = !text.contains('m') && Signature::try_from(text).is_ok();
                if valid { set(&mut fields.signature, text.to_owned()) } else { Err(BAD_FIELD) }
            }
            (9, "u") => set(&mut fields.unix_fds, self.number()?),
            (0..=9, _) => Err(BAD_FIELD),
            (10.., _) => self.skip(start, of),
        }
    }

    fn checked(&mut self, valid: fn(&str) -> bool) -> Result<String, BusError> {
        let text = self.string()?;
        if valid(text) { Ok(text.to_owned()) } else { Err(BAD_FIELD) }
    }

    /// Skips the variant of signature `of` that starts at `start`. Types that do not exist on D-Bus (zbus knows GVariant's
    /// maybe, and panics on it) do not get that far.
    fn skip(&mut self, start: usize, of: &str) -> Result<(), BusError> {
        if of.contains('m') || of.contains('v') {
            return Err(BAD_FIELD);
        }
        let rest = self.bytes.get(start..).ok_or(BAD_FIELD)?;
        let data = Data::new(rest, Context::new(self.endian, start));
        let (_, used) = data.deserialize::<Variant<'_>>().map_err(|_| BAD_FIELD)?;
        self.at = start.saturating_add(used);
        Ok(())
    }
}

/// Sets a field that must not be there yet.
fn set<T>(field: &mut Option<T>, value: T) -> Result<(), BusError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(BusError::Message("a header field comes twice")),
    }
}

/// Whether a text is a name on a bus, unique or well-known (D-Bus specification, "Bus names").
pub fn is_bus_name(text: &str) -> bool {
    BusName::try_from(text).is_ok()
}
