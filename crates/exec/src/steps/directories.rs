//! `RuntimeDirectory=` and its kin.

use super::{About, Direct, Done, Step};
use crate::{Context, Exit, Process};
use muster_unit::ExecDirectory;
use nix::sys::stat::{Mode, umask};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

struct Kind {
    variable: &'static str,
    base: &'static str,
    list: for<'a> fn(&'a Context<'_>) -> &'a [ExecDirectory],
    mode: fn(&Context<'_>) -> u32,
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $directive:literal, $exit:ident, $variable:literal, $base:literal, $list:ident, $mode:ident) => {
        $(#[$doc])*
        pub const $name: Step = Step {
            directive: $directive,
            exit: Exit::$exit,
            needed: |context| context.make_directories && !context.exec.$list.is_empty(),
            direct: Direct::No,
            run: |context, process| {
                let kind = Kind {
                    variable: $variable,
                    base: $base,
                    list: |context| &context.exec.$list,
                    mode: |context| context.exec.$mode.0,
                };
                make(&kind, context, process)
            },
        };
    };
}

kind!(/// `RuntimeDirectory=`.
    RUNTIME, "RuntimeDirectory=", RuntimeDirectory, "RUNTIME_DIRECTORY", "/run", runtime_directory, runtime_directory_mode);
kind!(/// `StateDirectory=`.
    STATE, "StateDirectory=", StateDirectory, "STATE_DIRECTORY", "/var/lib", state_directory, state_directory_mode);
kind!(/// `CacheDirectory=`.
    CACHE, "CacheDirectory=", CacheDirectory, "CACHE_DIRECTORY", "/var/cache", cache_directory, cache_directory_mode);
kind!(/// `LogsDirectory=`.
    LOGS, "LogsDirectory=", LogsDirectory, "LOGS_DIRECTORY", "/var/log", logs_directory, logs_directory_mode);
kind!(/// `ConfigurationDirectory=`.
    CONFIGURATION, "ConfigurationDirectory=", ConfigurationDirectory, "CONFIGURATION_DIRECTORY", "/etc",
    configuration_directory, configuration_directory_mode);

fn make(kind: &Kind, context: &Context<'_>, process: &mut Process) -> Done {
    let (uid, gid) = process.owner();
    let mode = (kind.mode)(context);
    let mut paths = Vec::new();
    for directory in (kind.list)(context) {
        let path = format!("{}/{}", kind.base, directory.path);
        // Those above it are for all to pass through.
        let own = umask(Mode::from_bits_truncate(0o022));
        let made = std::fs::create_dir_all(&path);
        umask(own);
        made.about(&path)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).about(&path)?;
        chown(&path, Some(uid), Some(gid)).about(&path)?;
        for link in &directory.symlinks {
            let _ = symlink(&path, format!("{}/{link}", kind.base));
        }
        paths.push(path);
    }
    process.set(kind.variable, paths.join(":"));
    Ok(())
}
