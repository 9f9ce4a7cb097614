//! Calls met inside their functions, at an instruction that has the result: with the size it is the
//! only one that the call meets, without it the second.
//!
//! Where everything is depends on the build of the library: user space has read its code. That is
//! for functions that return a block and take none.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::uprobe, programs::ProbeContext};
use tracer_ebpf::{CallKey, Counter, Loss, ProbeSpec, SumKey};

use super::{
    call::{call_key, read_stack_top, start},
    hit,
    operands::{self, RETURN_ADDRESS_BYTES, Request, called_by_allocator, cfa, regs, value},
    sampling,
};
use crate::{
    aggregate, heap,
    loss::{count, count_loss},
    settings, thread_stack,
    unwind::{Slot, Start},
};

/// An instruction that has the size and the result.
#[uprobe]
#[inline(always)]
pub(crate) fn call_complete(ctx: ProbeContext) -> u32 {
    thread_stack::require(&ctx);
    let Some(spec) = operands::spec(&ctx) else {
        hit::unknown(&ctx);
        return 0;
    };
    let request = Request::read(regs(&ctx), spec);
    if hit::begin(&ctx, Some(request.bytes))
        && let Err(loss) = try_complete(&ctx, spec, &request)
    {
        count_loss(loss);
    }
    0
}

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
    let cfa = cfa(regs, spec);
    let key = CallKey {
        stack_pointer: cfa - RETURN_ADDRESS_BYTES,
        thread: bpf_get_current_pid_tgid() as u32,
        reserved: 0,
    };
    let result = value(regs, cfa, spec.operands.result);
    heap::finish(&key, |_| result);
    0
}

#[inline(always)]
fn try_complete(ctx: &ProbeContext, spec: &ProbeSpec, request: &Request) -> Result<(), Loss> {
    let Some(hit) = hit::target() else {
        return Ok(());
    };
    let regs = regs(ctx);
    let mut start = start(regs, spec, &hit);
    let key = call_key(&start);
    let result = value(regs, cfa(regs, spec), spec.operands.result);
    if heap::is_continuation(spec, &key, start.instruction) {
        heap::finish(&key, |_| result);
        count(Counter::Nested);
        return Ok(());
    }
    let weight = if settings::sampled() {
        match sampling::weight_or_counter(request.bytes) {
            Ok(weight) => weight,
            Err(counter) => {
                heap::skip(&key, counter);
                return Ok(());
            }
        }
    } else {
        1
    };
    let slot = Slot::take(hit.thread);
    if let Some(slot) = &slot
        && let Some(return_address) = read_stack_top(slot, regs, spec, &mut start)
    {
        complete(slot, spec, request, &start, return_address, result, weight as u32);
        return Ok(());
    }
    let whose = (hit.process as u64) << 32 | spec.function as u64;
    let failed = u64::from(result == 0);
    let bytes = if result == 0 { 0 } else { request.bytes };
    let Some(slot) = slot else {
        add_unwalked(NO_SLOT, 0, whose, bytes, weight << 1 | failed);
        return Err(Loss::ScratchBusy);
    };
    let stack = slot.unreadable(&start);
    add_unwalked(slot.index(), stack, whose, bytes, weight << 1 | failed);
    Ok(())
}

/// In place of a slot's index: no slot was free.
const NO_SLOT: u32 = u32::MAX;

/// Adds a call whose stack could not be read, or had no room. `whose`: the process, and in the
/// lower half the function. `weight_failed`: the weight, and in the lowest bit whether the call has
/// failed.
///
/// A global function, so that its variables are not on the stack while one is walked. Its answer is
/// nothing: the verifier wants a number.
// SAFETY: no other symbol has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn add_unwalked(
    slot: u32,
    stack: u64,
    whose: u64,
    bytes: u64,
    weight_failed: u64,
) -> u32 {
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

/// Follows the block of a call.
#[inline(always)]
fn complete(
    slot: &Slot,
    spec: &ProbeSpec,
    request: &Request,
    start: &Start,
    return_address: u64,
    result: u64,
    weight: u32,
) {
    let distance = return_address.wrapping_sub(start.instruction).cast_signed();
    if called_by_allocator(spec, distance) {
        count(Counter::Nested);
        return;
    }
    if !settings::wants_size(request.bytes) {
        count(Counter::Filtered);
        return;
    }
    let sum = SumKey {
        stack: slot.walk_from_entry(start, return_address),
        process: start.process,
        function: spec.function,
    };
    heap::complete(slot, spec, request, &call_key(start), &sum, result, weight);
}
