//! What is done to a unit's terminal when its run is over (systemd.exec(5), `TTYReset=`, `TTYVTDisallocate=`), by a helper: this
//! program again, as `muster --revert-terminal`. A terminal can block whoever opens it.

use crate::processes::Helper;
use crate::turn::Runtime;
use std::process::ExitCode;

/// The argument that makes this program the helper.
pub const ARGUMENT: &str = "--revert-terminal";
const RESET: &str = "reset";
const FREE: &str = "free";

impl Runtime {
    pub(crate) fn revert_terminal(&mut self, path: &str, reset: bool, free: bool) {
        let words = [Some(ARGUMENT), Some(path), reset.then_some(RESET), free.then_some(FREE)];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        self.run_helper(&words, Helper::Cleaner);
    }
}

/// The helper itself.
pub fn run(path: &str, what: &[&str]) -> ExitCode {
    let done =
        muster_exec::steps::streams::revert_terminal(path, what.contains(&RESET), what.contains(&FREE));
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
