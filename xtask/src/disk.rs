//! `cargo xtask image disk`: a disk with a stock Debian 13, its own kernel and muster as init, for QEMU and other machines with
//! UEFI. It grows to its disk, at the first boot and at any later one: by systemd-repart and systemd-growfs, as they come.
//!
//! No loop device and no mount is needed to make it: file systems are written into the image where their partitions lie.

use crate::dist::{self, Steps};
use crate::{oci, package};
use anyhow::{Context, Result};
use muster_tests::{image, kernel, paths};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How many steps [`make`] tells of.
pub const STEPS: usize = 4;

/// Of the image, as it is before it grows.
const SIZE: &str = "2G";
/// Where the partition for the firmware begins, and how large it is: MiB.
const FIRMWARE: (u64, u64) = (1, 16);
/// Where the root begins, and its size; the partition table's copy is behind it.
const ROOT: (u64, u64) = (17, 2030);

/// What the disk is, and what a machine without UEFI is given beside it.
pub struct Disk {
    /// The image.
    pub image: PathBuf,
    /// Kernel and initrd, for a machine that is booted without firmware.
    pub kernel: [PathBuf; 2],
}

/// Makes the image with these packages in it.
pub fn make(packages: &package::Packages, steps: &mut Steps) -> Result<Disk> {
    for (program, package) in [("mke2fs", "e2fsprogs"), ("sfdisk", "fdisk"), ("mformat", "mtools")] {
        image::need_program(program, package)?;
    }
    steps.next("a Debian with its kernel (a minute)");
    let base = image::debian_of("machine")?;
    let root = dist::scratch("disk")?.join("root");
    image::run(Command::new("cp").arg("-a").arg(&base).arg(&root))?;
    steps.next("muster in it");
    set_up(&root, packages)?;
    steps.next("the partitions");
    let disk = dist::dir().join("muster-disk.raw");
    let _ = fs::remove_file(&disk);
    fs::create_dir_all(dist::dir())?;
    partition(&disk)?;
    firmware(&disk)?;
    steps.next("the root file system");
    write_root(&disk, &root)?;
    let kernel =
        [("vmlinuz", "muster-disk.vmlinuz"), ("initrd.img", "muster-disk.initrd")].map(|(name, to)| {
            let to = dist::dir().join(to);
            // The links are absolute in the root, or relative to it.
            let target = fs::read_link(root.join(name)).unwrap_or_default();
            image::copy(&root.join(target.strip_prefix("/").unwrap_or(&target)), &to).map(|()| to)
        });
    let [kernel, initrd] = kernel;
    let kernel = [kernel?, initrd?];
    fs::remove_dir_all(root)?;
    Ok(Disk { image: disk, kernel })
}

fn set_up(root: &Path, packages: &package::Packages) -> Result<()> {
    let mut dpkg = Command::new("dpkg");
    dpkg.arg("--root").arg(root).args(["--log=/dev/null", "-i"]).args([&packages.muster, &packages.sysv]);
    image::run(&mut dpkg)?;
    image::copy_tree(&paths::workspace().join("images/machine"), root)?;
    let enable =
        "systemctl -q enable systemd-networkd systemd-resolved systemd-timesyncd && passwd -q -d root";
    // It warns that there is no /proc in here, and needs none.
    let mut chroot = Command::new("chroot");
    image::run(chroot.arg(root).args(["/bin/sh", "-c", enable]).env("SYSTEMD_LOG_LEVEL", "err"))?;
    oci::clean(root)
}

/// A GPT with a partition for the firmware, and the root, by its type, as the last.
fn partition(disk: &Path) -> Result<()> {
    image::run(Command::new("truncate").args(["-s", SIZE]).arg(disk))?;
    let (boot, root) = (FIRMWARE, ROOT);
    let table = format!(
        "label: gpt\nstart={}MiB, size={}MiB, type=uefi\nstart={}MiB, size={}MiB, type={ROOT_TYPE}\n",
        boot.0, boot.1, root.0, root.1
    );
    let mut command = Command::new("sfdisk");
    let mut sfdisk =
        command.arg("--quiet").arg(disk).stdin(Stdio::piped()).spawn().context("starting sfdisk")?;
    sfdisk.stdin.take().context("sfdisk's input")?.write_all(table.as_bytes())?;
    anyhow::ensure!(sfdisk.wait()?.success(), "sfdisk failed");
    Ok(())
}

/// The type of an x86-64 root in the discoverable partitions specification.
const ROOT_TYPE: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";

/// Debian's GRUB where firmware looks for a removable disk's loader, and where that GRUB looks for its configuration.
fn firmware(disk: &Path) -> Result<()> {
    let grub = kernel::unpacked("grub-efi-amd64-bin", "grub")?;
    let program = grub.join("usr/lib/grub/x86_64-efi/monolithic/grubx64.efi");
    let configuration = paths::workspace().join("images/machine-grub.cfg");
    let place = format!("{}@@{}M", disk.display(), FIRMWARE.0);
    let sectors = (FIRMWARE.1 * 2048).to_string();
    image::run(Command::new("mformat").args(["-i", &place, "-T", &sectors, "-v", "FIRMWARE", "::"]))?;
    image::run(Command::new("mmd").args(["-i", &place, "::EFI", "::EFI/BOOT", "::EFI/debian"]))?;
    for (from, to) in [(&program, "::EFI/BOOT/BOOTX64.EFI"), (&configuration, "::EFI/debian/grub.cfg")] {
        image::run(Command::new("mcopy").args(["-i", &place]).arg(from).arg(to))?;
    }
    Ok(())
}

fn write_root(disk: &Path, root: &Path) -> Result<()> {
    let mut command = Command::new("mke2fs");
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-L",
        "muster-root",
        "-E",
        &format!("offset={}", ROOT.0 << 20),
        "-d",
    ]);
    image::run(command.arg(root).arg(disk).arg(format!("{}M", ROOT.1)))
}
