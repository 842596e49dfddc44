//! udevd's announcements of devices as a source; where some were lost, its database is read whole.

use super::{KernelSource, World};
use muster_manager::event::{DeviceChange, DeviceFound, Event};
use muster_watch::udev::{self, Change, Monitor};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The monitor.
pub struct Devices {
    monitor: Monitor,
    drained: bool,
}

impl Devices {
    pub(super) fn open() -> io::Result<Devices> {
        Ok(Devices { monitor: Monitor::open()?, drained: true })
    }
}

impl KernelSource for Devices {
    fn descriptor(&self) -> RawFd {
        self.monitor.as_raw_fd()
    }

    fn events(&mut self, _: u64, _: &mut World<'_>) -> io::Result<Vec<Event>> {
        let announced = self.monitor.read();
        self.drained = announced.drained;
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
