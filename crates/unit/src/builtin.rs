//! Units that are there without a file, so that an image without systemd's unit files boots (systemd.special(7)).
//! A file of the same name anywhere on the search path takes their place.

/// The text of a built-in unit.
pub fn text(name: &str) -> Option<&'static str> {
    UNITS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The names of all built-in units.
pub fn names() -> impl Iterator<Item = &'static str> {
    UNITS.iter().map(|(name, _)| *name)
}

/// Other names of built-in units.
pub fn alias(name: &str) -> Option<&'static str> {
    Some(match name {
        "default.target" | "runlevel2.target" | "runlevel3.target" | "runlevel4.target" => {
            "multi-user.target"
        }
        "runlevel5.target" => "graphical.target",
        "runlevel0.target" => "poweroff.target",
        "runlevel1.target" => "rescue.target",
        "runlevel6.target" | "ctrl-alt-del.target" => "reboot.target",
        _ => return None,
    })
}

macro_rules! bare {
    ($description:literal) => {
        concat!("[Unit]\nDescription=", $description, "\n")
    };
}
macro_rules! ending {
    ($description:literal, $service:literal) => {
        concat!(
            "[Unit]\nDescription=",
            $description,
            "\nDefaultDependencies=no\nRequires=",
            $service,
            "\nAfter=",
            $service,
            "\nAllowIsolate=yes\nJobTimeoutSec=30min\n"
        )
    };
}
macro_rules! ending_service {
    ($description:literal, $action:literal) => {
        concat!(
            "[Unit]\nDescription=",
            $description,
            "\nDefaultDependencies=no\nRequires=shutdown.target umount.target final.target\n",
            "After=shutdown.target umount.target final.target\nSuccessAction=",
            $action,
            "\n[Service]\nType=oneshot\n"
        )
    };
}

const UNITS: &[(&str, &str)] = &[
    (
        "sysinit.target",
        "[Unit]\nDescription=System Initialization\nConflicts=emergency.service emergency.target\nWants=local-fs.target swap.target\nAfter=local-fs.target swap.target emergency.service emergency.target\n",
    ),
    (
        "basic.target",
        "[Unit]\nDescription=Basic System\nRequires=sysinit.target\nWants=sockets.target timers.target paths.target slices.target\nAfter=sysinit.target sockets.target paths.target slices.target\n",
    ),
    (
        "multi-user.target",
        "[Unit]\nDescription=Multi-User System\nRequires=basic.target\nConflicts=rescue.service rescue.target\nAfter=basic.target rescue.service rescue.target\nAllowIsolate=yes\n",
    ),
    (
        "graphical.target",
        "[Unit]\nDescription=Graphical Interface\nRequires=multi-user.target\nConflicts=rescue.service rescue.target\nAfter=multi-user.target rescue.service rescue.target\nAllowIsolate=yes\n",
    ),
    (
        "rescue.target",
        "[Unit]\nDescription=Rescue Mode\nRequires=sysinit.target\nAfter=sysinit.target\nAllowIsolate=yes\n",
    ),
    ("emergency.target", "[Unit]\nDescription=Emergency Mode\nDefaultDependencies=no\nAllowIsolate=yes\n"),
    ("sockets.target", bare!("Socket Units")),
    (
        "timers.target",
        "[Unit]\nDescription=Timer Units\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n",
    ),
    ("paths.target", bare!("Path Units")),
    (
        "slices.target",
        "[Unit]\nDescription=Slice Units\nWants=-.slice system.slice\nAfter=-.slice system.slice\n",
    ),
    ("getty.target", bare!("Login Prompts")),
    (
        "local-fs.target",
        "[Unit]\nDescription=Local File Systems\nDefaultDependencies=no\nConflicts=shutdown.target\nAfter=local-fs-pre.target\n",
    ),
    ("local-fs-pre.target", bare!("Preparation for Local File Systems")),
    (
        "remote-fs.target",
        "[Unit]\nDescription=Remote File Systems\nDefaultDependencies=no\nConflicts=shutdown.target\n",
    ),
    ("swap.target", "[Unit]\nDescription=Swaps\nDefaultDependencies=no\nConflicts=shutdown.target\n"),
    ("network.target", "[Unit]\nDescription=Network\n"),
    (
        "shutdown.target",
        "[Unit]\nDescription=System Shutdown\nDefaultDependencies=no\nRefuseManualStart=yes\n",
    ),
    (
        "umount.target",
        "[Unit]\nDescription=Unmount All Filesystems\nDefaultDependencies=no\nRefuseManualStart=yes\n",
    ),
    (
        "final.target",
        "[Unit]\nDescription=Late Shutdown Services\nDefaultDependencies=no\nRefuseManualStart=yes\nAfter=shutdown.target umount.target\n",
    ),
    ("poweroff.target", ending!("System Power Off", "systemd-poweroff.service")),
    ("reboot.target", ending!("System Reboot", "systemd-reboot.service")),
    ("halt.target", ending!("System Halt", "systemd-halt.service")),
    ("kexec.target", ending!("Reboot via kexec", "systemd-kexec.service")),
    ("soft-reboot.target", ending!("Reboot System Userspace", "systemd-soft-reboot.service")),
    ("exit.target", ending!("Exit the container", "systemd-exit.service")),
    ("systemd-poweroff.service", ending_service!("System Power Off", "poweroff-force")),
    ("systemd-reboot.service", ending_service!("System Reboot", "reboot-force")),
    ("systemd-halt.service", ending_service!("System Halt", "halt-force")),
    ("systemd-kexec.service", ending_service!("Reboot via kexec", "kexec-force")),
    ("systemd-soft-reboot.service", ending_service!("Reboot System Userspace", "soft-reboot-force")),
    ("systemd-exit.service", ending_service!("Exit the Session", "exit-force")),
    (
        "-.slice",
        "[Unit]\nDescription=Root Slice\nDocumentation=man:systemd.special(7)\nDefaultDependencies=no\n",
    ),
    (
        "system.slice",
        "[Unit]\nDescription=System Slice\nDocumentation=man:systemd.special(7)\nDefaultDependencies=no\n",
    ),
    (
        "init.scope",
        "[Unit]\nDescription=System and Service Manager\nDocumentation=man:systemd(1)\nDefaultDependencies=no\n",
    ),
    ("-.mount", "[Unit]\nDescription=Root Mount\nDefaultDependencies=no\n"),
];
