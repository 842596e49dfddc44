//! What stands around a unit's file and is a part of what it says: drop-ins, and links that are dependencies
//! (systemd.unit(5)).
//!
//! Found once each time that a unit is loaded; most have nothing, so looking costs no more than the names of the directories.

use crate::file::UnitFile;
use crate::load::Source;
use crate::value::UnitName;
use std::collections::BTreeMap;

/// Directories of links that are dependencies.
pub(crate) const LINKS: [&str; 3] = ["wants", "requires", "upholds"];

/// What was found.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Around {
    /// Every drop-in in the order of reading: by file name; of one name the most specific directory wins.
    pub drop_ins: Vec<String>,
    /// The dependencies that links say, each with its kind of [`LINKS`].
    pub links: Vec<(&'static str, UnitName)>,
}

impl Around {
    /// What there is around a unit of these names.
    pub fn of(file: &UnitFile, source: &dyn Source) -> Around {
        let drop_ins = drop_ins(file, |directory| source.drop_ins(directory));
        Around { drop_ins, links: links(file, source) }
    }
}

/// Every drop-in of a unit, as [`Around`] has them.
pub(crate) fn drop_ins(
    file: &UnitFile,
    listing: impl Fn(&str) -> Vec<(String, Option<String>)>,
) -> Vec<String> {
    let mut by_name: BTreeMap<String, Option<String>> = BTreeMap::new();
    for_each_directory(file, &mut |directory| {
        for (name, path) in listing(directory) {
            by_name.entry(name).or_insert(path);
        }
    });
    by_name.into_values().flatten().collect()
}

/// Room for the name of a directory, so that it need not grow while it is put together; most are shorter.
const ROOM: usize = 64;

/// The names of the directories of drop-ins, the most specific first.
fn for_each_directory(file: &UnitFile, look: &mut dyn FnMut(&str)) {
    let mut text = String::with_capacity(ROOM);
    let mut look = |parts: &[&str]| {
        text.clear();
        parts.iter().for_each(|part| text.push_str(part));
        look(&text);
    };
    for name in std::iter::once(&file.id).chain(file.names.iter().filter(|name| **name != file.id)) {
        let (instance, suffix) = (name.instance(), name.kind().suffix());
        look(&[name.as_str(), ".d"]);
        let at = if instance.is_some() { "@" } else { "" };
        if instance.is_some_and(|instance| !instance.is_empty()) {
            look(&[name.prefix(), "@.", suffix, ".d"]);
        }
        // `a-b-c.service` also takes `a-b-.service.d` and `a-.service.d`.
        let mut prefix = name.prefix();
        while let Some((head, _)) = prefix.trim_end_matches('-').rsplit_once('-') {
            look(&[head, "-", at, ".", suffix, ".d"]);
            if at == "@" {
                look(&[head, "-.", suffix, ".d"]);
            }
            prefix = head;
        }
    }
    look(&[file.id.kind().suffix(), ".d"]);
}

fn links(file: &UnitFile, source: &dyn Source) -> Vec<(&'static str, UnitName)> {
    let mut found = Vec::new();
    let instance = file.id.instance().unwrap_or("");
    let mut text = String::with_capacity(ROOM);
    for name in file.names.iter().chain(&file.id.template()) {
        for suffix in LINKS {
            text.clear();
            [name.as_str(), ".", suffix].iter().for_each(|part| text.push_str(part));
            for linked in source.linked(&text) {
                let other = if linked.is_template() { linked.with_instance(instance) } else { Some(linked) };
                found.extend(other.filter(|other| *other != file.id).map(|other| (suffix, other)));
            }
        }
    }
    found
}
