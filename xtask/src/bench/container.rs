//! The rows of `--rows container`: one service in a container under crun, with Docker's capabilities, and whoever may be
//! process 1 of it. Time is from the start of the runtime to the first word of the service; memory is what all processes but
//! the service have (PSS), two seconds later.

use super::{LIMIT, median, number};
use anyhow::{Context, Result, bail};
use muster_tests::oci::{Bundle, Running, Runtime, Tree};
use muster_tests::{Builder, Container, image};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What the service says first, and what it is known by.
const SERVICE: &str = "#!/bin/sh\necho up\nexec /bin/sleep 4711\n";
const PROGRAM: &str = "/usr/bin/bench-service";
const PROCESS: &str = "/bin/sleep";

/// Who is process 1, and how it is started.
const INITS: [(&str, &[&str]); 6] = [
    ("the service itself", &[PROGRAM]),
    ("tini", &["/usr/bin/tini", "--", PROGRAM]),
    ("`muster -- COMMAND`", &[image::MUSTER, "--", PROGRAM]),
    ("s6", &["/usr/bin/s6-svscan", "/run/s6"]),
    ("muster", &[image::MUSTER]),
    ("systemd 257", &["/usr/lib/systemd/systemd"]),
];

/// Measures, and prints the table.
pub fn run(root: &Path, rounds: usize) -> Result<i32> {
    image::need_program("tini", "tini")?;
    image::need_program("s6-svscan", "s6")?;
    let mut table = String::from(
        "| process 1 | to the service's first word, ms | memory beside the service, MiB |\n|---|---:|---:|\n",
    );
    for (name, args) in INITS {
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            let (ms, mib) = measure(root, name, args).with_context(|| name.to_string())?;
            samples[0].push(ms);
            samples[1].push(mib);
        }
        let [ms, mib] = samples.map(|values| median(&values).map_or(String::new(), number));
        table += &format!("| {name} | {ms} | {mib} |\n");
    }
    println!("Medians of {rounds} rounds.\n\n{table}");
    Ok(0)
}

fn measure(root: &Path, name: &str, args: &[&str]) -> Result<(f64, f64)> {
    let mut bundle =
        Bundle::of(layers(root)?).args(args.iter().copied()).volatile("/run").tree(Tree::Writable);
    bundle = match name {
        // s6 wants to write where its services are described.
        "s6" => bundle.args(["/bin/sh", "-c", "cp -r /etc/s6 /run/s6; exec /usr/bin/s6-svscan /run/s6"]),
        "muster" => bundle.env("SYSTEMD_UNIT_PATH", "/etc/box"),
        "systemd 257" => bundle.env("container", "oci"),
        _ => bundle,
    };
    let running = bundle.start(Runtime::Crun)?;
    let deadline = Instant::now() + LIMIT;
    // systemd has no standard output for its services: the service is looked for.
    while !running.text().contains("up\n") && service(&running).is_none() {
        if Instant::now() > deadline {
            bail!("no service:\n{}", running.text());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let ms = running.started().elapsed().as_secs_f64() * 1e3;
    std::thread::sleep(Duration::from_secs(2));
    let own = service(&running).context("the service is gone")?;
    let others = processes(&running)?.into_iter().filter(|pid| *pid != own && *pid != running.runtime_pid());
    Ok((ms, others.map(pss_mib).sum()))
}

/// The Debian, the service, and how each init is told of it.
fn layers(root: &Path) -> Result<Builder> {
    let unit = format!("[Service]\nExecStart={PROGRAM}\n");
    let target = "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=it.service\n";
    let files = image::installed_files();
    let builder = files.iter().fold(Container::builder(root), |builder, (from, to)| builder.copy(from, to));
    let mut builder = builder
        .file(PROGRAM, SERVICE)
        .file("etc/box/default.target", target)
        .file("etc/box/it.service", &unit)
        .file("etc/systemd/system/default.target", target)
        .file("etc/systemd/system/it.service", &unit)
        .file("etc/s6/it/run", format!("#!/bin/sh\nexec {PROGRAM}\n"));
    for program in ["tini", "s6-svscan", "s6-supervise"] {
        builder = with_libraries(builder, root, Path::new("/usr/bin").join(program))?;
    }
    Ok(builder)
}

/// A program of the host, with the libraries that the image does not have.
fn with_libraries(builder: Builder, root: &Path, program: PathBuf) -> Result<Builder> {
    let listed = Command::new("ldd").arg(&program).output()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries =
        text.lines().filter_map(|line| line.split_once("=> ")?.1.split(' ').next().map(PathBuf::from));
    let missing = libraries
        .filter(|path| path.is_file() && !root.join(path.strip_prefix("/").unwrap_or(path)).exists());
    let all = missing.chain([program]);
    Ok(all.fold(builder, |builder, path| builder.copy(&path, &path.to_string_lossy())))
}

/// All processes of the container, and the runtime.
fn processes(running: &Running) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    let mut left = vec![running.cgroup().to_path_buf()];
    while let Some(directory) = left.pop() {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        all.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        let below = fs::read_dir(&directory)?.flatten();
        left.extend(
            below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    Ok(all)
}

fn service(running: &Running) -> Option<u32> {
    let is_it = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(PROCESS.as_bytes()))
    };
    processes(running).ok()?.into_iter().find(is_it)
}

fn pss_mib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
