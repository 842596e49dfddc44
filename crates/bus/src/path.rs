//! Escaping of one label of an object path, as sd_bus_path_encode(3) does it.
//!
//! The two functions are inverse to each other on everything that escape yields.

/// Escapes `label` for an object path: every byte but ASCII letters and digits, and a leading digit, becomes `_xx`; an
/// empty label becomes `_`.
pub fn bus_path_escape(label: &str) -> String {
    let mut out = Vec::with_capacity(label.len().saturating_add(16));
    escape_to(&mut out, label);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends the escaped label, which is ASCII.
pub(crate) fn escape_to(out: &mut Vec<u8>, label: &str) {
    if label.is_empty() {
        out.push(b'_');
    }
    let mut rest = label.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        // A leading digit is escaped, others are not.
        let leads = rest.len() == label.len();
        if first.is_ascii_alphabetic() || (!leads && first.is_ascii_digit()) {
            let end = tail.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(tail.len());
            out.push(*first);
            out.extend_from_slice(tail.get(..end).unwrap_or_default());
            rest = tail.get(end..).unwrap_or_default();
        } else {
            let digit =
                |nibble: u8| char::from_digit(u32::from(nibble), 16).map_or(b'0', |digit| digit as u8);
            out.extend([b'_', digit(first >> 4), digit(first & 15)]);
            rest = tail;
        }
    }
}

/// Undoes [`bus_path_escape`]. `None` if the result is not UTF-8. A `_` that two hexadecimal digits do not follow
/// stands for itself.
pub fn bus_path_unescape(label: &str) -> Option<String> {
    if label == "_" {
        return Some(String::new());
    }
    let mut out = Vec::with_capacity(label.len());
    let mut rest = label.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'_'
            && let Some((digits, after)) = tail.split_first_chunk::<2>()
            && let [Some(high), Some(low)] = digits.map(hex_digit)
        {
            out.push((high << 4) | low);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// Appends `byte` as two lower-case hexadecimal digits.
pub(crate) fn push_hex(out: &mut String, byte: u8) {
    for nibble in [byte >> 4, byte & 15] {
        out.extend(char::from_digit(u32::from(nibble), 16));
    }
}

/// The value of one hexadecimal digit.
pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
