//! From the first instruction to the default target, and out again.

use crate::ground::{BOOT_LIMIT, Ground, Init, basic, booted};
use crate::{Case, Outcome};
use anyhow::{Result, bail, ensure};
use muster_tests::{Container, Exit, image};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const END_LIMIT: Duration = Duration::from_secs(30);

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("boot/debian", debian),
        Case::new("boot/bookworm", bookworm),
        Case::new("boot/small", small),
        Case::new("boot/exit-code", exit_code),
        Case::new("boot/poweroff", |ground| end_by(ground, "systemctl poweroff --force", Exit::Signal(2))),
        Case::new("boot/reboot", |ground| end_by(ground, "systemctl reboot --force", Exit::Signal(1))),
        Case::new("boot/sigrtmin", poweroff_signal),
        Case::new("boot/properties", same_properties),
        Case::new("boot/slow-jobs", slow_jobs),
        Case::new("boot/emergency", emergency),
        Case::new("boot/failure-action", |ground| {
            let unit = r"[Unit]\nFailureAction=exit-force\nFailureActionExitStatus=7\n[Service]\nExecStart=/bin/false";
            end_by_unit(ground, unit, Exit::Code(7))
        }),
        Case::new("boot/success-action", |ground| {
            let unit = r"[Unit]\nSuccessAction=poweroff-force\n[Service]\nExecStart=/bin/true";
            end_by_unit(ground, unit, Exit::Signal(2))
        }),
        Case::new("boot/success-action-exit", |ground| {
            let unit =
                r"[Unit]\nSuccessAction=exit\nSuccessActionExitStatus=9\n[Service]\nExecStart=/bin/true";
            end_by_unit(ground, unit, Exit::Code(9))
        }),
        Case::new("boot/start-limit-action", |ground| {
            let unit = r"[Unit]\nStartLimitBurst=2\nStartLimitAction=reboot-force\n[Service]\nRestart=always\nRestartSec=1ms\nExecStart=/bin/true";
            end_by_unit(ground, unit, Exit::Signal(1))
        }),
        Case::new("boot/job-timeout-action", |ground| {
            let unit = r"[Unit]\nJobTimeoutSec=200ms\nJobTimeoutAction=exit-force\n[Service]\nType=oneshot\nExecStart=/bin/sleep 1000";
            end_by_unit(ground, unit, Exit::Code(0))
        }),
    ]
}

/// To the default target, with no failed unit that the oracle does not have as well, and the same active ones.
fn debian(ground: &Ground) -> Result<Outcome> {
    let oracle = booted(ground.debian_under(Init::Systemd))?;
    let subject = booted(ground.debian())?;
    let failed = "systemctl list-units --failed --plain --no-legend | cut -d' ' -f1 | sort";
    let (there, here) = (lines(&oracle, failed)?, lines(&subject, failed)?);
    let more: Vec<_> = here.difference(&there).collect();
    ensure!(more.is_empty(), "failed here and not under systemd: {more:?}");
    // Mounts and devices follow the kernel's tables; timers and paths are shown but not run by this version.
    let active = "systemctl list-units --plain --no-legend --state=active --type=service,socket,target,slice | cut -d' ' -f1 | sort";
    let (there, here) = (lines(&oracle, active)?, lines(&subject, active)?);
    let missing: Vec<_> = there.difference(&here).collect();
    ensure!(missing.is_empty(), "active under systemd and not here: {missing:?}");
    Ok(Outcome::Passed)
}

/// Another distribution, to its default target: nothing has failed, its daemons run, and it ends.
fn bookworm(ground: &Ground) -> Result<Outcome> {
    let mut container = booted(ground.bookworm()?)?;
    let state = container
        .sh("systemctl is-system-running --wait; systemctl --failed --no-legend; cat /etc/debian_version")?;
    ensure!(state.stdout.starts_with("running\n12."), "{}{}", state.stdout, state.stderr);
    container.until(BOOT_LIMIT, "systemctl is-active nginx cron ssh dbus systemd-journald systemd-logind")?;
    container.sh("systemctl poweroff")?;
    expect_end(&mut container, Exit::Signal(2))
}

fn lines(container: &Container, script: &str) -> Result<BTreeSet<String>> {
    Ok(container.sh(script)?.ok()?.lines().map(str::to_string).collect())
}

/// The properties of units at rest that people and tools read, equal to the oracle's one by one.
fn same_properties(ground: &Ground) -> Result<Outcome> {
    const UNITS: [&str; 8] = [
        "nginx.service",
        "ssh.service",
        "ssh.socket",
        "dbus.socket",
        "dbus.service",
        "multi-user.target",
        "system.slice",
        "systemd-journald.socket",
    ];
    const PROPERTIES: &str = "Id,Names,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,Type,Restart,KillMode,KillSignal,\
        TimeoutStartUSec,TimeoutStopUSec,RemainAfterExit,NotifyAccess,Result,Slice,ControlGroup,Listen,Accept,SocketMode,Triggers,\
        TriggeredBy,CanStart,CanStop,CanReload,CanIsolate,DefaultDependencies,Conditions,ExecMainStatus,NRestarts,Backlog,FileDescriptorName,RequiresMountsFor,KeyringMode,Requires,Conflicts,LimitCORESoft,\
        LimitNPROC,LimitMEMLOCK,UMask,User,Group,Environment,StandardInput,StandardOutput,StandardError,OOMScoreAdjust,Nice";
    let (oracle, subject) = (booted(ground.debian_under(Init::Systemd))?, booted(ground.debian())?);
    let mut faults = String::new();
    for unit in UNITS {
        let command = ["systemctl", "show", unit, "-p", PROPERTIES];
        let (there, here) = (oracle.exec(&command)?.ok()?, subject.exec(&command)?.ok()?);
        let sorted = |text: &str| text.lines().map(in_order).collect::<BTreeSet<_>>();
        let (there, here) = (sorted(&there), sorted(&here));
        there.difference(&here).for_each(|line| faults += &format!("{unit}: systemd has {line}\n"));
        here.difference(&there).for_each(|line| faults += &format!("{unit}: here is {line}\n"));
    }
    ensure!(faults.is_empty(), faults);
    Ok(Outcome::Passed)
}

/// A property whose words are sorted: lists of names come in any order.
fn in_order(line: &str) -> String {
    let (name, value) = line.split_once('=').unwrap_or((line, ""));
    let words: BTreeSet<&str> = value.split(' ').collect();
    format!("{name}={}", words.into_iter().collect::<Vec<_>>().join(" "))
}

/// The image that holds nothing but muster.
fn small(ground: &Ground) -> Result<Outcome> {
    if ground.init == Init::Systemd {
        return Ok(Outcome::Skipped("the small image has no systemd in it".to_string()));
    }
    let container = Container::builder(image::small()?).init("/sbin/init").spawn()?;
    let ask = |address: &str| -> Result<String> {
        let deadline = std::time::Instant::now() + BOOT_LIMIT;
        loop {
            let output = container.exec(&[image::DEMO, "ask", address])?;
            if output.code == 0 && !output.stdout.is_empty() {
                return Ok(output.stdout);
            }
            if std::time::Instant::now() > deadline {
                bail!("{address} is not answered: {}\n{}", output.stderr, container.console());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    for (address, wanted) in [
        ("127.0.0.1:7007", "LISTEN_FDS=3"),
        ("/run/demo.sock", "LISTEN_FDNAMES=demo:demo:demo"),
        ("127.0.0.1:7007", "DEMO_GREETING=hello"),
        ("127.0.0.1:7008", "REMOTE_ADDR=127.0.0.1"),
    ] {
        let answer = ask(address)?;
        ensure!(answer.contains(wanted), "{address}: no {wanted} in\n{answer}");
    }
    ensure!(container.console().contains("Demo Socket"), "no status line:\n{}", container.console());
    Ok(Outcome::Passed)
}

/// What the boot cannot do without fails: the emergency shell comes, and the console says what failed, and what fell with it.
fn emergency(ground: &Ground) -> Result<Outcome> {
    let unit = "[Unit]\nDescription=Breaks\nDefaultDependencies=no\nBefore=local-fs.target\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 5'\n";
    let shell = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'touch /run/shell; exec sleep infinity'\n";
    let container = ground
        .debian()
        .file("etc/systemd/system/breaks.service", unit)
        .file("etc/systemd/system/emergency.service.d/here.conf", shell)
        .link("etc/systemd/system/local-fs.target.requires/breaks.service", "../breaks.service")
        .spawn()?;
    container.until(BOOT_LIMIT, "test -e /run/shell && systemctl is-active emergency.target")?;
    let (console, state) =
        (container.console(), container.sh("systemctl is-system-running; systemctl is-active nginx")?);
    ensure!(state.stdout.starts_with("maintenance\ninactive"), "{}", state.stdout);
    for text in [
        "Failed to start ",
        "breaks.service",
        "systemctl status breaks.service",
        "Dependency failed for ",
        "local-fs.target",
    ] {
        ensure!(console.contains(text), "the console does not say {text:?}:\n{console}");
    }
    Ok(Outcome::Passed)
}

/// While the boot waits for a job, the console says which, and after muster also for which processes, and where they wait.
fn slow_jobs(ground: &Ground) -> Result<Outcome> {
    let unit = "[Unit]\nDefaultDependencies=no\nBefore=basic.target\n\
                [Service]\nType=oneshot\nExecStart=/bin/sleep 1000\nSuccessExitStatus=SIGTERM\n";
    let builder = basic(ground.debian())
        .file("etc/systemd/system/slow.service", unit)
        .link("etc/systemd/system/basic.target.wants/slow.service", "../slow.service");
    let container = builder.spawn()?;
    let wanted: &[&str] = match ground.init {
        Init::Muster => &["A start job is running for slow.service (", "s / no limit): ", " sleep in "],
        Init::Systemd => &["slow.service"],
    };
    let begun = Instant::now();
    while let Some(text) = wanted.iter().find(|text| !container.console().contains(**text)) {
        ensure!(begun.elapsed() < BOOT_LIMIT, "the console does not say {text:?}:\n{}", container.console());
        std::thread::sleep(Duration::from_millis(50));
    }
    container.until(BOOT_LIMIT, "pkill -x sleep")?;
    container.until(BOOT_LIMIT, "systemctl is-system-running --wait | grep -qxE 'running|degraded'")?;
    container.sh("rm /etc/systemd/system/basic.target.wants/slow.service")?.ok()?;
    Ok(Outcome::Passed)
}

fn exit_code(ground: &Ground) -> Result<Outcome> {
    end_by(ground, "systemctl exit 7", Exit::Code(7))
}

/// Runs a command that ends the container, and looks how process 1 ended.
fn end_by(ground: &Ground, command: &str, wanted: Exit) -> Result<Outcome> {
    let mut container = booted(basic(ground.debian()))?;
    container.sh(command)?;
    expect_end(&mut container, wanted)
}

/// SIGRTMIN+4 to process 1 is poweroff.target (systemd(1)).
/// What one unit does to the whole.
fn end_by_unit(ground: &Ground, unit: &str, wanted: Exit) -> Result<Outcome> {
    let file = "/run/systemd/system/end.service";
    let command = format!(
        "printf '{unit}\\n' > {file}; systemctl daemon-reload; systemctl start --no-block end.service"
    );
    end_by(ground, &command, wanted)
}

fn poweroff_signal(ground: &Ground) -> Result<Outcome> {
    let mut container = booted(basic(ground.debian()))?;
    container.exec(&["kill", "-s", "RTMIN+4", "1"])?.ok()?;
    expect_end(&mut container, Exit::Signal(Signal::SIGINT as i32))
}

fn expect_end(container: &mut Container, wanted: Exit) -> Result<Outcome> {
    let exit = container.wait_exit(END_LIMIT)?;
    ensure!(exit == wanted, "ended with {exit:?}, not {wanted:?}:\n{}", container.console());
    Ok(Outcome::Passed)
}
