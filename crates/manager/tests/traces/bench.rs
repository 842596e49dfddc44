//! One unit under test: steps become events, effects become text. Nothing answers by itself but what must: a spawn gets a
//! number at once, files are written at once, and the cgroups of other units are empty when their processes ended.

use muster_graph::{JobMode, JobType};
use muster_manager::effect::{BusSignal, Effect, FdId, Level, RequestId};
use muster_manager::event::{
    DeviceChange, DeviceFound, Event, Exit, MountPoint, Now, OpenError, OpenedSocket, Origin, Peer, Request,
    TransientUnit,
};
use muster_manager::state::{Facts, Unit};
use muster_manager::{Manager, event::Clock};
use muster_unit::load::Lookup;
use muster_unit::{Source, UnitName};
use std::collections::BTreeMap;
use std::rc::Rc;

struct Files(BTreeMap<String, String>);

impl Source for Files {
    fn lookup(&self, name: &UnitName) -> Lookup {
        let template = name.template().map(|template| template.to_string());
        let known =
            [Some(name.to_string()), template].into_iter().flatten().find(|name| self.0.contains_key(name));
        known.map_or(Lookup::NotFound, |name| Lookup::File(format!("/etc/systemd/system/{name}")))
    }
    fn aliases(&self, _: &UnitName) -> Vec<UnitName> {
        Vec::new()
    }
    fn read(&self, path: &str) -> Result<Rc<str>, String> {
        let name = path.rsplit('/').next().unwrap();
        self.0.get(name).map(|text| text.as_str().into()).ok_or_else(|| "gone".to_owned())
    }
    fn drop_ins(&self, _: &str) -> Vec<(String, Option<String>)> {
        Vec::new()
    }
    fn linked(&self, _: &str) -> Vec<UnitName> {
        Vec::new()
    }
}

pub(super) struct Bench {
    manager: Manager,
    files: Files,
    now: Now,
    name: UnitName,
    /// The last number given to a process, a descriptor or a request.
    last: u64,
    effects: Vec<String>,
}

impl Bench {
    pub(super) fn new(name: &str, text: &str, others: &[(&str, &str)]) -> Bench {
        // Nothing but the units at hand: no default dependencies.
        let plain = |text: &str| match text.contains("[Unit]\n") {
            true => text.replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n"),
            false => format!("[Unit]\nDefaultDependencies=no\n{text}"),
        };
        let mut files: BTreeMap<String, String> =
            others.iter().map(|(name, text)| ((*name).to_owned(), plain(text))).collect();
        if !text.is_empty() {
            files.insert(name.to_owned(), plain(text));
        }
        let now = Now { monotonic_usec: 1_000_000, realtime_usec: 1_000_000_000, boottime_usec: 1_000_000 };
        let facts = Facts { follows_interfaces: true, ..Facts::default() };
        let mut bench = Bench {
            manager: Manager::new(facts, 1, now),
            files: Files(files),
            now,
            name: name.parse().unwrap(),
            last: 100,
            effects: Vec::new(),
        };
        bench.manager.begin(now, &bench.files);
        // What the console says of slow jobs would be a deadline too.
        bench.manager.set_show_status(false);
        let unit = bench.name.clone();
        bench.ask(Request::LoadUnit { unit });
        bench
    }

    fn unit(&self, name: &UnitName) -> Option<&Unit> {
        self.manager.unit(name)
    }

    /// The sub-state, `dead` where the unit is not loaded.
    pub(super) fn state(&self) -> String {
        self.unit(&self.name).map_or("dead", |unit| unit.sub_state()).to_owned()
    }

    pub(super) fn result(&self) -> String {
        self.unit(&self.name).map_or("", |unit| unit.kind.state().result().as_str()).to_owned()
    }

    pub(super) fn take_effects(&mut self) -> Vec<String> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn step(&mut self, word: &str) {
        let (name, word) = match word.split_once(':') {
            Some((name, word)) => (name.parse().unwrap(), word),
            None => (self.name.clone(), word),
        };
        let Some(event) = self.event(name, word) else { return };
        self.tell(event);
    }

    /// The event of a word; nothing where it cannot happen now.
    fn event(&mut self, unit: UnitName, word: &str) -> Option<Event> {
        let job = |kind| Request::EnqueueJob {
            unit: unit.clone(),
            kind,
            mode: JobMode::Replace,
            reload_if_possible: false,
        };
        let notified = |bench: &Bench, field: &str| {
            let (main, control) = bench.pids(&unit);
            let fields = vec![
                (field.to_owned(), "1".to_owned()),
                ("MONOTONIC_USEC".to_owned(), bench.now.monotonic_usec.to_string()),
            ];
            let cgroup = bench.unit(&unit)?.cgroup.clone();
            Some(Event::Notified {
                pid: main.or(control)?,
                uid: 0,
                cgroup,
                fields,
                fds: Vec::new(),
                named: None,
            })
        };
        let exited =
            |pid: Option<u32>, code| Some(Event::ChildExited { pid: pid?, exit: Exit::Exited(code) });
        Some(match word {
            "start" => self.requested(job(JobType::Start)),
            "stop" => self.requested(job(JobType::Stop)),
            "reload" => self.requested(job(JobType::Reload)),
            "c0" => return exited(self.pids(&unit).1, 0),
            "c1" => return exited(self.pids(&unit).1, 1),
            "m0" => return exited(self.pids(&unit).0, 0),
            "m1" => return exited(self.pids(&unit).0, 1),
            "ready" => return notified(self, "READY"),
            "reloading" => return notified(self, "RELOADING"),
            "stopping" => return notified(self, "STOPPING"),
            "empty" => Event::CgroupEmptied { path: self.unit(&unit)?.cgroup.clone()? },
            "late" => {
                let at = self.manager.next_deadlines().find(|(clock, _)| *clock == Clock::Monotonic)?.1;
                let span = at.saturating_sub(self.now.monotonic_usec);
                self.now.monotonic_usec += span;
                self.now.realtime_usec += span;
                self.now.boottime_usec += span;
                Event::Tick
            }
            "opened" => {
                let fd = FdId(self.number());
                let port = OpenedSocket {
                    fd,
                    listen_index: 0,
                    connection_based: true,
                    companion: false,
                    kept: false,
                };
                Event::SocketsOpened { unit, result: Ok(vec![port]) }
            }
            "unopened" => {
                let error = OpenError { message: "it is in use".to_owned(), no_owner: false };
                Event::SocketsOpened { unit, result: Err(error) }
            }
            "traffic" => {
                let listener = self.manager.descriptors().find(|(_, owner)| owner.name == unit)?.0;
                let muster_unit::Body::Socket(section) = &self.unit(&unit)?.file.body else { return None };
                if section.accept() {
                    let peer = Peer { instance_tail: "peer".to_owned(), ..Peer::default() };
                    Event::Accepted { listener, fd: FdId(self.number()), peer }
                } else {
                    Event::SocketReadable { fd: listener }
                }
            }
            "made" => {
                let scope = TransientUnit {
                    name: unit,
                    settings: Vec::new(),
                    text: String::new(),
                    pids: vec![7],
                    controller: String::new(),
                    stdio: BTreeMap::new(),
                    extra_names: Vec::new(),
                    reference: false,
                };
                self.requested(Request::StartTransient { units: vec![scope], mode: JobMode::Fail })
            }
            "mounted" => Event::MountTableRead {
                mounts: vec![MountPoint {
                    unit,
                    what: "/dev/a".to_owned(),
                    place: "/a".to_owned(),
                    fs_type: "ext4".to_owned(),
                    options: "rw".to_owned(),
                }],
                gone: Vec::new(),
                whole: true,
            },
            "gone" => Event::MountTableRead { mounts: Vec::new(), gone: Vec::new(), whole: true },
            "plug" => {
                let found = DeviceFound {
                    syspath: "/sys/devices/a".to_owned(),
                    paths: vec!["/dev/a".to_owned()],
                    ready: true,
                    wants: Vec::new(),
                    model: None,
                };
                Event::DevicesChanged { changes: vec![DeviceChange::Present(found)], whole: false }
            }
            "unplug" => {
                let changes = vec![DeviceChange::Gone("/sys/devices/a".to_owned())];
                Event::DevicesChanged { changes, whole: false }
            }
            "path" => Event::PathTriggered { unit, path: "/x".to_owned() },
            "unwatchable" => Event::PathWatchFailed { unit, message: "no watch is left".to_owned() },
            "clock" => Event::ClockSet,
            _ => panic!("{word} is no word"),
        })
    }

    /// The main and the control process.
    fn pids(&self, name: &UnitName) -> (Option<u32>, Option<u32>) {
        let Some(unit) = self.unit(name) else { return (None, None) };
        let state = unit.kind.state();
        (state.main().and_then(|main| main.pid), state.control().and_then(|control| control.pid))
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn requested(&mut self, request: Request) -> Event {
        let origin = Origin { uid: 0, pid: 7, comm: "bench".to_owned() };
        Event::Requested { id: RequestId(self.number()), origin, request }
    }

    fn ask(&mut self, request: Request) {
        let event = self.requested(request);
        self.tell(event);
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.now.monotonic_usec += 1;
            self.now.realtime_usec += 1;
            self.manager.handle(self.now, &self.files, event);
            while let Some(effect) = self.manager.poll_effect() {
                self.effects.extend(self.text(&effect));
                match effect {
                    Effect::Spawn(spawn) => {
                        let pid = u32::try_from(self.number()).unwrap();
                        events.push(Event::Spawned { spawn: spawn.id, pid });
                    }
                    Effect::KillCgroup { path, .. } | Effect::WatchCgroup { path } if self.is_over(&path) => {
                        events.push(Event::CgroupEmptied { path });
                    }
                    // The helper is as quick as it can be.
                    Effect::WriteFiles { query, .. } => {
                        events.push(Event::FilesWritten { query, result: Ok(()) })
                    }
                    _ => {}
                }
            }
            let faults = self.manager.check_invariants();
            assert!(faults.is_empty(), "{faults:?}");
        }
    }

    /// Whether another unit than that under test has no process left.
    fn is_over(&self, cgroup: &str) -> bool {
        let state = self.manager.state();
        let unit = state.cgroups.get(cgroup).and_then(|id| state.units.get(id));
        unit.is_some_and(|unit| unit.name != self.name && self.pids(&unit.name) == (None, None))
    }

    /// What is told of an effect; nothing of what only informs: changes, invocations, status lines, records below warnings.
    fn text(&self, effect: &Effect) -> Option<String> {
        let who = |pid: u32| match self.pids(&self.name) {
            (Some(main), _) if main == pid => "main",
            (_, Some(control)) if control == pid => "control",
            _ => "it",
        };
        Some(match effect {
            Effect::Spawn(spawn) => format!("run {}", spawn.command.path.rsplit('/').next().unwrap()),
            Effect::KillProcess { pid, signal, .. } => format!("kill {} {signal}", who(*pid)),
            Effect::KillCgroup { signal, except, .. } => {
                let but = if except.is_empty() { String::new() } else { format!(" but {}", except.len()) };
                format!("kill cgroup {signal}{but}")
            }
            Effect::RealizeCgroup { .. } => "make cgroup".to_owned(),
            Effect::RemoveCgroup { .. } => "remove cgroup".to_owned(),
            Effect::WatchCgroup { .. } => "watch cgroup".to_owned(),
            Effect::OpenSockets { keep, .. } => format!("open, keeping {}", keep.len()),
            Effect::WatchSocket { accept, .. } => (if *accept { "accept" } else { "watch" }).to_owned(),
            Effect::UnwatchSocket { .. } => "unwatch".to_owned(),
            Effect::CloseFds { fds } => format!("close {}", fds.len()),
            Effect::Log(record) if record.level <= Level::Warning => format!("log {:?}", record.message),
            Effect::Reply { reply: muster_manager::effect::Reply::Refused(why), .. } => {
                format!("refuse {why:?}")
            }
            Effect::Signal(BusSignal::JobNew { unit, .. }) => format!("job of {unit}"),
            Effect::Signal(BusSignal::JobRemoved { unit, result, .. }) => {
                format!("job of {unit} {}", result.as_str())
            }
            Effect::Signal(_)
            | Effect::Log(_)
            | Effect::Reply { .. }
            | Effect::ShowStatus { .. }
            | Effect::ShowSlow { .. }
            | Effect::PublishInvocation { .. } => return None,
            other => {
                let text = format!("{other:?}");
                text.split([' ', '(']).next().unwrap().to_owned()
            }
        })
    }
}
