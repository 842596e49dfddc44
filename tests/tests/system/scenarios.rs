//! Generated scenarios: small sets of units and commands, each run under systemd and under muster, and compared.
//!
//! `cargo xtask scenarios --count N` runs N of them; a fixed few are part of the tests. Two containers are booted, one under
//! each init, with the units of a batch of scenarios in both; a scenario goes through its commands, and is looked at whenever
//! it came to rest. A scenario is its seed: the same number gives the same units and commands.
//!
//! What must agree, at each rest: the exit status of the command; of each unit, its state, sub-state and result, whether it
//! has a job, how often it was restarted, and what its commands wrote since the rest before, in order (each says its unit,
//! its list, and in `ExecStopPost=` the result); of two units that are ordered, what both wrote, in order. At the end, of each
//! unit, the results of its jobs as the journal has them.
//!
//! Nothing depends on how long things take: what is slow waits at a gate, which a command opens. A scenario that differs is
//! run once more, with more patience, before it counts; those that are known to differ are left out, with the reason. What systemd did is kept in `target/scenarios`, by the text of the
//! scenario, so that it is asked once.

use crate::ground::{Ground, Init, basic, booted};
use crate::{Case, Outcome};
use anyhow::{Context, Result, bail, ensure};
use muster_tests::{Container, paths};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How many are part of the tests.
const FEW: u64 = 20;
/// How many scenarios share one container.
const BATCH: u64 = 60;
/// What does not come to rest within this time is restless.
const REST_LIMIT: Duration = Duration::from_secs(12);
const O_NONBLOCK: i32 = 0o4000;

/// What the commands of units are: log, unit, list, and what to do.
const ACTOR: &str = r#"#!/bin/sh
echo "$2 $3${SERVICE_RESULT:+ $SERVICE_RESULT}" >>/run/sc/$1
gate() {
    mkfifo -m 600 /run/sc/gate-$1 2>/dev/null
    echo $$ >/run/sc/at-$1
    read x </run/sc/gate-$1
    rm -f /run/sc/at-$1
}
case $4 in
fail) exit 1 ;;
stay) exec sleep 1000 ;;
ready) systemd-notify --ready; exec sleep 1000 ;;
fork) sleep 1000 & exit 0 ;;
stubborn) trap '' TERM; systemd-notify --ready; while :; do sleep 1000; done ;;
gate) gate $2 ;;
gatefail) gate $2; exit 1 ;;
esac
exit 0
"#;

/// Sections `[Service]`; `{LIST:DO}` is the actor in that list.
const BODIES: [&str; 22] = [
    "ExecStart={start:stay}",
    "Type=exec\nExecStart={start:stay}\nExecStop={stop:ok}",
    "Type=exec\nExecStart={start:stay}\nExecReload={reload:ok}",
    "Type=exec\nExecStart={start:stay}\nExecReload={reload:fail}\nExecStop={stop:fail}",
    "Type=exec\nExecStart={start:stay}\nRestart=on-failure\nRestartSec=50ms",
    "Type=exec\nExecStart={start:stay}\nRestart=always\nRestartSec=50ms\nRestartMode=direct",
    "Type=notify\nNotifyAccess=all\nExecStart={start:ready}\nExecStartPost={start-post:ok}",
    "Type=notify\nExecStart={start:ok}",
    "Type=oneshot\nRemainAfterExit=yes\nExecStart={start:ok}\nExecStop={stop:ok}",
    "Type=oneshot\nRemainAfterExit=yes\nExecStart={start:ok}",
    "Type=oneshot\nExecStart={start:ok}\nExecStart={start2:ok}",
    "Type=oneshot\nExecStart={start:fail}",
    "Type=oneshot\nRemainAfterExit=yes\nExecStart={start:gate}",
    "Type=oneshot\nRemainAfterExit=yes\nExecStart={start:gate}\nExecStop={stop:ok}",
    "Type=oneshot\nExecStart={start:gatefail}",
    "Type=exec\nExecStartPre={start-pre:gate}\nExecStart={start:stay}",
    "Type=exec\nExecStartPre={start-pre:fail}\nExecStart={start:stay}",
    "Type=exec\nExecStart={start:stay}\nExecStartPost={start-post:fail}",
    "Type=exec\nExecStart={start:stay}\nExecStop={stop:gate}",
    "Type=oneshot\nRemainAfterExit=yes\nExecCondition={condition:fail}\nExecStart={start:ok}",
    "Type=forking\nExecStart={start:fork}",
    // Ready when it hears no TERM any more.
    "Type=notify\nNotifyAccess=all\nExecStart={start:stubborn}\nTimeoutStopSec=200ms",
];
/// The first of them, this many, stay up by themselves, so that something may uphold them.
const STAYING: usize = 4;

const KINDS: [&str; 19] = [
    "Requires",
    "Requires",
    "Requires",
    "Requisite",
    "Wants",
    "Wants",
    "BindsTo",
    "BindsTo",
    "PartOf",
    "Conflicts",
    "Conflicts",
    "After",
    "Before",
    "OnFailure",
    "OnSuccess",
    "PropagatesReloadTo",
    "PropagatesStopTo",
    "StopPropagatedFrom",
    "Upholds",
];
const HEADS: [&str; 10] = [
    "",
    "",
    "",
    "",
    "",
    "",
    "ConditionPathExists=/nope\n",
    "AssertPathExists=/nope\n",
    "StopWhenUnneeded=yes\n",
    "OnFailureJobMode=fail\nCollectMode=inactive-or-failed\n",
];
const VERBS: [&str; 12] = [
    "start",
    "start",
    "start",
    "start",
    "start",
    "stop",
    "stop",
    "restart",
    "restart",
    "try-restart",
    "reload",
    "reload-or-restart",
];
const MODES: [&str; 12] = [
    "replace",
    "replace",
    "replace",
    "replace",
    "replace",
    "replace",
    "replace",
    "fail",
    "fail",
    "ignore-requirements",
    "ignore-dependencies",
    "replace-irreversibly",
];

const BOTH_WAYS: &str =
    "a restart among units that are ordered in a circle: waits for ever under systemd (docs/differences.md)";
const ASKED: &str = "a unit that is not ordered begins while a helper looks at a condition of what it requires (docs/differences.md)";
const UNNEEDED: &str =
    "what is started and at once not needed is stopped before its command writes anything; chance under both";
const CYCLE: &str =
    "a cycle in which either job may give way: chance under systemd, a rule here (docs/differences.md)";
/// Scenarios that are left out, with the reason why they differ.
const DIFFERENT: [(u64, &str); 21] = [
    (125, "two units go down at once by the failure of one; which process dies first is chance under both"),
    (141, BOTH_WAYS),
    (176, BOTH_WAYS),
    (183, BOTH_WAYS),
    (185, BOTH_WAYS),
    (212, BOTH_WAYS),
    (230, BOTH_WAYS),
    (255, BOTH_WAYS),
    (250, ASKED),
    (259, CYCLE),
    (303, BOTH_WAYS),
    (
        325,
        "a stop of what is down already closes no cycle here; under systemd the request is refused (docs/differences.md)",
    ),
    (348, UNNEEDED),
    (350, BOTH_WAYS),
    (370, UNNEEDED),
    (372, ASKED),
    (380, "the two commands of Type=exec write at the same time; chance under both"),
    (384, "a stop and a start of two units without order; chance under both"),
    (391, BOTH_WAYS),
    (
        395,
        "a unit whose start fails at once, while another that is bound to it is up, takes that down here (docs/differences.md)",
    ),
    (195, UNNEEDED),
];

struct Dice(u64);

impl Dice {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % below as u64) as usize
    }
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

enum Step {
    Systemctl(Vec<String>),
    /// What waits at the gate of a unit goes on.
    Open(String),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Systemctl(words) => write!(f, "systemctl {}", words.join(" ")),
            Step::Open(unit) => write!(f, "the gate of {unit} opens"),
        }
    }
}

struct Scenario {
    number: u64,
    /// Names and files.
    units: Vec<(String, String)>,
    /// Units that are ordered.
    ordered: Vec<(usize, usize)>,
    steps: Vec<Step>,
}

impl Scenario {
    fn new(number: u64) -> Scenario {
        let mut dice = Dice(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let count = 2 + dice.below(4);
        let target = dice.below(3) == 0;
        let mut names: Vec<String> =
            (b'a'..).take(count).map(|letter| format!("c{number}-{}.service", letter as char)).collect();
        if target {
            names.push(format!("c{number}-t.target"));
        }
        let picks: Vec<usize> = (0..count).map(|_| dice.below(BODIES.len())).collect();
        let (mut units, mut ordered) = (Vec::new(), Vec::new());
        for (place, name) in names.iter().enumerate() {
            let mut text =
                format!("[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=12\n{}", dice.of(&HEADS));
            for _ in 0..dice.below(4) {
                let (kind, other) = (dice.of(&KINDS), dice.below(names.len()));
                let lasts = picks.get(other).is_none_or(|pick| *pick < STAYING);
                if other == place || (kind == "Upholds" && !lasts) {
                    continue;
                }
                let _ = writeln!(text, "{kind}={}", names[other]);
                let order = dice.of(&["After", "After", "Before", ""]);
                let orders = matches!(kind, "After" | "Before");
                if !orders && !order.is_empty() {
                    let _ = writeln!(text, "{order}={}", names[other]);
                }
                if orders || !order.is_empty() {
                    ordered.push((place, other));
                }
            }
            match picks.get(place) {
                Some(pick) => text += &service(number, name, BODIES[*pick]),
                None => text += "AllowIsolate=yes\nRequires=basic.target\nAfter=basic.target\n",
            }
            units.push((name.clone(), text));
        }
        let steps = (0..4 + dice.below(5)).map(|_| step(&mut dice, &names)).collect();
        Scenario { number, units, ordered, steps }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.units.iter().map(|(name, _)| name.as_str())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, file) in &self.units {
            let _ = writeln!(text, "+ {name}\n    {}", file.trim_end().replace('\n', "\n    "));
        }
        for step in &self.steps {
            let _ = writeln!(text, "$ {step}");
        }
        text
    }

    /// Where systemd's answers are kept.
    fn memory(&self, looks: usize) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        (ACTOR, self.text(), looks).hash(&mut hasher);
        let name = format!("{}-{:016x}.json", self.number, hasher.finish());
        paths::target().join("scenarios").join(name)
    }

    fn remembered(&self, looks: usize) -> Option<Vec<Seen>> {
        serde_json::from_slice(&fs::read(self.memory(looks)).ok()?).ok()
    }
}

fn service(number: u64, name: &str, body: &str) -> String {
    let mut text = "[Service]\n".to_string();
    for line in body.lines().chain(["ExecStopPost={stop-post:ok}"]) {
        let filled = line.split_once('{').and_then(|(key, rest)| {
            let (list, act) = rest.strip_suffix('}')?.split_once(':')?;
            Some(format!("{key}/usr/lib/sc {number} {name} {list} {act}"))
        });
        let _ = writeln!(text, "{}", filled.as_deref().unwrap_or(line));
    }
    text
}

fn step(dice: &mut Dice, names: &[String]) -> Step {
    let name = names[dice.below(names.len())].clone();
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    match dice.below(12) {
        0..=6 => {
            let (verb, mode) = (dice.of(&VERBS), format!("--job-mode={}", dice.of(&MODES)));
            Step::Systemctl(words(&[verb, "--no-block", &mode, &name]))
        }
        7 => match names.last().filter(|name| name.ends_with(".target")) {
            Some(target) => Step::Systemctl(words(&["isolate", "--no-block", target])),
            None => Step::Systemctl(words(&["start", "--no-block", &name])),
        },
        8 => Step::Systemctl(words(&["kill", "-s", dice.of(&["TERM", "KILL", "USR1"]), &name])),
        9 => Step::Systemctl(words(&["reset-failed", &name])),
        _ => Step::Open(name),
    }
}

/// What is seen when a step came to rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    code: i32,
    /// What it said, for people.
    said: String,
    states: BTreeMap<String, String>,
    /// What the commands of units wrote.
    marks: Vec<String>,
    restless: bool,
    /// After the last step: the results of the jobs of each unit, as far as they are logged.
    jobs: BTreeMap<String, String>,
}

/// Of a unit, what `systemctl show` says, by property.
type Shown = BTreeMap<String, String>;

struct Stage<'a> {
    container: &'a Container,
    scenario: &'a Scenario,
    /// How many looks in a row must be the same.
    looks: usize,
    read: usize,
}

impl Stage<'_> {
    fn run(&mut self) -> Result<Vec<Seen>> {
        let mut all = Vec::new();
        for step in &self.scenario.steps {
            let (code, said) = self.act(step)?;
            let mut seen = self.rest()?;
            (seen.code, seen.said) = (code, said);
            all.push(seen);
        }
        if let Some(last) = all.last_mut() {
            last.jobs = self.jobs()?;
        }
        self.clean()?;
        Ok(all)
    }

    fn jobs(&self) -> Result<BTreeMap<String, String>> {
        let mut command =
            vec!["journalctl", "-q", "-b", "-o", "json", "--output-fields=UNIT,JOB_TYPE,JOB_RESULT"];
        let matches: Vec<String> = self.scenario.names().map(|name| format!("UNIT={name}")).collect();
        command.extend(matches.iter().map(String::as_str));
        self.container.exec(&["journalctl", "--sync"])?.ok()?;
        let mut jobs: BTreeMap<String, String> = BTreeMap::new();
        for record in self.container.exec(&command)?.ok()?.lines() {
            let fields = ["UNIT", "JOB_TYPE", "JOB_RESULT"].map(|key| field(record, key));
            if let [Some(unit), Some(kind), Some(result)] = fields {
                let _ = write!(jobs.entry(unit.to_string()).or_default(), "{kind} {result}, ");
            }
        }
        Ok(jobs)
    }

    fn act(&self, step: &Step) -> Result<(i32, String)> {
        match step {
            Step::Systemctl(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let output = self.container.exec(&[&["systemctl"], words.as_slice()].concat())?;
                Ok((output.code, output.stderr))
            }
            Step::Open(unit) => {
                let gate = self.path(&format!("gate-{unit}"));
                if self.path(&format!("at-{unit}")).exists() {
                    let gate = fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(gate);
                    if let Ok(mut gate) = gate {
                        gate.write_all(b"go\n")?;
                        // It is at the gate no longer when it was seen to pass.
                        let passed = Instant::now() + Duration::from_secs(10);
                        while self.path(&format!("at-{unit}")).exists() && Instant::now() < passed {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                }
                Ok((0, String::new()))
            }
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.container.root().join("run/sc").join(name)
    }

    fn rest(&mut self) -> Result<Seen> {
        let (begun, mut same, mut last) = (Instant::now(), 0, Vec::new());
        loop {
            let shown = self.show()?;
            same = if shown == last { same + 1 } else { 1 };
            let restless = begun.elapsed() > REST_LIMIT;
            if restless || (same >= self.looks && self.is_quiet(&shown)) {
                let states = shown.iter().map(|unit| (unit["Id"].clone(), state_of(unit))).collect();
                return Ok(Seen { states, marks: self.marks(), restless, ..Seen::default() });
            }
            last = shown;
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn show(&self) -> Result<Vec<Shown>> {
        let names: Vec<&str> = self.scenario.names().collect();
        let properties = "--property=Id,ActiveState,SubState,Result,Job,NRestarts";
        let output = self.container.exec(&[&["systemctl", "show", properties], names.as_slice()].concat())?;
        let shown: Vec<Shown> = (output.ok()?.split("\n\n"))
            .map(|block| {
                let pairs = block.lines().filter_map(|line| line.split_once('='));
                pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect()
            })
            .collect();
        ensure!(shown.len() == names.len() && shown.iter().all(|unit: &Shown| unit.contains_key("Id")));
        Ok(shown)
    }

    /// Nothing moves but what waits at a gate, and what waits for that.
    fn is_quiet(&self, shown: &[Shown]) -> bool {
        let moves = |unit: &&Shown| {
            matches!(unit["ActiveState"].as_str(), "activating" | "deactivating" | "reloading")
        };
        let at_gate = |unit: &Shown| self.is_at_gate(&unit["Id"]);
        let (waits, queued) = (shown.iter().any(at_gate), |unit: &Shown| job_of(unit) != "0");
        shown.iter().filter(moves).all(at_gate) && (waits || !shown.iter().any(queued))
    }

    fn is_at_gate(&self, unit: &str) -> bool {
        let pid = fs::read_to_string(self.path(&format!("at-{unit}"))).unwrap_or_default();
        !pid.trim().is_empty() && self.container.root().join("proc").join(pid.trim()).exists()
    }

    fn marks(&mut self) -> Vec<String> {
        let log = fs::read_to_string(self.path(&self.scenario.number.to_string())).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        let new = all.iter().skip(self.read).map(|line| line.to_string()).collect();
        self.read = all.len();
        new
    }

    /// Nothing of it is left to disturb the next one.
    fn clean(&self) -> Result<()> {
        let names: Vec<&str> = self.scenario.names().collect();
        // Jobs that nothing else replaces would be in the way of the next one.
        self.container.exec(&["systemctl", "cancel"])?;
        for words in [&["stop", "--no-block"][..], &["kill", "-s", "KILL"], &["reset-failed"]] {
            self.container.exec(&[&["systemctl"], words, names.as_slice()].concat())?;
        }
        fs::remove_file(self.path(&self.scenario.number.to_string())).or_else(|error| {
            match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }
        })?;
        Ok(())
    }
}

/// A string of a record of the journal.
fn field<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = record.split_once(&format!("\"{key}\":\""))?;
    rest.split('"').next()
}

fn job_of(unit: &Shown) -> &str {
    unit.get("Job").map_or("0", |job| if job.is_empty() { "0" } else { job })
}

fn state_of(unit: &Shown) -> String {
    let get = |key: &str| unit.get(key).map_or("", String::as_str);
    let job = if job_of(unit) == "0" { "" } else { ", with a job" };
    format!("{} ({}) {} {}{job}", get("ActiveState"), get("SubState"), get("Result"), get("NRestarts"))
}

/// What differs between two runs of a scenario, each with what was seen under systemd and under muster.
fn differences(scenario: &Scenario, theirs: &[Seen], ours: &[Seen]) -> Vec<String> {
    let mut all = Vec::new();
    for ((step, theirs), ours) in scenario.steps.iter().zip(theirs).zip(ours) {
        let mut differ = |what: &str, theirs: String, ours: String| {
            if theirs != ours {
                all.push(format!("after '{step}', {what}:\n  systemd {theirs}\n  muster  {ours}"));
            }
        };
        // Whether these find a unit that is down depends on when that was last collected.
        let finds = |verb: &String| verb == "kill" || verb == "reset-failed";
        if !matches!(step, Step::Systemctl(words) if words.first().is_some_and(finds)) {
            differ("status", theirs.code.to_string(), ours.code.to_string());
        }
        differ("rest", (!theirs.restless).to_string(), (!ours.restless).to_string());
        // systemd kills by cgroup.kill, and newer kernels then kill what is started in the cgroup next: ExecStopPost=.
        let killed = |mark: &&String| {
            matches!(step, Step::Systemctl(words) if words.iter().any(|word| word == "KILL")
                && words.last().is_some_and(|unit| mark.starts_with(&format!("{unit} stop-post"))))
        };
        let marks = |seen: &Seen| -> Vec<String> {
            seen.marks.iter().filter(|mark| !killed(mark)).cloned().collect()
        };
        let (their_marks, our_marks) = (marks(theirs), marks(ours));
        for (unit, state) in &theirs.states {
            differ(unit, state.clone(), ours.states.get(unit).cloned().unwrap_or_default());
        }
        for unit in scenario.names() {
            let jobs = |seen: &Seen| seen.jobs.get(unit).cloned().unwrap_or_default();
            differ(&format!("jobs of {unit}"), jobs(theirs), jobs(ours));
            differ(&format!("commands of {unit}"), of(&their_marks, &[unit]), of(&our_marks, &[unit]));
        }
        let pairs: BTreeSet<_> = scenario.ordered.iter().collect();
        for (one, other) in pairs {
            let pair = [scenario.units[*one].0.as_str(), scenario.units[*other].0.as_str()];
            let what = format!("order of {} and {}", pair[0], pair[1]);
            differ(&what, of(&their_marks, &pair), of(&our_marks, &pair));
        }
        if !all.is_empty() {
            break;
        }
    }
    all
}

/// The marks of some units, in order.
fn of(marks: &[String], units: &[&str]) -> String {
    let is_of = |mark: &&String| units.iter().any(|unit| mark.split(' ').next() == Some(unit));
    marks.iter().filter(is_of).map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A container with the units of these scenarios.
fn container(ground: &Ground, init: Init, scenarios: &[&Scenario]) -> Result<Container> {
    let mut builder = basic(ground.debian_under(init)).file("usr/lib/sc", ACTOR);
    for (name, text) in scenarios.iter().flat_map(|scenario| &scenario.units) {
        builder = builder.file(&format!("etc/systemd/system/{name}"), text);
    }
    let container = booted(builder)?;
    container.sh("mkdir -p /run/sc")?.ok()?;
    Ok(container)
}

/// What was seen of each scenario.
fn run(ground: &Ground, init: Init, scenarios: &[&Scenario], looks: usize) -> Result<Vec<Vec<Seen>>> {
    let container = container(ground, init, scenarios)?;
    let mut all = Vec::new();
    for scenario in scenarios {
        let mut stage = Stage { container: &container, scenario, looks, read: 0 };
        all.push(stage.run().with_context(|| format!("scenario {} under {init:?}", scenario.number))?);
    }
    Ok(all)
}

/// What systemd was seen to do; only what is not remembered is asked.
fn oracle(ground: &Ground, scenarios: &[Scenario], looks: usize) -> Result<Vec<Vec<Seen>>> {
    let unknown: Vec<&Scenario> =
        scenarios.iter().filter(|scenario| scenario.remembered(looks).is_none()).collect();
    if !unknown.is_empty() {
        fs::create_dir_all(paths::target().join("scenarios"))?;
        let seen = run(ground, Init::Systemd, &unknown, looks)?;
        for (scenario, seen) in unknown.iter().zip(seen) {
            fs::write(scenario.memory(looks), serde_json::to_vec(&seen)?)?;
        }
    }
    scenarios.iter().map(|scenario| scenario.remembered(looks).context("what was kept is gone")).collect()
}

fn both(ground: &Ground, scenarios: &[Scenario], looks: usize) -> Result<Vec<Vec<String>>> {
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| oracle(ground, scenarios, looks));
        let all: Vec<&Scenario> = scenarios.iter().collect();
        let ours = run(ground, Init::Muster, &all, looks);
        (theirs.join(), ours)
    });
    let theirs = theirs.map_err(|_| anyhow::anyhow!("the thread of systemd's side ended"))??;
    let ours = ours?;
    let runs = scenarios.iter().zip(theirs.iter().zip(&ours));
    Ok(runs.map(|(scenario, (theirs, ours))| differences(scenario, theirs, ours)).collect())
}

/// Runs scenarios by number; what differed, as texts.
fn compare(ground: &Ground, first: u64, count: u64) -> Result<Vec<String>> {
    let (mut found, mut ran) = (Vec::new(), 0);
    let mut begin = first;
    while begin < first + count {
        let end = (begin + BATCH).min(first + count);
        let different = |number: &u64| DIFFERENT.iter().find(|(known, _)| known == number);
        for (number, why) in (begin..end).filter_map(|number| different(&number)) {
            println!("       scenario {number} is left out: {why}");
        }
        let numbers: Vec<u64> = (begin..end).filter(|number| different(number).is_none()).collect();
        let scenarios: Vec<Scenario> = numbers.iter().copied().map(Scenario::new).collect();
        let differ = both(ground, &scenarios, 2)?;
        let again: Vec<Scenario> = (numbers.iter().zip(&differ))
            .filter(|(_, differ)| !differ.is_empty())
            .map(|(number, _)| Scenario::new(*number))
            .collect();
        if !again.is_empty() {
            let differ = both(ground, &again, 6)?;
            let still = again.iter().zip(differ).filter(|(_, differ)| !differ.is_empty());
            for (scenario, differ) in still {
                let text = format!("scenario {}\n{}{}", scenario.number, scenario.text(), differ.join("\n"));
                println!("\n{text}");
                found.push(text);
            }
        }
        ran += numbers.len();
        println!("       {ran} scenarios, {} differ", found.len());
        begin = end;
    }
    Ok(found)
}

/// Runs `count` scenarios and prints what differs; the exit status says whether anything does.
pub fn at_length(first: u64, count: u64) -> Result<i32> {
    if let Some(reason) = Container::unsupported() {
        bail!("{reason}");
    }
    let ground = Ground::prepare(Init::Muster, false)?;
    let begun = Instant::now();
    let found = compare(&ground, first, count)?;
    println!("\nof {count} scenarios in {:.0} s, {} differ", begun.elapsed().as_secs_f64(), found.len());
    Ok(i32::from(!found.is_empty()))
}

/// The fixed few, which run both inits by themselves.
pub fn cases(init: Init) -> Vec<Case> {
    let run = |ground: &Ground| {
        let found = compare(ground, 0, FEW)?;
        ensure!(found.is_empty(), "{} scenarios differ: see above", found.len());
        Ok(Outcome::Passed)
    };
    if init == Init::Muster { vec![Case::new("scenarios/agree-with-the-oracle", run)] } else { Vec::new() }
}
