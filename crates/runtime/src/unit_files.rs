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
            let name = file.parse().map_err(|_| Refusal::invalid("Invalid argument"))?;
            let state = install::state(index, &name, &install::AllLinks::read());
            let state = state.ok_or_else(|| Refusal::no_file("No such file or directory"))?;
            return Ok(Outcome::Text(state.to_owned()));
        }
        Op::GetDefault => return install::default_target(index).map(Outcome::Text).map_err(refuse),
        Op::Links { name, runtime } => return Ok(Outcome::Links(install::links(name, *runtime))),
        Op::Enable { files, runtime, force } => install::enable(index, files, options(*runtime, *force)),
        Op::Disable { files, runtime, .. } => install::disable(index, files, options(*runtime, false)),
        Op::Reenable { files, runtime, force } => install::reenable(index, files, options(*runtime, *force)),
        Op::Link { files, runtime, force } => install::link(index, files, options(*runtime, *force)),
        Op::Preset { files, mode, runtime, force } => {
            install::preset_files(index, files, mode, options(*runtime, *force))
        }
        Op::PresetAll { mode, runtime, force } => install::preset_all(index, mode, options(*runtime, *force)),
        Op::Mask { files, runtime, force } => install::mask(files, options(*runtime, *force)),
        Op::Unmask { files, runtime } => install::unmask(files, options(*runtime, false)),
        Op::Revert { files } => install::revert(index, files),
        Op::SetDefault { name, .. } => install::set_default(index, name),
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
        Change::Missing { unit, file } => ("destination not present".to_owned(), unit, file),
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

fn refuse(failure: Failure) -> Refusal {
    let of =
        |name: &str, message: String| Refusal { name: format!("org.freedesktop.systemd1.{name}"), message };
    match failure {
        Failure::NotFound(name) => of("NoSuchUnit", format!("Unit {name} does not exist")),
        Failure::Masked(path) => of("UnitMasked", format!("Unit {path} is masked")),
        Failure::Linked(name) => of("UnitLinked", format!("Refusing to operate on linked unit file {name}")),
        Failure::Exists(path, None) => of("UnitExists", format!("File '{path}' already exists")),
        Failure::Exists(path, Some(target)) => {
            of("UnitExists", format!("File '{path}' already exists and is a symlink to {target}"))
        }
        Failure::Alias(unit, alias) => of("BadUnitSetting", format!("Cannot alias {unit} as {alias}")),
        Failure::Template(unit, target) => of(
            "BadUnitSetting",
            format!(
                "Refusing to operate on template unit {unit} when destination unit {target} is a non-template unit"
            ),
        ),
        Failure::Reference(text) => of("BadUnitSetting", format!("Invalid unit reference {text}")),
        Failure::Invalid(message) => Refusal::invalid(message),
        Failure::Io(path, errno) => {
            let error = crate::files::refuse(&path, &std::io::Error::from_raw_os_error(errno));
            Refusal { name: error.name, message: error.message }
        }
    }
}
