//! A kernel source: a descriptor that the loop waits on, and what its readiness means to the manager.
//!
//! The loop knows a source by this trait alone; a source knows nothing of the loop. What must stay true: [`events`] reads the
//! source to its end, since readiness is told once.
//!
//! [`events`]: KernelSource::events

use muster_manager::event::Event;
use std::os::fd::RawFd;

/// One source.
pub trait KernelSource {
    /// What is waited on.
    fn descriptor(&self) -> RawFd;
    /// What happened since the last time.
    fn events(&mut self) -> Vec<Event>;
}
