//! `Limit*=` (see [`crate::limits`] for the rows).

use super::{About, Direct, Step, always};
use crate::{Exit, limits};
use muster_sys::Step as Raw;

/// All of them; the soft limit of open files is always set.
pub const LIMITS: Step = Step {
    directive: "Limit*=",
    exit: Exit::Limits,
    needed: always,
    direct: Direct::By(|context, draft| {
        for (resource, soft, hard) in limits::of(context.exec) {
            draft.step(Raw::Limit { resource, soft, hard }, Exit::Limits)?;
        }
        Some(())
    }),
    run: |context, _| {
        for (resource, soft, hard) in limits::of(context.exec) {
            muster_sys::set_limit(resource, soft, hard).about(limits::name(resource))?;
        }
        Ok(())
    },
};
