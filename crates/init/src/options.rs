//! What PID 1 was told: kernel command line, the container's environment (systemd(1), kernel-command-line(7)).
//! What system.conf says besides is the manager's to read, at each reload anew.

use muster_unit::{decode_base64, parse_bool, split_words};
use std::collections::BTreeMap;

/// The words that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The words of the initrd count: those that begin with `rd.`, where there is one.
    pub in_initrd: bool,
    /// `systemd.unit=`, or what a runlevel word stands for.
    pub unit: Option<String>,
    /// `systemd.wants=`.
    pub wants: Vec<String>,
    /// `systemd.mask=`.
    pub mask: Vec<String>,
    /// `systemd.setenv=`.
    pub environment: Vec<String>,
    /// `systemd.show_status=`, `quiet`.
    pub show_status: Option<bool>,
    /// `systemd.log_level=`, `debug`.
    pub log_level: Option<String>,
    /// `systemd.machine_id=`.
    pub machine_id: Option<String>,
    /// `systemd.hostname=`.
    pub hostname: Option<String>,
    /// `systemd.set_credential=` and `systemd.set_credential_binary=`, by name.
    pub credentials: BTreeMap<String, Vec<u8>>,
    /// `systemd.import_credentials=`.
    pub import_credentials: Option<bool>,
    /// `systemd.condition_first_boot=`.
    pub first_boot: Option<bool>,
    /// `systemd.service_watchdogs=`.
    pub service_watchdogs: Option<bool>,
    /// `systemd.clock_usec=`.
    pub clock_usec: Option<u64>,
    /// `systemd.random_seed=`.
    pub random_seed: Option<Vec<u8>>,
    /// What counts as a line of system.conf that comes last: key and value.
    pub config: Vec<(&'static str, String)>,
    /// `muster.strict=`.
    pub strict: bool,
}

/// Words that stand for a key of system.conf (systemd(1), "Kernel Command Line").
const CONFIG: &[(&str, &str)] = &[
    ("systemd.confirm_spawn", "ConfirmSpawn"),
    ("systemd.cpu_affinity", "CPUAffinity"),
    ("systemd.crash_action", "CrashAction"),
    ("systemd.crash_chvt", "CrashChangeVT"),
    ("systemd.crash_reboot", "CrashReboot"),
    ("systemd.crash_shell", "CrashShell"),
    ("systemd.default_device_timeout_sec", "DefaultDeviceTimeoutSec"),
    ("systemd.default_standard_error", "DefaultStandardError"),
    ("systemd.default_standard_output", "DefaultStandardOutput"),
    ("systemd.default_timeout_start_sec", "DefaultTimeoutStartSec"),
    ("systemd.dump_core", "DumpCore"),
    ("systemd.log_color", "LogColor"),
    ("systemd.log_location", "LogLocation"),
    ("systemd.log_target", "LogTarget"),
    ("systemd.log_time", "LogTime"),
    ("systemd.reload_limit_burst", "ReloadLimitBurst"),
    ("systemd.reload_limit_interval_sec", "ReloadLimitIntervalSec"),
    ("systemd.status_unit_format", "StatusUnitFormat"),
    ("systemd.watchdog_device", "WatchdogDevice"),
    ("systemd.watchdog_pre_sec", "RuntimeWatchdogPreSec"),
    ("systemd.watchdog_pretimeout_governor", "RuntimeWatchdogPreGovernor"),
    ("systemd.watchdog_sec", "RuntimeWatchdogSec"),
];

/// Reads all sources; the command line wins.
pub fn read() -> Options {
    let mut options = Options { in_initrd: crate::stage::in_initrd(), ..Options::default() };
    if options.in_initrd {
        options.unit = Some("initrd.target".to_owned());
    }
    if !crate::stage::in_container() {
        options.take_words(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    } else {
        // A container's words are the arguments of its init.
        options.take_words(&std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    }
    options
}

/// Words that are said to the initrd and to the system, each for itself (kernel-command-line(7)).
const EACH: &[&str] = &[
    "systemd.unit",
    "systemd.wants",
    "systemd.mask",
    "emergency",
    "rescue",
    "_b",
    "single",
    "s",
    "S",
    "1",
    "2",
    "3",
    "4",
    "5",
];

impl Options {
    /// The word as it counts here; "" where it is for the other one.
    fn word<'a>(&self, key: &'a str) -> &'a str {
        let (word, is_rd) = key.strip_prefix("rd.").map_or((key, false), |word| (word, true));
        if EACH.contains(&word) && is_rd == self.in_initrd {
            word
        } else if is_rd || EACH.contains(&word) {
            ""
        } else {
            key
        }
    }

    /// Takes the words of a command line.
    pub fn take_words(&mut self, line: &str) {
        for word in
            split_words(line.trim()).unwrap_or_else(|_| line.split_whitespace().map(str::to_owned).collect())
        {
            let (key, value) = word
                .split_once('=')
                .map_or((word.as_str(), None), |(key, value)| (key, Some(value.to_owned())));
            let flag = || value.as_deref().map_or(Some(true), parse_bool);
            let named = || value.as_deref().and_then(|value| value.split_once(':'));
            let key = key.replace('-', "_");
            match self.word(&key) {
                "systemd.unit" => self.unit = value,
                "systemd.wants" => self.wants.extend(value),
                "systemd.mask" => self.mask.extend(value),
                "systemd.setenv" => self.environment.extend(value),
                "systemd.show_status" => self.show_status = flag(),
                "systemd.log_level" => self.log_level = value,
                "systemd.machine_id" => self.machine_id = value,
                "systemd.set_credential" => self
                    .credentials
                    .extend(named().map(|(name, data)| (name.to_owned(), data.as_bytes().to_vec()))),
                "systemd.set_credential_binary" => self
                    .credentials
                    .extend(named().and_then(|(name, data)| Some((name.to_owned(), decode_base64(data)?)))),
                "systemd.import_credentials" => self.import_credentials = flag(),
                "systemd.hostname" => self.hostname = value,
                "systemd.condition_first_boot" => self.first_boot = flag(),
                "systemd.service_watchdogs" => self.service_watchdogs = flag(),
                "systemd.clock_usec" => self.clock_usec = value.and_then(|value| value.parse().ok()),
                "systemd.random_seed" => self.random_seed = value.as_deref().and_then(decode_base64),
                "muster.strict" => self.strict = flag().unwrap_or(false),
                "quiet" => self.show_status = self.show_status.or(Some(false)),
                "debug" => self.log_level = Some("debug".to_owned()),
                "emergency" | "_b" => self.unit = Some("emergency.target".to_owned()),
                "rescue" | "single" | "s" | "S" | "1" => self.unit = Some("rescue.target".to_owned()),
                "2" | "3" | "4" => self.unit = Some("multi-user.target".to_owned()),
                "5" => self.unit = Some("graphical.target".to_owned()),
                word => {
                    let known = CONFIG.iter().find(|(known, _)| *known == word);
                    self.config
                        .extend(known.map(|(_, key)| (*key, value.unwrap_or_else(|| "yes".to_owned()))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line() {
        let mut options = Options::default();
        options.take_words(
            "root=/dev/vda quiet 3 systemd.wants=a.service systemd.setenv=\"A=b c\" muster.strict=1",
        );
        assert_eq!(options.unit.as_deref(), Some("multi-user.target"));
        assert_eq!((options.show_status, options.strict), (Some(false), true));
        assert_eq!(options.environment, ["A=b c"]);
        options.take_words(
            "systemd.set_credential=a:b:c systemd.set-credential-binary=d:aGVsbG8= systemd.set_credential=e",
        );
        let all =
            [("a", "b:c"), ("d", "hello")].map(|(name, data)| (name.to_owned(), data.as_bytes().to_vec()));
        assert_eq!(options.credentials, BTreeMap::from(all));
        options
            .take_words("systemd.crash_shell systemd.default-timeout-start-sec=7s systemd.watchdog_sec=20");
        let keys = [("CrashShell", "yes"), ("DefaultTimeoutStartSec", "7s"), ("RuntimeWatchdogSec", "20")];
        assert_eq!(options.config, keys.map(|(key, value)| (key, value.to_owned())));
        let line = "emergency rd.systemd.unit=a.target systemd.unit=b.target rd.systemd.wants=c.service";
        let unit = |in_initrd| {
            let mut options = Options { in_initrd, ..Options::default() };
            options.take_words(line);
            (options.unit, options.wants)
        };
        assert_eq!(unit(true), (Some("a.target".to_owned()), vec!["c.service".to_owned()]));
        assert_eq!(unit(false), (Some("b.target".to_owned()), Vec::new()));
    }
}
