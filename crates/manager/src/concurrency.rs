//! `ConcurrencySoftMax=` and `ConcurrencyHardMax=` of slices (systemd.slice(5)): how many units below a slice are up at a time.
//!
//! A start job that would be one too many rests, by the soft limit, until a unit below the slice is down; by the hard limit it
//! fails, and a request for it is refused. Sub-slices count as units. What must stay true: who rests is in `State::paced` under
//! the slice that holds it back, so that whatever makes room finds it; nothing is counted where no slice has a limit.

use crate::manager::Manager;
use crate::refused::Refused;
use muster_graph::job::Job;
use muster_graph::{Dependency, JobType, UnitId};
use muster_unit::{Body, Concurrency, UnitKind, UnitName};
use std::cmp::Reverse;

/// Whether a start may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is room.
    Free,
    /// Not until a unit below this slice is down.
    Later(UnitId),
    /// The hard limit of this slice is reached.
    Never(UnitId),
}

impl Manager {
    /// Whether the start of a unit fits below the slices that it is in.
    pub(crate) fn room_for(&self, id: UnitId) -> Room {
        if self.counts_as_up(id) {
            return Room::Free;
        }
        let mut room = Room::Free;
        for (slice, soft, hard) in self.limits_above(id) {
            let up = self.members(slice).filter(|member| *member != id && self.counts_as_up(*member)).count();
            if up >= hard {
                return Room::Never(slice);
            }
            if up >= soft && room == Room::Free {
                room = Room::Later(slice);
            }
        }
        room
    }

    /// Refuses a request for a start that would be one too many of those that are up and those that are to be.
    pub(crate) fn check_concurrency(&self, id: UnitId, kind: JobType) -> Result<(), Refused> {
        let starts = matches!(kind, JobType::Start | JobType::Restart | JobType::ReloadOrStart);
        if !starts || self.counts_as_up(id) || self.state.jobs.of(id).is_some() {
            return Ok(());
        }
        let counts =
            |member: &UnitId| self.counts_as_up(*member) || self.job_kind(*member) == Some(JobType::Start);
        match self
            .limits_above(id)
            .find(|(slice, _, hard)| self.members(*slice).filter(counts).count() >= *hard)
        {
            Some((slice, ..)) => {
                Err(Refused::TooManyInSlice { unit: self.name_of(id), slice: self.name_of(slice) })
            }
            None => Ok(()),
        }
    }

    /// A start job rests until there is room below a slice.
    pub(crate) fn rest_below(&mut self, id: UnitId, slice: UnitId) {
        if self.state.paced.entry(slice).or_default().insert(id) {
            let text =
                format!("waits: {} has as many units as ConcurrencySoftMax= allows", self.unit_name(slice));
            self.note_cause(id, text);
        }
    }

    /// A unit went down, or its start job ended: whoever rests below one of its slices may go on, as far as there is room.
    pub(crate) fn slices_have_room(&mut self, id: UnitId) {
        if self.state.paced.is_empty() {
            return;
        }
        let slices: Vec<UnitId> = self.slice_ids_above(id).collect();
        for slice in slices {
            self.wake_below(slice);
        }
    }

    /// A start job goes on, or has ended.
    pub(crate) fn rests_no_more(&mut self, id: UnitId) {
        self.state.paced.retain(|_, resting| !resting.remove(&id) || !resting.is_empty());
    }

    /// The first of those that rest are looked at again; they are forgotten when they go on, so that one place is given once.
    fn wake_below(&mut self, slice: UnitId) {
        let Some(resting) = self.state.paced.get(&slice) else { return };
        let starts = |job: &&Job| job.kind == JobType::Start && !job.running;
        let mut left: Vec<UnitId> =
            resting.iter().copied().filter(|id| self.state.jobs.of(*id).filter(starts).is_some()).collect();
        left.sort_by_cached_key(|id| self.pace(*id));
        let soft = self.limits(slice).map_or(usize::MAX, |(soft, _)| soft);
        let up = self.members(slice).filter(|member| self.counts_as_up(*member)).count();
        let room = soft.saturating_sub(up);
        left.into_iter().take(room).for_each(|id| self.state.jobs.wake(id));
    }

    /// Who goes first: by type, CPU weight, nice level, name.
    fn pace(&self, id: UnitId) -> (UnitKind, Reverse<u64>, i32, UnitName) {
        let file = self.state.units.get(&id).map(|unit| &unit.file);
        let weight = file.and_then(|file| file.cgroup.as_ref()?.cpu_weight()).map_or(100, |weight| weight.0);
        let nice = file.and_then(|file| file.exec.as_ref()?.nice()).map_or(0, |nice| nice.0);
        let name = self.name_of(id);
        (name.kind(), Reverse(weight), nice, name)
    }

    fn counts_as_up(&self, id: UnitId) -> bool {
        use crate::state::ActiveState::{Failed, Inactive, Maintenance};
        !matches!(self.active_state(id), Inactive | Failed | Maintenance)
    }

    /// The slices above a unit that have limits, with the soft and the hard one, from the nearest on.
    fn limits_above(&self, id: UnitId) -> impl Iterator<Item = (UnitId, usize, usize)> {
        self.slice_ids_above(id)
            .filter_map(|slice| self.limits(slice).map(|(soft, hard)| (slice, soft, hard)))
    }

    fn limits(&self, slice: UnitId) -> Option<(usize, usize)> {
        let Body::Slice(section) = &self.state.units.get(&slice)?.file.body else { return None };
        let number = |max: Option<Concurrency>| match max.map(|max| max.0) {
            None | Some(u32::MAX) => usize::MAX,
            Some(max) => usize::try_from(max).unwrap_or(usize::MAX),
        };
        let (soft, hard) = (number(section.concurrency_soft_max()), number(section.concurrency_hard_max()));
        (soft.min(hard) != usize::MAX).then_some((soft, hard))
    }

    /// All units below a slice, sub-slices included.
    fn members(&self, slice: UnitId) -> impl Iterator<Item = UnitId> {
        let mut open: Vec<UnitId> = self.state.graph.of(slice, Dependency::SliceOf).collect();
        std::iter::from_fn(move || {
            let next = open.pop()?;
            open.extend(self.state.graph.of(next, Dependency::SliceOf));
            Some(next)
        })
    }
}
