//! What others read about a unit below /run: journald and sd-login which run it is and how its log is kept, its processes
//! their credentials.

use crate::turn::Runtime;
use muster_manager::effect::Level;
use muster_unit::{ExecSection, UnitName};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

const BASE: &str = "/run/systemd/units";
/// Where journald looks for patterns (systemd.exec(5), `LogFilterPatterns=`).
const PATTERNS: &std::ffi::CStr = c"user.journald_log_filter_patterns";

impl Runtime {
    /// Says which run of a unit it is, or, without an id, that there is none.
    pub(crate) fn publish(
        &mut self,
        unit: &UnitName,
        invocation_id: Option<&str>,
        log: Option<&ExecSection>,
    ) {
        let link = |what: &str, target: Option<String>| {
            let path = format!("{BASE}/{what}:{unit}");
            match target {
                Some(target) => drop(crate::files::replace_link(&target, &path)),
                None => drop(std::fs::remove_file(&path)),
            }
        };
        link("invocation", invocation_id.map(str::to_owned));
        let Some(log) = log else { return };
        let runs = invocation_id.is_some();
        let level = log.log_level_max().map(|level| (level as u8).to_string());
        let interval = log.log_rate_limit_interval_sec().map(|span| span.0.to_string());
        let burst = log.log_rate_limit_burst().map(|burst| burst.to_string());
        let links = [
            ("log-level-max", level),
            ("log-rate-limit-interval", interval),
            ("log-rate-limit-burst", burst),
        ];
        for (what, target) in links.into_iter().filter(|(_, target)| target.is_some()) {
            link(what, target.filter(|_| runs));
        }
        if !log.log_extra_fields().is_empty() {
            let path = format!("{BASE}/log-extra-fields:{unit}");
            if runs { write_fields(log, &path) } else { drop(std::fs::remove_file(path)) }
        }
        if runs && !log.log_filter_patterns().is_empty() {
            self.set_patterns(unit, log);
        }
    }

    /// Patterns of what is kept, then, after a byte that no text has, of what is not.
    fn set_patterns(&mut self, unit: &UnitName, log: &ExecSection) {
        let state = self.manager.state();
        let cgroup = state.names.get(unit).and_then(|id| state.units.get(id)?.cgroup.clone());
        let Some(cgroup) = cgroup else { return };
        let (mut kept, mut left_out) = (Vec::new(), Vec::new());
        for pattern in log.log_filter_patterns() {
            let list = if pattern.keep { &mut kept } else { &mut left_out };
            list.push(pattern.text.as_bytes());
        }
        let mut value = kept.join(&0);
        value.push(0xff);
        value.extend(left_out.join(&0));
        if let Err(error) = self.cgroups.set_attribute(&cgroup, PATTERNS, &value) {
            self.note(Level::Warning, &format!("{unit}: LogFilterPatterns= does not hold: {error}"));
        }
    }
}

impl Runtime {
    /// Says at the cgroup of a run which run it is: the journal looks there. Where extended attributes cannot be had nobody
    /// looks for them.
    pub(crate) fn mark_run(&mut self, path: &str, invocation_id: &str) {
        if invocation_id.is_empty() {
            return;
        }
        for name in [c"trusted.invocation_id", c"user.invocation_id"] {
            let _ = self.cgroups.set_attribute(path, name, invocation_id.as_bytes());
        }
    }
}

/// Where systemd-shutdown(8), and our own end, look for the argument of a reboot; `systemctl reboot` writes it too.
const REBOOT_ARGUMENT: &str = "/run/systemd/reboot-param";

impl Runtime {
    /// Leaves the argument of the next reboot.
    pub(crate) fn leave_reboot_argument(&mut self, argument: String) {
        if let Err(error) = crate::files::write_all(&[(REBOOT_ARGUMENT.to_owned(), format!("{argument}\n"))])
        {
            self.note(Level::Warning, &format!("RebootArgument={argument} does not hold: {error:?}"));
        }
    }
}

/// Each field with its length before it.
fn write_fields(log: &ExecSection, path: &str) {
    let mut data = Vec::new();
    for field in log.log_extra_fields() {
        data.extend(u64::try_from(field.len()).unwrap_or(0).to_le_bytes());
        data.extend(field.as_bytes());
    }
    let beside = format!("{path}.new");
    if std::fs::write(&beside, &data).is_ok() {
        let _ = std::fs::rename(&beside, path);
    }
}

/// Takes the credentials of a run away.
pub fn remove_credentials(unit: &UnitName) {
    let path = format!("/run/credentials/{unit}");
    // What is mounted there may be said twice, and whoever looks into it does not keep it.
    for _ in 0..4 {
        match umount2(path.as_str(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    if std::fs::remove_dir(&path).is_err() {
        remove_files(&path);
        let _ = std::fs::remove_dir(&path);
    }
}

/// Where a container gives no right to mount, they are plain files, 1,024 at most.
fn remove_files(path: &str) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten().take(1_024) {
        let _ = std::fs::remove_file(entry.path());
    }
}
