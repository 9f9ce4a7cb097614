//! Live blocks: their ages, and their history.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Moments of a recording, as offsets from its start, from which the figures of each stack are
/// kept: the snapshots nearest to its quarters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marks {
    /// Near a quarter, the half and three quarters of the time.
    pub at: [Duration; Self::COUNT],
    /// The end, or now where the recording goes on.
    pub end: Duration,
}

impl Marks {
    /// The number of marks.
    pub(crate) const COUNT: usize = 3;

    /// The index of the half-way mark.
    pub(crate) const HALF: usize = 1;
}

/// The live blocks of one stack in processes that still have their memory. A process that ended
/// earlier counts for nothing; where all have ended, those count that ended last, with their blocks
/// at that time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Aged {
    /// Live blocks.
    pub live: u64,
    /// Bytes of live blocks.
    pub live_bytes: u64,
    /// Live blocks of at least the age that was asked for.
    pub old: u64,
    /// Bytes of these old blocks.
    pub old_bytes: u64,
    /// Live blocks from before the half-way mark.
    pub kept: u64,
    /// Bytes of these kept blocks.
    pub kept_bytes: u64,
    /// The age of the oldest, in nanoseconds.
    pub oldest_ns: u64,
    /// Blocks that were live at the half-way mark.
    pub half_live: u64,
    /// Bytes that were live at each of the [`Marks`].
    pub marks_bytes: [u64; Marks::COUNT],
    /// The variance of `live`, where allocations were sampled.
    pub live_variance: u128,
    /// The variance of `live_bytes`, in bytes².
    pub live_bytes_variance: u128,
    /// The variance of `old_bytes`, in bytes².
    pub old_bytes_variance: u128,
}
