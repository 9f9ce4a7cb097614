//! The budget: keeps the cost of tracing for the targets within a limit, and reports that cost.
//!
//! [`plan`] computes the finest level that a budget allows, [`level`] decides on changes of the
//! level, [`windows`] estimates the whole time from windows where probes cannot be attached all the
//! time, [`meter`] adds up the cost. [`cost_meter`] reads the counters for them,
//! [`window_schedule`] attaches and detaches probes, and [`BudgetController`] drives them all from
//! the event loop.

mod cost_meter;
mod level;
pub(super) mod meter;
pub(super) mod plan;
pub(super) mod slowing;
mod window_schedule;
mod windows;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracer_ebpf::CaptureMode;

use self::cost_meter::CostMeter;
use self::level::{LevelController, LevelLog};
use self::meter::load_between;
use self::plan::{FIRST_PERIOD_S, Level, Load, Switching, Wants};
use self::window_schedule::{ProbePhase, ProbeSwitch, WindowSchedule};
use self::windows::WindowSums;
use super::attach::{AttachedUprobes, Attachments};
use super::process_table::ProcessTable;
use super::targets::StartError;
use crate::bpf::load::BpfError;
use crate::bpf::{Object, Sampling};
use crate::numeric::to_f64;
use crate::profile::cost::Cost;
use crate::recorder::cost::measure::Measuring;
use crate::settings::{Record, Sample, Target};

pub(super) use self::cost_meter::RunStatistics;
pub(crate) use self::level::Followed;

/// Limits of the first count, in which hits are counted alone before the first level is chosen.
const MAX_FIRST_COUNT: Duration = Duration::from_millis(30);
const MAX_FIRST_COUNT_HITS: f64 = 4_000.0;

/// The interval between readings of the counters while a good part of a budget is used: at a
/// million hits a second it is half of the second's budget.
const READ_INTERVAL: Duration = Duration::from_millis(5);

/// The same while less than this part of the budget is used, and without a budget. Readings are the
/// work of an idle recorder, and on a machine whose CPUs are all busy the targets pay for that too.
const CALM_PART: f64 = 0.25;
const CALM_READ_INTERVAL: Duration = Duration::from_millis(15);
const READ_INTERVAL_WITHOUT_BUDGET: Duration = Duration::from_millis(50);

/// A reading takes at most one part in so many of memtap's time: there are counters of every CPU.
const READ_PART: u32 = 50;

/// The recording's age at which the user is told that a budget cannot be kept.
const REFUSAL_AFTER: Duration = Duration::from_millis(300);

/// The budget of a recording, and the cost so far.
#[derive(Debug)]
pub(super) struct BudgetController {
    meter: CostMeter,
    /// There is none without a budget.
    levels: Option<LevelController>,
    windows: WindowSchedule,
    log: LevelLog,
    read_interval: Duration,
    /// A small part of the budget is used.
    is_calm: bool,
    started: Instant,
}

impl BudgetController {
    /// Returns the state before a recording begins.
    pub(super) fn new(settings: &Record) -> Self {
        let named = match &settings.target {
            Target::Pids(pids) if !settings.follow => pids.clone(),
            _ => Vec::new(),
        };
        Self {
            meter: CostMeter::new(settings.live, named),
            levels: None,
            windows: WindowSchedule::new(),
            log: LevelLog::new(settings.overhead_max_percent.filter(|_| settings.heap)),
            read_interval: READ_INTERVAL,
            is_calm: false,
            started: Instant::now(),
        }
    }

    /// Chooses the first level, and begins the recording. Returns the time of its begin.
    pub(super) fn begin(
        &mut self,
        object: &mut Object,
        attachments: &mut Attachments,
        processes: &ProcessTable,
        settings: &Record,
        measuring: Option<Measuring>,
    ) -> Result<Instant, StartError> {
        let attaching = attachments.attaching();
        let attaching_hits = to_f64(object.hit_counts()?.by_site.iter().sum());
        let wants = wants(settings);
        let first = match &settings.target {
            // It does not run yet.
            Target::Command(_) => Load::default(),
            _ if wants.is_none() => Load::default(),
            _ => first_count(object)?,
        };
        self.meter
            .set_prices(measuring.map(Measuring::finish), attachments.sites());
        // Detaching is taken to cost what attaching did, until more is known.
        let rate = first.hits_per_s();
        self.windows.set_switching(Switching {
            cpu_s: 2.0 * attaching.cpu_s,
            clock_s: 2.0 * attaching.clock_s,
            tail_s: if rate > 0.0 {
                2.0 * attaching_hits / rate
            } else {
                0.0
            },
        });
        self.meter.read_prices(object)?;
        let level = if let Some(wants) = wants {
            let prices = self.meter.prices();
            let levels = LevelController::new(wants, &first, &prices, self.windows.switching());
            let level = levels.level();
            log::debug!(
                "{:.0} hits a second at first: {level:?}; {prices:?}",
                first.hits_per_s()
            );
            self.levels = Some(levels);
            level
        } else {
            Level {
                interval_bytes: match settings.sample {
                    Sample::Bytes(bytes) => bytes,
                    Sample::Every | Sample::Auto => 1,
                },
                windows: None,
                keeps_budget: true,
            }
        };
        self.meter.begin(object, processes)?;
        self.started = self.meter.read_at();
        self.enter(object, attachments.uprobes_mut(), level)?;
        Ok(self.started)
    }

    /// Begins to count calls without stacks for an estimate. Returns the time of the begin.
    pub(super) fn begin_estimate(
        &mut self,
        object: &mut Object,
        attachments: &Attachments,
        processes: &ProcessTable,
        measuring: Option<Measuring>,
    ) -> Result<Instant, BpfError> {
        self.meter
            .set_prices(measuring.map(Measuring::finish), attachments.sites());
        // After the wait for prices: calls count from the begin on.
        object.set_capture_mode(CaptureMode::Unwalked)?;
        self.meter.begin(object, processes)?;
        Ok(self.meter.read_at())
    }

    /// Notes that a held command was let run: the recording begins now.
    pub(super) fn restart(&mut self, now: Instant) {
        self.started = now;
    }

    /// The time at which [`act`](Self::act) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.levels.as_ref()?;
        Some(match self.windows.phase() {
            ProbePhase::Attached if self.is_calm => return None,
            ProbePhase::Attached => self.meter.read_at() + self.read_interval,
            ProbePhase::Detached { opens } => opens,
            ProbePhase::Window { closes, .. } => closes.min(self.meter.read_at() + READ_INTERVAL),
            ProbePhase::Leaving { at } => at,
        })
    }

    /// Returns true while probes are detached for some time.
    pub(super) fn probes_are_detached(&self) -> bool {
        matches!(
            self.windows.phase(),
            ProbePhase::Detached { .. } | ProbePhase::Leaving { .. }
        )
    }

    /// Reads the counters, and opens and closes windows, as far as that is due.
    pub(super) fn act(&mut self, object: &mut Object, uprobes: &mut AttachedUprobes) {
        let mut switch = ProbeSwitch {
            object: &mut *object,
            uprobes: &mut *uprobes,
            meter: &mut self.meter,
            levels: &mut self.levels,
            log: &mut self.log,
        };
        let result = match self.windows.phase() {
            ProbePhase::Attached => self.read(object, uprobes),
            ProbePhase::Detached { .. } => self.windows.open(&mut switch),
            ProbePhase::Window { opened, closes } => self.windows.observe(&mut switch, opened, closes),
            ProbePhase::Leaving { .. } => self.leave_windows(object, uprobes),
        };
        if let Err(error) = result {
            log::warn!("{error}: the budget is not kept from here on");
            self.levels = None;
        }
    }

    /// Reads the counters if that is due, when memtap is awake anyway.
    pub(super) fn read_if_due(&mut self, object: &mut Object, uprobes: &mut AttachedUprobes) {
        let interval = match self.levels {
            Some(_) => self.read_interval,
            None => READ_INTERVAL_WITHOUT_BUDGET,
        };
        if matches!(self.windows.phase(), ProbePhase::Attached)
            && self.meter.read_at().elapsed() >= interval
            && let Err(error) = self.read(object, uprobes)
        {
            log::debug!("{error}");
        }
    }

    /// Reads the counters while probes are attached, and follows less or more if need be.
    fn read(&mut self, object: &mut Object, uprobes: &mut AttachedUprobes) -> Result<(), BpfError> {
        let interval_bytes = self.log.interval_bytes;
        let began = Instant::now();
        let seen = self.meter.take_hits(object, Some(interval_bytes))?;
        let took = began.elapsed();
        self.meter.keep_statistics(object, interval_bytes);
        let prices = self.meter.prices();
        let Some(levels) = &mut self.levels else {
            return Ok(());
        };
        self.is_calm = prices.per_second(&seen, interval_bytes) < CALM_PART * levels.budget();
        let interval = if self.is_calm {
            CALM_READ_INTERVAL
        } else {
            READ_INTERVAL
        };
        self.read_interval = interval.max(READ_PART * took);
        let before = levels.level();
        if !levels.observe(&seen, &prices, self.windows.switching()) {
            // The cost is known after a while.
            let is_known = self.started.elapsed() >= REFUSAL_AFTER;
            if !before.keeps_budget && !self.log.is_refusal_reported && is_known {
                self.log.is_refusal_reported = true;
                self.log.news = Some(self.followed());
            }
            return Ok(());
        }
        let level = levels.level();
        log::debug!("from {before:?} to {level:?}; {prices:?}");
        self.enter(object, uprobes, level)?;
        self.log.is_refusal_reported |= !level.keeps_budget;
        self.log.news = Some(self.followed());
        Ok(())
    }

    /// Begins a level while probes are attached.
    fn enter(
        &mut self,
        object: &mut Object,
        uprobes: &mut AttachedUprobes,
        level: Level,
    ) -> Result<(), BpfError> {
        self.log.is_kept &= level.keeps_budget;
        self.log.note_interval(level.interval_bytes);
        if let Some(windows) = level.windows {
            let mut switch = ProbeSwitch {
                object,
                uprobes,
                meter: &mut self.meter,
                levels: &mut self.levels,
                log: &mut self.log,
            };
            return self.windows.begin(&mut switch, windows);
        }
        object.set_sampling(Sampling {
            interval_bytes: level.interval_bytes,
            share: 1.0,
        })?;
        object.set_capture_mode(CaptureMode::All)?;
        self.windows.attached_for_good();
        Ok(())
    }

    /// Ends a phase of windows with probes that stay attached.
    fn leave_windows(&mut self, object: &mut Object, uprobes: &mut AttachedUprobes) -> Result<(), BpfError> {
        self.windows.end(object, &self.meter)?;
        if let Err(error) = uprobes.reattach(object) {
            log::debug!("{error}");
        }
        let Some(levels) = &self.levels else {
            return Ok(());
        };
        let level = levels.level();
        self.enter(object, uprobes, level)?;
        self.meter.take_hits(object, None)?;
        self.log.news = Some(self.followed());
        Ok(())
    }

    /// Ends everything before the probes are detached for good.
    pub(super) fn end(&mut self, object: &Object) -> Result<(), BpfError> {
        let is_recorded = matches!(
            self.windows.phase(),
            ProbePhase::Attached | ProbePhase::Window { .. }
        );
        let interval_bytes = self.log.interval_bytes;
        self.meter
            .take_hits(object, is_recorded.then_some(interval_bytes))?;
        self.meter.close_statistics(object, interval_bytes);
        self.windows.end(object, &self.meter)?;
        self.levels = None;
        Ok(())
    }

    /// Reads the hits that came while the probes were detached for good.
    pub(super) fn read_last(&mut self, object: &Object) -> Result<(), BpfError> {
        self.meter.take_hits(object, None).map(drop)
    }

    /// The present level.
    pub(super) fn followed(&self) -> Followed {
        let level = self.levels.as_ref().map(LevelController::level);
        Followed {
            interval_bytes: self.log.interval_bytes,
            share: self.windows.share(),
            over_budget_percent: level
                .filter(|level| !level.keeps_budget)
                .map(|_| self.meter.recent_percent()),
        }
    }

    /// Takes the new level that the user is to be told, if there is one.
    pub(super) fn take_news(&mut self) -> Option<Followed> {
        self.log.news.take()
    }

    /// Time that the targets have lost since the last call, in percent of a CPU.
    pub(super) fn report_percent(&mut self) -> f64 {
        self.meter.report_percent()
    }

    /// The cost of a recording of this length, up to `now`.
    pub(super) fn cost(&self, duration: Duration, hits_by_process: &HashMap<u32, u64>, now: Instant) -> Cost {
        self.meter
            .cost(&self.log, self.windows.sums(), duration, hits_by_process, now)
    }

    /// The readings of the counters.
    pub(super) fn meter(&self) -> &CostMeter {
        &self.meter
    }

    /// The same, to learn from others.
    pub(super) fn meter_mut(&mut self) -> &mut CostMeter {
        &mut self.meter
    }

    /// Estimates of the whole time from windows.
    pub(super) fn window_sums(&self) -> &WindowSums {
        self.windows.sums()
    }
}

/// The budget that the settings ask for.
fn wants(settings: &Record) -> Option<Wants> {
    let percent = settings.overhead_max_percent.filter(|_| settings.heap)?;
    Some(Wants {
        budget: percent / 100.0,
        interval_bytes: match settings.sample {
            Sample::Every => Some(1),
            Sample::Bytes(bytes) => Some(bytes),
            Sample::Auto => None,
        },
        may_pause: !settings.live,
        period_s: FIRST_PERIOD_S,
    })
}

/// Counts hits for a moment, without recording them. Traps are measured meanwhile.
fn first_count(object: &Object) -> Result<Load, BpfError> {
    let before = object.hit_counts()?;
    let began = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(1));
        let now = object.hit_counts()?;
        let seen = load_between(&before, &now, began.elapsed().as_secs_f64());
        if began.elapsed() >= MAX_FIRST_COUNT || seen.hits >= MAX_FIRST_COUNT_HITS {
            return Ok(seen);
        }
    }
}
