//! The passed descriptors (sd_listen_fds(3)).

use super::{About, Direct, Step, always};
use crate::{Exit, FIRST_FD, Process};
use muster_unit::OpenFile;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open as fcntl_open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `OpenFile=` (systemd.service(5)): they are passed after the others.
pub const OPENED: Step = Step {
    directive: "OpenFile=",
    exit: Exit::Fds,
    needed: |context| !context.open_files.is_empty(),
    direct: Direct::No,
    run: |context, process| {
        for file in context.open_files {
            match open(file) {
                Ok(fd) => process.opened.push((fd, file.name.clone())),
                Err(Errno::ENOENT) if file.graceful => {}
                Err(error) => return Err(error).about(&format!("OpenFile={}", file.path)),
            }
        }
        Ok(())
    },
};

/// Opens a file, or connects with a socket; out of the way of the numbers that are given out.
fn open(file: &OpenFile) -> nix::Result<OwnedFd> {
    let path = file.path.as_str();
    let kind = nix::sys::stat::stat(path)?.st_mode & nix::libc::S_IFMT;
    let fd = match kind {
        nix::libc::S_IFSOCK => connect_to(path)?,
        nix::libc::S_IFREG | nix::libc::S_IFCHR | nix::libc::S_IFBLK | nix::libc::S_IFIFO => {
            let flags = match () {
                () if file.read_only => OFlag::O_RDONLY,
                () if file.append => OFlag::O_RDWR | OFlag::O_APPEND,
                () if file.truncate => OFlag::O_RDWR | OFlag::O_TRUNC,
                () => OFlag::O_RDWR,
            };
            let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
            match fcntl_open(path, flags, Mode::empty()) {
                Err(Errno::EACCES | Errno::EROFS | Errno::EPERM)
                    if !file.read_only && !file.append && !file.truncate =>
                {
                    fcntl_open(path, (flags & !OFlag::O_RDWR) | OFlag::O_RDONLY, Mode::empty())?
                }
                opened => opened?,
            }
        }
        _ => return Err(Errno::EINVAL),
    };
    fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(OPENED_FD)).map(muster_sys::adopt_fd)
}

/// From here on, no descriptor is given to a service by its number.
const OPENED_FD: i32 = 512;

/// By whatever kind of socket listens there.
fn connect_to(path: &str) -> nix::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    for kind in [SockType::Datagram, SockType::Stream, SockType::SeqPacket] {
        let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
        match connect(fd.as_raw_fd(), &address) {
            Err(Errno::EPROTOTYPE) => {}
            done => return done.map(|()| fd),
        }
    }
    Err(Errno::EPROTOTYPE)
}

/// Moves them down to 3, and names them.
pub const PASSED: Step = Step {
    directive: "descriptors",
    exit: Exit::Fds,
    needed: always,
    direct: Direct::By(|context, draft| {
        let count = context.fd_names.len();
        if count > 0 {
            draft.environment.insert("LISTEN_FDS".to_owned(), count.to_string());
            draft.environment.insert("LISTEN_FDNAMES".to_owned(), context.fd_names.join(":"));
            draft.own_numbers.push("LISTEN_PID");
        }
        Some(())
    }),
    run: |context, process| {
        let count = context.fd_names.len();
        for (target, fd) in (3_i32..).zip(process.fds.iter().take(count)) {
            let copy = Process::copy(*fd).about("descriptors")?;
            muster_sys::place_fd(copy.as_fd(), target).about("descriptors")?;
            set_blocking(target, !context.non_blocking);
        }
        let first_extra = i32::try_from(count).unwrap_or(0).saturating_add(3);
        for fd in first_extra..FIRST_FD.saturating_add(i32::try_from(process.fds.len()).unwrap_or(0)) {
            match fcntl(muster_sys::borrow_fd(fd), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
                // The plan and the report stood here, too.
                Err(Errno::EBADF) => {}
                done => drop(done.about("descriptors")?),
            }
        }
        let mut names: Vec<String> = context.fd_names.iter().map(|name| (*name).to_owned()).collect();
        for (target, (fd, name)) in (first_extra..).zip(std::mem::take(&mut process.opened)) {
            muster_sys::place_fd(fd.as_fd(), target).about("descriptors")?;
            set_blocking(target, !context.non_blocking);
            names.push(name);
        }
        if !names.is_empty() {
            process.set("LISTEN_PID", std::process::id().to_string());
            process.set("LISTEN_FDS", names.len().to_string());
            process.set("LISTEN_FDNAMES", names.join(":"));
        }
        Ok(())
    },
};

/// Sets or clears O_NONBLOCK of an open file.
pub(super) fn set_blocking(fd: i32, blocking: bool) {
    let fd = muster_sys::borrow_fd(fd);
    if let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) {
        let mut flags = OFlag::from_bits_retain(flags);
        flags.set(OFlag::O_NONBLOCK, !blocking);
        let _ = fcntl(fd, FcntlArg::F_SETFL(flags));
    }
}
