//! The last step: the process becomes the program.

use super::{About, Direct, Done, Failed, Step, always};
use crate::environment::{Environment, expand_arguments};
use crate::{Context, Exit, Process};
use muster_unit::{ExecCommand, ExecSection};
use nix::errno::Errno;
use std::ffi::CString;

/// execve(2).
pub const PROGRAM: Step = Step {
    directive: "ExecStart=",
    exit: Exit::Exec,
    needed: always,
    direct: Direct::By(|context, draft| {
        if context.command.via_shell {
            return None;
        }
        let c_strings = |texts: Vec<String>| {
            texts.into_iter().map(|text| CString::new(text).ok()).collect::<Option<Vec<CString>>>()
        };
        draft.argv = c_strings(arguments(context, &draft.environment))?;
        draft.paths = c_strings(candidates(context.command, context.exec, &draft.environment))?;
        Some(())
    }),
    run,
};

fn arguments(context: &Context<'_>, environment: &Environment) -> Vec<String> {
    let argv = &context.command.argv;
    if context.command.no_env_expand { argv.clone() } else { expand_arguments(argv, environment) }
}

fn run(context: &Context<'_>, process: &mut Process) -> Done {
    let environment = &process.environment;
    let c_string = |text: &str| CString::new(text).about(text);
    let argv = arguments(context, environment);
    let argv = argv.iter().map(|word| c_string(word)).collect::<Done<Vec<_>>>()?;
    let block = environment.iter().map(|(name, value)| c_string(&format!("{name}={value}")));
    let block = block.collect::<Done<Vec<_>>>()?;
    let mut last = Errno::ENOENT;
    for candidate in candidates(context.command, context.exec, environment) {
        let Err(error) = nix::unistd::execve(&c_string(&candidate)?, &argv, &block);
        last = if error == Errno::ENOENT { last } else { error };
    }
    Err(Failed { exit: None, message: format!("{}: {last}", context.command.path) })
}

/// The files that may be meant, in the order of the search path.
fn candidates(command: &ExecCommand, exec: &ExecSection, environment: &Environment) -> Vec<String> {
    let path = &command.path;
    if path.starts_with('/') {
        return vec![path.clone()];
    }
    let own = exec.exec_search_path().as_deref();
    let search = own.or(environment.get("PATH").map(String::as_str));
    let search = search.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
    search.split(':').map(|directory| format!("{directory}/{path}")).collect()
}
