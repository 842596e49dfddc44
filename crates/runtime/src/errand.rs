//! Work on files that may block, done by a helper: this program again, as `muster --errand`.
//!
//! The errand goes to the helper's standard input and its outcome comes back on standard output, each a value in memory
//! that is a file (memfd), so that neither side waits for the other. One errand runs at a time: two clients never change
//! the same links together, and what they ask is done in the order in which they asked. A disk that hangs holds up the
//! errands behind it, and nothing else.

use crate::processes::Helper;
use crate::turn::Runtime;
use mio::Token;
use muster_bus::Incoming;
use muster_control::{Refusal, UnitFileOperation, UnitFileOutcome};
use muster_exec::pass::memory;
use muster_manager::effect::{BusSignal, QueryId};
use muster_manager::event::{Event, WriteError};
use muster_unit::UnitName;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, Write};
use std::process::{Command, ExitCode, Stdio};

/// At most this many errands wait; further ones are refused.
const WAITING_MAX: usize = 4096;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Errand {
    /// Set the time of a stamp file, realtime in microseconds, or read it.
    #[allow(missing_docs)]
    Stamp { path: String, set_usec: Option<u64> },
    /// Write these files: path and text.
    Write(Vec<(String, String)>),
    /// Look at unit files, or change links to them; `path` are the directories that units are loaded from.
    #[allow(missing_docs)]
    UnitFiles { path: Vec<String>, operation: UnitFileOperation },
}

/// The outcome of an errand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Done {
    /// The time of a stamp file; nothing where there is none.
    Stamp(Option<u64>),
    /// All files are there, or none of them.
    Written(Result<(), WriteError>),
    /// The answer to a client.
    UnitFiles(Result<UnitFileOutcome, Refusal>),
}

/// Who waits for it.
#[derive(Debug)]
enum Asker {
    Manager(QueryId),
    /// A timer; whether it waits for an answer.
    Timer(UnitName, bool),
    Client {
        client: Token,
        message: Box<Incoming>,
        operation: UnitFileOperation,
    },
}

impl Errands {
    /// The calls that they are done for.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (Token, &Incoming)> {
        let askers = self.running.iter().chain(self.waiting.iter().map(|(_, asker)| asker));
        askers.filter_map(|asker| match asker {
            Asker::Client { client, message, .. } => Some((*client, message.as_ref())),
            Asker::Manager(_) | Asker::Timer(..) => None,
        })
    }
}

/// The errands, the first of which is being done.
#[derive(Debug, Default)]
pub struct Errands {
    waiting: VecDeque<(Errand, Asker)>,
    running: Option<Asker>,
}

impl Runtime {
    /// Writes files for the manager. Those below /run are in memory, and written at once.
    pub(crate) fn write_files(&mut self, query: QueryId, files: Vec<(String, String)>) {
        if files.iter().all(|(path, _)| path.starts_with("/run/")) {
            let result = crate::files::write_all(&files);
            return self.follow_up.push_back(Event::FilesWritten { query, result });
        }
        self.take_errand(Errand::Write(files), Asker::Manager(query));
    }

    /// Sets the stamp of a timer, or reads it.
    pub(crate) fn stamp(&mut self, unit: UnitName, path: String, set_usec: Option<u64>) {
        self.take_errand(Errand::Stamp { path, set_usec }, Asker::Timer(unit, set_usec.is_none()));
    }

    /// What a client asks of unit files.
    pub(crate) fn unit_files(&mut self, client: Token, message: Incoming, operation: UnitFileOperation) {
        let errand = Errand::UnitFiles { path: self.index.path().to_vec(), operation: operation.clone() };
        self.take_errand(errand, Asker::Client { client, message: Box::new(message), operation });
    }

    fn take_errand(&mut self, errand: Errand, asker: Asker) {
        if self.errands.waiting.len() >= WAITING_MAX {
            return self.errand_done(asker, failed(&errand, "Too many operations on files are waiting."));
        }
        self.errands.waiting.push_back((errand, asker));
        self.next_errand();
    }

    fn next_errand(&mut self) {
        while self.errands.running.is_none() {
            let Some((errand, asker)) = self.errands.waiting.pop_front() else { return };
            match self.start_errand(&errand) {
                Ok((pid, answer)) => {
                    self.errands.running = Some(asker);
                    self.processes.add_helper(pid, Helper::Clerk { errand, answer });
                }
                Err(error) => {
                    let done = failed(&errand, &format!("A helper could not be started: {error}"));
                    self.errand_done(asker, done);
                }
            }
        }
    }

    fn start_errand(&self, errand: &Errand) -> std::io::Result<(u32, File)> {
        let (mut input, answer) = (memory(c"muster-errand")?, memory(c"muster-errand")?);
        let mut bytes = Vec::new();
        ciborium::into_writer(errand, &mut bytes).map_err(std::io::Error::other)?;
        input.write_all(&bytes)?;
        input.rewind()?;
        let mut command = Command::new(&self.program);
        command.arg("--errand").stdin(input).stdout(answer.try_clone()?).current_dir("/");
        Ok((command.stderr(Stdio::null()).spawn()?.id(), answer))
    }

    /// The helper ended.
    pub(crate) fn clerk_ended(&mut self, errand: &Errand, mut answer: File) {
        let read = answer.rewind().ok().and_then(|()| ciborium::from_reader(answer).ok());
        let done =
            read.unwrap_or_else(|| failed(errand, "The helper that was to do it ended without an answer."));
        if let Some(asker) = self.errands.running.take() {
            self.errand_done(asker, done);
        }
        self.next_errand();
        self.work_off();
    }

    fn errand_done(&mut self, asker: Asker, done: Done) {
        match (asker, done) {
            (Asker::Manager(query), Done::Written(result)) => {
                self.follow_up.push_back(Event::FilesWritten { query, result });
            }
            (Asker::Timer(unit, true), Done::Stamp(at_usec)) => {
                self.follow_up.push_back(Event::StampRead { unit, at_usec });
            }
            (Asker::Client { client, message, operation }, Done::UnitFiles(outcome)) => {
                let changed =
                    matches!(&outcome, Ok(UnitFileOutcome::Changes { changes, .. }) if !changes.is_empty());
                if changed {
                    // New links count for later questions at once; units take them over with the next reload.
                    self.index = muster_unit::Index::scan(self.index.path().to_vec());
                    self.announce(&BusSignal::UnitFilesChanged);
                }
                let reply = muster_control::unit_files_reply(&message, &operation, &outcome);
                self.send(client, &reply);
            }
            (Asker::Timer(..) | Asker::Manager(_), _) | (Asker::Client { .. }, _) => {}
        }
    }
}

/// The outcome of an errand that was not done.
fn failed(errand: &Errand, message: &str) -> Done {
    match errand {
        Errand::Stamp { .. } => Done::Stamp(None),
        Errand::Write(_) => Done::Written(Err(WriteError {
            name: "org.freedesktop.DBus.Error.Failed".to_owned(),
            message: message.to_owned(),
        })),
        Errand::UnitFiles { .. } => Done::UnitFiles(Err(Refusal::failed(message))),
    }
}

/// What the helper process does.
pub fn run() -> ExitCode {
    let Ok(errand) = ciborium::from_reader::<Errand, _>(std::io::stdin().lock()) else {
        return ExitCode::FAILURE;
    };
    let done = match errand {
        Errand::Stamp { path, set_usec } => Done::Stamp(crate::files::stamp(&path, set_usec)),
        Errand::Write(files) => Done::Written(crate::files::write_all(&files)),
        Errand::UnitFiles { path, operation } => Done::UnitFiles(crate::unit_files::run(path, &operation)),
    };
    match ciborium::into_writer(&done, std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
