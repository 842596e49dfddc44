//! The stage before the first unit: API file systems, directories below /run, name, machine id, loopback.
//!
//! Every step looks first whether it is done already (a container's manager did much of it), and none is fatal.

use crate::options::Options;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// (source, place, type, flags, data, also in containers).
const MOUNTS: &[(&str, &str, &str, MsFlags, &str)] = &[
    ("proc", "/proc", "proc", MsFlags::from_bits_truncate(SAFE), ""),
    ("sysfs", "/sys", "sysfs", MsFlags::from_bits_truncate(SAFE), ""),
    ("devtmpfs", "/dev", "devtmpfs", MsFlags::from_bits_truncate(NOSUID), "mode=0755"),
    ("tmpfs", "/dev/shm", "tmpfs", MsFlags::from_bits_truncate(NOSUID | NODEV | STRICT), "mode=01777"),
    ("devpts", "/dev/pts", "devpts", MsFlags::from_bits_truncate(NOSUID | NOEXEC), "mode=0600,gid=5"),
    (
        "tmpfs",
        "/run",
        "tmpfs",
        MsFlags::from_bits_truncate(NOSUID | NODEV | STRICT),
        "mode=0755,size=20%,nr_inodes=800k",
    ),
    (
        "cgroup2",
        "/sys/fs/cgroup",
        "cgroup2",
        MsFlags::from_bits_truncate(SAFE),
        "nsdelegate,memory_recursiveprot",
    ),
];
/// The same, for a machine alone, and only where the kernel has the directory to mount on.
const MOUNTS_OF_A_MACHINE: &[(&str, &str, &str)] = &[
    ("securityfs", "/sys/kernel/security", ""),
    ("pstore", "/sys/fs/pstore", ""),
    ("efivarfs", "/sys/firmware/efi/efivars", ""),
    ("bpf", "/sys/fs/bpf", "mode=0700"),
];
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;
const STRICT: u64 = 1 << 24;
const SAFE: u64 = NOSUID | NODEV | NOEXEC;

/// Directories that stock userland expects (contract with journald, logind, udevd, libsystemd).
const DIRECTORIES: &[&str] = &[
    "/run/lock",
    "/run/systemd",
    "/run/systemd/system",
    "/run/systemd/units",
    "/run/systemd/transient",
    "/run/systemd/generator",
    "/run/systemd/generator.early",
    "/run/systemd/generator.late",
    "/run/systemd/journal",
    "/run/systemd/inaccessible",
    "/run/systemd/propagate",
    "/run/systemd/ask-password",
    "/run/systemd/machines",
    "/run/systemd/seats",
    "/run/systemd/sessions",
    "/run/systemd/users",
    "/run/credentials",
];

/// Sets the stage; gives what could not be done.
pub fn set() -> Vec<String> {
    let mut complaints = Vec::new();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // What we are started with is not passed on: services begin with the default actions, and SIGPIPE ignored.
    muster_sys::reset_signals(&[nix::libc::SIGPIPE]);
    open_standard_streams();
    // What our parent left open is nobody's below us.
    if let Err(error) = muster_sys::close_on_exec_from(3) {
        complaints.push(format!("Descriptors from before may be passed on: {error}"));
    }
    for (source, place, kind, flags, data) in MOUNTS {
        match mount_once(source, place, kind, *flags, data) {
            // What its manager did not mount, a container without the right to do so has not.
            Err(Errno::EPERM | Errno::EACCES) if in_container() => {}
            Err(error) => complaints.push(format!("{kind} could not be mounted on {place}: {error}")),
            Ok(()) => {}
        }
    }
    if !in_container() {
        complaints.extend(set_machine());
    }
    let make = |directory: &&str| {
        let made = std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)));
        made.err().map(|error| format!("{directory} could not be made: {error}"))
    };
    // Where one cannot be made, none can.
    complaints.extend(DIRECTORIES.iter().find_map(make));
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("/proc/kcore", "/dev/core"),
    ] {
        let _ = symlink(target, link);
    }
    if let Err(error) = make_inaccessible() {
        complaints.push(format!("/run/systemd/inaccessible is not complete: {error}"));
    }
    if in_container() {
        let _ = std::fs::write("/run/systemd/container", virtualization());
    }
    if let Err(error) = muster_sys::loopback_up() {
        complaints.push(format!("The loopback interface could not be brought up: {error}"));
    }
    raise_limits();
    let _ = nix::unistd::setsid();
    let _ = std::env::set_current_dir("/");
    complaints
}

/// What is a machine's alone to have; gives what could not be done.
fn set_machine() -> Vec<String> {
    let mut complaints = Vec::new();
    for (kind, place, data) in MOUNTS_OF_A_MACHINE {
        let missing = Path::new(place).is_dir() && knows_file_system(kind);
        let mounted = missing.then(|| mount_once(kind, place, kind, MsFlags::from_bits_truncate(SAFE), data));
        if let Some(Err(error)) = mounted {
            complaints.push(format!("{kind} could not be mounted on {place}: {error}"));
        }
    }
    load_modules();
    if let Err(error) = share_mounts() {
        complaints.push(format!("Mounts could not be made shared: {error}"));
    }
    // Ctrl-alt-del is a request to us from now on, and alt-arrow-up one as well.
    let _ = nix::sys::reboot::set_cad_enabled(false);
    let console = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty0");
    let _ =
        console.and_then(|console| muster_sys::accept_keyboard_request(std::os::fd::AsFd::as_fd(&console)));
    // Services may write to the kernel's log as often as they like while nobody else takes their messages.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    complaints
}

/// Modules that others count on before udevd runs, and where it shows that one is there: automounts, sockets, and the credentials
/// that QEMU gives.
const MODULES: [(&str, &str); 4] = [
    ("autofs4", "/sys/class/misc/autofs"),
    ("unix", "/proc/net/unix"),
    ("ipv6", "/sys/module/ipv6"),
    ("qemu_fw_cfg", "/sys/firmware/qemu_fw_cfg"),
];

/// Loads those that are missing, where there is a program for it; what is not built or not allowed stays away.
fn load_modules() {
    let is_qemu =
        std::fs::read_to_string("/sys/class/dmi/id/sys_vendor").is_ok_and(|text| text.trim() == "QEMU");
    let wanted = |name: &str| name != "qemu_fw_cfg" || is_qemu;
    let missing: Vec<&str> = MODULES
        .iter()
        .filter(|(name, sign)| wanted(name) && !Path::new(sign).exists())
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() || in_initrd() {
        return;
    }
    let mut command = std::process::Command::new("/usr/sbin/modprobe");
    command.args(["-q", "-a", "-b"]).args(missing).stdin(std::process::Stdio::null());
    if let Ok(mut child) = command.stderr(std::process::Stdio::null()).spawn() {
        let _ = child.wait();
    }
}

/// Mounts of the machine are seen by services with mounts of their own.
pub fn share_mounts() -> nix::Result<()> {
    let flags = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
}

fn knows_file_system(kind: &str) -> bool {
    std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|known| known.lines().any(|line| line.split_whitespace().last() == Some(kind)))
}

/// One node of each kind that nobody can use: they are put in the place of what a service is not to see.
fn make_inaccessible() -> nix::Result<()> {
    use nix::errno::Errno;
    use nix::sys::stat::{Mode, SFlag, mknod};
    let kinds = [
        ("reg", SFlag::S_IFREG),
        ("fifo", SFlag::S_IFIFO),
        ("sock", SFlag::S_IFSOCK),
        ("chr", SFlag::S_IFCHR),
        ("blk", SFlag::S_IFBLK),
    ];
    let there = |done: nix::Result<()>| match done {
        Err(Errno::EEXIST) => Ok(()),
        done => done,
    };
    let path = |name: &str| format!("/run/systemd/inaccessible/{name}");
    there(nix::unistd::mkdir(path("dir").as_str(), Mode::empty()))?;
    for (name, kind) in kinds {
        match there(mknod(path(name).as_str(), kind, Mode::empty(), 0)) {
            // A container may not make devices.
            Err(Errno::EPERM) if matches!(name, "chr" | "blk") => {}
            done => done?,
        }
    }
    Ok(())
}

/// What the command line says of the clock and of randomness; gives what could not be done.
pub fn take_words(options: &Options) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Some(usec) = options.clock_usec.filter(|_| !in_container()) {
        let time = nix::sys::time::TimeSpec::from_duration(std::time::Duration::from_micros(usec));
        if let Err(error) = nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, time) {
            complaints.push(format!("systemd.clock_usec=: {error}"));
        }
    }
    if let Some(seed) = options.random_seed.as_ref().filter(|_| !in_container()) {
        if let Err(error) = std::fs::write("/dev/urandom", seed) {
            complaints.push(format!("systemd.random_seed=: {error}"));
        }
    }
    complaints
}

/// Gives the system its name and its machine id; gives what could not be done.
pub fn name(options: &Options) -> Vec<String> {
    name_host(options).into_iter().chain(machine_id(options)).collect()
}

/// A PID 1 that was started with a standard stream closed would give its number to the first file that it opens.
fn open_standard_streams() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
    for number in 0..=2 {
        if fcntl(muster_sys::borrow_fd(number), FcntlArg::F_GETFD).is_err() {
            if let Ok(null) = open("/dev/null", OFlag::O_RDWR, nix::sys::stat::Mode::empty()) {
                let _ = muster_sys::place_fd(std::os::fd::AsFd::as_fd(&null), number);
                if std::os::fd::AsRawFd::as_raw_fd(&null) == number {
                    std::mem::forget(null);
                }
            }
        }
    }
}

/// The first line that a person sees.
pub fn welcome(options: &Options) {
    if options.show_status == Some(false) {
        return;
    }
    let name = std::fs::read_to_string("/etc/os-release").ok().and_then(|text| {
        let line =
            text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?.trim_matches('"').to_owned();
        Some(line)
    });
    let mut console = muster_runtime::console::Console::default();
    let text = format!(
        "\r\nWelcome to {}! (muster {})\r\n",
        name.as_deref().unwrap_or("Linux"),
        env!("CARGO_PKG_VERSION")
    );
    console.show(muster_manager::effect::StatusMark::None, text.trim_start_matches("\r\n").trim_end());
}

fn mount_once(source: &str, place: &str, kind: &str, flags: MsFlags, data: &str) -> nix::Result<()> {
    if is_mount_point(place)
        || (place == "/sys/fs/cgroup" && Path::new("/sys/fs/cgroup/cgroup.procs").exists())
    {
        return Ok(());
    }
    let _ = std::fs::create_dir_all(place);
    let attempt =
        |data: &str| mount(Some(source), place, Some(kind), flags, (!data.is_empty()).then_some(data));
    // An old kernel may not know an option; the mount without it is better than none.
    attempt(data).or_else(|_| attempt(""))
}

/// Whether something is mounted exactly here: by the kernel's table, or, before /proc is there, by its device number.
fn is_mount_point(place: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    if let Ok(mounts) = muster_watch::MountTable::open().and_then(|table| table.read()) {
        return mounts.iter().any(|mount| mount.place == place);
    }
    let Ok(here) = std::fs::metadata(place) else { return false };
    let parent = Path::new(place).parent().unwrap_or(Path::new("/"));
    std::fs::metadata(parent).is_ok_and(|parent| parent.dev() != here.dev())
}

/// What an initrd has (bootup(7)).
pub const INITRD: &str = "/etc/initrd-release";

/// Whether this is the system that looks for the root file system.
pub fn in_initrd() -> bool {
    Path::new(INITRD).exists()
}

/// Whether a container's manager said so (container interface: `container=` in PID 1's environment), or this is PID 1 of
/// another PID namespace than the first.
pub fn in_container() -> bool {
    let first = |link: std::path::PathBuf| link == Path::new(FIRST_PIDS);
    std::env::var_os("container").is_some_and(|value| !value.is_empty())
        || std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| !first(link))
}

/// The first PID namespace, whose number is fixed (linux/nsfs.h, `PID_NS_INIT_INO`).
const FIRST_PIDS: &str = "pid:[4026531836]";

/// Files by which container managers that set no variable are known, and their words.
const MARKS: [(&str, &str); 2] = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];

/// What the run before left in a container that is started again with its /run: only what PID 1 alone writes.
pub fn clear_run() {
    if in_container() {
        for directory in ["/run/systemd/units", "/run/systemd/transient"] {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// A word for what we run in, as `systemd-detect-virt` says it; empty for the bare machine.
pub fn virtualization() -> String {
    if let Some(word) = std::env::var("container").ok().filter(|word| !word.is_empty()) {
        let known = muster_runtime::conditions::CONTAINERS;
        return if known.contains(&word.as_str()) { word } else { "container-other".to_owned() };
    }
    if in_container() {
        let found = MARKS.iter().find(|(mark, _)| Path::new(mark).exists());
        return found.map_or("container-other", |(_, word)| word).to_owned();
    }
    let dmi = |file: &str| std::fs::read_to_string(format!("/sys/class/dmi/id/{file}")).unwrap_or_default();
    let vendor = format!("{} {} {}", dmi("sys_vendor"), dmi("product_name"), dmi("bios_vendor"));
    let table = [
        ("KVM", "kvm"),
        ("QEMU", "qemu"),
        ("VMware", "vmware"),
        ("innotek", "oracle"),
        ("VirtualBox", "oracle"),
        ("Xen", "xen"),
        ("Bochs", "bochs"),
        ("Parallels", "parallels"),
        ("BHYVE", "bhyve"),
        ("Hyper-V", "microsoft"),
        ("Amazon EC2", "amazon"),
        ("Google", "google"),
    ];
    let found = table.iter().find(|(needle, _)| vendor.contains(needle)).map(|(_, word)| (*word).to_owned());
    let kvm = || std::fs::read_to_string("/sys/hypervisor/type").map(|text| text.trim().to_owned());
    found.or_else(|| kvm().ok()).unwrap_or_default()
}

/// hostname(5): the command line's word, what /etc has, what the container's manager gave, `localhost`.
fn name_host(options: &Options) -> Option<String> {
    let text = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let in_file = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let wanted = options.hostname.as_deref().or(in_file);
    let current =
        nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name = match wanted {
        Some(name) => name.to_owned(),
        None if current.is_empty() || current == "(none)" => "localhost".to_owned(),
        None => return None,
    };
    if name == current {
        return None;
    }
    nix::unistd::sethostname(&name)
        .err()
        .map(|error| format!("The host name {name} could not be set: {error}"))
}

/// What says that this is a first boot (systemd.unit(5), `ConditionFirstBoot=`).
pub const FIRST_BOOT: &str = "/run/systemd/first-boot";
/// Where the machine id is until it is committed to the disk.
const PASSING_ID: &str = "/run/machine-id";

/// machine-id(5): the command line's, what /etc has, else the container's, else a random one. A first boot, which is one
/// without the file or with `uninitialized` in it, keeps it in memory until systemd-machine-id-commit.service, so that one that
/// is cut short is a first boot again.
fn machine_id(options: &Options) -> Option<String> {
    let valid = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let current = std::fs::read_to_string("/etc/machine-id");
    let first = current.as_ref().map_or_else(
        |error| error.kind() == std::io::ErrorKind::NotFound,
        |text| text.trim() == "uninitialized",
    );
    let first = options.first_boot.unwrap_or(first) && !in_initrd();
    if first {
        let _ = std::fs::write(FIRST_BOOT, "");
    }
    let told = options.machine_id.as_ref().filter(|id| valid(id)).cloned();
    if told.is_none() && current.is_ok_and(|text| valid(text.trim())) {
        return None;
    }
    let container =
        || std::env::var("container_uuid").ok().map(|text| text.replace('-', "")).filter(|text| valid(text));
    let given = told.or_else(container);
    let id = given.or_else(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/uuid").ok().map(|text| text.trim().replace('-', ""))
    })?;
    let line = format!("{}\n", id.to_ascii_lowercase());
    if first {
        let _ = std::fs::write("/etc/machine-id", "uninitialized\n");
        if bind_machine_id(&line).is_ok() {
            return None;
        }
    }
    if std::fs::write("/etc/machine-id", &line).is_ok() {
        return None;
    }
    // A read-only root: a file below /run stands in its place until the next boot.
    bind_machine_id(&line).err().map(|error| format!("The machine id could not be kept: {error}"))
}

fn bind_machine_id(line: &str) -> std::io::Result<()> {
    std::fs::write(PASSING_ID, line)?;
    std::fs::set_permissions(PASSING_ID, PermissionsExt::from_mode(0o444))?;
    let (none, flags) = (None::<&str>, MsFlags::MS_BIND);
    mount(Some(PASSING_ID), "/etc/machine-id", none, flags, none)?;
    Ok(mount(none, "/etc/machine-id", none, flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?)
}

/// PID 1 keeps many descriptors; services get the usual soft limit by the executor.
fn raise_limits() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
