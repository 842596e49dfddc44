//! What a confined process sees of itself, and what becomes of calls that it tries: the probe of the cases about
//! confinement. One `NAME=value` a line.

use anyhow::{Context, Result, bail};
use muster_sys::{Attempted, Entry, attempt};
use std::fmt::Write;
use std::fs;

/// Identity, capabilities, limits, scheduling, memory, as the kernel tells them.
pub fn report() -> String {
    let mut text = String::new();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for key in [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Cpus_allowed_list",
        "Mems_allowed_list",
        "THP_enabled",
    ] {
        let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let value = found.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "{key}={value}");
    }
    let number = |option: i32| muster_sys::process_control(option, 0, 0).map_or(-1, i64::from);
    // prctl(2): PR_GET_SECUREBITS, PR_GET_TIMERSLACK, PR_GET_MDWE, PR_GET_MEMORY_MERGE, PR_GET_THP_DISABLE.
    for (name, option) in
        [("SecureBits", 27), ("TimerSlack", 30), ("MDWE", 66), ("KSM", 68), ("THPDisable", 42)]
    {
        let _ = writeln!(text, "{name}={}", number(option));
    }
    let _ = writeln!(text, "Personality={:#x}", muster_sys::personality(u32::MAX).unwrap_or(u32::MAX));
    if let Ok((policy, priority, nice)) = muster_sys::scheduler() {
        let _ = writeln!(text, "Scheduler={policy} Priority={priority} Nice={nice}");
    }
    let io = muster_sys::io_priority().unwrap_or(-1);
    let _ = writeln!(text, "IOClass={} IOPriority={}", io >> 13, io & 0x1fff);
    if let Ok((mode, nodes)) = muster_sys::memory_policy() {
        let _ = writeln!(text, "NUMAPolicy={mode} NUMANodes={nodes:#x}");
    }
    for file in ["coredump_filter", "oom_score_adj"] {
        let value = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let _ = writeln!(text, "{file}={}", value.trim());
    }
    for line in fs::read_to_string("/proc/self/limits").unwrap_or_default().lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let _ = writeln!(text, "{}", fields.join(" "));
    }
    text
}

/// Tries calls, one a word: `[i386:|x32:]NAME[,ARGUMENT…]`, the name as in the kernel's table of the entry or a number,
/// arguments as numbers (`0x`, `0o` and negative ones too). Prints `WORD=ok`, `WORD=ERRNO` or `WORD=SIGNAL`.
pub fn attempts(words: &[&str]) -> Result<String> {
    let mut text = String::new();
    for word in words {
        let (entry, rest) = match word.split_once(':') {
            Some(("i386", rest)) => (Entry::I386, rest),
            Some(("x32", rest)) => (Entry::X32, rest),
            _ => (Entry::Native, *word),
        };
        let mut parts = rest.split(',');
        let call = number_of(entry, parts.next().unwrap_or_default())?;
        let mut arguments = [0; 6];
        for (argument, part) in arguments.iter_mut().zip(parts) {
            *argument = value(part).with_context(|| format!("argument {part}"))? as u64;
        }
        let said = match attempt(entry, call, arguments, &|| true)? {
            Attempted::Returned(_) => "ok".to_owned(),
            Attempted::Failed(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
            Attempted::Killed(number) => nix::sys::signal::Signal::try_from(number)
                .map_or(number.to_string(), |signal| signal.to_string()),
        };
        let _ = writeln!(text, "{word}={said}");
    }
    Ok(text)
}

fn value(text: &str) -> Result<i64> {
    Ok(match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(hex), _) => u64::from_str_radix(hex, 16)? as i64,
        (_, Some(octal)) => i64::from_str_radix(octal, 8)?,
        (None, None) => text.parse()?,
    })
}

fn number_of(entry: Entry, name: &str) -> Result<i64> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = match entry {
        Entry::I386 => name.parse::<syscalls::x86::Sysno>().ok().map(|call| call.id()),
        Entry::Native | Entry::X32 => name.parse::<syscalls::x86_64::Sysno>().ok().map(|call| call.id()),
    };
    match found {
        Some(number) => Ok(i64::from(number)),
        None => bail!("{name}: there is no such system call"),
    }
}
