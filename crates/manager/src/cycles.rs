//! Ordering cycles, told with the lines that make them.
//!
//! A cycle is found while a transaction is made, and told when its event is worked off: where an order is written stands in
//! unit files alone. What must stay true: it is told before anything that the transaction brought about; a message has a
//! bounded length; and telling reads the files of a bounded number of units.

use crate::effect::Level;
use crate::manager::Manager;
use muster_graph::{Dependency, UnitId};
use muster_unit::Source;

/// At most this many units of a cycle are named.
const SHOWN_MAX: usize = 50;
/// Of at most this many cycles of an event the lines are looked up.
const PLACED_MAX: usize = 16;

/// A cycle that nobody was told of yet.
#[derive(Debug)]
pub(crate) struct Found {
    /// The unit of which the transaction was asked.
    pub anchor: UnitId,
    /// Each waits for the next one, the last for the first.
    pub cycle: Vec<UnitId>,
    /// Whose job was left out; nobody's, where every job was needed.
    pub victim: Option<UnitId>,
}

impl Manager {
    /// Tells of the cycles that were found in this event.
    pub(crate) fn tell_cycles(&mut self, source: &dyn Source) {
        if self.cycles.is_empty() {
            return;
        }
        let after = std::mem::take(&mut self.effects);
        for (number, found) in std::mem::take(&mut self.cycles).into_iter().enumerate() {
            let waits = match number < PLACED_MAX {
                true => self.waits_text(&found.cycle, source),
                false => self.cycle_text(&found.cycle),
            };
            let Some(victim) = found.victim else {
                let text = format!("Found ordering cycle: {waits}, and every job in it is needed.");
                self.log(Level::Error, Some(found.anchor), text);
                continue;
            };
            let text = format!(
                "Found ordering cycle: {waits}: job of {} left out to break it",
                self.unit_name(victim)
            );
            // Whose job it was is asked, too, why it is not up.
            if victim != found.anchor {
                self.log(Level::Warning, Some(victim), text.clone());
            }
            self.log(Level::Warning, Some(found.anchor), text);
        }
        self.effects.extend(after);
    }

    /// A cycle in a line of bounded length.
    pub(crate) fn cycle_text(&self, cycle: &[UnitId]) -> String {
        let mut names: Vec<String> = cycle.iter().take(SHOWN_MAX).map(|unit| self.unit_name(*unit)).collect();
        names.extend(unnamed(cycle).map(|more| format!("({more} more)")));
        names.extend(cycle.first().map(|unit| self.unit_name(*unit)));
        names.join(" -> ")
    }

    /// The same with the place of each order.
    fn waits_text(&self, cycle: &[UnitId], source: &dyn Source) -> String {
        let pairs = cycle.iter().zip(cycle.iter().cycle().skip(1));
        let mut waits: Vec<String> = pairs
            .take(SHOWN_MAX)
            .map(|(unit, other)| {
                let place = self.order_place(*unit, *other, source);
                format!("{} waits for {} ({place})", self.unit_name(*unit), self.unit_name(*other))
            })
            .collect();
        waits.extend(unnamed(cycle).map(|more| format!("and so on for {more} more")));
        waits.join(", ")
    }

    /// Where it is said that two units are ordered. A job that stops a unit turns their order round.
    fn order_place(&self, unit: UnitId, other: UnitId, source: &dyn Source) -> String {
        use Dependency::{After, Before, BindsTo, Requires, Requisite, Upholds, Wants};
        let ordered =
            [(unit, After, other), (other, Before, unit), (unit, Before, other), (other, After, unit)];
        let mut said = ordered.into_iter().filter_map(|edge| self.edge_place(edge, source));
        if let Some(place) = said.next() {
            return place;
        }
        // A target comes after what it pulls in.
        let pulls = [Requires, Requisite, Wants, BindsTo, Upholds];
        let mut pulled = pulls.into_iter().filter_map(|kind| self.edge_place((unit, kind, other), source));
        pulled.next().map_or_else(|| "implied".to_owned(), |place| format!("implied by {place}"))
    }

    fn edge_place(
        &self,
        (unit, kind, other): (UnitId, Dependency, UnitId),
        source: &dyn Source,
    ) -> Option<String> {
        if !self.state.graph.has(unit, kind, other) {
            return None;
        }
        let unit = self.state.units.get(&unit)?;
        let is_it = |name: &muster_unit::UnitName| self.state.names.get(name) == Some(&other);
        let machine = &self.state.facts.specifiers;
        let (path, line) = muster_unit::place_naming(&unit.file, kind.name(), is_it, source, machine)?;
        Some(format!("{}= at {path}:{line}", kind.name()))
    }
}

fn unnamed(cycle: &[UnitId]) -> Option<usize> {
    cycle.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0)
}
