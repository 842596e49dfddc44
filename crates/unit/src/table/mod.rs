//! The directive table: every directive declared once, and all that follows from the row.
//!
//! A row gives the name (and old names), the typed field, the default, whether the directive has an effect in this
//! version (`Applied`) or is only kept (`Stored`), and whether specifiers are expanded in it. An empty value takes a
//! field back to its default; a list appends. What does not fit a row, because it fills one list from several
//! directives, is at the end of this file.

mod cgroup;
mod exec;
mod others;
mod service;
mod socket;
mod unit;

pub use cgroup::{CGroupSection, listed};
pub use exec::{ExecSection, KillSection};
pub use others::{
    AutomountSection, MountSection, PathSection, ScopeSection, SliceSection, SwapSection, TimerSection,
};
pub use service::ServiceSection;
pub use socket::SocketSection;
pub use unit::{InstallSection, UnitSection};

use crate::setting::Context;
use crate::value::{
    Condition, ConditionKind, FdStorePreserve, JobModeWord, Listen, ListenKind, PrivateTmp, ServiceType,
};

/// Whether a directive does something in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what the manual says.
    Applied,
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
}

/// How an assignment went.
pub type Assigned = Result<Effect, String>;

macro_rules! section {
    ($(#[$meta:meta])* $type:ident $section:literal {
        $($name:literal $(| $alias:literal)* => $field:ident: $ty:ty = $default:expr, $effect:ident $spec:ident;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $type {
            $(#[doc = concat!("`", $name, "=`.")] pub $field: $ty,)*
            /// What several directives fill together.
            pub more: super::More,
        }
        impl Default for $type {
            fn default() -> Self {
                $type { $($field: $default,)* more: Default::default() }
            }
        }
        // By hand: what derive makes of so many fields would be a quarter of PID 1.
        impl serde::Serialize for $type {
            /// What is not as by default.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let (standard, mut map) = ($type::default(), serializer.serialize_map(None)?);
                $(if self.$field != standard.$field {
                    map.serialize_entry(stringify!($field), &self.$field)?;
                })*
                if self.more != standard.more {
                    map.serialize_entry("more", &self.more)?;
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
                        let mut read = $type::default();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $(stringify!($field) => read.$field = map.next_value()?,)*
                                "more" => read.more = map.next_value()?,
                                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                            }
                        }
                        Ok(read)
                    }
                }
                deserializer.deserialize_map(Fields)
            }
        }
        impl std::ops::Deref for $type {
            type Target = super::More;
            fn deref(&self) -> &super::More { &self.more }
        }
        impl $type {
            /// The rows of this table.
            pub const ROWS: &'static [super::Row] = &[
                $(super::Row { section: $section, name: $name, effect: super::Effect::$effect },
                  $(super::Row { section: $section, name: $alias, effect: super::Effect::$effect },)*)*
            ];
            /// Assigns one directive; `None` when it is not of this table. An empty value resets.
            pub fn assign(&mut self, key: &str, value: &str, context: &Context<'_>) -> Option<super::Assigned> {
                let done = match key {
                    $($name $(| $alias)* => {
                        let context = context.expanding(super::section!(@spec $spec));
                        let set = if value.is_empty() { self.$field.reset($default); Ok(()) } else { self.$field.set(value, &context) };
                        set.map(|()| super::Effect::$effect)
                    })*
                    _ => return self.more.assign($section, key, value, context),
                };
                Some(done)
            }
        }
    };
    (@spec Expand) => { true };
    (@spec Raw) => { false };
}
pub(crate) use section;

/// Lists that several directives fill in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct More {
    /// `Condition*=` and `Assert*=` of `[Unit]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// `Listen*=` of `[Socket]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<Listen>,
    /// `StandardOutput=` was said, rather than defaulted.
    #[serde(default)]
    pub output_is_set: bool,
}

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

impl More {
    fn assign(&mut self, section: &str, key: &str, value: &str, context: &Context<'_>) -> Option<Assigned> {
        match section {
            "Socket" => {
                let (_, kind) = LISTEN.iter().find(|(name, _)| *name == key)?;
                Some(self.listen(*kind, value, context))
            }
            "Unit" => {
                let (name, assert) = match key.strip_prefix("Condition") {
                    Some(name) => (name, false),
                    None => (key.strip_prefix("Assert")?, true),
                };
                Some(self.condition(ConditionKind::from_name(name)?, assert, value, context))
            }
            _ => None,
        }
    }

    fn listen(&mut self, kind: ListenKind, value: &str, context: &Context<'_>) -> Assigned {
        if value.is_empty() {
            self.listen.clear();
            return Ok(Effect::Applied);
        }
        if self.listen.len() >= LISTEN_MAX {
            return Err(format!(
                "more than {LISTEN_MAX} addresses; the first are kept, this one is left out"
            ));
        }
        self.listen.push(Listen::parse(kind, &context.expand(value)?)?);
        Ok(Effect::Applied)
    }

    fn condition(
        &mut self,
        kind: ConditionKind,
        assert: bool,
        value: &str,
        context: &Context<'_>,
    ) -> Assigned {
        if value.is_empty() {
            self.conditions.retain(|condition| condition.assert != assert);
        } else {
            self.conditions.push(Condition::parse(kind, assert, &context.expand(value)?)?);
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
    ("CGroup", "CPUAccounting"),
    ("CGroup", "CPUShares"),
    ("CGroup", "StartupCPUShares"),
    ("CGroup", "DefaultMemoryMin"),
    ("CGroup", "DefaultMemoryLow"),
    ("CGroup", "DefaultStartupMemoryLow"),
    ("CGroup", "MemoryLimit"),
    ("CGroup", "BlockIOAccounting"),
    ("CGroup", "BlockIOWeight"),
    ("CGroup", "StartupBlockIOWeight"),
    ("CGroup", "BlockIODeviceWeight"),
    ("CGroup", "BlockIOReadBandwidth"),
    ("CGroup", "BlockIOWriteBandwidth"),
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

/// Every directive that is understood, in the order of the tables.
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
    let listen = LISTEN.iter();
    rows.extend(listen.map(|(name, _)| Row { section: "Socket", name, effect: Effect::Applied }));
    let conditions = ConditionKind::DIRECTIVES.iter();
    rows.extend(conditions.map(|name| Row { section: "Unit", name, effect: Effect::Applied }));
    rows.extend(REDIRECTED.iter().map(|(section, name, _, _)| Row {
        section,
        name,
        effect: Effect::Applied,
    }));
    rows.extend(IGNORED.iter().map(|(section, name)| Row { section, name, effect: Effect::Ignored }));
    rows
}

impl ServiceSection {
    /// `Type=`, or what its absence means: `dbus` with a bus name, `oneshot` without anything to start, else `simple`.
    pub fn effective_type(&self) -> ServiceType {
        match self.type_ {
            Some(kind) => kind,
            None if self.bus_name.is_some() => ServiceType::Dbus,
            None if self.exec_start.is_empty() => ServiceType::Oneshot,
            None => ServiceType::Simple,
        }
    }

    /// Whether stored descriptors outlive the end of a run, with or without another one to follow.
    pub fn keeps_fd_store(&self, restarts: bool) -> bool {
        match self.file_descriptor_store_preserve {
            FdStorePreserve::Yes => true,
            // How a run ended makes no difference in this version.
            FdStorePreserve::Restart | FdStorePreserve::OnSuccess => restarts,
            FdStorePreserve::No => false,
        }
    }
}

impl UnitSection {
    /// `OnFailureJobMode=`, or what its older form `OnFailureIsolate=` says.
    pub fn failure_job_mode(&self) -> JobModeWord {
        if self.on_failure_isolate { JobModeWord::Isolate } else { self.on_failure_job_mode }
    }
}

impl ExecSection {
    /// Whether `/tmp` is private.
    pub fn private_tmp_is_set(&self) -> bool {
        self.private_tmp != PrivateTmp::No
    }
}
