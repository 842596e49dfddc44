//! Objects: which one a path names, which interfaces and children it has, and the standard D-Bus interfaces.
//!
//! A path of a unit that was never loaded is no error: touching it loads it (see [`Unresolved::NotLoaded`]). A path
//! of a job that is gone is `UnknownObject`, which logind relies on.

use crate::error::Refusal;
use crate::interfaces;
use crate::path;
use crate::table::{Interface, Property, Write, methods, signals};
use crate::view::{JobView, Live, ManagerView, UnitView};
use crate::wire::{Args, Out};
use crate::{Action, Call, introspect, manager};
use muster_graph::JobId;
use muster_manager::Manager;
use muster_manager::event::Origin;
use muster_unit::{UnitKind, UnitName};

/// What a path names.
pub enum Object<'a> {
    /// A place on the way, with its children.
    Branch(Vec<String>),
    /// `/org/freedesktop/DBus`, for clients that take the private socket for a bus.
    Driver,
    /// `/org/freedesktop/systemd1`.
    Manager(ManagerView<'a>),
    /// `/org/freedesktop/LogControl1`.
    LogControl(ManagerView<'a>),
    /// A unit.
    Unit(Box<UnitView<'a>>),
    /// A job.
    Job(JobView<'a>),
}

/// Why a path names nothing.
pub enum Unresolved {
    /// A unit that is not loaded; load it and ask again.
    NotLoaded(UnitName),
    /// There is no such object, or access is refused.
    Refused(Refusal),
}

/// Finds the object of a path.
pub fn resolve<'a>(
    manager: &'a Manager,
    live: &'a dyn Live,
    caller: &Origin,
    path: &str,
) -> Result<Object<'a>, Unresolved> {
    let unknown = || Unresolved::Refused(Refusal::unknown_object(path));
    let view = ManagerView { manager, live };
    match path {
        path::MANAGER => Ok(Object::Manager(view)),
        path::DRIVER => Ok(Object::Driver),
        path::LOG_CONTROL => Ok(Object::LogControl(view)),
        "/" => Ok(Object::Branch(vec!["org".to_owned()])),
        "/org" => Ok(Object::Branch(vec!["freedesktop".to_owned()])),
        "/org/freedesktop" => Ok(Object::Branch(vec!["LogControl1".to_owned(), "systemd1".to_owned()])),
        path::UNITS => {
            let state = manager.state();
            Ok(Object::Branch(
                state.units.values().map(|unit| muster_bus::bus_path_escape(unit.name.as_str())).collect(),
            ))
        }
        path::JOBS => {
            Ok(Object::Branch(manager.state().jobs.values().map(|job| job.id.0.to_string()).collect()))
        }
        _ => {
            if let Some(number) = path.strip_prefix(path::JOBS).and_then(|rest| rest.strip_prefix('/')) {
                let id = number.parse().map(JobId).map_err(|_| unknown())?;
                let job = manager.state().jobs.get(&id).ok_or_else(unknown)?;
                return Ok(Object::Job(JobView { manager, job }));
            }
            let element =
                path.strip_prefix(path::UNITS).and_then(|rest| rest.strip_prefix('/')).ok_or_else(unknown)?;
            resolve_unit(manager, live, caller, element)
        }
    }
}

fn resolve_unit<'a>(
    manager: &'a Manager,
    live: &'a dyn Live,
    caller: &Origin,
    element: &str,
) -> Result<Object<'a>, Unresolved> {
    let view = |unit| Object::Unit(Box::new(UnitView::new(manager, live, unit)));
    if element == "self" {
        let cgroup = live.pid_cgroup(caller.pid);
        return manager
            .unit_of_process(caller.pid, cgroup.as_deref())
            .and_then(|id| manager.unit_by_id(id))
            .map(view)
            .ok_or_else(|| Unresolved::Refused(Refusal::no_unit_for_pid(caller.pid)));
    }
    let text = muster_bus::bus_path_unescape(element).unwrap_or_default();
    if let Some(unit) = manager::by_invocation(manager, &text) {
        return Ok(view(unit));
    }
    let name: UnitName = text.parse().map_err(|_| {
        Unresolved::Refused(Refusal::invalid(format!(
            "Unit name {element} is neither a valid invocation ID nor unit name."
        )))
    })?;
    manager.unit(&name).map(view).ok_or(Unresolved::NotLoaded(name))
}

impl Object<'_> {
    /// Its interfaces, the standard ones first.
    pub fn interfaces(&self) -> impl Iterator<Item = &'static Interface> + use<> {
        STANDARD.iter().chain(self.own_interfaces())
    }

    /// Its interfaces but for the standard ones; systemd's first, then muster's own.
    pub fn own_interfaces(&self) -> impl Iterator<Item = &'static Interface> + use<> {
        let list: Vec<&'static Interface> = match self {
            Object::Branch(_) => Vec::new(),
            Object::Driver => vec![&DRIVER],
            Object::Manager(_) => vec![&interfaces::MANAGER],
            Object::LogControl(_) => vec![&interfaces::LOG_CONTROL],
            Object::Unit(view) => {
                let kind = view.unit.name.kind();
                let socket = (kind == UnitKind::Socket).then_some(&interfaces::MUSTER_SOCKET);
                let mut list = vec![interfaces::of_kind(kind), &interfaces::UNIT, &interfaces::MUSTER_UNIT];
                list.extend(socket);
                list
            }
            Object::Job(_) => vec![&interfaces::JOB],
        };
        list.into_iter()
    }

    /// The last elements of the paths below it.
    pub fn children(&self) -> Vec<&str> {
        match self {
            Object::Branch(children) => children.iter().map(String::as_str).collect(),
            Object::Manager(_) => ["unit", "job"].into(),
            Object::Driver | Object::LogControl(_) | Object::Unit(_) | Object::Job(_) => Vec::new(),
        }
    }

    /// Writes the value of one of its properties. Every property of an object's interfaces is of its kind, which a
    /// test of the table holds.
    pub fn write(&self, property: &Property, out: &mut Out<'_>) {
        match (self, property.write) {
            (Object::Manager(view) | Object::LogControl(view), Write::Manager(write)) => write(view, out),
            (Object::Unit(view), Write::Unit(write)) => write(view, out),
            (Object::Job(view), Write::Job(write)) => write(view, out),
            (
                Object::Branch(_)
                | Object::Driver
                | Object::Manager(_)
                | Object::LogControl(_)
                | Object::Unit(_)
                | Object::Job(_),
                _,
            ) => {}
        }
    }

    /// Writes name and value of properties as entries of an `a{sv}`.
    pub fn write_all<'p>(&self, properties: impl Iterator<Item = &'p Property>, out: &mut Out<'_>) {
        out.array("{sv}", |out| {
            for property in properties {
                out.dict_entry(|out| {
                    out.str(property.name);
                    out.variant(property.signature, |out| self.write(property, out));
                });
            }
        });
    }

    fn interface(&self, name: &str) -> Option<&'static Interface> {
        self.interfaces().find(|interface| interface.name == name)
    }
}

/// What every object has.
static STANDARD: &[Interface] = &[
    Interface { name: "org.freedesktop.DBus.Peer", properties: &[], methods: &[PEER], signals: &[] },
    Interface {
        name: "org.freedesktop.DBus.Introspectable",
        properties: &[],
        methods: &[INTROSPECTABLE],
        signals: &[],
    },
    Interface {
        name: "org.freedesktop.DBus.Properties",
        properties: &[],
        methods: &[PROPERTIES],
        signals: CHANGED,
    },
];

/// A client that takes the private socket for a bus greets it and asks nothing else of it (busctl(1), `--address=`).
static DRIVER: Interface =
    Interface { name: "org.freedesktop.DBus", properties: &[], methods: &[GREETING], signals: &[] };

methods! { GREETING {
    Hello() -> ("s" unique_name) Read = |call, _| call.reply(|out| out.str(":1.0"));
} }

methods! { PEER {
    Ping() -> () Read = |call, _| call.done();
    GetMachineId() -> ("s" machine_uuid) Read = |call, _| {
        let id = call.live.machine_id().ok_or_else(|| Refusal::no_file("No machine ID known."))?;
        call.reply(|out| out.str(&id))
    };
} }

methods! { INTROSPECTABLE {
    Introspect() -> ("s" xml_data) Read = |call, _| call.reply(|out| out.str(&introspect::xml(call.object)));
} }

methods! { PROPERTIES {
    Get("s" interface_name, "s" property_name) -> ("v" value) Read = get;
    GetAll("s" interface_name) -> ("a{sv}" props) Read = get_all;
    Set("s" interface_name, "s" property_name, "v" value) -> () Read = set;
} }

signals! { CHANGED {
    PropertiesChanged("s" interface_name, "a{sv}" changed_properties, "as" invalidated_properties);
} }

/// A property by the two names of a call; an empty interface means any.
fn property(call: &Call<'_>, interface: &str, name: &str) -> Result<&'static Property, Refusal> {
    call.object
        .interfaces()
        .filter(|candidate| interface.is_empty() || candidate.name == interface)
        .find_map(|candidate| candidate.property(name))
        .ok_or_else(|| Refusal::unknown_property(interface, name))
}

fn get(call: &Call<'_>, arguments: &mut Args<'_>) -> Result<Action, Refusal> {
    let (interface, name) = (arguments.str()?, arguments.str()?);
    let property = property(call, &interface, &name)?;
    call.reply(|out| out.variant(property.signature, |out| call.object.write(property, out)))
}

/// All properties of one interface, or, for "", of all that systemd has too: `systemctl show` asks so, and must not
/// print what it has no words for.
fn get_all(call: &Call<'_>, arguments: &mut Args<'_>) -> Result<Action, Refusal> {
    let name = arguments.str()?;
    if name.is_empty() {
        let shared =
            call.object.own_interfaces().filter(|interface| !interface.name.starts_with("org.muster1."));
        return call
            .reply(|out| call.object.write_all(shared.flat_map(|interface| interface.properties()), out));
    }
    let interface = call.object.interface(&name).ok_or_else(|| Refusal::unknown_interface(&name))?;
    call.reply(|out| call.object.write_all(interface.properties(), out))
}

fn set(call: &Call<'_>, arguments: &mut Args<'_>) -> Result<Action, Refusal> {
    let (interface, name) = (arguments.str()?, arguments.str()?);
    let property = property(call, &interface, &name)?;
    if !property.writable {
        return Err(Refusal::not_writable(&name));
    }
    crate::authorize::Right::Privileged.check(call.caller)?;
    let value = arguments.variant()?;
    manager::set_property(property, value)
}
