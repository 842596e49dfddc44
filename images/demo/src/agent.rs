//! The hands of a test in a machine: runs shell scripts that come over a serial line, and loads kernel modules.
//!
//! A script comes as its length in decimal, a newline, and the bytes; the answer is exit status and the lengths of standard
//! output and error in one line, and the bytes of both.

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// A line longer than this is no length.
const SCRIPT_MAX: u64 = 1 << 20;

/// Serves the line until it ends.
pub fn serve(device: &str) -> Result<()> {
    let mut line = File::options().read(true).write(true).open(device)?;
    let mut settings = tcgetattr(&line)?;
    cfmakeraw(&mut settings);
    tcsetattr(&line, SetArg::TCSANOW, &settings)?;
    line.write_all(b"ready\n")?;
    let mut incoming = BufReader::new(line.try_clone()?);
    loop {
        let mut length = String::new();
        if incoming.read_line(&mut length)? == 0 {
            return Ok(());
        }
        let length: u64 = length.trim().parse().context("a length")?;
        let mut script = String::new();
        (&mut incoming).take(length.min(SCRIPT_MAX)).read_to_string(&mut script)?;
        line.write_all(&run(&script)?)?;
    }
}

/// Output goes through files, so that what is left in the background never makes us wait.
fn run(script: &str) -> Result<Vec<u8>> {
    let file = || File::options().read(true).write(true).create(true).truncate(true).open("/dev/shm/.agent");
    let open = || -> Result<File> {
        let file = file()?;
        std::fs::remove_file("/dev/shm/.agent")?;
        Ok(file)
    };
    let (mut stdout, mut stderr) = (open()?, open()?);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let status = command.status()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    let read = |file: &mut File| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (stdout, stderr) = (read(&mut stdout)?, read(&mut stderr)?);
    let head = format!("{code} {} {}\n", stdout.len(), stderr.len());
    Ok([head.into_bytes(), stdout, stderr].concat())
}

/// Loads modules, in this order; one that is there already is no fault.
pub fn load_modules(paths: &[&str]) -> Result<()> {
    for path in paths {
        let file = File::open(path).with_context(|| path.to_string())?;
        match nix::kmod::finit_module(&file, c"", nix::kmod::ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| path.to_string()),
        }
    }
    Ok(())
}
