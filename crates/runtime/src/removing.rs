//! Removal of directories and files, by a helper: this program again, as `muster --remove`.
//!
//! The helper walks by descriptor and follows no link of a service (`muster_exec::tree`); PID 1 does not wait for it. Single
//! files that lie in /run, and message queues, it removes itself: nothing there can hang.

use crate::local;
use crate::processes::{Helper, send_signal_to_child};
use crate::turn::Runtime;
use muster_exec::tree;
use muster_manager::directories::Things;
use muster_manager::effect::QueryId;
use muster_manager::event::{Event, Exit};
use std::ffi::CString;
use std::process::ExitCode;

/// The argument that makes this program the helper.
pub const ARGUMENT: &str = "--remove";
/// What stands before each link, its place and its target.
const LINK: &str = "--link";
/// What stands before each path of a single file.
const FILE: &str = "--file";

impl Runtime {
    pub(crate) fn remove(&mut self, query: Option<QueryId>, things: &Things) {
        for name in things.queues.iter().filter_map(|name| CString::new(name.as_str()).ok()) {
            let _ = muster_sys::message_queue_unlink(&name);
        }
        let (far, mut result) = remove_near(&things.files);
        if things.paths.is_empty() && things.links.is_empty() && far.is_empty() {
            return self.follow_up.extend(query.map(|query| Event::Removed { query, result }));
        }
        let mut arguments: Vec<&str> = vec![ARGUMENT];
        arguments.extend(far.iter().flat_map(|path| [FILE, path]));
        for (place, target) in &things.links {
            arguments.extend([LINK, place, target]);
        }
        arguments.extend(things.paths.iter().map(String::as_str));
        let program = self.program.clone();
        let runs = self.run_asking_helper(&program, &arguments, |answer| Helper::Remover { query, answer });
        if !runs {
            result = Err("A helper that removes directories could not be started.".to_owned());
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
        if let Some(pid) = self.processes.remover(of) {
            send_signal_to_child(pid, nix::libc::SIGKILL);
        }
    }
}

/// Removes what can be removed at once; gives what cannot, and what went wrong first.
fn remove_near(files: &[String]) -> (Vec<&str>, Result<(), String>) {
    let mut far = Vec::new();
    let mut result = Ok(());
    for path in files {
        match local::unlink(path) {
            None => far.push(path.as_str()),
            Some(done) => {
                let done = done.map_err(|error| format!("{path}: not removed: {}", error.desc()));
                result = result.and(done);
            }
        }
    }
    (far, result)
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
            (FILE, [path, ..]) => {
                rest.next();
                (*path, tree::remove_file(path))
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
