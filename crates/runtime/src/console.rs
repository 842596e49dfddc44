//! Status lines on the console, as people know them: `[  OK  ] Started …`. Never waits: a console that does not take
//! a line does not get it.

use muster_manager::effect::StatusMark;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;

/// The console, opened at the first line.
#[derive(Debug, Default)]
pub struct Console {
    file: Option<File>,
}

impl Console {
    /// Writes one line.
    pub fn show(&mut self, mark: StatusMark, message: &str) {
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
        let open = |path: &&str| std::fs::OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        if self.file.is_none() {
            self.file = PLACES.iter().find_map(open);
        }
        if let Some(file) = &mut self.file {
            let text = match file.is_terminal() {
                true => line(mark, message),
                false => format!("{}\n", plain(mark, message)),
            };
            if file.write_all(text.as_bytes()).is_err() {
                self.file = None;
            }
        }
    }
}

/// Where lines go: a container without a terminal has no console. Opened anew, so that only we do not wait there.
const PLACES: [&str; 2] = ["/dev/console", "/proc/self/fd/1"];

/// The line without colour, and without an end.
pub fn plain(mark: StatusMark, message: &str) -> String {
    let line = line(mark, message);
    let mut text = String::with_capacity(line.len());
    for (at, part) in line.trim_end().split('\x1b').enumerate() {
        text.push_str(if at == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) });
    }
    text
}

/// The line with its mark in colour.
pub fn line(mark: StatusMark, message: &str) -> String {
    let (color, word) = match mark {
        StatusMark::Ok => ("32", "  OK  "),
        StatusMark::Failed => ("31", "FAILED"),
        StatusMark::Depend => ("33", "DEPEND"),
        StatusMark::Time => ("31", " TIME "),
        StatusMark::Info => ("34", " INFO "),
        StatusMark::Skip => ("90", " SKIP "),
        StatusMark::Busy => ("31", " ***  "),
        StatusMark::None => return format!("         {}\r\n", printable(message)),
    };
    format!("[\x1b[0;1;{color}m{word}\x1b[0m] {}\r\n", printable(message))
}

/// Without control characters: a name from outside (a mount point, a description) neither begins a line nor commands the
/// terminal.
fn printable(message: &str) -> std::borrow::Cow<'_, str> {
    if !message.contains(char::is_control) {
        return message.into();
    }
    message.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>().into()
}
