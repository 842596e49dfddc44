//! The loop. One turn: wait, then drain what is ready in a fixed order with a budget of time each — notifications, child
//! exits, emptiness of cgroups, kernel tables, socket traffic, D-Bus, timers — and write out what clients are owed. Under
//! whatever load, a client of D-Bus waits for about the sum of these budgets, not for the load to end.
//!
//! mio is edge-triggered: a source leaves the ready set only when it was read to its end, and while the set is not
//! empty the wait is zero.

use crate::alarms::Alarm;
use crate::clients::Clients;
use crate::clock::{self, Budget};
use crate::hand_over::{self, HandOver};
use crate::listeners::Listeners;
use crate::log::Log;
use crate::notify;
use crate::printer::Printer;
use crate::processes::Processes;
use crate::reap;
use crate::source::notify::Notify;
use crate::source::{Cgroups, SourceId, Table};
use crate::sources::Watched;
use crate::table::FdTable;
use crate::varlink::Varlink;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use muster_cgroup::Tree;
use muster_manager::Manager;
use muster_manager::anew::Anew;
use muster_manager::effect::{FdId, Level, LogRecord, RequestId, SpawnId};
use muster_manager::event::{Clock, Event, Found, Now, Origin, ShutdownVerb};
use muster_unit::Index;
use signal_hook_mio::v1_0::Signals;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// For ends of processes.
const EXIT_USEC: u64 = 1000;
/// For traffic on sockets of units.
const TRAFFIC_USEC: u64 = 200;
/// For what clients of D-Bus ask.
const CLIENTS_USEC: u64 = 2000;
/// At most this many follow-up events are handled in one turn.
const FOLLOW_UP_BUDGET: usize = 65_536;

/// Memory is given back after this much idle time, in microseconds.
const IDLE_USEC: u64 = 2_000_000;
/// Memory is given back after this many processes even without idle time.
pub(crate) const SPAWNS_A_TRIM: u32 = 1024;
/// While records wait for the journal, it is tried again this often, in microseconds.
const JOURNAL_RETRY_USEC: u64 = 100_000;

/// What stands behind a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A trial: see `can_be_watched`.
    Nothing,
    /// Signals, SIGCHLD among them.
    Signals,
    /// A kernel source.
    Kernel(SourceId),
    /// The timer of a clock.
    Alarm(Clock),
    /// Where clients connect.
    Private,
    /// A connected client.
    Client,
    /// Where those connect who speak varlink.
    Askers(muster_control::varlink::Service),
    /// One of them.
    Asker,
    /// A spawn's report.
    Report(SpawnId),
    /// A socket unit's descriptor.
    Listener(FdId),
    /// A process that is not our child.
    Process(u32),
    /// Ways to PID files.
    PidFiles,
    /// The helper that looks at conditions.
    Questioner,
    /// The pipe of an automount.
    Automount(FdId),
    /// A stored descriptor.
    Stored(FdId),
}

/// How the loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are named for what they are
pub enum Outcome {
    /// All units are stopped; go.
    Shutdown { verb: ShutdownVerb, exit_code: u8 },
    /// Start the program anew with this state.
    Reexecute,
    /// The same below a root directory, once nothing runs that does not survive: [`Runtime::execute_anew`].
    BeginAnew { why: Anew, root: String, init: String },
}

/// What the loop is given.
#[derive(Debug)]
pub struct Setup {
    /// The manager.
    pub manager: Manager,
    /// Unit files.
    pub index: Index,
    /// The cgroup tree.
    pub cgroups: Tree,
    /// PID 1's log.
    pub log: Log,
    /// Path of the executor.
    pub executor: String,
    /// Path of this program, for helpers.
    pub program: String,
    /// What a program before this one handed over.
    pub handed: Option<HandOver<'static>>,
    /// Sockets that it left open, where what it handed over could not be read.
    pub found: Vec<OwnedFd>,
    /// What takes the journal's place, where there is none.
    pub printer: Option<Printer>,
}

/// The loop's state.
pub struct Runtime {
    pub(crate) manager: Manager,
    pub(crate) index: Index,
    pub(crate) poll: Poll,
    pub(crate) sources: BTreeMap<Token, Source>,
    ready: BTreeSet<Token>,
    next_token: usize,
    signals: Signals,
    pub(crate) notify: Rc<OwnedFd>,
    pub(crate) fds: FdTable,
    /// Sockets whose unit is not known yet.
    pub(crate) found: Vec<OwnedFd>,
    /// Stored descriptors that are watched.
    pub(crate) stored: BTreeMap<FdId, Token>,
    pub(crate) cgroups: Tree,
    pub(crate) kernel: BTreeMap<SourceId, Watched>,
    /// Timers on the clocks, one each, made when first needed.
    alarms: Vec<Alarm>,
    /// The time zone is watched, or was tried to be.
    follows_zone: bool,
    pub(crate) clients: Clients,
    pub(crate) processes: Processes,
    pub(crate) varlink: crate::varlink::Varlink,
    /// What was used in the cgroup that was last found empty.
    pub(crate) usage: Option<(String, muster_manager::state::Usage)>,
    pub(crate) shares: crate::shares::Shares,
    pub(crate) errands: crate::errand::Errands,
    pub(crate) questions: crate::questions::Questions,
    pub(crate) watchers: crate::paths::Watchers,
    pub(crate) automounts: crate::automounts::Automounts,
    pub(crate) closing: crate::closing::Closing,
    pub(crate) pid_files: crate::pid_files::PidFiles,
    pub(crate) watchdog: crate::watchdog::Watchdog,
    pub(crate) listeners: Listeners,
    pub(crate) log: Log,
    pub(crate) printer: Option<Printer>,
    pub(crate) executor: String,
    pub(crate) program: String,
    pub(crate) follow_up: VecDeque<Event>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) next_request: u64,
    children_wait: bool,
    /// While there is work that children end in, no signal interrupts it.
    quiet: Option<muster_sys::Quiet>,
    turns: usize,
    /// When this turn began, in monotonic microseconds: for what need not be known to the microsecond.
    pub(crate) turn_usec: u64,
    /// How late it was at the end of the last turn, if nothing was done since.
    ended: Option<Now>,
    /// Processes started since memory was last given back.
    pub(crate) spawns: u32,
    /// When nothing happens until then, memory is given back. Nothing while that was done and nothing happened since.
    idle_usec: Option<u64>,
}

/// Signals that PID 1 hears (systemd(1), SIGNALS).
fn heard_signals() -> Vec<i32> {
    use nix::libc;
    let plain = [
        libc::SIGCHLD,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGPWR,
        libc::SIGWINCH,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGHUP,
    ];
    let first = libc::SIGRTMIN();
    plain.into_iter().chain((0..=29).map(|offset: i32| first.saturating_add(offset))).collect()
}

impl Runtime {
    /// Opens the sources. What fails here makes PID 1 useless, so it is an error.
    pub fn new(mut setup: Setup) -> io::Result<Runtime> {
        let poll = Poll::new()?;
        muster_sys::follow_stop_requests()?;
        let mut signals = Signals::new(heard_signals())?;
        let (notify, clients) = match &setup.handed {
            Some(handed) => {
                (hand_over::adopt(handed.notify), Clients::go_on(hand_over::adopt(handed.private)))
            }
            // Who connected to a socket from before is served there.
            None => (
                match hand_over::take_bound(&mut setup.found, notify::PATH) {
                    Some(found) => found,
                    None => notify::open(notify::PATH)?,
                },
                match hand_over::take_bound(&mut setup.found, crate::clients::PRIVATE) {
                    Some(found) => Clients::go_on(found),
                    None => Clients::listen(crate::clients::PRIVATE)?,
                },
            ),
        };
        let handed: BTreeMap<String, i32> =
            setup.handed.iter().flat_map(|handed| handed.varlink.iter().cloned()).collect();
        let varlink = Varlink::open(|path| match handed.get(path) {
            Some(fd) => Some(hand_over::adopt(*fd)),
            None => hand_over::take_bound(&mut setup.found, path),
        });
        poll.registry().register(&mut signals, Token(0), Interest::READABLE)?;
        let mut runtime = Runtime {
            manager: setup.manager,
            index: setup.index,
            poll,
            sources: BTreeMap::from([(Token(0), Source::Signals)]),
            ready: BTreeSet::from([Token(0)]),
            next_token: 1,
            signals,
            notify: Rc::new(notify),
            fds: FdTable::default(),
            found: setup.found,
            stored: BTreeMap::new(),
            cgroups: setup.cgroups,
            kernel: BTreeMap::new(),
            alarms: Vec::new(),
            follows_zone: false,
            clients,
            processes: Processes::default(),
            varlink,
            usage: None,
            shares: Default::default(),
            errands: crate::errand::Errands::default(),
            questions: crate::questions::Questions::default(),
            watchers: crate::paths::Watchers::default(),
            automounts: crate::automounts::Automounts::default(),
            closing: crate::closing::Closing::default(),
            pid_files: crate::pid_files::PidFiles::default(),
            watchdog: crate::watchdog::Watchdog::default(),
            listeners: Listeners::default(),
            log: setup.log,
            printer: None,
            executor: setup.executor,
            program: setup.program,
            follow_up: VecDeque::new(),
            outcome: None,
            next_request: 0,
            children_wait: true,
            quiet: None,
            turns: 0,
            turn_usec: clock::monotonic_usec(),
            ended: None,
            spawns: 0,
            idle_usec: None,
        };
        runtime.add_source(SourceId::Notify, Box::new(Notify::of(Rc::clone(&runtime.notify))))?;
        runtime.add_source(SourceId::Cgroups, Box::new(Cgroups::of(&runtime.cgroups)))?;
        let fixed = [(runtime.clients.listener_fd(), Source::Private)];
        let askers: Vec<_> =
            runtime.varlink.listeners().map(|(service, fd)| (fd, Source::Askers(service))).collect();
        for (fd, source) in fixed.into_iter().chain(askers) {
            let token = runtime.register_raw(fd, source)?;
            // What came before it was watched is there already.
            runtime.still_ready(token);
        }
        if let Some(printer) = setup.printer {
            runtime.take_printer(printer);
        }
        runtime.open_tables()?;
        runtime.manager.set_autofs(std::path::Path::new("/dev/autofs").exists());
        if let Some(handed) = setup.handed {
            runtime.resume(handed);
        }
        Ok(runtime)
    }

    /// The manager, to read.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Queues the boot.
    pub fn start_default(&mut self) {
        self.manager.begin(clock::now(), &self.index);
        self.manager.hold_jobs();
        self.read_tables();
        self.manager.start_default(clock::now(), &self.index);
        self.work_off();
    }

    /// Goes on without knowing what was: takes over what can be seen.
    pub fn recover(&mut self, why: &str) {
        self.note(
            Level::Critical,
            &format!("What was handed over cannot be read ({why}). Starting afresh from what runs."),
        );
        self.manager.begin(clock::now(), &self.index);
        self.read_tables();
        self.cgroups.go_on(None);
        let me = std::process::id();
        let found = |(cgroup, pid): (String, u32)| Found {
            is_child: crate::processes::parent_of(pid) == Some(me),
            cgroup,
            pid,
        };
        let found = self.cgroups.processes("").into_iter().map(found).collect();
        self.deliver(Event::Recovered { found });
    }

    /// Turns until the end.
    pub fn run(&mut self) -> Outcome {
        let mut events = Events::with_capacity(256);
        loop {
            if let Some(outcome) = self.outcome.take() {
                if outcome == Outcome::Reexecute {
                    self.take_bus_messages();
                    // One of them may have asked for the end.
                    self.outcome = self.outcome.take().filter(|other| *other != Outcome::Reexecute);
                    if self.outcome.is_some() {
                        continue;
                    }
                }
                self.clients.flush_all(self.poll.registry());
                match outcome {
                    Outcome::Shutdown { .. } | Outcome::BeginAnew { .. } => {
                        self.quiet = None;
                        return outcome;
                    }
                    Outcome::Reexecute => {
                        let error = self.reexecute(None);
                        self.note(Level::Error, &format!("Re-execution failed, going on as before: {error}"));
                    }
                }
            }
            self.arm_alarms();
            self.hear_of_ends();
            let timeout = self.timeout();
            if timeout != Some(Duration::ZERO) && self.spawns >= SPAWNS_A_TRIM {
                self.give_back_memory();
            }
            if let Err(error) = self.wait(&mut events, timeout) {
                self.note(Level::Error, &format!("Waiting for events failed: {error}"));
            }
            self.turn_usec = clock::monotonic_usec();
            self.mind_idleness(!events.is_empty());
            self.turn();
        }
    }

    /// Waits for what is ready. A signal that ends the waiting has left a word, which is heard in the same turn.
    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
        let waited = self.poll.poll(events, timeout);
        let waited = match waited {
            Err(error) if interrupted(&error) => self.poll.poll(events, Some(Duration::ZERO)),
            waited => waited,
        };
        self.ready.extend(events.iter().map(mio::event::Event::token));
        events
            .iter()
            .filter(|event| event.is_read_closed())
            .for_each(|event| self.client_ends(event.token()));
        waited.or_else(|error| if interrupted(&error) { Ok(()) } else { Err(error) })
    }

    /// Work leaves holes in the heap and code that is not needed again soon. When it was quiet for a while, once, that goes
    /// back to the kernel.
    fn mind_idleness(&mut self, something_happened: bool) {
        let now = self.turn_usec;
        if something_happened {
            self.idle_usec = Some(now.saturating_add(IDLE_USEC));
        } else if self.idle_usec.is_some_and(|at| at <= now) {
            self.idle_usec = None;
            self.give_back_memory();
        }
    }

    fn give_back_memory(&mut self) {
        self.spawns = 0;
        self.dismiss_questioner();
        muster_sys::trim_heap();
        muster_sys::release_code();
    }

    fn timeout(&mut self) -> Option<Duration> {
        let now = self.ended.take().unwrap_or_else(clock::now);
        if !self.ready.is_empty()
            || (self.children_wait && !self.notify_rests())
            || !self.follow_up.is_empty()
            || self.manager.needs_tick(now)
        {
            return Some(Duration::ZERO);
        }
        let now = now.monotonic_usec;
        // The journal does not say when it takes records again, nor when it is there.
        let journal = self.log.waits().then(|| now.saturating_add(JOURNAL_RETRY_USEC));
        let own = self.listeners.next_retry().into_iter();
        let own = own.chain(self.clients.retry_usec).chain(journal).chain(self.idle_usec);
        let own = own
            .chain(self.questions.next_deadline())
            .chain(self.watchdog.due_usec())
            .chain(self.pid_files.retry_usec())
            .chain(self.kernel.values().filter_map(|watched| watched.source.due_usec()))
            .min();
        let deadlines = self.manager.next_deadlines();
        let monotonic = deadlines.filter(|(clock, _)| *clock == Clock::Monotonic).map(|(_, at)| at);
        let deadline = monotonic.chain(own).min()?;
        // Rounded up, so that a deadline is never met a moment too early.
        Some(Duration::from_millis(deadline.saturating_sub(now).div_ceil(1000)))
    }

    /// Follows the deadlines of the manager on all clocks but the monotonic one. The timer of the realtime clock, which tells
    /// when that clock is set, comes with the first timer unit that can mean it.
    fn arm_alarms(&mut self) {
        if self.manager.follows_clock() && !self.follows_zone {
            self.follows_zone = true;
            if let Err(error) = self.open_table(Table::Zone) {
                self.note(Level::Warning, &format!("The time zone cannot be watched: {error}"));
            }
        }
        let wanted: Vec<(Clock, u64)> =
            self.manager.next_deadlines().filter(|(clock, _)| *clock != Clock::Monotonic).collect();
        let at = |clock: Clock| wanted.iter().find(|(of, _)| *of == clock).map(|(_, at)| *at);
        let missing = |clock: &Clock| !self.alarms.iter().any(|alarm| alarm.clock() == *clock);
        let follows_clock = self.manager.follows_clock().then_some(Clock::Realtime);
        let needed: Vec<Clock> =
            wanted.iter().map(|(clock, _)| *clock).chain(follows_clock).filter(missing).collect();
        for clock in needed {
            let made = Alarm::new(clock).map_err(io::Error::from);
            match made.and_then(|alarm| {
                self.register_raw(alarm.descriptor(), Source::Alarm(clock))?;
                Ok(alarm)
            }) {
                Ok(alarm) => self.alarms.push(alarm),
                Err(error) => self.note(Level::Error, &format!("No timer for {clock:?}: {error}")),
            }
        }
        let (mut failed, mut told) = (None, None);
        for alarm in &mut self.alarms {
            match alarm.arm(at(alarm.clock())) {
                Ok(event) => told = told.or(event),
                Err(error) => {
                    failed = Some(format!("The timer of {:?} was not armed: {error}", alarm.clock()))
                }
            }
        }
        if let Some(text) = failed {
            self.note(Level::Error, &text);
        }
        if let Some(event) = told {
            clock::look_anew();
            self.follow_up.push_back(event);
        }
    }

    fn alarm_went_off(&mut self, clock: Clock) {
        clock::look_anew();
        let alarm = self.alarms.iter_mut().find(|alarm| alarm.clock() == clock);
        if let Some(event) = alarm.and_then(Alarm::read) {
            self.deliver(event);
        }
    }

    /// Opens what tells of the machine. In a container there is the mount table alone.
    fn open_tables(&mut self) -> io::Result<()> {
        for table in Table::NEEDED {
            self.open_table(table)?;
        }
        if self.manager.state().facts.follows_interfaces {
            for table in Table::OF_A_MACHINE {
                // Without one nothing can wait for what it tells of, and all else goes on.
                if let Err(error) = self.open_table(table) {
                    self.note(Level::Debug, &format!("{table:?} cannot be watched: {error}"));
                }
            }
        }
        Ok(())
    }

    fn open_table(&mut self, table: Table) -> io::Result<()> {
        self.add_source(SourceId::Table(table), table.open()?)
    }

    fn turn(&mut self) {
        crate::crash::follow(&self.manager.state().facts.config);
        self.mind_watchdog();
        let ready: Vec<(Token, Source)> =
            self.ready.iter().filter_map(|token| Some((*token, *self.sources.get(token)?))).collect();
        self.ready.clear();
        let of =
            |wanted: fn(&Source) -> bool| ready.iter().copied().filter(move |(_, source)| wanted(source));
        // What the last turn had no time for.
        if !self.follow_up.is_empty() {
            self.work_off();
        }
        if of(|source| *source == Source::Signals).next().is_some() {
            self.hear_signals();
        }
        let spoken = of(|source| *source == Source::Kernel(SourceId::Notify)).next().is_some();
        if spoken || self.notify_rests() {
            self.read_notify();
        }
        for (token, source) in of(|source| matches!(source, Source::Report(_))) {
            if let Source::Report(spawn) = source {
                self.read_report(token, spawn);
            }
        }
        if self.children_wait {
            self.reap_children();
        }
        let told = |source: &(Token, Source)| match source.1 {
            Source::Kernel(id) => Some(id),
            _ => None,
        };
        let told: BTreeSet<SourceId> = ready.iter().filter_map(told).collect();
        self.follow_sources(&told);
        self.mind_questions();
        if of(|source| *source == Source::PidFiles).next().is_some() || self.pid_files.are_due(self.turn_usec)
        {
            self.pid_files_changed();
        }
        for (_, source) in of(|source| matches!(source, Source::Alarm(_))) {
            if let Source::Alarm(clock) = source {
                self.alarm_went_off(clock);
            }
        }
        let mut traffic = None;
        for (token, source) in self.in_turns(of(|source| matches!(source, Source::Listener(_))).collect()) {
            if let Source::Listener(fd) = source {
                let budget = *traffic.get_or_insert_with(|| Budget::new(TRAFFIC_USEC));
                self.listener_ready(token, fd, budget);
            }
        }
        let mut asked: Option<Budget> = None;
        for (token, source) in ready {
            match source {
                Source::Process(pid) => self.watched_process_ended(token, pid),
                Source::Stored(fd) => self.deliver(Event::StoredFdHungUp { fd }),
                Source::Automount(pipe) => self.automount_ready(pipe),
                Source::Questioner => self.questioner_spoke(),
                Source::Private => self.accept_clients(),
                Source::Client | Source::Asker if asked.is_some_and(|asked| asked.is_spent()) => {
                    self.still_ready(token);
                }
                Source::Client => {
                    self.client_ready(token, *asked.get_or_insert_with(|| Budget::new(CLIENTS_USEC)));
                }
                Source::Askers(service) => self.accept_askers(token, service),
                Source::Asker => {
                    self.asker_ready(token, *asked.get_or_insert_with(|| Budget::new(CLIENTS_USEC)));
                }
                Source::Nothing
                | Source::Signals
                | Source::Kernel(_)
                | Source::Alarm(_)
                | Source::PidFiles
                | Source::Report(_)
                | Source::Listener(_) => {}
            }
        }
        // Answers go before what can wait.
        self.clients_write();
        self.retry_listeners();
        if self.clients.retry_usec.is_some_and(|at| at <= self.turn_usec) {
            self.accept_clients();
        }
        self.log.flush();
        self.announce_changes();
        let now = clock::now();
        let ticks = self.manager.needs_tick(now);
        if ticks {
            self.deliver(Event::Tick);
        }
        self.end_announcements();
        self.cgroups.let_go();
        self.processes.take_memory_back();
        self.close_what_may_hang();
        self.clients_write();
        self.ended = (!ticks).then_some(now);
    }

    /// Puts sources in an order in which another one is the first each turn, so that none is served only after the others.
    fn in_turns(&mut self, mut sources: Vec<(Token, Source)>) -> Vec<(Token, Source)> {
        self.turns = self.turns.wrapping_add(1);
        if let Some(first) = self.turns.checked_rem(sources.len()) {
            sources.rotate_left(first);
        }
        sources
    }

    /// Hands one event over, and does what follows from it.
    pub(crate) fn deliver(&mut self, event: Event) {
        self.hand_in(event);
        self.work_off();
    }

    fn hand_in(&mut self, event: Event) {
        if self.manager.may_unload_units() {
            self.announce_changes();
        }
        self.clients.forget_told();
        self.manager.handle(clock::now(), &self.index, event);
        clock::time_passed();
    }

    /// Effects of the last event, and the events that follow from them, to the end.
    pub(crate) fn work_off(&mut self) {
        for _ in 0..FOLLOW_UP_BUDGET {
            while let Some(effect) = self.manager.poll_effect() {
                self.perform(effect);
                clock::time_passed();
            }
            let Some(event) = self.follow_up.pop_front() else { return };
            self.hand_in(event);
        }
    }

    /// Registers a descriptor; gives its token.
    pub(crate) fn register_raw(&mut self, fd: i32, source: Source) -> io::Result<Token> {
        self.register(fd, source, Interest::READABLE)
    }

    pub(crate) fn register(&mut self, fd: i32, source: Source, interest: Interest) -> io::Result<Token> {
        let token = Token(self.next_token);
        self.next_token = self.next_token.saturating_add(1);
        self.poll.registry().register(&mut SourceFd(&fd), token, interest)?;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// Forgets a token. The descriptor is deregistered while it is still open.
    pub(crate) fn deregister(&mut self, token: Token, fd: BorrowedFd<'_>) {
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        self.forget(token);
    }

    pub(crate) fn forget(&mut self, token: Token) {
        self.sources.remove(&token);
        self.ready.remove(&token);
    }

    /// Keeps a source in the ready set: it was not read to its end.
    pub(crate) fn still_ready(&mut self, token: Token) {
        self.ready.insert(token);
    }

    /// The token of a source of which there is one.
    pub(crate) fn token_of(&self, wanted: Source) -> Option<Token> {
        self.sources.iter().find(|(_, source)| **source == wanted).map(|(token, _)| *token)
    }

    /// From now on children may end by the dozen: they are looked for at the end of the turn, instead of a signal each.
    pub(crate) fn be_quiet(&mut self) {
        if self.quiet.is_none() {
            self.quiet = muster_sys::Quiet::begin();
        }
    }

    /// Before the loop waits, a signal tells of ends again, and those that none told of are looked for.
    fn hear_of_ends(&mut self) {
        if !self.children_wait && self.quiet.take().is_some() {
            self.children_wait = reap::is_due();
        }
    }

    fn hear_signals(&mut self) {
        let heard: Vec<i32> = self.signals.pending().collect();
        for signal in heard {
            if signal == nix::libc::SIGCHLD {
                self.children_wait = true;
            } else {
                let outside = signal == nix::libc::SIGTERM && muster_sys::take_stop_request();
                self.deliver(Event::Signalled { signal, origin: Origin::default(), outside });
            }
        }
    }

    /// Many ends in one turn, so that clients are written to once for all of them.
    fn reap_children(&mut self) {
        self.be_quiet();
        let mut budget = None;
        loop {
            let Some((pid, exit)) = reap::next() else {
                self.children_wait = false;
                return;
            };
            let budget = *budget.get_or_insert_with(|| Budget::new(EXIT_USEC));
            // It is over, and what it said before is in the socket: an end is handled when no word of it can be waiting.
            if !self.read_notify() {
                return;
            }
            self.child_ended(pid, exit);
            self.cgroups.note_end(pid);
            reap::reap(pid);
            if budget.is_spent() {
                return;
            }
        }
    }

    /// Handles the ends of processes that came within this turn.
    pub(crate) fn catch_up_with_exits(&mut self) {
        self.children_wait = true;
        self.reap_children();
    }

    pub(crate) fn new_request(&mut self) -> RequestId {
        self.next_request = self.next_request.saturating_add(1);
        RequestId(self.next_request)
    }

    /// Says what went wrong outside of the loop.
    pub fn complain_of(&mut self, message: &str) {
        self.note(Level::Error, message);
    }

    /// A record of the runtime's own.
    pub(crate) fn note(&mut self, level: Level, message: &str) {
        let record = LogRecord { level, unit: None, message: message.to_owned(), fields: Vec::new() };
        self.log.write(&record, None);
    }
}
