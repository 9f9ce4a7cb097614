//! The operators of C++ where the allocator itself has them.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Count, Counts, Memtap, Recipe, run};

use super::{Allocator, How};

/// The program does, says and ends the same with and without memtap, exceptions and new-handlers
/// too; and each call that makes a block is counted once, under whatever name.
pub(crate) fn operators(context: &Context, allocator: &Allocator) -> Result<()> {
    let fixture = Recipe::allocator_cpp("operators").build(context)?;
    let words = allocator.command(&fixture, How::Preloaded)?;
    for failing in [false, true] {
        let mut words = words.clone();
        words.extend(failing.then(|| "fail".to_owned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let alone = run(command)?;
        for live in [false, true] {
            let recording = Memtap::record(context)?
                .arguments(live.then_some("--live"))
                .command(&words)
                .run()?
                .ended_with(alone.code())?;
            let what = format!("live: {live}, failing: {failing}");
            ensure!(
                recording.finished.stdout == alone.stdout,
                "{what}: its output is {:?} instead of {:?}",
                recording.finished.stdout,
                alone.stdout
            );
            let summary = recording.summary()?;
            summary.lost_nothing()?;
            if failing {
                continue;
            }
            let (expected, counts) = figures(&recording.finished.stdout, &recording.folded()?.text)
                .with_context(|| what.clone())?;
            let found: Count = counts.values().copied().sum();
            ensure!(
                found.bytes == expected.bytes,
                "{what}: {counts:?} instead of {expected:?}"
            );
            let mut processes = summary.processes()?;
            processes.retain(|process| process.comm == "operators");
            ensure!(processes.len() == 1, "{what}: {processes:?}");
            let new = processes[0].functions.get("operator new");
            ensure!(
                new.is_some_and(|count| count.calls >= 400),
                "{what}: plain operator new is counted by its name: {processes:?}"
            );
            if !live {
                continue;
            }
            // What is not followed is reported, and nothing else: the rest is given back.
            let totals = &processes[0].totals;
            let untracked = totals["untracked"]["count"].as_u64().unwrap_or_default();
            let free = |name: &str| totals["functions"]["free"][name].as_u64().unwrap_or_default();
            // A library's own set-up frees a block or two.
            ensure!(
                free("unmatched") <= untracked
                    && (expected.calls..=expected.calls + 8).contains(&free("calls")),
                "{what}: {totals}"
            );
            ensure!(
                untracked == 0 || recording.finished.stderr.contains("of operator new"),
                "{what}: {untracked} blocks were not followed, and memtap does not say so"
            );
        }
    }
    Ok(())
}

/// Returns what the fixture tells, and the bytes by function of the stacks that go through its
/// calls.
fn figures(stdout: &str, folded: &str) -> Result<(Count, Counts)> {
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let number = |at: usize| {
        words
            .get(at)
            .context("the fixture told too little")?
            .parse()
            .context("no number")
    };
    let expected = Count {
        calls: number(1)?,
        bytes: number(3)?,
    };
    let mut counts = Counts::new();
    for line in folded.lines().filter(|line| line.starts_with("operators;")) {
        let (stack, weight) = line.rsplit_once(' ').context("not a folded line")?;
        let is_own = stack
            .split(';')
            .any(|frame| ["plain", "aligned", "nothrow"].contains(&frame.trim_end_matches("()")));
        if is_own {
            let function = stack.rsplit(';').next().unwrap_or_default();
            counts.entry(function.to_owned()).or_default().bytes += weight.parse::<u64>()?;
        }
    }
    Ok((expected, counts))
}
