//! The client of the activation benchmark, and the plain fork and exec server that is its floor.

use crate::serve::{connect, print};
use anyhow::{Context, Result, bail};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Connects and reads to the end, `count` times in each of `parallel` threads.
/// Prints the median and 90 % latency in microseconds, connections a second, and how many failed.
pub fn accept(address: &str, count: usize, parallel: usize) -> Result<()> {
    let started = Instant::now();
    let threads: Vec<_> = (0..parallel.max(1))
        .map(|_| {
            let address = address.to_string();
            std::thread::spawn(move || (0..count).map(|_| once(&address)).collect::<Vec<_>>())
        })
        .collect();
    let results: Vec<Option<Duration>> =
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect();
    let elapsed = started.elapsed();
    let mut good: Vec<u128> = results.iter().flatten().map(Duration::as_micros).collect();
    good.sort_unstable();
    let at = |part: usize| good.get(good.len() * part / 10).copied().unwrap_or(0);
    let rate = good.len() as f64 / elapsed.as_secs_f64();
    print(&format!("{} {} {rate:.0} {}\n", at(5), at(9), results.len() - good.len()))
}

/// So many connections by as many threads. A connection that is closed without a word was refused; one that is neither
/// answered nor closed within half a minute was forgotten.
pub fn load(address: &str, count: usize, parallel: usize) -> Result<()> {
    let parallel = parallel.max(1);
    let threads: Vec<_> = (0..parallel)
        .map(|thread| {
            let address = address.to_string();
            let count = count / parallel + usize::from(thread < count % parallel);
            std::thread::spawn(move || {
                let mut counts = [0_usize; 3];
                (0..count).for_each(|_| counts[outcome(&address)] += 1);
                counts
            })
        })
        .collect();
    let counts = threads.into_iter().filter_map(|thread| thread.join().ok());
    let [answered, refused, forgotten] =
        counts.fold([0; 3], |sum, counts| [0, 1, 2].map(|kind| sum[kind] + counts[kind]));
    print(&format!("answered {answered} refused {refused} forgotten {forgotten}\n"))
}

fn outcome(address: &str) -> usize {
    let Ok(mut connection) = connect(address) else { return 1 };
    match connection.read_all(Duration::from_secs(30)) {
        Ok(bytes) if !bytes.is_empty() => 0,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
        {
            2
        }
        Ok(_) | Err(_) => 1,
    }
}

/// A service that does not always end well: by its process number.
pub fn flaky() -> Result<()> {
    let number = std::process::id();
    print(&format!("hello from {number}\n"))?;
    match number % 8 {
        0 => std::process::exit(3),
        1 => Ok(nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL)?),
        2 => {
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Runs a command `count` times; prints the median and 90 % of how long it took, in microseconds.
pub fn repeat(count: usize, command: &[&str]) -> Result<()> {
    let (program, args) = command.split_first().context("no command")?;
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        let status = Command::new(program).args(args).status()?;
        times.push(started.elapsed().as_micros());
        if !status.success() {
            bail!("{program}: {status}");
        }
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 10).copied().unwrap_or(0);
    print(&format!("{} {}\n", at(5), at(9)))
}

/// The time of one connection, if it gave an answer.
fn once(address: &str) -> Option<Duration> {
    let started = Instant::now();
    let answer = connect(address).ok()?.read_all(Duration::from_secs(10)).ok()?;
    (!answer.is_empty()).then(|| started.elapsed())
}

/// Accepts, and starts ourselves as `inetd` on the connection: no manager could do less.
pub fn floor(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("binding {address}"))?;
    let program = std::env::current_exe()?;
    let mut children = Vec::new();
    loop {
        let connection: OwnedFd = listener.accept()?.0.into();
        children.push(Command::new(&program).arg("inetd").stdin(Stdio::from(connection)).spawn()?);
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

/// Forks, executes and reaps a command `count` times, and nothing else. Prints the CPU time that it took of this process, in
/// microseconds: what no manager could do for less.
pub fn spawn_floor(count: usize, command: &[&str]) -> Result<()> {
    let (program, args) = command.split_first().context("no command")?;
    let used = || -> Result<u64> {
        let text = std::fs::read_to_string("/proc/self/schedstat")?;
        Ok(text.split(' ').next().context("an empty schedstat")?.parse::<u64>()? / 1000)
    };
    let before = used()?;
    let mut children = Vec::new();
    for _ in 0..count {
        children.push(Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
    }
    for mut child in children {
        child.wait()?;
    }
    print(&format!("{}\n", used()?.saturating_sub(before)))
}
