//! How much slower targets are while probes are in: what they do in a window is less than they would have done.
//!
//! A program that waits for others makes up for what probes take, one that only computes does not. What tells them apart is
//! the CPU time that they use: of that in the windows, and of that in the whole time, what the probes took is known. What was
//! seen in windows stands for what programs do in so much CPU time of their own, and not in so much time on the clock (a ratio
//! estimator: Cochran, Sampling Techniques, 6.2).

use std::time::Instant;

use crate::clock;
use crate::process::task_clocks::TaskClocks;

/// How far off what a hit costs may be: in the target the caches are colder than where it was measured.
const PRICE_ERROR: f64 = 0.15;

/// A program that has less than this part of its CPU time in windows for itself is taken to have as much: what is left beside
/// the probes cannot be told any more.
const LEAST_PART: f64 = 0.1;

/// How far windows may differ from the rest by more than the probes' doing.
const LEAST_FACTOR: f64 = 0.5;

/// CPU time of the targets, and what probes have cost them, at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: Instant,
    cpu_s: f64,
    cost_s: f64,
}

impl Reading {
    /// Takes the time of these processes; nothing if there are none, or one has ended.
    pub(crate) fn of(pids: &[u32], cost_ns: f64) -> Option<Self> {
        let mut cpu_s = 0.0;
        for pid in pids {
            cpu_s += cpu_time_s(*pid)?;
        }
        (!pids.is_empty()).then(|| Self {
            at: Instant::now(),
            cpu_s,
            cost_s: cost_ns / 1e9,
        })
    }

    /// The time that clocks tell which were started for a moment.
    pub(crate) fn by(clocks: &TaskClocks, cost_ns: f64) -> Option<Self> {
        Some(Self {
            at: Instant::now(),
            cpu_s: clocks.seconds()?,
            cost_s: cost_ns / 1e9,
        })
    }

    /// As if all the time had been the program's own.
    pub(crate) fn without_cost(self) -> Self {
        Self { cost_s: 0.0, ..self }
    }
}

/// The CPU time that a process has used, in seconds.
fn cpu_time_s(pid: u32) -> Option<f64> {
    clock::cpu_time_of(pid).map(|time| time.as_secs_f64())
}

/// Time on the clock, in the programs themselves, and in what probes cost them: seconds.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_field_names, reason = "the unit")]
struct Span {
    clock_s: f64,
    bare_s: f64,
    cost_s: f64,
}

impl Span {
    fn add(&mut self, from: &Reading, to: &Reading) {
        let cost_s = (to.cost_s - from.cost_s).max(0.0);
        self.clock_s += to.at.saturating_duration_since(from.at).as_secs_f64();
        self.bare_s += to.cpu_s - from.cpu_s - cost_s;
        self.cost_s += cost_s;
    }
}

/// By how much more targets do without probes than they did with them, from readings of before and after: while they were
/// probed, and while they were not. What they did without probes they did at another time: it is no more than it comes to if
/// all that the probes took was time that the program would have used.
pub(crate) fn slowed(probed: [Reading; 2], bare: [Reading; 2]) -> f64 {
    let span = |[from, to]: [Reading; 2]| {
        let mut span = Span::default();
        span.add(&from, &to);
        span
    };
    let (probed, bare) = (span(probed), span(bare));
    let used_s = probed.bare_s + probed.cost_s;
    let own_s = probed.bare_s.max(LEAST_PART * used_s);
    if own_s <= 0.0 || probed.clock_s <= 0.0 || bare.clock_s <= 0.0 {
        return 1.0;
    }
    let by = (bare.bare_s / bare.clock_s) / (own_s / probed.clock_s);
    // What waits for most of the time loses nothing, whatever its CPU time was.
    let lost_part = (probed.cost_s / probed.clock_s).min(1.0 - LEAST_PART);
    by.clamp(1.0, (used_s / own_s).min(1.0 / (1.0 - lost_part)))
}

/// What was seen in windows is to be multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factor {
    pub(crate) by: f64,
    /// Its relative error.
    pub(crate) error: f64,
}

impl Factor {
    const NONE: Self = Self { by: 1.0, error: 0.0 };
}

/// The targets' time, in windows and in the whole of the phases that have some.
#[derive(Debug, Default)]
pub(crate) struct Slowing {
    begun: Option<Reading>,
    opened: Option<Reading>,
    inside: Span,
    /// Of phases that are over, and with the one that goes on, up to the last window.
    over: Span,
    all: Span,
}

impl Slowing {
    /// A phase of windows begins.
    pub(super) fn begin(&mut self, now: Option<Reading>) {
        self.begun = now;
        self.opened = None;
    }

    /// A window opens: what the clock tells that is read when it closes.
    pub(super) fn open(&mut self, in_window: Option<Reading>) {
        self.opened = in_window;
    }

    /// It closes: its probes do not take in any more, and are still there.
    pub(super) fn close(&mut self, in_window: Option<Reading>, now: Option<Reading>) {
        if let (Some(opened), Some(closed)) = (self.opened.take(), in_window) {
            self.inside.add(&opened, &closed);
        }
        self.look(now);
    }

    /// The phase is over.
    pub(super) fn end(&mut self, now: Option<Reading>) {
        self.look(now);
        self.over = self.all;
        self.begun = None;
    }

    fn look(&mut self, now: Option<Reading>) {
        if let (Some(begun), Some(now)) = (self.begun, now) {
            self.all = self.over;
            self.all.add(&begun, &now);
        }
    }

    /// By how much more was done in the same time than windows show; one where it is not known.
    pub(crate) fn factor(&self) -> Factor {
        let Self { inside, all, .. } = self;
        if inside.clock_s <= 0.0 || all.clock_s <= 0.0 || all.bare_s <= 0.0 {
            return Factor::NONE;
        }
        let least = LEAST_PART * (inside.bare_s + inside.cost_s);
        let bare_s = inside.bare_s.max(least);
        if bare_s <= 0.0 {
            return Factor::NONE;
        }
        let by = (all.bare_s / all.clock_s) / (bare_s / inside.clock_s);
        Factor {
            by: by.clamp(LEAST_FACTOR, 1.0 / LEAST_PART),
            error: (PRICE_ERROR * inside.cost_s / bare_s).min(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A window of a tenth of a second in each of ten, at so much CPU time a second, of which probes take so much in it.
    fn factor(outside: f64, inside: f64, cost: f64) -> Factor {
        let start = Instant::now();
        let mut slowing = Slowing::default();
        let reading = |tenths: u32, cpu_s, cost_s| {
            Some(Reading {
                at: start + Duration::from_millis(100) * tenths,
                cpu_s,
                cost_s,
            })
        };
        slowing.begin(reading(0, 0.0, 0.0));
        let (mut cpu_s, mut cost_s) = (0.0, 0.0);
        for window in 0..10 {
            slowing.open(reading(10 * window, cpu_s, cost_s));
            cpu_s += 0.1 * inside;
            cost_s += 0.1 * cost;
            let closed = reading(10 * window + 1, cpu_s, cost_s);
            slowing.close(closed, closed);
            cpu_s += 0.9 * outside;
        }
        slowing.end(reading(100, cpu_s, cost_s));
        slowing.factor()
    }

    #[test]
    fn what_computes_all_the_time_is_slower_in_windows() {
        // Half of each window is the probes': in the same time it would have done twice as much, and nearly so in all of it.
        let found = factor(1.0, 1.0, 0.5);
        assert!((found.by - 0.95 / 0.5).abs() < 1e-6, "{found:?}");
        assert!((found.error - PRICE_ERROR).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn what_waits_makes_up_for_it() {
        let found = factor(0.2, 0.3, 0.1);
        assert!((found.by - 1.0).abs() < 1e-6, "{found:?}");
        assert!((found.error - PRICE_ERROR / 2.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn what_was_counted_is_known_to_be_slower() {
        let start = Instant::now();
        let reading = |tenths: u32, cpu_s, cost_s| Reading {
            at: start + Duration::from_millis(100) * tenths,
            cpu_s,
            cost_s,
        };
        let found = |used: f64, cost: f64, bare: f64| {
            slowed(
                [reading(0, 0.0, 0.0), reading(1, used, cost)],
                [reading(5, 1.0, 0.0), reading(6, 1.0 + bare, 0.0)],
            )
        };
        assert!((found(0.1, 0.04, 0.1) - 0.1 / 0.06).abs() < 1e-9);
        // It waits, and makes up for it.
        assert!((found(0.05, 0.02, 0.03) - 1.0).abs() < 1e-9);
        // It did more than it could have, or less, at another time.
        assert!((found(0.05, 0.001, 0.1) - 0.1 / 0.099).abs() < 1e-9);
        assert!((found(0.05, 0.02, 0.001) - 1.0).abs() < 1e-9);
        // Prices that are too high; a program that does nothing.
        assert!(found(0.1, 0.2, 0.1) <= 1.0 / LEAST_PART + 1e-9);
        assert!((found(0.0, 0.0, 0.1) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_does_nothing_else_is_not_known() {
        let found = factor(1.0, 1.0, 0.99);
        assert!((5.0..=10.0).contains(&found.by), "{found:?}");
        assert!(found.error > 0.99, "{found:?}");
        // Prices that are too high.
        assert!(factor(1.0, 1.0, 1.2).by <= 10.0);
    }

    #[test]
    fn nothing_is_known_without_readings() {
        assert_eq!(Slowing::default().factor(), Factor::NONE);
        let mut slowing = Slowing::default();
        slowing.begin(None);
        slowing.open(None);
        slowing.close(Reading::of(&[std::process::id()], 0.0), None);
        slowing.end(None);
        assert_eq!(slowing.factor(), Factor::NONE);
    }

    #[test]
    fn the_time_of_a_process_goes_on() {
        let own = [std::process::id()];
        let before = Reading::of(&own, 0.0).expect("this process is there").cpu_s;
        let mut sum = 0_u64;
        while Reading::of(&own, 0.0).expect("this process is there").cpu_s <= before {
            sum = sum.wrapping_add(1);
        }
        assert!(Reading::of(&[], 0.0).is_none() && Reading::of(&[u32::MAX], 0.0).is_none());
    }
}
