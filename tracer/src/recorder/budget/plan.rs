//! How much can be followed within a budget: pure arithmetic. Times are seconds, costs are seconds of the targets' CPU time
//! per second.

use tracer_ebpf::BUCKETS;

use crate::cost::{Work, to_f64};

/// The finest and the coarsest interval that is chosen, beside following everything. Of allocations much smaller than the
/// finest nearly as many are followed without it; beyond the coarsest too few samples are left to show anything.
const FINEST_BYTES: u64 = 64;
const COARSEST_BYTES: u64 = 1 << 20;

/// How much dearer following may make a hit than it is anyway, where probes are in for a part of the time: then a longer
/// interval hardly buys longer windows, and costs samples.
const WORK_IN_WINDOWS: f64 = 0.5;

/// The same where the budget cannot be kept: past this a longer interval saves nothing any more.
const WORK_OVER_BUDGET: f64 = 0.05;

/// A window is at least so long: shorter ones are mostly what it takes to get probes in and out.
const SHORTEST_WINDOW_S: f64 = 0.005;

/// The usual time from one window to the next: at first, and when there have been many. More windows tell more of a program
/// that changes, and each takes time of ours, for which the targets wait on a machine whose CPUs are all busy.
pub(crate) const FIRST_PERIOD_S: f64 = 0.5;
pub(crate) const LATER_PERIOD_S: f64 = 1.0;

/// Getting probes in and out may take one part in so many of our own time, and one in so many of the time that there is.
const OWN_PART: f64 = 25.0;
const CLOCK_PART: f64 = 4.0;

/// A window may cost what the budget allows for so many seconds: no longer is it passed.
const LONGEST_WINDOW_S: f64 = 1.0;

/// What the targets do, while probes are in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// Over how long this was seen.
    pub(crate) seconds: f64,
    /// Hits in that time.
    pub(crate) hits: f64,
    /// Those that ask for memory, by the binary logarithm of the size.
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
    /// Takes in what was seen after this.
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

    /// The share of the hits that is followed: an allocation of s bytes with probability 1 - exp(-s/T).
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

/// What a hit costs, on average over the probes that are hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Prices {
    /// The traps of one hit.
    pub(crate) trap_ns: f64,
    /// What the programs do.
    pub(crate) work: Work,
}

impl Prices {
    /// Seconds of CPU time that a second of this load costs.
    pub(crate) fn per_second(&self, load: &Load, interval_bytes: u64) -> f64 {
        load.hits_per_s() * self.hit_s(load, interval_bytes)
    }

    /// Seconds of CPU time that one hit costs.
    pub(crate) fn hit_s(&self, load: &Load, interval_bytes: u64) -> f64 {
        (self.trap_ns + self.work.mean_ns(load.followed_share(interval_bytes))) * 1e-9
    }

    /// Of one whose probe is on its way in or out: nothing is taken in.
    fn passed_s(&self) -> f64 {
        (self.trap_ns + self.work.passed_ns) * 1e-9
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wants {
    /// What it may cost.
    pub(crate) budget: f64,
    /// The interval in bytes, where it is not to be chosen.
    pub(crate) interval_bytes: Option<u64>,
    /// Whether probes may be in for a part of the time: not where blocks are followed, since a window would part an
    /// allocation from its free.
    pub(crate) may_pause: bool,
    /// The usual time from one window to the next.
    pub(crate) period_s: f64,
}

/// What it takes to get probes in and out once.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::struct_field_names, reason = "the unit")]
pub(crate) struct Switching {
    /// CPU time that it takes us.
    pub(crate) own_s: f64,
    /// How long it takes.
    pub(crate) clock_s: f64,
    /// How long all probes would have to be in for as many hits as there are meanwhile.
    pub(crate) tail_s: f64,
}

/// Probes that are in for a part of the time.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::struct_field_names, reason = "the unit")]
pub(crate) struct Windows {
    /// One window in each of these.
    pub(crate) period_s: f64,
    /// Its length.
    pub(crate) length_s: f64,
    /// What it is expected to cost.
    pub(crate) cost_s: f64,
}

impl Windows {
    /// The share of time in which probes are in.
    pub(crate) fn share(&self) -> f64 {
        (self.length_s / self.period_s).min(1.0)
    }
}

/// How much is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Level {
    /// An allocation per so many bytes on average; 1 is every one.
    pub(crate) interval_bytes: u64,
    /// Whether probes are in for a part of the time.
    pub(crate) windows: Option<Windows>,
    /// Whether the budget is kept.
    pub(crate) keeps_budget: bool,
}

impl Level {
    /// Whether less is followed than with the other.
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

/// The finest level that keeps to a part of the budget.
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

/// The finest interval with which following makes a hit dearer by this part at the most.
fn with_work(load: &Load, prices: &Prices, wants: &Wants, most: f64) -> u64 {
    let is_cheap = |interval_bytes: &u64| {
        let followed = load.followed_share(*interval_bytes) * prices.work.followed_ns * 1e-9;
        followed <= most * prices.passed_s()
    };
    let coarsest = wants.interval_bytes.unwrap_or(COARSEST_BYTES);
    intervals(wants).find(is_cheap).unwrap_or(coarsest)
}

/// The longest windows that keep to a part of the budget; the probes are out for half of the time at least.
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
        .max(OWN_PART * switching.own_s)
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
        own_s: 0.02,
        clock_s: 0.02,
        tail_s: 0.01,
    };

    /// So many allocations of about 96 bytes a second.
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
            // Where it may be in for half of the time, it need not use it up.
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
