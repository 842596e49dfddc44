//! Runs a command inside a running container: in all its namespaces and below its cgroup.
//!
//! Output goes through files, not pipes, so that what a command leaves running in the background never makes us wait.

use crate::launch::STAGE_FAILED;
use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// First argument of the entering stage.
pub const ENTER: &str = "--muster-container-enter";

/// What a command did.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Exit status; 128 + N after signal N, as shells have it; 124 after the time limit, as timeout(1) has it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took, our own entering (about 2 ms) included.
    pub elapsed: Duration,
}

impl Output {
    /// The standard output of a command that must succeed.
    pub fn ok(self) -> Result<String> {
        if self.code != 0 {
            bail!("exit status {}: {}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// What the stage is told, in this order: pid of the init, the cgroup to join, the command.
pub fn stage(args: &[String]) -> Result<i32> {
    let [pid, cgroup, program, args @ ..] = args else { bail!("too few arguments") };
    set_pdeathsig(Signal::SIGKILL)?;
    fs::write(Path::new(cgroup).join("cgroup.procs"), "0").context("joining the cgroup")?;
    join_namespaces(pid)?;
    std::env::set_current_dir("/")?;
    match Command::new(program).args(args).status() {
        Ok(status) => Ok(exit_code(status)),
        Err(error) => {
            eprintln!("{program}: {error}");
            Ok(127)
        }
    }
}

/// Joins them in an order that needs no privilege that an earlier one takes away; the pid namespace holds for children.
fn join_namespaces(pid: &str) -> Result<()> {
    let kinds = [
        ("pid", CloneFlags::CLONE_NEWPID),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("net", CloneFlags::CLONE_NEWNET),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let open = |(name, flag)| {
        let path = format!("/proc/{pid}/ns/{name}");
        File::open(&path).map(|file| (file, flag)).with_context(|| format!("opening {path}"))
    };
    let namespaces = kinds.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    for (file, flag) in namespaces {
        setns(file, flag)?;
    }
    Ok(())
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(STAGE_FAILED)
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A command on its way; [`Running::wait`] gives its output. Its cgroup is `exec-N` beside those of the container's units.
pub struct Running {
    child: Child,
    cgroup: PathBuf,
    stdout: File,
    stderr: File,
    started: Instant,
}

impl Running {
    /// Starts a command in the container whose init has this pid on the host.
    pub fn start(pid: i32, container: &Path, scratch: &Path, command: &[&str]) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = container.join(format!("exec-{number}"));
        fs::create_dir(&cgroup)?;
        let file = |name: &str| -> Result<File> {
            let path = scratch.join(format!("{name}-{number}"));
            let file = File::options().read(true).append(true).create(true).open(&path)?;
            fs::remove_file(path)?;
            Ok(file)
        };
        let (stdout, stderr) = (file("stdout")?, file("stderr")?);
        let child = Command::new("/proc/self/exe")
            .args([ENTER, &pid.to_string()])
            .arg(&cgroup)
            .args(command)
            .env_clear()
            .envs(ENVIRONMENT)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()?;
        Ok(Self { child, cgroup, stdout, stderr, started: Instant::now() })
    }

    /// Waits for the end, or kills it and what it started after the time limit.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let code = loop {
            if let Some(status) = self.child.try_wait()? {
                break exit_code(status);
            }
            if self.started.elapsed() > limit {
                break 124;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let elapsed = self.started.elapsed();
        if code == 124 {
            self.kill()?;
        }
        let _ = fs::remove_dir(&self.cgroup);
        Ok(Output { code, stdout: text(&mut self.stdout)?, stderr: text(&mut self.stderr)?, elapsed })
    }

    fn kill(&mut self) -> Result<()> {
        fs::write(self.cgroup.join("cgroup.kill"), "1")?;
        self.child.wait()?;
        Ok(())
    }
}

/// Runs a command on our own standard streams; its exit status.
pub fn interact(pid: i32, container: &Path, command: &[&str]) -> Result<i32> {
    let cgroup = container.join(format!("exec-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&cgroup)?;
    let mut stage = Command::new("/proc/self/exe");
    stage.args([ENTER, &pid.to_string()]).arg(&cgroup).args(command).env_clear().envs(ENVIRONMENT);
    if let Some(terminal) = std::env::var_os("TERM") {
        stage.env("TERM", terminal);
    }
    let status = stage.status();
    let _ = fs::remove_dir(&cgroup);
    Ok(exit_code(status?))
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The environment of commands: plain output, no pager.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
    ("TERM", "dumb"),
    ("COLUMNS", "200"),
    ("SYSTEMD_PAGER", ""),
    ("SYSTEMD_COLORS", "0"),
];
