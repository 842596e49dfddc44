//! Where an answer is printed for people, and its colours: on a terminal alone, and never with NO_COLOR (no-color.org).

use std::fmt;
use std::io::{self, IsTerminal, Write};

/// Where an answer is printed.
pub struct Page<'a> {
    out: &'a mut dyn Write,
    colours: bool,
}

/// How a text looks (ECMA-48's numbers).
#[derive(Clone, Copy)]
pub enum Style {
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// Up, as it should be.
    Good,
    /// On the way.
    Moving,
    /// Failed.
    Bad,
    /// As it is.
    Plain,
}

/// A text with its looks; widths count the text alone.
pub struct Painted<'a> {
    text: &'a str,
    code: Option<&'static str>,
}

impl Page<'_> {
    /// A page; `terminal` is whether it is one.
    pub fn new(out: &mut dyn Write, terminal: bool) -> Page<'_> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Page { out, colours: terminal && !dumb && set("NO_COLOR").is_none() }
    }

    /// A text that looks like this here.
    pub fn paint<'t>(&self, style: Style, text: &'t str) -> Painted<'t> {
        let code = match style {
            Style::Bold => Some("1"),
            Style::Dim => Some("2"),
            Style::Good => Some("32"),
            Style::Moving => Some("33"),
            Style::Bad => Some("31"),
            Style::Plain => None,
        };
        Painted { text, code: code.filter(|_| self.colours) }
    }

    /// A state of a unit (`ActiveState`).
    pub fn state<'t>(&self, state: &'t str) -> Painted<'t> {
        self.paint(style_of(state), state)
    }
}

/// The looks of a state.
pub fn style_of(active_state: &str) -> Style {
    match active_state {
        "active" | "reloading" | "refreshing" => Style::Good,
        "activating" | "deactivating" | "maintenance" => Style::Moving,
        "failed" => Style::Bad,
        _ => Style::Plain,
    }
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

impl Write for Page<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl fmt::Display for Painted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(code) = self.code else { return f.pad(self.text) };
        write!(f, "\x1b[{code}m")?;
        f.pad(self.text)?;
        f.write_str("\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_count_as_width() {
        let mut out = Vec::new();
        let page = Page { out: &mut out, colours: true };
        assert_eq!(format!("[{:<8}]", page.state("failed")), "[\x1b[31mfailed  \x1b[0m]");
        assert_eq!(format!("[{:>8}]", page.state("inactive")), "[inactive]");
    }
}
