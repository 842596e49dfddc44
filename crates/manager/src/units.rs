//! The loaded units, behind one door: who changes a unit says so by the way it gets at it.
//!
//! Reading is that of a map. [`Units::edit`], [`Units::insert`] and [`Units::remove`] are the only ways to change
//! anything, and each notes the unit. What must stay true: a copy that takes over only the units named by
//! [`Units::take_changes`] equals the map. What is noted is no part of the state, and a state that was read has no changes.

use crate::state::Unit;
use muster_graph::UnitId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// Units by number.
#[derive(Clone, Debug, Default)]
pub struct Units {
    map: BTreeMap<UnitId, Box<Unit>>,
    /// Since the last [`Units::take_changes`]: at most one entry for each unit that was there in this time.
    changed: BTreeSet<UnitId>,
}

impl Units {
    /// A unit, to change.
    pub fn edit(&mut self, id: &UnitId) -> Option<&mut Unit> {
        let unit = self.map.get_mut(id)?;
        self.changed.insert(*id);
        Some(unit)
    }

    /// A new unit.
    pub fn insert(&mut self, id: UnitId, unit: Box<Unit>) {
        self.changed.insert(id);
        self.map.insert(id, unit);
    }

    /// Takes a unit out.
    pub fn remove(&mut self, id: &UnitId) -> Option<Box<Unit>> {
        self.changed.insert(*id);
        self.map.remove(id)
    }

    /// The units that were changed, added or taken out since this was asked last.
    pub fn take_changes(&mut self) -> BTreeSet<UnitId> {
        std::mem::take(&mut self.changed)
    }
}

impl Deref for Units {
    type Target = BTreeMap<UnitId, Box<Unit>>;
    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

impl PartialEq for Units {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl Serialize for Units {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.map.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Units { map: BTreeMap::deserialize(deserializer)?, changed: BTreeSet::new() })
    }
}
