//! The table of one executable: its rows by page, as the kernel has them.

use crate::elf::{Elf, LoadedSegment, ReadRef, notes};
use crate::unwind::cfi::RuleStart;
use crate::unwind::layout::{
    self, MAPPED_PAGE_BYTES, PAGE_BYTES, PAGE_SHIFT, PageEntry, ROW_RULE_MASK, Rule,
};
use crate::unwind::rule_set::RuleSet;
use crate::unwind::{Code, CompileStatistics, Rows};

/// The table of one executable. Rules have numbers of its own; an [`Arena`](super::Arena) gives
/// them the kernel's.
#[derive(Debug, Clone)]
pub struct Table {
    base: u64,
    /// The first row of each page, and after the last page the number of rows.
    pages: Vec<u32>,
    rows: Vec<u32>,
    rules: Vec<Rule>,
    segments: Vec<LoadedSegment>,
    build_id: Option<Box<[u8]>>,
    kind: Rows,
    statistics: CompileStatistics,
}

impl Table {
    /// `rows` are sorted by address, the first at 0.
    pub(crate) fn new<'data, R: ReadRef<'data>>(
        rows: &[RuleStart],
        rules: &[Rule],
        code: &Code<'_>,
        elf: &Elf<'data, R>,
        kind: Rows,
        statistics: CompileStatistics,
    ) -> Self {
        let page_count = code.end().div_ceil(PAGE_BYTES);
        let mut packed = Packed::new(rules, rows.len(), page_count);
        let mut rest = rows.iter().peekable();
        let mut current = RuleSet::NO_INFO;
        for page in 0..page_count {
            packed.begin_page();
            let start = page << PAGE_SHIFT;
            if rest.peek().is_none_or(|row| row.pc != start) {
                packed.push(0, current);
            }
            while let Some(row) = rest.next_if(|row| row.pc >> PAGE_SHIFT == page) {
                current = row.rule;
                packed.push(row.pc % PAGE_BYTES, current);
            }
        }
        packed.begin_page();
        Self {
            base: code.base(),
            pages: packed.pages,
            rows: packed.rows,
            rules: packed.rules,
            segments: elf
                .segments()
                .iter()
                .filter(|segment| segment.executable)
                .copied()
                .collect(),
            build_id: notes::build_id(elf).map(Box::from),
            kind,
            statistics,
        }
    }

    /// The rule at an address, relative to [`Self::base`], found as the kernel finds it: by page,
    /// then by binary search. `None` past the last page.
    #[must_use]
    pub fn rule_at(&self, relative: u64) -> Option<Rule> {
        let rows = self.page(usize::try_from(relative >> PAGE_SHIFT).ok()?)?;
        let offset = u32::try_from(relative % u64::from(PAGE_BYTES)).ok()?;
        let number = layout::row_rule(search(rows, offset));
        Some(self.rules.get(number as usize).copied().unwrap_or_default())
    }

    /// The rows of a page; `None` past the last one. Rule numbers are indices into [`Self::rules`].
    #[must_use]
    pub fn page(&self, page: usize) -> Option<&[u32]> {
        let (first, end) = (*self.pages.get(page)?, *self.pages.get(page + 1)?);
        self.rows.get(first as usize..end as usize)
    }

    /// Returns the number of pages of 16 KiB that the code takes.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        // One less than a number of offsets that are 32 bits themselves.
        u32::try_from(self.pages.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Returns the number of rows, those that only begin a page included.
    #[must_use]
    pub fn row_count(&self) -> u32 {
        self.pages.last().copied().unwrap_or_default()
    }

    /// The rules that rows name; the first is [`Rule::NO_INFO`].
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the bytes of rows and pages in the kernel. Rules are shared and come on top.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        u64::from(self.row_count()) * size_of::<u32>() as u64
            + u64::from(self.page_count()) * size_of::<PageEntry>() as u64
    }

    /// The virtual address of the first page, before any load bias.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Returns the difference between an address in a mapping of this file and the address that the
    /// table knows.
    ///
    /// `start` is where the mapping begins and `file_offset` where in the file, both in bytes and
    /// as `/proc/PID/maps` has them. `None` if no executable segment is mapped there.
    #[must_use]
    pub fn bias(&self, start: u64, file_offset: u64) -> Option<u64> {
        let page = u64::from(MAPPED_PAGE_BYTES);
        let segment = self.segments.iter().find(|segment| {
            // Mappings begin at whole pages, so that the segment may begin a little later.
            let end = segment.offset.saturating_add(segment.file_size);
            segment.offset - segment.offset % page <= file_offset && file_offset < end
        })?;
        let address = segment
            .address
            .wrapping_add(file_offset)
            .wrapping_sub(segment.offset);
        Some(start.wrapping_sub(address).wrapping_add(self.base))
    }

    /// The executable segments of the file.
    #[must_use]
    pub fn segments(&self) -> &[LoadedSegment] {
        &self.segments
    }

    /// The file's build id.
    #[must_use]
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// Returns the choice of rows.
    #[must_use]
    pub fn kind(&self) -> Rows {
        self.kind
    }

    /// Returns the compiler's statistics.
    #[must_use]
    pub fn statistics(&self) -> &CompileStatistics {
        &self.statistics
    }
}

/// The last row that does not begin after `offset`, by the kernel's own search. The first row
/// begins at 0.
pub(crate) fn search(rows: &[u32], offset: u32) -> u32 {
    let key = layout::search_key(offset);
    let (mut base, mut count) = (0, rows.len());
    while count > 1 {
        let half = count >> 1;
        if rows.get(base + half).is_some_and(|row| *row <= key) {
            base += half;
        }
        count -= half;
    }
    rows.get(base).copied().unwrap_or_default()
}

/// Rows and pages being filled, with the rules that are in use renumbered by first use.
struct Packed<'a> {
    all_rules: &'a [Rule],
    numbers: Vec<Option<u32>>,
    rules: Vec<Rule>,
    rows: Vec<u32>,
    pages: Vec<u32>,
}

impl<'a> Packed<'a> {
    fn new(all_rules: &'a [Rule], rows: usize, pages: u32) -> Self {
        let mut numbers = vec![None; all_rules.len()];
        if let Some(no_info) = numbers.first_mut() {
            *no_info = Some(0);
        }
        Self {
            all_rules,
            numbers,
            rules: vec![Rule::NO_INFO],
            rows: Vec::with_capacity(rows + pages as usize),
            pages: Vec::with_capacity(pages as usize + 1),
        }
    }

    fn begin_page(&mut self) {
        // Every row begins at another of at most 2³² bytes; a table of so many rows never fits
        // memory.
        self.pages
            .push(u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
    }

    fn push(&mut self, offset: u32, rule: u32) {
        let number = match self.numbers.get(rule as usize).copied().flatten() {
            Some(number) => number,
            None => self.renumber(rule),
        };
        debug_assert!(number <= ROW_RULE_MASK, "a rule set is smaller than that");
        self.rows.push(layout::row(offset, number));
    }

    fn renumber(&mut self, rule: u32) -> u32 {
        let number = u32::try_from(self.rules.len()).unwrap_or_default();
        self.rules.push(
            self.all_rules
                .get(rule as usize)
                .copied()
                .unwrap_or(Rule::UNSUPPORTED),
        );
        if let Some(known) = self.numbers.get_mut(rule as usize) {
            *known = Some(number);
        }
        number
    }
}
