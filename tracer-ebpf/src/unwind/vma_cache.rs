//! The VMA cache: mappings of code that walks have found, by process, for walks that find the
//! address space locked.

use tracer_ebpf::Counter;

use super::{Scratch, mapping::CodeMapping};
use crate::{
    loss::count,
    maps::{MAPPINGS, SCRATCH},
};

/// Entries of each process.
const MAX_VMAS: u32 = 64;

/// The key of an entry: a process image and the index of the entry among its own.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct VmaKey {
    process: u32,
    index: u32,
}

/// A mapping, and the state of all mappings that it was found in.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CachedVma {
    generation: u64,
    mapping: CodeMapping,
}

/// Caches the slot's current mapping for all walks of its process: in its own entry, else in a free
/// one, else in place of another one, which the kernel is asked for again.
///
/// A global function, so that its variables are not on the stack while the kernel is asked: all
/// functions of a chain of calls together have 512 bytes there.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn cache_mapping(slot: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr(slot) else {
        return 0;
    };
    // SAFETY: the caller owns the slot.
    let scratch = unsafe { &*scratch };
    let vma = CachedVma {
        generation: scratch.generation,
        mapping: *scratch.mapping(scratch.current_mapping),
    };
    let mut key = VmaKey {
        process: scratch.mapped_process,
        index: 0,
    };
    while key.index < MAX_VMAS - 1 {
        // SAFETY: entries are replaced as wholes, and the value is only looked at.
        let free = unsafe { MAPPINGS.get(&key) }.is_none_or(|other| {
            other.generation != vma.generation || other.mapping.start == vma.mapping.start
        });
        if free {
            break;
        }
        key.index += 1;
    }
    if MAPPINGS.insert(&key, &vma, 0).is_err() {
        // No loss: a later walk asks the kernel again.
        count(Counter::MappingNotKept);
    }
    0
}

/// The cached mapping of this process that has an address.
#[inline(always)]
pub(super) fn cached_vma(scratch: &Scratch, address: u64) -> Option<CodeMapping> {
    let mut index = 0;
    while index < MAX_VMAS {
        let key = VmaKey {
            process: scratch.mapped_process,
            index,
        };
        // SAFETY: entries are replaced as wholes, and the value is copied at once.
        if let Some(vma) = unsafe { MAPPINGS.get(&key) }
            && vma.generation == scratch.generation
            && address >= vma.mapping.start
            && address < vma.mapping.end
        {
            return Some(vma.mapping);
        }
        index += 1;
    }
    None
}

/// Returns false if no code of this range of a process's addresses is in the cache.
#[inline(always)]
pub(crate) fn may_have_cached(process: u32, start: u64, len: u64) -> bool {
    let end = start.wrapping_add(len);
    let mut index = 0;
    while index < MAX_VMAS {
        // SAFETY: entries are replaced as wholes, and the value is only looked at.
        let Some(vma) = (unsafe { MAPPINGS.get(&VmaKey { process, index }) }) else {
            return false;
        };
        if vma.mapping.start < end && start < vma.mapping.end {
            return true;
        }
        index += 1;
    }
    // All entries are in use: there may be more mappings than are cached.
    true
}
