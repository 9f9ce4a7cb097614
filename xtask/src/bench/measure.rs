//! The measuring itself: rounds × depths × tools, each a fresh process.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::target::Target;
use super::tools::{Seen, Tool};
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
    /// above zero it counted those of other processes too.
    pub(crate) count_error: i64,
    /// Why there are no figures, or not for all rounds.
    pub(crate) problem: Option<String>,
}

/// Measures every tool at every depth. A tool that fails fills its row with the reason.
pub(crate) fn all(tools: &[Tool], depths: &[u32], effort: &Effort, target: &Path, folder: &Path) -> Vec<Row> {
    let mut rows: Vec<Row> = depths
        .iter()
        .flat_map(|&depth| (0..tools.len()).map(move |tool| (tool, depth)))
        .map(|(tool, depth)| Row {
            tool,
            depth,
            round_ns: Vec::new(),
            min_ns: f64::INFINITY,
            count_error: 0,
            problem: tools[tool].tracer.as_ref().and_then(|tracer| tracer.missing()),
        })
        .collect();
    for round in 1..=effort.rounds {
        eprintln!("xtask: round {round} of {}", effort.rounds);
        for row in rows.iter_mut().filter(|row| row.problem.is_none()) {
            if let Err(error) = add_round(row, &tools[row.tool], effort, target, folder) {
                eprintln!("xtask: {}: {error:#}", tools[row.tool].name);
                row.problem = Some(format!("{error:#}"));
            }
        }
    }
    rows
}

fn add_round(row: &mut Row, tool: &Tool, effort: &Effort, target: &Path, folder: &Path) -> Result<()> {
    let folder = folder.join(format!("tool-{}", row.tool));
    // A tracer that wrote nothing must not be judged by an older run's file.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;

    let mut target = Target::start(target, row.depth, effort)?;
    let batches = match &tool.tracer {
        None => target.run()?,
        Some(tracer) => {
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
            row.count_error += count_error(tracer.seen(&folder)?, effort)?;
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

/// Calls that the tool saw less those that the loop made, the batch that warms up included.
fn count_error(seen: Seen, effort: &Effort) -> Result<i64> {
    let made = (effort.batches + 1) * effort.pairs;
    let seen = match seen {
        Seen::Calls(calls) => calls,
        Seen::Bytes(bytes) => bytes / SIZE_BYTES,
    };
    Ok(i64::try_from(seen)? - i64::try_from(made)?)
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
        assert_eq!(count_error(Seen::Calls(50), &effort).ok(), Some(0));
        assert_eq!(count_error(Seen::Calls(51), &effort).ok(), Some(1));
        assert_eq!(count_error(Seen::Bytes(49 * SIZE_BYTES), &effort).ok(), Some(-1));
    }
}
