//! The unit-file language: from text on disk to a typed [`UnitFile`] and its diagnostics.
//!
//! Reading order: [`lexer`] (lines), [`value`] (types), [`table`] (every directive, declared once), [`specifier`],
//! [`load`] (fragment, drop-ins, template, alias → one unit), [`index`] (the search path), [`install`] (enable and kin).
//! A bad line is a diagnostic and never fails the file; nothing here knows D-Bus or a kernel.
#![forbid(unsafe_code)]

mod around;
pub mod builtin;
pub mod diagnostic;
pub mod file;
pub mod glob;
mod implied;
pub mod index;
pub mod install;
pub mod lexer;
pub mod lists;
pub mod load;
pub mod origin;
mod places;
pub mod preset;
pub mod setting;
pub mod specifier;
pub mod system_conf;
pub mod table;
pub mod value;

pub use diagnostic::{Diagnostic, Fault};
pub use file::{Body, LoadState, UnitFile};
pub use index::Index;
pub use jiff::tz::TimeZone;
pub use load::{Setting, Source, assign, check_settings, further_instance, load, load_made, load_settings};
pub use places::place_naming;
pub use specifier::SpecifierContext;
pub use table::{
    AutomountRow, AutomountSection, CGroupRow, CGroupSection, ExecRow, ExecSection, InstallRow,
    InstallSection, KillRow, KillSection, MUSTER_ROWS, MountRow, MountSection, MusterRow, PathRow,
    PathSection, ScopeRow, ScopeSection, ServiceRow, ServiceSection, SliceRow, SliceSection, SocketRow,
    SocketSection, SwapRow, SwapSection, TimerRow, TimerSection, UnitRow, UnitSection,
};
pub use value::*;
