//! How old what is still allocated is, and how much of it there was before.

use std::collections::HashMap;
use std::time::Duration;

use tracer_ebpf::{Block, BlockKey, SumKey, sampling};

use super::departed::holds;
use super::figures::Unit;
use super::recorder::Recorder;
use crate::bpf::load::BpfError;
use crate::process::sideband::monotonic_ns;
use crate::profile::{Aged, Marks, Values};

/// What blocks are judged by.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the unit is part of each name")]
struct Limits {
    /// Now: nanoseconds of `CLOCK_MONOTONIC`.
    now_ns: u64,
    /// The age from which on they count as old.
    old_ns: u64,
    /// When the half-way mark was.
    half_ns: Option<u64>,
}

impl Limits {
    fn add(&self, block: &Block, unit: Unit, aged: &mut Aged) {
        let weight = u64::from(block.weight);
        let bytes = block.bytes.saturating_mul(weight);
        let age_ns = self.now_ns.saturating_sub(block.time_ns);
        aged.oldest_ns = aged.oldest_ns.max(age_ns);
        if age_ns >= self.old_ns {
            aged.old += weight;
            aged.old_bytes += bytes;
            let variance = sampling::bytes_variance(block.bytes, weight, unit.halvings);
            aged.old_bytes_variance += unit.bytes(variance);
        }
        if self.half_ns.is_some_and(|half_ns| block.time_ns <= half_ns) {
            aged.kept += weight;
            aged.kept_bytes += bytes;
        }
    }
}

/// Blocks and bytes of each stack at each mark, and the marks.
type Past = ([HashMap<SumKey, (u64, u64)>; Marks::COUNT], Marks);

/// The ages of the blocks of all stacks.
pub(super) struct Aging<'a> {
    recorder: &'a Recorder,
    now_ns: u64,
    blocks: HashMap<SumKey, Aged>,
    past: Option<Past>,
}

impl Recorder {
    /// Reads the ages, where they are reported.
    pub(super) fn aging(&self, duration: Duration) -> Result<Option<Aging<'_>>, BpfError> {
        let Some(history) = &self.snapshots.history else {
            return Ok(None);
        };
        let now_ns = self.ended_ns.unwrap_or_else(monotonic_ns);
        let past = history.marks(duration);
        let limits = Limits {
            now_ns,
            old_ns: u64::try_from(self.older_than.as_nanos()).unwrap_or(u64::MAX),
            half_ns: past
                .as_ref()
                .map(|(snapshots, _)| snapshots[Marks::HALF].moment.at_ns),
        };
        let mut blocks: HashMap<SumKey, Aged> = HashMap::new();
        for (key, block) in self.object.blocks()? {
            if block.is_gone == 0 {
                let key = self.copied.named(stack_of(&key, &block));
                limits.add(&block, self.unit, blocks.entry(key).or_default());
            }
        }
        Ok(Some(Aging {
            recorder: self,
            now_ns,
            blocks,
            past: past.map(|(snapshots, marks)| (snapshots.map(|it| it.by_stack(&self.copied)), marks)),
        }))
    }
}

/// The stack that allocated a block.
fn stack_of(key: &BlockKey, block: &Block) -> SumKey {
    SumKey {
        stack: block.stack,
        process: key.process,
        function: block.function.into(),
    }
}

impl Aging<'_> {
    pub(super) fn marks(&self) -> Option<Marks> {
        self.past.as_ref().map(|(_, marks)| *marks)
    }

    /// The figures of a stack, whose sums are given.
    pub(super) fn of(&self, key: &SumKey, values: &Values) -> Aged {
        let mut aged = self.without_history(key, values);
        if let Some((past, _)) = &self.past
            && self.holds(key)
        {
            let past = [0, 1, 2].map(|mark: usize| past[mark].get(key).copied().unwrap_or_default());
            aged.half_live = past[Marks::HALF].0;
            aged.marks_bytes = past.map(|(_, bytes)| bytes);
        }
        aged
    }

    /// The same of figures whose past is not known: they are taken to have been as they are.
    pub(super) fn without_history(&self, key: &SumKey, values: &Values) -> Aged {
        if !self.holds(key) {
            return Aged::default();
        }
        let live_bytes = values.live_bytes();
        Aged {
            live: values.live(),
            live_bytes,
            live_variance: values.variances.live(),
            live_bytes_variance: values.variances.live_bytes(),
            half_live: values.live(),
            marks_bytes: [live_bytes; Marks::COUNT],
            ..self.blocks.get(key).copied().unwrap_or_default()
        }
    }

    fn holds(&self, key: &SumKey) -> bool {
        holds(self.recorder.processes.ended_ns(key.process), self.now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_judged_by_their_time() {
        let limits = Limits {
            now_ns: 1000,
            old_ns: 300,
            half_ns: Some(500),
        };
        let mut aged = Aged::default();
        for (time_ns, bytes) in [
            (100, 1),
            (500, 20),
            (501, 300),
            (700, 4000),
            (701, 50_000),
            (1200, 600_000),
        ] {
            let block = Block {
                time_ns,
                bytes,
                weight: 1,
                ..Block::default()
            };
            limits.add(&block, Unit::default(), &mut aged);
        }
        assert_eq!((aged.kept, aged.kept_bytes), (2, 21));
        assert_eq!((aged.old, aged.old_bytes), (4, 4321));
        assert_eq!(aged.oldest_ns, 900);
    }
}
