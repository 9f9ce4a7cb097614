//! What ways of tracing would cost processes: counts their calls for a moment, without walking a stack, then walks the stacks of
//! a few of them while the kernel keeps statistics of the programs.

use std::time::{Duration, Instant};

use tracer_ebpf::{Function, STACK_UNWALKED, intake};

use super::budget::meter::load_between;
use super::budget::plan::{Level, Load, Prices, Switching, Wants, plan};
use super::budget::statistics::Statistics;
use super::recorder::{Purpose, Recorder};
use super::start_error::StartError;
use super::{Child, Followed};
use crate::bpf::load::BpfError;
use crate::cost::{SiteKind, Traps, Work, float};
use crate::settings::Record;

/// For each second that is asked for the targets may pay so much: beyond, fewer of their calls are enough.
const PAID_S: f64 = 0.010;

/// How often it is looked at how much they have paid.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Stacks are walked for so long at the most, of so many hits, and for so much of the targets' time.
const WALK: Duration = Duration::from_millis(300);
const WALK_HITS: f64 = 2_000.0;
const WALK_PAID_S: f64 = 0.005;

/// Programs that count calls and walk no stack take about so much.
const COUNTING_NS: f64 = 250.0;

/// What was seen.
#[derive(Debug, Clone)]
pub struct Estimate {
    /// How long calls were counted.
    pub counted: Duration,
    /// Whether that was cut short, since the targets call so often.
    pub is_cut: bool,
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

    /// So many a second.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        float(count) / self.counted.as_secs_f64().max(1e-9)
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

impl Recorder {
    /// Attaches to the targets to see what a recording would cost. A command waits for [`release`](Self::release).
    pub fn start_estimate(settings: &Record) -> Result<Self, StartError> {
        Self::start_for(settings, Purpose::Estimate)
    }

    /// Counts for so long, or until the command or all targets have ended, and takes the probes off.
    pub async fn estimate(
        &mut self,
        duration: Duration,
        mut child: Option<Child>,
    ) -> Result<(Estimate, Option<Child>), BpfError> {
        let before = self.object.hit_counts()?;
        self.object.set_intake(intake::UNWALKED)?;
        let began = Instant::now();
        let sites = self.probes.sites().to_vec();
        let is_of = |frees: bool| move |site: &SiteKind| site.is_free == frees;
        let traps = self.control.meter.traps;
        let paid_most_s = PAID_S * duration.as_secs_f64();
        let (counts, is_cut) = loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.drain(false);
            let counts = self.object.hit_counts()?;
            let hits = float(counts.by_site.iter().sum::<u64>() - before.by_site.iter().sum::<u64>());
            let mean_ns = mean_trap(&traps, &sites, &before.by_site, &counts.by_site, |_| true);
            let paid_s = hits * (mean_ns + COUNTING_NS) * 1e-9;
            let is_over = began.elapsed() >= duration || has_ended(&mut child).await;
            if is_over || paid_s >= paid_most_s {
                break (counts, !is_over);
            }
        };
        self.object.set_intake(intake::NOTHING)?;
        let counted = began.elapsed();
        let frees = sites
            .iter()
            .zip(counts.by_site.iter().zip(before.by_site))
            .filter(|(site, _)| site.is_free)
            .map(|(_, (now, before))| now - before)
            .sum::<u64>();
        let mut load = load_between(&before, &counts, counted.as_secs_f64());
        load.hits -= float(frees);
        let asking_ns = mean_trap(&traps, &sites, &before.by_site, &counts.by_site, is_of(false));
        let freeing_ns = mean_trap(&traps, &sites, &before.by_site, &counts.by_site, is_of(true));
        let mut functions: Vec<(Function, u64, u64)> = Vec::new();
        for (key, sum) in self.object.sums()? {
            let Some(function) = Function::from_number(key.function) else {
                continue;
            };
            if key.stack != STACK_UNWALKED {
                continue;
            }
            match functions.iter_mut().find(|(of, _, _)| *of == function) {
                Some((_, calls, bytes)) => {
                    *calls += sum.calls;
                    *bytes += sum.bytes;
                }
                None => functions.push((function, sum.calls, sum.bytes)),
            }
        }
        functions.sort_by_key(|(_, calls, _)| std::cmp::Reverse(*calls));
        self.walk_some(asking_ns).await?;
        let attaching = self.probes.attaching;
        self.finish();
        let estimate = Estimate {
            counted,
            is_cut,
            functions,
            frees,
            traps,
            work: self.control.meter.prices().work,
            load,
            asking_ns,
            freeing_ns,
            switching: Switching {
                own_s: 2.0 * attaching.own_s,
                clock_s: 2.0 * attaching.clock_s,
                tail_s: attaching.clock_s,
            },
        };
        Ok((estimate, child))
    }

    /// Walks the stacks of some calls, to see what that takes.
    async fn walk_some(&mut self, trap_ns: f64) -> Result<(), BpfError> {
        let assumed = trap_ns + Work::assumed(false).mean_ns(1.0);
        let mut statistics = Statistics::default();
        let before = self.object.hit_counts()?;
        statistics.open(&self.object);
        self.object.set_intake(intake::ALL)?;
        let began = Instant::now();
        let load = loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.drain(false);
            let counts = self.object.hit_counts()?;
            let load = load_between(&before, &counts, began.elapsed().as_secs_f64());
            let paid_s = load.hits * assumed * 1e-9;
            if began.elapsed() >= WALK || load.hits >= WALK_HITS || paid_s >= WALK_PAID_S {
                break load;
            }
        };
        self.object.set_intake(intake::NOTHING)?;
        if let Some(runs) = statistics.close(&self.object) {
            self.control.meter.learn(runs, &load, 1);
        }
        Ok(())
    }
}

/// What a trap costs on average over the hits of some of the probes; over the probes, where there were none.
fn mean_trap(
    traps: &Traps,
    sites: &[SiteKind],
    before: &[u64],
    now: &[u64],
    is_one: impl Fn(&SiteKind) -> bool,
) -> f64 {
    let (mut hits, mut paid_ns, mut count, mut each_ns) = (0.0, 0.0, 0.0, 0.0);
    for (site, (now, before)) in sites.iter().zip(now.iter().zip(before)) {
        if is_one(site) {
            hits += float(now - before);
            paid_ns += float(now - before) * traps.of(*site);
            count += 1.0;
            each_ns += traps.of(*site);
        }
    }
    if hits > 0.0 {
        paid_ns / hits
    } else if count > 0.0 {
        each_ns / count
    } else {
        traps.emulated_ns
    }
}

/// Whether the command has ended.
async fn has_ended(child: &mut Option<Child>) -> bool {
    tokio::task::yield_now().await;
    child.as_ref().is_some_and(tokio::task::JoinHandle::is_finished)
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::BUCKETS;

    use super::*;

    /// So many allocations of some 96 bytes, and as many frees, in a second.
    fn estimate(calls: u64) -> Estimate {
        let mut sizes = [0.0; BUCKETS];
        sizes[6] = float(calls);
        Estimate {
            counted: Duration::from_secs(1),
            is_cut: false,
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
                hits: float(calls),
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

    #[test]
    fn traps_are_those_that_are_hit() {
        let stepped = SiteKind {
            single_stepped: true,
            ..SiteKind::default()
        };
        let sites = [SiteKind::default(), stepped];
        let traps = Traps::ELSEWHERE;
        let mean = |now: [u64; 2]| mean_trap(&traps, &sites, &[0, 0], &now, |_| true);
        assert!((mean([10, 0]) - traps.emulated_ns).abs() < 1e-9);
        assert!((mean([0, 10]) - traps.stepped_ns).abs() < 1e-9);
        assert!((mean([0, 0]) - f64::midpoint(traps.emulated_ns, traps.stepped_ns)).abs() < 1e-9);
    }
}
