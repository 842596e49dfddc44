//! Command lines (systemd.service(5), "Command Lines") and the quoting they share with other lists of words.

use crate::diagnostic::{Code, Fault};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;
use std::str::Chars;

/// At most this many words are in one list: a line of the longest kind holds no more.
pub const WORDS_MAX: usize = crate::lexer::LINE_MAX / 2;

/// How much of the unit's privileges a command gets (its `+`, `!`, `!!` prefix).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Privilege {
    /// As the unit says.
    #[default]
    Normal,
    /// `+`: full privileges.
    Full,
    /// `!`: user, group and capabilities of the unit are not applied.
    NoSetuid,
    /// `!!`: as `!` where ambient capabilities do not exist; elsewhere without effect.
    NoSetuidIfAmbient,
}

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecCommand {
    /// What is executed: an absolute path, or a name to look up.
    pub path: String,
    /// Arguments, `argv[0]` included.
    pub argv: Vec<String>,
    /// `-`: failure is no failure.
    pub ignore_failure: bool,
    /// `+`, `!`, `!!`.
    pub privilege: Privilege,
    /// `:`: `$VAR` stays as it is.
    pub no_env_expand: bool,
    /// `|`: run through the user's shell.
    pub via_shell: bool,
}

impl ExecCommand {
    /// Reads a line, which may hold several commands divided by a lone `;`. Specifiers are expanded word by word by
    /// `expand`, so that what they bring in is never split.
    pub fn parse_line(
        line: &str,
        expand: &dyn Fn(&str) -> Result<String, Fault>,
    ) -> Result<Vec<ExecCommand>, Fault> {
        let mut words = split_raw(line)?;
        let mut commands = Vec::with_capacity(1);
        for part in words.split_mut(|word| word.text == ";" && !word.quoted) {
            if part.is_empty() {
                continue;
            }
            commands.push(ExecCommand::from_words(part, expand)?);
        }
        if commands.is_empty() { Err(Fault::new(Code::Value, line, "a command line")) } else { Ok(commands) }
    }

    /// The words are taken.
    fn from_words(
        words: &mut [Split<'_>],
        expand: &dyn Fn(&str) -> Result<String, Fault>,
    ) -> Result<ExecCommand, Fault> {
        let mut command = ExecCommand::default();
        command.argv.reserve_exact(words.len());
        let mut words = words.iter_mut();
        let Some(first) = words.next() else { return Err(Fault::new(Code::Value, "", "a command")) };
        let mut path = &*first.text;
        let mut own_name = false;
        loop {
            let mut chars = path.chars();
            match chars.next() {
                Some('-') if !command.ignore_failure => command.ignore_failure = true,
                Some('@') if !own_name => own_name = true,
                Some(':') if !command.no_env_expand => command.no_env_expand = true,
                Some('|') if !command.via_shell => command.via_shell = true,
                Some('+') if command.privilege == Privilege::Normal => command.privilege = Privilege::Full,
                Some('!') if command.privilege == Privilege::Normal => {
                    command.privilege = Privilege::NoSetuid
                }
                Some('!') if command.privilege == Privilege::NoSetuid => {
                    command.privilege = Privilege::NoSetuidIfAmbient
                }
                _ => break,
            }
            path = chars.as_str();
        }
        path = if path.is_empty() { words.next().map_or("", |word| &*word.text) } else { path };
        command.path = expand(path).map_err(|fault| fault.within(first.at.clone()))?;
        if command.path.is_empty()
            || command.path.ends_with('/')
            || (!command.path.starts_with('/') && command.path.contains('/'))
        {
            let expected = "an absolute path or the plain name of a program";
            return Err(Fault::new(Code::Path, &command.path, expected).within(first.at.clone()));
        }
        if !own_name {
            command.argv.push(command.path.clone());
        }
        for word in words {
            let text = match &*word.text {
                "\\;" => ";".to_owned(),
                text if text.contains('%') => expand(text).map_err(|fault| fault.within(word.at.clone()))?,
                _ => std::mem::take(&mut word.text).into_owned(),
            };
            command.argv.push(text);
        }
        command.argv.shrink_to_fit();
        if command.argv.is_empty() {
            let expected = "a name for argument zero after the program, because of '@'";
            return Err(Fault::new(Code::Value, &first.text, expected).within(first.at.clone()));
        }
        Ok(command)
    }
}

/// One word of a list.
#[derive(Debug)]
pub struct Split<'a> {
    /// Without quotes and escapes; not copied where there are none.
    pub text: Cow<'a, str>,
    /// Whether any of it was quoted.
    pub quoted: bool,
    /// Where it stands in the value, in bytes, quotes included.
    pub at: Range<usize>,
}

/// Splits a list into words by white space, with quotes and C escapes (systemd.syntax(7)).
pub fn split_words(text: &str) -> Result<Vec<String>, Fault> {
    Ok(split_raw(text)?.into_iter().map(|word| word.text.into_owned()).collect())
}

/// The same with the place of each word.
pub fn split_raw(text: &str) -> Result<Vec<Split<'_>>, Fault> {
    split(text, escape)
}

/// The same, with escapes left as they are: those of a unit name are a part of it (systemd.unit(5)).
pub fn split_names(text: &str) -> Result<Vec<Split<'_>>, Fault> {
    split(text, |chars, bytes| {
        push(bytes, '\\');
        chars.next().into_iter().for_each(|next| push(bytes, next));
        Ok(())
    })
}

fn split(
    text: &str,
    escape: impl Fn(&mut Chars<'_>, &mut Vec<u8>) -> Result<(), Fault>,
) -> Result<Vec<Split<'_>>, Fault> {
    let mut words = Vec::new();
    let mut chars = text.chars();
    let place = |chars: &Chars<'_>| text.len().saturating_sub(chars.as_str().len());
    loop {
        chars = chars.as_str().trim_start().chars();
        let start = place(&chars);
        if chars.as_str().is_empty() {
            return Ok(words);
        }
        if words.len() >= WORDS_MAX {
            return Err(Fault::new(Code::Limit, "", format!("at most {WORDS_MAX} words")));
        }
        let (plain, others) = plain_part(chars.as_str(), false);
        if others.chars().next().is_none_or(char::is_whitespace) {
            chars = others.chars();
            words.push(Split { text: Cow::Borrowed(plain), quoted: false, at: start..place(&chars) });
            continue;
        }
        let mut bytes = Vec::new();
        let mut quote: Option<(char, usize)> = None;
        let mut quoted = false;
        let mut end;
        loop {
            let (plain, others) = plain_part(chars.as_str(), quote.is_some());
            bytes.extend_from_slice(plain.as_bytes());
            chars = others.chars();
            end = place(&chars);
            match (chars.next(), quote) {
                (None, None) => break,
                (None, Some((open, at))) => {
                    let found = text.get(at..).unwrap_or(text);
                    return Err(Fault::new(Code::Quoting, found, format!("a closing {open}")).within(at..end));
                }
                (Some(c), Some((open, _))) if c == open => quote = None,
                (Some(c @ ('"' | '\'')), None) => {
                    quote = Some((c, end));
                    quoted = true;
                }
                (Some('\\'), _) => {
                    let done = escape(&mut chars, &mut bytes);
                    done.map_err(|fault| fault.within(end..place(&chars)))?;
                }
                (Some(c), None) if c.is_whitespace() => break,
                (Some(c), _) => push(&mut bytes, c),
            }
        }
        let text = text_of(bytes).map_err(|fault| fault.within(start..end))?;
        words.push(Split { text: Cow::Owned(text), quoted, at: start..end });
    }
}

/// What means nothing by itself and so is taken as a whole, and the rest.
fn plain_part(text: &str, is_quoted: bool) -> (&str, &str) {
    let means = |c: char| matches!(c, '"' | '\'' | '\\') || (!is_quoted && c.is_whitespace());
    text.split_at(text.find(means).unwrap_or(text.len()))
}

fn text_of(bytes: Vec<u8>) -> Result<String, Fault> {
    let wrong = |error: std::string::FromUtf8Error| String::from_utf8_lossy(error.as_bytes()).into_owned();
    String::from_utf8(bytes)
        .map_err(|error| Fault::new(Code::Quoting, &wrong(error), "escapes that make UTF-8"))
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// A number of exactly `count` digits.
fn digits(chars: &mut Chars<'_>, count: usize, radix: u32) -> Result<u32, Fault> {
    let mut value = 0_u32;
    for _ in 0..count {
        let wrong = || Fault::new(Code::Quoting, "\\", format!("an escape with {count} digits"));
        let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or_else(wrong)?;
        value = value.saturating_mul(radix).saturating_add(digit);
    }
    Ok(value)
}

/// One escape after its backslash. An unknown one stays as it is, backslash included.
fn escape(chars: &mut Chars<'_>, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    let simple = |c: char| {
        Some(match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            's' => b' ',
            _ => return None,
        })
    };
    let unicode = |value: u32, bytes: &mut Vec<u8>| {
        let wrong = || Fault::new(Code::Quoting, "\\", "an escape of a Unicode character");
        char::from_u32(value).map(|c| push(bytes, c)).ok_or_else(wrong)
    };
    match chars.clone().next() {
        None => return Err(Fault::new(Code::Quoting, "\\", "a character after the backslash")),
        Some('x') => {
            chars.next();
            bytes.push(u8::try_from(digits(chars, 2, 16)?).unwrap_or(b'?'));
        }
        Some(first @ ('u' | 'U')) => {
            chars.next();
            let value = digits(chars, if first == 'u' { 4 } else { 8 }, 16)?;
            unicode(value, bytes)?;
        }
        Some('0'..='3') => bytes.push(u8::try_from(digits(chars, 3, 8)?).unwrap_or(b'?')),
        Some(c @ ('\\' | '"' | '\'')) => {
            chars.next();
            push(bytes, c);
        }
        Some(c) => {
            chars.next();
            match simple(c) {
                Some(byte) => bytes.push(byte),
                None => {
                    bytes.push(b'\\');
                    push(bytes, c);
                }
            }
        }
    }
    Ok(())
}

/// Undoes C escapes in a text that is not split.
pub fn unescape(text: &str) -> Result<String, Fault> {
    text_of(unescape_bytes(text)?)
}

/// The same for what need not be text.
pub fn unescape_bytes(text: &str) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' { escape(&mut chars, &mut bytes)? } else { push(&mut bytes, c) }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn parse(line: &str) -> Result<Vec<ExecCommand>, Fault> {
        ExecCommand::parse_line(line, &|word| Ok(word.to_owned()))
    }

    #[test]
    fn prefixes_quotes_and_several_commands() {
        let got = parse(r#"-+:@/bin/sh sh -c 'echo "a b"' "x\ty" ; /bin/true \;"#).unwrap();
        assert!(got[0].ignore_failure && got[0].no_env_expand && got[0].privilege == Privilege::Full);
        assert_eq!(got[0].argv, ["sh", "-c", "echo \"a b\"", "x\ty"]);
        assert_eq!(got[1].argv, ["/bin/true", ";"]);
        assert_eq!(parse("!!sshd -D").unwrap()[0].privilege, Privilege::NoSetuidIfAmbient);
        for bad in ["", "a/b", "/bin/", "/bin/sh 'open", "@/bin/sh"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(
            split_words(r"a\x20b \101 \u00e4 \d '' x''y").unwrap(),
            ["a b", "A", "ä", "\\d", "", "xy"]
        );
    }
}
