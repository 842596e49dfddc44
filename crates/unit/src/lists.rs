//! Which names the long lists of a unit have while its files are read, so that a line of one name is looked up, not searched for.
//!
//! What must stay true: what is known of a list is used only while the list is as long as it was left, and is forgotten when
//! one begins anew.

use crate::value::{NameHasher, UnitName};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasherDefault;

/// Up to this many names a list is searched name by name.
const SHORT: usize = 256;

type Names = HashSet<UnitName, BuildHasherDefault<NameHasher>>;

/// The long lists by directive: how many names each had, and which.
#[derive(Clone, Debug, Default)]
pub struct LongLists(RefCell<BTreeMap<String, (usize, Names)>>);

impl LongLists {
    /// Those of these names that a long list does not have yet, each once; nothing for a short one, which is searched.
    /// `room` is for how many more it has.
    pub(crate) fn unknown(
        &self,
        directive: &str,
        list: &[UnitName],
        room: usize,
        names: &mut Vec<UnitName>,
    ) -> Option<()> {
        let mut lists = self.0.borrow_mut();
        if list.len() <= SHORT {
            if list.is_empty() {
                lists.clear();
            } else {
                lists.remove(directive);
            }
            return None;
        }
        if !lists.contains_key(directive) {
            lists.insert(directive.to_owned(), (0, Names::default()));
        }
        let (length, known) = lists.get_mut(directive)?;
        if *length != list.len() {
            *known = list.iter().cloned().collect();
        }
        names.retain(|name| known.insert(name.clone()));
        *length = list.len().saturating_add(names.len().min(room));
        Some(())
    }
}
