//! `musterctl coverage`: every directive, and whether it has an effect in this version.

use crate::Answer;
use crate::page::{Page, Style};
use muster_unit::table::{Effect, Row, rows};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// A directive, and whether it has an effect.
#[derive(Serialize)]
struct Covered {
    section: &'static str,
    directive: &'static str,
    effect: &'static str,
}

impl From<Row> for Covered {
    fn from(row: Row) -> Covered {
        let effect = match row.effect {
            Effect::Applied => "applied",
            Effect::Stored => "stored",
            Effect::Ignored => "ignored",
        };
        Covered { section: row.section, directive: row.name, effect }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
pub struct Coverage(Vec<Covered>);

/// All directives.
pub fn coverage() -> Coverage {
    Coverage(rows().into_iter().map(Covered::from).collect())
}

impl Answer for Coverage {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for Covered { section, directive, effect } in &self.0 {
            let count = counts.entry(effect).or_default();
            *count = count.saturating_add(1);
            let style = if *effect == "stored" { Style::Moving } else { Style::Plain };
            writeln!(page, "{section:<12} {directive:<40} {}", page.paint(style, effect))?;
        }
        for (word, count) in counts {
            writeln!(page, "{count} {word}")?;
        }
        Ok(())
    }
}
