//! A container as people run them: a bundle brought up by an OCI runtime of Debian (crun, runc), with what Docker and Podman
//! give by default: their capabilities, seldom more.
//!
//! Works on a host with cgroup v1 too: the runtime sees a mount namespace in which /sys/fs/cgroup is a cgroup2 tree whose root
//! is a cgroup of our own. What must stay true: the root directory is never written to, and nothing is left behind.

use crate::cgroup::Cgroup;
use crate::container::{Builder, EXEC_LIMIT, Scratch};
use crate::{Output, image};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

static COUNT: AtomicU32 = AtomicU32::new(0);
static INSTALLING: Mutex<()> = Mutex::new(());

/// Who brings the bundle up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// crun(1).
    Crun,
    /// runc(8).
    Runc,
}

impl Runtime {
    /// Its program, and its package.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }
}

/// How the container sees its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// Mounted for writing, as for `podman run --systemd=always`.
    Writable,
    /// Mounted for reading, which is Docker's default.
    ReadOnly,
    /// Not at all.
    Absent,
}

/// Docker's default capabilities.
pub const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What is run, and how.
pub struct Bundle {
    layers: Builder,
    args: Vec<String>,
    environment: Vec<String>,
    tree: Tree,
    user_namespace: bool,
    no_new_privileges: bool,
    read_only: bool,
    volatile: Vec<String>,
}

impl Bundle {
    /// The root directory and files of a container; its init and environment do not count.
    pub fn of(layers: Builder) -> Self {
        let environment =
            vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string()];
        Self {
            layers,
            args: vec![image::MUSTER.to_string()],
            environment,
            tree: Tree::ReadOnly,
            user_namespace: false,
            no_new_privileges: false,
            read_only: false,
            volatile: Vec::new(),
        }
    }

    /// The program and its arguments, instead of muster.
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args = args.into_iter().map(str::to_string).collect();
        self
    }

    /// A variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// How it sees its cgroup; read-only if nothing is said.
    pub fn tree(mut self, tree: Tree) -> Self {
        self.tree = tree;
        self
    }

    /// In a user namespace whose root is nobody on the host.
    pub fn user_namespace(mut self) -> Self {
        self.user_namespace = true;
        self
    }

    /// With `no_new_privs`.
    pub fn no_new_privileges(mut self) -> Self {
        self.no_new_privileges = true;
        self
    }

    /// With a root directory that nobody can write to.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// With a tmpfs there.
    pub fn volatile(mut self, path: &str) -> Self {
        self.volatile.push(path.to_string());
        self
    }

    /// Brings it up.
    pub fn start(mut self, runtime: Runtime) -> Result<Box<Running>> {
        {
            // Two installations at a time hinder each other.
            let _one = INSTALLING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            image::need_program(runtime.name(), runtime.name())?;
        }
        let spec = self.spec();
        let (lower, scratch) = self.layers.layers()?;
        let cgroup = Cgroup::new()?;
        let bundle = scratch.path().join("bundle");
        fs::create_dir(&bundle)?;
        let name = format!("muster-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let pid_file = scratch.path().join("pid");
        fs::write(scratch.path().join("config.json"), serde_json::to_string_pretty(&spec)?)?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", JOIN, "sh"]).arg(cgroup.path()).args([BRING_UP, runtime.name(), &name]);
        command.arg(&lower).arg(scratch.path());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().context("starting the runtime")?;
        let text = Arc::new(Mutex::new(Vec::new()));
        let (out, err) = (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
        let readers = vec![gather(out, &text), gather(err, &text)];
        Ok(Box::new(Running {
            child,
            runtime,
            name,
            pid_file,
            text,
            readers,
            started,
            cgroup,
            _scratch: scratch,
        }))
    }

    fn spec(&self) -> Value {
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ];
        let how = match self.tree {
            Tree::Writable => Some("rw"),
            Tree::ReadOnly => Some("ro"),
            Tree::Absent => None,
        };
        mounts.extend(how.map(|how| mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", how])));
        mounts
            .extend(self.volatile.iter().map(|path| mount(path, "tmpfs", &["nosuid", "nodev", "mode=755"])));
        let mut kinds = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
        kinds.extend(self.user_namespace.then_some("user"));
        let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        let capabilities = CAPABILITIES.map(|name| format!("CAP_{name}"));
        let mut linux = json!({
            "namespaces": namespaces,
            "cgroupsPath": "/box",
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        });
        if self.user_namespace {
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
            linux["uidMappings"] = map.clone();
            linux["gidMappings"] = map;
        }
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": self.args,
                "env": self.environment,
                "cwd": "/",
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "noNewPrivileges": self.no_new_privileges,
            },
            "root": {"path": "rootfs", "readonly": self.read_only},
            "hostname": "box",
            "mounts": mounts,
            "linux": linux,
        })
    }
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": kind, "options": options})
}

/// Joins our cgroup, and makes it the root of what is seen from then on. Arguments: the cgroup, and the next script's.
const JOIN: &str = "echo 0 > \"$1/cgroup.procs\" && shift && script=$1 && shift \
    && exec unshare -m -C --propagation private /bin/sh -ec \"$script\" sh \"$@\"";

/// Mounts what the runtime is to see, and becomes the runtime. Arguments: its name, the container's, lower layers, scratch space.
const BRING_UP: &str = "mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs -o mode=0755 none \"$4/bundle\"
mkdir \"$4/bundle/upper\" \"$4/bundle/work\" \"$4/bundle/rootfs\"
mount -t overlay -o \"lowerdir=$3,upperdir=$4/bundle/upper,workdir=$4/bundle/work\" none \"$4/bundle/rootfs\"
cp \"$4/config.json\" \"$4/bundle/config.json\"
exec \"$1\" run --pid-file \"$4/pid\" -b \"$4/bundle\" \"$2\"";

/// Reads a stream to its end, in a thread.
fn gather(mut from: impl Read + Send + 'static, text: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let text = text.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            text.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(&buffer[..size]);
        }
    })
}

/// A container that runs; dropped, it is killed and all of it removed. Field order is the order of clean-up.
pub struct Running {
    child: Child,
    runtime: Runtime,
    name: String,
    pid_file: PathBuf,
    text: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    started: Instant,
    cgroup: Cgroup,
    _scratch: Scratch,
}

impl Running {
    /// When the runtime was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The container's cgroup on the host, with the runtime beside it.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// What came on standard output and standard error so far.
    pub fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        String::from_utf8_lossy(&text).replace('\r', "")
    }

    /// The number of the runtime on the host, which waits for the container.
    pub fn runtime_pid(&self) -> u32 {
        self.child.id()
    }

    /// The number of its first process on the host, once there is one.
    pub fn pid(&self) -> Option<i32> {
        fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }

    /// The same, waited for: a container may speak before its runtime has written the number.
    fn until_pid(&self) -> Result<i32> {
        let deadline = Instant::now() + EXEC_LIMIT;
        loop {
            match self.pid() {
                Some(pid) => return Ok(pid),
                None if Instant::now() > deadline => bail!("nothing runs; said:\n{}", self.text()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Waits until something was said.
    pub fn until_said(&self, what: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.text().contains(what) {
            if Instant::now() > deadline {
                bail!("never said: {what}\n{}", self.text());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Runs a command inside, by the runtime.
    pub fn exec(&self, command: &[&str]) -> Result<Output> {
        let outside = self.child.id().to_string();
        let entered = ["-t", &outside, "-m", "-C", "--", self.runtime.name(), "exec", &self.name];
        let mut child = Command::new("nsenter")
            .args(entered)
            .args(command)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (out, err) = (Arc::default(), Arc::default());
        let readers = [
            gather(child.stdout.take().context("stdout")?, &out),
            gather(child.stderr.take().context("stderr")?, &err),
        ];
        let begin = Instant::now();
        let deadline = begin + EXEC_LIMIT;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    child.kill()?;
                    bail!("{command:?} did not end");
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        for reader in readers {
            let _ = reader.join();
        }
        let read = |text: Arc<Mutex<Vec<u8>>>| {
            String::from_utf8_lossy(&text.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
                .into_owned()
        };
        Ok(Output {
            code: status.code().unwrap_or(255),
            stdout: read(out),
            stderr: read(err),
            elapsed: begin.elapsed(),
        })
    }

    /// Runs a shell script inside.
    pub fn sh(&self, script: &str) -> Result<Output> {
        self.exec(&["/bin/sh", "-c", script])
    }

    /// Runs a shell script inside again and again until it succeeds; its output.
    pub fn until(&self, limit: Duration, script: &str) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let output = self.sh(script)?;
            if output.code == 0 {
                return Ok(output.stdout);
            }
            if Instant::now() > deadline {
                bail!(
                    "never came true: {script}\n{}{}\nsaid:\n{}",
                    output.stdout,
                    output.stderr,
                    self.text()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal to its first process, as `docker stop` and `podman kill` do.
    pub fn signal(&self, number: i32) -> Result<()> {
        let pid = self.until_pid()?;
        let status = Command::new("/bin/sh").args(["-c", &format!("kill -{number} {pid}")]).status()?;
        if !status.success() {
            bail!("signalling process 1 failed: {status}");
        }
        Ok(())
    }

    /// Waits for its end: its exit status, 128 and more for a signal.
    pub fn wait(&mut self, limit: Duration) -> Result<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // All that was written is read.
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                return Ok(status.code().unwrap_or(255));
            }
            if Instant::now() > deadline {
                bail!("still running after {limit:?}; said:\n{}", self.text());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cgroup.kill();
        let _ = self.child.wait();
        let state = ["/run/crun", "/run/runc"].map(|dir| Path::new(dir).join(&self.name));
        state.iter().for_each(|dir| drop(fs::remove_dir_all(dir)));
    }
}
