//! What one setting says of others, once a unit is read as a whole (systemd.exec(5)).

use crate::file::{Body, UnitFile};
use crate::setting::Account;
use crate::table::{CGroupSection, ExecSection};
use crate::value::{
    DevicePolicy, DeviceRule, ExecDirectory, ListenKind, PrivateTmp, ProtectHome, ProtectSystem,
    SocketAddress, UnitName, name_hash,
};
use std::rc::Rc;

/// What `PrivateDevices=` and, where devices are listed at all, `ProtectClock=` say of devices (systemd.exec(5)).
pub fn close_devices(exec: &ExecSection, cgroup: &mut Option<Rc<CGroupSection>>) {
    let Some(cgroup) = cgroup.as_mut().filter(|_| exec.private_devices() || exec.protect_clock()) else {
        return;
    };
    let mut edit = Rc::make_mut(cgroup).edit();
    let lists = !edit.device_allow().is_empty();
    let policy = edit.device_policy();
    if exec.private_devices() && *policy == DevicePolicy::Auto {
        *policy = DevicePolicy::Closed;
    }
    if exec.protect_clock() && (lists || *policy != DevicePolicy::Auto) {
        let clock = DeviceRule { device: "char-rtc".to_owned(), read: true, write: false, make: false };
        edit.device_allow().push(clock);
    }
}

/// What images need of devices, where devices are listed at all (systemd.exec(5), `RootImage=`).
pub fn open_loop_devices(exec: &ExecSection, cgroup: &mut Option<Rc<CGroupSection>>) {
    let images = exec.root_image().is_some()
        || exec.root_mstack().is_some()
        || !exec.mount_images().is_empty()
        || !exec.extension_images().is_empty();
    let lists = |cgroup: &CGroupSection| {
        !cgroup.device_allow().is_empty() || cgroup.device_policy() != DevicePolicy::Auto
    };
    let Some(cgroup) = cgroup.as_mut().filter(|cgroup| images && lists(cgroup)) else { return };
    let mut edit = Rc::make_mut(cgroup).edit();
    for (device, make) in [("/dev/loop-control", false), ("block-loop", true), ("block-blkext", true)] {
        edit.device_allow().push(DeviceRule { device: device.to_owned(), read: true, write: true, make });
    }
}

/// What `DynamicUser=` says of names and of confinement.
pub fn make_user_dynamic(unit: &UnitName, exec: &mut Rc<ExecSection>) {
    let mut edit = Rc::make_mut(exec).edit();
    let user = edit.user().get_or_insert_with(|| Account(user_of(unit))).clone();
    edit.group().get_or_insert(user);
    *edit.remove_ipc() = true;
    *edit.no_new_privileges() = true;
    *edit.restrict_suid_sgid() = true;
    *edit.protect_system() = ProtectSystem::Strict;
    if *edit.protect_home() == ProtectHome::No {
        *edit.protect_home() = ProtectHome::ReadOnly;
    }
    if *edit.private_tmp() == PrivateTmp::No {
        *edit.private_tmp() = PrivateTmp::Disconnected;
    }
}

/// The user of a unit that names none: the unit's own name where a user can be called so.
fn user_of(unit: &UnitName) -> String {
    let name = unit.as_str().rsplit_once('.').map_or(unit.as_str(), |(name, _)| name);
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fits = name.len() <= 31 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if begins && fits { name.to_owned() } else { format!("_du{:016x}", name_hash(name)) }
}

/// The paths that a unit cannot do without, beyond what it says by `RequiresMountsFor=`: where its sockets lie, and its
/// directories (systemd.socket(5) and systemd.exec(5), "Implicit Dependencies").
pub(crate) fn places(file: &UnitFile) -> Vec<String> {
    let mut places = Vec::new();
    if let Body::Socket(section) = &file.body {
        places.extend(section.listen().iter().filter_map(|listen| match (&listen.address, listen.kind) {
            (SocketAddress::FilePath(_), ListenKind::MessageQueue) => None,
            (SocketAddress::Path(path) | SocketAddress::FilePath(path), _) => Some(path.clone()),
            _ => None,
        }));
    }
    if let Body::Swap(section) = &file.body {
        places.extend(
            section.what().clone().filter(|what| what.starts_with('/') && !what.starts_with("/dev/")),
        );
    }
    if let Body::Path(section) = &file.body {
        let lists = [
            section.path_exists(),
            section.path_exists_glob(),
            section.path_changed(),
            section.path_modified(),
            section.directory_not_empty(),
        ];
        places.extend(lists.into_iter().flat_map(|list| list.0.iter().map(|path| path.0.clone())));
    }
    if matches!(&file.body, Body::Timer(section) if section.persistent()) {
        places.push("/var/lib/systemd/timers".to_owned());
    }
    if let Body::Mount(section) = &file.body {
        places.extend(section.what().clone().filter(|what| what.starts_with('/')));
    }
    if let Body::Mount(_) | Body::Automount(_) = &file.body {
        let place = crate::value::path_unescape(file.id.stem());
        let parent = place.rsplit_once('/').filter(|(_, last)| !last.is_empty()).map(|(parent, _)| parent);
        places
            .extend(parent.map(|parent| if parent.is_empty() { "/".to_owned() } else { parent.to_owned() }));
    }
    if let Some(exec) = file.exec.as_ref().filter(|_| file.executes()) {
        let working = exec.working_directory().as_ref().filter(|wished| !wished.optional);
        let working = working.and_then(|wished| wished.path.as_deref());
        places.extend(working.map(str::to_owned));
        let kept: [(&str, &[ExecDirectory]); 5] = [
            ("/run", exec.runtime_directory()),
            ("/var/lib", exec.state_directory()),
            ("/var/cache", exec.cache_directory()),
            ("/var/log", exec.logs_directory()),
            ("/etc", exec.configuration_directory()),
        ];
        for (base, directories) in kept {
            places.extend(directories.iter().map(|directory| format!("{base}/{}", directory.path)));
        }
    }
    places.retain(|place| !file.unit.requires_mounts_for().iter().any(|known| **known == **place));
    places
}
