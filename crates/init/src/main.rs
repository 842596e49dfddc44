//! The binary `muster`: sets the stage, runs the loop, and leaves.
//!
//! Reading order: `main` below, [`stage`] (what a machine or container needs before the first unit), [`options`] (what
//! it was told), [`facts`] (what it is), [`generate`] (generators), [`anew`] (from
//! one boot to the next without the kernel), [`finish`] (the end).
//!
//! What must stay true: PID 1 never returns from `main` on a running machine; whatever cannot be set up is said and
//! passed over, for a machine that is half up can be mended and one that is down cannot.

mod anew;
mod credentials;
mod facts;
mod finish;
mod generate;
mod options;
mod stage;

use crate::options::Options;
use muster_cgroup::Tree;
use muster_manager::Manager;
use muster_manager::anew::Anew;
use muster_manager::event::ShutdownVerb;
use muster_manager::state::Facts;
use muster_runtime::hand_over::{self, HandOver};
use muster_runtime::log::Log;
use muster_runtime::{Outcome, Runtime, Setup, clock, removing};
use muster_unit::Index;
use std::process::ExitCode;

const EXECUTOR: &str = "/usr/lib/muster/muster-executor";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--version"] => {
            println!("muster {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["--generators"] => generate::run(),
        ["--pid-file", path] => muster_runtime::pid_files::run(path),
        [muster_runtime::automounts::ARGUMENT, arguments @ ..] => muster_runtime::automounts::run(arguments),
        ["--paths"] => muster_runtime::paths::run(),
        ["--questions"] => muster_runtime::questions::run(),
        ["--errand"] => muster_runtime::errand::run(),
        [muster_runtime::opening::ARGUMENT] => muster_runtime::opening::run(),
        [hand_over::ARGUMENT, number] if std::process::id() == 1 => go_on(number),
        [muster_runtime::ipc::ARGUMENT, uid, gid] => muster_runtime::ipc::run(uid, gid),
        [muster_runtime::terminals::ARGUMENT, path, what @ ..] => muster_runtime::terminals::run(path, what),
        [muster_runtime::mounting::ARGUMENT, words @ ..] => muster_runtime::mounting::run(words),
        [removing::ARGUMENT, things @ ..] => removing::run(things),
        _ if std::process::id() == 1 => boot(),
        _ => {
            eprintln!(
                "muster is a system's PID 1. Boot it as init, in a container or a machine; `musterctl` and `systemctl` talk to it."
            );
            ExitCode::FAILURE
        }
    }
}

/// What a boot begins with, the first as well as one anew.
struct Beginning {
    options: Options,
    facts: Facts,
    cgroups: Tree,
    log: Log,
}

/// Sets the stage.
fn begin() -> Result<Beginning, String> {
    let mut complaints = stage::set();
    let options = options::read();
    complaints.extend(stage::name(&options));
    complaints.extend(credentials::take(&options));
    let mut facts = facts::read(&options);
    let in_container = !facts.virtualization.is_empty() && stage::in_container();
    let mut log = Log::open(!in_container);
    let cgroups = Tree::discover().map_err(|error| format!("No cgroup2 tree: {error}"))?;
    if let Err(error) = cgroups.enter_init_scope() {
        complaints.push(format!("init.scope could not be entered: {error}"));
    }
    facts.cgroup_root = cgroups.root_path().to_owned();
    for message in complaints {
        let level = muster_manager::effect::Level::Warning;
        log.write(
            &muster_manager::effect::LogRecord { level, unit: None, message, fields: Vec::new() },
            None,
        );
    }
    Ok(Beginning { options, facts, cgroups, log })
}

/// Reads configuration and runs generators, before unit files are read.
fn prepare(manager: &mut Manager, program: &str) {
    manager.configure(&muster_runtime::config::read());
    let begun = clock::now();
    generate::run_and_wait(program);
    manager.note_generators(begun, clock::now());
}

fn boot() -> ExitCode {
    muster_runtime::crash::install(stage::in_container());
    let Beginning { options, facts, cgroups, log } = match begin() {
        Ok(beginning) => beginning,
        Err(error) => return give_up(&error),
    };
    let program = program();
    let mut manager = Manager::new(facts, facts::seed(), clock::now());
    prepare(&mut manager, &program);
    let executor = executor_beside(&program);
    let setup =
        Setup { manager, index: index(), cgroups, log, executor, program, handed: None, found: Vec::new() };
    let mut runtime = match Runtime::new(setup) {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&format!("The event loop could not be set up: {error}")),
    };
    stage::welcome(&options);
    runtime.start_default();
    run(runtime)
}

fn index() -> Index {
    Index::scan(Index::search_path(std::env::var("SYSTEMD_UNIT_PATH").ok().as_deref()))
}

fn run(mut runtime: Runtime) -> ExitCode {
    loop {
        match runtime.run() {
            Outcome::Shutdown { verb, exit_code } => {
                return finish::leave(verb, exit_code, Some(runtime.manager().state()));
            }
            Outcome::Reexecute => return finish::leave(ShutdownVerb::Exit, 1, None),
            Outcome::BeginAnew { why, root, init } => {
                let error = anew::leave(&mut runtime, why, &root, &init);
                runtime.complain_of(&error);
                if why == Anew::SoftReboot {
                    return finish::leave(ShutdownVerb::Reboot, 0, Some(runtime.manager().state()));
                }
            }
        }
    }
}

/// Goes on where the program before this one stopped (re-execution). The stage is set, and stays.
fn go_on(number: &str) -> ExitCode {
    muster_runtime::crash::install(stage::in_container());
    let handed = HandOver::receive(number);
    let program = program();
    let handed = match handed {
        Ok(handed) if handed.anew.is_some() => return go_on_anew(handed, program),
        handed => handed,
    };
    let cgroups = match Tree::discover() {
        Ok(tree) => tree,
        Err(error) => return give_up(&format!("No cgroup2 tree: {error}")),
    };
    let (manager, handed, found, lost) = match handed {
        Ok(mut handed) => (handed.manager(), Some(handed), Vec::new(), None),
        Err(error) => {
            let mut facts = facts::read(&options::read());
            facts.cgroup_root = cgroups.root_path().to_owned();
            let mut manager = Manager::new(facts, facts::seed(), clock::now());
            manager.configure(&muster_runtime::config::read());
            (manager, None, hand_over::found_sockets(), Some(error))
        }
    };
    let setup = Setup {
        manager,
        index: index(),
        cgroups,
        log: Log::open(!stage::in_container()),
        executor: executor_beside(&program),
        program,
        handed,
        found,
    };
    match Runtime::new(setup) {
        Ok(mut runtime) => {
            if let Some(error) = lost {
                hand_over::hear_signals_again();
                runtime.recover(&error);
            }
            run(runtime)
        }
        Err(error) => give_up(&format!("The event loop could not be set up: {error}")),
    }
}

/// Goes on with what survived, in a boot anew.
fn go_on_anew(mut handed: HandOver<'static>, program: String) -> ExitCode {
    let Beginning { options, facts, cgroups, log } = match begin() {
        Ok(beginning) => beginning,
        Err(error) => return give_up(&error),
    };
    let mut manager = handed.manager();
    manager.take_facts(facts);
    prepare(&mut manager, &program);
    stage::welcome(&options);
    let executor = executor_beside(&program);
    let (handed, found) = (Some(handed), Vec::new());
    let setup = Setup { manager, index: index(), cgroups, log, executor, program, handed, found };
    match Runtime::new(setup) {
        Ok(runtime) => run(runtime),
        Err(error) => give_up(&format!("The event loop could not be set up: {error}")),
    }
}

/// Where this program was installed; a newer one may be there by now.
fn program() -> String {
    let path = std::fs::read_link("/proc/self/exe").ok();
    let path = path.as_ref().and_then(|path| path.to_str()).unwrap_or_default();
    path.strip_suffix(" (deleted)").unwrap_or(path).to_owned()
}

/// The executor is installed beside the program.
fn executor_beside(program: &str) -> String {
    let beside = program.rsplit_once('/').map(|(directory, _)| format!("{directory}/muster-executor"));
    beside.filter(|path| std::path::Path::new(path).exists()).unwrap_or_else(|| EXECUTOR.to_owned())
}

/// Nothing can work without this; say so where somebody may see it, and stop.
fn give_up(message: &str) -> ExitCode {
    eprintln!("muster: {message}");
    finish::leave(ShutdownVerb::Exit, 1, None)
}
