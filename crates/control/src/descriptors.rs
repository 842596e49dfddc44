//! Methods that pass descriptors, or tell of them: dumps into files, the store of a service, processes by their pidfds.

use crate::error::Refusal;
use crate::manager_methods::{Done, job_mode, loaded, own_unit, request, unit_name, unit_of_pid};
use crate::table::methods;
use crate::wire::{Args, Value};
use crate::{Call, dump};
use muster_manager::event::{Request, TransientUnit};
use muster_manager::state::{Service, Unit};
use muster_unit::UnitKind;
use std::collections::BTreeMap;

/// What the kernel says of a descriptor (fstat(2), `F_GETFL` of fcntl(2)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdFacts {
    /// Type and permissions.
    pub mode: u32,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// Number of the inode.
    pub inode: u64,
    /// Of a device node, its major and minor number.
    pub node: (u32, u32),
    /// What /proc calls it.
    pub path: String,
    /// How it was opened.
    pub flags: u32,
}

/// Text in a file, from its beginning.
fn in_file(call: &Call<'_>, text: &str) -> Done {
    let file = call.live.file_of(text).ok_or_else(|| Refusal::failed("No file could be made."))?;
    call.reply(|out| out.fd(file))
}

/// The entries of a store: name, mode, device, inode, node, path, flags.
fn store(call: &Call<'_>, unit: &Unit) -> Done {
    let Some(service) = Service::of(&unit.kind) else {
        return Err(Refusal::not_supported("Unit type does not support file descriptor stores."));
    };
    let entries = service.fd_store.iter().filter_map(|stored| Some((stored, call.live.describe(stored.fd)?)));
    call.reply(|out| {
        out.array("(suuutuusu)", |out| {
            for (stored, facts) in entries {
                out.structure(|out| {
                    out.str(&stored.name);
                    out.u32(facts.mode);
                    out.u32(facts.device.0);
                    out.u32(facts.device.1);
                    out.u64(facts.inode);
                    out.u32(facts.node.0);
                    out.u32(facts.node.1);
                    out.str(&facts.path);
                    out.u32(facts.flags);
                });
            }
        });
    })
}

/// A scope beside the service that asks, for processes of it.
fn auxiliary_scope(call: &Call<'_>, arguments: &mut Args<'_>) -> Done {
    let name = arguments.str()?;
    let given = arguments.list()?;
    let (flags, properties) = (arguments.u64()?, arguments.properties()?);
    let unit = unit_of_pid(call, call.caller.pid).ok().filter(|unit| unit.name.kind() == UnitKind::Service);
    let unit = unit.ok_or_else(|| Refusal::invalid("Client not member of any unit."))?;
    let name = unit_name(&name)?;
    if name.kind() != UnitKind::Scope {
        return Err(Refusal::invalid(format!("Invalid scope name: {name}")));
    }
    if flags != 0 {
        return Err(Refusal::invalid("Flags must be zero."));
    }
    if given.is_empty() {
        return Err(Refusal::invalid("No processes specified."));
    }
    let mut pids = Vec::new();
    for fd in given {
        let Value::Fd(index) = fd else { return Err(Refusal::invalid("Unexpected message contents")) };
        let pid = call.live.pid_of_pidfd(arguments.descriptor(index)?);
        let pid = pid.ok_or_else(|| Refusal::invalid("Not a pidfd."))?;
        if unit_of_pid(call, pid)?.id != unit.id {
            return Err(Refusal::failed(format!("Process {pid} is not one of {}.", unit.name)));
        }
        pids.push(pid);
    }
    let built = crate::transient::settings(UnitKind::Scope, &properties, call.caller.pid)?;
    let crate::transient::Built { mut settings, mut text, controller, reference, .. } = built;
    // It is where its service is, with the same limits; what the caller says of it counts for more.
    let cgroup = unit.file.cgroup.as_ref();
    let slice = cgroup.and_then(|section| section.slice().clone()).map(|slice| ("Slice", slice.to_string()));
    let limits = cgroup.map(|section| section.limits()).unwrap_or_default();
    let same: Vec<_> = slice
        .into_iter()
        .chain(limits)
        .filter(|(name, _)| !settings.iter().any(|(_, said, _)| said == name))
        .collect();
    if !same.is_empty() {
        text.push_str("\n[Scope]\n");
    }
    for (name, value) in same {
        text.push_str(&format!("{name}={value}\n"));
        settings.push(("Scope".to_owned(), name.to_owned(), value));
    }
    let mode = job_mode("fail")?;
    let stdio = BTreeMap::new();
    let units = vec![TransientUnit {
        name,
        settings,
        text,
        pids,
        controller,
        stdio,
        extra_names: Vec::new(),
        reference,
    }];
    request(Request::StartTransient { units, mode })
}

methods! { METHODS {
    DumpByFileDescriptor() -> ("h" fd) Read = |call, _| in_file(call, &dump::text(call.manager, &[]));
    DumpUnitsMatchingPatternsByFileDescriptor("as" patterns) -> ("h" fd) Read
        = |call, a| in_file(call, &dump::text(call.manager, &a.strings()?));
    DumpUnitFileDescriptorStore("s" name) -> ("a(suuutuusu)" entries) Read
        = |call, a| store(call, loaded(call, &a.str()?)?);
    StartAuxiliaryScope("s" name, "ah" pidfds, "t" flags, "a(sv)" properties) -> ("o" job) ManageUnits
        = |call, a| auxiliary_scope(call, a);
} }

methods! { SERVICE_METHODS {
    DumpFileDescriptorStore() -> ("a(suuutuusu)" entries) Read = |call, _| store(call, own_unit(call)?);
} }
