//! The mount table as a source: what changed in it since it was last read.
//!
//! The kernel gives the table whole, each time. A few changes are read as they come. When there are more, the source rests
//! after each reading for a multiple of what the reading took, so that a storm of mounts costs a bounded share of time; what
//! came meanwhile is read at the end of the rest. What must stay true: a change is never left unread, and who waits for the
//! answer gets it at once.

use super::{KernelSource, World};
use crate::clock;
use mio::Interest;
use muster_manager::event::{Event, MountPoint};
use muster_unit::UnitName;
use muster_watch::MountTable;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The rest is this many times as long as the reading.
const REST_FACTOR: u64 = 100;
/// The longest rest, in microseconds.
const REST_MAX_USEC: u64 = 500_000;
/// So many readings within a span need no rest.
const BURST_MAX: u32 = 5;
/// That span, in microseconds.
const BURST_USEC: u64 = 1_000_000;

/// The table, open.
pub struct Mounts {
    table: MountTable,
    rests_until_usec: u64,
    /// When the span began in which readings are counted, and how many there were.
    burst: (u64, u32),
    /// It changed while it rested.
    waits: bool,
}

impl Mounts {
    pub(super) fn open() -> io::Result<Mounts> {
        Ok(Mounts { table: MountTable::open()?, rests_until_usec: 0, burst: (0, 0), waits: false })
    }
}

impl KernelSource for Mounts {
    fn descriptor(&self) -> RawFd {
        self.table.as_raw_fd()
    }

    fn interest(&self) -> Interest {
        Interest::READABLE | Interest::PRIORITY
    }

    fn events(&mut self, now_usec: u64, _: &mut World<'_>) -> io::Result<Vec<Event>> {
        if now_usec < self.rests_until_usec {
            self.waits = true;
            return Ok(Vec::new());
        }
        self.everything()
    }

    fn everything(&mut self) -> io::Result<Vec<Event>> {
        let begun = clock::monotonic_usec();
        let changes = self.table.changes()?;
        let done = clock::monotonic_usec();
        self.rests_until_usec = done.saturating_add(self.rest_usec(begun, done));
        self.waits = false;
        let mounts = changes.present.into_iter().filter_map(mount_point).collect();
        let gone = changes.gone.iter().filter_map(|place| unit_of(place)).collect();
        Ok(vec![Event::MountTableRead { mounts, gone, whole: changes.whole }])
    }

    fn due_usec(&self) -> Option<u64> {
        self.waits.then_some(self.rests_until_usec)
    }

    /// One word that something came is enough.
    fn is_watched(&self) -> bool {
        !self.waits
    }
}

impl Mounts {
    /// How long to rest after a reading: not at all while there were few.
    fn rest_usec(&mut self, begun: u64, done: u64) -> u64 {
        let (since, count) = self.burst;
        self.burst = if begun.saturating_sub(since) > BURST_USEC {
            (begun, 1)
        } else {
            (since, count.saturating_add(1))
        };
        if self.burst.1 < BURST_MAX {
            return 0;
        }
        done.saturating_sub(begun).saturating_mul(REST_FACTOR).min(REST_MAX_USEC)
    }
}

fn unit_of(place: &str) -> Option<UnitName> {
    format!("{}.mount", muster_unit::path_escape(place)).parse().ok()
}

/// A mount as the manager wants it.
fn mount_point(mount: muster_watch::Mount) -> Option<MountPoint> {
    Some(MountPoint {
        unit: unit_of(&mount.place)?,
        what: mount.what,
        place: mount.place,
        fs_type: mount.fs_type,
        options: mount.options,
    })
}
