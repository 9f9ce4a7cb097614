//! What a recording has cost, for reports.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::bpf::load::BpfError;
use crate::cost::{float, whole};
use crate::recorder::recorder::Recorder;
use crate::report::session::{BudgetBlock, Cost, PricesBlock, rounded};

impl Recorder {
    /// Hits of probes since the recording began, by the number of the process image.
    pub(crate) fn hits_by_process(&self) -> Result<HashMap<u32, u64>, BpfError> {
        let mut hits: HashMap<u32, u64> = self.processes.hits().collect();
        for (_, process) in self.object.listed_processes()? {
            *hits.entry(process.number).or_default() += process.hits;
        }
        for (number, counted) in self.object.counted_by_process()? {
            *hits.entry(number).or_default() += counted.hits;
        }
        for (number, before) in &self.control.hits_before {
            if let Some(hits) = hits.get_mut(number) {
                *hits = hits.saturating_sub(*before);
            }
        }
        Ok(hits)
    }

    /// What it has cost.
    pub(crate) fn cost(&self, duration: Duration, by_process: &HashMap<u32, u64>) -> Option<Cost> {
        if !self.heap {
            return None;
        }
        let control = &self.control;
        let (traps, work) = (control.meter.traps, control.meter.prices().work);
        let hits = control.meter.hits();
        let targets_ns = control.meter.targets_ns();
        let now = self.ended.unwrap_or_else(Instant::now);
        let (inside_s, windows_s) = control.windows.inside_of(now);
        let spread = (control.windows.count() > 0).then(|| control.windows.variance_of_total(now));
        let slowing = spread.map(|_| control.windows.slowing.factor());
        let seconds = duration.as_secs_f64();
        let budget = control.budget_percent.map(|percent| BudgetBlock {
            max_overhead_percent: percent,
            kept: control.is_kept,
            sample_bytes_smallest: control.history.smallest_bytes,
            sample_bytes_largest: control.history.largest_bytes,
            sample_bytes_last: control.interval_bytes,
            probed_time_share: if seconds > 0.0 {
                rounded(((seconds - windows_s + inside_s) / seconds).clamp(0.0, 1.0))
            } else {
                1.0
            },
            windows: control.windows.count(),
            slowing_factor: slowing.map(|slowing| rounded(slowing.by)),
            slowing_error: slowing.map(|slowing| slowing.error),
            calls_stderr: spread.map(|variance| whole(variance.calls.sqrt())),
            bytes_stderr: spread.map(|variance| whole(variance.bytes.sqrt())),
        });
        Some(Cost {
            hits,
            foreign_hits: hits.saturating_sub(by_process.values().sum()),
            bpf_ns: whole(control.meter.programs_ns()),
            estimated_target_ns: whole(targets_ns),
            estimated_overhead_percent: if seconds > 0.0 {
                rounded(float(whole(targets_ns)) / seconds / 1e7)
            } else {
                0.0
            },
            prices: PricesBlock {
                emulated_ns: whole(traps.emulated_ns),
                stepped_ns: whole(traps.stepped_ns),
                return_ns: whole(traps.return_ns),
                traps_measured: traps.is_measured,
                passed_ns: whole(work.passed_ns),
                followed_ns: whole(work.followed_ns),
                programs_measured: work.is_measured,
            },
            budget,
        })
    }
}
