//! The kernel side's arrays of unwind tables, mapped into our memory: writing a table is copying
//! it.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use tracer_ebpf::unwind::{PageEntry, Rule};
use tracer_ebpf::{FileKey, FileTable, Segment};

use super::compat;
use super::error::BpfError;
use super::object::Object;
use crate::unwind::layout::{CHUNK_ROWS, RowChunk};
use crate::unwind::{Capacity, Delta, Run};

/// A map's memory, shared with the kernel side.
#[derive(Debug)]
struct Shared(MmapRaw);

impl Shared {
    /// Maps an array of `len` elements of `T`, whose size is a multiple of 8: the kernel rounds
    /// elements up to that.
    fn map<T>(map: RawFd, len: usize) -> io::Result<Self> {
        // Less than a page cannot be mapped; the kernel rounds maps that can be up to whole pages.
        let bytes = (len * size_of::<T>()).next_multiple_of(4096);
        MmapOptions::new().len(bytes).map_raw(map).map(Self)
    }

    /// Copies values to the elements from `at` on. What does not fit is left out, which the arena
    /// rules out.
    fn write<T: Copy>(&mut self, run: &Run<T>) {
        let start = run.at as usize * size_of::<T>();
        let bytes = size_of_val(run.values.as_slice());
        if start.checked_add(bytes).is_none_or(|end| end > self.0.len()) {
            log::error!("a table was to be written outside of its array");
            return;
        }
        // SAFETY: the range was checked; the kernel side reads these elements only once it is told
        // of them, and no reference to them exists here.
        unsafe {
            let to = self.0.as_mut_ptr().add(start);
            std::ptr::copy_nonoverlapping(run.values.as_ptr().cast::<u8>(), to, bytes);
        }
    }
}

/// The arrays of unwind tables.
#[derive(Debug)]
pub struct TableMaps {
    rows: Shared,
    pages: Shared,
    rules: Shared,
    generation: Shared,
}

/// Tells the kernel side where a file's table is; an empty one says that there is none.
pub fn set_file_table(object: &mut Object, key: FileKey, table: FileTable) -> Result<(), BpfError> {
    object
        .hash_map_mut("FILES")?
        .insert(key, table, 0)
        .map_err(|error| BpfError::map("FILES", error))
}

/// Makes the kernel side ask again for a file's table when it meets the file.
pub fn remove_file_table(object: &mut Object, key: FileKey) -> Result<(), BpfError> {
    let mut files = object.hash_map_mut::<FileKey, FileTable>("FILES")?;
    compat::removed(files.remove(&key)).map_err(|error| BpfError::map("FILES", error))
}

impl TableMaps {
    /// Maps the arrays of unwind tables, which were made for this capacity.
    pub fn map(object: &Object, capacity: &Capacity) -> Result<Self, BpfError> {
        let failed = |map| move |error: io::Error| BpfError::map(map, error);
        Ok(Self {
            rows: Shared::map::<RowChunk>(object.map_fd("ROWS")?, capacity.row_chunks as usize)
                .map_err(failed("ROWS"))?,
            pages: Shared::map::<PageEntry>(object.map_fd("PAGES")?, capacity.pages as usize)
                .map_err(failed("PAGES"))?,
            rules: Shared::map::<Rule>(object.map_fd("RULES")?, capacity.rules as usize)
                .map_err(failed("RULES"))?,
            generation: Shared::map::<u64>(object.map_fd("GENERATION")?, 1).map_err(failed("GENERATION"))?,
        })
    }

    /// Makes the kernel side forget what it keeps of mappings and of walks.
    pub fn change_generation(&mut self) {
        // SAFETY: the map's only element, aligned to a page, which both sides change by atomic
        // addition alone.
        let generation = unsafe { AtomicU64::from_ptr(self.generation.0.as_mut_ptr().cast()) };
        generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Writes a table.
    pub fn write(&mut self, delta: &Delta) {
        for run in &delta.rules {
            self.rules.write(run);
        }
        for run in &delta.rows {
            self.rows.write(run);
        }
        self.pages.write(&delta.pages);
    }
}

// Chunks are whole numbers of rows, and lie one behind the other, so that rows can be written by
// their number.
const _: () = assert!(size_of::<RowChunk>() == 4 * CHUNK_ROWS as usize);

/// No segment.
pub const NO_SEGMENT: Segment = Segment {
    file_start: 0,
    file_end: 0,
    to_table: 0,
};
