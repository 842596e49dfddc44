//! A machine: QEMU with Debian's kernel and a root file system in memory.
//!
//! KVM is used where a trial shows that it runs this kernel; elsewhere QEMU translates, which is slower and always works.
//! What must stay true: dropping a machine ends it.

use crate::kernel::Kernel;
use crate::{Output, image};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
/// The agent's end of the second serial line, in the machine.
pub const AGENT: &str = "/dev/ttyS1";

/// What a machine is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The initramfs.
    pub initramfs: &'a Path,
    /// Memory, in MiB.
    pub memory: &'a str,
    /// Words for the kernel's command line.
    pub words: &'a str,
    /// Where the agent's line is a socket.
    pub agent: Option<&'a Path>,
    /// The image of its disk.
    pub disk: Option<&'a Path>,
    /// Further arguments for QEMU.
    pub more: &'a [&'a str],
}

/// QEMU, and how it runs here.
pub struct Emulator {
    kernel: PathBuf,
    kvm: bool,
}

impl Emulator {
    /// Installs QEMU where that is possible, and finds out whether KVM works.
    pub fn prepare(kernel: &Kernel) -> Result<Self> {
        image::need_program(QEMU, "qemu-system-x86")?;
        let kernel = kernel.image.clone();
        Ok(Self { kvm: kvm_runs(&kernel), kernel })
    }

    /// How the machine is accelerated, for messages.
    pub fn acceleration(&self) -> &'static str {
        if self.kvm { "KVM" } else { "translation, no KVM" }
    }

    /// Boots these parts.
    pub fn boot(&self, parts: &Parts<'_>) -> Result<Machine> {
        Machine::start(self.command(parts), Stdio::inherit())
    }

    /// Boots a disk by the firmware of this file, which finds on it all that it needs.
    pub fn boot_firmware(&self, firmware: &Path, disk: &Path, memory: &str) -> Result<Machine> {
        let mut command = self.base(memory);
        command.arg("-bios").arg(firmware);
        Machine::start(with_disk(command, disk), Stdio::inherit())
    }

    /// The same with the terminal of this process as the console, until the machine ends.
    pub fn on_terminal(&self, parts: &Parts<'_>) -> Result<()> {
        let status = self.command(parts).stdin(Stdio::inherit()).stdout(Stdio::inherit()).status()?;
        if !status.success() {
            bail!("QEMU ended with {status}");
        }
        Ok(())
    }

    /// A machine without anything to boot.
    fn base(&self, memory: &str) -> Command {
        let accel: &[&str] = if self.kvm {
            &["-accel", "kvm", "-cpu", "host"]
        } else {
            &["-accel", "tcg,thread=multi", "-cpu", "max"]
        };
        let mut command = Command::new(QEMU);
        command.args(accel).args(["-m", memory, "-smp", "2", "-display", "none", "-monitor", "none"]);
        command.args(["-no-reboot", "-nic", "none", "-serial", "stdio"]);
        command
    }

    fn command(&self, parts: &Parts<'_>) -> Command {
        let mut command = self.base(parts.memory);
        if let Some(path) = parts.agent {
            command.arg("-serial").arg(format!("unix:{},server=on,wait=off", path.display()));
        }
        if let Some(path) = parts.disk {
            command = with_disk(command, path);
        }
        command.args(parts.more);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(parts.initramfs);
        // On a machine that is busy a translated timer is late, and a kernel that checks it gives up.
        let timer = if self.kvm { "" } else { "no_timer_check " };
        command.args(["-append", &format!("console=ttyS0 quiet panic=-1 {timer}{}", parts.words)]);
        command
    }
}

fn with_disk(mut command: Command, path: &Path) -> Command {
    command.arg("-drive").arg(format!("file={},format=raw,if=virtio", path.display()));
    command
}

/// Whether KVM gets this kernel as far as its first words.
fn kvm_runs(kernel: &Path) -> bool {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", "kvm", "-cpu", "host", "-m", "256", "-nographic", "-no-reboot", "-kernel"])
        .arg(kernel);
    command.args(["-append", "console=ttyS0 panic=-1"]);
    let Ok(mut machine) = Machine::start(command, Stdio::null()) else { return false };
    let first_words = |text: &str| text.contains("Linux version");
    machine.until(Duration::from_secs(8), false, first_words) && first_words(machine.console())
}

/// A running machine.
pub struct Machine {
    qemu: Child,
    keyboard: ChildStdin,
    pieces: Receiver<Vec<u8>>,
    console: String,
}

impl Machine {
    fn start(mut command: Command, stderr: Stdio) -> Result<Self> {
        let mut qemu = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn()?;
        let mut stdout = qemu.stdout.take().context("QEMU's stdout")?;
        let keyboard = qemu.stdin.take().context("QEMU's stdin")?;
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(size @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { qemu, keyboard, pieces, console: String::new() })
    }

    /// Reads the console until it has shown enough, or the machine has ended; whether that was in time.
    pub fn until(&mut self, limit: Duration, echo: bool, enough: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        while !enough(&self.console) {
            match self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(piece) => self.take(&piece, echo),
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
        true
    }

    fn take(&mut self, piece: &[u8], echo: bool) {
        if echo {
            let _ = std::io::stdout().write_all(piece).and_then(|()| std::io::stdout().flush());
        }
        self.console += &String::from_utf8_lossy(piece).replace('\r', "");
    }

    /// What was written to the console so far.
    pub fn console(&mut self) -> &str {
        while let Ok(piece) = self.pieces.try_recv() {
            self.take(&piece, false);
        }
        &self.console
    }

    /// Types a line on the console.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.keyboard.write_all(format!("{line}\n").as_bytes())?;
        Ok(self.keyboard.flush()?)
    }

    /// Whether QEMU has ended.
    pub fn ended(&mut self) -> bool {
        self.qemu.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A machine with the demo's agent in it, which runs shell scripts.
pub struct Hands {
    machine: Mutex<Machine>,
    line: Mutex<BufReader<UnixStream>>,
}

impl Hands {
    /// Waits until the agent of this machine answers.
    pub fn reach(mut machine: Machine, agent: &Path, limit: Duration) -> Result<Self> {
        let deadline = Instant::now() + limit;
        let line = loop {
            match UnixStream::connect(agent) {
                Ok(line) => break line,
                Err(error) if machine.ended() || Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("QEMU's console:\n{}", machine.console()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        line.set_read_timeout(Some(limit))?;
        let mut line = BufReader::new(line);
        let mut first = String::new();
        match line.read_line(&mut first) {
            Ok(_) if first == "ready\n" => {}
            read => bail!("the agent said {first:?} ({read:?}); console:\n{}", machine.console()),
        }
        Ok(Self { machine: Mutex::new(machine), line: Mutex::new(line) })
    }

    /// Runs a shell script.
    pub fn sh(&self, script: &str) -> Result<Output> {
        let started = Instant::now();
        let mut line = self.line.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.ask(&mut line, script, started).with_context(|| {
            let mut machine = self.machine.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            format!("the agent is lost at: {script}\nconsole:\n{}", machine.console())
        })
    }

    fn ask(&self, line: &mut BufReader<UnixStream>, script: &str, started: Instant) -> Result<Output> {
        line.get_mut().write_all(format!("{}\n{script}", script.len()).as_bytes())?;
        let mut head = String::new();
        line.read_line(&mut head)?;
        let numbers: Vec<u32> = head.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [code, stdout, stderr] = numbers.as_slice() else { bail!("no answer but {head:?}") };
        let mut read = |length: &u32| -> Result<String> {
            let mut bytes = vec![0; usize::try_from(*length)?];
            line.read_exact(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (stdout, stderr) = (read(stdout)?, read(stderr)?);
        Ok(Output { code: i32::try_from(*code)?, stdout, stderr, elapsed: started.elapsed() })
    }
}
