//! What PID 1 says: log records and console lines, in systemd's words where people and scripts read them.
//!
//! Message ids are those of the public catalogue, so that `journalctl -x` and queries by id go on working.

use crate::effect::{Effect, Level, LogRecord, StatusMark};
use crate::event::Exit;
use crate::manager::Manager;
use crate::spawn::exit_words;
use crate::state::{CommandList, Kind, UnitResult};
use muster_graph::job::Job;
use muster_graph::{JobId, JobResult, JobType, UnitId};
use muster_unit::{ServiceType, UnitKind};

mod id {
    //! Ids of the message catalogue.
    pub const STARTING: &str = "7d4958e842da4a758f6c1cdc7b36dcc5";
    pub const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
    pub const FAILED: &str = "be02cf6855d2428ba40df7e9d022f03d";
    pub const STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
    pub const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";
    pub const RELOADING: &str = "d34d037fff1847e6ae669a370e694725";
    pub const RELOADED: &str = "7b05ebc668384222baa8881179cfda54";
    pub const PROCESS_EXIT: &str = "98e322203f7a4ed290d09fe03c09fe15";
    pub const FAILURE_RESULT: &str = "d9b373ed55a64feb8242e02dbe79a49c";
    pub const SUCCESS: &str = "7ad2d189f7e94e70a38c781354912448";
    pub const SKIPPED: &str = "0e4284a0caca4bfc81c0bb6786972673";
    pub const STARTUP_FINISHED: &str = "b07a249cd024414a82dd00cd181378ff";
}

/// What says that this is a first boot, until the system is up (systemd.unit(5), `ConditionFirstBoot=`).
const FIRST_BOOT: &str = "/run/systemd/first-boot";

impl Manager {
    /// A plain record.
    pub(crate) fn log(&mut self, level: Level, unit: Option<UnitId>, message: impl Into<String>) {
        self.log_with(level, unit, message.into(), Vec::new());
    }

    fn log_with(
        &mut self,
        level: Level,
        unit: Option<UnitId>,
        message: String,
        mut fields: Vec<(String, String)>,
    ) {
        if level as u8 > self.state.log_level {
            return;
        }
        let unit = unit.and_then(|id| self.state.units.get(&id));
        if let Some(unit) = unit.filter(|unit| !unit.invocation_id.is_empty()) {
            fields.push(("INVOCATION_ID".to_owned(), unit.invocation_id.clone()));
        }
        let unit = unit.map(|unit| unit.name.clone());
        self.effects.push_back(Effect::Log(LogRecord { level, unit, message, fields }));
    }

    fn with_id(&mut self, level: Level, unit: UnitId, message: String, id: &str) {
        self.log_with(level, Some(unit), message, vec![("MESSAGE_ID".to_owned(), id.to_owned())]);
    }

    fn status(&mut self, mark: StatusMark, message: String) {
        if self.state.show_status && self.is_moving() {
            self.effects.push_back(Effect::ShowStatus { mark, message });
        }
    }

    /// A console is a person's while the system comes up or goes down; between, it is whoever logs in there.
    pub(crate) fn is_moving(&self) -> bool {
        self.state.finished.monotonic_usec == 0 || self.state.shutdown.is_some() || self.shutdown_is_queued()
    }

    /// `nginx.service - A high performance web server`, as systemd shows units to people.
    pub(crate) fn title(&self, id: UnitId) -> String {
        let Some(unit) = self.state.units.get(&id) else { return String::new() };
        match unit.description() {
            text if text == unit.name.as_str() => text.into_owned(),
            text => format!("{} - {text}", unit.name),
        }
    }

    pub(crate) fn report_starting(&mut self, id: UnitId) {
        // What is up in one step is only announced when it is up.
        let lists = [CommandList::ExecCondition, CommandList::ExecStartPre, CommandList::ExecStartPost];
        if self.service_type(id) != ServiceType::Simple || self.has_commands(id, &lists) {
            let text = format!("Starting {}...", self.title(id));
            self.with_id(Level::Info, id, text.clone(), id::STARTING);
            self.status(StatusMark::None, text);
        }
    }

    fn has_commands(&self, id: UnitId, lists: &[CommandList]) -> bool {
        lists.iter().any(|list| !self.commands(id, *list).is_empty())
    }

    /// Whether stopping it takes a while that is told.
    fn ends_slowly(&self, id: UnitId) -> bool {
        let lists = [CommandList::ExecStopPre, CommandList::ExecStopPost];
        let kind = self.state.units.get(&id).map(|unit| unit.name.kind());
        kind == Some(UnitKind::Service) || self.has_commands(id, &lists)
    }

    pub(crate) fn report_stopping(&mut self, id: UnitId) {
        if !self.ends_slowly(id) {
            return;
        }
        let text = format!("Stopping {}...", self.title(id));
        self.with_id(Level::Info, id, text.clone(), id::STOPPING);
        self.status(StatusMark::None, text);
    }

    /// A device is waited for.
    pub(crate) fn report_expecting(&mut self, id: UnitId) {
        let text = format!("Expecting device {}...", self.title(id));
        self.with_id(Level::Info, id, text.clone(), id::STARTING);
        self.status(StatusMark::None, text);
    }

    /// The same for one that is to go.
    pub(crate) fn report_leaving(&mut self, id: UnitId) {
        let text = format!("Waiting for device {} to disappear...", self.title(id));
        self.with_id(Level::Info, id, text.clone(), id::STOPPING);
        self.status(StatusMark::None, text);
    }

    pub(crate) fn report_reloading(&mut self, id: UnitId) {
        let text = format!("Reloading {}...", self.title(id));
        self.with_id(Level::Info, id, text, id::RELOADING);
    }

    pub(crate) fn report_condition(&mut self, job: JobId, failed: String) {
        let Some(job) = self.state.jobs.get(&job).cloned() else { return };
        let text = format!("{} skipped, unmet condition check {failed}", self.title(job.unit));
        self.log_with(Level::Info, Some(job.unit), text, job_fields(&job, JobResult::Done, id::SKIPPED));
    }

    /// A job ended, and nothing of its unit says why.
    pub(crate) fn report_job_failure(&mut self, job: &Job, result: JobResult) {
        let (name, kind) = (self.unit_name(job.unit), job.kind.as_str());
        let text = format!("{name}: Job {name}/{kind} failed with result '{}'.", result.as_str());
        let mut fields = job_fields(job, result, "");
        fields.retain(|(_, value)| !value.is_empty());
        self.log_with(Level::Notice, Some(job.unit), text, fields);
    }

    /// Time is up in a phase; `done` is what is done about it.
    pub(crate) fn report_timeout(&mut self, id: UnitId, phase: &str, done: &str) {
        let name = self.unit_name(id);
        let text = match phase {
            "condition" | "start-pre" | "start" | "start-post" => {
                format!("{name}: {phase} operation timed out. {done}.")
            }
            "stop" => format!("{name}: Stopping timed out. {done}."),
            "stop-post" | "stop-sigterm" | "stop-watchdog" | "final-sigterm" | "final-watchdog" => {
                format!("{name}: State '{phase}' timed out. {done}.")
            }
            "runtime" => format!("{name}: Service reached runtime time limit. Stopping."),
            "reload" => format!("{name}: Reload operation timed out. Killing reload process."),
            _ => format!(
                "{name}: Processes still around after {}. Entering failed mode.",
                phase.replace("stop-", "").to_uppercase()
            ),
        };
        self.log(Level::Warning, Some(id), text);
    }

    pub(crate) fn report_main_exit(&mut self, id: UnitId, exit: Exit, clean: bool) {
        let text = format!("{}: Main process exited, {}", self.unit_name(id), exit_text(exit));
        let level = if clean { Level::Debug } else { Level::Notice };
        self.with_id(level, id, text, id::PROCESS_EXIT);
    }

    pub(crate) fn report_control_exit(&mut self, id: UnitId, list: CommandList, exit: Exit, clean: bool) {
        let text = format!("{}: Control process ({list:?}) exited, {}", self.unit_name(id), exit_text(exit));
        let level = if clean { Level::Debug } else { Level::Notice };
        self.with_id(level, id, text, id::PROCESS_EXIT);
    }

    pub(crate) fn report_exec_failure(&mut self, id: UnitId, status: i32, message: &str) {
        let name = self.unit_name(id);
        self.note_cause(id, message.to_owned());
        self.log(Level::Error, Some(id), format!("{name}: {message} (status={status})"));
    }

    /// The result of a run.
    pub(crate) fn report_result(&mut self, id: UnitId) {
        let Some(unit) = self.state.units.get(&id) else { return };
        if !matches!(unit.kind, Kind::Service(_) | Kind::Socket(_)) {
            return;
        }
        let result = unit.kind.state().result();
        let name = unit.name.to_string();
        match result {
            UnitResult::Success => {
                self.with_id(Level::Info, id, format!("{name}: Deactivated successfully."), id::SUCCESS);
            }
            UnitResult::ExecCondition => {
                self.with_id(
                    Level::Info,
                    id,
                    format!("{name}: Skipped due to 'exec-condition'."),
                    id::SKIPPED,
                );
            }
            failure => {
                let text = format!("{name}: Failed with result '{}'.", failure.as_str());
                self.with_id(Level::Warning, id, text, id::FAILURE_RESULT);
            }
        }
    }

    /// The end of a job, as a log record and a console line.
    pub(crate) fn report_job_end(&mut self, job: &Job, result: JobResult) {
        let Some((mark, level, text, message_id)) = self.job_words(job, result) else { return };
        let fields = job_fields(job, result, message_id);
        self.log_with(level, Some(job.unit), text.clone(), fields);
        if mark != StatusMark::None {
            self.status(mark, text);
        }
        if mark == StatusMark::Failed {
            let name = self.unit_name(job.unit);
            self.status(StatusMark::None, format!("See 'systemctl status {name}' for details."));
        }
    }

    fn job_words(&self, job: &Job, result: JobResult) -> Option<(StatusMark, Level, String, &'static str)> {
        let title = self.title(job.unit);
        let unit = self.state.units.get(&job.unit)?;
        let kind = unit.name.kind();
        let oneshot = kind == UnitKind::Service && self.service_type(job.unit) == ServiceType::Oneshot;
        let up = match kind {
            UnitKind::Target => "Reached target",
            UnitKind::Socket => "Listening on",
            UnitKind::Slice => "Created slice",
            UnitKind::Mount => "Mounted",
            UnitKind::Swap => "Activated swap",
            UnitKind::Automount => "Set up automount",
            UnitKind::Device => "Found device",
            UnitKind::Service if oneshot => "Finished",
            _ => "Started",
        };
        let fail = match kind {
            UnitKind::Socket => "Failed to listen on",
            UnitKind::Mount => "Failed to mount",
            UnitKind::Swap => "Failed to activate swap",
            UnitKind::Automount => "Failed to set up automount",
            _ => "Failed to start",
        };
        let down = match kind {
            UnitKind::Target => "Stopped target",
            UnitKind::Socket => "Closed",
            UnitKind::Slice => "Removed slice",
            UnitKind::Mount => "Unmounted",
            UnitKind::Swap => "Deactivated swap",
            UnitKind::Automount => "Unset automount",
            _ => "Stopped",
        };
        let skipped = !unit.condition_result && unit.condition_stamp.monotonic_usec != 0;
        Some(match (job.kind, result) {
            (JobType::Start, JobResult::Done) if skipped => return None,
            (JobType::Start, JobResult::Done) => {
                (StatusMark::Ok, Level::Info, format!("{up} {title}."), id::STARTED)
            }
            (JobType::Start, JobResult::Failed) => {
                (StatusMark::Failed, Level::Error, format!("{fail} {title}."), id::FAILED)
            }
            (JobType::Start, JobResult::Timeout) => {
                (StatusMark::Time, Level::Error, format!("Timed out waiting for {title}."), id::FAILED)
            }
            (JobType::Start, JobResult::Dependency) => {
                (StatusMark::Depend, Level::Warning, format!("Dependency failed for {title}."), id::FAILED)
            }
            (JobType::Start, JobResult::Assert) => {
                (StatusMark::Failed, Level::Warning, format!("Assertion failed for {title}."), id::FAILED)
            }
            (JobType::Start, JobResult::Unsupported) => {
                (StatusMark::Info, Level::Debug, format!("Starting of {title} unsupported."), id::FAILED)
            }
            (JobType::Stop | JobType::Restart, JobResult::Done) => {
                (StatusMark::Ok, Level::Info, format!("{down} {title}."), id::STOPPED)
            }
            (JobType::Stop | JobType::Restart, JobResult::Failed | JobResult::Timeout) => {
                (StatusMark::Failed, Level::Error, format!("Failed to stop {title}."), id::FAILED)
            }
            (JobType::Reload, JobResult::Done) => {
                (StatusMark::None, Level::Info, format!("Reloaded {title}."), id::RELOADED)
            }
            (JobType::Reload, JobResult::Failed) => {
                (StatusMark::Failed, Level::Error, format!("Reload failed for {title}."), id::FAILED)
            }
            _ => return None,
        })
    }

    /// Says that the first transaction is done, once.
    pub(crate) fn check_startup_finished(&mut self) {
        if self.state.finished.monotonic_usec != 0 || !self.state.jobs.is_empty() || !self.booting {
            return;
        }
        self.state.finished = self.stamp();
        self.effects.push_back(Effect::RemoveFile { path: FIRST_BOOT.to_owned() });
        let total_usec = self.now.monotonic_usec;
        let userspace_usec = total_usec.saturating_sub(self.state.boot.userspace.monotonic_usec);
        let text = format!("Startup finished in {}ms (userspace).", userspace_usec / 1000);
        let fields = vec![
            ("MESSAGE_ID".to_owned(), id::STARTUP_FINISHED.to_owned()),
            ("USERSPACE_USEC".to_owned(), userspace_usec.to_string()),
        ];
        self.log_with(Level::Info, None, text, fields);
        self.effects.push_back(Effect::Signal(crate::effect::BusSignal::StartupFinished {
            userspace_usec,
            total_usec,
        }));
        self.startup_values_changed();
        self.effects.push_back(Effect::Signal(crate::effect::BusSignal::ManagerChanged));
    }
}

/// What the journal is to know of a job.
fn job_fields(job: &Job, result: JobResult, message_id: &str) -> Vec<(String, String)> {
    vec![
        ("JOB_ID".to_owned(), job.id.0.to_string()),
        ("JOB_TYPE".to_owned(), job.kind.as_str().to_owned()),
        ("JOB_RESULT".to_owned(), result.as_str().to_owned()),
        ("MESSAGE_ID".to_owned(), message_id.to_owned()),
    ]
}

/// `code=exited, status=1/FAILURE`, as systemd writes it.
fn exit_text(exit: Exit) -> String {
    let (code, word) = exit_words(exit);
    match exit {
        Exit::Exited(status) => {
            format!("code={code}, status={status}/{}", muster_unit::exit_status_name(status).unwrap_or("n/a"))
        }
        Exit::Killed(signal) | Exit::Dumped(signal) => format!("code={code}, status={signal}/{word}"),
        Exit::NotMade => "it was not made".to_owned(),
    }
}
