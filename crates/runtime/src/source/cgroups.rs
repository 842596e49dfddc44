//! Events of cgroups as a source: which hold no process any more, and where the kernel killed for want of memory.
//!
//! Told one at a time, and looked at when it is told: what an event brings about may start a process where none was. What must
//! stay true: a cgroup whose emptiness the kernel does not tell is looked at again by itself.

use super::{KernelSource, World};
use muster_cgroup::{Population, Tree};
use muster_manager::event::Event;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

/// Cgroups whose emptiness the kernel does not tell are looked at this often, in microseconds.
const UNCERTAIN_USEC: u64 = 500_000;

/// What was told of cgroups.
pub struct Cgroups {
    events: RawFd,
    changed: VecDeque<String>,
    killed: VecDeque<String>,
    uncertain_usec: Option<u64>,
}

impl Cgroups {
    /// The events of this tree, which lives as long as this does.
    pub fn of(tree: &Tree) -> Cgroups {
        let (changed, killed) = (VecDeque::new(), VecDeque::new());
        Cgroups { events: tree.events_fd(), changed, killed, uncertain_usec: None }
    }
}

impl KernelSource for Cgroups {
    fn descriptor(&self) -> RawFd {
        self.events
    }

    fn events(&mut self, now_usec: u64, world: &mut World<'_>) -> io::Result<Vec<Event>> {
        self.changed.extend(world.cgroups.drain());
        self.killed.extend(world.cgroups.take_oom_kills());
        if self.uncertain_usec.is_some_and(|at| at <= now_usec) {
            self.uncertain_usec = None;
            self.changed.extend(world.cgroups.take_uncertain());
        }
        if self.uncertain_usec.is_none() && world.cgroups.is_uncertain() {
            self.uncertain_usec = Some(now_usec.saturating_add(UNCERTAIN_USEC));
        }
        while let Some(path) = self.changed.pop_front() {
            if world.cgroups.population(&path) == Population::Empty {
                return Ok(vec![Event::CgroupEmptied { path }]);
            }
        }
        Ok(self.killed.pop_front().map(|path| Event::OomKilled { path }).into_iter().collect())
    }

    fn due_usec(&self) -> Option<u64> {
        self.uncertain_usec
    }

    fn has_more(&self) -> bool {
        !self.changed.is_empty() || !self.killed.is_empty()
    }
}
