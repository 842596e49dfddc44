//! The list of swaps (proc_swaps(5)) as a source. It is short, and read whole.

use super::{KernelSource, World};
use mio::Interest;
use muster_manager::event::{Event, SwapFound};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The list, open.
pub struct Swaps(muster_watch::SwapTable);

impl Swaps {
    pub(super) fn open() -> io::Result<Swaps> {
        muster_watch::SwapTable::open().map(Swaps)
    }
}

impl KernelSource for Swaps {
    fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn interest(&self) -> Interest {
        Interest::READABLE | Interest::PRIORITY
    }

    fn events(&mut self, _: u64, _: &mut World<'_>) -> io::Result<Vec<Event>> {
        self.everything()
    }

    fn everything(&mut self) -> io::Result<Vec<Event>> {
        let found = self.0.read()?.into_iter();
        let swaps = found.map(|swap| SwapFound { path: swap.path, priority: swap.priority }).collect();
        Ok(vec![Event::SwapsRead { swaps }])
    }
}
