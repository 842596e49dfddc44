//! The tables of the smaller unit types.
//! One row a directive: name(s) => field: type = default, whether it has an effect yet, whether specifiers are expanded.

use super::section;
use crate::setting::*;
use crate::value::*;

section! {
    /// `[Timer]` (systemd.timer(5)).
    TimerSection TimerRow "Timer" {
        "OnCalendar" => on_calendar: Vec<Calendar> = Default::default(), Applied Expand;
        "OnActiveSec" => on_active_sec: Vec<Timespan> = Default::default(), Applied Expand;
        "OnBootSec" => on_boot_sec: Vec<Timespan> = Default::default(), Applied Expand;
        "OnStartupSec" => on_startup_sec: Vec<Timespan> = Default::default(), Applied Expand;
        "OnUnitActiveSec" => on_unit_active_sec: Vec<Timespan> = Default::default(), Applied Expand;
        "OnUnitInactiveSec" => on_unit_inactive_sec: Vec<Timespan> = Default::default(), Applied Expand;
        "OnClockChange" => on_clock_change: bool = false, Applied Raw;
        "OnTimezoneChange" => on_timezone_change: bool = false, Applied Raw;
        "Persistent" => persistent: bool = false, Applied Raw;
        "WakeSystem" => wake_system: bool = false, Applied Raw;
        "RemainAfterElapse" => remain_after_elapse: bool = true, Applied Raw;
        "FixedRandomDelay" => fixed_random_delay: bool = false, Applied Raw;
        "DeferReactivation" => defer_reactivation: bool = false, Applied Raw;
        "AccuracySec" => accuracy_sec: Option<Timespan> = None, Applied Raw;
        "RandomizedDelaySec" => randomized_delay_sec: Option<Timespan> = None, Applied Raw;
        "RandomizedOffsetSec" => randomized_offset_sec: Option<Timespan> = None, Applied Raw;
        "Unit" => unit: Option<UnitName> = None, Applied Expand;
    }
}

section! {
    /// `[Path]` (systemd.path(5)).
    PathSection PathRow "Path" {
        "PathExists" => path_exists: PathLines = Default::default(), Applied Expand;
        "PathExistsGlob" => path_exists_glob: PathLines = Default::default(), Applied Expand;
        "PathChanged" => path_changed: PathLines = Default::default(), Applied Expand;
        "PathModified" => path_modified: PathLines = Default::default(), Applied Expand;
        "DirectoryNotEmpty" => directory_not_empty: PathLines = Default::default(), Applied Expand;
        "Unit" => unit: Option<UnitName> = None, Applied Expand;
        "MakeDirectory" => make_directory: bool = false, Applied Raw;
        "DirectoryMode" => directory_mode: FileMode = FileMode(0o755), Applied Raw;
        "TriggerLimitIntervalSec" => trigger_limit_interval_sec: Option<Timespan> = None, Applied Raw;
        "TriggerLimitBurst" => trigger_limit_burst: Option<u32> = None, Applied Raw;
    }
}

section! {
    /// `[Mount]` (systemd.mount(5)).
    MountSection MountRow "Mount" {
        "What" => what: Option<String> = None, Applied Expand;
        "Where" => where_: Option<AbsolutePath> = None, Applied Expand;
        "Options" => options: Option<String> = None, Applied Expand;
        "Type" => type_: Option<String> = None, Applied Expand;
        "TimeoutSec" => timeout_sec: Option<Timespan> = None, Applied Raw;
        "DirectoryMode" => directory_mode: FileMode = FileMode(0o755), Applied Raw;
        "SloppyOptions" => sloppy_options: bool = false, Applied Raw;
        "LazyUnmount" => lazy_unmount: bool = false, Applied Raw;
        "ForceUnmount" => force_unmount: bool = false, Applied Raw;
        "ReadWriteOnly" => read_write_only: bool = false, Applied Raw;
    }
}

section! {
    /// `[Automount]` (systemd.automount(5)).
    AutomountSection AutomountRow "Automount" {
        "Where" => where_: Option<AbsolutePath> = None, Applied Expand;
        "ExtraOptions" => extra_options: Option<String> = None, Applied Expand;
        "DirectoryMode" => directory_mode: FileMode = FileMode(0o755), Applied Raw;
        "TimeoutIdleSec" => timeout_idle_sec: Option<Timespan> = None, Applied Raw;
    }
}

section! {
    /// `[Swap]` (systemd.swap(5)).
    SwapSection SwapRow "Swap" {
        "What" => what: Option<String> = None, Applied Expand;
        "Priority" => priority: Option<i32> = None, Applied Raw;
        "Options" => options: Option<String> = None, Applied Expand;
        "TimeoutSec" => timeout_sec: Option<Timespan> = None, Applied Raw;
    }
}

section! {
    /// `[Slice]` (systemd.slice(5)).
    SliceSection SliceRow "Slice" {
        "ConcurrencySoftMax" => concurrency_soft_max: Option<Concurrency> = None, Applied Raw;
        "ConcurrencyHardMax" => concurrency_hard_max: Option<Concurrency> = None, Applied Raw;
    }
}

section! {
    /// `[Scope]` (systemd.scope(5)).
    ScopeSection ScopeRow "Scope" {
        "RuntimeMaxSec" => runtime_max_sec: Option<Timespan> = None, Applied Raw;
        "RuntimeRandomizedExtraSec" => runtime_randomized_extra_sec: Option<Timespan> = None, Applied Raw;
        "TimeoutStopSec" => timeout_stop_sec: Option<Timespan> = None, Applied Raw;
        "OOMPolicy" => oom_policy: Option<OomPolicy> = None, Applied Raw;
    }
}
