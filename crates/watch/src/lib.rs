//! Kernel sources as events: the mount table (proc_pid_mountinfo(5)), and the list of network interfaces.
//!
//! The file is kept open: the kernel raises an exceptional condition on it when the table changed. What must stay true:
//! a table of any length is read with a cap, and a line that is not understood is passed over.
#![forbid(unsafe_code)]

mod interfaces;
pub mod udev;

pub use interfaces::Interfaces;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};

/// The longest table that is read, in bytes.
const TABLE_MAX: u64 = 16 << 20;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The source of the mount.
    pub what: String,
    /// The mount point.
    pub place: String,
    /// File system type.
    pub fs_type: String,
    /// Options, the mount's own and the file system's.
    pub options: String,
}

/// The table, open.
#[derive(Debug)]
pub struct MountTable {
    file: File,
}

impl MountTable {
    /// Opens the mount table.
    pub fn open() -> io::Result<MountTable> {
        Ok(MountTable { file: File::open("/proc/self/mountinfo")? })
    }

    /// Reads the whole mount table.
    pub fn read(&mut self) -> io::Result<Vec<Mount>> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        (&self.file).take(TABLE_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect())
    }
}

impl AsRawFd for MountTable {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn parse(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let (mut head, mut tail) = (head.split(' '), tail.split(' '));
    let (place, own) = (head.nth(4)?, head.next()?);
    let (fs_type, what, rest) = (tail.next()?, tail.next()?, tail.next().unwrap_or(""));
    Some(Mount {
        what: unescape(what),
        place: unescape(place),
        fs_type: unescape(fs_type),
        options: join_options(own, &unescape(rest)),
    })
}

/// The options of the mount and of its file system as one list; what the mount says of writing counts.
fn join_options(own: &str, of_file_system: &str) -> String {
    match of_file_system.split_once(',') {
        Some(("rw" | "ro", rest)) => format!("{own},{rest}"),
        None if matches!(of_file_system, "rw" | "ro" | "") => own.to_owned(),
        _ => format!("{own},{of_file_system}"),
    }
}

/// Undoes the kernel's octal escapes.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or(&[]);
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_noise() {
        let got =
            parse("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue");
        let want = Mount {
            what: "/dev/root".into(),
            place: "/mnt 2".into(),
            fs_type: "ext3".into(),
            options: "rw,noatime,errors=continue".into(),
        };
        assert_eq!(got, Some(want));
        assert_eq!((parse(""), parse("a b c - d")), (None, None));
    }
}
