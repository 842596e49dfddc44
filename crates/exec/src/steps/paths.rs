//! The working directory. `RootDirectory=` is a part of the mount namespace (see [`super::namespaces`]).

use super::{About, Direct, Step};
use crate::Exit;
use muster_sys::Step as Raw;
use muster_unit::WorkingDirectory;
use std::ffi::CString;

/// The same where the root directory changes behind the user namespace (`DelegateNamespaces=mnt`).
pub const OWN_WORKING_DIRECTORY: Step =
    Step { needed: super::namespaces::has_own_mounts, direct: Direct::No, ..WORKING_DIRECTORY };

/// `WorkingDirectory=`.
pub const WORKING_DIRECTORY: Step = Step {
    directive: "WorkingDirectory=",
    exit: Exit::Chdir,
    needed: |context| !super::namespaces::has_own_mounts(context),
    direct: Direct::By(|context, draft| match context.exec.working_directory() {
        None => Some(()),
        Some(WorkingDirectory { optional: false, path: Some(path) }) => match path.as_str() {
            // Where PID 1 is.
            "/" => Some(()),
            path => draft.step(Raw::Directory(CString::new(path).ok()?), Exit::Chdir),
        },
        Some(_) => None,
    }),
    run: |context, process| {
        let wanted = context.exec.working_directory().as_ref();
        let optional = wanted.is_some_and(|wanted| wanted.optional);
        let home = || process.user.as_ref().map_or("/root", |user| user.home.as_str());
        let path = wanted.map_or("/", |wanted| wanted.path.as_deref().unwrap_or_else(home));
        match nix::unistd::chdir(path) {
            Err(_) if optional => nix::unistd::chdir("/").about("WorkingDirectory="),
            done => done.about(&format!("WorkingDirectory={path}")),
        }
    },
};
