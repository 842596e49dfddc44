//! The chart of a boot as SVG: one row a unit, time from left to right. A pure function of what is known of the boot.
//!
//! What must stay true: it holds no script, no font and no address, so that it can be shown anywhere.

use crate::boot::{Boot, Run};
use std::fmt::Write;

/// Sizes in pixels.
const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 20.0;
const HEAD: f64 = 62.0;
const ROW: f64 = 16.0;
/// A name stands before its bar where the bar ends beyond the one, and leaves the other free; else after it.
const TURN: f64 = 0.6;
const FREE: f64 = 0.35;

const STYLE: &str = "text{font:11px sans-serif;fill:#222}.h{font-size:15px;font-weight:bold}.s{fill:#777}.e{text-anchor:end}\
    .g{stroke:#ddd}.p{fill:#8a7fc0}.u{fill:#d5e6d5}.w{fill:#e2903c}.f{fill:#c33}.c{font-weight:bold}";

/// The text of the file.
pub fn draw(boot: &Boot) -> String {
    let in_chain = |run: &Run| boot.chain.contains(&run.unit);
    let runs: Vec<&Run> = boot.units.iter().filter(|run| run.is_work() || in_chain(run)).collect();
    let last = runs.iter().filter_map(|run| run.ready_usec).max().unwrap_or(0);
    let end = boot.userspace_usec.unwrap_or(last).max(last).max(1);
    let scale = Scale { end };
    let rows = runs.len().saturating_add(boot.phases.len()) as f64;
    let height = HEAD + rows * ROW + MARGIN;
    let mut out = String::new();
    out.push_str(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    ));
    head(&mut out, boot);
    grid(&mut out, &scale, height);
    let mut row = Row { y: HEAD, scale: &scale, out: &mut out };
    for phase in &boot.phases {
        row.bar("p", phase.from_usec, phase.to_usec);
        row.name(phase.name, phase.from_usec, phase.to_usec, false);
    }
    for run in runs {
        let ready = run.ready_usec.unwrap_or(end);
        row.bar("u", ready, run.ended_usec.unwrap_or(end).min(end));
        row.bar(if run.active_state == "failed" { "f" } else { "w" }, run.from_usec, ready);
        row.name(&run.unit, run.from_usec, ready, in_chain(run));
    }
    out.push_str("</svg>\n");
    out
}

fn head(out: &mut String, boot: &Boot) {
    let time = |usec: u64| format!("{:.3} s", usec as f64 / 1e6);
    let user = boot.userspace_usec.map_or("not done yet".to_owned(), time);
    let kernel = boot.kernel_usec.map(|usec| format!(", after {} of kernel", time(usec))).unwrap_or_default();
    let title = escape(&format!("Boot to {}: {user}{kernel}", boot.target));
    put(out, format_args!("<text class=\"h\" x=\"{MARGIN}\" y=\"22\">{title}</text>"));
    let keys = [("p", "PID 1"), ("w", "starting"), ("u", "up"), ("f", "failed")];
    for (index, (class, what)) in keys.into_iter().enumerate() {
        let x = MARGIN + index as f64 * 80.0;
        put(out, format_args!("<rect class=\"{class}\" x=\"{x}\" y=\"32\" width=\"10\" height=\"10\"/>"));
        put(out, format_args!("<text x=\"{}\" y=\"41\">{what}</text>", x + 14.0));
    }
    let x = MARGIN + keys.len() as f64 * 80.0;
    put(out, format_args!("<text class=\"c\" x=\"{x}\" y=\"41\">what the target waited for</text>"));
}

fn grid(out: &mut String, scale: &Scale, height: f64) {
    let step = scale.step_usec();
    let mut at = 0_u64;
    while at <= scale.end {
        let x = scale.x(at);
        let foot = height - MARGIN;
        put(out, format_args!("<path class=\"g\" d=\"M{x:.1} {}V{foot}\"/>", HEAD - 4.0));
        put(out, format_args!("<text class=\"s\" x=\"{x:.1}\" y=\"{}\">{}</text>", HEAD - 7.0, label(at)));
        at = at.saturating_add(step);
    }
}

/// A time on the axis.
fn label(usec: u64) -> String {
    match usec {
        0 => "0".to_owned(),
        _ if usec < 1_000_000 => format!("{} ms", usec / 1000),
        _ => format!("{} s", usec as f64 / 1e6),
    }
}

struct Scale {
    end: u64,
}

impl Scale {
    fn x(&self, usec: u64) -> f64 {
        MARGIN + usec as f64 / self.end as f64 * (WIDTH - 2.0 * MARGIN)
    }

    /// Ten lines or fewer, at round numbers, and none closer than a millisecond.
    fn step_usec(&self) -> u64 {
        let powers = (3..=18).map(|power| 10_u64.saturating_pow(power));
        let mut steps = powers.flat_map(|power| [1_u64, 2, 5].map(|times| power.saturating_mul(times)));
        steps.find(|step| self.end.checked_div(*step).is_some_and(|lines| lines <= 10)).unwrap_or(u64::MAX)
    }
}

struct Row<'a> {
    y: f64,
    scale: &'a Scale,
    out: &'a mut String,
}

impl Row<'_> {
    fn bar(&mut self, class: &str, from: u64, to: u64) {
        let (x, right) = (self.scale.x(from), self.scale.x(to));
        // What took no time is still seen.
        let width = (right - x).max(if class == "u" { 0.0 } else { 1.0 });
        let (y, height) = (self.y + 1.0, ROW - 2.0);
        if width > 0.0 {
            put(
                self.out,
                format_args!(
                    "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\"/>"
                ),
            );
        }
    }

    /// The name beside its bar; the row is done.
    fn name(&mut self, name: &str, from: u64, to: u64, marked: bool) {
        let (left, right) = (self.scale.x(from), self.scale.x(to));
        let before = right > WIDTH * TURN && left > WIDTH * FREE;
        let x = if before { left - 4.0 } else { right.min(WIDTH * TURN) + 4.0 };
        let class = match (before, marked) {
            (true, true) => " class=\"e c\"",
            (true, false) => " class=\"e\"",
            (false, true) => " class=\"c\"",
            (false, false) => "",
        };
        let took = to.saturating_sub(from);
        let time = if took >= 1000 { format!(" ({} ms)", took / 1000) } else { String::new() };
        put(
            self.out,
            format_args!("<text{class} x=\"{x:.1}\" y=\"{}\">{}{time}</text>", self.y + 12.0, escape(name)),
        );
        self.y += ROW;
    }
}

/// A line; to write into a text cannot fail.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_axis_are_few_and_round() {
        for (end, step) in
            [(1, 1000), (9_000, 1000), (345_000, 50_000), (1_200_000, 200_000), (90_000_000, 10_000_000)]
        {
            assert_eq!(Scale { end }.step_usec(), step, "{end}");
        }
        assert_eq!([label(0), label(50_000), label(1_500_000)], ["0", "50 ms", "1.5 s"]);
    }
}
