//! What PID 1 was told: kernel command line, the container's environment, system.conf (systemd(1), kernel-command-line(7),
//! systemd-system.conf(5)).

use muster_unit::{Timespan, parse_bool, split_words};
use std::collections::BTreeMap;

/// The words that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `systemd.unit=`, or what a runlevel word stands for.
    pub unit: Option<String>,
    /// `systemd.wants=`.
    pub wants: Vec<String>,
    /// `systemd.mask=`.
    pub mask: Vec<String>,
    /// `systemd.setenv=` and `DefaultEnvironment=`.
    pub environment: Vec<String>,
    /// `systemd.show_status=`, `quiet`.
    pub show_status: Option<bool>,
    /// `systemd.log_level=`, `debug`.
    pub log_level: Option<String>,
    /// `systemd.machine_id=`.
    pub machine_id: Option<String>,
    /// `systemd.hostname=`.
    pub hostname: Option<String>,
    /// `muster.strict=`.
    pub strict: bool,
    /// `DefaultTimeoutStartSec=` and its kin of system.conf, microseconds, by name.
    pub spans: BTreeMap<String, u64>,
    /// `DefaultStartLimitBurst=`.
    pub start_limit_burst: Option<u32>,
}

/// Reads all sources; the command line wins.
pub fn read() -> Options {
    let mut options = Options::default();
    for file in conf_files() {
        if let Ok(text) = muster_unit::index::read_unit_file(&file) {
            options.take_conf(&text);
        }
    }
    if !crate::stage::in_container() {
        options.take_words(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    } else {
        // A container's words are the arguments of its init.
        options.take_words(&std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    }
    options
}

/// system.conf and its drop-ins, lowest precedence first.
fn conf_files() -> Vec<String> {
    let mut drop_ins = BTreeMap::new();
    for base in ["/usr/lib", "/usr/local/lib", "/run", "/etc"] {
        for entry in std::fs::read_dir(format!("{base}/systemd/system.conf.d"))
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
        {
            if let (Ok(name), Some(path)) = (entry.file_name().into_string(), entry.path().to_str()) {
                if name.ends_with(".conf") {
                    drop_ins.insert(name, path.to_owned());
                }
            }
        }
    }
    std::iter::once("/etc/systemd/system.conf".to_owned()).chain(drop_ins.into_values()).collect()
}

impl Options {
    /// Takes the words of a command line.
    pub fn take_words(&mut self, line: &str) {
        for word in
            split_words(line.trim()).unwrap_or_else(|_| line.split_whitespace().map(str::to_owned).collect())
        {
            let (key, value) = word
                .split_once('=')
                .map_or((word.as_str(), None), |(key, value)| (key, Some(value.to_owned())));
            let flag = || value.as_deref().map_or(Some(true), parse_bool);
            match key.replace('-', "_").as_str() {
                "systemd.unit" => self.unit = value,
                "systemd.wants" => self.wants.extend(value),
                "systemd.mask" => self.mask.extend(value),
                "systemd.setenv" => self.environment.extend(value),
                "systemd.show_status" => self.show_status = flag(),
                "systemd.log_level" => self.log_level = value,
                "systemd.machine_id" => self.machine_id = value,
                "systemd.hostname" => self.hostname = value,
                "muster.strict" => self.strict = flag().unwrap_or(false),
                "quiet" => self.show_status = self.show_status.or(Some(false)),
                "debug" => self.log_level = Some("debug".to_owned()),
                "emergency" | "_b" => self.unit = Some("emergency.target".to_owned()),
                "rescue" | "single" | "s" | "S" | "1" => self.unit = Some("rescue.target".to_owned()),
                "2" | "3" | "4" => self.unit = Some("multi-user.target".to_owned()),
                "5" => self.unit = Some("graphical.target".to_owned()),
                _ => {}
            }
        }
    }

    /// Takes `[Manager]` of a system.conf.
    pub fn take_conf(&mut self, text: &str) {
        for line in muster_unit::lexer::lines(text) {
            let muster_unit::lexer::Line::Assignment { key, value, .. } = line else { continue };
            match key.as_str() {
                "DefaultEnvironment" | "ManagerEnvironment" => {
                    self.environment.extend(split_words(&value).unwrap_or_default())
                }
                "ShowStatus" => self.show_status = parse_bool(&value),
                "LogLevel" => self.log_level = Some(value),
                "DefaultStartLimitBurst" => self.start_limit_burst = value.parse().ok(),
                key if key.starts_with("Default") && key.ends_with("Sec") => {
                    if let Ok(span) = Timespan::parse(&value, 1_000_000) {
                        self.spans.insert(key.to_owned(), span.0);
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_conf() {
        let mut options = Options::default();
        options.take_conf("[Manager]\nDefaultTimeoutStopSec=5s\nShowStatus=yes\n");
        options.take_words(
            "root=/dev/vda quiet 3 systemd.wants=a.service systemd.setenv=\"A=b c\" muster.strict=1",
        );
        assert_eq!(options.unit.as_deref(), Some("multi-user.target"));
        assert_eq!((options.show_status, options.strict), (Some(true), true));
        assert_eq!(options.environment, ["A=b c"]);
        assert_eq!(options.spans.get("DefaultTimeoutStopSec"), Some(&5_000_000));
    }
}
