//! Status lines on the console, as people know them: `[  OK  ] Started …`. Never waits: a console that does not take
//! a line does not get it.

use muster_manager::effect::StatusMark;
use std::fs::File;
use std::io::Write;
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
        if self.file.is_none() {
            self.file = std::fs::OpenOptions::new().write(true).custom_flags(flags).open("/dev/console").ok();
        }
        if let Some(file) = &mut self.file {
            if file.write_all(line(mark, message).as_bytes()).is_err() {
                self.file = None;
            }
        }
    }
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
