//! The images that are booted, put together below `target/images` and cached there, and muster's own programs in them.
//!
//! `debian` is a stock Debian 13 by mmdebstrap, never changed after it was made, and `daemons` one with more socket-activated
//! daemons; `small` is ours whole: unit files of `images/small`, muster, and a demo program, with nothing from anybody else.

use crate::kernel::Kernel;
use crate::machine::Emulator;
use crate::{cpio, paths};
use anyhow::{Context, Result, anyhow, bail};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What is installed where: DESIGN §6's layout. The crate that holds the program, its name, its directory.
pub const PROGRAMS: [(&str, &str, &str); 4] = [
    ("muster-init", "muster", "usr/lib/muster"),
    ("muster-exec", "muster-executor", "usr/lib/muster"),
    ("muster-exec", PAM_EXECUTOR, "usr/lib/muster"),
    ("muster-ctl", "musterctl", "usr/bin"),
];

/// The executor once more, linked dynamically: for units with `PAMName=`, since a static program cannot load PAM's modules.
pub const PAM_EXECUTOR: &str = "muster-executor-pam";

/// A root file system is tried again after so long: a package that could not be fetched mostly can be a moment later.
const PAUSES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(15), Duration::from_secs(60)];

/// Where muster's PID 1 is once installed.
pub const MUSTER: &str = "/usr/lib/muster/muster";
/// Where the demo and probe program lies in images and test containers.
pub const DEMO: &str = "/usr/lib/muster-demo";

/// Builds muster's programs and the demo in release mode, at the same time: to link the largest takes one processor for minutes.
pub fn build_programs() -> Result<()> {
    let ours = PROGRAMS.iter().filter(|(_, name, _)| *name != PAM_EXECUTOR);
    let crates: Vec<&str> = ours.map(|(package, ..)| *package).chain(["muster-demo"]).collect();
    std::thread::scope(|scope| {
        let dynamic = scope.spawn(build_pam_executor);
        build(&crates)?;
        dynamic.join().map_err(|_| anyhow!("what built {PAM_EXECUTOR} panicked"))?
    })
}

/// In a target directory of its own, so that the two ways of linking do not undo each other's work.
fn build_pam_executor() -> Result<()> {
    let dir = paths::target().join("dynamic");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--profile", "pam", "-p", "muster-exec", "--bin", "muster-executor"]);
    command.arg("--target-dir").arg(&dir).env("RUSTFLAGS", "-C target-feature=-crt-static");
    run(command.current_dir(paths::workspace()))?;
    let built = dir.join(triple()?).join("pam/muster-executor");
    let place = paths::release().join(PAM_EXECUTOR);
    let same = |from: &Path, to: &Path| fs::read(from).ok() == fs::read(to).ok();
    if !same(&built, &place) { copy(&built, &place) } else { Ok(()) }
}

/// The target triple that all is built for.
pub fn triple() -> Result<OsString> {
    Ok(paths::release().parent().and_then(Path::file_name).context("a target triple")?.to_owned())
}

/// Builds these crates in release mode.
pub fn build(crates: &[&str]) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--release"]).current_dir(paths::workspace());
    run(command.args(crates.iter().flat_map(|package| ["-p", package])))
}

/// The paths on the host, and in the image, of what [`install`] copies.
pub fn installed_files() -> Vec<(PathBuf, String)> {
    let place = |(_, name, dir): &(&str, &str, &str)| (paths::release().join(name), format!("{dir}/{name}"));
    PROGRAMS.iter().map(place).collect()
}

/// Copies muster's programs below a root directory; with `init`, /sbin/init is muster.
pub fn install(root: &Path, init: bool) -> Result<()> {
    install_of(&installed_files(), root, init)
}

fn install_of(programs: &[(PathBuf, String)], root: &Path, init: bool) -> Result<()> {
    for (from, to) in programs {
        copy(from, &root.join(to))?;
    }
    if init {
        // On a merged-/usr system sbin is a link to usr/sbin: the link is followed, and the target is absolute.
        let path = root.join("sbin/init");
        fs::create_dir_all(root.join("sbin"))?;
        let _ = fs::remove_file(&path);
        symlink(MUSTER, &path).with_context(|| format!("linking {}", path.display()))?;
    }
    Ok(())
}

/// Copies by a new inode: the old one may be a program that is running.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a path below the root")?)?;
    let _ = fs::remove_file(to);
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The small image as a directory, put together afresh.
pub fn small() -> Result<PathBuf> {
    small_of(&installed_files())
}

/// The same with these programs.
pub fn small_of(programs: &[(PathBuf, String)]) -> Result<PathBuf> {
    let root = paths::images().join("small");
    let _ = fs::remove_dir_all(&root);
    for dir in ["dev", "proc", "sys", "run", "tmp", "var/log", "root", "etc", "usr/lib", "usr/bin"] {
        fs::create_dir_all(root.join(dir))?;
    }
    copy_tree(&paths::workspace().join("images/small"), &root)?;
    install_of(programs, &root, true)?;
    symlink("sbin/init", root.join("init"))?;
    copy(&paths::release().join("muster-demo"), &root.join(DEMO.trim_start_matches('/')))?;
    Ok(root)
}

/// Copies all that is in a directory into another.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else {
            copy(&source, &target)?;
        }
    }
    Ok(())
}

/// The Debian 13 root directory.
pub fn debian() -> Result<PathBuf> {
    debian_of("debian")
}

/// Debian 13 (12 where the name is bookworm) with the packages of `images/NAME.txt`, built if missing or out of date;
/// `MUSTER_IMAGES` names a directory where they are ready.
pub fn debian_of(name: &str) -> Result<PathBuf> {
    if let Some(images) = std::env::var_os("MUSTER_IMAGES") {
        return Ok(PathBuf::from(images).join(name));
    }
    let root = paths::images().join(name);
    let packages = debian_packages(name)?;
    let fetched = debian_packages(&format!("{name}-fetched")).unwrap_or_default().replace(',', " ");
    let fetch = if fetched.is_empty() { String::new() } else { FETCH.replace("PACKAGES", &fetched) };
    let stamp = paths::images().join(format!("{name}.stamp"));
    let recipe = format!("{RECIPE} {packages}{fetch}\n");
    if fs::read_to_string(&stamp).is_ok_and(|stamped| stamped == recipe) && root.is_dir() {
        return Ok(root);
    }
    need_program("mmdebstrap", "mmdebstrap")?;
    let suite = if name == "bookworm" { "bookworm" } else { "trixie" };
    eprintln!("building a Debian root file system ({suite}) in {} (about half a minute)", root.display());
    let _ = fs::remove_file(&stamp);
    fs::create_dir_all(paths::images())?;
    let mut command = Command::new("mmdebstrap");
    command.args(RECIPE.split(' ')).arg(format!("--include={packages}"));
    if !fetch.is_empty() {
        command.arg(format!("--customize-hook={}", fetch.trim()));
    }
    command.arg(suite).arg(&root);
    made_afresh(&root, &mut command)?;
    fs::write(root.join("etc/machine-id"), "")?;
    fs::write(&stamp, recipe)?;
    Ok(root)
}

/// Runs what makes a directory of packages. A registry that fails is given time, the second time more of it.
fn made_afresh(root: &Path, command: &mut Command) -> Result<()> {
    let mut pauses = PAUSES.iter();
    loop {
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("removing {}", root.display()))?;
        }
        let Err(error) = run(command) else { return Ok(()) };
        let Some(pause) = pauses.next() else { return Err(error) };
        eprintln!("{error:#}; trying again in {} s", pause.as_secs());
        std::thread::sleep(*pause);
    }
}

/// Gets what is missing of all that is fetched for tests: roots of Debian, its kernel, an emulator.
pub fn fetch_all() -> Result<()> {
    debian()?;
    Emulator::prepare(&Kernel::get()?)?;
    ["bookworm", "daemons", "vm", "oci"].iter().try_for_each(|name| debian_of(name).map(drop))
}

/// The account of the disk that is not root's; its password and root's are [`PASSWORD`].
pub const PERSON: &str = "person";
/// For the console of a machine that is made here and thrown away.
pub const PASSWORD: &str = "muster";

/// The Debian of images/vm.txt as the image of a disk, with muster's programs, `init` as its /sbin/init, and what `add` adds; and
/// the initramfs that goes on to it.
pub fn disk(
    kernel: &Kernel,
    init: &str,
    add: impl FnOnce(&Path) -> Result<()>,
) -> Result<(PathBuf, PathBuf)> {
    disk_with(kernel, |root| {
        install(root, false)?;
        copy(&paths::release().join("muster-demo"), &root.join(DEMO.trim_start_matches('/')))?;
        let hook = root.join("usr/lib/systemd/system-shutdown/says.sh");
        hook.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(root.join("etc/systemd/system/carried.service"), CARRIED)?;
        fs::write(&hook, HOOK)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        let _ = fs::remove_file(root.join("usr/sbin/init"));
        symlink(init, root.join("usr/sbin/init"))?;
        add(root)
    })
}

/// The same stock Debian with what `add` adds.
pub fn disk_with(kernel: &Kernel, add: impl FnOnce(&Path) -> Result<()>) -> Result<(PathBuf, PathBuf)> {
    need_program("mke2fs", "e2fsprogs")?;
    let base = debian_of("vm")?;
    let dir = paths::images().join("vm-disk");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let (root, disk, initramfs) = (dir.join("root"), dir.join("disk"), dir.join("initramfs"));
    run(Command::new("cp").arg("-a").arg(&base).arg(&root))?;
    add(&root)?;
    fs::write(root.join("etc/fstab"), "/dev/vda / ext4 defaults 0 1\n")?;
    fs::write(root.join("etc/hostname"), "muster\n")?;
    let accounts = format!(
        "useradd -m -s /bin/bash {PERSON} && printf 'root:{PASSWORD}\\n{PERSON}:{PASSWORD}\\n' | chpasswd"
    );
    run(Command::new("chroot").arg(&root).args(["/bin/sh", "-c", &accounts]))?;
    // For kexec(8), which goes on to them once more.
    cpio::write(&first_stage(kernel, &dir)?, &initramfs)?;
    copy(&kernel.image, &root.join("boot/vmlinuz"))?;
    copy(&initramfs, &root.join("boot/initramfs"))?;
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&disk).arg("2G"))?;
    fs::remove_dir_all(&root)?;
    Ok((disk, initramfs))
}

/// A unit of the initramfs and of the disk, whose process lives on when the root changes.
const CARRIED: &str = "[Unit]\nDefaultDependencies=no\nSurviveFinalKillSignal=yes\nIgnoreOnIsolate=yes\n[Service]\nExecStart=/bin/sleep infinity\n\
         ExecStartPost=/bin/sh -c 'echo $MAINPID > /run/carried'\n";

/// Runs when a machine ends (systemd-shutdown(8)), and says so on the console, and whether a watchdog would end it.
const HOOK: &str = "#!/bin/sh\ncd /sys/class/watchdog/watchdog0\necho \"hook-ran-$1 watchdog $(cat state timeout | paste -s -d ' ') root $(sed -n 's/.* \\/ ext4 \\(r[ow]\\).*/\\1/p' /proc/mounts)\" > /dev/console\n";

/// An initramfs in which `init` looks for the disk's root file system and switches to it (bootup(7), systemctl(1)
/// `switch-root`): the Debian image with modules, and units that mount the disk and keep a process over the switch.
pub fn initrd(kernel: &Kernel, init: &str) -> Result<PathBuf> {
    let dir = paths::images().join("vm-initrd");
    let (layer, initramfs) = (dir.join("layer"), dir.join("initramfs"));
    let _ = fs::remove_dir_all(&dir);
    let stage = first_stage(kernel, &layer)?;
    fs::rename(stage.join("modules"), layer.join("modules"))?;
    fs::remove_dir_all(stage)?;
    install(&layer, false)?;
    copy(&paths::release().join("muster-demo"), &layer.join(DEMO.trim_start_matches('/')))?;
    symlink(init, layer.join("init"))?;
    let order = fs::read_to_string(layer.join("modules/order"))?;
    let modules: String = order.lines().map(|name| format!(" /modules/{name}")).collect();
    let mounts = format!(
        "[Unit]\nDefaultDependencies=no\nBefore=initrd-root-fs.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart={DEMO} load-modules{modules}\n\
         ExecStart=/bin/sh -c 'until [ -b /dev/vda ]; do sleep 0.05; done; mkdir -p /sysroot; mount /dev/vda /sysroot'\n"
    );
    let wants = "etc/systemd/system/initrd-root-fs.target.wants";
    fs::create_dir_all(layer.join(wants))?;
    fs::write(layer.join("etc/initrd-release"), "ID=muster-initrd\nNAME=initrd\n")?;
    fs::write(layer.join("etc/fstab"), "")?;
    for (name, text) in [("root-disk.service", mounts.as_str()), ("carried.service", CARRIED)] {
        fs::write(layer.join("etc/systemd/system").join(name), text)?;
        symlink(format!("../{name}"), layer.join(wants).join(name))?;
    }
    cpio::write(&debian()?, &initramfs)?;
    let addition = dir.join("layer.cpio");
    cpio::write(&layer, &addition)?;
    std::io::copy(&mut fs::File::open(addition)?, &mut fs::File::options().append(true).open(&initramfs)?)?;
    Ok(initramfs)
}

/// What the kernel needs before it has the disk: the demo program as /init, and modules.
fn first_stage(kernel: &Kernel, dir: &Path) -> Result<PathBuf> {
    let stage = dir.join("stage");
    copy(&paths::release().join("muster-demo"), &stage.join("init"))?;
    let mut order = String::new();
    for module in kernel.modules(&["virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "i6300esb"])? {
        let name = module.file_name().context("a module has a name")?;
        copy(&module, &stage.join("modules").join(name))?;
        order += &format!("{}\n", name.to_string_lossy());
    }
    fs::write(stage.join("modules/order"), order)?;
    Ok(stage)
}

const RECIPE: &str = "--mode=root --format=directory --variant=minbase --quiet";

/// The packages of `images/NAME-fetched.txt`, with what they depend on, lie in /var/lib/fetched of the image: a case installs
/// them where there is no network.
const FETCH: &str = " mkdir $1/var/lib/fetched; rm -f $1/var/cache/apt/archives/*.deb; chroot $1 apt-get -qq -y --no-install-recommends --download-only install PACKAGES && mv $1/var/cache/apt/archives/*.deb $1/var/lib/fetched/";

/// `images/NAME.txt` without comments, comma separated.
fn debian_packages(name: &str) -> Result<String> {
    let list = fs::read_to_string(paths::workspace().join(format!("images/{name}.txt")))?;
    Ok(list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect::<Vec<_>>().join(","))
}

/// Makes sure that a program can be called; installs its Debian package where that is possible.
pub fn need_program(program: &str, package: &str) -> Result<()> {
    if has_program(program) { Ok(()) } else { need(program, package) }
}

/// The same for a file that is no program.
pub fn need_file(path: &str, package: &str) -> Result<()> {
    if Path::new(path).exists() { Ok(()) } else { need(path, package) }
}

fn need(what: &str, package: &str) -> Result<()> {
    let advice = format!("{what} is missing: apt-get install {package}");
    if !nix::unistd::geteuid().is_root() || !has_program("apt-get") {
        bail!(advice);
    }
    eprintln!("installing {package}");
    let install =
        |args: &[&str]| run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args));
    // Somebody else may be installing something.
    let quick = ["install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", package];
    install(&quick).or_else(|_| install(&["update", "-qq"]).and_then(|()| install(&quick))).context(advice)
}

/// Whether a program of this name is on the PATH.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Runs a command; its standard output goes where our standard error goes, as all that is not a result does.
pub fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdout(std::io::stderr()).status().with_context(|| format!("starting {name}"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}
