//! Enabling and its kin (systemctl(1), "Unit File Commands"): links below /etc/systemd/system, or /run/systemd/system.
//!
//! Together with `index.rs` the only module that touches the disk. What is asked is looked at first, as a whole; only then
//! is the first link made. Every change is one link made or removed, and is told in the order it was done. Directories are
//! read once for an operation, never once for a unit.

use crate::index::Index;
use crate::lexer::{Line, lines};
use crate::preset::Presets;
use crate::setting::Context;
use crate::specifier::{SpecifierContext, UnitFacts, expand};
use crate::table::InstallSection;
use crate::value::{UnitKind, UnitName};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

const PERSISTENT: &str = "/etc/systemd/system";
const RUNTIME: &str = "/run/systemd/system";
/// At most this many units follow from one another by `Also=`.
const ALSO_MAX: usize = 1000;

/// How to go about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Below /run, until the next boot.
    pub runtime: bool,
    /// Replace what is in the way.
    pub force: bool,
}

impl Options {
    fn base(self) -> &'static str {
        if self.runtime { RUNTIME } else { PERSISTENT }
    }
}

/// One change on disk, or something to know about one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // path and target are those of the link
pub enum Change {
    /// A link was made.
    Symlink { path: String, target: String },
    /// A link was removed.
    Unlink { path: String },
    /// `WantedBy=` or its kin of this file names a unit that does not exist.
    Missing { unit: String, file: String },
}

/// Why nothing more was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No such unit file.
    NotFound(String),
    /// It is masked; the path of the mask.
    Masked(String),
    /// It is another name of a unit, or a link, and not the unit itself.
    Linked(String),
    /// Something else is in the way: its path, and where it leads if it is a link.
    Exists(String, Option<String>),
    /// `Alias=` of this unit cannot be this name.
    Alias(String, String),
    /// A template without an instance cannot be wanted by this unit.
    Template(String, String),
    /// `[Install]` names what is no unit.
    Reference(String),
    /// The request makes no sense.
    Invalid(String),
    /// The disk refused: at which path, and the number of the error.
    Io(String, i32),
}

/// Whether there was anything to install, and what was changed.
pub type Changed = Result<(bool, Vec<Change>), Failure>;

fn name_of(text: &str) -> Result<UnitName, Failure> {
    let base = text.rsplit('/').next().unwrap_or(text);
    base.parse().map_err(|_| Failure::Invalid(format!("Invalid unit name {text}")))
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

// ---- what there is ------------------------------------------------------------------------------------------------------

/// A unit file, found.
struct Found {
    /// The unit as it was asked for.
    name: UnitName,
    /// Its file, or that of its template.
    file: String,
    /// The file lies outside of the directories that units are loaded from.
    outside: bool,
}

impl Found {
    fn new(index: &Index, name: &UnitName, file: String) -> Found {
        let inside = index.path().iter().any(|directory| parent(&file) == directory);
        Found { name: name.clone(), file, outside: !inside }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Whether the entry of a name leads to the name's own template: an instance that was linked, and no other name.
fn is_own_template(name: &UnitName, target: &str) -> bool {
    name.is_instance() && name.template().is_some_and(|template| template.as_str() == target)
}

/// Whether the entry of a name is another unit's.
fn is_alias(index: &Index, name: &UnitName) -> bool {
    let end = index.follow(name.as_str());
    let instance_of = name.is_instance() && end.parse::<UnitName>().is_ok_and(|end| end.is_template());
    end != name.as_str() && !instance_of
}

fn find(index: &Index, name: &UnitName) -> Result<Found, Failure> {
    let missing = || Failure::NotFound(name.to_string());
    let own = index.entry_path(name.as_str()).map(|entry| (name.clone(), entry));
    let (known, (path, masked)) = match own {
        Some(own) => own,
        None => {
            let template = name.template().ok_or_else(missing)?;
            let entry = index.entry_path(template.as_str()).ok_or_else(missing)?;
            (template, entry)
        }
    };
    if masked {
        return Err(Failure::Masked(path));
    }
    let end = index.follow(known.as_str());
    if is_own_template(&known, &end) {
        let (file, masked) = index.entry_path(&end).ok_or_else(missing)?;
        return if masked { Err(Failure::Masked(file)) } else { Ok(Found::new(index, name, file)) };
    }
    if end != known.as_str() {
        return Err(Failure::Linked(name.to_string()));
    }
    Ok(Found::new(index, name, path))
}

/// Whether a unit that is to want another exists, as a file or built in.
fn exists(index: &Index, name: &UnitName) -> bool {
    let known = |name: &UnitName| {
        index.entry_path(name.as_str()).is_some()
            || crate::builtin::text(name.as_str()).is_some()
            || crate::builtin::alias(name.as_str()).is_some()
    };
    known(name) || name.template().is_some_and(|template| known(&template))
}

/// `[Install]` of a unit: of its file, and of the drop-ins of its own name and its template's. Drop-ins for many units
/// (`foo-.service.d`, `service.d`) do not count.
fn install_section(index: &Index, name: &UnitName, file: &str) -> InstallSection {
    use crate::load::Source;
    let mut section = InstallSection::default();
    let mut drop_ins = BTreeMap::new();
    for directory in std::iter::once(name.clone()).chain(name.template()) {
        for (name, path) in index.drop_ins(&format!("{directory}.d")) {
            drop_ins.entry(name).or_insert(path);
        }
    }
    let machine = SpecifierContext::default();
    let facts = UnitFacts::new(name, file, &machine);
    let expander = |text: &str| expand(text, &facts);
    for path in std::iter::once(file.to_owned()).chain(drop_ins.into_values().flatten()) {
        let Ok(text) = crate::index::read_unit_file(&path) else { continue };
        let mut inside = false;
        for line in lines(&text) {
            match line {
                Line::Section { name, .. } => inside = name == "Install",
                Line::Assignment(line) if inside => {
                    let context = Context { expand: &expander, expands: true, directive: "", lists: None };
                    // What is wrong with a value is said where the unit is loaded.
                    let _ = section.assign(&line.key, &line.value, &context);
                }
                Line::Assignment(_) | Line::Bad { .. } => {}
            }
        }
    }
    let expand_all = |list: &mut Vec<String>| {
        for word in list {
            if let Ok(expanded) = expand(word, &facts) {
                *word = expanded;
            }
        }
    };
    expand_all(section.edit().alias());
    expand_all(section.edit().wanted_by());
    expand_all(section.edit().required_by());
    expand_all(section.edit().upheld_by());
    expand_all(section.edit().also());
    section
}

fn says_something(section: &InstallSection) -> bool {
    [section.alias(), section.wanted_by(), section.required_by(), section.upheld_by(), section.also()]
        .into_iter()
        .any(|list| !list.is_empty())
}

// ---- plans --------------------------------------------------------------------------------------------------------------

/// What enabling one unit comes to.
struct Plan {
    file: String,
    /// Links below the base, all to the file; and the unit that is to want it, where that does not exist.
    links: Vec<(String, Option<String>)>,
    also: Vec<UnitName>,
    has_info: bool,
}

fn plan(index: &Index, found: Found) -> Result<Plan, Failure> {
    let section = install_section(index, &found.name, &found.file);
    let name = &found.name;
    let own = name.to_string();
    let mut links = Vec::new();
    if found.outside {
        links.push((own.clone(), None));
    }
    for alias in section.alias() {
        links.push((alias_of(name, &found.file, alias)?, None));
    }
    let linked_as = match section.default_instance().as_deref().filter(|_| name.is_template()) {
        Some(instance) => name.with_instance(instance).unwrap_or_else(|| name.clone()),
        None => name.clone(),
    };
    for (targets, suffix) in [
        (section.wanted_by(), "wants"),
        (section.required_by(), "requires"),
        (section.upheld_by(), "upholds"),
    ] {
        for target in targets {
            let target: UnitName = target.parse().map_err(|_| Failure::Reference(target.clone()))?;
            if linked_as.is_template() && !target.is_template() {
                return Err(Failure::Template(own, target.to_string()));
            }
            let missing = (!exists(index, &target)).then(|| target.to_string());
            links.push((format!("{target}.{suffix}/{linked_as}"), missing));
        }
    }
    let also = section.also().iter().filter_map(|name| name.parse().ok()).collect();
    Ok(Plan { has_info: says_something(&section), file: found.file, links, also })
}

/// The link that an `Alias=` comes to. It is of the unit's type, and a template's where the file is one.
fn alias_of(name: &UnitName, file: &str, alias: &str) -> Result<String, Failure> {
    let other: UnitName = alias.parse().map_err(|_| Failure::Reference(alias.to_owned()))?;
    let of_template = base_name(file).parse::<UnitName>().is_ok_and(|file| file.is_template());
    let parametrized = other.is_template() || other.is_instance();
    if other.kind() != name.kind() || of_template != parametrized {
        return Err(Failure::Alias(name.to_string(), alias.to_owned()));
    }
    let instance = name.instance().filter(|instance| other.is_template() && !instance.is_empty());
    let link = instance.and_then(|instance| other.with_instance(instance)).unwrap_or(other);
    Ok(link.to_string())
}

/// The unit that a client names: by name, or by the path of its file.
fn asked(index: &Index, file: &str) -> Result<Found, Failure> {
    let name = name_of(file)?;
    if !file.contains('/') {
        return find(index, &name);
    }
    if !file.starts_with('/') {
        return Err(Failure::Invalid(format!("{file} is not an absolute path")));
    }
    if index.path().iter().any(|directory| parent(file) == directory) {
        return find(index, &name);
    }
    linkable(file)?;
    Ok(Found::new(index, &name, file.to_owned()))
}

/// Whether a file may be linked to.
fn linkable(file: &str) -> Result<(), Failure> {
    match Path::new(file).symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::NotFound(file.to_owned())),
        Err(error) => Err(io(file, &error)),
        Ok(metadata) if metadata.is_symlink() => Err(Failure::Linked(file.to_owned())),
        Ok(metadata) if !metadata.is_file() => Err(Failure::Invalid(format!("{file} is not a regular file"))),
        Ok(_) => Ok(()),
    }
}

/// The units of a request with all that they say `Also=` of.
fn plans(index: &Index, files: &[String]) -> Result<Vec<Plan>, Failure> {
    let mut plans = Vec::new();
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::new();
    for file in files {
        let found = asked(index, file)?;
        if seen.insert(found.name.clone()) {
            let plan = plan(index, found)?;
            queue.extend(plan.also.iter().cloned());
            plans.push(plan);
        }
    }
    while let Some(name) = queue.pop_front() {
        if seen.len() > ALSO_MAX || !seen.insert(name.clone()) {
            continue;
        }
        // What does not exist is passed over.
        if let Some(plan) = find(index, &name).ok().and_then(|found| plan(index, found).ok()) {
            queue.extend(plan.also.iter().cloned());
            plans.push(plan);
        }
    }
    Ok(plans)
}

fn carry_out(plans: &[Plan], options: Options, changes: &mut Vec<Change>) -> Result<(), Failure> {
    for plan in plans {
        for (link, missing) in &plan.links {
            make_link(&format!("{}/{link}", options.base()), &plan.file, options.force, changes)?;
            changes.extend(
                missing.iter().map(|unit| Change::Missing { unit: unit.clone(), file: plan.file.clone() }),
            );
        }
    }
    Ok(())
}

// ---- links on disk ------------------------------------------------------------------------------------------------------

fn io(path: &str, error: &std::io::Error) -> Failure {
    // EIO where the kernel has not said it.
    Failure::Io(path.to_owned(), error.raw_os_error().unwrap_or(5))
}

fn make_link(path: &str, target: &str, force: bool, changes: &mut Vec<Change>) -> Result<(), Failure> {
    let old = std::fs::read_link(path).ok();
    if let Some(old) = &old {
        let end = || std::fs::canonicalize(path).ok();
        if old == Path::new(target)
            || (target != "/dev/null"
                && end().is_some_and(|end| Some(end) == std::fs::canonicalize(target).ok()))
        {
            return Ok(());
        }
    }
    let there = Path::new(path).symlink_metadata().is_ok();
    if there && (!force || old.is_none()) {
        let leads = old.map(|old| old.to_string_lossy().into_owned());
        return Err(Failure::Exists(path.to_owned(), leads));
    }
    if let Some(parent) = Path::new(path).parent() {
        std::fs::create_dir_all(parent).map_err(|error| io(path, &error))?;
    }
    if there {
        // Beside it, and in its place in one step.
        let beside = format!("{path}.#{}", std::process::id());
        let _ = std::fs::remove_file(&beside);
        std::os::unix::fs::symlink(target, &beside)
            .and_then(|()| std::fs::rename(&beside, path))
            .map_err(|error| io(path, &error))?;
        changes.push(Change::Unlink { path: path.to_owned() });
    } else {
        std::os::unix::fs::symlink(target, path).map_err(|error| io(path, &error))?;
    }
    sync_parent(path);
    changes.push(Change::Symlink { path: path.to_owned(), target: target.to_owned() });
    Ok(())
}

/// Links of the administrator outlive a power cut. The link is there already; a disk that cannot sync says so elsewhere.
fn sync_parent(path: &str) {
    if let Some(directory) = Path::new(path).parent().filter(|path| !path.starts_with("/run")) {
        let _ = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    }
}

fn remove(path: &str, changes: &mut Vec<Change>) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Ok(()) => changes.push(Change::Unlink { path: path.to_owned() }),
        // Somebody was faster.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(path, &error)),
    }
    sync_parent(path);
    let directory = parent(path);
    if is_dependency_directory(directory) {
        // Goes only when it is empty, which is what is wanted.
        let _ = std::fs::remove_dir(directory);
    }
    Ok(())
}

fn is_dependency_directory(path: &str) -> bool {
    [".wants", ".requires", ".upholds"].iter().any(|suffix| path.ends_with(suffix))
}

/// (path, target) of every link below a configuration directory and its `.wants` and kin.
fn links_below(base: &str) -> Vec<(String, String)> {
    let mut links = Vec::new();
    let mut directories = VecDeque::from([base.to_owned()]);
    while let Some(directory) = directories.pop_front() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type();
            let path = format!("{directory}/{name}");
            if kind.as_ref().is_ok_and(std::fs::FileType::is_symlink) {
                if let Ok(target) = std::fs::read_link(&path) {
                    links.push((path, target.to_string_lossy().into_owned()));
                }
            } else if directory == base && is_dependency_directory(&name) {
                directories.push_back(path);
            }
        }
    }
    links.sort();
    links
}

/// Links by the names that they are of: their own, its template's, and that of the file they lead to.
#[derive(Clone, Debug, Default)]
pub struct Links {
    all: Vec<(String, String)>,
    by_name: BTreeMap<String, Vec<usize>>,
}

impl Links {
    fn below(bases: &[&str]) -> Links {
        let all: Vec<_> =
            bases.iter().flat_map(|base| links_below(base)).filter(|(_, to)| to != "/dev/null").collect();
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, (path, target)) in all.iter().enumerate() {
            let own = base_name(path);
            let template = own.parse::<UnitName>().ok().and_then(|name| name.template());
            let names = [
                Some(own.to_owned()),
                template.map(|name| name.to_string()),
                Some(base_name(target).to_owned()),
            ];
            for name in names.into_iter().flatten().collect::<BTreeSet<_>>() {
                by_name.entry(name).or_default().push(at);
            }
        }
        Links { all, by_name }
    }

    fn of<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let at = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        at.iter().filter_map(|at| self.all.get(*at)).map(|(path, target)| (path.as_str(), target.as_str()))
    }
}

/// Whether `disable` of a unit takes a link away: it has the unit's name or is an instance of it, or leads to its file.
fn belongs(path: &str, target: &str, name: &UnitName) -> bool {
    let own = base_name(path);
    if own == name.as_str() {
        return true;
    }
    let Ok(link) = own.parse::<UnitName>() else { return false };
    let of_template = |template: &UnitName| base_name(target) == template.as_str();
    if name.is_template() {
        return of_template(name) || link.template().is_some_and(|template| template == *name);
    }
    match name.template() {
        // Another name of this instance.
        Some(template) => of_template(&template) && link.instance() == name.instance(),
        None => of_template(name),
    }
}

// ---- verbs --------------------------------------------------------------------------------------------------------------

/// `enable`.
pub fn enable(index: &Index, files: &[String], options: Options) -> Changed {
    let plans = plans(index, files)?;
    let mut changes = Vec::new();
    carry_out(&plans, options, &mut changes)?;
    Ok((plans.iter().any(|plan| plan.has_info), changes))
}

/// `disable`. Also of a unit whose file is gone, as long as links are there.
pub fn disable(index: &Index, files: &[String], options: Options) -> Changed {
    let links = Links::below(&[options.base()]);
    let mut changes = Vec::new();
    let carries = disable_with(index, files, &links, &mut changes)?;
    Ok((carries, changes))
}

fn disable_with(
    index: &Index,
    files: &[String],
    links: &Links,
    changes: &mut Vec<Change>,
) -> Result<bool, Failure> {
    let mut carries = false;
    let mut names = BTreeSet::new();
    let mut queue: VecDeque<UnitName> = files.iter().map(|file| name_of(file)).collect::<Result<_, _>>()?;
    let mut asked = queue.len();
    while let Some(name) = queue.pop_front() {
        // Another name stands for its unit.
        let end = index.follow(name.as_str()).parse::<UnitName>().unwrap_or_else(|_| name.clone());
        let unit = if is_own_template(&name, end.as_str()) { name.clone() } else { end };
        let found = find(index, &unit);
        let was_asked = asked > 0;
        asked = asked.saturating_sub(1);
        match found {
            Ok(found) => {
                let section = install_section(index, &found.name, &found.file);
                carries |= says_something(&section);
                if names.len() < ALSO_MAX {
                    let also = section.also().iter().filter_map(|name| name.parse::<UnitName>().ok());
                    queue.extend(also.filter(|also| !names.contains(also)));
                }
            }
            Err(Failure::NotFound(_)) if was_asked && links.of(link_key(&name).as_str()).next().is_none() => {
                return Err(Failure::NotFound(name.to_string()));
            }
            Err(_) => {}
        }
        names.extend([name, unit]);
    }
    // What led to a unit by another name may be linked by that name.
    let mut gone = BTreeSet::new();
    let mut queue: VecDeque<UnitName> = names.into_iter().collect();
    let mut seen: BTreeSet<UnitName> = queue.iter().cloned().collect();
    while let Some(name) = queue.pop_front() {
        for (path, target) in links.of(link_key(&name).as_str()) {
            if belongs(path, target, &name) && gone.insert(path.to_owned()) {
                let link = base_name(path).parse::<UnitName>().ok();
                queue.extend(link.filter(|link| seen.len() < ALSO_MAX && seen.insert(link.clone())));
            }
        }
    }
    let mut gone: Vec<&String> = gone.iter().collect();
    gone.sort_by_key(|path| !is_dependency_directory(parent(path)));
    let before = changes.len();
    gone.into_iter().try_for_each(|path| remove(path, changes))?;
    // Where links were, there was something to remove.
    Ok(carries || changes.len() > before)
}

/// The name under which the links of a unit are found: an instance's all lead to its template.
fn link_key(name: &UnitName) -> UnitName {
    name.template().unwrap_or_else(|| name.clone())
}

/// `reenable`: what is to be linked is found before the links by which it is found go.
pub fn reenable(index: &Index, files: &[String], options: Options) -> Changed {
    let plans = plans(index, files)?;
    let mut changes = Vec::new();
    disable_with(index, files, &Links::below(&[options.base()]), &mut changes)?;
    carry_out(&plans, options, &mut changes)?;
    Ok((plans.iter().any(|plan| plan.has_info), changes))
}

/// `link`: files from outside the search path.
pub fn link(index: &Index, files: &[String], options: Options) -> Changed {
    let mut found = Vec::new();
    for file in files {
        if !file.starts_with('/') {
            return Err(Failure::Io(file.clone(), 22));
        }
        let name = name_of(file)?;
        linkable(file)?;
        // What is in a unit directory is found without a link.
        if !index.path().iter().any(|directory| parent(file) == directory) {
            found.push((format!("{}/{name}", options.base()), file));
        }
    }
    let mut changes = Vec::new();
    for (path, file) in found {
        make_link(&path, file, options.force, &mut changes)?;
    }
    Ok((false, changes))
}

/// `mask`.
pub fn mask(files: &[String], options: Options) -> Changed {
    let names: Vec<UnitName> = files.iter().map(|file| name_of(file)).collect::<Result<_, _>>()?;
    let mut changes = Vec::new();
    for name in names {
        make_link(&format!("{}/{name}", options.base()), "/dev/null", options.force, &mut changes)?;
    }
    Ok((false, changes))
}

/// `unmask`.
pub fn unmask(files: &[String], options: Options) -> Changed {
    let names: Vec<UnitName> = files.iter().map(|file| name_of(file)).collect::<Result<_, _>>()?;
    let mut changes = Vec::new();
    for name in names {
        let path = format!("{}/{name}", options.base());
        if is_mask(&path) {
            remove(&path, &mut changes)?;
        }
    }
    Ok((false, changes))
}

fn is_mask(path: &str) -> bool {
    std::fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

/// `revert`: drop-ins and masks of the administrator go, in both places; and a unit that the vendor ships is the vendor's
/// again.
pub fn revert(index: &Index, files: &[String]) -> Changed {
    let names: Vec<UnitName> = files.iter().map(|file| name_of(file)).collect::<Result<_, _>>()?;
    let ours = |directory: &str| directory.starts_with("/etc/") || directory.starts_with("/run/");
    let (local, vendor): (Vec<&String>, Vec<&String>) =
        index.path().iter().partition(|directory| ours(directory));
    let mut changes = Vec::new();
    for name in names {
        let shipped = vendor.iter().any(|directory| Path::new(&format!("{directory}/{name}")).is_file());
        for base in local.iter().filter(|base| !base.contains("/generator")) {
            let directory = format!("{base}/{name}.d");
            revert_directory(&directory, &mut changes)?;
            let path = format!("{base}/{name}");
            let is_there = Path::new(&path).symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
            if is_there && (shipped || is_mask(&path)) {
                remove(&path, &mut changes)?;
            }
        }
    }
    Ok((false, changes))
}

fn revert_directory(directory: &str, changes: &mut Vec<Change>) -> Result<(), Failure> {
    let Ok(metadata) = Path::new(directory).symlink_metadata() else { return Ok(()) };
    if !metadata.is_dir() {
        return remove(directory, changes);
    }
    for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            remove(&entry.path().to_string_lossy(), changes)?;
        }
    }
    if std::fs::remove_dir(directory).is_ok() {
        changes.push(Change::Unlink { path: directory.to_owned() });
    }
    Ok(())
}

/// `set-default`.
pub fn set_default(index: &Index, name: &str) -> Changed {
    let name = name_of(name)?;
    if name.kind() != UnitKind::Target || name.as_str() == "default.target" {
        return Err(Failure::Invalid("Invalid argument".to_owned()));
    }
    let found = find(index, &name)?;
    let mut changes = Vec::new();
    make_link(&format!("{PERSISTENT}/default.target"), &found.file, true, &mut changes)?;
    Ok((false, changes))
}

/// `get-default`.
pub fn default_target(index: &Index) -> Result<String, Failure> {
    match index.follow("default.target") {
        end if end == "default.target" => match crate::builtin::alias("default.target") {
            Some(target) if index.entry_path("default.target").is_none() => Ok(target.to_owned()),
            _ => Ok(end),
        },
        end => Ok(end),
    }
}

/// `add-wants`, `add-requires`.
pub fn add_dependency(
    index: &Index,
    files: &[String],
    target: &str,
    kind: &str,
    options: Options,
) -> Changed {
    let target = name_of(target)?;
    if let Some((path, true)) = index.entry_path(target.as_str()) {
        return Err(Failure::Masked(path));
    }
    if !exists(index, &target) {
        return Err(Failure::NotFound(target.to_string()));
    }
    let suffix = if kind == "Requires" { "requires" } else { "wants" };
    let mut links = Vec::new();
    for file in files {
        let found = find(index, &name_of(file)?)?;
        if found.name.is_template() && !target.is_template() {
            return Err(Failure::Template(found.name.to_string(), target.to_string()));
        }
        links.push((format!("{}/{target}.{suffix}/{}", options.base(), found.name), found.file));
    }
    let mut changes = Vec::new();
    for (path, file) in links {
        make_link(&path, &file, options.force, &mut changes)?;
    }
    Ok((false, changes))
}

// ---- presets ------------------------------------------------------------------------------------------------------------

/// What presets want of some units.
#[derive(Default)]
struct Wanted {
    enable: Vec<String>,
    disable: Vec<String>,
}

impl Wanted {
    fn add(&mut self, presets: &Presets, name: &UnitName, mode: &str) {
        match presets.rule(name.as_str()) {
            (true, instances) if mode != "disable-only" => {
                match name.is_template() && !instances.is_empty() {
                    true => {
                        let named = instances.iter().filter_map(|instance| name.with_instance(instance));
                        self.enable.extend(named.map(|name| name.to_string()));
                    }
                    false => self.enable.push(name.to_string()),
                }
            }
            (false, _) if mode != "enable-only" => self.disable.push(name.to_string()),
            _ => {}
        }
    }
}

/// `preset`.
pub fn preset_files(index: &Index, files: &[String], mode: &str, options: Options) -> Changed {
    let presets = Presets::read();
    let mut wanted = Wanted::default();
    for file in files {
        let found = asked(index, file)?;
        wanted.add(&presets, &found.name, mode);
    }
    let mut changes = Vec::new();
    let plans = plans(index, &wanted.enable)?;
    let mut carries = disable_with(index, &wanted.disable, &Links::below(&[options.base()]), &mut changes)?;
    carries |= plans.iter().any(|plan| plan.has_info);
    carry_out(&plans, options, &mut changes)?;
    Ok((carries, changes))
}

/// `preset-all`. One unit that cannot be enabled does not keep the others from their presets.
pub fn preset_all(index: &Index, mode: &str, options: Options) -> Changed {
    let presets = Presets::read();
    let mut wanted = Wanted::default();
    for name in index.names().filter_map(|name| name.parse::<UnitName>().ok()) {
        if find(index, &name).is_ok_and(|found| !found.name.is_instance()) {
            wanted.add(&presets, &name, mode);
        }
    }
    let mut changes = Vec::new();
    disable_with(index, &wanted.disable, &Links::below(&[options.base()]), &mut changes)?;
    for name in &wanted.enable {
        if let Ok(plans) = plans(index, std::slice::from_ref(name)) {
            carry_out(&plans, options, &mut changes)?;
        }
    }
    Ok((false, changes))
}

/// Whether presets want a unit enabled; `None` when it has nothing to install.
pub fn preset(index: &Index, name: &str) -> Option<bool> {
    let name: UnitName = name.parse().ok()?;
    find(index, &name).ok()?;
    Some(Presets::read().enables(name.as_str()))
}

// ---- what is linked now -------------------------------------------------------------------------------------------------

/// What `disable` would remove.
pub fn links(name: &str, runtime: bool) -> Vec<String> {
    let Ok(name) = name_of(name) else { return Vec::new() };
    let links = Links::below(&[if runtime { RUNTIME } else { PERSISTENT }]);
    let mine = links.of(link_key(&name).as_str()).filter(|(path, target)| belongs(path, target, &name));
    mine.map(|(path, _)| path.to_owned()).collect()
}

/// Links of the administrator and of packages; and those that are gone with this boot, of commands and generators.
#[derive(Clone, Debug)]
pub struct AllLinks {
    persistent: Links,
    runtime: Links,
}

impl AllLinks {
    /// As they are now.
    pub fn read() -> AllLinks {
        let runtime = [
            RUNTIME,
            "/run/systemd/generator.early",
            "/run/systemd/generator",
            "/run/systemd/generator.late",
        ];
        AllLinks { persistent: Links::below(&[PERSISTENT]), runtime: Links::below(&runtime) }
    }
}

/// `UnitFileState`: `None` when there is no such file.
pub fn state(index: &Index, name: &UnitName, links: &AllLinks) -> Option<&'static str> {
    let own = index.entry_path(name.as_str());
    let known = match &own {
        Some(_) => name.clone(),
        None => name.template()?,
    };
    let (path, masked) = own.clone().or_else(|| index.entry_path(known.as_str()))?;
    if masked {
        return Some(if path.starts_with("/run/") { "masked-runtime" } else { "masked" });
    }
    if own.is_some() && is_alias(index, name) {
        return Some("alias");
    }
    if path.starts_with("/run/systemd/generator") {
        return Some("generated");
    }
    if path.starts_with("/run/systemd/transient") {
        return Some("transient");
    }
    let end = index.follow(known.as_str());
    let file =
        if end == known.as_str() { path } else { index.entry_path(&end).map_or(path, |(path, _)| path) };
    let section = install_section(index, name, &file);
    let persistent = how_linked(&links.persistent, name, &section);
    if persistent == How::Enabled {
        return Some("enabled");
    }
    let runtime = how_linked(&links.runtime, name, &section);
    if runtime == How::Enabled {
        return Some("enabled-runtime");
    }
    if own.is_some() && Found::new(index, name, file).outside {
        let below_run = Path::new(&format!("{PERSISTENT}/{name}")).symlink_metadata().is_err();
        return Some(if below_run { "linked-runtime" } else { "linked" });
    }
    if persistent == How::Otherwise || runtime == How::Otherwise {
        return Some("indirect");
    }
    let links_itself = [section.alias(), section.wanted_by(), section.required_by(), section.upheld_by()];
    Some(match links_itself.into_iter().any(|list| !list.is_empty()) {
        true => "disabled",
        false if !section.also().is_empty() => "indirect",
        false => "static",
    })
}

/// How links name a unit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Not,
    /// By a name that it does not say itself, or as another instance than the one it says.
    Otherwise,
    Enabled,
}

fn how_linked(links: &Links, name: &UnitName, section: &InstallSection) -> How {
    let mut how = How::Not;
    for (path, target) in links.of(link_key(name).as_str()) {
        let (own, in_directory) = (base_name(path), is_dependency_directory(parent(path)));
        let Ok(link) = own.parse::<UnitName>() else { continue };
        let leads = base_name(target) == link_key(name).as_str();
        if link == *name && (in_directory || name.is_instance()) {
            return How::Enabled;
        }
        if name.is_template() && link.template().is_some_and(|template| template == *name) {
            if in_directory && link.instance() == section.default_instance().as_deref() {
                return How::Enabled;
            }
            how = How::Otherwise;
        } else if leads && link != *name && !name.is_instance() {
            if section.alias().iter().any(|alias| alias == own) {
                return How::Enabled;
            }
            how = How::Otherwise;
        }
    }
    how
}

/// (path, state) of every unit file.
pub fn list(index: &Index) -> Vec<(String, &'static str)> {
    let links = AllLinks::read();
    let names: Vec<UnitName> = index.names().filter_map(|name| name.parse().ok()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (path, _) = index.entry_path(name.as_str())?;
            Some((path, state(index, &name, &links)?))
        })
        .collect()
}
