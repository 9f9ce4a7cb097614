//! The table of live blocks.
//!
//! A child has copies of the blocks that its parent had when it forked. They are not copied in the
//! table: a block that the child does not have itself is looked up among its parent's, and one that
//! the parent gives back is left to the children that were forked since it was allocated.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use tracer_ebpf::{Block, BlockKey, Loss, PendingCall};

use super::{amount::Amount, process_totals, sums};
use crate::{
    loss::count_loss,
    maps::{BLOCKS, PROCESS_TOTALS},
};

/// Parents of parents that are looked at: servers fork workers, and those rarely fork again.
const GENERATIONS: u32 = 16;

/// Children that a block is left to.
const CHILDREN: u32 = 64;

/// Takes a block out of the table. False if it is not there.
#[inline(always)]
pub(super) fn take(key: &BlockKey, taken: &mut Block) -> bool {
    let Some(heap) = PROCESS_TOTALS.get_ptr(&key.process) else {
        return false;
    };
    // SAFETY: pointers to map values, whose fields are plain numbers; a block's entry is replaced
    // as a whole.
    unsafe {
        if let Some(block) = BLOCKS.get_ptr(key) {
            *taken = *block;
            if taken.is_gone != 0 {
                return false;
            }
            if (*heap).child != 0 {
                leave_to_children(key.process, key.address, (*heap).child);
            }
            // Another thread may have been first: the block is its.
            return BLOCKS.remove(key).is_ok();
        }
        if (*heap).parent == 0 {
            return false;
        }
        take_inherited(key, taken)
    }
}

/// Returns false if [`take`] cannot find a block: it is not there, and cannot be an ancestor's.
#[inline(always)]
pub(super) fn may_have(key: &BlockKey) -> bool {
    BLOCKS.get_ptr(key).is_some()
        || PROCESS_TOTALS
            .get_ptr(&key.process)
            // SAFETY: a pointer to a map value, whose fields are plain numbers.
            .is_some_and(|heap| unsafe { (*heap).parent } != 0)
}

/// Leaves a block that is about to be given back to the children that have a copy of it: to the
/// last one, and to those before. Returns 0: a global function must return a number.
///
/// A global function, so that the verifier follows its loop once, and not from each of the states
/// in which a block is given back.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn leave_to_children(parent: u32, address: u64, last: u32) -> u32 {
    let mut key = BlockKey {
        address,
        process: parent,
        reserved: 0,
    };
    let Some(block) = BLOCKS.get_ptr(&key) else {
        return 0;
    };
    // SAFETY: a pointer to a map value; a block's entry is replaced as a whole.
    let block = unsafe { &*block };
    key.process = last;
    let mut turn = 0;
    while turn < CHILDREN {
        let Some(heap) = PROCESS_TOTALS.get_ptr(&key.process) else {
            return 0;
        };
        // SAFETY: a pointer to a map value, whose fields are plain numbers.
        let (forked_ns, is_over, sibling) = unsafe { ((*heap).forked_ns, (*heap).is_over, (*heap).sibling) };
        if block.time_ns >= forked_ns {
            // Nor had those that were forked before.
            return 0;
        }
        if is_over == 0 {
            // It may have given its copy back already, which stands.
            BLOCKS.insert(&key, block, BPF_NOEXIST as u64).unwrap_or_default();
        }
        key.process = sibling;
        turn += 1;
    }
    0
}

/// Takes a block that a process has from its parent, or the parent's parent.
#[inline(always)]
fn take_inherited(key: &BlockKey, taken: &mut Block) -> bool {
    let mut process = key.process;
    let mut since = u64::MAX;
    let mut turn = 0;
    while turn < GENERATIONS {
        let Some(heap) = PROCESS_TOTALS.get_ptr(&process) else {
            return false;
        };
        // SAFETY: as in `take`.
        unsafe {
            if (*heap).parent == 0 {
                return false;
            }
            if (*heap).forked_ns < since {
                since = (*heap).forked_ns;
            }
            process = (*heap).parent;
            if let Some(block) = BLOCKS.get_ptr(&BlockKey { process, ..*key }) {
                if (*block).is_gone != 0 || (*block).time_ns >= since {
                    return false;
                }
                *taken = *block;
                taken.is_gone = 1;
                // A mark that this process has given it back; what is marked is still the parent's.
                let marked = BLOCKS.insert(key, &*taken, BPF_NOEXIST as u64).is_ok();
                taken.is_gone = 0;
                return marked;
            }
        }
        turn += 1;
    }
    false
}

/// Puts a block back that was not resized after all.
#[inline(always)]
pub(super) fn put_back(key: &BlockKey, block: &Block) {
    if BLOCKS.insert(key, block, BPF_ANY as u64).is_err() {
        count_loss(Loss::LiveMapFull);
        process_totals::shrink(key.process, &Amount::of(block.bytes, block.weight));
    }
}

/// Puts the block into the table that a call has allocated.
#[inline(always)]
pub(super) fn put(key: &BlockKey, call: &PendingCall, now: u64) {
    let block = Block {
        stack: call.key.stack,
        bytes: call.bytes,
        time_ns: now,
        weight: call.weight,
        function: call.key.function as u16,
        is_gone: 0,
    };
    let amount = Amount::of(call.bytes, call.weight);
    if BLOCKS.insert(key, &block, BPF_NOEXIST as u64).is_err() && !replace(key, &block, now) {
        count_loss(Loss::LiveMapFull);
        sums::add_untracked(&call.key, &amount);
        return;
    }
    process_totals::grow(key.process, &amount);
}

/// Puts a block in the place of another one of the same address. False if there is none: the table
/// is full.
#[inline(always)]
fn replace(key: &BlockKey, block: &Block, now: u64) -> bool {
    let Some(before) = BLOCKS.get_ptr(key) else {
        return false;
    };
    // SAFETY: a pointer to a map value, copied at once.
    let before = unsafe { *before };
    if before.is_gone == 0 {
        process_totals::missed(key.process);
        given_back(key.process, &before, now, false);
    }
    BLOCKS.insert(key, block, BPF_ANY as u64).is_ok()
}

/// Takes a block off the figures of what is live.
#[inline(always)]
pub(super) fn given_back(process: u32, block: &Block, now: u64, is_temporary: bool) {
    let amount = Amount::of(block.bytes, block.weight);
    sums::add_freed(process, block, &amount, now, is_temporary);
    process_totals::shrink(process, &amount);
}
