//! Standard input, output and error.

use super::descriptors::set_blocking;
use super::{About, Direct, Done, Step, always, failed};
use crate::direct::Draft;
use crate::{Context, Exit, FIRST_FD, Process, journal, tree};
use muster_sys::Step as Raw;
use muster_unit::{StdInput, StdOutput};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::libc::{O_RDONLY, O_WRONLY};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::Mode;
use std::ffi::CString;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The socket or descriptor that a standard stream is to be.
pub const PASSED: Step = Step {
    directive: "StandardInput=, StandardOutput=, StandardError=",
    exit: Exit::Success,
    needed: |context| missing(context).is_some(),
    direct: Direct::No,
    run: |context, _| missing(context).map_or(Ok(()), failed),
};

/// `StandardInput=`.
pub const INPUT: Step = Step {
    directive: "StandardInput=",
    exit: Exit::Stdin,
    needed: always,
    direct: Direct::By(direct_input),
    run: standard_input,
};

/// `StandardOutput=`.
pub const OUTPUT: Step = Step {
    directive: "StandardOutput=",
    exit: Exit::Stdout,
    needed: always,
    direct: Direct::By(|context, draft| direct_output(context, draft, 1)),
    run: |context, process| standard_output(context, process, 1),
};

/// `StandardError=`.
pub const ERROR: Step = Step {
    directive: "StandardError=",
    exit: Exit::Stderr,
    needed: always,
    direct: Direct::By(|context, draft| direct_output(context, draft, 2)),
    run: |context, process| standard_output(context, process, 2),
};

/// Puts a descriptor in place of 0, 1 or 2.
fn place(fd: impl AsFd, target: i32) -> Done {
    muster_sys::place_fd(fd.as_fd(), target).about("standard streams")
}

fn place_number(number: i32, target: i32) -> Done {
    place(Process::copy(number).about("standard streams")?, target)
}

/// A file that a service may have a hand in.
fn open_file(path: &str, flags: OFlag, target: i32) -> Done {
    place(tree::open_file(path, flags, 0o644).about(path)?, target)
}

fn open_at(path: &str, flags: OFlag, target: i32) -> Done {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    place(open(path, flags, Mode::from_bits_truncate(0o644)).about(path)?, target)
}

/// What a client gave for one of the three, whatever the settings say.
fn given(context: &Context<'_>, target: i32) -> Option<i32> {
    let at = context.stdio.iter().position(|number| *number == target)?;
    let before = context.fd_names.len().saturating_add(usize::from(context.has_socket));
    i32::try_from(before.saturating_add(at)).ok()?.checked_add(FIRST_FD)
}

fn terminal<'a>(context: &Context<'a>) -> &'a str {
    context.exec.tty_path().as_deref().unwrap_or("/dev/console")
}

/// What the standard streams name of the passed descriptors, and is not there.
fn missing(context: &Context<'_>) -> Option<String> {
    let exec = context.exec;
    let output = |target: i32, output: &StdOutput| match output {
        _ if given(context, target).is_some() => None,
        StdOutput::Socket => Some(None),
        StdOutput::Fd(name) => Some(Some(name.to_string())),
        _ => None,
    };
    let input = match exec.standard_input() {
        _ if given(context, 0).is_some() => None,
        StdInput::Socket => Some(None),
        StdInput::Fd(name) => Some(Some(name.to_string())),
        _ => None,
    };
    let named = [input, output(1, exec.standard_output()), output(2, exec.standard_error())];
    named.into_iter().flatten().find_map(|name| match name {
        None if context.has_socket => None,
        None => Some("a standard stream is to be a socket, and there is none, or more than one".to_owned()),
        Some(name) if context.fd_names.contains(&name.as_str()) => None,
        Some(name) => {
            Some(format!("a standard stream is to be the descriptor {name}, and there is none of that name"))
        }
    })
}

fn place_socket(directive: &str, process: &Process, target: i32) -> Done {
    match process.socket {
        Some(number) => place_number(number, target),
        None => failed(format!("{directive}=socket: there is no socket")),
    }
}

fn place_named(directive: &str, context: &Context<'_>, name: &str, target: i32) -> Done {
    let at = context.fd_names.iter().position(|known| *known == name);
    match at.and_then(|at| i32::try_from(at).ok()?.checked_add(FIRST_FD)) {
        Some(number) => place_number(number, target),
        None => failed(format!("{directive}=fd:{name}: there is none of that name")),
    }
}

fn standard_input(context: &Context<'_>, process: &mut Process) -> Done {
    if let Some(socket) = process.socket {
        set_blocking(socket, true);
    }
    if let Some(number) = given(context, 0) {
        return place_number(number, 0);
    }
    match &context.exec.standard_input() {
        StdInput::Null => open_at("/dev/null", OFlag::O_RDONLY, 0),
        StdInput::Data => place(data(&context.exec.standard_input_data().0).about("StandardInputData=")?, 0),
        StdInput::Tty | StdInput::TtyForce | StdInput::TtyFail => take_terminal(context),
        StdInput::File(path) => {
            open_file(path, OFlag::O_RDWR, 0).or_else(|_| open_file(path, OFlag::O_RDONLY, 0))
        }
        StdInput::Socket => place_socket("StandardInput", process, 0),
        StdInput::Fd(name) => place_named("StandardInput", context, name, 0),
    }
}

/// The text or data of the unit, in a file that stands nowhere and that nobody can change.
fn data(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let fd = memfd_create(c"data", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    // Open for reading alone.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::File::open(path).map(OwnedFd::from)
}

/// Opens the terminal as standard input and makes it the controlling one. Where another session has it, `tty` waits for it,
/// `tty-force` takes it, and `tty-fail` fails.
fn take_terminal(context: &Context<'_>) -> Done {
    let path = terminal(context);
    let input = context.exec.standard_input();
    let closed = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).about(path)?;
    closed.add_watch(path, AddWatchFlags::IN_CLOSE).about(path)?;
    open_at(path, OFlag::O_RDWR, 0)?;
    loop {
        match muster_sys::take_terminal(std::io::stdin().as_fd(), *input == StdInput::TtyForce) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) && *input != StdInput::TtyForce => {
                if *input == StdInput::TtyFail {
                    return Err(error).about(&format!("StandardInput=tty-fail: {path}"));
                }
            }
            // Its last session hung it up.
            Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => open_at(path, OFlag::O_RDWR, 0)?,
            // What is no terminal is used as it is.
            _ => return Ok(()),
        }
        // A session that ends closes the terminal shortly before it lets go of it.
        let mut others = [PollFd::new(closed.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut others, PollTimeout::from(WAIT_MSEC));
        let _ = closed.read_events();
    }
}

/// After so long a terminal is looked at again.
const WAIT_MSEC: u16 = 1000;

/// `TTYVHangup=`, `TTYReset=`, `TTYRows=`, `TTYColumns=` and `TTYVTDisallocate=`, before anybody uses the terminal.
pub const TERMINAL: Step = Step {
    directive: "TTYReset=",
    exit: Exit::Stdin,
    needed: |context| {
        let exec = context.exec;
        let asked = exec.tty_reset()
            || exec.tty_vhangup()
            || exec.tty_vt_disallocate()
            || exec.tty_rows().is_some()
            || exec.tty_columns().is_some();
        asked && exec.terminal().is_some()
    },
    direct: Direct::No,
    run: |context, _| {
        // What the terminal does not do hinders no service.
        let _ = prepare_terminal(context);
        Ok(())
    },
};

fn prepare_terminal(context: &Context<'_>) -> std::io::Result<()> {
    let (exec, path) = (context.exec, terminal(context));
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let again = || open(path, flags, Mode::empty());
    if exec.tty_vhangup() {
        let _ = muster_sys::hang_up_terminal(again()?.as_fd());
    }
    let fd = again()?;
    if exec.tty_reset() {
        let _ = muster_sys::reset_terminal(fd.as_fd());
    }
    if exec.tty_rows().is_some() || exec.tty_columns().is_some() {
        let narrow = |number: Option<u32>| number.and_then(|number| u16::try_from(number).ok());
        let _ =
            muster_sys::set_terminal_size(fd.as_fd(), narrow(exec.tty_rows()), narrow(exec.tty_columns()));
    }
    if exec.tty_vt_disallocate() {
        free_terminal(path, fd)?;
    }
    Ok(())
}

/// When a run is over.
pub fn revert_terminal(path: &str, reset: bool, free: bool) -> std::io::Result<()> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let fd = open(path, flags, Mode::empty())?;
    if reset {
        let _ = muster_sys::reset_terminal(fd.as_fd());
    }
    if free { free_terminal(path, fd) } else { Ok(()) }
}

/// A virtual terminal that nobody has open is given back; any other is cleared.
fn free_terminal(path: &str, fd: OwnedFd) -> std::io::Result<()> {
    let number = path.strip_prefix("/dev/tty").and_then(|number| number.parse::<u32>().ok());
    if let Some(number) = number.filter(|number| *number > 0) {
        drop(fd);
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        let any = open("/dev/tty0", flags, Mode::empty())?;
        if muster_sys::free_virtual_terminal(any.as_fd(), number).is_ok() {
            return Ok(());
        }
        let fd = open(path, flags, Mode::empty())?;
        return std::fs::File::from(fd).write_all(b"\x1b[r\x1b[H\x1b[3J");
    }
    std::fs::File::from(fd).write_all(b"\x1b[r\x1b[H\x1b[2J")
}

fn standard_output(context: &Context<'_>, process: &mut Process, target: i32) -> Done {
    let exec = context.exec;
    if let Some(number) = given(context, target) {
        return place_number(number, target);
    }
    let (directive, output) = match target {
        1 => ("StandardOutput", &exec.standard_output()),
        _ => ("StandardError", &exec.standard_error()),
    };
    match output {
        // One file for both is opened once, so that neither overwrites the other.
        StdOutput::Inherit if target == 2 => place(std::io::stdout(), 2),
        same if target == 2 && same.is_file() && *same == exec.standard_output() => {
            place(std::io::stdout(), 2)
        }
        StdOutput::Inherit if *exec.standard_input() == StdInput::Null => {
            to_journal(context, process, target)
        }
        StdOutput::Inherit => place(std::io::stdin(), target),
        StdOutput::Null => open_at("/dev/null", OFlag::O_WRONLY, target),
        StdOutput::Tty => open_at(terminal(context), OFlag::O_WRONLY, target),
        StdOutput::Journal | StdOutput::JournalConsole => to_journal(context, process, target),
        StdOutput::Kmsg | StdOutput::KmsgConsole => open_at("/dev/kmsg", OFlag::O_WRONLY, target)
            .or_else(|_| open_at("/dev/null", OFlag::O_WRONLY, target)),
        StdOutput::File(path) => open_file(path, OFlag::O_WRONLY | OFlag::O_CREAT, target),
        StdOutput::Append(path) => {
            open_file(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND, target)
        }
        StdOutput::Truncate(path) => {
            open_file(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, target)
        }
        StdOutput::Socket => place_socket(directive, process, target),
        StdOutput::Fd(name) => place_named(directive, context, name, target),
    }
}

/// Output to the journal; null when there is no journal yet.
fn to_journal(context: &Context<'_>, process: &mut Process, target: i32) -> Done {
    let address = UnixAddr::new(journal::stream(context.exec).as_str());
    let connected = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|fd| connect(fd.as_raw_fd(), &address?).map(|()| fd));
    let Ok(fd) = connected else { return open_at("/dev/null", OFlag::O_WRONLY, target) };
    let header = journal::header(context.unit, context.command, context.exec);
    let mut stream = std::os::unix::net::UnixStream::from(fd);
    let _ = stream.shutdown(std::net::Shutdown::Read);
    if stream.write_all(header.as_bytes()).is_err() {
        return open_at("/dev/null", OFlag::O_WRONLY, target);
    }
    if let Ok(stat) = nix::sys::stat::fstat(&stream) {
        process.set("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino));
    }
    place(stream, target)
}

/// Index of the connection among the given descriptors: it follows the passed ones.
fn socket_index(context: &Context<'_>) -> Option<usize> {
    context.has_socket.then_some(context.fd_names.len())
}

fn named_index(context: &Context<'_>, name: &str) -> Option<usize> {
    context.fd_names.iter().position(|known| *known == name)
}

fn direct_open(path: &str, flags: i32, target: i32) -> Option<Raw> {
    Some(Raw::Open { path: CString::new(path).ok()?, flags, mode: 0o644, target })
}

fn direct_input(context: &Context<'_>, draft: &mut Draft) -> Option<()> {
    if !context.stdio.is_empty() || context.exec.tty_path().is_some() {
        return None;
    }
    let step = match &context.exec.standard_input() {
        StdInput::Null => direct_open("/dev/null", O_RDONLY, 0)?,
        StdInput::Socket => Raw::Given { index: socket_index(context)?, target: 0 },
        StdInput::Fd(name) => Raw::Given { index: named_index(context, name)?, target: 0 },
        StdInput::Tty | StdInput::TtyForce | StdInput::TtyFail | StdInput::Data | StdInput::File(_) => {
            return None;
        }
    };
    draft.step(step, Exit::Stdin)
}

fn direct_output(context: &Context<'_>, draft: &mut Draft, target: i32) -> Option<()> {
    let exec = context.exec;
    let (exit, output) = match target {
        1 => (Exit::Stdout, &exec.standard_output()),
        _ => (Exit::Stderr, &exec.standard_error()),
    };
    let step = match output {
        // One file for both is opened once, so that neither overwrites the other.
        StdOutput::Inherit if target == 2 => Raw::Copy { from: 1, target },
        same if target == 2 && same.is_file() && *same == exec.standard_output() => {
            Raw::Copy { from: 1, target }
        }
        StdOutput::Inherit if *exec.standard_input() != StdInput::Null => Raw::Copy { from: 0, target },
        StdOutput::Inherit | StdOutput::Journal | StdOutput::JournalConsole => {
            draft.to_journal = true;
            Raw::Stream {
                socket: CString::new(journal::stream(exec)).ok()?,
                header: journal::header(context.unit, context.command, exec).into_bytes(),
                target,
            }
        }
        StdOutput::Null => direct_open("/dev/null", O_WRONLY, target)?,
        StdOutput::Socket => Raw::Given { index: socket_index(context)?, target },
        StdOutput::Fd(name) => Raw::Given { index: named_index(context, name)?, target },
        // Their paths are walked with care.
        StdOutput::File(_) | StdOutput::Append(_) | StdOutput::Truncate(_) => return None,
        StdOutput::Tty | StdOutput::Kmsg | StdOutput::KmsgConsole => return None,
    };
    draft.step(step, exit)
}
