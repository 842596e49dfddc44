//! Labels of mandatory access control: `SELinuxContext=`, `AppArmorProfile=`, `SmackProcessLabel=` (systemd.exec(5)).
//!
//! What must stay true: where the kernel's module does not run, nothing happens, and that is looked at before the root changes
//! (`needed` is asked of all steps first); a label that cannot be set starts nothing, but for one that begins with `-`.

use super::{About, Direct, Done, Step};
use crate::{Context, Exit};
use muster_unit::SecurityLabel;
use std::fs;
use std::io;
use std::path::Path;

/// `SELinuxContext=`: the context of the next execution.
pub const SELINUX: Step = Step {
    directive: "SELinuxContext=",
    exit: Exit::SelinuxContext,
    needed: |context| {
        asked(context, context.exec.selinux_context()) && Path::new("/sys/fs/selinux/enforce").exists()
    },
    direct: Direct::No,
    run: |context, _| {
        set("SELinuxContext=", context.exec.selinux_context(), |label| {
            fs::write("/proc/self/attr/exec", label)
        })
    },
};

/// `AppArmorProfile=`: the profile of the next execution.
pub const APPARMOR: Step = Step {
    directive: "AppArmorProfile=",
    exit: Exit::ApparmorProfile,
    needed: |context| asked(context, context.exec.app_armor_profile()) && apparmor_runs(),
    direct: Direct::No,
    run: |context, _| {
        set("AppArmorProfile=", context.exec.app_armor_profile(), |profile| {
            write_own("apparmor", "exec", &format!("exec {profile}"))
        })
    },
};

/// `SmackProcessLabel=`: the label from now on. It takes CAP_MAC_ADMIN.
pub const SMACK: Step = Step {
    directive: "SmackProcessLabel=",
    exit: Exit::SmackProcessLabel,
    needed: |context| {
        asked(context, context.exec.smack_process_label()) && Path::new("/sys/fs/smackfs/load2").exists()
    },
    direct: Direct::No,
    run: |context, _| {
        set("SmackProcessLabel=", context.exec.smack_process_label(), |label| {
            write_own("smack", "current", label)
        })
    },
};

fn asked(context: &Context<'_>, label: &Option<SecurityLabel>) -> bool {
    context.is_confined() && label.is_some()
}

fn apparmor_runs() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn set(directive: &str, label: &Option<SecurityLabel>, write: impl Fn(&str) -> io::Result<()>) -> Done {
    let Some(label) = label else { return Ok(()) };
    match write(&label.label) {
        Err(_) if label.optional => Ok(()),
        done => done.about(&format!("{directive}{}", label.label)),
    }
}

/// Writes an attribute of this process (proc_pid_attr(5)): the module's own, or where the kernel is older the one that all share.
fn write_own(module: &str, name: &str, value: &str) -> io::Result<()> {
    match fs::write(format!("/proc/self/attr/{module}/{name}"), value) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && !Path::new("/proc/self/attr").join(module).exists() =>
        {
            fs::write(format!("/proc/self/attr/{name}"), value)
        }
        done => done,
    }
}
