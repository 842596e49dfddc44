//! Small values: signals, exit statuses, capabilities, limits, directories, sizes, modes.

use crate::diagnostic::{Code, Fault};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A signal by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signal(pub i32);

macro_rules! signals {
    ($($name:ident = $number:literal,)*) => {
        impl Signal {
            $(#[doc = concat!("`SIG", stringify!($name), "`.")] pub const $name: Signal = Signal($number);)*
        }
        /// (number, name) of every named signal (signal(7), the numbers of x86 and ARM).
        pub const SIGNALS: &[(i32, &str)] = &[$(($number, concat!("SIG", stringify!($name))),)*];
    };
}
signals! {
    HUP = 1, INT = 2, QUIT = 3, ILL = 4, TRAP = 5, ABRT = 6, BUS = 7, FPE = 8, KILL = 9, USR1 = 10, SEGV = 11, USR2 = 12,
    PIPE = 13, ALRM = 14, TERM = 15, STKFLT = 16, CHLD = 17, CONT = 18, STOP = 19, TSTP = 20, TTIN = 21, TTOU = 22, URG = 23,
    XCPU = 24, XFSZ = 25, VTALRM = 26, PROF = 27, WINCH = 28, IO = 29, PWR = 30, SYS = 31,
}

/// The first real-time signal as the C library counts.
pub const SIGRTMIN: i32 = 34;
/// The last one.
pub const SIGRTMAX: i32 = 64;

impl Signal {
    /// `SIGTERM`, or `RTMIN+3`; a number where there is no name.
    pub fn name(self) -> String {
        match SIGNALS.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => (*name).to_owned(),
            None if self.0 == SIGRTMIN => "SIGRTMIN".to_owned(),
            None if self.0 == SIGRTMAX => "SIGRTMAX".to_owned(),
            None if self.0 > SIGRTMIN && self.0 < SIGRTMAX => {
                format!("SIGRTMIN+{}", self.0.saturating_sub(SIGRTMIN))
            }
            None => self.0.to_string(),
        }
    }

    /// Reads a name with or without `SIG`, `RTMIN+n`, `RTMAX-n`, or a number from 1 to 64.
    pub fn parse(text: &str) -> Option<Signal> {
        if let Some(number) = super::number::number(text) {
            return (1..=SIGRTMAX).contains(&number).then_some(Signal(number));
        }
        let bare = text.strip_prefix("SIG").unwrap_or(text);
        if let Some((number, _)) = SIGNALS.iter().find(|(_, name)| name.strip_prefix("SIG") == Some(bare)) {
            return Some(Signal(*number));
        }
        let offset = |rest: &str, sign: char| match rest {
            "" => Some(0),
            rest => rest.strip_prefix(sign).and_then(|digits| digits.parse::<i32>().ok()),
        };
        let number = match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
            (Some(rest), _) => SIGRTMIN.checked_add(offset(rest, '+')?)?,
            (_, Some(rest)) => SIGRTMAX.checked_sub(offset(rest, '-')?)?,
            _ => return None,
        };
        (SIGRTMIN..=SIGRTMAX).contains(&number).then_some(Signal(number))
    }
}

/// Exit codes and signals (`SuccessExitStatus=` and kin).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatusSet {
    /// Codes.
    pub codes: BTreeSet<u8>,
    /// Signals.
    pub signals: BTreeSet<Signal>,
}

impl ExitStatusSet {
    /// Adds the words of a value.
    pub fn add(&mut self, value: &str) -> Result<(), Fault> {
        for (word, at) in crate::setting::plain_words(value, value) {
            let named = EXIT_STATUSES
                .iter()
                .find(|(_, name)| *name == word)
                .and_then(|(code, _)| u8::try_from(*code).ok());
            if let Some(code) = super::number::number(word).or(named) {
                self.codes.insert(code);
            } else if let Some(signal) = Signal::parse(word) {
                self.signals.insert(signal);
            } else {
                let expected = "exit statuses from 0 to 255, names of them, or signals";
                return Err(Fault::new(Code::Name, word, expected).within(at));
            }
        }
        Ok(())
    }
}

/// Exit statuses with names (systemd.exec(5), "Process Exit Codes").
const EXIT_STATUSES: &[(i32, &str)] = &[
    (0, "SUCCESS"),
    (1, "FAILURE"),
    (2, "INVALIDARGUMENT"),
    (3, "NOTIMPLEMENTED"),
    (4, "NOPERMISSION"),
    (5, "NOTINSTALLED"),
    (6, "NOTCONFIGURED"),
    (7, "NOTRUNNING"),
    (64, "USAGE"),
    (65, "DATAERR"),
    (66, "NOINPUT"),
    (67, "NOUSER"),
    (68, "NOHOST"),
    (69, "UNAVAILABLE"),
    (70, "SOFTWARE"),
    (71, "OSERR"),
    (72, "OSFILE"),
    (73, "CANTCREAT"),
    (74, "IOERR"),
    (75, "TEMPFAIL"),
    (76, "PROTOCOL"),
    (77, "NOPERM"),
    (78, "CONFIG"),
    (200, "CHDIR"),
    (201, "NICE"),
    (202, "FDS"),
    (203, "EXEC"),
    (204, "MEMORY"),
    (205, "LIMITS"),
    (206, "OOM_ADJUST"),
    (207, "SIGNAL_MASK"),
    (208, "STDIN"),
    (209, "STDOUT"),
    (210, "CHROOT"),
    (211, "IOPRIO"),
    (212, "TIMERSLACK"),
    (213, "SECUREBITS"),
    (214, "SETSCHEDULER"),
    (215, "CPUAFFINITY"),
    (216, "GROUP"),
    (217, "USER"),
    (218, "CAPABILITIES"),
    (219, "CGROUP"),
    (220, "SETSID"),
    (221, "CONFIRM"),
    (222, "STDERR"),
    (224, "PAM"),
    (225, "NETWORK"),
    (226, "NAMESPACE"),
    (227, "NO_NEW_PRIVILEGES"),
    (228, "SECCOMP"),
    (229, "SELINUX_CONTEXT"),
    (230, "PERSONALITY"),
    (231, "APPARMOR_PROFILE"),
    (232, "ADDRESS_FAMILIES"),
    (233, "RUNTIME_DIRECTORY"),
    (235, "CHOWN"),
    (236, "SMACK_PROCESS_LABEL"),
    (237, "KEYRING"),
    (238, "STATE_DIRECTORY"),
    (239, "CACHE_DIRECTORY"),
    (240, "LOGS_DIRECTORY"),
    (241, "CONFIGURATION_DIRECTORY"),
    (242, "NUMA_POLICY"),
    (243, "CREDENTIALS"),
    (245, "BPF"),
    (246, "KSM"),
    (255, "EXCEPTION"),
];

/// The name of an exit status.
pub fn exit_status_name(status: i32) -> Option<&'static str> {
    EXIT_STATUSES.iter().find(|(code, _)| *code == status).map(|(_, name)| *name)
}

/// A set of capabilities, bit by number (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// All that have a name.
    pub const ALL: CapabilitySet = CapabilitySet((1 << 41) - 1);
}

/// Capabilities in the kernel's order.
pub const CAPABILITIES: &[&str] = &[
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

/// The number of a capability's name, in any case.
pub fn capability_number(name: &str) -> Option<u32> {
    let wanted = name.to_ascii_lowercase();
    CAPABILITIES.iter().position(|known| *known == wanted).and_then(|at| u32::try_from(at).ok())
}

/// A soft and a hard limit; `u64::MAX` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// The soft limit.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// A limit in the unit of its resource (systemd.exec(5), "Process Properties").
macro_rules! limits {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name(pub ResourceLimit);
    )*};
}
limits! {
    /// Bytes, with suffixes.
    LimitBytes;
    /// A number without suffixes.
    LimitCount;
    /// Time; without a unit in seconds, rounded up to them.
    LimitSeconds;
    /// Time; without a unit in microseconds.
    LimitMicroseconds;
    /// A raw limit from 0 to 40, or a nice level with its sign.
    LimitNice;
}

/// `RuntimeDirectory=` and kin: a path below the base, and links to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecDirectory {
    /// Relative path.
    pub path: String,
    /// Further relative paths that link to it.
    pub symlinks: Vec<String>,
}

/// `EnvironmentFile=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentFile {
    /// Absolute path or glob.
    pub path: String,
    /// `-`: may be missing.
    pub optional: bool,
}

/// `Delegate=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delegate {
    /// All controllers.
    All,
    /// These controllers.
    Controllers(Vec<String>),
}

/// Reads a boolean (systemd.syntax(7)).
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// Reads bytes, with K, M, G, T, P, E to the base of 1024, fractions allowed. `infinity` is `u64::MAX`.
pub fn parse_size(text: &str) -> Option<u64> {
    if text == "infinity" {
        return Some(u64::MAX);
    }
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return None,
    };
    let factor = 1_u64 << shift;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut sum = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if !fraction.is_empty() && fraction.len() <= 9 {
        let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let part = u128::from(fraction.parse::<u64>().ok()?)
            .checked_mul(u128::from(factor))?
            .checked_div(u128::from(scale))?;
        sum = sum.checked_add(u64::try_from(part).ok()?)?;
    }
    Some(sum)
}

/// Reads an octal file mode up to 07777.
pub fn parse_mode(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values() {
        assert_eq!(Signal::parse("SIGRTMIN+3"), Some(Signal(37)));
        assert_eq!(Signal::parse("TERM").map(|s| s.name()), Some("SIGTERM".to_owned()));
        assert_eq!(
            (Signal::parse("SIGFOO"), Signal::parse("0"), Signal::parse("RTMIN+99")),
            (None, None, None)
        );
        assert_eq!(
            (parse_size("1.5K"), parse_size("8M"), parse_size("x")),
            (Some(1536), Some(8 << 20), None)
        );
        assert_eq!((parse_mode("0666"), parse_mode("8")), (Some(0o666), None));
        let mut set = ExitStatusSet::default();
        assert!(set.add("SIGKILL 3 TEMPFAIL").is_ok());
        assert_eq!(set.codes.into_iter().collect::<Vec<_>>(), [3, 75]);
        assert!(ExitStatusSet::default().add("900").is_err());
        assert_eq!(capability_number("CAP_NET_ADMIN"), Some(12));
    }
}
