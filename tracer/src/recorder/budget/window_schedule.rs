//! Windows: probes are attached and detached.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use tracer_ebpf::{CaptureMode, Function, SumKey};

use super::cost_meter::CostMeter;
use super::level::{LevelController, LevelLog};
use super::plan::{Load, Switching, Windows};
use super::windows::{CallsAndBytes, Dice, WindowSums};
use crate::bpf::load::BpfError;
use crate::bpf::{Object, Sampling, sums};
use crate::clock::{WorkPace, WorkTime};
use crate::numeric::to_f64;
use crate::recorder::attach::AttachedUprobes;

/// The weight of a new figure of the cost of switching in the mean that is kept.
const NEW_PART: f64 = 0.3;

/// The state of the probes.
#[derive(Debug, Clone, Copy)]
pub(super) enum ProbePhase {
    /// They are attached.
    Attached,
    /// They are detached until a window opens.
    Detached { opens: Instant },
    /// They are attached for a window.
    Window { opened: Instant, closes: Instant },
    /// They are detached; at the end of the period they are attached for good.
    Leaving { at: Instant },
}

/// The parts of a recorder that switching probes works on.
pub(super) struct ProbeSwitch<'a> {
    pub(super) object: &'a mut Object,
    pub(super) uprobes: &'a mut AttachedUprobes,
    pub(super) meter: &'a mut CostMeter,
    pub(super) levels: &'a mut Option<LevelController>,
    pub(super) log: &'a mut LevelLog,
}

/// The windows of a recording.
#[derive(Debug)]
pub(super) struct WindowSchedule {
    phase: ProbePhase,
    /// Estimates of the whole time.
    sums: WindowSums,
    /// The current period, and its begin.
    period: Option<(Instant, Windows)>,
    /// The cost of attaching and detaching once.
    switching: Switching,
    /// Hits in the open window.
    seen: Load,
    /// Hits while its probes were attached.
    around: f64,
    dice: Dice,
    pace: WorkPace,
}

impl WindowSchedule {
    /// Returns the state before the first window: probes are attached.
    pub(super) fn new() -> Self {
        Self {
            phase: ProbePhase::Attached,
            sums: WindowSums::default(),
            period: None,
            switching: Switching {
                cpu_s: 0.0,
                clock_s: 0.0,
                tail_s: 0.0,
            },
            seen: Load::default(),
            around: 0.0,
            dice: Dice::new(RandomState::new().build_hasher().finish()),
            pace: WorkPace::default(),
        }
    }

    /// The state of the probes.
    pub(super) fn phase(&self) -> ProbePhase {
        self.phase
    }

    /// Estimates of the whole time.
    pub(super) fn sums(&self) -> &WindowSums {
        &self.sums
    }

    /// The cost of attaching and detaching once.
    pub(super) fn switching(&self) -> &Switching {
        &self.switching
    }

    /// Sets that cost.
    pub(super) fn set_switching(&mut self, switching: Switching) {
        self.switching = switching;
    }

    /// The share of time in which probes are attached.
    pub(super) fn share(&self) -> f64 {
        self.period.map_or(1.0, |(_, windows)| windows.share())
    }

    /// Notes that probes are attached all the time.
    pub(super) fn attached_for_good(&mut self) {
        self.phase = ProbePhase::Attached;
        self.period = None;
    }

    /// Begins windows while probes are attached.
    pub(super) fn begin(&mut self, to: &mut ProbeSwitch<'_>, windows: Windows) -> Result<(), BpfError> {
        to.meter.close_statistics(to.object, to.log.interval_bytes);
        to.object.set_capture_mode(CaptureMode::Regions)?;
        self.detach(to)?;
        self.sums.begin_phase(amounts(to.object)?);
        self.sums.slowing.begin(to.meter.reading());
        self.begin_period(to, Instant::now(), windows)
    }

    /// Begins a period while probes are detached.
    fn begin_period(
        &mut self,
        to: &mut ProbeSwitch<'_>,
        begins: Instant,
        windows: Windows,
    ) -> Result<(), BpfError> {
        let period = Duration::from_secs_f64(windows.period_s);
        let opens = begins + period.mul_f64(self.dice.roll());
        self.sums.begin_period(begins, period, windows.share());
        self.period = Some((begins, windows));
        self.phase = ProbePhase::Detached { opens };
        to.object.set_sampling(Sampling {
            interval_bytes: to.log.interval_bytes,
            share: windows.share(),
        })
    }

    fn detach(&mut self, to: &mut ProbeSwitch<'_>) -> Result<(), BpfError> {
        let ((), time) = WorkTime::of(|| to.uprobes.detach());
        let around = to.meter.take_hits(to.object, None)?;
        self.note_switching(time, &around, to.levels.as_ref());
        Ok(())
    }

    /// Learns from one way of switching, which is half of it.
    fn note_switching(&mut self, time: WorkTime, around: &Load, levels: Option<&LevelController>) {
        let switching = &mut self.switching;
        switching.cpu_s += NEW_PART * (2.0 * time.cpu_s - switching.cpu_s);
        switching.clock_s += NEW_PART * (2.0 * time.clock_s - switching.clock_s);
        let rate = levels.and_then(LevelController::last_rate);
        if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
            switching.tail_s += NEW_PART * (2.0 * around.hits / rate - switching.tail_s);
        }
    }

    /// Opens the window of the current period.
    pub(super) fn open(&mut self, to: &mut ProbeSwitch<'_>) -> Result<(), BpfError> {
        let Some((_, windows)) = self.period else {
            return Ok(());
        };
        to.meter.open_clocks();
        to.meter.take_hits(to.object, None)?;
        let (reattached, time) = WorkTime::of(|| to.uprobes.reattach(to.object));
        if let Err(error) = reattached {
            // Most often the process has ended, which the event loop is about to notice.
            log::debug!("{error}");
        }
        to.meter.open_statistics(to.object);
        // Last: hits up to here are no part of what the window costs.
        let around = to.meter.take_hits(to.object, None)?;
        self.note_switching(time, &around, to.levels.as_ref());
        self.sums.slowing.open(to.meter.open_window_reading());
        to.object.set_capture_mode(CaptureMode::All)?;
        let opened = Instant::now();
        to.meter.restart(opened);
        self.phase = ProbePhase::Window {
            opened,
            closes: opened + Duration::from_secs_f64(windows.length_s),
        };
        self.seen = Load::default();
        self.around = around.hits;
        Ok(())
    }

    /// Reads the counters in an open window. Closes the window when it is over, or costs too much.
    pub(super) fn observe(
        &mut self,
        to: &mut ProbeSwitch<'_>,
        opened: Instant,
        closes: Instant,
    ) -> Result<(), BpfError> {
        let interval_bytes = to.log.interval_bytes;
        let mut ended = None;
        if Instant::now() >= closes {
            to.object.set_capture_mode(CaptureMode::Regions)?;
            ended = Some(Instant::now());
        }
        let seen = to.meter.take_hits(to.object, Some(interval_bytes))?;
        self.seen.add(&seen);
        let prices = to.meter.prices();
        let Some(levels) = to.levels else {
            return Ok(());
        };
        let cost = self.seen.hits * prices.hit_s(&self.seen, interval_bytes);
        let ended = match ended {
            Some(ended) => ended,
            None if cost <= levels.window_limit_s() => return Ok(()),
            None => {
                to.object.set_capture_mode(CaptureMode::Regions)?;
                Instant::now()
            }
        };
        let actual_s = ended.saturating_duration_since(opened).as_secs_f64();
        let (in_window, now) = (to.meter.close_window_reading(), to.meter.reading());
        self.sums.slowing.close(in_window, now);
        to.meter.close_statistics(to.object, interval_bytes);
        self.detach(to)?;
        let share = to.meter.take_trap_share(to.uprobes);
        self.sums.slowing.add_trap_share(share);
        self.next_period(to, actual_s)
    }

    /// Schedules the next window after one that lasted `actual_s`; probes are detached.
    fn next_period(&mut self, to: &mut ProbeSwitch<'_>, actual_s: f64) -> Result<(), BpfError> {
        let Some((begins, planned)) = self.period else {
            return Ok(());
        };
        self.sums.close(planned.length_s, actual_s);
        if self.pace.is_due() {
            let began = Instant::now();
            self.sums.add_windows(amounts(to.object)?);
            self.pace.note_run(began);
        }
        let prices = to.meter.prices();
        let Some(levels) = to.levels else {
            return Ok(());
        };
        levels.observe_window(
            &self.seen,
            self.around,
            planned.period_s,
            &prices,
            &self.switching,
        );
        let level = levels.level();
        log::debug!(
            "a window of {actual_s:.4} s with {} hits, {} around it: {level:?}; {:?}; {prices:?}",
            self.seen.hits,
            self.around,
            self.switching
        );
        let ends = begins + Duration::from_secs_f64(planned.period_s);
        if let Some(next) = level.windows {
            to.log.note_interval(level.interval_bytes);
            return self.begin_period(to, ends, next);
        }
        self.phase = ProbePhase::Leaving { at: ends };
        Ok(())
    }

    /// Ends windows, of which the last may be open. Does nothing where there are none.
    pub(super) fn end(&mut self, object: &Object, meter: &CostMeter) -> Result<(), BpfError> {
        let Some((_, windows)) = self.period else {
            return Ok(());
        };
        if let ProbePhase::Window { opened, .. } = self.phase {
            // The recording's end has cut it, not its cost: it stands for itself.
            let actual_s = opened.elapsed().as_secs_f64().min(windows.length_s);
            self.sums.close(actual_s, actual_s);
        }
        if self.sums.is_waiting() {
            self.sums.add_windows(amounts(object)?);
        }
        self.sums.end_phase(Instant::now());
        self.sums.slowing.end(meter.reading());
        self.period = None;
        Ok(())
    }
}

/// The present sums of calls to allocators.
fn amounts(object: &Object) -> Result<Vec<(SumKey, CallsAndBytes)>, BpfError> {
    let is_heap = |key: &SumKey| Function::from_number(key.function).is_some_and(Function::is_heap);
    let sums = sums::read(object)?.into_iter().filter(|(key, _)| is_heap(key));
    let amounts = sums.map(|(key, sum)| {
        let amount = CallsAndBytes {
            calls: to_f64(sum.calls),
            bytes: to_f64(sum.bytes),
        };
        (key, amount)
    });
    Ok(amounts.collect())
}
