//! Values of directives that are newer than systemd 257: quotas, delegation of BPF, concurrency, what a reload refreshes.

use crate::diagnostic::{Code, Fault};
use crate::setting::{Context, Scalar, Setting, append, each_word, plain_words};
use crate::value::{parse_bool, parse_size};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// `StateDirectoryQuota=` and kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quota {
    /// None.
    Off,
    /// Bytes.
    Bytes(u64),
    /// Of the file system, in percent.
    Percent(u8),
}

impl Scalar for Quota {
    fn read(text: &str) -> Result<Self, Fault> {
        let percent = |text: &str| text.parse().ok().filter(|percent| *percent <= 100).map(Quota::Percent);
        let quota = match (text, text.strip_suffix('%')) {
            ("off", _) => Some(Quota::Off),
            (_, Some(text)) => percent(text),
            (_, None) => parse_size(text).map(Quota::Bytes),
        };
        quota.ok_or_else(|| Fault::new(Code::Number, text, "a size in bytes, a percentage, or off"))
    }
}

/// `ConcurrencySoftMax=` and `ConcurrencyHardMax=` of slices: a number of units; `u32::MAX` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency(pub u32);

impl Scalar for Concurrency {
    fn read(text: &str) -> Result<Self, Fault> {
        let number = if text == "infinity" { Some(u32::MAX) } else { text.parse().ok() };
        number.map(Concurrency).ok_or_else(|| Fault::new(Code::Number, text, "a number, or infinity"))
    }
}

/// `BPFDelegateCommands=` and kin: what may be done with a BPF token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BpfDelegation {
    /// Nothing.
    #[default]
    Nothing,
    /// Everything.
    Any,
    /// What has one of these names, as the kernel writes them.
    Names(BTreeSet<String>),
}

/// Names that the kernel has (linux/bpf.h), without what all of a kind begin with; a line a kind, each name at the place of its
/// number.
const BPF_NAMES: &str = include_str!("bpf.txt");

/// A name as the kernel writes it. Upper and lower case, underscores, and what all of a kind begin with make no difference.
fn bpf_name(kind: &str, word: &str) -> Option<&'static str> {
    let plain = |word: &str| word.replace('_', "").to_ascii_lowercase();
    let wanted = plain(word);
    let short = wanted.strip_prefix("bpf").unwrap_or(&wanted);
    let short = match kind {
        "maps" => short.strip_prefix("maptype"),
        "programs" => short.strip_prefix("progtype"),
        _ => None,
    }
    .unwrap_or(short);
    let line = BPF_NAMES.lines().find(|line| line.split(' ').next() == Some(kind))?;
    line.split(' ').skip(1).find(|name| plain(name) == short)
}

impl BpfDelegation {
    /// As an option of a bpffs has it (`delegate_cmds=` and kin).
    pub fn option(&self) -> Option<String> {
        match self {
            BpfDelegation::Nothing => None,
            BpfDelegation::Any => Some("any".to_owned()),
            BpfDelegation::Names(names) => Some(names.iter().cloned().collect::<Vec<_>>().join(":")),
        }
    }
}

impl Setting for BpfDelegation {
    /// What is no name is named and skipped.
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        if value == "any" {
            *self = BpfDelegation::Any;
            return Ok(());
        }
        let kind = context.directive.strip_prefix("BPFDelegate").unwrap_or("").to_ascii_lowercase();
        let mut names = match std::mem::take(self) {
            BpfDelegation::Names(names) => names,
            BpfDelegation::Nothing | BpfDelegation::Any => BTreeSet::new(),
        };
        let mut fault = Ok(());
        for (word, at) in plain_words(value, value) {
            match bpf_name(&kind, word) {
                Some(name) => drop(names.insert(name.to_owned())),
                None => {
                    let expected = format!("any, or names of {kind} that the kernel has (linux/bpf.h)");
                    fault = Err(Fault::new(Code::Name, word, expected).within(at));
                }
            }
        }
        *self = if names.is_empty() { BpfDelegation::Nothing } else { BpfDelegation::Names(names) };
        fault
    }
}

/// `RefreshOnReload=`: what is made anew for a service that is reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Images and directories that are laid over.
    pub extensions: bool,
    /// Credentials.
    pub credentials: bool,
}

impl Refresh {
    /// The words for it.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let words = [(self.extensions, "extensions"), (self.credentials, "credentials")];
        words.into_iter().filter(|(set, _)| *set).map(|(_, word)| word)
    }
}

impl Scalar for Refresh {
    fn read(text: &str) -> Result<Self, Fault> {
        if let Some(all) = parse_bool(text) {
            return Ok(Refresh { extensions: all, credentials: all });
        }
        let (inverted, rest) = text.strip_prefix('~').map_or((false, text), |rest| (true, rest));
        let mut refresh = Refresh { extensions: inverted, credentials: inverted };
        for (word, at) in plain_words(text, rest) {
            match word {
                "extensions" => refresh.extensions = !inverted,
                "credentials" => refresh.credentials = !inverted,
                _ => return Err(Fault::new(Code::Word, word, "extensions, credentials").within(at)),
            }
        }
        Ok(refresh)
    }
}

/// An extended attribute (`XAttrListen=` and kin of sockets).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name, with the namespace before it.
    pub name: String,
    /// What it is set to.
    pub value: String,
}

/// What is wrong is named and skipped.
impl Setting for Vec<Attribute> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let (good, rest) = each_word(value, context, |word| match word.split_once('=') {
            Some((name, value)) if is_attribute(name) && !value.contains('\0') => {
                Ok(Attribute { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(Fault::new(Code::Value, word, "user.NAME=VALUE")),
        })?;
        append(self, good)?;
        rest
    }
}

/// xattr(7).
fn is_attribute(name: &str) -> bool {
    name.len() <= 255
        && name.strip_prefix("user.").is_some_and(|rest| !rest.is_empty())
        && !name.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_later_versions() {
        assert_eq!((Quota::read("5%"), Quota::read("1K")), (Ok(Quota::Percent(5)), Ok(Quota::Bytes(1024))));
        assert!(Quota::read("101%").is_err() && Quota::read("x").is_err());
        assert_eq!(Concurrency::read("infinity"), Ok(Concurrency(u32::MAX)));
        assert_eq!(Refresh::read("~credentials"), Ok(Refresh { extensions: true, credentials: false }));
        assert!(Refresh::read("bogus").is_err());
        let name = |kind, word| bpf_name(kind, word).unwrap_or("");
        assert_eq!(name("commands", "BPF_MAP_CREATE"), "map_create");
        assert_eq!(name("maps", "BPFMapTypeLPMTrie"), "lpm_trie");
        assert_eq!((name("programs", "socket_filter"), name("programs", "hash")), ("socket_filter", ""));
        assert_eq!(name("attachments", "BPFCGroupInetIngress"), "cgroup_inet_ingress");
        assert!(is_attribute("user.a") && !is_attribute("security.a") && !is_attribute("user."));
    }
}
