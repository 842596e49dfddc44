//! What the manager knows: one serializable value, exact to the sub-state.
//!
//! Descriptors and processes are ids in here, never objects. Every map is ordered, so that behaviour does not follow
//! the order of a hash. [`State`] going out and coming in *is* reload and re-execution (DESIGN rule 8): new fields get
//! `#[serde(default)]`.

use crate::effect::{FdId, QueryId, ShareId, SpawnId};
use crate::event::{DeviceFound, Exit, Peer, ShutdownVerb};
use crate::lazy::{Lazy, resting};
use muster_graph::{Graph, Queue, UnitId};
use muster_unit::{ExecCommand, Listen, UnitFile, UnitName};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

resting!(Ran, Service, Socket);

pub use crate::accounts::Account;
pub use crate::kind::{Automount, Device, Kind, Mount, Path, Scope, Slice, Swap, Target, Timer};

macro_rules! words {
    ($(#[$meta:meta])* $type:ident { $first:ident = $first_text:literal, $($name:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)] // each variant is its word
        pub enum $type { #[default] $first, $($name,)* }
        impl $type {
            /// The word shown on D-Bus.
            pub fn as_str(self) -> &'static str {
                match self { $type::$first => $first_text, $($type::$name => $text,)* }
            }
        }
    };
}
pub(crate) use words;

words! {
    /// The state every unit type shares (systemd(1), UNITS).
    ActiveState {
        Inactive = "inactive", Active = "active", Reloading = "reloading", Failed = "failed",
        Activating = "activating", Deactivating = "deactivating", Maintenance = "maintenance",
    }
}
words! {
    /// `SubState` of a service.
    ServiceSub {
        Dead = "dead", Condition = "condition", StartPre = "start-pre", Start = "start", StartPost = "start-post",
        Running = "running", Exited = "exited", Reload = "reload", ReloadSignal = "reload-signal",
        ReloadNotify = "reload-notify", ReloadPost = "reload-post", Stop = "stop", StopWatchdog = "stop-watchdog", StopSigterm = "stop-sigterm",
        StopSigkill = "stop-sigkill", StopPost = "stop-post", FinalWatchdog = "final-watchdog",
        FinalSigterm = "final-sigterm", FinalSigkill = "final-sigkill", Failed = "failed",
        DeadBeforeAutoRestart = "dead-before-auto-restart", FailedBeforeAutoRestart = "failed-before-auto-restart",
        AutoRestart = "auto-restart", AutoRestartQueued = "auto-restart-queued",
    }
}
words! {
    /// `SubState` of a socket.
    SocketSub {
        Dead = "dead", StartPre = "start-pre", StartChown = "start-chown", StartPost = "start-post",
        Listening = "listening", Deferred = "deferred", Running = "running", StopPre = "stop-pre", StopPreSigterm = "stop-pre-sigterm",
        StopPreSigkill = "stop-pre-sigkill", StopPost = "stop-post", FinalSigterm = "final-sigterm",
        FinalSigkill = "final-sigkill", Failed = "failed",
    }
}
words! {
    /// `Result` of a service or socket.
    UnitResult {
        Success = "success", Resources = "resources", Protocol = "protocol", Timeout = "timeout",
        ExitCode = "exit-code", Signal = "signal", CoreDump = "core-dump", Watchdog = "watchdog",
        StartLimitHit = "start-limit-hit", OomKill = "oom-kill", ExecCondition = "exec-condition",
        TriggerLimitHit = "trigger-limit-hit", ServiceStartLimitHit = "service-start-limit-hit",
        UnitStartLimitHit = "unit-start-limit-hit", Unmounted = "unmounted",
    }
}
words! {
    /// `SystemState` of the manager.
    SystemState {
        Initializing = "initializing", Starting = "starting", Running = "running", Degraded = "degraded",
        Maintenance = "maintenance", Stopping = "stopping",
    }
}

/// A moment on two clocks, microseconds; zero for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// `CLOCK_REALTIME`.
    pub realtime_usec: u64,
    /// `CLOCK_MONOTONIC`.
    pub monotonic_usec: u64,
}

/// When a manager began, and what it did first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BootStamps {
    /// It began.
    pub userspace: Stamp,
    /// Generators started.
    pub generators_start: Stamp,
    /// Generators finished.
    pub generators_finish: Stamp,
    /// Unit loading began.
    pub units_load_start: Stamp,
    /// Unit loading finished.
    pub units_load_finish: Stamp,
}

/// How often something happened lately: a window and the moments within it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateWindow {
    /// Start of the current window, monotonic microseconds.
    pub begin_usec: u64,
    /// Events within it.
    pub count: u32,
}

/// One unit, loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Its number.
    pub id: UnitId,
    /// Its primary name.
    pub name: UnitName,
    /// The parsed file.
    pub file: Rc<UnitFile>,
    /// State of its kind.
    pub kind: Kind,
    /// A pending check of conditions.
    pub pending_conditions: Option<QueryId>,
    /// Made over D-Bus.
    pub transient: bool,
    /// Exists for good (root slice, init.scope).
    pub perpetual: bool,
    /// Clients that hold a reference.
    pub references: u32,
    /// What its runs left behind.
    #[serde(default)]
    pub ran: Lazy<Ran>,
}

/// What the runs of a unit left behind: nothing, and no room for it, for one that never ran. Read and written as if these
/// were fields of [`Unit`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ran {
    /// Path below our cgroup root, when one exists.
    pub cgroup: Option<String>,
    /// 32 hex digits, of the current or last run; empty before the first.
    pub invocation_id: String,
    /// When `Condition*=` were last checked.
    pub condition_stamp: Stamp,
    /// Their result.
    pub condition_result: bool,
    /// Per-condition results, in order: 0 untested, 1 true, -1 false.
    pub condition_each: Vec<i32>,
    /// When `Assert*=` were last checked, and how.
    pub assert_stamp: Stamp,
    /// Their result.
    pub assert_result: bool,
    /// User and group of its last process that had some of its own.
    pub runs_as: Option<(u32, u32)>,
    /// Last change of state of any kind.
    pub state_change: Stamp,
    /// Last time it left inactive.
    pub inactive_exit: Stamp,
    /// Last time it became active.
    pub active_enter: Stamp,
    /// Last time it ceased to be active.
    pub active_exit: Stamp,
    /// Last time it became inactive.
    pub inactive_enter: Stamp,
    /// Starts counted for `StartLimitBurst=`.
    pub start_limit: RateWindow,
    /// Start jobs that failed without a run lately, and had `OnFailure=` follow.
    pub unrun_failures: RateWindow,
    /// Unit that this one was activated by, and other facts for `TRIGGER_*`/`MONITOR_*`.
    pub activation_details: Vec<(String, String)>,
    /// Frozen, or being frozen: `running`, `frozen`, `freezing`, `thawing`.
    pub freezer: Freezer,
    /// What it is marked for.
    pub marks: crate::marks::Marks,
    /// What the last run used, when it is over.
    pub usage: Usage,
    /// The kernel killed a process of this run for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// What its processes share.
    pub share: Option<ShareId>,
    /// The copy of its root that this run has (`RootEphemeral=`).
    pub ephemeral: Option<String>,
    /// The names that its processes run as, user first.
    pub accounts: Vec<String>,
    /// What a helper is removing for it.
    pub removal: Option<Box<crate::directories::Removal>>,
    /// Result of the last `systemctl clean`.
    pub clean_result: UnitResult,
    /// The last causes of its state changes, newest last (DESIGN rule 10).
    pub causes: VecDeque<Cause>,
}

impl std::ops::Deref for Unit {
    type Target = Ran;
    fn deref(&self) -> &Ran {
        &self.ran
    }
}

impl std::ops::DerefMut for Unit {
    fn deref_mut(&mut self) -> &mut Ran {
        &mut self.ran
    }
}

/// What a run used in all, as its cgroup counted; nothing where a controller was missing. Bytes, nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the names of the properties
pub struct Usage {
    pub cpu_nsec: Option<u64>,
    pub memory_peak: Option<u64>,
    pub memory_swap_peak: Option<u64>,
    pub io_read_bytes: Option<u64>,
    pub io_read_operations: Option<u64>,
    pub io_write_bytes: Option<u64>,
    pub io_write_operations: Option<u64>,
    pub ip_ingress_bytes: Option<u64>,
    pub ip_ingress_packets: Option<u64>,
    pub ip_egress_bytes: Option<u64>,
    pub ip_egress_packets: Option<u64>,
}
words! {
    /// `FreezerState`.
    Freezer { Running = "running", Freezing = "freezing", Frozen = "frozen", Thawing = "thawing", }
}

/// Why something happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// When, on the monotonic clock in microseconds.
    pub at_usec: u64,
    /// What and why, for people.
    pub text: String,
}

/// Which list of commands a unit is working through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)] // the names of the directives
pub enum CommandList {
    ExecCondition,
    ExecStartPre,
    ExecStart,
    ExecStartPost,
    ExecReload,
    ExecReloadPost,
    /// What `RefreshOnReload=` asks for, before the rest of a reload; no list of a unit file.
    Refresh,
    ExecStop,
    ExecStopPost,
    ExecStopPre,
    ExecMount,
    ExecUnmount,
    ExecRemount,
    ExecActivate,
    ExecDeactivate,
}

/// One process of a unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// The spawn it came from; `None` when it told us about itself (MAINPID, PID file, attached).
    pub spawn: Option<SpawnId>,
    /// Its number, once known.
    pub pid: Option<u32>,
    /// The command it runs.
    pub command: Option<ExecCommand>,
    /// The list and the index in it.
    pub place: Option<(CommandList, u32)>,
    /// Seen to be not our child.
    pub alien: bool,
}

/// How one command of a list went, for `ExecStart` and kin on D-Bus, and `ExecMain*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecStatus {
    /// When it began.
    pub start: Stamp,
    /// When it ended.
    pub exit: Stamp,
    /// Its process.
    pub pid: u32,
    /// How it ended.
    pub how: Option<Exit>,
}

impl ExecStatus {
    /// `si_code` and `si_status` as D-Bus shows them: 1 exited, 2 killed, 3 dumped.
    pub fn code_and_status(&self) -> (i32, i32) {
        match self.how {
            None | Some(Exit::NotMade) => (0, 0),
            Some(Exit::Exited(code)) => (1, code),
            Some(Exit::Killed(signal)) => (2, signal),
            Some(Exit::Dumped(signal)) => (3, signal),
        }
    }
}

/// A descriptor kept for a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredFd {
    /// The descriptor.
    pub fd: FdId,
    /// Its name.
    pub name: String,
    /// Forget it when it hangs up.
    pub poll: bool,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Where it is in its life.
    pub sub: ServiceSub,
    /// Result of the last run.
    pub result: UnitResult,
    /// Result of the last reload.
    pub reload_result: UnitResult,
    /// The main process.
    pub main: Option<Process>,
    /// The control process.
    pub control: Option<Process>,
    /// Facts of the last main process.
    pub main_status: ExecStatus,
    /// Facts of each command that ran, by list and index.
    pub command_status: BTreeMap<CommandList, BTreeMap<u32, ExecStatus>>,
    /// `STATUS=`.
    pub status_text: String,
    /// `ERRNO=`.
    pub status_errno: i32,
    /// `BUSERROR=`.
    pub status_bus_error: String,
    /// When the current phase times out; `None` for never.
    pub deadline_usec: Option<u64>,
    /// `READY=1` was heard in this run.
    pub ready: bool,
    /// `RELOADING=1` with this `MONOTONIC_USEC` at least is expected (notify-reload).
    pub reload_begin_usec: u64,
    /// `RELOADING=1` was heard.
    pub reloading_heard: bool,
    /// `STOPPING=1` was heard.
    pub stopping_heard: bool,
    /// When `RuntimeMaxSec=` is over, for a run that is up (monotonic, µs): a reload of the service does not move it.
    pub run_ends_usec: Option<u64>,
    /// `WATCHDOG_USEC=` from the service, if any.
    pub watchdog_override_usec: Option<u64>,
    /// Last `WATCHDOG=1`.
    pub watchdog: Stamp,
    /// `NOTIFYACCESS=` from the service, if any.
    pub notify_access_override: Option<muster_unit::NotifyAccess>,
    /// What a client gave for standard input, output and error, by number.
    pub stdio: Vec<(u32, FdId)>,
    /// What a client gave besides (`ExtraFileDescriptors`), with names.
    pub extra_fds: Vec<(FdId, String)>,
    /// Kept descriptors.
    pub fd_store: Vec<StoredFd>,
    /// The connection of an `Accept=yes` instance.
    pub connection: Option<FdId>,
    /// Its peer.
    pub peer: Option<Peer>,
    /// The socket unit that it came from.
    pub accepted_from: Option<UnitId>,
    /// Restarts so far.
    pub restarts: u32,
    /// A stop was asked for by a job: no restart.
    pub forbid_restart: bool,
    /// Whether runtime directories exist that must go.
    pub directories_made: bool,
    /// Spawn whose `ExecSucceeded` we wait for (`Type=exec`).
    pub waiting_exec: Option<SpawnId>,
    /// Wait of `Type=idle` or of an automatic restart: same as `deadline_usec`, other meaning by sub-state.
    pub started_main_usec: u64,
    /// The start waits for the answer to a search for the main process.
    pub reading_pid_file: bool,
    /// A main process that ended, while the PID file is read for its heir.
    #[serde(default)]
    pub ended_main: Option<Box<(Process, Exit)>>,
}

/// One descriptor of a socket unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// The descriptor.
    pub fd: FdId,
    /// The address it was opened for.
    pub listen: Listen,
    /// Whether connections are accepted on it.
    pub connection_based: bool,
    /// Whether it is only passed along with another, and never watched.
    #[serde(default)]
    pub companion: bool,
}

/// A socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Socket {
    /// Where it is in its life.
    pub sub: SocketSub,
    /// Result of the last run.
    pub result: UnitResult,
    /// Open descriptors in listen order.
    pub ports: Vec<Port>,
    /// Descriptors of the last run that the next one takes over where its addresses are the same: from the first half of a
    /// restart until the second has opened the others.
    #[serde(default)]
    pub kept: Vec<Port>,
    /// Whether the runtime watches them.
    pub watched: bool,
    /// The control process.
    pub control: Option<Process>,
    /// Facts of each command that ran.
    pub command_status: BTreeMap<CommandList, BTreeMap<u32, ExecStatus>>,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections refused so far.
    pub refused: u64,
    /// Live instances.
    pub connections: u32,
    /// Instances that failed so far.
    #[serde(default)]
    pub failures: u64,
    /// The last of them, which stay loaded to be looked at; oldest first.
    #[serde(default)]
    pub failed: VecDeque<UnitId>,
    /// Live instances by source.
    pub by_source: BTreeMap<String, u32>,
    /// Activations for `TriggerLimitBurst=`.
    pub trigger_limit: RateWindow,
    /// Wake-ups for `PollLimitBurst=`, by descriptor.
    pub poll_limits: BTreeMap<FdId, RateWindow>,
    /// Descriptors that rest, and until when.
    pub resting: BTreeMap<FdId, u64>,
    /// The first of those moments.
    pub paused_until_usec: Option<u64>,
    /// When the current phase times out.
    pub deadline_usec: Option<u64>,
    /// Times the trigger limit, or a shortage of descriptors or memory, paused it.
    pub pauses: u64,
    /// The last attempt to accept found such a shortage.
    pub short: bool,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Loaded units by number.
    pub units: crate::units::Units,
    /// Every name and alias.
    pub names: crate::names::Names,
    /// Dependencies.
    pub graph: Graph,
    /// Jobs.
    #[serde(rename = "queue")]
    pub jobs: Queue,
    /// How many of them may still be looked at in this turn: a hand-over in the middle of one does not begin another.
    pub jobs_left: usize,
    /// Next unit number.
    pub next_unit: u32,
    /// Next spawn number.
    pub next_spawn: u64,
    /// Next query number.
    pub next_query: u64,
    /// Units by process; what an exit is looked up in.
    pub processes: BTreeMap<u32, UnitId>,
    /// Units by spawn that has no number yet, or whose exec is awaited.
    pub spawns: BTreeMap<SpawnId, UnitId>,
    /// Units by unanswered question.
    pub queries: BTreeMap<QueryId, UnitId>,
    /// Units by cgroup path.
    pub cgroups: BTreeMap<String, UnitId>,
    /// Socket units by descriptor.
    pub ports: BTreeMap<FdId, UnitId>,
    /// Socket units whose trigger was put off.
    #[serde(default)]
    pub deferred: BTreeSet<UnitId>,
    /// Units that changed and are not announced yet.
    pub changed: BTreeSet<UnitId>,
    /// Units announced to clients (`UnitNew`).
    pub announced: BTreeSet<UnitId>,
    /// Services of `Type=idle` that may be waiting.
    pub idle: BTreeSet<UnitId>,
    /// Cgroups that a stopped service left processes in that it may not kill (`SendSIGKILL=no`): it does not start again
    /// beside them.
    #[serde(default)]
    pub leftovers: BTreeMap<String, UnitId>,
    /// What the processes of a run, and of units joined with it, share.
    #[serde(default)]
    pub shares: BTreeMap<ShareId, crate::shared::Share>,
    /// The number of the next of them.
    #[serde(default)]
    pub next_share: u64,
    /// Users and groups that runs of units have, by name.
    #[serde(default)]
    pub accounts: BTreeMap<String, Account>,
    /// Units whose runs have a group, by its number.
    pub groups: BTreeMap<u32, BTreeSet<UnitId>>,
    /// Units whose cgroup may hold processes.
    pub populated: BTreeSet<UnitId>,
    /// Processes that a scope takes over when it starts.
    pub scope_pids: BTreeMap<UnitId, Vec<u32>>,
    /// Scopes by who is asked to end their processes.
    #[serde(default)]
    pub controllers: BTreeMap<String, BTreeSet<UnitId>>,
    /// Transient units: their settings by name.
    #[serde(default)]
    pub transient_settings: BTreeMap<UnitName, Vec<muster_unit::Setting>>,
    /// What waits for its files to be on the disk.
    #[serde(default)]
    pub writes: BTreeMap<QueryId, crate::written::Waiting>,
    /// Units whose wishes (`Upholds=` and its kin) are looked at again.
    #[serde(default)]
    pub wish_queue: BTreeSet<UnitId>,
    /// Wishes that were granted lately, by unit.
    #[serde(default)]
    pub wishes: BTreeMap<UnitId, crate::wishes::Wishes>,
    /// Timers that are up and follow the realtime clock.
    #[serde(default)]
    pub clock_followers: BTreeSet<UnitId>,
    /// Time zones that timers use, by name; the local one has none.
    #[serde(default)]
    pub zones: BTreeMap<String, crate::timer::Zone>,
    /// Units that may be unloaded.
    pub gc_queue: BTreeSet<UnitId>,
    /// Devices whose start jobs run: what is waited for.
    #[serde(default)]
    pub device_jobs: BTreeSet<UnitId>,
    /// Environment of later processes (`systemctl set-environment`).
    pub client_environment: BTreeMap<String, String>,
    /// `SetExitCode`.
    pub exit_code: u8,
    /// An essential service has ended, and said how the container ends.
    pub essential_ended: bool,
    /// Set once shutdown is on its way.
    pub shutdown: Option<ShutdownVerb>,
    /// Console status wanted.
    pub show_status: bool,
    /// Log level by number.
    pub log_level: u8,
    /// Where the log goes, by the word of `LogTarget=`; empty for the journal.
    #[serde(default)]
    pub log_target: String,
    /// Services are not ended by their watchdogs (`ServiceWatchdogs` is off).
    #[serde(default)]
    pub no_service_watchdogs: bool,
    /// The hardware watchdog.
    #[serde(default)]
    pub hardware: crate::hardware::Known,
    /// When ctrl-alt-del was pressed lately.
    #[serde(default)]
    pub ctrl_alt_del: RateWindow,
    /// When the console says what is waited for.
    #[serde(default)]
    pub slow: crate::slow::Slow,
    /// Configuration was read once at least.
    #[serde(default)]
    pub configured: bool,
    /// What was wrong with the configuration as it was last read.
    #[serde(default)]
    pub said_of_config: Vec<String>,
    /// When this boot came how far.
    #[serde(default)]
    pub boot: BootStamps,
    /// The same of the initrd, if its manager handed over.
    #[serde(default)]
    pub initrd: BootStamps,
    /// How often it was booted anew since the kernel booted.
    #[serde(default)]
    pub soft_reboots: u32,
    /// When the first transaction was done.
    pub finished: Stamp,
    /// Installed jobs and failed ones so far.
    pub n_installed_jobs: u32,
    /// Jobs that failed.
    pub n_failed_jobs: u32,
    /// A reload is under way for this request.
    pub reloading: Vec<crate::effect::RequestId>,
    /// Seed state for invocation ids.
    pub seed: u64,
    /// Whether the basic.target was reached.
    pub basic_reached: bool,
    /// Start jobs that rest until there is room below a slice (`ConcurrencySoftMax=`): their units, by the slice.
    #[serde(default)]
    pub paced: BTreeMap<UnitId, BTreeSet<UnitId>>,
    /// Which service has a name on the bus (`BusName=`), and which are refused because another has theirs.
    #[serde(default)]
    pub bus_names: BTreeMap<String, UnitId>,
    #[serde(default)]
    #[allow(missing_docs)] // see above
    pub bus_names_refused: BTreeSet<UnitId>,
    /// Facts fixed at start (host, container, default target, …).
    pub facts: Facts,
    /// Devices that udevd tells of, by their directory in sysfs.
    #[serde(default)]
    pub devices: BTreeMap<String, DeviceFound>,
    /// Who of them claims the name of a device unit.
    #[serde(default)]
    pub device_claims: BTreeMap<UnitName, BTreeSet<String>>,
    /// The mounts and swaps that are on the device of a unit.
    #[serde(default)]
    pub device_users: BTreeMap<UnitName, BTreeSet<UnitName>>,
    /// Mounts whose command ended, and which wait for the mount table.
    #[serde(default)]
    pub mounts_waiting: BTreeSet<UnitId>,
    /// The units of the network interfaces that the kernel lists, and the numbers of these.
    #[serde(default)]
    pub interface_numbers: BTreeMap<UnitName, u32>,
}

/// What the manager is told once, at start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Facts for specifiers.
    pub specifiers: muster_unit::SpecifierContext,
    /// Path of our cgroup root as the kernel names it ("" when it is the root).
    pub cgroup_root: String,
    /// Virtualization or container word, empty for none.
    pub virtualization: String,
    /// Whether the list of network interfaces is followed, so that units may wait for one. Not in a container, whose
    /// interfaces are its maker's.
    pub follows_interfaces: bool,
    /// Whether the kernel has autofs, by `/dev/autofs`.
    #[serde(default)]
    pub has_autofs: bool,
    /// Environment every process gets.
    pub base_environment: Vec<String>,
    /// `DefaultTimeoutStartSec=` and kin, microseconds.
    pub default_timeout_start_usec: u64,
    /// `DefaultTimeoutStopSec=`.
    pub default_timeout_stop_usec: u64,
    /// `DefaultRestartSec=`.
    pub default_restart_usec: u64,
    /// `DefaultStartLimitIntervalSec=`.
    pub default_start_limit_interval_usec: u64,
    /// `DefaultStartLimitBurst=`.
    pub default_start_limit_burst: u32,
    /// Unit to start at boot (`systemd.unit=`, `default.target`).
    pub boot_target: String,
    /// Names masked by `systemd.mask=`.
    pub masked: Vec<String>,
    /// Names wanted by `systemd.wants=`.
    pub wanted: Vec<String>,
    /// Memory of the machine, in bytes.
    #[serde(default)]
    pub memory_total: u64,
    /// Whether the kernel tells of memory pressure, in files of /sys/fs/cgroup (Linux, Documentation/accounting/psi).
    #[serde(default)]
    pub memory_pressure: bool,
    /// How many processes and threads it can have.
    #[serde(default)]
    pub tasks_total: u64,
    /// `DefaultTasksMax=`.
    #[serde(default)]
    pub default_tasks_max: u64,
    /// What system.conf says.
    #[serde(default)]
    pub config: crate::config::Config,
    /// Environment of the manager's own making: `PATH=`, the locale, `systemd.setenv=`.
    #[serde(default)]
    pub own_environment: Vec<String>,
    /// `systemd.show_status=`, `quiet`.
    #[serde(default)]
    pub show_status: Option<bool>,
    /// `systemd.log_level=`, `debug`.
    #[serde(default)]
    pub log_level: Option<String>,
    /// What the kernel's command line says of the manager, as a file of system.conf that comes last.
    #[serde(default)]
    pub command_line: String,
    /// `systemd.service_watchdogs=no`.
    #[serde(default)]
    pub no_service_watchdogs: bool,
    /// `muster.strict=1`.
    pub strict: bool,
    /// Version text shown on D-Bus.
    pub version: String,
    /// What is unusual about the machine, as `Tainted` says it.
    pub tainted: String,
    /// Architecture word.
    pub architecture: String,
    /// Hostname for messages.
    pub hostname: String,
}

impl Default for Facts {
    fn default() -> Self {
        Facts {
            specifiers: Default::default(),
            cgroup_root: String::new(),
            virtualization: String::new(),
            follows_interfaces: false,
            has_autofs: false,
            base_environment: Vec::new(),
            default_timeout_start_usec: 90_000_000,
            default_timeout_stop_usec: 90_000_000,
            default_restart_usec: 100_000,
            default_start_limit_interval_usec: 10_000_000,
            default_start_limit_burst: 5,
            boot_target: "default.target".to_owned(),
            masked: Vec::new(),
            wanted: Vec::new(),
            memory_total: u64::MAX,
            memory_pressure: false,
            tasks_total: u64::MAX,
            default_tasks_max: u64::MAX,
            config: Default::default(),
            own_environment: Vec::new(),
            show_status: None,
            log_level: None,
            command_line: String::new(),
            no_service_watchdogs: false,
            strict: false,
            version: String::new(),
            tainted: String::new(),
            architecture: String::new(),
            hostname: String::new(),
        }
    }
}

impl Service {
    /// Lets go of what a client gave.
    pub(crate) fn take_given(&mut self) -> Vec<FdId> {
        let stdio = self.stdio.drain(..).map(|(_, fd)| fd);
        stdio.chain(self.extra_fds.drain(..).map(|(fd, _)| fd)).collect()
    }
}

impl Unit {
    /// `Description=`, or the name; the service of a connection says who is at the far end.
    pub fn description(&self) -> Cow<'_, str> {
        let own = self.file.unit.description().as_deref().filter(|text| !text.is_empty());
        let peer = Service::of(&self.kind).and_then(|service| service.peer.as_ref());
        let peer = peer.map(|peer| peer.description.as_str());
        match (own, peer.filter(|peer| !peer.is_empty())) {
            (Some(own), Some(peer)) => Cow::Owned(format!("{own} ({peer})")),
            (own, peer) => Cow::Borrowed(own.or(peer).unwrap_or(self.name.as_str())),
        }
    }

    /// `SubState` on D-Bus.
    pub fn sub_state(&self) -> &'static str {
        if self.is_cleaned() { "cleaning" } else { self.kind.state().sub_state(self) }
    }

    /// The state all unit types share.
    pub fn active_state(&self) -> ActiveState {
        if self.is_cleaned() { ActiveState::Maintenance } else { self.kind.state().active_state(self) }
    }

    /// Whether what it owns is being removed because somebody asked for it.
    pub fn is_cleaned(&self) -> bool {
        self.removal.as_ref().is_some_and(|removal| removal.cleans)
    }
}
