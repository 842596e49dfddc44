//! dm-verity: a partition whose every block is checked against one hash (systemd.exec(5), `RootHash=`,
//! `RootHashSignature=`, `RootVerity=`; Linux, admin-guide/device-mapper/verity).
//!
//! What must stay true: where a hash is said, what is mounted was checked against it, or nothing is mounted.

use super::disk::{Disk, number};
use super::{Device, signature};
use muster_unit::{ExecSection, RootHash, RootHashSignature};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

const CONTROL: &str = "/dev/mapper/control";
const MAGIC: &[u8] = b"verity\0\0";
/// A hash or a signature is not longer.
const FILE_MAX: u64 = 64 * 1024;

/// What the data of one partition is checked against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hash {
    /// The hash in hexadecimal.
    pub root: String,
    /// A signature of it in DER, by a key that the kernel trusts.
    pub signature: Option<Vec<u8>>,
    /// The file with the tree of hashes, where it is not in the image.
    pub tree: Option<String>,
}

impl Hash {
    /// The hash itself.
    pub fn bytes(&self) -> Vec<u8> {
        let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(high)?.checked_mul(16)?.saturating_add(digit(low)?)),
            _ => None,
        };
        self.root.as_bytes().chunks(2).filter_map(byte).collect()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(|error| format!("{path}: {error}"))?;
    Ok(bytes)
}

/// A hash as a file or an attribute has it.
fn written(bytes: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(bytes).trim().to_ascii_lowercase();
    let fits =
        text.len() >= 32 && text.len().is_multiple_of(2) && text.bytes().all(|c| c.is_ascii_hexdigit());
    if fits { Ok(text) } else { Err("its hash is not in hexadecimal".to_owned()) }
}

/// The name of an image without its suffix, to which those of the files beside it are added.
fn stem(image: &str) -> &str {
    image.strip_suffix(".raw").unwrap_or(image)
}

fn existing(path: String) -> Option<String> {
    std::path::Path::new(&path).exists().then_some(path)
}

/// The hash that lies with an image for a partition, `root` or `usr`.
pub fn beside(image: &str, partition: &str) -> Result<Option<Hash>, String> {
    let mut value = [0_u8; 512];
    let attribute = format!("user.verity.{partition}hash");
    let marked = rustix::fs::getxattr(image, attribute.as_str(), &mut value);
    let root = match (marked, existing(format!("{}.{partition}hash", stem(image)))) {
        (Ok(length), _) => written(value.get(..length).unwrap_or(&[]))?,
        (Err(rustix::io::Errno::RANGE), _) => return Err("its hash is too long".to_owned()),
        (Err(_), Some(path)) => written(&read(&path)?)?,
        (Err(_), None) => return Ok(None),
    };
    let signature =
        existing(format!("{}.{partition}hash.p7s", stem(image))).map(|path| read(&path)).transpose()?;
    let tree = if partition == "root" { existing(format!("{}.verity", stem(image))) } else { None };
    Ok(Some(Hash { root, signature, tree }))
}

/// The hash of `RootImage=`, as the settings say it or as it lies with the image.
pub fn of_root(exec: &ExecSection, image: &str) -> Result<Option<Hash>, String> {
    let beside = beside(image, "root")?;
    let root = match exec.root_hash() {
        Some(RootHash::Hash(bytes)) => Some(hexadecimal(bytes)),
        Some(RootHash::File(path)) => Some(written(&read(path)?)?),
        None => beside.as_ref().map(|hash| hash.root.clone()),
    };
    let signature = match exec.root_hash_signature() {
        Some(RootHashSignature::Data(bytes)) => Some(bytes.clone()),
        Some(RootHashSignature::File(path)) => Some(read(path)?),
        None => beside.and_then(|hash| hash.signature),
    };
    let tree = exec
        .root_verity()
        .as_ref()
        .map(|path| path.0.clone())
        .or_else(|| existing(format!("{}.verity", stem(image))));
    Ok(root.map(|root| Hash { root, signature, tree }))
}

/// A device of the device mapper, which goes when it is used no more.
pub struct Verity {
    control: File,
    name: String,
    /// Its node.
    pub path: String,
}

impl Drop for Verity {
    fn drop(&mut self) {
        let _ = muster_sys::unmap_device(self.control.as_fd(), &self.name);
    }
}

impl Verity {
    /// A device that shows what `data` has, as far as `tree` says that it is what `hash` stands for. `at` is where the
    /// tree's superblock is in what `file` has, for reading it.
    pub(super) fn of(
        hash: &Hash,
        data: &Device,
        tree: &Device,
        file: &File,
        at: u64,
    ) -> Result<Verity, String> {
        let mut block = [0_u8; 512];
        let length =
            file.read_at_place(at, &mut block).map_err(|error| format!("its tree of hashes: {error}"))?;
        let table = table(block.get(..length).unwrap_or(&[]), &data.path, &tree.path, &hash.root)?;
        let Table { sectors, words } = table;
        // A device of a name of its own for each: what two services see of one image is their own.
        let name = format!("muster-{}-{}", std::process::id(), data.path.trim_start_matches("/dev/"));
        let about = |error: std::io::Error| format!("its integrity cannot be checked (dm-verity): {error}");
        let control = File::options().read(true).write(true).open(CONTROL).map_err(about)?;
        let map = |words: &str| muster_sys::map_device(control.as_fd(), &name, sectors, "verity", words);
        let minor = match &hash.signature {
            None => map(&words).map_err(about)?,
            Some(signature) => {
                let key = std::ffi::CString::new(name.as_str()).map_err(|error| error.to_string())?;
                muster_sys::add_thread_key(&key, signature)
                    .map_err(|error| format!("RootHashSignature=: {error}"))?;
                // A kernel that knows no key for it says so, and certificates of this machine's may know better.
                match map(&format!("{words} 2 root_hash_sig_key_desc {name}")) {
                    Ok(minor) => minor,
                    Err(error) => {
                        signature::verify(signature, hash.root.as_bytes())
                            .map_err(|why| format!("{}; {why}", about(error)))?;
                        map(&words).map_err(about)?
                    }
                }
            }
        };
        Ok(Verity { control, name, path: format!("/dev/dm-{minor}") })
    }
}

/// Reading, apart from the file's own `read_at`.
trait ReadAt {
    fn read_at_place(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize>;
}
impl ReadAt for File {
    fn read_at_place(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        Disk::read_at(self, offset, buffer)
    }
}

/// What the kernel is told.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    sectors: u64,
    words: String,
}

/// From the superblock of a tree of hashes.
fn table(block: &[u8], data: &str, tree: &str, root: &str) -> Result<Table, String> {
    let wrong = |what: &str| Err(format!("its tree of hashes is not valid: {what}"));
    if !block.starts_with(MAGIC) || block.len() < 512 {
        return wrong("it has no superblock");
    }
    let word = |at| u32::from_le_bytes(number(block, at));
    let (version, kind, data_size, hash_size) = (word(8), word(12), word(64), word(68));
    let blocks = u64::from_le_bytes(number(block, 72));
    let algorithm: [u8; 32] = number(block, 32);
    let end = algorithm.iter().position(|byte| *byte == 0).unwrap_or(algorithm.len());
    let algorithm = String::from_utf8_lossy(algorithm.get(..end).unwrap_or(&[])).into_owned();
    let fits = |size: u32| (512..=65536).contains(&size) && size.is_power_of_two();
    if version != 1 || kind > 1 || !fits(data_size) || !fits(hash_size) {
        return wrong("it is of another kind");
    }
    if algorithm.is_empty() || !algorithm.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)) {
        return wrong("its algorithm");
    }
    let salt = usize::from(u16::from_le_bytes(number(block, 80)));
    let Some(salt) = block.get(88..).and_then(|rest| rest.get(..salt)).filter(|salt| salt.len() <= 256)
    else {
        return wrong("its salt");
    };
    let salt = if salt.is_empty() { "-".to_owned() } else { hexadecimal(salt) };
    let Some(sectors) = blocks.checked_mul(u64::from(data_size / 512)).filter(|sectors| *sectors > 0) else {
        return wrong("its size");
    };
    let words = format!("{kind} {data} {tree} {data_size} {hash_size} {blocks} 1 {algorithm} {root} {salt}");
    // The version of the table is that of hashes.
    Ok(Table { sectors, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_is_a_table() {
        let mut block = vec![0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| {
            block.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
        };
        put(0, MAGIC);
        put(8, &1_u32.to_le_bytes());
        put(12, &1_u32.to_le_bytes());
        put(32, b"sha256");
        put(64, &4096_u32.to_le_bytes());
        put(68, &4096_u32.to_le_bytes());
        put(72, &3_u64.to_le_bytes());
        put(80, &2_u16.to_le_bytes());
        put(88, &[0xab, 0xcd]);
        let words = "1 /a /b 4096 4096 3 1 sha256 ff abcd".to_owned();
        assert_eq!(table(&block, "/a", "/b", "ff"), Ok(Table { sectors: 24, words }));
        for at in [0, 8, 15, 32, 66, 79, 81] {
            let mut bad = block.clone();
            bad.iter_mut().skip(at).take(1).for_each(|byte| *byte = byte.wrapping_add(64).wrapping_add(63));
            assert!(table(&bad, "/a", "/b", "ff").is_err(), "{at}");
        }
        assert!(table(&[], "/a", "/b", "ff").is_err());
    }

    #[test]
    fn hashes_as_files_have_them() {
        assert_eq!(
            written(b"00112233445566778899AABBCCDDEEFF\n").as_deref(),
            Ok("00112233445566778899aabbccddeeff")
        );
        assert!(written(b"0011").is_err() && written(&[b'x'; 64]).is_err());
    }
}
