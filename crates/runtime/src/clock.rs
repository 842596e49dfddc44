//! The three clocks, read in one place.

use muster_manager::event::Now;
use nix::time::{ClockId, clock_gettime};

/// The clocks now, in microseconds.
pub fn now() -> Now {
    Now {
        monotonic_usec: read(ClockId::CLOCK_MONOTONIC),
        realtime_usec: read(ClockId::CLOCK_REALTIME),
        boottime_usec: read(ClockId::CLOCK_BOOTTIME),
    }
}

/// How long one kind of source may keep the loop in one turn. Whoever waits for an answer waits for one turn at most.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    until_usec: u64,
}

impl Budget {
    /// A budget of `usec` microseconds that begins now.
    pub fn new(usec: u64) -> Budget {
        Budget { until_usec: read(ClockId::CLOCK_MONOTONIC).saturating_add(usec) }
    }

    /// Whether it is used up. What was begun is ended all the same.
    pub fn is_spent(&self) -> bool {
        read(ClockId::CLOCK_MONOTONIC) >= self.until_usec
    }
}

fn read(clock: ClockId) -> u64 {
    let Ok(time) = clock_gettime(clock) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds.checked_div(1000).unwrap_or(0))
}
