//! `musterctl plan` and `musterctl why-not`: what a request would do, and what keeps a unit down. Both only ask.
//!
//! PID 1 says which units wait for each other in a cycle; where that is written, this program reads in their files itself.

use crate::client::{Client, Failure};
use crate::page::Page;
use crate::{Answer, OUR_UNIT, UNIT};
use muster_cli::Verb;
use serde::Serialize;
use std::io::{self, Write};

/// What PID 1 says that a request would do: jobs (unit, type, reason, step), notes, cycles, refusal.
pub type Told = (Vec<(String, String, String, u32)>, Vec<String>, Vec<Vec<String>>, String);

/// The transaction of a request.
#[derive(Serialize)]
pub struct Plan {
    unit: String,
    /// In order.
    jobs: Vec<Job>,
    notes: Vec<String>,
    /// Each waits for the next one, the last for the first.
    cycles: Vec<Vec<Wait>>,
    /// Why it would be refused.
    pub refused: Option<String>,
}

#[derive(Serialize)]
struct Job {
    /// Jobs of one step run at once; from 1.
    step: u32,
    #[serde(rename = "type")]
    kind: String,
    unit: String,
    why: String,
}

#[derive(Serialize)]
struct Wait {
    unit: String,
    waits_for: String,
    /// Where that is written, as FILE:LINE: TEXT.
    places: Vec<String>,
}

/// What a request would do.
pub fn plan(verb: Verb, unit: &str) -> Result<Plan, Failure> {
    let (kind, mode) = match verb {
        Verb::Start => ("start", "replace"),
        Verb::Stop => ("stop", "replace"),
        Verb::Restart => ("restart", "replace"),
        Verb::Isolate => ("start", "isolate"),
    };
    let mut client = Client::connect()?;
    let path = client.load_unit(unit)?;
    let (jobs, notes, cycles, refused) = client.plan(&path, kind, mode)?;
    let cycles = cycles.iter().map(|cycle| waits(&mut client, cycle)).collect::<Result<_, _>>()?;
    let refused = (!refused.is_empty()).then_some(refused);
    let jobs = if refused.is_some() { Vec::new() } else { jobs };
    let job = |(unit, kind, why, step): (String, String, String, u32)| Job {
        step: step.saturating_add(1),
        kind,
        unit,
        why,
    };
    Ok(Plan { unit: unit.to_owned(), jobs: jobs.into_iter().map(job).collect(), notes, cycles, refused })
}

impl Answer for Plan {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        for cycle in &self.cycles {
            print_cycle(cycle, page)?;
        }
        if self.refused.is_some() {
            return Ok(());
        }
        for note in &self.notes {
            writeln!(page, "note: {note}")?;
        }
        match self.jobs.len() {
            0 => writeln!(page, "{}: nothing to do", self.unit)?,
            1 => writeln!(page, "one job:")?,
            count => writeln!(page, "{count} jobs, those of one number at once:")?,
        }
        for Job { step, kind, unit, why } in &self.jobs {
            writeln!(page, "  {step:>3}  {kind:<14} {unit:<44} {why}")?;
        }
        Ok(())
    }
}

/// What keeps a unit down.
#[derive(Serialize)]
pub struct WhyNot {
    unit: String,
    active_state: String,
    sub_state: String,
    /// None where it is up.
    reasons: Vec<String>,
}

/// What keeps a unit down.
pub fn why_not(unit: &str) -> Result<WhyNot, Failure> {
    let mut client = Client::connect()?;
    let path = client.load_unit(unit)?;
    Ok(WhyNot {
        unit: unit.to_owned(),
        active_state: client.get(&path, UNIT, "ActiveState")?,
        sub_state: client.get(&path, UNIT, "SubState")?,
        reasons: client.get(&path, OUR_UNIT, "WhyNot")?,
    })
}

impl Answer for WhyNot {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        let state = page.state(&self.active_state);
        writeln!(page, "{}: {state} ({})", self.unit, self.sub_state)?;
        if self.reasons.is_empty() {
            writeln!(page, "  it is up: musterctl why {}", self.unit)?;
        }
        for reason in &self.reasons {
            writeln!(page, "  {reason}")?;
        }
        Ok(())
    }
}

/// Who waits for whom in a cycle, and where that is written.
fn waits(client: &mut Client, cycle: &[String]) -> Result<Vec<Wait>, Failure> {
    let next = cycle.iter().cycle().skip(1);
    let mut all = Vec::new();
    for (unit, other) in cycle.iter().zip(next) {
        let mut places = places(client, unit, "After", other)?;
        places.extend(self::places(client, other, "Before", unit)?);
        all.push(Wait { unit: unit.clone(), waits_for: other.clone(), places });
    }
    Ok(all)
}

fn print_cycle(cycle: &[Wait], page: &mut Page<'_>) -> io::Result<()> {
    writeln!(page, "cycle: each of these waits for the next, and the last for the first")?;
    for Wait { unit, waits_for, places } in cycle {
        writeln!(page, "  {unit} waits for {waits_for}")?;
        if places.is_empty() {
            writeln!(page, "    --> no file says so: it is implied")?;
        }
        for place in places {
            writeln!(page, "    --> {place}")?;
        }
    }
    Ok(())
}

/// The lines in the files of a unit by which `directive` names the other one.
fn places(client: &mut Client, unit: &str, directive: &str, other: &str) -> Result<Vec<String>, Failure> {
    let path = client.load_unit(unit)?;
    let mut files: Vec<String> = client.get(&path, UNIT, "DropInPaths")?;
    files.insert(0, client.get(&path, UNIT, "FragmentPath")?);
    let mut found = Vec::new();
    for file in files.into_iter().filter(|file| !file.is_empty()) {
        // What cannot be read any more says nothing.
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        found.extend(
            lines_naming(&text, directive, other).map(|(line, text)| format!("{file}:{line}: {text}")),
        );
    }
    Ok(found)
}

/// Lines that assign to the directive and hold the name as a word, counted from 1. A line that goes on counts from its first.
fn lines_naming<'a>(
    text: &'a str,
    directive: &'a str,
    other: &'a str,
) -> impl Iterator<Item = (usize, &'a str)> + 'a {
    let mut goes_on = false;
    text.lines().zip(1..).filter_map(move |(line, number)| {
        let assigned =
            line.split_once('=').filter(|(key, _)| key.trim() == directive).map(|(_, value)| value);
        let value = if goes_on { Some(line) } else { assigned };
        goes_on = value.is_some_and(|value| value.ends_with('\\'));
        let named = value?.split_whitespace().any(|word| word == other);
        named.then_some((number, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_where_it_is_assigned() {
        let text = "[Unit]\nAfter=a.service b.service\nBefore=c.service\nAfter=x.service \\\n  c.service\n";
        let at =
            |directive, other| lines_naming(text, directive, other).map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(at("After", "b.service"), [2]);
        assert_eq!(at("After", "c.service"), [5]);
        assert_eq!(at("Before", "c.service"), [3]);
        assert_eq!(at("After", "service"), [0_usize; 0]);
    }
}
