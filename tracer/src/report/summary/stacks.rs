//! The ends of walks and the heaviest stacks in the summary.

use std::collections::BTreeMap;

use serde::Serialize;
use tracer_ebpf::StackEnd;

use super::live::LiveStack;
use crate::profile::session::{Traced, hex};
use crate::profile::{Frame, FrameName, Metric, Profile};
use crate::report::label::COMPILED;
use crate::report::merge::{Completeness, FrameGrouping, Merged, MergedStack, ProcessGrouping};
use crate::report::units;

/// The ends of the walks. `distinct` is the sum of the ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StackCounts {
    /// Stacks: those of different processes, code addresses or functions called.
    pub distinct: u64,
    /// Stacks by how their walk ended, each end by its name.
    #[serde(flatten)]
    pub ends: BTreeMap<&'static str, u64>,
    /// Calls, not stacks: those whose stack was lost, so that which it was is not known.
    pub lost: u128,
}

impl StackCounts {
    /// Counts the stacks of a profile.
    pub(super) fn of(profile: &Profile) -> Self {
        let ends = StackEnd::ALL.iter().map(|end| (end.label(), 0)).collect();
        let mut counts = Self {
            distinct: 0,
            ends,
            lost: 0,
        };
        for stack in &profile.stacks {
            match stack.end {
                Some(end) => {
                    *counts.ends.entry(end.label()).or_default() += 1;
                    counts.distinct += 1;
                }
                None => counts.lost += u128::from(stack.values.calls),
            }
        }
        counts
    }
}

/// A stack among the heaviest. Stacks that are equal in all that is shown here are one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TopStack {
    /// The process id, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The name of the process.
    pub comm: String,
    /// The function that was called.
    pub function: &'static str,
    /// `whole`, `truncated` (outer frames are missing) or `lost` (there are no frames).
    pub stack: &'static str,
    /// The callers, from the outermost to the innermost.
    pub frames: Vec<StackFrame>,
    /// The weight by the chosen metric.
    pub weight: u128,
    /// Calls, failed ones too.
    pub calls: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_stderr: Option<u128>,
    /// Bytes allocated, mapped or unmapped.
    pub bytes: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_stderr: Option<u128>,
    /// Bytes freed by the same calls; left out where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u128>,
    /// Calls that returned an error, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u128>,
    /// The blocks, where they were tracked.
    #[serde(flatten)]
    pub live: Option<LiveStack>,
}

/// A frame; what is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StackFrame {
    /// The function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The base name of the file that has no symbol for the frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The address in that file, or in memory where there is no module.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_hex")]
    pub address: Option<u64>,
    /// The source file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// True if it was inlined into the frame before it; left out where it was not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inlined: bool,
}

impl StackFrame {
    fn of(frame: &Frame) -> Self {
        let mut shown = match &frame.name {
            FrameName::Symbol(name) => Self {
                function: Some(name.to_string()),
                ..Self::default()
            },
            FrameName::Offset { module, address } => Self {
                module: Some(module.to_string()),
                address: Some(*address),
                ..Self::default()
            },
            FrameName::Compiled => Self {
                function: Some(COMPILED.to_owned()),
                ..Self::default()
            },
            FrameName::Unmapped(address) => Self {
                address: Some(*address),
                ..Self::default()
            },
        };
        if let Some(source) = &frame.source {
            shown.file = Some(source.file.to_string());
            shown.line = Some(source.line);
        }
        shown.inlined = frame.inlined;
        shown
    }
}

/// The `count` heaviest stacks, the heaviest first.
pub(super) fn top(profile: &Profile, traced: Traced, metric: Metric, count: usize) -> Vec<TopStack> {
    let mut merged = Merged::of(profile, metric, ProcessGrouping::Images, FrameGrouping::Lines);
    merged.sort_by_weight();
    merged
        .stacks
        .iter()
        .take(count)
        .map(|it| top_stack(profile, &merged, it, traced))
        .collect()
}

fn top_stack(profile: &Profile, merged: &Merged, stack: &MergedStack, traced: Traced) -> TopStack {
    let MergedStack { place, sums, weight } = stack;
    let process = &profile.processes[merged.processes[place.process]];
    let region = !place.function.is_heap();
    let stderr = |variance| (!region && traced.sampled).then(|| units::stderr(variance));
    TopStack {
        pid: (process.pid != 0).then_some(process.pid),
        comm: process.comm.clone(),
        function: place.function.name(),
        stack: match place.walk {
            Completeness::Whole => "whole",
            Completeness::Truncated => "truncated",
            Completeness::Lost => "lost",
        },
        frames: place
            .frames
            .iter()
            .map(|it| StackFrame::of(&profile.frames[merged.frames[*it]]))
            .collect(),
        weight: *weight,
        calls: sums.calls,
        calls_stderr: stderr(sums.variances.calls),
        bytes: sums.bytes,
        bytes_stderr: stderr(sums.variances.bytes),
        bytes_out: (region && sums.bytes_out > 0).then_some(sums.bytes_out),
        // Returns of system calls are always followed.
        failed: (region || traced.live).then_some(sums.failed),
        live: (!region && traced.live).then(|| LiveStack::of(profile, sums, traced)),
    }
}

/// [`hex`] of what is there.
#[expect(clippy::ref_option, reason = "serde passes a reference")]
fn some_hex<S: serde::Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => hex(number, serializer),
        None => serializer.serialize_none(),
    }
}
