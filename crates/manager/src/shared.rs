//! What the processes of a run share: a network namespace, an IPC namespace, `/tmp` and `/var/tmp`.
//!
//! A share is made for the first process of a run that asks for one of them, and joined by all that follow, and by the runs
//! of units that `JoinsNamespaceOf=` ties to it (systemd.unit(5)). It ends with the last run that uses it. What must stay
//! true: every user of a share is a unit whose run is not over, and says so in its `share`.

use crate::effect::{Effect, ShareId, Shared};
use crate::manager::Manager;
use muster_graph::{Dependency, UnitId};
use muster_unit::{ExecSection, PrivateTmp, private_tmp_name};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What several processes share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Units whose runs use it.
    pub users: BTreeSet<UnitId>,
    /// What its directories below /tmp and /var/tmp are called, once a process asked for them.
    pub private_tmp: Option<String>,
}

fn has_ephemeral_root(exec: &ExecSection) -> bool {
    exec.root_ephemeral() && (exec.root_directory().is_some() || exec.root_image().is_some())
}

impl Manager {
    /// What a process of a unit shares with others, if its settings ask for anything that can be shared.
    pub(crate) fn share_of(&mut self, id: UnitId, exec: &ExecSection) -> Option<Shared> {
        let (network, ipc) = (exec.has_own_network(), exec.has_own_ipc());
        let tmp = exec.private_tmp() == PrivateTmp::Connected;
        let copies = has_ephemeral_root(exec);
        if !network && !ipc && !tmp && !copies {
            return None;
        }
        let share = self.state.units.get(&id)?.share.or_else(|| self.share_to_join(id));
        let share = share.unwrap_or_else(|| {
            let fresh = ShareId(self.state.next_share);
            self.state.next_share = self.state.next_share.saturating_add(1);
            fresh
        });
        let unit = self.state.units.edit(&id)?;
        unit.share = Some(share);
        let entry = self.state.shares.entry(share).or_default();
        entry.users.insert(id);
        if tmp && entry.private_tmp.is_none() {
            let boot = &self.state.facts.specifiers.boot_id;
            entry.private_tmp = Some(private_tmp_name(boot, unit.name.as_str(), &unit.invocation_id));
        }
        let private_tmp = entry.private_tmp.clone().filter(|_| tmp);
        Some(Shared { id: share, network, ipc, copies, private_tmp })
    }

    /// A process of a unit is about to run in a copy of the unit's root (systemd.exec(5), `RootEphemeral=`).
    pub(crate) fn use_ephemeral(&mut self, id: UnitId, exec: &ExecSection) {
        if !has_ephemeral_root(exec) {
            return;
        }
        let Some(unit) = self.state.units.edit(&id) else { return };
        unit.ephemeral = Some(muster_unit::ephemeral_tree(unit.name.as_str(), &unit.invocation_id));
    }

    fn leave_ephemeral(&mut self, id: UnitId) {
        if self.state.units.get(&id).is_none_or(|unit| unit.ephemeral.is_none()) {
            return;
        }
        let Some(path) = self.state.units.edit(&id).and_then(|unit| unit.ephemeral.take()) else { return };
        let things = crate::directories::Things { paths: vec![path], ..Default::default() };
        self.effects.push_back(Effect::Remove { query: None, things });
    }

    /// That of a unit that this one is tied to.
    fn share_to_join(&self, id: UnitId) -> Option<ShareId> {
        let mut tied = self.state.graph.of(id, Dependency::JoinsNamespaceOf);
        tied.find_map(|other| self.state.units.get(&other)?.share)
    }

    /// The run of a unit is over: what nobody shares any more goes.
    pub(crate) fn leave_share(&mut self, id: UnitId) {
        self.leave_ephemeral(id);
        let Some(share) = self.state.units.edit(&id).and_then(|unit| unit.share.take()) else { return };
        let Some(entry) = self.state.shares.get_mut(&share) else { return };
        entry.users.remove(&id);
        if !entry.users.is_empty() {
            return;
        }
        let tmp = self.state.shares.remove(&share).and_then(|entry| entry.private_tmp);
        self.effects.push_back(Effect::EndShare { id: share });
        if let Some(name) = tmp {
            let paths = vec![format!("/tmp/{name}"), format!("/var/tmp/{name}")];
            let things = crate::directories::Things { paths, ..Default::default() };
            self.effects.push_back(Effect::Remove { query: None, things });
        }
    }
}
