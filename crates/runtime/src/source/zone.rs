//! `/etc/localtime` as a source (inotify(7)): it is a link, so that its directory is watched. Opened when the first timer
//! means it.

use super::{KernelSource, World};
use muster_manager::event::Event;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

const DIRECTORY: &str = "/etc";
const NAME: &str = "localtime";

/// The watch.
pub struct Zone(Inotify);

impl Zone {
    pub(super) fn open() -> io::Result<Zone> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(DIRECTORY, changes)?;
        Ok(Zone(inotify))
    }
}

impl KernelSource for Zone {
    fn descriptor(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }

    fn events(&mut self, _: u64, _: &mut World<'_>) -> io::Result<Vec<Event>> {
        let mut changed = false;
        while let Ok(events) = self.0.read_events() {
            let lost = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
            changed |= events
                .iter()
                .any(|event| lost(event.mask) || event.name.as_ref().is_some_and(|name| name == NAME));
        }
        Ok(if changed { vec![Event::ZoneChanged] } else { Vec::new() })
    }
}
