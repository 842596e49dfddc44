//! `RuntimeDirectory=` and its kin.

use super::{About, Direct, Done, Step, quota};
use crate::{Context, Exit, Process, tree};
use muster_unit::{ExecDirectory, Quota};

/// Whether what is in a directory is counted, and what it may take.
type Wish = (bool, Option<Quota>);

struct Kind {
    variable: &'static str,
    base: &'static str,
    list: for<'a> fn(&'a Context<'_>) -> &'a [ExecDirectory],
    mode: fn(&Context<'_>) -> u32,
    quota: fn(&Context<'_>) -> Option<Wish>,
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $directive:literal, $exit:ident, $variable:literal, $base:literal, $list:ident, $mode:ident
        $(, $accounting:ident, $quota:ident)?) => {
        $(#[$doc])*
        pub const $name: Step = Step {
            directive: $directive,
            exit: Exit::$exit,
            needed: |context| context.make_directories && !context.exec.$list().is_empty(),
            direct: Direct::No,
            run: |context, process| {
                let kind = Kind {
                    variable: $variable,
                    base: $base,
                    list: |context| context.exec.$list(),
                    mode: |context| context.exec.$mode().0,
                    quota: kind!(@quota $($accounting $quota)?),
                };
                make(&kind, context, process)
            },
        };
    };
    (@quota) => { |_| None };
    (@quota $accounting:ident $quota:ident) => {
        |context| Some((context.exec.$accounting(), context.exec.$quota()))
    };
}

kind!(/// `RuntimeDirectory=`.
    RUNTIME, "RuntimeDirectory=", RuntimeDirectory, "RUNTIME_DIRECTORY", "/run", runtime_directory, runtime_directory_mode);
kind!(/// `StateDirectory=`.
    STATE, "StateDirectory=", StateDirectory, "STATE_DIRECTORY", "/var/lib", state_directory, state_directory_mode,
    state_directory_accounting, state_directory_quota);
kind!(/// `CacheDirectory=`.
    CACHE, "CacheDirectory=", CacheDirectory, "CACHE_DIRECTORY", "/var/cache", cache_directory, cache_directory_mode,
    cache_directory_accounting, cache_directory_quota);
kind!(/// `LogsDirectory=`.
    LOGS, "LogsDirectory=", LogsDirectory, "LOGS_DIRECTORY", "/var/log", logs_directory, logs_directory_mode,
    logs_directory_accounting, logs_directory_quota);
kind!(/// `ConfigurationDirectory=`.
    CONFIGURATION, "ConfigurationDirectory=", ConfigurationDirectory, "CONFIGURATION_DIRECTORY", "/etc",
    configuration_directory, configuration_directory_mode);

/// What is mounted needs a place (systemd.mount(5), `DirectoryMode=`).
pub const PLACE: Step = Step {
    directive: "Where=",
    exit: Exit::Chdir,
    needed: |context| context.place.is_some(),
    direct: Direct::No,
    run: |context, _| {
        if let Some((path, mode)) = context.place {
            let mut builder = std::fs::DirBuilder::new();
            // Where it cannot be made, mount(8) says so.
            let _ = std::os::unix::fs::DirBuilderExt::mode(&mut builder, mode).recursive(true).create(path);
        }
        Ok(())
    },
};

/// Directories of users that come and go: in here nobody else gets at them (systemd.exec(5), `DynamicUser=`).
pub const PRIVATE: &str = "private";

fn is_kept(base: &str) -> bool {
    ["/var/lib", "/var/cache", "/var/log"].contains(&base)
}

/// Who owned the directories of a dynamic user when they were last used.
pub fn owner_before(context: &Context<'_>) -> Option<u32> {
    let exec = context.exec;
    let kept = [
        ("/var/lib", exec.state_directory()),
        ("/var/cache", exec.cache_directory()),
        ("/var/log", exec.logs_directory()),
    ];
    let mut paths = kept.into_iter().flat_map(|(base, list)| {
        list.iter().map(move |directory| format!("{base}/{PRIVATE}/{}", directory.path))
    });
    paths.find_map(|path| Some(std::os::unix::fs::MetadataExt::uid(&std::fs::symlink_metadata(path).ok()?)))
}

/// Moves a directory to where it is to be, by a setting that changed since, and leaves a link in the open.
fn settle(base: &str, path: &str, dynamic: bool) -> nix::Result<()> {
    let (open, private) = (format!("{base}/{path}"), format!("{base}/{PRIVATE}/{path}"));
    let target = format!("{}{PRIVATE}/{path}", "../".repeat(path.matches('/').count()));
    if dynamic {
        tree::make(&format!("{base}/{PRIVATE}"), 0o700, (0, 0), true)?;
        tree::shift(&open, &private)?;
    } else {
        tree::remove_link(&open, &target)?;
        tree::shift(&private, &open)?;
    }
    Ok(())
}

fn make(kind: &Kind, context: &Context<'_>, process: &mut Process) -> Done {
    let owner = process.owner();
    let mode = (kind.mode)(context);
    // What is configured is the administrator's, and stays as it was found.
    let ours = kind.variable != "CONFIGURATION_DIRECTORY";
    let mut paths = Vec::new();
    for directory in (kind.list)(context) {
        let path = format!("{}/{}", kind.base, directory.path);
        let dynamic = context.exec.dynamic_user() && is_kept(kind.base);
        if is_kept(kind.base) {
            settle(kind.base, &directory.path, dynamic).about(&path)?;
        }
        if dynamic {
            let private = format!("{}/{PRIVATE}/{}", kind.base, directory.path);
            tree::make(&private, mode, owner, ours).about(&private)?;
            let up = "../".repeat(directory.path.matches('/').count());
            tree::link(&path, &format!("{up}{PRIVATE}/{}", directory.path)).about(&path)?;
        } else {
            tree::make(&path, mode, owner, ours).about(&path)?;
        }
        if let Some((accounting, limit)) = (kind.quota)(context) {
            let place =
                if dynamic { format!("{}/{PRIVATE}/{}", kind.base, directory.path) } else { path.clone() };
            quota::apply(&place, accounting, limit).about(&format!("quota of {path}"))?;
        }
        for link in &directory.symlinks {
            let place = format!("{}/{link}", kind.base);
            // Relative, from where the link stands.
            let up = "../".repeat(link.matches('/').count());
            tree::link(&place, &format!("{up}{}", directory.path)).about(&place)?;
        }
        paths.push(path);
    }
    process.set(kind.variable, paths.join(":"));
    Ok(())
}
