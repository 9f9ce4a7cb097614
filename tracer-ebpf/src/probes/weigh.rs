//! Sampling, at the entry of an allocator: what a call stands for, before anything is done that takes time.

use aya_ebpf::{bindings::pt_regs, helpers::bpf_probe_read_user};
use tracer_ebpf::{CallKey, Counter, Loss, ProbeSite, TailCall, TailKey};

use super::{Request, hit::Hit};
use crate::{
    heap,
    loss::{count, lose},
    sampler, settings, tail_call,
};

/// What a call stands for, before its stack is looked at; 0: it is not followed, and its hit has been counted.
///
/// A call that may go on by a jump leaves its mark whether or not it is sampled, and whoever finds one takes it: a hit that
/// is the same call must never be weighed as one of its own.
#[inline(always)]
pub(super) fn weigh(regs: &pt_regs, hit: &Hit, request: &Request) -> Result<u64, Loss> {
    let &Hit {
        process,
        thread,
        site,
    } = hit;
    let stack_pointer = regs.rsp + site.pushed_bytes as u64;
    let place = CallKey {
        stack_pointer,
        thread,
        reserved: 0,
    };
    let is_passed_on = if settings::live() {
        heap::look(site, &place)
    } else {
        look_at_jumps(regs, site, request, stack_pointer, thread)
    };
    if is_passed_on {
        count(Counter::Nested);
        return Ok(0);
    }
    let (weight, otherwise) = if settings::wants_size(request.bytes) {
        (sampler::weigh(request.bytes), Counter::Unsampled)
    } else {
        (0, Counter::Filtered)
    };
    if weight != 0 {
        return Ok(weight);
    }
    if settings::live() {
        heap::pass_over(site, request, &place, process, regs.rip, otherwise)?;
    } else {
        count(otherwise);
    }
    Ok(0)
}

/// What a call stands for that is met inside its function; if it is not followed, as what it is counted.
#[inline(always)]
pub(super) fn inside(request: &Request) -> Result<u64, Counter> {
    if !settings::wants_size(request.bytes) {
        return Err(Counter::Filtered);
    }
    match sampler::weigh(request.bytes) {
        0 => Err(Counter::Unsampled),
        weight => Ok(weight),
    }
}

/// Takes and leaves the marks of jumps. True if the call was passed on by one. The return address is read only where there
/// is a mark to compare it with, or to make.
#[inline(always)]
fn look_at_jumps(
    regs: &pt_regs,
    site: &ProbeSite,
    request: &Request,
    stack_pointer: u64,
    thread: u32,
) -> bool {
    let key = TailKey {
        stack_pointer,
        thread,
        reserved: 0,
    };
    let makes = request.passes_on(site);
    if !makes && !tail_call::may_take(site, &key) {
        return false;
    }
    // SAFETY: the helper checks the user's address.
    let Ok(return_address) = (unsafe { bpf_probe_read_user(stack_pointer as *const u64) }) else {
        return false;
    };
    let call = TailCall {
        return_address,
        bytes: request.bytes,
        block: request.block,
        probe: regs.rip,
    };
    let is_passed_on = tail_call::take(site, &key, &call);
    // A function in the middle of a chain of jumps passes the call on.
    if makes && !tail_call::make(&key, &call) {
        lose(Loss::TailMapFull);
    }
    is_passed_on
}
