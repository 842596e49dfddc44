//! What the manager hears: a closed list of things that happened, in the past tense.
//!
//! The runtime builds these from readiness and parsed bytes; each is bounded in size before it gets here.

use crate::effect::{FdId, QueryId, RequestId, SpawnId};
use muster_graph::{JobMode, JobType};
use muster_unit::UnitName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The clocks at the moment of an event, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// `CLOCK_MONOTONIC`.
    pub monotonic_usec: u64,
    /// `CLOCK_REALTIME`.
    pub realtime_usec: u64,
    /// `CLOCK_BOOTTIME`.
    pub boottime_usec: u64,
}

/// A clock that something can be due on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// `CLOCK_REALTIME`.
    Realtime,
    /// `CLOCK_REALTIME`, waking the machine from sleep.
    RealtimeAlarm,
    /// `CLOCK_BOOTTIME`, waking the machine from sleep.
    BoottimeAlarm,
}

impl Clock {
    /// All clocks.
    pub const ALL: [Clock; 4] =
        [Clock::Monotonic, Clock::Realtime, Clock::RealtimeAlarm, Clock::BoottimeAlarm];
}

impl Now {
    /// What a clock shows, in microseconds.
    pub fn on(&self, clock: Clock) -> u64 {
        match clock {
            Clock::Monotonic => self.monotonic_usec,
            Clock::Realtime | Clock::RealtimeAlarm => self.realtime_usec,
            Clock::BoottimeAlarm => self.boottime_usec,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By `_exit(code)`.
    Exited(i32),
    /// By a signal.
    Killed(i32),
    /// By a signal, with a core dump.
    Dumped(i32),
    /// It never was one: what has to be read before there is a process could not be.
    NotMade,
}

/// Who asks: by kernel credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The user that asked.
    pub uid: u32,
    /// The process that asked; 0 when unknown.
    pub pid: u32,
    /// Its name, as the kernel had it (`systemctl`); empty when unknown.
    pub comm: String,
}

/// One descriptor opened for a socket unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenedSocket {
    /// The descriptor, in the runtime's table.
    pub fd: FdId,
    /// Which entry of `SocketSection::listen` it serves.
    pub listen_index: u32,
    /// Whether connections are accepted on it (stream and seqpacket sockets), rather than data read.
    pub connection_based: bool,
    /// Whether it is only passed along with another (endpoints of a USB function), and never watched.
    pub companion: bool,
    /// Whether it served before, and serves on.
    pub kept: bool,
}

/// Why no descriptor was opened for a socket unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenError {
    /// For people: where the line is, what it says, what stood in its way.
    pub message: String,
    /// Whether it is that `SocketUser=` or `SocketGroup=` does not exist.
    pub no_owner: bool,
}

/// The far end of an accepted connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The tail of the instance name after the connection number, as systemd forms it.
    pub instance_tail: String,
    /// The far end as people read it: `127.0.0.1:4711`, `[::1]:4711`, `PID 71/UID 0`. Part of the instance's description.
    pub description: String,
    /// `REMOTE_ADDR`, where the address family has one.
    pub remote_addr: Option<String>,
    /// `REMOTE_PORT`.
    pub remote_port: Option<u32>,
    /// `SO_COOKIE` of the connection.
    pub cookie: u64,
    /// What connections are counted by for `MaxConnectionsPerSource=`: an address, or a uid; empty when unknown.
    pub source: String,
}

/// A mount, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// The mount unit's name.
    pub unit: UnitName,
    /// The source of the mount.
    pub what: String,
    /// The mount point.
    pub place: String,
    /// File system type.
    pub fs_type: String,
    /// Mount options.
    pub options: String,
}

/// What the kernel asks of an automount; the answer bears the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the variants say what their fields are
pub enum AutomountAsk {
    /// A process wants what is to be mounted.
    Mount { token: u32, pid: u32, comm: String },
    /// What is mounted is idle.
    Expire { token: u32 },
}

/// A swap, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapFound {
    /// Its node or file.
    pub path: String,
    /// Its priority.
    pub priority: i32,
}

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the variants say what their fields are
pub enum Event {
    /// Deadlines passed; nothing else happened.
    Tick,
    /// The process of a spawn exists.
    Spawned { spawn: SpawnId, pid: u32 },
    /// No process could be made. `message` names step and error; `status` is the exit status of systemd.exec(5).
    SpawnFailed { spawn: SpawnId, status: i32, message: String },
    /// The executor handed over to the program (`execve` succeeded).
    ExecSucceeded { spawn: SpawnId },
    /// The executor could not carry out a step; its exit follows as [`Event::ChildExited`].
    ExecFailed { spawn: SpawnId, status: i32, message: String },
    /// Another process goes on in the place of that one.
    Moved { spawn: SpawnId, pid: u32 },
    /// What has to be read before there can be a process could not be: it counts as never made.
    SpawnRefused { spawn: SpawnId, message: String },
    /// The executor found out who the program is to run as.
    RunsAs { spawn: SpawnId, uid: u32, gid: u32 },
    /// The executor found, or made, the number of a user or group that `DynamicUser=` is about.
    AccountFound { spawn: SpawnId, name: String, number: u32 },
    /// A child ended and was reaped.
    ChildExited { pid: u32, exit: Exit },
    /// A process that we watch by pidfd, and that is not our child, ended.
    WatchedProcessExited { pid: u32 },
    /// The cgroup of a unit (path below our root, with a leading slash) holds no process any more.
    CgroupEmptied { path: String },
    /// The kernel killed a process of that cgroup for want of memory. Told before the end of the process is.
    OomKilled { path: String },
    /// What a run used in all, whose cgroup is gone.
    CgroupUsed { unit: UnitName, invocation_id: String, usage: crate::state::Usage },
    /// A message arrived on the notify socket. `cgroup` is the sender's, below our root.
    /// `named` is the process that `MAINPID=` or `MAINPIDFD=1` names.
    Notified {
        pid: u32,
        uid: u32,
        cgroup: Option<String>,
        fields: Vec<(String, String)>,
        fds: Vec<FdId>,
        named: Option<Named>,
    },
    /// The answer to [`Effect::OpenSockets`].
    SocketsOpened { unit: UnitName, result: Result<Vec<OpenedSocket>, OpenError> },
    /// A listening descriptor that we watch has traffic.
    SocketReadable { fd: FdId },
    /// A connection was taken from a listening descriptor with `Accept=yes`.
    Accepted { listener: FdId, fd: FdId, peer: Peer },
    /// No descriptor or memory was there to accept with; the runtime tries again.
    AcceptShort { listener: FdId, message: String },
    /// Accepting failed for good on this descriptor.
    AcceptFailed { listener: FdId, message: String },
    /// A stored descriptor hung up (`FDSTORE` with `FDPOLL=1`).
    StoredFdHungUp { fd: FdId },
    /// The answer to [`Effect::CheckConditions`]: one result per condition, in order.
    ConditionsChecked { query: QueryId, results: Vec<bool> },
    /// The answer to [`Effect::ReadPidFile`]: a live process, its cgroup, or why not.
    PidFileRead { unit: UnitName, result: Result<PidFileFound, String> },
    /// The answer to [`Effect::Remove`]: all is gone, or what could not be removed and why.
    Removed { query: QueryId, result: Result<(), String> },
    /// The answer to [`Effect::WriteFiles`]: all are on the disk, or none.
    FilesWritten { query: QueryId, result: Result<(), WriteError> },
    /// system.conf and its drop-ins were read: (path, text), lowest precedence first.
    ConfigRead { files: Vec<(String, String)> },
    /// PID 1 starts afresh on a machine that runs: the cgroups that hold processes, parents first.
    Recovered { found: Vec<Found> },
    /// The source of unit files was read anew (after [`Effect::ReloadSource`]).
    SourceReloaded,
    /// The kernel's mount table was read: what is not as it was, and what is no longer mounted. With `whole` these are all
    /// mounts there are.
    MountTableRead { mounts: Vec<MountPoint>, gone: Vec<UnitName>, whole: bool },
    /// autofs for an automount was mounted (after `OpenAutomount`): the pipe through which it asks and its device number, or
    /// why it was not.
    AutomountOpened { unit: UnitName, result: Result<(FdId, u32), String> },
    /// autofs was unmounted (after `CloseAutomount`).
    AutomountClosed { unit: UnitName },
    /// The kernel was asked for idleness (after `ExpireAutomount`), and what it asked for in turn is done.
    AutomountLooked { unit: UnitName },
    /// The kernel asks for something of an automount.
    AutomountAsked { unit: UnitName, ask: AutomountAsk },
    /// The autofs of an automount is gone.
    AutomountHungUp { unit: UnitName },
    /// The kernel's list of swaps, whole.
    SwapsRead { swaps: Vec<SwapFound> },
    /// The realtime clock was set.
    ClockSet,
    /// `/etc/localtime` changed.
    ZoneChanged,
    /// A time zone was read (after `ReadZone`); nothing where there is none of that name.
    ZoneRead { name: String, bytes: Option<Vec<u8>> },
    /// When the stamp file of a timer was last touched, realtime in microseconds (after `Stamp`).
    StampRead { unit: UnitName, at_usec: Option<u64> },
    /// A path of a path unit holds or changed.
    PathTriggered { unit: UnitName, path: String },
    /// The paths of a path unit can no longer be watched.
    PathWatchFailed { unit: UnitName, message: String },
    /// The names of all network interfaces, and their numbers.
    InterfacesRead { interfaces: Vec<(String, u32)> },
    /// What udevd announced, in order. With `whole` these are all devices there are.
    DevicesChanged { changes: Vec<DeviceChange>, whole: bool },
    /// Somebody asks for something; the answer is [`Effect::Reply`] with the same id.
    Requested { id: RequestId, origin: Origin, request: Request },
    /// A signal was sent to PID 1; `outside` says by a process that is not of its PID namespace: the container's manager.
    Signalled { signal: i32, origin: Origin, outside: bool },
    /// A bus name changed hands (`BusName=`): empty owner for none.
    BusNameChanged { name: String, owner: String },
}

/// A device that udevd tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFound {
    /// Its directory in sysfs.
    pub syspath: String,
    /// Its node, links to it and aliases, as paths.
    pub paths: Vec<String>,
    /// Whether it is ready for use (`SYSTEMD_READY=`).
    pub ready: bool,
    /// Units to start when it is there (`SYSTEMD_WANTS=`).
    pub wants: Vec<String>,
    /// What a person would call it.
    pub model: Option<String>,
}

/// What became of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceChange {
    /// It is there, and this is how it is now.
    Present(DeviceFound),
    /// That of this directory in sysfs is gone.
    Gone(String),
}

impl DeviceChange {
    /// The directory in sysfs of the device.
    pub fn syspath(&self) -> &String {
        match self {
            Self::Present(device) => &device.syspath,
            Self::Gone(path) => path,
        }
    }
}

/// A process that somebody named. The runtime holds it by a pidfd while the event is worked off, so that its number is
/// nobody else's meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The process.
    pub pid: u32,
    /// It exists, and is no zombie.
    pub alive: bool,
    /// Its cgroup below our root.
    pub cgroup: Option<String>,
}

/// A process that was there before this program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its cgroup, below our root.
    pub cgroup: String,
    /// The process.
    pub pid: u32,
    /// It is a child of PID 1.
    pub is_child: bool,
}

/// What a PID file named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFileFound {
    /// The process.
    pub pid: u32,
    /// Its cgroup below our root.
    pub cgroup: Option<String>,
    /// Who vouches for the number: the owner of the file, or `u32::MAX` where others could have put the file there (a link
    /// on the way to it, a directory that belongs to somebody else).
    pub owner_uid: u32,
}

/// Which processes of a unit a kill is for (org.freedesktop.systemd1(5), `KillUnit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its word
pub enum KillWhom {
    Main,
    Control,
    All,
    MainFail,
    ControlFail,
    AllFail,
}

/// Where the machine goes at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its verb
pub enum ShutdownVerb {
    Poweroff,
    Reboot,
    Halt,
    Kexec,
    Exit,
    SoftReboot,
}

/// A typed request; the bus side parsed and authorized it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the variants say what their fields are
pub enum Request {
    /// Queue a job. With `reload_if_possible` a restart of a unit that can reload becomes a reload.
    EnqueueJob { unit: UnitName, kind: JobType, mode: JobMode, reload_if_possible: bool },
    /// Load a unit (and what it names).
    LoadUnit { unit: UnitName },
    /// Load several units.
    LoadUnits { units: Vec<UnitName> },
    /// Make a unit from properties, already turned into unit-file text, and start it.
    StartTransient { units: Vec<TransientUnit>, mode: JobMode },
    /// Change settings of a loaded unit at run time, in order.
    SetProperties {
        unit: UnitName,
        runtime: bool,
        changes: Vec<PropertyChange>,
        marks: crate::marks::MarksChange,
    },
    /// Restart and reload what is marked for it.
    EnqueueMarked,
    /// Send a signal to a unit's processes.
    Kill { unit: UnitName, whom: KillWhom, signal: i32, value: Option<i32> },
    /// Forget the failed state of one unit, or of all.
    ResetFailed { unit: Option<UnitName> },
    /// Cancel one job.
    CancelJob { job: u32 },
    /// Cancel all jobs.
    ClearJobs,
    /// Keep a unit loaded for a client, or stop doing so.
    Reference { unit: UnitName, add: bool },
    /// Read all unit files again.
    Reload,
    /// Replace the program by itself, keeping everything.
    Reexecute,
    /// Leave without stopping units (`Exit`, `Reboot`, … of the Manager interface).
    Shutdown { verb: ShutdownVerb },
    /// Begin a boot anew below a root directory, as `SoftReboot` and `SwitchRoot` of the Manager interface.
    BeginAnew { why: crate::anew::Anew, root: String, init: String },
    /// The exit code of a container.
    SetExitCode { code: u8 },
    /// Take variables out of, then put assignments into the environment of all later processes.
    UpdateEnvironment { unset: Vec<String>, set: Vec<String> },
    /// Console status output: "" for the configured default, or a word of system.conf's `ShowStatus=`.
    SetShowStatus { mode: String },
    /// `LogLevel` by its word.
    SetLogLevel { level: String },
    /// `LogTarget` by its word.
    SetLogTarget { target: String },
    /// `ServiceWatchdogs`.
    SetServiceWatchdogs { on: bool },
    /// A time of the hardware watchdog, in microseconds.
    SetHardwareWatchdog { which: crate::hardware::Which, usec: u64 },
    /// What the kernel does before the hardware watchdog resets the machine.
    SetHardwareGovernor { governor: String },
    /// Freeze or thaw a unit's cgroup.
    Freeze { unit: UnitName, freeze: bool },
    /// Remove the directories a stopped unit owns.
    Clean { unit: UnitName, mask: Vec<String> },
    /// Move processes into a unit's cgroup.
    AttachProcesses { unit: UnitName, subgroup: String, pids: Vec<u32> },
    /// Send a signal to the processes of a cgroup below a unit's.
    KillSubgroup { unit: UnitName, subgroup: String, signal: i32 },
    /// Remove a cgroup below a unit's, as soon as it is empty.
    RemoveSubgroup { unit: UnitName, subgroup: String },
    /// Let go of a scope.
    AbandonScope { unit: UnitName },
    /// `daemon-reload`-like rescan after unit files were changed on disk, without reparsing.
    UnitFilesChanged,
}

/// One property that a client changes, and how a drop-in says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PropertyChange {
    /// The drop-in is called `50-STEM.conf`.
    pub stem: String,
    /// What is assigned, all in one section and to one directive.
    pub settings: Vec<muster_unit::Setting>,
    /// The lines of the drop-in; `None` where they say the whole list as it is after the change.
    pub text: Option<String>,
}

/// A list of resource control as drop-ins say it: a reset, then its items. (The list of ports is said without the reset.)
pub fn whole_list(directive: &str, items: &[String]) -> String {
    let reset = items.is_empty() || !directive.starts_with("SocketBind");
    let mut text = if reset { format!("{directive}=\n") } else { String::new() };
    for item in items {
        text.push_str(&format!("{directive}={item}\n"));
    }
    text
}

/// Why files could not be written, in D-Bus terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteError {
    /// Error name in full.
    pub name: String,
    /// The sentence for people.
    pub message: String,
}

/// A unit given over D-Bus rather than by a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransientUnit {
    /// Its name.
    pub name: UnitName,
    /// (section, directive, value), in order; what a unit file would say.
    pub settings: Vec<(String, String, String)>,
    /// Its file below /run/systemd/transient, for whoever reads it.
    #[serde(default)]
    pub text: String,
    /// Processes to take over (scopes).
    pub pids: Vec<u32>,
    /// Who on the bus is asked to end a scope's processes, by its name there.
    #[serde(default)]
    pub controller: String,
    /// Descriptors given for standard input, output and error, and from 3 on others that the service gets.
    pub stdio: BTreeMap<u32, FdId>,
    /// The names of those from 3 on.
    #[serde(default)]
    pub extra_names: Vec<String>,
    /// Keep it loaded until the caller lets go of it.
    pub reference: bool,
}
