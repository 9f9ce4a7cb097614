//! The live heap: every block from the return of the call that allocated it to the call that gives
//! it back.
//!
//! A call is begun at its entry, where its stack is right, and decided at its return, where it is
//! known whether it succeeded. A block that `realloc` is to resize is out of the table meanwhile:
//! its address may be another thread's before the call returns. A call that is met inside its
//! function, where all of that is known, is both at once.

mod amount;
mod blocks;
mod complete;
mod process_totals;
mod skipped;
mod sums;

pub(crate) use complete::{complete, skip};
pub(crate) use process_totals::{executed, exited, forked};
pub(crate) use skipped::count_skipped;
pub(crate) use sums::bucket;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated::bpf_ktime_get_ns};
use tracer_ebpf::{Block, BlockKey, CallKey, Counter, LastCall, Loss, PendingCall, ProbeSpec, SumKey};

use amount::Amount;

use crate::{
    loss::{count, count_loss},
    maps::{LAST_CALLS, PENDING_CALLS, SCRATCH},
    probes::{Request, called_by_allocator},
    settings, trampoline,
    unwind::Slot,
};

/// Where a call was met, and where it returns to.
#[derive(Clone, Copy)]
pub(crate) struct CallSite {
    /// The address of the probe; 0 for a call that is never pending.
    pub(crate) probe: u64,
    /// The return address; likewise.
    pub(crate) return_address: u64,
}

/// Whether a hit continues a pending call, which another function has passed on by a tail call: it
/// is at the place of a call that has not returned, and returns elsewhere, since the kernel has put
/// its own address there.
#[inline(always)]
pub(crate) fn continues_pending(spec: &ProbeSpec, key: &CallKey, return_address: u64) -> bool {
    if spec.flags & ProbeSpec::MAY_BE_TAIL_CALLED == 0 {
        return false;
    }
    // SAFETY: the value is compared at once, and only this thread changes it.
    unsafe { PENDING_CALLS.get(key) }.is_some_and(|call| call.return_address != return_address)
}

/// The same before the stack has been read. `instruction` is the one that the spec's callers are
/// told from. A pending call at the place that is not continued was left by a jump out of it, and
/// is evicted.
#[inline(always)]
pub(crate) fn is_continuation(spec: &ProbeSpec, key: &CallKey, instruction: u64) -> bool {
    // SAFETY: as above.
    let Some(begun_to_return_to) = (unsafe { PENDING_CALLS.get(key) }).map(|call| call.return_address) else {
        return false;
    };
    if spec.flags & ProbeSpec::MAY_BE_TAIL_CALLED != 0
        // SAFETY: the helper checks the user's address.
        && let Ok(return_address) = unsafe { bpf_probe_read_user(key.stack_pointer as *const u64) }
        && begun_to_return_to != return_address
        && !called_by_allocator(spec, return_address.wrapping_sub(instruction).cast_signed())
    {
        return true;
    }
    evict(key);
    false
}

/// Takes out what an earlier call has left at the place of one that is not followed: a call that
/// was left by a jump.
#[inline(always)]
pub(crate) fn evict(key: &CallKey) {
    // Most often there is none.
    PENDING_CALLS.remove(key).unwrap_or_default();
}

/// Whether a nested call may go on by a tail call that would hide where it came from.
#[inline(always)]
pub(crate) fn may_hide_return(spec: &ProbeSpec) -> bool {
    spec.flags & (ProbeSpec::MAY_TAIL_CALL | ProbeSpec::MAY_TAIL_CALL_FREE) != 0
        && spec.flags & ProbeSpec::ENTRY_ONLY == 0
}

/// Tracks a nested call that may go on by a tail call. Until it returns, its return address cannot
/// be seen any more: the kernel has put its own there.
#[inline(always)]
pub(crate) fn track_nested(slot: &Slot, key: &CallKey, return_address: u64) {
    // SAFETY: the slot is the caller's.
    let call = unsafe { &mut (*slot.scratch()).call };
    call.return_address = return_address;
    call.flags = PendingCall::NESTED;
    if PENDING_CALLS.insert(key, call, 0).is_err() {
        count_loss(Loss::TailMapFull);
    }
}

/// Begins a call that is followed and stands for `weight` of its kind. The stack has been walked
/// and is in the slot.
#[inline(always)]
pub(crate) fn begin_call(
    slot: &Slot,
    spec: &ProbeSpec,
    request: &Request,
    key: &CallKey,
    sum: &SumKey,
    site: CallSite,
    weight: u32,
) {
    sums::prepare(slot, sum);
    if wait(slot, spec, request, key, sum, site, weight) {
        count(Counter::Recorded);
    } else {
        sums::add_undecided(sum, weight);
    }
}

/// Makes a call pending until it returns. False if there is no room, which is counted.
#[inline(always)]
fn wait(
    slot: &Slot,
    spec: &ProbeSpec,
    request: &Request,
    key: &CallKey,
    sum: &SumKey,
    site: CallSite,
    weight: u32,
) -> bool {
    // SAFETY: the slot is the caller's.
    let call = unsafe { &mut (*slot.scratch()).call };
    note(call, spec, request, sum, site, weight);
    if request.block != 0 {
        call.flags |= take_old(slot.index(), request.block, sum.process);
        if was_last(key.thread, request.block) {
            call.flags |= PendingCall::OLD_WAS_LAST;
        }
    }
    let is_kept = PENDING_CALLS.insert(key, call, 0).is_ok();
    if !is_kept {
        count_loss(Loss::CallMapFull);
    }
    is_kept
}

/// Takes the block that a call resizes out of the table of blocks, into the call in a slot. Returns
/// the flag that says so, or 0.
///
/// A global function, so that the verifier checks it once, and not with every way that leads to it.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_old(slot: u32, address: u64, process: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot) else {
        return 0;
    };
    let key = BlockKey {
        address,
        process,
        reserved: 0,
    };
    // SAFETY: the caller owns the slot of this index on this CPU; programs do not migrate.
    if blocks::take(&key, unsafe { &mut (*scratch).call.old }) {
        PendingCall::OLD_TAKEN
    } else {
        0
    }
}

/// Adds a call whose return is not seen, and that resizes no block: that it succeeds is taken for
/// granted, unless it asks for more than there are addresses, and its block is not followed.
#[inline(always)]
pub(crate) fn add_unseen(slot: &Slot, request: &Request, key: &CallKey, sum: &SumKey, weight: u32) {
    evict(key);
    sums::prepare(slot, sum);
    // SAFETY: the slot is the caller's.
    let call = unsafe { &mut (*slot.scratch()).call };
    call.key = *sum;
    call.bytes = request.bytes;
    call.flags = 0;
    call.weight = weight;
    if request.overflows || request.bytes >= ADDRESSES {
        sums::add_call(call, true, 0);
    } else {
        sums::add_call(call, false, UNKNOWN_ADDRESS);
        sums::add_untracked(sum, &Amount::of(request.bytes, weight));
    }
    // The thread's last block is another one now.
    was_last(key.thread, 0);
    count(Counter::Recorded);
}

/// How many addresses a process has (the kernel's `Documentation/arch/x86/x86_64/mm.rst`); more for
/// one that asks for them, which no allocator does.
const ADDRESSES: u64 = 1 << 47;

/// The address of a block whose address is not known: any but 0.
const UNKNOWN_ADDRESS: u64 = 1;

/// Notes what a call asks for.
#[inline(always)]
fn note(
    call: &mut PendingCall,
    spec: &ProbeSpec,
    request: &Request,
    key: &SumKey,
    site: CallSite,
    weight: u32,
) {
    call.key = *key;
    call.bytes = request.bytes;
    call.return_address = site.return_address;
    call.probe = site.probe;
    call.out = request.out;
    call.old_address = request.block;
    call.flags = spec.flags
        & (ProbeSpec::GLIBC_CHUNKS
            | ProbeSpec::FREES_ON_FAILURE
            | ProbeSpec::RETURNS_STATUS
            | ProbeSpec::RETURNS_SIZE);
    if request.overflows {
        call.flags |= PendingCall::OVERFLOWS;
    }
    call.weight = weight;
}

/// Decides a call at its return. `result`: the address of the block, or 0 for a call that failed.
#[inline(always)]
pub(crate) fn finish(place: &CallKey, result: impl FnOnce(&PendingCall) -> u64) {
    let Some(call) = PENDING_CALLS.get_ptr(place) else {
        // Not sampled, or of a process that is no target, or passed on by another function, whose
        // return it was.
        return;
    };
    // SAFETY: the entry is this thread's own, and is taken out below only.
    let call = unsafe { &*call };
    if call.flags & PendingCall::NESTED != 0 {
        evict(place);
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
    if PENDING_CALLS.remove(place).is_err() {
        count_loss(Loss::CallMapFull);
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
    if address != 0 {
        give_back(process, address, u32::from(is_temporary));
    }
}

/// Takes a block that was given back out of the table of blocks.
///
/// A global function, so that the verifier checks it once, and not with every way that leads to it.
/// Its answer is nothing: the verifier wants a number.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn give_back(process: u32, address: u64, is_temporary: u32) -> u32 {
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
        blocks::given_back(process, &block, now, is_temporary != 0);
    } else {
        unmatched(process);
    }
    0
}

/// A block was given back that is not in the table. With sampling most are not, and nothing can be
/// said of them.
#[inline(always)]
fn unmatched(process: u32) {
    if !settings::sampled() {
        process_totals::unmatched(process);
    }
}

/// Whether this is the block that the thread's last call of the allocator has made. It is not after
/// this call.
#[inline(always)]
fn was_last(thread: u32, address: u64) -> bool {
    let Some(last) = LAST_CALLS.get_ptr_mut(&thread) else {
        return false;
    };
    // SAFETY: the entry is this thread's own.
    unsafe {
        let was_last = (*last).block == address;
        (*last).block = 0;
        was_last
    }
}

#[inline(always)]
fn set_last(thread: u32, address: u64) {
    if let Some(last) = last_call(thread) {
        // SAFETY: the entry is this thread's own.
        unsafe { (*last).block = address };
    }
}

/// A thread without calls. A static, since the stack of all functions together has 512 bytes.
static NO_CALLS: LastCall = LastCall {
    block: 0,
    freed: 0,
    stack_pointer: 0,
    return_address: 0,
    probe: 0,
};

/// The last calls of a thread, made if there are none. Least recently used entries make room, so
/// that it fails only when two CPUs are at it: one figure of temporary blocks is then too low.
#[inline(always)]
fn last_call(thread: u32) -> Option<*mut LastCall> {
    if let Some(last) = LAST_CALLS.get_ptr_mut(&thread) {
        return Some(last);
    }
    LAST_CALLS.insert(&thread, &NO_CALLS, 0).ok()?;
    LAST_CALLS.get_ptr_mut(&thread)
}

/// Keeps a call of a function that gives a block back and may go on by a tail call to another that
/// does. False if there is no room.
#[inline(always)]
pub(crate) fn push_freed(key: &CallKey, return_address: u64, block: u64, probe: u64) -> bool {
    let Some(last) = last_call(key.thread) else {
        return false;
    };
    // SAFETY: the entry is this thread's own.
    unsafe {
        (*last).freed = block;
        (*last).stack_pointer = key.stack_pointer;
        (*last).return_address = return_address;
        (*last).probe = probe;
    }
    true
}

/// Whether a hit of a function that gives a block back continues the last call that was kept, which
/// is then taken out.
#[inline(always)]
pub(crate) fn pop_freed(
    spec: &ProbeSpec,
    key: &CallKey,
    return_address: u64,
    block: u64,
    probe: u64,
) -> bool {
    if spec.flags & ProbeSpec::MAY_BE_TAIL_CALLED == 0 || block == 0 {
        return false;
    }
    let Some(last) = LAST_CALLS.get_ptr_mut(&key.thread) else {
        return false;
    };
    // SAFETY: the entry is this thread's own.
    unsafe {
        // Another tracer's probe of returns may have come between.
        let returns_alike =
            (*last).return_address == return_address || trampoline::is_trampoline(return_address);
        let continues = (*last).freed == block
            && (*last).stack_pointer == key.stack_pointer
            && (*last).probe != probe
            && returns_alike;
        if continues {
            (*last).freed = 0;
        }
        continues
    }
}
