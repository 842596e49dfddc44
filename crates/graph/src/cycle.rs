//! Ordering cycles in a transaction: found whole, and broken by leaving jobs out.
//!
//! Which job gives way depends neither on hashes nor on the order in which units were loaded. Of the jobs of a cycle that
//! do not matter to the request, it is the one of the unit with the lowest [`Facts::rank`]; among those, one that no other
//! job needs; among those, the last by name. Cycles are found in the order of the names of their units.
//!
//! First everything that is in no cycle is peeled off, from both ends: a transaction without cycles costs one pass. In what
//! is left every job waits for another, so that a walk along waits comes back to itself; after a drop it goes on from where
//! it was, and what waits in no cycle any more is peeled off again. Each unit's first wait that is still there is an edge of a
//! [`Forest`]: a walk goes from root to root, is never made twice, and the one that gives way is found without a look at the
//! rest of a long cycle. So the cost is that of the waits, times a logarithm, whatever the shape of the cycles.
//!
//! Jobs that are queued already take part, but cannot be left out. They are looked at only where one of them waits for a
//! job of this transaction, since no cycle leads through them otherwise.

use crate::edge::UnitId;
use crate::forest::Forest;
use crate::job::JobType;
use crate::transaction::{Builder, Facts, TransactionError, is_waited_for, waits_for};
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

/// The weights of those that do not give way: their jobs are needed, or were queued before.
const NEEDED: usize = usize::MAX - 1;
const QUEUED: usize = usize::MAX;

/// A unit in the knot.
struct Member {
    unit: UnitId,
    /// Whom it waits for, and who waits for it, by place.
    waits: Vec<usize>,
    waiters: Vec<usize>,
    /// How many of those are still there.
    waits_left: usize,
    waiters_left: usize,
    gone: bool,
    /// The one waited for that it hangs below in the forest.
    below: Option<usize>,
}

/// The units that wait in circles, and those between such circles.
struct Knot {
    members: Vec<Member>,
    /// The places of those in the knot, by name.
    order: Vec<usize>,
    /// The places of those that may give way, the first to do so first; a weight in the forest is a place in this list.
    yielding: Vec<usize>,
    forest: Forest,
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
                waits_left: waits.len(),
                waits,
                waiters: Vec::new(),
                waiters_left: 0,
                gone: false,
                below: None,
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
        let mut knot =
            Knot { members, order: Vec::new(), yielding: Vec::new(), forest: Forest::new(Vec::new()) };
        let ends: Vec<usize> = (0..knot.members.len()).filter(|place| knot.is_end(*place)).collect();
        knot.peel(ends);
        knot.sort(builder);
        knot
    }

    /// Sorts what is left by name, and by who gives way first.
    fn sort<F: Facts>(&mut self, builder: &Builder<'_, F>) {
        let left = self.members.iter().enumerate().filter(|(_, member)| !member.gone);
        let mut order: Vec<(String, usize)> =
            left.map(|(place, member)| (builder.facts.name(member.unit), place)).collect();
        order.sort_unstable();
        self.order = order.into_iter().map(|(_, place)| place).collect();
        let mut rank = vec![usize::MAX; self.members.len()];
        let mut weights = vec![QUEUED; self.members.len()];
        let mut yielding: Vec<(Yields, usize)> = Vec::new();
        for (at, place) in self.order.iter().copied().enumerate() {
            let Some(unit) = self.members.get(place).map(|member| member.unit) else { continue };
            rank.get_mut(place).into_iter().for_each(|rank| *rank = at);
            if !builder.has_job(unit) {
                continue;
            }
            weights.get_mut(place).into_iter().for_each(|weight| *weight = NEEDED);
            if !builder.unit_matters(unit) {
                let yields = (builder.facts.rank(unit), builder.is_needed(unit), Reverse(at));
                yielding.push((yields, place));
            }
        }
        yielding.sort_unstable();
        self.yielding = yielding.into_iter().map(|(_, place)| place).collect();
        for (weight, place) in self.yielding.iter().enumerate() {
            weights.get_mut(*place).into_iter().for_each(|known| *known = weight);
        }
        self.forest = Forest::new(weights);
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

    /// Takes these out, and what is in no circle then.
    fn peel(&mut self, mut ends: Vec<usize>) {
        while let Some(place) = ends.pop() {
            let Some(member) = self.members.get_mut(place).filter(|member| !member.gone) else { continue };
            member.gone = true;
            if member.below.take().is_some() {
                self.forest.part(place);
            }
            let (waits, waiters) = (std::mem::take(&mut member.waits), std::mem::take(&mut member.waiters));
            for other in waits {
                if let Some(other) = self.members.get_mut(other) {
                    other.waiters_left = other.waiters_left.saturating_sub(1);
                }
                ends.extend(Some(other).filter(|other| self.is_end(*other)));
            }
            for other in waiters {
                if let Some(waiter) = self.members.get_mut(other) {
                    waiter.waits_left = waiter.waits_left.saturating_sub(1);
                    if waiter.below == Some(place) {
                        waiter.below = None;
                        self.forest.part(other);
                    }
                }
                ends.extend(Some(other).filter(|other| self.is_end(*other)));
            }
        }
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
        let mut dropped = false;
        for begin in self.order.clone() {
            while self.members.get(begin).is_some_and(|member| !member.gone) {
                let here = self.forest.root(begin);
                let Some(next) = self.next(here) else {
                    // Never seen: what waits for nobody was peeled off.
                    self.peel(vec![here]);
                    continue;
                };
                if self.forest.root(next) == here {
                    dropped |= self.open(next, builder)?;
                    continue;
                }
                self.forest.join(here, next);
                self.members.get_mut(here).into_iter().for_each(|member| member.below = Some(next));
            }
        }
        Ok(dropped)
    }

    /// Opens the circle from this one to the root of its tree, which waits for it: leaves out a job, with what needs it.
    fn open<F: Facts>(
        &mut self,
        first: usize,
        builder: &mut Builder<'_, F>,
    ) -> Result<bool, TransactionError> {
        let circle = std::iter::successors(Some(first), |place| self.members.get(*place)?.below);
        let unit = |place: usize| self.members.get(place).map(|member| member.unit);
        let least = self.forest.least(first);
        if least == QUEUED {
            // Not of this request, which has nothing to do with it.
            let circle = circle.collect();
            self.peel(circle);
            return Ok(false);
        }
        let Some(victim) = self.yielding.get(least).copied().and_then(unit) else {
            return Err(TransactionError::Cyclic(circle.filter_map(unit).collect()));
        };
        builder.note_cycle(circle.filter_map(unit), victim);
        let dropped = builder.drop_unit(victim);
        let place = |unit: UnitId| self.members.binary_search_by_key(&unit, |member| member.unit).ok();
        let places: Vec<usize> =
            dropped.into_iter().filter(|unit| !builder.has_job(*unit)).filter_map(place).collect();
        self.peel(places);
        Ok(true)
    }
}
