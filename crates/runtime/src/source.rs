//! A kernel source: a descriptor that the loop waits on, and what its readiness means to the manager.
//!
//! The loop knows a source by this trait alone; a source knows nothing of the loop. What must stay true: [`events`] reads the
//! source to its end or says that more waits, since readiness is told once.
//!
//! [`events`]: KernelSource::events

mod devices;
mod interfaces;
mod mounts;
mod swaps;
mod zone;

use mio::Interest;
use muster_manager::event::Event;
use std::io;
use std::os::fd::RawFd;

/// One source.
pub trait KernelSource {
    /// What is waited on.
    fn descriptor(&self) -> RawFd;
    /// What of it is waited for.
    fn interest(&self) -> Interest {
        Interest::READABLE
    }
    /// What happened since the last time; at this moment on the monotonic clock in microseconds.
    fn events(&mut self, now_usec: u64) -> io::Result<Vec<Event>>;
    /// How everything is now: at the start, and when somebody waits for the answer.
    fn everything(&mut self) -> io::Result<Vec<Event>> {
        self.events(u64::MAX)
    }
    /// When it is to be asked without having become ready, on the monotonic clock in microseconds.
    fn due_usec(&self) -> Option<u64> {
        None
    }
    /// Whether more waits than was read.
    fn has_more(&self) -> bool {
        false
    }
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
