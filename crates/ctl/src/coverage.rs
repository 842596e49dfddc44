//! `musterctl coverage`: every directive, whether it has an effect in this version, and why not.

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
    /// Why it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl From<Row> for Covered {
    fn from(row: Row) -> Covered {
        let effect = match row.effect {
            Effect::Applied | Effect::Older => "applied",
            Effect::Stored => "stored",
            Effect::Ignored => "ignored",
        };
        Covered { section: row.section, directive: row.name, effect, reason: row.reason() }
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
        for Covered { section, directive, effect, reason } in &self.0 {
            let count = counts.entry(effect).or_default();
            *count = count.saturating_add(1);
            let style = if *effect == "stored" { Style::Moving } else { Style::Plain };
            write!(page, "{section:<12} {directive:<40} {}", page.paint(style, effect))?;
            match reason {
                Some(reason) => writeln!(page, ": {reason}")?,
                None => writeln!(page)?,
            }
        }
        for (word, count) in counts {
            writeln!(page, "{count} {word}")?;
        }
        Ok(())
    }
}
