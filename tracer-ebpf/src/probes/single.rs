//! Calls to allocators, met inside the function at a place that tells what is asked for, what is given, or both.
//!
//! What a place tells depends on the build of the library: user space has read its code, and says in `SINGLES` where
//! everything is. That is for functions that return a block and take none.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated::bpf_get_attach_cookie},
    macros::uprobe,
    programs::ProbeContext,
};
use tracer_ebpf::{CallKey, Counter, Loss, ProbeSite, SingleSite, SumKey};

use super::{
    alloc::{Request, begin, called_by_allocator, product, regs},
    hit, weigh,
};
use crate::{
    aggregate,
    bounds::opaque,
    heap,
    loss::{count, lose},
    maps::SINGLES,
    settings, thread_stack, trampoline,
    unwind::{Slot, Start},
};

/// A place that has the size and the result.
#[uprobe]
#[inline(always)]
pub(crate) fn single(ctx: ProbeContext) -> u32 {
    hit(&ctx, true)
}

/// A place that has the size; the call meets one that has the result later.
#[uprobe]
#[inline(always)]
pub(crate) fn single_request(ctx: ProbeContext) -> u32 {
    hit(&ctx, false)
}

/// A place that has the result of a call whose size was met before.
#[uprobe]
#[inline(always)]
pub(crate) fn single_result(ctx: ProbeContext) -> u32 {
    thread_stack::require(&ctx);
    let is_taken_in = hit::begin(&ctx, None);
    let Some(single) = described(&ctx) else {
        if is_taken_in {
            lose(Loss::UnknownSite);
        }
        return 0;
    };
    // A call that was taken in is decided whatever is taken in now, and is no event of its own.
    if is_taken_in {
        hit::pass_over();
    }
    let regs = regs(&ctx);
    let cfa = regs.rsp + single.depth_bytes as u64;
    let place = CallKey {
        stack_pointer: cfa - RETURN_ADDRESS_BYTES,
        thread: bpf_get_current_pid_tgid() as u32,
        reserved: 0,
    };
    heap::decide(&place, value(regs, cfa, single.result));
    0
}

/// The return address lies so far below the CFA.
const RETURN_ADDRESS_BYTES: u64 = 8;

#[inline(always)]
fn hit(ctx: &ProbeContext, is_whole: bool) -> u32 {
    thread_stack::require(ctx);
    let Some(single) = described(ctx) else {
        if hit::begin(ctx, None) {
            lose(Loss::UnknownSite);
        }
        return 0;
    };
    let request = request(regs(ctx), single);
    if hit::begin(ctx, Some(request.bytes))
        && let Err(loss) = try_hit(ctx, single, &request, is_whole)
    {
        lose(loss);
    }
    0
}

#[inline(always)]
fn try_hit(ctx: &ProbeContext, single: &SingleSite, request: &Request, is_whole: bool) -> Result<(), Loss> {
    let Some(hit) = hit::target(ctx)? else {
        return Ok(());
    };
    let regs = regs(ctx);
    let cfa = regs.rsp + single.depth_bytes as u64;
    let mut start = Start {
        thread: hit.thread,
        process: hit.process,
        instruction: regs.rip.wrapping_sub(single.distance.cast_unsigned()),
        stack_pointer: cfa - RETURN_ADDRESS_BYTES,
        frame_pointer: 0,
    };
    let place = CallKey {
        stack_pointer: start.stack_pointer,
        thread: hit.thread,
        reserved: 0,
    };
    let result = if is_whole {
        value(regs, cfa, single.result)
    } else {
        0
    };
    if heap::is_known(hit.site, &place, start.instruction) {
        if is_whole {
            heap::decide(&place, result);
        }
        count(Counter::Nested);
        return Ok(());
    }
    let weight = if settings::sampled() {
        match weigh::inside(request) {
            Ok(weight) => weight,
            Err(counter) => {
                heap::pass(&place, counter);
                return Ok(());
            }
        }
    } else {
        1
    };
    let slot = Slot::take(hit.thread);
    if let Some(slot) = &slot
        && slot.look_inside(regs)
        && let Some(frame_pointer) = frame_pointer(slot, regs, cfa, single.frame_pointer)
        && let Some(mut return_address) = slot.word(start.stack_pointer)
    {
        start.frame_pointer = frame_pointer;
        if trampoline::is_taken(return_address) {
            return_address = trampoline::taken_return(start.stack_pointer);
        }
        if is_whole {
            whole(
                slot,
                hit.site,
                request,
                &start,
                return_address,
                result,
                weight as u32,
            );
        } else {
            begin(slot, hit.site, request, &start, return_address, weight as u32);
        }
        return Ok(());
    }
    let failed = is_whole && result == 0;
    let mut amount = aggregate::amount(if failed { 0 } else { request.bytes }, weight);
    if failed {
        amount.failed = amount.calls;
    }
    let mut key = SumKey {
        stack: 0,
        process: hit.process,
        function: hit.site.function,
    };
    let Some(slot) = slot else {
        aggregate::add_without_stack(&key, &amount);
        return Err(Loss::ScratchBusy);
    };
    key.stack = slot.unreadable(&start);
    aggregate::add(&slot, &key, &amount);
    Ok(())
}

/// Follows a call that is met once.
#[inline(always)]
fn whole(
    slot: &Slot,
    site: &ProbeSite,
    request: &Request,
    start: &Start,
    return_address: u64,
    result: u64,
    weight: u32,
) {
    if called_by_allocator(site, return_address.wrapping_sub(start.instruction).cast_signed()) {
        count(Counter::Nested);
        return;
    }
    if !settings::wants_size(request.bytes) {
        count(Counter::Filtered);
        return;
    }
    let key = SumKey {
        stack: slot.walk_from_entry(start, return_address),
        process: start.process,
        function: site.function,
    };
    let place = CallKey {
        stack_pointer: start.stack_pointer,
        thread: start.thread,
        reserved: 0,
    };
    heap::whole(slot, site, request, &place, &key, result, weight);
}

/// What user space says of the place that was met.
#[inline(always)]
fn described(ctx: &ProbeContext) -> Option<&'static SingleSite> {
    // SAFETY: the context is this program's own.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.regs.cast()) };
    let single = SINGLES.get_ptr((cookie >> 32) as u32)?;
    // SAFETY: the pointer is to a map value that the loader wrote before it attached the probe.
    Some(unsafe { &*single })
}

/// What the call asks for.
#[inline(always)]
fn request(regs: &pt_regs, single: &SingleSite) -> Request {
    let cfa = regs.rsp + single.depth_bytes as u64;
    let size = value(regs, cfa, single.size);
    let bytes = if single.count != 0 {
        product(value(regs, cfa, single.count), size)
    } else if single.high != 0 {
        (value(regs, cfa, single.high) == 0).then_some(size)
    } else {
        Some(size)
    };
    Request::of_block(bytes)
}

/// The caller's frame pointer.
#[inline(always)]
fn frame_pointer(slot: &Slot, regs: &pt_regs, cfa: u64, place: u32) -> Option<u64> {
    if place & SingleSite::SLOT != 0 {
        slot.word(cfa - (place & SingleSite::SLOT_BYTES) as u64)
    } else {
        Some(register(regs, place))
    }
}

/// The value at a place; 0 where it cannot be read.
#[inline(always)]
fn value(regs: &pt_regs, cfa: u64, place: u32) -> u64 {
    if place & SingleSite::SLOT != 0 {
        let address = cfa - (place & SingleSite::SLOT_BYTES) as u64;
        // SAFETY: the helper checks the user's address.
        unsafe { bpf_probe_read_user(address as *const u64) }.unwrap_or(0)
    } else if place & SingleSite::REGISTER != 0 {
        register(regs, place)
    } else {
        0
    }
}

/// The register whose number is in the lowest bits. One load for each, which LLVM must not make one of: the context can
/// only be read at offsets that the verifier knows.
#[inline(always)]
fn register(regs: &pt_regs, place: u32) -> u64 {
    match place & 15 {
        0 => opaque(regs.rax),
        1 => opaque(regs.rcx),
        2 => opaque(regs.rdx),
        3 => opaque(regs.rbx),
        4 => opaque(regs.rsp),
        5 => opaque(regs.rbp),
        6 => opaque(regs.rsi),
        7 => opaque(regs.rdi),
        8 => opaque(regs.r8),
        9 => opaque(regs.r9),
        10 => opaque(regs.r10),
        11 => opaque(regs.r11),
        12 => opaque(regs.r12),
        13 => opaque(regs.r13),
        14 => opaque(regs.r14),
        _ => opaque(regs.r15),
    }
}
