//! Signatures of a root hash that the kernel knows no key for, checked outside of it against the certificates of
//! `/etc/verity.d` and its kin (kernel-command-line(7), `systemd.allow_userspace_verity=`).
//!
//! libcrypto does it, in a helper that is linked dynamically. What must stay true: what is not certain to be signed is not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What makes the executor the helper: what is to be checked comes over standard input.
pub const ARGUMENT: &str = "--verify-signature";
/// The helper, beside this program.
const PROGRAM: &str = "muster-executor-pam";
/// Where certificates are; of two of one name the first counts.
const DIRECTORIES: [&str; 4] =
    ["/etc/verity.d", "/run/verity.d", "/usr/local/lib/verity.d", "/usr/lib/verity.d"];
/// At most as many, and as long each.
const CERTIFICATES_MAX: usize = 256;
const CERTIFICATE_MAX: u64 = 64 * 1024;
const INPUT_MAX: u64 = 32 * 1024 * 1024;

/// What is to be checked: signature, content, certificates.
type Question = (Vec<u8>, Vec<u8>, Vec<Vec<u8>>);

/// Whether a certificate of this machine's says so; the error says why not.
pub fn verify(signature: &[u8], content: &[u8]) -> Result<(), String> {
    let words = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !is_allowed(&words) {
        return Err("signatures are checked by the kernel alone (systemd.allow_userspace_verity=)".to_owned());
    }
    let certificates = certificates(&DIRECTORIES.map(Path::new));
    if certificates.is_empty() {
        return Err("there is no certificate in /etc/verity.d".to_owned());
    }
    let question: Question = (signature.to_vec(), content.to_vec(), certificates);
    let mut bytes = Vec::new();
    ciborium::into_writer(&question, &mut bytes).map_err(|error| error.to_string())?;
    match ask(&bytes) {
        Ok((true, _)) => Ok(()),
        Ok((false, said)) => Err(said.trim().to_owned()),
        Err(error) => Err(format!("{PROGRAM}: {error}")),
    }
}

fn ask(question: &[u8]) -> std::io::Result<(bool, String)> {
    let own = std::fs::read_link("/proc/self/exe")?;
    let helper = own.parent().map_or_else(|| PathBuf::from(PROGRAM), |directory| directory.join(PROGRAM));
    let mut command = Command::new(helper);
    command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).env_clear();
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(question)?;
    }
    let output = child.wait_with_output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The helper. The error is what it says.
pub fn answer() -> Result<(), String> {
    let mut bytes = Vec::new();
    std::io::stdin().take(INPUT_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let (signature, content, certificates): Question =
        ciborium::from_reader(bytes.as_slice()).map_err(|error| error.to_string())?;
    match muster_sys::is_signed(&signature, &content, &certificates)? {
        true => Ok(()),
        false => Err("no certificate in /etc/verity.d has signed it".to_owned()),
    }
}

/// Whether it is allowed outside of the kernel: the last word counts.
fn is_allowed(words: &str) -> bool {
    let mut values = words.split_whitespace().filter_map(|word| match word.split_once('=') {
        Some(("systemd.allow_userspace_verity", value)) => muster_unit::parse_bool(value),
        None if word == "systemd.allow_userspace_verity" => Some(true),
        _ => None,
    });
    values.next_back().unwrap_or(true)
}

fn certificates(directories: &[&Path]) -> Vec<Vec<u8>> {
    let mut paths: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|name| name == "crt")
                && let Some(name) = path.file_name()
            {
                paths.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    let read = |path: &PathBuf| {
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(CERTIFICATE_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes).filter(|bytes| !bytes.is_empty())
    };
    paths.values().take(CERTIFICATES_MAX).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::{certificates, is_allowed};
    use std::fs;

    #[test]
    fn the_last_word_allows_it_or_not() {
        assert!(is_allowed("quiet") && is_allowed("systemd.allow_userspace_verity=yes"));
        assert!(!is_allowed("systemd.allow_userspace_verity=0 a=b"));
        assert!(is_allowed("systemd.allow_userspace_verity=0 systemd.allow_userspace_verity"));
    }

    #[test]
    fn of_two_of_a_name_the_first_counts_and_an_empty_one_hides_it() {
        let top = std::env::temp_dir().join(format!("muster-certificates-{}", std::process::id()));
        let (first, second) = (top.join("a"), top.join("b"));
        let made = fs::create_dir_all(&first).and_then(|()| fs::create_dir_all(&second));
        assert!(made.is_ok(), "{made:?}");
        for (path, text) in [
            (first.join("x.crt"), "1"),
            (second.join("x.crt"), "2"),
            (second.join("y.crt"), "3"),
            (first.join("y.crt"), ""),
            (second.join("z.pem"), "4"),
        ] {
            assert!(fs::write(path, text).is_ok(), "{text}");
        }
        assert_eq!(certificates(&[&first, &second]), vec![b"1".to_vec()]);
        let _ = fs::remove_dir_all(&top);
    }
}
