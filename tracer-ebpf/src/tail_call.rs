//! Tail jumps: `reallocarray` ends in a jump to `realloc`, `realloc(NULL, n)` in one to `malloc`. Such a call
//! hits two probes, with the same return address at the same place of the stack, and is one call.

use tracer_ebpf::{ProbeSite, TailCall, TailKey};

use crate::{
    atomic,
    maps::{TAILS, TAILS_OPEN},
    trampoline,
};

/// Whether [`take`] may find anything: most often not, and it need not be asked what the call is.
#[inline(always)]
pub(crate) fn may_take(site: &ProbeSite, key: &TailKey) -> bool {
    site.tail & ProbeSite::TAIL_TAKES != 0
        // SAFETY: a pointer to a map value; as in `take`.
        && TAILS_OPEN.get_ptr(0).is_some_and(|open| unsafe { core::ptr::read_volatile(open) } != 0)
        // SAFETY: the answer alone is used.
        && unsafe { TAILS.get(key) }.is_some()
}

/// Whether this hit is a call that another function has passed on by a jump. If so it is forgotten: the next
/// hit at the same place is a call of its own.
#[inline(always)]
pub(crate) fn take(site: &ProbeSite, key: &TailKey, call: &TailCall) -> bool {
    if site.tail & ProbeSite::TAIL_TAKES == 0 {
        return false;
    }
    let Some(open) = TAILS_OPEN.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the pointer is to a map value; volatile, since all CPUs count in it. What this thread has opened was counted
    // before it came here.
    if unsafe { core::ptr::read_volatile(open) } == 0 {
        return false;
    }
    // SAFETY: the value is compared at once, and only this thread changes it.
    let Some(outer) = (unsafe { TAILS.get(key) }) else {
        return false;
    };
    // `pvalloc` rounds the size up before it passes it on; another tracer's probe of returns may have come between.
    if (outer.return_address != call.return_address && !trampoline::is_taken(call.return_address))
        || outer.bytes > call.bytes
        || outer.block != call.block
        || outer.probe == call.probe
    {
        return false;
    }
    if TAILS.remove(key).is_err() {
        return false;
    }
    // SAFETY: as above; the matching addition is in `make`.
    unsafe { atomic::add(open, 1u64.wrapping_neg()) };
    true
}

/// Remembers a call that may go on by a jump. False if it cannot be remembered.
#[inline(always)]
pub(crate) fn make(key: &TailKey, call: &TailCall) -> bool {
    // A call that failed before its jump leaves an entry behind, which this one replaces.
    // SAFETY: the answer alone is used.
    let replaced = unsafe { TAILS.get(key) }.is_some();
    if TAILS.insert(key, call, 0).is_err() {
        return false;
    }
    if !replaced && let Some(open) = TAILS_OPEN.get_ptr_mut(0) {
        // SAFETY: the pointer is to a map value.
        unsafe { atomic::add(open, 1) };
    }
    true
}
