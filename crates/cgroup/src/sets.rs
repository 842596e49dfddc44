//! Sets of nftables that a unit's cgroup, user and group are put in (`NFTSet=`, systemd.resource-control(5)), over
//! nfnetlink (Linux, include/uapi/linux/netfilter/nf_tables.h).
//!
//! The kernel works a batch off while it is sent, so nothing is waited for but its own lock.

use muster_unit::NftSet;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// NFNL_SUBSYS_NFTABLES, and NFT_MSG_NEWSETELEM and NFT_MSG_DELSETELEM below it.
const ADD: u16 = 10 << 8 | 12;
const DELETE: u16 = 10 << 8 | 14;
/// NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;

/// What is put in a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    family: u8,
    table: String,
    set: String,
    /// As the machine has the number.
    key: Vec<u8>,
}

impl Element {
    /// What a set is for; nothing where that is not known.
    pub(crate) fn of(set: &NftSet, cgroup: u64, runs_as: Option<(u32, u32)>) -> Option<Element> {
        let key = match set.source {
            3 => cgroup.to_ne_bytes().to_vec(),
            4 => runs_as?.0.to_ne_bytes().to_vec(),
            _ => runs_as?.1.to_ne_bytes().to_vec(),
        };
        let family = u8::try_from(set.family).ok()?;
        Some(Element { family, table: set.table.clone(), set: set.set.clone(), key })
    }

    /// Puts it there, where it may be already.
    pub(crate) fn add(&self) -> io::Result<()> {
        change(ADD, CREATE, self)
    }

    /// Takes it away. Whoever made the set may have taken that away.
    pub(crate) fn delete(&self) {
        let _ = change(DELETE, 0, self);
    }
}

/// Sends a batch of one, and reads what the kernel says of it.
fn change(kind: u16, flags: u16, element: &Element) -> io::Result<()> {
    let netlink = connect()?;
    let batch = [
        message(BATCH_BEGIN, REQUEST, 0, 10, &[]),
        message(kind, REQUEST | ACK | flags, element.family, 0, &element.attributes()),
        message(BATCH_END, REQUEST, 0, 10, &[]),
    ]
    .concat();
    sendto(netlink.as_raw_fd(), &batch, &NetlinkAddr::new(0, 0), MsgFlags::MSG_NOSIGNAL)?;
    let mut answer = [0_u8; 256];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    // Behind the head, of 16 bytes, is an errno, negative.
    let errno =
        answer.get(..length).and_then(|answer| answer.get(16..20)).and_then(|bytes| bytes.try_into().ok());
    match errno.map(i32::from_ne_bytes) {
        Some(0) | None => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
    }
}

fn connect() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?)
}

impl Element {
    /// NFTA_SET_ELEM_LIST_TABLE, _SET and _ELEMENTS, with one NFTA_LIST_ELEM of one NFTA_SET_ELEM_KEY.
    fn attributes(&self) -> Vec<u8> {
        let name = |text: &str| [text.as_bytes(), &[0]].concat();
        let value = attribute(1, &self.key);
        let key = attribute(1 | NESTED, &value);
        let element = attribute(1 | NESTED, &key);
        [attribute(1, &name(&self.table)), attribute(2, &name(&self.set)), attribute(3 | NESTED, &element)]
            .concat()
    }
}

/// A head of 16 bytes, the family, version and number of nfnetlink, and attributes.
fn message(kind: u16, flags: u16, family: u8, number: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(attributes.len().saturating_add(20)).unwrap_or(u32::MAX);
    let mut all = length.to_ne_bytes().to_vec();
    all.extend(kind.to_ne_bytes());
    all.extend(flags.to_ne_bytes());
    all.extend([0; 8]);
    all.extend([family, 0]);
    all.extend(number.to_be_bytes());
    all.extend(attributes);
    all
}

/// Its length, its kind, and the value up to a border of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
    let mut all = length.to_ne_bytes().to_vec();
    all.extend(kind.to_ne_bytes());
    all.extend(value);
    all.resize(all.len().next_multiple_of(4), 0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_what_its_set_is_for() {
        let set = |source| NftSet { source, family: 1, table: "t".to_owned(), set: "s".to_owned() };
        let key = |source, runs_as| Element::of(&set(source), 7, runs_as).map(|element| element.key);
        assert_eq!(key(3, None), Some(7_u64.to_ne_bytes().to_vec()));
        assert_eq!(key(4, None), None);
        assert_eq!(key(4, Some((8, 9))), Some(8_u32.to_ne_bytes().to_vec()));
        assert_eq!(key(5, Some((8, 9))), Some(9_u32.to_ne_bytes().to_vec()));
        let attributes = Element::of(&set(3), 7, None).map(|element| element.attributes().len());
        assert_eq!(attributes, Some(8 + 8 + 4 + 4 + 4 + 12));
    }
}
