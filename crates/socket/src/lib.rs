//! A socket unit's configuration → bound descriptors; accept; flush (systemd.socket(5)).
//!
//! What must stay true: what fails leaves no descriptor and no node behind; only stale *sockets* are replaced, never
//! another kind of file; an option that the kernel refuses is a warning, not a failure.
#![forbid(unsafe_code)]

mod labels;
mod options;

use muster_unit::{Listen, ListenKind, NETLINK_FAMILIES, SocketAddress, SocketSection};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_file};
use nix::sys::socket::{
    AddressFamily, Backlog, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    SockaddrStorage, UnixAddr, accept4, bind, getpeername, getsockname, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::Mode;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::path::Path;

/// One opened address; `fd` is `None` when the kept descriptor serves on.
#[derive(Debug)]
pub struct OpenedSocket {
    /// Which entry of `listen`.
    pub listen_index: u32,
    /// The new descriptor.
    pub fd: Option<OwnedFd>,
    /// Whether connections are accepted on it.
    pub connection_based: bool,
}

/// All of a unit.
#[derive(Debug, Default)]
pub struct Opened {
    /// In the order of the file.
    pub sockets: Vec<OpenedSocket>,
    /// Options that the kernel refused.
    pub warnings: Vec<String>,
}

/// Sets on an accepted connection what its socket unit says; gives what the kernel refused.
pub fn apply_connection_options(section: &SocketSection, fd: BorrowedFd<'_>) -> Vec<String> {
    let mut refused = options::apply(section, fd);
    refused.extend(labels::accepted(section, fd));
    refused
}

/// Opens every address. `keep` are descriptors that serve on, by listen index.
pub fn open(section: &SocketSection, keep: &[(u32, BorrowedFd<'_>)]) -> Result<Opened, String> {
    let mut opened = Opened::default();
    let mut nodes = Vec::new();
    for (index, listen) in (0_u32..).zip(&section.listen) {
        let kept = keep.iter().find(|(at, _)| *at == index).map(|(_, fd)| *fd);
        let fd = match kept {
            Some(fd) => {
                opened.warnings.extend(options::apply_to_listener(section, fd));
                None
            }
            None => match open_one(section, listen, &mut opened.warnings, &mut nodes) {
                Ok(fd) => {
                    let node = match &listen.address {
                        SocketAddress::Path(path) => Some(path.as_str()),
                        SocketAddress::FilePath(path) if listen.kind == ListenKind::Fifo => {
                            Some(path.as_str())
                        }
                        _ => None,
                    };
                    opened.warnings.extend(labels::listening(section, fd.as_fd(), node));
                    Some(fd)
                }
                Err(error) => {
                    let message = format!("Listen{}={}: {error}", listen.kind.as_str(), listen.address);
                    if section.listen_error_action == muster_unit::ListenErrorAction::Continue {
                        opened.warnings.push(message);
                        continue;
                    }
                    // Nothing half-made stays.
                    nodes.iter().for_each(|node| drop(std::fs::remove_file(node)));
                    return Err(message);
                }
            },
        };
        let connection_based = matches!(listen.kind, ListenKind::Stream | ListenKind::SequentialPacket);
        opened.sockets.push(OpenedSocket { listen_index: index, fd, connection_based });
    }
    make_symlinks(section, &mut opened.warnings);
    Ok(opened)
}

type Result2<T> = Result<T, String>;

fn text(error: Errno) -> String {
    error.desc().to_owned()
}

fn open_one(
    section: &SocketSection,
    listen: &Listen,
    warnings: &mut Vec<String>,
    nodes: &mut Vec<String>,
) -> Result2<OwnedFd> {
    match (&listen.address, listen.kind) {
        (SocketAddress::FilePath(path), ListenKind::Fifo) => open_fifo(section, path, nodes),
        (SocketAddress::FilePath(path), ListenKind::Special) => {
            let access = if section.writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
            open_file(
                path.as_str(),
                access | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
                Mode::empty(),
            )
            .map_err(text)
        }
        (SocketAddress::FilePath(name), ListenKind::MessageQueue) => {
            let size = match (section.message_queue_max_messages, section.message_queue_message_size) {
                (Some(messages), Some(message_size)) => {
                    Some(muster_sys::QueueSize { messages, message_size })
                }
                _ => None,
            };
            let name = std::ffi::CString::new(name.as_str()).map_err(|error| error.to_string())?;
            muster_sys::message_queue(&name, section.socket_mode, size).map_err(|error| error.to_string())
        }
        (SocketAddress::FilePath(_), _) => Err("USB functions are not supported by this version".to_owned()),
        (SocketAddress::Netlink { family, group }, _) => open_netlink(section, family, *group, warnings),
        _ => open_socket(section, listen, warnings, nodes),
    }
}

fn open_fifo(section: &SocketSection, path: &str, nodes: &mut Vec<String>) -> Result2<OwnedFd> {
    make_parents(path, section.directory_mode);
    match nix::unistd::mkfifo(path, Mode::from_bits_truncate(section.socket_mode)) {
        Ok(()) => nodes.push(path.to_owned()),
        Err(Errno::EEXIST) => {}
        Err(error) => return Err(text(error)),
    }
    if !std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return Err("something that is no FIFO is in the way".to_owned());
    }
    let fd =
        open_file(path, OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty()).map_err(text)?;
    if let Some(size) = section.pipe_size {
        let _ = nix::fcntl::fcntl(
            &fd,
            nix::fcntl::FcntlArg::F_SETPIPE_SZ(i32::try_from(size.0).unwrap_or(i32::MAX)),
        );
    }
    own(section, path)?;
    Ok(fd)
}

fn open_netlink(
    section: &SocketSection,
    family: &str,
    group: u32,
    warnings: &mut Vec<String>,
) -> Result2<OwnedFd> {
    let number = NETLINK_FAMILIES.iter().find(|(name, _)| *name == family).map(|(_, number)| *number);
    let protocol = match number {
        Some(0) => SockProtocol::NetlinkRoute,
        Some(9) => SockProtocol::NetlinkAudit,
        Some(15) => SockProtocol::NetlinkKObjectUEvent,
        Some(12) => SockProtocol::NetlinkNetFilter,
        _ => return Err(format!("netlink family {family} is not supported by this version")),
    };
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags(), protocol).map_err(text)?;
    warnings.extend(options::apply_to_listener(section, fd.as_fd()));
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, group)).map_err(text)?;
    Ok(fd)
}

fn flags() -> SockFlag {
    SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK
}

fn open_socket(
    section: &SocketSection,
    wanted: &Listen,
    warnings: &mut Vec<String>,
    nodes: &mut Vec<String>,
) -> Result2<OwnedFd> {
    let kind = match wanted.kind {
        ListenKind::Datagram => SockType::Datagram,
        ListenKind::SequentialPacket => SockType::SeqPacket,
        _ => SockType::Stream,
    };
    let make = |family| match section.socket_protocol {
        Some(protocol) if family != AddressFamily::Unix => {
            let number = match protocol {
                muster_unit::SocketProtocol::UdpLite => 136,
                muster_unit::SocketProtocol::Sctp => 132,
                muster_unit::SocketProtocol::Mptcp => 262,
            };
            let type_and_flags = kind as i32 | flags().bits();
            muster_sys::open_socket(family as i32, type_and_flags, number).map_err(|error| error.to_string())
        }
        _ => socket(family, kind, flags(), None).map_err(text),
    };
    let fd = match &wanted.address {
        SocketAddress::Path(path) => {
            let fd = make(AddressFamily::Unix)?;
            warnings.extend(options::apply_to_listener(section, fd.as_fd()));
            bind_path(section, &fd, path, nodes)?;
            fd
        }
        SocketAddress::Abstract(name) => {
            let fd = make(AddressFamily::Unix)?;
            warnings.extend(options::apply_to_listener(section, fd.as_fd()));
            bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).map_err(text)?).map_err(text)?;
            fd
        }
        SocketAddress::Inet(address, port) => {
            let fd = make(AddressFamily::Inet)?;
            warnings.extend(options::apply_to_listener(section, fd.as_fd()));
            bind(fd.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(*address, *port)))
                .map_err(text)?;
            fd
        }
        SocketAddress::Inet6(address, port, scope) => {
            bind6(section, make(AddressFamily::Inet6)?, *address, *port, scope.as_deref(), warnings)?
        }
        SocketAddress::Port(port) => match make(AddressFamily::Inet6) {
            Ok(fd) => bind6(section, fd, Ipv6Addr::UNSPECIFIED, *port, None, warnings)?,
            Err(error) if error == text(Errno::EAFNOSUPPORT) => {
                let fd = make(AddressFamily::Inet)?;
                warnings.extend(options::apply_to_listener(section, fd.as_fd()));
                bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, *port)).map_err(text)?;
                fd
            }
            Err(error) => return Err(error),
        },
        SocketAddress::Vsock { cid, port, .. } => {
            let fd = make(AddressFamily::Vsock)?;
            bind(fd.as_raw_fd(), &nix::sys::socket::VsockAddr::new(*cid, *port)).map_err(text)?;
            fd
        }
        SocketAddress::Netlink { .. } | SocketAddress::FilePath(_) => return Err("not a socket".to_owned()),
    };
    if wanted.kind != ListenKind::Datagram {
        let backlog = i32::try_from(section.backlog).unwrap_or(i32::MAX).min(4096);
        listen(&fd, Backlog::new(backlog).unwrap_or(Backlog::MAXCONN)).map_err(text)?;
    }
    Ok(fd)
}

fn bind6(
    section: &SocketSection,
    fd: OwnedFd,
    address: Ipv6Addr,
    port: u16,
    scope: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result2<OwnedFd> {
    use muster_unit::BindIpv6Only::{Both, Default, Ipv6Only};
    warnings.extend(options::apply_to_listener(section, fd.as_fd()));
    let only = match section.bind_ipv6_only {
        Default => None,
        Both => Some(false),
        Ipv6Only => Some(true),
    };
    if let Some(only) = only {
        nix::sys::socket::setsockopt(&fd, sockopt::Ipv6V6Only, &only).map_err(text)?;
    }
    let scope = match scope {
        None => 0,
        Some(name) => name
            .parse()
            .or_else(|_| nix::net::if_::if_nametoindex(name))
            .map_err(|_| format!("there is no interface {name}"))?,
    };
    bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(address, port, 0, scope))).map_err(text)?;
    Ok(fd)
}

fn bind_path(section: &SocketSection, fd: &OwnedFd, path: &str, nodes: &mut Vec<String>) -> Result2<()> {
    make_parents(path, section.directory_mode);
    let address = UnixAddr::new(path).map_err(text)?;
    match bind(fd.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) => {
            if !std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
                return Err("something that is no socket is in the way".to_owned());
            }
            std::fs::remove_file(path).map_err(|error| error.to_string())?;
            bind(fd.as_raw_fd(), &address).map_err(text)?;
        }
        done => done.map_err(text)?,
    }
    nodes.push(path.to_owned());
    std::fs::set_permissions(path, PermissionsExt::from_mode(section.socket_mode))
        .map_err(|error| error.to_string())?;
    own(section, path)
}

fn make_parents(path: &str, mode: u32) {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(parent) = Path::new(path).parent() {
        let _ = std::fs::DirBuilder::new().recursive(true).mode(mode).create(parent);
    }
}

/// `SocketUser=` and `SocketGroup=`, by the local files only: PID 1 asks no name service.
fn own(section: &SocketSection, path: &str) -> Result2<()> {
    let find = |file: &str, wanted: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let entry = text
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&wanted));
        entry.and_then(|fields| fields.get(2)?.parse().ok()).or_else(|| wanted.parse().ok())
    };
    let user = section
        .socket_user
        .as_deref()
        .map(|name| find("/etc/passwd", name).ok_or(format!("SocketUser={name}: there is no such user")))
        .transpose()?;
    let group = section
        .socket_group
        .as_deref()
        .map(|name| find("/etc/group", name).ok_or(format!("SocketGroup={name}: there is no such group")))
        .transpose()?;
    if user.is_some() || group.is_some() {
        chown(path, user, group).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn node_of(listen: &Listen) -> Option<&str> {
    match (&listen.address, listen.kind) {
        (SocketAddress::Path(path), _) | (SocketAddress::FilePath(path), ListenKind::Fifo) => Some(path),
        _ => None,
    }
}

fn make_symlinks(section: &SocketSection, warnings: &mut Vec<String>) {
    let Some(target) = section.listen.iter().find_map(node_of) else { return };
    for link in &section.symlinks {
        make_parents(link, section.directory_mode);
        if Path::new(link).is_symlink() {
            let _ = std::fs::remove_file(link);
        }
        if let Err(error) = symlink(target, link) {
            warnings.push(format!("Symlinks={link}: {error}"));
        }
    }
}

/// Removes nodes (`RemoveOnStop=`) and links.
pub fn remove_nodes(section: &SocketSection) {
    if !section.remove_on_stop {
        return;
    }
    section.listen.iter().filter_map(node_of).for_each(|path| drop(std::fs::remove_file(path)));
    section
        .symlinks
        .iter()
        .filter(|link| Path::new(link).is_symlink())
        .for_each(|link| drop(std::fs::remove_file(link)));
}

/// The far end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// Tail of the instance name.
    pub instance_tail: String,
    /// `REMOTE_ADDR`.
    pub remote_addr: Option<String>,
    /// `REMOTE_PORT`.
    pub remote_port: Option<u16>,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// What connections are counted by.
    pub source: String,
}

/// What accept(2) gave.
#[derive(Debug)]
#[allow(missing_docs)] // the connection, and who it is with
pub enum Accept {
    /// A connection.
    Connection { fd: OwnedFd, peer: PeerInfo },
    /// Nothing waits.
    WouldBlock,
    /// The client went away; try the next.
    Again,
    /// No descriptors or memory now.
    Exhausted(Errno),
    /// For good.
    Failed(Errno),
}

/// Takes one connection.
pub fn accept(listener: BorrowedFd<'_>) -> Accept {
    match accept4(listener.as_raw_fd(), flags()) {
        Ok(raw) => {
            let fd = muster_sys::adopt_fd(raw);
            let peer = peer(fd.as_fd());
            Accept::Connection { fd, peer }
        }
        Err(Errno::EAGAIN) => Accept::WouldBlock,
        Err(error @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) => {
            Accept::Exhausted(error)
        }
        Err(error @ (Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP)) => {
            Accept::Failed(error)
        }
        Err(_) => Accept::Again,
    }
}

/// An address and a port, v4 in v6 shown as v4.
fn inet(address: &SockaddrStorage) -> Option<(String, u16)> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some((v4.ip().to_string(), v4.port()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some((v6.ip().to_ipv4_mapped().map_or_else(|| v6.ip().to_string(), |v4| v4.to_string()), v6.port()))
}

fn peer(fd: BorrowedFd<'_>) -> PeerInfo {
    const SO_COOKIE: i32 = 57;
    let cookie = muster_sys::get_option_bytes(fd, 1, SO_COOKIE, 8)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_ne_bytes);
    let addresses = getsockname::<SockaddrStorage>(fd.as_raw_fd())
        .ok()
        .zip(getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok());
    if let Some(((here, here_port), (there, port))) =
        addresses.and_then(|(here, there)| inet(&here).zip(inet(&there)))
    {
        let instance_tail = format!("{here}:{here_port}-{there}:{port}");
        return PeerInfo {
            instance_tail,
            remote_addr: Some(there.clone()),
            remote_port: Some(port),
            cookie,
            source: there,
        };
    }
    match getsockopt(&fd, sockopt::PeerCredentials) {
        Ok(found) => PeerInfo {
            instance_tail: format!("{}-{}", found.pid(), found.uid()),
            source: format!("uid {}", found.uid()),
            cookie,
            ..PeerInfo::default()
        },
        Err(_) => PeerInfo { instance_tail: "unknown".to_owned(), cookie, ..PeerInfo::default() },
    }
}

/// Throws away what is queued.
pub fn flush(fd: BorrowedFd<'_>) {
    // The flag belongs to the open file, and a service that has it too may have cleared it; PID 1 must not wait here.
    if nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_err() {
        return;
    }
    for _ in 0..4096 {
        match accept(fd) {
            Accept::Connection { .. } | Accept::Again => {}
            Accept::WouldBlock | Accept::Exhausted(_) => return,
            Accept::Failed(_) => break,
        }
    }
    let mut buffer = [0_u8; 4096];
    for _ in 0..4096 {
        if !matches!(nix::unistd::read(fd, &mut buffer), Ok(length) if length > 0) {
            return;
        }
    }
}

/// Bytes that wait, where the kernel says.
pub fn queue_length(fd: BorrowedFd<'_>) -> Option<u64> {
    muster_sys::bytes_waiting(fd).ok().and_then(|bytes| u64::try_from(bytes).ok())
}
