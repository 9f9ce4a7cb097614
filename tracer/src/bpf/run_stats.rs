//! How long the kernel side's programs run: the kernel's own statistics (`BPF_ENABLE_STATS`, Linux
//! 5.8).
//!
//! While they are kept, every program of the machine runs some 50 ns longer, so they are kept for
//! short phases.

use std::os::fd::OwnedFd;

use aya::sys::{Stats, SyscallError, enable_stats};

use super::object::Object;
use super::programs;

/// The kernel keeps statistics as long as this lives.
#[derive(Debug)]
pub struct RunStats {
    _descriptor: OwnedFd,
}

impl RunStats {
    /// Has the kernel keep them.
    pub fn enable() -> Result<Self, SyscallError> {
        enable_stats(Stats::RunTime).map(|descriptor| Self {
            _descriptor: descriptor,
        })
    }
}

/// What the programs have run while statistics were kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runs {
    /// Runs at probes, but for those at returns.
    pub hits: u64,
    /// Time of all runs, those at returns too, in nanoseconds.
    pub time_ns: u64,
}

impl Runs {
    /// Reads what the uprobe programs of an object have run.
    #[must_use]
    pub fn read(object: &Object) -> Self {
        let mut runs = Self::default();
        for (name, program) in object.loaded.programs() {
            if !program.is_of_uprobes() || name.starts_with("cost_") {
                continue;
            }
            let Some((count, time_ns)) = program.runs() else {
                continue;
            };
            runs.time_ns += time_ns;
            if name != programs::CALL_RETURN {
                runs.hits += count;
            }
        }
        runs
    }

    /// The runs that were added since.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            hits: self.hits.saturating_sub(before.hits),
            time_ns: self.time_ns.saturating_sub(before.time_ns),
        }
    }
}
