//! The kernel side's sums: made one for each stack, and turned into a profile's figures.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tracer_ebpf::{Heap, HeapSum, Sum, SumKey};

use super::copied::Copied;
use crate::profile::{HeapValues, Held, Values};

/// Figures that can be added to others of the same stack.
pub(super) trait Additive: Copy {
    fn add(&mut self, other: &Self);
}

impl Additive for Sum {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.bytes += other.bytes;
        self.bytes_out += other.bytes_out;
        self.failed += other.failed;
        self.sent |= other.sent;
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
        for (to, from) in self.sizes.iter_mut().zip(other.sizes) {
            *to += from;
        }
        for (to, from) in self.lifetimes.iter_mut().zip(other.lifetimes) {
            *to += from;
        }
    }
}

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

/// The figures of a stack.
pub(super) fn values_of(sum: &Sum) -> Values {
    Values {
        calls: sum.calls,
        bytes: sum.bytes,
        bytes_out: sum.bytes_out,
        failed: sum.failed,
        heap: HeapValues::default(),
    }
}

/// The figures of a stack whose blocks were followed.
pub(super) fn heap_values_of(sum: &HeapSum) -> Values {
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
        ..values_of(&sum.sum)
    }
}

/// What a process held.
pub(super) fn held(heap: &Heap) -> Held {
    Held {
        live_bytes: heap.live_bytes,
        live: heap.live,
        peak_bytes: heap.peak_bytes,
        peak: heap.peak,
        peak_by_stack_bytes: None,
        free_calls: heap.free_calls,
        unmatched: heap.unmatched,
        missed: heap.missed,
    }
}
