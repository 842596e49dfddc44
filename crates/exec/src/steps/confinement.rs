//! What the process may no longer ask of the kernel: the last steps before the program (see [`crate::seccomp`]).

use super::{Direct, Done, Failed, Step};
use crate::{Context, Exit, Process, seccomp};
use caps::{CapSet, Capability};

// prctl(2).
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_SET_MDWE: i32 = 65;
const PR_MDWE_REFUSE_EXEC_GAIN: u64 = 1;

/// All filters of system calls, and the kernel's own means against writable and executable memory.
pub const FILTERS: Step =
    Step { directive: "SystemCallFilter=", exit: Exit::Seccomp, needed, direct: Direct::No, run };

/// Whether the unit asks for a filter.
pub fn needed(context: &Context<'_>) -> bool {
    context.is_confined() && seccomp::wanted(context.exec)
}

fn about(directive: &str, exit: Exit) -> impl Fn(std::io::Error) -> Failed {
    move |error| Failed { exit: Some(exit), message: format!("{directive} {error}") }
}

fn run(context: &Context<'_>, _: &mut Process) -> Done {
    let exec = context.exec;
    let by_kernel = exec.memory_deny_write_execute() && deny_write_execute()?;
    // Before the first one: what it forbids is not needed any more then.
    let now = muster_sys::personality(u32::MAX).map_err(about("LockPersonality=", Exit::Seccomp))?;
    let mut filters = seccomp::confinements(exec, now);
    filters.retain(|filter| !(by_kernel && filter.directive == seccomp::WRITE_EXECUTE));
    if filters.is_empty() {
        return Ok(());
    }
    if !cfg!(target_arch = "x86_64") {
        return super::failed("filters of system calls are made for x86-64 only");
    }
    may_install()?;
    for filter in filters {
        let families = filter.directive == "RestrictAddressFamilies=";
        let exit = if families { Exit::AddressFamilies } else { Exit::Seccomp };
        muster_sys::install_filter(&filter.program).map_err(about(filter.directive, exit))?;
    }
    Ok(())
}

/// Kernels since 6.3 do it themselves; whether this one does.
fn deny_write_execute() -> Done<bool> {
    match muster_sys::process_control(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(about(seccomp::WRITE_EXECUTE, Exit::Seccomp)(error)),
    }
}

/// The kernel takes filters of those who have CAP_SYS_ADMIN, kept over the change of user for this alone and gone with
/// execve(2); of others only when they gain no privileges by execve(2).
fn may_install() -> Done {
    let admin = Capability::CAP_SYS_ADMIN;
    let has = |set| caps::has_cap(None, set, admin).unwrap_or(false);
    if has(CapSet::Effective)
        || (has(CapSet::Permitted) && caps::raise(None, CapSet::Effective, admin).is_ok())
    {
        return Ok(());
    }
    let done = muster_sys::process_control(PR_SET_NO_NEW_PRIVS, 1, 0);
    done.map(drop).map_err(about("NoNewPrivileges=", Exit::NoNewPrivileges))
}
