//! The measuring itself: rounds × depths × tools, each a fresh process.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::target::{Builds, Loop, Target};
use super::tools::{Seen, Tool, Way};
use super::{Effort, SIZE_BYTES};

/// Between the probe's appearance and the first call: a tracer enables its program after placing its probe.
const SETTLE: Duration = Duration::from_millis(500);

/// What all rounds gave for one tool at one depth.
pub(crate) struct Row {
    /// Index into the table of tools.
    pub(crate) tool: usize,
    pub(crate) depth: u32,
    /// Nanoseconds per malloc and free: the median of each round's batches.
    pub(crate) round_ns: Vec<f64>,
    /// The fastest batch of all rounds, in nanoseconds per malloc and free.
    pub(crate) min_ns: f64,
    /// Calls that the tool counted less calls that the loop made, over all rounds: below zero it missed some,
    /// above zero it counted those of other processes too. Nothing for one that does not count.
    pub(crate) count_error: Option<i64>,
    /// Frames that were found at each call, of a tool that tells.
    pub(crate) frames: Option<u64>,
    /// Why there are no figures, or not for all rounds.
    pub(crate) problem: Option<String>,
}

/// Measures every tool at every depth. A tool that fails fills its row with the reason.
pub(crate) fn all(
    tools: &[Tool],
    depths: &[u32],
    effort: &Effort,
    builds: &Builds,
    folder: &Path,
) -> Vec<Row> {
    let mut rows: Vec<Row> = depths
        .iter()
        .flat_map(|&depth| (0..tools.len()).map(move |tool| (tool, depth)))
        .map(|(tool, depth)| Row {
            tool,
            depth,
            round_ns: Vec::new(),
            min_ns: f64::INFINITY,
            count_error: None,
            frames: None,
            problem: tools[tool].way.missing(),
        })
        .collect();
    for round in 1..=effort.rounds {
        eprintln!("xtask: round {round} of {}", effort.rounds);
        for row in rows.iter_mut().filter(|row| row.problem.is_none()) {
            if let Err(error) = add_round(row, &tools[row.tool], effort, builds, folder) {
                eprintln!("xtask: {}: {error:#}", tools[row.tool].name);
                row.problem = Some(format!("{error:#}"));
            }
        }
    }
    rows
}

fn add_round(row: &mut Row, tool: &Tool, effort: &Effort, builds: &Builds, folder: &Path) -> Result<()> {
    let folder = folder.join(format!("tool-{}", row.tool));
    // A tracer that wrote nothing must not be judged by an older run's file.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;

    let binary = builds.binary(tool.build);
    let batches = match &tool.way {
        Way::Alone => Target::start(binary, row.depth, effort)?.run()?,
        Way::Launched(launcher) => {
            let command = launcher.command(binary, &folder)?;
            let mut measured = Loop::start(command, row.depth, effort)?;
            let batches = measured.run()?;
            measured.finish()?;
            row.add_seen(launcher.seen(&folder)?, effort)?;
            batches
        }
        Way::Attached(tracer) => {
            let mut target = Target::start(binary, row.depth, effort)?;
            let mut running = tracer.attach(&target, &folder)?;
            if let Err(error) = target.wait_until_probed() {
                return match running.failure() {
                    Some(failure) => Err(error).context(failure),
                    None => Err(error),
                };
            }
            sleep(SETTLE);
            let batches = target.run()?;
            running.stop()?;
            row.add_seen(tracer.seen(&folder)?, effort)?;
            batches
        }
    };
    let mut per_pair: Vec<f64> = batches.iter().map(|&ns| ratio(ns, effort.pairs)).collect();
    row.min_ns = per_pair.iter().copied().fold(row.min_ns, f64::min);
    match median(&mut per_pair) {
        Some(median) => row.round_ns.push(median),
        None => bail!("failed to measure: the loop timed no batch"),
    }
    Ok(())
}

impl Row {
    /// Takes in what the tool saw in one round.
    fn add_seen(&mut self, seen: Seen, effort: &Effort) -> Result<()> {
        let calls = match seen {
            Seen::Nothing => return Ok(()),
            Seen::Calls(calls) => calls,
            Seen::Bytes(bytes) => bytes / SIZE_BYTES,
            Seen::Walks { calls, frames } => {
                self.frames = Some(frames);
                calls
            }
        };
        // The batch that warms up is among them.
        let made = (effort.batches + 1) * effort.pairs;
        let error = i64::try_from(calls)? - i64::try_from(made)?;
        self.count_error = Some(self.count_error.unwrap_or(0) + error);
        Ok(())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds and counts of a benchmark stay far below 2^52"
)]
fn ratio(ns: u64, pairs: u64) -> f64 {
    ns as f64 / pairs as f64
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
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn calls_missed_and_in_excess() {
        let effort = Effort {
            rounds: 1,
            batches: 4,
            pairs: 10,
        };
        let error = |seen| {
            let mut row = Row {
                tool: 0,
                depth: 3,
                round_ns: Vec::new(),
                min_ns: f64::INFINITY,
                count_error: None,
                frames: None,
                problem: None,
            };
            row.add_seen(seen, &effort).expect("small numbers");
            row.count_error
        };
        assert_eq!(error(Seen::Calls(50)), Some(0));
        assert_eq!(error(Seen::Calls(51)), Some(1));
        assert_eq!(error(Seen::Bytes(49 * SIZE_BYTES)), Some(-1));
        assert_eq!(error(Seen::Walks { calls: 48, frames: 6 }), Some(-2));
        assert_eq!(error(Seen::Nothing), None);
    }
}
