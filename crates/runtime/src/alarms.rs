//! A timer of the kernel for each clock but the monotonic one, which the wait of the loop itself follows.
//!
//! The one on the realtime clock tells when that clock is set (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`), so it is armed
//! always. A clock that wakes the machine needs `CAP_WAKE_ALARM`; where it cannot be had, as in containers, the same clock
//! without waking takes its place.

use muster_manager::event::{Clock, Event};
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// As late as the kernel is asked for, in seconds: the year 2200 and after.
const NEVER_SEC: i64 = 7_258_118_400;

/// The timer of one clock.
#[derive(Debug)]
pub struct Alarm {
    timer: TimerFd,
    clock: Clock,
    armed: Option<u64>,
}

impl Alarm {
    /// Makes it, not armed.
    pub fn new(clock: Clock) -> nix::Result<Alarm> {
        let (wanted, instead) = match clock {
            Clock::Monotonic => (ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_MONOTONIC),
            Clock::Realtime => (ClockId::CLOCK_REALTIME, ClockId::CLOCK_REALTIME),
            Clock::RealtimeAlarm => (ClockId::CLOCK_REALTIME_ALARM, ClockId::CLOCK_REALTIME),
            Clock::BoottimeAlarm => (ClockId::CLOCK_BOOTTIME_ALARM, ClockId::CLOCK_BOOTTIME),
        };
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(wanted, flags).or_else(|_| TimerFd::new(instead, flags))?;
        Ok(Alarm { timer, clock, armed: None })
    }

    /// Which clock it is on.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Goes off at a moment of its clock in microseconds, or not at all. What it tells is what [`Alarm::read`] would have told:
    /// a clock that was set since is told once, to whoever comes first.
    pub fn arm(&mut self, at_usec: Option<u64>) -> nix::Result<Option<Event>> {
        let at_usec = at_usec.or((self.clock == Clock::Realtime).then_some(u64::MAX));
        if at_usec == self.armed {
            return Ok(None);
        }
        let told = match at_usec.map_or_else(|| self.timer.unset(), |at| self.arm_at(at)) {
            Ok(()) => None,
            // It is armed all the same.
            Err(Errno::ECANCELED) => Some(Event::ClockSet),
            Err(error) => return Err(error),
        };
        self.armed = at_usec;
        Ok(told)
    }

    fn arm_at(&self, at_usec: u64) -> nix::Result<()> {
        let seconds = at_usec.checked_div(1_000_000).and_then(|sec| i64::try_from(sec).ok());
        let nanos = at_usec.checked_rem(1_000_000).unwrap_or(0).saturating_mul(1000);
        let seconds = seconds.unwrap_or(NEVER_SEC).min(NEVER_SEC);
        // All zeroes would disarm it.
        let moment = TimeSpec::new(seconds, i64::try_from(nanos).unwrap_or(0).max(1));
        let mut flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        if self.clock == Clock::Realtime {
            flags |= TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        }
        self.timer.set(Expiration::OneShot(moment), flags)
    }

    /// What is waited on.
    pub fn descriptor(&self) -> RawFd {
        self.timer.as_fd().as_raw_fd()
    }

    /// What it tells: that its clock was set. What is due the manager knows by itself.
    pub fn read(&mut self) -> Option<Event> {
        // Not `TimerFd::wait`, which takes a clock that was set for a moment that came.
        let read = nix::unistd::read(&self.timer, &mut [0; 8]);
        if read != Err(Errno::EAGAIN) {
            self.armed = None;
        }
        (read == Err(Errno::ECANCELED)).then_some(Event::ClockSet)
    }
}
