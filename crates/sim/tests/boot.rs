//! Scripted boots on the fake kernel: the state that is taken out and in again after every event goes on as if nothing
//! had happened, and what must always hold holds for many seeds.

#![allow(clippy::unwrap_used)]

use muster_graph::{JobMode, JobType};
use muster_manager::Manager;
use muster_manager::effect::{Effect, RequestId};
use muster_manager::event::{Event, Exit, Now, Origin, Request};
use muster_manager::state::{ActiveState, Facts};
use muster_sim::{Files, World};

fn files() -> Files {
    let after_basic = "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n";
    Files::new(&[
        ("multi-user.target", after_basic),
        ("web.service", "[Unit]\nRequires=db.service\nAfter=db.service\n[Service]\nType=notify\nExecStartPre=/bin/true\nExecStart=/bin/ready\n"),
        ("db.service", "[Service]\nExecStart=/bin/stay\nRestart=on-failure\nRestartSec=1s\n"),
        ("once.service", "[Service]\nType=oneshot\nExecStart=/bin/true\nExecStart=/bin/true\nRemainAfterExit=yes\n"),
        ("bad.service", "[Unit]\nOnFailure=once.service\n[Service]\nType=oneshot\nExecStart=/bin/false\n"),
        ("slow.service", "[Service]\nExecStart=/bin/stubborn\nTimeoutStopSec=5s\n"),
        ("talk.socket", "[Socket]\nListenStream=/run/talk\n"),
        ("talk.service", "[Service]\nExecStart=/bin/stay\n"),
    ])
    .link("multi-user.target.wants", "web.service")
    .link("multi-user.target.wants", "bad.service")
    .link("multi-user.target.wants", "slow.service")
    .link("multi-user.target.wants", "talk.socket")
}

fn job(world: &mut World, unit: &str, kind: JobType) {
    let unit = unit.parse().unwrap();
    world.ask(Request::EnqueueJob { unit, kind, mode: JobMode::Replace, reload_if_possible: false });
}

fn state(world: &World, unit: &str) -> ActiveState {
    world.manager().unit(&unit.parse().unwrap()).map_or(ActiveState::Inactive, |unit| unit.active_state())
}

/// A boot, a crash with its restart, a reload, stops with and without obedience, and a shutdown.
fn script(seed: u64, hand_over: bool) -> World {
    let mut world = World::new(files(), seed);
    world.hand_over = hand_over;
    world.boot();
    assert!(world.end_process_of("db.service", Exit::Killed(11)));
    world.wait(1_100_000);
    job(&mut world, "talk.service", JobType::Start);
    world.ask(Request::Reload);
    job(&mut world, "web.service", JobType::Restart);
    job(&mut world, "slow.service", JobType::Stop);
    world.wait(6_000_000);
    job(&mut world, "poweroff.target", JobType::Start);
    world.wait(100_000_000);
    assert_eq!(world.faults, Vec::<String>::new(), "seed {seed}");
    world
}

#[test]
fn a_boot_reaches_its_target() {
    let mut world = World::new(files(), 1);
    world.boot();
    for unit in
        ["multi-user.target", "web.service", "db.service", "slow.service", "talk.socket", "once.service"]
    {
        assert_eq!(state(&world, unit), ActiveState::Active, "{unit}");
    }
    assert_eq!(state(&world, "bad.service"), ActiveState::Failed);
    assert_eq!(state(&world, "talk.service"), ActiveState::Inactive);
}

#[test]
fn the_state_taken_out_and_in_after_every_event_has_the_same_effects() {
    let (plain, handed) = (script(7, false), script(7, true));
    assert!(plain.trace.len() > 200, "{} effects", plain.trace.len());
    for (index, (one, other)) in plain.trace.iter().zip(&handed.trace).enumerate() {
        assert_eq!(one, other, "effect {index}");
    }
    assert_eq!(plain.trace.len(), handed.trace.len());
    assert_eq!(plain.manager().state(), handed.manager().state());
}

#[test]
fn every_seed_ends_in_a_shutdown_with_no_job_left() {
    for seed in 1..200 {
        let world = script(seed, false);
        let last = world.trace.iter().rev().find(|effect| effect.starts_with("Shutdown"));
        assert!(last.is_some(), "seed {seed}: {}", world.trace.last().cloned().unwrap_or_default());
        for unit in ["web.service", "db.service", "slow.service", "talk.service"] {
            assert!(!matches!(state(&world, unit), ActiveState::Active), "seed {seed}: {unit}");
        }
    }
}

/// What follows from an event in the same turn, and its own follow-ups, share one budget of jobs; the loop's tick opens the
/// next one.
#[test]
fn a_turn_has_a_budget_of_jobs_whatever_follows() {
    const COUNT: usize = 500;
    const JOBS_A_TURN: usize = 64;
    let names: Vec<String> = (0..COUNT).map(|number| format!("s{number}.service")).collect();
    let wants = format!("[Unit]\nDefaultDependencies=no\nWants={}\n", names.join(" "));
    let service = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/stay\n";
    let mut all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), service)).collect();
    all.push(("all.target", &wants));
    let files = Files::new(&all);
    let now = Now { monotonic_usec: 1, realtime_usec: 1, boottime_usec: 1 };
    let mut manager = Manager::new(Facts::default(), 1, now);
    manager.begin(now, &files);
    let request = Request::EnqueueJob {
        unit: "all.target".parse().unwrap(),
        kind: JobType::Start,
        mode: JobMode::Replace,
        reload_if_possible: false,
    };
    let origin = Origin { uid: 0, pid: 7, comm: "test".to_owned() };
    let mut event = Event::Requested { id: RequestId(1), origin, request };
    let (mut pid, mut turns) = (100, 0);
    while pid < 100 + COUNT as u32 {
        let before = pid;
        let mut events = vec![std::mem::replace(&mut event, Event::Tick)];
        while let Some(event) = events.pop() {
            manager.handle(now, &files, event);
            while let Some(effect) = manager.poll_effect() {
                if let Effect::Spawn(spawn) = effect {
                    pid += 1;
                    events.push(Event::Spawned { spawn: spawn.id, pid });
                }
            }
        }
        turns += 1;
        assert!((pid - before) as usize <= JOBS_A_TURN, "{} in one turn", pid - before);
        assert!(turns < 4 * COUNT / JOBS_A_TURN, "it does not get on");
    }
}
