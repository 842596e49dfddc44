//! Calendar events (systemd.time(7), CALENDAR EVENTS): parsed, shown in the normalized form, and asked for the next moment.
//!
//! A time that a clock change skips does not occur, and one that it repeats occurs the first time only, as under systemd.
//! The search is bounded by the years that systemd knows.

use crate::diagnostic::{Code, Fault};
use jiff::civil::{self, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::fmt;

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const YEARS: (u32, u32) = (1970, 2199);
const USEC: u32 = 1_000_000;
/// At most this many entries in one list.
const LIST_MAX: usize = 240;

/// One entry of a list: a value, a range, or a value or range with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Part {
    start: u32,
    stop: Option<u32>,
    step: u32,
}

/// A calendar event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Calendar {
    /// One bit a day, Monday the lowest; zero for every day.
    weekdays: u8,
    /// Empty lists stand for `*`.
    years: Vec<Part>,
    months: Vec<Part>,
    days: Vec<Part>,
    /// Days count from the end of the month (`~`).
    from_end: bool,
    hours: Vec<Part>,
    minutes: Vec<Part>,
    /// In microseconds.
    seconds: Vec<Part>,
    /// The zone's name; empty for the local one.
    zone: String,
}

impl Calendar {
    /// Parses an event. Any word that looks like the name of a time zone is taken for one.
    pub fn parse(text: &str) -> Result<Calendar, Fault> {
        Self::read(text.trim()).ok_or_else(|| {
            Fault::new(Code::Time, text, "a calendar event such as 'daily' or 'Mon..Fri *-*-* 10:00'")
        })
    }

    /// The time zone the event names; empty for the local one.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    fn read(text: &str) -> Option<Calendar> {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let zone =
            words.last().filter(|word| words.len() > 1 && is_zone(word)).map(|word| (*word).to_owned());
        if zone.is_some() {
            words.pop();
        }
        let mut event = match words.as_slice() {
            [one] => shorthand(one).and_then(Self::read_plain).or_else(|| Self::read_words(&words))?,
            _ => Self::read_words(&words)?,
        };
        event.zone = zone.unwrap_or(event.zone);
        Some(event)
    }

    fn read_plain(text: &str) -> Option<Calendar> {
        Self::read_words(&text.split_whitespace().collect::<Vec<_>>())
    }

    fn read_words(words: &[&str]) -> Option<Calendar> {
        let zero = vec![Part { start: 0, stop: None, step: 0 }];
        let mut event = Calendar {
            weekdays: 0,
            years: Vec::new(),
            months: Vec::new(),
            days: Vec::new(),
            from_end: false,
            hours: zero.clone(),
            minutes: zero.clone(),
            seconds: zero,
            zone: String::new(),
        };
        let mut rest = words;
        if let Some((first, tail)) = rest.split_first() {
            if first.starts_with(|c: char| c.is_ascii_alphabetic()) {
                event.weekdays = weekdays(first)?;
                rest = tail;
            } else if let Some(epoch) = first.strip_prefix('@') {
                return tail.is_empty().then(|| event.at(epoch.parse().ok()?)).flatten();
            }
        }
        if let Some((first, tail)) = rest.split_first() {
            if !first.contains(':') {
                event.read_date(first)?;
                rest = tail;
            }
        }
        if let Some((first, tail)) = rest.split_first() {
            event.read_time(first)?;
            rest = tail;
        }
        (rest.is_empty() && !words.is_empty()).then_some(event)
    }

    fn at(mut self, seconds: i64) -> Option<Calendar> {
        let moment = TimeZone::UTC.to_datetime(jiff::Timestamp::from_second(seconds).ok()?);
        let one = |value: i32| Some(vec![Part { start: u32::try_from(value).ok()?, stop: None, step: 0 }]);
        self.years = one(moment.year().into())?;
        self.months = one(moment.month().into())?;
        self.days = one(moment.day().into())?;
        self.hours = one(moment.hour().into())?;
        self.minutes = one(moment.minute().into())?;
        self.seconds = one(i32::from(moment.second()).checked_mul(1_000_000)?)?;
        self.zone = "UTC".to_owned();
        Some(self)
    }

    fn read_date(&mut self, text: &str) -> Option<()> {
        let (head, day) = match text.split_once('~') {
            Some((head, day)) => {
                self.from_end = true;
                (head, day)
            }
            None => text.rsplit_once('-')?,
        };
        let (year, month) = head.split_once('-').map_or(("*", head), |(year, month)| (year, month));
        self.years = parts(year, YEARS, |text| {
            let value: u32 = number(text)?;
            Some(match value {
                0..70 if text.len() <= 2 => value.saturating_add(2000),
                70..100 if text.len() <= 2 => value.saturating_add(1900),
                _ => value,
            })
        })?;
        self.months = parts(month, (1, 12), number)?;
        self.days = parts(day, (1, 31), number)?;
        Some(())
    }

    fn read_time(&mut self, text: &str) -> Option<()> {
        let mut fields = text.split(':');
        self.hours = parts(fields.next()?, (0, 23), number)?;
        self.minutes = parts(fields.next()?, (0, 59), number)?;
        if let Some(seconds) = fields.next() {
            self.seconds = parts(seconds, (0, 60 * USEC - 1), micros)?;
        }
        fields.next().is_none().then_some(())
    }

    /// The first moment after `after_usec` (realtime, microseconds) at which the event occurs, in `zone`; `None` when there is
    /// none before the year 2200.
    pub fn next(&self, after_usec: u64, zone: &TimeZone) -> Option<u64> {
        let after = jiff::Timestamp::from_microsecond(i64::try_from(after_usec).ok()?).ok()?;
        let mut from = zone.to_datetime(after.checked_add(jiff::SignedDuration::from_micros(1)).ok()?);
        // Times that a clock change skips or repeats are passed over; there are at most a day's worth in a row.
        for _ in 0..100_000 {
            let found = self.next_civil(from)?;
            let offset = match zone.to_ambiguous_timestamp(found).offset() {
                jiff::tz::AmbiguousOffset::Unambiguous { offset } => Some(offset),
                jiff::tz::AmbiguousOffset::Fold { before, .. } => Some(before),
                jiff::tz::AmbiguousOffset::Gap { .. } => None,
            };
            let moment = offset.and_then(|offset| offset.to_timestamp(found).ok());
            if let Some(moment) = moment.filter(|moment| *moment > after) {
                return u64::try_from(moment.as_microsecond()).ok();
            }
            from = found.checked_add(jiff::SignedDuration::from_micros(1)).ok()?;
        }
        None
    }

    /// The first civil time not before `from` that the event names.
    fn next_civil(&self, from: civil::DateTime) -> Option<civil::DateTime> {
        let (date, time) = (from.date(), from.time());
        let micros = u32::try_from(time.subsec_nanosecond()).ok()?.div_ceil(1000);
        let second = u32::try_from(time.second()).ok()?.checked_mul(USEC)?.checked_add(micros)?;
        let now = [u32::try_from(time.hour()).ok()?, u32::try_from(time.minute()).ok()?, second];
        if self.has_day(date) {
            if let Some(time) = self.time_from(now) {
                return on(date, time);
            }
        }
        let first = self.time_from([0, 0, 0])?;
        let mut year = date.year();
        let mut begin = date.tomorrow().ok()?;
        while u32::try_from(year).ok()? <= YEARS.1 {
            let next = next_value(&self.years, u32::try_from(begin.year()).ok()?, YEARS.1)?;
            year = i16::try_from(next).ok()?;
            if year > begin.year() {
                begin = civil::Date::new(year, 1, 1).ok()?;
            }
            if let Some(day) = self.day_in_year(begin) {
                return on(day, first);
            }
            year = year.checked_add(1)?;
            begin = civil::Date::new(year, 1, 1).ok()?;
        }
        None
    }

    fn day_in_year(&self, begin: civil::Date) -> Option<civil::Date> {
        let mut month = u32::try_from(begin.month()).ok()?;
        let mut day = u32::try_from(begin.day()).ok()?;
        while let Some(next) = next_value(&self.months, month, 12) {
            if next > month {
                day = 1;
            }
            month = next;
            let first = civil::Date::new(begin.year(), i8::try_from(month).ok()?, 1).ok()?;
            for day in day..=u32::try_from(first.days_in_month()).ok()? {
                let date = civil::Date::new(begin.year(), first.month(), i8::try_from(day).ok()?).ok()?;
                if self.has_weekday(date) && self.has_day_of_month(date) {
                    return Some(date);
                }
            }
            (month, day) = (month.saturating_add(1), 1);
        }
        None
    }

    fn has_day(&self, date: civil::Date) -> bool {
        let (year, month) = (u32::try_from(date.year()).ok(), u32::try_from(date.month()).ok());
        year.is_some_and(|year| next_value(&self.years, year, YEARS.1) == Some(year))
            && month.is_some_and(|month| next_value(&self.months, month, 12) == Some(month))
            && self.has_weekday(date)
            && self.has_day_of_month(date)
    }

    fn has_weekday(&self, date: civil::Date) -> bool {
        let bit = match date.weekday() {
            Weekday::Monday => 1,
            Weekday::Tuesday => 2,
            Weekday::Wednesday => 4,
            Weekday::Thursday => 8,
            Weekday::Friday => 16,
            Weekday::Saturday => 32,
            Weekday::Sunday => 64,
        };
        self.weekdays == 0 || self.weekdays & bit != 0
    }

    fn has_day_of_month(&self, date: civil::Date) -> bool {
        let (Ok(day), Ok(last)) = (u32::try_from(date.day()), u32::try_from(date.days_in_month())) else {
            return false;
        };
        let has = |part: &Part| {
            // Counted from the end, a range runs backwards and steps run on to the end of the month.
            let back = |value: u32| last.saturating_add(1).checked_sub(value);
            let (start, stop) = if self.from_end {
                let Some(start) = back(part.start) else { return false };
                match part.stop.map(back) {
                    Some(Some(stop)) => (start.min(stop), Some(start.max(stop))),
                    Some(None) => (1, Some(start)),
                    None => (start, None),
                }
            } else {
                (part.start, part.stop)
            };
            Part { start, stop, step: part.step }.first_from(day, last) == Some(day)
        };
        self.days.is_empty() || self.days.iter().any(has)
    }

    fn time_from(&self, [hour, minute, second]: [u32; 3]) -> Option<[u32; 3]> {
        let last = 60 * USEC - 1;
        let every = [Part { start: 0, stop: None, step: USEC }];
        let seconds = if self.seconds.is_empty() { &every } else { self.seconds.as_slice() };
        let second_from = |from| next_value(seconds, from, last);
        let minute_from = |from| next_value(&self.minutes, from, 59);
        let h = next_value(&self.hours, hour, 23)?;
        if h > hour {
            return Some([h, minute_from(0)?, second_from(0)?]);
        }
        if let Some(m) = minute_from(minute) {
            if m > minute {
                return Some([h, m, second_from(0)?]);
            }
            if let Some(s) = second_from(second) {
                return Some([h, m, s]);
            }
            if let Some(m) = minute_from(minute.saturating_add(1)) {
                return Some([h, m, second_from(0)?]);
            }
        }
        let h = next_value(&self.hours, hour.saturating_add(1), 23)?;
        Some([h, minute_from(0)?, second_from(0)?])
    }
}

impl Part {
    /// The first value of the entry that is `from` or later and at most `last`.
    fn first_from(self, from: u32, last: u32) -> Option<u32> {
        let step = match (self.step, self.stop) {
            (0, Some(_)) => 1,
            (step, _) => step,
        };
        let value = if from <= self.start {
            self.start
        } else {
            let over = from.checked_sub(self.start)?;
            let steps = over.checked_add(step.checked_sub(1)?)?.checked_div(step)?;
            self.start.checked_add(steps.checked_mul(step)?)?
        };
        (value <= self.stop.unwrap_or(last).min(last)).then_some(value)
    }
}

fn next_value(list: &[Part], from: u32, last: u32) -> Option<u32> {
    if list.is_empty() {
        return (from <= last).then_some(from);
    }
    list.iter().filter_map(|part| part.first_from(from, last)).min()
}

fn on(date: civil::Date, [hour, minute, second]: [u32; 3]) -> Option<civil::DateTime> {
    let whole = second.checked_div(USEC)?;
    let nanos = second.checked_rem(USEC)?.checked_mul(1000)?;
    let time = civil::Time::new(
        i8::try_from(hour).ok()?,
        i8::try_from(minute).ok()?,
        i8::try_from(whole).ok()?,
        i32::try_from(nanos).ok()?,
    );
    Some(date.to_datetime(time.ok()?))
}

/// A word at the end that names a zone: `UTC`, or a name such as `Europe/Berlin`.
fn is_zone(word: &str) -> bool {
    let mut chars = word.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/');
    let plain = word.split('/').all(|part| !part.is_empty());
    first && plain && chars.all(rest) && word.len() <= 64 && weekdays(word).is_none()
}

fn shorthand(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "minutely" => "*-*-* *:*:00",
        "hourly" => "*-*-* *:00:00",
        "daily" => "*-*-* 00:00:00",
        "weekly" => "Mon *-*-* 00:00:00",
        "monthly" => "*-*-01 00:00:00",
        "quarterly" => "*-01,04,07,10-01 00:00:00",
        "semiannually" | "semi-annually" | "biannually" | "bi-annually" => "*-01,07-01 00:00:00",
        "yearly" | "annually" | "anually" => "*-01-01 00:00:00",
        _ => return None,
    })
}

fn weekdays(text: &str) -> Option<u8> {
    let mut bits = 0_u8;
    for entry in text.split(',') {
        if entry.is_empty() {
            continue;
        }
        let (from, to) = entry.split_once("..").or_else(|| entry.split_once('-')).unwrap_or((entry, entry));
        let (from, to) = (weekday(from)?, weekday(to)?);
        if from > to {
            return None;
        }
        for day in from..=to {
            bits |= 1_u8.checked_shl(u32::try_from(day).ok()?)?;
        }
    }
    // All seven are as good as none.
    (bits != 0).then_some(if bits == 127 { 0 } else { bits })
}

fn weekday(text: &str) -> Option<usize> {
    DAYS.iter().position(|day| {
        day.eq_ignore_ascii_case(text) || day.get(..3).is_some_and(|short| short.eq_ignore_ascii_case(text))
    })
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Seconds with a fraction, rounded to microseconds.
fn micros(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{fraction:0<7}");
    let tenths = number(digits.get(..7)?)?;
    let whole = number(whole)?.checked_mul(USEC)?;
    (fraction.is_empty() || number(fraction.get(..fraction.len().min(9))?).is_some()).then_some(())?;
    whole.checked_add(tenths.checked_add(5)?.checked_div(10)?)
}

fn parts(text: &str, (min, max): (u32, u32), read: impl Fn(&str) -> Option<u32>) -> Option<Vec<Part>> {
    if text == "*" {
        return Some(Vec::new());
    }
    let mut list = Vec::new();
    for entry in text.split(',') {
        let (range, step) = match entry.split_once('/') {
            Some((range, step)) => (range, read_step(step, &read, max)?),
            None => (entry, 0),
        };
        let (start, stop) = match range.split_once("..") {
            Some((start, stop)) => (start, Some(read(stop)?)),
            None => (range, None),
        };
        let start = read(start)?;
        let in_range = |value: u32| (min..=max).contains(&value);
        if !in_range(start) || stop.is_some_and(|stop| !in_range(stop) || stop < start) {
            return None;
        }
        // A range ends at the last value that its steps reach.
        let reach = |stop: u32| match stop.checked_sub(start).and_then(|span| span.checked_rem(step)) {
            Some(over) => stop.saturating_sub(over),
            None => stop,
        };
        let stop = stop.map(reach);
        let single = stop == Some(start);
        list.push(if single { Part { start, stop: None, step: 0 } } else { Part { start, stop, step } });
        if list.len() > LIST_MAX {
            return None;
        }
    }
    list.sort_unstable();
    list.dedup();
    Some(list)
}

fn read_step(text: &str, read: &impl Fn(&str) -> Option<u32>, max: u32) -> Option<u32> {
    // A step is a count, whatever its field counts: no century is added to it.
    let step = if max == YEARS.1 { number(text)? } else { read(text)? };
    (1..=max).contains(&step).then_some(step)
}

impl fmt::Display for Calendar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weekdays != 0 && self.weekdays != 127 {
            write_weekdays(self.weekdays, out)?;
            out.write_str(" ")?;
        }
        let two = |value: u32, out: &mut fmt::Formatter<'_>| write!(out, "{value:02}");
        let seconds = |value: u32, out: &mut fmt::Formatter<'_>| {
            let whole = value.checked_div(USEC).unwrap_or(0);
            let fraction = value.checked_rem(USEC).unwrap_or(0);
            if fraction == 0 { write!(out, "{whole:02}") } else { write!(out, "{whole:02}.{fraction:06}") }
        };
        let step = |value: u32, out: &mut fmt::Formatter<'_>| {
            let whole = value.checked_div(USEC).unwrap_or(0);
            let fraction = value.checked_rem(USEC).unwrap_or(0);
            if fraction == 0 { write!(out, "{whole}") } else { write!(out, "{whole}.{fraction:06}") }
        };
        let plain = |value: u32, out: &mut fmt::Formatter<'_>| write!(out, "{value}");
        write_parts(&self.years, out, plain, plain)?;
        out.write_str("-")?;
        write_parts(&self.months, out, two, plain)?;
        out.write_str(if self.from_end { "~" } else { "-" })?;
        write_parts(&self.days, out, two, plain)?;
        out.write_str(" ")?;
        write_parts(&self.hours, out, two, plain)?;
        out.write_str(":")?;
        write_parts(&self.minutes, out, two, plain)?;
        out.write_str(":")?;
        write_parts(&self.seconds, out, seconds, step)?;
        if self.zone.is_empty() { Ok(()) } else { write!(out, " {}", self.zone) }
    }
}

type Write<'a> = &'a dyn Fn(u32, &mut fmt::Formatter<'_>) -> fmt::Result;

fn write_parts(
    list: &[Part],
    out: &mut fmt::Formatter<'_>,
    value: impl Fn(u32, &mut fmt::Formatter<'_>) -> fmt::Result,
    step: impl Fn(u32, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    let (value, step): (Write<'_>, Write<'_>) = (&value, &step);
    if list.is_empty() {
        return out.write_str("*");
    }
    for (at, part) in list.iter().enumerate() {
        if at > 0 {
            out.write_str(",")?;
        }
        value(part.start, out)?;
        if let Some(stop) = part.stop {
            out.write_str("..")?;
            value(stop, out)?;
        }
        if part.step > 0 && !(part.step == 1 && part.stop.is_some()) {
            out.write_str("/")?;
            step(part.step, out)?;
        }
    }
    Ok(())
}

/// Runs of three days and more are written as ranges.
fn write_weekdays(bits: u8, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let has = |day: usize| {
        u32::try_from(day).ok().and_then(|day| bits.checked_shr(day)).is_some_and(|b| b & 1 == 1)
    };
    let name = |day: usize| DAYS.get(day).and_then(|name| name.get(..3)).unwrap_or("");
    let mut day = 0_usize;
    let mut first = true;
    while day < DAYS.len() {
        if !has(day) {
            day = day.saturating_add(1);
            continue;
        }
        let length = (day..DAYS.len()).take_while(|day| has(*day)).count();
        let (begin, end) = (day, day.saturating_add(length).saturating_sub(1));
        if !first {
            out.write_str(",")?;
        }
        first = false;
        match length {
            1 => out.write_str(name(begin))?,
            2 => write!(out, "{},{}", name(begin), name(end))?,
            _ => write!(out, "{}..{}", name(begin), name(end))?,
        }
        day = end.saturating_add(1);
    }
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
mod tests {
    use super::*;

    /// Each line: event, normalized form, and the two next moments after Sat 2024-02-10 12:00:00 UTC, as `systemd-analyze
    /// calendar --iterations=2` of systemd 257 prints them.
    const TABLE: &str = include_str!("calendar.txt");

    #[test]
    fn events_are_shown_and_elapse_as_the_table_says() {
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let [text, normal, moments @ ..] = fields.as_slice() else { panic!("{line}") };
            if *normal == "bad" {
                assert!(Calendar::parse(text).is_err(), "{line}");
                continue;
            }
            let event = Calendar::parse(text).unwrap();
            assert_eq!(event.to_string(), *normal, "{line}");
            assert_eq!(Calendar::parse(normal).unwrap(), event, "{line}");
            let mut after = 1_707_566_400_000_000;
            for moment in moments {
                let next = event.next(after, &TimeZone::UTC);
                let shown = next.map_or("never".to_owned(), |usec| {
                    let at = jiff::Timestamp::from_microsecond(i64::try_from(usec).unwrap()).unwrap();
                    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
                });
                assert_eq!(shown, *moment, "{line}");
                after = next.unwrap_or(after);
            }
        }
    }
}
