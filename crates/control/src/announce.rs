//! What the manager answered and announced, as messages.
//!
//! A reply has the signature of the method that was called; a change of a unit is two `PropertiesChanged`, one for its
//! type's interface and one for `Unit`, as clients of systemd expect.

use crate::error::Refusal;
use crate::object::Object;
use crate::table::{Emits, Interface};
use crate::view::{JobView, Live, ManagerView, UnitView};
use crate::{interfaces, path, wire};
use muster_bus::{Incoming, Outgoing};
use muster_graph::{JobId, JobType};
use muster_manager::Manager;
use muster_manager::effect::{BusSignal, Reply};
use muster_unit::UnitName;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Encodes the manager's answer to the message that asked.
pub fn reply(message: &Incoming, reply: &Reply) -> Outgoing {
    match reply {
        Reply::Done => wire::reply_to(message, "", |_| {}),
        Reply::Jobs(jobs) => wire::reply_to(message, "ao", |out| {
            out.array("o", |out| jobs.iter().for_each(|job| out.path(&path::of_job(*job))));
        }),
        Reply::Unit(unit) => wire::reply_to(message, "o", |out| out.path(&path::of_unit(unit.as_str()))),
        Reply::Job { id, unit, kind } if matches!(wire::member(message), "EnqueueJob" | "EnqueueUnitJob") => {
            enqueued(message, *id, unit, *kind)
        }
        Reply::Job { id, .. } => wire::reply_to(message, "o", |out| out.path(&path::of_job(*id))),
        Reply::Refused(refused) => wire::error_to(message, &Refusal::from(refused)),
        Reply::Error { name, message: text } => {
            wire::error_to(message, &Refusal { name: name.clone(), message: text.clone() })
        }
    }
}

/// `EnqueueUnitJob`: the job with its unit; other jobs of the transaction are not told of.
fn enqueued(message: &Incoming, id: JobId, unit: &UnitName, kind: JobType) -> Outgoing {
    wire::reply_to(message, "uososa(uosos)", |out| {
        out.u32(id.0);
        out.path(&path::of_job(id));
        out.str(unit.as_str());
        out.path(&path::of_unit(unit.as_str()));
        out.str(kind.as_str());
        out.array("(uosos)", |_| {});
    })
}

/// Encodes what is announced to everybody who listens.
pub fn signals(view: &Manager, live: &dyn Live, signal: &BusSignal) -> Vec<Outgoing> {
    let about_unit = |member: &str, unit: &UnitName| {
        vec![wire::signal(path::MANAGER, MANAGER, member, "so", |out| {
            out.str(unit.as_str());
            out.path(&path::of_unit(unit.as_str()));
        })]
    };
    match signal {
        BusSignal::UnitNew { unit } => about_unit("UnitNew", unit),
        BusSignal::UnitRemoved { unit } => about_unit("UnitRemoved", unit),
        BusSignal::UnitChanged { unit } => unit_changed(view, live, unit),
        BusSignal::JobNew { job, unit } => {
            vec![wire::signal(path::MANAGER, MANAGER, "JobNew", "uos", |out| {
                out.u32(job.0);
                out.path(&path::of_job(*job));
                out.str(unit.as_str());
            })]
        }
        BusSignal::JobChanged { job, .. } => job_changed(view, *job),
        BusSignal::JobRemoved { job, unit, result } => {
            vec![wire::signal(path::MANAGER, MANAGER, "JobRemoved", "uoss", |out| {
                out.u32(job.0);
                out.path(&path::of_job(*job));
                out.str(unit.as_str());
                out.str(result.as_str());
            })]
        }
        BusSignal::Reloading { active } => {
            vec![wire::signal(path::MANAGER, MANAGER, "Reloading", "b", |out| out.bool(*active))]
        }
        BusSignal::StartupFinished { userspace_usec, total_usec } => {
            vec![wire::signal(path::MANAGER, MANAGER, "StartupFinished", "tttttt", |out| {
                [0, 0, 0, 0, *userspace_usec, *total_usec].into_iter().for_each(|usec| out.u64(usec));
            })]
        }
        BusSignal::UnitFilesChanged => {
            vec![wire::signal(path::MANAGER, MANAGER, "UnitFilesChanged", "", |_| {})]
        }
        BusSignal::RequestStop { unit, controller } => {
            let (path, interface) = (path::of_unit(unit.as_str()), "org.freedesktop.systemd1.Scope");
            vec![wire::signal(&path, interface, "RequestStop", "", |_| {}).destination(controller)]
        }
        BusSignal::ManagerChanged => {
            let object = Object::Manager(ManagerView { manager: view, live });
            vec![properties_changed(path::MANAGER, &object, &interfaces::MANAGER)]
        }
    }
}

fn unit_changed(view: &Manager, live: &dyn Live, name: &UnitName) -> Vec<Outgoing> {
    let Some(unit) = view.unit(name) else { return Vec::new() };
    let path = path::of_unit(unit.name.as_str());
    let object = Object::Unit(Box::new(UnitView::new(view, live, unit)));
    [interfaces::of_kind(unit.name.kind()), &interfaces::UNIT]
        .into_iter()
        .map(|interface| properties_changed(&path, &object, interface))
        .collect()
}

fn job_changed(view: &Manager, id: JobId) -> Vec<Outgoing> {
    let Some(job) = view.state().jobs.get(&id) else { return Vec::new() };
    let object = Object::Job(JobView { manager: view, job });
    vec![properties_changed(&path::of_job(id), &object, &interfaces::JOB)]
}

/// `PropertiesChanged` with all that may have changed.
fn properties_changed(path: &str, object: &Object<'_>, interface: &'static Interface) -> Outgoing {
    let of = |emits: Emits| interface.properties().filter(move |property| property.emits == emits);
    wire::signal(path, "org.freedesktop.DBus.Properties", "PropertiesChanged", "sa{sv}as", |out| {
        out.str(interface.name);
        object.write_all(of(Emits::Change), out);
        out.strings(of(Emits::Invalidates).map(|property| property.name));
    })
}
