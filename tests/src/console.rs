//! The container's console: a pseudo terminal whose other end a thread drains into memory, and to our stdout if asked.

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A pseudo terminal and what was written to it so far.
pub struct Console {
    slave: OwnedFd,
    log: Arc<Mutex<Vec<u8>>>,
    done: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Console {
    /// Opens one; with `echo`, what comes is also written to our stdout.
    pub fn open(echo: bool) -> Result<Self> {
        let OpenptyResult { master, slave } = openpty(None, None)?;
        let mut raw = tcgetattr(&slave)?;
        cfmakeraw(&mut raw);
        tcsetattr(&slave, SetArg::TCSANOW, &raw)?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let done = Arc::new(AtomicBool::new(false));
        let (log_too, done_too) = (log.clone(), done.clone());
        let reader = std::thread::spawn(move || drain(File::from(master), &log_too, &done_too, echo));
        Ok(Self { slave, log, done, reader: Some(reader) })
    }

    /// The path of the terminal in the host's /dev/pts.
    pub fn path(&self) -> Result<PathBuf> {
        Ok(ttyname(&self.slave)?)
    }

    /// A descriptor of the terminal, for the standard streams of the container's first process.
    pub fn stream(&self) -> Result<OwnedFd> {
        Ok(self.slave.try_clone()?)
    }

    /// What was written so far, without carriage returns.
    pub fn text(&self) -> String {
        let log = self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        String::from_utf8_lossy(&log).replace('\r', "")
    }

    /// Ends the reading thread once all that was written is in the log.
    pub fn finish(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Reads until asked to end and nothing is left; our own slave descriptor keeps the terminal alive meanwhile.
fn drain(mut master: File, log: &Mutex<Vec<u8>>, done: &AtomicBool, echo: bool) {
    let mut buffer = [0; 4096];
    loop {
        let ending = done.load(Ordering::Relaxed);
        let mut ready = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(20u8)).unwrap_or(0) == 0 {
            if ending {
                return;
            }
            continue;
        }
        let Ok(size) = master.read(&mut buffer) else { return };
        if echo {
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(&buffer[..size]).and_then(|()| stdout.flush());
        }
        log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(&buffer[..size]);
    }
}
