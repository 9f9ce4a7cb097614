//! The output of a run of memtap, and checks that it adds up.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{
    Count, Counts, Finished, FoldedStacks, HeapFigures, RecordingSummary, Region, Reported, difference,
};

/// A run of memtap that has ended.
#[derive(Debug)]
pub struct MemtapRecording {
    /// Its exit status and output.
    pub finished: Finished,
    summary: Option<RecordingSummary>,
    folded: Option<FoldedStacks>,
    directory: TempDir,
}

impl MemtapRecording {
    /// Reads the outputs that there are, and fails unless they add up.
    pub(crate) fn read(finished: Finished, directory: TempDir, metric: &str) -> Result<Self> {
        let text = |name: &str| -> Result<Option<String>> {
            let path = directory.path().join(name);
            if !path.exists() {
                return Ok(None);
            }
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("failed to read {}", path.display()))?;
            // Outputs are opened before tracing starts: a run that failed leaves them empty.
            Ok((!text.is_empty()).then_some(text))
        };
        let summary = text("summary.json")?
            .map(|text| RecordingSummary::parse(&text))
            .transpose()?;
        let folded = text("stacks.folded")?
            .map(|text| FoldedStacks::parse(&text))
            .transpose()?;
        let recording = Self {
            finished,
            summary,
            folded,
            directory,
        };
        if let Some(summary) = &recording.summary {
            audit(summary).context("the summary does not add up")?;
            if let Some(folded) = &recording.folded {
                audit_folded(summary, folded, metric)
                    .context("the folded file does not add up to the summary")?;
            }
        }
        Ok(recording)
    }

    /// Fails unless memtap ended with this code.
    pub fn ended_with(self, code: i32) -> Result<Self> {
        ensure!(
            self.finished.code() == code,
            "memtap ended with {} instead of {code}",
            self.finished.code()
        );
        Ok(self)
    }

    /// Fails unless memtap ended with 0, wrote a summary, and lost nothing.
    pub fn whole(self) -> Result<Self> {
        let recording = self.ended_with(0)?;
        recording.summary()?.lost_nothing()?;
        Ok(recording)
    }

    /// Fails unless memtap ended with this code after one line on standard error that holds all of
    /// `words`.
    pub fn refused(self, code: i32, words: &[&str]) -> Result<Self> {
        let recording = self.ended_with(code)?;
        let lines = recording.finished.stderr_lines();
        ensure!(
            lines.len() == 1,
            "{} lines on standard error instead of one",
            lines.len()
        );
        let line = lines[0].to_lowercase();
        for word in words {
            ensure!(
                line.contains(&word.to_lowercase()),
                "the message does not name {word:?}: {}",
                lines[0]
            );
        }
        Ok(recording)
    }

    /// The summary.
    pub fn summary(&self) -> Result<&RecordingSummary> {
        self.summary.as_ref().context("memtap wrote no summary")
    }

    /// The folded file.
    pub fn folded(&self) -> Result<&FoldedStacks> {
        self.folded.as_ref().context("memtap wrote no folded file")
    }

    /// Returns what the fixture reported.
    pub fn reported(&self) -> Result<Reported> {
        Reported::parse(&self.finished.stdout)
    }

    /// The test's own directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Fails unless the summary has exactly these calls.
    pub fn has_functions(&self, expected: &Counts) -> Result<()> {
        if let Some(difference) = difference(expected, &self.summary()?.functions()?) {
            anyhow::bail!("the summary's functions are not what they should be:\n{difference}");
        }
        Ok(())
    }
}

/// Seen = counted + set aside + lost; the whole = the sum of the processes = the sum of the
/// functions.
fn audit(summary: &RecordingSummary) -> Result<()> {
    let functions = summary.functions()?;
    let regions = summary.regions()?;
    let total: Count = functions.values().copied().sum();
    if !functions.is_empty() {
        let alloc = Count {
            calls: summary.number("/totals/alloc/count")?,
            bytes: summary.number("/totals/alloc/bytes")?,
        };
        if summary.is_live() {
            // Failed calls, and calls of realloc that only give back, are calls all the same.
            ensure!(
                alloc.bytes == total.bytes && alloc.calls <= total.calls,
                "alloc is {alloc:?}, its functions {total:?}"
            );
            audit_live(summary)?;
        } else {
            ensure!(alloc == total, "alloc is {alloc:?}, its functions {total:?}");
        }
    }

    let losses = summary.losses()?;
    let lost = summary.number("/losses/total")?;
    let sum: u64 = losses.values().sum();
    ensure!(lost == sum, "the losses are {sum} by name and {lost} in all");

    let event = |name: &str| summary.number(&format!("/events/{name}"));
    let seen = event("seen")?;
    let recorded = event("tallied")?;
    let accounted =
        recorded + event("nested")? + event("filtered")? + event("foreign")? + event("unsampled")?;
    // Some losses are of an event, some only of an event's stack.
    ensure!(
        (accounted..=accounted + lost).contains(&seen),
        "{seen} events were seen, {accounted} accounted for, {lost} lost"
    );
    let region_calls: u64 = regions.values().map(|region| region.calls).sum();
    let frees = if summary.is_live() {
        summary.number("/totals/functions/free/calls")?
    } else {
        0
    };
    let calls = total.calls + frees + region_calls;
    // Calls whose stack, or process, was lost are in the sums all the same.
    let without_stack: u64 = ["stack_map_full", "scratch_busy", "ring_full", "process_map_full"]
        .iter()
        .map(|name| summary.number(&format!("/losses/{name}")))
        .sum::<Result<u64>>()?;
    // With sampling, calls are what the recorded ones stand for; so they are where probes were in
    // for a part of the time.
    let is_estimate = summary.number("/settings/sample_bytes")? > 1
        || summary.json["cost"]["budget"]["windows"]
            .as_u64()
            .is_some_and(|windows| windows > 0);
    ensure!(
        is_estimate || recorded + without_stack == calls,
        "{recorded} events were recorded and {without_stack} have no stack, {calls} calls reported"
    );

    let mut by_process = Counts::new();
    let mut regions_by_process: BTreeMap<String, Region> = BTreeMap::new();
    for process in summary.processes()? {
        for (name, count) in process.functions {
            *by_process.entry(name).or_default() += count;
        }
        for (name, region) in process.regions {
            let sum = regions_by_process.entry(name).or_default();
            sum.calls += region.calls;
            sum.failed += region.failed;
            sum.bytes += region.bytes;
            sum.old_bytes += region.old_bytes;
            sum.grown_bytes += region.grown_bytes;
            sum.shrunk_bytes += region.shrunk_bytes;
        }
    }
    if let Some(difference) = difference(&functions, &by_process) {
        anyhow::bail!("the processes (found) do not add up to the whole (expected):\n{difference}");
    }
    for (name, region) in &regions {
        let sum = regions_by_process.get(name).copied().unwrap_or_default();
        ensure!(
            sum == *region,
            "{name}: the processes add up to {sum:?}, the whole is {region:?}"
        );
    }

    let stacks = summary.json["stacks"]
        .as_object()
        .context("the summary has no stacks")?;
    let distinct = summary.number("/stacks/distinct")?;
    // Every other entry but the calls whose stack was lost is a way for a walk to end.
    let by_end: u64 = stacks
        .iter()
        .filter(|(name, _)| !["distinct", "lost"].contains(&name.as_str()))
        .filter_map(|(_, count)| count.as_u64())
        .sum();
    ensure!(
        distinct == by_end,
        "{distinct} distinct stacks, {by_end} by how they end"
    );
    Ok(())
}

/// The whole = the sum of the processes, and no more is live at the end than at the peak.
fn audit_live(summary: &RecordingSummary) -> Result<()> {
    let whole = HeapFigures::parse(&summary.json["totals"])?;
    let processes = summary.processes()?;
    let all = processes
        .iter()
        .map(|process| HeapFigures::parse(&process.totals))
        .collect::<Result<Vec<_>>>()?;
    if let Some(difference) = HeapFigures::difference(&whole.without(&["peak/"]), &HeapFigures::sum(&all)) {
        anyhow::bail!("the processes (found) do not add up to the whole (expected):\n{difference}");
    }
    for (process, figures) in processes.iter().zip(&all) {
        ensure!(
            figures.get("peak/bytes") >= figures.get("live/bytes"),
            "{} {} has more live than at its peak: {figures:?}",
            process.comm,
            process.pid
        );
    }
    Ok(())
}

fn audit_folded(summary: &RecordingSummary, folded: &FoldedStacks, metric: &str) -> Result<()> {
    let equal = |what: &str, weight: u64, figure: u64| {
        ensure!(
            weight == figure,
            "{what}: {weight} in the folded file, {figure} in the summary"
        );
        Ok(())
    };
    match metric {
        "alloc-bytes" => equal("bytes", folded.total(), summary.number("/totals/alloc/bytes")?),
        "alloc-count" => equal("calls", folded.total(), summary.number("/totals/alloc/count")?),
        "region-bytes" => {
            let regions = summary.regions()?;
            let region = |name: &str| regions.get(name).copied().unwrap_or_default();
            let weight = |name: &str| folded.weight_of(|line| line.function == name);
            equal("mmap", weight("mmap"), region("mmap").bytes)?;
            equal("brk", weight("brk"), region("brk").grown_bytes)
        }
        _ => Ok(()),
    }
}
