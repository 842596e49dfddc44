//! Transactions as data: a graph in lines of `unit Dependency unit`, a request, and the jobs that come out.

use super::*;
use std::collections::BTreeSet;

#[derive(Default)]
struct World {
    names: Vec<String>,
    active: BTreeSet<UnitId>,
    missing: BTreeSet<UnitId>,
    queued: BTreeMap<UnitId, (JobType, bool)>,
    ranks: BTreeMap<UnitId, u8>,
    graph: Graph,
}

impl World {
    fn new(text: &str) -> World {
        let mut world = World::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let from = world.id(words[0]);
            match words[1] {
                "active" => drop(world.active.insert(from)),
                "rank" => _ = world.ranks.insert(from, words[2].parse().unwrap()),
                "missing" => drop(world.missing.insert(from)),
                "queued" => {
                    _ = world.queued.insert(from, (JobType::parse(words[2]).unwrap(), words.len() > 3))
                }
                kind => {
                    let kind = *Dependency::ALL.iter().find(|d| d.name() == kind).unwrap();
                    let to = world.id(words[2]);
                    world.graph.add(from, kind, to);
                }
            }
        }
        world
    }
    fn id(&mut self, name: &str) -> UnitId {
        let at = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        UnitId(at as u32)
    }
    fn ask(&mut self, unit: &str, kind: JobType, mode: JobMode) -> String {
        let unit = self.id(unit);
        match build(&self.graph, self, unit, kind, mode) {
            Ok(made) => {
                let jobs: Vec<_> = made
                    .jobs
                    .iter()
                    .map(|(unit, kind)| format!("{} {}", self.name(*unit), kind.as_str()))
                    .collect();
                jobs.join(", ")
            }
            Err(error) => format!("{error:?}"),
        }
    }
}

impl Facts for World {
    fn is_active(&self, unit: UnitId) -> bool {
        self.active.contains(&unit)
    }
    fn is_redundant(&self, unit: UnitId, kind: JobType) -> bool {
        match kind {
            JobType::Start | JobType::VerifyActive => self.is_active(unit),
            JobType::Stop => !self.is_active(unit),
            _ => false,
        }
    }
    fn refusal(&self, unit: UnitId, kind: JobType) -> Option<Refusal> {
        (kind != JobType::Stop && self.missing.contains(&unit)).then_some(Refusal::NotFound)
    }
    fn installed(&self, unit: UnitId) -> Option<(JobType, bool)> {
        self.queued.get(&unit).copied()
    }
    fn ignores_isolate(&self, _: UnitId) -> bool {
        false
    }
    fn all(&self) -> Vec<UnitId> {
        (0..self.names.len()).map(|at| UnitId(at as u32)).collect()
    }
    fn rank(&self, unit: UnitId) -> u8 {
        self.ranks.get(&unit).copied().unwrap_or(0)
    }
    fn name(&self, unit: UnitId) -> String {
        self.names[unit.0 as usize].clone()
    }
}

fn check(text: &str, unit: &str, kind: JobType, mode: JobMode, expected: &str) {
    assert_eq!(World::new(text).ask(unit, kind, mode), expected, "{text}");
}

#[test]
fn starting_pulls_in_requirements_and_wants_but_a_missing_want_is_no_error() {
    let text = "a Requires b\n a Wants c\n a Wants d\n d missing";
    check(text, "a", JobType::Start, JobMode::Replace, "a start, b start, c start");
    check("a Requires b\n b missing", "a", JobType::Start, JobMode::Replace, "Refused(UnitId(1), NotFound)");
    check("a Wants b\n b Requires c\n c missing", "a", JobType::Start, JobMode::Replace, "a start");
}

#[test]
fn stopping_takes_along_what_requires_it() {
    let text = "a Requires b\n a active\n b active\n c PartOf b\n c active";
    check(text, "b", JobType::Stop, JobMode::Replace, "a stop, b stop, c stop");
    check(text, "b", JobType::Restart, JobMode::Replace, "a restart, b restart, c restart");
}

#[test]
fn conflicts_stop_the_other_and_a_request_at_war_with_itself_is_refused() {
    check("a Conflicts b\n b active", "a", JobType::Start, JobMode::Replace, "a start, b stop");
    let torn = "a Requires b\n a Requires c\n b Conflicts c";
    check(torn, "a", JobType::Start, JobMode::Replace, "Conflicting(UnitId(0))");
}

#[test]
fn a_cycle_loses_a_job_that_does_not_matter_and_is_refused_when_all_do() {
    let soft = "a Wants b\n a Wants c\n b After c\n c After b";
    let mut world = World::new(soft);
    let answer = world.ask("a", JobType::Start, JobMode::Replace);
    assert!(answer == "a start, c start" || answer == "a start, b start", "{answer}");
    let hard = "a Requires b\n b After a\n a After b";
    assert!(World::new(hard).ask("a", JobType::Start, JobMode::Replace).starts_with("Cyclic"));
}

#[test]
fn isolating_stops_the_rest() {
    check(
        "a Requires b\n c active\n d Wants c",
        "a",
        JobType::Start,
        JobMode::Isolate,
        "a start, b start, c stop",
    );
}

#[test]
fn mode_fail_spares_what_it_does_not_need_to_stop() {
    let text = "a Wants b\n b Conflicts c\n c active";
    check(text, "a", JobType::Start, JobMode::Fail, "a start");
    check(text, "a", JobType::Start, JobMode::Replace, "a start, b start, c stop");
    check(text, "b", JobType::Start, JobMode::Fail, "b start, c stop");
    check("a Wants b\n b queued stop", "a", JobType::Start, JobMode::Fail, "a start");
    check("a ConflictedBy b\n b active", "a", JobType::Start, JobMode::Fail, "a start");
}

#[test]
fn what_depends_on_a_unit_is_restarted_on_request() {
    let text = "a Requires b\n a active\n b active\n c PartOf b";
    check(text, "b", JobType::Start, JobMode::RestartDependencies, "a restart, b start");
    check(text, "b", JobType::Start, JobMode::Replace, "b start");
}

/// Which job gives way follows from ranks and names; two cycles are both broken.
#[test]
fn a_fixed_rule_breaks_cycles() {
    let cycle = "t Wants a\n t Wants b\n t Wants c\n a After b\n b After c\n c After a";
    check(cycle, "t", JobType::Start, JobMode::Replace, "t start, a start, b start");
    let ranked = format!("{cycle}\n c rank 4\n b rank 4");
    check(&ranked, "t", JobType::Start, JobMode::Replace, "t start, b start, c start");
    let needed = format!("{cycle}\n d Requires c\n t Wants d");
    check(&needed, "t", JobType::Start, JobMode::Replace, "t start, a start, c start, d start");
    let two = format!("{cycle}\n t Wants x\n t Wants y\n x Before y\n y Before x\n b After x");
    check(&two, "t", JobType::Start, JobMode::Replace, "t start, a start, b start, x start");
}

/// What is queued waits as well, and does not give way (seed 346 of the simulator).
#[test]
fn a_cycle_through_queued_jobs_is_found() {
    let text = "a After b\n b After a\n a queued start\n t Wants b";
    let refused = "Cyclic([UnitId(0), UnitId(1)])";
    check(text, "b", JobType::Start, JobMode::Replace, refused);
    check(text, "t", JobType::Start, JobMode::Replace, "t start");
    check(text, "b", JobType::Start, JobMode::IgnoreDependencies, "b start");
    check(text, "b", JobType::Start, JobMode::Flush, "b start");
    check(text, "b", JobType::Stop, JobMode::Replace, "b stop");
    let longer = "a After b\n b After c\n c After a\n a queued start\n b queued start";
    check(longer, "c", JobType::Start, JobMode::Replace, "Cyclic([UnitId(0), UnitId(1), UnitId(2)])");
    let elsewhere =
        "x After y\n y After x\n x queued start\n y queued start\n a After x\n x Wants a\n b After a";
    check(elsewhere, "a", JobType::Start, JobMode::Replace, "a start");
    let both = format!("{elsewhere}\n b After a\n b Before c\n c Before a\n b queued start\n c queued start");
    assert!(World::new(&both).ask("a", JobType::Start, JobMode::Replace).starts_with("Cyclic"));
}

#[test]
fn modes_protect_queued_jobs() {
    check("a queued stop", "a", JobType::Start, JobMode::Fail, "Destructive(UnitId(0))");
    check("a queued stop", "a", JobType::Start, JobMode::Replace, "a start");
    check("a queued stop irreversible", "a", JobType::Start, JobMode::Replace, "Destructive(UnitId(0))");
}

/// What conflicts takes down what it propagates its stop to, but nothing that the request starts, nor what would go with that.
#[test]
fn a_propagated_stop_spares_what_is_started() {
    let text =
        "a Requires hold\n a Conflicts d\n d PropagatesStopTo hold\n d active\n p PartOf hold\n a Requires p";
    check(text, "a", JobType::Start, JobMode::Replace, "a start, hold start, d stop, p start");
    let held = format!("{text}\n hold queued stop irreversible");
    check(&held, "a", JobType::Start, JobMode::Replace, "Destructive(UnitId(1))");
    let wished = "c Wants a\n a Requires d\n c Conflicts d\n d PropagatesStopTo c\n d active";
    check(wished, "c", JobType::Start, JobMode::Replace, "c start, d stop");
}
