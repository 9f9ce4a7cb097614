//! Reading the sums.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aya::Pod;
use tracer_ebpf::{Function, HeapSum, PendingRegion, Sum, SumKey};

use super::error::BpfError;
use super::object::Object;

/// Figures that can be added to others of the same stack.
pub(crate) trait Additive: Copy {
    /// Adds other figures.
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

/// Reads every sum, in batches: those with a stack, and those whose stack was lost.
pub fn read(object: &Object) -> Result<Vec<(SumKey, Sum)>, BpfError> {
    with_shards(object, &["SUMS", "LOST", "SUM_SHARDS"])
}

/// Reads sums, each with its shards added to it. Programs go on adding: each number is one that it
/// had while this read.
pub(super) fn with_shards<V: Pod + Additive>(
    object: &Object,
    maps: &[&str],
) -> Result<Vec<(SumKey, V)>, BpfError> {
    let mut sums: HashMap<SumKey, V> = HashMap::new();
    for map in maps {
        let entries = object.entries::<SumKey, V>(map)?;
        sums.reserve(entries.len());
        for (key, value) in entries {
            match sums.entry(key.whole()) {
                Entry::Occupied(mut sum) => sum.get_mut().add(&value),
                Entry::Vacant(new) => {
                    new.insert(value);
                }
            }
        }
    }
    Ok(sums.into_iter().collect())
}

/// Reads the sums, per function, of events that found the table of sums full.
pub fn overflow(object: &Object) -> Result<Vec<(Function, Sum)>, BpfError> {
    let overflow = object.array::<Sum>("OVERFLOW")?;
    let mut sums = Vec::new();
    for function in Function::ALL {
        let sum = overflow
            .get(&function.number(), 0)
            .map_err(|error| BpfError::map("OVERFLOW", error))?;
        if sum.calls > 0 {
            sums.push((*function, sum));
        }
    }
    Ok(sums)
}

/// The number of system calls that were entered and have not returned.
pub fn unfinished_calls(object: &Object) -> Result<u64, BpfError> {
    let pending = object.entries::<u32, PendingRegion>("PENDING")?;
    Ok(pending.len() as u64)
}
