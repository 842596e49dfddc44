//! `musterctl ping`: how long PID 1 takes to answer.

use crate::Answer;
use crate::client::{Client, Failure};
use crate::page::Page;
use serde::Serialize;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How long PID 1 takes to answer, in microseconds.
#[derive(Serialize)]
pub struct Ping {
    median_usec: u64,
    /// Of a hundred answers, all but the slowest one take no longer.
    p99_usec: u64,
    longest_usec: u64,
}

/// Asks that often.
pub fn ping(count: u32) -> Result<Ping, Failure> {
    let mut client = Client::connect()?;
    let mut times = Vec::new();
    for _ in 0..count {
        let asked = Instant::now();
        client.load_unit("init.scope")?;
        times.push(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        std::thread::sleep(Duration::from_millis(10));
    }
    times.sort_unstable();
    let at = |hundredths: usize| {
        let index = times.len().saturating_mul(hundredths) / 100;
        times.get(index).copied().unwrap_or_default()
    };
    let longest_usec = times.last().copied().unwrap_or_default();
    Ok(Ping { median_usec: at(50), p99_usec: at(99), longest_usec })
}

impl Answer for Ping {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        writeln!(page, "{} {} {}", self.median_usec, self.p99_usec, self.longest_usec)
    }
}
