//! The execution context of a process, its way to the executor, and what comes back.
//!
//! There are two lanes. A plain context goes the direct one ([`direct`]): the child that PID 1 makes takes a few steps and
//! executes the service. All others go by the executor: PID 1 writes the plan into a memfd, starts `muster-executor` in the
//! unit's cgroup (or, where memory is limited there, has it go there) and goes on; the executor carries the plan out and
//! becomes the service. The report socket closes when it
//! did; what it could not do comes over it first. What is to be done is one list for both lanes ([`steps`]).
#![forbid(unsafe_code)]

pub mod context;
pub mod direct;
pub mod environment;
pub mod environment_file;
pub mod exit;
pub mod image;
pub mod journal;
pub mod limits;
pub mod pass;
pub mod plan;
pub mod process;
pub mod resources;
pub mod sandbox;
pub mod seccomp;
pub mod selinux;
pub mod steps;
pub mod tree;

pub use context::Context;
pub use exit::Exit;
pub use plan::Plan;
pub use process::Process;

use muster_unit::{ExecCommand, ExecSection, OpenFile};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::ffi::CString;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Descriptor of the plan in the executor.
pub const PLAN_FD: i32 = 3;
/// Descriptor of the report in the executor.
pub const REPORT_FD: i32 = 4;
/// The first passed descriptor in the executor.
pub const FIRST_FD: i32 = 5;

/// What is to be started.
pub struct Request<'a> {
    /// The unit's name.
    pub unit: &'a str,
    /// The command.
    pub command: &'a ExecCommand,
    /// The context.
    pub exec: &'a ExecSection,
    /// The manager's environment.
    pub base_environment: &'a [String],
    /// Assignments for this process, which win.
    pub own_environment: &'a [String],
    /// Descriptors from 3 upward, with their names.
    pub fds: Vec<(BorrowedFd<'a>, String)>,
    /// For `StandardInput=socket` and kin.
    pub stdio_socket: Option<BorrowedFd<'a>>,
    /// Given for standard input (0), output (1) and error (2), whatever the settings say.
    pub stdio: Vec<(u32, BorrowedFd<'a>)>,
    /// The cgroup that the process begins in.
    pub cgroup_dir: Option<BorrowedFd<'a>>,
    /// 32 hex digits.
    pub invocation_id: &'a str,
    /// Set `WATCHDOG_PID`.
    pub set_watchdog_pid: bool,
    /// Make `RuntimeDirectory=` and kin.
    pub make_directories: bool,
    /// `NonBlocking=`.
    pub non_blocking: bool,
    /// Read credentials anew, though there may be some.
    pub fresh_credentials: bool,
    /// `OpenFile=`.
    pub open_files: &'a [OpenFile],
    /// `SELinuxContextFromNet=`.
    pub context_from_peer: bool,
    /// A directory that is made first where there is none, and its mode.
    pub place: Option<(&'a str, u32)>,
    /// What the directories of `PrivateTmp=` are called on the host.
    pub private_tmp: Option<&'a str>,
    /// The two ends of the pair that holds the network namespace of the unit; see [`steps::namespaces`].
    pub network: Option<[BorrowedFd<'a>; 2]>,
    /// The same for the IPC namespace.
    pub ipc: Option<[BorrowedFd<'a>; 2]>,
    /// The same for the locks of copies of its root (`RootEphemeral=`).
    pub copies: Option<[BorrowedFd<'a>; 2]>,
    /// Whether it is to be told when the program is executed.
    pub report_exec: bool,
    /// Whether memory is limited in the cgroup: no process may be in there that still runs on PID 1's memory, for the kernel
    /// kills all that share the memory of its victim.
    pub limited_memory: bool,
    /// Nothing is executed: see [`Plan::refresh`].
    pub refresh: Option<muster_unit::Refresh>,
}

impl Request<'_> {
    /// Which pairs there are: for the network and the IPC namespace, and for copies of roots.
    pub fn has_pairs(&self) -> [bool; 3] {
        [self.network, self.ipc, self.copies].map(|pair| pair.is_some())
    }
}

/// A process on its way.
#[derive(Debug)]
pub struct Started {
    /// The process ID.
    pub pid: u32,
    /// Where the executor reports; see [`read_report`]. Nothing in the direct lane.
    pub report: Option<OwnedFd>,
    /// Memory of ours that it may still use; see [`direct_failure`].
    pub shared: Option<muster_sys::Shared>,
}

/// No process was made.
#[derive(Debug)]
pub struct SpawnError {
    /// Exit status of systemd.exec(5), "Process Exit Codes", or that of [`Exit::NotMade`].
    pub status: i32,
    /// Directive, path and error of the failed step.
    pub message: String,
}

/// What begins a report of user and group.
pub const RUNS_AS: &str = "as ";

/// What the executor said so far.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)] // status and message are those of the step
pub enum Report {
    /// It became the program (or ended).
    Executed,
    /// A step failed.
    Failed { status: i32, message: String },
    /// What has to be read before there can be a process could not be.
    NotMade { message: String },
    /// Who it runs as; more may follow.
    RunsAs { uid: u32, gid: u32 },
    /// Which number a name of `DynamicUser=` has; more may follow.
    Account { name: String, number: u32 },
    /// Another process goes on, a child of PID 1 as well; more may follow.
    Moved { pid: u32 },
    /// It goes on without a confinement for which there is no right here; more may follow.
    Without { what: String },
    /// Nothing was read yet.
    NotYet,
}

/// Starts a process.
pub fn start(request: &Request<'_>, executor: &str) -> Result<Started, SpawnError> {
    let direct = !request.limited_memory && request.stdio.is_empty();
    match direct.then(|| direct::compile(request)).flatten() {
        Some(program) => start_directly(request, program),
        // The same program, linked so that it can load PAM's modules.
        None if steps::pam::is_needed(&Context::of_request(request)) => {
            start_executor(request, &format!("{executor}-pam"))
        }
        None => start_executor(request, executor),
    }
}

/// PID 1 itself lacks what a process needs: there is none, and so no step that failed.
fn fail(what: &str, error: &dyn std::fmt::Display) -> SpawnError {
    SpawnError { status: Exit::NotMade.into(), message: format!("{what}: {error}") }
}

fn start_directly(request: &Request<'_>, program: muster_sys::Program) -> Result<Started, SpawnError> {
    let mut fds: Vec<BorrowedFd<'_>> = request.fds.iter().map(|(fd, _)| *fd).collect();
    fds.extend(request.stdio_socket);
    let made = muster_sys::spawn(program, &fds, request.cgroup_dir);
    let made = made.map_err(|error| fail("clone", &error))?;
    Ok(Started { pid: made.pid, report: None, shared: made.shared })
}

/// What stopped a child of the direct lane: exit status and message. To be asked when it ended.
pub fn direct_failure(shared: &muster_sys::Shared, program: &str) -> Option<(i32, String)> {
    shared.failure().map(|failure| direct::explain(&failure, program))
}

fn start_executor(request: &Request<'_>, executor: &str) -> Result<Started, SpawnError> {
    let plan = Plan::of(request);
    let mut file = pass::memory(c"muster-plan").map_err(|error| fail("memory of the plan", &error))?;
    let mut bytes = Vec::new();
    ciborium::into_writer(&plan, &mut bytes).map_err(|error| fail("plan", &error))?;
    file.write_all(&bytes).and_then(|()| file.rewind()).map_err(|error| fail("plan", &error))?;
    let (ours, theirs) = pass::messages().map_err(|error| fail("report socket", &error))?;
    let mut fds = vec![file.as_fd(), theirs.as_fd()];
    fds.extend(request.fds.iter().map(|(fd, _)| *fd));
    fds.extend(request.stdio_socket);
    fds.extend(request.stdio.iter().map(|(_, fd)| *fd));
    fds.extend(request.network.iter().chain(&request.ipc).chain(&request.copies).flatten());
    let procs = request.cgroup_dir.filter(|_| plan.enters_cgroup).map(|directory| {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let about =
            |error| SpawnError { status: Exit::Cgroup.into(), message: format!("cgroup.procs: {error}") };
        openat(directory, "cgroup.procs", flags, Mode::empty()).map_err(about)
    });
    let procs = procs.transpose()?;
    fds.extend(procs.as_ref().map(AsFd::as_fd));
    let context = Context::of_request(request);
    // A PAM session begins outside; see `steps::namespaces`.
    let own_processes = steps::namespaces::begins_processes(&context) && !steps::pam::is_needed(&context);
    let program = muster_sys::Program {
        own_processes,
        passed: fds.len(),
        paths: vec![CString::new(executor).map_err(|error| fail("executor", &error))?],
        argv: vec![c"muster-executor".to_owned()],
        ..Default::default()
    };
    let cgroup = request.cgroup_dir.filter(|_| procs.is_none());
    let made = muster_sys::spawn(program, &fds, cgroup);
    let made = made.map_err(|error| match own_processes {
        true => SpawnError { status: Exit::Namespace.into(), message: format!("PrivatePIDs=: {error}") },
        false => fail("clone", &error),
    })?;
    Ok(Started { pid: made.pid, report: Some(ours), shared: made.shared })
}

/// Tells PID 1 something, from the executor.
pub fn tell(report: &OwnedFd, text: &str) {
    // Nobody to tell is no reason not to go on.
    let _ = pass::send(report, text.as_bytes());
}

/// Reads the report without waiting.
pub fn read_report(report: &OwnedFd) -> Report {
    let mut bytes = [0_u8; 1024];
    match pass::receive(report, &mut bytes) {
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Report::NotYet,
        Ok(0) | Err(_) => Report::Executed,
        Ok(length) => {
            let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or(&[])).into_owned();
            if let Some((uid, gid)) = text.strip_prefix(RUNS_AS).and_then(|ids| ids.split_once(' ')) {
                let number = |text: &str| text.parse().unwrap_or(u32::MAX);
                return Report::RunsAs { uid: number(uid), gid: number(gid) };
            }
            let moved = text.strip_prefix(steps::namespaces::MOVED).and_then(|pid| pid.parse().ok());
            if let Some(pid) = moved {
                return Report::Moved { pid };
            }
            if let Some(what) = text.strip_prefix(steps::namespaces::WITHOUT) {
                return Report::Without { what: what.to_owned() };
            }
            let account = text.strip_prefix(steps::dynamic::ACCOUNT).and_then(|rest| rest.split_once(' '));
            if let Some((Ok(number), name)) = account.map(|(number, name)| (number.parse(), name)) {
                return Report::Account { name: name.to_owned(), number };
            }
            let (status, message) = text.split_once(' ').unwrap_or(("203", ""));
            let (status, message) = (status.parse().unwrap_or(203), message.to_owned());
            match status == i32::from(Exit::NotMade) {
                true => Report::NotMade { message },
                false => Report::Failed { status, message },
            }
        }
    }
}
