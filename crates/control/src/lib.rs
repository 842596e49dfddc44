//! org.freedesktop.systemd1 on the wire: the member table, authorization, introspection.
//!
//! Pure: [`dispatch`] looks at a borrowed [`Manager`] and says what to do with one incoming message; [`reply`]
//! encodes what the manager answered; [`signals`] encodes what it announced. Nothing is remembered between two calls
//! and nothing is done here; what the kernel knows is asked through [`Live`]. Every member is one row of a table
//! ([`table`]), checked and authorized in one place ([`authorize`]).
//!
//! Reading order: [`table`], [`view`], [`show`], the interfaces, [`announce`].
#![forbid(unsafe_code)]

pub mod announce;
pub mod authorize;
mod cgroup;
mod command;
pub mod descriptors;
mod dump;
pub mod error;
mod exec;
pub mod interfaces;
pub mod introspect;
mod literal;
mod manager;
mod manager_methods;
mod mounting;
mod muster;
pub mod object;
pub mod oomd;
mod others;
pub mod path;
pub mod polkit;
mod service;
pub mod show;
mod socket;
pub mod table;
#[cfg(test)]
mod tests;
pub mod transient;
mod unit;
pub mod unit_files;
pub mod users;
pub mod varlink;
pub mod view;
pub mod wire;

pub use announce::{reply, signals};
pub use error::Refusal;
pub use mounting::{Mounting, MountingOutcome, reply as mounting_reply};
pub use unit_files::{UnitFileOperation, UnitFileOutcome, unit_files_reply};
pub use view::{Live, LiveValue};

use crate::authorize::Right;
use crate::object::Object;
use crate::table::Method;
use crate::wire::{Args, Out};
use muster_bus::{Incoming, Outgoing};
use muster_manager::Manager;
use muster_manager::event::{Origin, Request};

/// What to do with a message.
#[derive(Debug)]
pub enum Action {
    /// Send this message.
    Reply(Outgoing),
    /// Hand this to the manager; its answer goes through [`reply`] with the same message.
    Request(Request),
    /// Hand this to the manager, then dispatch the message again. `ListUnitsByNames` asks once for each name that is not
    /// loaded; whoever asks for the same unit twice gets [`error::Refusal::unknown_object`].
    RequestThenRetry(Request),
    /// Do this with unit files on disk; the outcome goes through [`unit_files_reply`].
    UnitFiles(UnitFileOperation),
    /// Mount this into a service that runs; the outcome goes through [`mounting_reply`].
    Mount(Mounting),
    /// Ask polkit this first; where it agrees, dispatch the message again with the right granted.
    Ask(polkit::Question),
    /// The message needs no answer.
    Ignore,
}

/// One method call on its way to a handler.
pub struct Call<'a> {
    /// The manager.
    pub manager: &'a Manager,
    /// The live facts that the runtime supplies.
    pub live: &'a dyn Live,
    /// The caller.
    pub caller: &'a Origin,
    /// What polkit granted it for this call.
    pub granted: Option<Right>,
    /// The message.
    pub message: &'a Incoming,
    /// What it is called on.
    pub object: &'a Object<'a>,
    /// The row of the method.
    pub method: &'a Method,
}

impl Call<'_> {
    /// Whether the caller has a right, by itself or because polkit granted it.
    fn may(&self, right: Right) -> Result<(), Refusal> {
        if self.granted == Some(right) { Ok(()) } else { right.check(self.caller) }
    }

    /// Answers with the values that the closure writes, which must be those of the row.
    pub fn reply(&self, write: impl FnOnce(&mut Out<'_>)) -> Result<Action, Refusal> {
        let signature: String = self.method.output.iter().map(|(signature, _)| *signature).collect();
        Ok(Action::Reply(wire::reply_to(self.message, &signature, write)))
    }

    /// Answers that all is well.
    pub fn done(&self) -> Result<Action, Refusal> {
        self.reply(|_| {})
    }
}

/// Says what to do with one incoming message of a peer whose kernel credentials are `caller`; with what polkit `granted`
/// it, where it was asked before.
pub fn dispatch(
    view: &Manager,
    live: &dyn Live,
    caller: &Origin,
    granted: Option<Right>,
    message: &Incoming,
) -> Action {
    if !wire::is_call(message) {
        return Action::Ignore;
    }
    let action = match object::resolve(view, live, caller, wire::path(message)) {
        Ok(object) => call(view, live, (caller, granted), message, &object),
        Err(object::Unresolved::NotLoaded(unit)) => {
            return Action::RequestThenRetry(Request::LoadUnit { unit });
        }
        Err(object::Unresolved::Refused(refusal)) => Err(refusal),
    };
    match action {
        Ok(Action::Reply(_)) if wire::wants_no_reply(message) => Action::Ignore,
        Ok(action) => action,
        Err(_) if wire::wants_no_reply(message) => Action::Ignore,
        Err(refusal) => Action::Reply(wire::error_to(message, &refusal)),
    }
}

fn call(
    manager: &Manager,
    live: &dyn Live,
    (caller, granted): (&Origin, Option<Right>),
    message: &Incoming,
    object: &Object<'_>,
) -> Result<Action, Refusal> {
    let (interface, member) = (wire::interface(message), wire::member(message));
    let found = object
        .interfaces()
        .filter(|candidate| interface.is_empty() || candidate.name == interface)
        .find_map(|candidate| candidate.method(member).map(|method| (candidate.name, method)));
    let (interface, method) = found.ok_or_else(|| Refusal::unknown_method(member, interface))?;
    let (given, expected) = (wire::signature(message), method.signature());
    if given != expected {
        return Err(Refusal::signature(&given, interface, member, &expected));
    }
    let call = Call { manager, live, caller, granted, message, object, method };
    let mut arguments = Args::new(message)?;
    let Err(refusal) = call.may(method.right) else { return (method.handler)(&call, &mut arguments) };
    // What is wrong in itself is said before a person is asked for a password.
    let Some(question) = polkit::Question::about(&call, method.right) else { return Err(refusal) };
    (method.handler)(&call, &mut arguments).map(|_| Action::Ask(question))
}
