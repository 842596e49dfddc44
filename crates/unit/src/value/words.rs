//! Closed sets of words: one macro, each type knows its words both ways.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($($(#[$meta:meta])* $type:ident { $first:ident = $first_text:literal $(| $first_alias:literal)*, $($name:ident = $text:literal $(| $alias:literal)*,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)] // each variant is its word
        pub enum $type { #[default] $first, $($name,)* }
        impl $type {
            /// The words that are understood.
            pub const WORDS: &'static [&'static str] = &[$first_text, $($text,)*];
            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $type::$first => $first_text, $($type::$name => $text,)* }
            }
            /// The value of a word.
            pub fn from_word(word: &str) -> Option<$type> {
                match word { $first_text $(| $first_alias)* => Some($type::$first), $($text $(| $alias)* => Some($type::$name),)* _ => None }
            }
        }
        impl crate::setting::Word for $type {
            const WORDS: &'static [&'static str] = $type::WORDS;
            fn from_word(word: &str) -> Option<Self> { $type::from_word(word) }
        }
        crate::setting::copied!($type, Option<$type>);
    )*};
}

words! {
    /// `PrivateUsers=`.
    PrivateUsers {
        No = "no" | "false" | "0" | "off" | "n" | "f", SelfOnly = "self" | "yes" | "true" | "1" | "on" | "y" | "t",
        Identity = "identity", Full = "full",
    }
    /// `ManagedOOMSwap=` and `ManagedOOMMemoryPressure=`.
    ManagedOomMode { Auto = "auto", Kill = "kill", }
    /// `ManagedOOMPreference=`.
    ManagedOomPreference { None = "none", Avoid = "avoid", Omit = "omit", }
    /// `MemoryPressureWatch=` and kin.
    PressureWatch {
        Auto = "auto", No = "no" | "off" | "false" | "0" | "n" | "f", Yes = "yes" | "on" | "true" | "1" | "y" | "t",
        Skip = "skip",
    }
    /// `MemoryTHP=`.
    MemoryThp { Inherit = "inherit", Disable = "disable", Madvise = "madvise", System = "system", }
    /// `CPUSetPartition=`.
    CpusetPartition { Member = "member", Root = "root", Isolated = "isolated", }
    /// `Type=` of a service.
    ServiceType {
        Simple = "simple", Exec = "exec", Forking = "forking", Oneshot = "oneshot", Dbus = "dbus", Notify = "notify",
        NotifyReload = "notify-reload", Idle = "idle",
    }
    /// `Restart=`.
    Restart {
        No = "no", OnSuccess = "on-success", OnFailure = "on-failure", OnAbnormal = "on-abnormal",
        OnWatchdog = "on-watchdog", OnAbort = "on-abort", Always = "always",
    }
    /// `RestartMode=`.
    RestartMode { Normal = "normal", Direct = "direct", Debug = "debug", }
    /// `KillMode=` (systemd.kill(5)).
    KillMode { ControlGroup = "control-group", Process = "process", Mixed = "mixed", None = "none", }
    /// `NotifyAccess=`.
    NotifyAccess { None = "none", Main = "main", Exec = "exec", All = "all", }
    /// `ExitType=`.
    ExitType { Main = "main", Cgroup = "cgroup", }
    /// `TimeoutStartFailureMode=` and `TimeoutStopFailureMode=`.
    TimeoutFailureMode { Terminate = "terminate", Abort = "abort", Kill = "kill", }
    /// `OOMPolicy=`.
    OomPolicy { Stop = "stop", Continue = "continue", Kill = "kill", }
    /// `CollectMode=`.
    CollectMode { Inactive = "inactive", InactiveOrFailed = "inactive-or-failed", }
    /// `RuntimeDirectoryPreserve=`.
    DirectoryPreserve { No = "no" | "false" | "0" | "off", Yes = "yes" | "true" | "1" | "on", Restart = "restart", }
    /// `FileDescriptorStorePreserve=`.
    FdStorePreserve { Restart = "restart", No = "no" | "false" | "0" | "off", Yes = "yes" | "true" | "1" | "on", OnSuccess = "on-success", }
    /// `FailureAction=` and kin.
    EmergencyAction {
        None = "none", Exit = "exit", ExitForce = "exit-force", Reboot = "reboot", RebootForce = "reboot-force",
        RebootImmediate = "reboot-immediate", Poweroff = "poweroff", PoweroffForce = "poweroff-force",
        PoweroffImmediate = "poweroff-immediate", SoftReboot = "soft-reboot", SoftRebootForce = "soft-reboot-force",
        Kexec = "kexec", KexecForce = "kexec-force", Halt = "halt", HaltForce = "halt-force", HaltImmediate = "halt-immediate",
    }
    /// `OnFailureJobMode=` and kin.
    JobModeWord {
        Replace = "replace", Fail = "fail", Lenient = "lenient", ReplaceIrreversibly = "replace-irreversibly", Isolate = "isolate",
        Flush = "flush", IgnoreDependencies = "ignore-dependencies", IgnoreRequirements = "ignore-requirements",
    }
    /// `BindIPv6Only=`.
    BindIpv6Only { Default = "default", Both = "both" | "no" | "false" | "0" | "off", Ipv6Only = "ipv6-only" | "yes" | "true" | "1" | "on", }
    /// `SocketProtocol=`.
    SocketProtocol { UdpLite = "udplite", Sctp = "sctp", Mptcp = "mptcp", }
    /// `Timestamping=`.
    Timestamping { Off = "off" | "no" | "false" | "0", Us = "us" | "usec" | "µs" | "μs", Ns = "ns" | "nsec", }
    /// `DeferTrigger=`.
    DeferTrigger { No = "no" | "false" | "0" | "off", Yes = "yes" | "true" | "1" | "on", Patient = "patient", }
    /// `TriggerLimitAction=` of `[X-Muster]`: what a socket does when its trigger limit is hit.
    TriggerLimitAction { Fail = "fail", Pause = "pause", }
    /// `ListenErrorAction=` of `[X-Muster]`: what a socket does when one of its addresses cannot be opened.
    ListenErrorAction { Fail = "fail", Continue = "continue", }
    /// `ProtectSystem=`.
    ProtectSystem { No = "no" | "false" | "0" | "off", Yes = "yes" | "true" | "1" | "on", Full = "full", Strict = "strict", }
    /// `ProtectHome=`.
    ProtectHome { No = "no" | "false" | "0" | "off", Yes = "yes" | "true" | "1" | "on", ReadOnly = "read-only", Tmpfs = "tmpfs", }
    /// `PrivateTmp=`.
    PrivateTmp { No = "no" | "false" | "0" | "off", Connected = "connected" | "yes" | "true" | "1" | "on", Disconnected = "disconnected", }
    /// `ProtectProc=`.
    ProtectProc { Default = "default", NoAccess = "noaccess", Invisible = "invisible", Ptraceable = "ptraceable", }
    /// `ProcSubset=`.
    ProcSubset { All = "all", Pid = "pid", }
    /// `KeyringMode=`.
    KeyringMode { Private = "private", Inherit = "inherit", Shared = "shared", }
    /// `ProtectControlGroups=`.
    ProtectControlGroups { No = "no" | "false" | "0" | "off", Yes = "yes" | "true" | "1" | "on", Private = "private", Strict = "strict", }
    /// `UtmpMode=`.
    UtmpMode { Init = "init", Login = "login", User = "user", }
    /// `DevicePolicy=`.
    DevicePolicy { Auto = "auto", Closed = "closed", Strict = "strict", }
    /// `MountFlags=`.
    MountFlags { Shared = "shared", Slave = "slave", Private = "private", }
    /// `IOSchedulingClass=`.
    IoClass { None = "none" | "0", Realtime = "realtime" | "1", BestEffort = "best-effort" | "2", Idle = "idle" | "3", }
    /// `CPUSchedulingPolicy=`.
    CpuPolicy { Other = "other" | "0", Batch = "batch" | "3", Idle = "idle" | "5", Fifo = "fifo" | "1", Rr = "rr" | "2", Ext = "ext" | "7", }
    /// `NUMAPolicy=`, in the order of set_mempolicy(2).
    NumaPolicy { Default = "default", Preferred = "preferred", Bind = "bind", Interleave = "interleave", Local = "local", }
    /// `Personality=`: those of this machine.
    Personality { X8664 = "x86-64", X86 = "x86", }
    /// `StandardInput=` and kin are [`StdInput`] and [`StdOutput`]; this is `SyslogLevel=` and `LogLevelMax=`.
    SyslogLevel {
        Emerg = "emerg" | "0", Alert = "alert" | "1", Crit = "crit" | "2", Err = "err" | "3", Warning = "warning" | "4",
        Notice = "notice" | "5", Info = "info" | "6", Debug = "debug" | "7",
    }
    /// `SyslogFacility=`.
    SyslogFacility {
        Kern = "kern", User = "user", Mail = "mail", Daemon = "daemon", Auth = "auth", Syslog = "syslog", Lpr = "lpr",
        News = "news", Uucp = "uucp", Cron = "cron", Authpriv = "authpriv", Ftp = "ftp", F12 = "12", F13 = "13", F14 = "14",
        F15 = "15", Local0 = "local0", Local1 = "local1", Local2 = "local2", Local3 = "local3", Local4 = "local4",
        Local5 = "local5", Local6 = "local6", Local7 = "local7",
    }
}

/// `StandardInput=` (systemd.exec(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its word
pub enum StdInput {
    #[default]
    Null,
    Tty,
    TtyForce,
    TtyFail,
    Data,
    File(String),
    Socket,
    Fd(String),
}

/// `StandardOutput=` and `StandardError=` (systemd.exec(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its word
pub enum StdOutput {
    #[default]
    Inherit,
    Null,
    Tty,
    Journal,
    JournalConsole,
    Kmsg,
    KmsgConsole,
    File(String),
    Append(String),
    Truncate(String),
    Socket,
    Fd(String),
}

impl StdOutput {
    /// Whether a file of the file system takes it.
    pub fn is_file(&self) -> bool {
        matches!(self, StdOutput::File(_) | StdOutput::Append(_) | StdOutput::Truncate(_))
    }
}

impl std::fmt::Display for StdInput {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            StdInput::Null => "null",
            StdInput::Tty => "tty",
            StdInput::TtyForce => "tty-force",
            StdInput::TtyFail => "tty-fail",
            StdInput::Data => "data",
            StdInput::File(_) => "file",
            StdInput::Socket => "socket",
            StdInput::Fd(_) => "fd",
        })
    }
}

impl std::fmt::Display for StdOutput {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            StdOutput::Inherit => "inherit",
            StdOutput::Null => "null",
            StdOutput::Tty => "tty",
            StdOutput::Journal => "journal",
            StdOutput::JournalConsole => "journal+console",
            StdOutput::Kmsg => "kmsg",
            StdOutput::KmsgConsole => "kmsg+console",
            StdOutput::File(_) => "file",
            StdOutput::Append(_) => "append",
            StdOutput::Truncate(_) => "truncate",
            StdOutput::Socket => "socket",
            StdOutput::Fd(_) => "fd",
        })
    }
}
