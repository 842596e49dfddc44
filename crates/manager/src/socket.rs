//! Sockets: systemd.socket(5) as a state machine.
//!
//! | sub-state | control ends | sockets opened | traffic | service ends | time is up | stop job |
//! |---|---|---|---|---|---|---|
//! | start-pre | next, then open | start-post, or fail | – | – | fail `timeout` | stop-pre-sigterm |
//! | start-post | next, then listening | – | – | – | stop-pre, `timeout` | stop-pre |
//! | listening | – | – | running (no), instance (yes) | – | – | stop-pre |
//! | running | – | – | – | listening | – | stop-pre |
//! | stop-pre | next, then stop-pre-sigterm | – | – | – | stop-pre-sigterm | – |
//! | stop-pre-sigterm, -sigkill | close, stop-post | – | – | – | -sigkill, then stop-post | – |
//! | stop-post | next, then final-sigterm | – | – | – | final-sigterm | – |
//! | final-sigterm, -sigkill | dead | – | – | – | final-sigkill, then dead | – |
//!
//! Descriptors are closed when a run ends, and not before; a limit that is hit ends the run with its own result, or with
//! `TriggerLimitAction=pause` ([X-Muster]) closes the ear for a while.

use crate::effect::{Effect, FdId, Level, SpawnRole};
use crate::event::{Exit, OpenedSocket, Peer};
use crate::jobs::Started;
use crate::kill::Wave;
use crate::manager::Manager;
use crate::service_ends::{is_clean, result_of};
use crate::state::{
    ActiveState, CommandList, Kind, Port, Process, ServiceSub, Socket, SocketSub, UnitResult,
};
use muster_graph::{Dependency, JobMode, JobResult, JobType, UnitId};
use muster_unit::{KillMode, SocketSection};
use std::rc::Rc;

impl SocketSub {
    /// The state of the unit in this sub-state.
    pub fn active_state(self) -> ActiveState {
        use SocketSub::*;
        match self {
            Dead => ActiveState::Inactive,
            Failed => ActiveState::Failed,
            StartPre | StartChown | StartPost => ActiveState::Activating,
            Listening | Running => ActiveState::Active,
            StopPre | StopPreSigterm | StopPreSigkill | StopPost | FinalSigterm | FinalSigkill => {
                ActiveState::Deactivating
            }
        }
    }
}

impl Manager {
    pub(crate) fn socket(&self, id: UnitId) -> Option<&Socket> {
        match &self.state.units.get(&id)?.kind {
            Kind::Socket(socket) => Some(socket),
            Kind::Service(_) | Kind::Simple(_) | Kind::Mount(_) => None,
        }
    }

    fn socket_mut(&mut self, id: UnitId) -> Option<&mut Socket> {
        match &mut self.state.units.get_mut(&id)?.kind {
            Kind::Socket(socket) => Some(socket),
            Kind::Service(_) | Kind::Simple(_) | Kind::Mount(_) => None,
        }
    }

    pub(crate) fn socket_config(&self, id: UnitId) -> Option<&SocketSection> {
        match &self.state.units.get(&id)?.file.body {
            muster_unit::Body::Socket(section) => Some(section),
            _ => None,
        }
    }

    /// The configuration, shared: for effects.
    fn socket_section(&self, id: UnitId) -> Option<Rc<SocketSection>> {
        match &self.state.units.get(&id)?.file.body {
            muster_unit::Body::Socket(section) => Some(section.clone()),
            _ => None,
        }
    }

    fn socket_sub(&self, id: UnitId) -> SocketSub {
        self.socket(id).map_or(SocketSub::Dead, |socket| socket.sub)
    }

    fn set_socket_sub(&mut self, id: UnitId, sub: SocketSub) {
        let old = self.active_state(id);
        let span = self
            .socket_config(id)
            .and_then(|section| section.timeout_sec)
            .map_or(self.state.facts.default_timeout_start_usec, |span| span.0);
        let timed =
            !matches!(sub, SocketSub::Dead | SocketSub::Failed | SocketSub::Listening | SocketSub::Running);
        let deadline =
            (timed && span != 0 && span != u64::MAX).then(|| self.now.monotonic_usec.saturating_add(span));
        let Some(socket) = self.socket_mut(id) else { return };
        socket.sub = sub;
        socket.deadline_usec = deadline;
        self.state_changed(id, old);
    }

    // ---- start ----------------------------------------------------------------------------------------------------

    pub(crate) fn socket_start(&mut self, id: UnitId) -> Started {
        if !matches!(self.socket_sub(id), SocketSub::Dead | SocketSub::Failed) {
            return Started::Later;
        }
        if let Some(problem) = self.service_stands_in_the_way(id) {
            self.log(Level::Error, Some(id), problem);
            return Started::Ended(JobResult::Failed);
        }
        if !self.start_is_allowed(id) {
            let text = format!("{}: Start request repeated too quickly.", self.unit_name(id));
            self.log(Level::Warning, Some(id), text);
            self.socket_dead(id, UnitResult::StartLimitHit);
            self.start_limit_action(id);
            return Started::Ended(JobResult::Failed);
        }
        self.prepare_run(id);
        if let Some(socket) = self.socket_mut(id) {
            socket.result = UnitResult::Success;
            socket.command_status.clear();
            socket.trigger_limit = Default::default();
            socket.paused_until_usec = None;
            socket.resting.clear();
            socket.poll_limits.clear();
            (socket.accepted, socket.refused) = (0, 0);
        }
        self.socket_list(id, SocketSub::StartPre, CommandList::ExecStartPre);
        Started::Working
    }

    /// A socket cannot be put in front of a service that already runs without it.
    fn service_stands_in_the_way(&self, id: UnitId) -> Option<String> {
        if self.socket_config(id)?.accept {
            return None;
        }
        let service = self.state.graph.of(id, Dependency::Triggers).next()?;
        let sub = self.service(service)?.sub;
        let busy = !matches!(
            sub,
            ServiceSub::Dead
                | ServiceSub::Failed
                | ServiceSub::AutoRestart
                | ServiceSub::AutoRestartQueued
                | ServiceSub::DeadBeforeAutoRestart
                | ServiceSub::FailedBeforeAutoRestart
        );
        busy.then(|| {
            format!(
                "{}: Socket service {} already active, refusing.",
                self.unit_name(id),
                self.unit_name(service)
            )
        })
    }

    fn socket_list(&mut self, id: UnitId, sub: SocketSub, list: CommandList) {
        if self.commands(id, list).is_empty() {
            return self.socket_list_done(id, list);
        }
        self.set_socket_sub(id, sub);
        self.socket_command(id, list, 0);
    }

    fn socket_command(&mut self, id: UnitId, list: CommandList, index: u32) {
        let process = self.spawn_command(id, list, index, SpawnRole::Control);
        if let Some(socket) = self.socket_mut(id) {
            socket.control = process;
        }
    }

    fn socket_list_done(&mut self, id: UnitId, list: CommandList) {
        match list {
            CommandList::ExecStartPre => self.open_sockets(id),
            CommandList::ExecStartPost => self.socket_listen(id),
            CommandList::ExecStopPre => {
                self.socket_signal(id, SocketSub::StopPreSigterm, UnitResult::Success)
            }
            CommandList::ExecStopPost => self.socket_signal(id, SocketSub::FinalSigterm, UnitResult::Success),
            CommandList::ExecCondition
            | CommandList::ExecStart
            | CommandList::ExecReload
            | CommandList::ExecStop => {}
        }
    }

    fn open_sockets(&mut self, id: UnitId) {
        self.set_socket_sub(id, SocketSub::StartChown);
        let Some(config) = self.socket_section(id) else { return };
        let keep = self.socket(id).map_or_else(Vec::new, |socket| {
            socket.ports.iter().map(|port| (port.listen_index, port.fd)).collect()
        });
        let unit = self.name_of(id);
        self.effects.push_back(Effect::OpenSockets { unit, config, keep });
    }

    /// The runtime opened what it could, or says what stood in the way.
    pub(crate) fn sockets_opened(&mut self, id: UnitId, result: Result<Vec<OpenedSocket>, String>) {
        let opened = match result {
            Ok(opened) => opened,
            Err(why) => {
                let text = format!("{}: {why}", self.unit_name(id));
                self.log(Level::Error, Some(id), text);
                if let Some(socket) = self.socket_mut(id) {
                    socket.ports.clear();
                }
                return self.socket_dead(id, UnitResult::Resources);
            }
        };
        let ports: Vec<Port> = opened
            .into_iter()
            .map(|port| Port {
                fd: port.fd,
                listen_index: port.listen_index,
                connection_based: port.connection_based,
            })
            .collect();
        if self.socket_sub(id) != SocketSub::StartChown {
            // Stopped meanwhile: nobody wants them.
            return self
                .effects
                .push_back(Effect::CloseFds { fds: ports.into_iter().map(|port| port.fd).collect() });
        }
        self.state.ports.extend(ports.iter().map(|port| (port.fd, id)));
        if let Some(socket) = self.socket_mut(id) {
            socket.ports = ports;
        }
        self.socket_list(id, SocketSub::StartPost, CommandList::ExecStartPost);
    }

    fn socket_listen(&mut self, id: UnitId) {
        if self.socket_config(id).is_some_and(|section| section.flush_pending) {
            let fds: Vec<FdId> = self
                .socket(id)
                .map_or_else(Vec::new, |socket| socket.ports.iter().map(|port| port.fd).collect());
            self.effects.extend(fds.into_iter().map(|fd| Effect::FlushSocket { fd }));
        }
        self.set_socket_sub(id, SocketSub::Listening);
        self.watch_ports(id, true);
    }

    fn watch_ports(&mut self, id: UnitId, watch: bool) {
        let accept = self.socket_config(id).is_some_and(|section| section.accept);
        let Some(socket) = self.socket_mut(id) else { return };
        if socket.watched == watch {
            return;
        }
        socket.watched = watch;
        let resting = &socket.resting;
        let ports: Vec<Port> =
            socket.ports.iter().filter(|port| !resting.contains_key(&port.fd)).cloned().collect();
        for Port { fd, connection_based, .. } in ports {
            self.effects.push_back(if watch {
                Effect::WatchSocket { fd, accept: accept && connection_based }
            } else {
                Effect::UnwatchSocket { fd }
            });
        }
    }

    // ---- traffic --------------------------------------------------------------------------------------------------

    /// Traffic on a socket with `Accept=no`, or on a datagram socket.
    pub(crate) fn socket_readable(&mut self, fd: FdId) {
        let Some(&id) = self.state.ports.get(&fd) else { return };
        if self.socket_sub(id) != SocketSub::Listening {
            return;
        }
        if self.shutdown_is_queued() {
            return self.watch_ports(id, false);
        }
        if !self.poll_is_allowed(id, fd) || !self.trigger_is_allowed(id, false) {
            return;
        }
        let Some(service) = self.state.graph.of(id, Dependency::Triggers).next() else {
            return self.socket_stop_with(id, UnitResult::Resources);
        };
        // A service that waits to start, or stops and will come back, takes the traffic itself.
        let waiting = matches!(
            self.active_state(service),
            ActiveState::Active | ActiveState::Activating | ActiveState::Reloading
        );
        let cause = format!("traffic on {}", self.unit_name(id));
        self.watch_ports(id, false);
        self.set_socket_sub(id, SocketSub::Running);
        if !waiting && !self.request_quietly(service, JobType::Start, JobMode::Replace, &cause) {
            self.socket_stop_with(id, UnitResult::Resources);
        }
    }

    /// Counts a wake-up of a descriptor; with too many it rests until its window is over, and traffic waits in the
    /// kernel's queue.
    fn poll_is_allowed(&mut self, id: UnitId, fd: FdId) -> bool {
        let now = self.now.monotonic_usec;
        let Some(section) = self.socket_config(id) else { return false };
        let interval = section.poll_limit_interval_sec.map_or(2_000_000, |span| span.0);
        let burst = section.poll_limit_burst.unwrap_or(if section.accept { 150 } else { 15 });
        let Some(socket) = self.socket_mut(id) else { return false };
        let window = socket.poll_limits.entry(fd).or_default();
        let admitted = crate::limit::admit(window, now, interval, burst);
        let full = interval != 0 && burst != 0 && window.count >= burst;
        let until = window.begin_usec.saturating_add(interval);
        if full {
            self.rest(id, &[fd], until);
        }
        admitted
    }

    /// Stops watching descriptors until a moment.
    fn rest(&mut self, id: UnitId, fds: &[FdId], until: u64) {
        let Some(socket) = self.socket_mut(id) else { return };
        socket.resting.extend(fds.iter().map(|fd| (*fd, until)));
        socket.paused_until_usec = socket.resting.values().min().copied();
        self.effects.extend(fds.iter().map(|fd| Effect::UnwatchSocket { fd: *fd }));
        self.touch(id);
    }

    /// Watches again what has rested long enough.
    pub(crate) fn socket_resume(&mut self, id: UnitId) {
        let now = self.now.monotonic_usec;
        let accept = self.socket_config(id).is_some_and(|section| section.accept);
        let Some(socket) = self.socket_mut(id) else { return };
        let rested: Vec<FdId> =
            socket.resting.iter().filter(|(_, until)| **until <= now).map(|(fd, _)| *fd).collect();
        socket.resting.retain(|_, until| *until > now);
        socket.paused_until_usec = socket.resting.values().min().copied();
        let watched = socket.watched;
        let ports: Vec<Port> =
            socket.ports.iter().filter(|port| rested.contains(&port.fd)).cloned().collect();
        for Port { fd, connection_based, .. } in ports.into_iter().filter(|_| watched) {
            self.effects.push_back(Effect::WatchSocket { fd, accept: accept && connection_based });
        }
        self.touch(id);
    }

    /// `TriggerLimitAction=pause`: every descriptor rests until the window is over, and a little longer by chance, so
    /// that many sockets do not wake at once.
    fn pause(&mut self, id: UnitId, until: u64, interval: u64) {
        let spread = interval.checked_div(10).unwrap_or(0).max(1);
        let until = until.saturating_add(self.state.seed.checked_rem(spread).unwrap_or(0));
        let Some(socket) = self.socket_mut(id) else { return };
        socket.pauses = socket.pauses.saturating_add(1);
        let fds: Vec<FdId> = socket.ports.iter().map(|port| port.fd).collect();
        let text = format!("{}: Trigger limit hit, pausing.", self.unit_name(id));
        self.log(Level::Warning, Some(id), text);
        self.rest(id, &fds, until);
    }

    /// Counts an activation; when there are too many the socket fails, or pauses where `[X-Muster]` says so. What was
    /// `taken` already is served even then.
    fn trigger_is_allowed(&mut self, id: UnitId, taken: bool) -> bool {
        let now = self.now.monotonic_usec;
        let Some(section) = self.socket_config(id) else { return false };
        let interval = section.trigger_limit_interval_sec.map_or(2_000_000, |span| span.0);
        let burst = section.trigger_limit_burst.unwrap_or(if section.accept { 200 } else { 20 });
        let pauses = section.trigger_limit_action == muster_unit::TriggerLimitAction::Pause;
        let Some(socket) = self.socket_mut(id) else { return false };
        if crate::limit::admit(&mut socket.trigger_limit, now, interval, burst) {
            return true;
        }
        if pauses {
            let until = socket.trigger_limit.begin_usec.saturating_add(interval);
            self.pause(id, until, interval);
            return taken;
        }
        let text = format!("{}: Trigger limit hit, refusing further activation.", self.unit_name(id));
        self.log(Level::Error, Some(id), text);
        self.socket_stop_with(id, UnitResult::TriggerLimitHit);
        false
    }

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
        if let Some(socket) = self.socket_mut(id) {
            socket.accepted = socket.accepted.saturating_add(1);
            socket.connections = socket.connections.saturating_add(1);
            let count = socket.by_source.entry(peer.source.clone()).or_insert(0);
            *count = count.saturating_add(1);
        }
        self.effects.push_back(Effect::PrepareConnection { fd, config });
        if let Some(service) = self.service_mut(service) {
            service.connection = Some(fd);
            service.peer = Some(peer);
            service.accepted_from = Some(id);
        }
        self.touch(id);
        let cause = format!("connection {number} on {}", self.unit_name(id));
        if !self.request_quietly(service, JobType::Start, JobMode::Replace, &cause) {
            self.connection_ended(service);
            self.run_is_over(service);
        }
    }

    fn refuse(&mut self, fd: FdId) {
        self.effects.push_back(Effect::CloseFds { fds: vec![fd] });
    }

    /// Whether a connection of this peer would be refused for want of room. Whoever asks may see first whether room was
    /// made: ends of processes that were not told yet.
    pub fn would_refuse(&self, listener: FdId, peer: &Peer) -> bool {
        self.state.ports.get(&listener).is_some_and(|id| !self.has_room(*id, peer))
    }

    /// `MaxConnections=` and `MaxConnectionsPerSource=`.
    fn has_room(&self, id: UnitId, peer: &Peer) -> bool {
        let (Some(section), Some(socket)) = (self.socket_config(id), self.socket(id)) else { return false };
        let (max, per_source) = (section.max_connections, section.max_connections_per_source);
        let mine = socket.by_source.get(&peer.source).copied().unwrap_or(0);
        socket.connections < max && (per_source == 0 || mine < per_source)
    }

    fn connection_fits(&mut self, id: UnitId, peer: &Peer) -> bool {
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
    fn instance_name(&self, id: UnitId, instance: &str) -> Option<muster_unit::UnitName> {
        let name = self.state.units.get(&id)?.name.clone();
        format!("{}@{instance}.service", name.prefix()).parse().ok()
    }

    /// An instance of an `Accept=yes` socket changed; when it ended its place is free.
    pub(crate) fn accepted_instance_changed(&mut self, service: UnitId) {
        let down = matches!(self.active_state(service), ActiveState::Inactive | ActiveState::Failed);
        if down && self.service(service).is_some_and(|service| service.accepted_from.is_some()) {
            self.connection_ended(service);
        }
    }

    fn connection_ended(&mut self, service: UnitId) {
        let Some(instance) = self.service_mut(service) else { return };
        let Some(socket) = instance.accepted_from.take() else { return };
        let source = instance.peer.as_ref().map(|peer| peer.source.clone()).unwrap_or_default();
        if let Some(socket) = self.socket_mut(socket) {
            socket.connections = socket.connections.saturating_sub(1);
            if let Some(count) = socket.by_source.get_mut(&source) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    socket.by_source.remove(&source);
                }
            }
        }
        self.touch(socket);
        self.state.gc_queue.insert(service);
    }

    /// The service behind a socket with `Accept=no` changed.
    pub(crate) fn triggered_unit_changed(&mut self, id: UnitId, service: UnitId) {
        let Some(sub) = self.service(service).map(|service| service.sub) else { return };
        if self.socket_config(id).is_none_or(|section| section.accept) {
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
        let result = self.service(service).map_or(UnitResult::Success, |service| service.result);
        match sub {
            ServiceSub::Failed if result == UnitResult::StartLimitHit => {
                self.socket_stop_with(id, UnitResult::ServiceStartLimitHit);
            }
            ServiceSub::Dead | ServiceSub::Failed if self.job_kind(service) != Some(JobType::Start) => {
                self.socket_listen(id)
            }
            _ => {}
        }
    }

    /// The service's conditions did not hold: the traffic would wake it again and again.
    pub(crate) fn socket_condition_failed(&mut self, service: UnitId) {
        let sockets: Vec<UnitId> = self.state.graph.of(service, Dependency::TriggeredBy).collect();
        for id in sockets {
            if self.socket_sub(id) == SocketSub::Running {
                self.socket_listen(id);
            }
        }
    }

    /// Accepting failed for good.
    pub(crate) fn accept_failed(&mut self, listener: FdId, message: &str) {
        let Some(&id) = self.state.ports.get(&listener) else { return };
        let text = format!("{}: Failed to accept a connection: {message}", self.unit_name(id));
        self.log(Level::Error, Some(id), text);
        self.socket_stop_with(id, UnitResult::Resources);
    }

    // ---- stop -----------------------------------------------------------------------------------------------------

    pub(crate) fn socket_stop(&mut self, id: UnitId) -> Started {
        match self.socket_sub(id) {
            SocketSub::Dead | SocketSub::Failed => return Started::Ended(JobResult::Done),
            SocketSub::StartPre | SocketSub::StartChown | SocketSub::StartPost => {
                self.socket_signal(id, SocketSub::StopPreSigterm, UnitResult::Success);
            }
            SocketSub::Listening | SocketSub::Running => self.socket_stop_with(id, UnitResult::Success),
            SocketSub::StopPre
            | SocketSub::StopPreSigterm
            | SocketSub::StopPreSigkill
            | SocketSub::StopPost
            | SocketSub::FinalSigterm
            | SocketSub::FinalSigkill => {}
        }
        Started::Working
    }

    fn socket_stop_with(&mut self, id: UnitId, result: UnitResult) {
        self.note_socket_result(id, result);
        self.watch_ports(id, false);
        self.socket_list(id, SocketSub::StopPre, CommandList::ExecStopPre);
    }

    fn note_socket_result(&mut self, id: UnitId, result: UnitResult) {
        if let Some(socket) = self.socket_mut(id).filter(|socket| socket.result == UnitResult::Success) {
            socket.result = result;
        }
    }

    fn socket_signal(&mut self, id: UnitId, sub: SocketSub, result: UnitResult) {
        self.note_socket_result(id, result);
        let control = self.socket(id).is_some_and(|socket| socket.control.is_some());
        if control && self.kill_wave(id, Wave::of_socket(sub)) {
            return self.set_socket_sub(id, sub);
        }
        match sub {
            SocketSub::StopPreSigterm | SocketSub::StopPreSigkill => self.socket_close(id),
            _ => self.socket_dead(id, UnitResult::Success),
        }
    }

    /// Descriptors go before `ExecStopPost=`.
    fn socket_close(&mut self, id: UnitId) {
        self.close_ports(id);
        self.socket_list(id, SocketSub::StopPost, CommandList::ExecStopPost);
    }

    fn close_ports(&mut self, id: UnitId) {
        self.watch_ports(id, false);
        let ports = self.socket_mut(id).map(|socket| std::mem::take(&mut socket.ports)).unwrap_or_default();
        if ports.is_empty() {
            return;
        }
        let fds: Vec<FdId> = ports.into_iter().map(|port| port.fd).collect();
        for fd in &fds {
            self.state.ports.remove(fd);
        }
        let unit = self.name_of(id);
        if let Some(config) = self.socket_section(id) {
            self.effects.push_back(Effect::RemoveSocketNodes { unit, config });
        }
        self.effects.push_back(Effect::CloseFds { fds });
    }

    fn socket_dead(&mut self, id: UnitId, result: UnitResult) {
        self.note_socket_result(id, result);
        self.close_ports(id);
        let failed = self.socket(id).is_some_and(|socket| socket.result != UnitResult::Success);
        self.report_result(id);
        self.set_socket_sub(id, if failed { SocketSub::Failed } else { SocketSub::Dead });
        self.run_is_over(id);
    }

    /// A command of the socket ended.
    pub(crate) fn socket_control_exited(&mut self, id: UnitId, process: Process, exit: Exit) {
        let (list, index) = process.place.unwrap_or((CommandList::ExecStartPre, 0));
        let ignore = process.command.as_ref().is_some_and(|command| command.ignore_failure);
        let good = ignore || is_clean(exit, None, true);
        self.report_control_exit(id, list, exit, good);
        let sub = self.socket_sub(id);
        let next = index.saturating_add(1);
        let in_list = matches!(
            sub,
            SocketSub::StartPre | SocketSub::StartPost | SocketSub::StopPre | SocketSub::StopPost
        );
        if good && in_list {
            let more = usize::try_from(next).is_ok_and(|next| next < self.commands(id, list).len());
            return if more { self.socket_command(id, list, next) } else { self.socket_list_done(id, list) };
        }
        let result = if good { UnitResult::Success } else { result_of(exit) };
        match sub {
            SocketSub::StartPre => self.socket_signal(id, SocketSub::FinalSigterm, result),
            SocketSub::StartPost => self.socket_stop_with(id, result),
            SocketSub::StopPre | SocketSub::StopPreSigterm | SocketSub::StopPreSigkill => {
                self.note_socket_result(id, result);
                self.socket_close(id);
            }
            SocketSub::StopPost | SocketSub::FinalSigterm | SocketSub::FinalSigkill => {
                self.socket_dead(id, result)
            }
            SocketSub::Dead
            | SocketSub::StartChown
            | SocketSub::Listening
            | SocketSub::Running
            | SocketSub::Failed => {}
        }
    }

    /// The deadline of the current phase passed.
    pub(crate) fn socket_deadline(&mut self, id: UnitId) {
        let group = self.kill_mode(id) != KillMode::None;
        match self.socket_sub(id) {
            SocketSub::StartPre => self.socket_signal(id, SocketSub::FinalSigterm, UnitResult::Timeout),
            SocketSub::StartChown => self.socket_dead(id, UnitResult::Timeout),
            SocketSub::StartPost => self.socket_stop_with(id, UnitResult::Timeout),
            SocketSub::StopPre => self.socket_signal(id, SocketSub::StopPreSigterm, UnitResult::Timeout),
            SocketSub::StopPreSigterm if group => {
                self.socket_signal(id, SocketSub::StopPreSigkill, UnitResult::Timeout)
            }
            SocketSub::StopPreSigterm | SocketSub::StopPreSigkill => self.socket_close(id),
            SocketSub::StopPost => self.socket_signal(id, SocketSub::FinalSigterm, UnitResult::Timeout),
            SocketSub::FinalSigterm if group => {
                self.socket_signal(id, SocketSub::FinalSigkill, UnitResult::Timeout)
            }
            SocketSub::FinalSigterm | SocketSub::FinalSigkill => self.socket_dead(id, UnitResult::Timeout),
            SocketSub::Dead | SocketSub::Failed | SocketSub::Listening | SocketSub::Running => {}
        }
    }
}
