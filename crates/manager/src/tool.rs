//! A program of the system that does a unit's work (mount(8), swapon(8) and their kin): how it is run, ended, and judged.
//!
//! What must stay true: whoever runs one takes the process into its state, so that its end is told to it.

use crate::effect::{Effect, Level, Spawn, SpawnId, SpawnRole};
use crate::event::Exit;
use crate::jobs::Started;
use crate::kind::Kind;
use crate::manager::Manager;
use crate::state::{CommandList, ExecStatus, Process, UnitResult};
use muster_graph::{JobResult, UnitId};
use muster_unit::{ExecCommand, Timespan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was run for a unit last, and how it went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Runs {
    /// The commands.
    pub argv: BTreeMap<CommandList, Vec<String>>,
    /// How they went.
    pub status: BTreeMap<CommandList, BTreeMap<u32, ExecStatus>>,
}

impl Manager {
    /// Runs a program in the execution context of the unit; `place` is a directory that it needs, made with that mode where
    /// it is missing. Nothing where there is no such unit.
    pub(crate) fn run_tool(
        &mut self,
        id: UnitId,
        list: CommandList,
        argv: Vec<String>,
        place: Option<(String, u32)>,
    ) -> Option<Process> {
        let path = argv.first().cloned()?;
        let start = self.stamp();
        if let Some(runs) = self.state.units.edit(&id)?.kind.state_mut().runs_mut() {
            runs.argv.insert(list, argv.clone());
            runs.status.entry(list).or_default().insert(0, ExecStatus { start, ..ExecStatus::default() });
        }
        let command = ExecCommand { path, argv, ..ExecCommand::default() };
        let spawn = SpawnId(self.state.next_spawn);
        self.state.next_spawn = self.state.next_spawn.saturating_add(1);
        if self.state.units.get(&id)?.cgroup.is_none() {
            self.realize_cgroup(id);
        }
        let base_environment = self.base_environment();
        let own = self.state.units.get(&id).and_then(|unit| unit.file.exec.clone());
        let shared = own.as_ref().and_then(|exec| self.share_of(id, exec));
        if let Some(exec) = own {
            self.use_accounts(id, &exec);
        }
        let pressure = self.pressure_environment(id);
        let unit = self.state.units.get(&id)?;
        let effect = Spawn {
            id: spawn,
            unit: unit.name.clone(),
            role: SpawnRole::Control,
            command: command.clone(),
            exec: self.with_defaults(unit.file.exec.clone().unwrap_or_default()),
            base_environment,
            own_environment: std::iter::once(format!("INVOCATION_ID={}", unit.invocation_id))
                .chain(pressure)
                .collect(),
            fds: Vec::new(),
            stdio_socket: None,
            stdio: Vec::new(),
            cgroup: unit.cgroup.clone().unwrap_or_default(),
            invocation_id: unit.invocation_id.clone(),
            report_exec: false,
            set_watchdog_pid: false,
            make_directories: false,
            non_blocking: false,
            fresh_credentials: true,
            open_files: Vec::new(),
            context_from_peer: false,
            place,
            shared,
            refresh: None,
        };
        self.effects.push_back(Effect::Spawn(Box::new(effect)));
        self.state.spawns.insert(spawn, id);
        self.state.populated.insert(id);
        Some(Process {
            spawn: Some(spawn),
            pid: None,
            command: Some(command),
            place: Some((list, 0)),
            alien: false,
        })
    }

    /// The unit was started too often: it fails as `fail` says, and nothing runs.
    pub(crate) fn refuse_tool(&mut self, id: UnitId, fail: impl FnOnce(&mut Kind)) -> Started {
        let text = format!("{}: Start request repeated too quickly.", self.unit_name(id));
        self.log(Level::Warning, Some(id), text);
        self.change_state(id, fail);
        self.start_limit_action(id);
        Started::Ended(JobResult::Failed)
    }

    /// When a program that starts now has taken too long; `None` for never.
    pub(crate) fn tool_deadline(&self, timeout: Option<Timespan>) -> Option<u64> {
        let span = timeout.map_or(self.state.facts.default_timeout_start_usec, |span| span.0);
        Some(self.now.monotonic_usec.saturating_add(span)).filter(|at| *at != u64::MAX)
    }
}

/// What the end of a program makes of its unit.
pub(crate) fn result_of(exit: Exit) -> UnitResult {
    match exit {
        Exit::Exited(0) => UnitResult::Success,
        Exit::Exited(_) => UnitResult::ExitCode,
        Exit::Killed(_) => UnitResult::Signal,
        Exit::Dumped(_) => UnitResult::CoreDump,
        Exit::NotMade => UnitResult::Resources,
    }
}
