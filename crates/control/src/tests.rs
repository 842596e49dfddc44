//! The tables against systemd 257's introspection, and whole calls against a real manager.
//!
//! A reply is decoded by zbus, which reads every value by the signature that the table claims for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use crate::{Action, Live, LiveValue, dispatch, interfaces, reply, signals};
use muster_bus::{Credentials, Incoming, Kind, Outgoing, OwnedVariant, Peer};
use muster_manager::effect::{Effect, RequestId};
use muster_manager::event::{Event, Now, Origin, Request};
use muster_manager::{Manager, manager};
use muster_unit::load::{Lookup, Source};
use muster_unit::{UnitKind, UnitName};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

const MEMBERS: &str = include_str!("../testdata/members-257.txt");

fn ours(interface: &crate::table::Interface) -> BTreeSet<String> {
    let name = interface.name.rsplit('.').next().unwrap();
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let types = |list: &[(&str, &str)]| dash(list.iter().map(|(kind, _)| *kind).collect());
    let property = interface.properties().map(|p| {
        let emits = match p.emits {
            crate::table::Emits::Change => "true",
            crate::table::Emits::Invalidates => "invalidates",
            crate::table::Emits::Const => "const",
            crate::table::Emits::Never => "false",
        };
        format!("{name} property {} {} {emits}", p.name, p.signature)
    });
    let method = interface
        .methods()
        .map(|m| format!("{name} method {} {} {}", m.name, types(m.input), types(m.output)));
    let signal =
        interface.signals.iter().map(|s| format!("{name} signal {} {} -", s.name, types(s.arguments)));
    property.chain(method).chain(signal).collect()
}

#[test]
fn every_member_of_systemd_257_is_there() {
    let kinds = [
        UnitKind::Service,
        UnitKind::Socket,
        UnitKind::Target,
        UnitKind::Device,
        UnitKind::Mount,
        UnitKind::Automount,
        UnitKind::Swap,
        UnitKind::Timer,
        UnitKind::Path,
        UnitKind::Slice,
        UnitKind::Scope,
    ];
    let mut all: BTreeSet<String> =
        kinds.into_iter().flat_map(|kind| ours(interfaces::of_kind(kind))).collect();
    for interface in [&interfaces::MANAGER, &interfaces::UNIT, &interfaces::JOB] {
        all.extend(ours(interface));
    }
    let missing: Vec<&str> = MEMBERS.lines().filter(|line| !all.contains(*line)).collect();
    assert!(missing.is_empty(), "systemd 257 has:\n{}", missing.join("\n"));
}

struct World;
impl Live for World {
    fn cgroup_number(&self, _: &str, what: LiveValue) -> Option<u64> {
        (what == LiveValue::TasksCurrent).then_some(3)
    }
    fn processes(&self, path: &str) -> Vec<(String, u32, String)> {
        vec![(path.to_owned(), 42, "sleep 9".to_owned())]
    }
    fn pid_cgroup(&self, _: u32) -> Option<String> {
        None
    }
    fn unit_file_state(&self, _: &str) -> String {
        "static".to_owned()
    }
}

struct Files(Vec<(&'static str, &'static str)>);
impl Source for Files {
    fn lookup(&self, name: &UnitName) -> Lookup {
        let found = self.0.iter().any(|(known, _)| *known == name.as_str());
        if found { Lookup::File(format!("/etc/systemd/system/{name}")) } else { Lookup::NotFound }
    }
    fn aliases(&self, _: &UnitName) -> Vec<UnitName> {
        Vec::new()
    }
    fn read(&self, path: &str) -> Result<Rc<str>, String> {
        let name = path.rsplit('/').next().unwrap();
        Ok(self.0.iter().find(|(known, _)| *known == name).unwrap().1.into())
    }
    fn drop_ins(&self, _: &str) -> Vec<(String, Option<String>)> {
        Vec::new()
    }
    fn linked(&self, _: &str) -> Vec<UnitName> {
        Vec::new()
    }
}

fn move_bytes(from: &mut Peer, to: &mut Peer) {
    while from.wants_write() {
        let (bytes, _) = from.output();
        let bytes = bytes.to_vec();
        to.receive(&bytes, Vec::new()).unwrap();
        from.sent(bytes.len());
    }
}

/// A client, a server, a manager, and its files.
struct Bench {
    client: Peer,
    server: Peer,
    manager: Manager,
    files: Files,
    announced: Vec<Outgoing>,
}

impl Bench {
    fn new(files: Vec<(&'static str, &'static str)>) -> Bench {
        let mut client = Peer::client(0);
        let mut server = Peer::server([1; 16], Credentials { uid: 0, gid: 0, pid: 7 }, true);
        for _ in 0..8 {
            move_bytes(&mut client, &mut server);
            move_bytes(&mut server, &mut client);
        }
        assert!(client.is_ready() && server.is_ready());
        let now = Now { monotonic_usec: 1, realtime_usec: 1, boottime_usec: 1 };
        let manager = manager::Manager::new(muster_manager::state::Facts::default(), 1, now);
        Bench { client, server, manager, files: Files(files), announced: Vec::new() }
    }

    /// Sends a call through the wire and the manager, as the runtime does.
    fn ask(&mut self, call: &Outgoing) -> Incoming {
        // As the loop does each turn: what the last event left to unload goes.
        let now = Now { monotonic_usec: 2, realtime_usec: 2, boottime_usec: 2 };
        self.manager.handle(now, &self.files, Event::Tick);
        while self.manager.poll_effect().is_some() {}
        self.client.send(call).unwrap();
        move_bytes(&mut self.client, &mut self.server);
        let message = self.server.next_message().unwrap();
        let caller = Origin { uid: 0, pid: 7, comm: "test".to_owned() };
        let answer = match dispatch(&self.manager, &World, &caller, None, &message) {
            Action::Reply(reply) => reply,
            Action::Request(request) => self.request(&message, caller, request),
            Action::RequestThenRetry(request) => {
                self.request(&message, caller.clone(), request);
                match dispatch(&self.manager, &World, &caller, None, &message) {
                    Action::Reply(reply) => reply,
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        };
        self.server.send(&answer).unwrap();
        move_bytes(&mut self.server, &mut self.client);
        self.client.next_message().unwrap()
    }

    fn request(&mut self, message: &Incoming, origin: Origin, request: Request) -> Outgoing {
        let now = Now { monotonic_usec: 2, realtime_usec: 2, boottime_usec: 2 };
        self.manager.handle(now, &self.files, Event::Requested { id: RequestId(1), origin, request });
        let mut answer = None;
        while let Some(effect) = self.manager.poll_effect() {
            match effect {
                Effect::Reply { reply: given, .. } => answer = Some(reply(message, &given)),
                Effect::Signal(signal) => self.announced.extend(signals(&self.manager, &World, &signal)),
                _ => {}
            }
        }
        answer.unwrap()
    }
}

fn to_manager(member: &str) -> Outgoing {
    Outgoing::method_call(
        "org.freedesktop.systemd1",
        crate::path::MANAGER,
        "org.freedesktop.systemd1.Manager",
        member,
    )
}

fn get_all(unit: &str) -> Outgoing {
    let path = crate::path::of_unit(unit);
    Outgoing::method_call("org.freedesktop.systemd1", &path, "org.freedesktop.DBus.Properties", "GetAll")
        .body("s", |body| body.write_str(""))
}

const SERVICE: &str = "[Unit]\nDescription=A thing\nDocumentation=man:a(1)\nConditionPathExists=|!/x\nAssertPathExists=/\n\
    OnFailure=b.service\nStartLimitBurst=9\n[Service]\nType=notify\nExecStart=-/bin/sleep 5\nExecReload=/bin/kill -HUP $MAINPID\n\
    SuccessExitStatus=3 SIGKILL\nEnvironment=A=1 B=2\nEnvironmentFile=-/etc/x\nMemoryMax=1G\nCPUQuota=50%\nLimitNOFILE=10:20\n\
    RuntimeDirectory=a:b\nBindPaths=/a:/b:norbind\nSystemCallFilter=~@mount\nAllowedCPUs=0-3 8\nRestrictNamespaces=user net\n\
    OpenFile=/etc/hostname:h:read-only\nLoadCredential=c:/d\nRestartSec=2s\nTimeoutStopSec=infinity\nUMask=077\n";

#[test]
fn every_property_of_every_type_decodes_as_its_signature() {
    let files = vec![
        ("a.service", SERVICE),
        (
            "a.socket",
            "[Socket]\nListenStream=/run/a\nListenDatagram=127.0.0.1:80\nXAttrListen=user.x=y\nIPTOS=low-delay\n",
        ),
        ("a.timer", "[Timer]\nOnBootSec=5min\nOnCalendar=daily\n"),
        ("a.path", "[Path]\nPathExists=/x\n"),
        ("a.target", "[Unit]\nDescription=T\n"),
        ("a.slice", "[Slice]\nTasksMax=10\n"),
        ("a-b.mount", "[Mount]\nWhat=tmpfs\nWhere=/a/b\n"),
        ("a-b.automount", "[Automount]\nWhere=/a/b\n"),
        ("a.swap", "[Swap]\nWhat=/dev/x\n"),
    ];
    let mut bench = Bench::new(files);
    for unit in [
        "a.service",
        "a.socket",
        "a.timer",
        "a.path",
        "a.target",
        "a.slice",
        "a-b.mount",
        "a-b.automount",
        "a.swap",
        "a.scope",
        "a.device",
        "gone.service",
    ] {
        let answer = bench.ask(&get_all(unit));
        assert_eq!(answer.kind(), Kind::MethodReturn, "{unit}: {:?}", answer.error_name());
        let all: HashMap<String, OwnedVariant> =
            answer.body().unwrap_or_else(|error| panic!("{unit}: {error:?}"));
        assert!(all.len() >= 102, "{unit}");
        let text = |name: &str| format!("{:?}", all[name]);
        if unit == "a.service" {
            for (name, part) in [
                ("Description", "A thing"),
                ("MemoryMax", "1073741824"),
                ("CPUQuotaPerSecUSec", "500000"),
                ("LimitNOFILESoft", "10"),
                ("LimitNOFILE", "20"),
                ("RestartUSec", "2000000"),
                ("TimeoutStopUSec", "18446744073709551615"),
                ("UMask", "63"),
                ("ExecStart", "sleep"),
                ("NotifyAccess", "main"),
                ("UnitFileState", "static"),
                ("StartLimitBurst", "9"),
            ] {
                assert!(text(name).contains(part), "{name}: {}", text(name));
            }
        }
        if unit == "gone.service" {
            assert!(text("LoadError").contains("Unit gone.service not found."), "{}", text("LoadError"));
        }
    }
    let answer = bench.ask(
        &Outgoing::method_call("o.f", crate::path::MANAGER, "org.freedesktop.DBus.Properties", "GetAll")
            .body("s", |body| body.write_str("org.freedesktop.systemd1.Manager")),
    );
    let all: HashMap<String, OwnedVariant> = answer.body().unwrap();
    assert!(all.contains_key("Version") && all.contains_key("SystemState"));
}

#[test]
fn a_start_answers_with_a_job_and_announces_it() {
    let mut bench = Bench::new(vec![("a.target", "[Unit]\nDescription=T\n")]);
    let answer = bench.ask(&to_manager("StartUnit").body("ss", |body| {
        body.write_str("a.target");
        body.write_str("replace");
    }));
    let job: muster_bus::OwnedObjectPath = answer.body().unwrap();
    assert!(job.as_str().starts_with("/org/freedesktop/systemd1/job/"), "{}", job.as_str());
    let told: Vec<&str> = bench.announced.iter().filter_map(Outgoing::member).collect();
    assert!(
        told.contains(&"JobNew") && told.contains(&"UnitNew") && told.contains(&"JobRemoved"),
        "{told:?}"
    );
    let answer = bench.ask(&to_manager("StopUnit").body("ss", |body| {
        body.write_str("a.target");
        body.write_str("replace");
    }));
    assert_eq!(answer.kind(), Kind::MethodReturn);
    assert!(bench.announced.iter().any(|signal| signal.member() == Some("PropertiesChanged")));
    bench.ask(&to_manager("StartUnit").body("ss", |body| {
        body.write_str("a.target");
        body.write_str("replace");
    }));

    type Row = (
        String,
        String,
        String,
        String,
        String,
        String,
        muster_bus::OwnedObjectPath,
        u32,
        String,
        muster_bus::OwnedObjectPath,
    );
    let units: Vec<Row> = bench.ask(&to_manager("ListUnits")).body().unwrap();
    let row = units.iter().find(|row| row.0 == "a.target").unwrap();
    assert_eq!(
        (row.1.as_str(), row.2.as_str(), row.3.as_str(), row.4.as_str()),
        ("T", "loaded", "active", "active")
    );
}

#[test]
fn refusals_have_systemds_names() {
    let mut bench = Bench::new(Vec::new());
    let two = |member: &str, first: &str, second: &str| {
        to_manager(member).body("ss", |body| {
            body.write_str(first);
            body.write_str(second);
        })
    };
    for (call, name) in [
        (two("StartUnit", "gone.service", "replace"), "org.freedesktop.systemd1.NoSuchUnit"),
        (two("StartUnit", "gone.service", "nonsense"), "org.freedesktop.DBus.Error.InvalidArgs"),
        (two("StopUnit", "gone.service", "replace"), "org.freedesktop.systemd1.NoSuchUnit"),
        (
            to_manager("StartUnit").body("s", |body| body.write_str("x")),
            "org.freedesktop.DBus.Error.InvalidArgs",
        ),
        (to_manager("NoSuchMethod"), "org.freedesktop.DBus.Error.UnknownMethod"),
        (
            to_manager("GetUnit").body("s", |body| body.write_str("gone.service")),
            "org.freedesktop.systemd1.NoSuchUnit",
        ),
        (
            Outgoing::method_call(
                "o.f",
                "/org/freedesktop/systemd1/job/9",
                "org.freedesktop.DBus.Peer",
                "Ping",
            ),
            "org.freedesktop.DBus.Error.UnknownObject",
        ),
    ] {
        assert_eq!(bench.ask(&call).error_name(), Some(name), "{call:?}");
    }
}

#[test]
fn introspection_is_xml_with_every_interface() {
    let mut bench = Bench::new(vec![("a.service", SERVICE)]);
    bench.ask(&get_all("a.service"));
    let path = crate::path::of_unit("a.service");
    let answer =
        bench.ask(&Outgoing::method_call("o.f", &path, "org.freedesktop.DBus.Introspectable", "Introspect"));
    let xml: String = answer.body().unwrap();
    for part in [
        "org.freedesktop.systemd1.Unit",
        "org.freedesktop.systemd1.Service",
        "org.muster1.Unit",
        "<property name=\"MainPID\"",
    ] {
        assert!(xml.contains(part), "{part}");
    }
    assert_eq!(xml.matches("<interface").count(), xml.matches("</interface>").count());
}

const DEFAULTS: &str = include_str!("../testdata/defaults-257.txt");

/// What depends on the machine rather than on systemd.
const OF_THE_MACHINE: &[&str] = &["UnitFileState", "TasksMax", "EffectiveTasksMax", "MemoryAvailable"];

fn shown(value: &crate::wire::Value) -> Option<String> {
    use crate::wire::Value;
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Text(text) => Some(format!("\"{text}\"")),
        Value::Array(items) if items.is_empty() => Some("[]".to_owned()),
        Value::Bytes(bytes) if bytes.is_empty() => Some("[]".to_owned()),
        _ => None,
    }
}

#[test]
fn what_is_not_set_shows_systemds_default() {
    let mut bench = Bench::new(Vec::new());
    let answer = bench.ask(&get_all("nonexist.service"));
    let all: HashMap<String, crate::wire::Value> =
        crate::wire::Args::new(&answer).unwrap().properties().unwrap().into_iter().collect();
    let mut wrong = Vec::new();
    for line in DEFAULTS.lines() {
        let mut words = line.splitn(3, ' ').skip(1);
        let (name, expected) = (words.next().unwrap(), words.next().unwrap());
        let found = shown(&all[name]);
        let limit = name.starts_with("Limit") || name.starts_with("Memory") && name.ends_with("Available");
        if found.as_deref() != Some(expected) && !OF_THE_MACHINE.contains(&name) && !limit {
            wrong.push(format!("{name}: {found:?}, systemd: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
