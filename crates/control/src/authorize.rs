//! Who may call what: one place, one rule for each right, for every member.
//!
//! Callers are known by kernel credentials only. The rights are polkit's actions of org.freedesktop.systemd1; until
//! polkit is asked, uid 0 has them all and others may read.

use crate::error::Refusal;
use muster_manager::event::Origin;

/// What a member asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// Whether `caller` has it.
    pub fn check(self, caller: &Origin) -> Result<(), Refusal> {
        match self {
            Right::Read => Ok(()),
            Right::ManageUnits
            | Right::ManageUnitFiles
            | Right::SetEnvironment
            | Right::ReloadDaemon
            | Right::Privileged
                if caller.uid == 0 =>
            {
                Ok(())
            }
            Right::ManageUnits | Right::ManageUnitFiles | Right::SetEnvironment | Right::ReloadDaemon => {
                Err(Refusal::access_denied("Permission denied"))
            }
            Right::Privileged => Err(Refusal::access_denied("Access to this method requires privileges.")),
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
