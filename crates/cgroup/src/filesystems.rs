//! `RestrictFileSystems=` (systemd.exec(5)) as a program that the kernel asks whenever a process of a cgroup opens a file: what it
//! looks at is the number of the file's file system (statfs(2)).
//!
//! The program reads structures of the kernel, whose layout the kernel itself tells (BTF, Linux, Documentation/bpf/btf.rst); that
//! is read once. What must stay true: nothing of that table is trusted; where the kernel has no such programs, or does not ask
//! them, nothing happens, as the manual says, and it is said once.

use crate::Tree;
use crate::program::{replace, replace_with, step, verdict};
use muster_sys::bpf::{self, Hook, Operation};
use muster_unit::{AllowList, FileSystemList};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

/// How our programs are known among others'.
const NAME: &str = "muster_files";
/// Names of file systems with their numbers, as systemd-analyze(1) `filesystems` prints them.
const TABLE: &str = include_str!("filesystems.txt");
/// The function that a program stands before.
const FUNCTION: &str = "bpf_lsm_file_open";
/// The way from an open file to the number of its file system: structure and member.
const WAY: [(&str, &str); 3] = [("file", "f_inode"), ("inode", "i_sb"), ("super_block", "s_magic")];
/// BTF of a kernel is some MiB.
const BTF_MAX: u64 = 64 * 1024 * 1024;

/// What programs need to know of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    function: u32,
    offsets: [i16; 3],
}

impl Kernel {
    /// Asks the kernel.
    fn look() -> Result<Kernel, Lack> {
        match asks_programs() {
            Some(true) => Kernel::read().map_err(Lack::Known),
            Some(false) => Err(Lack::Known("this kernel does not ask programs (lsm=bpf)".to_owned())),
            None => Err(Lack::NotKnown("this kernel does not say yet whether it asks programs".to_owned())),
        }
    }

    /// Reads what it tells of its types. The error says what it lacks.
    fn read() -> Result<Kernel, String> {
        let read = || {
            let mut bytes = Vec::new();
            let file = fs::File::open("/sys/kernel/btf/vmlinux")?;
            std::io::Read::read_to_end(&mut std::io::Read::take(file, BTF_MAX), &mut bytes).map(|_| bytes)
        };
        let bytes = read().map_err(|error| format!("this kernel does not tell its types: {error}"))?;
        Types::of(&bytes)
            .and_then(|types| types.kernel())
            .ok_or_else(|| "this kernel's types are not known".to_owned())
    }
}

/// Why there are no programs.
enum Lack {
    /// It stays so.
    Known(String),
    /// It may be known later.
    NotKnown(String),
}

/// What is known of programs that look at files.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// What they need to know of the kernel, or nothing where it has none.
    kernel: Option<Option<Kernel>>,
    /// What is lacking was said.
    is_said: bool,
}

impl Files {
    /// The kernel, or what it lacks.
    fn kernel(&mut self) -> Result<Option<Kernel>, String> {
        if let Some(kernel) = self.kernel {
            return Ok(kernel);
        }
        match Kernel::look() {
            Ok(kernel) => Ok(*self.kernel.insert(Some(kernel))),
            Err(Lack::Known(lack)) => {
                self.kernel = Some(None);
                Err(lack)
            }
            Err(Lack::NotKnown(lack)) => Err(lack),
        }
    }
}

/// Whether programs are among the security modules that the kernel asks. Kernels before 6.8 say so in a file system that is
/// mounted in the course of the boot.
fn asks_programs() -> Option<bool> {
    const BPF: u64 = 109;
    let listed = |text: String| text.trim().split(',').any(|name| name == "bpf");
    match muster_sys::security_modules() {
        Ok(modules) => Some(modules.contains(&BPF)),
        Err(_) => fs::read_to_string("/sys/kernel/security/lsm").ok().map(listed),
    }
}

impl Tree {
    /// `RestrictFileSystems=`. What the kernel lacks for it is said once.
    pub(crate) fn restrict_files(
        &mut self,
        cgroup: BorrowedFd<'_>,
        files: &FileSystemList,
        is_new: bool,
    ) -> Result<(), String> {
        if files.0.is_free() {
            clear(cgroup);
            return Ok(());
        }
        let lack = match self.files.kernel() {
            Ok(None) => return Ok(()),
            Err(lack) => lack,
            Ok(Some(kernel)) => match apply(cgroup, kernel, files, is_new) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.files.kernel = Some(None);
                    error.to_string()
                }
                Err(error) => return Err(format!("RestrictFileSystems= does not hold: {error}")),
            },
        };
        match std::mem::replace(&mut self.files.is_said, true) {
            true => Ok(()),
            false => Err(format!("RestrictFileSystems= holds for no unit: {lack}")),
        }
    }
}

/// Takes away what was set before. A kernel that has no such programs has none here.
pub(crate) fn clear(cgroup: BorrowedFd<'_>) {
    let _ = replace(cgroup, Hook::FileOpen, NAME, None);
}

/// Lets a cgroup open files of some file systems only. `is_new`: nothing was set before.
pub(crate) fn apply(
    cgroup: BorrowedFd<'_>,
    kernel: Kernel,
    list: &FileSystemList,
    is_new: bool,
) -> io::Result<()> {
    let program = program(kernel, &list.0);
    if program.is_none() && is_new {
        return Ok(());
    }
    let load = |program: &[Operation]| bpf::load_at(program, Hook::FileOpen, NAME, kernel.function);
    replace_with(cgroup, Hook::FileOpen, NAME, program.as_deref(), load)
}

/// The program, if anything is restricted. The context begins with the pointer to the open file.
fn program(kernel: Kernel, list: &AllowList) -> Option<Vec<Operation>> {
    if list.is_free() {
        return None;
    }
    let mut all = vec![step(LOAD_LONG, 0x12, 0, 0)];
    all.extend(kernel.offsets.map(|offset| step(LOAD_LONG, 0x22, offset, 0)));
    for number in numbers(&list.names) {
        all.push(step(JUMP_IF_WORD_NOT, 0x02, 2, number));
        all.extend(verdict(list.allow));
    }
    all.extend(verdict(!list.allow));
    Some(all)
}

const LOAD_LONG: u8 = 0x79;
const JUMP_IF_WORD_NOT: u8 = 0x56;

/// The numbers of file systems. A name that is not known has none.
fn numbers(names: &BTreeSet<String>) -> BTreeSet<u32> {
    let words = |name: &String| {
        let line = TABLE.lines().find(|line| line.split(' ').next() == Some(name));
        line.into_iter().flat_map(|line| line.split(' ').skip(1))
    };
    names.iter().flat_map(words).filter_map(|number| u32::from_str_radix(number, 16).ok()).collect()
}

/// A table of types.
struct Types<'a> {
    types: &'a [u8],
    names: &'a [u8],
}

impl<'a> Types<'a> {
    fn of(bytes: &'a [u8]) -> Option<Types<'a>> {
        let part = |offset: u32, length: u32| {
            let begin = usize::try_from(word(bytes, 4)?.checked_add(offset)?).ok()?;
            bytes.get(begin..begin.checked_add(usize::try_from(length).ok()?)?)
        };
        if bytes.get(..2)? != 0xeb9f_u16.to_ne_bytes() {
            return None;
        }
        Some(Types {
            types: part(word(bytes, 8)?, word(bytes, 12)?)?,
            names: part(word(bytes, 16)?, word(bytes, 20)?)?,
        })
    }

    /// Goes through the types once. Their numbers begin with 1.
    fn kernel(&self) -> Option<Kernel> {
        let (mut function, mut offsets) = (None, [None; 3]);
        let (mut at, mut number) = (0_usize, 1_u32);
        while let Some(info) = word(self.types, at.checked_add(4)?) {
            let (kind, count) = (info >> 24 & 0x1f, usize::try_from(info & 0xffff).ok()?);
            let name = word(self.types, at)?;
            let tail = at.checked_add(12)?;
            match kind {
                FUNC if self.is_named(name, FUNCTION) => function = Some(number),
                STRUCT => {
                    for ((structure, member), offset) in WAY.iter().zip(&mut offsets) {
                        if self.is_named(name, structure) {
                            *offset = self.member(tail, count, info >> 31 != 0, member);
                        }
                    }
                }
                _ => {}
            }
            at = tail.checked_add(extra(kind, count)?)?;
            number = number.checked_add(1)?;
        }
        let [Some(inode), Some(superblock), Some(magic)] = offsets else { return None };
        Some(Kernel { function: function?, offsets: [inode, superblock, magic] })
    }

    /// Where a member is, in bytes.
    fn member(&self, at: usize, count: usize, has_bit_fields: bool, wanted: &str) -> Option<i16> {
        let members = self.types.get(at..at.checked_add(count.checked_mul(12)?)?)?;
        let found = members
            .chunks(12)
            .find(|member| word(member, 0).is_some_and(|name| self.is_named(name, wanted)))?;
        let bits = word(found, 8)?;
        let bits = if has_bit_fields { bits & 0x00ff_ffff } else { bits };
        i16::try_from(bits / 8).ok()
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let rest = usize::try_from(offset).ok().and_then(|at| self.names.get(at..));
        rest.and_then(|rest| rest.strip_prefix(name.as_bytes())).is_some_and(|rest| rest.first() == Some(&0))
    }
}

const STRUCT: u32 = 4;
const FUNC: u32 = 12;

/// How many bytes follow the twelve of a type; nothing for kinds that are not known.
fn extra(kind: u32, count: usize) -> Option<usize> {
    match kind {
        // Pointers, forward declarations, names, qualifiers, functions, floats, tags of types.
        2 | 7..=12 | 16 | 18 => Some(0),
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => Some(4),
        // Arrays.
        3 => Some(12),
        // Members of structures and unions, of sections, of wide enumerations.
        4 | 5 | 15 | 19 => count.checked_mul(12),
        // Enumerations, parameters.
        6 | 13 => count.checked_mul(8),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    four.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of a function and three structures, behind a pointer and an enumeration.
    fn table() -> Vec<u8> {
        let names = b"\0bpf_lsm_file_open\0file\0f_inode\0inode\0i_sb\0super_block\0s_magic\0other\0";
        let at = |name: &str| {
            let whole = [name.as_bytes(), &[0]].concat();
            let place = names.windows(whole.len()).position(|part| part == whole);
            u32::try_from(place.unwrap_or(0)).unwrap_or(0)
        };
        let structure = |name: &str, member: &str, bits: u32| {
            vec![at(name), STRUCT << 24 | 2, 64, at("other"), 1, 0, at(member), 1, bits]
        };
        let types = [
            vec![0, 2 << 24, 0],
            vec![0, 6 << 24 | 1, 4, at("other"), 7],
            structure("file", "f_inode", 128),
            structure("inode", "i_sb", 320),
            structure("super_block", "s_magic", 768),
            vec![at(FUNCTION), FUNC << 24, 1],
        ]
        .concat();
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(0);
        let head = [24, 0, length(&types), length(&types), length(names)];
        let head = head.iter().flat_map(|word: &u32| word.to_ne_bytes());
        [0xeb9f_u16.to_ne_bytes().as_slice(), &[1, 0]]
            .concat()
            .into_iter()
            .chain(head)
            .chain(types)
            .chain(*names)
            .collect()
    }

    #[test]
    fn what_a_kernel_tells_of_itself() {
        let table = table();
        let kernel = Types::of(&table).and_then(|types| types.kernel());
        assert_eq!(kernel, Some(Kernel { function: 6, offsets: [16, 40, 96] }));
        // Cut off anywhere, it says nothing, or the same.
        for end in 0..table.len() {
            let cut = table.get(..end).and_then(Types::of).and_then(|types| types.kernel());
            assert!(cut.is_none() || cut == kernel, "{end}: {cut:?}");
        }
        assert_eq!(Types::of(b"\0").map(|_| ()), None);
    }

    #[test]
    fn names_and_groups_have_numbers() {
        let of = |names: &[&str]| numbers(&names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(of(&["ext2", "ext4", "nosuchfs"]), BTreeSet::from([0xef53]));
        assert_eq!(of(&["tmpfs", "ramfs"]), BTreeSet::from([0x0102_1994, 0x8584_58f6]));
        let kernel = Kernel { function: 1, offsets: [1, 2, 3] };
        let list = |allow| AllowList { allow, names: BTreeSet::from(["proc".to_owned()]), said: true };
        let ends = |allow| {
            program(kernel, &list(allow))
                .map(|all| (all.len(), all.iter().rev().nth(1).map(|step| step.immediate)))
        };
        assert_eq!((ends(true), ends(false)), (Some((9, Some(0))), Some((9, Some(1)))));
        assert_eq!(program(kernel, &AllowList::default()), None);
    }
}
