//! The three clocks, read in one place.
//!
//! Where the machine's clock is slow to read (a virtual machine without a usable TSC) each reading costs a system call and an
//! access to a device. So what asks often asks for the monotonic clock alone, and the distance of the others from it is kept for
//! a moment: it changes only when a clock is set, or the machine sleeps. And who asks before anything was done since the last
//! reading gets that: the loop tells ([`time_passed`]) when it waited, or worked on an event.

use muster_manager::event::Now;
use nix::time::{ClockId, clock_gettime};
use std::cell::Cell;

/// For so long the distance of the other clocks is taken for what it was, in microseconds.
const KEPT_USEC: u64 = 100_000;
/// The coarse clocks stand still for a millisecond or more: two readings are alike at the second try.
const TRIES: usize = 3;

/// How far the other clocks are ahead of the monotonic one.
#[derive(Clone, Copy)]
struct Ahead {
    /// Wrapped around where that clock is behind.
    realtime_usec: u64,
    boottime_usec: u64,
    until_usec: u64,
}

thread_local! {
    static AHEAD: Cell<Option<Ahead>> = const { Cell::new(None) };
    /// The last reading of the monotonic clock, while it will do.
    static RECENT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The clocks now, in microseconds.
pub fn now() -> Now {
    let monotonic_usec = recent_usec();
    let kept = AHEAD.get().filter(|ahead| monotonic_usec < ahead.until_usec);
    let ahead = kept.unwrap_or_else(look);
    Now {
        monotonic_usec,
        realtime_usec: monotonic_usec.wrapping_add(ahead.realtime_usec),
        boottime_usec: monotonic_usec.saturating_add(ahead.boottime_usec),
    }
}

/// A clock may have been set, or the machine may have slept.
pub fn look_anew() {
    AHEAD.set(None);
}

fn look() -> Ahead {
    let monotonic_usec = monotonic_usec();
    let boottime_usec = read(ClockId::CLOCK_BOOTTIME).saturating_sub(monotonic_usec);
    let until_usec = monotonic_usec.saturating_add(KEPT_USEC);
    let ahead = Ahead { realtime_usec: realtime_ahead(), boottime_usec, until_usec };
    AHEAD.set(Some(ahead));
    ahead
}

/// The coarse clocks are of the same moment, and in memory.
fn realtime_ahead() -> u64 {
    let coarse = || read(ClockId::CLOCK_MONOTONIC_COARSE);
    let mut monotonic_usec = coarse();
    for _ in 0..TRIES {
        let realtime_usec = read(ClockId::CLOCK_REALTIME_COARSE);
        let again = coarse();
        if again == monotonic_usec {
            return realtime_usec.wrapping_sub(monotonic_usec);
        }
        monotonic_usec = again;
    }
    read(ClockId::CLOCK_REALTIME).wrapping_sub(read(ClockId::CLOCK_MONOTONIC))
}

/// The monotonic clock now, in microseconds.
pub fn monotonic_usec() -> u64 {
    let now = read(ClockId::CLOCK_MONOTONIC);
    RECENT.set(Some(now));
    now
}

/// The monotonic clock as it was last read, if nothing was done since.
pub fn recent_usec() -> u64 {
    RECENT.get().unwrap_or_else(monotonic_usec)
}

/// Something was done that takes time: the last reading is over.
pub fn time_passed() {
    RECENT.set(None);
}

/// How long one kind of source may keep the loop in one turn. Whoever waits for an answer waits for one turn at most.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    until_usec: u64,
}

impl Budget {
    /// A budget of `usec` microseconds that begins now.
    pub fn new(usec: u64) -> Budget {
        Budget::beginning_at(recent_usec(), usec)
    }

    /// The same, where the moment is known.
    pub fn beginning_at(now_usec: u64, usec: u64) -> Budget {
        Budget { until_usec: now_usec.saturating_add(usec) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_keep_their_distance() {
        let near = |one: u64, other: u64| one.abs_diff(other) < 2_000_000;
        for _ in 0..3 {
            let now = now();
            assert!(near(now.realtime_usec, read(ClockId::CLOCK_REALTIME)));
            assert!(near(now.boottime_usec, read(ClockId::CLOCK_BOOTTIME)));
            assert!(near(now.monotonic_usec, monotonic_usec()));
        }
        let before = now().monotonic_usec;
        assert_eq!(recent_usec(), before);
        while monotonic_usec() == before {}
        assert!(recent_usec() > before);
        time_passed();
        assert_eq!(RECENT.get(), None);
        look_anew();
        assert!(AHEAD.get().is_none() && near(now().realtime_usec, read(ClockId::CLOCK_REALTIME)));
    }
}
