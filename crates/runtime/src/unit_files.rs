//! Unit-file operations of clients, carried out on the disk.

use muster_control::{Refusal, UnitFileOperation as Op, UnitFileOutcome as Outcome};
use muster_unit::Index;
use muster_unit::install::{self, Change, Failure, Options};

/// Carries one out, on the directories of `path` as they are now. In a helper: it reads and writes the disk.
pub fn run(path: Vec<String>, operation: &Op) -> Result<Outcome, Refusal> {
    let index = &Index::scan(path);
    let done = match operation {
        Op::List { states, patterns } => return Ok(list(index, states, patterns)),
        Op::State { file } => {
            return install::state(index, file)
                .map(|state| Outcome::Text(state.to_owned()))
                .ok_or_else(|| no_such(file));
        }
        Op::GetDefault => return install::default_target(index).map(Outcome::Text).map_err(refuse),
        Op::Links { name, runtime } => return Ok(Outcome::Links(install::links(index, name, *runtime))),
        Op::Enable { files, runtime, force } => install::enable(index, files, options(*runtime, *force)),
        Op::Disable { files, runtime, .. } => install::disable(index, files, options(*runtime, false)),
        Op::Reenable { files, runtime, force } => install::disable(index, files, options(*runtime, false))
            .and_then(|(_, mut gone)| {
                let (carries, made) = install::enable(index, files, options(*runtime, *force))?;
                gone.extend(made);
                Ok((carries, gone))
            }),
        Op::Link { files, runtime, force } => install::link(index, files, options(*runtime, *force)),
        Op::Preset { files, mode, runtime, force } => {
            install::preset_files(index, files, mode, options(*runtime, *force))
        }
        Op::PresetAll { mode, runtime, force } => install::preset_all(index, mode, options(*runtime, *force)),
        Op::Mask { files, runtime, force } => install::mask(index, files, options(*runtime, *force)),
        Op::Unmask { files, runtime } => install::unmask(index, files, options(*runtime, false)),
        Op::Revert { files } => install::revert(index, files),
        Op::SetDefault { name, force } => install::set_default(index, name, *force),
        Op::AddDependency { files, target, kind, runtime, force } => {
            install::add_dependency(index, files, target, kind, options(*runtime, *force))
        }
    };
    done.map(|(carries_install_info, changes)| Outcome::Changes {
        carries_install_info,
        changes: changes.into_iter().map(change).collect(),
    })
    .map_err(refuse)
}

fn options(runtime: bool, force: bool) -> Options {
    Options { runtime, force }
}

fn change(change: Change) -> (String, String, String) {
    match change {
        Change::Symlink { path, target } => ("symlink".to_owned(), path, target),
        Change::Unlink { path } => ("unlink".to_owned(), path, String::new()),
    }
}

fn list(index: &Index, states: &[String], patterns: &[String]) -> Outcome {
    let matches = |name: &str| {
        patterns.is_empty() || patterns.iter().any(|pattern| muster_unit::glob::matches(pattern, name))
    };
    let files = install::list(index).into_iter().filter(|(path, state)| {
        let name = path.rsplit('/').next().unwrap_or("");
        matches(name) && (states.is_empty() || states.iter().any(|wanted| wanted == state))
    });
    Outcome::Files(files.map(|(path, state)| (path, state.to_owned())).collect())
}

fn no_such(file: &str) -> Refusal {
    Refusal {
        name: "org.freedesktop.DBus.Error.FileNotFound".to_owned(),
        message: format!("Unit {file} does not exist"),
    }
}

fn refuse(failure: Failure) -> Refusal {
    match failure {
        Failure::NotFound(name) => no_such(&name),
        Failure::Masked(name) => Refusal {
            name: "org.freedesktop.systemd1.UnitMasked".to_owned(),
            message: format!("Unit file {name} is masked."),
        },
        Failure::Exists(path) => Refusal {
            name: "org.freedesktop.systemd1.UnitExists".to_owned(),
            message: format!("File '{path}' already exists"),
        },
        Failure::Invalid(message) => {
            Refusal { name: "org.freedesktop.DBus.Error.InvalidArgs".to_owned(), message }
        }
        Failure::Io(message) => Refusal { name: "org.freedesktop.DBus.Error.Failed".to_owned(), message },
    }
}
