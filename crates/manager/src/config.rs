//! The manager's own configuration: system.conf and its drop-ins (systemd-system.conf(5)), read at boot, at each reload and
//! after a re-execution.
//!
//! Configuration, not state: it is made anew from the files each time, and what is no longer said is as by default again.
//! Two keys are orders rather than settings and stay as they are when they are no longer said, as under systemd:
//! `LogLevel=` and `LogTarget=`. A key that has no effect in this version is said in the log, once.

use crate::effect::Level;
use crate::manager::Manager;
use muster_unit::setting::{Amount, Context};
use muster_unit::{EmergencyAction, ExecSection, ResourceLimit, Timespan, parse_bool, split_words};
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
    /// `DefaultLimit*=` and `DefaultOOMScoreAdjust=`.
    pub default_exec: ExecSection,
    pub default_environment: Vec<String>,
    pub show_status: Option<bool>,
    pub log_level: Option<String>,
    pub log_target: Option<String>,
    pub ctrl_alt_del_burst_action: EmergencyAction,
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
            default_exec: ExecSection::default(),
            default_environment: Vec::new(),
            show_status: None,
            log_level: None,
            log_target: None,
            ctrl_alt_del_burst_action: EmergencyAction::RebootForce,
            crash_shell: false,
            crash_action: CrashAction::Freeze,
        }
    }
}

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
    "RuntimeWatchdogSec",
    "RuntimeWatchdogPreSec",
    "RuntimeWatchdogPreGovernor",
    "RebootWatchdogSec",
    "KExecWatchdogSec",
    "WatchdogDevice",
    "CapabilityBoundingSet",
    "NoNewPrivileges",
    "ProtectSystem",
    "SystemCallArchitectures",
    "TimerSlackNSec",
    "ManagerEnvironment",
    "DefaultStandardOutput",
    "DefaultStandardError",
    "DefaultCPUAccounting",
    "DefaultMemoryAccounting",
    "DefaultTasksAccounting",
    "DefaultIOAccounting",
    "DefaultIPAccounting",
    "DefaultOOMPolicy",
    "DefaultSmackProcessLabel",
    "DefaultMemoryPressureWatch",
    "DefaultMemoryPressureThresholdSec",
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

impl Config {
    /// Reads files, lowest precedence first: (path, text). What is wrong with them is said, and passed over.
    pub fn read(files: &[(String, String)]) -> (Config, Vec<String>) {
        let mut config = Config::default();
        let mut complaints = Vec::new();
        for (path, text) in files {
            let mut inside = false;
            for line in muster_unit::lexer::lines(text) {
                match line {
                    muster_unit::lexer::Line::Section { name, .. } => inside = name == "Manager",
                    muster_unit::lexer::Line::Bad { from, found, expected, .. } => {
                        complaints.push(format!("{path}:{}: '{found}': expected {expected}", from.line));
                    }
                    muster_unit::lexer::Line::Assignment(line) if inside => {
                        if let Err(message) = config.assign(&line.key, &line.value) {
                            complaints.push(format!("{path}:{}: {}=: {message}", line.line(), line.key));
                        }
                    }
                    muster_unit::lexer::Line::Assignment(_) => {}
                }
            }
        }
        (config, complaints)
    }

    fn assign(&mut self, key: &str, value: &str) -> Result<(), String> {
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
                self.default_start_limit_burst = match value {
                    "" => usual.default_start_limit_burst,
                    value => value.parse().map_err(|_| format!("'{value}': expected a number"))?,
                };
            }
            "DefaultTimerAccuracySec" => {
                self.default_timer_accuracy_usec = span(value, usual.default_timer_accuracy_usec)?;
            }
            "DefaultTasksMax" => {
                let mut amount: Option<Amount> = None;
                if !value.is_empty() {
                    muster_unit::setting::Setting::set(&mut amount, value, &plain())
                        .map_err(|fault| fault.to_string())?;
                }
                self.default_tasks_max = amount;
            }
            "DefaultEnvironment" if value.is_empty() => self.default_environment.clear(),
            "DefaultEnvironment" => {
                for word in split_words(value).map_err(|fault| fault.to_string())? {
                    let name = word.split_once('=').map(|(name, _)| name);
                    let name = name.filter(|name| muster_unit::setting::is_variable(name));
                    let name = name.ok_or_else(|| format!("'{word}': expected NAME=VALUE"))?.to_owned();
                    self.default_environment
                        .retain(|known| known.split_once('=').is_none_or(|(known, _)| known != name));
                    self.default_environment.push(word);
                }
            }
            "ShowStatus" => {
                self.show_status = match value {
                    "" => None,
                    // A boot that goes well shows nothing; one that does not cannot be told apart here.
                    "auto" | "error" => Some(value == "auto"),
                    value => Some(parse_bool(value).ok_or("expected a boolean, 'auto' or 'error'")?),
                };
            }
            "LogLevel" => {
                let known = level(value).is_some() || value.is_empty();
                self.log_level = known.then(|| value.to_owned()).filter(|value| !value.is_empty());
                return if known { Ok(()) } else { Err(format!("'{value}' is no log level")) };
            }
            "LogTarget" => {
                let known = LOG_TARGETS.contains(&value) || value.is_empty();
                self.log_target = known.then(|| value.to_owned()).filter(|value| !value.is_empty());
                return if known { Ok(()) } else { Err(format!("'{value}' is no log target")) };
            }
            "CtrlAltDelBurstAction" => {
                self.ctrl_alt_del_burst_action = match value {
                    "" => usual.ctrl_alt_del_burst_action,
                    value => EmergencyAction::from_word(value)
                        .ok_or("expected an action such as 'reboot-force'")?,
                };
            }
            "CrashShell" => {
                self.crash_shell = !value.is_empty() && parse_bool(value).ok_or("expected a boolean")?;
            }
            "CrashReboot" => {
                let reboots = !value.is_empty() && parse_bool(value).ok_or("expected a boolean")?;
                self.crash_action = if reboots { CrashAction::Reboot } else { CrashAction::Freeze };
            }
            "CrashAction" => {
                self.crash_action = match value {
                    "" | "freeze" => CrashAction::Freeze,
                    "reboot" => CrashAction::Reboot,
                    "poweroff" => CrashAction::Poweroff,
                    _ => return Err(format!("'{value}': expected 'freeze', 'reboot' or 'poweroff'")),
                };
            }
            "DefaultOOMScoreAdjust" => return self.assign_exec("OOMScoreAdjust", value),
            _ if WITHOUT_EFFECT.contains(&key) => return Err("has no effect in this version".to_owned()),
            _ => match key.strip_prefix("Default").filter(|limit| limit.starts_with("Limit")) {
                Some(limit) => return self.assign_exec(limit, value),
                None => return Err("unknown key, ignored".to_owned()),
            },
        }
        Ok(())
    }

    fn assign_exec(&mut self, key: &str, value: &str) -> Result<(), String> {
        self.default_exec.assign(key, value, &plain()).map_or_else(
            || Err("unknown key, ignored".to_owned()),
            |done| done.map(drop).map_err(|fault| fault.to_string()),
        )
    }

    /// `DefaultLimitX=` by the name of the directive that it is the default of.
    pub fn limit(&self, directive: &str) -> Option<ResourceLimit> {
        self.default_exec.limit(directive)
    }
}

/// No specifiers are expanded here.
fn plain() -> Context<'static> {
    Context { expand: &|text| Ok(text.to_owned()), expands: false, directive: "" }
}

fn span(value: &str, usual: u64) -> Result<u64, String> {
    if value.is_empty() {
        Ok(usual)
    } else {
        Timespan::parse(value, 1_000_000).map(|span| span.0).map_err(|fault| fault.to_string())
    }
}

/// A span of which zero means that there is no end.
fn endless(value: &str, usual: u64) -> Result<u64, String> {
    span(value, usual).map(|span| if span == 0 { u64::MAX } else { span })
}

/// A log level by its word or number.
pub fn level(word: &str) -> Option<u8> {
    const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
    let by_word = LEVELS.iter().position(|known| *known == word).and_then(|at| u8::try_from(at).ok());
    by_word.or_else(|| word.parse().ok().filter(|number| *number < 8))
}

impl Manager {
    /// Takes the configuration as these files say it: (path, text), lowest precedence first.
    pub fn configure(&mut self, files: &[(String, String)]) {
        let (config, complaints) = Config::read(files);
        let facts = &mut self.state.facts;
        facts.default_timeout_start_usec = config.default_timeout_start_usec;
        facts.default_timeout_stop_usec = config.default_timeout_stop_usec;
        facts.default_restart_usec = config.default_restart_usec;
        facts.default_start_limit_interval_usec = config.default_start_limit_interval_usec;
        facts.default_start_limit_burst = config.default_start_limit_burst;
        // systemd-system.conf(5), DefaultTasksMax=: 15% of what there can be.
        facts.default_tasks_max =
            config.default_tasks_max.unwrap_or(Amount::Fraction(1500)).of(facts.tasks_total);
        // What the command line says of a variable counts for more.
        let mut environment = config.default_environment.clone();
        environment.extend(facts.own_environment.iter().cloned());
        facts.base_environment = environment;
        let show = facts.show_status.or(config.show_status).unwrap_or(true);
        let by_command_line = facts.log_level.clone();
        if let Some(level) = by_command_line.or_else(|| config.log_level.clone()).as_deref().and_then(level) {
            self.state.log_level = level;
        }
        if let Some(target) = &config.log_target {
            self.state.log_target = target.clone();
        }
        if self.state.facts.config.show_status != config.show_status || !self.state.configured {
            self.state.show_status = show;
        }
        self.state.facts.config = config;
        self.state.configured = true;
        // Once: what was said of the same line before is not said at each reload.
        let new: Vec<String> =
            complaints.iter().filter(|text| !self.state.said_of_config.contains(text)).cloned().collect();
        new.into_iter().for_each(|text| self.log(Level::Warning, None, text));
        self.state.said_of_config = complaints;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_defaults_and_complaints() {
        let file = |text: &str| vec![("/etc/systemd/system.conf".to_owned(), text.to_owned())];
        let (config, complaints) = Config::read(&file(
            "[Manager]\nDefaultTimeoutStopSec=0\nDefaultTasksMax=40%\nDefaultLimitNOFILE=10:20\nDefaultEnvironment=A=1 \"B=2 3\" A=4\nLogLevel=nonsense\nTimerSlackNSec=5\nFoo=1\n[Other]\nFoo=2\n",
        ));
        assert_eq!(config.default_timeout_stop_usec, u64::MAX);
        assert_eq!(config.default_tasks_max, Some(Amount::Fraction(4000)));
        assert_eq!(config.limit("LimitNOFILE").map(|limit| (limit.soft, limit.hard)), Some((10, 20)));
        assert_eq!(config.default_environment, ["B=2 3", "A=4"]);
        assert_eq!(
            complaints,
            [
                "/etc/systemd/system.conf:6: LogLevel=: 'nonsense' is no log level",
                "/etc/systemd/system.conf:7: TimerSlackNSec=: has no effect in this version",
                "/etc/systemd/system.conf:8: Foo=: unknown key, ignored",
            ]
        );
        let (reset, _) = Config::read(&file("[Manager]\nDefaultTimeoutStopSec=5\nDefaultTimeoutStopSec=\n"));
        assert_eq!(reset, Config::default());
    }
}
