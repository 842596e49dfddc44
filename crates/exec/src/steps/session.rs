//! Session, signals, file mode, and the security context that follows a peer.

use super::{About, Direct, Step, always};
use crate::Exit;
use muster_sys::Step as Raw;
use nix::sys::stat::{Mode, umask};
use nix::unistd::setsid;

/// A session of its own (setsid(2)). The programs of a mount stay in the process group of PID 1 (`SameProcessGroup` on D-Bus),
/// which autofs lets through to the place where everybody else waits for the mount.
pub const SESSION: Step = Step {
    directive: "a session of its own",
    exit: Exit::Setsid,
    needed: |context| !context.unit.ends_with(".mount"),
    direct: Direct::By(|_, draft| draft.step(Raw::NewSession, Exit::Setsid)),
    run: |_, _| {
        // A leader already has one.
        let _ = setsid();
        Ok(())
    },
};

const SIGPIPE: i32 = 13;

/// `IgnoreSIGPIPE=`; all others have their default action, and none is blocked.
pub const SIGNALS: Step = Step {
    directive: "IgnoreSIGPIPE=",
    exit: Exit::SignalMask,
    needed: always,
    direct: Direct::By(|context, draft| {
        // PID 1 ignores SIGPIPE and nothing else; handlers are gone already.
        if context.exec.ignore_sigpipe() {
            return Some(());
        }
        draft.step(Raw::Signal { number: SIGPIPE, ignore: false }, Exit::SignalMask)
    }),
    run: |context, _| {
        muster_sys::reset_signals(if context.exec.ignore_sigpipe() { &[SIGPIPE] } else { &[] });
        Ok(())
    },
};

/// `UMask=`, which cannot fail.
pub const FILE_MODE: Step = Step {
    directive: "UMask=",
    exit: Exit::Setsid,
    needed: always,
    direct: Direct::By(|context, draft| draft.step(Raw::FileMode(context.exec.umask().0), Exit::Setsid)),
    run: |context, _| {
        umask(Mode::from_bits_truncate(context.exec.umask().0));
        Ok(())
    },
};

/// `SELinuxContextFromNet=` (systemd.socket(5)).
pub const CONTEXT_FROM_PEER: Step = Step {
    directive: "SELinuxContextFromNet=",
    exit: Exit::SelinuxContext,
    needed: |context| context.context_from_peer,
    direct: Direct::No,
    run: |context, _| {
        // The connection is a standard stream, or the one passed descriptor.
        let connection = muster_sys::borrow_fd(if context.has_socket { 0 } else { 3 });
        crate::selinux::follow_peer(connection, &context.command.path).about("SELinuxContextFromNet=")
    },
};
