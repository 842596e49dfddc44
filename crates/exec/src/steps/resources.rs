//! What a process is given of the machine: processors, memory policy, timer slack, what a core dump holds, personality.

use super::{About, Direct, Step};
use crate::{Context, Exit, resources, seccomp};
use muster_unit::MemoryThp;

// prctl(2).
const PR_SET_TIMERSLACK: i32 = 29;
const PR_SET_MEMORY_MERGE: i32 = 67;
const PR_SET_THP_DISABLE: i32 = 41;
const PR_THP_DISABLE_EXCEPT_ADVISED: u64 = 2;

/// `CoredumpFilter=`.
pub const COREDUMP_FILTER: Step = Step {
    directive: "CoredumpFilter=",
    exit: Exit::Limits,
    needed: |context| context.exec.coredump_filter().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let filter = context.exec.coredump_filter();
        filter.map_or(Ok(()), |filter| resources::coredump_filter(filter.0).about("CoredumpFilter="))
    },
};

/// `CPUAffinity=`.
pub const CPU_AFFINITY: Step = Step {
    directive: "CPUAffinity=",
    exit: Exit::Cpuaffinity,
    needed: |context| context.exec.cpu_affinity().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let exec = context.exec;
        let affinity = exec.cpu_affinity().as_ref();
        affinity.map_or(Ok(()), |affinity| resources::set_affinity(affinity, exec).about("CPUAffinity="))
    },
};

/// `NUMAPolicy=` with `NUMAMask=`.
pub const MEMORY_POLICY: Step = Step {
    directive: "NUMAPolicy=",
    exit: Exit::NumaPolicy,
    needed: |context| context.exec.numa_policy().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let exec = context.exec;
        exec.numa_policy()
            .map_or(Ok(()), |policy| resources::memory_policy(policy, exec).about("NUMAPolicy="))
    },
};

/// `TimerSlackNSec=`.
pub const TIMER_SLACK: Step = Step {
    directive: "TimerSlackNSec=",
    exit: Exit::Timerslack,
    needed: |context| {
        context.exec.timer_slack_nsec().is_some_and(|slack| slack != muster_unit::Nanoseconds::DEFAULT)
    },
    direct: Direct::No,
    run: |context, _| {
        let Some(slack) = context.exec.timer_slack_nsec() else { return Ok(()) };
        muster_sys::process_control(PR_SET_TIMERSLACK, slack.0, 0).about("TimerSlackNSec=").map(drop)
    },
};

/// `MemoryKSM=`. A kernel without it leaves memory as it is, and the manual lets that go.
pub const MEMORY_MERGE: Step = Step {
    directive: "MemoryKSM=",
    exit: Exit::Ksm,
    needed: |context| context.exec.memory_ksm().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let Some(merge) = context.exec.memory_ksm() else { return Ok(()) };
        match muster_sys::process_control(PR_SET_MEMORY_MERGE, u64::from(merge), 0) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
            done => done.about("MemoryKSM=").map(drop),
        }
    },
};

/// `MemoryTHP=`. `madvise` needs Linux 6.18.
pub const HUGE_PAGES: Step = Step {
    directive: "MemoryTHP=",
    exit: Exit::Failure,
    needed: |context| huge_pages(context).is_some(),
    direct: Direct::No,
    run: |context, _| {
        let Some((disabled, flags)) = huge_pages(context) else { return Ok(()) };
        muster_sys::process_control(PR_SET_THP_DISABLE, disabled, flags).about("MemoryTHP=").map(drop)
    },
};

/// Whether transparent huge pages are off, and but for memory that a program asks them for.
fn huge_pages(context: &Context<'_>) -> Option<(u64, u64)> {
    match context.exec.memory_thp()? {
        MemoryThp::Inherit => None,
        MemoryThp::Disable => Some((1, 0)),
        MemoryThp::Madvise => Some((1, PR_THP_DISABLE_EXCEPT_ADVISED)),
        MemoryThp::System => Some((0, 0)),
    }
}

/// `Personality=`; after what reads addresses and names of the machine for this process.
pub const PERSONALITY: Step = Step {
    directive: "Personality=",
    exit: Exit::Personality,
    needed: |context| context.exec.personality().is_some(),
    direct: Direct::No,
    run: |context, _| {
        let wanted = seccomp::personality_of(context.exec, 0);
        muster_sys::personality(wanted).about("Personality=").map(drop)
    },
};
