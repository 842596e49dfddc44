//! What comes over the notify socket, with what has to be known of its sender and of the process that it names.
//!
//! What must stay true: whoever is not to be heard (no process of a service, or one without `NotifyAccess=`) costs little.
//! Who sent a datagram is looked at before it is read, and a stranger's is dropped with its descriptors still in the kernel:
//! none of them is ever ours to close. When many strangers speak within a while, in however many turns, the socket rests
//! after each time it was read, and what units say waits that long.

use crate::clock::{self, Budget};
use crate::notify::{self, Notification, Received};
use crate::turn::{Runtime, Source};
use muster_manager::effect::Level;
use muster_manager::event::{Event, Named};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// Time for notifications in one turn, in microseconds.
const NOTIFY_USEC: u64 = 1000;
/// At most this many datagrams of strangers are read in one turn.
const STRANGERS_MAX: u64 = 128;
/// After this many of them the socket rests.
const CREDIT: u64 = 64;
/// One more may come each of these microseconds.
const CREDIT_USEC: u64 = 10_000;
/// Strangers are not read again for this long at least, in microseconds.
const REST_USEC: u64 = 4000;
/// And for this many times the time that it took to read them, which limits the share of a core that they get.
const REST_SHARE: u64 = 19;

/// Senders that belong to no unit.
#[derive(Debug, Default)]
pub struct Strangers {
    /// The socket rests until then.
    until_usec: Option<u64>,
    /// Datagrams beyond what may come, and when that was counted, in monotonic microseconds.
    count: u64,
    counted_usec: u64,
    /// The last sender of a service that was told that it is not heard.
    told: Option<u32>,
    /// Datagrams dropped since it was last said.
    dropped: u64,
    /// When it was last said, in monotonic microseconds.
    said_usec: u64,
}

impl Strangers {
    /// When the socket is read again.
    pub fn rest_until_usec(&self) -> Option<u64> {
        self.until_usec
    }

    /// Counts `more` datagrams. True when that is too many.
    fn are_too_many(&mut self, more: u64, now: u64) -> bool {
        let credit = now.saturating_sub(self.counted_usec).checked_div(CREDIT_USEC).unwrap_or(0);
        if credit > 0 {
            self.counted_usec = now;
        }
        // What is over the edge is forgotten: a flood that ended is not remembered for long.
        self.count = self.count.saturating_sub(credit).saturating_add(more).min(CREDIT.saturating_mul(2));
        self.count >= CREDIT
    }
}

impl Runtime {
    /// True when the notify socket was read empty.
    pub(crate) fn drain_notify(&mut self) -> bool {
        let now = clock::now().monotonic_usec;
        if self.strangers.until_usec.is_some_and(|until| until > now) {
            return false;
        }
        if self.strangers.until_usec.take().is_some() {
            self.watch_notify(true);
        }
        let budget = Budget::new(NOTIFY_USEC);
        // Good for one turn only: a number may be another process's in the next.
        let mut senders: BTreeMap<u32, Option<String>> = BTreeMap::new();
        let mut buffer = Vec::new();
        let mut strangers = 0_u64;
        while !budget.is_spent() && strangers < STRANGERS_MAX {
            let sender = notify::next_sender(&self.notify);
            let cgroup = sender.and_then(|(pid, _)| {
                senders.entry(pid).or_insert_with(|| self.cgroups.of_process(pid)).clone()
            });
            if let Some((pid, _)) = sender.filter(|(pid, _)| !self.is_heard(*pid, cgroup.as_deref())) {
                // Of a service: it is said once.
                if self.strangers.told != Some(pid) && self.manager.is_of_service(pid, cgroup.as_deref()) {
                    self.strangers.told = Some(pid);
                    self.deliver(Event::Notified {
                        pid,
                        uid: 0,
                        cgroup,
                        fields: Vec::new(),
                        fds: Vec::new(),
                        named: None,
                    });
                }
                notify::discard(&self.notify);
                strangers = strangers.saturating_add(1);
                continue;
            }
            match notify::receive(&self.notify, &mut buffer) {
                Received::Empty => {
                    self.strangers_spoke(strangers, now);
                    return true;
                }
                Received::Dropped(reason, fds) => {
                    self.note(Level::Warning, &format!("Ignored a notification: {reason}."));
                    fds.into_iter().for_each(|fd| self.close_foreign(fd));
                }
                Received::Message(message) => self.notified(message, cgroup),
            }
        }
        self.strangers_spoke(strangers, now);
        false
    }

    /// Whether what a process says counts for a unit. Once it is gone, only its number tells whose it was.
    fn is_heard(&self, pid: u32, cgroup: Option<&str>) -> bool {
        self.manager.unit_of_process(pid, cgroup).is_some_and(|id| self.manager.may_notify(id, pid))
    }

    /// A socket that rests wakes nobody: each datagram would.
    fn watch_notify(&mut self, on: bool) {
        let Some(token) = self.token_of(Source::Notify) else { return };
        let raw = self.notify.as_raw_fd();
        let (registry, mut source) = (self.poll.registry(), mio::unix::SourceFd(&raw));
        let done = if on {
            registry.register(&mut source, token, mio::Interest::READABLE)
        } else {
            registry.deregister(&mut source)
        };
        if let Err(error) = done {
            self.note(Level::Error, &format!("The notify socket cannot be watched: {error}"));
        }
    }

    /// Notes that this many datagrams of strangers were read since `since_usec`.
    fn strangers_spoke(&mut self, strangers: u64, since_usec: u64) {
        if strangers == 0 {
            return;
        }
        let now = clock::now().monotonic_usec;
        if self.strangers.are_too_many(strangers, now) {
            let rest = now.saturating_sub(since_usec).saturating_mul(REST_SHARE).max(REST_USEC);
            self.strangers.until_usec = Some(now.saturating_add(rest));
            self.watch_notify(false);
        }
        self.strangers.dropped = self.strangers.dropped.saturating_add(strangers);
        if now.saturating_sub(self.strangers.said_usec) > 10_000_000 {
            self.strangers.said_usec = now;
            let count = std::mem::take(&mut self.strangers.dropped);
            self.note(
                Level::Warning,
                &format!("Ignored notifications of processes that belong to no unit ({count})."),
            );
        }
    }

    fn notified(&mut self, message: Notification, cgroup: Option<String>) {
        let (named, held) = self.named_process(&message);
        let fds = message.fds.into_iter().map(|fd| self.fds.insert(fd)).collect();
        let pid = named.as_ref().map(|named| named.pid);
        if let (Some(pid), Some(held)) = (pid, held) {
            self.processes.hold(pid, held);
        }
        self.deliver(Event::Notified {
            pid: message.pid,
            uid: message.uid,
            cgroup,
            fields: message.fields,
            fds,
            named,
        });
        self.processes.let_go();
    }

    /// The process of `MAINPID=` (with `MAINPIDFDID=`, where the kernel numbers pidfds) or `MAINPIDFD=1`, and its pidfd.
    fn named_process(&self, message: &Notification) -> (Option<Named>, Option<OwnedFd>) {
        let get = |key: &str| {
            message.fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
        };
        let by_fd = match (get("MAINPIDFD"), message.fds.as_slice()) {
            (Some("1"), [fd]) => pid_of_pidfd(fd.as_raw_fd()),
            _ => None,
        };
        let Some(pid) = by_fd.or_else(|| get("MAINPID").and_then(|text| text.parse::<u32>().ok())) else {
            return (None, None);
        };
        let held = muster_sys::pidfd_open(pid).ok();
        let number = held.as_ref().and_then(|fd| nix::sys::stat::fstat(fd).ok()).map(|stat| stat.st_ino);
        let wanted = get("MAINPIDFDID").and_then(|text| text.parse::<u64>().ok()).filter(|_| by_fd.is_none());
        let same = wanted.is_none_or(|wanted| number == Some(wanted));
        let alive = held.is_some() && same && crate::processes::is_alive(pid);
        (Some(Named { pid, alive, cgroup: self.cgroups.of_process(pid) }), held)
    }
}

/// The process that a pidfd is for.
fn pid_of_pidfd(fd: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}
