//! The search path, read once into memory: which names exist where. The only module of this crate that reads unit
//! directories. Loading asks it by name; nothing here walks the disk again until [`Index::scan`] is called anew.
//!
//! What is no regular file is never opened for reading: a FIFO or a device in a unit directory cannot block PID 1.

use crate::builtin;
use crate::file::{LoadState, UnitFile};
use crate::lexer::FILE_MAX;
use crate::load::{Lookup, Reading, Source};
use crate::value::{NameHasher, UnitName};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, Metadata};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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

/// Looked up for each unit that is loaded, and mostly in vain.
type ByName<T> = HashMap<String, T, BuildHasherDefault<NameHasher>>;

/// A text, and when its file was last changed as it was read.
type Stamped = (Option<u64>, Rc<str>);

/// The directories of drop-ins in one directory.
#[derive(Clone, Debug, Default)]
struct Listing {
    /// When it had been changed; nothing where it was not there, or may have changed again unnoticed.
    stamp: Option<u64>,
    names: BTreeSet<String>,
}

/// A directory that was changed so shortly before it was read may change again with the same time, in microseconds.
const TIME_STEP_USEC: u64 = 50_000;

/// What the unit directories hold.
#[derive(Clone, Debug, Default)]
pub struct Index {
    path: Vec<String>,
    units: ByName<Entry>,
    /// Names that lead to a name.
    reverse: BTreeMap<String, Vec<UnitName>>,
    /// `foo.service.d` and kin: file name, path (`None` masked), highest precedence first.
    drop_ins: ByName<Vec<(String, Option<String>)>>,
    /// `foo.target.wants` and kin: the names in it.
    linked: ByName<Vec<UnitName>>,
    /// The directories that were looked for, and when each had last been changed; nothing for one that was not there.
    directories: Vec<(String, Option<u64>)>,
    /// Links that enable, read when a state is first asked for.
    links: RefCell<Option<Rc<crate::install::AllLinks>>>,
    /// What each directory of `path` held when it was last asked what changed.
    listings: RefCell<Vec<Listing>>,
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
        let mut aliases: Vec<UnitName> = index
            .units
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Alias(_)))
            .filter_map(|(name, _)| name.parse().ok())
            .collect();
        aliases.sort();
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

    /// Whether what a unit was read from has changed since (`NeedDaemonReload`): a file that is newer or gone, drop-ins that
    /// came or went. As under systemd, a file that would now be read in the place of another does not count, nor do links
    /// and names.
    pub fn has_changed(&self, unit: &UnitFile) -> bool {
        let masks = |path: &String| matches!(entry(unit.id.as_str(), path), Some(Entry::Masked(_)));
        match unit.load_state {
            LoadState::Masked => return unit.fragment_path.as_ref().is_some_and(|path| !masks(path)),
            _ if unit.stamps.iter().any(|(path, then)| modified(path).is_none_or(|now| now > *then)) => {
                return true;
            }
            LoadState::Loaded => {}
            _ => return false,
        }
        let mut now = crate::around::drop_ins(unit, |directory| self.drop_ins_now(directory));
        let mut then: Vec<&String> = unit.drop_in_paths.iter().collect();
        now.sort();
        then.sort();
        !now.iter().eq(then)
    }

    /// The drop-ins of one name as they are on the disk now. Only what bears that name is read.
    fn drop_ins_now(&self, name: &str) -> Vec<(String, Option<String>)> {
        let mut found = Vec::new();
        let mut listings = self.listings.borrow_mut();
        listings.resize_with(self.path.len(), Listing::default);
        for (directory, listing) in self.path.iter().zip(listings.iter_mut()) {
            listing.update(directory);
            if listing.names.contains(name) {
                add_drop_ins(&mut found, &format!("{directory}/{name}"));
            }
        }
        found
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

    /// Every name that has an entry, in order; where it is says [`Index::entry_path`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.units.keys().map(String::as_str).collect();
        names.sort_unstable();
        names.into_iter()
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
            return add_drop_ins(self.drop_ins.entry(name.to_owned()).or_default(), path);
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

impl Listing {
    /// Reads the directory again if it was changed.
    #[allow(clippy::disallowed_methods)] // only the disk's own times are compared with it; nothing is decided by it
    fn update(&mut self, directory: &str) {
        let now = modified(directory);
        if now.is_some() && now == self.stamp {
            return;
        }
        let earlier = |stamp: &u64| {
            let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u128::from(stamp.saturating_add(TIME_STEP_USEC)) < since.as_micros()
        };
        self.stamp = now.filter(earlier);
        let names = now.map(|_| entries(directory)).into_iter().flatten().map(|(name, _)| name);
        self.names = names.filter(|name| name.ends_with(".d")).collect();
    }
}

/// Adds what a directory of drop-ins holds, unless the name is known from one of higher precedence.
fn add_drop_ins(known: &mut Vec<(String, Option<String>)>, directory: &str) {
    for (file, path) in entries(directory) {
        if file.ends_with(".conf") && !known.iter().any(|(other, _)| *other == file) {
            let masked = matches!(entry(&file, &path), Some(Entry::Masked(_)));
            known.push((file, (!masked).then_some(path)));
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
        if path.contains('@') { self.reading(path).text } else { read_unit_file(path) }
    }

    fn reading(&self, path: &str) -> Reading {
        if !path.contains('@') {
            return read_open(path);
        }
        // What was read of a template is kept: one look tells whether it is the same.
        let Ok(metadata) = std::fs::metadata(path) else { return read_open(path) };
        let (modified, identity) = (modified_of(&metadata), identity_of(&metadata));
        if let Some((_, text)) = self.templates.borrow().get(path).filter(|(then, _)| *then == modified) {
            return Reading { text: Ok(text.clone()), modified, identity };
        }
        let reading = read_open(path);
        if let Ok(text) = &reading.text {
            self.templates.borrow_mut().insert(path.to_owned(), (reading.modified, text.clone()));
        }
        reading
    }

    fn modified(&self, path: &str) -> Option<u64> {
        modified(path)
    }

    fn identity(&self, path: &str) -> Option<u64> {
        identity(path)
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
    modified_of(&std::fs::metadata(path).ok()?)
}

fn modified_of(metadata: &Metadata) -> Option<u64> {
    let time = metadata.modified().ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
}

/// Which file this is and when it was last changed in any way (stat(2)), as one number. Nothing for one that was changed so
/// shortly before that it may change again within the same step of the clock.
fn identity(path: &str) -> Option<u64> {
    identity_of(&std::fs::metadata(path).ok()?)
}

#[allow(clippy::disallowed_methods)] // only the disk's own times are compared with it
fn identity_of(metadata: &Metadata) -> Option<u64> {
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let changed_usec = metadata.ctime().checked_mul(1_000_000)?.checked_add(metadata.ctime_nsec() / 1000)?;
    let settled =
        u128::try_from(changed_usec).ok()?.checked_add(u128::from(TIME_STEP_USEC))? < now.as_micros();
    let mut hasher = NameHasher::default();
    (metadata.dev(), metadata.ino(), metadata.len(), changed).hash(&mut hasher);
    (metadata.mtime(), metadata.mtime_nsec()).hash(&mut hasher);
    settled.then(|| hasher.finish())
}

/// Reads a unit file whole. What is no regular file, too large, or not text is refused by name.
pub fn read_unit_file(path: &str) -> Result<Rc<str>, String> {
    read_open(path).text
}

/// Four system calls: many files are read.
fn read_open(path: &str) -> Reading {
    let open = || {
        let file = std::fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
        file.metadata().map(|metadata| (file, metadata))
    };
    match open() {
        Ok((mut file, metadata)) => Reading {
            text: text_of(path, &mut file, &metadata),
            modified: modified_of(&metadata),
            identity: identity_of(&metadata),
        },
        Err(error) => {
            Reading { text: Err(format!("cannot read {path}: {error}")), modified: None, identity: None }
        }
    }
}

fn text_of(path: &str, file: &mut File, metadata: &Metadata) -> Result<Rc<str>, String> {
    if !metadata.is_file() {
        return Err(format!("{path} is not a regular file"));
    }
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if length > FILE_MAX {
        return Err(format!("{path} is larger than {FILE_MAX} bytes"));
    }
    // What is written meanwhile makes it another file: its end is not looked for.
    let mut bytes = Vec::with_capacity(length);
    let read = std::io::Read::take(file, metadata.len()).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read {path}: {error}"))?;
    String::from_utf8(bytes).map(Rc::from).map_err(|_| format!("{path} is not UTF-8 text"))
}
