//! How large the kernel side's maps may grow.

use tracer_ebpf::unwind::{PageEntry, RowChunk, Rule};

use crate::unwind::Capacity;

/// How large the maps may grow.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries of the table of sums: distinct (process, stack, function).
    pub stacks: u32,
    /// Blocks that are followed at once.
    pub blocks: u32,
    /// Processes traced at once.
    pub processes: u32,
    /// Bytes of the ring that carries new stacks and processes; a power of two of at least a page.
    pub ring_bytes: u32,
    /// Bytes of the ring that carries copies of stacks whose walks user space finishes; likewise.
    pub copy_ring_bytes: u32,
    /// The arrays of unwind tables.
    pub tables: Capacity,
}

impl Limits {
    /// How many stacks may be copied: each takes an entry of the table of sums of its own, most of which is kept for
    /// stacks that were walked in the kernel.
    #[must_use]
    pub const fn copies(&self) -> u32 {
        self.stacks / 4
    }
}

/// Room for some 400 copies: what a program allocates while user space is at work on a file that it has just loaded.
pub const COPY_RING_BYTES: u32 = 8 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            stacks: 65_536,
            blocks: 1 << 20,
            processes: 16_384,
            ring_bytes: 4 << 20,
            copy_ring_bytes: COPY_RING_BYTES,
            tables: table_capacity(8 << 20),
        }
    }
}

/// What the arrays of unwind tables have room for in so many bytes: three quarters rows, of which large programs
/// have some dozen for every page, an eighth pages, an eighth rules.
#[must_use]
pub fn table_capacity(bytes: u64) -> Capacity {
    let number = |bytes: u64, each: usize| u32::try_from(bytes / each as u64).unwrap_or(u32::MAX).max(1);
    Capacity {
        row_chunks: number(bytes * 3 / 4, size_of::<RowChunk>()),
        pages: number(bytes / 8, size_of::<PageEntry>()),
        rules: number(bytes / 8, size_of::<Rule>()).clamp(1024, 1 << 16),
    }
}
