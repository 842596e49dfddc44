//! Socket options: one row a directive, and the sockets that it fits (socket(7), ip(7), ipv6(7), tcp(7), unix(7), netlink(7)).
//!
//! What must stay true: an option that the kernel refuses is a complaint that names the directive, never a failure of the
//! unit; a size that is over the limits is set as high as they allow.

use muster_unit::{SocketSection, Timespan, Timestamping};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::os::fd::BorrowedFd;

// Newer than the C library's headers.
const SO_PASSPIDFD: i32 = 76;
const SO_PASSRIGHTS: i32 = 83;
const IPV6_FREEBIND: i32 = 78;
const IPV6_TRANSPARENT: i32 = 75;
const NETLINK_PKTINFO: i32 = 3;
const SOL_NETLINK: i32 = 270;

/// Which sockets a row is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fits {
    Any,
    Unix,
    UnixOrNetlink,
    Netlink,
    Inet,
    V4,
    V6,
    Tcp,
}

/// What a socket is, as the kernel says.
struct Kind {
    domain: i32,
    kind: i32,
}

impl Kind {
    fn of(fd: BorrowedFd<'_>) -> Kind {
        let ask = |option| muster_sys::get_option(fd, libc::SOL_SOCKET, option).unwrap_or(0);
        Kind { domain: ask(libc::SO_DOMAIN), kind: ask(libc::SO_TYPE) }
    }

    fn fits(&self, fits: Fits) -> bool {
        let inet = self.domain == libc::AF_INET || self.domain == libc::AF_INET6;
        match fits {
            Fits::Any => true,
            Fits::Unix => self.domain == libc::AF_UNIX,
            Fits::UnixOrNetlink => self.domain == libc::AF_UNIX || self.domain == libc::AF_NETLINK,
            Fits::Netlink => self.domain == libc::AF_NETLINK,
            Fits::Inet => inet,
            Fits::V4 => self.domain == libc::AF_INET,
            Fits::V6 => self.domain == libc::AF_INET6,
            Fits::Tcp => inet && self.kind == libc::SOCK_STREAM,
        }
    }
}

/// Directive, sockets, level, option, value.
type Row = (&'static str, Fits, i32, i32, Option<i32>);

/// The options that are numbers.
fn rows(section: &SocketSection) -> [Row; 26] {
    use Fits::{Any, Inet, Netlink, Tcp, Unix, UnixOrNetlink, V4, V6};
    use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
    let s = section;
    let on = |set: bool| set.then_some(1);
    let seconds = |span: Option<Timespan>| span.map(|span| number(span.0.div_ceil(1_000_000)));
    let stamp = |wanted: Timestamping| on(s.timestamping() == wanted);
    [
        ("KeepAlive", Tcp, SOL_SOCKET, libc::SO_KEEPALIVE, on(s.keep_alive())),
        ("KeepAliveTimeSec", Tcp, IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(s.keep_alive_time_sec())),
        ("KeepAliveIntervalSec", Tcp, IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(s.keep_alive_interval_sec())),
        (
            "KeepAliveProbes",
            Tcp,
            IPPROTO_TCP,
            libc::TCP_KEEPCNT,
            s.keep_alive_probes().map(|n| number(n.into())),
        ),
        ("DeferAcceptSec", Tcp, IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds(s.defer_accept_sec())),
        ("NoDelay", Tcp, IPPROTO_TCP, libc::TCP_NODELAY, on(s.no_delay())),
        ("Broadcast", Inet, SOL_SOCKET, libc::SO_BROADCAST, on(s.broadcast())),
        ("PassCredentials", UnixOrNetlink, SOL_SOCKET, libc::SO_PASSCRED, on(s.pass_credentials())),
        ("PassPIDFD", Unix, SOL_SOCKET, SO_PASSPIDFD, on(s.pass_pidfd())),
        ("PassSecurity", UnixOrNetlink, SOL_SOCKET, libc::SO_PASSSEC, on(s.pass_security())),
        (
            "AcceptFileDescriptors",
            Unix,
            SOL_SOCKET,
            SO_PASSRIGHTS,
            (!s.accept_file_descriptors()).then_some(0),
        ),
        ("PassPacketInfo", V4, IPPROTO_IP, libc::IP_PKTINFO, on(s.pass_packet_info())),
        ("PassPacketInfo", V6, IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, on(s.pass_packet_info())),
        ("PassPacketInfo", Netlink, SOL_NETLINK, NETLINK_PKTINFO, on(s.pass_packet_info())),
        ("Timestamping", Any, SOL_SOCKET, libc::SO_TIMESTAMP, stamp(Timestamping::Us)),
        ("Timestamping", Any, SOL_SOCKET, libc::SO_TIMESTAMPNS, stamp(Timestamping::Ns)),
        ("Priority", Any, SOL_SOCKET, libc::SO_PRIORITY, s.priority()),
        ("Mark", Any, SOL_SOCKET, libc::SO_MARK, s.mark()),
        ("ReusePort", Inet, SOL_SOCKET, libc::SO_REUSEPORT, on(s.reuse_port())),
        ("IPTOS", Inet, IPPROTO_IP, libc::IP_TOS, s.ip_tos().map(|tos| tos.0)),
        ("IPTTL", Inet, IPPROTO_IP, libc::IP_TTL, s.ip_ttl()),
        ("IPTTL", V6, IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, s.ip_ttl()),
        ("FreeBind", Inet, IPPROTO_IP, libc::IP_FREEBIND, on(s.free_bind())),
        ("FreeBind", V6, IPPROTO_IPV6, IPV6_FREEBIND, on(s.free_bind())),
        ("Transparent", Inet, IPPROTO_IP, libc::IP_TRANSPARENT, on(s.transparent())),
        ("Transparent", V6, IPPROTO_IPV6, IPV6_TRANSPARENT, on(s.transparent())),
    ]
}

/// The options that are words.
fn words(section: &SocketSection) -> [(&'static str, Fits, i32, i32, Option<&str>); 2] {
    let congestion = section.tcp_congestion().as_deref();
    [
        ("BindToDevice", Fits::Inet, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, None),
        ("TCPCongestion", Fits::Tcp, libc::IPPROTO_TCP, libc::TCP_CONGESTION, congestion),
    ]
}

/// `BindToDevice=`. Unlike the others this one must hold: a socket that was meant for one network is not opened to all.
pub fn bind_to_device(section: &SocketSection, fd: BorrowedFd<'_>) -> Result<(), String> {
    let device = section.bind_to_device().as_deref().filter(|name| *name != "*");
    let Some(device) = device.filter(|_| Kind::of(fd).fits(Fits::Inet)) else { return Ok(()) };
    muster_sys::set_option_bytes(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes())
        .map_err(|error| format!("BindToDevice={device} was refused: {error}"))
}

/// Sets every option of the unit that fits the socket, be it listening or a connection; gives those that were refused.
pub fn apply(section: &SocketSection, fd: BorrowedFd<'_>) -> Vec<String> {
    let mut refused = Vec::new();
    let mut kind = None;
    let mut fits = |fits: Fits| kind.get_or_insert_with(|| Kind::of(fd)).fits(fits);
    for (name, sockets, level, option, value) in rows(section) {
        if let Some(value) = value.filter(|_| fits(sockets)) {
            refused.extend(complaint(name, &value, muster_sys::set_option(fd, level, option, value)));
        }
    }
    for (name, sockets, level, option, value) in words(section) {
        if let Some(value) = value.filter(|_| fits(sockets)) {
            let done = muster_sys::set_option_bytes(fd, level, option, value.as_bytes());
            refused.extend(complaint(name, &value, done));
        }
    }
    for (name, forced, plain, size) in [
        ("ReceiveBuffer", libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, section.receive_buffer()),
        ("SendBuffer", libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, section.send_buffer()),
    ] {
        if let Some(size) = size.map(|size| number(size.0)) {
            let set = |option| muster_sys::set_option(fd, libc::SOL_SOCKET, option, size);
            refused.extend(complaint(name, &size, set(forced).or_else(|_| set(plain))));
        }
    }
    refused
}

/// The same for a listening socket, which can also be bound again at once after its restart.
pub fn apply_to_listener(section: &SocketSection, fd: BorrowedFd<'_>) -> Vec<String> {
    let _ = muster_sys::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
    apply(section, fd)
}

/// Directive and value of every option of a descriptor that is not at zero.
pub fn read(fd: BorrowedFd<'_>) -> Vec<(&'static str, String)> {
    let (kind, nothing) = (Kind::of(fd), SocketSection::default());
    let mut found = Vec::new();
    let mut add = |name, value: String| {
        if value != "0" && !value.is_empty() && !found.iter().any(|(known, _)| *known == name) {
            found.push((name, value));
        }
    };
    for (name, sockets, level, option, _) in rows(&nothing) {
        if let (true, Ok(value)) = (kind.fits(sockets), muster_sys::get_option(fd, level, option)) {
            add(name, value.to_string());
        }
    }
    for (name, sockets, level, option, _) in words(&nothing) {
        if let (true, Ok(bytes)) = (kind.fits(sockets), muster_sys::get_option_bytes(fd, level, option, 64)) {
            add(name, String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned());
        }
    }
    for (name, option) in [("ReceiveBuffer", libc::SO_RCVBUF), ("SendBuffer", libc::SO_SNDBUF)] {
        if let Ok(value) = muster_sys::get_option(fd, libc::SOL_SOCKET, option) {
            add(name, value.to_string());
        }
    }
    if let Ok(size) = fcntl(fd, FcntlArg::F_GETPIPE_SZ) {
        add("PipeSize", size.to_string());
    }
    if let Ok((size, _)) = muster_sys::message_queue_size(fd) {
        add("MessageQueueMaxMessages", size.messages.to_string());
        add("MessageQueueMessageSize", size.message_size.to_string());
    }
    found
}

fn complaint(name: &str, value: &dyn std::fmt::Display, done: std::io::Result<()>) -> Option<String> {
    done.err().map(|error| format!("{name}={value} was refused: {error}"))
}

fn number(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
