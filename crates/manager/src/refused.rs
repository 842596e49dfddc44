//! Why a request was refused: one variant a reason, with the sentence that systemd says.
//!
//! The names that D-Bus has for these reasons are not here but in `control`, in one table.

use crate::event::WriteError;
use muster_graph::{JobId, JobType};
use muster_unit::{Signal, UnitName};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! reasons {
    ($($(#[$meta:meta])* $name:ident $({ $($field:ident: $type:ty),* })? = $message:literal;)*) => {
        /// A request that was refused.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Refused {
            $($(#[$meta])* #[allow(missing_docs)] $name $({ $($field: $type),* })?,)*
        }

        impl fmt::Display for Refused {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Refused::$name $({ $($field),* })? => write!(f, $message),)* }
            }
        }
    };
}
reasons! {
    /// No such unit file.
    NotFound { unit: UnitName } = "Unit {unit} not found.";
    /// The unit is not known, and is not read for this.
    NotLoaded { unit: UnitName } = "Unit {unit} not loaded.";
    /// Masked.
    Masked { unit: UnitName } = "Unit {unit} is masked.";
    /// The unit was refused when it was read.
    BadSetting { unit: UnitName } = "Unit {unit} has a bad unit file setting.";
    /// The unit could not be read, and is needed for something else.
    DependencyNotLoaded { unit: UnitName } =
        "Unit {unit} failed to load properly, please adjust/correct and reload service manager.";
    /// Another service has its name on the bus.
    NameTaken { unit: UnitName } =
        "Unit {unit} failed to load properly, please adjust/correct and reload service manager: File exists";
    /// The unit could not be read.
    LoadFailed { unit: UnitName, why: String } = "Unit {unit} failed to load: {why}.";
    /// The unit's type, or the unit itself, does not know this job.
    NotApplicable { unit: UnitName, kind: Word<JobType> } = "Job type {kind} is not applicable for unit {unit}.";
    /// The request contradicts itself.
    Conflicting { unit: UnitName } = "Transaction contains conflicting jobs 'start' and 'stop' for {unit}. Probably contradicting requirement dependencies configured.";
    /// All jobs of an ordering cycle are needed.
    Cyclic = "Transaction order is cyclic. See system logs for details.";
    /// It would replace a job that may not be replaced.
    Destructive { anchor: UnitName, kind: Word<JobType>, unit: UnitName, queued: Word<JobType>, planned: Word<JobType> } =
        "Transaction for {anchor}/{kind} is destructive ({unit} has '{queued}' job queued, but '{planned}' is included in transaction).";
    /// It would stop something against its mode.
    Disturbing { anchor: UnitName, kind: Word<JobType>, unit: UnitName } =
        "Transaction for {anchor}/{kind} is destructive ({unit} is active, but 'stop' is included in transaction).";
    /// `AllowIsolate=no`.
    NoIsolation = "Operation refused, unit may not be isolated.";
    /// Job mode isolate with another job than start.
    IsolateStarts = "Isolate is only valid for start.";
    /// Job mode triggering with another job than stop.
    TriggeringStops = "--job-mode=triggering is only valid for stop.";
    /// Job mode restart-dependencies with another job than start.
    RestartDependenciesStarts = "--job-mode=restart-dependencies is only valid for start.";
    /// Too many jobs wait.
    TooManyJobs = "Too many jobs are queued.";
    /// `ConcurrencyHardMax=` of a slice.
    TooManyInSlice { unit: UnitName, slice: UnitName } = "Unit {unit} cannot be started: {slice} has as many units as ConcurrencyHardMax= allows.";
    /// Nothing was left of the request.
    Nothing = "The request came to nothing.";
    /// `RefuseManualStart=`, `RefuseManualStop=`.
    OnlyByDependency { unit: UnitName } = "Operation refused, unit {unit} may be requested by dependency only (it is configured to refuse manual start/stop).";
    /// Frozen.
    Busy { unit: UnitName } = "Cannot perform operation on frozen unit {unit}.";
    /// No such job.
    NoJob { job: Number } = "Job {job} does not exist.";
    /// No such signal.
    SignalRange = "Signal number out of range.";
    /// A value for a signal that carries none.
    SignalValue { signal: Word<Signal> } =
        "Value parameter only accepted for realtime signals (SIGRTMIN…SIGRTMAX), refusing for signal {signal}.";
    /// Nothing to signal.
    NoProcess { what: String } = "No {what} process to kill";
    /// Not an environment.
    BadEnvironment = "Invalid environment assignments";
    /// Not a log level.
    BadLogLevel { level: String } = "Invalid log level '{level}'";
    /// The unit's type has nothing that could be cleaned.
    NoCleaning { unit: UnitName } = "Unit '{unit}' does not support cleaning.";
    /// The unit has nothing of what is to be cleaned.
    NothingToClean = "No matching resources found.";
    /// The unit is up, or has a job.
    NotIdle = "Unit is not inactive or has pending job.";
    /// PID 1 is in it.
    NoFreezing = "Unit does not support freeze/thaw";
    /// A slice above is frozen.
    FrozenByParent = "Unit is frozen by a parent slice";
    /// Only a scope that runs can be abandoned.
    ScopeNotRunning { unit: UnitName } = "Scope {unit} is not running, cannot abandon.";
    /// The unit has no cgroup.
    NotActive = "Unit is not active";
    /// The unit has no cgroup, or the subgroup is not one.
    BadSubgroup = "Unit is not active, or the subgroup is not valid.";
    /// A transient unit of a name that is taken.
    Exists { unit: UnitName } = "Unit {unit} was already loaded or has a fragment file.";
    /// A transient unit without a unit.
    NoUnit = "No unit was given.";
    /// A setting that cannot be taken.
    NotTaken { directive: String, value: String, expected: String } = "{directive}={value}: expected {expected}";
    /// Files could not be written; the runtime says why.
    NotWritten { why: WriteError } = "{why}";
}

/// A value that is shown by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word<T>(pub T);

impl fmt::Display for Word<JobType> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl fmt::Display for Word<Signal> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name())
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The number of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number(pub JobId);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.0)
    }
}
