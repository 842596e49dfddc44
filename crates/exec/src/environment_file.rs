//! The language of environment files (systemd.exec(5), `EnvironmentFile=`): what a shell would take from simple assignments.
//!
//! What must stay true: no text is an error. What is no assignment of a variable is passed over.

use std::iter::Peekable;
use std::str::Chars;

/// The assignments of a file in their order; a value may go over several lines.
pub fn parse(text: &str) -> Vec<(String, String)> {
    let mut chars = text.chars().peekable();
    let mut all = Vec::new();
    while chars.peek().is_some() {
        let Some(key) = key(&mut chars) else { continue };
        let value = value(&mut chars);
        if muster_unit::setting::is_variable(&key) {
            all.push((key, value));
        }
    }
    all
}

/// What stands before the `=`; nothing for a line that has none, which is read to its end, and for a comment.
fn key(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut key = String::new();
    for c in chars.by_ref() {
        match c {
            '=' if !key.trim_start().starts_with(['#', ';']) => return Some(key.trim().to_owned()),
            '\n' => return None,
            _ => key.push(c),
        }
    }
    None
}

/// What stands after it, to the end of the line on which it ends.
fn value(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut value = String::new();
    // The length up to the last byte that is not trailing white space.
    let mut kept = 0;
    let mut begun = false;
    while let Some(c) = chars.next() {
        match c {
            '\n' => break,
            '\'' | '"' if !begun => {
                quoted(chars, c, &mut value);
                kept = value.len();
                continue;
            }
            '\\' => match chars.next() {
                Some('\n') | None => continue,
                Some(c) => {
                    value.push(c);
                    kept = value.len();
                }
            },
            c if c.is_whitespace() => {
                if begun {
                    value.push(c);
                }
                continue;
            }
            c => {
                value.push(c);
                kept = value.len();
            }
        }
        begun = true;
    }
    value.truncate(kept);
    value
}

/// To the closing quote.
fn quoted(chars: &mut Peekable<Chars<'_>>, quote: char, value: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return,
            '\\' if quote == '"' => match chars.next() {
                Some('\n') | None => {}
                Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                Some(c) => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn values_are_taken_as_the_manual_says() {
        let table = [
            ("A=1\n# c=d\n;e=f\nno assignment\nB=2", "A=1|B=2"),
            ("A=  two  words  \n", "A=two  words"),
            ("A=-x \"b c\" 'd'\n", "A=-x \"b c\" 'd'"),
            ("A=\"b  c\" \nB='d\ne'\n", "A=b  c|B=d\ne"),
            ("A=b\\\nc\\ d\\\\\n", "A=bc d\\"),
            (r#"A="\$a\"\n\x""#, r#"A=$a"\n\x"#),
            ("A='it''s'\nB=\"open", "A=its|B=open"),
            (" A =1\n2=3\n=4\nC=", "A=1|C="),
        ];
        for (text, expected) in table {
            let found: Vec<String> =
                parse(text).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
            assert_eq!(found.join("|"), expected, "{text}");
        }
    }
}
