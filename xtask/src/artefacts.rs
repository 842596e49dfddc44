//! Packages and images, used as their users do: installed into a stock Debian, booted, taken away again.
//!
//! What must stay true: a tool that cannot be had here is a skip with its name; all else that goes wrong fails.

use crate::contained::{self, Entry};
use crate::dist::{self, Steps};
use crate::oci;
use crate::package::{self, Packages, Programs};
use crate::test::Tally;
use anyhow::{Context, Result, ensure};
use muster_tests::{Container, image};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Packages and images of these programs.
pub fn test(programs: Result<Programs>) -> Tally {
    let made = programs.and_then(|programs| Ok((make("first", &programs)?, programs)));
    let (packages, programs) = match made {
        Ok(made) => made,
        Err(error) => {
            println!("FAILED package/make: {error:#}");
            return Tally::failed();
        }
    };
    let mut tally = check("package/twice", Ok(()), || twice(&packages, &programs));
    tally += check("package/lintian", image::need_program("lintian", "lintian"), || lint(&packages));
    tally += check("package/install", containers(), || install(&packages));
    let tools = image::need_program("skopeo", "skopeo").and_then(|()| image::need_program("umoci", "umoci"));
    tally += check("image/oci", tools, || container_image(&packages));
    tally
}

/// The programs that the other tests are about.
pub fn programs() -> Result<Programs> {
    image::build_programs()?;
    Ok(image::installed_files())
}

/// Counts a test, or the reason why it cannot run.
pub fn check(name: &str, needs: Result<()>, test: impl FnOnce() -> Result<()>) -> Tally {
    if let Err(reason) = needs {
        println!("SKIP   {name}: {reason:#}");
        return Tally::skipped();
    }
    eprintln!("running {name}");
    let begun = Instant::now();
    match test() {
        Ok(()) => {
            println!("ok     {name} ({:.1} s)", begun.elapsed().as_secs_f64());
            Tally::passed()
        }
        Err(error) => {
            println!("FAILED {name}: {error:#}");
            Tally::failed()
        }
    }
}

fn containers() -> Result<()> {
    Container::unsupported().map_or(Ok(()), |reason| Err(anyhow::anyhow!(reason)))
}

fn make(name: &str, programs: &Programs) -> Result<Packages> {
    package::make(programs, &dist::scratch(name)?, &mut Steps::uncounted())
}

/// Made again, everything is the same to the byte.
fn twice(packages: &Packages, programs: &Programs) -> Result<()> {
    let again = make("second", programs)?;
    let sums = |packages: &Packages| fs::read_to_string(&packages.sums);
    let (one, other) = (sums(packages)?, sums(&again)?);
    ensure!(one == other, "these differ:\n{one}{other}");
    Ok(())
}

fn lint(packages: &Packages) -> Result<()> {
    for package in [&packages.muster, &packages.sysv] {
        print!("{}", package::lint(package)?);
    }
    Ok(())
}

/// A Debian in a directory, changed from outside as an installer does.
struct Root(PathBuf);

impl Root {
    /// A stock one, with the packages lying in it.
    fn stock(packages: &Packages) -> Result<Self> {
        let root = dist::scratch("installed")?.join("root");
        image::run(Command::new("cp").arg("-a").arg(image::debian()?).arg(&root))?;
        for (package, name) in [(&packages.muster, "muster.deb"), (&packages.sysv, "muster-sysv.deb")] {
            image::copy(package, &root.join("var/tmp").join(name))?;
        }
        Ok(Self(root))
    }

    fn sh(&self, script: &str) -> Result<String> {
        let mut command = Command::new("chroot");
        command.arg(&self.0).args(["/bin/sh", "-ec", script]).env("DEBIAN_FRONTEND", "noninteractive");
        dist::output(&mut command).with_context(|| script.to_owned())
    }

    /// Boots /sbin/init, and asks it for its program and a few things more.
    fn boot(&self, program: &str, questions: &[(&str, &str)]) -> Result<()> {
        let container = Container::builder(&self.0).init("/sbin/init").spawn()?;
        container.until(LIMIT, "systemctl is-system-running | grep -qxE 'running|degraded'")?;
        for (question, answer) in [("readlink /proc/1/exe", program)].iter().chain(questions) {
            let output = container.sh(question)?;
            let said = format!("{}{}", output.stdout, output.stderr);
            ensure!(said.contains(answer), "expected {answer:?} in the answer to {question}:\n{said}");
        }
        Ok(())
    }
}

/// From the stock machine to muster and back, with a boot at each step at which a machine can be.
fn install(packages: &Packages) -> Result<()> {
    let root = Root::stock(packages)?;
    let link = || root.sh("readlink /usr/sbin/init");
    let systemd = link()?;
    root.sh("apt-get -y -qq install /var/tmp/muster.deb")?;
    ensure!(link()? == systemd, "the package muster changed /sbin/init");
    root.boot(SYSTEMD, &[])?;
    root.sh("apt-get -y -qq install /var/tmp/muster-sysv.deb")?;
    ensure!(link()?.trim() == "../lib/muster/muster", "/sbin/init is {}", link()?);
    root.boot(image::MUSTER, AS_MUSTER)?;
    root.sh("apt-get -y -qq remove muster-sysv")?;
    ensure!(link()? == systemd, "/sbin/init is {}", link()?);
    root.boot(SYSTEMD, &[("musterctl --version", "muster")])?;
    root.sh("apt-get -y -qq purge muster muster-sysv")?;
    let left = root.sh("dpkg-divert --list '*init'; dpkg --verify; find /usr /etc /var/lib -name '*muster*' ! -path '*/lists/*'; ls -d /usr/sbin/init.* 2>/dev/null || true")?;
    ensure!(left.is_empty(), "left behind:\n{left}");
    Ok(())
}

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// Asked while muster is PID 1. An upgrade goes on as the new program; what PID 1 runs from cannot be removed.
const AS_MUSTER: &[(&str, &str)] = &[
    ("systemctl is-active nginx ssh", "active\nactive\n"),
    (
        "apt-get -y -qq --reinstall install /var/tmp/muster.deb >/dev/null && readlink /proc/1/exe",
        "/usr/lib/muster/muster\n",
    ),
    ("systemctl is-active nginx ssh", "active\nactive\n"),
    ("apt-get -y remove muster 2>&1; dpkg-query -W -f '${Status}' muster", "muster is PID 1 now"),
    ("readlink /usr/sbin/init; dpkg-query -W -f '${Status}' muster", "ok installed"),
    ("systemd-run -q --wait true && echo still-starts-services", "still-starts-services"),
];

/// The image as registries' tools read it, unpacked as for a runtime, and run.
fn container_image(packages: &Packages) -> Result<()> {
    let layout = oci::make(&packages.muster, &mut Steps::uncounted())?;
    let entry = Entry::read(&format!("oci:{}:{}", layout.display(), oci::TAG))?;
    let bundle = dist::scratch("bundle")?.join("bundle");
    let image = format!("{}:{}", layout.display(), oci::TAG);
    image::run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle))?;
    contained::test(&bundle.join("rootfs"), &entry)
}
