//! Dependencies, jobs and transactions: pure data and algorithms over unit ids.
//!
//! Nothing here knows what a service is; what the algorithms must know of a unit they ask through
//! [`transaction::Facts`]. No recursion over the graph: outside data decides its depth.
//!
//! Reading order: [`edge`] (with `crowd`), [`job`], [`transaction`], [`cycle`] (with `forest`), [`queue`].
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub(crate) mod crowd;
pub(crate) mod cycle;
pub mod edge;
pub(crate) mod forest;
pub mod job;
pub mod queue;
pub mod transaction;

pub use edge::{Dependency, Graph, UnitId};
pub use job::{JobId, JobMode, JobResult, JobType};
pub use queue::Queue;
