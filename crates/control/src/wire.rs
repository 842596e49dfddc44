//! Messages in and out: arguments read by a cursor of our own, bodies written by `bus`.
//!
//! What must stay true: a claimed length is checked against the bytes that are left before anything is made of it;
//! nesting ends at [`DEPTH_MAX`]; every value consumes bytes, so that work is bounded by the size of the message. What
//! is written has the signature that goes with it.

use crate::error::Refusal;
use muster_bus::{BodyWriter, Incoming, Kind, Outgoing};
use muster_unit::diagnostic::without_numbers;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How deep containers may be nested, variants included (D-Bus specification).
const DEPTH_MAX: u32 = 64;

/// One value of any type, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `y n q i u x t`
    Number(i128),
    /// `d`
    Double(f64),
    /// `s o g`
    Text(String),
    /// `h`: which of the message's descriptors.
    Fd(u32),
    /// `ay`
    Bytes(Vec<u8>),
    /// Any other array.
    Array(Vec<Value>),
    /// A struct, or an entry of a dictionary.
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// An `a(sv)` or `a{sv}` as names and values, variants opened.
    pub fn as_properties(&self) -> Result<Vec<(String, Value)>, Refusal> {
        let Value::Array(entries) = self else { return Err(unexpected()) };
        entries.iter().map(Value::as_property).collect()
    }

    fn as_property(&self) -> Result<(String, Value), Refusal> {
        match self {
            Value::Struct(fields) => match fields.as_slice() {
                [Value::Text(name), Value::Variant(value)] => Ok((name.clone(), (**value).clone())),
                _ => Err(unexpected()),
            },
            _ => Err(unexpected()),
        }
    }

    /// The text of a text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number of a number.
    pub fn as_number(&self) -> Option<i128> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The texts of an array of texts.
    pub fn as_texts(&self) -> Option<Vec<&str>> {
        match self {
            Value::Array(items) => items.iter().map(Value::as_text).collect(),
            _ => None,
        }
    }

    /// The elements of an array or the fields of a struct.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) | Value::Struct(items) => items,
            _ => &[],
        }
    }
}

fn unexpected() -> Refusal {
    Refusal::invalid("Unexpected message contents")
}

/// The arguments of a call, read in order.
pub struct Args<'a> {
    message: &'a Incoming,
    signature: &'a [u8],
    cursor: Cursor<'a>,
}

macro_rules! numbers {
    ($($(#[$meta:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$meta])*
        pub fn $name(&mut self) -> Result<$type, Refusal> {
            self.number().and_then(|number| <$type>::try_from(number).map_err(|_| unexpected()))
        }
    )*};
}

impl<'a> Args<'a> {
    /// The arguments of `message`, whose signature was checked.
    pub fn new(message: &'a Incoming) -> Result<Args<'a>, Refusal> {
        let cursor = Cursor { bytes: message.body_bytes(), at: 0, big: message.is_big_endian() };
        Ok(Args { message, signature: message.signature().as_bytes(), cursor })
    }

    /// The next argument, of whatever type.
    pub fn value(&mut self) -> Result<Value, Refusal> {
        let (kind, rest) = split_type(self.signature, 0).ok_or_else(unexpected)?;
        self.signature = rest;
        self.cursor.value(kind, 0).ok_or_else(unexpected)
    }

    /// `s`, `o` or `g`.
    pub fn str(&mut self) -> Result<String, Refusal> {
        match self.value()? {
            Value::Text(text) => Ok(text),
            _ => Err(unexpected()),
        }
    }

    /// `b`.
    pub fn bool(&mut self) -> Result<bool, Refusal> {
        match self.value()? {
            Value::Bool(value) => Ok(value),
            _ => Err(unexpected()),
        }
    }

    fn number(&mut self) -> Result<i128, Refusal> {
        self.value()?.as_number().ok_or_else(unexpected)
    }

    numbers! {
        /// `y`.
        u8: u8;
        /// `u`.
        u32: u32;
        /// `i`.
        i32: i32;
        /// `t`.
        u64: u64;
    }

    /// `h`: a descriptor, still the message's.
    pub fn fd(&mut self) -> Result<BorrowedFd<'a>, Refusal> {
        let Value::Fd(index) = self.value()? else { return Err(unexpected()) };
        self.descriptor(index)
    }

    /// One of the message's descriptors.
    pub fn descriptor(&self, index: u32) -> Result<BorrowedFd<'a>, Refusal> {
        let index = usize::try_from(index).map_err(|_| unexpected())?;
        self.message.fds().get(index).map(AsFd::as_fd).ok_or_else(unexpected)
    }

    /// `ay`.
    pub fn bytes(&mut self) -> Result<Vec<u8>, Refusal> {
        match self.value()? {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(unexpected()),
        }
    }

    /// `as`.
    pub fn strings(&mut self) -> Result<Vec<String>, Refusal> {
        let value = self.value()?;
        let texts = value.as_texts().ok_or_else(unexpected)?;
        Ok(texts.into_iter().map(str::to_owned).collect())
    }

    /// `au`.
    pub fn numbers(&mut self) -> Result<Vec<u32>, Refusal> {
        let number = |value: Value| value.as_number().and_then(|number| u32::try_from(number).ok());
        self.list()?.into_iter().map(|value| number(value).ok_or_else(unexpected)).collect()
    }

    /// `a(sv)`.
    pub fn properties(&mut self) -> Result<Vec<(String, Value)>, Refusal> {
        self.value()?.as_properties()
    }

    /// Any array.
    pub fn list(&mut self) -> Result<Vec<Value>, Refusal> {
        match self.value()? {
            Value::Array(items) => Ok(items),
            _ => Err(unexpected()),
        }
    }

    /// `v`: what is in it.
    pub fn variant(&mut self) -> Result<Value, Refusal> {
        match self.value()? {
            Value::Variant(value) => Ok(*value),
            _ => Err(unexpected()),
        }
    }
}

/// Splits the first complete type off a signature.
fn split_type(signature: &[u8], depth: u32) -> Option<(&[u8], &[u8])> {
    signature.split_at_checked(type_length(signature, depth)?)
}

fn type_length(signature: &[u8], depth: u32) -> Option<usize> {
    if depth > DEPTH_MAX {
        return None;
    }
    let deeper = depth.saturating_add(1);
    match signature.first()? {
        b'a' => type_length(signature.get(1..)?, deeper)?.checked_add(1),
        open @ (b'(' | b'{') => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let mut at = 1_usize;
            while *signature.get(at)? != close {
                at = at.checked_add(type_length(signature.get(at..)?, deeper)?)?;
            }
            if at == 1 { None } else { at.checked_add(1) }
        }
        b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'h' | b'v' => {
            Some(1)
        }
        _ => None,
    }
}

/// To how many bytes values of a type are aligned.
fn alignment(signature: &[u8]) -> usize {
    match signature.first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'h' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Cursor<'a> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.align(N)?;
        let mut bytes: [u8; N] = self.take(N)?.try_into().ok()?;
        if self.big {
            bytes.reverse();
        }
        Some(bytes)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.fixed()?)).ok()
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        (self.take(1)? == [0] && !text.contains('\0')).then_some(text)
    }

    /// One value of exactly the type `kind`. Recursion ends at [`DEPTH_MAX`].
    fn value(&mut self, kind: &[u8], depth: u32) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        let number = match kind.first()? {
            b'y' => i128::from(self.take(1)?.first().copied()?),
            b'n' => i128::from(i16::from_le_bytes(self.fixed()?)),
            b'q' => i128::from(u16::from_le_bytes(self.fixed()?)),
            b'i' => i128::from(i32::from_le_bytes(self.fixed()?)),
            b'u' => i128::from(u32::from_le_bytes(self.fixed()?)),
            b'x' => i128::from(i64::from_le_bytes(self.fixed()?)),
            b't' => i128::from(u64::from_le_bytes(self.fixed()?)),
            _ => return self.other(kind, depth.saturating_add(1)),
        };
        Some(Value::Number(number))
    }

    fn other(&mut self, kind: &[u8], depth: u32) -> Option<Value> {
        match kind.first()? {
            b'b' => match u32::from_le_bytes(self.fixed()?) {
                0 => Some(Value::Bool(false)),
                1 => Some(Value::Bool(true)),
                _ => None,
            },
            b'd' => Some(Value::Double(f64::from_le_bytes(self.fixed()?))),
            b'h' => Some(Value::Fd(u32::from_le_bytes(self.fixed()?))),
            b's' | b'o' => {
                let length = self.length()?;
                self.text(length).map(Value::Text)
            }
            b'g' => {
                let length = usize::from(self.take(1)?.first().copied()?);
                self.text(length).map(Value::Text)
            }
            b'v' => {
                let length = usize::from(self.take(1)?.first().copied()?);
                let inner = self.text(length)?;
                let (first, rest) = split_type(inner.as_bytes(), depth)?;
                let value = if rest.is_empty() { self.value(first, depth)? } else { return None };
                Some(Value::Variant(Box::new(value)))
            }
            b'(' | b'{' => self.fields(kind.get(1..kind.len().checked_sub(1)?)?, depth).map(Value::Struct),
            b'a' => self.array(kind.get(1..)?, depth),
            _ => None,
        }
    }

    fn fields(&mut self, mut kinds: &[u8], depth: u32) -> Option<Vec<Value>> {
        self.align(8)?;
        let mut fields = Vec::new();
        while !kinds.is_empty() {
            let (first, rest) = split_type(kinds, depth)?;
            fields.push(self.value(first, depth)?);
            kinds = rest;
        }
        Some(fields)
    }

    fn array(&mut self, element: &[u8], depth: u32) -> Option<Value> {
        let length = self.length()?;
        self.align(alignment(element))?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        if element == b"y" {
            return self.take(length).map(|bytes| Value::Bytes(bytes.to_vec()));
        }
        let mut items = Vec::new();
        while self.at < end {
            items.push(self.value(element, depth)?);
        }
        (self.at == end).then_some(Value::Array(items))
    }
}

/// Where a body is written.
pub struct Out<'a>(pub &'a mut BodyWriter);

macro_rules! writers {
    ($($(#[$meta:meta])* $name:ident($type:ty) = $write:ident;)*) => {$(
        $(#[$meta])*
        pub fn $name(&mut self, value: $type) {
            self.0.$write(value);
        }
    )*};
}

impl Out<'_> {
    writers! {
        /// `s`.
        str(&str) = write_str;
        /// `o`.
        path(&str) = write_object_path;
        /// `b`.
        bool(bool) = write_bool;
        /// `y`.
        u8(u8) = write_u8;
        /// `q`.
        u16(u16) = write_u16;
        /// `i`.
        i32(i32) = write_i32;
        /// `u`.
        u32(u32) = write_u32;
        /// `x`.
        i64(i64) = write_i64;
        /// `t`.
        u64(u64) = write_u64;
        /// `d`.
        f64(f64) = write_f64;
    }

    /// `h`.
    pub fn fd(&mut self, fd: OwnedFd) {
        self.0.write_fd(fd);
    }

    /// `o`: the object of a unit.
    pub fn unit_path(&mut self, name: &str) {
        self.0.write_object_path_below(crate::path::UNITS, name);
    }

    /// `as`.
    pub fn strings<S: AsRef<str>>(&mut self, values: impl IntoIterator<Item = S>) {
        self.0.write_strs(values);
    }

    /// An array; `f` writes its elements.
    pub fn array(&mut self, element_signature: &str, f: impl FnOnce(&mut Out<'_>)) {
        self.0.begin_array(alignment(element_signature.as_bytes()));
        f(&mut Out(self.0));
        self.0.end_array();
    }

    /// A struct; `f` writes its fields.
    pub fn structure(&mut self, f: impl FnOnce(&mut Out<'_>)) {
        self.0.begin_struct();
        f(&mut Out(self.0));
    }

    /// An entry of a dictionary; `f` writes key and value.
    pub fn dict_entry(&mut self, f: impl FnOnce(&mut Out<'_>)) {
        self.0.begin_dict_entry();
        f(&mut Out(self.0));
    }

    /// A variant; `f` writes the value of `signature`.
    pub fn variant(&mut self, signature: &str, f: impl FnOnce(&mut Out<'_>)) {
        self.0.begin_variant(signature);
        f(&mut Out(self.0));
    }
}

/// The answer to `message`.
pub fn reply_to(message: &Incoming, signature: &str, write: impl FnOnce(&mut Out<'_>)) -> Outgoing {
    Outgoing::method_return(message).body(signature, |body| write(&mut Out(body)))
}

/// The refusal of `message`.
pub fn error_to(message: &Incoming, refusal: &Refusal) -> Outgoing {
    Outgoing::error(message, &refusal.name, &without_numbers(&refusal.message))
}

/// A signal.
pub fn signal(
    path: &str,
    interface: &str,
    member: &str,
    signature: &str,
    write: impl FnOnce(&mut Out<'_>),
) -> Outgoing {
    Outgoing::signal(path, interface, member).body(signature, |body| write(&mut Out(body)))
}

/// Whether a message is a call.
pub fn is_call(message: &Incoming) -> bool {
    message.kind() == Kind::MethodCall
}

/// The object that a message is for.
pub fn path(message: &Incoming) -> &str {
    message.path().unwrap_or_default()
}

/// The interface; empty when the caller left it out.
pub fn interface(message: &Incoming) -> &str {
    message.interface().unwrap_or_default()
}

/// The member.
pub fn member(message: &Incoming) -> &str {
    message.member().unwrap_or_default()
}

/// The signature of the body.
pub fn signature(message: &Incoming) -> String {
    message.signature().to_owned()
}

/// Whether the caller wants no answer.
pub fn wants_no_reply(message: &Incoming) -> bool {
    message.no_reply_expected()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(kind: &str, bytes: &[u8]) -> Option<Value> {
        Cursor { bytes, at: 0, big: false }.value(kind.as_bytes(), 0)
    }

    #[test]
    fn a_claimed_length_makes_nothing() {
        for kind in ["s", "g", "ay", "au", "a(sv)", "aas", "a{sv}"] {
            assert_eq!(read(kind, &[0xff; 8]), None, "{kind}");
            assert_eq!(read(kind, &[]), None, "{kind}");
        }
        assert_eq!(read("as", &[0, 0, 0, 0]), Some(Value::Array(Vec::new())));
        assert_eq!(read("s", &[1, 0, 0, 0, b'x', 0]), Some(Value::Text("x".to_owned())));
        assert_eq!(read("s", &[1, 0, 0, 0, b'x', b'y']), None, "no closing zero");
        assert_eq!(read("b", &[2, 0, 0, 0]), None, "no boolean");
    }

    #[test]
    fn nesting_ends() {
        let variants = |depth: usize| {
            let mut bytes = [1_u8, b'v', 0].repeat(depth);
            bytes.extend([1, b'y', 0, 7]);
            bytes
        };
        assert!(read("v", &variants(20)).is_some());
        assert!(read("v", &variants(100)).is_none());
        assert!(split_type(format!("{}y", "a".repeat(100)).as_bytes(), 0).is_none());
        assert!(split_type(b"(s", 0).is_none() && split_type(b"()", 0).is_none());
    }

    #[test]
    fn noise_is_refused_without_a_panic() {
        let mut seed = 1_u64;
        let mut byte = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed.to_be_bytes().first().copied().unwrap() & 0x7f
        };
        for round in 0..20_000 {
            let bytes: Vec<u8> =
                (0..round % 60).map(|_| if byte() & 3 == 0 { byte() } else { byte() & 3 }).collect();
            for kind in ["a(sv)", "v", "a{sv}", "a(sa(sv))", "(aiai)", "aay"] {
                let _ = read(kind, &bytes);
            }
        }
    }
}
