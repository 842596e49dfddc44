//! Credentials as unit files say them (systemd.exec(5), "Credentials"), and other data that they carry.

use super::decode_base64;
use super::unescape_bytes;
use crate::diagnostic::{Code, Fault};
use serde::{Deserialize, Serialize};

/// `SetCredential=` and `SetCredentialEncrypted=`: a name and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its name.
    pub id: String,
    /// What it holds; still encrypted where the directive says so.
    pub data: Vec<u8>,
}

/// `LoadCredential=` and `LoadCredentialEncrypted=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialSource {
    /// Its name.
    pub id: String,
    /// An absolute path, or the name of a system credential.
    pub path: String,
}

/// `ImportCredential=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialPattern {
    /// Names of system credentials; `*` may stand at the end for others.
    pub pattern: String,
    /// What the part before the `*` becomes.
    pub rename: Option<String>,
}

/// Whether a text may be the name of a credential: a short ASCII file name without colons.
pub fn is_credential_name(text: &str) -> bool {
    let allowed = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'/' && byte != b':';
    (1..=255).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != ".."
}

fn named(text: &str) -> Result<&str, Fault> {
    if is_credential_name(text) {
        Ok(text)
    } else {
        Err(Fault::new(Code::Name, text, "the name of a credential"))
    }
}

impl Credential {
    /// Reads `id:value`, whose value is Base64 for what is encrypted, and has C escapes else.
    pub fn parse(
        text: &str,
        encrypted: bool,
        expand: &dyn Fn(&str) -> Result<String, Fault>,
    ) -> Result<Credential, Fault> {
        let (id, value) = text.split_once(':').ok_or_else(|| Fault::new(Code::Value, text, "ID:VALUE"))?;
        let id = named(&expand(id)?)?.to_owned();
        let data = if encrypted {
            decode_base64(value).ok_or_else(|| Fault::new(Code::Value, value, "Base64"))?
        } else {
            unescape_bytes(value)?
        };
        Ok(Credential { id, data })
    }
}

impl CredentialSource {
    /// Reads `id:path`, or `id` alone.
    pub fn parse(text: &str) -> Result<CredentialSource, Fault> {
        let (id, path) = text.split_once(':').unwrap_or((text, text));
        let id = named(id)?.to_owned();
        if !path.starts_with('/') && !is_credential_name(path) {
            return Err(Fault::new(Code::Path, path, "an absolute path, or the name of a credential"));
        }
        Ok(CredentialSource { id, path: path.to_owned() })
    }
}

impl CredentialPattern {
    /// Reads `pattern` or `pattern:name`.
    pub fn parse(text: &str) -> Result<CredentialPattern, Fault> {
        let (pattern, rename) = text.split_once(':').map_or((text, None), |(one, two)| (one, Some(two)));
        // A star at the end is all that a pattern may have.
        let stem = pattern.strip_suffix('*').unwrap_or(pattern);
        let valid = (stem.is_empty() && pattern == "*") || is_credential_name(stem);
        if !valid || stem.contains(['*', '?', '[']) {
            return Err(Fault::new(Code::Name, pattern, "a name, with '*' at its end or not"));
        }
        let rename = rename.filter(|name| !name.is_empty()).map(named).transpose()?;
        Ok(CredentialPattern { pattern: pattern.to_owned(), rename: rename.map(str::to_owned) })
    }

    /// The name that a credential gets, if this pattern means it.
    pub fn name_for(&self, id: &str) -> Option<String> {
        let (stem, open) =
            self.pattern.strip_suffix('*').map_or((self.pattern.as_str(), false), |stem| (stem, true));
        let rest = id.strip_prefix(stem).filter(|rest| open || rest.is_empty())?;
        Some(self.rename.as_ref().map_or_else(|| id.to_owned(), |name| format!("{name}{rest}")))
    }
}

/// `StandardInputText=` and `StandardInputData=`: what is read from standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputData(pub Vec<u8>);

/// More than this is not kept, as in systemd.
pub const INPUT_MAX: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_patterns() {
        let renamed = |pattern: &str, id: &str| CredentialPattern::parse(pattern).unwrap().name_for(id);
        assert_eq!(renamed("foo.*", "foo.x").as_deref(), Some("foo.x"));
        assert_eq!(renamed("fromst*:bar", "fromstore").as_deref(), Some("barore"));
        assert_eq!(renamed("a:b", "a").as_deref(), Some("b"));
        assert_eq!(renamed("a", "ab"), None);
        for bad in ["a*b", "/x", "a?", "", "*x"] {
            assert!(CredentialPattern::parse(bad).is_err(), "{bad}");
        }
        assert!(CredentialSource::parse("a:../b").is_err());
        assert_eq!(CredentialSource::parse("a").unwrap().path, "a");
    }

    #[test]
    fn base64() {
        assert_eq!(decode_base64("aGVs bG8=\n").unwrap(), b"hello");
        assert_eq!(decode_base64("YWI=").unwrap(), b"ab");
        assert_eq!(decode_base64("").unwrap(), b"");
        for bad in ["a", "!!!!", "YWI=YQ==", "YWJ="] {
            assert!(decode_base64(bad).is_none(), "{bad}");
        }
    }
}
