//! Calls that no sample point fell into: they leave no block, and may take one away.

use aya_ebpf::helpers::bpf_probe_read_user;
use tracer_ebpf::{BlockKey, CallKey, Counter, Loss, ProbeSite, STACK_LOST, SumKey};

use super::{blocks, forget, is_passed_on, may_pass_on, pass_on, wait, was_last};
use crate::{
    loss::count,
    maps::CALLS,
    probes::{Request, called_by_allocator},
    unwind::Slot,
};

/// Looks what an earlier call has left at a call's place, before it is decided whether the call is sampled. True if this
/// is that call, passed on by a jump; else what was left is forgotten.
#[inline(always)]
pub(crate) fn look(site: &ProbeSite, place: &CallKey) -> bool {
    if CALLS.get_ptr(place).is_none() {
        return false;
    }
    // SAFETY: the helper checks the user's address.
    let return_address = unsafe { bpf_probe_read_user(place.stack_pointer as *const u64) };
    if return_address.is_ok_and(|address| is_passed_on(site, place, address)) {
        return true;
    }
    forget(place);
    false
}

/// A call that is not followed, and is counted as `counter`. Its return is awaited only where that matters: it resizes a block
/// that is followed, or may be met again, passed on by a jump. `instruction` is the probe's address.
#[inline(always)]
pub(crate) fn pass_over(
    site: &ProbeSite,
    request: &Request,
    place: &CallKey,
    process: u32,
    instruction: u64,
    counter: Counter,
) -> Result<(), Loss> {
    let resizes = request.block != 0
        && blocks::may_have(&BlockKey {
            address: request.block,
            process,
            reserved: 0,
        });
    let returns = site.tail & ProbeSite::ENTRY_ONLY == 0;
    if !(returns && (resizes || request.may_be_met_again(site))) {
        // The thread's next call is not the next of what it allocated before.
        was_last(place.thread, 0);
        count(counter);
        return Ok(());
    }
    // SAFETY: the helper checks the user's address.
    let return_address = unsafe { bpf_probe_read_user(place.stack_pointer as *const u64) }.unwrap_or(0);
    let slot = Slot::take(place.thread).ok_or(Loss::ScratchBusy)?;
    if called_by_allocator(site, return_address.wrapping_sub(instruction).cast_signed()) {
        if may_pass_on(site) {
            pass_on(&slot, place, return_address);
        }
        count(Counter::Nested);
        return Ok(());
    }
    let key = SumKey {
        stack: STACK_LOST,
        process,
        function: site.function,
    };
    if wait(&slot, site, request, place, &key, return_address, 0) {
        count(counter);
    }
    Ok(())
}
