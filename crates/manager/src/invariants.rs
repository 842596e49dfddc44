//! What must hold between events, each with its exact bounds; the simulator asks after every event.
//!
//! Who owns what is kept twice, in the unit and in an index by which it is found, and the two must agree both ways:
//!
//! - Names: every name leads to a loaded unit, and a unit's own name leads to it.
//! - Jobs: [`muster_graph::Queue`] agrees with itself; a job's unit is loaded; a job rests only while its unit is on its way,
//!   or while what a run of it left is being removed.
//! - Processes: a number in the index is the main or control process of that unit; each
//!   process of a unit whose number is known is in the index. The same for spawns, until the process ended.
//! - Questions: each open one is that of the conditions or of the removal of the unit that it leads to, and the reverse.
//! - Cgroups: a path in the index is that of its unit, and the reverse; what may hold processes has one (mounts aside).
//! - Shares: a user of a share says that it has it, and the reverse; a share has a user.
//! - Sockets: a descriptor in the index is in a port of its unit, and the reverse. A socket that is down or before its
//!   opening has none; descriptors that are kept for the second half of a restart are in no index, and only there while a
//!   job of the socket is queued or it is on its way.
//! - Connections: a socket counts as many as there are services that came from it, in all and by source; a service has a
//!   connection only if it came from a socket that is loaded.
//! - Descriptors of ports, connections, stores and standard streams: each has one owner.
//! - States: a service that is down or waits for a restart has no process and, when down, no deadline; one that works through a
//!   list of commands has a control process.
//! - Wishes, marks and queues that name units name loaded ones.
//! - Deadlines: the index by time is what the state says.

use crate::effect::{FdId, SpawnId};
use crate::manager::Manager;
use crate::state::{ActiveState, Process, Service, ServiceSub, Socket, SocketSub, Unit};
use muster_graph::{Dependency, UnitId};
use muster_unit::UnitKind;
use std::collections::{BTreeMap, BTreeSet};

/// The faults found so far.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }
}

impl Manager {
    /// What must hold between events, as the faults found; for tests and simulation.
    pub fn check_invariants(&self) -> Vec<String> {
        let mut faults = Faults::default();
        faults.expect(self.deadlines_follow(), || {
            "the index of deadlines does not follow the state".to_owned()
        });
        self.check_names(&mut faults);
        self.check_jobs(&mut faults);
        self.check_processes(&mut faults);
        self.check_queries(&mut faults);
        self.check_cgroups(&mut faults);
        self.check_shares(&mut faults);
        self.check_sockets(&mut faults);
        self.check_connections(&mut faults);
        self.check_owners(&mut faults);
        for unit in self.state.units.values() {
            self.check_service(unit, &mut faults);
        }
        faults.0
    }

    fn is_loaded(&self, id: UnitId) -> bool {
        self.state.units.contains_key(&id)
    }

    fn check_names(&self, faults: &mut Faults) {
        for (name, id) in self.state.names.iter() {
            faults.expect(self.is_loaded(*id), || format!("{name} names a unit that is not loaded"));
        }
        for unit in self.state.units.values() {
            let found = self.state.names.get(&unit.name) == Some(&unit.id);
            faults.expect(found, || format!("{} is not found by its name", unit.name));
            for kind in Dependency::ALL {
                for other in self.state.graph.of(unit.id, *kind) {
                    faults.expect(self.is_loaded(other), || {
                        format!("{} {}= leads to a unit that is not loaded", unit.name, kind.name())
                    });
                }
            }
        }
        let state = &self.state;
        let marks: [(&str, &BTreeSet<UnitId>); 6] = [
            ("announced", &state.announced),
            ("idle", &state.idle),
            ("populated", &state.populated),
            ("deferred", &state.deferred),
            ("clock_followers", &state.clock_followers),
            ("wish_queue", &state.wish_queue),
        ];
        let marked = marks.iter().flat_map(|(name, ids)| ids.iter().map(move |id| (*name, *id)));
        let wishes = state.wishes.keys().map(|id| ("wishes", *id));
        let pids = state.scope_pids.keys().map(|id| ("scope_pids", *id));
        for (name, id) in marked.chain(wishes).chain(pids) {
            faults.expect(self.is_loaded(id), || format!("{name} names unit {}, which is not loaded", id.0));
        }
    }

    fn check_jobs(&self, faults: &mut Faults) {
        faults.0.extend(self.state.jobs.check());
        for job in self.state.jobs.values() {
            let number = job.id.0;
            match self.state.units.get(&job.unit).map(|unit| unit.active_state()) {
                None => faults.0.push(format!("job {number} belongs to a unit that is not loaded")),
                Some(ActiveState::Inactive | ActiveState::Failed | ActiveState::Active)
                    if self.state.jobs.is_resting(job) && !self.is_removing(job.unit) =>
                {
                    faults.0.push(format!("job {number} rests, and its unit does not change"));
                }
                Some(_) => {}
            }
        }
    }

    fn processes_of(&self, id: UnitId) -> Vec<&Process> {
        let Some(unit) = self.state.units.get(&id) else { return Vec::new() };
        let state = unit.kind.state();
        state.main().into_iter().chain(state.control()).collect()
    }

    fn check_processes(&self, faults: &mut Faults) {
        for (pid, id) in &self.state.processes {
            let has = self.processes_of(*id).iter().any(|process| process.pid == Some(*pid));
            faults.expect(has, || {
                format!("process {pid} leads to {}, which has none such", self.unit_name(*id))
            });
        }
        for (spawn, id) in &self.state.spawns {
            let has = self.processes_of(*id).iter().any(|process| process.spawn == Some(*spawn));
            faults.expect(has, || format!("{spawn:?} leads to {}, which has none such", self.unit_name(*id)));
        }
        for unit in self.state.units.values() {
            for process in self.processes_of(unit.id) {
                let known = process.pid.is_none_or(|pid| self.state.processes.get(&pid) == Some(&unit.id));
                faults.expect(known, || format!("{process:?} of {} is not in the index", unit.name));
                let spawned =
                    |spawn: SpawnId| process.pid.is_some() || self.state.spawns.get(&spawn) == Some(&unit.id);
                faults.expect(process.spawn.is_none_or(spawned), || {
                    format!("{process:?} of {} is not awaited", unit.name)
                });
            }
        }
    }

    fn check_queries(&self, faults: &mut Faults) {
        let open = |unit: &Unit| {
            let removal = unit.removal.as_ref().map(|removal| removal.query);
            unit.pending_conditions.into_iter().chain(removal).collect::<Vec<_>>()
        };
        for (query, id) in &self.state.queries {
            let asks = self.state.units.get(id).is_some_and(|unit| open(unit).contains(query));
            faults.expect(asks, || format!("{query:?} leads to {}, which asks nothing", self.unit_name(*id)));
        }
        for unit in self.state.units.values() {
            for query in open(unit) {
                faults.expect(self.state.queries.get(&query) == Some(&unit.id), || {
                    format!("{query:?} of {} is not in the index", unit.name)
                });
            }
        }
    }

    fn check_cgroups(&self, faults: &mut Faults) {
        for (path, id) in &self.state.cgroups {
            let has = self.state.units.get(id).is_some_and(|unit| unit.cgroup.as_ref() == Some(path));
            faults.expect(has, || format!("{path} leads to {}, which is elsewhere", self.unit_name(*id)));
        }
        for unit in self.state.units.values() {
            if let Some(path) = &unit.cgroup {
                faults.expect(self.state.cgroups.get(path) == Some(&unit.id), || {
                    format!("{path} of {} is not in the index", unit.name)
                });
            } else if unit.name.kind() != UnitKind::Mount {
                faults.expect(!self.state.populated.contains(&unit.id), || {
                    format!("{} may hold processes, and has no cgroup", unit.name)
                });
            }
        }
    }

    fn check_shares(&self, faults: &mut Faults) {
        for (share, entry) in &self.state.shares {
            faults.expect(!entry.users.is_empty(), || format!("{share:?} has no user"));
            for id in &entry.users {
                let uses = self.state.units.get(id).is_some_and(|unit| unit.share == Some(*share));
                faults.expect(uses, || {
                    format!("{share:?} has the user {}, which has not", self.unit_name(*id))
                });
            }
        }
        for unit in self.state.units.values() {
            let known =
                |share| self.state.shares.get(&share).is_some_and(|entry| entry.users.contains(&unit.id));
            faults.expect(unit.share.is_none_or(known), || {
                format!("the share of {} does not know it", unit.name)
            });
        }
    }

    fn sockets(&self) -> impl Iterator<Item = (&Unit, &Socket)> {
        self.state.units.values().filter_map(|unit| Some((unit.as_ref(), Socket::of(&unit.kind)?)))
    }

    fn services(&self) -> impl Iterator<Item = (&Unit, &Service)> {
        self.state.units.values().filter_map(|unit| Some((unit.as_ref(), Service::of(&unit.kind)?)))
    }

    fn check_sockets(&self, faults: &mut Faults) {
        for (fd, id) in &self.state.ports {
            let socket = self.state.units.get(id).and_then(|unit| Socket::of(&unit.kind));
            let has = socket.is_some_and(|socket| socket.ports.iter().any(|port| port.fd == *fd));
            faults.expect(has, || format!("{fd:?} leads to {}, which does not own it", self.unit_name(*id)));
        }
        for (unit, socket) in self.sockets() {
            let (name, sub) = (&unit.name, socket.sub);
            for port in &socket.ports {
                faults.expect(self.state.ports.get(&port.fd) == Some(&unit.id), || {
                    format!("{:?} of {name} is not in the index", port.fd)
                });
            }
            let closed = matches!(sub, SocketSub::Dead | SocketSub::Failed | SocketSub::StartPre);
            faults.expect(!closed || socket.ports.is_empty(), || {
                format!("{name} is {} and open", sub.as_str())
            });
            faults.expect(!socket.watched || !socket.ports.is_empty(), || {
                format!("{name} is watched and not open")
            });
            let heard = matches!(sub, SocketSub::Listening);
            faults.expect(heard || !socket.watched, || format!("{name} is {} and watched", sub.as_str()));
            let between =
                self.job_kind(unit.id).is_some() || !matches!(sub, SocketSub::Dead | SocketSub::Failed);
            faults.expect(between || socket.kept.is_empty(), || {
                format!("{name} is down and keeps descriptors")
            });
            let put_off = self.state.deferred.contains(&unit.id);
            faults.expect(put_off == (sub == SocketSub::Deferred), || {
                format!("{name} is {} and put off: {put_off}", sub.as_str())
            });
        }
    }

    fn check_connections(&self, faults: &mut Faults) {
        let mut counted: BTreeMap<UnitId, (u32, BTreeMap<&str, u32>)> = BTreeMap::new();
        for (unit, service) in self.services() {
            let Some(socket) = service.accepted_from else {
                faults.expect(service.connection.is_none(), || {
                    format!("{} has a connection from nowhere", unit.name)
                });
                continue;
            };
            faults.expect(self.is_loaded(socket), || format!("the socket of {} is not loaded", unit.name));
            let (all, by_source) = counted.entry(socket).or_default();
            *all = all.saturating_add(1);
            let source = service.peer.as_ref().map_or("", |peer| peer.source.as_str());
            let mine = by_source.entry(source).or_default();
            *mine = mine.saturating_add(1);
        }
        for (unit, socket) in self.sockets() {
            let (all, by_source) = counted.remove(&unit.id).unwrap_or_default();
            faults.expect(socket.connections == all, || {
                format!("{} counts {} connections, and there are {all}", unit.name, socket.connections)
            });
            let said: BTreeMap<&str, u32> =
                socket.by_source.iter().map(|(source, count)| (source.as_str(), *count)).collect();
            faults.expect(said == by_source, || {
                format!("{} counts {said:?} by source, and there are {by_source:?}", unit.name)
            });
        }
    }

    /// Every descriptor that the state owns, with its unit: in this order those of sockets, then those of services.
    pub fn descriptors(&self) -> impl Iterator<Item = (FdId, &Unit)> {
        let sockets = self.sockets().flat_map(|(unit, socket)| {
            socket.ports.iter().chain(&socket.kept).map(move |port| (port.fd, unit))
        });
        let services = self.services().flat_map(|(unit, service)| {
            let stored = service.fd_store.iter().map(|stored| stored.fd);
            let given =
                service.stdio.iter().map(|(_, fd)| *fd).chain(service.extra_fds.iter().map(|(fd, _)| *fd));
            service.connection.into_iter().chain(stored).chain(given).map(move |fd| (fd, unit))
        });
        sockets.chain(services)
    }

    fn check_owners(&self, faults: &mut Faults) {
        let mut owners = BTreeMap::new();
        for (fd, unit) in self.descriptors() {
            if let Some(other) = owners.insert(fd, &unit.name) {
                faults.0.push(format!("{fd:?} belongs to {other} and to {}", unit.name));
            }
        }
    }

    fn check_service(&self, unit: &Unit, faults: &mut Faults) {
        let Some(service) = Service::of(&unit.kind) else { return };
        let (name, sub) = (&unit.name, service.sub);
        let down = matches!(sub, ServiceSub::Dead | ServiceSub::Failed);
        let idle = down || matches!(sub, ServiceSub::AutoRestart | ServiceSub::AutoRestartQueued);
        let has = service.main.is_some() || service.control.is_some();
        faults.expect(!idle || !has, || format!("{name} is {} and has a process", sub.as_str()));
        faults.expect(!down || service.deadline_usec.is_none(), || {
            format!("{name} is {} and has a deadline", sub.as_str())
        });
        let works = crate::service::list_of(sub).is_some();
        faults.expect(!works || service.control.is_some(), || {
            format!("{name} is {} and has no control process", sub.as_str())
        });
        let passes = matches!(sub, ServiceSub::DeadBeforeAutoRestart | ServiceSub::FailedBeforeAutoRestart);
        faults.expect(!passes, || format!("{name} stays in {}", sub.as_str()));
    }
}
