//! What each stack held in the past: from snapshots, since only the total is followed in time. One reading of the sums
//! serves both the peak and the history.

use std::time::{Duration, Instant};

use tracer_ebpf::HeapSum;

use super::history::History;
use super::pace::Pace;
use super::peak::Peak;
use super::recorder::Recorder;
use crate::bpf::load::BpfError;
use crate::process::sideband::monotonic_ns;

/// The snapshots of one recording.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    pub(super) peak: Peak,
    /// Kept where growth is reported.
    pub(super) history: Option<History>,
    pub(super) pace: Pace,
}

impl Recorder {
    /// Takes a snapshot if it is time for one: more is live than in the last that is kept, or the history's step is over.
    pub(super) fn look_at_heap(&mut self) -> Result<(), BpfError> {
        if !self.live || !self.snapshots.pace.is_due() {
            return Ok(());
        }
        let elapsed = self.started.elapsed();
        let is_peak = self.object.machine_totals()?.live_bytes > self.snapshots.peak.bytes();
        let is_due = self
            .snapshots
            .history
            .as_ref()
            .is_some_and(|history| history.is_due(elapsed));
        if !is_peak && !is_due {
            return Ok(());
        }
        let began = Instant::now();
        let at_ns = monotonic_ns();
        let sums = self.object.heap_sums()?;
        if is_peak {
            let live = sums.iter().map(|(key, sum)| (*key, live_bytes(sum)));
            self.snapshots.peak.offer(live);
        }
        if is_due && let Some(history) = &mut self.snapshots.history {
            let held = sums.iter().map(|(key, sum)| (*key, live(sum), live_bytes(sum)));
            history.add(elapsed, at_ns, held);
        }
        self.snapshots.pace.done(began);
        Ok(())
    }
}

/// Blocks that are live.
fn live(sum: &HeapSum) -> u64 {
    sum.blocks.saturating_sub(sum.freed.saturating_add(sum.untracked))
}

/// Their bytes.
fn live_bytes(sum: &HeapSum) -> u64 {
    let gone = sum.freed_bytes.saturating_add(sum.untracked_bytes);
    sum.sum.bytes.saturating_sub(gone)
}

/// The time since the recording's start of a moment, by both of its clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Since the start.
    pub(super) elapsed: Duration,
    /// In nanoseconds of `CLOCK_MONOTONIC`, as blocks have it.
    pub(super) at_ns: u64,
}
