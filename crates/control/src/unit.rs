//! `org.freedesktop.systemd1.Unit`: what all units show. Job's interface is here too.
//!
//! Names and types are those of systemd 257, in its order; a test compares them.

use crate::show::{Each, HexId, Texts, UNSET, With, or};
use crate::table::properties;
use crate::view::UnitView;
use crate::wire::Out;
use muster_graph::Dependency;
use muster_unit::{Body, LoadState, UnitKind};
use std::collections::BTreeSet;

fn names(u: &UnitView<'_>) -> Vec<String> {
    let mut names: BTreeSet<&str> = u.unit.file.names.iter().map(|name| name.as_str()).collect();
    names.insert(u.unit.name.as_str());
    names.into_iter().map(str::to_owned).collect()
}

/// The names of the units that this one has a kind of dependency on, sorted as a person reads them.
struct Related<'a>(&'a UnitView<'a>, Dependency);
impl Texts for Related<'_> {
    fn texts(&self, out: &mut Out<'_>) {
        let mut names: Vec<&str> = self.0.related(self.1).into_iter().map(|name| name.as_str()).collect();
        names.sort_unstable();
        out.strings(names);
    }
}

fn is_loaded(u: &UnitView<'_>) -> bool {
    u.unit.file.load_state == LoadState::Loaded
}

fn can_start(u: &UnitView<'_>) -> bool {
    let by_kind = !matches!(u.unit.name.kind(), UnitKind::Device | UnitKind::Scope);
    is_loaded(u)
        && by_kind
        && u.manager.supports(u.unit.name.kind())
        && !u.unit.file.unit.refuse_manual_start()
}

fn can_stop(u: &UnitView<'_>) -> bool {
    let by_kind = u.unit.name.kind() != UnitKind::Device && u.manager.supports(u.unit.name.kind());
    by_kind && !u.unit.perpetual && !u.unit.file.unit.refuse_manual_stop()
}

fn can_reload(u: &UnitView<'_>) -> bool {
    u.manager.can_reload(u.unit.id)
}

fn can_freeze(u: &UnitView<'_>) -> bool {
    // Who would thaw the root, or us?
    matches!(u.unit.name.kind(), UnitKind::Service | UnitKind::Slice | UnitKind::Scope) && !u.unit.perpetual
}

fn job(u: &UnitView<'_>, out: &mut Out<'_>) {
    let job = u.manager.state().jobs.of(u.unit.id).map(|job| job.id);
    out.structure(|out| {
        out.u32(job.map_or(0, |job| job.0));
        out.path(&job.map_or_else(|| "/".to_owned(), crate::path::of_job));
    });
}

/// `Conditions` or `Asserts`: name, trigger, negate, parameter, and 1 met, -1 not met, 0 not tested.
fn conditions(u: &UnitView<'_>, asserts: bool, out: &mut Out<'_>) {
    // The last comes first, and with the first that fails the rest is not looked at.
    let listed = u.unit.file.unit.conditions().iter().enumerate().rev();
    let mut over = false;
    out.array("(sbbsi)", |out| {
        for (at, condition) in listed.filter(|(_, condition)| condition.assert == asserts) {
            let result = u.unit.condition_each.get(at).copied().unwrap_or(0);
            out.structure(|out| {
                out.str(&condition.directive());
                out.bool(condition.trigger);
                out.bool(condition.negate);
                out.str(&condition.parameter);
                out.i32(if over { 0 } else { result });
            });
            over |= result < 0 && !condition.trigger;
        }
    });
}

/// Why a unit is not loaded, as a D-Bus error.
fn load_error(u: &UnitView<'_>, out: &mut Out<'_>) {
    let unit = &u.unit.name;
    // The reason itself is in the log, and in `Diagnostics` of org.muster1.Unit.
    let (name, text) = match u.unit.file.load_state.as_str() {
        "not-found" => ("org.freedesktop.systemd1.NoSuchUnit", format!("Unit {unit} not found.")),
        "masked" => ("org.freedesktop.systemd1.UnitMasked", format!("Unit {unit} is masked.")),
        "bad-setting" => {
            ("org.freedesktop.systemd1.BadUnitSetting", format!("Unit {unit} has a bad unit file setting."))
        }
        "error" => (
            "org.freedesktop.systemd1.LoadFailed",
            format!("Unit {unit} failed to load properly, please adjust/correct and reload service manager."),
        ),
        _ => ("", String::new()),
    };
    out.structure(|out| {
        out.str(name);
        out.str(&text);
    });
}

fn fragment(u: &UnitView<'_>) -> String {
    u.unit.file.fragment_path.clone().unwrap_or_default()
}

fn need_daemon_reload(u: &UnitView<'_>) -> bool {
    u.live.has_changed(&u.unit.file)
}

/// Whether something can be mounted into its processes' view: they have one of their own.
fn can_live_mount(u: &UnitView<'_>) -> bool {
    matches!(&u.unit.file.body, Body::Service(_)) && is_loaded(u) && u.exec().has_mount_namespace()
}

/// The preset of a unit with a file, be it one that masks it.
fn preset(u: &UnitView<'_>) -> String {
    let said = u.live.unit_file_preset(u.unit.name.as_str());
    let has_file = u.unit.transient || u.unit.file.load_state == LoadState::Masked;
    if said.is_empty() && has_file && u.unit.name.as_str() != "init.scope" {
        "enabled".to_owned()
    } else {
        said
    }
}

fn file_state(u: &UnitView<'_>) -> String {
    if u.unit.transient { "transient".to_owned() } else { u.live.unit_file_state(u.unit.name.as_str()) }
}

fn source_path(u: &UnitView<'_>) -> String {
    u.unit.file.unit.source_path().as_deref().unwrap_or_default().to_owned()
}

/// `DefaultDependencies=` and jobs of devices: a device is not waited for without end.
fn job_running_timeout(u: &UnitView<'_>) -> i128 {
    let default = if u.unit.name.kind() == UnitKind::Device {
        i128::from(u.manager.state().facts.config.default_device_timeout_usec)
    } else {
        UNSET
    };
    or(&u.unit.file.unit.job_running_timeout_sec(), default)
}

/// Whether isolating another unit leaves this one; the default depends on the type.
fn ignore_on_isolate(u: &UnitView<'_>) -> bool {
    let usual = || muster_manager::kind::ignores_isolate(u.unit.name.kind());
    u.unit.file.unit.ignore_on_isolate().unwrap_or_else(usual)
}

/// Writes a pair of texts.
pub fn pair(item: &(String, String), out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&item.0);
        out.str(&item.1);
    });
}

properties! {
    /// Properties of every unit.
    UNIT: Unit(u) {
        Id "s" Const = u.unit.name;
        Names "as" Const = names(u);
        Following "s" Never = u.manager.device_followed_by(&u.unit.name).map_or_else(String::new, |name| name.to_string());
        Requires "as" Const = Related(u, Dependency::Requires);
        Requisite "as" Const = Related(u, Dependency::Requisite);
        Wants "as" Const = Related(u, Dependency::Wants);
        BindsTo "as" Const = Related(u, Dependency::BindsTo);
        PartOf "as" Const = Related(u, Dependency::PartOf);
        Upholds "as" Const = Related(u, Dependency::Upholds);
        RequiredBy "as" Const = Related(u, Dependency::RequiredBy);
        RequisiteOf "as" Const = Related(u, Dependency::RequisiteOf);
        WantedBy "as" Const = Related(u, Dependency::WantedBy);
        BoundBy "as" Const = Related(u, Dependency::BoundBy);
        UpheldBy "as" Const = Related(u, Dependency::UpheldBy);
        ConsistsOf "as" Const = Related(u, Dependency::ConsistsOf);
        Conflicts "as" Const = Related(u, Dependency::Conflicts);
        ConflictedBy "as" Const = Related(u, Dependency::ConflictedBy);
        Before "as" Const = Related(u, Dependency::Before);
        After "as" Const = Related(u, Dependency::After);
        OnSuccess "as" Const = Related(u, Dependency::OnSuccess);
        OnSuccessOf "as" Const = Related(u, Dependency::OnSuccessOf);
        OnFailure "as" Const = Related(u, Dependency::OnFailure);
        OnFailureOf "as" Const = Related(u, Dependency::OnFailureOf);
        Triggers "as" Const = Related(u, Dependency::Triggers);
        TriggeredBy "as" Const = Related(u, Dependency::TriggeredBy);
        PropagatesReloadTo "as" Const = Related(u, Dependency::PropagatesReloadTo);
        ReloadPropagatedFrom "as" Const = Related(u, Dependency::ReloadPropagatedFrom);
        PropagatesStopTo "as" Const = Related(u, Dependency::PropagatesStopTo);
        StopPropagatedFrom "as" Const = Related(u, Dependency::StopPropagatedFrom);
        JoinsNamespaceOf "as" Const = Related(u, Dependency::JoinsNamespaceOf);
        SliceOf "as" Const = Related(u, Dependency::SliceOf);
        RequiresMountsFor "as" Const = u.unit.file.unit.requires_mounts_for();
        WantsMountsFor "as" Const = u.unit.file.unit.wants_mounts_for();
        Documentation "as" Const = u.unit.file.unit.documentation();
        Description "s" Const = u.unit.description().into_owned();
        AccessSELinuxContext "s" Const = "";
        LoadState "s" Const = u.unit.file.load_state.as_str();
        ActiveState "s" Change = u.unit.active_state();
        FreezerState "s" Change = u.manager.freezer_shown(u.unit);
        SubState "s" Change = u.unit.sub_state();
        FragmentPath "s" Const = fragment(u);
        SourcePath "s" Const = source_path(u);
        DropInPaths "as" Const = u.unit.file.drop_in_paths;
        UnitFileState "s" Never [live] = file_state(u);
        UnitFilePreset "s" Never [live] = preset(u);
        StateChangeTimestamp "t" Change = u.unit.state_change.realtime_usec;
        StateChangeTimestampMonotonic "t" Change = u.unit.state_change.monotonic_usec;
        InactiveExitTimestamp "t" Change = u.unit.inactive_exit.realtime_usec;
        InactiveExitTimestampMonotonic "t" Change = u.unit.inactive_exit.monotonic_usec;
        ActiveEnterTimestamp "t" Change = u.unit.active_enter.realtime_usec;
        ActiveEnterTimestampMonotonic "t" Change = u.unit.active_enter.monotonic_usec;
        ActiveExitTimestamp "t" Change = u.unit.active_exit.realtime_usec;
        ActiveExitTimestampMonotonic "t" Change = u.unit.active_exit.monotonic_usec;
        InactiveEnterTimestamp "t" Change = u.unit.inactive_enter.realtime_usec;
        InactiveEnterTimestampMonotonic "t" Change = u.unit.inactive_enter.monotonic_usec;
        CanStart "b" Const = can_start(u);
        CanStop "b" Const = can_stop(u);
        CanReload "b" Const = can_reload(u);
        CanIsolate "b" Const = is_loaded(u) && u.unit.file.unit.allow_isolate();
        CanClean "as" Const = muster_manager::directories::can_clean(u.unit);
        CanFreeze "b" Const = can_freeze(u);
        CanLiveMount "b" Const = can_live_mount(u);
        Job "(uo)" Change = With(|out: &mut Out<'_>| job(u, out));
        StopWhenUnneeded "b" Const = u.unit.file.unit.stop_when_unneeded();
        RefuseManualStart "b" Const = u.unit.file.unit.refuse_manual_start();
        RefuseManualStop "b" Const = u.unit.file.unit.refuse_manual_stop();
        AllowIsolate "b" Const = u.unit.file.unit.allow_isolate();
        DefaultDependencies "b" Const = u.unit.file.unit.default_dependencies();
        SurviveFinalKillSignal "b" Const = u.unit.file.unit.survive_final_kill_signal();
        OnSuccessJobMode "s" Const = u.unit.file.unit.on_success_job_mode().as_str();
        OnFailureJobMode "s" Const = u.unit.file.unit.failure_job_mode().as_str();
        IgnoreOnIsolate "b" Const = ignore_on_isolate(u);
        NeedDaemonReload "b" Never = need_daemon_reload(u);
        Markers "as" Never = u.unit.marks.words();
        JobTimeoutUSec "t" Const = or(&u.unit.file.unit.job_timeout_sec(), UNSET);
        JobRunningTimeoutUSec "t" Const = job_running_timeout(u);
        JobTimeoutAction "s" Const = u.unit.file.unit.job_timeout_action().as_str();
        JobTimeoutRebootArgument "s" Const = u.unit.file.unit.job_timeout_reboot_argument();
        ConditionResult "b" Change = u.unit.condition_result;
        AssertResult "b" Change = u.unit.assert_result;
        ConditionTimestamp "t" Change = u.unit.condition_stamp.realtime_usec;
        ConditionTimestampMonotonic "t" Change = u.unit.condition_stamp.monotonic_usec;
        AssertTimestamp "t" Change = u.unit.assert_stamp.realtime_usec;
        AssertTimestampMonotonic "t" Change = u.unit.assert_stamp.monotonic_usec;
        Conditions "a(sbbsi)" Invalidates = With(|out: &mut Out<'_>| conditions(u, false, out));
        Asserts "a(sbbsi)" Invalidates = With(|out: &mut Out<'_>| conditions(u, true, out));
        LoadError "(ss)" Const = With(|out: &mut Out<'_>| load_error(u, out));
        Transient "b" Const = u.unit.transient || u.unit.name.as_str() == "init.scope";
        Perpetual "b" Const = u.unit.perpetual;
        StartLimitIntervalUSec "t" Const = or(&u.unit.file.unit.start_limit_interval_sec(), i128::from(u.manager.state().facts.default_start_limit_interval_usec));
        StartLimitBurst "u" Const = u.unit.file.unit.start_limit_burst().unwrap_or(u.manager.state().facts.default_start_limit_burst);
        StartLimitAction "s" Const = u.unit.file.unit.start_limit_action().as_str();
        FailureAction "s" Const = u.unit.file.unit.failure_action().as_str();
        FailureActionExitStatus "i" Const = or(&u.unit.file.unit.failure_action_exit_status(), -1);
        SuccessAction "s" Const = u.unit.file.unit.success_action().as_str();
        SuccessActionExitStatus "i" Const = or(&u.unit.file.unit.success_action_exit_status(), -1);
        RebootArgument "s" Const = u.unit.file.unit.reboot_argument();
        InvocationID "ay" Change = HexId(&u.unit.invocation_id);
        CollectMode "s" Const = u.unit.file.unit.collect_mode().as_str();
        Refs "as" Never = ();
        ActivationDetails "a(ss)" Change = Each(&u.unit.activation_details, pair);
        DebugInvocation "b" Never = false;
    }
}

properties! {
    /// Properties of every job.
    JOB: Job(j) {
        Id "u" Const = j.job.id.0;
        Unit "(so)" Const = With(|out: &mut Out<'_>| {
            let unit = j.unit_name();
            out.structure(|out| {
                out.str(&unit);
                out.path(&crate::path::of_unit(&unit));
            });
        });
        JobType "s" Const = j.job.kind.as_str();
        State "s" Change = if j.job.running { "running" } else { "waiting" };
        ActivationDetails "a(ss)" Const = crate::show::Empty;
    }
}
