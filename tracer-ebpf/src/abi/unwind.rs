//! What the tables of the stack walker look like in the kernel's arrays.
//!
//! An executable's code is cut into pages of 16 KiB, counted from the table's base address. A page
//! owns a run of rows, sorted by address; a row says from which byte of the page on which rule
//! holds, up to the next row. The first row of a page always begins at its byte 0, so that no
//! look-up needs the page before.
//!
//! Large pages make the index small and rows that only begin a page few; a page's entry tells where
//! each of its quarters is among its rows, so that a search is as short as in pages of a quarter of
//! the size.
//!
//! | array | element | indexed by |
//! | --- | --- | --- |
//! | rows | [`RowChunk`], 64 KiB | row number >> [`CHUNK_SHIFT`] |
//! | pages | [`PageEntry`] | the table's first page + page of the address |
//! | rules | [`Rule`], each once for all executables | rule number; 0 is [`Rule::NO_INFO`] |
//!
//! Rows are kept in large elements since an array map rounds small ones up to 8 bytes. All arrays
//! are created with `BPF_F_MMAPABLE`, so that a table is loaded by copying it.

/// The binary logarithm of a page's size in bytes.
pub const PAGE_SHIFT: u32 = 14;

/// Bytes of code that one page covers.
pub const PAGE_BYTES: u32 = 1 << PAGE_SHIFT;

/// The binary logarithm of a quarter's size in bytes.
pub const QUARTER_SHIFT: u32 = PAGE_SHIFT - 2;

/// The page size of the machine: mappings of files begin at a multiple of it.
pub const MAPPED_PAGE_BYTES: u32 = 1 << 12;

/// Bits of a row that hold the number of its rule; those above hold the offset in the page.
pub const ROW_RULE_BITS: u32 = 32 - PAGE_SHIFT;

/// The part of a row that holds the number of its rule.
pub const ROW_RULE_MASK: u32 = (1 << ROW_RULE_BITS) - 1;

/// The binary logarithm of [`CHUNK_ROWS`].
pub const CHUNK_SHIFT: u32 = 14;

/// Rows in one element of the array of rows. The rows of one page never straddle two elements.
pub const CHUNK_ROWS: u32 = 1 << CHUNK_SHIFT;

/// The most steps that a binary search takes in one page: a row for each of its bytes.
pub const SEARCH_STEPS: u32 = PAGE_SHIFT + 1;

/// How far above the stack pointer a frame pointer may be, in bytes, to be believed in code without
/// a table.
pub const FRAME_POINTER_REACH_BYTES: u64 = 1 << 20;

/// Where in `ucontext_t` the saved `rbp` is: `uc_mcontext` begins at 40 (`struct ucontext` and
/// `struct sigcontext_64` in Linux' `asm-generic/ucontext.h` and
/// `arch/x86/include/uapi/asm/sigcontext.h`). At a signal trampoline the stack pointer is the
/// address of the `ucontext_t`.
pub const UCONTEXT_RBP: u64 = 40 + 80;

/// Where in `ucontext_t` the saved `rsp` is.
pub const UCONTEXT_RSP: u64 = 40 + 120;

/// Where in `ucontext_t` the saved `rip` is: next to `rsp`, so that one read takes both.
pub const UCONTEXT_RIP: u64 = 40 + 128;

/// How the canonical frame address (CFA: the caller's stack pointer, DWARF 5 section 6.4) is found;
/// the values of [`Rule::cfa_kind`]. Wherever there is one, the return address is at CFA − 8.
pub mod cfa {
    /// Nothing is known here: a gap between functions with unwind information, or code that never
    /// had any.
    pub const NO_INFO: u8 = 0;
    /// The outermost frame: its return address is undefined.
    pub const END: u8 = 1;
    /// `rsp + cfa_offset`.
    pub const SP: u8 = 2;
    /// `rbp + cfa_offset`.
    pub const BP: u8 = 3;
    /// `rsp + cfa_offset + (8 if (pc & 15) >= cfa_add, else 0)`: an entry of a procedure linkage
    /// table, whose last instructions come after a push.
    pub const PLT: u8 = 4;
    /// `*(rsp + cfa_offset) + cfa_add`.
    pub const DEREF_SP: u8 = 5;
    /// `*(rbp + cfa_offset) + cfa_add`: a realigned stack.
    pub const DEREF_BP: u8 = 6;
    /// The trampoline that a signal handler returns to: all registers are in the `ucontext_t` at
    /// `rsp`.
    pub const SIGNAL: u8 = 7;
    /// There is unwind information, and it is of a kind that these rules cannot express.
    pub const UNSUPPORTED: u8 = 8;
}

/// Where the caller's `rbp` is; the values of [`Rule::rbp_kind`].
pub mod rbp {
    /// In `rbp` still.
    pub const SAME: u8 = 0;
    /// At `CFA + rbp_offset`.
    pub const AT_CFA: u8 = 1;
    /// Nowhere that these rules can express. The walk goes on until a rule needs `rbp`.
    pub const LOST: u8 = 2;
    /// At `rbp + rbp_offset`: a realigned stack, whose CFA is not a fixed distance away.
    pub const AT_RBP: u8 = 3;
}

/// How to step from a frame to its caller. What a kind does not use is 0, so that equal rules are
/// equal bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Rule {
    /// One of [`cfa`].
    pub cfa_kind: u8,
    /// One of [`rbp`].
    pub rbp_kind: u8,
    /// Always 0.
    pub reserved: u16,
    /// In bytes; what it is added to depends on [`Self::cfa_kind`].
    pub cfa_offset: i32,
    /// In bytes, added last; of a PLT entry the offset in it from which on 8 more bytes are on the
    /// stack.
    pub cfa_add: i32,
    /// In bytes; what it is added to depends on [`Self::rbp_kind`].
    pub rbp_offset: i32,
}

impl Rule {
    /// Nothing is known. Rule number 0 of every table and of the kernel's array.
    pub const NO_INFO: Self = Self::of_kind(cfa::NO_INFO);
    /// The outermost frame.
    pub const END: Self = Self::of_kind(cfa::END);
    /// A signal trampoline.
    pub const SIGNAL: Self = Self::of_kind(cfa::SIGNAL);
    /// Unwind information that cannot be expressed.
    pub const UNSUPPORTED: Self = Self::of_kind(cfa::UNSUPPORTED);

    /// A rule that is its kind alone.
    #[must_use]
    pub const fn of_kind(cfa_kind: u8) -> Self {
        Self {
            cfa_kind,
            rbp_kind: rbp::SAME,
            reserved: 0,
            cfa_offset: 0,
            cfa_add: 0,
            rbp_offset: 0,
        }
    }
}

/// The rows of one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PageEntry {
    /// The number of the first row, over all chunks, below 2³⁰; with [`Self::MANY`] in a page of
    /// many rows.
    pub row: u32,
    /// Four bytes, from the lowest: how many of the page's rows begin before the end of its first,
    /// second, third and last quarter. With [`Self::MANY`] one number: how many rows there are.
    pub counts: u32,
}

impl PageEntry {
    /// The page has more rows than a byte counts.
    pub const MANY: u32 = 1 << 31;

    /// The entry of a page whose rows, at least one and at most [`PAGE_BYTES`], begin with number
    /// `first`.
    #[must_use]
    pub fn new(first: u32, rows: &[u32]) -> Self {
        let number = |rows: usize| u32::try_from(rows).unwrap_or(u32::MAX);
        if rows.len() > usize::from(u8::MAX) {
            return Self {
                row: first | Self::MANY,
                counts: number(rows.len()),
            };
        }
        let mut counts = 0;
        for quarter in 0..4 {
            let end = (quarter + 1) << QUARTER_SHIFT;
            let before = rows.partition_point(|row| row_offset(*row) < end);
            counts |= number(before) << (8 * quarter);
        }
        Self { row: first, counts }
    }

    /// The number of the page's first row.
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.row & !Self::MANY
    }

    /// The rows among which that of an offset in the page is: the number of the first, and how
    /// many. Those that begin in the offset's quarter, and the one before, which reaches into it.
    #[inline]
    #[must_use]
    pub const fn part(&self, offset_in_page: u32) -> (u32, u32) {
        if self.row & Self::MANY != 0 {
            return (self.row & !Self::MANY, self.counts);
        }
        let shift = (offset_in_page >> QUARTER_SHIFT) * 8;
        let end = (self.counts >> shift) & 0xff;
        // Before the first quarter there are none, and the row that reaches into it is its own
        // first.
        let before = (((self.counts << 8) | 1) >> shift) & 0xff;
        let reaching = before.wrapping_sub(1);
        (self.row.wrapping_add(reaching), end.wrapping_sub(reaching))
    }
}

/// One element of the array of rows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RowChunk {
    /// The rows: see [`row`].
    pub rows: [u32; CHUNK_ROWS as usize],
}

/// A row: rule `rule` holds from byte `offset_in_page` of the page on.
#[must_use]
pub const fn row(offset_in_page: u32, rule: u32) -> u32 {
    (offset_in_page << ROW_RULE_BITS) | (rule & ROW_RULE_MASK)
}

/// The rule number of a row.
#[must_use]
pub const fn row_rule(row: u32) -> u32 {
    row & ROW_RULE_MASK
}

/// The offset in its page, in bytes, at which a row begins.
#[must_use]
pub const fn row_offset(row: u32) -> u32 {
    row >> ROW_RULE_BITS
}

/// What to search a page for: the row of an address is the last one that is not above this.
#[must_use]
pub const fn search_key(offset_in_page: u32) -> u32 {
    row(offset_in_page, ROW_RULE_MASK)
}

const _: () = assert!(size_of::<Rule>() == 16 && align_of::<Rule>() == 4);
const _: () = assert!(size_of::<PageEntry>() == 8 && align_of::<PageEntry>() == 4);
const _: () = assert!(size_of::<RowChunk>() == 65_536);
const _: () = assert!(PAGE_BYTES <= CHUNK_ROWS);
