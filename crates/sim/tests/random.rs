//! Random units with every kind of dependency, random requests and ends of processes, and what must hold at rest.
//!
//! `SEEDS=N FIRST=N cargo test --release -p muster-sim --test random` runs at length. A failure prints its seed and a
//! shrunk scenario. What is checked, with its bounds:
//!
//! - After every event, [`muster_manager::Manager::check_invariants`].
//! - At rest no job is ready, and every job that is not running waits for another or for its own unit to change.
//! - At rest nothing runs in the cgroup of a service that is inactive or failed (all here have `KillMode=control-group`
//!   and `SendSIGKILL=yes`).
//! - At rest a unit with `BindsTo=` is not active while what it is bound to is inactive or failed without a job, unless it
//!   has a job itself or was stopped so often that the wish rests.
//! - A service whose last request was a stop does not wait for an automatic restart, unless it had a job since.
//! - When 800 seconds have passed every job is younger than 500 seconds: every time-out here is finite, and only automatic
//!   restarts and `Upholds=` go on.
//! - At rest every open descriptor is owned by a unit, and the reverse.
//! - The same seed gives the same effects, and so it does with the state taken out and in after every event.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::many_single_char_names
)]

use muster_graph::job::Job;
use muster_graph::{Dependency, JobMode, JobType};
use muster_manager::event::{Exit, Request};
use muster_manager::state::ActiveState;
use muster_sim::{Files, World};
use std::fmt::Write;

const KINDS: [&str; 15] = [
    "Requires",
    "Requisite",
    "Wants",
    "BindsTo",
    "PartOf",
    "Upholds",
    "Conflicts",
    "Before",
    "After",
    "OnFailure",
    "OnSuccess",
    "PropagatesReloadTo",
    "ReloadPropagatedFrom",
    "PropagatesStopTo",
    "StopPropagatedFrom",
];

#[derive(Clone, Debug)]
struct Unit {
    body: String,
    /// Kind and place of the other unit.
    edges: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
enum Step {
    Ask(usize, JobType, JobMode),
    End(usize, i32),
    Wait(u64),
    Reload,
    CancelAll,
    /// A client connects to a socket.
    Connect(usize),
    /// A job for a socket.
    AskSocket(usize, JobType),
    /// A service hands over a descriptor to keep.
    Store(usize),
    /// The process of a connection ends.
    EndConnection,
}

#[derive(Clone, Debug)]
struct Scenario {
    seed: u64,
    units: Vec<Unit>,
    /// Sockets, each with the text of the service of its connections (`Accept=yes`).
    sockets: Vec<(String, Option<String>)>,
    steps: Vec<Step>,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % below as u64).unwrap()
    }
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

fn socket_name(place: usize) -> String {
    format!("s{place}.socket")
}

fn name(place: usize) -> String {
    format!("u{place}.service")
}

impl Scenario {
    fn new(seed: u64) -> Scenario {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).max(1));
        let count = 2 + dice.below(5);
        let units = (0..count)
            .map(|_| {
                let body = dice.of(&[
                    "ExecStart=/bin/stay",
                    "ExecStart=/bin/stay\nRestart=always\nRestartSec=1s",
                    "ExecStart=/bin/stay\nRestart=on-failure\nExecReload=/bin/true",
                    "Type=notify\nExecStart=/bin/ready\nExecReload=/bin/false",
                    "Type=notify\nExecStart=/bin/stay\nTimeoutStartSec=5s\nRestart=on-failure",
                    "Type=oneshot\nExecStart=/bin/true\nRemainAfterExit=yes\nExecStop=/bin/true",
                    "Type=oneshot\nExecStart=/bin/true",
                    "Type=oneshot\nExecStart=/bin/false",
                    "Type=oneshot\nExecStart=/bin/stay\nTimeoutStartSec=20s",
                    "Type=exec\nExecStart=/bin/stay\nExecStartPre=/bin/true\nExecStartPost=/bin/false",
                    "ExecStart=/bin/stubborn\nTimeoutStopSec=3s",
                    "ExecStart=/bin/stay\nExecStop=/bin/stay\nTimeoutStopSec=4s",
                    "ExecStart=/bin/nospawn\nRestart=always\nRestartSec=2s",
                    "Type=exec\nExecStart=/bin/noexec",
                ]);
                let edges =
                    (0..dice.below(4)).map(|_| (dice.below(KINDS.len()), dice.below(count))).collect();
                Unit { body: body.to_owned(), edges }
            })
            .collect();
        let steps = (0..4 + dice.below(14))
            .map(|_| {
                let unit = dice.below(count);
                match dice.below(10) {
                    0..=4 => {
                        let kind = dice.of(&[
                            JobType::Start,
                            JobType::Start,
                            JobType::Start,
                            JobType::Stop,
                            JobType::Restart,
                            JobType::TryRestart,
                            JobType::Reload,
                            JobType::ReloadOrStart,
                        ]);
                        let mode =
                            dice.of(&[JobMode::Replace, JobMode::Replace, JobMode::Replace, JobMode::Fail]);
                        Step::Ask(unit, kind, mode)
                    }
                    5..=6 => Step::End(unit, dice.of(&[0, 1, -9])),
                    7 => Step::Wait(dice.of(&[100_000, 1_500_000, 6_000_000, 100_000_000])),
                    8 => Step::Reload,
                    _ => dice.of(&[&Step::CancelAll, &Step::Wait(1)]).clone(),
                }
            })
            .collect();
        Scenario { seed, units, sockets: Vec::new(), steps }
    }

    /// The same with sockets in front, traffic on them, and descriptors to keep.
    fn with_sockets(seed: u64) -> Scenario {
        let mut scenario = Scenario::new(seed);
        let mut dice = Dice(seed.wrapping_mul(0xD1B5_4A32_D192_ED03).max(1));
        let count = scenario.units.len();
        for unit in &mut scenario.units {
            unit.body += "\nNotifyAccess=all\nFileDescriptorStoreMax=";
            unit.body += dice.of(&["0", "2", "2\nFileDescriptorStorePreserve=yes"]);
        }
        scenario.sockets = (0..1 + dice.below(3))
            .map(|place| {
                let more = dice.of(&[
                    "",
                    "ExecStartPre=/bin/true\nExecStopPost=/bin/true\n",
                    "ExecStartPost=/bin/false\n",
                    "ExecStopPre=/bin/stubborn\nTimeoutSec=3s\n",
                    "TriggerLimitBurst=2\n",
                    "DeferTrigger=yes\n",
                    "FlushPending=yes\nRemoveOnStop=yes\nListenStream=/run/more\n",
                ]);
                let listen = format!("ListenStream=/run/s{place}\n{more}");
                if dice.below(2) == 0 {
                    let service = name(dice.below(count));
                    return (format!("{listen}Service={service}\n"), None);
                }
                let limit = dice.of(&["MaxConnections=2\n", "MaxConnectionsPerSource=1\n", ""]);
                let served = dice.of(&[
                    "ExecStart=/bin/stay",
                    "Type=oneshot\nExecStart=/bin/true",
                    "Type=oneshot\nExecStart=/bin/false",
                    "ExecStart=/bin/nospawn",
                    "ExecStart=/bin/stay\nRestart=on-failure",
                    "ExecStart=/bin/stubborn\nTimeoutStopSec=2s",
                ]);
                (format!("{listen}Accept=yes\n{limit}"), Some(served.to_owned()))
            })
            .collect();
        let sockets = scenario.sockets.len();
        for place in 0..sockets {
            scenario.steps.insert(0, Step::AskSocket(place, JobType::Start));
        }
        for _ in 0..6 + dice.below(14) {
            let step = match dice.below(10) {
                0..=4 => Step::Connect(dice.below(sockets)),
                5 => Step::AskSocket(
                    dice.below(sockets),
                    dice.of(&[JobType::Start, JobType::Stop, JobType::Restart]),
                ),
                6..=7 => Step::Store(dice.below(count)),
                8 => Step::EndConnection,
                _ => Step::Wait(2_000_000),
            };
            let at = dice.below(scenario.steps.len() + 1);
            scenario.steps.insert(at, step);
        }
        scenario
    }

    fn files(&self) -> Vec<(String, String)> {
        let all = self.units.iter().enumerate();
        all.map(|(place, unit)| {
            let mut text = "[Unit]\n".to_owned();
            for (kind, other) in &unit.edges {
                let _ = writeln!(text, "{}={}", KINDS[*kind], name(*other));
            }
            let _ = write!(text, "[Service]\n{}\n", unit.body);
            (name(place), text)
        })
        .chain(self.sockets.iter().enumerate().flat_map(|(place, (text, served))| {
            let socket = (socket_name(place), format!("[Socket]\n{text}"));
            let served =
                served.iter().map(move |body| (format!("s{place}@.service"), format!("[Service]\n{body}\n")));
            [socket].into_iter().chain(served)
        }))
        .collect()
    }

    fn text(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        for (name, body) in self.files() {
            let _ = writeln!(text, "+ {name}\n    {}", body.trim_end().replace('\n', "\n    "));
        }
        for step in &self.steps {
            let _ = writeln!(text, "$ {step:?}");
        }
        text
    }

    /// Runs it; what is broken, or the trace.
    fn run(&self, hand_over: bool) -> Result<Vec<String>, String> {
        let files = self.files();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let mut world = World::new(Files::new(&files), self.seed);
        world.hand_over = hand_over;
        world.boot();
        let mut stopped = vec![false; self.units.len()];
        for step in &self.steps {
            match step {
                Step::Ask(unit, kind, mode) => {
                    stopped.fill(false);
                    stopped[*unit] = *kind == JobType::Stop && *mode == JobMode::Replace;
                    let unit = name(*unit).parse().unwrap();
                    let (kind, mode) = (*kind, *mode);
                    world.ask(Request::EnqueueJob { unit, kind, mode, reload_if_possible: false });
                }
                Step::End(unit, how) => {
                    let exit = if *how < 0 { Exit::Killed(-*how) } else { Exit::Exited(*how) };
                    world.end_process_of(&name(*unit), exit);
                }
                Step::Wait(usec) => world.wait(*usec),
                Step::Reload => world.ask(Request::Reload),
                Step::CancelAll => world.ask(Request::ClearJobs),
                Step::Connect(place) => {
                    world.connect(&socket_name(*place));
                }
                Step::AskSocket(place, kind) => {
                    stopped.fill(false);
                    let (unit, kind, mode) = (socket_name(*place).parse().unwrap(), *kind, JobMode::Replace);
                    world.ask(Request::EnqueueJob { unit, kind, mode, reload_if_possible: false });
                }
                Step::Store(place) => world.store(&name(*place)),
                Step::EndConnection => {
                    let services = world.manager().state().units.values();
                    let served = services.map(|unit| unit.name.to_string()).find(|name| name.contains('@'));
                    if let Some(served) = served {
                        world.end_process_of(&served, Exit::Exited(0));
                    }
                }
            }
            if let Some(last) = world.trace.last().filter(|line| line.starts_with("the world does not")) {
                let tail = world.trace.len().saturating_sub(number("TRACE", 40) as usize);
                return Err(format!("{last}\n{}", world.trace[tail..].join("\n")));
            }
            self.check(&world, &stopped)?;
        }
        for _ in 0..8 {
            world.wait(100_000_000);
        }
        self.check(&world, &stopped)?;
        let old = |job: &&Job| job.queued_usec + 500_000_000 < world.now_usec();
        let jobs = world.manager().state().jobs.values().filter(old);
        let left: Vec<String> = jobs.map(|job| format!("{job:?}")).collect();
        if !left.is_empty() {
            return Err(format!("old jobs are left: {left:?}"));
        }
        let bad = |line: &&String| line.starts_with("FAULT") || line.starts_with("the world does not");
        match world.trace.iter().find(bad) {
            Some(line) => Err(line.clone()),
            None => Ok(world.trace),
        }
    }

    fn check(&self, world: &World, stopped: &[bool]) -> Result<(), String> {
        let manager = world.manager();
        let state = manager.state();
        if state.jobs.has_ready() {
            return Err("jobs are ready at rest".to_owned());
        }
        if !world.strays().is_empty() {
            return Err(format!("descriptors are nobody's, or not open: {:?}", world.strays()));
        }
        if let Some(fault) = world.trace.iter().find(|line| line.starts_with("FAULT")) {
            return Err(fault.clone());
        }
        for (place, _) in self.units.iter().enumerate() {
            let Some(unit) = manager.unit(&name(place).parse().unwrap()) else { continue };
            let down = |state| matches!(state, ActiveState::Inactive | ActiveState::Failed);
            if down(unit.active_state()) && world.runs_in(unit.name.as_str()) {
                return Err(format!("{} is down, and something runs in its cgroup", unit.name));
            }
            let idle = |id| state.jobs.of(id).is_none();
            for other in state.graph.of(unit.id, Dependency::BindsTo) {
                let gone = manager.unit_by_id(other).is_none_or(|other| down(other.active_state()));
                let rests = state.wishes.get(&unit.id).is_some_and(|wishes| wishes.retry_usec.is_some());
                if unit.active_state() == ActiveState::Active
                    && gone
                    && idle(other)
                    && idle(unit.id)
                    && !rests
                {
                    return Err(format!("{} is active without what it is bound to", unit.name));
                }
            }
            let asked = unit.causes.iter().rev().find(|cause| cause.text.contains("queued"));
            let by_stop = asked.is_some_and(|cause| cause.text.starts_with("stop"));
            if stopped[place] && by_stop && unit.sub_state().starts_with("auto-restart") {
                return Err(format!("{} was stopped, and comes back by itself", unit.name));
            }
        }
        Ok(())
    }

    /// Everything that can be left out while the scenario still fails is left out.
    fn shrunk(mut self) -> Scenario {
        let fails = |scenario: &Scenario| scenario.run(false).is_err();
        loop {
            let mut smaller = Vec::new();
            for at in (0..self.steps.len()).rev() {
                let mut less = self.clone();
                less.steps.remove(at);
                smaller.push(less);
            }
            for (unit, edge) in (0..self.units.len())
                .flat_map(|unit| (0..self.units[unit].edges.len()).map(move |edge| (unit, edge)))
            {
                let mut less = self.clone();
                less.units[unit].edges.remove(edge);
                smaller.push(less);
            }
            for socket in 0..self.sockets.len() {
                let mut less = self.clone();
                if !less.sockets[socket].0.contains("none.service") {
                    less.sockets[socket] = ("ListenStream=/run/s\nService=none.service\n".to_owned(), None);
                    smaller.push(less);
                }
            }
            for unit in 0..self.units.len() {
                let mut less = self.clone();
                if less.units[unit].body != "ExecStart=/bin/stay" {
                    less.units[unit].body = "ExecStart=/bin/stay".to_owned();
                    smaller.push(less);
                }
            }
            match smaller.into_iter().find(fails) {
                Some(less) => self = less,
                None => return self,
            }
        }
    }
}

fn check(seed: u64) {
    hold(Scenario::new(seed));
}

fn hold(scenario: Scenario) {
    let seed = scenario.seed;
    let trace = match scenario.run(false) {
        Ok(trace) => trace,
        Err(fault) => {
            println!("{fault}\n{}", scenario.text());
            let less = scenario.shrunk();
            let now = less.run(false).err();
            panic!("{fault}\nshrunk: {now:?}\n{}", less.text());
        }
    };
    if seed.is_multiple_of(8) {
        assert!(scenario.run(false) == Ok(trace.clone()), "seed {seed}: another run, another trace");
        let handed = scenario.run(true);
        let handed = handed.unwrap_or_else(|fault| panic!("seed {seed}, handed over: {fault}"));
        let differs = trace.iter().zip(&handed).find(|(one, other)| one != other);
        assert!(differs.is_none() && trace.len() == handed.len(), "{}{differs:#?}", scenario.text());
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn random_scenarios_break_no_invariant() {
    let first = number("FIRST", 1);
    (first..first + number("SEEDS", 150)).for_each(check);
}

#[test]
fn random_traffic_breaks_no_invariant() {
    let first = number("FIRST", 1);
    (first..first + number("SEEDS", 150)).map(Scenario::with_sockets).for_each(hold);
}

#[test]
fn restarts_of_units_ordered_both_ways_end() {
    check(727);
}

#[test]
fn requests_that_wait_for_each_other_end() {
    check(346);
}

#[test]
fn starts_that_fail_and_are_asked_for_again_come_to_rest() {
    check(186);
}

#[test]
fn no_command_runs_outside_of_its_units_cgroup() {
    check(39);
}
