//! Which controllers a unit needs, and so which ones the cgroups above it give on (systemd.resource-control(5)).
//!
//! What must stay true: a cgroup gives on what something below it needs, and nothing that its slices disable.

use crate::{Defaults, block};
use muster_unit::{CGroupSection, Delegate, PressureWatch};

/// The controllers that are ours to give on, in the order in which they are written.
const NAMES: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// A set of controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers(u8);

impl Controllers {
    /// Those of these names; what is not ours to give is passed over.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Controllers {
        let bit = |name: &str| match name {
            "cpuacct" => Some(0),
            "blkio" => Some(2),
            name => NAMES.iter().position(|known| *known == name),
        };
        Controllers(names.into_iter().filter_map(bit).fold(0, |all, bit| all | 1 << bit))
    }

    /// The one that has this file (`memory.max`).
    pub fn of_file(file: &str) -> Controllers {
        Controllers::named(file.split_once('.').map(|(name, _)| name))
    }

    /// The names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & 1 << bit != 0).map(|(_, name)| *name)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// With those of another set.
    #[must_use]
    pub fn and(self, other: Controllers) -> Controllers {
        Controllers(self.0 | other.0)
    }

    /// Those that are in another set too.
    #[must_use]
    pub fn within(self, other: Controllers) -> Controllers {
        Controllers(self.0 & other.0)
    }

    /// Without those of another set.
    #[must_use]
    pub fn without(self, other: Controllers) -> Controllers {
        Controllers(self.0 & !other.0)
    }
}

/// What a unit needs for what it says; `values` are the attributes that it sets. What is without limit needs nothing.
pub fn needed(config: &CGroupSection, defaults: &Defaults, values: &[(&str, String)]) -> Controllers {
    let memory = config.memory_accounting().unwrap_or(defaults.memory)
        || config.memory_pressure_watch() == PressureWatch::Yes;
    let counted = [
        ("io", config.io_accounting().unwrap_or(defaults.io) || !block::is_silent(config)),
        ("memory", memory),
        ("pids", config.tasks_accounting().unwrap_or(defaults.tasks)),
    ];
    let counted = Controllers::named(counted.iter().filter(|(_, on)| *on).map(|(name, _)| *name));
    let delegated = match config.delegate() {
        Some(Delegate::All) => Controllers::named(NAMES),
        Some(Delegate::Controllers(list)) => Controllers::named(list.iter().map(String::as_str)),
        None => Controllers::default(),
    };
    let limits = values.iter().filter(|(_, value)| value != "max");
    limits.map(|(file, _)| Controllers::of_file(file)).fold(counted.and(delegated), Controllers::and)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_unit::CGroupRow;

    #[test]
    fn what_is_said_needs_its_controllers() {
        let names = |config: &CGroupSection, files: &[&str]| {
            let defaults = Defaults { memory: true, ..Defaults::default() };
            let values: Vec<_> = files.iter().map(|file| (*file, "7".to_owned())).collect();
            needed(config, &defaults, &values).names().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&CGroupSection::default(), &[]), "memory");
        let quiet = CGroupSection::of([CGroupRow::memory_accounting(Some(false))]);
        assert_eq!(names(&quiet, &["cpu.max", "pids.max"]), "cpu pids");
        let delegated = CGroupSection::of([CGroupRow::delegate(Some(Delegate::All))]);
        assert_eq!(names(&delegated, &[]), "cpu cpuset io memory pids");
        let all = Controllers::named(["cpuacct", "blkio", "devices"]);
        assert_eq!(all.names().collect::<Vec<_>>(), ["cpu", "io"]);
        assert!(all.without(all).is_empty());
    }
}
