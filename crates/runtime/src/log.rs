//! PID 1's own log: to the journal by its native protocol, to the kernel log until there is one.
//!
//! Never waits: what the journal cannot take now is kept, so much of it, and sent before the next record.

use muster_manager::effect::LogRecord;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};
use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

const JOURNAL: &str = "/run/systemd/journal/socket";
/// So many records wait for a journal that is not there yet.
const BACKLOG_MAX: usize = 1024;

/// Where records go.
#[derive(Debug)]
pub struct Log {
    socket: Option<OwnedFd>,
    backlog: VecDeque<Vec<u8>>,
    kmsg: Option<std::fs::File>,
    stderr: bool,
}

impl Log {
    /// A log. With `kmsg`, what the journal does not get yet is shown in the kernel log too; with `stderr`, records are
    /// also written there (muster started by hand).
    pub fn open(kmsg: bool, stderr: bool) -> Log {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let kmsg = kmsg.then(|| std::fs::OpenOptions::new().write(true).open("/dev/kmsg").ok()).flatten();
        Log { socket: socket(AddressFamily::Unix, SockType::Datagram, flags, None).ok(), backlog: VecDeque::new(), kmsg, stderr }
    }

    /// Writes one record.
    pub fn write(&mut self, record: &LogRecord, invocation: Option<&str>) {
        if self.stderr {
            let _ = writeln!(std::io::stderr(), "{}", record.message);
        }
        let before_journal = !self.flush();
        if before_journal {
            if let Some(kmsg) = &mut self.kmsg {
                let _ = writeln!(kmsg, "<{}>muster[1]: {}", (record.level as u8).saturating_add(24), record.message.replace('\n', " "));
            }
        }
        self.backlog.push_back(encode(record, invocation));
        if self.backlog.len() > BACKLOG_MAX {
            self.backlog.pop_front();
        }
        self.flush();
    }

    /// Sends what waits. False when the journal does not take it now.
    pub fn flush(&mut self) -> bool {
        let (Some(socket), Ok(address)) = (&self.socket, UnixAddr::new(JOURNAL)) else { return false };
        while let Some(record) = self.backlog.front() {
            match sendto(socket.as_raw_fd(), record, &address, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(_) | Err(nix::errno::Errno::EMSGSIZE) => {
                    self.backlog.pop_front();
                }
                Err(_) => return false,
            }
        }
        true
    }
}

/// A record in the journal's native protocol.
fn encode(record: &LogRecord, invocation: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    field(&mut out, "MESSAGE", &record.message);
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
