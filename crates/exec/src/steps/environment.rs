//! The variables (systemd.exec(5), "Environment Variables in Spawned Processes").

use super::identity::User;
use super::{About, Direct, Done, Step, always};
use crate::environment::assemble;
use crate::{Context, Exit, Process, environment_file, tree};
use muster_unit::{StdInput, StdOutput};
use nix::errno::Errno;

/// Variables whose value only the process itself knows.
const OWN: [&str; 4] = ["SYSTEMD_EXEC_PID", "LISTEN_PID", "WATCHDOG_PID", "JOURNAL_STREAM"];

/// All that are known before anything is made; later steps add theirs.
pub const VARIABLES: Step = Step {
    directive: "Environment=",
    exit: Exit::Failure,
    needed: always,
    direct: Direct::By(|context, draft| {
        let exec = context.exec;
        let names_own = |word: &String| OWN.iter().any(|name| word.contains(name));
        if !exec.environment_file().is_empty()
            || exec.log_namespace().is_some()
            || exec.set_login_environment().is_some()
            || !exec.unset_environment().is_empty()
            || context.command.argv.iter().any(names_own)
        {
            return None;
        }
        let base = crate::environment::base(context.base_environment, exec);
        draft.environment = assemble(&base, &[("USER", "root")], exec, &[], context.own_environment, &[]);
        draft.own_numbers.push("SYSTEMD_EXEC_PID");
        if context.set_watchdog_pid {
            draft.own_numbers.push("WATCHDOG_PID");
        }
        Some(())
    }),
    run,
};

/// The files of the unit's cgroup by which pressure is watched.
fn pressure_files<'a>(context: &Context<'a>) -> impl Iterator<Item = &'a str> {
    let value = |line: &'a String| line.split_once('=').filter(|(name, _)| name.ends_with("_PRESSURE_WATCH"));
    let paths = context.own_environment.iter().filter_map(value).map(|(_, path)| path);
    paths.filter(|path| path.starts_with("/sys/fs/cgroup/"))
}

/// The files of pressure become the user's, who is to write a threshold into them.
pub const PRESSURE: Step = Step {
    directive: "MemoryPressureWatch=",
    exit: Exit::Memory,
    needed: |context| {
        let exec = context.exec;
        (exec.user().is_some() || exec.group().is_some()) && pressure_files(context).next().is_some()
    },
    direct: Direct::No,
    run: |context, process| {
        for path in pressure_files(context) {
            match tree::give(path, process.owner()) {
                // A cgroup without it, or a tree that is not ours to change: the service cannot watch then.
                Err(Errno::ENOENT | Errno::EROFS | Errno::EPERM) => {}
                done => done.about(path)?,
            }
        }
        Ok(())
    },
};

/// `TERM`, for what has a terminal.
pub const TERMINAL: Step = Step {
    directive: "TTYPath=",
    exit: Exit::Stdin,
    needed: |context| {
        let exec = context.exec;
        let tty = |output: &StdOutput| *output == StdOutput::Tty;
        exec.tty_path().is_some()
            || matches!(exec.standard_input(), StdInput::Tty | StdInput::TtyForce | StdInput::TtyFail)
            || tty(exec.standard_output())
            || tty(exec.standard_error())
    },
    direct: Direct::No,
    run: |context, process| {
        let path = context.exec.tty_path().as_deref().unwrap_or("/dev/console");
        let name = path.strip_prefix("/dev/").unwrap_or(path);
        let is_virtual = name.strip_prefix("tty").is_some_and(|rest| rest.parse::<u32>().is_ok());
        // The console's is what our own maker, or the kernel, was told.
        let consoles = context.console_term.filter(|_| name == "console");
        let term = consoles.unwrap_or(if is_virtual { "linux" } else { "vt220" });
        process.environment.entry("TERM".to_owned()).or_insert_with(|| term.to_owned());
        Ok(())
    },
};

fn run(context: &Context<'_>, process: &mut Process) -> Done {
    // A session is a login: it has the variables of one, root's too.
    let asked = context.exec.set_login_environment().or(context.exec.pam_name().as_ref().map(|_| true));
    let user = match (&process.user, asked) {
        // Root is looked up only where it is asked for.
        (None, Some(true)) => Some(super::identity::find_user("root")?),
        (user, _) => user.clone(),
    };
    let login = login(user.as_ref(), asked);
    let login: Vec<(&str, &str)> = login.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut from_files = Vec::new();
    for file in context.exec.environment_file() {
        match std::fs::read_to_string(&file.path) {
            Ok(text) => from_files.extend(environment_file::parse(&text)),
            Err(_) if file.optional => {}
            Err(error) => {
                let message = format!("EnvironmentFile={}: {error}", file.path);
                return Err(super::Failed { exit: Some(Exit::NotMade), message });
            }
        }
    }
    let me = std::process::id().to_string();
    let mut own = vec![("SYSTEMD_EXEC_PID", me.as_str())];
    if context.set_watchdog_pid {
        own.push(("WATCHDOG_PID", me.as_str()));
    }
    own.extend(context.exec.log_namespace().as_deref().map(|name| ("LOG_NAMESPACE", name)));
    let (base, made) = (context.base_environment, context.own_environment);
    process.environment = assemble(base, &login, context.exec, &from_files, made, &own);
    Ok(())
}

/// `HOME`, `LOGNAME`, `USER` and `SHELL`, by `SetLoginEnvironment=`.
fn login(user: Option<&User>, set: Option<bool>) -> Vec<(&'static str, String)> {
    let Some(user) = user else { return vec![("USER", "root".to_owned())] };
    let mut all = vec![("USER", user.name.clone())];
    if set == Some(false) {
        return all;
    }
    // A user without a home or a shell of its own gets no variable that says so, unless it is asked for.
    let is_shell =
        !user.shell.is_empty() && !user.shell.ends_with("/nologin") && !user.shell.ends_with("/false");
    let is_home =
        !user.home.is_empty() && (set.is_some() || (user.home != "/" && user.home != "/nonexistent"));
    all.push(("LOGNAME", user.name.clone()));
    all.extend(is_home.then(|| ("HOME", user.home.clone())));
    all.extend(is_shell.then(|| ("SHELL", user.shell.clone())));
    all
}
