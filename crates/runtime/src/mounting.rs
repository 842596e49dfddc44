//! Mounts in the namespace of a service that runs, by a helper: this program again, as `muster --mount-into`.
//!
//! The helper's standard input is the namespace, which PID 1 opens by the number of a process that it has not reaped; the
//! outcome comes back on its standard output. PID 1 itself looks at nothing but /proc.

use crate::processes::Helper;
use crate::turn::Runtime;
use mio::Token;
use muster_bus::Incoming;
use muster_control::{Mounting, MountingOutcome, mounting_reply};
use muster_exec::image::live::Order;
use muster_manager::event::Exit;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode, Stdio};

/// The argument that makes this program the helper.
pub const ARGUMENT: &str = "--mount-into";

impl Runtime {
    /// Mounts what a client asks for.
    pub(crate) fn mount_into(&mut self, client: Token, message: Incoming, mounting: Mounting) {
        match self.start_mounting(&mounting) {
            Ok((pid, answer)) => {
                let asker = Box::new((client, message, mounting));
                self.processes.add_helper(pid, Helper::Mounter { asker, answer });
            }
            Err(outcome) => drop(self.send(client, &mounting_reply(&message, &mounting, outcome))),
        }
    }

    fn start_mounting(&self, mounting: &Mounting) -> Result<(u32, std::io::PipeReader), MountingOutcome> {
        let failed = |error: std::io::Error| MountingOutcome::Failed(error.to_string());
        let namespace = |pid: &str| File::open(format!("/proc/{pid}/ns/mnt")).map_err(failed);
        let (own, theirs) = (namespace("self")?, namespace(&mounting.pid.to_string())?);
        let number = |file: &File| file.metadata().map(|data| data.ino()).map_err(failed);
        if number(&own)? == number(&theirs)? {
            return Err(MountingOutcome::NotPrivate);
        }
        let (answer, output) = std::io::pipe().map_err(failed)?;
        let Mounting { source, destination, read_only, make, image, .. } = mounting.clone();
        let order = Order { source, destination, read_only, make, image };
        let mut command = Command::new(&self.program);
        command.arg(ARGUMENT).args(order.words()).stdin(theirs).stdout(output).current_dir("/");
        let child = command.stderr(Stdio::null()).spawn().map_err(failed)?;
        Ok((child.id(), answer))
    }

    /// The helper is done.
    pub(crate) fn mounter_ended(&mut self, asker: (Token, Incoming, Mounting), said: &str, exit: Exit) {
        let (client, message, mounting) = asker;
        let why = || said.lines().next().unwrap_or("the helper that was to do it failed").to_owned();
        let outcome = match exit {
            Exit::Exited(0) => MountingOutcome::Mounted,
            _ => MountingOutcome::Failed(why()),
        };
        self.send(client, &mounting_reply(&message, &mounting, outcome));
    }
}

/// The helper itself.
pub fn run(words: &[&str]) -> ExitCode {
    let Some(order) = Order::of(words) else { return ExitCode::FAILURE };
    match order.carry_out(std::io::stdin().as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}
