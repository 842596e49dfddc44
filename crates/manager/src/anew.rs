//! A boot anew with all that survived the one before it: after a soft reboot (systemd-soft-reboot.service(8)), or below
//! another root directory (systemctl(1), `switch-root`).
//!
//! The state goes over as in a re-execution. What must stay true: whatever belonged to the boot before (its jobs, its
//! stamps, its end) is over, and whatever is still up (units, descriptors, stored ones too) is as it was.

use crate::manager::Manager;
use crate::state::{Facts, Stamp};
use crate::{Effect, Now};
use muster_unit::Source;
use serde::{Deserialize, Serialize};

/// Why a boot begins while the kernel runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Anew {
    /// `systemctl soft-reboot`.
    SoftReboot,
    /// `systemctl switch-root`.
    SwitchRoot,
}

impl Manager {
    /// Leaves for another root directory, or for this one from its beginning.
    pub(crate) fn leave_for(&mut self, why: Anew, root: String, init: String) {
        self.effects.push_back(Effect::BeginAnew { why, root, init });
    }

    /// Takes what the world is now; comes before [`Manager::begin_anew`].
    pub fn take_facts(&mut self, facts: Facts) {
        self.state.facts = facts;
        self.left_boot = std::mem::take(&mut self.state.boot);
        self.state.configured = false;
    }

    /// Goes on with all that is still up, reads all unit files, and queues the boot.
    pub fn begin_anew(&mut self, why: Anew, now: Now, source: &dyn Source) {
        self.now = now;
        let stamp = self.stamp();
        match why {
            Anew::SoftReboot => self.state.soft_reboots = self.state.soft_reboots.saturating_add(1),
            // In a container there was no boot before this one that anybody measures.
            Anew::SwitchRoot if !self.state.facts.follows_interfaces => {}
            Anew::SwitchRoot => self.state.initrd = self.left_boot,
        }
        self.state.boot.userspace = stamp;
        self.state.finished = Stamp::default();
        self.state.boot.units_load_start = stamp;
        self.state.basic_reached = false;
        self.state.shutdown = None;
        self.state.exit_code = 0;
        self.state.essential_ended = false;
        self.state.client_environment.clear();
        // The end of the jobs of the boot before is not the end of this one, which is not queued yet.
        self.booting = false;
        let jobs: Vec<_> = self.state.jobs.values().map(|job| job.id).collect();
        for job in jobs {
            self.finish_job(job, muster_graph::JobResult::Canceled, false);
        }
        self.resume_units();
        self.reload_all(source);
        self.flush_changes();
        self.start_default(now, source);
    }
}
