//! `PAMName=`: a PAM session around the process (systemd.exec(5), pam(8)).
//!
//! The process that becomes the service opens the session, so that it is the session's leader; a child of it, `(sd-pam)`,
//! waits for its end and closes the session. What must stay true: the child keeps no descriptor of the service.

use super::{About, Direct, Done, Step, failed};
use crate::{Context, Exit, Process};
use muster_unit::StdInput;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

/// The step that opens the PAM session.
pub const SESSION: Step =
    Step { directive: "PAMName=", exit: Exit::Pam, needed: is_needed, direct: Direct::No, run };

/// Whether a context needs PAM, and with it the executor that is linked dynamically.
pub fn is_needed(context: &Context<'_>) -> bool {
    context.changes_identity() && context.exec.pam_name().is_some()
}

fn run(context: &Context<'_>, process: &mut Process) -> Done {
    let service = text(context.exec.pam_name().as_deref().unwrap_or_default())?;
    let user = text(process.user.as_ref().map_or("root", |user| user.name.as_str()))?;
    let terminal = terminal(context).map(text).transpose()?;
    let given = process.environment.iter().map(|(name, value)| text(&format!("{name}={value}")));
    let given = given.collect::<Done<Vec<_>>>()?;
    let before = descriptors();
    let session =
        muster_sys::PamSession::open(&service, &user, terminal.as_deref(), &given).about("PAMName=")?;
    for assignment in session.environment() {
        if let Some((name, value)) = assignment.split_once('=') {
            process.set(name, value);
        }
    }
    let session = Session { opened: session, of_service: before };
    // Who closes it has to be outside of a namespace of processes that ends with the service.
    if super::namespaces::begins_processes(context) {
        process.session = Some(session);
        return Ok(());
    }
    let leader = muster_sys::pidfd_open(std::process::id()).about("PAMName=")?;
    muster_sys::in_child(|| close_after(&leader, session)).about("PAMName=").map(drop)
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    opened: muster_sys::PamSession,
    /// The descriptors that were there before: the service's.
    of_service: Vec<i32>,
}

/// Waits for the end of the service.
pub(super) fn close_after(leader: &std::os::fd::OwnedFd, session: Session) {
    // Told to end with the rest of the unit, it does so when the service has.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    let _ = std::fs::write("/proc/self/comm", "(sd-pam)");
    for fd in session.of_service.iter().filter(|fd| **fd != leader.as_raw_fd()) {
        drop(muster_sys::adopt_fd(*fd));
    }
    let mut ended = [PollFd::new(leader.as_fd(), PollFlags::POLLIN)];
    while poll(&mut ended, PollTimeout::NONE).is_err_and(|error| error == nix::errno::Errno::EINTR) {}
    session.opened.close();
}

fn text(text: &str) -> Done<CString> {
    CString::new(text).or_else(|_| failed(format!("PAMName=: a NUL in {text:?}")))
}

/// The terminal of the session, where the service reads from one.
fn terminal<'a>(context: &'a Context<'_>) -> Option<&'a str> {
    let reads =
        matches!(context.exec.standard_input(), StdInput::Tty | StdInput::TtyForce | StdInput::TtyFail);
    reads.then(|| context.exec.tty_path().as_deref().unwrap_or("/dev/console"))
}

/// The numbers of all open descriptors, without that of the directory which tells them: PAM may get its number next.
fn descriptors() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let mut numbers: Vec<i32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.retain(|number| fcntl(muster_sys::borrow_fd(*number), FcntlArg::F_GETFD).is_ok());
    numbers
}
