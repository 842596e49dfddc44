//! `muster-executor`: carries out a plan and becomes the service. It alone looks up users, makes directories and may
//! block. What fails is reported to PID 1 by name, with its exit status of systemd.exec(5).
#![forbid(unsafe_code)]

use muster_exec::image::signature;
use muster_exec::steps::identity::{find_group, find_user};
use muster_exec::{Context, Exit, FIRST_FD, PLAN_FD, Plan, Process, REPORT_FD, steps};
use nix::fcntl::{FcntlArg, fcntl};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((mode, options)) = arguments.split_first()
        && mode == steps::bpf::ARGUMENT
    {
        let Err(why) = steps::bpf::mount(options) else { return ExitCode::SUCCESS };
        println!("{why}");
        return ExitCode::FAILURE;
    }
    if let [mode] = arguments.as_slice() {
        let done = match mode.as_str() {
            steps::bpf::BEGINNING => steps::bpf::begin(),
            signature::ARGUMENT => signature::answer().map_err(|why| println!("{why}")).is_ok(),
            _ => false,
        };
        return if done { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let [mode, pid] = arguments.as_slice() {
        let done = mode == steps::namespaces::MAP && steps::namespaces::write_map(pid);
        return if done { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let [mode, user, group] = arguments.as_slice() {
        return if mode == "--lookup" { look_up(user, group) } else { ExitCode::FAILURE };
    }
    let (plan, report) = (muster_sys::adopt_fd(PLAN_FD), muster_sys::adopt_fd(REPORT_FD));
    // Out of the way of the descriptors that the service gets.
    let report = fcntl(&report, FcntlArg::F_DUPFD_CLOEXEC(512)).map_or(report, muster_sys::adopt_fd);
    let plan = match read_plan(plan) {
        Ok(plan) => plan,
        Err(error) => {
            muster_exec::tell(&report, &format!("{} plan: {error}", Exit::Cgroup.code()));
            return ExitCode::from(Exit::Cgroup.code());
        }
    };
    let later = match enter_cgroup(&plan) {
        Ok(later) => later,
        Err(error) => {
            muster_exec::tell(&report, &format!("{} cgroup.procs: {error}", Exit::Cgroup.code()));
            return ExitCode::from(Exit::Cgroup.code());
        }
    };
    let context = Context::of_plan(&plan);
    let mut process = Process::new(&context, report);
    process.cgroup = later;
    let Err((exit, message)) = steps::carry_out(&context, &mut process) else { return ExitCode::SUCCESS };
    process.tell(&format!("{} {message}", exit.code()));
    ExitCode::from(exit.code())
}

/// Before all else: from here on this process is the unit's, and what it uses is counted there. Where that is to be later, gives
/// what leads there.
fn enter_cgroup(plan: &Plan) -> std::io::Result<Option<OwnedFd>> {
    if !plan.enters_cgroup {
        return Ok(None);
    }
    let before =
        plan.fd_names.len().saturating_add(usize::from(plan.has_socket)).saturating_add(plan.stdio.len());
    let pairs = plan.has_pairs.iter().filter(|is_there| **is_there).count();
    let before = before.saturating_add(pairs.saturating_mul(2));
    let number = i32::try_from(before).unwrap_or(i32::MAX).saturating_add(FIRST_FD);
    let procs = muster_sys::adopt_fd(number);
    if steps::cgroup::is_late(&plan.exec) {
        // Out of the way of the descriptors that the service gets.
        return Ok(Some(fcntl(&procs, FcntlArg::F_DUPFD_CLOEXEC(512)).map(muster_sys::adopt_fd)?));
    }
    std::fs::File::from(procs).write_all(b"0").map(|()| None)
}

fn read_plan(fd: OwnedFd) -> Result<Plan, String> {
    let mut bytes = Vec::new();
    std::fs::File::from(fd).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    ciborium::from_reader(bytes.as_slice()).map_err(|error| error.to_string())
}

/// Prints the numbers of a user and a group, which may be empty, or what is wrong.
fn look_up(user: &str, group: &str) -> ExitCode {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let no_user = |name: &str| format!("SocketUser={name}: there is no such user");
    let no_group = |name: &str| format!("SocketGroup={name}: there is no such group");
    let user = given(user).map(|name| find_user(&name).map_err(|_| no_user(&name))).transpose();
    let found = user.and_then(|user| {
        let group = given(group).map(|name| find_group(&name).map_err(|_| no_group(&name))).transpose()?;
        Ok((user.as_ref().map(|user| user.uid), group.or(user.map(|user| user.gid))))
    });
    let shown = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    match found {
        Ok((uid, gid)) => println!("owner {} {}", shown(uid), shown(gid)),
        Err(message) => println!("{message}"),
    }
    ExitCode::SUCCESS
}
