//! What a unit was loaded from, as one number, so that a reload can tell whether it is the same.
//!
//! What must stay true: two loads that read anything else never have the same number, and what may change unnoticed has none.

use crate::around::Around;
use crate::file::{LoadState, UnitFile};
use crate::load::{Lookup, Source, named};
use crate::value::NameHasher;
use std::hash::{Hash, Hasher};

/// Whether loading this unit again would read the same files with the same contents in the same places, so that what was
/// loaded can stay as it is.
pub fn is_unchanged(file: &UnitFile, source: &dyn Source) -> bool {
    if file.origin.is_none() || file.load_state != LoadState::Loaded {
        return false;
    }
    let (now, found) = named(&file.id, source);
    let Lookup::File(path) = &found else { return false };
    let around = Around::of(&now, source);
    let origin = with_source(origin(&now, path, source.identity(path), &around, source), file, source);
    now.id == file.id && origin == file.origin
}

/// A generated unit says in itself what it was made from (`SourcePath=`).
pub(crate) fn with_source(origin: Option<u64>, file: &UnitFile, source: &dyn Source) -> Option<u64> {
    match file.unit.source_path() {
        Some(path) => origin.zip(source.identity(path)).map(|(origin, identity)| origin ^ identity),
        None => origin,
    }
}

/// Everything that a unit is loaded from, as one number; nothing where that may change unnoticed. `identity` is that of its
/// fragment.
pub(crate) fn origin(
    file: &UnitFile,
    path: &str,
    identity: Option<u64>,
    around: &Around,
    source: &dyn Source,
) -> Option<u64> {
    let mut hasher = NameHasher::default();
    (path, identity?, &*file.names, around).hash(&mut hasher);
    for path in &around.drop_ins {
        source.identity(path)?.hash(&mut hasher);
    }
    Some(hasher.finish())
}
