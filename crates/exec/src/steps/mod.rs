//! The steps of a start, and their one order.
//!
//! [`compile`] turns a context into the list of the steps that it needs. The executor carries them out in that order; the
//! direct lane takes a list in which every step says how PID 1's child does it (see [`crate::direct`]). To add a step:
//! write a `pub const` [`Step`] in the module of its domain, and put it where it belongs in [`ORDER`].
//!
//! The order, and why:
//! 0. what the standard streams take from the passed descriptors must be there;
//! 1. session, signals, file mode: nothing depends on them, all that follows happens under them;
//! 2. who it will be: names are looked up in the host's databases, before the root changes;
//! 3. environment; directories and credentials, which are made by root on the host, owned by that user, and add variables;
//! 4. standard streams, which name files of the host; then limits and scheduling, which need privileges and must not hinder
//!    what came before (a low LimitNOFILE=, an idle scheduling class);
//!    a PAM session and a keyring are opened after the limits: the session sees the environment and the terminal, and what
//!    its modules limit is not overridden by the unit's `Limit*=`;
//! 5. the passed descriptors move to 3 and up, now that nothing opens a file at those numbers any more;
//! 6. namespaces, mounts, root and working directory: they need privileges, and the paths of what came before;
//! 7. identity: groups (which cannot be set in a user namespace), user namespace (which gives a full bounding set) and the
//!    namespaces that are to belong to it,
//!    bounding set, user, ambient capabilities, no-new-privileges, each leaving the right to do the next;
//!    the cgroup, where what holds in it (`RestrictFileSystems=`) would hinder what came before;
//! 8. security context and seccomp last, so that no filter has to allow what the steps do; then the program,
//!    which was looked for and made ready before.

pub mod bpf;
pub mod cgroup;
pub mod confinement;
pub mod credentials;
pub mod descriptors;
pub mod directories;
pub mod dynamic;
pub mod environment;
pub mod identity;
pub mod keyring;
pub mod labels;
pub mod limits;
pub mod namespaces;
pub mod pam;
pub mod paths;
pub mod program;
pub mod quota;
pub mod refresh;
pub mod resources;
pub mod scheduling;
pub mod session;
pub mod streams;

use crate::direct::Draft;
use crate::{Context, Exit, Process};

/// One step. Its functions get the context, which says what is asked for.
pub struct Step {
    /// Its directive, as `Name=`, or what it is about.
    pub directive: &'static str,
    /// The exit status when it fails.
    pub exit: Exit,
    /// Whether a context needs it.
    pub needed: fn(&Context<'_>) -> bool,
    /// How PID 1's child does it.
    pub direct: Direct,
    /// What the executor does.
    pub run: fn(&Context<'_>, &mut Process) -> Done,
}

/// How the direct lane does a step.
pub enum Direct {
    /// Not at all: a context that needs it is the executor's.
    No,
    /// It adds to the draft; `None` where the values are the executor's.
    By(fn(&Context<'_>, &mut Draft) -> Option<()>),
}

/// What became of a step.
pub type Done<T = ()> = Result<T, Failed>;

/// Why a step failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed {
    /// Instead of the step's own exit status.
    pub exit: Option<Exit>,
    /// Directive or path, and the error.
    pub message: String,
}

/// A result whose error names what it was about.
pub trait About<T> {
    /// `what` is a directive with its value, or a path.
    fn about(self, what: &str) -> Done<T>;
}

impl<T, E: std::fmt::Display> About<T> for Result<T, E> {
    fn about(self, what: &str) -> Done<T> {
        self.map_err(|error| Failed { exit: None, message: format!("{what}: {error}") })
    }
}

/// A failure in words.
pub fn failed<T>(message: impl Into<String>) -> Done<T> {
    Err(Failed { exit: None, message: message.into() })
}

/// All steps, in the order in which they are done.
pub const ORDER: &[&Step] = &[
    &streams::PASSED,
    &session::SESSION,
    &session::SIGNALS,
    &session::FILE_MODE,
    &identity::USER_NAME,
    &identity::GROUP_NAME,
    &environment::VARIABLES,
    &environment::TERMINAL,
    &environment::PRESSURE,
    &directories::PLACE,
    &directories::RUNTIME,
    &directories::STATE,
    &directories::CACHE,
    &directories::LOGS,
    &directories::CONFIGURATION,
    &credentials::CREDENTIALS,
    &streams::TERMINAL,
    &streams::INPUT,
    &streams::OUTPUT,
    &streams::ERROR,
    &limits::LIMITS,
    &pam::SESSION,
    &keyring::KEYRING,
    &scheduling::OOM_SCORE,
    &scheduling::NICE,
    &scheduling::CPU,
    &scheduling::IO,
    &resources::COREDUMP_FILTER,
    &resources::CPU_AFFINITY,
    &resources::MEMORY_POLICY,
    &resources::TIMER_SLACK,
    &resources::MEMORY_MERGE,
    &resources::HUGE_PAGES,
    &descriptors::OPENED,
    &descriptors::PASSED,
    &namespaces::USERS_PATH,
    &namespaces::PROCESSES,
    &namespaces::NETWORK_PATH,
    &namespaces::NETWORK,
    &namespaces::IPC_PATH,
    &namespaces::IPC,
    &namespaces::HOSTNAME,
    &namespaces::CONTROL_GROUPS,
    &namespaces::MOUNTS,
    &paths::WORKING_DIRECTORY,
    &identity::GROUPS,
    &namespaces::USERS,
    &namespaces::OWN_NETWORK,
    &namespaces::OWN_IPC,
    &namespaces::OWN_HOSTNAME,
    &namespaces::OWN_CONTROL_GROUPS,
    &namespaces::OWN_MOUNTS,
    &paths::OWN_WORKING_DIRECTORY,
    &labels::SMACK,
    &identity::BOUNDING_SET,
    &identity::KEEP_CAPABILITIES,
    &identity::USER,
    &identity::AMBIENT,
    &identity::SECURE_BITS,
    &labels::SELINUX,
    &labels::APPARMOR,
    &identity::NO_NEW_PRIVILEGES,
    &session::CONTEXT_FROM_PEER,
    &program::PREPARED,
    &cgroup::ENTRY,
    &resources::PERSONALITY,
    &confinement::FILTERS,
    &program::PROGRAM,
];

/// The steps that a context needs, in order.
pub fn compile(context: &Context<'_>) -> Vec<&'static Step> {
    let order = if context.refresh.is_some() { refresh::ORDER } else { ORDER };
    order.iter().copied().filter(|step| (step.needed)(context)).collect()
}

/// A step that every context has.
pub fn always(_: &Context<'_>) -> bool {
    true
}

/// Carries steps out. An error is the exit status and the message.
pub fn carry_out(context: &Context<'_>, process: &mut Process) -> Result<(), (Exit, String)> {
    for step in compile(context) {
        let done = (step.run)(context, process);
        done.map_err(|failed| (failed.exit.unwrap_or(step.exit), failed.message))?;
    }
    Ok(())
}
