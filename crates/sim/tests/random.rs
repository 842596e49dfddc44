//! A fixed budget of random scenarios (`cargo xtask sim` runs more), and those that broke something once.
//!
//! `SEEDS=N FIRST=N cargo test --release -p muster-sim --test random` takes others. A failure prints its seed and a shrunk
//! scenario; what is checked stands in `muster_sim::scenario` and `muster_sim::ledger`.
#![allow(clippy::panic, clippy::arithmetic_side_effects, clippy::disallowed_methods)]

use muster_sim::scenario::{Scenario, Strategy, TWICE, hold};

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn random(strategy: Strategy) {
    let first = number("FIRST", 1);
    for seed in first..first + number("SEEDS", 150) {
        check(seed, strategy);
    }
}

fn check(seed: u64, strategy: Strategy) {
    if let Err(fault) = hold(seed, strategy, TWICE) {
        panic!("{fault}");
    }
}

#[test]
fn random_services_break_no_invariant() {
    random(Strategy::Services);
}

#[test]
fn random_traffic_breaks_no_invariant() {
    random(Strategy::Sockets);
}

#[test]
fn timers_paths_and_clocks_that_jump_break_no_invariant() {
    random(Strategy::Triggers);
}

#[test]
fn what_is_only_required_is_not_missed_when_it_ends_by_itself() {
    random(Strategy::Requires);
}

/// Each file of `tests/found` broke something once, and is run with several orders of events.
#[test]
fn what_was_found_stays_mended() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/found")).into_iter().flatten();
    let mut count = 0;
    for path in files.flatten().map(|file| file.path()) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for seed in 1..=10 {
            let scenario =
                Scenario::parse(&text, seed).unwrap_or_else(|line| panic!("{}: {line}", path.display()));
            let run = |hand_over| match scenario.run(true, hand_over) {
                Ok(ran) => ran.trace,
                Err(fault) => panic!("{}, seed {seed}: {fault}", path.display()),
            };
            assert!(
                run(false) == run(true),
                "{}, seed {seed}: the hand-over changed an effect",
                path.display()
            );
        }
        count += 1;
    }
    assert!(count >= 12, "{count} files");
}
