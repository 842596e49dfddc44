//! Disks made byte by byte.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::*;

impl Disk for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or(&[]);
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A GUID as disks have it.
fn raw(guid: u128) -> [u8; 16] {
    let mut bytes = guid.to_be_bytes();
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// A table of (type, first sector, last sector, flags).
fn table(parts: &[(u128, u64, u64, u64)]) -> Vec<u8> {
    let mut disk = vec![0; 64 * 1024];
    put(&mut disk, 512, b"EFI PART");
    put(&mut disk, 512 + 40, &34_u64.to_le_bytes());
    put(&mut disk, 512 + 48, &120_u64.to_le_bytes());
    put(&mut disk, 512 + 72, &2_u64.to_le_bytes());
    put(&mut disk, 512 + 80, &4_u32.to_le_bytes());
    put(&mut disk, 512 + 84, &128_u32.to_le_bytes());
    for (index, (kind, first, last, flags)) in parts.iter().enumerate() {
        let at = 1024 + 128 * index;
        put(&mut disk, at, &raw(*kind));
        put(&mut disk, at + 32, &first.to_le_bytes());
        put(&mut disk, at + 40, &last.to_le_bytes());
        put(&mut disk, at + 48, &flags.to_le_bytes());
    }
    disk
}

fn shown(disk: &Vec<u8>) -> String {
    let slices = partitions(disk).unwrap().unwrap();
    let line = |slice: &Slice| format!("{} {}+{}", slice.partition.name(), slice.offset, slice.size);
    slices.iter().map(line).collect::<Vec<_>>().join(", ")
}

fn kind(name: &str) -> u128 {
    TYPES.iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn file_systems_by_their_signatures() {
    for (at, bytes, name) in SIGNATURES {
        let mut disk = vec![0; 128 * 1024];
        put(&mut disk, 4096 + usize::try_from(at).unwrap(), bytes);
        assert_eq!(content(&disk, 4096).unwrap(), Content::FileSystem(name));
        assert_eq!(content(&disk, 0).unwrap(), Content::Unknown);
    }
    assert_eq!(content(&LUKS.to_vec(), 0).unwrap(), Content::Encrypted);
    assert_eq!(content(&Vec::new(), u64::MAX).unwrap(), Content::Unknown);
}

#[test]
fn partitions_by_their_types() {
    let disk = table(&[(kind("home"), 40, 41, 0), (kind("root"), 50, 59, READ_ONLY), (0x1234, 60, 61, 0)]);
    assert_eq!(shown(&disk), "root 25600+5120, home 20480+1024");
    assert!(partitions(&disk).unwrap().unwrap()[0].read_only);
    // The first of a kind counts; what must not be found is not.
    let disk =
        table(&[(kind("root"), 40, 40, NO_AUTO), (kind("root"), 50, 50, 0), (kind("root"), 60, 60, 0)]);
    assert_eq!(shown(&disk), "root 25600+512");
    assert_eq!(shown(&table(&[(GENERIC, 40, 40, 0)])), "root 20480+512");
    assert_eq!(shown(&table(&[(GENERIC, 40, 40, 0), (GENERIC, 50, 50, 0)])), "");
    assert_eq!(partitions(&vec![0; 4096]).unwrap(), None);
}

#[test]
fn a_table_that_lies_is_an_error_or_says_nothing() {
    let root = kind("root");
    for (first, last) in [(0, 10), (40, 39), (40, u64::MAX), (u64::MAX, u64::MAX)] {
        assert_eq!(shown(&table(&[(root, first, last, 0)])), "");
    }
    for (at, bytes) in [(80, [255; 4]), (84, [0; 4]), (84, [255; 4]), (76, [255; 4])] {
        let mut disk = table(&[(root, 40, 40, 0)]);
        put(&mut disk, 512 + at, &bytes);
        assert!(partitions(&disk).is_err(), "{at}");
    }
}

#[test]
fn the_one_partition_of_a_dos_table() {
    let mut disk = vec![0; 1024];
    put(&mut disk, 510, &[0x55, 0xaa]);
    put(&mut disk, 462, &[0x80, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(shown(&disk), "root 512+512");
    put(&mut disk, 446, &[0x33]);
    assert_eq!(partitions(&disk).unwrap(), None);
}
