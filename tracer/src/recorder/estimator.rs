//! The short count behind an estimate: first calls without stacks, then the stacks of a few calls
//! while the kernel keeps statistics of the programs.

use std::time::{Duration, Instant};

use tracer_ebpf::{BUCKETS, CaptureMode, Counter, Function, HitCounts, STACK_UNWALKED};

use super::budget::RunStatistics;
use super::budget::meter::load_between;
use super::budget::plan::{Load, Switching};
use super::budget::slowing::{Reading, slowed};
use super::estimate::Estimate;
use super::kernel_settings::Purpose;
use super::recorder::{ChildStatus, Recorder};
use super::targets::StartError;
use crate::bpf::load::BpfError;
use crate::bpf::{Object, sums};
use crate::numeric::{saturating_u64, to_f64};
use crate::recorder::cost::{SiteKind, Traps, Work};
use crate::settings::Record;

/// CPU time that the targets may pay for each second that is asked for. Beyond it, fewer of their
/// calls are enough.
const MAX_PAID_S: f64 = 0.010;

/// Interval at which the counters are read.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Limits of the walks of stacks: their time, their hits, and the targets' CPU time.
const MAX_WALK: Duration = Duration::from_millis(300);
const MAX_WALK_HITS: f64 = 2_000.0;
const MAX_WALK_PAID_S: f64 = 0.005;

/// The run time of programs that count calls and walk no stack, until the kernel has told: it keeps
/// statistics for so many hits.
const COUNTING_NS: f64 = 250.0;
const COUNTING_HITS: f64 = 1_000.0;

/// The time for which targets are observed without probes, where these may have slowed them by so
/// much.
const BARE: Duration = Duration::from_millis(50);
const MIN_SLOWED: f64 = 0.02;

/// A recorder that counts calls for an estimate.
pub(crate) struct Estimator {
    recorder: Recorder,
}

/// Calls without stacks, by function, and the counters before and after.
struct CallCount {
    before: Box<HitCounts>,
    after: Box<HitCounts>,
    is_cut: bool,
    /// The cost of a hit meanwhile.
    hit_ns: f64,
}

impl Estimator {
    /// Attaches to the targets. A command waits for [`release`](Self::release).
    pub(crate) fn start(settings: &Record) -> Result<Self, StartError> {
        let recorder = Recorder::start_for(settings, Purpose::Estimate)?;
        Ok(Self { recorder })
    }

    /// The recorder, whose targets are counted.
    #[must_use]
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Lets a launched command run.
    pub(crate) fn release(&mut self) -> Result<Option<std::process::Child>, StartError> {
        self.recorder.release()
    }

    /// Counts for this time, or until the command or all targets have ended, and detaches the
    /// probes.
    pub(crate) async fn estimate(
        &mut self,
        duration: Duration,
        mut child: Option<ChildStatus>,
    ) -> Result<(Estimate, Option<ChildStatus>), BpfError> {
        // Other targets come and go.
        let pids: Vec<u32> = if self.recorder.scope.is_fixed() {
            self.recorder.processes.pids().collect()
        } else {
            Vec::new()
        };
        let first = Reading::of(&pids, 0.0);
        let count = self.count(duration, &mut child).await?;
        let recorder = &mut self.recorder;
        let counted = recorder.clock.started.elapsed();
        // Hits of the targets alone: others may run into the same probes.
        let meter = recorder.budget.meter();
        let traps = meter.traps();
        let hits = meter.hits_by_process(&recorder.object, &recorder.processes)?;
        let hits = to_f64(hits.values().sum());
        let last = Reading::of(&pids, hits * count.hit_ns);
        let nested = recorder.object.counts()?.events(Counter::Nested);
        let functions = unwalked_calls(&recorder.object)?;
        let sum = |of: fn(&(Function, u64, u64)) -> u64| functions.iter().map(of).sum::<u64>();
        let (calls, bytes) = (sum(|(_, calls, _)| *calls), sum(|(_, _, bytes)| *bytes));
        let asked = to_f64(calls + nested);
        let sites = recorder.attachments.sites().to_vec();
        let mean = |frees: bool| {
            let (before, after) = (&count.before.by_site, &count.after.by_site);
            mean_trap(&traps, &sites, before, after, |site| site.is_free == frees)
        };
        let (asking_ns, freeing_ns) = (mean(false), mean(true));
        self.walk_some(asking_ns).await?;
        let recorder = &mut self.recorder;
        let attaching = recorder.attachments.attaching();
        recorder.finish();
        let slowing_factor = match (first, last) {
            (Some(first), Some(last)) => slowing_factor(&pids, [first, last]).await,
            _ => 1.0,
        };
        let classes = load_between(&count.before, &count.after, 0.0).sizes;
        let load = Load {
            seconds: counted.as_secs_f64() / slowing_factor,
            hits: asked,
            sizes: scaled(&classes, asked, bytes.checked_div(calls).unwrap_or(0)),
        };
        let estimate = Estimate {
            counted,
            is_cut: count.is_cut,
            slowing_factor,
            functions,
            frees: saturating_u64(hits - asked),
            traps,
            work: recorder.budget.meter().prices().work,
            load,
            asking_ns,
            freeing_ns,
            switching: Switching {
                cpu_s: 2.0 * attaching.cpu_s,
                clock_s: 2.0 * attaching.clock_s,
                tail_s: attaching.clock_s,
            },
        };
        Ok((estimate, child))
    }

    /// Counts calls without stacks, and stops recording.
    async fn count(
        &mut self,
        duration: Duration,
        child: &mut Option<ChildStatus>,
    ) -> Result<CallCount, BpfError> {
        let recorder = &mut self.recorder;
        let before = recorder.object.hit_counts()?;
        let mut statistics = RunStatistics::default();
        statistics.open(&recorder.object);
        let mut counting_ns = COUNTING_NS;
        let began = recorder.clock.started;
        let sites = recorder.attachments.sites().to_vec();
        let traps = recorder.budget.meter().traps();
        let max_paid_s = MAX_PAID_S * duration.as_secs_f64();
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            recorder.drain(false);
            let after = recorder.object.hit_counts()?;
            let hits = to_f64(after.by_site.iter().sum::<u64>() - before.by_site.iter().sum::<u64>());
            if statistics.is_open()
                && hits >= COUNTING_HITS
                && let Some(runs) = statistics.close(&recorder.object)
                && runs.hits > 0
            {
                counting_ns = to_f64(runs.time_ns) / to_f64(runs.hits);
            }
            let hit_ns = counting_ns + mean_trap(&traps, &sites, &before.by_site, &after.by_site, |_| true);
            let is_over = began.elapsed() >= duration || has_ended(child).await;
            if is_over || hits * hit_ns * 1e-9 >= max_paid_s {
                recorder.object.set_capture_mode(CaptureMode::Nothing)?;
                return Ok(CallCount {
                    before,
                    after,
                    is_cut: !is_over,
                    hit_ns,
                });
            }
        }
    }

    /// Walks the stacks of some calls, to learn the run time of that.
    async fn walk_some(&mut self, trap_ns: f64) -> Result<(), BpfError> {
        let recorder = &mut self.recorder;
        let assumed = trap_ns + Work::assumed(false).mean_ns(1.0);
        let mut statistics = RunStatistics::default();
        let before = recorder.object.hit_counts()?;
        statistics.open(&recorder.object);
        recorder.object.set_capture_mode(CaptureMode::All)?;
        let began = Instant::now();
        let load = loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            recorder.drain(false);
            let counts = recorder.object.hit_counts()?;
            let load = load_between(&before, &counts, began.elapsed().as_secs_f64());
            let paid_s = load.hits * assumed * 1e-9;
            if began.elapsed() >= MAX_WALK || load.hits >= MAX_WALK_HITS || paid_s >= MAX_WALK_PAID_S {
                break load;
            }
        };
        recorder.object.set_capture_mode(CaptureMode::Nothing)?;
        if let Some(runs) = statistics.close(&recorder.object) {
            recorder.budget.meter_mut().learn(runs, &load);
        }
        Ok(())
    }
}

/// Reads the calls that were counted without a stack, by function: calls, bytes. Those with the
/// most calls come first.
fn unwalked_calls(object: &Object) -> Result<Vec<(Function, u64, u64)>, BpfError> {
    let mut functions: Vec<(Function, u64, u64)> = Vec::new();
    for (key, sum) in sums::read(object)? {
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

/// The speed of these processes without probes, relative to that between two readings. Probes are
/// detached.
async fn slowing_factor(pids: &[u32], probed: [Reading; 2]) -> f64 {
    if slowed(probed, probed.map(Reading::without_cost)) < 1.0 + MIN_SLOWED {
        return 1.0;
    }
    let before = Reading::of(pids, 0.0);
    tokio::time::sleep(BARE).await;
    match (before, Reading::of(pids, 0.0)) {
        (Some(before), Some(after)) => slowed(probed, [before, after]),
        _ => 1.0,
    }
}

/// The size classes of this many calls, distributed as those that were counted, or all of the mean
/// size if none were.
fn scaled(sizes: &[f64; BUCKETS], calls: f64, mean_bytes: u64) -> [f64; BUCKETS] {
    let all: f64 = sizes.iter().sum();
    if all > 0.0 {
        return sizes.map(|count| count * calls / all);
    }
    let mut sizes = [0.0; BUCKETS];
    sizes[mean_bytes.checked_ilog2().unwrap_or(0) as usize] = calls;
    sizes
}

/// The mean cost of a trap over the hits of some of the probes; over these probes, if they were not
/// hit.
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

/// Returns true if the command has ended.
async fn has_ended(child: &mut Option<ChildStatus>) -> bool {
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
