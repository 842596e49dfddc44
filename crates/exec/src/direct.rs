//! The direct lane: a plain context as steps that a child takes on PID 1's own memory, without the executor in between.
//!
//! Plain is what needs no user, no file, no directory, and nothing that would change the memory it still shares with PID 1
//! (a change of user does, and writes to procfs). A context goes one way or the other as a whole. What must stay true: a
//! directive that has an effect is either carried out here or keeps a context from being plain; a test goes through the
//! table.

use crate::Request;
use crate::environment::{Environment, assemble, expand_arguments};
use crate::limits;
use muster_sys::{Failure, Program, Step, Variable};
use muster_unit::{ExecCommand, ExecSection, StdInput, StdOutput};
use std::ffi::CString;

/// Variables whose value only the process itself knows.
const OWN: [&str; 4] = ["SYSTEMD_EXEC_PID", "LISTEN_PID", "WATCHDOG_PID", "JOURNAL_STREAM"];

// Exit statuses of systemd.exec(5), "Process Exit Codes".
const CHDIR: u8 = 200;
const LIMITS: u8 = 205;
const SIGNALS: u8 = 207;
const STDIN: u8 = 208;
const STDOUT: u8 = 209;
const SETSID: u8 = 220;
const STDERR: u8 = 222;
const NO_NEW_PRIVILEGES: u8 = 227;

/// The steps of a request, if its context is plain.
pub(crate) fn compile(request: &Request<'_>) -> Option<Program> {
    if !is_plain(request.exec, request.command) || request.report_exec || request.context_from_peer {
        return None;
    }
    let mut steps = beginning(request.exec)?;
    let streams = streams(request, &mut steps)?;
    let environment = environment(request);
    let argv = if request.command.no_env_expand {
        request.command.argv.clone()
    } else {
        expand_arguments(&request.command.argv, &environment)
    };
    let c_strings = |texts: Vec<String>| {
        texts.into_iter().map(|text| CString::new(text).ok()).collect::<Option<Vec<CString>>>()
    };
    let paths = c_strings(candidates(request.command, request.exec, &environment))?;
    Some(Program {
        steps,
        passed: request.fds.len(),
        non_blocking: Some(request.non_blocking),
        paths,
        argv: c_strings(argv)?,
        environment: variables(request, environment, streams)?,
    })
}

/// What stopped a child of this lane: its exit status, and what a person wants to know.
pub(crate) fn explain(failure: &Failure, program: &str) -> (i32, String) {
    let error = std::io::Error::from_raw_os_error(failure.errno);
    let what = match &failure.step {
        Some(Step::Open { path, .. } | Step::Stream { socket: path, .. }) => {
            path.to_string_lossy().into_owned()
        }
        Some(Step::Directory(path)) => format!("WorkingDirectory={}", path.to_string_lossy()),
        Some(Step::Limit { resource, .. }) => limits::name(*resource).to_owned(),
        Some(Step::Given { .. } | Step::Copy { .. }) => "standard streams".to_owned(),
        Some(Step::NewSession) => "a session of its own".to_owned(),
        Some(Step::FileMode(_)) => "UMask=".to_owned(),
        Some(Step::Signal { .. }) => "signals".to_owned(),
        Some(Step::Control { .. }) => "NoNewPrivileges=".to_owned(),
        None => program.to_owned(),
    };
    (i32::from(failure.status), format!("{what}: {error}"))
}

/// Whether nothing is asked for that only the executor does.
fn is_plain(exec: &ExecSection, command: &ExecCommand) -> bool {
    let own = |word: &String| OWN.iter().any(|name| word.contains(name));
    exec.user.is_none()
        && exec.group.is_none()
        && exec.supplementary_groups.is_empty()
        && exec.root_directory.is_none()
        && exec.environment_file.is_empty()
        && exec.nice.is_none()
        && exec.oom_score_adjust.is_none()
        && exec.io_scheduling_class.is_none()
        && exec.io_scheduling_priority.is_none()
        && exec.cpu_scheduling_policy.is_none()
        && exec.cpu_scheduling_priority.is_none()
        && !exec.cpu_scheduling_reset_on_fork
        && exec.capability_bounding_set.is_none()
        && exec.ambient_capabilities.0 == 0
        && exec.tty_path.is_none()
        && exec.runtime_directory.is_empty()
        && exec.state_directory.is_empty()
        && exec.cache_directory.is_empty()
        && exec.logs_directory.is_empty()
        && exec.configuration_directory.is_empty()
        && exec.unset_environment.is_empty()
        && exec.working_directory.as_ref().is_none_or(|path| path.starts_with('/'))
        && !command.via_shell
        && !command.argv.iter().any(own)
}

/// Session, file mode, signals, limits, directory.
fn beginning(exec: &ExecSection) -> Option<Vec<(Step, u8)>> {
    let mut steps = vec![(Step::NewSession, SETSID), (Step::FileMode(exec.umask.0), SETSID)];
    // PID 1 ignores SIGPIPE and nothing else; handlers are gone already.
    if !exec.ignore_sigpipe {
        steps.push((Step::Signal { number: 13, ignore: false }, SIGNALS));
    }
    let limit = |(resource, soft, hard)| (Step::Limit { resource, soft, hard }, LIMITS);
    steps.extend(limits::of(exec).into_iter().map(limit));
    if let Some(path) = exec.working_directory.as_ref().filter(|path| *path != "/") {
        steps.push((Step::Directory(CString::new(path.as_str()).ok()?), CHDIR));
    }
    if exec.no_new_privileges {
        steps.push((Step::Control { option: 38, value: 1 }, NO_NEW_PRIVILEGES));
    }
    Some(steps)
}

/// The standard streams; whether one of them goes to the journal.
fn streams(request: &Request<'_>, steps: &mut Vec<(Step, u8)>) -> Option<bool> {
    let exec = request.exec;
    // The connection follows the passed descriptors.
    let socket = || request.stdio_socket.is_some().then_some(request.fds.len());
    let named = |name: &str| request.fds.iter().position(|(_, known)| known == name);
    steps.push((
        match &exec.standard_input {
            StdInput::Null => open("/dev/null", O_RDONLY, 0)?,
            StdInput::Socket => Step::Given { index: socket()?, target: 0 },
            StdInput::Fd(name) => Step::Given { index: named(name)?, target: 0 },
            StdInput::Tty | StdInput::TtyForce | StdInput::TtyFail | StdInput::Data | StdInput::File(_) => {
                return None;
            }
        },
        STDIN,
    ));
    let mut journal = false;
    for (target, output, status) in [(1, &exec.standard_output, STDOUT), (2, &exec.standard_error, STDERR)] {
        let step = match output {
            // One file for both is opened once, so that neither overwrites the other.
            StdOutput::Inherit if target == 2 => Step::Copy { from: 1, target },
            same if target == 2 && same.is_file() && *same == exec.standard_output => {
                Step::Copy { from: 1, target }
            }
            StdOutput::Inherit if exec.standard_input != StdInput::Null => Step::Copy { from: 0, target },
            StdOutput::Inherit | StdOutput::Journal | StdOutput::JournalConsole => {
                journal = true;
                Step::Stream {
                    socket: CString::new(crate::journal::STREAM).ok()?,
                    header: crate::journal::header(request.unit, request.command, exec).into_bytes(),
                    target,
                }
            }
            StdOutput::Null => open("/dev/null", O_WRONLY, target)?,
            StdOutput::File(path) => open(path, O_WRONLY | O_CREAT, target)?,
            StdOutput::Append(path) => open(path, O_WRONLY | O_CREAT | O_APPEND, target)?,
            StdOutput::Truncate(path) => open(path, O_WRONLY | O_CREAT | O_TRUNC, target)?,
            StdOutput::Socket => Step::Given { index: socket()?, target },
            StdOutput::Fd(name) => Step::Given { index: named(name)?, target },
            StdOutput::Tty | StdOutput::Kmsg | StdOutput::KmsgConsole => return None,
        };
        steps.push((step, status));
    }
    Some(journal)
}

use nix::libc::{O_APPEND, O_CREAT, O_RDONLY, O_TRUNC, O_WRONLY};

fn open(path: &str, flags: i32, target: i32) -> Option<Step> {
    Some(Step::Open { path: CString::new(path).ok()?, flags, mode: 0o644, target })
}

fn environment(request: &Request<'_>) -> Environment {
    let login = [("USER", "root")];
    let base = crate::environment::base(request.base_environment, request.exec);
    assemble(&base, &login, request.exec, &[], request.own_environment, &[])
}

fn variables(request: &Request<'_>, mut environment: Environment, journal: bool) -> Option<Vec<Variable>> {
    let count = request.fds.len();
    if count > 0 {
        let names: Vec<&str> = request.fds.iter().map(|(_, name)| name.as_str()).collect();
        environment.insert("LISTEN_FDS".to_owned(), count.to_string());
        environment.insert("LISTEN_FDNAMES".to_owned(), names.join(":"));
    }
    let own =
        [("SYSTEMD_EXEC_PID", true), ("LISTEN_PID", count > 0), ("WATCHDOG_PID", request.set_watchdog_pid)];
    let own = || own.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name);
    let name = |name: &str| CString::new(format!("{name}=")).ok();
    let fixed = environment.iter().filter(|(name, _)| !own().any(|own| own == *name));
    let mut all = Vec::with_capacity(environment.len().saturating_add(OWN.len()));
    for (name, value) in fixed {
        all.push(Variable::Fixed(CString::new(format!("{name}={value}")).ok()?));
    }
    for own in own() {
        all.push(Variable::OwnNumber(name(own)?));
    }
    if journal {
        all.push(Variable::StreamNumber(name("JOURNAL_STREAM")?));
    }
    Some(all)
}

/// The files that may be meant, in the order of the search path.
pub fn candidates(command: &ExecCommand, exec: &ExecSection, environment: &Environment) -> Vec<String> {
    let path = &command.path;
    if path.starts_with('/') {
        return vec![path.clone()];
    }
    let own = exec.exec_search_path.as_deref();
    let search = own.or(environment.get("PATH").map(String::as_str));
    let search = search.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
    search.split(':').map(|directory| format!("{directory}/{path}")).collect()
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
