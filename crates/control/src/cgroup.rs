//! Resource control, as every type with a cgroup shows it.
//!
//! Live rows are asked of the kernel at the time of the call; `u64::MAX` says that there is no number.

use crate::show::{Each, Emit, Listed, UNSET, or};
use crate::table::properties;
use crate::view::{LiveValue, UnitView};
use crate::wire::Out;
use muster_manager::state::ActiveState;
use muster_unit::setting::{Amount, Weight};
use muster_unit::{
    AddressPrefix, BindRule, BpfProgram, CGroupSection, Delegate, NftSet, PerDevice, PressureLimit, UnitKind,
};
use std::net::IpAddr;

/// Whether a unit's processes may make cgroups of their own below its cgroup.
pub fn is_delegated(section: &CGroupSection) -> bool {
    match &section.delegate() {
        None => false,
        Some(Delegate::All) => true,
        Some(Delegate::Controllers(list)) => list.first().is_none_or(|first| first != "-"),
    }
}

fn delegated(u: &UnitView<'_>) -> Vec<String> {
    const ALL: &[&str] = &[
        "cpu",
        "cpuset",
        "io",
        "memory",
        "pids",
        "bpf-firewall",
        "bpf-devices",
        "bpf-foreign",
        "bpf-socket-bind",
    ];
    match &u.cgroup().delegate() {
        Some(Delegate::All) => ALL.iter().map(|word| (*word).to_owned()).collect(),
        Some(Delegate::Controllers(list)) => list.iter().filter(|word| *word != "-").cloned().collect(),
        None => Vec::new(),
    }
}

/// The path that the kernel knows; empty for a unit without a cgroup. A socket shows where its commands would run.
pub fn control_group(u: &UnitView<'_>) -> String {
    let is_up = !matches!(u.unit.active_state(), ActiveState::Inactive | ActiveState::Failed);
    let to_be =
        || u.manager.cgroup_path(u.unit.id).filter(|_| is_up && u.unit.name.kind() == UnitKind::Socket);
    match u.unit.cgroup.clone().or_else(to_be).as_deref() {
        Some("") => match u.manager.state().facts.cgroup_root.as_str() {
            "" => "/".to_owned(),
            root => root.to_owned(),
        },
        Some(path) => format!("{}{path}", u.manager.state().facts.cgroup_root),
        None => String::new(),
    }
}

/// A limit as it comes to together with those of all slices above.
fn effective(u: &UnitView<'_>, total: u64, own: u64, get: impl Fn(&CGroupSection) -> Option<Amount>) -> u64 {
    let slices = std::iter::successors(u.parent_slice(), UnitView::parent_slice);
    let limits = slices.filter_map(|slice| get(slice.cgroup()).map(|limit| limit.of(total)));
    limits.chain([total, own]).min().unwrap_or(total)
}

fn effective_memory(u: &UnitView<'_>, get: fn(&CGroupSection) -> Option<Amount>) -> u64 {
    let total = u.manager.state().facts.memory_total;
    if !u.unit.file.is_whole() {
        return u64::MAX;
    }
    effective(u, total, get(u.cgroup()).map_or(u64::MAX, |limit| limit.of(total)), get)
}

/// Where the kernel counts nothing, what the limits leave.
fn memory_left(u: &UnitView<'_>) -> u64 {
    let (max, high) =
        (|section: &CGroupSection| section.memory_max(), |section: &CGroupSection| section.memory_high());
    effective_memory(u, max).min(effective_memory(u, high))
}

fn effective_tasks(u: &UnitView<'_>) -> u64 {
    effective(u, u.manager.state().facts.tasks_total, tasks_max(u), |cgroup| cgroup.tasks_max())
}

/// `TasksMax=`, or the default, which slices do not have.
fn tasks_max(u: &UnitView<'_>) -> u64 {
    let facts = &u.manager.state().facts;
    let default =
        if u.unit.name.kind() == muster_unit::UnitKind::Slice { u64::MAX } else { facts.default_tasks_max };
    u.cgroup().tasks_max().map_or(default, |limit| limit.of(facts.tasks_total))
}

fn weight(weight: Option<Weight>) -> u64 {
    weight.map_or(u64::MAX, |weight| weight.0)
}

/// A limit of memory in bytes. A part of what the machine has is rounded to whole pages, as the kernel does it.
fn amount(u: &UnitView<'_>, amount: Option<Amount>, default: u64) -> u64 {
    match amount {
        None => default,
        Some(Amount::Absolute(number)) => number,
        Some(Amount::Infinity) => u64::MAX,
        Some(part @ Amount::Fraction(_)) => part.of(u.manager.state().facts.memory_total) & !PAGE_REST,
    }
}

fn config<'a>(u: &UnitView<'a>) -> &'a muster_manager::config::Config {
    &u.manager.state().facts.config
}

/// What is beyond whole pages.
const PAGE_REST: u64 = 4095;

/// `CPUQuota=20%` as microseconds of CPU in a second.
fn quota(u: &UnitView<'_>) -> u64 {
    u.cgroup().cpu_quota().map_or(u64::MAX, |quota| quota.0)
}

fn device_rule(rule: &muster_unit::DeviceRule, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&rule.device);
        out.str(&rule.access());
    });
}

fn device_number(item: &PerDevice, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&item.path);
        out.u64(item.value);
    });
}

fn prefix(prefix: &AddressPrefix, out: &mut Out<'_>) {
    out.structure(|out| {
        match prefix.address {
            IpAddr::V4(v4) => {
                out.i32(2);
                v4.octets().as_slice().emit("ay", out);
            }
            IpAddr::V6(v6) => {
                out.i32(10);
                v6.octets().as_slice().emit("ay", out);
            }
        }
        out.u32(u32::from(prefix.length));
    });
}

fn bind_rule(rule: &BindRule, out: &mut Out<'_>) {
    out.structure(|out| {
        out.i32(rule.family);
        out.i32(rule.protocol);
        out.u16(rule.count);
        out.u16(rule.first);
    });
}

fn program(program: &BpfProgram, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&program.attach);
        out.str(&program.path);
    });
}

fn nft_set(set: &NftSet, out: &mut Out<'_>) {
    out.structure(|out| {
        out.i32(set.source);
        out.i32(set.family);
        out.str(&set.table);
        out.str(&set.set);
    });
}

properties! {
    /// Of services, sockets, mounts, swaps, slices and scopes.
    CGROUP: Unit(u) {
        Slice "s" Never = u.slice_name();
        ControlGroup "s" Never = control_group(u);
        ControlGroupId "t" Never [live] = or(&u.live_number(LiveValue::ControlGroupId), 0);
        MemoryCurrent "t" Never [live] = or(&u.live_number(LiveValue::MemoryCurrent), UNSET);
        MemoryPeak "t" Never [live] = or(&u.live_number(LiveValue::MemoryPeak), UNSET);
        MemorySwapCurrent "t" Never [live] = or(&u.live_number(LiveValue::MemorySwapCurrent), UNSET);
        MemorySwapPeak "t" Never [live] = or(&u.live_number(LiveValue::MemorySwapPeak), UNSET);
        MemoryZSwapCurrent "t" Never [live] = or(&u.live_number(LiveValue::MemoryZSwapCurrent), UNSET);
        MemoryAvailable "t" Never [live] = or(&u.live_number(LiveValue::MemoryAvailable), i128::from(memory_left(u)));
        EffectiveMemoryMax "t" Never = effective_memory(u, |cgroup| cgroup.memory_max());
        EffectiveMemoryHigh "t" Never = effective_memory(u, |cgroup| cgroup.memory_high());
        CPUUsageNSec "t" Never [live] = or(&u.live_number(LiveValue::CPUUsageNSec), UNSET);
        EffectiveCPUs "ay" Never [live] = u.live_set("cpuset.cpus.effective").as_slice();
        EffectiveMemoryNodes "ay" Never [live] = u.live_set("cpuset.mems.effective").as_slice();
        TasksCurrent "t" Never [live] = or(&u.live_number(LiveValue::TasksCurrent), UNSET);
        EffectiveTasksMax "t" Never = effective_tasks(u);
        IPIngressBytes "t" Never [live] = or(&u.live_number(LiveValue::IPIngressBytes), UNSET);
        IPIngressPackets "t" Never [live] = or(&u.live_number(LiveValue::IPIngressPackets), UNSET);
        IPEgressBytes "t" Never [live] = or(&u.live_number(LiveValue::IPEgressBytes), UNSET);
        IPEgressPackets "t" Never [live] = or(&u.live_number(LiveValue::IPEgressPackets), UNSET);
        IOReadBytes "t" Never [live] = or(&u.live_number(LiveValue::IOReadBytes), UNSET);
        IOReadOperations "t" Never [live] = or(&u.live_number(LiveValue::IOReadOperations), UNSET);
        IOWriteBytes "t" Never [live] = or(&u.live_number(LiveValue::IOWriteBytes), UNSET);
        IOWriteOperations "t" Never [live] = or(&u.live_number(LiveValue::IOWriteOperations), UNSET);
        Delegate "b" Never = is_delegated(u.cgroup());
        DelegateControllers "as" Never = delegated(u);
        DelegateSubgroup "s" Never = u.cgroup().delegate_subgroup();
        CPUAccounting "b" Never = u.cgroup().cpu_accounting().unwrap_or(config(u).default_cpu_accounting);
        CPUWeight "t" Never = weight(u.cgroup().cpu_weight());
        StartupCPUWeight "t" Never = weight(u.cgroup().startup_cpu_weight());
        CPUShares "t" Never = or(&u.cgroup().cpu_shares().map(|shares| shares.0), UNSET);
        StartupCPUShares "t" Never = or(&u.cgroup().startup_cpu_shares().map(|shares| shares.0), UNSET);
        CPUQuotaPerSecUSec "t" Never = quota(u);
        CPUQuotaPeriodUSec "t" Never = or(&u.cgroup().cpu_quota_period_sec(), UNSET);
        AllowedCPUs "ay" Never = u.cgroup().allowed_cpus().bytes().as_slice();
        StartupAllowedCPUs "ay" Never = u.cgroup().startup_allowed_cpus().bytes().as_slice();
        AllowedMemoryNodes "ay" Never = u.cgroup().allowed_memory_nodes().bytes().as_slice();
        StartupAllowedMemoryNodes "ay" Never = u.cgroup().startup_allowed_memory_nodes().bytes().as_slice();
        IOAccounting "b" Never = u.cgroup().io_accounting().unwrap_or(config(u).default_io_accounting);
        IOWeight "t" Never = weight(u.cgroup().io_weight());
        StartupIOWeight "t" Never = weight(u.cgroup().startup_io_weight());
        IODeviceWeight "a(st)" Never = Each(&u.cgroup().io_device_weight().0, device_number);
        IOReadBandwidthMax "a(st)" Never = Each(u.cgroup().io_read_bandwidth_max().limits(), device_number);
        IOWriteBandwidthMax "a(st)" Never = Each(u.cgroup().io_write_bandwidth_max().limits(), device_number);
        IOReadIOPSMax "a(st)" Never = Each(u.cgroup().io_read_iops_max().limits(), device_number);
        IOWriteIOPSMax "a(st)" Never = Each(u.cgroup().io_write_iops_max().limits(), device_number);
        IODeviceLatencyTargetUSec "a(st)" Never = Each(&u.cgroup().io_device_latency_target_sec().0, device_number);
        BlockIOAccounting "b" Never = u.cgroup().block_io_accounting().unwrap_or(config(u).default_block_io_accounting);
        BlockIOWeight "t" Never = or(&u.cgroup().block_io_weight().map(|weight| weight.0), UNSET);
        StartupBlockIOWeight "t" Never = or(&u.cgroup().startup_block_io_weight().map(|weight| weight.0), UNSET);
        BlockIODeviceWeight "a(st)" Never = Each(&u.cgroup().block_io_device_weight().0, device_number);
        BlockIOReadBandwidth "a(st)" Never = Each(u.cgroup().block_io_read_bandwidth().limits(), device_number);
        BlockIOWriteBandwidth "a(st)" Never = Each(u.cgroup().block_io_write_bandwidth().limits(), device_number);
        MemoryAccounting "b" Never = u.cgroup().memory_accounting().unwrap_or(config(u).default_memory_accounting);
        DefaultMemoryLow "t" Never = amount(u, u.cgroup().default_memory_low(), 0);
        DefaultStartupMemoryLow "t" Never = amount(u, u.cgroup().default_startup_memory_low(), 0);
        DefaultMemoryMin "t" Never = amount(u, u.cgroup().default_memory_min(), 0);
        MemoryMin "t" Never = amount(u, u.cgroup().memory_min(), 0);
        MemoryLow "t" Never = amount(u, u.cgroup().memory_low(), 0);
        StartupMemoryLow "t" Never = amount(u, u.cgroup().startup_memory_low(), 0);
        MemoryHigh "t" Never = amount(u, u.cgroup().memory_high(), u64::MAX);
        StartupMemoryHigh "t" Never = amount(u, u.cgroup().startup_memory_high(), u64::MAX);
        MemoryMax "t" Never = amount(u, u.cgroup().memory_max(), u64::MAX);
        StartupMemoryMax "t" Never = amount(u, u.cgroup().startup_memory_max(), u64::MAX);
        MemorySwapMax "t" Never = amount(u, u.cgroup().memory_swap_max(), u64::MAX);
        StartupMemorySwapMax "t" Never = amount(u, u.cgroup().startup_memory_swap_max(), u64::MAX);
        MemoryZSwapMax "t" Never = amount(u, u.cgroup().memory_zswap_max(), u64::MAX);
        StartupMemoryZSwapMax "t" Never = amount(u, u.cgroup().startup_memory_zswap_max(), u64::MAX);
        MemoryZSwapWriteback "b" Never = u.cgroup().memory_zswap_writeback().unwrap_or(true);
        MemoryLimit "t" Never = amount(u, u.cgroup().memory_limit(), u64::MAX);
        DevicePolicy "s" Never = u.cgroup().device_policy().as_str();
        DeviceAllow "a(ss)" Never = Each(u.cgroup().device_allow().iter().rev(), device_rule);
        TasksAccounting "b" Never = u.cgroup().tasks_accounting().unwrap_or(config(u).default_tasks_accounting);
        TasksMax "t" Never = tasks_max(u);
        IPAccounting "b" Never = u.cgroup().ip_accounting().unwrap_or(config(u).default_ip_accounting);
        IPAddressAllow "a(iayu)" Never = Each(u.cgroup().ip_address_allow(), prefix);
        IPAddressDeny "a(iayu)" Never = Each(u.cgroup().ip_address_deny(), prefix);
        IPIngressFilterPath "as" Never = u.cgroup().ip_ingress_filter_path().0;
        IPEgressFilterPath "as" Never = u.cgroup().ip_egress_filter_path().0;
        DisableControllers "as" Never = u.cgroup().disable_controllers().names().map(str::to_owned).collect::<Vec<String>>();
        ManagedOOMSwap "s" Never = u.cgroup().managed_oom_swap().as_str();
        ManagedOOMMemoryPressure "s" Never = u.cgroup().managed_oom_memory_pressure().as_str();
        ManagedOOMMemoryPressureLimit "u" Never = u.cgroup().managed_oom_memory_pressure_limit().map_or(0, PressureLimit::scaled);
        ManagedOOMMemoryPressureDurationUSec "t" Never = or(&u.cgroup().managed_oom_memory_pressure_duration_sec().map(|span| span.0), UNSET);
        ManagedOOMPreference "s" Never = u.cgroup().managed_oom_preference().as_str();
        BPFProgram "a(ss)" Never = Each(u.cgroup().bpf_program(), program);
        SocketBindAllow "a(iiqq)" Never = Each(u.cgroup().socket_bind_allow().iter().rev(), bind_rule);
        SocketBindDeny "a(iiqq)" Never = Each(u.cgroup().socket_bind_deny().iter().rev(), bind_rule);
        RestrictNetworkInterfaces "(bas)" Never = Listed(&u.cgroup().restrict_network_interfaces().0);
        MemoryPressureWatch "s" Never = u.cgroup().pressure_watch_said().unwrap_or(config(u).default_memory_pressure_watch).as_str();
        MemoryPressureThresholdUSec "t" Never = or(&u.cgroup().memory_pressure_threshold_sec(), config(u).default_memory_pressure_threshold_usec.into());
        NFTSet "a(iiss)" Never = Each(u.cgroup().nft_set(), nft_set);
        CoredumpReceive "b" Never = u.cgroup().coredump_receive();
    }
}
