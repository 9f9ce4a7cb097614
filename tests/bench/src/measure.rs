//! Measuring the loop: rounds × depths × tools, each a fresh process.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::effort::Effort;
use super::results::{Clock, RowKind};
use super::running_loop::{Batch, Loop, Turns};
use super::target::{Builds, LoopTarget};
use super::tools::{self, BenchTool, SeenCalls, ToolWay};
use super::{SIZE_BYTES, interrupt, progress};

/// The figures of all rounds for one tool at one depth.
pub(crate) struct LoopRow {
    /// Index into the table of tools.
    pub(crate) tool: usize,
    pub(crate) depth: u32,
    pub(crate) threads: u32,
    /// Nanoseconds per malloc and free: the median of each round's batches.
    pub(crate) round_ns: Vec<f64>,
    /// The fastest batch of all rounds, in nanoseconds per malloc and free.
    pub(crate) min_ns: f64,
    /// Calls that the loop made in the rounds in which the tool counted.
    pub(crate) calls_made: u64,
    /// Calls that the tool counted; nothing for one that does not count.
    pub(crate) calls_seen: Option<u64>,
    /// The standard error of that, where it is an estimate: the root of the sum of squares.
    pub(crate) calls_stderr: Option<f64>,
    /// Frames that were found at each call, of a tool that tells.
    pub(crate) frames: Option<u64>,
    pub(crate) note: Option<String>,
    /// The reason for missing figures, or not for all rounds.
    pub(crate) problem: Option<String>,
}

impl LoopRow {
    /// A row without figures.
    pub(crate) fn new(tool: usize, depth: u32, threads: u32) -> Self {
        Self {
            tool,
            depth,
            threads,
            round_ns: Vec::new(),
            min_ns: f64::INFINITY,
            calls_made: 0,
            calls_seen: None,
            calls_stderr: None,
            frames: None,
            note: None,
            problem: None,
        }
    }
}

/// The programs, directory and effort of a measurement.
pub(crate) struct LoopSetup<'a> {
    pub(crate) part: &'a str,
    pub(crate) effort: &'a Effort,
    pub(crate) builds: &'a Builds,
    pub(crate) directory: &'a Path,
    /// Numbers of threads to measure with.
    pub(crate) threads: &'a [u32],
}

/// Measures every tool at every depth with every number of threads. A tool that fails fills its row
/// with the reason; only an interruption ends the whole. Every second round goes backwards, so that
/// no row is always the first of two.
pub(crate) fn all(tools: &[BenchTool], depths: &[u32], place: &LoopSetup<'_>) -> Result<Vec<LoopRow>> {
    let mut rows = Vec::new();
    for &depth in depths {
        for tool in 0..tools.len() {
            rows.extend(
                place
                    .threads
                    .iter()
                    .map(|&threads| LoopRow::new(tool, depth, threads)),
            );
        }
    }
    for row in &mut rows {
        row.problem = tools[row.tool].way.missing();
        row.note = tools[row.tool].way.note();
    }
    let runnable = rows.iter().filter(|row| row.problem.is_none()).count();
    for round in 1..=place.effort.rounds {
        let mut done = 0;
        let mut order: Vec<usize> = (0..rows.len())
            .filter(|&row| rows[row].problem.is_none())
            .collect();
        if round.is_multiple_of(2) {
            order.reverse();
        }
        for index in order {
            let row = &mut rows[index];
            let tool = &tools[row.tool];
            done += 1;
            progress::say(&format!(
                "{}: round {round} of {}, {done} of {runnable}: {} at depth {} in {} threads",
                place.part,
                place.effort.rounds,
                tool.label(),
                row.depth,
                row.threads
            ));
            if let Err(error) = patiently(tool.kind, || add_round(row, tool, place)) {
                interrupt::check()?;
                eprintln!("xtask: {}: {error:#}", tool.label());
                row.problem = Some(format!("{error:#}"));
            }
        }
    }
    Ok(rows)
}

/// Lets another tool try again if it fails: a row of it is worth more than its being reliable.
/// memtap has to be.
pub(crate) fn patiently<T>(kind: RowKind, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    match attempt() {
        Err(error) if kind == RowKind::Peer && !interrupt::is_wanted() => {
            eprintln!("xtask: once more, after: {error:#}");
            attempt()
        }
        result => result,
    }
}

fn add_round(row: &mut LoopRow, tool: &BenchTool, place: &LoopSetup<'_>) -> Result<()> {
    interrupt::check()?;
    let directory = place.directory.join(format!("tool-{}", row.tool));
    empty(&directory)?;
    let turns = Turns {
        depth: row.depth,
        pairs: place.effort.pairs_at(tool.pace),
        batches: place.effort.batches,
        threads: row.threads,
        starts_one: place.threads.len() > 1,
    };
    let binary = place.builds.binary(tool.build);
    let batches = match &tool.way {
        ToolWay::Alone => alone(binary, &turns)?,
        ToolWay::Launched(launcher) => {
            let command = launcher.command(binary, &directory)?;
            let mut measured = Loop::start(command, &turns)?;
            let batches = measured.run()?;
            measured.finish()?;
            row.add_seen(launcher.seen(&directory)?, &turns)?;
            batches
        }
        ToolWay::Attached(tracer) => {
            let mut target = LoopTarget::start(binary, &turns)?;
            let running = tools::attach(tracer.as_ref(), &target, &directory)?;
            let batches = target.run()?;
            running.stop()?;
            row.add_seen(tracer.seen(&directory)?, &turns)?;
            batches
        }
    };
    let time = |batch: &Batch| match tool.clock {
        Clock::Thread => batch.cpu_ns,
        Clock::Wall => batch.wall_ns,
    };
    let mut per_pair: Vec<f64> = batches
        .iter()
        .map(|batch| ratio(time(batch), turns.pairs))
        .collect();
    row.min_ns = per_pair.iter().copied().fold(row.min_ns, f64::min);
    match median(&mut per_pair) {
        Some(median) => row.round_ns.push(median),
        None => bail!("failed to measure: the loop timed no batch"),
    }
    // Profiles of single calls are large.
    empty(&directory)
}

/// The number of attempts to run the loop alone.
const TRIES: usize = 5;

/// Runs the loop with no tracer near: one of all processes may come while it runs.
fn alone(binary: &Path, turns: &Turns) -> Result<Vec<Batch>> {
    for _ in 0..TRIES {
        let mut target = LoopTarget::start(binary, turns)?;
        let batches = target.run()?;
        if target.is_bare()? {
            return Ok(batches);
        }
        eprintln!("xtask: another tracer came while the loop ran alone: once more");
    }
    bail!("failed to measure: other tracers come and go in this libc's malloc")
}

/// Makes a directory that is empty: a tracer that wrote nothing must not be judged by an older
/// run's file.
pub(crate) fn empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("failed to remove {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("failed to create {}", directory.display()))
}

impl LoopRow {
    /// Takes in what the tool saw in one round.
    fn add_seen(&mut self, seen: SeenCalls, turns: &Turns) -> Result<()> {
        let calls = match seen {
            SeenCalls::Nothing => return Ok(()),
            SeenCalls::Calls(calls) => calls,
            SeenCalls::Bytes(bytes) => bytes / SIZE_BYTES,
            SeenCalls::Walks { calls, frames } => {
                self.frames = Some(frames);
                calls
            }
            SeenCalls::Estimate { calls, stderr } => {
                self.calls_stderr = Some(self.calls_stderr.unwrap_or(0.0).hypot(stderr));
                calls
            }
        };
        if calls == 0 {
            bail!("it saw no call");
        }
        self.calls_made += turns.calls();
        self.calls_seen = Some(self.calls_seen.unwrap_or(0) + calls);
        Ok(())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds and counts of a benchmark stay far below 2^52"
)]
pub(crate) fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn others_may_try_again() {
        for (kind, expected) in [(RowKind::Peer, Some(2)), (RowKind::Headline, None)] {
            let mut tries = 0;
            let result = patiently(kind, || {
                tries += 1;
                ensure!(tries > 1, "the first");
                Ok(tries)
            });
            assert_eq!(result.ok(), expected);
        }
    }

    #[test]
    fn calls_seen_and_made() {
        let turns = Turns {
            depth: 3,
            pairs: 10,
            batches: 4,
            threads: 2,
            starts_one: false,
        };
        let seen = |seen| {
            let mut row = LoopRow::new(0, 3, 2);
            row.add_seen(seen, &turns)
                .map(|()| (row.calls_seen, row.calls_made))
        };
        assert_eq!(seen(SeenCalls::Calls(99)).ok(), Some((Some(99), 100)));
        assert_eq!(
            seen(SeenCalls::Bytes(49 * SIZE_BYTES)).ok(),
            Some((Some(49), 100))
        );
        assert_eq!(seen(SeenCalls::Nothing).ok(), Some((None, 0)));
        assert!(seen(SeenCalls::Calls(0)).is_err());

        let mut row = LoopRow::new(0, 3, 2);
        for stderr in [3.0, 4.0] {
            let estimate = SeenCalls::Estimate { calls: 90, stderr };
            row.add_seen(estimate, &turns).expect("small numbers");
        }
        assert_eq!((row.calls_seen, row.calls_stderr), (Some(180), Some(5.0)));
    }
}
