//! What is wrong with a unit file: a code, the place, what stands there and what was expected.
//!
//! One table of codes gives every message its form. A value reports a [`Fault`], whose place counts from the beginning of the
//! value; the loader adds file, line and directive, which makes it a [`Diagnostic`].

use crate::lexer::{Place, short};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident $id:literal $template:literal,)*) => {
        /// The kinds of diagnostics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Code { $($(#[$meta])* $name,)* }
        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];
            /// The short name, such as `M201`.
            pub fn id(self) -> &'static str {
                match self { $(Code::$name => $id,)* }
            }
            /// The message; `{found}`, `{expected}` and `{directive}` stand for what the diagnostic says.
            fn template(self) -> &'static str {
                match self { $(Code::$name => $template,)* }
            }
        }
    };
}
codes! {
    /// A file cannot be read.
    Unreadable "M001" "{expected}",
    /// The unit as a whole is refused.
    Refused "M002" "{expected} Refusing.",
    /// A program that cannot be executed; only `musterctl verify` looks.
    Command "M003" "command {expected}",
    /// A line in brackets that is no section header.
    Header "M101" "invalid section header '{found}', expected {expected}",
    /// A line without `=`.
    Assignment "M102" "missing '=' in '{found}', expected {expected}",
    /// A line that begins with `=`.
    Key "M103" "missing key name before '='",
    /// A line longer than systemd's own limit.
    LineLength "M104" "line is longer than {expected}, ignored",
    /// An assignment before the first section header.
    NoSection "M105" "{directive}= stands before any section, ignored",
    /// A section that this type of unit does not have.
    UnknownSection "M106" "unknown section '[{found}]', ignored",
    /// A directive that the section does not have.
    UnknownKey "M107" "unknown key '{found}' in section [{expected}], ignored",
    /// A value outside of the grammar of the directive.
    Value "M201" "{directive}=: '{found}': expected {expected}",
    /// A word outside of a closed set.
    Word "M202" "{directive}=: '{found}': expected one of {expected}",
    /// A number, size or weight that is no such number or out of range.
    Number "M203" "{directive}=: '{found}': expected {expected}",
    /// A time span or calendar event.
    Time "M204" "{directive}=: '{found}': expected {expected}",
    /// A path.
    Path "M205" "{directive}=: '{found}': expected {expected}",
    /// The name of a unit, user, interface or the like.
    Name "M206" "{directive}=: '{found}': expected {expected}",
    /// Quotes or escapes.
    Quoting "M207" "{directive}=: '{found}': expected {expected}",
    /// A specifier.
    Specifier "M208" "{directive}=: '{found}': expected {expected}",
    /// More than may be kept.
    Limit "M209" "{directive}=: '{found}': expected {expected}",
    /// A directive that is known and does nothing here.
    NoEffect "M301" "{directive}= has no effect in this version",
    /// A directive under a name of earlier versions.
    Older "M302" "{directive}= is an older name, {expected} replaces it",
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub code: Code,
    /// The part of the value that is wrong, after expansion, shortened for messages.
    pub found: String,
    /// What was expected instead.
    pub expected: Cow<'static, str>,
    /// Where it is: bytes of the value before expansion. `None` for the whole value.
    pub at: Option<Range<usize>>,
}

impl Fault {
    /// A fault of the whole value, until [`Fault::within`] says where.
    pub fn new(code: Code, found: &str, expected: impl Into<Cow<'static, str>>) -> Fault {
        Fault { code, found: short(found), expected: expected.into(), at: None }
    }

    /// Places the fault: at these bytes, or, when it has a place already, that place counted from the first of them.
    pub fn within(mut self, at: Range<usize>) -> Fault {
        self.at = Some(match self.at {
            None => at,
            Some(inner) => at.start.saturating_add(inner.start)..at.start.saturating_add(inner.end),
        });
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = if self.code == Code::Word { "one of " } else { "" };
        write!(out, "'{}': expected {set}{}", self.found, self.expected)
    }
}

impl std::error::Error for Fault {}

/// One diagnostic of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file.
    pub file: String,
    /// The first byte of what is wrong; line 0 for the whole file.
    pub from: Place,
    /// The byte after the last.
    pub to: Place,
    /// Its kind.
    pub code: Code,
    /// The directive; empty when the line assigns to none.
    pub directive: String,
    /// What stands there.
    pub found: String,
    /// What was expected.
    pub expected: Cow<'static, str>,
    /// The unit is refused for it; otherwise the assignment is ignored.
    pub fatal: bool,
}

impl Diagnostic {
    /// A diagnostic of a whole file or unit.
    pub fn whole(file: &str, code: Code, expected: &str) -> Diagnostic {
        Diagnostic {
            file: file.to_owned(),
            from: Place::default(),
            to: Place::default(),
            code,
            directive: String::new(),
            found: String::new(),
            expected: Cow::Owned(expected.to_owned()),
            fatal: true,
        }
    }

    /// The line, from 1; 0 for the whole file.
    pub fn line(&self) -> u32 {
        self.from.line
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> String {
        let mut out = String::new();
        let mut rest = self.code.template();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            out.push_str(before);
            out.push_str(match name {
                "found" => &self.found,
                "expected" => &self.expected,
                _ => &self.directive,
            });
            rest = after;
        }
        out.push_str(rest);
        if self.code.template().starts_with("{directive}=: ") && !self.fatal {
            out.push_str("; ignored");
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line() {
            0 => write!(out, "{}: {}", self.file, self.message()),
            line => write!(out, "{}:{line}: {}", self.file, self.message()),
        }
    }
}

/// A message without the numbers that Rust adds to the kernel's words for an error, `(os error 2)`: they tell a person nothing.
pub fn without_numbers(message: &str) -> Cow<'_, str> {
    const MARK: &str = " (os error ";
    let mut parts = message.split(MARK);
    let first = parts.next().unwrap_or_default();
    if first.len() == message.len() {
        return Cow::Borrowed(message);
    }
    let mut plain = first.to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|sign: char| sign.is_ascii_digit());
        match rest.strip_prefix(')') {
            Some(rest) => plain.push_str(rest),
            None => plain.extend([MARK, part]),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lose_numbers_of_errors() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(
            without_numbers(&format!("/x: {error}, and {error}")),
            "/x: No such file or directory, and No such file or directory"
        );
        for kept in ["", "plain", "odd (os error x)", "odd (os error 2", "(os error 2)"] {
            assert_eq!(without_numbers(kept), kept);
        }
    }

    #[test]
    fn codes_are_unique_and_faults_nest() {
        let ids: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.id()).collect();
        assert_eq!(ids.len(), Code::ALL.len());
        let fault = Fault::new(Code::Value, "x", "y").within(2..3).within(10..20);
        assert_eq!((fault.at.clone(), fault.to_string().as_str()), (Some(12..13), "'x': expected y"));
    }
}
