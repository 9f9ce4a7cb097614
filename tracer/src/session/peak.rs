//! What each stack held when the most was held: from snapshots, since only the total is followed in time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracer_ebpf::{HeapSum, SumKey};

use super::copied::Copied;
use super::recorder::Recorder;
use crate::bpf::load::BpfError;

/// Snapshots may take this share of our time at the most: one part in so many.
const SHARE: u32 = 20;

/// The snapshot in which the most was live.
#[derive(Debug, Default)]
pub(super) struct Peak {
    /// Bytes that were live in it.
    bytes: u64,
    /// By stack, where any were.
    by_stack: HashMap<SumKey, u64>,
    /// When the last one was taken, and how long that took.
    last: Option<(Instant, Duration)>,
}

impl Peak {
    /// What a stack, which may have had provisional identities, held in the snapshot.
    pub(super) fn bytes_of(&self, key: &SumKey, copied: &Copied) -> u64 {
        let direct = self.by_stack.get(key).copied().unwrap_or(0);
        let others = copied.provisional(key.stack);
        let others = others.filter_map(|stack| self.by_stack.get(&SumKey { stack, ..*key }));
        others.sum::<u64>() + direct
    }

    /// Bytes that were live in the snapshot.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_due(&self) -> bool {
        self.last.is_none_or(|(at, took)| at.elapsed() >= took * SHARE)
    }
}

impl Recorder {
    /// Takes a snapshot if more is live than in the last that is kept. `last`: whatever it costs.
    pub(super) fn look_at_peak(&mut self, last: bool) -> Result<(), BpfError> {
        if !self.live || !(last || self.peak.is_due()) {
            return Ok(());
        }
        if self.object.heap()?.live_bytes <= self.peak.bytes {
            return Ok(());
        }
        let began = Instant::now();
        let sums = self.object.heap_sums()?;
        let live = sums.iter().map(|(key, sum)| (*key, live_bytes(sum)));
        let by_stack: HashMap<SumKey, u64> = live.filter(|(_, bytes)| *bytes > 0).collect();
        let bytes = by_stack.values().sum();
        if bytes > self.peak.bytes {
            self.peak.bytes = bytes;
            self.peak.by_stack = by_stack;
        }
        self.peak.last = Some((Instant::now(), began.elapsed()));
        Ok(())
    }
}

fn live_bytes(sum: &HeapSum) -> u64 {
    let gone = sum.freed_bytes.saturating_add(sum.untracked_bytes);
    sum.sum.bytes.saturating_sub(gone)
}
