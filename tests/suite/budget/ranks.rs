//! Estimates within a budget give the profile that there would be without one.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, Memtap, MemtapRecording, RunningProgram};

use super::{eventually, figure};

/// The number of the heaviest stacks that are compared.
const TOP: usize = 10;

/// Stacks in so many standard errors of each other may be in either order; estimates may be off by
/// as many. With four, one in 16,000 is further off, of a few dozen.
const ERRORS: f64 = 4.0;

/// A stack's share of all bytes, and the standard error of that.
#[derive(Debug, Clone, Copy)]
struct SumShare {
    share: f64,
    stderr: f64,
}

/// The fixture's stacks, by the function that calls malloc.
fn shares(recording: &MemtapRecording) -> Result<BTreeMap<String, SumShare>> {
    let summary = recording.summary()?;
    let total = figure(recording, "/totals/alloc/bytes")?;
    // What all estimates have in common changes no order.
    let common = summary.json.pointer("/cost/budget/slowing_error");
    let common = common.and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let stacks = summary.json["top_stacks"].as_array().context("no stacks")?;
    let mut shares = BTreeMap::new();
    for stack in stacks {
        let frames = stack["frames"].as_array().context("no frames")?;
        let named = frames.iter().filter_map(|frame| frame["function"].as_str());
        let Some(name) = named.into_iter().find(|name| name.starts_with("rank_")) else {
            continue;
        };
        let bytes = stack["bytes"].as_f64().context("no bytes")?;
        let stderr = stack["bytes_stderr"].as_f64().unwrap_or(0.0);
        let own = (stderr.powi(2) - (common * bytes).powi(2)).max(0.0).sqrt();
        let share = SumShare {
            share: bytes / total,
            stderr: own / total,
        };
        ensure!(
            shares.insert(name.to_owned(), share).is_none(),
            "{name} has two stacks"
        );
    }
    Ok(shares)
}

/// The heaviest first.
fn ranking(shares: &BTreeMap<String, SumShare>) -> Vec<(&str, SumShare)> {
    let mut ranking: Vec<(&str, SumShare)> = shares
        .iter()
        .map(|(name, share)| (name.as_str(), *share))
        .collect();
    ranking.sort_by(|(_, one), (_, other)| other.share.total_cmp(&one.share));
    ranking
}

/// The ten heaviest stacks of a program that makes a million calls a second are the same, and in
/// the same order, where every call is followed and where the budget permits a few windows: as far
/// as the estimates say that they know.
pub(super) fn are_kept(context: &Context) -> Result<()> {
    let command: Command = Fixture::c(context, "ranked")?.command();
    let ranked = RunningProgram::start(command)?;
    let is_ready = eventually(std::time::Duration::from_secs(20), || {
        Ok(ranked.stdout().contains("ready"))
    })?;
    ensure!(is_ready, "the fixture does not begin");
    let record = |options: &[&str]| -> Result<MemtapRecording> {
        Memtap::record(context)?
            .process(ranked.pid())
            .arguments(options)
            .run()?
            .whole()
    };
    let every = record(&["--sample", "1", "--max-overhead", "off", "-d", "2s"])?;
    let some = record(&["--max-overhead", "2", "-d", "12s"])?;
    let share_of_time = figure(&some, "/cost/budget/probed_time_share")?;
    ensure!(
        share_of_time < 0.5,
        "probes were in for {share_of_time} of the time"
    );

    let (truth, estimates) = (shares(&every)?, shares(&some)?);
    let truth = ranking(&truth);
    ensure!(truth.len() >= TOP, "{} stacks", truth.len());
    let top: Vec<(&str, SumShare, SumShare)> = truth
        .iter()
        .take(TOP)
        .map(|(name, exact)| {
            let estimate = estimates.get(*name).copied();
            Ok((
                *name,
                *exact,
                estimate.with_context(|| format!("{name} is not there"))?,
            ))
        })
        .collect::<Result<_>>()?;
    for (name, exact, estimate) in &top {
        ensure!(
            estimate.stderr > 0.0,
            "{name} is an estimate without an error: {estimate:?}"
        );
        // What was followed whole is a part of the program's life too: it varies as much.
        let allowed = ERRORS * estimate.stderr * 2.0_f64.sqrt();
        ensure!(
            (exact.share - estimate.share).abs() <= allowed,
            "{name} is {exact:?}, estimated as {estimate:?}"
        );
    }
    let mut in_order = 0;
    for (index, (name, exact, estimate)) in top.iter().enumerate() {
        for (other_name, other_exact, other_estimate) in &top[index + 1..] {
            let error = estimate.stderr.hypot(other_estimate.stderr);
            if exact.share - other_exact.share <= ERRORS * error {
                continue;
            }
            in_order += 1;
            ensure!(
                estimate.share > other_estimate.share,
                "{name} ({exact:?}, estimated {estimate:?}) is before {other_name} ({other_exact:?}, estimated \
                 {other_estimate:?})"
            );
        }
    }
    eprintln!(
        "{in_order} of 45 pairs are further apart than their errors, all in order; {share_of_time} of the time"
    );
    // A quarter less from one to the next: most pairs are.
    ensure!(in_order >= 15, "only {in_order} pairs can be told apart");
    Ok(())
}
