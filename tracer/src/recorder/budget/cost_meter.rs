//! Readings of the kernel's counters during a recording: hits, run time of the programs, CPU time
//! of the targets.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::level::LevelLog;
use super::meter::Meter;
use super::plan::{Load, Prices};
use super::slowing::Reading;
use super::windows::WindowSums;
use crate::bpf::Object;
use crate::bpf::load::BpfError;
use crate::bpf::run_stats::{RunStats, Runs};
use crate::numeric::{rounded, saturating_u64, to_f64};
use crate::process::task_clocks::{SAMPLE_COST, TaskClocks, TaskSample};
use crate::profile::cost::{BudgetBlock, Cost, PricesBlock};
use crate::recorder::attach::AttachedUprobes;
use crate::recorder::cost::measure::Measured;
use crate::recorder::cost::trap_share::TrapShare;
use crate::recorder::cost::{SiteKind, Traps};
use crate::recorder::process_table::ProcessTable;

/// The length of a phase in which the kernel keeps statistics of the programs, and the shortest and
/// longest time from one phase to the next. The programs' run time changes little, and every CPU is
/// interrupted when the kernel begins to keep statistics, and when it ends.
const PHASE: Duration = Duration::from_millis(50);
const MIN_PHASE_INTERVAL: Duration = Duration::from_secs(1);
const MAX_PHASE_INTERVAL: Duration = Duration::from_secs(10);

/// Phases in which the kernel keeps statistics of the programs: short ones, since that costs the
/// targets too.
#[derive(Debug, Default)]
pub(crate) struct RunStatistics {
    open: Option<(RunStats, Runs)>,
    began: Option<Instant>,
    phases: u32,
    /// The kernel keeps none (before Linux 5.8).
    is_refused: bool,
}

impl RunStatistics {
    /// Returns true during a phase.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    fn is_due(&self) -> bool {
        let interval =
            (MIN_PHASE_INTERVAL * self.phases.div_ceil(4)).clamp(MIN_PHASE_INTERVAL, MAX_PHASE_INTERVAL);
        !self.is_refused && self.open.is_none() && self.began.is_none_or(|began| began.elapsed() >= interval)
    }

    fn is_over(&self) -> bool {
        self.open.is_some() && self.began.is_some_and(|began| began.elapsed() >= PHASE)
    }

    /// Begins a phase.
    pub(crate) fn open(&mut self, object: &Object) {
        match RunStats::enable() {
            Ok(stats) => {
                self.open = Some((stats, Runs::read(object)));
                self.began = Some(Instant::now());
                self.phases += 1;
            }
            Err(error) => {
                log::debug!("what the programs take is assumed: {error}");
                self.is_refused = true;
            }
        }
    }

    /// Ends the phase. Returns the programs' runs in it.
    pub(crate) fn close(&mut self, object: &Object) -> Option<Runs> {
        let (stats, before) = self.open.take()?;
        let runs = Runs::read(object).since(before);
        drop(stats);
        Some(runs)
    }
}

/// The cost of a recording so far, by the counters.
#[derive(Debug)]
pub(crate) struct CostMeter {
    meter: Meter,
    statistics: RunStatistics,
    /// Hits in the phase of statistics.
    ran: Load,
    /// The time of the last reading.
    read_at: Instant,
    /// Hits before the recording began, by the number of the process image.
    hits_before: HashMap<u32, u64>,
    /// The named processes, if those are all targets.
    named: Vec<u32>,
    /// Their clocks, while a window is open; and what these sampled in the last window.
    clocks: Option<TaskClocks>,
    samples: Vec<TaskSample>,
    /// The number of all samples.
    sampled: u64,
    /// The time and the cost, in nanoseconds, of the last progress report.
    reported: (Instant, f64),
}

impl CostMeter {
    /// Returns a meter with assumed prices. `named`: the targets, if all are known.
    pub(super) fn new(live: bool, named: Vec<u32>) -> Self {
        let now = Instant::now();
        Self {
            meter: Meter::new(live),
            statistics: RunStatistics::default(),
            ran: Load::default(),
            read_at: now,
            hits_before: HashMap::new(),
            named,
            clocks: None,
            samples: Vec::new(),
            sampled: 0,
            reported: (now, 0.0),
        }
    }

    /// Takes in the calibration, and the kinds of the probes.
    pub(super) fn set_prices(&mut self, calibrated: Option<Measured>, sites: &[SiteKind]) {
        match calibrated {
            Some(Ok(traps)) => self.meter.traps = traps,
            Some(Err(error)) => log::debug!("{error}: what hits of probes cost is assumed"),
            None => {}
        }
        self.meter.know_sites(sites);
    }

    /// Reads the counters before the recording begins, so that prices are those of the probes that
    /// are hit.
    pub(super) fn read_prices(&mut self, object: &Object) -> Result<(), BpfError> {
        self.meter.take(&*object.hit_counts()?, 0.0, None);
        Ok(())
    }

    /// Begins to count.
    pub(super) fn begin(&mut self, object: &Object, processes: &ProcessTable) -> Result<(), BpfError> {
        self.meter.begin(&*object.hit_counts()?);
        self.hits_before = processes.hits(object)?;
        self.read_at = Instant::now();
        self.reported = (self.read_at, 0.0);
        Ok(())
    }

    /// Sets the time of the last reading.
    pub(super) fn restart(&mut self, now: Instant) {
        self.read_at = now;
    }

    /// The time of the last reading.
    pub(super) fn read_at(&self) -> Instant {
        self.read_at
    }

    /// Reads the hits since the last time; `interval_bytes` while they are recorded.
    pub(super) fn take_hits(
        &mut self,
        object: &Object,
        interval_bytes: Option<u64>,
    ) -> Result<Load, BpfError> {
        let counts = object.hit_counts()?;
        let now = Instant::now();
        let seconds = (now - self.read_at).as_secs_f64();
        self.read_at = now;
        let load = self.meter.take(&counts, seconds, interval_bytes);
        if interval_bytes.is_some() && self.statistics.is_open() {
            self.ran.add(&load);
        }
        Ok(load)
    }

    /// Begins and ends phases of statistics. Must follow a reading.
    pub(super) fn keep_statistics(&mut self, object: &Object, interval_bytes: u64) {
        if self.statistics.is_over() {
            self.close_statistics(object, interval_bytes);
        } else {
            self.open_statistics(object);
        }
    }

    /// Begins a phase of statistics if one is due.
    pub(super) fn open_statistics(&mut self, object: &Object) {
        if self.statistics.is_due() {
            self.statistics.open(object);
        }
    }

    /// Ends the phase of statistics, if there is one, and learns from it.
    pub(super) fn close_statistics(&mut self, object: &Object, interval_bytes: u64) {
        if let Some(runs) = self.statistics.close(object) {
            let ran = std::mem::take(&mut self.ran);
            self.meter.learn(runs, &ran, interval_bytes);
        }
    }

    /// Learns from a phase of statistics in which every allocation was followed.
    pub(crate) fn learn(&mut self, runs: Runs, load: &Load) {
        self.meter.learn(runs, load, 1);
    }

    /// The cost of a hit.
    pub(crate) fn prices(&self) -> Prices {
        self.meter.prices()
    }

    /// The cost of traps.
    pub(crate) fn traps(&self) -> Traps {
        self.meter.traps
    }

    /// Hits since the recording began.
    pub(super) fn hits(&self) -> u64 {
        self.meter.hits()
    }

    /// Hits since the recording began, by the number of the process image.
    pub(crate) fn hits_by_process(
        &self,
        object: &Object,
        processes: &ProcessTable,
    ) -> Result<HashMap<u32, u64>, BpfError> {
        let mut hits = processes.hits(object)?;
        for (number, before) in &self.hits_before {
            if let Some(hits) = hits.get_mut(number) {
                *hits = hits.saturating_sub(*before);
            }
        }
        Ok(hits)
    }

    /// Time in the programs since the recording began, in nanoseconds.
    pub(super) fn programs_ns(&self) -> f64 {
        self.meter.programs_ns()
    }

    /// Time that the targets have lost since the recording began, in nanoseconds.
    pub(super) fn targets_ns(&self) -> f64 {
        self.meter.targets_ns() + to_f64(self.sampled) * SAMPLE_COST.as_secs_f64() * 1e9
    }

    /// Time that the targets have lost since the last progress report, in percent of a CPU.
    pub(super) fn recent_percent(&self) -> f64 {
        let (at, before) = self.reported;
        let seconds = at.elapsed().as_secs_f64().max(1e-3);
        // The sum falls where a hit turns out to cost less than was taken for it before.
        (self.meter.targets_ns() - before).max(0.0) / seconds / 1e7
    }

    /// The same, for a progress report.
    pub(super) fn report_percent(&mut self) -> f64 {
        let percent = self.recent_percent();
        self.reported = (Instant::now(), self.meter.targets_ns());
        percent
    }

    /// The cost of a recording of this length, up to `now`.
    pub(super) fn cost(
        &self,
        log: &LevelLog,
        windows: &WindowSums,
        duration: Duration,
        hits_by_process: &HashMap<u32, u64>,
        now: Instant,
    ) -> Cost {
        let (traps, work) = (self.traps(), self.prices().work);
        let hits = self.hits();
        let targets_ns = self.targets_ns();
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
            bpf_ns: saturating_u64(self.programs_ns()),
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

    /// The CPU time that the targets have used, if all are named. Must follow a reading of the
    /// counters.
    pub(super) fn reading(&self) -> Option<Reading> {
        Reading::of(&self.named, self.meter.targets_ns())
    }

    /// Opens clocks of the targets for a window, while its probes are not attached: that may take
    /// milliseconds.
    pub(super) fn open_clocks(&mut self) {
        self.clocks = TaskClocks::open(&self.named);
    }

    /// The same when a window opens, by clocks that start now. Must follow a reading of the
    /// counters.
    pub(super) fn open_window_reading(&mut self) -> Option<Reading> {
        if let Some(Err(error)) = self.clocks.as_ref().map(TaskClocks::start) {
            log::debug!("the task clocks do not start: {error}");
            self.clocks = None;
        }
        self.window_reading()
    }

    /// The same when the window closes.
    pub(super) fn close_window_reading(&mut self) -> Option<Reading> {
        let reading = self.window_reading();
        if let Some(clocks) = self.clocks.take() {
            self.samples = clocks.samples();
            self.sampled += self.samples.len() as u64;
        }
        reading
    }

    /// Takes the share of traps in the targets' time in the window that was closed last.
    pub(super) fn take_trap_share(&mut self, uprobes: &AttachedUprobes) -> TrapShare {
        let samples = std::mem::take(&mut self.samples);
        if samples.is_empty() {
            return TrapShare::default();
        }
        let code = self.named.iter().filter_map(|pid| {
            let code = uprobes.trap_code(*pid);
            code.inspect_err(|error| log::debug!("the mappings of {pid}: {error}"))
                .ok()
                .map(|code| (*pid, code))
        });
        TrapShare::of(&samples, &code.collect())
    }

    fn window_reading(&self) -> Option<Reading> {
        match &self.clocks {
            Some(clocks) => Reading::by(clocks, self.meter.targets_ns()),
            None => self.reading(),
        }
    }
}
