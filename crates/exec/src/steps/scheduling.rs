//! What the kernel gives the process when others want it too: processor, input and output, memory.

use super::{About, Direct, Step};
use crate::Exit;
use muster_unit::CpuPolicy::{Batch, Ext, Fifo, Idle, Other, Rr};

/// `OOMScoreAdjust=`.
pub const OOM_SCORE: Step = Step {
    directive: "OOMScoreAdjust=",
    exit: Exit::OomAdjust,
    needed: |context| context.exec.oom_score_adjust().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let Some(score) = context.exec.oom_score_adjust() else { return Ok(()) };
        // Without the right to lower it (containers), the score stays as it is.
        match std::fs::write("/proc/self/oom_score_adj", score.0.to_string()) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            done => done.about("OOMScoreAdjust="),
        }
    },
};

/// `Nice=`.
pub const NICE: Step = Step {
    directive: "Nice=",
    exit: Exit::Nice,
    needed: |context| context.exec.nice().is_some(),
    direct: Direct::No,
    run: |context, _| context.exec.nice().map_or(Ok(()), |nice| muster_sys::set_nice(nice.0).about("Nice=")),
};

/// `SCHED_RESET_ON_FORK` (sched(7)).
const RESET_ON_FORK: i32 = 0x4000_0000;

/// `CPUSchedulingPolicy=` with its priority and whether children inherit it.
pub const CPU: Step = Step {
    directive: "CPUSchedulingPolicy=",
    exit: Exit::Setscheduler,
    needed: |context| {
        let exec = context.exec;
        exec.cpu_scheduling_policy().is_some()
            || exec.cpu_scheduling_priority().is_some()
            || exec.cpu_scheduling_reset_on_fork()
    },
    direct: Direct::No,
    run: |context, _| {
        let exec = context.exec;
        let policy = exec.cpu_scheduling_policy().unwrap_or(Other);
        let number = match policy {
            Other => 0,
            Fifo => 1,
            Rr => 2,
            Batch => 3,
            Idle => 5,
            Ext => 7,
        };
        let priority = exec
            .cpu_scheduling_priority()
            .map_or(i32::from(matches!(policy, Fifo | Rr)), |priority| priority.0);
        let number = if exec.cpu_scheduling_reset_on_fork() { number | RESET_ON_FORK } else { number };
        muster_sys::set_scheduler(number, priority).about("CPUSchedulingPolicy=")
    },
};

/// `IOSchedulingClass=` with its priority.
pub const IO: Step = Step {
    directive: "IOSchedulingClass=",
    exit: Exit::Ioprio,
    needed: |context| {
        context.exec.io_scheduling_class().is_some() || context.exec.io_scheduling_priority().is_some()
    },
    direct: Direct::No,
    run: |context, _| {
        let class = context.exec.io_scheduling_class().unwrap_or(muster_unit::IoClass::BestEffort);
        let level = context.exec.io_scheduling_priority().map_or(4, |level| level.0);
        muster_sys::set_io_priority(class as i32, level).about("IOSchedulingClass=")
    },
};
