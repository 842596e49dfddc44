//! The interfaces, put together from the groups of their members.
//!
//! systemd's names keep systemd's meaning; what is muster's own is in `org.muster1.*`.

use crate::table::Interface;
use crate::{
    cgroup, descriptors, exec, manager, manager_methods, muster, others, service, socket, unit, unit_files,
};
use muster_unit::UnitKind;

/// The interface of the manager.
pub static MANAGER: Interface = Interface {
    name: "org.freedesktop.systemd1.Manager",
    properties: &[manager::MANAGER, manager::DEFAULT_LIMITS],
    methods: &[manager_methods::METHODS, descriptors::METHODS, unit_files::METHODS],
    signals: manager::SIGNALS,
};

/// How PID 1 logs.
pub static LOG_CONTROL: Interface = Interface {
    name: "org.freedesktop.LogControl1",
    properties: &[manager::LOG_CONTROL],
    methods: &[],
    signals: &[],
};

/// The interface of every unit.
pub static UNIT: Interface = Interface {
    name: "org.freedesktop.systemd1.Unit",
    properties: &[unit::UNIT],
    methods: &[manager_methods::UNIT_METHODS],
    signals: &[],
};

/// The interface of every job.
pub static JOB: Interface = Interface {
    name: "org.freedesktop.systemd1.Job",
    properties: &[unit::JOB],
    methods: &[manager_methods::JOB_METHODS],
    signals: &[],
};

/// What muster tells of every unit besides.
pub static MUSTER_UNIT: Interface = Interface {
    name: "org.muster1.Unit",
    properties: &[muster::UNIT],
    methods: &[muster::UNIT_METHODS],
    signals: &[],
};

/// What muster tells of sockets besides.
pub static MUSTER_SOCKET: Interface =
    Interface { name: "org.muster1.Socket", properties: &[muster::SOCKET], methods: &[], signals: &[] };

macro_rules! signals_of {
    () => {
        &[]
    };
    ($signals:expr) => {
        $signals
    };
}
macro_rules! kinds {
    ($($interface:ident $name:literal [$($properties:expr),*] [$($methods:expr),*] $($signals:expr)?;)*) => {$(
        static $interface: Interface = Interface {
            name: concat!("org.freedesktop.systemd1.", $name),
            properties: &[$($properties),*],
            methods: &[$($methods),*],
            signals: signals_of!($($signals)?),
        };
    )*};
}
kinds! {
    SERVICE "Service" [service::SERVICE, cgroup::CGROUP, exec::EXEC, exec::KILL]
        [manager_methods::CGROUP_METHODS, manager_methods::SERVICE_METHODS, descriptors::SERVICE_METHODS];
    SOCKET "Socket" [socket::SOCKET, socket::SOCKET_NEWER, cgroup::CGROUP, exec::EXEC, exec::KILL]
        [manager_methods::CGROUP_METHODS];
    MOUNT "Mount" [others::MOUNT, cgroup::CGROUP, exec::EXEC, exec::KILL] [manager_methods::CGROUP_METHODS];
    SWAP "Swap" [others::SWAP, cgroup::CGROUP, exec::EXEC, exec::KILL] [manager_methods::CGROUP_METHODS];
    SLICE "Slice" [cgroup::CGROUP] [manager_methods::CGROUP_METHODS];
    SCOPE "Scope" [others::SCOPE, cgroup::CGROUP, exec::KILL]
        [manager_methods::CGROUP_METHODS, manager_methods::SCOPE_METHODS] manager_methods::SCOPE_SIGNALS;
    TARGET "Target" [] [];
    DEVICE "Device" [others::DEVICE] [];
    AUTOMOUNT "Automount" [others::AUTOMOUNT] [];
    TIMER "Timer" [others::TIMER] [];
    PATH "Path" [others::PATH] [];
}

/// Of the units of one type.
pub fn of_kind(kind: UnitKind) -> &'static Interface {
    match kind {
        UnitKind::Service => &SERVICE,
        UnitKind::Socket => &SOCKET,
        UnitKind::Mount => &MOUNT,
        UnitKind::Swap => &SWAP,
        UnitKind::Slice => &SLICE,
        UnitKind::Scope => &SCOPE,
        UnitKind::Target => &TARGET,
        UnitKind::Device => &DEVICE,
        UnitKind::Automount => &AUTOMOUNT,
        UnitKind::Timer => &TIMER,
        UnitKind::Path => &PATH,
    }
}
