//! Presets (systemd.preset(5)): whether a unit is meant to be enabled.

use crate::glob;
use std::collections::BTreeMap;

/// Where preset files are, highest precedence first.
const DIRECTORIES: &[&str] = &[
    "/etc/systemd/system-preset",
    "/run/systemd/system-preset",
    "/usr/local/lib/systemd/system-preset",
    "/usr/lib/systemd/system-preset",
];

/// The rules in order; the first that matches decides.
#[derive(Clone, Debug, Default)]
pub struct Presets {
    /// Pattern, whether to enable, and which instances of a template.
    rules: Vec<(String, bool, Vec<String>)>,
}

impl Presets {
    /// Reads the preset files of the system.
    pub fn read() -> Presets {
        let mut files = BTreeMap::new();
        for directory in DIRECTORIES {
            for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
                if let Ok(name) = entry.file_name().into_string() {
                    if name.ends_with(".preset") {
                        files.entry(name).or_insert_with(|| entry.path());
                    }
                }
            }
        }
        let texts = files.into_values().filter_map(|path| crate::index::read_unit_file(path.to_str()?).ok());
        Presets::parse(texts.map(|text| text.to_string()).collect::<Vec<_>>().join("\n").as_str())
    }

    /// Reads rules from a text.
    pub fn parse(text: &str) -> Presets {
        let rule = |line: &str| {
            let mut words = line.split_whitespace();
            let enable = match words.next()? {
                "enable" => true,
                "disable" | "ignore" => false,
                _ => return None,
            };
            Some((words.next()?.to_owned(), enable, words.map(str::to_owned).collect()))
        };
        Presets { rules: text.lines().filter_map(rule).collect() }
    }

    /// Whether a unit is to be enabled; what no rule names is.
    pub fn enables(&self, name: &str) -> bool {
        self.rule(name).0
    }

    /// The same, with the instances of a template that are meant.
    pub fn rule(&self, name: &str) -> (bool, &[String]) {
        let found = self.rules.iter().find(|(pattern, ..)| glob::matches(pattern, name));
        found.map_or((true, &[]), |(_, enable, instances)| (*enable, instances))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_decides() {
        let presets = Presets::parse("# x\nenable ssh.*\ndisable *.socket\nnonsense\n");
        assert!(
            presets.enables("ssh.socket") && presets.enables("a.service") && !presets.enables("b.socket")
        );
    }
}
