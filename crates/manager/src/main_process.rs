//! Who the main process of a service is: `PIDFile=`, `GuessMainPID=`, `MAINPID=`, and the heir of one that ended
//! (systemd.service(5), sd_notify(3)).
//!
//! What must stay true: the named process decides, not who names it. One in the unit's own cgroup may always be the main
//! process. One outside counts only by root's word, and never when another unit knows it as its own: its end would be
//! told to the wrong unit, and a stop would kill it. PID 1 never counts.

use crate::effect::{Effect, Level};
use crate::event::{Exit, Named, PidFileFound};
use crate::manager::Manager;
use crate::state::{ExecStatus, Process, ServiceSub, UnitResult};
use muster_graph::UnitId;

impl Manager {
    /// The parent of a forking service is gone: find the daemon.
    pub(crate) fn forking_parent_exited(&mut self, id: UnitId, result: UnitResult) {
        if result != UnitResult::Success {
            return self.control_failed_in(id, self.sub(id), result);
        }
        if self.sub(id) != ServiceSub::Start {
            return self.process_gone_while_stopping(id);
        }
        let unit = self.name_of(id);
        let cgroup = self.state.units.get(&id).and_then(|unit| unit.cgroup.clone()).unwrap_or_default();
        let Some((_, section)) = self.service_config(id) else { return };
        let effect = match (section.pid_file(), section.guess_main_pid()) {
            (Some(path), _) => Effect::ReadPidFile { unit, path: path.to_string() },
            (None, true) => Effect::GuessMainProcess { unit, cgroup },
            (None, false) => return self.enter_start_post(id),
        };
        if let Some(service) = self.service_mut(id) {
            service.reading_pid_file = true;
        }
        self.effects.push_back(effect);
    }

    /// The answer to the search for a main process: of a service that forks, or for the heir of one that ended.
    pub(crate) fn service_main_found(&mut self, id: UnitId, found: Result<PidFileFound, String>) {
        let has_file = self.service_config(id).is_some_and(|(_, section)| section.pid_file().is_some());
        let Some(service) = self.service_mut(id) else { return };
        let ended = service.ended_main.take();
        if ended.is_none() && !service.reading_pid_file {
            return;
        }
        let found = found.and_then(|found| {
            let named = Named { pid: found.pid, alive: true, cgroup: found.cgroup };
            self.judge_main(id, &named, found.owner_uid == 0, "PID file").map(|()| named.pid)
        });
        if let Some((process, exit)) = ended.map(|ended| *ended) {
            return match found {
                Ok(pid) => self.adopt_main(id, pid),
                Err(_) => self.service_main_gone(id, process, exit),
            };
        }
        if self.sub(id) != ServiceSub::Start {
            return self.stop_awaiting_pid_file(id);
        }
        match found {
            Ok(pid) => {
                self.stop_awaiting_pid_file(id);
                self.adopt_main(id, pid);
                self.enter_start_post(id);
            }
            Err(why) if has_file => self.await_pid_file(id, &why),
            Err(_) => {
                self.stop_awaiting_pid_file(id);
                self.enter_start_post(id);
            }
        }
    }

    /// The file is not there yet, or names what cannot be the main process: it may still be written, until the start times
    /// out.
    fn await_pid_file(&mut self, id: UnitId, why: &str) {
        let text = format!("{}: Can't use the PID file: {why}", self.unit_name(id));
        self.log(Level::Notice, Some(id), text);
        let unit = self.name_of(id);
        let path =
            self.service_config(id).and_then(|(_, section)| section.pid_file().as_deref().map(str::to_owned));
        self.effects.extend(path.map(|path| Effect::WatchPidFile { unit, path }));
    }

    /// Nobody waits for the PID file any more.
    pub(crate) fn stop_awaiting_pid_file(&mut self, id: UnitId) {
        let awaited =
            self.service_mut(id).is_some_and(|service| std::mem::take(&mut service.reading_pid_file));
        if awaited {
            let unit = self.name_of(id);
            self.effects.push_back(Effect::UnwatchPidFile { unit });
        }
    }

    /// A main process ended while its service is up: an heir that the PID file names takes its place. False where there is
    /// nothing to look for.
    pub(crate) fn heir_is_looked_for(&mut self, id: UnitId, process: &Process, exit: Exit) -> bool {
        let up = matches!(
            self.sub(id),
            ServiceSub::Running
                | ServiceSub::Reload
                | ServiceSub::ReloadSignal
                | ServiceSub::ReloadNotify
                | ServiceSub::ReloadPost
        );
        let path =
            self.service_config(id).and_then(|(_, section)| section.pid_file().as_deref().map(str::to_owned));
        let Some(path) = path.filter(|_| up) else { return false };
        let unit = self.name_of(id);
        if let Some(service) = self.service_mut(id) {
            service.ended_main = Some(Box::new((process.clone(), exit)));
        }
        self.effects.push_back(Effect::ReadPidFile { unit, path });
        true
    }

    /// After a re-execution: the answers are asked for again.
    pub(crate) fn main_process_resumed(&mut self, id: UnitId) {
        let unit = self.name_of(id);
        let path =
            self.service_config(id).and_then(|(_, section)| section.pid_file().as_deref().map(str::to_owned));
        let (Some(path), Some(service)) = (path, self.service(id)) else { return };
        if service.ended_main.is_some() {
            self.effects.push_back(Effect::ReadPidFile { unit, path });
        } else if service.reading_pid_file {
            self.effects.push_back(Effect::WatchPidFile { unit, path });
        }
    }

    /// A service says who its main process is.
    pub(crate) fn notified_main_pid(&mut self, id: UnitId, named: &Named, uid: u32) {
        let sub = self.sub(id);
        let may = sub.has_run_of_main() || matches!(sub, ServiceSub::Stop | ServiceSub::StopSigterm);
        if !may {
            return;
        }
        match self.judge_main(id, named, uid == 0, "notification message") {
            Ok(()) => self.adopt_main(id, named.pid),
            Err(why) => {
                let text = format!("{}: {why}", self.unit_name(id));
                self.log(Level::Warning, Some(id), text);
            }
        }
    }

    /// Whether a process may be the main one of a unit; `by_root` when root vouches for it. The error is a sentence.
    fn judge_main(&mut self, id: UnitId, named: &Named, by_root: bool, source: &str) -> Result<(), String> {
        let pid = named.pid;
        let control = self.service(id).and_then(|service| service.control.as_ref()?.pid);
        let known_to = self.state.processes.get(&pid).copied().filter(|owner| *owner != id);
        let inside = named.cgroup.is_some() && self.unit_of_process(0, named.cgroup.as_deref()) == Some(id);
        let refusal = if pid <= 1 {
            format!("New main PID {pid} from {source} is the manager, refusing.")
        } else if !named.alive {
            format!("New main PID {pid} from {source} does not exist or is a zombie, refusing.")
        } else if control == Some(pid) {
            format!("New main PID {pid} from {source} is the control process, refusing.")
        } else if let Some(owner) = known_to {
            format!("New main PID {pid} from {source} belongs to {}, refusing.", self.unit_name(owner))
        } else if !inside && !by_root {
            format!(
                "New main PID {pid} from {source} does not belong to the service, and root does not vouch for it, refusing."
            )
        } else {
            if !inside {
                let text = format!(
                    "{}: New main PID {pid} from {source} does not belong to the service; it is taken by root's word.",
                    self.unit_name(id)
                );
                self.log(Level::Warning, Some(id), text);
            }
            return Ok(());
        };
        Err(refusal)
    }

    /// The run is over: a main process that it could not end is nobody's main process any more.
    pub(crate) fn forget_main(&mut self, id: UnitId) {
        let Some(main) = self.service_mut(id).and_then(|service| service.main.take()) else { return };
        main.spawn.map(|spawn| self.state.spawns.remove(&spawn));
        main.pid.map(|pid| self.state.processes.remove(&pid));
    }

    /// A process is the main one from now on. Comes after `judge_main` only.
    pub(crate) fn adopt_main(&mut self, id: UnitId, pid: u32) {
        let stamp = self.stamp();
        let Some(service) = self.service_mut(id) else { return };
        if service.main.as_ref().is_some_and(|main| main.pid == Some(pid)) {
            return;
        }
        let heir = Process { spawn: None, pid: Some(pid), command: None, place: None, alien: true };
        let old = service.main.replace(heir);
        service.main_status = ExecStatus { start: stamp, pid, ..ExecStatus::default() };
        if let Some(old) = old {
            // Its end, when it comes, means nothing any more.
            old.spawn.map(|spawn| self.state.spawns.remove(&spawn));
            old.pid.map(|pid| self.state.processes.remove(&pid));
        }
        self.state.processes.insert(pid, id);
        self.effects.push_back(Effect::WatchProcess { pid });
        self.touch(id);
    }
}
