//! `cargo xtask boot --vm`: the small image as an initramfs in QEMU, under Debian's kernel.
//!
//! KVM is used where a trial shows that it runs this kernel; elsewhere QEMU translates, which is slower and always works.

use crate::test::Tally;
use anyhow::{Context, Result, bail};
use muster_tests::{image, paths};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
const LIMIT: Duration = Duration::from_secs(240);

/// Boots with the console on the terminal, to power-off.
pub fn show() -> Result<i32> {
    let machine = prepare()?;
    eprintln!("starting QEMU ({})", machine.acceleration());
    let console = machine.run(true)?;
    match fault(&console) {
        None => {
            println!("\nthe demo answered and the machine powered off");
            Ok(0)
        }
        Some(fault) => bail!(fault),
    }
}

/// The same as a test: counted as passed, failed, or skipped where QEMU or its kernel cannot be had.
pub fn test() -> Tally {
    let machine = match prepare() {
        Ok(machine) => machine,
        Err(reason) => {
            println!("SKIP   vm/small: {reason:#}");
            return Tally::skipped();
        }
    };
    match machine.run(false) {
        Ok(console) => match fault(&console) {
            None => {
                println!("ok     vm/small ({})", machine.acceleration());
                Tally::passed()
            }
            Some(fault) => {
                println!("FAILED vm/small: {fault}; console:\n{console}");
                Tally::failed()
            }
        },
        Err(error) => {
            println!("FAILED vm/small: {error:#}");
            Tally::failed()
        }
    }
}

/// What the console of a good run would have shown and this one does not.
fn fault(console: &str) -> Option<String> {
    let wanted = [("LISTEN_FDS=3", "the demo's answer"), ("DEMO_GREETING=hello", "the demo's environment")];
    let missing = wanted.iter().find(|(text, _)| !console.contains(text));
    missing.map(|(_, what)| format!("the console does not show {what}"))
}

struct Machine {
    kernel: PathBuf,
    initramfs: PathBuf,
    kvm: bool,
}

fn prepare() -> Result<Machine> {
    image::need_program(QEMU, "qemu-system-x86")?;
    let kernel = kernel()?;
    image::build_programs()?;
    let initramfs = paths::images().join("small.cpio");
    write_cpio(&image::small()?, &initramfs)?;
    let kvm = kvm_runs(&kernel);
    Ok(Machine { kernel, initramfs, kvm })
}

/// Debian's kernel for virtual machines, downloaded once.
fn kernel() -> Result<PathBuf> {
    let dir = paths::images().join("kernel");
    if let Some(kernel) = find_kernel(&dir) {
        return Ok(kernel);
    }
    if !image::has_program("apt-get") || !image::has_program("dpkg") {
        bail!("no kernel: on Debian, `apt-get download linux-image-cloud-amd64` gets one");
    }
    eprintln!("downloading Debian's kernel (linux-image-cloud-amd64)");
    fs::create_dir_all(&dir)?;
    let package = kernel_package()?;
    let download =
        || image::run(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(&dir));
    download().or_else(|_| {
        image::run(Command::new("apt-get").args(["update", "-qq"]))?;
        download()
    })?;
    let archive = fs::read_dir(&dir)?.flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.extension().is_some_and(|name| name == "deb"));
    let archive = archive.context("apt-get downloaded nothing")?;
    image::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&dir))?;
    fs::remove_file(archive)?;
    find_kernel(&dir).context("the kernel package holds no boot/vmlinuz-*")
}

fn find_kernel(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir.join("boot")).ok()?.flatten();
    entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("vmlinuz"))
}

/// The package that the metapackage linux-image-cloud-amd64 names.
fn kernel_package() -> Result<String> {
    let ask = || -> Result<Option<String>> {
        let output = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().find_map(|line| Some(line.trim().strip_prefix("Depends: ")?.to_string())))
    };
    if let Some(name) = ask()? {
        return Ok(name);
    }
    image::run(Command::new("apt-get").args(["update", "-qq"]))?;
    ask()?.context("apt knows no linux-image-cloud-amd64")
}

/// Whether KVM gets this kernel as far as its first words.
fn kvm_runs(kernel: &Path) -> bool {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", "kvm", "-cpu", "host", "-m", "256", "-nographic", "-no-reboot", "-kernel"])
        .arg(kernel);
    command.args(["-append", "console=ttyS0 panic=-1"]);
    let trial = capture(command, Duration::from_secs(8), false, |text| text.contains("Linux version"));
    trial.is_ok_and(|text| text.contains("Linux version"))
}

impl Machine {
    fn acceleration(&self) -> &'static str {
        if self.kvm { "KVM" } else { "translation, no KVM" }
    }

    fn run(&self, echo: bool) -> Result<String> {
        let accel: &[&str] = if self.kvm {
            &["-accel", "kvm", "-cpu", "host"]
        } else {
            &["-accel", "tcg,thread=multi", "-cpu", "max"]
        };
        let mut command = Command::new(QEMU);
        command.args(accel).args(["-m", "512", "-smp", "2", "-nographic", "-no-reboot", "-nic", "none"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initramfs);
        let words = "console=ttyS0 quiet panic=-1 systemd.show_status=1 systemd.unit=demo-vm.target";
        command.args(["-append", words]);
        capture(command, LIMIT, echo, |_| false)
    }
}

/// Runs QEMU to its end, or until `enough` of what it printed; an error if neither comes in time.
fn capture(
    mut command: Command,
    limit: Duration,
    echo: bool,
    enough: impl Fn(&str) -> bool,
) -> Result<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let mut stdout = child.stdout.take().context("QEMU's stdout")?;
    let (sender, pieces) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(size @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..size].to_vec()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let mut text = String::new();
    loop {
        match pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(piece) => {
                if echo {
                    std::io::stdout().write_all(&piece)?;
                    std::io::stdout().flush()?;
                }
                text += &String::from_utf8_lossy(&piece).replace('\r', "");
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                stop(&mut child);
                bail!("QEMU still ran after {limit:?}; console:\n{text}");
            }
        }
        if enough(&text) {
            break;
        }
    }
    stop(&mut child);
    Ok(text)
}

fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Writes a directory as an initramfs: cpio's "newc" format, as the kernel's early user space documentation has it.
fn write_cpio(root: &Path, to: &Path) -> Result<()> {
    let mut archive = Cpio { file: std::io::BufWriter::new(File::create(to)?), inode: 1 };
    archive.add_tree(root, root)?;
    archive.entry("dev/console", 0o020_600, (5, 1), b"")?;
    archive.entry("TRAILER!!!", 0, (0, 0), b"")?;
    Ok(archive.file.flush()?)
}

struct Cpio<W: Write> {
    file: W,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    fn add_tree(&mut self, root: &Path, dir: &Path) -> Result<()> {
        let mut entries: Vec<_> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let meta = path.symlink_metadata()?;
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            if meta.is_dir() {
                self.entry(&name, meta.mode(), (0, 0), b"")?;
                self.add_tree(root, &path)?;
            } else if meta.is_symlink() {
                self.entry(&name, meta.mode(), (0, 0), fs::read_link(&path)?.as_os_str().as_bytes())?;
            } else {
                self.entry(&name, meta.mode(), (0, 0), &fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    /// One entry, owned by root; name and content are padded to four bytes each.
    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) -> Result<()> {
        let (size, name_size) = (u32::try_from(content.len())?, u32::try_from(name.len())? + 1);
        write!(self.file, "070701")?;
        for field in [self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0] {
            write!(self.file, "{field:08x}")?;
        }
        self.inode += 1;
        self.file.write_all(name.as_bytes())?;
        // The header is 110 bytes long, and a name ends with a NUL.
        let padding = 1 + (4 - (110 + name.len() + 1) % 4) % 4;
        self.file.write_all(&[0; 4][..padding])?;
        self.file.write_all(content)?;
        Ok(self.file.write_all(&[0; 4][..(4 - content.len() % 4) % 4])?)
    }
}
