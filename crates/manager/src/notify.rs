//! sd_notify(3): what services say about themselves.
//!
//! Who is heard is decided by `NotifyAccess=` and by the sender's process and cgroup, which the kernel gives. A word from
//! anybody else is dropped, and its descriptors closed. `BARRIER=1` never gets here: the runtime answers it by closing.

use crate::effect::{Effect, FdId, Level};
use crate::event::Named;
use crate::manager::Manager;
use crate::state::{ServiceSub, StoredFd};
use muster_graph::UnitId;
use muster_unit::NotifyAccess;

/// `STATUS=` is kept up to this length.
const STATUS_BYTES_MAX: usize = 4096;

impl Manager {
    /// A message from a process.
    pub(crate) fn notified(
        &mut self,
        pid: u32,
        uid: u32,
        cgroup: Option<&str>,
        fields: &[(String, String)],
        fds: Vec<FdId>,
        named: Option<Named>,
    ) {
        let Some(id) = self.unit_of_process(pid, cgroup) else {
            self.log(
                Level::Debug,
                None,
                format!("Notification from process {pid}, which belongs to no unit, is ignored."),
            );
            return self.drop_fds(fds);
        };
        if self.service(id).is_none() || !self.may_notify(id, pid) {
            let text = format!(
                "{}: Got notification message from PID {pid}, but reception is not permitted (NotifyAccess={:?}).",
                self.unit_name(id),
                self.notify_access(id)
            );
            self.log(Level::Warning, Some(id), text);
            return self.drop_fds(fds);
        }
        let get =
            |key: &str| fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        if let Some(named) = named {
            self.notified_main_pid(id, &named, uid);
        }
        self.notified_texts(id, &get);
        if get("RELOADING") == Some("1") {
            let at = get("MONOTONIC_USEC").and_then(|text| text.parse().ok());
            self.service_reloading_heard(id, at);
        }
        // A message that says both means the end.
        if get("STOPPING") == Some("1") {
            self.service_stopping_heard(id);
        } else if get("READY") == Some("1") {
            self.service_ready_heard(id);
        }
        if let Some(span) = get("EXTEND_TIMEOUT_USEC").and_then(|text| text.parse().ok()) {
            self.extend_timeout(id, span);
        }
        self.notified_watchdog(id, &get);
        if get("FDSTOREREMOVE") == Some("1") {
            self.remove_stored(id, get("FDNAME").unwrap_or_default());
        }
        if get("FDSTORE") == Some("1") {
            let name = get("FDNAME")
                .filter(|name| muster_unit::is_descriptor_name(name))
                .unwrap_or("stored")
                .to_owned();
            self.store_fds(id, fds, &name, get("FDPOLL") != Some("0"));
        } else {
            self.drop_fds(fds);
        }
        self.touch(id);
    }

    fn drop_fds(&mut self, fds: Vec<FdId>) {
        if !fds.is_empty() {
            self.effects.push_back(Effect::CloseFds { fds });
        }
    }

    /// Whether a process is one of a service.
    pub fn is_of_service(&self, pid: u32, cgroup: Option<&str>) -> bool {
        self.unit_of_process(pid, cgroup).is_some_and(|id| self.service(id).is_some())
    }

    /// Whether what this process says counts (`NotifyAccess=`, systemd.service(5)).
    pub fn may_notify(&self, id: UnitId, pid: u32) -> bool {
        let Some(service) = self.service(id) else { return false };
        let is = |process: &Option<crate::state::Process>| {
            process.as_ref().and_then(|process| process.pid) == Some(pid)
        };
        match self.notify_access(id) {
            NotifyAccess::None => false,
            NotifyAccess::All => true,
            NotifyAccess::Main => is(&service.main) || (service.main.is_none() && is(&service.control)),
            NotifyAccess::Exec => is(&service.main) || is(&service.control),
        }
    }

    fn notified_texts<'a>(&mut self, id: UnitId, get: &impl Fn(&str) -> Option<&'a str>) {
        let Some(service) = self.service_mut(id) else { return };
        if let Some(text) = get("STATUS") {
            let end = text
                .char_indices()
                .map(|(at, _)| at)
                .take_while(|at| *at <= STATUS_BYTES_MAX)
                .last()
                .unwrap_or(0);
            service.status_text =
                if text.len() <= STATUS_BYTES_MAX { text } else { text.get(..end).unwrap_or("") }.to_owned();
        }
        if let Some(number) =
            get("ERRNO").and_then(|text| text.parse().ok()).filter(|number: &i32| *number >= 0)
        {
            service.status_errno = number;
        }
        if let Some(text) = get("BUSERROR") {
            service.status_bus_error = text.chars().take(256).collect();
        }
        match get("NOTIFYACCESS") {
            Some("none") => service.notify_access_override = Some(NotifyAccess::None),
            Some("main") => service.notify_access_override = Some(NotifyAccess::Main),
            Some("exec") => service.notify_access_override = Some(NotifyAccess::Exec),
            Some("all") => service.notify_access_override = Some(NotifyAccess::All),
            _ => {}
        }
    }

    fn notified_watchdog<'a>(&mut self, id: UnitId, get: &impl Fn(&str) -> Option<&'a str>) {
        let stamp = self.stamp();
        if let (Some(span), Some(service)) =
            (get("WATCHDOG_USEC").and_then(|text| text.parse().ok()), self.service_mut(id))
        {
            service.watchdog_override_usec = Some(span);
            service.watchdog = stamp;
        }
        match get("WATCHDOG") {
            Some("1") => {
                if let Some(service) = self.service_mut(id) {
                    service.watchdog = stamp;
                }
            }
            Some("trigger") => self.service_watchdog_asked(id),
            _ => {}
        }
    }

    /// `EXTEND_TIMEOUT_USEC=` counts from now, and never shortens.
    fn extend_timeout(&mut self, id: UnitId, span_usec: u64) {
        let until = self.now.monotonic_usec.saturating_add(span_usec);
        let Some(service) = self.service_mut(id) else { return };
        if !matches!(service.sub, ServiceSub::AutoRestart) {
            service.deadline_usec = service.deadline_usec.map(|deadline| deadline.max(until));
        }
    }

    fn store_fds(&mut self, id: UnitId, fds: Vec<FdId>, name: &str, poll: bool) {
        let max = self.service_config(id).map_or(0, |(_, section)| section.file_descriptor_store_max());
        let room = usize::try_from(max)
            .unwrap_or(0)
            .saturating_sub(self.service(id).map_or(0, |service| service.fd_store.len()));
        let (kept, refused): (Vec<_>, Vec<_>) = fds.into_iter().enumerate().partition(|(at, _)| *at < room);
        if !refused.is_empty() {
            let text = format!(
                "{}: File descriptor store is full ({max}), closing {}.",
                self.unit_name(id),
                refused.len()
            );
            self.log(Level::Warning, Some(id), text);
        }
        for (_, fd) in kept {
            if poll {
                self.effects.push_back(Effect::WatchStoredFd { fd });
            }
            if let Some(service) = self.service_mut(id) {
                service.fd_store.push(StoredFd { fd, name: name.to_owned(), poll });
            }
        }
        self.drop_fds(refused.into_iter().map(|(_, fd)| fd).collect());
    }

    fn remove_stored(&mut self, id: UnitId, name: &str) {
        let Some(service) = self.service_mut(id) else { return };
        let gone: Vec<FdId> =
            service.fd_store.iter().filter(|stored| stored.name == name).map(|stored| stored.fd).collect();
        service.fd_store.retain(|stored| stored.name != name);
        self.drop_fds(gone);
    }

    /// A stored descriptor hung up.
    pub(crate) fn stored_fd_hung_up(&mut self, fd: FdId) {
        let owner = self.state.units.values().find(|unit| {
            crate::state::Service::of(&unit.kind)
                .is_some_and(|service| service.fd_store.iter().any(|stored| stored.fd == fd))
        });
        if let Some(id) = owner.map(|unit| unit.id) {
            if let Some(service) = self.service_mut(id) {
                service.fd_store.retain(|stored| stored.fd != fd);
            }
            self.drop_fds(vec![fd]);
            self.touch(id);
        }
    }
}
