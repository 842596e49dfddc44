//! The mio loop: readiness becomes events, effects become system calls. Decides nothing about a unit.
//!
//! Reading order: [`turn`] (the loop and its fixed order), [`perform`] (one arm an effect), then the sources:
//! [`notify`], [`reap`], [`clients`], [`listeners`]; and what keeps descriptors: [`table`].
//!
//! What must stay true: one thread; nothing waits but `epoll_wait`; a handler's error never unregisters its source;
//! exits are handled only in a turn in which the notify socket was read empty.
#![forbid(unsafe_code)]

pub mod alarms;
pub mod automounts;
mod bus_hand_over;
mod clients;
pub mod clock;
mod closing;
pub mod conditions;
pub mod config;
pub mod console;
pub mod crash;
pub mod errand;
pub mod files;
pub mod hand_over;
pub mod ipc;
pub mod listeners;
pub mod live;
mod local;
pub mod log;
pub mod mounting;
mod notify;
pub mod opening;
pub mod paths;
pub mod perform;
pub mod pid_files;
pub mod printer;
pub mod processes;
pub mod published;
pub mod questions;
pub mod reap;
pub mod removing;
pub mod shares;
pub mod source;
mod sources;
mod system_bus;
mod table;
pub mod terminals;
pub mod turn;
pub mod unit_files;
pub mod varlink;
pub mod watchdog;
mod zone;

pub use turn::{Outcome, Runtime, Setup};
