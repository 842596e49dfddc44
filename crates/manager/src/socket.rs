//! Sockets: systemd.socket(5) as a state machine.
//!
//! | state | control ends | control fails | opened | not opened | traffic | service ends | time is up | stop |
//! |---|---|---|---|---|---|---|---|---|
//! | dead | – | – | – | – | – | – | – | – |
//! | start-pre | start-chown | failed `exit-code` | – | – | – | – | final-sigterm `timeout` | stop-pre-sigterm |
//! | start-chown | – | – | start-post | failed `resources` | – | – | failed `timeout` | stop-post |
//! | start-post | listening | stop-pre `exit-code` | – | – | – | – | stop-pre `timeout` | stop-pre-sigterm |
//! | listening | – | – | – | – | running | – | – | stop-pre |
//! | listening (Accept=yes), deferred | – | – | – | – | – | – | – | stop-pre |
//! | running | – | – | – | – | – | listening | – | stop-pre |
//! | stop-pre | stop-post | stop-post `exit-code` | – | – | – | – | stop-pre-sigterm `timeout` | – |
//! | stop-pre-sigterm | stop-post | stop-post | – | – | – | – | stop-pre-sigkill | – |
//! | stop-pre-sigkill | stop-post | stop-post | – | – | – | – | stop-post | – |
//! | stop-post | dead | failed `exit-code` | – | – | – | – | final-sigterm `timeout` | – |
//! | final-sigterm | failed | failed | – | – | – | – | final-sigkill | – |
//! | final-sigkill | failed | failed | – | – | – | – | failed | – |
//! | failed | – | – | – | – | – | – | – | – |
//!
//! Descriptors are closed when a run ends, and not before; a limit that is hit ends the run with its own result, or with
//! `TriggerLimitAction=pause` ([X-Muster]) closes the ear for a while. A restart keeps the descriptors of addresses that did
//! not change, with all that is queued on them: they wait in `kept` until its second half has opened the others. A state is
//! not left before the nodes that go with it are gone (`RemoveOnStop=`), so that no later run loses its own.

mod accept;
mod nodes;

use crate::effect::{Effect, FdId, Level, Network, SpawnRole};
use crate::event::{Exit, OpenError, OpenedSocket};
use crate::jobs::Started;
use crate::kill::Wave;
use crate::kind::{CommandStatus, TypeState, Verbs};
use crate::manager::Manager;
use crate::refused::Refused;
use crate::service_ends::{is_clean, result_of};
use crate::state::{
    ActiveState, CommandList, Port, Process, ServiceSub, Socket, SocketSub, Unit, UnitResult,
};
use muster_graph::{Dependency, JobMode, JobResult, JobType, UnitId};
use muster_unit::{DeferTrigger, KillMode, Listen, LoadState, SocketSection};
use std::rc::Rc;

impl SocketSub {
    /// The state of the unit in this sub-state.
    pub fn active_state(self) -> ActiveState {
        use SocketSub::*;
        match self {
            Dead => ActiveState::Inactive,
            Failed => ActiveState::Failed,
            StartPre | StartChown | StartPost => ActiveState::Activating,
            Listening | Deferred | Running => ActiveState::Active,
            StopPre | StopPreSigterm | StopPreSigkill | StopPost | FinalSigterm | FinalSigkill => {
                ActiveState::Deactivating
            }
        }
    }
}

impl TypeState for Socket {
    fn active_state(&self, _: &Unit) -> ActiveState {
        self.sub.active_state()
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        self.sub.as_str()
    }

    fn result(&self) -> UnitResult {
        self.result
    }

    fn reset_failed(&mut self, failed: bool) {
        self.trigger_limit = Default::default();
        if failed {
            self.sub = SocketSub::Dead;
            self.result = UnitResult::Success;
        }
    }

    fn set_failed(&mut self, result: UnitResult) {
        (self.sub, self.result) = (SocketSub::Failed, result);
    }

    fn control(&self) -> Option<&Process> {
        self.control.as_ref()
    }

    fn control_mut(&mut self) -> Option<&mut Option<Process>> {
        Some(&mut self.control)
    }

    fn command_status_mut(&mut self) -> Option<&mut CommandStatus> {
        Some(&mut self.command_status)
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: Manager::socket_start,
    stop: Manager::socket_stop,
    deadline: |_, unit| {
        let socket = Socket::of(&unit.kind)?;
        socket.deadline_usec.into_iter().chain(socket.paused_until_usec).min()
    },
    due: Manager::socket_due,
    resumed: Manager::socket_resumed,
    triggered_changed: Manager::triggered_unit_changed,
    reloaded: Manager::socket_reloaded,
    removed: Manager::socket_removed,
    control_exited: Manager::socket_control_exited,
    has_cgroup: true,
    ..Verbs::NOTHING
};

/// At most this many failed instances of a socket with `Accept=yes` stay loaded.
const FAILED_KEPT: usize = 16;

impl Manager {
    pub(crate) fn socket(&self, id: UnitId) -> Option<&Socket> {
        Socket::of(&self.state.units.get(&id)?.kind)
    }

    fn socket_mut(&mut self, id: UnitId) -> Option<&mut Socket> {
        Socket::of_mut(&mut self.state.units.edit(&id)?.kind)
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
            .and_then(|section| section.timeout_sec())
            .map_or(self.state.facts.default_timeout_start_usec, |span| span.0);
        let deferred = self
            .socket_config(id)
            .and_then(|section| section.defer_trigger_max_sec())
            .map_or(u64::MAX, |span| span.0);
        let span = match sub {
            SocketSub::Dead | SocketSub::Failed | SocketSub::Listening | SocketSub::Running => u64::MAX,
            SocketSub::Deferred => deferred,
            _ => span,
        };
        let deadline = self.after(span);
        if sub == SocketSub::Deferred {
            self.state.deferred.insert(id);
        } else {
            self.state.deferred.remove(&id);
        }
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
        if self.is_removing(id) {
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
        match self.socket_has_cgroup(id) {
            true => self.prepare_run(id),
            false => self.new_invocation(id),
        }
        if let Some(socket) = self.socket_mut(id) {
            socket.result = UnitResult::Success;
            socket.command_status.clear();
            socket.trigger_limit = Default::default();
            socket.paused_until_usec = None;
            socket.resting.clear();
            socket.poll_limits.clear();
            (socket.accepted, socket.refused) = (0, 0);
        }
        self.report_starting(id);
        self.socket_list(id, SocketSub::StartPre, CommandList::ExecStartPre);
        Started::Working
    }

    /// Whether a socket has a cgroup from its start on, as under systemd: for its commands, for addresses whose traffic can be
    /// filtered, and for what is not opened as root or on the host's network. Others get one with their first command.
    fn socket_has_cgroup(&self, id: UnitId) -> bool {
        let Some(config) = self.socket_config(id) else { return false };
        let exec = self.state.units.get(&id).and_then(|unit| unit.file.exec.as_deref());
        [CommandList::ExecStartPre, CommandList::ExecStartPost]
            .iter()
            .any(|list| !self.commands(id, *list).is_empty())
            || config.listen().iter().any(Listen::is_internet)
            || config.socket_user().is_some()
            || config.socket_group().is_some()
            || exec.is_some_and(|exec| exec.private_network() || exec.network_namespace_path().is_some())
    }

    /// A socket cannot be put in front of a service that is not there, or that already runs without it.
    fn service_stands_in_the_way(&self, id: UnitId) -> Option<String> {
        if self.socket_config(id)?.accept() {
            return None;
        }
        let service = self.state.graph.of(id, Dependency::Triggers).next()?;
        if self.state.units.get(&service)?.file.load_state != LoadState::Loaded {
            let (me, other) = (self.unit_name(id), self.unit_name(service));
            return Some(format!("{me}: Socket service {other} not loaded, refusing."));
        }
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
        self.kill_control_now(id);
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
            | CommandList::ExecReloadPost
            | CommandList::Refresh
            | CommandList::ExecStop
            | CommandList::ExecMount
            | CommandList::ExecUnmount
            | CommandList::ExecRemount
            | CommandList::ExecActivate
            | CommandList::ExecDeactivate => {}
        }
    }

    fn open_sockets(&mut self, id: UnitId) {
        self.set_socket_sub(id, SocketSub::StartChown);
        let Some(config) = self.socket_section(id) else { return };
        let keep = self.match_kept(id, &config);
        if self.is_removing(id) {
            // It goes on when the nodes are gone.
            return;
        }
        let unit = self.name_of(id);
        let function = self.usb_function(id);
        let network = self.network_of(id);
        self.effects.push_back(Effect::OpenSockets { unit, config, keep, function, network });
    }

    /// The network namespace that the unit asks for.
    fn network_of(&mut self, id: UnitId) -> Option<Network> {
        let exec = self.state.units.get(&id)?.file.exec.clone()?;
        if let Some(path) = exec.network_namespace_path() {
            return Some(Network::At(path.0.clone()));
        }
        let shared = exec.has_own_network().then(|| self.share_of(id, &exec)).flatten();
        shared.map(Network::Shared)
    }

    /// The descriptors of a restarted socket that serve on, by the place of their address. The others go, first of all, so
    /// that nothing of ours stands in the way of what is to be opened.
    fn match_kept(&mut self, id: UnitId, config: &Rc<SocketSection>) -> Vec<(u32, FdId)> {
        let Some(socket) = self.socket_mut(id) else { return Vec::new() };
        let place = |port: &Port| {
            let at = config.listen().iter().position(|listen| *listen == port.listen)?;
            u32::try_from(at).ok()
        };
        let (same, gone): (Vec<Port>, Vec<Port>) =
            std::mem::take(&mut socket.kept).into_iter().partition(|port| place(port).is_some());
        let keep = same.iter().filter_map(|port| Some((place(port)?, port.fd))).collect();
        socket.kept = same;
        self.release_ports(id, gone);
        keep
    }

    /// What the service says of its USB function, for `ListenUSBFunction=`.
    fn usb_function(&self, id: UnitId) -> Option<(String, String)> {
        let service = self.state.graph.of(id, Dependency::Triggers).next()?;
        let (_, section) = self.service_config(service)?;
        {
            let path = |path: &Option<muster_unit::AbsolutePath>| path.as_deref().map(str::to_owned);
            path(section.usb_function_descriptors()).zip(path(section.usb_function_strings()))
        }
    }

    /// The runtime opened what it could, or says what stood in the way.
    pub(crate) fn sockets_opened(&mut self, id: UnitId, result: Result<Vec<OpenedSocket>, OpenError>) {
        let opened = match result {
            Ok(opened) => opened,
            // Stopped meanwhile: it is of no interest any more.
            Err(_) if self.socket_sub(id) != SocketSub::StartChown => return,
            Err(OpenError { message, no_owner }) => {
                let text = format!("{}: {message}{}", self.unit_name(id), self.who_listens(id, &message));
                self.log(Level::Error, Some(id), text);
                // Owners are looked up by a process, of which this is the end.
                let result = if no_owner { UnitResult::ExitCode } else { UnitResult::Resources };
                return self.socket_dead(id, result);
            }
        };
        let Some(config) = self.socket_section(id) else { return };
        if self.socket_sub(id) != SocketSub::StartChown {
            // Stopped meanwhile: nobody wants them. What served before went with the run.
            let fds: Vec<FdId> = opened.iter().filter(|port| !port.kept).map(|port| port.fd).collect();
            return self.effects.push_back(Effect::CloseFds { fds });
        }
        let address = |index: u32| usize::try_from(index).ok().and_then(|index| config.listen().get(index));
        let ports: Vec<Port> = opened
            .into_iter()
            .filter_map(|port| {
                Some(Port {
                    fd: port.fd,
                    listen: address(port.listen_index)?.clone(),
                    connection_based: port.connection_based,
                    companion: port.companion,
                })
            })
            .collect();
        self.state.ports.extend(ports.iter().map(|port| (port.fd, id)));
        if let Some(socket) = self.socket_mut(id) {
            socket.ports = ports;
            socket.kept.clear();
        }
        self.socket_list(id, SocketSub::StartPost, CommandList::ExecStartPost);
    }

    /// The other unit that has the address of a complaint.
    fn who_listens(&self, id: UnitId, complaint: &str) -> String {
        if !complaint.ends_with("already in use") {
            return String::new();
        }
        let has = |port: &Port| {
            let address = format!("={}: ", port.listen.address);
            complaint.contains(&address)
        };
        let others = self.state.units.iter().filter(|(other, _)| **other != id);
        let mut holders = others
            .filter(|(_, unit)| Socket::of(&unit.kind).is_some_and(|socket| socket.ports.iter().any(has)));
        holders.next().map_or(String::new(), |(_, unit)| format!("; {} listens there", unit.name))
    }

    fn socket_listen(&mut self, id: UnitId) {
        if self.socket_config(id).is_some_and(|section| section.flush_pending()) {
            let fds: Vec<FdId> = self
                .socket(id)
                .map_or_else(Vec::new, |socket| socket.ports.iter().map(|port| port.fd).collect());
            self.effects.extend(fds.into_iter().map(|fd| Effect::FlushSocket { fd }));
        }
        self.set_socket_sub(id, SocketSub::Listening);
        self.watch_ports(id, true);
    }

    fn watch_ports(&mut self, id: UnitId, watch: bool) {
        let Some(section) = self.socket_config(id) else { return };
        let accept = section.accept();
        let forgets = section.poll_limit_interval_sec().is_none() && section.poll_limit_burst().is_none();
        let Some(socket) = self.socket_mut(id) else { return };
        if socket.watched == watch {
            return;
        }
        socket.watched = watch;
        // As systemd 257 does: a limit that nobody set counts from here, so that it slows down what is watched all the time
        // (`Accept=yes`), and what starts one service at a time is left to the trigger limit. One that is set is kept.
        if forgets {
            socket.poll_limits.clear();
        }
        let resting = &socket.resting;
        let is_watched = |port: &&Port| !port.companion && !resting.contains_key(&port.fd);
        let ports: Vec<Port> = socket.ports.iter().filter(is_watched).cloned().collect();
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
        self.watch_ports(id, false);
        if waiting {
            return self.set_socket_sub(id, SocketSub::Running);
        }
        self.trigger_service(id, service);
    }

    /// Starts the service, or puts that off (`DeferTrigger=`) while it would bring down another one.
    fn trigger_service(&mut self, id: UnitId, service: UnitId) {
        let defer = self.socket_config(id).map_or(DeferTrigger::No, |section| section.defer_trigger());
        let mode = if defer == DeferTrigger::No { JobMode::Replace } else { JobMode::Lenient };
        let cause = format!("traffic on {}", self.unit_name(id));
        let was_deferred = self.socket_sub(id) == SocketSub::Deferred;
        if !was_deferred {
            self.set_socket_sub(id, SocketSub::Running);
        }
        match self.enqueue(service, JobType::Start, mode, &cause) {
            Ok(_) if was_deferred => self.set_socket_sub(id, SocketSub::Running),
            Ok(_) => {}
            Err(refused)
                if mode == JobMode::Lenient
                    && matches!(refused, Refused::Destructive { .. } | Refused::Disturbing { .. }) =>
            {
                let patient = defer == DeferTrigger::Patient;
                if patient || !self.state.jobs.is_empty() {
                    if !was_deferred {
                        self.note_cause(id, format!("trigger deferred: {refused}"));
                        self.set_socket_sub(id, SocketSub::Deferred);
                    }
                    return;
                }
                self.trigger_failed(id, &refused.to_string());
            }
            Err(refused) => self.trigger_failed(id, &refused.to_string()),
        }
    }

    fn trigger_failed(&mut self, id: UnitId, why: &str) {
        let text = format!("{}: Failed to queue service startup job: {why}", self.unit_name(id));
        self.log(Level::Warning, Some(id), text);
        self.socket_stop_with(id, UnitResult::Resources);
    }

    /// When all jobs are done, sockets whose trigger was put off try again.
    pub(crate) fn trigger_deferred(&mut self) {
        if self.state.deferred.is_empty() || !self.state.jobs.is_empty() || self.shutdown_is_queued() {
            return;
        }
        for id in self.state.deferred.clone() {
            let service = self.state.graph.of(id, Dependency::Triggers).next();
            if let Some(service) = service {
                self.trigger_service(id, service);
            }
        }
    }

    /// Counts a wake-up of a descriptor; with too many it rests until its window is over, and traffic waits in the
    /// kernel's queue.
    fn poll_is_allowed(&mut self, id: UnitId, fd: FdId) -> bool {
        let now = self.now.monotonic_usec;
        let Some(section) = self.socket_config(id) else { return false };
        let interval = section.poll_limit_interval_sec().map_or(2_000_000, |span| span.0);
        let burst = section.poll_limit_burst().unwrap_or(if section.accept() { 150 } else { 15 });
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
        let accept = self.socket_config(id).is_some_and(|section| section.accept());
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
        let interval = section.trigger_limit_interval_sec().map_or(2_000_000, |span| span.0);
        let burst = section.trigger_limit_burst().unwrap_or(if section.accept() { 200 } else { 20 });
        let pauses = section.trigger_limit_action() == muster_unit::TriggerLimitAction::Pause;
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

    // ---- stop -----------------------------------------------------------------------------------------------------

    pub(crate) fn socket_stop(&mut self, id: UnitId) -> Started {
        match self.socket_sub(id) {
            SocketSub::Dead | SocketSub::Failed => return Started::Ended(JobResult::Done),
            SocketSub::StartPre | SocketSub::StartChown | SocketSub::StartPost => {
                self.socket_signal(id, SocketSub::StopPreSigterm, UnitResult::Success);
            }
            SocketSub::Listening | SocketSub::Deferred | SocketSub::Running => {
                self.report_stopping(id);
                self.socket_stop_with(id, UnitResult::Success);
            }
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

    /// Descriptors go before `ExecStopPost=`; where its commands are given them, their nodes go first and they themselves
    /// when the commands are done.
    fn socket_close(&mut self, id: UnitId) {
        self.leave_opening(id);
        self.watch_ports(id, false);
        let passes = self.socket_config(id).is_some_and(|section| section.pass_file_descriptors_to_exec());
        if passes && !self.commands(id, CommandList::ExecStopPost).is_empty() {
            let ports = self.socket(id).map_or_else(Vec::new, |socket| socket.ports.clone());
            if self.job_kind(id) != Some(JobType::Restart) {
                self.remove_nodes(id, &ports);
            }
        } else {
            self.close_ports(id);
        }
        if !self.is_removing(id) {
            return self.socket_list(id, SocketSub::StopPost, CommandList::ExecStopPost);
        }
        if self.socket_sub(id) != SocketSub::StopPreSigkill {
            self.set_socket_sub(id, SocketSub::StopPreSigterm);
        }
    }

    /// Whoever opens its addresses need not go on.
    fn leave_opening(&mut self, id: UnitId) {
        if self.socket_sub(id) == SocketSub::StartChown {
            self.effects.push_back(Effect::StopOpening { unit: self.name_of(id) });
        }
    }

    fn close_ports(&mut self, id: UnitId) {
        self.watch_ports(id, false);
        let restarts = self.job_kind(id) == Some(JobType::Restart);
        let Some(socket) = self.socket_mut(id) else { return };
        let ports = std::mem::take(&mut socket.ports);
        if restarts && socket.result == UnitResult::Success {
            for port in &ports {
                self.state.ports.remove(&port.fd);
            }
            if let Some(socket) = self.socket_mut(id) {
                socket.kept.extend(ports);
            }
        } else {
            let ports = std::mem::take(&mut socket.kept).into_iter().chain(ports).collect();
            self.release_ports(id, ports);
        }
    }

    /// A restart came to nothing: what waited for its second half goes.
    pub(crate) fn forget_kept_ports(&mut self, id: UnitId) {
        let down = matches!(self.socket_sub(id), SocketSub::Dead | SocketSub::Failed);
        if let Some(socket) = self.socket_mut(id).filter(|socket| down && !socket.kept.is_empty()) {
            let ports = std::mem::take(&mut socket.kept);
            self.release_ports(id, ports);
        }
    }

    /// Closes descriptors, with their nodes where the unit says so.
    fn release_ports(&mut self, id: UnitId, ports: Vec<Port>) {
        if ports.is_empty() {
            return;
        }
        for port in &ports {
            self.state.ports.remove(&port.fd);
        }
        self.remove_nodes(id, &ports);
        self.effects.push_back(Effect::CloseFds { fds: ports.into_iter().map(|port| port.fd).collect() });
    }

    /// After a re-execution: the descriptors are there and not watched; an opening that was under way begins anew.
    pub(crate) fn socket_resumed(&mut self, id: UnitId) {
        let Some(socket) = self.socket_mut(id) else { return };
        let watched = std::mem::take(&mut socket.watched);
        if socket.sub == SocketSub::StartChown {
            self.open_sockets(id);
        } else if watched {
            self.watch_ports(id, true);
        }
    }

    /// After a reload: descriptors of addresses that the unit no longer has are closed, all others serve on.
    pub(crate) fn socket_reloaded(&mut self, id: UnitId) {
        let Some(config) = self.socket_section(id) else { return };
        let Some(socket) = self.socket_mut(id) else { return };
        let (stay, gone): (Vec<Port>, Vec<Port>) = std::mem::take(&mut socket.ports)
            .into_iter()
            .partition(|port| config.listen().contains(&port.listen));
        socket.ports = stay;
        for port in &gone {
            let text = format!("{}: {} is no longer listened on.", self.unit_name(id), port.listen.address);
            self.log(Level::Info, Some(id), text);
        }
        self.release_ports(id, gone);
    }

    fn socket_dead(&mut self, id: UnitId, result: UnitResult) {
        self.note_socket_result(id, result);
        self.kill_control_now(id);
        self.leave_opening(id);
        self.close_ports(id);
        if !self.is_removing(id) {
            self.socket_over(id);
        } else if self.socket_sub(id) != SocketSub::FinalSigkill {
            self.set_socket_sub(id, SocketSub::FinalSigterm);
        }
    }

    /// The run is over, and its nodes are gone.
    fn socket_over(&mut self, id: UnitId) {
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
            | SocketSub::Deferred
            | SocketSub::Running
            | SocketSub::Failed => {}
        }
    }

    fn socket_due(&mut self, id: UnitId) {
        let now = self.now.monotonic_usec;
        let late = |deadline: Option<u64>| deadline.is_some_and(|at| at <= now);
        let Some(socket) = self.socket(id) else { return };
        if late(socket.deadline_usec) {
            self.socket_deadline(id);
        } else if late(socket.paused_until_usec) {
            self.socket_resume(id);
        }
    }

    /// The deadline of the current phase passed.
    pub(crate) fn socket_deadline(&mut self, id: UnitId) {
        let group = self.kill_mode(id) != KillMode::None;
        match self.socket_sub(id) {
            SocketSub::StartPre => self.socket_signal(id, SocketSub::FinalSigterm, UnitResult::Timeout),
            SocketSub::StartChown => self.socket_dead(id, UnitResult::Timeout),
            SocketSub::StartPost | SocketSub::Deferred => self.socket_stop_with(id, UnitResult::Timeout),
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
