//! The beginnings of calls: at the entry of an allocator function, or inside it where the size is
//! known. Where the result is known there too, they are all that is met of a call.
//!
//! One program is there for both, since most of it is the walk of the stack, which the kernel would
//! verify a second time for a second program.

use aya_ebpf::{bindings::pt_regs, macros::uprobe, programs::ProbeContext};
use tracer_ebpf::{CallKey, CaptureMode, Counter, Loss, Operand, ProbeSpec, STACK_UNWALKED, SumKey};

use super::{
    hit::{self, Hit},
    operands::{self, RETURN_ADDRESS_BYTES, Request, called_by_allocator, cfa, regs},
    result::{NO_SLOT, add_unwalked, has_result, result},
    sampling::{sample_weight, weight_or_counter},
};
use crate::{
    aggregate, heap,
    loss::{count, count_loss},
    settings, tail_call, thread_stack, trampoline,
    unwind::{Slot, Start},
};

/// The entry of an allocator function, or an instruction inside it at which the size is known, and
/// the result is or is not.
///
/// A uprobe program must return 0: another answer costs the target more.
#[uprobe]
#[inline(always)]
pub(crate) fn call_begin(ctx: ProbeContext) -> u32 {
    thread_stack::require(&ctx);
    let Some(spec) = operands::spec(&ctx) else {
        hit::unknown(&ctx);
        return 0;
    };
    let request = Request::read(regs(&ctx), spec);
    if hit::begin(&ctx, Some(request.bytes))
        && let Err(loss) = try_begin(&ctx, spec, &request)
    {
        count_loss(loss);
    }
    0
}

#[inline(always)]
fn try_begin(ctx: &ProbeContext, spec: &ProbeSpec, request: &Request) -> Result<(), Loss> {
    let Some(hit) = hit::target() else {
        return Ok(());
    };
    let regs = regs(ctx);
    let mut start = start(regs, spec, &hit);
    let key = call_key(&start);
    if settings::live()
        && (settings::sampled() || spec.flags & ProbeSpec::MAY_BE_TAIL_CALLED != 0 || has_result(spec))
        && heap::is_continuation(spec, &key, start.instruction)
    {
        if has_result(spec) {
            heap::finish(&key, |_| result(regs, spec));
        }
        count(Counter::Nested);
        return Ok(());
    }
    let weight = if !settings::sampled() {
        1
    } else if settings::live() && has_result(spec) {
        match weight_or_counter(request.bytes) {
            Ok(weight) => weight,
            Err(counter) => {
                heap::skip(&key, counter);
                return Ok(());
            }
        }
    } else {
        match sample_weight(regs.rip, spec, request, &key, &start)? {
            0 => return Ok(()),
            weight => weight,
        }
    };
    let Hit { process, thread } = hit;
    let Some(slot) = Slot::take(thread) else {
        add_unwalked(NO_SLOT, 0, regs, spec, &hit, request, weight);
        return Err(Loss::ScratchBusy);
    };
    let stack = match read_stack_top(&slot, regs, spec, &mut start) {
        Some(return_address) if settings::live() => {
            follow(&slot, regs, spec, request, &start, return_address, weight as u32);
            return Ok(());
        }
        Some(return_address) => {
            if is_nested(regs.rip, spec, request, &key, &start, return_address) {
                count(Counter::Nested);
                return Ok(());
            }
            if !settings::wants_size(request.bytes) {
                count(Counter::Filtered);
                return Ok(());
            }
            if settings::capture_mode() == CaptureMode::Unwalked.number() {
                let key = SumKey {
                    stack: STACK_UNWALKED,
                    process,
                    function: spec.function,
                };
                aggregate::add_known(&key, &aggregate::amount(request.bytes, weight));
                return Ok(());
            }
            slot.walk_from_entry(&start, return_address)
        }
        None => {
            let stack = slot.unreadable(&start);
            add_unwalked(slot.index(), stack, regs, spec, &hit, request, weight);
            return Ok(());
        }
    };
    #[cfg(feature = "hot-log")]
    aya_log_ebpf::trace!(
        ctx,
        "function {} asks for {} bytes, stack {:x}, process {}",
        spec.function,
        request.bytes,
        stack,
        process
    );
    aggregate::add(
        &slot,
        &SumKey {
            stack,
            process,
            function: spec.function,
        },
        &aggregate::amount(request.bytes, weight),
    );
    Ok(())
}

/// The start of a call's walk, but for the frame pointer.
#[inline(always)]
pub(super) fn start(regs: &pt_regs, spec: &ProbeSpec, hit: &Hit) -> Start {
    Start {
        thread: hit.thread,
        process: hit.process,
        instruction: regs.rip.wrapping_sub(spec.caller_distance.cast_unsigned()),
        stack_pointer: cfa(regs, spec) - RETURN_ADDRESS_BYTES,
        frame_pointer: 0,
    }
}

/// The key of the call that a walk starts at.
#[inline(always)]
pub(super) fn call_key(start: &Start) -> CallKey {
    CallKey {
        stack_pointer: start.stack_pointer,
        thread: start.thread,
        reserved: 0,
    }
}

/// Copies the top of the stack into the slot, from the lowest word that is needed, and completes
/// the start with the caller's frame pointer. Returns the return address; nothing if the stack
/// cannot be read.
#[inline(always)]
pub(super) fn read_stack_top(
    slot: &Slot,
    regs: &pt_regs,
    spec: &ProbeSpec,
    start: &mut Start,
) -> Option<u64> {
    let cfa_bytes = spec.operands.cfa_bytes as u64;
    let frame_pointer = spec.operands.frame_pointer.bits();
    let return_address;
    if frame_pointer & Operand::SLOT != 0 {
        let below = (frame_pointer & Operand::SLOT_BYTES) as u64;
        start.frame_pointer = slot.look(regs, cfa_bytes.wrapping_sub(below))?;
        return_address = slot.word(start.stack_pointer)?;
    } else {
        // Nearly always the register is still the caller's.
        start.frame_pointer = if frame_pointer == Operand::register(5).bits() {
            regs.rbp
        } else {
            operands::register(regs, frame_pointer)
        };
        return_address = slot.look(regs, cfa_bytes - RETURN_ADDRESS_BYTES)?;
    }
    if !trampoline::is_trampoline(return_address) {
        return Some(return_address);
    }
    match trampoline::original_return_address(start.stack_pointer) {
        0 => Some(return_address),
        original => Some(original),
    }
}

/// Whether a call is an allocator's own, or one that another function has passed on by a tail call.
/// Where blocks are not followed: a call that may go on by one becomes pending.
#[inline(always)]
fn is_nested(
    probe: u64,
    spec: &ProbeSpec,
    request: &Request,
    key: &CallKey,
    start: &Start,
    return_address: u64,
) -> bool {
    let mut is_nested =
        called_by_allocator(spec, return_address.wrapping_sub(start.instruction).cast_signed());
    // A sample has looked before.
    if !settings::sampled() {
        is_nested = is_nested || tail_call::pop_matching(spec, request, key, return_address, probe);
        // A function in the middle of a chain of tail calls passes the call on.
        if request.may_tail_call(spec) && !tail_call::push(request, key, return_address, probe) {
            count_loss(Loss::TailMapFull);
        }
    }
    is_nested
}

/// Follows the block of a call.
#[inline(always)]
fn follow(
    slot: &Slot,
    regs: &pt_regs,
    spec: &ProbeSpec,
    request: &Request,
    start: &Start,
    return_address: u64,
    weight: u32,
) {
    let key = call_key(start);
    let distance = return_address.wrapping_sub(start.instruction).cast_signed();
    if called_by_allocator(spec, distance) {
        if !has_result(spec) {
            if heap::may_hide_return(spec) {
                heap::track_nested(slot, &key, return_address);
            } else {
                heap::evict(&key);
            }
        }
        count(Counter::Nested);
        return;
    }
    if !settings::wants_size(request.bytes) {
        if !has_result(spec) {
            heap::evict(&key);
        }
        count(Counter::Filtered);
        return;
    }
    let sum = SumKey {
        stack: slot.walk_from_entry(start, return_address),
        process: start.process,
        function: spec.function,
    };
    if has_result(spec) {
        heap::complete(slot, spec, request, &key, &sum, result(regs, spec), weight);
    // The verifier need not look at this where the flag tells.
    } else if request.block == 0 && spec.flags & ProbeSpec::ENTRY_ONLY != 0 {
        heap::add_unseen(slot, request, &key, &sum, weight);
    } else {
        let site = heap::CallSite {
            probe: regs.rip,
            return_address,
        };
        heap::begin_call(slot, spec, request, &key, &sum, site, weight);
    }
}
