//! The last steps: the program is found, and the process becomes it.

use super::{About, Direct, Done, Step, always, failed};
use crate::environment::{Environment, expand_arguments};
use crate::{Context, Exit, Process};
use muster_unit::{ExecCommand, ExecSection};
use nix::errno::Errno;
use nix::unistd::AccessFlags;
use std::ffi::CString;

/// What execve(2) is given.
#[derive(Debug)]
pub struct Program {
    path: CString,
    argv: Vec<CString>,
    environment: Vec<CString>,
}

/// The program is looked for and its arguments are made, as long as everything is allowed.
pub const PREPARED: Step = Step {
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
    run: prepare,
};

/// execve(2): nothing but it is sure to be allowed here.
pub const PROGRAM: Step = Step {
    directive: "ExecStart=",
    exit: Exit::Exec,
    needed: always,
    direct: Direct::By(|_, _| Some(())),
    run: |context, process| {
        let Some(program) = &process.program else { return failed("ExecStart=: nothing was prepared") };
        let Err(error) = nix::unistd::execve(&program.path, &program.argv, &program.environment);
        error_of(context, error)
    },
};

fn error_of(context: &Context<'_>, error: Errno) -> Done {
    failed(format!("{}: {error}", context.command.path))
}

fn arguments(context: &Context<'_>, environment: &Environment) -> Vec<String> {
    let argv = &context.command.argv;
    if context.command.no_env_expand { argv.clone() } else { expand_arguments(argv, environment) }
}

fn prepare(context: &Context<'_>, process: &mut Process) -> Done {
    let environment = &process.environment;
    let c_string = |text: &str| CString::new(text).about(text);
    let argv = arguments(context, environment);
    let argv = argv.iter().map(|word| c_string(word)).collect::<Done<Vec<_>>>()?;
    let block = environment.iter().map(|(name, value)| c_string(&format!("{name}={value}")));
    let block = block.collect::<Done<Vec<_>>>()?;
    let mut last = Errno::ENOENT;
    for candidate in candidates(context.command, context.exec, environment) {
        match nix::unistd::access(candidate.as_str(), AccessFlags::X_OK) {
            Ok(()) => {
                process.program = Some(Program { path: c_string(&candidate)?, argv, environment: block });
                return Ok(());
            }
            Err(Errno::ENOENT) => {}
            Err(error) => last = error,
        }
    }
    error_of(context, last)
}

/// The files that may be meant, in the order of the search path.
fn candidates(command: &ExecCommand, exec: &ExecSection, environment: &Environment) -> Vec<String> {
    let path = &command.path;
    if path.starts_with('/') {
        return vec![path.clone()];
    }
    let own = exec.exec_search_path();
    if !own.0.is_empty() {
        return own.0.iter().map(|directory| format!("{}/{path}", directory.as_str())).collect();
    }
    let search =
        environment.get("PATH").map_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", String::as_str);
    search.split(':').map(|directory| format!("{directory}/{path}")).collect()
}
