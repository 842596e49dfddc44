//! Confinement by filters of system calls: from the directives of a unit to filters that the kernel takes.
//!
//! Each directive is a filter of its own; of several verdicts about a call the kernel takes the strictest. What must stay
//! true: `SystemCallFilter=` is installed last, for what it forbids may be what the others need; and what cannot be
//! filtered is refused, not let through (clone3(2) and openat2(2), whose arguments no filter sees).

mod bpf;

use bpf::{Filter, Rule, Section, Test, Verdict};
use muster_sys::Instruction;
use muster_unit::{
    AddressFamilies, ExecSection, Namespaces, Personality, SyscallAction, SyscallFilter, system_calls,
};
use std::collections::BTreeMap;
use syscalls::{x86, x86_64};

/// The directive that newer kernels do without a filter.
pub const WRITE_EXECUTE: &str = "MemoryDenyWriteExecute=";

/// A filter with what asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The directive, with `=`.
    pub directive: &'static str,
    /// The instructions for the kernel.
    pub program: Vec<Instruction>,
}

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;
const EAFNOSUPPORT: u16 = 97;
/// CLONE_NEWTIME.
const TIME: u32 = 0x80;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    X8664,
    X86,
    X32,
}

/// Numbers of x32 that 64-bit programs do not have.
const X32: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// The numbers of a call at an entry. The kernel takes some calls of x32 by either of two.
fn numbers(entry: Entry, name: &str) -> Vec<u32> {
    match entry {
        Entry::X86 => name
            .parse::<x86::Sysno>()
            .ok()
            .and_then(|call| u32::try_from(call.id()).ok())
            .into_iter()
            .collect(),
        Entry::X8664 | Entry::X32 => {
            let own = name.parse::<x86_64::Sysno>().ok().and_then(|call| u32::try_from(call.id()).ok());
            let second = (512_u32..).zip(X32).find(|(_, known)| entry == Entry::X32 && *known == name);
            own.into_iter().chain(second.map(|(number, _)| number)).collect()
        }
    }
}

/// The same rule everywhere for the calls of these names.
fn rules(entry: Entry, into: &mut BTreeMap<u32, Rule>, names: &[&str], rule: &Rule) {
    for number in names.iter().flat_map(|name| numbers(entry, name)) {
        into.insert(number, rule.clone());
    }
}

/// A filter from what it does at each entry.
fn filter(others: Verdict, fill: impl Fn(Entry, &mut BTreeMap<u32, Rule>)) -> Vec<Instruction> {
    let section = |entry| {
        let mut rules = BTreeMap::new();
        fill(entry, &mut rules);
        Section { rules, others }
    };
    Filter { x86_64: section(Entry::X8664), x86: section(Entry::X86), x32: section(Entry::X32) }.program()
}

/// Calls that fail, whatever their arguments.
fn refused(names: &[&str]) -> Vec<Instruction> {
    filter(Verdict::Allow, |entry, into| rules(entry, into, names, &Rule::Always(Verdict::Fail(EPERM))))
}

fn group(name: &str) -> Vec<Instruction> {
    refused(&system_calls(name).into_iter().collect::<Vec<_>>())
}

fn bits(argument: u8, mask: u32, value: u32) -> Test {
    Test { argument, mask, value, equal: true }
}

fn is(argument: u8, value: u32) -> Test {
    bits(argument, u32::MAX, value)
}

fn not(test: Test) -> Test {
    Test { equal: !test.equal, ..test }
}

/// A call that fails with an error when one of these holds.
fn fails(error: u16, when: Vec<Vec<Test>>) -> Rule {
    let verdicts = when.into_iter().map(|tests| (tests, Verdict::Fail(error))).collect();
    Rule::When(verdicts, Verdict::Allow)
}

fn verdict(action: Option<SyscallAction>) -> Verdict {
    match action {
        Some(SyscallAction::Errno(error)) => Verdict::Fail(error),
        Some(SyscallAction::Kill) | None => Verdict::Kill,
    }
}

/// `SystemCallFilter=` with `SystemCallErrorNumber=`.
fn calls(listed: &SyscallFilter, error: Option<SyscallAction>) -> Option<Vec<Instruction>> {
    let (allow, listed) = listed.merged("@default")?;
    let (others, listed_verdict) =
        if allow { (verdict(error), Verdict::Allow) } else { (Verdict::Allow, verdict(error)) };
    Some(filter(others, |entry, into| {
        for (name, action) in &listed {
            let verdict = action.map_or(listed_verdict, |action| verdict(Some(action)));
            rules(entry, into, &[name], &Rule::Always(verdict));
        }
    }))
}

/// `SystemCallLog=`.
fn logged(listed: &SyscallFilter) -> Option<Vec<Instruction>> {
    let (listing, listed) = listed.merged("")?;
    let (others, own) = if listing { (Verdict::Allow, Verdict::Log) } else { (Verdict::Log, Verdict::Allow) };
    let names: Vec<&str> = listed.into_keys().collect();
    Some(filter(others, |entry, into| rules(entry, into, &names, &Rule::Always(own))))
}

/// `SystemCallArchitectures=`: what comes by another entry than these and the native one is killed. x32 and the native one
/// have one number in audit.
fn architectures(exec: &ExecSection) -> Option<Vec<Instruction>> {
    let allowed = &exec.system_call_architectures().0;
    if allowed.is_empty() {
        return None;
    }
    let section = |names: &[&str]| {
        let others =
            if names.iter().any(|name| allowed.contains(*name)) { Verdict::Allow } else { Verdict::Kill };
        Section { rules: BTreeMap::new(), others }
    };
    let filter = Filter {
        x86_64: Section { rules: BTreeMap::new(), others: Verdict::Allow },
        x86: section(&["x86"]),
        x32: section(&["x32"]),
    };
    Some(filter.program())
}

/// `RestrictAddressFamilies=`, at socket(2). The one number by which 32-bit programs may ask for any operation on sockets
/// hides the family in memory; opening one by it fails.
fn families(listed: &AddressFamilies) -> Vec<Instruction> {
    let refused = Verdict::Fail(EAFNOSUPPORT);
    let (known, unknown) = if listed.allow { (Verdict::Allow, refused) } else { (refused, Verdict::Allow) };
    let when = listed.families.iter().map(|family| (vec![is(0, u32::from(*family))], known)).collect();
    let rule = Rule::When(when, unknown);
    filter(Verdict::Allow, |entry, into| {
        rules(entry, into, &["socket"], &rule);
        if entry == Entry::X86 {
            rules(entry, into, &["socketcall"], &fails(EAFNOSUPPORT, vec![vec![is(0, 1)]]));
        }
    })
}

/// `RestrictNamespaces=`.
fn namespaces(allowed: Namespaces) -> Vec<Instruction> {
    let forbidden = Namespaces::KINDS.iter().map(|(_, bit)| *bit).filter(|bit| allowed.0 & bit == 0);
    // Namespaces of time have no word of their own: they are forbidden with all others.
    let time = (allowed.0 == 0).then_some(u64::from(TIME));
    let forbidden: Vec<u32> = forbidden.chain(time).filter_map(|bit| u32::try_from(bit).ok()).collect();
    let any = |argument: u8| forbidden.iter().map(|bit| vec![bits(argument, *bit, *bit)]).collect::<Vec<_>>();
    filter(Verdict::Allow, |entry, into| {
        rules(entry, into, &["clone3"], &Rule::Always(Verdict::Fail(ENOSYS)));
        rules(entry, into, &["unshare"], &fails(EPERM, any(0)));
        // Its bit of time namespaces belongs to the number of the signal.
        let clone = any(0).into_iter().filter(|tests| tests.iter().all(|test| test.mask != TIME)).collect();
        rules(entry, into, &["clone"], &fails(EPERM, clone));
        // Zero stands for a namespace of any kind.
        let mut setns = vec![vec![is(1, 0)]];
        setns.extend(any(1));
        rules(entry, into, &["setns"], &fails(EPERM, setns));
    })
}

/// `RestrictRealtime=`: the policies that remain are other, batch and idle. The newer call has its policy in memory, which
/// no filter sees: it is as if it were not there, and callers fall back.
fn realtime() -> Vec<Instruction> {
    let policy = |number| (vec![is(1, number)], Verdict::Allow);
    let rule = Rule::When(vec![policy(0), policy(3), policy(5)], Verdict::Fail(EPERM));
    filter(Verdict::Allow, |entry, into| {
        rules(entry, into, &["sched_setscheduler"], &rule);
        rules(entry, into, &["sched_setattr"], &Rule::Always(Verdict::Fail(ENOSYS)));
    })
}

/// `RestrictSUIDSGID=`.
fn set_id() -> Vec<Instruction> {
    const SET_UID: u32 = 0o4000;
    const SET_GID: u32 = 0o2000;
    const CREATE: u32 = 0o100;
    const TEMPORARY: u32 = 0o20_000_000;
    let mode = |at: u8| vec![vec![bits(at, SET_UID, SET_UID)], vec![bits(at, SET_GID, SET_GID)]];
    let opening = |flags: u8, at: u8| {
        let creating = [bits(flags, CREATE, CREATE), bits(flags, TEMPORARY, TEMPORARY)];
        let each = creating
            .into_iter()
            .flat_map(|flag| mode(at).into_iter().map(move |tests| [vec![flag], tests].concat()));
        each.collect::<Vec<_>>()
    };
    filter(Verdict::Allow, |entry, into| {
        rules(entry, into, &["chmod", "fchmod", "mkdir", "mknod", "creat"], &fails(EPERM, mode(1)));
        rules(entry, into, &["fchmodat", "fchmodat2", "mkdirat", "mknodat"], &fails(EPERM, mode(2)));
        rules(entry, into, &["open"], &fails(EPERM, opening(1, 2)));
        rules(entry, into, &["openat"], &fails(EPERM, opening(2, 3)));
        rules(entry, into, &["openat2"], &Rule::Always(Verdict::Fail(ENOSYS)));
    })
}

/// `LockPersonality=`: only the one that there is may be set, and asking is no setting, but refused by systemd too.
fn personality(own: u32) -> Vec<Instruction> {
    let other = vec![vec![not(is(0, own))]];
    filter(Verdict::Allow, |entry, into| rules(entry, into, &["personality"], &fails(EPERM, other.clone())))
}

/// `MemoryDenyWriteExecute=`. For kernels before 6.3, and for what their own means lets through: a mapping that is
/// executable from the start, and shared memory.
fn write_execute() -> Vec<Instruction> {
    const WRITE: u32 = 2;
    const EXECUTE: u32 = 4;
    const SHARED_EXECUTE: u32 = 0o100_000;
    filter(Verdict::Allow, |entry, into| {
        let both = fails(EPERM, vec![vec![bits(2, WRITE | EXECUTE, WRITE | EXECUTE)]]);
        // By its old number, 32-bit programs give the arguments in memory.
        match entry {
            Entry::X86 => {
                rules(entry, into, &["mmap"], &Rule::Always(Verdict::Fail(EPERM)));
                rules(entry, into, &["mmap2"], &both);
            }
            Entry::X8664 | Entry::X32 => rules(entry, into, &["mmap"], &both),
        }
        rules(
            entry,
            into,
            &["mprotect", "pkey_mprotect"],
            &fails(EPERM, vec![vec![bits(2, EXECUTE, EXECUTE)]]),
        );
        rules(entry, into, &["shmat"], &fails(EPERM, vec![vec![bits(2, SHARED_EXECUTE, SHARED_EXECUTE)]]));
    })
}

/// The personality that a unit asks for; `current` if it does not.
pub fn personality_of(exec: &ExecSection, current: u32) -> u32 {
    match exec.personality() {
        Some(Personality::X8664) => 0,
        Some(Personality::X86) => 8,
        None => current,
    }
}

/// Whether a unit asks for a filter.
pub fn wanted(exec: &ExecSection) -> bool {
    exec.restrict_address_families().is_some()
        || exec.memory_deny_write_execute()
        || exec.restrict_realtime()
        || exec.restrict_suid_sgid()
        || exec.dynamic_user()
        || restricted_namespaces(exec).is_some()
        || hostname_is_protected(exec)
        || exec.protect_kernel_tunables()
        || exec.protect_kernel_modules()
        || exec.protect_kernel_logs()
        || exec.protect_clock()
        || exec.private_devices()
        || exec.lock_personality()
        || !exec.system_call_architectures().0.is_empty()
        || !exec.system_call_log().is_empty()
        || !exec.system_call_filter().is_empty()
}

fn restricted_namespaces(exec: &ExecSection) -> Option<Namespaces> {
    exec.restrict_namespaces().filter(|kinds| kinds.0 & Namespaces::ALL != Namespaces::ALL)
}

/// `ProtectHostname=yes`, or `private`, which may have a name after it.
fn hostname_is_protected(exec: &ExecSection) -> bool {
    // Names inside a namespace of the service are its own under `private`.
    matches!(exec.protect_hostname(), muster_unit::ProtectHostname::Yes(_))
}

/// All filters of a unit, in the order in which they are installed.
pub fn confinements(exec: &ExecSection, personality_now: u32) -> Vec<Confinement> {
    let mut all = Vec::new();
    let mut add = |directive, program: Option<Vec<Instruction>>| {
        all.extend(program.map(|program| Confinement { directive, program }));
    };
    add("RestrictAddressFamilies=", exec.restrict_address_families().as_ref().map(families));
    add(WRITE_EXECUTE, exec.memory_deny_write_execute().then(write_execute));
    add("RestrictRealtime=", exec.restrict_realtime().then(realtime));
    add("RestrictSUIDSGID=", (exec.restrict_suid_sgid() || exec.dynamic_user()).then(set_id));
    add("RestrictNamespaces=", restricted_namespaces(exec).map(namespaces));
    let hostname = hostname_is_protected(exec);
    add("ProtectHostname=", hostname.then(|| refused(&["sethostname", "setdomainname"])));
    add("ProtectKernelTunables=", exec.protect_kernel_tunables().then(|| refused(&["_sysctl"])));
    add("ProtectKernelModules=", exec.protect_kernel_modules().then(|| group("@module")));
    add("ProtectKernelLogs=", exec.protect_kernel_logs().then(|| refused(&["syslog"])));
    add("ProtectClock=", exec.protect_clock().then(|| group("@clock")));
    add("PrivateDevices=", exec.private_devices().then(|| group("@raw-io")));
    add("SystemCallArchitectures=", architectures(exec));
    let own = personality_of(exec, personality_now);
    add("LockPersonality=", exec.lock_personality().then(|| personality(own)));
    add("SystemCallLog=", logged(exec.system_call_log()));
    add("SystemCallFilter=", calls(exec.system_call_filter(), exec.system_call_error_number()));
    all
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
