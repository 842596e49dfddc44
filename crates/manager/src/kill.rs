//! Ending a unit's processes: systemd.kill(5) as one table of waves.
//!
//! | KillMode= | polite wave | final wave |
//! |---|---|---|
//! | control-group | KillSignal= to the cgroup | FinalKillSignal= to the cgroup |
//! | mixed | KillSignal= to main (and control) | FinalKillSignal= to the cgroup |
//! | process | KillSignal= to main (and control) | FinalKillSignal= to main (and control) |
//! | none | nothing | nothing |

use crate::effect::Effect;
use crate::manager::Manager;
use crate::state::{CommandList, Kind, ServiceSub, SocketSub};
use muster_graph::UnitId;
use muster_unit::{KillMode, Signal};

/// Which kind of signal is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wave {
    Polite,
    Watchdog,
    Final,
}

impl Wave {
    pub(crate) fn of(sub: ServiceSub) -> Wave {
        match sub {
            ServiceSub::StopWatchdog | ServiceSub::FinalWatchdog => Wave::Watchdog,
            ServiceSub::StopSigkill | ServiceSub::FinalSigkill => Wave::Final,
            _ => Wave::Polite,
        }
    }

    pub(crate) fn of_socket(sub: SocketSub) -> Wave {
        match sub {
            SocketSub::StopPreSigkill | SocketSub::FinalSigkill => Wave::Final,
            _ => Wave::Polite,
        }
    }
}

impl Manager {
    /// Sends a wave. True when there is something whose end will be told.
    pub(crate) fn kill_wave(&mut self, id: UnitId, wave: Wave) -> bool {
        let mode = self.kill_mode(id);
        let Some(unit) = self.state.units.get(&id) else { return false };
        let (main, control) = known_processes(&unit.kind);
        let known: Vec<u32> = main.into_iter().chain(control).collect();
        let (signal, hup) = self.wave_signal(id, wave);
        let cgroup = unit.cgroup.clone().filter(|_| self.state.populated.contains(&id));
        if mode == KillMode::None {
            return false;
        }
        let whole = mode == KillMode::ControlGroup || (mode == KillMode::Mixed && wave == Wave::Final);
        // The main process is told on its own even when the group is, since it may live outside of it.
        for pid in &known {
            self.effects.push_back(Effect::KillProcess { pid: *pid, signal, value: None });
            if hup && !whole {
                self.effects.push_back(Effect::KillProcess { pid: *pid, signal: Signal::HUP.0, value: None });
            }
        }
        let send_cont = wave == Wave::Polite;
        // Nothing of a service runs in it after this, and most often nothing is left of one whose processes have ended.
        let last = known.is_empty()
            && self.service(id).is_some()
            && self.commands(id, CommandList::ExecStopPost).is_empty();
        match cgroup {
            Some(path) if whole => {
                self.effects.push_back(Effect::KillCgroup {
                    path,
                    signal,
                    except: known,
                    send_cont,
                    send_hup: hup,
                    last,
                });
                true
            }
            _ => !known.is_empty() || self.spawn_is_pending(id),
        }
    }

    /// The signal of a wave, and whether SIGHUP goes with it.
    fn wave_signal(&self, id: UnitId, wave: Wave) -> (i32, bool) {
        let Some(kill) = self.kill_section(id) else {
            return (if wave == Wave::Final { Signal::KILL.0 } else { Signal::TERM.0 }, false);
        };
        let restarting = self.job_kind(id) == Some(muster_graph::JobType::Restart);
        match wave {
            Wave::Polite if restarting => {
                (kill.restart_kill_signal().unwrap_or(kill.kill_signal()).0, kill.send_sighup())
            }
            Wave::Polite => (kill.kill_signal().0, kill.send_sighup()),
            Wave::Watchdog => (kill.watchdog_signal().0, false),
            Wave::Final => (kill.final_kill_signal().0, false),
        }
    }

    /// What stands still cannot end: a stop that comes by dependency or at shutdown thaws the unit first.
    pub(crate) fn thaw_to_stop(&mut self, id: UnitId) {
        use crate::state::Freezer;
        let Some(unit) = self.state.units.edit(&id).filter(|unit| unit.freezer == Freezer::Frozen) else {
            return;
        };
        unit.freezer = Freezer::Running;
        let path = unit.cgroup.clone();
        self.effects.extend(path.map(|path| Effect::FreezeCgroup { path, freeze: false }));
    }

    /// Whether what is left of a run may be killed in the end.
    fn leaves_what_it_may_not_kill(&self, id: UnitId) -> bool {
        matches!(self.kill_mode(id), KillMode::ControlGroup | KillMode::Mixed)
            && self.kill_section(id).is_some_and(|kill| !kill.send_sigkill())
    }

    /// A run is over: processes that it may not kill may be left.
    pub(crate) fn note_leftovers(&mut self, id: UnitId) {
        let path = self.state.units.get(&id).and_then(|unit| unit.cgroup.clone());
        let path = path.filter(|_| self.state.populated.contains(&id));
        if let Some(path) = path.filter(|_| self.leaves_what_it_may_not_kill(id)) {
            self.state.leftovers.insert(path, id);
        }
    }

    /// A service that may not kill what is left of its last run does not start beside it: two of them on the same data is
    /// how data is lost (systemd.kill(5), `SendSIGKILL=`).
    pub(crate) fn leftovers_forbid_start(&mut self, id: UnitId) -> bool {
        let left = self.cgroup_path(id).is_some_and(|path| self.state.leftovers.contains_key(&path));
        if !left || !self.leaves_what_it_may_not_kill(id) {
            return false;
        }
        let text = format!(
            "{}: Will not start a service with SendSIGKILL=no and KillMode=control-group or mixed while processes of its last run exist.",
            self.unit_name(id)
        );
        self.log(crate::effect::Level::Warning, Some(id), text);
        if let Some(service) = self.service_mut(id) {
            service.result = crate::state::UnitResult::Success;
        }
        self.fail_with(id, crate::state::UnitResult::Resources);
        true
    }

    fn spawn_is_pending(&self, id: UnitId) -> bool {
        self.state.spawns.values().any(|unit| *unit == id)
    }
}

/// The main and the control process of a unit.
pub(crate) fn known_processes(kind: &Kind) -> (Option<u32>, Option<u32>) {
    let pid = |process: Option<&crate::state::Process>| process.and_then(|process| process.pid);
    let state = kind.state();
    (pid(state.main()), pid(state.control()))
}
