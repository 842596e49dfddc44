//! Random units with every kind of dependency, what happens to them, what must hold at rest, and the shrinking of what fails.
//!
//! What is checked, with its bounds, beside what the world asks after every event:
//!
//! - At rest no job is ready, and every job that is not running waits for another or for its own unit to change.
//! - At rest nothing runs in the cgroup of a service that is inactive or failed, unless its `KillMode=` or `SendSIGKILL=`
//!   leaves it, or PID 1 lost its memory.
//! - At rest a unit with `BindsTo=` is not active while what it is bound to is inactive or failed without a job, unless it
//!   has a job itself or was stopped so often that the wish rests.
//! - A unit whose stop was done, and that had no job since, does not wait for an automatic restart.
//! - When 800 seconds have passed every job was queued, or began anew by a restart, within 500 seconds, or waits for one that
//!   was: every time-out here is finite, and only automatic restarts, `Upholds=` and timers go on. Left out: jobs that only look whether a unit is up,
//!   since one whose queued restart was canceled stays on its way for good, as under systemd.
//! - At rest every open descriptor is owned by a unit, and the reverse.
//! - [`Strategy::Requires`]: where the only dependencies are `Requires=`, `Wants=`, `Before=` and `After=`, the end of a
//!   process of a unit without automatic restart changes no other unit's state.
//! - The same seed gives the same effects, and so it does with the state taken out and in after every event.

use crate::dice::Dice;
use crate::files::Files;
use crate::{Interruption, World};
use muster_graph::job::Job;
use muster_graph::{Dependency, JobMode, JobType};
use muster_manager::event::{Event, Exit, KillWhom, Request};
use muster_manager::state::ActiveState;
use muster_unit::UnitName;
use std::collections::BTreeMap;
use std::fmt::Write;

#[path = "text.rs"]
mod text;

const KINDS: [&str; 16] = [
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
    "JoinsNamespaceOf",
];
const TAME_KINDS: [&str; 4] = ["Requires", "Wants", "Before", "After"];

/// Sections `[Service]` of units.
const SERVICES: [&str; 30] = [
    "ExecStart=/bin/stay",
    "ExecStart=/bin/stay\nRestart=always\nRestartSec=1s",
    "ExecStart=/bin/stay\nRestart=on-failure\nExecReload=/bin/true",
    "ExecStart=/bin/stay\nRestart=always\nRestartMode=direct\nRestartSteps=3\nRestartMaxDelaySec=9s\n[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=1h\n[Service]",
    "Type=notify\nExecStart=/bin/ready\nExecReload=/bin/false",
    "Type=notify\nExecStart=/bin/stay\nTimeoutStartSec=5s\nRestart=on-failure",
    "Type=notify\nExecStart=/bin/late\nExecStartPost=/bin/slow\nWatchdogSec=8s",
    "Type=notify\nExecStart=/bin/twice",
    "Type=notify\nExecStart=/bin/liar\nNotifyAccess=main\nTimeoutStartSec=4s",
    "Type=notify\nExecStart=/bin/liar\nNotifyAccess=all",
    "Type=notify\nExecStart=/bin/dies\nRestart=always\nRestartSec=3s",
    "Type=notify\nExecStart=/bin/readyends",
    "Type=notify\nExecStart=/bin/readyfails\nExecStopPost=/bin/false",
    "Type=notify-reload\nExecStart=/bin/reloads",
    "Type=oneshot\nExecStart=/bin/true\nRemainAfterExit=yes\nExecStop=/bin/true",
    "Type=oneshot\nExecStart=/bin/true",
    "Type=oneshot\nExecStart=/bin/false",
    "Type=oneshot\nExecStart=/bin/slow\nExecStart=/bin/slow\nRemainAfterExit=yes",
    "Type=oneshot\nExecCondition=/bin/false\nExecStart=/bin/true",
    "Type=oneshot\nExecStart=/bin/stay\nTimeoutStartSec=20s",
    "Type=exec\nExecStart=/bin/stay\nExecStartPre=/bin/true\nExecStartPost=/bin/false",
    "Type=forking\nExecStart=/bin/fork",
    "Type=forking\nExecStart=/bin/forkloose\nTimeoutStopSec=3s\nGuessMainPID=no",
    "Type=forking\nPIDFile=/run/u.pid\nExecStart=/bin/fork\nTimeoutStartSec=6s",
    "ExecStart=/bin/orphan\nTimeoutStopSec=3s\nKillMode=mixed\nExecStopPost=/bin/slow",
    "ExecStart=/bin/brood\nKillMode=process\nTimeoutStopSec=3s",
    "ExecStart=/bin/stubborn\nTimeoutStopSec=3s\nSendSIGKILL=no",
    "ExecStart=/bin/stubborn\nTimeoutStopSec=3s",
    "ExecStart=/bin/stay\nExecStop=/bin/stay\nTimeoutStopSec=4s\nRuntimeMaxSec=30s",
    "ExecStart=/bin/nospawn\nRestart=always\nRestartSec=2s",
];
const PLAIN: &str = "[Service]\nExecStart=/bin/stay";
/// What a step of a start can fail in.
const FAILING: [&str; 6] =
    ["ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecStop", "ExecStopPost"];

/// What a process says.
const WORDS: [&str; 5] =
    ["READY=1", "STOPPING=1", "RELOADING=1", "WATCHDOG=trigger", "EXTEND_TIMEOUT_USEC=9000000"];

/// A scenario that loops takes long to fail.
const SHRINKING_RUNS_MAX: usize = 250;

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Services and targets with every kind of dependency.
    Services,
    /// The same with sockets in front, traffic on them, and descriptors to keep.
    Sockets,
    /// The same with timers and paths, and clocks that jump.
    Triggers,
    /// Services that only require, want and order.
    Requires,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Strategy; 4] =
        [Strategy::Services, Strategy::Sockets, Strategy::Triggers, Strategy::Requires];
}

/// A unit.
#[derive(Clone, Debug)]
struct Unit {
    name: String,
    /// Lines of `[Unit]` besides.
    head: String,
    /// The sections but `[Unit]`.
    body: String,
    /// Kind of dependency and place of the other unit.
    edges: Vec<(&'static str, usize)>,
}

/// What happens; units by their place.
#[derive(Clone, Debug)]
enum Act {
    Ask(usize, JobType, JobMode),
    End(usize, i32),
    Kill(usize, i32),
    Say(usize, &'static str),
    Wait(u64),
    Leap(u64),
    SetClock(i64),
    Reload,
    CancelAll,
    CancelOne(usize),
    ResetFailed(usize),
    /// A client keeps a unit loaded, or lets go of it.
    Hold(usize, bool),
    /// This many clients connect to a socket at once.
    Connect(usize, usize),
    /// A service hands over a descriptor to keep.
    Store(usize),
    /// The process of a connection ends.
    EndConnection,
    /// The path of a path unit holds.
    Touch(usize),
    /// Comes this many events later.
    Interrupt(u64, Interruption),
}

/// An act, and how many events are delivered before the next one; without a number, all that come.
#[derive(Clone, Debug)]
struct Step {
    act: Act,
    pace: Option<usize>,
}

/// Units, and what happens to them.
#[derive(Clone, Debug)]
pub struct Scenario {
    seed: u64,
    strategy: Strategy,
    units: Vec<Unit>,
    /// Units that nobody asks for by place: templates.
    others: Vec<(String, String)>,
    steps: Vec<Step>,
}

/// What a run came to.
pub struct Ran {
    /// How many events there were.
    pub events: u64,
    /// Every effect, where it was asked for.
    pub trace: Vec<String>,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64, strategy: Strategy) -> Scenario {
        let mut dice = Dice::new(seed, 0x9E37_79B9_7F4A_7C15 ^ ((strategy as u64) << 32));
        let mut scenario =
            Scenario { seed, strategy, units: Vec::new(), others: Vec::new(), steps: Vec::new() };
        let services = 2 + dice.below(5);
        (0..services).for_each(|place| scenario.units.push(service(&mut dice, place, strategy)));
        match strategy {
            Strategy::Sockets => scenario.add_sockets(&mut dice, services),
            Strategy::Triggers => scenario.add_triggers(&mut dice, services),
            Strategy::Services => {
                for place in 0..dice.below(3) {
                    scenario.units.push(plain_unit(format!("t{place}.target"), String::new()));
                }
            }
            Strategy::Requires => {}
        }
        scenario.add_edges(&mut dice);
        let steps = 4 + dice.below(16);
        (0..steps).for_each(|_| {
            let act = scenario.act(&mut dice);
            let quick = strategy != Strategy::Requires && dice.once_in(3);
            let pace = quick.then(|| dice.below(8));
            scenario.steps.push(Step { act, pace });
        });
        scenario
    }

    fn add_edges(&mut self, dice: &mut Dice) {
        let count = self.units.len();
        let kinds: &[&'static str] = if self.strategy == Strategy::Requires { &TAME_KINDS } else { &KINDS };
        for unit in &mut self.units {
            for _ in 0..dice.below(4) {
                let (kind, other) = (dice.of(kinds), dice.below(count));
                unit.edges.push((kind, other));
                // What conflicts, binds or requires is mostly ordered, too.
                if dice.once_in(2) && !kind.ends_with("fore") && !kind.ends_with("fter") {
                    unit.edges.push((dice.of(&["After", "After", "Before"]), other));
                }
            }
        }
    }

    fn add_sockets(&mut self, dice: &mut Dice, services: usize) {
        for unit in &mut self.units {
            unit.body += "\nNotifyAccess=all\nFileDescriptorStoreMax=";
            unit.body += dice.of(&["0", "2", "2\nFileDescriptorStorePreserve=yes"]);
        }
        for place in 0..1 + dice.below(3) {
            let more = dice.of(&[
                "",
                "ExecStartPre=/bin/true\nExecStopPost=/bin/true\n",
                "ExecStartPost=/bin/false\n",
                "ExecStopPre=/bin/stubborn\nTimeoutSec=3s\n",
                "ExecStartPre=/bin/noexec\n",
                "TriggerLimitBurst=2\n",
                "PollLimitBurst=2\nPollLimitIntervalSec=5s\n",
                "DeferTrigger=yes\n",
                "FlushPending=yes\nRemoveOnStop=yes\nListenStream=/run/more\n",
                "ListenStream=/run/more\nListenStream=/run/most\n",
            ]);
            let listen = format!("[Socket]\nListenStream=/run/s{place}\n{more}");
            if dice.once_in(2) {
                let body = format!("{listen}Service={}\n", self.units[dice.below(services)].name);
                self.units.push(plain_unit(format!("s{place}.socket"), body));
                continue;
            }
            let limit = dice.of(&["MaxConnections=2\n", "MaxConnectionsPerSource=1\n", ""]);
            let served = dice.of(&[
                "ExecStart=/bin/stay",
                "Type=oneshot\nExecStart=/bin/true",
                "Type=oneshot\nExecStart=/bin/slow",
                "Type=oneshot\nExecStart=/bin/false",
                "ExecStart=/bin/nospawn",
                "ExecStart=/bin/noexec",
                "ExecStart=/bin/stay\nRestart=on-failure",
                "ExecStart=/bin/stubborn\nTimeoutStopSec=2s",
            ]);
            self.units.push(plain_unit(format!("s{place}.socket"), format!("{listen}Accept=yes\n{limit}")));
            self.others.push((format!("s{place}@.service"), format!("[Service]\n{served}\n")));
        }
    }

    fn add_triggers(&mut self, dice: &mut Dice, services: usize) {
        for place in 0..1 + dice.below(2) {
            let when = dice.of(&[
                "OnActiveSec=2s",
                "OnActiveSec=1s\nOnUnitInactiveSec=7s",
                "OnUnitActiveSec=20s\nOnBootSec=1s",
                "OnCalendar=*:*:00",
                "OnCalendar=hourly\nPersistent=yes\nRandomizedDelaySec=10",
                "OnClockChange=yes\nOnActiveSec=1h",
                "OnActiveSec=1s\nRemainAfterElapse=no",
            ]);
            let body = format!("[Timer]\n{when}\nUnit={}\n", self.units[dice.below(services)].name);
            self.units.push(plain_unit(format!("c{place}.timer"), body));
        }
        for place in 0..dice.below(3) {
            let limit = dice.of(&["", "TriggerLimitBurst=2\n"]);
            let body = format!(
                "[Path]\nPathExists=/run/p{place}\n{limit}Unit={}\n",
                self.units[dice.below(services)].name
            );
            self.units.push(plain_unit(format!("p{place}.path"), body));
        }
    }

    /// What happens next.
    fn act(&self, dice: &mut Dice) -> Act {
        let unit = dice.below(self.units.len());
        if self.strategy == Strategy::Requires {
            return match dice.below(10) {
                0..=4 => Act::Ask(
                    unit,
                    dice.of(&[JobType::Start, JobType::Start, JobType::Stop]),
                    JobMode::Replace,
                ),
                5..=8 => Act::End(unit, dice.of(&[0, 1, -9])),
                _ => Act::Wait(1_500_000),
            };
        }
        match dice.below(24) {
            0..=8 => self.ask(dice, unit),
            9..=11 => Act::End(unit, dice.of(&[0, 1, -9, -11])),
            12 => Act::Kill(unit, dice.of(&[1, 9, 10, 15])),
            13 => Act::Say(unit, dice.of(&WORDS)),
            14..=15 => Act::Wait(dice.of(&[100_000, 1_500_000, 6_000_000, 40_000_000])),
            16 => Act::Leap(dice.of(&[1_500_000, 100_000_000])),
            17 => Act::Reload,
            18 => dice.of(&[&Act::CancelAll, &Act::CancelOne(unit), &Act::CancelOne(unit)]).clone(),
            19 => {
                dice.of(&[&Act::ResetFailed(unit), &Act::Hold(unit, true), &Act::Hold(unit, false)]).clone()
            }
            20 => Act::Interrupt(
                dice.below(30) as u64,
                dice.of(&[
                    Interruption::Reexec,
                    Interruption::Reexec,
                    Interruption::Reexec,
                    Interruption::Reload,
                    Interruption::Crash,
                ]),
            ),
            _ => self.special(dice, unit),
        }
    }

    fn ask(&self, dice: &mut Dice, unit: usize) -> Act {
        let kind = dice.of(&[
            JobType::Start,
            JobType::Start,
            JobType::Start,
            JobType::Start,
            JobType::Stop,
            JobType::Stop,
            JobType::Restart,
            JobType::TryRestart,
            JobType::Reload,
            JobType::ReloadOrStart,
        ]);
        let mode = dice.of(&[
            JobMode::Replace,
            JobMode::Replace,
            JobMode::Replace,
            JobMode::Replace,
            JobMode::Replace,
            JobMode::Fail,
            JobMode::Lenient,
            JobMode::Flush,
            JobMode::Isolate,
            JobMode::IgnoreDependencies,
            JobMode::IgnoreRequirements,
            JobMode::Triggering,
            JobMode::RestartDependencies,
            JobMode::ReplaceIrreversibly,
        ]);
        Act::Ask(unit, kind, mode)
    }

    /// What is the strategy's own.
    fn special(&self, dice: &mut Dice, unit: usize) -> Act {
        let of_type = |suffix: &str, dice: &mut Dice| {
            let all: Vec<usize> =
                (0..self.units.len()).filter(|place| self.units[*place].name.ends_with(suffix)).collect();
            if all.is_empty() { unit } else { dice.of(&all) }
        };
        match (self.strategy, dice.below(4)) {
            (Strategy::Sockets, 0..=1) => Act::Connect(of_type(".socket", dice), dice.of(&[1, 1, 1, 5, 40])),
            (Strategy::Sockets, 2) => Act::Store(unit),
            (Strategy::Sockets, _) => {
                let start = Act::Ask(of_type(".socket", dice), JobType::Start, JobMode::Replace);
                dice.of(&[&Act::EndConnection, &start]).clone()
            }
            (Strategy::Triggers, 0) => {
                Act::SetClock(dice.of(&[-3_600_000_000, -1_000_000, 1_000_000, 7_200_000_000]))
            }
            (Strategy::Triggers, 1) => Act::Touch(of_type(".path", dice)),
            (Strategy::Triggers, _) => {
                let place = if dice.once_in(2) { of_type(".timer", dice) } else { of_type(".path", dice) };
                Act::Ask(place, JobType::Start, JobMode::Replace)
            }
            _ => Act::Ask(unit, JobType::Start, JobMode::Replace),
        }
    }

    /// The unit files.
    fn files(&self) -> Vec<(String, String)> {
        let own = self.units.iter().map(|unit| {
            let mut text = String::new();
            if !(unit.head.is_empty() && unit.edges.is_empty()) {
                let _ = write!(text, "[Unit]\n{}", unit.head);
            }
            for (kind, other) in &unit.edges {
                let _ = writeln!(text, "{kind}={}", self.units[*other].name);
            }
            let _ = writeln!(text, "{}", unit.body);
            (unit.name.clone(), text)
        });
        own.chain(self.others.iter().cloned()).collect()
    }

    /// Runs it: what is broken, or what it came to.
    ///
    /// # Errors
    ///
    /// The first invariant that did not hold.
    pub fn run(&self, tracing: bool, hand_over: bool) -> Result<Ran, String> {
        let mut world = self.world();
        (world.tracing, world.hand_over) = (tracing, hand_over);
        self.run_in(&mut world)?;
        Ok(Ran { events: world.events, trace: world.trace })
    }

    /// Every effect of a run, to look at, and what is broken.
    pub fn shown(&self) -> (Vec<String>, Option<String>) {
        let mut world = self.world();
        world.tracing = true;
        let broken = self.run_in(&mut world).err();
        (world.trace, broken)
    }

    fn world(&self) -> World {
        let files = self.files();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let mut world = World::new(Files::new(&files), self.seed);
        world.tracing = false;
        world
    }

    fn run_in(&self, world: &mut World) -> Result<(), String> {
        world.boot();
        let mut crashed = false;
        for Step { act, pace } in &self.steps {
            let before = self.states(world);
            self.perform(world, act);
            crashed |= matches!(act, Act::Interrupt(_, Interruption::Crash));
            match pace {
                Some(events) => world.run(*events),
                None => {
                    world.settle();
                    self.check(world, crashed)?;
                    self.check_bystanders(world, act, &before)?;
                }
            }
            first(&world.faults)?;
        }
        for _ in 0..8 {
            world.leap(100_000_000);
        }
        self.check(world, crashed)?;
        first(&world.faults)?;
        let jobs = &world.manager().state().jobs;
        let old = |job: &Job| {
            let begun_usec = job.queued_usec.max(job.begun_usec);
            job.kind != JobType::VerifyActive && begun_usec + 500_000_000 < world.now_usec()
        };
        let stays = |job: &&Job| {
            let chain = std::iter::successors(Some(*job), |job| jobs.of(job.waits_at?));
            chain.take(jobs.len()).all(old)
        };
        let left: Vec<String> = jobs.values().filter(stays).map(|job| format!("{job:?}")).collect();
        first(&left).map_err(|job| format!("an old job is left: {job}"))
    }

    fn unit_name(&self, place: usize) -> UnitName {
        self.units[place].name.parse().unwrap_or_else(|_| UnitName::root_slice())
    }

    fn perform(&self, world: &mut World, act: &Act) {
        let name = |place: usize| self.units[place].name.as_str();
        match *act {
            Act::Ask(place, kind, mode) => {
                let spares = matches!(mode, JobMode::Fail | JobMode::Lenient);
                if spares || matches!(mode, JobMode::IgnoreDependencies | JobMode::IgnoreRequirements) {
                    world.ledger().relax();
                }
                let unit = self.unit_name(place);
                world.send(Request::EnqueueJob { unit, kind, mode, reload_if_possible: false });
            }
            Act::End(place, how) => {
                let exit = if how < 0 { Exit::Killed(-how) } else { Exit::Exited(how) };
                world.end_one_of(name(place), exit);
            }
            Act::Kill(place, signal) => {
                let unit = self.unit_name(place);
                world.send(Request::Kill { unit, whom: KillWhom::All, signal, value: None });
            }
            Act::Say(place, word) => {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                world.say_as(name(place), &[(key, value)]);
            }
            Act::Wait(usec) => world.wait(usec),
            Act::Leap(usec) => world.leap(usec),
            Act::SetClock(by) => world.set_clock(by),
            Act::Reload => world.send(Request::Reload),
            Act::CancelAll => world.send(Request::ClearJobs),
            Act::CancelOne(place) => {
                let unit = world.manager().unit(&self.unit_name(place));
                let job = unit.and_then(|unit| world.manager().state().jobs.of(unit.id)).map(|job| job.id.0);
                world.send(Request::CancelJob { job: job.unwrap_or(0) });
            }
            Act::ResetFailed(place) => {
                world.send(Request::ResetFailed { unit: Some(self.unit_name(place)) });
            }
            Act::Hold(place, add) => world.send(Request::Reference { unit: self.unit_name(place), add }),
            Act::Connect(place, count) => (0..count).for_each(|_| {
                world.connect(name(place));
            }),
            Act::Store(place) => world.store(name(place)),
            Act::EndConnection => {
                let services = world.manager().state().units.values();
                let served = services.map(|unit| unit.name.to_string()).find(|name| name.contains('@'));
                served.into_iter().for_each(|served| {
                    world.end_one_of(&served, Exit::Exited(0));
                });
            }
            Act::Touch(place) => {
                let (unit, path) = (self.unit_name(place), "/run/p".to_owned());
                world.happen(Event::PathTriggered { unit, path });
            }
            Act::Interrupt(after, what) => world.interrupt_after(after, what),
        }
    }

    fn states(&self, world: &World) -> BTreeMap<String, ActiveState> {
        if self.strategy != Strategy::Requires {
            return BTreeMap::new();
        }
        let units = self.units.iter().filter_map(|unit| world.manager().unit(&unit.name.parse().ok()?));
        units.map(|unit| (unit.name.to_string(), unit.active_state())).collect()
    }

    /// The end of a process is felt by its own unit alone.
    fn check_bystanders(
        &self,
        world: &World,
        act: &Act,
        before: &BTreeMap<String, ActiveState>,
    ) -> Result<(), String> {
        let Act::End(place, _) = act else { return Ok(()) };
        let own = self.units[*place].name.as_str();
        // A start that hangs on the process may go on or fall with it.
        let waits = |state: &ActiveState| {
            !matches!(state, ActiveState::Active | ActiveState::Inactive | ActiveState::Failed)
        };
        if self.strategy != Strategy::Requires || before.values().any(waits) {
            return Ok(());
        }
        let after = self.states(world);
        let differs = |(name, state): &(&String, &ActiveState)| {
            name.as_str() != own && after.get(*name).is_some_and(|after| after != *state)
        };
        match before.iter().find(differs) {
            Some((name, state)) => {
                Err(format!("{own} ended by itself, and {name} is not {} any more", state.as_str()))
            }
            None => Ok(()),
        }
    }

    fn check(&self, world: &World, crashed: bool) -> Result<(), String> {
        first(&world.faults)?;
        let manager = world.manager();
        let state = manager.state();
        if state.jobs.has_ready() {
            return Err("jobs are ready at rest".to_owned());
        }
        if !world.strays().is_empty() {
            return Err(format!("descriptors are nobody's, or not open: {:?}", world.strays()));
        }
        let down = |state| matches!(state, ActiveState::Inactive | ActiveState::Failed);
        for own in &self.units {
            let Some(unit) = own.name.parse().ok().and_then(|name| manager.unit(&name)) else { continue };
            let spared = own.body.contains("KillMode=process") || own.body.contains("SendSIGKILL=no");
            if down(unit.active_state()) && !spared && !crashed && world.runs_in(&own.name) {
                return Err(format!("{} is down, and something runs in its cgroup", unit.name));
            }
            let idle = |id| state.jobs.of(id).is_none();
            for other in state.graph.of(unit.id, Dependency::BindsTo) {
                let gone = manager.unit_by_id(other).is_none_or(|other| down(other.active_state()));
                let rests = state.wishes.get(&unit.id).is_some_and(|wishes| wishes.retry_usec.is_some());
                let active = unit.active_state() == ActiveState::Active;
                if active && gone && idle(other) && idle(unit.id) && !rests {
                    return Err(format!("{} is active without what it is bound to", unit.name));
                }
            }
            if world.is_stopped(&own.name) && unit.sub_state().starts_with("auto-restart") {
                return Err(format!("{} was stopped, and comes back by itself", unit.name));
            }
        }
        Ok(())
    }

    /// Everything that can be left out while the scenario still fails is left out.
    #[must_use]
    pub fn shrunk(mut self) -> Scenario {
        let mut runs = 0;
        let mut fails = |scenario: &Scenario| {
            runs += 1;
            runs < SHRINKING_RUNS_MAX && scenario.run(false, false).is_err()
        };
        while let Some(less) = self.smaller().into_iter().find(&mut fails) {
            self = less;
        }
        self
    }

    /// The scenario with one thing left out.
    fn smaller(&self) -> Vec<Scenario> {
        let with = |change: &dyn Fn(&mut Scenario)| {
            let mut less = self.clone();
            change(&mut less);
            less
        };
        let mut smaller = Vec::new();
        let count = self.steps.len();
        let halves = (count > 5).then_some([0..count / 2, count / 2..count]).into_iter().flatten();
        smaller.extend(halves.map(|range| with(&|less| drop(less.steps.drain(range.clone())))));
        smaller.extend((0..count).rev().map(|at| {
            with(&|less| {
                less.steps.remove(at);
            })
        }));
        for place in 0..self.units.len() {
            let unit = &self.units[place];
            let edges = 0..unit.edges.len();
            smaller.extend(edges.map(|edge| {
                with(&|less| {
                    less.units[place].edges.remove(edge);
                })
            }));
            if !unit.head.is_empty() {
                smaller.push(with(&|less| less.units[place].head.clear()));
            }
            if unit.name.ends_with(".service") && unit.body != PLAIN {
                smaller.push(with(&|less| less.units[place].body = PLAIN.to_owned()));
            }
        }
        let hasty = (0..count).filter(|at| self.steps[*at].pace.is_some());
        smaller.extend(hasty.map(|at| with(&|less| less.steps[at].pace = None)));
        smaller
    }
}

fn plain_unit(name: String, body: String) -> Unit {
    Unit { name, head: String::new(), body, edges: Vec::new() }
}

fn service(dice: &mut Dice, place: usize, strategy: Strategy) -> Unit {
    let name = format!("u{place}.service");
    if strategy == Strategy::Requires {
        let body = dice.of(&[
            "ExecStart=/bin/stay",
            "Type=notify\nExecStart=/bin/ready",
            "Type=exec\nExecStart=/bin/brood",
        ]);
        return plain_unit(name, format!("[Service]\n{body}"));
    }
    let mut body = format!("[Service]\n{}", dice.of(&SERVICES));
    if dice.once_in(6) {
        let _ = write!(
            body,
            "\n{}=/bin/{}",
            dice.of(&FAILING),
            dice.of(&["noexec", "nospawn", "false", "slowfail"])
        );
    }
    let head = match dice.below(12) {
        0 => "ConditionPathExists=/x\n",
        1 => "AssertPathExists=/x\n",
        2 => "StopWhenUnneeded=yes\n",
        3 => "JobTimeoutSec=7s\n",
        4 => "JobRunningTimeoutSec=3s\n",
        5 => "StartLimitBurst=2\nStartLimitIntervalSec=20s\n",
        6 => "CollectMode=inactive-or-failed\nAllowIsolate=yes\n",
        7 => "IgnoreOnIsolate=yes\nOnFailureJobMode=fail\n",
        _ => "",
    };
    Unit { head: head.to_owned(), ..plain_unit(name, body) }
}

fn first(faults: &[String]) -> Result<(), String> {
    faults.first().map_or(Ok(()), |fault| Err(fault.clone()))
}

/// Of each this many seeds one is run three times by [`hold`], unless more is wanted.
pub const TWICE: u64 = 8;

/// Runs the scenario of a seed; of one in `twice` also that another run, and one with the state taken out and in after every
/// event (which takes twenty times as long), have the same effects. The number of events.
///
/// # Errors
///
/// What is broken, with the seed and the shrunk scenario.
pub fn hold(seed: u64, strategy: Strategy, twice: u64) -> Result<u64, String> {
    let scenario = Scenario::new(seed, strategy);
    let again = seed.is_multiple_of(twice);
    let ran = scenario.run(again, false).map_err(|fault| {
        let less = scenario.clone().shrunk();
        let now = less.run(false, false).err().unwrap_or_default();
        format!("seed {seed} {strategy:?}: {fault}\nshrunk: {now}\n{}", less.text())
    })?;
    if again {
        let other = scenario.run(true, false).map(|ran| ran.trace).unwrap_or_default();
        if other != ran.trace {
            return Err(format!("seed {seed} {strategy:?}: another run, another trace"));
        }
        let handed = scenario.run(true, true).map_err(|fault| {
            format!("seed {seed} {strategy:?}, handed over: {fault}\n{}", scenario.text())
        })?;
        if handed.trace != ran.trace {
            let at = ran.trace.iter().zip(&handed.trace).take_while(|(one, other)| one == other).count();
            let around = |trace: &[String]| {
                let lines = trace.iter().skip(at.saturating_sub(6)).take(8);
                lines.map(|line| format!("    {line}\n")).collect::<String>()
            };
            return Err(format!(
                "seed {seed} {strategy:?}, handed over: from effect {at} on another trace: without it\n{}with it\n{}{}",
                around(&ran.trace),
                around(&handed.trace),
                scenario.text()
            ));
        }
    }
    Ok(ran.events)
}
