//! Reading the sums and the counters.

use aya::maps::{Array, MapData, PerCpuArray};
use tracer_ebpf::{Counter, Function, Loss, PendingRegion, Sum, SumKey};

use super::compat::batch;
use super::load::{BpfError, Object};

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
        let mut sums = Vec::new();
        for map in ["SUMS", "LOST"] {
            let part = batch::read_all(self.map_fd(map)?).map_err(|error| BpfError::map(map, error))?;
            sums.extend(part);
        }
        Ok(sums)
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
