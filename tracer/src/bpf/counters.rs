//! The kernel side's counters, as user space has them.

use tracer_ebpf::{Counter, Loss};

/// The kernel side's counters, summed over the CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    slots: Vec<u64>,
}

impl Counts {
    /// The sums over the CPUs, by slot.
    pub(super) const fn new(slots: Vec<u64>) -> Self {
        Self { slots }
    }

    /// The number of events that ended so.
    #[must_use]
    pub fn events(&self, counter: Counter) -> u64 {
        self.slot(counter.index())
    }

    /// The number of losses for this reason.
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

/// The counts of a process image by one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The number of the image.
    pub process: u32,
    /// Hits of probes in allocators.
    pub hits: u64,
    /// Calls of `free`, where blocks are followed.
    pub frees: u64,
}
