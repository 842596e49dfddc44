//! Refusals: D-Bus error names with the sentences that systemd says, since clients and people read both.
//!
//! Names are those of org.freedesktop.systemd1(5) and the D-Bus specification; `systemctl` turns some of them into
//! exit statuses, so a name must never be replaced by a similar one.

use muster_manager::Refused;
use muster_manager::effect::Reply;

/// Why a call was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// The D-Bus error name, in full.
    pub name: String,
    /// The sentence for people.
    pub message: String,
}

macro_rules! refusals {
    ($($(#[$meta:meta])* $function:ident($($argument:ident),*) = $name:literal, $message:literal;)*) => {
        impl Refusal {$(
            $(#[$meta])*
            pub fn $function($($argument: impl std::fmt::Display),*) -> Refusal {
                Refusal { name: $name.to_owned(), message: format!($message) }
            }
        )*}
    };
}
refusals! {
    /// `GetUnit` and kin.
    not_loaded(unit) = "org.freedesktop.systemd1.NoSuchUnit", "Unit {unit} not loaded.";
    /// A control group path that is nobody's.
    no_unit_for_cgroup(path) = "org.freedesktop.systemd1.NoSuchUnit",
        "Control group '{path}' is not valid or not managed by this instance";
    /// An unknown process.
    no_unit_for_pid(pid) = "org.freedesktop.systemd1.NoUnitForPID", "PID {pid} does not belong to any loaded unit.";
    /// An unknown invocation.
    no_unit_for_invocation(id) = "org.freedesktop.systemd1.NoUnitForInvocationID",
        "No unit with the specified invocation ID {id} known.";
    /// An unknown job.
    no_job(id) = "org.freedesktop.systemd1.NoSuchJob", "Job {id} does not exist.";
    /// `StartTransientUnit` of a name that is taken.
    unit_exists(unit) = "org.freedesktop.systemd1.UnitExists",
        "Unit {unit} was already loaded or has a fragment file.";
    /// `StopUnit` and kin with `RefuseManualStop=`.
    only_by_dependency(unit, verb) = "org.freedesktop.systemd1.OnlyByDependency",
        "Operation refused, unit {unit} may be requested by dependency only (it is configured to refuse manual {verb}).";
    /// A dynamic user that is not.
    no_dynamic_user(user) = "org.freedesktop.systemd1.NoSuchDynamicUser", "Dynamic user {user} does not exist.";
    /// The same, by number.
    no_dynamic_user_id(number) = "org.freedesktop.systemd1.NoSuchDynamicUser", "Dynamic user ID {number} does not exist.";
    /// Anything wrong with an argument.
    invalid(message) = "org.freedesktop.DBus.Error.InvalidArgs", "{message}";
    /// More than is taken at once.
    too_many(limit, what) = "org.freedesktop.DBus.Error.LimitsExceeded", "At most {limit} {what} at once.";
    /// What this unit type or this machine cannot do.
    not_supported(message) = "org.freedesktop.DBus.Error.NotSupported", "{message}";
    /// The caller may not.
    access_denied(message) = "org.freedesktop.DBus.Error.AccessDenied", "{message}";
    /// The caller may not without a password.
    interactive(message) = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "{message}";
    /// A method that is not there; clients fall back on older ones when they see this.
    unknown_method(member, interface) = "org.freedesktop.DBus.Error.UnknownMethod",
        "Unknown method {member} or interface {interface}.";
    /// An object that is not there.
    unknown_object(path) = "org.freedesktop.DBus.Error.UnknownObject", "Unknown object '{path}'.";
    /// An interface that is not there.
    unknown_interface(interface) = "org.freedesktop.DBus.Error.UnknownInterface", "Unknown interface '{interface}'.";
    /// A property that is not there.
    unknown_property(interface, property) = "org.freedesktop.DBus.Error.UnknownProperty",
        "Unknown interface {interface} or property {property}.";
    /// A property that cannot be set.
    not_writable(property) = "org.freedesktop.DBus.Error.PropertyReadOnly", "Property '{property}' is not writable.";
    /// A setting of a unit that cannot be given or changed over D-Bus. 254 and later retry on exactly this name.
    cannot_set(property) = "org.freedesktop.DBus.Error.PropertyReadOnly",
        "Cannot set property {property}, or unknown property.";
    /// Something for a service that does not run.
    not_mounted_inactive(source, destination, unit) = "org.freedesktop.systemd1.UnitInactive",
        "Live mounting '{source}' on '{destination}' for unit '{unit}' cannot be scheduled: unit not active";
    /// A file that is not there.
    no_file(message) = "org.freedesktop.DBus.Error.FileNotFound", "{message}";
    /// Something that went wrong at our end.
    failed(message) = "org.freedesktop.DBus.Error.Failed", "{message}";
}

impl Refusal {
    /// Arguments of another signature than the method's.
    pub fn signature(given: &str, interface: &str, member: &str, expected: &str) -> Refusal {
        Refusal::invalid(format!(
            "Invalid arguments '{given}' to call {interface}.{member}(), expecting '{expected}'."
        ))
    }
}

/// The names of the manager's reasons.
fn name_of(refused: &Refused) -> &str {
    match refused {
        Refused::NotFound { .. } | Refused::NotLoaded { .. } => "org.freedesktop.systemd1.NoSuchUnit",
        Refused::Masked { .. } => "org.freedesktop.systemd1.UnitMasked",
        Refused::BadSetting { .. } => "org.freedesktop.systemd1.BadUnitSetting",
        Refused::DependencyNotLoaded { .. } | Refused::LoadFailed { .. } => {
            "org.freedesktop.systemd1.LoadFailed"
        }
        Refused::NotApplicable { .. } => "org.freedesktop.systemd1.JobTypeNotApplicable",
        Refused::Conflicting { .. } => "org.freedesktop.systemd1.TransactionJobsConflicting",
        Refused::Cyclic => "org.freedesktop.systemd1.TransactionOrderIsCyclic",
        Refused::Destructive { .. } | Refused::Disturbing { .. } => {
            "org.freedesktop.systemd1.TransactionIsDestructive"
        }
        Refused::NoIsolation => "org.freedesktop.systemd1.NoIsolation",
        Refused::OnlyByDependency { .. } => "org.freedesktop.systemd1.OnlyByDependency",
        Refused::NothingToClean => "org.freedesktop.systemd1.NothingToClean",
        Refused::Busy { .. } | Refused::NotIdle => "org.freedesktop.systemd1.UnitBusy",
        Refused::NoJob { .. } => "org.freedesktop.systemd1.NoSuchJob",
        Refused::NoProcess { .. } => "org.freedesktop.systemd1.NoSuchProcess",
        Refused::FrozenByParent => "org.freedesktop.systemd1.FrozenByParent",
        Refused::ScopeNotRunning { .. } => "org.freedesktop.systemd1.ScopeNotRunning",
        Refused::NotActive => "org.freedesktop.systemd1.UnitInactive",
        Refused::Exists { .. } => "org.freedesktop.systemd1.UnitExists",
        Refused::NoFreezing | Refused::NoCleaning { .. } => "org.freedesktop.DBus.Error.NotSupported",
        Refused::NameTaken { .. } => "System.Error.EEXIST",
        Refused::TooManyInSlice { .. } => "org.freedesktop.systemd1.ConcurrencyLimitReached",
        Refused::TooManyJobs => "org.freedesktop.DBus.Error.LimitsExceeded",
        Refused::Nothing => "org.freedesktop.DBus.Error.Failed",
        Refused::IsolateStarts
        | Refused::TriggeringStops
        | Refused::RestartDependenciesStarts
        | Refused::SignalRange
        | Refused::SignalValue { .. }
        | Refused::BadEnvironment
        | Refused::BadLogLevel { .. }
        | Refused::BadSubgroup
        | Refused::NoUnit
        | Refused::NotTaken { .. } => "org.freedesktop.DBus.Error.InvalidArgs",
        Refused::NotWritten { why } => &why.name,
    }
}

impl From<&Refused> for Refusal {
    fn from(refused: &Refused) -> Refusal {
        Refusal { name: name_of(refused).to_owned(), message: refused.to_string() }
    }
}

impl Refusal {
    /// The refusal that an answer is, if it is one.
    pub fn of(reply: &Reply) -> Option<Refusal> {
        match reply {
            Reply::Refused(refused) => Some(refused.into()),
            Reply::Error { name, message } => Some(Refusal { name: name.clone(), message: message.clone() }),
            Reply::Done | Reply::Unit(_) | Reply::Job { .. } | Reply::Jobs(_) => None,
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        Reply::Error { name: refusal.name, message: refusal.message }
    }
}
