//! The hardware watchdog (systemd-system.conf(5), `RuntimeWatchdogSec=`): opened when it is asked for, and given a sign of life
//! twice within its time, by the loop itself, so that a loop that stands still resets the machine.
//!
//! What must stay true: it is never closed disarmed while it is wanted: over a re-execution the descriptor goes along, and at the
//! end of the machine whoever goes on finds it running.

use crate::turn::Runtime;
use muster_manager::effect::Level;
use muster_manager::hardware::Hardware;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// Where it is looked for.
const DEVICES: [&str; 2] = ["/dev/watchdog0", "/dev/watchdog"];
/// A device that is not there is looked for again after this time, in microseconds.
const RETRY_USEC: u64 = 5_000_000;

/// The device, where it is wanted and there.
#[derive(Debug, Default)]
pub struct Watchdog {
    open: Option<Open>,
    /// What was asked for when it was looked at last.
    wanted: Hardware,
    due_usec: Option<u64>,
    /// That it cannot be had was said.
    said: bool,
}

#[derive(Debug)]
struct Open {
    device: File,
    path: String,
    timeout_usec: u64,
}

/// The same for the next program.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedWatchdog {
    pub(crate) fd: RawFd,
    path: String,
    timeout_usec: u64,
    wanted: Hardware,
}

impl Watchdog {
    /// When it is to be seen to, on the monotonic clock in microseconds.
    pub fn due_usec(&self) -> Option<u64> {
        self.due_usec
    }

    pub(crate) fn handed(&self) -> Option<HandedWatchdog> {
        let open = self.open.as_ref()?;
        let Open { device, path, timeout_usec } = open;
        let (path, wanted) = (path.clone(), self.wanted.clone());
        Some(HandedWatchdog { fd: device.as_raw_fd(), path, timeout_usec: *timeout_usec, wanted })
    }

    /// Goes on with the device of the program before this one.
    pub(crate) fn take(handed: HandedWatchdog) -> Watchdog {
        let HandedWatchdog { fd, path, timeout_usec, wanted } = handed;
        let open = Open { device: File::from(crate::hand_over::adopt(fd)), path, timeout_usec };
        Watchdog { open: Some(open), wanted, due_usec: Some(0), said: false }
    }
}

impl Open {
    fn of(wanted: &Hardware) -> std::io::Result<Open> {
        let named = wanted.device.as_deref().into_iter();
        let paths: Vec<&str> = if wanted.device.is_some() { named.collect() } else { DEVICES.to_vec() };
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for path in paths {
            match File::options().write(true).open(path) {
                Ok(device) => {
                    let mut open = Open { device, path: path.to_owned(), timeout_usec: 0 };
                    open.set(wanted)?;
                    return Ok(open);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Has the device follow what is wanted.
    fn set(&mut self, wanted: &Hardware) -> std::io::Result<()> {
        let fd = self.device.as_fd();
        let seconds = |usec: u64| i32::try_from(usec.div_ceil(1_000_000)).unwrap_or(i32::MAX);
        // `default` leaves the device its own time.
        let timeout = match wanted.runtime_usec {
            u64::MAX => muster_sys::watchdog_timeout(fd)?,
            usec => muster_sys::watchdog_set_timeout(fd, seconds(usec))?,
        };
        self.timeout_usec = u64::try_from(timeout).unwrap_or(0).saturating_mul(1_000_000);
        if wanted.pre_usec > 0 {
            if let (Some(governor), Some(name)) = (&wanted.governor, self.path.rsplit('/').next()) {
                let file = format!("/sys/class/watchdog/{name}/pretimeout_governor");
                std::fs::write(file, governor)?;
            }
            muster_sys::watchdog_set_pretimeout(fd, seconds(wanted.pre_usec))?;
        }
        // Not every device knows this; those that do not are armed by being opened.
        let _ = muster_sys::watchdog_enable(fd);
        muster_sys::watchdog_keep_alive(fd)
    }
}

impl Runtime {
    /// Gives a sign of life where it is time, and follows what is wanted.
    pub(crate) fn mind_watchdog(&mut self) {
        let wanted = self.manager.hardware_watchdog();
        let changed = wanted != self.watchdog.wanted;
        let now = self.turn_usec;
        if !changed && self.watchdog.due_usec.is_none_or(|due| due > now) {
            return;
        }
        self.watchdog.wanted = wanted.clone();
        if wanted.runtime_usec == 0 {
            self.watchdog.due_usec = None;
            if let Some(mut open) = self.watchdog.open.take() {
                // The word that disarms it when it is closed.
                let _ = open.device.write_all(b"V");
            }
            return self.manager.note_watchdog(None);
        }
        let done = match &mut self.watchdog.open {
            Some(open) if changed && wanted.device.as_ref().is_none_or(|path| *path == open.path) => {
                open.set(&wanted)
            }
            Some(open) if !changed => muster_sys::watchdog_keep_alive(open.device.as_fd()),
            _ => Open::of(&wanted).map(|open| self.watchdog.open = Some(open)),
        };
        let half = self.watchdog.open.as_ref().map(|open| open.timeout_usec.checked_div(2).unwrap_or(0));
        match done {
            Ok(()) => {
                self.watchdog.said = false;
                let path = self.watchdog.open.as_ref().map(|open| open.path.clone());
                self.manager.note_watchdog(path.map(|path| (path, crate::clock::now())));
            }
            Err(error) if !std::mem::replace(&mut self.watchdog.said, true) => {
                self.note(Level::Warning, &format!("The hardware watchdog cannot be used: {error}"));
            }
            Err(_) => {}
        }
        self.watchdog.due_usec = Some(now.saturating_add(half.unwrap_or(RETRY_USEC).max(100_000)));
    }
}

/// Its descriptor, for those who hand it over.
pub(crate) fn descriptor(handed: &Option<HandedWatchdog>) -> impl Iterator<Item = RawFd> + '_ {
    handed.iter().map(|handed| handed.fd)
}
