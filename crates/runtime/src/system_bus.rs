//! PID 1 on the system bus, as one more client connection of ours: other users' callers, `Type=dbus` names, and
//! services that the bus wants started (D-Bus specification, "Message Bus Starting Services").
//!
//! Connected as soon as dbus.service runs, and again when it comes back. Nothing is ever awaited: who a caller is, is
//! asked of the bus, and the call waits in a bounded list until the answer is there.

use crate::clients::Again;
use crate::turn::{Runtime, Source};
use mio::Token;
use muster_bus::Kind as MessageKind;
use muster_bus::{Incoming, Outgoing, Peer};
use muster_control::authorize::Right;
use muster_control::{Refusal, polkit, wire};
use muster_graph::{JobId, JobMode, JobResult, JobType};
use muster_manager::effect::{BusSignal, Level, Reply, RequestId};
use muster_manager::event::{Event, Origin, Request};
use muster_unit::UnitName;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

const ADDRESS: &str = "/run/dbus/system_bus_socket";
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const NAME_CHANGES: &str =
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged'";
/// At most this many callers are known at a time.
const CALLERS_MAX: usize = 4096;
/// At most this many calls of one caller wait for its identity.
const WAITING_MAX: usize = 64;
/// At most this many calls wait for polkit: a person may never answer.
const POLKIT_MAX: usize = 1024;

/// What we asked the bus, by serial.
#[derive(Debug)]
pub(crate) enum Asked {
    Names,
    User(String),
    Process(String),
    /// polkit, whether this call's sender has the right that it needs.
    Polkit(Right, Box<Incoming>),
}

/// A peer on the bus that called us.
#[derive(Debug, Default)]
pub(crate) struct Caller {
    pub(crate) uid: Option<u32>,
    pub(crate) pid: Option<u32>,
    pub(crate) origin: Option<Origin>,
    pub(crate) waiting: Vec<Incoming>,
}

/// The connection, and what is known of those behind it.
#[derive(Debug, Default)]
pub(crate) struct SystemBus {
    pub(crate) token: Option<Token>,
    pub(crate) asked: BTreeMap<u32, Asked>,
    pub(crate) callers: BTreeMap<String, Caller>,
    pub(crate) activations: BTreeMap<RequestId, String>,
    /// The jobs that came of them.
    pub(crate) activation_jobs: BTreeMap<JobId, String>,
}

impl SystemBus {
    /// Whether anybody there may wait for our signals: who has called us, for what became of it, whether it said
    /// `Subscribe` or not.
    pub(crate) fn wants_signals(&self) -> bool {
        !self.callers.is_empty()
    }

    /// Callers whose identity is known.
    pub(crate) fn known_callers(&self) -> Vec<(String, Origin)> {
        let known = self.callers.iter();
        known.filter_map(|(name, caller)| Some((name.clone(), caller.origin.clone()?))).collect()
    }

    /// Callers of before a re-execution, which wait for our signals as they did.
    pub(crate) fn expect_callers(&mut self, callers: Vec<(String, Origin)>) {
        let known = |(name, origin)| (name, Caller { origin: Some(origin), ..Caller::default() });
        self.callers.extend(callers.into_iter().map(known));
    }

    /// The connection is gone, and with it all that was known through it.
    pub(crate) fn forget(&mut self) {
        *self = SystemBus {
            activations: std::mem::take(&mut self.activations),
            activation_jobs: std::mem::take(&mut self.activation_jobs),
            ..SystemBus::default()
        };
    }
}

fn bus_call(member: &str) -> Outgoing {
    Outgoing::method_call(BUS, BUS_PATH, BUS, member)
}

fn open() -> nix::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    connect(fd.as_raw_fd(), &UnixAddr::new(ADDRESS)?)?;
    Ok(fd)
}

impl Runtime {
    /// A unit changed: when it is the bus's own and it runs, connect.
    pub(crate) fn follow_bus_service(&mut self, signal: &BusSignal) {
        let (BusSignal::UnitChanged { unit } | BusSignal::UnitNew { unit }) = signal else { return };
        if self.clients.bus.token.is_some() || !unit.as_str().starts_with("dbus") {
            return;
        }
        let Ok(service) = "dbus.service".parse::<UnitName>() else { return };
        let running = self
            .manager
            .unit(&service)
            .is_some_and(|service| service.name == *unit && service.sub_state() == "running");
        if running {
            self.connect_bus();
        }
    }

    /// After a re-execution, where the connection did not come along: joins the bus again, if it runs.
    pub(crate) fn rejoin_bus(&mut self) {
        if let Ok(unit) = "dbus.service".parse::<UnitName>() {
            self.follow_bus_service(&BusSignal::UnitChanged { unit });
        }
    }

    fn connect_bus(&mut self) {
        let connected = open().map_err(std::io::Error::from).and_then(|fd| {
            let token = self.register_raw(fd.as_raw_fd(), Source::Client)?;
            Ok((fd, token))
        });
        let (fd, token) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                return self.note(Level::Warning, &format!("The system bus could not be joined: {error}"));
            }
        };
        self.clients.add(token, fd, Peer::client(0), Origin::default());
        self.clients.bus.token = Some(token);
        self.still_ready(token);
        self.send(token, &bus_call("Hello"));
        self.send(token, &bus_call("AddMatch").body("s", |body| body.write_str(NAME_CHANGES)).no_reply());
        let request_name = bus_call("RequestName").body("su", |body| {
            body.write_str("org.freedesktop.systemd1");
            // DBUS_NAME_FLAG_REPLACE_EXISTING | DBUS_NAME_FLAG_DO_NOT_QUEUE
            body.write_u32(2 | 4);
        });
        self.send(token, &request_name.no_reply());
        self.ask_bus(&bus_call("ListNames"), Asked::Names);
    }

    fn ask_bus(&mut self, message: &Outgoing, asked: Asked) {
        let Some(token) = self.clients.bus.token else { return };
        if let Some(serial) = self.send(token, message) {
            self.clients.bus.asked.insert(serial, asked);
        }
    }

    /// A message from the bus.
    pub(crate) fn bus_message(&mut self, token: Token, message: Incoming) {
        match message.kind() {
            MessageKind::MethodCall => self.bus_method_call(token, message),
            MessageKind::Signal => self.bus_signal(&message),
            MessageKind::MethodReturn | MessageKind::Error => self.bus_answer(&message),
        }
    }

    fn bus_signal(&mut self, message: &Incoming) {
        if message.sender() != Some(BUS) {
            return;
        }
        match message.member() {
            Some("NameOwnerChanged") => {
                if let Ok((name, _, owner)) = message.body::<(String, String, String)>() {
                    self.name_changed(name, owner);
                }
            }
            Some("ActivationRequest") => {
                if let Ok(unit) = message.body::<(String,)>() {
                    self.activation_requested(unit.0);
                }
            }
            _ => {}
        }
    }

    fn name_changed(&mut self, name: String, owner: String) {
        if !name.starts_with(':') {
            return self.deliver(Event::BusNameChanged { name, owner });
        }
        if owner.is_empty() {
            self.clients.bus.callers.remove(&name);
            let theirs = |asked: &Asked| matches!(asked, Asked::Polkit(_, call) if call.sender() == Some(name.as_str()));
            self.clients.bus.asked.retain(|_, asked| !theirs(asked));
            self.release_references(|holder| holder == name);
            if self.manager.state().controllers.contains_key(&name) {
                self.deliver(Event::BusNameChanged { name, owner });
            }
        }
    }

    fn activation_requested(&mut self, unit: String) {
        let Ok(name) = unit.parse::<UnitName>() else {
            return self.activation_failed(
                &unit,
                "org.freedesktop.DBus.Error.InvalidArgs",
                "Not a unit name.",
            );
        };
        let id = self.new_request();
        self.clients.bus.activations.insert(id, unit);
        let request = Request::EnqueueJob {
            unit: name,
            kind: JobType::Start,
            mode: JobMode::Replace,
            reload_if_possible: false,
        };
        let origin = Origin { uid: 0, pid: 0, comm: "the system bus".to_owned() };
        self.deliver(Event::Requested { id, origin, request });
    }

    /// The answer to a start that the bus asked for; true when the request was one of those.
    pub(crate) fn activation_answered(&mut self, id: RequestId, reply: &Reply) -> bool {
        let Some(unit) = self.clients.bus.activations.remove(&id) else { return false };
        if let Some(refusal) = muster_control::error::Refusal::of(reply) {
            self.activation_failed(&unit, &refusal.name, &refusal.message);
        } else if let Reply::Job { id, .. } = reply {
            self.clients.bus.activation_jobs.insert(*id, unit);
        }
        true
    }

    /// A job ended. Where the bus waits for what was to be started, it hears at once that nothing comes.
    pub(crate) fn activation_ended(&mut self, job: JobId, result: JobResult) {
        let Some(unit) = self.clients.bus.activation_jobs.remove(&job) else { return };
        if result != JobResult::Done {
            let message = format!("{unit} was not started: the result of its job is '{}'.", result.as_str());
            self.activation_failed(&unit, "org.freedesktop.DBus.Error.Spawn.Failed", &message);
        }
    }

    fn activation_failed(&mut self, unit: &str, name: &str, message: &str) {
        let Some(token) = self.clients.bus.token else { return };
        let signal = Outgoing::signal(
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Activator",
            "ActivationFailure",
        );
        let signal = signal
            .destination(BUS)
            .body("sss", |body| [unit, name, message].into_iter().for_each(|text| body.write_str(text)));
        self.send(token, &signal);
    }

    fn bus_answer(&mut self, message: &Incoming) {
        let Some(asked) = message.reply_serial().and_then(|serial| self.clients.bus.asked.remove(&serial))
        else {
            return;
        };
        match asked {
            Asked::Names => {
                let names = message.body::<(Vec<String>,)>().map(|names| names.0).unwrap_or_default();
                self.forget_callers_but(&names);
                for name in names {
                    if !name.starts_with(':') {
                        self.deliver(Event::BusNameChanged { owner: name.clone(), name });
                    }
                }
            }
            Asked::User(name) => {
                self.caller_known(&name, |caller| caller.uid = message.body::<(u32,)>().ok().map(|uid| uid.0))
            }
            Asked::Process(name) => self.caller_known(&name, |caller| {
                caller.pid = Some(message.body::<(u32,)>().map_or(0, |pid| pid.0))
            }),
            Asked::Polkit(right, call) => self.polkit_answered(right, *call, message),
        }
    }

    /// Asks polkit about a call; the call waits for the answer.
    pub(crate) fn ask_polkit(&mut self, token: Token, call: Incoming, question: &polkit::Question) {
        let asked = self.clients.bus.asked.values();
        let waiting = asked.filter(|asked| matches!(asked, Asked::Polkit(..))).count();
        let sender = call.sender().map(str::to_owned);
        match sender.filter(|_| waiting < POLKIT_MAX) {
            Some(sender) => {
                self.ask_bus(&question.message(&sender), Asked::Polkit(question.right, Box::new(call)))
            }
            None => self.refuse(token, &call, &Refusal::access_denied("Access denied")),
        }
    }

    fn polkit_answered(&mut self, right: Right, call: Incoming, answer: &Incoming) {
        let Some(token) = self.clients.bus.token else { return };
        // Who has left the bus meanwhile is not known any more.
        let caller = call.sender().and_then(|sender| self.clients.bus.callers.get(sender));
        let Some(origin) = caller.and_then(|caller| caller.origin.clone()) else { return };
        match polkit::verdict(answer) {
            Ok(()) => {
                self.handle_again(token, &origin, call, Again { loaded: false, granted: Some(right) });
            }
            Err(refusal) => self.refuse(token, &call, &refusal),
        }
    }

    fn refuse(&mut self, token: Token, call: &Incoming, refusal: &Refusal) {
        if !call.no_reply_expected() {
            self.send(token, &wire::error_to(call, refusal));
        }
    }

    /// Callers that left while we were not on the bus.
    fn forget_callers_but(&mut self, present: &[String]) {
        let gone: Vec<String> =
            self.clients.bus.callers.keys().filter(|name| !present.contains(name)).cloned().collect();
        for name in gone {
            self.clients.bus.callers.remove(&name);
            self.release_references(|holder| holder == name);
        }
    }

    fn bus_method_call(&mut self, token: Token, message: Incoming) {
        let Some(sender) = message.sender().map(str::to_owned) else { return };
        if let Some(origin) = self.clients.bus.callers.get(&sender).and_then(|caller| caller.origin.clone()) {
            return self.handle_message(token, &origin, message);
        }
        let known = self.clients.bus.callers.contains_key(&sender);
        if !known && self.clients.bus.callers.len() >= CALLERS_MAX {
            return;
        }
        let caller = self.clients.bus.callers.entry(sender.clone()).or_default();
        if caller.waiting.len() < WAITING_MAX {
            caller.waiting.push(message);
        }
        if !known {
            let about = |member: &str| bus_call(member).body("s", |body| body.write_str(&sender));
            self.ask_bus(&about("GetConnectionUnixProcessID"), Asked::Process(sender.clone()));
            self.ask_bus(&about("GetConnectionUnixUser"), Asked::User(sender.clone()));
        }
    }

    /// One more fact about a caller; with both, its calls are worked off. A caller that the bus does not know is gone.
    fn caller_known(&mut self, name: &str, learn: impl FnOnce(&mut Caller)) {
        let Some(token) = self.clients.bus.token else { return };
        let Some(caller) = self.clients.bus.callers.get_mut(name) else { return };
        learn(caller);
        let (Some(uid), Some(pid)) = (caller.uid, caller.pid) else { return };
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .map(|text| text.trim_end().to_owned())
            .unwrap_or_default();
        let origin = Origin { uid, pid, comm };
        caller.origin = Some(origin.clone());
        for message in std::mem::take(&mut caller.waiting) {
            self.handle_message(token, &origin, message);
        }
    }
}
