//! Values of resource control (systemd.resource-control(5)): limits of devices, addresses, ports, lists of what is allowed.

use crate::diagnostic::{Code, Fault};
use crate::setting::{Context, Scalar, Setting, append, each_word, plain_words};
use crate::value::{AbsolutePath, Delegate, NumberSet, Timespan, of_block_io};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// `AllowedCPUs=` and kin: lists add up.
impl Setting for NumberSet {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        self.add(&NumberSet::parse(&context.expand(value)?)?);
        Ok(())
    }
}

/// A device, or a path on the file system of one, with a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerDevice {
    /// The path.
    pub path: AbsolutePath,
    /// A weight, bytes or operations in a second, or microseconds; `u64::MAX` for no limit.
    pub value: u64,
}

impl PerDevice {
    /// Reads a path and what stands behind it.
    fn read(
        text: &str,
        value: impl Fn(&str) -> Option<u64>,
        expected: &'static str,
    ) -> Result<PerDevice, Fault> {
        let (path, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let path = AbsolutePath::read(path).map_err(|fault| fault.within(0..path.len()))?;
        let place = text.len().saturating_sub(rest.trim_start().len())..text.len();
        let wrong = || Fault::new(Code::Number, rest.trim(), expected).within(place);
        Ok(PerDevice { path, value: value(rest.trim()).ok_or_else(wrong)? })
    }
}

macro_rules! per_device {
    ($($(#[$meta:meta])* $type:ident $once:literal |$text:ident| $value:expr, $expected:literal;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $type(pub Vec<PerDevice>);
        impl Setting for $type {
            fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
                let new = PerDevice::read(&context.expand(value)?, |$text| $value, $expected)?;
                match self.0.iter_mut().find(|known| $once && known.path == new.path) {
                    Some(known) => *known = new,
                    None => append(&mut self.0, vec![new])?,
                }
                Ok(())
            }
        }
    )*};
}
per_device! {
    /// `IODeviceWeight=`.
    IoWeights false |text| super::number::number(text).filter(|weight| (1..=10_000).contains(weight)), "a weight from 1 to 10000";
    /// `BlockIODeviceWeight=`: a [`BlockIoWeight`] each.
    BlockIoWeights false |text| super::number::number(text).filter(|weight| (10..=1000).contains(weight)), "a weight from 10 to 1000";
    /// `IOReadBandwidthMax=` and kin: to the base of 1000; each device once.
    IoLimits true |text| thousands(text).filter(|limit| *limit > 0), "a number above zero, with K, M, G or T, or 'infinity'";
    /// `IODeviceLatencyTargetSec=`: microseconds.
    IoLatencies false |text| Timespan::parse(text, 1_000_000).ok().map(|span| span.0), "a time span such as '25ms'";
}

impl BlockIoWeights {
    /// As `IODeviceWeight=` has them.
    pub fn weights(&self) -> IoWeights {
        let today =
            |item: &PerDevice| PerDevice { path: item.path.clone(), value: of_block_io(item.value).0 };
        IoWeights(self.0.iter().map(today).collect())
    }
}

impl IoLimits {
    /// Those that limit something.
    pub fn limits(&self) -> impl Iterator<Item = &PerDevice> {
        self.0.iter().filter(|limit| limit.value != u64::MAX)
    }
}

/// Reads a size to the base of 1000.
fn thousands(text: &str) -> Option<u64> {
    if text == "infinity" {
        return Some(u64::MAX);
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let power = ["", "K", "M", "G", "T", "P", "E"]
        .iter()
        .position(|known| *known == unit || (known.is_empty() && unit == "B"))?;
    let factor = 1000_u64.checked_pow(u32::try_from(power).ok()?)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut sum = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let mut weight = factor;
    for digit in fraction.bytes() {
        weight = weight.checked_div(10)?;
        sum = sum.checked_add(weight.checked_mul(u64::from(digit.checked_sub(b'0')?))?)?;
    }
    Some(sum)
}

/// Controllers and what systemd counts among them, in the order in which they are shown.
const CONTROLLERS: [&str; 13] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "io",
    "blkio",
    "memory",
    "devices",
    "pids",
    "bpf-firewall",
    "bpf-devices",
    "bpf-foreign",
    "bpf-socket-bind",
    "bpf-restrict-network-interfaces",
];

/// `DisableControllers=`: controllers; what is none is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controllers(BTreeSet<u8>);

impl Controllers {
    /// The names, in the order in which they are shown.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter_map(|at| CONTROLLERS.get(usize::from(*at)).copied())
    }

    /// Adds those of another list.
    pub fn join(&mut self, other: &Controllers) {
        self.0.extend(&other.0);
    }

    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Setting for Controllers {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        for (word, _) in plain_words(value, value) {
            let found = CONTROLLERS.iter().position(|known| *known == word);
            self.0.extend(found.and_then(|at| u8::try_from(at).ok()));
        }
        Ok(())
    }
}

/// `Delegate=`: what is no controller is named and skipped.
impl Setting for Option<Delegate> {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        *self = match crate::value::parse_bool(value) {
            Some(true) => Some(Delegate::All),
            Some(false) => Some(Delegate::Controllers(vec!["-".to_owned()])),
            None => {
                let mut fault = None;
                let mut controllers = match self.take() {
                    Some(Delegate::Controllers(list)) => {
                        list.into_iter().filter(|word| word != "-").collect()
                    }
                    Some(Delegate::All) | None => Vec::new(),
                };
                for (word, at) in plain_words(value, value) {
                    match CONTROLLERS.contains(&word) {
                        true if controllers.iter().any(|known| known == word) => {}
                        true => controllers.push(word.to_owned()),
                        false => {
                            fault = Some(Fault::new(Code::Word, word, CONTROLLERS.join(", ")).within(at))
                        }
                    }
                }
                *self = Some(Delegate::Controllers(controllers));
                return fault.map_or(Ok(()), Err);
            }
        };
        Ok(())
    }
}

/// An address with the length of its prefix, without the bits behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPrefix {
    /// The address.
    pub address: IpAddr,
    /// Bits that count.
    pub length: u8,
}

impl AddressPrefix {
    fn read(text: &str) -> Option<AddressPrefix> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().ok()?;
        let full = if address.is_ipv4() { 32_u8 } else { 128 };
        let length = length.map_or(Some(full), |length| length.parse().ok().filter(|bits| *bits <= full))?;
        let dropped = u32::from(full.checked_sub(length)?);
        let address = match address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(dropped).unwrap_or(0)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(dropped).unwrap_or(0)).into()),
        };
        Some(AddressPrefix { address, length })
    }
}

impl fmt::Display for AddressPrefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.length)
    }
}

/// Words that stand for several prefixes. What is wrong is named and skipped.
impl Setting for Vec<AddressPrefix> {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        let mut fault = None;
        for (word, at) in plain_words(value, value) {
            let texts: &[&str] = match word {
                "any" => &["0.0.0.0/0", "::/0"],
                "localhost" => &["127.0.0.0/8", "::1/128"],
                "link-local" => &["169.254.0.0/16", "fe80::/64"],
                "multicast" => &["224.0.0.0/4", "ff00::/8"],
                other => &[other],
            };
            for prefix in texts.iter().map(|text| AddressPrefix::read(text)) {
                match prefix {
                    Some(prefix) if self.contains(&prefix) => {}
                    Some(prefix) => append(self, vec![prefix])?,
                    None => {
                        let expected = "an address, ADDRESS/BITS, any, localhost, link-local or multicast";
                        fault = Some(Fault::new(Code::Name, word, expected).within(at.clone()));
                    }
                }
            }
        }
        fault.map_or(Ok(()), Err)
    }
}

/// `SocketBindAllow=` and `SocketBindDeny=`: which sockets may be bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindRule {
    /// AF_INET, AF_INET6, or 0 for both.
    pub family: i32,
    /// IPPROTO_TCP, IPPROTO_UDP, or 0 for both.
    pub protocol: i32,
    /// How many ports; 0 for all.
    pub count: u16,
    /// The first port.
    pub first: u16,
}

impl Scalar for BindRule {
    fn read(text: &str) -> Result<Self, Fault> {
        bind_rule(text).ok_or_else(|| {
            Fault::new(
                Code::Value,
                text,
                "any, or ipv4 or ipv6, tcp or udp, and a port or range, divided by ':'",
            )
        })
    }
}

fn bind_rule(text: &str) -> Option<BindRule> {
    let mut rule = BindRule::default();
    let mut parts = text.split(':').peekable();
    if let Some(family) = parts.next_if(|part| ["ipv4", "ipv6"].contains(part)) {
        rule.family = if family == "ipv4" { 2 } else { 10 };
    }
    if let Some(protocol) = parts.next_if(|part| ["tcp", "udp"].contains(part)) {
        rule.protocol = if protocol == "tcp" { 6 } else { 17 };
    }
    if let Some(ports) = parts.next().filter(|ports| *ports != "any") {
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        rule.count = last.checked_sub(first)?.checked_add(1)?;
        rule.first = first;
    }
    parts.next().is_none().then_some(rule)
}

impl fmt::Display for BindRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = [(2, "ipv4:"), (10, "ipv6:")].into_iter().find(|(number, _)| *number == self.family);
        let protocol = [(6, "tcp:"), (17, "udp:")].into_iter().find(|(number, _)| *number == self.protocol);
        write!(out, "{}{}", family.map_or("", |(_, name)| name), protocol.map_or("", |(_, name)| name))?;
        match self.count {
            0 => out.write_str("any"),
            1 => write!(out, "{}", self.first),
            count => write!(out, "{}-{}", self.first, self.first.saturating_add(count.saturating_sub(1))),
        }
    }
}

impl Setting for Vec<BindRule> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        append(self, vec![BindRule::read(&context.expand(value)?)?])
    }
}

/// A list of what alone is allowed, or with `~` of what is not: `RestrictNetworkInterfaces=`, `RestrictFileSystems=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowList {
    /// Whether it lists what is allowed.
    pub allow: bool,
    /// The names.
    pub names: BTreeSet<String>,
    /// Something was said: from then on it is settled which of both it is, whatever is taken away again.
    #[serde(default)]
    pub said: bool,
}

impl AllowList {
    /// Whether it restricts nothing. A list of what is allowed from which all was taken allows nothing.
    pub fn is_free(&self) -> bool {
        self.names.is_empty() && !(self.said && self.allow)
    }

    /// `members` gives what a word stands for, if it is one.
    fn add<'a>(
        &mut self,
        value: &'a str,
        members: impl Fn(&'a str) -> Option<Vec<&'a str>>,
        expected: &'static str,
    ) -> Result<(), Fault> {
        let (except, rest) = value.strip_prefix('~').map_or((false, value), |rest| (true, rest));
        if !self.said {
            (self.allow, self.said) = (!except, true);
        }
        let mut fault = None;
        for (word, at) in plain_words(value, rest) {
            let Some(names) = members(word) else {
                fault = Some(Fault::new(Code::Name, word, expected).within(at));
                continue;
            };
            for name in names {
                match except != self.allow {
                    true => drop(self.names.insert(name.to_owned())),
                    false => drop(self.names.remove(name)),
                }
            }
        }
        fault.map_or(Ok(()), Err)
    }
}

/// `RestrictNetworkInterfaces=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceList(pub AllowList);

impl Setting for InterfaceList {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        let valid = |word: &str| {
            crate::setting::InterfaceName::read(word).is_ok()
                || (word.len() <= 127 && !word.contains(['/', ':', '%']))
        };
        self.0.add(value, |word| valid(word).then(|| vec![word]), "the name of a network interface")
    }
}

/// `RestrictFileSystems=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemList(pub AllowList);

/// Groups with their members, as systemd-analyze(1) `filesystems` prints them.
const FILE_SYSTEM_GROUPS: &str = include_str!("filesystems.txt");

impl Setting for FileSystemList {
    /// A group is its members from here on.
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        let group = |name: &str| FILE_SYSTEM_GROUPS.lines().find(|line| line.split(' ').next() == Some(name));
        let members = |word| match word_is_group(word) {
            false => Some(vec![word]),
            true => group(word).map(|line| line.split(' ').skip(1).collect()),
        };
        self.0.add(value, members, "a file system, or a group such as @basic-api")
    }
}

fn word_is_group(word: &str) -> bool {
    word.starts_with('@')
}

/// `BPFProgram=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfProgram {
    /// Where it is attached, such as `egress`.
    pub attach: String,
    /// Where it is pinned.
    pub path: AbsolutePath,
}

const ATTACH: [&str; 18] = [
    "egress",
    "ingress",
    "sock_create",
    "sock_ops",
    "device",
    "bind4",
    "bind6",
    "connect4",
    "connect6",
    "post_bind4",
    "post_bind6",
    "sendmsg4",
    "sendmsg6",
    "sysctl",
    "recvmsg4",
    "recvmsg6",
    "getsockopt",
    "setsockopt",
];

impl Setting for Vec<BpfProgram> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        let Some((attach, path)) = text.split_once(':') else {
            return Err(Fault::new(Code::Value, &text, "TYPE:PATH"));
        };
        if !ATTACH.contains(&attach) {
            return Err(Fault::new(Code::Word, attach, ATTACH.join(", ")));
        }
        append(self, vec![BpfProgram { attach: attach.to_owned(), path: AbsolutePath::read(path)? }])
    }
}

/// `ManagedOOMMemoryPressureLimit=`: hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureLimit(pub u32);

impl PressureLimit {
    /// On the scale of D-Bus, where `u32::MAX` is a whole.
    pub fn scaled(self) -> u32 {
        let part = u64::from(self.0).saturating_mul(u64::from(u32::MAX)).saturating_add(5_000);
        u32::try_from(part.checked_div(10_000).unwrap_or(0)).unwrap_or(u32::MAX)
    }
}

impl Scalar for PressureLimit {
    fn read(text: &str) -> Result<Self, Fault> {
        let number = || {
            let (text, digits) =
                match (text.strip_suffix('%'), text.strip_suffix('‰'), text.strip_suffix('‱')) {
                    (Some(text), ..) => (text, 2_usize),
                    (_, Some(text), _) => (text, 1),
                    (.., Some(text)) => (text, 0),
                    _ => return None,
                };
            let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
            let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            (!whole.is_empty() && plain(whole) && plain(decimals) && decimals.len() <= digits)
                .then_some(())?;
            format!("{whole}{decimals:0<digits$}").parse().ok().filter(|hundredths| *hundredths <= 10_000)
        };
        let expected = "a percentage up to 100% with at most two decimals";
        number().map(PressureLimit).ok_or_else(|| Fault::new(Code::Number, text, expected))
    }
}

/// `NFTSet=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NftSet {
    /// What is put in the set: 3 the cgroup, 4 the user, 5 the group.
    pub source: i32,
    /// The family of the table, as netfilter numbers it.
    pub family: i32,
    /// The table.
    pub table: String,
    /// The set.
    pub set: String,
}

impl NftSet {
    fn read(word: &str) -> Result<NftSet, Fault> {
        let wrong = |found: &str, expected: &'static str| Fault::new(Code::Value, found, expected);
        let parts: Vec<&str> = word.split(':').collect();
        let [source, family, table, set] = parts.as_slice() else {
            return Err(wrong(word, "SOURCE:FAMILY:TABLE:SET"));
        };
        let sources = [("cgroup", 3), ("user", 4), ("group", 5)];
        let families = [("arp", 3), ("bridge", 7), ("inet", 1), ("ip", 2), ("ip6", 10), ("netdev", 5)];
        let number = |list: &[(&str, i32)], word: &str| {
            list.iter().find(|(known, _)| *known == word).map(|(_, number)| *number)
        };
        let named = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.len() <= 31
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "/\\_.".contains(c))
        };
        if let Some(name) = [table, set].into_iter().find(|name| !named(name)) {
            return Err(wrong(name, "the name of a table or set"));
        }
        Ok(NftSet {
            source: number(&sources, source).ok_or_else(|| wrong(source, "cgroup, user or group"))?,
            family: number(&families, family)
                .ok_or_else(|| wrong(family, "arp, bridge, inet, ip, ip6 or netdev"))?,
            table: (*table).to_owned(),
            set: (*set).to_owned(),
        })
    }
}

/// What is wrong is named and skipped.
impl Setting for Vec<NftSet> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let (good, rest) = each_word(value, context, NftSet::read)?;
        append(self, good)?;
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_prefixes() {
        for text in ["any", "80", "ipv4:udp:100-200", "tcp:80"] {
            assert_eq!(BindRule::read(text).map(|rule| rule.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "bogus", "tcp:ipv4:80", "tcp:200-100", "70000", "ipv4:"] {
            assert!(BindRule::read(text).is_err(), "{text}");
        }
        assert_eq!(
            AddressPrefix::read("10.1.2.3/16").map(|prefix| prefix.to_string()).as_deref(),
            Some("10.1.0.0/16")
        );
        assert_eq!(AddressPrefix::read("10.0.0.1/40"), None);
        assert_eq!(PressureLimit::read("50.5%").map(PressureLimit::scaled), Ok(2_168_958_484));
        assert_eq!((thousands("1.5G"), thousands("10k")), (Some(1_500_000_000), None));
    }
}
