//! Enabling and its kin (systemctl(1), "Unit File Commands"): links below /etc/systemd/system, or /run/systemd/system.
//!
//! Together with `index.rs` the only module that touches the disk. Every change is one link made or removed, and is
//! told in the order it was done.

use crate::file::LoadState;
use crate::index::Index;
use crate::load::load;
use crate::preset::Presets;
use crate::specifier::SpecifierContext;
use crate::value::UnitName;
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

const PERSISTENT: &str = "/etc/systemd/system";
const RUNTIME: &str = "/run/systemd/system";

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

/// One change on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // path and target are those of the link
pub enum Change {
    /// A link was made.
    Symlink { path: String, target: String },
    /// A link was removed.
    Unlink { path: String },
}

/// Why nothing more was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No such unit file.
    NotFound(String),
    /// It is masked.
    Masked(String),
    /// Something else is in the way.
    Exists(String),
    /// The request makes no sense.
    Invalid(String),
    /// The disk refused.
    Io(String),
}

/// Whether there was anything to install, and what was changed.
pub type Changed = Result<(bool, Vec<Change>), Failure>;

fn name_of(text: &str) -> Result<UnitName, Failure> {
    let base = text.rsplit('/').next().unwrap_or(text);
    base.parse().map_err(|error| Failure::Invalid(format!("{error}")))
}

/// What `[Install]` of a unit says, and its file.
struct Plan {
    name: UnitName,
    fragment: String,
    links: Vec<String>,
    also: Vec<UnitName>,
    has_info: bool,
}

fn plan(index: &Index, name: &UnitName) -> Result<Plan, Failure> {
    let file = load(name, index, &SpecifierContext::default());
    let fragment = match (file.load_state, file.fragment_path) {
        (LoadState::Masked, _) => return Err(Failure::Masked(name.to_string())),
        (LoadState::NotFound, _) | (_, None) => return Err(Failure::NotFound(name.to_string())),
        (_, Some(fragment)) => fragment,
    };
    let install = &file.install;
    let linked_as = if file.id.is_template() {
        install
            .default_instance
            .as_deref()
            .and_then(|instance| file.id.with_instance(instance))
            .unwrap_or_else(|| file.id.clone())
    } else {
        file.id.clone()
    };
    let mut links: Vec<String> = install.alias.clone();
    for (targets, suffix) in
        [(&install.wanted_by, "wants"), (&install.required_by, "requires"), (&install.upheld_by, "upholds")]
    {
        links.extend(targets.iter().map(|target| format!("{target}.{suffix}/{linked_as}")));
    }
    let also: Vec<UnitName> = install.also.iter().filter_map(|name| name.parse().ok()).collect();
    Ok(Plan { has_info: !links.is_empty() || !also.is_empty(), name: file.id, fragment, links, also })
}

/// The units of a request with all that they say `Also=` of.
fn plans(index: &Index, files: &[String]) -> Result<Vec<Plan>, Failure> {
    let mut queue: VecDeque<UnitName> = files.iter().map(|file| name_of(file)).collect::<Result<_, _>>()?;
    let mut seen = BTreeSet::new();
    let mut plans = Vec::new();
    let asked = queue.len();
    while let Some(name) = queue.pop_front() {
        if !seen.insert(name.clone()) || seen.len() > 1000 {
            continue;
        }
        match plan(index, &name) {
            Ok(plan) => {
                queue.extend(plan.also.iter().cloned());
                plans.push(plan);
            }
            Err(failure) if seen.len() <= asked => return Err(failure),
            Err(_) => {}
        }
    }
    Ok(plans)
}

fn io(path: &str, error: &std::io::Error) -> Failure {
    Failure::Io(format!("{path}: {error}"))
}

fn make_link(path: &str, target: &str, force: bool, changes: &mut Vec<Change>) -> Result<(), Failure> {
    if let Ok(old) = std::fs::read_link(path) {
        let same = old == Path::new(target)
            || std::fs::canonicalize(path)
                .ok()
                .is_some_and(|end| Some(end) == std::fs::canonicalize(target).ok());
        if same {
            return Ok(());
        }
    }
    if Path::new(path).symlink_metadata().is_ok() {
        let replaceable = force && Path::new(path).is_symlink();
        if !replaceable {
            return Err(Failure::Exists(path.to_owned()));
        }
        std::fs::remove_file(path).map_err(|error| io(path, &error))?;
        changes.push(Change::Unlink { path: path.to_owned() });
    }
    if let Some(parent) = Path::new(path).parent() {
        std::fs::create_dir_all(parent).map_err(|error| io(path, &error))?;
    }
    std::os::unix::fs::symlink(target, path).map_err(|error| io(path, &error))?;
    changes.push(Change::Symlink { path: path.to_owned(), target: target.to_owned() });
    Ok(())
}

/// `enable`.
pub fn enable(index: &Index, files: &[String], options: Options) -> Changed {
    let mut changes = Vec::new();
    let mut carries = false;
    for plan in plans(index, files)? {
        carries |= plan.has_info;
        for link in &plan.links {
            make_link(&format!("{}/{link}", options.base()), &plan.fragment, options.force, &mut changes)?;
        }
    }
    Ok((carries, changes))
}

/// (path, target) of every link below a configuration directory and its `.wants` and kin.
fn links_below(base: &str) -> Vec<(String, String)> {
    let mut links = Vec::new();
    let mut directories = VecDeque::from([base.to_owned()]);
    while let Some(directory) = directories.pop_front() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{directory}/{name}");
            if let Ok(target) = std::fs::read_link(&path) {
                links.push((path, target.to_string_lossy().into_owned()));
            } else if directory == base
                && [".wants", ".requires", ".upholds"].iter().any(|suffix| name.ends_with(suffix))
            {
                directories.push_back(path);
            }
        }
    }
    links.sort();
    links
}

/// Whether a link enables this unit: it has its name, or leads to its file, or is an instance of it.
fn enables(path: &str, target: &str, name: &UnitName) -> bool {
    let base = path.rsplit('/').next().unwrap_or("");
    let leads = target.rsplit('/').next() == Some(name.as_str());
    let instance = base
        .parse::<UnitName>()
        .ok()
        .and_then(|link| link.template())
        .is_some_and(|template| template == *name);
    let in_directory = path.rsplit('/').nth(1).is_some_and(|directory| {
        [".wants", ".requires", ".upholds"].iter().any(|suffix| directory.ends_with(suffix))
    });
    if target == "/dev/null" {
        return false;
    }
    (in_directory && (base == name.as_str() || instance))
        || (leads && (base != name.as_str() || in_directory))
}

/// `disable`.
pub fn disable(index: &Index, files: &[String], options: Options) -> Changed {
    let mut carries = false;
    let mut names: Vec<UnitName> = files.iter().map(|file| name_of(file)).collect::<Result<_, _>>()?;
    if let Ok(plans) = plans(index, files) {
        carries = plans.iter().any(|plan| plan.has_info);
        names.extend(plans.into_iter().map(|plan| plan.name));
    }
    let mut changes = Vec::new();
    for (path, target) in links_below(options.base()) {
        if names.iter().any(|name| {
            enables(&path, &target, name)
                || (target.starts_with('/')
                    && !target.starts_with(options.base())
                    && path == format!("{}/{name}", options.base())
                    && target != "/dev/null")
        }) {
            remove_link(&path, &mut changes)?;
        }
    }
    Ok((carries, changes))
}

fn remove_link(path: &str, changes: &mut Vec<Change>) -> Result<(), Failure> {
    std::fs::remove_file(path).map_err(|error| io(path, &error))?;
    changes.push(Change::Unlink { path: path.to_owned() });
    if let Some(parent) = Path::new(path).parent() {
        // Goes only when it is empty, which is what is wanted.
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}

/// `link`: files from outside the search path.
pub fn link(_: &Index, files: &[String], options: Options) -> Changed {
    let mut changes = Vec::new();
    for file in files {
        let name = name_of(file)?;
        if !file.starts_with('/') {
            return Err(Failure::Invalid(format!("{file} is not an absolute path")));
        }
        if !Path::new(file).is_file() {
            return Err(Failure::NotFound(file.clone()));
        }
        make_link(&format!("{}/{name}", options.base()), file, options.force, &mut changes)?;
    }
    Ok((false, changes))
}

/// `mask`.
pub fn mask(_: &Index, files: &[String], options: Options) -> Changed {
    let mut changes = Vec::new();
    for file in files {
        make_link(
            &format!("{}/{}", options.base(), name_of(file)?),
            "/dev/null",
            options.force,
            &mut changes,
        )?;
    }
    Ok((false, changes))
}

/// `unmask`.
pub fn unmask(_: &Index, files: &[String], options: Options) -> Changed {
    let mut changes = Vec::new();
    for file in files {
        let path = format!("{}/{}", options.base(), name_of(file)?);
        if std::fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null")) {
            remove_link(&path, &mut changes)?;
        }
    }
    Ok((false, changes))
}

/// `revert`: drop-ins and masks of the administrator go, in both places.
pub fn revert(_: &Index, files: &[String]) -> Changed {
    let mut changes = Vec::new();
    for file in files {
        let name = name_of(file)?;
        for base in [PERSISTENT, RUNTIME, "/etc/systemd/system.control", "/run/systemd/system.control"] {
            let masked = std::fs::read_link(format!("{base}/{name}"))
                .is_ok_and(|target| target == Path::new("/dev/null"));
            if masked {
                remove_link(&format!("{base}/{name}"), &mut changes)?;
            }
            let directory = format!("{base}/{name}.d");
            for entry in std::fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
                remove_link(&entry.path().to_string_lossy(), &mut changes)?;
            }
        }
    }
    Ok((false, changes))
}

/// `set-default`.
pub fn set_default(index: &Index, name: &str, _force: bool) -> Changed {
    let name = name_of(name)?;
    if name.kind() != crate::value::UnitKind::Target || name.as_str() == "default.target" {
        return Err(Failure::Invalid(format!("{name} cannot be the default; expected a target")));
    }
    let plan = plan(index, &name)?;
    let mut changes = Vec::new();
    make_link(&format!("{PERSISTENT}/default.target"), &plan.fragment, true, &mut changes)?;
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
    let suffix = if kind == "Requires" { "requires" } else { "wants" };
    let mut changes = Vec::new();
    for file in files {
        let plan = plan(index, &name_of(file)?)?;
        make_link(
            &format!("{}/{target}.{suffix}/{}", options.base(), plan.name),
            &plan.fragment,
            options.force,
            &mut changes,
        )?;
    }
    Ok((false, changes))
}

/// `preset`.
pub fn preset_files(index: &Index, files: &[String], mode: &str, options: Options) -> Changed {
    let presets = Presets::read();
    let mut changes = Vec::new();
    let mut carries = false;
    for file in files {
        let name = name_of(file)?;
        let one = std::slice::from_ref(file);
        let done = match presets.enables(name.as_str()) {
            true if mode != "disable-only" => enable(index, one, options)?,
            false if mode != "enable-only" => disable(index, one, options)?,
            _ => continue,
        };
        carries |= done.0;
        changes.extend(done.1);
    }
    Ok((carries, changes))
}

/// `preset-all`.
pub fn preset_all(index: &Index, mode: &str, options: Options) -> Changed {
    let mut changes = Vec::new();
    let names: Vec<String> = index.names().map(str::to_owned).collect();
    for name in names {
        // One broken file does not keep the others from their presets.
        if let Ok((_, done)) = preset_files(index, std::slice::from_ref(&name), mode, options) {
            changes.extend(done);
        }
    }
    Ok((false, changes))
}

/// What `disable` would remove.
pub fn links(_: &Index, name: &str, runtime: bool) -> Vec<String> {
    let Ok(name) = name_of(name) else { return Vec::new() };
    let base = if runtime { RUNTIME } else { PERSISTENT };
    links_below(base)
        .into_iter()
        .filter(|(path, target)| enables(path, target, &name))
        .map(|(path, _)| path)
        .collect()
}

/// Whether presets want a unit enabled; `None` when it has nothing to install.
pub fn preset(index: &Index, name: &str) -> Option<bool> {
    let name: UnitName = name.parse().ok()?;
    plan(index, &name).ok()?;
    Some(Presets::read().enables(name.as_str()))
}

/// `UnitFileState`: `None` when there is no such file.
pub fn state(index: &Index, name: &str) -> Option<&'static str> {
    state_with(index, &name.parse().ok()?, &all_links())
}

/// Links of the administrator and of packages, and those that are gone with this boot: of commands and generators.
fn all_links() -> Links {
    let generated = ["/run/systemd/generator.early", "/run/systemd/generator", "/run/systemd/generator.late"];
    let runtime = [RUNTIME].into_iter().chain(generated).flat_map(links_below).collect();
    (links_below(PERSISTENT), runtime)
}

type Links = (Vec<(String, String)>, Vec<(String, String)>);

fn state_with(index: &Index, name: &UnitName, links: &Links) -> Option<&'static str> {
    let template = name.template();
    let known = if index.entry_path(name.as_str()).is_some() {
        name.clone()
    } else {
        template.clone().unwrap_or_else(|| name.clone())
    };
    let (path, masked) = index.entry_path(known.as_str())?;
    if masked {
        return Some(if path.starts_with("/run/") { "masked-runtime" } else { "masked" });
    }
    if index.follow(known.as_str()) != known.as_str() {
        return Some("alias");
    }
    if path.starts_with("/run/systemd/generator") {
        return Some("generated");
    }
    if path.starts_with("/run/systemd/transient") {
        return Some("transient");
    }
    let enabled = |links: &[(String, String)]| {
        links.iter().any(|(path, target)| {
            let base = path.rsplit('/').next().unwrap_or("");
            enables(path, target, name) || (known != *name && base == name.as_str() && target != "/dev/null")
        })
    };
    if enabled(&links.0) {
        return Some("enabled");
    }
    if enabled(&links.1) {
        // Another name that a generator gave it enables that name, and not this one.
        let generated = |path: &str| path.starts_with("/run/systemd/generator");
        let by_name = links.1.iter().filter(|(path, target)| enables(path, target, name));
        let only_named = by_name.clone().all(|(path, _)| generated(path) && path.matches('/').count() == 4);
        return Some(if only_named && by_name.count() > 0 { "indirect" } else { "enabled-runtime" });
    }
    if !index.path().iter().any(|directory| path.starts_with(&format!("{directory}/"))) {
        return Some("linked");
    }
    match plan(index, &known) {
        Ok(plan) if !plan.links.is_empty() => Some("disabled"),
        Ok(plan) if !plan.also.is_empty() => Some("indirect"),
        Ok(_) => Some("static"),
        Err(Failure::Masked(_)) => Some("masked"),
        Err(_) => Some("bad"),
    }
}

/// (path, state) of every unit file.
pub fn list(index: &Index) -> Vec<(String, &'static str)> {
    let links = all_links();
    let names: Vec<UnitName> = index.names().filter_map(|name| name.parse().ok()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (path, _) = index.entry_path(name.as_str())?;
            Some((path, state_with(index, &name, &links)?))
        })
        .collect()
}
