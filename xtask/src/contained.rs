//! The container image, run by OCI runtimes as its users do: unpacked by umoci, brought up by crun and runc with Docker's default
//! capabilities, and cgroups as those give them.
//!
//! What must stay true: what is run, and with which environment, is read from the image; a user's part is a unit file and a
//! link, and a stop signal.

use crate::dist;
use anyhow::{Context, Result, ensure};
use muster_tests::Container;
use muster_tests::oci::{Bundle, Running, Runtime, Tree};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const TERM: i32 = 15;

/// What a user adds: the service that the container is for.
const SERVICE: &str = "[Service]\n\
    ExecStart=/bin/sh -c 'trap \"echo stopping; exit 7\" TERM; echo ready; while :; do sleep 1000 & wait; done'\n\
    [X-Muster]\nEssential=yes\n";
/// One that ends by itself.
const BRIEF: &str = "[Service]\nExecStart=/bin/sh -c 'echo over; exit 3'\n[X-Muster]\nEssential=yes\n";

/// What an image says of how it is run.
pub struct Entry {
    program: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Entry {
    /// Of an image that skopeo reads, by its name for skopeo.
    pub fn read(image: &str) -> Result<Self> {
        let config = dist::output(Command::new("skopeo").args(["inspect", "--config", image]))?;
        let config: serde_json::Value = serde_json::from_str(&config)?;
        let words = |name: &str| -> Result<Vec<String>> {
            let words = config["config"][name].as_array().with_context(|| format!("no {name}: {config}"))?;
            Ok(words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect())
        };
        ensure!(config["config"]["StopSignal"] == "SIGTERM", "it is stopped by another signal: {config}");
        let variables = words("Env")?;
        let pairs = variables.iter().filter_map(|line| line.split_once('='));
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { program: words("Entrypoint")?, environment })
    }
}

/// Its lives under both runtimes, with cgroups for writing, for reading and not at all.
pub fn test(root: &Path, entry: &Entry) -> Result<()> {
    for runtime in [Runtime::Crun, Runtime::Runc] {
        for tree in [Tree::Writable, Tree::ReadOnly, Tree::Absent] {
            stopped(root, entry, runtime, tree)
                .with_context(|| format!("{}, cgroups {tree:?}", runtime.name()))?;
        }
        over(root, entry, runtime).with_context(|| runtime.name())?;
    }
    Ok(())
}

/// The image with a service in it.
fn bundle(root: &Path, entry: &Entry, service: &str) -> Bundle {
    let layers = Container::builder(root)
        .file("etc/systemd/system/web.service", service)
        .link("etc/systemd/system/multi-user.target.wants/web.service", "/etc/systemd/system/web.service");
    let bundle = Bundle::of(layers).args(entry.program.iter().map(String::as_str)).no_new_privileges();
    entry.environment.iter().fold(bundle, |bundle, (name, value)| bundle.env(name, value))
}

/// Up, asked, stopped from outside.
fn stopped(root: &Path, entry: &Entry, runtime: Runtime, tree: Tree) -> Result<()> {
    let mut running = bundle(root, entry, SERVICE).tree(tree).start(runtime)?;
    running.until_said("web.service: ready\n", LIMIT)?;
    let why = running.sh("musterctl why web.service")?;
    ensure!(why.stdout.contains("active (running)"), "{}{}\n{}", why.stdout, why.stderr, running.text());
    running.signal(TERM)?;
    ends(&mut running, 7, "web.service: stopping\n")
}

/// The end of the service is the end of the container.
fn over(root: &Path, entry: &Entry, runtime: Runtime) -> Result<()> {
    let mut running = bundle(root, entry, BRIEF).start(runtime)?;
    ends(&mut running, 3, "web.service: over\n")
}

fn ends(running: &mut Running, wanted: i32, says: &str) -> Result<()> {
    let code = running.wait(LIMIT)?;
    let text = running.text();
    ensure!(code == wanted && text.contains(says), "ended with {code}:\n{text}");
    Ok(())
}
