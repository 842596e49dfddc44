//! Namespaces, and the view of the file system that is made in them.
//!
//! The others come before that of mounts, since what is mounted there belongs to them. That of users comes last of all,
//! when groups are set: in it a process can do no more to the host than its user could.

use super::{About, Direct, Done, Failed, Step, failed};
use crate::sandbox::{mount, plan};
use crate::{Context, Exit};
use muster_unit::{PrivateTmp, ProtectControlGroups};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, umask};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// `NetworkNamespacePath=`.
pub const NETWORK_PATH: Step = Step {
    directive: "NetworkNamespacePath=",
    exit: Exit::Network,
    needed: |context| context.is_confined() && context.exec.network_namespace_path().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let path = context.exec.network_namespace_path().as_deref().unwrap_or("");
        enter(path, CloneFlags::CLONE_NEWNET).about(&format!("NetworkNamespacePath={path}"))
    },
};

/// `PrivateNetwork=`, with its loopback interface up.
pub const NETWORK: Step = Step {
    directive: "PrivateNetwork=",
    exit: Exit::Network,
    needed: |context| context.is_confined() && has_own_network(context),
    direct: Direct::No,
    run: |context, _| match share(context, "net", CloneFlags::CLONE_NEWNET) {
        // Without such namespaces in the kernel it is ignored (systemd.exec(5)).
        Err(error) if mount::is_unsupported(error) => Ok(()),
        Err(error) => Err(error).about("PrivateNetwork="),
        Ok(false) => Ok(()),
        Ok(true) => muster_sys::loopback_up().about("PrivateNetwork=: loopback interface"),
    },
};

/// `IPCNamespacePath=`.
pub const IPC_PATH: Step = Step {
    directive: "IPCNamespacePath=",
    exit: Exit::Namespace,
    needed: |context| context.is_confined() && context.exec.ipc_namespace_path().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let path = context.exec.ipc_namespace_path().as_deref().unwrap_or("");
        enter(path, CloneFlags::CLONE_NEWIPC).about(&format!("IPCNamespacePath={path}"))
    },
};

/// `PrivateIPC=`.
pub const IPC: Step = Step {
    directive: "PrivateIPC=",
    exit: Exit::Namespace,
    needed: |context| context.is_confined() && has_own_ipc(context),
    direct: Direct::No,
    run: |context, _| match share(context, "ipc", CloneFlags::CLONE_NEWIPC) {
        Err(error) if !mount::is_unsupported(error) => Err(error).about("PrivateIPC="),
        _ => Ok(()),
    },
};

/// The namespace of `ProtectHostname=`.
pub const HOSTNAME: Step = Step {
    directive: "ProtectHostname=",
    exit: Exit::Namespace,
    needed: |context| context.is_confined() && hostname(context).is_some(),
    direct: Direct::No,
    run: |context, _| {
        unshare(CloneFlags::CLONE_NEWUTS).about("ProtectHostname=")?;
        match hostname(context) {
            Some(name) if !name.is_empty() => nix::unistd::sethostname(name).about("ProtectHostname="),
            _ => Ok(()),
        }
    },
};

/// The namespace of `ProtectControlGroups=private` and `strict`.
pub const CONTROL_GROUPS: Step = Step {
    directive: "ProtectControlGroups=",
    exit: Exit::Namespace,
    needed: |context| {
        let asked = context.exec.protect_control_groups();
        context.is_confined() && matches!(asked, ProtectControlGroups::Private | ProtectControlGroups::Strict)
    },
    direct: Direct::No,
    run: |_, _| unshare(CloneFlags::CLONE_NEWCGROUP).about("ProtectControlGroups="),
};

/// The mount namespace and all that is arranged in it, the root directory included.
pub const MOUNTS: Step = Step {
    directive: "mount namespace",
    exit: Exit::Namespace,
    needed: |context| context.is_confined() && plan::is_needed(context.exec),
    direct: Direct::No,
    run: |context, _| {
        let old = umask(Mode::from_bits_truncate(0o022));
        let connected = context.exec.private_tmp() == PrivateTmp::Connected;
        let private_tmp = if connected { Some(mount::private_tmp(&tmp_name(context)?)?) } else { None };
        let facts = plan::Facts {
            private_tmp,
            credentials: super::credentials::is_needed(context)
                .then(|| super::credentials::directory(context.unit)),
            own_network: has_own_network(context) || context.exec.network_namespace_path().is_some(),
            own_ipc: has_own_ipc(context) || context.exec.ipc_namespace_path().is_some(),
        };
        let done = mount::carry_out(context.exec, &facts);
        umask(old);
        done
    },
};

/// `PrivateUsers=`.
pub const USERS: Step = Step {
    directive: "PrivateUsers=",
    exit: Exit::User,
    needed: |context| context.is_confined() && user_map(context, 0).is_some(),
    direct: Direct::No,
    run: |context, process| {
        let (uid, gid) = process.owner();
        let (Some(users), Some(groups)) = (user_map(context, uid), user_map(context, gid)) else {
            return Ok(());
        };
        own_users(&users, &groups)
    },
};

fn has_own_network(context: &Context<'_>) -> bool {
    context.exec.private_network() && context.exec.network_namespace_path().is_none()
}

fn has_own_ipc(context: &Context<'_>) -> bool {
    context.exec.private_ipc() && context.exec.ipc_namespace_path().is_none()
}

/// The name that `ProtectHostname=` gives, empty for none; nothing where it is not asked for.
fn hostname<'a>(context: &Context<'a>) -> Option<&'a str> {
    context.exec.protect_hostname().name()
}

/// Joins the namespace at a path.
fn enter(path: &str, kind: CloneFlags) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    setns(nix::fcntl::open(path, flags, Mode::empty())?, kind)
}

/// Joins the namespace of the unit's main process, or makes a new one where there is none yet; whether it is new. The main
/// process is PID 1's child and not reaped yet, so that its number is nobody else's.
fn share(context: &Context<'_>, name: &str, kind: CloneFlags) -> nix::Result<bool> {
    let main = context.own_environment.iter().find_map(|line| line.strip_prefix("MAINPID="));
    if let Some(pid) = main {
        match enter(&format!("/proc/{pid}/ns/{name}"), kind) {
            // It has ended.
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ESRCH) => {}
            done => return done.map(|()| false),
        }
    }
    unshare(kind).map(|()| true)
}

/// What the unit's private directories are called on the host.
fn tmp_name(context: &Context<'_>) -> Done<String> {
    let invocation = context.own_environment.iter().find_map(|line| line.strip_prefix("INVOCATION_ID="));
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").about("PrivateTmp=: boot id")?;
    match invocation {
        Some(invocation) => {
            Ok(muster_unit::private_tmp_name(&boot.trim().replace('-', ""), context.unit, invocation))
        }
        None => failed("PrivateTmp=: the run has no id"),
    }
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
