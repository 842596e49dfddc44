//! Object paths: `/org/freedesktop/systemd1/unit/…` and `…/job/…`, and back.
//!
//! A unit name becomes a path element by the escape of sd_bus_path_encode(3), which `bus` knows.

use muster_bus::bus_path_escape;
use muster_graph::JobId;

/// The manager's object.
pub const MANAGER: &str = "/org/freedesktop/systemd1";
/// The object of org.freedesktop.LogControl1.
pub const LOG_CONTROL: &str = "/org/freedesktop/LogControl1";
/// The object of a bus's own driver.
pub const DRIVER: &str = "/org/freedesktop/DBus";
/// Below it, one object for each unit.
pub const UNITS: &str = "/org/freedesktop/systemd1/unit";
/// Below it, one object for each job.
pub const JOBS: &str = "/org/freedesktop/systemd1/job";

/// A unit's object.
pub fn of_unit(name: &str) -> String {
    format!("{UNITS}/{}", bus_path_escape(name))
}

/// A job's object.
pub fn of_job(job: JobId) -> String {
    format!("{JOBS}/{}", job.0)
}
