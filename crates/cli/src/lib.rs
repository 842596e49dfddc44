//! The command line of `musterctl`, declared: commands, arguments, help, examples, exit statuses. `musterctl` reads its
//! arguments by it; `cargo xtask man` makes completions and the manual page of it.
//!
//! What must stay true: nothing here does anything, and nothing that runs as PID 1 uses it (or clap).

pub use clap;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::path::PathBuf;

/// What each exit status means: the number, and when it is that.
pub const STATUSES: [(u8, &str); 4] = [
    (0, "It was done, and the answer is good."),
    (
        1,
        "The answer is bad (verify found something, a plan would be refused), or PID 1 refused the question.",
    ),
    (2, "The command line was not understood."),
    (3, "PID 1 could not be asked: it is not muster, or who asks is not root."),
];

/// The end of `musterctl --help`.
const AFTER: &str = "\
Names without a suffix are services: `nginx` is nginx.service.

Examples:
  musterctl why nginx                 what happened to nginx, and why
  musterctl plan stop dbus.socket     what a stop would take down with it
  musterctl top --sort memory         who needs memory, live
  musterctl boot --svg boot.svg       the boot as a chart
  musterctl sockets --json            for scripts

Exit status:
  0  it was done, and the answer is good
  1  the answer is bad (verify found something, a plan would be refused), or PID 1 refused the question
  2  the command line was not understood
  3  PID 1 could not be asked: it is not muster, or you are not root

Colours are shown on a terminal, unless NO_COLOR is set.
`musterctl COMMAND --help` has examples of each command; musterctl(1) has all of it.";

/// Tells what systemctl does not ask: why a unit is in its state, what a request would do, what needs how much
#[derive(Debug, Parser)]
#[command(name = "musterctl", version, disable_version_flag = true, arg_required_else_help = true, after_help = AFTER)]
pub struct CommandLine {
    /// Print the answer as one JSON value on a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print the version
    #[arg(short = 'V', long)]
    pub version: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Why a unit is in its state
    ///
    /// Tells the last things that happened to a unit, each with its cause (a client, a dependency, traffic), and what of its
    /// files has no effect or was not understood.
    #[command(after_long_help = "\
Examples:
  musterctl why nginx
  musterctl why --json cups.socket | jq -r '.causes[-1].text'")]
    Why(Unit),
    /// What keeps a unit from being up
    ///
    /// Looks at its file, at its job and what that waits for, at conditions, limits and other units.
    #[command(after_long_help = "\
Examples:
  musterctl why-not nginx")]
    WhyNot(Unit),
    /// The jobs that a request would bring; nothing is run
    ///
    /// Shows the jobs in order, with what asks for each, and cycles with the lines that make them. Jobs of one number would
    /// run at once. The exit status is 1 where the request would be refused.
    #[command(after_long_help = "\
Examples:
  musterctl plan start nginx
  musterctl plan isolate rescue.target")]
    Plan {
        /// What would be asked for
        verb: Verb,
        /// The unit.
        #[command(flatten)]
        unit: Unit,
    },
    /// Every listening address, what waits there, and what it starts
    ///
    /// One line for each descriptor: what waits in the kernel's queue, how many connections were accepted, refused by a
    /// limit, served by an instance that failed, how many are open, how often a limit paused it. Below it are its options as
    /// the kernel has them.
    #[command(after_long_help = "\
Examples:
  musterctl sockets
  musterctl sockets --json | jq '.[] | select(.waiting > 0) | .unit'")]
    Sockets,
    /// Units by CPU, memory, tasks and waiting connections, live
    ///
    /// Numbers are those of the units' cgroups as the kernel has them; 100 % is one processor. A slice's are those of all that
    /// is in it. On a terminal the table is renewed until `q` is pressed; `c`, `m`, `t`, `w` and `n` sort it by CPU, memory,
    /// tasks, what waits, and name. Elsewhere each interval prints a table (with --json, a line).
    #[command(after_long_help = "\
Examples:
  musterctl top
  musterctl top --once --sort memory --lines 5
  musterctl top --once --json | jq '.units[] | select(.cpu_percent > 50) | .unit'")]
    Top(Top),
    /// What took how long at boot
    ///
    /// Shows the phases of the boot, what its target waited for (each unit began when the one below it was ready), and the
    /// units that took longest. Units that began again after the boot are left out, and counted.
    #[command(after_long_help = "\
Examples:
  musterctl boot
  musterctl boot --svg boot.svg
  musterctl boot --json | jq '.units[] | select(.took_usec > 1000000) | .unit'")]
    Boot(Boot),
    /// What a unit depends on, as a tree or for dot(1)
    ///
    /// Each unit is shown once with all below it; where it comes again it says \"above\". A line says how the unit is wanted
    /// (Requires, Wants and so on), and \"after\" where the one above it also waits for it.
    #[command(after_long_help = "\
Examples:
  musterctl graph multi-user.target --depth 2
  musterctl graph dbus.service --reverse
  musterctl graph basic.target --dot | dot -Tsvg > basic.svg")]
    Graph(Graph),
    /// How long PID 1 takes to answer
    ///
    /// Asks a hundred times a second, and prints the median, the time that 99 % did not exceed, and the longest, in
    /// microseconds.
    #[command(after_long_help = "\
Examples:
  musterctl ping
  musterctl ping 1000 --json")]
    Ping {
        /// How often to ask
        #[arg(default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        count: u32,
    },
    /// What PID 1 would say of unit files
    ///
    /// Reads files as PID 1 does, with the drop-ins beside them and those of the system, and needs no PID 1. Each diagnostic
    /// has a code, its place, the line and what was expected. The exit status is 1 if there is any. A file named system.conf,
    /// or one in a directory system.conf.d, is read as the manager's own configuration.
    #[command(after_long_help = "\
Examples:
  musterctl verify ./nginx.service
  musterctl verify --json /etc/systemd/system/*.service | jq -r '.[].message'")]
    Verify {
        /// Unit files
        #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
        files: Vec<String>,
    },
    /// Every directive, and whether it has an effect in this version
    ///
    /// A directive is applied, stored (it is read and shown, and has no effect) or ignored (systemd ignores it as well). What
    /// is not applied says why. The last ones are those of the section X-Muster (muster.unit(5)).
    #[command(after_long_help = "\
Examples:
  musterctl coverage | grep stored")]
    Coverage,
}

/// A unit.
#[derive(Debug, Args)]
pub struct Unit {
    /// The unit's name
    pub unit: String,
}

impl Unit {
    /// The full name: without the suffix of a unit type it is a service.
    pub fn name(&self) -> String {
        let suffix = self.unit.rsplit_once('.').map(|(_, suffix)| suffix);
        match suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix)) {
            true => self.unit.clone(),
            false => format!("{}.service", self.unit),
        }
    }
}

/// What unit names end with (systemd.unit(5)).
const SUFFIXES: [&str; 11] = [
    "service",
    "socket",
    "target",
    "mount",
    "automount",
    "swap",
    "timer",
    "path",
    "slice",
    "scope",
    "device",
];

/// What can be asked of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Verb {
    Start,
    Stop,
    Restart,
    Isolate,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Measure for one interval, print, and end
    #[arg(long)]
    pub once: bool,
    /// How long to measure, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    pub interval: f64,
    /// What to sort by
    #[arg(long, value_name = "BY", value_enum, default_value_t = Sort::Cpu)]
    pub sort: Sort,
    /// How many units to show; without it all, or as many as the terminal has room for
    #[arg(long, value_name = "COUNT")]
    pub lines: Option<usize>,
}

/// What `top` sorts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Sort {
    Cpu,
    Memory,
    Tasks,
    Waiting,
    Name,
}

/// The shortest and the longest interval, in seconds.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let bounds = format!("not between {} and {}", INTERVALS.start(), INTERVALS.end());
    INTERVALS.contains(&seconds).then_some(seconds).ok_or(bounds)
}

/// Arguments of `boot`.
#[derive(Debug, Args)]
pub struct Boot {
    /// Show all units, not only the slowest
    #[arg(long)]
    pub all: bool,
    /// Write a chart that browsers show
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
}

/// Arguments of `graph`.
#[derive(Debug, Args)]
pub struct Graph {
    /// The unit.
    #[command(flatten)]
    pub unit: Unit,
    /// Show what depends on the unit
    #[arg(long)]
    pub reverse: bool,
    /// Show what the unit waits for (After=), wanted or not
    #[arg(long)]
    pub order: bool,
    /// How far to go
    #[arg(long, value_name = "LEVELS")]
    pub depth: Option<usize>,
    /// Print the graph in the language of dot(1)
    #[arg(long, conflicts_with = "json")]
    pub dot: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declaration_is_sound() {
        CommandLine::command().debug_assert();
        for (status, _) in STATUSES {
            assert!(AFTER.contains(&format!("\n  {status}  ")), "{status}");
        }
    }

    #[test]
    fn every_command_has_examples() {
        for command in CommandLine::command().get_subcommands() {
            let after = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("musterctl {}", command.get_name());
            assert!(after.contains(&example), "{}: {after}", command.get_name());
        }
    }

    #[test]
    fn names_without_a_suffix_are_services() {
        let name = |unit: &str| Unit { unit: unit.to_owned() }.name();
        assert_eq!(name("nginx"), "nginx.service");
        assert_eq!(name("a.b"), "a.b.service");
        assert_eq!(name("x@1.socket"), "x@1.socket");
    }

    #[test]
    fn json_goes_before_and_after() {
        for line in ["musterctl --json why a", "musterctl why a --json", "musterctl why --json a"] {
            let parsed = CommandLine::try_parse_from(line.split(' ')).map_err(|error| error.to_string());
            assert!(parsed.is_ok_and(|parsed| parsed.json), "{line}");
        }
    }
}
