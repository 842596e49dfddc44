//! Listening descriptors of socket units: traffic becomes events, connections are accepted in batches.
//!
//! Shortage (EMFILE, ENFILE, ENOMEM, ENOBUFS) never fails a unit: the descriptor rests for a moment and is tried again.

use crate::clock::{self, Budget};
use crate::turn::{Runtime, Source};
use mio::Token;
use muster_manager::effect::FdId;
use muster_manager::event::{Event, Peer};
use muster_socket::Accept;
use std::collections::BTreeMap;

/// At most this many connections of one descriptor are accepted before the next descriptor has its turn.
const ACCEPT_BATCH: usize = 16;
/// Time for descriptors that rested, in microseconds.
const RETRY_USEC: u64 = 500;
/// How long a descriptor rests after a shortage, in microseconds.
const REST_USEC: u64 = 100_000;

#[derive(Debug)]
struct Watched {
    token: Token,
    accept: bool,
    /// Tried again at this moment.
    retry_usec: Option<u64>,
}

/// The descriptors that are watched for traffic.
#[derive(Debug, Default)]
pub struct Listeners {
    watched: BTreeMap<FdId, Watched>,
}

impl Listeners {
    /// When the first resting descriptor is to be tried again.
    pub fn next_retry(&self) -> Option<u64> {
        self.watched.values().filter_map(|watched| watched.retry_usec).min()
    }
}

impl Runtime {
    pub(crate) fn watch_socket(&mut self, id: FdId, accept: bool) {
        if self.listeners.watched.contains_key(&id) {
            return;
        }
        let Some(raw) = self.fds.get(id).map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd)) else { return };
        match self.register_raw(raw, Source::Listener(id)) {
            Ok(token) => {
                self.listeners.watched.insert(id, Watched { token, accept, retry_usec: None });
            }
            Err(error) => {
                let message = format!("cannot be watched: {error}");
                self.follow_up.push_back(Event::AcceptFailed { listener: id, message });
            }
        }
    }

    pub(crate) fn unwatch_socket(&mut self, id: FdId) {
        let Some(watched) = self.listeners.watched.remove(&id) else { return };
        if let Some(raw) = self.fds.get(id).map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd)) {
            let _ = self.poll.registry().deregister(&mut mio::unix::SourceFd(&raw));
        }
        self.forget(watched.token);
    }

    pub(crate) fn listener_ready(&mut self, token: Token, id: FdId, budget: Budget) {
        let Some(watched) = self.listeners.watched.get(&id) else { return };
        if !watched.accept {
            return self.deliver(Event::SocketReadable { fd: id });
        }
        for _ in 0..ACCEPT_BATCH {
            if budget.is_spent() {
                break;
            }
            // The manager may stop watching at any connection (a limit, a stop).
            if !self.listeners.watched.contains_key(&id) {
                return;
            }
            let Some(fd) = self.fds.get(id) else { return };
            match muster_socket::accept(fd) {
                Accept::Connection { fd, peer } => {
                    let fd = self.fds.insert(fd);
                    let peer = Peer {
                        instance_tail: peer.instance_tail,
                        description: peer.description,
                        remote_addr: peer.remote_addr,
                        remote_port: peer.remote_port,
                        cookie: peer.cookie,
                        source: peer.source,
                    };
                    // Clients may come again before the end of their last connection was heard of.
                    if self.manager.would_refuse(id, &peer) {
                        self.catch_up_with_exits();
                    }
                    self.deliver(Event::Accepted { listener: id, fd, peer });
                }
                Accept::WouldBlock => return,
                Accept::Again => {}
                Accept::Exhausted(error) => return self.rest(id, &error.to_string()),
                Accept::Failed(error) => {
                    return self.deliver(Event::AcceptFailed { listener: id, message: error.to_string() });
                }
            }
        }
        self.still_ready(token);
    }

    fn rest(&mut self, id: FdId, reason: &str) {
        let until = clock::monotonic_usec().saturating_add(REST_USEC);
        if let Some(watched) = self.listeners.watched.get_mut(&id) {
            watched.retry_usec = Some(until);
        }
        self.deliver(Event::AcceptShort { listener: id, message: reason.to_owned() });
    }

    pub(crate) fn retry_listeners(&mut self) {
        let now = self.turn_usec;
        let due: Vec<(Token, FdId)> = self
            .listeners
            .watched
            .iter_mut()
            .filter(|(_, watched)| watched.retry_usec.is_some_and(|at| at <= now))
            .map(|(id, watched)| {
                watched.retry_usec = None;
                (watched.token, *id)
            })
            .collect();
        for (token, id) in due {
            self.listener_ready(token, id, Budget::new(RETRY_USEC));
        }
    }
}
