//! One arm an effect: the manager's imperatives as system calls. What goes wrong becomes an event or a log line.

use crate::opening::Opening;
use crate::processes::Helper;
use crate::source::Table;
use crate::turn::{Outcome, Runtime, SPAWNS_A_TRIM, Source};
use muster_cgroup::{Controllers, Defaults, Wanted};
use muster_manager::effect::{BusSignal, Effect, FdId, Level, LogRecord, StatusMark};
use muster_manager::event::Event;
use muster_manager::state::{Service, Unit, Usage};
use muster_unit::UnitName;
use std::os::fd::{AsRawFd, BorrowedFd};

impl Runtime {
    pub(crate) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn(spawn) => self.spawn(&spawn),
            Effect::KillProcess { pid, signal, value } => self.kill_process(pid, signal, value),
            Effect::KillCgroup { path, signal, except, send_cont, send_hup, last } => {
                if last && self.remove_if_empty(&path) {
                    self.follow_up.push_back(Event::CgroupEmptied { path });
                } else if self.cgroups.kill(&path, signal, &except, send_cont, send_hup) {
                    self.watch_cgroup(path);
                } else {
                    self.follow_up.push_back(Event::CgroupEmptied { path });
                }
            }
            Effect::WatchCgroup { path } => self.watch_cgroup(path),
            Effect::RealizeCgroup { path, unit, config, disabled, invocation_id, owner, oom, files } => {
                let wanted = Wanted {
                    config: &config,
                    owner: owner.as_deref().and_then(numeric_owner),
                    disabled: Controllers::named(disabled.names()),
                    defaults: self.cgroup_defaults(&unit),
                    oom,
                    files: Some(&files),
                };
                if let Err(error) = self.cgroups.realize(&path, &wanted) {
                    self.note(Level::Warning, &format!("{unit}: its cgroup {path}: {error}"));
                }
                self.mark_run(&path, &invocation_id);
                self.mark_survivor(&path, &unit);
                self.tell_oomd(&path, Some(&config));
            }
            Effect::RemoveCgroup { path, unit } => {
                if let Some((unit, invocation_id)) = unit {
                    let noted = self.usage.take().filter(|(noted, _)| *noted == path);
                    let usage = noted.map_or_else(|| self.usage_of(&path, &unit), |(_, usage)| usage);
                    self.follow_up.push_back(Event::CgroupUsed { unit, invocation_id, usage });
                }
                self.cgroups.remove(&path);
                self.tell_oomd(&path, None);
            }
            Effect::FillSets { path, unit, sets, runs_as } => {
                if let Err(error) = self.cgroups.fill_sets(&path, &sets, runs_as) {
                    self.note(Level::Debug, &format!("{unit}: {error}"));
                }
            }
            Effect::FreezeCgroup { path, freeze } => {
                self.complain("freezing", &path, |runtime| runtime.cgroups.freeze(&path, freeze))
            }
            Effect::AttachProcesses { path, pids } => {
                for pid in pids {
                    self.complain("moving a process", &path, |runtime| runtime.cgroups.attach(&path, pid));
                }
            }
            Effect::WatchPaths { unit, watch } => self.watch_paths(unit, &watch),
            Effect::CheckPaths { unit } => self.check_paths(&unit),
            Effect::UnwatchPaths { unit } => self.unwatch_paths(&unit),
            // Asked from within an event: the answer comes after it.
            Effect::ReadMountTable => {
                let events = self.everything_in(Table::Mounts);
                self.follow_up.extend(events);
            }
            Effect::ReadSwapTable => {
                let events = self.everything_in(Table::Swaps);
                self.follow_up.extend(events);
            }
            Effect::OpenAutomount { unit, place, mode, options, idle_usec, again } => {
                let (mode, seconds) = (mode.to_string(), idle_usec.div_ceil(1_000_000).to_string());
                let again = if again { "again" } else { "new" };
                self.open_automount(unit, &[&place, &mode, &options, &seconds, again]);
            }
            Effect::CloseAutomount { unit, place } => self.close_automount(unit, &place),
            Effect::WatchAutomount { unit, pipe } => self.watch_automount(unit, pipe),
            Effect::UnwatchAutomount { pipe } => self.unwatch_automount(pipe),
            Effect::AnswerAutomount { place, device, tokens, errno } => {
                self.answer_automount(&place, device, &tokens, errno)
            }
            Effect::ExpireAutomount { unit, place, device } => self.expire_automount(unit, &place, device),
            Effect::ReadZone { name } => {
                let bytes = crate::zone::read(&name);
                self.follow_up.push_back(Event::ZoneRead { name, bytes });
            }
            Effect::Stamp { unit, path, set_usec } => self.stamp(unit, path, set_usec),
            Effect::WatchProcess { pid } => self.watch_process(pid),
            Effect::CheckConditions { query, conditions } => self.ask(query, conditions),
            Effect::ReadPidFile { unit, path } => self.ask_pid_file(unit, &path),
            Effect::WatchPidFile { unit, path } => self.watch_pid_file(unit, path),
            Effect::UnwatchPidFile { unit } => self.pid_files.forget(&unit),
            Effect::GuessMainProcess { unit, cgroup } => {
                let result = self.guess_main(&cgroup);
                self.follow_up.push_back(Event::PidFileRead { unit, result });
            }
            Effect::RebootArgument { argument } => self.leave_reboot_argument(argument),
            Effect::RemoveFile { path } => {
                // A directory is named with a slash at its end, and goes only when it is empty.
                let removed =
                    if path.ends_with('/') { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
                drop(removed);
            }
            Effect::OpenSockets { unit, config, keep, function, network } => {
                self.open_sockets(Opening { unit, config, keep, function, network })
            }
            Effect::StopOpening { unit } => self.stop_opening(&unit),
            Effect::WatchSocket { fd, accept } => self.watch_socket(fd, accept),
            Effect::UnwatchSocket { fd } => self.unwatch_socket(fd),
            Effect::FlushSocket { fd } => {
                if let Some(fd) = self.fds.get(fd) {
                    muster_socket::flush(fd);
                }
            }
            Effect::PrepareConnection { fd, config } => {
                let warnings = self
                    .fds
                    .get(fd)
                    .map(|fd| muster_socket::apply_connection_options(&config, fd))
                    .unwrap_or_default();
                for warning in warnings {
                    self.note(Level::Warning, &warning);
                }
            }
            Effect::WatchStoredFd { fd } => self.watch_stored(fd),
            Effect::CloseFds { fds } => self.close_fds(&fds),
            Effect::Remove { query, things } => self.remove(query, &things),
            Effect::ForgetAccount { name } => muster_exec::steps::dynamic::forget(&name),
            Effect::RemoveIpc { uid, gid } => self.remove_ipc(uid, gid),
            Effect::RevertTerminal { path, reset, free } => self.revert_terminal(&path, reset, free),
            Effect::EndShare { id } => self.shares.end(id),
            Effect::StopRemoval { query } => self.stop_removal(query),
            Effect::RemoveCredentials { unit } => crate::published::remove_credentials(&unit),
            Effect::PublishInvocation { unit, invocation_id, log } => {
                self.publish(&unit, invocation_id.as_deref(), log.as_deref())
            }
            Effect::Log(record) => self.write_log(&record),
            Effect::ShowStatus { mark, message } => self.log.show(mark, &message),
            Effect::ShowSlow { message, cgroup } => self.show_slow(&message, cgroup.as_deref()),
            Effect::Reply { id, reply } => self.reply(id, &reply),
            Effect::Signal(signal) => {
                if matches!(signal, BusSignal::StartupFinished { .. }) {
                    // What the boot took is given back when there is nothing to be done, without a wait for idle time.
                    self.spawns = SPAWNS_A_TRIM;
                }
                self.announce(&signal);
            }
            Effect::ReloadSource => {
                if !self.run_helper(&["--generators"], Helper::Generators) {
                    self.index = muster_unit::Index::scan(self.index.path().to_vec());
                    self.follow_up.push_back(Event::ConfigRead { files: crate::config::read() });
                    self.follow_up.push_back(Event::SourceReloaded);
                }
            }
            Effect::WriteFiles { query, files } => self.write_files(query, files),
            // When this turn is over.
            Effect::Reexecute => {
                self.outcome.get_or_insert(Outcome::Reexecute);
            }
            Effect::BeginAnew { why, root, init } => {
                self.outcome = Some(Outcome::BeginAnew { why, root, init })
            }
            Effect::Shutdown { verb, exit_code } => {
                self.outcome = Some(Outcome::Shutdown { verb, exit_code })
            }
        }
    }

    /// Says on the console what is waited for: some processes, and where in the kernel they wait.
    fn show_slow(&mut self, message: &str, cgroup: Option<&str>) {
        const SHOWN_MAX: usize = 4;
        let processes = cgroup.map(|path| self.cgroups.processes(path)).unwrap_or_default();
        let read = |pid: u32, file: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            text.trim_end().to_owned()
        };
        let mut said: Vec<String> = Vec::new();
        for (_, pid) in processes.iter().take(SHOWN_MAX) {
            let (name, place) = (read(*pid, "comm"), read(*pid, "wchan"));
            let place = if matches!(place.as_str(), "" | "0") { "user space".to_owned() } else { place };
            said.push(format!("{pid} {name} in {place}"));
        }
        let more = processes.len().saturating_sub(SHOWN_MAX);
        if more > 0 {
            said.push(format!("{more} more"));
        }
        let said = if said.is_empty() { String::new() } else { format!(": {}", said.join(", ")) };
        self.log.show(StatusMark::Busy, &format!("{message}{said}"));
    }

    fn complain(&mut self, what: &str, path: &str, act: impl FnOnce(&mut Runtime) -> Result<(), String>) {
        if let Err(error) = act(self) {
            self.note(Level::Warning, &format!("{path}: {what} failed: {error}"));
        }
    }

    fn usage_of(&self, path: &str, unit: &UnitName) -> Usage {
        self.live().usage(path, self.counts_traffic(unit))
    }

    /// Removes a cgroup that holds nothing, and notes what was used in it, for when the end of the run is worked off. Nobody
    /// asks what one connection of thousands used.
    fn remove_if_empty(&mut self, path: &str) -> bool {
        let state = self.manager.state();
        let unit = state.cgroups.get(path).and_then(|id| state.units.get(id));
        let unit = unit.filter(|unit| Service::of(&unit.kind).is_none_or(|service| service.peer.is_none()));
        let noted = unit.map(|unit| (path.to_owned(), self.usage_of(path, &unit.name)));
        let removed = self.cgroups.remove_if_empty(path);
        if removed {
            self.usage = noted;
        }
        removed
    }

    /// Whether the packets of a unit may be counted (`IPAccounting=`); one that is unloaded says nothing.
    fn counts_traffic(&self, unit: &UnitName) -> bool {
        let default = self.manager.state().facts.config.default_ip_accounting;
        let says = |cgroup: &muster_unit::CGroupSection| cgroup.ip_accounting().unwrap_or(default);
        self.manager.unit(unit).is_none_or(|unit| unit.file.cgroup.as_deref().map_or(default, says))
    }

    /// What holds for units that say nothing of it. A slice holds many units, each with a limit of tasks of its own.
    fn cgroup_defaults(&self, unit: &UnitName) -> Defaults {
        let facts = &self.manager.state().facts;
        let limited = unit.kind() != muster_unit::UnitKind::Slice;
        Defaults {
            tasks_max: limited.then_some(facts.default_tasks_max),
            memory: facts.config.default_memory_accounting,
            tasks: facts.config.default_tasks_accounting,
            io: facts.config.default_io_accounting,
            ip: facts.config.default_ip_accounting,
        }
    }

    /// Writes on a cgroup that the last of all kills passes it by (`SurviveFinalKillSignal=`).
    fn mark_survivor(&mut self, path: &str, unit: &UnitName) {
        let survives = |unit: &Unit| unit.file.unit.survive_final_kill_signal();
        if self.manager.unit(unit).is_some_and(survives) {
            // Where the file system holds no attributes there is nobody who reads them.
            let _ = self.cgroups.set_attribute(path, c"user.survive_final_kill_signal", b"1");
        }
    }

    /// Watched first and looked at then, so that no end is missed.
    fn watch_cgroup(&mut self, path: String) {
        self.cgroups.watch(&path);
        if self.cgroups.population(&path) == muster_cgroup::Population::Empty {
            self.follow_up.push_back(Event::CgroupEmptied { path });
        }
    }

    fn watch_stored(&mut self, id: FdId) {
        if let Some(raw) = self.fds.get(id).filter(|fd| may_hang_up(*fd)).map(|fd| fd.as_raw_fd()) {
            if let Ok(token) = self.register_raw(raw, Source::Stored(id)) {
                self.stored.insert(id, token);
            }
        }
    }

    pub(crate) fn close_fds(&mut self, fds: &[FdId]) {
        for id in fds {
            self.unwatch_socket(*id);
            let token = self.stored.remove(id);
            let Some(fd) = self.fds.remove(*id) else { continue };
            if let Some(token) = token {
                self.deregister(token, std::os::fd::AsFd::as_fd(&fd));
            }
            self.close_foreign(fd);
        }
    }

    pub(crate) fn write_log(&mut self, record: &LogRecord) {
        let invocation = record
            .unit
            .as_ref()
            .and_then(|unit| self.manager.unit(unit))
            .map(|unit| unit.invocation_id.clone());
        match self.manager.state().log_target.as_str() {
            "null" => {}
            "console" | "console-prefixed" => self.log.write_console(record),
            "kmsg" => self.log.write_kmsg(record),
            _ => self.log.write(record, invocation.as_deref()),
        }
    }
}

/// Whether it is worth waiting for a descriptor to hang up. Plain files never do; and to be asked whether they would is for the
/// server of a file system (FUSE) a question that it may leave open.
fn may_hang_up(fd: BorrowedFd<'_>) -> bool {
    const KINDS: u32 = nix::libc::S_IFMT;
    let kind = muster_sys::known_mode(fd).map_or(nix::libc::S_IFREG, |mode| mode & KINDS);
    let plain =
        matches!(kind, nix::libc::S_IFREG | nix::libc::S_IFDIR | nix::libc::S_IFBLK | nix::libc::S_IFLNK);
    let nameless = || {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        link.is_ok_and(|link| link.to_string_lossy().starts_with("anon_inode:"))
    };
    !plain || nameless()
}

/// Owner of a delegated cgroup: numbers, or a name of /etc/passwd.
fn numeric_owner(user: &str) -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        (name == user || uid == user).then(|| Some((uid.parse().ok()?, gid.parse().ok()?)))?
    })
}
