//! Namespaces, and the view of the file system that is made in them.
//!
//! The others come before that of mounts, since what is mounted there belongs to them. That of users comes last of all,
//! when groups are set: in it a process can do no more to the host than its user could. What `DelegateNamespaces=` names comes
//! behind it, once more in that order, and so belongs to the unit's own user namespace.
//!
//! A command with `+` is in the network, the IPC namespace and the root directory of its unit, and sees what is mounted for
//! it by name (`BindPaths=` and kin). Nothing that only confines holds for it.

use super::{About, Direct, Done, Failed, Step, failed};
use crate::sandbox::{mount, plan};
use crate::{Context, Exit, Process};
use muster_unit::{PrivateTmp, ProtectControlGroups};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::{Mode, umask};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};

/// `NetworkNamespacePath=`.
pub const NETWORK_PATH: Step = Step {
    directive: "NetworkNamespacePath=",
    exit: Exit::Network,
    needed: |context| context.exec.network_namespace_path().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let path = context.exec.network_namespace_path().as_deref().unwrap_or("");
        enter(path, CloneFlags::CLONE_NEWNET).about(&format!("NetworkNamespacePath={path}"))
    },
};

/// `PrivateNetwork=`, with its loopback interface up.
pub const NETWORK: Step = Step {
    needed: |context| has_network(context) && !is_delegated(context, CloneFlags::CLONE_NEWNET),
    ..OWN_NETWORK
};

/// The same, delegated.
pub const OWN_NETWORK: Step = Step {
    directive: "PrivateNetwork=",
    exit: Exit::Network,
    needed: |context| has_network(context) && is_delegated(context, CloneFlags::CLONE_NEWNET),
    direct: Direct::No,
    run: |context, process| match share(pair(context, process, 0), "net", CloneFlags::CLONE_NEWNET) {
        // Without such namespaces in the kernel it is ignored (systemd.exec(5)).
        Err(error) if mount::is_unsupported(error) => Ok(()),
        Err(Errno::EPERM) => go_without(process, "PrivateNetwork="),
        done => done.about("PrivateNetwork="),
    },
};

/// `IPCNamespacePath=`.
pub const IPC_PATH: Step = Step {
    directive: "IPCNamespacePath=",
    exit: Exit::Namespace,
    needed: |context| context.exec.ipc_namespace_path().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let path = context.exec.ipc_namespace_path().as_deref().unwrap_or("");
        enter(path, CloneFlags::CLONE_NEWIPC).about(&format!("IPCNamespacePath={path}"))
    },
};

/// `PrivateIPC=`.
pub const IPC: Step = Step {
    needed: |context| has_ipc(context) && !is_delegated(context, CloneFlags::CLONE_NEWIPC),
    ..OWN_IPC
};

/// The same, delegated.
pub const OWN_IPC: Step = Step {
    directive: "PrivateIPC=",
    exit: Exit::Namespace,
    needed: |context| has_ipc(context) && is_delegated(context, CloneFlags::CLONE_NEWIPC),
    direct: Direct::No,
    run: |context, process| match share(pair(context, process, 1), "ipc", CloneFlags::CLONE_NEWIPC) {
        Err(Errno::EPERM) => go_without(process, "PrivateIPC="),
        Err(error) if !mount::is_unsupported(error) => Err(error).about("PrivateIPC="),
        _ => Ok(()),
    },
};

/// `PrivatePIDs=`: PID 1 made this process as the first of a namespace of processes; all that is left is to see that it did.
pub const PROCESSES: Step = Step {
    directive: "PrivatePIDs=",
    exit: Exit::Namespace,
    needed: |context| context.is_confined() && context.exec.private_pids(),
    direct: Direct::No,
    run: |context, process| {
        if let Some(session) = process.session.take() {
            begin_beside(session, process)?;
        }
        match begins_processes(context) && std::process::id() != 1 {
            true => failed("PrivatePIDs=: this process is not the first of its namespace"),
            false => Ok(()),
        }
    },
};

/// Who is to close a PAM session stays outside, for it outlives the service: this process does, and another one goes on.
fn begin_beside(session: super::pam::Session, process: &Process) -> Done {
    match muster_sys::begin_processes().about("PrivatePIDs=")? {
        Some((number, leader)) => {
            process.tell(&format!("{MOVED}{number}"));
            super::pam::close_after(&leader, session);
            std::process::exit(0)
        }
        None => {
            std::mem::forget(session);
            Ok(())
        }
    }
}

/// What begins the report of the number of the process that goes on.
pub const MOVED: &str = "moved ";

/// Whether a process begins a namespace of processes. Without such namespaces in the kernel it is ignored (systemd.exec(5)).
pub fn begins_processes(context: &Context<'_>) -> bool {
    context.is_confined() && context.exec.private_pids() && std::path::Path::new("/proc/self/ns/pid").exists()
}

/// The namespace of `ProtectHostname=`.
pub const HOSTNAME: Step = Step {
    needed: |context| has_hostname(context) && !is_delegated(context, CloneFlags::CLONE_NEWUTS),
    ..OWN_HOSTNAME
};

/// The same, delegated.
pub const OWN_HOSTNAME: Step = Step {
    directive: "ProtectHostname=",
    exit: Exit::Namespace,
    needed: |context| has_hostname(context) && is_delegated(context, CloneFlags::CLONE_NEWUTS),
    direct: Direct::No,
    run: |context, process| {
        match unshare(CloneFlags::CLONE_NEWUTS) {
            Err(Errno::EPERM) => return go_without(process, "ProtectHostname="),
            done => done.about("ProtectHostname=")?,
        }
        match hostname(context) {
            Some(name) if !name.is_empty() => nix::unistd::sethostname(name).about("ProtectHostname="),
            _ => Ok(()),
        }
    },
};

/// The namespace of `ProtectControlGroups=private` and `strict`.
pub const CONTROL_GROUPS: Step = Step {
    needed: |context| has_groups(context) && !is_delegated(context, CloneFlags::CLONE_NEWCGROUP),
    ..OWN_CONTROL_GROUPS
};

/// The same, delegated.
pub const OWN_CONTROL_GROUPS: Step = Step {
    directive: "ProtectControlGroups=",
    exit: Exit::Namespace,
    needed: |context| has_groups(context) && is_delegated(context, CloneFlags::CLONE_NEWCGROUP),
    direct: Direct::No,
    run: |_, process| {
        super::cgroup::enter(process)?;
        match unshare(CloneFlags::CLONE_NEWCGROUP) {
            Err(Errno::EPERM) => go_without(process, "ProtectControlGroups="),
            done => done.about("ProtectControlGroups="),
        }
    },
};

/// The mount namespace and all that is arranged in it, the root directory included.
pub const MOUNTS: Step = Step {
    needed: |context| has_mounts(context) && !is_delegated(context, CloneFlags::CLONE_NEWNS),
    ..OWN_MOUNTS
};

/// The same, delegated.
pub const OWN_MOUNTS: Step = Step {
    directive: "mount namespace",
    exit: Exit::Namespace,
    needed: has_own_mounts,
    direct: Direct::No,
    run: |context, process| match may_mount() || !plan::can_be_left_out(context.exec) {
        true => crate::limits::with_many_files(|| own_view(context, process.pairs[2].as_ref())),
        false => go_without(
            process,
            "a view of the file system of its own (ProtectSystem=, PrivateTmp= and their kin)",
        ),
    },
};

/// What begins the report of a confinement that is left out.
pub const WITHOUT: &str = "without ";

/// A container's manager that gives no right to make namespaces confines all services by itself: as far as a directive only
/// confines, they run without it (systemd.exec(5), "Sandboxing").
pub(super) fn go_without(process: &Process, what: &str) -> Done {
    process.tell(&format!("{WITHOUT}{what}"));
    Ok(())
}

/// Whether mounts may be made.
pub(super) fn may_mount() -> bool {
    caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap_or(true)
}

fn own_view(context: &Context<'_>, locks: Option<&[OwnedFd; 2]>) -> Done {
    let old = umask(Mode::from_bits_truncate(0o022));
    let confined = context.is_confined();
    let privileged = (!confined).then(|| plan::without_confinement(context.exec));
    let exec = privileged.as_ref().unwrap_or(context.exec);
    let connected = exec.private_tmp() == PrivateTmp::Connected;
    let private_tmp = context.private_tmp.filter(|_| connected).map(mount::private_tmp).transpose()?;
    let facts = plan::Facts {
        private_tmp,
        // Below the host's root a privileged command sees those of all units.
        credentials: (super::credentials::is_needed(context) && (confined || exec.has_own_root()))
            .then(|| super::credentials::directory(context.unit)),
        notifies: context.own_environment.iter().any(|line| line.starts_with("NOTIFY_SOCKET=")),
        // In a user namespace the kernel makes no sysfs where a part of the host's is covered.
        own_network: confined
            && !has_own_mounts(context)
            && (has_own_network(context) || context.exec.network_namespace_path().is_some()),
        own_ipc: confined && (has_own_ipc(context) || context.exec.ipc_namespace_path().is_some()),
        delegates_later: has_own_users(context) && !has_own_mounts(context),
    };
    let picked = crate::image::versions::picked(exec)?;
    let exec = picked.as_ref().unwrap_or(exec);
    let ephemeral = crate::image::ephemeral::root(context, exec, locks)?;
    let done = mount::carry_out(ephemeral.as_ref().unwrap_or(exec), &facts);
    umask(old);
    done
}

/// `UserNamespacePath=`, opened while paths are the host's.
pub const USERS_PATH: Step = Step {
    directive: "UserNamespacePath=",
    exit: Exit::User,
    needed: |context| context.is_confined() && context.exec.user_namespace_path().is_some(),
    direct: Direct::No,
    run: |context, process| {
        let path = context.exec.user_namespace_path().as_deref().unwrap_or("");
        process.users = Some(open(path).about(&format!("UserNamespacePath={path}"))?);
        Ok(())
    },
};

/// `PrivateUsers=`, or the namespace that `UserNamespacePath=` leads to.
pub const USERS: Step = Step {
    directive: "PrivateUsers=",
    exit: Exit::User,
    needed: has_own_users,
    direct: Direct::No,
    run: |context, process| {
        let outside = match has_own_mounts(context) {
            true => None,
            false => super::bpf::Outside::begin(context.exec)?,
        };
        let (uid, gid) = process.owner();
        match (process.users.take(), user_map(context, uid), user_map(context, gid)) {
            (Some(users), ..) => setns(users, CloneFlags::CLONE_NEWUSER).about("UserNamespacePath=")?,
            (None, Some(users), Some(groups)) => own_users(&users, &groups)?,
            _ => return Ok(()),
        }
        outside.map_or(Ok(()), |outside| outside.finish())
    },
};

fn has_own_users(context: &Context<'_>) -> bool {
    let exec = context.exec;
    context.is_confined() && (exec.user_namespace_path().is_some() || user_map(context, 0).is_some())
}

/// Whether a kind of namespace is to belong to the unit's own user namespace.
fn is_delegated(context: &Context<'_>, kind: CloneFlags) -> bool {
    let named = context.exec.delegate_namespaces().map_or(0, |kinds| kinds.0);
    let bit = u64::try_from(kind.bits()).unwrap_or(0);
    has_own_users(context) && named & bit != 0
}

/// Whether the mount namespace is made behind that of users.
pub fn has_own_mounts(context: &Context<'_>) -> bool {
    has_mounts(context) && is_delegated(context, CloneFlags::CLONE_NEWNS)
}

fn has_mounts(context: &Context<'_>) -> bool {
    plan::is_needed(context.exec)
}

fn has_network(context: &Context<'_>) -> bool {
    has_own_network(context)
}

fn has_ipc(context: &Context<'_>) -> bool {
    has_own_ipc(context)
}

fn has_hostname(context: &Context<'_>) -> bool {
    context.is_confined() && hostname(context).is_some()
}

fn has_groups(context: &Context<'_>) -> bool {
    let asked = context.exec.protect_control_groups();
    context.is_confined() && matches!(asked, ProtectControlGroups::Private | ProtectControlGroups::Strict)
}

fn has_own_network(context: &Context<'_>) -> bool {
    context.exec.has_own_network()
}

fn has_own_ipc(context: &Context<'_>) -> bool {
    context.exec.has_own_ipc()
}

/// The name that `ProtectHostname=` gives, empty for none; nothing where it is not asked for.
fn hostname<'a>(context: &Context<'a>) -> Option<&'a str> {
    context.exec.protect_hostname().name()
}

/// Joins the namespace at a path.
fn enter(path: &str, kind: CloneFlags) -> nix::Result<()> {
    setns(open(path)?, kind)
}

fn open(path: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    nix::fcntl::open(path, flags, Mode::empty())
}

/// The pair that holds a namespace of the unit. One that belongs to the user namespace of a process is that process's alone:
/// others have no right to enter it.
fn pair<'a>(context: &Context<'_>, process: &'a Process, number: usize) -> Option<&'a [OwnedFd; 2]> {
    let kind = if number == 0 { CloneFlags::CLONE_NEWNET } else { CloneFlags::CLONE_NEWIPC };
    process.pairs.get(number)?.as_ref().filter(|_| !is_delegated(context, kind))
}

/// Joins the namespace that a pair of sockets holds, or makes one and leaves it there.
///
/// What is sent into one end stays in the queue of the other, where every process of the unit looks at it and leaves it. A
/// lock on the pair keeps two processes that start at once from making one each; it goes with a process that dies.
fn share(pair: Option<&[OwnedFd; 2]>, name: &str, kind: CloneFlags) -> nix::Result<()> {
    let Some([queue, entry]) = pair else { return make(kind) };
    let whole = |kind| nix::libc::flock {
        l_type: i16::try_from(kind).unwrap_or(0),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(queue, FcntlArg::F_SETLKW(&whole(nix::libc::F_WRLCK)))?;
    let joined = match held(queue)? {
        Some(namespace) => setns(namespace, kind),
        None => make(kind).and_then(|()| hold(entry, name)),
    };
    fcntl(queue, FcntlArg::F_SETLK(&whole(nix::libc::F_UNLCK)))?;
    joined
}

/// Joins the network namespace at a path, or that of a pair of sockets, for a process that binds sockets on behalf of a unit.
pub fn enter_network(path: Option<&str>, pair: Option<&[OwnedFd; 2]>) -> nix::Result<()> {
    match path {
        Some(path) => enter(path, CloneFlags::CLONE_NEWNET),
        None => share(pair, "net", CloneFlags::CLONE_NEWNET),
    }
}

/// A new namespace; one of the network with its loopback interface up.
fn make(kind: CloneFlags) -> nix::Result<()> {
    unshare(kind)?;
    match kind == CloneFlags::CLONE_NEWNET {
        true => muster_sys::loopback_up()
            .map_err(|error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0))),
        false => Ok(()),
    }
}

/// The namespace in a queue, if there is one. It stays there.
fn held(queue: &OwnedFd) -> nix::Result<Option<OwnedFd>> {
    let mut byte = [0_u8; 1];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<()>(queue.as_raw_fd(), &mut bytes, Some(&mut space), flags) {
        Err(nix::errno::Errno::EAGAIN) => return Ok(None),
        message => message?,
    };
    let mut fds = message.cmsgs()?.filter_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    Ok(fds.next().map(muster_sys::adopt_fd))
}

/// Leaves this process's namespace in a queue.
fn hold(entry: &OwnedFd, name: &str) -> nix::Result<()> {
    leave(entry, &open(&format!("/proc/self/ns/{name}"))?)
}

/// Leaves a descriptor in a queue.
pub fn leave(entry: &impl AsRawFd, fd: &OwnedFd) -> nix::Result<()> {
    let fds = [fd.as_raw_fd()];
    let parts = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(entry.as_raw_fd(), &[IoSlice::new(b"n")], &parts, MsgFlags::MSG_DONTWAIT, None).map(drop)
}

/// A table of user_namespaces(7) for one id.
fn user_map(context: &Context<'_>, id: u32) -> Option<String> {
    match context.exec.private_users() {
        muster_unit::PrivateUsers::Identity => Some("0 0 65536\n".to_owned()),
        // All ids; in two lines, which a reader can tell from the host's own table.
        muster_unit::PrivateUsers::Full => Some("0 0 1\n1 1 4294967294\n".to_owned()),
        muster_unit::PrivateUsers::SelfOnly if id == 0 => Some("0 0 1\n".to_owned()),
        muster_unit::PrivateUsers::SelfOnly => Some(format!("0 0 1\n{id} {id} 1\n")),
        muster_unit::PrivateUsers::No => None,
    }
}

/// What writes the tables of another process: `muster-executor --map PID`, with both tables on standard input.
pub const MAP: &str = "--map";

/// A process inside may not write tables with ids that are not its own, so one that stays outside does.
fn own_users(users: &str, groups: &str) -> Done {
    let name = "PrivateUsers=";
    let (mut ready, tell) = std::io::pipe().about(name)?;
    let mut helper = Command::new("/proc/self/exe")
        .args([MAP, &std::process::id().to_string()])
        .stdin(Stdio::piped())
        .stdout(tell)
        .stderr(Stdio::null())
        .env_clear()
        .spawn()
        .about(name)?;
    // It says that it is there: only then is the namespace left that it starts in.
    let mut byte = [0_u8; 1];
    ready.read_exact(&mut byte).about(name)?;
    unshare(CloneFlags::CLONE_NEWUSER).about(name)?;
    let mut input = helper.stdin.take();
    if let Some(input) = &mut input {
        input.write_all(format!("{users}-\n{groups}").as_bytes()).about(name)?;
    }
    drop(input);
    let status = helper.wait().about(name)?;
    match status.success() {
        true => Ok(()),
        false => Err(Failed { exit: None, message: format!("{name}: the tables of ids cannot be written") }),
    }
}

/// What the helper does. False when something could not be written.
pub fn write_map(pid: &str) -> bool {
    let write = || -> std::io::Result<()> {
        std::io::stdout().write_all(b".")?;
        std::io::stdout().flush()?;
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        let (users, groups) = text.split_once("-\n").ok_or(std::io::ErrorKind::InvalidData)?;
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        std::fs::write(format!("/proc/{pid}/uid_map"), users)?;
        std::fs::write(format!("/proc/{pid}/gid_map"), groups)
    };
    write().is_ok()
}
