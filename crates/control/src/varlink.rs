//! What the varlink sockets of PID 1 say (varlink.org: NUL-terminated JSON), one service each.
//!
//! A message in, replies out; who sent it and how it came is the runtime's. What must stay true: whatever comes in gets an
//! answer or is refused, and nothing is remembered.

use crate::{oomd, users};
use muster_manager::Manager;
use serde::Deserialize;
use serde_json::{Value, json};

/// Which socket a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// io.systemd.UserDatabase, for nss-systemd(8).
    Users,
    /// io.systemd.ManagedOOM, for systemd-oomd.service(8).
    Oomd,
}

impl Service {
    /// Its interface: name, and description.
    fn interface(self) -> (&'static str, &'static str) {
        match self {
            Service::Users => ("io.systemd.UserDatabase", users::DESCRIPTION),
            Service::Oomd => ("io.systemd.ManagedOOM", oomd::DESCRIPTION),
        }
    }
}

/// A call, as it came.
#[derive(Deserialize)]
pub(crate) struct Message {
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) parameters: Value,
    #[serde(default)]
    pub(crate) more: bool,
    #[serde(default)]
    oneway: bool,
}

/// Why a call has no other answer.
pub(crate) enum Refusal {
    /// By this error.
    Plain(&'static str),
    /// With parameters.
    With(&'static str, Value),
}

/// What is answered.
pub(crate) enum Replies {
    /// These, and no more.
    All(Vec<Value>),
    /// This, and more when there is something to tell.
    First(Value),
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// Its cgroup, below our root.
    pub cgroup: String,
    /// Whether somebody else is told of changes already.
    pub taken: bool,
}

/// What goes back to a client.
#[derive(Debug, Default)]
pub struct Answer {
    /// Replies, each with its NUL.
    pub bytes: Vec<u8>,
    /// Whether it is told of changes from now on.
    pub subscribes: bool,
}

impl Answer {
    fn put(&mut self, value: &Value) {
        // A value in memory can always be written.
        if serde_json::to_writer(&mut self.bytes, value).is_ok() {
            self.bytes.push(0);
        }
    }
}

/// Answers one message, without its NUL. `None` for what is no call.
pub fn answer(manager: &Manager, service: Service, asker: &Asker, message: &[u8]) -> Option<Answer> {
    let call: Message = serde_json::from_slice(message).ok()?;
    let mut answer = Answer::default();
    if call.oneway {
        return Some(answer);
    }
    match dispatch(manager, service, asker, &call) {
        Err(Refusal::Plain(name)) => answer.put(&json!({ "error": name, "parameters": {} })),
        Err(Refusal::With(name, parameters)) => {
            answer.put(&json!({ "error": name, "parameters": parameters }))
        }
        Ok(Replies::First(parameters)) => {
            answer.put(&json!({ "parameters": parameters, "continues": true }));
            answer.subscribes = true;
        }
        Ok(Replies::All(replies)) => {
            let last = replies.len().saturating_sub(1);
            for (index, parameters) in replies.into_iter().enumerate() {
                match index < last {
                    true => answer.put(&json!({ "parameters": parameters, "continues": true })),
                    false => answer.put(&json!({ "parameters": parameters })),
                }
            }
        }
    }
    Some(answer)
}

/// What a client that wanted more is told.
pub fn further(parameters: &Value) -> Vec<u8> {
    let mut answer = Answer::default();
    answer.put(&json!({ "parameters": parameters, "continues": true }));
    answer.bytes
}

fn dispatch(manager: &Manager, service: Service, asker: &Asker, call: &Message) -> Result<Replies, Refusal> {
    let (name, description) = service.interface();
    match (call.method.as_str(), service) {
        ("org.varlink.service.GetInfo", _) => Ok(Replies::All(vec![json!({
            "vendor": "muster", "product": "muster", "version": manager.state().facts.version, "url": "",
            "interfaces": [name, "org.varlink.service"],
        })])),
        ("org.varlink.service.GetInterfaceDescription", _) => {
            match call.parameters.get("interface").and_then(Value::as_str) {
                Some(asked) if asked == name => Ok(Replies::All(vec![json!({ "description": description })])),
                Some(_) => Err(Refusal::Plain("org.varlink.service.InterfaceNotFound")),
                None => Err(invalid("interface")),
            }
        }
        (_, Service::Users) => users::dispatch(manager, call).map(Replies::All),
        (_, Service::Oomd) => oomd::dispatch(manager, call, asker),
    }
}

pub(crate) fn unknown(call: &Message) -> Refusal {
    Refusal::With("org.varlink.service.MethodNotFound", json!({ "method": call.method }))
}

pub(crate) fn invalid(parameter: &str) -> Refusal {
    Refusal::With("org.varlink.service.InvalidParameter", json!({ "parameter": parameter }))
}
