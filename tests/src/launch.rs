//! The launcher's two stages, run as processes of their own (see [`crate::hook`]).
//!
//! The outer stage makes the namespaces, starts the inner one as process 1 of the new pid namespace, reports its pid and,
//! at the end, how it ended, on its standard output. The inner stage joins the container's cgroup, mounts what a container
//! manager gives to a system container, and executes the init.
//!
//! Everything is mounted in the container's own mount namespace, so it is gone with its last process.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{pivot_root, sethostname, setsid};
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

/// First argument of the outer stage.
pub const OUTER: &str = "--muster-container-outer";
/// First argument of the inner stage.
pub const INNER: &str = "--muster-container-inner";
/// First argument of an init that does nothing, for trying whether containers work here.
pub const NOTHING: &str = "--muster-container-nothing";
/// Exit status of a stage that failed before the init ran; the reason is on the console.
pub const STAGE_FAILED: i32 = 121;

/// What both stages are told, as arguments in this order; the environment is the init's own.
pub struct Plan<'a> {
    /// Overlay's `lowerdir=`: colon separated, the topmost first.
    pub lower: &'a str,
    /// An empty directory to mount on.
    pub scratch: &'a str,
    /// The container's cgroup on the host.
    pub cgroup: &'a str,
    /// The console's path in the host's /dev/pts.
    pub console: &'a str,
    /// The hostname to start with.
    pub hostname: &'a str,
    /// The init and its arguments.
    pub command: &'a [String],
}

impl<'a> Plan<'a> {
    fn from_args(args: &'a [String]) -> Result<Self> {
        let [lower, scratch, cgroup, console, hostname, command @ ..] = args else {
            anyhow::bail!("too few arguments");
        };
        Ok(Self { lower, scratch, cgroup, console, hostname, command })
    }

    /// The arguments that [`Plan::from_args`] reads.
    pub fn to_args(&self) -> Vec<String> {
        let fixed = [self.lower, self.scratch, self.cgroup, self.console, self.hostname];
        fixed.iter().map(|arg| arg.to_string()).chain(self.command.iter().cloned()).collect()
    }
}

/// New namespaces, the init in them, and its end reported.
pub fn outer(args: &[String]) -> Result<i32> {
    set_pdeathsig(Signal::SIGKILL)?;
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(all).context("making namespaces")?;
    let console = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut init = Command::new("/proc/self/exe")
        .arg(INNER)
        .args(args)
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()
        .context("starting the inner stage")?;
    report(&format!("pid {}", init.id()))?;
    let status = init.wait()?;
    match status.signal() {
        Some(signal) => report(&format!("signal {signal}"))?,
        None => report(&format!("code {}", status.code().unwrap_or(0)))?,
    }
    Ok(0)
}

fn report(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// Mounts, then the init; returns only on failure.
pub fn inner(args: &[String]) -> Result<i32> {
    let plan = Plan::from_args(args)?;
    set_pdeathsig(Signal::SIGKILL)?;
    umask(Mode::empty());
    fs::write(Path::new(plan.cgroup).join("cgroup.procs"), "0").context("joining the cgroup")?;
    unshare(CloneFlags::CLONE_NEWCGROUP).context("making a cgroup namespace")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("making mounts private")?;
    mount_root(&plan)?;
    mount_kernel_file_systems()?;
    mount_dev(plan.console)?;
    enter_root()?;
    sethostname(plan.hostname)?;
    umask(Mode::from_bits_truncate(0o022));
    setsid()?;
    drop_capabilities()?;
    let (init, args) = plan.command.split_first().context("no init named")?;
    Err(Command::new(init).args(args).exec()).with_context(|| format!("executing {init}"))
}

const NONE: Option<&str> = None;

/// The overlay, whose upper layer is a tmpfs, as the working directory.
fn mount_root(plan: &Plan) -> Result<()> {
    let scratch = Path::new(plan.scratch);
    mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .context("mounting scratch space")?;
    for name in ["upper", "work", "root"] {
        fs::create_dir(scratch.join(name))?;
        fs::set_permissions(scratch.join(name), fs::Permissions::from_mode(0o755))?;
    }
    let root = scratch.join("root");
    let layers = format!("lowerdir={},upperdir={1}/upper,workdir={1}/work", plan.lower, plan.scratch);
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
        .context("mounting the overlay")?;
    std::env::set_current_dir(&root)?;
    Ok(())
}

/// Mounts a file system on a directory below the working directory, made if missing.
fn mount_new(kind: &str, on: &str, flags: MsFlags, options: Option<&str>) -> Result<()> {
    fs::create_dir_all(on)?;
    mount(Some(kind), on, Some(kind), flags, options).with_context(|| format!("mounting {kind} on {on}"))
}

fn mount_kernel_file_systems() -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_new("proc", "proc", safe, None)?;
    for what in ["proc/sys", "proc/sysrq-trigger"] {
        read_only(what)?;
    }
    mount_new("sysfs", "sys", safe | MsFlags::MS_RDONLY, None)?;
    mount_new("cgroup2", "sys/fs/cgroup", safe, None)?;
    let volatile = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_new("tmpfs", "run", volatile, Some("mode=0755"))?;
    mount_new("tmpfs", "tmp", volatile, Some("mode=1777"))
}

/// What a container could change on its host through /proc is read-only in it.
fn read_only(path: &str) -> Result<()> {
    if !Path::new(path).exists() {
        return Ok(());
    }
    mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE)?;
    mount(NONE, path, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE)
        .with_context(|| format!("making {path} read-only"))
}

/// A /dev with the few nodes that every container has.
fn mount_dev(console: &str) -> Result<()> {
    mount_new("tmpfs", "dev", MsFlags::MS_NOSUID, Some("mode=0755"))?;
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        device(name, major, minor)?;
    }
    loop_devices()?;
    let pts = Some("newinstance,ptmxmode=0666,mode=0620,gid=5");
    mount_new("devpts", "dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, pts)?;
    mount_new("tmpfs", "dev/shm", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777"))?;
    mount_new("mqueue", "dev/mqueue", MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, None)?;
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
    ] {
        symlink(target, format!("dev/{link}"))?;
    }
    bind_file(console, "dev/console")
}

/// How many loop devices a container can see. They are the host's; whoever needs one takes one that is free.
const LOOPS: u64 = 32;

/// Nodes for images that services mount. Where the host has no loop devices, they lead nowhere; where nodes may not be made,
/// there are none.
fn loop_devices() -> Result<()> {
    let mode = Mode::from_bits_truncate(0o660);
    let control = mknod("dev/loop-control", SFlag::S_IFCHR, mode, makedev(10, 237));
    if control == Err(Errno::EPERM) {
        return Ok(());
    }
    control?;
    for minor in 0..LOOPS {
        mknod(format!("dev/loop{minor}").as_str(), SFlag::S_IFBLK, mode, makedev(7, minor))?;
    }
    Ok(())
}

/// Makes a device node, or borrows the host's where nodes may not be made.
fn device(name: &str, major: u64, minor: u64) -> Result<()> {
    let path = format!("dev/{name}");
    match mknod(path.as_str(), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor)) {
        Err(Errno::EPERM) => bind_file(&format!("/dev/{name}"), &path),
        result => Ok(result?),
    }
}

fn bind_file(from: &str, to: &str) -> Result<()> {
    fs::write(to, "")?;
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE).with_context(|| format!("binding {from} to {to}"))
}

/// Takes away for good what would reach through to the host, as container managers do: modules, the clock, raw devices.
fn drop_capabilities() -> Result<()> {
    use caps::Capability::{CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME};
    for capability in [CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME] {
        caps::drop(None, caps::CapSet::Bounding, capability)?;
    }
    Ok(())
}

/// Makes the working directory the root and lets go of the host's mounts.
fn enter_root() -> Result<()> {
    pivot_root(".", ".").context("changing the root")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(())
}
