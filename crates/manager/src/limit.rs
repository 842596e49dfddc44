//! Rate limits: at most N events in a window (`StartLimit*`, `TriggerLimit*`, `PollLimit*`).

use crate::state::RateWindow;

/// Counts one event at `now_usec`. False when the window already holds `burst` of them; 0 for either number is no limit.
pub fn admit(window: &mut RateWindow, now_usec: u64, interval_usec: u64, burst: u32) -> bool {
    if interval_usec == 0 || burst == 0 {
        return true;
    }
    let over = window.begin_usec == 0 || window.begin_usec.saturating_add(interval_usec) <= now_usec;
    if over {
        *window = RateWindow { begin_usec: now_usec.max(1), count: 1 };
        return true;
    }
    if window.count >= burst {
        return false;
    }
    window.count = window.count.saturating_add(1);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_its_burst_and_opens_again() {
        let mut window = RateWindow::default();
        let got: Vec<bool> = [1, 2, 3, 10].into_iter().map(|at| admit(&mut window, at, 5, 2)).collect();
        assert_eq!(got, [true, true, false, true]);
        assert!((0..9).all(|at| admit(&mut window, at, 0, 2)));
    }
}
