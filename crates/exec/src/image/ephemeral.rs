//! `RootEphemeral=` (systemd.exec(5)): a copy of the root directory or image, for one run of a unit.
//!
//! The first process of a run makes it, aside first, so that what is there is whole; the manager has it removed when the run
//! is over. Both know its path from the run's id. A lock on it, which PID 1 keeps, tells systemd-tmpfiles(8) that it is in
//! use.

use super::verity;
use crate::Context;
use crate::steps::namespaces::leave;
use crate::steps::{About, Done, failed};
use muster_unit::{AbsolutePath, ExecSection, RootHash, RootHashSignature, ephemeral_tree};
use rustix::fs::{Mode, OFlags, SeekFrom};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copied at once.
const PIECE: usize = 1 << 20;

/// The settings with the copy for a root, where they ask for one. `locks` is where its lock is left.
pub fn root(
    context: &Context<'_>,
    exec: &ExecSection,
    locks: Option<&[OwnedFd; 2]>,
) -> Done<Option<ExecSection>> {
    let image = exec.root_image().as_deref();
    let Some(source) = image.or(exec.root_directory().as_deref()).filter(|_| exec.root_ephemeral()) else {
        return Ok(None);
    };
    let mut own = context.own_environment.iter();
    let Some(run) = own.find_map(|line| line.strip_prefix("INVOCATION_ID=")) else {
        return failed("RootEphemeral=: this run has no id");
    };
    let path = ephemeral_tree(context.unit, run);
    if !Path::new(&path).exists() {
        make(source, &path, image.is_some(), locks)?;
    }
    let mut changed = exec.clone();
    let path = Some(AbsolutePath(path));
    if image.is_some() {
        keep_hash(&mut changed, source)?;
        *changed.edit().root_image() = path;
    } else {
        *changed.edit().root_directory() = path;
    }
    Ok(Some(changed))
}

/// What lies beside an image does not lie beside its copy.
fn keep_hash(exec: &mut ExecSection, source: &str) -> Done {
    let about = format!("RootImage={source}");
    if verity::beside(source, "usr").about(&about)?.is_some() {
        return failed(format!("{about}: RootEphemeral= and a usrhash do not go together"));
    }
    let Some(hash) = verity::of_root(exec, source).about(&about)? else { return Ok(()) };
    let mut edit = exec.edit();
    *edit.root_hash() = Some(RootHash::Hash(hash.bytes()));
    *edit.root_hash_signature() = hash.signature.map(RootHashSignature::Data);
    *edit.root_verity() = hash.tree.map(AbsolutePath);
    Ok(())
}

fn make(source: &str, path: &str, is_image: bool, locks: Option<&[OwnedFd; 2]>) -> Done {
    let about = format!("RootEphemeral={source}");
    let (base, _) = path.rsplit_once('/').unwrap_or(("/", ""));
    if !Path::new(base).exists() {
        std::fs::create_dir_all(base).about(base)?;
        rustix::fs::chmod(base, Mode::from_raw_mode(0o700)).about(base)?;
    }
    let aside = format!("{path}.{}", std::process::id());
    let lock = if is_image {
        File::options().write(true).create_new(true).mode(0o600).open(&aside)
    } else {
        let made = rustix::fs::mkdir(aside.as_str(), Mode::from_raw_mode(0o755));
        made.map_err(Into::into).and_then(|()| File::open(&aside))
    };
    let mut lock = lock.about(&about)?;
    let cwd = rustix::fs::CWD;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).about(&about)?;
    let copied = match is_image {
        true => copy_file(source, &mut lock).about(&about),
        false => copy_directory(source, &aside),
    };
    if copied.is_err() {
        let _ = crate::tree::remove(&aside);
        return copied;
    }
    match rustix::fs::renameat_with(cwd, &aside, cwd, path, rustix::fs::RenameFlags::NOREPLACE) {
        // Another process of the run was faster.
        Err(rustix::io::Errno::EXIST) => crate::tree::remove(&aside).about(&about),
        Ok(()) => {
            // A lock that is not kept is no reason not to run.
            let _ = locks.map(|[_, entry]| leave(entry, &lock.into()));
            Ok(())
        }
        Err(error) => Err(error).about(&about),
    }
}

/// By sharing what is on the disk where the file system can; else without what is a hole.
fn copy_file(source: &str, to: &mut File) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut from: File = rustix::fs::open(source, flags, Mode::empty())?.into();
    let length = from.metadata()?.len();
    if !from.metadata()?.is_file() {
        return Err(std::io::Error::other("only a file can be copied"));
    }
    if rustix::fs::ioctl_ficlone(&*to, &from).is_ok() {
        return Ok(());
    }
    to.set_len(length)?;
    let mut piece = vec![0_u8; PIECE];
    let mut at = 0;
    while at < length {
        // Where nothing but holes follows, there is no data.
        let Ok(data) = rustix::fs::seek(&from, SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(&from, SeekFrom::Hole(data)).unwrap_or(length);
        at = data;
        from.seek(std::io::SeekFrom::Start(at))?;
        to.seek(std::io::SeekFrom::Start(at))?;
        while at < end {
            let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(PIECE).min(PIECE);
            let read = from.read(piece.get_mut(..wanted).unwrap_or(&mut []))?;
            if read == 0 {
                return Ok(());
            }
            to.write_all(piece.get(..read).unwrap_or(&[]))?;
            at = at.saturating_add(read as u64);
        }
    }
    Ok(())
}

/// By cp(1), which knows all that a file can have.
fn copy_directory(source: &str, path: &str) -> Done {
    let about = format!("RootEphemeral={source}");
    let arguments =
        ["--archive", "--reflink=auto", "--one-file-system", "--no-target-directory", "--", source, path];
    let mut command = Command::new("/usr/bin/cp");
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => failed(format!("{about}: cp: {status}")),
        Err(error) => failed(format!("{about}: cp: {error}")),
    }
}
