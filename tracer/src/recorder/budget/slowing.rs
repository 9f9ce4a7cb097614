//! The slowing of targets by attached probes: they do less in a window than they would have done
//! without.
//!
//! A program that waits for others makes up for the time of probes; one that only computes does
//! not. Their CPU time tells them apart. Of the whole time, probes take a small part, which is
//! computed from the price of a trap. In the windows they take most of it, and that price may be
//! off by half, since it was measured at another time and on another CPU: there samples tell
//! ([`TrapShare`]). Counts in windows stand for what programs do in their own CPU time, not in time
//! on the clock (a ratio estimator: Cochran, Sampling Techniques, 6.2).

use std::time::Instant;

use crate::clock;
use crate::process::task_clocks::TaskClocks;
use crate::recorder::cost::trap_share::TrapShare;

/// The relative error of the cost of a hit where no samples tell it: the target's caches are colder
/// than those of the measurement, and its CPU is faster or slower.
const PRICE_ERROR: f64 = 0.15;

/// The least part of its CPU time in windows that a program is taken to have for itself. A smaller
/// rest beside the probes cannot be measured.
const LEAST_PART: f64 = 0.1;

/// The least factor: windows may differ from the rest by chance, not only by the probes.
const LEAST_FACTOR: f64 = 0.5;

/// CPU time of the targets, and the cost of probes for them, at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: Instant,
    cpu_s: f64,
    cost_s: f64,
}

impl Reading {
    /// Reads the time of these processes. Returns nothing if there are none, or if one has ended.
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

    /// Reads the time of clocks that were started for a moment.
    pub(crate) fn by(clocks: &TaskClocks, cost_ns: f64) -> Option<Self> {
        Some(Self {
            at: Instant::now(),
            cpu_s: clocks.seconds()?,
            cost_s: cost_ns / 1e9,
        })
    }

    /// The reading as if all time had been the program's own.
    pub(crate) fn without_cost(self) -> Self {
        Self { cost_s: 0.0, ..self }
    }
}

/// The CPU time that a process has used, in seconds.
fn cpu_time_s(pid: u32) -> Option<f64> {
    clock::cpu_time_of(pid).map(|time| time.as_secs_f64())
}

/// Time on the clock, in the programs themselves, and in probes: seconds.
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

/// The speed of targets without probes, relative to that with them, from readings before and after:
/// with probes, and without. The readings without probes are of another time: the result is at most
/// what it would be if all time of the probes had been the program's.
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
    // A program that mostly waits loses nothing, whatever its CPU time was.
    let lost_part = (probed.cost_s / probed.clock_s).min(1.0 - LEAST_PART);
    by.clamp(1.0, (used_s / own_s).min(1.0 / (1.0 - lost_part)))
}

/// The factor that counts in windows are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factor {
    pub(crate) by: f64,
    /// Its relative error.
    pub(crate) error: f64,
}

impl Factor {
    const NONE: Self = Self { by: 1.0, error: 0.0 };
}

/// The targets' time in windows, and in the whole phases that have windows.
#[derive(Debug, Default)]
pub(crate) struct Slowing {
    begun: Option<Reading>,
    opened: Option<Reading>,
    inside: Span,
    /// Samples of the time in windows.
    traps: TrapShare,
    /// The time of phases that are over; and with the present one, up to the last window.
    over: Span,
    all: Span,
}

impl Slowing {
    /// Begins a phase of windows.
    pub(super) fn begin(&mut self, now: Option<Reading>) {
        self.begun = now;
        self.opened = None;
    }

    /// Opens a window, with a reading of the clocks that are read when it closes.
    pub(super) fn open(&mut self, in_window: Option<Reading>) {
        self.opened = in_window;
    }

    /// Closes the window: its probes record no more, and are still attached.
    pub(super) fn close(&mut self, in_window: Option<Reading>, now: Option<Reading>) {
        if let (Some(opened), Some(closed)) = (self.opened.take(), in_window) {
            self.inside.add(&opened, &closed);
        }
        self.look(now);
    }

    /// Adds samples of the targets' time in the window that was closed last.
    pub(super) fn add_trap_share(&mut self, samples: TrapShare) {
        self.traps.add(samples);
    }

    /// Ends the phase.
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

    /// The speed in the whole time, relative to that in windows; one where it is not known.
    ///
    /// Samples of the time in windows tell what part of it was the targets' own, whatever a trap
    /// costs at this time and on this CPU. Where there are none, its measured price does.
    pub(crate) fn factor(&self) -> Factor {
        let Self { inside, all, .. } = self;
        let used_s = inside.bare_s + inside.cost_s;
        let (own_s, error_s) = match self.traps.own() {
            Some(own) => (own.part * used_s, own.error * used_s),
            None => (inside.bare_s, PRICE_ERROR * inside.cost_s),
        };
        // The whole time has the time in windows in it.
        let all_s = all.bare_s + own_s - inside.bare_s;
        if inside.clock_s <= 0.0 || all.clock_s <= 0.0 || all_s <= 0.0 || used_s <= 0.0 {
            return Factor::NONE;
        }
        let own_s = own_s.max(LEAST_PART * used_s);
        let by = (all_s / all.clock_s) / (own_s / inside.clock_s);
        Factor {
            by: by.clamp(LEAST_FACTOR, 1.0 / LEAST_PART),
            error: (error_s / own_s).min(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The factor of windows of a tenth of a second in each second, by CPU time a second outside
    /// and inside, and by the time of probes inside.
    fn factor(outside: f64, inside: f64, cost: f64) -> Factor {
        sampled_factor(outside, inside, cost, TrapShare::default())
    }

    /// The same with these samples in each window.
    fn sampled_factor(outside: f64, inside: f64, cost: f64, samples: TrapShare) -> Factor {
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
            slowing.add_trap_share(samples);
            cpu_s += 0.9 * outside;
        }
        slowing.end(reading(100, cpu_s, cost_s));
        slowing.factor()
    }

    #[test]
    fn what_computes_all_the_time_is_slower_in_windows() {
        // Probes take half of each window: without them the program would have done twice as much,
        // in nearly all of the time.
        let found = factor(1.0, 1.0, 0.5);
        assert!((found.by - 0.95 / 0.5).abs() < 1e-6, "{found:?}");
        assert!((found.error - PRICE_ERROR).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn samples_count_for_more_than_prices() {
        let samples = TrapShare::new(100, 60);
        let own = samples.own().expect("enough samples").part;
        // Whatever the price is, and if it is more than all the time.
        for cost in [0.2, 0.5, 1.1] {
            let found = sampled_factor(1.0, 1.0, cost, samples);
            assert!((found.by - (0.9 + 0.1 * own) / own).abs() < 1e-6, "{found:?}");
            assert!((0.02..0.15).contains(&found.error), "{found:?}");
        }
        // It waits, and makes up for the time of traps.
        let found = sampled_factor(0.1 * own, 0.1, 0.01, samples);
        assert!((found.by - 1.0).abs() < 1e-6, "{found:?}");
        // Too few in all.
        assert_eq!(
            sampled_factor(1.0, 1.0, 0.5, TrapShare::new(2, 1)),
            factor(1.0, 1.0, 0.5)
        );
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
        // The program waits, and makes up for the time of probes.
        assert!((found(0.05, 0.02, 0.03) - 1.0).abs() < 1e-9);
        // The program did more than it could have, or less, at another time.
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
