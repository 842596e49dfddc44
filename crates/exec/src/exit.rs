//! Exit statuses that say which step of a start failed (systemd.exec(5), "Process Exit Codes"). The names that
//! `systemctl status` shows are those of the table of exit statuses in `muster_unit`; a test holds both together.

/// The exit status of a step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // each is the name that systemd.exec(5) gives to the number
pub enum Exit {
    /// The standard streams are to be a socket's, and there is none: systemd 257 takes this for the end of a service that
    /// had nothing to do.
    Success = 0,
    /// No step of systemd.exec(5): EXIT_FAILURE.
    Failure = 1,
    Chdir = 200,
    Nice = 201,
    Fds = 202,
    Exec = 203,
    Memory = 204,
    Limits = 205,
    OomAdjust = 206,
    SignalMask = 207,
    Stdin = 208,
    Stdout = 209,
    Chroot = 210,
    Ioprio = 211,
    Timerslack = 212,
    Securebits = 213,
    Setscheduler = 214,
    Cpuaffinity = 215,
    Group = 216,
    User = 217,
    Capabilities = 218,
    Cgroup = 219,
    Setsid = 220,
    Confirm = 221,
    Stderr = 222,
    Pam = 224,
    Network = 225,
    Namespace = 226,
    NoNewPrivileges = 227,
    Seccomp = 228,
    SelinuxContext = 229,
    Personality = 230,
    ApparmorProfile = 231,
    AddressFamilies = 232,
    RuntimeDirectory = 233,
    Chown = 235,
    SmackProcessLabel = 236,
    Keyring = 237,
    StateDirectory = 238,
    CacheDirectory = 239,
    LogsDirectory = 240,
    ConfigurationDirectory = 241,
    NumaPolicy = 242,
    Credentials = 243,
    Bpf = 245,
    Ksm = 246,
    /// Nobody sees it: PID 1 takes it for a process that never was, as if PID 1 itself had read what could not be read.
    NotMade = 255,
}

impl Exit {
    /// The exit status as a number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for i32 {
    fn from(exit: Exit) -> i32 {
        i32::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;
    use crate::steps::ORDER;
    use muster_unit::exit_status_name;

    /// `NoNewPrivileges` is `NO_NEW_PRIVILEGES`.
    fn shouted(name: &str) -> String {
        let parted = |letter: char| {
            let mark = letter.is_uppercase().then_some('_');
            mark.into_iter().chain(letter.to_uppercase())
        };
        name.chars().flat_map(parted).skip(1).collect()
    }

    #[test]
    fn each_step_fails_by_the_name_of_the_manual() {
        for exit in
            ORDER.iter().map(|step| step.exit).chain([Exit::ApparmorProfile, Exit::Seccomp, Exit::Bpf])
        {
            assert_eq!(exit_status_name(exit.into()), Some(shouted(&format!("{exit:?}")).as_str()));
        }
    }
}
