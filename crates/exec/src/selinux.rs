//! `SELinuxContextFromNet=` (systemd.socket(5)): the service runs at the level of the peer that it serves.
//!
//! The peer's context comes from the kernel (SO_PEERSEC); of it the level alone is used. The rest is what the execution of
//! the program would give, by the policy that is loaded (selinuxfs, `create`). Where SELinux does not run, nothing happens.

use nix::libc;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

const FILE_SYSTEM: &str = "/sys/fs/selinux";
/// The longest context, in bytes.
const CONTEXT_MAX: usize = 4096;

/// Sets the context of the next execution of this process.
pub fn follow_peer(connection: BorrowedFd<'_>, program: &str) -> io::Result<()> {
    let peer = muster_sys::get_option_bytes(connection, libc::SOL_SOCKET, libc::SO_PEERSEC, CONTEXT_MAX);
    if !std::path::Path::new(FILE_SYSTEM).join("create").exists() {
        return Ok(());
    }
    let peer = peer?;
    let level = level(&text(&peer)).ok_or_else(|| io::Error::other("the peer's context has no level"))?;
    let own = fs::read_to_string("/proc/self/attr/current")?;
    let file = muster_sys::get_xattr_path(&c_string(program)?, c"security.selinux", CONTEXT_MAX)?;
    let class = fs::read_to_string(format!("{FILE_SYSTEM}/class/process/index"))?;
    let given = ask_policy(&format!("{} {} {}", text(own.as_bytes()), text(&file), class.trim()))?;
    fs::write("/proc/self/attr/exec", with_level(&given, &level))
}

fn ask_policy(question: &str) -> io::Result<String> {
    let mut create = File::options().read(true).write(true).open(format!("{FILE_SYSTEM}/create"))?;
    create.write_all(question.as_bytes())?;
    let mut answer = vec![0; CONTEXT_MAX];
    let length = create.read(&mut answer)?;
    Ok(text(answer.get(..length).unwrap_or(&[])))
}

fn c_string(text: &str) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(text).map_err(io::Error::other)
}

/// A context without what ends it in memory and files.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches(['\0', '\n']).to_owned()
}

/// The fourth part of `user:role:type:level`, colons of its own included.
fn level(context: &str) -> Option<String> {
    context.splitn(4, ':').nth(3).map(str::to_owned)
}

fn with_level(context: &str, level: &str) -> String {
    let head: Vec<&str> = context.splitn(4, ':').take(3).collect();
    format!("{}:{level}", head.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_alone_comes_from_the_peer() {
        let peer = "user_u:user_r:ssh_t:s2:c0.c3";
        assert_eq!(level(peer).as_deref(), Some("s2:c0.c3"));
        assert_eq!(level("kernel"), None);
        assert_eq!(
            with_level("system_u:system_r:sshd_t:s0", "s2:c0.c3"),
            "system_u:system_r:sshd_t:s2:c0.c3"
        );
    }
}
