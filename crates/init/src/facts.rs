//! What this machine is: read once, before the first unit.

use crate::options::Options;
use crate::stage;
use muster_manager::state::Facts;
use muster_unit::SpecifierContext;
use std::collections::BTreeMap;
use std::io::Read;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// Everything that the manager is told at its start.
pub fn read(options: &Options) -> Facts {
    let uname = nix::sys::utsname::uname().ok();
    let text =
        |value: Option<&std::ffi::OsStr>| value.and_then(|value| value.to_str()).unwrap_or("").to_owned();
    let hostname = text(uname.as_ref().map(|uname| uname.nodename()));
    let os_release = assignments(&first_of(&["/etc/os-release", "/usr/lib/os-release"]));
    let architecture = architecture();
    let defaults = Facts::default();
    let passwd = first_of(&["/etc/passwd"]);
    let of_root = passwd.lines().find(|line| line.starts_with("root:"));
    let specifiers = SpecifierContext {
        shell: of_root.and_then(|line| line.split(':').nth(6)).unwrap_or_default().to_owned(),
        machine_id: first_of(&["/etc/machine-id"]).trim().to_owned(),
        boot_id: first_of(&["/proc/sys/kernel/random/boot_id"]).trim().replace('-', ""),
        hostname: hostname.clone(),
        pretty_hostname: assignments(&first_of(&["/etc/machine-info"]))
            .remove("PRETTY_HOSTNAME")
            .unwrap_or_default(),
        kernel_release: text(uname.as_ref().map(|uname| uname.release())),
        architecture: architecture.clone(),
        os_release,
    };
    let machine = muster_cgroup::Machine::look();
    let mut base_environment = vec![format!("PATH={PATH}")];
    base_environment.extend(locale());
    base_environment.extend(options.environment.iter().cloned());
    Facts {
        specifiers,
        virtualization: stage::virtualization(),
        follows_interfaces: !stage::in_container(),
        own_environment: base_environment.clone(),
        base_environment,
        boot_target: options.unit.clone().unwrap_or(defaults.boot_target),
        masked: options.mask.clone(),
        wanted: options.wants.clone(),
        memory_total: machine.memory_bytes,
        memory_pressure: ["/proc/pressure/memory", "/sys/fs/cgroup/cgroup.procs"]
            .iter()
            .all(|path| std::path::Path::new(path).exists()),
        tasks_total: machine.tasks,
        show_status: options.show_status,
        log_level: options.log_level.clone(),
        command_line: config_lines(options),
        no_service_watchdogs: options.service_watchdogs == Some(false),
        strict: options.strict,
        version: format!("257 (muster {})", env!("CARGO_PKG_VERSION")),
        tainted: tainted(),
        architecture,
        hostname,
        cgroup_root: String::new(),
        // What system.conf says is taken in next.
        ..defaults
    }
}

/// What is unusual about the machine (org.freedesktop.systemd1(5), `Tainted`).
fn tainted() -> String {
    let leads_to = |link: &str, places: &[&str]| {
        std::fs::read_link(link).is_ok_and(|target| places.iter().any(|place| target.as_os_str() == *place))
    };
    let number = |file: &str| first_of(&[file]).trim().to_owned();
    let table = [
        ("unmerged-usr", !leads_to("/bin", &["usr/bin", "/usr/bin"])),
        ("unmerged-bin", !leads_to("/usr/sbin", &["bin", "/usr/bin"])),
        ("var-run-bad", !leads_to("/var/run", &["../run", "/run"])),
        ("overflowuid-not-65534", number("/proc/sys/kernel/overflowuid") != "65534"),
        ("overflowgid-not-65534", number("/proc/sys/kernel/overflowgid") != "65534"),
    ];
    let words: Vec<&str> = table.into_iter().filter(|(_, is)| *is).map(|(word, _)| word).collect();
    words.join(":")
}

/// What the command line says of the manager, as system.conf would.
fn config_lines(options: &Options) -> String {
    let lines: String = options.config.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    if lines.is_empty() { lines } else { format!("[Manager]\n{lines}") }
}

/// The machine's word in `ConditionArchitecture=`.
pub fn architecture() -> String {
    let machine =
        nix::sys::utsname::uname().ok().and_then(|uname| uname.machine().to_str().map(str::to_owned));
    match machine.as_deref() {
        Some("x86_64") => "x86-64".to_owned(),
        Some("aarch64") => "arm64".to_owned(),
        other => other.unwrap_or("").to_owned(),
    }
}

/// A number that is different at each boot.
pub fn seed() -> u64 {
    let mut bytes = [0_u8; 8];
    let _ = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    u64::from_le_bytes(bytes)
}

/// `LANG=` and its kin of /etc/locale.conf.
fn locale() -> Vec<String> {
    let known = assignments(&first_of(&["/etc/locale.conf", "/etc/default/locale"]));
    let lines: Vec<String> = known
        .into_iter()
        .filter(|(key, _)| key.starts_with("LC_") || key.starts_with("LANG"))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if lines.is_empty() { vec!["LANG=C.UTF-8".to_owned()] } else { lines }
}

fn first_of(paths: &[&str]) -> String {
    paths.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

/// Shell-like assignments (os-release(5)).
pub fn assignments(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (key, value) = line.trim().split_once('=')?;
        let value = muster_unit::split_words(value).ok()?.into_iter().next().unwrap_or_default();
        (!key.starts_with('#')).then(|| (key.to_owned(), value))
    };
    text.lines().filter_map(line).collect()
}
