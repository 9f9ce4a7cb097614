//! The places of tables in the kernel's arrays.
//!
//! The arrays are created once, at a fixed size. A table gets room in them and gives it back;
//! nothing is moved. What the arena says is to be written ([`Delta`]), the caller copies into the
//! arrays, which it has mapped into memory.
//!
//! Order: write the delta, then make the mappings that name the placement known to the kernel side.
//! The other way round, take the mappings away, let every walk that may have seen them end (an RCU
//! grace period), and only then [`Arena::remove`].

use std::ops::Range;

use crate::unwind::extents::Extents;
use crate::unwind::layout::{self, CHUNK_ROWS, PageEntry, RowChunk, Rule};
use crate::unwind::rule_pool::RulePool;
use crate::unwind::{Delta, Inserted, Placement, Run, Table};

/// The numbers of elements of the kernel's arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Elements of the array of rows: chunks of 64 KiB, 16,384 rows each.
    pub row_chunks: u32,
    /// Elements of the array of pages, 8 bytes for each 16 KiB of code.
    pub pages: u32,
    /// Elements of the array of rules, 16 bytes each; at most 2¹⁸ can be named by a row.
    pub rules: u32,
}

impl Capacity {
    /// Divides `bytes` among the arrays: three quarters for rows, of which large programs have some
    /// dozen per page, an eighth for pages, an eighth for rules.
    #[must_use]
    pub fn of_bytes(bytes: u64) -> Self {
        let number = |bytes: u64, each: usize| u32::try_from(bytes / each as u64).unwrap_or(u32::MAX).max(1);
        Self {
            row_chunks: number(bytes * 3 / 4, size_of::<RowChunk>()),
            pages: number(bytes / 8, size_of::<PageEntry>()),
            rules: number(bytes / 8, size_of::<Rule>()).clamp(1024, 1 << 16),
        }
    }

    /// Returns the bytes of the three arrays.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.row_chunks) * size_of::<RowChunk>() as u64
            + u64::from(self.pages) * size_of::<PageEntry>() as u64
            + u64::from(self.rules) * size_of::<Rule>() as u64
    }
}

/// The array that has no room for a table. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArenaFull {
    /// The rows do not fit. A page's rows must lie in one chunk, so that a few free ones can be
    /// unusable.
    #[error("no room for {needed} rows of unwind tables ({free} free)")]
    Rows {
        /// Rows of the table.
        needed: u32,
        /// Rows that are free, not all in one place.
        free: u32,
    },
    /// The pages do not fit: they must lie in one place.
    #[error("no room for {needed} pages of unwind tables (longest free part: {longest})")]
    Pages {
        /// Pages of the table.
        needed: u32,
        /// The longest free part.
        longest: u32,
    },
    /// The rules do not fit.
    #[error("no room for {needed} more unwind rules ({free} free)")]
    Rules {
        /// Rules of the table that no other has.
        needed: u32,
        /// Rules that are free.
        free: u32,
    },
}

/// Elements in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Rows.
    pub rows: u32,
    /// Page entries.
    pub pages: u32,
    /// Rules; one is in use from the start.
    pub rules: u32,
}

impl Usage {
    /// Returns the bytes in use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.rows) * size_of::<u32>() as u64
            + u64::from(self.pages) * size_of::<PageEntry>() as u64
            + u64::from(self.rules) * size_of::<Rule>() as u64
    }
}

/// The allocation of the kernel's arrays. The arrays themselves are the caller's; they begin
/// zeroed, and rule 0 is [`Rule::NO_INFO`], which is all zeros.
#[derive(Debug)]
pub struct Arena {
    rows: Extents,
    pages: Extents,
    rules: RulePool,
}

impl Arena {
    /// An empty arena for arrays of these sizes.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            // The largest array maps are 4 GiB, which is 2³⁰ rows.
            rows: Extents::new(capacity.row_chunks.saturating_mul(CHUNK_ROWS)),
            pages: Extents::new(capacity.pages),
            rules: RulePool::new(capacity.rules),
        }
    }

    /// Finds room for a table.
    ///
    /// # Errors
    /// [`ArenaFull`], and nothing is changed.
    pub fn insert(&mut self, table: &Table) -> Result<Inserted, ArenaFull> {
        let missing = self.rules.missing(table.rules());
        if missing > self.rules.free_total() {
            return Err(ArenaFull::Rules {
                needed: missing,
                free: self.rules.free_total(),
            });
        }
        let page_count = table.page_count();
        let longest = self.pages.longest();
        let page_base = self.pages.find(page_count).ok_or(ArenaFull::Pages {
            needed: page_count,
            longest,
        })?;
        let full = ArenaFull::Rows {
            needed: table.row_count(),
            free: self.rows.free_total(),
        };
        let (entries, used) = self.plan_rows(table).ok_or(full)?;

        let (numbers, rules) = self.acquire_rules(table.rules());
        let pages = page_base..page_base + page_count;
        self.pages.take(&pages);
        for range in &used {
            self.rows.take(range);
        }
        let delta = Delta {
            rules,
            rows: row_runs(table, &used, &numbers),
            pages: Run {
                at: page_base,
                values: entries,
            },
        };
        Ok(Inserted {
            placement: Placement {
                pages,
                rows: used,
                rules: numbers,
            },
            delta,
        })
    }

    /// Takes a table's room back. No walk may be able to see it any more: see the module's page.
    pub fn remove(&mut self, placement: Placement) {
        let Placement { pages, rows, rules } = placement;
        self.pages.give(&pages);
        for range in &rows {
            self.rows.give(range);
        }
        for rule in rules {
            self.rules.release(rule);
        }
    }

    /// Returns the parts in use.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            rows: self.rows.used(),
            pages: self.pages.used(),
            rules: self.rules.used(),
        }
    }

    /// A place for each page's rows: the first free part with room, in order, without straddling
    /// chunks.
    fn plan_rows(&self, table: &Table) -> Option<(Vec<PageEntry>, Vec<Range<u32>>)> {
        let mut free = self.rows.iter().flat_map(by_chunk);
        let mut room = 0..0;
        let mut entries = Vec::with_capacity(table.page_count() as usize);
        let mut used: Vec<Range<u32>> = Vec::new();
        for page in (0..).map_while(|page| table.page(page)) {
            let count = u32::try_from(page.len()).ok()?;
            while room.end - room.start < count {
                room = free.next()?;
            }
            entries.push(PageEntry::new(room.start, page));
            let end = room.start + count;
            match used.last_mut() {
                Some(last) if last.end == room.start => last.end = end,
                _ => used.push(room.start..end),
            }
            room.start = end;
        }
        Some((entries, used))
    }

    /// The pool's numbers of rules that it has room for, and what to write.
    fn acquire_rules(&mut self, rules: &[Rule]) -> (Vec<u32>, Vec<Run<Rule>>) {
        let mut runs: Vec<Run<Rule>> = Vec::new();
        let numbers = rules.iter().map(|rule| {
            let (number, is_new) = self.rules.acquire(*rule).unwrap_or_default();
            if is_new {
                match runs.last_mut() {
                    Some(run) if run.at as usize + run.values.len() == number as usize => {
                        run.values.push(*rule);
                    }
                    _ => runs.push(Run {
                        at: number,
                        values: vec![*rule],
                    }),
                }
            }
            number
        });
        (numbers.collect(), runs)
    }
}

/// The parts of a range of rows, cut where chunks end.
fn by_chunk(range: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = (start - start % CHUNK_ROWS)
            .saturating_add(CHUNK_ROWS)
            .min(range.end);
        let part = start..end;
        start = end;
        (!part.is_empty()).then_some(part)
    })
}

/// A table's rows with the pool's rule numbers, at their places.
fn row_runs(table: &Table, used: &[Range<u32>], numbers: &[u32]) -> Vec<Run<u32>> {
    let mut rows = (0..).map_while(|page| table.page(page)).flatten().map(|row| {
        let number = numbers
            .get(layout::row_rule(*row) as usize)
            .copied()
            .unwrap_or_default();
        layout::row(layout::row_offset(*row), number)
    });
    used.iter()
        .map(|range| Run {
            at: range.start,
            values: rows.by_ref().take(range.len()).collect(),
        })
        .collect()
}
