//! `cargo xtask boot --vm`: the small image as an initramfs in QEMU, under Debian's kernel.

use crate::test::Tally;
use anyhow::{Context, Result, bail};
use muster_tests::kernel::Kernel;
use muster_tests::machine::{Emulator, Machine, Parts};
use muster_tests::{cpio, image, paths};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const DEBIAN_WORDS: &str = "systemd.show_status=1";
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
    let (disk, initramfs) = image::disk(&kernel, image::MUSTER, |_| Ok(()))?;
    let (person, password) = (image::PERSON, image::PASSWORD);
    eprintln!("starting QEMU ({}); log in as root or {person}, password {password}", emulator.acceleration());
    emulator.on_terminal(&debian_parts(&initramfs, &disk))?;
    Ok(0)
}

/// What the machine is made of.
pub fn debian_parts<'a>(initramfs: &'a Path, disk: &'a Path) -> Parts<'a> {
    Parts {
        initramfs,
        memory: "1536",
        words: DEBIAN_WORDS,
        agent: None,
        disk: Some(disk),
        more: &["-device", "i6300esb"],
    }
}

/// What is typed at the shell, and what must be among the answers.
type Questions = &'static [(&'static str, &'static [&'static str])];

/// What is asked after the first login.
const QUESTIONS: Questions = &[
    (
        "systemctl --failed --plain --no-legend; echo it-is-$(systemctl is-system-running --wait)",
        &["it-is-running"],
    ),
    ("systemctl --user is-active basic.target; echo $XDG_RUNTIME_DIR", &["active\n/run/user/0\n"]),
    ("ps -eo comm= | grep pam", &["(sd-pam)"]),
    (
        "loginctl list-sessions --no-legend; cat /proc/self/cgroup",
        &[" root ", "/user.slice/user-0.slice/session-"],
    ),
    (
        "systemctl show dev-ttyS0.device -p SubState,SysFSPath",
        &["SubState=plugged", "SysFSPath=/sys/devices/"],
    ),
    (
        "systemctl show dev-vda.device -p Following,ActiveState",
        &["ActiveState=active", "Following=sys-devices-"],
    ),
    (
        "timeout 2 systemctl stop dev-ttyS2.device; systemctl list-jobs --no-legend | cat; systemctl start dev-ttyS2.device; systemctl is-active dev-ttyS2.device",
        &[" dev-ttyS2.device stop running\n", "\nactive\n"],
    ),
    (
        "systemctl show serial-getty@ttyS0 -p BindsTo,SubState",
        &["BindsTo=dev-ttyS0.device", "SubState=running"],
    ),
    (
        "for place in /proc /sys /dev /run /dev/shm /dev/pts /sys/fs/cgroup /sys/kernel/security /sys/fs/pstore /sys/fs/bpf; do findmnt -nro TARGET,FSTYPE,OPTIONS,PROPAGATION $place; done",
        &[
            "/proc proc rw,nosuid,nodev,noexec,relatime shared",
            "/sys sysfs rw,nosuid,nodev,noexec,relatime shared",
            "/dev devtmpfs rw,relatime,",
            "/run tmpfs rw,nosuid,nodev,size=",
            ",nr_inodes=819200,mode=755,inode64 shared",
            "/dev/shm tmpfs rw,nosuid,nodev,inode64 shared",
            "/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=600,ptmxmode=000 shared",
            "/sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate,memory_recursiveprot shared",
            "/sys/kernel/security securityfs rw,nosuid,nodev,noexec,relatime shared",
            "/sys/fs/pstore pstore rw,nosuid,nodev,noexec,relatime shared",
            "/sys/fs/bpf bpf rw,nosuid,nodev,noexec,relatime,mode=700 shared",
        ],
    ),
    (
        "tr '\\0' '\\n' </proc/$(systemctl show -P MainPID systemd-udevd)/environ | grep LISTEN_FD; systemctl show -p NFileDescriptorStore systemd-udevd",
        &[
            "LISTEN_FDS=2",
            "systemd-udevd-kernel.socket",
            "systemd-udevd-control.socket",
            "NFileDescriptorStore=0",
        ],
    ),
    (
        "install -d -m 700 -o person -g person ~person/.ssh; ssh-keygen -q -t ed25519 -N '' -f ~/key; install -o person -g person ~/key.pub ~person/.ssh/authorized_keys; echo made-''a-key",
        &["made-a-key"],
    ),
    (
        "ssh -o StrictHostKeyChecking=no -i ~/key person@localhost 'systemctl --user is-active basic.target; loginctl show-session $XDG_SESSION_ID -p Name -p Service -p State; cat /proc/self/cgroup'",
        &["active\n", "Name=person", "Service=sshd", "State=active", "/user.slice/user-1000.slice/session-"],
    ),
    (
        "ssh -o StrictHostKeyChecking=no -i ~/key person@localhost cat /proc/self/loginuid; mkdir -p ~/.ssh; cp ~/key.pub ~/.ssh/authorized_keys; ssh -o StrictHostKeyChecking=no -i ~/key root@localhost 'echo I am $(id -u), $(cat /proc/self/loginuid)'",
        &["1000", "I am 0, 0"],
    ),
    (
        "ssh -o StrictHostKeyChecking=no -i ~/key person@localhost 'systemctl --no-ask-password stop cron'",
        &["Interactive authentication required."],
    ),
    (
        "for i in 1 2; do systemctl daemon-reload; systemctl daemon-reexec; systemd-run -q --wait true || echo lost; done; loginctl list-sessions --no-legend; echo it-is-''$(systemctl is-system-running)",
        &[" root ", "it-is-running"],
    ),
    ("date > /root/before; sync; echo written-''now", &["written-now"]),
];

/// The kernel and the initramfs that the disk has for kexec(8).
const LOAD_KERNEL: Questions = &[(
    "kexec -l /boot/vmlinuz --initrd=/boot/initramfs --reuse-cmdline; echo loaded-$(cat /sys/kernel/kexec_loaded)",
    &["loaded-1"],
)];

/// What is asked after the reboot, which goes through an initrd.
const AFTER_REBOOT: Questions = &[
    (
        "cat /root/before; systemctl --failed; echo it-is-''$(systemctl is-system-running --wait)",
        &["20", "it-is-running"],
    ),
    (
        "for p in Begin GeneratorsFinish UnitsLoadFinish; do [ $(systemctl show -P InitRD${p#Begin}TimestampMonotonic) -gt 0 ] && echo has-''$p; done",
        &["has-Begin", "has-GeneratorsFinish", "has-UnitsLoadFinish"],
    ),
    (
        "findmnt -no SOURCE,FSTYPE /; ls -d /sysroot /etc/initrd-release /modules",
        &["/dev/vda ext4", "cannot access '/sysroot'", "cannot access '/etc/initrd-release'"],
    ),
    (
        "systemctl show carried -p MainPID,ActiveState,SubState; echo MainPID=$(cat /run/carried); cat /proc/$(cat /run/carried)/comm",
        &["ActiveState=active", "sleep\n"],
    ),
    (
        "cd /var/lib/fetched; export DEBIAN_FRONTEND=noninteractive; dpkg -i ./*.deb >/root/out 2>&1; echo memcached-is-''$(systemctl is-active memcached); echo it-is-''$(systemctl is-system-running)",
        &["memcached-is-active", "it-is-running"],
    ),
    (
        "apt-get -y -qq purge memcached >/root/out 2>&1; echo memcached-is-''$(systemctl is-active memcached); systemctl --failed --no-legend; echo it-is-''$(systemctl is-system-running)",
        &["memcached-is-inactive", "it-is-running"],
    ),
    (
        "systemctl start systemd-networkd systemd-resolved systemd-timesyncd; systemctl is-active systemd-networkd systemd-resolved systemd-timesyncd nginx cron",
        &["active\nactive\nactive\nactive\nactive\n"],
    ),
];

/// What a user who is not root is asked on the console.
const AS_PERSON: Questions = &[
    ("systemctl --user is-active basic.target; echo $XDG_RUNTIME_DIR", &["active\n/run/user/1000\n"]),
    (
        "systemd-run --user -q sh -c 'id -un > $XDG_RUNTIME_DIR/me'; until [ -s $XDG_RUNTIME_DIR/me ]; do sleep 0.1; done; cat $XDG_RUNTIME_DIR/me",
        &["person\n"],
    ),
];

/// A stock Debian from a disk: to the login prompt on its console, a login, a few questions, and power-off with a clean file
/// system. Counted as passed, failed, or skipped where the machine cannot be had.
pub fn test_debian(init: &str) -> Tally {
    let prepared = Kernel::get().and_then(|kernel| {
        let emulator = Emulator::prepare(&kernel)?;
        image::debian()?;
        image::debian_of("vm")?;
        Ok((kernel, emulator))
    });
    let (kernel, emulator) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => {
            println!("SKIP   vm/debian: {reason:#}");
            return Tally::skipped();
        }
    };
    // From here on what goes wrong is a fault of ours.
    let boots = || {
        image::build_programs()?;
        let ((disk, initramfs), initrd) =
            (image::disk(&kernel, init, |_| Ok(()))?, image::initrd(&kernel, init)?);
        converse(&emulator, &initramfs, &disk, QUESTIONS, "reboot")?;
        converse(&emulator, &initrd, &disk, AFTER_REBOOT, "poweroff")?;
        go_on_and_halt(&emulator, &initramfs, &disk)
    };
    match boots() {
        Ok(()) => {
            println!("ok     vm/debian ({})", emulator.acceleration());
            Tally::passed()
        }
        Err(error) => {
            println!("FAILED vm/debian: {error:#}");
            Tally::failed()
        }
    }
}

/// Boots, logs in, asks, and ends the machine by `end` (QEMU ends at a reboot, too); the file system is clean after it, and
/// what is run at the end was.
fn converse(
    emulator: &Emulator,
    initramfs: &Path,
    disk: &Path,
    questions: Questions,
    end: &str,
) -> Result<()> {
    let mut machine = emulator.boot(&debian_parts(initramfs, disk))?;
    log_in(&mut machine, 0, "root", "# ")?;
    ask(&mut machine, questions)?;
    let before = machine.console().len();
    machine.type_line("exit")?;
    log_in(&mut machine, before, image::PERSON, "$ ")?;
    ask(&mut machine, AS_PERSON)?;
    let before = machine.console().len();
    machine.type_line("exit")?;
    log_in(&mut machine, before, "root", "# ")?;
    end_by(&mut machine, end)?;
    // RebootWatchdogSec= is about reboots (systemd-system.conf(5)).
    let watched = if end == "reboot" { " watchdog active " } else { "" };
    let hook = format!("hook-ran-{end}{watched}");
    if !machine.console().contains(&hook) {
        bail!("the console does not show {hook:?}:\n{}", machine.console());
    }
    show_console(&format!("to {end}"), machine.console());
    is_clean(disk).with_context(|| format!("the file system after {end}"))
}

/// Prints what a console showed, line by line and without what only moves a cursor.
fn show_console(until: &str, console: &str) {
    println!("the console of vm/debian, {until}:");
    for line in console.lines() {
        let plain: String = line.chars().filter(|letter| !letter.is_control()).collect();
        println!("  | {plain}");
    }
}

fn is_clean(disk: &Path) -> Result<()> {
    image::run(Command::new("e2fsck").arg("-fn").arg(disk))
}

/// Goes on to the kernel that kexec(8) loaded, which boots the disk once more, and halts there.
fn go_on_and_halt(emulator: &Emulator, initramfs: &Path, disk: &Path) -> Result<()> {
    let mut machine = emulator.boot(&debian_parts(initramfs, disk))?;
    log_in(&mut machine, 0, "root", "# ")?;
    ask(&mut machine, LOAD_KERNEL)?;
    let before = machine.console().len();
    machine.type_line("systemctl kexec")?;
    log_in(&mut machine, before, "root", "# ")?;
    let before = machine.console().len();
    machine.type_line("systemctl halt")?;
    expect(&mut machine, before, "System halted")?;
    for hook in ["hook-ran-kexec", "hook-ran-halt"] {
        expect(&mut machine, 0, hook)?;
    }
    show_console("over kexec to halt", machine.console());
    drop(machine);
    is_clean(disk).context("the file system after a halt")
}

/// Ends the machine from its shell; QEMU ends at a reboot, too.
pub fn end_by(machine: &mut Machine, verb: &str) -> Result<()> {
    machine.type_line(&format!("systemctl {verb}"))?;
    let begun = Instant::now();
    if !machine.until(LIMIT, false, |_| false) {
        bail!("it still ran {LIMIT:?} after {verb}; console:\n{}", machine.console());
    }
    took(begun, &format!("to the end by {verb}"));
    Ok(())
}

/// Says how long something took.
fn took(begun: Instant, what: &str) {
    println!("  {:6.1} s  {what}", begun.elapsed().as_secs_f64());
}

/// Logs in at the prompt that comes after the first `from` bytes of the console.
pub fn log_in(machine: &mut Machine, from: usize, name: &str, prompt: &str) -> Result<()> {
    let begun = Instant::now();
    expect(machine, from, "login: ")?;
    took(begun, "to a login prompt");
    let (from, begun) = (machine.console().len(), Instant::now());
    machine.type_line(name)?;
    expect(machine, from, "Password: ")?;
    machine.type_line(image::PASSWORD)?;
    expect(machine, from, prompt)?;
    took(begun, &format!("to the shell of {name}"));
    Ok(())
}

/// Asks at the shell.
pub fn ask(machine: &mut Machine, questions: &[(&str, &[&str])]) -> Result<()> {
    for (number, (question, answers)) in questions.iter().enumerate() {
        let (before, begun) = (machine.console().len(), Instant::now());
        // The mark is not in the line as it is typed.
        machine.type_line(&format!("{question}; echo end-of-''{number}"))?;
        expect(machine, before, &format!("end-of-{number}"))?;
        let said = machine.console()[before..].to_string();
        took(begun, question.get(..70).unwrap_or(question));
        if let Some(missing) = answers.iter().find(|answer| !said.contains(**answer)) {
            bail!(
                "expected {missing:?} in the answer to {question}:\n{said}\nconsole:\n{}",
                machine.console()
            );
        }
    }
    Ok(())
}

/// Waits until the console has shown a text, after its first `from` bytes.
pub fn expect(machine: &mut Machine, from: usize, text: &str) -> Result<()> {
    let shown = |console: &str| console.get(from..).is_some_and(|console| console.contains(text));
    if !machine.until(LIMIT, false, shown) || !shown(machine.console()) {
        bail!("the console does not show {text:?}:\n{}", machine.console());
    }
    Ok(())
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
    let parts = Parts { initramfs, memory: "512", words, agent: None, disk: None, more: &[] };
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
