//! The notify socket as a source: what comes over it, with what has to be known of its sender and of the process that it names.
//!
//! What must stay true: whoever is not to be heard (no process of a service, or one without `NotifyAccess=`) costs little.
//! Who sent a datagram is looked at before it is read, and a stranger's is dropped with its descriptors still in the kernel:
//! none of them is ever ours to close. When many strangers speak within a while, in however many turns, the socket rests
//! after each time it was read, and what units say waits that long.

use super::{KernelSource, World};
use crate::clock;
use crate::notify::{self, Notification, Received};
use muster_manager::effect::Level;
use muster_manager::event::{Event, Named};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

/// At most this many datagrams of strangers are read at once.
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
struct Strangers {
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

/// The socket.
pub struct Notify {
    socket: Rc<OwnedFd>,
    strangers: Strangers,
    /// It was read empty.
    empty: bool,
    buffer: Vec<u8>,
}

impl Notify {
    /// This socket, as a source.
    pub fn of(socket: Rc<OwnedFd>) -> Notify {
        Notify { socket, strangers: Strangers::default(), empty: false, buffer: Vec::new() }
    }

    /// Notes that this many datagrams of strangers were read since `since_usec`.
    fn strangers_spoke(&mut self, strangers: u64, since_usec: u64, world: &mut World<'_>) {
        if strangers == 0 {
            return;
        }
        let now = clock::monotonic_usec();
        if self.strangers.are_too_many(strangers, now) {
            let rest = now.saturating_sub(since_usec).saturating_mul(REST_SHARE).max(REST_USEC);
            self.strangers.until_usec = Some(now.saturating_add(rest));
        }
        self.strangers.dropped = self.strangers.dropped.saturating_add(strangers);
        if now.saturating_sub(self.strangers.said_usec) > 10_000_000 {
            self.strangers.said_usec = now;
            let count = std::mem::take(&mut self.strangers.dropped);
            let text = format!("Ignored notifications of processes that belong to no unit ({count}).");
            world.complaints.push((Level::Warning, text));
        }
    }

    /// Reads until something is to be told; what strangers send is dropped on the way, and counted.
    fn next(&mut self, strangers: &mut u64, world: &mut World<'_>) -> Option<Event> {
        // Good for this moment only: a number may be another process's later.
        let mut senders: BTreeMap<u32, Option<String>> = BTreeMap::new();
        while *strangers < STRANGERS_MAX {
            let sender = match notify::next_sender(&self.socket) {
                notify::Next::Of(sender) => sender,
                notify::Next::Nothing => {
                    self.empty = true;
                    return None;
                }
            };
            let cgroup = sender.filter(|(pid, _)| !is_ours(world, *pid)).and_then(|(pid, _)| {
                senders.entry(pid).or_insert_with(|| world.cgroups.of_process(pid)).clone()
            });
            if let Some((pid, _)) = sender.filter(|(pid, _)| !is_heard(world, *pid, cgroup.as_deref())) {
                notify::discard(&self.socket);
                *strangers = strangers.saturating_add(1);
                // Of a service: it is said once.
                if self.strangers.told != Some(pid) && world.manager.is_of_service(pid, cgroup.as_deref()) {
                    self.strangers.told = Some(pid);
                    let (fields, fds) = (Vec::new(), Vec::new());
                    return Some(Event::Notified { pid, uid: 0, cgroup, fields, fds, named: None });
                }
                continue;
            }
            match notify::receive(&self.socket, &mut self.buffer) {
                Received::Empty => {
                    self.empty = true;
                    return None;
                }
                Received::Dropped(reason, fds) => {
                    world.complaints.push((Level::Warning, format!("Ignored a notification: {reason}.")));
                    world.foreign.extend(fds);
                }
                Received::Message(message) => return Some(notified(message, cgroup, world)),
            }
        }
        None
    }
}

impl KernelSource for Notify {
    fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn events(&mut self, now_usec: u64, world: &mut World<'_>) -> io::Result<Vec<Event>> {
        world.processes.let_go();
        self.empty = false;
        if self.strangers.until_usec.is_some_and(|until| until > now_usec) {
            return Ok(Vec::new());
        }
        self.strangers.until_usec = None;
        let mut strangers = 0;
        let event = self.next(&mut strangers, world);
        self.strangers_spoke(strangers, now_usec, world);
        Ok(event.into_iter().collect())
    }

    /// While it rests, the end of the rest.
    fn due_usec(&self) -> Option<u64> {
        self.strangers.until_usec
    }

    fn has_more(&self) -> bool {
        !self.empty
    }

    fn is_watched(&self) -> bool {
        self.strangers.until_usec.is_none()
    }
}

/// Whether a process was started for a unit and is not reaped, so that its number alone tells whose it is.
fn is_ours(world: &World<'_>, pid: u32) -> bool {
    world.processes.has_child(pid) && world.manager.unit_of_process(pid, None).is_some()
}

/// Whether what a process says counts for a unit. Once it is gone, only its number tells whose it was.
fn is_heard(world: &World<'_>, pid: u32, cgroup: Option<&str>) -> bool {
    let unit = world.manager.unit_of_process(pid, cgroup);
    unit.is_some_and(|id| world.manager.may_notify(id, pid))
}

fn notified(message: Notification, cgroup: Option<String>, world: &mut World<'_>) -> Event {
    let (named, held) = named_process(&message, world);
    let fds = message.fds.into_iter().map(|fd| world.fds.insert(fd)).collect();
    if let (Some(named), Some(held)) = (&named, held) {
        world.processes.hold(named.pid, held);
    }
    let Notification { pid, uid, fields, .. } = message;
    Event::Notified { pid, uid, cgroup, fields, fds, named }
}

/// The process of `MAINPID=` (with `MAINPIDFDID=`, where the kernel numbers pidfds) or `MAINPIDFD=1`, and its pidfd.
fn named_process(message: &Notification, world: &World<'_>) -> (Option<Named>, Option<OwnedFd>) {
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
    (Some(Named { pid, alive, cgroup: world.cgroups.of_process(pid) }), held)
}

/// The process that a pidfd is for.
fn pid_of_pidfd(fd: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}
