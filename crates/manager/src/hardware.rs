//! What is wanted of the machine's hardware watchdog (systemd-system.conf(5)), and what is known of it.
//!
//! The configuration counts until a client says something else (org.freedesktop.systemd1(5), `RuntimeWatchdogUSec` and its kin);
//! that holds until the machine goes down. In a container there is none.

use crate::event::{Now, ShutdownVerb};
use crate::manager::Manager;
use crate::state::Stamp;
use serde::{Deserialize, Serialize};

/// What the device is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// The device, where one is named.
    pub device: Option<String>,
    /// After how long without a sign of life it resets the machine, in microseconds; 0 for never, `u64::MAX` for its own time.
    pub runtime_usec: u64,
    /// How long before that the kernel is told, in microseconds.
    pub pre_usec: u64,
    /// What the kernel does then.
    pub governor: Option<String>,
}

/// Which of its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)] // each is named for its property
pub enum Which {
    Runtime,
    Pre,
    Reboot,
    Kexec,
}

/// What clients said, and what the device did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// Times that clients set, in microseconds.
    pub set: std::collections::BTreeMap<Which, u64>,
    /// The governor that a client set.
    pub governor: Option<String>,
    /// The device in use.
    pub device: String,
    /// Its last sign of life.
    pub last: Stamp,
}

impl Manager {
    /// One of the times as it is wanted, in microseconds.
    pub fn hardware_usec(&self, which: Which) -> u64 {
        let config = &self.state.facts.config;
        let configured = match which {
            Which::Runtime => config.runtime_watchdog_usec,
            Which::Pre => config.runtime_watchdog_pre_usec,
            Which::Reboot => config.reboot_watchdog_usec,
            Which::Kexec => config.kexec_watchdog_usec,
        };
        self.state.hardware.set.get(&which).copied().unwrap_or(configured)
    }

    /// The governor that is wanted.
    pub fn hardware_governor(&self) -> Option<String> {
        let configured = self.state.facts.config.runtime_watchdog_pre_governor.clone();
        self.state.hardware.governor.clone().or(configured)
    }

    /// What is wanted while the machine runs.
    pub fn hardware_watchdog(&self) -> Hardware {
        if !self.state.facts.follows_interfaces {
            return Hardware::default();
        }
        Hardware {
            device: self.state.facts.config.watchdog_device.clone(),
            runtime_usec: self.hardware_usec(Which::Runtime),
            pre_usec: self.hardware_usec(Which::Pre),
            governor: self.hardware_governor(),
        }
    }

    /// How long the end may take, in microseconds; 0 where nothing watches it.
    pub fn hardware_usec_of_end(&self, verb: ShutdownVerb) -> u64 {
        match verb {
            _ if !self.state.facts.follows_interfaces => 0,
            ShutdownVerb::Reboot | ShutdownVerb::Poweroff | ShutdownVerb::Halt => {
                self.hardware_usec(Which::Reboot)
            }
            ShutdownVerb::Kexec => self.hardware_usec(Which::Kexec),
            ShutdownVerb::Exit | ShutdownVerb::SoftReboot => 0,
        }
    }

    /// The device that was given a sign of life at this moment, or that none is in use.
    pub fn note_watchdog(&mut self, given: Option<(String, Now)>) {
        let known = &mut self.state.hardware;
        match given {
            None => known.device.clear(),
            Some((device, now)) => {
                known.device = device;
                known.last = Stamp { realtime_usec: now.realtime_usec, monotonic_usec: now.monotonic_usec };
            }
        }
    }
}
