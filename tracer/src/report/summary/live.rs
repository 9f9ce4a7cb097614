//! Live blocks in the summary.

use serde::Serialize;
use tracer_ebpf::BUCKETS;

use crate::profile::session::Traced;
use crate::profile::{Marks, Profile};
use crate::report::sums::{FunctionSums, Sums};
use crate::report::{growth, units};

/// The live blocks of processes that still have their memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct LiveSummary {
    /// Live blocks.
    pub count: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_stderr: Option<u128>,
    /// The bytes of live blocks.
    pub bytes: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_stderr: Option<u128>,
    /// The live blocks at the half-way mark, where the recording was long enough to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_way: Option<HalfWay>,
    /// The change of live bytes since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_bytes: Option<i128>,
    /// Bytes of live blocks that were allocated before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_half_bytes: Option<u128>,
}

/// The live blocks at the half-way mark.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct HalfWay {
    /// The time of the mark in seconds since the start, to the millisecond.
    pub at_s: f64,
    /// Live blocks.
    pub count: u128,
    /// The bytes of live blocks.
    pub bytes: u128,
}

impl LiveSummary {
    /// Sums up a profile; nothing where ages were not followed.
    pub(super) fn of(profile: &Profile) -> Option<Self> {
        if !profile.has_ages {
            return None;
        }
        let total = FunctionSums::of(profile, None).heap_total().aged;
        let half = profile.marks.map(|marks| marks.at[Marks::HALF]);
        let stderr = |variance| profile.sample_bytes.map(|_| units::stderr(variance));
        Some(Self {
            count: total.live,
            count_stderr: stderr(total.live_variance),
            bytes: total.live_bytes,
            bytes_stderr: stderr(total.live_bytes_variance),
            half_way: half.map(|at| HalfWay {
                at_s: (at.as_secs_f64() * 1000.0).round() / 1000.0,
                count: total.half_live,
                bytes: total.marks_bytes[Marks::HALF],
            }),
            growth_bytes: half.map(|_| growth::growth_bytes(&total)),
            older_than_half_bytes: half.map(|_| total.kept_bytes),
        })
    }
}

/// The blocks of one stack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LiveStack {
    /// Bytes that are live.
    pub live_bytes: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_bytes_stderr: Option<u128>,
    /// Blocks that are.
    pub live_blocks: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_blocks_stderr: Option<u128>,
    /// The age of the oldest, in seconds, where ages were tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<f64>,
    /// The change of live bytes since the half-way mark, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_bytes: Option<i128>,
    /// The leak score in bytes, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u128>,
    /// Blocks by size: element `i` has those of at least 2^i bytes and less than twice that;
    /// element 0 also empty ones.
    pub sizes: [u64; BUCKETS],
    /// Blocks that were freed by lifetime: element `i` has those of at least 2^i microseconds;
    /// element 0 also shorter ones.
    pub lifetimes: [u64; BUCKETS],
}

impl LiveStack {
    pub(super) fn of(profile: &Profile, sums: &Sums, traced: Traced) -> Self {
        let aged = &sums.aged;
        let (live_bytes, live_blocks, variances) = if profile.has_ages {
            let variances = (aged.live_bytes_variance, aged.live_variance);
            (aged.live_bytes, aged.live, variances)
        } else {
            let variances = (sums.variances.live_bytes(), sums.variances.live());
            (sums.live_bytes, sums.live, variances)
        };
        let stderr = |variance| traced.sampled.then(|| units::stderr(variance));
        Self {
            live_bytes,
            live_bytes_stderr: stderr(variances.0),
            live_blocks,
            live_blocks_stderr: stderr(variances.1),
            oldest_s: (profile.has_ages && aged.oldest_ns > 0).then(|| seconds(aged.oldest_ns)),
            growth_bytes: profile.marks.map(|_| growth::growth_bytes(aged)),
            score: profile.marks.map(|marks| growth::score(aged, &marks)),
            sizes: sums.sizes.0,
            lifetimes: sums.lifetimes.0,
        }
    }
}

/// Returns seconds to the millisecond.
fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_millis(ns / 1_000_000).as_secs_f64()
}
