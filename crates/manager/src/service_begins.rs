//! Services, continued: beginnings that wait. `Type=exec` waits for the program, `Type=idle` for other jobs, and a simple service
//! for the files of its environment: without them nothing is started (systemd.exec(5), `EnvironmentFile=`).

use crate::effect::SpawnRole;
use crate::manager::Manager;
use crate::state::{CommandList, ServiceSub};
use muster_graph::UnitId;
use muster_unit::ServiceType;

impl Manager {
    /// `execve` worked.
    pub(crate) fn service_exec_succeeded(&mut self, id: UnitId) {
        let awaited = matches!(self.service_type(id), ServiceType::Exec | ServiceType::Simple);
        if self.sub(id) == ServiceSub::Start && awaited {
            self.enter_start_post(id);
        }
    }

    /// A step failed, or `execve` did. What is read before there is a process was read then.
    pub(crate) fn service_exec_failed(&mut self, id: UnitId) {
        if self.sub(id) == ServiceSub::Start && self.service_type(id) == ServiceType::Simple {
            self.enter_start_post(id);
        }
    }

    /// Whether the start of a simple service waits until its `EnvironmentFile=` is read: without them nothing is started.
    pub(crate) fn is_read_for(&self, id: UnitId) -> bool {
        let exec = self.state.units.get(&id).and_then(|unit| unit.file.exec.as_ref());
        let needed = exec.is_some_and(|exec| exec.environment_file().iter().any(|file| !file.optional));
        needed && self.service_type(id) == ServiceType::Simple
    }

    pub(crate) fn start_simple(&mut self, id: UnitId) {
        if self.is_read_for(id) {
            self.set_sub(id, ServiceSub::Start, self.start_deadline(id));
            return self.run_command(id, CommandList::ExecStart, 0, SpawnRole::Main);
        }
        self.run_command(id, CommandList::ExecStart, 0, SpawnRole::Main);
        if self.commands(id, CommandList::ExecStartPost).is_empty() {
            return self.enter_start_post(id);
        }
        // What comes next is told the number of the main process.
        self.set_sub(id, ServiceSub::Start, self.start_deadline(id));
    }

    /// The main process has its number.
    pub(crate) fn main_spawned(&mut self, id: UnitId) {
        let simple = matches!(self.service_type(id), ServiceType::Simple | ServiceType::Idle);
        if simple && self.sub(id) == ServiceSub::Start && !self.is_read_for(id) {
            self.enter_start_post(id);
        }
    }

    /// `Type=idle` waits until nothing else is being started, or five seconds.
    pub(crate) fn jobs_are_busy(&self, id: UnitId) -> bool {
        self.state.jobs.values().any(|job| job.unit != id && job.running)
    }

    pub(crate) fn start_idle_services(&mut self) {
        let waiting: Vec<UnitId> = self.idle_services().collect();
        for id in waiting {
            if !self.jobs_are_busy(id) {
                self.start_simple(id);
            }
        }
    }

    pub(crate) fn idle_services(&self) -> impl Iterator<Item = UnitId> + '_ {
        self.state.idle.iter().copied().filter(|id| {
            self.sub(*id) == ServiceSub::Start
                && self.service(*id).is_some_and(|service| service.main.is_none())
        })
    }
}
