//! The cost of tracing, measured and estimated.

use serde::{Deserialize, Serialize};

use super::text;
use crate::numeric::{rounded, saturating_u64, to_f64};

/// The cost of tracing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Hits of probes in allocators, by all processes.
    pub hits: u64,
    /// The hits by processes that are not traced.
    pub foreign_hits: u64,
    /// Time in the eBPF programs, in nanoseconds.
    pub bpf_ns: u64,
    /// Time that processes lost, in nanoseconds: the programs' and an estimate of the traps'.
    pub estimated_target_ns: u64,
    /// The estimate as a share of one CPU's time, in percent.
    #[serde(deserialize_with = "text::number")]
    pub estimated_overhead_percent: f64,
    /// The costs per hit that the estimate is made of.
    pub prices: PricesBlock,
    /// The budget, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetBlock>,
}

/// The cost of a hit, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PricesBlock {
    /// The trap at an instruction that the kernel emulates.
    pub emulated_ns: u64,
    /// The trap at one that it must single-step.
    pub stepped_ns: u64,
    /// The addition of a probe at the return.
    pub return_ns: u64,
    /// True if the costs of traps were measured on this machine.
    pub traps_measured: bool,
    /// The programs, at a hit whose allocation is not traced.
    pub passed_ns: u64,
    /// The addition of an allocation that is traced.
    pub followed_ns: u64,
    /// True if the costs of programs come from the kernel's statistics.
    pub programs_measured: bool,
}

/// The budget, and the means by which it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BudgetBlock {
    /// The budget in percent of one CPU's time.
    #[serde(deserialize_with = "text::number")]
    pub max_overhead_percent: f64,
    /// True if it was kept to the end.
    pub kept: bool,
    /// An allocation was traced per so many bytes on average, at the least, at most, and at
    /// the end; 1 is every one.
    pub sample_bytes_smallest: u64,
    /// The largest interval.
    pub sample_bytes_largest: u64,
    /// The last interval.
    pub sample_bytes_last: u64,
    /// The share of time in which probes were in.
    #[serde(deserialize_with = "text::number")]
    pub probed_time_share: f64,
    /// Windows in which probes were in.
    pub windows: u32,
    /// The factor that counts of windows were multiplied by, since probes slow a target down;
    /// nothing without windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowing_factor: Option<f64>,
    /// The relative error of that, which all estimates have in common; it is in their standard
    /// errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowing_error: Option<f64>,
    /// Standard error of the number of all calls, by how windows differ; of calls that were seen
    /// all the time none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_stderr: Option<u64>,
    /// The standard error of the bytes of all calls, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_stderr: Option<u64>,
}

/// The cost of tracing one process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct ProcessCost {
    /// Its hits of probes.
    pub hits: u64,
    /// Time that it lost, in nanoseconds.
    pub estimated_target_ns: u64,
    /// The estimate as a share of one CPU's time, in percent.
    pub estimated_overhead_percent: f64,
}

impl Cost {
    /// Returns the part of the cost that belongs to this number of hits.
    #[must_use]
    pub(crate) fn of(&self, hits: u64) -> ProcessCost {
        let part = if self.hits > 0 {
            to_f64(hits) / to_f64(self.hits)
        } else {
            0.0
        };
        ProcessCost {
            hits,
            estimated_target_ns: saturating_u64(part * to_f64(self.estimated_target_ns)),
            estimated_overhead_percent: rounded(part * self.estimated_overhead_percent),
        }
    }
}
