//! `cargo xtask image`: what is booted elsewhere, with the packages in it: a container image, a disk, an initramfs.

use crate::dist::{self, Steps};
use crate::package::{self, Packages, Programs};
use crate::{disk, oci};
use anyhow::{Result, bail};
use muster_tests::{cpio, image};
use std::path::PathBuf;

/// Makes the images of these names, or all; prints them with their sizes.
pub fn run(names: &[&str]) -> Result<i32> {
    let names = if names.is_empty() { &["oci", "disk", "initramfs"] } else { names };
    let mut all = 1 + package::STEPS;
    for name in names {
        all += match *name {
            "oci" => oci::STEPS,
            "disk" => disk::STEPS,
            "initramfs" => 1,
            _ => bail!("no image {name}: oci, disk, initramfs"),
        };
    }
    let mut steps = Steps::of(all);
    steps.next("building the programs (some minutes)");
    let programs = package::build()?;
    let packages = package::make(&programs, &dist::dir(), &mut steps)?;
    let mut made = Vec::new();
    for name in names {
        made.extend(one(name, &programs, &packages, &mut steps)?);
    }
    made.iter().try_for_each(|path| dist::show(path))?;
    Ok(0)
}

fn one(name: &str, programs: &Programs, packages: &Packages, steps: &mut Steps) -> Result<Vec<PathBuf>> {
    match name {
        "oci" => Ok(vec![oci::make(&packages.muster, steps)?]),
        "disk" => {
            let disk = disk::make(packages, steps)?;
            let [kernel, initrd] = disk.kernel;
            Ok(vec![disk.image, kernel, initrd])
        }
        _ => initramfs(programs, steps),
    }
}

/// The small image, as a kernel unpacks it.
fn initramfs(programs: &Programs, steps: &mut Steps) -> Result<Vec<PathBuf>> {
    steps.next("the initramfs of the small image");
    image::build(&["muster-demo"])?;
    let archive = dist::dir().join("muster-initramfs.cpio");
    cpio::write(&image::small_of(programs)?, &archive)?;
    Ok(vec![dist::gzip(&archive)?])
}
