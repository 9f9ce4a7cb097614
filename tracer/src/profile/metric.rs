//! The weight of stacks.

use tracer_ebpf::Function;

use super::{Stack, Variances};

/// The weight of stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Metric {
    /// Bytes asked of allocators.
    AllocBytes,
    /// Calls to allocators.
    AllocCount,
    /// Bytes that are still allocated.
    LiveBytes,
    /// Blocks that are still allocated.
    LiveCount,
    /// Bytes that were freed.
    FreedBytes,
    /// Blocks that were freed by their thread's next call of the allocator.
    TemporaryCount,
    /// Bytes that were allocated when the most were.
    PeakBytes,
    /// Bytes by which the address space grew: `mmap`, growth by `mremap` and by `brk`.
    RegionBytes,
}

impl Metric {
    /// Every metric.
    pub(crate) const ALL: [Self; 8] = [
        Self::AllocBytes,
        Self::AllocCount,
        Self::LiveBytes,
        Self::LiveCount,
        Self::FreedBytes,
        Self::TemporaryCount,
        Self::PeakBytes,
        Self::RegionBytes,
    ];

    /// The name on the command line and in files.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AllocBytes => "alloc-bytes",
            Self::AllocCount => "alloc-count",
            Self::LiveBytes => "live-bytes",
            Self::LiveCount => "live-count",
            Self::FreedBytes => "freed-bytes",
            Self::TemporaryCount => "temporary-count",
            Self::PeakBytes => "peak-bytes",
            Self::RegionBytes => "region-bytes",
        }
    }

    /// Returns true if the weight is a number of bytes.
    #[must_use]
    pub(crate) const fn is_bytes(self) -> bool {
        !matches!(self, Self::AllocCount | Self::LiveCount | Self::TemporaryCount)
    }

    /// Returns the noun that a weight counts, where it is no number of bytes.
    #[must_use]
    pub(crate) const fn counts(self) -> &'static str {
        match self {
            Self::LiveCount | Self::TemporaryCount => "block",
            _ => "call",
        }
    }

    /// Returns true if the metric needs tracked blocks.
    #[must_use]
    pub(crate) const fn needs_live(self) -> bool {
        matches!(
            self,
            Self::LiveBytes | Self::LiveCount | Self::FreedBytes | Self::TemporaryCount | Self::PeakBytes
        )
    }

    /// The weight of a stack; nothing where the metric does not apply to its function.
    #[must_use]
    pub(crate) const fn weight(self, stack: &Stack) -> Option<u64> {
        let values = &stack.values;
        let heap = &values.heap;
        match (self, stack.function) {
            (Self::AllocBytes, function) if function.is_heap() => Some(values.bytes),
            (Self::AllocCount, function) if function.is_heap() => Some(values.calls),
            // A stack of which nothing is left is not there to be looked at.
            (Self::LiveBytes, function) if function.is_heap() => some(values.live_bytes()),
            (Self::LiveCount, function) if function.is_heap() => some(values.live()),
            (Self::FreedBytes, function) if function.is_heap() => some(heap.freed_bytes),
            (Self::TemporaryCount, function) if function.is_heap() => some(heap.temporary),
            (Self::PeakBytes, function) if function.is_heap() => some(heap.peak_bytes),
            (Self::RegionBytes, Function::Mmap | Function::Brk) => Some(values.bytes),
            (Self::RegionBytes, Function::Mremap) => Some(values.bytes.saturating_sub(values.bytes_out)),
            _ => None,
        }
    }

    /// The variance of the weight; nothing where the metric is no estimate, or it is not known how
    /// sure it is.
    #[must_use]
    pub(crate) const fn variance(self, variances: &Variances) -> Option<u128> {
        match self {
            Self::AllocBytes => Some(variances.bytes),
            Self::AllocCount => Some(variances.calls),
            Self::LiveBytes => Some(variances.live_bytes()),
            Self::LiveCount => Some(variances.live()),
            Self::FreedBytes => Some(variances.freed_bytes),
            Self::TemporaryCount => Some(variances.temporary),
            Self::PeakBytes | Self::RegionBytes => None,
        }
    }
}

const fn some(weight: u64) -> Option<u64> {
    if weight == 0 { None } else { Some(weight) }
}
