//! `musterctl why`: why a unit is in its state.

use crate::client::{Client, Failure};
use crate::page::{Page, Style};
use crate::{Answer, OUR_UNIT, UNIT};
use serde::Serialize;
use std::io::{self, Write};

/// Why a unit is in its state.
#[derive(Serialize)]
pub struct Why {
    unit: String,
    load_state: String,
    active_state: String,
    sub_state: String,
    causes: Vec<Cause>,
    /// What was not understood in its files.
    diagnostics: Vec<String>,
    /// What is set in its files, and without effect.
    not_applied: Vec<String>,
}

#[derive(Serialize)]
struct Cause {
    /// `CLOCK_MONOTONIC`, microseconds.
    monotonic_usec: u64,
    text: String,
}

/// Asks.
pub fn why(unit: &str) -> Result<Why, Failure> {
    let mut client = Client::connect()?;
    let path = client.load_unit(unit)?;
    let causes: Vec<(u64, String)> = client.get(&path, OUR_UNIT, "Causes")?;
    let cause = |(monotonic_usec, text)| Cause { monotonic_usec, text };
    Ok(Why {
        unit: unit.to_owned(),
        load_state: client.get(&path, UNIT, "LoadState")?,
        active_state: client.get(&path, UNIT, "ActiveState")?,
        sub_state: client.get(&path, UNIT, "SubState")?,
        causes: causes.into_iter().map(cause).collect(),
        diagnostics: client.get(&path, OUR_UNIT, "Diagnostics")?,
        not_applied: client.get(&path, OUR_UNIT, "NotApplied")?,
    })
}

impl Answer for Why {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        let (unit, state) = (page.paint(Style::Bold, &self.unit), page.state(&self.active_state));
        writeln!(page, "{unit}: {}, {state} ({})", self.load_state, self.sub_state)?;
        if !self.causes.is_empty() {
            let title = "What happened to it, in seconds since the kernel started:";
            writeln!(page, "\n{}", page.paint(Style::Bold, title))?;
        }
        for Cause { monotonic_usec, text } in &self.causes {
            writeln!(page, "  {:>12.6}  {text}", *monotonic_usec as f64 / 1e6)?;
        }
        for (title, lines) in [
            ("Not understood in its files:", &self.diagnostics),
            ("Set in its files, and without effect in this version:", &self.not_applied),
        ] {
            if !lines.is_empty() {
                writeln!(page, "\n{}", page.paint(Style::Bold, title))?;
            }
            for line in lines {
                writeln!(page, "  {line}")?;
            }
        }
        Ok(())
    }
}
