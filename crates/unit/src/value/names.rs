//! Names that have a grammar of their own: of variables, on the bus, of log namespaces, labels, references.

use crate::diagnostic::{Code, Fault};
use crate::setting::{Context, Scalar, Setting, append, each_word, is_variable};
use serde::{Deserialize, Serialize};
use std::ops::Deref;

macro_rules! names {
    ($($(#[$meta:meta])* $type:ident |$text:ident| $valid:expr, $expected:literal;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $type(pub String);
        impl Deref for $type {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
        impl Scalar for $type {
            fn read($text: &str) -> Result<Self, Fault> {
                let valid: bool = $valid;
                valid.then(|| $type($text.to_owned())).ok_or_else(|| Fault::new(Code::Name, $text, $expected))
            }
        }
        /// What is wrong is named and skipped.
        impl Setting for Vec<$type> {
            fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
                let (good, rest) = each_word(value, context, <$type as Scalar>::read)?;
                append(self, good)?;
                rest
            }
        }
    )*};
}
names! {
    /// `PassEnvironment=`: the name of a variable.
    VariableName |text| is_variable(text), "the name of a variable";
    /// `UnsetEnvironment=`: the name of a variable, or an assignment.
    VariableMatch |text| is_variable(text.split('=').next().unwrap_or("")), "NAME or NAME=VALUE";
    /// `BusName=` (D-Bus specification, "Bus names").
    BusName |text| is_bus_name(text), "a well-known name on the bus, such as org.example.Service";
    /// `LogNamespace=`: a part of a unit name.
    LogNamespace |text| is_log_namespace(text), "letters, digits and :-_.\\@";
    /// `LUOSession=`, `OOMRules=`: a name that can be one of a file.
    PlainName |text| is_plain(text), "a name of at most 255 characters without slashes";
    /// `Documentation=`.
    Reference |text| is_reference(text), "a URI that begins with http://, https://, file:, info: or man:";
    /// `DelegateSubgroup=`: the name of a cgroup.
    CgroupName |text| is_cgroup_name(text), "the name of a cgroup";
}

fn is_bus_name(text: &str) -> bool {
    let element = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    text.len() <= 255 && text.contains('.') && text.split('.').all(element)
}

fn is_log_namespace(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c))
}

fn is_plain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains('/')
        && !text.contains(char::is_control)
}

fn is_reference(text: &str) -> bool {
    let schemes = ["http://", "https://", "file:/", "info:", "man:"];
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    rest.is_some_and(|rest| !rest.is_empty()) && !text.contains(char::is_control)
}

fn is_cgroup_name(text: &str) -> bool {
    let valid = |c: char| !c.is_control() && c != '/';
    let kernel = ["cgroup.", "notify_on_release", "release_agent", "tasks"];
    (1..=255).contains(&text.len())
        && text.chars().all(valid)
        && !text.starts_with(['_', '.'])
        && !kernel.iter().any(|name| text.starts_with(name))
}

/// `SELinuxContext=` and kin: a label, which may be impossible to set where it begins with `-`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityLabel {
    /// `-`: a failure is ignored.
    pub optional: bool,
    /// The label.
    pub label: String,
}

impl Scalar for SecurityLabel {
    fn read(text: &str) -> Result<Self, Fault> {
        let (optional, label) = text.strip_prefix('-').map_or((false, text), |label| (true, label));
        if label.is_empty() {
            return Err(Fault::new(Code::Name, text, "a label"));
        }
        Ok(SecurityLabel { optional, label: label.to_owned() })
    }
}

/// `ProtectHostname=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProtectHostname {
    /// Nothing.
    #[default]
    No,
    /// A namespace of its own, in which names cannot be changed, with this host name (empty for the same).
    Yes(String),
    /// A namespace of its own, in which names can be changed, with this host name (empty for the same).
    Private(String),
}

impl ProtectHostname {
    /// The host name inside, empty for the same; `None` without a namespace.
    pub fn name(&self) -> Option<&str> {
        match self {
            ProtectHostname::No => None,
            ProtectHostname::Yes(name) | ProtectHostname::Private(name) => Some(name),
        }
    }
}

impl Setting for ProtectHostname {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        let (word, name) = text.split_once(':').unwrap_or((&text, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let named = text.contains(':');
        *self = match (word, crate::value::parse_bool(word)) {
            _ if named && (name.is_empty() || name.len() > 64 || !name.chars().all(plain)) => {
                return Err(Fault::new(Code::Name, name, "a host name of at most 64 characters"));
            }
            ("private", _) => ProtectHostname::Private(name.to_owned()),
            (_, Some(true)) => ProtectHostname::Yes(name.to_owned()),
            (_, Some(false)) if !named => ProtectHostname::No,
            _ => return Err(Fault::new(Code::Value, &text, "a boolean or 'private', and ':NAME' after it")),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_their_grammars() {
        let valid = |good: bool| move |result: bool| assert_eq!(result, good);
        for text in ["org.a", "a.b_c-d"] {
            valid(true)(BusName::read(text).is_ok());
        }
        for text in ["a", "a..b", ":1.5", "a.5", ".a"] {
            valid(false)(BusName::read(text).is_ok());
        }
        assert!(Reference::read("man:x(1)").is_ok() && Reference::read("ftp://x").is_err());
        assert!(CgroupName::read("a b").is_ok() && CgroupName::read("..").is_err());
        assert!(CgroupName::read("cgroup.procs").is_err() && CgroupName::read("a/b").is_err());
        assert!(LogNamespace::read("a@b").is_ok() && LogNamespace::read("a b").is_err());
    }
}
