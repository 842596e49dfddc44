//! Unit files held in memory.

use muster_unit::load::Lookup;
use muster_unit::{Source, UnitName};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Unit files by name, and links such as `multi-user.target.wants`.
#[derive(Clone, Debug, Default)]
pub struct Files {
    units: BTreeMap<String, String>,
    links: BTreeMap<String, Vec<UnitName>>,
}

impl Files {
    /// These unit files.
    pub fn new(units: &[(&str, &str)]) -> Files {
        let units = units.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Files { units, links: BTreeMap::new() }
    }

    /// Adds a link in a directory like `multi-user.target.wants`.
    #[must_use]
    pub fn link(mut self, directory: &str, name: &str) -> Files {
        self.links.entry(directory.to_owned()).or_default().extend(name.parse::<UnitName>());
        self
    }
}

impl Source for Files {
    fn lookup(&self, name: &UnitName) -> Lookup {
        let known = self.units.contains_key(name.as_str());
        if known { Lookup::File(format!("/etc/systemd/system/{name}")) } else { Lookup::NotFound }
    }

    fn aliases(&self, _: &UnitName) -> Vec<UnitName> {
        Vec::new()
    }

    fn read(&self, path: &str) -> Result<Rc<str>, String> {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.units.get(name).map(|text| text.as_str().into()).ok_or_else(|| format!("no {name}"))
    }

    fn drop_ins(&self, _: &str) -> Vec<(String, Option<String>)> {
        Vec::new()
    }

    fn linked(&self, directory: &str) -> Vec<UnitName> {
        self.links.get(directory).cloned().unwrap_or_default()
    }
}
