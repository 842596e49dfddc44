//! Introspection: the table as the XML that `busctl introspect` and `busctl tree` read.
//!
//! Everything comes from the rows; nothing is written by hand but the frame.

use crate::object::Object;
use crate::table::{Emits, Interface, Method, Property, Signal};
use std::fmt::Write;

const HEAD: &str = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n\
    \"https://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n";

/// The description of an object.
pub fn xml(object: &Object<'_>) -> String {
    let mut out = String::from(HEAD);
    for interface in object.interfaces() {
        // Writing to a String cannot fail.
        let _ = write_interface(&mut out, interface);
    }
    for child in object.children() {
        let _ = writeln!(out, " <node name=\"{child}\"/>");
    }
    out.push_str("</node>\n");
    out
}

fn write_interface(out: &mut String, interface: &Interface) -> std::fmt::Result {
    writeln!(out, " <interface name=\"{}\">", interface.name)?;
    for property in interface.properties() {
        write_property(out, property)?;
    }
    for method in interface.methods() {
        write_method(out, method)?;
    }
    for signal in interface.signals {
        write_signal(out, signal)?;
    }
    writeln!(out, " </interface>")
}

fn write_property(out: &mut String, property: &Property) -> std::fmt::Result {
    let access = if property.writable { "readwrite" } else { "read" };
    writeln!(
        out,
        "  <property name=\"{}\" type=\"{}\" access=\"{access}\">",
        property.name, property.signature
    )?;
    let emits = match property.emits {
        Emits::Change => None,
        Emits::Invalidates => Some("invalidates"),
        Emits::Const => Some("const"),
        Emits::Never => Some("false"),
    };
    if let Some(emits) = emits {
        annotation(out, "org.freedesktop.DBus.Property.EmitsChangedSignal", emits)?;
    }
    if property.writable {
        annotation(out, "org.freedesktop.systemd1.Privileged", "true")?;
    }
    writeln!(out, "  </property>")
}

fn write_method(out: &mut String, method: &Method) -> std::fmt::Result {
    writeln!(out, "  <method name=\"{}\">", method.name)?;
    for (signature, name) in method.input {
        writeln!(out, "   <arg type=\"{signature}\" name=\"{name}\" direction=\"in\"/>")?;
    }
    for (signature, name) in method.output {
        writeln!(out, "   <arg type=\"{signature}\" name=\"{name}\" direction=\"out\"/>")?;
    }
    if method.right.is_privileged() {
        annotation(out, "org.freedesktop.systemd1.Privileged", "true")?;
    }
    writeln!(out, "  </method>")
}

fn write_signal(out: &mut String, signal: &Signal) -> std::fmt::Result {
    writeln!(out, "  <signal name=\"{}\">", signal.name)?;
    for (signature, name) in signal.arguments {
        writeln!(out, "   <arg type=\"{signature}\" name=\"{name}\"/>")?;
    }
    writeln!(out, "  </signal>")
}

fn annotation(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "   <annotation name=\"{name}\" value=\"{value}\"/>")
}
