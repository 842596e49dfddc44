//! `Condition*=` and `Assert*=` answered from files (systemd.unit(5), "Conditions and Asserts").
//!
//! What must stay true: every kind has an arm; what cannot be known here (a name service, a TPM) is decided by the
//! files that stand for it, and the answer is then the one of a machine without the feature; files are read with a cap.

use muster_manager::state::State;
use muster_unit::{Condition, ConditionKind, compare_versions, glob, parse_bool, parse_size, split_words};
use std::cmp::Ordering;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// The most that is read of one file.
const FILE_MAX: u64 = 1 << 20;
/// The most entries of one directory that are looked at for a pattern.
const ENTRIES_MAX: usize = 65_536;

/// Whether a kind is answered from what PID 1 knows and from files of the kernel that nothing can stand before. All else
/// is a child's: a path may lead anywhere, and containers have files of a FUSE server over /proc/meminfo and its like.
pub fn is_certain(kind: ConditionKind) -> bool {
    use ConditionKind as Kind;
    matches!(
        kind,
        Kind::Architecture
            | Kind::Virtualization
            | Kind::Host
            | Kind::Fraction
            | Kind::KernelCommandLine
            | Kind::KernelVersion
            | Kind::Version
            | Kind::Capability
            | Kind::Environment
            | Kind::User
            | Kind::Group
            | Kind::OSRelease
    )
}

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
        Kind::PathExistsGlob => !existing(parameter).is_empty(),
        Kind::PathIsDirectory => metadata().is_ok_and(|data| data.is_dir()),
        Kind::PathIsSymbolicLink => Path::new(parameter).is_symlink(),
        Kind::PathIsMountPoint => is_mount_point(parameter),
        Kind::PathIsReadWrite => nix::sys::statvfs::statvfs(parameter)
            .is_ok_and(|data| !data.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY)),
        Kind::PathIsEncrypted => is_encrypted(parameter),
        Kind::PathIsSocket => metadata().is_ok_and(|data| data.file_type().is_socket()),
        Kind::DirectoryNotEmpty => {
            std::fs::read_dir(parameter).is_ok_and(|mut entries| entries.next().is_some())
        }
        Kind::FileNotEmpty => metadata().is_ok_and(|data| data.is_file() && data.len() > 0),
        Kind::FileIsExecutable => {
            metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        }
        Kind::NeedsUpdate => needs_update(parameter),
        Kind::FirstBoot => parse_bool(parameter) == Some(Path::new("/run/systemd/first-boot").exists()),
        Kind::Architecture => parameter == facts.architecture || parameter == "native",
        Kind::Firmware => firmware(parameter),
        Kind::Virtualization => virtualization(parameter, &facts.virtualization),
        Kind::Host => host(parameter, state),
        // How machines are divided is not known to us: no machine is of the part.
        Kind::Fraction => is_among(parameter, &facts.specifiers.machine_id),
        Kind::KernelCommandLine => has_word(&read("/proc/cmdline"), parameter),
        Kind::KernelVersion => versions(parameter, &facts.specifiers.kernel_release),
        Kind::Version => version(parameter, state),
        Kind::Credential => ["/run/credentials/@system", "/run/credentials/@encrypted"]
            .iter()
            .any(|directory| Path::new(&format!("{directory}/{parameter}")).exists()),
        Kind::Security => security(parameter),
        Kind::Capability => has_capability(parameter),
        Kind::ACPower => parse_bool(parameter) == Some(on_ac_power()),
        Kind::Memory => parse_comparison(parameter).is_some_and(|(operator, value)| {
            parse_size(value).is_some_and(|value| operator.holds(total_memory().cmp(&value)))
        }),
        Kind::CPUs => parse_comparison(parameter).is_some_and(|(operator, value)| {
            value.parse().is_ok_and(|value: usize| operator.holds(cpus().cmp(&value)))
        }),
        Kind::CPUFeature => has_cpu_feature(parameter),
        Kind::Environment => match parameter.split_once('=') {
            Some(_) => facts.base_environment.iter().any(|assignment| assignment == parameter),
            None => facts
                .base_environment
                .iter()
                .any(|assignment| assignment.split('=').next() == Some(parameter)),
        },
        Kind::User => matches!(parameter, "root" | "0" | "@system"),
        Kind::Group => matches!(parameter, "root" | "0"),
        Kind::ControlGroupController => has_controllers(parameter),
        Kind::OSRelease => {
            split_words(parameter).unwrap_or_default().iter().all(|word| os_release(word, state))
        }
        Kind::MachineTag => {
            assignment_of("/etc/machine-info", "TAGS").split(':').any(|tag| glob::matches(parameter, tag))
        }
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

/// What is there of a pattern. glob(7) over path components: a pattern does not cross `/`, nor match a leading dot unless
/// it has one.
pub fn existing(pattern: &str) -> Vec<String> {
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
            let entries = std::fs::read_dir(format!("{base}/"))
                .into_iter()
                .flatten()
                .filter_map(Result::ok)
                .take(ENTRIES_MAX);
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            next.extend(
                names
                    .filter(|name| {
                        (!name.starts_with('.') || part.starts_with('.')) && glob::matches(part, name)
                    })
                    .map(|name| format!("{base}/{name}")),
            );
            next.truncate(ENTRIES_MAX);
        }
        found = next;
    }
    found
}

/// By the mount table, so that bind mounts within one file system count.
fn is_mount_point(path: &str) -> bool {
    let Ok(real) = std::fs::canonicalize(path) else { return false };
    muster_watch::MountTable::open()
        .and_then(|table| table.read())
        .is_ok_and(|mounts| mounts.iter().any(|mount| Path::new(&mount.place) == real))
}

/// Whether the block device below a path is a dm-crypt one.
fn is_encrypted(path: &str) -> bool {
    let Ok(data) = std::fs::metadata(path) else { return false };
    let device = if data.file_type().is_block_device() { data.rdev() } else { data.dev() };
    let directory =
        format!("/sys/dev/block/{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    read(&format!("{directory}/dm/uuid")).starts_with("CRYPT-")
}

/// /etc or /var is older than /usr, told by `.updated` (systemd-update-done.service(8)).
fn needs_update(directory: &str) -> bool {
    if let Some(forced) = word_value(&read("/proc/cmdline"), "systemd.condition_needs_update") {
        return forced.is_empty() || parse_bool(&forced).unwrap_or(false);
    }
    let writable = nix::sys::statvfs::statvfs(directory)
        .is_ok_and(|data| !data.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    let Ok(usr) = std::fs::metadata("/usr") else { return false };
    let done = std::fs::metadata(format!("{}/.updated", directory.trim_end_matches('/')));
    let stamp = |data: &std::fs::Metadata| (data.mtime(), data.mtime_nsec());
    writable && done.map_or(true, |done| stamp(&usr) > stamp(&done))
}

fn firmware(parameter: &str) -> bool {
    match parameter {
        "uefi" => Path::new("/sys/firmware/efi").exists(),
        "device-tree" => Path::new("/sys/firmware/devicetree").exists(),
        other => {
            match other.strip_prefix("device-tree-compatible(").and_then(|rest| rest.strip_suffix(')')) {
                Some(wanted) => read("/proc/device-tree/compatible").split('\0').any(|one| one == wanted),
                None => other
                    .strip_prefix("smbios-field(")
                    .and_then(|rest| rest.strip_suffix(')'))
                    .is_some_and(smbios),
            }
        }
    }
}

fn smbios(expression: &str) -> bool {
    let Some(end) = expression.find(['<', '>', '=', '!', '$', ' ']) else { return false };
    let Some((field, rest)) = expression.split_at_checked(end) else { return false };
    if field.contains('/') {
        return false;
    }
    compare(rest.trim_start(), read(&format!("/sys/class/dmi/id/{field}")).trim())
}

/// Words of containers, as systemd-detect-virt(1) has them.
pub const CONTAINERS: &[&str] = &[
    "openvz",
    "lxc",
    "lxc-libvirt",
    "systemd-nspawn",
    "docker",
    "podman",
    "rkt",
    "wsl",
    "proot",
    "pouch",
    "oci",
    "container-other",
];

fn virtualization(parameter: &str, ours: &str) -> bool {
    let container = CONTAINERS.contains(&ours);
    match (parameter, parse_bool(parameter)) {
        ("vm", _) => !ours.is_empty() && !container,
        ("container", _) => container,
        ("private-users", _) => {
            read("/proc/self/uid_map").split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
        }
        (_, Some(wanted)) => wanted != ours.is_empty(),
        (word, None) => word == ours,
    }
}

fn host(parameter: &str, state: &State) -> bool {
    let specifiers = &state.facts.specifiers;
    let id = parameter.replace('-', "").to_ascii_lowercase();
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return id == specifiers.machine_id || id == specifiers.boot_id;
    }
    glob::matches(&parameter.to_ascii_lowercase(), &state.facts.hostname.to_ascii_lowercase())
}

/// The value of a word of a command line, empty for a bare word.
fn word_value(line: &str, key: &str) -> Option<String> {
    let words =
        split_words(line.trim()).unwrap_or_else(|_| line.split_whitespace().map(str::to_owned).collect());
    words.into_iter().rev().find_map(|word| match word.split_once('=') {
        Some((name, value)) => (name == key).then(|| value.to_owned()),
        None => (word == key).then(String::new),
    })
}

/// `key=value` is looked for as it stands, `key` alone as a word or the left side of an assignment.
fn has_word(line: &str, wanted: &str) -> bool {
    let words =
        split_words(line.trim()).unwrap_or_else(|_| line.split_whitespace().map(str::to_owned).collect());
    words.iter().any(|word| word == wanted || !wanted.contains('=') && word.split('=').next() == Some(wanted))
}

/// A relation between versions or numbers.
#[derive(Clone, Copy)]
struct Relation(&'static [Ordering]);

impl Relation {
    fn holds(self, ordering: Ordering) -> bool {
        self.0.contains(&ordering)
    }
}

const RELATIONS: &[(&str, Relation)] = &[
    ("<=", Relation(&[Ordering::Less, Ordering::Equal])),
    (">=", Relation(&[Ordering::Greater, Ordering::Equal])),
    ("<>", Relation(&[Ordering::Less, Ordering::Greater])),
    ("!=", Relation(&[Ordering::Less, Ordering::Greater])),
    ("==", Relation(&[Ordering::Equal])),
    ("=", Relation(&[Ordering::Equal])),
    ("<", Relation(&[Ordering::Less])),
    (">", Relation(&[Ordering::Greater])),
];

/// An operator and what follows; without one it is `>=`.
fn parse_comparison(text: &str) -> Option<(Relation, &str)> {
    let found = RELATIONS
        .iter()
        .find_map(|(word, relation)| Some((*relation, text.strip_prefix(word)?.trim_start())));
    Some(found.unwrap_or((Relation(&[Ordering::Greater, Ordering::Equal]), text)))
}

/// One expression against a text: `$=` and `!$=` by pattern, `=` and `!=` as text, the others as versions.
fn compare(expression: &str, ours: &str) -> bool {
    if let Some(pattern) = expression.strip_prefix("!$=") {
        return !glob::matches(pattern.trim_start(), ours);
    }
    if let Some(pattern) = expression.strip_prefix("$=") {
        return glob::matches(pattern.trim_start(), ours);
    }
    if let Some(text) = expression.strip_prefix("!=") {
        return text.trim_start() != ours;
    }
    if let Some(text) = expression.strip_prefix('=').filter(|rest| !rest.starts_with('=')) {
        return text.trim_start() == ours;
    }
    if !expression.starts_with(['<', '>', '=']) {
        return glob::matches(expression, ours);
    }
    parse_comparison(expression)
        .is_some_and(|(relation, theirs)| relation.holds(compare_versions(ours, theirs)))
}

/// All expressions of a list; an operator may stand apart from its version.
fn versions(parameter: &str, ours: &str) -> bool {
    let mut operator = String::new();
    for word in split_words(parameter).unwrap_or_default() {
        if !word.is_empty() && word.chars().all(|c| "<>=!$".contains(c)) {
            operator = word;
            continue;
        }
        if !compare(&format!("{}{word}", std::mem::take(&mut operator)), ours) {
            return false;
        }
    }
    operator.is_empty()
}

fn version(parameter: &str, state: &State) -> bool {
    let (component, rest) = parameter.split_once(' ').unwrap_or(("", parameter));
    let systemd = state.facts.version.split(' ').next().unwrap_or("");
    match component {
        "systemd" => versions(rest, systemd),
        "kernel" => versions(rest, &state.facts.specifiers.kernel_release),
        "glibc" => false,
        _ => versions(parameter, systemd),
    }
}

fn security(parameter: &str) -> bool {
    match parameter {
        "selinux" => Path::new("/sys/fs/selinux/enforce").exists(),
        "apparmor" => read("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
        "smack" => Path::new("/sys/fs/smackfs").join("load2").exists(),
        "tomoyo" => Path::new("/sys/kernel/security/tomoyo/version").exists(),
        "ima" => Path::new("/sys/kernel/security/ima").exists(),
        // The fifth byte follows four of attributes.
        "uefi-secureboot" => {
            std::fs::read("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
                .is_ok_and(|data| data.get(4) == Some(&1))
        }
        "tpm2" => Path::new("/sys/class/tpmrm/tpmrm0").exists(),
        // audit and the rest are told by no file.
        _ => false,
    }
}

fn has_capability(name: &str) -> bool {
    let status = read("/proc/self/status");
    let set = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
        .unwrap_or(0);
    muster_unit::capability_number(name).is_some_and(|number| set.checked_shr(number).unwrap_or(0) & 1 == 1)
}

/// A mains supply that is on line, or no supply at all that could be off.
fn on_ac_power() -> bool {
    let mut battery = false;
    for entry in
        std::fs::read_dir("/sys/class/power_supply").into_iter().flatten().filter_map(Result::ok).take(64)
    {
        let file = |name: &str| read(&entry.path().join(name).to_string_lossy());
        match file("type").trim() {
            "Mains" if file("online").trim() == "1" => return true,
            "Mains" => battery = true,
            "Battery" if file("scope").trim() != "Device" && file("status").trim() == "Discharging" => {
                battery = true
            }
            _ => {}
        }
    }
    !battery
}

fn total_memory() -> u64 {
    let text = read("/proc/meminfo");
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

/// CPUs that we may run on.
fn cpus() -> usize {
    let status = read("/proc/self/status");
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap_or("");
    let bits = mask
        .chars()
        .filter_map(|c| c.to_digit(16))
        .fold(0_u32, |sum, digit| sum.saturating_add(digit.count_ones()));
    usize::try_from(bits).unwrap_or(0)
}

fn has_cpu_feature(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let text = read("/proc/cpuinfo");
    let lines = text.lines().filter(|line| line.starts_with("flags") || line.starts_with("Features"));
    lines
        .filter_map(|line| line.split_once(':'))
        .take(1)
        .any(|(_, flags)| flags.split_whitespace().any(|flag| flag == name))
}

fn has_controllers(parameter: &str) -> bool {
    if matches!(parameter, "v1" | "v2") {
        return parameter == "v2";
    }
    let have = read("/sys/fs/cgroup/cgroup.controllers");
    parameter.split_whitespace().all(|wanted| have.split_whitespace().any(|name| name == wanted))
}

/// `KEY OPERATOR VALUE` against os-release(5).
fn os_release(expression: &str, state: &State) -> bool {
    let Some(end) = expression.find(['<', '>', '=', '!', '$']) else { return false };
    let Some((key, rest)) = expression.split_at_checked(end) else { return false };
    let ours = state.facts.specifiers.os_release.get(key).map(String::as_str).unwrap_or("");
    compare(rest, ours)
}

/// One assignment of a file such as machine-info(5).
fn assignment_of(path: &str, key: &str) -> String {
    let text = read(path);
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| split_words(value).ok()?.into_iter().next()).unwrap_or_default()
}

/// `[SLICE:]PERCENT[/10s|1min|5min]`: holds while the pressure stays at or below. Without pressure files it holds.
fn pressure_below(resource: &str, parameter: &str) -> bool {
    let (slice, limit) =
        parameter.split_once(':').map_or((None, parameter), |(slice, limit)| (Some(slice), limit));
    let (percent, span) = limit.split_once('/').unwrap_or((limit, "5min"));
    let average = match muster_unit::Timespan::parse(span.trim(), 1_000_000).map(|span| span.0) {
        Ok(10_000_000) => "avg10=",
        Ok(60_000_000) => "avg60=",
        Ok(300_000_000) => "avg300=",
        _ => return false,
    };
    let Some(limit) = percent.trim().trim_end_matches(['%', '\u{2030}', '\u{2031}']).parse::<f64>().ok()
    else {
        return false;
    };
    // Permille and permyriad are written with their own signs.
    let limit = if percent.contains('\u{2030}') {
        limit / 10.0
    } else if percent.contains('\u{2031}') {
        limit / 100.0
    } else {
        limit
    };
    let path = match slice {
        Some(slice) if !slice.contains('/') => format!("/sys/fs/cgroup/{slice}/{resource}.pressure"),
        Some(_) => return false,
        None => format!("/proc/pressure/{resource}"),
    };
    let text = read(&path);
    let line = text.lines().find(|line| line.starts_with("some "));
    let now = line
        .and_then(|line| line.split(' ').find_map(|word| word.strip_prefix(average)?.parse::<f64>().ok()));
    now.is_none_or(|now| now <= limit)
}

/// Whether this machine is within a percentage of all machines: `PERCENT` or `TAG PERCENT`. Its place is fixed by its ID and the tag.
fn is_among(parameter: &str, machine_id: &str) -> bool {
    let (tag, percent) = parameter.rsplit_once(char::is_whitespace).unwrap_or(("", parameter));
    let Some(percent) = percent.strip_suffix('%').and_then(|number| number.parse::<f64>().ok()) else {
        return false;
    };
    let hash = muster_unit::name_hash(&format!("{machine_id}{}", tag.trim()));
    let place = u32::try_from((hash >> 32).wrapping_rem(10_000)).unwrap_or_default();
    f64::from(place) < percent * 100.0
}

/// Loaded, or built in; one that is still coming does not count.
fn is_module_loaded(name: &str) -> bool {
    let name = name.replace('-', "_");
    let directory = format!("/sys/module/{name}");
    if name.contains('/') || !Path::new(&directory).exists() {
        return false;
    }
    matches!(read(&format!("{directory}/initstate")).trim(), "" | "live")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_asked_for() {
        assert!(
            versions(">= 6.1 <7", "6.12.3-amd64") && !versions(">=6.13", "6.12.3") && versions("6.*", "6.12")
        );
    }

    #[test]
    fn a_fraction_of_all_machines() {
        let count = |parameter: &str| {
            (0..1000).filter(|n| is_among(parameter, &format!("{:032x}", n * 0x9e37_79b9_u64))).count()
        };
        assert_eq!((count("0%"), count("100%"), count("tag 100%"), count("nonsense")), (0, 1000, 1000, 0));
        assert!((200..300).contains(&count("25%")) && (700..800).contains(&count("roll-out 75.0%")));
        assert!((0..100).any(|n| is_among("a 50%", &n.to_string()) != is_among("b 50%", &n.to_string())));
    }

    #[test]
    fn real_files() {
        let state = State::default();
        let holds = |kind, parameter: &str| holds(kind, parameter, &state);
        assert!(
            holds(ConditionKind::PathIsMountPoint, "/proc")
                && !holds(ConditionKind::PathIsMountPoint, "/proc/self")
        );
        assert!(
            holds(ConditionKind::PathExistsGlob, "/proc/se?f/stat*")
                && !holds(ConditionKind::PathExistsGlob, "/proc/nothing-*")
        );
        assert!(
            holds(ConditionKind::Memory, ">=1M")
                && holds(ConditionKind::CPUs, "1")
                && !holds(ConditionKind::CPUs, "<1")
        );
        assert!(!holds(ConditionKind::Virtualization, "yes") && holds(ConditionKind::Virtualization, "no"));
        let negated = Condition {
            kind: ConditionKind::PathExists,
            parameter: "/nonexistent".into(),
            trigger: false,
            negate: true,
            assert: false,
        };
        assert!(check(&negated, &state));
    }
}
