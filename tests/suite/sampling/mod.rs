//! Estimates from a sample, against the truth.
//!
//! An allocation of `s` bytes is sampled with `p = 1 - exp(-s / T)` and then stands for `w` of its
//! kind, `1 / p` on average. One of its kind adds `1/p - 1` to the variance of an estimated count,
//! and a little for the rounding of `w` to a whole number; `s²` times that to the variance of
//! bytes. All tests allow five times the root of what comes of it: a right implementation exceeds
//! that once in two million times, and the random numbers are the same each time but for what
//! threads do to each other. Sizes and numbers of calls are such that five times the root, of the
//! mean over all processes, is below 2 %, which is checked: a bias of that size fails.
#![expect(clippy::cast_precision_loss, reason = "statistics")]

mod truth;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    ARMS, Context, Counts, Fixture, FoldedStacks, HeapFigures, Memtap, MemtapRecording, Need,
};
use serde_json::Value;

use crate::case::{Case, case};
use truth::{CALLS, Calls, Coverage, Truth, calls, variance};

pub(crate) const CASES: &[Case] = &[
    case("sampling::every_stack", &[Need::Compiler], every_stack),
    case("sampling::live", &[Need::Compiler], live),
    case("sampling::threads", &[Need::Compiler], threads),
    case("sampling::jumps", &[Need::Compiler], jumps),
    case(
        "sampling::one_is_every_call",
        &[Need::Compiler],
        one_is_every_call,
    ),
    case("sampling::seeds", &[Need::Compiler], seeds),
    case("sampling::words", &[Need::Compiler], words),
];

/// A child's weight by stack, from a folded file.
type Weights = BTreeMap<String, BTreeMap<&'static str, u64>>;

/// The weights of the fixture's stacks, by process.
fn weights(folded: &FoldedStacks) -> Weights {
    let mut weights = Weights::new();
    for line in &folded.lines {
        let Some(leaf) = line.frames.last() else { continue };
        if let Some(calls) = CALLS.iter().find(|calls| calls.stack == leaf) {
            let process = weights.entry(line.process.clone()).or_default();
            *process.entry(calls.stack).or_default() += line.weight;
        }
    }
    weights
}

/// The stacks, each once.
fn stacks() -> impl Iterator<Item = &'static str> {
    let first =
        |index: &usize| CALLS.iter().position(|calls| calls.stack == CALLS[*index].stack) == Some(*index);
    (0..CALLS.len()).filter(first).map(|index| CALLS[index].stack)
}

fn of_stack(stack: &'static str) -> impl Iterator<Item = &'static Calls> {
    CALLS.iter().filter(move |calls| calls.stack == stack)
}

/// A second folded file that was asked for.
fn second(recording: &MemtapRecording, name: &str) -> Result<FoldedStacks> {
    FoldedStacks::parse(&std::fs::read_to_string(recording.directory().join(name))?)
}

/// Children in one run of memtap: each run has a seed of its own.
const CHILDREN: usize = 25;

/// The children that ran: all of the fixture's processes but the first, which makes no calls.
fn children(recording: &MemtapRecording) -> Result<Vec<Value>> {
    let processes = recording.summary()?.json["processes"].as_array().cloned();
    let mut processes = processes.context("no processes")?;
    processes.retain(|process| process["totals"]["alloc"]["count"].as_u64() > Some(0));
    ensure!(
        processes.len() == CHILDREN,
        "{} processes made calls, {CHILDREN} were made",
        processes.len()
    );
    Ok(processes)
}

/// A number of a process's totals.
fn number(process: &Value, path: &str) -> Result<f64> {
    process
        .pointer(&format!("/totals/{path}"))
        .and_then(Value::as_f64)
        .with_context(|| format!("a process has no {path}: {process}"))
}

/// 200 children: each stack's bytes and calls, and the standard errors of four functions that are
/// sampled thinly enough.
fn every_stack(context: &Context) -> Result<()> {
    const INTERVAL: u64 = 256;
    const COVERED: [&str; 4] = ["malloc", "calloc", "realloc", "reallocarray"];
    let fixture = Fixture::c(context, "sampled")?;
    let mut found: BTreeMap<(&str, bool), Vec<f64>> = BTreeMap::new();
    let mut coverage = Coverage::default();
    for seed in 1..=8 {
        let recording = Memtap::record(context)?
            .arguments(["--per-pid", "--sample", &INTERVAL.to_string()])
            .arguments(["--seed", &seed.to_string(), "-o", "alloc-count=counts.folded"])
            .command([fixture.path.as_os_str(), CHILDREN.to_string().as_ref()])
            .run()?
            .whole()?;
        for (is_bytes, folded) in [
            (true, recording.folded()?),
            (false, &second(&recording, "counts.folded")?),
        ] {
            let weights = weights(folded);
            ensure!(weights.len() == CHILDREN, "{} children", weights.len());
            for process in weights.values() {
                for stack in stacks() {
                    let weight = process.get(stack).copied().unwrap_or_default();
                    found.entry((stack, is_bytes)).or_default().push(weight as f64);
                }
            }
        }
        for process in children(&recording)? {
            for function in COVERED {
                let truth = CALLS.iter().filter(|calls| calls.function == function);
                let truth = Truth::of(truth, INTERVAL, true, |calls| calls.calls);
                coverage.add(
                    number(&process, &format!("functions/{function}/bytes"))?,
                    number(&process, &format!("functions/{function}/bytes_stderr"))?,
                    truth.value,
                );
            }
            // What is mapped is sampled for sure, each time: its own variance is none.
            ensure!(
                number(&process, "functions/posix_memalign/calls_stderr")? < 20.0,
                "{process}"
            );
        }
        let summary = recording.summary()?;
        ensure!(
            summary.number("/settings/sample_bytes")? == INTERVAL,
            "sample_bytes"
        );
        let seen = CALLS.iter().map(|calls| calls.calls).sum::<u64>() * CHILDREN as u64;
        let (recorded, unsampled) = (
            summary.number("/events/tallied")?,
            summary.number("/events/unsampled")?,
        );
        ensure!(
            recorded + unsampled == seen,
            "{recorded} sampled and {unsampled} others, of {seen} calls"
        );
    }
    let mut furthest = 0.0_f64;
    for ((stack, is_bytes), found) in &found {
        let truth = Truth::of(of_stack(stack), INTERVAL, *is_bytes, |calls| calls.calls);
        let what = if *is_bytes { "bytes" } else { "calls" };
        furthest = furthest.max(truth.assert_mean(&format!("{what} of {stack}"), found)?);
    }
    let covered = coverage.assert()?;
    eprintln!(
        "means of 200 estimates are off by {:.2} % at the most; {:.1} % of {} within 1.96 standard errors",
        100.0 * furthest,
        100.0 * covered,
        coverage.all
    );
    Ok(())
}

/// 150 children that keep half of their blocks: what is live of each stack, and what lived for a
/// moment; whichever way calls are met.
fn live(context: &Context) -> Result<()> {
    for arm in ARMS {
        live_by(context, arm).with_context(|| format!("--probes {arm}"))?;
    }
    Ok(())
}

fn live_by(context: &Context, arm: &str) -> Result<()> {
    const INTERVAL: u64 = 128;
    let fixture = Fixture::c(context, "sampled")?;
    let mut found: BTreeMap<(&str, bool), Vec<f64>> = BTreeMap::new();
    let mut temporary = Vec::new();
    let mut coverage = Coverage::default();
    let kept = |calls: &Calls| calls.kept;
    for seed in 1..=6 {
        let recording = Memtap::record(context)?
            .arguments(["--live", "--per-pid", "--sample", &INTERVAL.to_string()])
            .arguments(["--probes", arm, "--seed", &seed.to_string()])
            .arguments(["-o", "live-bytes=bytes.folded", "-o", "live-count=counts.folded"])
            .command([
                fixture.path.as_os_str(),
                CHILDREN.to_string().as_ref(),
                "keep".as_ref(),
            ])
            .run()?
            .whole()?;
        let files = [
            (true, second(&recording, "bytes.folded")?),
            (false, second(&recording, "counts.folded")?),
        ];
        for (is_bytes, folded) in &files {
            let weights = weights(folded);
            ensure!(weights.len() == CHILDREN, "{} children", weights.len());
            for process in weights.values() {
                for stack in stacks() {
                    let weight = process.get(stack).copied().unwrap_or_default();
                    found.entry((stack, *is_bytes)).or_default().push(weight as f64);
                }
            }
        }
        let mut together = [0.0; 2];
        for process in children(&recording)? {
            temporary.push(number(&process, "temporary/count")?);
            for (figure, is_bytes) in [("bytes", true), ("count", false)] {
                let estimate = number(&process, &format!("live/{figure}"))?;
                together[usize::from(is_bytes)] += estimate;
                coverage.add(
                    estimate,
                    number(&process, &format!("live/{figure}_stderr"))?,
                    Truth::of(CALLS.iter(), INTERVAL, is_bytes, kept).value,
                );
            }
            let calls = number(&process, "functions/free/calls")?;
            let freed = |calls: &Calls| {
                let resized = calls.stack == "grown" && calls.bytes < 400;
                if resized { 0 } else { calls.calls - calls.kept }
            };
            let expected: u64 = CALLS.iter().map(freed).sum();
            ensure!(
                (calls - expected as f64).abs() < 0.5,
                "free was called {expected} times, {calls} counted"
            );
        }
        // Two accounts of the same blocks: by process, and by stack.
        for (is_bytes, folded) in &files {
            let by_process = together[usize::from(*is_bytes)];
            ensure!(
                (by_process - folded.total() as f64).abs() < 0.5,
                "{by_process} live by process, {} by stack",
                folded.total()
            );
        }
    }
    for ((stack, is_bytes), found) in &found {
        let truth = Truth::of(of_stack(stack), INTERVAL, *is_bytes, kept);
        let what = if *is_bytes { "live bytes" } else { "live blocks" };
        let _off = truth.assert_mean(&format!("{what} of {stack}"), found)?;
    }
    Truth::of(CALLS.iter(), INTERVAL, false, |calls| calls.temporary)
        .assert_mean("temporary blocks", &temporary)?;
    coverage.assert()?;
    Ok(())
}

/// True if blocks are followed, and the ways to do so.
const LIVE: [(bool, &str); 3] = [(false, ARMS[0]), (true, ARMS[0]), (true, ARMS[1])];

/// 500,000 calls of four threads at once, whose programs interrupt each other.
fn threads(context: &Context) -> Result<()> {
    const INTERVAL: u64 = 512;
    let fixture = Fixture::c(context, "sampled")?;
    for (live, arm) in LIVE {
        let recording = Memtap::record(context)?
            .arguments(["--sample", &INTERVAL.to_string(), "--seed", "5"])
            .arguments(live.then_some("--live"))
            .arguments(["--probes", arm])
            .command([fixture.path.as_os_str(), "threads".as_ref()])
            .run()?
            .whole()?;
        let all = calls("spun", "malloc", 64, 500_000, 0, 500_000);
        let found = recording.folded()?.weight_of(|line| line.passes("spun"));
        // One run: five sigma of the whole are 2.0 %, of which a little is left to what the
        // threads' ends allocate.
        let truth = Truth::of([&all].into_iter(), INTERVAL, true, |calls| calls.calls);
        let allowed = 5.0 * truth.variance.sqrt();
        ensure!(allowed < 0.025 * truth.value, "{allowed} of {}", truth.value);
        ensure!(
            (found as f64 - truth.value).abs() < allowed,
            "{found} bytes for {}, {allowed} allowed; live: {live}, --probes {arm}",
            truth.value
        );
        if live {
            let temporary = recording.summary()?.number("/totals/temporary/count")? as f64;
            let truth = Truth::of([&all].into_iter(), INTERVAL, false, |calls| calls.temporary);
            ensure!(
                (temporary - truth.value).abs() < 5.0 * truth.variance.sqrt(),
                "{temporary} temporary blocks for {}",
                truth.value
            );
        }
    }
    Ok(())
}

/// Calls that another function passes on by a jump are neither taken for calls of their own nor
/// left out, though the two hits are sampled or not by themselves: an implementation that takes one
/// in four of them for another function's is off by more than 5 sigma. All calls are of 64 bytes.
fn jumps(context: &Context) -> Result<()> {
    const INTERVAL: u64 = 128;
    const RUNS: u64 = 6;
    let fixture = Fixture::c(context, "indirect")?;
    for live in [false, true] {
        let mut sums = Counts::new();
        let mut reported = Counts::new();
        // One after the other each way to meet them.
        for (seed, arm) in (1..=RUNS).zip(ARMS.iter().cycle()) {
            let recording = Memtap::record(context)?
                .arguments(["--sample", &INTERVAL.to_string()])
                .arguments(["--seed", &seed.to_string()])
                .arguments(live.then_some("--live"))
                .arguments(["--probes", arm])
                .fixture(&fixture)
                .run()?
                .whole()?;
            for (name, count) in recording.summary()?.functions()? {
                *sums.entry(name).or_default() += count;
            }
            for (name, count) in recording.reported()?.functions() {
                *reported.entry(name).or_default() += count;
            }
            let nested = recording.summary()?.number("/events/nested")?;
            // 1,000 calls of realloc(NULL), 500 of reallocarray with a block, and 500 without one,
            // which jump twice.
            ensure!(live || nested == 1000 + 500 + 2 * 500, "{nested} nested");
        }
        for (name, count) in &reported {
            let found = sums.get(name).copied().unwrap_or_default();
            let allowed = 5.0 * (count.calls as f64 * variance(64, INTERVAL)).sqrt();
            let off = found.calls as f64 - count.calls as f64;
            ensure!(
                off.abs() < allowed,
                "{name}: {} calls for {}, {allowed} allowed; live: {live}",
                found.calls,
                count.calls
            );
        }
    }
    Ok(())
}

/// Returns whether a value has a standard error anywhere.
fn has_errors(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.ends_with("_stderr") || has_errors(value)),
        Value::Array(values) => values.iter().any(has_errors),
        _ => false,
    }
}

fn one_is_every_call(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    for (live, arm) in LIVE {
        let run = |sample: &[&str]| {
            Memtap::record(context)?
                .arguments(sample)
                .arguments(live.then_some("--live"))
                .arguments(["--probes", arm])
                .fixture(&fixture)
                .run()?
                .whole()
        };
        let (all, one) = (run(&[])?, run(&["--sample", "1"])?);
        ensure!(all.folded()?.text == one.folded()?.text, "the stacks differ");
        ensure!(
            all.summary()?.functions()? == one.summary()?.functions()?,
            "the functions differ"
        );
        ensure!(!has_errors(&one.summary()?.json), "nothing is estimated");
        if live {
            // Thin enough that some is left out, and all the same whole.
            let few = run(&["--sample", "100"])?;
            let totals = &few.summary()?.json["totals"];
            HeapFigures::parse(totals)?;
            ensure!(
                totals["functions"]["free"]["unmatched"] == 0,
                "frees of what is not sampled are not unmatched: {totals}"
            );
            ensure!(has_errors(totals), "estimates say how sure they are");
        }
    }
    Ok(())
}

/// The same seed gives the same sample, another one another.
fn seeds(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "sampled")?;
    let run = |seed: &str| {
        Memtap::record(context)?
            .arguments(["--sample", "4k", "--seed", seed])
            .command([fixture.path.as_os_str(), "2".as_ref()])
            .run()?
            .whole()
    };
    let (one, same, other) = (run("7")?, run("7")?, run("8")?);
    ensure!(
        one.folded()?.text == same.folded()?.text,
        "the same seed, another sample"
    );
    ensure!(
        one.folded()?.text != other.folded()?.text,
        "another seed, the same sample"
    );
    Ok(())
}

/// Messages that a person reads.
fn words(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "sampled")?;
    let recording = Memtap::bare(context)?
        .arguments(["record", "--sample", "64k", "--seed", "3"])
        .command([fixture.path.as_os_str(), "1".as_ref()])
        .run()?
        .ended_with(0)?;
    let head = recording.finished.stdout.lines().next().unwrap_or_default();
    for word in [
        "≈ ",
        " allocations ±",
        "estimated from one sample per 64.0 KiB, ± at 95 %",
    ] {
        ensure!(head.contains(word), "the first line lacks {word:?}: {head}");
    }
    // 16,000 bytes of `tiny` are two sample points.
    ensure!(
        recording.finished.stdout.lines().any(|line| line.contains(" ± ")),
        "rows say how sure they are:\n{}",
        recording.finished.stdout
    );
    ensure!(
        recording.finished.stderr.contains("one allocation per 64.0 KiB"),
        "it is said at the start: {}",
        recording.finished.stderr
    );
    Memtap::bare(context)?
        .arguments(["record", "--sample", "2g"])
        .command([fixture.path.as_os_str(), "1".as_ref()])
        .run()?
        .ended_with(2)?;
    Ok(())
}
