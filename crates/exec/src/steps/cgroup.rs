//! When the process enters its unit's cgroup, where the kernel does not make it there.
//!
//! `RestrictFileSystems=` holds for a cgroup with all that is in it, whoever put it there. What must stay true: it hinders the
//! program, and no step before it, the second command of a unit no more than the first.

use super::{About, Direct, Done, Step};
use crate::{Context, Exit, Process};
use muster_unit::ExecSection;
use std::io::Write;

/// The entry. Where a namespace of cgroups is made, it comes before that, which begins where the process is.
pub const ENTRY: Step = Step {
    directive: "RestrictFileSystems=",
    exit: Exit::Cgroup,
    needed: |context: &Context<'_>| is_late(context.exec),
    direct: Direct::No,
    run: |_, process| enter(process),
};

/// Whether it comes late. Who is to close a PAM session stays behind, and has to be the unit's.
pub fn is_late(exec: &ExecSection) -> bool {
    !exec.restrict_file_systems().0.is_free() && exec.pam_name().is_none()
}

/// Enters it, unless that is done.
pub fn enter(process: &mut Process) -> Done {
    match process.cgroup.take() {
        Some(procs) => std::fs::File::from(procs).write_all(b"0").about("cgroup.procs"),
        None => Ok(()),
    }
}
