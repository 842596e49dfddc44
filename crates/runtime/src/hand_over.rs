//! Re-execution: everything that PID 1 knows goes out as one value in a file in memory, the program is executed anew, and goes on
//! from it (DESIGN rule 8).
//!
//! The value is CBOR with named fields, unknown ones skipped and missing ones defaulted, so that an older and a newer
//! program may hand over to each other. Descriptors are named in it by number and stay open: listening sockets with all that
//! is queued on them, stored descriptors, the notify socket, pidfds and reports. What must stay true: nothing is given up
//! before the new program runs, so that a failure leaves everything as it was.

use crate::bus_hand_over::HandedBus;
use crate::processes::HandedProcess;
use crate::shares::HandedShare;
use crate::turn::{Runtime, Source};
use muster_exec::pass::memory;
use muster_manager::anew::Anew;
use muster_manager::effect::{FdId, Level};
use muster_manager::event::Origin;
use muster_manager::{Manager, State};
use muster_unit::UnitName;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::SigSet;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The argument that says where the value is, before the number of its descriptor.
pub const ARGUMENT: &str = "--deserialize";
/// The largest value that is taken in, in bytes.
const VALUE_MAX: u64 = 1 << 30;

/// What is handed over to the new program.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HandOver<'a> {
    state: Cow<'a, State>,
    /// What comes is a boot anew.
    pub anew: Option<Anew>,
    /// Descriptors that the manager names.
    fds: Vec<(FdId, RawFd)>,
    last_fd_id: u64,
    pub(crate) notify: RawFd,
    pub(crate) private: RawFd,
    /// Where those connect who speak varlink, by path.
    #[serde(default)]
    pub(crate) varlink: Vec<(String, RawFd)>,
    processes: Vec<HandedProcess>,
    shares: Vec<HandedShare>,
    condemned_cgroups: Vec<String>,
    /// Which controllers the units of cgroups need.
    #[serde(default)]
    needs: Option<Vec<(String, Vec<String>)>>,
    /// Who belongs where, where there are no cgroups.
    pub kin: Option<muster_cgroup::Known>,
    /// Who prints logs.
    pub printer: Option<crate::printer::HandedPrinter>,
    /// Helpers whose work begins anew.
    helpers: Vec<u32>,
    /// Peers on the system bus that called us, and which units they keep loaded.
    callers: Vec<(String, Origin)>,
    references: Vec<(String, UnitName)>,
    /// The connection to the system bus.
    #[serde(default)]
    bus: Option<HandedBus>,
    /// The hardware watchdog.
    #[serde(default)]
    watchdog: Option<crate::watchdog::HandedWatchdog>,
    next_request: u64,
}

/// The sockets that a program before this one left open, where it cannot be known what else it left: those that listen, and
/// those that take datagrams. All other descriptors go.
pub fn found_sockets() -> Vec<OwnedFd> {
    use nix::sys::socket::{SockType, getsockopt, sockopt};
    let listing = std::fs::read_dir("/proc/self/fd").into_iter().flatten().filter_map(Result::ok);
    let numbers: Vec<RawFd> =
        listing.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect();
    let inherited = |fd: &RawFd| {
        let flags = fcntl(muster_sys::borrow_fd(*fd), FcntlArg::F_GETFD);
        flags.is_ok_and(|flags| !FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC))
    };
    let left = numbers.into_iter().filter(inherited).map(adopt);
    let serves = |fd: &OwnedFd| {
        getsockopt(fd, sockopt::AcceptConn).unwrap_or(false)
            || getsockopt(fd, sockopt::SockType).is_ok_and(|kind| kind == SockType::Datagram)
    };
    let (sockets, others): (Vec<OwnedFd>, Vec<OwnedFd>) = left.partition(serves);
    // Whose they were is not known, so closing them may wait.
    let _ = muster_sys::close_elsewhere(others);
    sockets
}

/// Of sockets that were found, the one with this path.
pub(crate) fn take_bound(found: &mut Vec<OwnedFd>, path: &str) -> Option<OwnedFd> {
    use nix::sys::socket::{UnixAddr, getsockname};
    let is_it = |fd: &OwnedFd| {
        let address = getsockname::<UnixAddr>(fd.as_raw_fd());
        address.is_ok_and(|address| address.path() == Some(Path::new(path)))
    };
    let at = found.iter().position(is_it)?;
    Some(found.swap_remove(at))
}

impl HandOver<'static> {
    /// Takes the value in from the descriptor that the argument names.
    pub fn receive(number: &str) -> Result<HandOver<'static>, String> {
        let number: RawFd = number.parse().map_err(|_| format!("'{number}' is no descriptor"))?;
        let file = File::from(muster_sys::adopt_fd(number));
        let mut bytes = Vec::new();
        file.take(VALUE_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        ciborium::from_reader(bytes.as_slice()).map_err(|error| error.to_string())
    }

    /// The mind that goes on.
    pub fn manager(&mut self) -> Manager {
        Manager::from_state(std::mem::take(&mut self.state).into_owned())
    }
}

/// Signals were held back over the execution.
pub fn hear_signals_again() {
    let _ = SigSet::empty().thread_set_mask();
}

impl Runtime {
    /// Executes the program anew with all that is known. Returns only when that failed, with everything as before.
    pub(crate) fn reexecute(&mut self, anew: Option<Anew>) -> io::Error {
        self.log.flush();
        if anew.is_some() {
            // It has a bus of its own.
            self.leave_bus();
        }
        let failed = match self.try_to_reexecute(anew) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        for fd in self.handed_fds() {
            set_inherited(fd, false);
        }
        let _ = SigSet::empty().thread_set_mask();
        failed
    }

    fn try_to_reexecute(&mut self, anew: Option<Anew>) -> io::Result<Infallible> {
        let mut file = memory(c"muster-state")?;
        let mut bytes = Vec::new();
        ciborium::into_writer(&self.hand_over(anew), &mut bytes).map_err(io::Error::other)?;
        file.write_all(&bytes)?;
        file.rewind()?;
        set_inherited(file.as_raw_fd(), true);
        for fd in self.handed_fds() {
            set_inherited(fd, true);
        }
        let c_string = |text: String| CString::new(text).map_err(io::Error::other);
        let program = c_string(self.program.clone())?;
        let arguments =
            [program.clone(), c_string(ARGUMENT.to_owned())?, c_string(file.as_raw_fd().to_string())?];
        let environment: Vec<CString> = std::env::vars_os()
            .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
            .collect();
        // A signal that comes now waits for the new program's handlers.
        SigSet::all().thread_set_mask()?;
        Ok(nix::unistd::execve(&program, &arguments, &environment)?)
    }

    /// Executes the program that lies where this one did, for a boot anew. Returns only when that failed.
    pub fn execute_anew(&mut self, why: Anew) -> io::Error {
        self.reexecute(Some(why))
    }

    /// Whether a process outlives the end of a boot (systemd.unit(5), `SurviveFinalKillSignal=`).
    pub fn survives(&self, pid: u32) -> bool {
        let Some(cgroup) = self.cgroups.of_process(pid) else { return false };
        let unit = self.manager.unit_of_process(0, Some(&cgroup));
        let unit = unit.and_then(|id| self.manager.unit_by_id(id));
        unit.is_some_and(|unit| unit.file.unit.survive_final_kill_signal())
    }

    fn hand_over(&self, anew: Option<Anew>) -> HandOver<'_> {
        let bus_names = |(holder, _): &&(String, UnitName)| holder.starts_with(':');
        HandOver {
            state: Cow::Borrowed(self.manager.state()),
            anew,
            fds: self.fds.iter().map(|(id, fd)| (id, fd.as_raw_fd())).collect(),
            last_fd_id: self.fds.last_id(),
            notify: self.notify.as_raw_fd(),
            private: self.clients.listener_fd(),
            varlink: self.varlink.handed(),
            processes: self.processes.handed(),
            shares: self.shares.handed(),
            condemned_cgroups: self.cgroups.condemned(),
            needs: self.cgroups.needs(),
            kin: self.cgroups.kin(),
            printer: self.printer.as_ref().map(crate::printer::Printer::handed),
            helpers: self.processes.handed_helpers(),
            callers: self.clients.bus.known_callers(),
            references: self.clients.references.iter().filter(bus_names).cloned().collect(),
            bus: self.handed_bus(),
            watchdog: self.watchdog.handed(),
            next_request: self.next_request,
        }
    }

    fn handed_bus(&self) -> Option<HandedBus> {
        self.clients.hand_bus(self.errands.calls().chain(self.processes.mounting_calls()))
    }

    /// Every descriptor that the new program is to have.
    fn handed_fds(&self) -> Vec<RawFd> {
        let mut all = vec![self.notify.as_raw_fd(), self.clients.listener_fd()];
        all.extend(self.fds.iter().map(|(_, fd)| fd.as_raw_fd()));
        all.extend(self.processes.handed().iter().flat_map(HandedProcess::fds));
        all.extend(self.varlink.listeners().map(|(_, fd)| fd));
        all.extend(self.shares.handed().iter().flat_map(HandedShare::fds));
        all.extend(self.printer.iter().flat_map(|printer| printer.handed().fds()));
        all.extend(self.handed_bus().iter().flat_map(HandedBus::fds));
        all.extend(crate::watchdog::descriptor(&self.watchdog.handed()));
        all
    }

    /// Takes over what belongs to the runtime, and has the manager ask again for what was being watched.
    pub fn resume(&mut self, handed: HandOver<'static>) {
        self.fds.continue_after(handed.last_fd_id);
        for (id, fd) in handed.fds {
            self.fds.restore(id, adopt(fd));
        }
        for process in handed.processes {
            let spawn = process.spawn;
            let report = process.report.map(adopt).and_then(|report| {
                let token = self.register_raw(report.as_raw_fd(), Source::Report(spawn)).ok()?;
                self.still_ready(token);
                Some((token, report))
            });
            self.processes.take_in(process, report);
        }
        for share in handed.shares {
            self.shares.take_in(share);
        }
        if let Some(watchdog) = handed.watchdog {
            self.watchdog = crate::watchdog::Watchdog::take(watchdog);
        }
        self.cgroups.go_on(handed.needs);
        for path in handed.condemned_cgroups {
            self.cgroups.remove(&path);
        }
        // What they would still make or remove is in the way of those that come.
        for pid in handed.helpers {
            crate::processes::send_signal_to_child(pid, nix::libc::SIGKILL);
        }
        let state = self.manager.state();
        for (path, id) in &state.cgroups {
            if let Some(policy) = self.manager.oom_policy(*id) {
                self.cgroups.follow_oom(path, policy, false);
            }
        }
        self.next_request = handed.next_request;
        self.clients.references = handed.references;
        self.clients.bus.expect_callers(handed.callers);
        let _ = SigSet::empty().thread_set_mask();
        match handed.anew {
            None => {
                self.note(Level::Info, "Reexecuted.");
                self.manager.resume(crate::clock::now());
            }
            Some(why) => self.manager.begin_anew(why, crate::clock::now(), &self.index),
        }
        self.work_off();
        if let Some(bus) = handed.bus {
            self.take_bus(bus);
        }
        self.rejoin_bus();
        self.read_tables();
    }
}

/// Owns a descriptor again that came through the execution, and keeps it from others.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    set_inherited(fd, false);
    muster_sys::adopt_fd(fd)
}

fn set_inherited(fd: RawFd, inherited: bool) {
    let flags = if inherited { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    let _ = fcntl(muster_sys::borrow_fd(fd), FcntlArg::F_SETFD(flags));
}
