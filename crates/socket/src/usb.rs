//! `ListenUSBFunction=`: a FunctionFS mount (Linux, Documentation/usb/functionfs.rst).
//!
//! Endpoint zero is told what the function is, by the files that the service names (`USBFunctionDescriptors=`,
//! `USBFunctionStrings=`); thereupon the kernel makes the other endpoints, which are passed after it. The kernel lets go of
//! the function when endpoint zero is closed.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_file};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

/// What the service says of its function: paths of two files in the binary form that the kernel takes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Function {
    /// `USBFunctionDescriptors=`.
    pub descriptors: String,
    /// `USBFunctionStrings=`.
    pub strings: String,
}

/// The largest size of either file, in bytes; the kernel takes a page or two.
const BLOB_MAX: u64 = 64 * 1024;
/// The most endpoints of a USB device, endpoint zero not counted.
const ENDPOINTS_MAX: u32 = 30;

/// Endpoint zero, and all others in their order.
pub(crate) fn open(mount: &str, function: Option<&Function>) -> Result<Vec<OwnedFd>, String> {
    let function = function.ok_or("the service needs USBFunctionDescriptors= and USBFunctionStrings=")?;
    let zero = endpoint(mount, 0).map_err(|error| format!("{mount}/ep0: {}", error.desc()))?;
    let mut zero = File::from(zero);
    for (directive, path) in
        [("USBFunctionDescriptors", &function.descriptors), ("USBFunctionStrings", &function.strings)]
    {
        let blob = read(path).map_err(|error| format!("{directive}={path}: {error}"))?;
        zero.write_all(&blob).map_err(|error| format!("{directive}={path} was refused: {error}"))?;
    }
    let mut all = vec![OwnedFd::from(zero)];
    for number in 1..=ENDPOINTS_MAX {
        match endpoint(mount, number) {
            Ok(fd) => all.push(fd),
            Err(Errno::ENOENT) => break,
            Err(error) => return Err(format!("{mount}/ep{number}: {}", error.desc())),
        }
    }
    Ok(all)
}

fn endpoint(mount: &str, number: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    open_file(format!("{}/ep{number}", mount.trim_end_matches('/')).as_str(), flags, Mode::empty())
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    let mut blob = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(File::open(path)?, BLOB_MAX), &mut blob)?;
    Ok(blob)
}
