//! System calls, their groups, and what a filter says of them: `SystemCallFilter=` and its kin (systemd.exec(5)).
//!
//! The groups are data, as `systemd-analyze syscall-filter` of systemd 257 prints them: one a line, `@known` is all that a
//! kernel of today has. What must stay true: a value keeps what was written, in order, and is merged only
//! when asked; so it stays small, and a later version with other groups reads it too.

use crate::diagnostic::{Code, Fault};
use crate::setting::{Context, ENTRIES_MAX, Scalar, Setting, plain_words};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

const GROUPS: &str = include_str!("syscalls.txt");

/// Errors by number, from 1; where there is no error of a number, a dash (errno(3), the numbers of x86 and ARM).
const ERRORS: &str = "EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK \
    EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE \
    EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP - ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG \
    EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT - EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG \
    EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD \
    ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT \
    EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH \
    ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN \
    EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE \
    ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON";

/// What a filter does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyscallAction {
    /// The process is killed by SIGSYS.
    Kill,
    /// The call fails with this error; 0 to 4095.
    Errno(u16),
}

impl SyscallAction {
    /// Reads `kill`, the name of an error, or a number from 0 to 4095.
    pub fn parse(text: &str) -> Option<SyscallAction> {
        if text == "kill" {
            return Some(SyscallAction::Kill);
        }
        if let Ok(number) = text.parse::<u16>() {
            return (number <= 4095).then_some(SyscallAction::Errno(number));
        }
        let known = match text {
            "EWOULDBLOCK" => "EAGAIN",
            "EDEADLOCK" => "EDEADLK",
            "ENOTSUP" => "EOPNOTSUPP",
            other => other,
        };
        let found = ERRORS.split_whitespace().position(|name| name == known && name != "-")?;
        u16::try_from(found.saturating_add(1)).ok().map(SyscallAction::Errno)
    }

    /// `kill`, the name of the error, or its number where it has none.
    pub fn name(self) -> String {
        match self {
            SyscallAction::Kill => "kill".to_owned(),
            SyscallAction::Errno(number) => {
                let place = usize::from(number).checked_sub(1);
                let name = place.and_then(|at| ERRORS.split_whitespace().nth(at)).filter(|name| *name != "-");
                name.map_or_else(|| number.to_string(), str::to_owned)
            }
        }
    }
}

impl Scalar for SyscallAction {
    fn read(text: &str) -> Result<Self, Fault> {
        SyscallAction::parse(text).ok_or_else(|| {
            Fault::new(Code::Value, text, "the name of an error, a number up to 4095, or kill")
        })
    }
}

fn as_text<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl Serialize for SyscallAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        as_text(&self.name(), serializer)
    }
}

impl<'de> Deserialize<'de> for SyscallAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        SyscallAction::parse(&text).ok_or_else(|| serde::de::Error::custom("not an action of a filter"))
    }
}

/// The members of a group, calls and other groups.
fn group(name: &str) -> Option<impl Iterator<Item = &'static str>> {
    let line = GROUPS.lines().find(|line| line.split(' ').next() == Some(name))?;
    Some(line.split(' ').skip(1))
}

/// The name of a call or group as the data has it.
fn known(name: &str) -> Option<&'static str> {
    if name.starts_with('@') {
        return GROUPS.lines().filter_map(|line| line.split(' ').next()).find(|known| *known == name);
    }
    GROUPS.split_ascii_whitespace().find(|known| *known == name)
}

/// The calls of a group with those of the groups in it, or the call itself.
pub fn system_calls(name: &str) -> BTreeSet<&'static str> {
    let (mut calls, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut open: Vec<&'static str> = known(name).into_iter().collect();
    while let Some(name) = open.pop() {
        if !name.starts_with('@') {
            calls.insert(name);
        } else if seen.insert(name) {
            open.extend(group(name).into_iter().flatten());
        }
    }
    calls
}

/// One word of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// It came after `~`.
    except: bool,
    name: &'static str,
    action: Option<SyscallAction>,
}

/// `SystemCallFilter=` and `SystemCallLog=`: what was written, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyscallFilter {
    /// Whether the first line lists what is allowed; `None` without a line.
    allow: Option<bool>,
    entries: Vec<Entry>,
}

/// The calls that a merged filter lists.
pub type Listed = BTreeMap<&'static str, Option<SyscallAction>>;

impl SyscallFilter {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.allow.is_none()
    }

    /// Takes a line; what is wrong in it is named and skipped.
    fn add(&mut self, line: &str) -> Result<(), Fault> {
        let (except, rest) = line.strip_prefix('~').map_or((false, line), |rest| (true, rest));
        self.allow.get_or_insert(!except);
        let mut wrong = None;
        for (word, at) in plain_words(line, rest) {
            let (name, action) = match word.split_once(':') {
                Some((name, action)) => (name, Some(action)),
                None => (word, None),
            };
            let action = match action.map(SyscallAction::read).transpose() {
                Ok(action) => action,
                Err(error) => {
                    wrong = Some(error.within(at));
                    continue;
                }
            };
            if action.is_some() && !except {
                let expected = "no error for a call that is allowed; errors belong after '~'";
                wrong = Some(Fault::new(Code::Value, word, expected).within(at));
                continue;
            }
            match known(name) {
                Some(_) if self.entries.len() >= ENTRIES_MAX => {
                    let expected = format!("at most {ENTRIES_MAX} entries");
                    return Err(Fault::new(Code::Limit, word, expected).within(at));
                }
                Some(name) => self.entries.push(Entry { except, name, action }),
                None => {
                    wrong = Some(
                        Fault::new(Code::Name, name, "a system call or a group such as @system-service")
                            .within(at),
                    )
                }
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// The merged filter: whether it lists what is allowed, and the calls. The first line decides which of the two it is;
    /// later ones add to the list or take from it. `always` is what a list of what is allowed has in any case.
    pub fn merged(&self, always: &str) -> Option<(bool, Listed)> {
        let allow = self.allow?;
        let mut listed = Listed::new();
        if allow {
            listed.extend(system_calls(always).into_iter().map(|name| (name, None)));
        }
        for entry in &self.entries {
            for name in system_calls(entry.name) {
                // An exception with an error of its own stays on a list of what is allowed, as that error.
                if entry.except != allow || entry.action.is_some() {
                    listed.insert(name, entry.action);
                } else {
                    listed.remove(name);
                }
            }
        }
        Some((allow, listed))
    }
}

impl Setting for SyscallFilter {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        self.add(value)
    }
}

impl Serialize for SyscallFilter {
    /// The lines, one entry each.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let first = self.allow.map(|allow| if allow { String::new() } else { "~".to_owned() });
        let entries = self.entries.iter().map(|entry| {
            let action = entry.action.map_or_else(String::new, |action| format!(":{}", action.name()));
            format!("{}{}{action}", if entry.except { "~" } else { "" }, entry.name)
        });
        serializer.collect_seq(first.into_iter().chain(entries))
    }
}

impl<'de> Deserialize<'de> for SyscallFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut filter = SyscallFilter::default();
        for line in Vec::<String>::deserialize(deserializer)? {
            filter.add(&line).map_err(serde::de::Error::custom)?;
        }
        Ok(filter)
    }
}

/// `SystemCallArchitectures=`: those that may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architectures(pub BTreeSet<String>);

const ARCHITECTURES: &[&str] = &[
    "native",
    "x86",
    "x86-64",
    "x32",
    "arm",
    "arm64",
    "loongarch64",
    "mips",
    "mips64",
    "mips64-n32",
    "mips-le",
    "mips64-le",
    "mips64-le-n32",
    "parisc",
    "parisc64",
    "ppc",
    "ppc64",
    "ppc64-le",
    "riscv64",
    "s390",
    "s390x",
];

impl Setting for Architectures {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        let mut wrong = None;
        for word in crate::value::split_raw(value)? {
            match ARCHITECTURES.contains(&&*word.text) {
                true => drop(self.0.insert(word.text.into_owned())),
                false => {
                    wrong = Some(Fault::new(Code::Word, &word.text, ARCHITECTURES.join(", ")).within(word.at))
                }
            }
        }
        wrong.map_or(Ok(()), Err)
    }
}

/// Address families by number (address_families(7)), from 0.
const FAMILIES: &str = "AF_UNSPEC AF_UNIX AF_INET AF_AX25 AF_IPX AF_APPLETALK AF_NETROM AF_BRIDGE AF_ATMPVC AF_X25 AF_INET6 \
    AF_ROSE AF_DECnet AF_NETBEUI AF_SECURITY AF_KEY AF_NETLINK AF_PACKET AF_ASH AF_ECONET AF_ATMSVC AF_RDS AF_SNA AF_IRDA \
    AF_PPPOX AF_WANPIPE AF_LLC AF_IB AF_MPLS AF_CAN AF_TIPC AF_BLUETOOTH AF_IUCV AF_RXRPC AF_ISDN AF_PHONET AF_IEEE802154 \
    AF_CAIF AF_ALG AF_NFC AF_VSOCK AF_KCM AF_QIPCRTR AF_SMC AF_XDP AF_MCTP";

/// `RestrictAddressFamilies=`: the listed ones are allowed, or all but them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressFamilies {
    /// Which of the two.
    pub allow: bool,
    /// By number.
    pub families: BTreeSet<u16>,
}

impl AddressFamilies {
    /// The names, in the order of the numbers.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let listed = |(number, _): &(u16, &str)| self.families.contains(number);
        (0_u16..).zip(FAMILIES.split_whitespace()).filter(listed).map(|(_, name)| name)
    }
}

impl Setting for Option<AddressFamilies> {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        if value == "none" {
            *self = Some(AddressFamilies { allow: true, families: BTreeSet::new() });
            return Ok(());
        }
        let (except, rest) = value.strip_prefix('~').map_or((false, value), |rest| (true, rest));
        let families =
            self.get_or_insert_with(|| AddressFamilies { allow: !except, families: BTreeSet::new() });
        let mut wrong = None;
        for (word, at) in plain_words(value, rest) {
            let name = if word == "AF_LOCAL" { "AF_UNIX" } else { word };
            let found = (0_u16..).zip(FAMILIES.split_whitespace()).find(|(_, known)| *known == name);
            match found {
                Some((number, _)) if except != families.allow => drop(families.families.insert(number)),
                Some((number, _)) => drop(families.families.remove(&number)),
                None => {
                    wrong = Some(Fault::new(Code::Name, word, "an address family such as AF_INET").within(at))
                }
            }
        }
        wrong.map_or(Ok(()), Err)
    }
}

/// `RestrictNamespaces=`: the CLONE_NEW* bits that may be used (namespaces(7)). `DelegateNamespaces=`: those of what is delegated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces(pub u64);

impl Namespaces {
    /// Kinds by name and bit.
    pub const KINDS: &'static [(&'static str, u64)] = &[
        ("cgroup", 0x0200_0000),
        ("ipc", 0x0800_0000),
        ("net", 0x4000_0000),
        ("mnt", 0x0002_0000),
        ("pid", 0x2000_0000),
        ("user", 0x1000_0000),
        ("uts", 0x0400_0000),
    ];
    /// All kinds.
    pub const ALL: u64 = 0x7e02_0000;
}

impl Setting for Option<Namespaces> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        if let Some(yes) = crate::value::parse_bool(value) {
            let none = yes == (context.directive != "DelegateNamespaces");
            *self = Some(Namespaces(if none { 0 } else { Namespaces::ALL }));
            return Ok(());
        }
        let (except, rest) = value.strip_prefix('~').map_or((false, value), |rest| (true, rest));
        let mut bits = 0;
        for (word, at) in plain_words(value, rest) {
            let found = Namespaces::KINDS.iter().find(|(name, _)| *name == word);
            let wrong =
                || Fault::new(Code::Word, word, "cgroup, ipc, net, mnt, pid, user, uts").within(at.clone());
            bits |= found.ok_or_else(wrong)?.1;
        }
        let merged = match (*self, except) {
            (None, false) => bits,
            (None, true) => Namespaces::ALL & !bits,
            (Some(old), false) => old.0 | bits,
            (Some(old), true) => old.0 & !bits,
        };
        *self = Some(Namespaces(merged));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn filter(lines: &[&str]) -> SyscallFilter {
        let mut filter = SyscallFilter::default();
        for line in lines {
            let _ = filter.add(line);
        }
        filter
    }

    fn shown(lines: &[&str]) -> (bool, Vec<String>) {
        let (allow, listed) = filter(lines).merged("@default").unwrap();
        let entry = |(name, action): (&&str, &Option<SyscallAction>)| {
            action.map_or((*name).to_owned(), |action| format!("{name}:{}", action.name()))
        };
        (allow, listed.iter().map(entry).collect())
    }

    #[test]
    fn the_first_line_decides() {
        let (allow, calls) = shown(&["~mount keyctl:EACCES", "keyctl"]);
        assert!(!allow && calls == ["mount"], "{calls:?}");
        let (allow, calls) = shown(&["@default mount ptrace", "~mount", "~ptrace:EPERM"]);
        assert!(allow && !calls.contains(&"mount".to_owned()));
        assert!(calls.contains(&"execve".to_owned()) && calls.contains(&"ptrace:EPERM".to_owned()));
    }

    #[test]
    fn groups_are_whole_and_known() {
        for line in GROUPS.lines() {
            for word in line.split(' ') {
                assert!(known(word).is_some(), "{word}");
            }
        }
        assert!(system_calls("@system-service").contains("read"));
        assert!(system_calls("@nothing").is_empty());
    }

    #[test]
    fn unknown_names_are_skipped() {
        let mut one = SyscallFilter::default();
        assert!(one.add("read nosuch write").unwrap_err().to_string().contains("nosuch"));
        assert_eq!(one, filter(&["read write"]));
        assert!(filter(&["~"]).merged("@default").is_some());
        assert!(filter(&[]).merged("@default").is_none());
    }

    #[test]
    fn errors_by_name_and_number() {
        assert_eq!(SyscallAction::parse("EUCLEAN"), Some(SyscallAction::Errno(117)));
        assert_eq!(SyscallAction::parse("EHWPOISON"), Some(SyscallAction::Errno(133)));
        assert_eq!(SyscallAction::parse("4096"), None);
        assert_eq!(SyscallAction::Errno(13).name(), "EACCES");
        assert_eq!(SyscallAction::Errno(41).name(), "41");
    }
}
