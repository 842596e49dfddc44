//! Marks (org.freedesktop.systemd1(5), `Markers`): what scripts of packages want restarted or reloaded later, all at once.
//!
//! What must stay true: nobody sets a mark but a client; a mark goes with the restart, stop or reload that it asks for.

use crate::effect::Reply;
use crate::manager::Manager;
use muster_graph::{JobMode, JobType, UnitId};
use serde::{Deserialize, Serialize};

/// What a unit is marked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// `needs-restart`.
    pub restart: bool,
    /// `needs-reload`.
    pub reload: bool,
}

impl Marks {
    /// Its words.
    pub fn words(self) -> Vec<&'static str> {
        let all = [("needs-reload", self.reload), ("needs-restart", self.restart)];
        all.into_iter().filter_map(|(word, set)| set.then_some(word)).collect()
    }
}

/// A change of marks; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MarksChange {
    /// `needs-restart`.
    pub restart: Option<bool>,
    /// `needs-reload`.
    pub reload: Option<bool>,
}

impl MarksChange {
    /// What the words of a client say: marks as they shall be, or each with `+` or `-` before it.
    pub fn parse(words: &[&str]) -> Option<MarksChange> {
        let signed = words.first().is_some_and(|word| word.starts_with(['+', '-']));
        let rest = if signed { None } else { Some(false) };
        let mut change = MarksChange { restart: rest, reload: rest };
        for word in words {
            let (set, word) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(word), _) if signed => (true, word),
                (_, Some(word)) if signed => (false, word),
                (None, None) if !signed => (true, *word),
                _ => return None,
            };
            match word {
                "needs-restart" => change.restart = Some(set),
                "needs-reload" => change.reload = Some(set),
                _ => return None,
            }
        }
        Some(change)
    }
}

impl Manager {
    pub(crate) fn mark(&mut self, id: UnitId, change: MarksChange) {
        let Some(marks) = self.state.units.get(&id).map(|unit| unit.marks) else { return };
        let wanted = Marks {
            restart: change.restart.unwrap_or(marks.restart),
            reload: change.reload.unwrap_or(marks.reload),
        };
        if wanted != marks {
            if let Some(unit) = self.state.units.edit(&id) {
                unit.marks = wanted;
            }
        }
    }

    /// Restarts what is marked for it, and reloads what can be reloaded of the rest.
    pub(crate) fn enqueue_marked(&mut self) -> Reply {
        let marked = |unit: &crate::state::Unit| unit.marks.restart || unit.marks.reload;
        let units: Vec<(UnitId, bool)> = self
            .state
            .units
            .values()
            .filter(|unit| marked(unit))
            .map(|unit| (unit.id, unit.marks.restart))
            .collect();
        let mut jobs = Vec::new();
        for (id, restart) in units {
            let kind = if !restart && self.can_reload(id) { JobType::TryReload } else { JobType::TryRestart };
            match self.enqueue(id, kind, JobMode::Fail, "marked") {
                Ok(job) => jobs.push(job),
                Err(refused) => {
                    let text = format!("{}: marked, but not restarted: {refused}", self.unit_name(id));
                    self.log(crate::effect::Level::Warning, Some(id), text);
                }
            }
        }
        Reply::Jobs(jobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_set_all_or_change_some() {
        let parse = |words: &[&str]| MarksChange::parse(words).map(|change| (change.restart, change.reload));
        assert_eq!(parse(&[]), Some((Some(false), Some(false))));
        assert_eq!(parse(&["needs-restart"]), Some((Some(true), Some(false))));
        assert_eq!(parse(&["+needs-reload"]), Some((None, Some(true))));
        assert_eq!(parse(&["-needs-restart", "+needs-reload"]), Some((Some(false), Some(true))));
        assert_eq!(parse(&["+needs-reload", "needs-restart"]), None);
        assert_eq!(parse(&["needs-rest"]), None);
    }
}
