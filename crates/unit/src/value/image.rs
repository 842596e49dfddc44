//! Values about disk images (systemd.exec(5), systemd.image-policy(7)): what is mounted of which, how, and what is trusted.

use crate::diagnostic::{Code, Fault};
use crate::setting::{Context, Scalar, Setting, append, words};
use crate::value::{AbsolutePath, decode_base64};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The partitions of an image, in the order in which they are shown.
const PARTITIONS: [&str; 13] = [
    "root",
    "usr",
    "home",
    "srv",
    "esp",
    "xbootldr",
    "swap",
    "root-verity",
    "usr-verity",
    "root-verity-sig",
    "usr-verity-sig",
    "tmp",
    "var",
];

/// A partition of an image by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition(u8);

impl Partition {
    /// The root, which is meant where nothing is said.
    pub const ROOT: Partition = Partition(0);

    /// Its name.
    pub fn name(self) -> &'static str {
        PARTITIONS.get(usize::from(self.0)).copied().unwrap_or("root")
    }

    /// That of a name.
    pub fn named(name: &str) -> Option<Partition> {
        let place = PARTITIONS.iter().position(|known| *known == name);
        place.and_then(|at| u8::try_from(at).ok()).map(Partition)
    }

    /// All there are, in the order in which they are shown.
    pub fn all() -> impl Iterator<Item = Partition> {
        PARTITIONS.iter().filter_map(|name| Partition::named(name))
    }

    fn read(text: &str) -> Result<Partition, Fault> {
        Partition::named(text).ok_or_else(|| Fault::new(Code::Word, text, PARTITIONS.join(", ")))
    }
}

/// With which options of mount(8) a partition is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOption {
    /// Which.
    pub partition: Partition,
    /// Divided by commas.
    pub options: String,
}

/// The parts of a word between colons; a backslash before one keeps it.
fn parts(word: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&':') => continue_with(&mut parts, chars.next()),
            ':' => parts.push(String::new()),
            c => continue_with(&mut parts, Some(c)),
        }
    }
    parts
}

fn continue_with(parts: &mut [String], c: Option<char>) {
    if let Some(last) = parts.last_mut() {
        last.extend(c);
    }
}

/// `OPTIONS` of the root, or `PARTITION:OPTIONS` as often as wanted. What is wrong is named and skipped.
fn options(parts: &[String]) -> (Vec<ImageOption>, Result<(), Fault>) {
    let mut good = Vec::new();
    let mut rest = Ok(());
    for pair in parts.chunks(2) {
        let (partition, options) = match pair {
            [name, options] => (Partition::read(name), options),
            [options] => (Ok(Partition::ROOT), options),
            _ => continue,
        };
        match partition {
            Ok(partition) if !options.is_empty() => {
                good.push(ImageOption { partition, options: options.clone() })
            }
            Ok(_) => {}
            // An empty pair says nothing.
            Err(_) if pair.iter().all(String::is_empty) => {}
            Err(fault) => rest = Err(fault),
        }
    }
    (good, rest)
}

/// `RootImageOptions=`. A line of which nothing can be read takes away what was said before.
impl Setting for Vec<ImageOption> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let mut more = Vec::new();
        let mut rest = Ok(());
        for word in words(value, context)? {
            let mut parts = parts(&word.text);
            // `usr:` is no partition without options, but options of that name.
            parts.retain(|part| !part.is_empty());
            let (good, wrong) = options(&parts);
            more.extend(good);
            rest = rest.and(wrong.map_err(|fault| fault.within(word.at)));
        }
        if more.is_empty() {
            self.clear();
        }
        append(self, more)?;
        rest
    }
}

/// `ExtensionImages=`: an image that is laid over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionImage {
    /// The image.
    pub source: AbsolutePath,
    /// `-`: it may be missing.
    pub optional: bool,
    /// How its partitions are mounted.
    pub options: Vec<ImageOption>,
}

/// `MountImages=`: an image that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountImage {
    /// The image.
    pub source: AbsolutePath,
    /// Where.
    pub destination: AbsolutePath,
    /// `-`: it may be missing.
    pub optional: bool,
    /// How its partitions are mounted.
    pub options: Vec<ImageOption>,
}

/// Whether a word begins with `-`, and its parts.
fn marked(word: &str) -> (bool, Vec<String>) {
    let (optional, rest) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
    (optional, parts(rest))
}

impl ExtensionImage {
    fn read(word: &str) -> Result<(ExtensionImage, Result<(), Fault>), Fault> {
        let (optional, parts) = marked(word);
        let (source, more) = parts.split_first().map_or(("", &[][..]), |(first, more)| (first, more));
        let (options, rest) = options(more);
        Ok((ExtensionImage { source: AbsolutePath::read(source)?, optional, options }, rest))
    }
}

impl MountImage {
    fn read(word: &str) -> Result<(MountImage, Result<(), Fault>), Fault> {
        let (optional, parts) = marked(word);
        let [source, destination, more @ ..] = parts.as_slice() else {
            return Err(Fault::new(Code::Value, word, "SOURCE:DESTINATION"));
        };
        let (source, destination) = (AbsolutePath::read(source)?, AbsolutePath::read(destination)?);
        let (options, rest) = options(more);
        Ok((MountImage { source, destination, optional, options }, rest))
    }
}

/// What is wrong is named and skipped; options that are wrong, without the image.
macro_rules! images {
    ($($type:ident)*) => {$(
        impl Setting for Vec<$type> {
            fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
                let mut done = Ok(());
                for word in words(value, context)? {
                    let wrong = match $type::read(&word.text) {
                        Ok((image, rest)) => append(self, vec![image]).and(rest),
                        Err(fault) => Err(fault),
                    };
                    done = done.and(wrong.map_err(|fault| fault.within(word.at)));
                }
                done
            }
        }
    )*};
}
images!(ExtensionImage MountImage);

/// How a partition may be protected, and which of its flags must be as said, in the order in which they are shown.
const USES: [&str; 10] = [
    "verity",
    "signed",
    "encrypted",
    "unprotected",
    "unused",
    "absent",
    "read-only-on",
    "read-only-off",
    "growfs-on",
    "growfs-off",
];

/// What of [`USES`] a partition may be, bit by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionUse(u16);

impl PartitionUse {
    /// It is used, and its data is checked against a hash.
    pub const VERITY: PartitionUse = PartitionUse(1);
    /// The same with a signed hash.
    pub const SIGNED: PartitionUse = PartitionUse(1 << 1);
    /// It is used, and encrypted.
    pub const ENCRYPTED: PartitionUse = PartitionUse(1 << 2);
    /// It is used as it is.
    pub const UNPROTECTED: PartitionUse = PartitionUse(1 << 3);
    /// It is there and not used.
    pub const UNUSED: PartitionUse = PartitionUse(1 << 4);
    /// Not there.
    pub const ABSENT: PartitionUse = PartitionUse(1 << 5);
    /// Its flag for reading only is set.
    pub const READ_ONLY_ON: PartitionUse = PartitionUse(1 << 6);
    /// Its flag for reading only is not set.
    pub const READ_ONLY_OFF: PartitionUse = PartitionUse(1 << 7);
    /// Its flag for growing is set.
    pub const GROW_ON: PartitionUse = PartitionUse(1 << 8);
    /// Its flag for growing is not set.
    pub const GROW_OFF: PartitionUse = PartitionUse(1 << 9);
    /// However it is protected, used or not.
    const OPEN: PartitionUse = PartitionUse(0b11_1111);
    /// Not looked at.
    const IGNORE: PartitionUse = PartitionUse(0b11_0000);

    /// Whether any of these is among what it may be.
    pub fn allows(self, any: PartitionUse) -> bool {
        self.0 & any.0 != 0
    }

    /// Whether its flags may be as they are: nothing said about one is all said about it.
    pub fn allows_flags(self, read_only: bool, grows: bool) -> bool {
        let fits = |set: bool, on: PartitionUse, off: PartitionUse| {
            let asked = PartitionUse(on.0 | off.0);
            !self.allows(asked) || self.allows(if set { on } else { off })
        };
        fits(read_only, Self::READ_ONLY_ON, Self::READ_ONLY_OFF) && fits(grows, Self::GROW_ON, Self::GROW_OFF)
    }

    fn read(text: &str) -> Result<PartitionUse, Fault> {
        let mut bits = 0;
        for word in text.split('+').map(str::trim).filter(|word| !word.is_empty()) {
            bits |= match (word, USES.iter().position(|known| *known == word)) {
                ("open", _) => PartitionUse::OPEN.0,
                ("ignore", _) => PartitionUse::IGNORE.0,
                (_, Some(bit)) => 1 << bit,
                (_, None) => {
                    return Err(Fault::new(Code::Word, word, format!("{}, open, ignore", USES.join(", "))));
                }
            };
        }
        Ok(PartitionUse(bits).simple())
    }

    /// Both answers to a question are none.
    fn simple(self) -> PartitionUse {
        let both = |bits: u16, pair: u16| if bits & pair == pair { bits & !pair } else { bits };
        PartitionUse(both(both(self.0, 0b11 << 6), 0b11 << 8))
    }
}

impl fmt::Display for PartitionUse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protection = PartitionUse(self.0 & PartitionUse::OPEN.0);
        let mut words = Vec::new();
        match protection {
            PartitionUse::OPEN => words.push("open"),
            PartitionUse::IGNORE => words.push("ignore"),
            _ => {}
        }
        let named = !words.is_empty();
        for (bit, word) in USES.iter().enumerate() {
            if self.0 & (1 << bit) != 0 && !(named && bit < 6) {
                words.push(word);
            }
        }
        out.write_str(if words.is_empty() { "-".to_owned() } else { words.join("+") }.as_str())
    }
}

/// `RootImagePolicy=` and kin (systemd.image-policy(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePolicy {
    /// What partitions may be.
    pub rules: BTreeMap<Partition, PartitionUse>,
    /// What those may be that have no rule.
    pub others: PartitionUse,
}

impl ImagePolicy {
    /// That of `RootImage=` and `MountImages=` where none is said.
    pub fn of_images() -> ImagePolicy {
        let system = 0b10_1111;
        let data = 0b10_1100;
        ImagePolicy::with(&[
            ("root", system),
            ("usr", system),
            ("home", data),
            ("srv", data),
            ("tmp", data),
            ("var", data),
        ])
    }

    /// That of `ExtensionImages=` where none is said.
    pub fn of_extensions() -> ImagePolicy {
        ImagePolicy::with(&[("root", 0b10_1111), ("usr", 0b10_1111)])
    }

    fn with(rules: &[(&str, u16)]) -> ImagePolicy {
        let rules =
            rules.iter().filter_map(|(name, bits)| Some((Partition::named(name)?, PartitionUse(*bits))));
        ImagePolicy { rules: rules.collect(), others: PartitionUse::IGNORE }
    }

    /// What a partition may be. To say nothing about how it is protected is to allow all of it.
    pub fn of(&self, partition: Partition) -> PartitionUse {
        let uses = self.rules.get(&partition).copied().unwrap_or(self.others);
        if uses.allows(PartitionUse::OPEN) { uses } else { PartitionUse(uses.0 | PartitionUse::OPEN.0) }
    }
}

impl Scalar for ImagePolicy {
    fn read(text: &str) -> Result<Self, Fault> {
        let mut rules = BTreeMap::new();
        let mut others = None;
        let whole = match text {
            "*" => Some(PartitionUse::OPEN),
            "-" => Some(PartitionUse::IGNORE),
            "~" => Some(PartitionUse::ABSENT),
            _ => None,
        };
        if let Some(others) = whole {
            return Ok(ImagePolicy { rules, others });
        }
        for rule in text.split(':') {
            let wrong = |expected| Fault::new(Code::Value, rule, expected);
            let (name, uses) = rule.split_once('=').ok_or_else(|| wrong("PARTITION=USE+..., *, - or ~"))?;
            let uses = PartitionUse::read(uses)?;
            let twice = match name.trim() {
                "" => others.replace(uses).is_some(),
                name => rules.insert(Partition::read(name)?, uses).is_some(),
            };
            if twice {
                return Err(wrong("each partition once"));
            }
        }
        // To allow nothing of what is not named is to say nothing about it.
        let nothing = others == Some(PartitionUse(0));
        let others = if nothing { PartitionUse::OPEN } else { others.unwrap_or(PartitionUse::IGNORE) };
        Ok(ImagePolicy { rules, others })
    }
}

/// It is large and seldom said.
impl Scalar for Box<ImagePolicy> {
    fn read(text: &str) -> Result<Self, Fault> {
        ImagePolicy::read(text).map(Box::new)
    }
}

impl fmt::Display for ImagePolicy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let same = self.rules.values().all(|uses| *uses == self.others);
        match self.others {
            PartitionUse::OPEN if same => return out.write_str("*"),
            PartitionUse::IGNORE if same => return out.write_str("-"),
            PartitionUse::ABSENT if same => return out.write_str("~"),
            _ => {}
        }
        let mut gap = "";
        for (partition, uses) in &self.rules {
            write!(out, "{gap}{}={uses}", partition.name())?;
            gap = ":";
        }
        if self.others != PartitionUse::IGNORE {
            write!(out, "{gap}={}", self.others)?;
        }
        Ok(())
    }
}

/// `RootHash=`: what the image must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootHash {
    /// The hash at the root, of 16 bytes at least.
    Hash(Vec<u8>),
    /// A file with it.
    File(AbsolutePath),
}

impl Scalar for RootHash {
    fn read(text: &str) -> Result<Self, Fault> {
        if text.starts_with('/') {
            return AbsolutePath::read(text).map(RootHash::File);
        }
        let pairs: Option<Vec<u8>> = text.as_bytes().chunks(2).map(hex).collect();
        pairs.filter(|bytes| bytes.len() >= 16).map(RootHash::Hash).ok_or_else(|| {
            Fault::new(Code::Value, text, "an absolute path, or 32 or more hexadecimal digits in pairs")
        })
    }
}

fn hex(pair: &[u8]) -> Option<u8> {
    let [high, low] = pair else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)?.checked_shl(4)? | digit(low)?)
}

/// `RootHashSignature=`: who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootHashSignature {
    /// The signature in DER.
    Data(Vec<u8>),
    /// A file with it.
    File(AbsolutePath),
}

impl Scalar for RootHashSignature {
    fn read(text: &str) -> Result<Self, Fault> {
        if text.starts_with('/') {
            return AbsolutePath::read(text).map(RootHashSignature::File);
        }
        let data = text.strip_prefix("base64:").and_then(decode_base64);
        data.map(RootHashSignature::Data)
            .ok_or_else(|| Fault::new(Code::Value, text, "an absolute path, or base64:DATA"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_shown_as_systemd_shows_them() {
        for (text, shown) in [
            ("*", "*"),
            ("=", "*"),
            ("root=", "root=-"),
            ("root=ignore", "-"),
            ("root=absent+unused", "-"),
            ("root=unused+absent+verity+signed+encrypted+unprotected", "root=open"),
            ("usr=verity:root=signed", "root=signed:usr=verity"),
            ("root=open+growfs-on+growfs-off", "root=open"),
            ("=open:root= verity", "root=verity:=open"),
            ("swap=open:usr-verity=absent:esp=open", "esp=open:swap=open:usr-verity=absent"),
            ("=unused", "=unused"),
        ] {
            assert_eq!(
                ImagePolicy::read(text).map(|policy| policy.to_string()).as_deref(),
                Ok(shown),
                "{text}"
            );
        }
        for text in ["root=verity:root=signed", "root=verity:", "usr", "bogus=open", "root=x"] {
            assert!(ImagePolicy::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hashes_have_their_length() {
        assert_eq!(RootHash::read(&"0f".repeat(16)), Ok(RootHash::Hash(vec![15; 16])));
        assert!(RootHash::read(&"0f".repeat(15)).is_err() && RootHash::read("+f").is_err());
    }

    #[test]
    fn a_backslash_keeps_a_colon() {
        assert_eq!(parts("/a\\:b:/c"), ["/a:b", "/c"]);
    }
}
