//! What helps people at the command line: manual pages, and completions for bash, zsh and fish.
//!
//! musterctl's are made from its declaration (`muster_cli`); docs/man holds the pages that are written by hand. What must stay
//! true: the declaration is the only place where a command or an option of musterctl is described.

use anyhow::{Context, Result, ensure};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, line_break, roman};
use muster_cli::clap::{Command, CommandFactory};
use muster_cli::{CommandLine, STATUSES};
use muster_tests::paths;
use std::fs;
use std::path::{Path, PathBuf};

/// Where each generated file lies, and what makes it.
type Maker = fn() -> Result<String>;
const GENERATED: [(&str, Maker); 4] = [
    ("usr/share/man/man1/musterctl.1", musterctl),
    ("usr/share/bash-completion/completions/musterctl", bash),
    ("usr/share/zsh/vendor-completions/_musterctl", zsh),
    ("usr/share/fish/vendor_completions.d/musterctl.fish", fish),
];

/// Pages that are written by hand, and where they lie.
const WRITTEN: [(&str, &str); 2] = [
    ("docs/man/muster.8", "usr/share/man/man8/muster.8"),
    ("docs/man/muster.unit.5", "usr/share/man/man5/muster.unit.5"),
];

/// Writes all of it below a root directory, as it lies in a system; where.
pub fn write(root: &Path) -> Result<Vec<PathBuf>> {
    let written = WRITTEN.iter().map(|(from, to)| {
        let from = paths::workspace().join(from);
        fs::read_to_string(&from).map(|text| (*to, text)).with_context(|| from.display().to_string())
    });
    let generated = GENERATED.iter().map(|(to, make)| make().map(|text| (*to, text)));
    let place = |file: Result<(&str, String)>| {
        let (to, text) = file?;
        let path = root.join(to);
        fs::create_dir_all(path.parent().context("a path below the root")?)?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    };
    written.chain(generated).map(place).collect()
}

/// As [`write`], and says where each lies.
pub fn install(root: &Path) -> Result<()> {
    write(root)?.iter().for_each(|path| println!("{}", path.display()));
    Ok(())
}

/// musterctl(1): clap_mangen's head and options, and a section of each command in the same page.
fn musterctl() -> Result<String> {
    let command = CommandLine::command();
    let version = format!("muster {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone().disable_help_subcommand(true))
        .title("MUSTERCTL")
        .source(version)
        .manual("muster");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    let mut page = String::from_utf8(page)?;
    page += &description();
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    page += body(&String::from_utf8(options)?)?;
    page += &section("COMMANDS");
    for command in command.get_subcommands() {
        page += &of_command(command)?;
    }
    page += &tail();
    Ok(page)
}

fn description() -> String {
    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([
        bold("musterctl"),
        roman(" tells what "),
        bold("systemctl"),
        roman("(1) does not ask. It reads, and changes nothing; units are started and stopped with systemctl. It talks to the "),
        roman("private socket of PID 1, so that it works without a message bus, and for root alone. Names without a suffix are "),
        roman("services."),
    ]);
    roff.to_roff()
}

/// The lines of what clap_mangen rendered, without what it says at the head of each piece.
fn body(rendered: &str) -> Result<&str> {
    let at = rendered.find(".SH ").context("a section")?;
    Ok(&rendered[at..])
}

fn section(title: &str) -> String {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    roff.to_roff()
}

fn of_command(command: &Command) -> Result<String> {
    let mut roff = Roff::new();
    let arguments = command.get_positionals().map(|argument| {
        let name = argument.get_id().as_str().to_uppercase();
        if argument.is_required_set() { format!(" {name}") } else { format!(" [{name}]") }
    });
    let title = format!("{}{}", command.get_name(), arguments.collect::<String>());
    roff.control("SS", [title.as_str()]);
    let about = command.get_long_about().or(command.get_about()).context("every command says what it is")?;
    paragraphs(&mut roff, &about.to_string());
    let mut text = roff.to_roff();
    if command.get_arguments().next().is_some() {
        // Options of all commands are told once, and are there for what speaks of them.
        let whole = CommandLine::command();
        let common = whole.get_arguments().filter(|option| option.is_global_set());
        let alone =
            command.clone().disable_help_flag(true).args(common.map(|option| option.clone().hide(true)));
        let mut options = Vec::new();
        Man::new(alone).render_options_section(&mut options)?;
        text += body(&String::from_utf8(options)?)?.trim_start_matches(".SH OPTIONS\n");
    }
    let examples = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    roff.control("PP", []);
    roff.text([roman("Examples:")]);
    roff.control("PP", []);
    roff.control("nf", []);
    for line in examples.lines().skip(1) {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    Ok(text + &roff.to_roff())
}

fn paragraphs(roff: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n") {
        roff.control("PP", []);
        roff.text([roman(paragraph)]);
    }
}

fn tail() -> String {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (status, when) in STATUSES {
        roff.control("TP", []);
        roff.text([bold(status.to_string())]);
        roff.text([roman(when)]);
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, what) in [
        (
            "NO_COLOR",
            "Where it is set and not empty, no colours are shown. Without it they are shown on a terminal.",
        ),
        ("SYSTEMD_UNIT_PATH", "Where verify looks for the other unit files of the system."),
    ] {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(what)]);
    }
    roff.control("SH", ["FILES"]);
    roff.control("TP", []);
    roff.text([italic("/run/systemd/private")]);
    roff.text([roman("The private socket of PID 1."), line_break()]);
    roff.control("SH", ["SEE ALSO"]);
    let pages = [("muster", "8"), ("muster.unit", "5"), ("systemctl", "1"), ("systemd.unit", "5")];
    for (index, (name, number)) in pages.iter().enumerate() {
        let comma = if index + 1 < pages.len() { "," } else { "" };
        roff.text([bold(*name), roman(format!("({number}){comma}"))]);
    }
    roff.to_roff()
}

fn generated(shell: Shell) -> Result<String> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "musterctl", &mut text);
    Ok(String::from_utf8(text)?)
}

/// The names of units, as the shells ask for them.
const UNITS: &str = "systemctl list-units --all --full --plain --no-legend 2>/dev/null | while read -r unit rest; do echo \"$unit\"; done";

/// The commands that take a unit.
fn of_units() -> Vec<String> {
    let takes = |command: &&Command| command.get_positionals().any(|argument| argument.get_id() == "unit");
    let command = CommandLine::command();
    command.get_subcommands().filter(takes).map(|command| command.get_name().to_owned()).collect()
}

/// clap_complete's, which knows commands and options; and the names of units, at the head of what it offers for a command.
fn bash() -> Result<String> {
    let mut text = generated(Shell::Bash)?;
    for name in of_units() {
        let label = format!("musterctl__subcmd__{}", name.replace('-', "__subcmd__"));
        let at = format!(" {label})\n            opts=\"");
        ensure!(text.contains(&at), "the completion for bash has no place for units of {name}");
        text = text.replace(&at, &format!("{at}$(_musterctl_units) "));
    }
    Ok(format!("_musterctl_units() {{\n    {UNITS}\n}}\n\n{text}"))
}

fn zsh() -> Result<String> {
    let text = generated(Shell::Zsh)?;
    let lines = text.lines().map(|line| match line.starts_with("':unit -- ") {
        true => line.replace(":_default'", ":_musterctl_units'"),
        false => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    ensure!(text.contains(":_musterctl_units'"), "the completion for zsh has no place for units");
    let (first, rest) = text.split_once('\n').context("a line #compdef")?;
    let function = format!(
        "_musterctl_units() {{\n    local -a units\n    units=(\"${{(@f)$({UNITS})}}\")\n    compadd -a units\n}}\n"
    );
    Ok(format!("{first}\n\n{function}{rest}"))
}

fn fish() -> Result<String> {
    let units = UNITS.split(" |").next().unwrap_or_default();
    Ok(format!(
        "{}complete -c musterctl -n \"__fish_seen_subcommand_from {}\" -f -a \"({units} | string replace -r ' .*' '')\"\n",
        generated(Shell::Fish)?,
        of_units().join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_tests::image;

    #[test]
    fn the_page_has_every_command_and_option() -> Result<()> {
        let page = musterctl()?;
        for command in CommandLine::command().get_subcommands() {
            let name = command.get_name();
            assert!(page.contains(&format!("musterctl {name}").replace('-', "\\-")), "{name}");
            for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
                assert!(page.contains(&format!("\\-\\-{option}")), "{name} --{option}");
            }
        }
        Ok(())
    }

    #[test]
    fn completions_know_units() -> Result<()> {
        for (make, word) in [
            (bash as Maker, "$(_musterctl_units)"),
            (zsh as Maker, ":_musterctl_units'"),
            (fish as Maker, "from why why-not"),
        ] {
            assert!(make()?.contains(word), "{word}");
        }
        Ok(())
    }

    /// Runs a program of the host on what [`write`] wrote; nothing where it is not here.
    fn run(program: &str, arguments: &[&str], name: &str) -> Result<Option<(String, String)>> {
        if !image::has_program(program) {
            eprintln!("skipped: {program} is not installed");
            return Ok(None);
        }
        let root = std::env::temp_dir().join(format!("muster-{name}-{}", std::process::id()));
        write(&root)?;
        let output = std::process::Command::new(program).args(arguments).current_dir(&root).output()?;
        fs::remove_dir_all(&root)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Some((text(output.stdout), text(output.stderr))))
    }

    #[test]
    fn pages_are_good_roff() -> Result<()> {
        let pages = ["man1/musterctl.1", "man5/muster.unit.5", "man8/muster.8"]
            .map(|page| format!("usr/share/man/{page}"));
        let arguments: Vec<&str> =
            ["-man", "-ww", "-z"].into_iter().chain(pages.iter().map(String::as_str)).collect();
        if let Some((_, complaints)) = run("groff", &arguments, "roff")? {
            assert!(complaints.is_empty(), "{complaints}");
        }
        Ok(())
    }

    #[test]
    fn shells_read_the_completions() -> Result<()> {
        for (shell, file) in [
            ("bash", "usr/share/bash-completion/completions/musterctl"),
            ("zsh", "usr/share/zsh/vendor-completions/_musterctl"),
            ("fish", "usr/share/fish/vendor_completions.d/musterctl.fish"),
        ] {
            if let Some((_, complaints)) = run(shell, &["-n", file], shell)? {
                assert!(complaints.is_empty(), "{complaints}");
            }
        }
        Ok(())
    }

    #[test]
    fn bash_completes_commands_options_and_units() -> Result<()> {
        const SCRIPT: &str = r#"
            systemctl() { printf '%s loaded\n' dbus.service dbus.socket nginx.service; }
            source usr/share/bash-completion/completions/musterctl
            try() { COMP_WORDS=(musterctl "$@"); COMP_CWORD=$#; _musterctl musterctl "${!#}" x; echo "${COMPREPLY[@]}"; }
            try wh; try why db; try top --so; try plan start ng"#;
        if let Some((said, complaints)) = run("bash", &["-c", SCRIPT], "complete")? {
            assert_eq!(
                said, "why why-not\ndbus.service dbus.socket\n--sort\nnginx.service\n",
                "{complaints}"
            );
        }
        Ok(())
    }
}
