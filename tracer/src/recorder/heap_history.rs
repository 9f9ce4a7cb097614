//! The past of the heap: each stack's live bytes at the peak and at moments in between, from
//! snapshots, since the kernel side follows the total alone. One reading of the sums serves both.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracer_ebpf::{HeapSum, SumKey};

use super::stack_table::StackTable;
use crate::bpf::load::BpfError;
use crate::bpf::{Object, heap};
use crate::clock::{WorkPace, monotonic_ns};
use crate::profile::Marks;

/// The snapshots of a recording that follows blocks.
#[derive(Debug)]
pub(super) struct HeapHistory {
    peak: PeakSnapshot,
    /// Kept where growth is reported.
    timeline: Option<Timeline>,
    pace: WorkPace,
}

impl HeapHistory {
    /// Returns a history without snapshots.
    pub(super) fn new(with_timeline: bool) -> Self {
        Self {
            peak: PeakSnapshot::default(),
            timeline: with_timeline.then(Timeline::default),
            pace: WorkPace::default(),
        }
    }

    /// Takes a snapshot if it is due: more is live than in the peak's, or the timeline's step is
    /// over. `elapsed`: time since the recording's start.
    pub(super) fn observe(&mut self, object: &Object, elapsed: Duration) -> Result<(), BpfError> {
        if !self.pace.is_due() {
            return Ok(());
        }
        let is_peak = heap::machine_totals(object)?.live_bytes > self.peak.bytes;
        let timeline = self.timeline.as_mut().filter(|it| it.is_due(elapsed));
        if !is_peak && timeline.is_none() {
            return Ok(());
        }
        let began = Instant::now();
        let at_ns = monotonic_ns();
        let sums = heap::sums(object)?;
        if is_peak {
            let live = sums.iter().map(|(key, sum)| (*key, live_bytes(sum)));
            self.peak.offer(live);
        }
        if let Some(timeline) = timeline {
            let live = sums
                .iter()
                .map(|(key, sum)| (*key, live_blocks(sum), live_bytes(sum)));
            timeline.add(elapsed, at_ns, live);
        }
        self.pace.note_run(began);
        Ok(())
    }

    /// Live bytes in the snapshot of the peak.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak.bytes
    }

    /// Live bytes of each stack in the snapshot of the peak.
    pub(super) fn peak_by_stack(&self, stacks: &StackTable) -> HashMap<SumKey, u64> {
        let mut canonical = HashMap::with_capacity(self.peak.by_stack.len());
        for (key, bytes) in &self.peak.by_stack {
            *canonical.entry(stacks.canonical(*key)).or_default() += *bytes;
        }
        canonical
    }

    /// The timeline, where growth is reported.
    pub(super) fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
    }
}

/// Blocks that are live.
fn live_blocks(sum: &HeapSum) -> u64 {
    sum.blocks.saturating_sub(sum.freed.saturating_add(sum.untracked))
}

/// Their bytes.
fn live_bytes(sum: &HeapSum) -> u64 {
    let gone = sum.freed_bytes.saturating_add(sum.untracked_bytes);
    sum.sum.bytes.saturating_sub(gone)
}

/// The snapshot in which the most was live.
#[derive(Debug, Default)]
struct PeakSnapshot {
    /// Bytes that were live in it.
    bytes: u64,
    /// The same by stack, where it is not zero.
    by_stack: HashMap<SumKey, u64>,
}

impl PeakSnapshot {
    /// Replaces the snapshot by one in which more is live.
    fn offer(&mut self, live: impl Iterator<Item = (SumKey, u64)>) {
        let by_stack: HashMap<SumKey, u64> = live.filter(|(_, bytes)| *bytes > 0).collect();
        let bytes = by_stack.values().sum();
        if bytes > self.bytes {
            *self = Self { bytes, by_stack };
        }
    }
}

/// The most snapshots of a timeline. Then every second one is dropped, and the next come half as
/// often.
const MAX_SNAPSHOTS: usize = 32;

/// The time between the first snapshots.
const FIRST_STEP: Duration = Duration::from_millis(50);

/// Snapshots over time, the oldest first: few, and one near the middle whenever the recording ends.
#[derive(Debug)]
pub(super) struct Timeline {
    snapshots: Vec<HeapSnapshot>,
    step: Duration,
}

/// Live blocks and bytes of every stack at one moment.
#[derive(Debug)]
pub(super) struct HeapSnapshot {
    /// The moment since the recording's start.
    elapsed: Duration,
    /// The same in nanoseconds of `CLOCK_MONOTONIC`, which blocks have.
    at_ns: u64,
    by_stack: HashMap<SumKey, (u64, u64)>,
}

impl HeapSnapshot {
    /// The moment in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn at_ns(&self) -> u64 {
        self.at_ns
    }

    /// Blocks and bytes of each stack.
    pub(super) fn by_stack(&self, stacks: &StackTable) -> HashMap<SumKey, (u64, u64)> {
        let mut canonical: HashMap<SumKey, (u64, u64)> = HashMap::with_capacity(self.by_stack.len());
        for (key, (blocks, bytes)) in &self.by_stack {
            let sum = canonical.entry(stacks.canonical(*key)).or_default();
            sum.0 += blocks;
            sum.1 += bytes;
        }
        canonical
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            snapshots: Vec::new(),
            step: FIRST_STEP,
        }
    }
}

impl Timeline {
    /// Returns true if the next snapshot is due.
    fn is_due(&self, elapsed: Duration) -> bool {
        let last = self.snapshots.last().map(|it| it.elapsed);
        elapsed >= last.unwrap_or_default() + self.step
    }

    /// Adds the live blocks and bytes of each stack.
    fn add(&mut self, elapsed: Duration, at_ns: u64, live: impl Iterator<Item = (SumKey, u64, u64)>) {
        let live = live.filter(|(_, blocks, bytes)| *blocks > 0 || *bytes > 0);
        self.snapshots.push(HeapSnapshot {
            elapsed,
            at_ns,
            by_stack: live.map(|(key, blocks, bytes)| (key, (blocks, bytes))).collect(),
        });
        if self.snapshots.len() >= MAX_SNAPSHOTS {
            // The last one stays: the doubled step is counted from it.
            let mut index = 0;
            self.snapshots.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.step *= 2;
        }
    }

    /// The snapshots nearest to the quarters of a recording that has lasted until `end`. Returns
    /// nothing where they are too few or too far off to tell a quarter from the next: they are far
    /// apart where one takes long to read.
    pub(super) fn marks(&self, end: Duration) -> Option<([&HeapSnapshot; Marks::COUNT], Marks)> {
        let nearest = |quarter: u32| {
            let wanted = end * quarter / 4;
            let near = self
                .snapshots
                .iter()
                .min_by_key(|it| it.elapsed.abs_diff(wanted))?;
            (near.elapsed.abs_diff(wanted) <= end / 5).then_some(near)
        };
        let snapshots = [nearest(1)?, nearest(2)?, nearest(3)?];
        let at = snapshots.map(|it| it.elapsed);
        let apart = |from: Duration, to: Duration| to.saturating_sub(from) >= end / 16;
        if !(apart(at[0], at[1]) && apart(at[1], at[2]) && apart(at[2], end)) {
            return None;
        }
        Some((snapshots, Marks { at, end }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: SumKey = SumKey {
        stack: 5,
        process: 1,
        function: 1,
    };

    /// A timeline of so many milliseconds, in which a stack holds a byte for each.
    fn timeline(millis: u64) -> Timeline {
        let mut timeline = Timeline::default();
        for at in 0..millis {
            let elapsed = Duration::from_millis(at);
            if timeline.is_due(elapsed) {
                timeline.add(elapsed, at * 1_000_000, [(STACK, 1, at)].into_iter());
            }
        }
        timeline
    }

    #[test]
    fn snapshots_are_few_and_near() {
        for millis in [400, 1000, 3199, 10_000, 123_456, 3_600_000] {
            let timeline = timeline(millis);
            assert!(timeline.snapshots.len() < MAX_SNAPSHOTS);
            let end = Duration::from_millis(millis);
            let (snapshots, marks) = timeline.marks(end).expect("marks");
            for (quarter, (snapshot, at)) in (1..).zip(snapshots.iter().zip(marks.at)) {
                let wanted = end * quarter / 4;
                assert!(at.abs_diff(wanted) <= end / 15, "{millis}: {at:?} for {wanted:?}");
                let (_, bytes) = snapshot.by_stack(&StackTable::default())[&STACK];
                assert_eq!(u128::from(bytes), at.as_millis());
            }
        }
    }

    #[test]
    fn snapshots_far_apart_will_do() {
        let mut timeline = Timeline::default();
        let mut add = |millis| timeline.add(Duration::from_millis(millis), 0, std::iter::empty());
        add(1000);
        add(2200);
        assert!(timeline.marks(Duration::from_secs(5)).is_none(), "one is missing");
        let mut add = |millis| timeline.add(Duration::from_millis(millis), 0, std::iter::empty());
        add(3300);
        add(4500);
        let (_, marks) = timeline.marks(Duration::from_secs(5)).expect("marks");
        assert_eq!(marks.at, [1000, 2200, 3300].map(Duration::from_millis));
    }

    #[test]
    fn short_recordings_have_no_marks() {
        assert!(timeline(0).marks(Duration::ZERO).is_none());
        assert!(timeline(60).marks(Duration::from_millis(60)).is_none());
        assert!(timeline(100).marks(Duration::from_secs(10)).is_none());
    }
}
