//! Estimates of the whole time from windows.
//!
//! Time is cut into periods with one window each. Its place is uniform in the whole period (it may
//! reach into the next one), so that each moment is inside with the planned share as its
//! probability, whatever the program's rhythm: a weight of 1/share makes sums unbiased. Four things
//! differ from that plan, and are corrected here, in user space, where windows are told apart:
//! - a window is longer than planned, since memtap wakes late, or shorter, since it cost more than
//!   foreseen: its counts are scaled by planned / actual;
//! - the end of the recording cuts the last period, with or without its window: all windows are
//!   scaled by the time that they should have covered / the time that they stand for;
//! - targets are slower while probes are attached ([`slowing`](super::slowing));
//! - events in one window are not independent: the variance of an estimate comes from the
//!   differences between windows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracer_ebpf::SumKey;

use super::slowing::Slowing;

/// Calls and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct CallsAndBytes {
    pub(crate) calls: f64,
    pub(crate) bytes: f64,
}

/// The counts of one stack, or of several together, in windows.
#[derive(Debug, Clone, Copy, Default)]
struct Spread {
    /// The sums of the last reading.
    read: CallsAndBytes,
    /// Sums added in windows, with the weights of the kernel side.
    raw: CallsAndBytes,
    /// The same, each window scaled to its planned length.
    scaled: CallsAndBytes,
    /// Squares of that, each divided by its number of windows.
    squares: CallsAndBytes,
}

impl Spread {
    fn observe(&mut self, added: CallsAndBytes, scale: f64, windows: f64) {
        self.raw.calls += added.calls;
        self.raw.bytes += added.bytes;
        self.scaled.calls += scale * added.calls;
        self.scaled.bytes += scale * added.bytes;
        self.squares.calls += (scale * added.calls).powi(2) / windows;
        self.squares.bytes += (scale * added.bytes).powi(2) / windows;
    }
}

/// A group of stacks: those of a process, of a function, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StackGroup {
    /// The process image, or all of them.
    pub(crate) process: Option<u32>,
    /// The function, or all of them.
    pub(crate) function: Option<u32>,
}

impl StackGroup {
    /// All stacks.
    pub(crate) const ALL: Self = Self {
        process: None,
        function: None,
    };

    /// The groups that a stack is in.
    fn of(key: &SumKey) -> [Self; 4] {
        let (process, function) = (Some(key.process), Some(key.function));
        [
            Self::ALL,
            Self { process, ..Self::ALL },
            Self {
                function,
                ..Self::ALL
            },
            Self { process, function },
        ]
    }
}

/// A period that has begun.
#[derive(Debug, Clone, Copy)]
struct Period {
    begins: Instant,
    length: Duration,
    share: f64,
}

/// All windows so far.
#[derive(Debug, Default)]
pub(crate) struct WindowSums {
    stacks: HashMap<SumKey, Spread>,
    /// Stacks vary together, since a program does more or less of everything in a window: the
    /// variance of their sum is larger than that of independent stacks.
    groups: HashMap<StackGroup, Spread>,
    /// Windows that were read, and the number of readings.
    windows: u32,
    looks: u32,
    /// Windows that were not read yet: their number, their planned and their actual time in
    /// seconds.
    waiting: u32,
    planned_s: f64,
    actual_s: f64,
    /// The time that windows stand for, and their own.
    observed_s: f64,
    inside_s: f64,
    /// Periods of phases that are over: the time that their windows should have covered, and the
    /// whole time.
    expected_s: f64,
    phases_s: f64,
    periods: Vec<Period>,
    pub(crate) slowing: Slowing,
}

impl WindowSums {
    /// Begins a phase of windows with the present sums, which were recorded without windows.
    pub(crate) fn begin_phase(&mut self, sums: impl IntoIterator<Item = (SumKey, CallsAndBytes)>) {
        for spread in self.stacks.values_mut() {
            spread.read = CallsAndBytes::default();
        }
        for (key, amount) in sums {
            self.stacks.entry(key).or_default().read = amount;
        }
    }

    /// Begins a period with a window of this share of it.
    pub(crate) fn begin_period(&mut self, begins: Instant, length: Duration, share: f64) {
        self.periods.push(Period {
            begins,
            length,
            share,
        });
    }

    /// Ends a window, by its planned and its actual length in seconds.
    pub(crate) fn close(&mut self, planned_s: f64, actual_s: f64) {
        self.waiting += 1;
        self.planned_s += planned_s;
        self.actual_s += actual_s;
        self.inside_s += actual_s;
        self.observed_s += planned_s;
    }

    /// Returns true if there are windows whose sums were not read yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Adds the sums after one window, or after several since the last reading.
    pub(crate) fn add_windows(&mut self, sums: impl IntoIterator<Item = (SumKey, CallsAndBytes)>) {
        if self.waiting == 0 || self.actual_s <= 0.0 {
            return;
        }
        let scale = self.planned_s / self.actual_s;
        let windows = f64::from(self.waiting);
        let mut groups: HashMap<StackGroup, CallsAndBytes> = HashMap::new();
        for (key, amount) in sums {
            let spread = self.stacks.entry(key).or_default();
            let added = CallsAndBytes {
                calls: amount.calls - spread.read.calls,
                bytes: amount.bytes - spread.read.bytes,
            };
            spread.read = amount;
            if added.calls <= 0.0 {
                continue;
            }
            spread.observe(added, scale, windows);
            for group in StackGroup::of(&key) {
                let total = groups.entry(group).or_default();
                total.calls += added.calls;
                total.bytes += added.bytes;
            }
        }
        for (group, added) in groups {
            self.groups
                .entry(group)
                .or_default()
                .observe(added, scale, windows);
        }
        self.windows += self.waiting;
        self.looks += 1;
        (self.waiting, self.planned_s, self.actual_s) = (0, 0.0, 0.0);
    }

    /// Ends the phase at this moment.
    pub(crate) fn end_phase(&mut self, end: Instant) {
        let mut first = None;
        for period in self.periods.drain(..) {
            let passed = end.saturating_duration_since(period.begins).min(period.length);
            self.expected_s += period.share * passed.as_secs_f64();
            first.get_or_insert(period.begins);
        }
        if let Some(first) = first {
            self.phases_s += end.saturating_duration_since(first).as_secs_f64();
        }
    }

    /// The number of windows.
    pub(crate) fn count(&self) -> u32 {
        self.windows + self.waiting
    }

    /// The time with probes attached in phases of windows, and the time of those phases: seconds.
    pub(crate) fn inside_of(&self, now: Instant) -> (f64, f64) {
        let begun = self.periods.first().map(|period| period.begins);
        let open = begun.map_or(0.0, |begun| now.saturating_duration_since(begun).as_secs_f64());
        (self.inside_s, self.phases_s + open)
    }

    /// The scale of all windows: they stand for more or less time than there was.
    fn coverage(&self, now: Instant) -> f64 {
        let open: f64 = self
            .periods
            .iter()
            .map(|period| {
                let passed = now.saturating_duration_since(period.begins).min(period.length);
                period.share * passed.as_secs_f64()
            })
            .sum();
        if self.observed_s > 0.0 {
            (self.expected_s + open) / self.observed_s
        } else {
            1.0
        }
    }

    /// The correction of a stack's sums to estimates of the whole time.
    pub(crate) fn correction(&self, key: &SumKey, now: Instant) -> Option<CallsAndBytes> {
        let spread = self.stacks.get(key)?;
        let scale = self.coverage(now) * self.slowing.factor().by;
        Some(CallsAndBytes {
            calls: scale * spread.scaled.calls - spread.raw.calls,
            bytes: scale * spread.scaled.bytes - spread.raw.bytes,
        })
    }

    /// The variance of a stack's estimates by the differences between windows. It counts where it
    /// is larger than that of independent samples.
    pub(crate) fn variance_of(&self, key: &SumKey, now: Instant) -> Option<CallsAndBytes> {
        self.stacks.get(key).map(|spread| self.variance(spread, now))
    }

    /// The variances of the estimates of groups of stacks.
    pub(crate) fn group_variances(&self, now: Instant) -> impl Iterator<Item = (StackGroup, CallsAndBytes)> {
        self.groups
            .iter()
            .map(move |(group, spread)| (*group, self.variance(spread, now)))
    }

    /// The variance of all stacks' estimates together.
    pub(crate) fn variance_of_total(&self, now: Instant) -> CallsAndBytes {
        self.groups
            .get(&StackGroup::ALL)
            .map_or(CallsAndBytes::default(), |spread| self.variance(spread, now))
    }

    fn variance(&self, spread: &Spread, now: Instant) -> CallsAndBytes {
        let (inside, all) = self.inside_of(now);
        let share = if all > 0.0 { (inside / all).min(1.0) } else { 1.0 };
        let factor = self.slowing.factor();
        let of = |sum, squares| {
            let windows = window_variance(self.windows, self.looks, share, sum, squares);
            (self.coverage(now) * factor.by).powi(2) * (windows + (factor.error * sum).powi(2))
        };
        CallsAndBytes {
            calls: of(spread.scaled.calls, spread.squares.calls),
            bytes: of(spread.scaled.bytes, spread.squares.bytes),
        }
    }
}

/// The variance of the sum of estimates from m windows that cover a share of the time. With y the
/// count in a window and N windows' worth of time, it is N²(1 - m/N)s²/m (simple random sampling
/// without replacement); with x = y N/m, the window's part of the estimate, that is m(1 - m/N)s².
///
/// `sum` is that of all x, `squares` that of x²/j over readings of j windows each. One reading
/// alone tells no difference between windows: the variance is taken to be the square of the sum.
fn window_variance(windows: u32, looks: u32, share: f64, sum: f64, squares: f64) -> f64 {
    if looks < 2 {
        return sum * sum;
    }
    let windows = f64::from(windows);
    let between = (squares - sum * sum / windows).max(0.0) / f64::from(looks - 1);
    windows * (1.0 - share) * between
}

/// Random numbers in [0, 1), which no program's rhythm follows.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number, by `splitmix64` (Steele, Lea, Flood: Fast splittable pseudorandom
    /// number generators).
    pub(crate) fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        crate::numeric::to_f64(bits >> 11) / crate::numeric::to_f64(1 << 53)
    }
}

#[cfg(test)]
mod tests;
