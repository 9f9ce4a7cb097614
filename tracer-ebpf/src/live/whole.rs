//! Calls that are met once, at a place inside the function that has the size and the result.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tracer_ebpf::{CallKey, Counter, ProbeSite, SumKey};

use super::{finish, forget, keep, note, sums};
use crate::{loss::count, maps::CALLS, probes::Request, stack::Slot};

/// Whether what is met is a call that is known already, which another function has passed on by a jump. That one returns
/// what this one does: it is decided here. What an earlier call has left at the place is forgotten.
#[inline(always)]
pub(crate) fn decides_another(site: &ProbeSite, place: &CallKey, return_address: u64, result: u64) -> bool {
    // SAFETY: the value is compared at once, and only this thread changes it.
    let Some(begun_to_return_to) = (unsafe { CALLS.get(place) }).map(|call| call.return_address) else {
        return false;
    };
    if site.tail & ProbeSite::TAIL_TAKES != 0 && begun_to_return_to != return_address {
        finish(place, |_| result);
        return true;
    }
    forget(place);
    false
}

/// Counts a call, and follows its block. The stack has been walked and is in the slot. `address`: of the block, or 0 for a
/// call that has failed.
#[inline(always)]
pub(crate) fn whole(
    slot: &Slot,
    site: &ProbeSite,
    request: &Request,
    place: &CallKey,
    key: &SumKey,
    return_address: u64,
    address: u64,
) {
    // SAFETY: the slot is the caller's.
    let call = unsafe { &mut (*slot.scratch()).call };
    note(call, site, request, key, return_address);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    sums::add_whole(slot, call, address);
    keep(call, place.thread, address, now);
    count(Counter::Tallied);
}
