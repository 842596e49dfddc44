//! What a run used, as a line of the log (`ae8f7b86…` of the message catalogue): processor time, memory, disk, network.

use crate::effect::{Effect, Level, LogRecord};
use crate::manager::Manager;
use crate::state::Usage;
use muster_unit::UnitName;

const MESSAGE_ID: &str = "ae8f7b866b0347b9af31fe1c80b127c0";

impl Manager {
    /// A run is over, and this is what it used. Its unit may be unloaded by now.
    pub(crate) fn report_usage(&mut self, unit: UnitName, invocation_id: String, usage: &Usage) {
        let (words, level) = (words(usage), level(usage));
        if words.is_empty() || level as u8 > self.state.log_level {
            return;
        }
        let mut fields = fields(usage);
        fields.push(("MESSAGE_ID".to_owned(), MESSAGE_ID.to_owned()));
        fields.push(("INVOCATION_ID".to_owned(), invocation_id));
        let message = format!("{unit}: Consumed {}.", words.join(", "));
        self.effects.push_back(Effect::Log(LogRecord { level, unit: Some(unit), message, fields }));
    }
}

/// Little is told to who debugs alone.
fn level(usage: &Usage) -> Level {
    let much = |value: Option<u64>, from: u64| value.is_some_and(|value| value >= from);
    let told = much(usage.cpu_nsec, 1_000_000_000)
        || much(usage.memory_peak, 64 << 20)
        || [usage.io_read_bytes, usage.io_write_bytes].into_iter().any(|bytes| much(bytes, 1 << 20))
        || [usage.ip_ingress_bytes, usage.ip_egress_bytes].into_iter().any(|bytes| much(bytes, 1 << 20));
    if told { Level::Info } else { Level::Debug }
}

fn words(usage: &Usage) -> Vec<String> {
    let cpu = usage.cpu_nsec.map(|nsec| format!("{} CPU time", span(nsec / 1_000_000)));
    let amounts = [
        (usage.memory_peak, "memory peak"),
        (usage.memory_swap_peak, "memory swap peak"),
        (usage.io_read_bytes, "read from disk"),
        (usage.io_write_bytes, "written to disk"),
        (usage.ip_ingress_bytes, "incoming IP traffic"),
        (usage.ip_egress_bytes, "outgoing IP traffic"),
    ];
    let amounts = amounts.iter().filter_map(|(bytes, what)| {
        bytes.filter(|bytes| *bytes > 0).map(|bytes| format!("{} {what}", amount(bytes)))
    });
    cpu.into_iter().chain(amounts).collect()
}

fn fields(usage: &Usage) -> Vec<(String, String)> {
    let all = [
        ("CPU_USAGE_NSEC", usage.cpu_nsec),
        ("MEMORY_PEAK", usage.memory_peak),
        ("MEMORY_SWAP_PEAK", usage.memory_swap_peak),
        ("IO_METRIC_READ_BYTES", usage.io_read_bytes),
        ("IO_METRIC_WRITE_BYTES", usage.io_write_bytes),
        ("IO_METRIC_READ_OPERATIONS", usage.io_read_operations),
        ("IO_METRIC_WRITE_OPERATIONS", usage.io_write_operations),
        ("IP_METRIC_INGRESS_BYTES", usage.ip_ingress_bytes),
        ("IP_METRIC_INGRESS_PACKETS", usage.ip_ingress_packets),
        ("IP_METRIC_EGRESS_BYTES", usage.ip_egress_bytes),
        ("IP_METRIC_EGRESS_PACKETS", usage.ip_egress_packets),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_string()))).collect()
}

/// A time in milliseconds, as people read it: `12ms`, `1.063s`, `2min 3.500s`.
fn span(msec: u64) -> String {
    let (seconds, rest) = (msec / 1000, msec % 1000);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let large = [(days, "d"), (hours, "h"), (minutes, "min")];
    let mut parts: Vec<String> =
        large.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    match (seconds % 60, rest) {
        (0, 0) if !parts.is_empty() => {}
        (0, 0) => parts.push("0".to_owned()),
        (0, rest) => parts.push(format!("{rest}ms")),
        (seconds, 0) => parts.push(format!("{seconds}s")),
        (seconds, rest) => parts.push(format!("{seconds}.{rest:03}s")),
    }
    parts.join(" ")
}

/// Bytes, as people read them: `512B`, `4.3M`.
fn amount(bytes: u64) -> String {
    let units = [(40_u32, "T"), (30, "G"), (20, "M"), (10, "K")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        None => format!("{bytes}B"),
        Some((shift, unit)) => {
            let rest = bytes & (1_u64 << shift).saturating_sub(1);
            let tenth = (rest >> shift.saturating_sub(10)).saturating_mul(10) >> 10;
            let whole = bytes >> shift;
            if tenth > 0 { format!("{whole}.{tenth}{unit}") } else { format!("{whole}{unit}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (msec, text) in [(0, "0"), (12, "12ms"), (1063, "1.063s"), (2000, "2s"), (123_500, "2min 3.500s")]
        {
            assert_eq!(span(msec), text);
        }
        for (bytes, text) in [(7, "7B"), (1024, "1K"), (4_510_000, "4.3M"), (1 << 40, "1T")] {
            assert_eq!(amount(bytes), text);
        }
        let usage = Usage { cpu_nsec: Some(5_000_000), memory_peak: Some(2048), ..Usage::default() };
        assert_eq!(words(&usage), ["5ms CPU time", "2K memory peak"]);
    }
}
