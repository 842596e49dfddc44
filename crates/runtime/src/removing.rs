//! Removal of directories, by a helper: this program again, as `muster --remove-directories`.
//!
//! The helper walks by descriptor and follows no link of a service (`muster_exec::tree`); PID 1 does not wait for it.

use crate::processes::Helper;
use crate::turn::Runtime;
use muster_exec::tree;
use muster_manager::directories::Things;
use muster_manager::effect::QueryId;
use muster_manager::event::{Event, Exit};
use std::os::fd::AsFd;
use std::process::ExitCode;

/// The argument that makes this program the helper.
pub const ARGUMENT: &str = "--remove-directories";
/// What stands before each link, its place and its target.
const LINK: &str = "--link";

impl Runtime {
    pub(crate) fn remove(&mut self, query: Option<QueryId>, things: &Things) {
        let mut arguments: Vec<&str> = vec![ARGUMENT];
        for (place, target) in &things.links {
            arguments.extend([LINK, place, target]);
        }
        arguments.extend(things.paths.iter().map(String::as_str));
        let program = self.program.clone();
        let runs = self.run_asking_helper(&program, &arguments, |answer| Helper::Remover { query, answer });
        if !runs {
            let result = Err("A helper that removes directories could not be started.".to_owned());
            self.follow_up.extend(query.map(|query| Event::Removed { query, result }));
        }
    }

    pub(crate) fn remover_ended(&mut self, query: Option<QueryId>, said: &str, exit: Exit) {
        let Some(query) = query else { return };
        let result = match exit {
            Exit::Exited(0) => Ok(()),
            _ => Err(said.lines().next().unwrap_or("The helper that removes directories failed.").to_owned()),
        };
        self.deliver(Event::Removed { query, result });
    }

    /// Nobody waits for it any more.
    pub(crate) fn stop_removal(&mut self, of: QueryId) {
        // It is our child and not reaped, so that the number is its own.
        let pidfd = self.processes.remover(of).and_then(|pid| muster_sys::pidfd_open(pid).ok());
        if let Some(pidfd) = pidfd {
            let _ = muster_sys::pidfd_send_signal(pidfd.as_fd(), nix::libc::SIGKILL);
        }
    }
}

/// The helper itself. Everything is tried, and what fails is said.
pub fn run(arguments: &[&str]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (path, done) = match (*argument, rest.as_slice()) {
            (LINK, [place, target, ..]) => {
                rest.nth(1);
                (*place, tree::remove_link(place, target))
            }
            (path, _) => (path, tree::remove(path)),
        };
        // One line fits into the pipe, whether anybody reads it or not.
        if let (Err(error), true) = (done, code == ExitCode::SUCCESS) {
            println!("{path}: not removed: {error}");
            code = ExitCode::FAILURE;
        }
    }
    code
}
