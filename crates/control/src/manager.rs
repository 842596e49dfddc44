//! The manager's properties, look-ups, and the LogControl1 interface.

use crate::Action;
use crate::error::Refusal;
use crate::table::{Property, properties, signals};
use crate::view::ManagerView;
use crate::wire::Value;
use muster_manager::Manager;
use muster_manager::event::Request;
use muster_manager::hardware::Which;
use muster_manager::state::{Stamp, State, Unit};
use std::collections::BTreeMap;

/// The words of `LogLevel`, by number.
const LEVELS: &[&str] = &["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

fn state<'a>(view: &ManagerView<'a>) -> &'a State {
    view.manager.state()
}

fn version(view: &ManagerView<'_>) -> String {
    state(view).facts.version.clone()
}

/// The word of `LogLevel`.
pub fn log_level(view: &ManagerView<'_>) -> &'static str {
    LEVELS.get(usize::from(state(view).log_level)).copied().unwrap_or("info")
}

/// Jobs done of jobs seen, as `Progress` wants it.
fn progress(view: &ManagerView<'_>) -> f64 {
    let (waiting, all) = (state(view).jobs.len(), state(view).n_installed_jobs);
    if waiting == 0 || all == 0 {
        return 1.0;
    }
    1.0 - f64::from(u32::try_from(waiting).unwrap_or(u32::MAX)) / f64::from(all)
}

/// The environment that later processes get from the manager, sorted as systemd sorts it.
pub fn environment(manager: &Manager) -> Vec<String> {
    let state = manager.state();
    let base = state.facts.base_environment.iter().filter_map(|entry| entry.split_once('='));
    let mut all: BTreeMap<&str, &str> = base.collect();
    all.extend(state.client_environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The word of `LogTarget`.
pub fn log_target<'a>(view: &ManagerView<'a>) -> &'a str {
    match state(view).log_target.as_str() {
        "" => "journal-or-kmsg",
        word => word,
    }
}

fn limit(view: &ManagerView<'_>, name: &str, soft: bool) -> u64 {
    if let Some(limit) = state(view).facts.config.limit(name) {
        return if soft { limit.soft } else { limit.hard };
    }
    view.live.resource_limit(name, soft).unwrap_or(u64::MAX)
}

/// When the machine began to go down: the stamp of the job that `shutdown.target` had; never, while it runs.
const NEVER: Stamp = Stamp { realtime_usec: 0, monotonic_usec: 0 };

properties! { MANAGER: Manager(s) {
    Version "s" Const = version(s);
    Features "s" Const = "";
    Virtualization "s" Const = state(s).facts.virtualization;
    ConfidentialVirtualization "s" Const = "";
    Architecture "s" Const = state(s).facts.architecture;
    Tainted "s" Const = state(s).facts.tainted.as_str();
    FirmwareTimestamp "t" Const = NEVER.realtime_usec;
    FirmwareTimestampMonotonic "t" Const = NEVER.monotonic_usec;
    LoaderTimestamp "t" Const = NEVER.realtime_usec;
    LoaderTimestampMonotonic "t" Const = NEVER.monotonic_usec;
    KernelTimestamp "t" Const = NEVER.realtime_usec;
    KernelTimestampMonotonic "t" Const = NEVER.monotonic_usec;
    InitRDTimestamp "t" Const = state(s).initrd.userspace.realtime_usec;
    InitRDTimestampMonotonic "t" Const = state(s).initrd.userspace.monotonic_usec;
    UserspaceTimestamp "t" Const = state(s).boot.userspace.realtime_usec;
    UserspaceTimestampMonotonic "t" Const = state(s).boot.userspace.monotonic_usec;
    FinishTimestamp "t" Const = state(s).finished.realtime_usec;
    FinishTimestampMonotonic "t" Const = state(s).finished.monotonic_usec;
    ShutdownStartTimestamp "t" Const = NEVER.realtime_usec;
    ShutdownStartTimestampMonotonic "t" Const = NEVER.monotonic_usec;
    SecurityStartTimestamp "t" Const = NEVER.realtime_usec;
    SecurityStartTimestampMonotonic "t" Const = NEVER.monotonic_usec;
    SecurityFinishTimestamp "t" Const = NEVER.realtime_usec;
    SecurityFinishTimestampMonotonic "t" Const = NEVER.monotonic_usec;
    GeneratorsStartTimestamp "t" Const = state(s).boot.generators_start.realtime_usec;
    GeneratorsStartTimestampMonotonic "t" Const = state(s).boot.generators_start.monotonic_usec;
    GeneratorsFinishTimestamp "t" Const = state(s).boot.generators_finish.realtime_usec;
    GeneratorsFinishTimestampMonotonic "t" Const = state(s).boot.generators_finish.monotonic_usec;
    UnitsLoadStartTimestamp "t" Const = state(s).boot.units_load_start.realtime_usec;
    UnitsLoadStartTimestampMonotonic "t" Const = state(s).boot.units_load_start.monotonic_usec;
    UnitsLoadFinishTimestamp "t" Const = state(s).boot.units_load_finish.realtime_usec;
    UnitsLoadFinishTimestampMonotonic "t" Const = state(s).boot.units_load_finish.monotonic_usec;
    UnitsLoadTimestamp "t" Const = NEVER.realtime_usec;
    UnitsLoadTimestampMonotonic "t" Const = NEVER.monotonic_usec;
    InitRDSecurityStartTimestamp "t" Const = NEVER.realtime_usec;
    InitRDSecurityStartTimestampMonotonic "t" Const = NEVER.monotonic_usec;
    InitRDSecurityFinishTimestamp "t" Const = NEVER.realtime_usec;
    InitRDSecurityFinishTimestampMonotonic "t" Const = NEVER.monotonic_usec;
    InitRDGeneratorsStartTimestamp "t" Const = state(s).initrd.generators_start.realtime_usec;
    InitRDGeneratorsStartTimestampMonotonic "t" Const = state(s).initrd.generators_start.monotonic_usec;
    InitRDGeneratorsFinishTimestamp "t" Const = state(s).initrd.generators_finish.realtime_usec;
    InitRDGeneratorsFinishTimestampMonotonic "t" Const = state(s).initrd.generators_finish.monotonic_usec;
    InitRDUnitsLoadStartTimestamp "t" Const = state(s).initrd.units_load_start.realtime_usec;
    InitRDUnitsLoadStartTimestampMonotonic "t" Const = state(s).initrd.units_load_start.monotonic_usec;
    InitRDUnitsLoadFinishTimestamp "t" Const = state(s).initrd.units_load_finish.realtime_usec;
    InitRDUnitsLoadFinishTimestampMonotonic "t" Const = state(s).initrd.units_load_finish.monotonic_usec;
    LogLevel "s" Never [writable] = log_level(s);
    LogTarget "s" Never [writable] = log_target(s);
    NNames "u" Never = state(s).names.len();
    NFailedUnits "u" Change = s.manager.failed_units();
    NJobs "u" Never = state(s).jobs.len();
    NInstalledJobs "u" Never = state(s).n_installed_jobs;
    NFailedJobs "u" Never = state(s).n_failed_jobs;
    Progress "d" Never = progress(s);
    Environment "as" Never = environment(s.manager);
    ConfirmSpawn "b" Const = false;
    ShowStatus "b" Never = state(s).show_status;
    UnitPath "as" Const [live] = s.live.unit_path();
    DefaultStandardOutput "s" Const = "journal";
    DefaultStandardError "s" Const = "inherit";
    WatchdogDevice "s" Const = state(s).hardware.device.as_str();
    WatchdogLastPingTimestamp "t" Never = last_ping(s).realtime_usec;
    WatchdogLastPingTimestampMonotonic "t" Never = last_ping(s).monotonic_usec;
    RuntimeWatchdogUSec "t" Never [writable] = s.manager.hardware_usec(Which::Runtime);
    RuntimeWatchdogPreUSec "t" Never [writable] = s.manager.hardware_usec(Which::Pre);
    RuntimeWatchdogPreGovernor "s" Never [writable] = s.manager.hardware_governor().unwrap_or_default();
    RebootWatchdogUSec "t" Never [writable] = s.manager.hardware_usec(Which::Reboot);
    KExecWatchdogUSec "t" Never [writable] = s.manager.hardware_usec(Which::Kexec);
    ServiceWatchdogs "b" Never [writable] = !state(s).no_service_watchdogs;
    ControlGroup "s" Never = state(s).facts.cgroup_root;
    SystemState "s" Never = s.manager.system_state().as_str();
    ExitCode "y" Never = state(s).exit_code;
    DefaultTimerAccuracyUSec "t" Const = state(s).facts.config.default_timer_accuracy_usec;
    DefaultTimeoutStartUSec "t" Const = state(s).facts.default_timeout_start_usec;
    DefaultTimeoutStopUSec "t" Const = state(s).facts.default_timeout_stop_usec;
    DefaultTimeoutAbortUSec "t" Never = state(s).facts.config.default_timeout_abort_usec.unwrap_or(state(s).facts.default_timeout_stop_usec);
    DefaultDeviceTimeoutUSec "t" Const = state(s).facts.config.default_device_timeout_usec;
    DefaultRestartUSec "t" Const = state(s).facts.default_restart_usec;
    DefaultStartLimitIntervalUSec "t" Const = state(s).facts.default_start_limit_interval_usec;
    DefaultStartLimitBurst "u" Const = state(s).facts.default_start_limit_burst;
    DefaultCPUAccounting "b" Const = state(s).facts.config.default_cpu_accounting;
    DefaultBlockIOAccounting "b" Const = state(s).facts.config.default_block_io_accounting;
    DefaultIOAccounting "b" Const = state(s).facts.config.default_io_accounting;
    DefaultIPAccounting "b" Const = state(s).facts.config.default_ip_accounting;
    DefaultMemoryAccounting "b" Const = state(s).facts.config.default_memory_accounting;
    DefaultTasksAccounting "b" Const = state(s).facts.config.default_tasks_accounting;
    DefaultTasksMax "t" Never = state(s).facts.default_tasks_max;
    DefaultMemoryPressureThresholdUSec "t" Never = state(s).facts.config.default_memory_pressure_threshold_usec;
    DefaultMemoryPressureWatch "s" Never = state(s).facts.config.default_memory_pressure_watch.as_str();
    TimerSlackNSec "t" Const = 50_000_u64;
    DefaultOOMPolicy "s" Const = state(s).facts.config.default_oom_policy.as_str();
    DefaultOOMScoreAdjust "i" Const = state(s).facts.config.default_exec.oom_score_adjust().map_or(0, |score| score.0);
    CtrlAltDelBurstAction "s" Const = state(s).facts.config.ctrl_alt_del_burst_action.as_str();
    SoftRebootsCount "u" Const = state(s).soft_reboots;
} }

macro_rules! default_limits {
    ($($hard:ident $soft:ident $name:literal;)*) => { properties! {
        /// `DefaultLimit*`: what services get that set no limit of their own.
        DEFAULT_LIMITS: Manager(s) { $(
            $hard "t" Const [live] = limit(s, $name, false);
            $soft "t" Const [live] = limit(s, $name, true);
        )* }
    } };
}
default_limits! {
    DefaultLimitCPU DefaultLimitCPUSoft "LimitCPU";
    DefaultLimitFSIZE DefaultLimitFSIZESoft "LimitFSIZE";
    DefaultLimitDATA DefaultLimitDATASoft "LimitDATA";
    DefaultLimitSTACK DefaultLimitSTACKSoft "LimitSTACK";
    DefaultLimitCORE DefaultLimitCORESoft "LimitCORE";
    DefaultLimitRSS DefaultLimitRSSSoft "LimitRSS";
    DefaultLimitNOFILE DefaultLimitNOFILESoft "LimitNOFILE";
    DefaultLimitAS DefaultLimitASSoft "LimitAS";
    DefaultLimitNPROC DefaultLimitNPROCSoft "LimitNPROC";
    DefaultLimitMEMLOCK DefaultLimitMEMLOCKSoft "LimitMEMLOCK";
    DefaultLimitLOCKS DefaultLimitLOCKSSoft "LimitLOCKS";
    DefaultLimitSIGPENDING DefaultLimitSIGPENDINGSoft "LimitSIGPENDING";
    DefaultLimitMSGQUEUE DefaultLimitMSGQUEUESoft "LimitMSGQUEUE";
    DefaultLimitNICE DefaultLimitNICESoft "LimitNICE";
    DefaultLimitRTPRIO DefaultLimitRTPRIOSoft "LimitRTPRIO";
    DefaultLimitRTTIME DefaultLimitRTTIMESoft "LimitRTTIME";
}

properties! { LOG_CONTROL: Manager(s) {
    LogLevel "s" Never [writable] = log_level(s);
    LogTarget "s" Never [writable] = log_target(s);
    SyslogIdentifier "s" Never = "systemd";
} }

signals! { SIGNALS {
    UnitNew("s" id, "o" unit);
    UnitRemoved("s" id, "o" unit);
    JobNew("u" id, "o" job, "s" unit);
    JobRemoved("u" id, "o" job, "s" unit, "s" result);
    StartupFinished("t" firmware, "t" loader, "t" kernel, "t" initrd, "t" userspace, "t" total);
    UnitFilesChanged();
    Reloading("b" active);
} }

/// The unit of an invocation id of 32 hex digits.
pub fn by_invocation<'a>(manager: &'a Manager, id: &str) -> Option<&'a Unit> {
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    manager.state().units.values().find(|unit| unit.invocation_id == id).map(Box::as_ref)
}

/// The last sign of life of the hardware watchdog; before the first one, no time.
fn last_ping(s: &ManagerView<'_>) -> Stamp {
    let known = &state(s).hardware;
    if known.last.monotonic_usec == 0 {
        Stamp { realtime_usec: u64::MAX, monotonic_usec: u64::MAX }
    } else {
        known.last
    }
}

/// The time of the hardware watchdog that a property sets.
fn watchdog_time(name: &str) -> Option<Which> {
    match name {
        "RuntimeWatchdogUSec" => Some(Which::Runtime),
        "RuntimeWatchdogPreUSec" => Some(Which::Pre),
        "RebootWatchdogUSec" => Some(Which::Reboot),
        "KExecWatchdogUSec" => Some(Which::Kexec),
        _ => None,
    }
}

/// Carries out `Set` of a writable property.
pub fn set_property(property: &Property, value: Value) -> Result<Action, Refusal> {
    match (property.name, value) {
        ("LogLevel", Value::Text(word)) => {
            let by_number = word.parse::<usize>().ok().and_then(|number| LEVELS.get(number));
            let level = by_number.or_else(|| LEVELS.iter().find(|level| **level == word));
            let level = level.ok_or_else(|| Refusal::invalid(format!("Invalid log level '{word}'")))?;
            Ok(Action::Request(Request::SetLogLevel { level: (*level).to_owned() }))
        }
        ("LogTarget", Value::Text(word)) => {
            match muster_manager::config::LOG_TARGETS.contains(&word.as_str()) {
                true => Ok(Action::Request(Request::SetLogTarget { target: word })),
                false => Err(Refusal::invalid(format!("Invalid log target '{word}'"))),
            }
        }
        ("ServiceWatchdogs", Value::Bool(on)) => Ok(Action::Request(Request::SetServiceWatchdogs { on })),
        ("RuntimeWatchdogPreGovernor", Value::Text(governor)) if !governor.contains('/') => {
            Ok(Action::Request(Request::SetHardwareGovernor { governor }))
        }
        (name, value) if watchdog_time(name).zip(value.as_number()).is_some() => {
            let set = watchdog_time(name).zip(value.as_number());
            let set = set.and_then(|(which, usec)| Some((which, u64::try_from(usec).ok()?)));
            let (which, usec) = set.ok_or_else(|| Refusal::invalid("Value out of range."))?;
            Ok(Action::Request(Request::SetHardwareWatchdog { which, usec }))
        }
        (name, _) => Err(Refusal::invalid(format!("Unexpected type for property '{name}'."))),
    }
}
