//! Sampling, where a call begins: what the call stands for, before anything is done that takes
//! time.

use aya_ebpf::helpers::bpf_probe_read_user;
use tracer_ebpf::{CallKey, Counter, Loss, ProbeSpec};

use super::operands::Request;
use crate::{
    heap,
    loss::{count, count_loss},
    sampler, settings, tail_call,
    unwind::Start,
};

/// The weight of a call, before its stack is looked at; 0: it is not followed, and its hit has been
/// counted.
///
/// A call that may go on by a tail call becomes pending whether or not it is sampled, and whoever
/// finds it pending takes it: a hit that is the same call must never be weighed as one of its own.
#[inline(always)]
pub(super) fn sample_weight(
    probe: u64,
    spec: &ProbeSpec,
    request: &Request,
    key: &CallKey,
    start: &Start,
) -> Result<u64, Loss> {
    if !settings::live() && is_continuation(probe, spec, request, key) {
        count(Counter::Nested);
        return Ok(0);
    }
    let counter = match weight_or_counter(request.bytes) {
        Ok(weight) => return Ok(weight),
        Err(counter) => counter,
    };
    if settings::live() {
        heap::count_skipped(spec, request, key, start, probe, counter)?;
    } else {
        count(counter);
    }
    Ok(0)
}

/// The weight of a call that asks for so many bytes; if it is not followed, the counter of its hit.
#[inline(always)]
pub(super) fn weight_or_counter(bytes: u64) -> Result<u64, Counter> {
    if !settings::wants_size(bytes) {
        return Err(Counter::Filtered);
    }
    match sampler::sample_weight(bytes) {
        0 => Err(Counter::Unsampled),
        weight => Ok(weight),
    }
}

/// Whether the call was passed on by a tail call; a call that may go on by one becomes pending. The
/// return address is read only where there is a pending call to compare it with, or to make.
#[inline(always)]
fn is_continuation(probe: u64, spec: &ProbeSpec, request: &Request, key: &CallKey) -> bool {
    let may_tail_call = request.may_tail_call(spec);
    if !may_tail_call && !tail_call::may_match(spec, key) {
        return false;
    }
    // SAFETY: the helper checks the user's address.
    let Ok(return_address) = (unsafe { bpf_probe_read_user(key.stack_pointer as *const u64) }) else {
        return false;
    };
    let is_continuation = tail_call::pop_matching(spec, request, key, return_address, probe);
    // A function in the middle of a chain of tail calls passes the call on.
    if may_tail_call && !tail_call::push(request, key, return_address, probe) {
        count_loss(Loss::TailMapFull);
    }
    is_continuation
}
