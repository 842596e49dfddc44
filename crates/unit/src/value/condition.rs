//! `Condition*=` and `Assert*=` (systemd.unit(5), "Conditions and Asserts"): what to test. The test itself is done
//! where the world can be seen.

use crate::diagnostic::{Code, Fault};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! condition_kinds {
    ($($name:ident,)*) => {
        /// What is tested; the directive's name without `Condition`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs)] // each variant is its directive
        pub enum ConditionKind { $($name,)* }
        impl ConditionKind {
            /// All kinds.
            pub const ALL: &'static [ConditionKind] = &[$(ConditionKind::$name,)*];
            /// The directives: each kind as `Condition…=` and as `Assert…=`.
            pub const DIRECTIVES: &'static [&'static str] =
                &[$(concat!("Condition", stringify!($name)), concat!("Assert", stringify!($name)),)*];
            /// The directive's name without `Condition`.
            pub fn name(self) -> &'static str {
                match self { $(ConditionKind::$name => stringify!($name),)* }
            }
            /// The kind of such a name.
            pub fn from_name(name: &str) -> Option<ConditionKind> {
                match name { $(stringify!($name) => Some(ConditionKind::$name),)* _ => None }
            }
        }
    };
}
condition_kinds! {
    PathExists, PathExistsGlob, PathIsDirectory, PathIsSymbolicLink, PathIsMountPoint, PathIsReadWrite, PathIsEncrypted,
    PathIsSocket, DirectoryNotEmpty, FileNotEmpty, FileIsExecutable, NeedsUpdate, FirstBoot, Architecture, Firmware,
    Virtualization, Host, Fraction, KernelCommandLine, KernelVersion, Version, Credential, Security, Capability, ACPower,
    Memory, CPUFeature, CPUs, Environment, User, Group, ControlGroupController, OSRelease, MachineTag, MemoryPressure,
    CPUPressure, IOPressure, KernelModuleLoaded,
}

impl ConditionKind {
    /// Whether the parameter is a path that must be absolute.
    pub fn is_path(self) -> bool {
        use ConditionKind::*;
        matches!(
            self,
            PathExists
                | PathExistsGlob
                | PathIsDirectory
                | PathIsSymbolicLink
                | PathIsMountPoint
                | PathIsReadWrite
                | PathIsEncrypted
                | PathIsSocket
                | DirectoryNotEmpty
                | FileNotEmpty
                | FileIsExecutable
                | NeedsUpdate
        )
    }
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What is tested.
    pub kind: ConditionKind,
    /// The value that it is compared with.
    pub parameter: String,
    /// `|`: one of these must hold.
    pub trigger: bool,
    /// `!`: it must not hold.
    pub negate: bool,
    /// An `Assert*=`: failing is an error.
    pub assert: bool,
}

impl Condition {
    /// Reads the value of a directive.
    pub fn parse(kind: ConditionKind, assert: bool, value: &str) -> Result<Condition, Fault> {
        let (trigger, rest) =
            value.strip_prefix('|').map_or((false, value), |rest| (true, rest.trim_start()));
        let (negate, rest) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest.trim_start()));
        if rest.is_empty() || (kind.is_path() && !rest.starts_with('/')) {
            let expected = if kind.is_path() {
                "an absolute path after the prefixes"
            } else {
                "a value after the prefixes"
            };
            return Err(Fault::new(Code::Value, rest, expected));
        }
        let slash = if kind.is_path() && rest.len() > 1 { rest.trim_end_matches('/') } else { rest };
        let parameter = if slash.is_empty() { "/" } else { slash }.to_owned();
        Ok(Condition { kind, parameter, trigger, negate, assert })
    }

    /// The directive's name.
    pub fn directive(&self) -> String {
        format!("{}{}", if self.assert { "Assert" } else { "Condition" }, self.kind.name())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trigger, negate) = (if self.trigger { "|" } else { "" }, if self.negate { "!" } else { "" });
        write!(out, "{}={trigger}{negate}{}", self.directive(), self.parameter)
    }
}
