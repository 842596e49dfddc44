//! `musterctl plan` and `musterctl why-not`: what a request would do, and what keeps a unit down. Both only ask.
//!
//! PID 1 says which units wait for each other in a cycle; where that is written, this program reads in their files itself.

use crate::client::{Client, Failure};
use crate::{OUR_UNIT, UNIT};
use std::io::Write;

/// What a request would do: jobs (unit, type, reason, step), notes, cycles, refusal.
pub type Plan = (Vec<(String, String, String, u32)>, Vec<String>, Vec<Vec<String>>, String);

/// The transaction of a request, in order; an error where it would be refused.
pub fn plan(verb: &str, unit: &str, out: &mut impl Write) -> Result<(), Failure> {
    let (kind, mode) = if verb == "isolate" { ("start", "isolate") } else { (verb, "replace") };
    let mut client = Client::connect()?;
    let path = client.load_unit(unit)?;
    let (jobs, notes, cycles, refused) = client.plan(&path, kind, mode)?;
    for cycle in &cycles {
        print_cycle(&mut client, cycle, out)?;
    }
    if !refused.is_empty() {
        return Err(Failure(format!("this would be refused: {refused}")));
    }
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    match jobs.len() {
        0 => writeln!(out, "{unit}: nothing to do")?,
        1 => writeln!(out, "one job:")?,
        count => writeln!(out, "{count} jobs, those of one number at once:")?,
    }
    for (unit, kind, why, step) in jobs {
        writeln!(out, "  {:>3}  {kind:<14} {unit:<44} {why}", step.saturating_add(1))?;
    }
    Ok(())
}

/// What keeps a unit down.
pub fn why_not(unit: &str, out: &mut impl Write) -> Result<(), Failure> {
    let mut client = Client::connect()?;
    let path = client.load_unit(unit)?;
    let active: String = client.get(&path, UNIT, "ActiveState")?;
    let sub: String = client.get(&path, UNIT, "SubState")?;
    writeln!(out, "{unit}: {active} ({sub})")?;
    let reasons: Vec<String> = client.get(&path, OUR_UNIT, "WhyNot")?;
    if reasons.is_empty() {
        writeln!(out, "  it is up: musterctl why {unit}")?;
    }
    for reason in reasons {
        writeln!(out, "  {reason}")?;
    }
    Ok(())
}

/// Each unit of a cycle waits for the next one; below it stands where that is written.
fn print_cycle(client: &mut Client, cycle: &[String], out: &mut impl Write) -> Result<(), Failure> {
    writeln!(out, "cycle: each of these waits for the next, and the last for the first")?;
    let next = cycle.iter().cycle().skip(1);
    for (unit, other) in cycle.iter().zip(next) {
        let mut places = places(client, unit, "After", other)?;
        places.extend(self::places(client, other, "Before", unit)?);
        if places.is_empty() {
            places.push("no file says so: it is implied".to_owned());
        }
        writeln!(out, "  {unit} waits for {other}")?;
        for place in places {
            writeln!(out, "    --> {place}")?;
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
