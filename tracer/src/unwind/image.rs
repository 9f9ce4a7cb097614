//! The kernel's arrays as the kernel reads them: for tests, and for what user space wants to look
//! up in them.

use crate::unwind::layout::{self, CHUNK_ROWS, PAGE_BYTES, PAGE_SHIFT, PageEntry, Rule};
use crate::unwind::table::search;
use crate::unwind::{Capacity, Delta, Run};

/// A copy of the three arrays.
#[derive(Debug, Clone)]
pub struct TableImage {
    rows: Vec<u32>,
    pages: Vec<PageEntry>,
    rules: Vec<Rule>,
}

impl TableImage {
    /// Zeroed arrays of these sizes.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            rows: vec![0; capacity.row_chunks as usize * CHUNK_ROWS as usize],
            pages: vec![PageEntry::default(); capacity.pages as usize],
            rules: vec![Rule::NO_INFO; capacity.rules as usize],
        }
    }

    /// Writes a delta. Whatever lies outside the arrays is not written.
    pub fn apply(&mut self, delta: &Delta) {
        for run in &delta.rules {
            write(&mut self.rules, run);
        }
        for run in &delta.rows {
            write(&mut self.rows, run);
        }
        write(&mut self.pages, &delta.pages);
    }

    /// Returns what the kernel finds at `relative` in the table at these pages: page entry, chunk,
    /// binary search, rule. `None` past the last page.
    #[must_use]
    pub fn rule_at(&self, page_base: u32, page_count: u32, relative: u64) -> Option<Rule> {
        let page = u32::try_from(relative >> PAGE_SHIFT)
            .ok()
            .filter(|page| *page < page_count)?;
        let entry = self.pages.get(page_base as usize + page as usize)?;
        let offset = u32::try_from(relative % u64::from(PAGE_BYTES)).ok()?;
        let (first, count) = entry.part(offset);
        let rows = self.rows.get(first as usize..)?.get(..count as usize)?;
        self.rules
            .get(layout::row_rule(search(rows, offset)) as usize)
            .copied()
    }
}

fn write<T: Copy>(array: &mut [T], run: &Run<T>) {
    let at = run.at as usize;
    if let Some(place) = array.get_mut(at..at + run.values.len()) {
        place.copy_from_slice(&run.values);
    }
}
