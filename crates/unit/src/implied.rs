//! What one setting says of others, once a unit is read as a whole (systemd.exec(5)).

use crate::table::{CGroupSection, ExecSection};
use crate::value::{DevicePolicy, DeviceRule};
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
