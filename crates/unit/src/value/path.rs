//! Paths with what may stand around them: `-` and `+` before, a destination and options behind (systemd.exec(5)).
//!
//! Every path here is absolute and normalized: no `..`, no doubled slash, none at the end.

use crate::diagnostic::{Code, Fault};
use crate::setting::{Context, Scalar, Setting, append, each_word};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;

/// A path that begins at the root, normalized.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AbsolutePath(pub String);

impl AbsolutePath {
    /// Reads a path; doubled slashes, `.` and a slash at the end go.
    pub fn read(text: &str) -> Result<AbsolutePath, Fault> {
        if !text.starts_with('/') {
            return Err(Fault::new(Code::Path, text, "an absolute path"));
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(Fault::new(Code::Path, text, "a path without '..'"));
        }
        Ok(AbsolutePath(format!("/{}", parts.join("/"))))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for AbsolutePath {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Scalar for AbsolutePath {
    fn read(text: &str) -> Result<Self, Fault> {
        AbsolutePath::read(text)
    }
}

/// Paths that are not absolute are named and skipped.
impl Setting for Vec<AbsolutePath> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let (good, rest) = each_word(value, context, AbsolutePath::read)?;
        append(self, good)?;
        rest
    }
}

/// One path an assignment, blanks included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathLines(pub Vec<AbsolutePath>);

impl Setting for PathLines {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        append(&mut self.0, vec![AbsolutePath::read(&context.expand(value)?)?])
    }
}

/// `PIDFile=`: a path; below `/run` where it is relative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFilePath(pub AbsolutePath);

impl Deref for PidFilePath {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Scalar for PidFilePath {
    fn read(text: &str) -> Result<Self, Fault> {
        let absolute = if text.starts_with('/') { text.to_owned() } else { format!("/run/{text}") };
        AbsolutePath::read(&absolute).map(PidFilePath)
    }
}

/// `WorkingDirectory=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingDirectory {
    /// `-`: it may be missing.
    pub optional: bool,
    /// Where; `None` for `~`, the home of the user.
    pub path: Option<AbsolutePath>,
}

impl Scalar for WorkingDirectory {
    fn read(text: &str) -> Result<Self, Fault> {
        let (optional, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let path = if rest == "~" { None } else { Some(AbsolutePath::read(rest)?) };
        Ok(WorkingDirectory { optional, path })
    }
}

impl WorkingDirectory {
    /// The path, or `~`.
    pub fn place(&self) -> &str {
        self.path.as_deref().unwrap_or("~")
    }
}

/// A path of `ReadWritePaths=` and kin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedPath {
    /// `-`: it may be missing.
    pub optional: bool,
    /// `+`: it counts from the root directory of the unit.
    pub in_root: bool,
    /// The path.
    pub path: AbsolutePath,
}

impl MarkedPath {
    fn read(word: &str) -> Result<MarkedPath, Fault> {
        let (optional, rest) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
        let (in_root, rest) = rest.strip_prefix('+').map_or((false, rest), |rest| (true, rest));
        Ok(MarkedPath { optional, in_root, path: AbsolutePath::read(rest)? })
    }
}

impl fmt::Display for MarkedPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = |set: bool, mark: &'static str| if set { mark } else { "" };
        write!(out, "{}{}{}", mark(self.optional, "-"), mark(self.in_root, "+"), self.path.as_str())
    }
}

/// What is wrong is named and skipped.
impl Setting for Vec<MarkedPath> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let (good, rest) = each_word(value, context, MarkedPath::read)?;
        append(self, good)?;
        rest
    }
}

/// `BindPaths=` and `BindReadOnlyPaths=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindPath {
    /// What is bound.
    pub source: AbsolutePath,
    /// Where.
    pub destination: AbsolutePath,
    /// `-`: the source may be missing.
    pub optional: bool,
    /// With what is mounted below it.
    pub recursive: bool,
}

impl BindPath {
    fn read(word: &str) -> Result<BindPath, Fault> {
        let (optional, rest) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
        let mut parts = rest.splitn(3, ':');
        let source = AbsolutePath::read(parts.next().unwrap_or(""))?;
        let destination = parts.next().map_or_else(|| Ok(source.clone()), AbsolutePath::read)?;
        let recursive = match parts.next() {
            None | Some("rbind") => true,
            Some("norbind") => false,
            Some(other) => return Err(Fault::new(Code::Word, other, "rbind, norbind")),
        };
        Ok(BindPath { source, destination, optional, recursive })
    }
}

/// What is wrong is named and skipped.
impl Setting for Vec<BindPath> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let (good, rest) = each_word(value, context, BindPath::read)?;
        append(self, good)?;
        rest
    }
}

/// `TemporaryFileSystem=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemporaryMount {
    /// Where.
    pub path: AbsolutePath,
    /// Mount options.
    pub options: String,
}

/// What is wrong is named and skipped.
impl Setting for Vec<TemporaryMount> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let (good, rest) = each_word(value, context, |word| {
            let (path, options) = word.split_once(':').unwrap_or((word, ""));
            Ok(TemporaryMount { path: AbsolutePath::read(path)?, options: options.to_owned() })
        })?;
        append(self, good)?;
        rest
    }
}

/// `ExecSearchPath=`: directories, divided by colons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchPath(pub Vec<AbsolutePath>);

impl Setting for SearchPath {
    /// What is wrong is named and skipped.
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        let mut fault = None;
        for part in text.split(':').filter(|part| !part.is_empty()) {
            match AbsolutePath::read(part) {
                Ok(path) => append(&mut self.0, vec![path])?,
                Err(wrong) => drop(fault.get_or_insert(wrong)),
            }
        }
        fault.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalized_and_marked() {
        assert_eq!(AbsolutePath::read("//a/./b//").map(|path| path.0), Ok("/a/b".to_owned()));
        assert_eq!(AbsolutePath::read("/").map(|path| path.0), Ok("/".to_owned()));
        assert!(AbsolutePath::read("/a/../b").is_err() && AbsolutePath::read("a").is_err());
        assert_eq!(MarkedPath::read("-+/a/").map(|path| path.to_string()), Ok("-+/a".to_owned()));
        assert!(MarkedPath::read("+-/a").is_err());
        assert!(BindPath::read("/a:/b:norbind").is_ok_and(|bind| !bind.recursive));
        assert!(BindPath::read("/a::").is_err() && BindPath::read("/a:/b:x").is_err());
    }
}
