//! Credentials (systemd.exec(5), "Credentials"): small secrets as files that only the service's user can read.
//!
//! Each process up to the main one makes a file system of its own for them, which is filled while it stands nowhere, made
//! read-only, and then put below /run/credentials; those that follow find it there, and PID 1 takes it away when the run is
//! over. Where a container gives no right to mount, they are plain files in a directory there, which is made beside its place.
//! What must stay true: what is there is whole, and nobody but root and that user has ever been able to open it.

use super::{About, Direct, Done, Step, failed};
use crate::{Context, Exit, Process};
use muster_unit::{CredentialSource, encode_base64, is_credential_name};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, UnmountFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where they are, a directory for each unit.
pub const BASE: &str = "/run/credentials";
/// All that a unit may have, names included, in bytes.
const TOTAL_MAX: usize = 1024 * 1024;
/// Files of one directory, and how deep it may be.
const FILES_MAX: usize = 1024;
const DEPTH_MAX: usize = 32;

/// All of them.
pub const CREDENTIALS: Step = Step {
    directive: "LoadCredential=",
    exit: Exit::Credentials,
    needed: is_needed,
    direct: Direct::No,
    run,
};

/// Whether a unit has any.
pub fn is_needed(context: &Context<'_>) -> bool {
    context.exec.has_credentials()
}

/// The directory of a unit's credentials.
pub fn directory(unit: &str) -> String {
    format!("{BASE}/{unit}")
}

fn run(context: &Context<'_>, process: &mut Process) -> Done {
    let path = directory(context.unit);
    let mounts = super::namespaces::may_mount();
    let made = if mounts { is_made(&path) } else { Path::new(&path).is_dir() };
    if context.fresh_credentials || !made {
        let found = collect(context)?;
        let reader = process.user.as_ref().map(|user| user.uid);
        if !mounts {
            make_files(&path, &found, reader).about(&path)?;
            super::namespaces::go_without(process, "a file system of its own for credentials")?;
        } else {
            if made {
                rustix::mount::unmount(path.as_str(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                    .about(&path)?;
            }
            make(&path, &found, reader).about(&path)?;
        }
    }
    process.set("CREDENTIALS_DIRECTORY", path);
    Ok(())
}

/// Reads them anew for a service that runs: where there was one file system there is another, without a moment between.
/// Gives a copy of it for the main process, or nothing where they are plain files.
pub fn refresh(context: &Context<'_>, process: &Process) -> Done<Option<OwnedFd>> {
    let path = directory(context.unit);
    let found = collect(context)?;
    let reader = process.user.as_ref().map(|user| user.uid);
    if !super::namespaces::may_mount() {
        make_files(&path, &found, reader).about(&path)?;
        return Ok(None);
    }
    let tree = new_tree(&found, reader).about(&path)?;
    let target = place(&path).about(&path)?;
    crate::image::live::replace(&tree, &target, &path).about(&path)?;
    crate::sandbox::mount::clone(&tree, false).about(&path).map(Some)
}

/// Whether something is mounted there.
fn is_made(path: &str) -> bool {
    let device = |path: &str| rustix::fs::lstat(path).map(|stat| stat.st_dev);
    matches!((device(path), device(BASE)), (Ok(own), Ok(base)) if own != base)
}

/// What is found so far, and its size.
#[derive(Default)]
struct Found {
    all: BTreeMap<String, Vec<u8>>,
    size: usize,
}

impl Found {
    /// The first of a name counts.
    fn add(&mut self, id: &str, data: Vec<u8>) -> Done {
        if self.all.contains_key(id) {
            return Ok(());
        }
        self.size = self.size.saturating_add(id.len()).saturating_add(data.len());
        if self.size > TOTAL_MAX {
            return failed(format!("credential {id}: all together are larger than {TOTAL_MAX} bytes"));
        }
        self.all.insert(id.to_owned(), data);
        Ok(())
    }
}

fn collect(context: &Context<'_>) -> Done<Found> {
    let exec = context.exec;
    let mut found = Found::default();
    let defaults: BTreeSet<&str> = [exec.set_credential(), exec.set_credential_encrypted()]
        .into_iter()
        .flatten()
        .map(|credential| credential.id.as_str())
        .collect();
    for (sources, sealed) in [(exec.load_credential(), false), (exec.load_credential_encrypted(), true)] {
        for source in sources {
            let done = load(context, source, sealed, &mut found);
            // What may be missing: what has a default, and what only a name was given for.
            if done.is_err() && (defaults.contains(source.id.as_str()) || !source.path.starts_with('/')) {
                continue;
            }
            done?;
        }
    }
    for wanted in exec.import_credential() {
        for (directory, sealed) in stores(true) {
            for name in listed(&directory) {
                let Some(id) = wanted.name_for(&name) else { continue };
                if !is_credential_name(&id) || found.all.contains_key(&id) {
                    continue;
                }
                let data = read(&directory.join(&name)).about("ImportCredential=")?;
                let data = if sealed { open(&name, &data)? } else { data };
                found.add(&id, data)?;
            }
        }
    }
    for credential in exec.set_credential() {
        // An empty one is none.
        if !credential.data.is_empty() {
            found.add(&credential.id, credential.data.clone())?;
        }
    }
    for credential in exec.set_credential_encrypted() {
        if !found.all.contains_key(&credential.id) {
            let text = encode_base64(&credential.data);
            found.add(&credential.id, open(&credential.id, text.as_bytes())?)?;
        }
    }
    Ok(found)
}

/// Where credentials are looked for by name, and whether they are encrypted there.
fn stores(with_encrypted: bool) -> Vec<(PathBuf, bool)> {
    let plain = [
        "/run/credentials/@system",
        "/etc/credstore",
        "/run/credstore",
        "/usr/local/lib/credstore",
        "/usr/lib/credstore",
    ];
    let sealed = [
        "/run/credentials/@encrypted",
        "/etc/credstore.encrypted",
        "/run/credstore.encrypted",
        "/usr/local/lib/credstore.encrypted",
        "/usr/lib/credstore.encrypted",
    ];
    let mut all: Vec<(PathBuf, bool)> = plain.iter().map(|path| (PathBuf::from(path), false)).collect();
    if with_encrypted {
        all.extend(sealed.iter().map(|path| (PathBuf::from(path), true)));
    }
    all
}

/// The files of a directory by name, in order.
fn listed(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
    let mut names: Vec<String> = files
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_credential_name(name))
        .take(FILES_MAX)
        .collect();
    names.sort_unstable();
    names
}

fn load(context: &Context<'_>, source: &CredentialSource, sealed: bool, found: &mut Found) -> Done {
    let about = format!(
        "{}={}:{}",
        if sealed { "LoadCredentialEncrypted" } else { "LoadCredential" },
        source.id,
        source.path
    );
    let opened = |data: Vec<u8>, sealed: bool| if sealed { open(&source.id, &data) } else { Ok(data) };
    if !source.path.starts_with('/') {
        for (directory, is_sealed) in stores(sealed) {
            match read(&directory.join(&source.path)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                done => return found.add(&source.id, opened(done.about(&about)?, is_sealed)?),
            }
        }
        return failed(format!("{about}: there is no such credential"));
    }
    let path = Path::new(&source.path);
    let kind = path.metadata().about(&about)?.file_type();
    if kind.is_dir() {
        return load_directory(source, sealed, found);
    }
    let data = if std::os::unix::fs::FileTypeExt::is_socket(&kind) {
        read_socket(context.unit, source)
    } else {
        read(path)
    };
    found.add(&source.id, opened(data.about(&about)?, sealed)?)
}

/// Every file below a directory; links are left out.
fn load_directory(source: &CredentialSource, sealed: bool, found: &mut Found) -> Done {
    let mut stack = vec![(PathBuf::from(&source.path), source.id.clone(), 0_usize)];
    let mut count = 0_usize;
    while let Some((directory, id, depth)) = stack.pop() {
        let about = directory.display().to_string();
        for entry in std::fs::read_dir(&directory).about(&about)? {
            let entry = entry.about(&about)?;
            count = count.saturating_add(1);
            if count > FILES_MAX || depth > DEPTH_MAX {
                return failed(format!("{about}: more than {FILES_MAX} files, or deeper than {DEPTH_MAX}"));
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type().about(&about)?;
            let id = format!("{id}_{name}");
            if kind.is_dir() {
                stack.push((entry.path(), id, depth.saturating_add(1)));
            } else if kind.is_file() && is_credential_name(&id) {
                let data = read(&entry.path()).about(&about)?;
                found.add(&id, if sealed { open(&id, &data)? } else { data })?;
            }
        }
    }
    Ok(())
}

/// A file as it is, if it is not larger than all credentials may be. An encrypted one is larger than what is in it.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    take(std::fs::File::open(path)?)
}

fn take(from: impl Read) -> std::io::Result<Vec<u8>> {
    let limit = TOTAL_MAX.saturating_mul(2);
    let mut data = Vec::new();
    from.take(u64::try_from(limit).unwrap_or(0).saturating_add(1)).read_to_end(&mut data)?;
    if data.len() > limit { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(data) }
}

/// Connects from an address that says who asks, and for what.
fn read_socket(unit: &str, source: &CredentialSource) -> std::io::Result<Vec<u8>> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let mut random = [0_u8; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let name = format!("{:016x}/unit/{unit}/{}", u64::from_ne_bytes(random), source.id);
    bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(source.path.as_str())?)?;
    take(std::fs::File::from(fd))
}

/// Opens an encrypted one, as systemd's own tool does: it knows the keys of this machine.
fn open(id: &str, data: &[u8]) -> Done<Vec<u8>> {
    let about = format!("credential {id}");
    let mut tool = Command::new("/usr/bin/systemd-creds")
        .args(["decrypt", &format!("--name={id}"), "--newline=no", "-", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .about(&about)?;
    if let Some(mut input) = tool.stdin.take() {
        // A tool that does not read to the end says why.
        let _ = input.write_all(data);
    }
    let output = tool.wait_with_output().about(&about)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let says = String::from_utf8_lossy(&output.stderr);
    let last = says.lines().rfind(|line| !line.is_empty()).unwrap_or("");
    failed(format!("{about}: it cannot be opened: {last}"))
}

fn make(path: &str, found: &Found, reader: Option<u32>) -> rustix::io::Result<()> {
    crate::sandbox::mount::attach(&new_tree(found, reader)?, &place(path)?)
}

/// Fills a file system that stands nowhere yet.
fn new_tree(found: &Found, reader: Option<u32>) -> rustix::io::Result<OwnedFd> {
    use MountAttrFlags as Attr;
    let all = Attr::MOUNT_ATTR_NOSUID
        | Attr::MOUNT_ATTR_NODEV
        | Attr::MOUNT_ATTR_NOEXEC
        | Attr::MOUNT_ATTR_NOSYMFOLLOW;
    let options = [("mode", "0700"), ("nr_inodes", "1024"), ("size", "1048576"), ("noswap", "")];
    let made = crate::sandbox::mount::file_system("tmpfs", &options, all);
    // Kernels before 6.4 swap; ramfs is never swapped, and has no limit but our own.
    let tree = made.or_else(|_| crate::sandbox::mount::file_system("ramfs", &[("mode", "0700")], all))?;
    fill(&tree, found, reader)?;
    let read_only = u64::from((all | Attr::MOUNT_ATTR_RDONLY).bits());
    let set = muster_sys::set_mount_attributes(tree.as_fd(), false, read_only, 0, 0);
    set.map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))?;
    Ok(tree)
}

/// Where it belongs, made.
fn place(path: &str) -> rustix::io::Result<OwnedFd> {
    for (place, mode) in [(BASE, 0o755), (path, 0o700)] {
        make_directory(place, mode)?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

fn make_directory(path: &str, mode: u32) -> rustix::io::Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The same without a mount: a directory that is filled beside its place.
fn make_files(path: &str, found: &Found, reader: Option<u32>) -> std::io::Result<()> {
    if found.all.len() > FILES_MAX {
        return Err(std::io::ErrorKind::StorageFull.into());
    }
    let beside = format!("{BASE}/.new-{}", std::process::id());
    make_directory(BASE, 0o755)?;
    clear(&beside)?;
    rustix::fs::mkdir(beside.as_str(), Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let filled = rustix::fs::openat(CWD, beside.as_str(), flags, Mode::empty())
        .and_then(|directory| fill(&directory, found, reader));
    let done = filled.map_err(Into::into).and_then(|()| clear(path));
    let done = done.and_then(|()| std::fs::rename(&beside, path));
    if done.is_err() {
        clear(&beside)?;
    }
    done
}

/// Removes a directory that may be there.
fn clear(path: &str) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Each has its mode, whatever the umask of the service is.
fn fill(tree: &OwnedFd, found: &Found, reader: Option<u32>) -> rustix::io::Result<()> {
    let old = rustix::process::umask(Mode::empty());
    let filled = write(tree, found, reader);
    rustix::process::umask(old);
    filled
}

fn write(tree: &OwnedFd, found: &Found, reader: Option<u32>) -> rustix::io::Result<()> {
    for (name, data) in &found.all {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(tree, name.as_str(), flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(fd);
        let done = file.write_all(data);
        done.map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))?;
        give(&OwnedFd::from(file), reader, 0o400)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(tree, ".", flags, Mode::empty())?;
    give(&top, reader, 0o500)
}

/// Root and one user may read: by an access list, or, where there are none, by giving it to the user.
fn give(fd: &OwnedFd, reader: Option<u32>, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
    let Some(uid) = reader.filter(|uid| *uid != 0) else { return Ok(()) };
    let allowed = u16::try_from(mode >> 6).unwrap_or(0);
    const ANY: u32 = u32::MAX;
    // acl(5): owner, the user, group, mask, others.
    let entries =
        [(0x01, allowed, ANY), (0x02, allowed, uid), (0x04, 0, ANY), (0x10, allowed, ANY), (0x20, 0, ANY)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, allowed, id) in entries {
        list.extend_from_slice(&u16::to_le_bytes(tag));
        list.extend_from_slice(&allowed.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    if muster_sys::set_xattr(fd.as_fd(), c"system.posix_acl_access", &list).is_ok() {
        return Ok(());
    }
    rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None)
}
