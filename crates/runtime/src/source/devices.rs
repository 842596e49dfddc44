//! udevd's announcements of devices as a source; where some were lost, its database is read whole.
//!
//! A few are read as they come. When there are more, as when a machine boots, the source rests for a moment after each reading,
//! and what came meanwhile is read in one go.

use super::{KernelSource, World};
use muster_manager::event::{DeviceChange, DeviceFound, Event};
use muster_watch::udev::{self, Change, Monitor};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// How long it rests after a reading, in microseconds.
const REST_USEC: u64 = 20_000;
/// So many readings within a span need no rest.
const BURST_MAX: u32 = 5;
/// That span, in microseconds.
const BURST_USEC: u64 = 1_000_000;

/// The monitor.
pub struct Devices {
    monitor: Monitor,
    drained: bool,
    rests_until_usec: u64,
    /// When the span began in which readings are counted, and how many there were.
    burst: (u64, u32),
    /// Something came while it rested.
    waits: bool,
}

impl Devices {
    pub(super) fn open() -> io::Result<Devices> {
        let monitor = Monitor::open()?;
        Ok(Devices { monitor, drained: true, rests_until_usec: 0, burst: (0, 0), waits: false })
    }

    /// Until when to rest after a reading.
    fn rest_until(&mut self, now_usec: u64) -> u64 {
        let (since, count) = self.burst;
        let is_over = now_usec.saturating_sub(since) > BURST_USEC;
        self.burst = if is_over { (now_usec, 1) } else { (since, count.saturating_add(1)) };
        if self.burst.1 < BURST_MAX { 0 } else { now_usec.saturating_add(REST_USEC) }
    }
}

impl KernelSource for Devices {
    fn descriptor(&self) -> RawFd {
        self.monitor.as_raw_fd()
    }

    fn events(&mut self, now_usec: u64, _: &mut World<'_>) -> io::Result<Vec<Event>> {
        if now_usec < self.rests_until_usec {
            self.waits = true;
            return Ok(Vec::new());
        }
        let announced = self.monitor.read();
        (self.drained, self.waits) = (announced.drained, false);
        if announced.drained {
            self.rests_until_usec = self.rest_until(now_usec);
        }
        if announced.lost {
            return self.everything();
        }
        let changes: Vec<DeviceChange> = announced.changes.into_iter().map(device_change).collect();
        let event = Event::DevicesChanged { changes, whole: false };
        Ok(if event == NOTHING { Vec::new() } else { vec![event] })
    }

    fn everything(&mut self) -> io::Result<Vec<Event>> {
        let changes = udev::enumerate().into_iter().map(Change::Present).map(device_change).collect();
        Ok(vec![Event::DevicesChanged { changes, whole: true }])
    }

    fn has_more(&self) -> bool {
        !self.drained
    }

    fn due_usec(&self) -> Option<u64> {
        self.waits.then_some(self.rests_until_usec)
    }

    /// One word that something came is enough.
    fn is_watched(&self) -> bool {
        !self.waits
    }
}

const NOTHING: Event = Event::DevicesChanged { changes: Vec::new(), whole: false };

/// A device as the manager wants it.
fn device_change(change: Change) -> DeviceChange {
    match change {
        Change::Gone(path) => DeviceChange::Gone(path),
        Change::Present(device) => {
            let interface = device.interface.map(|name| format!("/sys/subsystem/net/devices/{name}"));
            let paths = device.node.into_iter().chain(device.links).chain(device.aliases).chain(interface);
            DeviceChange::Present(DeviceFound {
                syspath: device.syspath,
                paths: paths.collect(),
                ready: device.ready,
                wants: device.wants,
                model: device.model,
            })
        }
    }
}
