//! User, groups, capabilities, no-new-privileges.

use super::{About, Direct, Done, Step, failed};
use crate::{Context, Exit, RUNS_AS};
use muster_sys::Step as Raw;
use muster_unit::CapabilitySet;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// A user, as /etc/passwd or its number says.
#[derive(Clone, Debug)]
pub struct User {
    /// The name of the user.
    pub name: String,
    /// The user ID.
    pub uid: u32,
    /// The primary group ID.
    pub gid: u32,
    /// The home directory.
    pub home: String,
    /// The login shell.
    pub shell: String,
}

/// `User=`, looked up.
pub const USER_NAME: Step = Step {
    directive: "User=",
    exit: Exit::User,
    needed: |context| context.exec.user().is_some(),
    direct: Direct::No,
    run: |context, process| {
        let name = context.exec.user().as_deref();
        process.user = match (name, context.exec.dynamic_user()) {
            (Some(name), true) => {
                let before = super::directories::owner_before(context);
                Some(super::dynamic::user(name, before, process)?)
            }
            (name, _) => name.map(find_user).transpose()?,
        };
        process.gid = process.user.as_ref().map(|user| user.gid);
        Ok(())
    },
};

/// `Group=`, looked up; PID 1 is told who owns what this process makes.
pub const GROUP_NAME: Step = Step {
    directive: "Group=",
    exit: Exit::Group,
    needed: |context| context.exec.user().is_some() || context.exec.group().is_some(),
    direct: Direct::No,
    run: |context, process| {
        let exec = context.exec;
        let group = match (exec.group().as_deref(), exec.dynamic_user()) {
            (Some(name), true) if exec.user().as_deref() == Some(name) => None,
            (Some(name), true) => Some(super::dynamic::group(name, process)?),
            (name, _) => name.map(find_group).transpose()?,
        };
        process.gid = group.or(process.gid);
        let (uid, gid) = process.owner();
        process.tell(&format!("{RUNS_AS}{uid} {gid}"));
        Ok(())
    },
};

const PR_CAPBSET_DROP: i32 = 24;
const PR_SET_KEEPCAPS: i32 = 8;
const PR_SET_NO_NEW_PRIVS: i32 = 38;
const PR_GET_SECUREBITS: i32 = 27;
const PR_SET_SECUREBITS: i32 = 28;

/// `CapabilityBoundingSet=`.
pub const BOUNDING_SET: Step = Step {
    directive: "CapabilityBoundingSet=",
    exit: Exit::Capabilities,
    needed: |context| context.is_confined() && context.exec.bounding_set().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let Some(CapabilitySet(bounding)) = context.exec.bounding_set() else { return Ok(()) };
        let dropped = muster_unit::CAPABILITIES.iter().enumerate();
        for (number, name) in dropped.filter(|(number, _)| (bounding >> number) & 1 == 0) {
            match muster_sys::process_control(PR_CAPBSET_DROP, u64::try_from(number).unwrap_or(0), 0) {
                // A capability that the kernel does not know cannot be had either.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {}
                done => {
                    done.about(&format!("CapabilityBoundingSet=: {name}"))?;
                }
            }
        }
        Ok(())
    },
};

fn has_ambient(context: &Context<'_>) -> bool {
    context.is_confined() && context.exec.ambient_capabilities().0 != 0
}

/// What `AmbientCapabilities=` and filters of system calls need over the change of user.
pub const KEEP_CAPABILITIES: Step = Step {
    directive: "AmbientCapabilities=",
    exit: Exit::Capabilities,
    needed: |context| {
        let later = super::confinement::needed(context) || context.exec.secure_bits().0 != 0;
        has_ambient(context) || (context.exec.user().is_some() && later)
    },
    direct: Direct::No,
    run: |_, _| muster_sys::process_control(PR_SET_KEEPCAPS, 1, 0).about("AmbientCapabilities=").map(drop),
};

/// `Group=`, the groups that list the user, and `SupplementaryGroups=`.
pub const GROUPS: Step = Step {
    directive: "Group=",
    exit: Exit::Group,
    needed: |context| {
        let exec = context.exec;
        exec.user().is_some()
            || (context.changes_identity()
                && (exec.group().is_some() || !exec.supplementary_groups().is_empty()))
    },
    direct: Direct::No,
    run: |context, process| {
        let mut groups: Vec<Gid> =
            process.user.as_ref().map(|user| groups_of(&user.name)).unwrap_or_default();
        let changes = context.changes_identity();
        for name in context.exec.supplementary_groups().iter().filter(|_| changes) {
            groups.push(Gid::from_raw(find_group(name)?));
        }
        let gid = process.gid.map(Gid::from_raw);
        groups.extend(gid);
        setgroups(&groups).about("SupplementaryGroups=")?;
        // A command that stays root has the user's groups beside its own, as under systemd.
        gid.filter(|_| changes).map_or(Ok(()), |gid| setgid(gid).about("Group="))
    },
};

/// `User=`.
pub const USER: Step = Step {
    directive: "User=",
    exit: Exit::User,
    needed: |context| context.changes_identity() && context.exec.user().is_some(),
    direct: Direct::No,
    run: |_, process| {
        let Some(user) = &process.user else { return Ok(()) };
        setuid(Uid::from_raw(user.uid)).about("User=")
    },
};

/// `AmbientCapabilities=`.
pub const AMBIENT: Step = Step {
    directive: "AmbientCapabilities=",
    exit: Exit::Capabilities,
    needed: has_ambient,
    direct: Direct::No,
    run: |context, _| {
        let ambient = context.exec.ambient_capabilities().0;
        // What PID 1 itself cannot have, in a container, the service does without.
        let had = caps::read(None, caps::CapSet::Bounding).about("AmbientCapabilities=")?;
        let all: caps::CapsHashSet = caps::all()
            .into_iter()
            .filter(|cap| (ambient >> cap.index()) & 1 == 1 && had.contains(cap))
            .collect();
        caps::set(None, caps::CapSet::Inheritable, &all).about("AmbientCapabilities=")?;
        caps::set(None, caps::CapSet::Ambient, &all).about("AmbientCapabilities=")
    },
};

/// `SecureBits=`; after the user, whose change some of the bits would forbid.
pub const SECURE_BITS: Step = Step {
    directive: "SecureBits=",
    exit: Exit::Securebits,
    needed: |context| context.is_confined() && context.exec.secure_bits().0 != 0,
    direct: Direct::No,
    run: |context, _| {
        let wanted = u64::from(context.exec.secure_bits().0);
        let now = muster_sys::process_control(PR_GET_SECUREBITS, 0, 0).about("SecureBits=")?;
        // Those that need the right to set them have it only before the user changes, unless it was kept.
        let _ = caps::raise(None, caps::CapSet::Effective, caps::Capability::CAP_SETPCAP);
        const KEEP_CAPS: u64 = 16;
        let all = wanted | (u64::try_from(now).unwrap_or(0) & !KEEP_CAPS);
        muster_sys::process_control(PR_SET_SECUREBITS, all, 0).about("SecureBits=").map(drop)
    },
};

/// `NoNewPrivileges=`.
pub const NO_NEW_PRIVILEGES: Step = Step {
    directive: "NoNewPrivileges=",
    exit: Exit::NoNewPrivileges,
    needed: |context| context.is_confined() && context.exec.no_new_privileges(),
    direct: Direct::By(|_, draft| {
        draft.step(Raw::Control { option: PR_SET_NO_NEW_PRIVS, value: 1 }, Exit::NoNewPrivileges)
    }),
    run: |_, _| muster_sys::process_control(PR_SET_NO_NEW_PRIVS, 1, 0).about("NoNewPrivileges=").map(drop),
};

fn database(path: &str, wanted: &str, kind: &str) -> Option<Vec<String>> {
    let find = |text: &str| {
        let lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
        let mut matching = lines.filter(|fields| {
            fields.first().is_some_and(|name| name == wanted) || fields.get(2).is_some_and(|id| id == wanted)
        });
        matching.next()
    };
    find(&std::fs::read_to_string(path).unwrap_or_default()).or_else(|| {
        // Users of a directory service: the C library's own tool asks it.
        let output = std::process::Command::new("getent").args([kind, wanted]).output().ok()?;
        find(&String::from_utf8_lossy(&output.stdout))
    })
}

/// A user by name or number.
pub fn find_user(wanted: &str) -> Done<User> {
    let entry = database("/etc/passwd", wanted, "passwd");
    let number = |fields: &[String], at: usize| fields.get(at).and_then(|text| text.parse::<u32>().ok());
    if let Some(fields) = entry {
        let text = |at: usize| fields.get(at).cloned().unwrap_or_default();
        if let (Some(uid), Some(gid)) = (number(&fields, 2), number(&fields, 3)) {
            return Ok(User { name: text(0), uid, gid, home: text(5), shell: text(6) });
        }
    }
    // Root is there even where no database is.
    match wanted {
        "root" | "0" => Ok(User {
            name: "root".to_owned(),
            uid: 0,
            gid: 0,
            home: "/root".to_owned(),
            shell: "/bin/sh".to_owned(),
        }),
        _ => failed(format!("user {wanted}: there is no such user")),
    }
}

/// A group by name or number.
pub fn find_group(wanted: &str) -> Done<u32> {
    let entry = database("/etc/group", wanted, "group").and_then(|fields| fields.get(2)?.parse().ok());
    let found = entry.or_else(|| matches!(wanted, "root" | "0").then_some(0));
    found.map_or_else(|| failed(format!("group {wanted}: there is no such group")), Ok)
}

/// Groups that list a user in /etc/group.
fn groups_of(name: &str) -> Vec<Gid> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let listed = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        fields.get(3)?.split(',').any(|member| member == name).then(|| fields.get(2)?.parse().ok())?
    });
    listed.map(Gid::from_raw).collect()
}
