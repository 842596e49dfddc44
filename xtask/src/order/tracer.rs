//! A tracer that puts a breakpoint on every function of PID 1 and takes it away when it is met.
//!
//! What must stay true: a child has the breakpoints of its parent, so that it is traced until it runs another program;
//! untraced it would die of the signal.

use anyhow::{Context, Result, bail};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::Sender;

/// The names of functions, in the order in which they were first met.
pub type Order = Vec<String>;

const BREAKPOINT: u8 = 0xcc;
/// Ignored by who gets it, but seen by who traces it.
const PAGE: Signal = Signal::SIGCONT;

struct Function {
    name: String,
    original: u8,
    is_met: bool,
}

pub struct Tracer {
    pid: Pid,
    /// By address in the file.
    functions: BTreeMap<u64, Function>,
    /// Where the file's first byte is mapped; nothing until the program is there.
    base: Option<u64>,
    met: Order,
}

/// Tells the tracer that what was met so far is a part of its own.
pub fn turn_page(pid: Pid) -> Result<()> {
    Ok(kill(pid, PAGE)?)
}

impl Tracer {
    /// Begins to trace a process that has not become the program yet.
    pub fn new(pid: Pid, symbols: Vec<(u64, String)>) -> Result<Tracer> {
        let options = Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE;
        ptrace::seize(pid, options).context("ptrace")?;
        let function = |(address, name)| (address, Function { name, original: 0, is_met: false });
        let functions = symbols.into_iter().map(function).collect();
        Ok(Tracer { pid, functions, base: None, met: Order::new() })
    }

    /// Traces until the page was turned twice; what was met before and after the first time.
    pub fn run(mut self, report: &Sender<()>) -> Result<(Order, Order)> {
        report.send(())?;
        let first = self.page()?;
        self.put_all(true)?;
        ptrace::cont(self.pid, None)?;
        report.send(())?;
        let second = self.page()?;
        self.restore(self.pid)?;
        ptrace::detach(self.pid, None)?;
        Ok((first, second))
    }

    fn page(&mut self) -> Result<Order> {
        loop {
            let any = Pid::from_raw(-1);
            match waitpid(any, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))? {
                WaitStatus::Stopped(pid, Signal::SIGTRAP) => self.breakpoint(pid)?,
                WaitStatus::Stopped(pid, PAGE) if pid == self.pid => {
                    return Ok(std::mem::take(&mut self.met));
                }
                WaitStatus::Stopped(pid, signal) => ptrace::cont(pid, signal)?,
                WaitStatus::PtraceEvent(pid, _, event) => self.event(pid, event)?,
                WaitStatus::Exited(pid, status) if pid == self.pid => bail!("PID 1 ended with {status}"),
                WaitStatus::Signaled(pid, signal, _) if pid == self.pid => bail!("PID 1 died of {signal}"),
                _ => {}
            }
        }
    }

    fn event(&mut self, pid: Pid, event: i32) -> Result<()> {
        if event == libc::PTRACE_EVENT_EXEC {
            if pid != self.pid {
                return Ok(ptrace::detach(pid, None)?);
            }
            self.begin()?;
        }
        Ok(ptrace::cont(pid, None)?)
    }

    /// The program is there: a breakpoint on each function.
    fn begin(&mut self) -> Result<()> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid))?;
        let own = maps.lines().find(|line| line.ends_with("/muster") && line.contains(" 00000000 "));
        let Some((base, _)) = own.and_then(|line| line.split_once('-')) else { return Ok(()) };
        let base = u64::from_str_radix(base, 16)?;
        self.base = Some(base);
        let memory = self.memory(self.pid)?;
        for (address, function) in &mut self.functions {
            let mut byte = [0];
            memory.read_exact_at(&mut byte, base + address)?;
            function.original = byte[0];
        }
        self.put_all(false)
    }

    fn memory(&self, pid: Pid) -> Result<fs::File> {
        Ok(fs::File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?)
    }

    /// Breakpoints on what was not met, or on all anew.
    fn put_all(&mut self, anew: bool) -> Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        let memory = self.memory(self.pid)?;
        for (address, function) in &mut self.functions {
            function.is_met &= !anew;
            if !function.is_met {
                memory.write_all_at(&[BREAKPOINT], base + address)?;
            }
        }
        Ok(())
    }

    fn restore(&self, pid: Pid) -> Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        let memory = self.memory(pid)?;
        for (address, function) in self.functions.iter().filter(|(_, function)| !function.is_met) {
            memory.write_all_at(&[function.original], base + address)?;
        }
        Ok(())
    }

    fn breakpoint(&mut self, pid: Pid) -> Result<()> {
        let mut registers = ptrace::getregs(pid)?;
        let address = registers.rip - 1;
        let place = self.base.and_then(|base| address.checked_sub(base));
        let Some(function) = place.and_then(|place| self.functions.get_mut(&place)) else {
            return Ok(ptrace::cont(pid, Signal::SIGTRAP)?);
        };
        if !function.is_met {
            function.is_met = true;
            self.met.push(function.name.clone());
        }
        let original = function.original;
        self.memory(pid)?.write_all_at(&[original], address)?;
        registers.rip = address;
        ptrace::setregs(pid, registers)?;
        Ok(ptrace::cont(pid, None)?)
    }
}
