//! Jobs: what may be asked of a unit, how two requests merge, and in which order two jobs run.
//!
//! The tables follow systemctl(1), "JOBS" of systemd(1) and org.freedesktop.systemd1(5). A merge is symmetric and
//! never weakens a request: what both askers wanted is true when the merged job is done.

use crate::edge::UnitId;
use serde::{Deserialize, Serialize};

/// A job, by the number that D-Bus shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u32);

macro_rules! words {
    ($(#[$meta:meta])* $type:ident { $($name:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)] // each variant is its word
        pub enum $type { $($name,)* }
        impl $type {
            /// The word used on D-Bus and in messages.
            pub fn as_str(self) -> &'static str { match self { $($type::$name => $text,)* } }
            /// The variant of a word.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some($type::$name),)* _ => None }
            }
        }
    };
}
words! {
    /// What a job does. The last four are resolved to one of the first five when the transaction is built.
    JobType {
        Start = "start", VerifyActive = "verify-active", Stop = "stop", Reload = "reload", Restart = "restart",
        Nop = "nop", TryRestart = "try-restart", TryReload = "try-reload", ReloadOrStart = "reload-or-start",
    }
}
words! {
    /// How a new request meets what is queued already (systemctl(1), `--job-mode=`).
    JobMode {
        Fail = "fail", Replace = "replace", ReplaceIrreversibly = "replace-irreversibly", Isolate = "isolate",
        Flush = "flush", IgnoreDependencies = "ignore-dependencies", IgnoreRequirements = "ignore-requirements",
        Triggering = "triggering", RestartDependencies = "restart-dependencies", Lenient = "lenient",
    }
}
words! {
    /// How a job ended.
    JobResult {
        Done = "done", Canceled = "canceled", Timeout = "timeout", Failed = "failed", Dependency = "dependency",
        Skipped = "skipped", Invalid = "invalid", Assert = "assert", Unsupported = "unsupported",
        Collected = "collected", Once = "once", Frozen = "frozen", Concurrency = "concurrency",
    }
}

impl JobResult {
    /// Whether what was asked for is so.
    pub fn is_fulfilled(self) -> bool {
        matches!(self, JobResult::Done | JobResult::Skipped)
    }
}

impl JobType {
    /// What remains of the request for a unit that is `active` (or activating, or reloading) or not.
    pub fn collapse(self, active: bool) -> JobType {
        match (self, active) {
            (JobType::TryRestart, true) => JobType::Restart,
            (JobType::TryReload | JobType::ReloadOrStart, true) => JobType::Reload,
            (JobType::TryRestart | JobType::TryReload, false) => JobType::Nop,
            (JobType::ReloadOrStart, false) => JobType::Start,
            (other, _) => other,
        }
    }

    /// The one job that fulfils both, or nothing when they conflict (a stop against anything that wants it up).
    /// Both must be collapsed.
    pub fn merge(self, other: JobType) -> Option<JobType> {
        use JobType::*;
        match (self, other) {
            (Reload, Reload) => Some(Reload),
            (Stop, Stop) => Some(Stop),
            (Nop, b) => Some(b),
            (a, Nop) => Some(a),
            (Stop, _) | (_, Stop) => None,
            (VerifyActive, VerifyActive) => Some(VerifyActive),
            (Start | VerifyActive, Start | VerifyActive) => Some(Start),
            (Start, Reload) | (Reload, Start) => Some(ReloadOrStart),
            (VerifyActive, Reload) | (Reload, VerifyActive) => Some(Reload),
            (Restart, _) | (_, Restart) => Some(Restart),
            (TryRestart, _) | (_, TryRestart) => Some(Restart),
            (ReloadOrStart, _) | (_, ReloadOrStart) | (TryReload, _) | (_, TryReload) => Some(ReloadOrStart),
        }
    }
}

/// A queued or running job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The job ID.
    pub id: JobId,
    /// The unit it works on.
    pub unit: UnitId,
    /// What it does; never one of the types that collapse.
    pub kind: JobType,
    /// Whether it was handed to the unit.
    pub running: bool,
    /// Refuses to be replaced by a conflicting job.
    pub irreversible: bool,
    /// Waits for nobody, and nobody waits for it: asked for without dependencies.
    pub ignore_order: bool,
    /// It was asked for itself, and not by a dependency.
    #[serde(default)]
    pub asked: bool,
    /// Goes on though order would make it wait, since who it waits for waits for it.
    #[serde(default)]
    pub untied: bool,
    /// `CLOCK_MONOTONIC`, microseconds, when it was queued.
    pub queued_usec: u64,
    /// `CLOCK_MONOTONIC`, microseconds, when it began; 0 while waiting.
    pub begun_usec: u64,
    /// When it times out, on the monotonic clock in microseconds; `u64::MAX` for never.
    pub deadline_usec: u64,
    /// Why it exists, as text for people.
    pub cause: String,
    /// The unit whose job it waits for, where it is known to wait; it may wait for others, too.
    #[serde(default)]
    pub waits_at: Option<UnitId>,
}

#[cfg(test)]
mod tests {
    use super::JobType::{self, *};

    #[test]
    fn merging_is_symmetric_and_a_stop_merges_with_nothing_that_wants_the_unit_up() {
        let all = [Start, VerifyActive, Stop, Reload, Restart, Nop];
        for a in all {
            for b in all {
                assert_eq!(JobType::merge(a, b), JobType::merge(b, a), "{a:?} {b:?}");
            }
        }
        assert_eq!(Stop.merge(Start), None);
        assert_eq!(Stop.merge(Nop), Some(Stop));
        assert_eq!(Start.merge(Reload), Some(ReloadOrStart));
        // Two who only look start nothing.
        assert_eq!(VerifyActive.merge(VerifyActive), Some(VerifyActive));
        assert_eq!(Start.merge(Restart), Some(Restart));
    }
}
