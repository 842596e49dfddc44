//! The variables (systemd.exec(5), "Environment Variables in Spawned Processes").

use super::{Direct, Done, Step, always};
use crate::environment::assemble;
use crate::{Context, Exit, Process, environment_file};

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

fn run(context: &Context<'_>, process: &mut Process) -> Done {
    let mut login = Vec::new();
    if let Some(user) = &process.user {
        // A user without a home or a shell of its own gets no variable that says so.
        let real = |value: &str| {
            !value.is_empty()
                && value != "/"
                && value != "/nonexistent"
                && !value.ends_with("/nologin")
                && !value.ends_with("/false")
        };
        let all =
            [("HOME", &user.home), ("LOGNAME", &user.name), ("USER", &user.name), ("SHELL", &user.shell)];
        login.extend(
            all.into_iter().filter(|(_, value)| real(value)).map(|(name, value)| (name, value.as_str())),
        );
    } else {
        login.push(("USER", "root"));
    }
    let mut from_files = Vec::new();
    for file in context.exec.environment_file() {
        match std::fs::read_to_string(&file.path) {
            Ok(text) => from_files.extend(environment_file::parse(&text)),
            Err(_) if file.optional => {}
            Err(error) => return super::failed(format!("EnvironmentFile={}: {error}", file.path)),
        }
    }
    let me = std::process::id().to_string();
    let mut own = vec![("SYSTEMD_EXEC_PID", me.as_str())];
    if context.set_watchdog_pid {
        own.push(("WATCHDOG_PID", me.as_str()));
    }
    let (base, made) = (context.base_environment, context.own_environment);
    process.environment = assemble(base, &login, context.exec, &from_files, made, &own);
    Ok(())
}
