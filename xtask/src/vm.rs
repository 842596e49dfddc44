//! `cargo xtask boot --vm`: the small image as an initramfs in QEMU, under Debian's kernel.

use crate::test::Tally;
use anyhow::{Result, bail};
use muster_tests::kernel::Kernel;
use muster_tests::machine::{Emulator, Parts};
use muster_tests::{cpio, image, paths};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEBIAN_WORDS: &str = "root=/dev/vda rw systemd.show_status=1";
const LIMIT: Duration = Duration::from_secs(240);

/// Boots with the console on the terminal, to power-off.
pub fn show() -> Result<i32> {
    let (emulator, initramfs) = prepare()?;
    eprintln!("starting QEMU ({})", emulator.acceleration());
    run(&emulator, &initramfs, true)?;
    println!("\nthe demo answered and the machine powered off");
    Ok(0)
}

/// A stock Debian 13 from a disk, with its console on the terminal, until it is powered off.
pub fn debian() -> Result<i32> {
    let kernel = Kernel::get()?;
    let emulator = Emulator::prepare(&kernel)?;
    image::build_programs()?;
    let (disk, initramfs) = image::disk(&kernel, image::MUSTER)?;
    let (person, password) = (image::PERSON, image::PASSWORD);
    eprintln!("starting QEMU ({}); log in as root or {person}, password {password}", emulator.acceleration());
    emulator.on_terminal(&debian_parts(&initramfs, &disk))?;
    Ok(0)
}

fn debian_parts<'a>(initramfs: &'a Path, disk: &'a Path) -> Parts<'a> {
    Parts { initramfs, memory: "1024", words: DEBIAN_WORDS, agent: None, disk: Some(disk) }
}

/// The same as a test: counted as passed, failed, or skipped where QEMU or its kernel cannot be had.
pub fn test() -> Tally {
    let (emulator, initramfs) = match prepare() {
        Ok(prepared) => prepared,
        Err(reason) => {
            println!("SKIP   vm/small: {reason:#}");
            return Tally::skipped();
        }
    };
    match run(&emulator, &initramfs, false) {
        Ok(()) => {
            println!("ok     vm/small ({})", emulator.acceleration());
            Tally::passed()
        }
        Err(error) => {
            println!("FAILED vm/small: {error:#}");
            Tally::failed()
        }
    }
}

fn prepare() -> Result<(Emulator, PathBuf)> {
    let emulator = Emulator::prepare(&Kernel::get()?)?;
    image::build_programs()?;
    let initramfs = paths::images().join("small.cpio");
    cpio::write(&image::small()?, &initramfs)?;
    Ok((emulator, initramfs))
}

/// To power-off, with all on the console that a good run shows.
fn run(emulator: &Emulator, initramfs: &Path, echo: bool) -> Result<()> {
    let words = "systemd.show_status=1 systemd.unit=demo-vm.target";
    let parts = Parts { initramfs, memory: "512", words, agent: None, disk: None };
    let mut machine = emulator.boot(&parts)?;
    if !machine.until(LIMIT, echo, |_| false) {
        bail!("QEMU still ran after {LIMIT:?}; console:\n{}", machine.console());
    }
    let console = machine.console();
    let wanted = [("LISTEN_FDS=3", "the demo's answer"), ("DEMO_GREETING=hello", "the demo's environment")];
    match wanted.iter().find(|(text, _)| !console.contains(text)) {
        Some((_, what)) => bail!("the console does not show {what}; console:\n{console}"),
        None => Ok(()),
    }
}
