//! Shell patterns as in glob(7): `*`, `?`, `[a-z]`, `[!a]`, `\c`.
//!
//! Must stay linear in memory and bounded in time: one point to go back to, never recursion, since patterns come
//! from clients.

/// Whether all of `text` matches `pattern`. As fnmatch(3) without flags: `*` crosses `/` and leading dots.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut position) = (0_usize, 0_usize);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let here = text.get(position).copied();
        if pattern.get(at) == Some(&'*') {
            retry = Some((at, position));
            at = at.saturating_add(1);
            continue;
        }
        match (here, step(&pattern, at, here)) {
            (None, _) if at == pattern.len() => return true,
            (Some(_), Some(next)) => {
                at = next;
                position = position.saturating_add(1);
            }
            _ => match retry {
                Some((star, from)) if from < text.len() => {
                    retry = Some((star, from.saturating_add(1)));
                    at = star.saturating_add(1);
                    position = from.saturating_add(1);
                }
                _ => return false,
            },
        }
    }
}

/// Where the pattern goes on when the element at `at` matches `here`.
fn step(pattern: &[char], at: usize, here: Option<char>) -> Option<usize> {
    let here = here?;
    let next = at.saturating_add(1);
    match pattern.get(at)? {
        '?' => Some(next),
        '\\' => (pattern.get(next) == Some(&here)).then(|| next.saturating_add(1)),
        '[' => bracket(pattern, next, here),
        literal => (*literal == here).then_some(next),
    }
}

/// A bracket expression whose content begins at `at`; without its end it is a plain `[`.
fn bracket(pattern: &[char], at: usize, here: char) -> Option<usize> {
    let negated = matches!(pattern.get(at), Some('!' | '^'));
    let first = if negated { at.saturating_add(1) } else { at };
    let mut index = first;
    let mut found = false;
    loop {
        let Some(&low) = pattern.get(index) else {
            return (here == '[').then_some(at);
        };
        if low == ']' && index != first {
            return (found != negated).then(|| index.saturating_add(1));
        }
        let high = pattern.get(index.saturating_add(2)).copied().filter(|c| *c != ']');
        index = match (pattern.get(index.saturating_add(1)), high) {
            (Some('-'), Some(high)) => {
                found |= (low..=high).contains(&here);
                index.saturating_add(3)
            }
            _ => {
                found |= low == here;
                index.saturating_add(1)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn shell_patterns() {
        for (pattern, text, expected) in [
            ("*", "a/b.service", true),
            ("*.socket", "x.socket", true),
            ("*.socket", "x.socket2", false),
            ("ss?.*", "ssh.service", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXbYb", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[", "[", true),
            ("[]]", "]", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
