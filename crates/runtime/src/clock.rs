//! The three clocks, read in one place.

use muster_manager::event::Now;
use nix::time::{ClockId, clock_gettime};

/// The clocks now, in microseconds.
pub fn now() -> Now {
    Now {
        monotonic_usec: monotonic_usec(),
        realtime_usec: read(ClockId::CLOCK_REALTIME),
        boottime_usec: read(ClockId::CLOCK_BOOTTIME),
    }
}

/// The monotonic clock now, in microseconds. Where the machine's clock is slow to read (a virtual machine without a usable TSC)
/// each of the three costs a system call, and most who ask need this one alone.
pub fn monotonic_usec() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// How long one kind of source may keep the loop in one turn. Whoever waits for an answer waits for one turn at most.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    until_usec: u64,
}

impl Budget {
    /// A budget of `usec` microseconds that begins now.
    pub fn new(usec: u64) -> Budget {
        Budget { until_usec: monotonic_usec().saturating_add(usec) }
    }

    /// Whether it is used up. What was begun is ended all the same.
    pub fn is_spent(&self) -> bool {
        monotonic_usec() >= self.until_usec
    }
}

fn read(clock: ClockId) -> u64 {
    let Ok(time) = clock_gettime(clock) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds.checked_div(1000).unwrap_or(0))
}
