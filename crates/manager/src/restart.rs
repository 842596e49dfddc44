//! `Restart=`: the table of systemd.service(5), and the delay before it.

use crate::event::Exit;
use crate::state::{Service, UnitResult};
use muster_unit::{Restart, ServiceSection, Signal};

/// Whether the service starts again after this end. Stop jobs and shutdown were looked at before.
pub fn wanted(section: &ServiceSection, service: &Service) -> bool {
    let listed = |set: &muster_unit::ExitStatusSet| match service.main_status.how {
        Some(Exit::Exited(code)) => u8::try_from(code).is_ok_and(|code| set.codes.contains(&code)),
        Some(Exit::Killed(signal) | Exit::Dumped(signal)) => set.signals.contains(&Signal(signal)),
        Some(Exit::NotMade) | None => false,
    };
    if listed(section.restart_prevent_exit_status()) || service.result == UnitResult::ExecCondition {
        return false;
    }
    if listed(section.restart_force_exit_status()) {
        return true;
    }
    let result = service.result;
    match section.restart() {
        Restart::No => false,
        Restart::Always => true,
        Restart::OnSuccess => result == UnitResult::Success,
        Restart::OnFailure => result != UnitResult::Success,
        Restart::OnAbnormal => !matches!(result, UnitResult::Success | UnitResult::ExitCode),
        Restart::OnWatchdog => result == UnitResult::Watchdog,
        Restart::OnAbort => matches!(result, UnitResult::Signal | UnitResult::CoreDump),
    }
}

/// `RestartSec=`, growing to `RestartMaxDelaySec=` in `RestartSteps=` steps, geometrically, as the restarts add up.
pub fn delay_usec(base_usec: u64, max_usec: u64, steps: u32, done: u32) -> u64 {
    if steps == 0 || max_usec == u64::MAX || max_usec <= base_usec || base_usec == 0 {
        return base_usec;
    }
    if done >= steps {
        return max_usec;
    }
    let ratio = max_usec as f64 / base_usec as f64;
    let grown = base_usec as f64 * ratio.powf(f64::from(done) / f64::from(steps));
    (grown as u64).clamp(base_usec, max_usec)
}
