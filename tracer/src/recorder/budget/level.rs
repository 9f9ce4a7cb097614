//! Decisions on the level that is followed, by the load that was seen.
//!
//! The cost is paid from a token bucket that fills at the rate of the budget and holds a second of
//! it. When it is empty, less is followed, the sooner the more the budget is exceeded. When more
//! could have been followed for some seconds, more is. If that soon turns out to be too much, the
//! next attempt waits longer.
use std::collections::VecDeque;

use super::plan::{LATER_PERIOD_S, Level, Load, Prices, Switching, Wants, plan, plan_windows};

/// The part of the budget that a plan may cost. Loads vary, and the programs leave less of the
/// caches to the target: under load redis-server lost a fifth more than the time of traps and
/// programs.
const PLANNED_PART: f64 = 0.7;

/// The part of the budget that a finer level may have cost before it is entered.
const CALM_PART: f64 = 0.55;

/// Calm seconds, or windows, before a finer level is entered: at first, and at most.
const PATIENCE: u32 = 3;
const PATIENCE_MOST: u32 = 60;

/// A finer level that lasts for so many seconds was not too fine.
const LASTING_S: f64 = 60.0;

/// Windows before their period becomes longer.
const FIRST_WINDOWS: u32 = 20;

/// The time over which load is averaged.
const SECOND_S: f64 = 1.0;

/// The capacity of the bucket: seconds of the budget.
const BUCKET_S: f64 = 1.0;

/// The most by which a debt makes the next period longer.
const DEBT_MOST_S: f64 = 10.0;

/// The level, and the load that it was chosen by.
#[derive(Debug, Clone)]
pub(crate) struct LevelController {
    wants: Wants,
    level: Level,
    /// The tokens in the bucket: seconds of CPU time.
    tokens: f64,
    /// The load since the bucket was full.
    spell: Load,
    /// The load of the current second.
    second: Load,
    /// The load of the last seconds, or windows.
    recent: VecDeque<Load>,
    /// The number of them that must be calm before a finer level is entered.
    patience: u32,
    /// The number of windows.
    windows: u32,
    /// Seconds since a finer level was entered.
    since_finer_s: f64,
}

impl LevelController {
    /// Chooses the first level by the load while hits were only counted.
    pub(crate) fn new(wants: Wants, first: &Load, prices: &Prices, switching: &Switching) -> Self {
        Self {
            level: plan(first, prices, &wants, switching, PLANNED_PART),
            tokens: BUCKET_S * wants.budget,
            wants,
            spell: Load::default(),
            second: Load::default(),
            recent: VecDeque::new(),
            patience: PATIENCE,
            windows: 0,
            since_finer_s: f64::INFINITY,
        }
    }

    /// The budget in seconds of CPU time per second.
    pub(crate) fn budget(&self) -> f64 {
        self.wants.budget
    }

    /// The present level.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Takes the load while probes were attached all the time. Returns true if the level has
    /// changed.
    pub(crate) fn observe(&mut self, seen: &Load, prices: &Prices, switching: &Switching) -> bool {
        self.since_finer_s += seen.seconds;
        let most = BUCKET_S * self.wants.budget;
        let cost = seen.hits * prices.hit_s(seen, self.level.interval_bytes);
        self.tokens = (self.tokens + self.wants.budget * seen.seconds - cost).min(most);
        if self.tokens >= most {
            self.spell = Load::default();
        } else {
            self.spell.add(seen);
        }
        self.second.add(seen);
        if self.tokens < 0.0 {
            let spell = self.spell;
            return self.coarsen(&spell, prices, switching);
        }
        if self.second.seconds < SECOND_S {
            return false;
        }
        let second = std::mem::take(&mut self.second);
        if prices.per_second(&second, self.level.interval_bytes) > self.wants.budget {
            return self.coarsen(&second, prices, switching);
        }
        self.remember(&second);
        self.refine(prices, switching)
    }

    /// Takes the load in a window, and chooses the level of the next one. `around` are the hits
    /// while probes were attached and detached, `period_s` is the time in which the cost was
    /// earned.
    pub(crate) fn observe_window(
        &mut self,
        seen: &Load,
        around: f64,
        period_s: f64,
        prices: &Prices,
        switching: &Switching,
    ) {
        self.since_finer_s += period_s;
        let spent = (seen.hits + around) * prices.hit_s(seen, self.level.interval_bytes);
        let most = BUCKET_S * self.wants.budget;
        self.tokens = (self.tokens + self.wants.budget * period_s - spent).min(most);
        self.remember(seen);
        self.windows += 1;
        if self.windows >= FIRST_WINDOWS {
            self.wants.period_s = LATER_PERIOD_S;
        }
        if self.refine(prices, switching) && self.level.windows.is_none() {
            return;
        }
        // Several windows tell more than one, but a growing load must not be averaged away.
        let mut load = Load::default();
        for recent in &self.recent {
            load.add(recent);
        }
        if seen.hits_per_s() > load.hits_per_s() {
            load = *seen;
        }
        // Windows end by calm alone.
        let mut level = plan_windows(&load, prices, &self.wants, switching, PLANNED_PART);
        if let Some(windows) = &mut level.windows
            && self.tokens < 0.0
        {
            windows.period_s += (-self.tokens / self.wants.budget).min(DEBT_MOST_S);
        }
        self.level = level;
    }

    /// The cost at which a window is closed early: so many hits were not foreseen.
    pub(crate) fn window_limit_s(&self) -> f64 {
        let planned = self.level.windows.map_or(0.0, |windows| windows.cost_s);
        (2.0 * planned).max(BUCKET_S * self.wants.budget / 2.0)
    }

    /// Hits a second in the last load.
    pub(crate) fn last_rate(&self) -> Option<f64> {
        self.recent.back().map(Load::hits_per_s)
    }

    fn remember(&mut self, seen: &Load) {
        self.recent.push_back(*seen);
        while self.recent.len() > self.patience as usize {
            self.recent.pop_front();
        }
    }

    /// Enters a coarser level.
    fn coarsen(&mut self, load: &Load, prices: &Prices, switching: &Switching) -> bool {
        let level = plan(load, prices, &self.wants, switching, PLANNED_PART);
        self.tokens = BUCKET_S * self.wants.budget;
        self.spell = Load::default();
        self.second = Load::default();
        self.recent.clear();
        self.patience = if self.since_finer_s < LASTING_S {
            // It was tried too soon.
            (2 * self.patience).min(PATIENCE_MOST)
        } else if self.since_finer_s.is_finite() {
            PATIENCE
        } else {
            self.patience
        };
        self.since_finer_s = f64::INFINITY;
        let changed = level.is_coarser_than(&self.level);
        if changed {
            self.level = level;
        }
        changed
    }

    /// Enters a finer level if that would have been cheap enough for all of the last loads.
    fn refine(&mut self, prices: &Prices, switching: &Switching) -> bool {
        if self.recent.len() < self.patience as usize {
            return false;
        }
        let mut level: Option<Level> = None;
        for load in &self.recent {
            let possible = plan(load, prices, &self.wants, switching, CALM_PART);
            level = Some(match level {
                Some(level) if !possible.is_coarser_than(&level) => level,
                _ => possible,
            });
        }
        let Some(level) = level else { return false };
        if level.windows.is_some() || !self.level.is_coarser_than(&level) {
            return false;
        }
        self.level = level;
        self.recent.clear();
        self.tokens = BUCKET_S * self.wants.budget;
        self.spell = Load::default();
        self.since_finer_s = 0.0;
        true
    }
}

/// The present level as the user sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Followed {
    /// Mean bytes between sampled allocations; 1: every allocation is followed.
    pub(crate) interval_bytes: u64,
    /// The share of time in which probes are attached.
    pub(crate) share: f64,
    /// The expected cost in percent of a CPU, where the budget cannot be kept.
    pub(crate) over_budget_percent: Option<f64>,
}

/// The levels of a recording.
#[derive(Debug)]
pub(super) struct LevelLog {
    /// The present sampling interval.
    pub(super) interval_bytes: u64,
    pub(super) smallest_bytes: u64,
    pub(super) largest_bytes: u64,
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

#[cfg(test)]
mod tests;
