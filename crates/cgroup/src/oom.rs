//! Processes that were killed for want of memory: by the kernel, `oom_kill` of `memory.events` (cgroup-v2, "Memory Interface
//! Files"), and by systemd-oomd, `user.oomd_kill`.
//!
//! The kernel tells that its file changed; what counts is the number, so that a kill is told once, whoever looks first.

use crate::Tree;
use muster_unit::OomPolicy;
use nix::sys::inotify::{AddWatchFlags, WatchDescriptor};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// More digits than a number of kills has.
const NUMBER_MAX: usize = 32;

/// The cgroups whose kills are followed.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// By path: the kernel's watch, where there is one, and the number of kills that were told.
    known: BTreeMap<String, (Option<WatchDescriptor>, u64)>,
    by_watch: BTreeMap<WatchDescriptor, String>,
    changed: BTreeSet<String>,
}

impl Followed {
    /// Takes the kernel's word of a change. False where the watch is not one of these.
    pub(crate) fn note(&mut self, watch: WatchDescriptor) -> bool {
        let path = self.by_watch.get(&watch);
        self.changed.extend(path.cloned());
        path.is_some()
    }

    /// The kernel lost words: all are to be looked at.
    pub(crate) fn note_all(&mut self) {
        self.changed.extend(self.known.keys().cloned());
    }
}

impl Tree {
    /// Tells of kills in a cgroup from now on; with `kill` the kernel takes all of it when it takes one. A cgroup that is new
    /// has seen none yet.
    pub fn follow_oom(&mut self, path: &str, policy: OomPolicy, is_new: bool) {
        let directory = self.directory(path);
        let all = policy == OomPolicy::Kill;
        if all || !is_new {
            // Older kernels have no such file, and kill one at a time.
            let _ = fs::write(format!("{directory}/memory.oom.group"), if all { "1" } else { "0" });
        }
        if self.oom.known.contains_key(path) {
            return;
        }
        // Without a watch the number is still looked at when a process was killed.
        let watch = self.has_file("memory.events").then(|| format!("{directory}/memory.events"));
        let watch =
            watch.and_then(|file| self.events.add_watch(file.as_str(), AddWatchFlags::IN_MODIFY).ok());
        let told = if is_new { 0 } else { self.oom_kills(path) };
        self.oom.by_watch.extend(watch.map(|watch| (watch, path.to_owned())));
        self.oom.known.insert(path.to_owned(), (watch, told));
    }

    /// Cgroups in which processes were killed since they were last told of.
    pub fn take_oom_kills(&mut self) -> Vec<String> {
        let changed = std::mem::take(&mut self.oom.changed);
        changed.into_iter().filter(|path| self.was_oom_killed(path)).collect()
    }

    /// Whether processes of a cgroup were killed since that was last told.
    pub fn was_oom_killed(&mut self, path: &str) -> bool {
        if !self.oom.known.contains_key(path) {
            return false;
        }
        let now = self.oom_kills(path);
        let told = self.oom.known.get_mut(path).map(|(_, told)| std::mem::replace(told, now));
        told.is_some_and(|told| told < now)
    }

    pub(crate) fn forget_oom(&mut self, path: &str) {
        let Some((watch, _)) = self.oom.known.remove(path) else { return };
        if let Some(watch) = watch {
            self.oom.by_watch.remove(&watch);
            let _ = self.events.rm_watch(watch);
        }
    }

    /// By the kernel, and by systemd-oomd, which writes it on the cgroup.
    fn oom_kills(&self, path: &str) -> u64 {
        let by_kernel = self.keyed(path, "memory.events", "oom_kill").unwrap_or(0);
        let path = std::ffi::CString::new(self.directory(path)).unwrap_or_default();
        let by_oomd = muster_sys::get_xattr_path(&path, c"user.oomd_kill", NUMBER_MAX).ok();
        let by_oomd =
            by_oomd.and_then(|bytes| String::from_utf8(bytes).ok()?.trim_end_matches('\0').parse().ok());
        by_kernel.saturating_add(by_oomd.unwrap_or(0))
    }
}
