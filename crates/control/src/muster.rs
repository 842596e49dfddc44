//! What muster tells beyond systemd: `org.muster1.Unit` and `org.muster1.Socket`.
//!
//! Additive only: nothing here changes what a name of systemd's means.

use crate::error::Refusal;
use crate::object::Object;
use crate::show::Each;
use crate::table::{methods, properties};
use crate::view::UnitView;
use crate::wire::{Args, Out};
use crate::{Action, Call};
use muster_graph::{JobMode, JobType};
use muster_manager::effect::FdId;
use muster_manager::state::Cause;

fn cause(cause: &Cause, out: &mut Out<'_>) {
    out.structure(|out| {
        out.u64(cause.at_usec);
        out.str(&cause.text);
    });
}

fn diagnostics(u: &UnitView<'_>) -> Vec<String> {
    u.unit.file.diagnostics.iter().map(ToString::to_string).collect()
}

/// What waits on each listening descriptor: the address, and connections, messages or bytes.
fn queues(u: &UnitView<'_>) -> Vec<(String, u64)> {
    let queue = |fd: FdId| u.live.queue_length(fd).unwrap_or(u64::MAX);
    u.socket_state().ports.iter().map(|port| (port.listen.address.to_string(), queue(port.fd))).collect()
}

/// What each listening descriptor is set to, as the kernel has it.
fn options(u: &UnitView<'_>) -> Vec<(String, Vec<(String, String)>)> {
    let ports = u.socket_state().ports.iter();
    ports.map(|port| (port.listen.address.to_string(), u.live.socket_options(port.fd))).collect()
}

fn option((address, options): (String, Vec<(String, String)>), out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&address);
        out.array("(ss)", |out| {
            for (name, value) in &options {
                out.structure(|out| {
                    out.str(name);
                    out.str(value);
                });
            }
        });
    });
}

fn queue(item: (String, u64), out: &mut Out<'_>) {
    out.structure(|out| {
        out.str(&item.0);
        out.u64(item.1);
    });
}

/// The transaction that a job would bring: jobs with unit, type, reason and step; notes; cycles; why it would be refused.
fn plan(call: &Call<'_>, arguments: &mut Args<'_>) -> Result<Action, Refusal> {
    let Object::Unit(view) = call.object else { return Err(Refusal::failed("Not a unit.")) };
    let (kind, mode) = (arguments.str()?, arguments.str()?);
    let kind = JobType::parse(&kind).ok_or_else(|| Refusal::invalid(format!("Job type {kind} invalid")))?;
    let mode = JobMode::parse(&mode).ok_or_else(|| Refusal::invalid(format!("Job mode {mode} invalid")))?;
    let plan = call.manager.plan(view.unit.id, kind, mode);
    call.reply(|out| {
        out.array("(sssu)", |out| {
            for job in &plan.jobs {
                out.structure(|out| {
                    out.str(job.unit.as_str());
                    out.str(job.kind.as_str());
                    out.str(&job.why);
                    out.u32(u32::try_from(job.step).unwrap_or(u32::MAX));
                });
            }
        });
        out.array("s", |out| plan.notes.iter().for_each(|note| out.str(note)));
        out.array("as", |out| {
            for cycle in &plan.cycles {
                out.array("s", |out| cycle.iter().for_each(|name| out.str(name.as_str())));
            }
        });
        out.str(&plan.refused.as_ref().map_or(String::new(), ToString::to_string));
    })
}

methods! { UNIT_METHODS {
    Plan("s" job_type, "s" job_mode) -> ("a(sssu)" jobs, "as" notes, "aas" cycles, "s" refused) Read = plan;
} }

properties! {
    /// Properties of every unit.
    UNIT: Unit(u) {
        NotApplied "as" Const = u.unit.file.not_applied;
        Diagnostics "as" Const = diagnostics(u);
        Causes "a(ts)" Never = Each(&u.unit.causes, cause);
        WhyNot "as" Never = u.manager.why_not(u.unit.id);
    }
}

properties! {
    /// Properties of every socket.
    SOCKET: Unit(u) {
        TriggerLimitAction "s" Const = u.socket().trigger_limit_action().as_str();
        ListenErrorAction "s" Const = u.socket().listen_error_action().as_str();
        Failures "t" Never = u.socket_state().failures;
        Pauses "t" Never = u.socket_state().pauses;
        PausedUntilUSec "t" Never = u.socket_state().paused_until_usec;
        Queues "a(st)" Never [live] = Each(queues(u), queue);
        Options "a(sa(ss))" Never [live] = Each(options(u), option);
    }
}
