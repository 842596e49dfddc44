//! One address → its descriptors: made, options set, bound, owned, listening.
//!
//! Options come before bind(2), since some (`FreeBind=`, `ReusePort=`, `Transparent=`) decide whether it is allowed.

use crate::node::{Made, finish, is_foreign, make_parents, remove_stale, with_mode};
use crate::{Surroundings, label, options, usb};
use muster_unit::{
    BindIpv6Only, Listen, ListenKind, NETLINK_FAMILIES, SocketAddress, SocketProtocol, SocketSection,
    VsockKind,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open as open_file};
use nix::libc;
use nix::sys::socket::{
    NetlinkAddr, SockaddrIn, SockaddrIn6, SockaddrLike, UnixAddr, VsockAddr, bind, sockopt,
};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use std::ffi::CString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Why an address cannot be had.
type Outcome<T> = Result<T, String>;

fn text(error: Errno) -> String {
    error.desc().to_owned()
}

/// The opening of one address of a unit.
pub(crate) struct Opening<'a> {
    pub section: &'a SocketSection,
    pub surroundings: &'a Surroundings,
    pub nodes: &'a mut Made,
    pub warnings: &'a mut Vec<String>,
}

impl Opening<'_> {
    /// All descriptors of an address; the first is the one that is watched.
    pub fn open(&mut self, listen: &Listen) -> Outcome<Vec<OwnedFd>> {
        let fd = match (&listen.address, listen.kind) {
            (SocketAddress::FilePath(path), ListenKind::Fifo) => self.fifo(path)?,
            (SocketAddress::FilePath(path), ListenKind::Special) => self.special(path)?,
            (SocketAddress::FilePath(name), ListenKind::MessageQueue) => self.message_queue(name)?,
            (SocketAddress::FilePath(path), ListenKind::UsbFunction) => {
                return usb::open(path, self.surroundings.function.as_ref());
            }
            (SocketAddress::FilePath(_), _) => return Err("this address is for no socket".to_owned()),
            (SocketAddress::Netlink { family, group }, _) => self.netlink(family, *group)?,
            (SocketAddress::Path(path), kind) => self.unix_path(path, kind)?,
            (SocketAddress::Abstract(name), kind) => self.unix_abstract(name, kind)?,
            (SocketAddress::Inet(address, port), kind) => self.inet(*address, *port, kind)?,
            (SocketAddress::Inet6(address, port, scope), kind) => {
                self.inet6(*address, *port, scope.as_deref(), kind)?
            }
            (SocketAddress::Port(port), kind) => self.port(*port, kind)?,
            (SocketAddress::Vsock { cid, port, kind: wanted }, kind) => {
                self.vsock(*cid, *port, *wanted, kind)?
            }
        };
        label(self.section, listen, &fd, self.warnings);
        Ok(vec![fd])
    }

    fn fifo(&mut self, path: &str) -> Outcome<OwnedFd> {
        let mode = self.section.socket_mode().0;
        make_parents(path, self.section.directory_mode().0);
        match with_mode(mode, || nix::unistd::mkfifo(path, Mode::from_bits_truncate(mode))) {
            Ok(()) => self.nodes.path(path),
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(text(error)),
        }
        // Never a link: whoever may write the directory could lead us elsewhere.
        let flags =
            OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW;
        let fd = open_file(path, flags, Mode::empty()).map_err(text)?;
        if file_type(&fd)? != SFlag::S_IFIFO {
            return Err("something that is no FIFO is in the way".to_owned());
        }
        nix::sys::stat::fchmod(&fd, Mode::from_bits_truncate(mode)).map_err(text)?;
        self.surroundings.owner.give_fd(&fd).map_err(text)?;
        if let Some(size) = self.section.pipe_size() {
            let wanted = i32::try_from(size.0).unwrap_or(i32::MAX);
            if let Err(error) = fcntl(&fd, FcntlArg::F_SETPIPE_SZ(wanted)) {
                self.warnings.push(format!("PipeSize={wanted} was refused: {}", error.desc()));
            }
        }
        Ok(fd)
    }

    fn special(&mut self, path: &str) -> Outcome<OwnedFd> {
        let access = if self.section.writable() { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        let flags = access | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW;
        let fd = open_file(path, flags, Mode::empty()).map_err(text)?;
        match file_type(&fd)? {
            // Waiting for a file of FUSE would ask its server each time, which may never answer.
            SFlag::S_IFREG if is_fuse(&fd)? => Err("files of FUSE cannot be waited for".to_owned()),
            SFlag::S_IFCHR | SFlag::S_IFREG => Ok(fd),
            _ => Err("expected a character device, or a file of /proc or /sys".to_owned()),
        }
    }

    fn message_queue(&mut self, name: &str) -> Outcome<OwnedFd> {
        let section = self.section;
        let size = section.message_queue_max_messages().zip(section.message_queue_message_size());
        let size = size.map(|(messages, message_size)| muster_sys::QueueSize { messages, message_size });
        let name = CString::new(name).map_err(|error| error.to_string())?;
        let open = || muster_sys::message_queue(&name, section.socket_mode().0, size);
        let (fd, is_new) = with_mode(section.socket_mode().0, open).map_err(|error| queue_refused(&error))?;
        if is_new {
            self.nodes.queue(&name);
        }
        self.surroundings.owner.give_fd(&fd).map_err(text)?;
        Ok(fd)
    }

    fn netlink(&mut self, family: &str, group: u32) -> Outcome<OwnedFd> {
        let by_name = NETLINK_FAMILIES.iter().find(|(name, _)| *name == family).map(|(_, number)| *number);
        let number = by_name.or_else(|| family.parse().ok());
        let number = number.ok_or_else(|| format!("there is no netlink family {family}"))?;
        let fd = self.socket(libc::AF_NETLINK, libc::SOCK_RAW, number)?;
        self.bound(fd, &NetlinkAddr::new(0, group))
    }

    fn unix_path(&mut self, path: &str, kind: ListenKind) -> Outcome<OwnedFd> {
        let (mode, directory_mode) = (self.section.socket_mode().0, self.section.directory_mode().0);
        make_parents(path, directory_mode);
        let address = UnixAddr::new(path).map_err(text)?;
        let fd = self.socket(libc::AF_UNIX, kind_of(kind), 0)?;
        let bind = || with_mode(mode, || bind(fd.as_raw_fd(), &address));
        match bind() {
            Err(Errno::EADDRINUSE) if is_foreign(path) => {
                return Err("something that is no socket is in the way".to_owned());
            }
            Err(Errno::EADDRINUSE) => {
                remove_stale(path).map_err(|error| describe(&error))?;
                bind().map_err(text)?;
            }
            done => done.map_err(text)?,
        }
        self.nodes.path(path);
        finish(path, mode, self.surroundings.owner).map_err(|error| describe(&error))?;
        self.listening(fd, kind)
    }

    fn unix_abstract(&mut self, name: &str, kind: ListenKind) -> Outcome<OwnedFd> {
        let fd = self.socket(libc::AF_UNIX, kind_of(kind), 0)?;
        let fd = self.bound(fd, &UnixAddr::new_abstract(name.as_bytes()).map_err(text)?)?;
        self.listening(fd, kind)
    }

    fn inet(&mut self, address: Ipv4Addr, port: u16, kind: ListenKind) -> Outcome<OwnedFd> {
        let fd = self.socket(libc::AF_INET, kind_of(kind), self.protocol())?;
        let fd = self.bound(fd, &SockaddrIn::from(SocketAddrV4::new(address, port)))?;
        self.listening(fd, kind)
    }

    fn inet6(
        &mut self,
        address: Ipv6Addr,
        port: u16,
        scope: Option<&str>,
        kind: ListenKind,
    ) -> Outcome<OwnedFd> {
        let scope = match scope {
            None => 0,
            Some(name) => name
                .parse()
                .or_else(|_| nix::net::if_::if_nametoindex(name))
                .map_err(|_| format!("there is no network interface {name}"))?,
        };
        let fd = self.socket(libc::AF_INET6, kind_of(kind), self.protocol())?;
        let only = match self.section.bind_ipv6_only() {
            BindIpv6Only::Default => None,
            BindIpv6Only::Both => Some(false),
            BindIpv6Only::Ipv6Only => Some(true),
        };
        if let Some(only) = only {
            nix::sys::socket::setsockopt(&fd, sockopt::Ipv6V6Only, &only).map_err(text)?;
        }
        let fd = self.bound(fd, &SockaddrIn6::from(SocketAddrV6::new(address, port, 0, scope)))?;
        self.listening(fd, kind)
    }

    /// IPv6, which may serve IPv4 too; IPv4 where the kernel has no IPv6.
    fn port(&mut self, port: u16, kind: ListenKind) -> Outcome<OwnedFd> {
        if muster_sys::open_socket(libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).is_err() {
            return self.inet(Ipv4Addr::UNSPECIFIED, port, kind);
        }
        self.inet6(Ipv6Addr::UNSPECIFIED, port, None, kind)
    }

    fn vsock(
        &mut self,
        cid: u32,
        port: u32,
        wanted: Option<VsockKind>,
        kind: ListenKind,
    ) -> Outcome<OwnedFd> {
        let kind = match wanted {
            None => kind,
            Some(VsockKind::Stream) => ListenKind::Stream,
            Some(VsockKind::Datagram) => ListenKind::Datagram,
            Some(VsockKind::SequentialPacket) => ListenKind::SequentialPacket,
        };
        let fd = self.socket(libc::AF_VSOCK, kind_of(kind), 0)?;
        let fd = self.bound(fd, &VsockAddr::new(cid, port))?;
        self.listening(fd, kind)
    }

    /// A fresh socket with the unit's options.
    fn socket(&mut self, family: i32, kind: i32, protocol: i32) -> Outcome<OwnedFd> {
        let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let fd = muster_sys::open_socket(family, kind, protocol).map_err(|error| describe(&error))?;
        options::bind_to_device(self.section, fd.as_fd())?;
        self.warnings.extend(options::apply_to_listener(self.section, fd.as_fd()));
        Ok(fd)
    }

    fn bound(&mut self, fd: OwnedFd, address: &dyn SockaddrLike) -> Outcome<OwnedFd> {
        bind(fd.as_raw_fd(), address).map_err(text)?;
        Ok(fd)
    }

    fn listening(&mut self, fd: OwnedFd, kind: ListenKind) -> Outcome<OwnedFd> {
        if matches!(kind, ListenKind::Stream | ListenKind::SequentialPacket) {
            muster_sys::listen(fd.as_fd(), crate::backlog(self.section)).map_err(|error| describe(&error))?;
        }
        Ok(fd)
    }

    fn protocol(&self) -> i32 {
        match self.section.socket_protocol() {
            None => 0,
            Some(SocketProtocol::UdpLite) => libc::IPPROTO_UDPLITE,
            Some(SocketProtocol::Sctp) => libc::IPPROTO_SCTP,
            Some(SocketProtocol::Mptcp) => libc::IPPROTO_MPTCP,
        }
    }
}

fn describe(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |errno| text(Errno::from_raw(errno)))
}

fn kind_of(kind: ListenKind) -> i32 {
    match kind {
        ListenKind::Datagram => libc::SOCK_DGRAM,
        ListenKind::SequentialPacket => libc::SOCK_SEQPACKET,
        _ => libc::SOCK_STREAM,
    }
}

fn file_type(fd: &OwnedFd) -> Outcome<SFlag> {
    let mode = fstat(fd).map_err(text)?.st_mode;
    Ok(SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()))
}

fn is_fuse(fd: &OwnedFd) -> Outcome<bool> {
    fstatfs(fd).map(|found| found.filesystem_type() == FUSE_SUPER_MAGIC).map_err(text)
}

/// Why there is no queue, with what mq_overview(7) allows where a limit may be the reason.
fn queue_refused(error: &std::io::Error) -> String {
    let limit =
        |name: &str| std::fs::read_to_string(format!("/proc/sys/fs/mqueue/{name}")).unwrap_or_default();
    match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::EINVAL => format!(
            "{}; expected MessageQueueMaxMessages= up to {} and MessageQueueMessageSize= up to {}",
            describe(error),
            limit("msg_max").trim(),
            limit("msgsize_max").trim()
        ),
        Errno::EACCES => format!("{}; expected '/name' without a further '/'", describe(error)),
        _ => describe(error),
    }
}

/// Whether a socket is bound to this address, and of its type.
pub(crate) fn serves(listen: &Listen, fd: &OwnedFd) -> bool {
    let kind = nix::sys::socket::getsockopt(fd, sockopt::SockType).map(|kind| kind as i32);
    let Ok(bound) = nix::sys::socket::getsockname::<nix::sys::socket::SockaddrStorage>(fd.as_raw_fd()) else {
        return false;
    };
    let same = match &listen.address {
        SocketAddress::Path(path) => {
            bound.as_unix_addr().and_then(UnixAddr::path).is_some_and(|at| at == std::path::Path::new(path))
        }
        SocketAddress::Abstract(name) => {
            bound.as_unix_addr().and_then(UnixAddr::as_abstract).is_some_and(|at| at == name.as_bytes())
        }
        SocketAddress::Inet(address, port) => {
            bound.as_sockaddr_in().is_some_and(|at| at.ip() == *address && at.port() == *port)
        }
        SocketAddress::Inet6(address, port, _) => {
            bound.as_sockaddr_in6().is_some_and(|at| at.ip() == *address && at.port() == *port)
        }
        SocketAddress::Port(port) => {
            bound.as_sockaddr_in6().is_some_and(|at| at.ip().is_unspecified() && at.port() == *port)
                || bound.as_sockaddr_in().is_some_and(|at| at.ip().is_unspecified() && at.port() == *port)
        }
        SocketAddress::Vsock { .. } | SocketAddress::Netlink { .. } | SocketAddress::FilePath(_) => false,
    };
    same && kind == Ok(kind_of(listen.kind))
}
