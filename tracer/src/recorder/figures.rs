//! The figures of a profile, from the sums and the blocks of the kernel side: merged by stack, with
//! ages and the past.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tracer_ebpf::{Block, BlockKey, HeapSum, ProcessTotals, Sum, SumKey, sampling};

use super::exited_processes::still_holds;
use super::heap_history::HeapSnapshot;
use super::process_table::ProcessTable;
use super::stack_table::StackTable;
use crate::bpf::sums::Additive;
use crate::numeric::saturating_u64;
use crate::profile::{Aged, HeapTotals, HeapValues, HeapVariances, Marks, Values, Variances};

/// Merges sums to one for each stack: provisional identities are replaced.
pub(super) fn merged<T: Additive>(sums: Vec<(SumKey, T)>, stacks: &StackTable) -> Vec<(SumKey, T)> {
    let mut merged: HashMap<SumKey, T> = HashMap::with_capacity(sums.len());
    for (key, sum) in sums {
        match merged.entry(stacks.canonical(key)) {
            Entry::Occupied(mut total) => total.get_mut().add(&sum),
            Entry::Vacant(new) => {
                new.insert(sum);
            }
        }
    }
    merged.into_iter().collect()
}

/// The unit of the kernel side's variances of bytes: 4^shift bytes².
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct VarianceUnit {
    shift: u32,
}

impl VarianceUnit {
    /// Returns the unit of 4^`shift` bytes².
    pub(super) const fn new(shift: u32) -> Self {
        Self { shift }
    }

    /// The binary logarithm of the unit's square root.
    pub(super) const fn shift(self) -> u32 {
        self.shift
    }

    /// Converts a variance to bytes².
    pub(super) fn bytes(self, variance: u64) -> u128 {
        u128::from(variance) << (2 * self.shift)
    }

    /// Converts bytes² to this unit; saturates.
    pub(super) fn of_bytes(self, variance: f64) -> u64 {
        let shift = i32::try_from(self.shift).unwrap_or(i32::MAX);
        saturating_u64(variance / 4_f64.powi(shift))
    }
}

/// The number of calls that were seen, each counted as one whatever its sample weight.
pub(super) fn seen(sum: &Sum) -> u64 {
    if sum.hits > 0 { sum.hits } else { sum.calls }
}

/// The figures of a stack.
pub(super) fn values_of(sum: &Sum, unit: VarianceUnit) -> Values {
    Values {
        calls: sum.calls,
        bytes: sum.bytes,
        bytes_out: sum.bytes_out,
        failed: sum.failed,
        heap: HeapValues::default(),
        variances: Variances {
            calls: sum.calls_variance.into(),
            bytes: unit.bytes(sum.bytes_variance),
            ..Variances::default()
        },
    }
}

/// The figures of a stack whose blocks were followed.
pub(super) fn heap_values_of(sum: &HeapSum, unit: VarianceUnit) -> Values {
    let values = values_of(&sum.sum, unit);
    Values {
        heap: HeapValues {
            blocks: sum.blocks,
            freed: sum.freed,
            freed_bytes: sum.freed_bytes,
            temporary: sum.temporary,
            usable_bytes: sum.usable_bytes,
            untracked: sum.untracked,
            untracked_bytes: sum.untracked_bytes,
            sizes: sum.sizes,
            lifetimes: sum.lifetimes,
            ..HeapValues::default()
        },
        variances: Variances {
            blocks: sum.blocks_variance.into(),
            freed: sum.freed_variance.into(),
            freed_bytes: unit.bytes(sum.freed_bytes_variance),
            temporary: sum.temporary_variance.into(),
            untracked: sum.untracked_variance.into(),
            untracked_bytes: unit.bytes(sum.untracked_bytes_variance),
            ..values.variances
        },
        ..values
    }
}

/// Memory that a process holds and held.
pub(super) fn held(heap: &ProcessTotals, unit: VarianceUnit) -> HeapTotals {
    HeapTotals {
        live_bytes: heap.live_bytes,
        live: heap.live,
        peak_bytes: heap.peak_bytes,
        peak: heap.peak,
        peak_by_stack_bytes: None,
        free_calls: heap.free_calls,
        unmatched: heap.unmatched,
        missed: heap.missed,
        variances: HeapVariances {
            live: heap.live_variance.into(),
            live_bytes: unit.bytes(heap.live_bytes_variance),
            peak: heap.peak_variance.into(),
            peak_bytes: unit.bytes(heap.peak_bytes_variance),
        },
    }
}

/// The heaps of processes together, with the peak of `all`: theirs were not at one time.
pub(super) fn held_by_all(each: &[HeapTotals], all: &ProcessTotals, unit: VarianceUnit) -> HeapTotals {
    let peak = ProcessTotals {
        peak_bytes: all.peak_bytes,
        peak: all.peak,
        peak_variance: all.peak_variance,
        peak_bytes_variance: all.peak_bytes_variance,
        ..ProcessTotals::default()
    };
    let mut total = held(&peak, unit);
    for held in each {
        total.live_bytes += held.live_bytes;
        total.live += held.live;
        total.free_calls += held.free_calls;
        total.unmatched += held.unmatched;
        total.missed += held.missed;
        total.variances.live += held.variances.live;
        total.variances.live_bytes += held.variances.live_bytes;
    }
    total
}

/// The limits by which blocks are counted.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the unit is part of each name")]
pub(super) struct AgeLimits {
    /// The present: nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) now_ns: u64,
    /// The age from which on blocks count as old.
    pub(super) old_ns: u64,
    /// The time of the half-way mark.
    pub(super) half_ns: Option<u64>,
}

impl AgeLimits {
    fn add(&self, block: &Block, unit: VarianceUnit, aged: &mut Aged) {
        let weight = u64::from(block.weight);
        let bytes = block.bytes.saturating_mul(weight);
        let age_ns = self.now_ns.saturating_sub(block.time_ns);
        aged.oldest_ns = aged.oldest_ns.max(age_ns);
        if age_ns >= self.old_ns {
            aged.old += weight;
            aged.old_bytes += bytes;
            let variance = sampling::bytes_variance(block.bytes, weight, unit.shift());
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
pub(super) struct HeapAges<'a> {
    processes: &'a ProcessTable,
    now_ns: u64,
    blocks: HashMap<SumKey, Aged>,
    past: Option<Past>,
}

impl<'a> HeapAges<'a> {
    /// Sorts blocks by age, and takes in the snapshots at the marks, if there are any.
    pub(super) fn new(
        processes: &'a ProcessTable,
        stacks: &StackTable,
        unit: VarianceUnit,
        limits: &AgeLimits,
        blocks: &[(BlockKey, Block)],
        past: Option<([&HeapSnapshot; Marks::COUNT], Marks)>,
    ) -> Self {
        let mut by_stack: HashMap<SumKey, Aged> = HashMap::new();
        for (key, block) in blocks.iter().filter(|(_, block)| block.is_gone == 0) {
            let key = stacks.canonical(allocating_stack(key, block));
            limits.add(block, unit, by_stack.entry(key).or_default());
        }
        Self {
            processes,
            now_ns: limits.now_ns,
            blocks: by_stack,
            past: past.map(|(snapshots, marks)| (snapshots.map(|it| it.by_stack(stacks)), marks)),
        }
    }

    /// The marks, if there are any.
    pub(super) fn marks(&self) -> Option<Marks> {
        self.past.as_ref().map(|(_, marks)| *marks)
    }

    /// The figures of a stack, whose sums are given.
    pub(super) fn of(&self, key: &SumKey, values: &Values) -> Aged {
        let mut aged = self.without_past(key, values);
        if let Some((past, _)) = &self.past
            && self.holds(key)
        {
            let past = [0, 1, 2].map(|mark: usize| past[mark].get(key).copied().unwrap_or_default());
            aged.half_live = past[Marks::HALF].0;
            aged.marks_bytes = past.map(|(_, bytes)| bytes);
        }
        aged
    }

    /// The figures of a stack whose past is not known: it is taken to have been as the present.
    pub(super) fn without_past(&self, key: &SumKey, values: &Values) -> Aged {
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
        still_holds(self.processes.ended_ns(key.process), self.now_ns)
    }
}

/// The stack that allocated a block.
fn allocating_stack(key: &BlockKey, block: &Block) -> SumKey {
    SumKey {
        stack: block.stack,
        process: key.process,
        function: block.function.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_old_by_their_time() {
        let limits = AgeLimits {
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
            limits.add(&block, VarianceUnit::default(), &mut aged);
        }
        assert_eq!((aged.kept, aged.kept_bytes), (2, 21));
        assert_eq!((aged.old, aged.old_bytes), (4, 4321));
        assert_eq!(aged.oldest_ns, 900);
    }
}
