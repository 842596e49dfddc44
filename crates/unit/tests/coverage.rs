//! Every directive of the manual pages is a row of the table, once; and what the table says of itself adds up.

use muster_unit::table::{Effect, rows};
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
