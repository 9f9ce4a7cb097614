//! The kernel side's sums: made one for each stack, and turned into a profile's figures.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tracer_ebpf::{HeapSum, ProcessTotals, Sum, SumKey};

use super::copied::Copied;
use crate::bpf::sums::Additive;
use crate::cost::whole;
use crate::profile::{HeapValues, Held, HeldVariances, Values, Variances};

/// The sums with one entry for each stack: provisional identities are replaced.
pub(super) fn merged<T: Additive>(sums: Vec<(SumKey, T)>, copied: &Copied) -> Vec<(SumKey, T)> {
    let mut merged: HashMap<SumKey, T> = HashMap::with_capacity(sums.len());
    for (key, sum) in sums {
        match merged.entry(copied.named(key)) {
            Entry::Occupied(mut total) => total.get_mut().add(&sum),
            Entry::Vacant(new) => {
                new.insert(sum);
            }
        }
    }
    merged.into_iter().collect()
}

/// The unit in which the kernel side has variances of bytes: 4^`halvings` bytes².
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unit {
    pub(super) halvings: u32,
}

impl Unit {
    /// In bytes².
    pub(super) fn bytes(self, variance: u64) -> u128 {
        u128::from(variance) << (2 * self.halvings)
    }

    /// Bytes² in this unit, the largest number for what is more.
    pub(super) fn of_bytes(self, variance: f64) -> u64 {
        let halvings = i32::try_from(self.halvings).unwrap_or(i32::MAX);
        whole(variance / 4_f64.powi(halvings))
    }
}

/// Calls that were seen, whatever they stand for.
pub(super) fn seen(sum: &Sum) -> u64 {
    if sum.hits > 0 { sum.hits } else { sum.calls }
}

/// The figures of a stack.
pub(super) fn values_of(sum: &Sum, unit: Unit) -> Values {
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
pub(super) fn heap_values_of(sum: &HeapSum, unit: Unit) -> Values {
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

/// What a process held.
pub(super) fn held(heap: &ProcessTotals, unit: Unit) -> Held {
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
