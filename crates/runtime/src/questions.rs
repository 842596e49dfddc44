//! Conditions that look at the world (systemd.unit(5), "Conditions and Asserts"), asked by a child.
//!
//! A path may lead to a file system that does not answer. What must stay true: PID 1 never looks at one itself; a question
//! is answered, or counted as failed after `DefaultTimeoutStartSec=`, and holds up nothing but the job that waits for it.

use crate::clock;
use crate::conditions;
use crate::processes::Helper;
use crate::turn::Runtime;
use muster_manager::effect::{Level, LogRecord, QueryId};
use muster_manager::event::Event;
use muster_sys::Answers;
use muster_unit::Condition;
use std::collections::{BTreeMap, VecDeque};

/// At most this many children at a time, those that hang included.
const CHILDREN_MAX: usize = 128;

/// The conditions of one start.
#[derive(Debug)]
struct Question {
    query: QueryId,
    conditions: Vec<Condition>,
    /// When it counts as failed, in monotonic microseconds.
    until_usec: u64,
}

/// What was asked and is not answered.
#[derive(Debug, Default)]
pub struct Questions {
    waiting: VecDeque<Question>,
    asked: BTreeMap<u32, (Question, Answers)>,
    /// Children, those that were given up among them.
    children: usize,
}

impl Questions {
    /// When the next one counts as failed.
    pub fn next_deadline(&self) -> Option<u64> {
        let asked = self.asked.values().map(|(question, _)| question);
        asked.chain(&self.waiting).map(|question| question.until_usec).min().filter(|at| *at != u64::MAX)
    }
}

impl Runtime {
    /// Answers at once what needs no look at the world, and has a child answer the rest.
    pub(crate) fn ask(&mut self, query: QueryId, conditions: Vec<Condition>) {
        let state = self.manager.state();
        if conditions.iter().all(|condition| conditions::is_certain(condition.kind)) {
            let results = conditions.iter().map(|condition| conditions::check(condition, state)).collect();
            return self.follow_up.push_back(Event::ConditionsChecked { query, results });
        }
        let patience = state.facts.default_timeout_start_usec;
        let until_usec = clock::now().monotonic_usec.saturating_add(patience);
        self.questions.waiting.push_back(Question { query, conditions, until_usec });
        self.ask_next();
    }

    fn ask_next(&mut self) {
        while self.questions.children < CHILDREN_MAX {
            let Some(question) = self.questions.waiting.pop_front() else { return };
            let (list, state) = (&question.conditions, self.manager.state());
            let answer = |at: usize| list.get(at).is_some_and(|one| conditions::check(one, state));
            match muster_sys::ask_elsewhere(list.len(), answer) {
                Ok((pid, answers)) => {
                    self.questions.children = self.questions.children.saturating_add(1);
                    self.questions.asked.insert(pid, (question, answers));
                    self.processes.add_helper(pid, Helper::Questioner(pid));
                }
                Err(error) => {
                    let open = vec![None; list.len()];
                    self.answered(question, open, &format!("could not be looked at: {error}"));
                }
            }
        }
    }

    /// A child ended.
    pub(crate) fn questioner_ended(&mut self, pid: u32) {
        self.questions.children = self.questions.children.saturating_sub(1);
        if let Some((question, answers)) = self.questions.asked.remove(&pid) {
            self.answered(question, answers.read(), "could not be looked at");
        }
        self.ask_next();
        self.work_off();
    }

    /// Gives up on what took too long. The child goes when the kernel lets it.
    pub(crate) fn mind_questions(&mut self) {
        let now = clock::now().monotonic_usec;
        if self.questions.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        let due = |question: &Question| question.until_usec <= now;
        let hang: Vec<u32> =
            self.questions.asked.iter().filter(|(_, (one, _))| due(one)).map(|(pid, _)| *pid).collect();
        for pid in hang {
            let Some((question, answers)) = self.questions.asked.remove(&pid) else { continue };
            // Not reaped yet, so the number is still its own.
            if let Ok(number) = i32::try_from(pid) {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(number),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            self.answered(question, answers.read(), "had no answer in time");
        }
        while self.questions.waiting.front().is_some_and(due) {
            let Some(question) = self.questions.waiting.pop_front() else { break };
            let open = vec![None; question.conditions.len()];
            self.answered(question, open, "had no answer in time");
        }
        self.work_off();
    }

    /// What is still open counts as failed.
    fn answered(&mut self, question: Question, answers: Vec<Option<bool>>, why: &str) {
        let state = self.manager.state();
        let unit = state.queries.get(&question.query).and_then(|id| state.units.get(id));
        let unit = unit.map(|unit| unit.name.clone());
        let open = question.conditions.iter().zip(&answers).find(|(_, answer)| answer.is_none());
        if let (Some(unit), Some((condition, _))) = (unit, open) {
            let message = format!("{unit}: {condition} {why}. It counts as failed.");
            let record = LogRecord { level: Level::Warning, unit: Some(unit), message, fields: Vec::new() };
            self.write_log(&record);
        }
        let results = answers.into_iter().map(|answer| answer.unwrap_or(false)).collect();
        self.follow_up.push_back(Event::ConditionsChecked { query: question.query, results });
    }
}
