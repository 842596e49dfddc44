//! What is on a disk, by its first bytes: a file system, or a table of partitions (the Discoverable Partitions
//! Specification; UEFI specification, "GUID Partition Table").
//!
//! Pure, over anything that can be read at a place. Nothing of the disk is trusted: numbers are checked, tables are bounded,
//! and only file systems that the kernel is meant to read from strangers' hands are known.

use muster_unit::Partition;

/// Reads bytes of a disk; fewer where it ends.
pub trait Disk {
    /// Fills as much of the buffer as there is from `offset` on.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize>;
}

impl Disk for std::fs::File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }
}

/// What begins at a place of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file system, by the kernel's name.
    FileSystem(&'static str),
    /// Something encrypted (LUKS).
    Encrypted,
    /// Nothing that is known.
    Unknown,
}

/// A part of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// What it is for.
    pub partition: Partition,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has; 0 for all there are.
    pub size: u64,
    /// It is to be read only.
    pub read_only: bool,
    /// Its file system is to grow to its size.
    pub grows: bool,
}

/// Where signatures are: offset, bytes, and the file system.
const SIGNATURES: [(u64, &[u8], &str); 7] = [
    (0, b"hsqs", "squashfs"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "erofs"),
    (1080, &[0x53, 0xef], "ext4"),
    (0, b"XFSB", "xfs"),
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "f2fs"),
    (82, b"FAT32   ", "vfat"),
];
const LUKS: &[u8] = b"LUKS\xba\xbe";

/// Looks at what begins at a place.
pub fn content(disk: &impl Disk, offset: u64) -> std::io::Result<Content> {
    let begins = |at: u64, bytes: &[u8]| -> std::io::Result<bool> {
        let Some(place) = offset.checked_add(at) else { return Ok(false) };
        let mut found = [0_u8; 8];
        let Some(found) = found.get_mut(..bytes.len()) else { return Ok(false) };
        Ok(disk.read_at(place, found)? == bytes.len() && *found == *bytes)
    };
    if begins(0, LUKS)? {
        return Ok(Content::Encrypted);
    }
    for (at, bytes, name) in SIGNATURES {
        if begins(at, bytes)? {
            return Ok(Content::FileSystem(name));
        }
    }
    Ok(Content::Unknown)
}

/// Names of file systems that are mounted from images.
pub fn is_known(name: &str) -> bool {
    SIGNATURES.iter().any(|(.., known)| *known == name)
}

const SECTOR: u64 = 512;
/// A table has 128 entries as a rule.
const ENTRIES_MAX: u32 = 1024;
const ENTRY: usize = 128;
const ENTRY_MAX: u32 = 4096;

/// Types of partitions: as their GUID is written in hexadecimal, for this machine's kind of processor.
const TYPES: &[(&str, u128)] = &[
    #[cfg(target_arch = "x86_64")]
    ("root", 0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709),
    #[cfg(target_arch = "x86_64")]
    ("usr", 0x8484680c_9521_48c6_9c11_b0720656f69e),
    #[cfg(target_arch = "x86_64")]
    ("root-verity", 0x2c7357ed_ebd2_46d9_aec1_23d437ec2bf5),
    #[cfg(target_arch = "x86_64")]
    ("usr-verity", 0x77ff5f63_e7b6_4633_acf4_1565b864c0e6),
    #[cfg(target_arch = "aarch64")]
    ("root", 0xb921b045_1df0_41c3_af44_4c6f280d3fae),
    #[cfg(target_arch = "aarch64")]
    ("usr", 0xb0e01050_ee5f_4390_949a_9101b17104e9),
    #[cfg(target_arch = "aarch64")]
    ("root-verity", 0xdf3300ce_d69f_4c92_978c_9bfb0f38d820),
    #[cfg(target_arch = "aarch64")]
    ("usr-verity", 0x6e11a4e7_fbca_4ded_b9e9_e1a512bb664e),
    ("home", 0x933ac7e1_2eb4_4f13_b844_0e14e2aef915),
    ("srv", 0x3b8f8425_20e0_4f3b_907f_1a25a76f98e8),
    ("var", 0x4d21b016_b534_45c2_a9fb_5c16e091fd2d),
    ("tmp", 0x7ec6f557_3bc5_4aca_b293_16ef5df639d1),
    ("swap", 0x0657fd6d_a4ab_43c4_84e5_0933c84b4f4f),
    ("esp", 0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b),
    ("xbootldr", 0xbc13c2ff_59e6_4262_a352_b275fd6f7172),
];
/// Any file system of Linux.
const GENERIC: u128 = 0x0fc63daf_8483_4772_8e79_3d69d8477de4;
const NO_AUTO: u64 = 1 << 63;
const READ_ONLY: u64 = 1 << 60;
const GROWS: u64 = 1 << 59;

/// The partitions of a disk, at most one of a kind, in the order of their kinds; nothing where there is no table.
pub fn partitions(disk: &impl Disk) -> std::io::Result<Option<Vec<Slice>>> {
    let mut header = [0_u8; 92];
    if disk.read_at(SECTOR, &mut header)? == header.len() && header.starts_with(b"EFI PART") {
        return entries(disk, &header).map(Some);
    }
    let mut first = [0_u8; 512];
    if disk.read_at(0, &mut first)? < first.len() || !first.ends_with(&[0x55, 0xaa]) {
        return Ok(None);
    }
    Ok(dos(&first))
}

fn wrong<T>(what: &str) -> std::io::Result<T> {
    Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned()))
}

/// Bytes at a place; zeros where there are none.
pub fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let part = at.checked_add(N).and_then(|end| bytes.get(at..end));
    part.and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

/// A GUID as it is written: its first three parts have their low byte first on disks.
fn guid(bytes: &[u8], at: usize) -> u128 {
    let mut raw: [u8; 16] = number(bytes, at);
    for range in [0..4, 4..6, 6..8] {
        if let Some(part) = raw.get_mut(range) {
            part.reverse();
        }
    }
    u128::from_be_bytes(raw)
}

fn entries(disk: &impl Disk, header: &[u8]) -> std::io::Result<Vec<Slice>> {
    let start = u64::from_le_bytes(number(header, 72)).checked_mul(SECTOR);
    let count = u32::from_le_bytes(number(header, 80));
    let size = u32::from_le_bytes(number(header, 84));
    let (first, last) = (u64::from_le_bytes(number(header, 40)), u64::from_le_bytes(number(header, 48)));
    if !(128..=ENTRY_MAX).contains(&size) || count > ENTRIES_MAX {
        return wrong("its table of partitions is not valid");
    }
    let (mut found, mut generic) = (Vec::<Slice>::new(), Vec::new());
    for index in 0..count {
        let at = start.and_then(|start| start.checked_add(u64::from(index).checked_mul(size.into())?));
        let Some(at) = at else { return wrong("its table of partitions is not valid") };
        let mut entry = [0_u8; ENTRY];
        if disk.read_at(at, &mut entry)? < entry.len() {
            return wrong("its table of partitions is cut short");
        }
        let kind = guid(&entry, 0);
        let (begin, end) = (u64::from_le_bytes(number(&entry, 32)), u64::from_le_bytes(number(&entry, 40)));
        let flags = u64::from_le_bytes(number(&entry, 48));
        if kind == 0 || flags & NO_AUTO != 0 || begin < first || end > last || end < begin {
            continue;
        }
        let sectors = end.saturating_sub(begin).saturating_add(1);
        let (Some(offset), Some(size)) = (begin.checked_mul(SECTOR), sectors.checked_mul(SECTOR)) else {
            continue;
        };
        let (read_only, grows) = (flags & READ_ONLY != 0, flags & GROWS != 0);
        let slice = |partition| Slice { partition, offset, size, read_only, grows };
        if kind == GENERIC {
            generic.push(slice(Partition::ROOT));
        }
        let name = TYPES.iter().find(|(_, known)| *known == kind).map(|(name, _)| *name);
        if let Some(partition) = name.and_then(Partition::named) {
            if !found.iter().any(|slice| slice.partition == partition) {
                found.push(slice(partition));
            }
        }
    }
    let named =
        |name| Partition::named(name).is_some_and(|kind| found.iter().any(|slice| slice.partition == kind));
    if !named("root") && !named("usr") {
        // The only one that can be meant.
        if let [only] = generic.as_slice() {
            found.push(only.clone());
        }
    }
    found.sort_by_key(|slice| slice.partition);
    Ok(found)
}

/// The one Linux partition of a table as DOS had it.
fn dos(sector: &[u8; 512]) -> Option<Vec<Slice>> {
    const LINUX: u8 = 0x83;
    let mut found = Vec::new();
    for at in [446, 462, 478, 494] {
        let entry: [u8; 16] = number(sector, at);
        let begin = u64::from(u32::from_le_bytes(number(&entry, 8)));
        let sectors = u64::from(u32::from_le_bytes(number(&entry, 12)));
        // What is no flag is code of a boot sector, and this no table.
        if entry.first().is_some_and(|flag| flag & 0x7f != 0) {
            return None;
        }
        if entry.get(4) == Some(&LINUX) && begin > 0 && sectors > 0 {
            found.push(Slice {
                partition: Partition::ROOT,
                offset: begin.saturating_mul(SECTOR),
                size: sectors.saturating_mul(SECTOR),
                read_only: false,
                grows: false,
            });
        }
    }
    Some(found).filter(|found| found.len() == 1)
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
