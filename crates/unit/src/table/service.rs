//! The table of `[Service]`.
//! One row a directive: name(s) => field: type = default, whether it has an effect yet, whether specifiers are expanded.

use super::section;
use crate::setting::*;
use crate::value::*;

section! {
    /// `[Service]` (systemd.service(5)).
    ServiceSection ServiceRow "Service" {
        "PIDFile" => pid_file: Option<PidFilePath> = None, Applied Expand;
        "ExecCondition" => exec_condition: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecStartPre" => exec_start_pre: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecStart" => exec_start: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecStartPost" => exec_start_post: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecReload" => exec_reload: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecReloadPost" => exec_reload_post: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecStop" => exec_stop: Vec<ExecCommand> = Default::default(), Applied Expand;
        "ExecStopPost" => exec_stop_post: Vec<ExecCommand> = Default::default(), Applied Expand;
        "RestartSec" => restart_sec: Option<Timespan> = None, Applied Raw;
        "RestartSteps" => restart_steps: u32 = 0, Applied Raw;
        "RestartMaxDelaySec" => restart_max_delay_sec: Option<Timespan> = None, Applied Raw;
        "RestartRandomizedDelaySec" => restart_randomized_delay_sec: Option<Timespan> = None, Applied Raw;
        "TimeoutStartSec" => timeout_start_sec: Option<Timespan> = None, Applied Raw;
        "TimeoutStopSec" => timeout_stop_sec: Option<Timespan> = None, Applied Raw;
        "TimeoutAbortSec" => timeout_abort_sec: Option<Timespan> = None, Applied Raw;
        "TimeoutStartFailureMode" => timeout_start_failure_mode: TimeoutFailureMode = Default::default(), Applied Raw;
        "TimeoutStopFailureMode" => timeout_stop_failure_mode: TimeoutFailureMode = Default::default(), Applied Raw;
        "RuntimeMaxSec" => runtime_max_sec: Option<Timespan> = None, Applied Raw;
        "RuntimeRandomizedExtraSec" => runtime_randomized_extra_sec: Option<Timespan> = None, Applied Raw;
        "WatchdogSec" => watchdog_sec: Option<Timespan> = None, Applied Raw;
        "Type" => type_: Option<ServiceType> = None, Applied Raw;
        "ExitType" => exit_type: ExitType = Default::default(), Applied Raw;
        "Restart" => restart: Restart = Default::default(), Applied Raw;
        "RestartMode" => restart_mode: RestartMode = Default::default(), Applied Raw;
        "PermissionsStartOnly" => permissions_start_only: bool = false, Applied Raw;
        "RootDirectoryStartOnly" => root_directory_start_only: bool = false, Applied Raw;
        "RemainAfterExit" => remain_after_exit: bool = false, Applied Raw;
        "GuessMainPID" => guess_main_pid: bool = true, Applied Raw;
        "RestartPreventExitStatus" => restart_prevent_exit_status: Box<ExitStatusSet> = Default::default(), Applied Raw;
        "RestartForceExitStatus" => restart_force_exit_status: Box<ExitStatusSet> = Default::default(), Applied Raw;
        "SuccessExitStatus" => success_exit_status: Box<ExitStatusSet> = Default::default(), Applied Raw;
        "NonBlocking" => non_blocking: bool = false, Applied Raw;
        "BusName" => bus_name: Option<BusName> = None, Applied Expand;
        "FileDescriptorStoreMax" => file_descriptor_store_max: u32 = 0, Applied Raw;
        "FileDescriptorStorePreserve" => file_descriptor_store_preserve: FdStorePreserve = Default::default(), Applied Raw;
        "LUOSession" => luo_session: Vec<PlainName> = Default::default(), Stored Raw;
        "NotifyAccess" => notify_access: Option<NotifyAccess> = None, Applied Raw;
        "Sockets" => sockets: Vec<UnitName> = Default::default(), Applied Expand;
        "USBFunctionDescriptors" => usb_function_descriptors: Option<AbsolutePath> = None, Applied Expand;
        "USBFunctionStrings" => usb_function_strings: Option<AbsolutePath> = None, Applied Expand;
        "OOMPolicy" => oom_policy: Option<OomPolicy> = None, Applied Raw;
        "OpenFile" => open_file: Vec<OpenFile> = Default::default(), Applied Raw;
        "ReloadSignal" => reload_signal: Option<Signal> = None, Applied Raw;
        "Essential" => essential: bool = false, Applied Raw;
        "RefreshOnReload" => refresh_on_reload: Option<Refresh> = None, Applied Raw;
    }
}
