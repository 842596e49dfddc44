//! What takes longer than the tests of every day. `cargo xtask test --package`: the page docs/install.md, carried out in a machine
//! with a stock Debian under systemd, restarts included; the disk image, booted by firmware on a disk that grew.
//! `cargo xtask test --reproducible`: two builds of one commit, this one and a clone's, in two directories.
//!
//! What must stay true: the page is the conversation. A line with `# ` is typed at the machine's shell, and each line after it
//! must be part of the answer.

use crate::artefacts::check;
use crate::dist::{self, Steps};
use crate::package::{self, Packages};
use crate::test::Tally;
use crate::{disk, vm};
use anyhow::{Context, Result, ensure};
use muster_tests::kernel::Kernel;
use muster_tests::machine::{Emulator, Machine};
use muster_tests::{image, paths};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Two builds.
pub fn twice() -> Tally {
    check("package/reproducible", Ok(()), reproducible)
}

/// What needs a machine.
pub fn test() -> Tally {
    let mut tally = Tally::default();
    let prepared = Kernel::get().and_then(|kernel| Ok((Emulator::prepare(&kernel)?, kernel)));
    let (emulator, kernel) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => {
            println!("SKIP   package/machine: {reason:#}");
            tally += Tally::skipped();
            return tally;
        }
    };
    eprintln!("building the programs as they are released (some minutes)");
    let made =
        package::build().and_then(|programs| package::make(&programs, &dist::dir(), &mut Steps::uncounted()));
    let packages = match made {
        Ok(packages) => packages,
        Err(error) => {
            println!("FAILED package/machine: {error:#}");
            tally += Tally::failed();
            return tally;
        }
    };
    tally += check("package/machine", Ok(()), || machine(&emulator, &kernel, &packages));
    tally += check("image/disk", image::need_file(FIRMWARE, "ovmf"), || grows(&emulator, &packages));
    tally
}

/// What this checkout makes, and what a clone of its commit makes in a directory of another length, with nothing built: the same
/// bytes.
fn reproducible() -> Result<()> {
    let changed =
        dist::output(Command::new("git").args(["status", "--porcelain"]).current_dir(paths::workspace()))?;
    ensure!(changed.is_empty(), "a clone has only what is committed:\n{changed}");
    let dir = dist::scratch("reproducible")?;
    let clone = dir.join("another-directory/of-another-length");
    image::run(Command::new("git").args(["clone", "-q"]).arg(paths::workspace()).arg(&clone))?;
    eprintln!("       the clone's packages (some minutes)");
    let mut command = Command::new("cargo");
    command.args(["xtask", "package"]).current_dir(&clone).env_remove("CARGO_TARGET_DIR");
    image::run(&mut command)?;
    eprintln!("       our own packages (some minutes, where they were not built before)");
    let ours = package::make(&package::build()?, &dir.join("ours"), &mut Steps::uncounted())?;
    let sums = [ours.sums, clone.join("target/dist/SHA256SUMS")].map(fs::read_to_string);
    let [ours, theirs] = sums;
    let (ours, theirs) = (ours?, theirs?);
    ensure!(ours == theirs && ours.lines().count() == 3, "the builds differ:\n{ours}{theirs}");
    print!("{ours}");
    Ok(fs::remove_dir_all(dir)?)
}

/// The page, in a machine.
fn machine(emulator: &Emulator, kernel: &Kernel, packages: &Packages) -> Result<()> {
    let put = |root: &Path| {
        for file in [&packages.muster, &packages.sysv, &packages.sums] {
            image::copy(file, &root.join("root").join(file.file_name().context("a file has a name")?))?;
        }
        Ok(())
    };
    let (disk, initramfs) = image::disk_with(kernel, put)?;
    let boot = || {
        let mut machine = emulator.boot(&vm::debian_parts(&initramfs, &disk))?;
        vm::log_in(&mut machine, 0, "root", "# ")?;
        Ok(machine)
    };
    follow(&fs::read_to_string(paths::workspace().join("docs/install.md"))?, boot)
}

/// Types the commands of a page's `console` blocks, and holds the answers against what the page says.
fn follow(page: &str, boot: impl Fn() -> Result<Machine>) -> Result<()> {
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("console\n"));
    let lines: Vec<&str> = blocks.flat_map(str::lines).collect();
    ensure!(lines.len() > 20, "the page has lost its commands");
    let mut machine = boot()?;
    let mut rest = lines.as_slice();
    while let Some((command, after)) = rest.split_first() {
        let command = command.strip_prefix("# ").with_context(|| format!("no command: {command}"))?;
        let (answer, next) =
            after.split_at(after.iter().position(|line| line.starts_with("# ")).unwrap_or(after.len()));
        rest = next;
        if ["reboot", "poweroff"].contains(&command) {
            vm::end_by(&mut machine, command)?;
            if command == "reboot" {
                machine = boot()?;
            }
        } else {
            vm::ask(&mut machine, &[(command, answer)])?;
        }
    }
    Ok(())
}

const FIRMWARE: &str = "/usr/share/ovmf/OVMF.fd";

/// The disk image on a disk of twice its size, started by firmware.
fn grows(emulator: &Emulator, packages: &Packages) -> Result<()> {
    let made = disk::make(packages, &mut Steps::uncounted())?;
    let disk = copy_of(&made.image)?;
    image::run(Command::new("truncate").args(["-s", "4G"]).arg(&disk))?;
    let mut machine = emulator.boot_firmware(Path::new(FIRMWARE), &disk, "1024")?;
    vm::expect(&mut machine, 0, "login: ")?;
    let from = machine.console().len();
    machine.type_line("root")?;
    vm::expect(&mut machine, from, "# ")?;
    vm::ask(
        &mut machine,
        &[
            (
                "readlink /proc/1/exe; systemctl --failed --no-legend; echo it-is-''$(systemctl is-system-running --wait)",
                &["/usr/lib/muster/muster", "it-is-running"],
            ),
            ("test $(df --output=size -BM / | tr -dc 0-9) -gt 3700 && echo it-''grew", &["it-grew"]),
            (
                "systemctl is-active systemd-growfs-root systemd-networkd; ls -s /etc/machine-id",
                &["active\nactive\n", "4 /etc/machine-id"],
            ),
        ],
    )?;
    vm::end_by(&mut machine, "poweroff")
}

fn copy_of(disk: &Path) -> Result<PathBuf> {
    let copy = dist::scratch("grown")?.join("disk.raw");
    image::run(Command::new("cp").arg("--sparse=always").arg(disk).arg(&copy))?;
    Ok(copy)
}
