//! Every name and alias of the loaded units.
//!
//! A look-up costs one hash and one comparison, however many units there are: loading a unit asks for each name that it
//! refers to, and most of these are the same few targets. What must stay true: nothing depends on the order of iteration.

use muster_graph::UnitId;
use muster_unit::{NameHasher, UnitName};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::{Deref, DerefMut};

/// The hasher begins the same in each program, so that the same events make the same state.
type Map = HashMap<UnitName, UnitId, BuildHasherDefault<NameHasher>>;

/// Units by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Names(Map);

impl Deref for Names {
    type Target = Map;
    fn deref(&self) -> &Map {
        &self.0
    }
}

impl DerefMut for Names {
    fn deref_mut(&mut self) -> &mut Map {
        &mut self.0
    }
}
