//! Writes a message body, little-endian, straight into its final bytes.
//!
//! What must stay true: what is written decodes as the signature that it was written for. Alignment is counted from the
//! start of the body, which the header pads to 8. Nothing here fails: a text with a NUL ends there, a path that is none
//! becomes `/`, a signature that is none becomes empty.

use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A message body in the making. Containers are written in place: [`begin_array`](Self::begin_array) …
/// [`end_array`](Self::end_array), the others need no end.
#[derive(Clone, Debug, Default)]
pub struct BodyWriter {
    bytes: Vec<u8>,
    fds: Vec<Arc<OwnedFd>>,
    /// Open arrays: where the length goes, and where the elements start.
    arrays: Vec<(usize, usize)>,
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, value: $type) {
            self.align(size_of::<$type>());
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    )*};
}

impl BodyWriter {
    /// An empty body.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty body that will hold about so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    numbers! {
        /// `y`
        write_u8 u8;
        /// `n`
        write_i16 i16;
        /// `q`
        write_u16 u16;
        /// `i`
        write_i32 i32;
        /// `u`
        write_u32 u32;
        /// `x`
        write_i64 i64;
        /// `t`
        write_u64 u64;
        /// `d`
        write_f64 f64;
    }

    /// `b`
    pub fn write_bool(&mut self, value: bool) {
        self.write_u32(u32::from(value));
    }

    /// `s`. A text that holds a NUL ends before it, as a C string does.
    pub fn write_str(&mut self, value: &str) {
        let text = match value.as_bytes().contains(&0) {
            true => value.split('\0').next().unwrap_or_default(),
            false => value,
        };
        // The padding, the length, the text and its NUL at once.
        self.bytes.reserve(text.len().saturating_add(8));
        self.write_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// `o`. What is not an object path is written as `/`.
    pub fn write_object_path(&mut self, value: &str) {
        self.write_str(if is_object_path(value) { value } else { "/" });
    }

    /// `o`: the object below `parent`, a valid path, that [`crate::bus_path_escape`] makes of a label.
    pub fn write_object_path_below(&mut self, parent: &str, label: &str) {
        self.write_u32(0);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(parent.as_bytes());
        self.bytes.push(b'/');
        crate::path::escape_to(&mut self.bytes, label);
        self.note_length(start.saturating_sub(4), start);
        self.bytes.push(0);
    }

    /// `g`. What is not a signature is written as the empty one.
    pub fn write_signature(&mut self, value: &str) {
        let valid = is_plain_signature(value.as_bytes()) || zbus::Signature::try_from(value).is_ok();
        let (text, len) = match u8::try_from(value.len()) {
            Ok(len) if valid => (value, len),
            _ => ("", 0),
        };
        self.bytes.push(len);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// `h`
    pub fn write_fd(&mut self, fd: impl Into<Arc<OwnedFd>>) {
        self.write_u32(u32::try_from(self.fds.len()).unwrap_or(u32::MAX));
        self.fds.push(fd.into());
    }

    /// `ay`, whole.
    pub fn write_bytes(&mut self, value: &[u8]) {
        self.write_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(value);
    }

    /// `as`, whole.
    pub fn write_strs<S: AsRef<str>>(&mut self, values: impl IntoIterator<Item = S>) {
        self.begin_array(4);
        for value in values {
            self.write_str(value.as_ref());
        }
        self.end_array();
    }

    /// Opens an array whose elements are aligned to `element_align` bytes: 1 for `y` `g` `v`, 2 for `n` `q`, 4 for `b`
    /// `i` `u` `s` `o` `h` and arrays, 8 for `x` `t` `d`, structs and dictionary entries.
    pub fn begin_array(&mut self, element_align: usize) {
        self.write_u32(0);
        let length_at = self.bytes.len().saturating_sub(4);
        self.align(element_align);
        self.arrays.push((length_at, self.bytes.len()));
    }

    /// Closes the innermost open array.
    pub fn end_array(&mut self) {
        let Some((length_at, start)) = self.arrays.pop() else { return };
        self.note_length(length_at, start);
    }

    /// Writes, where room was left for it, how long what begins at `start` is by now.
    fn note_length(&mut self, length_at: usize, start: usize) {
        let length = u32::try_from(self.bytes.len().saturating_sub(start)).unwrap_or(u32::MAX);
        if let Some((field, _)) = self.bytes.get_mut(length_at..).and_then(<[u8]>::split_first_chunk_mut) {
            *field = length.to_le_bytes();
        }
    }

    /// Starts a struct: write its fields next.
    pub fn begin_struct(&mut self) {
        self.align(8);
    }

    /// Starts a dictionary entry, in an array opened with alignment 8: write key, then value.
    pub fn begin_dict_entry(&mut self) {
        self.align(8);
    }

    /// Starts a variant of `signature`: write its value next.
    pub fn begin_variant(&mut self, signature: &str) {
        self.write_signature(signature);
    }

    /// Starts an entry of an `a{sv}`: write the value of `signature` next.
    pub fn begin_property(&mut self, name: &str, signature: &str) {
        self.begin_dict_entry();
        self.write_str(name);
        self.begin_variant(signature);
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn align(&mut self, to: usize) {
        // A power of two, always.
        let missing = self.bytes.len().wrapping_neg() & to.wrapping_sub(1);
        if missing > 0 {
            self.bytes.extend_from_slice([0; 8].get(..missing).unwrap_or_default());
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn fds(&self) -> &[Arc<OwnedFd>] {
        &self.fds
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Whether a text is an object path (D-Bus specification, "Valid Object Paths").
fn is_object_path(text: &str) -> bool {
    let is_element = |element: &str| {
        !element.is_empty() && element.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_element))
}

/// Whether a signature is one of those that most messages have, which need no parser: types without structs, and arrays of
/// such types, dictionaries among them.
fn is_plain_signature(mut rest: &[u8]) -> bool {
    const BASIC: &[u8] = b"ybnqiuxtdsogh";
    let is_type = |kind: &u8| BASIC.contains(kind) || *kind == b'v';
    if rest.len() > 32 {
        return false;
    }
    loop {
        rest = match rest {
            [] => return true,
            [b'a', b'{', key, value, b'}', rest @ ..] if BASIC.contains(key) && is_type(value) => rest,
            [b'a', kind, rest @ ..] if is_type(kind) => rest,
            [kind, rest @ ..] if is_type(kind) => rest,
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_looks_say_what_the_parser_says() {
        for text in
            ["", "s", "as", "a{sv}", "sa{sv}as", "aay", "a{s}", "a{vs}", "a", "so", "sz", "a{saa}", "(ss)"]
        {
            let parsed = zbus::Signature::try_from(text).is_ok();
            assert!(parsed || !is_plain_signature(text.as_bytes()), "{text}");
        }
        assert!(is_plain_signature(b"sa{sv}as") && !is_plain_signature(b"a(ss)"));
        for text in ["/", "/a", "/a/b_1", "", "a", "/a/", "//", "/a//b", "/a-b", "/\u{e4}", "/a\0"] {
            assert_eq!(is_object_path(text), zbus::ObjectPath::try_from(text).is_ok(), "{text}");
        }
    }
}
