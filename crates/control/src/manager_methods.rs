//! The methods of the manager, and those of units and jobs, which are the same with the name left out.
//!
//! A handler parses, refuses what systemd refuses, and turns the rest into a [`Request`]; what depends on the state
//! at the time of the transaction is left to the manager.

use crate::error::Refusal;
use crate::table::{methods, signals};
use crate::view::has_cgroup;
use crate::wire::{Args, Out, Value};
use crate::{Action, Call, dump, manager, mounting, object::Object, path, transient};
use muster_graph::job::Job;
use muster_graph::{JobId, JobMode, JobType};
use muster_manager::Manager;
use muster_manager::anew::Anew;
use muster_manager::event::{KillWhom, Request, ShutdownVerb, TransientUnit};
use muster_manager::marks::MarksChange;
use muster_manager::state::{ActiveState, Unit};
use muster_unit::{LoadState, UnitKind, UnitName};

/// At most this many units are listed by name at once. All are loaded in one event, which anybody may ask for, and each costs a
/// look at the disk.
const NAMES_MAX: usize = 16_384;

pub(crate) type Done = Result<Action, Refusal>;

pub(crate) fn request(request: Request) -> Done {
    Ok(Action::Request(request))
}

/// A unit name of a client.
pub fn unit_name(text: &str) -> Result<UnitName, Refusal> {
    text.parse().map_err(|_| Refusal::invalid(format!("Unit name {text} is not valid.")))
}

/// A loaded unit by name; an empty name is the caller's own unit.
pub(crate) fn loaded<'a>(call: &Call<'a>, text: &str) -> Result<&'a Unit, Refusal> {
    if text.is_empty() {
        return unit_of_pid(call, call.caller.pid);
    }
    let name = text.parse::<UnitName>().map_err(|_| Refusal::not_loaded(text))?;
    call.manager.unit(&name).ok_or_else(|| Refusal::not_loaded(text))
}

/// The same for what may be done to a unit that is not loaded yet: it is loaded first.
fn with_unit(call: &Call<'_>, text: &str, then: impl FnOnce(&Unit) -> Done) -> Done {
    if text.is_empty() {
        return then(loaded(call, text)?);
    }
    let name = unit_name(text)?;
    match call.manager.unit(&name) {
        Some(unit) => then(unit),
        None => Ok(Action::RequestThenRetry(Request::LoadUnit { unit: name })),
    }
}

pub(crate) fn unit_of_pid<'a>(call: &Call<'a>, pid: u32) -> Result<&'a Unit, Refusal> {
    let pid = if pid == 0 { call.caller.pid } else { pid };
    let cgroup = call.live.pid_cgroup(pid);
    let id = call.manager.unit_of_process(pid, cgroup.as_deref());
    id.and_then(|id| call.manager.unit_by_id(id)).ok_or_else(|| Refusal::no_unit_for_pid(pid))
}

/// The unit that a method of a unit object is called on.
pub(crate) fn own_unit<'a>(call: &Call<'a>) -> Result<&'a Unit, Refusal> {
    match call.object {
        Object::Unit(view) => Ok(view.unit),
        Object::Branch(_) | Object::Driver | Object::Manager(_) | Object::LogControl(_) | Object::Job(_) => {
            Err(Refusal::failed("Not a unit."))
        }
    }
}

fn own_job<'a>(call: &Call<'a>) -> Result<&'a Job, Refusal> {
    match call.object {
        Object::Job(view) => Ok(view.job),
        Object::Branch(_) | Object::Driver | Object::Manager(_) | Object::LogControl(_) | Object::Unit(_) => {
            Err(Refusal::failed("Not a job."))
        }
    }
}

fn own_name(call: &Call<'_>) -> Result<String, Refusal> {
    own_unit(call).map(|unit| unit.name.to_string())
}

fn answer_unit(call: &Call<'_>, unit: &Unit) -> Done {
    call.reply(|out| out.unit_path(unit.name.as_str()))
}

// ---- jobs

/// What a verb asks for: the job, and whether a reload will do.
#[derive(Clone, Copy)]
struct Verb(JobType, bool);
const START: Verb = Verb(JobType::Start, false);
const STOP: Verb = Verb(JobType::Stop, false);
const RELOAD: Verb = Verb(JobType::Reload, false);
const RESTART: Verb = Verb(JobType::Restart, false);
const TRY_RESTART: Verb = Verb(JobType::TryRestart, false);
const RELOAD_OR_RESTART: Verb = Verb(JobType::Restart, true);
const RELOAD_OR_TRY_RESTART: Verb = Verb(JobType::TryRestart, true);

fn verb(word: &str) -> Result<Verb, Refusal> {
    match word {
        "reload-or-restart" => Ok(RELOAD_OR_RESTART),
        "reload-or-try-restart" => Ok(RELOAD_OR_TRY_RESTART),
        _ => JobType::parse(word)
            .map(|kind| Verb(kind, false))
            .ok_or_else(|| Refusal::invalid(format!("Job type {word} invalid"))),
    }
}

pub(crate) fn job_mode(word: &str) -> Result<JobMode, Refusal> {
    // Lenient is for the traffic of sockets alone; 257 does not know it from clients.
    let mode = JobMode::parse(word).filter(|mode| *mode != JobMode::Lenient);
    mode.ok_or_else(|| Refusal::invalid(format!("Job mode {word} invalid")))
}

fn enqueue(call: &Call<'_>, name: &str, Verb(kind, reload_if_possible): Verb, mode: &str) -> Done {
    let mode = job_mode(mode)?;
    let unit = unit_name(name)?;
    if unit.is_template() {
        return Err(Refusal::invalid(format!("Unit name {unit} is missing the instance name.")));
    }
    if let Some(unit) = call.manager.unit(&unit) {
        refuse_manual(unit, kind)?;
    }
    request(Request::EnqueueJob { unit, kind, mode, reload_if_possible })
}

/// `RefuseManualStart=` and `RefuseManualStop=` of systemd.unit(5).
fn refuse_manual(unit: &Unit, kind: JobType) -> Result<(), Refusal> {
    let section = &unit.file.unit;
    let stops = matches!(kind, JobType::Stop | JobType::Restart | JobType::TryRestart);
    let starts =
        matches!(kind, JobType::Start | JobType::Restart | JobType::TryRestart | JobType::ReloadOrStart);
    if (starts && section.refuse_manual_start()) || (stops && section.refuse_manual_stop()) {
        return Err(Refusal::only_by_dependency(&unit.name, "start/stop"));
    }
    Ok(())
}

fn by_name(call: &Call<'_>, arguments: &mut Args<'_>, verb: Verb) -> Done {
    let (name, mode) = (arguments.str()?, arguments.str()?);
    enqueue(call, &name, verb, &mode)
}

fn on_self(call: &Call<'_>, arguments: &mut Args<'_>, verb: Verb) -> Done {
    enqueue(call, &own_name(call)?, verb, &arguments.str()?)
}

fn enqueue_any(call: &Call<'_>, name: &str, arguments: &mut Args<'_>) -> Done {
    let (word, mode) = (arguments.str()?, arguments.str()?);
    enqueue(call, name, verb(&word)?, &mode)
}

fn find_job<'a>(call: &Call<'a>, id: u32) -> Result<&'a Job, Refusal> {
    call.manager.state().jobs.get(&JobId(id)).ok_or_else(|| Refusal::no_job(id))
}

/// One row of `ListJobs`: `(usssoo)`.
fn write_job(manager: &Manager, job: &Job, out: &mut Out<'_>) {
    let unit = manager.unit_by_id(job.unit).map_or("", |unit| unit.name.as_str());
    out.structure(|out| {
        out.u32(job.id.0);
        out.str(unit);
        out.str(job.kind.as_str());
        out.str(if job.running { "running" } else { "waiting" });
        out.path(&path::of_job(job.id));
        out.path(&path::of_unit(unit));
    });
}

fn write_jobs<'j>(manager: &Manager, jobs: impl Iterator<Item = &'j Job>, out: &mut Out<'_>) {
    out.array("(usssoo)", |out| jobs.for_each(|job| write_job(manager, job, out)));
}

/// The jobs that come after one, since they wait for it, or those that come before it.
fn related_jobs(call: &Call<'_>, job: &Job, after: bool) -> Done {
    let state = call.manager.state();
    let list: Vec<&Job> = if !after {
        let units = state.jobs.waits_for(&state.graph, job).into_iter();
        units.filter_map(|unit| state.jobs.of(unit)).collect()
    } else {
        state.jobs.waiting_for(&state.graph, job).collect()
    };
    call.reply(|out| write_jobs(call.manager, list.into_iter(), out))
}

// ---- units

/// One row of `ListUnits`: `(ssssssouso)`.
fn write_unit(manager: &Manager, unit: &Unit, out: &mut Out<'_>) {
    let job = manager.state().jobs.of(unit.id);
    out.structure(|out| {
        out.str(unit.name.as_str());
        out.str(&unit.description());
        out.str(unit.file.load_state.as_str());
        out.str(unit.active_state().as_str());
        out.str(unit.sub_state());
        out.str("");
        out.unit_path(unit.name.as_str());
        out.u32(job.map_or(0, |job| job.id.0));
        out.str(job.map_or("", |job| job.kind.as_str()));
        match job {
            Some(job) => out.path(&path::of_job(job.id)),
            None => out.path("/"),
        }
    });
}

fn list_units(call: &Call<'_>, states: &[String], patterns: &[String]) -> Done {
    let has_state = |unit: &Unit| {
        if states.is_empty() {
            return true;
        }
        let mine = [unit.file.load_state.as_str(), unit.active_state().as_str(), unit.sub_state()];
        states.iter().any(|state| mine.contains(&state.as_str()))
    };
    let is_named = |unit: &Unit| {
        let matches = |name: &UnitName| {
            patterns.iter().any(|pattern| muster_unit::glob::matches(pattern, name.as_str()))
        };
        patterns.is_empty() || matches(&unit.name) || unit.file.names.iter().any(matches)
    };
    let units = call.manager.state().units.values().filter(|unit| has_state(unit) && is_named(unit));
    call.reply(|out| {
        out.array("(ssssssouso)", |out| units.for_each(|unit| write_unit(call.manager, unit, out)))
    })
}

/// Units by exact names, loading those that are not: one at a time, each by another round.
/// The units of these names; those that are not loaded are loaded first, all at once.
fn list_by_names(call: &Call<'_>, names: &[String]) -> Done {
    if names.len() > NAMES_MAX {
        return Err(Refusal::too_many(NAMES_MAX, "names"));
    }
    let names: Vec<UnitName> = names.iter().map(|name| unit_name(name)).collect::<Result<_, _>>()?;
    let missing: Vec<UnitName> =
        names.iter().filter(|name| call.manager.unit(name).is_none()).cloned().collect();
    if !missing.is_empty() {
        return Ok(Action::RequestThenRetry(Request::LoadUnits { units: missing }));
    }
    let units = names.iter().filter_map(|name| call.manager.unit(name));
    call.reply(|out| {
        out.array("(ssssssouso)", |out| units.for_each(|unit| write_unit(call.manager, unit, out)));
    })
}

fn by_invocation(call: &Call<'_>, id: &[u8]) -> Done {
    if id.is_empty() {
        return answer_unit(call, unit_of_pid(call, call.caller.pid)?);
    }
    if id.len() != 16 {
        return Err(Refusal::invalid("Invalid invocation ID"));
    }
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let unit =
        manager::by_invocation(call.manager, &hex).ok_or_else(|| Refusal::no_unit_for_invocation(&hex))?;
    answer_unit(call, unit)
}

fn by_cgroup(call: &Call<'_>, cgroup: &str) -> Done {
    let id = call.manager.unit_of_process(0, Some(cgroup));
    let unit =
        id.and_then(|id| call.manager.unit_by_id(id)).ok_or_else(|| Refusal::no_unit_for_cgroup(cgroup))?;
    answer_unit(call, unit)
}

fn by_pidfd(call: &Call<'_>, arguments: &mut Args<'_>) -> Done {
    let fd = arguments.fd()?;
    let pid = call.live.pid_of_pidfd(fd).ok_or_else(|| Refusal::invalid("Not a pidfd."))?;
    let unit = unit_of_pid(call, pid)?;
    call.reply(|out| {
        out.path(&path::of_unit(unit.name.as_str()));
        out.str(unit.name.as_str());
        crate::table::put!("ay", out, crate::show::HexId(&unit.invocation_id));
    })
}

fn whom(word: &str) -> Result<KillWhom, Refusal> {
    match word {
        "" | "all" => Ok(KillWhom::All),
        "main" => Ok(KillWhom::Main),
        "control" => Ok(KillWhom::Control),
        "main-fail" => Ok(KillWhom::MainFail),
        "control-fail" => Ok(KillWhom::ControlFail),
        "all-fail" => Ok(KillWhom::AllFail),
        _ => Err(Refusal::invalid(format!("Invalid whom argument: {word}"))),
    }
}

fn kill(unit: &Unit, arguments: &mut Args<'_>, with_value: bool) -> Done {
    let (whom, signal) = (whom(&arguments.str()?)?, arguments.i32()?);
    let value = if with_value { Some(arguments.i32()?) } else { None };
    if !(1..=64).contains(&signal) {
        return Err(Refusal::invalid("Signal number out of range."));
    }
    if !has_cgroup(unit.name.kind()) {
        return Err(Refusal::not_supported("Unit type does not support process killing."));
    }
    request(Request::Kill { unit: unit.name.clone(), whom, signal, value })
}

fn clean(unit: &Unit, mask: Vec<String>) -> Done {
    const RESOURCES: &[&str] = &["configuration", "runtime", "state", "cache", "logs", "fdstore", "all"];
    // A unit that cannot be used at all is refused for that, by the manager.
    let is_usable = unit.file.load_state == LoadState::Loaded;
    if let Some(wrong) = mask.iter().find(|word| is_usable && !RESOURCES.contains(&word.as_str())) {
        return Err(Refusal::invalid(format!("Invalid resource type: {wrong}")));
    }
    request(Request::Clean { unit: unit.name.clone(), mask })
}

fn freeze(unit: &Unit, freeze: bool) -> Done {
    match unit.name.kind() {
        UnitKind::Service | UnitKind::Scope | UnitKind::Slice => {
            request(Request::Freeze { unit: unit.name.clone(), freeze })
        }
        UnitKind::Target
        | UnitKind::Device
        | UnitKind::Mount
        | UnitKind::Automount
        | UnitKind::Swap
        | UnitKind::Timer
        | UnitKind::Path
        | UnitKind::Socket => Err(Refusal::not_supported("Unit does not support freeze/thaw")),
    }
}

fn set_properties(unit: &Unit, arguments: &mut Args<'_>) -> Done {
    let runtime = arguments.bool()?;
    let properties = arguments.properties()?;
    let changes = transient::changes(unit.name.kind(), &properties)?;
    let mut marks = MarksChange::default();
    for (_, words) in properties.iter().filter(|(name, _)| name == "Markers") {
        let words = words.as_texts().unwrap_or_default();
        marks = MarksChange::parse(&words)
            .ok_or_else(|| Refusal::invalid(format!("Unknown marker \"{}\".", words.join(" "))))?;
    }
    request(Request::SetProperties { unit: unit.name.clone(), runtime, changes, marks })
}

fn processes(call: &Call<'_>, unit: &Unit) -> Done {
    let list = unit.cgroup.as_deref().map_or_else(Vec::new, |cgroup| call.live.processes(cgroup));
    call.reply(|out| {
        out.array("(sus)", |out| {
            for (cgroup, pid, command) in &list {
                out.structure(|out| {
                    out.str(cgroup);
                    out.u32(*pid);
                    out.str(command);
                });
            }
        });
    })
}

fn attach(call: &Call<'_>, unit: &Unit, arguments: &mut Args<'_>) -> Done {
    let (subgroup, pids) = (arguments.str()?, arguments.numbers()?);
    let delegated = unit.file.cgroup.as_ref().is_some_and(|section| crate::cgroup::is_delegated(section));
    if !delegated {
        return Err(Refusal::invalid("Process migration not available on non-delegated units."));
    }
    let pids = pids.into_iter().map(|pid| if pid == 0 { call.caller.pid } else { pid }).collect();
    request(Request::AttachProcesses { unit: unit.name.clone(), subgroup, pids })
}

/// What is below the cgroup of a unit that was given away belongs to the unit; what is to be done there is asked of us.
fn subgroup(unit: &Unit, name: String, then: impl FnOnce(UnitName, String) -> Request) -> Done {
    if !has_cgroup(unit.name.kind()) {
        return Err(Refusal::not_supported("Unit type does not support control groups."));
    }
    request(then(unit.name.clone(), name))
}

fn kill_subgroup(unit: &Unit, name: String, signal: i32) -> Done {
    subgroup(unit, name, |unit, subgroup| Request::KillSubgroup { unit, subgroup, signal })
}

fn remove_subgroup(unit: &Unit, name: String, flags: u64) -> Done {
    if flags != 0 {
        return Err(Refusal::invalid("Flags must be zero."));
    }
    subgroup(unit, name, |unit, subgroup| Request::RemoveSubgroup { unit, subgroup })
}

/// Keeps a unit loaded for a client of the bus, until that leaves; a private connection has no name to count by.
fn reference(call: &Call<'_>, unit: &Unit, add: bool) -> Done {
    if call.message.sender().is_none() {
        return call.done();
    }
    request(Request::Reference { unit: unit.name.clone(), add })
}

fn abandon(unit: &Unit) -> Done {
    if unit.name.kind() != UnitKind::Scope {
        return Err(Refusal::invalid(format!("Unit '{}' is not a scope unit, refusing.", unit.name)));
    }
    request(Request::AbandonScope { unit: unit.name.clone() })
}

/// `StartTransientUnit`: (name, properties) of the unit, then of helpers.
fn start_transient(call: &Call<'_>, arguments: &mut Args<'_>) -> Done {
    let (name, mode) = (unit_name(&arguments.str()?)?, job_mode(&arguments.str()?)?);
    let mut units = vec![transient_unit(call, name, &arguments.properties()?)?];
    for helper in arguments.list()? {
        let Value::Struct(fields) = helper else {
            return Err(Refusal::invalid("Unexpected message contents"));
        };
        let (Some(Value::Text(name)), Some(properties)) = (fields.first(), fields.get(1)) else {
            return Err(Refusal::invalid("Unexpected message contents"));
        };
        units.push(transient_unit(call, unit_name(name)?, &properties.as_properties()?)?);
    }
    request(Request::StartTransient { units, mode })
}

fn transient_unit(
    call: &Call<'_>,
    name: UnitName,
    properties: &[(String, Value)],
) -> Result<TransientUnit, Refusal> {
    match name.kind() {
        UnitKind::Target | UnitKind::Device | UnitKind::Swap => {
            return Err(Refusal::invalid(format!(
                "Unit type {} does not support transient units.",
                name.kind().suffix()
            )));
        }
        UnitKind::Service
        | UnitKind::Socket
        | UnitKind::Scope
        | UnitKind::Slice
        | UnitKind::Mount
        | UnitKind::Automount
        | UnitKind::Timer
        | UnitKind::Path => {}
    }
    if let Some(unit) = call.manager.unit(&name) {
        let untouched = unit.file.fragment_path.is_none()
            && !unit.transient
            && unit.file.load_state.as_str() == "not-found";
        let over =
            unit.transient && matches!(unit.active_state(), ActiveState::Inactive | ActiveState::Failed);
        if !untouched && !over {
            return Err(Refusal::unit_exists(&name));
        }
    }
    let built = transient::settings(name.kind(), properties, call.caller.pid)?;
    let transient::Built { settings, text, pids, controller, stdio, extra_names, reference } = built;
    Ok(TransientUnit { name, settings, text, pids, controller, stdio, extra_names, reference })
}

// ---- the manager itself

/// Whether a text is a variable's name as environ(7) has it.
fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn assignments(list: Vec<String>) -> Result<Vec<String>, Refusal> {
    if list.iter().all(|entry| entry.split_once('=').is_some_and(|(name, _)| is_variable(name))) {
        return Ok(list);
    }
    Err(Refusal::invalid("Invalid environment assignments"))
}

fn names(list: Vec<String>) -> Result<Vec<String>, Refusal> {
    if list.iter().all(|entry| is_variable(entry.split_once('=').map_or(entry.as_str(), |(name, _)| name))) {
        return Ok(list);
    }
    Err(Refusal::invalid("Invalid environment variable names or assignments"))
}

fn show_status(mode: String) -> Done {
    match mode.as_str() {
        "" | "yes" | "no" | "auto" | "error" | "true" | "false" | "1" | "0" | "on" | "off" | "temporary" => {
            request(Request::SetShowStatus { mode })
        }
        _ => Err(Refusal::invalid(format!("Invalid show status '{mode}'"))),
    }
}

fn shutdown(verb: ShutdownVerb) -> Done {
    request(Request::Shutdown { verb })
}

/// Out of an initrd, below another root directory; that is looked at now: when it begins there is no way back.
fn switch_root(call: &Call<'_>, root: &str, init: &str) -> Done {
    let root = if root.is_empty() { "/sysroot" } else { root };
    let fault = if !root.starts_with('/') {
        format!("New root path '{root}' is not absolute.")
    } else if root.trim_end_matches('/').is_empty() {
        "New root directory cannot be the old root directory.".to_owned()
    } else if !init.is_empty() && !init.starts_with('/') {
        format!("Path to init binary '{init}' not absolute.")
    } else {
        String::new()
    };
    if !fault.is_empty() {
        return Err(Refusal::invalid(fault));
    }
    let fault = if !call.live.is_there("/etc/initrd-release") {
        "Not in initrd, refusing switch-root operation.".to_owned()
    } else if !call.live.is_system(root) {
        format!(
            "Specified switch root path '{root}' does not seem to be an OS tree. os-release file is missing."
        )
    } else if !init.is_empty() && !call.live.is_there(&format!("{root}{init}")) {
        format!("Specified init binary '{init}' does not exist.")
    } else {
        return begin_anew(Anew::SwitchRoot, root, init);
    };
    Err(Refusal::failed(fault))
}

fn begin_anew(why: Anew, root: &str, init: &str) -> Done {
    request(Request::BeginAnew { why, root: root.to_owned(), init: init.to_owned() })
}

fn user_number(call: &Call<'_>, name: String) -> Done {
    let valid = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.$".contains(c));
    if !valid || name.trim_matches('.').is_empty() {
        return Err(Refusal::invalid(format!("User name invalid: {name}")));
    }
    let found = crate::users::all(call.manager).find(|(known, _)| *known == name);
    let (_, number) = found.ok_or_else(|| Refusal::no_dynamic_user(&name))?;
    call.reply(|out| out.u32(number))
}

fn user_name(call: &Call<'_>, number: u32) -> Done {
    let found = crate::users::all(call.manager).find(|(_, known)| *known == number);
    let (name, _) = found.ok_or_else(|| Refusal::no_dynamic_user_id(number))?;
    call.reply(|out| out.str(name))
}

fn dynamic_users(call: &Call<'_>) -> Done {
    call.reply(|out| {
        out.array("(us)", |out| {
            for (name, number) in crate::users::all(call.manager) {
                out.structure(|out| {
                    out.u32(number);
                    out.str(name);
                });
            }
        });
    })
}

methods! { METHODS {
    GetUnit("s" name) -> ("o" unit) Read = |call, a| answer_unit(call, loaded(call, &a.str()?)?);
    GetUnitByPID("u" pid) -> ("o" unit) Read = |call, a| answer_unit(call, unit_of_pid(call, a.u32()?)?);
    GetUnitByInvocationID("ay" invocation_id) -> ("o" unit) Read = |call, a| by_invocation(call, &a.bytes()?);
    GetUnitByControlGroup("s" cgroup) -> ("o" unit) Read = |call, a| by_cgroup(call, &a.str()?);
    GetUnitByPIDFD("h" pidfd) -> ("o" unit, "s" unit_id, "ay" invocation_id) Read = |call, a| by_pidfd(call, a);
    LoadUnit("s" name) -> ("o" unit) Read = |_, a| request(Request::LoadUnit { unit: unit_name(&a.str()?)? });
    StartUnit("s" name, "s" mode) -> ("o" job) ManageUnits = |call, a| by_name(call, a, START);
    StartUnitWithFlags("s" name, "s" mode, "t" flags) -> ("o" job) ManageUnits = |call, a| {
        let (name, mode) = (a.str()?, a.str()?);
        match a.u64()? {
            0 => enqueue(call, &name, START, &mode),
            flags => Err(Refusal::invalid(format!("Invalid 'flags' parameter '{flags}'"))),
        }
    };
    StartUnitReplace("s" old_unit, "s" new_unit, "s" mode) -> ("o" job) ManageUnits = |call, a| {
        let old = a.str()?;
        if call.manager.state().jobs.of(loaded(call, &old)?.id).is_none() {
            return Err(Refusal::no_job(format!("of unit {old}")));
        }
        by_name(call, a, START)
    };
    StopUnit("s" name, "s" mode) -> ("o" job) ManageUnits = |call, a| by_name(call, a, STOP);
    ReloadUnit("s" name, "s" mode) -> ("o" job) ManageUnits = |call, a| by_name(call, a, RELOAD);
    RestartUnit("s" name, "s" mode) -> ("o" job) ManageUnits = |call, a| by_name(call, a, RESTART);
    TryRestartUnit("s" name, "s" mode) -> ("o" job) ManageUnits = |call, a| by_name(call, a, TRY_RESTART);
    ReloadOrRestartUnit("s" name, "s" mode) -> ("o" job) ManageUnits = |call, a| by_name(call, a, RELOAD_OR_RESTART);
    ReloadOrTryRestartUnit("s" name, "s" mode) -> ("o" job) ManageUnits
        = |call, a| by_name(call, a, RELOAD_OR_TRY_RESTART);
    EnqueueUnitJob("s" name, "s" job_type, "s" job_mode)
        -> ("u" job_id, "o" job_path, "s" unit_id, "o" unit_path, "s" job_type, "a(uosos)" affected_jobs) ManageUnits
        = |call, a| { let name = a.str()?; enqueue_any(call, &name, a) };
    KillUnit("s" name, "s" whom, "i" signal) -> () ManageUnits = |call, a| kill(loaded(call, &a.str()?)?, a, false);
    QueueSignalUnit("s" name, "s" whom, "i" signal, "i" value) -> () ManageUnits
        = |call, a| kill(loaded(call, &a.str()?)?, a, true);
    CleanUnit("s" name, "as" mask) -> () ManageUnits = |call, a| {
        let (name, mask) = (a.str()?, a.strings()?);
        with_unit(call, &name, |unit| clean(unit, mask))
    };
    FreezeUnit("s" name) -> () ManageUnits = |call, a| freeze(loaded(call, &a.str()?)?, true);
    ThawUnit("s" name) -> () ManageUnits = |call, a| freeze(loaded(call, &a.str()?)?, false);
    ResetFailedUnit("s" name) -> () ManageUnits
        = |call, a| request(Request::ResetFailed { unit: Some(loaded(call, &a.str()?)?.name.clone()) });
    SetUnitProperties("s" name, "b" runtime, "a(sv)" properties) -> () ManageUnits
        = |call, a| {
            let name = a.str()?;
            with_unit(call, &name, |unit| set_properties(unit, a))
        };
    BindMountUnit("s" name, "s" source, "s" destination, "b" read_only, "b" mkdir) -> () ManageUnits
        = |call, a| mounting::order(call, loaded(call, &a.str()?)?, a, false);
    MountImageUnit("s" name, "s" source, "s" destination, "b" read_only, "b" mkdir, "a(ss)" options) -> () ManageUnits
        = |call, a| mounting::order(call, loaded(call, &a.str()?)?, a, true);
    RefUnit("s" name) -> () ManageUnits = |call, a| with_unit(call, &a.str()?, |unit| reference(call, unit, true));
    UnrefUnit("s" name) -> () ManageUnits = |call, a| reference(call, loaded(call, &a.str()?)?, false);
    StartTransientUnit("s" name, "s" mode, "a(sv)" properties, "a(sa(sv))" aux) -> ("o" job) ManageUnits
        = |call, a| start_transient(call, a);
    GetUnitProcesses("s" name) -> ("a(sus)" processes) Read = |call, a| processes(call, loaded(call, &a.str()?)?);
    AttachProcessesToUnit("s" unit_name, "s" subcgroup, "au" pids) -> () ManageUnits
        = |call, a| attach(call, loaded(call, &a.str()?)?, a);
    KillUnitSubgroup("s" name, "s" whom, "s" subgroup, "i" signal) -> () ManageUnits = |call, a| {
        let unit = loaded(call, &a.str()?)?;
        match a.str()?.as_str() {
            "" | "all" | "all-fail" | "cgroup" | "cgroup-fail" => kill_subgroup(unit, a.str()?, a.i32()?),
            word => Err(Refusal::invalid(format!("Invalid whom argument: {word}"))),
        }
    };
    RemoveSubgroupFromUnit("s" unit_name, "s" subcgroup, "t" flags) -> () ManageUnits
        = |call, a| { let unit = loaded(call, &a.str()?)?; remove_subgroup(unit, a.str()?, a.u64()?) };
    AbandonScope("s" name) -> () ManageUnits = |call, a| abandon(loaded(call, &a.str()?)?);
    GetJob("u" id) -> ("o" job) Read = |call, a| {
        let job = find_job(call, a.u32()?)?;
        call.reply(|out| out.path(&path::of_job(job.id)))
    };
    GetJobAfter("u" id) -> ("a(usssoo)" jobs) Read = |call, a| related_jobs(call, find_job(call, a.u32()?)?, true);
    GetJobBefore("u" id) -> ("a(usssoo)" jobs) Read = |call, a| related_jobs(call, find_job(call, a.u32()?)?, false);
    CancelJob("u" id) -> () ManageUnits = |call, a| request(Request::CancelJob { job: find_job(call, a.u32()?)?.id.0 });
    ClearJobs() -> () ManageUnits = |_, _| request(Request::ClearJobs);
    ResetFailed() -> () ManageUnits = |_, _| request(Request::ResetFailed { unit: None });
    SetShowStatus("s" mode) -> () ManageUnits = |_, a| show_status(a.str()?);
    ListUnits() -> ("a(ssssssouso)" units) Read = |call, _| list_units(call, &[], &[]);
    ListUnitsFiltered("as" states) -> ("a(ssssssouso)" units) Read = |call, a| list_units(call, &a.strings()?, &[]);
    ListUnitsByPatterns("as" states, "as" patterns) -> ("a(ssssssouso)" units) Read
        = |call, a| { let states = a.strings()?; list_units(call, &states, &a.strings()?) };
    ListUnitsByNames("as" names) -> ("a(ssssssouso)" units) Read = |call, a| list_by_names(call, &a.strings()?);
    ListJobs() -> ("a(usssoo)" jobs) Read
        = |call, _| call.reply(|out| write_jobs(call.manager, call.manager.state().jobs.values(), out));
    Subscribe() -> () Read = |call, _| call.done();
    Unsubscribe() -> () Read = |call, _| call.done();
    Dump() -> ("s" output) Read = |call, _| call.reply(|out| out.str(&dump::text(call.manager, &[])));
    DumpUnitsMatchingPatterns("as" patterns) -> ("s" output) Read = |call, a| {
        let patterns = a.strings()?;
        call.reply(|out| out.str(&dump::text(call.manager, &patterns)))
    };
    Reload() -> () ReloadDaemon = |_, _| request(Request::Reload);
    Reexecute() -> () ReloadDaemon = |_, _| request(Request::Reexecute);
    Exit() -> () Privileged = |_, _| shutdown(ShutdownVerb::Exit);
    Reboot() -> () Privileged = |_, _| shutdown(ShutdownVerb::Reboot);
    SoftReboot("s" new_root) -> () Privileged = |_, a| match a.str()?.as_str() {
        "" => shutdown(ShutdownVerb::SoftReboot),
        root if root.starts_with('/') => begin_anew(Anew::SoftReboot, root, ""),
        root => Err(Refusal::invalid(format!("New root directory path '{root}' is not absolute."))),
    };
    SwitchRoot("s" new_root, "s" init) -> () Privileged
        = |call, a| { let (root, init) = (a.str()?, a.str()?); switch_root(call, &root, &init) };
    PowerOff() -> () Privileged = |_, _| shutdown(ShutdownVerb::Poweroff);
    Halt() -> () Privileged = |_, _| shutdown(ShutdownVerb::Halt);
    KExec() -> () Privileged = |_, _| shutdown(ShutdownVerb::Kexec);
    SetEnvironment("as" assignments) -> () SetEnvironment
        = |_, a| request(Request::UpdateEnvironment { unset: Vec::new(), set: assignments(a.strings()?)? });
    UnsetEnvironment("as" names) -> () SetEnvironment
        = |_, a| request(Request::UpdateEnvironment { unset: names(a.strings()?)?, set: Vec::new() });
    UnsetAndSetEnvironment("as" names, "as" assignments) -> () SetEnvironment
        = |_, a| request(Request::UpdateEnvironment { unset: names(a.strings()?)?, set: assignments(a.strings()?)? });
    EnqueueMarkedJobs() -> ("ao" jobs) ManageUnits = |_, _| request(Request::EnqueueMarked);
    SetExitCode("y" number) -> () Privileged = |_, a| request(Request::SetExitCode { code: a.u8()? });
    LookupDynamicUserByName("s" name) -> ("u" uid) Read = |call, a| user_number(call, a.str()?);
    LookupDynamicUserByUID("u" uid) -> ("s" name) Read = |call, a| user_name(call, a.u32()?);
    GetDynamicUsers() -> ("a(us)" users) Read = |call, _| dynamic_users(call);
} }

methods! { UNIT_METHODS {
    Start("s" mode) -> ("o" job) ManageUnits = |call, a| on_self(call, a, START);
    Stop("s" mode) -> ("o" job) ManageUnits = |call, a| on_self(call, a, STOP);
    Reload("s" mode) -> ("o" job) ManageUnits = |call, a| on_self(call, a, RELOAD);
    Restart("s" mode) -> ("o" job) ManageUnits = |call, a| on_self(call, a, RESTART);
    TryRestart("s" mode) -> ("o" job) ManageUnits = |call, a| on_self(call, a, TRY_RESTART);
    ReloadOrRestart("s" mode) -> ("o" job) ManageUnits = |call, a| on_self(call, a, RELOAD_OR_RESTART);
    ReloadOrTryRestart("s" mode) -> ("o" job) ManageUnits = |call, a| on_self(call, a, RELOAD_OR_TRY_RESTART);
    EnqueueJob("s" job_type, "s" job_mode)
        -> ("u" job_id, "o" job_path, "s" unit_id, "o" unit_path, "s" job_type, "a(uosos)" affected_jobs) ManageUnits
        = |call, a| enqueue_any(call, &own_name(call)?, a);
    Kill("s" whom, "i" signal) -> () ManageUnits = |call, a| kill(own_unit(call)?, a, false);
    QueueSignal("s" whom, "i" signal, "i" value) -> () ManageUnits = |call, a| kill(own_unit(call)?, a, true);
    KillSubgroup("s" subgroup, "i" signal) -> () ManageUnits
        = |call, a| kill_subgroup(own_unit(call)?, a.str()?, a.i32()?);
    ResetFailed() -> () ManageUnits
        = |call, _| request(Request::ResetFailed { unit: Some(own_unit(call)?.name.clone()) });
    SetProperties("b" runtime, "a(sv)" properties) -> () ManageUnits = |call, a| set_properties(own_unit(call)?, a);
    Ref() -> () ManageUnits = |call, _| reference(call, own_unit(call)?, true);
    Unref() -> () ManageUnits = |call, _| reference(call, own_unit(call)?, false);
    Clean("as" mask) -> () ManageUnits = |call, a| clean(own_unit(call)?, a.strings()?);
    Freeze() -> () ManageUnits = |call, _| freeze(own_unit(call)?, true);
    Thaw() -> () ManageUnits = |call, _| freeze(own_unit(call)?, false);
} }

methods! { CGROUP_METHODS {
    GetProcesses() -> ("a(sus)" processes) Read = |call, _| processes(call, own_unit(call)?);
    RemoveSubgroup("s" subcgroup, "t" flags) -> () ManageUnits
        = |call, a| remove_subgroup(own_unit(call)?, a.str()?, a.u64()?);
    AttachProcesses("s" subcgroup, "au" pids) -> () ManageUnits = |call, a| attach(call, own_unit(call)?, a);
} }

methods! { SERVICE_METHODS {
    BindMount("s" source, "s" destination, "b" read_only, "b" mkdir) -> () ManageUnits
        = |call, a| mounting::order(call, own_unit(call)?, a, false);
    MountImage("s" source, "s" destination, "b" read_only, "b" mkdir, "a(ss)" options) -> () ManageUnits
        = |call, a| mounting::order(call, own_unit(call)?, a, true);
} }

methods! { SCOPE_METHODS {
    Abandon() -> () ManageUnits = |call, _| abandon(own_unit(call)?);
} }

signals! { SCOPE_SIGNALS {
    RequestStop();
} }

methods! { JOB_METHODS {
    Cancel() -> () ManageUnits = |call, _| request(Request::CancelJob { job: own_job(call)?.id.0 });
    GetAfter() -> ("a(usssoo)" jobs) Read = |call, _| related_jobs(call, own_job(call)?, true);
    GetBefore() -> ("a(usssoo)" jobs) Read = |call, _| related_jobs(call, own_job(call)?, false);
} }
