//! The first program of a machine that boots from a disk, in an initramfs of its own: loads the modules that the disk needs,
//! makes its file system the root, and becomes its init.
//!
//! The modules lie in [`MODULES`], named in the order of loading by the file `order` there. What must stay true: a failure is
//! said on the console and ends the machine.

use crate::agent;
use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::time::{ClockId, clock_gettime};
use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the modules are.
const MODULES: &str = "/modules";
/// The disk, and what it holds.
const DISK: (&str, &str) = ("/dev/vda", "ext4");
/// How long the disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);

/// Becomes the disk's init.
pub fn boot() -> Result<()> {
    mount_at("devtmpfs", "/dev", "devtmpfs")?;
    let order = fs::read_to_string(format!("{MODULES}/order"))?;
    let paths: Vec<String> = order.split_whitespace().map(|name| format!("{MODULES}/{name}")).collect();
    agent::load_modules(&paths.iter().map(String::as_str).collect::<Vec<_>>())?;
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(DISK.0).exists() {
        if Instant::now() > deadline {
            bail!("{} does not appear", DISK.0);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    mount_at(DISK.0, "/root", DISK.1)?;
    move_mount("/dev", "/root/dev")?;
    std::env::set_current_dir("/root")?;
    move_mount(".", "/")?;
    nix::unistd::chroot(".")?;
    std::env::set_current_dir("/")?;
    let init = c"/sbin/init";
    let environment = [c"HOME=/".to_owned(), c"TERM=linux".to_owned(), so_far()?];
    nix::unistd::execve(init, &[init], &environment).context("executing /sbin/init")?;
    Ok(())
}

/// The CPU time that process 1 has had already: the kernel's own boot is in it.
fn so_far() -> Result<CString> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?);
    Ok(CString::new(format!("CPU_BEFORE_INIT={}", time.as_nanos()))?)
}

fn mount_at(what: &str, place: &str, kind: &str) -> Result<()> {
    fs::create_dir_all(place)?;
    mount(Some(what), place, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting {what}"))
}

fn move_mount(from: &str, to: &str) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .with_context(|| format!("moving {from}"))
}
