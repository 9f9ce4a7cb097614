//! The share of its throughput that a process keeps while it is traced:
//! `tests/bench/fixtures/paced_loop.c`, which allocates a million times a second.
//!
//! Each round is one process: left alone, traced, left alone again. Pairs are counted per second of
//! CPU time, so that others on the machine do not count. A server's requests are counted likewise
//! ([`redis`]).

mod redis;

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::measure::{empty, median, patiently, ratio};
use super::results::{Judgement, LimitVerdict, RowKind, Throughput};
use super::running_loop::{Loop, pair};
use super::target::{LoopTarget, compile};
use super::tools::{self, BenchTool, KEPT_LIMIT, SeenCalls, ToolWay, Tracer};
use super::{SIZE_BYTES, interrupt, progress};
use test_support::workspace;

/// Functions between main and malloc: the work's two are among them.
const DEPTH: u32 = 20;

/// The time that a process is watched, in each of the states.
pub(crate) struct Spans {
    pub(crate) rounds: usize,
    pub(crate) bare: Duration,
    pub(crate) traced: Duration,
}

/// For figures to quote.
pub(crate) const FULL: Spans = Spans {
    rounds: 3,
    bare: Duration::from_millis(1500),
    traced: Duration::from_secs(5),
};

/// For a look.
pub(crate) const QUICK: Spans = Spans {
    rounds: 1,
    bare: Duration::from_secs(1),
    traced: Duration::from_secs(3),
};

/// Measures every tool. A tool that fails fills its row with the reason.
pub(crate) fn measure(tools: &[BenchTool], spans: &Spans, directory: &Path) -> Result<Vec<Throughput>> {
    let binary = compile(
        "paced_loop.c",
        &["-fno-omit-frame-pointer"],
        directory,
        "paced_loop",
    )?;
    let mut rows: Vec<(Throughput, Vec<BudgetRound>)> =
        tools.iter().map(|tool| (row_of(tool), Vec::new())).collect();
    for round in 1..=spans.rounds {
        for ((row, rounds), tool) in rows.iter_mut().zip(tools) {
            let ToolWay::Attached(tracer) = &tool.way else {
                continue;
            };
            if row.problem.is_some() {
                continue;
            }
            progress::say(&format!(
                "budget: round {round} of {}: {}",
                spans.rounds, tool.name
            ));
            let attempt = || one_round(&binary, tracer.as_ref(), spans, &directory.join("budget"));
            match patiently(tool.kind, attempt) {
                Ok(round) => rounds.push(round),
                Err(error) => {
                    interrupt::check()?;
                    eprintln!("xtask: {}: {error:#}", tool.name);
                    row.problem = Some(format!("{error:#}"));
                }
            }
        }
    }
    Ok(rows.into_iter().map(|(row, rounds)| fill(row, &rounds)).collect())
}

/// A row that nothing was measured for yet.
fn row(tool: &str, kind: RowKind) -> Throughput {
    Throughput {
        tool: tool.to_owned(),
        kind,
        bare_per_s: None,
        traced_per_s: None,
        kept: None,
        round_kept: Vec::new(),
        seen_share: None,
        note: None,
        problem: None,
    }
}

fn row_of(tool: &BenchTool) -> Throughput {
    Throughput {
        note: tool.way.note(),
        problem: tool.way.missing(),
        ..row(tool.name, tool.kind)
    }
}

/// The figures of one process.
struct BudgetRound {
    bare_per_s: f64,
    traced_per_s: f64,
    seen_share: Option<f64>,
}

fn one_round(binary: &Path, tracer: &dyn Tracer, spans: &Spans, directory: &Path) -> Result<BudgetRound> {
    empty(directory)?;
    let mut command = workspace::untouched(binary);
    command.args([SIZE_BYTES.to_string(), DEPTH.to_string()]);
    let mut process = LoopTarget::watch(Loop::start_with_arguments(command)?)?;
    process.measured().go()?;
    let before = watch(process.measured(), spans.bare)?.rate()?;
    let running = tools::attach(tracer, &process, directory)?;
    let during = watch(process.measured(), spans.traced)?;
    running.stop()?;
    process.wait_until_bare()?;
    let after = watch(process.measured(), spans.bare)?.rate()?;
    process.measured().end_input();
    let seen = match tracer.seen(directory)? {
        SeenCalls::Calls(calls) | SeenCalls::Estimate { calls, .. } => Some(calls),
        SeenCalls::Bytes(bytes) => Some(bytes / SIZE_BYTES),
        SeenCalls::Nothing | SeenCalls::Walks { .. } => None,
    };
    ensure!(seen != Some(0), "it saw no call");
    Ok(BudgetRound {
        bare_per_s: f64::midpoint(before, after),
        traced_per_s: during.rate()?,
        seen_share: seen.map(|seen| ratio(seen, during.pairs)),
    })
}

/// Work done in some time.
struct Watched {
    pairs: u64,
    cpu_ns: u64,
}

impl Watched {
    /// Pairs per second of CPU time.
    fn rate(&self) -> Result<f64> {
        ensure!(
            self.pairs > 0 && self.cpu_ns > 0,
            "failed to measure: the loop did nothing"
        );
        Ok(ratio(self.pairs, self.cpu_ns) * 1e9)
    }
}

/// Looks at the loop for so long.
fn watch(measured: &mut Loop, span: Duration) -> Result<Watched> {
    let first = latest(measured)?;
    let started = Instant::now();
    let mut last = first;
    while started.elapsed() < span {
        last = pair(&measured.line()?)?;
    }
    difference(first, last).context("failed to measure: the loop's figures go backwards")
}

/// The newest line: those that have waited since are read away.
fn latest(measured: &mut Loop) -> Result<(u64, u64)> {
    loop {
        let started = Instant::now();
        let line = pair(&measured.line()?)?;
        // A line comes every tenth of a second; one that was there at once may be an old one.
        if started.elapsed() > Duration::from_millis(20) {
            return Ok(line);
        }
        sleep(Duration::from_millis(1));
    }
}

/// Between two lines of pairs and nanoseconds.
fn difference(first: (u64, u64), last: (u64, u64)) -> Option<Watched> {
    Some(Watched {
        pairs: last.0.checked_sub(first.0)?,
        cpu_ns: last.1.checked_sub(first.1)?,
    })
}

fn fill(row: Throughput, rounds: &[BudgetRound]) -> Throughput {
    let middle = |of: &dyn Fn(&BudgetRound) -> Option<f64>| {
        median(&mut rounds.iter().filter_map(of).collect::<Vec<_>>())
    };
    let kept = |round: &BudgetRound| round.traced_per_s / round.bare_per_s;
    Throughput {
        bare_per_s: middle(&|round| Some(round.bare_per_s)),
        traced_per_s: middle(&|round| Some(round.traced_per_s)),
        kept: middle(&|round| Some(kept(round))),
        round_kept: rounds.iter().map(kept).collect(),
        seen_share: middle(&|round| round.seen_share),
        ..row
    }
}

/// The same of redis-server under memtap alone.
pub(crate) fn measure_server(memtap: &Path, spans: &Spans, directory: &Path) -> Throughput {
    let row = row(redis::NAME, RowKind::Headline);
    match redis::rounds(memtap, spans, &directory.join("server")) {
        Ok((rounds, mut on_the_clock)) => {
            let note = median(&mut on_the_clock)
                .map(|kept| format!("requests; {:.1} % of those on the clock", 100.0 * kept));
            fill(Throughput { note, ..row }, &rounds)
        }
        Err(error) => {
            eprintln!("xtask: {}: {error:#}", redis::NAME);
            Throughput {
                problem: Some(format!("{error:#}")),
                ..row
            }
        }
    }
}

/// Holds the rows with a budget against their limit.
pub(crate) fn judge(rows: &[Throughput]) -> Vec<Judgement> {
    let judged = rows.iter().filter(|row| row.kind == RowKind::Headline);
    let judgement = |row: &Throughput| {
        let verdict = match (row.kept, &row.problem) {
            (Some(kept), None) if kept >= KEPT_LIMIT => LimitVerdict::Pass,
            (Some(_), _) => LimitVerdict::Fail,
            (None, _) => LimitVerdict::Unknown,
        };
        let kept = row.kept.map_or_else(
            || row.problem.clone().unwrap_or_default(),
            |kept| format!("it keeps {:.1} % of its throughput", 100.0 * kept),
        );
        Judgement {
            verdict,
            part: "budget".to_owned(),
            figure: row.kept,
            limit: KEPT_LIMIT,
            sentence: format!("{}: {kept}; the limit is {:.0} %", row.tool, 100.0 * KEPT_LIMIT),
        }
    };
    judged.map(judgement).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let rate = |first, last| difference(first, last).and_then(|watched| watched.rate().ok());
        assert_eq!(rate((10, 1_000), (30, 21_000)), Some(1e6));
        assert_eq!(rate((10, 1_000), (10, 1_000)), None);
        assert_eq!(rate((10, 1_000), (5, 2_000)), None);
    }

    #[test]
    fn a_process_that_is_slowed_down_too_much() {
        let tool = BenchTool {
            name: "memtap",
            kind: RowKind::Headline,
            build: super::super::target::Build::FramePointers,
            clock: super::super::results::Clock::Thread,
            pace: super::super::effort::USUAL,
            way: ToolWay::Alone,
            is_before: false,
        };
        let round = |traced_per_s| BudgetRound {
            bare_per_s: 100.0,
            traced_per_s,
            seen_share: Some(1.0),
        };
        let verdict = |rounds: &[BudgetRound]| judge(&[fill(row_of(&tool), rounds)])[0].verdict;
        assert_eq!(
            verdict(&[round(99.0), round(50.0), round(98.0)]),
            LimitVerdict::Pass
        );
        assert_eq!(verdict(&[round(96.0)]), LimitVerdict::Fail);
        assert_eq!(verdict(&[]), LimitVerdict::Unknown);
    }
}
