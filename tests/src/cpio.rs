//! An initramfs: directories written as cpio's "newc" format, as the kernel's early user space documentation has it. Several
//! archives one after the other are unpacked in turn.

use anyhow::Result;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Writes a directory as one archive.
pub fn write(root: &Path, to: &Path) -> Result<()> {
    let mut archive = Cpio { file: BufWriter::new(File::create(to)?), inode: 1 };
    archive.add_tree(root, root)?;
    archive.entry("dev/console", 0o020_600, (0, 0), (5, 1), b"")?;
    archive.entry("TRAILER!!!", 0, (0, 0), (0, 0), b"")?;
    Ok(archive.file.flush()?)
}

struct Cpio<W: Write> {
    file: W,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    fn add_tree(&mut self, root: &Path, dir: &Path) -> Result<()> {
        let mut entries: Vec<_> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let meta = path.symlink_metadata()?;
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            let owner = (meta.uid(), meta.gid());
            let mut add = |content: &[u8]| self.entry(&name, meta.mode(), owner, (0, 0), content);
            if meta.is_dir() {
                add(b"")?;
                self.add_tree(root, &path)?;
            } else if meta.is_symlink() {
                add(fs::read_link(&path)?.as_os_str().as_bytes())?;
            } else if meta.is_file() {
                add(&fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    /// One entry; name and content are padded to four bytes each.
    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        (uid, gid): (u32, u32),
        (major, minor): (u32, u32),
        content: &[u8],
    ) -> Result<()> {
        let (size, name_size) = (u32::try_from(content.len())?, u32::try_from(name.len())? + 1);
        write!(self.file, "070701")?;
        for field in [self.inode, mode, uid, gid, 1, 0, size, 0, 0, major, minor, name_size, 0] {
            write!(self.file, "{field:08x}")?;
        }
        self.inode += 1;
        self.file.write_all(name.as_bytes())?;
        // The header is 110 bytes long, and a name ends with a NUL.
        let padding = 1 + (4 - (110 + name.len() + 1) % 4) % 4;
        self.file.write_all(&[0; 4][..padding])?;
        self.file.write_all(content)?;
        Ok(self.file.write_all(&[0; 4][..(4 - content.len() % 4) % 4])?)
    }
}
