//! From one boot to the next while the kernel runs on: a soft reboot (systemd-soft-reboot.service(8)), or out of an initrd
//! to the root file system (systemctl(1), `switch-root`).
//!
//! What must stay true: /run, /proc, /sys and /dev are the same mounts before and after, so that every socket and every
//! cgroup stays where others look for it; nobody's child is reaped here, so that the next manager hears how each ended.

use crate::{finish, stage};
use muster_manager::anew::Anew;
use muster_runtime::Runtime;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What goes along.
const KEPT: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
/// Where the next root of a soft reboot is.
const NEXT_ROOT: &str = "/run/nextroot";
/// Who is executed where the other root has no muster.
const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];
/// Magic numbers of file systems in memory (statfs(2)): ramfs, tmpfs.
const IN_MEMORY: [i64; 2] = [0x8584_58f6, 0x0102_1994];

/// Leaves for `root` and executes `init` there. Comes back only where that failed, with the reason.
pub fn leave(runtime: &mut Runtime, why: Anew, root: &str, init: &str) -> String {
    let program = crate::program();
    let root = match (root, why) {
        ("", Anew::SoftReboot) => Path::new(NEXT_ROOT).is_dir().then_some(NEXT_ROOT),
        ("", Anew::SwitchRoot) => return "There is no root directory to go to.".to_owned(),
        (root, Anew::SoftReboot) => Path::new(root).is_dir().then_some(root),
        (root, Anew::SwitchRoot) => Some(root),
    };
    let patience = if why == Anew::SoftReboot { finish::SHORT } else { finish::PATIENCE };
    finish::end_all_but(patience, |pid| runtime.survives(pid) || is_storage(pid));
    if let Some(Err(error)) = root.map(change_root) {
        return format!("The root directory could not be changed: {error}");
    }
    let same = init.is_empty() || same_file(init, &program);
    if same && Path::new(&program).exists() {
        return runtime.execute_anew(why).to_string();
    }
    execute_any(init)
}

/// Executes another init, which knows nothing of us.
fn execute_any(init: &str) -> String {
    muster_sys::reset_signals(&[]);
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    let mut error = "no init was found".to_owned();
    for path in std::iter::once(init).filter(|init| !init.is_empty()).chain(INITS) {
        if let Ok(path) = CString::new(path) {
            let Err(errno) = nix::unistd::execv(&path, &[&path]);
            error = format!("{path:?}: {errno}");
        }
    }
    error
}

fn same_file(one: &str, other: &str) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// A program that the root file system itself needs says so by an `@` before its name.
fn is_storage(pid: u32) -> bool {
    let owned = fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == 0);
    owned && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.first() == Some(&b'@'))
}

/// Makes a directory the root, with [`KEPT`] in it. Of the old root nothing is left where it lies in memory.
fn change_root(new: &str) -> Result<(), String> {
    let what = |what: &str| {
        let what = what.to_owned();
        move |errno: nix::errno::Errno| format!("{what}: {errno}")
    };
    let none = None::<&str>;
    let new = fs::canonicalize(new).map_err(|error| format!("{new}: {error}"))?;
    // The kernel moves nothing that is shared, and changes the root to mount points only.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(what("private mounts"))?;
    mount(Some(&new), &new, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).map_err(what("the new root"))?;
    for place in KEPT {
        let target = new.join(place.trim_start_matches('/'));
        let _ = fs::create_dir_all(&target);
        // What the new root lies below can only be there twice.
        mount(Some(place), &target, none, MsFlags::MS_MOVE, none)
            .or_else(|_| mount(Some(place), &target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none))
            .map_err(what(place))?;
    }
    let old = fs::File::open("/").map_err(|error| error.to_string())?;
    nix::unistd::chdir(&new).map_err(what("the new root"))?;
    if nix::unistd::pivot_root(".", ".").is_ok() {
        clear(&old);
        let _ = umount2(".", MntFlags::MNT_DETACH);
    } else {
        // The root that the kernel unpacks an initramfs to is moved by nobody.
        mount(Some("."), "/", none, MsFlags::MS_MOVE, none).map_err(what("moving the new root"))?;
        nix::unistd::chroot(".").map_err(what("chroot"))?;
        clear(&old);
    }
    let _ = nix::unistd::chdir("/");
    if !stage::in_container() {
        let _ = stage::share_mounts();
    }
    // It came along with /run.
    for _ in 0..16 {
        if umount2(NEXT_ROOT, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_err() {
            break;
        }
    }
    Ok(())
}

/// Removes what an initramfs holds: nobody sees it any more, and it is memory. What is mounted there stays.
fn clear(old: &fs::File) {
    let root = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(old));
    let is_initramfs = nix::sys::statfs::fstatfs(old)
        .is_ok_and(|system| IN_MEMORY.contains(&system.filesystem_type().0))
        && Path::new(&format!("{root}{}", stage::INITRD)).exists();
    let Ok(device) = old.metadata().map(|metadata| metadata.dev()) else { return };
    if !is_initramfs {
        return;
    }
    // Directories are seen twice: before what is in them, and after.
    let mut left: Vec<(PathBuf, bool)> = vec![(format!("{root}/").into(), false)];
    while let Some((directory, emptied)) = left.pop() {
        if emptied {
            let _ = fs::remove_dir(&directory);
            continue;
        }
        left.push((directory.clone(), true));
        for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            match (metadata.is_dir(), metadata.dev() == device) {
                (true, true) => left.push((entry.path(), false)),
                (true, false) => {}
                (false, _) => drop(fs::remove_file(entry.path())),
            }
        }
    }
}
