//! What one loaded service costs the manager, in bytes that are allocated: a row of the directive table that makes all
//! units larger, or a field of their state that most do not need, fails here.

#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use muster_manager::Manager;
use muster_manager::event::{Event, Now, Origin, Request};
use muster_manager::state::Facts;
use muster_sim::Files;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const COUNT: usize = 1000;

/// Services as a machine has them by the thousand, each with strings of its own, and a target that names them, so that
/// they stay.
fn files() -> Files {
    let names: Vec<String> = (0..COUNT).map(|number| format!("app-{number:05}.service")).collect();
    let texts: Vec<String> = (0..COUNT)
        .map(|number| {
            format!(
                "[Unit]\nDescription=Application number {number:05}\nAfter=network.target\n\
                 [Service]\nExecStart=/usr/bin/app --port={number}\nEnvironment=A={number} B=two\nMemoryMax=64M\n"
            )
        })
        .collect();
    let all = format!("[Unit]\nDefaultDependencies=no\nBefore={}\n", names.join(" "));
    let mut units: Vec<(&str, &str)> =
        names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    units.push(("all.target", &all));
    Files::new(&units)
}

/// Net bytes and blocks a unit.
fn cost() -> (usize, usize) {
    let files = files();
    let now = Now { monotonic_usec: 1, realtime_usec: 1_000_000, boottime_usec: 1 };
    let mut manager = Manager::new(Facts::default(), 1, now);
    manager.begin(now, &files);
    manager.start_default(now, &files);
    while manager.poll_effect().is_some() {}
    let before = manager.state().units.len();
    let region = Region::new(ALLOCATOR);
    let origin = Origin { uid: 0, pid: 7, comm: "test".to_owned() };
    let request = Request::LoadUnit { unit: "all.target".parse().unwrap() };
    let id = muster_manager::effect::RequestId(1);
    manager.handle(now, &files, Event::Requested { id, origin, request });
    while manager.poll_effect().is_some() {}
    let stats = region.change();
    assert!(manager.state().units.len() >= before + COUNT);
    let bytes = stats.bytes_allocated - stats.bytes_deallocated;
    (bytes / COUNT, (stats.allocations - stats.deallocations) / COUNT)
}

#[test]
fn a_loaded_service_costs_what_it_sets() {
    let (bytes, blocks) = cost();
    println!("{bytes} bytes in {blocks} blocks a unit");
    assert!(bytes <= 1750, "a loaded service costs {bytes} bytes in {blocks} blocks");
}
