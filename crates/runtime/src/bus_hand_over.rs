//! The connection to the system bus over a re-execution: the same descriptor, the same unique name, the same serials, so that
//! no call that is under way is lost, and nobody sees our names change hands.
//!
//! What must stay true: a call that was taken off the socket and not answered is answered by the next program. What was begun
//! for it by a helper of ours is begun once more, since nobody hears the end of the first.

use crate::clients::{Again, Clients};
use crate::hand_over::adopt;
use crate::system_bus::{Asked, Caller, SystemBus};
use crate::turn::{Runtime, Source};
use mio::Token;
use muster_bus::{Incoming, KeptMessage, KeptPeer, Peer};
use muster_control::authorize::Right;
use muster_graph::JobId;
use muster_manager::event::Origin;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsRawFd, RawFd};

/// The connection, and what is known through it.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedBus {
    fd: RawFd,
    peer: KeptPeer,
    asked: Vec<(u32, HandedAsked)>,
    callers: Vec<(String, HandedCaller)>,
    activation_jobs: Vec<(JobId, String)>,
    /// Calls that are looked at anew.
    again: Vec<HandedCall>,
}

/// A call that was not answered yet: whose it is, and what polkit granted for it.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedCall {
    pub(crate) origin: Origin,
    pub(crate) granted: Option<Right>,
    pub(crate) message: KeptMessage,
}

#[derive(Debug, Serialize, Deserialize)]
enum HandedAsked {
    Names,
    User(String),
    Process(String),
    Polkit(Right, Box<KeptMessage>),
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedCaller {
    uid: Option<u32>,
    pid: Option<u32>,
    origin: Option<Origin>,
    waiting: Vec<KeptMessage>,
}

impl HandedBus {
    /// Its descriptors, those of messages included.
    pub(crate) fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        let asked = self.asked.iter().filter_map(|(_, asked)| match asked {
            HandedAsked::Polkit(_, call) => Some(&**call),
            _ => None,
        });
        let waiting = self.callers.iter().flat_map(|(_, caller)| &caller.waiting);
        let messages = asked.chain(waiting).chain(self.again.iter().map(|call| &call.message));
        let own = std::iter::once(self.fd).chain(self.peer.fds());
        own.chain(messages.flat_map(|message| message.fds().iter().copied()))
    }
}

fn keep_asked(asked: &Asked) -> HandedAsked {
    match asked {
        Asked::Names => HandedAsked::Names,
        Asked::User(name) => HandedAsked::User(name.clone()),
        Asked::Process(name) => HandedAsked::Process(name.clone()),
        Asked::Polkit(right, call) => HandedAsked::Polkit(*right, Box::new(call.keep())),
    }
}

fn restore_asked(asked: HandedAsked) -> Asked {
    match asked {
        HandedAsked::Names => Asked::Names,
        HandedAsked::User(name) => Asked::User(name),
        HandedAsked::Process(name) => Asked::Process(name),
        HandedAsked::Polkit(right, call) => Asked::Polkit(right, Box::new(call.restore(adopt))),
    }
}

impl Clients {
    /// The connection to the bus for the next program, with these calls that helpers work for; nothing where there is none, or
    /// where it cannot be handed over.
    pub(crate) fn hand_bus<'a>(
        &self,
        helped: impl Iterator<Item = (Token, &'a Incoming)>,
    ) -> Option<HandedBus> {
        let token = self.bus.token?;
        let helped = helped.filter(|(client, _)| *client == token).filter_map(|(_, call)| {
            let origin = self.bus.callers.get(call.sender()?)?.origin.clone()?;
            Some(HandedCall { origin, granted: None, message: call.keep() })
        });
        let (fd, peer) = self.kept(token)?;
        let caller = |(name, caller): (&String, &Caller)| {
            let waiting = caller.waiting.iter().map(Incoming::keep).collect();
            let Caller { uid, pid, ref origin, .. } = *caller;
            (name.clone(), HandedCaller { uid, pid, origin: origin.clone(), waiting })
        };
        Some(HandedBus {
            fd,
            peer,
            asked: self.bus.asked.iter().map(|(serial, asked)| (*serial, keep_asked(asked))).collect(),
            callers: self.bus.callers.iter().map(caller).collect(),
            activation_jobs: self
                .bus
                .activation_jobs
                .iter()
                .map(|(job, unit)| (*job, unit.clone()))
                .collect(),
            again: self.pending_of(token).into_iter().chain(helped).collect(),
        })
    }
}

impl Runtime {
    /// Takes every message that was read already, so that none is left between the socket and us.
    pub(crate) fn take_bus_messages(&mut self) {
        if let Some(token) = self.clients.bus.token {
            self.client_messages(token, crate::clock::Budget::new(u64::MAX));
        }
    }

    /// Lets go of the connection.
    pub(crate) fn leave_bus(&mut self) {
        if let Some(token) = self.clients.bus.token {
            self.close_client(token);
        }
    }

    /// Goes on with the connection of the program before this one.
    pub(crate) fn take_bus(&mut self, handed: HandedBus) {
        let HandedBus { fd, peer, asked, callers, activation_jobs, again } = handed;
        let (fd, peer) = (adopt(fd), Peer::resume(peer, adopt));
        let Ok(token) = self.register_raw(fd.as_raw_fd(), Source::Client) else { return };
        self.clients.add(token, fd, peer, Origin::default());
        self.still_ready(token);
        let caller = |(name, caller): (String, HandedCaller)| {
            let HandedCaller { uid, pid, origin, waiting } = caller;
            let waiting = waiting.into_iter().map(|message| message.restore(adopt)).collect();
            (name, Caller { uid, pid, origin, waiting })
        };
        self.clients.bus = SystemBus {
            token: Some(token),
            asked: asked.into_iter().map(|(serial, asked)| (serial, restore_asked(asked))).collect(),
            callers: callers.into_iter().map(caller).collect(),
            activation_jobs: activation_jobs.into_iter().collect(),
            ..SystemBus::default()
        };
        for HandedCall { origin, granted, message } in again {
            self.handle_again(token, &origin, message.restore(adopt), Again { loaded: false, granted });
        }
    }
}
