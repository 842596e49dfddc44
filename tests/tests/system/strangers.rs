//! Every method that there is, called over the system bus by somebody who may do nothing, with odd arguments: nothing changes,
//! and process 1 lives.

use crate::ground::{Ground, basic, booted};
use crate::{Case, Outcome};
use anyhow::{Context, Result, ensure};
use muster_tests::Container;

/// What systemd 257 has: interface, kind, name, what goes in, what comes out.
const MEMBERS: &str = include_str!("../../../crates/control/testdata/members-257.txt");
const ROUNDS: usize = 3;
const CALL: &str =
    "setpriv --reuid=65534 --regid=65534 --clear-groups busctl --timeout=9 call org.freedesktop.systemd1";

/// What a stranger must not be able to change.
const WORLD: &str = "systemctl list-units --plain --no-legend --state=active,failed | awk '{print $1, $3, $4}' | sort; \
    systemctl list-jobs; systemctl get-default; systemctl show odd.service -p MainPID,Description,NRestarts; \
    systemctl show -p Environment,LogLevel,LogTarget,ShowStatus,ServiceWatchdogs,ExitCode; systemctl list-unit-files | sort; \
    find /etc/systemd /run/systemd/system /run/systemd/transient /run/systemd/system.control -newer /run/before; \
    cut -d' ' -f22 /proc/1/stat";

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    vec![Case::new("bus/strangers", strangers)]
}

fn strangers(ground: &Ground) -> Result<Outcome> {
    let unit =
        ("etc/systemd/system/odd.service", "[Service]\nRestart=always\nExecStart=/bin/sleep infinity\n");
    let container = booted(basic(ground.debian()).file(unit.0, unit.1))?;
    container.sh("systemctl start odd.service dbus.service; touch /run/before; sleep 0.05")?.ok()?;
    let before = container.sh(WORLD)?.ok()?;
    ensure!(before.contains("odd.service active running"), "{before}");
    let methods: Vec<&str> = MEMBERS.lines().filter(|line| line.contains(" method ")).collect();
    ensure!(methods.len() > 100, "only {} methods", methods.len());
    for round in 0..ROUNDS {
        for some in methods.chunks(40) {
            let script: Vec<String> = some.iter().map(|line| call(line, round)).collect::<Result<_>>()?;
            container.sh(&script.join("\n"))?;
        }
    }
    let set = CALL.replace(" call ", " set-property ");
    container.sh(&format!(
        "for what in 'LogLevel s debug' 'LogTarget s null' 'ServiceWatchdogs b no' 'RuntimeWatchdogUSec t 5'; do \
         {set} /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager $what; done"
    ))?;
    same(&container, &before)?;
    container.sh("systemctl restart odd.service && systemctl is-active odd.service")?.ok()?;
    Ok(Outcome::Passed)
}

fn same(container: &Container, before: &str) -> Result<()> {
    let after = container.sh(WORLD)?.ok()?;
    let changed: Vec<&str> =
        after.lines().filter(|line| !before.lines().any(|known| known == *line)).collect();
    let gone: Vec<&str> = before.lines().filter(|line| !after.lines().any(|known| known == *line)).collect();
    ensure!(changed.is_empty() && gone.is_empty(), "was:\n{}\nis:\n{}", gone.join("\n"), changed.join("\n"));
    Ok(())
}

/// The call of a method, as a line of shell.
fn call(line: &str, round: usize) -> Result<String> {
    let [interface, _, name, input, _] = line.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("not understood: {line}")
    };
    let object = match interface {
        "Manager" => "",
        "Job" => "/job/1",
        "Unit" | "Service" => "/unit/odd_2eservice",
        "Scope" => "/unit/init_2escope",
        "Slice" => "/unit/system_2eslice",
        "Socket" => "/unit/dbus_2esocket",
        "Mount" => "/unit/_2d_2emount",
        "Swap" => "/unit/odd_2eswap",
        other => anyhow::bail!("no object for {other}"),
    };
    let mut words =
        format!("{CALL} /org/freedesktop/systemd1{object} org.freedesktop.systemd1.{interface} {name}");
    if input != "-" {
        words += &format!(" '{input}'");
        let mut rest = input;
        while !rest.is_empty() {
            let (kind, more) = rest.split_at(length(rest).with_context(|| format!("signature {input}"))?);
            words +=
                &format!(" {}", odd(kind, round).with_context(|| format!("no argument of type {kind}"))?);
            rest = more;
        }
    }
    Ok(words)
}

/// How long the first complete type of a signature is.
fn length(signature: &str) -> Option<usize> {
    match signature.chars().next()? {
        'a' => Some(length(&signature[1..])? + 1),
        '(' => {
            let mut depth = 0;
            signature.char_indices().find_map(|(at, c)| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                (depth == 0).then_some(at + 1)
            })
        }
        _ => Some(1),
    }
}

/// An argument that is one by its type.
fn odd(kind: &str, round: usize) -> Option<&'static str> {
    let all: [&str; ROUNDS] = match kind {
        "s" => ["''", "odd.service", "'../../../etc/passwd\n[Service]\nExecStart=/bin/sh'"],
        "b" => ["no", "yes", "yes"],
        "y" => ["0", "7", "255"],
        "u" => ["0", "1", "4294967295"],
        "i" => ["0", "9", "-2147483648"],
        "t" => ["0", "1", "18446744073709551615"],
        "h" => ["0", "1", "2"],
        "ay" => ["0", "16 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", "2 255 0"],
        "as" => ["0", "1 odd.service", "3 '' /etc/passwd A=B"],
        "au" => ["0", "1 1", "2 0 4294967295"],
        "ah" => ["0", "1 0", "0"],
        "a(ss)" => ["0", "1 a b", "1 '' ''"],
        "a(sv)" => ["0", "1 Description s odd", "2 '' v s x ExecStart s /bin/sh"],
        "a(sa(sv))" => ["0", "1 odd.service 0", "1 '' 1 CPUWeight t 18446744073709551615"],
        _ => return None,
    };
    all.get(round).copied()
}
