//! Calls that no sample point fell into: they leave no block, and may take one away.

use aya_ebpf::helpers::bpf_probe_read_user;
use tracer_ebpf::{BlockKey, CallKey, Counter, Loss, ProbeSpec, STACK_LOST, SumKey};

use super::{CallSite, blocks, may_hide_return, track_nested, wait, was_last};
use crate::{
    loss::count,
    probes::{Request, called_by_allocator},
    unwind::{Slot, Start},
};

/// Skips a call, which is counted as `counter`. Its return is awaited only where that matters: it
/// resizes a block that is followed, or may go on by a tail call.
#[inline(always)]
pub(crate) fn count_skipped(
    spec: &ProbeSpec,
    request: &Request,
    key: &CallKey,
    start: &Start,
    probe: u64,
    counter: Counter,
) -> Result<(), Loss> {
    let process = start.process;
    let resizes = request.block != 0
        && blocks::may_have(&BlockKey {
            address: request.block,
            process,
            reserved: 0,
        });
    let returns = spec.flags & ProbeSpec::ENTRY_ONLY == 0;
    if !(returns && (resizes || request.may_tail_call_any(spec))) {
        // The thread's next call is not the next of what it allocated before.
        was_last(key.thread, 0);
        count(counter);
        return Ok(());
    }
    // SAFETY: the helper checks the user's address.
    let return_address = unsafe { bpf_probe_read_user(key.stack_pointer as *const u64) }.unwrap_or(0);
    let slot = Slot::take(key.thread).ok_or(Loss::ScratchBusy)?;
    let distance = return_address.wrapping_sub(start.instruction).cast_signed();
    if called_by_allocator(spec, distance) {
        if may_hide_return(spec) {
            track_nested(&slot, key, return_address);
        }
        count(Counter::Nested);
        return Ok(());
    }
    let sum = SumKey {
        stack: STACK_LOST,
        process,
        function: spec.function,
    };
    let site = CallSite {
        probe,
        return_address,
    };
    if wait(&slot, spec, request, key, &sum, site, 0) {
        count(counter);
    }
    Ok(())
}
