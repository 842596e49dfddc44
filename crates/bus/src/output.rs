//! What waits for the peer to read it.
//!
//! What must stay true: descriptors are offered exactly once, with the first byte of their message; never more bytes
//! wait than the limit says.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A chunk that a second message joins has room for some more at once.
const ROOM: usize = 8 << 10;
/// Messages without descriptors join the chunk before them up to this size, so that one call sends many.
const CHUNK: usize = 64 << 10;

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<Arc<OwnedFd>>,
}

/// The queue of bytes and descriptors.
#[derive(Default)]
pub(crate) struct Output {
    chunks: VecDeque<Chunk>,
    waiting: usize,
}

impl Output {
    /// Bytes queued for sending.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn push(&mut self, parts: &[&[u8]], fds: &[Arc<OwnedFd>]) {
        let len = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        self.waiting = self.waiting.saturating_add(len);
        if let Some(last) = self.chunks.back_mut()
            && fds.is_empty()
            && last.bytes.len().saturating_add(len) <= CHUNK
        {
            if last.bytes.capacity() < ROOM {
                last.bytes.reserve(ROOM.max(len));
            }
            parts.iter().for_each(|part| last.bytes.extend_from_slice(part));
            return;
        }
        self.chunks.push_back(Chunk { bytes: parts.concat(), sent: 0, fds: fds.to_vec() });
    }

    /// The next bytes, and the descriptors to send with them.
    pub(crate) fn front(&self) -> (&[u8], &[Arc<OwnedFd>]) {
        match self.chunks.front() {
            Some(chunk) => (chunk.bytes.get(chunk.sent..).unwrap_or_default(), &chunk.fds),
            None => (&[], &[]),
        }
    }

    /// Drops `count` bytes that were sent, and the descriptors that went with the first of them.
    pub(crate) fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(chunk) = self.chunks.front_mut() else { return };
            chunk.fds = Vec::new();
            let step = count.min(chunk.bytes.len().saturating_sub(chunk.sent));
            chunk.sent = chunk.sent.saturating_add(step);
            self.waiting = self.waiting.saturating_sub(step);
            count = count.saturating_sub(step);
            if chunk.sent >= chunk.bytes.len() {
                self.chunks.pop_front();
            }
        }
    }

    /// All that waits, where no descriptor does.
    pub(crate) fn plain_bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.waiting);
        for chunk in &self.chunks {
            if !chunk.fds.is_empty() {
                return None;
            }
            bytes.extend_from_slice(chunk.bytes.get(chunk.sent..)?);
        }
        Some(bytes)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
