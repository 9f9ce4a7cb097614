//! Calls that are met once, at an instruction that has the size and the result.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tracer_ebpf::{CallKey, Counter, ProbeSpec, SumKey};

use super::{CallSite, keep, note, sums, was_last};
use crate::{loss::count, probes::Request, unwind::Slot};

/// Skips a call, which is counted as `counter`.
#[inline(always)]
pub(crate) fn skip(key: &CallKey, counter: Counter) {
    // The thread's next call is not the next of what it allocated before.
    was_last(key.thread, 0);
    count(counter);
}

/// Counts a call that stands for `weight` of its kind, and follows its block. The stack has been
/// walked and is in the slot. `address`: of the block, or 0 for a call that has failed.
#[inline(always)]
pub(crate) fn complete(
    slot: &Slot,
    spec: &ProbeSpec,
    request: &Request,
    key: &CallKey,
    sum: &SumKey,
    address: u64,
    weight: u32,
) {
    // SAFETY: the slot is the caller's.
    let call = unsafe { &mut (*slot.scratch()).call };
    // Nothing waits for its return.
    let nowhere = CallSite {
        probe: 0,
        return_address: 0,
    };
    note(call, spec, request, sum, nowhere, weight);
    add_complete(slot.index(), key.thread, address);
    count(Counter::Recorded);
}

/// Adds the call in a slot, and follows its block.
///
/// A global function, so that its variables are not on the stack while one is walked, and the
/// verifier checks it once. Its answer is nothing: the verifier wants a number.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn add_complete(slot: u32, thread: u32, address: u64) -> u32 {
    let Some(slot) = Slot::borrowed(slot) else {
        return 0;
    };
    // SAFETY: the caller owns the slot of this index on this CPU; programs do not migrate.
    let call = unsafe { &(*slot.scratch()).call };
    sums::add_whole(&slot, call, address);
    // The clock is read here and not before: Linux 6.1 has no room for one variable more on the
    // stacks of the programs that walk.
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    keep(call, thread, address, now);
    0
}
