//! Cases as text: the files of `tests/cases`. A case is a name, files to add to the image, and commands with what is expected.
//!
//!     === name                     begins a case; its full name is FILE/name
//!     @ machine                    runs in the machine (Debian's kernel in QEMU), where the files are added to what runs
//!     @ daemons                    over the image of images/daemons.txt
//!     @ full                       boots as the image does, not just to basic.target, and with all its generators
//!     @ env NAME=value             a variable in the init's environment
//!     @ word text                  a further argument of the init: a word of a container's kernel command line
//!     @ muster: reason             holds under muster only
//!     @ newer                      holds under muster only: what it is about is newer than the systemd of the oracle
//!     @ report                     adds r.service, which writes what the kernel says of its descriptors to /run/report
//!     + path                       adds a file to the image; its text follows, indented by four spaces
//!     + path -> target             adds a symbolic link
//!     $ command                    runs a shell command; more lines may follow, indented by four spaces
//!     $~ command                   the same, repeated for 30 s at most until all that is expected is true
//!     $% calls command             runs a program (no shell) while these system calls of process 1 and its children are
//!                                  traced; what was traced counts as output too
//!     $! calls:error=E command     runs a shell command while these system calls of process 1 itself fail (strace(1), `inject`)
//!     = code                       its exit status must be this (0 if nothing is said)
//!     > text                       its output, standard error included, must contain this
//!     ! text                       its output must not contain this
//!
//! Lines that begin with `#` are comments.

use crate::ground::{Ground, Init, basic, booted_to, without_idle_generators};
use crate::trace::{self, Trace};
use crate::{Case, Outcome};
use anyhow::{Context, Result, bail, ensure};
use muster_tests::machine::Hands;
use muster_tests::{Container, Output, paths};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The service of a row.
const REPORT: (&str, &str) = (
    "etc/systemd/system/r.service",
    "[Service]\nType=oneshot\nRemainAfterExit=yes\nStandardOutput=truncate:/run/report\nExecStart=/usr/lib/muster-demo options\n",
);

/// What systemd answers to a case that takes it so long is kept (`asked.rs`).
const SLOW: Duration = Duration::from_secs(3);

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default, Clone)]
struct Text {
    name: String,
    /// Its lines as they stand in the file.
    source: String,
    full: bool,
    machine: bool,
    daemons: bool,
    /// Why the oracle cannot be asked.
    ours: Option<String>,
    /// Variables and arguments of the init.
    variables: Vec<(String, String)>,
    words: Vec<String>,
    files: Vec<(String, String)>,
    links: Vec<(String, String)>,
    steps: Vec<Step>,
}

#[derive(Default, Clone)]
struct Step {
    line: usize,
    command: String,
    patient: bool,
    /// System calls to be traced, or to fail, meanwhile.
    trace: Option<Trace>,
    code: i32,
    says: Vec<String>,
    silent: Vec<String>,
}

/// All cases of all files.
pub fn cases() -> Result<Vec<Case>> {
    let dir = paths::workspace().join("tests/cases");
    let mut files: Vec<_> = fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut cases = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|name| name == "txt")) {
        cases.extend(read(file)?.into_iter().map(|text| {
            let (name, machine) = (text.name.clone(), text.machine);
            Case::new(&name, move |ground| text.run(ground)).in_machine(machine)
        }));
    }
    Ok(cases)
}

/// Every row of the reference table of `[Socket]` has a case of its name.
pub fn every_row() -> Case {
    Case::new("rows/every-directive-has-a-case", |_| {
        let table = fs::read_to_string(paths::workspace().join("crates/unit/tests/data/directives.tsv"))?;
        let wanted = table.lines().filter_map(|line| line.strip_prefix("Socket\t"));
        let cases = [read(&file("rows"))?, read(&file("machine"))?].concat();
        let has = |name: &str| cases.iter().any(|case| case.name.rsplit('/').next() == Some(name));
        let missing: Vec<_> = wanted.filter(|name| !has(name)).collect();
        ensure!(missing.is_empty(), "no case for {missing:?}");
        Ok(Outcome::Passed)
    })
}

fn file(stem: &str) -> PathBuf {
    paths::workspace().join(format!("tests/cases/{stem}.txt"))
}

/// The cases of one file, whose commands are run to be looked at: what each says is printed, and nothing is expected.
pub fn shown(file: &Path) -> Result<Vec<Case>> {
    let texts = read(file)?.into_iter();
    Ok(texts.map(|text| Case::new(&text.name.clone(), move |ground| text.show(ground))).collect())
}

fn read(file: &Path) -> Result<Vec<Text>> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    parse(&stem, &fs::read_to_string(file)?).with_context(|| file.display().to_string())
}

/// Where indented lines go.
enum Open {
    Nothing,
    File,
    Command,
}

fn parse(stem: &str, source: &str) -> Result<Vec<Text>> {
    let mut texts: Vec<Text> = Vec::new();
    let mut open = Open::Nothing;
    for (number, line) in source.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("=== ") {
            texts.push(Text { name: format!("{stem}/{name}"), ..Text::default() });
            open = Open::Nothing;
            continue;
        }
        let Some(text) = texts.last_mut() else { continue };
        text.source += &format!("{line}\n");
        let taken = text.take(&mut open, line, number + 1);
        taken.with_context(|| format!("line {}: {line}", number + 1))?;
    }
    Ok(texts)
}

impl Text {
    fn take(&mut self, open: &mut Open, line: &str, number: usize) -> Result<()> {
        if let Some(more) = line.strip_prefix("    ") {
            let target = match open {
                Open::File => self.files.last_mut().map(|(_, content)| content),
                Open::Command => self.steps.last_mut().map(|step| &mut step.command),
                Open::Nothing => None,
            };
            target.context("nothing to add this to")?.push_str(&format!("{more}\n"));
            return Ok(());
        }
        let Some((mark, rest)) = line.split_once(' ') else {
            return if line.is_empty() { Ok(()) } else { bail!("not understood") };
        };
        match mark {
            "@" => match rest {
                "full" => self.full = true,
                "machine" => self.machine = true,
                "daemons" => self.daemons = true,
                "newer" => self.ours = Some("it is newer than this systemd".to_string()),
                "report" => self.files.push((REPORT.0.to_string(), REPORT.1.to_string())),
                _ if rest.starts_with("env ") => {
                    let pair = rest.trim_start_matches("env ").split_once('=').context("a variable")?;
                    self.variables.push((pair.0.to_string(), pair.1.to_string()));
                }
                _ if rest.starts_with("word ") => {
                    self.words.push(rest.trim_start_matches("word ").to_string());
                }
                _ => self.ours = Some(rest.strip_prefix("muster: ").context("not understood")?.to_string()),
            },
            "+" => {
                *open = Open::File;
                match rest.split_once(" -> ") {
                    Some((path, target)) => self.links.push((path.to_string(), target.to_string())),
                    None => self.files.push((rest.to_string(), String::new())),
                }
            }
            "$" | "$~" => {
                *open = Open::Command;
                let command = format!("{rest}\n");
                self.steps.push(Step { line: number, command, patient: mark == "$~", ..Step::default() });
            }
            "$%" | "$!" => {
                *open = Open::Command;
                let (calls, command) = rest.split_once(' ').context("system calls and a command")?;
                let calls = calls.to_string();
                let trace = Some(if mark == "$%" { Trace::Shown(calls) } else { Trace::Failing(calls) });
                let command = format!("{command}\n");
                self.steps.push(Step { line: number, command, trace, ..Step::default() });
            }
            _ => self.steps.last_mut().context("no command yet")?.expect(mark, rest)?,
        }
        Ok(())
    }

    fn run(&self, ground: &Ground) -> Result<Outcome> {
        if let (Some(reason), Init::Systemd) = (&self.ours, ground.init) {
            return Ok(Outcome::Skipped(reason.clone()));
        }
        if let Some(asked) = ground.asked.as_ref()
            && asked.holds(&self.name, &self.source)
        {
            return Ok(Outcome::Skipped(format!("{} answered so before (tests/asked.txt)", asked.version())));
        }
        let begun = Instant::now();
        let outcome = self.at(ground, |place| self.steps.iter().try_for_each(|step| step.run(place)))?;
        let is_slow = self.machine || begun.elapsed() >= SLOW;
        if let (Some(asked), true, Outcome::Passed) = (&ground.asked, is_slow, &outcome) {
            asked.passed(&self.name, &self.source)?;
        }
        Ok(outcome)
    }

    fn show(&self, ground: &Ground) -> Result<Outcome> {
        self.at(ground, |place| {
            for step in &self.steps {
                let output = step.output(place)?;
                println!("$ {}{}{}= {}", step.command, output.stdout, output.stderr, output.code);
            }
            Ok(())
        })
    }

    /// Does something where the case is at home.
    fn at(&self, ground: &Ground, act: impl FnOnce(&Place<'_>) -> Result<()>) -> Result<Outcome> {
        if !self.machine {
            act(&Place::Container(self.boot(ground)?))?;
            return Ok(Outcome::Passed);
        }
        let hands = match ground.machine() {
            Ok(hands) => hands,
            Err(reason) => return Ok(Outcome::Skipped(format!("no machine: {reason}"))),
        };
        hands.sh(&self.move_in())?.ok()?;
        let done = act(&Place::Machine(&hands));
        hands.sh(&self.move_out())?.ok()?;
        done.map(|()| Outcome::Passed)
    }

    /// A script that adds the files to the machine.
    fn move_in(&self) -> String {
        let add = |(path, content): &(String, String)| {
            format!("mkdir -p $(dirname /{path}); cat > /{path} <<'MUSTER-EOF'\n{content}MUSTER-EOF\n")
        };
        self.files.iter().map(add).collect::<String>() + "systemctl daemon-reload\n"
    }

    /// A script that ends the units of the case and removes its files, with what `set-property` wrote for them. The next case
    /// begins with a reload.
    fn move_out(&self) -> String {
        let name = |(path, _): &(String, String)| path.rsplit('/').next().map(str::to_string);
        let units: Vec<String> =
            self.files.iter().filter_map(name).filter(|name| !name.contains('@')).collect();
        let files: String = self.files.iter().map(|(path, _)| format!(" /{path}")).collect();
        let units = units.join(" ");
        format!(
            "systemctl stop {units} 2>/dev/null; rm -f{files}; rm -rf /run/systemd/system.control \
             /etc/systemd/system.control; systemctl reset-failed"
        )
    }

    fn boot(&self, ground: &Ground) -> Result<Container> {
        let mut builder = if self.daemons { ground.daemons()? } else { ground.debian() };
        if !self.full {
            builder = basic(builder);
            if self.words.is_empty() {
                builder = without_idle_generators(builder);
            }
        }
        for (name, value) in &self.variables {
            builder = builder.env(name, value);
        }
        builder = builder.args(self.words.iter().map(String::as_str));
        for (path, content) in &self.files {
            builder = builder.file(path, content);
        }
        for (path, target) in &self.links {
            builder = builder.link(path, target);
        }
        // A boot to a shell for repairs is no whole boot.
        let repairs = self.words.iter().any(|word| matches!(word.as_str(), "rescue" | "emergency"));
        booted_to(builder, if repairs { "maintenance" } else { "running|degraded" })
    }
}

/// Where commands run.
enum Place<'a> {
    Container(Container),
    Machine(&'a Hands),
}

impl Place<'_> {
    fn sh(&self, script: &str) -> Result<Output> {
        match self {
            Self::Container(container) => container.sh(script),
            Self::Machine(hands) => hands.sh(script),
        }
    }
}

impl Step {
    fn expect(&mut self, mark: &str, rest: &str) -> Result<()> {
        match mark {
            "=" => self.code = rest.parse()?,
            ">" => self.says.push(rest.to_string()),
            "!" => self.silent.push(rest.to_string()),
            _ => bail!("not understood"),
        }
        Ok(())
    }

    fn run(&self, place: &Place<'_>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.output(place)?;
            let Some(fault) = self.fault(&output) else { return Ok(()) };
            if !self.patient || Instant::now() > deadline {
                bail!(
                    "line {}: {}\n{fault}\nexit status {}\n{}{}",
                    self.line,
                    self.command.trim_end(),
                    output.code,
                    output.stdout,
                    output.stderr
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn output(&self, place: &Place<'_>) -> Result<Output> {
        match (&self.trace, place) {
            (None, place) => place.sh(&self.command),
            (Some(calls), Place::Container(container)) => {
                trace::during(container, calls, || container.sh(&self.command))
            }
            (Some(_), Place::Machine(_)) => bail!("nothing is traced in a machine"),
        }
    }

    /// What is not as expected, if anything.
    fn fault(&self, output: &Output) -> Option<String> {
        let all = format!("{}{}", output.stdout, output.stderr);
        if output.code != self.code {
            return Some(format!("expected exit status {}", self.code));
        }
        let missing =
            self.says.iter().find(|text| !all.contains(*text)).map(|text| format!("expected: {text}"));
        missing.or_else(|| {
            self.silent.iter().find(|text| all.contains(*text)).map(|text| format!("not expected: {text}"))
        })
    }
}
