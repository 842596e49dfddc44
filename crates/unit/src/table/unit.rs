//! The tables of `[Unit]` and `[Install]`.
//! One row a directive: name(s) => field: type = default, whether it has an effect yet, whether specifiers are expanded.

use super::section;
use crate::setting::*;
use crate::value::*;

section! {
    /// `[Unit]` (systemd.unit(5)).
    UnitSection UnitRow "Unit" {
        "Description" => description: Option<String> = None, Applied Expand;
        "Documentation" => documentation: Vec<Reference> = Default::default(), Applied Expand;
        "SourcePath" => source_path: Option<AbsolutePath> = None, Applied Expand;
        "Requires" | "RequiresOverridable" => requires: Vec<UnitName> = Default::default(), Applied Expand;
        "Requisite" | "RequisiteOverridable" => requisite: Vec<UnitName> = Default::default(), Applied Expand;
        "Wants" => wants: Vec<UnitName> = Default::default(), Applied Expand;
        "BindsTo" | "BindTo" => binds_to: Vec<UnitName> = Default::default(), Applied Expand;
        "Upholds" => upholds: Vec<UnitName> = Default::default(), Applied Expand;
        "Conflicts" => conflicts: Vec<UnitName> = Default::default(), Applied Expand;
        "Before" => before: Vec<UnitName> = Default::default(), Applied Expand;
        "After" => after: Vec<UnitName> = Default::default(), Applied Expand;
        "OnSuccess" => on_success: Vec<UnitName> = Default::default(), Applied Expand;
        "OnFailure" => on_failure: Vec<UnitName> = Default::default(), Applied Expand;
        "PropagatesReloadTo" | "PropagateReloadTo" => propagates_reload_to: Vec<UnitName> = Default::default(), Applied Expand;
        "ReloadPropagatedFrom" | "PropagateReloadFrom" => reload_propagated_from: Vec<UnitName> = Default::default(), Applied Expand;
        "PropagatesStopTo" => propagates_stop_to: Vec<UnitName> = Default::default(), Applied Expand;
        "StopPropagatedFrom" => stop_propagated_from: Vec<UnitName> = Default::default(), Applied Expand;
        "PartOf" => part_of: Vec<UnitName> = Default::default(), Applied Expand;
        "JoinsNamespaceOf" => joins_namespace_of: Vec<UnitName> = Default::default(), Applied Expand;
        "RequiresMountsFor" => requires_mounts_for: Vec<AbsolutePath> = Default::default(), Applied Expand;
        "WantsMountsFor" => wants_mounts_for: Vec<AbsolutePath> = Default::default(), Applied Expand;
        "StopWhenUnneeded" => stop_when_unneeded: bool = false, Applied Raw;
        "RefuseManualStart" => refuse_manual_start: bool = false, Applied Raw;
        "RefuseManualStop" => refuse_manual_stop: bool = false, Applied Raw;
        "AllowIsolate" => allow_isolate: bool = false, Applied Raw;
        "DefaultDependencies" => default_dependencies: bool = true, Applied Raw;
        "SurviveFinalKillSignal" => survive_final_kill_signal: bool = false, Applied Raw;
        "OnSuccessJobMode" => on_success_job_mode: JobModeWord = JobModeWord::Fail, Applied Raw;
        "OnFailureJobMode" => on_failure_job_mode: JobModeWord = Default::default(), Applied Raw;
        "OnFailureIsolate" => on_failure_isolate: bool = false, Applied Raw;
        "IgnoreOnIsolate" => ignore_on_isolate: Option<bool> = None, Applied Raw;
        "JobTimeoutSec" => job_timeout_sec: Option<Timespan> = None, Applied Raw;
        "JobRunningTimeoutSec" => job_running_timeout_sec: Option<Timespan> = None, Applied Raw;
        "JobTimeoutAction" => job_timeout_action: EmergencyAction = Default::default(), Applied Raw;
        "JobTimeoutRebootArgument" => job_timeout_reboot_argument: Option<String> = None, Applied Expand;
        "StartLimitIntervalSec" | "StartLimitInterval" => start_limit_interval_sec: Option<Timespan> = None, Applied Raw;
        "StartLimitBurst" => start_limit_burst: Option<u32> = None, Applied Raw;
        "StartLimitAction" => start_limit_action: EmergencyAction = Default::default(), Applied Raw;
        "FailureAction" => failure_action: EmergencyAction = Default::default(), Applied Raw;
        "SuccessAction" => success_action: EmergencyAction = Default::default(), Applied Raw;
        "FailureActionExitStatus" => failure_action_exit_status: Option<u8> = None, Applied Raw;
        "SuccessActionExitStatus" => success_action_exit_status: Option<u8> = None, Applied Raw;
        "RebootArgument" => reboot_argument: Option<String> = None, Applied Expand;
        "CollectMode" => collect_mode: CollectMode = Default::default(), Applied Raw;
    } also {
        conditions: Vec<Condition>, "`Condition*=` and `Assert*=`.";
    }
}

section! {
    /// `[Install]` (systemd.unit(5)).
    InstallSection InstallRow "Install" {
        "Alias" => alias: Vec<String> = Default::default(), Applied Raw;
        "WantedBy" => wanted_by: Vec<String> = Default::default(), Applied Raw;
        "RequiredBy" => required_by: Vec<String> = Default::default(), Applied Raw;
        "UpheldBy" => upheld_by: Vec<String> = Default::default(), Applied Raw;
        "Also" => also: Vec<String> = Default::default(), Applied Raw;
        "DefaultInstance" => default_instance: Option<String> = None, Applied Raw;
    }
}
