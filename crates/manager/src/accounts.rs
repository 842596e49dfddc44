//! Users and groups that runs of units have: which name has which number, and until when.
//!
//! What is dynamic (systemd.exec(5), `DynamicUser=`) goes with the last run that uses its name, and so do objects of IPC that
//! its processes left (`RemoveIPC=`). The executor finds the numbers. What must stay true: every user of an account is a
//! unit whose run is not over, and has the name in its `accounts`.

use crate::effect::{Effect, SpawnId};
use crate::manager::Manager;
use muster_graph::UnitId;
use muster_unit::ExecSection;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A name of a user or a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Its number, once the executor told it.
    pub number: Option<u32>,
    /// Whether it was asked for by `DynamicUser=`.
    pub dynamic: bool,
    /// Units whose runs use it.
    pub users: BTreeSet<UnitId>,
}

impl Manager {
    /// A process is about to run as somebody.
    pub(crate) fn use_accounts(&mut self, id: UnitId, exec: &ExecSection) {
        let Some(user) = exec.user().as_deref() else { return };
        let group = exec.group().as_deref().filter(|group| exec.dynamic_user() && *group != user);
        for name in std::iter::once(user).chain(group) {
            let account = self.state.accounts.entry(name.to_owned()).or_default();
            account.dynamic |= exec.dynamic_user();
            account.users.insert(id);
            let Some(unit) = self.state.units.edit(&id) else { return };
            if !unit.accounts.iter().any(|known| known == name) {
                unit.accounts.push(name.to_owned());
            }
        }
    }

    /// The executor found who a process runs as.
    pub(crate) fn runs_as(&mut self, spawn: SpawnId, uid: u32, gid: u32) {
        let Some(&id) = self.state.spawns.get(&spawn) else { return };
        let Some(unit) = self.state.units.edit(&id) else { return };
        let before = unit.runs_as.replace((uid, gid));
        if let Some((_, old)) = before.filter(|(_, old)| *old != gid) {
            self.leave_group(id, old);
        }
        self.state.groups.entry(gid).or_default().insert(id);
        self.touch(id);
        self.fill_sets(id);
    }

    /// A unit has this group no more; whether it had it, and nobody else has.
    fn leave_group(&mut self, id: UnitId, gid: u32) -> bool {
        let Some(users) = self.state.groups.get_mut(&gid) else { return false };
        let had = users.remove(&id);
        let last = users.is_empty();
        if last {
            self.state.groups.remove(&gid);
        }
        had && last
    }

    /// The executor found, or made, the number of a name.
    pub(crate) fn account_found(&mut self, spawn: SpawnId, name: &str, number: u32) {
        if !self.state.spawns.contains_key(&spawn) {
            return;
        }
        if let Some(account) = self.state.accounts.get_mut(name) {
            account.number = Some(number);
        }
    }

    /// The run of a unit is over: what nobody uses any more goes.
    pub(crate) fn leave_accounts(&mut self, id: UnitId) {
        let Some(unit) = self.state.units.edit(&id) else { return };
        let names = std::mem::take(&mut unit.accounts);
        let removes = unit.file.exec.as_ref().is_some_and(|exec| exec.remove_ipc());
        let (owner, group) = unit.runs_as.unwrap_or_default();
        // Whose objects of IPC go; those of root never do.
        let (mut uid, gid) = (0, if self.leave_group(id, group) { group } else { 0 });
        if names.is_empty() && gid == 0 {
            return;
        }
        for (index, name) in names.iter().enumerate() {
            let Some(account) = self.state.accounts.get_mut(name) else { continue };
            account.users.remove(&id);
            if !account.users.is_empty() {
                continue;
            }
            let dynamic = account.dynamic;
            self.state.accounts.remove(name);
            if index == 0 {
                uid = owner;
            }
            if dynamic {
                self.effects.push_back(Effect::ForgetAccount { name: name.clone() });
            }
        }
        if removes && (uid, gid) != (0, 0) {
            self.effects.push_back(Effect::RemoveIpc { uid, gid });
        }
        if let Some(unit) = self.state.units.edit(&id) {
            if unit.file.exec.as_ref().is_some_and(|exec| exec.dynamic_user()) {
                unit.runs_as = None;
            }
        }
        self.touch(id);
    }
}
