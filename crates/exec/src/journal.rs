//! The journal's stream protocol (systemd-journald.service(8)): what a service's output begins with.

use muster_unit::{ExecCommand, ExecSection};

/// The directory of journald's sockets: that of the unit's `LogNamespace=`, or the system's.
pub fn directory(exec: &ExecSection) -> String {
    let namespace = exec.log_namespace().as_deref();
    namespace.map_or_else(|| SYSTEM.to_owned(), |namespace| format!("{SYSTEM}.{namespace}"))
}

/// The directory of the system's journald.
pub const SYSTEM: &str = "/run/systemd/journal";

/// Where journald takes streams.
pub fn stream(exec: &ExecSection) -> String {
    format!("{}/stdout", directory(exec))
}

/// The seven lines: identifier, unit, priority, level prefix, and no forwarding of its own.
pub fn header(unit: &str, command: &ExecCommand, exec: &ExecSection) -> String {
    let name = command.path.rsplit('/').next().unwrap_or("");
    // One line each: a line break in a name would begin the next of these lines, and say another unit.
    let identifier = exec.syslog_identifier().as_deref().unwrap_or(name).replace(['\n', '\0'], " ");
    let priority = (exec.syslog_facility() as u8).saturating_mul(8).saturating_add(exec.syslog_level() as u8);
    format!("{identifier}\n{unit}\n{priority}\n{}\n0\n0\n0\n", u8::from(exec.syslog_level_prefix()))
}
