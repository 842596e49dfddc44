//! `OpenFile=` (systemd.service(5)) and `LogExtraFields=`, `LogFilterPatterns=` (systemd.exec(5)) as values.

use crate::diagnostic::{Code, Fault};
use serde::{Deserialize, Serialize};

/// The name of a descriptor that is passed (sd_listen_fds(3)): up to 255 printable ASCII characters without a colon.
pub fn is_descriptor_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b':')
}

/// A file that is opened for a service, or a socket that it is connected with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// Where it is.
    pub path: String,
    /// The name of its descriptor.
    pub name: String,
    /// It is not written. Without this and `append` and `truncate`, it is read and written, or read where that fails.
    pub read_only: bool,
    /// It is read, and what is written is added at its end.
    pub append: bool,
    /// It is made empty first.
    pub truncate: bool,
    /// It may be missing.
    pub graceful: bool,
}

impl OpenFile {
    /// Reads `path:name:options`.
    pub fn parse(text: &str) -> Result<OpenFile, Fault> {
        let mut parts = text.splitn(3, ':');
        let path = parts.next().unwrap_or_default();
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(Fault::new(Code::Path, path, "an absolute path"));
        }
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = parts.next().filter(|name| !name.is_empty()).unwrap_or(last);
        let options = parts.next().unwrap_or_default();
        let mut file = OpenFile {
            path: path.to_owned(),
            name: name.to_owned(),
            read_only: false,
            append: false,
            truncate: false,
            graceful: false,
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "read-only" => file.read_only = true,
                "append" => file.append = true,
                "truncate" => file.truncate = true,
                "graceful" => file.graceful = true,
                _ => {
                    return Err(Fault::new(Code::Word, option, "read-only, append, truncate, graceful"));
                }
            }
        }
        let several = [file.read_only, file.append, file.truncate].iter().filter(|set| **set).count() > 1;
        let named =
            name.len() <= 255 && name.chars().all(|c| c.is_ascii() && !c.is_ascii_control() && c != ':');
        match () {
            () if several => {
                Err(Fault::new(Code::Value, options, "only one of read-only, append and truncate"))
            }
            () if !named => Err(Fault::new(Code::Name, name, "a name without ':' or control characters")),
            () => Ok(file),
        }
    }

    /// 1 read-only, 2 append, 4 truncate, 8 graceful.
    pub fn flags(&self) -> u64 {
        let bits = [(self.read_only, 1), (self.append, 2), (self.truncate, 4), (self.graceful, 8)];
        bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
    }
}

/// A field that journald adds to what a unit logs: `NAME=value`.
pub fn is_log_field(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            && !name.starts_with(|first: char| first == '_' || first.is_ascii_digit())
    })
}

/// `LogFilterPatterns=`: which records are kept, or with `~` which are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPattern {
    /// What matches is kept.
    pub keep: bool,
    /// A regular expression (pcre2pattern(3)).
    pub text: String,
}

impl LogPattern {
    /// Reads a pattern. journald compiles it; here it is refused only where its brackets, groups or escapes do not end.
    pub fn parse(text: &str) -> Result<LogPattern, Fault> {
        let (keep, pattern) = text.strip_prefix('~').map_or((true, text), |rest| (false, rest));
        if pattern.is_empty() || !ends(pattern) {
            return Err(Fault::new(Code::Value, text, "a regular expression, with ~ before it or not"));
        }
        Ok(LogPattern { keep, text: pattern.to_owned() })
    }
}

/// Whether every bracket, group and escape of a pattern ends.
fn ends(pattern: &str) -> bool {
    let mut chars = pattern.chars().peekable();
    let mut groups = 0_u32;
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return false,
            '(' => groups = groups.saturating_add(1),
            ')' if groups == 0 => return false,
            ')' => groups = groups.saturating_sub(1),
            '[' if !class_ends(&mut chars) => return false,
            _ => {}
        }
    }
    groups == 0
}

/// Reads a class to its end; what stands first in it does not end it.
fn class_ends(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    chars.next_if_eq(&'^');
    chars.next_if_eq(&']');
    while let Some(c) = chars.next() {
        match c {
            ']' => return true,
            '\\' => drop(chars.next()),
            // A class by name inside, such as `[:alpha:]`.
            '[' if chars.next_if_eq(&':').is_some() => drop(chars.find(|c| *c == ']')),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_end() {
        for good in ["a", "~[]a]", "[^]]", "(a|[[:alpha:]])+", "\\(", "[\\]]"] {
            assert!(LogPattern::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "~", "bar[", "(a", "a)", "a\\", "[[:alpha:]"] {
            assert!(LogPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_and_fields() {
        let file = OpenFile::parse("/etc/a:b:append,graceful").unwrap();
        assert_eq!((file.name.as_str(), file.flags()), ("b", 10));
        assert_eq!(OpenFile::parse("/etc/a").unwrap().name, "a");
        for bad in ["a", "/a::append,truncate", "/a::x", "/../a"] {
            assert!(OpenFile::parse(bad).is_err(), "{bad}");
        }
        assert!(is_log_field("A_1=b=c"));
        assert!(!is_log_field("_A=b") && !is_log_field("a=b") && !is_log_field("A"));
    }
}
