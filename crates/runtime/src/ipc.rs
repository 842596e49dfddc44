//! `RemoveIPC=` (systemd.exec(5)): objects of IPC that a user or a group left are removed by a helper, `muster --remove-ipc
//! UID GID`, where 0 stands for none.
//!
//! PID 1 does not wait for it. What must stay true: nothing of root is removed.

use crate::processes::Helper;
use crate::turn::Runtime;
use muster_sys::SysvKind;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

/// The argument that makes this program the helper.
pub const ARGUMENT: &str = "--remove-ipc";

impl Runtime {
    pub(crate) fn remove_ipc(&mut self, uid: u32, gid: u32) {
        self.run_helper(&[ARGUMENT, &uid.to_string(), &gid.to_string()], Helper::Cleaner);
    }
}

/// The helper itself.
pub fn run(uid: &str, gid: &str) -> ExitCode {
    let (Ok(uid), Ok(gid)) = (uid.parse::<u32>(), gid.parse::<u32>()) else { return ExitCode::FAILURE };
    let is_theirs = |owner: u32, group: u32| (uid != 0 && owner == uid) || (gid != 0 && group == gid);
    let kinds = [("shm", SysvKind::Memory), ("sem", SysvKind::Semaphores), ("msg", SysvKind::Queue)];
    for (file, kind) in kinds {
        let table = fs::read_to_string(format!("/proc/sysvipc/{file}")).unwrap_or_default();
        for id in owned(&table, is_theirs) {
            // It may be gone already.
            let _ = muster_sys::remove_sysv(kind, id);
        }
    }
    for directory in ["/dev/shm", "/dev/mqueue"] {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        for entry in entries {
            if entry.metadata().is_ok_and(|found| is_theirs(found.uid(), found.gid())) {
                if let Some(path) = entry.path().to_str() {
                    let _ = muster_exec::tree::remove(path);
                }
            }
        }
    }
    ExitCode::SUCCESS
}

/// The ids in a table of sysvipc(7) whose user and group are the ones. The first line names the columns.
fn owned(table: &str, is_theirs: impl Fn(u32, u32) -> bool) -> Vec<i32> {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let heads = lines.next().unwrap_or_default();
    let column = |wanted: &[&str]| heads.iter().position(|head| wanted.contains(head));
    let columns = (column(&["shmid", "semid", "msqid"]), column(&["uid"]), column(&["gid"]));
    let (Some(id), Some(user), Some(group)) = columns else { return Vec::new() };
    lines
        .filter_map(|fields| {
            let number = |at: usize| fields.get(at)?.parse().ok();
            is_theirs(number(user)?, number(group)?).then(|| fields.get(id)?.parse().ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::owned;

    #[test]
    fn columns_are_found_by_name() {
        let table = "  key  semid perms nsems  uid gid cuid cgid otime ctime\n 0 3 666 1 7 8 7 8 0 0\n 0 4 666 1 0 0 0 0 0 0\n";
        assert_eq!(owned(table, |uid, _| uid == 7), [3]);
        assert_eq!(owned(table, |_, gid| gid == 8), [3]);
        assert_eq!(owned(table, |uid, _| uid == 8), Vec::<i32>::new());
    }
}
