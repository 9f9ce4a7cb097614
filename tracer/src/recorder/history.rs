//! What each stack held over time: a few snapshots, so that there is one near the middle whenever the recording ends.

use std::collections::HashMap;
use std::time::Duration;

use tracer_ebpf::SumKey;

use super::copied::Copied;
use super::snapshots::Moment;
use crate::profile::Marks;

/// Snapshots that are kept at the most; then every second one goes, and the next come half as often.
const KEPT: usize = 32;

/// The time between the first snapshots.
const FIRST_STEP: Duration = Duration::from_millis(50);

/// Snapshots, the oldest first.
#[derive(Debug)]
pub(super) struct History {
    snapshots: Vec<Snapshot>,
    step: Duration,
}

/// What every stack held at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) moment: Moment,
    /// Blocks and bytes, where there are any.
    by_stack: HashMap<SumKey, (u64, u64)>,
}

impl Snapshot {
    /// Blocks and bytes of each stack, by the identities that stacks have by now.
    pub(super) fn by_stack(&self, copied: &Copied) -> HashMap<SumKey, (u64, u64)> {
        let mut named: HashMap<SumKey, (u64, u64)> = HashMap::with_capacity(self.by_stack.len());
        for (key, (blocks, bytes)) in &self.by_stack {
            let sum = named.entry(copied.named(*key)).or_default();
            sum.0 += blocks;
            sum.1 += bytes;
        }
        named
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            snapshots: Vec::new(),
            step: FIRST_STEP,
        }
    }
}

impl History {
    /// Whether the next snapshot is to be taken.
    pub(super) fn is_due(&self, elapsed: Duration) -> bool {
        let last = self.snapshots.last().map(|it| it.moment.elapsed);
        elapsed >= last.unwrap_or_default() + self.step
    }

    /// Takes one in: the blocks and bytes of each stack.
    pub(super) fn add(
        &mut self,
        elapsed: Duration,
        at_ns: u64,
        held: impl Iterator<Item = (SumKey, u64, u64)>,
    ) {
        let held = held.filter(|(_, blocks, bytes)| *blocks > 0 || *bytes > 0);
        self.snapshots.push(Snapshot {
            moment: Moment { elapsed, at_ns },
            by_stack: held.map(|(key, blocks, bytes)| (key, (blocks, bytes))).collect(),
        });
        if self.snapshots.len() >= KEPT {
            // The last one stays: from it on the doubled step counts.
            let mut index = 0;
            self.snapshots.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.step *= 2;
        }
    }

    /// The snapshots nearest to the quarters of a recording that has lasted until `end`. Nothing where they are too few
    /// or too far off: a quarter must be seen apart from the next. They are far apart where one takes long to read.
    pub(super) fn marks(&self, end: Duration) -> Option<([&Snapshot; Marks::COUNT], Marks)> {
        let nearest = |quarter: u32| {
            let wanted = end * quarter / 4;
            let near = self
                .snapshots
                .iter()
                .min_by_key(|it| it.moment.elapsed.abs_diff(wanted))?;
            (near.moment.elapsed.abs_diff(wanted) <= end / 5).then_some(near)
        };
        let snapshots = [nearest(1)?, nearest(2)?, nearest(3)?];
        let at = snapshots.map(|it| it.moment.elapsed);
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

    /// A history of so many milliseconds, in which a stack holds a byte for each.
    fn history(millis: u64) -> History {
        let mut history = History::default();
        for at in 0..millis {
            let elapsed = Duration::from_millis(at);
            if history.is_due(elapsed) {
                history.add(elapsed, at * 1_000_000, [(STACK, 1, at)].into_iter());
            }
        }
        history
    }

    #[test]
    fn snapshots_are_few_and_near() {
        for millis in [400, 1000, 3199, 10_000, 123_456, 3_600_000] {
            let history = history(millis);
            assert!(history.snapshots.len() < KEPT);
            let end = Duration::from_millis(millis);
            let (snapshots, marks) = history.marks(end).expect("marks");
            for (quarter, (snapshot, at)) in (1..).zip(snapshots.iter().zip(marks.at)) {
                let wanted = end * quarter / 4;
                assert!(at.abs_diff(wanted) <= end / 15, "{millis}: {at:?} for {wanted:?}");
                let (_, bytes) = snapshot.by_stack(&Copied::default())[&STACK];
                assert_eq!(u128::from(bytes), at.as_millis());
            }
        }
    }

    #[test]
    fn snapshots_far_apart_will_do() {
        let mut history = History::default();
        let mut add = |millis| history.add(Duration::from_millis(millis), 0, std::iter::empty());
        add(1000);
        add(2200);
        assert!(history.marks(Duration::from_secs(5)).is_none(), "one is missing");
        let mut add = |millis| history.add(Duration::from_millis(millis), 0, std::iter::empty());
        add(3300);
        add(4500);
        let (_, marks) = history.marks(Duration::from_secs(5)).expect("marks");
        assert_eq!(marks.at, [1000, 2200, 3300].map(Duration::from_millis));
    }

    #[test]
    fn short_recordings_have_no_marks() {
        assert!(history(0).marks(Duration::ZERO).is_none());
        assert!(history(60).marks(Duration::from_millis(60)).is_none());
        assert!(history(100).marks(Duration::from_secs(10)).is_none());
    }
}
