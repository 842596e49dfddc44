//! The manager's surface: one way in, one way out, and a view to read.
//!
//! Every event is worked off to the end before `handle` returns: the run queue is empty but for jobs that wait, changes
//! are announced, what nobody needs is unloaded. No module reads a clock: `now` is set here, once an event.

use crate::anew::Anew;
use crate::deadlines::{Deadlines, Owner};
use crate::effect::{Effect, Level, Reply, RequestId};
use crate::event::{Clock, Event, Now, ShutdownVerb};
use crate::state::{BootStamps, Facts, Stamp, State, Unit};
use muster_graph::{JobId, JobMode, JobType, UnitId};
use muster_unit::{Source, UnitFile, UnitName};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// The manager: all state machines and what they know.
#[derive(Debug, Default)]
pub struct Manager {
    pub(crate) state: State,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) now: Now,
    /// How far the boot came that is left for another; between [`Manager::take_facts`] and [`Manager::begin_anew`].
    pub(crate) left_boot: BootStamps,
    /// The boot transaction was queued; its end is the end of startup.
    pub(crate) booting: bool,
    /// No job runs: what is found up before the boot is queued asks for its own jobs, in order with all else of the boot.
    pub(crate) held: bool,
    /// Targets of `SuccessAction=` and its kin, with the reason; empty between events.
    pub(crate) wanted_targets: Vec<(&'static str, String)>,
    /// Ordering cycles that nobody was told of yet; empty between events.
    pub(crate) cycles: Vec<crate::cycles::Found>,
    /// Devices whose start jobs may have nobody left who waits for them; empty between events, unless jobs are
    /// held.
    pub(crate) unawaited: BTreeSet<UnitId>,
    /// A loaded instance of each template whose instances come with connections: what the next is made from. Kept until
    /// the next reload; losing it costs a reading.
    pub(crate) templates: BTreeMap<UnitName, Rc<UnitFile>>,
    /// When what is due; follows from the state.
    pub(crate) deadlines: Deadlines,
    /// The same on the other clocks.
    pub(crate) deadlines_on: BTreeMap<Clock, Deadlines>,
    /// Units that changed, for whoever keeps a copy; nothing while nobody does.
    pub(crate) changes: Option<BTreeSet<UnitId>>,
}

impl Manager {
    /// A manager that knows nothing but the facts of this boot. `seed` feeds invocation ids.
    pub fn new(facts: Facts, seed: u64, now: Now) -> Manager {
        let userspace = Stamp { realtime_usec: now.realtime_usec, monotonic_usec: now.monotonic_usec };
        let state = State {
            facts,
            seed,
            boot: BootStamps { userspace, ..BootStamps::default() },
            show_status: true,
            log_level: Level::Info as u8,
            jobs_left: crate::jobs::JOBS_A_TURN,
            ..State::default()
        };
        Manager { state, now, ..Manager::default() }
    }

    /// A manager that goes on where another stopped.
    pub fn from_state(state: State) -> Manager {
        let mut manager = Manager { state, booting: true, ..Manager::default() };
        manager.deadlines = manager.all_deadlines();
        manager.deadlines_on = manager.all_deadlines_on();
        manager
    }

    /// Goes on after a re-execution: asks again for all that was being watched, and reads unit files anew.
    pub fn resume(&mut self, now: Now) {
        self.now = now;
        self.resume_units();
        // So that it is known what is in the sets, if files that are read now say it no more.
        self.fill_all_sets();
        self.effects.push_back(Effect::ReloadSource);
    }

    /// Asks again for all that was being watched.
    pub(crate) fn resume_units(&mut self) {
        // Who asked for a reload is no longer connected.
        self.state.reloading.clear();
        self.forget_writes();
        let ids: Vec<UnitId> = self.state.units.keys().copied().collect();
        for id in ids {
            (self.verbs(id).resumed)(self, id);
            self.removal_resumed(id);
            self.ask_conditions_again(id);
        }
        let leftovers: Vec<String> = self.state.leftovers.keys().cloned().collect();
        self.effects.extend(leftovers.into_iter().map(|path| Effect::WatchCgroup { path }));
    }

    /// Emptiness is told to whoever still waits for it.
    pub(crate) fn watch_cgroup_again(&mut self, id: UnitId) {
        let path = self.state.units.get(&id).and_then(|unit| unit.cgroup.clone());
        if let Some(path) = path.filter(|_| self.state.populated.contains(&id)) {
            self.effects.push_back(Effect::WatchCgroup { path });
        }
    }

    /// The whole state, for reading.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether status lines are shown.
    pub fn set_show_status(&mut self, show: bool) {
        self.state.show_status = show;
    }

    /// Whether there is autofs; looked at by each program anew.
    pub fn set_autofs(&mut self, there: bool) {
        self.state.facts.has_autofs = there;
    }

    /// When generators ran, before anything else.
    pub fn note_generators(&mut self, begun: Now, done: Now) {
        let stamp = |now: Now| Stamp { realtime_usec: now.realtime_usec, monotonic_usec: now.monotonic_usec };
        let boot = &mut self.state.boot;
        (boot.generators_start, boot.generators_finish) = (stamp(begun), stamp(done));
    }

    /// Loads the units that are always there. Comes before all events.
    pub fn begin(&mut self, now: Now, source: &dyn Source) {
        self.now = now;
        self.state.boot.units_load_start = self.stamp();
        for name in ["-.slice", "system.slice", "init.scope"] {
            if let Ok(name) = name.parse::<UnitName>() {
                let id = self.load(&name, source);
                self.start_perpetual(id);
            }
        }
    }

    /// No job runs until the boot is queued.
    pub fn hold_jobs(&mut self) {
        self.held = true;
    }

    /// Queues the boot: the default target (or what the command line names), and what it wants besides.
    pub fn start_default(&mut self, now: Now, source: &dyn Source) {
        self.now = now;
        let target = self.state.facts.boot_target.clone();
        let candidates = [target.as_str(), "default.target", "multi-user.target", "rescue.target"];
        let started = candidates.into_iter().any(|name| self.start_boot_unit(name, JobMode::Isolate, source));
        if !started {
            self.log(
                Level::Emergency,
                None,
                "No unit to boot could be started; the machine stays up without one.",
            );
        }
        for name in self.state.facts.wanted.clone() {
            self.start_boot_unit(&name, JobMode::Replace, source);
        }
        self.state.boot.units_load_finish = self.stamp();
        (self.booting, self.held) = (true, false);
        self.settle();
        self.tell_cycles(source);
    }

    fn start_perpetual(&mut self, id: UnitId) {
        self.realize_cgroup(id);
        let old = self.active_state(id);
        if let Some(unit) = self.state.units.edit(&id) {
            unit.kind.state_mut().set_perpetual();
        }
        self.state_changed(id, old);
    }

    fn start_boot_unit(&mut self, name: &str, mode: JobMode, source: &dyn Source) -> bool {
        let Ok(name) = name.parse::<UnitName>() else {
            self.log(
                Level::Error,
                None,
                format!("{name} is not a unit name; expected something like multi-user.target."),
            );
            return false;
        };
        let id = self.load(&name, source);
        match self
            .enqueue(id, JobType::Start, mode, "boot")
            .or_else(|_| self.enqueue(id, JobType::Start, JobMode::Replace, "boot"))
        {
            Ok(_) => true,
            Err(refused) => {
                self.log(Level::Error, Some(id), format!("Failed to start {name}: {refused}"));
                false
            }
        }
    }

    /// Takes in one event and works it off.
    pub fn handle(&mut self, now: Now, source: &dyn Source, event: Event) {
        self.now = now;
        // Not at the end of the event before: what that one told of a unit must still be there to be looked at.
        self.collect_units();
        match event {
            // Looked at once a turn of the loop, which ends with this.
            Event::Tick => {
                self.state.jobs_left = crate::jobs::JOBS_A_TURN;
                self.expire();
            }
            Event::Spawned { spawn, pid } => self.spawned(spawn, pid),
            Event::SpawnFailed { spawn, status, message } => self.spawn_failed(spawn, status, &message),
            Event::ExecSucceeded { spawn } => {
                if let Some(id) = self.state.spawns.get(&spawn).copied() {
                    self.service_exec_succeeded(id);
                }
            }
            Event::ExecFailed { spawn, status, message } => {
                if let Some(id) = self.state.spawns.get(&spawn).copied() {
                    self.report_exec_failure(id, status, &message);
                    self.service_exec_failed(id);
                }
            }
            Event::Moved { spawn, pid } => self.spawn_moved(spawn, pid),
            Event::SpawnRefused { spawn, message } => self.spawn_refused(spawn, &message),
            Event::RunsAs { spawn, uid, gid } => {
                self.runs_as(spawn, uid, gid);
            }
            Event::AccountFound { spawn, name, number } => self.account_found(spawn, &name, number),
            Event::ChildExited { pid, exit } => self.child_exited(pid, exit),
            Event::WatchedProcessExited { pid } => self.child_exited(pid, crate::event::Exit::Exited(0)),
            Event::CgroupEmptied { path } => self.cgroup_emptied(&path),
            Event::OomKilled { path } => self.oom_killed(&path),
            Event::CgroupUsed { unit, invocation_id, usage } => self.cgroup_used(unit, invocation_id, usage),
            Event::Notified { pid, uid, cgroup, fields, fds, named } => {
                self.notified(pid, uid, cgroup.as_deref(), &fields, fds, named)
            }
            Event::SocketsOpened { unit, result } => match self.state.names.get(&unit).copied() {
                Some(id) => self.sockets_opened(id, result),
                // Unloaded meanwhile.
                None => {
                    let fds = result.map(|ports| ports.iter().map(|port| port.fd).collect());
                    self.effects.extend(fds.ok().map(|fds| Effect::CloseFds { fds }));
                }
            },
            Event::SocketReadable { fd } => self.socket_readable(fd),
            Event::Accepted { listener, fd, peer } => self.accepted(source, listener, fd, peer),
            Event::AcceptShort { listener, message } => self.accept_short(listener, &message),
            Event::AcceptFailed { listener, message } => self.accept_failed(listener, &message),
            Event::StoredFdHungUp { fd } => self.stored_fd_hung_up(fd),
            Event::ConditionsChecked { query, results } => self.conditions_checked(query, &results),
            Event::PidFileRead { unit, result } => {
                if let Some(id) = self.state.names.get(&unit).copied() {
                    self.service_main_found(id, result);
                }
            }
            Event::Removed { query, result } => self.removed(query, result),
            Event::FilesWritten { query, result } => self.files_written(source, query, result),
            Event::ConfigRead { files } => self.configure(&files),
            Event::Recovered { found } => self.recover(source, found),
            Event::SourceReloaded => self.source_reloaded(source),
            Event::MountTableRead { mounts, gone, whole } => self.mount_table(source, mounts, gone, whole),
            Event::SwapsRead { swaps } => self.swap_table(source, swaps),
            Event::AutomountOpened { unit, result } => self.automount_opened(&unit, result),
            Event::AutomountClosed { unit } => self.automount_closed(&unit),
            Event::AutomountLooked { unit } => self.automount_looked(&unit),
            Event::AutomountAsked { unit, ask } => self.automount_asked(&unit, ask),
            Event::AutomountHungUp { unit } => self.automount_hung_up(&unit),
            Event::ClockSet => self.clock_set(),
            Event::ZoneChanged => self.zone_changed(),
            Event::ZoneRead { name, bytes } => self.zone_read(name, bytes),
            Event::StampRead { unit, at_usec } => self.stamp_read(&unit, at_usec),
            Event::PathTriggered { unit, path } => self.path_triggered(&unit, &path),
            Event::PathWatchFailed { unit, message } => self.path_watch_failed(&unit, &message),
            Event::InterfacesRead { interfaces } => self.interfaces(source, &interfaces),
            Event::DevicesChanged { changes, whole } => self.devices(source, changes, whole),
            Event::Requested { id, origin, request } => self.request(source, id, &origin, request),
            Event::Signalled { signal, origin, outside } => self.signalled(source, signal, &origin, outside),
            Event::BusNameChanged { name, owner } => self.bus_name_changed(&name, !owner.is_empty()),
        }
        self.settle();
        if !self.wanted_targets.is_empty() {
            self.start_wanted_targets(source);
            self.settle();
        }
        self.tell_cycles(source);
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to come back with a `Tick` at the latest, on each clock that something waits on, in microseconds.
    pub fn next_deadlines(&self) -> impl Iterator<Item = (Clock, u64)> + '_ {
        let monotonic = self.deadlines.first().map(|at| (Clock::Monotonic, at));
        let others = self.deadlines_on.iter().filter_map(|(clock, all)| Some((*clock, all.first()?)));
        monotonic.into_iter().chain(others)
    }

    /// Whether the next event may begin with unloading units: what is to be said of them is said before.
    pub fn may_unload_units(&self) -> bool {
        self.state.gc_queue.iter().any(|id| !self.stays_by_itself(*id))
    }

    /// Whether a `Tick` at this moment finds something to do.
    pub fn needs_tick(&self, now: Now) -> bool {
        self.may_unload_units()
            || self.state.jobs.has_ready()
            || self.next_deadlines().any(|(clock, at)| at <= now.on(clock))
    }

    pub(crate) fn unit_deadline(&self, unit: &Unit) -> Option<u64> {
        let own = (crate::kind::verbs(unit.name.kind()).deadline)(self, unit);
        let removal = unit.removal.as_ref().and_then(|removal| removal.deadline_usec);
        own.into_iter().chain(removal).chain(self.wish_deadline(unit.id)).min()
    }

    /// Takes a unit's deadline into the index.
    pub(crate) fn follow_deadline(&mut self, id: UnitId) {
        let unit = self.state.units.get(&id);
        let at = unit.and_then(|unit| self.unit_deadline(unit));
        let on = unit.map(|unit| (unit, crate::kind::verbs(unit.name.kind()).deadline_on));
        let others = Clock::ALL.map(|clock| (clock, on.and_then(|(unit, on)| on(self, unit, clock))));
        self.deadlines.set(Owner::Unit(id), at);
        for (clock, at) in others.into_iter().filter(|(clock, _)| *clock != Clock::Monotonic) {
            if at.is_some() || self.deadlines_on.contains_key(&clock) {
                self.deadlines_on.entry(clock).or_default().set(Owner::Unit(id), at);
            }
        }
        self.deadlines_on.retain(|_, all| all.first().is_some());
    }

    /// The index on the other clocks as it must be.
    fn all_deadlines_on(&self) -> BTreeMap<Clock, Deadlines> {
        let mut all: BTreeMap<Clock, Deadlines> = BTreeMap::new();
        for clock in Clock::ALL.into_iter().filter(|clock| *clock != Clock::Monotonic) {
            for unit in self.state.units.values() {
                let at = (crate::kind::verbs(unit.name.kind()).deadline_on)(self, unit, clock);
                if at.is_some() {
                    all.entry(clock).or_default().set(Owner::Unit(unit.id), at);
                }
            }
        }
        all
    }

    /// The same for a job.
    pub(crate) fn follow_job_deadline(&mut self, id: JobId) {
        let at = self.state.jobs.get(&id).map(|job| job.deadline_usec);
        self.deadlines.set(Owner::Job(id), at);
    }

    /// The index as it must be.
    fn all_deadlines(&self) -> Deadlines {
        let mut all = Deadlines::default();
        for unit in self.state.units.values() {
            all.set(Owner::Unit(unit.id), self.unit_deadline(unit));
        }
        for job in self.state.jobs.values() {
            all.set(Owner::Job(job.id), Some(job.deadline_usec));
        }
        all.set(Owner::Console, self.state.slow.at_usec);
        all
    }

    /// Whether the indexes of deadlines are what the state says.
    pub(crate) fn deadlines_follow(&self) -> bool {
        self.all_deadlines() == self.deadlines && self.all_deadlines_on() == self.deadlines_on
    }

    /// From now on, the units that change are kept for [`Manager::take_changes`].
    pub fn follow_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// The units that changed, came or went since this was asked last, or since [`Manager::follow_changes`]: whoever takes
    /// these over from the state, and only these, has all units as they are.
    pub fn take_changes(&mut self) -> BTreeSet<UnitId> {
        self.note_changes();
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Brings what follows from units up to those that changed, and gives these.
    pub(crate) fn note_changes(&mut self) -> BTreeSet<UnitId> {
        let changed = self.state.units.take_changes();
        for id in &changed {
            self.follow_deadline(*id);
        }
        if let Some(changes) = &mut self.changes {
            changes.extend(&changed);
        }
        changed
    }

    /// Fires what is due.
    fn expire(&mut self) {
        let now = self.now.monotonic_usec;
        let mut due = self.deadlines.due(now);
        for (clock, deadlines) in &self.deadlines_on {
            due.extend(deadlines.due(self.now.on(*clock)));
        }
        for owner in due {
            match owner {
                Owner::Job(id) => self.expire_job(id),
                Owner::Console => self.show_slowness(),
                Owner::Unit(id) => {
                    if self.wish_deadline(id).is_some_and(|at| at <= now) {
                        self.wish_due(id);
                    }
                    let removal =
                        self.state.units.get(&id).and_then(|unit| unit.removal.as_ref()?.deadline_usec);
                    if removal.is_some_and(|at| at <= now) {
                        self.removal_due(id);
                    }
                    let verbs = self.verbs(id);
                    let late = |clock: Clock, at: Option<u64>| at.is_some_and(|at| at <= self.now.on(clock));
                    let own = self.state.units.get(&id).is_some_and(|unit| {
                        late(Clock::Monotonic, (verbs.deadline)(self, unit))
                            || Clock::ALL
                                .into_iter()
                                .any(|clock| late(clock, (verbs.deadline_on)(self, unit, clock)))
                    });
                    if own {
                        (verbs.due)(self, id);
                    }
                }
            }
        }
    }

    /// Works everything off that an event may have left.
    fn settle(&mut self) {
        if self.held {
            return self.flush_changes();
        }
        self.run_jobs();
        self.start_idle_services();
        self.trigger_deferred();
        self.run_jobs();
        self.collect_device_jobs();
        self.grant_wishes();
        self.flush_changes();
        self.check_startup_finished();
        self.follow_slowness();
    }

    fn cgroup_emptied(&mut self, path: &str) {
        self.state.leftovers.remove(path);
        let Some(id) = self.state.cgroups.get(path).copied() else { return };
        self.state.populated.remove(&id);
        (self.verbs(id).cgroup_emptied)(self, id);
    }

    fn bus_name_changed(&mut self, name: &str, owned: bool) {
        if !owned {
            self.controller_left(name);
        }
        if let Some(id) = self.state.bus_names.get(name).copied() {
            self.service_bus_name(id, owned);
        }
    }

    /// Unit files were read anew: take them over, and tell who waited.
    fn source_reloaded(&mut self, source: &dyn Source) {
        self.reload_all(source);
        self.flush_changes();
        self.effects.push_back(Effect::Signal(crate::effect::BusSignal::Reloading { active: false }));
        for id in std::mem::take(&mut self.state.reloading) {
            self.reply(id, Reply::Done);
        }
    }

    pub(crate) fn reply(&mut self, id: RequestId, reply: Reply) {
        self.effects.push_back(Effect::Reply { id, reply });
    }

    /// Begins the shutdown.
    pub(crate) fn shut_down(&mut self, verb: ShutdownVerb) {
        if self.state.shutdown.is_none() {
            self.state.shutdown = Some(verb);
            if verb == ShutdownVerb::SoftReboot {
                return self.leave_for(Anew::SoftReboot, String::new(), String::new());
            }
            self.effects.push_back(Effect::Shutdown { verb, exit_code: self.state.exit_code });
        }
    }

    /// A loaded unit by any of its names.
    pub fn unit(&self, name: &UnitName) -> Option<&Unit> {
        self.state.units.get(self.state.names.get(name)?).map(Box::as_ref)
    }

    /// A loaded unit by number.
    pub fn unit_by_id(&self, id: UnitId) -> Option<&Unit> {
        self.state.units.get(&id).map(Box::as_ref)
    }

    /// The unit that a process belongs to, by its cgroup below our root (longest prefix), or by number.
    pub fn unit_of_process(&self, pid: u32, cgroup: Option<&str>) -> Option<UnitId> {
        let by_cgroup = cgroup.and_then(|path| {
            std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(parent, _)| parent))
                // What is in the root itself is nobody's.
                .take_while(|path| !path.is_empty())
                .find_map(|path| self.state.cgroups.get(path))
        });
        by_cgroup.or_else(|| self.state.processes.get(&pid)).copied()
    }
}
