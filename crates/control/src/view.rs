//! What a property sees: one unit, job or the manager, borrowed for the length of one call.
//!
//! Nothing here changes anything. A unit that was not found has no sections; it shows the defaults of its type, so
//! that a client's GetAll always answers.

use muster_graph::job::Job;
use muster_graph::{Dependency, UnitId};
use muster_manager::Manager;
use muster_manager::state::{Mount, Scope, Service, Socket, Swap, Timer, Unit};
use muster_unit::{
    AutomountSection, Body, CGroupSection, ExecSection, KillSection, MountSection, PathSection, ScopeSection,
    ServiceSection, SliceSection, SocketSection, SwapSection, TimerSection, UnitFile, UnitKind, UnitName,
};
use std::cell::OnceCell;

/// What only the kernel or the disk knows, read at the time of the call. Answered by the runtime.
pub trait Live {
    /// A number that the kernel keeps for a cgroup (path below our root); `None` when it keeps none.
    fn cgroup_number(&self, path: &str, what: LiveValue) -> Option<u64>;
    /// What a file of a cgroup lists (`cpuset.cpus.effective`).
    fn cgroup_set(&self, path: &str, file: &str) -> Option<muster_unit::NumberSet> {
        let _ = (path, file);
        None
    }
    /// The processes below a cgroup: cgroup, number, command line.
    fn processes(&self, path: &str) -> Vec<(String, u32, String)>;
    /// The cgroup of a process, below our root.
    fn pid_cgroup(&self, pid: u32) -> Option<String>;
    /// `UnitFileState`: `enabled`, `static`, …; empty when there is no file.
    fn unit_file_state(&self, name: &str) -> String;
    /// `UnitFilePreset`: `enabled`, `disabled`, or empty.
    fn unit_file_preset(&self, name: &str) -> String {
        let _ = name;
        String::new()
    }
    /// Whether the files of a unit have changed since they were read.
    fn has_changed(&self, file: &UnitFile) -> bool {
        let _ = file;
        false
    }
    /// The directories that units are loaded from, in order.
    fn unit_path(&self) -> Vec<String> {
        Vec::new()
    }
    /// A resource limit of PID 1 itself, by its directive's name (`LimitNOFILE`), which is what services inherit.
    fn resource_limit(&self, name: &str, soft: bool) -> Option<u64> {
        let _ = (name, soft);
        None
    }
    /// The memory nodes that the machine can have.
    fn nodes(&self) -> muster_unit::NumberSet {
        muster_unit::NumberSet::default()
    }
    /// The processors of a memory node; `None` when it is not there.
    fn node_processors(&self, node: usize) -> Option<muster_unit::NumberSet> {
        let _ = node;
        None
    }
    /// `/etc/machine-id`, 32 hex digits.
    fn machine_id(&self) -> Option<String> {
        None
    }
    /// The process that a pidfd is for.
    fn pid_of_pidfd(&self, fd: std::os::fd::BorrowedFd<'_>) -> Option<u32> {
        let _ = fd;
        None
    }
    /// A text as a file, to be read from its beginning.
    fn file_of(&self, text: &str) -> Option<std::os::fd::OwnedFd> {
        let _ = text;
        None
    }
    /// What a descriptor of ours is.
    fn describe(&self, fd: muster_manager::effect::FdId) -> Option<crate::descriptors::FdFacts> {
        let _ = fd;
        None
    }
    /// Whether a directory is the root of an operating system (os-release(5)).
    fn is_system(&self, root: &str) -> bool {
        let _ = root;
        false
    }
    /// Whether something lies at a path.
    fn is_there(&self, path: &str) -> bool {
        let _ = path;
        false
    }
    /// The options of a socket unit's descriptor that are not at zero, as the kernel has them: directive and value.
    fn socket_options(&self, fd: muster_manager::effect::FdId) -> Vec<(String, String)> {
        let _ = fd;
        Vec::new()
    }
    /// What waits on a socket unit's listening descriptor: connections, or bytes.
    fn queue_length(&self, fd: muster_manager::effect::FdId) -> Option<u64> {
        let _ = fd;
        None
    }
}

/// A number that the kernel keeps for a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the D-Bus properties
pub enum LiveValue {
    ControlGroupId,
    MemoryCurrent,
    MemoryPeak,
    MemorySwapCurrent,
    MemorySwapPeak,
    MemoryZSwapCurrent,
    MemoryAvailable,
    CPUUsageNSec,
    TasksCurrent,
    IOReadBytes,
    IOReadOperations,
    IOWriteBytes,
    IOWriteOperations,
    IPIngressBytes,
    IPIngressPackets,
    IPEgressBytes,
    IPEgressPackets,
}

/// The manager's object.
#[derive(Clone, Copy)]
pub struct ManagerView<'a> {
    /// The manager.
    pub manager: &'a Manager,
    /// The live facts that the runtime supplies.
    pub live: &'a dyn Live,
}

/// A job's object.
#[derive(Clone, Copy)]
pub struct JobView<'a> {
    /// The manager.
    pub manager: &'a Manager,
    /// The job.
    pub job: &'a Job,
}

impl JobView<'_> {
    /// The name of the unit it works on.
    pub fn unit_name(&self) -> String {
        self.manager.unit_by_id(self.job.unit).map_or_else(String::new, |unit| unit.name.to_string())
    }
}

macro_rules! defaults {
    ($($name:ident: $type:ty,)*) => {
        /// Sections of a unit that has none, made when first looked at.
        #[derive(Default)]
        struct Defaults { $($name: OnceCell<$type>,)* }
    };
}
defaults! {
    exec: ExecSection, kill: KillSection, cgroup: CGroupSection, service: ServiceSection, socket: SocketSection,
    slice: SliceSection, timer: TimerSection, path: PathSection, mount: MountSection, automount: AutomountSection,
    swap: SwapSection, scope: ScopeSection, service_state: Service, socket_state: Socket, scope_state: Scope, mount_state: Mount,
    swap_state: Swap, timer_state: Timer,
}

/// A unit's object.
pub struct UnitView<'a> {
    /// The manager.
    pub manager: &'a Manager,
    /// The world.
    pub live: &'a dyn Live,
    /// The unit.
    pub unit: &'a Unit,
    defaults: Defaults,
}

macro_rules! sections {
    ($($(#[$meta:meta])* $name:ident: $type:ty = $body:ident;)*) => {$(
        $(#[$meta])*
        pub fn $name(&self) -> &$type {
            match &self.unit.file.body {
                Body::$body(section) => section,
                _ => self.defaults.$name.get_or_init(Default::default),
            }
        }
    )*};
}

macro_rules! states {
    ($($(#[$meta:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$meta])*
        pub fn $name(&self) -> &$type {
            <$type>::of(&self.unit.kind).unwrap_or_else(|| self.defaults.$name.get_or_init(Default::default))
        }
    )*};
}

impl<'a> UnitView<'a> {
    /// A view of one unit.
    pub fn new(manager: &'a Manager, live: &'a dyn Live, unit: &'a Unit) -> Self {
        UnitView { manager, live, unit, defaults: Defaults::default() }
    }

    sections! {
        /// `[Service]`.
        service: ServiceSection = Service;
        /// `[Socket]`.
        socket: SocketSection = Socket;
        /// `[Slice]`.
        slice: SliceSection = Slice;
        /// `[Timer]`.
        timer: TimerSection = Timer;
        /// `[Path]`.
        path: PathSection = Path;
        /// `[Mount]`.
        mount: MountSection = Mount;
        /// `[Automount]`.
        automount: AutomountSection = Automount;
        /// `[Swap]`.
        swap: SwapSection = Swap;
        /// `[Scope]`.
        scope: ScopeSection = Scope;
    }

    /// The execution context.
    pub fn exec(&self) -> &ExecSection {
        self.unit.file.exec.as_deref().unwrap_or_else(|| self.defaults.exec.get_or_init(Default::default))
    }

    /// How processes are killed.
    pub fn kill(&self) -> &KillSection {
        self.unit.file.kill.as_deref().unwrap_or_else(|| self.defaults.kill.get_or_init(Default::default))
    }

    /// The cgroup's settings.
    pub fn cgroup(&self) -> &CGroupSection {
        self.unit.file.cgroup.as_deref().unwrap_or_else(|| self.defaults.cgroup.get_or_init(Default::default))
    }

    states! {
        /// The state of a service.
        service_state: Service;
        /// The state of a socket.
        socket_state: Socket;
        /// The state of a scope.
        scope_state: Scope;
        /// The state of a mount.
        mount_state: Mount;
        /// The state of a swap.
        swap_state: Swap;
        /// The state of a timer.
        timer_state: Timer;
    }

    /// The units that this one has a kind of dependency on.
    pub fn related(&self, kind: Dependency) -> Vec<&'a UnitName> {
        let name = |id: UnitId| self.manager.unit_by_id(id).map(|unit| &unit.name);
        self.manager.state().graph.of(self.unit.id, kind).filter_map(name).collect()
    }

    /// The view of the slice it is in.
    pub fn parent_slice(&self) -> Option<UnitView<'a>> {
        let slice = self.manager.state().graph.of(self.unit.id, Dependency::InSlice).next()?;
        Some(UnitView::new(self.manager, self.live, self.manager.unit_by_id(slice)?))
    }

    /// The slice it is in; empty when it is in none.
    pub fn slice_name(&self) -> String {
        self.related(Dependency::InSlice).first().map_or_else(String::new, ToString::to_string)
    }

    /// What the kernel keeps for its cgroup.
    pub fn live_number(&self, what: LiveValue) -> Option<u64> {
        let usage = &self.unit.usage;
        match (self.unit.cgroup.as_deref(), what) {
            (Some(path), LiveValue::CPUUsageNSec) => {
                let silent = self.unit.name.kind() == UnitKind::Socket;
                self.live.cgroup_number(path, what).filter(|spent| *spent > 0 || !silent)
            }
            (Some(path), _) => self.live.cgroup_number(path, what),
            (None, LiveValue::CPUUsageNSec) => usage.cpu_nsec,
            (None, LiveValue::MemoryPeak) => usage.memory_peak,
            (None, LiveValue::MemorySwapPeak) => usage.memory_swap_peak,
            (None, LiveValue::IOReadBytes) => usage.io_read_bytes,
            (None, LiveValue::IOReadOperations) => usage.io_read_operations,
            (None, LiveValue::IOWriteBytes) => usage.io_write_bytes,
            (None, LiveValue::IOWriteOperations) => usage.io_write_operations,
            (None, LiveValue::IPIngressBytes) => usage.ip_ingress_bytes,
            (None, LiveValue::IPIngressPackets) => usage.ip_ingress_packets,
            (None, LiveValue::IPEgressBytes) => usage.ip_egress_bytes,
            (None, LiveValue::IPEgressPackets) => usage.ip_egress_packets,
            (None, _) => None,
        }
    }

    /// What a file of its cgroup lists, as bytes of a set; empty where there is none.
    pub fn live_set(&self, file: &str) -> Vec<u8> {
        let path = self.unit.cgroup.as_deref();
        path.and_then(|path| self.live.cgroup_set(path, file)).map(|set| set.bytes()).unwrap_or_default()
    }

    /// What is started when this unit is triggered (`Unit=`, `Service=`, or the name's other half).
    pub fn triggered(&self) -> String {
        self.related(Dependency::Triggers).first().map_or_else(String::new, ToString::to_string)
    }
}

pub use muster_manager::kind::has_cgroup;
