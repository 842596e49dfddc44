//! What the console shows while the system comes up or goes down and nothing moves: which jobs are waited for.
//!
//! When no job ended for five seconds, each job that runs gets a line; then after five more, ten, twenty, and so on. What must
//! stay true: a number of lines that is bounded, however many jobs there are; between boot and shutdown, none.

use crate::deadlines::Owner;
use crate::effect::Effect;
use crate::manager::Manager;
use muster_graph::JobType;
use muster_unit::Timespan;
use serde::{Deserialize, Serialize};

/// How long nothing has to move.
const PATIENCE_USEC: u64 = 5_000_000;
/// At most this many jobs are named at a time.
const SHOWN_MAX: usize = 8;

/// When the console says again what is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slow {
    /// On the monotonic clock in microseconds; nothing while nobody waits.
    pub at_usec: Option<u64>,
    /// How long it was since the last time.
    pub step_usec: u64,
}

impl Manager {
    /// A job ended: something moves.
    pub(crate) fn something_moved(&mut self) {
        self.state.slow = Slow::default();
    }

    /// Comes after every event.
    pub(crate) fn follow_slowness(&mut self) {
        let waits = !self.state.jobs.is_empty() && self.state.show_status && self.is_moving();
        let slow = &mut self.state.slow;
        if !waits {
            *slow = Slow::default();
        } else if slow.at_usec.is_none() {
            let at = self.now.monotonic_usec.saturating_add(PATIENCE_USEC);
            *slow = Slow { at_usec: Some(at), step_usec: PATIENCE_USEC };
        }
        let at = slow.at_usec;
        self.deadlines.set(Owner::Console, at);
    }

    /// Nothing moved for a while.
    pub(crate) fn show_slowness(&mut self) {
        let now = self.now.monotonic_usec;
        if self.state.slow.at_usec.is_none_or(|at| at > now) {
            return;
        }
        let step = self.state.slow.step_usec;
        self.state.slow = Slow { at_usec: Some(now.saturating_add(step)), step_usec: step.saturating_mul(2) };
        self.deadlines.set(Owner::Console, self.state.slow.at_usec);
        let running = self.state.jobs.values().filter(|job| job.running).take(SHOWN_MAX);
        let lines: Vec<Effect> = running
            .filter_map(|job| {
                let unit = self.state.units.get(&job.unit)?;
                let what = match job.kind {
                    JobType::Stop => "A stop job is running for",
                    JobType::Reload => "A reload job is running for",
                    _ => "A start job is running for",
                };
                let end = self.unit_deadline(unit).into_iter().chain([job.deadline_usec]).min();
                let end = end.filter(|end| *end != u64::MAX).map(|end| seconds(end, job.begun_usec));
                let since = seconds(now, job.begun_usec);
                let end = end.unwrap_or_else(|| "no limit".to_owned());
                let message = format!("{what} {} ({since} / {end})", self.title(job.unit));
                Some(Effect::ShowSlow { message, cgroup: unit.cgroup.clone() })
            })
            .collect();
        self.effects.extend(lines);
    }
}

/// From one moment to another, in whole seconds.
fn seconds(to: u64, from: u64) -> String {
    let usec = to.saturating_sub(from);
    Timespan(usec.saturating_sub(usec.checked_rem(1_000_000).unwrap_or(0))).to_string()
}
