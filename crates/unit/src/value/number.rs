//! Numbers with their borders: shares of processors and memory, weights, sizes, levels (systemd.resource-control(5),
//! systemd.exec(5)). What is beyond a border is refused here, as by systemd.

use crate::diagnostic::{Code, Fault};
use crate::setting::{Context, Held, Scalar, Setting};
use crate::value::{Timespan, parse_size};
use serde::{Deserialize, Serialize};

/// `CPUQuota=` (systemd.resource-control(5)): CPU time in each second, in microseconds; above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuQuota(pub u64);

impl CpuQuota {
    /// Reads a percentage with at most two decimals.
    fn parse(text: &str) -> Option<CpuQuota> {
        let text = text.strip_suffix('%')?.trim_end();
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > 2 {
            return None;
        }
        let hundredths: u64 = format!("{whole}{decimals:0<2}").parse().ok()?;
        let usec = hundredths.checked_mul(100)?;
        (usec > 0).then_some(CpuQuota(usec))
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size(pub u64);

/// `CPUWeight=` and kin: 1 to 10000; 0 stands for `idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight(pub u64);

/// `MemoryMax=` and kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// Bytes, or tasks.
    Absolute(u64),
    /// Of what the machine has, in hundredths of a percent.
    Fraction(u32),
    /// No limit.
    Infinity,
}

impl Amount {
    /// As a number, where a whole is `total`; no limit is `u64::MAX`.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Amount::Infinity => u64::MAX,
            Amount::Absolute(value) => value,
            Amount::Fraction(hundredths) => {
                let part = u128::from(total).saturating_mul(u128::from(hundredths)).checked_div(10_000);
                part.and_then(|part| u64::try_from(part).ok()).unwrap_or(u64::MAX)
            }
        }
    }
}

/// A whole number with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within<const FROM: i32, const TO: i32>(pub i32);

/// `Nice=`.
pub type NiceLevel = Within<-20, 19>;
/// `OOMScoreAdjust=`.
pub type OomScore = Within<-1000, 1000>;
/// `IOSchedulingPriority=`.
pub type IoPriority = Within<0, 7>;
/// `CPUSchedulingPriority=`.
pub type CpuPriority = Within<0, 99>;

/// `CPUShares=`: 1024 are a [`Weight`] of 100.
pub type CpuShares = Within<2, 262_144>;
/// `BlockIOWeight=`: 500 are a [`Weight`] of 100.
pub type BlockIoWeight = Within<10, 1000>;

impl CpuShares {
    /// As `CPUWeight=` has it.
    pub fn weight(self) -> Weight {
        scaled(u64::try_from(self.0).unwrap_or_default(), 1024)
    }
}

impl BlockIoWeight {
    /// As `IOWeight=` has it.
    pub fn weight(self) -> Weight {
        of_block_io(u64::try_from(self.0).unwrap_or_default())
    }
}

/// What a weight of `BlockIOWeight=` and its kin is to `IOWeight=`.
pub(crate) fn of_block_io(weight: u64) -> Weight {
    scaled(weight, 500)
}

fn scaled(value: u64, usual: u64) -> Weight {
    let value = value.saturating_mul(100).checked_div(usual).unwrap_or_default();
    Weight(value.clamp(1, 10_000))
}

impl<const FROM: i32, const TO: i32> Held for Option<Within<FROM, TO>> {
    type Ref<'a> = Self;
    fn held(&self) -> Self {
        *self
    }
}

impl<const FROM: i32, const TO: i32> Scalar for Within<FROM, TO> {
    fn read(text: &str) -> Result<Self, Fault> {
        let value = number(text).filter(|value| (FROM..=TO).contains(value));
        value
            .map(Within)
            .ok_or_else(|| Fault::new(Code::Number, text, format!("a whole number from {FROM} to {TO}")))
    }
}

/// `ManagedOOMMemoryPressureDurationSec=`: a second or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureDuration(pub Timespan);

impl Scalar for PressureDuration {
    fn read(text: &str) -> Result<Self, Fault> {
        let span = Timespan::parse(text, 1_000_000)?;
        let fits = (1_000_000..u64::MAX).contains(&span.0);
        let wrong = || Fault::new(Code::Time, text, "a time span of a second or more, with an end");
        fits.then_some(PressureDuration(span)).ok_or_else(wrong)
    }
}

/// `IOWeight=` and kin know no `idle`, which is for processors alone.
impl Setting for Option<Weight> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        let idles = context.directive.contains("CPU");
        let expected = if idles { "a weight from 1 to 10000, or idle" } else { "a weight from 1 to 10000" };
        let weight = weight(&text).filter(|weight| idles || weight.0 > 0);
        *self = Some(weight.ok_or_else(|| Fault::new(Code::Number, &text, expected))?);
        Ok(())
    }
}

/// Directives of which nothing at all would stop whatever it is said of.
const ABOVE_ZERO: [&str; 5] =
    ["MemoryHigh", "StartupMemoryHigh", "MemoryMax", "StartupMemoryMax", "TasksMax"];

impl Setting for Option<Amount> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        let wrong = |expected| Fault::new(Code::Number, &text, expected);
        let read = if context.directive == "TasksMax" { tasks } else { amount };
        let new = read(&text)
            .ok_or_else(|| wrong("a number, a percentage with at most two decimals, or 'infinity'"))?;
        // A part of the tasks may be none.
        let none = match new {
            Amount::Absolute(0) => true,
            Amount::Fraction(0) => context.directive != "TasksMax",
            _ => false,
        };
        if none && ABOVE_ZERO.contains(&context.directive) {
            return Err(wrong("more than nothing"));
        }
        *self = Some(new);
        Ok(())
    }
}

/// What comes before the digits of a number that is not decimal, in the order of looking.
const RADIXES: [(&str, u32); 7] =
    [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8), ("0", 8)];

/// Reads a number with or without a sign, decimal or as C has it: hexadecimal after 0x, octal after 0, binary after 0b.
pub(crate) fn number<T: TryFrom<i64>>(text: &str) -> Option<T> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1_i64, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixed = RADIXES.iter().find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, *radix)));
    let (digits, radix) = prefixed.filter(|_| digits != "0").unwrap_or((digits, 10));
    // No second sign, here or after 0x.
    if digits.contains(['+', '-']) {
        return None;
    }
    let value = i64::from_str_radix(digits, radix).ok()?;
    T::try_from(value.checked_mul(sign)?).ok()
}

fn weight(text: &str) -> Option<Weight> {
    if text == "idle" {
        return Some(Weight(0));
    }
    number(text).filter(|weight| (1..=10_000).contains(weight)).map(Weight)
}

fn amount(text: &str) -> Option<Amount> {
    if text == "infinity" {
        return Some(Amount::Infinity);
    }
    if let Some(percent) = text.strip_suffix('%') {
        let (whole, fraction) = percent.split_once('.').unwrap_or((percent, "0"));
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (plain(whole) && plain(fraction) && fraction.len() <= 2).then_some(())?;
        let hundredths = format!("{fraction:0<2}").parse::<u32>().ok()?;
        let total = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths)?;
        return (total <= 10_000).then_some(Amount::Fraction(total));
    }
    parse_size(text).map(Amount::Absolute)
}

/// A number of tasks is written as any number.
fn tasks(text: &str) -> Option<Amount> {
    number(text).map(Amount::Absolute).or_else(|| amount(text))
}

impl Scalar for CpuQuota {
    fn read(text: &str) -> Result<Self, Fault> {
        let expected = "a percentage of one CPU above zero, with at most two decimals, such as 150% or 12.5%";
        CpuQuota::parse(text).ok_or_else(|| Fault::new(Code::Number, text, expected))
    }
}

impl Scalar for Size {
    fn read(text: &str) -> Result<Self, Fault> {
        let expected = "a size in bytes, K, M, G or T allowed";
        parse_size(text).map(Size).ok_or_else(|| Fault::new(Code::Number, text, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<T>(directive: &str, text: &str) -> Option<T>
    where
        Option<T>: Setting,
    {
        let context = Context { expand: &|text| Ok(text.to_owned()), expands: false, directive, lists: None };
        let mut value: Option<T> = None;
        value.set(text, &context).ok().and(value)
    }

    #[test]
    fn borders() {
        for (text, good) in [("-20", true), ("-21", false), ("+19", true), ("20", false), ("x", false)] {
            assert_eq!(NiceLevel::read(text).is_ok(), good, "{text}");
        }
        assert_eq!(set::<Amount>("MemoryMax", "0"), None);
        assert_eq!(set::<Amount>("MemoryMax", "0%"), None);
        assert_eq!(set("MemorySwapMax", "0"), Some(Amount::Absolute(0)));
        assert_eq!(
            (set("TasksMax", "0%"), set::<Amount>("TasksMax", "0")),
            (Some(Amount::Fraction(0)), None)
        );
        assert_eq!(set("MemoryMax", "50.55%"), Some(Amount::Fraction(5055)));
        assert_eq!((set::<Amount>("MemoryMax", "1.234%"), set::<Amount>("MemoryMax", ".%")), (None, None));
        assert_eq!((set("CPUWeight", "idle"), set::<Weight>("IOWeight", "idle")), (Some(Weight(0)), None));
        assert!(PressureDuration::read("999ms").is_err() && PressureDuration::read("infinity").is_err());
    }
}
