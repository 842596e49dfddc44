//! Lines of a unit file (systemd.syntax(7)): sections, assignments, comments, continuations.
//!
//! Lenient: what is not understood is a diagnostic with its place, and reading goes on. A line is capped, so that a file
//! of one endless line costs its size once and no more. Every byte of a value is known by line and column, through
//! continuation lines and the comments between them.

use crate::diagnostic::Code;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

/// The longest logical line, in bytes (systemd's own limit).
pub const LINE_MAX: usize = 1024 * 1024;
/// The largest file, in bytes.
pub const FILE_MAX: usize = 16 * 1024 * 1024;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The line, from 1; 0 for the whole file.
    pub line: u32,
    /// The byte within the line, from 1.
    pub column: u32,
}

/// Where the bytes of a logical line come from: each piece begins at this byte of the line, at this place of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    first: Place,
    /// Those of continuation lines.
    further: Vec<(usize, Place)>,
}

impl Pieces {
    /// The place of a byte of the logical line.
    pub fn place(&self, byte: usize) -> Place {
        let before = self.further.partition_point(|(start, _)| *start <= byte);
        let piece = before.checked_sub(1).and_then(|last| self.further.get(last));
        let (start, place) = piece.copied().unwrap_or((0, self.first));
        let further = u32::try_from(byte.saturating_sub(start)).unwrap_or(u32::MAX);
        Place { line: place.line, column: place.column.saturating_add(further) }
    }

    /// The first place of a range of bytes and the one after its last.
    pub fn span(&self, bytes: Range<usize>) -> (Place, Place) {
        let from = self.place(bytes.start);
        if bytes.is_empty() {
            return (from, from);
        }
        let last = self.place(bytes.end.saturating_sub(1));
        (from, Place { column: last.column.saturating_add(1), ..last })
    }
}

/// One thing that a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// `[Name]`.
    Section {
        /// Where the bracket opens.
        at: Place,
        /// What stands in the brackets.
        name: &'a str,
    },
    /// `Key=value`.
    Assignment(Assignment<'a>),
    /// A line that is not understood.
    Bad {
        /// The first byte.
        from: Place,
        /// The byte after the last.
        to: Place,
        /// Why.
        code: Code,
        /// What stands there.
        found: String,
        /// What was expected.
        expected: Cow<'static, str>,
    },
}

/// `Key=value`, white space around both taken away, continuation lines joined by a blank. What stands on one line is not
/// copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// The key.
    pub key: Cow<'a, str>,
    /// The value.
    pub value: Cow<'a, str>,
    /// Where the bytes of the logical line come from.
    pieces: Pieces,
    /// Where key and value begin in the logical line.
    key_start: usize,
    value_start: usize,
}

impl Assignment<'_> {
    /// The line of the key.
    pub fn line(&self) -> u32 {
        self.pieces.place(self.key_start).line
    }

    /// Where the key stands.
    pub fn key_span(&self) -> (Place, Place) {
        self.pieces.span(self.key_start..self.key_start.saturating_add(self.key.len()))
    }

    /// Where bytes of the value stand; the whole value for `None`, and the key where the value is empty.
    pub fn value_span(&self, bytes: Option<Range<usize>>) -> (Place, Place) {
        let bytes = bytes.unwrap_or(0..self.value.len());
        if self.value.is_empty() {
            return self.key_span();
        }
        let at = |byte: usize| self.value_start.saturating_add(byte.min(self.value.len()));
        self.pieces.span(at(bytes.start)..at(bytes.end))
    }
}

/// Splits a text into its lines.
pub fn lines(text: &str) -> Vec<Line<'_>> {
    // As many as a small file has, at most.
    let mut out = Vec::with_capacity(text.len().min(512) / 16);
    let mut pending: Option<(Pieces, String)> = None;
    let skipped = text.len().saturating_sub(text.trim_start_matches('\u{feff}').len());
    for (number, raw) in text.trim_start_matches('\u{feff}').split('\n').enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
        let begun = trim_start(raw);
        let line = trim_end(begun);
        // A comment within a continuation is skipped, and the continuation goes on.
        if matches!(line.as_bytes().first(), Some(b'#' | b';')) {
            continue;
        }
        if pending.is_none() && line.is_empty() {
            continue;
        }
        let (body, goes_on) = match continuation(line) {
            Some(body) => (body, true),
            None => (line, false),
        };
        let mark = if number == 1 { skipped } else { 0 };
        let indent = raw.len().saturating_sub(begun.len()).saturating_add(mark);
        let column = u32::try_from(indent).unwrap_or(u32::MAX).saturating_add(1);
        let place = Place { line: number, column };
        let (pieces, joined) = match pending.take() {
            None => (Pieces { first: place, further: Vec::new() }, Cow::Borrowed(body)),
            Some((mut pieces, mut joined)) => {
                pieces.further.push((joined.len(), place));
                joined.push_str(body);
                (pieces, Cow::Owned(joined))
            }
        };
        if joined.len() > LINE_MAX {
            let from = pieces.place(0);
            let expected = Cow::Owned(format!("{LINE_MAX} bytes"));
            out.push(Line::Bad { from, to: from, code: Code::LineLength, found: String::new(), expected });
            continue;
        }
        if goes_on {
            pending = Some((pieces, joined.into_owned() + " "));
            continue;
        }
        out.push(one(pieces, raw, joined));
    }
    if let Some((pieces, joined)) = pending {
        out.push(one(pieces, "", Cow::Owned(joined)));
    }
    out
}

/// The line without its trailing backslash, when an odd number of them ends it.
fn continuation(line: &str) -> Option<&str> {
    if !line.as_bytes().ends_with(b"\\") {
        return None;
    }
    let slashes = line.len().saturating_sub(line.trim_end_matches('\\').len());
    if slashes % 2 == 1 { line.strip_suffix('\\') } else { None }
}

fn one<'a>(pieces: Pieces, raw: &'a str, joined: Cow<'a, str>) -> Line<'a> {
    let begun = trim_start(&joined);
    let start = joined.len().saturating_sub(begun.len());
    let text = trim_end(begun);
    let bad = |code: Code, found: &str, expected: &'static str| {
        let (from, to) = pieces.span(start..start.saturating_add(text.len()));
        Line::Bad { from, to, code, found: short(found), expected: Cow::Borrowed(expected) }
    };
    if text.as_bytes().first() == Some(&b'[') {
        let name = raw.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        return match name {
            Some(name) if !name.is_empty() => Line::Section { at: pieces.place(start), name },
            _ => bad(Code::Header, text, "'[Section]'"),
        };
    }
    let halves = match &joined {
        Cow::Borrowed(whole) => halves(trim_end(trim_start(whole)))
            .map(|(key, value, before)| (Cow::Borrowed(key), Cow::Borrowed(value), before)),
        Cow::Owned(_) => halves(text)
            .map(|(key, value, before)| (Cow::Owned(key.to_owned()), Cow::Owned(value.to_owned()), before)),
    };
    let Some((key, value, before)) = halves else {
        return bad(Code::Assignment, text, "'Key=value'");
    };
    if key.is_empty() {
        return bad(Code::Key, text, "'Key=value'");
    }
    let value_start = start.saturating_add(before);
    Line::Assignment(Assignment { key, value, key_start: start, value_start, pieces })
}

/// What stands before and after the first `=`, without the white space around it, and where the latter begins.
fn halves(line: &str) -> Option<(&str, &str, usize)> {
    // Keys are short.
    let sign = line.bytes().position(|byte| byte == b'=')?;
    let (key, value) = (line.get(..sign)?, line.get(sign.saturating_add(1)..)?);
    let begun = trim_start(value);
    let before = line.len().saturating_sub(begun.len());
    Some((trim_end(trim_start(key)), trim_end(begun), before))
}

/// [`str::trim_start`], quick where there is nothing to trim.
fn trim_start(text: &str) -> &str {
    if text.as_bytes().first().is_some_and(u8::is_ascii_graphic) { text } else { text.trim_start() }
}

/// [`str::trim_end`], quick where there is nothing to trim.
fn trim_end(text: &str) -> &str {
    if text.as_bytes().last().is_some_and(u8::is_ascii_graphic) { text } else { text.trim_end() }
}

/// The lines that assign to a key of a section, with what they say.
pub fn assignments(text: &str, section: &str, key: &str) -> Vec<(u32, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in lines(text) {
        match line {
            Line::Section { name, .. } => inside = name == section,
            Line::Assignment(line) if inside && line.key == key => {
                found.push((line.line(), line.value.into_owned()));
            }
            Line::Assignment(_) | Line::Bad { .. } => {}
        }
    }
    found
}

/// The beginning of a text, for messages, with what a terminal could mistake for a command made visible.
pub fn short(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(64)
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::panic, clippy::arithmetic_side_effects)]
    use super::*;

    fn assignment<'a>(line: &'a Line<'a>) -> &'a Assignment<'a> {
        match line {
            Line::Assignment(assignment) => assignment,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn continuations_comments_and_bad_lines() {
        let got = lines("[Unit]\nDescription=a \\\n# in between\n  b\nnonsense\n; c\n=x\n[broken\nA = 1 ");
        assert_eq!(got[0], Line::Section { at: Place { line: 1, column: 1 }, name: "Unit" });
        let first = assignment(&got[1]);
        assert_eq!((first.line(), &*first.key, &*first.value), (2, "Description", "a  b"));
        assert!(
            matches!(&got[2], Line::Bad { from: Place { line: 5, .. }, found, .. } if found.contains("nonsense"))
        );
        assert!(matches!(&got[3], Line::Bad { from: Place { line: 7, .. }, .. }));
        assert!(matches!(&got[4], Line::Bad { from: Place { line: 8, .. }, .. }));
        let last = assignment(&got[5]);
        assert_eq!((last.line(), &*last.key, &*last.value), (9, "A", "1"));
    }

    #[test]
    fn every_byte_of_a_value_has_its_place() {
        let text = "[Unit]\r\n  After = a.service \\\r\n# no\r\n\tb.service \\\r\n; no\r\n   'c d' x\r\n";
        let got = lines(text);
        let line = assignment(&got[1]);
        assert_eq!(line.value, "a.service  b.service  'c d' x");
        let place = |line, column| Place { line, column };
        assert_eq!(line.key_span(), (place(2, 3), place(2, 8)));
        for (word, from, to) in [
            ("a.service", place(2, 11), place(2, 20)),
            ("b.service", place(4, 2), place(4, 11)),
            ("'c d'", place(6, 4), place(6, 9)),
            ("x", place(6, 10), place(6, 11)),
        ] {
            let at = line.value.find(word).map(|at| at..at + word.len());
            assert_eq!(line.value_span(at), (from, to), "{word}");
        }
        assert_eq!(line.value_span(None), (place(2, 11), place(6, 11)));
    }

    #[test]
    fn an_endless_line_is_one_complaint() {
        let text = format!("[Unit]\nDescription={}\nAfter=a.service\n", "x".repeat(LINE_MAX + 1));
        let got = lines(&text);
        assert!(matches!(&got[1], Line::Bad { from: Place { line: 2, .. }, .. }));
        assert_eq!(assignment(&got[2]).line(), 3);
    }
}
