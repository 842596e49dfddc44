//! Operations on unit files on disk: what a call asks for, and how its outcome is answered.
//!
//! The work is done outside of PID 1's turn where it may block; here are only its parameters and its answer.

use crate::error::Refusal;
use crate::table::methods;
use crate::wire::{self, Args, Out};
use crate::{Action, Call};
use muster_bus::{Incoming, Outgoing};

/// What to do with unit files. `runtime` means below /run, `force` means over what is in the way.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)] // the fields are the arguments of the methods of org.freedesktop.systemd1(5)
pub enum UnitFileOperation {
    /// `systemctl list-unit-files`; empty lists take all.
    List { states: Vec<String>, patterns: Vec<String> },
    /// `systemctl is-enabled`.
    State { file: String },
    /// `systemctl enable`. With `carries`, the answer says whether there was anything to install.
    Enable { files: Vec<String>, runtime: bool, force: bool },
    /// `systemctl disable`; `carries` as above.
    Disable { files: Vec<String>, runtime: bool, carries: bool },
    /// `systemctl reenable`.
    Reenable { files: Vec<String>, runtime: bool, force: bool },
    /// `systemctl link`.
    Link { files: Vec<String>, runtime: bool, force: bool },
    /// `systemctl preset`; `mode` is `full`, `enable-only` or `disable-only`.
    Preset { files: Vec<String>, mode: String, runtime: bool, force: bool },
    /// `systemctl preset-all`.
    PresetAll { mode: String, runtime: bool, force: bool },
    /// `systemctl mask`.
    Mask { files: Vec<String>, runtime: bool, force: bool },
    /// `systemctl unmask`.
    Unmask { files: Vec<String>, runtime: bool },
    /// `systemctl revert`.
    Revert { files: Vec<String> },
    /// `systemctl set-default`.
    SetDefault { name: String, force: bool },
    /// `systemctl get-default`.
    GetDefault,
    /// `systemctl add-wants`, `add-requires`; `kind` is `Wants` or `Requires`.
    AddDependency { files: Vec<String>, target: String, kind: String, runtime: bool, force: bool },
    /// What `systemctl disable` would remove.
    Links { name: String, runtime: bool },
}

/// The outcome of an operation on unit files.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum UnitFileOutcome {
    /// What was changed: (`symlink` or `unlink` or an error's word, path, target), and whether a file had an
    /// `[Install]` section.
    Changes {
        /// Whether there was anything to install.
        carries_install_info: bool,
        /// The changes in order.
        changes: Vec<(String, String, String)>,
    },
    /// (path, state) of files.
    Files(Vec<(String, String)>),
    /// A state or a name.
    Text(String),
    /// Paths of links.
    Links(Vec<String>),
}

/// `SD_SYSTEMD_UNIT_RUNTIME` of the `…WithFlags` methods.
const RUNTIME: u64 = 1;
/// `SD_SYSTEMD_UNIT_FORCE`.
const FORCE: u64 = 2;
/// `SD_SYSTEMD_UNIT_PORTABLE`: where portable services keep their units.
const PORTABLE: u64 = 4;

fn flags(arguments: &mut Args<'_>) -> Result<(bool, bool), Refusal> {
    let flags = arguments.u64()?;
    if flags & !(RUNTIME | FORCE | PORTABLE) != 0 {
        return Err(Refusal::invalid("Invalid flags parameter"));
    }
    Ok((flags & RUNTIME != 0, flags & FORCE != 0))
}

fn operation(operation: UnitFileOperation) -> Result<Action, Refusal> {
    Ok(Action::UnitFiles(operation))
}

fn list(_: &Call<'_>, arguments: &mut Args<'_>, by_patterns: bool) -> Result<Action, Refusal> {
    let (states, patterns) =
        if by_patterns { (arguments.strings()?, arguments.strings()?) } else { (Vec::new(), Vec::new()) };
    operation(UnitFileOperation::List { states, patterns })
}

fn preset(arguments: &mut Args<'_>, with_mode: bool) -> Result<Action, Refusal> {
    let files = arguments.strings()?;
    let mode = if with_mode { arguments.str()? } else { String::new() };
    let mode = preset_mode(mode)?;
    operation(UnitFileOperation::Preset { files, mode, runtime: arguments.bool()?, force: arguments.bool()? })
}

fn preset_mode(mode: String) -> Result<String, Refusal> {
    match mode.as_str() {
        "" => Ok("full".to_owned()),
        "full" | "enable-only" | "disable-only" => Ok(mode),
        _ => Err(Refusal::invalid(format!("Invalid preset mode: {mode}"))),
    }
}

fn dependency(arguments: &mut Args<'_>) -> Result<Action, Refusal> {
    let (files, target, kind) = (arguments.strings()?, arguments.str()?, arguments.str()?);
    if kind != "Wants" && kind != "Requires" {
        return Err(Refusal::invalid("Invalid dependency type"));
    }
    operation(UnitFileOperation::AddDependency {
        files,
        target,
        kind,
        runtime: arguments.bool()?,
        force: arguments.bool()?,
    })
}

methods! { METHODS {
    ListUnitFiles() -> ("a(ss)" unit_files) Read = |call, arguments| list(call, arguments, false);
    ListUnitFilesByPatterns("as" states, "as" patterns) -> ("a(ss)" unit_files) Read
        = |call, arguments| list(call, arguments, true);
    GetUnitFileState("s" file) -> ("s" state) Read
        = |_, arguments| operation(UnitFileOperation::State { file: arguments.str()? });
    EnableUnitFiles("as" files, "b" runtime, "b" force) -> ("b" carries_install_info, "a(sss)" changes) ManageUnitFiles
        = |_, a| operation(UnitFileOperation::Enable { files: a.strings()?, runtime: a.bool()?, force: a.bool()? });
    DisableUnitFiles("as" files, "b" runtime) -> ("a(sss)" changes) ManageUnitFiles
        = |_, a| operation(UnitFileOperation::Disable { files: a.strings()?, runtime: a.bool()?, carries: false });
    EnableUnitFilesWithFlags("as" files, "t" flags) -> ("b" carries_install_info, "a(sss)" changes) ManageUnitFiles
        = |_, a| {
            let files = a.strings()?;
            let (runtime, force) = flags(a)?;
            operation(UnitFileOperation::Enable { files, runtime, force })
        };
    DisableUnitFilesWithFlags("as" files, "t" flags) -> ("a(sss)" changes) ManageUnitFiles
        = |_, a| {
            let files = a.strings()?;
            let (runtime, _) = flags(a)?;
            operation(UnitFileOperation::Disable { files, runtime, carries: false })
        };
    DisableUnitFilesWithFlagsAndInstallInfo("as" files, "t" flags)
        -> ("b" carries_install_info, "a(sss)" changes) ManageUnitFiles
        = |_, a| {
            let files = a.strings()?;
            let (runtime, _) = flags(a)?;
            operation(UnitFileOperation::Disable { files, runtime, carries: true })
        };
    ReenableUnitFiles("as" files, "b" runtime, "b" force) -> ("b" carries_install_info, "a(sss)" changes) ManageUnitFiles
        = |_, a| operation(UnitFileOperation::Reenable { files: a.strings()?, runtime: a.bool()?, force: a.bool()? });
    LinkUnitFiles("as" files, "b" runtime, "b" force) -> ("a(sss)" changes) ManageUnitFiles
        = |_, a| operation(UnitFileOperation::Link { files: a.strings()?, runtime: a.bool()?, force: a.bool()? });
    PresetUnitFiles("as" files, "b" runtime, "b" force) -> ("b" carries_install_info, "a(sss)" changes) ManageUnitFiles
        = |_, a| preset(a, false);
    PresetUnitFilesWithMode("as" files, "s" mode, "b" runtime, "b" force)
        -> ("b" carries_install_info, "a(sss)" changes) ManageUnitFiles = |_, a| preset(a, true);
    MaskUnitFiles("as" files, "b" runtime, "b" force) -> ("a(sss)" changes) ManageUnitFiles
        = |_, a| operation(UnitFileOperation::Mask { files: a.strings()?, runtime: a.bool()?, force: a.bool()? });
    UnmaskUnitFiles("as" files, "b" runtime) -> ("a(sss)" changes) ManageUnitFiles
        = |_, a| operation(UnitFileOperation::Unmask { files: a.strings()?, runtime: a.bool()? });
    RevertUnitFiles("as" files) -> ("a(sss)" changes) ManageUnitFiles
        = |_, a| operation(UnitFileOperation::Revert { files: a.strings()? });
    SetDefaultTarget("s" name, "b" force) -> ("a(sss)" changes) ManageUnitFiles
        = |_, a| operation(UnitFileOperation::SetDefault { name: a.str()?, force: a.bool()? });
    GetDefaultTarget() -> ("s" name) Read = |_, _| operation(UnitFileOperation::GetDefault);
    PresetAllUnitFiles("s" mode, "b" runtime, "b" force) -> ("a(sss)" changes) ManageUnitFiles
        = |_, a| {
            let mode = preset_mode(a.str()?)?;
            operation(UnitFileOperation::PresetAll { mode, runtime: a.bool()?, force: a.bool()? })
        };
    AddDependencyUnitFiles("as" files, "s" target, "s" type, "b" runtime, "b" force) -> ("a(sss)" changes) ManageUnitFiles
        = |_, a| dependency(a);
    GetUnitFileLinks("s" name, "b" runtime) -> ("as" links) Read
        = |_, a| operation(UnitFileOperation::Links { name: a.str()?, runtime: a.bool()? });
} }

fn write_changes(changes: &[(String, String, String)], out: &mut Out<'_>) {
    out.array("(sss)", |out| {
        for (kind, path, target) in changes {
            out.structure(|out| {
                out.str(kind);
                out.str(path);
                out.str(target);
            });
        }
    });
}

/// Encodes the outcome of an operation as the answer to the message that asked for it.
pub fn unit_files_reply(
    message: &Incoming,
    operation: &UnitFileOperation,
    outcome: &Result<UnitFileOutcome, Refusal>,
) -> Outgoing {
    let outcome = match outcome {
        Err(refusal) => return wire::error_to(message, refusal),
        Ok(outcome) => outcome,
    };
    match outcome {
        UnitFileOutcome::Changes { carries_install_info, changes } if says_carries(operation) => {
            wire::reply_to(message, "ba(sss)", |out| {
                out.bool(*carries_install_info);
                write_changes(changes, out);
            })
        }
        UnitFileOutcome::Changes { changes, .. } => {
            wire::reply_to(message, "a(sss)", |out| write_changes(changes, out))
        }
        UnitFileOutcome::Files(files) => wire::reply_to(message, "a(ss)", |out| {
            out.array("(ss)", |out| {
                for (path, state) in files {
                    out.structure(|out| {
                        out.str(path);
                        out.str(state);
                    });
                }
            });
        }),
        UnitFileOutcome::Text(text) => wire::reply_to(message, "s", |out| out.str(text)),
        UnitFileOutcome::Links(links) => {
            wire::reply_to(message, "as", |out| out.strings(links.iter().map(String::as_str)))
        }
    }
}

/// Whether the answer begins with `carries_install_info`.
fn says_carries(operation: &UnitFileOperation) -> bool {
    match operation {
        UnitFileOperation::Enable { .. }
        | UnitFileOperation::Reenable { .. }
        | UnitFileOperation::Preset { .. } => true,
        UnitFileOperation::Disable { carries, .. } => *carries,
        UnitFileOperation::List { .. }
        | UnitFileOperation::State { .. }
        | UnitFileOperation::Link { .. }
        | UnitFileOperation::PresetAll { .. }
        | UnitFileOperation::Mask { .. }
        | UnitFileOperation::Unmask { .. }
        | UnitFileOperation::Revert { .. }
        | UnitFileOperation::SetDefault { .. }
        | UnitFileOperation::GetDefault
        | UnitFileOperation::AddDependency { .. }
        | UnitFileOperation::Links { .. } => false,
    }
}
