//! What clients make PID 1 write for others to read: transient units and the drop-ins of `systemctl set-property`.
//!
//! A request is looked at, its files are asked to be written, and only when they are there does it take effect. So a disk
//! that is full or read-only is the client's error, and changes nothing else.

use crate::effect::{Effect, FdId, QueryId, Reply, RequestId};
use crate::event::{Origin, PropertyChange, TransientUnit, WriteError, whole_list};
use crate::manager::Manager;
use crate::refused::Refused;
use crate::state::ActiveState;
use muster_graph::{JobMode, JobType, UnitId};
use muster_unit::{Fault, LoadState, Source, UnitFile, UnitKind, UnitName};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

const HEADER: &str = "# This is a drop-in unit file extension, created via \"systemctl set-property\"\n# or an equivalent operation. Do not edit.\n";

/// A request whose files are being written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The request to answer.
    pub request: RequestId,
    /// What follows once the files are written.
    pub then: Then,
}

/// What comes when the files are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the fields are those of the requests
pub enum Then {
    /// Settings take effect; `paths` are their drop-ins.
    Properties { unit: UnitName, changes: Vec<PropertyChange>, paths: Vec<String> },
    /// Units come to be, and the first is started.
    Transient { origin: Origin, units: Vec<TransientUnit>, mode: JobMode },
}

impl Manager {
    fn write(&mut self, request: RequestId, files: Vec<(String, String)>, then: Then) {
        let query = QueryId(self.state.next_query);
        self.state.next_query = self.state.next_query.saturating_add(1);
        self.state.writes.insert(query, Waiting { request, then });
        self.effects.push_back(Effect::WriteFiles { query, files });
    }

    /// The files of a request are on the disk, or are not and will not be.
    pub(crate) fn files_written(
        &mut self,
        source: &dyn Source,
        query: QueryId,
        result: Result<(), WriteError>,
    ) {
        let Some(Waiting { request, then }) = self.state.writes.remove(&query) else { return };
        let answer = match (result, then) {
            (Ok(()), Then::Properties { unit, changes, paths }) => {
                self.set_properties(source, &unit, &changes, &paths)
            }
            (Ok(()), Then::Transient { origin, units, mode }) => {
                self.start_transient(source, &origin, units, mode)
            }
            (Err(error), then) => {
                if let Then::Transient { units, .. } = then {
                    self.close_given(&units);
                }
                Err(Refused::NotWritten { why: error })
            }
        };
        self.reply(request, answer.unwrap_or_else(Reply::Refused));
    }

    /// After a re-execution nobody waits for an answer any more.
    pub(crate) fn forget_writes(&mut self) {
        for Waiting { then, .. } in std::mem::take(&mut self.state.writes).into_values() {
            if let Then::Transient { units, .. } = then {
                self.close_given(&units);
            }
        }
    }

    fn close_given(&mut self, units: &[TransientUnit]) {
        let fds: Vec<FdId> = units.iter().flat_map(|unit| unit.stdio.values().copied()).collect();
        if !fds.is_empty() {
            self.effects.push_back(Effect::CloseFds { fds });
        }
    }

    // ---- settings at run time -----------------------------------------------------------------------------------------

    /// Settings at run time, first part: what they come to is checked, and their drop-ins are written.
    pub(crate) fn write_properties(
        &mut self,
        source: &dyn Source,
        request: RequestId,
        name: &UnitName,
        runtime: bool,
        changes: Vec<PropertyChange>,
    ) -> Result<(), Refused> {
        let id = self.load(name, source);
        self.state.gc_queue.insert(id);
        self.check_load_state(id)?;
        let Some(unit) = self.state.units.get(&id) else { return Ok(()) };
        let (unit_name, before) = (unit.name.clone(), unit.file.clone());
        // That of PID 1 itself counts as transient, under systemd as well.
        let transient = unit.transient || unit.name.as_str() == "init.scope";
        let place = match (transient, runtime) {
            (true, _) => "/run/systemd/transient",
            (false, true) => "/run/systemd/system.control",
            (false, false) => "/etc/systemd/system.control",
        };
        let mut file = (*before).clone();
        let mut files: Vec<(String, String)> = Vec::new();
        for change in &changes {
            self.assign_change(&mut file, change)?;
            let Some((section, directive, _)) = change.settings.first() else { continue };
            let path = format!("{place}/{unit_name}.d/50-{}.conf", change.stem);
            let text = change.text.clone().unwrap_or_else(|| format!("{}\n", whole(&file, directive)));
            files.retain(|(other, _)| *other != path);
            files.push((path, format!("{HEADER}[{section}]\n{text}")));
        }
        let paths = files.iter().map(|(path, _)| path.clone()).collect();
        self.write(request, files, Then::Properties { unit: unit_name, changes, paths });
        Ok(())
    }

    fn assign_change(&self, file: &mut UnitFile, change: &PropertyChange) -> Result<(), Refused> {
        for (section, directive, value) in &change.settings {
            muster_unit::assign(file, section, directive, value, &self.state.facts.specifiers)
                .map_err(|fault| not_taken(directive, value, &fault))?;
        }
        Ok(())
    }

    /// Second part: they have their effect.
    fn set_properties(
        &mut self,
        source: &dyn Source,
        name: &UnitName,
        changes: &[PropertyChange],
        paths: &[String],
    ) -> Result<Reply, Refused> {
        let id = self.load(name, source);
        let Some(unit) = self.state.units.get(&id) else { return Ok(Reply::Done) };
        let mut file = (*unit.file).clone();
        for change in changes {
            self.assign_change(&mut file, change)?;
        }
        for path in paths {
            file.stamps.retain(|(known, _)| known != path);
            file.stamps.extend(source.modified(path).map(|stamp| (path.clone(), stamp)));
            if !file.drop_in_paths.contains(path) {
                file.drop_in_paths.push(path.clone());
            }
        }
        if let Some(unit) = self.state.units.edit(&id) {
            let old = std::mem::replace(&mut unit.file, Rc::new(file));
            // What a client sets of a socket is held by a cgroup from then on, as under systemd.
            let is_up = !matches!(unit.active_state(), ActiveState::Inactive | ActiveState::Failed);
            if unit.cgroup.is_some() || is_up && unit.name.kind() == UnitKind::Socket {
                self.cgroup_changed(id, old.cgroup.as_deref());
            }
        }
        self.touch(id);
        self.state.gc_queue.insert(id);
        Ok(Reply::Done)
    }

    /// A unit that did not load is refused, with what systemd says of it.
    pub(crate) fn check_load_state(&self, id: UnitId) -> Result<(), Refused> {
        let Some(unit) = self.state.units.get(&id) else { return Ok(()) };
        let name = unit.name.clone();
        match unit.file.load_state {
            LoadState::NotFound => Err(Refused::NotFound { unit: name }),
            LoadState::BadSetting => Err(Refused::BadSetting { unit: name }),
            LoadState::Masked => Err(Refused::Masked { unit: name }),
            LoadState::Error => {
                let why = unit.file.load_error.clone().unwrap_or_default();
                Err(Refused::LoadFailed { unit: name, why })
            }
            LoadState::Loaded | LoadState::Stub | LoadState::Merged => Ok(()),
        }
    }

    // ---- transient units ----------------------------------------------------------------------------------------------

    /// `StartTransientUnit`, first part: the settings are checked, and the files written.
    pub(crate) fn write_transient(
        &mut self,
        request: RequestId,
        origin: &Origin,
        units: Vec<TransientUnit>,
        mode: JobMode,
    ) -> Result<(), Refused> {
        let checked = units.iter().try_for_each(|unit| {
            self.check_free(&unit.name)?;
            muster_unit::check_settings(&unit.name, &unit.settings, &self.state.facts.specifiers)
                .map_err(|((_, directive, value), fault)| not_taken(directive, value, &fault))
        });
        if let Err(refused) = checked {
            self.close_given(&units);
            return Err(refused);
        }
        let file =
            |unit: &TransientUnit| (format!("/run/systemd/transient/{}", unit.name), unit.text.clone());
        let files = units.iter().map(file).collect();
        self.write(request, files, Then::Transient { origin: origin.clone(), units, mode });
        Ok(())
    }

    fn check_free(&self, name: &UnitName) -> Result<(), Refused> {
        let Some(unit) = self.unit(name) else { return Ok(()) };
        let idle = matches!(unit.active_state(), ActiveState::Inactive | ActiveState::Failed);
        if !idle || unit.file.load_state == LoadState::Loaded && !unit.transient {
            return Err(Refused::Exists { unit: name.clone() });
        }
        Ok(())
    }

    /// Second part: the units come to be, and the first is started. Where that is refused, nothing of them stays.
    fn start_transient(
        &mut self,
        source: &dyn Source,
        origin: &Origin,
        units: Vec<TransientUnit>,
        mode: JobMode,
    ) -> Result<Reply, Refused> {
        let Some(first) = units.first().map(|unit| unit.name.clone()) else {
            return Err(Refused::NoUnit);
        };
        // In the time between, another client may have taken a name.
        if let Err(refused) = units.iter().try_for_each(|unit| self.check_free(&unit.name)) {
            self.close_given(&units);
            return Err(refused);
        }
        let names: Vec<UnitName> = units.iter().map(|unit| unit.name.clone()).collect();
        let references: Vec<UnitName> =
            units.iter().filter(|unit| unit.reference).map(|unit| unit.name.clone()).collect();
        for unit in units {
            self.make_transient(source, unit);
        }
        let started = self
            .state
            .names
            .get(&first)
            .map_or(Ok(()), |id| self.check_load_state(*id))
            .and_then(|()| self.request_job(source, origin, &first, JobType::Start, mode, false));
        if started.is_err() {
            for name in &names {
                self.unmake_transient(source, name, references.contains(name));
            }
        }
        started
    }

    fn make_transient(&mut self, source: &dyn Source, made: TransientUnit) {
        self.state.transient_settings.insert(made.name.clone(), made.settings);
        if let Some(old) = self.state.names.get(&made.name).copied() {
            self.state.graph.remove_from(old);
            self.reread(old, source);
        }
        let id = self.load(&made.name, source);
        if let Some(unit) = self.state.units.edit(&id) {
            unit.transient = true;
            unit.references = unit.references.saturating_add(u32::from(made.reference));
        }
        if let Some(service) = self.service_mut(id) {
            let (stdio, extra) = made.stdio.into_iter().partition(|(number, _)| *number < 3);
            let extra: Vec<(u32, FdId)> = extra;
            service.stdio = stdio;
            service.extra_fds = extra.into_iter().map(|(_, fd)| fd).zip(made.extra_names).collect();
        }
        if !made.controller.is_empty() {
            self.set_controller(id, made.controller);
        }
        if !made.pids.is_empty() {
            self.state.scope_pids.insert(id, made.pids);
        }
    }

    fn unmake_transient(&mut self, source: &dyn Source, name: &UnitName, referenced: bool) {
        self.state.transient_settings.remove(name);
        self.effects.push_back(Effect::RemoveFile { path: format!("/run/systemd/transient/{name}") });
        let Some(id) = self.state.names.get(name).copied() else { return };
        if let Some(service) = self.service_mut(id) {
            let fds: Vec<FdId> = service.take_given();
            self.effects.push_back(Effect::CloseFds { fds });
        }
        if let Some(unit) = self.state.units.edit(&id) {
            unit.transient = false;
            unit.references = unit.references.saturating_sub(u32::from(referenced));
        }
        self.state.scope_pids.remove(&id);
        self.state.graph.remove_from(id);
        self.reread(id, source);
        self.state.gc_queue.insert(id);
    }
}

fn not_taken(directive: &str, value: &str, fault: &Fault) -> Refused {
    Refused::NotTaken {
        directive: directive.to_owned(),
        value: value.to_owned(),
        expected: fault.expected.to_string(),
    }
}

/// A list of resource control as it is now, as a drop-in says it.
fn whole(file: &UnitFile, directive: &str) -> String {
    let items = file.cgroup.as_ref().map_or_else(Vec::new, |cgroup| cgroup.list(directive));
    let items = muster_unit::table::listed(directive, items);
    whole_list(directive, &items)
}
