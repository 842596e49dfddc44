//! The table of `[X-Muster]`: what muster adds to unit files. systemd passes over the section without a word, so that one file
//! serves both. Each row is also one of the table of its unit type; muster.unit(5) documents each.

/// A directive of `[X-Muster]`.
#[derive(Clone, Copy, Debug)]
pub struct MusterRow {
    /// The section that the units have where it counts.
    pub section: &'static str,
    /// The directive.
    pub name: &'static str,
    /// Its values, the default first.
    pub values: &'static [&'static str],
    /// What it does.
    pub says: &'static str,
}

/// All of them.
pub const MUSTER_ROWS: &[MusterRow] = &[
    MusterRow {
        section: "Service",
        name: "Essential",
        values: &["no", "yes"],
        says: "The end of the service is the end of the container (of the machine: it powers off), with the exit status of its main process.",
    },
    MusterRow {
        section: "Socket",
        name: "TriggerLimitAction",
        values: &["fail", "pause"],
        says: "What happens at the trigger limit: the socket fails, or rests for a while and then goes on.",
    },
    MusterRow {
        section: "Socket",
        name: "ListenErrorAction",
        values: &["fail", "continue"],
        says: "What happens when one of several addresses cannot be opened: none is, or the others are.",
    },
];
