//! What a socket unit listens on (systemd.socket(5), `ListenStream=` and its kin).

use crate::diagnostic::{Code, Fault};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest path of a unix socket, in bytes, without the closing zero (unix(7)).
pub const UNIX_PATH_MAX: usize = 107;

/// Which directive, and so which type of socket or node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)] // each variant is its directive
pub enum ListenKind {
    Stream,
    Datagram,
    SequentialPacket,
    Fifo,
    Netlink,
    Special,
    MessageQueue,
    UsbFunction,
}

impl ListenKind {
    /// The word of the `Listen` property on D-Bus.
    pub fn as_str(self) -> &'static str {
        match self {
            ListenKind::Stream => "Stream",
            ListenKind::Datagram => "Datagram",
            ListenKind::SequentialPacket => "SequentialPacket",
            ListenKind::Fifo => "FIFO",
            ListenKind::Netlink => "Netlink",
            ListenKind::Special => "Special",
            ListenKind::MessageQueue => "MessageQueue",
            ListenKind::UsbFunction => "USBFunction",
        }
    }
}

/// `vsock-stream:`, `vsock-dgram:`, `vsock-seqpacket:` say more than the directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the type of socket
pub enum VsockKind {
    Stream,
    Datagram,
    SequentialPacket,
}

/// A socket address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // cid, port, kind, family and group are the kernel's
pub enum SocketAddress {
    /// A unix socket in the file system.
    Path(String),
    /// A unix socket in the abstract name space, without the `@`.
    Abstract(String),
    /// IPv4.
    Inet(Ipv4Addr, u16),
    /// IPv6, with the scope's interface (name or number) where given.
    Inet6(Ipv6Addr, u16, Option<String>),
    /// A bare port: IPv6, or IPv4 where the kernel has no IPv6.
    Port(u16),
    /// AF_VSOCK; `u32::MAX` for any context.
    Vsock { cid: u32, port: u32, kind: Option<VsockKind> },
    /// A netlink family by name, and a group.
    Netlink { family: String, group: u32 },
    /// A FIFO, a special file, a message queue's name, a FunctionFS mount.
    FilePath(String),
}

/// One address of a socket unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// Which directive.
    pub kind: ListenKind,
    /// Where.
    pub address: SocketAddress,
}

impl Listen {
    /// Where it lies in the file system: a socket with a path, or a FIFO.
    pub fn node(&self) -> Option<&str> {
        match (&self.address, self.kind) {
            (SocketAddress::Path(path), _) | (SocketAddress::FilePath(path), ListenKind::Fifo) => Some(path),
            _ => None,
        }
    }

    /// Whether it is an IPv4 or IPv6 address.
    pub fn is_internet(&self) -> bool {
        use SocketAddress::{Inet, Inet6, Port};
        matches!(self.address, Inet(..) | Inet6(..) | Port(_))
    }

    /// Reads the value of a directive.
    pub fn parse(kind: ListenKind, text: &str) -> Result<Listen, Fault> {
        let address = match kind {
            ListenKind::Stream | ListenKind::Datagram | ListenKind::SequentialPacket => {
                socket_address(kind, text)?
            }
            ListenKind::Fifo | ListenKind::Special | ListenKind::UsbFunction => {
                if !text.starts_with('/') {
                    return Err(Fault::new(Code::Path, text, "an absolute path"));
                }
                SocketAddress::FilePath(text.to_owned())
            }
            ListenKind::MessageQueue => {
                // A further slash is the kernel's to refuse, when it is opened.
                if text.len() < 2 || text.len() > 255 || !text.starts_with('/') {
                    return Err(Fault::new(Code::Name, text, "the name of a message queue, '/name'"));
                }
                SocketAddress::FilePath(text.to_owned())
            }
            ListenKind::Netlink => netlink(text)?,
        };
        Ok(Listen { kind, address })
    }
}

fn socket_address(kind: ListenKind, text: &str) -> Result<SocketAddress, Fault> {
    if text.starts_with('/') {
        if text.len() > UNIX_PATH_MAX {
            return Err(Fault::new(Code::Path, text, format!("a path of at most {UNIX_PATH_MAX} bytes")));
        }
        if text.split('/').any(|part| part == "..") {
            return Err(Fault::new(Code::Path, text, "a path without '..'"));
        }
        return Ok(SocketAddress::Path(text.trim_end_matches('/').to_owned()));
    }
    if let Some(name) = text.strip_prefix('@') {
        if name.is_empty() || name.len() > UNIX_PATH_MAX {
            let expected = format!("1 to {UNIX_PATH_MAX} bytes after the '@'");
            return Err(Fault::new(Code::Name, text, expected));
        }
        return Ok(SocketAddress::Abstract(name.to_owned()));
    }
    if kind == ListenKind::SequentialPacket {
        return Err(Fault::new(
            Code::Value,
            text,
            "/path or @abstract: only unix sockets have sequential packets",
        ));
    }
    let vsock = [
        ("vsock:", None),
        ("vsock-stream:", Some(VsockKind::Stream)),
        ("vsock-dgram:", Some(VsockKind::Datagram)),
        ("vsock-seqpacket:", Some(VsockKind::SequentialPacket)),
    ];
    for (prefix, vsock_kind) in vsock {
        if let Some(rest) = text.strip_prefix(prefix) {
            return vsock_address(rest, vsock_kind)
                .ok_or_else(|| Fault::new(Code::Value, text, "vsock:CID:PORT"));
        }
    }
    inet_address(text).ok_or_else(|| {
        Fault::new(Code::Value, text, "/path, @abstract, port, v.w.x.y:port, [v6]:port or vsock:cid:port")
    })
}

fn vsock_address(rest: &str, kind: Option<VsockKind>) -> Option<SocketAddress> {
    let (cid, port) = rest.split_once(':')?;
    let number = |text: &str| if text.is_empty() { Some(u32::MAX) } else { text.parse().ok() };
    Some(SocketAddress::Vsock { cid: number(cid)?, port: number(port)?, kind })
}

fn inet_address(text: &str) -> Option<SocketAddress> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, tail) = rest.split_once(']')?;
        let (address, inner_scope) = inside.split_once('%').map_or((inside, None), |(a, s)| (a, Some(s)));
        let tail = tail.strip_prefix(':')?;
        let (number, outer_scope) = tail.split_once('%').map_or((tail, None), |(p, s)| (p, Some(s)));
        let scope = inner_scope.or(outer_scope).map(str::to_owned);
        if scope.as_deref().is_some_and(|scope| scope.is_empty() || scope.len() > 15) {
            return None;
        }
        return Some(SocketAddress::Inet6(address.parse().ok()?, port(number)?, scope));
    }
    if let Some((address, number)) = text.rsplit_once(':') {
        return Some(SocketAddress::Inet(address.parse().ok()?, port(number)?));
    }
    port(text).map(SocketAddress::Port)
}

/// Netlink families by name, with their numbers (netlink(7)).
pub const NETLINK_FAMILIES: &[(&str, i32)] = &[
    ("route", 0),
    ("usersock", 2),
    ("firewall", 3),
    ("inet-diag", 4),
    ("nflog", 5),
    ("xfrm", 6),
    ("selinux", 7),
    ("iscsi", 8),
    ("audit", 9),
    ("fib-lookup", 10),
    ("connector", 11),
    ("netfilter", 12),
    ("ip6-fw", 13),
    ("dnrtmsg", 14),
    ("kobject-uevent", 15),
    ("generic", 16),
    ("scsitransport", 18),
    ("ecryptfs", 19),
    ("rdma", 20),
    ("crypto", 21),
    ("smc", 22),
];

fn netlink(text: &str) -> Result<SocketAddress, Fault> {
    let mut words = text.split_whitespace();
    let family = words.next().unwrap_or("");
    let group = words.next().map_or(Some(0), |group| group.parse().ok());
    match (
        NETLINK_FAMILIES.iter().any(|(name, _)| *name == family) || family.parse::<u8>().is_ok(),
        group,
        words.next(),
    ) {
        (true, Some(group), None) => {
            // A number that has a name is shown by it.
            let named = NETLINK_FAMILIES.iter().find(|(_, number)| family.parse() == Ok(*number));
            let family = named.map_or(family, |(name, _)| *name).to_owned();
            Ok(SocketAddress::Netlink { family, group })
        }
        _ => Err(Fault::new(Code::Value, text, "a netlink family and a group, such as 'kobject-uevent 1'")),
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketAddress::Path(path) | SocketAddress::FilePath(path) => out.write_str(path),
            SocketAddress::Abstract(name) => write!(out, "@{name}"),
            SocketAddress::Inet(address, port) => write!(out, "{address}:{port}"),
            SocketAddress::Inet6(address, port, None) => write!(out, "[{address}]:{port}"),
            SocketAddress::Inet6(address, port, Some(scope)) => write!(out, "[{address}]:{port}%{scope}"),
            SocketAddress::Port(port) => write!(out, "[::]:{port}"),
            SocketAddress::Vsock { cid: u32::MAX, port, .. } => write!(out, "vsock::{port}"),
            SocketAddress::Vsock { cid, port, .. } => write!(out, "vsock:{cid}:{port}"),
            SocketAddress::Netlink { family, group } => write!(out, "{family} {group}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_form() {
        let shown = |kind, text: &str| Listen::parse(kind, text).map(|listen| listen.address.to_string());
        for (text, want) in [
            ("/run/x", "/run/x"),
            ("@x", "@x"),
            ("80", "[::]:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("[fe80::1]:80%eth0", "[fe80::1]:80%eth0"),
            ("[fe80::1%eth0]:80", "[fe80::1]:80%eth0"),
            ("vsock:2:1234", "vsock:2:1234"),
            ("vsock::1234", "vsock::1234"),
        ] {
            assert_eq!(shown(ListenKind::Stream, text).as_deref(), Ok(want));
        }
        for bad in ["", "foo", "0", "70000", "1.2.3:80", "[::1:80", "@"] {
            assert!(shown(ListenKind::Stream, bad).is_err(), "{bad}");
        }
        assert!(shown(ListenKind::Stream, &format!("/{}", "x".repeat(107))).is_err());
        assert!(shown(ListenKind::SequentialPacket, "80").is_err());
        assert_eq!(shown(ListenKind::Netlink, "kobject-uevent 1").as_deref(), Ok("kobject-uevent 1"));
        assert_eq!(shown(ListenKind::MessageQueue, "/q").as_deref(), Ok("/q"));
        assert!(shown(ListenKind::MessageQueue, "a").is_err());
    }
}
