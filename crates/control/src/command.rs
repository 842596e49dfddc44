//! `ExecStart` and its kin: a command with how it went last time.
//!
//! The plain form is `(sasbttttuii)`, the one with flags, `Ex`, is `(sasasttttuii)`; both tell the same facts.

use crate::show::Emit;
use crate::wire::Out;
use muster_manager::state::{CommandList, ExecStatus, Process};
use muster_manager::tool::Runs;
use muster_unit::{ExecCommand, Privilege};
use std::collections::BTreeMap;

/// Facts of commands by list and index.
pub type Statuses = BTreeMap<CommandList, BTreeMap<u32, ExecStatus>>;

/// One list of commands.
pub struct Commands<'a> {
    /// The commands.
    pub list: &'a [ExecCommand],
    /// How they went.
    pub status: Option<&'a BTreeMap<u32, ExecStatus>>,
    /// Whether flags are told in words.
    pub with_flags: bool,
}

impl<'a> Commands<'a> {
    /// A list in its plain form.
    pub fn plain(list: &'a [ExecCommand], statuses: &'a Statuses, which: CommandList) -> Commands<'a> {
        Commands { list, status: statuses.get(&which), with_flags: false }
    }

    /// A list with flags.
    pub fn flagged(list: &'a [ExecCommand], statuses: &'a Statuses, which: CommandList) -> Commands<'a> {
        Commands { list, status: statuses.get(&which), with_flags: true }
    }
}

/// The words of `ExecStartEx`.
fn flags(command: &ExecCommand) -> Vec<&'static str> {
    let privilege = match command.privilege {
        Privilege::Normal => None,
        Privilege::Full => Some("privileged"),
        Privilege::NoSetuid => Some("no-setuid"),
        Privilege::NoSetuidIfAmbient => Some("ambient"),
    };
    let ignore = command.ignore_failure.then_some("ignore-failure");
    let literal = command.no_env_expand.then_some("no-env-expand");
    let shell = command.via_shell.then_some("via-shell");
    [ignore, privilege, literal, shell].into_iter().flatten().collect()
}

impl Emit for Commands<'_> {
    fn emit(self, signature: &'static str, out: &mut Out<'_>) {
        let never = ExecStatus::default();
        out.array(signature.get(1..).unwrap_or("("), |out| {
            for (index, command) in (0_u32..).zip(self.list) {
                let status = self.status.and_then(|status| status.get(&index)).unwrap_or(&never);
                out.structure(|out| write(command, status, self.with_flags, out));
            }
        });
    }
}

/// A program of the system that was run for a unit; nothing where it never was.
pub struct Tool<'a>(pub &'a Runs, pub CommandList);

impl Emit for Tool<'_> {
    fn emit(self, signature: &'static str, out: &mut Out<'_>) {
        let argv = self.0.argv.get(&self.1);
        let command = argv.map(|argv| ExecCommand {
            path: argv.first().cloned().unwrap_or_default(),
            argv: argv.clone(),
            ..ExecCommand::default()
        });
        let list = command.as_slice();
        Commands { list, status: self.0.status.get(&self.1), with_flags: false }.emit(signature, out);
    }
}

fn write(command: &ExecCommand, status: &ExecStatus, with_flags: bool, out: &mut Out<'_>) {
    out.str(&command.path);
    out.strings(&command.argv);
    if with_flags {
        out.strings(flags(command));
    } else {
        out.bool(command.ignore_failure);
    }
    for stamp in [status.start, status.exit] {
        out.u64(stamp.realtime_usec);
        out.u64(stamp.monotonic_usec);
    }
    let (code, number) = status.code_and_status();
    out.u32(status.pid);
    out.i32(code);
    out.i32(number);
}

/// The number of a process; 0 for none.
pub fn pid(process: &Option<Process>) -> u32 {
    process.as_ref().and_then(|process| process.pid).unwrap_or(0)
}
