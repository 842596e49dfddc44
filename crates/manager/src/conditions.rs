//! How single answers make one verdict on a unit's conditions (systemd.unit(5), "Conditions and Asserts").

use muster_unit::Condition;

/// The first condition (or assert) that stands in the way, as its directive would be written; nothing when all is well.
/// Plain ones must all hold; of those marked `|` one must.
pub fn verdict(conditions: &[Condition], results: &[bool], asserts: bool) -> Option<String> {
    let mine = || conditions.iter().zip(results).filter(|(condition, _)| condition.assert == asserts);
    if let Some((failed, _)) = mine().find(|(condition, result)| !condition.trigger && !**result) {
        return Some(failed.to_string());
    }
    let mut triggers = mine().filter(|(condition, _)| condition.trigger).peekable();
    let first = triggers.peek().map(|(condition, _)| condition.to_string())?;
    (!triggers.any(|(_, result)| *result)).then_some(first)
}
