//! A file system that hangs: it answers for its root directory and for opening `file` in it, and for nothing else. Who looks
//! for another name waits, and so does who closes the file, until this process ends.
//!
//! The layouts are those of linux/fuse.h, protocol 7.31.

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const INIT: u32 = 26;
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// Serves at a directory until it is killed.
pub fn serve(place: &str) -> Result<()> {
    let _ = mknod("/dev/fuse", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 229));
    let mut device =
        OpenOptions::new().read(true).write(true).open("/dev/fuse").context("opening /dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    mount(Some("hang"), place, Some("fuse"), MsFlags::empty(), Some(options.as_str())).context("mounting")?;
    let mut request = vec![0_u8; 1 << 17];
    loop {
        let length = device.read(&mut request)?;
        let words: Vec<u32> = request
            .get(..length)
            .unwrap_or_default()
            .chunks_exact(4)
            .filter_map(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)))
            .collect();
        let [_, opcode, unique_low, unique_high, node, ..] = *words.as_slice() else { continue };
        let answer = match opcode {
            INIT => [vec![7, 31, 1 << 16, 0, 0, 1 << 16, 1], vec![0; 9]].concat(),
            GETATTR => [vec![0, 0, 0, 0], attributes(u64::from(node))].concat(),
            LOOKUP if request.get(40..45) == Some(b"file\0") => {
                let file = [FILE as u32, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                [file.to_vec(), attributes(FILE)].concat()
            }
            OPEN => vec![0; 4],
            _ => continue,
        };
        let size = u32::try_from(answer.len() * 4 + 16)?;
        let all = [vec![size, 0, unique_low, unique_high], answer].concat();
        let bytes: Vec<u8> = all.into_iter().flat_map(u32::to_ne_bytes).collect();
        device.write_all(&bytes)?;
    }
}

/// `struct fuse_attr`, in words.
fn attributes(node: u64) -> Vec<u32> {
    let mode = if node == ROOT { 0o040_755 } else { 0o100_666 };
    let mut words = vec![0_u32; 22];
    words[0] = node as u32;
    words[15] = mode;
    words[16] = 1;
    words[20] = 4096;
    words
}
