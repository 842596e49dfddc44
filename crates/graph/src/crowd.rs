//! Thousands of edges of one kind at one unit: which units they lead to, and which of them were declared here.
//!
//! Numbers of units that are loaded together follow each other, so they stand as bits, 64 to a block. What comes is mostly
//! newer than all that is there: the last block is looked at first. Written out it is a map from unit to whether the edge
//! was declared.

use crate::edge::UnitId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// The units whose numbers are these upper bits and the place of a bit.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    upper: u32,
    /// Those that there is an edge to; never none.
    present: u64,
    /// Those of them that were declared here.
    declared: u64,
}

/// The edges, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Crowd(Vec<Block>);

/// The upper bits of a number, and the bit of the lower ones.
fn split(unit: UnitId) -> (u32, u64) {
    (unit.0 >> 6, 1 << (unit.0 & 63))
}

impl Crowd {
    /// The place of a block, or where it would be put.
    fn place(&self, upper: u32) -> Result<usize, usize> {
        match self.0.last() {
            Some(last) if last.upper == upper => Ok(self.0.len().saturating_sub(1)),
            Some(last) if last.upper < upper => Err(self.0.len()),
            _ => self.0.binary_search_by_key(&upper, |block| block.upper),
        }
    }

    /// Whether there is an edge to this unit, and was declared here.
    pub fn get(&self, to: UnitId) -> Option<bool> {
        let (upper, bit) = split(to);
        let block = self.0.get(self.place(upper).ok()?)?;
        (block.present & bit != 0).then_some(block.declared & bit != 0)
    }

    /// Says whether the edge was declared here, or leaves that as it is; the edge is made where there is none.
    pub fn set(&mut self, to: UnitId, declared: Option<bool>) {
        let (upper, bit) = split(to);
        let at = self.place(upper).unwrap_or_else(|at| {
            self.0.insert(at, Block { upper, ..Block::default() });
            at
        });
        let Some(block) = self.0.get_mut(at) else { return };
        block.present |= bit;
        match declared {
            Some(true) => block.declared |= bit,
            Some(false) => block.declared &= !bit,
            None => {}
        }
    }

    /// Forgets an edge.
    pub fn remove(&mut self, to: UnitId) {
        let (upper, bit) = split(to);
        let Ok(at) = self.place(upper) else { return };
        let Some(block) = self.0.get_mut(at) else { return };
        block.present &= !bit;
        block.declared &= !bit;
        if block.present == 0 {
            self.0.remove(at);
        }
    }

    /// Every edge, in the order of units.
    pub fn iter(&self) -> impl Iterator<Item = (UnitId, bool)> + '_ {
        self.0.iter().flat_map(|block| {
            let rest = |bits: &u64| Some(bits & bits.wrapping_sub(1)).filter(|rest| *rest != 0);
            let bits = std::iter::successors(Some(block.present), rest).map(u64::trailing_zeros);
            bits.map(|bit| (UnitId(block.upper << 6 | bit), block.declared >> bit & 1 != 0))
        })
    }
}

impl FromIterator<(UnitId, bool)> for Crowd {
    fn from_iter<T: IntoIterator<Item = (UnitId, bool)>>(edges: T) -> Crowd {
        let mut crowd = Crowd::default();
        edges.into_iter().for_each(|(to, declared)| crowd.set(to, Some(declared)));
        crowd
    }
}

impl Serialize for Crowd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Crowd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_a_map_of_units() {
        let (mut crowd, mut map) = (Crowd::default(), BTreeMap::new());
        let mut number = 1_u32;
        for step in 0..20_000_u32 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let unit = UnitId(number >> 8 & 1023);
            match number >> 28 {
                0..4 => {
                    crowd.remove(unit);
                    map.remove(&unit);
                }
                4..8 => {
                    crowd.set(unit, None);
                    map.entry(unit).or_insert(false);
                }
                _ => {
                    crowd.set(unit, Some(step & 1 == 0));
                    map.insert(unit, step & 1 == 0);
                }
            }
            assert_eq!((crowd.get(unit), crowd.0.is_empty()), (map.get(&unit).copied(), map.is_empty()));
        }
        assert!(crowd.iter().eq(map.iter().map(|(unit, declared)| (*unit, *declared))));
        assert_eq!(map.into_iter().collect::<Crowd>(), crowd);
        crowd.set(UnitId(u32::MAX), Some(true));
        assert_eq!(crowd.iter().last(), Some((UnitId(u32::MAX), true)));
    }
}
