//! Credentials that a virtual machine's maker passes (systemd(1), `systemd.import_credentials=`): OEM strings of SMBIOS, and
//! files of QEMU's firmware configuration.
//!
//! What must stay true: what the tables say is bounded, and read without trust in its lengths; a machine whose memory its host
//! cannot read takes nothing from that host, and a container nothing from the machine that it runs on.

use muster_unit::decode_base64;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

type Credentials = BTreeMap<String, Vec<u8>>;

const TABLES: &str = "/sys/firmware/dmi/entries";
const FILES: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials";
/// The type of the table of OEM strings.
const OEM_STRINGS: u8 = 11;
/// One table or file, in bytes.
const SIZE_MAX: u64 = 1024 * 1024;
const ENTRIES_MAX: usize = 1024;

/// All of them.
pub fn credentials() -> Credentials {
    if crate::stage::in_container() || is_confidential() {
        return Credentials::new();
    }
    load_drivers();
    let mut all = from_directory(FILES, "/raw");
    for number in 0..ENTRIES_MAX {
        let Some(table) = read(Path::new(&format!("{TABLES}/{OEM_STRINGS}-{number}/raw"))) else { break };
        for (name, data) in from_table(&table) {
            all.entry(name).or_insert(data);
        }
    }
    all
}

/// Whether the host is kept out of this machine's memory.
fn is_confidential() -> bool {
    ["/dev/sev-guest", "/dev/tdx_guest"].iter().any(|path| Path::new(path).exists())
}

/// The kernel may have both as modules. Without modprobe(8) they are not loaded, and nothing is read.
fn load_drivers() {
    let wanted = [("/sys/firmware/dmi", TABLES, "dmi-sysfs"), ("/sys/firmware", FILES, "qemu_fw_cfg")];
    let missing =
        wanted.iter().filter(|(needs, made, _)| Path::new(needs).exists() && !Path::new(made).exists());
    let modules: Vec<&str> = missing.map(|(_, _, module)| *module).collect();
    let virtual_machine = !crate::stage::virtualization().is_empty();
    if virtual_machine && !modules.is_empty() {
        let quiet = [Stdio::null(), Stdio::null(), Stdio::null()];
        let [input, output, error] = quiet;
        let mut modprobe = Command::new("/usr/sbin/modprobe");
        let _ = modprobe.arg("-qab").args(modules).stdin(input).stdout(output).stderr(error).status();
    }
}

/// The files of a directory, each at `tail` below its name.
pub fn from_directory(directory: &str, tail: &str) -> Credentials {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).take(ENTRIES_MAX);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| read(Path::new(&format!("{directory}/{name}{tail}"))).map(|data| (name, data)))
        .collect()
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    File::open(path).ok()?.take(SIZE_MAX).read_to_end(&mut data).ok()?;
    Some(data)
}

/// A table of SMBIOS: type, its own length, and behind that its strings, each ended by a zero (DSP0134, 6.1).
fn from_table(table: &[u8]) -> Credentials {
    let Some((OEM_STRINGS, length)) = table.first().copied().zip(table.get(1)) else {
        return Credentials::new();
    };
    let strings = table.get(usize::from(*length)..).unwrap_or(&[]).split(|byte| *byte == 0);
    strings.filter_map(|text| from_string(std::str::from_utf8(text).ok()?)).collect()
}

fn from_string(text: &str) -> Option<(String, Vec<u8>)> {
    let plain = text.strip_prefix("io.systemd.credential:").and_then(|rest| rest.split_once('='));
    if let Some((name, value)) = plain {
        return Some((name.to_owned(), value.as_bytes().to_vec()));
    }
    let (name, value) = text.strip_prefix("io.systemd.credential.binary:")?.split_once('=')?;
    Some((name.to_owned(), decode_base64(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_a_table() {
        let strings = b"io.systemd.credential:a=b=c\0other\0io.systemd.credential.binary:d=aGk=\0\0";
        let table = [&[11, 5, 0, 0, 3][..], strings].concat();
        let all = from_table(&table);
        let want =
            [("a", &b"b=c"[..]), ("d", &b"hi"[..])].map(|(name, data)| (name.to_owned(), data.to_vec()));
        assert_eq!(all, Credentials::from(want));
        for odd in [&[][..], &[11], &[11, 200], &[1, 0, b'x'], &[11, 0]] {
            assert!(from_table(odd).is_empty());
        }
    }
}
