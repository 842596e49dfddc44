//! Scenarios as text, as they are printed when they fail and kept when what they found is mended:
//!
//! ```text
//! + NAME                       a unit; its file follows, indented by four spaces
//! $ ACT [WORD]... [+N]         what happens, as `Act` names it; with +N only N events are delivered before the next one
//! ```

use super::{Act, Scenario, Step, Strategy, Unit, plain_unit};
use crate::Interruption;
use muster_graph::{JobMode, JobType};
use std::fmt::Write;

const INTERRUPTIONS: [(&str, Interruption); 3] =
    [("reexec", Interruption::Reexec), ("reload", Interruption::Reload), ("crash", Interruption::Crash)];

impl Scenario {
    /// The scenario for people, and for [`Scenario::parse`].
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, body) in self.files() {
            let _ = writeln!(text, "+ {name}\n    {}", body.trim_end().replace('\n', "\n    "));
        }
        for Step { act, pace } in &self.steps {
            let pace = pace.map_or_else(String::new, |events| format!(" +{events}"));
            let _ = writeln!(text, "$ {}{pace}", self.act_text(act));
        }
        text
    }

    fn act_text(&self, act: &Act) -> String {
        let name = |place: &usize| self.units.get(*place).map_or("", |unit| unit.name.as_str());
        match act {
            Act::Ask(unit, kind, mode) => format!("job {} {} {}", name(unit), kind.as_str(), mode.as_str()),
            Act::End(unit, how) => format!("end {} {how}", name(unit)),
            Act::Kill(unit, signal) => format!("kill {} {signal}", name(unit)),
            Act::Say(unit, word) => format!("say {} {word}", name(unit)),
            Act::Wait(usec) => format!("wait {usec}"),
            Act::Leap(usec) => format!("leap {usec}"),
            Act::SetClock(by) => format!("set-clock {by}"),
            Act::Reload => "reload".to_owned(),
            Act::CancelAll => "cancel-all".to_owned(),
            Act::CancelOne(unit) => format!("cancel {}", name(unit)),
            Act::ResetFailed(unit) => format!("reset-failed {}", name(unit)),
            Act::Hold(unit, true) => format!("hold {}", name(unit)),
            Act::Hold(unit, false) => format!("let-go {}", name(unit)),
            Act::Connect(unit, count) => format!("connect {} {count}", name(unit)),
            Act::Store(unit) => format!("store {}", name(unit)),
            Act::EndConnection => "end-connection".to_owned(),
            Act::Touch(unit) => format!("touch {}", name(unit)),
            Act::Interrupt(after, what) => {
                let word = INTERRUPTIONS.iter().find(|(_, one)| one == what).map_or("", |(word, _)| word);
                format!("interrupt {after} {word}")
            }
        }
    }

    /// Reads a scenario.
    ///
    /// # Errors
    ///
    /// The line that is not understood.
    pub fn parse(text: &str, seed: u64) -> Result<Scenario, String> {
        let strategy = Strategy::Services;
        let mut scenario =
            Scenario { seed, strategy, units: Vec::new(), others: Vec::new(), steps: Vec::new() };
        let mut files: Vec<(String, String)> = Vec::new();
        let mut acts = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if let Some(name) = line.strip_prefix("+ ") {
                files.push((name.to_owned(), String::new()));
            } else if let (Some(more), Some((_, body))) = (line.strip_prefix("    "), files.last_mut()) {
                body.push_str(more);
                body.push('\n');
            } else if let Some(act) = line.strip_prefix("$ ") {
                acts.push(act);
            } else {
                return Err(line.to_owned());
            }
        }
        for (name, body) in files {
            match name.contains('@') {
                true => scenario.others.push((name, body)),
                false => scenario.units.push(Unit { body, ..plain_unit(name, String::new()) }),
            }
        }
        for act in acts {
            let step = scenario.step(act).ok_or_else(|| act.to_owned())?;
            scenario.steps.push(step);
        }
        Ok(scenario)
    }

    fn step(&self, line: &str) -> Option<Step> {
        let (act, pace) = match line.rsplit_once(" +") {
            Some((act, events)) => (act, Some(events.parse().ok()?)),
            None => (line, None),
        };
        let words: Vec<&str> = act.split(' ').collect();
        let unit = |name: &str| self.units.iter().position(|unit| unit.name == name);
        let act = match words.as_slice() {
            ["job", name, kind, mode] => Act::Ask(unit(name)?, JobType::parse(kind)?, JobMode::parse(mode)?),
            ["end", name, how] => Act::End(unit(name)?, how.parse().ok()?),
            ["kill", name, signal] => Act::Kill(unit(name)?, signal.parse().ok()?),
            ["say", name, word] => Act::Say(unit(name)?, super::WORDS.iter().find(|one| *one == word)?),
            ["wait", usec] => Act::Wait(usec.parse().ok()?),
            ["leap", usec] => Act::Leap(usec.parse().ok()?),
            ["set-clock", by] => Act::SetClock(by.parse().ok()?),
            ["reload"] => Act::Reload,
            ["cancel-all"] => Act::CancelAll,
            ["cancel", name] => Act::CancelOne(unit(name)?),
            ["reset-failed", name] => Act::ResetFailed(unit(name)?),
            ["hold", name] => Act::Hold(unit(name)?, true),
            ["let-go", name] => Act::Hold(unit(name)?, false),
            ["connect", name, count] => Act::Connect(unit(name)?, count.parse().ok()?),
            ["store", name] => Act::Store(unit(name)?),
            ["end-connection"] => Act::EndConnection,
            ["touch", name] => Act::Touch(unit(name)?),
            ["interrupt", after, word] => {
                let (_, what) = INTERRUPTIONS.into_iter().find(|(one, _)| one == word)?;
                Act::Interrupt(after.parse().ok()?, what)
            }
            _ => return None,
        };
        Some(Step { act, pace })
    }
}
