//! The directive table: every directive declared once, and all that follows from the row.
//!
//! A row gives the name (and old names), the typed field, the default, whether the directive has an effect in this
//! version (`Applied`) or is only kept (`Stored`), and whether specifiers are expanded in it. An empty value takes a
//! field back to its default; a list appends. What does not fit a row, because several directives fill one list, stands
//! in the table under `also`.

mod cgroup;
mod exec;
mod muster;
mod others;
mod service;
mod socket;
mod unit;

pub use cgroup::{CGroupRow, CGroupSection, listed, newer_name};
pub use exec::{ExecRow, ExecSection, KillRow, KillSection};
pub use muster::{MUSTER_ROWS, MusterRow};
pub use others::{
    AutomountRow, AutomountSection, MountRow, MountSection, PathRow, PathSection, ScopeRow, ScopeSection,
    SliceRow, SliceSection, SwapRow, SwapSection, TimerRow, TimerSection,
};
pub use service::{ServiceRow, ServiceSection};
pub use socket::{SocketRow, SocketSection};
pub use unit::{InstallRow, InstallSection, UnitRow, UnitSection};

use crate::diagnostic::{Code, Fault};
use crate::setting::Context;
use crate::value::{
    CapabilitySet, Condition, ConditionKind, FdStorePreserve, JobModeWord, Listen, ListenKind, PrivateTmp,
    ServiceType, StdInput, StdOutput, capability_number,
};

/// Whether a directive does something in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what the manual says.
    Applied,
    /// The same, under an older name; systemd 257 warns of these and knows a newer one.
    Older,
    /// It is parsed and shown, and has no effect yet; the unit says so.
    Stored,
    /// systemd ignores it too.
    Ignored,
}

/// One row, for coverage and documentation.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The group of the reference: `Unit`, `Service`, `Exec` …
    pub section: &'static str,
    /// The directive.
    pub name: &'static str,
    /// What it does here.
    pub effect: Effect,
    /// The type of its value, as the table has it; empty for what fills a list together with others.
    pub value: &'static str,
}

/// Why what is stored has no effect.
const REASONS: &[(&str, &str)] = &[
    ("OOMRules", "no systemd-oomd of Debian 13 knows rules; newer than systemd 257"),
    ("LUOSession", "needs a kernel that hands over live (Linux 6.19); newer than systemd 257"),
];

impl Row {
    /// Why it has no effect, where it has none.
    pub fn reason(&self) -> Option<&'static str> {
        let stored = || REASONS.iter().find(|(part, _)| self.name.contains(part)).map(|(_, reason)| *reason);
        match self.effect {
            Effect::Applied | Effect::Older => None,
            Effect::Stored => stored(),
            Effect::Ignored if self.name.starts_with("Utmp") => {
                Some("Debian 13 has no utmp, and systemd there is built without")
            }
            Effect::Ignored if self.name.ends_with("Accounting") => {
                Some("the unified tree counts always; systemd ignores it there as well")
            }
            Effect::Ignored => Some("of old unit files; systemd ignores it as well"),
        }
    }

    /// The same row with the section where it is written: what muster adds is written in one of its own.
    fn as_written(self) -> Row {
        let mine = MUSTER_ROWS.iter().any(|mine| mine.section == self.section && mine.name == self.name);
        Row { section: if mine { "X-Muster" } else { self.section }, ..self }
    }
}

/// How an assignment went.
pub type Assigned = Result<Effect, Fault>;

/// A section of a unit: what is set of the rows of its table, and nothing else.
pub trait Section: Default {
    /// Lets go of what says no more than the default, so that equal meaning is equal memory.
    fn prune(&mut self);
}

/// A section being changed. A row that is as by default when this goes out of scope is not kept.
#[derive(Debug)]
pub struct Edit<'a, S: Section>(&'a mut S);

impl<S: Section> Drop for Edit<'_, S> {
    fn drop(&mut self) {
        self.0.prune();
    }
}

// A section holds the rows that are set, in the order of the table, and no room for the others: a new row costs a unit
// that does not set it nothing. `section.row()` is the value that is set or else the default; `section.edit().row()` is
// a place to write to; `Section::of([Row::row(value)])` makes one.
macro_rules! section {
    ($(#[$meta:meta])* $type:ident $row:ident $section:literal {
        $($name:literal $(| $alias:literal)* => $field:ident: $ty:ty = $default:expr, $effect:ident $spec:ident;)*
    } $(also { $($extra:ident: $extra_ty:ty, $says:literal;)* })?) => {
        #[doc = concat!("One row of [`", stringify!($type), "`] with its value.")]
        #[derive(Clone, Debug, PartialEq)]
        #[allow(non_camel_case_types)] // the names of the rows
        pub enum $row {
            $(#[doc = concat!("`", $name, "=`.")] $field($ty),)*
            $($(#[doc = $says] $extra($extra_ty),)*)?
        }
        impl $row {
            /// Its place in the table.
            fn place(&self) -> u16 {
                #[allow(non_camel_case_types)]
                enum Place { $($field,)* $($($extra,)*)? }
                match self {
                    $($row::$field(_) => Place::$field as u16,)*
                    $($($row::$extra(_) => Place::$extra as u16,)*)?
                }
            }
            fn is_default(&self) -> bool {
                match self {
                    $($row::$field(value) => { let default: $ty = $default; *value == default })*
                    $($($row::$extra(value) => *value == <$extra_ty>::default(),)*)?
                }
            }
        }
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $type {
            /// Ordered by place, each at most once, none as by default.
            set: Box<[$row]>,
        }
        impl super::Section for $type {
            fn prune(&mut self) {
                if self.set.iter().any($row::is_default) {
                    let mut rows = std::mem::take(&mut self.set).into_vec();
                    rows.retain(|row| !row.is_default());
                    self.set = rows.into_boxed_slice();
                }
            }
        }
        // By hand: the derived code for this many fields would be a quarter of PID 1.
        impl serde::Serialize for $type {
            /// What is not as by default.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = serializer.serialize_map(Some(self.set.len()))?;
                for row in &self.set {
                    match row {
                        $($row::$field(value) => map.serialize_entry(stringify!($field), value)?,)*
                        $($($row::$extra(value) => map.serialize_entry(stringify!($extra), value)?,)*)?
                    }
                }
                map.end()
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $type;
                    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        out.write_str($section)
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$type, A::Error> {
                        let mut rows = Vec::new();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $(stringify!($field) => rows.push($row::$field(map.next_value()?)),)*
                                $($(stringify!($extra) => rows.push($row::$extra(map.next_value()?)),)*)?
                                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                            }
                        }
                        Ok($type::of(rows))
                    }
                }
                deserializer.deserialize_map(Fields)
            }
        }
        impl $type {
            /// The rows of this table.
            pub const ROWS: &'static [super::Row] = &[
                $(super::Row { section: $section, name: $name, effect: super::Effect::$effect, value: stringify!($ty) },
                  $(super::Row {
                      section: $section, name: $alias, effect: super::Effect::$effect, value: stringify!($ty),
                  },)*)*
            ];
            /// A section of these rows; of two that are the same the later one counts.
            pub fn of(rows: impl IntoIterator<Item = $row>) -> $type {
                let mut rows: Vec<$row> = rows.into_iter().collect();
                rows.reverse();
                rows.sort_by_key($row::place);
                rows.dedup_by_key(|row| row.place());
                rows.retain(|row| !row.is_default());
                $type { set: rows.into_boxed_slice() }
            }
            /// Adds a row that is not there yet.
            fn insert(&mut self, row: $row) {
                let mut rows = std::mem::take(&mut self.set).into_vec();
                let at = rows.partition_point(|other| other.place() < row.place());
                rows.reserve_exact(1);
                rows.insert(at, row);
                self.set = rows.into_boxed_slice();
            }
            /// Access for changes.
            pub fn edit(&mut self) -> super::Edit<'_, $type> {
                super::Edit(self)
            }
            /// Assigns one directive; `None` when it is not of this table. An empty value resets.
            pub fn assign(&mut self, key: &str, value: &str, context: &Context<'_>) -> Option<super::Assigned> {
                let done = match key {
                    $($name $(| $alias)* => {
                        let context = context.of(key, super::section!(@spec $spec));
                        let mut edit = self.edit();
                        let row = edit.$field();
                        let set = if value.is_empty() { row.reset($default); Ok(()) } else { row.set(value, &context) };
                        set.map(|()| super::Effect::$effect)
                    })*
                    _ => return super::section!(@also self key value context $($($extra)*)?),
                };
                Some(done)
            }
            $(super::section!(@read $row $field: $ty = $default, concat!("`", $name, "=`."));)*
            $($(super::section!(@read $row $extra: $extra_ty = Default::default(), $says);)*)?
        }
        impl super::Edit<'_, $type> {
            $(super::section!(@write $row $field: $ty = $default, concat!("`", $name, "=`."));)*
            $($(super::section!(@write $row $extra: $extra_ty = Default::default(), $says);)*)?
        }
    };
    (@read $row:ident $field:ident: $ty:ty = $default:expr, $says:expr) => {
        #[doc = $says]
        pub fn $field(&self) -> <$ty as crate::setting::Held>::Ref<'_> {
            for row in &self.set {
                if let $row::$field(value) = row {
                    return crate::setting::Held::held(value);
                }
            }
            static DEFAULT: std::sync::LazyLock<$ty> = std::sync::LazyLock::new(|| $default);
            crate::setting::Held::held(&*DEFAULT)
        }
    };
    (@write $row:ident $field:ident: $ty:ty = $default:expr, $says:expr) => {
        #[doc = $says]
        pub fn $field(&mut self) -> &mut $ty {
            if !self.0.set.iter().any(|row| matches!(row, $row::$field(_))) {
                self.0.insert($row::$field($default));
            }
            for row in &mut self.0.set {
                if let $row::$field(value) = row {
                    return value;
                }
            }
            // Not reached: the row was put there above.
            Box::leak(Box::new($default))
        }
    };
    (@also $this:ident $key:ident $value:ident $context:ident) => { None };
    (@also $this:ident $key:ident $value:ident $context:ident $($extra:ident)+) => {
        $this.assign_many($key, $value, $context)
    };
    (@spec Expand) => { true };
    (@spec Raw) => { false };
}
pub(crate) use section;

const LISTEN: &[(&str, ListenKind)] = &[
    ("ListenStream", ListenKind::Stream),
    ("ListenDatagram", ListenKind::Datagram),
    ("ListenSequentialPacket", ListenKind::SequentialPacket),
    ("ListenFIFO", ListenKind::Fifo),
    ("ListenNetlink", ListenKind::Netlink),
    ("ListenSpecial", ListenKind::Special),
    ("ListenMessageQueue", ListenKind::MessageQueue),
    ("ListenUSBFunction", ListenKind::UsbFunction),
];

/// At most this many addresses are kept of one socket unit; PID 1 has no descriptors for more.
pub const LISTEN_MAX: usize = 65_536;

impl ExecSection {
    fn assign_many(&mut self, _: &str, _: &str, _: &Context<'_>) -> Option<Assigned> {
        None
    }
}

impl SocketSection {
    /// `Listen*=`, which fill one list in the order of the file.
    fn assign_many(&mut self, key: &str, value: &str, context: &Context<'_>) -> Option<Assigned> {
        let (_, kind) = LISTEN.iter().find(|(name, _)| *name == key)?;
        Some(self.assign_listen(*kind, value, context))
    }

    fn assign_listen(&mut self, kind: ListenKind, value: &str, context: &Context<'_>) -> Assigned {
        let mut edit = self.edit();
        let listen = edit.listen();
        if value.is_empty() {
            listen.clear();
            return Ok(Effect::Applied);
        }
        if listen.len() >= LISTEN_MAX {
            let expected = format!("at most {LISTEN_MAX} addresses; this one is left out");
            return Err(Fault::new(Code::Limit, value, expected));
        }
        listen.push(Listen::parse(kind, &context.expand(value)?)?);
        Ok(Effect::Applied)
    }
}

impl UnitSection {
    /// `Condition*=` and `Assert*=`, which fill one list in the order of the file.
    fn assign_many(&mut self, key: &str, value: &str, context: &Context<'_>) -> Option<Assigned> {
        let (name, assert) = match key.strip_prefix("Condition") {
            Some(name) => (name, false),
            None => (key.strip_prefix("Assert")?, true),
        };
        Some(self.assign_condition(ConditionKind::from_name(name)?, assert, value, context))
    }

    fn assign_condition(
        &mut self,
        kind: ConditionKind,
        assert: bool,
        value: &str,
        context: &Context<'_>,
    ) -> Assigned {
        let mut edit = self.edit();
        let conditions = edit.conditions();
        if value.is_empty() {
            conditions.retain(|condition| condition.assert != assert);
        } else {
            conditions.push(Condition::parse(kind, assert, &context.expand(value)?)?);
        }
        Ok(Effect::Applied)
    }
}

/// Directives that systemd itself ignores today, by section.
pub const IGNORED: &[(&str, &str)] = &[
    ("Unit", "IgnoreOnSnapshot"),
    ("Service", "SysVStartPriority"),
    ("Service", "BusPolicy"),
    ("Exec", "Capabilities"),
    ("CGroup", "NetClass"),
];

/// Directives that stand for others: (section, name, section, names).
pub const REDIRECTED: &[(&str, &str, &str, &[&str])] = &[
    ("Service", "StartLimitInterval", "Unit", &["StartLimitIntervalSec"]),
    ("Service", "StartLimitBurst", "Unit", &["StartLimitBurst"]),
    ("Service", "StartLimitAction", "Unit", &["StartLimitAction"]),
    ("Service", "FailureAction", "Unit", &["FailureAction"]),
    ("Service", "RebootArgument", "Unit", &["RebootArgument"]),
    ("Service", "TimeoutSec", "Service", &["TimeoutStartSec", "TimeoutStopSec"]),
];

/// Every directive that is understood, in the order of the tables; what muster adds comes last.
pub fn rows() -> Vec<Row> {
    let tables: &[&[Row]] = &[
        UnitSection::ROWS,
        InstallSection::ROWS,
        ServiceSection::ROWS,
        SocketSection::ROWS,
        TimerSection::ROWS,
        PathSection::ROWS,
        MountSection::ROWS,
        AutomountSection::ROWS,
        SwapSection::ROWS,
        SliceSection::ROWS,
        ScopeSection::ROWS,
        ExecSection::ROWS,
        KillSection::ROWS,
        CGroupSection::ROWS,
    ];
    let mut rows: Vec<Row> = tables.concat();
    let row = |section, name, effect| Row { section, name, effect, value: "" };
    rows.extend(LISTEN.iter().map(|(name, _)| row("Socket", name, Effect::Applied)));
    rows.extend(ConditionKind::DIRECTIVES.iter().map(|name| row("Unit", name, Effect::Applied)));
    rows.extend(REDIRECTED.iter().map(|(section, name, _, _)| row(section, name, Effect::Applied)));
    rows.extend(IGNORED.iter().map(|(section, name)| row(section, name, Effect::Ignored)));
    let mut rows: Vec<Row> = rows.into_iter().map(Row::as_written).collect();
    rows.sort_by_key(|row| row.section == "X-Muster");
    rows
}

impl ServiceSection {
    /// `Type=`, or what its absence means: `dbus` with a bus name, `oneshot` without anything to start, else `simple`.
    pub fn effective_type(&self) -> ServiceType {
        match self.type_() {
            Some(kind) => kind,
            None if self.bus_name().is_some() => ServiceType::Dbus,
            None if self.exec_start().is_empty() => ServiceType::Oneshot,
            None => ServiceType::Simple,
        }
    }

    /// Whether stored descriptors outlive the end of a run, which another one may follow, or which failed for good.
    pub fn keeps_fd_store(&self, restarts: bool, failed: bool) -> bool {
        match self.file_descriptor_store_preserve() {
            FdStorePreserve::Yes => true,
            FdStorePreserve::OnSuccess => restarts || !failed,
            FdStorePreserve::Restart => restarts,
            FdStorePreserve::No => false,
        }
    }
}

impl UnitSection {
    /// `OnFailureJobMode=`, or what its older form `OnFailureIsolate=` says.
    pub fn failure_job_mode(&self) -> JobModeWord {
        if self.on_failure_isolate() { JobModeWord::Isolate } else { self.on_failure_job_mode() }
    }
}

impl ExecSection {
    /// The terminal that the processes of a unit have to do with.
    pub fn terminal(&self) -> Option<&str> {
        let output = |output: &StdOutput| *output == StdOutput::Tty;
        let uses = self.tty_path().is_some()
            || matches!(self.standard_input(), StdInput::Tty | StdInput::TtyForce | StdInput::TtyFail)
            || output(self.standard_output())
            || output(self.standard_error());
        uses.then(|| self.tty_path().as_deref().unwrap_or("/dev/console"))
    }

    /// `CapabilityBoundingSet=` without what is kept from a service by what protects the kernel from it
    /// (systemd.exec(5)); `None` when nothing is said.
    pub fn bounding_set(&self) -> Option<CapabilitySet> {
        let without = [
            (self.protect_kernel_modules(), &["cap_sys_module"][..]),
            (self.protect_kernel_logs(), &["cap_syslog"]),
            (self.protect_clock(), &["cap_sys_time", "cap_wake_alarm"]),
            (self.private_devices(), &["cap_mknod", "cap_sys_rawio"]),
        ];
        let names = without.into_iter().filter(|(set, _)| *set).flat_map(|(_, names)| names);
        let bits = names.filter_map(|name| 1_u64.checked_shl(capability_number(name)?));
        let lost = bits.fold(0, |all, bit| all | bit);
        match self.capability_bounding_set() {
            None if lost == 0 => None,
            said => Some(CapabilitySet(said.unwrap_or(CapabilitySet::ALL).0 & !lost)),
        }
    }

    /// Whether there are credentials for the unit's processes.
    pub fn has_credentials(&self) -> bool {
        !self.set_credential().is_empty()
            || !self.set_credential_encrypted().is_empty()
            || !self.load_credential().is_empty()
            || !self.load_credential_encrypted().is_empty()
            || !self.import_credential().is_empty()
    }

    /// Whether processes have a root directory of the unit's own.
    pub fn has_own_root(&self) -> bool {
        self.root_directory().is_some() || self.root_image().is_some() || self.root_mstack().is_some()
    }

    /// Whether processes have a network namespace of the unit's own.
    pub fn has_own_network(&self) -> bool {
        self.private_network() && self.network_namespace_path().is_none()
    }

    /// Whether processes have an IPC namespace of the unit's own.
    pub fn has_own_ipc(&self) -> bool {
        self.private_ipc() && self.ipc_namespace_path().is_none()
    }

    /// Whether processes have a view of the file systems of the unit's own.
    pub fn has_mount_namespace(&self) -> bool {
        let paths = [
            self.read_write_paths(),
            self.read_only_paths(),
            self.inaccessible_paths(),
            self.exec_paths(),
            self.no_exec_paths(),
        ];
        self.root_directory().is_some()
            || self.root_image().is_some()
            || paths.iter().any(|paths| !paths.is_empty())
            || !self.bind_paths().is_empty()
            || !self.bind_read_only_paths().is_empty()
            || !self.temporary_file_system().is_empty()
            || !self.mount_images().is_empty()
            || !self.extension_images().is_empty()
            || !self.extension_directories().is_empty()
            || self.private_tmp_is_set()
            || self.private_devices()
            || self.private_mounts() == Some(true)
            || self.private_ipc()
            || self.private_pids()
            || self.protect_system().as_str() != "no"
            || self.protect_home().as_str() != "no"
            || self.protect_kernel_tunables()
            || self.protect_kernel_modules()
            || self.protect_kernel_logs()
            || self.protect_control_groups().as_str() != "no"
            || self.protect_proc().as_str() != "default"
            || self.proc_subset().as_str() != "all"
            || self.log_namespace().is_some()
            || self.mount_flags().is_some()
    }

    /// Whether `/tmp` is private.
    pub fn private_tmp_is_set(&self) -> bool {
        self.private_tmp() != PrivateTmp::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_older_name_and_no_other_has_a_newer_one() {
        for row in rows() {
            let newer = newer_name(row.name).filter(|newer| newer.ends_with('='));
            assert_eq!(newer.is_some(), row.effect == Effect::Older, "{}", row.name);
            let known = |newer: &str| rows().iter().any(|row| newer.strip_suffix('=') == Some(row.name));
            assert!(newer.is_none_or(known), "{}", row.name);
        }
    }

    #[test]
    fn what_has_no_effect_says_why() {
        let all = rows();
        let acts = |row: &&Row| matches!(row.effect, Effect::Applied | Effect::Older);
        let silent = all.iter().filter(|row| acts(row) == row.reason().is_some());
        assert_eq!(silent.map(|row| row.name).collect::<Vec<_>>(), Vec::<&str>::new());
        let idle = REASONS.iter().filter(|(part, _)| {
            !all.iter().any(|row| row.effect == Effect::Stored && row.name.contains(part))
        });
        assert_eq!(idle.count(), 0);
    }

    /// Rows that hold text because text is what they are: nothing that systemd or muster could refuse of it.
    const TEXT: &[(&str, &str)] = &[
        // Shown to people or written to the log as it stands.
        ("Unit", "Description"),
        ("Exec", "SyslogIdentifier"),
        // Handed on whole: to reboot(2), to PAM as the name of a file, to utmp(5).
        ("Unit", "JobTimeoutRebootArgument"),
        ("Unit", "RebootArgument"),
        ("Exec", "PAMName"),
        ("Exec", "UtmpIdentifier"),
        // mount(8), swapon(8) and the file systems have their own grammars, and new ones with every release.
        ("Mount", "What"),
        ("Mount", "Options"),
        ("Mount", "Type"),
        ("Automount", "ExtraOptions"),
        ("Swap", "What"),
        ("Swap", "Options"),
        // Names that the kernel alone knows: a module for congestion, labels of SMACK.
        ("Socket", "TCPCongestion"),
        ("Socket", "SmackLabel"),
        ("Socket", "SmackLabelIPIn"),
        ("Socket", "SmackLabelIPOut"),
        // Names before their specifiers are expanded, which only who enables the unit can do; it checks them then.
        ("Install", "Alias"),
        ("Install", "WantedBy"),
        ("Install", "RequiredBy"),
        ("Install", "UpheldBy"),
        ("Install", "Also"),
        ("Install", "DefaultInstance"),
    ];

    #[test]
    fn only_what_is_text_is_held_as_text() {
        let rows = rows();
        // `Environment=` is a list of names and values.
        let texts = rows.iter().filter(|row| row.value.contains("String") && !row.value.contains('('));
        let texts: Vec<_> = texts.map(|row| (row.section, row.name)).collect();
        for row in &texts {
            assert!(TEXT.contains(row), "{row:?} holds text: give it a type");
        }
        for row in TEXT {
            assert!(texts.contains(row), "{row:?} has a type: take it from the list");
        }
    }
}
