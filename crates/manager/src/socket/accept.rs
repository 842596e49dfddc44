//! Connections of `Accept=yes`: taken, counted, given to an instance each, and their ends (systemd.socket(5)).
//!
//! What must stay true: a connection that is not served is refused and closed, and its place is free again.

use super::FAILED_KEPT;
use crate::effect::{Effect, FdId, Level};
use crate::event::Peer;
use crate::manager::Manager;
use crate::state::{ActiveState, ServiceSub, SocketSub, UnitResult};
use muster_graph::{Dependency, JobMode, JobType, UnitId};
use muster_unit::LoadState;

impl Manager {
    /// A connection came in on a socket with `Accept=yes`.
    pub(crate) fn accepted(
        &mut self,
        source: &dyn muster_unit::Source,
        listener: FdId,
        fd: FdId,
        peer: Peer,
    ) {
        let Some(&id) = self.state.ports.get(&listener) else { return self.refuse(fd) };
        if self.socket_sub(id) != SocketSub::Listening || self.shutdown_is_queued() {
            return self.refuse(fd);
        }
        // One that was taken is served; a limit that it fills keeps the next one waiting.
        self.poll_is_allowed(id, listener);
        if !self.trigger_is_allowed(id, true) || !self.connection_fits(id, &peer) {
            return self.refuse(fd);
        }
        let Some(config) = self.socket_section(id) else { return self.refuse(fd) };
        let number = self.socket(id).map_or(0, |socket| socket.accepted);
        let instance = format!("{number}-{}", peer.instance_tail);
        let Some(name) = self.instance_name(id, &instance) else { return self.refuse(fd) };
        let service = self.load_instance(&name, source);
        if !self.connection_can_be_served(id, service) {
            return self.refuse(fd);
        }
        if let Some(socket) = self.socket_mut(id) {
            socket.accepted = socket.accepted.saturating_add(1);
            socket.connections = socket.connections.saturating_add(1);
            socket.short = false;
            let count = socket.by_source.entry(peer.source.clone()).or_insert(0);
            *count = count.saturating_add(1);
        }
        self.effects.push_back(Effect::PrepareConnection { fd, config });
        if let Some(service) = self.service_mut(service) {
            service.connection = Some(fd);
            service.peer = Some(peer);
            service.accepted_from = Some(id);
        }
        self.tie_to_its_socket(service);
        self.touch(id);
        let cause = format!("connection {number} on {}", self.unit_name(id));
        if !self.request_quietly(service, JobType::Start, JobMode::Replace, &cause) {
            self.connection_ended(service);
            self.run_is_over(service);
        }
    }

    /// Without a template no connection is ever served: the socket fails, and clients see it.
    pub(super) fn connection_can_be_served(&mut self, id: UnitId, service: UnitId) -> bool {
        let why = match self.state.units.get(&service).map(|unit| (&unit.file, &unit.name)) {
            Some((file, _)) if file.load_state == LoadState::Loaded => return true,
            Some((file, _)) if file.load_state == LoadState::Masked => {
                "Connection service unit is masked, refusing.".to_owned()
            }
            Some((file, name)) => {
                let error = file.load_error.clone().unwrap_or_else(|| format!("Unit {name} not found."));
                format!("Failed to load connection service unit: {error}")
            }
            None => return false,
        };
        let text = format!("{}: {why}", self.unit_name(id));
        self.log(Level::Error, Some(id), text);
        self.state.gc_queue.insert(service);
        self.socket_stop_with(id, UnitResult::Resources);
        false
    }

    pub(super) fn refuse(&mut self, fd: FdId) {
        self.effects.push_back(Effect::CloseFds { fds: vec![fd] });
    }

    /// Whether a connection of this peer would be refused for want of room. Whoever asks may see first whether room was
    /// made: ends of processes that were not told yet.
    pub fn would_refuse(&self, listener: FdId, peer: &Peer) -> bool {
        self.state.ports.get(&listener).is_some_and(|id| !self.has_room(*id, peer))
    }

    /// `MaxConnections=` and `MaxConnectionsPerSource=`.
    pub(super) fn has_room(&self, id: UnitId, peer: &Peer) -> bool {
        let (Some(section), Some(socket)) = (self.socket_config(id), self.socket(id)) else { return false };
        let (max, per_source) = (section.max_connections(), section.max_connections_per_source());
        let mine = socket.by_source.get(&peer.source).copied().unwrap_or(0);
        socket.connections < max && (per_source == 0 || mine < per_source)
    }

    pub(super) fn connection_fits(&mut self, id: UnitId, peer: &Peer) -> bool {
        let fits = self.has_room(id, peer);
        if let Some(socket) = self.socket_mut(id).filter(|_| !fits) {
            socket.refused = socket.refused.saturating_add(1);
            let text = format!(
                "{}: Too many incoming connections ({}), dropping connection.",
                self.unit_name(id),
                self.socket(id).map_or(0, |socket| socket.connections)
            );
            self.log(Level::Warning, Some(id), text);
        }
        fits
    }

    /// `foo.socket` makes instances of `foo@.service`.
    pub(super) fn instance_name(&self, id: UnitId, instance: &str) -> Option<muster_unit::UnitName> {
        let name = self.state.units.get(&id)?.name.clone();
        format!("{}@{instance}.service", name.prefix()).parse().ok()
    }

    /// An instance of an `Accept=yes` socket changed; when it ended for good its place is free.
    pub(crate) fn accepted_instance_changed(&mut self, service: UnitId) {
        let over = |service: &crate::state::Service| {
            matches!(service.sub, ServiceSub::Dead | ServiceSub::Failed) && service.accepted_from.is_some()
        };
        // A restart keeps the connection over its two halves.
        let comes_back = self.job_kind(service).is_some_and(|kind| kind != JobType::Stop);
        if !comes_back && self.service(service).is_some_and(over) {
            self.connection_ended(service);
        }
    }

    pub(super) fn connection_ended(&mut self, service: UnitId) {
        let failed = self.active_state(service) == ActiveState::Failed;
        let Some(instance) = self.service_mut(service) else { return };
        let Some(socket) = instance.accepted_from.take() else { return };
        let source = instance.peer.as_ref().map(|peer| peer.source.clone()).unwrap_or_default();
        if let Some(fd) = instance.connection.take() {
            self.refuse(fd);
        }
        if let Some(socket) = self.socket_mut(socket) {
            socket.connections = socket.connections.saturating_sub(1);
            if let Some(count) = socket.by_source.get_mut(&source) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    socket.by_source.remove(&source);
                }
            }
        }
        if failed {
            self.keep_failed(socket, service);
        }
        self.touch(socket);
        self.state.gc_queue.insert(service);
    }

    /// Of the instances that failed the last few stay, so that years of bad connections fill no memory.
    pub(super) fn keep_failed(&mut self, socket: UnitId, service: UnitId) {
        let Some(socket) = self.socket_mut(socket) else { return };
        socket.failures = socket.failures.saturating_add(1);
        socket.failed.push_back(service);
        let oldest = if socket.failed.len() > FAILED_KEPT { socket.failed.pop_front() } else { None };
        if let Some(oldest) = oldest.filter(|oldest| self.active_state(*oldest) == ActiveState::Failed) {
            self.reset_failed(oldest);
        }
    }

    /// The service behind a socket with `Accept=no` changed.
    pub(crate) fn triggered_unit_changed(&mut self, id: UnitId, service: UnitId) {
        let Some(sub) = self.service(service).map(|service| service.sub) else { return };
        if self.socket_config(id).is_none_or(|section| section.accept()) {
            return;
        }
        if self.socket_sub(id) == SocketSub::Listening && sub == ServiceSub::Running {
            // Started for another reason: it has the descriptors, so the traffic is its own.
            self.watch_ports(id, false);
            return self.set_socket_sub(id, SocketSub::Running);
        }
        if self.socket_sub(id) != SocketSub::Running {
            return;
        }
        match sub {
            ServiceSub::Dead | ServiceSub::Failed if self.job_kind(service) != Some(JobType::Start) => {
                self.socket_listen(id)
            }
            _ => {}
        }
    }

    /// The service was started too often: traffic must not go on trying.
    pub(crate) fn sockets_of_start_limit(&mut self, service: UnitId) {
        if self.service(service).is_some_and(|service| service.peer.is_some()) {
            // Its end concerns one connection, not the socket.
            return;
        }
        let sockets: Vec<UnitId> = self.state.graph.of(service, Dependency::TriggeredBy).collect();
        for id in sockets {
            if matches!(self.socket_sub(id), SocketSub::Running | SocketSub::Listening) {
                self.socket_stop_with(id, UnitResult::ServiceStartLimitHit);
            }
        }
    }

    /// Nothing to accept with: counted each time, said once until a connection is taken again.
    pub(crate) fn accept_short(&mut self, listener: FdId, message: &str) {
        let Some(&id) = self.state.ports.get(&listener) else { return };
        let Some(socket) = self.socket_mut(id) else { return };
        socket.pauses = socket.pauses.saturating_add(1);
        if !std::mem::replace(&mut socket.short, true) {
            let text = format!("{}: Accepting rests, and is tried again: {message}", self.unit_name(id));
            self.log(Level::Warning, Some(id), text);
        }
    }

    /// Accepting failed for good.
    pub(crate) fn accept_failed(&mut self, listener: FdId, message: &str) {
        let Some(&id) = self.state.ports.get(&listener) else { return };
        let text = format!("{}: Failed to accept a connection: {message}", self.unit_name(id));
        self.log(Level::Error, Some(id), text);
        self.socket_stop_with(id, UnitResult::Resources);
    }
}
