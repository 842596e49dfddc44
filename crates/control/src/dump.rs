//! `Dump`: what the manager knows, as text for people.
//!
//! The form is nobody's contract (org.freedesktop.systemd1(5)); it must only be bounded by the number of units.

use muster_manager::Manager;
use muster_manager::state::Unit;
use std::fmt::Write;

/// All units, or those whose names match one of the patterns.
pub fn text(manager: &Manager, patterns: &[String]) -> String {
    let mut out = String::new();
    let named = |unit: &&Unit| {
        patterns.is_empty()
            || patterns.iter().any(|pattern| muster_unit::glob::matches(pattern, unit.name.as_str()))
    };
    if patterns.is_empty() {
        let _ = writeln!(out, "Manager: {}", manager.system_state().as_str());
    }
    for unit in manager.state().units.values().map(Box::as_ref).filter(named) {
        // Writing to a String cannot fail.
        let _ = write_unit(&mut out, unit);
    }
    for job in manager.state().jobs.values().filter(|_| patterns.is_empty()) {
        let unit = manager.unit_by_id(job.unit).map_or("", |unit| unit.name.as_str());
        let state = if job.running { "running" } else { "waiting" };
        let _ = writeln!(out, "-> Job {}: {unit} {} {state} ({})", job.id.0, job.kind.as_str(), job.cause);
    }
    out
}

fn write_unit(out: &mut String, unit: &Unit) -> std::fmt::Result {
    writeln!(out, "-> Unit {}:", unit.name)?;
    writeln!(out, "\tDescription: {}", unit.description())?;
    writeln!(out, "\tUnit Load State: {}", unit.file.load_state.as_str())?;
    writeln!(out, "\tUnit Active State: {} ({})", unit.active_state().as_str(), unit.sub_state())?;
    for path in unit.file.fragment_path.iter().chain(&unit.file.drop_in_paths) {
        writeln!(out, "\tFile: {path}")?;
    }
    if let Some(cgroup) = &unit.cgroup {
        writeln!(out, "\tCGroup: {cgroup}")?;
    }
    for cause in &unit.causes {
        writeln!(out, "\tCause: {}us: {}", cause.at_usec, cause.text)?;
    }
    Ok(())
}
