//! Mappings that walks have found, kept for each process, for when its address space is busy and cannot be asked.

use tracer_ebpf::Counter;

use super::{Scratch, mapping::Mapping};
use crate::{
    loss::count,
    maps::{MAPPINGS, SCRATCH},
};

/// Mappings that are kept for each process.
const KEPT: u32 = 64;

/// The place of a mapping that is kept for a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KeptKey {
    process: u32,
    index: u32,
}

/// A mapping that is kept for a process.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KeptMapping {
    generation: u64,
    mapping: Mapping,
}

/// Keeps the slot's current mapping for all walks of its process: in its own place, else in a free one, else in that of
/// another, which is asked for again.
///
/// A global function, so that its variables are not on the stack while the kernel is asked: all functions of a chain of
/// calls together have 512 bytes there.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn keep_mapping(slot: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr(slot) else {
        return 0;
    };
    // SAFETY: the caller owns the slot.
    let scratch = unsafe { &*scratch };
    let kept = KeptMapping {
        generation: scratch.generation,
        mapping: *scratch.mapping(scratch.current_mapping),
    };
    let mut key = KeptKey {
        process: scratch.mapped_process,
        index: 0,
    };
    while key.index < KEPT - 1 {
        // SAFETY: entries are replaced as wholes, and the value is only looked at.
        let free = unsafe { MAPPINGS.get(&key) }.is_none_or(|other| {
            other.generation != kept.generation || other.mapping.start == kept.mapping.start
        });
        if free {
            break;
        }
        key.index += 1;
    }
    if MAPPINGS.insert(&key, &kept, 0).is_err() {
        // Nothing is lost: it is only a help for later.
        count(Counter::MappingNotKept);
    }
    0
}

impl Scratch {
    /// A mapping of this process that any walk has found before.
    #[inline(always)]
    pub(super) fn kept(&self, address: u64) -> Option<Mapping> {
        let mut index = 0;
        while index < KEPT {
            let key = KeptKey {
                process: self.mapped_process,
                index,
            };
            // SAFETY: entries are replaced as wholes, and the value is copied at once.
            if let Some(kept) = unsafe { MAPPINGS.get(&key) }
                && kept.generation == self.generation
                && address >= kept.mapping.start
                && address < kept.mapping.end
            {
                return Some(kept.mapping);
            }
            index += 1;
        }
        None
    }
}

/// Whether walks may have kept code of this range of a process's addresses.
#[inline(always)]
pub(crate) fn may_have_kept(process: u32, start: u64, len: u64) -> bool {
    let end = start.wrapping_add(len);
    let mut index = 0;
    while index < KEPT {
        // SAFETY: entries are replaced as wholes, and the value is only looked at.
        let Some(kept) = (unsafe { MAPPINGS.get(&KeptKey { process, index }) }) else {
            return false;
        };
        if kept.mapping.start < end && start < kept.mapping.end {
            return true;
        }
        index += 1;
    }
    // All places are taken: there may be more mappings than are kept.
    true
}
