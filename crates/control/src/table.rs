//! The member table: what an interface, a property, a method and a signal are, and the macros that write them down.
//!
//! A member is declared once, in one row, and everything follows from that row: Get, GetAll, PropertiesChanged,
//! argument checks, authorization and introspection. A row's signature and the value it writes go together by
//! construction: the `put!` macro picks the writer by the signature.

use crate::authorize::Right;
use crate::error::Refusal;
use crate::view::{JobView, ManagerView, UnitView};
use crate::wire::{Args, Out};
use crate::{Action, Call};

/// How a change of a property is announced (D-Bus specification, `EmitsChangedSignal`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emits {
    /// With its new value.
    Change,
    /// With its name only.
    Invalidates,
    /// It never changes while the object lives.
    Const,
    /// It never changes, or changes are not announced.
    Never,
}

/// How a property's value gets onto the wire, by the object that has it.
#[derive(Clone, Copy)]
pub enum Write {
    /// Reads the manager.
    Manager(for<'a, 'b, 'c> fn(&'a ManagerView<'b>, &mut Out<'c>)),
    /// Reads a unit.
    Unit(for<'a, 'b, 'c> fn(&'a UnitView<'b>, &mut Out<'c>)),
    /// Reads a job.
    Job(for<'a, 'b, 'c> fn(&'a JobView<'b>, &mut Out<'c>)),
}

/// One property.
#[derive(Clone, Copy)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub signature: &'static str,
    /// How changes are announced.
    pub emits: Emits,
    /// Whether it may be set.
    pub writable: bool,
    /// Whether its value comes from the kernel at the time of the call rather than from the manager's state.
    pub live: bool,
    /// Its value.
    pub write: Write,
}

/// What carries a method out.
pub type Handler = for<'a, 'b, 'c> fn(&'a Call<'b>, &mut Args<'c>) -> Result<Action, Refusal>;

/// One method.
#[derive(Clone, Copy)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// (type, name) of what goes in.
    pub input: &'static [(&'static str, &'static str)],
    /// (type, name) of what comes out.
    pub output: &'static [(&'static str, &'static str)],
    /// Who may call it.
    pub right: Right,
    /// What it does.
    pub handler: Handler,
}

/// One signal.
#[derive(Clone, Copy)]
pub struct Signal {
    /// Its name.
    pub name: &'static str,
    /// (type, name) of what it carries.
    pub arguments: &'static [(&'static str, &'static str)],
}

/// One interface. Properties and methods come in groups, since unit types share some.
#[derive(Clone, Copy)]
pub struct Interface {
    /// Its name.
    pub name: &'static str,
    /// Its properties.
    pub properties: &'static [&'static [Property]],
    /// Its methods.
    pub methods: &'static [&'static [Method]],
    /// Its signals.
    pub signals: &'static [Signal],
}

impl Interface {
    /// All properties, in table order.
    pub fn properties(&self) -> impl Iterator<Item = &'static Property> + use<> {
        self.properties.iter().copied().flatten()
    }

    /// All methods, in table order.
    pub fn methods(&self) -> impl Iterator<Item = &'static Method> + use<> {
        self.methods.iter().copied().flatten()
    }

    /// A property by name.
    pub fn property(&self, name: &str) -> Option<&'static Property> {
        self.properties().find(|property| property.name == name)
    }

    /// A method by name.
    pub fn method(&self, name: &str) -> Option<&'static Method> {
        self.methods().find(|method| method.name == name)
    }
}

impl Method {
    /// The signature of its arguments.
    pub fn signature(&self) -> String {
        self.input.iter().map(|(signature, _)| *signature).collect()
    }
}

/// Writes a value by the signature of its row.
macro_rules! put {
    ("s", $out:ident, $value:expr) => {
        $out.str(&$crate::show::Text::text(&$value))
    };
    ("o", $out:ident, $value:expr) => {
        $out.path(&$crate::show::Text::text(&$value))
    };
    ("b", $out:ident, $value:expr) => {
        $out.bool($crate::show::Flag::flag(&$value))
    };
    ("y", $out:ident, $value:expr) => {
        $out.u8($crate::show::narrow($crate::show::Number::number(&$value)))
    };
    ("q", $out:ident, $value:expr) => {
        $out.u16($crate::show::narrow($crate::show::Number::number(&$value)))
    };
    ("u", $out:ident, $value:expr) => {
        $out.u32($crate::show::narrow($crate::show::Number::number(&$value)))
    };
    ("i", $out:ident, $value:expr) => {
        $out.i32($crate::show::narrow($crate::show::Number::number(&$value)))
    };
    ("x", $out:ident, $value:expr) => {
        $out.i64($crate::show::narrow($crate::show::Number::number(&$value)))
    };
    ("t", $out:ident, $value:expr) => {
        $out.u64($crate::show::narrow($crate::show::Number::number(&$value)))
    };
    ("d", $out:ident, $value:expr) => {
        $out.f64($value)
    };
    ("as", $out:ident, $value:expr) => {
        $crate::show::Texts::texts(&$value, $out)
    };
    ($signature:tt, $out:ident, $value:expr) => {
        $crate::show::Emit::emit($value, $signature, $out)
    };
}
pub(crate) use put;

/// Declares a group of properties: `Name "signature" Emits [flags] = value;`, the value in terms of the view.
macro_rules! properties {
    ($(#[$meta:meta])* $table:ident: $object:ident($view:ident) {
        $($name:ident $signature:tt $emits:ident $([$($flag:ident)+])? = $value:expr;)*
    }) => {
        $(#[$meta])*
        pub(crate) static $table: &[$crate::table::Property] = &[$(
            $crate::table::Property {
                name: stringify!($name),
                signature: $signature,
                emits: $crate::table::Emits::$emits,
                writable: false,
                live: false,
                write: $crate::table::Write::$object(|$view, out| {
                    let _ = $view;
                    $crate::table::put!($signature, out, $value)
                }),
            }$($(.$flag())+)?,
        )*];
    };
}
pub(crate) use properties;

impl Property {
    /// Marks a property that may be set.
    pub const fn writable(mut self) -> Property {
        self.writable = true;
        self
    }

    /// Marks a property whose value the kernel has.
    pub const fn live(mut self) -> Property {
        self.live = true;
        self
    }
}

/// Declares a group of methods: `Name(in types and names) -> (out) Right = handler;`.
macro_rules! methods {
    ($(#[$meta:meta])* $table:ident {
        $($name:ident($($in_type:literal $in_name:ident),*) -> ($($out_type:literal $out_name:ident),*) $right:ident
            = $handler:expr;)*
    }) => {
        $(#[$meta])*
        pub(crate) static $table: &[$crate::table::Method] = &[$($crate::table::Method {
            name: stringify!($name),
            input: &[$(($in_type, stringify!($in_name))),*],
            output: &[$(($out_type, stringify!($out_name))),*],
            right: $crate::authorize::Right::$right,
            handler: $handler,
        },)*];
    };
}
pub(crate) use methods;

/// Declares signals: `Name(types and names);`.
macro_rules! signals {
    ($(#[$meta:meta])* $table:ident { $($name:ident($($type:literal $argument:ident),*);)* }) => {
        $(#[$meta])*
        pub(crate) static $table: &[$crate::table::Signal] = &[$($crate::table::Signal {
            name: stringify!($name),
            arguments: &[$(($type, stringify!($argument))),*],
        },)*];
    };
}
pub(crate) use signals;
