//! How long the kernel side's programs run: the kernel's own statistics (`BPF_ENABLE_STATS`, Linux
//! 5.8).
//!
//! While they are kept, every program of the machine runs some 50 ns longer, so they are kept for
//! short phases.

use std::os::fd::OwnedFd;

use aya::programs::Program;
use aya::sys::{Stats, SyscallError, enable_stats};

use super::compat::multi::Multi;
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
        let mut add = |name: &str, count, time_ns| {
            if name.starts_with("cost_") {
                return;
            }
            runs.time_ns += time_ns;
            if name != programs::CALL_RETURN {
                runs.hits += count;
            }
        };
        for (name, program) in object.ebpf.programs() {
            // Programs that are not loaded have none.
            if let Program::UProbe(program) = program
                && let Ok(info) = program.info()
            {
                let time_ns = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
                add(name, info.run_count(), time_ns);
            }
        }
        for (name, count, time_ns) in object.multi.iter().flat_map(Multi::runs) {
            add(name, count, time_ns);
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
