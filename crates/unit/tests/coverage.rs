//! Every directive of the manual pages is a row of the table, once; and what the table says of itself adds up.

use muster_unit::table::{Effect, MUSTER_ROWS, rows};
use std::collections::BTreeSet;

/// Section and name of each directive that systemd 257 understands in unit files.
const REFERENCE: &str = include_str!("data/directives.tsv");

fn reference() -> BTreeSet<(&'static str, &'static str)> {
    REFERENCE.lines().filter_map(|line| line.split_once('\t')).collect()
}

#[test]
fn every_directive_has_a_row() {
    let known: BTreeSet<(&str, &str)> = rows().iter().map(|row| (row.section, row.name)).collect();
    let missing: Vec<_> = reference().into_iter().filter(|directive| !known.contains(directive)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

#[test]
fn no_directive_has_two_rows() {
    let mut seen = BTreeSet::new();
    let twice: Vec<_> =
        rows().into_iter().map(|row| (row.section, row.name)).filter(|name| !seen.insert(*name)).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// The manual page of what muster adds.
const PAGE: &str = include_str!("../../../docs/man/muster.unit.5");

/// What the page explains: under the heading of a type of unit, each name that a paragraph begins with.
fn explained() -> BTreeSet<(String, String)> {
    let mut section = String::new();
    let mut all = BTreeSet::new();
    for (before, line) in PAGE.lines().zip(PAGE.lines().skip(1)) {
        if let Some(heading) = line.strip_prefix(".SH ") {
            section = heading.strip_suffix(" UNITS").unwrap_or("").to_ascii_lowercase();
        }
        if let (".TP", Some(name)) =
            (before, line.strip_prefix(".B ").and_then(|name| name.strip_suffix('=')))
        {
            all.insert((section.clone(), name.to_owned()));
        }
    }
    all
}

#[test]
fn what_muster_adds_is_in_the_manual_and_nothing_else_is() {
    let known = MUSTER_ROWS.iter().map(|row| (row.section.to_ascii_lowercase(), row.name.to_owned()));
    assert_eq!(explained(), known.collect());
    let written = rows().into_iter().filter(|row| row.section == "X-Muster").map(|row| row.name);
    let names: BTreeSet<&str> = MUSTER_ROWS.iter().map(|row| row.name).collect();
    assert_eq!(written.collect::<BTreeSet<_>>(), names);
}

/// The centre of the mission: every row of [Socket] has its effect.
#[test]
fn every_socket_row_has_an_effect() {
    let without: Vec<&str> = rows()
        .into_iter()
        .filter(|row| row.section == "Socket" && row.effect == Effect::Stored)
        .map(|row| row.name)
        .collect();
    assert!(without.is_empty(), "{without:?}");
}
