//! Versions, as conditions and directories of versions compare them. They are any text; the order is total.

use std::cmp::Ordering;

/// The order of the UAPI version format specification: `~` before all, then the end, `-`, `^`, `.`, letters, numbers.
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    let valid = |c: char| c.is_ascii_alphanumeric() || "~-^.".contains(c);
    let (mut left, mut right) = (left, right);
    loop {
        left = left.trim_start_matches(|c| !valid(c));
        right = right.trim_start_matches(|c| !valid(c));
        for separator in ['~', '\0', '-', '^', '.'] {
            let here =
                |text: &str| if separator == '\0' { text.is_empty() } else { text.starts_with(separator) };
            match (here(left), here(right)) {
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (true, true) if separator == '\0' => return Ordering::Equal,
                (true, true) => {
                    left = left.get(1..).unwrap_or("");
                    right = right.get(1..).unwrap_or("");
                }
                (false, false) => {}
            }
        }
        let digits =
            left.starts_with(|c: char| c.is_ascii_digit()) || right.starts_with(|c: char| c.is_ascii_digit());
        let part = |text: &str| {
            let end = text
                .find(|c: char| if digits { !c.is_ascii_digit() } else { !c.is_ascii_alphabetic() })
                .unwrap_or(text.len());
            text.split_at_checked(end)
                .map_or_else(Default::default, |(part, rest)| (part.to_owned(), rest.to_owned().len()))
        };
        let ((one, left_rest), (two, right_rest)) = (part(left), part(right));
        let ordering = if digits {
            let (one, two) = (one.trim_start_matches('0'), two.trim_start_matches('0'));
            one.len().cmp(&two.len()).then_with(|| one.cmp(two))
        } else {
            one.cmp(&two)
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
        left = left.get(left.len().saturating_sub(left_rest)..).unwrap_or("");
        right = right.get(right.len().saturating_sub(right_rest)..).unwrap_or("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_order() {
        for (less, more) in [
            ("122.1", "123~rc1-1"),
            ("123~rc1", "123"),
            ("123", "123-a"),
            ("123-a.1", "123-3"),
            ("6.1.9", "6.1.10"),
            ("1", "1.0"),
        ] {
            assert_eq!(compare_versions(less, more), Ordering::Less, "{less} {more}");
            assert_eq!(compare_versions(more, less), Ordering::Greater, "{more} {less}");
        }
        assert_eq!(compare_versions("007", "7"), Ordering::Equal);
    }
}
