//! The loop and its kernel sources: what they tell becomes events, in order, within a budget of time for each.
//!
//! What must stay true: a source that has more to say is asked again in the next turn, if it does not rest; one that rests is not
//! waited on, and asked when its rest is over.

use crate::clock::{self, Budget};
use crate::source::{KernelSource, SourceId, Table, World};
use crate::turn::{Runtime, Source};
use mio::Token;
use mio::unix::SourceFd;
use muster_manager::effect::Level;
use muster_manager::event::Event;
use std::collections::BTreeSet;
use std::io;

/// For one source in one turn, in microseconds.
const SOURCE_USEC: u64 = 1000;

/// A source that the loop waits on.
pub(crate) struct Watched {
    pub(crate) source: Box<dyn KernelSource>,
    token: Token,
    /// Whether the kernel is asked to tell of it.
    registered: bool,
}

impl Runtime {
    /// Waits on a source from now on. What came before is there already.
    pub(crate) fn add_source(&mut self, id: SourceId, source: Box<dyn KernelSource>) -> io::Result<()> {
        let token = self.register(source.descriptor(), Source::Kernel(id), source.interest())?;
        self.still_ready(token);
        self.kernel.insert(id, Watched { source, token, registered: true });
        Ok(())
    }

    /// Forgets a source.
    pub(crate) fn remove_source(&mut self, id: SourceId) {
        let Some(watched) = self.kernel.remove(&id) else { return };
        let raw = watched.source.descriptor();
        let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
        self.forget(watched.token);
    }

    /// Says a word to who is at the other end.
    pub(crate) fn order_source(&mut self, id: SourceId, word: &[u8]) {
        if let Some(watched) = self.kernel.get_mut(&id) {
            watched.source.order(word);
        }
    }

    /// How everything is now.
    pub(crate) fn read_tables(&mut self) {
        let ids: Vec<SourceId> = self.kernel.keys().copied().collect();
        for id in ids {
            if let SourceId::Table(table) = id {
                for event in self.everything_in(table) {
                    self.deliver(event);
                }
            }
        }
    }

    /// How one of them is now.
    pub(crate) fn everything_in(&mut self, table: Table) -> Vec<Event> {
        let id = SourceId::Table(table);
        let told = self.kernel.get_mut(&id).map(|watched| watched.source.everything());
        self.mind_registration(id);
        self.told(id, told)
    }

    /// Reads what is ready, or due.
    pub(crate) fn follow_sources(&mut self, ready: &BTreeSet<SourceId>) {
        let now = self.turn_usec;
        let is_due = |id: SourceId, watched: &Watched| {
            ready.contains(&id)
                || watched.source.due_usec().is_some_and(|at| at <= now)
                // Nothing tells that a cgroup came whose emptiness will not be told.
                || (id == SourceId::Cgroups && watched.source.due_usec().is_none() && self.cgroups.is_uncertain())
        };
        let due = self.kernel.iter().filter(|(id, watched)| is_due(**id, watched));
        // The notify socket has its own moment.
        let ids: Vec<SourceId> = due.map(|(id, _)| *id).filter(|id| *id != SourceId::Notify).collect();
        for id in ids {
            self.follow_source(id);
        }
    }

    /// Reads the notify socket. True when it was read empty.
    pub(crate) fn read_notify(&mut self) -> bool {
        self.follow_source(SourceId::Notify);
        self.kernel.get(&SourceId::Notify).is_none_or(|watched| !watched.source.has_more())
    }

    /// Whether the notify socket is left alone for a moment.
    pub(crate) fn notify_rests(&self) -> bool {
        self.kernel.get(&SourceId::Notify).is_some_and(|watched| watched.source.due_usec().is_some())
    }

    fn follow_source(&mut self, id: SourceId) {
        let mut budget = None;
        loop {
            let now = clock::recent_usec();
            let budget = *budget.get_or_insert(Budget::beginning_at(now, SOURCE_USEC));
            let (mut complaints, mut foreign) = (Vec::new(), Vec::new());
            let Some(watched) = self.kernel.get_mut(&id) else { return };
            let mut world = World {
                manager: &self.manager,
                cgroups: &mut self.cgroups,
                fds: &mut self.fds,
                processes: &mut self.processes,
                complaints: &mut complaints,
                foreign: &mut foreign,
            };
            let told = watched.source.events(now, &mut world);
            let (more, rests) = (watched.source.has_more(), watched.source.due_usec().is_some());
            let token = watched.token;
            self.mind_registration(id);
            complaints.iter().for_each(|(level, text)| self.note(*level, text));
            foreign.into_iter().for_each(|fd| self.close_foreign(fd));
            for event in self.told(id, Some(told)) {
                self.deliver(event);
            }
            if !more || rests {
                return;
            }
            if budget.is_spent() {
                return self.still_ready(token);
            }
        }
    }

    /// A source that rests wakes nobody.
    fn mind_registration(&mut self, id: SourceId) {
        let Some(watched) = self.kernel.get_mut(&id) else { return };
        let wanted = watched.source.is_watched();
        if wanted == watched.registered {
            return;
        }
        let raw = watched.source.descriptor();
        let (registry, mut source) = (self.poll.registry(), SourceFd(&raw));
        let done = if wanted {
            registry.register(&mut source, watched.token, watched.source.interest())
        } else {
            registry.deregister(&mut source)
        };
        watched.registered = wanted;
        if let Err(error) = done {
            self.note(Level::Error, &format!("{id:?} cannot be watched: {error}"));
        }
    }

    fn told(&mut self, id: SourceId, told: Option<io::Result<Vec<Event>>>) -> Vec<Event> {
        told.transpose().map(Option::unwrap_or_default).unwrap_or_else(|error| {
            self.note(Level::Warning, &format!("{id:?} could not be read: {error}"));
            Vec::new()
        })
    }
}
