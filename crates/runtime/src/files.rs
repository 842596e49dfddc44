//! Files that PID 1 writes for others to read: each beside its name, and then renamed.
//!
//! A crash or a full disk leaves the old file or the new one, never a half. What must outlive a power cut, all that is not
//! below /run, is synced before it gets its name, and the directory after.

use muster_manager::event::WriteError;
use nix::errno::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Writes all of these files, or, where one cannot be written, none.
pub fn write_all(files: &[(String, String)]) -> Result<(), WriteError> {
    let mut staged: Vec<(PathBuf, &str)> = Vec::new();
    let mut made = Vec::new();
    let result = files.iter().try_for_each(|(path, text)| {
        let beside = stage(Path::new(path), text, &mut made).map_err(|error| refuse(path, &error))?;
        staged.push((beside, path));
        Ok(())
    });
    let result = result.and_then(|()| {
        staged.iter().try_for_each(|(beside, path)| {
            std::fs::rename(beside, path)
                .and_then(|()| sync_parent(Path::new(path)))
                .map_err(|error| refuse(path, &error))
        })
    });
    if result.is_err() {
        for (beside, _) in &staged {
            let _ = std::fs::remove_file(beside);
        }
        // Those that are empty; the others serve somebody.
        for directory in made.iter().rev() {
            let _ = std::fs::remove_dir(directory);
        }
    }
    result
}

/// Whether it is to outlive a power cut.
fn lasts(path: &Path) -> bool {
    !path.starts_with("/run")
}

/// Writes a file beside its name, and gives where. Directories that had to be made are added to `made`.
fn stage(path: &Path, text: &str, made: &mut Vec<PathBuf>) -> io::Result<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    make_directories(directory, made)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let beside = directory.join(format!(".#{}.{}-{number}", name.to_string_lossy(), std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let written = write_new(&beside, text, lasts(path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map(|()| beside)
}

fn write_new(path: &Path, text: &str, lasts: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    if lasts { file.sync_all() } else { Ok(()) }
}

fn make_directories(directory: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.is_dir()).collect();
    for path in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o755).create(path) {
            Ok(()) => {
                made.push(path.to_owned());
                sync_parent(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes what happened in a directory last.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|_| lasts(path)) {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes a link where there is none, or puts it in the place of another in one step.
pub fn replace_link(target: &str, path: &str) -> io::Result<()> {
    match std::os::unix::fs::symlink(target, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let beside = format!("{path}.#{}-{number}", std::process::id());
            std::os::unix::fs::symlink(target, &beside)?;
            std::fs::rename(&beside, path).inspect_err(|_| drop(std::fs::remove_file(&beside)))
        }
        done => done,
    }
}

/// What a client is told of an error of the disk.
pub fn refuse(path: &str, error: &io::Error) -> WriteError {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let name = match errno {
        Errno::EPERM | Errno::EACCES => "org.freedesktop.DBus.Error.AccessDenied".to_owned(),
        Errno::ENOENT => "org.freedesktop.DBus.Error.FileNotFound".to_owned(),
        Errno::EEXIST => "org.freedesktop.DBus.Error.FileExists".to_owned(),
        Errno::EINVAL => "org.freedesktop.DBus.Error.InvalidArgs".to_owned(),
        Errno::ENOMEM => "org.freedesktop.DBus.Error.NoMemory".to_owned(),
        other => format!("System.Error.{other:?}"),
    };
    WriteError { name, message: format!("File {path}: {}", errno.desc()) }
}

/// Sets the time of a stamp file, in microseconds since 1970, or reads it. A new stamp is made aside and put in place whole.
pub fn stamp(path: &str, set_usec: Option<u64>) -> Option<u64> {
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    let Some(usec) = set_usec else {
        let modified = std::fs::metadata(path).ok()?.modified().ok()?;
        return u64::try_from(modified.duration_since(epoch).ok()?.as_micros()).ok();
    };
    let aside = format!("{path}.new");
    let _ = std::fs::create_dir_all(std::path::Path::new(path).parent()?);
    let file = std::fs::File::create(&aside).ok()?;
    file.set_modified(epoch.checked_add(std::time::Duration::from_micros(usec))?).ok()?;
    std::fs::rename(&aside, path).ok()?;
    Some(usec)
}
