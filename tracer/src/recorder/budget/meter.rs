//! The cost of tracing so far: hits by the cost of each probe, and the run time of the programs.
//! Pure: the caller reads the counters.

use tracer_ebpf::HitCounts;

use super::plan::{Load, Prices};
use crate::bpf::run_stats::Runs;
use crate::numeric::to_f64;
use crate::recorder::cost::{SiteKind, Traps, Work};

/// The least runs of the programs that tell a mean.
const RUNS_THAT_TELL: u64 = 100;

/// The class of allocations whose sizes are not known.
const ANY_SIZE: usize = 6;

/// The sum of hits and of their cost.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    pub(crate) traps: Traps,
    work: Work,
    /// The kinds of the probes, by cookie.
    sites: Vec<SiteKind>,
    /// The counters when the recording began, and at the last reading.
    start: Box<HitCounts>,
    last: Box<HitCounts>,
    /// Hits whose allocation was followed, since the start.
    followed: f64,
    /// Runs of the programs since the last that were learned from, and the load meanwhile.
    runs: Runs,
    ran: Load,
    ran_followed: f64,
}

impl Meter {
    pub(crate) fn new(live: bool) -> Self {
        Self {
            traps: Traps::ELSEWHERE,
            work: Work::assumed(live),
            sites: Vec::new(),
            start: Box::default(),
            last: Box::default(),
            followed: 0.0,
            runs: Runs::default(),
            ran: Load::default(),
            ran_followed: 0.0,
        }
    }

    /// Sets the kinds of the probes, by cookie.
    pub(crate) fn know_sites(&mut self, sites: &[SiteKind]) {
        self.sites = sites.to_vec();
    }

    /// Begins to count.
    pub(crate) fn begin(&mut self, counts: &HitCounts) {
        *self.start = self.with_sizes(*counts);
        *self.last = *self.start;
        self.followed = 0.0;
    }

    /// Takes the hits since the last reading, `seconds` ago; `interval_bytes` if they were
    /// recorded.
    pub(crate) fn take(&mut self, counts: &HitCounts, seconds: f64, interval_bytes: Option<u64>) -> Load {
        let counts = self.with_sizes(*counts);
        let load = load_between(&self.last, &counts, seconds);
        *self.last = counts;
        if let Some(interval_bytes) = interval_bytes {
            self.followed += load.hits * load.followed_share(interval_bytes);
        }
        load
    }

    /// Adds sizes where every allocation is followed: they are not counted then, since nothing
    /// depends on them, and the probes that were hit tell the number of allocations.
    fn with_sizes(&self, mut counts: HitCounts) -> HitCounts {
        if counts.by_size.iter().all(|count| *count == 0) {
            let sites = counts.by_site.iter().zip(&self.sites);
            counts.by_size[ANY_SIZE] = sites
                .filter(|(_, site)| !site.is_free)
                .map(|(hits, _)| hits)
                .sum();
        }
        counts
    }

    /// Learns from a phase of the kernel's statistics.
    pub(crate) fn learn(&mut self, runs: Runs, load: &Load, interval_bytes: u64) {
        self.runs.hits += runs.hits;
        self.runs.time_ns += runs.time_ns;
        self.ran.add(load);
        self.ran_followed += load.hits * load.followed_share(interval_bytes);
        if self.runs.hits < RUNS_THAT_TELL || self.ran.hits <= 0.0 {
            return;
        }
        let mean_ns = to_f64(self.runs.time_ns) / to_f64(self.runs.hits);
        self.work.learn(mean_ns, self.ran_followed / self.ran.hits);
        self.runs = Runs::default();
        self.ran = Load::default();
        self.ran_followed = 0.0;
    }

    /// The mean cost of a hit.
    pub(crate) fn prices(&self) -> Prices {
        let hits = to_f64(self.last.by_site.iter().sum());
        let trap_ns = if hits > 0.0 {
            self.traps_ns(&HitCounts::default()) / hits
        } else {
            // No hit yet: the mean over the probes.
            let all: f64 = self.sites.iter().map(|site| self.traps.of(*site)).sum();
            if self.sites.is_empty() {
                self.traps.emulated_ns
            } else {
                all / to_f64(self.sites.len() as u64)
            }
        };
        Prices {
            trap_ns,
            work: self.work,
        }
    }

    /// Hits since the start.
    pub(crate) fn hits(&self) -> u64 {
        self.last.by_site.iter().sum::<u64>() - self.start.by_site.iter().sum::<u64>()
    }

    /// Time in the programs since the start, in nanoseconds.
    pub(crate) fn programs_ns(&self) -> f64 {
        to_f64(self.hits()) * self.work.passed_ns + self.followed * self.work.followed_ns
    }

    /// Time that the targets have lost since the start, in nanoseconds.
    pub(crate) fn targets_ns(&self) -> f64 {
        self.traps_ns(&self.start) + self.programs_ns()
    }

    fn traps_ns(&self, since: &HitCounts) -> f64 {
        let hits = self.last.by_site.iter().zip(&since.by_site);
        let traps = hits.enumerate().map(|(cookie, (now, before))| {
            let site = self.sites.get(cookie).copied().unwrap_or_default();
            to_f64(now - before) * self.traps.of(site)
        });
        traps.sum()
    }
}

/// The load between two readings of the counters.
pub(crate) fn load_between(before: &HitCounts, now: &HitCounts, seconds: f64) -> Load {
    let mut load = Load {
        seconds,
        hits: to_f64(now.by_site.iter().sum::<u64>() - before.by_site.iter().sum::<u64>()),
        ..Load::default()
    };
    for (size, (now, before)) in load.sizes.iter_mut().zip(now.by_size.iter().zip(before.by_size)) {
        *size = to_f64(now - before);
    }
    load
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(malloc: u64, free: u64) -> HitCounts {
        let mut counts = HitCounts::default();
        counts.by_site[0] = malloc;
        counts.by_site[1] = free;
        counts.by_size[6] = malloc;
        counts
    }

    fn meter() -> Meter {
        let mut meter = Meter::new(true);
        let malloc = SiteKind {
            has_return: true,
            ..SiteKind::default()
        };
        let free = SiteKind {
            single_stepped: true,
            is_free: true,
            ..SiteKind::default()
        };
        meter.know_sites(&[malloc, free]);
        meter
    }

    #[test]
    fn each_probe_has_its_own_price() {
        let mut meter = meter();
        meter.begin(&counts(1000, 1000));
        let load = meter.take(&counts(1100, 1010), 1.0, Some(1));
        assert!((load.hits_per_s() - 110.0).abs() < 1e-9);
        assert_eq!(meter.hits(), 110);
        let Traps {
            emulated_ns,
            stepped_ns,
            return_ns,
            ..
        } = meter.traps;
        let work = Work::assumed(true);
        let traps = 100.0 * (emulated_ns + return_ns) + 10.0 * stepped_ns;
        let programs = 110.0 * work.passed_ns + 100.0 * work.followed_ns;
        assert!((meter.targets_ns() - traps - programs).abs() < 1e-6);
        assert!((meter.programs_ns() - programs).abs() < 1e-6);
    }

    #[test]
    fn allocations_are_known_by_their_probes_where_sizes_are_not_counted() {
        let mut meter = meter();
        let unsized_counts = |malloc, free| HitCounts {
            by_size: HitCounts::default().by_size,
            ..counts(malloc, free)
        };
        meter.begin(&unsized_counts(1000, 1000));
        let load = meter.take(&unsized_counts(1100, 1010), 1.0, Some(1));
        assert!((load.followed_share(1) - 100.0 / 110.0).abs() < 1e-9);
        assert!((meter.followed - 100.0).abs() < 1e-9);
    }

    #[test]
    fn hits_that_are_not_taken_in_cost_their_trap() {
        let mut meter = meter();
        meter.begin(&counts(0, 0));
        meter.take(&counts(100, 0), 1.0, None);
        assert!(meter.followed.abs() < 1e-9);
        assert!(meter.targets_ns() > 100.0 * meter.traps.emulated_ns);
    }

    #[test]
    fn what_the_kernel_says_counts_for_all_that_was() {
        let mut meter = meter();
        meter.begin(&counts(0, 0));
        let load = meter.take(&counts(1000, 0), 1.0, Some(1));
        let runs = Runs {
            hits: 60,
            time_ns: 60 * 500,
        };
        meter.learn(runs, &load, 1);
        assert!(!meter.prices().work.is_measured, "too few");
        meter.learn(runs, &load, 1);
        assert!(meter.prices().work.is_measured);
        assert!(
            (meter.programs_ns() - 500_000.0).abs() < 1.0,
            "{}",
            meter.programs_ns()
        );
    }

    #[test]
    fn before_any_hit_the_probes_tell() {
        let meter = meter();
        let of = |site: &SiteKind| meter.traps.of(*site);
        let mean = meter.sites.iter().map(of).sum::<f64>() / 2.0;
        assert!((meter.prices().trap_ns - mean).abs() < 1e-9);
    }
}
