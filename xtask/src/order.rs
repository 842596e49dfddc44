//! `cargo xtask order`: the functions that PID 1 runs, in the order in which it first runs them.
//!
//! The kernel maps a program's text in pieces of 64 KiB around each page that is touched. Functions that run lie together
//! when the linker is told which they are, and the rest, such as what reads the state after a re-execution, costs no memory.
//! A boot and everyday requests are traced with a breakpoint on every function; the list is for lld's
//! `--symbol-ordering-file` (crates/init/build.rs). What must stay true: a list that is out of date makes the program no
//! worse than none, since names that the linker does not know are ignored.

mod tracer;

use anyhow::{Context, Result, bail, ensure};
use muster_tests::container::{Builder, Container};
use muster_tests::{image, paths};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tracer::{Order, Tracer};

/// Waits until the tracer is there, then becomes muster.
const INIT: &str = "#!/bin/sh\nread go </order-go\nexec /usr/lib/muster/muster\n";
const LIMIT: Duration = Duration::from_secs(120);
/// What people and machines ask of a manager that has booted.
const REQUESTS: &str = "set -e
systemctl is-system-running
systemctl list-units >/dev/null
systemctl list-timers >/dev/null
systemctl show >/dev/null
systemctl show nginx.service >/dev/null
systemctl status nginx.service >/dev/null
systemctl restart nginx.service
systemctl stop nginx.service
systemctl start nginx.service
systemctl kill -s KILL nginx.service
systemd-run --wait /bin/true
systemd-run --scope /bin/true
busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager GetUnit s nginx.service
systemctl daemon-reload
systemctl restart systemd-journald.service
systemctl list-units >/dev/null
";

/// Traces, and writes the list.
pub fn run() -> Result<i32> {
    if let Some(reason) = Container::unsupported() {
        bail!("cannot boot a container: {reason}");
    }
    eprintln!("building");
    image::build_programs()?;
    let program = paths::release().join("muster");
    let functions = functions(&program)?;
    let root = image::debian()?;
    let (report, reports) = mpsc::channel();
    let mut container = describe(&root).spawn()?;
    let pid = Pid::from_raw(container.pid());
    let tracer = std::thread::spawn(move || {
        let traced = Tracer::new(pid, functions).and_then(|tracer| tracer.run(&report));
        traced.inspect_err(|error| eprintln!("tracing ended: {error:#}"))
    });
    reports.recv().context("the tracer did not begin")?;
    go(&container)?;
    container.until(LIMIT, "systemctl is-system-running --wait | grep -qxE 'running|degraded'")?;
    tracer::turn_page(pid)?;
    reports.recv().context("the tracer ended with the boot")?;
    let requests = container.sh(REQUESTS)?;
    if let Err(error) = requests.ok() {
        bail!("the requests failed: {error:#}");
    }
    tracer::turn_page(pid)?;
    let (boot, everyday) = tracer.join().map_err(|_| anyhow::anyhow!("the tracer panicked"))??;
    container.kill()?;
    write(&boot, &everyday)
}

/// Lets the init go on. Its root is the container's only after a moment: nothing is made where no FIFO is.
fn go(container: &Container) -> Result<()> {
    let path = container.root().join("order-go");
    let deadline = Instant::now() + LIMIT;
    while !fs::metadata(&path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        ensure!(Instant::now() < deadline, "no {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(fs::File::options().write(true).open(path)?.write_all(b"go\n")?)
}

/// A container whose init waits to be traced.
fn describe(root: &Path) -> Builder {
    let builder = Container::builder(root).init("/order-init").change("order-init", |to| {
        fs::write(to, INIT)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))
    });
    let builder = builder.change("order-go", |to| Ok(mkfifo(to, Mode::S_IRWXU)?));
    image::installed_files().iter().fold(builder, |builder, (from, to)| builder.copy(from, to))
}

/// (address, name) of every function of a program.
fn functions(program: &Path) -> Result<Vec<(u64, String)>> {
    let output = Command::new("nm").arg("--defined-only").arg(program).output().context("nm (binutils)")?;
    let text = String::from_utf8(output.stdout)?;
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        let is_function = matches!(kind, "t" | "T" | "w" | "W");
        is_function.then_some(())?;
        Some((u64::from_str_radix(address, 16).ok()?, name.to_owned()))
    };
    Ok(text.lines().filter_map(entry).collect())
}

/// How much of the list the built program still has: the rest was renamed or merged since it was made.
pub fn freshness() -> Result<String> {
    let functions = functions(&paths::release().join("muster"))?;
    let names: BTreeSet<&str> = functions.iter().map(|(_, name)| name.as_str()).collect();
    let list = fs::read_to_string(list())?;
    let known = list.lines().filter(|name| names.contains(name)).count();
    let all = list.lines().count();
    Ok(format!(
        "functions.order: the program has {known} of its {all} functions; `cargo xtask order` makes it anew"
    ))
}

fn list() -> PathBuf {
    paths::workspace().join("crates/init/functions.order")
}

/// What runs every day comes first, then what only the boot needs.
fn write(boot: &Order, everyday: &Order) -> Result<i32> {
    let mut seen = BTreeSet::new();
    let names = everyday.iter().chain(boot).filter(|name| seen.insert(name.as_str()));
    let text: String = names.map(|name| format!("{name}\n")).collect();
    let path = list();
    fs::write(&path, &text)?;
    println!("{} functions at boot, {} every day: {}", boot.len(), everyday.len(), path.display());
    Ok(0)
}
