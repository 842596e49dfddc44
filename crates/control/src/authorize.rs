//! Who may call what: one place, one rule for each right, for every member.
//!
//! Callers are known by kernel credentials only. The rights are polkit's actions of org.freedesktop.systemd1: uid 0 has
//! them all, everyone may read, and for the rest polkit is asked (see [`crate::polkit`]).

use crate::error::Refusal;
use muster_manager::event::Origin;

/// What a member asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Right {
    /// Read access, which everyone has.
    Read,
    /// `org.freedesktop.systemd1.manage-units`.
    ManageUnits,
    /// `org.freedesktop.systemd1.manage-unit-files`.
    ManageUnitFiles,
    /// `org.freedesktop.systemd1.set-environment`.
    SetEnvironment,
    /// `org.freedesktop.systemd1.reload-daemon`.
    ReloadDaemon,
    /// The superuser alone.
    Privileged,
}

impl Right {
    /// The annotation `org.freedesktop.systemd1.Privileged` of introspection.
    pub fn is_privileged(self) -> bool {
        self == Right::Privileged
    }

    /// The action of polkit that grants it to others than root; none where only root will do.
    pub fn action(self) -> Option<&'static str> {
        Some(match self {
            Right::Read | Right::Privileged => return None,
            Right::ManageUnits => "org.freedesktop.systemd1.manage-units",
            Right::ManageUnitFiles => "org.freedesktop.systemd1.manage-unit-files",
            Right::SetEnvironment => "org.freedesktop.systemd1.set-environment",
            Right::ReloadDaemon => "org.freedesktop.systemd1.reload-daemon",
        })
    }

    /// Whether `caller` has it without anybody being asked.
    pub fn check(self, caller: &Origin) -> Result<(), Refusal> {
        if self == Right::Read || caller.uid == 0 {
            Ok(())
        } else {
            Err(Refusal::access_denied("Access denied"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_only_read() {
        let user = Origin { uid: 1000, pid: 7, comm: "systemctl".to_owned() };
        let root = Origin { uid: 0, ..user.clone() };
        assert!(Right::Read.check(&user).is_ok());
        for right in [
            Right::ManageUnits,
            Right::ManageUnitFiles,
            Right::SetEnvironment,
            Right::ReloadDaemon,
            Right::Privileged,
        ] {
            assert!(right.check(&user).is_err() && right.check(&root).is_ok(), "{right:?}");
        }
    }
}
