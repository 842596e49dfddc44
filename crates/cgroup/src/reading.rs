//! What the kernel says of a cgroup: numbers of its files.
//!
//! Most are asked for at the end of each run, and where a process belongs at each of its words, so that a file costs as few
//! system calls as may be: none where its controller is not here, else three.

use crate::Tree;
use crate::attributes::IoTotals;
use muster_unit::NumberSet;
use std::fs;
use std::io::Read;

/// Most files of a cgroup are shorter. The kernel gives at most a page at a time, and of lines only whole ones.
const READ_SIZE: usize = 4096;
/// No line is longer but where it is the only one.
const LINE_MAX: usize = 1024;

/// What a file of the kernel's says. Most are read by one call, as its end is seen when less came than there was room for.
pub(crate) fn whole(path: &str) -> Option<String> {
    let mut first = [0; READ_SIZE];
    let mut source = fs::File::open(path).ok()?;
    let length = source.read(&mut first).ok()?;
    let mut bytes = first.get(..length)?.to_vec();
    if length > READ_SIZE.saturating_sub(LINE_MAX) {
        source.read_to_end(&mut bytes).ok()?;
    }
    String::from_utf8(bytes).ok()
}

impl Tree {
    /// Whether cgroups can have a file: not where our root was not given its controller. `cpu.stat` is there without one.
    pub(crate) fn has_file(&self, file: &str) -> bool {
        file == "cpu.stat" || self.is_given(file)
    }

    /// What a file of a cgroup says.
    fn text(&self, path: &str, file: &str) -> Option<String> {
        self.has_file(file).then(|| whole(&format!("{}/{file}", self.directory(path)))).flatten()
    }

    /// One number of a cgroup (`memory.current`); `None` when the file is not there, `u64::MAX` for `max`.
    pub fn number(&self, path: &str, file: &str) -> Option<u64> {
        let text = self.text(path, file)?;
        if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() }
    }

    /// One number of a file of `key value` lines (`cpu.stat`).
    pub fn keyed(&self, path: &str, file: &str, key: &str) -> Option<u64> {
        let text = self.text(path, file)?;
        text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key)?.1.parse().ok()
    }

    /// What `io.stat` (cgroup-v2, "IO Interface Files") counts, over all devices.
    pub fn io_totals(&self, path: &str) -> Option<IoTotals> {
        let text = self.text(path, "io.stat")?;
        Some(IoTotals::parse(&text))
    }

    /// A file of a cgroup that lists numbers (`cpuset.cpus.effective`).
    pub fn numbers(&self, path: &str, file: &str) -> Option<NumberSet> {
        let text = self.text(path, file)?;
        NumberSet::parse(text.trim()).ok()
    }

    /// Bytes that a cgroup can still take until a limit of its own, or of one above it, holds it back.
    pub fn memory_available(&self, path: &str) -> Option<u64> {
        let above = path.char_indices().filter(|(_, sign)| *sign == '/').filter_map(|(at, _)| path.get(..at));
        let room = |path: &str| {
            let limit = ["memory.max", "memory.high"].iter().filter_map(|file| self.number(path, file)).min();
            let limit = limit.filter(|limit| *limit < u64::MAX)?;
            Some(limit.saturating_sub(self.number(path, "memory.current")?))
        };
        above.chain([path]).filter(|path| !path.is_empty()).filter_map(room).min()
    }
}
