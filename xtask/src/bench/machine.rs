//! A stock Debian from a disk in QEMU, to its login prompt: the rows of `cargo xtask bench --rows vm`.
//!
//! What must stay true: one kernel, one disk, and nothing on it differs but where /sbin/init leads; each boot begins with the disk
//! as it was made. What PID 1 took is read in the machine, the moment before the prompt is shown and at rest.

use super::{INITS, Row, Samples, table};
use crate::vm;
use anyhow::{Context, Result};
use muster_tests::kernel::Kernel;
use muster_tests::machine::{Emulator, Parts};
use muster_tests::{image, paths};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// The rows.
const ROWS: [Row; 6] = [
    ("login", "from QEMU's start to the login prompt", "s"),
    ("kernel", "of that before PID 1, from the kernel's first word", "s"),
    ("after", "of that since PID 1 began", "s"),
    ("cpu", "PID 1's CPU time from then to the prompt", "ms"),
    ("rss", "PID 1's memory at rest, logged in, RSS", "MiB"),
    ("pss", "the same, shared pages divided by those who share them", "MiB"),
];

/// A drop-in of the console's getty, which is the last before the prompt.
const NOTE: &str = "[Service]\nExecStartPre=/bin/sh -c 'cat /proc/1/schedstat /proc/uptime >/run/prompt'\n";
const NOTE_PLACE: &str = "etc/systemd/system/serial-getty@ttyS0.service.d/note.conf";

/// Prints six numbers after a mark that the line as it is typed does not hold: memory first, since asking takes some.
const ASK: &str = "systemctl is-system-running --wait; sleep 5; echo num''bers: \
    $(sed -n 's/^[RP]ss: *\\([0-9]*\\).*/\\1/p' /proc/1/smaps_rollup) $(head -n1 /run/prompt | cut -d' ' -f1) \
    $(tail -n1 /run/prompt | cut -d' ' -f1) $(systemctl show -P UserspaceTimestampMonotonic | tr -dc 0-9) \
    $(tr '\\0' '\\n' </proc/1/environ | sed -n 's/^CPU_BEFORE_INIT=//p') :e''nd";

/// Boots under each init in turn; the table, and whether it is complete.
pub fn run(rounds: usize) -> Result<(String, bool)> {
    let kernel = Kernel::get()?;
    let emulator = Emulator::prepare(&kernel)?;
    let disks = INITS.map(|init| disk(&kernel, init));
    let mut samples = [Samples::new(), Samples::new()];
    for round in 1..=rounds {
        for ((init, disk), samples) in INITS.iter().zip(&disks).zip(&mut samples) {
            eprintln!("round {round} of {rounds}: {init} ({})", emulator.acceleration());
            let measured = disk.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"));
            if let Err(error) = measured.and_then(|disk| measure(&emulator, disk, samples)) {
                eprintln!("{init}: {error:#}");
            }
        }
    }
    let complete = samples.iter().all(|samples| samples.len() == ROWS.len());
    let how = format!("Two processors, 1,536 MiB ({}). ", emulator.acceleration());
    Ok((how + &table(&ROWS, &samples, &Samples::new(), rounds), complete))
}

/// The disk under this init, and the initramfs that goes on to it.
fn disk(kernel: &Kernel, init: &str) -> Result<(PathBuf, PathBuf)> {
    let program = if init == "systemd" { "/usr/lib/systemd/systemd" } else { image::MUSTER };
    let (disk, initramfs) = image::disk(kernel, program, |root| {
        let place = root.join(NOTE_PLACE);
        place.parent().map_or(Ok(()), fs::create_dir_all)?;
        Ok(fs::write(place, NOTE)?)
    })?;
    let kept = |what: &str| paths::images().join(format!("bench-{init}.{what}"));
    let (to_disk, to_initramfs) = (kept("disk"), kept("initramfs"));
    fs::rename(disk, &to_disk)?;
    fs::rename(initramfs, &to_initramfs)?;
    Ok((to_disk, to_initramfs))
}

/// One machine's life.
fn measure(emulator: &Emulator, disk: &(PathBuf, PathBuf), samples: &mut Samples) -> Result<()> {
    let parts = Parts { more: &["-snapshot"], ..vm::debian_parts(&disk.1, &disk.0) };
    let begun = Instant::now();
    let mut machine = emulator.boot(&parts)?;
    vm::expect(&mut machine, 0, "login: ")?;
    let login = begun.elapsed().as_secs_f64();
    vm::log_in(&mut machine, 0, "root", "# ")?;
    let before = machine.console().len();
    machine.type_line(ASK)?;
    vm::expect(&mut machine, before, ":end\n")?;
    let [rss, pss, cpu, prompt, began, before_init] =
        numbers(machine.console()).context("the machine's numbers")?;
    let mut add = |key: &'static str, value: f64| samples.entry(key).or_default().push(value);
    add("login", login);
    add("kernel", began / 1e6);
    add("after", prompt - began / 1e6);
    add("cpu", (cpu - before_init) / 1e6);
    add("rss", rss / 1024.0);
    add("pss", pss / 1024.0);
    Ok(())
}

/// The six numbers after the mark.
fn numbers(console: &str) -> Option<[f64; 6]> {
    let said = console.rsplit_once("numbers: ")?.1.split(" :end").next()?;
    let numbers: Option<Vec<f64>> = said.split_whitespace().map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_after_the_last_mark() {
        let console =
            "# echo num''bers: $(x)\nrunning\nnumbers: 4096 2048 1500000 12.5 2500000 500000 :end\n# ";
        assert_eq!(numbers(console), Some([4096.0, 2048.0, 1.5e6, 12.5, 2.5e6, 5e5]));
        assert_eq!(numbers("numbers: 1 2 :end"), None);
    }
}
