//! `org.freedesktop.systemd1.Service`: `[Service]` and the state of a service.
//!
//! What services share with other types is in `cgroup` and `exec`.

use crate::command::{Commands, pid};
use crate::show::{Each, Emit, UNSET, or};
use crate::table::properties;
use crate::view::UnitView;
use crate::wire::Out;
use muster_manager::state::{CommandList, Stamp};
use muster_unit::{ExitStatusSet, ServiceType, Signal};

/// `(aiai)`: exit codes and signals.
struct Statuses<'a>(&'a ExitStatusSet);
impl Emit for Statuses<'_> {
    fn emit(self, _signature: &'static str, out: &mut Out<'_>) {
        out.structure(|out| {
            out.array("i", |out| self.0.codes.iter().for_each(|code| out.i32(i32::from(*code))));
            out.array("i", |out| self.0.signals.iter().for_each(|signal| out.i32(signal.0)));
        });
    }
}

fn is_loaded(u: &UnitView<'_>) -> bool {
    u.unit.file.is_whole()
}

/// `Type=`; of a unit that does not exist, nothing.
fn service_type(u: &UnitView<'_>) -> &'static str {
    if is_loaded(u) { u.service().effective_type().as_str() } else { "" }
}

fn oom_policy(u: &UnitView<'_>) -> &'static str {
    let policy = u.manager.oom_policy(u.unit.id).filter(|_| is_loaded(u));
    policy.map_or("", |policy| policy.as_str())
}

/// A oneshot service may start for as long as it likes.
fn timeout_start(u: &UnitView<'_>) -> i128 {
    let default = match u.service().effective_type() {
        ServiceType::Oneshot if is_loaded(u) => UNSET,
        _ => i128::from(u.manager.state().facts.default_timeout_start_usec),
    };
    or(&u.service().timeout_start_sec().filter(|span| is_loaded(u) || span.0 != u64::MAX), default)
}

fn timeout_stop(u: &UnitView<'_>) -> i128 {
    or(&u.service().timeout_stop_sec(), i128::from(u.manager.state().facts.default_timeout_stop_usec))
}

/// Infinite until a service without a watchdog first runs, then 0: systemd shows it so.
fn watchdog(u: &UnitView<'_>) -> i128 {
    let begun = u.unit.inactive_exit.monotonic_usec != 0;
    let configured = if begun { or(&u.service().watchdog_sec(), 0) } else { UNSET };
    or(&u.service_state().watchdog_override_usec, configured)
}

/// The last sign of life of a service that has to give some.
fn watchdog_stamp(u: &UnitView<'_>) -> Stamp {
    let watched = u.manager.watchdog_usec(u.unit.id).is_some();
    if watched { u.service_state().watchdog } else { Stamp::default() }
}

/// When the main process was made by us; a service that forks made it by itself.
fn handoff(u: &UnitView<'_>) -> Stamp {
    let forks = u.service().effective_type() == ServiceType::Forking;
    if forks { Stamp::default() } else { u.service_state().main_status.start }
}

/// `OpenFile=` as path, name and flags.
fn open_file(file: &muster_unit::OpenFile, out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&file.path);
        out.str(&file.name);
        out.u64(file.flags());
    });
}

properties! {
    /// Properties of services.
    SERVICE: Unit(u) {
        Type "s" Const = service_type(u);
        ExitType "s" Const = u.service().exit_type().as_str();
        Restart "s" Const = u.service().restart().as_str();
        RestartMode "s" Const = u.service().restart_mode().as_str();
        PIDFile "s" Const = u.service().pid_file();
        NotifyAccess "s" Change = u.manager.notify_access(u.unit.id).as_str();
        RestartUSec "t" Const = i128::from(u.manager.restart_usec(u.service()));
        RestartSteps "u" Const = u.service().restart_steps();
        RestartMaxDelayUSec "t" Const = or(&u.service().restart_max_delay_sec(), UNSET);
        RestartUSecNext "t" Never = i128::from(u.manager.restart_delay(u.unit.id));
        TimeoutStartUSec "t" Const = timeout_start(u);
        TimeoutStopUSec "t" Const = timeout_stop(u);
        TimeoutAbortUSec "t" Never = or(&u.service().timeout_abort_sec(), timeout_stop(u));
        TimeoutStartFailureMode "s" Const = u.service().timeout_start_failure_mode().as_str();
        TimeoutStopFailureMode "s" Const = u.service().timeout_stop_failure_mode().as_str();
        RuntimeMaxUSec "t" Const = or(&u.service().runtime_max_sec(), UNSET);
        RuntimeRandomizedExtraUSec "t" Const = or(&u.service().runtime_randomized_extra_sec(), 0);
        WatchdogUSec "t" Never = watchdog(u);
        WatchdogTimestamp "t" Never = watchdog_stamp(u).realtime_usec;
        WatchdogTimestampMonotonic "t" Never = watchdog_stamp(u).monotonic_usec;
        RootDirectoryStartOnly "b" Const = u.service().root_directory_start_only();
        RemainAfterExit "b" Const = u.service().remain_after_exit();
        GuessMainPID "b" Const = u.service().guess_main_pid();
        RestartPreventExitStatus "(aiai)" Const = Statuses(u.service().restart_prevent_exit_status());
        RestartForceExitStatus "(aiai)" Const = Statuses(u.service().restart_force_exit_status());
        SuccessExitStatus "(aiai)" Const = Statuses(u.service().success_exit_status());
        MainPID "u" Change = pid(&u.service_state().main);
        ControlPID "u" Change = pid(&u.service_state().control);
        BusName "s" Const = u.service().bus_name();
        FileDescriptorStoreMax "u" Const = u.service().file_descriptor_store_max();
        NFileDescriptorStore "u" Never = u.service_state().fd_store.len();
        FileDescriptorStorePreserve "s" Never = u.service().file_descriptor_store_preserve().as_str();
        StatusText "s" Change = u.service_state().status_text;
        StatusErrno "i" Change = u.service_state().status_errno;
        StatusBusError "s" Change = u.service_state().status_bus_error;
        StatusVarlinkError "s" Change = "";
        Result "s" Change = u.service_state().result;
        ReloadResult "s" Change = u.service_state().reload_result;
        CleanResult "s" Change = u.unit.clean_result.as_str();
        LiveMountResult "s" Change = "success";
        USBFunctionDescriptors "s" Const = u.service().usb_function_descriptors();
        USBFunctionStrings "s" Const = u.service().usb_function_strings();
        UID "u" Change = u.unit.runs_as.map_or(u32::MAX, |(uid, _)| uid);
        GID "u" Change = u.unit.runs_as.map_or(u32::MAX, |(_, gid)| gid);
        NRestarts "u" Change = u.service_state().restarts;
        OOMPolicy "s" Const = oom_policy(u);
        OpenFile "a(sst)" Const = Each(u.service().open_file(), open_file);
        ExtraFileDescriptorNames "as" Const = u.service_state().extra_fds.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>();
        RefreshOnReload "as" Const = u.service().refresh_on_reload().into_iter().flat_map(|refresh| refresh.words()).collect::<Vec<_>>();
        ReloadSignal "i" Const = u.service().reload_signal().unwrap_or(Signal::HUP).0;
        ExecMainStartTimestamp "t" Change = u.service_state().main_status.start.realtime_usec;
        ExecMainStartTimestampMonotonic "t" Change = u.service_state().main_status.start.monotonic_usec;
        ExecMainExitTimestamp "t" Change = u.service_state().main_status.exit.realtime_usec;
        ExecMainExitTimestampMonotonic "t" Change = u.service_state().main_status.exit.monotonic_usec;
        ExecMainHandoffTimestamp "t" Change = handoff(u).realtime_usec;
        ExecMainHandoffTimestampMonotonic "t" Change = handoff(u).monotonic_usec;
        ExecMainPID "u" Change = u.service_state().main_status.pid;
        ExecMainCode "i" Change = u.service_state().main_status.code_and_status().0;
        ExecMainStatus "i" Change = u.service_state().main_status.code_and_status().1;
        ExecCondition "a(sasbttttuii)" Invalidates = Commands::plain(u.service().exec_condition(), &u.service_state().command_status, CommandList::ExecCondition);
        ExecConditionEx "a(sasasttttuii)" Invalidates = Commands::flagged(u.service().exec_condition(), &u.service_state().command_status, CommandList::ExecCondition);
        ExecStartPre "a(sasbttttuii)" Invalidates = Commands::plain(u.service().exec_start_pre(), &u.service_state().command_status, CommandList::ExecStartPre);
        ExecStartPreEx "a(sasasttttuii)" Invalidates = Commands::flagged(u.service().exec_start_pre(), &u.service_state().command_status, CommandList::ExecStartPre);
        ExecStart "a(sasbttttuii)" Invalidates = Commands::plain(u.service().exec_start(), &u.service_state().command_status, CommandList::ExecStart);
        ExecStartEx "a(sasasttttuii)" Invalidates = Commands::flagged(u.service().exec_start(), &u.service_state().command_status, CommandList::ExecStart);
        ExecStartPost "a(sasbttttuii)" Invalidates = Commands::plain(u.service().exec_start_post(), &u.service_state().command_status, CommandList::ExecStartPost);
        ExecStartPostEx "a(sasasttttuii)" Invalidates = Commands::flagged(u.service().exec_start_post(), &u.service_state().command_status, CommandList::ExecStartPost);
        ExecReload "a(sasbttttuii)" Invalidates = Commands::plain(u.service().exec_reload(), &u.service_state().command_status, CommandList::ExecReload);
        ExecReloadEx "a(sasasttttuii)" Invalidates = Commands::flagged(u.service().exec_reload(), &u.service_state().command_status, CommandList::ExecReload);
        ExecStop "a(sasbttttuii)" Invalidates = Commands::plain(u.service().exec_stop(), &u.service_state().command_status, CommandList::ExecStop);
        ExecStopEx "a(sasasttttuii)" Invalidates = Commands::flagged(u.service().exec_stop(), &u.service_state().command_status, CommandList::ExecStop);
        ExecStopPost "a(sasbttttuii)" Invalidates = Commands::plain(u.service().exec_stop_post(), &u.service_state().command_status, CommandList::ExecStopPost);
        ExecStopPostEx "a(sasasttttuii)" Invalidates = Commands::flagged(u.service().exec_stop_post(), &u.service_state().command_status, CommandList::ExecStopPost);
    }
}
