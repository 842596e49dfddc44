//! All that PID 1 knows and decides: events in, effects out, no I/O.
//!
//! The whole surface is [`Manager::handle`], then [`Manager::poll_effect`] until it is empty, then
//! [`Manager::next_deadlines`]. What the manager wants to know of the world it asks by an [`Effect`] and hears by an
//! [`Event`]; the clock and the unit files are handed in. Everything it remembers is one serializable [`State`].
//!
//! Reading order: [`event`], [`effect`], [`state`], [`manager`]; then how a request becomes work (`request`, `jobs`,
//! `lifecycle`), one module per unit type behind the dispatch in `kind`, and what they share (`spawn`, `kill`,
//! `notify`, `restart`, `limit`, `conditions`, `load`, `report`).
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

mod cgroup;
pub mod config;
pub mod effect;
pub mod event;
pub mod manager;
pub mod state;

mod accounts;
pub mod anew;
mod automount;
mod bus_names;
mod concurrency;
mod conditions;
mod consumed;
mod cycles;
mod deadlines;
mod device;
pub mod directories;
pub mod hardware;
mod invariants;
mod jobs;
mod kill;
pub mod kind;
pub mod lazy;
mod lifecycle;
mod limit;
mod load;
mod main_process;
pub mod marks;
mod mount;
mod names;
mod notify;
mod oom;
pub mod path;
pub mod plan;
mod recover;
pub mod refused;
mod report;
mod request;
mod restart;
mod scope;
mod service;
mod service_begins;
mod service_ends;
mod service_reload;
pub mod shared;
mod slice;
pub mod slow;
mod socket;
mod spawn;
mod swap;
mod target;
pub mod timer;
pub mod tool;
pub mod units;
mod watchdog;
pub mod wishes;
pub mod written;

pub use effect::Effect;
pub use event::{Event, Now};
pub use manager::Manager;
pub use refused::Refused;
pub use state::State;
