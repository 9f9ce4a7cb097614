//! memtap itself, as it is used on a running process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{RunningTracer, SeenCalls, Tracer};
use crate::target::LoopTarget;
use test_support::{privilege, process, workspace};

/// The release binary, and how it is told to work.
#[derive(Clone)]
pub(crate) struct MemtapTracer {
    pub(crate) binary: PathBuf,
    /// Options of `memtap record`.
    pub(crate) options: Vec<&'static str>,
}

/// Every allocation, whatever that costs: the defaults for a running process are others.
pub(crate) const EVERY: &[&str] = &["--sample", "1", "--max-overhead", "off"];

/// Some of them, whatever that costs.
pub(crate) const SAMPLED: &[&str] = &["--sample", "512k", "--max-overhead", "off"];
const SAMPLED_BYTES: u64 = 512 * 1024;

impl MemtapTracer {
    /// memtap with these options.
    pub(crate) fn new(binary: &Path, options: &[&[&'static str]]) -> Self {
        Self {
            binary: binary.to_path_buf(),
            options: options.concat(),
        }
    }

    fn has(&self, option: &str) -> bool {
        self.options.contains(&option)
    }
}

/// Returns why memtap cannot be run with these options: some come with a later version, and not all
/// are in its help.
pub(crate) fn missing(binary: &Path, options: &[&str]) -> Option<String> {
    let mut command = workspace::untouched(binary);
    command.arg("record").args(options).arg("--help");
    let error = process::output(&mut command, "ask").err()?.to_string();
    let what = error.split_once("error: ").map_or(&*error, |(_, what)| what);
    Some(format!("memtap record: {what}"))
}

impl Tracer for MemtapTracer {
    fn missing(&self) -> Option<String> {
        missing(&self.binary, &self.options)
    }

    fn attach(&self, target: &LoopTarget, directory: &Path) -> Result<RunningTracer> {
        let mut command = privilege::elevated(&self.binary);
        command.args(["record", "-p", &target.pid().to_string()]);
        command.args(&self.options);
        command.arg("-o").arg(directory.join("memtap.folded"));
        command.arg("--summary").arg(directory.join("summary.json"));
        RunningTracer::start(&mut command, directory)
    }

    fn is_ready(&self, directory: &Path) -> bool {
        is_ready(directory)
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        let summary = summary(directory)?;
        if self.has("512k") {
            let bytes = &summary["settings"]["sample_bytes"];
            ensure!(
                bytes.as_u64() == Some(SAMPLED_BYTES),
                "this memtap takes --sample and follows one allocation in {bytes} bytes all the same"
            );
        }
        // One that keeps to a budget is stopped while the loop works, and a block may be live then.
        seen(&summary["totals"], self.has("--live") && self.has("off"))
    }
}

/// Returns whether memtap has said that it is at work: its first line is about the probes that it
/// has attached.
pub(crate) fn is_ready(directory: &Path) -> bool {
    let messages = fs::read_to_string(directory.join("stderr")).unwrap_or_default();
    let mut lines = messages.lines();
    lines.any(|line| line.starts_with("memtap: ") && line.contains(" probe"))
}

/// The summary that memtap wrote to this directory.
pub(crate) fn summary(directory: &Path) -> Result<serde_json::Value> {
    let text =
        fs::read_to_string(directory.join("summary.json")).context("failed to read memtap's summary")?;
    serde_json::from_str(&text).context("failed to read memtap's summary")
}

/// The calls of malloc; where all blocks are `followed`, if none of them is left.
fn seen(totals: &serde_json::Value, followed: bool) -> Result<SeenCalls> {
    if followed {
        let live = &totals["live"]["bytes"];
        ensure!(
            live.as_u64() == Some(0),
            "{live} bytes are live in memtap's summary, and the loop keeps none"
        );
    }
    let malloc = &totals["functions"]["malloc"];
    let calls = malloc["calls"]
        .as_f64()
        .context("failed to find the calls of malloc in memtap's summary")?;
    match malloc["calls_stderr"].as_f64() {
        Some(stderr) => Ok(SeenCalls::Estimate {
            calls: whole(calls),
            stderr,
        }),
        None => Ok(SeenCalls::Calls(whole(calls))),
    }
}

/// A count as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of calls: whole where it is exact, rounded where it is an estimate"
)]
pub(crate) fn whole(count: f64) -> u64 {
    count.round() as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_that_stay_are_no_figure() {
        let totals = |bytes: u64| json!({"functions": {"malloc": {"calls": 80}}, "live": {"bytes": bytes}});
        assert_eq!(seen(&totals(0), true).ok(), Some(SeenCalls::Calls(80)));
        assert!(seen(&totals(64), true).is_err());
        let without = json!({"functions": {"malloc": {"calls": 80}}});
        assert!(seen(&without, true).is_err());
        assert_eq!(seen(&without, false).ok(), Some(SeenCalls::Calls(80)));
    }

    #[test]
    fn estimates_have_an_error() {
        let totals = json!({"functions": {"malloc": {"calls": 79.6, "calls_stderr": 9.5}}});
        assert_eq!(
            seen(&totals, false).ok(),
            Some(SeenCalls::Estimate {
                calls: 80,
                stderr: 9.5
            })
        );
    }
}
