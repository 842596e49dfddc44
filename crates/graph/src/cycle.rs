//! Ordering cycles in a transaction: found whole, and broken by leaving jobs out.
//!
//! Which job gives way depends neither on hashes nor on the order in which units were loaded. Of the jobs of a cycle that
//! do not matter to the request, it is the one of the unit with the lowest [`Facts::rank`]; among those, one that no other
//! job needs; among those, the last by name. Cycles are found in the order of the names of their units.
//!
//! First everything that is in no cycle is peeled off, from both ends: a transaction without cycles costs one pass. In what
//! is left every job waits for another, so that a walk along waits comes back to itself; after a drop it goes on from where
//! it was, and what waits in no cycle any more is peeled off again.
//!
//! Jobs that are queued already take part, but cannot be left out. They are looked at only where one of them waits for a
//! job of this transaction, since no cycle leads through them otherwise.

use crate::edge::UnitId;
use crate::job::JobType;
use crate::transaction::{Builder, Facts, Note, TransactionError, is_waited_for, waits_for};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Leaves out jobs until none waits in a circle; refuses where every job of a circle matters.
pub(crate) fn break_all<F: Facts>(builder: &mut Builder<'_, F>) -> Result<(), TransactionError> {
    // A unit may lose one of its jobs and keep another, which waits differently: so all is looked at again. Each round
    // drops at least one job.
    loop {
        let mut knot = Knot::new(builder);
        if !knot.untie(builder)? {
            return Ok(());
        }
    }
}

/// The rank, whether another job needs it, and how late its name comes.
type Yields = (u8, bool, Reverse<usize>);

/// A unit in the knot.
struct Member {
    unit: UnitId,
    /// Who gives way first, the lowest; nothing where its job matters.
    yields: Option<Yields>,
    /// Whom it waits for, and who waits for it, by place.
    waits: Vec<usize>,
    waiters: Vec<usize>,
    /// How many of those are still there.
    waits_left: usize,
    waiters_left: usize,
    gone: bool,
    /// Its place on the walk.
    at: Option<usize>,
}

/// The units that wait in circles, and those between such circles.
struct Knot {
    members: Vec<Member>,
    /// The places of those in the knot, by name.
    order: Vec<usize>,
}

impl Knot {
    fn new<F: Facts>(builder: &Builder<'_, F>) -> Knot {
        let mut units = builder.units();
        let own = units.clone();
        let kinds: Vec<_> = units.iter().map(|unit| builder.with_queued(*unit)).collect();
        let kind_of = |unit: UnitId| match own.binary_search(&unit) {
            Ok(place) => kinds.get(place).copied().flatten(),
            Err(_) => builder.queued(unit),
        };
        let waits = |unit: UnitId, kind: JobType| waits_for(builder.graph, unit, kind, kind_of);
        let foreign = |unit: UnitId| builder.queued(unit).filter(|_| own.binary_search(&unit).is_err());
        let enters = |unit: &UnitId| {
            kind_of(*unit).is_some_and(|kind| is_waited_for(builder.graph, *unit, kind, foreign))
        };
        if own.iter().any(enters) {
            let (mut queued, mut stack) = (BTreeSet::new(), own.clone());
            while let Some(unit) = stack.pop() {
                let others = kind_of(unit).map(|kind| waits(unit, kind)).into_iter().flatten();
                let others = others.filter(|other| foreign(*other).is_some());
                stack.extend(others.filter(|other| queued.insert(*other)));
            }
            units.extend(queued);
            units.sort_unstable();
        }
        let place = |unit: UnitId| units.binary_search(&unit).ok();
        let mut members: Vec<Member> = Vec::with_capacity(units.len());
        for &unit in &units {
            let waits = kind_of(unit).map(|kind| waits(unit, kind));
            let mut waits: Vec<usize> = waits.into_iter().flatten().filter_map(place).collect();
            waits.sort_unstable();
            waits.dedup();
            members.push(Member {
                unit,
                yields: None,
                waits_left: waits.len(),
                waits,
                waiters: Vec::new(),
                waiters_left: 0,
                gone: false,
                at: None,
            });
        }
        for place in 0..members.len() {
            for other in members.get(place).map(|member| member.waits.clone()).into_iter().flatten() {
                if let Some(other) = members.get_mut(other) {
                    other.waiters.push(place);
                    other.waiters_left = other.waiters_left.saturating_add(1);
                }
            }
        }
        let mut knot = Knot { members, order: Vec::new() };
        let ends: Vec<usize> = (0..knot.members.len()).filter(|place| knot.is_end(*place)).collect();
        knot.peel(ends);
        knot.sort(builder);
        knot
    }

    /// Sorts what is left by name.
    fn sort<F: Facts>(&mut self, builder: &Builder<'_, F>) {
        let left = self.members.iter_mut().enumerate().filter(|(_, member)| !member.gone);
        let mut order: Vec<(String, usize)> =
            left.map(|(place, member)| (builder.facts.name(member.unit), place)).collect();
        order.sort_unstable();
        let mut rank = vec![usize::MAX; self.members.len()];
        for (at, (_, place)) in order.into_iter().enumerate() {
            if let (Some(member), Some(rank)) = (self.members.get_mut(place), rank.get_mut(place)) {
                *rank = at;
                let unit = member.unit;
                member.yields = (builder.has_job(unit) && !builder.unit_matters(unit))
                    .then(|| (builder.facts.rank(unit), builder.is_needed(unit), Reverse(at)));
            }
            self.order.push(place);
        }
        let of = |place: usize| rank.get(place).copied().unwrap_or(usize::MAX);
        for place in &self.order {
            if let Some(member) = self.members.get_mut(*place) {
                member.waits.retain(|other| of(*other) != usize::MAX);
                member.waits.sort_unstable_by_key(|other| Reverse(of(*other)));
            }
        }
    }

    fn is_end(&self, place: usize) -> bool {
        self.members
            .get(place)
            .is_some_and(|member| !member.gone && (member.waits_left == 0 || member.waiters_left == 0))
    }

    /// Takes these out, and what is in no circle then. The first place on the walk that is lost.
    fn peel(&mut self, mut ends: Vec<usize>) -> Option<usize> {
        let mut lost = None;
        while let Some(place) = ends.pop() {
            let Some(member) = self.members.get_mut(place).filter(|member| !member.gone) else { continue };
            member.gone = true;
            lost = lost.into_iter().chain(member.at).min();
            let (waits, waiters) = (std::mem::take(&mut member.waits), std::mem::take(&mut member.waiters));
            for other in waits {
                if let Some(other) = self.members.get_mut(other) {
                    other.waiters_left = other.waiters_left.saturating_sub(1);
                }
                ends.extend(Some(other).filter(|other| self.is_end(*other)));
            }
            for other in waiters {
                if let Some(other) = self.members.get_mut(other) {
                    other.waits_left = other.waits_left.saturating_sub(1);
                }
                ends.extend(Some(other).filter(|other| self.is_end(*other)));
            }
        }
        lost
    }

    /// The next on the walk: the first by name of those waited for that are still there.
    fn next(&mut self, place: usize) -> Option<usize> {
        loop {
            let next = *self.members.get(place)?.waits.last()?;
            if self.members.get(next).is_some_and(|member| !member.gone) {
                return Some(next);
            }
            self.members.get_mut(place)?.waits.pop();
        }
    }

    /// Whether anything was left out.
    fn untie<F: Facts>(&mut self, builder: &mut Builder<'_, F>) -> Result<bool, TransactionError> {
        let (mut path, mut dropped): (Vec<usize>, bool) = (Vec::new(), false);
        let mut begins = self.order.clone().into_iter();
        loop {
            let here = match path.last() {
                Some(here) => *here,
                None => {
                    let gone = |place: &usize| self.members.get(*place).is_none_or(|member| member.gone);
                    let Some(begin) = begins.find(|place| !gone(place)) else { return Ok(dropped) };
                    self.step(&mut path, begin);
                    begin
                }
            };
            let lost = match self.next(here) {
                // Never seen: what waits for nobody was peeled off.
                None => self.peel(vec![here]),
                Some(next) => match self.members.get(next).and_then(|member| member.at) {
                    None => {
                        self.step(&mut path, next);
                        None
                    }
                    Some(begin) => {
                        let circle = path.get(begin..).unwrap_or_default();
                        let queued = |place: &usize| {
                            self.members.get(*place).is_none_or(|member| !builder.has_job(member.unit))
                        };
                        if circle.iter().all(queued) {
                            // Not of this request, which has nothing to do with it.
                            self.peel(circle.to_vec())
                        } else {
                            dropped = true;
                            self.drop_one(circle, builder)?
                        }
                    }
                },
            };
            for place in path.drain(lost.unwrap_or(path.len()).min(path.len())..) {
                if let Some(member) = self.members.get_mut(place) {
                    member.at = None;
                }
            }
        }
    }

    fn step(&mut self, path: &mut Vec<usize>, place: usize) {
        if let Some(member) = self.members.get_mut(place) {
            member.at = Some(path.len());
        }
        path.push(place);
    }

    /// Leaves out one job of a circle, with what needs it. The first place on the walk that is lost.
    fn drop_one<F: Facts>(
        &mut self,
        circle: &[usize],
        builder: &mut Builder<'_, F>,
    ) -> Result<Option<usize>, TransactionError> {
        let members = || circle.iter().filter_map(|place| self.members.get(*place));
        let units: Vec<UnitId> = members().map(|member| member.unit).collect();
        let yielding = members().filter_map(|member| Some((member.yields?, member.unit)));
        let Some((_, victim)) = yielding.min() else {
            return Err(TransactionError::Cyclic(units));
        };
        builder.note(Note::Cycle(units, victim));
        let dropped = builder.drop_unit(victim);
        let place = |unit: UnitId| self.members.binary_search_by_key(&unit, |member| member.unit).ok();
        let places: Vec<usize> =
            dropped.into_iter().filter(|unit| !builder.has_job(*unit)).filter_map(place).collect();
        Ok(self.peel(places))
    }
}
