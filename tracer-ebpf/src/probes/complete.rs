//! Calls met inside their functions, at an instruction that has the result: with the size it is the only one that the call
//! meets, without it the second.
//!
//! Where everything is depends on the build of the library: user space has read its code. That is for functions that return
//! a block and take none.

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
    loss::{count, lose},
    settings, thread_stack,
    unwind::{Slot, Start},
};

/// An instruction that has the size and the result.
#[uprobe]
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
        lose(loss);
    }
    0
}

/// An instruction that has the result of a call whose size was met before.
#[uprobe]
pub(crate) fn call_result(ctx: ProbeContext) -> u32 {
    thread_stack::require(&ctx);
    let Some(spec) = operands::spec(&ctx) else {
        hit::unknown(&ctx);
        return 0;
    };
    // A call that was captured is decided whatever is captured now, and is no event of its own.
    if hit::begin(&ctx, None) {
        hit::pass_over();
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
    let failed = result == 0;
    let mut amount = aggregate::amount(if failed { 0 } else { request.bytes }, weight);
    if failed {
        amount.failed = amount.calls;
    }
    let mut sum = SumKey {
        stack: 0,
        process: hit.process,
        function: spec.function,
    };
    let Some(slot) = slot else {
        aggregate::add_without_stack(&sum, &amount);
        return Err(Loss::ScratchBusy);
    };
    sum.stack = slot.unreadable(&start);
    aggregate::add(&slot, &sum, &amount);
    Ok(())
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
