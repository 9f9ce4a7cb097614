//! Remembering the last walk. A walk is decided by the registers that it begins with, the words of the stack
//! that it reads, and the tables. Where all three are as they were, so is its outcome: a loop that allocates again
//! and again from one place is not walked again and again.

use super::{Scratch, Start, copy};
use crate::{
    bounds::mask,
    maps::{GENERATION, SCRATCH},
};

/// Words that can be remembered: two for each frame. Walks that read more are not remembered.
const MOST: u64 = 256;

/// Words that one call compares.
const AT_ONCE: u64 = 8;

/// Calls that compare all words.
pub(super) const TURNS: u32 = (MOST / AT_ONCE) as u32;

/// `same_words`: these are the same, and there may be more.
pub(super) const SAME: u32 = 1;
/// `same_words`: there are no more, and all were the same.
pub(super) const ALL_SAME: u32 = 2;

/// What a walk read.
#[repr(C)]
pub(super) struct Words {
    instruction: u64,
    stack_pointer: u64,
    frame_pointer: u64,
    thread: u32,
    process: u32,
    len: u64,
    at: [u64; MOST as usize],
    value: [u64; MOST as usize],
}

impl Scratch {
    /// Notes where a walk begins, and forgets the last one.
    #[inline(always)]
    pub(super) fn remember(&mut self, start: &Start) {
        self.words.instruction = start.instruction;
        self.words.stack_pointer = start.stack_pointer;
        self.words.frame_pointer = start.frame_pointer;
        self.words.thread = start.thread;
        self.words.process = start.process;
        self.words.len = 0;
    }

    /// Makes sure that this walk is not taken for the next one.
    #[inline(always)]
    pub(super) fn forget(&mut self) {
        self.words.len = MOST;
    }

    /// Notes a word that a walk depends on.
    #[inline(always)]
    pub(super) fn note(&mut self, address: u64, word: u64) {
        let len = self.words.len;
        if len >= MOST {
            return;
        }
        let index = mask::<{ MOST - 1 }>(len) as usize;
        // SAFETY: both arrays have MOST elements, a power of two.
        unsafe {
            *(&raw mut self.words.at).cast::<u64>().add(index) = address;
            *(&raw mut self.words.value).cast::<u64>().add(index) = word;
        }
        self.words.len = len + 1;
    }

    /// Whether a walk from here might be the last one again.
    #[inline(always)]
    pub(super) fn may_be_remembered(&self, start: &Start) -> bool {
        let words = &self.words;
        words.stack_pointer == start.stack_pointer
            && words.instruction == start.instruction
            && words.frame_pointer == start.frame_pointer
            && words.thread == start.thread
            && words.process == start.process
            && words.len > 0
            && words.len < MOST
            && self.generation == generation()
    }
}

/// The state of all tables and mappings: another number whenever one of them may have changed.
#[inline(always)]
pub(super) fn generation() -> u64 {
    // SAFETY: the pointer is to a map value.
    GENERATION
        .get_ptr(0)
        .map_or(0, |generation| unsafe { core::ptr::read_volatile(generation) })
}

/// Compares eight of the remembered words with the stack. 0: one differs, or cannot be read.
///
/// A global function, so that the verifier checks it once and not for every turn of the loop that calls it.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn same_words(slot: u32, turn: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: the caller owns the slot of this index on this CPU; programs do not migrate. Indices are masked to
    // the arrays' length.
    unsafe {
        let first = turn as u64 * AT_ONCE;
        let mut i = 0;
        while i < AT_ONCE {
            if first + i >= (*scratch).words.len {
                return ALL_SAME;
            }
            let index = mask::<{ MOST - 1 }>(first + i) as usize;
            let address = *(&raw const (*scratch).words.at).cast::<u64>().add(index);
            let value = *(&raw const (*scratch).words.value).cast::<u64>().add(index);
            match copy::word(scratch, address) {
                Some(word) if word == value => {}
                _ => return 0,
            }
            i += 1;
        }
        SAME
    }
}
