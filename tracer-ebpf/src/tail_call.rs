//! Tail calls: `reallocarray` ends in a jump to `realloc`, `realloc(NULL, n)` in one to `malloc`.
//! Such a call hits two probes, with the same return address at the same place of the stack, and is
//! one call.
//!
//! Where blocks are followed, every call is pending until it returns. Where they are not, only
//! those are that may go on by a tail call, until the function that they go on to is hit; those
//! that do not go on leave their entries behind, and the table makes room for new ones by evicting
//! the oldest.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_ebpf::{Block, CallKey, OPEN_CALLS_LEN, PendingCall, ProbeSpec, SumKey};

use crate::{
    atomic,
    maps::{OPEN_CALLS, PENDING_CALLS},
    probes::Request,
    trampoline,
};

/// The counter of pending calls of this thread and of those few that share it, which is nobody
/// else's cache line. Mostly it is 0, and the table need not be asked.
#[inline(always)]
fn open_calls(thread: u32) -> Option<*mut u64> {
    let row = OPEN_CALLS.get_ptr_mut(thread & (OPEN_CALLS_LEN - 1))?;
    Some(row.cast())
}

/// Whether [`pop_matching`] may find anything.
#[inline(always)]
pub(crate) fn may_match(spec: &ProbeSpec, key: &CallKey) -> bool {
    spec.flags & ProbeSpec::MAY_BE_TAIL_CALLED != 0
        // SAFETY: a pointer to a map value; volatile, since other threads may count in it.
        && open_calls(key.thread).is_some_and(|open| unsafe { core::ptr::read_volatile(open) } != 0)
        && PENDING_CALLS.get_ptr(key).is_some()
}

/// Takes out the pending call that a hit continues. False if the hit is a call of its own.
#[inline(always)]
pub(crate) fn pop_matching(
    spec: &ProbeSpec,
    request: &Request,
    key: &CallKey,
    return_address: u64,
    probe: u64,
) -> bool {
    if spec.flags & ProbeSpec::MAY_BE_TAIL_CALLED == 0 {
        return false;
    }
    // SAFETY: a pointer to a map value; volatile, since other threads may count in it. What this
    // thread has opened was counted before it came here.
    if open_calls(key.thread).is_none_or(|open| unsafe { core::ptr::read_volatile(open) } == 0) {
        return false;
    }
    pop_pending_call(
        key.stack_pointer,
        return_address,
        request.bytes,
        request.block,
        probe,
    ) != 0
}

/// Makes a call pending that may go on by a tail call. False if the table has no room.
#[inline(always)]
pub(crate) fn push(request: &Request, key: &CallKey, return_address: u64, probe: u64) -> bool {
    push_pending_call(
        key.stack_pointer,
        return_address,
        request.bytes,
        request.block,
        probe,
    ) != 0
}

/// Takes out the call of this thread that is pending at a stack pointer, if the hit of `probe`
/// continues it: 1.
///
/// A global function, so that the verifier checks it once, and not with all that comes after it.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn pop_pending_call(
    stack_pointer: u64,
    return_address: u64,
    bytes: u64,
    block: u64,
    probe: u64,
) -> u32 {
    let key = CallKey {
        stack_pointer,
        thread: bpf_get_current_pid_tgid() as u32,
        reserved: 0,
    };
    let Some(outer) = PENDING_CALLS.get_ptr(&key) else {
        return 0;
    };
    // SAFETY: a pointer to a map value, which only this thread changes.
    let outer = unsafe { &*outer };
    // `pvalloc` rounds the size up before it passes it on; another tracer's probe of returns may
    // have come between.
    let returns_alike = outer.return_address == return_address || trampoline::is_trampoline(return_address);
    if !returns_alike || outer.bytes > bytes || outer.old_address != block || outer.probe == probe {
        return 0;
    }
    if PENDING_CALLS.remove(&key).is_err() {
        return 0;
    }
    if let Some(open) = open_calls(key.thread) {
        // SAFETY: a pointer to a map value; the matching addition is in `push_pending_call`.
        unsafe { atomic::add(open, 1u64.wrapping_neg()) };
    }
    1
}

/// Makes a call of this thread pending at a stack pointer. 0 if the table has no room.
///
/// A global function, so that the record is not on the stack while one is walked.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn push_pending_call(
    stack_pointer: u64,
    return_address: u64,
    bytes: u64,
    block: u64,
    probe: u64,
) -> u32 {
    let key = CallKey {
        stack_pointer,
        thread: bpf_get_current_pid_tgid() as u32,
        reserved: 0,
    };
    let call = PendingCall {
        key: SumKey {
            stack: 0,
            process: 0,
            function: 0,
        },
        bytes,
        return_address,
        probe,
        out: 0,
        old_address: block,
        old: Block {
            stack: 0,
            bytes: 0,
            time_ns: 0,
            weight: 0,
            function: 0,
            is_gone: 0,
        },
        flags: 0,
        weight: 0,
    };
    // A call that failed before its tail call leaves an entry behind, which this one replaces.
    let is_new = PENDING_CALLS.get_ptr(&key).is_none();
    if PENDING_CALLS.insert(&key, &call, 0).is_err() {
        return 0;
    }
    if is_new && let Some(open) = open_calls(key.thread) {
        // SAFETY: a pointer to a map value.
        unsafe { atomic::add(open, 1) };
    }
    1
}
