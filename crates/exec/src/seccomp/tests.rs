//! Filters installed in a forked copy of the test, and what the kernel then says.

#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::*;
use muster_sys::{Attempted, Entry as Door, attempt, install_filter, process_control};
use muster_unit::table::ExecSection;

fn exec(lines: &[(&str, &str)]) -> ExecSection {
    let mut exec = ExecSection::default();
    let context = muster_unit::setting::Context {
        expand: &|text| Ok(text.to_owned()),
        expands: false,
        directive: "",
        lists: None,
    };
    for (key, value) in lines {
        exec.assign(key, value, &context).unwrap().unwrap();
    }
    exec
}

/// What a call says under the filters of a unit; 0 for whatever it returns.
fn says(lines: &[(&str, &str)], door: Door, number: i64, arguments: [u64; 6]) -> i32 {
    let programs: Vec<_> = confinements(&exec(lines), 0).into_iter().map(|one| one.program).collect();
    let before = || {
        process_control(38, 1, 0).is_ok() && programs.iter().all(|program| install_filter(program).is_ok())
    };
    match attempt(door, number, arguments, &before).unwrap() {
        Attempted::Returned(_) => 0,
        Attempted::Failed(error) => error,
        Attempted::Killed(signal) => -signal,
    }
}

const GETPPID: i64 = 110;
const GETPPID_X86: i64 = 64;
const SIGSYS: i32 = 31;

#[test]
fn no_entry_is_a_way_around() {
    let filter = [("SystemCallFilter", "~getppid:EUCLEAN")];
    for (door, number) in [(Door::Native, GETPPID), (Door::I386, GETPPID_X86), (Door::X32, GETPPID)] {
        assert_eq!(says(&filter, door, number, [0; 6]), 117, "{door:?}");
    }
    assert_eq!(says(&filter, Door::Native, 39, [0; 6]), 0);
    assert_eq!(says(&filter, Door::I386, 20, [0; 6]), 0);
    let native = [("SystemCallArchitectures", "native")];
    assert_eq!(says(&native, Door::Native, GETPPID, [0; 6]), 0);
    assert_eq!(says(&native, Door::I386, GETPPID_X86, [0; 6]), -SIGSYS);
    assert_eq!(says(&native, Door::X32, GETPPID, [0; 6]), -SIGSYS);
}

#[test]
fn a_list_of_what_is_allowed_kills_the_rest() {
    let filter = [("SystemCallFilter", "@system-service"), ("SystemCallFilter", "~getppid:EPERM @sync")];
    assert_eq!(says(&filter, Door::Native, 39, [0; 6]), 0, "getpid");
    assert_eq!(says(&filter, Door::Native, GETPPID, [0; 6]), 1);
    assert_eq!(says(&filter, Door::Native, 162, [0; 6]), -SIGSYS, "sync");
    let error = [filter[0], ("SystemCallFilter", "~sync"), ("SystemCallErrorNumber", "EACCES")];
    assert_eq!(says(&error, Door::Native, 162, [0; 6]), 13);
}

#[test]
fn arguments_decide() {
    let unix = [("RestrictAddressFamilies", "AF_UNIX")];
    assert_eq!(says(&unix, Door::Native, 41, [1, 1, 0, 0, 0, 0]), 0);
    assert_eq!(says(&unix, Door::Native, 41, [2, 1, 0, 0, 0, 0]), 97);
    assert_eq!(says(&unix, Door::I386, 359, [2, 1, 0, 0, 0, 0]), 97);
    assert_eq!(says(&unix, Door::I386, 102, [1, 0, 0, 0, 0, 0]), 97, "socketcall");
    let none = [("RestrictAddressFamilies", "none")];
    assert_eq!(says(&none, Door::Native, 41, [1, 1, 0, 0, 0, 0]), 97);
    let user = [("RestrictNamespaces", "~user")];
    assert_eq!(says(&user, Door::Native, 272, [0x1000_0000, 0, 0, 0, 0, 0]), 1);
    assert_eq!(says(&user, Door::Native, 272, [0x1002_0000, 0, 0, 0, 0, 0]), 1);
    assert_eq!(says(&user, Door::Native, 272, [0; 6]), 0);
    assert_eq!(says(&user, Door::Native, 435, [0; 6]), 38, "clone3");
    let mode = [("RestrictSUIDSGID", "yes")];
    assert_eq!(says(&mode, Door::Native, 90, [0, 0o4755, 0, 0, 0, 0]), 1);
    assert_eq!(says(&mode, Door::Native, 90, [0, 0o755, 0, 0, 0, 0]), 14);
    assert_eq!(says(&mode, Door::Native, 2, [0, 0o100, 0o4755, 0, 0, 0]), 1);
    assert_eq!(says(&mode, Door::Native, 2, [0, 0, 0o4755, 0, 0, 0]), 14);
}

#[test]
fn programs_fit_the_kernel() {
    let all = exec(&[("SystemCallFilter", "@known"), ("SystemCallFilter", "~@known:EPERM")]);
    for one in confinements(&all, 0) {
        assert!(one.program.len() <= 4096, "{} {}", one.directive, one.program.len());
    }
    let begun = std::time::Instant::now();
    let usual =
        exec(&[("SystemCallFilter", "@system-service"), ("SystemCallFilter", "~@privileged @resources")]);
    let sizes: Vec<_> = (0..100).flat_map(|_| confinements(&usual, 0)).map(|one| one.program.len()).collect();
    println!("{} instructions, {} us", sizes[0], begun.elapsed().as_micros() / 100);
}
