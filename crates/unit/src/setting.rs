//! How a field takes a value: one trait, one implementation a type. The macro of the tables calls nothing else.

use crate::diagnostic::{Code, Fault};
use crate::lists::LongLists;
use crate::value::*;
pub use crate::value::{
    Amount, BlockIoWeight, CpuPriority, CpuQuota, CpuShares, IoPriority, NiceLevel, OomScore,
    PressureDuration, Size, Weight, Within,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::ops::Range;

/// Up to this many words a list is searched word by word.
const FEW: usize = 16;

/// At most this many entries are kept in one list, over all lines and drop-ins. systemd knows no such number; this one is
/// beyond what its own limit of 131,072 units can mean.
pub const ENTRIES_MAX: usize = 524_288;

/// What an assignment can ask while it is read.
pub struct Context<'a> {
    /// Expands specifiers.
    pub expand: &'a dyn Fn(&str) -> Result<String, Fault>,
    /// Whether this directive does.
    pub expands: bool,
    /// Its name, for values that are read by it; empty outside of a table.
    pub directive: &'a str,
    /// What the long lists of the unit have, where many lines are read one after the other.
    pub lists: Option<&'a LongLists>,
}

impl<'a> Context<'a> {
    /// The same for one directive, which does or does not expand specifiers.
    pub fn of<'b>(&'b self, directive: &'b str, expands: bool) -> Context<'b> {
        Context { expand: self.expand, expands, directive, lists: self.lists }
    }

    /// Expands specifiers where the directive does.
    pub fn expand<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Fault> {
        let has_any = self.expands && text.contains('%');
        if has_any { (self.expand)(text).map(Cow::Owned) } else { Ok(Cow::Borrowed(text)) }
    }
}

/// A field of a section.
pub trait Setting: Sized {
    /// Takes a value that is not empty; lists append. On error the field keeps what it had.
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault>;
    /// Takes the empty value.
    fn reset(&mut self, default: Self) {
        *self = default;
    }
}

/// How the value of a row is handed out: what is small by itself, what is not by reference.
pub trait Held {
    /// What a reader gets.
    type Ref<'a>
    where
        Self: 'a;
    /// The value.
    fn held(&self) -> Self::Ref<'_>;
}

/// The type of a row that is handed out by itself.
macro_rules! copied {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::setting::Held for $type {
            type Ref<'a> = $type;
            fn held(&self) -> $type {
                *self
            }
        }
    )*};
}
pub(crate) use copied;

/// The type of a row that is handed out by reference.
macro_rules! borrowed {
    ($($type:ty),* $(,)?) => {$(
        impl Held for $type {
            type Ref<'a> = &'a $type;
            fn held(&self) -> &$type {
                self
            }
        }
    )*};
}

copied!(
    bool,
    u32,
    Option<bool>,
    Option<u8>,
    Option<u32>,
    Option<i32>,
    Option<i64>,
    FileMode,
    Signal,
    Option<Signal>,
    Option<Timespan>,
    Option<LimitBytes>,
    Option<LimitCount>,
    Option<LimitSeconds>,
    Option<LimitMicroseconds>,
    Option<LimitNice>,
    Option<CpuQuota>,
    Option<Amount>,
    Option<Weight>,
    Option<Size>,
    Option<IpTos>,
    CapabilitySet,
    SecureBits,
    Option<CapabilitySet>,
    Option<SyscallAction>,
    Option<Namespaces>,
    Option<Nanoseconds>,
    Option<PressureLimit>,
    Option<CoredumpFilter>,
    Option<Quota>,
    Option<Concurrency>,
    Option<Refresh>,
    Option<PressureDuration>,
);

borrowed!(
    Vec<Calendar>,
    Vec<Timespan>,
    Option<String>,
    Option<Account>,
    Option<UnitName>,
    Option<ServiceName>,
    Option<InterfaceName>,
    Option<FdName>,
    Option<Delegate>,
    Vec<String>,
    Vec<UnitName>,
    Vec<AbsolutePath>,
    Option<AbsolutePath>,
    PathLines,
    Option<PidFilePath>,
    Option<WorkingDirectory>,
    Vec<MarkedPath>,
    Vec<BindPath>,
    Vec<TemporaryMount>,
    SearchPath,
    NumberSet,
    IoWeights,
    BlockIoWeights,
    IoLimits,
    IoLatencies,
    Controllers,
    Vec<AddressPrefix>,
    Vec<BindRule>,
    InterfaceList,
    FileSystemList,
    Vec<BpfProgram>,
    Vec<NftSet>,
    Vec<VariableName>,
    Vec<VariableMatch>,
    Vec<Reference>,
    Option<BusName>,
    Option<LogNamespace>,
    Option<CgroupName>,
    Option<SecurityLabel>,
    ProtectHostname,
    Vec<Account>,
    Vec<ExecCommand>,
    Vec<ExecDirectory>,
    Vec<EnvironmentFile>,
    Vec<DeviceRule>,
    Vec<Credential>,
    Vec<CredentialSource>,
    Vec<CredentialPattern>,
    Vec<OpenFile>,
    Vec<LogField>,
    InputData,
    Vec<(String, String)>,
    Vec<Condition>,
    Vec<Listen>,
    Option<CpuAffinity>,
    Option<NumaMask>,
    Architectures,
    Vec<ImageOption>,
    Vec<ExtensionImage>,
    Vec<MountImage>,
    Option<Box<ImagePolicy>>,
    Option<RootHash>,
    Option<RootHashSignature>,
    BpfDelegation,
    Vec<PlainName>,
    Vec<Attribute>,
    Vec<LogPattern>,
    StdInput,
    StdOutput,
);

/// What is large and seldom set.
impl<T> Held for Box<T> {
    type Ref<'a>
        = &'a T
    where
        T: 'a;
    fn held(&self) -> &T {
        self
    }
}

impl<T: Setting> Setting for Box<T> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        T::set(self, value, context)
    }
}

/// A closed set of words.
pub trait Word: Sized {
    /// The words, for messages.
    const WORDS: &'static [&'static str];
    /// The value of a word.
    fn from_word(word: &str) -> Option<Self>;
}

/// A value read from the whole of a text; `Option<Self>` and `Self` are both fields then.
pub trait Scalar: Sized {
    /// Reads it, specifiers expanded.
    fn read(text: &str) -> Result<Self, Fault>;
}

impl<T: Word> Scalar for T {
    fn read(text: &str) -> Result<Self, Fault> {
        T::from_word(text).ok_or_else(|| Fault::new(Code::Word, text, T::WORDS.join(", ")))
    }
}

impl<T: Scalar> Setting for Option<T> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        *self = Some(T::read(&context.expand(value)?)?);
        Ok(())
    }
}

macro_rules! scalars {
    ($($code:ident $type:ty => |$text:ident| $read:expr, $expected:literal;)*) => {$(
        impl Scalar for $type {
            fn read($text: &str) -> Result<Self, Fault> {
                $read.ok_or_else(|| Fault::new(Code::$code, $text, $expected))
            }
        }
    )*};
}
scalars! {
    Value bool => |text| parse_bool(text), "a boolean (yes or no)";
    Time Timespan => |text| Timespan::parse(text, 1_000_000).ok(), "a time span such as '5min 20s'";
    Name Signal => |text| Signal::parse(text), "a signal";
    Number u8 => |text| number(text), "a number from 0 to 255";
    Number u32 => |text| number(text), "a number that is not negative";
    Number i32 => |text| number(text), "a number";
    Number i64 => |text| number(text), "a number";
    Number FileMode => |text| parse_mode(text).filter(|mode| *mode <= 0o7777).map(FileMode), "an octal file mode up to 7777";
    Name InterfaceName => |text| interface_name(text), "the name of a network interface, of at most 15 characters";
    Name Account => |text| account(text), "the name or number of a user or group";
    Name UnitName => |text| text.parse().ok(), "a unit name";
    Name ServiceName => |text| service_name(text), "the name of a service";
    Value String => |text| Some(text.to_owned()), "a text";
    Number IpTos => |text| ip_tos(text), "a number from 0 to 255, or low-delay, throughput, reliability, low-cost";
    Name FdName => |text| fd_name(text), "a name of up to 255 characters without ':' or control characters";
    Number LimitBytes => |text| limit(text, parse_size).map(LimitBytes), "a limit in bytes, such as '1G' or '1G:2G' or 'infinity'";
    Number LimitCount => |text| limit(text, number).map(LimitCount), "a limit such as '1024' or '1024:4096' or 'infinity'";
    Time LimitSeconds => |text| limit(text, seconds).map(LimitSeconds), "a limit in time, such as '5min' or '5min:10min' or 'infinity'";
    Time LimitMicroseconds => |text| limit(text, microseconds).map(LimitMicroseconds), "a limit in time, such as '5ms' or '5ms:10ms' or 'infinity'";
    Number LimitNice => |text| limit(text, nice_limit).map(LimitNice), "a nice level with its sign, such as '-5', or a number from 0 to 40";
}

macro_rules! plain_settings {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
                *self = <$type as Scalar>::read(&context.expand(value)?)?;
                Ok(())
            }
        }
    )*};
}
plain_settings!(
    bool,
    u32,
    FileMode,
    Signal,
    RestartMode,
    ExitType,
    Restart,
    TimeoutFailureMode,
    FdStorePreserve,
    CollectMode,
    JobModeWord,
    EmergencyAction,
    BindIpv6Only,
    Timestamping,
    DeferTrigger,
    TriggerLimitAction,
    ListenErrorAction,
    KeyringMode,
    ProtectProc,
    ProcSubset,
    ProtectSystem,
    ProtectHome,
    PrivateTmp,
    ProtectControlGroups,
    PrivateUsers,
    ManagedOomMode,
    ManagedOomPreference,
    PressureWatch,
    DirectoryPreserve,
    UtmpMode,
    SyslogFacility,
    SyslogLevel,
    KillMode,
    DevicePolicy
);

macro_rules! texts {
    ($($(#[$meta:meta])* $type:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $type(pub String);
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::ops::Deref for $type {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
    )*};
}
texts! {
    /// `BindToDevice=`: a network interface, or `*` for any.
    InterfaceName;
    /// A user or group by name or number, well-formed; whether it exists is another matter.
    Account;
    /// `FileDescriptorName=`.
    FdName;
    /// `Service=`: the name of a unit that is a service.
    ServiceName;
    /// `LogExtraFields=`: one field.
    LogField;
}

/// `SocketMode=` and its kin: always octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMode(pub u32);

/// `SecureBits=`, the bits of prctl(2), PR_SET_SECUREBITS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureBits(pub u8);

impl SecureBits {
    /// The words of the bits, from the lowest.
    pub const WORDS: [&str; 6] = [
        "noroot",
        "noroot-locked",
        "no-setuid-fixup",
        "no-setuid-fixup-locked",
        "keep-caps",
        "keep-caps-locked",
    ];
}

/// Each word adds a bit; one that is none is named, and the others count.
impl Setting for SecureBits {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let mut bad = None;
        for word in words(value, context)? {
            match (0_u32..).zip(Self::WORDS).find(|(_, known)| *known == word.text) {
                Some((bit, _)) => self.0 |= 1_u8.checked_shl(bit).unwrap_or(0),
                None => bad = Some(word),
            }
        }
        bad.map_or(Ok(()), |word| {
            Err(Fault::new(Code::Word, &word.text, Self::WORDS.join(", ")).within(word.at))
        })
    }
}

/// `IPTOS=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpTos(pub i32);

fn ip_tos(text: &str) -> Option<IpTos> {
    let named = match text {
        "low-delay" => Some(0x10),
        "throughput" => Some(0x08),
        "reliability" => Some(0x04),
        "low-cost" => Some(0x02),
        _ => None,
    };
    named.or_else(|| number(text)).filter(|value| (0..=255).contains(value)).map(IpTos)
}

fn fd_name(text: &str) -> Option<FdName> {
    let valid = text.len() <= 255 && text.chars().all(|c| c.is_ascii() && !c.is_ascii_control() && c != ':');
    valid.then(|| FdName(text.to_owned()))
}

/// Interface names as the kernel takes them (netdevice(7)).
fn interface_name(text: &str) -> Option<InterfaceName> {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && !"/:%".contains(c);
    let valid = (1..=15).contains(&text.len()) && text.chars().all(allowed) && text != "." && text != "..";
    valid.then(|| InterfaceName(text.to_owned()))
}

/// Names that no file of users could hold are refused.
fn service_name(text: &str) -> Option<ServiceName> {
    let name: UnitName = text.parse().ok()?;
    (name.kind() == UnitKind::Service).then(|| ServiceName(text.to_owned()))
}

fn account(text: &str) -> Option<Account> {
    let allowed = |c: char| !c.is_control() && !":/".contains(c);
    let valid = (1..=255).contains(&text.len())
        && text.chars().all(allowed)
        && !text.starts_with('-')
        && text.trim() == text;
    valid.then(|| Account(text.to_owned()))
}

fn limit(text: &str, one: fn(&str) -> Option<u64>) -> Option<ResourceLimit> {
    let one = |text: &str| match text.trim() {
        "infinity" => Some(u64::MAX),
        finite => one(finite),
    };
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let (soft, hard) = (one(soft)?, one(hard)?);
    (soft <= hard).then_some(ResourceLimit { soft, hard })
}

fn seconds(text: &str) -> Option<u64> {
    Timespan::parse(text, 1_000_000).ok().map(|span| span.0.div_ceil(1_000_000))
}

fn microseconds(text: &str) -> Option<u64> {
    Timespan::parse(text, 1).ok().map(|span| span.0)
}

/// The kernel counts the limit of nice levels down from 20 (getrlimit(2), RLIMIT_NICE).
fn nice_limit(text: &str) -> Option<u64> {
    if text.starts_with(['+', '-']) {
        let level: i64 = text.parse().ok().filter(|level| (-20..=19).contains(level))?;
        return u64::try_from(20_i64.checked_sub(level)?).ok();
    }
    number(text).filter(|raw: &u64| *raw <= 40)
}

/// Words of a list with their places, each expanded after splitting.
pub(crate) fn words<'a>(value: &'a str, context: &Context<'_>) -> Result<Vec<Split<'a>>, Fault> {
    expanded(split_raw(value)?, context)
}

fn expanded<'a>(mut words: Vec<Split<'a>>, context: &Context<'_>) -> Result<Vec<Split<'a>>, Fault> {
    for word in words.iter_mut().filter(|word| word.text.contains('%')) {
        let text = context.expand(&word.text).map_err(|fault| fault.within(word.at.clone()))?;
        word.text = Cow::Owned(text.into_owned());
    }
    Ok(words)
}

/// Reads the words of a list one by one. What is wrong is left out, and the first such word is the fault.
pub(crate) fn each_word<T>(
    value: &str,
    context: &Context<'_>,
    mut read: impl FnMut(&str) -> Result<T, Fault>,
) -> Result<(Vec<T>, Result<(), Fault>), Fault> {
    let mut fault = None;
    let words = words(value, context)?;
    let mut good = Vec::with_capacity(words.len());
    for word in words {
        match read(&word.text) {
            Ok(item) => good.push(item),
            Err(wrong) => drop(fault.get_or_insert(wrong.within(word.at))),
        }
    }
    Ok((good, fault.map_or(Ok(()), Err)))
}

pub(crate) fn append<T>(list: &mut Vec<T>, more: Vec<T>) -> Result<(), Fault> {
    let left_out = list.len().saturating_add(more.len()).saturating_sub(ENTRIES_MAX);
    let room = more.len().saturating_sub(left_out);
    // Most lists are set once and stay: they get no room that nobody needs.
    if list.is_empty() && more.len() == more.capacity() && left_out == 0 {
        *list = more;
        return Ok(());
    }
    if list.is_empty() {
        list.reserve_exact(room);
    }
    list.extend(more.into_iter().take(room));
    if left_out > 0 {
        let expected = format!("at most {ENTRIES_MAX} entries; the last {left_out} are left out");
        return Err(Fault::new(Code::Limit, "", expected));
    }
    Ok(())
}

/// The lists of `[Install]`, which are names.
impl Setting for Vec<String> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let words = expanded(split_names(value)?, context)?;
        append(self, words.into_iter().map(|word| word.text.into_owned()).collect())
    }
}

/// One span an assignment, in seconds where no unit is named.
impl Setting for Vec<Timespan> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        append(self, vec![Timespan::parse(&context.expand(value)?, 1_000_000)?])
    }
}

/// One event an assignment.
impl Setting for Vec<Calendar> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        append(self, vec![Calendar::parse(&context.expand(value)?)?])
    }
}

/// One pattern an assignment.
impl Setting for Vec<LogPattern> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        append(self, vec![LogPattern::parse(&context.expand(value)?)?])
    }
}

/// One device an assignment.
impl Setting for Vec<DeviceRule> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        append(self, vec![DeviceRule::parse(&context.expand(value)?)?])
    }
}

/// One credential an assignment; of a name that is said twice, the last counts.
impl Setting for Vec<Credential> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let encrypted = context.directive.ends_with("Encrypted");
        let one = Credential::parse(value, encrypted, &|text| context.expand(text).map(Cow::into_owned))?;
        self.retain(|known| known.id != one.id);
        append(self, vec![one])
    }
}

/// The same.
impl Setting for Vec<CredentialSource> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let one = CredentialSource::parse(&context.expand(value)?)?;
        self.retain(|known| known.id != one.id);
        append(self, vec![one])
    }
}

impl Setting for Vec<CredentialPattern> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        append(self, vec![CredentialPattern::parse(&context.expand(value)?)?])
    }
}

impl Setting for Vec<OpenFile> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        append(self, vec![OpenFile::parse(&context.expand(value)?)?])
    }
}

/// `LogExtraFields=`: several fields an assignment. What is no field is named and skipped.
impl Setting for Vec<LogField> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let (good, bad): (Vec<_>, Vec<_>) =
            words(value, context)?.into_iter().partition(|word| is_log_field(&word.text));
        append(self, good.into_iter().map(|word| LogField(word.text.into_owned())).collect())?;
        let fault = |word: Split<'_>| Fault::new(Code::Value, &word.text, "NAME=VALUE").within(word.at);
        bad.into_iter().next().map_or(Ok(()), |word| Err(fault(word)))
    }
}

/// A line of text with C escapes, or Base64.
impl Setting for InputData {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let more = if context.directive == "StandardInputData" {
            decode_base64(value).ok_or_else(|| Fault::new(Code::Value, value, "Base64"))?
        } else {
            let mut line = unescape(&context.expand(value)?)?.into_bytes();
            line.push(b'\n');
            line
        };
        if self.0.len().saturating_add(more.len()) > INPUT_MAX {
            return Err(Fault::new(
                Code::Limit,
                value,
                format!("at most {INPUT_MAX} bytes; the first are kept"),
            ));
        }
        self.0.extend(more);
        Ok(())
    }
}

/// Names that are not valid are named and skipped; the rest of the line counts.
impl Setting for Vec<UnitName> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let words = expanded(split_names(value)?, context)?;
        let (kind, expected) = match context.directive {
            "Sockets" => (Some(UnitKind::Socket), "the name of a socket"),
            _ => (None, "a unit name"),
        };
        let mut bad = None;
        let mut more: Vec<UnitName> = Vec::with_capacity(words.len());
        for word in words {
            match word.text.parse::<UnitName>() {
                Ok(name) if kind.is_none_or(|kind| name.kind() == kind) => more.push(name),
                _ => bad = Some(Fault::new(Code::Name, &word.text, expected).within(word.at)),
            }
        }
        let room = ENTRIES_MAX.saturating_sub(self.len());
        let looked_up =
            context.lists.and_then(|lists| lists.unknown(context.directive, self, room, &mut more));
        if looked_up.is_none() {
            more = unknown(self, more);
        }
        append(self, more)?;
        bad.map_or(Ok(()), Err)
    }
}

/// Those of these names that a list does not have yet, each once.
fn unknown(known: &[UnitName], mut names: Vec<UnitName>) -> Vec<UnitName> {
    if names.len() <= FEW {
        let mut at = 0_usize;
        while let Some(name) = names.get(at) {
            if known.contains(name) || names.iter().take(at).any(|other| other == name) {
                names.remove(at);
            } else {
                at = at.saturating_add(1);
            }
        }
        return names;
    }
    // A line may hold a hundred thousand names: looked up, not searched for.
    let mut new: HashSet<UnitName, BuildHasherDefault<NameHasher>> = names.iter().cloned().collect();
    for name in known {
        new.remove(name);
    }
    names.retain(|name| new.remove(name));
    names
}

impl Setting for Vec<Account> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let (good, rest) = each_word(value, context, Account::read)?;
        rest?;
        append(self, good)
    }
}

impl Setting for Vec<ExecCommand> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        append(self, ExecCommand::parse_line(value, &|word| context.expand(word).map(Cow::into_owned))?)
    }
}

impl Setting for ExitStatusSet {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        self.add(value)
    }
}

impl Setting for Vec<(String, String)> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let (more, rest) = each_word(value, context, |word| match word.split_once('=') {
            Some((name, value)) if is_variable(name) => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Fault::new(Code::Value, word, "NAME=VALUE")),
        })?;
        let done = append(self, more);
        keep_last(self);
        done?;
        rest
    }
}

/// Of a name that is said twice, the last counts.
fn keep_last(list: &mut Vec<(String, String)>) {
    let names = || list.iter().map(|(name, _)| name);
    let repeats = if list.len() > FEW {
        names().collect::<HashSet<_>>().len() < list.len()
    } else {
        names().enumerate().any(|(at, name)| names().take(at).any(|other| other == name))
    };
    if repeats {
        let mut seen = HashSet::new();
        list.reverse();
        list.retain(|(name, _)| seen.insert(name.clone()));
        list.reverse();
    }
}

/// Whether a text may be the name of an environment variable.
pub fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Setting for Vec<EnvironmentFile> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        let (optional, path) = text.strip_prefix('-').map_or((false, &*text), |path| (true, path));
        if !path.starts_with('/') {
            return Err(Fault::new(Code::Path, path, "an absolute path"));
        }
        append(self, vec![EnvironmentFile { path: path.to_owned(), optional }])
    }
}

impl Setting for Vec<ExecDirectory> {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        for word in words(value, context)? {
            let Split { text: word, at, .. } = word;
            let mut parts = word.split(':');
            let path = parts.next().unwrap_or("").trim_matches('/').to_owned();
            if path.is_empty()
                || word.starts_with('/')
                || path.split('/').any(|part| part == ".." || part == ".")
            {
                return Err(Fault::new(Code::Path, &word, "a relative path without '..'").within(at));
            }
            let link = parts.next().filter(|link| !link.is_empty()).map(str::to_owned);
            match self.iter_mut().find(|known| known.path == path) {
                Some(known) => known.symlinks.extend(link),
                None => append(self, vec![ExecDirectory { path, symlinks: link.into_iter().collect() }])?,
            }
        }
        Ok(())
    }
}

/// The words of the end of a value, divided by white space alone, with their places in the whole value.
pub(crate) fn plain_words<'a>(
    value: &'a str,
    rest: &'a str,
) -> impl Iterator<Item = (&'a str, Range<usize>)> {
    let mut at = value.len().saturating_sub(rest.len());
    rest.split_inclusive(char::is_whitespace).filter_map(move |piece| {
        let (start, word) = (at, piece.trim_end());
        at = at.saturating_add(piece.len());
        (!word.is_empty()).then(|| (word, start..start.saturating_add(word.len())))
    })
}

/// The capabilities of a value, and whether it began with `~`.
fn capabilities(value: &str) -> Result<(u64, bool), Fault> {
    let (inverted, rest) = value.strip_prefix('~').map_or((false, value), |rest| (true, rest));
    let mut set = 0;
    for (word, at) in plain_words(value, rest) {
        let wrong = || Fault::new(Code::Word, word, CAPABILITIES.join(", ")).within(at.clone());
        set |= 1_u64 << capability_number(word).ok_or_else(wrong)?;
    }
    Ok((set, inverted))
}

impl Setting for Option<CapabilitySet> {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        let (set, inverted) = capabilities(value)?;
        let merged = match (*self, inverted) {
            (None, false) => set,
            (None, true) => CapabilitySet::ALL.0 & !set,
            (Some(old), false) => old.0 | set,
            (Some(old), true) => old.0 & !set,
        };
        *self = Some(CapabilitySet(merged));
        Ok(())
    }

    /// Empty is no capability at all, not the default.
    fn reset(&mut self, _: Self) {
        *self = Some(CapabilitySet(0));
    }
}

impl Setting for CapabilitySet {
    fn set(&mut self, value: &str, _: &Context<'_>) -> Result<(), Fault> {
        let (set, inverted) = capabilities(value)?;
        self.0 = match (inverted, self.0) {
            (false, old) => old | set,
            (true, 0) => CapabilitySet::ALL.0 & !set,
            (true, old) => old & !set,
        };
        Ok(())
    }
}

impl Setting for StdInput {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        *self = match &*text {
            "null" => StdInput::Null,
            "tty" => StdInput::Tty,
            "tty-force" => StdInput::TtyForce,
            "tty-fail" => StdInput::TtyFail,
            "data" => StdInput::Data,
            "socket" => StdInput::Socket,
            "fd" => StdInput::Fd("stdin".to_owned()),
            other => match other.split_once(':') {
                Some(("file", path)) if path.starts_with('/') => StdInput::File(path.to_owned()),
                Some(("fd", name)) => StdInput::Fd(name.to_owned()),
                _ => {
                    let expected = "null, tty, tty-force, tty-fail, data, socket, file:PATH or fd:NAME";
                    return Err(Fault::new(Code::Value, other, expected));
                }
            },
        };
        Ok(())
    }
}

impl Setting for StdOutput {
    fn set(&mut self, value: &str, context: &Context<'_>) -> Result<(), Fault> {
        let text = context.expand(value)?;
        *self = match &*text {
            "inherit" => StdOutput::Inherit,
            "null" => StdOutput::Null,
            "tty" => StdOutput::Tty,
            "journal" | "syslog" => StdOutput::Journal,
            "journal+console" | "syslog+console" => StdOutput::JournalConsole,
            "kmsg" => StdOutput::Kmsg,
            "kmsg+console" => StdOutput::KmsgConsole,
            "socket" => StdOutput::Socket,
            "fd" => StdOutput::Fd("stdout".to_owned()),
            other => match other.split_once(':') {
                Some(("file", path)) if path.starts_with('/') => StdOutput::File(path.to_owned()),
                Some(("append", path)) if path.starts_with('/') => StdOutput::Append(path.to_owned()),
                Some(("truncate", path)) if path.starts_with('/') => StdOutput::Truncate(path.to_owned()),
                Some(("fd", name)) => StdOutput::Fd(name.to_owned()),
                _ => {
                    let expected = "inherit, null, tty, journal, kmsg, socket, file:PATH, append:PATH, truncate:PATH or fd:NAME";
                    return Err(Fault::new(Code::Value, other, expected));
                }
            },
        };
        Ok(())
    }
}
