//! The live heap: every block from the return of the call that allocated it to the call that gives it back.
//!
//! A call is begun at its entry, where its stack is right, and decided at its return, where it is known whether it
//! succeeded. A block that `realloc` is to resize is out of the table meanwhile: its address may be another thread's
//! before the call returns. A call that is met inside its function, where all of that is known, is both at once.

mod amount;
mod blocks;
mod process_totals;
mod sums;
mod unsampled;
mod whole;

pub(crate) use process_totals::{executed, exited, forked};
pub(crate) use sums::bucket;
pub(crate) use unsampled::{look, pass_over};
pub(crate) use whole::{decide, is_known, pass, whole};

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns};
use tracer_ebpf::{Block, BlockKey, CallKey, Counter, Loss, PendingCall, ProbeSite, SumKey};

use amount::Amount;

use crate::{
    loss::{count, lose},
    maps::{CALLS, LAST_BLOCKS},
    probes::Request,
    settings,
    unwind::Slot,
};

/// Whether a hit is a call that is known already, which another function has passed on by a jump: it is at the place of a
/// call that has not returned, and returns elsewhere, since the kernel has put its own address there.
#[inline(always)]
pub(crate) fn is_passed_on(site: &ProbeSite, place: &CallKey, return_address: u64) -> bool {
    if site.tail & ProbeSite::TAIL_TAKES == 0 {
        return false;
    }
    // SAFETY: the value is compared at once, and only this thread changes it.
    unsafe { CALLS.get(place) }.is_some_and(|call| call.return_address != return_address)
}

/// Forgets what an earlier call has left at the place of one that is not followed: a call that was left by a jump.
#[inline(always)]
pub(crate) fn forget(place: &CallKey) {
    // Most often there is none.
    CALLS.remove(place).unwrap_or_default();
}

/// Whether a call of the allocator's own may go on by a jump that would hide where it came from.
#[inline(always)]
pub(crate) fn may_pass_on(site: &ProbeSite) -> bool {
    site.tail & (ProbeSite::TAIL_MAKES | ProbeSite::TAIL_FREES) != 0 && site.tail & ProbeSite::ENTRY_ONLY == 0
}

/// Remembers a call that is an allocator's own and may go on by a jump. Until it returns, where it returns to cannot be seen
/// any more: the kernel has put its own address there.
#[inline(always)]
pub(crate) fn pass_on(slot: &Slot, place: &CallKey, return_address: u64) {
    // SAFETY: the slot is the caller's.
    let call = unsafe { &mut (*slot.scratch()).call };
    call.return_address = return_address;
    call.flags = PendingCall::NESTED;
    if CALLS.insert(place, call, 0).is_err() {
        lose(Loss::TailMapFull);
    }
}

/// Begins a call that is followed and stands for `weight` of its kind. The stack has been walked and is in the slot.
#[inline(always)]
pub(crate) fn begin(
    slot: &Slot,
    site: &ProbeSite,
    request: &Request,
    place: &CallKey,
    key: &SumKey,
    return_address: u64,
    weight: u32,
) {
    sums::prepare(slot, key);
    if wait(slot, site, request, place, key, return_address, weight) {
        count(Counter::Tallied);
    } else {
        sums::add_undecided(key, weight);
    }
}

/// Leaves what the return of a call must know. False if there is no room, which is counted.
#[inline(always)]
fn wait(
    slot: &Slot,
    site: &ProbeSite,
    request: &Request,
    place: &CallKey,
    key: &SumKey,
    return_address: u64,
    weight: u32,
) -> bool {
    // SAFETY: the slot is the caller's.
    let call = unsafe { &mut (*slot.scratch()).call };
    note(call, site, request, key, return_address, weight);
    if request.block != 0 {
        let key = BlockKey {
            address: request.block,
            process: key.process,
            reserved: 0,
        };
        if blocks::take(&key, &mut call.old) {
            call.flags |= PendingCall::OLD_TAKEN;
        }
        if was_last(place.thread, request.block) {
            call.flags |= PendingCall::OLD_WAS_LAST;
        }
    }
    let is_kept = CALLS.insert(place, call, 0).is_ok();
    if !is_kept {
        lose(Loss::CallMapFull);
    }
    is_kept
}

/// Adds a call whose return is not seen, and that resizes no block: that it succeeds is taken for granted, unless it asks
/// for more than there are addresses, and its block is not followed.
#[inline(always)]
pub(crate) fn add_unseen(slot: &Slot, request: &Request, place: &CallKey, key: &SumKey, weight: u32) {
    forget(place);
    sums::prepare(slot, key);
    // SAFETY: the slot is the caller's.
    let call = unsafe { &mut (*slot.scratch()).call };
    call.key = *key;
    call.bytes = request.bytes;
    call.flags = 0;
    call.weight = weight;
    if request.overflows || request.bytes >= ADDRESSES {
        sums::add_call(call, true, 0);
    } else {
        sums::add_call(call, false, UNKNOWN_ADDRESS);
        sums::add_untracked(key, &Amount::of(request.bytes, weight));
    }
    // The thread's last block is another one now.
    was_last(place.thread, 0);
    count(Counter::Tallied);
}

/// How many addresses a process has (the kernel's `Documentation/arch/x86/x86_64/mm.rst`); more for one that asks for them,
/// which no allocator does.
const ADDRESSES: u64 = 1 << 47;

/// The address of a block whose address is not known: any but 0.
const UNKNOWN_ADDRESS: u64 = 1;

/// Notes what a call asks for.
#[inline(always)]
fn note(
    call: &mut PendingCall,
    site: &ProbeSite,
    request: &Request,
    key: &SumKey,
    return_address: u64,
    weight: u32,
) {
    call.key = *key;
    call.bytes = request.bytes;
    call.return_address = return_address;
    call.out = request.out;
    call.old_address = request.block;
    call.flags = site.tail & (ProbeSite::GLIBC_CHUNKS | ProbeSite::FREES_ON_FAILURE);
    if request.overflows {
        call.flags |= PendingCall::OVERFLOWS;
    }
    call.weight = weight;
}

/// Decides a call at its return. `result`: the address of the block, or 0 for a call that failed.
#[inline(always)]
pub(crate) fn finish(place: &CallKey, result: impl FnOnce(&PendingCall) -> u64) {
    let Some(call) = CALLS.get_ptr(place) else {
        // Not sampled, or of a process that is no target, or passed on by another function, whose return it was.
        return;
    };
    // SAFETY: the entry is this thread's own, and is taken out below only.
    let call = unsafe { &*call };
    if call.flags & PendingCall::NESTED != 0 {
        forget(place);
        return;
    }
    let address = result(call);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let process = call.key.process;
    let gives_back = call.old_address != 0 && call.bytes == 0 && call.flags & PendingCall::OVERFLOWS == 0;
    let failed = address == 0 && !gives_back;
    let has_old = call.flags & PendingCall::OLD_TAKEN != 0;
    if failed {
        if has_old {
            let key = BlockKey {
                address: call.old_address,
                process,
                reserved: 0,
            };
            if call.flags & PendingCall::FREES_ON_FAILURE == 0 {
                blocks::put_back(&key, &call.old);
            } else {
                blocks::given_back(process, &call.old, now, false);
            }
        }
    } else if has_old {
        blocks::given_back(
            process,
            &call.old,
            now,
            call.flags & PendingCall::OLD_WAS_LAST != 0,
        );
    } else if call.old_address != 0 {
        unmatched(process);
    }
    if !settings::sampled() || call.weight != 0 {
        sums::add_call(call, failed, address);
    }
    keep(call, place.thread, address, now);
    if CALLS.remove(place).is_err() {
        lose(Loss::CallMapFull);
    }
}

/// Puts the block that a call has made into the table, if it has made one and is sampled.
#[inline(always)]
fn keep(call: &PendingCall, thread: u32, address: u64, now: u64) {
    if address == 0 || (settings::sampled() && call.weight == 0) {
        // What comes after is not this block's next call any more.
        was_last(thread, 0);
    } else {
        let key = BlockKey {
            address,
            process: call.key.process,
            reserved: 0,
        };
        blocks::put(&key, call, now);
        set_last(thread, address);
    }
}

/// A call of `free`.
#[inline(always)]
pub(crate) fn free(process: u32, address: u64) {
    process_totals::called_free(process);
    let thread = bpf_get_current_pid_tgid() as u32;
    let is_temporary = was_last(thread, address);
    if address == 0 {
        return;
    }
    let key = BlockKey {
        address,
        process,
        reserved: 0,
    };
    let mut block = Block {
        stack: 0,
        bytes: 0,
        time_ns: 0,
        weight: 0,
        function: 0,
        is_gone: 0,
    };
    if blocks::take(&key, &mut block) {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        blocks::given_back(process, &block, now, is_temporary);
    } else {
        unmatched(process);
    }
}

/// A block was given back that is not in the table. With sampling most are not, and nothing can be said of them.
#[inline(always)]
fn unmatched(process: u32) {
    if !settings::sampled() {
        process_totals::unmatched(process);
    }
}

/// Whether this is the block that the thread's last call of the allocator has made. It is not after this call.
#[inline(always)]
fn was_last(thread: u32, address: u64) -> bool {
    let Some(last) = LAST_BLOCKS.get_ptr_mut(&thread) else {
        return false;
    };
    // SAFETY: the entry is this thread's own.
    unsafe {
        let was_last = *last == address;
        *last = 0;
        was_last
    }
}

#[inline(always)]
fn set_last(thread: u32, address: u64) {
    match LAST_BLOCKS.get_ptr_mut(&thread) {
        // SAFETY: the entry is this thread's own.
        Some(last) => unsafe { *last = address },
        None => {
            // Least recently used entries make room, so that it fails only when two CPUs are at it: one figure of
            // temporary blocks is then too low.
            LAST_BLOCKS.insert(&thread, &address, 0).unwrap_or_default();
        }
    }
}
