//! Wishes that outlive a job: `Upholds=`, `StopWhenUnneeded=` and `BindsTo=` (systemd.unit(5)).
//!
//! | unit | holds when | then |
//! |---|---|---|
//! | inactive or failed | an active unit upholds it | start |
//! | active | `StopWhenUnneeded=`, and nobody needs it | stop |
//! | active | what it is bound to is inactive or failed | stop |
//!
//! What is bound goes down whatever is queued for others; the other wishes disturb no job and stop nothing for their sake.
//!
//! A unit is looked at when it, its job or something around it changed, after the event is worked off: a state that is only
//! passed through (failed on the way to a restart) grants no wish. While a unit has a job nothing is done; the end of the
//! job brings it back. A wish that is granted too often rests until its window is over, and is then looked at again; so does the stop
//! of what is bound, where it is refused.

use crate::manager::Manager;
use crate::state::{ActiveState, RateWindow};
use muster_graph::{Dependency, JobMode, JobType, UnitId};
use serde::{Deserialize, Serialize};

/// At most [`WISHES_BURST`] wishes of a unit are granted within this time.
const WISHES_INTERVAL_USEC: u64 = 10_000_000;
const WISHES_BURST: u32 = 16;

/// How often wishes of one unit were granted lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wishes {
    /// The window, and what was granted in it.
    pub limit: RateWindow,
    /// When to look again, on the monotonic clock in microseconds.
    pub retry_usec: Option<u64>,
}

impl Manager {
    /// Looks again, at the end of this event, at a unit that changed and at those whose wishes hang on it.
    pub(crate) fn queue_wishes_around(&mut self, id: UnitId) {
        let needed = [
            Dependency::Requires,
            Dependency::Wants,
            Dependency::BindsTo,
            Dependency::Requisite,
            Dependency::Upholds,
        ];
        let graph = &self.state.graph;
        let unneeded = needed.into_iter().flat_map(|kind| graph.of(id, kind)).filter(|other| {
            self.state.units.get(other).is_some_and(|unit| unit.file.unit.stop_when_unneeded())
        });
        let follow = [Dependency::Upholds, Dependency::BoundBy].into_iter();
        let around: Vec<UnitId> =
            follow.flat_map(|kind| graph.of(id, kind)).chain(unneeded).chain([id]).collect();
        self.state.wish_queue.extend(around);
    }

    /// Grants what is wished for. What this brings about is looked at with the next event.
    pub(crate) fn grant_wishes(&mut self) {
        for id in std::mem::take(&mut self.state.wish_queue) {
            let Some((kind, mode, why)) = self.wish(id) else { continue };
            if self.wish_is_allowed(id, kind, &why) {
                let refused = !self.request_quietly(id, kind, mode, &why);
                if refused && mode == JobMode::Replace {
                    self.rest_wish(id);
                }
            }
        }
    }

    fn wish(&self, id: UnitId) -> Option<(JobType, JobMode, String)> {
        let unit = self.state.units.get(&id)?;
        if self.state.jobs.of(id).is_some() {
            return None;
        }
        match unit.active_state() {
            ActiveState::Inactive | ActiveState::Failed => {
                let by = self.upheld_by(id)?;
                Some((JobType::Start, JobMode::Fail, format!("UpheldBy {}", self.unit_name(by))))
            }
            // What it is bound to weighs more: that stop gives way to no other job.
            ActiveState::Active | ActiveState::Reloading => match self.bound_to_inactive(id) {
                Some(other) => {
                    let why = format!("BoundTo {}, which is not active", self.unit_name(other));
                    Some((JobType::Stop, JobMode::Replace, why))
                }
                None => self
                    .is_unneeded(id)
                    .then(|| (JobType::Stop, JobMode::Fail, "no unit needs it any more".to_owned())),
            },
            ActiveState::Activating | ActiveState::Deactivating | ActiveState::Maintenance => None,
        }
    }

    fn upheld_by(&self, id: UnitId) -> Option<UnitId> {
        self.state.graph.of(id, Dependency::UpheldBy).find(|by| {
            matches!(self.active_state(*by), ActiveState::Active | ActiveState::Reloading)
                && self.job_kind(*by).is_none()
        })
    }

    fn bound_to_inactive(&self, id: UnitId) -> Option<UnitId> {
        self.state.graph.of(id, Dependency::BindsTo).find(|other| {
            matches!(self.active_state(*other), ActiveState::Inactive | ActiveState::Failed)
                && self.job_kind(*other).is_none()
        })
    }

    fn is_unneeded(&self, id: UnitId) -> bool {
        let needing = [
            Dependency::RequiredBy,
            Dependency::WantedBy,
            Dependency::BoundBy,
            Dependency::RequisiteOf,
            Dependency::UpheldBy,
        ];
        self.state.units.get(&id).is_some_and(|unit| unit.file.unit.stop_when_unneeded())
            && !needing.into_iter().flat_map(|kind| self.state.graph.of(id, kind)).any(|by| {
                !matches!(self.active_state(by), ActiveState::Inactive | ActiveState::Failed)
                    || self.job_kind(by).is_some_and(|kind| kind != JobType::Stop)
            })
    }

    fn wish_is_allowed(&mut self, id: UnitId, kind: JobType, why: &str) -> bool {
        let now = self.now.monotonic_usec;
        let wishes = self.state.wishes.entry(id).or_default();
        wishes.retry_usec = None;
        let admitted = crate::limit::admit(&mut wishes.limit, now, WISHES_INTERVAL_USEC, WISHES_BURST);
        if !admitted {
            wishes.retry_usec = Some(wishes.limit.begin_usec.saturating_add(WISHES_INTERVAL_USEC));
            let kind = kind.as_str();
            let text = format!("{}: {kind} put off, it was tried too often ({why}).", self.unit_name(id));
            self.log(crate::effect::Level::Warning, Some(id), text);
        }
        self.touch(id);
        admitted
    }

    /// It could not be granted, and is looked at again after a while.
    fn rest_wish(&mut self, id: UnitId) {
        let retry_usec = Some(self.now.monotonic_usec.saturating_add(WISHES_INTERVAL_USEC));
        self.state.wishes.entry(id).or_default().retry_usec = retry_usec;
        self.touch(id);
    }

    /// When a wish that rests is due.
    pub(crate) fn wish_deadline(&self, id: UnitId) -> Option<u64> {
        self.state.wishes.get(&id)?.retry_usec
    }

    /// Marks the unit as due.
    pub(crate) fn wish_due(&mut self, id: UnitId) {
        if let Some(wishes) = self.state.wishes.get_mut(&id) {
            wishes.retry_usec = None;
            self.state.wish_queue.insert(id);
            self.touch(id);
        }
    }
}
