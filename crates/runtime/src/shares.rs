//! The namespaces that processes share: for each a pair of sockets, in whose queue the first process leaves its namespace and
//! the others find it (`exec::steps::namespaces`); in one more a process leaves the lock of the copy that it made of its root.
//! PID 1 only keeps the pairs, and hands them over.

use crate::hand_over::adopt;
use muster_manager::effect::{ShareId, Shared};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

type Pair = [OwnedFd; 2];

/// All of them.
#[derive(Debug, Default)]
pub struct Shares(BTreeMap<ShareId, Kept>);

#[derive(Debug, Default)]
struct Kept {
    network: Option<Pair>,
    ipc: Option<Pair>,
    copies: Option<Pair>,
}

/// One of them on its way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedShare {
    id: ShareId,
    network: Option<[RawFd; 2]>,
    ipc: Option<[RawFd; 2]>,
    #[serde(default)]
    copies: Option<[RawFd; 2]>,
}

impl HandedShare {
    /// Its descriptors.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.network.into_iter().chain(self.ipc).chain(self.copies).flatten()
    }
}

impl Shares {
    /// The pairs for the network and the IPC namespace of a share, and for the locks of copies of roots, where it has them.
    pub(crate) fn pairs(&self, shared: Option<&Shared>) -> [Option<[BorrowedFd<'_>; 2]>; 3] {
        fn lent(pair: &Option<Pair>, asked: bool) -> Option<[BorrowedFd<'_>; 2]> {
            pair.as_ref().filter(|_| asked).map(|pair| pair.each_ref().map(AsFd::as_fd))
        }
        let Some(shared) = shared else { return [None; 3] };
        let Some(kept) = self.0.get(&shared.id) else { return [None; 3] };
        let Shared { network, ipc, copies, .. } = *shared;
        [lent(&kept.network, network), lent(&kept.ipc, ipc), lent(&kept.copies, copies)]
    }

    /// Why a process cannot have what it shares, once what is missing of it is made.
    pub(crate) fn refusal(&mut self, shared: Option<&Shared>) -> Option<String> {
        let error = self.prepare(shared?).err()?;
        Some(format!("namespaces cannot be shared: {error}"))
    }

    /// What is missing of a share is made.
    pub(crate) fn prepare(&mut self, shared: &Shared) -> nix::Result<()> {
        let kept = self.0.entry(shared.id).or_default();
        let Kept { network, ipc, copies } = kept;
        for (pair, asked) in [(network, shared.network), (ipc, shared.ipc), (copies, shared.copies)] {
            if asked && pair.is_none() {
                let flags = SockFlag::SOCK_CLOEXEC;
                *pair = Some(socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)?.into());
            }
        }
        Ok(())
    }

    /// All, for the next program.
    pub(crate) fn handed(&self) -> Vec<HandedShare> {
        let numbers = |pair: &Option<Pair>| pair.as_ref().map(|pair| pair.each_ref().map(AsRawFd::as_raw_fd));
        let one = |(id, kept): (&ShareId, &Kept)| HandedShare {
            id: *id,
            network: numbers(&kept.network),
            ipc: numbers(&kept.ipc),
            copies: numbers(&kept.copies),
        };
        self.0.iter().map(one).collect()
    }

    /// One, in the next program.
    pub(crate) fn take_in(&mut self, handed: HandedShare) {
        let pair = |numbers: Option<[RawFd; 2]>| numbers.map(|numbers| numbers.map(adopt));
        let HandedShare { id, network, ipc, copies } = handed;
        self.0.insert(id, Kept { network: pair(network), ipc: pair(ipc), copies: pair(copies) });
    }

    /// Nobody joins it any more.
    pub(crate) fn end(&mut self, id: ShareId) {
        self.0.remove(&id);
    }
}
