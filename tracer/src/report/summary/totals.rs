//! Sums of calls and bytes.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tracer_ebpf::Function;

use crate::profile::session::Traced;
use crate::profile::{HeapTotals, Profile};
use crate::report::sums::{FunctionSums, Sums};
use crate::report::units;

/// The sums of a process or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    /// Calls to allocators by function, where they were traced; those that were not called are
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functions: Option<Functions>,
    /// The allocations, where they were traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alloc: Option<AllocTotals>,
    /// The freed blocks, where blocks were tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed: Option<AllocTotals>,
    /// The live blocks, where blocks were tracked: at the end, or at the process's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<AllocTotals>,
    /// The most that was live at once, where blocks were tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<PeakTotals>,
    /// Blocks freed by their thread's next call, where blocks were tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temporary: Option<TemporaryTotals>,
    /// Allocated blocks that could not be tracked, if there are any: they are in no figure of what
    /// is live, and where they are freed, that is unmatched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untracked: Option<AllocTotals>,
    /// Bytes that all blocks had room for, where the allocator tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable_bytes: Option<u128>,
    /// The changes of the address space by system calls, where they were traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Regions>,
}

/// Totals by function, in the order of the functions' numbers, and those of `free`; an object in
/// JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Functions(pub Vec<(Function, FunctionTotals)>, pub Option<FreeTotals>);

/// Calls of `free`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FreeTotals {
    /// Calls that the program made.
    pub calls: u128,
    /// Blocks that are not known: allocated before tracing began. They change no sum.
    pub unmatched: u128,
    /// Blocks whose address was allocated again though no free of it was seen.
    pub missed: u128,
}

/// The most that was live at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PeakTotals {
    /// Blocks, at that moment.
    pub count: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_stderr: Option<u128>,
    /// Bytes, exact in time.
    pub bytes: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_stderr: Option<u128>,
    /// Bytes in the snapshot of all stacks that came nearest to it: what `peak-bytes` has by stack.
    /// Of all processes together alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_stack_bytes: Option<u128>,
}

/// Blocks that lived for a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct TemporaryTotals {
    /// The number of blocks.
    pub count: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_stderr: Option<u128>,
}

/// Calls of one allocator function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FunctionTotals {
    /// Calls that the program made, failed ones too.
    pub calls: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_stderr: Option<u128>,
    /// Bytes asked for.
    pub bytes: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_stderr: Option<u128>,
    /// Calls that returned an error, where returns were traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u128>,
}

/// A number of allocations, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct AllocTotals {
    /// Allocations: calls less those known to have failed.
    pub count: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_stderr: Option<u128>,
    /// Bytes asked for.
    pub bytes: u128,
    /// Its standard error, where it is an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_stderr: Option<u128>,
}

/// System calls that change the address space. All four are there, since all four were traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Regions {
    /// Bytes are those mapped.
    pub mmap: RegionTotals,
    /// Bytes are those unmapped.
    pub munmap: RegionTotals,
    /// Bytes are the new sizes.
    pub mremap: MremapTotals,
    /// Growth and shrinking of the heap segment.
    pub brk: BrkTotals,
}

/// `mmap` or `munmap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RegionTotals {
    /// Calls, failed ones too.
    pub calls: u128,
    /// Bytes of those that did not fail.
    pub bytes: u128,
    /// Calls that returned an error.
    pub failed: u128,
}

/// `mremap`. The address space grew by `bytes - old_bytes`; how much of that is growth and how much
/// shrinking cannot be told from sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct MremapTotals {
    /// Calls, failed ones too.
    pub calls: u128,
    /// The new sizes.
    pub bytes: u128,
    /// The old sizes.
    pub old_bytes: u128,
    /// Calls that returned an error.
    pub failed: u128,
}

/// `brk`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct BrkTotals {
    /// Calls, those that only ask where the break is too.
    pub calls: u128,
    /// Bytes that the break went up by.
    pub grown_bytes: u128,
    /// Bytes that the break went down by.
    pub shrunk_bytes: u128,
    /// Calls that did not move the break where they were asked to.
    pub failed: u128,
}

impl Totals {
    /// The totals of one process, an index into [`Profile::processes`], or of all.
    #[must_use]
    pub(crate) fn of(profile: &Profile, process: Option<usize>, traced: Traced) -> Self {
        let held = match process {
            Some(process) => held_by(profile, process),
            None => profile.held,
        };
        Self::of_sums(&FunctionSums::of(profile, process), traced, held)
    }

    /// Returns the totals of sums that are there already.
    pub(super) fn of_sums(sums: &FunctionSums, traced: Traced, held: Option<HeapTotals>) -> Self {
        let stderr = |variance| traced.sampled.then(|| units::stderr(variance));
        let heap = |(function, sums): (Function, Sums)| {
            let totals = FunctionTotals {
                calls: sums.calls,
                calls_stderr: stderr(sums.variances.calls),
                bytes: sums.bytes,
                bytes_stderr: stderr(sums.variances.bytes),
                failed: traced.live.then_some(sums.failed),
            };
            (function, totals)
        };
        let total = sums.heap_total();
        Self {
            functions: traced.heap.then(|| {
                let free = held.map(|held| FreeTotals {
                    calls: held.free_calls.into(),
                    unmatched: held.unmatched.into(),
                    missed: held.missed.into(),
                });
                Functions(sums.heap().map(heap).collect(), free)
            }),
            alloc: traced.heap.then(|| AllocTotals {
                count: if traced.live {
                    total.blocks
                } else {
                    total.calls.saturating_sub(total.failed)
                },
                count_stderr: stderr(if traced.live {
                    total.variances.blocks
                } else {
                    total.variances.calls
                }),
                bytes: total.bytes,
                bytes_stderr: stderr(total.variances.bytes),
            }),
            freed: traced.live.then_some(AllocTotals {
                count: total.freed,
                count_stderr: stderr(total.variances.freed),
                bytes: total.freed_bytes,
                bytes_stderr: stderr(total.variances.freed_bytes),
            }),
            live: held.map(|held| AllocTotals {
                count: held.live.into(),
                count_stderr: stderr(held.variances.live),
                bytes: held.live_bytes.into(),
                bytes_stderr: stderr(held.variances.live_bytes),
            }),
            peak: held.map(|held| PeakTotals {
                count: held.peak.into(),
                count_stderr: stderr(held.variances.peak),
                bytes: held.peak_bytes.into(),
                bytes_stderr: stderr(held.variances.peak_bytes),
                by_stack_bytes: held.peak_by_stack_bytes.map(u128::from),
            }),
            temporary: traced.live.then_some(TemporaryTotals {
                count: total.temporary,
                count_stderr: stderr(total.variances.temporary),
            }),
            untracked: (traced.live && total.untracked > 0).then_some(AllocTotals {
                count: total.untracked,
                count_stderr: stderr(total.variances.untracked),
                bytes: total.untracked_bytes,
                bytes_stderr: stderr(total.variances.untracked_bytes),
            }),
            usable_bytes: (traced.live && total.usable_bytes > 0).then_some(total.usable_bytes),
            regions: traced.region.then(|| Regions::of_sums(sums)),
        }
    }
}

/// The heap of a process. Where the heap of all is not known, as in a part of a profile, that of a
/// process is not either.
pub(super) fn held_by(profile: &Profile, process: usize) -> Option<HeapTotals> {
    profile
        .held
        .map(|_| profile.processes[process].held.unwrap_or_default())
}

impl Regions {
    fn of_sums(sums: &FunctionSums) -> Self {
        let region = |function| {
            let sums = sums.get(function);
            RegionTotals {
                calls: sums.calls,
                bytes: sums.bytes,
                failed: sums.failed,
            }
        };
        let mremap = sums.get(Function::Mremap);
        let brk = sums.get(Function::Brk);
        Self {
            mmap: region(Function::Mmap),
            munmap: region(Function::Munmap),
            mremap: MremapTotals {
                calls: mremap.calls,
                bytes: mremap.bytes,
                old_bytes: mremap.bytes_out,
                failed: mremap.failed,
            },
            brk: BrkTotals {
                calls: brk.calls,
                grown_bytes: brk.bytes,
                shrunk_bytes: brk.bytes_out,
                failed: brk.failed,
            },
        }
    }
}

impl Serialize for Functions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len() + usize::from(self.1.is_some())))?;
        for (function, totals) in &self.0 {
            map.serialize_entry(function.name(), totals)?;
        }
        if let Some(free) = &self.1 {
            map.serialize_entry(Function::Free.name(), free)?;
        }
        map.end()
    }
}
