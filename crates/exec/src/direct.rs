//! The direct lane: a plain context as steps that a child takes on PID 1's own memory, without the executor in between.
//!
//! Plain is a context whose every step says how such a child does it: no user, no file, no directory, and nothing that
//! would change the memory it still shares with PID 1 (a change of user does, and writes to procfs). A context goes one way
//! or the other as a whole. What must stay true: a directive that has an effect is either carried out here or keeps a
//! context from being plain; a test goes through the table.

use crate::environment::Environment;
use crate::steps::{self, Direct};
use crate::{Context, Exit, Request, limits};
use muster_sys::{Failure, Program, Step, Variable};
use std::ffi::CString;

/// What the steps of a plain context add to.
#[derive(Debug, Default)]
pub struct Draft {
    steps: Vec<(Step, u8)>,
    /// Variables that are known.
    pub environment: Environment,
    /// Variables whose value is the number of the process.
    pub own_numbers: Vec<&'static str>,
    /// Whether a stream goes to the journal: `JOURNAL_STREAM` is set.
    pub to_journal: bool,
    /// The files that may be meant, in order.
    pub paths: Vec<CString>,
    /// The arguments.
    pub argv: Vec<CString>,
}

impl Draft {
    /// Adds a step with its exit status. Always something, so that a step can end with it.
    pub fn step(&mut self, step: Step, exit: Exit) -> Option<()> {
        self.steps.push((step, exit.code()));
        Some(())
    }
}

/// The program of a request, if its context is plain.
pub(crate) fn compile(request: &Request<'_>) -> Option<Program> {
    if request.report_exec {
        return None;
    }
    let context = Context::of_request(request);
    let mut draft = Draft::default();
    for step in steps::compile(&context) {
        let Direct::By(add) = step.direct else { return None };
        add(&context, &mut draft)?;
    }
    let environment = variables(&draft)?;
    Some(Program {
        own_processes: false,
        steps: draft.steps,
        passed: request.fds.len(),
        non_blocking: Some(request.non_blocking),
        paths: draft.paths,
        argv: draft.argv,
        environment,
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
        Some(Step::Keyring { .. }) => "KeyringMode=".to_owned(),
        Some(Step::Signal { .. }) => "signals".to_owned(),
        Some(Step::Control { .. }) => "NoNewPrivileges=".to_owned(),
        None => program.to_owned(),
    };
    (i32::from(failure.status), format!("{what}: {error}"))
}

fn variables(draft: &Draft) -> Option<Vec<Variable>> {
    let own = || draft.own_numbers.iter().copied();
    let name = |name: &str| CString::new(format!("{name}=")).ok();
    let fixed = draft.environment.iter().filter(|(name, _)| !own().any(|own| own == *name));
    let mut all =
        Vec::with_capacity(draft.environment.len().saturating_add(draft.own_numbers.len()).saturating_add(1));
    for (name, value) in fixed {
        all.push(Variable::Fixed(CString::new(format!("{name}={value}")).ok()?));
    }
    for own in own() {
        all.push(Variable::OwnNumber(name(own)?));
    }
    if draft.to_journal {
        all.push(Variable::StreamNumber(name("JOURNAL_STREAM")?));
    }
    Some(all)
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
