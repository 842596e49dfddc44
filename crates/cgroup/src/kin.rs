//! Which process belongs to which unit where no cgroup says it: in a container whose cgroup tree is read-only, not ours, or
//! absent.
//!
//! What we start is known by its number, and so is what descends from it. Who lost its parents is our child, and known by
//! its session, which only what we start can be in; one that left its session as well belongs to the unit whose invocation
//! its environment names, which is enough to end it with the unit and too little for its word (`sd_notify`) to count. What
//! must stay true: a number is believed together with the time at which its process began; nothing here recurses, and a
//! watch is a pidfd of one process that lives, never a look from time to time.

use crate::{Population, WALK_MAX};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The longest environment that is looked into, in bytes.
const ENVIRONMENT_MAX: u64 = 128 * 1024;
/// So often a process that is just becoming another program is given the processor, to see its environment.
const EXECUTING_TRIES: usize = 64;
/// The longest line of ancestors that is followed.
const ANCESTORS_MAX: usize = 4096;

/// What the next program is to know of it: processes with the time at which they began, sessions, and invocations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// (number, when it began, where it belongs).
    pub processes: Vec<(u32, u64, String)>,
    /// (session, where it belongs).
    pub sessions: Vec<(u32, String)>,
    /// (path, invocation).
    pub invocations: Vec<(String, String)>,
}

/// What /proc says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    ended: bool,
    parent: u32,
    session: u32,
    began: u64,
}

/// Who belongs where.
#[derive(Debug)]
pub(crate) struct Kin {
    known: BTreeMap<u32, (u64, String)>,
    by_path: BTreeMap<String, BTreeSet<u32>>,
    sessions: BTreeMap<u32, String>,
    invocations: BTreeMap<String, String>,
    /// What is watched, and the process that has to end first; none while nobody is there.
    watched: BTreeMap<String, Option<u32>>,
    witnesses: BTreeMap<u32, OwnedFd>,
    events: Epoll,
}

impl Kin {
    pub(crate) fn new(known: Known) -> io::Result<Kin> {
        let mut kin = Kin {
            known: BTreeMap::new(),
            by_path: BTreeMap::new(),
            sessions: known.sessions.into_iter().collect(),
            invocations: known.invocations.into_iter().collect(),
            watched: BTreeMap::new(),
            witnesses: BTreeMap::new(),
            events: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        };
        for (pid, began, path) in known.processes {
            kin.know(pid, began, &path);
        }
        Ok(kin)
    }

    /// What is known, for the next program.
    pub(crate) fn known(&self) -> Known {
        Known {
            processes: self.known.iter().map(|(pid, (began, path))| (*pid, *began, path.clone())).collect(),
            sessions: self.sessions.iter().map(|(session, path)| (*session, path.clone())).collect(),
            invocations: self.invocations.iter().map(|(path, id)| (path.clone(), id.clone())).collect(),
        }
    }

    /// Readable when a process that is waited for has ended.
    pub(crate) fn events_fd(&self) -> i32 {
        self.events.0.as_raw_fd()
    }

    /// We started a process, or one was moved: it belongs there.
    pub(crate) fn add(&mut self, path: &str, pid: u32, invocation: Option<&str>) {
        let Some(stat) = stat(pid) else { return };
        if let Some(invocation) = invocation {
            // What we start begins a session of its own in a moment.
            self.sessions.insert(pid, path.to_owned());
            self.invocations.insert(path.to_owned(), invocation.to_owned());
        }
        self.know(pid, stat.began, path);
        let waiting =
            self.watched.iter().filter(|(watched, witness)| witness.is_none() && is_below(path, watched));
        let waiting: Vec<String> = waiting.map(|(watched, _)| watched.clone()).collect();
        waiting.iter().for_each(|watched| self.watch(watched));
    }

    /// A child of ours is about to be reaped, after which its number is free.
    pub(crate) fn forget(&mut self, pid: u32) {
        let Some((_, path)) = self.known.remove(&pid) else { return };
        if let Some(pids) = self.by_path.get_mut(&path) {
            pids.remove(&pid);
            if pids.is_empty() {
                self.by_path.remove(&path);
            }
        }
    }

    fn know(&mut self, pid: u32, began: u64, path: &str) {
        self.forget(pid);
        self.known.insert(pid, (began, path.to_owned()));
        self.by_path.entry(path.to_owned()).or_default().insert(pid);
    }

    /// Nothing will run there any more. Who stays is still known.
    pub(crate) fn remove(&mut self, path: &str) {
        self.unwatch(path);
        if self.population(path) == Population::Empty {
            self.invocations.remove(path);
            self.sessions.retain(|session, of| of != path || stat(*session).is_some());
        }
    }

    /// The same where that is so already.
    pub(crate) fn remove_if_empty(&mut self, path: &str) -> bool {
        let empty = self.population(path) == Population::Empty;
        if empty {
            self.remove(path);
        }
        empty
    }

    /// Where a process belongs, by the kernel's word.
    pub(crate) fn of(&self, pid: u32) -> Option<String> {
        let mut at = pid;
        let first = stat(pid)?;
        let mut now = first;
        for _ in 0..ANCESTORS_MAX {
            if let Some((began, path)) = self.known.get(&at) {
                if *began == now.began {
                    return Some(path.clone());
                }
            }
            if now.parent <= 1 {
                break;
            }
            at = now.parent;
            now = stat(at)?;
        }
        self.sessions.get(&first.session).cloned()
    }

    /// The same, and where that says nothing of a child of ours, by its own word.
    pub(crate) fn claimed_by(&self, pid: u32) -> Option<String> {
        self.of(pid).or_else(|| {
            let invocation = invocation_of(pid)?;
            self.invocations.iter().find(|(_, id)| **id == invocation).map(|(path, _)| path.clone())
        })
    }

    /// (path, process) for all that live at and below a path.
    pub(crate) fn processes(&self, path: &str) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut left: Vec<(String, u32)> = self.roots(path);
        while let Some((of, pid)) = left.pop() {
            if found.len() >= WALK_MAX || !seen.insert(pid) {
                continue;
            }
            for child in children(pid) {
                let at = self.known.get(&child).map_or(&of, |(_, path)| path);
                if is_below(at, path) {
                    left.push((at.clone(), child));
                }
            }
            if stat(pid).is_some_and(|stat| !stat.ended) {
                found.push((of, pid));
            }
        }
        found
    }

    /// Who was seen while its parents live stays known when they do not.
    pub(crate) fn remember(&mut self, found: &[(String, u32)]) {
        for (path, pid) in found {
            let began = stat(*pid).map(|stat| stat.began);
            // By the kernel's word alone.
            if let Some(began) = began.filter(|_| !self.known.contains_key(pid) && self.of(*pid).is_some()) {
                self.know(*pid, began, path);
            }
        }
    }

    /// Those from whom all others descend: who is known, and children of ours that lost their parents.
    fn roots(&self, path: &str) -> Vec<(String, u32)> {
        let is_same = |pid: u32| {
            self.known.get(&pid).is_some_and(|(began, _)| stat(pid).is_some_and(|stat| stat.began == *began))
        };
        let known = self.by_path.range(path.to_owned()..).take_while(|(at, _)| at.starts_with(path));
        let known = known.filter(|(at, _)| is_below(at, path));
        let known = known.flat_map(|(at, pids)| pids.iter().map(move |pid| (at.clone(), *pid)));
        let mut all: Vec<(String, u32)> = known.filter(|(_, pid)| is_same(*pid)).collect();
        let orphans = children(std::process::id()).into_iter().filter(|pid| !self.known.contains_key(pid));
        all.extend(
            orphans.filter_map(|pid| Some((self.claimed_by(pid)?, pid))).filter(|(at, _)| is_below(at, path)),
        );
        all
    }

    /// Whether somebody lives at or below a path.
    pub(crate) fn population(&self, path: &str) -> Population {
        match self.witness(path) {
            Some(_) => Population::Populated,
            None => Population::Empty,
        }
    }

    /// Somebody who lives there. A descendant of one that ended is a child of ours, or has a parent that lives. Where nobody is
    /// found it is looked once more: a list of children leaves some out when others end while it is read (proc_tid_children(5)).
    fn witness(&self, path: &str) -> Option<u32> {
        let lives = |pid: &u32| stat(*pid).is_some_and(|stat| !stat.ended);
        let look = || self.roots(path).into_iter().map(|(_, pid)| pid).find(lives);
        look().or_else(look)
    }

    /// Tells when nobody lives there any more.
    pub(crate) fn watch(&mut self, path: &str) {
        if self.watched.get(path).is_some_and(Option::is_some) {
            return;
        }
        let witness = self.witness(path).filter(|pid| self.wait_for(*pid));
        self.watched.insert(path.to_owned(), witness);
    }

    fn wait_for(&mut self, pid: u32) -> bool {
        if self.witnesses.contains_key(&pid) {
            return true;
        }
        let Ok(pidfd) = muster_sys::pidfd_open(pid) else { return false };
        let wanted = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(pid));
        let added = self.events.add(pidfd.as_fd(), wanted).is_ok();
        if added {
            self.witnesses.insert(pid, pidfd);
        }
        added
    }

    /// Stops telling.
    pub(crate) fn unwatch(&mut self, path: &str) {
        let Some(Some(witness)) = self.watched.remove(path) else { return };
        if !self.watched.values().any(|other| *other == Some(witness)) {
            self.let_go(witness);
        }
    }

    fn let_go(&mut self, witness: u32) {
        if let Some(pidfd) = self.witnesses.remove(&witness) {
            let _ = self.events.delete(pidfd.as_fd());
        }
    }

    /// What was watched and has nobody any more.
    pub(crate) fn drain(&mut self) -> Vec<String> {
        let mut emptied = Vec::new();
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = self.events.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
            if count == 0 {
                return emptied;
            }
            for event in events.iter().take(count) {
                let Ok(pid) = u32::try_from(event.data()) else { continue };
                self.let_go(pid);
                let of = self.watched.iter().filter(|(_, witness)| **witness == Some(pid));
                let of: Vec<String> = of.map(|(path, _)| path.clone()).collect();
                for path in of {
                    self.watched.insert(path.clone(), None);
                    self.watch(&path);
                    if self.watched.get(&path) == Some(&None) {
                        emptied.push(path);
                    }
                }
            }
        }
    }
}

/// Whether a path is another or below it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What /proc/PID/stat says (proc_pid_stat(5)).
fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(text: &str) -> Option<Stat> {
    // The name may hold blanks and parentheses: what follows the last one is fixed.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().unwrap_or(0);
    let began = fields.nth(15)?.parse().ok()?;
    Some(Stat { ended, parent, session, began })
}

/// The children of a process, of all its threads (proc_tid_children(5)).
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// `INVOCATION_ID` in the environment that a process began with.
fn invocation_of(pid: u32) -> Option<String> {
    let mut bytes = environment(pid)?;
    for _ in 0..EXECUTING_TRIES {
        if !bytes.is_empty() || !is_executing(pid) {
            break;
        }
        std::thread::yield_now();
        bytes = environment(pid)?;
    }
    let value = bytes.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"INVOCATION_ID="))?;
    String::from_utf8(value.to_vec()).ok()
}

fn environment(pid: u32) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(ENVIRONMENT_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Whether a process lives and has no environment, not even an empty one: for the moment in which it becomes another program
/// (proc_pid_stat(5), `env_end`).
fn is_executing(pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let Some((_, fields)) = text.rsplit_once(')') else { return false };
    let mut fields = fields.split_whitespace();
    let lives = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
    lives && fields.nth(47) == Some("0")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_line_of_stat() {
        let text = "7 (a) b) S 1 7 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 2";
        assert_eq!(parse(text), Some(Stat { ended: false, parent: 1, session: 5, began: 4711 }));
    }

    #[test]
    fn what_runs_is_not_executing() {
        assert!(!is_executing(std::process::id()));
        let mut bare = Command::new("sleep").arg("1000").env_clear().spawn().unwrap();
        while is_executing(bare.id()) {
            std::thread::yield_now();
        }
        assert_eq!(invocation_of(bare.id()), None);
        bare.kill().unwrap();
        bare.wait().unwrap();
        assert!(!is_executing(bare.id()));
    }

    #[test]
    fn who_descends_belongs_and_the_last_end_is_told() {
        let mut kin = Kin::new(Known::default()).unwrap();
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "sleep 1000 & echo; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        kin.add("/a.slice/b.service", shell.id(), Some("0"));
        assert_eq!(kin.of(shell.id()).as_deref(), Some("/a.slice/b.service"));
        assert_eq!(kin.processes("/a.slice").len(), 2);
        assert_eq!(kin.processes("/a").len(), 0);
        kin.watch("/a.slice/b.service");
        let again = Kin::new(kin.known()).unwrap();
        assert_eq!(again.population("/a.slice/b.service"), Population::Populated);
        let all = kin.processes("/a.slice/b.service");
        for (_, pid) in &all {
            let held = muster_sys::pidfd_open(*pid).unwrap();
            muster_sys::pidfd_send_signal(held.as_fd(), 9).unwrap();
        }
        shell.wait().unwrap();
        kin.forget(shell.id());
        // The grandchild was reaped by whoever takes orphans in; it may take a moment.
        while kin.population("/a.slice/b.service") != Population::Empty {
            std::thread::yield_now();
        }
        let mut told = kin.drain();
        while told.is_empty() {
            std::thread::yield_now();
            told = kin.drain();
        }
        assert_eq!(told, ["/a.slice/b.service"]);
        assert!(kin.drain().is_empty());
    }
}
