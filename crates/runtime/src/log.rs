//! PID 1's own log: to the journal by its native protocol, or to the printer that takes its place; until there is one, to the kernel log, or in a container,
//! whose kernel log is not its own, warnings and worse to the console.
//!
//! Never waits: a record that the journal cannot take now is queued (at most `BACKLOG_MAX`) and sent before the next one.
//! Records beyond that are counted as lost, and the journal is told how many.

use muster_manager::effect::{Level, LogRecord, StatusMark};
use muster_unit::diagnostic::without_numbers;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, send, sendto, socket};
use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

const JOURNAL: &str = "/run/systemd/journal/socket";
/// At most this many records wait for the journal.
const BACKLOG_MAX: usize = 1024;

/// Where records go.
#[derive(Debug)]
pub struct Log {
    socket: Option<OwnedFd>,
    backlog: VecDeque<Vec<u8>>,
    /// Records that found no room there.
    lost: u64,
    kmsg: Option<std::fs::File>,
    /// Who prints logs, where there is no journal.
    printer: Option<OwnedFd>,
    /// The console, for status lines too.
    pub console: crate::console::Console,
}

/// How the journal takes what is sent to it.
#[derive(PartialEq, Eq)]
enum Journal {
    /// The journal takes records.
    Ready,
    /// The journal is busy; records are queued.
    Busy,
    /// It is not there.
    Absent,
}

impl Log {
    /// A log. With `kmsg`, what the journal does not get yet goes to the kernel log, else to the console.
    pub fn open(kmsg: bool) -> Log {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let kmsg = kmsg.then(|| std::fs::OpenOptions::new().write(true).open("/dev/kmsg").ok()).flatten();
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None).ok();
        let console = crate::console::Console::default();
        Log { socket, backlog: VecDeque::new(), lost: 0, kmsg, printer: None, console }
    }

    /// From now on records are printed, and status lines are not shown.
    pub fn print_by(&mut self, printer: OwnedFd) {
        self.printer = Some(printer);
    }

    /// Nobody prints them any more.
    pub fn print_no_more(&mut self) {
        self.printer = None;
    }

    /// Shows a status line.
    pub fn show(&mut self, mark: StatusMark, message: &str) {
        // What is printed has the records themselves.
        if self.printer.is_none() {
            self.console.show(mark, message);
        }
    }

    /// Writes one record.
    pub fn write(&mut self, record: &LogRecord, invocation: Option<&str>) {
        if self.printer.is_some() {
            return self.push(encode(record, None));
        }
        if self.send() == Journal::Absent {
            self.write_early(record);
        }
        self.push(encode(record, invocation));
    }

    fn push(&mut self, record: Vec<u8>) {
        self.backlog.push_back(record);
        if self.backlog.len() > BACKLOG_MAX {
            self.backlog.pop_front();
            self.lost = self.lost.saturating_add(1);
        }
        self.send();
    }

    /// Writes one record to the console, and nowhere else.
    pub fn write_console(&mut self, record: &LogRecord) {
        if !is_status(record) {
            self.console.show(StatusMark::None, &format!("muster[1]: {}", without_numbers(&record.message)));
        }
    }

    /// Writes one record to the kernel's log, and nowhere else; a container has none of its own, and shows it.
    pub fn write_kmsg(&mut self, record: &LogRecord) {
        self.write_early(record);
    }

    /// Whether something waits for the journal to take it.
    pub fn waits(&self) -> bool {
        !self.backlog.is_empty()
    }

    fn write_early(&mut self, record: &LogRecord) {
        if let Some(kmsg) = &mut self.kmsg {
            let _ = writeln!(
                kmsg,
                "<{}>muster[1]: {}",
                (record.level as u8).saturating_add(24),
                without_numbers(&record.message).replace(char::is_control, " ")
            );
        } else if record.level <= Level::Warning && !is_status(record) {
            self.console.show(StatusMark::None, &format!("muster[1]: {}", without_numbers(&record.message)));
        }
    }

    /// Sends what waits, as far as the journal takes it.
    pub fn flush(&mut self) {
        self.send();
    }

    fn send(&mut self) -> Journal {
        let (Some(socket), Ok(address)) = (&self.socket, UnixAddr::new(JOURNAL)) else {
            return Journal::Absent;
        };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while let Some(record) = self.backlog.front() {
            let sent = match &self.printer {
                Some(printer) => send(printer.as_raw_fd(), record, flags),
                None => sendto(socket.as_raw_fd(), record, &address, flags),
            };
            match sent {
                Ok(_) | Err(nix::errno::Errno::EMSGSIZE) => {
                    self.backlog.pop_front();
                }
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ENOBUFS) => return Journal::Busy,
                Err(_) => return Journal::Absent,
            }
            if self.backlog.is_empty() && self.lost > 0 {
                let message = format!("{} records were lost while the journal took none.", self.lost);
                let record = LogRecord { level: Level::Warning, unit: None, message, fields: Vec::new() };
                self.backlog.push_back(encode(&record, None));
                self.lost = 0;
            }
        }
        Journal::Ready
    }
}

/// Whether the record is the end of a job, which the console shows as a status line.
fn is_status(record: &LogRecord) -> bool {
    record.fields.iter().any(|(name, _)| name == "JOB_RESULT")
}

/// A record in the journal's native protocol.
fn encode(record: &LogRecord, invocation: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    field(&mut out, "MESSAGE", &without_numbers(&record.message));
    field(&mut out, "PRIORITY", &(record.level as u8).to_string());
    field(&mut out, "SYSLOG_FACILITY", "3");
    field(&mut out, "SYSLOG_IDENTIFIER", "muster");
    if let Some(unit) = &record.unit {
        field(&mut out, "UNIT", unit.as_str());
    }
    if let Some(invocation) = invocation.filter(|id| !id.is_empty()) {
        field(&mut out, "INVOCATION_ID", invocation);
    }
    for (name, value) in &record.fields {
        field(&mut out, name, value);
    }
    out
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&u64::try_from(value.len()).unwrap_or(0).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}
