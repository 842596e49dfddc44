//! Starting processes: from a unit's command to an effect, and from a process's end back to its unit.
//!
//! The environment here is only what PID 1 knows (contract with sd_notify(3), sd_listen_fds(3), systemd.exec(5));
//! what needs the user database or a file is the executor's.

use crate::effect::{Effect, FdId, Level, RefreshMain, Spawn, SpawnId, SpawnRole};
use crate::event::Exit;
use crate::manager::Manager;
use crate::state::{CommandList, ExecStatus, Process, Service, ServiceSub, Socket, Usage};
use muster_graph::{Dependency, UnitId};
use muster_unit::{
    ExecCommand, ExecSection, NotifyAccess, PressureWatch, Privilege, ServiceSection, ServiceType, UnitKind,
    UnitName,
};
use std::rc::Rc;

/// What a service watches one kind of pressure by: a file of its cgroup, and what to write there.
fn pressure_variables(kind: &str, root: &str, cgroup: &str, threshold_usec: u64) -> [String; 2] {
    let trigger =
        muster_unit::encode_base64(format!("some {threshold_usec} {PRESSURE_WINDOW_USEC}\0").as_bytes());
    let name = kind.to_uppercase();
    [
        format!("{name}_PRESSURE_WATCH=/sys/fs/cgroup{root}{cgroup}/{kind}.pressure"),
        format!("{name}_PRESSURE_WRITE={trigger}"),
    ]
}

/// What stands for the process that refreshes, where its command is shown.
fn refresh_command() -> ExecCommand {
    let name = || "(refresh)".to_owned();
    ExecCommand { path: name(), argv: vec![name()], privilege: Privilege::Full, ..Default::default() }
}

/// `PermissionsStartOnly=` and `RootDirectoryStartOnly=`: what a command other than `ExecStart=` does without.
fn limit_to_start(service: &ServiceSection, command: &mut ExecCommand, exec: &mut Rc<ExecSection>) {
    if service.permissions_start_only() {
        command.privilege = Privilege::Full;
    }
    if service.root_directory_start_only() {
        let mut edit = Rc::make_mut(exec).edit();
        *edit.root_directory() = None;
        *edit.root_image() = None;
        *edit.root_mstack() = None;
    }
}

impl Manager {
    /// Starts one command of a list; gives what to remember of it.
    pub(crate) fn spawn_command(
        &mut self,
        id: UnitId,
        list: CommandList,
        index: u32,
        role: SpawnRole,
    ) -> Option<Process> {
        let refresh = if list == CommandList::Refresh { self.refresh_of(id) } else { None };
        let command = match refresh {
            Some(_) => refresh_command(),
            None => self.commands(id, list).get(usize::try_from(index).ok()?)?.clone(),
        };
        // A service that stays up without a process has none; no process runs outside of its unit's.
        if self.state.units.get(&id)?.cgroup.is_none() {
            self.realize_cgroup(id);
        }
        let own = self.state.units.get(&id)?.file.exec.clone().unwrap_or_default();
        let mut exec = self.with_defaults(own);
        let shared = self.share_of(id, &exec);
        self.use_accounts(id, &exec);
        let unit = self.state.units.get(&id)?;
        let mut cgroup = unit.cgroup.clone().unwrap_or_default();
        let spawn = SpawnId(self.state.next_spawn);
        self.state.next_spawn = self.state.next_spawn.saturating_add(1);
        let main = role == SpawnRole::Main || list == CommandList::ExecStart;
        if let Some(subgroup) = unit.file.cgroup.as_ref().and_then(|config| config.subgroup()) {
            cgroup = format!("{cgroup}/{}", if main { subgroup } else { CONTROL_SUBGROUP });
        }
        let report_exec = main && (self.service_type(id) == ServiceType::Exec || self.is_read_for(id));
        let mut as_executed = command.clone();
        if let Some((_, service)) = self.service_config(id).filter(|_| !main) {
            limit_to_start(service, &mut as_executed, &mut exec);
        }
        self.use_ephemeral(id, &exec);
        let unit = self.state.units.get(&id)?;
        let effect = Spawn {
            id: spawn,
            unit: unit.name.clone(),
            role,
            command: as_executed,
            exec,
            base_environment: self.base_environment(),
            own_environment: self.own_environment(id, list, main),
            fds: if main { self.fds_for(id) } else { self.fds_for_command(id, list) },
            stdio_socket: self.stdio_socket(id),
            stdio: self.service(id).map_or_else(Vec::new, |service| service.stdio.clone()),
            cgroup,
            invocation_id: unit.invocation_id.clone(),
            report_exec,
            set_watchdog_pid: main && self.watchdog_usec(id).is_some(),
            make_directories: true,
            non_blocking: self.service_config(id).is_some_and(|(_, section)| section.non_blocking()),
            fresh_credentials: main || matches!(list, CommandList::ExecCondition | CommandList::ExecStartPre),
            open_files: self.open_files(id).filter(|_| main).cloned().unwrap_or_default(),
            context_from_peer: main && self.context_from_peer(id),
            place: None,
            shared,
            refresh,
        };
        self.effects.push_back(Effect::Spawn(Box::new(effect)));
        self.state.spawns.insert(spawn, id);
        self.state.populated.insert(id);
        if refresh.is_none() {
            self.note_start(id, list, index);
        }
        Some(Process {
            spawn: Some(spawn),
            pid: None,
            command: Some(command),
            place: Some((list, index)),
            alien: false,
        })
    }

    /// What a reload is to make anew, if anything.
    pub(crate) fn refresh_of(&self, id: UnitId) -> Option<RefreshMain> {
        let (_, section) = self.service_config(id)?;
        let mut what = section.refresh_on_reload()?;
        let exec = self.state.units.get(&id)?.file.exec.as_ref()?;
        let extends = !exec.extension_images().is_empty() || !exec.extension_directories().is_empty();
        what.extensions &= extends;
        what.credentials &= exec.has_credentials();
        let pid = self.service(id)?.main.as_ref().and_then(|main| main.pid);
        (what.extensions || what.credentials).then_some(RefreshMain { what, pid })
    }

    fn open_files(&self, id: UnitId) -> Option<&Vec<muster_unit::OpenFile>> {
        self.service_config(id).map(|(_, section)| section.open_file())
    }

    fn note_start(&mut self, id: UnitId, list: CommandList, index: u32) {
        let start = self.stamp();
        let Some(unit) = self.state.units.edit(&id) else { return };
        if let Some(service) = Service::of_mut(&mut unit.kind) {
            service.directories_made = true;
        }
        let Some(statuses) = unit.kind.state_mut().command_status_mut() else { return };
        statuses.entry(list).or_default().insert(index, ExecStatus { start, ..ExecStatus::default() });
    }

    /// An execution context with the limits of system.conf where it has none of its own.
    pub(crate) fn with_defaults(&self, exec: Rc<ExecSection>) -> Rc<ExecSection> {
        let defaults = &self.state.facts.config.default_exec;
        if *defaults == ExecSection::default() {
            return exec;
        }
        let mut exec = exec;
        let own = Rc::make_mut(&mut exec);
        own.take_limits(defaults);
        if let (None, score @ Some(_)) = (own.oom_score_adjust(), defaults.oom_score_adjust()) {
            *own.edit().oom_score_adjust() = score;
        }
        exec
    }

    pub(crate) fn base_environment(&self) -> Vec<String> {
        let set = self.state.client_environment.iter().map(|(key, value)| format!("{key}={value}"));
        self.state.facts.base_environment.iter().cloned().chain(set).collect()
    }

    fn own_environment(&self, id: UnitId, list: CommandList, main: bool) -> Vec<String> {
        let mut env = Vec::new();
        let Some(unit) = self.state.units.get(&id) else { return env };
        env.push(format!("INVOCATION_ID={}", unit.invocation_id));
        env.extend(self.pressure_environment(id));
        if unit.name.as_str() == "dbus.service" {
            // It would ask us for users of `DynamicUser=` while we wait for it (nss-systemd(8)).
            env.push("SYSTEMD_NSS_DYNAMIC_BYPASS=1".to_owned());
        }
        let Some(service) = Service::of(&unit.kind) else { return env };
        let access = self.notify_access(id);
        let hears = match list {
            CommandList::ExecStart => access != NotifyAccess::None,
            _ => matches!(access, NotifyAccess::Exec | NotifyAccess::All),
        };
        if hears {
            env.push("NOTIFY_SOCKET=/run/systemd/notify".to_owned());
        }
        if let (true, Some(usec)) = (main, self.watchdog_usec(id)) {
            env.push(format!("WATCHDOG_USEC={usec}"));
        }
        if let Some((_, section)) = self.service_config(id) {
            env.extend(section.pid_file().as_deref().map(|path| format!("PIDFILE={path}")));
            let stored = section.file_descriptor_store_max();
            env.extend((stored > 0).then(|| format!("FDSTORE={stored}")));
        }
        if let Some(peer) = &service.peer {
            env.extend(peer.remote_addr.as_ref().map(|addr| format!("REMOTE_ADDR={addr}")));
            env.extend(peer.remote_port.map(|port| format!("REMOTE_PORT={port}")));
            env.push(format!("SO_COOKIE={}", peer.cookie));
        }
        if let Some(pid) = service.main.as_ref().and_then(|main| main.pid).filter(|_| !main) {
            env.push(format!("MAINPID={pid}"));
        }
        if main {
            env.extend(unit.activation_details.iter().map(|(key, value)| format!("{key}={value}")));
        }
        if matches!(list, CommandList::ExecStop | CommandList::ExecStopPost) {
            env.extend(result_environment(service));
        }
        env
    }

    /// `MEMORY_PRESSURE_WATCH` and `MEMORY_PRESSURE_WRITE` (systemd.resource-control(5), `MemoryPressureWatch=`), and the same of
    /// CPU and IO, which are said for units that ask for them alone.
    pub(crate) fn pressure_environment(&self, id: UnitId) -> Vec<String> {
        let Some(unit) = self.state.units.get(&id) else { return Vec::new() };
        let empty = muster_unit::CGroupSection::default();
        let config = unit.file.cgroup.as_deref().unwrap_or(&empty);
        let defaults = &self.state.facts.config;
        let watch = config.pressure_watch_said().unwrap_or(defaults.default_memory_pressure_watch);
        let accounts = config.memory_accounting().unwrap_or(defaults.default_memory_accounting);
        let kinds = [
            ("memory", watch, accounts, config.memory_pressure_threshold_sec()),
            ("cpu", config.cpu_pressure_watch(), false, config.cpu_pressure_threshold_sec()),
            ("io", config.io_pressure_watch(), false, config.io_pressure_threshold_sec()),
        ];
        let mut all = Vec::new();
        for (kind, watch, accounts, threshold) in kinds {
            let watches = match watch {
                PressureWatch::No => {
                    all.push(format!("{}_PRESSURE_WATCH=/dev/null", kind.to_uppercase()));
                    false
                }
                PressureWatch::Yes => true,
                PressureWatch::Auto => accounts,
                PressureWatch::Skip => false,
            };
            if let Some(cgroup) = unit.cgroup.as_ref().filter(|_| watches && self.state.facts.memory_pressure)
            {
                let usual = defaults.default_memory_pressure_threshold_usec;
                all.extend(pressure_variables(
                    kind,
                    &self.state.facts.cgroup_root,
                    cgroup,
                    threshold.map_or(usual, |span| span.0),
                ));
            }
        }
        all
    }

    /// `NotifyAccess=` as it is in effect.
    pub fn notify_access(&self, id: UnitId) -> NotifyAccess {
        let Some((_, section)) = self.service_config(id) else { return NotifyAccess::None };
        let needs = matches!(self.service_type(id), ServiceType::Notify | ServiceType::NotifyReload)
            || section.watchdog_sec().is_some_and(|span| span.0 > 0)
            || self.watchdog_usec(id).is_some()
            || section.file_descriptor_store_max() > 0;
        let configured =
            self.service(id).and_then(|service| service.notify_access_override).or(section.notify_access());
        match configured {
            Some(NotifyAccess::None) | None if needs => NotifyAccess::Main,
            Some(access) => access,
            None => NotifyAccess::None,
        }
    }

    /// The descriptors of all sockets that start this service, then those it stored.
    fn fds_for(&self, id: UnitId) -> Vec<(FdId, String)> {
        let mut fds = Vec::new();
        let Some(service) = self.service(id) else { return fds };
        if self.stdio_is_socket(id) {
            // Its socket is its standard stream, and not passed a second time.
        } else if let Some(connection) = service.connection {
            // With Accept=yes a process gets its connection and nothing else.
            let socket = service.accepted_from.and_then(|socket| self.socket_config(socket));
            let name = socket.and_then(|section| section.file_descriptor_name().clone());
            fds.push((connection, name.map_or_else(|| "connection".to_owned(), |name| name.0)));
        } else {
            for socket in self.state.graph.of(id, Dependency::TriggeredBy) {
                fds.extend(self.socket_fds(socket));
            }
        }
        fds.extend(service.extra_fds.iter().cloned());
        // The last that was stored comes first.
        fds.extend(service.fd_store.iter().rev().map(|stored| (stored.fd, stored.name.clone())));
        fds
    }

    /// `SELinuxContextFromNet=` of the one socket that the service is for.
    fn context_from_peer(&self, id: UnitId) -> bool {
        let accepted = self.service(id).and_then(|service| service.accepted_from);
        let mut sockets = self.state.graph.of(id, Dependency::TriggeredBy);
        let single = accepted.or_else(|| sockets.next().filter(|_| sockets.next().is_none()));
        let section = single.and_then(|socket| self.socket_config(socket));
        section.is_some_and(|section| section.selinux_context_from_net())
    }

    /// `PassFileDescriptorsToExec=`: a socket's own descriptors for its commands once they are open.
    fn fds_for_command(&self, id: UnitId, list: CommandList) -> Vec<(FdId, String)> {
        let passes = self.socket_config(id).is_some_and(|section| section.pass_file_descriptors_to_exec());
        let open =
            matches!(list, CommandList::ExecStartPost | CommandList::ExecStopPre | CommandList::ExecStopPost);
        if passes && open { self.socket_fds(id) } else { Vec::new() }
    }

    fn stdio_is_socket(&self, id: UnitId) -> bool {
        let exec = self.state.units.get(&id).and_then(|unit| unit.file.exec.as_ref());
        exec.is_some_and(|exec| {
            let out = |output: &muster_unit::StdOutput| *output == muster_unit::StdOutput::Socket;
            *exec.standard_input() == muster_unit::StdInput::Socket
                || out(exec.standard_output())
                || out(exec.standard_error())
        })
    }

    fn socket_fds(&self, socket: UnitId) -> Vec<(FdId, String)> {
        let Some(unit) = self.state.units.get(&socket) else { return Vec::new() };
        let (Some(socket), muster_unit::Body::Socket(section)) = (Socket::of(&unit.kind), &unit.file.body)
        else {
            return Vec::new();
        };
        let name =
            section.file_descriptor_name().clone().map_or_else(|| unit.name.to_string(), |name| name.0);
        socket.ports.iter().map(|port| (port.fd, name.clone())).collect()
    }

    fn stdio_socket(&self, id: UnitId) -> Option<FdId> {
        let service = self.service(id)?;
        service.connection.or_else(|| {
            let sockets = self.state.graph.of(id, Dependency::TriggeredBy);
            let mut fds = sockets.flat_map(|socket| self.socket_fds(socket)).map(|(fd, _)| fd);
            // `StandardInput=socket` is for services with exactly one descriptor.
            fds.next().filter(|_| fds.next().is_none())
        })
    }

    /// Gives a unit a fresh invocation: id, cgroup, published.
    pub(crate) fn prepare_run(&mut self, id: UnitId) {
        if let Some(unit) = self.state.units.edit(&id) {
            unit.usage = Usage::default();
            unit.oom_killed = false;
        }
        self.number_run(id);
        self.realize_cgroup(id);
        // The cgroup is there: some of what is published is written to it.
        self.publish_run(id);
    }

    /// A run without a cgroup has a number of its own, too.
    pub(crate) fn new_invocation(&mut self, id: UnitId) {
        self.number_run(id);
        self.publish_run(id);
    }

    fn number_run(&mut self, id: UnitId) {
        let invocation = self.new_invocation_id();
        if let Some(unit) = self.state.units.edit(&id) {
            unit.invocation_id = invocation;
        }
    }

    fn publish_run(&mut self, id: UnitId) {
        let Some(unit) = self.state.units.get(&id) else { return };
        let (name, log) = (unit.name.clone(), unit.file.exec.clone());
        let invocation_id = Some(unit.invocation_id.clone());
        self.effects.push_back(Effect::PublishInvocation { unit: name, invocation_id, log });
    }

    pub(crate) fn realize_cgroup(&mut self, id: UnitId) {
        let Some(path) = self.cgroup_path(id) else { return };
        let Some(unit) = self.state.units.edit(&id) else { return };
        unit.cgroup = Some(path.clone());
        let user = unit.file.exec.as_ref().and_then(|exec| exec.user().as_ref()).map(|user| user.0.clone());
        let config = self.cgroup_in_effect(id);
        let Some(unit) = self.state.units.get(&id) else { return };
        let owner = user.filter(|_| config.delegate().is_some());
        let effect = Effect::RealizeCgroup {
            path: path.clone(),
            unit: unit.name.clone(),
            config,
            disabled: self.controllers_disabled_above(id),
            invocation_id: unit.invocation_id.clone(),
            owner,
            oom: self.oom_policy(id),
            files: unit
                .file
                .exec
                .as_ref()
                .map(|exec| exec.restrict_file_systems().clone())
                .unwrap_or_default(),
        };
        self.effects.push_back(effect);
        self.state.cgroups.insert(path, id);
        self.fill_sets(id);
    }

    /// Where a unit's cgroup is, below our root: its slice's path and its own name.
    pub fn cgroup_path(&self, id: UnitId) -> Option<String> {
        let unit = self.state.units.get(&id)?;
        if unit.name.kind() == UnitKind::Slice {
            return Some(slice_path(unit.name.as_str()));
        }
        if !crate::kind::has_cgroup(unit.name.kind()) {
            return None;
        }
        let slice = self.state.graph.of(id, Dependency::InSlice).next();
        let parent = slice.map_or_else(String::new, |slice| slice_path(&self.unit_name(slice)));
        Some(format!("{parent}/{}", cgroup_escape(unit.name.as_str())))
    }

    /// 32 hex digits, from the seed in the state: the same run gives the same ids.
    fn new_invocation_id(&mut self) -> String {
        let (high, low) = (self.random(), self.random());
        format!("{high:016x}{low:016x}")
    }

    /// The next number that follows from the seed in the state.
    pub(crate) fn random(&mut self) -> u64 {
        self.state.seed = self.state.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.state.seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// What a run leaves: connection, shared /tmp, cgroup, invocation.
    pub(crate) fn run_is_over(&mut self, id: UnitId) {
        let waiting = self.service(id).is_some_and(|service| matches!(service.sub, ServiceSub::AutoRestart));
        let restarts = waiting || self.job_starts_again(id);
        let Some(unit) = self.state.units.edit(&id) else { return };
        let name = unit.name.clone();
        let exec = unit.file.exec.clone();
        let mut close = Vec::new();
        if let Some(service) = Service::of_mut(&mut unit.kind) {
            // Each restart serves the same connection.
            if !restarts {
                close.extend(service.connection.take());
                close.extend(service.take_given());
            }
            let failed = service.sub == ServiceSub::Failed;
            let keeps = matches!(&unit.file.body, muster_unit::Body::Service(section)
                if section.keeps_fd_store(restarts, failed));
            if !keeps {
                close.extend(service.fd_store.drain(..).map(|stored| stored.fd));
            }
        }
        self.release_cgroup(id);
        if !close.is_empty() {
            self.effects.push_back(Effect::CloseFds { fds: close });
        }
        if exec.as_ref().is_some_and(|exec| exec.has_credentials()) {
            self.effects.push_back(Effect::RemoveCredentials { unit: name.clone() });
        }
        // A run that follows does so itself, at its beginning.
        if let Some((exec, path)) = exec.as_ref().filter(|_| !restarts).and_then(|exec| terminal_of(exec)) {
            let (reset, free) = (exec.tty_reset(), exec.tty_vt_disallocate());
            self.effects.push_back(Effect::RevertTerminal { path, reset, free });
        }
        self.leave_share(id);
        self.leave_accounts(id);
        self.remove_runtime_directories(id, restarts);
        if !waiting {
            self.effects.push_back(Effect::PublishInvocation { unit: name, invocation_id: None, log: exec });
        }
    }

    /// A unit that holds no process has no cgroup.
    pub(crate) fn release_cgroup(&mut self, id: UnitId) {
        self.state.populated.remove(&id);
        let Some(unit) = self.state.units.edit(&id) else { return };
        if let Some(path) = unit.cgroup.take() {
            self.state.cgroups.remove(&path);
            // Nobody asks what one connection of thousands used.
            let alone = Service::of(&unit.kind).is_none_or(|service| service.peer.is_none());
            let unit = alone.then(|| (unit.name.clone(), unit.invocation_id.clone()));
            self.effects.push_back(Effect::RemoveCgroup { path, unit });
            self.touch(id);
        }
    }

    /// The numbers of a run stay until the next one, where the unit does.
    pub(crate) fn cgroup_used(&mut self, unit: UnitName, invocation_id: String, usage: Usage) {
        let id = self.state.names.get(&unit).copied();
        self.report_usage(unit, invocation_id, &usage);
        let ended = id.and_then(|id| self.state.units.edit(&id)).filter(|unit| unit.cgroup.is_none());
        // No signal tells of numbers: clients ask for them.
        if let Some(unit) = ended {
            unit.usage = usage;
        }
    }

    // ---- ends -----------------------------------------------------------------------------------------------------

    /// The process of a spawn exists.
    pub(crate) fn spawned(&mut self, spawn: SpawnId, pid: u32) {
        let Some(&id) = self.state.spawns.get(&spawn) else {
            // Its unit went on without it (it was being killed before it was born).
            return self.effects.push_back(Effect::KillProcess {
                pid,
                signal: muster_unit::Signal::KILL.0,
                value: None,
            });
        };
        self.state.processes.insert(pid, id);
        let stamp = self.stamp();
        let Some(unit) = self.state.units.edit(&id) else { return };
        if let Some(service) =
            Service::of_mut(&mut unit.kind).filter(|service| is_spawn(&service.main, spawn))
        {
            service.main_status = ExecStatus { start: stamp, pid, ..ExecStatus::default() };
        }
        let state = unit.kind.state_mut();
        let is_main = state.main().is_some_and(|main| main.spawn == Some(spawn));
        let slot = if is_main { state.main_mut() } else { state.control_mut() };
        let process = slot.and_then(|slot| slot.as_mut()).filter(|process| process.spawn == Some(spawn));
        let Some(process) = process else { return };
        process.pid = Some(pid);
        let status = process
            .place
            .and_then(|(list, index)| state.command_status_mut()?.get_mut(&list)?.get_mut(&index));
        if let Some(status) = status {
            status.pid = pid;
        }
        self.touch(id);
        if is_main && self.service(id).is_some() {
            self.main_spawned(id);
        }
    }

    /// No process could be made: as if it had ended with that status.
    pub(crate) fn spawn_failed(&mut self, spawn: SpawnId, status: i32, message: &str) {
        let Some(id) = self.state.spawns.remove(&spawn) else { return };
        self.report_exec_failure(id, status, message);
        self.process_ended(id, |process| process.spawn == Some(spawn), Exit::Exited(status));
    }

    /// A process is not to be found by its number any more.
    fn forget_number(&mut self, id: UnitId, spawn: SpawnId) {
        let Some(unit) = self.state.units.get(&id) else { return };
        let state = unit.kind.state();
        let is_it = |process: &&Process| process.spawn == Some(spawn);
        let pid =
            state.main().filter(is_it).or(state.control().filter(is_it)).and_then(|process| process.pid);
        pid.map(|pid| self.state.processes.remove(&pid));
    }

    /// Another process goes on in the place of one.
    pub(crate) fn spawn_moved(&mut self, spawn: SpawnId, pid: u32) {
        if let Some(&id) = self.state.spawns.get(&spawn) {
            self.forget_number(id, spawn);
            self.spawned(spawn, pid);
        }
    }

    /// What has to be read before there can be a process could not be: as if none had been made.
    pub(crate) fn spawn_refused(&mut self, spawn: SpawnId, message: &str) {
        let Some(&id) = self.state.spawns.get(&spawn) else { return };
        let text = format!("{}: {message}", self.unit_name(id));
        self.note_cause(id, message.to_owned());
        self.log(Level::Warning, Some(id), text);
        self.forget_number(id, spawn);
        if let Some(service) = self.service_mut(id).filter(|service| is_spawn(&service.main, spawn)) {
            service.main_status = ExecStatus::default();
        }
        self.process_ended(id, |process| process.spawn == Some(spawn), Exit::NotMade);
    }

    /// A child, or a watched process, ended.
    pub(crate) fn child_exited(&mut self, pid: u32, exit: Exit) {
        let Some(id) = self.state.processes.remove(&pid) else { return };
        self.process_ended(id, |process| process.pid == Some(pid), exit);
    }

    fn process_ended(&mut self, id: UnitId, is_it: impl Fn(&Process) -> bool, exit: Exit) {
        let stamp = self.stamp();
        let Some(unit) = self.state.units.edit(&id) else { return };
        let state = unit.kind.state_mut();
        let is_main = state.main().is_some_and(&is_it);
        let slot = if is_main { state.main_mut() } else { state.control_mut() };
        let process = slot.and_then(|slot| slot.take_if(|process| is_it(process)));
        let Some(process) = process else { return };
        if let Some(spawn) = process.spawn {
            self.state.spawns.remove(&spawn);
        }
        let status = process
            .place
            .and_then(|(list, index)| state.command_status_mut()?.get_mut(&list)?.get_mut(&index));
        if let Some(status) = status {
            match exit {
                Exit::NotMade => *status = ExecStatus::default(),
                exit => (status.exit, status.how) = (stamp, Some(exit)),
            }
        }
        self.touch(id);
        if is_main {
            self.service_main_exited(id, process, exit);
        } else {
            (self.verbs(id).control_exited)(self, id, process, exit);
        }
    }
}

/// Below a cgroup that the main process has to itself, where what runs beside it goes (`DelegateSubgroup=`).
const CONTROL_SUBGROUP: &str = ".control";

/// The window of the pressure threshold, in microseconds.
const PRESSURE_WINDOW_USEC: u64 = 2_000_000;

fn is_spawn(process: &Option<Process>, spawn: SpawnId) -> bool {
    process.as_ref().is_some_and(|process| process.spawn == Some(spawn))
}

/// The terminal of a unit that wants something done to it when it ends.
fn terminal_of(exec: &ExecSection) -> Option<(&ExecSection, String)> {
    let asked = exec.tty_reset() || exec.tty_vt_disallocate();
    let path = exec.terminal().filter(|_| asked)?;
    Some((exec, path.to_owned()))
}

/// `SERVICE_RESULT`, `EXIT_CODE` and `EXIT_STATUS` of systemd.exec(5).
fn result_environment(service: &crate::state::Service) -> Vec<String> {
    let mut env = vec![format!("SERVICE_RESULT={}", service.result.as_str())];
    if let Some(how) = service.main_status.how {
        let (code, status) = exit_words(how);
        env.push(format!("EXIT_CODE={code}"));
        env.push(format!("EXIT_STATUS={status}"));
    }
    env
}

/// How a process ended, in the two words of `$EXIT_CODE` and `$EXIT_STATUS`.
pub(crate) fn exit_words(exit: Exit) -> (&'static str, String) {
    let name = |signal: i32| muster_unit::Signal(signal).name().trim_start_matches("SIG").to_owned();
    match exit {
        Exit::Exited(code) => ("exited", code.to_string()),
        Exit::Killed(signal) => ("killed", name(signal)),
        Exit::Dumped(signal) => ("dumped", name(signal)),
        Exit::NotMade => ("", String::new()),
    }
}

/// `a-b.slice` lives in `/a.slice/a-b.slice`; the root slice is the root.
pub(crate) fn slice_path(name: &str) -> String {
    let stem = name.strip_suffix(".slice").unwrap_or(name);
    if stem == "-" || stem.is_empty() {
        return String::new();
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        path.push('/');
        path.push_str(&cgroup_escape(&format!("{prefix}.slice")));
    }
    path
}

/// Names that the kernel, or a reader, could mistake get one leading underscore.
fn cgroup_escape(name: &str) -> String {
    let kernel = ["tasks", "notify_on_release", "release_agent"].contains(&name);
    let controller = name.split_once('.').is_some_and(|(head, _)| {
        [
            "cgroup",
            "cpu",
            "cpuacct",
            "cpuset",
            "io",
            "blkio",
            "memory",
            "devices",
            "pids",
            "hugetlb",
            "rdma",
            "misc",
            "bpf-firewall",
            "bpf-devices",
        ]
        .contains(&head)
    });
    if kernel || controller || name.starts_with(['_', '.']) { format!("_{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_nest_by_their_dashes() {
        assert_eq!(slice_path("-.slice"), "");
        assert_eq!(slice_path("system-getty.slice"), "/system.slice/system-getty.slice");
        assert_eq!(cgroup_escape("cpu.service"), "_cpu.service");
        assert_eq!(cgroup_escape("nginx.service"), "nginx.service");
    }
}
