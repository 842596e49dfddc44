//! `GetAll` of every object, beside the oracle: the manager and each loaded unit, interface by interface, property by property.
//!
//! The same Debian is booted under both, with units of all types in many states. What differs by nature is not compared but
//! looked at: a time of day is near this one, a process has a number where the oracle's has one, a counter counts where the
//! oracle's does. What else differs is a row of the table "Properties on D-Bus" of docs/differences.md, with its reason; a row
//! that differs no more is a failure, too, so that the page stays true.

use crate::ground::{Ground, Init, booted};
use crate::{Case, Outcome};
use anyhow::{Context, Result, ensure};
use muster_tests::{Builder, Container, paths};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The page, and the heading of its table.
const PAGE: &str = "docs/differences.md";
const HEADING: &str = "## Properties on D-Bus";
const SETS: [&str; 3] = ["Paths", "IPAddressAllow", "IPAddressDeny"];
const MANAGER: &str = "manager";
/// A clock of a boot that began before this many microseconds ago is no time of ours.
const RECENT_USEC: u64 = 3_600_000_000;

/// Units beside Debian's own, by their files.
const FILES: &[(&str, &str)] = &[
    (
        "a.service",
        "[Service]\nEnvironment=A=1 B=2\nExecStart=/bin/sleep infinity\nExecReload=/bin/true\nTimeoutStopSec=7\n",
    ),
    ("failed.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 3'\n"),
    ("killed.service", "[Service]\nExecStart=/bin/sh -c 'kill -9 $$'\n"),
    (
        "done.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStart=-/bin/false\nExecStop=/bin/true\n",
    ),
    (
        "notify.service",
        "[Service]\nType=notify\nNotifyAccess=all\nWatchdogSec=1h\nExecStart=/bin/sh -c 'systemd-notify --ready --status=here; exec sleep 1000'\n",
    ),
    (
        "skipped.service",
        "[Unit]\nConditionPathExists=/nope\nConditionPathExists=|/etc/passwd\nAssertPathExists=/etc\n[Service]\nExecStart=/bin/true\n",
    ),
    ("bad.service", "[Service]\nType=simple\n"),
    (
        "wants.service",
        "[Unit]\nWants=absent.service masked.service bad.service cut.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    ),
    (
        "inst@.service",
        "[Unit]\nDescription=Instance %i\n[Service]\nExecStart=/bin/sleep infinity\nSlice=x-y.slice\n",
    ),
    (
        "hard.service",
        "[Service]\nUser=nobody\nExecStart=/bin/sleep infinity\nProtectSystem=strict\nPrivateTmp=yes\nNoNewPrivileges=yes\nSystemCallFilter=@system-service\nRestrictAddressFamilies=AF_UNIX\nStateDirectory=hard\nRuntimeDirectory=hard:soft\nCapabilityBoundingSet=CAP_CHOWN\nLimitNOFILE=100:200\nCPUWeight=50\nMemoryMax=1G\nNice=3\nIOSchedulingClass=idle\nDeviceAllow=/dev/null rw\nIPAddressDeny=any\nRestrictNamespaces=yes\nTasksMax=50%\n",
    ),
    (
        "l.socket",
        "[Socket]\nListenStream=/run/l\nListenDatagram=/run/ld\nListenStream=127.0.0.1:7009\nSocketMode=0600\n",
    ),
    ("l.service", "[Service]\nExecStart=/bin/sleep infinity\n"),
    ("acc.socket", "[Socket]\nListenStream=/run/acc\nAccept=yes\nExecStartPre=/bin/true\nMaxConnections=3\n"),
    ("acc@.service", "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n"),
    (
        "t.timer",
        "[Timer]\nOnCalendar=*-*-* 03:00:00\nOnBootSec=10h\nOnUnitActiveSec=3h\nUnit=done.service\nRandomizedDelaySec=0\n",
    ),
    ("down.timer", "[Timer]\nOnCalendar=weekly\nPersistent=yes\nUnit=a.service\n"),
    ("p.path", "[Path]\nPathExists=/run/nope/file\nPathChanged=/etc/passwd\nUnit=done.service\n"),
    (
        "srv-m.mount",
        "[Unit]\nDescription=M\n[Mount]\nWhat=nothing\nWhere=/srv/m\nType=tmpfs\nOptions=size=1M\n",
    ),
    ("srv-down.mount", "[Mount]\nWhat=/dev/nothing\nWhere=/srv/down\n"),
    ("srv-broken.mount", "[Mount]\nWhat=/dev/nothing\nWhere=/srv/broken\nType=nofs\n"),
    ("srv-auto.automount", "[Automount]\nWhere=/srv/auto\nTimeoutIdleSec=1h\n"),
    ("srv-auto.mount", "[Mount]\nWhat=nothing\nWhere=/srv/auto\nType=tmpfs\n"),
    ("var-swap.swap", "[Swap]\nWhat=/var/swap\nPriority=7\n"),
    ("x-y.slice", "[Slice]\nMemoryHigh=2G\nCPUQuota=30%\n"),
    (
        "all.target",
        "[Unit]\nAllowIsolate=yes\nWants=dev-none.device var-swap.swap srv-down.mount down.timer bad.service t.timer p.path a.service\n",
    ),
];

/// What brings them into their states. The last line waits for what goes on by itself.
const SCRIPT: &str = "
    systemctl start a done notify wants hard inst@1 l.socket acc.socket t.timer p.path srv-m.mount srv-auto.automount
    systemctl start skipped failed killed bad srv-broken.mount masked absent.service var-swap.swap
    systemctl start --no-block all.target
    mkdir -p /srv/byhand; mount -t tmpfs byhand /srv/byhand
    systemd-run -q --unit=tr.service --property=Nice=5 --description='A transient' sleep 1000
    systemd-run -q --unit=tt --on-active=5h true
    systemd-run -q --unit=tf.service --service-type=oneshot false
    setsid systemd-run -q --scope --unit=sc.scope sleep 1000 >/dev/null 2>&1 &
    until systemctl is-active -q sc.scope && systemctl is-failed -q killed && systemctl is-active -q srv-byhand.mount; do sleep 0.05; done
    until [ -z \"$(systemctl list-jobs --no-legend | grep -v dev-none)\" ]; do sleep 0.05; done; sleep 0.1";

/// The cases of this file.
pub fn cases(init: Init) -> Vec<Case> {
    match init {
        Init::Muster => vec![Case::new("bus/every-property", every_property)],
        // It boots both.
        Init::Systemd => Vec::new(),
    }
}

/// What is under way when it is asked for differs from moment to moment; what differs twice, differs.
fn every_property(ground: &Ground) -> Result<Outcome> {
    compared(ground).or_else(|_| compared(ground))
}

fn compared(ground: &Ground) -> Result<Outcome> {
    let listed = listed()?;
    let ask = |init| -> Result<Objects> {
        let container = booted(with_files(ground.debian_under(init)))?;
        container.sh(SCRIPT)?;
        all_objects(&container)
    };
    let (there, here) = std::thread::scope(|scope| {
        let other = scope.spawn(|| ask(Init::Systemd));
        let here = ask(Init::Muster);
        (other.join(), here)
    });
    let there = there.map_err(|_| anyhow::anyhow!("the oracle's half panicked"))??;
    let mut found = Found { listed: &listed, seen: BTreeSet::new(), faults: BTreeMap::new(), compared: 0 };
    found.compare(&there, &here?);
    found.finish()
}

fn with_files(builder: Builder) -> Builder {
    let place = |builder: Builder, (name, text): &(&str, &str)| {
        builder.file(&format!("etc/systemd/system/{name}"), *text)
    };
    FILES.iter().fold(builder, place).link("etc/systemd/system/masked.service", "/dev/null")
}

/// The properties of an object, by interface.
type Object = BTreeMap<String, Map<String, Value>>;
/// All objects, by the name of the unit, or `manager`.
type Objects = BTreeMap<String, Object>;

fn busctl(path: &str, interface: &str, method: &str, arguments: &str) -> String {
    format!("busctl --json=short call org.freedesktop.systemd1 {path} {interface} {method} {arguments}\n")
}

/// Asks for everything.
fn all_objects(container: &Container) -> Result<Objects> {
    let root = "/org/freedesktop/systemd1";
    let list = busctl(root, "org.freedesktop.systemd1.Manager", "ListUnits", "");
    let list: Value = serde_json::from_str(&container.sh(&list)?.ok()?)?;
    let units = list["data"][0].as_array().context("a list of units")?;
    let mut asked = vec![(MANAGER.to_owned(), root.to_owned(), "Manager".to_owned())];
    for unit in units {
        let name = unit[0].as_str().context("a name")?;
        let path = unit[6].as_str().context("a path")?;
        let kind = name.rsplit('.').next().unwrap_or_default();
        let own = kind.chars().enumerate().map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c });
        let own: String = own.collect();
        for interface in ["Unit".to_owned(), own] {
            asked.push((name.to_owned(), path.to_owned(), interface));
        }
    }
    let get_all = |(_, path, interface): &(String, String, String)| {
        let arguments = format!("s org.freedesktop.systemd1.{interface}");
        busctl(path, "org.freedesktop.DBus.Properties", "GetAll", &arguments)
    };
    // In parts: one has a time limit.
    let mut said = String::new();
    for some in asked.chunks(40) {
        let output = container.sh(&some.iter().map(get_all).collect::<String>())?;
        said += &output.ok().map_err(|_| anyhow::anyhow!("{some:?} are not all answered"))?;
    }
    let answers: Vec<&str> = said.lines().collect();
    ensure!(answers.len() == asked.len(), "{} answers to {} questions", answers.len(), asked.len());
    let mut objects = Objects::new();
    for ((name, _, interface), answer) in asked.into_iter().zip(answers) {
        let answer: Value = serde_json::from_str(answer)?;
        let all = answer["data"][0].as_object().context("properties")?.clone();
        objects.entry(name).or_default().insert(interface, all);
    }
    Ok(objects)
}

/// A row of the page: which objects, which properties.
#[derive(Debug)]
struct Row {
    objects: Vec<String>,
    properties: Vec<String>,
}

impl Row {
    /// Whether it is about this property of this object, by its name or by what is loaded of it.
    fn holds(&self, object: &str, loaded: &str, property: &str) -> bool {
        let fits = |pattern: &String, word: &str| match pattern.split_once('*') {
            Some((head, tail)) => {
                word.len() >= head.len() + tail.len() && word.starts_with(head) && word.ends_with(tail)
            }
            None => pattern == word,
        };
        self.objects.iter().any(|pattern| fits(pattern, object) || pattern == loaded)
            && self.properties.iter().any(|pattern| fits(pattern, property))
    }
}

/// The words in backquotes of a cell.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn listed() -> Result<Vec<Row>> {
    let page = fs::read_to_string(paths::workspace().join(PAGE))?;
    let (_, table) = page.split_once(HEADING).with_context(|| format!("{PAGE} has no {HEADING}"))?;
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.trim_matches('|').split(" | ");
        let mut next = || quoted(cells.next().unwrap_or_default());
        Row { objects: next(), properties: next() }
    });
    Ok(rows.collect())
}

/// What differs.
struct Found<'a> {
    listed: &'a [Row],
    /// Rows that were needed.
    seen: BTreeSet<usize>,
    /// By the type of the object and the property: the first object, what is there and here, and how many more.
    faults: BTreeMap<(String, String), (String, Vec<String>)>,
    compared: usize,
}

impl Found<'_> {
    fn compare(&mut self, there: &Objects, here: &Objects) {
        for name in there.keys().chain(here.keys()).collect::<BTreeSet<_>>() {
            let (Some(that), Some(this)) = (there.get(name), here.get(name)) else {
                let which = if there.contains_key(name) { "systemd" } else { "muster" };
                self.differs(name, "", "(loaded)", format!("only under {which}"));
                continue;
            };
            let state = that.get("Unit").and_then(|unit| unit.get("LoadState"));
            let loaded = state.and_then(|state| state["data"].as_str()).unwrap_or_default();
            let loaded = if loaded == "loaded" { "" } else { "not loaded" };
            for (interface, that) in that {
                let (that, this) = (&common(that, there, here), this.get(interface));
                let empty = Map::new();
                let this = &common(this.unwrap_or(&empty), there, here);
                for property in that.keys().chain(this.keys()).collect::<BTreeSet<_>>() {
                    self.compare_one(name, loaded, property, that.get(property), this.get(property));
                }
            }
        }
    }

    fn compare_one(
        &mut self,
        name: &str,
        loaded: &str,
        property: &str,
        there: Option<&Value>,
        here: Option<&Value>,
    ) {
        self.compared += 1;
        let (Some(there), Some(here)) = (there, here) else {
            let which = if there.is_some() { "systemd" } else { "muster" };
            return self.differs(name, loaded, property, format!("only under {which}"));
        };
        let (there, here) = (normal(property, there), normal(property, here));
        if there != here {
            self.differs(name, loaded, property, told(&there, &here));
        }
    }

    fn differs(&mut self, name: &str, loaded: &str, property: &str, how: String) {
        let rows = self.listed.iter().enumerate().filter(|(_, row)| row.holds(name, loaded, property));
        let rows: Vec<usize> = rows.map(|(at, _)| at).collect();
        if !rows.is_empty() {
            return self.seen.extend(rows);
        }
        let kind = name.rsplit_once('.').map_or(name, |(_, kind)| kind);
        let entry = self.faults.entry((kind.to_owned(), property.to_owned()));
        let (_, more) = entry.or_insert_with(|| (how, Vec::new()));
        more.push(name.to_owned());
    }

    fn finish(self) -> Result<Outcome> {
        let mut text = String::new();
        for ((kind, property), (how, more)) in &self.faults {
            let some: Vec<_> = more.iter().take(4).collect();
            writeln!(text, "{kind} {property}: {} such as {some:?}: {how}", more.len())?;
        }
        for (at, row) in self.listed.iter().enumerate().filter(|(at, _)| !self.seen.contains(at)) {
            writeln!(text, "row {at} of {PAGE} differs no more: {row:?}")?;
        }
        ensure!(self.compared > 10_000, "only {} properties", self.compared);
        ensure!(text.is_empty(), "{} kinds of differences\n{text}", self.faults.len());
        Ok(Outcome::Passed)
    }
}

/// Properties without the names of units, in lists of units, that are loaded under one of the two alone: that is told once.
fn common(all: &Map<String, Value>, there: &Objects, here: &Objects) -> Map<String, Value> {
    let one_sided =
        |name: &Value| name.as_str().is_some_and(|name| there.contains_key(name) != here.contains_key(name));
    let mut all = all.clone();
    for (_, value) in all.iter_mut().filter(|(_, value)| value["type"] == "as") {
        value["data"].as_array_mut().into_iter().for_each(|list| list.retain(|name| !one_sided(name)));
    }
    all
}

/// Two values that differ; of lists, what only one has.
fn told(there: &Value, here: &Value) -> String {
    let text = |value: &Value| value["data"].to_string().chars().take(600).collect::<String>();
    match (there["data"].as_array(), here["data"].as_array()) {
        (Some(that), Some(this)) if that.iter().all(Value::is_string) => {
            let only = |some: &[Value], other: &[Value]| {
                Value::from(some.iter().filter(|item| !other.contains(item)).cloned().collect::<Vec<_>>())
            };
            format!("only systemd has {}, only muster {}", only(that, this), only(this, that))
        }
        _ => format!("systemd has {}, muster {}", text(there), text(here)),
    }
}

/// A value as it is compared: `type` and `data`, what differs by nature replaced by a word for it.
fn normal(property: &str, value: &Value) -> Value {
    let mut value = value.clone();
    let data = &mut value["data"];
    // What is a set comes in another order; where the test keeps a container is its own affair.
    if SETS.contains(&property) {
        data.as_array_mut().into_iter().for_each(|list| list.sort_by_key(Value::to_string));
    }
    if let Some(text) = data.as_str().filter(|text| text.contains("/muster-test-")) {
        let parts: Vec<&str> = text.split("/muster-test-").collect();
        let parts =
            parts.iter().map(|part| part.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit()));
        *data = Value::from(parts.collect::<Vec<_>>().join("/muster-test"));
        return value;
    }
    if let Some(number) = data.as_u64() {
        if let Some(word) = number_word(property, number) {
            *data = Value::from(word);
        }
    } else if property == "InvocationID" {
        *data = Value::from(data.as_array().map_or(0, Vec::len));
    } else if property.starts_with("Timers") {
        for next in data.as_array_mut().into_iter().flatten().filter_map(|timer| timer.get_mut(2)) {
            *next = next.as_u64().map_or(Value::Null, |usec| Value::from(some_word(usec)));
        }
    } else if property.starts_with("Exec") {
        data.as_array_mut().into_iter().flatten().for_each(command);
    } else if let Some(list) = data.as_array_mut().filter(|list| list.iter().all(Value::is_string)) {
        // The oracle's come in the order of a hash.
        if property != "Documentation" && property != "UnitPath" && property != "DropInPaths" {
            list.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    value
}

/// The times and the process of a command's last run, in place.
fn command(command: &mut Value) {
    let Some(fields) = command.as_array_mut() else { return };
    for field in fields.iter_mut().skip(3).take(4) {
        *field = field.as_u64().map_or(Value::Null, |usec| Value::from(time_word(usec)));
    }
    if let Some(pid) = fields.get_mut(7) {
        *pid = Value::from(some_word(pid.as_u64().unwrap_or(0)));
    }
}

fn some_word(number: u64) -> &'static str {
    match number {
        0 => "none",
        u64::MAX => "unset",
        _ => "some",
    }
}

/// A time on one of the clocks; which one is told by its size.
fn time_word(usec: u64) -> &'static str {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros());
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime = uptime.split('.').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let uptime = uptime.saturating_add(1).saturating_mul(1_000_000);
    match usec {
        0 | u64::MAX => some_word(usec),
        _ if usec > now => "to come",
        _ if usec > now.saturating_sub(RECENT_USEC) => "a time of today",
        _ if usec < uptime && usec > uptime.saturating_sub(RECENT_USEC) => "since the start",
        _ => "another time",
    }
}

/// What stands for a number that is another each time.
fn number_word(property: &str, number: u64) -> Option<&'static str> {
    const PROCESSES: [&str; 3] = ["MainPID", "ControlPID", "ExecMainPID"];
    const COUNTERS: [&str; 11] = [
        "ControlGroupId",
        "MemoryCurrent",
        "MemoryPeak",
        "MemoryAvailable",
        "MemorySwapCurrent",
        "MemorySwapPeak",
        "MemoryZSwapCurrent",
        "CPUUsageNSec",
        "NInstalledJobs",
        "NNames",
        "NextElapseUSecMonotonic",
    ];
    if property.ends_with("Timestamp")
        || property.ends_with("TimestampMonotonic")
        || property.contains("LastTrigger")
        || property == "NextElapseUSecRealtime"
    {
        return Some(time_word(number));
    }
    (PROCESSES.contains(&property) || COUNTERS.contains(&property)).then(|| some_word(number))
}
