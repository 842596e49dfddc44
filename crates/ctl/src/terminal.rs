//! The terminal of `musterctl top`: keys as they are pressed, its size, and a screen of its own, all given back at the end.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Another screen and back, without and with a cursor (xterm's control sequences, which all terminals of today have).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A terminal for as long as this is kept.
pub struct Terminal {
    before: Termios,
}

impl Terminal {
    /// The terminal, where standard input and output are one.
    pub fn open() -> Option<Terminal> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        // Ctrl-C comes as a key, so that the terminal is given back.
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        print!("{ENTER}");
        Some(Terminal { before })
    }

    /// How many lines it has, and how many columns.
    pub fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(io::stdout()).ok();
        let known = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
        known.map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()))
    }

    /// The next key, if one is pressed within this time.
    pub fn key(&self, patience: Duration) -> io::Result<Option<u8>> {
        let stdin = io::stdin();
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        let patience = Timespec::try_from(patience).ok();
        match poll(&mut ready, patience.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut key = [0];
        match rustix::io::read(&stdin, &mut key)? {
            // Nobody is there any more.
            0 => Ok(Some(b'q')),
            _ => Ok(key.first().copied()),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        print!("{LEAVE}");
        let _ = io::stdout().flush();
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
