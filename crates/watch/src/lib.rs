//! Kernel sources as events: the mount table (proc_pid_mountinfo(5)), the list of swaps (proc_swaps(5)), and that of network
//! interfaces.
//!
//! A table's file is kept open: the kernel raises an exceptional condition on it when the table changed. What must stay true:
//! a table of any length is read with a cap, and a line that is not understood is passed over.
#![forbid(unsafe_code)]

mod interfaces;
pub mod udev;

pub use interfaces::Interfaces;

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};

/// The longest table that is read, in bytes.
const TABLE_MAX: u64 = 16 << 20;
/// How long most are at most, in bytes.
const TABLE_USUAL: usize = 8 << 10;

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

/// What a reading of the mount table found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountChanges {
    /// What is mounted on each place where that is not what it was: of several mounts the uppermost.
    pub present: Vec<Mount>,
    /// Places where nothing is mounted any more.
    pub gone: Vec<String>,
    /// It is the first reading: `present` is everything there is.
    pub whole: bool,
}

/// The table, open.
#[derive(Debug)]
pub struct MountTable {
    file: File,
    /// What was read last: a digest of the line of each place, which stands as the kernel escapes it.
    known: Option<BTreeMap<Box<str>, u64>>,
}

impl MountTable {
    /// Opens the mount table.
    pub fn open() -> io::Result<MountTable> {
        Ok(MountTable { file: File::open("/proc/self/mountinfo")?, known: None })
    }

    /// Reads the mount table: every mount, the upper ones of a place later.
    pub fn read(&self) -> io::Result<Vec<Mount>> {
        let bytes = read_whole(&self.file)?;
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect())
    }

    /// Reads the mount table, and tells what changed since the last time.
    pub fn changes(&mut self) -> io::Result<MountChanges> {
        let bytes = read_whole(&self.file)?;
        Ok(self.compare(&String::from_utf8_lossy(&bytes)))
    }

    fn compare(&mut self, text: &str) -> MountChanges {
        let whole = self.known.is_none();
        let mut known = self.known.take().unwrap_or_default();
        // A later line of the same place lies above. An autofs is a mount still to come.
        let mounts = text.lines().filter(|line| !line.contains(" - autofs "));
        let now: BTreeMap<&str, &str> =
            mounts.filter_map(|line| Some((line.split(' ').nth(4)?, line))).collect();
        let mut changes = MountChanges { whole, ..MountChanges::default() };
        known.retain(|place, _| {
            let stays = now.contains_key(&**place);
            if !stays {
                changes.gone.push(unescape(place));
            }
            stays
        });
        for (place, line) in now {
            let digest = digest(line);
            if known.get(place) == Some(&digest) {
                continue;
            }
            known.insert(place.into(), digest);
            changes.present.extend(parse(line));
        }
        self.known = Some(known);
        changes
    }
}

impl AsRawFd for MountTable {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn digest(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    hasher.finish()
}

/// One swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Its node or file.
    pub path: String,
    /// Its priority.
    pub priority: i32,
}

/// The list of swaps, open.
#[derive(Debug)]
pub struct SwapTable {
    file: File,
}

impl SwapTable {
    /// Opens the list.
    pub fn open() -> io::Result<SwapTable> {
        Ok(SwapTable { file: File::open("/proc/swaps")? })
    }

    /// Reads it.
    pub fn read(&mut self) -> io::Result<Vec<Swap>> {
        let bytes = read_whole(&self.file)?;
        Ok(String::from_utf8_lossy(&bytes).lines().skip(1).filter_map(parse_swap).collect())
    }
}

impl AsRawFd for SwapTable {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn parse_swap(line: &str) -> Option<Swap> {
    let mut words = line.split_whitespace();
    let path = unescape(words.next()?);
    Some(Swap { path, priority: words.nth(3)?.parse().ok()? })
}

fn read_whole(mut file: &File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    // The kernel does not tell the length: a buffer that begins small costs a system call each time it grows.
    let mut bytes = Vec::with_capacity(TABLE_USUAL);
    file.take(TABLE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
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

    #[test]
    fn only_what_changed_is_told() -> io::Result<()> {
        let line = |id: u32, place: &str, what: &str| format!("{id} 1 0:9 / {place} rw - tmpfs {what} rw\n");
        let mut table = MountTable { file: File::open("/dev/null")?, known: None };
        let mut told = |text: &str| {
            let changes = table.compare(text);
            let present: Vec<String> =
                changes.present.iter().map(|mount| format!("{} on {}", mount.what, mount.place)).collect();
            (present, changes.gone, changes.whole)
        };
        let strings = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let first = line(1, "/a", "x") + &line(2, "/b\\040b", "y");
        assert_eq!(told(&first), (strings(&["x on /a", "y on /b b"]), vec![], true));
        assert_eq!(told(&first), (vec![], vec![], false));
        let above = first.clone() + &line(3, "/a", "z");
        assert_eq!(told(&above), (strings(&["z on /a"]), vec![], false));
        assert_eq!(told(&first), (strings(&["x on /a"]), vec![], false));
        assert_eq!(told(&line(1, "/a", "x")), (vec![], strings(&["/b b"]), false));
        let automount = line(1, "/a", "x") + "4 1 0:9 / /c rw - autofs systemd-1 rw,fd=0\n";
        assert_eq!(told(&automount), (vec![], vec![], false));
        Ok(())
    }

    #[test]
    fn a_list_of_swaps() {
        let line = "/var/a\\040b                    file\t\t4092\t\t0\t\t-2";
        assert_eq!(parse_swap(line), Some(Swap { path: "/var/a b".into(), priority: -2 }));
        assert_eq!(parse_swap("Filename"), None);
    }
}
