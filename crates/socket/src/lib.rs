//! A socket unit's configuration → bound descriptors; accept; flush (systemd.socket(5)).
//!
//! Reading order: [`open`] here (every address of a unit, all or nothing), [`address`] (one address), `node` (what lies in
//! the file system), `options` and `labels` (one row a directive), `usb` (FunctionFS), [`connection`] (accept, and who is
//! at the far end).
//!
//! What must stay true: what fails leaves no descriptor and no node behind; only stale *sockets* are replaced, never
//! another kind of file; an option that the kernel refuses is a warning, not a failure.
#![forbid(unsafe_code)]

mod address;
pub mod connection;
mod labels;
mod node;
mod options;
mod queue;
mod usb;

pub use connection::{Accept, PeerInfo, accept, flush};
pub use node::Owner;
pub use queue::{Waiting, waiting};
pub use usb::Function;

use muster_unit::{Listen, ListenErrorAction, ListenKind, SocketAddress, SocketSection};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a descriptor of a socket unit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Connections come in on it.
    Connections,
    /// Data comes in on it.
    Data,
    /// It is passed with another, and not watched (endpoints of a USB function).
    Companion,
}

/// One descriptor.
#[derive(Debug)]
pub struct OpenedSocket {
    /// Which entry of `listen` it serves.
    pub listen_index: u32,
    /// The new descriptor; `None` when the kept one serves on.
    pub fd: Option<OwnedFd>,
    /// The role of the descriptor.
    pub role: Role,
}

/// All of a unit.
#[derive(Debug, Default)]
pub struct Opened {
    /// In the order of the file.
    pub sockets: Vec<OpenedSocket>,
    /// Options that the kernel refused, and addresses that were left out.
    pub warnings: Vec<String>,
}

/// What opening needs to know beside the unit itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// The owner of nodes in the file system.
    pub owner: Owner,
    /// What the service says of its USB function.
    pub function: Option<Function>,
}

/// What a descriptor of this kind does.
fn role(kind: ListenKind) -> Role {
    match kind {
        ListenKind::Stream | ListenKind::SequentialPacket => Role::Connections,
        ListenKind::Datagram
        | ListenKind::Fifo
        | ListenKind::Netlink
        | ListenKind::Special
        | ListenKind::MessageQueue
        | ListenKind::UsbFunction => Role::Data,
    }
}

/// Sets on an accepted connection what its socket unit says; gives what the kernel refused.
pub fn apply_connection_options(section: &SocketSection, fd: BorrowedFd<'_>) -> Vec<String> {
    let mut refused = options::apply(section, fd);
    refused.extend(labels::accepted(section, fd));
    refused
}

/// The options of a descriptor that are not at zero, as the kernel has them: directive and value.
pub fn options_of(fd: BorrowedFd<'_>) -> Vec<(&'static str, String)> {
    options::read(fd)
}

/// The paths that opening an address walks.
pub fn paths_of<'a>(listen: &'a Listen, surroundings: &'a Surroundings) -> Vec<&'a str> {
    match (&listen.address, listen.kind) {
        (SocketAddress::FilePath(_), ListenKind::MessageQueue) => Vec::new(),
        (SocketAddress::FilePath(path), ListenKind::UsbFunction) => {
            let function = surroundings.function.iter();
            let files =
                function.flat_map(|function| [function.descriptors.as_str(), function.strings.as_str()]);
            files.chain([path.as_str()]).collect()
        }
        (SocketAddress::FilePath(path) | SocketAddress::Path(path), _) => vec![path.as_str()],
        _ => Vec::new(),
    }
}

/// Sets the options of the unit on a descriptor that serves on; gives what the kernel refused.
pub fn renew(section: &SocketSection, fd: BorrowedFd<'_>) -> Vec<String> {
    options::apply_to_listener(section, fd)
}

/// Listens once more on a socket that a helper made: clients are to see this process at the far end (unix(7),
/// `SO_PEERCRED`).
pub fn take_over(section: &SocketSection, fd: BorrowedFd<'_>) -> std::io::Result<()> {
    muster_sys::listen(fd, backlog(section))
}

pub(crate) fn backlog(section: &SocketSection) -> i32 {
    i32::try_from(section.backlog()).unwrap_or(i32::MAX)
}

/// Opens every address but those of which a descriptor serves on (`keep`, by listen index). One address that cannot be had
/// fails them all, and what was made for the others goes again; with `ListenErrorAction=continue` it is a warning.
pub fn open(section: &SocketSection, surroundings: &Surroundings, keep: &[u32]) -> Result<Opened, String> {
    let mut opened = Opened::default();
    let mut nodes = node::Made::default();
    for (listen_index, listen) in (0_u32..).zip(section.listen()) {
        let role = role(listen.kind);
        if keep.contains(&listen_index) {
            opened.sockets.push(OpenedSocket { listen_index, fd: None, role });
            continue;
        }
        let mut opening =
            address::Opening { section, surroundings, nodes: &mut nodes, warnings: &mut opened.warnings };
        match opening.open(listen) {
            Ok(all) => {
                let roles = [role].into_iter().chain(std::iter::repeat(Role::Companion));
                let sockets = all.into_iter().zip(roles);
                opened.sockets.extend(sockets.map(|(fd, role)| OpenedSocket {
                    listen_index,
                    fd: Some(fd),
                    role,
                }));
            }
            Err(why) => {
                let message = format!("Listen{}={}: {why}", listen.kind.as_str(), listen.address);
                if section.listen_error_action() != ListenErrorAction::Continue {
                    return Err(message);
                }
                opened.warnings.push(message);
            }
        }
    }
    if opened.sockets.is_empty() {
        return Err("none of its addresses could be had".to_owned());
    }
    node::make_symlinks(section, &mut opened.warnings);
    nodes.keep();
    Ok(opened)
}

/// Whether a socket listens on this address.
pub fn serves(listen: &Listen, fd: &OwnedFd) -> bool {
    address::serves(listen, fd)
}

/// Labels a fresh descriptor and its node.
fn label(section: &SocketSection, listen: &Listen, fd: &OwnedFd, warnings: &mut Vec<String>) {
    warnings.extend(labels::listening(section, fd.as_fd(), listen.node()));
}
