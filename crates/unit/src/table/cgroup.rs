//! The table of resource control.
//! One row a directive: name(s) => field: type = default, whether it has an effect yet, whether specifiers are expanded.

use super::section;
use crate::setting::*;
use crate::value::*;

section! {
    /// What a unit's cgroup is given (systemd.resource-control(5)).
    CGroupSection CGroupRow "CGroup" {
        "Slice" => slice: Option<UnitName> = None, Applied Expand;
        "AllowedCPUs" => allowed_cpus: NumberSet = Default::default(), Applied Expand;
        "StartupAllowedCPUs" => startup_allowed_cpus: NumberSet = Default::default(), Applied Expand;
        "AllowedMemoryNodes" => allowed_memory_nodes: NumberSet = Default::default(), Applied Expand;
        "StartupAllowedMemoryNodes" => startup_allowed_memory_nodes: NumberSet = Default::default(), Applied Expand;
        "CPUSetPartition" => cpuset_partition: Option<CpusetPartition> = None, Applied Raw;
        "CPUAccounting" => cpu_accounting: Option<bool> = None, Ignored Raw;
        "CPUWeight" => cpu_weight: Option<Weight> = None, Applied Raw;
        "StartupCPUWeight" => startup_cpu_weight: Option<Weight> = None, Applied Raw;
        "CPUShares" => cpu_shares: Option<CpuShares> = None, Older Raw;
        "StartupCPUShares" => startup_cpu_shares: Option<CpuShares> = None, Older Raw;
        "CPUQuota" => cpu_quota: Option<CpuQuota> = None, Applied Raw;
        "CPUQuotaPeriodSec" => cpu_quota_period_sec: Option<Timespan> = None, Applied Raw;
        "MemoryAccounting" => memory_accounting: Option<bool> = None, Applied Raw;
        "DefaultMemoryMin" => default_memory_min: Option<Amount> = None, Applied Raw;
        "DefaultMemoryLow" => default_memory_low: Option<Amount> = None, Applied Raw;
        "DefaultStartupMemoryLow" => default_startup_memory_low: Option<Amount> = None, Applied Raw;
        "MemoryMin" => memory_min: Option<Amount> = None, Applied Raw;
        "MemoryLow" => memory_low: Option<Amount> = None, Applied Raw;
        "StartupMemoryLow" => startup_memory_low: Option<Amount> = None, Applied Raw;
        "MemoryHigh" => memory_high: Option<Amount> = None, Applied Raw;
        "StartupMemoryHigh" => startup_memory_high: Option<Amount> = None, Applied Raw;
        "MemoryMax" => memory_max: Option<Amount> = None, Applied Raw;
        "StartupMemoryMax" => startup_memory_max: Option<Amount> = None, Applied Raw;
        "MemoryLimit" => memory_limit: Option<Amount> = None, Older Raw;
        "MemorySwapMax" => memory_swap_max: Option<Amount> = None, Applied Raw;
        "StartupMemorySwapMax" => startup_memory_swap_max: Option<Amount> = None, Applied Raw;
        "MemoryZSwapMax" => memory_zswap_max: Option<Amount> = None, Applied Raw;
        "StartupMemoryZSwapMax" => startup_memory_zswap_max: Option<Amount> = None, Applied Raw;
        "MemoryZSwapWriteback" => memory_zswap_writeback: Option<bool> = None, Applied Raw;
        "DeviceAllow" => device_allow: Vec<DeviceRule> = Default::default(), Applied Expand;
        "DevicePolicy" => device_policy: DevicePolicy = Default::default(), Applied Raw;
        "IOAccounting" => io_accounting: Option<bool> = None, Applied Raw;
        "IOWeight" => io_weight: Option<Weight> = None, Applied Raw;
        "StartupIOWeight" => startup_io_weight: Option<Weight> = None, Applied Raw;
        "IODeviceWeight" => io_device_weight: IoWeights = Default::default(), Applied Expand;
        "IOReadBandwidthMax" => io_read_bandwidth_max: IoLimits = Default::default(), Applied Expand;
        "IOWriteBandwidthMax" => io_write_bandwidth_max: IoLimits = Default::default(), Applied Expand;
        "IOReadIOPSMax" => io_read_iops_max: IoLimits = Default::default(), Applied Expand;
        "IOWriteIOPSMax" => io_write_iops_max: IoLimits = Default::default(), Applied Expand;
        "IODeviceLatencyTargetSec" => io_device_latency_target_sec: IoLatencies = Default::default(), Applied Expand;
        "BlockIOAccounting" => block_io_accounting: Option<bool> = None, Ignored Raw;
        "BlockIOWeight" => block_io_weight: Option<BlockIoWeight> = None, Older Raw;
        "StartupBlockIOWeight" => startup_block_io_weight: Option<BlockIoWeight> = None, Older Raw;
        "BlockIODeviceWeight" => block_io_device_weight: BlockIoWeights = Default::default(), Older Expand;
        "BlockIOReadBandwidth" => block_io_read_bandwidth: IoLimits = Default::default(), Older Expand;
        "BlockIOWriteBandwidth" => block_io_write_bandwidth: IoLimits = Default::default(), Older Expand;
        "TasksAccounting" => tasks_accounting: Option<bool> = None, Applied Raw;
        "TasksMax" => tasks_max: Option<Amount> = None, Applied Raw;
        "Delegate" => delegate: Option<Delegate> = None, Applied Raw;
        "DelegateSubgroup" => delegate_subgroup: Option<CgroupName> = None, Applied Raw;
        "DisableControllers" => disable_controllers: Controllers = Default::default(), Applied Raw;
        "IPAccounting" => ip_accounting: Option<bool> = None, Applied Raw;
        "IPAddressAllow" => ip_address_allow: Vec<AddressPrefix> = Default::default(), Applied Raw;
        "IPAddressDeny" => ip_address_deny: Vec<AddressPrefix> = Default::default(), Applied Raw;
        "IPIngressFilterPath" => ip_ingress_filter_path: PathLines = Default::default(), Applied Expand;
        "IPEgressFilterPath" => ip_egress_filter_path: PathLines = Default::default(), Applied Expand;
        "ManagedOOMSwap" => managed_oom_swap: ManagedOomMode = Default::default(), Applied Raw;
        "ManagedOOMMemoryPressure" => managed_oom_memory_pressure: ManagedOomMode = Default::default(), Applied Raw;
        "ManagedOOMMemoryPressureLimit" => managed_oom_memory_pressure_limit: Option<PressureLimit> = None, Applied Raw;
        "ManagedOOMMemoryPressureDurationSec" => managed_oom_memory_pressure_duration_sec: Option<PressureDuration> = None, Applied Raw;
        "ManagedOOMPreference" => managed_oom_preference: ManagedOomPreference = Default::default(), Applied Raw;
        "OOMRules" => oom_rules: Vec<PlainName> = Default::default(), Stored Raw;
        "BPFProgram" => bpf_program: Vec<BpfProgram> = Default::default(), Applied Expand;
        "SocketBindAllow" => socket_bind_allow: Vec<BindRule> = Default::default(), Applied Raw;
        "SocketBindDeny" => socket_bind_deny: Vec<BindRule> = Default::default(), Applied Raw;
        "RestrictNetworkInterfaces" => restrict_network_interfaces: InterfaceList = Default::default(), Applied Raw;
        "MemoryPressureThresholdSec" => memory_pressure_threshold_sec: Option<Timespan> = None, Applied Raw;
        "MemoryPressureWatch" => memory_pressure_watch: PressureWatch = Default::default(), Applied Raw;
        "CPUPressureThresholdSec" => cpu_pressure_threshold_sec: Option<Timespan> = None, Applied Raw;
        "CPUPressureWatch" => cpu_pressure_watch: PressureWatch = Default::default(), Applied Raw;
        "IOPressureThresholdSec" => io_pressure_threshold_sec: Option<Timespan> = None, Applied Raw;
        "IOPressureWatch" => io_pressure_watch: PressureWatch = Default::default(), Applied Raw;
        "NFTSet" => nft_set: Vec<NftSet> = Default::default(), Applied Raw;
        "CoredumpReceive" => coredump_receive: bool = false, Applied Raw;
        "BindNetworkInterface" => bind_network_interface: Option<InterfaceName> = None, Applied Expand;
    }
}

impl CGroupSection {
    /// One of the lists that `set-property` adds to, oldest item first, each as an assignment says it. Empty for what is no
    /// such list.
    pub fn list(&self, directive: &str) -> Vec<String> {
        let each = |list: &[PerDevice], text: fn(u64) -> String| {
            list.iter().map(|item| format!("{} {}", item.path.as_str(), text(item.value))).collect()
        };
        let number = |value: u64| if value == u64::MAX { "infinity".to_owned() } else { value.to_string() };
        match directive {
            "DeviceAllow" => {
                self.device_allow().iter().map(|rule| format!("{} {}", rule.device, rule.access())).collect()
            }
            "IODeviceWeight" => each(&self.io_device_weight().0, number),
            "IOReadBandwidthMax" => each(&self.io_read_bandwidth_max().0, number),
            "IOWriteBandwidthMax" => each(&self.io_write_bandwidth_max().0, number),
            "IOReadIOPSMax" => each(&self.io_read_iops_max().0, number),
            "IOWriteIOPSMax" => each(&self.io_write_iops_max().0, number),
            "BlockIODeviceWeight" => each(&self.block_io_device_weight().0, number),
            "BlockIOReadBandwidth" => each(&self.block_io_read_bandwidth().0, number),
            "BlockIOWriteBandwidth" => each(&self.block_io_write_bandwidth().0, number),
            "IODeviceLatencyTargetSec" => {
                each(&self.io_device_latency_target_sec().0, |usec| Timespan(usec).to_string())
            }
            "IPAddressAllow" => self.ip_address_allow().iter().map(ToString::to_string).collect(),
            "IPAddressDeny" => self.ip_address_deny().iter().map(ToString::to_string).collect(),
            "SocketBindAllow" => self.socket_bind_allow().iter().map(ToString::to_string).collect(),
            "SocketBindDeny" => self.socket_bind_deny().iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        }
    }
}

impl CGroupSection {
    /// The limits and shares as a file would say them, for a unit that is to have the same.
    pub fn limits(&self) -> Vec<(&'static str, String)> {
        let amount = |amount: Option<Amount>| {
            amount.map(|amount| match amount {
                Amount::Absolute(number) => number.to_string(),
                Amount::Infinity => "infinity".to_owned(),
                Amount::Fraction(part) => format!("{}.{:02}%", part / 100, part % 100),
            })
        };
        let weight = |weight: Option<Weight>| {
            weight.map(|weight| if weight.0 == 0 { "idle".to_owned() } else { weight.0.to_string() })
        };
        let quota = |quota: CpuQuota| format!("{}.{:02}%", quota.0 / 10_000, quota.0 % 10_000 / 100);
        let set = |set: &NumberSet| Some(set.to_string()).filter(|text| !text.is_empty());
        let scalars = [
            ("AllowedCPUs", set(self.allowed_cpus())),
            ("AllowedMemoryNodes", set(self.allowed_memory_nodes())),
            ("CPUWeight", weight(self.cpu_weight())),
            ("StartupCPUWeight", weight(self.startup_cpu_weight())),
            ("CPUQuota", self.cpu_quota().map(quota)),
            ("CPUQuotaPeriodSec", self.cpu_quota_period_sec().map(|span| span.to_string())),
            ("MemoryMin", amount(self.memory_min())),
            ("MemoryLow", amount(self.memory_low())),
            ("MemoryHigh", amount(self.memory_high())),
            ("MemoryMax", amount(self.memory_max())),
            ("MemorySwapMax", amount(self.memory_swap_max())),
            ("MemoryZSwapMax", amount(self.memory_zswap_max())),
            ("IOWeight", weight(self.io_weight())),
            ("StartupIOWeight", weight(self.startup_io_weight())),
            ("TasksMax", amount(self.tasks_max())),
        ];
        const LISTS: [&str; 10] = [
            "DeviceAllow",
            "IODeviceWeight",
            "IOReadBandwidthMax",
            "IOWriteBandwidthMax",
            "IOReadIOPSMax",
            "IOWriteIOPSMax",
            "IODeviceLatencyTargetSec",
            "IPAddressAllow",
            "IPAddressDeny",
            "SocketBindDeny",
        ];
        let lists = LISTS.iter().flat_map(|name| self.list(name).into_iter().map(|item| (*name, item)));
        scalars.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(lists).collect()
    }
}

/// Items of one of these lists, oldest first, in the order in which files say them: each device once, with what was said of
/// it last.
pub fn listed(directive: &str, items: Vec<String>) -> Vec<String> {
    let by_device = directive.contains("IO") || directive == "DeviceAllow";
    let key = |item: &str| match by_device {
        true => item.split(' ').next().unwrap_or(item).to_owned(),
        false => item.to_owned(),
    };
    let mut out: Vec<String> = Vec::new();
    for item in items.into_iter().map(|item| list_item(directive, item)) {
        match out.iter_mut().find(|known| key(known) == key(&item)) {
            Some(known) => *known = item,
            None => out.push(item),
        }
    }
    if matches!(directive, "DeviceAllow" | "SocketBindAllow" | "SocketBindDeny") {
        out.reverse();
    }
    out
}

fn list_item(directive: &str, item: String) -> String {
    let span = |(device, span): (&str, &str)| {
        Timespan::parse(span, 1_000_000).map(|span| format!("{device} {span}")).ok()
    };
    match directive {
        "IODeviceLatencyTargetSec" => item.split_once(' ').and_then(span).unwrap_or(item),
        _ => item,
    }
}

macro_rules! startup {
    ($($usual:ident $startup:ident;)*) => {
        impl CGroupSection {
            /// Whether anything is said for the time in which the system starts or shuts down (`Startup*=`).
            pub fn has_startup_values(&self) -> bool {
                self.set.iter().any(|row| matches!(row, $(CGroupRow::$startup(_))|*))
            }
            /// What holds in that time.
            pub fn at_startup(&self) -> CGroupSection {
                let mut section = self.clone();
                $(if self.set.iter().any(|row| matches!(row, CGroupRow::$startup(_))) {
                    *section.edit().$usual() = self.$startup().to_owned();
                })*
                section
            }
        }
    };
}
startup! {
    allowed_cpus startup_allowed_cpus;
    allowed_memory_nodes startup_allowed_memory_nodes;
    cpu_weight startup_cpu_weight;
    memory_low startup_memory_low;
    memory_high startup_memory_high;
    memory_max startup_memory_max;
    memory_swap_max startup_memory_swap_max;
    memory_zswap_max startup_memory_zswap_max;
    io_weight startup_io_weight;
    cpu_shares startup_cpu_shares;
    block_io_weight startup_block_io_weight;
}

macro_rules! says {
    ($section:expr, $($row:ident)*) => { $section.set.iter().any(|row| matches!(row, $(CGroupRow::$row(_))|*)) };
}

/// What to write instead of an older name.
const NEWER: &[(&str, &str)] = &[
    ("MemoryLimit", "MemoryMax="),
    ("CPUShares", "CPUWeight="),
    ("StartupCPUShares", "StartupCPUWeight="),
    ("BlockIOWeight", "IOWeight="),
    ("StartupBlockIOWeight", "StartupIOWeight="),
    ("BlockIODeviceWeight", "IODeviceWeight="),
    ("BlockIOReadBandwidth", "IOReadBandwidthMax="),
    ("BlockIOWriteBandwidth", "IOWriteBandwidthMax="),
];

/// What to write instead of an older name; nothing for a name of today.
pub fn newer_name(name: &str) -> Option<&'static str> {
    NEWER.iter().find(|(older, _)| *older == name).map(|(_, newer)| *newer)
}

/// Names of version 1 of the cgroup tree. The names of today count alone where one of their group is said.
impl CGroupSection {
    /// What older names say, in the terms of today; nothing where none is said.
    pub fn in_terms_of_today(&self) -> Option<CGroupSection> {
        let memory = says!(self, memory_limit);
        let shares = says!(self, cpu_shares startup_cpu_shares);
        let block = says!(self, block_io_weight startup_block_io_weight block_io_device_weight
            block_io_read_bandwidth block_io_write_bandwidth);
        if !memory && !shares && !block {
            return None;
        }
        let mut today = self.clone();
        let mut edit = today.edit();
        if memory && !self.limits_memory() {
            *edit.memory_max() = self.memory_limit();
        }
        if shares && !says!(self, cpu_weight startup_cpu_weight) {
            *edit.cpu_weight() = self.cpu_shares().map(CpuShares::weight);
        }
        if block && !self.limits_io() {
            *edit.io_weight() = self.block_io_weight().map(BlockIoWeight::weight);
            *edit.io_device_weight() = self.block_io_device_weight().weights();
            *edit.io_read_bandwidth_max() = self.block_io_read_bandwidth().clone();
            *edit.io_write_bandwidth_max() = self.block_io_write_bandwidth().clone();
        }
        drop(edit);
        Some(today)
    }

    /// Whether a name of today protects memory or limits it.
    fn limits_memory(&self) -> bool {
        let protected = [self.memory_min(), self.memory_low(), self.startup_memory_low()];
        let limits = [
            self.memory_high(),
            self.startup_memory_high(),
            self.memory_max(),
            self.startup_memory_max(),
            self.memory_swap_max(),
            self.startup_memory_swap_max(),
            self.memory_zswap_max(),
            self.startup_memory_zswap_max(),
        ];
        protected.into_iter().flatten().any(|amount| amount != Amount::Absolute(0))
            || limits.into_iter().flatten().any(|amount| amount != Amount::Infinity)
    }

    /// Whether a name of today says anything of block devices.
    fn limits_io(&self) -> bool {
        says!(self, io_weight startup_io_weight io_device_weight io_device_latency_target_sec io_read_bandwidth_max
            io_write_bandwidth_max io_read_iops_max io_write_iops_max)
    }

    /// Whether anything is said for units below a slice (`DefaultMemoryMin=` and kin).
    pub fn has_defaults(&self) -> bool {
        says!(self, default_memory_min default_memory_low default_startup_memory_low)
    }
}

impl CGroupSection {
    /// `MemoryPressureWatch=`, where it is said.
    pub fn pressure_watch_said(&self) -> Option<PressureWatch> {
        let said = self.set.iter().any(|row| matches!(row, CGroupRow::memory_pressure_watch(_)));
        said.then(|| self.memory_pressure_watch())
    }

    /// Whether the cgroup is the unit's own to divide.
    pub fn is_delegated(&self) -> bool {
        self.delegate().as_ref().is_some_and(|delegate| match delegate {
            Delegate::All => true,
            Delegate::Controllers(list) => !list.iter().any(|word| word == "-"),
        })
    }

    /// `DelegateSubgroup=`, where the cgroup is delegated.
    pub fn subgroup(&self) -> Option<&str> {
        self.delegate_subgroup().as_deref().filter(|_| self.is_delegated())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(value: u64) -> PerDevice {
        PerDevice { path: AbsolutePath("/dev/vda".to_owned()), value }
    }

    #[test]
    fn older_names_count_where_no_name_of_today_does() {
        assert_eq!(CGroupSection::default().in_terms_of_today(), None);
        assert_eq!(CGroupSection::of([CGroupRow::cpu_weight(Some(Weight(7)))]).in_terms_of_today(), None);
        let older = [
            CGroupRow::memory_limit(Some(Amount::Absolute(4096))),
            CGroupRow::cpu_shares(Some(Within(2048))),
            CGroupRow::block_io_weight(Some(Within(1000))),
            CGroupRow::block_io_device_weight(BlockIoWeights(vec![device(10)])),
            CGroupRow::block_io_read_bandwidth(IoLimits(vec![device(5000)])),
        ];
        let today = CGroupSection::of(older.clone()).in_terms_of_today().unwrap_or_default();
        assert_eq!(today.memory_max(), Some(Amount::Absolute(4096)));
        assert_eq!(today.cpu_weight(), Some(Weight(200)));
        assert_eq!(today.io_weight(), Some(Weight(200)));
        assert_eq!(today.io_device_weight().0, [device(2)]);
        assert_eq!(today.io_read_bandwidth_max().0, [device(5000)]);
        assert!(today.io_write_bandwidth_max().0.is_empty());
        // One name of today speaks for its whole group.
        let newer = [
            CGroupRow::memory_high(Some(Amount::Absolute(1))),
            CGroupRow::startup_cpu_weight(Some(Weight(7))),
            CGroupRow::io_device_weight(IoWeights(vec![device(3)])),
        ];
        let today = CGroupSection::of(older.into_iter().chain(newer)).in_terms_of_today().unwrap_or_default();
        assert_eq!((today.memory_max(), today.cpu_weight(), today.io_weight()), (None, None, None));
        assert_eq!(today.io_device_weight().0, [device(3)]);
        assert!(today.io_read_bandwidth_max().0.is_empty());
    }
}
