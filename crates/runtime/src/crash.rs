//! When PID 1 itself fails: a panic is said where it can be read, and then the machine does what `CrashAction=`,
//! `CrashReboot=` and `CrashShell=` say (systemd-system.conf(5)).
//!
//! What must stay true: process 1 never returns from here, since the end of process 1 is the end of the machine. In a
//! container it ends, which tells the container manager. A helper, which has another number, just ends.

use muster_manager::config::{Config, CrashAction};
use nix::sys::reboot::{RebootMode, reboot};
use std::io::Write;
use std::panic::{Location, PanicHookInfo};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

/// How long it takes until a shell is there or the machine reboots, so that somebody can read why.
const DELAY: Duration = Duration::from_secs(10);

static ACTION: AtomicU8 = AtomicU8::new(CrashAction::Freeze as u8);
static SHELL: AtomicBool = AtomicBool::new(false);

/// From now on a panic of process 1 ends here.
pub fn install(in_container: bool) {
    std::panic::set_hook(Box::new(move |info| {
        say(&text(info));
        if std::process::id() == 1 {
            act(in_container);
        }
    }));
}

/// What is to be done is known beforehand: nothing is read when it is too late.
pub(crate) fn follow(config: &Config) {
    ACTION.store(config.crash_action as u8, Ordering::Relaxed);
    SHELL.store(config.crash_shell, Ordering::Relaxed);
}

fn text(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("?");
    line(message, info.location())
}

fn line(message: &str, place: Option<&Location<'_>>) -> String {
    let place = place.map_or_else(|| "an unknown place".to_owned(), Location::to_string);
    format!("muster[{}]: Panic at {place}: {}", std::process::id(), message.replace(char::is_control, " "))
}

/// To the kernel's log and to the console, as far as these are there.
fn say(text: &str) {
    for (path, begin, end) in [("/dev/kmsg", "<24>", "\n"), ("/dev/console", "\r\n", "\r\n")] {
        if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(path) {
            let _ = file.write_all(format!("{begin}{text}{end}").as_bytes());
        }
    }
}

fn act(in_container: bool) -> ! {
    if in_container {
        std::process::exit(255);
    }
    let action = ACTION.load(Ordering::Relaxed);
    if SHELL.load(Ordering::Relaxed) {
        std::thread::sleep(DELAY);
        let console = || {
            let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/console");
            file.map_or_else(|_| Stdio::null(), Stdio::from)
        };
        let shell = Command::new("/bin/sh").stdin(console()).stdout(console()).stderr(console()).spawn();
        match shell {
            Ok(_) => say("muster: A shell runs on the console; PID 1 does nothing any more."),
            Err(error) => say(&format!("muster: No shell could be started: {error}")),
        }
    }
    let mode = match action {
        action if action == CrashAction::Reboot as u8 => Some(RebootMode::RB_AUTOBOOT),
        action if action == CrashAction::Poweroff as u8 => Some(RebootMode::RB_POWER_OFF),
        _ => None,
    };
    if let Some(mode) = mode {
        std::thread::sleep(DELAY);
        nix::unistd::sync();
        let _ = reboot(mode);
    }
    say("muster: PID 1 is frozen.");
    loop {
        // Who ends is still reaped.
        let _ = nix::sys::wait::waitpid(None, None);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let text = line("index out of\nrange", Some(Location::caller()));
        assert!(
            text.contains("Panic at crates/runtime/src/crash.rs:") && text.ends_with(": index out of range")
        );
    }
}
