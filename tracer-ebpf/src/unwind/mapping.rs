//! Which file the code at an address is of. The kernel's own tree of mappings is asked
//! (`bpf_find_vma`, Linux 5.17), so that fork, exec, dlopen and dlclose need no bookkeeping: a
//! process that was made a microsecond ago is known as well as any. What was found is kept in the
//! scratch slot for the next walks.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_find_vma, bpf_get_current_task_btf},
    },
};
use tracer_ebpf::{Counter, FileKey, FileRecord, FileTable, MAX_SEGMENTS, RecordKind, Segment};

use super::{Scratch, vma_cache, walk_cache};
use crate::{
    aggregate,
    bounds::mask,
    kernel::word,
    loss::count,
    maps::{FILES, SCRATCH},
    settings, stop,
};

/// Mappings that a slot keeps: a stack crosses a handful of files.
pub(super) const CACHED: usize = 8;

/// No mapping.
pub(super) const NONE: u32 = u32::MAX;

/// Which mapping it is cannot be told now.
pub(super) const UNTOLD: u32 = u32::MAX - 1;

/// `EBUSY`: the address space is being changed, and the helper does not wait.
const EBUSY: i64 = -16;

/// A mapping of a file's code.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CodeMapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// What is subtracted from an address to get one in the file's table.
    pub(crate) bias: u64,
    /// The table's first page.
    pub(crate) page_base: u32,
    /// The table's length in pages; 0: there is none, or [`AWAITED`].
    pub(crate) page_count: u32,
    /// Which rows the table has: [`FileTable::rows`].
    pub(crate) rows: u32,
    reserved: u32,
}

/// [`CodeMapping::page_count`] of a file whose table is being made.
pub(super) const AWAITED: u32 = u32::MAX;

/// Attempts to ask about a busy address space: some two microseconds.
const PATIENCE: u32 = 64;

/// `ask_kernel`: the answer is in the slot.
const FOUND: u32 = 0;

/// `ask_kernel`: the address space is being changed.
const BUSY: u32 = 1;

/// The answer of the kernel's tree for an address.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Answer {
    start: u64,
    end: u64,
    page_offset: u64,
    key: FileKey,
}

impl Scratch {
    /// Drops the cached mappings if they are another process's, or may have changed.
    #[inline(always)]
    pub(super) fn enter_process(&mut self, process: u32) {
        let generation = walk_cache::generation();
        if self.mapped_process != process || self.generation != generation {
            self.mapped_process = process;
            self.generation = generation;
            self.stamp = super::rule_cache::stamp(process, generation);
            let mut i = 0;
            while i < CACHED {
                self.mappings[i].end = 0;
                i += 1;
            }
        }
    }

    /// The mapping of a code address, by its index in the cache; [`NONE`] if there is none,
    /// [`UNTOLD`] while the address space is being changed and no walk has met the mapping before.
    #[inline(always)]
    pub(super) fn find_mapping(&mut self, slot: u32, address: u64) -> u32 {
        if self.current_mapping < CACHED as u32 && self.covers(self.current_mapping, address) {
            return self.current_mapping;
        }
        find_other_mapping(slot, address)
    }

    /// A cached mapping.
    #[inline(always)]
    pub(super) fn mapping(&self, index: u32) -> &CodeMapping {
        let index = mask::<{ CACHED as u64 - 1 }>(index as u64) as usize;
        // SAFETY: the index is masked to the array's length.
        unsafe { &*(&raw const self.mappings).cast::<CodeMapping>().add(index) }
    }

    #[inline(always)]
    fn covers(&self, index: u32, address: u64) -> bool {
        let mapping = self.mapping(index);
        address >= mapping.start && address < mapping.end
    }

    /// Asks the kernel, and the table of files.
    #[inline(always)]
    fn ask(&mut self, slot: u32, address: u64) -> u32 {
        self.asked = address;
        let mut outcome = BUSY;
        let mut turn = 0;
        while turn < PATIENCE && outcome == BUSY {
            outcome = ask_kernel(slot);
            turn += 1;
        }
        if outcome == BUSY {
            if let Some(mapping) = vma_cache::cached_vma(self, address) {
                return self.cache(mapping);
            }
            count(Counter::MappingBusy);
            // The next walk from here may find more.
            walk_cache::evict(self);
            return UNTOLD;
        }
        let answer = &self.answer;
        if outcome != FOUND || address < answer.start || address >= answer.end {
            return NONE;
        }
        let mut found = CodeMapping {
            start: answer.start,
            end: answer.end,
            bias: 0,
            page_base: 0,
            page_count: 0,
            rows: FileTable::ROWS_OF_CALLS,
            reserved: 0,
        };
        if answer.key.inode != 0
            && let Some(place) = table_of(slot, answer)
        {
            found.page_base = place.page_base;
            found.page_count = place.page_count;
            found.rows = place.rows;
            // From an address to an offset in the file, and on to an address in the table.
            found.bias = answer
                .start
                .wrapping_sub(answer.page_offset << 12)
                .wrapping_sub(place.to_table);
        }
        let index = self.cache(found);
        vma_cache::cache_mapping(slot);
        index
    }

    /// Puts a mapping in the place of the oldest one in the slot. Returns its index.
    #[inline(always)]
    fn cache(&mut self, mapping: CodeMapping) -> u32 {
        let index = mask::<{ CACHED as u64 - 1 }>(self.next_mapping as u64);
        // SAFETY: the index is masked to the array's length.
        unsafe { *(&raw mut self.mappings).cast::<CodeMapping>().add(index as usize) = mapping };
        self.next_mapping = index as u32 + 1;
        self.current_mapping = index as u32;
        index as u32
    }
}

/// As [`Scratch::find_mapping`], where it is not the mapping of the last frame.
///
/// A global function: its loops have many ways out, after each of which the verifier would go
/// through all that a step has still to do.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_other_mapping(slot: u32, address: u64) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return NONE;
    };
    // SAFETY: the caller owns the slot, and does not look at it meanwhile.
    let scratch = unsafe { &mut *scratch };
    let mut i = 0;
    while i < CACHED as u32 {
        if scratch.covers(i, address) {
            scratch.current_mapping = i;
            return i;
        }
        i += 1;
    }
    scratch.ask(slot, address)
}

/// Asks the kernel for the mapping of the slot's address. Returns [`FOUND`], [`BUSY`], or another
/// number where there is none.
///
/// A global function, so that the verifier checks it once. It asks once only and keeps nothing but
/// a number on its stack: with a loop of eight turns in here, and the answer on the stack, the
/// verifier of Linux 7.2 went through half a million instructions, forty times as many as others.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ask_kernel(slot: u32) -> u32 {
    if !settings::by_tables() {
        // Verifiers before that of Linux 6.8 look at global functions that nobody calls, too: a
        // kernel without the helper shall take the rest.
        return BUSY + 1;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return BUSY + 1;
    };
    let mut asking = u64::from(slot);
    // SAFETY: the caller owns the slot; the current task is valid, the callback has the signature
    // that the helper calls, and its context, which must be on the stack, outlives the call.
    let status = unsafe {
        (*scratch).answer.end = 0;
        (*scratch).answer.key.inode = 0;
        bpf_find_vma(
            bpf_get_current_task_btf(),
            (*scratch).asked,
            read_vma as *mut c_void,
            (&raw mut asking).cast(),
            0,
        )
    };
    match status {
        0 => FOUND,
        EBUSY => BUSY,
        _ => BUSY + 1,
    }
}

/// The place of a mapping's unwind table.
struct TablePlace {
    page_base: u32,
    page_count: u32,
    rows: u32,
    /// What turns an offset in the file into an address in the table.
    to_table: u64,
}

const AWAITED_PLACE: TablePlace = TablePlace {
    page_base: 0,
    page_count: AWAITED,
    rows: FileTable::ROWS_AWAITED,
    to_table: 0,
};

/// The table of a file. A file that is not known yet is told to user space, once.
#[inline(always)]
fn table_of(slot: u32, answer: &Answer) -> Option<TablePlace> {
    // SAFETY: the pointer is to a map value, which changes only by being replaced.
    let known = FILES.get_ptr(&answer.key).map(|table| unsafe { &*table });
    let Some(table) = known.filter(|table| table.rows != FileTable::ROWS_AWAITED) else {
        if known.is_none() {
            tell_of_file(slot);
        }
        stop::stop_for_table();
        return Some(AWAITED_PLACE);
    };
    let file_offset = answer.page_offset << 12;
    let mut i = 0;
    while i < MAX_SEGMENTS {
        let segment = &table.segments[i];
        if file_offset >= segment.file_start && file_offset < segment.file_end {
            return Some(TablePlace {
                page_base: table.page_base,
                page_count: table.page_count,
                rows: table.rows,
                to_table: segment.to_table,
            });
        }
        i += 1;
    }
    None
}

/// The entry of a file whose table user space is to make. A static, since the stack of all
/// functions together has 512 bytes.
static AWAITED_TABLE: FileTable = FileTable {
    page_base: 0,
    page_count: 0,
    segments_len: 0,
    rows: FileTable::ROWS_AWAITED,
    segments: [Segment {
        file_start: 0,
        file_end: 0,
        to_table: 0,
    }; MAX_SEGMENTS],
};

/// Tells user space of the file of the slot's answer. Until it has made the table there is an empty
/// entry; if it could not be told, it is at the next look.
///
/// A global function, so that its variables are not on the stack while the kernel is asked: all
/// functions of a chain of calls together have 512 bytes there.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_of_file(slot: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr(slot) else {
        return 0;
    };
    // SAFETY: the caller owns the slot.
    let answer = unsafe { &(*scratch).answer };
    let record = FileRecord {
        kind: RecordKind::File as u32,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        start: answer.start,
        end: answer.end,
        key: answer.key,
    };
    if aggregate::send_record(&record, true)
        && FILES
            .insert(&answer.key, &AWAITED_TABLE, BPF_NOEXIST as u64)
            .is_err()
    {
        count(Counter::FilesFull);
    }
    0
}

/// Called by the kernel with the mapping of the address, which goes to the slot whose index is in
/// the context.
unsafe extern "C" fn read_vma(_task: *mut c_void, vma: *const u8, slot: *const u64) -> i64 {
    // SAFETY: the context is the caller's, on its stack.
    let Some(scratch) = SCRATCH.get_ptr_mut(unsafe { *slot } as u32) else {
        return 0;
    };
    let offsets = settings::offsets();
    // SAFETY: whoever asks owns the slot.
    unsafe {
        let answer = &raw mut (*scratch).answer;
        let vma = vma as u64;
        (*answer).start = word(vma, offsets.vma_start);
        (*answer).end = word(vma, offsets.vma_end);
        (*answer).page_offset = word(vma, offsets.vma_page_offset);
        let file = word(vma, offsets.vma_file);
        if file != 0 {
            let inode = word(file, offsets.file_inode);
            (*answer).key.inode = word(inode, offsets.inode_number);
            (*answer).key.size_bytes = word(inode, offsets.inode_size);
            (*answer).key.modified_s = word(inode, offsets.inode_modified).cast_signed();
        } else if (*answer).start == word(word(vma, offsets.vma_mm), offsets.mm_vdso) {
            (*answer).key = FileKey::VDSO;
            (*answer).page_offset = 0;
        }
    }
    0
}
