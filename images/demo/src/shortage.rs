//! Becomes another program, one of whose system calls fails for want of something (ptrace(2)): what no limit hits alone.
//!
//! A helper traces the program from its first execve on, makes the call of a number fail, and lets go. At the next execve it
//! lets go, too: the program has become another.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use syscalls::Sysno;

/// Becomes `program`, whose call number `place` fails; `report` gets a line with its name and the error.
pub fn run(place: &str, report: &str, program: &str, arguments: &[&str]) -> Result<()> {
    let mut helper = Command::new("/proc/self/exe")
        .args(["shortage-of", &std::process::id().to_string(), place, report])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(helper.stdout.take().context("its output")?).read_line(&mut line)?;
    if line != "ready\n" {
        bail!("the tracer is not ready");
    }
    Err(Command::new(program).args(arguments).exec().into())
}

/// The helper.
pub fn trace(pid: i32, place: u64, report: &str) -> Result<()> {
    // What was passed on is not ours to keep open.
    for fd in 3..1024 {
        let _ = nix::unistd::close(fd);
    }
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC)?;
    ptrace::interrupt(pid)?;
    waitpid(pid, None)?;
    ptrace::syscall(pid, None)?;
    println!("ready");
    std::io::stdout().flush()?;
    let outcome = follow(pid, place)?;
    writeln!(OpenOptions::new().append(true).create(true).open(report)?, "{outcome}")?;
    Ok(())
}

/// Follows the process until a call was made to fail, or it is somebody else.
fn follow(pid: Pid, place: u64) -> Result<String> {
    let (mut images, mut calls, mut inside) = (0, 0, false);
    loop {
        match waitpid(pid, None)? {
            WaitStatus::PtraceEvent(_, _, event) if event == Event::PTRACE_EVENT_EXEC as i32 => {
                images += 1;
                if images == 2 {
                    ptrace::detach(pid, None)?;
                    return Ok("none".to_string());
                }
                // The end of execve itself comes next.
                inside = true;
                ptrace::syscall(pid, None)?;
            }
            WaitStatus::PtraceSyscall(_) => {
                inside = !inside;
                if inside && images == 1 && can_lack(name_of(ptrace::getregs(pid)?.orig_rax)) {
                    calls += 1;
                    if calls == place {
                        return fail(pid);
                    }
                }
                ptrace::syscall(pid, None)?;
            }
            WaitStatus::Stopped(_, signal) => ptrace::syscall(pid, signal)?,
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Ok("ended".to_string()),
            _ => ptrace::syscall(pid, None)?,
        }
    }
}

/// Lets the call at whose door the process stands fail, as it would for want of what it asks for.
fn fail(pid: Pid) -> Result<String> {
    let mut registers = ptrace::getregs(pid)?;
    let name = name_of(registers.orig_rax);
    let error = lack(name);
    registers.orig_rax = u64::MAX;
    ptrace::setregs(pid, registers)?;
    ptrace::syscall(pid, None)?;
    waitpid(pid, None)?;
    let mut registers = ptrace::getregs(pid)?;
    registers.rax = -i64::from(error as i32) as u64;
    ptrace::setregs(pid, registers)?;
    ptrace::detach(pid, None)?;
    Ok(format!("{name} {error:?}"))
}

fn name_of(call: u64) -> &'static str {
    Sysno::new(call as usize).map_or("unknown", |call| call.name())
}

/// Calls that need nothing that could run out are not counted; nor is the last one, which a filter of system calls would take
/// for another.
fn can_lack(name: &str) -> bool {
    const NEVER: [&str; 15] = [
        "arch_prctl",
        "capget",
        "close",
        "execve",
        "exit",
        "get",
        "lseek",
        "poll",
        "rseq",
        "rt_sig",
        "sched_get",
        "set_robust_list",
        "set_tid_address",
        "sigaltstack",
        "umask",
    ];
    !NEVER.iter().any(|known| name.starts_with(known))
}

/// What a call can lack.
fn lack(name: &str) -> Errno {
    const PROCESSES: [&str; 6] = ["clone", "clone3", "fork", "vfork", "unshare", "setuid"];
    const DESCRIPTORS: [&str; 12] = [
        "open",
        "socket",
        "pipe",
        "dup",
        "accept",
        "fsopen",
        "fsmount",
        "memfd_create",
        "epoll_create",
        "bpf",
        "eventfd",
        "recvmsg",
    ];
    let begins = |all: &[&str]| all.iter().any(|known| name.starts_with(known));
    match (begins(&PROCESSES), begins(&DESCRIPTORS)) {
        (true, _) => Errno::EAGAIN,
        (_, true) => Errno::EMFILE,
        _ => Errno::ENOMEM,
    }
}
