//! The working directory. `RootDirectory=` is a part of the mount namespace (see [`super::namespaces`]).

use super::{About, Direct, Step, always};
use crate::Exit;
use muster_sys::Step as Raw;
use std::ffi::CString;

/// `WorkingDirectory=`.
pub const WORKING_DIRECTORY: Step = Step {
    directive: "WorkingDirectory=",
    exit: Exit::Chdir,
    needed: always,
    direct: Direct::By(|context, draft| match context.exec.working_directory().as_deref() {
        // Where PID 1 is.
        None | Some("/") => Some(()),
        Some(path) if path.starts_with('/') => {
            draft.step(Raw::Directory(CString::new(path).ok()?), Exit::Chdir)
        }
        Some(_) => None,
    }),
    run: |context, process| {
        let wanted = context.exec.working_directory().as_deref().unwrap_or("/");
        let (optional, path) = wanted.strip_prefix('-').map_or((false, wanted), |path| (true, path));
        let home = process.user.as_ref().map_or("/root", |user| user.home.as_str());
        let path = if path == "~" { home } else { path };
        match nix::unistd::chdir(path) {
            Err(_) if optional => nix::unistd::chdir("/").about("WorkingDirectory="),
            done => done.about(&format!("WorkingDirectory={path}")),
        }
    },
};
