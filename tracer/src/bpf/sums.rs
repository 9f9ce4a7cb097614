//! Reading the sums and the counters.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aya::Pod;
use aya::maps::{Array, MapData, PerCpuArray};
use tracer_ebpf::{Counter, Function, HeapSum, Loss, PendingRegion, Sum, SumKey};

use super::compat::batch;
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

/// The kernel side's counters, summed over the CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    slots: Vec<u64>,
}

impl Counts {
    /// How many events ended so.
    #[must_use]
    pub fn events(&self, counter: Counter) -> u64 {
        self.slot(counter.index())
    }

    /// How often this was lost.
    #[must_use]
    pub fn lost(&self, loss: Loss) -> u64 {
        self.slot(loss.index())
    }

    /// All losses together.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        Loss::ALL.iter().map(|loss| self.lost(*loss)).sum()
    }

    fn slot(&self, index: u32) -> u64 {
        self.slots.get(index as usize).copied().unwrap_or(0)
    }
}

impl Object {
    /// Reads the counters.
    pub fn counts(&self) -> Result<Counts, BpfError> {
        let map = self
            .ebpf
            .map("COUNTERS")
            .ok_or_else(|| BpfError::Missing("map COUNTERS".to_owned()))?;
        let counters =
            PerCpuArray::<&MapData, u64>::try_from(map).map_err(|error| BpfError::map("COUNTERS", error))?;
        let mut slots = Vec::new();
        for index in 0..Counter::SLOTS {
            let values = counters
                .get(&index, 0)
                .map_err(|error| BpfError::map("COUNTERS", error))?;
            slots.push(values.iter().sum());
        }
        Ok(Counts { slots })
    }

    /// Reads every sum, in batches: those with a stack, and those whose stack was lost.
    pub fn sums(&self) -> Result<Vec<(SumKey, Sum)>, BpfError> {
        self.with_shards(&["SUMS", "LOST", "SUM_SHARDS"])
    }

    /// Reads sums, each with its shards added to it. Programs go on adding: each number is one that
    /// it had while this read.
    pub(super) fn with_shards<V: Pod + Additive>(&self, maps: &[&str]) -> Result<Vec<(SumKey, V)>, BpfError> {
        let mut sums: HashMap<SumKey, V> = HashMap::new();
        for map in maps {
            let entries =
                batch::read_all::<SumKey, V>(self.map_fd(map)?).map_err(|error| BpfError::map(map, error))?;
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
    pub fn overflow(&self) -> Result<Vec<(Function, Sum)>, BpfError> {
        let map = self
            .ebpf
            .map("OVERFLOW")
            .ok_or_else(|| BpfError::Missing("map OVERFLOW".to_owned()))?;
        let overflow =
            Array::<&MapData, Sum>::try_from(map).map_err(|error| BpfError::map("OVERFLOW", error))?;
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

    /// How many system calls were entered and have not returned.
    pub fn unfinished_calls(&self) -> Result<u64, BpfError> {
        let pending: Vec<(u32, PendingRegion)> =
            batch::read_all(self.map_fd("PENDING")?).map_err(|error| BpfError::map("PENDING", error))?;
        Ok(pending.len() as u64)
    }
}
