//! Requests of clients and signals: each is answered exactly once, now or when its work is done.

use crate::effect::{BusSignal, Effect, Level, Reply, RequestId};
use crate::event::{KillWhom, Origin, Request, ShutdownVerb};
use crate::kill::known_processes;
use crate::manager::Manager;
use crate::refused::{Number, Refused, Word};
use crate::state::ActiveState;
use muster_graph::{JobId, JobMode, JobResult, JobType, UnitId};
use muster_unit::{LoadState, Source, UnitKind, UnitName};

impl Manager {
    /// Does what is asked.
    pub(crate) fn request(&mut self, source: &dyn Source, id: RequestId, origin: &Origin, request: Request) {
        let answer = match request {
            Request::EnqueueJob { unit, kind, mode, reload_if_possible } => {
                self.request_job(source, origin, &unit, kind, mode, reload_if_possible)
            }
            Request::LoadUnit { unit } => {
                // Looked at once; it goes again when nothing else needs it.
                let id = self.load(&unit, source);
                self.state.gc_queue.insert(id);
                Ok(Reply::Unit(unit))
            }
            Request::LoadUnits { units } => {
                // In one event, since the next one begins with unloading what nothing needs.
                for unit in units {
                    let id = self.load(&unit, source);
                    self.state.gc_queue.insert(id);
                }
                Ok(Reply::Done)
            }
            Request::StartTransient { units, mode } => match self.write_transient(id, origin, units, mode) {
                Ok(()) => return,
                Err(refused) => Err(refused),
            },
            Request::EnqueueMarked => Ok(self.enqueue_marked()),
            Request::SetProperties { unit, changes, marks, .. } if changes.is_empty() => {
                let id = self.load(&unit, source);
                self.state.gc_queue.insert(id);
                self.check_load_state(id).map(|()| {
                    self.mark(id, marks);
                    Reply::Done
                })
            }
            Request::SetProperties { unit, runtime, changes, marks } => {
                if let Some(id) = self.state.names.get(&unit).copied() {
                    self.mark(id, marks);
                }
                match self.write_properties(source, id, &unit, runtime, changes) {
                    Ok(()) => return,
                    Err(refused) => Err(refused),
                }
            }
            Request::Kill { unit, whom, signal, value } => self.request_kill(&unit, whom, signal, value),
            Request::ResetFailed { unit } => self.request_reset_failed(unit.as_ref()),
            Request::CancelJob { job } => self.cancel_job(JobId(job)),
            Request::ClearJobs => {
                let all: Vec<JobId> = self.state.jobs.values().map(|job| job.id).collect();
                all.into_iter().for_each(|job| self.finish_job(job, JobResult::Canceled, true));
                Ok(Reply::Done)
            }
            Request::Reference { unit, add } => self.reference(source, &unit, add),
            Request::Reload => return self.request_reload(id),
            Request::Reexecute => {
                self.effects.push_back(Effect::Reexecute);
                return;
            }
            Request::Shutdown { verb } => {
                self.shut_down(verb);
                Ok(Reply::Done)
            }
            Request::BeginAnew { why, root, init } => {
                self.leave_for(why, root, init);
                Ok(Reply::Done)
            }
            Request::SetExitCode { code } => {
                self.state.exit_code = code;
                Ok(Reply::Done)
            }
            Request::UpdateEnvironment { unset, set } => self.update_environment(&unset, &set),
            Request::SetShowStatus { mode } => {
                self.state.show_status = !matches!(mode.as_str(), "no" | "false" | "0" | "off" | "error");
                Ok(Reply::Done)
            }
            Request::SetLogLevel { level } => self.set_log_level(&level),
            Request::SetLogTarget { target } => {
                self.state.log_target = target;
                Ok(Reply::Done)
            }
            Request::SetServiceWatchdogs { on } => {
                self.state.no_service_watchdogs = !on;
                let ids: Vec<UnitId> = self.state.units.keys().copied().collect();
                ids.into_iter().for_each(|id| self.follow_deadline(id));
                Ok(Reply::Done)
            }
            Request::SetHardwareWatchdog { which, usec } => {
                self.state.hardware.set.insert(which, usec);
                Ok(Reply::Done)
            }
            Request::SetHardwareGovernor { governor } => {
                self.state.hardware.governor = Some(governor);
                Ok(Reply::Done)
            }
            Request::Freeze { unit, freeze } => self.freeze(&unit, freeze),
            Request::AttachProcesses { unit, subgroup, pids } => self.attach(&unit, &subgroup, pids),
            Request::KillSubgroup { unit, subgroup, signal } => self.kill_subgroup(&unit, &subgroup, signal),
            Request::RemoveSubgroup { unit, subgroup } => self.subgroup(&unit, &subgroup).map(|path| {
                self.effects.push_back(Effect::RemoveCgroup { path, unit: None });
                Reply::Done
            }),
            Request::AbandonScope { unit } => self.abandon_scope(&unit),
            Request::Clean { unit, mask } => self.request_clean(source, &unit, &mask).map(|()| Reply::Done),
            Request::UnitFilesChanged => {
                self.effects.push_back(Effect::Signal(BusSignal::UnitFilesChanged));
                Ok(Reply::Done)
            }
        };
        self.reply(id, answer.unwrap_or_else(Reply::Refused));
    }

    pub(crate) fn known(&self, name: &UnitName) -> Result<UnitId, Refused> {
        self.state.names.get(name).copied().ok_or_else(|| Refused::NotLoaded { unit: name.clone() })
    }

    pub(crate) fn request_job(
        &mut self,
        source: &dyn Source,
        origin: &Origin,
        name: &UnitName,
        kind: JobType,
        mode: JobMode,
        reload_if_possible: bool,
    ) -> Result<Reply, Refused> {
        let id = self.load(name, source);
        self.check_mode(id, kind, mode).inspect_err(|_| {
            self.state.gc_queue.insert(id);
        })?;
        let missing = self.state.units.get(&id).is_none_or(|unit| {
            unit.file.load_state == LoadState::NotFound
                && self.state.jobs.of(id).is_none()
                && unit.active_state() == ActiveState::Inactive
        });
        if missing {
            // Also where nothing would have to be done: what is asked for must be something.
            self.state.gc_queue.insert(id);
            let unit = name.clone();
            return Err(match kind {
                JobType::Stop => Refused::NotLoaded { unit },
                _ => Refused::NotFound { unit },
            });
        }
        self.check_broken(id, name, kind)?;
        self.check_manual(id, name, kind, mode)?;
        let kind = match kind {
            JobType::Restart if reload_if_possible && self.can_reload(id) => JobType::ReloadOrStart,
            JobType::TryRestart if reload_if_possible && self.can_reload(id) => JobType::TryReload,
            kind => kind,
        };
        let cause =
            format!("{} asked by {} (uid {}, pid {})", kind.as_str(), client(origin), origin.uid, origin.pid);
        let job = self.enqueue(id, kind, mode, &cause).inspect_err(|_| {
            self.state.gc_queue.insert(id);
        })?;
        let kind = self.state.jobs.get(&job).map_or(kind, |job| job.kind);
        Ok(Reply::Job { id: job, unit: self.name_of(id), kind })
    }

    /// What did not load and is not up has nothing to stop or to try again.
    fn check_broken(&mut self, id: UnitId, name: &UnitName, kind: JobType) -> Result<(), Refused> {
        let broken = self.state.units.get(&id).is_some_and(|unit| {
            matches!(unit.file.load_state, LoadState::BadSetting | LoadState::Error)
                && self.state.jobs.of(id).is_none()
                && matches!(unit.active_state(), ActiveState::Inactive | ActiveState::Failed)
        });
        if !broken {
            return Ok(());
        }
        self.state.gc_queue.insert(id);
        match kind {
            JobType::Stop => Err(Refused::NotLoaded { unit: name.clone() }),
            JobType::TryRestart | JobType::TryReload => self.check_load_state(id),
            JobType::Start
            | JobType::VerifyActive
            | JobType::Reload
            | JobType::Restart
            | JobType::Nop
            | JobType::ReloadOrStart => Ok(()),
        }
    }

    fn check_manual(&self, id: UnitId, name: &UnitName, kind: JobType, mode: JobMode) -> Result<(), Refused> {
        let Some(unit) = self.state.units.get(&id) else { return Ok(()) };
        if unit.perpetual && !matches!(kind, JobType::Start) {
            return Err(Refused::NotApplicable { unit: name.clone(), kind: Word(kind) });
        }
        let frozen = self.freezer_shown(unit) != "running";
        if frozen && matches!(kind, JobType::Start | JobType::Stop | JobType::Restart | JobType::TryRestart) {
            return Err(Refused::Busy { unit: name.clone() });
        }
        let starts = matches!(kind, JobType::Start | JobType::Restart | JobType::TryRestart);
        let stops = matches!(kind, JobType::Stop | JobType::Restart | JobType::TryRestart);
        let refused = (starts && unit.file.unit.refuse_manual_start())
            || (stops && unit.file.unit.refuse_manual_stop())
            || (unit.perpetual && unit.name.kind() != UnitKind::Slice && mode != JobMode::Isolate);
        if refused && mode != JobMode::IgnoreRequirements {
            return Err(Refused::OnlyByDependency { unit: name.clone() });
        }
        Ok(())
    }

    fn request_kill(
        &mut self,
        name: &UnitName,
        whom: KillWhom,
        signal: i32,
        value: Option<i32>,
    ) -> Result<Reply, Refused> {
        let id = self.known(name)?;
        if !(1..=64).contains(&signal) {
            return Err(Refused::SignalRange);
        }
        if value.is_some() && signal < 34 {
            return Err(Refused::SignalValue { signal: Word(muster_unit::Signal(signal)) });
        }
        let Some(unit) = self.state.units.get(&id) else { return Ok(Reply::Done) };
        let (main, control) = known_processes(&unit.kind);
        let refuse = |what: &str| Refused::NoProcess { what: what.to_owned() };
        let targets: Vec<u32> = match whom {
            KillWhom::Main | KillWhom::MainFail => vec![main.ok_or_else(|| refuse("main"))?],
            KillWhom::Control | KillWhom::ControlFail => vec![control.ok_or_else(|| refuse("control"))?],
            KillWhom::All | KillWhom::AllFail => main.into_iter().chain(control).collect(),
        };
        let path = unit.cgroup.clone();
        for pid in &targets {
            self.effects.push_back(Effect::KillProcess { pid: *pid, signal, value });
        }
        if let (KillWhom::All | KillWhom::AllFail, Some(path)) = (whom, path) {
            self.effects.push_back(Effect::KillCgroup {
                path,
                signal,
                except: targets,
                send_cont: false,
                send_hup: false,
                last: false,
            });
        }
        Ok(Reply::Done)
    }

    fn request_reset_failed(&mut self, unit: Option<&UnitName>) -> Result<Reply, Refused> {
        let ids: Vec<UnitId> = match unit {
            Some(name) => vec![self.known(name)?],
            None => self.state.units.keys().copied().collect(),
        };
        for id in ids {
            self.reset_failed(id);
        }
        Ok(Reply::Done)
    }

    fn cancel_job(&mut self, job: JobId) -> Result<Reply, Refused> {
        if self.state.jobs.get(&job).is_none() {
            return Err(Refused::NoJob { job: Number(job) });
        }
        self.finish_job(job, JobResult::Canceled, true);
        Ok(Reply::Done)
    }

    fn reference(&mut self, source: &dyn Source, name: &UnitName, add: bool) -> Result<Reply, Refused> {
        let id = if add { self.load(name, source) } else { self.known(name)? };
        if add {
            self.state.gc_queue.insert(id);
            self.check_load_state(id)?;
        }
        if let Some(unit) = self.state.units.edit(&id) {
            unit.references =
                if add { unit.references.saturating_add(1) } else { unit.references.saturating_sub(1) };
        }
        self.state.gc_queue.insert(id);
        Ok(Reply::Done)
    }

    fn request_reload(&mut self, id: RequestId) {
        self.begin_reload();
        self.state.reloading.push(id);
    }

    fn begin_reload(&mut self) {
        if self.state.reloading.is_empty() {
            self.effects.push_back(Effect::Signal(BusSignal::Reloading { active: true }));
        }
        self.effects.push_back(Effect::ReloadSource);
    }

    fn update_environment(&mut self, unset: &[String], set: &[String]) -> Result<Reply, Refused> {
        let split = |text: &str| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let is_name = |key: &str| {
            !key.is_empty()
                && !key.starts_with(|c: char| c.is_ascii_digit())
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let pairs: Vec<_> =
            set.iter().filter_map(|text| split(text)).filter(|(key, _)| is_name(key)).collect();
        if pairs.len() != set.len() || set.len() > 65_536 {
            return Err(Refused::BadEnvironment);
        }
        for text in unset {
            let key = text.split_once('=').map_or(text.as_str(), |(key, _)| key);
            self.state.client_environment.remove(key);
            self.state
                .facts
                .base_environment
                .retain(|pair| pair.split_once('=').is_none_or(|(known, _)| known != key));
        }
        for (key, value) in pairs {
            self.state
                .facts
                .base_environment
                .retain(|pair| pair.split_once('=').is_none_or(|(known, _)| known != key));
            self.state.client_environment.insert(key, value);
        }
        self.effects.push_back(Effect::Signal(BusSignal::ManagerChanged));
        Ok(Reply::Done)
    }

    fn set_log_level(&mut self, level: &str) -> Result<Reply, Refused> {
        let levels = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
        let found = levels.iter().position(|word| *word == level).and_then(|at| u8::try_from(at).ok());
        let number = level.parse::<u8>().ok().filter(|number| *number < 8);
        match found.or(number) {
            Some(number) => {
                self.state.log_level = number;
                Ok(Reply::Done)
            }
            None => Err(Refused::BadLogLevel { level: level.to_owned() }),
        }
    }

    fn freeze(&mut self, name: &UnitName, freeze: bool) -> Result<Reply, Refused> {
        let id = self.known(name)?;
        // PID 1 is in the root and in init.scope: nobody would be left to thaw it.
        if self.state.units.get(&id).is_some_and(|unit| unit.perpetual) {
            return Err(Refused::NoFreezing);
        }
        if !freeze
            && self.state.units.get(&id).is_some_and(|unit| self.freezer_shown(unit) == "frozen-by-parent")
        {
            return Err(Refused::FrozenByParent);
        }
        let Some(unit) = self.state.units.edit(&id) else { return Ok(Reply::Done) };
        let Some(path) = unit.cgroup.clone() else {
            return Err(Refused::NotActive);
        };
        unit.freezer = if freeze { crate::state::Freezer::Frozen } else { crate::state::Freezer::Running };
        self.effects.push_back(Effect::FreezeCgroup { path, freeze });
        self.touch(id);
        Ok(Reply::Done)
    }

    /// `FreezerState`: a unit that was not frozen itself may be below a slice that is.
    pub fn freezer_shown(&self, unit: &crate::state::Unit) -> &'static str {
        use crate::state::Freezer;
        if unit.freezer != Freezer::Running {
            return unit.freezer.as_str();
        }
        let frozen =
            |id: UnitId| self.state.units.get(&id).is_some_and(|unit| unit.freezer == Freezer::Frozen);
        if self.slice_ids_above(unit.id).any(frozen) { "frozen-by-parent" } else { "running" }
    }

    fn attach(&mut self, name: &UnitName, subgroup: &str, pids: Vec<u32>) -> Result<Reply, Refused> {
        let id = self.known(name)?;
        let path = self.state.units.get(&id).and_then(|unit| unit.cgroup.clone());
        let path = match path.filter(|_| subgroup.is_empty()) {
            Some(path) => path,
            None => self.subgroup(name, subgroup)?,
        };
        self.effects.push_back(Effect::AttachProcesses { path, pids });
        Ok(Reply::Done)
    }

    /// The path of a cgroup below a unit's own.
    fn subgroup(&self, name: &UnitName, subgroup: &str) -> Result<String, Refused> {
        let id = self.known(name)?;
        let path = self.state.units.get(&id).and_then(|unit| unit.cgroup.as_deref());
        let below = subgroup.trim_matches('/');
        let safe = !below.is_empty() && below.split('/').all(|part| !matches!(part, "" | "." | ".."));
        path.filter(|_| safe).map(|path| format!("{path}/{below}")).ok_or(Refused::BadSubgroup)
    }

    fn kill_subgroup(&mut self, name: &UnitName, subgroup: &str, signal: i32) -> Result<Reply, Refused> {
        let (path, except) = (self.subgroup(name, subgroup)?, Vec::new());
        if !(1..=64).contains(&signal) {
            return Err(Refused::SignalRange);
        }
        let (send_cont, send_hup, last) = (false, false, false);
        self.effects.push_back(Effect::KillCgroup { path, signal, except, send_cont, send_hup, last });
        Ok(Reply::Done)
    }

    // ---- signals and actions ----------------------------------------------------------------------------------------

    /// Signals to PID 1 (systemd(1), "SIGNALS"). SIGTERM from outside is how a container is asked to end.
    pub(crate) fn signalled(&mut self, source: &dyn Source, signal: i32, origin: &Origin, outside: bool) {
        const HUP: i32 = 1;
        const INT: i32 = 2;
        const TERM: i32 = 15;
        const WINCH: i32 = 28;
        const PWR: i32 = 30;
        const RTMIN: i32 = 34;
        self.log(
            Level::Info,
            None,
            format!(
                "Received signal {signal} from {} (pid {}, uid {}).",
                if outside { "outside of the container" } else { client(origin) },
                origin.pid,
                origin.uid
            ),
        );
        let target = |number: i32| {
            [
                "default.target",
                "rescue.target",
                "emergency.target",
                "halt.target",
                "poweroff.target",
                "reboot.target",
                "kexec.target",
            ]
            .get(usize::try_from(number.saturating_sub(RTMIN)).unwrap_or(usize::MAX))
            .copied()
        };
        match signal {
            TERM if outside => self.signal_target(source, "exit.target", JobMode::ReplaceIrreversibly),
            TERM => self.effects.push_back(Effect::Reexecute),
            HUP => self.begin_reload(),
            INT => self.ctrl_alt_del(source),
            WINCH => self.signal_target(source, "kbrequest.target", JobMode::Replace),
            PWR => self.signal_target(source, "sigpwr.target", JobMode::Replace),
            number if number == RTMIN.saturating_add(13) => self.shut_down(ShutdownVerb::Halt),
            number if number == RTMIN.saturating_add(14) => self.shut_down(ShutdownVerb::Poweroff),
            number if number == RTMIN.saturating_add(15) => self.shut_down(ShutdownVerb::Reboot),
            number if number == RTMIN.saturating_add(16) => self.shut_down(ShutdownVerb::Kexec),
            number if number == RTMIN.saturating_add(20) => self.state.show_status = true,
            number if number == RTMIN.saturating_add(21) => self.state.show_status = false,
            number if number == RTMIN.saturating_add(22) => self.state.log_level = Level::Debug as u8,
            number if number == RTMIN.saturating_add(23) => self.state.log_level = Level::Info as u8,
            number if number == RTMIN.saturating_add(25) => self.effects.push_back(Effect::Reexecute),
            number => {
                if let Some(name) = target(number) {
                    let mode = if number <= RTMIN.saturating_add(2) {
                        JobMode::Isolate
                    } else {
                        JobMode::ReplaceIrreversibly
                    };
                    self.signal_target(source, name, mode);
                }
            }
        }
    }

    /// Ctrl-alt-del starts its target; more than seven times within two seconds it is meant at once
    /// (systemd-system.conf(5), `CtrlAltDelBurstAction=`).
    fn ctrl_alt_del(&mut self, source: &dyn Source) {
        const BURST: u32 = 7;
        const INTERVAL_USEC: u64 = 2_000_000;
        let now = self.now.monotonic_usec;
        let window = &mut self.state.ctrl_alt_del;
        if window.count == 0 || now.saturating_sub(window.begin_usec) > INTERVAL_USEC {
            *window = crate::state::RateWindow { begin_usec: now, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        if window.count <= BURST {
            return self.signal_target(source, "ctrl-alt-del.target", JobMode::ReplaceIrreversibly);
        }
        let action = self.state.facts.config.ctrl_alt_del_burst_action;
        self.emergency_action(
            action,
            None,
            None,
            "ctrl-alt-del was pressed more than seven times within two seconds",
        );
    }

    fn signal_target(&mut self, source: &dyn Source, name: &str, mode: JobMode) {
        if let Ok(name) = name.parse::<UnitName>() {
            let id = self.load(&name, source);
            self.request_quietly(id, JobType::Start, mode, "a signal");
        }
    }

    /// `SuccessAction=` and its kin (systemd.unit(5)), with the exit status and the argument of reboot(2) that go with it.
    pub(crate) fn emergency_action(
        &mut self,
        action: muster_unit::EmergencyAction,
        code: Option<u8>,
        argument: Option<String>,
        why: &str,
    ) {
        use muster_unit::EmergencyAction::*;
        if let (Reboot | RebootForce | RebootImmediate, Some(argument)) = (action, argument) {
            self.effects.push_back(Effect::RebootArgument { argument });
        }
        let graceful = match action {
            None => return,
            Reboot => "reboot.target",
            Poweroff => "poweroff.target",
            Halt => "halt.target",
            Kexec => "kexec.target",
            SoftReboot => "soft-reboot.target",
            Exit => "exit.target",
            RebootForce | RebootImmediate => return self.shut_down(ShutdownVerb::Reboot),
            PoweroffForce | PoweroffImmediate => return self.shut_down(ShutdownVerb::Poweroff),
            HaltForce | HaltImmediate => return self.shut_down(ShutdownVerb::Halt),
            KexecForce => return self.shut_down(ShutdownVerb::Kexec),
            SoftRebootForce => return self.shut_down(ShutdownVerb::SoftReboot),
            ExitForce => {
                self.state.exit_code = code.unwrap_or(self.state.exit_code);
                return self.shut_down(ShutdownVerb::Exit);
            }
        };
        if let (Exit, Some(code)) = (action, code) {
            self.state.exit_code = code;
        }
        self.wanted_targets.push((graceful, why.to_owned()));
    }

    /// Starts the targets that actions of this event asked for; they may have to be loaded first.
    pub(crate) fn start_wanted_targets(&mut self, source: &dyn Source) {
        for (target, why) in std::mem::take(&mut self.wanted_targets) {
            if let Ok(name) = target.parse::<UnitName>() {
                let id = self.load(&name, source);
                self.request_quietly(id, JobType::Start, JobMode::ReplaceIrreversibly, &why);
            }
        }
    }
}

fn client(origin: &Origin) -> &str {
    if origin.comm.is_empty() { "an unknown client" } else { &origin.comm }
}
