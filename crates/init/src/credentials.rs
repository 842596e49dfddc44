//! System credentials (systemd(1), "System Credentials"): what a container's manager, the initrd, the machine's firmware or the
//! kernel's command line gives to this system, put where services and generators look for it.
//!
//! What must stay true: they are there before the first generator runs, and root alone reads them; of one name the first that
//! is found counts.

use crate::firmware;
use crate::options::Options;
use muster_unit::is_credential_name;
use nix::mount::{MsFlags, mount};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};

/// Where they are.
pub const DIRECTORY: &str = "/run/credentials/@system";
/// Where an initrd leaves some for this system.
const FROM_INITRD: &str = "/run/credentials/@initrd";
/// All of them together, names included, in bytes.
const TOTAL_MAX: usize = 1024 * 1024;
/// MS_NOSYMFOLLOW (mount(2)).
const NO_LINKS: u64 = 256;

/// Puts them there; gives what could not be done.
pub fn take(options: &Options) -> Vec<String> {
    if options.import_credentials == Some(false) {
        return Vec::new();
    }
    let done = match std::env::var("CREDENTIALS_DIRECTORY") {
        // They stay where the container's manager put them.
        Ok(given) if given.starts_with('/') => symlink(format!("../..{given}"), DIRECTORY),
        _ => {
            let mut all = firmware::from_directory(FROM_INITRD, "");
            let more = firmware::credentials().into_iter().chain(options.credentials.clone());
            for (name, data) in more {
                all.entry(name).or_insert(data);
            }
            all.retain(|name, _| is_credential_name(name));
            if all.is_empty() {
                return Vec::new();
            }
            store(&all)
        }
    };
    match done {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            vec![format!("System credentials are not there: {error}")]
        }
        _ => Vec::new(),
    }
}

/// A file each, in a file system of their own that nobody writes to afterwards.
fn store(all: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let size: usize = all.iter().map(|(name, data)| name.len().saturating_add(data.len())).sum();
    if size > TOTAL_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    std::fs::DirBuilder::new().mode(0o700).create(DIRECTORY)?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let make = |data| mount(Some("tmpfs"), DIRECTORY, Some("tmpfs"), safe, Some(data));
    // Kernels before 6.4 cannot be told not to swap it out.
    make("mode=0700,size=1m,nr_inodes=1k,noswap").or_else(|_| make("mode=0700,size=1m,nr_inodes=1k"))?;
    for (name, data) in all {
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o400).open(format!("{DIRECTORY}/{name}"))?;
        io::Write::write_all(&mut file, data)?;
    }
    let safe = safe | MsFlags::from_bits_retain(NO_LINKS);
    let remount = safe | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    Ok(mount(None::<&str>, DIRECTORY, None::<&str>, remount, None::<&str>)?)
}
