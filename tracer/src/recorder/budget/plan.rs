//! The finest level that keeps within a budget: pure arithmetic. Times are seconds, costs are
//! seconds of the targets' CPU time per second.

use tracer_ebpf::BUCKETS;

use crate::numeric::to_f64;
use crate::recorder::cost::Work;

/// The finest and the coarsest sampling interval. A finer one saves nearly nothing; a coarser one
/// leaves too few samples.
const FINEST_BYTES: u64 = 64;
const COARSEST_BYTES: u64 = 1 << 20;

/// The part by which following may make a hit dearer in windows. Beyond it a longer interval costs
/// samples and hardly buys longer windows.
const WORK_IN_WINDOWS: f64 = 0.5;

/// The same where the budget cannot be kept: below it a longer interval saves nothing any more.
const WORK_OVER_BUDGET: f64 = 0.05;

/// The least length of a window: shorter ones are spent on attaching and detaching.
const SHORTEST_WINDOW_S: f64 = 0.005;

/// The usual time from one window to the next: at first, and after many. Each takes CPU time of
/// memtap, which the targets lose on a machine whose CPUs are all busy.
pub(crate) const FIRST_PERIOD_S: f64 = 0.5;
pub(crate) const LATER_PERIOD_S: f64 = 1.0;

/// Attaching and detaching may take one part in so many of memtap's CPU time, and one in so many of
/// the time on the clock.
const OWN_PART: f64 = 25.0;
const CLOCK_PART: f64 = 4.0;

/// The most that a window may cost, in seconds of the budget.
const LONGEST_WINDOW_S: f64 = 1.0;

/// The load that the targets put on attached probes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// The time in which it was seen.
    pub(crate) seconds: f64,
    /// Hits in that time.
    pub(crate) hits: f64,
    /// Hits that allocate, by the binary logarithm of the size.
    pub(crate) sizes: [f64; BUCKETS],
}

impl Default for Load {
    fn default() -> Self {
        Self {
            seconds: 0.0,
            hits: 0.0,
            sizes: [0.0; BUCKETS],
        }
    }
}

impl Load {
    /// Adds the load after this one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.hits += other.hits;
        for (size, other) in self.sizes.iter_mut().zip(other.sizes) {
            *size += other;
        }
    }

    pub(crate) fn hits_per_s(&self) -> f64 {
        if self.seconds > 0.0 {
            self.hits / self.seconds
        } else {
            0.0
        }
    }

    /// The share of hits that are followed: an allocation of s bytes with probability 1 -
    /// exp(-s/T).
    pub(crate) fn followed_share(&self, interval_bytes: u64) -> f64 {
        if self.hits <= 0.0 {
            return 0.0;
        }
        let followed = |(class, count): (u32, &f64)| {
            // The middle of the class; the first one has empty blocks too.
            let bytes = 1.5 * to_f64(1 << class);
            count
                * if interval_bytes <= 1 {
                    1.0
                } else {
                    -(-bytes / to_f64(interval_bytes)).exp_m1()
                }
        };
        (0u32..).zip(&self.sizes).map(followed).sum::<f64>() / self.hits
    }
}

/// The mean cost of a hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Prices {
    /// The traps of one hit.
    pub(crate) trap_ns: f64,
    /// The run time of the programs.
    pub(crate) work: Work,
}

impl Prices {
    /// The cost of a second of this load, in seconds of CPU time.
    pub(crate) fn per_second(&self, load: &Load, interval_bytes: u64) -> f64 {
        load.hits_per_s() * self.hit_s(load, interval_bytes)
    }

    /// The cost of one hit, in seconds of CPU time.
    pub(crate) fn hit_s(&self, load: &Load, interval_bytes: u64) -> f64 {
        (self.trap_ns + self.work.mean_ns(load.followed_share(interval_bytes))) * 1e-9
    }

    /// The same while probes are attached and detached: nothing is recorded.
    fn passed_s(&self) -> f64 {
        (self.trap_ns + self.work.passed_ns) * 1e-9
    }
}

/// The settings of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wants {
    /// The budget.
    pub(crate) budget: f64,
    /// The sampling interval in bytes, if it is set.
    pub(crate) interval_bytes: Option<u64>,
    /// Probes may be attached for a part of the time. Not where blocks are followed: a window would
    /// part an allocation from its free.
    pub(crate) may_pause: bool,
    /// The usual time from one window to the next.
    pub(crate) period_s: f64,
}

/// The cost of attaching and detaching probes once.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::struct_field_names, reason = "the unit")]
pub(crate) struct Switching {
    /// CPU time of memtap.
    pub(crate) cpu_s: f64,
    /// Time on the clock.
    pub(crate) clock_s: f64,
    /// The time in which attached probes have as many hits as meanwhile.
    pub(crate) tail_s: f64,
}

/// Windows in which probes are attached.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::struct_field_names, reason = "the unit")]
pub(crate) struct Windows {
    /// The time with one window.
    pub(crate) period_s: f64,
    /// The length of the window.
    pub(crate) length_s: f64,
    /// The expected cost of the window.
    pub(crate) cost_s: f64,
}

impl Windows {
    /// The share of time in which probes are attached.
    pub(crate) fn share(&self) -> f64 {
        (self.length_s / self.period_s).min(1.0)
    }
}

/// A level: the allocations that are followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Level {
    /// Mean bytes between sampled allocations; 1: every allocation is followed.
    pub(crate) interval_bytes: u64,
    /// Windows, if probes are attached for a part of the time.
    pub(crate) windows: Option<Windows>,
    /// The budget is kept.
    pub(crate) keeps_budget: bool,
}

impl Level {
    /// Returns true if less is followed than with the other.
    pub(crate) fn is_coarser_than(&self, other: &Self) -> bool {
        match (self.windows, other.windows) {
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(this), Some(other)) => this.share() < other.share(),
            (None, None) => self.interval_bytes > other.interval_bytes,
        }
    }
}

/// The intervals to choose from, the finest first.
fn intervals(wants: &Wants) -> impl Iterator<Item = u64> {
    let powers = std::iter::successors(Some(FINEST_BYTES), |bytes| Some(bytes * 2));
    let chosen = std::iter::once(1).chain(powers.take_while(|bytes| *bytes <= COARSEST_BYTES));
    let is_free = wants.interval_bytes.is_none();
    wants
        .interval_bytes
        .into_iter()
        .chain(chosen.take_while(move |_| is_free))
}

/// Plans the finest level that costs at most a part of the budget.
pub(crate) fn plan(load: &Load, prices: &Prices, wants: &Wants, switching: &Switching, part: f64) -> Level {
    let allowed = wants.budget * part;
    if let Some(interval_bytes) =
        intervals(wants).find(|interval_bytes| prices.per_second(load, *interval_bytes) <= allowed)
    {
        return Level {
            interval_bytes,
            windows: None,
            keeps_budget: true,
        };
    }
    if wants.may_pause {
        return plan_windows(load, prices, wants, switching, part);
    }
    Level {
        interval_bytes: with_work(load, prices, wants, WORK_OVER_BUDGET),
        windows: None,
        keeps_budget: false,
    }
}

/// The finest interval with which following makes a hit dearer by at most this part.
fn with_work(load: &Load, prices: &Prices, wants: &Wants, most: f64) -> u64 {
    let is_cheap = |interval_bytes: &u64| {
        let followed = load.followed_share(*interval_bytes) * prices.work.followed_ns * 1e-9;
        followed <= most * prices.passed_s()
    };
    let coarsest = wants.interval_bytes.unwrap_or(COARSEST_BYTES);
    intervals(wants).find(is_cheap).unwrap_or(coarsest)
}

/// Plans the longest windows that cost at most a part of the budget. Probes are detached for at
/// least half of the time.
pub(crate) fn plan_windows(
    load: &Load,
    prices: &Prices,
    wants: &Wants,
    switching: &Switching,
    part: f64,
) -> Level {
    let interval_bytes = with_work(load, prices, wants, WORK_IN_WINDOWS);
    let allowed = wants.budget * part;
    Level {
        interval_bytes,
        windows: Some(windows(load, prices, wants, interval_bytes, switching, allowed)),
        keeps_budget: true,
    }
}

fn windows(
    load: &Load,
    prices: &Prices,
    wants: &Wants,
    interval_bytes: u64,
    switching: &Switching,
    allowed: f64,
) -> Windows {
    let inside = prices.per_second(load, interval_bytes);
    let around = load.hits_per_s() * switching.tail_s * prices.passed_s();
    let period_s = wants
        .period_s
        .max(OWN_PART * switching.cpu_s)
        .max(CLOCK_PART * switching.clock_s);
    let length_s = ((allowed * period_s - around) / inside)
        .min(allowed * LONGEST_WINDOW_S / inside)
        .min(period_s / 2.0)
        .max(SHORTEST_WINDOW_S);
    Windows {
        period_s: period_s.max((inside * length_s + around) / allowed),
        length_s,
        cost_s: inside * length_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: Prices = Prices {
        trap_ns: 700.0,
        work: Work {
            passed_ns: 100.0,
            followed_ns: 900.0,
            is_measured: true,
        },
    };

    const WANTS: Wants = Wants {
        budget: 0.02,
        interval_bytes: None,
        may_pause: true,
        period_s: FIRST_PERIOD_S,
    };

    const SWITCHING: Switching = Switching {
        cpu_s: 0.02,
        clock_s: 0.02,
        tail_s: 0.01,
    };

    /// A load of this many allocations of about 96 bytes a second.
    fn load(hits: f64) -> Load {
        let mut sizes = [0.0; BUCKETS];
        sizes[6] = hits;
        Load {
            seconds: 1.0,
            hits,
            sizes,
        }
    }

    fn planned(hits: f64, wants: &Wants) -> Level {
        plan(&load(hits), &PRICES, wants, &SWITCHING, 1.0)
    }

    #[test]
    fn everything_is_followed_where_that_is_cheap() {
        let level = planned(10_000.0, &WANTS);
        assert_eq!((level.interval_bytes, level.windows), (1, None));
    }

    #[test]
    fn the_interval_grows_with_the_rate() {
        let mut before = 1;
        for hits in [12_000.0, 15_000.0, 18_000.0, 20_000.0, 24_000.0] {
            let level = planned(hits, &WANTS);
            assert_eq!(level.windows, None, "{hits}");
            assert!(
                level.interval_bytes >= before && level.interval_bytes > 1,
                "{hits}: {level:?}"
            );
            assert!(PRICES.per_second(&load(hits), level.interval_bytes) <= WANTS.budget);
            before = level.interval_bytes;
        }
    }

    #[test]
    fn probes_pause_where_traps_alone_are_too_much() {
        for hits in [30_000.0, 300_000.0, 1_300_000.0, 10_000_000.0] {
            let level = planned(hits, &WANTS);
            let windows = level.windows.expect("windows");
            let load = load(hits);
            let cost = (windows.length_s * PRICES.per_second(&load, level.interval_bytes)
                + SWITCHING.tail_s * hits * PRICES.passed_s())
                / windows.period_s;
            assert!(cost <= WANTS.budget + 1e-9, "{hits}: {cost}");
            // Windows may take half of the time, and need not.
            assert!(
                windows.share() > 0.49 || cost > WANTS.budget - 1e-9,
                "{hits}: {cost}"
            );
            assert!(
                windows.length_s >= SHORTEST_WINDOW_S && windows.share() < 1.0,
                "{windows:?}"
            );
            assert!(level.keeps_budget);
            assert!(
                level.interval_bytes > 64 && level.interval_bytes <= 1024,
                "{level:?}"
            );
        }
    }

    #[test]
    fn pairs_are_never_parted() {
        let wants = Wants {
            may_pause: false,
            ..WANTS
        };
        let level = planned(1_000_000.0, &wants);
        assert_eq!(level.windows, None);
        assert!(!level.keeps_budget);
        assert!(level.interval_bytes >= 1024, "{level:?}");
    }

    #[test]
    fn a_given_interval_stays() {
        let wants = Wants {
            interval_bytes: Some(4096),
            ..WANTS
        };
        for hits in [10.0, 1_000_000.0] {
            assert_eq!(planned(hits, &wants).interval_bytes, 4096);
        }
        assert!(planned(1_000_000.0, &wants).windows.is_some());
    }

    #[test]
    fn large_blocks_are_followed_at_any_interval() {
        let mut load = load(1000.0);
        assert!(load.followed_share(1 << 20) < 1e-3);
        load.sizes = [0.0; BUCKETS];
        load.sizes[25] = 1000.0;
        assert!(load.followed_share(1 << 20) > 0.99);
        assert!((load.followed_share(1) - 1.0).abs() < 1e-12);
    }
}
