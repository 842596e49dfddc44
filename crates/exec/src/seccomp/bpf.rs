//! Filters of system calls as programs for the kernel (seccomp(2), classic BPF).
//!
//! One program looks at all entries of the machine, so that none is a way around it: it branches by architecture, then by
//! ranges of numbers, halving them. A filter is what it does with each number, and with all others. What must stay true:
//! jumps go forward only, and every path ends in a verdict.
//!
//! seccompiler was looked at for this. Its filters kill what comes by another architecture than theirs, so that two of
//! them exclude each other, and know one verdict besides the default; errors of single calls need many.

use muster_sys::Instruction;
use std::collections::BTreeMap;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call is made.
    Allow,
    /// It is made, and the kernel writes a line of audit.
    Log,
    /// It fails with this error.
    Fail(u16),
    /// The process is killed by SIGSYS.
    Kill,
}

impl Verdict {
    fn code(self) -> u32 {
        match self {
            Verdict::Allow => 0x7fff_0000,
            Verdict::Log => 0x7ffc_0000,
            Verdict::Fail(error) => 0x0005_0000 | u32::from(error),
            Verdict::Kill => 0x8000_0000,
        }
    }
}

/// A comparison of the lower half of an argument, which is all that the kernel reads of the arguments in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// Which argument, from 0.
    pub argument: u8,
    /// The bits that count.
    pub mask: u32,
    /// What they are compared with.
    pub value: u32,
    /// Whether they must be equal to it, or must not.
    pub equal: bool,
}

/// What becomes of the calls of one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The same for all.
    Always(Verdict),
    /// The first verdict whose tests all hold; else the last.
    When(Vec<(Vec<Test>, Verdict)>, Verdict),
}

/// What becomes of what comes by one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Rules by the number of the system call.
    pub rules: BTreeMap<u32, Rule>,
    /// Of numbers without a rule.
    pub others: Verdict,
}

/// The entries of an x86-64 machine; other machines have none here, and what asks for a filter does not start there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Rules for the 64-bit ABI.
    pub x86_64: Section,
    /// Rules for the 32-bit ABI.
    pub x86: Section,
    /// 64-bit registers with 32-bit pointers; numbers without their common bit.
    pub x32: Section,
}

/// The bit that all numbers of x32 have.
pub const X32_BIT: u32 = 0x4000_0000;
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_X86: u32 = 0x4000_0003;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, operand }
}

fn end(verdict: Verdict) -> Vec<Instruction> {
    vec![plain(RETURN, verdict.code())]
}

fn size(code: &[Instruction]) -> u32 {
    u32::try_from(code.len()).unwrap_or(u32::MAX)
}

/// One of two programs, by a comparison of what is loaded.
fn branch(code: u16, operand: u32, no: Vec<Instruction>, yes: Vec<Instruction>) -> Vec<Instruction> {
    let mut all = Vec::with_capacity(no.len().saturating_add(yes.len()).saturating_add(2));
    match u8::try_from(no.len()) {
        Ok(skip) => all.push(Instruction { code, yes: skip, no: 0, operand }),
        Err(_) => {
            all.push(Instruction { code, yes: 0, no: 1, operand });
            all.push(plain(JUMP, size(&no)));
        }
    }
    all.extend(no);
    all.extend(yes);
    all
}

fn rule(rule: &Rule) -> Vec<Instruction> {
    match rule {
        Rule::Always(verdict) => end(*verdict),
        Rule::When(alternatives, otherwise) => {
            let mut code = end(*otherwise);
            for (tests, verdict) in alternatives.iter().rev() {
                code = tests.iter().rev().fold(end(*verdict), |then, one| test(*one, then, &code));
                // Each test has the rest behind it; rules have few of both.
            }
            code
        }
    }
}

/// `then` if a test holds, else `otherwise`.
fn test(test: Test, then: Vec<Instruction>, otherwise: &[Instruction]) -> Vec<Instruction> {
    let offset = u32::from(test.argument).saturating_mul(8).saturating_add(16);
    let mut code = vec![plain(LOAD, offset)];
    if test.mask != u32::MAX {
        code.push(plain(AND, test.mask));
    }
    let (no, yes) = if test.equal { (otherwise.to_vec(), then) } else { (then, otherwise.to_vec()) };
    code.extend(branch(IF_EQUAL, test.value, no, yes));
    code
}

/// Ranges of numbers that are treated alike, by their first one, as a tree of comparisons.
fn section(section: &Section) -> Vec<Instruction> {
    let others = Rule::Always(section.others);
    let mut ranges: Vec<(u32, &Rule)> = vec![(0, &others)];
    let mut next = 0;
    for (number, rule) in &section.rules {
        if *number > next {
            ranges.push((next, &others));
        }
        ranges.push((*number, rule));
        next = number.saturating_add(1);
    }
    ranges.push((next, &others));
    // Of several that begin at the same number the last is meant.
    let mut apart: Vec<(u32, &Rule)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match apart.last_mut() {
            Some(last) if last.0 == range.0 => *last = range,
            Some(last) if last.1 == range.1 => {}
            _ => apart.push(range),
        }
    }
    let mut level: Vec<(u32, Vec<Instruction>)> =
        apart.into_iter().map(|(first, kind)| (first, rule(kind))).collect();
    while level.len() > 1 {
        let mut above = Vec::with_capacity(level.len().div_ceil(2));
        let mut rest = level.into_iter();
        while let Some((first, low)) = rest.next() {
            above.push(match rest.next() {
                Some((middle, high)) => (first, branch(IF_AT_LEAST, middle, low, high)),
                None => (first, low),
            });
        }
        level = above;
    }
    level.pop().map(|(_, code)| code).unwrap_or_else(|| end(section.others))
}

impl Filter {
    /// The program. What comes by an architecture that this machine does not have is killed.
    pub fn program(&self) -> Vec<Instruction> {
        const ARCHITECTURE: u32 = 4;
        const NUMBER: u32 = 0;
        let shifted = Section {
            rules: self.x32.rules.iter().map(|(number, rule)| (number | X32_BIT, rule.clone())).collect(),
            others: self.x32.others,
        };
        let with_number = |code: Vec<Instruction>| {
            let mut all = vec![plain(LOAD, NUMBER)];
            all.extend(code);
            all
        };
        let long = branch(IF_AT_LEAST, X32_BIT, section(&self.x86_64), section(&shifted));
        let short = branch(IF_EQUAL, AUDIT_X86, end(Verdict::Kill), with_number(section(&self.x86)));
        let mut program = vec![plain(LOAD, ARCHITECTURE)];
        program.extend(branch(IF_EQUAL, AUDIT_X86_64, short, with_number(long)));
        program
    }
}
