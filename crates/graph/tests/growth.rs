//! The cost of a transaction grows with its units and edges, not with their square.
//!
//! `cargo test --release -p muster-graph --test growth -- --nocapture` prints the table. The bound that is tested is far
//! from what is measured (a machine may be busy), and as far from what a quadratic pass would need.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::disallowed_macros
)]

use muster_graph::transaction::{Facts, Refusal, build};
use muster_graph::{Dependency, Graph, JobMode, JobType, UnitId};
use std::time::Instant;

/// A number of units, all down; whether some are missing, or else each second one yields later in cycles.
struct Down(u32, bool);

impl Facts for Down {
    fn is_active(&self, _: UnitId) -> bool {
        false
    }
    fn is_redundant(&self, _: UnitId, kind: JobType) -> bool {
        kind == JobType::Stop
    }
    fn refusal(&self, unit: UnitId, _: JobType) -> Option<Refusal> {
        (self.1 && unit.0 % 1000 == 999).then_some(Refusal::NotFound)
    }
    fn installed(&self, _: UnitId) -> Option<(JobType, bool)> {
        None
    }
    fn ignores_isolate(&self, _: UnitId) -> bool {
        false
    }
    fn all(&self) -> Vec<UnitId> {
        (0..self.0).map(UnitId).collect()
    }
    fn name(&self, unit: UnitId) -> String {
        format!("{:06}.service", unit.0)
    }
    fn rank(&self, unit: UnitId) -> u8 {
        u8::from(!self.1 && unit.0 % 2 == 1)
    }
}

/// xorshift64*.
fn draw(seed: &mut u64) -> u64 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// `u` wants `v` and starts after it.
fn pull(graph: &mut Graph, u: u32, v: u32) {
    graph.add(UnitId(u), Dependency::Wants, UnitId(v));
    graph.add(UnitId(u), Dependency::After, UnitId(v));
}

fn made(shape: &str, count: u32) -> Graph {
    let mut graph = Graph::default();
    let mut seed = 7;
    let mut any = |below: u32| u32::try_from(draw(&mut seed) % u64::from(below.max(1))).unwrap();
    for unit in 1..count {
        match shape {
            "chain" => pull(&mut graph, unit - 1, unit),
            "star" => pull(&mut graph, 0, unit),
            // Three edges a unit, each to one before it in the list: no cycles.
            "random" => {
                (0..3).for_each(|_| pull(&mut graph, any(unit), unit));
            }
            // A ring of pairs, each waiting for both of the pair before it: half of all give way, one after the other, and each
            // opens a cycle as long as half the list.
            "ladder" => {
                graph.add(UnitId(0), Dependency::Wants, UnitId(unit));
                let before = (unit / 2 + count / 2 - 1) % (count / 2) * 2;
                (before..before + 2)
                    .for_each(|other| graph.add(UnitId(unit), Dependency::After, UnitId(other)));
            }
            // As random, but half of them order the other way round.
            _ => {
                pull(&mut graph, any(unit), unit);
                (0..2).for_each(|_| graph.add(UnitId(any(count)), Dependency::After, UnitId(unit)));
            }
        }
    }
    graph
}

#[test]
fn cost_grows_with_units_and_edges() {
    println!("{:<10}{:>9}{:>9}{:>9}{:>12}{:>10}", "shape", "units", "jobs", "dropped", "ms", "us/unit");
    for shape in ["chain", "star", "random", "cyclic", "ladder"] {
        let mut each = Vec::new();
        for count in [1_000_u32, 10_000, 100_000] {
            let graph = made(shape, count);
            let begun = Instant::now();
            let made = build(
                &graph,
                &Down(count, !matches!(shape, "chain" | "ladder")),
                UnitId(0),
                JobType::Start,
                JobMode::Replace,
            )
            .unwrap();
            let ms = begun.elapsed().as_secs_f64() * 1000.0;
            each.push(ms * 1000.0 / f64::from(count));
            println!(
                "{shape:<10}{count:>9}{:>9}{:>9}{ms:>12.1}{:>10.2}",
                made.jobs.len(),
                made.notes.len(),
                each.last().unwrap()
            );
            assert!(made.jobs.len() > 400);
        }
        assert!(each[2] < 30.0 * each[0].max(1.0), "{shape}: {each:?} us a unit at 1k, 10k, 100k");
    }
}
