//! The search path, read once into memory: which names exist where. The only module of this crate that reads unit
//! directories. Loading asks it by name; nothing here walks the disk again until [`Index::scan`] is called anew.
//!
//! What is no regular file is never opened for reading: a FIFO or a device in a unit directory cannot block PID 1.

use crate::builtin;
use crate::lexer::FILE_MAX;
use crate::load::{Lookup, Source};
use crate::value::UnitName;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

/// The directories of the system manager, highest precedence first (systemd.unit(5), "Unit File Load Path").
pub const SYSTEM_PATH: &[&str] = &[
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// At most this many entries of one directory are read.
const ENTRIES_MAX: usize = 1_048_576;
const O_NONBLOCK: i32 = 0o4000;

/// One name in one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// To be read at this path.
    File(String),
    /// A link to another name.
    Alias(String),
    /// A link to /dev/null, or empty.
    Masked(String),
}

/// A text, and when its file was last changed as it was read.
type Stamped = (Option<u64>, Rc<str>);

/// What the unit directories hold.
#[derive(Clone, Debug, Default)]
pub struct Index {
    path: Vec<String>,
    units: BTreeMap<String, Entry>,
    /// Names that lead to a name.
    reverse: BTreeMap<String, Vec<UnitName>>,
    /// `foo.service.d` and kin: file name, path (`None` masked), highest precedence first.
    drop_ins: BTreeMap<String, Vec<(String, Option<String>)>>,
    /// `foo.target.wants` and kin: the names in it.
    linked: BTreeMap<String, Vec<UnitName>>,
    /// The directories that were looked for, and when each had last been changed; nothing for one that was not there.
    directories: Vec<(String, Option<u64>)>,
    /// Links that enable, read when a state is first asked for.
    links: RefCell<Option<Rc<crate::install::AllLinks>>>,
    /// The texts of templates and their drop-ins as they were read at that stamp, for the instances to come.
    templates: RefCell<BTreeMap<String, Stamped>>,
}

impl Index {
    /// Reads the directories of `path`, highest precedence first.
    pub fn scan(path: Vec<String>) -> Index {
        let mut index = Index { path, ..Index::default() };
        for directory in index.path.clone() {
            index.scan_directory(&directory);
        }
        let aliases: Vec<UnitName> = index
            .units
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Alias(_)))
            .filter_map(|(name, _)| name.parse().ok())
            .collect();
        for alias in aliases {
            let target = index.follow(alias.as_str());
            index.reverse.entry(target).or_default().push(alias);
        }
        index
    }

    /// Whether names may have come or gone since the directories were read.
    pub fn is_outdated(&self) -> bool {
        self.directories.iter().any(|(path, then)| modified(path) != *then)
    }

    /// The search path: `SYSTEMD_UNIT_PATH` when given (a trailing `:` adds the usual one), else the system's.
    pub fn search_path(unit_path: Option<&str>) -> Vec<String> {
        let usual = || SYSTEM_PATH.iter().map(|directory| (*directory).to_owned());
        match unit_path.filter(|path| !path.is_empty()) {
            None => usual().collect(),
            Some(path) => {
                let given = path.split(':').filter(|directory| directory.starts_with('/')).map(str::to_owned);
                if path.ends_with(':') { given.chain(usual()).collect() } else { given.collect() }
            }
        }
    }

    /// The directories, highest precedence first.
    pub fn path(&self) -> &[String] {
        &self.path
    }

    /// Every name that has an entry: the name and where (`None` for masks and aliases: see [`Index::entry_path`]).
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.units.keys().map(String::as_str)
    }

    /// The path of a name's entry, and whether it is masked.
    pub fn entry_path(&self, name: &str) -> Option<(String, bool)> {
        match self.units.get(name)? {
            Entry::File(path) => Some((path.clone(), false)),
            Entry::Masked(path) => Some((path.clone(), true)),
            Entry::Alias(_) => {
                let directory = self
                    .path
                    .iter()
                    .find(|directory| Path::new(&format!("{directory}/{name}")).is_symlink())?;
                Some((format!("{directory}/{name}"), false))
            }
        }
    }

    /// `UnitFileState` of a name, by the links as they were when one was first asked for since the scan.
    pub fn file_state(&self, name: &str) -> Option<&'static str> {
        let name: UnitName = name.parse().ok()?;
        let links =
            self.links.borrow_mut().get_or_insert_with(|| Rc::new(crate::install::AllLinks::read())).clone();
        crate::install::state(self, &name, &links)
    }

    /// Where a chain of aliases ends.
    pub fn follow(&self, name: &str) -> String {
        let mut current = name;
        for _ in 0..8 {
            match self.units.get(current) {
                Some(Entry::Alias(target)) => current = target,
                _ => break,
            }
        }
        current.to_owned()
    }

    fn scan_directory(&mut self, directory: &str) {
        self.directories.push((directory.to_owned(), modified(directory)));
        for (name, path) in entries(directory) {
            let is_directory =
                [".d", ".wants", ".requires", ".upholds"].iter().any(|suffix| name.ends_with(suffix));
            if is_directory {
                self.scan_subdirectory(&name, &path);
            } else if name.parse::<UnitName>().is_ok() && !self.units.contains_key(&name) {
                if let Some(entry) = entry(&name, &path) {
                    self.units.insert(name, entry);
                }
            }
        }
    }

    fn scan_subdirectory(&mut self, name: &str, path: &str) {
        self.directories.push((path.to_owned(), modified(path)));
        if name.ends_with(".d") {
            let known = self.drop_ins.entry(name.to_owned()).or_default();
            for (file, path) in entries(path) {
                if file.ends_with(".conf") && !known.iter().any(|(other, _)| *other == file) {
                    let masked = matches!(entry(&file, &path), Some(Entry::Masked(_)));
                    known.push((file, (!masked).then_some(path)));
                }
            }
            return;
        }
        let known = self.linked.entry(name.to_owned()).or_default();
        for (file, path) in entries(path) {
            let masked = std::fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
            if let (Ok(unit), false) = (file.parse::<UnitName>(), masked) {
                if !known.contains(&unit) {
                    known.push(unit);
                }
            }
        }
    }
}

/// (name, path) of a directory's entries in the order of names; nothing when it cannot be read.
fn entries(directory: &str) -> Vec<(String, String)> {
    let Ok(listing) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut entries: Vec<(String, String)> = listing
        .take(ENTRIES_MAX)
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| (name.clone(), format!("{directory}/{name}")))
        .collect();
    entries.sort();
    entries
}

fn entry(name: &str, path: &str) -> Option<Entry> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if !metadata.is_symlink() {
        let empty = metadata.is_file() && metadata.len() == 0;
        return Some(if empty { Entry::Masked(path.to_owned()) } else { Entry::File(path.to_owned()) });
    }
    let target = std::fs::read_link(path).ok()?;
    if target == Path::new("/dev/null")
        || std::fs::canonicalize(path).is_ok_and(|end| end == Path::new("/dev/null"))
    {
        return Some(Entry::Masked(path.to_owned()));
    }
    let other = target.file_name().and_then(|other| other.to_str()).unwrap_or(name);
    match other.parse::<UnitName>() {
        Ok(other)
            if other.as_str() != name
                && name.parse::<UnitName>().is_ok_and(|name| name.kind() == other.kind()) =>
        {
            Some(Entry::Alias(other.to_string()))
        }
        // A link to a file elsewhere: the file is where the link leads. A dangling one is as if it were not there.
        _ => std::fs::canonicalize(path).ok().and_then(|end| end.to_str().map(str::to_owned)).map(|end| {
            match std::fs::metadata(&end) {
                Ok(metadata) if metadata.is_file() && metadata.len() == 0 => Entry::Masked(path.to_owned()),
                _ => Entry::File(end),
            }
        }),
    }
}

impl Source for Index {
    fn lookup(&self, name: &UnitName) -> Lookup {
        match self.units.get(name.as_str()) {
            Some(Entry::File(path)) => Lookup::File(path.clone()),
            Some(Entry::Masked(path)) => Lookup::Masked(path.clone()),
            Some(Entry::Alias(target)) => target.parse().map_or(Lookup::NotFound, Lookup::Alias),
            None => builtin::alias(name.as_str())
                .and_then(|target| target.parse().ok())
                .map_or(Lookup::NotFound, Lookup::Alias),
        }
    }

    fn aliases(&self, name: &UnitName) -> Vec<UnitName> {
        self.reverse.get(name.as_str()).cloned().unwrap_or_default()
    }

    fn read(&self, path: &str) -> Result<Rc<str>, String> {
        if !path.contains('@') {
            return read_unit_file(path);
        }
        let stamp = modified(path);
        if let Some((_, text)) = self.templates.borrow().get(path).filter(|(then, _)| *then == stamp) {
            return Ok(text.clone());
        }
        let text = read_unit_file(path)?;
        self.templates.borrow_mut().insert(path.to_owned(), (stamp, text.clone()));
        Ok(text)
    }

    fn modified(&self, path: &str) -> Option<u64> {
        modified(path)
    }

    fn drop_ins(&self, directory: &str) -> Vec<(String, Option<String>)> {
        self.drop_ins.get(directory).cloned().unwrap_or_default()
    }

    fn linked(&self, directory: &str) -> Vec<UnitName> {
        self.linked.get(directory).cloned().unwrap_or_default()
    }
}

/// When a file or directory was last changed, in microseconds since 1970; nothing where there is none.
pub fn modified(path: &str) -> Option<u64> {
    let time = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
}

/// Reads a unit file whole. What is no regular file, too large, or not text is refused by name.
pub fn read_unit_file(path: &str) -> Result<Rc<str>, String> {
    let fail = |error: std::io::Error| format!("cannot read {path}: {error}");
    let mut file =
        std::fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() {
        return Err(format!("{path} is not a regular file"));
    }
    let cap = u64::try_from(FILE_MAX).unwrap_or(u64::MAX);
    if metadata.len() > cap {
        return Err(format!("{path} is larger than {FILE_MAX} bytes"));
    }
    let mut bytes = Vec::new();
    std::io::Read::by_ref(&mut file).take(cap).read_to_end(&mut bytes).map_err(fail)?;
    String::from_utf8(bytes).map(Rc::from).map_err(|_| format!("{path} is not UTF-8 text"))
}
