//! Users that are there only while a unit runs (systemd.exec(5), `DynamicUser=`).
//!
//! Who has which number stands below /run/systemd/dynamic-uid: a file by the number with the name in it, and links
//! `direct:NAME` and `direct:NUMBER` that lead from the one to the other. They are made here, by the executor, under a lock
//! of the directory, so that processes that start at once agree; [`forget`] takes them away when the last run with the name
//! is over. What must stay true: a name has one number, and a number one name.

use super::identity::{User, find_group, find_user};
use super::{About, Done, failed};
use crate::Process;
use nix::fcntl::{Flock, FlockArg};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, symlink};

/// Where it stands who has which number.
pub const DIRECTORY: &str = "/run/systemd/dynamic-uid";
/// The first and the last number.
const RANGE: (u32, u32) = (61184, 65519);

/// What begins the report of a number that a name has.
pub const ACCOUNT: &str = "account ";

/// A user by name: one of the databases, or one of its own. `before` is who owned the unit's directories last.
pub fn user(name: &str, before: Option<u32>, process: &Process) -> Done<User> {
    let of = |uid| User {
        name: name.to_owned(),
        uid,
        gid: uid,
        home: "/".to_owned(),
        shell: "/usr/sbin/nologin".to_owned(),
    };
    let user = match (known(name), name.parse::<u32>()) {
        (Some(uid), _) => of(uid),
        (None, Ok(uid)) => find_user(name).unwrap_or_else(|_| of(uid)),
        (None, Err(_)) => match find_user(name) {
            Ok(user) => user,
            // systemd.exec(5): a group of that name asks for a user of that name.
            Err(_) if find_group(name).is_ok() => {
                return failed(format!("DynamicUser=: there is a group {name}, and no user of that name"));
            }
            Err(_) => of(take(name, before)?),
        },
    };
    process.tell(&format!("{ACCOUNT}{} {name}", user.uid));
    Ok(user)
}

/// A group that is not called as the user is.
pub fn group(name: &str, process: &Process) -> Done<u32> {
    let found = match (known(name), name.parse::<u32>()) {
        (Some(gid), _) => gid,
        (None, Ok(gid)) => gid,
        (None, Err(_)) => match find_group(name) {
            Ok(gid) => gid,
            Err(_) => take(name, None)?,
        },
    };
    process.tell(&format!("{ACCOUNT}{found} {name}"));
    Ok(found)
}

/// The number that a name has already.
fn known(name: &str) -> Option<u32> {
    std::fs::read_link(format!("{DIRECTORY}/direct:{name}")).ok()?.to_str()?.parse().ok()
}

/// Gives a name a number.
fn take(name: &str, before: Option<u32>) -> Done<u32> {
    let about = |what: &str| format!("DynamicUser=: {what}");
    if let Err(error) = std::fs::create_dir(DIRECTORY).or_else(|error| match error.kind() {
        ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    }) {
        return Err(error).about(&about(DIRECTORY));
    }
    let directory = std::fs::File::open(DIRECTORY).about(&about(DIRECTORY))?;
    let lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, error)| error);
    let _lock = lock.about(&about(DIRECTORY))?;
    // Somebody may have been first.
    if let Some(uid) = known(name) {
        return Ok(uid);
    }
    let taken = [taken_in("/etc/passwd"), taken_in("/etc/group")].concat();
    for uid in candidates(name, before).filter(|uid| !taken.contains(uid)) {
        let file = format!("{DIRECTORY}/{uid}");
        let mut options = std::fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&file) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error).about(&about(&file)),
            Ok(mut opened) => {
                std::io::Write::write_all(&mut opened, format!("{name}\n").as_bytes())
                    .about(&about(&file))?;
            }
        }
        symlink(name, format!("{DIRECTORY}/direct:{uid}")).about(&about(name))?;
        symlink(uid.to_string(), format!("{DIRECTORY}/direct:{name}")).about(&about(name))?;
        return Ok(uid);
    }
    failed("DynamicUser=: no number is left")
}

/// Numbers to try, in order: the last one, those that the name leads to, then all.
fn candidates(name: &str, before: Option<u32>) -> impl Iterator<Item = u32> {
    let (first, last) = RANGE;
    let size = u64::from(last.saturating_sub(first).saturating_add(1));
    let hash = muster_unit::name_hash(name);
    let place = hash.checked_rem(size).and_then(|place| u32::try_from(place).ok()).unwrap_or(0);
    let start = first.saturating_add(place);
    let before = before.filter(move |uid| (first..=last).contains(uid));
    before.into_iter().chain(start..=last).chain(first..start)
}

/// The numbers in a database.
fn taken_in(path: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
}

/// Nobody has this name any more.
pub fn forget(name: &str) {
    let Some(uid) = known(name) else { return };
    for path in [format!("direct:{name}"), format!("direct:{uid}"), uid.to_string()] {
        // Where it cannot be removed, the name keeps the number.
        let _ = std::fs::remove_file(format!("{DIRECTORY}/{path}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_number_is_tried_once() {
        let mut all: Vec<u32> = candidates("a", None).collect();
        assert_eq!((all.len(), all.first()), (4336, candidates("a", None).collect::<Vec<_>>().first()));
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), all.first(), all.last()), (4336, Some(&61184), Some(&65519)));
        assert_eq!(candidates("a", Some(62000)).next(), Some(62000));
        assert_ne!(candidates("a", Some(5)).next(), Some(5));
    }
}
