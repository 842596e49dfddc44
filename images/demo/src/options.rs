//! What the kernel says about each passed descriptor: one `NAME OPTION=value` a line, errors left out.

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{SockaddrStorage, getsockname};
use std::fmt::Write;
use std::os::fd::BorrowedFd;

/// Name, level, option.
const NUMBERS: [(&str, i32, i32); 32] = [
    ("DOMAIN", 1, 39),
    ("TYPE", 1, 3),
    ("PROTOCOL", 1, 38),
    ("ACCEPTCONN", 1, 30),
    ("REUSEADDR", 1, 2),
    ("REUSEPORT", 1, 15),
    ("KEEPALIVE", 1, 9),
    ("BROADCAST", 1, 6),
    ("SNDBUF", 1, 7),
    ("RCVBUF", 1, 8),
    ("PRIORITY", 1, 12),
    ("MARK", 1, 36),
    ("PASSCRED", 1, 16),
    ("PASSPIDFD", 1, 76),
    ("PASSSEC", 1, 34),
    ("PASSRIGHTS", 1, 83),
    ("TIMESTAMP", 1, 29),
    ("TIMESTAMPNS", 1, 35),
    ("IP_TOS", 0, 1),
    ("IP_TTL", 0, 2),
    ("IP_PKTINFO", 0, 8),
    ("IP_FREEBIND", 0, 15),
    ("IP_TRANSPARENT", 0, 19),
    ("IPV6_HOPS", 41, 16),
    ("IPV6_V6ONLY", 41, 26),
    ("IPV6_RECVPKTINFO", 41, 49),
    ("TCP_NODELAY", 6, 1),
    ("TCP_KEEPIDLE", 6, 4),
    ("TCP_KEEPINTVL", 6, 5),
    ("TCP_KEEPCNT", 6, 6),
    ("TCP_DEFER_ACCEPT", 6, 9),
    ("NETLINK_PKTINFO", 270, 3),
];
const TEXTS: [(&str, i32, i32); 2] = [("BINDTODEVICE", 1, 25), ("TCP_CONGESTION", 6, 13)];

/// The report on all descriptors from 3.
pub fn report() -> Result<String> {
    let count: i32 = std::env::var("LISTEN_FDS").context("no LISTEN_FDS")?.parse()?;
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut text = String::new();
    for number in 3..3 + count {
        describe(&mut text, names.next().unwrap_or(""), number)?;
    }
    Ok(text)
}

fn describe(text: &mut String, name: &str, number: i32) -> Result<()> {
    let fd = muster_sys::borrow_fd(number);
    writeln!(text, "{name} FD={number}")?;
    if let Some(address) = address(number) {
        writeln!(text, "{name} ADDRESS={address}")?;
    }
    for (option, level, code) in NUMBERS {
        if let Ok(value) = muster_sys::get_option(fd, level, code) {
            writeln!(text, "{name} {option}={value}")?;
        }
    }
    for (option, level, code) in TEXTS {
        if let Ok(value) = muster_sys::get_option_bytes(fd, level, code, 64) {
            writeln!(text, "{name} {option}={}", String::from_utf8_lossy(&value).trim_end_matches('\0'))?;
        }
    }
    file(text, name, fd)
}

/// What getsockname(2) says.
fn address(number: i32) -> Option<String> {
    let address = getsockname::<SockaddrStorage>(number).ok()?;
    if let Some(unix) = address.as_unix_addr() {
        let path = unix.path().map(|path| path.display().to_string());
        return path.or_else(|| Some(format!("@{}", String::from_utf8_lossy(unix.as_abstract()?))));
    }
    if let Some(netlink) = address.as_netlink_addr() {
        // The groups are a mask, and the kernel tells of the first 32 only.
        return Some(format!("netlink:{}", netlink.groups()));
    }
    let vsock = address.as_vsock_addr().map(|vsock| format!("vsock:{}:{}", vsock.cid(), vsock.port()));
    vsock.or_else(|| Some(address.as_sockaddr_in()?.to_string())).or_else(|| {
        let inet = address.as_sockaddr_in6()?;
        Some(format!("[{}]:{}", inet.ip(), inet.port()))
    })
}

/// What fcntl(2) and mq_getattr(3) say.
fn file(text: &mut String, name: &str, fd: BorrowedFd<'_>) -> Result<()> {
    if let Ok(size) = fcntl(fd, FcntlArg::F_GETPIPE_SZ) {
        writeln!(text, "{name} PIPE_SZ={size}")?;
    }
    if let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) {
        writeln!(text, "{name} ACCMODE={} NONBLOCK={}", flags & 3, (flags >> 11) & 1)?;
    }
    if let Ok((size, waiting)) = muster_sys::message_queue_size(fd) {
        writeln!(text, "{name} MQ={}x{} WAITING={waiting}", size.messages, size.message_size)?;
    }
    Ok(())
}
