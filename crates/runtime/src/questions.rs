//! Conditions that look at the world (systemd.unit(5), "Conditions and Asserts"), asked outside of PID 1.
//!
//! A path may lead to a file system that does not answer. What must stay true: PID 1 never looks at one itself; a question
//! is answered, or counted as failed after `DefaultTimeoutStartSec=`, and holds up nothing but the job that waits for it.
//!
//! All questions go to one helper (this program again, as `muster --questions`), which goes when nothing happens: a copy of
//! PID 1 for each would have every page that PID 1 then writes copied. When the helper says nothing for a while it hangs in
//! one of them, and each question without an answer gets a child of its own, a copy that hangs alone.

use crate::clock;
use crate::conditions;
use crate::processes::Helper;
use crate::turn::{Runtime, Source};
use mio::Token;
use muster_manager::effect::{Level, LogRecord, QueryId};
use muster_manager::event::Event;
use muster_manager::state::State;
use muster_sys::Answers;
use muster_unit::Condition;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::Pid;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};

/// At most this many children at a time, those that hang included.
const CHILDREN_MAX: usize = 128;
/// The helper hangs when it has said nothing for so long, in microseconds.
const PATIENCE_USEC: u64 = 250_000;
/// The longest question for the helper, in bytes. A longer one gets a child.
const QUESTION_MAX: usize = 64 << 10;
/// At most this many conditions go to the helper in one question; an answer is a byte each.
const CONDITIONS_MAX: usize = 4096;

/// The conditions of one start.
#[derive(Debug)]
struct Question {
    query: QueryId,
    conditions: Vec<Condition>,
    /// What is known of them, in order.
    results: Vec<Option<bool>>,
    /// When it counts as failed, in monotonic microseconds.
    until_usec: u64,
}

impl Question {
    fn open(&self) -> Vec<&Condition> {
        let both = self.conditions.iter().zip(&self.results);
        both.filter(|(_, result)| result.is_none()).map(|(condition, _)| condition).collect()
    }

    /// Answers to what is open, in order.
    fn fill(&mut self, answers: impl IntoIterator<Item = Option<bool>>) {
        let open = self.results.iter_mut().filter(|result| result.is_none());
        open.zip(answers).for_each(|(result, answer)| *result = answer);
    }
}

/// What was asked and is not answered.
#[derive(Debug, Default)]
pub struct Questions {
    helper: Option<Inquirer>,
    /// With the helper.
    asked: BTreeMap<QueryId, Question>,
    /// To have a child each.
    waiting: VecDeque<Question>,
    /// With a child.
    alone: BTreeMap<u32, (Question, Answers)>,
    /// Children and helpers, those that were given up among them.
    children: usize,
}

/// The helper.
#[derive(Debug)]
struct Inquirer {
    pid: u32,
    socket: OwnedFd,
    token: Token,
    /// When it last said something, or was asked something while it owed nothing.
    heard_usec: u64,
}

impl Questions {
    /// When the next one counts as failed, or the helper as hanging.
    pub fn next_deadline(&self) -> Option<u64> {
        let alone = self.alone.values().map(|(question, _)| question);
        let all = alone.chain(&self.waiting).chain(self.asked.values());
        let failed = all.map(|question| question.until_usec).filter(|at| *at != u64::MAX);
        failed.chain(self.hangs_usec()).min()
    }

    fn hangs_usec(&self) -> Option<u64> {
        let helper = self.helper.as_ref().filter(|_| !self.asked.is_empty())?;
        Some(helper.heard_usec.saturating_add(PATIENCE_USEC))
    }
}

impl Runtime {
    /// Answers at once what needs no look at the world, and has the helper answer the rest.
    pub(crate) fn ask(&mut self, query: QueryId, conditions: Vec<Condition>) {
        let state = self.manager.state();
        let known = |one: &Condition| conditions::is_certain(one.kind).then(|| conditions::check(one, state));
        let results: Vec<Option<bool>> = conditions.iter().map(known).collect();
        let until_usec = clock::monotonic_usec().saturating_add(state.facts.default_timeout_start_usec);
        let question = Question { query, conditions, results, until_usec };
        if question.open().is_empty() {
            return self.answered(question, "");
        }
        match self.ask_helper(&question) {
            Some(()) => {
                self.questions.asked.insert(query, question);
            }
            None => {
                self.questions.waiting.push_back(question);
                self.ask_alone();
            }
        }
    }

    fn ask_helper(&mut self, question: &Question) -> Option<()> {
        let open = question.open();
        let mut bytes = Vec::new();
        ciborium::into_writer(&(question.query.0, &open), &mut bytes).ok()?;
        if bytes.len() > QUESTION_MAX || open.len() > CONDITIONS_MAX {
            return None;
        }
        if self.questions.helper.is_none() {
            self.start_inquirer()?;
        }
        let owes_nothing = self.questions.asked.is_empty();
        let helper = self.questions.helper.as_mut()?;
        send(helper.socket.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).ok()?;
        if owes_nothing {
            helper.heard_usec = clock::monotonic_usec();
        }
        Some(())
    }

    fn start_inquirer(&mut self) -> Option<()> {
        if self.questions.children >= CHILDREN_MAX {
            return None;
        }
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).ok()?;
        let token = self.register_raw(socket.as_raw_fd(), Source::Questioner).ok()?;
        let mut command = Command::new(&self.program);
        command.arg("--questions").stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.current_dir("/").spawn() else {
            self.deregister(token, socket.as_fd());
            return None;
        };
        let pid = child.id();
        self.questions.children = self.questions.children.saturating_add(1);
        self.processes.add_helper(pid, Helper::Questioner(pid));
        self.questions.helper = Some(Inquirer { pid, socket, token, heard_usec: 0 });
        Some(())
    }

    /// The helper has answers.
    pub(crate) fn questioner_spoke(&mut self) {
        while let Some(helper) = &mut self.questions.helper {
            let mut bytes = [0_u8; CONDITIONS_MAX + 8];
            match recv(helper.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                // Its end is told when it is reaped.
                Err(_) | Ok(0) => break,
                Ok(length) => {
                    helper.heard_usec = clock::monotonic_usec();
                    let Some((query, answers)) = bytes.get(..length).and_then(<[u8]>::split_first_chunk)
                    else {
                        continue;
                    };
                    let query = QueryId(u64::from_le_bytes(*query));
                    let Some(mut question) = self.questions.asked.remove(&query) else { continue };
                    question.fill(answers.iter().map(|answer| Some(*answer == 1)));
                    self.answered(question, "could not be looked at");
                }
            }
        }
        self.work_off();
    }

    /// Lets the helper go when it owes nothing.
    pub(crate) fn dismiss_questioner(&mut self) {
        if self.questions.asked.is_empty() {
            self.let_questioner_go();
        }
    }

    /// Closes the helper's socket. What it owes gets a child each.
    fn let_questioner_go(&mut self) -> Option<u32> {
        let helper = self.questions.helper.take()?;
        self.deregister(helper.token, helper.socket.as_fd());
        self.questions.waiting.extend(std::mem::take(&mut self.questions.asked).into_values());
        Some(helper.pid)
    }

    fn ask_alone(&mut self) {
        while self.questions.children < CHILDREN_MAX {
            let Some(question) = self.questions.waiting.pop_front() else { return };
            let (open, state) = (question.open(), self.manager.state());
            let answer = |at: usize| open.get(at).is_some_and(|one| conditions::check(one, state));
            match muster_sys::ask_elsewhere(open.len(), answer) {
                Ok((pid, answers)) => {
                    self.questions.children = self.questions.children.saturating_add(1);
                    self.questions.alone.insert(pid, (question, answers));
                    self.processes.add_helper(pid, Helper::Questioner(pid));
                }
                Err(error) => self.answered(question, &format!("could not be looked at: {error}")),
            }
        }
    }

    /// A child ended, or the helper.
    pub(crate) fn questioner_ended(&mut self, pid: u32) {
        self.questions.children = self.questions.children.saturating_sub(1);
        if self.questions.helper.as_ref().is_some_and(|helper| helper.pid == pid) {
            self.questioner_spoke();
            self.let_questioner_go();
        }
        if let Some((mut question, answers)) = self.questions.alone.remove(&pid) {
            question.fill(answers.read());
            self.answered(question, "could not be looked at");
        }
        self.ask_alone();
        self.work_off();
    }

    /// Gives up on what took too long. Whoever hangs goes when the kernel lets it.
    pub(crate) fn mind_questions(&mut self) {
        let now = self.turn_usec;
        if self.questions.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        if self.questions.hangs_usec().is_some_and(|at| at <= now) {
            self.questioner_spoke();
        }
        if self.questions.hangs_usec().is_some_and(|at| at <= now) {
            self.let_questioner_go().into_iter().for_each(end);
        }
        let due = |question: &Question| question.until_usec <= now;
        let hang = self.questions.alone.iter().filter(|(_, (one, _))| due(one));
        for pid in hang.map(|(pid, _)| *pid).collect::<Vec<u32>>() {
            let Some((mut question, answers)) = self.questions.alone.remove(&pid) else { continue };
            end(pid);
            question.fill(answers.read());
            self.answered(question, "had no answer in time");
        }
        while self.questions.waiting.front().is_some_and(due) {
            let Some(question) = self.questions.waiting.pop_front() else { break };
            self.answered(question, "had no answer in time");
        }
        self.ask_alone();
        self.work_off();
    }

    /// What is still open counts as failed.
    fn answered(&mut self, question: Question, why: &str) {
        let state = self.manager.state();
        let unit = state.queries.get(&question.query).and_then(|id| state.units.get(id));
        let unit = unit.map(|unit| unit.name.clone());
        if let (Some(unit), Some(condition)) = (unit, question.open().first()) {
            let message = format!("{unit}: {condition} {why}. It counts as failed.");
            let record = LogRecord { level: Level::Warning, unit: Some(unit), message, fields: Vec::new() };
            self.write_log(&record);
        }
        let results = question.results.into_iter().map(|result| result.unwrap_or(false)).collect();
        self.follow_up.push_back(Event::ConditionsChecked { query: question.query, results });
    }
}

/// Kills a child of ours. It is not reaped yet, so the number is still its own.
fn end(pid: u32) {
    if let Ok(number) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
    }
}

/// The helper: answers what comes on standard input, one question a message, until that is closed. An answer is the number
/// of the question and a byte for each condition.
pub fn run() -> ExitCode {
    // What PID 1 alone knows is not asked of it.
    let state = State::default();
    let mut bytes = vec![0; QUESTION_MAX];
    loop {
        let length = match recv(0, &mut bytes, MsgFlags::empty()) {
            Ok(0) => return ExitCode::SUCCESS,
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(_) => return ExitCode::FAILURE,
        };
        let question = bytes.get(..length).unwrap_or_default();
        let Ok((query, open)) = ciborium::from_reader::<(u64, Vec<Condition>), _>(question) else {
            return ExitCode::FAILURE;
        };
        let mut answer = query.to_le_bytes().to_vec();
        answer.extend(open.iter().map(|condition| u8::from(conditions::check(condition, &state))));
        if send(0, &answer, MsgFlags::MSG_NOSIGNAL).is_err() {
            return ExitCode::SUCCESS;
        }
    }
}
