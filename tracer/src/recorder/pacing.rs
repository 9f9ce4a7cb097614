//! The time that memtap's own work takes: limits on periodic work, and the cost of one piece of
//! work.

use std::time::{Duration, Instant};

use crate::clock;

/// Periodic work takes at most one part in so many of memtap's time.
const MAX_PART: u32 = 20;

/// The last run of periodic work, and its length.
#[derive(Debug, Default)]
pub(super) struct WorkPace {
    last: Option<(Instant, Duration)>,
}

impl WorkPace {
    /// Returns true if the work may run again.
    pub(super) fn is_due(&self) -> bool {
        self.last.is_none_or(|(at, took)| at.elapsed() >= took * MAX_PART)
    }

    /// Notes a run that began at `began` and ends now.
    pub(super) fn note_run(&mut self, began: Instant) {
        self.last = Some((Instant::now(), began.elapsed()));
    }
}

/// Time that a piece of work took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WorkTime {
    /// CPU time of memtap, in seconds.
    pub(super) cpu_s: f64,
    /// Time on the clock, in seconds.
    pub(super) clock_s: f64,
}

impl WorkTime {
    /// Does the work and measures it.
    pub(super) fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let (began, before) = (Instant::now(), clock::own_cpu_time());
        let result = work();
        let time = Self {
            cpu_s: clock::own_cpu_time().saturating_sub(before).as_secs_f64(),
            clock_s: began.elapsed().as_secs_f64(),
        };
        (result, time)
    }

    /// Adds another piece of work.
    pub(super) fn add(&mut self, other: Self) {
        self.cpu_s += other.cpu_s;
        self.clock_s += other.clock_s;
    }
}
