//! Time spans (systemd.time(7), "Parsing Time Spans").

use crate::diagnostic::{Code, Fault};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Microseconds; `u64::MAX` for infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timespan(pub u64);

const UNITS: &[(&[&str], u64)] = &[
    (&["us", "usec", "µs", "μs"], 1),
    (&["ms", "msec"], 1_000),
    (&["s", "sec", "second", "seconds"], 1_000_000),
    (&["m", "min", "minute", "minutes"], 60_000_000),
    (&["h", "hr", "hour", "hours"], 3_600_000_000),
    (&["d", "day", "days"], 86_400_000_000),
    (&["w", "week", "weeks"], 604_800_000_000),
    (&["M", "month", "months"], 2_629_800_000_000),
    (&["y", "year", "years"], 31_557_600_000_000),
];

impl Timespan {
    /// Unlimited.
    pub const INFINITY: Timespan = Timespan(u64::MAX);

    /// Reads a span; a number without a unit counts `default_unit` microseconds.
    pub fn parse(text: &str, default_unit: u64) -> Result<Timespan, Fault> {
        let expected = || Fault::new(Code::Time, text, "a time span such as '5min 20s'");
        let mut rest = text.trim();
        if rest == "infinity" {
            return Ok(Timespan::INFINITY);
        }
        if rest.is_empty() {
            return Err(expected());
        }
        let mut total = 0_u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (whole, tail) = rest.split_at_checked(digits).ok_or_else(expected)?;
            let (fraction, tail) = match tail.strip_prefix('.') {
                Some(tail) => tail
                    .split_at_checked(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()))
                    .ok_or_else(expected)?,
                None => ("", tail),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(expected());
            }
            let tail = tail.trim_start();
            let word = tail.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at_checked(word).ok_or_else(expected)?;
            let factor = match unit {
                "" => default_unit,
                unit => UNITS.iter().find(|(names, _)| names.contains(&unit)).ok_or_else(expected)?.1,
            };
            let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| expected())? };
            let part = whole.checked_mul(factor).ok_or_else(expected)?;
            total = total
                .checked_add(part)
                .and_then(|sum| sum.checked_add(fraction_of(fraction, factor)))
                .ok_or_else(expected)?;
            rest = tail.trim_start();
        }
        Ok(Timespan(total))
    }
}

fn fraction_of(digits: &str, factor: u64) -> u64 {
    let mut sum = 0_u64;
    let mut weight = factor;
    for digit in digits.bytes().take(18) {
        weight = weight.checked_div(10).unwrap_or(0);
        sum = sum.saturating_add(weight.saturating_mul(u64::from(digit.saturating_sub(b'0'))));
    }
    sum
}

impl fmt::Display for Timespan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Timespan::INFINITY {
            return out.write_str("infinity");
        }
        if self.0 == 0 {
            return out.write_str("0");
        }
        let mut rest = self.0;
        let mut gap = "";
        for (names, factor) in UNITS.iter().rev() {
            let count = rest.checked_div(*factor).unwrap_or(0);
            if count == 0 {
                continue;
            }
            let short = rest < 60_000_000;
            rest = rest.checked_rem(*factor).unwrap_or(0);
            let name = match *factor {
                60_000_000 => "min",
                2_629_800_000_000 => "month",
                _ => names.first().copied().unwrap_or(""),
            };
            // Below a minute the rest is a fraction of what is said, down to the microsecond.
            if short && rest > 0 {
                let digits = if *factor == 1_000_000 { 6 } else { 3 };
                return write!(out, "{gap}{count}.{rest:0digits$}{name}");
            }
            write!(out, "{gap}{count}{name}")?;
            gap = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_both_ways() {
        let sec = |text: &str| Timespan::parse(text, 1_000_000).map(|span| span.0);
        assert_eq!(sec("90"), Ok(90_000_000));
        assert_eq!(sec("1min 30s"), Ok(90_000_000));
        assert_eq!(sec("1.5s"), Ok(1_500_000));
        assert_eq!(sec("55s500ms"), Ok(55_500_000));
        assert_eq!(sec("infinity"), Ok(u64::MAX));
        for bad in ["", "x", "5 parsecs", "-1", "99999999999999999999"] {
            assert!(sec(bad).is_err(), "{bad}");
        }
        assert_eq!(Timespan(90_000_000).to_string(), "1min 30s");
        assert_eq!(Timespan(100_000).to_string(), "100ms");
        assert_eq!(Timespan(1_500_000).to_string(), "1.500000s");
        assert_eq!(Timespan(1_500).to_string(), "1.500ms");
        assert_eq!(Timespan(61_500_000).to_string(), "1min 1.500000s");
        assert_eq!(Timespan(2_629_800_000_000).to_string(), "1month");
    }
}
