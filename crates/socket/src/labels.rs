//! Extended attributes of sockets and their nodes: `XAttr*=` and the labels of SMACK, one row a directive.

use muster_unit::{Attribute, SocketSection};
use std::ffi::CString;
use std::os::fd::BorrowedFd;

/// Labels a listening descriptor and its node in the file system; gives what the kernel refused.
pub fn listening(section: &SocketSection, fd: BorrowedFd<'_>, node: Option<&str>) -> Vec<String> {
    let mut refused = Vec::new();
    let on_fd = |attribute: &str, value: &str| set(fd, attribute, value);
    for (name, attribute, label) in [
        ("SmackLabelIPIn", "security.SMACK64IPIN", &section.smack_label_ip_in()),
        ("SmackLabelIPOut", "security.SMACK64IPOUT", &section.smack_label_ip_out()),
    ] {
        refused.extend(label.iter().filter_map(|label| fault(name, label, on_fd(attribute, label))));
    }
    refused.extend(assignments("XAttrListen", section.xattr_listen(), on_fd));
    if let Some(node) = node {
        let on_node = |attribute: &str, value: &str| set_path(node, attribute, value);
        let label = section.smack_label().iter();
        refused
            .extend(label.filter_map(|label| fault("SmackLabel", label, on_node("security.SMACK64", label))));
        refused.extend(assignments("XAttrEntryPoint", section.xattr_entry_point(), on_node));
    }
    refused
}

/// Labels an accepted connection.
pub fn accepted(section: &SocketSection, fd: BorrowedFd<'_>) -> Vec<String> {
    assignments("XAttrAccept", section.xattr_accept(), |attribute, value| set(fd, attribute, value))
}

/// The attributes of one directive.
fn assignments(
    directive: &str,
    attributes: &[Attribute],
    set: impl Fn(&str, &str) -> std::io::Result<()>,
) -> Vec<String> {
    let one =
        |it: &Attribute| fault(directive, &format!("{}={}", it.name, it.value), set(&it.name, &it.value));
    attributes.iter().filter_map(one).collect()
}

fn fault(directive: &str, value: &str, done: std::io::Result<()>) -> Option<String> {
    done.err().map(|error| format!("{directive}={value} was refused: {error}"))
}

fn set(fd: BorrowedFd<'_>, attribute: &str, value: &str) -> std::io::Result<()> {
    muster_sys::set_xattr(fd, &CString::new(attribute)?, value.as_bytes())
}

fn set_path(path: &str, attribute: &str, value: &str) -> std::io::Result<()> {
    muster_sys::set_xattr_path(&CString::new(path)?, &CString::new(attribute)?, value.as_bytes())
}
