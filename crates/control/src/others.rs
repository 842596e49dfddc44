//! The interfaces of the smaller unit types.
//!
//! What a type shares with others (`cgroup`, `exec`) is not here.

use crate::command::Tool;
use crate::show::{Each, UNSET, or};
use crate::table::properties;
use crate::view::UnitView;
use crate::wire::Out;
use muster_manager::event::MountPoint;
use muster_manager::state::{ActiveState, CommandList, Mount};
use muster_manager::timer::monotonic_entries;

/// What the kernel says of a mount; it wins over the unit file.
fn mounted<'a>(u: &UnitView<'a>) -> Option<&'a MountPoint> {
    Mount::of(&u.unit.kind)?.mounted.as_ref()
}

/// Monotonic timers: the base's word, the span and the next moment.
fn monotonic(u: &UnitView<'_>) -> Vec<(&'static str, u64, u64)> {
    let each = &u.timer_state().monotonic_each;
    let entries = monotonic_entries(u.timer()).into_iter().enumerate();
    let next = |at: usize| each.get(at).copied().flatten().unwrap_or(0);
    // The last comes first.
    entries.rev().map(|(at, (base, span))| (base.as_str(), span, next(at))).collect()
}

fn monotonic_timer((word, span, next): (&'static str, u64, u64), out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(word);
        out.u64(span);
        out.u64(next);
    });
}

/// What is shown where there is no next moment: no time where a timer that waits has none of that kind.
fn never(u: &UnitView<'_>, has_some: bool) -> u64 {
    let waits = u.unit.active_state() == ActiveState::Active;
    if waits && !has_some { 0 } else { u64::MAX }
}

fn calendar(u: &UnitView<'_>) -> Vec<(String, u64)> {
    let each = &u.timer_state().calendar_each;
    let events = u.timer().on_calendar().iter().enumerate();
    let next = |at: usize| each.get(at).copied().flatten().unwrap_or(0);
    events.map(|(at, event)| (event.to_string(), next(at))).collect()
}

fn calendar_timer((text, next): (String, u64), out: &mut Out<'_>) {
    out.structure(|out| {
        out.str("OnCalendar");
        out.str(&text);
        out.u64(next);
    });
}

fn path_specs(u: &UnitView<'_>) -> Vec<(&'static str, String)> {
    let path = u.path();
    let kinds = [
        ("PathExists", &path.path_exists()),
        ("PathExistsGlob", &path.path_exists_glob()),
        ("PathChanged", &path.path_changed()),
        ("PathModified", &path.path_modified()),
        ("DirectoryNotEmpty", &path.directory_not_empty()),
    ];
    kinds.into_iter().flat_map(|(word, list)| list.0.iter().map(move |path| (word, path.0.clone()))).collect()
}

fn spec((word, path): (&'static str, String), out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(word);
        out.str(&path);
    });
}

properties! {
    /// Properties of mounts.
    MOUNT: Unit(u) {
        Where "s" Const = mounted(u).map_or_else(|| u.mount().where_().as_deref().unwrap_or_default().to_owned(), |mount| mount.place.clone());
        What "s" Change = mounted(u).map_or_else(|| u.mount().what().clone().unwrap_or_default(), |mount| mount.what.clone());
        Options "s" Change = mounted(u).map_or_else(|| u.mount().options().clone().unwrap_or_default(), |mount| mount.options.clone());
        Type "s" Change = mounted(u).map_or_else(|| u.mount().type_().clone().unwrap_or_default(), |mount| mount.fs_type.clone());
        TimeoutUSec "t" Const = or(&u.mount().timeout_sec(), i128::from(u.manager.state().facts.default_timeout_start_usec));
        ControlPID "u" Change = crate::command::pid(&u.mount_state().control);
        DirectoryMode "u" Const = u.mount().directory_mode().0;
        SloppyOptions "b" Const = u.mount().sloppy_options();
        LazyUnmount "b" Const = u.mount().lazy_unmount();
        ForceUnmount "b" Const = u.mount().force_unmount();
        ReadWriteOnly "b" Const = u.mount().read_write_only();
        Result "s" Change = u.unit.kind.state().result();
        UID "u" Change = u.unit.runs_as.map_or(u32::MAX, |(uid, _)| uid);
        GID "u" Change = u.unit.runs_as.map_or(u32::MAX, |(_, gid)| gid);
        ExecMount "a(sasbttttuii)" Invalidates = Tool(&u.mount_state().runs, CommandList::ExecMount);
        ExecUnmount "a(sasbttttuii)" Invalidates = Tool(&u.mount_state().runs, CommandList::ExecUnmount);
        ExecRemount "a(sasbttttuii)" Invalidates = Tool(&u.mount_state().runs, CommandList::ExecRemount);
    }
}

properties! {
    /// Properties of swaps.
    SWAP: Unit(u) {
        What "s" Change = u.swap_state().found.as_ref().map_or_else(|| u.swap().what().clone().unwrap_or_default(), |found| found.path.clone());
        Priority "i" Change = u.swap_state().found.as_ref().map_or_else(|| u.swap().priority().unwrap_or(-1), |found| found.priority);
        Options "s" Change = u.swap().options();
        TimeoutUSec "t" Const = or(&u.swap().timeout_sec(), i128::from(u.manager.state().facts.default_timeout_start_usec));
        ControlPID "u" Change = crate::command::pid(&u.swap_state().control);
        Result "s" Change = u.unit.kind.state().result();
        UID "u" Change = u.unit.runs_as.map_or(u32::MAX, |(uid, _)| uid);
        GID "u" Change = u.unit.runs_as.map_or(u32::MAX, |(_, gid)| gid);
        ExecActivate "a(sasbttttuii)" Invalidates = Tool(&u.swap_state().runs, CommandList::ExecActivate);
        ExecDeactivate "a(sasbttttuii)" Invalidates = Tool(&u.swap_state().runs, CommandList::ExecDeactivate);
    }
}

properties! {
    /// Properties of timers.
    TIMER: Unit(u) {
        Unit "s" Const = u.triggered();
        TimersMonotonic "a(stt)" Invalidates = Each(monotonic(u), monotonic_timer);
        TimersCalendar "a(sst)" Invalidates = Each(calendar(u), calendar_timer);
        OnClockChange "b" Const = u.timer().on_clock_change();
        OnTimezoneChange "b" Const = u.timer().on_timezone_change();
        NextElapseUSecRealtime "t" Change = u.timer_state().next_realtime_usec.unwrap_or_else(|| never(u, false));
        NextElapseUSecMonotonic "t" Change = u.timer_state().next_monotonic_usec.unwrap_or_else(|| never(u, !monotonic_entries(u.timer()).is_empty()));
        LastTriggerUSec "t" Change = u.timer_state().last_trigger.realtime_usec;
        LastTriggerUSecMonotonic "t" Change = u.timer_state().last_trigger.monotonic_usec;
        Result "s" Change = u.unit.kind.state().result();
        AccuracyUSec "t" Const = or(&u.timer().accuracy_sec(), 60_000_000);
        RandomizedDelayUSec "t" Const = or(&u.timer().randomized_delay_sec(), 0);
        FixedRandomDelay "b" Const = u.timer().fixed_random_delay();
        Persistent "b" Const = u.timer().persistent();
        WakeSystem "b" Const = u.timer().wake_system();
        RemainAfterElapse "b" Const = u.timer().remain_after_elapse();
        DeferReactivation "b" Const = u.timer().defer_reactivation();
    }
}

properties! {
    /// Properties of paths.
    PATH: Unit(u) {
        Unit "s" Const = u.triggered();
        Paths "a(ss)" Const = Each(path_specs(u), spec);
        MakeDirectory "b" Const = u.path().make_directory();
        DirectoryMode "u" Const = u.path().directory_mode().0;
        Result "s" Change = u.unit.kind.state().result();
        TriggerLimitIntervalUSec "t" Const = or(&u.path().trigger_limit_interval_sec(), 2_000_000);
        TriggerLimitBurst "u" Const = or(&u.path().trigger_limit_burst(), 200);
    }
}

properties! {
    /// Properties of automounts.
    AUTOMOUNT: Unit(u) {
        Where "s" Const = u.automount().where_();
        ExtraOptions "s" Const = u.automount().extra_options();
        DirectoryMode "u" Const = u.automount().directory_mode().0;
        Result "s" Change = u.unit.kind.state().result();
        TimeoutIdleUSec "t" Const = or(&u.automount().timeout_idle_sec(), 0);
    }
}

properties! {
    /// Properties of devices.
    DEVICE: Unit(u) {
        SysFSPath "s" Change = u.manager.device_of(&u.unit.name).map_or("", |device| device.syspath.as_str());
    }
}

properties! {
    /// Properties of scopes.
    SCOPE: Unit(u) {
        Controller "s" Change = u.scope_state().controller;
        TimeoutStopUSec "t" Const = or(&u.scope().timeout_stop_sec(), i128::from(u.manager.state().facts.default_timeout_stop_usec));
        Result "s" Change = u.unit.kind.state().result();
        RuntimeMaxUSec "t" Const = or(&u.scope().runtime_max_sec(), UNSET);
        RuntimeRandomizedExtraUSec "t" Const = or(&u.scope().runtime_randomized_extra_sec(), 0);
        OOMPolicy "s" Const = u.manager.oom_policy(u.unit.id).map_or("stop", |policy| policy.as_str());
    }
}
