//! Lines of a unit file (systemd.syntax(7)): sections, assignments, comments, continuations.
//!
//! Lenient: what is not understood is a complaint with its line, and reading goes on. A line is capped, so that a file
//! of one endless line costs its size once and no more.

/// The longest logical line, in bytes (systemd's own limit).
pub const LINE_MAX: usize = 1024 * 1024;
/// The largest file, in bytes.
pub const FILE_MAX: usize = 16 * 1024 * 1024;

/// One thing that a file says; lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // line, name, key, value and message are what they say
pub enum Line<'a> {
    /// `[Name]`.
    Section { line: u32, name: &'a str },
    /// `Key=value`, white space around both taken away, continuation lines joined by a blank.
    Assignment { line: u32, key: String, value: String },
    /// Not understood.
    Bad { line: u32, message: String },
}

/// Splits a text into its lines.
pub fn lines(text: &str) -> Vec<Line<'_>> {
    let mut out = Vec::new();
    let mut pending: Option<(u32, String)> = None;
    for (number, raw) in text.trim_start_matches('\u{feff}').split('\n').enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
        let line = raw.trim();
        // A comment within a continuation is skipped, and the continuation goes on.
        if line.starts_with(['#', ';']) {
            continue;
        }
        if pending.is_none() && line.is_empty() {
            continue;
        }
        let (start, mut joined) = pending.take().unwrap_or((number, String::new()));
        let (body, goes_on) = match continuation(line) {
            Some(body) => (body, true),
            None => (line, false),
        };
        if joined.len().saturating_add(body.len()) > LINE_MAX {
            out.push(Line::Bad {
                line: start,
                message: format!("line is longer than {LINE_MAX} bytes, ignored"),
            });
            continue;
        }
        joined.push_str(body);
        if goes_on {
            joined.push(' ');
            pending = Some((start, joined));
            continue;
        }
        out.push(one(start, raw, joined));
    }
    if let Some((start, joined)) = pending {
        out.push(one(start, "", joined));
    }
    out
}

/// The line without its trailing backslash, when an odd number of them ends it.
fn continuation(line: &str) -> Option<&str> {
    let slashes = line.len().saturating_sub(line.trim_end_matches('\\').len());
    if slashes % 2 == 1 { line.strip_suffix('\\') } else { None }
}

fn one<'a>(line: u32, raw: &'a str, joined: String) -> Line<'a> {
    let text = joined.trim();
    if text.starts_with('[') {
        let name = raw.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        return match name {
            Some(name) if !name.is_empty() => Line::Section { line, name },
            _ => Line::Bad {
                line,
                message: format!("invalid section header '{}', expected '[Section]'", short(text)),
            },
        };
    }
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Line::Assignment { line, key: key.trim().to_owned(), value: value.trim().to_owned() }
        }
        Some(_) => Line::Bad { line, message: "missing key name before '='".to_owned() },
        None => {
            Line::Bad { line, message: format!("missing '=' in '{}', expected 'Key=value'", short(text)) }
        }
    }
}

/// The lines that assign to a key of a section, with what they say.
pub fn assignments(text: &str, section: &str, key: &str) -> Vec<(u32, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in lines(text) {
        match line {
            Line::Section { name, .. } => inside = name == section,
            Line::Assignment { line, key: name, value } if inside && name == key => found.push((line, value)),
            Line::Assignment { .. } | Line::Bad { .. } => {}
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
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn continuations_comments_and_bad_lines() {
        let got = lines("[Unit]\nDescription=a \\\n# in between\n  b\nnonsense\n; c\n=x\n[broken\nA = 1 ");
        assert_eq!(got[0], Line::Section { line: 1, name: "Unit" });
        assert_eq!(got[1], Line::Assignment { line: 2, key: "Description".into(), value: "a  b".into() });
        assert!(matches!(&got[2], Line::Bad { line: 5, message } if message.contains("nonsense")));
        assert!(matches!(&got[3], Line::Bad { line: 7, .. }));
        assert!(matches!(&got[4], Line::Bad { line: 8, .. }));
        assert_eq!(got[5], Line::Assignment { line: 9, key: "A".into(), value: "1".into() });
    }

    #[test]
    fn an_endless_line_is_one_complaint() {
        let text = format!("[Unit]\nDescription={}\nAfter=a.service\n", "x".repeat(LINE_MAX + 1));
        let got = lines(&text);
        assert!(matches!(&got[1], Line::Bad { line: 2, .. }));
        assert_eq!(got[2], Line::Assignment { line: 3, key: "After".into(), value: "a.service".into() });
    }
}
