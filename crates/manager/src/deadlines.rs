//! When what is due: an index over the deadlines of units and jobs, so that a turn costs what changed and not what is
//! loaded. It is derived from the state, and follows the units that changed (`crate::units`), before changes are announced.

use muster_graph::{JobId, UnitId};
use std::collections::{BTreeMap, BTreeSet};

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Unit(UnitId),
    Job(JobId),
    /// What the console says of jobs that take long.
    Console,
}

/// The index, on the monotonic clock in microseconds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadlines {
    by_time: BTreeSet<(u64, Owner)>,
    of: BTreeMap<Owner, u64>,
}

impl Deadlines {
    /// Sets, moves or forgets one. `u64::MAX` is never.
    pub fn set(&mut self, owner: Owner, at_usec: Option<u64>) {
        let at_usec = at_usec.filter(|at| *at != u64::MAX);
        let old = match at_usec {
            Some(at) => self.of.insert(owner, at),
            None => self.of.remove(&owner),
        };
        if old != at_usec {
            if let Some(old) = old {
                self.by_time.remove(&(old, owner));
            }
            self.by_time.extend(at_usec.map(|at| (at, owner)));
        }
    }

    /// The earliest deadline.
    pub fn first(&self) -> Option<u64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// All that are due at `now_usec`.
    pub fn due(&self, now_usec: u64) -> Vec<Owner> {
        self.by_time.iter().take_while(|(at, _)| *at <= now_usec).map(|(_, owner)| *owner).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_set_moved_and_forgotten() {
        let (mut deadlines, unit, job) = (Deadlines::default(), Owner::Unit(UnitId(1)), Owner::Job(JobId(1)));
        deadlines.set(unit, Some(5));
        deadlines.set(job, Some(3));
        assert_eq!((deadlines.first(), deadlines.due(4)), (Some(3), vec![job]));
        deadlines.set(job, Some(u64::MAX));
        deadlines.set(unit, Some(9));
        assert_eq!((deadlines.first(), deadlines.due(8)), (Some(9), vec![]));
        deadlines.set(unit, None);
        assert_eq!(deadlines, Deadlines::default());
    }
}
