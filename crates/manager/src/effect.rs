//! What the manager wants done: a closed list, in the imperative, carried out by the runtime in order.
//!
//! Descriptors, processes and cgroups are named by opaque ids and paths; the runtime owns the real ones.

use crate::event::ShutdownVerb;
use muster_graph::{JobId, JobResult, JobType};
use muster_unit::{
    CGroupSection, Condition, Controllers, ExecSection, FileSystemList, NftSet, OomPolicy, OpenFile, Refresh,
    SocketSection, UnitName,
};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);
    )*};
}
ids! {
    /// A descriptor in the runtime's table. The runtime gives out ids; they are unique for one boot.
    FdId;
    /// One process start. The manager gives out ids.
    SpawnId;
    /// One question to the world. The manager gives out ids.
    QueryId;
    /// Namespaces that processes share. The manager gives out ids.
    ShareId;
    /// One request of a client. The runtime gives out ids.
    RequestId;
}

/// What a process is started for; decides its control sub-cgroup and what its end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpawnRole {
    /// The main process, of `ExecStart=`.
    Main,
    /// Any other command of the unit.
    Control,
}

/// A process to start. Everything a child needs to know, resolved but for what only the child can know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spawn {
    /// Names the spawn in later events.
    pub id: SpawnId,
    /// The unit that the process belongs to.
    pub unit: UnitName,
    /// The role of the process in its unit.
    pub role: SpawnRole,
    /// The command line; `argv[0]` included, `$VAR` not yet expanded unless `no_env_expand`.
    pub command: muster_unit::ExecCommand,
    /// The execution context of the unit.
    pub exec: Rc<ExecSection>,
    /// Complete environment assignments from the manager's side, before the unit's own and `EnvironmentFile=`.
    pub base_environment: Vec<String>,
    /// Assignments that PID 1 makes for this process (`INVOCATION_ID`, `NOTIFY_SOCKET`, …), which win over all.
    pub own_environment: Vec<String>,
    /// Descriptors to pass from number 3 upward, with their `LISTEN_FDNAMES` names.
    pub fds: Vec<(FdId, String)>,
    /// The connection for `StandardInput=socket` and kin.
    pub stdio_socket: Option<FdId>,
    /// What a client gave for standard input, output and error, by number.
    pub stdio: Vec<(u32, FdId)>,
    /// Cgroup path below our root, leading slash.
    pub cgroup: String,
    /// Invocation id, 32 hex digits.
    pub invocation_id: String,
    /// Whether an `ExecSucceeded` is wanted (`Type=exec`).
    pub report_exec: bool,
    /// Set `WATCHDOG_PID`/`LISTEN_PID` to the child's own number.
    pub set_watchdog_pid: bool,
    /// Whether the exec directories (`RuntimeDirectory=` …) are made by this process.
    pub make_directories: bool,
    /// `NonBlocking=`: passed descriptors are set non-blocking.
    pub non_blocking: bool,
    /// Credentials are read anew: for the main process and what comes before it.
    pub fresh_credentials: bool,
    /// `OpenFile=`, for the main process.
    pub open_files: Vec<OpenFile>,
    /// `SELinuxContextFromNet=`: the security context follows the peer of the one socket.
    pub context_from_peer: bool,
    /// A directory that is made first, with its mode, where there is none: what is mounted needs a place.
    pub place: Option<(String, u32)>,
    /// What it shares with other processes.
    pub shared: Option<Shared>,
    /// No program is executed: the process makes anew what the main process has, and is done (`RefreshOnReload=`).
    pub refresh: Option<RefreshMain>,
}

/// What is made anew for a service that is reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshMain {
    /// Which of its resources.
    pub what: Refresh,
    /// Its main process, if there is one.
    pub pid: Option<u32>,
}

/// The part of a [`Spawn`] that is shared with other processes (systemd.exec(5), `PrivateNetwork=`, `PrivateIPC=`,
/// `PrivateTmp=`; systemd.unit(5), `JoinsNamespaceOf=`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Names it, until [`Effect::EndShare`].
    pub id: ShareId,
    /// Whether the network namespace is in it.
    pub network: bool,
    /// Whether the IPC namespace is in it.
    pub ipc: bool,
    /// Whether locks of copies of roots are in it (`RootEphemeral=`).
    pub copies: bool,
    /// What its directories below /tmp and /var/tmp are called.
    pub private_tmp: Option<String>,
}

/// The network namespace in which the sockets of a unit are bound (systemd.exec(5), `PrivateNetwork=`,
/// `NetworkNamespacePath=`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// One that the unit shares with its commands, and with units that are tied to it.
    Shared(Shared),
    /// One that somebody else made.
    At(String),
}

/// Severity as in syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)] // the levels of syslog(3)
pub enum Level {
    Emergency = 0,
    Alert = 1,
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// A log record of PID 1, for the journal or the kernel log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Severity.
    pub level: Level,
    /// The unit it is about.
    pub unit: Option<UnitName>,
    /// The text of the record.
    pub message: String,
    /// Further journal fields (`JOB_ID`, `MESSAGE_ID`, …).
    pub fields: Vec<(String, String)>,
}

/// A mark before a line on the console (`[  OK  ]` and kin).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the marks
pub enum StatusMark {
    None,
    Ok,
    Failed,
    Depend,
    Time,
    Info,
    Skip,
    Busy,
}

/// What clients are told without having asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the fields are named for what they are
pub enum BusSignal {
    /// A unit was loaded.
    UnitNew { unit: UnitName },
    /// A unit was unloaded.
    UnitRemoved { unit: UnitName },
    /// Properties of a unit changed.
    UnitChanged { unit: UnitName },
    /// A job was queued.
    JobNew { job: JobId, unit: UnitName },
    /// A job changed state.
    JobChanged { job: JobId, unit: UnitName },
    /// A job is gone.
    JobRemoved { job: JobId, unit: UnitName, result: JobResult },
    /// Unit files are being read again, or were.
    Reloading { active: bool },
    /// The first transaction is done: firmware, loader, kernel, initrd, userspace, total, in microseconds.
    StartupFinished { userspace_usec: u64, total_usec: u64 },
    /// Unit files changed on disk.
    UnitFilesChanged,
    /// A property of the manager changed.
    ManagerChanged,
    /// To this name on the bus alone: the processes of the scope are to be ended.
    RequestStop { unit: UnitName, controller: String },
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the variants say what their fields are
pub enum Reply {
    /// Done, nothing to say.
    Done,
    /// A job was queued or merged into; it may be done before the answer is written.
    Job { id: JobId, unit: UnitName, kind: JobType },
    /// Jobs were queued.
    Jobs(Vec<JobId>),
    /// A unit was loaded.
    Unit(UnitName),
    /// The manager refused.
    Refused(crate::refused::Refused),
    /// Somebody else did. `name` is a D-Bus error name in full.
    Error { name: String, message: String },
}

/// Everything the manager can ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the variants say what their fields are
pub enum Effect {
    /// Make a process. Answer: `Spawned` or `SpawnFailed`, then `ExecSucceeded` or `ExecFailed` where reported.
    Spawn(Box<Spawn>),
    /// Signal one process that we started or watch.
    KillProcess { pid: u32, signal: i32, value: Option<i32> },
    /// Signal every process in a cgroup and below, but for those named. `CgroupEmptied` follows when it is empty, at once
    /// where it is so already; the runtime reads `cgroup.events` at the moment it delivers that event, never earlier. With
    /// `last` nothing will run in it any more, and what is found empty may be removed.
    KillCgroup { path: String, signal: i32, except: Vec<u32>, send_cont: bool, send_hup: bool, last: bool },
    /// Make the cgroup of a unit and set its attributes. `disabled` is what slices above it disable.
    RealizeCgroup {
        path: String,
        unit: UnitName,
        config: Rc<CGroupSection>,
        disabled: Controllers,
        invocation_id: String,
        owner: Option<String>,
        oom: Option<OomPolicy>,
        files: FileSystemList,
    },
    /// Have the cgroup of a unit, and whom its processes run as, in these sets of nftables and in no others.
    FillSets { path: String, unit: UnitName, sets: Vec<NftSet>, runs_as: Option<(u32, u32)> },
    /// Tell when a cgroup is empty (`CgroupEmptied`): for what lives by its cgroup alone.
    WatchCgroup { path: String },
    /// Remove a cgroup, as soon as it is empty. Answer, where a unit and its invocation are named: `CgroupUsed`.
    RemoveCgroup { path: String, unit: Option<(UnitName, String)> },
    /// Freeze or thaw.
    FreezeCgroup { path: String, freeze: bool },
    /// Move processes into a cgroup.
    AttachProcesses { path: String, pids: Vec<u32> },
    /// Watch the paths of a path unit, beginning with a look at what holds already; replaces an earlier watch. Answers:
    /// `PathTriggered`, each time.
    WatchPaths { unit: UnitName, watch: crate::path::PathWatch },
    /// Look again at the paths of a path unit.
    CheckPaths { unit: UnitName },
    /// Watch them no longer.
    UnwatchPaths { unit: UnitName },
    /// Read the kernel's mount table now. Answer: `MountTableRead`.
    ReadMountTable,
    /// Read the kernel's list of swaps now. Answer: `SwapsRead`.
    ReadSwapTable,
    /// Mount autofs on a place, which is made with that mode where it is missing; with `again` after what an earlier attempt
    /// may have left was taken away. Answer: `AutomountOpened`.
    OpenAutomount { unit: UnitName, place: String, mode: u32, options: String, idle_usec: u64, again: bool },
    /// Unmount autofs and what is mounted on it. Answer: `AutomountClosed`.
    CloseAutomount { unit: UnitName, place: String },
    /// Hear what the kernel asks through the pipe: `AutomountAsked` each time, and `AutomountHungUp`.
    WatchAutomount { unit: UnitName, pipe: FdId },
    /// Close the pipe.
    UnwatchAutomount { pipe: FdId },
    /// Answer requests; 0 says that all is well.
    AnswerAutomount { place: String, device: u32, tokens: Vec<u32>, errno: i32 },
    /// Have what is mounted there go, if it is idle. Answer: `AutomountLooked`.
    ExpireAutomount { unit: UnitName, place: String, device: u32 },
    /// Read a time zone by name; empty for the local one. Answer: `ZoneRead`.
    ReadZone { name: String },
    /// Set the time of a timer's stamp file, made where there is none; or, without a time, read it. Answer to reading:
    /// `StampRead`. A helper does it.
    Stamp { unit: UnitName, path: String, set_usec: Option<u64> },
    /// Watch a process that is not our child.
    WatchProcess { pid: u32 },
    /// Check conditions. Answer: `ConditionsChecked`.
    CheckConditions { query: QueryId, conditions: Vec<Condition> },
    /// Read a PID file and look at the process. Answer: `PidFileRead`.
    ReadPidFile { unit: UnitName, path: String },
    /// Read a PID file again whenever it, or the way to it, changes, until told otherwise. Answer, each time: `PidFileRead`.
    WatchPidFile { unit: UnitName, path: String },
    /// Stop watching for the PID file.
    UnwatchPidFile { unit: UnitName },
    /// Find the main process of a forking service without a PID file: the only child of ours in the cgroup.
    /// Answer: `PidFileRead`.
    GuessMainProcess { unit: UnitName, cgroup: String },
    /// Leave the argument of the next reboot where systemd-shutdown(8) looks for it.
    RebootArgument { argument: String },
    /// Remove a file that PID 1 wrote itself, below /run/systemd.
    RemoveFile { path: String },
    /// Open every address of a socket unit; `keep` are descriptors that serve on, by listen index. `function` are the files
    /// that describe the USB function of its service. `network` is where they are bound, if not here. A helper does what may block. Answer: `SocketsOpened`.
    OpenSockets {
        unit: UnitName,
        config: Rc<SocketSection>,
        keep: Vec<(u32, FdId)>,
        function: Option<(String, String)>,
        network: Option<Network>,
    },
    /// Nobody waits for the descriptors of this socket unit any more: no answer comes.
    StopOpening { unit: UnitName },
    /// Tell of traffic: with `accept`, take connections and send `Accepted` for each; without, `SocketReadable` once.
    WatchSocket { fd: FdId, accept: bool },
    /// Stop watching the socket.
    UnwatchSocket { fd: FdId },
    /// Throw away what is queued.
    FlushSocket { fd: FdId },
    /// Set connection options of the socket unit on an accepted connection.
    PrepareConnection { fd: FdId, config: Rc<SocketSection> },
    /// Watch a stored descriptor for hang-up.
    WatchStoredFd { fd: FdId },
    /// Close descriptors (through a path that may not block).
    CloseFds { fds: Vec<FdId> },
    /// Nobody has this name of `DynamicUser=` any more.
    ForgetAccount { name: String },
    /// Remove objects of IPC that belong to a user, by a helper process.
    RemoveIpc { uid: u32, gid: u32 },
    /// The run of a unit with a terminal is over: reset it, or give its virtual terminal back, by a helper process.
    RevertTerminal { path: String, reset: bool, free: bool },
    /// No process will join these namespaces any more.
    EndShare { id: ShareId },
    /// Remove directories, files and links, by a helper process where that may block. Answer, where there is a question:
    /// `Removed`.
    Remove { query: Option<QueryId>, things: crate::directories::Things },
    /// End the helper that removes things; nobody waits for it any more.
    StopRemoval { query: QueryId },
    /// Unmount and remove the unit's directory below /run/credentials, which its first process made.
    RemoveCredentials { unit: UnitName },
    /// Publish `/run/systemd/units/invocation:UNIT` and what journald is to know of the unit's log; `None` takes it away.
    PublishInvocation { unit: UnitName, invocation_id: Option<String>, log: Option<Rc<ExecSection>> },
    /// Log a record.
    Log(LogRecord),
    /// Show a line on the console.
    ShowStatus { mark: StatusMark, message: String },
    /// The same of a job that takes long, with the processes of this cgroup and what they wait in.
    ShowSlow { message: String, cgroup: Option<String> },
    /// Answer a request.
    Reply { id: crate::effect::RequestId, reply: Reply },
    /// Tell clients.
    Signal(BusSignal),
    /// Run generators and read unit directories again. Answer: `SourceReloaded`.
    ReloadSource,
    /// Write files for others to read, each beside its name and then renamed: transient units, and settings made at run
    /// time as drop-ins (systemctl(1), `set-property`). Answer: `FilesWritten`.
    WriteFiles { query: QueryId, files: Vec<(String, String)> },
    /// Replace PID 1 by a fresh copy of itself, handing over everything.
    Reexecute,
    /// Kill what does not survive, make `root` the root directory ("" for what systemd-soft-reboot.service(8) says), and
    /// execute `init` there: with everything handed over where it is muster, which it is where it is "".
    BeginAnew { why: crate::anew::Anew, root: String, init: String },
    /// All is stopped: kill what is left, unmount, sync, and go.
    Shutdown { verb: ShutdownVerb, exit_code: u8 },
}
