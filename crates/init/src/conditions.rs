//! `Condition*=` and `Assert*=` answered from files (systemd.unit(5), "Conditions and Asserts").
//!
//! What must stay true: every kind has an arm; what cannot be known here (a name service, a TPM) is decided by the
//! files that stand for it, and the answer is then the one of a machine without the feature; files are read with a cap.

use muster_manager::state::State;
use muster_unit::{Condition, ConditionKind, glob, parse_bool, parse_size, split_words};
use std::cmp::Ordering;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// The most that is read of one file.
const FILE_MAX: u64 = 1 << 20;
/// The most entries of one directory that are looked at for a pattern.
const ENTRIES_MAX: usize = 65_536;

/// Whether a condition holds, its negation counted in.
pub fn check(condition: &Condition, state: &State) -> bool {
    holds(condition.kind, &condition.parameter, state) != condition.negate
}

fn holds(kind: ConditionKind, parameter: &str, state: &State) -> bool {
    use ConditionKind as Kind;
    let facts = &state.facts;
    let metadata = || std::fs::metadata(parameter);
    match kind {
        Kind::PathExists => Path::new(parameter).exists(),
        Kind::PathExistsGlob => glob_exists(parameter),
        Kind::PathIsDirectory => metadata().is_ok_and(|data| data.is_dir()),
        Kind::PathIsSymbolicLink => Path::new(parameter).is_symlink(),
        Kind::PathIsMountPoint => is_mount_point(parameter),
        Kind::PathIsReadWrite => nix::sys::statvfs::statvfs(parameter).is_ok_and(|data| !data.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY)),
        Kind::PathIsEncrypted => is_encrypted(parameter),
        Kind::PathIsSocket => metadata().is_ok_and(|data| data.file_type().is_socket()),
        Kind::DirectoryNotEmpty => std::fs::read_dir(parameter).is_ok_and(|mut entries| entries.next().is_some()),
        Kind::FileNotEmpty => metadata().is_ok_and(|data| data.is_file() && data.len() > 0),
        Kind::FileIsExecutable => metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0),
        Kind::NeedsUpdate => needs_update(parameter),
        Kind::FirstBoot => parse_bool(parameter) == Some(Path::new("/run/systemd/first-boot").exists()),
        Kind::Architecture => parameter == facts.architecture || parameter == "native",
        Kind::Firmware => firmware(parameter),
        Kind::Virtualization => virtualization(parameter, &facts.virtualization),
        Kind::Host => host(parameter, state),
        Kind::Fraction => fraction(parameter, &facts.specifiers.machine_id),
        Kind::KernelCommandLine => has_word(&read("/proc/cmdline"), parameter),
        Kind::KernelVersion => versions(parameter, &facts.specifiers.kernel_release),
        Kind::Version => version(parameter, state),
        Kind::Credential => ["/run/credentials/@system", "/run/credentials/@encrypted"].iter().any(|directory| Path::new(&format!("{directory}/{parameter}")).exists()),
        Kind::Security => security(parameter),
        Kind::Capability => has_capability(parameter),
        Kind::ACPower => parse_bool(parameter) == Some(on_ac_power()),
        Kind::Memory => parse_comparison(parameter).is_some_and(|(operator, value)| parse_size(value).is_some_and(|value| operator.holds(total_memory().cmp(&value)))),
        Kind::CPUs => parse_comparison(parameter).is_some_and(|(operator, value)| value.parse().is_ok_and(|value: usize| operator.holds(cpus().cmp(&value)))),
        Kind::CPUFeature => has_cpu_feature(parameter),
        Kind::Environment => match parameter.split_once('=') {
            Some(_) => facts.base_environment.iter().any(|assignment| assignment == parameter),
            None => facts.base_environment.iter().any(|assignment| assignment.split('=').next() == Some(parameter)),
        },
        Kind::User => matches!(parameter, "root" | "0" | "@system"),
        Kind::Group => matches!(parameter, "root" | "0"),
        Kind::ControlGroupController => has_controllers(parameter),
        Kind::OSRelease => split_words(parameter).unwrap_or_default().iter().all(|word| os_release(word, state)),
        Kind::MachineTag => assignment_of("/etc/machine-info", "TAGS").split(':').any(|tag| glob::matches(parameter, tag)),
        Kind::MemoryPressure => pressure_below("memory", parameter),
        Kind::CPUPressure => pressure_below("cpu", parameter),
        Kind::IOPressure => pressure_below("io", parameter),
        Kind::KernelModuleLoaded => is_module_loaded(parameter),
    }
}

/// The text of a file, up to the cap; empty when it cannot be read.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    let _ = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// glob(7) over path components: a pattern does not cross `/`, nor match a leading dot unless it has one.
fn glob_exists(pattern: &str) -> bool {
    let mut found = vec!["/".to_owned()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for base in &found {
            let base = base.trim_end_matches('/');
            if !part.contains(['*', '?', '[', '\\']) {
                let path = format!("{base}/{part}");
                next.extend(Path::new(&path).exists().then_some(path));
                continue;
            }
            let entries = std::fs::read_dir(format!("{base}/")).into_iter().flatten().filter_map(Result::ok).take(ENTRIES_MAX);
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            next.extend(names.filter(|name| (!name.starts_with('.') || part.starts_with('.')) && glob::matches(part, name)).map(|name| format!("{base}/{name}")));
            next.truncate(ENTRIES_MAX);
        }
        found = next;
    }
    !found.is_empty()
}

/// By the mount table, so that bind mounts within one file system count.
fn is_mount_point(path: &str) -> bool {
    let Ok(real) = std::fs::canonicalize(path) else { return false };
    muster_watch::MountTable::open().and_then(|mut table| table.read()).is_ok_and(|mounts| mounts.iter().any(|mount| Path::new(&mount.place) == real))
}

/// Whether the block device below a path is a dm-crypt one.
fn is_encrypted(path: &str) -> bool {
    let Ok(data) = std::fs::metadata(path) else { return false };
    let device = nix::sys::stat::SFlag::from_bits_truncate(data.mode()).contains(nix::sys::stat::SFlag::S_IFBLK).then(|| data.rdev()).unwrap_or_else(|| data.dev());
    let directory = format!("/sys/dev/block/{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    read(&format!("{directory}/dm/uuid")).starts_with("CRYPT-")
}

/// /etc or /var is older than /usr, told by `.updated` (systemd-update-done.service(8)).
fn needs_update(directory: &str) -> bool {
    if let Some(forced) = word_value(&read("/proc/cmdline"), "systemd.condition_needs_update") {
        return forced.is_empty() || parse_bool(&forced).unwrap_or(false);
    }
    let writable = nix::sys::statvfs::statvfs(directory).is_ok_and(|data| !data.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    let Ok(usr) = std::fs::metadata("/usr") else { return false };
    let done = std::fs::metadata(format!("{}/.updated", directory.trim_end_matches('/')));
    writable && done.is_ok_and(|done| (usr.mtime(), usr.mtime_nsec()) > (done.mtime(), done.mtime_nsec())) || writable && !Path::new(&format!("{}/.updated", directory.trim_end_matches('/'))).exists()
}
