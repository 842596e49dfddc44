//! The types of values: each knows its text form, both ways.

mod address;
mod command;
mod condition;
mod misc;
mod name;
mod time;
mod words;

pub use address::{NETLINK_FAMILIES, UNIX_PATH_MAX, Listen, ListenKind, SocketAddress, VsockKind};
pub use command::{ExecCommand, Privilege, split_words, unescape};
pub use condition::{Condition, ConditionKind};
pub use misc::{
    CAPABILITIES, CapabilitySet, Delegate, EnvironmentFile, ExecDirectory, ExitStatusSet, ResourceLimit, SIGNALS, Signal, exit_status_name,
    SIGRTMAX, SIGRTMIN, capability_number, parse_bool, parse_mode, parse_size,
};
pub use name::{NameError, UnitKind, UnitName, path_escape, path_unescape, escape, unescape_name};
pub use time::Timespan;
pub use words::*;
