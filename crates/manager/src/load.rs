//! Loading: from a name to a unit with all that it names, and back to nothing when nobody needs it.
//!
//! A unit's dependencies are those of its file and those that its type implies (systemd.service(5) and its kin,
//! "Automatic Dependencies"), as one list of pairs. Names that are referred to are loaded too, off a list.

use crate::effect::{BusSignal, Effect, Level};
use crate::manager::Manager;
use crate::names::Names;
use crate::state::{ActiveState, Kind, Service, Unit};
use muster_graph::{Dependency, UnitId};
use muster_unit::{
    Body, CGroupSection, ExecSection, LoadState, ManagedOomMode, MountSection, Source, StdInput, StdOutput,
    UnitFile, UnitKind, UnitName,
};
use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// At most this many units are loaded, as under systemd.
const UNITS_MAX: usize = 131_072;

/// At most this many templates of sockets are cached for their next instance.
const TEMPLATES_MAX: usize = 256;

/// As many edges as most units have, at most.
const LEADS: usize = 16;

type Pair = (Dependency, UnitName);

/// What the edges of a unit lead to. Most names are those of units that are there, and are not made anew for each edge.
struct Leads<'a> {
    id: &'a UnitName,
    names: &'a Names,
    known: Vec<(Dependency, UnitId)>,
    /// To be loaded first, unless one before them was the same.
    missing: Vec<Pair>,
}

impl Leads<'_> {
    fn add(&mut self, kind: Dependency, name: &UnitName) {
        // A template stands for its instance of this unit's own.
        let own = name
            .is_template()
            .then(|| name.with_instance(self.id.instance().unwrap_or_else(|| self.id.prefix())));
        let name = match &own {
            None => name,
            Some(Some(own)) if !own.is_template() => own,
            Some(_) => return,
        };
        match self.names.get(name) {
            Some(id) => self.known.push((kind, *id)),
            None => self.missing.push((kind, name.clone())),
        }
    }

    /// What is no name of a unit leads nowhere.
    fn add_text(&mut self, kind: Dependency, name: &str) {
        match self.names.get(name) {
            Some(id) => self.known.push((kind, *id)),
            None => name.parse().iter().for_each(|name| self.add(kind, name)),
        }
    }
}

impl Manager {
    /// The unit of this name, loaded with all that it refers to.
    pub(crate) fn load(&mut self, name: &UnitName, source: &dyn Source) -> UnitId {
        if let Some(id) = self.state.names.get(name) {
            return *id;
        }
        let id = self.load_one(name, source);
        self.link_all(vec![id], source);
        id
    }

    /// Links these units and all that they name, off a list; gives them all. What a target is ordered after is known
    /// only when every edge is there.
    fn link_all(&mut self, ids: Vec<UnitId>, source: &dyn Source) -> Vec<UnitId> {
        let mut queue = VecDeque::from(ids);
        let mut linked = Vec::new();
        while let Some(id) = queue.pop_front() {
            self.link(id, source, &mut queue);
            linked.push(id);
        }
        for id in &linked {
            self.tie_to_its_socket(*id);
            self.order_targets_around(*id);
        }
        linked
    }

    /// The same for an instance of a template that may come by the thousand: the template is read once.
    pub(crate) fn load_instance(&mut self, name: &UnitName, source: &dyn Source) -> UnitId {
        let file = self.further_instance(name, source);
        let file = file.unwrap_or_else(|| self.read(name, source));
        if let Some(template) = name.template().filter(|_| self.templates.len() < TEMPLATES_MAX) {
            let first = || Rc::new(UnitFile { diagnostics: Vec::new(), ..file.clone() });
            self.templates.entry(template).or_insert_with(first);
        }
        let id = self.add(name, file);
        self.link_all(vec![id], source);
        id
    }

    fn further_instance(&self, name: &UnitName, source: &dyn Source) -> Option<UnitFile> {
        if self.state.names.contains_key(name) || self.state.transient_settings.contains_key(name) {
            return None;
        }
        let of = self.templates.get(&name.template()?)?;
        muster_unit::further_instance(of, name, source, &self.state.facts.specifiers)
    }

    /// Reads one unit, without following its references.
    fn load_one(&mut self, name: &UnitName, source: &dyn Source) -> UnitId {
        let file = self.read(name, source);
        self.add(name, file)
    }

    /// Makes a unit of a file.
    fn add(&mut self, name: &UnitName, file: UnitFile) -> UnitId {
        if let Some(&id) = self.state.names.get(&file.id) {
            // Another name of a unit that is here already.
            self.state.names.insert(name.clone(), id);
            if let Some(unit) = self.state.units.edit(&id).filter(|unit| !unit.file.names.contains(name)) {
                Rc::make_mut(&mut unit.file).names.insert(name.clone());
            }
            return id;
        }
        self.state.next_unit = self.state.next_unit.saturating_add(1);
        let id = UnitId(self.state.next_unit);
        let others = [name, &file.id].into_iter().filter(|name| !file.names.contains(name));
        for alias in file.names.iter().chain(others) {
            self.state.names.entry(alias.clone()).or_insert(id);
        }
        let file = Rc::new(file);
        let unit = new_unit(id, file.clone());
        if matches!(&unit.file.body, Body::Service(section) if section.effective_type() == muster_unit::ServiceType::Idle)
        {
            self.state.idle.insert(id);
        }
        self.state.units.insert(id, Box::new(unit));
        self.report_diagnostics(id, &file);
        self.claim_bus_name(id);
        self.touch(id);
        id
    }

    fn read(&mut self, name: &UnitName, source: &dyn Source) -> UnitFile {
        if self.state.units.len() >= UNITS_MAX {
            let mut file = UnitFile::not_found(name.clone());
            file.load_state = LoadState::Error;
            file.load_error = Some("too many units are loaded".to_owned());
            return file;
        }
        let facts = &self.state.facts;
        if facts.masked.iter().any(|masked| masked == name.as_str()) {
            let mut file = UnitFile::not_found(name.clone());
            file.load_state = LoadState::Masked;
            return file;
        }
        match self.state.transient_settings.get(name) {
            Some(settings) => muster_unit::load_settings(name, settings, source, &facts.specifiers),
            None => {
                let file = muster_unit::load(name, source, &facts.specifiers);
                let mounted =
                    || self.file_of_mounted(name, source).or_else(|| self.file_of_swap_found(name, source));
                let found = file.load_state != LoadState::NotFound;
                let mut file = if found { file } else { mounted().unwrap_or(file) };
                self.describe_device(&mut file);
                file
            }
        }
    }

    /// Complaints go to the log of the unit, so that its status shows them.
    fn report_diagnostics(&mut self, id: UnitId, file: &UnitFile) {
        for diagnostic in &file.diagnostics {
            self.log(Level::Warning, Some(id), diagnostic.to_string());
        }
        // Once for a unit; an instance says what its template says, and there may be one a connection.
        if !file.not_applied.is_empty() && !file.id.is_instance() {
            let text =
                format!("{}: without effect in this version: {}", file.id, file.not_applied.join(", "));
            self.log(Level::Info, Some(id), text);
        }
    }

    /// Adds the edges of a unit; what they lead to and is not loaded yet goes to `queue`.
    fn link(&mut self, id: UnitId, source: &dyn Source, queue: &mut VecDeque<UnitId>) {
        let Some(file) = self.state.units.get(&id).map(|unit| unit.file.clone()) else { return };
        let mut pairs = Vec::new();
        self.mount_pairs(&file, source, &mut pairs);
        self.device_pairs(&file, &mut pairs);
        self.swap_pairs(&file, &mut pairs);
        let known = Vec::with_capacity(LEADS);
        let mut leads = Leads { id: &file.id, names: &self.state.names, known, missing: Vec::new() };
        declared(&file, &mut |kind, name| leads.add(kind, name));
        // What cannot be switched is ordered with nothing that switches.
        let off = file.id.kind() == UnitKind::Swap && !self.supports(UnitKind::Swap);
        implied(&file, &mut |kind, name| {
            if !(off && matches!(name, "umount.target" | "swap.target")) {
                leads.add_text(kind, name);
            }
        });
        pairs.iter().for_each(|(kind, name)| leads.add(*kind, name));
        let Leads { mut known, missing, .. } = leads;
        for (kind, name) in missing {
            let other = match self.state.names.get(&name) {
                Some(other) => *other,
                None => {
                    let other = self.load_one(&name, source);
                    queue.push_back(other);
                    other
                }
            };
            known.push((kind, other));
        }
        self.state.graph.add_all(id, &known);
    }

    /// The service of a connection knows its socket, which its file does not name.
    pub(crate) fn tie_to_its_socket(&mut self, id: UnitId) {
        let Some(socket) = self.service(id).and_then(|service| service.accepted_from) else { return };
        for kind in [Dependency::After, Dependency::TriggeredBy] {
            self.state.graph.add(id, kind, socket);
        }
    }

    /// `RequiresMountsFor=` and its kin: after every mount on the way to a path that there is, and with those that have
    /// a file, which can be mounted.
    fn mount_pairs(&self, file: &UnitFile, source: &dyn Source, pairs: &mut Vec<Pair>) {
        if file.load_state != LoadState::Loaded {
            return;
        }
        for (kind, paths) in [
            (Dependency::Requires, file.unit.requires_mounts_for()),
            (Dependency::Wants, file.unit.wants_mounts_for()),
        ] {
            let names = paths.iter().flat_map(|path| mounts_on(path));
            for mount in
                names.filter_map(|name| name.parse::<UnitName>().ok()).filter(|name| *name != file.id)
            {
                let has_file = matches!(source.lookup(&mount), muster_unit::load::Lookup::File(_));
                if has_file {
                    pairs.push((kind, mount.clone()));
                }
                if has_file || self.state.names.contains_key(&mount) {
                    pairs.push((Dependency::After, mount));
                }
            }
        }
    }

    /// A target is reached when all that it pulls in is there (systemd.target(5)), unless it is ordered otherwise.
    fn order_targets_around(&mut self, id: UnitId) {
        use Dependency as D;
        let is_target = self.is_ordered_target(id);
        let pair = |(kind, other): (Dependency, UnitId)| match kind {
            D::Requires | D::Wants | D::BindsTo | D::Requisite | D::Upholds => {
                is_target.then_some((id, other))
            }
            D::RequiredBy | D::WantedBy | D::BoundBy | D::RequisiteOf | D::UpheldBy => {
                self.is_ordered_target(other).then_some((other, id))
            }
            _ => None,
        };
        let pairs: Vec<(UnitId, UnitId)> = self.state.graph.all_of(id).filter_map(pair).collect();
        for (target, part) in pairs {
            let applies = self.state.units.get(&part).is_some_and(|unit| {
                unit.file.unit.default_dependencies() && unit.file.load_state != LoadState::BadSetting
            });
            if applies && !self.state.graph.has(target, Dependency::Before, part) {
                self.state.graph.add(target, Dependency::After, part);
            }
        }
    }

    fn is_ordered_target(&self, id: UnitId) -> bool {
        let is_ordered =
            |unit: &Unit| unit.name.kind() == UnitKind::Target && unit.file.unit.default_dependencies();
        self.state.units.get(&id).is_some_and(|unit| is_ordered(unit))
    }

    /// Reads everything anew after the source changed. States, jobs and processes stay.
    pub(crate) fn reload_all(&mut self, source: &dyn Source) {
        self.templates.clear();
        let ids: Vec<UnitId> = self.state.units.keys().copied().collect();
        for id in &ids {
            self.state.graph.remove_from(*id);
        }
        self.state.names.retain(|name, id| self.state.units.get(id).is_some_and(|unit| unit.name == *name));
        let mut limited = Vec::new();
        self.state.bus_names.clear();
        for id in &ids {
            let Some(unit) = self.state.units.get(id) else { continue };
            let name = unit.name.clone();
            // What is on the disk as it was read is not read again.
            let same = !self.state.transient_settings.contains_key(&name)
                && !self.state.bus_names_refused.contains(id)
                && muster_unit::origin::is_unchanged(&unit.file, source);
            let file = if same { unit.file.clone() } else { Rc::new(self.read(&name, source)) };
            self.report_diagnostics(*id, &file);
            for alias in file.names.iter() {
                self.state.names.entry(alias.clone()).or_insert(*id);
            }
            if let Some(unit) = self.state.units.edit(id) {
                // A unit whose file vanished keeps what it runs by.
                let gone =
                    file.load_state == LoadState::NotFound && unit.active_state() != ActiveState::Inactive;
                if gone {
                    let mut kept = (*unit.file).clone();
                    kept.load_state = LoadState::NotFound;
                    unit.file = Rc::new(kept);
                } else {
                    let held = |file: &UnitFile| {
                        let files = file.exec.as_ref().map(|exec| exec.restrict_file_systems().clone());
                        (file.cgroup.clone(), files.unwrap_or_default())
                    };
                    if unit.cgroup.is_some() && held(&unit.file) != held(&file) {
                        limited.push((*id, unit.file.cgroup.clone()));
                    }
                    unit.file = file;
                }
            }
            self.claim_bus_name(*id);
        }
        let ids = self.link_all(ids, source);
        self.state.jobs.wake_all();
        for id in ids {
            (self.verbs(id).reloaded)(self, id);
            self.touch(id);
            self.state.gc_queue.insert(id);
        }
        // What the kernel is to hold them to has changed.
        limited.into_iter().for_each(|(id, old)| self.cgroup_changed(id, old.as_deref()));
        self.fill_all_sets();
    }

    /// Reads one unit again in place, with its edges.
    pub(crate) fn reread(&mut self, id: UnitId, source: &dyn Source) {
        let Some(name) = self.state.units.get(&id).map(|unit| unit.name.clone()) else { return };
        let file = self.read(&name, source);
        self.release_bus_name(id);
        if let Some(unit) = self.state.units.edit(&id) {
            unit.file = Rc::new(file);
        }
        self.claim_bus_name(id);
        self.link_all(vec![id], source);
    }

    /// Makes the edges of a unit anew, after its settings changed.
    pub(crate) fn relink(&mut self, id: UnitId, source: &dyn Source) {
        self.state.graph.remove_from(id);
        self.link_all(vec![id], source);
        self.state.jobs.wake_all();
    }

    /// Unloads what nobody needs: of the units that may have lost their last reason, those that no unit which stays leads
    /// to. Units that only name each other go together.
    pub(crate) fn collect_units(&mut self) {
        let mut stay = BTreeSet::new();
        while let Some(id) = self.state.gc_queue.pop_first() {
            for id in self.garbage_around(id, &mut stay) {
                self.unload(id);
            }
        }
    }

    /// A unit with all that names it, on however long a way, when none of these has a reason of its own to stay; or
    /// nothing, and what was found to stay is noted. A walk backwards off a list, which ends at the first such reason.
    fn garbage_around(&self, id: UnitId, stay: &mut BTreeSet<UnitId>) -> Vec<UnitId> {
        if stay.contains(&id) || self.stays_by_itself(id) {
            return Vec::new();
        }
        let mut seen: BTreeMap<UnitId, UnitId> = BTreeMap::from([(id, id)]);
        let mut stack = vec![id];
        while let Some(at) = stack.pop() {
            for by in self.state.graph.named_by(at) {
                if stay.contains(&by) || self.stays_by_itself(by) {
                    // All on the way from there are held.
                    let mut held = at;
                    while stay.insert(held) {
                        held = seen.get(&held).copied().unwrap_or(held);
                    }
                    return Vec::new();
                }
                if let Entry::Vacant(way) = seen.entry(by) {
                    way.insert(at);
                    stack.push(by);
                }
            }
        }
        seen.into_keys().collect()
    }

    /// Whether a unit has a reason to be loaded other than being named by another one.
    pub(crate) fn stays_by_itself(&self, id: UnitId) -> bool {
        let Some(unit) = self.state.units.get(&id) else { return false };
        let state = unit.active_state();
        let idle =
            state == ActiveState::Inactive || (state == ActiveState::Failed && self.collects_failed(unit));
        !idle
            || self.state.jobs.of(id).is_some()
            || unit.perpetual
            || unit.references != 0
            || unit.pending_conditions.is_some()
            || unit.removal.is_some()
            || Service::of(&unit.kind).is_some_and(|service| {
                service.accepted_from.is_some() || service.control.is_some() || service.main.is_some()
            })
    }

    /// What a transient unit was made from goes with it, so that its name is free again.
    fn remove_transient_files(&mut self, name: &UnitName, file: &UnitFile) {
        let own = format!("/run/systemd/transient/{name}");
        let place = format!("{own}.d/");
        let drop_ins: Vec<String> =
            file.drop_in_paths.iter().filter(|path| path.starts_with(&place)).cloned().collect();
        let directory = (!drop_ins.is_empty()).then_some(place);
        let paths = drop_ins.into_iter().chain(directory).chain([own]);
        self.effects.extend(paths.map(|path| Effect::RemoveFile { path }));
    }

    fn collects_failed(&self, unit: &Unit) -> bool {
        // Instances of Accept=yes come by the thousand; a failed one must not stay for ever.
        unit.file.unit.collect_mode() == muster_unit::CollectMode::InactiveOrFailed
    }

    fn unload(&mut self, id: UnitId) {
        self.release_bus_name(id);
        let Some(unit) = self.state.units.get(&id) else { return };
        let (name, file) = (unit.name.clone(), unit.file.clone());
        let refers: Vec<UnitId> = Dependency::ALL
            .iter()
            .flat_map(|kind| self.state.graph.of(id, *kind).collect::<Vec<_>>())
            .collect();
        self.state.graph.remove_unit(id);
        if let Some(service) = self.state.units.remove(&id).as_ref().and_then(|unit| Service::of(&unit.kind))
        {
            let fds: Vec<_> = service.fd_store.iter().map(|stored| stored.fd).collect();
            if !fds.is_empty() {
                self.effects.push_back(Effect::CloseFds { fds });
            }
        }
        for alias in file.names.iter().chain([&name]) {
            if self.state.names.get(alias) == Some(&id) {
                self.state.names.remove(alias);
            }
        }
        self.state.changed.remove(&id);
        self.state.idle.remove(&id);
        if self.state.transient_settings.remove(&name).is_some() {
            self.remove_transient_files(&name, &file);
        }
        self.state.scope_pids.remove(&id);
        self.state.controllers.retain(|_, scopes| !scopes.remove(&id) || !scopes.is_empty());
        self.state.wishes.remove(&id);
        self.state.wish_queue.remove(&id);
        if self.state.announced.remove(&id) {
            self.effects.push_back(Effect::Signal(BusSignal::UnitRemoved { unit: name }));
        }
        self.state.gc_queue.extend(refers.into_iter().filter(|other| {
            self.state.units.get(other).is_some_and(|unit| {
                matches!(unit.active_state(), ActiveState::Inactive | ActiveState::Failed)
            })
        }));
    }
}

fn new_unit(id: UnitId, file: Rc<UnitFile>) -> Unit {
    let kind = Kind::new(file.id.kind());
    let perpetual = matches!(file.id.as_str(), "-.slice" | "system.slice" | "init.scope" | "-.mount");
    Unit {
        id,
        name: file.id.clone(),
        file,
        kind,
        pending_conditions: None,
        transient: false,
        perpetual,
        references: 0,
        ran: Default::default(),
    }
}

/// What the file says.
fn declared(file: &UnitFile, add: &mut dyn FnMut(Dependency, &UnitName)) {
    let unit = &file.unit;
    let table: [(Dependency, &[UnitName]); 16] = [
        (Dependency::Requires, unit.requires()),
        (Dependency::Requisite, unit.requisite()),
        (Dependency::Wants, unit.wants()),
        (Dependency::BindsTo, unit.binds_to()),
        (Dependency::PartOf, unit.part_of()),
        (Dependency::Upholds, unit.upholds()),
        (Dependency::Conflicts, unit.conflicts()),
        (Dependency::Before, unit.before()),
        (Dependency::After, unit.after()),
        (Dependency::OnSuccess, unit.on_success()),
        (Dependency::OnFailure, unit.on_failure()),
        (Dependency::PropagatesReloadTo, unit.propagates_reload_to()),
        (Dependency::ReloadPropagatedFrom, unit.reload_propagated_from()),
        (Dependency::PropagatesStopTo, unit.propagates_stop_to()),
        (Dependency::StopPropagatedFrom, unit.stop_propagated_from()),
        (Dependency::JoinsNamespaceOf, unit.joins_namespace_of()),
    ];
    for (kind, names) in table {
        names.iter().for_each(|name| add(kind, name));
    }
}

/// What its type implies.
fn implied(file: &UnitFile, add: &mut dyn FnMut(Dependency, &str)) {
    // A unit that does not hold together shows what it would have.
    if !file.is_whole() {
        return;
    }
    let default = file.unit.default_dependencies();
    let before_shutdown = |add: &mut dyn FnMut(Dependency, &str)| {
        add(Dependency::Conflicts, "shutdown.target");
        add(Dependency::Before, "shutdown.target");
    };
    let after_sysinit = |add: &mut dyn FnMut(Dependency, &str)| {
        add(Dependency::Requires, "sysinit.target");
        add(Dependency::After, "sysinit.target");
    };
    if let Some(slice) = slice_of(file) {
        add(Dependency::InSlice, &slice);
        if file.load_state == LoadState::Loaded {
            add(Dependency::Requires, &slice);
            add(Dependency::After, &slice);
        }
    }
    if default && file.cgroup.as_deref().is_some_and(is_for_oomd) {
        add(Dependency::Wants, "systemd-oomd.service");
        add(Dependency::After, "systemd-oomd.service");
    }
    match &file.body {
        Body::Service(section) => {
            for socket in section.sockets() {
                for kind in [Dependency::Wants, Dependency::After, Dependency::TriggeredBy] {
                    add(kind, socket.as_str());
                }
            }
            if section.effective_type() == muster_unit::ServiceType::Dbus {
                add(Dependency::Requires, "dbus.socket");
                add(Dependency::After, "dbus.socket");
            }
            if default {
                after_sysinit(add);
                add(Dependency::After, "basic.target");
                before_shutdown(add);
            }
        }
        Body::Socket(section) => {
            if !section.accept() {
                let service = section
                    .service()
                    .clone()
                    .map_or_else(|| format!("{}.service", file.id.stem()), |name| name.to_string());
                add(Dependency::Triggers, &service);
                add(Dependency::Before, &service);
            }
            if default {
                after_sysinit(add);
                add(Dependency::Before, "sockets.target");
                before_shutdown(add);
            }
        }
        Body::Target if default && file.id.as_str() != "shutdown.target" => before_shutdown(add),
        Body::Target | Body::Device => {}
        Body::Slice(_) if default => before_shutdown(add),
        Body::Slice(_) => {}
        Body::Scope(_) if default => before_shutdown(add),
        Body::Scope(_) => {}
        Body::Mount(section) => {
            if default && file.id.as_str() != "-.mount" {
                mount_implies(section, add);
            }
        }
        Body::Timer(section) => {
            let unit = section
                .unit()
                .clone()
                .map_or_else(|| format!("{}.service", file.id.stem()), |name| name.to_string());
            add(Dependency::Triggers, &unit);
            add(Dependency::Before, &unit);
            if default {
                after_sysinit(add);
                add(Dependency::Before, "timers.target");
                before_shutdown(add);
                for target in ["time-set.target", "time-sync.target"] {
                    if !section.on_calendar().is_empty() {
                        add(Dependency::After, target);
                    }
                }
            }
        }
        Body::Path(section) => {
            let unit = section
                .unit()
                .clone()
                .map_or_else(|| format!("{}.service", file.id.stem()), |name| name.to_string());
            add(Dependency::Triggers, &unit);
            add(Dependency::Before, &unit);
            if default {
                after_sysinit(add);
                add(Dependency::Before, "paths.target");
                before_shutdown(add);
            }
        }
        Body::Automount(_) => {
            let mount = format!("{}.mount", file.id.stem());
            add(Dependency::Triggers, &mount);
            add(Dependency::Before, &mount);
            if default {
                add(Dependency::Conflicts, "umount.target");
                add(Dependency::Before, "umount.target");
                add(Dependency::After, "local-fs-pre.target");
                add(Dependency::Before, "local-fs.target");
            }
        }
        Body::Swap(_) => {
            if default {
                add(Dependency::Conflicts, "umount.target");
                add(Dependency::Before, "umount.target");
                add(Dependency::Before, "swap.target");
            }
        }
    }
    // The root is there before any of us.
    let runs = file.executes() && file.id.as_str() != "-.mount";
    if let Some(exec) = file.exec.as_deref().filter(|_| runs) {
        exec_implies(exec, &mut |target| add(Dependency::After, target));
        // Who takes the log of its namespace is there before it.
        let takers = [
            "systemd-journald@.socket",
            "systemd-journald-varlink@.socket",
            "systemd-journald-sync@.service",
        ];
        for taker in takers {
            if let Some(namespace) = exec.log_namespace() {
                let taker = taker.replace('@', &format!("@{}", namespace.0));
                add(Dependency::Requires, &taker);
                add(Dependency::After, &taker);
            }
        }
    }
}

/// Whether systemd-oomd.service(8) is to look after it.
fn is_for_oomd(config: &CGroupSection) -> bool {
    [config.managed_oom_swap(), config.managed_oom_memory_pressure()].contains(&ManagedOomMode::Kill)
}

/// File systems that are reached over a network; as FUSE has them, too.
const OVER_NETWORK: [&str; 18] = [
    "afs",
    "ceph",
    "cifs",
    "davfs",
    "gfs",
    "gfs2",
    "glusterfs",
    "lustre",
    "ncp",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "pvfs2",
    "smb3",
    "smbfs",
    "sshfs",
];

/// What a mount is ordered with by default (systemd.mount(5)).
fn mount_implies(section: &MountSection, add: &mut dyn FnMut(Dependency, &str)) {
    let fs_type = section.type_().as_deref().unwrap_or_default();
    let options = section.options().as_deref().unwrap_or_default();
    let has = |option: &str| options.split(',').any(|word| word == option);
    let network = OVER_NETWORK.contains(&fs_type.strip_prefix("fuse.").unwrap_or(fs_type)) || has("_netdev");
    add(Dependency::Conflicts, "umount.target");
    add(Dependency::Before, "umount.target");
    if network {
        add(Dependency::Wants, "network-online.target");
        for target in ["network-online.target", "network.target", "remote-fs-pre.target"] {
            add(Dependency::After, target);
        }
    } else {
        add(Dependency::After, "local-fs-pre.target");
    }
    if fs_type == "tmpfs" {
        add(Dependency::After, "swap.target");
    }
    if !has("nofail") {
        add(Dependency::Before, if network { "remote-fs.target" } else { "local-fs.target" });
    }
}

/// The mount units of a path and of all above it.
fn mounts_on(path: &str) -> Vec<String> {
    let above = std::iter::successors(Some(path.trim_end_matches('/')), |path| {
        path.rsplit_once('/').map(|(parent, _)| parent)
    });
    above
        .map(|path| format!("{}.mount", muster_unit::path_escape(if path.is_empty() { "/" } else { path })))
        .collect()
}

/// Ordering that an execution context implies (systemd.exec(5), "Implicit Dependencies").
fn exec_implies(exec: &ExecSection, after: &mut dyn FnMut(&'static str)) {
    // What is inherited goes where standard input comes from.
    let logs = |output: &StdOutput| match output {
        StdOutput::Journal | StdOutput::JournalConsole | StdOutput::Kmsg | StdOutput::KmsgConsole => true,
        StdOutput::Inherit => {
            *exec.standard_input() == StdInput::Null && *exec.standard_output() == StdOutput::Inherit
        }
        _ => false,
    };
    if logs(exec.standard_output()) || logs(exec.standard_error()) {
        after("systemd-journald.socket");
    }
    let kept = [
        &exec.state_directory(),
        &exec.cache_directory(),
        &exec.logs_directory(),
        &exec.configuration_directory(),
    ];
    if kept.iter().any(|directories| !directories.is_empty()) {
        after("systemd-remount-fs.service");
    }
    if exec.private_tmp() == muster_unit::PrivateTmp::Connected {
        after("systemd-tmpfiles-setup.service");
    }
    if exec.root_image().is_some() || exec.root_mstack().is_some() {
        after("systemd-udevd.service");
    }
}

/// The slice a unit lives in: as said, or as its kind and name imply. Nothing for units without a cgroup.
fn slice_of(file: &UnitFile) -> Option<Cow<'_, str>> {
    match &file.body {
        Body::Slice(_) => {
            let stem = file.id.stem();
            if stem == "-" {
                return None;
            }
            let parent = stem.rsplit_once('-').map(|(parent, _)| format!("{parent}.slice").into());
            return Some(parent.unwrap_or("-.slice".into()));
        }
        Body::Service(_) | Body::Socket(_) | Body::Mount(_) | Body::Swap(_) | Body::Scope(_) => {}
        Body::Target | Body::Device | Body::Timer(_) | Body::Path(_) | Body::Automount(_) => return None,
    }
    if let Some(slice) = file.cgroup.as_ref().and_then(|cgroup| cgroup.slice().as_ref()) {
        return Some(slice.as_str().into());
    }
    let extrinsic = match &file.body {
        Body::Mount(_) => crate::mount::is_extrinsic(&muster_unit::path_unescape(file.id.stem())),
        _ => false,
    };
    if file.id.as_str() == "init.scope" || extrinsic {
        return Some("-.slice".into());
    }
    if file.id.is_instance() && file.id.kind() == UnitKind::Service {
        // The prefix is one component, so its own dashes are escaped.
        return Some(format!("system-{}.slice", file.id.prefix().replace('-', "\\x2d")).into());
    }
    Some("system.slice".into())
}
