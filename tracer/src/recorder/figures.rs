//! The kernel side's sums: merged by stack, and converted to a profile's figures.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tracer_ebpf::{Heap, HeapSum, Sum, SumKey};

use super::stack_table::StackTable;
use crate::cost::saturating_u64;
use crate::profile::{HeapValues, Held, HeldVariances, Values, Variances};

/// Figures that are added to others of the same stack.
pub(super) trait Additive: Copy {
    /// Adds the other figures.
    fn add(&mut self, other: &Self);
}

impl Additive for Sum {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.bytes += other.bytes;
        self.bytes_out += other.bytes_out;
        self.failed += other.failed;
        self.sent |= other.sent;
        self.hits += other.hits;
        self.calls_variance += other.calls_variance;
        self.bytes_variance += other.bytes_variance;
    }
}

impl Additive for HeapSum {
    fn add(&mut self, other: &Self) {
        self.sum.add(&other.sum);
        self.blocks += other.blocks;
        self.freed += other.freed;
        self.freed_bytes += other.freed_bytes;
        self.temporary += other.temporary;
        self.usable_bytes += other.usable_bytes;
        self.untracked += other.untracked;
        self.untracked_bytes += other.untracked_bytes;
        self.blocks_variance += other.blocks_variance;
        self.freed_variance += other.freed_variance;
        self.freed_bytes_variance += other.freed_bytes_variance;
        self.temporary_variance += other.temporary_variance;
        self.untracked_variance += other.untracked_variance;
        self.untracked_bytes_variance += other.untracked_bytes_variance;
        for (to, from) in self.sizes.iter_mut().zip(other.sizes) {
            *to += from;
        }
        for (to, from) in self.lifetimes.iter_mut().zip(other.lifetimes) {
            *to += from;
        }
    }
}

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
pub(super) fn held(heap: &Heap, unit: VarianceUnit) -> Held {
    Held {
        live_bytes: heap.live_bytes,
        live: heap.live,
        peak_bytes: heap.peak_bytes,
        peak: heap.peak,
        peak_by_stack_bytes: None,
        free_calls: heap.free_calls,
        unmatched: heap.unmatched,
        missed: heap.missed,
        variances: HeldVariances {
            live: heap.live_variance.into(),
            live_bytes: unit.bytes(heap.live_bytes_variance),
            peak: heap.peak_variance.into(),
            peak_bytes: unit.bytes(heap.peak_bytes_variance),
        },
    }
}
