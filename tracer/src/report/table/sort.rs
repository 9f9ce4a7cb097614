//! The order of rows, where it is not that of the metric.

use serde::{Deserialize, Serialize};

use crate::report::sums::Sums;

/// A column that rows are sorted by, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SortColumn {
    /// Bytes that were allocated.
    Bytes,
    /// Calls.
    Calls,
    /// Bytes of a call, on average.
    Average,
    /// Weight with that of all callees, where rows are functions, lines or modules.
    Cumulative,
    /// Bytes that are live.
    LiveBytes,
    /// Blocks that are live.
    LiveCount,
    /// Bytes that were freed.
    FreedBytes,
    /// Blocks that lived for a moment.
    TemporaryCount,
}

impl SortColumn {
    /// Returns the figure of a row that it is sorted by, and its weight, which decides among
    /// equals.
    pub(super) fn key(self, sums: &Sums, weight: u128, cumulative: u128) -> (u128, u128) {
        let figure = match self {
            Self::Bytes => sums.bytes,
            Self::Calls => sums.calls,
            Self::Average => sums.bytes.checked_div(sums.calls).unwrap_or(0),
            Self::Cumulative => cumulative,
            Self::LiveBytes => sums.live_bytes,
            Self::LiveCount => sums.live,
            Self::FreedBytes => sums.freed_bytes,
            Self::TemporaryCount => sums.temporary,
        };
        (figure, weight)
    }
}
