//! The results of calls inside their functions, at an instruction that has the result: with the
//! size it is the only one that the call meets, without it the second.
//!
//! The places of all values depend on the build of the library: user space has read its code. They
//! are of functions that return a block and take none.

use aya_ebpf::{
    bindings::pt_regs, helpers::bpf_get_current_pid_tgid, macros::uprobe, programs::ProbeContext,
};
use tracer_ebpf::{CallKey, ProbeSpec, SumKey};

use super::{
    hit::{self, Hit},
    operands::{self, RETURN_ADDRESS_BYTES, Request, cfa, regs, value},
};
use crate::{aggregate, heap, settings, thread_stack, unwind::Slot};

/// An instruction that has the result of a call whose size was met before.
#[uprobe]
#[inline(always)]
pub(crate) fn call_result(ctx: ProbeContext) -> u32 {
    thread_stack::require(&ctx);
    let Some(spec) = operands::spec(&ctx) else {
        hit::unknown(&ctx);
        return 0;
    };
    // A call that was captured is decided whatever is captured now, and is no event of its own.
    if hit::begin(&ctx, None) {
        hit::count_skipped();
    }
    let regs = regs(&ctx);
    let key = CallKey {
        stack_pointer: cfa(regs, spec) - RETURN_ADDRESS_BYTES,
        thread: bpf_get_current_pid_tgid() as u32,
        reserved: 0,
    };
    let result = result(regs, spec);
    heap::finish(&key, |_| result);
    0
}

/// Returns true if the instruction has the result of the call. Never for a recording that follows
/// no blocks.
///
/// It is read from memory each time: the verifier would look at all that follows once for each
/// answer that it remembers.
#[inline(always)]
pub(super) fn has_result(spec: &ProbeSpec) -> bool {
    // SAFETY: a reference to a map value.
    settings::live() && !unsafe { core::ptr::read_volatile(&raw const spec.operands.result) }.is_none()
}

/// The result: the address of the block, or 0 for a call that has failed.
#[inline(always)]
pub(super) fn result(regs: &pt_regs, spec: &ProbeSpec) -> u64 {
    value(regs, cfa(regs, spec), spec.operands.result)
}

/// In place of a slot's index: no slot was free.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// Adds a call of so much weight whose stack could not be read, or had no room.
#[inline(always)]
pub(super) fn add_unwalked(
    slot: u32,
    stack: u64,
    regs: &pt_regs,
    spec: &ProbeSpec,
    hit: &Hit,
    request: &Request,
    weight: u64,
) {
    let failed = has_result(spec) && result(regs, spec) == 0;
    let bytes = if failed { 0 } else { request.bytes };
    let whose = (hit.process as u64) << 32 | spec.function as u64;
    add_without_walk(slot, stack, whose, bytes, weight << 1 | u64::from(failed));
}

/// Adds a call without a walked stack. `whose`: the process, and in the lower half the function.
/// `weight_failed`: the weight, and in the lowest bit whether the call has failed.
///
/// A global function, so that its variables are not on the stack while one is walked. Its answer is
/// nothing: the verifier wants a number.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn add_without_walk(slot: u32, stack: u64, whose: u64, bytes: u64, weight_failed: u64) -> u32 {
    let mut amount = aggregate::amount(bytes, weight_failed >> 1);
    if weight_failed & 1 != 0 {
        amount.failed = amount.calls;
    }
    let sum = SumKey {
        stack,
        process: (whose >> 32) as u32,
        function: whose as u32,
    };
    match Slot::borrowed(slot) {
        Some(slot) => aggregate::add(&slot, &sum, &amount),
        None => aggregate::add_without_stack(&sum, &amount),
    }
    0
}
