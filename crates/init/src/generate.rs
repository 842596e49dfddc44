//! Generators (systemd.generator(7)), run in a child of PID 1: all at once, ninety seconds at most.

use muster_manager::config::GENERATED;
use muster_runtime::files::write_all;
use muster_unit::Index;
use muster_unit::install::{Options, preset_all as preset_all_units};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const DIRECTORIES: &[&str] = &[
    "/run/systemd/system-generators",
    "/etc/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
];
const OUTPUT: [&str; 3] =
    ["/run/systemd/generator", "/run/systemd/generator.early", "/run/systemd/generator.late"];
/// Those of the manager's environment (systemd.environment-generator(7)).
const OF_THE_ENVIRONMENT: &[&str] = &[
    "/run/systemd/system-environment-generators",
    "/etc/systemd/system-environment-generators",
    "/usr/local/lib/systemd/system-environment-generators",
    "/usr/lib/systemd/system-environment-generators",
];
/// What one of them may say, in bytes.
const SAID_MAX: u64 = 1 << 16;
const LIMIT: Duration = Duration::from_secs(90);
/// Says that it is the boot, not a reload.
pub const BOOT: &str = "--boot";

/// Starts the child at boot, before the loop runs and anything else can be waiting, and waits for it.
pub fn run_and_wait(program: &str) {
    let arguments = ["--generators", BOOT];
    if let Ok(mut child) = Command::new(program).args(arguments).stdin(Stdio::null()).spawn() {
        let _ = child.wait();
    }
}

/// What the child process does; with [`BOOT`], a first boot gets its presets as well.
pub fn run(is_boot: bool) -> ExitCode {
    if is_boot && Path::new(crate::stage::FIRST_BOOT).exists() {
        preset_all();
    }
    for directory in OUTPUT {
        let _ = std::fs::remove_dir_all(directory);
        let _ = std::fs::create_dir_all(directory);
    }
    make_environment();
    let mut running: Vec<Pid> =
        executables(DIRECTORIES).into_iter().filter_map(|path| start(&path)).collect();
    let begin = Instant::now();
    while !running.is_empty() {
        running.retain(|child| waitpid(*child, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive));
        if begin.elapsed() > LIMIT {
            for child in running {
                let _ = kill(child, Signal::SIGKILL);
                let _ = waitpid(child, None);
            }
            return ExitCode::FAILURE;
        }
        wait_for_child();
    }
    for directory in OUTPUT {
        // Goes when it is empty; the search path is none the worse.
        let _ = std::fs::remove_dir(directory);
    }
    ExitCode::SUCCESS
}

/// Runs the generators of the environment, one after the other, each with what those before it said, and leaves what they made
/// where the manager's configuration is read.
fn make_environment() {
    let mut made: BTreeMap<String, String> = BTreeMap::new();
    for path in executables(OF_THE_ENVIRONMENT) {
        made.extend(crate::facts::assignments(&said_by(&path, &made).unwrap_or_default()));
    }
    let line = |(name, value): (String, String)| format!("{name}={value}\n");
    // A line is a variable: what has several lines is none.
    let text: String = made.into_iter().filter(|(_, value)| !value.contains('\n')).map(line).collect();
    let made = match text.as_str() {
        "" => std::fs::remove_file(GENERATED).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }),
        text => {
            write_all(&[(GENERATED.to_owned(), text.to_owned())]).map_err(|error| Error::other(error.message))
        }
    };
    if let Err(error) = made {
        eprintln!("muster: {GENERATED}: {error}");
    }
}

/// What a program writes, if it ends well and in time.
fn said_by(path: &str, environment: &BTreeMap<String, String>) -> Option<String> {
    let mut said = File::from(memfd_create("environment-generator", MFdFlags::MFD_CLOEXEC).ok()?);
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(said.try_clone().ok()?).envs(environment).current_dir("/");
    let mut child = command.spawn().ok()?;
    let begin = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(None) if begin.elapsed() > LIMIT => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            Ok(None) => wait_for_child(),
            status => break status.ok().flatten()?,
        }
    };
    let mut text = String::new();
    said.rewind().ok()?;
    let _ = said.take(SAID_MAX).read_to_string(&mut text);
    status.success().then_some(text)
}

/// Enables what presets want enabled, and disables nothing (systemd.preset(5)).
fn preset_all() {
    let index = Index::scan(Index::search_path(std::env::var("SYSTEMD_UNIT_PATH").ok().as_deref()));
    if let Err(failure) = preset_all_units(&index, "enable-only", Options::default()) {
        eprintln!("muster: the presets of a first boot could not be applied: {failure:?}");
    }
}

/// Waits until some child ends, or a moment has passed.
fn wait_for_child() {
    use nix::sys::signal::SigSet;
    use nix::sys::signalfd::SignalFd;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let _ = mask.thread_block();
    if let Ok(fd) = SignalFd::new(&mask) {
        let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&fd), nix::poll::PollFlags::POLLIN)];
        let _ = nix::poll::poll(&mut fds, 20_u16);
    }
}

/// Executables by name; an earlier directory hides a later one, a link to /dev/null hides all.
fn executables(directories: &[&str]) -> Vec<String> {
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    for directory in directories {
        for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
            let (Ok(name), Some(path)) =
                (entry.file_name().into_string(), entry.path().to_str().map(str::to_owned))
            else {
                continue;
            };
            let usable = std::fs::metadata(&path)
                .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0);
            found.entry(name).or_insert(usable.then_some(path));
        }
    }
    found.into_values().flatten().collect()
}

/// Forks first, so that the generator can be told its own number.
fn start(path: &str) -> Option<Pid> {
    let execute = || {
        let error = command(path).env("SYSTEMD_EXEC_PID", std::process::id().to_string()).exec();
        eprintln!("muster: {path}: {error}");
    };
    muster_sys::in_child(execute).ok().and_then(|child| i32::try_from(child).ok()).map(Pid::from_raw)
}

fn command(path: &str) -> Command {
    let mut command = Command::new(path);
    command
        .args(OUTPUT)
        .stdin(Stdio::null())
        .env("SYSTEMD_SCOPE", "system")
        .env("SYSTEMD_IN_INITRD", if crate::stage::in_initrd() { "1" } else { "0" })
        .env("SYSTEMD_FIRST_BOOT", if Path::new(crate::stage::FIRST_BOOT).exists() { "1" } else { "0" })
        .env("SYSTEMD_ARCHITECTURE", crate::facts::architecture())
        .current_dir("/");
    let container = std::env::var("container").unwrap_or_default();
    let word = crate::stage::virtualization();
    if Path::new(crate::credentials::DIRECTORY).exists() {
        command.env("CREDENTIALS_DIRECTORY", crate::credentials::DIRECTORY);
    }
    if !word.is_empty() {
        command.env(
            "SYSTEMD_VIRTUALIZATION",
            format!("{}:{word}", if container.is_empty() { "vm" } else { "container" }),
        );
    }
    command
}
