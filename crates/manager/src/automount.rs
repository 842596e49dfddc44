//! Automounts (systemd.automount(5)).
//!
//! | state | start | somebody comes | its mount is up | its mount is down or failed | idle | the pipe hung up | stop |
//! |---|---|---|---|---|---|---|---|
//! | dead, failed | opening, then waiting | – | – | – | – | – | – |
//! | waiting | – | its mount starts, running | running | – | – | failed | closing, then dead |
//! | running | – | its mount starts | who waits goes on | who waits gets ENODEV; waiting | its mount stops | failed | closing, then dead |
//!
//! Opening and closing are done by helpers, and show as activating and deactivating. The kernel asks through a pipe, each
//! request with a token: to mount, or to unmount what is idle. What must stay true: every token is answered once, whatever
//! becomes of the mount, since somebody hangs on it.

use crate::effect::{Effect, FdId, Level};
use crate::event::AutomountAsk;
use crate::jobs::Started;
use crate::kind::{TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, Unit, UnitResult, words};
use muster_graph::{JobMode, JobResult, JobType, UnitId};
use muster_unit::{AutomountSection, Body, LoadState, UnitName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// No such device: what somebody gets whose file system was not mounted.
const ENODEV: i32 = 19;
/// At most this many requests of one automount wait.
const TOKENS_MAX: usize = 1024;
/// How often an idle mount is looked for: this often within its time, and within these bounds in microseconds.
const LOOKS: u64 = 3;
const LOOK_MIN_USEC: u64 = 1_000_000;
const LOOK_MAX_USEC: u64 = 60_000_000;

words! {
    /// `SubState` of an automount.
    AutomountSub { Dead = "dead", Waiting = "waiting", Running = "running", Failed = "failed", }
}

/// What a helper is doing for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AutomountWork {
    /// Nothing.
    #[default]
    None,
    /// It mounts autofs.
    Opening,
    /// It unmounts autofs and what is above it.
    Closing,
}

/// An automount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Automount {
    /// Where it is in its life.
    pub sub: AutomountSub,
    /// What is being done with its autofs.
    pub work: AutomountWork,
    /// Result of the last run.
    pub result: UnitResult,
    /// The pipe through which the kernel asks.
    pub pipe: Option<FdId>,
    /// The device number of the autofs.
    pub device: u32,
    /// Who waits for the mount.
    pub mount_tokens: BTreeSet<u32>,
    /// Who waits for the end of the mount.
    pub expire_tokens: BTreeSet<u32>,
    /// When to look for idleness, on the monotonic clock in microseconds.
    pub look_usec: Option<u64>,
}

impl TypeState for Automount {
    fn active_state(&self, _: &Unit) -> ActiveState {
        match (self.work, self.sub) {
            (AutomountWork::Opening, _) => ActiveState::Activating,
            (AutomountWork::Closing, _) => ActiveState::Deactivating,
            (AutomountWork::None, AutomountSub::Dead) => ActiveState::Inactive,
            (AutomountWork::None, AutomountSub::Failed) => ActiveState::Failed,
            (AutomountWork::None, AutomountSub::Waiting | AutomountSub::Running) => ActiveState::Active,
        }
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        self.sub.as_str()
    }

    fn result(&self) -> UnitResult {
        self.result
    }

    fn reset_failed(&mut self, failed: bool) {
        if failed {
            (self.sub, self.result) = (AutomountSub::Dead, UnitResult::Success);
        }
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: Manager::automount_start,
    stop: Manager::automount_stop,
    deadline: |_, unit| Automount::of(&unit.kind)?.look_usec,
    due: Manager::automount_due,
    triggered_changed: |manager, id, _| manager.automount_follow(id),
    resumed: Manager::automount_resumed,
    ignores_isolate: true,
    ..Verbs::NOTHING
};

impl Manager {
    fn automount(&self, id: UnitId) -> Option<&Automount> {
        Automount::of(&self.state.units.get(&id)?.kind)
    }

    fn automount_section(&self, id: UnitId) -> Option<&AutomountSection> {
        match &self.state.units.get(&id)?.file.body {
            Body::Automount(section) => Some(section),
            _ => None,
        }
    }

    fn change_automount(&mut self, id: UnitId, change: impl FnOnce(&mut Automount)) {
        self.change_state(id, |kind| {
            if let Some(automount) = Automount::of_mut(kind) {
                change(automount);
            }
        });
    }

    fn automount_place(&self, id: UnitId) -> String {
        let place = self.automount_section(id).and_then(|section| section.where_().as_deref());
        place.unwrap_or_default().to_owned()
    }

    fn automount_start(&mut self, id: UnitId) -> Started {
        let name = self.unit_name(id);
        let mount = self.triggered_unit(id).map(|unit| (unit.file.load_state, unit.active_state()));
        match mount {
            Some((LoadState::Loaded, ActiveState::Inactive | ActiveState::Failed)) => {}
            Some((LoadState::Loaded, _)) => {
                let text = format!(
                    "{name}: Path {} is already a mount point, refusing start.",
                    self.automount_place(id)
                );
                self.log(Level::Error, Some(id), text);
                return Started::Ended(JobResult::Failed);
            }
            _ => {
                self.log(
                    Level::Error,
                    Some(id),
                    format!("{name}: Refusing to start, unit to trigger not loaded."),
                );
                return Started::Ended(JobResult::Failed);
            }
        }
        if !self.start_is_allowed(id) {
            self.automount_fail(id, UnitResult::StartLimitHit);
            return Started::Ended(JobResult::Failed);
        }
        self.prepare_run(id);
        self.change_automount(id, |automount| {
            *automount = Automount { work: AutomountWork::Opening, ..Automount::default() };
        });
        self.automount_open(id, false);
        Started::Working
    }

    fn automount_open(&mut self, id: UnitId, again: bool) {
        let Some(section) = self.automount_section(id) else { return };
        let idle_usec = section.timeout_idle_sec().map_or(0, |span| span.0);
        self.effects.push_back(Effect::OpenAutomount {
            unit: self.name_of(id),
            place: self.automount_place(id),
            mode: section.directory_mode().0,
            options: section.extra_options().clone().unwrap_or_default(),
            idle_usec: if idle_usec == u64::MAX { 0 } else { idle_usec },
            again,
        });
    }

    /// autofs is mounted, or could not be.
    pub(crate) fn automount_opened(&mut self, unit: &UnitName, result: Result<(FdId, u32), String>) {
        let id = self.state.names.get(unit).copied();
        let Some(id) = id.filter(|id| {
            self.automount(*id).is_some_and(|automount| automount.work == AutomountWork::Opening)
        }) else {
            // It was stopped meanwhile.
            if let Ok((pipe, _)) = result {
                self.effects.push_back(Effect::UnwatchAutomount { pipe });
                let place = muster_unit::path_unescape(unit.stem());
                self.effects.push_back(Effect::CloseAutomount { unit: unit.clone(), place });
            }
            return;
        };
        match result {
            Ok((pipe, device)) => {
                self.change_automount(id, |automount| {
                    automount.work = AutomountWork::None;
                    automount.sub = AutomountSub::Waiting;
                    (automount.pipe, automount.device) = (Some(pipe), device);
                });
                self.effects.push_back(Effect::WatchAutomount { unit: unit.clone(), pipe });
                self.automount_follow(id);
            }
            Err(message) => {
                self.log(Level::Error, Some(id), format!("{unit}: {message}"));
                self.automount_fail(id, UnitResult::Resources);
            }
        }
    }

    fn automount_stop(&mut self, id: UnitId) -> Started {
        self.automount_let_go(id);
        self.change_automount(id, |automount| {
            (automount.sub, automount.work) = (AutomountSub::Dead, AutomountWork::Closing);
        });
        let effect = Effect::CloseAutomount { unit: self.name_of(id), place: self.automount_place(id) };
        self.effects.push_back(effect);
        Started::Working
    }

    /// autofs is unmounted.
    pub(crate) fn automount_closed(&mut self, unit: &UnitName) {
        let Some(id) = self.state.names.get(unit).copied() else { return };
        if self.automount(id).is_some_and(|automount| automount.work == AutomountWork::Closing) {
            self.change_automount(id, |automount| automount.work = AutomountWork::None);
        }
    }

    fn automount_fail(&mut self, id: UnitId, result: UnitResult) {
        self.automount_let_go(id);
        let text = format!("{}: Failed with result '{}'.", self.unit_name(id), result.as_str());
        self.log(Level::Warning, Some(id), text);
        self.change_automount(id, |automount| {
            (automount.sub, automount.work) = (AutomountSub::Failed, AutomountWork::None);
            automount.result = result;
        });
    }

    /// Nobody hangs on it any more, and the kernel asks no more.
    fn automount_let_go(&mut self, id: UnitId) {
        self.automount_answer(id, Waiting::Mount, ENODEV);
        self.automount_answer(id, Waiting::Expiry, ENODEV);
        let automount = self.state.units.edit(&id).and_then(|unit| Automount::of_mut(&mut unit.kind));
        let Some(automount) = automount else { return };
        automount.look_usec = None;
        if let Some(pipe) = automount.pipe.take() {
            self.effects.push_back(Effect::UnwatchAutomount { pipe });
        }
    }

    /// Answers all who wait; 0 says that all is well.
    fn automount_answer(&mut self, id: UnitId, who: Waiting, errno: i32) {
        let place = self.automount_place(id);
        let automount = self.state.units.edit(&id).and_then(|unit| Automount::of_mut(&mut unit.kind));
        let Some(automount) = automount else { return };
        let tokens = match who {
            Waiting::Mount => std::mem::take(&mut automount.mount_tokens),
            Waiting::Expiry => std::mem::take(&mut automount.expire_tokens),
        };
        let device = automount.device;
        if !tokens.is_empty() {
            let tokens = tokens.into_iter().collect();
            self.effects.push_back(Effect::AnswerAutomount { place, device, tokens, errno });
        }
    }

    /// The kernel asks.
    pub(crate) fn automount_asked(&mut self, unit: &UnitName, ask: AutomountAsk) {
        let Some(id) = self.state.names.get(unit).copied() else { return };
        let automount = self.state.units.edit(&id).and_then(|unit| Automount::of_mut(&mut unit.kind));
        let Some(automount) = automount.filter(|automount| automount.pipe.is_some()) else { return };
        match ask {
            AutomountAsk::Mount { token, pid, comm } => {
                if automount.mount_tokens.len() < TOKENS_MAX {
                    automount.mount_tokens.insert(token);
                }
                let place = self.automount_place(id);
                let text = format!("{unit}: Got automount request for {place}, triggered by {pid} ({comm})");
                self.log(Level::Info, Some(id), text);
                self.automount_begin(id, &format!("{unit}, on behalf of process {pid} ({comm})"));
            }
            AutomountAsk::Expire { token } => {
                if automount.expire_tokens.len() < TOKENS_MAX {
                    automount.expire_tokens.insert(token);
                }
                let mount = self.triggered_unit(id).map(|unit| unit.id);
                let stops = mount.is_some_and(|mount| {
                    self.request_quietly(mount, JobType::Stop, JobMode::Replace, &format!("{unit} is idle"))
                });
                if !stops {
                    self.automount_answer(id, Waiting::Expiry, ENODEV);
                }
            }
        }
    }

    fn automount_begin(&mut self, id: UnitId, why: &str) {
        let Some((mount, state)) = self.triggered_unit(id).map(|unit| (unit.id, unit.active_state())) else {
            return self.automount_answer(id, Waiting::Mount, ENODEV);
        };
        if self.job_kind(id) == Some(JobType::Stop) {
            self.log(Level::Debug, Some(id), format!("{}: is about to stop.", self.unit_name(id)));
            return self.automount_answer(id, Waiting::Mount, ENODEV);
        }
        if matches!(state, ActiveState::Active | ActiveState::Reloading) {
            return self.automount_follow(id);
        }
        self.change_automount(id, |automount| automount.sub = AutomountSub::Running);
        if !self.request_quietly(mount, JobType::Start, JobMode::Replace, why) {
            self.automount_answer(id, Waiting::Mount, ENODEV);
            self.change_automount(id, |automount| automount.sub = AutomountSub::Waiting);
        }
    }

    /// Brings it to what became of its mount.
    fn automount_follow(&mut self, id: UnitId) {
        let Some(automount) = self.automount(id) else { return };
        let sub = automount.sub;
        if automount.pipe.is_none() || !matches!(sub, AutomountSub::Waiting | AutomountSub::Running) {
            return;
        }
        let Some((mount, state)) = self.triggered_unit(id).map(|unit| (unit.id, unit.active_state())) else {
            return;
        };
        match state {
            ActiveState::Active | ActiveState::Reloading => {
                self.automount_answer(id, Waiting::Mount, 0);
                if self.job_kind(mount) != Some(JobType::Stop) {
                    self.automount_answer(id, Waiting::Expiry, ENODEV);
                }
                self.automount_look_later(id);
                if sub == AutomountSub::Waiting {
                    self.change_automount(id, |automount| automount.sub = AutomountSub::Running);
                }
            }
            ActiveState::Inactive | ActiveState::Failed => {
                self.automount_answer(id, Waiting::Expiry, 0);
                if self.job_kind(mount) == Some(JobType::Start) {
                    return;
                }
                self.automount_answer(id, Waiting::Mount, ENODEV);
                if sub == AutomountSub::Running {
                    self.change_automount(id, |automount| {
                        (automount.sub, automount.look_usec) = (AutomountSub::Waiting, None);
                    });
                }
            }
            ActiveState::Activating | ActiveState::Deactivating | ActiveState::Maintenance => {}
        }
    }

    fn automount_look_later(&mut self, id: UnitId) {
        let idle = self.automount_section(id).and_then(|section| section.timeout_idle_sec());
        let idle = idle.map(|span| span.0).filter(|span| *span != 0 && *span != u64::MAX);
        let wait = idle.map(|span| (span / LOOKS).clamp(LOOK_MIN_USEC, LOOK_MAX_USEC));
        let at = wait.map(|wait| self.now.monotonic_usec.saturating_add(wait));
        let automount = self.state.units.edit(&id).and_then(|unit| Automount::of_mut(&mut unit.kind));
        if let Some(automount) = automount {
            automount.look_usec = at;
        }
        self.touch(id);
    }

    /// Asks the kernel whether the mount is idle, which asks back if it is; the end of that is `automount_looked`.
    fn automount_due(&mut self, id: UnitId) {
        let automount = self.state.units.edit(&id).and_then(|unit| Automount::of_mut(&mut unit.kind));
        let Some(automount) = automount else { return };
        automount.look_usec = None;
        let (running, device) = (automount.sub == AutomountSub::Running, automount.device);
        self.touch(id);
        if running {
            let (unit, place) = (self.name_of(id), self.automount_place(id));
            self.effects.push_back(Effect::ExpireAutomount { unit, place, device });
        }
    }

    /// The kernel said whether it was idle, and what followed from that is done.
    pub(crate) fn automount_looked(&mut self, unit: &UnitName) {
        let Some(id) = self.state.names.get(unit).copied() else { return };
        if self.automount(id).is_some_and(|automount| automount.sub == AutomountSub::Running) {
            self.automount_look_later(id);
        }
    }

    /// Somebody else unmounted the autofs.
    pub(crate) fn automount_hung_up(&mut self, unit: &UnitName) {
        let Some(id) = self.state.names.get(unit).copied() else { return };
        if self.automount(id).is_some_and(|automount| automount.pipe.is_some()) {
            let text = format!(
                "{unit}: Got hangup/error on autofs pipe from kernel. Likely our automount point has been unmounted by someone or something else?"
            );
            self.log(Level::Error, Some(id), text);
            self.automount_fail(id, UnitResult::Unmounted);
        }
    }

    /// Helpers of the program before this one may have ended unheard.
    fn automount_resumed(&mut self, id: UnitId) {
        let Some(automount) = self.automount(id) else { return };
        let (work, pipe, sub) = (automount.work, automount.pipe, automount.sub);
        let unit = self.name_of(id);
        match work {
            AutomountWork::Opening => self.automount_open(id, true),
            AutomountWork::Closing => {
                let place = self.automount_place(id);
                self.effects.push_back(Effect::CloseAutomount { unit, place });
            }
            AutomountWork::None => {
                if let Some(pipe) = pipe {
                    self.effects.push_back(Effect::WatchAutomount { unit, pipe });
                }
                if sub == AutomountSub::Running {
                    self.automount_look_later(id);
                }
            }
        }
    }
}

/// Who of those that hang on an automount is meant.
#[derive(Clone, Copy)]
enum Waiting {
    Mount,
    Expiry,
}
