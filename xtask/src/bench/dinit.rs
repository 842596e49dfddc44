//! dinit beside the two: a chain of oneshots, and many at once, in the same container and with the same program.
//!
//! What must stay true: it does less (no cgroup for a service, no bus, no journal), which the table says; and where it cannot
//! be had, the table says why.

use super::{CHAIN, LIMIT, MANY, Process, ROWS, Samples, number, numbers, of, ratio, shown};
use anyhow::{Context, Result, bail};
use muster_tests::{Builder, Container, image, paths};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "dinit";
const PROGRAMS: [&str; 2] = ["dinit", "dinitctl"];
const KEYS: [&str; 4] = ["many", "many-cpu", "chain", "chain-cpu"];
/// A service that runs a program to its end, as a oneshot does.
const ONESHOT: &str = "type = scripted\ncommand = /usr/lib/muster-demo spin-exit 0\n";

/// The package of the image's Debian, unpacked with what it depends on; it is asked for once.
pub fn fetch() -> Result<PathBuf> {
    let dir = paths::target().join("dinit");
    if PROGRAMS.iter().all(|name| program(&dir, name).is_some()) {
        return Ok(dir);
    }
    image::need_program("mmdebstrap", "mmdebstrap")?;
    let _ = fs::remove_dir_all(&dir);
    let extract = ["--mode=root", "--format=directory", "--variant=extract", "--quiet"];
    let include = format!("--include={PACKAGE}");
    image::run(Command::new("mmdebstrap").args(extract).arg(include).arg("trixie").arg(&dir))
        .context("Debian's trixie gives no package of it")?;
    Ok(dir)
}

fn program(dir: &Path, name: &str) -> Option<PathBuf> {
    ["usr/sbin", "sbin", "usr/bin"].into_iter().map(|bin| dir.join(bin).join(name)).find(|path| path.exists())
}

/// One container's life.
pub fn measure(root: &Path, dir: &Path, samples: &mut Samples) -> Result<()> {
    let mut container = describe(root, dir)?.spawn()?;
    container.until(LIMIT, "dinitctl list")?;
    let process = Process(container.pid());
    let last = format!("chain-{}", CHAIN.saturating_sub(1));
    for (wall, used, service) in [("many", "many-cpu", "many"), ("chain", "chain-cpu", last.as_str())] {
        let cpu = process.cpu_ms()?;
        let took = numbers(&container, &["repeat", "1", "dinitctl", "start", service], LIMIT)?;
        samples.entry(wall).or_default().push(took.first().context("no time")? / 1e3);
        samples.entry(used).or_default().push(process.cpu_ms()? - cpu);
        let state = container.exec(&["dinitctl", "status", service])?.ok()?;
        if !state.contains("STARTED") {
            bail!("{service} was not started: {state}");
        }
    }
    container.kill()?;
    Ok(())
}

fn describe(root: &Path, dir: &Path) -> Result<Builder> {
    let mut builder = Container::builder(root).copy(&paths::release().join("muster-demo"), image::DEMO);
    for name in PROGRAMS {
        let from = program(dir, name).with_context(|| format!("the package has no {name}"))?;
        builder = builder.copy(&from, &format!("usr/sbin/{name}"));
    }
    let services = services().into_iter();
    builder =
        services.fold(builder, |builder, (name, text)| builder.file(&format!("etc/dinit.d/{name}"), text));
    Ok(builder.init("/usr/sbin/dinit").args(["--container"]))
}

/// Nothing at the boot; many that one waits for; a chain of which each needs the one before it.
fn services() -> Vec<(String, String)> {
    let waits: String = (0..MANY).map(|place| format!("waits-for = many-{place}\n")).collect();
    let boot = ("boot".to_string(), "type = internal\n".to_string());
    let all = ("many".to_string(), format!("type = internal\n{waits}"));
    let many = (0..MANY).map(|place| (format!("many-{place}"), ONESHOT.to_string()));
    let chain = (0..CHAIN).map(|place| {
        let before = place.checked_sub(1);
        let needs = before.map_or(String::new(), |before| format!("depends-on = chain-{before}\n"));
        (format!("chain-{place}"), format!("{ONESHOT}{needs}"))
    });
    [boot, all].into_iter().chain(many).chain(chain).collect()
}

/// What came of it beside muster's, or why nothing did.
pub fn table(fetched: &Result<PathBuf>, samples: &Samples, ours: &Samples) -> String {
    if let Err(error) = fetched {
        return format!("dinit was not measured: {error:#}.\n");
    }
    let mut text = "The same under dinit, which makes no cgroup for a service and has no bus.\n\n\
                    | | unit | dinit | muster | ratio |\n|---|---|---:|---:|---:|\n"
        .to_string();
    for (key, what, unit) in ROWS.into_iter().filter(|(key, ..)| KEYS.contains(key)) {
        let (there, here) = (of(samples, key), of(ours, key));
        let ratio = ratio(there, here).map_or(String::new(), number);
        text += &format!("| {what} | {unit} | {} | {} | {ratio} |\n", shown(there), shown(here));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_says_why() {
        let none = Samples::new();
        let text = table(&Err(anyhow::anyhow!("there is no apt-get here")), &none, &none);
        assert_eq!(text, "dinit was not measured: there is no apt-get here.\n");
        let (there, here) = (Samples::from([("many", vec![300.0])]), Samples::from([("many", vec![450.0])]));
        let text = table(&Ok(PathBuf::new()), &there, &here);
        assert!(text.contains("| 500 oneshots in one transaction | ms | 300 | 450 | 1.50 |\n"), "{text}");
        assert!(text.contains("| a chain of 1,000 oneshots | ms | failed | failed |  |\n"), "{text}");
    }
}
