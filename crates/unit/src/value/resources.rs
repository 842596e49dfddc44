//! Values about what a process is given of the machine: processors, nodes, timer slack, what a core dump holds, personality.

use crate::diagnostic::{Code, Fault};
use crate::setting::{Context, Scalar, Setting};
use crate::value::Timespan;
use serde::{Deserialize, Serialize};

/// The most processors or memory nodes.
pub const PROCESSORS_MAX: usize = 8192;

/// A set of processors or memory nodes by number, in words of 64 bits without zero words at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberSet(pub Vec<u64>);

impl NumberSet {
    /// Reads `0-3,5 7`.
    pub fn parse(text: &str) -> Result<NumberSet, Fault> {
        let mut set = NumberSet::default();
        for range in text.split([',', ' ', '\t']).filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| super::number::number(text).filter(|number| *number < PROCESSORS_MAX);
            let (Some(first), Some(last)) =
                (number(first), number(last).filter(|last| Some(*last) >= number(first)))
            else {
                let expected = format!("numbers below {PROCESSORS_MAX} or ranges such as 0-3");
                return Err(Fault::new(Code::Number, range, expected));
            };
            for number in first..=last {
                set.insert(number);
            }
        }
        Ok(set)
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: usize) -> bool {
        self.0.get(number >> 6).is_some_and(|word| (word >> (number & 63)) & 1 == 1)
    }

    fn insert(&mut self, number: usize) {
        let (word, bit) = (number >> 6, number & 63);
        if self.0.len() <= word {
            self.0.resize(word.saturating_add(1), 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    /// Adds the numbers of another set.
    pub fn add(&mut self, other: &NumberSet) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own |= other;
        }
    }

    /// As D-Bus has it: bytes of whole words, the lowest first.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Ranges, as cpuset files of cgroups have them.
impl std::fmt::Display for NumberSet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut gap = "";
        let mut at = 0;
        while at < PROCESSORS_MAX {
            let first = at;
            while self.contains(at) {
                at = at.saturating_add(1);
            }
            match at.saturating_sub(first) {
                0 => {}
                1 => write!(out, "{gap}{first}")?,
                _ => write!(out, "{gap}{first}-{}", at.saturating_sub(1))?,
            }
            gap = if at > first { "," } else { gap };
            at = at.saturating_add(1);
        }
        Ok(())
    }
}

/// `CPUAffinity=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuAffinity {
    /// Those of the nodes of `NUMAMask=`.
    Numa,
    /// These.
    Set(NumberSet),
}

impl Setting for Option<CpuAffinity> {
    /// Lists add up.
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        if text == "numa" {
            *self = Some(CpuAffinity::Numa);
            return Ok(());
        }
        let more = NumberSet::parse(&text)?;
        match self {
            Some(CpuAffinity::Set(set)) => set.add(&more),
            Some(CpuAffinity::Numa) | None => *self = Some(CpuAffinity::Set(more)),
        }
        Ok(())
    }
}

/// `NUMAMask=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NumaMask {
    /// Every node that there is.
    All,
    /// These.
    Set(NumberSet),
}

impl Setting for Option<NumaMask> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        if text == "all" {
            *self = Some(NumaMask::All);
            return Ok(());
        }
        let more = NumberSet::parse(&text)?;
        match self {
            Some(NumaMask::Set(set)) => set.add(&more),
            Some(NumaMask::All) | None => *self = Some(NumaMask::Set(more)),
        }
        Ok(())
    }
}

/// A number of nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nanoseconds(pub u64);

impl Scalar for Nanoseconds {
    fn read(text: &str) -> Result<Self, Fault> {
        nanoseconds(text)
            .map(Nanoseconds)
            .ok_or_else(|| Fault::new(Code::Time, text, "a time span, of nanoseconds without a unit"))
    }
}

impl Nanoseconds {
    /// `infinity`: what the kernel gives without it.
    pub const DEFAULT: Nanoseconds = Nanoseconds(u64::MAX);
}

/// Microseconds and more are read as everywhere, a thousand times as large.
fn nanoseconds(text: &str) -> Option<u64> {
    if text == "infinity" {
        return Some(Nanoseconds::DEFAULT.0);
    }
    if let Ok(number) = text.trim().trim_end_matches("nsec").trim_end_matches("ns").trim().parse() {
        return Some(number);
    }
    Timespan::parse(text, 1_000_000).ok().and_then(|span| span.0.checked_mul(1000))
}

/// `CoredumpFilter=`: the bits of core(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoredumpFilter(pub u64);

impl CoredumpFilter {
    /// What the kernel dumps when nothing is said.
    pub const DEFAULT: u64 = 0x33;
    const KINDS: [&'static str; 9] = [
        "private-anonymous",
        "shared-anonymous",
        "private-file-backed",
        "shared-file-backed",
        "elf-headers",
        "private-huge",
        "shared-huge",
        "private-dax",
        "shared-dax",
    ];
}

impl Setting for Option<CoredumpFilter> {
    /// Lists add up.
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        let mut bits = 0;
        for (word, at) in crate::setting::plain_words(value, value) {
            bits |= match (word, CoredumpFilter::KINDS.iter().position(|kind| *kind == word)) {
                ("all", _) => u64::from(u32::MAX),
                ("default", _) => CoredumpFilter::DEFAULT,
                (_, Some(bit)) => 1 << bit,
                (hex, None) => u64::from_str_radix(hex.trim_start_matches("0x"), 16)
                    .map_err(|_| Fault::new(Code::Word, word, CoredumpFilter::KINDS.join(", ")).within(at))?,
            };
        }
        let old = self.map_or(0, |old| old.0);
        *self = Some(CoredumpFilter(old | bits));
        Ok(())
    }
}
