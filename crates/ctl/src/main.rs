//! `musterctl`: what muster can tell beyond what `systemctl` asks. It talks to PID 1's private socket, and reads.
//!
//! Reading order: `muster_cli` (the command line, declared), `main`, `client` (the connection), `page` (how answers look), one
//! module a command; `verify` and `coverage` need no connection. What a command found out is an [`Answer`]: printed for
//! people, or with `--json` as one JSON value on a line, whose keys are the names of the fields of its type.
#![forbid(unsafe_code)]

mod boot;
mod chart;
mod client;
mod coverage;
mod graph;
mod page;
mod ping;
mod plan;
mod sockets;
mod terminal;
mod top;
mod verify;
mod why;

use client::Failure;
use muster_cli::clap::error::ErrorKind;
use muster_cli::clap::{CommandFactory, Parser};
use muster_cli::{Command, CommandLine};
use page::Page;
use serde::Serialize;
use std::io::{self, Write};
use std::process::ExitCode;

const UNIT: &str = "org.freedesktop.systemd1.Unit";
const OUR_UNIT: &str = "org.muster1.Unit";
const OUR_SOCKET: &str = "org.muster1.Socket";

/// What a command found out.
trait Answer: Serialize {
    /// For people.
    fn print(&self, page: &mut Page<'_>) -> io::Result<()>;
    /// Whether the exit status is 0.
    fn is_good(&self) -> bool {
        true
    }
}

/// How answers are given.
struct Show {
    json: bool,
}

impl Show {
    fn answer(&self, answer: &impl Answer) -> Result<ExitCode, Failure> {
        self.write(answer).map_err(Failure::output)?;
        Ok(if answer.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn write(&self, answer: &impl Answer) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        match self.json {
            true => writeln!(out, "{}", serde_json::to_string(answer)?)?,
            false => answer.print(&mut Page::new(&mut out, page::is_terminal()))?,
        }
        out.flush()
    }
}

fn main() -> ExitCode {
    let line = CommandLine::try_parse().unwrap_or_else(|error| error.exit());
    match command(&line) {
        Ok(code) => code,
        // Who reads has seen enough.
        Err(failure) if failure.status == 0 => ExitCode::SUCCESS,
        Err(Failure { text, status }) => {
            eprintln!("musterctl: {text}");
            ExitCode::from(status)
        }
    }
}

fn command(line: &CommandLine) -> Result<ExitCode, Failure> {
    let show = Show { json: line.json };
    if line.version {
        return show.answer(&Version { version: env!("CARGO_PKG_VERSION") });
    }
    let Some(command) = &line.command else {
        CommandLine::command().error(ErrorKind::MissingSubcommand, "a command is missing").exit()
    };
    match command {
        Command::Why(unit) => show.answer(&why::why(&unit.name())?),
        Command::WhyNot(unit) => show.answer(&plan::why_not(&unit.name())?),
        Command::Plan { verb, unit } => {
            let plan = plan::plan(*verb, &unit.name())?;
            let code = show.answer(&plan)?;
            match plan.refused {
                Some(why) => Err(Failure::refused(format!("this would be refused: {why}"))),
                None => Ok(code),
            }
        }
        Command::Sockets => show.answer(&sockets::sockets()?),
        Command::Top(asked) => top::top(asked, &show),
        Command::Boot(asked) => show.answer(&boot::boot(asked.all, asked.svg.as_deref())?),
        Command::Graph(asked) => show.answer(&graph::graph(asked)?),
        Command::Ping { count } => show.answer(&ping::ping(*count)?),
        Command::Verify { files } => show.answer(&verify::verify(files)),
        Command::Coverage => show.answer(&coverage::coverage()),
    }
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

impl Answer for Version {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        writeln!(page, "musterctl {}", self.version)
    }
}
