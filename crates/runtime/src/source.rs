//! A kernel source: a descriptor that the loop waits on, and what its readiness means to the manager.
//!
//! The loop knows a source by this trait alone; a source knows nothing of the loop, and of the rest only what [`World`] shows. What must stay true: [`events`] reads the
//! source to its end or says that more waits, since readiness is told once.
//!
//! [`events`]: KernelSource::events

mod cgroups;
mod devices;
mod interfaces;
mod mounts;
pub mod notify;
mod swaps;
mod zone;

pub(crate) use cgroups::Cgroups;

use crate::processes::Processes;
use crate::table::FdTable;
use mio::Interest;
use muster_cgroup::Tree;
use muster_manager::Manager;
use muster_manager::effect::Level;
use muster_manager::event::Event;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// What a source needs of the rest in order to say what its readiness means.
pub struct World<'a> {
    /// All that is known.
    pub manager: &'a Manager,
    /// Cgroups.
    pub cgroups: &'a mut Tree,
    /// Where descriptors get their numbers.
    pub fds: &'a mut FdTable,
    /// Processes, for the one that an event names.
    pub processes: &'a mut Processes,
    /// What is to be said.
    pub complaints: &'a mut Vec<(Level, String)>,
    /// Descriptors of strangers, for somebody else to close.
    pub foreign: &'a mut Vec<OwnedFd>,
}

/// One source.
pub trait KernelSource {
    /// What is waited on.
    fn descriptor(&self) -> RawFd;
    /// What of it is waited for.
    fn interest(&self) -> Interest {
        Interest::READABLE
    }
    /// What happened since the last time; at this moment on the monotonic clock in microseconds. Where an event can change what
    /// the next one means, one at a time.
    fn events(&mut self, now_usec: u64, world: &mut World<'_>) -> io::Result<Vec<Event>>;
    /// How everything is now: at the start, and when somebody waits for the answer. Nothing, where there is no such thing.
    fn everything(&mut self) -> io::Result<Vec<Event>> {
        Ok(Vec::new())
    }
    /// When it is to be asked without having become ready, on the monotonic clock in microseconds.
    fn due_usec(&self) -> Option<u64> {
        None
    }
    /// Whether more waits than was read.
    fn has_more(&self) -> bool {
        false
    }
    /// A word for who is at the other end, where somebody is.
    fn order(&mut self, _word: &[u8]) {}
    /// Whether its descriptor is waited on now; one that rests wakes nobody.
    fn is_watched(&self) -> bool {
        true
    }
}

/// Which source, in the order in which they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceId {
    /// The notify socket.
    Notify,
    /// Events of cgroups.
    Cgroups,
    /// A source that can be opened by its name alone.
    Table(Table),
    /// The helper that watches the paths of a unit, by its process number.
    Paths(u32),
}

/// The sources of which there is one, in the order in which they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The mount table.
    Mounts,
    /// The list of swaps.
    Swaps,
    /// The list of network interfaces.
    Interfaces,
    /// Announcements of udevd.
    Devices,
    /// The local time zone; opened when a timer means it.
    Zone,
}

impl Table {
    /// Those without which PID 1 is of no use.
    pub const NEEDED: [Table; 1] = [Table::Mounts];
    /// Those whose absence means that units of a type cannot be had. Not in a container: there they are its maker's.
    pub const OF_A_MACHINE: [Table; 3] = [Table::Swaps, Table::Interfaces, Table::Devices];

    /// Begins to watch.
    pub fn open(self) -> io::Result<Box<dyn KernelSource>> {
        Ok(match self {
            Table::Mounts => Box::new(mounts::Mounts::open()?),
            Table::Swaps => Box::new(swaps::Swaps::open()?),
            Table::Interfaces => Box::new(interfaces::Interfaces::open()?),
            Table::Devices => Box::new(devices::Devices::open()?),
            Table::Zone => Box::new(zone::Zone::open()?),
        })
    }
}
