//! Mounts into services that run: `BindMountUnit` and `MountImageUnit` of the manager, `BindMount` and `MountImage` of a
//! service.
//!
//! A handler refuses what cannot be meant; a helper of the runtime does the rest, and the answer waits for it.

use crate::error::Refusal;
use crate::wire::{self, Args, Value};
use crate::{Action, Call};
use muster_bus::{Incoming, Outgoing};
use muster_manager::state::{ActiveState, Kind, Unit};
use muster_unit::{ImagePolicy, Partition, UnitKind, UnitName};

/// What is to be mounted into the namespace of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounting {
    /// The service.
    pub unit: UnitName,
    /// The main process of the service.
    pub pid: u32,
    /// A path of the host.
    pub source: String,
    /// A path of the service.
    pub destination: String,
    /// Nothing can be written there.
    pub read_only: bool,
    /// The place is made where it is missing.
    pub make: bool,
    /// The source is an image: its policy, and options by partitions.
    pub image: Option<(String, Vec<(String, String)>)>,
}

/// A path that is absolute, and has nothing in it that would have to be resolved; a slash may end it.
fn path(text: &str, what: &str) -> Result<(), Refusal> {
    let text = text.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(text);
    let plain = !text.split('/').skip(1).any(|part| part.is_empty() || part == "." || part == "..");
    match text == "/" || (text.starts_with('/') && plain) {
        true => Ok(()),
        false => Err(Refusal::invalid(format!("{what} path must be absolute and normalized"))),
    }
}

fn option(value: &Value) -> Result<(String, String), Refusal> {
    let Value::Struct(fields) = value else { return Err(Refusal::invalid("Unexpected message contents")) };
    let text = |at: usize| fields.get(at).and_then(Value::as_text).unwrap_or("").to_owned();
    let (partition, options) = (text(0), text(1));
    match Partition::named(&partition) {
        Some(_) => Ok((partition, options)),
        None => Err(Refusal::invalid(format!("Invalid partition name {partition}"))),
    }
}

/// Reads what is to be mounted into a unit's namespace, and looks whether it can have one.
pub fn order(
    call: &Call<'_>,
    unit: &Unit,
    arguments: &mut Args<'_>,
    is_image: bool,
) -> Result<Action, Refusal> {
    if unit.name.kind() != UnitKind::Service {
        return Err(Refusal::not_supported(format!(
            "{} operation is not supported for unit type '{}'",
            call.method.name,
            unit.name.kind().suffix()
        )));
    }
    let (source, destination) = (arguments.str()?, arguments.str()?);
    let destination = if destination.is_empty() { source.clone() } else { destination };
    let (read_only, make) = (arguments.bool()?, arguments.bool()?);
    path(&source, "Source")?;
    path(&destination, "Destination")?;
    let options = if is_image { arguments.list()? } else { Vec::new() };
    let options = options.iter().map(option).collect::<Result<Vec<_>, _>>()?;
    let main = match &unit.kind {
        Kind::Service(service) => service.main.as_ref().and_then(|process| process.pid),
        _ => None,
    };
    let Some(pid) = main.filter(|_| unit.active_state() == ActiveState::Active) else {
        return Err(Refusal::not_mounted_inactive(&source, &destination, &unit.name));
    };
    let policy = unit.file.exec.as_ref().and_then(|exec| exec.mount_image_policy().clone());
    let policy = policy.map_or_else(ImagePolicy::of_images, |policy| *policy);
    let image = is_image.then(|| (policy.to_string(), options));
    Ok(Action::Mount(Mounting { unit: unit.name.clone(), pid, source, destination, read_only, make, image }))
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountingOutcome {
    /// It is there.
    Mounted,
    /// The service has the host's mount namespace.
    NotPrivate,
    /// Why it is not.
    Failed(String),
}

/// The answer to a client, when it is done.
pub fn reply(message: &Incoming, mounting: &Mounting, outcome: MountingOutcome) -> Outgoing {
    let Mounting { source, destination, unit, .. } = mounting;
    let refusal = match outcome {
        MountingOutcome::Mounted => return wire::reply_to(message, "", |_| {}),
        MountingOutcome::NotPrivate => Refusal::invalid(format!(
            "Unit '{unit}' not running in private mount namespace, cannot live mount."
        )),
        MountingOutcome::Failed(why) => Refusal::failed(format!(
            "Failed to mount '{source}' on '{destination}' in unit's namespace: {why}"
        )),
    };
    wire::error_to(message, &refusal)
}
