//! Programs that others made and pinned: `IPIngressFilterPath=`, `IPEgressFilterPath=`, `BPFProgram=`
//! (systemd.resource-control(5)).
//!
//! Which programs of a cgroup are there for its unit stands in an attribute of the cgroup, which goes with it. What must
//! stay true: no other program is ever taken away.

use muster_sys::bpf::{self, Hook};
use muster_unit::CGroupSection;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `HOOK:ID` for each program, with spaces between. Root alone reads and writes it.
const ATTRIBUTE: &std::ffi::CStr = c"trusted.muster_bpf";
/// Where programs are pinned. Elsewhere a file system could be that does not answer.
const PINNED: &str = "/sys/fs/bpf/";
/// The longest list that is read, in bytes.
const LIST_MAX: usize = 16 * 1024;

/// Whether no program is named.
pub fn is_silent(config: &CGroupSection) -> bool {
    config.ip_ingress_filter_path().0.is_empty()
        && config.ip_egress_filter_path().0.is_empty()
        && config.bpf_program().is_empty()
}

/// Attaches what is named, and takes away what was and is not any more; gives what does not hold, and why nothing may run
/// here: a filter confines, another program does not. `is_new`: nothing was attached before.
pub fn apply(
    cgroup: BorrowedFd<'_>,
    config: &CGroupSection,
    is_new: bool,
) -> (Result<(), String>, Option<String>) {
    let old = if is_new { String::new() } else { known(cgroup) };
    if is_silent(config) && old.is_empty() {
        return (Ok(()), None);
    }
    let (mut failed, mut refusal) = (Ok(()), None);
    let mut wanted: BTreeMap<String, (&'static str, OwnedFd)> = BTreeMap::new();
    for (directive, word, path) in wishes(config) {
        match open(path) {
            Ok((id, program)) => drop(wanted.insert(format!("{word}:{id}"), (word, program))),
            Err(error) => {
                failed = Err(format!("{directive}: {path}: {error}"));
                refusal = refusal.or(failed.clone().err().filter(|_| directive != PROGRAM));
            }
        }
    }
    let attached: Vec<&str> = old.split(' ').filter(|item| !item.is_empty()).collect();
    for (item, (word, program)) in &wanted {
        if attached.contains(&item.as_str()) {
            continue;
        }
        let done = Hook::named(word).map(|hook| bpf::attach(cgroup, hook, program.as_fd()));
        if let Some(Err(error)) = done {
            failed = Err(format!("a program at {word} does not hold: {error}"));
            refusal = refusal.or(failed.clone().err().filter(|_| ["ingress", "egress"].contains(word)));
        }
    }
    for item in attached.into_iter().filter(|item| !wanted.contains_key(*item)) {
        take_away(cgroup, item);
    }
    let list = wanted.into_keys().collect::<Vec<_>>().join(" ");
    let _ = muster_sys::set_xattr(cgroup, ATTRIBUTE, list.as_bytes());
    (failed, refusal)
}

/// The directive that confines nothing by itself.
const PROGRAM: &str = "BPFProgram=";

/// (directive, hook, path) of all that is named.
fn wishes(config: &CGroupSection) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
    let filters = [
        ("IPIngressFilterPath=", "ingress", config.ip_ingress_filter_path()),
        ("IPEgressFilterPath=", "egress", config.ip_egress_filter_path()),
    ];
    let filters = filters
        .into_iter()
        .flat_map(|(directive, word, list)| list.0.iter().map(move |path| (directive, word, path.as_str())));
    let programs = config
        .bpf_program()
        .iter()
        .filter_map(|program| Some((PROGRAM, Hook::named(&program.attach)?.word(), program.path.as_str())));
    filters.chain(programs)
}

fn open(path: &str) -> Result<(u32, OwnedFd), String> {
    if !path.starts_with(PINNED) {
        return Err(format!("it is not below {PINNED}"));
    }
    let program = bpf::pinned(path).map_err(|error| error.to_string())?;
    Ok((bpf::id(program.as_fd()).map_err(|error| error.to_string())?, program))
}

fn known(cgroup: BorrowedFd<'_>) -> String {
    let value = muster_sys::get_xattr(cgroup, ATTRIBUTE, LIST_MAX).unwrap_or_default();
    String::from_utf8(value).unwrap_or_default()
}

fn take_away(cgroup: BorrowedFd<'_>, item: &str) {
    let Some((word, id)) = item.split_once(':') else { return };
    let (Some(hook), Ok(id)) = (Hook::named(word), id.parse()) else { return };
    // What is gone by itself needs no taking away.
    if let Ok(program) = bpf::by_id(id) {
        let _ = bpf::detach(cgroup, hook, program.as_fd());
    }
}
