//! The cost that ways of tracing would have for processes, estimated from a short count of their
//! calls.

use std::time::Duration;

use tracer_ebpf::Function;

use super::budget::Followed;
use super::budget::plan::{FIRST_PERIOD_S, Level, Load, Prices, Switching, Wants, plan};
use crate::numeric::to_f64;
use crate::recorder::cost::{Traps, Work};

/// The calls of processes in a short time, and the prices to compute costs from.
#[derive(Debug, Clone)]
pub(crate) struct Estimate {
    /// The time in which calls were counted.
    pub(crate) counted: Duration,
    /// The count was cut short, since the targets call so often.
    pub(crate) is_cut: bool,
    /// The targets' speed without counting, relative to that with it: at a high rate, counting
    /// slows a program that only computes. Rates are corrected by it, counts are not.
    pub(crate) slowing_factor: f64,
    /// Calls that allocate, by function: calls, bytes.
    pub(crate) functions: Vec<(Function, u64, u64)>,
    /// Calls that free.
    pub(crate) frees: u64,
    /// The cost of a trap on this machine.
    pub(crate) traps: Traps,
    /// The run time of the programs.
    pub(crate) work: Work,
    pub(super) load: Load,
    pub(super) asking_ns: f64,
    pub(super) freeing_ns: f64,
    pub(super) switching: Switching,
}

/// A way of tracing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TracingWay {
    /// Mean bytes between sampled allocations; 1: every allocation is followed.
    pub(crate) interval_bytes: u64,
    /// Blocks are followed until they are freed.
    pub(crate) live: bool,
}

impl Estimate {
    /// Calls that allocate.
    #[must_use]
    pub(crate) fn calls(&self) -> u64 {
        self.functions.iter().map(|(_, calls, _)| calls).sum()
    }

    /// Bytes that they request.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.functions.iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// Converts a count to a rate per second, without the slowing by counting.
    #[must_use]
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        self.slowing_factor * to_f64(count) / self.counted.as_secs_f64().max(1e-9)
    }

    /// The cost of a way of tracing, in percent of a CPU.
    #[must_use]
    pub(crate) fn percent(&self, way: TracingWay) -> f64 {
        let share = self.load.followed_share(way.interval_bytes);
        let mut per_call = self.asking_ns + self.work.mean_ns(share);
        let mut frees = 0.0;
        if way.live {
            // The additional cost of following a block until it is freed, as measured elsewhere.
            let (live, plain) = (Work::assumed(true), Work::assumed(false));
            per_call += self.traps.return_ns
                + (live.passed_ns - plain.passed_ns)
                + share * (live.followed_ns - plain.followed_ns);
            frees = self.per_second(self.frees) * (self.freeing_ns + live.passed_ns);
        }
        (self.load.hits_per_s() * per_call + frees) / 1e7
    }

    /// The level for a budget in percent, and its cost in percent.
    #[must_use]
    pub(crate) fn with_budget(&self, percent: f64) -> (Followed, f64) {
        let wants = Wants {
            budget: percent / 100.0,
            interval_bytes: None,
            may_pause: true,
            period_s: FIRST_PERIOD_S,
        };
        let prices = Prices {
            trap_ns: self.asking_ns,
            work: self.work,
        };
        let level: Level = plan(&self.load, &prices, &wants, &self.switching, 1.0);
        let share = level.windows.map_or(1.0, |windows| windows.share());
        let cost = match level.windows {
            Some(_) => percent,
            None => 100.0 * prices.per_second(&self.load, level.interval_bytes),
        };
        let followed = Followed {
            interval_bytes: level.interval_bytes,
            share,
            over_budget_percent: None,
        };
        (followed, cost)
    }
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::BUCKETS;

    use super::*;

    /// An estimate of a program with this many allocations of some 96 bytes a second, and as many
    /// frees.
    fn estimate(calls: u64) -> Estimate {
        let mut sizes = [0.0; BUCKETS];
        sizes[6] = to_f64(calls);
        Estimate {
            counted: Duration::from_secs(1),
            is_cut: false,
            slowing_factor: 1.0,
            functions: vec![(Function::Malloc, calls, 96 * calls)],
            frees: calls,
            traps: Traps::ELSEWHERE,
            work: Work {
                passed_ns: 100.0,
                followed_ns: 900.0,
                is_measured: true,
            },
            load: Load {
                seconds: 1.0,
                hits: to_f64(calls),
                sizes,
            },
            asking_ns: 700.0,
            freeing_ns: 700.0,
            switching: Switching {
                cpu_s: 0.01,
                clock_s: 0.01,
                tail_s: 0.0,
            },
        }
    }

    #[test]
    fn ways_have_their_cost() {
        let estimate = estimate(10_000);
        let percent = |interval_bytes, live| estimate.percent(TracingWay { interval_bytes, live });
        assert!((percent(1, false) - 1.7).abs() < 1e-9);
        assert!((percent(1 << 19, false) - 0.8).abs() < 0.01);
        assert!(percent(1, true) > percent(1, false) + 1.0);
        assert!(percent(1 << 19, true) < percent(1, true));
    }

    #[test]
    fn a_budget_takes_the_best_that_fits() {
        let (followed, cost) = estimate(10_000).with_budget(2.0);
        assert_eq!((followed.interval_bytes, followed.share), (1, 1.0));
        assert!((cost - 1.7).abs() < 1e-9);
        let (followed, cost) = estimate(1_000_000).with_budget(2.0);
        assert!(followed.share < 0.05 && followed.interval_bytes > 1);
        assert!((cost - 2.0).abs() < 1e-9);
    }
}
