//! Every chore of the project: `cargo xtask COMMAND`.
//!
//! What must stay true: each command says what is missing and how to get it, and leaves nothing behind outside `target/`.

mod artefacts;
mod bench;
mod boot;
mod contained;
mod disk;
mod dist;
mod images;
mod man;
mod oci;
mod order;
mod package;
mod package_vm;
#[cfg(test)]
mod pages;
mod prompt;
mod sbom;
mod supply;
mod test;
mod tidy;
mod vm;

use anyhow::{Result, bail};
use muster_tests::image;
use std::path::Path;

const USAGE: &str = "cargo xtask COMMAND
  boot [--prompt]        boots the small image as a container, shows the demo's answer, exits (or gives a prompt)
  boot --image debian [--prompt]
                         boots a Debian 13 root file system as a container
  boot --vm              boots the small image in QEMU, to the demo's answer and power-off
  boot --vm --image debian
                         boots a Debian 13 from a disk in QEMU, to its login prompt
  test                   runs all tests; the last line is the count
  test --vm [--init systemd]
                         only the machine that boots from a disk; under systemd it shows what is expected
  test --artefacts       only packages and images: made, installed, booted, removed
  test --package         more of that, in a machine: docs/install.md with its restarts; the disk image, which grows
  test --reproducible    two builds of one commit in two directories, which are the same
  install --root DIR [--init]
                         installs muster below DIR, with manual pages and completions; with --init, as its /sbin/init
  man --root DIR         writes manual pages and completions below DIR
  bench [--rounds N] [--rows boot|stock|units|mounts|container|vm] [--write]
                         compares a Debian container under systemd and under muster: as it is, and with up to 50,000
                         units and 1,000 mounts; one with a single service under other inits as well; and a machine to its login;
                         --write puts the tables into docs/benchmarks.md
  sim [--seeds N] [--hours H] [--first N] [--threads N] [--twice N]
                         runs the simulator over random scenarios, and shrinks what fails; of N seeds (8) one is run again
  scenarios [--count N] [--first N]
                         runs generated scenarios under systemd and under muster, and compares
  package [--to DIR]     makes Debian packages of muster and an archive of its programs, with checksums (target/dist)
  image [oci] [disk] [initramfs]
                         makes a container image, a disk with Debian and the initramfs of the small image (target/dist)
  supply                 checks licences, versions and sources of what is linked, as deny.toml says
  order                  traces which functions PID 1 runs, and writes crates/init/functions.order for the linker
  tidy                   checks the house rules and prints the longest functions and files";

fn main() {
    muster_tests::hook();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match command(&args) {
        Ok(code) => std::process::exit(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::exit(1)
        }
    }
}

/// Carries out a command; its exit status.
fn command(args: &[&str]) -> Result<i32> {
    match args {
        ["boot", options @ ..] => boot(options),
        ["test"] => test::all(),
        ["test", test::APART] => Ok(test::apart()),
        ["test", "--artefacts"] => Ok(test::artefacts()),
        ["test", "--package"] => Ok(test::packages()),
        ["test", "--reproducible"] => Ok(test::reproducible()),
        ["test", "--vm"] => Ok(test::machines(image::MUSTER)),
        ["test", "--vm", "--init", "systemd"] => Ok(test::machines("/usr/lib/systemd/systemd")),
        ["install", "--root", dir] => install(dir, false),
        ["install", "--root", dir, "--init"] | ["install", "--init", "--root", dir] => install(dir, true),
        ["man", "--root", dir] => man::install(Path::new(dir)).map(|()| 0),
        ["bench", options @ ..] => bench(options),
        ["sim", options @ ..] => {
            test::run(&["run", "--release", "--quiet", "-p", "muster-sim", "--"], options)
        }
        ["scenarios", options @ ..] => scenarios(options),
        ["package"] => package::run(&dist::dir()),
        ["package", "--to", dir] => package::run(Path::new(dir)),
        ["image", names @ ..] => images::run(names),
        ["supply"] => supply::report(),
        ["order"] => order::run(),
        ["tidy"] => tidy::report(),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(0)
        }
        _ => bail!("not understood\n{USAGE}"),
    }
}

fn boot(options: &[&str]) -> Result<i32> {
    let prompt = options.contains(&"--prompt");
    let rest: Vec<&str> = options.iter().copied().filter(|option| *option != "--prompt").collect();
    match rest.as_slice() {
        [] | ["--image", "small"] => boot::small(prompt),
        ["--image", "debian"] => boot::debian(prompt),
        ["--vm"] => vm::show(),
        ["--vm", "--image", "debian"] | ["--image", "debian", "--vm"] => vm::debian(),
        _ => bail!("not understood\n{USAGE}"),
    }
}

fn bench(options: &[&str]) -> Result<i32> {
    let (mut rounds, mut rows, mut write) = (5, bench::Rows::All, false);
    let mut rest = options;
    while !rest.is_empty() {
        rest = match rest {
            ["--write", rest @ ..] => {
                write = true;
                rest
            }
            ["--rounds", count, rest @ ..] => {
                rounds = count.parse()?;
                rest
            }
            ["--rows", "stock", rest @ ..] => {
                rows = bench::Rows::Stock;
                rest
            }
            ["--rows", "boot", rest @ ..] => {
                rows = bench::Rows::Boot;
                rest
            }
            ["--rows", "units", rest @ ..] => {
                rows = bench::Rows::Units;
                rest
            }
            ["--rows", "mounts", rest @ ..] => {
                rows = bench::Rows::Mounts;
                rest
            }
            ["--rows", "container", rest @ ..] => {
                rows = bench::Rows::Container;
                rest
            }
            ["--rows", "vm", rest @ ..] => {
                rows = bench::Rows::Machine;
                rest
            }
            _ => bail!("not understood\n{USAGE}"),
        };
    }
    if write && rows == bench::Rows::Boot {
        bail!("these rows are on no page");
    }
    bench::run(rounds, rows, write)
}

fn scenarios(options: &[&str]) -> Result<i32> {
    let (mut first, mut count) = ("0", "300");
    let mut rest = options;
    while !rest.is_empty() {
        rest = match rest {
            ["--count", number, rest @ ..] => {
                count = number;
                rest
            }
            ["--first", number, rest @ ..] => {
                first = number;
                rest
            }
            _ => bail!("not understood\n{USAGE}"),
        };
    }
    test::run(&test::SYSTEM, &["--scenarios", first, count])
}

fn install(root: &str, init: bool) -> Result<i32> {
    image::build_programs()?;
    image::install(Path::new(root), init)?;
    for (_, path) in image::installed_files() {
        println!("{}", Path::new(root).join(path).display());
    }
    man::install(Path::new(root))?;
    if init {
        println!("{}", Path::new(root).join("sbin/init").display());
    }
    Ok(0)
}
