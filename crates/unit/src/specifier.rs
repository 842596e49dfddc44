//! Specifiers (systemd.unit(5), "Specifiers"): `%i` and its kin, expanded from facts given from outside.

use crate::diagnostic::{Code, Fault};
use crate::lists::LongLists;
use crate::value::{UnitName, path_unescape, unescape_name};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;

/// The longest text that expansion may give, in bytes.
pub const EXPANDED_MAX: usize = 1024 * 1024;

/// What specifiers say of the machine. Read once by the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecifierContext {
    /// `%m`.
    pub machine_id: String,
    /// `%b`.
    pub boot_id: String,
    /// `%H`.
    pub hostname: String,
    /// `%q`; empty for the short host name.
    pub pretty_hostname: String,
    /// `%v`.
    pub kernel_release: String,
    /// `%a`.
    pub architecture: String,
    /// `%s`: root's shell; empty for `/bin/sh`.
    #[serde(default)]
    pub shell: String,
    /// os-release(5) by key.
    pub os_release: BTreeMap<String, String>,
}

/// What specifiers say of one unit.
#[derive(Clone, Debug)]
pub struct UnitFacts<'a> {
    /// Its name.
    pub name: &'a UnitName,
    /// Path of its file; empty for none.
    pub fragment: &'a str,
    /// The machine.
    pub machine: &'a SpecifierContext,
    /// At most this many diagnostics are kept.
    pub diagnostics_max: usize,
    /// A specifier was expanded that says something of the instance.
    named_instance: Cell<bool>,
    /// What its long lists have.
    pub(crate) lists: LongLists,
}

impl<'a> UnitFacts<'a> {
    /// The specifiers of a unit.
    pub fn new(name: &'a UnitName, fragment: &'a str, machine: &'a SpecifierContext) -> UnitFacts<'a> {
        let (named_instance, lists) = (Cell::new(false), LongLists::default());
        UnitFacts { name, fragment, machine, diagnostics_max: 100, named_instance, lists }
    }

    /// Whether the instance was named since this was last asked.
    pub fn take_named_instance(&self) -> bool {
        self.named_instance.take()
    }
}

/// Expands every specifier of a text. An unknown one is an error that names it.
pub fn expand(text: &str, facts: &UnitFacts<'_>) -> Result<String, Fault> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(letter) => out.push_str(&value(letter, facts).ok_or_else(|| {
                Fault::new(
                    Code::Specifier,
                    &format!("%{letter}"),
                    "a specifier of systemd.unit(5), or %% for '%'",
                )
            })?),
            None => out.push('%'),
        }
        if out.len() > EXPANDED_MAX {
            return Err(Fault::new(
                Code::Specifier,
                text,
                format!("at most {EXPANDED_MAX} bytes after expansion"),
            ));
        }
    }
    Ok(out)
}

fn value(letter: char, facts: &UnitFacts<'_>) -> Option<String> {
    let (name, machine) = (facts.name, facts.machine);
    if "nNiIfd".contains(letter) {
        facts.named_instance.set(true);
    }
    let instance = name.instance().unwrap_or("");
    let last = name.prefix().rsplit('-').next().unwrap_or("");
    let os = |key: &str| machine.os_release.get(key).cloned().unwrap_or_default();
    let short_host = machine.hostname.split('.').next().unwrap_or("").to_owned();
    Some(match letter {
        'n' => name.to_string(),
        'N' => name.stem().to_owned(),
        'p' => name.prefix().to_owned(),
        'P' => unescape_name(name.prefix()),
        'i' => instance.to_owned(),
        'I' => unescape_name(instance),
        'j' => last.to_owned(),
        'J' => unescape_name(last),
        'f' if name.is_instance() => path_unescape(instance),
        'f' => path_unescape(name.prefix()),
        'y' => facts.fragment.to_owned(),
        'Y' => facts.fragment.rsplit_once('/').map_or(String::new(), |(directory, _)| directory.to_owned()),
        't' => "/run".to_owned(),
        'S' => "/var/lib".to_owned(),
        'C' => "/var/cache".to_owned(),
        'L' => "/var/log".to_owned(),
        'E' => "/etc".to_owned(),
        'D' => "/usr/share".to_owned(),
        'T' => "/tmp".to_owned(),
        'V' => "/var/tmp".to_owned(),
        'd' => format!("/run/credentials/{name}"),
        'u' | 'g' => "root".to_owned(),
        'U' | 'G' => "0".to_owned(),
        'h' => "/root".to_owned(),
        's' if machine.shell.is_empty() => "/bin/sh".to_owned(),
        's' => machine.shell.clone(),
        'm' => machine.machine_id.clone(),
        'b' => machine.boot_id.clone(),
        'H' => machine.hostname.clone(),
        'l' => short_host,
        'q' if machine.pretty_hostname.is_empty() => short_host,
        'q' => machine.pretty_hostname.clone(),
        'v' => machine.kernel_release.clone(),
        'a' => machine.architecture.clone(),
        'o' => os("ID"),
        'w' => os("VERSION_ID"),
        'B' => os("BUILD_ID"),
        'W' => os("VARIANT_ID"),
        'M' => os("IMAGE_ID"),
        'A' => os("IMAGE_VERSION"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_machine() {
        let name: UnitName = "a-foo@dev-sd\\x2da.service".parse().unwrap();
        let machine = SpecifierContext { hostname: "h.example".into(), ..SpecifierContext::default() };
        let facts = UnitFacts::new(&name, "/etc/systemd/system/a.service", &machine);
        assert_eq!(
            expand("%n|%p|%i|%I|%f|%j|%l|%Y|100%%", &facts).unwrap(),
            "a-foo@dev-sd\\x2da.service|a-foo|dev-sd\\x2da|dev/sd-a|/dev/sd-a|foo|h|/etc/systemd/system|100%"
        );
        assert!(expand("%Z", &facts).unwrap_err().to_string().contains("%Z"));
    }
}
