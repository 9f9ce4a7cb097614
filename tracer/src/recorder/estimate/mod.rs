//! What ways of tracing would cost processes, by what was seen of them in a moment. [`count`] looks at them.

mod count;

use std::time::Duration;

use tracer_ebpf::Function;

use super::Followed;
use super::budget::plan::{FIRST_PERIOD_S, Level, Load, Prices, Switching, Wants, plan};
use crate::cost::{Traps, Work, to_f64};

/// What was seen.
#[derive(Debug, Clone)]
pub struct Estimate {
    /// How long calls were counted.
    pub counted: Duration,
    /// Whether that was cut short, since the targets call so often.
    pub is_cut: bool,
    /// By how much more the targets do when they are not counted: at a high rate, counting makes a program slower that only
    /// computes. Rates take it in, counts do not.
    pub slowing_factor: f64,
    /// Calls that ask for memory, by function: calls, bytes.
    pub functions: Vec<(Function, u64, u64)>,
    /// Calls that give memory back.
    pub frees: u64,
    /// What a trap costs here.
    pub traps: Traps,
    /// What the programs take.
    pub work: Work,
    load: Load,
    asking_ns: f64,
    freeing_ns: f64,
    switching: Switching,
}

/// A way of tracing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// An allocation per so many bytes is followed; 1 is every one.
    pub interval_bytes: u64,
    /// Blocks are followed until they are given back.
    pub live: bool,
}

impl Estimate {
    /// Calls that ask for memory.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.functions.iter().map(|(_, calls, _)| calls).sum()
    }

    /// Bytes that they ask for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.functions.iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// So many a second, when nobody counts.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        self.slowing_factor * to_f64(count) / self.counted.as_secs_f64().max(1e-9)
    }

    /// What a way of tracing costs, in percent of a CPU.
    #[must_use]
    pub fn percent(&self, way: Way) -> f64 {
        let share = self.load.followed_share(way.interval_bytes);
        let mut per_call = self.asking_ns + self.work.mean_ns(share);
        let mut frees = 0.0;
        if way.live {
            // What following a block until it is given back takes more, as measured elsewhere.
            let (live, plain) = (Work::assumed(true), Work::assumed(false));
            per_call += self.traps.return_ns
                + (live.passed_ns - plain.passed_ns)
                + share * (live.followed_ns - plain.followed_ns);
            frees = self.per_second(self.frees) * (self.freeing_ns + live.passed_ns);
        }
        (self.load.hits_per_s() * per_call + frees) / 1e7
    }

    /// What a budget, in percent, would lead to, and what that costs in percent.
    #[must_use]
    pub fn with_budget(&self, percent: f64) -> (Followed, f64) {
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

    /// So many allocations of some 96 bytes, and as many frees, in a second.
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
                own_s: 0.01,
                clock_s: 0.01,
                tail_s: 0.0,
            },
        }
    }

    #[test]
    fn ways_cost_what_they_do() {
        let estimate = estimate(10_000);
        let percent = |interval_bytes, live| estimate.percent(Way { interval_bytes, live });
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
