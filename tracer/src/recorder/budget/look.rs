//! Reading the counters: how often, and what follows from them while probes are in.

use std::time::{Duration, Instant};

use super::control::{Control, State};
use super::plan::Load;
use crate::bpf::load::BpfError;
use crate::recorder::recorder::Recorder;

/// How often the counters are read where there is a budget and it is used: at a million hits a second that is half of the
/// second's budget.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The same while less than this part of it is used, and where there is none. Looking is what an idle recorder does, and on
/// a machine whose CPUs are all busy the targets pay for that too.
const LITTLE_PART: f64 = 0.25;
const LOOK_CALMLY: Duration = Duration::from_millis(15);
const LOOK_WITHOUT_BUDGET: Duration = Duration::from_millis(50);

/// Looking takes one part in so many of our time at the most: there are counters of every CPU.
const LOOK_PART: u32 = 50;

/// When it is said that a budget cannot be kept.
const REFUSAL_AFTER: Duration = Duration::from_millis(300);

impl Control {
    /// Whether the counters are to be read when something else is done anyway.
    pub(crate) fn may_look(&self) -> bool {
        let every = match self.controller {
            Some(_) => self.look_every,
            None => LOOK_WITHOUT_BUDGET,
        };
        matches!(self.state, State::In) && self.looked.elapsed() >= every
    }
}

impl Recorder {
    /// Reads the counters. Probes are in.
    pub(crate) fn look(&mut self) -> Result<(), BpfError> {
        let interval_bytes = self.control.interval_bytes;
        let began = Instant::now();
        let seen = self.take_hits(Some(interval_bytes))?;
        let took = began.elapsed();
        self.keep_statistics();
        let control = &mut self.control;
        let prices = control.meter.prices();
        let Some(controller) = &mut control.controller else {
            return Ok(());
        };
        let is_calm = prices.per_second(&seen, interval_bytes) < LITTLE_PART * controller.budget();
        let every = if is_calm { LOOK_CALMLY } else { LOOK_EVERY };
        control.is_calm = is_calm;
        control.look_every = every.max(LOOK_PART * took);
        let before = controller.level();
        if !controller.observe(&seen, &prices, &control.switching) {
            // After a while it can be said what it costs.
            let is_known = self.started.elapsed() >= REFUSAL_AFTER;
            if !before.keeps_budget && !control.is_refusal_told && is_known {
                control.is_refusal_told = true;
                control.news = Some(control.followed());
            }
            return Ok(());
        }
        let level = controller.level();
        log::debug!("from {before:?} to {level:?}; {prices:?}");
        self.enter(level)?;
        self.control.is_refusal_told |= !level.keeps_budget;
        self.control.news = Some(self.control.followed());
        Ok(())
    }

    /// Takes what was hit since the last time.
    pub(super) fn take_hits(&mut self, interval_bytes: Option<u64>) -> Result<Load, BpfError> {
        let counts = self.object.hit_counts()?;
        let now = Instant::now();
        let seconds = (now - self.control.looked).as_secs_f64();
        self.control.looked = now;
        let load = self.control.meter.take(&counts, seconds, interval_bytes);
        if interval_bytes.is_some() && self.control.statistics.is_open() {
            self.control.ran.add(&load);
        }
        Ok(load)
    }

    /// Begins and ends phases of statistics. The counters have just been read.
    fn keep_statistics(&mut self) {
        if self.control.statistics.is_over() {
            self.close_statistics();
        } else if self.control.statistics.is_due() {
            self.control.statistics.open(&self.object);
        }
    }

    pub(super) fn close_statistics(&mut self) {
        if let Some(runs) = self.control.statistics.close(&self.object) {
            let ran = std::mem::take(&mut self.control.ran);
            let interval_bytes = self.control.interval_bytes;
            self.control.meter.learn(runs, &ran, interval_bytes);
        }
    }
}
