//! `musterctl verify FILE…`: what PID 1 would say of these unit files, without PID 1.
//!
//! A file is loaded as the manager loads it, with the drop-ins beside it and those of the system. Each diagnostic is printed
//! with its code, its place, the line and what is wrong in it. A file named system.conf, or one in system.conf.d, is read as
//! the manager's own configuration.

use crate::Answer;
use crate::page::{Page, Style};
use muster_unit::diagnostic::{Code, Diagnostic};
use muster_unit::lexer::short;
use muster_unit::load::{Lookup, Source, load};
use muster_unit::system_conf::{self, Config};
use muster_unit::table::rows;
use muster_unit::{Body, Index, SpecifierContext, UnitFile, UnitName};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

/// A name that is further from every directive than this is no misspelling.
const DISTANCE_MAX: usize = 3;

/// The unit files of the system, with one file in place of whatever has its name.
struct Beside {
    index: Index,
    name: UnitName,
    path: String,
}

impl Source for Beside {
    fn lookup(&self, name: &UnitName) -> Lookup {
        let own = *name == self.name || name.template().is_some_and(|template| template == self.name);
        match self.path.as_str() {
            _ if !own => self.index.lookup(name),
            "/dev/null" => Lookup::Masked(self.path.clone()),
            path => Lookup::File(path.to_owned()),
        }
    }
    fn aliases(&self, name: &UnitName) -> Vec<UnitName> {
        self.index.aliases(name)
    }
    fn read(&self, path: &str) -> Result<Rc<str>, String> {
        self.index.read(path)
    }
    fn drop_ins(&self, directory: &str) -> Vec<(String, Option<String>)> {
        self.index.drop_ins(directory)
    }
    fn linked(&self, directory: &str) -> Vec<UnitName> {
        self.index.linked(directory)
    }
    fn diagnostics_max(&self) -> usize {
        usize::MAX
    }
}

/// One diagnostic, with the file that it is about.
#[derive(Serialize)]
struct Found {
    /// Such as `M003`.
    code: &'static str,
    /// Whether the unit does not load for it.
    fatal: bool,
    file: String,
    /// From 1; 0 where it is about the whole file.
    line: u32,
    /// In bytes, from 1.
    column: u32,
    message: String,
    directive: String,
    expected: String,
    #[serde(skip)]
    diagnostic: Diagnostic,
    #[serde(skip)]
    text: Rc<str>,
}

/// All that is wrong.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Verdict(Vec<Found>);

/// Checks the files.
pub fn verify(paths: &[String]) -> Verdict {
    let mut all = Vec::new();
    for path in paths {
        let diagnostics = match read(path) {
            _ if is_system_conf(path) => system_conf(path),
            Ok(file) => file.diagnostics.iter().cloned().chain(commands(&file)).collect(),
            Err(message) => vec![Diagnostic::whole(path, Code::Unreadable, &message)],
        };
        let mut texts = BTreeMap::new();
        for diagnostic in diagnostics {
            let text: &Rc<str> = texts.entry(diagnostic.file.clone()).or_insert_with_key(|path| {
                muster_unit::index::read_unit_file(path).unwrap_or_else(|_| "".into())
            });
            all.push(Found {
                code: diagnostic.code.id(),
                fatal: diagnostic.fatal,
                file: diagnostic.file.to_string(),
                line: diagnostic.from.line,
                column: diagnostic.from.column,
                message: diagnostic.message(),
                directive: diagnostic.directive.to_string(),
                expected: diagnostic.expected.to_string(),
                text: text.clone(),
                diagnostic,
            });
        }
    }
    Verdict(all)
}

impl Answer for Verdict {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        for found in &self.0 {
            print(&found.diagnostic, &found.text, page)?;
        }
        match self.0.len() {
            0 => Ok(()),
            count => writeln!(page, "{count} diagnostic{}", if count == 1 { "" } else { "s" }),
        }
    }

    fn is_good(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_system_conf(path: &str) -> bool {
    let path = Path::new(path);
    let below = path.parent().and_then(Path::file_name).is_some_and(|name| name == "system.conf.d");
    below || path.file_name().is_some_and(|name| name == "system.conf")
}

fn system_conf(path: &str) -> Vec<Diagnostic> {
    match muster_unit::index::read_unit_file(path) {
        Ok(text) => Config::read(&[(path.to_owned(), text.to_string())]).1,
        Err(error) => vec![Diagnostic::whole(path, Code::Unreadable, &error.to_string())],
    }
}

fn read(path: &str) -> Result<UnitFile, String> {
    let full = std::fs::canonicalize(path).map_err(|error| error.to_string())?;
    let base = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path);
    let name: UnitName = base.parse().map_err(|_| format!("'{}' is not a unit name", short(base)))?;
    let full = full.to_str().ok_or("the path is not UTF-8")?.to_owned();
    let beside = Path::new(&full).parent().and_then(Path::to_str).unwrap_or("/").to_owned();
    let mut search = vec![beside];
    search.extend(Index::search_path(std::env::var("SYSTEMD_UNIT_PATH").ok().as_deref()));
    let source = Beside { index: Index::scan(search), name: name.clone(), path: full };
    let loaded = if name.is_template() { name.with_instance("instance").unwrap_or(name) } else { name };
    let file = load(&loaded, &source, &machine());
    Ok(file)
}

fn machine() -> SpecifierContext {
    let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    SpecifierContext {
        machine_id: line("/etc/machine-id"),
        boot_id: line("/proc/sys/kernel/random/boot_id").replace('-', ""),
        hostname: line("/proc/sys/kernel/hostname"),
        kernel_release: line("/proc/sys/kernel/osrelease"),
        architecture: std::env::consts::ARCH.replace("x86_64", "x86-64"),
        ..SpecifierContext::default()
    }
}

/// Programs with an absolute path that cannot be executed.
fn commands(file: &UnitFile) -> Vec<Diagnostic> {
    let lists = match &file.body {
        Body::Service(service) => vec![
            service.exec_condition(),
            service.exec_start_pre(),
            service.exec_start(),
            service.exec_start_post(),
            service.exec_reload(),
            service.exec_reload_post(),
            service.exec_stop(),
            service.exec_stop_post(),
        ],
        Body::Socket(socket) => vec![
            socket.exec_start_pre(),
            socket.exec_start_post(),
            socket.exec_stop_pre(),
            socket.exec_stop_post(),
        ],
        _ => Vec::new(),
    };
    let shown = file.fragment_path.as_deref().unwrap_or(file.id.as_str());
    let wrong = |path: &str| {
        let reason = match std::fs::metadata(path) {
            Ok(data) if data.is_file() && data.permissions().mode() & 0o111 != 0 => return None,
            Ok(_) => "not an executable file".to_owned(),
            Err(error) => error.to_string(),
        };
        Some(Diagnostic::whole(shown, Code::Command, &format!("{}: {reason}", short(path))))
    };
    let commands = lists.into_iter().flatten().filter(|command| !command.ignore_failure);
    commands
        .filter(|command| command.path.starts_with('/'))
        .filter_map(|command| wrong(&command.path))
        .collect()
}

fn print(diagnostic: &Diagnostic, text: &str, page: &mut Page<'_>) -> io::Result<()> {
    let severity = if diagnostic.fatal { "error" } else { "warning" };
    let style = if diagnostic.fatal { Style::Bad } else { Style::Moving };
    let kind = format!("{severity}[{}]", diagnostic.code.id());
    writeln!(page, "{}: {}", page.paint(style, &kind), diagnostic.message())?;
    let (from, to) = (diagnostic.from, diagnostic.to);
    let number = from.line.to_string();
    let gap = " ".repeat(number.len());
    let line = usize::try_from(from.line).ok().and_then(|line| text.split('\n').nth(line.checked_sub(1)?));
    let Some(line) = line.map(|line| line.trim_end_matches('\r')) else {
        return writeln!(page, " --> {}\n", diagnostic.file);
    };
    let bytes = |column: u32| usize::try_from(column).unwrap_or(0).saturating_sub(1);
    let (before, rest) = line.split_at_checked(bytes(from.column)).unwrap_or((line, ""));
    // Of what goes on over several lines, the first is shown.
    let length =
        if to.line == from.line { bytes(to.column).saturating_sub(bytes(from.column)) } else { rest.len() };
    let marked = rest.get(..length).unwrap_or(rest).trim_end_matches(['\\', ' ', '\t']);
    let column = before.chars().count().saturating_add(1);
    let carets = "^".repeat(marked.chars().count().max(1));
    let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    writeln!(page, "{gap}--> {}:{number}:{column}", diagnostic.file)?;
    writeln!(page, "{gap} |\n{number} | {}\n{gap} | {indent}{carets}", line)?;
    if diagnostic.code == Code::UnknownKey {
        if let Some(near) = nearest(&diagnostic.directive, &diagnostic.expected) {
            writeln!(page, "{gap} = help: did you mean '{near}'?")?;
        }
        let elsewhere =
            rows().into_iter().find(|row| row.name == diagnostic.directive).map(|row| row.section);
        if let Some(section) = elsewhere.filter(|section| !["Exec", "Kill", "CGroup"].contains(section)) {
            writeln!(page, "{gap} = help: this is a directive of [{section}]")?;
        }
    }
    writeln!(page)
}

/// The directive of a section whose name is nearest to a text.
fn nearest(text: &str, section: &str) -> Option<&'static str> {
    let groups: &[&str] = match section {
        "Service" | "Socket" | "Mount" | "Swap" => &["Exec", "Kill", "CGroup"],
        "Scope" => &["Kill", "CGroup"],
        "Slice" => &["CGroup"],
        _ => &[],
    };
    let rows = rows().into_iter().filter(|row| row.section == section || groups.contains(&row.section));
    let keys = system_conf::keys().filter(|_| section == "Manager");
    let by_distance = rows.map(|row| row.name).chain(keys).map(|name| (distance(text, name), name));
    by_distance.filter(|(distance, _)| *distance <= DISTANCE_MAX).min().map(|(_, name)| name)
}

/// Levenshtein's distance, without regard to case; names are short.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, left) in a.bytes().take(256).enumerate() {
        let mut diagonal = index;
        let mut last = index.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = last;
        }
        for (cell, right) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal.saturating_add(usize::from(left != right));
            diagonal = *cell;
            last = replaced.min(diagonal.saturating_add(1)).min(last.saturating_add(1));
            *cell = last;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        assert_eq!(distance("ExecStrat", "ExecStart"), 2);
        assert_eq!(nearest("ExecStrat", "Service"), Some("ExecStart"));
        assert_eq!(nearest("privatetemp", "Service"), Some("PrivateTmp"));
        assert_eq!(nearest("Nonsense", "Unit"), None);
    }
}
