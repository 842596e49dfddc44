//! Bytes of a client as text of a unit file, which says the same bytes when it is read.

/// Bytes that are read back as they are, in a value in which no specifier is expanded.
pub fn escaped(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b' '..=b'~' if *byte != b'\\' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(one).collect()
}
