//! Every descriptor that the manager names: opaque ids outside, owned descriptors inside.
//!
//! Ids are never used twice in one boot, so that an id of the past names nothing.

use muster_manager::effect::FdId;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// All open descriptors by ID.
#[derive(Debug, Default)]
pub struct FdTable {
    next: u64,
    fds: BTreeMap<FdId, OwnedFd>,
}

impl FdTable {
    /// Gives out ids after this one only.
    pub fn continue_after(&mut self, last: u64) {
        self.next = self.next.max(last);
    }

    /// Takes a descriptor.
    pub fn insert(&mut self, fd: OwnedFd) -> FdId {
        self.next = self.next.saturating_add(1);
        let id = FdId(self.next);
        self.fds.insert(id, fd);
        id
    }

    /// Puts a descriptor back under the id that it had before a re-execution.
    pub fn restore(&mut self, id: FdId, fd: OwnedFd) {
        self.next = self.next.max(id.0);
        self.fds.insert(id, fd);
    }

    /// Borrows one.
    pub fn get(&self, id: FdId) -> Option<BorrowedFd<'_>> {
        self.fds.get(&id).map(AsFd::as_fd)
    }

    /// Gives one up.
    pub fn remove(&mut self, id: FdId) -> Option<OwnedFd> {
        self.fds.remove(&id)
    }

    /// All, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (FdId, BorrowedFd<'_>)> {
        self.fds.iter().map(|(id, fd)| (*id, fd.as_fd()))
    }

    /// The last id that was given out.
    pub fn last_id(&self) -> u64 {
        self.next
    }
}
