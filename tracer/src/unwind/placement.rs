//! The room that a table has in the kernel's arrays, and what to write there.

use std::ops::Range;

use crate::unwind::layout::{PageEntry, Rule};

/// Elements to write to an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<T> {
    /// The index of the first one; of rows, counted over all chunks.
    pub at: u32,
    /// The elements.
    pub values: Vec<T>,
}

/// The parts of the kernel's arrays to write, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Rules that no table had before.
    pub rules: Vec<Run<Rule>>,
    /// Rows. A run can reach over a chunk's end: chunks follow each other in memory.
    pub rows: Vec<Run<u32>>,
    /// Page entries.
    pub pages: Run<PageEntry>,
}

/// The room that a table has. Not `Clone`: [`Arena::remove`](super::Arena::remove) takes it back
/// once.
#[derive(Debug, PartialEq, Eq)]
pub struct Placement {
    pub(crate) pages: Range<u32>,
    pub(crate) rows: Vec<Range<u32>>,
    pub(crate) rules: Vec<u32>,
}

impl Placement {
    /// The index of the table's first page entry.
    #[must_use]
    pub fn page_base(&self) -> u32 {
        self.pages.start
    }

    /// The number of page entries.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.pages.end - self.pages.start
    }

    /// The number of rows.
    #[must_use]
    pub fn row_count(&self) -> u32 {
        self.rows.iter().map(|range| range.end - range.start).sum()
    }

    /// Bytes of rows and pages; rules are shared.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.row_count()) * size_of::<u32>() as u64
            + u64::from(self.page_count()) * size_of::<PageEntry>() as u64
    }
}

/// A table's room, and what to write.
#[derive(Debug)]
pub struct Inserted {
    /// The placement, to be kept for [`Arena::remove`](super::Arena::remove).
    pub placement: Placement,
    /// The parts to write.
    pub delta: Delta,
}
