//! Timers (systemd.timer(5)).
//!
//! | state | start | time is up | its unit ends | the clock was set | stop |
//! |---|---|---|---|---|---|
//! | dead | waiting | – | – | – | – |
//! | waiting | – | running | – | – | dead |
//! | waiting (OnClockChange=) | – | running | – | running | dead |
//! | waiting (OnUnitInactiveSec=) | – | running | – | – | dead |
//! | running | – | – | elapsed | – | dead |
//! | running (OnUnitInactiveSec=) | – | – | waiting | – | dead |
//! | elapsed | – | – | – | – | dead |
//!
//! Monotonic moments are on the monotonic clock, with WakeSystem= on the boottime clock; calendar moments on the realtime
//! clock. A reload or a re-execution keeps them as they are: none fires again and none is put off, unless the timer itself
//! was changed. Random delays are drawn when a timer begins to wait, and kept until it fires.

use crate::effect::Effect;
use crate::event::{Clock, Now};
use crate::jobs::Started;
use crate::kind::{TypeState, Verbs};
use crate::manager::Manager;
use crate::state::{ActiveState, Stamp, Unit, UnitResult, words};
use muster_graph::{Dependency, JobMode, JobResult, JobType, UnitId};
use muster_unit::{Body, LoadState, TimeZone, TimerSection, UnitName};
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};

words! {
    /// `SubState` of a timer.
    TimerSub {
        Dead = "dead", Waiting = "waiting", Running = "running", Elapsed = "elapsed", Failed = "failed",
    }
}

/// A timer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timer {
    /// Where it is in its life.
    pub sub: TimerSub,
    /// Result of the last run.
    pub result: UnitResult,
    /// The next moment of each monotonic entry, in the order of [`monotonic_entries`], in microseconds.
    pub monotonic_each: Vec<Option<u64>>,
    /// The next moment of each calendar event.
    pub calendar_each: Vec<Option<u64>>,
    /// The next moment, delays included: on the monotonic clock, or on boottime with `WakeSystem=`.
    pub next_monotonic_usec: Option<u64>,
    /// The next moment on the realtime clock, delays included.
    pub next_realtime_usec: Option<u64>,
    /// When it last fired.
    pub last_trigger: Stamp,
    /// The random number that delays follow from.
    pub drawn: u64,
    /// It was started and has not looked for its moments yet: moments since boot that passed count.
    pub fresh: bool,
    /// Its stamp file is being read.
    pub reads_stamp: bool,
    /// What its moments were found by; a reload that changes it makes the timer look again.
    pub planned_by: u64,
}

impl TypeState for Timer {
    fn active_state(&self, _: &Unit) -> ActiveState {
        match self.sub {
            TimerSub::Dead => ActiveState::Inactive,
            TimerSub::Failed => ActiveState::Failed,
            TimerSub::Waiting | TimerSub::Running | TimerSub::Elapsed => ActiveState::Active,
        }
    }

    fn sub_state(&self, _: &Unit) -> &'static str {
        self.sub.as_str()
    }

    fn result(&self) -> UnitResult {
        self.result
    }

    fn reset_failed(&mut self, failed: bool) {
        if failed {
            (self.sub, self.result) = (TimerSub::Dead, UnitResult::Success);
        }
    }
}

pub(crate) const VERBS: Verbs = Verbs {
    start: Manager::timer_start,
    stop: Manager::timer_stop,
    deadline: |manager, unit| manager.timer_deadline(unit, Clock::Monotonic),
    deadline_on: Manager::timer_deadline,
    due: Manager::timer_due,
    triggered_changed: Manager::timer_triggered_changed,
    reloaded: Manager::timer_reloaded,
    ..Verbs::NOTHING
};

/// What a monotonic entry counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// `OnActiveSec=`.
    Active,
    /// `OnBootSec=`.
    Boot,
    /// `OnStartupSec=`.
    Startup,
    /// `OnUnitActiveSec=`.
    UnitActive,
    /// `OnUnitInactiveSec=`.
    UnitInactive,
}

impl Base {
    /// The word on D-Bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Base::Active => "OnActiveUSec",
            Base::Boot => "OnBootUSec",
            Base::Startup => "OnStartupUSec",
            Base::UnitActive => "OnUnitActiveUSec",
            Base::UnitInactive => "OnUnitInactiveUSec",
        }
    }
}

/// The monotonic entries of a timer: base and span in microseconds.
pub fn monotonic_entries(section: &TimerSection) -> Vec<(Base, u64)> {
    let bases = [
        (Base::Active, section.on_active_sec()),
        (Base::Boot, section.on_boot_sec()),
        (Base::Startup, section.on_startup_sec()),
        (Base::UnitActive, section.on_unit_active_sec()),
        (Base::UnitInactive, section.on_unit_inactive_sec()),
    ];
    bases.into_iter().flat_map(|(base, spans)| spans.iter().map(move |span| (base, span.0))).collect()
}

/// A time zone as it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Zone {
    /// It is being read.
    Asked,
    /// The content of its file; nothing where there is none, which means UTC.
    Read(Option<Vec<u8>>),
}

impl Zone {
    fn value(&self) -> Option<TimeZone> {
        match self {
            Zone::Asked => None,
            Zone::Read(bytes) => {
                let zone = bytes.as_deref().and_then(|bytes| TimeZone::tzif("", bytes).ok());
                Some(zone.unwrap_or(TimeZone::UTC))
            }
        }
    }
}

/// When moments of a timer come.
#[derive(Default)]
struct Plan {
    monotonic: Vec<Option<u64>>,
    calendar: Vec<Option<u64>>,
    /// Zones that are not known yet.
    zones: Vec<String>,
}

impl Manager {
    fn timer(&self, id: UnitId) -> Option<&Timer> {
        Timer::of(&self.state.units.get(&id)?.kind)
    }

    fn timer_mut(&mut self, id: UnitId) -> Option<&mut Timer> {
        Timer::of_mut(&mut self.state.units.edit(&id)?.kind)
    }

    fn timer_section(&self, id: UnitId) -> Option<&TimerSection> {
        match &self.state.units.get(&id)?.file.body {
            Body::Timer(section) => Some(section),
            _ => None,
        }
    }

    /// The unit that a timer or path starts.
    pub(crate) fn triggered_unit(&self, id: UnitId) -> Option<&Unit> {
        self.state.units.get(&self.state.graph.of(id, Dependency::Triggers).next()?).map(Box::as_ref)
    }

    fn set_timer_sub(&mut self, id: UnitId, sub: TimerSub) {
        let follows = self.timer_section(id).is_some_and(|section| {
            section.on_clock_change() || section.on_timezone_change() || !section.on_calendar().is_empty()
        });
        if follows && !matches!(sub, TimerSub::Dead | TimerSub::Failed) {
            self.state.clock_followers.insert(id);
        } else {
            self.state.clock_followers.remove(&id);
        }
        self.change_state(id, |kind| {
            if let Some(timer) = Timer::of_mut(kind) {
                timer.sub = sub;
                if sub != TimerSub::Waiting {
                    (timer.next_monotonic_usec, timer.next_realtime_usec) = (None, None);
                }
            }
        });
    }

    fn timer_start(&mut self, id: UnitId) -> Started {
        if self.triggered_unit(id).is_none_or(|unit| unit.file.load_state != LoadState::Loaded) {
            let text = format!("{}: Refusing to start, unit to trigger not loaded.", self.unit_name(id));
            self.log(crate::effect::Level::Error, Some(id), text);
            return Started::Ended(JobResult::Failed);
        }
        if !self.start_is_allowed(id) {
            self.timer_fail(id, UnitResult::StartLimitHit);
            return Started::Ended(JobResult::Failed);
        }
        self.prepare_run(id);
        let drawn = self.random();
        let persistent = self.timer_section(id).is_some_and(|section| section.persistent());
        if let Some(timer) = self.timer_mut(id) {
            *timer = Timer { drawn, fresh: true, reads_stamp: persistent, ..Timer::default() };
        }
        self.set_timer_sub(id, TimerSub::Waiting);
        if persistent {
            let unit = self.name_of(id);
            self.effects.push_back(Effect::Stamp { path: stamp_path(&unit), unit, set_usec: None });
        } else {
            self.timer_wait(id);
        }
        Started::Working
    }

    fn timer_stop(&mut self, id: UnitId) -> Started {
        self.set_timer_sub(id, TimerSub::Dead);
        Started::Working
    }

    fn timer_fail(&mut self, id: UnitId, result: UnitResult) {
        if let Some(timer) = self.timer_mut(id) {
            timer.result = result;
        }
        self.set_timer_sub(id, TimerSub::Failed);
    }

    /// What the stamp file of a persistent timer says: when it last fired, in an earlier boot perhaps.
    pub(crate) fn stamp_read(&mut self, unit: &UnitName, at_usec: Option<u64>) {
        let Some(&id) = self.state.names.get(unit) else { return };
        let now = self.now.realtime_usec;
        let Some(timer) = self.timer_mut(id).filter(|timer| timer.reads_stamp) else { return };
        timer.reads_stamp = false;
        match at_usec {
            // A stamp from the future is that of a clock that was wrong.
            Some(at) => timer.last_trigger.realtime_usec = at.min(now),
            None => self.write_stamp(id),
        }
        if self.timer(id).is_some_and(|timer| timer.sub == TimerSub::Waiting) {
            self.timer_wait(id);
        }
    }

    fn write_stamp(&mut self, id: UnitId) {
        let unit = self.name_of(id);
        let set_usec = Some(self.now.realtime_usec);
        self.effects.push_back(Effect::Stamp { path: stamp_path(&unit), unit, set_usec });
    }

    /// Looks for the next moment, and waits for it.
    fn timer_wait(&mut self, id: UnitId) {
        let Some(plan) = self.timer_plan(id) else { return };
        let waits_for_zone = !plan.zones.is_empty();
        for zone in plan.zones {
            if self.state.zones.insert(zone.clone(), Zone::Asked).is_none() {
                self.effects.push_back(Effect::ReadZone { name: zone });
            }
        }
        let first = |list: &[Option<u64>]| list.iter().flatten().min().copied();
        let (monotonic, realtime) = (first(&plan.monotonic), first(&plan.calendar));
        let planned_by = self.timer_section(id).map_or(0, |section| hash_of(&format!("{section:?}")));
        let fixed = self.fixed_random(id);
        let delay = self.timer_section(id).map_or(0, |section| {
            let drawn = self.timer(id).map_or(0, |timer| timer.drawn);
            let number = if section.fixed_random_delay() { fixed } else { drawn };
            within(number, section.randomized_delay_sec().map_or(0, |span| span.0))
        });
        let Some(timer) = self.timer_mut(id) else { return };
        (timer.monotonic_each, timer.calendar_each) = (plan.monotonic, plan.calendar);
        timer.planned_by = planned_by;
        timer.fresh &= waits_for_zone;
        timer.next_monotonic_usec = monotonic.map(|at| at.saturating_add(delay));
        timer.next_realtime_usec = realtime.map(|at| at.saturating_add(delay));
        let elapses = monotonic.is_some() || realtime.is_some() || waits_for_zone;
        let section = self.timer_section(id);
        let listens =
            section.is_some_and(|section| section.on_clock_change() || section.on_timezone_change());
        if elapses || listens {
            if self.timer(id).is_some_and(|timer| timer.sub != TimerSub::Waiting) {
                self.set_timer_sub(id, TimerSub::Waiting);
            }
            self.touch(id);
        } else {
            self.timer_elapsed(id);
        }
    }

    /// Nothing comes any more.
    fn timer_elapsed(&mut self, id: UnitId) {
        let remains = self.timer_section(id).is_none_or(|section| section.remain_after_elapse());
        let unit_is_up = self.triggered_unit(id).is_some_and(|unit| !is_down(unit.active_state()));
        self.set_timer_sub(id, if remains || unit_is_up { TimerSub::Elapsed } else { TimerSub::Dead });
    }

    fn timer_plan(&self, id: UnitId) -> Option<Plan> {
        let (unit, section) = (self.state.units.get(&id)?, self.timer_section(id)?);
        let timer = Timer::of(&unit.kind)?;
        let mut plan = Plan::default();
        for (base, span) in monotonic_entries(section) {
            plan.monotonic.push(self.monotonic_moment(unit, timer, section, base, span));
        }
        let fixed = self.fixed_random(id);
        let offset = within(fixed, section.randomized_offset_sec().map_or(0, |span| span.0));
        let from = self.calendar_base(unit, timer, section).saturating_sub(offset);
        for event in section.on_calendar() {
            let zone = match event.zone() {
                "UTC" => Some(TimeZone::UTC),
                name => self.state.zones.get(name).and_then(Zone::value),
            };
            match zone {
                Some(zone) => {
                    plan.calendar.push(event.next(from, &zone).map(|at| at.saturating_add(offset)));
                }
                None => {
                    plan.calendar.push(None);
                    plan.zones.push(event.zone().to_owned());
                }
            }
        }
        Some(plan)
    }

    /// Calendar moments come after the last time it fired; where it never did, after it was started.
    fn calendar_base(&self, unit: &Unit, timer: &Timer, section: &TimerSection) -> u64 {
        let last = timer.last_trigger.realtime_usec;
        let begun = unit.inactive_exit.realtime_usec;
        let base = if last > 0 { last } else { begun };
        // A clock that was set back must not keep the timer waiting for a moment that it saw already.
        let base = base.min(self.now.realtime_usec);
        match self.triggered_unit(unit.id) {
            Some(other) if section.defer_reactivation() && is_down(other.active_state()) => {
                base.max(other.inactive_enter.realtime_usec)
            }
            _ => base,
        }
    }

    fn monotonic_moment(
        &self,
        unit: &Unit,
        timer: &Timer,
        section: &TimerSection,
        base: Base,
        span: u64,
    ) -> Option<u64> {
        let set = |usec: u64| Some(usec).filter(|usec| *usec > 0);
        let last = set(timer.last_trigger.monotonic_usec);
        let other = self.triggered_unit(unit.id);
        let userspace = self.state.boot.userspace.monotonic_usec;
        let from = match base {
            Base::Active => set(unit.inactive_exit.monotonic_usec)?,
            // The machine of a container booted long before.
            Base::Boot if self.state.facts.follows_interfaces => 0,
            Base::Boot | Base::Startup => userspace,
            // What was tried and came to nothing is not tried again at once.
            Base::UnitActive => other.and_then(|other| set(other.inactive_exit.monotonic_usec)).max(last)?,
            Base::UnitInactive => {
                other.and_then(|other| set(other.inactive_enter.monotonic_usec)).max(last)?
            }
        };
        let moment = from.checked_add(span)?;
        let once = matches!(base, Base::Active | Base::Boot | Base::Startup);
        if once && !timer.fresh && moment <= self.now.monotonic_usec {
            return None;
        }
        let asleep = self.now.boottime_usec.saturating_sub(self.now.monotonic_usec);
        Some(if section.wake_system() { moment.saturating_add(asleep) } else { moment })
    }

    /// When it is due on a clock: its moment, put off within `AccuracySec=` so that timers share a wake-up.
    fn timer_deadline(&self, unit: &Unit, clock: Clock) -> Option<u64> {
        let timer = Timer::of(&unit.kind).filter(|timer| timer.sub == TimerSub::Waiting)?;
        let Body::Timer(section) = &unit.file.body else { return None };
        let at = match clock {
            Clock::Monotonic if !section.wake_system() => timer.next_monotonic_usec,
            Clock::BoottimeAlarm if section.wake_system() => timer.next_monotonic_usec,
            Clock::Realtime if !section.wake_system() => timer.next_realtime_usec,
            Clock::RealtimeAlarm if section.wake_system() => timer.next_realtime_usec,
            _ => None,
        };
        let accuracy = section.accuracy_sec().map_or(60_000_000, |span| span.0);
        let machine = hash_of(&self.state.facts.specifiers.machine_id);
        at.map(|at| coalesced(at, accuracy, machine))
    }

    fn timer_due(&mut self, id: UnitId) {
        let Some(unit) = self.state.units.get(&id) else { return };
        let late = |clock: Clock| self.timer_deadline(unit, clock).is_some_and(|at| at <= self.now.on(clock));
        if Clock::ALL.into_iter().any(late) {
            self.timer_fire(id, "its time came");
        }
    }

    fn timer_fire(&mut self, id: UnitId, why: &str) {
        let Some(other) = self.triggered_unit(id).map(|unit| unit.id) else {
            return self.timer_fail(id, UnitResult::Resources);
        };
        let name = self.unit_name(id);
        let Now { realtime_usec, monotonic_usec, .. } = self.now;
        let details = vec![
            ("TRIGGER_UNIT".to_owned(), name.clone()),
            ("TRIGGER_TIMER_REALTIME_USEC".to_owned(), realtime_usec.to_string()),
            ("TRIGGER_TIMER_MONOTONIC_USEC".to_owned(), monotonic_usec.to_string()),
        ];
        let (stamp, drawn) = (self.stamp(), self.random());
        if let Some(timer) = self.timer_mut(id) {
            timer.last_trigger = stamp;
            timer.drawn = drawn;
        }
        self.set_timer_sub(id, TimerSub::Running);
        if self.timer_section(id).is_some_and(|section| section.persistent()) {
            self.write_stamp(id);
        }
        if let Some(unit) = self.state.units.edit(&other) {
            unit.activation_details = details;
        }
        if !self.request_quietly(other, JobType::Start, JobMode::Replace, &format!("{name}: {why}")) {
            self.timer_fail(id, UnitResult::Resources);
        }
    }

    /// The unit that it starts changed its state, or a job of it ended.
    fn timer_triggered_changed(&mut self, id: UnitId, other: UnitId) {
        let Some(timer) = self.timer(id) else { return };
        let (sub, ready) = (timer.sub, !timer.reads_stamp);
        let down = is_down(self.active_state(other)) && self.job_kind(other) != Some(JobType::Start);
        let follows = self.timer_section(id).is_some_and(|section| {
            !section.on_unit_active_sec().is_empty() || !section.on_unit_inactive_sec().is_empty()
        });
        match sub {
            TimerSub::Running if down => self.timer_wait(id),
            TimerSub::Waiting if follows && ready => self.timer_wait(id),
            TimerSub::Elapsed if follows => self.timer_wait(id),
            TimerSub::Elapsed if down => self.timer_elapsed(id),
            TimerSub::Dead | TimerSub::Waiting | TimerSub::Running | TimerSub::Elapsed | TimerSub::Failed => {
            }
        }
    }

    /// Its file was read again.
    fn timer_reloaded(&mut self, id: UnitId) {
        let now = self.timer_section(id).map_or(0, |section| hash_of(&format!("{section:?}")));
        let Some(timer) = self.timer(id) else { return };
        let waits = matches!(timer.sub, TimerSub::Waiting | TimerSub::Elapsed) && !timer.reads_stamp;
        if waits && timer.planned_by != now {
            self.timer_wait(id);
        }
    }

    /// Whether a unit is up that cares when the realtime clock is set or its zone is changed.
    pub fn follows_clock(&self) -> bool {
        !self.state.clock_followers.is_empty()
    }

    /// The timers that are up and follow the realtime clock.
    fn timers(&self) -> Vec<UnitId> {
        self.state.clock_followers.iter().copied().collect()
    }

    /// The realtime clock was set.
    pub(crate) fn clock_set(&mut self) {
        let now = self.now.realtime_usec;
        self.timers_look_again(
            |section| section.on_clock_change(),
            "the clock was set",
            |timer| {
                timer.last_trigger.realtime_usec = timer.last_trigger.realtime_usec.min(now);
            },
        );
    }

    /// `/etc/localtime` is another one.
    pub(crate) fn zone_changed(&mut self) {
        if self.state.zones.remove("").is_some() {
            self.state.zones.insert(String::new(), Zone::Asked);
            self.effects.push_back(Effect::ReadZone { name: String::new() });
        }
        self.timers_look_again(|section| section.on_timezone_change(), "the time zone was changed", |_| {});
    }

    fn timers_look_again(
        &mut self,
        fires: impl Fn(&TimerSection) -> bool,
        why: &str,
        mend: impl Fn(&mut Timer),
    ) {
        for id in self.timers() {
            let Some(timer) = self.timer_mut(id) else { continue };
            mend(timer);
            let waits = matches!(timer.sub, TimerSub::Waiting | TimerSub::Elapsed) && !timer.reads_stamp;
            if waits && self.timer_section(id).is_some_and(&fires) {
                self.timer_fire(id, why);
            } else if waits && self.timer_section(id).is_some_and(|section| !section.on_calendar().is_empty())
            {
                self.timer_wait(id);
            }
        }
    }

    /// A time zone was read.
    pub(crate) fn zone_read(&mut self, name: String, bytes: Option<Vec<u8>>) {
        self.state.zones.insert(name.clone(), Zone::Read(bytes));
        for id in self.timers() {
            let uses = self
                .timer_section(id)
                .is_some_and(|section| section.on_calendar().iter().any(|event| event.zone() == name));
            if uses
                && self.timer(id).is_some_and(|timer| timer.sub == TimerSub::Waiting && !timer.reads_stamp)
            {
                self.timer_wait(id);
            }
        }
    }

    /// The same number for this unit on this machine, always.
    fn fixed_random(&self, id: UnitId) -> u64 {
        hash_of(&(self.state.facts.specifiers.machine_id.as_str(), self.unit_name(id)))
    }
}

fn is_down(state: ActiveState) -> bool {
    matches!(state, ActiveState::Inactive | ActiveState::Failed)
}

pub(crate) fn stamp_path(unit: &UnitName) -> String {
    format!("/var/lib/systemd/timers/stamp-{unit}")
}

fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn within(number: u64, max_usec: u64) -> u64 {
    max_usec.checked_add(1).and_then(|span| number.checked_rem(span)).unwrap_or(0)
}

/// A moment between `at` and `at + accuracy` that other timers of this machine choose too: the same place in every minute,
/// else in every 10 s, second or quarter of one.
fn coalesced(at: u64, accuracy: u64, machine: u64) -> u64 {
    let last = at.saturating_add(accuracy);
    if accuracy <= 1 {
        return at;
    }
    for grain in [60_000_000_u64, 10_000_000, 1_000_000, 250_000] {
        let place = machine.checked_rem(grain).unwrap_or(0);
        let over = last.saturating_sub(place).checked_rem(grain).unwrap_or(0);
        let moment = last.saturating_sub(over);
        if last > place && moment >= at {
            return moment;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_meet_within_their_accuracy() {
        let machine = 12_345_678;
        for (at, accuracy) in [(5_000_000, 60_000_000), (7_000_000, 60_000_000), (100, 250_000), (9, 1)] {
            let moment = coalesced(at, accuracy, machine);
            assert!(moment >= at && moment <= at + accuracy);
        }
        assert_eq!(coalesced(70_000_000, 60_000_000, machine), coalesced(60_000_000, 60_000_000, machine));
    }
}
