//! The list of network interfaces as a source.

use super::{KernelSource, World};
use muster_manager::event::Event;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The list; every message has it read whole.
pub struct Interfaces(muster_watch::Interfaces);

impl Interfaces {
    pub(super) fn open() -> io::Result<Interfaces> {
        muster_watch::Interfaces::open().map(Interfaces)
    }
}

impl KernelSource for Interfaces {
    fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn events(&mut self, _: u64, _: &mut World<'_>) -> io::Result<Vec<Event>> {
        self.everything()
    }

    fn everything(&mut self) -> io::Result<Vec<Event>> {
        Ok(vec![Event::InterfacesRead { interfaces: self.0.read()? }])
    }
}
