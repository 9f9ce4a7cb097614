//! Windows: probes go in and out.

use std::time::{Duration, Instant};

use tracer_ebpf::{Function, SumKey, intake};

use super::control::State;
use super::plan::{Load, Windows};
use super::took::Took;
use super::windows::Amount;
use crate::bpf::Sampling;
use crate::bpf::load::BpfError;
use crate::cost::to_f64;
use crate::recorder::recorder::Recorder;

/// Of a new figure of how long switching takes so much goes into the one that is kept.
const NEW_PART: f64 = 0.3;

impl Recorder {
    /// Begins a period; probes are out.
    pub(super) fn begin_period(&mut self, begins: Instant, windows: Windows) -> Result<(), BpfError> {
        let period = Duration::from_secs_f64(windows.period_s);
        let opens = begins + period.mul_f64(self.control.dice.roll());
        self.control.windows.begin_period(begins, period, windows.share());
        self.control.period = Some((begins, windows));
        self.control.state = State::Out { opens };
        self.object.set_sampling(Sampling {
            interval_bytes: self.control.interval_bytes,
            share: windows.share(),
        })
    }

    pub(super) fn take_off(&mut self) -> Result<(), BpfError> {
        let ((), took) = Took::by(|| self.probes.take_off());
        let around = self.take_hits(None)?;
        self.note_switching(took, &around);
        Ok(())
    }

    /// Part of what switching takes: half of it, one way.
    fn note_switching(&mut self, took: Took, around: &Load) {
        let switching = &mut self.control.switching;
        switching.own_s += NEW_PART * (2.0 * took.own_s - switching.own_s);
        switching.clock_s += NEW_PART * (2.0 * took.clock_s - switching.clock_s);
        let Some(controller) = &self.control.controller else {
            return;
        };
        if let Some(rate) = controller.last_rate()
            && rate > 0.0
        {
            switching.tail_s += NEW_PART * (2.0 * around.hits / rate - switching.tail_s);
        }
    }

    pub(super) fn open_window(&mut self) -> Result<(), BpfError> {
        let Some((_, windows)) = self.control.period else {
            return Ok(());
        };
        self.take_hits(None)?;
        let (put, took) = Took::by(|| self.probes.put_back(&mut self.object));
        if let Err(error) = put {
            // Most often the process has ended, which the event loop is about to notice.
            log::debug!("{error}");
        }
        let around = self.take_hits(None)?;
        self.note_switching(took, &around);
        if self.control.statistics.is_due() {
            self.control.statistics.open(&self.object);
        }
        let reading = self.control.first_reading();
        self.control.windows.slowing.open(reading);
        self.object.set_intake(intake::ALL)?;
        let opened = Instant::now();
        self.control.looked = opened;
        self.control.state = State::Window {
            opened,
            closes: opened + Duration::from_secs_f64(windows.length_s),
        };
        self.control.in_window = Load::default();
        self.control.around = around.hits;
        Ok(())
    }

    /// Looks at an open window; closes it when it is over, or costs too much.
    pub(super) fn see_window(&mut self, opened: Instant, closes: Instant) -> Result<(), BpfError> {
        let interval_bytes = self.control.interval_bytes;
        let is_over = Instant::now() >= closes;
        if is_over {
            self.object.set_intake(intake::REGIONS)?;
        }
        let seen = self.take_hits(Some(interval_bytes))?;
        self.control.in_window.add(&seen);
        let prices = self.control.meter.prices();
        let Some(controller) = &self.control.controller else {
            return Ok(());
        };
        let cost = self.control.in_window.hits * prices.hit_s(&self.control.in_window, interval_bytes);
        if !is_over {
            if cost <= controller.window_limit_s() {
                return Ok(());
            }
            self.object.set_intake(intake::REGIONS)?;
        }
        let actual_s = opened.elapsed().as_secs_f64();
        let (in_window, now) = (self.control.last_reading(), self.control.reading());
        self.control.windows.slowing.close(in_window, now);
        self.close_statistics();
        self.take_off()?;
        self.next_period(actual_s)
    }

    /// A window is closed, and probes are out: says when the next one opens.
    fn next_period(&mut self, actual_s: f64) -> Result<(), BpfError> {
        let Some((begins, windows)) = self.control.period else {
            return Ok(());
        };
        self.control.windows.close(windows.length_s, actual_s);
        if self.control.pace.is_due() {
            let began = Instant::now();
            let sums = self.amounts()?;
            self.control.windows.look(sums);
            self.control.pace.done(began);
        }
        let control = &mut self.control;
        let prices = control.meter.prices();
        let seen = control.in_window;
        let Some(controller) = &mut control.controller else {
            return Ok(());
        };
        controller.observe_window(
            &seen,
            control.around,
            windows.period_s,
            &prices,
            &control.switching,
        );
        let level = controller.level();
        log::debug!(
            "a window of {actual_s:.4} s with {} hits, {} around it: {level:?}; {:?}; {prices:?}",
            seen.hits,
            control.around,
            control.switching
        );
        let ends = begins + Duration::from_secs_f64(windows.period_s);
        if let Some(next) = level.windows {
            self.control.note_interval(level.interval_bytes);
            return self.begin_period(ends, next);
        }
        self.control.state = State::Leaving { at: ends };
        Ok(())
    }

    pub(super) fn leave_windows(&mut self) -> Result<(), BpfError> {
        self.end_windows()?;
        if let Err(error) = self.probes.put_back(&mut self.object) {
            log::debug!("{error}");
        }
        let Some(controller) = &self.control.controller else {
            return Ok(());
        };
        let level = controller.level();
        self.enter(level)?;
        self.take_hits(None)?;
        self.control.news = Some(self.control.followed());
        Ok(())
    }

    /// Ends a phase of windows: the last one may be open.
    pub(crate) fn end_windows(&mut self) -> Result<(), BpfError> {
        if let (State::Window { opened, .. }, Some((_, windows))) = (self.control.state, self.control.period)
        {
            // Cut by the end, not by what it cost: it stands for itself.
            let actual_s = opened.elapsed().as_secs_f64().min(windows.length_s);
            self.control.windows.close(actual_s, actual_s);
        }
        if self.control.windows.is_waiting() {
            let sums = self.amounts()?;
            self.control.windows.look(sums);
        }
        self.control.windows.end_phase(Instant::now());
        let reading = self.control.reading();
        self.control.windows.slowing.end(reading);
        self.control.period = None;
        Ok(())
    }

    /// The sums of calls to allocators, as they are.
    pub(super) fn amounts(&self) -> Result<Vec<(SumKey, Amount)>, BpfError> {
        let sums = self.object.sums()?;
        let is_heap = |key: &SumKey| Function::from_number(key.function).is_some_and(Function::is_heap);
        let amounts = sums
            .into_iter()
            .filter(|(key, _)| is_heap(key))
            .map(|(key, sum)| {
                let amount = Amount {
                    calls: to_f64(sum.calls),
                    bytes: to_f64(sum.bytes),
                };
                (key, amount)
            });
        Ok(amounts.collect())
    }
}
