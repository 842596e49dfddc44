//! Loading one unit: name → alias → fragment (its own or its template's) → drop-ins → `.wants` and kin → checks.
//!
//! Never fails: what cannot be loaded is a [`UnitFile`] whose load state and error say why.

use crate::around::{Around, LINKS};
use crate::builtin;
use crate::diagnostic::{Code, Diagnostic, Fault};
use crate::file::{Body, InstanceUse, LoadState, Names, UnitFile};
use crate::implied;
use crate::lexer::{Assignment, Line, Place, lines, short};
use crate::origin::{origin, with_source};
use crate::setting::Context;
use crate::specifier::{SpecifierContext, UnitFacts, expand};
use crate::table::{Assigned, Effect, IGNORED, MUSTER_ROWS, REDIRECTED, newer_name};
use crate::value::{AbsolutePath, PrivateTmp, ServiceType, Timespan, UnitKind, UnitName};
use std::rc::Rc;

/// At most this many aliases are followed.
const ALIAS_DEPTH: usize = 8;

/// What is known under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing.
    NotFound,
    /// A link to /dev/null, or an empty file.
    Masked(String),
    /// Another name of this unit.
    Alias(UnitName),
    /// A file.
    File(String),
}

/// A file as it was read.
#[derive(Debug)]
pub struct Reading {
    /// The text; an error says what it is instead.
    pub text: Result<Rc<str>, String>,
    /// [`Source::modified`], not later than the text.
    pub modified: Option<u64>,
    /// [`Source::identity`], not later than the text.
    pub identity: Option<u64>,
}

/// Answers for unit files; the only window that loading has.
pub trait Source {
    /// What is known under a name (of a plain unit, an instance or a template).
    fn lookup(&self, name: &UnitName) -> Lookup;
    /// Other names that lead to this one.
    fn aliases(&self, name: &UnitName) -> Vec<UnitName>;
    /// The text of a file; an error says what it is instead.
    fn read(&self, path: &str) -> Result<Rc<str>, String>;
    /// When the file was last changed, in microseconds since 1970, where that can be known.
    fn modified(&self, path: &str) -> Option<u64> {
        let _ = path;
        None
    }
    /// A number that is the same for as long as the file at this path is, with all that it holds; nothing where that cannot be
    /// known.
    fn identity(&self, path: &str) -> Option<u64> {
        let _ = path;
        None
    }
    /// All three at once.
    fn reading(&self, path: &str) -> Reading {
        let (modified, identity) = (self.modified(path), self.identity(path));
        Reading { text: self.read(path), modified, identity }
    }
    /// (file name, path) of the `.conf` files in directories of this name (`foo.service.d`), highest precedence first.
    /// The path is `None` when the file is masked.
    fn drop_ins(&self, directory: &str) -> Vec<(String, Option<String>)>;
    /// The names in directories of this name (`foo.target.wants`).
    fn linked(&self, directory: &str) -> Vec<UnitName>;
    /// At most this many diagnostics are kept for one unit.
    fn diagnostics_max(&self) -> usize {
        100
    }
}

/// Loads a unit.
pub fn load(name: &UnitName, source: &dyn Source, machine: &SpecifierContext) -> UnitFile {
    let (mut file, found) = named(name, source);
    let id = file.id.clone();
    let around = Around::of(&file, source);
    let text = match found {
        Lookup::Masked(path) => {
            file.load_state = LoadState::Masked;
            file.fragment_path = Some(path);
            return file;
        }
        Lookup::File(path) => {
            let reading = source.reading(&path);
            // Before drop-ins are read: what changes meanwhile is seen as changed later.
            file.origin = origin(&file, &path, reading.identity, &around, source);
            file.stamps.reserve_exact(1);
            file.stamps.extend(reading.modified.map(|stamp| (path.clone(), stamp)));
            file.fragment_path = Some(path);
            reading.text
        }
        Lookup::NotFound | Lookup::Alias(_) => match builtin::text(id.as_str()) {
            Some(text) => Ok(text.into()),
            None if exists_without_file(&id) => Ok("".into()),
            None => {
                // Drop-ins and links alone make no unit, but their dependencies count once it is there.
                add_links(&mut file, &around);
                return file;
            }
        },
    };
    match text {
        Ok(text) => finish(&mut file, source, around, machine, |file, facts| {
            let shown = if facts.fragment.is_empty() { facts.name.as_str() } else { facts.fragment };
            apply(file, shown, &text, facts);
        }),
        Err(message) => {
            file.load_state = LoadState::Error;
            complain(&mut file, Code::Unreadable, &message);
            file.load_error = Some(message);
        }
    }
    file
}

/// A unit as its names alone make it, and what is known under them.
pub(crate) fn named(name: &UnitName, source: &dyn Source) -> (UnitFile, Lookup) {
    let (id, found) = resolve(name, source);
    let mut file = UnitFile::not_found(id.clone());
    file.names.insert(name.clone());
    file.names.extend(source.aliases(&id));
    if let Some((template, instance)) = id.template().zip(id.instance()) {
        let others = source.aliases(&template).into_iter().filter(UnitName::is_template);
        file.names.extend(others.filter_map(|other| other.with_instance(instance)));
    }
    (file, found)
}

/// A further instance of a template, from one that was loaded before: nothing is read and nothing parsed anew. `None` where
/// this instance has files of its own, or the settings depend on its name in more than the description.
pub fn further_instance(
    of: &UnitFile,
    name: &UnitName,
    source: &dyn Source,
    machine: &SpecifierContext,
) -> Option<UnitFile> {
    let has_own = source.lookup(name) != Lookup::NotFound
        || !source.drop_ins(&format!("{name}.d")).is_empty()
        || LINKS.iter().any(|suffix| !source.linked(&format!("{name}.{suffix}")).is_empty());
    if has_own || of.load_state != LoadState::Loaded || of.names.len() != 1 {
        return None;
    }
    let mut file = of.clone();
    file.names = Names::of(name.clone());
    file.id = name.clone();
    file.origin = None;
    file.diagnostics.clear();
    match &of.instance_use {
        InstanceUse::Nothing => {}
        InstanceUse::Description(text) => {
            let fragment = of.fragment_path.clone().unwrap_or_default();
            let text = expand(text, &UnitFacts::new(name, &fragment, machine)).ok()?;
            *Rc::make_mut(&mut file.unit).edit().description() = Some(text);
        }
        InstanceUse::More => return None,
    }
    Some(file)
}

/// A unit made by the manager itself, from what the kernel says rather than from a file: `make` fills its sections. They
/// never pass through text, in which a name from outside could begin a line of its own. Drop-ins apply to it too.
pub fn load_made(
    name: &UnitName,
    source: &dyn Source,
    machine: &SpecifierContext,
    make: impl FnOnce(&mut UnitFile),
) -> UnitFile {
    let mut file = UnitFile::not_found(name.clone());
    make(&mut file);
    let around = Around::of(&file, source);
    finish(&mut file, source, around, machine, |_, _| {});
    file
}

/// (section, directive, value): one assignment of a client.
pub type Setting = (String, String, String);

/// A unit given by a client rather than by a file: its settings are assigned one by one, and none can begin another.
/// Drop-ins apply to it too.
pub fn load_settings(
    name: &UnitName,
    settings: &[Setting],
    source: &dyn Source,
    machine: &SpecifierContext,
) -> UnitFile {
    let mut file = UnitFile::not_found(name.clone());
    let path = format!("/run/systemd/transient/{name}");
    file.stamps.extend(source.modified(&path).map(|stamp| (path.clone(), stamp)));
    file.fragment_path = Some(path.clone());
    let around = Around::of(&file, source);
    finish(&mut file, source, around, machine, |file, facts| {
        for (section, key, value) in settings {
            if let Err(fault) = apply_one(file, section, key, value, facts) {
                note(
                    file,
                    &path,
                    key,
                    (Place::default(), Place::default()),
                    fault,
                    false,
                    facts.diagnostics_max,
                );
            }
        }
    });
    file
}

/// The first of these settings that a unit of this name cannot take, and what is wrong with it.
pub fn check_settings<'a>(
    name: &UnitName,
    settings: &'a [Setting],
    machine: &SpecifierContext,
) -> Result<(), (&'a Setting, Fault)> {
    let mut file = UnitFile::not_found(name.clone());
    for setting in settings {
        let (section, key, value) = setting;
        assign(&mut file, section, key, value, machine).map_err(|fault| (setting, fault))?;
    }
    Ok(())
}

/// Assigns one setting as a line of a file would.
fn apply_one(
    file: &mut UnitFile,
    section: &str,
    key: &str,
    value: &str,
    facts: &UnitFacts<'_>,
) -> Result<Effect, Fault> {
    let assigned = assign_one(file, section, key, value, facts);
    let named = facts.take_named_instance();
    if named || key == "Description" {
        file.instance_use = file.instance_use.after(section, key, named.then_some(value));
    }
    match assigned {
        Some(Ok(effect)) => {
            if !value.is_empty() {
                note_effect(file, key, effect);
            }
            Ok(effect)
        }
        Some(Err(message)) => Err(message),
        None => Err(unknown(section, key)),
    }
}

/// Sets one directive of a unit at run time.
pub fn assign(
    file: &mut UnitFile,
    section: &str,
    key: &str,
    value: &str,
    machine: &SpecifierContext,
) -> Result<(), Fault> {
    let (id, fragment) = (file.id.clone(), file.fragment_path.clone().unwrap_or_default());
    let facts = UnitFacts::new(&id, &fragment, machine);
    // No longer what its files alone say.
    file.origin = None;
    match assign_one(file, section, key, value, &facts) {
        Some(done) => done.map(|effect| note_effect(file, key, effect)),
        None => Err(unknown(section, key)),
    }
}

fn unknown(section: &str, key: &str) -> Fault {
    Fault::new(Code::UnknownKey, key, section.to_owned())
}

/// Slices, scopes and devices need no file.
fn exists_without_file(id: &UnitName) -> bool {
    matches!(id.kind(), UnitKind::Slice | UnitKind::Device)
        || id.as_str() == "init.scope"
        || id.as_str() == "-.mount"
}

fn resolve(name: &UnitName, source: &dyn Source) -> (UnitName, Lookup) {
    let mut id = name.clone();
    for _ in 0..ALIAS_DEPTH {
        let mut found = source.lookup(&id);
        if found == Lookup::NotFound {
            if let Some(template) = id.template() {
                found = source.lookup(&template);
            }
        }
        let Lookup::Alias(target) = found else { return (id, found) };
        id = match (target.is_template(), id.instance()) {
            (true, Some(instance)) if !instance.is_empty() => match target.with_instance(instance) {
                // `foo@x.service` as a link to its own template is no alias, only its file.
                Some(same) if same == id => return (id, source.lookup(&target)),
                Some(other) => other,
                None => return (id, Lookup::NotFound),
            },
            _ => target,
        };
    }
    (id, Lookup::NotFound)
}

/// What `begin` says, then the drop-ins and links; checked as a whole.
fn finish(
    file: &mut UnitFile,
    source: &dyn Source,
    mut around: Around,
    machine: &SpecifierContext,
    begin: impl FnOnce(&mut UnitFile, &UnitFacts<'_>),
) {
    file.load_state = LoadState::Loaded;
    // Lent to what is read.
    let (id, fragment) = (file.id.clone(), file.fragment_path.take());
    let mut facts = UnitFacts::new(&id, fragment.as_deref().unwrap_or_default(), machine);
    facts.diagnostics_max = source.diagnostics_max();
    begin(file, &facts);
    let max = source.diagnostics_max();
    for path in std::mem::take(&mut around.drop_ins) {
        let reading = source.reading(&path);
        match reading.text {
            Ok(text) => apply(file, &path, &text, &facts),
            Err(message) => complain_in(file, max, Diagnostic::whole(&path, Code::Unreadable, &message)),
        }
        file.stamps.extend(reading.modified.map(|stamp| (path.clone(), stamp)));
        file.drop_in_paths.push(path);
    }
    file.fragment_path = fragment;
    file.drop_in_paths.shrink_to_fit();
    // After the drop-ins: an empty assignment takes back no link.
    add_links(file, &around);
    file.origin = with_source(file.origin, file, source);
    let made_from = file.unit.source_path().clone();
    file.stamps.extend(made_from.and_then(|path| source.modified(&path).map(|stamp| (path.0, stamp))));
    file.stamps.shrink_to_fit();
    settle(file);
    let fatal = file.load_error.take().map_or(Ok(()), Err);
    if let Err(message) = fatal.and_then(|()| check(file)) {
        file.load_state = LoadState::BadSetting;
        complain(file, Code::Refused, &message);
        file.load_error = Some(message);
    }
}

fn add_links(file: &mut UnitFile, around: &Around) {
    for (kind, other) in &around.links {
        let mut unit = Rc::make_mut(&mut file.unit).edit();
        let list = match *kind {
            "wants" => unit.wants(),
            "requires" => unit.requires(),
            _ => unit.upholds(),
        };
        if !list.contains(other) {
            list.push(other.clone());
        }
    }
}

fn complain(file: &mut UnitFile, code: Code, message: &str) {
    let shown = file.fragment_path.clone().unwrap_or_else(|| file.id.to_string());
    file.diagnostics.push(Diagnostic::whole(&shown, code, message));
}

fn complain_in(file: &mut UnitFile, max: usize, diagnostic: Diagnostic) {
    if file.diagnostics.len() < max {
        file.diagnostics.push(diagnostic);
    }
}

/// Keeps a fault of an assignment, or of its key or section.
fn note(
    file: &mut UnitFile,
    path: &str,
    key: &str,
    (from, to): (Place, Place),
    fault: Fault,
    fatal: bool,
    max: usize,
) {
    let Fault { code, found, expected, .. } = fault;
    let (file_name, directive) = (path.to_owned(), short(key));
    complain_in(file, max, Diagnostic { file: file_name, from, to, code, directive, found, expected, fatal });
}

fn note_effect(file: &mut UnitFile, key: &str, effect: Effect) {
    if effect == Effect::Stored && !file.not_applied.iter().any(|known| known == key) {
        file.not_applied.push(key.to_owned());
    }
}

/// Applies the text of one file.
fn apply(file: &mut UnitFile, path: &str, text: &str, facts: &UnitFacts<'_>) {
    let mut section = Section::None;
    for line in lines(text) {
        match line {
            Line::Bad { from, to, code, found, expected } => {
                note(
                    file,
                    path,
                    "",
                    (from, to),
                    Fault { code, found, expected, at: None },
                    false,
                    facts.diagnostics_max,
                );
            }
            Line::Section { at, name } => {
                section = Section::of(file, name);
                if section == Section::Unknown {
                    let length = u32::try_from(name.len()).unwrap_or(u32::MAX).saturating_add(2);
                    let to = Place { column: at.column.saturating_add(length), ..at };
                    note(
                        file,
                        path,
                        "",
                        (at, to),
                        Fault::new(Code::UnknownSection, name, ""),
                        false,
                        facts.diagnostics_max,
                    );
                }
            }
            Line::Assignment(line) => match &section {
                Section::Known(section) => apply_line(file, path, section, &line, facts),
                Section::None => {
                    let fault = Fault::new(Code::NoSection, &line.key, "");
                    note(file, path, &line.key, line.key_span(), fault, false, facts.diagnostics_max);
                }
                Section::Foreign | Section::Unknown => {}
            },
        }
    }
}

/// Applies one assignment of a file.
fn apply_line(file: &mut UnitFile, path: &str, section: &str, line: &Assignment<'_>, facts: &UnitFacts<'_>) {
    let fault = match apply_one(file, section, &line.key, &line.value, facts) {
        Ok(Effect::Older) => {
            let fault = Fault::new(Code::Older, "", newer_name(&line.key).unwrap_or_default());
            note(file, path, &line.key, line.key_span(), fault, false, facts.diagnostics_max);
            return;
        }
        Ok(_) => return,
        Err(fault) => fault,
    };
    if fault.code == Code::UnknownKey {
        if !line.key.starts_with("X-") {
            note(file, path, &line.key, line.key_span(), fault, false, facts.diagnostics_max);
        }
        return;
    }
    let mut prefixes = line.value.chars().take_while(|c| "@-:+!|".contains(*c));
    let lenient = match &*line.key {
        "WorkingDirectory" => line.value.starts_with('-'),
        key if key.starts_with("Exec") => prefixes.any(|c| c == '-'),
        _ => false,
    };
    let fatal = FATAL_KEYS.contains(&&*line.key) && !lenient;
    note(file, path, &line.key, line.value_span(fault.at.clone()), fault, fatal, facts.diagnostics_max);
    if fatal {
        file.load_error.get_or_insert(crate::file::FATAL.to_owned());
    }
}

#[derive(PartialEq, Eq)]
enum Section {
    /// No header yet.
    None,
    /// A known section with this name.
    Known(&'static str),
    /// Passed over without a word (`X-`).
    Foreign,
    /// Passed over with a warning.
    Unknown,
}

impl Section {
    fn of(file: &UnitFile, name: &str) -> Section {
        let known = ["Unit", "Install", "X-Muster"].into_iter().chain(file.body.section());
        match known.into_iter().find(|known| *known == name) {
            Some(known) => Section::Known(known),
            None if name.starts_with("X-") => Section::Foreign,
            None => Section::Unknown,
        }
    }
}

/// What decides with whose rights and where something is done, and what: a value that cannot be read refuses the unit, unless it
/// begins with `-`.
const FATAL_KEYS: &[&str] = &[
    "DynamicUser",
    "User",
    "Group",
    "SupplementaryGroups",
    "SocketUser",
    "SocketGroup",
    "WorkingDirectory",
    "RootDirectory",
    "RootImage",
    "RootMStack",
    "RootVerity",
    "RootImagePolicy",
    "MountImagePolicy",
    "ExtensionImagePolicy",
    "ExecCondition",
    "ExecStartPre",
    "ExecStart",
    "ExecStartPost",
    "ExecReload",
    "ExecReloadPost",
    "ExecStopPre",
    "ExecStop",
    "ExecStopPost",
];

/// Assigns one directive in whichever table of the section knows it.
fn assign_one(
    file: &mut UnitFile,
    section: &str,
    key: &str,
    value: &str,
    facts: &UnitFacts<'_>,
) -> Option<Assigned> {
    let expander = |text: &str| expand(text, facts);
    let context = Context { expand: &expander, expands: true, directive: "", lists: Some(&facts.lists) };
    match section {
        "Unit" => {
            let known = Rc::make_mut(&mut file.unit).assign(key, value, &context);
            return known.or_else(|| is_ignored(&["Unit"], key));
        }
        "Install" => return Rc::make_mut(&mut file.install).assign(key, value, &context),
        _ => {}
    }
    let mine = MUSTER_ROWS.iter().any(|row| row.name == key);
    if mine != (section == "X-Muster") {
        return None;
    }
    let known = assign_body(file, key, value, &context);
    known
        .or_else(|| assign_redirected(file, section, key, value, &context))
        .or_else(|| is_ignored(&["CGroup", "Exec", section], key))
}

/// What systemd ignores too is in no table.
fn is_ignored(groups: &[&str], key: &str) -> Option<Assigned> {
    let found = IGNORED.iter().any(|(group, name)| *name == key && groups.contains(group));
    found.then_some(Ok(Effect::Ignored))
}

/// An old name, or a name of several.
fn assign_redirected(
    file: &mut UnitFile,
    section: &str,
    key: &str,
    value: &str,
    context: &Context<'_>,
) -> Option<Assigned> {
    let (_, _, target, keys) = REDIRECTED.iter().find(|row| row.0 == section && row.1 == key)?;
    let mut last = Ok(Effect::Applied);
    for key in *keys {
        last = if *target == "Unit" {
            Rc::make_mut(&mut file.unit).assign(key, value, context)?
        } else {
            assign_body(file, key, value, context)?
        };
    }
    Some(last)
}

/// Lists of which each, where it is assigned nothing, resets all (systemd.timer(5), systemd.path(5)).
const TOGETHER: [&[&str]; 2] = [
    &["OnActiveSec", "OnBootSec", "OnCalendar", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec"],
    &["DirectoryNotEmpty", "PathChanged", "PathExists", "PathExistsGlob", "PathModified"],
];

fn assign_body(file: &mut UnitFile, key: &str, value: &str, context: &Context<'_>) -> Option<Assigned> {
    if value.is_empty() {
        for other in TOGETHER.iter().filter(|lists| lists.contains(&key)).copied().flatten() {
            let _ = match &mut file.body {
                Body::Timer(section) => section.assign(other, "", context),
                Body::Path(section) => section.assign(other, "", context),
                _ => None,
            };
        }
    }
    let own = match &mut file.body {
        Body::Service(section) => Rc::make_mut(section).assign(key, value, context),
        Body::Socket(section) => Rc::make_mut(section).assign(key, value, context),
        Body::Slice(section) => section.assign(key, value, context),
        Body::Timer(section) => section.assign(key, value, context),
        Body::Path(section) => section.assign(key, value, context),
        Body::Mount(section) => section.assign(key, value, context),
        Body::Automount(section) => section.assign(key, value, context),
        Body::Swap(section) => section.assign(key, value, context),
        Body::Scope(section) => section.assign(key, value, context),
        Body::Target | Body::Device => None,
    };
    if let (Some(exec), "StandardOutput") = (&mut file.exec, key) {
        *Rc::make_mut(exec).edit().output_is_set() = !value.is_empty();
    }
    own.or_else(|| file.exec.as_mut().and_then(|exec| Rc::make_mut(exec).assign(key, value, context)))
        .or_else(|| file.kill.as_mut().and_then(|kill| Rc::make_mut(kill).assign(key, value, context)))
        .or_else(|| file.cgroup.as_mut().and_then(|cgroup| Rc::make_mut(cgroup).assign(key, value, context)))
}

/// A time span of zero means none at all.
macro_rules! endless {
    ($section:expr, $field:ident) => {
        if $section.$field() == Some(Timespan(0)) {
            *$section.edit().$field() = Some(Timespan::INFINITY);
        }
    };
}

/// Defaults that depend on other settings, and zeros that mean infinity.
fn settle(file: &mut UnitFile) {
    let executes = file.executes();
    if let Some(exec) = file.exec.as_mut().filter(|exec| executes && exec.dynamic_user()) {
        implied::make_user_dynamic(&file.id, exec);
    }
    if let Some(exec) = &file.exec {
        implied::close_devices(exec, &mut file.cgroup);
        implied::open_loop_devices(exec, &mut file.cgroup);
    }
    if file.id.kind() == UnitKind::Slice && file.unit.description().is_none() {
        let path = crate::value::path_unescape(file.id.stem());
        *Rc::make_mut(&mut file.unit).edit().description() = Some(format!("Slice {path}"));
    }
    if file.id.kind() == UnitKind::Device && file.unit.description().is_none() {
        let path = format!("/{}", crate::value::path_unescape(file.id.stem()).trim_start_matches('/'));
        *Rc::make_mut(&mut file.unit).edit().description() = Some(path);
    }
    match &mut file.body {
        Body::Service(section) => {
            let section = Rc::make_mut(section);
            endless!(section, timeout_start_sec);
            endless!(section, timeout_stop_sec);
            endless!(section, runtime_max_sec);
            if file.load_state == LoadState::Loaded
                && section.effective_type() == ServiceType::Oneshot
                && section.timeout_start_sec().is_none()
            {
                *section.edit().timeout_start_sec() = Some(Timespan::INFINITY);
            }
        }
        Body::Socket(section) => {
            let section = Rc::make_mut(section);
            endless!(section, timeout_sec);
        }
        Body::Mount(section) => {
            endless!(section, timeout_sec);
            if file.load_state == LoadState::Loaded && file.unit.description().is_none() {
                let place = section.where_().as_ref().map(|place| place.0.clone());
                let place = place.unwrap_or_else(|| crate::value::path_unescape(file.id.stem()));
                *Rc::make_mut(&mut file.unit).edit().description() = Some(place);
            }
            section
                .edit()
                .where_()
                .get_or_insert_with(|| AbsolutePath(crate::value::path_unescape(file.id.stem())));
        }
        Body::Swap(section) => {
            endless!(section, timeout_sec);
            section.edit().what().get_or_insert_with(|| crate::value::path_unescape(file.id.stem()));
            if file.load_state == LoadState::Loaded && file.unit.description().is_none() {
                *Rc::make_mut(&mut file.unit).edit().description() = section.what().clone();
            }
        }
        Body::Automount(section) => {
            section
                .edit()
                .where_()
                .get_or_insert_with(|| AbsolutePath(crate::value::path_unescape(file.id.stem())));
        }
        Body::Scope(section) => {
            endless!(section, runtime_max_sec);
            endless!(section, timeout_stop_sec);
        }
        Body::Target | Body::Slice(_) | Body::Timer(_) | Body::Path(_) | Body::Device => {}
    }
    let places = implied::places(file);
    // What is disconnected is in memory, and needs neither directory.
    let private_tmp = file.exec.as_ref().is_some_and(|exec| exec.private_tmp() == PrivateTmp::Connected);
    let wished = file.exec.as_ref().and_then(|exec| exec.working_directory().as_ref());
    let wished = wished.filter(|wished| wished.optional).and_then(|wished| wished.path.clone());
    let root = file.exec.as_ref().and_then(|exec| exec.root_directory().clone()).filter(|_| file.executes());
    let image = file.exec.as_ref().and_then(|exec| exec.root_image().clone()).filter(|_| file.executes());
    let stack = file.exec.as_ref().and_then(|exec| exec.root_mstack().clone()).filter(|_| file.executes());
    let wished: Vec<AbsolutePath> = wished.into_iter().chain(root).chain(image).chain(stack).collect();
    let unit = Rc::make_mut(&mut file.unit);
    if private_tmp {
        unit.edit().wants_mounts_for().extend(["/tmp", "/var/tmp"].map(|path| AbsolutePath(path.to_owned())));
    }
    if !wished.is_empty() {
        unit.edit().wants_mounts_for().extend(wished);
    }
    // The one is the limit of the other too.
    if let (None, Some(span)) = (unit.job_running_timeout_sec(), unit.job_timeout_sec()) {
        *unit.edit().job_running_timeout_sec() = Some(span);
    }
    endless!(unit, job_timeout_sec);
    endless!(unit, job_running_timeout_sec);
    if !places.is_empty() {
        unit.edit().requires_mounts_for().extend(places.into_iter().map(AbsolutePath));
    }
    if let Some(cgroup) = &mut file.cgroup {
        use crate::value::Delegate::Controllers;
        if matches!(cgroup.delegate(), Some(Controllers(list)) if list.iter().eq(["-"])) {
            *Rc::make_mut(cgroup).edit().delegate() = None;
        }
    }
    if let (Some(exec), Body::Service(_) | Body::Socket(_)) = (&mut file.exec, &file.body) {
        use crate::value::{StdInput, StdOutput};
        if !exec.standard_input_data().0.is_empty() && *exec.standard_input() == StdInput::Null {
            *Rc::make_mut(exec).edit().standard_input() = StdInput::Data;
        }
        // Output follows a terminal or a socket on input where it is not set (systemd.exec(5)).
        let follows = matches!(
            exec.standard_input(),
            StdInput::Tty | StdInput::TtyForce | StdInput::TtyFail | StdInput::Socket | StdInput::Fd(_)
        );
        if follows && *exec.standard_output() == StdOutput::Journal && !exec.output_is_set() {
            *Rc::make_mut(exec).edit().standard_output() = StdOutput::Inherit;
        }
    }
}

/// What systemd refuses to load.
fn check(file: &UnitFile) -> Result<(), String> {
    if file.exec.as_ref().is_some_and(|exec| exec.private_pids()) {
        match &file.body {
            // The kernel kills a namespace of processes when its first one ends.
            Body::Service(service) if service.effective_type() == ServiceType::Forking => {
                return Err("PrivatePIDs= is not supported with Type=forking.".to_owned());
            }
            Body::Service(_) => {}
            _ => return Err("PrivatePIDs= is only supported for service units.".to_owned()),
        }
    }
    match &file.body {
        Body::Service(service) => {
            let oneshot = service.effective_type() == ServiceType::Oneshot;
            if service.exec_start().is_empty()
                && service.exec_stop().is_empty()
                && file.unit.success_action() == Default::default()
            {
                return Err("Service has no ExecStart=, ExecStop=, or SuccessAction= setting.".to_owned());
            }
            if service.exec_start().is_empty()
                && (!oneshot || !service.remain_after_exit())
                && file.unit.success_action() == Default::default()
            {
                return Err("Service has no ExecStart= setting, which is only allowed for RemainAfterExit=yes services.".to_owned());
            }
            if service.exec_start().len() > 1 && !oneshot {
                return Err("Service has more than one ExecStart= setting, which is only allowed for Type=oneshot services.".to_owned());
            }
            if service.type_() == Some(ServiceType::Dbus) && service.bus_name().is_none() {
                return Err(
                    "Service is of type D-Bus but no D-Bus service name has been specified.".to_owned()
                );
            }
            if oneshot && service.exit_type() == crate::value::ExitType::Cgroup {
                return Err(
                    "Service has ExitType=cgroup set, which isn't allowed for Type=oneshot services."
                        .to_owned(),
                );
            }
            let restarts =
                matches!(service.restart(), crate::value::Restart::Always | crate::value::Restart::OnSuccess);
            if oneshot && restarts && service.type_() == Some(ServiceType::Oneshot) {
                return Err("Service has Restart= set to either always or on-success, which isn't allowed for Type=oneshot services.".to_owned());
            }
            Ok(())
        }
        Body::Socket(socket) => {
            if socket.listen().is_empty() {
                return Err("Unit has no Listen setting (ListenStream=, ListenDatagram=, ListenFIFO=, ...)."
                    .to_owned());
            }
            if socket.accept() && socket.listen().iter().any(|listen| !accepts(listen.kind)) {
                return Err(
                    "Unit is configured for accepting sockets, but sockets are non-accepting.".to_owned()
                );
            }
            if socket.max_connections() == 0 {
                return Err("MaxConnection= setting too small.".to_owned());
            }
            if socket.accept() && socket.service().is_some() {
                return Err(
                    "Explicit service configuration for accepting socket units not supported.".to_owned()
                );
            }
            if !socket.symlinks().is_empty()
                && socket.listen().iter().filter(|listen| listen.node().is_some()).count() != 1
            {
                return Err(
                    "Unit has symlinks set but none or more than one node in the file system.".to_owned()
                );
            }
            Ok(())
        }
        Body::Mount(mount) => {
            let place = mount
                .where_()
                .as_deref()
                .map_or_else(|| crate::value::path_unescape(file.id.stem()), str::to_owned);
            if crate::value::path_escape(&place) != file.id.stem() {
                return Err("Where= setting doesn't match unit name.".to_owned());
            }
            if file.fragment_path.is_some() && mount.what().is_none() {
                return Err("What= setting is missing.".to_owned());
            }
            Ok(())
        }
        Body::Automount(automount) => {
            let place = automount.where_().as_deref();
            if place.is_some_and(|place| crate::value::path_escape(place) != file.id.stem()) {
                return Err("Where= setting doesn't match unit name.".to_owned());
            }
            if file.id.stem() == "-" {
                return Err("Cannot have an automount unit for the root directory.".to_owned());
            }
            Ok(())
        }
        Body::Swap(swap) => match swap.what().as_deref() {
            Some(what) if crate::value::path_escape(what) != file.id.stem() => {
                Err("Value of What= and unit name do not match.".to_owned())
            }
            _ => Ok(()),
        },
        Body::Timer(timer) => {
            let never = timer.on_calendar().is_empty()
                && timer.on_active_sec().is_empty()
                && timer.on_boot_sec().is_empty()
                && timer.on_startup_sec().is_empty()
                && timer.on_unit_active_sec().is_empty()
                && timer.on_unit_inactive_sec().is_empty()
                && !timer.on_clock_change()
                && !timer.on_timezone_change();
            if never { Err("Timer unit lacks value setting. Refusing.".to_owned()) } else { Ok(()) }
        }
        Body::Path(path) => {
            let never = path.path_exists().0.is_empty()
                && path.path_exists_glob().0.is_empty()
                && path.path_changed().0.is_empty()
                && path.path_modified().0.is_empty()
                && path.directory_not_empty().0.is_empty();
            if never { Err("Path unit lacks path setting. Refusing.".to_owned()) } else { Ok(()) }
        }
        Body::Target | Body::Slice(_) | Body::Scope(_) | Body::Device => Ok(()),
    }
}

fn accepts(kind: crate::value::ListenKind) -> bool {
    use crate::value::ListenKind::{
        Datagram, Fifo, MessageQueue, Netlink, SequentialPacket, Special, Stream, UsbFunction,
    };
    match kind {
        Stream | SequentialPacket => true,
        Datagram | Fifo | Netlink | Special | MessageQueue | UsbFunction => false,
    }
}
