//! Properties of `StartTransientUnit` and `SetUnitProperties`, turned into what a unit file would say.
//!
//! One way into a unit: its text. So a transient unit is parsed, merged and checked as any other, and what a client
//! sends can neither end a line nor begin a directive of its own; specifiers stay what they were.

use crate::error::Refusal;
use crate::wire::Value;
use muster_manager::effect::FdId;
use muster_manager::event::PropertyChange;
use muster_unit::table::{Row, rows};
use muster_unit::{Body, Setting, UnitKind};
use std::collections::BTreeMap;

/// What a client asks for.
#[derive(Debug, Default)]
pub struct Built {
    /// What is assigned, in order.
    pub settings: Vec<Setting>,
    /// The unit's file, for whoever reads it.
    pub text: String,
    /// Processes to take over.
    pub pids: Vec<u32>,
    /// Who is asked to end them, by a name on the bus.
    pub controller: String,
    /// Descriptors for standard input, output and error, and from 3 on those of `ExtraFileDescriptors`: which of the message's.
    /// The runtime puts its own ids there.
    pub stdio: BTreeMap<u32, FdId>,
    /// The names of those from 3 on.
    pub extra_names: Vec<String>,
    /// The caller keeps the unit loaded (`AddRef`).
    pub reference: bool,
}

impl Built {
    fn give(&mut self, number: u32, index: u32) {
        self.stdio.insert(number, FdId(u64::from(index)));
    }

    /// `(hs)`: a descriptor, and its name in `LISTEN_FDNAMES`.
    fn give_extra(&mut self, one: &Value) -> Result<(), Refusal> {
        let Value::Struct(fields) = one else { return Err(unexpected("ExtraFileDescriptors")) };
        let [Value::Fd(fd), Value::Text(name)] = &fields[..] else {
            return Err(unexpected("ExtraFileDescriptors"));
        };
        if !muster_unit::is_descriptor_name(name) {
            return Err(Refusal::invalid(format!("Invalid file descriptor name: {name}")));
        }
        let number = u32::try_from(self.extra_names.len()).unwrap_or(u32::MAX).saturating_add(FIRST_EXTRA);
        self.give(number, *fd);
        self.extra_names.push(name.clone());
        Ok(())
    }

    /// Adds what one property says, to the settings and to the text.
    fn say(&mut self, said: Said, last_section: &mut String) {
        let Some((section, directive, _)) = said.settings.first().cloned() else { return };
        self.settings.extend(said.settings.iter().cloned());
        if section != *last_section {
            let gap = if last_section.is_empty() { "" } else { "\n" };
            self.text.push_str(&format!("{gap}[{section}]\n"));
            *last_section = section;
        }
        match said.text {
            Text::Same => said.settings.iter().for_each(|(_, directive, value)| {
                self.text.push_str(&format!("{directive}={value}\n"));
            }),
            Text::Lines(lines) => self.text.push_str(&lines),
            Text::Whole => {
                let mine = self.settings.iter().filter(|(_, other, _)| *other == directive);
                let mut items: Vec<String> = Vec::new();
                for (_, _, value) in mine {
                    if value.is_empty() { items.clear() } else { items.push(value.clone()) }
                }
                let items = muster_unit::table::listed(&directive, items);
                self.text.push_str(&muster_manager::event::whole_list(&directive, &items));
            }
        }
    }
}

/// Descriptors below are the standard streams.
const FIRST_EXTRA: u32 = 3;

const TRANSIENT_HEADER: &str =
    "# This is a transient unit file, created programmatically via the systemd API. Do not edit.\n";

/// The properties of a new unit.
pub fn settings(kind: UnitKind, properties: &[(String, Value)], caller_pid: u32) -> Result<Built, Refusal> {
    let mut built = Built { text: TRANSIENT_HEADER.to_owned(), ..Built::default() };
    let mut section = String::new();
    for (name, value) in properties {
        match (name.as_str(), value) {
            ("AddRef", Value::Bool(add)) => built.reference = *add,
            ("Controller", Value::Text(name)) if kind == UnitKind::Scope => {
                if !name.is_empty() && !muster_bus::is_bus_name(name) {
                    return Err(Refusal::invalid(format!("Controller '{name}' is not a valid bus name.")));
                }
                built.controller.clone_from(name);
            }
            ("PIDs", Value::Array(pids)) => {
                for pid in pids {
                    let pid = pid
                        .as_number()
                        .and_then(|pid| u32::try_from(pid).ok())
                        .ok_or_else(|| unexpected(name))?;
                    built.pids.push(if pid == 0 { caller_pid } else { pid });
                }
            }
            ("StandardInputFileDescriptor", Value::Fd(fd)) => built.give(0, *fd),
            ("StandardOutputFileDescriptor", Value::Fd(fd)) => built.give(1, *fd),
            ("StandardErrorFileDescriptor", Value::Fd(fd)) => built.give(2, *fd),
            ("ExtraFileDescriptors", Value::Array(all)) if kind == UnitKind::Service => {
                all.iter().try_for_each(|one| built.give_extra(one))?;
            }
            _ => built.say(translate(kind, name, value, properties)?, &mut section),
        }
    }
    Ok(built)
}

/// Properties of resource control that only a new unit takes (systemctl(1), `set-property`).
const ONLY_NEW: &[&str] = &[
    "Slice",
    "Delegate",
    "DelegateControllers",
    "DelegateSubgroup",
    "IPIngressFilterPath",
    "IPEgressFilterPath",
    "BPFProgram",
    "MemoryPressureWatch",
    "MemoryPressureThresholdUSec",
    "CoredumpReceive",
];

/// Changes of a unit that exists: resource control, and what it is called.
pub fn changes(kind: UnitKind, properties: &[(String, Value)]) -> Result<Vec<PropertyChange>, Refusal> {
    let mut all = Vec::new();
    for (name, value) in properties {
        if (name.as_str(), value.as_texts().is_some()) == ("Markers", true) {
            continue;
        }
        let said = translate(kind, name, value, properties)?;
        let has_cgroup = groups(kind).contains(&"CGroup");
        let allowed = !ONLY_NEW.contains(&name.as_str())
            && said.settings.iter().all(|(_, directive, _)| {
                directive == "Description" || (has_cgroup && is_row("CGroup", directive))
            });
        if !allowed {
            return Err(Refusal::cannot_set(name));
        }
        all.push(PropertyChange {
            stem: stem(name).to_owned(),
            text: match said.text {
                Text::Same => {
                    Some(said.settings.iter().map(|(_, name, value)| format!("{name}={value}\n")).collect())
                }
                Text::Lines(lines) => Some(lines),
                Text::Whole => None,
            },
            settings: said.settings,
        });
    }
    Ok(all)
}

/// What the drop-in of a property is called: the property's own name but for two.
fn stem(property: &str) -> &str {
    match property {
        "CPUQuotaPerSecUSec" => "CPUQuota",
        "CPUQuotaPeriodUSec" => "CPUQuotaPeriodSec",
        other => other,
    }
}

/// What one property comes to.
struct Said {
    settings: Vec<Setting>,
    text: Text,
}

/// How a file says it.
enum Text {
    /// As it is assigned.
    Same,
    /// Anything else: lines of a unit file.
    Lines(String),
    /// A list, whole, as it is when this was added to it.
    Whole,
}

fn unexpected(name: &str) -> Refusal {
    Refusal::invalid(format!("Unexpected value of property '{name}'."))
}

/// The groups of directives that a type has, in the terms of the directive table.
fn groups(kind: UnitKind) -> &'static [&'static str] {
    match kind {
        UnitKind::Service => &["Service", "Exec", "Kill", "CGroup"],
        UnitKind::Socket => &["Socket", "Exec", "Kill", "CGroup"],
        UnitKind::Mount => &["Mount", "Exec", "Kill", "CGroup"],
        UnitKind::Swap => &["Swap", "Exec", "Kill", "CGroup"],
        UnitKind::Scope => &["Scope", "Kill", "CGroup"],
        UnitKind::Slice => &["Slice", "CGroup"],
        UnitKind::Timer => &["Timer"],
        UnitKind::Path => &["Path"],
        UnitKind::Automount => &["Automount"],
        UnitKind::Target | UnitKind::Device => &[],
    }
}

fn is_row(section: &str, directive: &str) -> bool {
    rows().iter().any(|row: &Row| row.section == section && row.name == directive)
}

/// The section that a directive goes into; none when the type does not have it.
fn section(kind: UnitKind, directive: &str) -> Option<String> {
    // What has moved to [Unit] is said there, though it is still understood in its old place.
    let moved = muster_unit::table::REDIRECTED
        .iter()
        .any(|(_, name, target, _)| *target == "Unit" && *name == directive);
    let own = !moved && groups(kind).iter().any(|group| is_row(group, directive));
    if own {
        return Body::new(kind).section().map(str::to_owned);
    }
    let unit =
        is_row("Unit", directive) || directive.starts_with("Condition") || directive.starts_with("Assert");
    unit.then(|| "Unit".to_owned())
}

/// One property as settings.
fn translate(kind: UnitKind, name: &str, value: &Value, all: &[(String, Value)]) -> Result<Said, Refusal> {
    in_range(name, value)?;
    let pairs = special(name, value, all)
        .or_else(|| plain(kind, name, value))
        .ok_or_else(|| Refusal::cannot_set(name))?;
    let mut settings = Vec::with_capacity(pairs.len());
    for (directive, text) in pairs {
        if text.contains(['\n', '\0']) {
            return Err(unexpected(name));
        }
        let section = section(kind, &directive).ok_or_else(|| Refusal::cannot_set(name))?;
        settings.push((section, directive, text));
    }
    let text = text_of(name, value, &settings);
    Ok(Said { settings, text })
}

/// Numbers that systemd refuses before it looks further.
fn in_range(name: &str, value: &Value) -> Result<(), Refusal> {
    const POSITIVE: &[&str] = &[
        "MemoryMax",
        "MemoryMaxScale",
        "MemoryHigh",
        "MemoryHighScale",
        "MemoryLimit",
        "MemoryLimitScale",
        "TasksMax",
        "TasksMaxScale",
        "IOWeight",
        "StartupIOWeight",
    ];
    if name == "DeviceAllow" {
        return value.items().iter().try_for_each(|item| device_allowed(item.items()));
    }
    if let (Value::Text(_), true) = (value, is_row("CGroup", name) && !TEXTS.contains(&name)) {
        return Err(Refusal::invalid("Failed to set unit properties: Unexpected message contents"));
    }
    let Some(number) = value.as_number() else { return Ok(()) };
    let unset = number == i128::from(u64::MAX);
    let weight = matches!(name, "CPUWeight" | "StartupCPUWeight" | "IOWeight" | "StartupIOWeight");
    if (number == 0 && POSITIVE.contains(&name)) || (weight && !unset && number > 10_000) {
        return Err(Refusal::invalid(format!("Value specified in {name} is out of range")));
    }
    if number == 0 && name == "CPUQuotaPerSecUSec" {
        return Err(Refusal::invalid("CPUQuotaPerSecUSec= value out of range"));
    }
    Ok(())
}

/// Properties of resource control that are texts; all others are numbers, or lists.
const TEXTS: &[&str] = &[
    "Slice",
    "DevicePolicy",
    "DelegateSubgroup",
    "ManagedOOMSwap",
    "ManagedOOMMemoryPressure",
    "ManagedOOMPreference",
    "MemoryPressureWatch",
    "CPUSetPartition",
    "CPUPressureWatch",
    "IOPressureWatch",
    "BindNetworkInterface",
];

/// `(ss)`: a node or a class of devices, and what may be done with it.
fn device_allowed(fields: &[Value]) -> Result<(), Refusal> {
    let [Value::Text(device), Value::Text(access)] = fields else { return Err(unexpected("DeviceAllow")) };
    let known = device.starts_with("/dev/")
        || device.starts_with("/run/systemd/inaccessible/")
        || device.starts_with("block-")
        || device.starts_with("char-");
    if !known {
        return Err(Refusal::invalid("DeviceAllow= requires device node or pattern"));
    }
    if !access.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
        return Err(Refusal::invalid("DeviceAllow= requires combination of rwm flags"));
    }
    Ok(())
}

/// How files say a property that is not said as it is assigned.
fn text_of(name: &str, value: &Value, settings: &[Setting]) -> Text {
    let lines = |reset: bool, line: &dyn Fn(&str) -> String| {
        let mut text = String::new();
        for (at, (_, directive, value)) in settings.iter().enumerate() {
            if at == 0 && reset {
                text.push_str(&format!("{directive}=\n"));
            }
            if !value.is_empty() || !reset {
                text.push_str(&format!("{directive}={}\n", line(value)));
            }
        }
        Text::Lines(text)
    };
    let same = |value: &str| value.to_owned();
    match name {
        _ if is_list(name) => Text::Whole,
        // A dollar sign that a client sent is expanded when the command runs; a file that is read says it literally.
        _ if name.starts_with("Exec") => lines(true, &|value| value.replace('$', "$$")),
        "EnvironmentFiles" => lines(true, &same),
        "CPUQuotaPerSecUSec" => lines(false, &|text| match value.as_number() {
            Some(usec) if !text.is_empty() => hundredths(usec, 10_000),
            _ => String::new(),
        }),
        "AllowedCPUs" | "StartupAllowedCPUs" | "AllowedMemoryNodes" | "StartupAllowedMemoryNodes" => {
            let set = ranges(value);
            let first = settings.first().map_or("", |(_, directive, _)| directive.as_str());
            Text::Lines(format!("{first}=\n{first}={set}\n"))
        }
        "LogLevelMax" | "SyslogLevel" | "SyslogFacility" => {
            lines(false, &|_| value.as_number().unwrap_or_default().to_string())
        }
        "CapabilityBoundingSet" | "AmbientCapabilities" => {
            let last = settings.last().map_or(("", ""), |(_, name, value)| (name.as_str(), value.as_str()));
            Text::Lines(format!("{}={}\n", last.0, last.1.to_ascii_lowercase()))
        }
        "SuccessExitStatus" | "RestartPreventExitStatus" | "RestartForceExitStatus" => {
            let mut text = String::new();
            for (_, directive, value) in settings {
                for word in value.split_whitespace() {
                    let word = word.strip_prefix("SIG").unwrap_or(word);
                    text.push_str(&format!("{directive}={word}\n"));
                }
            }
            if text.is_empty() { Text::Same } else { Text::Lines(text) }
        }
        _ => Text::Same,
    }
}

/// Lists of resource control: a drop-in says the whole of one, not what was added to it.
fn is_list(name: &str) -> bool {
    matches!(
        name,
        "DeviceAllow"
            | "BlockIODeviceWeight"
            | "BlockIOReadBandwidth"
            | "BlockIOWriteBandwidth"
            | "IODeviceWeight"
            | "IOReadBandwidthMax"
            | "IOWriteBandwidthMax"
            | "IOReadIOPSMax"
            | "IOWriteIOPSMax"
            | "IODeviceLatencyTargetUSec"
            | "IPAddressAllow"
            | "IPAddressDeny"
            | "SocketBindAllow"
            | "SocketBindDeny"
    )
}

type Pairs = Vec<(String, String)>;

fn one(directive: &str, text: impl Into<String>) -> Option<Pairs> {
    Some(vec![(directive.to_owned(), text.into())])
}

/// One line for each item; a reset for none.
fn lines(directive: &str, value: &Value, line: impl Fn(&[Value]) -> Option<String>) -> Option<Pairs> {
    let Value::Array(items) = value else { return None };
    if items.is_empty() {
        return one(directive, "");
    }
    items.iter().map(|item| Some((directive.to_owned(), line(item.items())?))).collect()
}

/// Text in which a specifier is no specifier.
fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word that is read back as it is, whatever is in it.
pub fn quoted(word: &str) -> String {
    let mut out = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '%' => out.push_str("%%"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn words(value: &Value) -> Option<String> {
    Some(value.as_texts()?.into_iter().map(quoted).collect::<Vec<_>>().join(" "))
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn number(number: i128) -> String {
    if number == i128::from(u64::MAX) { "infinity".to_owned() } else { number.to_string() }
}

fn span(value: &Value) -> Option<String> {
    Some(muster_unit::Timespan(u64::try_from(value.as_number()?).ok()?).to_string())
}

/// A number of `unit`s as a percentage with two digits after the point.
fn hundredths(number: i128, unit: i128) -> String {
    let all = number.saturating_mul(100).checked_div(unit).unwrap_or_default();
    let (whole, rest) = (all.checked_div(100).unwrap_or(0), all.checked_rem(100).unwrap_or(0));
    format!("{whole}.{rest:02}%")
}

/// A word as it is where it needs no quotes.
fn bare(word: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '%');
    if word.is_empty() || !word.chars().all(plain) { quoted(word) } else { word.to_owned() }
}

/// Properties that are directives of the same name, by the type of the value.
fn plain(kind: UnitKind, name: &str, value: &Value) -> Option<Pairs> {
    if let Some(stem) = name.strip_suffix("USec") {
        return one(&format!("{stem}Sec"), span(value)?);
    }
    let directive = match name.strip_suffix("Ex") {
        Some(stem) if section(kind, name).is_none() => stem,
        _ => name,
    };
    match value {
        Value::Text(text) => one(directive, literal(text)),
        Value::Bool(value) => one(directive, yes_no(*value)),
        Value::Number(mode) if name.ends_with("Mode") || name == "UMask" => {
            one(directive, format!("{mode:04o}"))
        }
        Value::Number(number) if name.ends_with("Signal") => {
            let name = muster_unit::Signal(i32::try_from(*number).ok()?).name();
            one(directive, name.strip_prefix("SIG").unwrap_or(&name))
        }
        Value::Number(value) => one(directive, number(*value)),
        Value::Array(items) if value.as_texts().is_some() => match name {
            "DisableControllers" => one(directive, value.as_texts()?.join(" ")),
            // A path is all that stands behind the name.
            "IPIngressFilterPath" | "IPEgressFilterPath" if !items.is_empty() => {
                let each = value.as_texts()?.into_iter().map(|text| (directive.to_owned(), literal(text)));
                Some(each.collect())
            }
            _ if !items.is_empty() && (is_row("Unit", directive) || directive == "ImportCredential") => {
                let each = value.as_texts()?.into_iter().map(|text| (directive.to_owned(), bare(text)));
                Some(each.collect())
            }
            _ => one(directive, words(value)?),
        },
        Value::Array(_) => lines(directive, value, |fields| joined(directive, fields)),
        Value::Struct(fields) => one(directive, excepted(fields)?),
        Value::Double(_) | Value::Fd(_) | Value::Bytes(_) | Value::Variant(_) => None,
    }
}

/// A pair in one line: `id:path` and its kin, or two words.
fn joined(directive: &str, fields: &[Value]) -> Option<String> {
    let colon = matches!(
        directive,
        "LoadCredential" | "LoadCredentialEncrypted" | "TemporaryFileSystem" | "BPFProgram"
    );
    match fields {
        [Value::Text(first), Value::Text(second)] if colon => {
            Some(format!("{}:{}", literal(first), literal(second)))
        }
        [Value::Text(first), Value::Text(second)] => Some(format!("{} {}", bare(first), bare(second))),
        [Value::Text(first), Value::Number(second)] => Some(format!("{} {}", bare(first), number(*second))),
        [Value::Text(id), Value::Bytes(bytes)] => {
            let data = if directive.ends_with("Encrypted") {
                muster_unit::encode_base64(bytes)
            } else {
                crate::literal::escaped(bytes)
            };
            Some(format!("{}:{data}", literal(id)))
        }
        _ => None,
    }
}

/// `(bas)`: allowed, or `~` excepted. `(bs)`: `-` for what may fail. `(aiai)`: codes and signals.
fn excepted(fields: &[Value]) -> Option<String> {
    match fields {
        [Value::Bool(allow), list @ Value::Array(_)] => {
            Some(format!("{}{}", if *allow { "" } else { "~" }, list.as_texts()?.join(" ")))
        }
        [Value::Bool(ignore), Value::Text(text)] => {
            Some(format!("{}{}", if *ignore { "-" } else { "" }, literal(text)))
        }
        [Value::Array(codes), Value::Array(signals)] => {
            let code = codes.iter().map(|code| code.as_number().map(|code| code.to_string()));
            let signal =
                |number: &Value| Some(muster_unit::Signal(i32::try_from(number.as_number()?).ok()?).name());
            let all: Option<Vec<String>> = code.chain(signals.iter().map(signal)).collect();
            Some(all?.join(" "))
        }
        _ => None,
    }
}

/// Properties with a form of their own.
fn special(name: &str, value: &Value, all: &[(String, Value)]) -> Option<Pairs> {
    if let Some(directive) = name.strip_prefix("Exec").map(|rest| rest.strip_suffix("Ex").unwrap_or(rest)) {
        return match value {
            Value::Array(items) if items.iter().all(|item| matches!(item, Value::Struct(_))) => {
                lines(&format!("Exec{directive}"), value, command)
            }
            _ => None,
        };
    }
    if let Some(pairs) =
        standard(name, value).or_else(|| limit(name, value, all)).or_else(|| coded(name, value))
    {
        return Some(pairs);
    }
    match name {
        "Conditions" | "Asserts" => value.items().iter().map(|item| condition(item.items())).collect(),
        "Listen" => named(value, "Listen", |_, text| Some(literal(text))),
        "Paths" | "TimersCalendar" => named(value, "", |_, text| Some(literal(text))),
        "TimersMonotonic" => value.items().iter().map(|item| monotonic(item.items())).collect(),
        "EnvironmentFiles" => lines("EnvironmentFile", value, |fields| match fields {
            [Value::Text(path), Value::Bool(optional)] => {
                Some(format!("{}{}", if *optional { "-" } else { "" }, literal(path)))
            }
            _ => None,
        }),
        "BindPaths" | "BindReadOnlyPaths" => lines(name, value, |fields| match fields {
            [Value::Text(source), Value::Text(destination), Value::Bool(optional), Value::Number(flags)] => {
                let tail = if *flags == 0 { "norbind" } else { "rbind" };
                let minus = if *optional { "-" } else { "" };
                Some(bare(&format!("{minus}{source}:{destination}:{tail}")))
            }
            _ => None,
        }),
        "CPUQuotaPerSecUSec" => match value.as_number()? {
            usec if usec == i128::from(u64::MAX) => one("CPUQuota", ""),
            usec if usec.checked_rem(10_000) == Some(0) => {
                one("CPUQuota", format!("{}%", usec.checked_div(10_000)?))
            }
            usec => one("CPUQuota", hundredths(usec, 10_000)),
        },
        "CPUWeight" | "StartupCPUWeight" | "IOWeight" | "StartupIOWeight" => match value.as_number()? {
            0 if name.contains("CPU") => one(name, "idle"),
            unset if unset == i128::from(u64::MAX) => one(name, ""),
            weight => one(name, weight.to_string()),
        },
        "CPUShares" | "StartupCPUShares" | "BlockIOWeight" | "StartupBlockIOWeight" => {
            match value.as_number()? {
                unset if unset == i128::from(u64::MAX) => one(name, ""),
                number => one(name, number.to_string()),
            }
        }
        "ManagedOOMMemoryPressureLimit" => one(name, scale(value.as_number()?)?),
        "IODeviceLatencyTargetUSec" => lines("IODeviceLatencyTargetSec", value, |fields| match fields {
            [Value::Text(path), usec] => Some(format!("{} {}us", bare(path), usec.as_number()?)),
            _ => None,
        }),
        "SocketBindAllow" | "SocketBindDeny" => lines(name, value, socket_bind),
        "NFTSet" => lines(name, value, nft_set),
        "DelegateControllers" => one("Delegate", value.as_texts()?.join(" ")),
        "IPAddressAllow" | "IPAddressDeny" => lines(name, value, address),
        "AllowedCPUs"
        | "StartupAllowedCPUs"
        | "AllowedMemoryNodes"
        | "StartupAllowedMemoryNodes"
        | "CPUAffinity"
        | "NUMAMask" => one(name, bits(value)?),
        _ => match (name.strip_suffix("DirectorySymlink"), name.strip_suffix("Scale")) {
            (Some(stem), _) => lines(&format!("{stem}Directory"), value, |fields| match fields {
                [Value::Text(path), Value::Text(link), _] => Some(quoted(&format!("{path}:{link}"))),
                _ => None,
            }),
            (_, Some(directive)) => one(directive, scale(value.as_number()?)?),
            (None, None) => None,
        },
    }
}

/// A part of 2^32-1, as a percentage.
fn scale(part: i128) -> Option<String> {
    let whole = i128::from(u32::MAX);
    let half = whole.checked_div(2)?;
    Some(hundredths(part.checked_mul(10_000)?.checked_add(half)?.checked_div(whole)?, 100))
}

/// `(iiqq)`: family, protocol, number of ports, first port.
fn socket_bind(fields: &[Value]) -> Option<String> {
    let [family, protocol, count, first] = fields else { return None };
    let mut parts = Vec::new();
    match family.as_number()? {
        0 => {}
        2 => parts.push("ipv4".to_owned()),
        10 => parts.push("ipv6".to_owned()),
        _ => return None,
    }
    match protocol.as_number()? {
        0 => {}
        6 => parts.push("tcp".to_owned()),
        17 => parts.push("udp".to_owned()),
        _ => return None,
    }
    let (count, first) = (count.as_number()?, first.as_number()?);
    match count {
        0 if parts.is_empty() => parts.push("any".to_owned()),
        0 => {}
        1 => parts.push(first.to_string()),
        _ => parts.push(format!("{first}-{}", first.checked_add(count)?.checked_sub(1)?)),
    }
    Some(parts.join(":"))
}

/// `(iiss)`: source, family, table, set.
fn nft_set(fields: &[Value]) -> Option<String> {
    const FAMILIES: [(i128, &str); 6] =
        [(1, "inet"), (2, "ip"), (3, "arp"), (5, "netdev"), (7, "bridge"), (10, "ip6")];
    let [source, family, Value::Text(table), Value::Text(set)] = fields else { return None };
    // The other sources, user and group, are the execution context's.
    let source = (source.as_number()? == 3).then_some("cgroup")?;
    let number = family.as_number()?;
    let family = FAMILIES.iter().find(|(known, _)| *known == number)?.1;
    Some(format!("{source}:{family}:{}:{}", literal(table), literal(set)))
}

/// A bit mask as numbers and ranges of them.
fn ranges(value: &Value) -> String {
    let Some(all) = bits(value) else { return String::new() };
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in all.split_whitespace().filter_map(|word| word.parse::<u32>().ok()) {
        match runs.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(number) => *end = number,
            _ => runs.push((number, number)),
        }
    }
    let run = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(" ")
}

/// `(ss)` items whose first text is (the end of) the directive's name.
fn named(value: &Value, prefix: &str, line: impl Fn(&str, &str) -> Option<String>) -> Option<Pairs> {
    let pair = |item: &Value| match item.items() {
        [Value::Text(kind), Value::Text(text)] => Some((format!("{prefix}{kind}"), line(kind, text)?)),
        _ => None,
    };
    value.items().iter().map(pair).collect()
}

fn monotonic(fields: &[Value]) -> Option<(String, String)> {
    match fields {
        [Value::Text(base), usec] => {
            let stem = base.strip_suffix("USec").or_else(|| base.strip_suffix("Sec"))?;
            Some((format!("{stem}Sec"), span(usec)?))
        }
        _ => None,
    }
}

/// `(sasb)` or `(sasas)` as a command line.
fn command(fields: &[Value]) -> Option<String> {
    let [Value::Text(path), arguments, flags] = fields else { return None };
    let argv = arguments.as_texts()?;
    let mut prefix = String::new();
    match flags {
        Value::Bool(true) => prefix.push('-'),
        Value::Bool(false) => {}
        _ => {
            for flag in flags.as_texts()? {
                prefix.push_str(match flag {
                    "ignore-failure" => "-",
                    "privileged" => "+",
                    "no-setuid" => "!",
                    "ambient" => "!!",
                    "no-env-expand" => ":",
                    "via-shell" => "|",
                    _ => return None,
                });
            }
        }
    }
    // What a prefix could be mistaken for must be no part of a path.
    if path.starts_with(['-', '@', ':', '|', '+', '!']) {
        return None;
    }
    let (own_name, rest) = match argv.split_first() {
        Some((first, rest)) if first == path => (false, rest),
        _ => (true, argv.as_slice()),
    };
    let mut line = format!("{prefix}{}{}", if own_name { "@" } else { "" }, quoted(path));
    for word in rest {
        line.push(' ');
        line.push_str(&quoted(word));
    }
    Some(line)
}

fn condition(fields: &[Value]) -> Option<(String, String)> {
    match fields {
        [Value::Text(directive), Value::Bool(trigger), Value::Bool(negate), Value::Text(parameter)] => {
            let (trigger, negate) = (if *trigger { "|" } else { "" }, if *negate { "!" } else { "" });
            Some((directive.clone(), format!("{trigger}{negate}{}", literal(parameter))))
        }
        _ => None,
    }
}

/// `StandardOutputFile` and its kin.
fn standard(name: &str, value: &Value) -> Option<Pairs> {
    let directive = ["StandardInput", "StandardOutput", "StandardError"]
        .into_iter()
        .find(|known| name.starts_with(known))?;
    let text = literal(value.as_text()?);
    match name.strip_prefix(directive)? {
        "FileDescriptorName" => one(directive, format!("fd:{text}")),
        "File" => one(directive, format!("file:{text}")),
        "FileToAppend" => one(directive, format!("append:{text}")),
        "FileToTruncate" => one(directive, format!("truncate:{text}")),
        _ => None,
    }
}

/// `LimitNOFILE` is the hard limit and, until `LimitNOFILESoft` is said, the soft one too.
fn limit(name: &str, value: &Value, all: &[(String, Value)]) -> Option<Pairs> {
    let rest = name.strip_prefix("Limit")?;
    let value = value.as_number()?;
    let Some(stem) = rest.strip_suffix("Soft") else { return one(name, number(value)) };
    let directive = format!("Limit{stem}");
    let hard = all.iter().find(|(other, _)| *other == directive).and_then(|(_, hard)| hard.as_number());
    one(&directive, format!("{}:{}", number(value), number(hard.unwrap_or(value))))
}

/// The error number that stands for killing.
const KILL: i128 = 0x7fff_fffe;

/// A list of system calls; a client may name some that no version here knows, which are left out.
fn system_calls(name: &str, value: &Value) -> Option<Pairs> {
    let [Value::Bool(allow), list @ Value::Array(_)] = value.items() else { return None };
    let known = |word: &&str| {
        let call = word.split(':').next().unwrap_or(word);
        !muster_unit::system_calls(call).is_empty()
    };
    let words: Vec<&str> = list.as_texts()?.into_iter().filter(known).collect();
    let text = format!("{}{}", if *allow { "" } else { "~" }, words.join(" "));
    one(name, text)
}

/// Numbers that stand for words.
fn coded(name: &str, value: &Value) -> Option<Pairs> {
    const POLICIES: &[&str] = &["other", "fifo", "rr", "batch", "", "idle", "", "ext"];
    const SPACES: &[(&str, u32)] = &[
        ("cgroup", 25),
        ("ipc", 27),
        ("net", 30),
        ("mnt", 17),
        ("pid", 29),
        ("user", 28),
        ("uts", 26),
        ("time", 7),
    ];
    if name == "StandardInputData" {
        let Value::Bytes(bytes) = value else { return None };
        return one(name, muster_unit::encode_base64(bytes));
    }
    if name == "SystemCallFilter" || name == "SystemCallLog" {
        return system_calls(name, value);
    }
    let number = value.as_number()?;
    let at = |words: &[&str]| words.get(usize::try_from(number).ok()?).map(|word| (*word).to_owned());
    let set = |bit: u32| number.checked_shr(bit).is_some_and(|rest| rest & 1 == 1);
    let named = |words: &[&str]| {
        (0_u32..).zip(words).filter(|(bit, _)| set(*bit)).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    };
    match name {
        "CoredumpFilter" => one(name, format!("{number:#x}")),
        "SystemCallErrorNumber" if number == KILL => one(name, "kill"),
        "SyslogFacility" => one(name, at(muster_unit::SyslogFacility::WORDS)?),
        "SyslogLevel" | "LogLevelMax" => one(name, at(muster_unit::SyslogLevel::WORDS)?),
        "CPUSchedulingPolicy" => one(name, at(POLICIES)?),
        "NUMAPolicy" => one(name, at(&["default", "preferred", "bind", "interleave", "local"])?),
        "SecureBits" => one(name, named(&muster_unit::setting::SecureBits::WORDS)),
        "CapabilityBoundingSet" | "AmbientCapabilities" => {
            Some(vec![(name.to_owned(), String::new()), (name.to_owned(), named(muster_unit::CAPABILITIES))])
        }
        "RestrictNamespaces" => {
            let kept: Vec<&str> = SPACES.iter().filter(|(_, bit)| set(*bit)).map(|(word, _)| *word).collect();
            one(name, if kept.is_empty() { "yes".to_owned() } else { kept.join(" ") })
        }
        "MountFlags" => match number {
            0 => one(name, ""),
            _ => one(
                name,
                [("shared", 20), ("slave", 19), ("private", 18)].into_iter().find(|(_, bit)| set(*bit))?.0,
            ),
        },
        "SuccessActionExitStatus" | "FailureActionExitStatus" if number < 0 => one(name, ""),
        _ => None,
    }
}

/// A bit mask as numbers.
fn bits(value: &Value) -> Option<String> {
    let Value::Bytes(bytes) = value else { return None };
    let cpus = bytes.iter().enumerate().flat_map(|(at, byte)| {
        (0_usize..8)
            .filter(move |bit| byte >> bit & 1 == 1)
            .map(move |bit| at.saturating_mul(8).saturating_add(bit).to_string())
    });
    Some(cpus.collect::<Vec<_>>().join(" "))
}

/// `(iayu)`: family, address, prefix length.
fn address(fields: &[Value]) -> Option<String> {
    let [Value::Number(_), Value::Bytes(bytes), Value::Number(length)] = fields else { return None };
    let address: std::net::IpAddr =
        match (<[u8; 4]>::try_from(bytes.as_slice()), <[u8; 16]>::try_from(bytes.as_slice())) {
            (Ok(four), _) => four.into(),
            (_, Ok(sixteen)) => sixteen.into(),
            _ => return None,
        };
    Some(format!("{address}/{length}"))
}

#[cfg(test)]
mod tests;
