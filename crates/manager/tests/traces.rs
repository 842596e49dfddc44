//! Every state of every unit type, and what each event that can reach it does there.
//!
//! The manager alone: a unit is brought into a state by steps, then each event of its type is told, and the state after it
//! and the effects are written down, a line each, in `tests/traces/TYPE.txt`. The table at the head of each file of a type is
//! made from the same runs, so that it cannot say anything else than the code does. `UPDATE_EXPECT=1` writes both anew: look
//! at the difference. What must stay true: the steps of a row lead to the state that it is named for.
//!
//! Steps and events are words: `start`, `stop`, `reload`; `c0` and `c1`, the control process ends, well or not; `m0` and `m1`,
//! the main process; `ready`, `reloading`, `stopping`, notifications; `late`, the next deadline passes; `empty`, its cgroup
//! is; and those of single types, below. A word that begins with a name and a colon is for another unit.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    missing_docs
)]

#[path = "traces/bench.rs"]
mod bench;
#[path = "traces/machines.rs"]
mod machines;

use bench::Bench;
use std::fmt::Write;

/// A unit type: its file, the unit, other units, its events, its states.
struct Machine {
    file: &'static str,
    unit: &'static str,
    others: &'static [(&'static str, &'static str)],
    /// The heading of each event's column (none: the table at the head leaves it out), and its word.
    events: &'static [(&'static str, &'static str)],
    /// State (with what distinguishes it), the text of the unit, and the steps that lead there.
    states: &'static [(&'static str, &'static str, &'static str)],
}

/// What an event brought about.
struct Told {
    state: String,
    result: String,
    effects: Vec<String>,
}

impl Machine {
    fn at(&self, (state, text, steps): &(&str, &str, &str)) -> Bench {
        let mut bench = Bench::new(self.unit, text, self.others);
        steps.split_whitespace().for_each(|step| bench.step(step));
        let named = state.split(' ').next().unwrap();
        assert_eq!(bench.state(), named, "{}: {steps}", self.file);
        bench
    }

    fn tell(&self, row: &(&str, &str, &str), word: &str) -> Told {
        let mut bench = self.at(row);
        bench.take_effects();
        let before = bench.result();
        bench.step(word);
        let result = if bench.result() == before { String::new() } else { bench.result() };
        Told { state: bench.state(), result, effects: bench.take_effects() }
    }

    /// The snapshot.
    fn trace(&self) -> String {
        let mut text = String::new();
        for row in self.states {
            let state = row.0.split(' ').next().unwrap();
            let mut nothing = Vec::new();
            let _ = writeln!(text, "{}  [{}]", row.0, row.2);
            for (_, word) in self.events {
                let told = self.tell(row, word);
                if told.effects.is_empty() && told.state == state && told.result.is_empty() {
                    nothing.push(*word);
                    continue;
                }
                let result =
                    if told.result.is_empty() { String::new() } else { format!(" `{}`", told.result) };
                let _ = writeln!(text, "    {word} -> {}{result}: {}", told.state, told.effects.join(", "));
            }
            if !nothing.is_empty() {
                let _ = writeln!(text, "    nothing: {}", nothing.join(", "));
            }
        }
        text
    }

    /// The table at the head of the file, rows with the same cells in one.
    fn table(&self) -> String {
        let columns: Vec<_> = self.events.iter().filter(|(heading, _)| !heading.is_empty()).collect();
        let mut rows: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
        for row in self.states {
            let state = row.0.split(' ').next().unwrap();
            let cell = |word: &str| {
                let told = self.tell(row, word);
                match (told.state == state, told.result.as_str()) {
                    (true, "") => "–".to_owned(),
                    (true, result) => format!("`{result}`"),
                    (false, "" | "success") => told.state,
                    (false, result) => format!("{} `{result}`", told.state),
                }
            };
            let cells: Vec<String> = columns.iter().map(|(_, word)| cell(word)).collect();
            match rows.last_mut().filter(|(_, last)| *last == cells) {
                Some((states, _)) => states.push(row.0),
                None => rows.push((vec![row.0], cells)),
            }
        }
        let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
        let mut text =
            format!("//! | state | {} |\n//! |{}\n", headings.join(" | "), "---|".repeat(headings.len() + 1));
        for (states, cells) in rows {
            let _ = writeln!(text, "//! | {} | {} |", states.join(", "), cells.join(" | "));
        }
        text
    }

    fn check(&self) {
        let manager = env!("CARGO_MANIFEST_DIR");
        let at = format!("{manager}/tests/traces/{}.txt", self.file);
        expect_test::expect_file![at].assert_eq(&self.trace());
        let at = format!("{manager}/src/{}.rs", self.file);
        let source = std::fs::read_to_string(&at).unwrap();
        let is_row = |line: &&str| line.starts_with("//! |");
        let head: String = source.split_inclusive('\n').take_while(|line| !is_row(line)).collect();
        let tail: String = source[head.len()..].split_inclusive('\n').skip_while(is_row).collect();
        assert!(!tail.is_empty(), "{} has no table", self.file);
        expect_test::expect_file![at].assert_eq(&format!("{head}{}{tail}", self.table()));
    }
}

#[test]
fn services() {
    machines::SERVICE.check();
}

#[test]
fn sockets() {
    machines::SOCKET.check();
}

#[test]
fn targets() {
    machines::TARGET.check();
}

#[test]
fn slices() {
    machines::SLICE.check();
}

#[test]
fn scopes() {
    machines::SCOPE.check();
}

#[test]
fn mounts() {
    machines::MOUNT.check();
}

#[test]
fn devices() {
    machines::DEVICE.check();
}

#[test]
fn paths() {
    machines::PATH.check();
}

#[test]
fn timers() {
    machines::TIMER.check();
}
