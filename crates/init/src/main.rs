//! The binary `muster`: sets the stage, runs the loop, and leaves.
//!
//! Reading order: `main` below, [`stage`] (what a machine or container needs before the first unit), [`options`] (what
//! it was told), [`facts`] (what it is), [`generate`] (generators), [`anew`] (from
//! one boot to the next without the kernel), [`finish`] (the end); [`command`] is a container that runs one command.
//!
//! What must stay true: PID 1 never returns from `main` on a running machine; whatever cannot be set up is said and
//! passed over, for a machine that is half up can be mended and one that is down cannot.

mod anew;
mod command;
mod credentials;
mod facts;
mod finish;
mod firmware;
mod generate;
mod options;
mod stage;

use crate::options::Options;
use muster_cgroup::{Known, Tree};
use muster_manager::Manager;
use muster_manager::anew::Anew;
use muster_manager::event::ShutdownVerb;
use muster_manager::state::Facts;
use muster_runtime::hand_over::{self, HandOver};
use muster_runtime::log::Log;
use muster_runtime::printer::{self, HandedPrinter, Printer};
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
        ["--", command, arguments @ ..] => command::run(command, arguments),
        [command::BECOME, command, arguments @ ..] => command::become_it(command, arguments),
        ["--generators"] => generate::run(false),
        ["--generators", generate::BOOT] => generate::run(true),
        ["--pid-file", path] => muster_runtime::pid_files::run(path),
        [muster_runtime::automounts::ARGUMENT, arguments @ ..] => muster_runtime::automounts::run(arguments),
        ["--paths"] => muster_runtime::paths::run(),
        [printer::ARGUMENT, numbers @ ..] => printer::run(numbers),
        ["--questions"] => muster_runtime::questions::run(),
        ["--errand"] => muster_runtime::errand::run(),
        [muster_runtime::opening::ARGUMENT] => muster_runtime::opening::run(),
        [hand_over::ARGUMENT, number] if std::process::id() == 1 => go_on(number),
        [muster_runtime::ipc::ARGUMENT, uid, gid] => muster_runtime::ipc::run(uid, gid),
        [muster_runtime::terminals::ARGUMENT, path, what @ ..] => muster_runtime::terminals::run(path, what),
        [muster_runtime::mounting::ARGUMENT, words @ ..] => muster_runtime::mounting::run(words),
        [removing::ARGUMENT, things @ ..] => removing::run(things),
        _ if std::process::id() == 1 => boot(),
        _ if is_called_init() => telinit(),
        _ => {
            eprintln!(
                "muster is a system's PID 1. Boot it as init, in a container or a machine; `musterctl` and `systemctl` talk to it.\n\
                 `muster -- COMMAND` runs one command, in a container that holds nothing else."
            );
            ExitCode::FAILURE
        }
    }
}

/// Whether somebody called /sbin/init or telinit, which are links to this program.
fn is_called_init() -> bool {
    let name = std::env::args_os().next();
    let name = name.as_ref().and_then(|name| std::path::Path::new(name).file_name()?.to_str());
    name.is_some_and(|name| name.contains("init"))
}

/// telinit(8): systemctl knows what the old words mean, by the name that it is called by.
fn telinit() -> ExitCode {
    use std::os::unix::process::CommandExt;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "init".into());
    let error = std::process::Command::new("/usr/bin/systemctl").arg0(name).args(arguments).exec();
    eprintln!("muster: systemctl could not be executed: {error}");
    ExitCode::FAILURE
}

/// What a boot begins with, the first as well as one anew.
struct Beginning {
    options: Options,
    facts: Facts,
    cgroups: Tree,
    log: Log,
    printer: Option<Printer>,
    /// Where this program was installed.
    program: String,
}

/// The cgroup tree; where it is not ours to change, what takes its place, with a word to say of that.
fn tree(known: Option<Known>) -> Result<(Tree, Option<String>), String> {
    let kin = |known| Tree::of_kin(known).map_err(|error| format!("Processes cannot be followed: {error}"));
    if let Some(known) = known {
        return Ok((kin(known)?, None));
    }
    let found = Tree::discover().map_err(|error| error.to_string());
    match found.and_then(|tree| tree.enter_init_scope().map(|()| tree)) {
        Ok(tree) => Ok((tree, None)),
        Err(error) => {
            let text = format!(
                "There is no cgroup for each unit ({error}): processes are known by who started them, and limits of resources have no effect."
            );
            Ok((kin(Known::default())?, Some(text)))
        }
    }
}

/// Who prints logs: one who does already, or a new one in a container without a journal.
fn printer(handed: Option<Printer>, program: &str) -> Result<Option<Printer>, String> {
    match handed {
        None if stage::in_container() => printer::start(program, &search_path()),
        handed => Ok(handed),
    }
}

/// A log, by the printer where there is one.
fn log(printer: Option<&Printer>) -> Log {
    let mut log = Log::open(!stage::in_container());
    if let Some(Ok(end)) = printer.map(Printer::end) {
        log.print_by(end);
    }
    log
}

/// Sets the stage. What is known of processes, and who prints logs, comes from the boot before.
fn begin(known: Option<Known>, handed: Option<Printer>) -> Result<Beginning, String> {
    let mut complaints = stage::set();
    // Asked of /proc, which the stage mounts in a machine without an initrd.
    let program = program();
    if nix::unistd::access("/run/systemd", nix::unistd::AccessFlags::W_OK).is_err() {
        let why = complaints.pop().unwrap_or_default();
        return Err(format!("{why}. Nothing works without /run: give the container a tmpfs there."));
    }
    let options = options::read();
    complaints.extend(stage::take_words(&options));
    complaints.extend(stage::name(&options));
    complaints.extend(credentials::take(&options));
    let mut facts = facts::read(&options);
    let printer = printer(handed, &program).unwrap_or_else(|error| {
        complaints.push(error);
        None
    });
    let mut log = log(printer.as_ref());
    let (cgroups, lacks) = tree(known)?;
    complaints.extend(lacks);
    facts.cgroup_root = cgroups.root_path().to_owned();
    for message in complaints {
        let level = muster_manager::effect::Level::Warning;
        log.write(
            &muster_manager::effect::LogRecord { level, unit: None, message, fields: Vec::new() },
            None,
        );
    }
    Ok(Beginning { options, facts, cgroups, log, printer, program })
}

/// Reads configuration and runs generators, before unit files are read.
fn prepare(manager: &mut Manager, program: &str) {
    manager.configure(&muster_runtime::config::read());
    let begun = clock::now();
    generate::run_and_wait(program);
    if std::path::Path::new(muster_manager::config::GENERATED).exists() {
        manager.configure(&muster_runtime::config::read());
    }
    manager.note_generators(begun, clock::now());
}

fn boot() -> ExitCode {
    muster_runtime::crash::install(stage::in_container());
    stage::clear_run();
    let Beginning { options, facts, cgroups, log, printer, program } = match begin(None, None) {
        Ok(beginning) => beginning,
        Err(error) => return give_up(&error),
    };
    let mut manager = Manager::new(facts, facts::seed(), clock::now());
    prepare(&mut manager, &program);
    let executor = executor_beside(&program);
    let (handed, found, is_printed) = (None, Vec::new(), printer.is_some());
    let setup = Setup { manager, index: index(), cgroups, log, executor, program, handed, found, printer };
    let mut runtime = match Runtime::new(setup) {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&format!("The event loop could not be set up: {error}")),
    };
    if !is_printed {
        stage::welcome(&options);
    }
    runtime.start_default();
    run(runtime)
}

fn index() -> Index {
    Index::scan(search_path())
}

fn search_path() -> Vec<String> {
    Index::search_path(std::env::var("SYSTEMD_UNIT_PATH").ok().as_deref())
}

fn run(mut runtime: Runtime) -> ExitCode {
    loop {
        match runtime.run() {
            Outcome::Shutdown { verb, exit_code } => {
                return finish::leave(verb, exit_code, Some(runtime.manager()));
            }
            Outcome::Reexecute => return finish::leave(ShutdownVerb::Exit, 1, None),
            Outcome::BeginAnew { why, root, init } => {
                let error = anew::leave(&mut runtime, why, &root, &init);
                runtime.complain_of(&error);
                if why == Anew::SoftReboot {
                    return finish::leave(ShutdownVerb::Reboot, 0, Some(runtime.manager()));
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
        Ok(handed) if handed.anew.is_some() => return go_on_anew(handed),
        handed => handed,
    };
    let mut handed = handed;
    let known = handed.as_mut().ok().and_then(|handed| handed.kin.take());
    let printer = handed.as_mut().ok().and_then(|handed| handed.printer.take()).map(HandedPrinter::take_in);
    let cgroups = match tree(known) {
        Ok((tree, _)) => tree,
        Err(error) => return give_up(&error),
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
        log: log(printer.as_ref()),
        printer,
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
fn go_on_anew(mut handed: HandOver<'static>) -> ExitCode {
    let printer = handed.printer.take().map(HandedPrinter::take_in);
    let beginning = begin(handed.kin.take(), printer);
    let Beginning { options, facts, cgroups, log, printer, program } = match beginning {
        Ok(beginning) => beginning,
        Err(error) => return give_up(&error),
    };
    let mut manager = handed.manager();
    manager.take_facts(facts);
    prepare(&mut manager, &program);
    stage::welcome(&options);
    let executor = executor_beside(&program);
    let (handed, found) = (Some(handed), Vec::new());
    let setup = Setup { manager, index: index(), cgroups, log, executor, program, handed, found, printer };
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
