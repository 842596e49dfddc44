//! What a process may see of the file system: settings become one list of places ([`plan`]), and the list is carried out in
//! a mount namespace of the process's own ([`mount`]).
//!
//! The plan is pure and knows every rule (what a setting implies, which of two settings wins); the executor of the plan
//! knows system calls only. What must stay true: a place that cannot be confined stops the start, unless its setting says
//! that it may be missing.

pub mod mount;
pub mod plan;
