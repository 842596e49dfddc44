//! A container with one service, under several inits: the rows of `cargo xtask bench --rows container`.
//!
//! What must stay true: one declaration ([`INITS`]) says what each init is given, and all else is the same for all: the runtime,
//! its capabilities, its cgroups, the service. Programs are those of the packages, and sizes what the packages install.

use super::{Process, Samples, median, number};
use crate::dist::{self, Steps};
use crate::package;
use anyhow::{Context, Result, bail};
use muster_tests::oci::{Bundle, Running, Runtime, Tree};
use muster_tests::{Container, image};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const LIMIT: Duration = Duration::from_secs(30);
/// By now an init is at rest.
const REST: Duration = Duration::from_secs(4);
/// How often a file is looked for that says that the service runs.
const LOOK: Duration = Duration::from_micros(500);

/// An init, and what it is given.
struct Init {
    name: &'static str,
    /// Which image it runs in, of `images/`.
    image: &'static str,
    /// Packages that it is installed by.
    packages: &'static [&'static str],
    command: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    /// The signal that stops the container in order.
    stop: Option<i32>,
}

const UP: &str = "/usr/lib/up";
/// The service: it says when it runs.
const SERVICE: &str = "#!/bin/sh\ndate +%s.%N > /run/up.new\nmv /run/up.new /run/up\nexec sleep infinity\n";
const UNIT: &[(&str, &str)] = &[("etc/systemd/system/up.service", "[Service]\nExecStart=/usr/lib/up\n")];
const WANTS: &str = "etc/systemd/system/multi-user.target.wants/up.service";
const TERM: i32 = 15;
/// SIGRTMIN+3.
const HALT: i32 = 37;

const INITS: [Init; 7] = [
    Init {
        name: "none: the service is process 1",
        image: "contained",
        packages: &[],
        command: &[UP],
        files: &[],
        stop: None,
    },
    Init {
        name: "tini",
        image: "contained",
        packages: &["tini"],
        command: &["/usr/bin/tini", "--", UP],
        files: &[],
        stop: Some(TERM),
    },
    Init {
        name: "muster, one command (`muster --`)",
        image: "contained",
        packages: &["muster"],
        command: &[image::MUSTER, "--", UP],
        files: &[],
        stop: Some(TERM),
    },
    Init {
        name: "s6 (s6-svscan)",
        image: "contained",
        packages: &["s6"],
        command: &["/usr/bin/s6-svscan", "/etc/s6"],
        files: &[("etc/s6/up/run", "#!/bin/sh\nexec /usr/lib/up\n")],
        stop: Some(TERM),
    },
    Init {
        name: "muster",
        image: "contained",
        packages: &["muster"],
        command: &[image::MUSTER],
        files: UNIT,
        stop: Some(TERM),
    },
    Init {
        name: "muster, in systemd's image",
        image: "contained-systemd",
        packages: &["muster", "systemd"],
        command: &[image::MUSTER],
        files: UNIT,
        stop: Some(HALT),
    },
    Init {
        name: "systemd",
        image: "contained-systemd",
        packages: &["systemd"],
        command: &["/usr/lib/systemd/systemd"],
        files: UNIT,
        stop: Some(HALT),
    },
];

/// What is measured: key, what it says, unit.
const COLUMNS: [(&str, &str, &str); 6] = [
    ("start", "until the service runs", "ms"),
    ("cpu", "CPU time until then, the runtime's included", "ms"),
    ("stop", "from the signal to the end", "ms"),
    ("memory", "memory at rest", "MiB"),
    ("processes", "processes", ""),
    ("installed", "installed", "MB"),
];

/// What all rounds share.
struct Ground {
    /// The package muster, unpacked.
    muster: PathBuf,
    /// Bytes that each init's packages install beyond the base image, by name.
    sizes: BTreeMap<&'static str, f64>,
}

/// Measures; the table, and whether it is complete.
pub fn run(rounds: usize) -> Result<(String, bool)> {
    let ground = prepare()?;
    let mut samples: Vec<Samples> = INITS.iter().map(|_| Samples::new()).collect();
    for round in 1..=rounds {
        for (init, samples) in INITS.iter().zip(&mut samples) {
            eprintln!("round {round} of {rounds}: {}", init.name);
            if let Err(error) = measure(&ground, init, samples) {
                eprintln!("{}: {error:#}", init.name);
            }
        }
    }
    let complete = INITS.iter().zip(&samples).all(|(init, samples)| {
        COLUMNS.iter().all(|(key, ..)| samples.contains_key(key) || (*key == "stop" && init.stop.is_none()))
    });
    Ok((table(&samples, rounds), complete))
}

/// Programs as they are packaged, and what packages weigh.
fn prepare() -> Result<Ground> {
    let packages =
        package::make(&package::build()?, &dist::scratch("contained-packages")?, &mut Steps::uncounted())?;
    let muster = dist::scratch("contained")?;
    image::run(Command::new("dpkg-deb").arg("-x").arg(&packages.muster).arg(&muster))?;
    let base = Installed::read(&image::debian_of("oci")?)?;
    let mut sizes = BTreeMap::new();
    for init in &INITS {
        let root = image::debian_of(init.image)?;
        let installed = Installed::read(&root)?;
        let others: Vec<&str> = init.packages.iter().copied().filter(|name| *name != "muster").collect();
        let mut bytes = disk_use(&root, &installed.files(&root, &installed.beyond(&base, &others)?)?)?;
        if init.packages.contains(&"muster") {
            bytes += disk_use(&muster, &listed(&muster)?)?;
        }
        sizes.insert(init.name, bytes);
    }
    Ok(Ground { muster, sizes })
}

/// One container's life.
fn measure(ground: &Ground, init: &Init, samples: &mut Samples) -> Result<()> {
    let mut add = |key: &'static str, value: f64| samples.entry(key).or_default().push(value);
    add("installed", ground.sizes.get(init.name).copied().unwrap_or_default() / 1e6);
    let bundle = describe(ground, init)?;
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let mut running = bundle.start(Runtime::Crun)?;
    let up = until_up(&mut running)?;
    add("cpu", cpu_ms(running.cgroup())?);
    add("start", (up - before) * 1e3);
    std::thread::sleep(REST);
    let (memory, processes) = at_rest(&running)?;
    add("memory", memory);
    add("processes", processes);
    if let Some(signal) = init.stop {
        let before = std::time::Instant::now();
        running.signal(signal)?;
        running.wait(LIMIT)?;
        add("stop", before.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}

/// As `podman run --systemd=always` has it, for all: a cgroup tree for writing, a tmpfs on /run.
fn describe(ground: &Ground, init: &Init) -> Result<Bundle> {
    let mut layers = Container::builder(image::debian_of(init.image)?);
    if init.packages.contains(&"muster") {
        for (_, name, dir) in image::PROGRAMS {
            let path = format!("{dir}/{name}");
            layers = layers.copy(&ground.muster.join(&path), &path);
        }
    }
    layers = layers.file(UP, SERVICE);
    for (path, text) in init.files {
        layers = layers.file(path, text);
    }
    if init.files == UNIT {
        layers = layers.link(WANTS, "/etc/systemd/system/up.service");
    }
    let bundle = Bundle::of(layers).args(init.command.iter().copied()).env("container", "oci");
    Ok(bundle.tree(Tree::Writable).volatile("/run").volatile("/tmp"))
}

/// The second at which the service ran.
fn until_up(running: &mut Running) -> Result<f64> {
    while running.started().elapsed() < LIMIT {
        let root = running.pid().map(|pid| PathBuf::from(format!("/proc/{pid}/root/run/up")));
        if let Some(text) = root.and_then(|path| fs::read_to_string(path).ok()) {
            return Ok(text.trim().parse()?);
        }
        if let Ok(code) = running.wait(Duration::ZERO) {
            bail!("it ended with {code}:\n{}", running.text());
        }
        std::thread::sleep(LOOK);
    }
    bail!("the service did not start:\n{}", running.text())
}

fn cpu_ms(cgroup: &Path) -> Result<f64> {
    let text = fs::read_to_string(cgroup.join("cpu.stat"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("cpu.stat")?;
    Ok(line.parse::<f64>()? / 1e3)
}

/// Memory, each page shared among those who have it, and number of all processes but the service.
fn at_rest(running: &Running) -> Result<(f64, f64)> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let first = running.pid().context("it has ended")?.to_string();
    let wanted = namespace(&first);
    let (mut memory, mut count) = (0.0, 0.0);
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse() else { continue };
        let is_service = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
        if namespace(&name) == wanted && !is_service {
            memory += Process(pid).proportional_mib()?;
            count += 1.0;
        }
    }
    Ok((memory, count))
}

/// What dpkg knows of a root: packages with what they depend on, and what else they provide.
struct Installed {
    depends: BTreeMap<String, Vec<String>>,
    provided: BTreeMap<String, String>,
}

impl Installed {
    fn read(root: &Path) -> Result<Self> {
        Ok(Self::parse(&fs::read_to_string(root.join("var/lib/dpkg/status"))?))
    }

    /// Of deb-control(5)'s fields, the names alone; of alternatives each that is there.
    fn parse(status: &str) -> Self {
        let (mut depends, mut provided) = (BTreeMap::new(), BTreeMap::new());
        for paragraph in status.split("\n\n") {
            let field = |name: &str| {
                let mut lines = paragraph.lines();
                lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            let names = |field: Option<&str>| -> Vec<String> {
                let parts = field.unwrap_or_default().split([',', '|']);
                let first = parts.filter_map(|part| part.trim().split([' ', ':', '(']).next());
                first.filter(|name| !name.is_empty()).map(str::to_owned).collect()
            };
            let Some(package) = field("Package") else { continue };
            for name in names(field("Provides")) {
                provided.insert(name, package.to_owned());
            }
            let all = [names(field("Depends")), names(field("Pre-Depends"))].concat();
            depends.insert(package.to_owned(), all);
        }
        Self { depends, provided }
    }

    /// Packages and all that they depend on, but for what a base has.
    fn beyond(&self, base: &Self, packages: &[&str]) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let mut waiting: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
        if let Some(missing) = waiting.iter().find(|name| !self.depends.contains_key(*name)) {
            bail!("the image has no {missing}");
        }
        while let Some(name) = waiting.pop() {
            let name =
                self.provided.get(&name).filter(|_| !self.depends.contains_key(&name)).unwrap_or(&name);
            let Some(depends) = self.depends.get(name).filter(|_| !base.depends.contains_key(name)) else {
                continue;
            };
            if found.insert(name.clone()) {
                waiting.extend(depends.iter().cloned());
            }
        }
        Ok(found)
    }

    /// The files of packages, relative to the root.
    fn files(&self, root: &Path, packages: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
        let mut files = BTreeSet::new();
        let info = root.join("var/lib/dpkg/info");
        for entry in fs::read_dir(&info)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = name.strip_suffix(".list") else { continue };
            if packages.contains(name.split(':').next().unwrap_or(name)) {
                let list = fs::read_to_string(entry.path())?;
                files.extend(list.lines().map(|line| PathBuf::from(line.trim_start_matches('/'))));
            }
        }
        let is_file = |path: &PathBuf| root.join(path).symlink_metadata().is_ok_and(|meta| !meta.is_dir());
        Ok(files.into_iter().filter(is_file).collect())
    }
}

/// All files below a directory, relative to it.
fn listed(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = dist::output(Command::new("find").args([".", "!", "-type", "d"]).current_dir(dir))?;
    Ok(list.lines().map(PathBuf::from).collect())
}

/// What du(1) says of files, in bytes.
fn disk_use(root: &Path, files: &[PathBuf]) -> Result<f64> {
    if files.is_empty() {
        return Ok(0.0);
    }
    let mut command = Command::new("du");
    command.args(["-c", "-B1", "--files0-from=-"]).current_dir(root).stdin(Stdio::piped());
    let mut du = command.stdout(Stdio::piped()).spawn()?;
    let mut input = du.stdin.take().context("du's input")?;
    let names: Vec<u8> =
        files.iter().flat_map(|file| [file.as_os_str().as_encoded_bytes(), b"\0"].concat()).collect();
    let writer = std::thread::spawn(move || input.write_all(&names));
    let said = String::from_utf8_lossy(&du.wait_with_output()?.stdout).into_owned();
    writer.join().map_err(|_| anyhow::anyhow!("du's input"))??;
    let last =
        said.lines().last().and_then(|line| line.split_whitespace().next()).context("du said nothing")?;
    Ok(last.parse()?)
}

/// A row for each init.
fn table(samples: &[Samples], rounds: usize) -> String {
    let mut text = format!("Medians of {rounds} rounds.\n\n| |");
    for (_, what, unit) in COLUMNS {
        text += &if unit.is_empty() { format!(" {what} |") } else { format!(" {what}, {unit} |") };
    }
    text += "\n|---|";
    COLUMNS.iter().for_each(|_| text += "---:|");
    text += "\n";
    for (init, samples) in INITS.iter().zip(samples) {
        text += &format!("| {} |", init.name);
        for (key, ..) in COLUMNS {
            let value = samples.get(key).and_then(|values| median(values));
            text += &match value {
                Some(value) if key == "processes" => format!(" {value} |"),
                Some(value) => format!(" {} |", number(value)),
                None if key == "stop" && init.stop.is_none() => "  |".to_owned(),
                None => " failed |".to_owned(),
            };
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "Package: libc6\nVersion: 2.41\n\nPackage: sh\nProvides: shell (= 1)\n";

    #[test]
    fn what_comes_with_a_package_is_counted_once_and_the_base_never() {
        let more = format!(
            "{BASE}\nPackage: init\nPre-Depends: liba (>= 1)\nDepends: libc6 (>= 2), libb:any | libz, tool\n\n\
             Package: liba\nDepends: libb\n\nPackage: libb\nDepends: shell\n\nPackage: real\nProvides: tool\n\n\
             Package: other\n"
        );
        let (base, more) = (Installed::parse(BASE), Installed::parse(&more));
        let names = more.beyond(&base, &["init"]).unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["init", "liba", "libb", "real"]);
        assert!(more.beyond(&base, &["missing"]).is_err());
    }

    #[test]
    fn what_was_not_measured_is_shown() {
        let mut samples: Vec<Samples> = INITS.iter().map(|_| Samples::new()).collect();
        samples[1] = Samples::from([("start", vec![30.0, 10.0, 20.0]), ("processes", vec![1.0])]);
        let text = table(&samples, 3);
        assert!(text.contains("| tini | 20.0 | failed | failed | failed | 1 | failed |"), "{text}");
        assert!(text.contains("process 1 | failed | failed |  | failed |"), "{text}");
    }
}
