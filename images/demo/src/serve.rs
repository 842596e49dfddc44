//! Answers on passed sockets, and asks on them.

use crate::facts;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, accept, recvfrom, send, sendto};
use nix::unistd::close;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

/// The first passed descriptor (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// Prints to standard output.
pub fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Answers on every passed descriptor for ever, each in a thread of its own; or once, on whichever is first.
pub fn listeners(once: bool) -> Result<()> {
    let count: RawFd =
        std::env::var("LISTEN_FDS").context("no LISTEN_FDS: start me by a socket unit")?.parse()?;
    let (answered, answers) = std::sync::mpsc::channel();
    for fd in FIRST..FIRST + count {
        let answered = answered.clone();
        std::thread::spawn(move || while answered.send(answer(fd)).is_ok() {});
    }
    for result in answers {
        if let Err(error) = result {
            eprintln!("demo: {error:#}");
            std::thread::sleep(Duration::from_millis(100));
        } else if once {
            break;
        }
    }
    Ok(())
}

/// One answer on a descriptor, whatever it is: a listening socket, one with messages, or a FIFO.
fn answer(fd: RawFd) -> Result<()> {
    match patiently(|| accept(fd)) {
        Ok(connection) => {
            let sent = serve(connection);
            close(connection)?;
            sent
        }
        Err(Errno::ENOTSOCK) => echo_fifo(fd),
        Err(Errno::EOPNOTSUPP | Errno::EINVAL) => answer_message(fd),
        Err(error) => bail!("accept on {fd}: {error}"),
    }
}

/// A call that is repeated while the descriptor, which may be non-blocking, has nothing.
fn patiently<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EAGAIN | Errno::EINTR) => std::thread::sleep(Duration::from_millis(2)),
            result => return result,
        }
    }
}

fn answer_message(fd: RawFd) -> Result<()> {
    let mut buffer = [0; 4096];
    let (size, peer) = patiently(|| recvfrom::<SockaddrStorage>(fd, &mut buffer))?;
    eprintln!("demo: message of {size} bytes: {}", String::from_utf8_lossy(&buffer[..size]));
    if let Some(peer) = peer {
        // A sender without an address cannot be answered, which is no error of ours.
        let _ = sendto(fd, facts::gather().as_bytes(), &peer, MsgFlags::MSG_NOSIGNAL);
    }
    Ok(())
}

fn echo_fifo(fd: RawFd) -> Result<()> {
    let mut text = String::new();
    File::open(format!("/proc/self/fd/{fd}"))?.read_to_string(&mut text)?;
    eprintln!("demo: FIFO said {}", text.trim());
    Ok(())
}

fn serve(connection: RawFd) -> Result<()> {
    let text = facts::gather();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let sent = patiently(|| send(connection, rest, MsgFlags::MSG_NOSIGNAL))?;
        rest = &rest[sent..];
    }
    Ok(())
}

/// Answers on a descriptor that is a connection already.
pub fn connection(fd: RawFd) -> Result<()> {
    serve(fd)
}

/// A connection of either kind.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// AF_UNIX, by path or abstract name.
    Unix(UnixStream),
}

/// Connects to a path, an `@abstract` name or a `host:port`.
pub fn connect(address: &str) -> Result<Stream> {
    let result = if let Some(name) = address.strip_prefix('@') {
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?).map(Stream::Unix)
    } else if let Some(rest) = address.strip_prefix("vsock:") {
        vsock(rest).map(|fd| Stream::Unix(fd.into()))
    } else if address.starts_with('/') {
        UnixStream::connect(address).map(Stream::Unix)
    } else {
        TcpStream::connect(address).map(Stream::Tcp)
    };
    result.with_context(|| format!("connecting to {address}"))
}

/// Connects to `CID:PORT` of AF_VSOCK, by stream or sequential packets, whichever answers.
fn vsock(address: &str) -> std::io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
    let numbers: Vec<u32> = address.split(':').filter_map(|word| word.parse().ok()).collect();
    let [cid, port] = numbers[..] else { return Err(std::io::Error::other("expected vsock:CID:PORT")) };
    let try_one = |kind| {
        let fd = socket(AddressFamily::Vsock, kind, SockFlag::SOCK_CLOEXEC, None)?;
        connect(fd.as_raw_fd(), &VsockAddr::new(cid, port))?;
        Ok::<OwnedFd, nix::Error>(fd)
    };
    Ok(try_one(SockType::Stream).or_else(|_| try_one(SockType::SeqPacket))?)
}

impl Stream {
    /// Reads to the end.
    pub fn read_all(&mut self, limit: Duration) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.read_to_end(&mut bytes)?;
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.read_to_end(&mut bytes)?;
            }
        }
        Ok(bytes)
    }
}

/// Connects, and prints what is answered.
pub fn ask(address: &str) -> Result<()> {
    let answer = connect(address)?.read_all(Duration::from_secs(10))?;
    print(&String::from_utf8_lossy(&answer))
}
