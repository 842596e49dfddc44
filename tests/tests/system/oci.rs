//! Containers as people run them: muster as PID 1 under crun and runc, with Docker's capabilities, a read-only root and
//! no-new-privileges, and cgroups as these runtimes give them: for writing, for reading, not at all.

use crate::ground::{BOOT_LIMIT, Ground, Init};
use crate::{Case, Outcome};
use anyhow::{Context, Result, ensure};
use muster_tests::oci::{Bundle, Running, Runtime, Tree};
use muster_tests::{image, paths};
use std::time::Duration;

const END: Duration = Duration::from_secs(30);
const TERM: i32 = 15;

/// A service that matters, and a daemon that leaves its session and its parents.
const UNITS: [(&str, &str); 3] = [
    (
        "default.target",
        "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=web.service daemon.service\n",
    ),
    (
        "web.service",
        "[Service]\nExecStart=/bin/sh -c 'trap \"echo stopping; exit 7\" TERM; echo ready; while :; do sleep 1000 & wait; done'\n\
         [X-Muster]\nEssential=yes\n",
    ),
    (
        "daemon.service",
        "[Service]\nType=forking\nExecStart=/bin/sh -c 'setsid /bin/sh -c \"/bin/sleep 4711 & echo forked\" & wait'\n",
    ),
];

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&Ground) -> Result<()>| {
        Case::new(name, move |ground| {
            if ground.init == Init::Systemd {
                return Ok(Outcome::Skipped("it is about what muster does in such a container".to_string()));
            }
            run(ground).map(|()| Outcome::Passed)
        })
    };
    vec![
        case("oci/crun", |ground| matrix(ground, Runtime::Crun)),
        case("oci/runc", |ground| matrix(ground, Runtime::Runc)),
        case("oci/essential", essential),
        case("oci/command", command),
        case("oci/reexec", reexec),
        case("oci/confined", confined),
        Case::new("oci/stock", |ground| {
            match ground.init {
                Init::Systemd => oracle(ground),
                Init::Muster => stock(ground),
            }
            .map(|()| Outcome::Passed)
        }),
        case("oci/nowhere-to-write", nowhere_to_write),
        case("oci/docs", docs),
    ]
}

/// Our units alone: no journal among them.
fn bundle(ground: &Ground, units: &[(&str, &str)]) -> Bundle {
    let add = |builder: muster_tests::Builder, (name, text): &(&str, &str)| {
        builder.file(&format!("etc/box/{name}"), text)
    };
    let layers = units.iter().fold(ground.debian(), add);
    Bundle::of(layers).env("SYSTEMD_UNIT_PATH", "/etc/box").read_only().no_new_privileges().volatile("/run")
}

fn matrix(ground: &Ground, runtime: Runtime) -> Result<()> {
    for tree in [Tree::Writable, Tree::ReadOnly, Tree::Absent] {
        for user_namespace in [false, true] {
            let about = || format!("{runtime:?}, cgroups {tree:?}, user namespace {user_namespace}");
            one(ground, runtime, tree, user_namespace).with_context(about)?;
        }
    }
    Ok(())
}

/// A life: up, known to systemctl, a daemon that ends whole, logs, and an end in order.
fn one(ground: &Ground, runtime: Runtime, tree: Tree, user_namespace: bool) -> Result<()> {
    let mut bundle = bundle(ground, &UNITS).tree(tree);
    if user_namespace {
        bundle = bundle.user_namespace();
    }
    let mut running = bundle.start(runtime)?;
    running.until_said("web.service: ready\n", BOOT_LIMIT)?;
    running.until(BOOT_LIMIT, "systemctl is-active default.target")?;
    let state = running.sh("systemctl is-active web daemon; systemctl --failed --no-legend; true")?;
    ensure!(state.stdout == "active\nactive\n", "{}{}\n{}", state.stdout, state.stderr, running.text());
    stop_daemon(&running)?;
    running.signal(TERM)?;
    let code = running.wait(END)?;
    let text = running.text();
    ensure!(code == 7, "ended with {code}:\n{text}");
    ensure!(text.contains("web.service: stopping\n"), "the last words are missing:\n{text}");
    ensure!(text.contains("muster: Started web.service."), "PID 1 says nothing:\n{text}");
    let said = text.matches("There is no cgroup for each unit").count();
    let wanted = match (tree, user_namespace) {
        (Tree::Writable, false) => 0,
        // crun gives the cgroup to the container's root, runc does not.
        (Tree::Writable, true) => said.min(1),
        _ => 1,
    };
    ensure!(said == wanted, "said {said} times that there are no cgroups:\n{text}");
    Ok(())
}

/// Of a service that is stopped nothing stays, wherever it went.
fn stop_daemon(running: &Running) -> Result<()> {
    let there = "grep -lsa 'sleep.471[1]' /proc/[0-9]*/cmdline";
    running.until(END, there)?;
    let stop = running.sh("systemctl stop daemon; systemctl is-active daemon; true")?;
    ensure!(stop.stdout == "inactive\n", "{}{}", stop.stdout, stop.stderr);
    let left = running.sh(&format!("! {there}"))?;
    ensure!(left.code == 0, "still there: {}", left.stdout);
    Ok(())
}

/// The exit status of the container is that of the unit that matters.
fn essential(ground: &Ground) -> Result<()> {
    let unit = |service: &str| {
        let text = format!("[Service]\n{service}\n[X-Muster]\nEssential=yes\n");
        let target = "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=it.service\n";
        bundle(ground, &[("default.target", target), ("it.service", &text)])
    };
    for (service, wanted) in [
        ("ExecStart=/bin/sh -c 'exit 3'", 3),
        ("ExecStart=/bin/true", 0),
        ("ExecStart=/bin/sh -c 'kill -9 $$$$'", 137),
        ("ExecStart=/bin/not-there", 203),
        ("ExecStartPre=/bin/false\nExecStart=/bin/true", 1),
        (
            "Restart=on-failure\nRestartSec=1ms\nStartLimitIntervalSec=1h\nStartLimitBurst=3\nExecStart=/bin/sh -c 'exit 4'",
            4,
        ),
    ] {
        let mut running = unit(service).start(Runtime::Crun)?;
        let code = running.wait(END).with_context(|| service.to_string())?;
        ensure!(code == wanted, "{service}: ended with {code}, not {wanted}:\n{}", running.text());
    }
    // A restart is no end; a stop by hand is.
    let mut running = unit("ExecStart=/bin/sleep 1000").start(Runtime::Crun)?;
    running.until(BOOT_LIMIT, "systemctl is-active it && systemctl restart it && systemctl is-active it")?;
    let _ = running.sh("systemctl stop --no-block it")?;
    let code = running.wait(END)?;
    ensure!(code == 143, "ended with {code}:\n{}", running.text());
    Ok(())
}

/// `muster -- COMMAND`.
fn command(ground: &Ground) -> Result<()> {
    let start = |runtime: Runtime, command: &[&str]| {
        let args = [image::MUSTER, "--"].into_iter().chain(command.iter().copied());
        Bundle::of(ground.debian())
            .args(args)
            .read_only()
            .no_new_privileges()
            .tree(Tree::Absent)
            .start(runtime)
    };
    for (command, wanted, says) in [
        (&["/bin/sh", "-c", "echo said; exit 5"][..], 5, "said"),
        (&["/bin/sh", "-c", "kill -9 $$"], 137, ""),
        (&["/bin/sh", "-c", "kill -37 $$"], 165, ""),
        (&["/bin/not-there"], 127, "not-there: No such file"),
        (&["/etc/passwd"], 126, "Permission denied"),
        // An orphan is reaped: nobody is left a zombie.
        (
            &["/bin/sh", "-c", "sh -c 'sleep 0.1 &'; sleep 0.3; grep -h State /proc/[0-9]*/status"],
            0,
            "(sleeping)",
        ),
    ] {
        let mut running = start(Runtime::Crun, command)?;
        let code = running.wait(END)?;
        let text = running.text();
        ensure!(code == wanted && text.contains(says), "{command:?}: ended with {code}:\n{text}");
        ensure!(!text.contains("(zombie)"), "{text}");
    }
    for runtime in [Runtime::Crun, Runtime::Runc] {
        let script = "trap 'echo hup' HUP; trap 'exit 9' TERM; echo up; while :; do sleep 1000 & wait; done";
        let mut running = start(runtime, &["/bin/sh", "-c", script])?;
        running.until_said("up\n", END)?;
        running.signal(1)?;
        running.until_said("hup\n", END)?;
        running.signal(TERM)?;
        let code = running.wait(END)?;
        ensure!(code == 9, "ended with {code}:\n{}", running.text());
    }
    Ok(())
}

/// What is known of processes, and who prints logs, goes on over a re-execution and a SIGTERM from inside.
fn reexec(ground: &Ground) -> Result<()> {
    let mut running = bundle(ground, &UNITS).tree(Tree::Absent).start(Runtime::Crun)?;
    running.until_said("web.service: ready\n", BOOT_LIMIT)?;
    running.until(BOOT_LIMIT, "systemctl is-active default.target")?;
    for again in ["systemctl daemon-reexec", "kill -TERM 1"] {
        running.sh(again)?;
        running.until(BOOT_LIMIT, "systemctl is-active web daemon")?;
    }
    stop_daemon(&running)?;
    running.signal(TERM)?;
    let code = running.wait(END)?;
    let text = running.text();
    ensure!(code == 7 && text.contains("web.service: stopping\n"), "ended with {code}:\n{text}");
    ensure!(text.matches("There is no cgroup for each unit").count() == 1, "{text}");
    Ok(())
}

/// A service that asks for more confinement than a container can give runs without, and it is said; one whose view of files
/// would be another does not run.
fn confined(ground: &Ground) -> Result<()> {
    let units = [
        (
            "default.target",
            "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=soft.service hard.service\n",
        ),
        (
            "soft.service",
            "[Service]\nProtectSystem=strict\nPrivateTmp=yes\nPrivateNetwork=yes\nProtectHostname=yes\nExecStart=/bin/sleep 1000\n",
        ),
        ("hard.service", "[Service]\nTemporaryFileSystem=/srv\nExecStart=/bin/sleep 1000\n"),
    ];
    let mut running = bundle(ground, &units).start(Runtime::Crun)?;
    running.until(BOOT_LIMIT, "systemctl is-active default.target")?;
    let state = running.sh("systemctl is-active soft hard; true")?;
    ensure!(state.stdout == "active\nfailed\n", "{}{}\n{}", state.stdout, state.stderr, running.text());
    running.signal(TERM)?;
    let code = running.wait(END)?;
    let text = running.text();
    ensure!(code == 0 && text.contains("soft.service runs without "), "ended with {code}:\n{text}");
    Ok(())
}

/// A stock Debian with its journal, bus and daemons, where nothing may be mounted: all of it runs. Two of its units are mounts,
/// which the container's manager has to make; where it does not they fail, and nothing else does.
fn stock(ground: &Ground) -> Result<()> {
    let secret = "[Service]\nType=exec\nUser=daemon\nSetCredential=secret:word\nUMask=0777\nSuccessExitStatus=SIGTERM\n\
        ExecStart=/bin/sh -c 'cat $$CREDENTIALS_DIRECTORY/secret; echo; exec sleep 1000'\n";
    let both = "run-lock.mount tmp.mount ";
    for (runtime, places, state, failed) in [
        (Runtime::Crun, &["/run", "/run/lock", "/tmp"][..], "running", ""),
        (Runtime::Runc, &["/run", "/run/lock", "/tmp"], "running", ""),
        (Runtime::Crun, &[], "degraded", both),
    ] {
        let layers = ground
            .debian()
            .file("etc/systemd/system/secret.service", secret)
            .link("etc/systemd/system/multi-user.target.wants/secret.service", "../secret.service");
        let bundle = Bundle::of(layers).no_new_privileges();
        let bundle = places.iter().fold(bundle, |bundle, place| bundle.volatile(place));
        let mut running = bundle.start(runtime)?;
        running.until(BOOT_LIMIT, "systemctl is-system-running --wait | grep -xE 'running|degraded'")?;
        let names = "systemctl --failed --no-legend --plain | cut -d ' ' -f 1 | tr '\\n' ' '";
        let said = running.sh(&format!("systemctl is-system-running; {names}"))?.stdout;
        ensure!(said == format!("{state}\n{failed}"), "{}: {said}\n{}", runtime.name(), running.text());
        let active =
            running.sh("systemctl is-active nginx ssh dbus systemd-journald systemd-logind secret")?;
        ensure!(active.stdout == "active\n".repeat(6), "{}\n{}", active.stdout, running.text());
        credentials(&running)?;
        running.signal(TERM)?;
        let code = running.wait(END)?;
        ensure!(code == 0, "ended with {code}:\n{}", running.text());
    }
    Ok(())
}

/// What systemd does there: with a cgroup tree for reading it ends at once. It wants the tree for writing.
fn oracle(ground: &Ground) -> Result<()> {
    for (tree, wanted) in [(Tree::ReadOnly, Some(255)), (Tree::Writable, None)] {
        let bundle = Bundle::of(ground.debian()).args(["/usr/lib/systemd/systemd"]).env("container", "oci");
        let places = ["/run", "/run/lock", "/tmp"];
        let bundle = places.iter().fold(bundle, |bundle, place| bundle.volatile(place));
        let mut running = bundle.no_new_privileges().tree(tree).start(Runtime::Crun)?;
        match wanted {
            Some(wanted) => {
                let code = running.wait(END)?;
                ensure!(code == wanted, "ended with {code}:\n{}", running.text());
            }
            None => {
                running.until(BOOT_LIMIT, "systemctl is-system-running --wait | grep -x running")?;
            }
        }
    }
    Ok(())
}

/// They are its user's alone, by an access list (whose mask the mode shows), and gone with the run.
fn credentials(running: &Running) -> Result<()> {
    let place = "/run/credentials/secret.service";
    running.until(END, "journalctl -b -o cat -u secret | grep -x word")?;
    running
        .until(END, "journalctl -b -o cat | grep 'runs without a file system of its own for credentials'")?;
    let who = "for i in daemon nobody; do setpriv --reuid=$i --clear-groups cat";
    let read = running.sh(&format!("{who} {place}/secret; echo; done; stat -c %a {place} {place}/secret"))?;
    ensure!(read.stdout == "word\n\n550\n440\n", "{}{}", read.stdout, read.stderr);
    ensure!(read.stderr.contains("Permission denied"), "{}", read.stderr);
    let gone = running.sh(&format!(
        "systemctl restart secret && cat {place}/secret && systemctl stop secret; ls /run/credentials"
    ))?;
    ensure!(
        gone.stdout.starts_with("word") && !gone.stdout.contains("secret"),
        "{}{}",
        gone.stdout,
        gone.stderr
    );
    Ok(())
}

/// A root that nobody can write to, and no /run either: it says so, and ends at once.
fn nowhere_to_write(ground: &Ground) -> Result<()> {
    let add = |builder: muster_tests::Builder, (name, text): &(&str, &str)| {
        builder.file(&format!("etc/box/{name}"), text)
    };
    let layers = UNITS.iter().fold(ground.debian(), add);
    let bundle = Bundle::of(layers).env("SYSTEMD_UNIT_PATH", "/etc/box").read_only();
    let mut running = bundle.start(Runtime::Crun)?;
    let code = running.wait(END)?;
    let text = running.text();
    ensure!(code == 1 && text.contains("Nothing works without /run"), "ended with {code}:\n{text}");
    Ok(())
}

/// The examples of docs/containers.md: files, and what its runs say.
fn docs(ground: &Ground) -> Result<()> {
    let page = std::fs::read_to_string(paths::workspace().join("docs/containers.md"))?;
    let blocks: Vec<(&str, &str)> =
        page.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n')).collect();
    let mut layers = ground.debian();
    for (_, text) in blocks.iter().filter(|(kind, _)| *kind == "ini") {
        let (first, file) = text.split_once('\n').context("an empty example")?;
        layers = layers.file(first.trim_start_matches("# "), file);
    }
    let bundle = Bundle::of(layers).env("SYSTEMD_UNIT_PATH", "/etc/box").read_only().volatile("/run");
    let mut running = bundle.start(Runtime::Crun)?;
    running.until_said("web.service: ", BOOT_LIMIT)?;
    for (_, text) in blocks.iter().filter(|(kind, _)| *kind == "console") {
        let mut said = String::new();
        for line in text.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => {
                    let output = running.sh(command)?;
                    said = format!("$ {command}\n{}{}", output.stdout, output.stderr);
                }
                None => ensure!(said.contains(line), "not said: {line}\n{said}"),
            }
        }
    }
    running.signal(TERM)?;
    let code = running.wait(END)?;
    let text = running.text();
    let shown = blocks.iter().find(|(kind, _)| *kind == "text").context("the page shows no output")?.1;
    for line in shown.lines() {
        ensure!(text.contains(line), "not said: {line}\n{text}");
    }
    ensure!(code == 0, "ended with {code}:\n{text}");
    Ok(())
}
