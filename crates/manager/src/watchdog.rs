//! The watchdog of services: `WatchdogSec=`, and `WATCHDOG=` and `WATCHDOG_USEC=` of sd_notify(3).
//!
//! It is armed once a service is up, and let go when its run ends; a service that speaks to it arms it in any state.

use crate::effect::Level;
use crate::manager::Manager;
use crate::state::{ServiceSub, UnitResult};
use muster_graph::UnitId;

impl Manager {
    /// The watchdog barked: no `WATCHDOG=1` in time.
    pub(crate) fn service_watchdog(&mut self, id: UnitId) {
        let limit = muster_unit::Timespan(self.watchdog_usec(id).unwrap_or(0));
        let text = format!("{}: Watchdog timeout (limit {limit})!", self.unit_name(id));
        self.log(Level::Error, Some(id), text);
        self.watchdog_aborts(id);
    }

    /// `WATCHDOG=trigger` came.
    pub(crate) fn service_watchdog_asked(&mut self, id: UnitId) {
        let Some(service) = self.service(id) else { return };
        if service.main.is_none() && service.control.is_none() && !self.state.populated.contains(&id) {
            return;
        }
        let status = if service.status_text.is_empty() { "<unset>" } else { service.status_text.as_str() };
        let text = format!("{}: Watchdog request (last status: {status})!", self.unit_name(id));
        self.log(Level::Error, Some(id), text);
        self.watchdog_aborts(id);
    }

    fn watchdog_aborts(&mut self, id: UnitId) {
        if self.sub(id).has_run_of_main() {
            self.kill_control_now(id);
        }
        self.enter_signal(id, ServiceSub::StopWatchdog, UnitResult::Watchdog);
    }

    /// `WatchdogSec=`, or what the service asked for; nothing when there is no watchdog.
    pub fn watchdog_usec(&self, id: UnitId) -> Option<u64> {
        let configured =
            self.service_config(id).map_or(0, |(_, section)| section.watchdog_sec().map_or(0, |span| span.0));
        let span = self.service(id).and_then(|service| service.watchdog_override_usec).unwrap_or(configured);
        (span != 0 && span != u64::MAX).then_some(span)
    }

    /// When the watchdog of a service bites.
    pub(crate) fn watchdog_deadline(&self, id: UnitId) -> Option<u64> {
        let service = self.service(id)?;
        let last = service.watchdog.monotonic_usec;
        let armed = last != 0 && !self.state.no_service_watchdogs;
        armed.then(|| self.watchdog_usec(id)).flatten().map(|span| last.saturating_add(span))
    }
}
