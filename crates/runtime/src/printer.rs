//! Logs on standard output, where there is no journal: what services write, and what PID 1 says, a line each with the name of
//! the unit before it.
//!
//! A helper (`muster --print-logs`) takes the journal's place at its sockets, so that services are started as ever. It may wait
//! for whoever reads the container's output; PID 1 never does. What must stay true: PID 1 owns the sockets, so that a helper
//! that ends is followed by another one and nobody finds a closed door; the helper ignores all signals but SIGTERM, at which
//! it ends once nobody can say anything any more.

use crate::processes::Helper;
use crate::turn::Runtime;
use muster_manager::effect::Level;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, listen, recv, socket,
    socketpair,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// The argument of the helper, before the numbers of its descriptors.
pub const ARGUMENT: &str = "--print-logs";
/// Where services write what goes to the journal, where they log by its native protocol, and where by syslog(3).
const PLACES: [(&str, SockType); 3] = [
    ("/run/systemd/journal/stdout", SockType::Stream),
    ("/run/systemd/journal/socket", SockType::Datagram),
    ("/run/systemd/journal/dev-log", SockType::Datagram),
];
/// Where syslog(3) looks for it.
const DEV_LOG: &str = "/dev/log";
/// The unit whose absence is the absence of a journal.
const JOURNAL: &str = "systemd-journald.service";
/// The longest record that is printed whole.
const RECORD_MAX: usize = 256 * 1024;
/// A longer line is printed in parts.
const LINE_MAX: usize = 48 * 1024;
/// At most this many streams; who comes later waits.
const STREAMS_MAX: usize = 8192;
/// The lines before what a stream says: identifier, unit, priority, whether lines begin with theirs, and three more.
const HEADER_LINES: usize = 7;
/// A helper that ends sooner is not followed by another, in microseconds.
const SOON_USEC: u64 = 1_000_000;

/// The helper, and what it works with.
#[derive(Debug)]
pub struct Printer {
    /// The helper's process.
    pid: u32,
    /// The sockets of [`PLACES`], and the helper's end of the pair.
    theirs: Vec<OwnedFd>,
    /// PID 1's end.
    ours: OwnedFd,
    began_usec: u64,
}

/// Starts the helper, unless there is a journal. What fails is left: there are no logs then, as before.
pub fn start(program: &str, search_path: &[String]) -> Result<Option<Printer>, String> {
    if search_path.iter().any(|directory| has_unit(directory)) {
        return Ok(None);
    }
    let why = |error: &dyn std::fmt::Display| format!("Logs cannot be printed: {error}");
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, end) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).map_err(|error| why(&error))?;
    let mut theirs = Vec::with_capacity(4);
    for (path, kind) in PLACES {
        theirs.push(open(path, kind).map_err(|error| why(&format!("{path}: {error}")))?);
    }
    theirs.push(end);
    if std::fs::symlink_metadata(DEV_LOG).is_err() {
        // Without it, what is said by syslog(3) is lost, as before.
        let _ = symlink("/run/systemd/journal/dev-log", DEV_LOG);
    }
    let pid = launch(program, &theirs).map_err(|error| why(&error))?;
    Ok(Some(Printer { pid, theirs, ours, began_usec: crate::clock::monotonic_usec() }))
}

fn has_unit(directory: &str) -> bool {
    let path = format!("{directory}/{JOURNAL}");
    let is_masked = std::fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
    !is_masked && Path::new(&path).exists()
}

fn open(path: &str, kind: SockType) -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    let _ = std::fs::remove_file(path);
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    let _ = std::fs::set_permissions(path, PermissionsExt::from_mode(0o666));
    if kind == SockType::Stream {
        listen(&fd, Backlog::MAXCONN)?;
    }
    Ok(fd)
}

/// A helper with these descriptors.
fn launch(program: &str, theirs: &[OwnedFd]) -> std::io::Result<u32> {
    let inherited = |on: bool| {
        let flags = if on { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        for fd in theirs {
            let _ = fcntl(fd, FcntlArg::F_SETFD(flags));
        }
    };
    let numbers = theirs.iter().map(|fd| fd.as_raw_fd().to_string());
    let mut command = Command::new(program);
    command.arg(ARGUMENT).args(numbers).stdin(Stdio::null()).current_dir("/");
    inherited(true);
    let child = command.spawn();
    inherited(false);
    Ok(child?.id())
}

/// A printer over a re-execution, by numbers.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct HandedPrinter {
    pid: u32,
    theirs: Vec<RawFd>,
    ours: RawFd,
}

impl HandedPrinter {
    /// Its descriptors.
    pub fn fds(&self) -> Vec<RawFd> {
        self.theirs.iter().copied().chain([self.ours]).collect()
    }

    /// The same, in the next program.
    pub fn take_in(self) -> Printer {
        let HandedPrinter { pid, theirs, ours } = self;
        let theirs = theirs.into_iter().map(crate::hand_over::adopt).collect();
        Printer { pid, theirs, ours: crate::hand_over::adopt(ours), began_usec: 0 }
    }
}

impl Printer {
    /// For the next program.
    pub(crate) fn handed(&self) -> HandedPrinter {
        let theirs = self.theirs.iter().map(AsRawFd::as_raw_fd).collect();
        HandedPrinter { pid: self.pid, theirs, ours: self.ours.as_raw_fd() }
    }

    /// PID 1's end, for the log.
    pub fn end(&self) -> std::io::Result<OwnedFd> {
        self.ours.try_clone()
    }
}

impl Runtime {
    /// The helper is one of ours.
    pub(crate) fn take_printer(&mut self, printer: Printer) {
        self.processes.add_helper(printer.pid, Helper::Printer);
        self.printer = Some(printer);
    }

    /// Another one takes its place; not where it could not even begin.
    pub(crate) fn printer_ended(&mut self) {
        let Some(mut printer) = self.printer.take() else { return };
        let now = crate::clock::monotonic_usec();
        if now.saturating_sub(printer.began_usec) < SOON_USEC {
            self.log.print_no_more();
            return self.note(Level::Error, "Nobody prints logs any more: the helper ended at once.");
        }
        match launch(&self.program, &printer.theirs) {
            Ok(pid) => {
                (printer.pid, printer.began_usec) = (pid, now);
                self.take_printer(printer);
            }
            Err(error) => {
                self.log.print_no_more();
                self.note(Level::Error, &format!("Nobody prints logs any more: {error}"));
            }
        }
    }
}

/// What a service writes to its standard output or error.
struct Stream {
    fd: OwnedFd,
    /// Lines of the header that are still to come.
    header: usize,
    unit: String,
    /// Lines may begin with a priority.
    prefixes: bool,
    text: Vec<u8>,
    open: bool,
}

impl Stream {
    /// Takes what came.
    fn read(&mut self, out: &mut Vec<u8>) {
        let mut bytes = [0_u8; 16 * 1024];
        match recv(self.fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => self.open = false,
            Ok(length) => {
                self.text.extend_from_slice(bytes.get(..length).unwrap_or(&[]));
                self.lines(out);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.open = false,
        }
        if !self.open && !self.text.is_empty() {
            let rest = std::mem::take(&mut self.text);
            self.line(&rest, out);
        }
    }

    fn lines(&mut self, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.text);
        let mut rest = text.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.line(line, out);
            rest = after.get(1..).unwrap_or(&[]);
        }
        while rest.len() >= LINE_MAX {
            let (line, after) = rest.split_at(LINE_MAX);
            self.line(line, out);
            rest = after;
        }
        self.text = rest.to_vec();
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        if self.header > 0 {
            match HEADER_LINES.saturating_sub(self.header) {
                0 => self.unit = String::from_utf8_lossy(line).into_owned(),
                1 if !line.is_empty() => self.unit = String::from_utf8_lossy(line).into_owned(),
                3 => self.prefixes = line == b"1",
                _ => {}
            }
            self.header = self.header.saturating_sub(1);
            return;
        }
        let line = if self.prefixes { without_priority(line) } else { line };
        put_line(out, &self.unit, line);
    }
}

fn put_line(out: &mut Vec<u8>, name: &str, line: &[u8]) {
    if !name.is_empty() {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
    }
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// A line without `<N>` before it (sd-daemon(3)).
fn without_priority(line: &[u8]) -> &[u8] {
    let inner = line.strip_prefix(b"<").and_then(|rest| {
        let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
        let digits = rest.get(..end)?;
        (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
            .then(|| rest.get(end.saturating_add(1)..))?
    });
    inner.unwrap_or(line)
}

/// A record of the native protocol.
fn native(record: &[u8], out: &mut Vec<u8>) {
    let (mut message, mut name) = (None, "journal".to_owned());
    let mut rest = record;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or(&[]);
        let (field, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => (line.get(..at).unwrap_or(&[]), line.get(at.saturating_add(1)..).unwrap_or(&[])),
            // A value with line breaks: its length, and then itself.
            None => {
                let Some((length, after)) = rest.split_first_chunk::<8>() else { break };
                let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
                let Some(value) = after.get(..length) else { break };
                rest = after.get(length.saturating_add(1)..).unwrap_or(&[]);
                (line, value)
            }
        };
        match field {
            b"MESSAGE" => message = Some(value),
            b"SYSLOG_IDENTIFIER" => name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }
    for line in message.into_iter().flat_map(|message| message.split(|byte| *byte == b'\n')) {
        put_line(out, &name, line);
    }
}

/// A record of syslog(3): `<13>Nov 27 05:00:00 name[7]: text`.
fn syslog(record: &[u8], out: &mut Vec<u8>) {
    const STAMP: usize = 16;
    let text = without_priority(record.trim_ascii_end());
    let is_stamp = text.get(3) == Some(&b' ') && text.get(STAMP.saturating_sub(1)) == Some(&b' ');
    put_line(out, "", text.get(STAMP..).filter(|_| is_stamp).unwrap_or(text));
}

/// What the helper does.
pub fn run(numbers: &[&str]) -> ExitCode {
    let fds: Vec<OwnedFd> =
        numbers.iter().filter_map(|number| number.parse().ok()).map(muster_sys::adopt_fd).collect();
    let [streams, journal, dev_log, own] = fds.as_slice() else { return ExitCode::FAILURE };
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    let _ = SigSet::all().thread_set_mask();
    let Ok(signals) = SignalFd::with_flags(&term, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC) else {
        return ExitCode::FAILURE;
    };
    let mut open: Vec<Stream> = Vec::new();
    let (mut leaving, mut alone) = (false, false);
    let mut bytes = vec![0_u8; RECORD_MAX];
    loop {
        let own_now = (!alone).then_some(own);
        let listened = [streams, journal, dev_log].into_iter().chain(own_now);
        wait(listened, signals.as_fd(), &open, leaving && open.is_empty());
        let mut out = Vec::new();
        leaving |= matches!(signals.read_signal(), Ok(Some(_)));
        // PID 1's own word comes first: it says that a service was started before that says anything. When PID 1 is another
        // program there is no more of it.
        alone |= own_now.is_some_and(|own| !each(own, &mut bytes, |record| native(record, &mut out)));
        while open.len() < STREAMS_MAX {
            let Ok(fd) = accept4(streams.as_raw_fd(), SockFlag::SOCK_CLOEXEC) else { break };
            let (unit, text) = (String::new(), Vec::new());
            let fd = muster_sys::adopt_fd(fd);
            open.push(Stream { fd, header: HEADER_LINES, unit, prefixes: false, text, open: true });
        }
        for stream in &mut open {
            stream.read(&mut out);
        }
        let had = open.len();
        open.retain(|stream| stream.open);
        each(journal, &mut bytes, |record| native(record, &mut out));
        each(dev_log, &mut bytes, |record| syslog(record, &mut out));
        put(&out);
        if (leaving || alone) && had == 0 && out.is_empty() {
            return ExitCode::SUCCESS;
        }
    }
}

/// Waits until something can be read.
fn wait<'a>(
    sockets: impl Iterator<Item = &'a OwnedFd>,
    signals: BorrowedFd<'_>,
    streams: &[Stream],
    only_look: bool,
) {
    let fixed = sockets.map(|fd| fd.as_fd()).chain([signals]);
    let all = fixed.chain(streams.iter().map(|stream| stream.fd.as_fd()));
    let mut polled: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let _ = poll(&mut polled, if only_look { PollTimeout::ZERO } else { PollTimeout::NONE });
}

/// All datagrams that wait. False at the end of what has one.
fn each(socket: &OwnedFd, bytes: &mut [u8], mut take: impl FnMut(&[u8])) -> bool {
    const RECORDS_A_ROUND: usize = 256;
    for _ in 0..RECORDS_A_ROUND {
        match recv(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return false,
            Ok(length) => take(bytes.get(..length).unwrap_or(&[])),
            Err(_) => return true,
        }
    }
    true
}

/// Writes to standard output, for however long that takes. What nobody takes any more is nobody's.
fn put(mut bytes: &[u8]) {
    let output = std::io::stdout();
    while !bytes.is_empty() {
        match nix::unistd::write(output.as_fd(), bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or(&[]),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut ready, PollTimeout::NONE);
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn text(make: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        make(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    #[test]
    fn records_become_lines() {
        let record = b"MESSAGE=hello\nPRIORITY=6\nSYSLOG_IDENTIFIER=muster\n";
        assert_eq!(text(|out| native(record, out)), "muster: hello\n");
        let record = b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nSYSLOG_IDENTIFIER=x\n";
        assert_eq!(text(|out| native(record, out)), "x: a\nx: b\n");
        for bad in [&b""[..], b"MESSAGE", b"MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xff", b"MESSAGE\n\x01"] {
            assert_eq!(text(|out| native(bad, out)), "");
        }
        let record = b"<13>Nov 27 05:00:00 logger[7]: said\n";
        assert_eq!(text(|out| syslog(record, out)), "logger[7]: said\n");
        assert_eq!(text(|out| syslog(b"<13>said", out)), "said\n");
    }

    #[test]
    fn a_stream_is_lines_of_its_unit() {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (unit, content) = (String::new(), Vec::new());
        let mut stream =
            Stream { fd, header: HEADER_LINES, unit, prefixes: false, text: content, open: true };
        stream.text.extend_from_slice(b"sh\na.service\n30\n1\n0\n0\n0\n<3>one\ntwo\nthr");
        assert_eq!(text(|out| stream.lines(out)), "a.service: one\na.service: two\n");
        stream.text.extend_from_slice(b"ee\n");
        assert_eq!(text(|out| stream.lines(out)), "a.service: three\n");
        stream.text = vec![b'x'; LINE_MAX + 1];
        assert_eq!(text(|out| stream.lines(out)).len(), LINE_MAX + "a.service: \n".len());
        assert_eq!(stream.text, b"x");
    }
}
