//! The cost of a recording for reports, and the levels that it went through.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::cost_meter::CostMeter;
use super::windows::WindowSums;
use crate::cost::{saturating_u64, to_f64};
use crate::report::session::{BudgetBlock, Cost, PricesBlock, rounded};

/// The present level as the user sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Followed {
    /// Mean bytes between sampled allocations; 1: every allocation is followed.
    pub interval_bytes: u64,
    /// The share of time in which probes are attached.
    pub share: f64,
    /// The expected cost in percent of a CPU, where the budget cannot be kept.
    pub over_budget_percent: Option<f64>,
}

/// The levels of a recording.
#[derive(Debug)]
pub(super) struct LevelLog {
    /// The present sampling interval.
    pub(super) interval_bytes: u64,
    smallest_bytes: u64,
    largest_bytes: u64,
    /// The budget in percent of a CPU, if there is one.
    pub(super) budget_percent: Option<f64>,
    /// The budget could always be kept.
    pub(super) is_kept: bool,
    /// The user was told that it cannot be kept.
    pub(super) is_refusal_reported: bool,
    /// A new level that the user is to be told.
    pub(super) news: Option<Followed>,
}

impl LevelLog {
    /// Returns the log of a recording before its first level.
    pub(super) fn new(budget_percent: Option<f64>) -> Self {
        Self {
            interval_bytes: 1,
            smallest_bytes: u64::MAX,
            largest_bytes: 0,
            budget_percent,
            is_kept: true,
            is_refusal_reported: false,
            news: None,
        }
    }

    /// Notes a new sampling interval.
    pub(super) fn note_interval(&mut self, interval_bytes: u64) {
        self.interval_bytes = interval_bytes;
        self.smallest_bytes = self.smallest_bytes.min(interval_bytes);
        self.largest_bytes = self.largest_bytes.max(interval_bytes);
    }
}

/// The cost of a recording of this length, up to `now`.
pub(super) fn cost_of(
    meter: &CostMeter,
    log: &LevelLog,
    windows: &WindowSums,
    duration: Duration,
    hits_by_process: &HashMap<u32, u64>,
    now: Instant,
) -> Cost {
    let (traps, work) = (meter.traps(), meter.prices().work);
    let hits = meter.hits();
    let targets_ns = meter.targets_ns();
    let (inside_s, windows_s) = windows.inside_of(now);
    let spread = (windows.count() > 0).then(|| windows.variance_of_total(now));
    let slowing = spread.map(|_| windows.slowing.factor());
    let seconds = duration.as_secs_f64();
    let budget = log.budget_percent.map(|percent| BudgetBlock {
        max_overhead_percent: percent,
        kept: log.is_kept,
        sample_bytes_smallest: log.smallest_bytes,
        sample_bytes_largest: log.largest_bytes,
        sample_bytes_last: log.interval_bytes,
        probed_time_share: if seconds > 0.0 {
            rounded(((seconds - windows_s + inside_s) / seconds).clamp(0.0, 1.0))
        } else {
            1.0
        },
        windows: windows.count(),
        slowing_factor: slowing.map(|slowing| rounded(slowing.by)),
        slowing_error: slowing.map(|slowing| slowing.error),
        calls_stderr: spread.map(|variance| saturating_u64(variance.calls.sqrt())),
        bytes_stderr: spread.map(|variance| saturating_u64(variance.bytes.sqrt())),
    });
    Cost {
        hits,
        foreign_hits: hits.saturating_sub(hits_by_process.values().sum()),
        bpf_ns: saturating_u64(meter.programs_ns()),
        estimated_target_ns: saturating_u64(targets_ns),
        estimated_overhead_percent: if seconds > 0.0 {
            rounded(to_f64(saturating_u64(targets_ns)) / seconds / 1e7)
        } else {
            0.0
        },
        prices: PricesBlock {
            emulated_ns: saturating_u64(traps.emulated_ns),
            stepped_ns: saturating_u64(traps.stepped_ns),
            return_ns: saturating_u64(traps.return_ns),
            traps_measured: traps.is_measured,
            passed_ns: saturating_u64(work.passed_ns),
            followed_ns: saturating_u64(work.followed_ns),
            programs_measured: work.is_measured,
        },
        budget,
    }
}
