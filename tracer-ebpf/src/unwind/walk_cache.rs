//! The walk cache: the last walk of each slot, reused while it would come out the same. A walk
//! depends on the registers that it begins with, the words of the stack that it reads, and the
//! tables. While all three are as they were, so is the stack: a loop that allocates from one place
//! is walked once.
//!
//! Most of the words are near the stack pointer, in the one copy of the stack that a walk begins
//! with. Their places in the copy are kept, not their addresses: comparing one takes some
//! instructions, and a copy for the next walk need not reach beyond the last of them.

use tracer_ebpf::{Counter, WINDOW_BYTES};

use super::{Scratch, Slot, Start, stack_window};
use crate::{
    bounds::{mask, opaque},
    loss::count,
    maps::{GENERATION, SCRATCH},
};

/// The most words of one walk: two for each frame. Walks that read more are not cached.
const MOST: u64 = 256;

/// Near words compared without a branch between them.
const TOGETHER: u64 = 8;

/// Near words that one call compares.
const NEAR_AT_ONCE: u64 = 4 * TOGETHER;

/// Far words that one call compares.
const FAR_AT_ONCE: u64 = 8;

/// Calls that compare all words.
const NEAR_TURNS: u64 = MOST / NEAR_AT_ONCE;
const FAR_TURNS: u64 = MOST / FAR_AT_ONCE;

/// These words are the same, and there may be more.
const SAME: u32 = 1;
/// There are no more, and all were the same.
const ALL_SAME: u32 = 2;

/// The words that a walk read.
#[repr(C)]
pub(super) struct Words {
    instruction: u64,
    stack_pointer: u64,
    frame_pointer: u64,
    thread: u32,
    process: u32,
    /// Walks since then that were the same.
    same: u64,
    /// The address at which the copy begins that the near words are in.
    base: u64,
    /// Bytes from there to the end of the last of them.
    near_end: u64,
    /// The near words are at the front of the arrays, the far ones at their back, and between them
    /// is room for as many as are compared together.
    near: u64,
    far: u64,
    /// Of near words the index in the copy, of far ones the address.
    at: [u64; (MOST + TOGETHER) as usize],
    value: [u64; (MOST + TOGETHER) as usize],
}

/// Begins an entry for a walk in place of the last one. The window is the copy of the stack
/// that the walk begins with.
#[inline(always)]
pub(super) fn remember(scratch: &mut Scratch, start: &Start) {
    scratch.words.instruction = start.instruction;
    scratch.words.stack_pointer = start.stack_pointer;
    scratch.words.frame_pointer = start.frame_pointer;
    scratch.words.thread = start.thread;
    scratch.words.process = start.process;
    scratch.words.same = 0;
    scratch.words.base = scratch.window_start;
    scratch.words.near_end = 0;
    scratch.words.near = 0;
    scratch.words.far = 0;
}

/// Evicts this walk: the next one is walked anew.
#[inline(always)]
pub(super) fn evict(scratch: &mut Scratch) {
    scratch.words.near = MOST;
}

/// Adds a word that a walk has just read.
#[inline(always)]
pub(super) fn note(scratch: &mut Scratch, address: u64, word: u64) {
    let (near, far) = (scratch.words.near, scratch.words.far);
    if near + far >= MOST - TOGETHER {
        evict(scratch);
        return;
    }
    let base = scratch.words.base;
    let offset = address.wrapping_sub(base);
    let is_near = scratch.window_start == base && offset < WINDOW_BYTES as u64 && offset.is_multiple_of(8);
    let (index, at) = if is_near {
        scratch.words.near = near + 1;
        if offset + 8 > scratch.words.near_end {
            scratch.words.near_end = offset + 8;
        }
        (near, offset >> 3)
    } else {
        scratch.words.far = far + 1;
        (MOST - 1 - far, address)
    };
    let index = mask::<{ MOST - 1 }>(index) as usize;
    // SAFETY: both arrays have more than MOST elements, a power of two.
    unsafe {
        *(&raw mut scratch.words.at).cast::<u64>().add(index) = at;
        *(&raw mut scratch.words.value).cast::<u64>().add(index) = word;
    }
}

/// Ends the entry: fills up the last group of near words with the first one.
#[inline(always)]
pub(super) fn end_words(scratch: &mut Scratch) {
    let first = mask::<{ MOST - 1 }>(scratch.words.near) as usize;
    let (at, value) = (scratch.words.at[0], scratch.words.value[0]);
    let mut i = 0;
    while i < TOGETHER as usize - 1 {
        // SAFETY: both arrays have TOGETHER elements more than MOST.
        unsafe {
            *(&raw mut scratch.words.at).cast::<u64>().add(first + i) = at;
            *(&raw mut scratch.words.value).cast::<u64>().add(first + i) = value;
        }
        i += 1;
    }
}

/// The length of a copy of the stack from here, in bytes: as much as the last walks from here
/// read, if all were the same.
#[inline(always)]
pub(super) fn bytes_wanted(scratch: &Scratch, base: u64) -> u64 {
    let words = &scratch.words;
    if words.same > 0 && words.base == base {
        words.near_end
    } else {
        WINDOW_BYTES as u64
    }
}

/// Returns false if a walk from here cannot be the last one again.
#[inline(always)]
fn may_be_remembered(scratch: &Scratch, start: &Start) -> bool {
    let words = &scratch.words;
    words.stack_pointer == start.stack_pointer
        && words.instruction == start.instruction
        && words.frame_pointer == start.frame_pointer
        && words.thread == start.thread
        && words.process == start.process
        && words.near > 0
        && words.near < MOST
        && scratch.generation == generation()
}

/// The identity of the slot's last walk, if this one would read the very same. Otherwise the
/// window is what a walk needs: the stack from where the last copy of it began, as far as it
/// was read.
#[inline(always)]
pub(super) fn remembered(slot: &Slot, start: &Start) -> Option<u64> {
    let scratch = slot.scratch();
    // SAFETY: the slot is ours.
    unsafe {
        if may_be_remembered(&*scratch, start) && same_words(slot.index()) == ALL_SAME {
            (*scratch).words.same = 1;
            count(Counter::StackRemembered);
            return Some((*scratch).record.header.hash);
        }
        let begin = (*scratch).window_start;
        if bytes_wanted(&*scratch, begin) < WINDOW_BYTES as u64 {
            // The copy ends where the last walk did. Where nothing can be read, the walk finds
            // that out.
            let _is_read = stack_window::fill(scratch, begin, WINDOW_BYTES as u64);
        }
    }
    None
}

/// The state of all tables and mappings: another number whenever one of them may have changed.
#[inline(always)]
pub(super) fn generation() -> u64 {
    // SAFETY: the pointer is to a map value.
    GENERATION
        .get_ptr(0)
        .map_or(0, |generation| unsafe { core::ptr::read_volatile(generation) })
}

/// Compares all remembered words with the stack. 0: one differs, or cannot be read.
///
/// A global function, so that the verifier checks it once, and not with all that may come after
/// each turn of its loops.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn same_words(slot: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: the caller owns the slot of this index on this CPU; programs do not migrate.
    unsafe {
        let base = (*scratch).words.base;
        let is_copied = (*scratch).window_start == base && (*scratch).window_len >= (*scratch).words.near_end;
        if !is_copied && !stack_window::fill(scratch, base, WINDOW_BYTES as u64) {
            return 0;
        }
        let (mut turn, mut answer) = (0, SAME);
        while turn < NEAR_TURNS && answer == SAME {
            answer = same_near_words(slot, turn as u32);
            turn += 1;
        }
        if answer == 0 || (*scratch).words.far == 0 {
            return answer;
        }
    }
    let (mut turn, mut answer) = (0, SAME);
    while turn < FAR_TURNS && answer == SAME {
        answer = same_far_words(slot, turn as u32);
        turn += 1;
    }
    answer
}

/// Compares near words with the copy that the window is. 0: one differs.
///
/// A global function, so that the verifier checks it once and not for every turn of the loop that
/// calls it.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn same_near_words(slot: u32, turn: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: the caller owns the slot of this index on this CPU; programs do not migrate. Indices
    // are masked to the arrays' lengths.
    unsafe {
        let at = (&raw const (*scratch).words.at).cast::<u64>();
        let value = (&raw const (*scratch).words.value).cast::<u64>();
        let window = (&raw const (*scratch).window).cast::<u64>();
        let near = (*scratch).words.near;
        let mut done = 0;
        while done < NEAR_AT_ONCE {
            let first = turn as u64 * NEAR_AT_ONCE + done;
            if first >= near {
                return ALL_SAME;
            }
            let group = mask::<{ MOST - TOGETHER }>(first) as usize;
            let mut differing = 0;
            let mut i = 0;
            while i < TOGETHER as usize {
                let index = mask::<{ WINDOW_BYTES as u64 / 8 - 1 }>(*at.add(group + i)) as usize;
                // LLVM would make eight branches of it.
                differing |= opaque(*window.add(index) ^ *value.add(group + i));
                i += 1;
            }
            if differing != 0 {
                return 0;
            }
            done += TOGETHER;
        }
        SAME
    }
}

/// Compares far words with the stack. 0: one differs, or cannot be read.
///
/// A global function, for the same reason.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn same_far_words(slot: u32, turn: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return 0;
    };
    // SAFETY: as in `same_near_words`.
    unsafe {
        let first = turn as u64 * FAR_AT_ONCE;
        let mut i = 0;
        while i < FAR_AT_ONCE {
            if first + i >= (*scratch).words.far {
                return ALL_SAME;
            }
            let index = mask::<{ MOST - 1 }>(MOST - 1 - (first + i)) as usize;
            let address = *(&raw const (*scratch).words.at).cast::<u64>().add(index);
            let value = *(&raw const (*scratch).words.value).cast::<u64>().add(index);
            match stack_window::word(scratch, address) {
                Some(word) if word == value => {}
                _ => return 0,
            }
            i += 1;
        }
        SAME
    }
}
