//! The manager's own configuration (systemd-system.conf(5)), read at boot, at each reload and after a re-execution.
//!
//! Configuration, not state: it is made anew from the files each time, and what is no longer said is as by default again.
//! Two keys are orders rather than settings and stay as they are when they are no longer said, as under systemd:
//! `LogLevel=` and `LogTarget=`. What is wrong with the files, and a key that has no effect in this version, is said in the
//! log, once.

use crate::effect::Level;
use crate::manager::Manager;
use muster_unit::setting::Amount;
pub use muster_unit::system_conf::{Config, CrashAction, LOG_TARGETS, level};

/// Where generators of the environment leave what they made, a variable a line.
pub const GENERATED: &str = "/run/systemd/generator-environment";

impl Manager {
    /// Takes the configuration as these files say it: (path, text), lowest precedence first.
    pub fn configure(&mut self, files: &[(String, String)]) {
        let own = Some(("/proc/cmdline".to_owned(), self.state.facts.command_line.clone()));
        let (made, files): (Vec<_>, Vec<_>) = files.iter().cloned().partition(|(path, _)| path == GENERATED);
        let files: Vec<_> = files.into_iter().chain(own.filter(|(_, text)| !text.is_empty())).collect();
        let (config, said) = Config::read(&files);
        let complaints: Vec<String> = said.iter().map(ToString::to_string).collect();
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
        environment.extend(made.iter().flat_map(|(_, text)| text.lines().map(str::to_owned)));
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
        if !self.state.configured {
            self.state.no_service_watchdogs = self.state.facts.no_service_watchdogs;
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
