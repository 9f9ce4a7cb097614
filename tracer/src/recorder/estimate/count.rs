//! Counts the calls of processes for a moment, without walking a stack, then walks the stacks of a few of them while the kernel
//! keeps statistics of the programs.

use std::time::{Duration, Instant};

use tracer_ebpf::{BUCKETS, Counter, Function, STACK_UNWALKED, intake};

use super::Estimate;
use crate::bpf::load::BpfError;
use crate::cost::measure::Measured;
use crate::cost::{SiteKind, Traps, Work, saturating_u64, to_f64};
use crate::recorder::Child;
use crate::recorder::budget::meter::load_between;
use crate::recorder::budget::plan::{Load, Switching};
use crate::recorder::budget::slowing::{Reading, slowed};
use crate::recorder::budget::statistics::Statistics;
use crate::recorder::recorder::{Purpose, Recorder};
use crate::recorder::start_error::StartError;
use crate::settings::{Record, Target};

/// For each second that is asked for the targets may pay so much: beyond, fewer of their calls are enough.
const PAID_S: f64 = 0.010;

/// How often it is looked at how much they have paid.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Stacks are walked for so long at the most, of so many hits, and for so much of the targets' time.
const WALK: Duration = Duration::from_millis(300);
const WALK_HITS: f64 = 2_000.0;
const WALK_PAID_S: f64 = 0.005;

/// Programs that count calls and walk no stack take about so much, until the kernel has told: for so many hits it keeps
/// statistics.
const COUNTING_NS: f64 = 250.0;
const COUNTING_HITS: f64 = 1_000.0;

/// What targets do without probes is looked at for so long, where they may have done this much less with them.
const BARE: Duration = Duration::from_millis(50);
const SLOWED_LEAST: f64 = 0.02;

impl Recorder {
    /// Attaches to the targets to see what a recording would cost. A command waits for [`release`](Self::release).
    pub fn start_estimate(settings: &Record) -> Result<Self, StartError> {
        Self::start_for(settings, Purpose::Estimate)
    }

    /// Begins to count: a command has not run yet.
    pub(in crate::recorder) fn begin_estimate(
        &mut self,
        measured: Option<Measured>,
    ) -> Result<(), StartError> {
        self.know_prices(measured);
        self.object.set_intake(intake::UNWALKED)?;
        self.control.hits_before = self.hits_by_process()?;
        self.started = Instant::now();
        Ok(())
    }

    /// Counts for so long, or until the command or all targets have ended, and takes the probes off.
    pub async fn estimate(
        &mut self,
        duration: Duration,
        mut child: Option<Child>,
    ) -> Result<(Estimate, Option<Child>), BpfError> {
        let before = self.object.hit_counts()?;
        let pids: Vec<u32> = match self.target {
            Target::Pids(_) | Target::Command(_) => self.processes.pids().collect(),
            // They come and go.
            Target::All | Target::Comm(_) | Target::Cgroup(_) => Vec::new(),
        };
        let first = Reading::of(&pids, 0.0);
        let mut statistics = Statistics::default();
        statistics.open(&self.object);
        let mut counting_ns = COUNTING_NS;
        let began = self.started;
        let sites = self.probes.sites().to_vec();
        let is_of = |frees: bool| move |site: &SiteKind| site.is_free == frees;
        let traps = self.control.meter.traps;
        let paid_most_s = PAID_S * duration.as_secs_f64();
        let (counts, is_cut, hit_ns) = loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.drain(false);
            let counts = self.object.hit_counts()?;
            let hits = to_f64(counts.by_site.iter().sum::<u64>() - before.by_site.iter().sum::<u64>());
            if statistics.is_open()
                && hits >= COUNTING_HITS
                && let Some(runs) = statistics.close(&self.object)
                && runs.hits > 0
            {
                counting_ns = to_f64(runs.time_ns) / to_f64(runs.hits);
            }
            let hit_ns = counting_ns + mean_trap(&traps, &sites, &before.by_site, &counts.by_site, |_| true);
            let is_over = began.elapsed() >= duration || has_ended(&mut child).await;
            if is_over || hits * hit_ns * 1e-9 >= paid_most_s {
                break (counts, !is_over, hit_ns);
            }
        };
        drop(statistics);
        self.object.set_intake(intake::NOTHING)?;
        let counted = began.elapsed();
        // Those of the targets alone: others may run into the same probes.
        let hits = to_f64(self.hits_by_process()?.values().sum());
        let last = Reading::of(&pids, hits * hit_ns);
        let nested = self.object.counts()?.events(Counter::Nested);
        let functions = self.unwalked()?;
        let sum = |of: fn(&(Function, u64, u64)) -> u64| functions.iter().map(of).sum::<u64>();
        let (calls, bytes) = (sum(|(_, calls, _)| *calls), sum(|(_, _, bytes)| *bytes));
        let asked = to_f64(calls + nested);
        let asking_ns = mean_trap(&traps, &sites, &before.by_site, &counts.by_site, is_of(false));
        let freeing_ns = mean_trap(&traps, &sites, &before.by_site, &counts.by_site, is_of(true));
        self.walk_some(asking_ns).await?;
        let attaching = self.probes.attaching;
        self.finish();
        let slowing_factor = match (first, last) {
            (Some(first), Some(last)) => how_slowed(&pids, [first, last]).await,
            _ => 1.0,
        };
        let classes = load_between(&before, &counts, 0.0).sizes;
        let load = Load {
            seconds: counted.as_secs_f64() / slowing_factor,
            hits: asked,
            sizes: scaled(&classes, asked, bytes.checked_div(calls).unwrap_or(0)),
        };
        let estimate = Estimate {
            counted,
            is_cut,
            slowing_factor,
            functions,
            frees: saturating_u64(hits - asked),
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

    /// What was counted without a stack, by function: calls, bytes. Those with the most calls first.
    fn unwalked(&self) -> Result<Vec<(Function, u64, u64)>, BpfError> {
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
        Ok(functions)
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

/// By how much more these processes do than they did between two readings. The probes are off.
async fn how_slowed(pids: &[u32], probed: [Reading; 2]) -> f64 {
    if slowed(probed, probed.map(Reading::without_cost)) < 1.0 + SLOWED_LEAST {
        return 1.0;
    }
    let before = Reading::of(pids, 0.0);
    tokio::time::sleep(BARE).await;
    match (before, Reading::of(pids, 0.0)) {
        (Some(before), Some(after)) => slowed(probed, [before, after]),
        _ => 1.0,
    }
}

/// So many calls, as large as those of which sizes were counted; if there are none, of this size.
fn scaled(sizes: &[f64; BUCKETS], calls: f64, mean_bytes: u64) -> [f64; BUCKETS] {
    let all: f64 = sizes.iter().sum();
    if all > 0.0 {
        return sizes.map(|count| count * calls / all);
    }
    let mut sizes = [0.0; BUCKETS];
    sizes[mean_bytes.checked_ilog2().unwrap_or(0) as usize] = calls;
    sizes
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
            hits += to_f64(now - before);
            paid_ns += to_f64(now - before) * traps.of(*site);
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
    use super::*;

    #[test]
    fn sizes_are_those_that_were_counted() {
        let mut sizes = [0.0; BUCKETS];
        assert!((scaled(&sizes, 3.0, 1070)[10] - 3.0).abs() < 1e-9);
        assert!((scaled(&sizes, 3.0, 0)[0] - 3.0).abs() < 1e-9);
        (sizes[4], sizes[8]) = (10.0, 30.0);
        let scaled = scaled(&sizes, 20.0, 1);
        assert!((scaled[4] - 5.0).abs() < 1e-9 && (scaled[8] - 15.0).abs() < 1e-9);
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
