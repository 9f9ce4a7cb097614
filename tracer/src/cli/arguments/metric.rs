//! The names of metrics on the command line.

use clap::ValueEnum;

use crate::profile::Metric;

/// What stacks are weighed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum MetricName {
    /// Bytes asked of allocators
    AllocBytes,
    /// Calls to allocators
    AllocCount,
    /// Bytes that are still allocated at the end (--live)
    LiveBytes,
    /// Blocks that are still allocated at the end (--live)
    LiveCount,
    /// Bytes that were given back (--live)
    FreedBytes,
    /// Blocks that were given back by their thread's next call of the allocator (--live)
    TemporaryCount,
    /// Bytes that were allocated when the most were (--live)
    PeakBytes,
    /// Bytes by which the address space grew
    RegionBytes,
}

impl From<MetricName> for Metric {
    fn from(name: MetricName) -> Self {
        match name {
            MetricName::AllocBytes => Self::AllocBytes,
            MetricName::AllocCount => Self::AllocCount,
            MetricName::LiveBytes => Self::LiveBytes,
            MetricName::LiveCount => Self::LiveCount,
            MetricName::FreedBytes => Self::FreedBytes,
            MetricName::TemporaryCount => Self::TemporaryCount,
            MetricName::PeakBytes => Self::PeakBytes,
            MetricName::RegionBytes => Self::RegionBytes,
        }
    }
}
