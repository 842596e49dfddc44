//! The manager's own configuration: system.conf and its drop-ins (systemd-system.conf(5)).
//!
//! What is wrong with it is a [`Diagnostic`] with a code and a place, as for unit files, and is passed over.

use crate::diagnostic::{Code, Diagnostic, Fault};
use crate::lexer::{Line, Place, lines, short};
use crate::setting::{Amount, Context, Scalar, Setting, is_variable};
use crate::table::ExecSection;
use crate::value::{EmergencyAction, OomPolicy, PressureWatch, ResourceLimit, Timespan, split_words};
use serde::{Deserialize, Serialize};

/// What system.conf says, with the defaults of systemd-system.conf(5). Times in microseconds, `u64::MAX` for no end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the fields are named for the keys
pub struct Config {
    pub default_timeout_start_usec: u64,
    pub default_timeout_stop_usec: u64,
    /// As `DefaultTimeoutStopSec=` where it is not said.
    pub default_timeout_abort_usec: Option<u64>,
    pub default_device_timeout_usec: u64,
    pub default_restart_usec: u64,
    pub default_start_limit_interval_usec: u64,
    pub default_start_limit_burst: u32,
    pub default_timer_accuracy_usec: u64,
    /// 15% of what there can be, where it is not said.
    pub default_tasks_max: Option<Amount>,
    pub default_cpu_accounting: bool,
    pub default_block_io_accounting: bool,
    pub default_memory_accounting: bool,
    pub default_tasks_accounting: bool,
    pub default_io_accounting: bool,
    pub default_ip_accounting: bool,
    pub default_memory_pressure_watch: PressureWatch,
    pub default_memory_pressure_threshold_usec: u64,
    /// `DefaultLimit*=` and `DefaultOOMScoreAdjust=`.
    pub default_exec: ExecSection,
    pub default_environment: Vec<String>,
    pub default_oom_policy: OomPolicy,
    pub show_status: Option<bool>,
    pub log_level: Option<String>,
    pub log_target: Option<String>,
    pub ctrl_alt_del_burst_action: EmergencyAction,
    pub runtime_watchdog_usec: u64,
    pub runtime_watchdog_pre_usec: u64,
    pub runtime_watchdog_pre_governor: Option<String>,
    pub reboot_watchdog_usec: u64,
    pub kexec_watchdog_usec: u64,
    pub watchdog_device: Option<String>,
    pub crash_shell: bool,
    /// `CrashReboot=yes` is `CrashAction=reboot`.
    pub crash_action: CrashAction,
}

/// What happens when PID 1 itself fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its word
pub enum CrashAction {
    #[default]
    Freeze,
    Reboot,
    Poweroff,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            default_timeout_start_usec: 90_000_000,
            default_timeout_stop_usec: 90_000_000,
            default_timeout_abort_usec: None,
            default_device_timeout_usec: 90_000_000,
            default_restart_usec: 100_000,
            default_start_limit_interval_usec: 10_000_000,
            default_start_limit_burst: 5,
            default_timer_accuracy_usec: 60_000_000,
            default_tasks_max: None,
            default_cpu_accounting: true,
            default_block_io_accounting: false,
            default_memory_accounting: true,
            default_tasks_accounting: true,
            default_io_accounting: false,
            default_ip_accounting: false,
            default_memory_pressure_watch: PressureWatch::Auto,
            default_memory_pressure_threshold_usec: 200_000,
            default_exec: ExecSection::default(),
            default_environment: Vec::new(),
            default_oom_policy: OomPolicy::Stop,
            show_status: None,
            log_level: None,
            log_target: None,
            ctrl_alt_del_burst_action: EmergencyAction::RebootForce,
            runtime_watchdog_usec: 0,
            runtime_watchdog_pre_usec: 0,
            runtime_watchdog_pre_governor: None,
            reboot_watchdog_usec: 600_000_000,
            kexec_watchdog_usec: 0,
            watchdog_device: None,
            crash_shell: false,
            crash_action: CrashAction::Freeze,
        }
    }
}

/// Keys that have an effect, beside `DefaultLimit*=`.
const WITH_EFFECT: &[&str] = &[
    "DefaultTimeoutStartSec",
    "DefaultTimeoutStopSec",
    "DefaultTimeoutAbortSec",
    "DefaultDeviceTimeoutSec",
    "DefaultRestartSec",
    "DefaultStartLimitIntervalSec",
    "DefaultStartLimitBurst",
    "DefaultTimerAccuracySec",
    "DefaultTasksMax",
    "DefaultCPUAccounting",
    "DefaultBlockIOAccounting",
    "DefaultMemoryAccounting",
    "DefaultTasksAccounting",
    "DefaultIOAccounting",
    "DefaultIPAccounting",
    "DefaultMemoryPressureWatch",
    "DefaultMemoryPressureThresholdSec",
    "DefaultEnvironment",
    "DefaultOOMPolicy",
    "DefaultOOMScoreAdjust",
    "ShowStatus",
    "LogLevel",
    "LogTarget",
    "CtrlAltDelBurstAction",
    "CrashShell",
    "CrashReboot",
    "CrashAction",
    "RuntimeWatchdogSec",
    "RuntimeWatchdogPreSec",
    "RuntimeWatchdogPreGovernor",
    "RebootWatchdogSec",
    "KExecWatchdogSec",
    "WatchdogDevice",
];

/// Keys of systemd-system.conf(5) that are known and have no effect here.
const WITHOUT_EFFECT: &[&str] = &[
    "LogColor",
    "LogLocation",
    "LogTime",
    "DumpCore",
    "CrashChangeVT",
    "ConfirmSpawn",
    "StatusUnitFormat",
    "CPUAffinity",
    "NUMAPolicy",
    "NUMAMask",
    "CapabilityBoundingSet",
    "NoNewPrivileges",
    "ProtectSystem",
    "SystemCallArchitectures",
    "TimerSlackNSec",
    "ManagerEnvironment",
    "DefaultStandardOutput",
    "DefaultStandardError",
    "DefaultSmackProcessLabel",
    "ReloadLimitIntervalSec",
    "ReloadLimitBurst",
];

/// The words of `LogTarget=`.
pub const LOG_TARGETS: &[&str] = &[
    "console",
    "console-prefixed",
    "kmsg",
    "journal",
    "journal-or-kmsg",
    "syslog",
    "syslog-or-kmsg",
    "auto",
    "null",
];

/// The keys that are known, for who looks for a misspelling.
pub fn keys() -> impl Iterator<Item = &'static str> {
    WITH_EFFECT.iter().chain(WITHOUT_EFFECT).copied()
}

impl Config {
    /// Reads files, lowest precedence first: (path, text). What is wrong with them is said, and passed over.
    pub fn read(files: &[(String, String)]) -> (Config, Vec<Diagnostic>) {
        let mut config = Config::default();
        let mut said = Vec::new();
        for (path, text) in files {
            config.read_file(path, text, &mut said);
        }
        (config, said)
    }

    fn read_file(&mut self, path: &str, text: &str, said: &mut Vec<Diagnostic>) {
        let mut note = |directive: &str, (from, to): (Place, Place), fault: Fault| {
            let Fault { code, found, expected, .. } = fault;
            let (file, directive) = (path.to_owned(), short(directive));
            said.push(Diagnostic { file, from, to, code, directive, found, expected, fatal: false });
        };
        let mut section: Option<&str> = None;
        for line in lines(text) {
            match line {
                Line::Section { at, name } => {
                    section = Some(name);
                    if name != "Manager" && !name.starts_with("X-") {
                        let length = u32::try_from(name.len()).unwrap_or(u32::MAX).saturating_add(2);
                        let to = Place { column: at.column.saturating_add(length), ..at };
                        note("", (at, to), Fault::new(Code::UnknownSection, name, ""));
                    }
                }
                Line::Bad { from, to, code, found, expected } => {
                    note("", (from, to), Fault { code, found, expected, at: None });
                }
                Line::Assignment(line) => match section {
                    None => note(&line.key, line.key_span(), Fault::new(Code::NoSection, &line.key, "")),
                    Some("Manager") => {
                        let Err(fault) = self.assign(&line.key, &line.value) else { continue };
                        let key = matches!(fault.code, Code::UnknownKey | Code::NoEffect);
                        if fault.code == Code::UnknownKey && line.key.starts_with("X-") {
                            continue;
                        }
                        let at = fault.at.clone();
                        let span = if key { line.key_span() } else { line.value_span(at) };
                        note(&line.key, span, fault);
                    }
                    Some(_) => {}
                },
            }
        }
    }

    fn assign(&mut self, key: &str, value: &str) -> Result<(), Fault> {
        let usual = Config::default();
        match key {
            "DefaultTimeoutStartSec" => {
                self.default_timeout_start_usec = endless(value, usual.default_timeout_start_usec)?;
            }
            "DefaultTimeoutStopSec" => {
                self.default_timeout_stop_usec = endless(value, usual.default_timeout_stop_usec)?;
            }
            "DefaultTimeoutAbortSec" => {
                self.default_timeout_abort_usec =
                    if value.is_empty() { None } else { Some(endless(value, 0)?) };
            }
            "DefaultDeviceTimeoutSec" => {
                self.default_device_timeout_usec = endless(value, usual.default_device_timeout_usec)?;
            }
            "DefaultRestartSec" => self.default_restart_usec = span(value, usual.default_restart_usec)?,
            "DefaultStartLimitIntervalSec" => {
                self.default_start_limit_interval_usec =
                    span(value, usual.default_start_limit_interval_usec)?;
            }
            "DefaultStartLimitBurst" => {
                self.default_start_limit_burst = read(value)?.unwrap_or(usual.default_start_limit_burst);
            }
            "DefaultTimerAccuracySec" => {
                self.default_timer_accuracy_usec = span(value, usual.default_timer_accuracy_usec)?;
            }
            "DefaultTasksMax" => {
                let mut amount: Option<Amount> = None;
                if !value.is_empty() {
                    amount.set(value, &plain("TasksMax"))?;
                }
                self.default_tasks_max = amount;
            }
            // Shown and no more: the unified tree counts for every cgroup.
            "DefaultCPUAccounting" => self.default_cpu_accounting = read(value)?.unwrap_or(true),
            "DefaultBlockIOAccounting" => self.default_block_io_accounting = read(value)?.unwrap_or(false),
            "DefaultMemoryAccounting" => self.default_memory_accounting = read(value)?.unwrap_or(true),
            "DefaultTasksAccounting" => self.default_tasks_accounting = read(value)?.unwrap_or(true),
            "DefaultIOAccounting" => self.default_io_accounting = read(value)?.unwrap_or(false),
            "DefaultIPAccounting" => self.default_ip_accounting = read(value)?.unwrap_or(false),
            "DefaultMemoryPressureWatch" => {
                let word = if value.is_empty() { "auto" } else { value };
                let wrong = || Fault::new(Code::Word, value, "a boolean, auto, skip");
                self.default_memory_pressure_watch = PressureWatch::from_word(word).ok_or_else(wrong)?;
            }
            "DefaultMemoryPressureThresholdSec" => {
                self.default_memory_pressure_threshold_usec =
                    span(value, usual.default_memory_pressure_threshold_usec)?;
            }
            "DefaultEnvironment" if value.is_empty() => self.default_environment.clear(),
            "DefaultEnvironment" => {
                for word in split_words(value)? {
                    let name = word.split_once('=').map(|(name, _)| name);
                    let wrong = || Fault::new(Code::Value, &word, "NAME=VALUE");
                    let name = name.filter(|name| is_variable(name)).ok_or_else(wrong)?.to_owned();
                    self.default_environment
                        .retain(|known| known.split_once('=').is_none_or(|(known, _)| known != name));
                    self.default_environment.push(word);
                }
            }
            "ShowStatus" => {
                self.show_status = match value {
                    // A boot that goes well shows nothing; one that does not cannot be told apart here.
                    "auto" | "error" => Some(value == "auto"),
                    value => read(value).map_err(|fault| Fault {
                        expected: "a boolean, 'auto' or 'error'".into(),
                        ..fault
                    })?,
                };
            }
            "LogLevel" => self.log_level = known(value, level(value).is_some(), "a log level")?,
            "LogTarget" => {
                self.log_target = known(value, LOG_TARGETS.contains(&value), "a target of the log")?;
            }
            "CtrlAltDelBurstAction" => {
                self.ctrl_alt_del_burst_action = read(value)?.unwrap_or(usual.ctrl_alt_del_burst_action);
            }
            "RuntimeWatchdogSec" => self.runtime_watchdog_usec = watchdog(value, 0)?,
            "RuntimeWatchdogPreSec" => self.runtime_watchdog_pre_usec = watchdog(value, 0)?,
            "RebootWatchdogSec" => self.reboot_watchdog_usec = watchdog(value, usual.reboot_watchdog_usec)?,
            "KExecWatchdogSec" => self.kexec_watchdog_usec = watchdog(value, 0)?,
            "RuntimeWatchdogPreGovernor" => {
                self.runtime_watchdog_pre_governor =
                    known(value, !value.contains('/'), "the name of a governor")?;
            }
            "WatchdogDevice" => {
                self.watchdog_device = known(value, value.starts_with("/dev/"), "a path below /dev")?;
            }
            "CrashShell" => self.crash_shell = read(value)?.unwrap_or(false),
            "CrashReboot" => {
                let reboots = read(value)?.unwrap_or(false);
                self.crash_action = if reboots { CrashAction::Reboot } else { CrashAction::Freeze };
            }
            "CrashAction" => {
                self.crash_action = match value {
                    "" | "freeze" => CrashAction::Freeze,
                    "reboot" => CrashAction::Reboot,
                    "poweroff" => CrashAction::Poweroff,
                    _ => return Err(Fault::new(Code::Word, value, "freeze, reboot, poweroff")),
                };
            }
            "DefaultOOMPolicy" => {
                self.default_oom_policy = read(value)?.unwrap_or(usual.default_oom_policy);
            }
            "DefaultOOMScoreAdjust" => return self.assign_exec(key, "OOMScoreAdjust", value),
            _ if WITHOUT_EFFECT.contains(&key) => return Err(Fault::new(Code::NoEffect, key, "")),
            _ => match key.strip_prefix("Default").filter(|limit| limit.starts_with("Limit")) {
                Some(limit) => return self.assign_exec(key, limit, value),
                None => return Err(Fault::new(Code::UnknownKey, key, "Manager")),
            },
        }
        Ok(())
    }

    fn assign_exec(&mut self, key: &str, directive: &str, value: &str) -> Result<(), Fault> {
        let unknown = || Err(Fault::new(Code::UnknownKey, key, "Manager"));
        self.default_exec.assign(directive, value, &plain("")).map_or_else(unknown, |done| done.map(drop))
    }

    /// `DefaultLimitX=` by the name of the directive that it is the default of.
    pub fn limit(&self, directive: &str) -> Option<ResourceLimit> {
        self.default_exec.limit(directive)
    }
}

/// No specifiers are expanded here.
fn plain(directive: &'static str) -> Context<'static> {
    Context { expand: &|text| Ok(text.to_owned()), expands: false, directive, lists: None }
}

/// A value, or nothing where nothing is said.
fn read<T: Scalar>(value: &str) -> Result<Option<T>, Fault> {
    if value.is_empty() { Ok(None) } else { T::read(value).map(Some) }
}

/// A word that is known, or nothing where nothing is said.
fn known(value: &str, known: bool, expected: &'static str) -> Result<Option<String>, Fault> {
    match value {
        "" => Ok(None),
        value if known => Ok(Some(value.to_owned())),
        value => Err(Fault::new(Code::Value, value, expected)),
    }
}

fn span(value: &str, usual: u64) -> Result<u64, Fault> {
    if value.is_empty() { Ok(usual) } else { Timespan::parse(value, 1_000_000).map(|span| span.0) }
}

/// A time of the hardware watchdog: `off`, `default` (the device's own), or a span.
fn watchdog(value: &str, usual: u64) -> Result<u64, Fault> {
    match value {
        "off" => Ok(0),
        "default" => Ok(u64::MAX),
        value => span(value, usual),
    }
}

/// A span of which zero means that there is no end.
fn endless(value: &str, usual: u64) -> Result<u64, Fault> {
    span(value, usual).map(|span| if span == 0 { u64::MAX } else { span })
}

/// A log level by its word or number.
pub fn level(word: &str) -> Option<u8> {
    const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
    let by_word = LEVELS.iter().position(|known| *known == word).and_then(|at| u8::try_from(at).ok());
    by_word.or_else(|| word.parse().ok().filter(|number| *number < 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_defaults_and_faults() {
        let file = |text: &str| vec![("/etc/systemd/system.conf".to_owned(), text.to_owned())];
        let (config, said) = Config::read(&file(
            "[Manager]\nDefaultTimeoutStopSec=0\nDefaultTasksMax=40%\nDefaultLimitNOFILE=10:20\nDefaultEnvironment=A=1 \"B=2 3\" A=4\nLogLevel=nonsense\nTimerSlackNSec=5\nFoo=1\n[Other]\nFoo=2\n",
        ));
        assert_eq!(config.default_timeout_stop_usec, u64::MAX);
        assert_eq!(config.default_tasks_max, Some(Amount::Fraction(4000)));
        assert_eq!(config.limit("LimitNOFILE").map(|limit| (limit.soft, limit.hard)), Some((10, 20)));
        assert_eq!(config.default_environment, ["B=2 3", "A=4"]);
        assert_eq!(
            said.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "/etc/systemd/system.conf:6: LogLevel=: 'nonsense': expected a log level; ignored",
                "/etc/systemd/system.conf:7: TimerSlackNSec= has no effect in this version",
                "/etc/systemd/system.conf:8: unknown key 'Foo' in section [Manager], ignored",
                "/etc/systemd/system.conf:9: unknown section '[Other]', ignored",
            ]
        );
        let (reset, _) = Config::read(&file("[Manager]\nDefaultTimeoutStopSec=5\nDefaultTimeoutStopSec=\n"));
        assert_eq!(reset, Config::default());
    }
}
