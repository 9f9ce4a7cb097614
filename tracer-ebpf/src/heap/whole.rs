//! Calls that are met once, at a place inside the function that has the size and the result.

use aya_ebpf::helpers::{bpf_probe_read_user, generated::bpf_ktime_get_ns};
use tracer_ebpf::{CallKey, Counter, ProbeSite, SumKey};

use super::{finish, forget, keep, note, sums, was_last};
use crate::{
    loss::count,
    maps::CALLS,
    probes::{Request, called_by_allocator},
    unwind::Slot,
};

/// Whether what is met is a call that is known already, which another function has passed on by a jump: that one returns
/// what this one does. What an earlier call has left at the place is forgotten. `instruction` is the one that the site's
/// callers are told from.
#[inline(always)]
pub(crate) fn is_known(site: &ProbeSite, place: &CallKey, instruction: u64) -> bool {
    // SAFETY: the value is compared at once, and only this thread changes it.
    let Some(begun_to_return_to) = (unsafe { CALLS.get(place) }).map(|call| call.return_address) else {
        return false;
    };
    if site.tail & ProbeSite::TAIL_TAKES != 0
        // SAFETY: the helper checks the user's address.
        && let Ok(return_address) = unsafe { bpf_probe_read_user(place.stack_pointer as *const u64) }
        && begun_to_return_to != return_address
        && !called_by_allocator(site, return_address.wrapping_sub(instruction).cast_signed())
    {
        return true;
    }
    forget(place);
    false
}

/// Decides a call that is known already.
#[inline(always)]
pub(crate) fn decide(place: &CallKey, result: u64) {
    finish(place, |_| result);
}

/// A call that is not followed, and is counted as `counter`.
#[inline(always)]
pub(crate) fn pass(place: &CallKey, counter: Counter) {
    // The thread's next call is not the next of what it allocated before.
    was_last(place.thread, 0);
    count(counter);
}

/// Counts a call that stands for `weight` of its kind, and follows its block. The stack has been walked and is in the slot.
/// `address`: of the block, or 0 for a call that has failed.
#[inline(always)]
pub(crate) fn whole(
    slot: &Slot,
    site: &ProbeSite,
    request: &Request,
    place: &CallKey,
    key: &SumKey,
    address: u64,
    weight: u32,
) {
    // SAFETY: the slot is the caller's.
    let call = unsafe { &mut (*slot.scratch()).call };
    // Nothing waits for its return.
    note(call, site, request, key, 0, weight);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    sums::add_whole(slot, call, address);
    keep(call, place.thread, address, now);
    count(Counter::Tallied);
}
