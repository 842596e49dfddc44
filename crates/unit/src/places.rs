//! Where the files of a unit name another one.
//!
//! A unit knows what it was told, not by which line; who asks for a place has the files read again, and finds what they say
//! now.

use crate::file::UnitFile;
use crate::lexer::{Line, lines};
use crate::load::Source;
use crate::specifier::{SpecifierContext, UnitFacts, expand};
use crate::value::UnitName;

/// The file and the line in which a directive of `[Unit]` first names one for which `is_it` holds.
pub fn place_naming(
    file: &UnitFile,
    directive: &str,
    is_it: impl Fn(&UnitName) -> bool,
    source: &dyn Source,
    machine: &SpecifierContext,
) -> Option<(String, u32)> {
    let facts = UnitFacts::new(&file.id, file.fragment_path.as_deref().unwrap_or_default(), machine);
    let names = |word: &str| expand(word, &facts).ok()?.parse::<UnitName>().ok().filter(&is_it);
    let mut paths = file.fragment_path.iter().chain(&file.drop_in_paths);
    paths.find_map(|path| {
        let text = source.read(path).ok()?;
        let line = line_naming(&text, directive, |word| names(word).is_some())?;
        Some((path.clone(), line))
    })
}

fn line_naming(text: &str, directive: &str, is_it: impl Fn(&str) -> bool) -> Option<u32> {
    let mut inside = false;
    for line in lines(text) {
        match line {
            Line::Section { name, .. } => inside = name == "Unit",
            Line::Assignment(line) if inside && line.key == directive => {
                let mut at = 0_usize;
                for word in line.value.split(char::is_whitespace) {
                    let end = at.saturating_add(word.len());
                    if is_it(word) {
                        return Some(line.value_span(Some(at..end)).0.line);
                    }
                    // What parts words in a joined line is one byte, or as long as it says.
                    let rest = line.value.get(end..).and_then(|rest| rest.chars().next());
                    at = end.saturating_add(rest.map_or(0, char::len_utf8));
                }
            }
            Line::Assignment(_) | Line::Bad { .. } => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::line_naming;

    #[test]
    fn a_name_is_found_at_its_own_line() {
        let text = "[Unit]\nAfter=a.service b.service\nBefore=c.service\nAfter=x.service \\\n  c.service\n\
                    [Service]\nAfter=d.service\n";
        let at = |directive, other| line_naming(text, directive, |word| word == other);
        assert_eq!(at("After", "b.service"), Some(2));
        assert_eq!(at("After", "c.service"), Some(5));
        assert_eq!(at("Before", "c.service"), Some(3));
        assert_eq!(at("After", "service"), None);
        assert_eq!(at("After", "d.service"), None);
    }
}
