//! A container: an init as process 1 of fresh namespaces, in a cgroup of its own, on an overlay over a root directory.
//!
//! What must stay true: the root directory is never written to, the network is a loopback of the container's own, and
//! dropping a container leaves nothing behind.

use crate::cgroup::{self, Cgroup};
use crate::console::Console;
use crate::enter::{self, Output, Running};
use crate::launch::{NOTHING, OUTER, Plan, STAGE_FAILED};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a command inside may take unless said otherwise.
pub const EXEC_LIMIT: Duration = Duration::from_secs(60);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// How process 1 ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this exit status.
    Code(i32),
    /// A signal ended it. reboot(2) in a pid namespace shows as SIGHUP (restart) or SIGINT (power off).
    Signal(i32),
}

/// What is booted, and how. Files that are added lie in a layer of their own above the root directory.
pub struct Builder {
    root: PathBuf,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    hostname: String,
    echo: bool,
    layer: PathBuf,
    failure: Option<anyhow::Error>,
}

impl Builder {
    /// The init's path inside.
    pub fn init(mut self, path: &str) -> Self {
        self.command = vec![path.to_string()];
        self
    }

    /// Further arguments for the init.
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.extend(args.into_iter().map(str::to_string));
        self
    }

    /// A variable in the init's environment, beside `container=muster`, `PATH` and `TERM`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    /// Shows the console on our stdout as well.
    pub fn echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self
    }

    /// Adds a file with mode 0644 (0755 where it starts with `#!`).
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let mode = if content.starts_with(b"#!") { 0o755 } else { 0o644 };
        self.change(path, |to| {
            fs::write(to, content)?;
            fs::set_permissions(to, fs::Permissions::from_mode(mode))
        })
    }

    /// Adds a copy of a file of the host, with its mode.
    pub fn copy(self, from: &Path, path: &str) -> Self {
        self.change(path, |to| fs::copy(from, to).map(drop))
    }

    /// Adds a symbolic link.
    pub fn link(self, path: &str, target: &str) -> Self {
        self.change(path, |to| symlink(target, to))
    }

    /// Adds whatever `make` makes at the path in the added layer; parents exist, and what was added there before is gone.
    pub fn change(mut self, path: &str, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Self {
        let to = self.layer.join(path.trim_start_matches('/'));
        let parents = to.parent().map_or(Ok(()), fs::create_dir_all);
        let _ = fs::remove_file(&to);
        if let Err(error) = parents.and_then(|()| make(&to)) {
            self.failure.get_or_insert(anyhow::Error::new(error).context(format!("adding {path}")));
        }
        self
    }

    /// Overlay's `lowerdir=`, and the scratch space that the added layer lies in.
    pub(crate) fn layers(&mut self) -> Result<(String, Scratch)> {
        let scratch = Scratch(self.layer.parent().map(Path::to_path_buf).unwrap_or_default());
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let mut lower = utf8(&self.layer)?.to_string();
        if self.root.is_dir() {
            lower = format!("{lower}:{}", utf8(&self.root)?);
        }
        Ok((lower, scratch))
    }

    /// Boots the container.
    pub fn spawn(mut self) -> Result<Container> {
        let (lower, scratch) = self.layers()?;
        let console = Console::open(self.echo)?;
        let cgroup = Cgroup::new()?;
        let stage = scratch.0.join("mount");
        fs::create_dir(&stage)?;
        let terminal = console.path()?;
        let plan = Plan {
            lower: &lower,
            scratch: utf8(&stage)?,
            cgroup: utf8(cgroup.path())?,
            console: utf8(&terminal)?,
            hostname: &self.hostname,
            command: &self.command,
        };
        let mut child = Command::new("/proc/self/exe")
            .arg(OUTER)
            .args(plan.to_args())
            .env_clear()
            .envs(self.environment)
            .stdin(console.stream()?)
            .stdout(Stdio::piped())
            .stderr(console.stream()?)
            .spawn()
            .context("starting the launcher")?;
        let mut report = BufReader::new(child.stdout.take().context("the launcher's stdout")?);
        let started = Instant::now();
        let Some(pid) = read_report(&mut report, "pid") else {
            bail!("the container did not start: {}", console.text());
        };
        Ok(Container { child, report, pid, exit: None, console, started, cgroup, scratch })
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn read_report(report: &mut BufReader<ChildStdout>, word: &str) -> Option<i32> {
    let mut line = String::new();
    report.read_line(&mut line).ok()?;
    line.trim().strip_prefix(word)?.trim().parse().ok()
}

/// A directory of the host that is removed on drop.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running container; dropped, it is killed and all of it removed. Field order is the order of clean-up.
pub struct Container {
    child: Child,
    report: BufReader<ChildStdout>,
    pid: i32,
    exit: Option<Exit>,
    console: Console,
    started: Instant,
    cgroup: Cgroup,
    scratch: Scratch,
}

impl Container {
    /// Begins to describe a container over this root directory.
    pub fn builder(root: impl Into<PathBuf>) -> Builder {
        let name = format!("muster-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = std::env::temp_dir().join(name);
        let layer = scratch.join("layer");
        let failure = fs::create_dir_all(&layer)
            .and_then(|()| fs::set_permissions(&layer, fs::Permissions::from_mode(0o755)))
            .err()
            .map(anyhow::Error::new);
        let environment =
            [("container", "muster"), ("TERM", "dumb"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")];
        Builder {
            root: root.into(),
            command: vec!["/sbin/init".to_string()],
            environment: environment.map(|(name, value)| (name.to_string(), value.to_string())).to_vec(),
            hostname: "muster".to_string(),
            echo: false,
            layer,
            failure,
        }
    }

    /// Why containers cannot run here, if so.
    pub fn unsupported() -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("needs root".to_string());
        }
        if let Err(error) = cgroup::root() {
            return Some(error.to_string());
        }
        match probe() {
            Ok(Exit::Code(0)) => None,
            Ok(exit) => Some(format!("containers do not work here: {exit:?}")),
            Err(error) => Some(format!("containers do not work here: {error:#}")),
        }
    }

    /// The init's pid on the host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// When the launcher was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The container's cgroup on the host.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// The container's root directory as seen from the host.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// What was written to the console so far.
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// Starts a command inside.
    pub fn start(&self, command: &[&str]) -> Result<Running> {
        Running::start(self.pid, self.cgroup.path(), &self.scratch.0, command)
    }

    /// Runs a command inside, for [`EXEC_LIMIT`] at most.
    pub fn exec(&self, command: &[&str]) -> Result<Output> {
        self.start(command)?.wait(EXEC_LIMIT).with_context(|| format!("running {command:?}"))
    }

    /// Runs a command inside on our own standard streams, for as long as it takes; its exit status.
    pub fn interact(&self, command: &[&str]) -> Result<i32> {
        enter::interact(self.pid, self.cgroup.path(), command)
    }

    /// Runs a shell script inside.
    pub fn sh(&self, script: &str) -> Result<Output> {
        self.exec(&["/bin/sh", "-c", script])
    }

    /// Runs a shell script inside again and again until it succeeds; its output.
    pub fn until(&self, limit: Duration, script: &str) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let output = self.start(&["/bin/sh", "-c", script])?.wait(limit)?;
            if output.code == 0 {
                return Ok(output.stdout);
            }
            if Instant::now() > deadline {
                bail!(
                    "never came true: {script}\n{}{}\nconsole:\n{}",
                    output.stdout,
                    output.stderr,
                    self.console()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal to process 1.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }

    /// Sends SIGRTMIN+`number` to process 1 (systemd(1) says what each means). nix knows no real-time signals, so a shell does it.
    pub fn signal_realtime(&self, number: i32) -> Result<()> {
        let script = format!("kill -{} {}", 34 + number, self.pid);
        let status = Command::new("/bin/sh").args(["-c", &script]).status()?;
        if !status.success() {
            bail!("signalling process 1 failed: {status}");
        }
        Ok(())
    }

    /// Waits until process 1 has ended; an error if it has not within the limit.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<Exit> {
        let deadline = Instant::now() + limit;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("still running after {limit:?}; console:\n{}", self.console());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.console.finish();
        if self.exit.is_none() {
            self.exit = Some(read_exit(&mut self.report)?);
        }
        match self.exit {
            Some(Exit::Code(STAGE_FAILED)) => bail!("the container did not start: {}", self.console()),
            Some(exit) => Ok(exit),
            None => bail!("the launcher did not report the end"),
        }
    }

    /// Kills everything inside at once.
    pub fn kill(&mut self) -> Result<Exit> {
        self.cgroup.kill();
        self.wait_exit(Duration::from_secs(10))
    }
}

/// A container that holds this program alone and ends at once.
fn probe() -> Result<Exit> {
    let program = std::env::current_exe()?;
    let builder = Container::builder("").copy(&program, "/init").init("/init").args([NOTHING]);
    builder.spawn()?.wait_exit(EXEC_LIMIT)
}

fn read_exit(report: &mut BufReader<ChildStdout>) -> Result<Exit> {
    let mut line = String::new();
    report.read_line(&mut line)?;
    let (kind, number) = line.trim().split_once(' ').context("the launcher did not report the end")?;
    let number = number.parse()?;
    Ok(if kind == "signal" { Exit::Signal(number) } else { Exit::Code(number) })
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.exit.is_none() && self.kill().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
